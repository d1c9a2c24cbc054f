//! Which transactions the coordinator is being asked about (KIP-890): a record may begin a transaction here only if the
//! coordinator knows of it, and nothing may have ended it between the answer and the append.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use towpath_types::{ProducerEpoch, ProducerId, limits};

/// Proof that a producer's transaction was verified with its coordinator. It is bound to the state of the log at that
/// moment: as soon as a marker or a newer epoch of the producer is in the log, it opens nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(NonZeroU64);

/// What has to be done before a batch is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionCheck {
    /// Nothing: the batch is in no transaction, or in one that is open in this log already.
    Append,
    /// The coordinator has to be asked; then the batch is appended with this guard.
    Verify(VerificationGuard),
}

/// A verification that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) producer_id: ProducerId,
    pub(crate) producer_epoch: ProducerEpoch,
    /// The first sequence number of the batch, or -1.
    pub(crate) sequence: i32,
    /// Whether the producer's epoch grows with every transaction (`transaction.version` 2).
    pub(crate) tv2: bool,
}

/// One that is under way, or whose guard has not been used yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verification {
    pub(super) guard: VerificationGuard,
    /// Of all batches that wait for it, the smallest: one with a larger number must not be appended first, or the others
    /// would never find their place.
    pub(super) lowest_sequence: i32,
    pub(super) tv2: bool,
    since_ms: i64,
}

/// All verifications of a log.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    by_producer: BTreeMap<(i64, i16), Verification>,
}

/// The next guard of this process: a guard of a log that another one has replaced counts in no other.
static NEXT_GUARD: AtomicU64 = AtomicU64::new(1);

impl Verifications {
    /// The guard of a verification that is under way, or that of a new one.
    pub(crate) fn begin(&mut self, wanted: &Wanted, now_ms: i64) -> VerificationGuard {
        let key = (wanted.producer_id.get(), wanted.producer_epoch.get());
        if let Some(known) = self.by_producer.get_mut(&key) {
            known.lowest_sequence = known.lowest_sequence.min(wanted.sequence);
            known.tv2 |= wanted.tv2;
            return known.guard;
        }
        self.make_room();
        let number = NEXT_GUARD.fetch_add(1, Ordering::Relaxed);
        let guard = VerificationGuard(NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX));
        let verification =
            Verification { guard, lowest_sequence: wanted.sequence, tv2: wanted.tv2, since_ms: now_ms };
        self.by_producer.insert(key, verification);
        guard
    }

    /// The verification that `guard` proves, if it still counts.
    pub(super) fn get(&self, id: i64, epoch: i16, guard: Option<VerificationGuard>) -> Option<&Verification> {
        self.by_producer.get(&(id, epoch)).filter(|known| Some(known.guard) == guard)
    }

    /// Something of the producer's transaction is in the log: its data, from which on the transaction is open, or a
    /// marker. What was begun up to that epoch opens nothing any more.
    pub(crate) fn settle(&mut self, producer_id: ProducerId, epoch: ProducerEpoch) {
        if self.by_producer.is_empty() {
            return;
        }
        let id = producer_id.get();
        while let Some((key, _)) = self.by_producer.range((id, i16::MIN)..=(id, epoch.get())).next() {
            let key = *key;
            self.by_producer.remove(&key);
        }
    }

    /// Forgets those that were begun more than `expiration_ms` ago.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_producer.retain(|_, known| now_ms.saturating_sub(known.since_ms) < expiration_ms);
    }

    pub(crate) fn clear(&mut self) {
        self.by_producer.clear();
    }

    /// R10: forgets the older ones when there are too many; whoever needed them asks again.
    fn make_room(&mut self) {
        if self.by_producer.len() < limits::PRODUCERS_PER_PARTITION_MAX {
            return;
        }
        let mut times: Vec<i64> = self.by_producer.values().map(|known| known.since_ms).collect();
        let tenth = times.len() / 10;
        let (_, bound, _) = times.select_nth_unstable(tenth);
        let bound = *bound;
        self.by_producer.retain(|_, known| known.since_ms > bound);
    }
}
