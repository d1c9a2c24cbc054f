//! Records of a source into topics: transforms, routing, formats, and what is already there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use towpath_api::{
    Batch, ConnectorError, EventSchema, FormatKind, JsonSchemas, Op, PipelineSpec, RecordView, RejectedInput,
    SchemaId, Transform,
};
use towpath_client::{Ack, ClientError, Producer, ProducerRecord, murmur2};
use towpath_formats::{Encoder, header};
use towpath_types::{Offset, TopicName, TopicPartition};

use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::dedup::{Seen, task_hash};
use crate::env::Env;
use crate::error::cluster_error;
use crate::metrics::TaskMetrics;
use crate::offsets::TargetOffset;
use crate::predecessor::Predecessor;
use crate::source_task::SourceUnit;
use crate::status::{Direction, TaskShared};
use crate::topics::{TopicInfo, TopicKind};

/// Routes and target partitions remembered before they are looked up anew.
const ROUTES_MAX: usize = 65_536;
/// Headers of a record that fit without an allocation: ours and a few of its own.
const HEADERS_INLINE: usize = 8;

type Header<'a> = (&'a str, Option<&'a [u8]>);

/// What a batch has become.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// The ack of the last record of each target partition.
    last: Vec<Option<Ack>>,
    /// Dead letters count like records: offsets pass them only when they are durable (R5).
    letters: Vec<Ack>,
}

/// A topic to write to.
#[derive(Debug)]
struct Route {
    topic: TopicName,
    info: TopicInfo,
    /// Index in the writer's targets of each partition that has been written to.
    targets: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Target {
    partition: TopicPartition,
    info: TopicInfo,
    seen: Seen,
}

/// The writing half of a source task.
pub(crate) struct Writer {
    env: Arc<Env>,
    spec: Arc<PipelineSpec>,
    shared: Arc<TaskShared>,
    metrics: TaskMetrics,
    task: [u8; 8],
    producer: Producer,
    predecessor: Predecessor,
    transforms: Vec<Box<dyn Transform>>,
    encoder: Encoder,
    by_id: bool,
    letters: DeadLetters,
    covered: BTreeMap<TopicPartition, TargetOffset>,
    routes: Vec<Route>,
    by_topic: HashMap<TopicName, usize>,
    by_schema: HashMap<SchemaId, usize>,
    last_route: Option<(SchemaId, usize)>,
    ensured: HashSet<SchemaId>,
    targets: Vec<Target>,
    buffer: Vec<u8>,
    position: Vec<u8>,
}

/// The place after the last record of each target partition, once it is in the log.
type Acknowledged = std::pin::Pin<Box<dyn Future<Output = Result<Targets, ConnectorError>> + Send>>;
type Targets = BTreeMap<TopicPartition, TargetOffset>;

impl Writer {
    pub(crate) fn new(
        unit: &SourceUnit,
        covered: BTreeMap<TopicPartition, TargetOffset>,
        predecessor: Predecessor,
    ) -> Result<Self, ConnectorError> {
        let spec = &unit.spec;
        let by_id = FormatKind::Json(JsonSchemas::Id);
        let id = format!("{}/source/{}", spec.name, unit.index);
        Ok(Self {
            env: Arc::clone(&unit.env),
            spec: Arc::clone(spec),
            shared: Arc::clone(&unit.shared),
            metrics: TaskMetrics::new(&spec.name, Direction::Source, unit.index),
            task: task_hash(&spec.name, unit.index),
            producer: unit.env.producer(spec.compression, predecessor.identity()),
            predecessor,
            transforms: build_transforms(spec)?,
            encoder: Encoder::new(spec.format),
            by_id: spec.format.key == by_id || spec.format.value == by_id,
            letters: DeadLetters::new(spec, id, unit.env.redactor.clone())?,
            covered,
            routes: Vec::new(),
            by_topic: HashMap::new(),
            by_schema: HashMap::new(),
            last_route: None,
            ensured: HashSet::new(),
            targets: Vec::new(),
            buffer: Vec::new(),
            position: Vec::new(),
        })
    }

    pub(crate) fn producer(&self) -> Producer {
        self.producer.clone()
    }

