//! ConsumerGroupDescribe (API key 69).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ConsumerGroupDescribe, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ConsumerGroupDescribe, response = ConsumerGroupDescribeResponse, versions = "0-1", flexible = "0+")]
pub struct ConsumerGroupDescribeRequest {
    /// The ids of the groups to describe.
    pub group_ids: Vec<String>,
    /// Whether to include authorized operations.
    pub include_authorized_operations: bool,
}

/// The answer to [`ConsumerGroupDescribeRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct ConsumerGroupDescribeResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// Each described group.
    pub groups: Vec<DescribedGroup>,
}

/// A part of [`ConsumerGroupDescribeResponse`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribedGroup {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The group.
    pub group_id: String,
    /// The group state string, or the empty string.
    pub group_state: String,
    /// The group epoch.
    pub group_epoch: i32,
    /// The assignment epoch.
    pub assignment_epoch: i32,
    /// The selected assignor.
    pub assignor_name: String,
    /// The members.
    pub members: Vec<Member>,
    /// The operations the client may do, as a bit set; -2147483648 if not asked for.
    #[wire(default = "-2147483648")]
    pub authorized_operations: i32,
}

/// A part of [`ConsumerGroupDescribeResponse`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Member {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(nullable = "0+", default = "null")]
    pub instance_id: Option<String>,
    /// The rack.
    #[wire(nullable = "0+", default = "null")]
    pub rack_id: Option<String>,
    /// The current member epoch.
    pub member_epoch: i32,
    /// The client id.
    pub client_id: String,
    /// The client host.
    pub client_host: String,
    /// The subscribed topic names.
    pub subscribed_topic_names: Vec<String>,
    /// The subscribed topic regex otherwise or null of not provided.
    #[wire(nullable = "0+", default = "null")]
    pub subscribed_topic_regex: Option<String>,
    /// The current assignment.
    pub assignment: Assignment,
    /// The target assignment.
    pub target_assignment: Assignment,
    /// -1 for unknown.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub member_type: i8,
}

/// A part of [`ConsumerGroupDescribeResponse`]: its `assignment`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Assignment {
    /// The assigned topic-partitions to the member.
    pub topic_partitions: Vec<TopicPartitions>,
}

/// A part of [`ConsumerGroupDescribeResponse`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The name of the topic.
    pub topic_name: String,
    /// The partitions.
    pub partitions: Vec<i32>,
}
