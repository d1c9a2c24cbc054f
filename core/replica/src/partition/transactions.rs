//! Transactions in a partition: verification, markers, and how far they are decided.

use std::sync::Arc;

use bytes::Bytes;
use towpath_log::{AppendOptions, Marker, ProducerSummary, TransactionCheck};
use towpath_record::{BatchHeader, MARKER_BYTES};
use towpath_types::{Offset, ProducerEpoch, ProducerId, Rule, Term};

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
        if !self.environment.rules().holds(Rule::Verification) {
            return Ok(TransactionCheck::Append);
        }
        Ok(self.log.transaction_check_of(producer_id, producer_epoch, sequence, tv2)?)
    }

    /// With which proof a batch is appended: the one that it came with; without rule 15 or 16, one that is made for it.
    pub(super) fn proven(&self, batch: &Bytes, options: &AppendOptions) -> AppendOptions {
        let rules = self.environment.rules();
        if rules.holds(Rule::Verification) && rules.holds(Rule::VerificationGuard) {
            return *options;
        }
        let is_affirmed = options.guard.is_some() || !rules.holds(Rule::Verification);
        let header = BatchHeader::parse(batch).ok().filter(|it| it.is_transactional() && is_affirmed);
        let check = header.and_then(|header| self.log.transaction_check(&header, false).ok());
        match check {
            Some(TransactionCheck::Verify(guard)) => AppendOptions { guard: Some(guard), ..*options },
            _ => *options,
        }
    }

    /// The marker as it is appended: without rule 19 or 20 one that nothing is wrong with.
    fn unfenced(&self, marker: &Marker) -> Marker {
        let (rules, mut marker) = (self.environment.rules(), *marker);
        if !rules.holds(Rule::MarkerCoordinator) {
            marker.coordinator_epoch = i32::MAX;
        }
        if !rules.holds(Rule::MarkerEpoch) {
            let known = self.log.producers().into_iter().find(|it| it.producer_id == marker.producer_id);
            marker.producer_epoch =
                known.map_or(marker.producer_epoch, |known| known.producer_epoch.max(marker.producer_epoch));
            marker.tv2 = false;
        }
        marker
    }

    /// Ends a producer's transaction here, if enough replicas are in sync. The transaction has ended for good when
    /// [`Self::committed`] resolves.
    ///
    /// # Errors
    /// [`PartitionError`]; nothing was appended, unless the disk failed.
    pub fn append_marker(self: &Arc<Self>, marker: &Marker) -> Result<Appended, PartitionError> {
        let marker = self.unfenced(marker);
        self.append_while(None, true, MARKER_BYTES as u64, |log, epoch| log.append_marker(&marker, epoch))
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
        let (bytes, marker) = (MARKER_BYTES as u64, self.unfenced(marker));
        self.append_while(Some(term), true, bytes, |log, epoch| log.append_marker(&marker, epoch))
    }

    /// R3: what `read_committed` readers see is below: the high watermark, or the beginning of the first transaction that
    /// is open, or whose marker is not below the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.stable_below(self.high_watermark())
    }

    pub(super) fn stable_below(&self, high_watermark: Offset) -> Offset {
        if self.environment.rules().holds(Rule::LastStableOffset) {
            self.log.last_stable_offset(high_watermark)
        } else {
            self.log.stable_offset(high_watermark, self.log.log_end_offset())
        }
    }

    /// The producers that the partition remembers (`DescribeProducers`).
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerSummary> {
        self.log.producers()
    }
}
