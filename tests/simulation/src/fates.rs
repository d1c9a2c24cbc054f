//! What became of the transactions in one partition's committed history.

use std::collections::{BTreeMap, HashSet};

use crate::records::{OF_GROUP, marker_of, transaction_of};
use crate::violation::{Checked, IDEMPOTENCE, Violation};

/// What a `read_committed` reader makes of an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// In no transaction.
    Plain,
    /// A marker.
    Marker,
    Open,
    Committed,
    Aborted,
}

/// A stretch of one producer's records that one marker ends.
#[derive(Debug)]
struct Span {
    offsets: Vec<i64>,
    ids: Vec<u64>,
    marker: Option<i64>,
}

/// The end of a transaction in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) transaction: u64,
    pub(crate) commit: bool,
    /// Whether it is about offsets of a group.
    pub(crate) of_group: bool,
}

/// The transactions of a partition.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    /// By offset.
    fates: Vec<Fate>,
    spans: Vec<Span>,
    /// The spans that are open, by producer id.
    open: BTreeMap<u64, usize>,
    seen: HashSet<u64>,
    /// The ends that nobody has looked at yet.
    pub(crate) news: Vec<Decided>,
    /// Another history came: nothing is known any more.
    pub(crate) is_void: bool,
}

impl Fates {
    /// A record has become committed.
    pub(crate) fn committed(&mut self, offset: i64, id: u64) -> Checked {
        if self.is_void {
            return Ok(());
        }
        let fate = if let Some((producer, commit)) = marker_of(id) {
            self.end(producer, commit, offset);
            Fate::Marker
        } else if let Some((producer, _, place)) = transaction_of(id) {
            // Offsets of a group may be sent twice.
            if place != OF_GROUP && !self.seen.insert(id) {
                let detail = format!("record {id:#x} of a transaction is there twice, also at {offset}");
                return Err(Violation::new(IDEMPOTENCE, detail));
            }
            let next = self.spans.len();
            let index = *self.open.entry(producer).or_insert(next);
            if index == next {
                self.spans.push(Span { offsets: Vec::new(), ids: Vec::new(), marker: None });
            }
            self.spans[index].offsets.push(offset);
            self.spans[index].ids.push(id);
            Fate::Open
        } else {
            Fate::Plain
        };
        self.fates.push(fate);
        Ok(())
    }

    /// Whether some transaction is open.
    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn end(&mut self, producer: u64, commit: bool, offset: i64) {
        let Some(index) = self.open.remove(&producer) else { return };
        let span = &mut self.spans[index];
        span.marker = Some(offset);
        for at in &span.offsets {
            if let Some(fate) = usize::try_from(*at).ok().and_then(|at| self.fates.get_mut(at)) {
                *fate = if commit { Fate::Committed } else { Fate::Aborted };
            }
        }
        for (_, transaction, place) in span.ids.iter().filter_map(|id| transaction_of(*id)) {
            let decided = Decided { transaction, commit, of_group: place == OF_GROUP };
            if self.news.last() != Some(&decided) {
                self.news.push(decided);
            }
        }
    }

    /// Whether a `read_committed` reader sees a record at an offset.
    pub(crate) fn is_visible(&self, offset: i64) -> bool {
        let fate = usize::try_from(offset).ok().and_then(|offset| self.fates.get(offset));
        matches!(fate, Some(Fate::Plain | Fate::Committed))
    }

    /// The first offset of a transaction without a marker below the high watermark, of those offsets that a replica has.
    pub(crate) fn first_undecided(&self, high_watermark: i64, has: impl Fn(i64) -> bool) -> Option<i64> {
        if self.is_void {
            return None;
        }
        self.spans
            .iter()
            .filter(|span| span.marker.is_none_or(|marker| marker >= high_watermark))
            .filter_map(|span| span.offsets.iter().find(|offset| has(**offset)))
            .copied()
            .filter(|first| *first < high_watermark)
            .min()
    }

    /// Whether an acknowledged record of a committed transaction is there and visible.
    pub(crate) fn has_committed(&self, id: u64) -> bool {
        let spans = self.spans.iter().filter(|span| span.ids.contains(&id));
        self.is_void || spans.flat_map(|span| &span.offsets).any(|offset| self.is_visible(*offset))
    }
}