    /// Transforms a batch and sends it. Nothing is durable before [`Writer::acknowledged`] says so.
    pub(crate) async fn write(
        &mut self,
        mut batch: Batch,
        input: Vec<RejectedInput>,
    ) -> Result<Sent, ConnectorError> {
        let mut sent = Sent::default();
        for rejected in input {
            let letter = DeadLetter {
                value: Some(&rejected.bytes),
                place: vec![("position", rejected.position)],
                ..DeadLetter::default()
            };
            self.bury(&mut sent, letter, rejected.error).await?;
        }
        for index in 0..self.transforms.len() {
            let transformed = self.transforms[index].apply(batch).await?;
            batch = transformed.batch;
            let (records, errors) = transformed.rejected.into_parts();
            for (record, error) in records.records().zip(errors) {
                self.bury_record(&mut sent, record, error).await?;
            }
        }
        for record in batch.records() {
            self.send(&mut sent, record).await?;
        }
        Ok(sent)
    }

    /// Resolves when everything in `sent` is acknowledged: the place after the last record of each target partition.
    pub(crate) fn acknowledged(&self, sent: Sent) -> Acknowledged {
        let barrier = (sent.records > 0 || !sent.letters.is_empty()).then(|| self.producer.barrier());
        let last: Vec<_> = sent
            .last
            .into_iter()
            .zip(&self.targets)
            .filter_map(|(ack, target)| {
                Some((target.partition.clone(), target.info, target.seen.ahead().clone(), ack?))
            })
            .collect();
        let (letters, metrics) = (sent.letters, self.metrics.clone());
        let (records, bytes) = (sent.records, sent.bytes);
        Box::pin(async move {
            let failed = |error| cluster_error("writing records", error);
            if let Some(barrier) = barrier {
                barrier.await.map_err(failed)?;
            }
            let mut targets = BTreeMap::new();
            for (partition, info, ahead, ack) in last {
                let offset = ack.await.map_err(failed)?.offset;
                // The broker does not tell the offset of a duplicate of long ago.
                if offset >= Offset::ZERO {
                    targets.insert(partition, TargetOffset { id: info.id, next: offset.next(), ahead });
                }
            }
            for letter in letters {
                letter.await.map_err(failed)?;
            }
            metrics.moved(records, bytes);
            Ok(targets)
        })
    }

    async fn bury(
        &mut self,
        sent: &mut Sent,
        letter: DeadLetter<'_>,
        error: ConnectorError,
    ) -> Result<(), ConnectorError> {
        let ack = self.letters.send(&self.env, &self.spec, &self.producer, letter, error).await?;
        self.shared.dead_letters.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.metrics.dead_letter();
        sent.letters.push(ack);
        Ok(())
    }

    /// Buries a record with what its format makes of it, as far as that goes.
    async fn bury_record(
        &mut self,
        sent: &mut Sent,
        record: RecordView<'_>,
        error: ConnectorError,
    ) -> Result<(), ConnectorError> {
        let mut buffer = Vec::new();
        let mut place = vec![("schema", record.schema().name().to_owned())];
        if let Some(position) = record.position() {
            let hex: String = position.iter().map(|byte| format!("{byte:02x}")).collect();
            place.push(("position", format!("{}/{hex}", record.lane())));
        }
        let owned = |(name, value): Header<'_>| (name.to_owned(), value.map(<[u8]>::to_vec));
        let mut headers: Vec<_> = record.headers().map(owned).collect();
        let encoded = self.encoder.encode(record, &mut buffer);
        let (key, value) = encoded.as_ref().map_or((None, None), |encoded| (encoded.key, encoded.value));
        if let Ok(encoded) = &encoded {
            if encoded.schema.is_some() {
                self.env.schemas.ensure(record.schema(), &self.producer).await?;
            }
            headers.extend(encoded.schema.map(|id| (header::SCHEMA.to_owned(), Some(id.0.to_vec()))));
            headers.extend(encoded.op.map(|op| (header::OP.to_owned(), Some(op.as_bytes().to_vec()))));
        }
        self.bury(sent, DeadLetter { key, value, headers, place }, error).await
    }

