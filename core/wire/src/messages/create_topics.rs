//! CreateTopics (API key 19).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of CreateTopics, versions 2-7.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = CreateTopics, response = CreateTopicsResponse, versions = "2-7", flexible = "5+")]
pub struct CreateTopicsRequest {
    /// One entry for each topic.
    pub topics: Vec<CreatableTopic>,
    /// Milliseconds to wait for the result.
    #[wire(default = "60000")]
    pub timeout_ms: i32,
    /// Whether to check the request without doing it.
    pub validate_only: bool,
}

/// A part of [`CreateTopicsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatableTopic {
    /// The topic name.
    pub name: String,
    /// The number of partitions to create in the topic; -1 if we are either specifying a manual partition
    /// assignment or using the default partitions.
    pub num_partitions: i32,
    /// The number of replicas to create for each partition in the topic; -1 if we are either specifying a
    /// manual partition assignment or using the default replication factor.
    pub replication_factor: i16,
    /// The manual partition assignment, or the empty array if we are using automatic assignment.
    pub assignments: Vec<CreatableReplicaAssignment>,
    /// The custom topic configurations to set.
    pub configs: Vec<CreatableTopicConfig>,
}

/// A part of [`CreateTopicsRequest`]: one entry of `assignments`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatableReplicaAssignment {
    /// The partition.
    pub partition_index: i32,
    /// The brokers to place the partition on.
    pub broker_ids: Vec<i32>,
}

/// A part of [`CreateTopicsRequest`]: one entry of `configs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatableTopicConfig {
    /// The configuration name.
    pub name: String,
    /// The configuration value.
    #[wire(nullable = "0+")]
    pub value: Option<String>,
}

/// The answer to [`CreateTopicsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "2-7", flexible = "5+")]
pub struct CreateTopicsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<CreatableTopicResult>,
}

/// A part of [`CreateTopicsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatableTopicResult {
    /// The topic name.
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "7+", ignorable)]
    pub topic_id: Uuid,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", ignorable)]
    pub error_message: Option<String>,
    /// Optional topic config error returned if configs are not returned in the response.
    #[wire(versions = "5+", tag = 0, tagged = "5+", ignorable)]
    pub topic_config_error_code: i16,
    /// Number of partitions of the topic.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub num_partitions: i32,
    /// Replication factor of the topic.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub replication_factor: i16,
    /// Configuration of the topic.
    #[wire(versions = "5+", nullable = "5+", ignorable)]
    pub configs: Option<Vec<CreatableTopicConfigs>>,
}

/// A part of [`CreateTopicsResponse`]: one entry of `configs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatableTopicConfigs {
    /// The configuration name.
    pub name: String,
    /// The configuration value.
    #[wire(nullable = "5+")]
    pub value: Option<String>,
    /// True if the configuration is read-only.
    pub read_only: bool,
    /// The configuration source.
    #[wire(ignorable, default = "-1")]
    pub config_source: i8,
    /// True if this configuration is sensitive.
    pub is_sensitive: bool,
}
