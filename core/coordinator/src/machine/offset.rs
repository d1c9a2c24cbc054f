//! OffsetCommit, OffsetFetch and OffsetDelete.

use std::sync::Arc;

use towpath_types::TopicId;
use towpath_wire::offset_commit::{
    OffsetCommitRequestPartition, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use towpath_wire::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use towpath_wire::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use towpath_wire::{
    ErrorCode, OffsetCommitKey, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse,
};
use uuid::Uuid;

use super::append::Effect;
use super::consumer::{CommitKind, CommittedPartition};
use super::group::{Group, GroupState};
use super::member::MemberId;
use super::offsets::{Committed, Place};
use super::turn::Turn;
use super::{Command, GroupMachine, Now, Reply, Waiter};
use crate::record::{self, OffsetsRecord};

/// From here on an unknown group has an error of its own.
const VERSION_GROUP_NOT_FOUND: i16 = 9;

/// The answer to a commit of which every partition fails with `error`.
pub(crate) fn commit_error(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    let partition = |partition: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: error.code(),
    };
    let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(partition).collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..OffsetCommitResponse::default() }
}

impl GroupMachine {
    /// Takes an OffsetCommit whose topics have names (and ids where they are known). The answer comes when the
    /// offsets are committed in the log.
    pub fn commit_offsets(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: &OffsetCommitRequest,
        version: i16,
        out: &mut Vec<Command>,
    ) {
        let exists = self.groups.contains_key(request.group_id.as_str());
        let error = if exists {
            None
        } else if request.generation_id_or_member_epoch < 0 {
            // Somebody who assigns partitions to itself: the group is but a name for its offsets.
            (!self.ensure_group(&request.group_id, now)).then_some(ErrorCode::InvalidCommitOffsetSize)
        } else if version >= VERSION_GROUP_NOT_FOUND {
            Some(ErrorCode::GroupIdNotFound)
        } else {
            Some(ErrorCode::IllegalGeneration)
        };
        if let Some(error) = error {
            out.push(Command::Respond { waiter, reply: Reply::Commit(commit_error(request, error)) });
            return;
        }
        self.turn(&request.group_id, now, out, |turn| turn.commit(waiter, request, version));
    }

    /// The committed offsets that a group asks for, by topic name. A group or partition without any has offset −1.
    /// With `require_stable` a partition that an open transaction may change is UNSTABLE_OFFSET_COMMIT.
    #[must_use]
    pub fn fetch_offsets(
        &self,
        request: &OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let group =
            self.groups.get(request.group_id.as_str()).filter(|group| group.state != GroupState::Dead);
        if let Some(consumer) = group.and_then(Group::consumer)
            && let Err(error) = consumer.check_fetch(request.member_id.as_deref(), request.member_epoch)
        {
            return OffsetFetchResponseGroup {
                group_id: request.group_id.clone(),
                error_code: error.code(),
                ..OffsetFetchResponseGroup::default()
            };
        }
        let is_unstable = |group: &Group, topic: &str, partition| {
            require_stable && group.offsets.is_unstable(topic, partition)
        };
        let topics = match &request.topics {
            None => group.map(|group| all_offsets(group, require_stable)).unwrap_or_default(),
            Some(topics) => topics
                .iter()
                .map(|topic| OffsetFetchResponseTopics {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .map(|partition| {
                            if group.is_some_and(|group| is_unstable(group, &topic.name, *partition)) {
                                return unstable(*partition);
                            }
                            let committed =
                                group.and_then(|group| group.offsets.get(&topic.name, *partition));
                            fetched(*partition, committed.filter(|offset| is_of(offset, topic.topic_id)))
                        })
                        .collect(),
                })
                .collect(),
        };
        OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            topics,
            error_code: ErrorCode::None.code(),
        }
    }

    /// Takes an OffsetDelete. The answer comes when the tombstones are committed in the log.
    pub fn delete_offsets(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: &OffsetDeleteRequest,
        out: &mut Vec<Command>,
    ) {
        let error = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if self.groups.contains_key(request.group_id.as_str()) {
            None
        } else {
            Some(ErrorCode::GroupIdNotFound)
        };
        if let Some(error) = error {
            let response = OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
            out.push(Command::Respond { waiter, reply: Reply::OffsetDelete(response) });
            return;
        }
        self.turn(&request.group_id, now, out, |turn| turn.delete_offsets(waiter, request));
    }
}

