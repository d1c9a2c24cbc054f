//! Moving a replica from one directory of its broker to another while it is used (KIP-113): a copy catches up, and then
//! takes the partition's place.

use std::sync::Arc;
use std::time::Duration;

use towpath_log::{Log, LogDir, LogError, ReadError};
use towpath_record::batches;
use towpath_types::{LeaderEpoch, Offset, TopicId};

use crate::manager::{Slot, TopicReplicas};
use crate::{Partition, PartitionError, ReplicaManager};

/// Bytes that are copied in one piece.
const PIECE_BYTES: usize = 1024 * 1024;
/// A copy that lacks no more than this is copied to its end while nobody writes.
const NEAR_BYTES: u64 = 512 * 1024;
/// Where somebody writes about as fast as is copied, it may lack more the longer it takes: twice as much each time that so many
/// rounds of pieces were copied, up to 64 MiB.
const NEARER_ROUNDS: u32 = 64;
const NEARER_MAX: u32 = 7;
/// So often what was copied is made durable while the partition is in use, so that little is left to do while it is not.
const FLUSHES: u32 = 3;
/// How often, a millisecond apart, it is looked whether nothing waits: an append of this moment is done in the next.
const LOOKS: u32 = 20;
/// So often a copy that has everything waits for a moment in which no record waits for followers.
const POLITE_ATTEMPTS: u32 = 100;

/// A replica that moves between directories.
#[derive(Debug, Clone)]
pub struct ReplicaMove {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// Where it goes.
    pub to: Arc<LogDir>,
    /// The copy.
    pub copy: Arc<Log>,
}

/// What became of a move in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// So many bytes were copied, and there are more.
    Copied(u64),
    /// What was copied is durable.
    Flushed,
    /// The copy has everything, and waits for a moment in which the partition can stand still.
    Waiting,
    /// The replica is where it was to go.
    Moved,
    /// The copy was given up: the replica is not here any more, or its new directory failed.
    GivenUp,
}

