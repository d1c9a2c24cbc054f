//! What a request does to a transactional id of which no change is on its way. Nothing here has an effect.

#[cfg(test)]
mod tests;

use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::ErrorCode;

use super::metadata::{ClientVersion, Metadata, TransactionState};
use super::partitions::Partitions;
use crate::log::TransactionalProducer;

/// What to do with a request.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Answer with an error.
    Refuse(ErrorCode),
    /// Answer that it is done: it was before, or there is nothing to do.
    Done,
    /// Ask again with a fresh producer id: the epochs of the present one are used up.
    NeedsProducerId,
    /// Write this, then answer.
    Write(Metadata),
}

/// When and with what a decision is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Wall clock.
    pub(super) now_ms: i64,
    /// A producer id that nobody has had, if it was asked for one.
    pub(super) fresh_id: Option<ProducerId>,
}

/// Whether a producer that brings its id and epoch (KIP-360) is the id's: it has the producer id of now; or that of before,
/// where the epochs of that were used up, and did not hear of the new one.
fn is_known(metadata: &Metadata, expected: TransactionalProducer) -> bool {
    metadata.is_new()
        || expected.id == metadata.producer.id
        || (expected.id == metadata.previous_id && expected.epoch.get() >= i16::MAX - 1)
}

/// The epoch that a producer gets, and the one that it may ask again with.
fn next_epoch(
    metadata: &Metadata,
    expected: Option<TransactionalProducer>,
) -> Option<(ProducerEpoch, ProducerEpoch)> {
    let current = metadata.producer.epoch;
    let next = ProducerEpoch::new(current.get().saturating_add(1));
    match expected.map(|expected| expected.epoch) {
        None => Some((next, ProducerEpoch::NONE)),
        // Nobody else has had the id since; it goes on after an error.
        Some(epoch) if metadata.is_new() || epoch == current => Some((next, current)),
        // It did not hear the answer. Nobody else has had the id since: then there would be no last epoch.
        Some(epoch) if epoch == metadata.last_epoch => Some((current, metadata.last_epoch)),
        Some(_) => None,
    }
}

/// InitProducerId. A transaction that is open is aborted (`PrepareAbort`), with an epoch that fences whoever began it.
pub(super) fn initialize(
    metadata: &Metadata,
    expected: Option<TransactionalProducer>,
    timeout_ms: i32,
    at: Moment,
) -> Decision {
    if expected.is_some_and(|expected| !is_known(metadata, expected)) {
        return Decision::Refuse(ErrorCode::ProducerFenced);
    }
    match metadata.state {
        TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
            return Decision::Refuse(ErrorCode::ConcurrentTransactions);
        }
        TransactionState::Ongoing => return fence(metadata, at),
        TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {}
    }
    let is_current = expected.is_none_or(|expected| expected.epoch == metadata.producer.epoch);
    if metadata.is_exhausted() && is_current {
        let Some(id) = at.fresh_id else { return Decision::NeedsProducerId };
        let last_epoch = expected.map_or(ProducerEpoch::NONE, |_| metadata.producer.epoch);
        let producer = TransactionalProducer { id, epoch: ProducerEpoch::new(0) };
        return Decision::Write(metadata.initialized(producer, last_epoch, timeout_ms, at.now_ms));
    }
    match next_epoch(metadata, expected) {
        Some((epoch, last_epoch)) => {
            let producer = TransactionalProducer { id: metadata.producer.id, epoch };
            Decision::Write(metadata.initialized(producer, last_epoch, timeout_ms, at.now_ms))
        }
        None => Decision::Refuse(ErrorCode::ProducerFenced),
    }
}

/// Whether `producer` has the id.
fn check(metadata: &Metadata, producer: TransactionalProducer) -> Result<(), ErrorCode> {
    if metadata.producer.id != producer.id {
        Err(ErrorCode::InvalidProducerIdMapping)
    } else if metadata.producer.epoch != producer.epoch {
        // R6
        Err(ErrorCode::ProducerFenced)
    } else if metadata.state.is_prepared() {
        Err(ErrorCode::ConcurrentTransactions)
    } else {
        Ok(())
    }
}

/// AddPartitionsToTxn and AddOffsetsToTxn: the first partition begins the transaction.
pub(super) fn add_partitions(
    metadata: &Metadata,
    producer: TransactionalProducer,
    partitions: &Partitions,
    version: ClientVersion,
    now_ms: i64,
) -> Decision {
    if let Err(error) = check(metadata, producer) {
        return Decision::Refuse(error);
    }
    if metadata.state == TransactionState::Ongoing && partitions.is_subset(&metadata.partitions) {
        return Decision::Done;
    }
    Decision::Write(metadata.with_partitions(partitions, version, now_ms))
}

