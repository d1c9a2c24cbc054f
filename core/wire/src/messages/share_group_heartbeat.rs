//! ShareGroupHeartbeat (API key 76).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ShareGroupHeartbeat, version 1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ShareGroupHeartbeat, response = ShareGroupHeartbeatResponse, versions = "1", flexible = "0+")]
pub struct ShareGroupHeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The id that the member chose for itself.
    pub member_id: String,
    /// The member epoch.
    pub member_epoch: i32,
    /// Null if not provided or if it didn't change since the last heartbeat; the rack id of consumer otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub rack_id: Option<String>,
    /// Null if it didn't change since the last heartbeat; the subscribed topic names otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub subscribed_topic_names: Option<Vec<String>>,
}

/// The answer to [`ShareGroupHeartbeatRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1", flexible = "0+")]
pub struct ShareGroupHeartbeatResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The id that the member chose for itself.
    #[wire(nullable = "0+", default = "null")]
    pub member_id: Option<String>,
    /// The member epoch.
    pub member_epoch: i32,
    /// The heartbeat interval in milliseconds.
    pub heartbeat_interval_ms: i32,
    /// Null if not provided; the assignment otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub assignment: Option<Assignment>,
}

/// A part of [`ShareGroupHeartbeatResponse`]: its `assignment`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Assignment {
    /// The partitions assigned to the member.
    pub topic_partitions: Vec<TopicPartitions>,
}

/// A part of [`Assignment`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}
