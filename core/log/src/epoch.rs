//! The leader-epoch cache (KIP-101): where each leader's records begin.

use towpath_types::{LeaderEpoch, Offset};

/// One epoch and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where it begins.
    pub start_offset: Offset,
}

/// Entries with strictly growing epochs and offsets that do not shrink.
#[derive(Debug, Default)]
pub(crate) struct EpochCache {
    entries: Vec<EpochEntry>,
    /// Whether the entries differ from the checkpoint file.
    dirty: bool,
}

impl EpochCache {
    pub(crate) fn new(entries: Vec<EpochEntry>) -> Self {
        let mut cache = Self::default();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset);
        }
        cache.dirty = false;
        cache
    }

    pub(crate) fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub(crate) fn latest(&self) -> LeaderEpoch {
        self.entries.last().map_or(LeaderEpoch::NONE, |entry| entry.epoch)
    }

    /// Takes note that `epoch` begins at `start_offset`; entries that contradict it are dropped, as in Kafka.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if epoch < LeaderEpoch::new(0) {
            return;
        }
        if let Some(last) = self.entries.last()
            && last.epoch >= epoch
            && last.start_offset <= start_offset
        {
            return;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochEntry { epoch, start_offset });
        self.dirty = true;
    }

    /// Drops the entries that begin at or after `end`.
    pub(crate) fn truncate_from_end(&mut self, end: Offset) {
        let keep = self.entries.partition_point(|entry| entry.start_offset < end);
        if keep < self.entries.len() {
            self.entries.truncate(keep);
            self.dirty = true;
        }
    }

    /// Drops the entries that end at or before `start`, and moves the first of the rest up to it.
    pub(crate) fn truncate_from_start(&mut self, start: Offset) {
        let covers = self.entries.partition_point(|entry| entry.start_offset <= start);
        if let Some(index) = covers.checked_sub(1)
            && (index > 0 || self.entries[0].start_offset < start)
        {
            self.entries.drain(..index);
            self.entries[0].start_offset = start;
            self.dirty = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.dirty |= !self.entries.is_empty();
        self.entries.clear();
    }

    /// Where the largest epoch up to `requested` ends (`OffsetForLeaderEpoch`).
    pub(crate) fn end_offset_for(
        &self,
        requested: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if requested < LeaderEpoch::new(0) {
            return None;
        }
        if requested == self.latest() {
            return Some((requested, log_end));
        }
        let higher = self.entries.partition_point(|entry| entry.epoch <= requested);
        let next = self.entries.get(higher)?;
        let epoch = higher.checked_sub(1).map_or(requested, |index| self.entries[index].epoch);
        Some((epoch, next.start_offset))
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// The entries to write, if the file is out of date; it is taken to be written now.
    pub(crate) fn take_dirty(&mut self) -> Option<Vec<EpochEntry>> {
        std::mem::take(&mut self.dirty).then(|| self.entries.clone())
    }

    /// The entries could not be written.
    pub(crate) const fn set_dirty(&mut self) {
        self.dirty = true;
    }

    pub(crate) const fn is_dirty(&self) -> bool {
        self.dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start) in entries {
            cache.assign(LeaderEpoch::new(*epoch), Offset::new(*start));
        }
        cache
    }

    fn raw(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch.get(), entry.start_offset.get())).collect()
    }

    #[test]
    fn end_offsets_are_kip_101s() {
        let cache = cache(&[(2, 10), (4, 20), (7, 30)]);
        let end = |epoch: i32| {
            cache
                .end_offset_for(LeaderEpoch::new(epoch), Offset::new(99))
                .map(|(epoch, end)| (epoch.get(), end.get()))
        };
        assert_eq!(end(-1), None);
        assert_eq!(end(0), Some((0, 10)), "before the first epoch: its start");
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((2, 20)), "the largest epoch up to the one asked for");
        assert_eq!(end(7), Some((7, 99)));
        assert_eq!(end(8), None, "an epoch we never saw");
        assert_eq!(cache.epoch_at(Offset::new(9)), None);
        assert_eq!(cache.epoch_at(Offset::new(20)), Some(LeaderEpoch::new(4)));
    }

    #[test]
    fn an_epoch_without_records_is_replaced() {
        let mut cache = cache(&[(1, 0), (2, 10), (3, 10)]);
        assert_eq!(raw(&cache), [(1, 0), (3, 10)]);
        cache.assign(LeaderEpoch::new(2), Offset::new(12));
        assert_eq!(raw(&cache), [(1, 0), (3, 10)], "an older epoch changes nothing");
    }

    #[test]
    fn truncation_at_both_ends() {
        let mut end = cache(&[(1, 0), (2, 10), (3, 20)]);
        end.truncate_from_end(Offset::new(20));
        assert_eq!(raw(&end), [(1, 0), (2, 10)]);
        end.truncate_from_end(Offset::new(11));
        assert_eq!(raw(&end), [(1, 0), (2, 10)]);
        let mut start = cache(&[(1, 0), (2, 10), (3, 20)]);
        start.truncate_from_start(Offset::new(15));
        assert_eq!(raw(&start), [(2, 15), (3, 20)]);
        start.truncate_from_start(Offset::new(20));
        assert_eq!(raw(&start), [(3, 20)]);
    }
}
