//! The keys and values of the records of share groups (KIP-932): of the groups in `__consumer_offsets`, and of what their
//! members have been given in `__share_group_state`. Each stands behind an `i16`: the kind in a key, the version in a value.

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The key of a member of a share group; its leading version is 10.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareGroupMemberMetadataKey {
    /// The group.
    pub group_id: String,
    /// The id that the member chose for itself.
    pub member_id: String,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareGroupMemberMetadataValue {
    /// The (optional) rack id.
    #[wire(nullable = "0+")]
    pub rack_id: Option<String>,
    /// The client id.
    pub client_id: String,
    /// The client host.
    pub client_host: String,
    /// The list of subscribed topic names.
    pub subscribed_topic_names: Vec<String>,
}

/// The key of a share group's epoch; its leading version is 11.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareGroupMetadataKey {
    /// The group.
    pub group_id: String,
}

/// A share group's epoch.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareGroupMetadataValue {
    /// The group epoch.
    pub epoch: i32,
    /// The hash of all topics in the group.
    pub metadata_hash: i64,
}

/// The key of a target assignment's epoch; its leading version is 12.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareGroupTargetAssignmentMetadataKey {
    /// The group.
    pub group_id: String,
}

/// A target assignment's epoch.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareGroupTargetAssignmentMetadataValue {
    /// The assignment epoch.
    pub assignment_epoch: i32,
    /// The time at which the assignment calculation finished.
    #[wire(tag = 0, tagged = "0+", ignorable)]
    pub assignment_timestamp: i64,
}

/// The key of a member's target assignment; its leading version is 13.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareGroupTargetAssignmentMemberKey {
    /// The group.
    pub group_id: String,
    /// The id that the member chose for itself.
    pub member_id: String,
}

/// A member's target assignment.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareGroupTargetAssignmentMemberValue {
    /// The assigned partitions.
    pub topic_partitions: Vec<TopicPartition>,
}

/// A part of [`ShareGroupTargetAssignmentMemberValue`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartition {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The key of a member's current assignment; its leading version is 14.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareGroupCurrentMemberAssignmentKey {
    /// The group.
    pub group_id: String,
    /// The id that the member chose for itself.
    pub member_id: String,
}

/// A member's current assignment.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareGroupCurrentMemberAssignmentValue {
    /// The member epoch.
    pub member_epoch: i32,
    /// If the last epoch bump is lost before reaching the member, the member will retry with the previous epoch.
    pub previous_member_epoch: i32,
    /// The member state. See MemberState for the possible values.
    pub state: i8,
    /// The partitions assigned to (or owned by) this member.
    pub assigned_partitions: Vec<TopicPartitions>,
}

/// A part of [`ShareGroupCurrentMemberAssignmentValue`]: one entry of `assigned_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The key of the topics whose state a share group has; its leading version is 15.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareGroupStatePartitionMetadataKey {
    /// The group.
    pub group_id: String,
}

/// The topics whose state a share group has.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareGroupStatePartitionMetadataValue {
    /// The topic-partitions whose share-group state is being initialized.
    pub initializing_topics: Vec<TopicPartitionsInfo>,
    /// The topics with initialized share-group state.
    pub initialized_topics: Vec<TopicPartitionsInfo>,
    /// The topics whose share-group state is being deleted.
    pub deleting_topics: Vec<TopicInfo>,
}

/// A part of [`ShareGroupStatePartitionMetadataValue`]: one entry of `initializing_topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitionsInfo {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The name of the topic.
    pub topic_name: String,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// A part of [`ShareGroupStatePartitionMetadataValue`]: one entry of `deleting_topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicInfo {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The name of the topic.
    pub topic_name: String,
}

/// The key of the state of a share partition; its leading version is 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareSnapshotKey {
    /// The group.
    pub group_id: String,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

/// The state of a share partition.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareSnapshotValue {
    /// The snapshot epoch.
    pub snapshot_epoch: i32,
    /// The state epoch for this share-partition.
    pub state_epoch: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// The share-partition start offset.
    pub start_offset: i64,
    /// The number of offsets greater than or equal to share-partition start offset for which delivery has been
    /// completed.
    #[wire(tag = 0, tagged = "0+", default = "-1")]
    pub delivery_complete_count: i32,
    /// The time at which the state was created.
    pub create_timestamp: i64,
    /// The time at which the state was written or rewritten.
    pub write_timestamp: i64,
    /// The state batches.
    pub state_batches: Vec<StateBatch>,
}

/// A part of [`ShareSnapshotValue`]: one entry of `state_batches`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct StateBatch {
    /// The first offset of this state batch.
    pub first_offset: i64,
    /// The last offset of this state batch.
    pub last_offset: i64,
    /// The delivery state - 0:Available,2:Acked,4:Archived.
    pub delivery_state: i8,
    /// The delivery count.
    pub delivery_count: i16,
}

/// The key of a change of a share partition's state; its leading version is 1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct ShareUpdateKey {
    /// The group.
    pub group_id: String,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

/// A change of a share partition's state.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ShareUpdateValue {
    /// The snapshot epoch.
    pub snapshot_epoch: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// The share-partition start offset, or -1 if the start offset is not being updated.
    pub start_offset: i64,
    /// The number of offsets greater than or equal to share-partition start offset for which delivery has been
    /// completed.
    #[wire(tag = 0, tagged = "0+", default = "-1")]
    pub delivery_complete_count: i32,
    /// The state batches that have been updated.
    pub state_batches: Vec<StateBatch>,
}
