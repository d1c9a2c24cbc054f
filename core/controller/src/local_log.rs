//! The metadata log of a cluster of one node: a local log that is flushed before anything is said to be committed.

use std::sync::Arc;

use towpath_log::{Log, LogConfig};
use towpath_record::{BatchBuilder, Compression, Origin, batches};
use towpath_types::{LeaderEpoch, Offset, limits};

use crate::{ControllerError, MetadataImage, MetadataLog, MetadataRecord};

/// Bytes that are read from the log at a time.
const READ_BYTES: usize = 1024 * 1024;
/// The only leader that a log of one node has.
const EPOCH: LeaderEpoch = LeaderEpoch::new(0);

/// The metadata log of one node, in the partition directory `__cluster_metadata-0`.
#[derive(Debug)]
pub struct LocalMetadataLog {
    log: Arc<Log>,
    builder: BatchBuilder,
}

impl LocalMetadataLog {
    /// The topic under whose name the log lies in the data directory. It is no topic that clients see.
    pub const TOPIC: &'static str = "__cluster_metadata";

    /// The settings of its log: nothing is ever dropped.
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

    /// Opens the log and applies all of its records.
    ///
    /// # Errors
    /// [`ControllerError`]; a record that cannot be read stops here (R7), with its offset.
    pub fn open(log: Arc<Log>) -> Result<(Self, MetadataImage), ControllerError> {
        log.set_config(Self::config());
        let mut image = MetadataImage::new();
        let end = log.log_end_offset();
        while image.next_offset() < end {
            let from = image.next_offset();
            let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| ControllerError::Unreadable {
                offset: from.get(),
                source,
            };
            let data = log.read(from, READ_BYTES, end, true).map_err(|error| unreadable(error.into()))?;
            let bytes = data.into_bytes()?;
            for batch in batches(&bytes) {
                let batch = batch.map_err(|error| unreadable(error.into()))?;
                batch.verify_crc().map_err(|error| unreadable(error.into()))?;
                for record in &batch.records().map_err(|error| unreadable(error.into()))? {
                    let record = record.map_err(|error| unreadable(error.into()))?;
                    let value = record.value.unwrap_or_default();
                    let decoded = MetadataRecord::decode(value).map_err(|error| unreadable(error.into()))?;
                    image.apply(record.offset, &decoded)?;
                }
            }
            if image.next_offset() == from {
                return Err(unreadable("the log ends in the middle".into()));
            }
        }
        // What a killed process appended and did not flush becomes a fact by being applied: it must be durable.
        log.flush()?;
        Ok((Self { log, builder: BatchBuilder::new(Compression::None) }, image))
    }
}

impl MetadataLog for LocalMetadataLog {
    fn commit(&mut self, base: Offset, records: &[MetadataRecord]) -> Result<(), ControllerError> {
        let append = |error: Box<dyn std::error::Error + Send + Sync>| ControllerError::Append(error);
        self.builder.reset();
        for record in records {
            let value = record.encode()?;
            self.builder.append(0, None, Some(&value), &[]).map_err(|error| append(error.into()))?;
        }
        // One batch: after a crash either all of the records are there or none.
        let batch = self.builder.build().map_err(|error| append(error.into()))?;
        let info = self
            .log
            .append_as_leader(batch, EPOCH, Origin::Coordinator)
            .map_err(|error| append(error.into()))?;
        if info.first_offset != base {
            return Err(append(format!("records went to offset {}, not {base}", info.first_offset).into()));
        }
        // R1: the metadata log is always flushed.
        self.log.flush()?;
        Ok(())
    }
}
