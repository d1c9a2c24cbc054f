//! The socket side of a broker: listener, connections, one handler per API.
//!
//! A request's way: `listener` accepts, `connection` reads a frame, `handlers` decodes it and runs the handler of its
//! API, `outgoing` writes the answer. What a client can make the broker hold is bounded in `memory` (R10). The state
//! that all connections share is in `state`; it changes metadata only through [`towpath_controller::Controller`] and
//! keeps partitions in [`towpath_replica::ReplicaManager`]. What makes several nodes one cluster is in `cluster`.
#![forbid(unsafe_code)]

mod background;
mod broker;
mod broker_settings;
mod cluster;
mod config;
mod connection;
mod coordinator_log;
mod error;
mod fetch_session;
mod group_topics;
mod handlers;
mod listener;
mod live_settings;
mod memory;
mod metrics;
mod moving;
mod open;
mod open_files;
mod outgoing;
mod producer_ids;
mod server_properties;
mod share;
mod state;
mod stream;
mod throttle;
mod transactions;

pub use broker::{Broker, BrokerStatus, PartitionStatus};
pub use cluster::{ClusterSettings, ReplicationSettings, Roles};
pub use config::{BrokerConfig, Endpoint, Limits};
pub use error::BrokerError;
pub use open_files::raise_open_files_limit;
