//! Kafka's text checkpoints: a version, a count, one entry a line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use towpath_types::{LeaderEpoch, Offset, TopicName, TopicPartition};

use crate::disk::Disk;
use crate::epoch::EpochEntry;
use crate::error::LogError;

const VERSION: &str = "0";

/// The entry lines of a checkpoint, or what is wrong with it.
fn lines(content: &[u8]) -> Result<Vec<&str>, &'static str> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some(VERSION) {
        return Err("its version is not 0");
    }
    let count: usize =
        lines.next().and_then(|line| line.trim().parse().ok()).ok_or("it has no entry count")?;
    let entries: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    if entries.len() != count {
        return Err("its entry count does not match its entries");
    }
    Ok(entries)
}

/// Reads `topic partition offset` lines; an absent file is an empty map.
pub(crate) fn read_offsets(disk: &Disk, path: &Path) -> Result<BTreeMap<TopicPartition, Offset>, LogError> {
    let Some(content) = disk.read_small(path)? else { return Ok(BTreeMap::new()) };
    let entries = lines(&content).map_err(|problem| LogError::corrupt(path, problem))?;
    let mut offsets = BTreeMap::new();
    for line in entries {
        let mut fields = line.split_whitespace();
        let entry = (|| {
            let topic = TopicName::new(fields.next()?).ok()?;
            let partition = fields.next()?.parse().ok()?;
            let offset = fields.next()?.parse().ok()?;
            Some((TopicPartition::new(topic, partition), Offset::new(offset)))
        })();
        match entry {
            Some((partition, offset)) if fields.next().is_none() => offsets.insert(partition, offset),
            _ => return Err(LogError::corrupt(path, format!("`{line}` is no entry"))),
        };
    }
    Ok(offsets)
}

/// Replaces a file of `topic partition offset` lines.
pub(crate) fn write_offsets(
    disk: &Disk,
    path: &Path,
    offsets: &BTreeMap<TopicPartition, Offset>,
) -> Result<(), LogError> {
    let mut text = format!("{VERSION}\n{}\n", offsets.len());
    for (partition, offset) in offsets {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {offset}", partition.topic, partition.partition);
    }
    disk.replace(path, text.as_bytes())
}

/// Reads `epoch start-offset` lines; `None` if the file is absent or cannot be trusted.
pub(crate) fn read_epochs(disk: &Disk, path: &Path) -> Result<Option<Vec<EpochEntry>>, LogError> {
    let Some(content) = disk.read_small(path)? else { return Ok(None) };
    let parse = |content: &[u8]| {
        let mut entries = Vec::new();
        for line in lines(content).ok()? {
            let (epoch, start) = line.trim().split_once(' ')?;
            entries.push(EpochEntry {
                epoch: LeaderEpoch::new(epoch.parse().ok()?),
                start_offset: Offset::new(start.trim().parse().ok()?),
            });
        }
        Some(entries)
    };
    let entries = parse(&content);
    if entries.is_none() {
        tracing::warn!(path = %path.display(), "the leader epoch checkpoint is unreadable and will be rebuilt");
    }
    Ok(entries)
}

/// Replaces a file of `epoch start-offset` lines.
pub(crate) fn write_epochs(disk: &Disk, path: &Path, entries: &[EpochEntry]) -> Result<(), LogError> {
    let mut text = format!("{VERSION}\n{}\n", entries.len());
    for entry in entries {
        let _ = writeln!(text, "{} {}", entry.epoch, entry.start_offset);
    }
    disk.replace(path, text.as_bytes())
}
