//! Cluster metadata: the image, the records that change it, and the decisions that make such records.
//!
//! - [`MetadataImage`] is what a broker knows of the cluster. It changes only by [`MetadataImage::apply`], one
//!   [`MetadataRecord`] after the other, so every node that reads the same log has the same image.
//! - [`decide`] holds pure functions: image and request in, records and answer out. Nothing there does I/O.
//! - [`Controller`] runs them one at a time, commits the records to a [`MetadataLog`], applies them and publishes
//!   the new image. On one node the log is a local, flushed one ([`LocalMetadataLog`]); several nodes
//!   have a [`Quorum`] instead, whose leader does the same on a replicated one.
//! - [`liveness`] is the active controller's memory of which broker was heard when.
//! - [`topic_config`], [`broker_config`] and [`group_config`] declare every configuration once: name, type, default, check
//!   and documentation.
#![forbid(unsafe_code)]

pub mod broker_config;
mod config_key;
mod controller;
pub mod decide;
pub mod group_config;
mod image;
pub mod liveness;
mod local_log;
mod quorum;
mod record;
mod snapshot_content;
pub mod topic_config;

pub use config_key::ConfigKey;
pub use controller::{Controller, ControllerError, MetadataLog};
pub use decide::{AdminError, ClusterPolicy, Decision};
pub use image::{
    BrokerRegistration, Configs, DynamicConfigs, ImageError, MetadataImage, PartitionImage, TopicImage,
};
pub use liveness::Liveness;
pub use local_log::{LocalMetadataLog, SnapshotPolicy};
pub use quorum::{
    ControllerView, PeerAddress, Quorum, QuorumConfig, QuorumError, QuorumMember, QuorumStatus,
    QuorumTransport,
};
pub use record::{
    FeatureRange, MetadataRecord, MirrorRole, MirrorState, PeerEndpoint, RecordError, RegisterBroker,
};
pub use topic_config::{ConfigType, TopicConfig, TopicConfigKey};