impl ReplicaManager {
    /// Begins to move a replica to a directory. Where it is there already, a move that is under way ends.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn move_replica(
        &self,
        topic: &TopicReplicas,
        index: i32,
        to: &Arc<LogDir>,
    ) -> Result<(), PartitionError> {
        let partition = topic.partition(index)?.ok_or(PartitionError::NotLeader)?;
        partition.check_online()?;
        let key = (topic.id(), index);
        for dir in self.dirs().online().filter(|dir| !Arc::ptr_eq(dir, to)) {
            dir.drop_future(key)?;
        }
        if to.get(partition.id()).is_some() {
            return Ok(to.drop_future(key)?);
        }
        if to.future(key).is_none() {
            self.dirs().tell_usable();
            to.create_future(partition.id(), topic.id(), *partition.log().config())?;
        }
        Ok(())
    }

    /// The moves that are under way.
    #[must_use]
    pub fn moves(&self) -> Vec<ReplicaMove> {
        let moves = |to: &Arc<LogDir>| {
            let of =
                |((topic_id, partition), copy)| ReplicaMove { topic_id, partition, to: Arc::clone(to), copy };
            to.futures().into_iter().map(of).collect::<Vec<_>>()
        };
        self.dirs().online().flat_map(moves).collect()
    }

    /// Does the next piece of a move; `attempt` counts how often it has waited or flushed, `rounds` the rounds of pieces that
    /// were copied. Blocks on the disk.
    ///
    /// # Errors
    /// [`PartitionError`]; the move can be tried again, or has been given up.
    pub fn advance_move(
        &self,
        moving: &ReplicaMove,
        attempt: u32,
        rounds: u32,
    ) -> Result<MoveStep, PartitionError> {
        let key = (moving.topic_id, moving.partition);
        let topic = self.topic_by_id(moving.topic_id);
        let slot = topic.as_ref().and_then(|topic| topic.slot(moving.partition));
        let partition = slot.as_ref().and_then(|slot| slot.get());
        let (Some(topic), Some(slot), Some(partition)) = (topic, slot, partition) else {
            // The topic was deleted, or another broker has the replica.
            moving.to.drop_future(key)?;
            return Ok(MoveStep::GivenUp);
        };
        if moving.to.get(partition.id()).is_some() {
            moving.to.drop_future(key)?;
            return Ok(MoveStep::Moved);
        }
        partition.check_online()?;
        if moving.copy.offline_reason().is_some() {
            return Ok(MoveStep::GivenUp);
        }
        if let Some(bytes) = copy_piece(partition.log(), &moving.copy)? {
            let near = NEAR_BYTES << (rounds / NEARER_ROUNDS).min(NEARER_MAX);
            let lacking = partition.log().size_in_bytes().saturating_sub(moving.copy.size_in_bytes());
            if bytes == 0 || lacking > near {
                return Ok(MoveStep::Copied(bytes));
            }
        }
        if attempt < FLUSHES {
            moving.copy.flush().map_err(PartitionError::from)?;
            return Ok(MoveStep::Flushed);
        }
        self.take_place(moving, (&topic, &slot), &partition, attempt)
    }

    /// Lets the copy take the partition's place. New metadata of the partition wait meanwhile.
    fn take_place(
        &self,
        moving: &ReplicaMove,
        (topic, slot): (&TopicReplicas, &Arc<Slot>),
        partition: &Arc<Partition>,
        attempt: u32,
    ) -> Result<MoveStep, PartitionError> {
        let settings = topic.settings();
        let deleted = topic.lock_deleted();
        if *deleted {
            moving.to.drop_future((moving.topic_id, moving.partition))?;
            return Ok(MoveStep::GivenUp);
        }
        let leadership = slot.lock_leadership();
        let mut looks = 0;
        while !partition.suspend(attempt >= POLITE_ATTEMPTS) {
            looks += 1;
            if looks == LOOKS {
                return Ok(MoveStep::Waiting);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let log = match self.promote(moving, partition) {
            Ok(log) => log,
            Err(error) => {
                // It goes on where it was.
                partition.update(leadership.clone());
                return Err(error);
            }
        };
        let environment = Arc::clone(self.environment());
        let placed =
            Partition::open(log, leadership.clone(), partition.high_watermark(), &settings, environment);
        placed.count_terms_after(partition);
        slot.replace(Arc::clone(&placed));
        drop(leadership);
        drop(deleted);
        let newer = topic.settings();
        if newer != settings {
            placed.configure(&newer);
        }
        // From here on it has moved, whatever becomes of what is left.
        self.forget_old(moving, partition);
        let is_still_ours = topic.slot(moving.partition).is_some_and(|now| Arc::ptr_eq(&now, slot));
        if !is_still_ours {
            // Another broker got the replica meanwhile: what was removed were the files of the old place.
            placed.delete();
            if let Err(error) = self.dirs().delete_all(std::slice::from_ref(partition.id())) {
                tracing::error!(partition = %partition.id(), %error, "the files of a replica that is another broker's remain");
            }
        }
        Ok(MoveStep::Moved)
    }

    /// Copies the rest of a partition that stands still, and gives the copy its name.
    fn promote(&self, moving: &ReplicaMove, partition: &Arc<Partition>) -> Result<Arc<Log>, PartitionError> {
        let (log, copy) = (partition.log(), &moving.copy);
        while copy_piece(log, copy)?.is_some() {}
        if copy.log_end_offset() != log.log_end_offset() {
            return Err(LogError::Partition(format!("the copy of {} is not complete", partition.id())).into());
        }
        copy.delete_records_before(log.log_start_offset())?;
        let from = self.dirs().of(partition.id()).ok_or(PartitionError::Deleted)?;
        Ok(moving.to.promote((moving.topic_id, moving.partition), log, from)?)
    }

    /// What is left of the old place goes. Where that fails it goes at the next start: the new one says that it replaces it.
    fn forget_old(&self, moving: &ReplicaMove, partition: &Arc<Partition>) {
        let id = partition.id();
        let mut forgotten = Ok(());
        for dir in self.dirs().all().iter().filter(|dir| !Arc::ptr_eq(dir, &moving.to)) {
            if dir.get(id).is_some() {
                forgotten = forgotten.and(dir.delete(id));
            }
        }
        if let Err(error) = forgotten.and_then(|()| moving.to.moved(id)) {
            tracing::error!(partition = %id, %error, "what a replica that has moved has left behind goes at the next start");
        }
    }
}

/// Copies what comes next, and cuts the copy off where the log was cut; none where the copy has everything.
fn copy_piece(log: &Log, copy: &Log) -> Result<Option<u64>, PartitionError> {
    if let Some(end) = divergence(log, copy) {
        if end < copy.log_start_offset() {
            copy.truncate_fully_and_start_at(log.log_start_offset())?;
        } else {
            copy.truncate_to(end)?;
        }
        return Ok(Some(0));
    }
    let from = copy.log_end_offset();
    let end = log.log_end_offset();
    if from >= end {
        return Ok(None);
    }
    let data = match log.read(from, PIECE_BYTES, end, true) {
        Ok(data) => data.into_bytes()?,
        // Retention went ahead of the copy.
        Err(ReadError::OutOfRange { log_start, .. }) => {
            begin_at(log, copy, log_start)?;
            return Ok(Some(0));
        }
        Err(ReadError::Storage(error)) => return Err(error.into()),
        Err(error) => return Err(LogError::Partition(error.to_string()).into()),
    };
    if data.is_empty() {
        // The log was cut in between.
        return Ok(Some(0));
    }
    copy.append_as_follower(&data, LeaderEpoch::new(i32::MAX))?;
    Ok(Some(data.len() as u64))
}

/// The copy begins where the log does: with the batch that holds its first offset.
fn begin_at(log: &Log, copy: &Log, log_start: Offset) -> Result<(), PartitionError> {
    let first = match log.read(log_start, 1, log.log_end_offset(), true) {
        Ok(data) => data.into_bytes()?,
        Err(ReadError::OutOfRange { .. }) => return Ok(()),
        Err(ReadError::Storage(error)) => return Err(error.into()),
        Err(error) => return Err(LogError::Partition(error.to_string()).into()),
    };
    let base = batches(&first).next().and_then(Result::ok).map_or(log_start, |batch| batch.base_offset);
    copy.truncate_fully_and_start_at(base.min(log_start))?;
    Ok(())
}

/// Where the copy ceases to be one: the log was cut after it had been copied (KIP-101).
fn divergence(log: &Log, copy: &Log) -> Option<Offset> {
    let (end, epoch) = (copy.log_end_offset(), copy.latest_epoch());
    if end == copy.log_start_offset() || epoch == LeaderEpoch::NONE {
        return (end > log.log_end_offset()).then(|| log.log_end_offset());
    }
    let common = match log.end_offset_for_epoch(epoch) {
        Some((found, end_there)) if found == epoch => end_there,
        Some((found, end_there)) => {
            let end_here = copy.end_offset_for_epoch(found).map_or(copy.log_start_offset(), |(_, end)| end);
            end_there.min(end_here)
        }
        None => log.log_start_offset().min(end),
    };
    (common < end).then_some(common)
}
