//! Records of a partition into a sink: format, transforms, and what the sink rejects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use towpath_api::{
    Batch, BatchBuilder, ConnectorError, Durability, EventSchema, PipelineSpec, SchemaId, Sink, SinkBatch,
    Transform,
};
use towpath_client::{PartitionRecords, Producer, Record};
use towpath_formats::{Decoder, FormatError, Incoming, header};
use towpath_types::{Offset, TopicPartition};

use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::env::Env;
use crate::error::cluster_error;
use crate::metrics::TaskMetrics;
use crate::sink_task::SinkUnit;
use crate::source_writer::build_transforms;
use crate::status::{Direction, TaskShared};

/// Schemas that a task keeps before it begins anew.
const SCHEMAS_MAX: usize = 4096;
/// Dead letters of one partition that are remembered while the position has not passed them.
const BURIED_MAX: usize = 100_000;

pub(crate) struct Reader {
    env: Arc<Env>,
    spec: Arc<PipelineSpec>,
    shared: Arc<TaskShared>,
    metrics: TaskMetrics,
    decoder: Decoder,
    /// The schemas in use, so that the shared store is asked once for each.
    schemas: HashMap<SchemaId, Arc<EventSchema>>,
    last_schema: Option<(SchemaId, Arc<EventSchema>)>,
    transforms: Vec<Box<dyn Transform>>,
    letters: DeadLetters,
    buried: Arc<Buried>,
    /// Made when the first dead letter is written.
    producer: Option<Producer>,
}

/// What a delivery came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered {
    /// Whether everything accepted so far is durable.
    pub(crate) durable: bool,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Dead letters that are durable while the sink's position has not passed their records, by offset. Bounded: what is
/// not remembered is written once more after a failure.
#[derive(Debug, Default)]
pub(crate) struct Buried {
    offsets: parking_lot::Mutex<HashMap<TopicPartition, BTreeSet<i64>>>,
}

impl Buried {
    fn holds(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.offsets.lock().get(partition).is_some_and(|offsets| offsets.contains(&offset))
    }

    fn add(&self, partition: &TopicPartition, buried: impl Iterator<Item = i64>) {
        let mut all = self.offsets.lock();
        let offsets = all.entry(partition.clone()).or_default();
        offsets.extend(buried.take(BURIED_MAX.saturating_sub(offsets.len())));
    }

    /// The positions have passed these records.
    pub(crate) fn forget_before(&self, positions: &BTreeMap<TopicPartition, Offset>) {
        let mut all = self.offsets.lock();
        if all.is_empty() {
            return;
        }
        all.retain(|partition, offsets| {
            if let Some(position) = positions.get(partition) {
                *offsets = offsets.split_off(&position.get());
            }
            !offsets.is_empty()
        });
    }
}

/// A record that does not go on, by its offset.
type Refused = Vec<(i64, ConnectorError)>;

impl Reader {
    pub(crate) fn new(unit: &SinkUnit) -> Result<Self, ConnectorError> {
        let spec = &unit.spec;
        let id = format!("{}/sink/{}", spec.name, unit.index);
        // In a pipeline with a source the transforms have been applied on the way into the topic.
        let transforms = if spec.source.is_some() { Vec::new() } else { build_transforms(spec)? };
        Ok(Self {
            env: Arc::clone(&unit.env),
            spec: Arc::clone(spec),
            shared: Arc::clone(&unit.shared),
            metrics: TaskMetrics::new(&spec.name, Direction::Sink, unit.index),
            decoder: Decoder::new(spec.format),
            schemas: HashMap::new(),
            last_schema: None,
            transforms,
            letters: DeadLetters::new(spec, id, unit.env.redactor.clone())?,
            buried: Arc::clone(&unit.buried),
            producer: None,
        })
    }

    pub(crate) const fn metrics(&self) -> &TaskMetrics {
        &self.metrics
    }

    /// Gives the sink all records that it takes; the others are durable in the dead-letter topic before (R5).
    pub(crate) async fn deliver(
        &mut self,
        sink: &mut dyn Sink,
        records: &PartitionRecords,
    ) -> Result<Delivered, ConnectorError> {
        let mut without = BTreeSet::new();
        loop {
            let (batch, refused, bytes) = self.prepare(records, &without).await?;
            self.bury(records, refused, &mut without).await?;
            let offsets: Vec<_> = batch.records().map(|record| record.offset()).collect();
            let written = sink
                .write(SinkBatch {
                    partition: Arc::clone(&records.partition),
                    topic_id: records.topic_id,
                    first_offset: records.first_offset,
                    next_offset: records.next_offset,
                    batch,
                })
                .await?;
            if written.rejected.is_empty() {
                let durable = written.durability == Durability::Durable;
                return Ok(Delivered { durable, records: offsets.len() as u64, bytes });
            }
            let mut refused = Vec::new();
            for rejected in written.rejected {
                let offset = offsets.get(rejected.index).copied().ok_or_else(|| {
                    ConnectorError::bug("SINK_REJECTED", "the sink rejected a record that it was not given")
                })?;
                refused.push((offset, rejected.error));
            }
            self.bury(records, refused, &mut without).await?;
        }
    }

