//! DescribeQuorum (API key 55).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of DescribeQuorum, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeQuorum, response = DescribeQuorumResponse, versions = "0-2", flexible = "0+")]
pub struct DescribeQuorumRequest {
    /// One entry for each topic.
    pub topics: Vec<TopicData>,
}

/// A part of [`DescribeQuorumRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicData {
    /// The name of the topic.
    pub topic_name: String,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`DescribeQuorumRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition_index: i32,
}

/// The answer to [`DescribeQuorumRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "0+")]
pub struct DescribeQuorumResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(versions = "2+", nullable = "2+", ignorable)]
    pub error_message: Option<String>,
    /// One entry for each topic.
    pub topics: Vec<response::TopicData>,
    /// The nodes in the quorum.
    #[wire(versions = "2+")]
    pub nodes: Vec<Node>,
}

/// A part of [`DescribeQuorumResponse`]: one entry of `nodes`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Node {
    /// The broker.
    pub node_id: i32,
    /// The listeners of this controller.
    pub listeners: Vec<Listener>,
}

/// A part of [`DescribeQuorumResponse`]: one entry of `listeners`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Listener {
    /// The name of the endpoint.
    pub name: String,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The parts of [`DescribeQuorumResponse`] whose names the request has, too.
pub mod response {
    use towpath_wire_derive::Message;

    /// A part of [`super::DescribeQuorumResponse`]: one entry of `topics`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct TopicData {
        /// The name of the topic.
        pub topic_name: String,
        /// One entry for each partition.
        pub partitions: Vec<PartitionData>,
    }

    /// A part of [`super::DescribeQuorumResponse`]: one entry of `partitions`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct PartitionData {
        /// The partition.
        pub partition_index: i32,
        /// The error code; 0 for none.
        pub error_code: i16,
        /// What went wrong, in words; null for none.
        #[wire(versions = "2+", nullable = "2+", ignorable)]
        pub error_message: Option<String>,
        /// The broker that leads the partition; -1 for none.
        pub leader_id: i32,
        /// The epoch of the leader; -1 if unknown.
        pub leader_epoch: i32,
        /// The high water mark.
        pub high_watermark: i64,
        /// The current voters of the partition.
        pub current_voters: Vec<super::ReplicaState>,
        /// The observers of the partition.
        pub observers: Vec<super::ReplicaState>,
    }
}

/// A part of [`DescribeQuorumResponse`]: one entry of `current_voters`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReplicaState {
    /// The broker that asks as a replica; -1 for a consumer.
    pub replica_id: i32,
    /// The replica directory id of the replica.
    #[wire(versions = "2+")]
    pub replica_directory_id: Uuid,
    /// The last known log end offset of the follower; -1 if it is unknown.
    pub log_end_offset: i64,
    /// The last known leader wall clock time time when a follower fetched from the leader.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub last_fetch_timestamp: i64,
    /// The leader wall clock append time of the offset for which the follower made the most recent fetch
    /// request.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub last_caught_up_timestamp: i64,
}
