//! ConsumerGroupHeartbeat (API key 68).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ConsumerGroupHeartbeat, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ConsumerGroupHeartbeat, response = ConsumerGroupHeartbeatResponse, versions = "0-1", flexible = "0+")]
pub struct ConsumerGroupHeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The current member epoch; 0 to join the group; -1 to leave the group; -2 to indicate that the static
    /// member will rejoin.
    pub member_epoch: i32,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(nullable = "0+", default = "null")]
    pub instance_id: Option<String>,
    /// The rack.
    #[wire(nullable = "0+", default = "null")]
    pub rack_id: Option<String>,
    /// -1 if it didn't change since the last heartbeat; the maximum time (milliseconds) that the coordinator
    /// will wait on the member to revoke its partitions otherwise.
    #[wire(default = "-1")]
    pub rebalance_timeout_ms: i32,
    /// Null if it didn't change since the last heartbeat; the subscribed topic names otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub subscribed_topic_names: Option<Vec<String>>,
    /// Null if it didn't change since the last heartbeat; the subscribed topic regex otherwise.
    #[wire(versions = "1+", nullable = "1+", default = "null")]
    pub subscribed_topic_regex: Option<String>,
    /// Null if not used or if it didn't change since the last heartbeat; the server side assignor to use
    /// otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub server_assignor: Option<String>,
    /// Null if it didn't change since the last heartbeat; the partitions owned by the member.
    #[wire(nullable = "0+", default = "null")]
    pub topic_partitions: Option<Vec<TopicPartitions>>,
}

/// A part of [`ConsumerGroupHeartbeatRequest`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The answer to [`ConsumerGroupHeartbeatRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct ConsumerGroupHeartbeatResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The id that the coordinator gave to the member.
    #[wire(nullable = "0+", default = "null")]
    pub member_id: Option<String>,
    /// The member epoch.
    pub member_epoch: i32,
    /// The heartbeat interval (milliseconds).
    pub heartbeat_interval_ms: i32,
    /// Null if not provided; the assignment otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub assignment: Option<Assignment>,
}

/// A part of [`ConsumerGroupHeartbeatResponse`]: its `assignment`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Assignment {
    /// The partitions assigned to the member that can be used immediately.
    pub topic_partitions: Vec<TopicPartitions>,
}
