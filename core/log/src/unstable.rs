//! What keeps the last stable offset below the high watermark: transactions that are open, and those whose marker is not
//! below the high watermark yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// Ended transactions that are remembered one by one; beyond, several count as one that begins with the first of them and
/// ends with the last (R10).
const ENDED_MAX: usize = 4096;

/// A transaction that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) marker: i64,
    pub(crate) first: i64,
}

#[derive(Debug)]
struct Inner {
    /// The first offset of the open transaction that began first, or the largest number.
    open: i64,
    /// Markers grow, and so do first offsets: of two transactions, one that began later and ended earlier than the other
    /// says nothing beside it.
    ended: VecDeque<Ended>,
}

impl Inner {
    fn push(&mut self, ended: Ended) {
        while self.ended.back().is_some_and(|last| last.first >= ended.first) {
            self.ended.pop_back();
        }
        let is_full = self.ended.len() >= ENDED_MAX;
        match self.ended.back_mut() {
            Some(last) if is_full => last.marker = ended.marker,
            _ => self.ended.push_back(ended),
        }
    }

    fn first(&self) -> i64 {
        self.ended.front().map_or(self.open, |ended| self.open.min(ended.first))
    }
}

/// See the module. Changed by the writer of the log, read by everybody.
#[derive(Debug)]
pub(crate) struct Unstable {
    /// The smallest of all first offsets, or the largest number: without transactions nobody takes the lock.
    first: AtomicI64,
    inner: Mutex<Inner>,
}

impl Unstable {
    /// `open` is the first offset of the open transaction that began first.
    pub(crate) fn new(open: Option<i64>, ended: Vec<Ended>) -> Self {
        let inner = Inner { open: i64::MAX, ended: VecDeque::new() };
        let unstable = Self { first: AtomicI64::new(i64::MAX), inner: Mutex::new(inner) };
        unstable.change(open, |inner| ended.into_iter().for_each(|ended| inner.push(ended)));
        unstable
    }

    fn change(&self, open: Option<i64>, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        inner.open = open.unwrap_or(i64::MAX);
        change(&mut inner);
        self.first.store(inner.first(), Ordering::Release);
    }

    /// A transaction began.
    pub(crate) fn began(&self, open: Option<i64>) {
        self.change(open, |_| {});
    }

    /// A transaction was ended; `open` is what is left.
    pub(crate) fn ended(&self, open: Option<i64>, ended: Ended) {
        self.change(open, |inner| inner.push(ended));
    }

    /// The log was cut at `end`: markers after it are gone.
    pub(crate) fn cut(&self, open: Option<i64>, end: i64) {
        self.change(open, |inner| {
            // Those whose marker went are open again. An entry that stands for several may still hold one that is not.
            for ended in &mut inner.ended {
                ended.marker = ended.marker.min(end.saturating_sub(1));
            }
        });
    }

    /// Nothing is in the log any more.
    pub(crate) fn clear(&self) {
        self.change(None, |inner| inner.ended.clear());
    }

    /// Forgets those whose marker is below the high watermark, which does not go back behind it.
    pub(crate) fn forget_below(&self, high_watermark: i64) {
        if self.first.load(Ordering::Acquire) == i64::MAX {
            return;
        }
        let mut inner = self.inner.lock();
        while inner.ended.front().is_some_and(|ended| ended.marker < high_watermark) {
            inner.ended.pop_front();
        }
        self.first.store(inner.first(), Ordering::Release);
    }

    /// The first offset below the high watermark that is not decided by a marker below `markers` (the high watermark, but
    /// in a simulation), if there is one.
    pub(crate) fn first_below(&self, high_watermark: i64, markers: i64) -> Option<i64> {
        if self.first.load(Ordering::Acquire) >= high_watermark {
            return None;
        }
        let inner = self.inner.lock();
        let settled = inner.ended.partition_point(|ended| ended.marker < markers);
        let ended = inner.ended.get(settled).map_or(i64::MAX, |ended| ended.first);
        Some(inner.open.min(ended)).filter(|first| *first < high_watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_below(unstable: &Unstable, high_watermark: i64) -> Option<i64> {
        unstable.first_below(high_watermark, high_watermark)
    }

    #[test]
    fn open_and_ended_transactions_hold_it_back_until_the_marker_is_below_the_high_watermark() {
        let unstable = Unstable::new(None, Vec::new());
        assert_eq!(first_below(&unstable, 100), None);
        unstable.began(Some(5));
        assert_eq!((first_below(&unstable, 5), first_below(&unstable, 6)), (None, Some(5)));
        unstable.ended(Some(8), Ended { marker: 20, first: 5 });
        assert_eq!(first_below(&unstable, 20), Some(5), "the marker itself is not below");
        assert_eq!(first_below(&unstable, 21), Some(8));
        unstable.ended(None, Ended { marker: 30, first: 8 });
        unstable.forget_below(21);
        assert_eq!((first_below(&unstable, 21), first_below(&unstable, 31)), (Some(8), None));
        unstable.forget_below(31);
        assert_eq!(unstable.first.load(Ordering::Relaxed), i64::MAX);
    }

    #[test]
    fn one_that_is_covered_by_another_is_not_kept() {
        let ended = vec![
            Ended { marker: 10, first: 4 },
            Ended { marker: 11, first: 6 },
            Ended { marker: 12, first: 2 },
        ];
        let unstable = Unstable::new(None, ended);
        assert_eq!(unstable.inner.lock().ended.len(), 1);
        assert_eq!((first_below(&unstable, 12), first_below(&unstable, 13)), (Some(2), None));
    }

    #[test]
    fn many_take_no_more_room_and_none_is_let_go_early() {
        let count = ENDED_MAX as i64 * 2;
        let unstable = Unstable::new(None, Vec::new());
        for index in 0..count {
            unstable.ended(None, Ended { marker: index * 10 + 9, first: index * 10 });
        }
        assert_eq!(unstable.inner.lock().ended.len(), ENDED_MAX);
        for index in [0, 1, ENDED_MAX as i64 - 1, ENDED_MAX as i64, count - 1] {
            let first = first_below(&unstable, index * 10 + 9);
            assert!(first.is_some_and(|first| first <= index * 10), "{index}: {first:?}");
        }
        assert_eq!(first_below(&unstable, count * 10), None);
        unstable.cut(Some(ENDED_MAX as i64 * 10), ENDED_MAX as i64 * 10 + 5);
        assert_eq!(first_below(&unstable, ENDED_MAX as i64 * 10 + 5), Some(ENDED_MAX as i64 * 10));
    }
}
