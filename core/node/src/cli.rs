//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod cluster;
mod mirror;
mod plugin;
mod transactions;

pub(crate) use cluster::{ClusterCommand, PartitionsArgument, QuorumChange, ReassignTo};
pub(crate) use mirror::{Mirror, MirrorCommand, Verify};
pub(crate) use plugin::{Kind as PluginKind, Lang, Plugin};
pub(crate) use transactions::{HangingArgument, Transactions};

use crate::local::{LocalNode, NODES_MAX};

/// What a long-running process logs: what changes, and not who belongs to which group, or what is said anyway.
const LOG_FILTER_UP: &str = "info,openraft=warn,towpath_broker=warn,towpath_coordinator=warn,towpath_runtime::worker=warn,\
                             towpath_runtime::sink_assignment=warn";

/// Move data between databases, services, files and Kafka topics: one process, no JVM.
#[derive(Debug, Parser)]
#[command(name = "towpath", version, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Arguments {
    /// Print machine-readable JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log, as `level` or `target=level,…` (levels: error, warn, info, debug, trace).
    #[arg(long, global = true, env = "TOWPATH_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// The log filter: as asked, or `info` for long-running commands and `warn` for the others.
    pub(crate) fn log_filter(&self) -> &str {
        match (&self.log, &self.command) {
            (Some(filter), _) => filter,
            (None, Command::Up(up)) if !up.until_idle => LOG_FILTER_UP,
            (None, Command::Broker(_)) => LOG_FILTER_UP,
            (None, Command::Mirror(mirror)) if mirror.command.is_none() => LOG_FILTER_UP,
            (None, _) => "warn",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything that the files declare: broker, pipelines, HTTP.
    Up(Up),
    /// Run only the node that the files declare: broker and controller, without their pipelines.
    Broker(Files),
    /// Look for problems in the files; touches nothing else.
    Validate(Files),
    /// Connect to every system that the files name and say what is missing there; changes nothing.
    Check(Files),
    /// Print the JSON Schema of the YAML, for editors.
    Schema,
    /// Topics of a cluster.
    #[command(subcommand)]
    Topics(Topics),
    /// Consumer groups and share groups of a cluster.
    #[command(subcommand)]
    Groups(Groups),
    /// Transactions of a cluster, and the producers that have them.
    #[command(subcommand)]
    Transactions(Transactions),
    /// Brokers, metadata quorum and replicas of a cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Copy topics between clusters: run the mirrors that the files declare, or ask how far they have come.
    Mirror(Mirror),
    /// Show that the target of a mirror has what the source has, or where they begin to differ.
    Verify(Verify),
    /// Write lines from standard input as records.
    Produce(Produce),
    /// Print records.
    Consume(Consume),
    /// Pipelines of a running towpath.
    #[command(subcommand)]
    Pipelines(Pipelines),
    /// Connector types.
    #[command(subcommand)]
    Connectors(Connectors),
    /// Plugins: WASM components that bring connector types of their own.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// YAML files, and directories of YAML files; together they are one configuration.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Refuse plugins that are named by version and not in the lock file (`towpath.lock`), rather than to lock them now.
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) files: Files,
    /// End with 0 when every source has reached its end (or has passed where its database stood when the command
    /// began to wait) and every sink has delivered all of it durably; with 1 if a task failed.
    #[arg(long)]
    pub(crate) until_idle: bool,
    /// Start pipelines that have never run without looking at their systems first; they are tried until they work.
    #[arg(long)]
    pub(crate) no_check: bool,
    /// For development: run so many nodes of one cluster on this machine, each a process of its own with its own
    /// directory below `data_dir`, on the ports that follow those in the files.
    #[arg(long, value_name = "N", conflicts_with = "until_idle",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: Option<u16>,
    /// What `--nodes` tells each of its processes.
    #[arg(long, hide = true, conflicts_with = "nodes")]
    pub(crate) local_node: Option<LocalNode>,
}

/// Which cluster to talk to.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// Brokers to start from.
    #[arg(
        short,
        long,
        env = "TOWPATH_BOOTSTRAP_SERVER",
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub(crate) bootstrap_server: Vec<String>,
}

