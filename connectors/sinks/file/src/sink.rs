//! The open sink.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::{ConnectorError, Op, RecordView, Sink, SinkBatch, Written, json};
use towpath_types::{Offset, TopicId, TopicPartition};

use super::config::{Config, Lines};
use super::partition::Partition;

/// A task's sink.
#[derive(Debug)]
pub(crate) struct FileTask {
    config: Arc<Config>,
    partitions: HashMap<TopicPartition, Partition>,
    buffer: Vec<u8>,
}

/// Runs file operations where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(ConnectorError::bug("SINK_FILE", "a file operation ended abnormally").with_cause(error))
        }
    }
}

impl FileTask {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self { config, partitions: HashMap::new(), buffer: Vec::new() }
    }

    /// Lends a partition to `work`. A partition whose work failed is lost to this task, which ends by that error.
    async fn with<T: Send + 'static>(
        &mut self,
        partition: &TopicPartition,
        work: impl FnOnce(&mut Partition) -> Result<T, ConnectorError> + Send + 'static,
    ) -> Result<T, ConnectorError> {
        let mut owned = self.partitions.remove(partition).ok_or_else(|| {
            ConnectorError::bug("SINK_NOT_ASSIGNED", format!("{partition} is not this task's"))
        })?;
        let (owned, result) = blocking(move || work(&mut owned).map(|result| (owned, result))).await?;
        self.partitions.insert(partition.clone(), owned);
        Ok(result)
    }

    async fn finish(&mut self, partitions: Vec<TopicPartition>) -> Result<(), ConnectorError> {
        for partition in partitions {
            if self.partitions.contains_key(&partition) {
                self.with(&partition, Partition::finish).await?;
            }
        }
        Ok(())
    }
}

/// Appends the record's line.
fn write_line(out: &mut Vec<u8>, partition: &TopicPartition, record: &RecordView<'_>, lines: Lines) {
    if lines == Lines::Full {
        out.extend_from_slice(b"{\"topic\":");
        json::write_string(out, partition.topic.as_str());
        for (name, value) in [
            ("partition", i64::from(partition.partition)),
            ("offset", record.offset()),
            ("timestamp_ms", record.timestamp_ms()),
        ] {
            out.push(b',');
            json::write_string(out, name);
            out.push(b':');
            json::write_int(out, value);
        }
        out.extend_from_slice(b",\"key\":");
        json::write_key(out, record);
        out.extend_from_slice(b",\"value\":");
        json::write_record(out, record);
        out.extend_from_slice(b"}\n");
    } else if record.op() != Some(Op::Tombstone) {
        json::write_record(out, record);
        out.push(b'\n');
    }
}

#[async_trait]
impl Sink for FileTask {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut positions = BTreeMap::new();
        for (partition, id) in added {
            let (config, name, id) = (Arc::clone(&self.config), partition.clone(), *id);
            let taken = blocking(move || Partition::take(&config.path, &name, id)).await?;
            positions.insert(partition.clone(), Offset::new(taken.durable()));
            self.partitions.insert(partition.clone(), taken);
        }
        Ok(positions)
    }

    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError> {
        let partition = Arc::clone(&batch.partition);
        let known = self.partitions.get(partition.as_ref()).map_or(0, |owned| owned.next);
        let (first, next) = (batch.first_offset.get(), batch.next_offset.get());
        if next <= known && self.partitions.contains_key(partition.as_ref()) {
            return Ok(Written::accepted());
        }
        let mut lines = std::mem::take(&mut self.buffer);
        lines.clear();
        for record in batch.batch.records().filter(|record| record.offset() >= known) {
            write_line(&mut lines, &partition, &record, self.config.lines);
        }
        let config = Arc::clone(&self.config);
        let work = move |owned: &mut Partition| {
            owned.append(&lines, first, next)?;
            if owned.is_full(config.roll_bytes, config.roll_interval) {
                owned.finish()?;
            }
            Ok(lines)
        };
        self.buffer = self.with(&partition, work).await?;
        Ok(Written::accepted())
    }

    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut positions = BTreeMap::new();
        for partition in self.partitions.keys().cloned().collect::<Vec<_>>() {
            let config = Arc::clone(&self.config);
            let work = move |owned: &mut Partition| {
                if owned.is_full(u64::MAX, config.roll_interval) {
                    owned.finish()?
                } else {
                    owned.flush()?
                }
                Ok(owned.durable())
            };
            let next = self.with(&partition, work).await?;
            positions.insert(partition, Offset::new(next));
        }
        Ok(positions)
    }

    async fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), ConnectorError> {
        self.finish(removed.to_vec()).await?;
        for partition in removed {
            self.partitions.remove(partition);
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), ConnectorError> {
        let partitions = self.partitions.keys().cloned().collect();
        self.finish(partitions).await
    }
}