fn all_offsets(group: &Group, require_stable: bool) -> Vec<OffsetFetchResponseTopics> {
    let topic = |(name, partitions): (&Arc<str>, &std::collections::BTreeMap<i32, Committed>)| {
        let newest = partitions.values().max_by_key(|committed| committed.commit_timestamp_ms);
        OffsetFetchResponseTopics {
            name: (**name).to_owned(),
            topic_id: newest.map_or(Uuid::nil(), |committed| committed.topic_id.get()),
            partitions: partitions
                .iter()
                .map(|(partition, committed)| {
                    if require_stable && group.offsets.is_unstable(name, *partition) {
                        unstable(*partition)
                    } else {
                        fetched(*partition, Some(committed))
                    }
                })
                .collect(),
        }
    };
    group.offsets.iter().map(topic).collect()
}

/// Whether an offset belongs to the topic with this id: one that was committed to a deleted topic of the same name
/// does not.
fn is_of(committed: &Committed, topic: Uuid) -> bool {
    topic.is_nil() || committed.topic_id.is_zero() || committed.topic_id.get() == topic
}

fn fetched(partition_index: i32, committed: Option<&Committed>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.map_or(-1, |committed| committed.offset),
        committed_leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(committed.map_or_else(String::new, |committed| committed.metadata.clone())),
        error_code: ErrorCode::None.code(),
    }
}

fn unstable(partition_index: i32) -> OffsetFetchResponsePartitions {
    let error_code = ErrorCode::UnstableOffsetCommit.code();
    OffsetFetchResponsePartitions { error_code, ..fetched(partition_index, None) }
}

