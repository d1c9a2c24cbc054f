//! From the decision to the completion: markers in all partitions.

use std::sync::Arc;

use towpath_types::TopicPartition;

use super::append::Then;
use super::{Busy, TransactionCommand, TransactionMachine, TransactionToken, size_in_bytes};
use crate::log::EndMarker;
use crate::machine::Now;
use crate::transaction::metadata::TransactionState;

/// How long a completion waits that could not be written.
const RETRY_MS: i64 = 500;

impl TransactionMachine {
    /// A marker is in a partition's log, or the partition is gone. Unknown tokens (of before an unload), and partitions
    /// that have their marker, mean nothing.
    pub fn marker_written(
        &mut self,
        now: Now,
        token: TransactionToken,
        partition: &TopicPartition,
        out: &mut Vec<TransactionCommand>,
    ) {
        let Some(id) = self.marking.get(&token).map(Arc::clone) else { return };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        Arc::make_mut(&mut entry.metadata.partitions).remove(partition);
        let is_last = entry.metadata.partitions.is_empty();
        let bytes = size_in_bytes(&id, &entry.metadata);
        self.charge(&id, bytes);
        if is_last {
            self.marking.remove(&token);
            self.complete(now, &id, out);
        }
    }

    /// Has the markers of a prepared transaction sent.
    pub(super) fn send_markers(&mut self, now: Now, id: &Arc<str>, out: &mut Vec<TransactionCommand>) {
        let token = self.token();
        let Some(entry) = self.entries.get_mut(id) else { return };
        let metadata = &entry.metadata;
        if metadata.partitions.is_empty() {
            return self.complete(now, id, out);
        }
        entry.busy = Some(Busy::Markers);
        let marker = EndMarker {
            producer: metadata.producer,
            coordinator_epoch: self.coordinator_epoch,
            commit: metadata.state == TransactionState::PrepareCommit,
            bumps_epoch: metadata.version.bumps_epoch(),
        };
        let partitions = metadata.partitions.iter().collect();
        let transactional_id = Arc::clone(id);
        self.marking.insert(token, Arc::clone(id));
        out.push(TransactionCommand::SendMarkers { token, transactional_id, marker, partitions });
    }

    fn complete(&mut self, now: Now, id: &Arc<str>, out: &mut Vec<TransactionCommand>) {
        if let Some(entry) = self.entries.get(id) {
            let next = entry.metadata.completed(now.wall_ms);
            self.write(now, id, next, Then::Complete, out);
        }
    }

    /// The completion could not be written; the markers are, and the id waits.
    pub(super) fn complete_later(&mut self, now: Now, id: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.busy = Some(Busy::Retry);
            self.retries.push_back((now.monotonic_ms.saturating_add(RETRY_MS), Arc::clone(id)));
        }
    }

    pub(super) fn retry_completions(&mut self, now: Now, out: &mut Vec<TransactionCommand>) {
        while let Some((_, id)) = self.retries.pop_front_if(|(at_ms, _)| *at_ms <= now.monotonic_ms) {
            self.complete(now, &id, out);
        }
    }
}
