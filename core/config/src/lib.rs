//! YAML into validated types, with every problem at its line and column (R12).
//!
//! The way of a file: text → [`tree`] (values with spans) → secrets resolved → checked against declared options
//! ([`validate`]) → connectors parse their own part → [`Config`]. Nothing here touches the network.
#![forbid(unsafe_code)]

mod cluster;
mod config;
mod json_schema;
mod layout;
mod load;
mod mirrors;
mod pipeline;
mod plugins;
mod problem;
mod secret;
mod secrets;
mod suggest;
mod topics;
pub mod tree;
pub mod validate;

pub use cluster::{ClusterConfig, ControllerAddress, OwnCluster};
pub use config::{Config, NodeConfig, Roles};
pub use json_schema::json_schema;
pub use layout::{cluster_options, mirror_options, node_options, pipeline_options, remote_cluster_options};
pub use load::{load, load_plugins, load_text};
pub use mirrors::{Mirror, MirrorNaming, RemoteCluster};
pub use problem::{Problem, Problems};
pub use secrets::Secrets;
