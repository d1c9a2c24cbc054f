//! The metadata log of a cluster of one node: a local log that is flushed before anything is said to be committed, and
//! snapshots of what its records add up to, so that old records can go.

use std::sync::Arc;

use bytes::Bytes;
use towpath_log::{Log, LogConfig};
use towpath_record::{BatchBuilder, Compression, Origin, batches};
use towpath_types::{LeaderEpoch, Offset, limits};

use crate::{ControllerError, MetadataImage, MetadataLog, MetadataRecord, snapshot_content};

/// Bytes that are read from the log at a time.
const READ_BYTES: usize = 1024 * 1024;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// When a snapshot is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Records since the last snapshot, at least; and never fewer than the last snapshot itself had, so that large
    /// clusters do not write all of their metadata again and again.
    pub records_min: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { records_min: 1_000 }
    }
}

/// A snapshot that was read or written by this process.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    offset: Offset,
    records: u64,
}

/// The metadata log of one node, in the partition directory `__cluster_metadata-0`.
///
/// Two snapshots are kept, and the log from the older one on: if the newer one cannot be read, nothing is lost.
#[derive(Debug)]
pub struct LocalMetadataLog {
    log: Arc<Log>,
    builder: BatchBuilder,
    policy: SnapshotPolicy,
    newest: Option<Snapshot>,
}

fn unreadable(offset: Offset, source: impl Into<AnyError>) -> ControllerError {
    ControllerError::Unreadable { offset: offset.get(), source: source.into() }
}

impl LocalMetadataLog {
    /// The topic under whose name the log lies in the data directory. It is no topic that clients see.
    pub const TOPIC: &'static str = "__cluster_metadata";

    /// The epoch of the only leader that a log of one node has; a quorum's first leader has it, too.
    pub const EPOCH: LeaderEpoch = LeaderEpoch::new(1);

    /// The settings of its log: nothing is dropped but what a snapshot holds.
    #[must_use]
    pub fn config() -> LogConfig {
        LogConfig {
            retention_ms: None,
            retention_bytes: None,
            delete: false,
            compact: false,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            tail_bytes: 0,
            ..LogConfig::default()
        }
    }

    /// Opens the log: reads the newest snapshot that can be read, and applies the records after it.
    ///
    /// # Errors
    /// [`ControllerError`]; a record that cannot be read, or a gap between snapshot and log, stops here (R7), with its
    /// offset.
    pub fn open(log: Arc<Log>) -> Result<(Self, MetadataImage), ControllerError> {
        Self::open_with(log, SnapshotPolicy::default())
    }

    /// As [`Self::open`], with another policy for snapshots.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        log: Arc<Log>,
        policy: SnapshotPolicy,
    ) -> Result<(Self, MetadataImage), ControllerError> {
        log.set_config(Self::config());
        let (newest, mut image) = newest_snapshot(&log)?;
        replay(&log, &mut image)?;
        // What a killed process appended and did not flush becomes a fact by being applied: it must be durable.
        log.flush()?;
        if let Some(newest) = newest {
            // What a crash kept from being removed; the one before stays.
            for other in log.checkpoints()?.into_iter().filter(|other| *other < newest.offset).skip(1) {
                log.remove_checkpoint(other)?;
            }
        }
        let mut opened = Self { log, builder: BatchBuilder::new(Compression::None), policy, newest };
        opened.applied(&image);
        Ok((opened, image))
    }

    fn is_due(&self, image: &MetadataImage) -> bool {
        let last = self.newest.map_or(Offset::ZERO, |snapshot| snapshot.offset);
        let since = u64::try_from(image.next_offset().get() - last.get()).unwrap_or(0);
        since >= self.policy.records_min.max(self.newest.map_or(0, |snapshot| snapshot.records))
    }

    /// Writes a snapshot, and drops what is no longer needed: older snapshots but one, and the log before that one.
    fn take_snapshot(&mut self, image: &MetadataImage) -> Result<(), ControllerError> {
        let offset = image.next_offset();
        let (content, records) = snapshot_content::encode(image)?;
        // A segment begins where the snapshot ends, so that whole segments can go later.
        self.log.roll()?;
        self.log.flush()?;
        self.log.write_checkpoint(offset, &content)?;
        let older = self.newest.replace(Snapshot { offset, records }).map(|snapshot| snapshot.offset);
        for other in self.log.checkpoints()? {
            if other != offset && Some(other) != older {
                self.log.remove_checkpoint(other)?;
            }
        }
        if let Some(older) = older {
            self.log.delete_records_before(older)?;
            self.log.delete_old_segments(self.log.log_end_offset())?;
        }
        tracing::info!(%offset, records, bytes = content.len(), "metadata snapshot written");
        Ok(())
    }
}