impl Turn<'_> {
    fn validate_consumer_commit(
        &self,
        request: &OffsetCommitRequest,
        version: i16,
    ) -> Option<Result<(), ErrorCode>> {
        let consumer = self.group.consumer()?;
        let partitions = request.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| CommittedPartition {
                topic: &topic.name,
                topic_id: TopicId::new(topic.topic_id),
                partition: partition.partition_index,
            })
        });
        let epoch = request.generation_id_or_member_epoch;
        let kind = CommitKind::Plain(version);
        Some(consumer.check_commit(&request.member_id, epoch, kind, partitions, &*self.shared.topics))
    }

    fn validate_commit(&self, request: &OffsetCommitRequest, version: i16) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        let instance = request.group_instance_id.as_deref();
        if self.group.share().is_some() {
            return Err(ErrorCode::GroupIdNotFound);
        }
        if self.group.state == GroupState::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if let Some(result) = self.validate_consumer_commit(request, version) {
            return result;
        }
        match self.group.state {
            GroupState::Empty if generation < 0 => return Ok(()),
            _ => {}
        }
        if generation >= 0 || !request.member_id.is_empty() || instance.is_some() {
            self.group.validate(&request.member_id, instance)?;
            // R6: who belongs to an older generation changes nothing.
            if generation != self.group.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else {
            return Err(ErrorCode::UnknownMemberId);
        }
        if self.group.state == GroupState::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    fn commit(&mut self, waiter: Waiter, request: &OffsetCommitRequest, version: i16) {
        if let Err(error) = self.validate_commit(request, version) {
            self.respond(waiter, Reply::Commit(commit_error(request, error)));
            return;
        }
        if self.group.is_in(&[GroupState::Stable, GroupState::PreparingRebalance]) {
            let id: MemberId = Arc::from(request.member_id.as_str());
            self.renew_session(&id);
        }
        // Versions 2 to 4 can bring a retention of their own.
        let expire_timestamp_ms = (request.retention_time_ms >= 0)
            .then(|| self.now.wall_ms.saturating_add(request.retention_time_ms));
        let mut response = OffsetCommitResponse::default();
        let mut records = Vec::new();
        let mut offsets: Vec<(Place, Committed)> = Vec::new();
        for topic in &request.topics {
            let name = self.group.offsets.topic_name(&topic.name);
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let committed = Committed {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.clone().unwrap_or_default(),
                    commit_timestamp_ms: self.now.wall_ms,
                    expire_timestamp_ms,
                    topic_id: TopicId::new(topic.topic_id),
                    stamp: self.shared.next_stamp(),
                };
                let place = (Arc::clone(&name), partition.partition_index);
                let error = match self.offset_record(&place, &committed, false) {
                    Ok(record) => {
                        self.group.offsets.begin(place.clone(), &committed, false);
                        records.push(record);
                        offsets.push((place, committed));
                        ErrorCode::None
                    }
                    Err(error) => error,
                };
                let (partition_index, error_code) = (partition.partition_index, error.code());
                answers.push(OffsetCommitResponsePartition { partition_index, error_code });
            }
            response.topics.push(OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: answers,
            });
        }
        if records.is_empty() {
            self.respond(waiter, Reply::Commit(response));
        } else {
            self.append(records, Effect::Commit { waiter, response, offsets });
        }
    }

    pub(super) fn offset_record(
        &self,
        place: &Place,
        committed: &Committed,
        is_transactional: bool,
    ) -> Result<OffsetsRecord, ErrorCode> {
        let config = &self.shared.config;
        // Kafka counts Java chars, whatever the setting's name says.
        if committed.metadata.encode_utf16().count() > config.offset_metadata_max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        // R10: an offset in the place of one that was as large needs no more room, so that groups go on where there is none;
        // more metadata do, and so does each open transaction.
        let known = self.group.offsets.get(&place.0, place.1).filter(|_| !is_transactional);
        let needs_room = known.is_none_or(|known| known.metadata.len() < committed.metadata.len());
        let grown = self.group.offsets.size_in_bytes().saturating_sub(self.offsets_before);
        if needs_room && self.shared.room().saturating_sub(grown) < committed.room_needed(place) {
            return Err(ErrorCode::InvalidCommitOffsetSize);
        }
        record::offset_record(&self.offset_key(place), Some(&committed.to_value()), self.now.wall_ms).map_err(
            |error| {
                tracing::warn!(group = %self.group.id, topic = %place.0, %error, "an offset cannot be stored");
                ErrorCode::UnknownServerError
            },
        )
    }

    pub(super) fn offset_key(&self, (topic, partition): &Place) -> OffsetCommitKey {
        OffsetCommitKey {
            group: (*self.group.id).to_owned(),
            topic: (**topic).to_owned(),
            partition: *partition,
        }
    }

    fn delete_offsets(&mut self, waiter: Waiter, request: &OffsetDeleteRequest) {
        let error = match self.group.state {
            GroupState::Dead => ErrorCode::GroupIdNotFound,
            _ if self.group.share().is_some() => ErrorCode::GroupIdNotFound,
            // Also a consumer group, whatever its members do.
            GroupState::Empty => ErrorCode::None,
            // Of other kinds of groups it is not known what they are subscribed to.
            _ if !self.group.is_consumer() => ErrorCode::NonEmptyGroup,
            _ => ErrorCode::None,
        };
        let mut response =
            OffsetDeleteResponse { error_code: error.code(), ..OffsetDeleteResponse::default() };
        let mut places = Vec::new();
        for topic in request.topics.iter().filter(|_| error == ErrorCode::None) {
            let in_use = self.group.has_members() && self.group.is_subscribed(&topic.name);
            let error = if in_use { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let partition_index = partition.partition_index;
                if !in_use && self.group.offsets.knows(&topic.name, partition_index) {
                    places.push((self.group.offsets.topic_name(&topic.name), partition_index));
                }
                answers.push(OffsetDeleteResponsePartition { partition_index, error_code: error.code() });
            }
            response.topics.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: answers });
        }
        self.remove_offsets(places, Some((waiter, response)));
    }
}
