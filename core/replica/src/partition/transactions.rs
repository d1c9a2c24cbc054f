//! Transactions in a partition: verification, markers, and how far they are decided.

use std::sync::Arc;

use towpath_log::{Marker, ProducerSummary, TransactionCheck};
use towpath_record::{BatchHeader, MARKER_BYTES};
use towpath_types::{Offset, ProducerEpoch, ProducerId, Term};

use super::{Appended, Partition};
use crate::PartitionError;

impl Partition {
    /// Whether a produced batch may be appended at once, or its transaction has to be verified with its coordinator
    /// first: see [`towpath_log::Log::transaction_check`].
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`]; [`towpath_log::AppendError::InvalidProducerEpoch`].
    pub fn transaction_check(
        &self,
        header: &BatchHeader,
        tv2: bool,
    ) -> Result<TransactionCheck, PartitionError> {
        if !header.is_transactional() {
            return Ok(TransactionCheck::Append);
        }
        self.transaction_check_of(header.producer_id, header.producer_epoch, header.base_sequence, tv2)
    }

    /// As [`Self::transaction_check`], for a batch that is not there yet: the offsets that a group coordinator writes
    /// for a producer, whose `sequence` is -1.
    ///
    /// # Errors
    /// As there.
    pub fn transaction_check_of(
        &self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        sequence: i32,
        tv2: bool,
    ) -> Result<TransactionCheck, PartitionError> {
        self.check_online()?;
        if !self.is_leader() {
            return Err(PartitionError::NotLeader);
        }
        Ok(self.log.transaction_check_of(producer_id, producer_epoch, sequence, tv2)?)
    }

    /// Ends a producer's transaction here, if enough replicas are in sync. The transaction has ended for good when
    /// [`Self::committed`] resolves.
    ///
    /// # Errors
    /// [`PartitionError`]; nothing was appended, unless the disk failed.
    pub fn append_marker(self: &Arc<Self>, marker: &Marker) -> Result<Appended, PartitionError> {
        self.append_while(None, true, MARKER_BYTES as u64, |log, epoch| log.append_marker(marker, epoch))
    }

    /// As [`Self::append_marker`], only within a term (see [`Self::append_in_term`]).
    ///
    /// # Errors
    /// As there; [`PartitionError::NotLeader`] when the term has ended.
    pub fn append_marker_in_term(
        self: &Arc<Self>,
        term: Term,
        marker: &Marker,
    ) -> Result<Appended, PartitionError> {
        let bytes = MARKER_BYTES as u64;
        self.append_while(Some(term), true, bytes, |log, epoch| log.append_marker(marker, epoch))
    }

    /// R3: what `read_committed` readers see is below: the high watermark, or the beginning of the first transaction that
    /// is open, or whose marker is not below the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.log.last_stable_offset(self.high_watermark())
    }

    /// The producers that the partition remembers (`DescribeProducers`).
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerSummary> {
        self.log.producers()
    }
}
