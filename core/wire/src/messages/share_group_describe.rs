//! ShareGroupDescribe (API key 77).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ShareGroupDescribe, version 1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ShareGroupDescribe, response = ShareGroupDescribeResponse, versions = "1", flexible = "0+")]
pub struct ShareGroupDescribeRequest {
    /// The ids of the groups to describe.
    pub group_ids: Vec<String>,
    /// Whether to include authorized operations.
    pub include_authorized_operations: bool,
}

/// The answer to [`ShareGroupDescribeRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1", flexible = "0+")]
pub struct ShareGroupDescribeResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// Each described group.
    pub groups: Vec<DescribedGroup>,
}

/// A part of [`ShareGroupDescribeResponse`]: one entry of `groups`.
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

/// A part of [`DescribedGroup`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Member {
    /// The id that the member chose for itself.
    pub member_id: String,
    /// The member rack id.
    #[wire(nullable = "0+", default = "null")]
    pub rack_id: Option<String>,
    /// The member epoch.
    pub member_epoch: i32,
    /// The client id.
    pub client_id: String,
    /// The client host.
    pub client_host: String,
    /// The subscribed topic names.
    pub subscribed_topic_names: Vec<String>,
    /// The current assignment.
    pub assignment: Assignment,
}

/// A part of [`Member`]: its `assignment`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Assignment {
    /// The assigned topic-partitions to the member.
    pub topic_partitions: Vec<TopicPartitions>,
}

/// A part of [`Assignment`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The name of the topic.
    pub topic_name: String,
    /// The partitions.
    pub partitions: Vec<i32>,
}
