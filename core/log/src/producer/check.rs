//! Whether a batch or a marker may be appended: Kafka's `ProducerAppendInfo`.

use towpath_record::{BatchHeader, Origin};
use towpath_types::{Offset, ProducerEpoch, ProducerId};

use super::verification::Verification;
use super::{ProducerEntry, ProducerState, VerificationGuard, Verifications};
use crate::error::AppendError;

/// Who appends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appender {
    pub(crate) origin: Origin,
    pub(crate) guard: Option<VerificationGuard>,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Append,
    /// It is in the log already, at these offsets.
    Duplicate {
        first: Offset,
        last: Offset,
        timestamp: i64,
    },
}

impl ProducerEntry {
    fn check_epoch(&self, id: i64, epoch: i16) -> Result<(), AppendError> {
        if epoch < self.epoch { Err(self.stale(id, epoch)) } else { Ok(()) }
    }

    const fn stale(&self, id: i64, epoch: i16) -> AppendError {
        AppendError::InvalidProducerEpoch {
            producer_id: ProducerId::new(id),
            found: ProducerEpoch::new(epoch),
            current: ProducerEpoch::new(self.epoch),
        }
    }

    fn duplicate(&self, header: &BatchHeader) -> Option<Decision> {
        let mark = self.marks().iter().find(|mark| {
            mark.first_sequence() == header.base_sequence && mark.last_sequence == header.last_sequence()
        })?;
        Some(Decision::Duplicate {
            first: Offset::new(mark.last_offset - i64::from(mark.offset_delta)),
            last: Offset::new(mark.last_offset),
            timestamp: mark.timestamp,
        })
    }
}

impl ProducerState {
    /// Checks a batch of records: is it new, a repetition, or out of order; may it be in a transaction?
    pub(crate) fn check(
        &self,
        header: &BatchHeader,
        appender: Appender,
        verifications: &Verifications,
    ) -> Result<Decision, AppendError> {
        if !header.has_producer_id() || header.is_control() {
            return Ok(Decision::Append);
        }
        let (id, epoch) = (header.producer_id.get(), header.producer_epoch.get());
        let entry = self.producers.get(&id);
        let from_client = appender.origin == Origin::Client;
        if let Some(entry) = entry {
            entry.check_epoch(id, epoch)?;
            if from_client
                && epoch == entry.epoch
                && let Some(duplicate) = entry.duplicate(header)
            {
                return Ok(duplicate);
            }
        } else if self.is_full() {
            return Err(AppendError::TooManyTransactions { open: self.open.len() });
        }
        let mut verification = None;
        if header.is_transactional() && !self.is_open(id, epoch) {
            verification = verifications.get(id, epoch, appender.guard);
            if verification.is_none() {
                return Err(AppendError::NotVerified { producer_id: header.producer_id });
            }
        }
        if from_client {
            check_sequence(header, entry, verification)?;
        }
        if !header.is_transactional() && entry.is_some_and(ProducerEntry::is_open) {
            return Err(AppendError::InvalidTxnState { producer_id: header.producer_id });
        }
        Ok(Decision::Append)
    }

    /// Checks a marker. Under `transaction.version` 2 (`tv2`) the coordinator raises the epoch before it ends a
    /// transaction, so a marker of the epoch that was last seen can only be one that is there already, sent again; it is
    /// appended once more.
    pub(crate) fn check_marker(
        &self,
        producer: (ProducerId, ProducerEpoch),
        coordinator_epoch: i32,
        tv2: bool,
    ) -> Result<(), AppendError> {
        let (id, epoch) = (producer.0.get(), producer.1.get());
        let Some(entry) = self.producers.get(&id) else {
            return if self.is_full() {
                Err(AppendError::TooManyTransactions { open: self.open.len() })
            } else {
                Ok(())
            };
        };
        entry.check_epoch(id, epoch)?;
        if tv2 && epoch == entry.epoch && entry.is_open() {
            return Err(entry.stale(id, epoch));
        }
        if coordinator_epoch < entry.coordinator_epoch {
            return Err(AppendError::TransactionCoordinatorFenced {
                producer_id: producer.0,
                found: coordinator_epoch,
                current: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Whether the coordinator has to be asked before a batch in a transaction is appended.
    pub(crate) fn needs_verification(
        &self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Result<bool, AppendError> {
        let (id, epoch) = (producer_id.get(), producer_epoch.get());
        if let Some(entry) = self.producers.get(&id) {
            entry.check_epoch(id, epoch)?;
        }
        Ok(!self.is_open(id, epoch))
    }

    /// Whether a transaction of just this epoch is open: one of an older epoch may have been ended since.
    fn is_open(&self, id: i64, epoch: i16) -> bool {
        self.producers.get(&id).is_some_and(|entry| entry.is_open() && entry.epoch == epoch)
    }
}

fn check_sequence(
    header: &BatchHeader,
    entry: Option<&ProducerEntry>,
    verification: Option<&Verification>,
) -> Result<(), AppendError> {
    let first = header.base_sequence;
    let last = entry.and_then(|entry| entry.marks().last()).map(|mark| mark.last_sequence);
    let out_of_order = AppendError::OutOfOrderSequence {
        producer_id: header.producer_id,
        found: first,
        last: last.unwrap_or(-1),
    };
    if let Some(verification) = verification {
        let begins_late = verification.tv2 && last.is_none() && first != 0;
        if begins_late || first > verification.lowest_sequence {
            return Err(out_of_order);
        }
    }
    let expected = match (entry, last) {
        // Nothing is known of it: whatever it had here may be deleted.
        (None, _) => return Ok(()),
        (Some(entry), _) if header.producer_epoch.get() > entry.epoch => 0,
        // After markers alone comes 0, and sequences wrap from MAX to 0.
        (Some(_), None | Some(i32::MAX)) => 0,
        (Some(_), Some(last)) => last + 1,
    };
    if first == expected { Ok(()) } else { Err(out_of_order) }
}
