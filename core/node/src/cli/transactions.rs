//! `towpath transactions …`

use clap::{Args, Subcommand};

use super::{Cluster, PartitionsArgument};

#[derive(Debug, Subcommand)]
pub(crate) enum Transactions {
    /// List transactional ids and how their transactions stand.
    List {
        #[command(flatten)]
        cluster: Cluster,
        /// Only in this state, e.g. Ongoing, PrepareCommit, CompleteAbort (repeatable).
        #[arg(long = "state", value_name = "STATE")]
        states: Vec<String>,
        /// Only those that have been open for longer.
        #[arg(long, value_name = "MINUTES")]
        older_than: Option<u32>,
    },
    /// Describe transactional ids: producer, coordinator, what is open and where.
    Describe {
        #[command(flatten)]
        cluster: Cluster,
        /// The transactional ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Show the idempotent and transactional producers that the partitions of topics remember.
    Producers {
        #[command(flatten)]
        cluster: Cluster,
        /// The topics.
        #[arg(required = true)]
        topics: Vec<String>,
        /// Only those with an open transaction.
        #[arg(long)]
        open: bool,
    },
    /// Find transactions that are open in a partition and that no coordinator will end: `read_committed` consumers do not
    /// get past them.
    Hanging {
        #[command(flatten)]
        cluster: Cluster,
        /// Where to look (default: all topics).
        topics: Vec<String>,
        /// Only those whose last record is older; more than the brokers' `transaction.max.timeout.ms`.
        #[arg(long, value_name = "MINUTES", default_value_t = 20)]
        older_than: u32,
    },
    /// Abort what transactional ids have open, and fence their producers; or abort a transaction that hangs in a partition.
    Abort {
        #[command(flatten)]
        cluster: Cluster,
        /// The transactional ids.
        #[arg(required_unless_present = "partition", conflicts_with = "partition")]
        ids: Vec<String>,
        #[command(flatten)]
        hanging: HangingArgument,
    },
}

/// One that hangs, as `towpath transactions hanging` tells it.
#[derive(Debug, Args)]
pub(crate) struct HangingArgument {
    /// The partition in which it hangs.
    #[arg(long, value_name = "TOPIC:PARTITION", requires = "producer_id")]
    pub(crate) partition: Option<PartitionsArgument>,
    /// The producer that began it.
    #[arg(long, value_name = "ID", requires = "partition")]
    pub(crate) producer_id: Option<i64>,
}