    async fn send(&mut self, sent: &mut Sent, record: RecordView<'_>) -> Result<(), ConnectorError> {
        // One without a key tells of columns that changed, not of a key to forget.
        if record.op() == Some(Op::Tombstone) && !self.spec.tombstones && record.key().is_some() {
            return Ok(());
        }
        let route = self.route(record).await?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.send_encoded(sent, record, route, &mut buffer).await;
        self.buffer = buffer;
        match outcome {
            Err(Refused::Record(error)) => self.bury_record(sent, record, error).await,
            Err(Refused::Task(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    async fn send_encoded(
        &mut self,
        sent: &mut Sent,
        record: RecordView<'_>,
        route: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let encoded = self.encoder.encode(record, buffer).map_err(|error| Refused::Record(error.into()))?;
        let partition = choose_partition(record, encoded.key, self.routes[route].info.partitions)?;
        let target = self.target(route, partition).await.map_err(Refused::Task)?;
        let own = record.position();
        if own.is_some_and(|position| self.targets[target].seen.holds(record.lane(), position)) {
            return Ok(());
        }
        let mut inline: [Header<'_>; HEADERS_INLINE] = [("", None); HEADERS_INLINE];
        let mut spilled = Vec::new();
        let id = encoded.schema.map(|id| id.0);
        let ours = [
            own.map(|position| {
                self.position.clear();
                header::write_position(&mut self.position, self.task, record.lane(), position);
                (header::POSITION, Some(self.position.as_slice()))
            }),
            id.as_ref().map(|id| (header::SCHEMA, Some(id.as_slice()))),
            encoded.op.map(|op| (header::OP, Some(op.as_bytes()))),
        ];
        let mut count = 0;
        for header in ours.into_iter().flatten().chain(record.headers()) {
            match inline.get_mut(count) {
                Some(slot) if spilled.is_empty() => *slot = header,
                _ => {
                    if spilled.is_empty() {
                        spilled.extend_from_slice(&inline);
                    }
                    spilled.push(header);
                }
            }
            count += 1;
        }
        let headers = if spilled.is_empty() { &inline[..count] } else { spilled.as_slice() };
        let message = ProducerRecord {
            topic: &self.routes[route].topic,
            partition: Some(partition),
            timestamp_ms: (record.timestamp_ms() > 0).then(|| record.timestamp_ms()),
            key: encoded.key,
            value: encoded.value,
            headers,
        };
        let bytes = encoded.key.map_or(0, <[u8]>::len) + encoded.value.map_or(0, <[u8]>::len);
        match self.producer.send_with_ack(message).await {
            Ok(ack) => {
                if sent.last.len() <= target {
                    sent.last.resize_with(target + 1, || None);
                }
                sent.last[target] = Some(ack);
                sent.records += 1;
                sent.bytes += bytes as u64;
                Ok(())
            }
            Err(error @ ClientError::RecordTooLarge { .. }) => {
                Err(Refused::Record(cluster_error("the record is too large", error)))
            }
            Err(error) => Err(Refused::Task(cluster_error("sending a record", error))),
        }
    }

    /// The route of a record; topic and schema exist afterwards.
    async fn route(&mut self, record: RecordView<'_>) -> Result<usize, ConnectorError> {
        let schema = record.schema();
        let id = schema.id();
        let chosen = record.topic();
        match (chosen, self.last_route) {
            (None, Some((last, route))) if last == id => return Ok(route),
            _ => {}
        }
        if self.by_id && !self.ensured.contains(&id) {
            // The schema is durable before the first record under it is sent.
            self.env.schemas.ensure(schema, &self.producer).await?;
            self.ensured.insert(id);
        }
        // The topic that a transform chose may differ from record to record.
        let known = chosen.map_or_else(|| self.by_schema.get(&id), |topic| self.by_topic.get(topic)).copied();
        let route = match known {
            Some(route) => route,
            None => self.find_route(chosen, schema).await?,
        };
        if chosen.is_none() {
            self.last_route = Some((id, route));
        }
        Ok(route)
    }

    async fn find_route(
        &mut self,
        chosen: Option<&TopicName>,
        schema: &EventSchema,
    ) -> Result<usize, ConnectorError> {
        if self.by_schema.len() + self.by_topic.len() + self.ensured.len() >= ROUTES_MAX {
            self.by_schema.clear();
            self.by_topic.clear();
            self.ensured.clear();
        }
        let topic = match chosen {
            Some(topic) => topic.clone(),
            None => self.render(schema)?,
        };
        let route = match self.by_topic.get(&topic) {
            Some(route) => *route,
            None => self.new_route(topic).await?,
        };
        if chosen.is_none() {
            self.by_schema.insert(schema.id(), route);
        }
        Ok(route)
    }

    fn render(&self, schema: &EventSchema) -> Result<TopicName, ConnectorError> {
        let no_topic = || ConnectorError::bug("NO_TOPIC", "the pipeline has a source and no topic");
        let template = self.spec.topic.as_ref().ok_or_else(no_topic)?;
        let variable = |name: &str| match name {
            "pipeline" => Some(self.spec.name.as_str()),
            _ => schema.variables().get(name).map(String::as_str),
        };
        template.render(variable).map_err(|error| {
            let known: Vec<_> = schema.variables().keys().map(String::as_str).chain(["pipeline"]).collect();
            ConnectorError::terminal("TOPIC_TEMPLATE", format!("the topic `{template}` of {}", schema.name()))
                .with_path("topic")
                .with_hint(format!("known are: {{{}}}", known.join("}, {")))
                .with_cause(error)
        })
    }

    async fn new_route(&mut self, topic: TopicName) -> Result<usize, ConnectorError> {
        let info = self.env.topics.ensure(&topic, TopicKind::Data(&self.spec.new_topics)).await?;
        let known = self.routes.iter().position(|route| route.topic == topic);
        if known.is_none() {
            self.predecessor.of_topic(&topic, info.partitions).await?;
        }
        let route = known.unwrap_or_else(|| {
            let targets = vec![None; usize::try_from(info.partitions).unwrap_or_default()];
            self.routes.push(Route { topic: topic.clone(), info, targets });
            self.routes.len() - 1
        });
        self.by_topic.insert(topic, route);
        Ok(route)
    }

    /// The target partition; its tail is read before the first record goes there.
    async fn target(&mut self, route: usize, partition: i32) -> Result<usize, ConnectorError> {
        let at = usize::try_from(partition).unwrap_or(usize::MAX);
        let Some(slot) = self.routes[route].targets.get(at) else {
            let topic = &self.routes[route].topic;
            let message = format!("topic `{topic}` has no partition {partition}");
            return Err(ConnectorError::terminal("NO_PARTITION", message));
        };
        if let Some(target) = slot {
            return Ok(*target);
        }
        let partition = TopicPartition::new(self.routes[route].topic.clone(), partition);
        let info = self.routes[route].info;
        let covered = self.covered.get(&partition);
        let seen = Seen::read(&self.env.client, &partition, info, covered, self.task).await?;
        self.targets.push(Target { partition, info, seen });
        let target = self.targets.len() - 1;
        self.routes[route].targets[at] = Some(target);
        Ok(target)
    }
}

/// Who is at fault.
enum Refused {
    Record(ConnectorError),
    Task(ConnectorError),
}

/// The partition by the key as Kafka's clients choose it; without a key by the position, so that a replayed record
/// goes where it went before.
fn choose_partition(record: RecordView<'_>, key: Option<&[u8]>, partitions: i32) -> Result<i32, Refused> {
    match (record.partition(), key.or_else(|| record.position())) {
        (Some(partition), _) if partition < partitions => Ok(partition),
        (Some(partition), _) => {
            let message = format!("partition {partition} was chosen, and the topic has {partitions}");
            Err(Refused::Record(ConnectorError::terminal("NO_PARTITION", message)))
        }
        _ if partitions == 1 => Ok(0),
        (None, Some(bytes)) => Ok((murmur2(bytes) & i32::MAX) % partitions),
        (None, None) => Ok(rand::Rng::random_range(&mut rand::rng(), 0..partitions)),
    }
}

/// The transforms of a pipeline, a new instance of each.
pub(crate) fn build_transforms(spec: &PipelineSpec) -> Result<Vec<Box<dyn Transform>>, ConnectorError> {
    let build = |(index, spec): (usize, &towpath_api::TransformSpec)| {
        spec.build().map_err(|problems| {
            ConnectorError::bug("TRANSFORM_CONFIG", problems.to_string())
                .with_path(format!("transforms[{index}]"))
        })
    };
    spec.transforms.iter().enumerate().map(build).collect()
}
