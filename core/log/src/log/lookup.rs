//! Lookups by timestamp (`ListOffsets`).

use towpath_types::{LeaderEpoch, Offset};

use super::Log;
use crate::error::LogError;

/// A record that a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampAndOffset {
    /// Its timestamp (ms).
    pub timestamp: i64,
    /// Its offset.
    pub offset: Offset,
    /// The leader epoch it was written in, if known.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Log {
    /// The first record whose timestamp is at least `timestamp_ms`.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn lookup_timestamp(&self, timestamp_ms: i64) -> Result<Option<TimestampAndOffset>, LogError> {
        let segments = self.segments();
        let start = self.log_start_offset().get();
        for (index, segment) in segments.iter().enumerate() {
            let is_before_start = segments.get(index + 1).is_some_and(|next| next.base <= start);
            if is_before_start || segment.max_timestamp() < timestamp_ms {
                continue;
            }
            if let Some(found) = segment.find_timestamp(&self.disk, timestamp_ms, start)? {
                return Ok(Some(self.located(found)));
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of the log (KIP-734).
    ///
    /// # Errors
    /// [`LogError`].
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>, LogError> {
        let segments = self.segments();
        let start = self.log_start_offset().get();
        // The first segment that has the maximum; `max_by_key` would take the last.
        let Some(max) = segments.iter().map(|segment| segment.max_timestamp()).max().filter(|max| *max >= 0)
        else {
            return Ok(None);
        };
        for segment in segments.iter().filter(|segment| segment.max_timestamp() == max) {
            if let Some(found) = segment.find_timestamp(&self.disk, max, start)? {
                return Ok(Some(self.located(found)));
            }
        }
        Ok(None)
    }

    fn located(&self, (timestamp, offset): (i64, Offset)) -> TimestampAndOffset {
        TimestampAndOffset { timestamp, offset, leader_epoch: self.epoch_at(offset) }
    }
}
