//! What was appended and is not committed yet, as those who wait for records count it.

use towpath_types::Offset;

/// Entries at most: beyond, appends are counted together, with the last of them.
const ENTRIES_MAX: usize = 64;

/// The bytes of batches above the high watermark.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted {
    /// The last offset of a batch and its bytes; nearly in the order of the offsets.
    batches: Vec<(Offset, u64)>,
}

impl Uncommitted {
    /// A batch was appended.
    pub(crate) fn push(&mut self, last: Offset, bytes: u64) {
        if self.batches.len() < ENTRIES_MAX {
            self.batches.push((last, bytes));
        } else if let Some(newest) = self.batches.last_mut() {
            *newest = (newest.0.max(last), newest.1.saturating_add(bytes));
        }
    }

    /// Takes out what lies below the high watermark: how many bytes that are.
    pub(crate) fn take_below(&mut self, high_watermark: Offset) -> u64 {
        let mut bytes = 0u64;
        self.batches.retain(|(last, batch)| {
            let is_above = *last >= high_watermark;
            if !is_above {
                bytes = bytes.saturating_add(*batch);
            }
            is_above
        });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn each_batch_counts_when_the_high_watermark_has_passed_it_and_once() {
        let mut uncommitted = Uncommitted::default();
        for (last, bytes) in [(0, 100), (2, 30), (1, 20), (3, 7)] {
            uncommitted.push(at(last), bytes);
        }
        assert_eq!(uncommitted.take_below(at(0)), 0);
        assert_eq!(uncommitted.take_below(at(2)), 120, "whoever was appended later keeps its bytes");
        assert_eq!(uncommitted.take_below(at(2)), 0);
        assert_eq!(uncommitted.take_below(at(4)), 37);
        assert!(uncommitted.batches.is_empty());
    }

    #[test]
    fn many_batches_take_no_more_room_and_lose_no_byte() {
        let mut uncommitted = Uncommitted::default();
        for last in 0..1000 {
            uncommitted.push(at(last), 1);
        }
        assert_eq!(uncommitted.batches.len(), ENTRIES_MAX);
        assert_eq!(uncommitted.take_below(at(10)), 10);
        assert_eq!(uncommitted.take_below(at(1000)), 990);
    }
}
