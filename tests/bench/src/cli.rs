//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measure Towpath against its peers, in turns, on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "towpath-bench", version)]
pub(crate) struct Arguments {
    /// What to measure, one after the other.
    #[arg(value_enum, required = true)]
    pub(crate) workloads: Vec<Workload>,
    /// How often each subject runs (7 by default, `partitions` once; at most 2 with --quick).
    #[arg(long)]
    pairs: Option<usize>,
    /// A smoke test: two pairs, a twentieth of the work, hardly any warm-up. Its figures mean little.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Records (rows) of one run, instead of the workload's own number.
    #[arg(long)]
    records: Option<u64>,
    /// Seconds of load before anything counts, for what runs on a JVM.
    #[arg(long)]
    warm_up_s: Option<u64>,
    /// Only one side: figures without ratios, for profiling.
    #[arg(long, value_enum)]
    pub(crate) only: Option<Side>,
    /// Use `target/release/examples/broker` instead of the `towpath` binary (W1 to W4, W9).
    #[arg(long)]
    pub(crate) broker_example: bool,
    /// Nodes of each cluster, 1 or 3 (W1): with 3, every partition has three replicas.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) nodes: u8,
}

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Produce 1 M × 1 KiB, into one partition and into 16.
    W1,
    /// Produce 5 M × 100 B.
    W2,
    /// Consume 3 GB, hot and cold.
    W3,
    /// End to end, 2000 records a second for 30 s.
    W4,
    /// Mirror 1 GB from one broker to another.
    W5,
    /// Capture a backlog from PostgreSQL.
    W6,
    /// Snapshot a table of PostgreSQL.
    W7,
    /// Sink rows into PostgreSQL.
    W8,
    /// Time to ready, idle memory.
    W9,
    /// Records through a plugin, against the same work built in; and what it takes until a plugin runs.
    W10,
    /// Three nodes, one killed with -9: time without acknowledgements, time without a controller.
    Failover,
    /// One broker with 10,000 partitions: memory when idle, time to ready, also after kill -9 with 10 GB of log.
    Partitions,
    /// The same work on a log of 1 GB and on one of 50 GB: producing, reading its end, look-ups by time, a restart.
    Stored,
    /// W1 to W10 on single brokers.
    All,
}

impl Workload {
    /// What it is made of.
    pub(crate) const fn parts(&self) -> &[Self] {
        match self {
            Self::All => &[
                Self::W1,
                Self::W2,
                Self::W3,
                Self::W4,
                Self::W5,
                Self::W6,
                Self::W7,
                Self::W8,
                Self::W9,
                Self::W10,
            ],
            _ => std::slice::from_ref(self),
        }
    }
}

/// One side of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Towpath.
    Towpath,
    /// The peer.
    Peer,
    /// The floor (W6 to W8).
    Floor,
}

impl Arguments {
    /// How often each subject runs.
    pub(crate) fn pairs(&self) -> usize {
        self.pairs_or(7)
    }

    /// How often each subject of a workload runs that is usually repeated `usual` times.
    pub(crate) fn pairs_or(&self, usual: usize) -> usize {
        self.pairs.unwrap_or(if self.quick { usual.min(2) } else { usual }).max(1)
    }

    /// Records of one run of a workload whose own number is `usual`.
    pub(crate) fn records(&self, usual: u64) -> u64 {
        self.records.unwrap_or(if self.quick { usual / 20 } else { usual }).max(1)
    }

    /// How long a JVM is warmed up.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up_s.unwrap_or(if self.quick { 2 } else { 25 }))
    }

    /// Whether a side takes part.
    pub(crate) fn wants(&self, side: Side) -> bool {
        self.only.is_none_or(|only| only == side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_shrinks_what_was_not_said() {
        let quick = Arguments::parse_from(["bench", "w1", "--quick"]);
        assert_eq!((quick.pairs(), quick.records(1_000), quick.warm_up().as_secs()), (2, 50, 2));
        let said = Arguments::parse_from([
            "bench",
            "w1",
            "--quick",
            "--pairs",
            "3",
            "--records",
            "9",
            "--warm-up-s",
            "0",
        ]);
        assert_eq!((said.pairs(), said.records(1_000), said.warm_up().as_secs()), (3, 9, 0));
        let usual = Arguments::parse_from(["bench", "w1", "--only", "peer"]);
        assert_eq!((usual.pairs(), usual.records(1_000)), (7, 1_000));
        assert_eq!((usual.nodes, usual.pairs_or(1)), (1, 1));
        assert!(Arguments::try_parse_from(["bench", "w1", "--nodes", "4"]).is_err());
        assert!(Arguments::try_parse_from(["bench"]).is_err());
        let several = Arguments::parse_from(["bench", "w1", "w4", "--pairs", "5"]);
        assert_eq!((several.workloads, several.pairs), (vec![Workload::W1, Workload::W4], Some(5)));
        assert!(usual.wants(Side::Peer) && !usual.wants(Side::Towpath));
    }
}
