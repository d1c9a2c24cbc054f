//! What a compaction has to know of transactions on its way through a log: whose records are aborted, and which markers
//! have nothing left to end.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};

use towpath_record::BatchHeader;

use crate::producer::EndMarker;
use crate::txn_index::AbortedTxn;

/// An aborted transaction of which something was met.
#[derive(Debug)]
struct Aborted {
    entry: AbortedTxn,
    has_data: bool,
}

/// By first offset, the smallest first.
#[derive(Debug, PartialEq, Eq)]
struct Coming(AbortedTxn);

impl Ord for Coming {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |coming: &Self| (coming.0.first_offset, coming.0.last_offset);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Coming {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What a marker means for the log that remains.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MarkerFate {
    /// No record of its transaction is there any more.
    pub(super) discardable: bool,
    /// The entry that the index of aborted transactions has to keep.
    pub(super) entry: Option<AbortedTxn>,
}

/// Takes batches in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Aborted transactions that begin further on.
    coming: BinaryHeap<Reverse<Coming>>,
    /// Those that have begun and whose marker was not met, by producer.
    aborted: HashMap<i64, Aborted>,
    /// Producers of whose committed transaction a batch was met, and no marker.
    committed: HashSet<i64>,
}

impl Transactions {
    /// Adds the aborted transactions of the batches that come next. One may be added again as long as its marker was
    /// not met.
    pub(super) fn add(&mut self, aborted: Vec<AbortedTxn>) {
        self.coming.extend(aborted.into_iter().map(|entry| Reverse(Coming(entry))));
    }

    fn begin_up_to(&mut self, offset: i64) {
        while self.coming.peek().is_some_and(|Reverse(Coming(entry))| entry.first_offset <= offset) {
            let Some(Reverse(Coming(entry))) = self.coming.pop() else { return };
            if let Entry::Vacant(vacant) = self.aborted.entry(entry.producer_id) {
                vacant.insert(Aborted { entry, has_data: false });
            }
        }
    }

    /// Whether a batch of records belongs to an aborted transaction.
    pub(super) fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header.last_offset().get());
        if !header.is_transactional() {
            return false;
        }
        let id = header.producer_id.get();
        if let Some(aborted) = self.aborted.get_mut(&id) {
            aborted.has_data = true;
            return true;
        }
        self.committed.insert(id);
        false
    }

    /// What becomes of a control batch; `marker` is what it says, none for one that is empty already.
    pub(super) fn marker(&mut self, header: &BatchHeader, marker: Option<EndMarker>) -> MarkerFate {
        self.begin_up_to(header.last_offset().get());
        let Some(marker) = marker else {
            // Empty ones have nothing to say; those of other kinds say something else.
            return MarkerFate { discardable: header.record_count == 0, entry: None };
        };
        let id = header.producer_id.get();
        if marker.commit {
            return MarkerFate { discardable: !self.committed.remove(&id), entry: None };
        }
        let entry = self.aborted.remove(&id).filter(|aborted| aborted.has_data).map(|aborted| aborted.entry);
        MarkerFate { discardable: entry.is_none(), entry }
    }
}
