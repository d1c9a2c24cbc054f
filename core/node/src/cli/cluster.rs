//! `towpath cluster`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use towpath_types::TopicName;
use uuid::Uuid;

use super::Cluster;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// One look: controller, brokers, and partitions that lack something.
    Status {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// List brokers: where they are, what they lead and hold.
    Brokers {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Show the metadata quorum: voters, observers, and how far behind each is; or change its voters.
    #[command(args_conflicts_with_subcommands = true)]
    Quorum {
        #[command(flatten)]
        cluster: Cluster,
        #[command(subcommand)]
        change: Option<QuorumChange>,
    },
    /// Move partitions to other brokers, and show or take back moves.
    Reassign {
        #[command(flatten)]
        cluster: Cluster,
        /// Topics, or partitions of them (TOPIC:PARTITION).
        #[arg(value_name = "TOPIC[:PARTITION]")]
        partitions: Vec<PartitionsArgument>,
        #[command(flatten)]
        to: ReassignTo,
        /// Do not wait until everything is moved.
        #[arg(long)]
        no_wait: bool,
        /// Only show what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Elect leaders: the first replica of each partition leads again.
    Elect {
        #[command(flatten)]
        cluster: Cluster,
        /// Topics, or partitions of them (TOPIC:PARTITION); all, if none is named.
        #[arg(value_name = "TOPIC[:PARTITION]")]
        partitions: Vec<PartitionsArgument>,
        /// Let the first replica lead, where it is in sync (the default).
        #[arg(long, conflicts_with = "unclean")]
        preferred: bool,
        /// Let any replica lead where none in sync is there: acknowledged records may be lost.
        #[arg(long, requires = "partitions")]
        unclean: bool,
    },
    /// Move everything off a broker, so that it can be taken away.
    Drain {
        #[command(flatten)]
        cluster: Cluster,
        /// The broker.
        #[arg(value_name = "ID")]
        broker: i32,
        /// How many partitions move at the same time.
        #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        at_once: u32,
        /// Only show what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Forget a broker that is stopped for good.
    Unregister {
        #[command(flatten)]
        cluster: Cluster,
        /// The broker.
        #[arg(value_name = "ID")]
        broker: i32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuorumChange {
    /// Make a node that follows the quorum a voter.
    Add {
        #[command(flatten)]
        cluster: Cluster,
        /// The node.
        #[arg(value_name = "ID")]
        node: i32,
        /// Where other nodes reach it: its address under `cluster: controllers:`.
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// The id of its directory (default: what the quorum knows of the node).
        #[arg(long, value_name = "UUID")]
        directory: Option<Uuid>,
    },
    /// Make a voter a node that only follows.
    Remove {
        #[command(flatten)]
        cluster: Cluster,
        /// The node.
        #[arg(value_name = "ID")]
        node: i32,
        /// The id of its directory (default: what the quorum knows of the node).
        #[arg(long, value_name = "UUID")]
        directory: Option<Uuid>,
    },
}

/// What `reassign` does.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReassignTo {
    /// The brokers that are to hold the partitions named, the preferred leader first; for a whole topic the list is
    /// turned by one from partition to partition, so that each of the brokers leads some.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', requires = "partitions")]
    pub(crate) replicas: Option<Vec<i32>>,
    /// A file in the format of Kafka's own tool: `{"version": 1, "partitions": [{"topic": …, "partition": …,
    /// "replicas": […]}]}`.
    #[arg(long, value_name = "JSON", conflicts_with = "partitions")]
    pub(crate) file: Option<PathBuf>,
    /// Take back moves that are not over: of the partitions named, or all.
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Show moves that are not over: of the partitions named, or all.
    #[arg(long)]
    pub(crate) list: bool,
}

/// A topic, or one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionsArgument {
    pub(crate) topic: TopicName,
    /// All of them, if it is none.
    pub(crate) partition: Option<i32>,
}

impl FromStr for PartitionsArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, partition) = match text.rsplit_once(':') {
            None => (text, None),
            Some((topic, number)) => {
                let parsed = number.parse().ok().filter(|partition| *partition >= 0);
                let partition = parsed.ok_or_else(|| format!("`{number}` is no partition; write TOPIC:0"))?;
                (topic, Some(partition))
            }
        };
        let topic = TopicName::new(topic).map_err(|error| error.to_string())?;
        Ok(Self { topic, partition })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::{Arguments, Command};
    use super::*;

    fn parse(line: &str) -> Result<ClusterCommand, String> {
        let words = ["towpath", "cluster"].into_iter().chain(line.split(' '));
        match Arguments::try_parse_from(words).map(|it| it.command) {
            Ok(Command::Cluster(command)) => Ok(command),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn partitions_are_named_with_or_without_a_number() {
        let one: PartitionsArgument = "a.b:3".parse().unwrap();
        assert_eq!((one.topic.as_str(), one.partition), ("a.b", Some(3)));
        assert_eq!("a.b".parse::<PartitionsArgument>().unwrap().partition, None);
        for wrong in ["a:", "a:-1", "a:b", ":1", "a b"] {
            assert!(wrong.parse::<PartitionsArgument>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(matches!(
            parse("reassign t:0 u --replicas 1,2 -b h:1").unwrap(),
            ClusterCommand::Reassign { to: ReassignTo { replicas: Some(list), .. }, partitions, .. }
                if list == [1, 2] && partitions.len() == 2
        ));
        for right in [
            "reassign --file moves.json --no-wait",
            "reassign --cancel",
            "reassign t --cancel",
            "reassign --list",
            "elect",
            "elect t:1 --unclean",
            "elect --preferred t",
            "quorum",
            "quorum -b h:1",
            "quorum add 4 h:9093 -b h:1",
            "quorum remove 4",
            "drain 3 --dry-run",
            "unregister 3",
            "status",
            "brokers",
        ] {
            assert!(parse(right).is_ok(), "{right}: {:?}", parse(right));
        }
        for wrong in [
            "reassign t",
            "reassign --replicas 1,2",
            "reassign t --replicas 1 --cancel",
            "reassign t --file moves.json",
            "elect --unclean",
            "elect t --unclean --preferred",
            "drain",
            "drain 3 --at-once 0",
            "quorum add 4",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}: {:?}", parse(wrong));
        }
    }

    #[test]
    fn nodes_are_for_development() {
        let up = |line: &str| Arguments::try_parse_from(line.split(' ')).map(|it| it.command);
        assert!(matches!(up("towpath up c.yaml --nodes 3").unwrap(), Command::Up(up) if up.nodes == Some(3)));
        for wrong in ["--nodes 0", "--nodes 33", "--nodes 3 --until-idle", "--local-node {}"] {
            assert!(up(&format!("towpath up c.yaml {wrong}")).is_err(), "{wrong}");
        }
    }
}
