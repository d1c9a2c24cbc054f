//! The keys and values of the records in `__consumer_offsets` (behind an `i16` version, which is the kind in a key).

use bytes::Bytes;
use towpath_wire_derive::Message;
use uuid::Uuid;

/// The key of a committed offset; its leading version is 0 or 1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct OffsetCommitKey {
    /// The consumer group id.
    pub group: String,
    /// The name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-4", flexible = "4+")]
pub struct OffsetCommitValue {
    /// The offset that the consumer wants to store (for this partition).
    pub offset: i64,
    /// The epoch of the leader; -1 if unknown.
    #[wire(versions = "3+", ignorable, default = "-1")]
    pub leader_epoch: i32,
    /// What the client wrote beside the offset.
    pub metadata: String,
    /// The time at which the commit was added to the log.
    pub commit_timestamp: i64,
    /// The time at which the offset will expire.
    #[wire(versions = "1", ignorable, default = "-1")]
    pub expire_timestamp: i64,
    /// The id of the topic.
    #[wire(versions = "4+", tag = 0, tagged = "4+", ignorable)]
    pub topic_id: Uuid,
}

/// The key of a group; its leading version is 2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct GroupMetadataKey {
    /// The group id.
    pub group: String,
}

/// The state of a classic group.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-4", flexible = "4+")]
pub struct GroupMetadataValue {
    /// The kind of group, e.g. `consumer`.
    pub protocol_type: String,
    /// The generation id.
    pub generation: i32,
    /// The protocol name.
    #[wire(nullable = "0+")]
    pub protocol: Option<String>,
    /// The leader id.
    #[wire(nullable = "0+")]
    pub leader: Option<String>,
    /// The timestamp of the last state change.
    #[wire(versions = "2+", ignorable, default = "-1")]
    pub current_state_timestamp: i64,
    /// The group members.
    pub members: Vec<MemberMetadata>,
}

/// A part of [`GroupMetadataValue`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MemberMetadata {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "3+", nullable = "3+", ignorable, default = "null")]
    pub group_instance_id: Option<String>,
    /// The client id.
    pub client_id: String,
    /// The client host.
    pub client_host: String,
    /// The rebalance timeout.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub rebalance_timeout: i32,
    /// The session timeout.
    pub session_timeout: i32,
    /// The subscription.
    pub subscription: Bytes,
    /// The assignment.
    pub assignment: Bytes,
}