    /// Decodes and transforms, leaving out the offsets of `without`.
    async fn prepare(
        &mut self,
        records: &PartitionRecords,
        without: &BTreeSet<i64>,
    ) -> Result<(Batch, Refused, u64), ConnectorError> {
        let mut bytes = 0;
        let mut refused = Vec::new();
        let mut builder = BatchBuilder::new();
        for record in records {
            let record = record.map_err(|error| cluster_error("reading records", error))?;
            if without.contains(&record.offset.get()) {
                continue;
            }
            bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            match self.decode(records, record, &mut builder).await? {
                Ok(()) => {}
                Err(error) => refused.push((record.offset.get(), error.into())),
            }
        }
        let mut batch = builder.build();
        for transform in &mut self.transforms {
            let transformed = transform.apply(batch).await?;
            batch = transformed.batch;
            let (rejected, errors) = transformed.rejected.into_parts();
            refused.extend(rejected.records().map(|record| record.offset()).zip(errors));
        }
        Ok((batch, refused, bytes))
    }

    async fn schema(&mut self, id: SchemaId) -> Result<Option<Arc<EventSchema>>, ConnectorError> {
        if let Some((last, schema)) = &self.last_schema
            && *last == id
        {
            return Ok(Some(Arc::clone(schema)));
        }
        let schema = match self.schemas.get(&id) {
            Some(known) => Arc::clone(known),
            None => {
                let Some(found) = self.env.schemas.get(id).await? else { return Ok(None) };
                if self.schemas.len() >= SCHEMAS_MAX {
                    self.schemas.clear();
                }
                self.schemas.insert(id, Arc::clone(&found));
                found
            }
        };
        self.last_schema = Some((id, Arc::clone(&schema)));
        Ok(Some(schema))
    }

    async fn decode(
        &mut self,
        records: &PartitionRecords,
        record: Record<'_>,
        builder: &mut BatchBuilder,
    ) -> Result<Result<(), FormatError>, ConnectorError> {
        let id = header::schema_id(record.headers.last(header::SCHEMA).flatten());
        let schema = match id {
            None => None,
            Some(id) => match self.schema(id).await? {
                Some(schema) => Some(schema),
                None => return Ok(Err(FormatError::UnknownSchema(id.to_string()))),
            },
        };
        let incoming = Incoming {
            topic: &records.partition.topic,
            partition: records.partition.partition,
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            schema: schema.as_ref(),
        };
        // A header's name that is not UTF-8 cannot be carried on.
        let headers = record
            .headers
            .iter()
            .filter_map(|header| Some((std::str::from_utf8(header.key).ok()?, header.value)));
        Ok(self.decoder.decode(incoming, headers, builder))
    }

    /// Writes refused records to the dead-letter topic with their original bytes, and waits for it.
    async fn bury(
        &mut self,
        records: &PartitionRecords,
        refused: Refused,
        without: &mut BTreeSet<i64>,
    ) -> Result<(), ConnectorError> {
        if refused.is_empty() {
            return Ok(());
        }
        let producer =
            self.producer.get_or_insert_with(|| self.env.producer(self.spec.compression, None)).clone();
        let mut refused: BTreeMap<_, _> = refused.into_iter().collect();
        let mut acks = Vec::with_capacity(refused.len());
        for record in records {
            let record = record.map_err(|error| cluster_error("reading records", error))?;
            let Some(error) = refused.remove(&record.offset.get()) else { continue };
            without.insert(record.offset.get());
            if self.buried.holds(&records.partition, record.offset.get()) {
                continue;
            }
            let owned = |header: towpath_client::Header<'_>| {
                (String::from_utf8_lossy(header.key).into_owned(), header.value.map(<[u8]>::to_vec))
            };
            let letter = DeadLetter {
                key: record.key,
                value: record.value,
                headers: record.headers.iter().map(owned).collect(),
                place: vec![
                    ("topic", records.partition.topic.to_string()),
                    ("partition", records.partition.partition.to_string()),
                    ("offset", record.offset.to_string()),
                    ("timestamp", record.timestamp_ms.to_string()),
                ],
            };
            let ack = self.letters.send(&self.env, &self.spec, &producer, letter, error).await?;
            acks.push((record.offset.get(), ack));
        }
        if !refused.is_empty() {
            // A transform that lost the offset of a record would otherwise lose the record.
            return Err(ConnectorError::bug(
                "REJECTED_OFFSET",
                "a rejected record has no offset of this batch",
            ));
        }
        let mut durable = Vec::with_capacity(acks.len());
        for (offset, ack) in acks {
            ack.await.map_err(|error| cluster_error("writing dead letters", error))?;
            self.shared.dead_letters.fetch_add(1, Ordering::Relaxed);
            self.metrics.dead_letter();
            durable.push(offset);
        }
        self.buried.add(&records.partition, durable.into_iter());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_types::TopicName;

    #[test]
    fn what_is_buried_is_remembered_until_the_position_has_passed() {
        let buried = Buried::default();
        let partition = TopicPartition::new(TopicName::new("t").unwrap(), 0);
        buried.add(&partition, [3, 7].into_iter());
        assert!(buried.holds(&partition, 3) && buried.holds(&partition, 7) && !buried.holds(&partition, 5));
        buried.forget_before(&[(partition.clone(), Offset::new(4))].into());
        assert!(!buried.holds(&partition, 3) && buried.holds(&partition, 7));
        buried.forget_before(&[(partition.clone(), Offset::new(8))].into());
        assert!(buried.offsets.lock().is_empty());
        buried.add(&partition, 0..BURIED_MAX as i64 + 5);
        assert_eq!(buried.offsets.lock()[&partition].len(), BURIED_MAX, "bounded");
    }
}
