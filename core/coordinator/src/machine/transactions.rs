//! Offsets that are committed within a producer's transaction (KIP-98): they count when the transaction is committed.

use std::sync::Arc;

use towpath_types::{ProducerEpoch, ProducerId, TopicId};
use towpath_wire::txn_offset_commit::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use towpath_wire::{ErrorCode, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::append::{Effect, Pending};
use super::consumer::{CommitKind, CommittedPartition};
use super::group::{Group, GroupState};
use super::offsets::{Committed, Place};
use super::turn::Turn;
use super::{Command, GroupMachine, Now, Reply, Shared, Waiter};
use crate::log::{EndMarker, TransactionalProducer};

/// The answer to a commit of which every partition fails with `error`.
pub(crate) fn transactional_commit_error(
    request: &TxnOffsetCommitRequest,
    error: ErrorCode,
) -> TxnOffsetCommitResponse {
    let partition = |partition: &TxnOffsetCommitRequestPartition| TxnOffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: error.code(),
    };
    let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(partition).collect(),
    });
    TxnOffsetCommitResponse { topics: topics.collect(), ..TxnOffsetCommitResponse::default() }
}

impl GroupMachine {
    /// Takes a TxnOffsetCommit of a transaction that was verified to be open. The answer comes when the offsets are in the
    /// log; they are visible when [`GroupMachine::end_transaction`] has committed them.
    pub fn txn_offset_commit(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: &TxnOffsetCommitRequest,
        out: &mut Vec<Command>,
    ) {
        let error = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if self.groups.contains_key(request.group_id.as_str()) {
            None
        } else if request.generation_id < 0 {
            // Somebody who assigns partitions to itself: the group is but a name for its offsets.
            (!self.ensure_group(&request.group_id, now)).then_some(ErrorCode::InvalidCommitOffsetSize)
        } else {
            Some(ErrorCode::IllegalGeneration)
        };
        if let Some(error) = error {
            let response = transactional_commit_error(request, error);
            out.push(Command::Respond { waiter, reply: Reply::TransactionalCommit(response) });
            return;
        }
        self.turn(&request.group_id, now, out, |turn| turn.commit_in_transaction(waiter, request));
    }

    /// Ends a producer's transaction: its marker goes to the log after all that was sent there before. The answer
    /// ([`Reply::EndTransaction`]) comes when it is there, and so do the offsets.
    pub fn end_transaction(&mut self, waiter: Waiter, marker: EndMarker, out: &mut Vec<Command>) {
        // R10: a coordinator that asks again while the log is slow does not make it slower.
        let on_its_way = self.shared.appends.values_mut().find_map(|pending| match pending {
            Pending::Marker { waiters, marker: known } if *known == marker => Some(waiters),
            _ => None,
        });
        if let Some(waiters) = on_its_way {
            waiters.push(waiter);
            return;
        }
        let token = self.shared.next_token();
        self.shared.appends.insert(token, Pending::Marker { waiters: vec![waiter], marker });
        out.push(Command::AppendMarker { token, marker });
    }

    pub(super) fn end_transaction_of(
        &mut self,
        now: Now,
        producer: ProducerId,
        commit: bool,
        out: &mut Vec<Command>,
    ) {
        for group in self.shared.transactions.remove(&producer).unwrap_or_default() {
            self.turn(&group, now, out, |turn| turn.group.offsets.end_transaction(producer, commit));
        }
    }
}

impl Shared {
    /// A group is gone, and what was pending in it.
    pub(super) fn forget_transactions(&mut self, group: &Group) {
        for producer in group.offsets.open_transactions() {
            if let Some(groups) = self.transactions.get_mut(&producer) {
                groups.remove(&group.id);
                if groups.is_empty() {
                    self.transactions.remove(&producer);
                }
            }
        }
    }

    pub(super) fn note_transaction(&mut self, producer: ProducerId, group: &Arc<str>) {
        self.transactions.entry(producer).or_default().insert(Arc::clone(group));
    }
}

impl Turn<'_> {
    fn validate_transactional(&self, request: &TxnOffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id;
        let instance = request.group_instance_id.as_deref();
        if self.group.share().is_some() {
            return Err(ErrorCode::GroupIdNotFound);
        }
        if self.group.state == GroupState::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if let Some(consumer) = self.group.consumer() {
            let partitions = request.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|partition| CommittedPartition {
                    topic: &topic.name,
                    topic_id: TopicId::ZERO,
                    partition: partition.partition_index,
                })
            });
            let kind = CommitKind::Transactional;
            return consumer
                .check_commit(&request.member_id, generation, kind, partitions, &*self.shared.topics)
                .map_err(|error| match error {
                    // Producers know no other error for an old epoch.
                    ErrorCode::StaleMemberEpoch => ErrorCode::IllegalGeneration,
                    other => other,
                });
        }
        if generation < 0 && self.group.state == GroupState::Empty {
            return Ok(());
        }
        // Old producers name no member (KIP-447); they are fenced by their epoch alone.
        if generation >= 0 || !request.member_id.is_empty() || instance.is_some() {
            self.group.validate(&request.member_id, instance)?;
            if generation != self.group.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        }
        Ok(())
    }

    fn commit_in_transaction(&mut self, waiter: Waiter, request: &TxnOffsetCommitRequest) {
        if let Err(error) = self.validate_transactional(request) {
            let response = transactional_commit_error(request, error);
            self.respond(waiter, Reply::TransactionalCommit(response));
            return;
        }
        let producer = TransactionalProducer {
            id: ProducerId::new(request.producer_id),
            epoch: ProducerEpoch::new(request.producer_epoch),
        };
        let mut response = TxnOffsetCommitResponse::default();
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
                    expire_timestamp_ms: None,
                    topic_id: TopicId::ZERO,
                    stamp: self.shared.next_stamp(),
                };
                let place = (Arc::clone(&name), partition.partition_index);
                let error = match self.offset_record(&place, &committed, true) {
                    Ok(record) => {
                        self.group.offsets.begin(place.clone(), &committed, true);
                        records.push(record);
                        offsets.push((place, committed));
                        ErrorCode::None
                    }
                    Err(error) => error,
                };
                let (partition_index, error_code) = (partition.partition_index, error.code());
                answers.push(TxnOffsetCommitResponsePartition { partition_index, error_code });
            }
            response
                .topics
                .push(TxnOffsetCommitResponseTopic { name: topic.name.clone(), partitions: answers });
        }
        if records.is_empty() {
            self.respond(waiter, Reply::TransactionalCommit(response));
        } else {
            let effect = Effect::TransactionalCommit { waiter, producer: producer.id, response, offsets };
            self.append_as(records, effect, Some(producer));
        }
    }

    /// An offset of an open transaction is in the log.
    pub(super) fn put_pending(&mut self, producer: ProducerId, place: Place, committed: Committed) {
        self.shared.note_transaction(producer, &self.group.id);
        self.group.offsets.put_pending(producer, place, committed);
    }
}
