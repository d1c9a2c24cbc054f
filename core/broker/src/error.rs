//! Why a broker could not start or stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a broker could not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The listener.
    #[error("cannot listen on {address}; is another process using the port?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's complaint.
        #[source]
        source: io::Error,
    },
    /// The data directory.
    #[error("the data directory cannot be used")]
    Log(#[from] towpath_log::LogError),
    /// Partitions that could not be opened.
    #[error("{count} partition(s) cannot be opened, the first is {first}")]
    Partitions {
        /// How many.
        count: usize,
        /// The first.
        first: String,
        /// Why.
        #[source]
        source: Box<towpath_log::LogError>,
    },
    /// A partition.
    #[error("a partition cannot be opened")]
    Replica(#[from] towpath_replica::PartitionError),
    /// The metadata.
    #[error("the cluster's metadata cannot be used")]
    Controller(#[from] towpath_controller::ControllerError),
    /// Partitions without metadata: their topics, settings and epochs are not known.
    #[error(
        "{dir} holds {count} partition(s) but no metadata log; restore `__cluster_metadata-0`, or start with an empty directory"
    )]
    MetadataMissing {
        /// The directory.
        dir: PathBuf,
        /// How many partitions there are.
        count: usize,
    },
    /// The directory belongs to another cluster.
    #[error("the data directory belongs to the cluster {found}, not {expected}")]
    ClusterId {
        /// What the directory says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// The node could not become a broker of its cluster.
    #[error("the cluster does not take this broker: {0}")]
    Registration(String),
    /// A directory of a node that was alone.
    #[error("{0} was written by a node without a cluster; a node of a cluster begins with an empty one")]
    NotOfCluster(PathBuf),
    /// A directory of a node of a cluster.
    #[error("{0} belongs to a node of a cluster; configure `cluster:`, or use another directory")]
    OfCluster(PathBuf),
    /// A setting.
    #[error("the setting `{name}` cannot be {value}: {problem}")]
    Setting {
        /// Its name.
        name: String,
        /// What it was to be.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One directory under two names.
    #[error("the data directory {0} is named twice")]
    DirectoryTwice(PathBuf),
    /// A default of topic configurations.
    #[error("a topic default is not valid: {0}")]
    TopicDefault(#[from] towpath_controller::topic_config::ConfigProblem),
    /// A thread.
    #[error("the system gives no thread")]
    Thread(#[source] io::Error),
    /// A file.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's complaint.
        #[source]
        source: io::Error,
    },
}
