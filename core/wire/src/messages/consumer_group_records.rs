//! The keys and values of the records of consumer groups (KIP-848) in `__consumer_offsets`, each behind an `i16`: the kind
//! in a key, the version in a value.

use bytes::Bytes;
use towpath_wire_derive::Message;
use uuid::Uuid;

/// The key of a consumer group's epoch; its leading version is 3.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupMetadataKey {
    /// The group id.
    pub group_id: String,
}

/// A consumer group's epoch.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupMetadataValue {
    /// The group epoch.
    pub epoch: i32,
    /// The hash of all topics that the group subscribes to.
    #[wire(tag = 0, tagged = "0+")]
    pub metadata_hash: i64,
}

/// The key of what a group subscribes to; its leading version is 4. Kafka 4.1 and later only write its tombstones.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupPartitionMetadataKey {
    /// The group id.
    pub group_id: String,
}

/// The topics that a group subscribes to, as Kafka 4.0 stored them.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupPartitionMetadataValue {
    /// The topics.
    pub topics: Vec<TopicMetadata>,
}

/// A part of [`ConsumerGroupPartitionMetadataValue`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicMetadata {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The name of the topic.
    pub topic_name: String,
    /// How many partitions the topic has.
    pub num_partitions: i32,
    /// The racks of the partitions; not used any more.
    pub partition_metadata: Vec<PartitionMetadata>,
}

/// A part of [`TopicMetadata`]: one entry of `partition_metadata`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionMetadata {
    /// The partition.
    pub partition: i32,
    /// The racks that have a replica of it.
    pub racks: Vec<String>,
}

/// The key of a member; its leading version is 5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupMemberMetadataKey {
    /// The group id.
    pub group_id: String,
    /// The member id.
    pub member_id: String,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupMemberMetadataValue {
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(nullable = "0+")]
    pub instance_id: Option<String>,
    /// The rack.
    #[wire(nullable = "0+")]
    pub rack_id: Option<String>,
    /// The client id.
    pub client_id: String,
    /// The client host.
    pub client_host: String,
    /// The subscribed topic names.
    pub subscribed_topic_names: Vec<String>,
    /// The subscribed regular expression.
    #[wire(nullable = "0+")]
    pub subscribed_topic_regex: Option<String>,
    /// The rebalance timeout, milliseconds.
    #[wire(default = "-1")]
    pub rebalance_timeout_ms: i32,
    /// The assignor that the member asks for.
    #[wire(nullable = "0+")]
    pub server_assignor: Option<String>,
    /// What a member that uses the classic protocol said when it joined; null for the others.
    #[wire(tag = 0, tagged = "0+", nullable = "0+", default = "null")]
    pub classic_member_metadata: Option<ClassicMemberMetadata>,
}

/// A part of [`ConsumerGroupMemberMetadataValue`]: its `classic_member_metadata`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ClassicMemberMetadata {
    /// The session timeout, milliseconds.
    pub session_timeout_ms: i32,
    /// The protocols that the member supports.
    pub supported_protocols: Vec<ClassicProtocol>,
}

/// A part of [`ClassicMemberMetadata`]: one entry of `supported_protocols`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ClassicProtocol {
    /// The protocol name.
    pub name: String,
    /// What the member says for it.
    pub metadata: Bytes,
}

/// The key of a target assignment's epoch; its leading version is 6.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupTargetAssignmentMetadataKey {
    /// The group id.
    pub group_id: String,
}

/// A target assignment's epoch.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupTargetAssignmentMetadataValue {
    /// The assignment epoch.
    pub assignment_epoch: i32,
    /// When the assignment was made: milliseconds since 1970 UTC (KIP-1263).
    #[wire(tag = 0, tagged = "0+", ignorable)]
    pub assignment_timestamp: i64,
}

/// The key of a member's target assignment; its leading version is 7.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupTargetAssignmentMemberKey {
    /// The group id.
    pub group_id: String,
    /// The member id.
    pub member_id: String,
}

/// A member's target assignment.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupTargetAssignmentMemberValue {
    /// The partitions that the member shall have.
    pub topic_partitions: Vec<TopicPartition>,
}

/// A part of [`ConsumerGroupTargetAssignmentMemberValue`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartition {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The key of a member's current assignment; its leading version is 8.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupCurrentMemberAssignmentKey {
    /// The group id.
    pub group_id: String,
    /// The member id.
    pub member_id: String,
}

/// A member's current assignment.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupCurrentMemberAssignmentValue {
    /// The epoch that the member has to name.
    pub member_epoch: i32,
    /// The epoch before: the member names it when the answer with the newer one was lost.
    pub previous_member_epoch: i32,
    /// 0 stable, 1 partitions are to be revoked, 2 partitions are not released yet, 127 unknown.
    pub state: i8,
    /// The partitions that the member has.
    pub assigned_partitions: Vec<TopicPartitions>,
    /// The partitions that the member must give up.
    pub partitions_pending_revocation: Vec<TopicPartitions>,
}

/// A part of [`ConsumerGroupCurrentMemberAssignmentValue`]: one entry of `assigned_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
    /// In which epoch each of them was assigned to the member (KIP-1251).
    #[wire(tag = 0, tagged = "0+", nullable = "0+", default = "null")]
    pub assignment_epochs: Option<Vec<i32>>,
}

/// The key of a regular expression; its leading version is 16.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ConsumerGroupRegularExpressionKey {
    /// The group id.
    pub group_id: String,
    /// The regular expression.
    pub regular_expression: String,
}

/// What a regular expression was resolved to.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ConsumerGroupRegularExpressionValue {
    /// The topics that it matches.
    pub topics: Vec<String>,
    /// The version of the cluster's metadata that it was resolved with.
    pub version: i64,
    /// When: milliseconds since 1970 UTC.
    pub timestamp: i64,
}
