//! Compaction (`cleanup.policy=compact`): of each key the newest record stays, at its offset.
//!
//! Closed segments below the last stable offset are read once to learn the newest offset of each key, as far as memory
//! allows, and once to be rewritten without what is outdated or aborted. The swap follows Kafka's names: a crash leaves
//! either the old segments or the new one.

mod keys;
mod rewrite;
mod swap;
mod transactions;

use std::sync::Arc;

use towpath_types::Offset;

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::segment::Segment;
use keys::KeyMap;
use rewrite::Cleaning;
pub(crate) use swap::finish_swaps;

const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";

/// The bounds of one compaction.
#[derive(Debug, Clone, Copy)]
pub struct CleanOptions {
    /// Bytes that the map of keys may take (`log.cleaner.dedupe.buffer.size`). Keys that no longer fit are left for
    /// the next compaction.
    pub map_bytes_max: usize,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self { map_bytes_max: 16 * 1024 * 1024 }
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanStats {
    /// Where the next compaction begins: everything below has one record per key.
    pub clean_to: Offset,
    /// Records that were read.
    pub records_read: u64,
    /// Records that stayed.
    pub records_kept: u64,
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// Bytes of the segments after.
    pub bytes_after: u64,
}

impl Log {
    /// Whether a compaction is due: enough of the log is dirty (`min.cleanable.dirty.ratio`), or it has been for
    /// too long (`max.compaction.lag.ms`).
    pub(crate) fn is_clean_due(&self, high_watermark: Offset) -> Result<bool, LogError> {
        let config = self.config();
        let now_ms = self.disk().clock.now_ms();
        let cleanable = self.cleanable(&config, self.last_stable_offset(high_watermark).get(), now_ms);
        Ok(config.compact && is_due(self.disk(), &config, &cleanable, self.first_dirty(), now_ms)?)
    }

    /// Where the next compaction begins.
    fn first_dirty(&self) -> i64 {
        let start = self.log_start_offset();
        let compacted = self.compacted().get(self.partition());
        // Past the end, the log was cut by somebody who did not say so.
        if compacted > self.log_end_offset() { start.get() } else { compacted.max(start).get() }
    }

    /// Compacts the log up to the last stable offset, if it is due. `high_watermark` must be below a recovery point that is
    /// on disk: recovery takes the gaps that compaction leaves for losses, unless it knows better. Appends and reads go on.
    /// A deletion ends it with [`LogError::Closed`], a truncation with [`LogError::Interrupted`].
    pub(crate) fn clean(
        &self,
        high_watermark: Offset,
        options: &CleanOptions,
    ) -> Result<Option<CleanStats>, LogError> {
        let config = self.config();
        if !config.compact {
            return Ok(None);
        }
        let _cleaning = self.cleaning.lock();
        self.disk().check()?;
        self.check_cleaning()?;
        let now_ms = self.disk().clock.now_ms();
        // What is undecided may be aborted, and then what it replaces would be missed.
        let bound = self.last_stable_offset(high_watermark).get();
        let cleanable = self.cleanable(&config, bound, now_ms);
        let first_dirty = self.first_dirty();
        if !is_due(self.disk(), &config, &cleanable, first_dirty, now_ms)? {
            return Ok(None);
        }
        let end = cleanable.last().map_or(first_dirty, |(_, end)| *end);
        let mut cleaning = Cleaning {
            log: self,
            disk: self.disk(),
            config: &config,
            now_ms,
            bounds: [end, bound],
            map: KeyMap::new(options.map_bytes_max, end),
            segments: self.segments(),
            transactions: Default::default(),
            epoch_starts: self.epoch_entries().iter().map(|entry| entry.start_offset.get()).collect(),
            producers: self.last_traces(),
            stats: CleanStats {
                clean_to: Offset::new(end),
                records_read: 0,
                records_kept: 0,
                bytes_before: 0,
                bytes_after: 0,
            },
        };
        let stats = self.clean_segments(&mut cleaning, &cleanable, first_dirty)?;
        // With `cleaning` still held: a truncation that comes now lowers what is said here.
        self.compacted().set(self.partition(), stats.clean_to)?;
        tracing::debug!(partition = %self.partition(), ?stats, "log compacted");
        Ok(Some(stats))
    }