/// AddPartitionsToTxn that only asks: whether the producer may write into a transaction of its own at all.
pub(super) fn verify(metadata: &Metadata, producer: TransactionalProducer) -> Result<(), ErrorCode> {
    check(metadata, producer)
}

/// The end of a transaction: with the epoch raised where the version says so, and another producer id to follow when
/// there is no epoch left.
fn end(metadata: &Metadata, commit: bool, version: ClientVersion, at: Moment) -> Decision {
    if version.bumps_epoch() && metadata.is_exhausted() && at.fresh_id.is_none() {
        return Decision::NeedsProducerId;
    }
    let next_id = at.fresh_id.filter(|_| version.bumps_epoch() && metadata.is_exhausted());
    Decision::Write(metadata.prepared(commit, version, next_id, at.now_ms))
}

/// Aborts what is open, and raises the epoch over that of whoever began it, whatever version that one goes by. Only
/// for a transaction that is open.
pub(super) fn fence(metadata: &Metadata, at: Moment) -> Decision {
    end(metadata, false, ClientVersion::V2, at)
}

/// EndTxn up to version 4. `is_pending` tells that a change is on its way.
pub(super) fn end_v0(
    metadata: &Metadata,
    producer: TransactionalProducer,
    commit: bool,
    is_pending: bool,
    at: Moment,
) -> Decision {
    let refuse = |expected: bool, error| {
        Decision::Refuse(if commit == expected { error } else { ErrorCode::InvalidTxnState })
    };
    if metadata.producer.id != producer.id {
        return Decision::Refuse(ErrorCode::InvalidProducerIdMapping);
    }
    if metadata.producer.epoch != producer.epoch {
        return Decision::Refuse(ErrorCode::ProducerFenced);
    }
    if is_pending {
        return Decision::Refuse(ErrorCode::ConcurrentTransactions);
    }
    match metadata.state {
        TransactionState::Ongoing => end(metadata, commit, ClientVersion::V0, at),
        TransactionState::CompleteCommit if commit => Decision::Done,
        TransactionState::CompleteAbort if !commit => Decision::Done,
        TransactionState::PrepareCommit => refuse(true, ErrorCode::ConcurrentTransactions),
        TransactionState::PrepareAbort => refuse(false, ErrorCode::ConcurrentTransactions),
        TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
            Decision::Refuse(ErrorCode::InvalidTxnState)
        }
    }
}

/// EndTxn from version 5 on (KIP-890), when no change is on its way. Every end raises the epoch, so a request with the
/// epoch of before is one that was not answered, and one with the epoch of now is about the next transaction.
pub(super) fn end_v2(
    metadata: &Metadata,
    producer: TransactionalProducer,
    commit: bool,
    at: Moment,
) -> Decision {
    let (stored, asked) = (metadata.producer.epoch.get(), producer.epoch.get());
    let is_current = asked == stored;
    // R6: an end of version 0 raised no epoch, so whoever has the one before is not who ended, but was fenced by it. Kafka
    // does not look, and tells such a producer that it has committed.
    let was_bumped = metadata.version.bumps_epoch();
    let is_bump_retry = was_bumped && asked.checked_add(1) == Some(stored);
    let is_rotation_retry =
        was_bumped && metadata.previous_id == producer.id && asked == i16::MAX - 1 && stored == 0;
    let is_retry = is_bump_retry || is_rotation_retry;
    if metadata.producer.id != producer.id && !is_rotation_retry {
        return Decision::Refuse(ErrorCode::InvalidProducerIdMapping);
    }
    let is_valid = match metadata.state {
        TransactionState::Ongoing | TransactionState::Empty => is_current,
        TransactionState::PrepareCommit | TransactionState::PrepareAbort => is_bump_retry,
        TransactionState::CompleteCommit | TransactionState::CompleteAbort => is_retry || is_current,
    };
    if !is_valid {
        return Decision::Refuse(ErrorCode::ProducerFenced);
    }
    match (metadata.state, commit) {
        (TransactionState::Ongoing, _) => end(metadata, commit, ClientVersion::V2, at),
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) if is_retry => {
            Decision::Done
        }
        // Nothing was begun, as far as is known here; the client may not know whether it has, and goes on with a new
        // epoch either way.
        (TransactionState::Empty, false) => end(metadata, false, ClientVersion::V2, at),
        (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false) if !is_retry => {
            end(metadata, false, ClientVersion::V2, at)
        }
        (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
            Decision::Refuse(ErrorCode::ConcurrentTransactions)
        }
        _ => Decision::Refuse(ErrorCode::InvalidTxnState),
    }
}