/// Which running towpath to talk to.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// The HTTP address of a running towpath (`node: http:` in its YAML).
    #[arg(long, env = "TOWPATH_HTTP", default_value = "127.0.0.1:8083", value_name = "HOST:PORT")]
    pub(crate) http: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// List topics.
    List {
        #[command(flatten)]
        cluster: Cluster,
        /// Show internal topics too.
        #[arg(long)]
        internal: bool,
    },
    /// Describe topics: partitions, leaders, offsets.
    Describe {
        #[command(flatten)]
        cluster: Cluster,
        /// The topics.
        #[arg(required = true)]
        topics: Vec<String>,
    },
    /// Create a topic.
    Create {
        #[command(flatten)]
        cluster: Cluster,
        /// Its name.
        topic: String,
        /// How many partitions (default: the cluster's).
        #[arg(short, long)]
        partitions: Option<i32>,
        /// How many replicas (default: the cluster's).
        #[arg(short, long)]
        replication_factor: Option<i16>,
        /// A topic config, `name=value`; may be given several times.
        #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = pair)]
        configs: Vec<(String, String)>,
    },
    /// Delete topics with all their records.
    Delete {
        #[command(flatten)]
        cluster: Cluster,
        /// The topics.
        #[arg(required = true)]
        topics: Vec<String>,
    },
    /// Show the configs of a topic, or change them.
    Config {
        #[command(flatten)]
        cluster: Cluster,
        /// The topic.
        topic: String,
        /// Set a config, `name=value`; may be given several times.
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Take a config back to its default; may be given several times.
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        /// Show defaults too.
        #[arg(long)]
        all: bool,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    /// List groups.
    List {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Describe groups: members, committed offsets (of share groups: where they start), lag.
    Describe {
        #[command(flatten)]
        cluster: Cluster,
        /// The groups.
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Move the committed offsets (of a share group: where it starts) of a group that has no members.
    Reset {
        #[command(flatten)]
        cluster: Cluster,
        /// The group.
        group: String,
        /// The topics (default: all that it has offsets of).
        #[arg(short, long = "topic")]
        topics: Vec<String>,
        /// Where to.
        #[command(flatten)]
        to: ResetTo,
        /// Only show what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete groups that have no members.
    Delete {
        #[command(flatten)]
        cluster: Cluster,
        /// The groups.
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ResetTo {
    /// To the beginning.
    #[arg(long)]
    pub(crate) to_earliest: bool,
    /// To the end.
    #[arg(long)]
    pub(crate) to_latest: bool,
    /// To this offset.
    #[arg(long, value_name = "OFFSET")]
    pub(crate) to_offset: Option<i64>,
    /// To the first record at or after this time (milliseconds since 1970 UTC).
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) to_timestamp: Option<i64>,
    /// By so many records, forward or (negative) back.
    #[arg(long, value_name = "RECORDS", allow_negative_numbers = true)]
    pub(crate) shift_by: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The topic.
    pub(crate) topic: String,
    /// Split each line at the first occurrence of this into key and value.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// Write an empty value as null: a tombstone, which makes a compacted topic forget the key.
    #[arg(short = 'Z', long)]
    pub(crate) null: bool,
    /// The partition (default: by key, or spread).
    #[arg(short, long)]
    pub(crate) partition: Option<i32>,
    /// A header of every record, `name=value`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) headers: Vec<(String, String)>,
    /// How record batches are compressed.
    #[arg(short, long, value_enum, default_value_t = Codec::None)]
    pub(crate) compression: Codec,
    /// Who must have a record before it counts.
    #[arg(short, long, value_enum, default_value_t = AcksArgument::All)]
    pub(crate) acks: AcksArgument,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AcksArgument {
    All,
    #[value(name = "1")]
    Leader,
    #[value(name = "0")]
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The topic.
    pub(crate) topic: String,
    /// Begin at the first record instead of the end; with `--group`, where the group has committed nothing.
    #[arg(short, long, conflicts_with = "offset")]
    pub(crate) from_beginning: bool,
    /// Begin at this offset of `--partition`.
    #[arg(short, long, requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) offset: Option<i64>,
    /// Only this partition.
    #[arg(short, long)]
    pub(crate) partition: Option<i32>,
    /// Consume as a member of this group, and commit.
    #[arg(short, long, conflicts_with = "partition")]
    pub(crate) group: Option<String>,
    /// End after so many records.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) max_records: Option<u64>,
    /// End when the end of every partition is reached.
    #[arg(short = 'e', long)]
    pub(crate) exit_at_end: bool,
    /// Show partition, offset, time, headers and key too.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pipelines {
    /// List pipelines and their state.
    List {
        #[command(flatten)]
        node: Node,
    },
    /// Show every task: position, lag, rates, last error.
    Status {
        #[command(flatten)]
        node: Node,
        /// Only these pipelines.
        pipelines: Vec<String>,
    },
    /// Stop the tasks of a pipeline until it is resumed, or towpath is started again.
    Pause {
        #[command(flatten)]
        node: Node,
        /// The pipeline.
        pipeline: String,
    },
    /// Go on with a paused pipeline.
    Resume {
        #[command(flatten)]
        node: Node,
        /// The pipeline.
        pipeline: String,
    },
    /// Start the tasks of a pipeline anew, failed ones too; they go on where they were.
    Restart {
        #[command(flatten)]
        node: Node,
        /// The pipeline.
        pipeline: String,
    },
    /// Forget how far the source of a paused pipeline has been read: resumed, it begins anew.
    Reset {
        #[command(flatten)]
        node: Node,
        /// The pipeline.
        pipeline: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connectors {
    /// What is built in, with each option.
    Types {
        /// Only these types.
        types: Vec<String>,
    },
}