    fn clean_segments(
        &self,
        cleaning: &mut Cleaning<'_>,
        cleanable: &[(Arc<Segment>, i64)],
        first_dirty: i64,
    ) -> Result<CleanStats, LogError> {
        for (segment, end) in cleanable {
            if *end > first_dirty && !cleaning.learn(segment, first_dirty, *end)? {
                break;
            }
        }
        cleaning.transactions = Default::default();
        let map_end = cleaning.map.end;
        cleaning.stats.clean_to = Offset::new(map_end);
        let involved = cleanable.iter().filter(|(segment, _)| segment.base < map_end);
        let last_end = involved.clone().next_back().map_or(0, |(_, end)| *end);
        let involved: Vec<Arc<Segment>> = involved.map(|(segment, _)| Arc::clone(segment)).collect();
        let groups = groups(cleaning.config, &involved, last_end);
        for (index, group) in groups.iter().enumerate() {
            let next = groups.get(index + 1).and_then(|next| next.first());
            let cleaned = cleaning.rewrite(&self.dir, group, next.map_or(last_end, |next| next.base))?;
            self.check_not_deleted()?;
            // What is half replaced is for the next start to sort out.
            self.replace_group(group, cleaned).inspect_err(|error| self.disk().fail(error))?;
        }
        Ok(cleaning.stats)
    }

    /// The closed segments that may be compacted now, each with the offset after it.
    fn cleanable(&self, config: &LogConfig, bound: i64, now_ms: i64) -> Vec<(Arc<Segment>, i64)> {
        let segments = self.segments();
        let too_new = now_ms.saturating_sub(config.compaction_lag_ms_min);
        segments
            .iter()
            .zip(segments.iter().skip(1).map(|next| next.base))
            .take_while(|(segment, end)| {
                let settled = config.compaction_lag_ms_min == 0 || segment.max_timestamp() <= too_new;
                *end <= bound && settled
            })
            .map(|(segment, end)| (Arc::clone(segment), end))
            .collect()
    }
}

fn is_due(
    disk: &Disk,
    config: &LogConfig,
    cleanable: &[(Arc<Segment>, i64)],
    first_dirty: i64,
    now_ms: i64,
) -> Result<bool, LogError> {
    let total: u64 = cleanable.iter().map(|(segment, _)| segment.size()).sum();
    let dirty = cleanable.iter().filter(|(_, end)| *end > first_dirty);
    let dirty_bytes: u64 = dirty.clone().map(|(segment, _)| segment.size()).sum();
    if dirty_bytes == 0 {
        return Ok(false);
    }
    if dirty_bytes as f64 / total as f64 > config.dirty_ratio_min {
        return Ok(true);
    }
    for (segment, _) in dirty {
        let first = segment.first_timestamp(disk)?;
        if first >= 0 && now_ms.saturating_sub(first) > config.compaction_lag_ms_max {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs of segments that fit into one by size and by range of offsets.
fn groups<'a>(config: &LogConfig, segments: &'a [Arc<Segment>], end: i64) -> Vec<&'a [Arc<Segment>]> {
    let mut groups = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (index, segment) in segments.iter().enumerate() {
        let segment_end = segments.get(index + 1).map_or(end, |next| next.base);
        let span = segment_end.saturating_sub(segments[start].base);
        let fits = bytes + segment.size() <= config.segment_bytes && span <= i64::from(i32::MAX);
        if index > start && !fits {
            groups.push(&segments[start..index]);
            start = index;
            bytes = 0;
        }
        bytes += segment.size();
    }
    if start < segments.len() {
        groups.push(&segments[start..]);
    }
    groups
}
