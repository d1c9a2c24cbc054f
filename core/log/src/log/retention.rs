//! Which segments go, and the log start offset.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use towpath_types::Offset;

use super::Log;
use crate::error::LogError;
use crate::segment::{SNAPSHOT, Segment, remove_segment, segment_path};

impl Log {
    /// Moves the log start offset up to `offset` (`DeleteRecords`; the caller has compared it with the high
    /// watermark). The segments go with the next [`Self::delete_old_segments`]. Returns the log start offset.
    ///
    /// # Errors
    /// [`LogError`]; an offset past the log end is taken for the log end.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset, LogError> {
        let writer = self.writer.lock();
        self.check_open(&writer)?;
        self.advance_log_start(offset.min(self.log_end_offset()).get());
        Ok(self.log_start_offset())
    }

    fn advance_log_start(&self, offset: i64) {
        if self.log_start.fetch_max(offset, Ordering::AcqRel) < offset {
            self.epochs.write().truncate_from_start(Offset::new(offset));
        }
    }

    /// Removes the segments that are too old, too many bytes, or before the log start offset; never one that
    /// reaches the high watermark. Returns how many.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn delete_old_segments(&self, high_watermark: Offset) -> Result<usize, LogError> {
        // A compaction that replaces segments must not meet a removal of the same ones. It may take minutes; what is
        // left now goes the next time.
        let Some(_cleaning) = self.cleaning.try_lock() else {
            self.check_not_deleted()?;
            return Ok(0);
        };
        let _flushing = self.flushing.lock();
        let config = self.config();
        let now_ms = self.disk.clock.now_ms();
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        self.check_open(writer)?;
        let segments = self.segments();
        let log_start = self.log_start_offset().get();
        let log_end = self.log_end_offset().get();
        let total: u64 = segments.iter().map(|segment| segment.size()).sum();
        let mut excess = match config.retention_bytes {
            Some(bound) if config.delete => total.saturating_sub(bound),
            _ => 0,
        };
        let mut count = 0;
        for (index, segment) in segments.iter().enumerate() {
            let end = segments.get(index + 1).map_or(log_end, |next| next.base);
            let is_active = index + 1 == segments.len();
            if end > high_watermark.get() || (is_active && segment.size() == 0) {
                break;
            }
            let is_before_start = end <= log_start && (!is_active || segment.size() > 0);
            let is_excess = excess > 0 && excess >= segment.size();
            let is_old = match config.retention_ms {
                Some(retention) if config.delete => {
                    let timestamp = segment.retention_timestamp(&self.disk)?;
                    if timestamp > now_ms {
                        tracing::debug!(
                            partition = %self.partition(), base_offset = segment.base, timestamp,
                            "a timestamp in the future keeps the segment, and those after it"
                        );
                    }
                    now_ms.saturating_sub(timestamp) > retention
                }
                _ => false,
            };
            if !(is_before_start || is_excess || is_old) {
                break;
            }
            excess = excess.saturating_sub(segment.size());
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        if count == segments.len() {
            self.roll_at(writer, log_end)?;
        }
        self.remove_first(count)?;
        Ok(count)
    }

    /// Removes the `count` oldest segments. The caller holds the writer's lock.
    fn remove_first(&self, count: usize) -> Result<(), LogError> {
        let removed: Vec<Arc<Segment>> = {
            let mut segments = self.segments.write();
            let mut list = Vec::clone(&segments);
            let removed = list.drain(..count).collect();
            // R3 and readers: the log start moves before a file goes.
            if let Some(first) = list.first() {
                self.advance_log_start(first.base);
            }
            *segments = Arc::new(list);
            removed
        };
        for segment in removed {
            tracing::info!(partition = %self.partition, base_offset = segment.base, "segment removed by retention");
            remove_segment(&self.disk, &self.dir, segment.base)?;
            self.disk.remove_file(&segment_path(&self.dir, segment.base, SNAPSHOT))?;
        }
        Ok(())
    }
}
