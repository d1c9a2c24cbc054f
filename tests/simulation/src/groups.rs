//! The group coordinator of the offsets topic: the machine itself, over a replicated partition.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use towpath_coordinator::machine::AppendToken;
use towpath_coordinator::{Command, GroupConfig, GroupMachine, Now, OffsetsRecord, Reply, Waiter};
use towpath_record::{BatchBuilder, Compression, batches};
use towpath_replica::{Appended, Partition};
use towpath_types::LeaderEpoch;
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use towpath_wire::{ErrorCode, OffsetCommitRequest};
use uuid::Uuid;

use crate::violation::{Checked, GROUPS, INTERNAL, Violation};

const GROUP: &str = "readers";
const TOPIC: &str = "t0";

/// An append that is out.
struct Appending {
    tokens: Vec<AppendToken>,
    appended: Appended,
    until: i64,
}

/// The offsets that are acknowledged now, and what was appended.
type Driven = (Vec<i64>, Option<(Appended, Bytes)>);

/// The coordinator in one term of leading.
pub(crate) struct Coordinator {
    pub(crate) term: LeaderEpoch,
    machine: GroupMachine,
    queue: VecDeque<(AppendToken, Vec<OffsetsRecord>)>,
    out: Option<Appending>,
    /// The offsets that are being committed, by waiter.
    asked: Vec<(Waiter, i64)>,
    next_waiter: u64,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("term", &self.term).finish_non_exhaustive()
    }
}

const fn now(ms: i64) -> Now {
    Now { monotonic_ms: ms, wall_ms: ms }
}

impl Coordinator {
    /// Loads all groups from the partition, as a broker does that has become its leader.
    pub(crate) fn load(partition: &Partition, ms: i64) -> Checked<Self> {
        let broken = |what: String| Violation::new(GROUPS, what);
        let mut next = 0u128;
        let ids = Box::new(move || {
            next += 1;
            Uuid::from_u128(next)
        });
        let mut machine = GroupMachine::new(GroupConfig::default(), ids);
        let log = partition.log();
        let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
        while at < end {
            let read = log.read(at, 1 << 20, end, true).map_err(|error| broken(error.to_string()))?;
            let bytes = read.into_bytes().map_err(|error| broken(error.to_string()))?;
            let before = at;
            for batch in batches(&bytes) {
                let batch = batch.map_err(|error| broken(error.to_string()))?;
                let records = batch.records().map_err(|error| broken(error.to_string()))?;
                for record in &records {
                    let record = record.map_err(|error| broken(error.to_string()))?;
                    let key = record.key.map(Bytes::copy_from_slice);
                    let value = record.value.map(Bytes::copy_from_slice);
                    machine
                        .replay(key.as_ref(), value.as_ref())
                        .map_err(|error| broken(format!("offset {}: {error}", record.offset)))?;
                }
                at = batch.next_offset();
            }
            if at == before {
                return Err(broken(format!("nothing can be read at {at}")));
            }
        }
        let mut out = Vec::new();
        machine.loaded(now(ms), &mut out);
        let coordinator = Self {
            term: partition.leader_epoch(),
            machine,
            queue: VecDeque::new(),
            out: None,
            asked: Vec::new(),
            next_waiter: 0,
        };
        Ok(coordinator)
    }

    /// A client commits an offset.
    pub(crate) fn commit(&mut self, offset: i64, ms: i64) -> Vec<i64> {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.asked.push((waiter, offset));
        let request = OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let mut commands = Vec::new();
        self.machine.commit_offsets(now(ms), waiter, &request, 8, &mut commands);
        self.take(commands)
    }

    /// The offset that the group has, if any.
    pub(crate) fn committed(&self) -> Option<i64> {
        let request = OffsetFetchRequestGroup {
            group_id: GROUP.to_owned(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.to_owned(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        };
        let answer = self.machine.fetch_offsets(&request);
        let found = answer.topics.first()?.partitions.first()?.committed_offset;
        (found >= 0).then_some(found)
    }

    /// Carries commands out. Returns the offsets whose commits are acknowledged.
    fn take(&mut self, commands: Vec<Command>) -> Vec<i64> {
        let mut acknowledged = Vec::new();
        for command in commands {
            match command {
                Command::Append { token, records } => self.queue.push_back((token, records)),
                Command::Respond { waiter, reply } => {
                    let place = self.asked.iter().position(|(asked, _)| *asked == waiter);
                    let offset = place.map(|place| self.asked.swap_remove(place).1);
                    if let (Some(offset), Reply::Commit(response)) = (offset, &reply) {
                        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
                        if partitions.into_iter().all(|partition| partition.error_code == 0) {
                            acknowledged.push(offset);
                        }
                    }
                }
            }
        }
        acknowledged
    }

    /// Goes on with what waits for the log: one append at a time. Returns the offsets that are acknowledged now, and
    /// whether something was appended.
    pub(crate) fn drive(&mut self, partition: &std::sync::Arc<Partition>, ms: i64) -> Checked<Driven> {
        let mut acknowledged = Vec::new();
        if let Some(out) = self.out.take() {
            let result = match partition.is_committed(&out.appended) {
                Ok(true) => Some(Ok(())),
                Ok(false) if out.until < ms => Some(Err(ErrorCode::CoordinatorNotAvailable)),
                Ok(false) => None,
                Err(_) => Some(Err(ErrorCode::NotCoordinator)),
            };
            match result {
                Some(result) => acknowledged.extend(self.done(&out.tokens, result, ms)),
                None => {
                    self.out = Some(out);
                    return Ok((acknowledged, None));
                }
            }
        }
        let Some((token, records)) = self.queue.pop_front() else { return Ok((acknowledged, None)) };
        let failed = |error: towpath_record::BuildError| Violation::new(INTERNAL, error.to_string());
        let mut builder = BatchBuilder::new(Compression::None);
        for record in &records {
            // Without a time of its own: the clocks of the simulation jump.
            builder.append(0, Some(&record.key), record.value.as_deref(), &[]).map_err(failed)?;
        }
        let batch = builder.build().map_err(failed)?;
        match partition.append(batch.clone(), true, towpath_record::Origin::Coordinator) {
            Ok(appended) => {
                self.out = Some(Appending { tokens: vec![token], appended, until: ms + 500 });
                Ok((acknowledged, Some((appended, batch))))
            }
            Err(_) => {
                acknowledged.extend(self.done(&[token], Err(ErrorCode::CoordinatorNotAvailable), ms));
                Ok((acknowledged, None))
            }
        }
    }

    fn done(&mut self, tokens: &[AppendToken], result: Result<(), ErrorCode>, ms: i64) -> Vec<i64> {
        let mut commands = Vec::new();
        for token in tokens {
            self.machine.appended(now(ms), *token, result, &mut commands);
        }
        self.take(commands)
    }
}

/// What the client of the group was told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GroupLedger {
    /// The largest offset whose commit was acknowledged.
    pub(crate) acknowledged: i64,
    /// The largest offset that was ever asked to be committed.
    pub(crate) asked: i64,
}
