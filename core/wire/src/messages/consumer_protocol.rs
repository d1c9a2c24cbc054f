//! What the members of a consumer group write into JoinGroup and SyncGroup (behind an `i16` version).

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The metadata of a member of a consumer group: what it subscribes to and what it owns.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-3", flexible = "none")]
pub struct ConsumerProtocolSubscription {
    /// The topics that the member wants to consume.
    pub topics: Vec<String>,
    /// User data that will be passed back to the consumer.
    #[wire(nullable = "0+", default = "null")]
    pub user_data: Option<Bytes>,
    /// The partitions that the member owns.
    #[wire(versions = "1+", ignorable)]
    pub owned_partitions: Vec<TopicPartition>,
    /// The generation of the group.
    #[wire(versions = "2+", ignorable, default = "-1")]
    pub generation_id: i32,
    /// The rack.
    #[wire(versions = "3+", nullable = "3+", ignorable, default = "null")]
    pub rack_id: Option<String>,
}

/// A part of [`ConsumerProtocolSubscription`]: one entry of `owned_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartition {
    /// The name of the topic.
    pub topic: String,
    /// The partition ids.
    pub partitions: Vec<i32>,
}

/// What the leader of a consumer group assigns to one member.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-3", flexible = "none")]
pub struct ConsumerProtocolAssignment {
    /// The list of topics and partitions assigned to this consumer.
    pub assigned_partitions: Vec<TopicPartition>,
    /// User data.
    #[wire(nullable = "0+", default = "null")]
    pub user_data: Option<Bytes>,
}