impl MetadataLog for LocalMetadataLog {
    fn commit(&mut self, base: Offset, records: &[MetadataRecord]) -> Result<(), ControllerError> {
        let append = |error: AnyError| ControllerError::Append(error);
        self.builder.reset();
        for record in records {
            let value = record.encode()?;
            self.builder.append(0, None, Some(&value), &[]).map_err(|error| append(error.into()))?;
        }
        // One batch: after a crash either all of the records are there or none.
        let batch = self.builder.build().map_err(|error| append(error.into()))?;
        let info = self
            .log
            .append_as_leader(batch, Self::EPOCH, Origin::Coordinator)
            .map_err(|error| append(error.into()))?;
        if info.first_offset != base {
            return Err(append(format!("records went to offset {}, not {base}", info.first_offset).into()));
        }
        // R1: the metadata log is always flushed.
        self.log.flush()?;
        Ok(())
    }

    fn applied(&mut self, image: &MetadataImage) {
        if self.is_due(image)
            && let Err(error) = self.take_snapshot(image)
        {
            // The records are committed all the same. If it was the disk, the directory is offline by now (R14).
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "the metadata snapshot cannot be written");
        }
    }
}

/// The image of the newest snapshot that can be read, or that of an empty log.
fn newest_snapshot(log: &Log) -> Result<(Option<Snapshot>, MetadataImage), ControllerError> {
    let mut broken: Option<AnyError> = None;
    let mut found = (None, MetadataImage::new());
    for offset in log.checkpoints()? {
        match read_snapshot(log, offset) {
            Ok((snapshot, image)) => {
                found = (Some(snapshot), image);
                break;
            }
            Err(error) => {
                tracing::error!(%offset, %error, "a metadata snapshot cannot be read; trying the one before");
                broken.get_or_insert(error);
            }
        }
    }
    let (at, start, end) = (found.1.next_offset(), log.log_start_offset(), log.log_end_offset());
    if start > at {
        // R7: the records between are nowhere.
        let gone = || format!("the log begins at {start}, and no snapshot reaches it").into();
        return Err(unreadable(at, broken.unwrap_or_else(gone)));
    }
    if end < at {
        return Err(unreadable(end, format!("the log ends at {end}, before its snapshot at {at}")));
    }
    Ok(found)
}

fn read_snapshot(log: &Log, offset: Offset) -> Result<(Snapshot, MetadataImage), AnyError> {
    let content = log.read_checkpoint(offset)?.ok_or("it is gone")?;
    let (image, count) = snapshot_content::decode(&Bytes::from(content))?;
    if image.next_offset() != offset {
        return Err(format!("it is one of offset {}", image.next_offset()).into());
    }
    Ok((Snapshot { offset, records: count }, image))
}

/// Applies the log's records from where the image ends.
fn replay(log: &Log, image: &mut MetadataImage) -> Result<(), ControllerError> {
    let end = log.log_end_offset();
    while image.next_offset() < end {
        let from = image.next_offset();
        let data = log.read(from, READ_BYTES, end, true).map_err(|error| unreadable(from, error))?;
        let bytes = data.into_bytes()?;
        for batch in batches(&bytes) {
            let batch = batch.map_err(|error| unreadable(from, error))?;
            batch.verify_crc().map_err(|error| unreadable(from, error))?;
            for record in &batch.records().map_err(|error| unreadable(from, error))? {
                let record = record.map_err(|error| unreadable(from, error))?;
                if record.offset < from {
                    // The snapshot holds it.
                    continue;
                }
                let value = record.value.unwrap_or_default();
                let decoded = MetadataRecord::decode(value).map_err(|error| unreadable(from, error))?;
                image.apply(record.offset, &decoded)?;
            }
        }
        if image.next_offset() == from {
            return Err(unreadable(from, "the log ends in the middle"));
        }
    }
    Ok(())
}
