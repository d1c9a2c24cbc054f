//! Sinks out of components.
//!
//! A record at which the plugin dies is found and rejected. When a write ends badly while something before it is only
//! accepted, the task ends and is opened again at what is durable; the connector remembers where it was, and the next
//! attempt flushes before it gets there. From then on the plugin dies with nothing to lose: it is started anew in place,
//! and gets the delivery in halves, each of which is made durable before the next, until one record is left.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use towpath_api::batch::flat;
use towpath_api::{
    ConfigProblems, ConnectorError, ConnectorKind, Descriptor, Durability, ErrorKind, RawConfig, Rejected,
    Sink, SinkBatch, SinkConnector, SinkFactory, TaskContext, Written,
};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::bindings::exports::towpath::plugin::sinks as wit;
use super::bindings::towpath::plugin::types;
use super::component::Loaded;
use super::configured::Configured;
use super::error::{PluginError, answer, cut, details, failure};
use super::instance::{Called, Instance};
use super::reload::Slot;
use super::source::gone;
use super::state::Task;
use super::transform::check;
use super::versions::Versions;

/// Calls that may end badly over one delivery.
const FAILURES_MAX: u32 = 48;
/// Partitions in which a plugin has died that are remembered.
const SUSPECTS_MAX: usize = 1024;
/// What a check says that is shown.
const LINES_MAX: usize = 100;

/// A sink type out of a component.
pub(crate) struct PluginSink {
    slot: Arc<Slot>,
    descriptor: Descriptor,
}

impl PluginSink {
    pub(crate) const fn new(slot: Arc<Slot>, descriptor: Descriptor) -> Self {
        Self { slot, descriptor }
    }
}

impl SinkFactory for PluginSink {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SinkConnector>, ConfigProblems> {
        let configured = Arc::new(Configured::new(&self.descriptor.options, config));
        check(&self.slot.current(), &configured, ConnectorKind::Sink)?;
        self.slot.used_with(ConnectorKind::Sink, &configured);
        let versions = Arc::new(Versions::new(Arc::clone(&self.slot)));
        Ok(Box::new(Connector { versions, configured, suspects: Arc::default() }))
    }
}

/// Partition → the offsets at which the plugin has died.
type Suspects = Arc<Mutex<BTreeMap<TopicPartition, Range<i64>>>>;

/// A configured sink.
struct Connector {
    versions: Arc<Versions>,
    configured: Arc<Configured>,
    suspects: Suspects,
}

/// What a check said.
pub(crate) fn checked(
    said: Result<Vec<String>, Vec<types::Error>>,
    configured: &Configured,
) -> Result<Vec<String>, Vec<ConnectorError>> {
    let redactor = &configured.redactor;
    let line = |it: String| cut(&redactor.redact(&it), 1024).to_owned();
    match said {
        Ok(lines) => Ok(lines.into_iter().take(LINES_MAX).map(line).collect()),
        Err(errors) if errors.is_empty() => Err(vec![answer("a check that fails, and says nothing")]),
        Err(errors) => {
            Err(errors.into_iter().take(LINES_MAX).map(|error| failure(error, redactor)).collect())
        }
    }
}

#[async_trait]
impl SinkConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let task = Task { stop: context.stop.clone() };
        let plugin = self.versions.newest();
        let start = Instance::start(&plugin, Arc::clone(&self.configured), task);
        let failed = |error: PluginError| vec![error.into_connector_error()];
        let said = start.await.map_err(failed)?.check_sink().await.map_err(failed)?;
        checked(said, &self.configured)
    }

    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        self.versions.watch();
        let (plugin, before) = self.versions.choice(context.task);
        match (self.open_with(Arc::clone(&plugin), &context).await, before) {
            (Ok(running), _) => Ok(Box::new(running)),
            (Err(error), None) => Err(error),
            (Err(error), Some(before)) => {
                // Where the one before it cannot be opened either, it is not the new one's fault.
                let Ok(running) = self.open_with(before, &context).await else { return Err(error) };
                self.versions.refuse(&plugin, &error);
                Ok(Box::new(running))
            }
        }
    }
}

impl Connector {
    /// An open task of this component.
    async fn open_with(&self, plugin: Arc<Loaded>, context: &TaskContext) -> Result<Running, ConnectorError> {
        let mut running = Running {
            versions: Arc::clone(&self.versions),
            plugin,
            configured: Arc::clone(&self.configured),
            suspects: Arc::clone(&self.suspects),
            context: context.clone(),
            instance: None,
            partitions: BTreeMap::new(),
            outstanding: false,
            buffer: Vec::new(),
        };
        running.start().await?;
        Ok(running)
    }
}

/// What is known of a partition of the task.
struct Held {
    id: TopicId,
    /// Where the plugin's next delivery begins, once it has taken one or said so.
    next: Option<i64>,
    /// The next offset after what the plugin said is durable.
    durable: Option<i64>,
    /// Whether something was written since it was assigned.
    written: bool,
}

/// An open sink task.
struct Running {
    versions: Arc<Versions>,
    plugin: Arc<Loaded>,
    configured: Arc<Configured>,
    suspects: Suspects,
    context: TaskContext,
    /// Taken out for each call, and put back by whoever lets it run to its end.
    instance: Option<Instance>,
    partitions: BTreeMap<TopicPartition, Held>,
    /// Whether something was accepted that is not durable.
    outstanding: bool,
    /// Reused from delivery to delivery.
    buffer: Vec<u8>,
}

/// Why records were not written.
enum Failed {
    /// A call did not return, or returned what cannot be: a record may be the reason.
    Contained(ConnectorError),
    /// The plugin said so.
    Said(ConnectorError),
}

impl From<Failed> for ConnectorError {
    fn from(failed: Failed) -> Self {
        let (Failed::Contained(error) | Failed::Said(error)) = failed;
        error
    }
}

fn partition_out(partition: &TopicPartition) -> wit::TopicPartition {
    wit::TopicPartition { topic: partition.topic.to_string(), partition: partition.partition }
}

/// The first half comes off first.
fn halve(range: Range<usize>, open: &mut Vec<Range<usize>>) {
    let middle = range.start + range.len() / 2;
    open.push(middle..range.end);
    open.push(range.start..middle);
}

impl Running {
    fn take(&mut self) -> Result<Instance, ConnectorError> {
        self.instance.take().ok_or_else(gone)
    }

    /// What a call came to; the instance is kept unless the call did not return.
    fn said<T>(&mut self, instance: Instance, called: Called<T>) -> Result<T, Failed> {
        match called {
            Ok(said) => {
                self.instance = Some(instance);
                said.map_err(|error| Failed::Said(failure(error, &self.configured.redactor)))
            }
            Err(error) => Err(Failed::Contained(error.into_connector_error())),
        }
    }

    /// An open instance without partitions.
    async fn start(&mut self) -> Result<(), ConnectorError> {
        let task = Task { stop: self.context.stop.clone() };
        let start = Instance::start(&self.plugin, Arc::clone(&self.configured), task);
        let mut instance = start.await.map_err(PluginError::into_connector_error)?;
        let called = instance.open_sink().await;
        Ok(self.said(instance, called)?)
    }

    /// Gives the instance partitions. Returns where it wants to begin.
    async fn give(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let assigned = |(partition, id): &(TopicPartition, TopicId)| wit::Assigned {
            partition: partition_out(partition),
            topic_id: id.to_string(),
        };
        let mut instance = self.take()?;
        let called = instance.assign(&added.iter().map(assigned).collect::<Vec<_>>()).await;
        let said = self.said(instance, called)?;
        let starts = self.positions(said)?;
        match starts.keys().find(|partition| !added.iter().any(|(it, _)| it == *partition)) {
            Some(stray) => Err(answer(&format!("a beginning of {stray}, which it was not given"))),
            None => Ok(starts),
        }
    }

    /// Positions that a guest tells, of partitions that are its own.
    fn positions(
        &self,
        said: Vec<wit::Position>,
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut positions = BTreeMap::new();
        for wit::Position { partition, next_offset } in said {
            let topic = TopicName::new(&partition.topic).map_err(|error| answer(&error.to_string()))?;
            let partition = TopicPartition::new(topic, partition.partition);
            if next_offset < 0 || !self.partitions.contains_key(&partition) {
                return Err(answer(&format!("the position {next_offset} of {partition}")));
            }
            positions.insert(partition, Offset::new(next_offset));
        }
        Ok(positions)
    }

    /// Starts the plugin anew where nothing is lost by it: with the same partitions, at what is durable.
    async fn revive(&mut self) -> Result<(), ConnectorError> {
        self.instance = None;
        self.start().await?;
        let added: Vec<_> =
            self.partitions.iter().map(|(partition, held)| (partition.clone(), held.id)).collect();
        let starts = self.give(&added).await?;
        for (partition, start) in starts {
            let Some(held) = self.partitions.get_mut(&partition) else { continue };
            // The target may hold more than was told before the plugin died; never less.
            if held.durable.is_some_and(|durable| start.get() < durable) {
                let message =
                    format!("the plugin begins at {start} of {partition}, and has said that more is durable");
                return Err(ConnectorError::retry("PLUGIN_POSITION", message));
            }
            held.next = Some(start.get());
        }
        Ok(())
    }

    /// Lets another instance take the place of one that has used up most of its memory (R10), between two calls and with
    /// everything durable that was accepted: nothing comes again for it.
    async fn make_way(&mut self) -> Result<(), ConnectorError> {
        if !self.instance.as_ref().is_some_and(Instance::is_worn) {
            return Ok(());
        }
        if self.outstanding {
            self.flush_all().await?;
        }
        let mut instance = self.take()?;
        let (plugin, bytes) = (&*self.plugin.name, instance.store.data().memory_used);
        tracing::debug!(plugin, bytes, "an instance has used up most of its memory; another takes its place");
        let closed = instance.close_sink().await;
        self.said(instance, closed)?;
        self.revive().await
    }

    /// The records of `range` of a batch, which cover the offsets of `covered`.
    async fn deliver(
        &mut self,
        batch: &SinkBatch,
        range: Range<usize>,
        covered: Range<i64>,
    ) -> Result<Written, Failed> {
        let mut instance = self.take().map_err(Failed::Said)?;
        let schemas = &mut instance.store.data_mut().schemas;
        if schemas.is_full_for(batch.batch.schema_count()) {
            let message = "the plugin has seen so many schemas that it is started anew";
            return Err(Failed::Said(ConnectorError::retry("PLUGIN_SCHEMAS", message)));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let encoded = flat::encode(&batch.batch, range.clone(), |it| schemas.number(it), &mut buffer);
        if let Err(error) = encoded {
            self.instance = Some(instance);
            return Err(Failed::Contained(ConnectorError::terminal("PLUGIN_BATCH", error.to_string())));
        }
        let delivery = wit::Delivery {
            partition: partition_out(&batch.partition),
            topic_id: batch.topic_id.to_string(),
            first_offset: covered.start,
            next_offset: covered.end,
            batch: buffer,
        };
        let called = instance.write(&delivery).await;
        self.buffer = delivery.batch;
        let written = self.said(instance, called)?;
        let mut rejected = BTreeMap::new();
        for types::Rejection { index, details: said } in written.rejected {
            let at = index as usize;
            if at >= range.len() || rejected.contains_key(&at) {
                self.instance = None;
                return Err(Failed::Contained(answer(&format!(
                    "record {index} is rejected, and is not there, or twice"
                ))));
            }
            rejected.insert(at, details(ErrorKind::Terminal, said, &self.configured.redactor));
        }
        let rejected = rejected.into_iter().map(|(at, error)| Rejected { index: range.start + at, error });
        let durability = match written.durability {
            wit::Durability::Accepted => Durability::Accepted,
            wit::Durability::Durable => Durability::Durable,
        };
        Ok(Written { durability, rejected: rejected.collect() })
    }

    /// Notes what a delivery without rejections came to.
    fn taken(&mut self, partition: &TopicPartition, next: i64, durability: Durability) {
        self.outstanding |= durability == Durability::Accepted;
        if let Some(held) = self.partitions.get_mut(partition) {
            held.next = Some(next);
            held.written = true;
        }
        if durability == Durability::Durable {
            // Cumulative: everything before is safe too.
            self.outstanding = false;
            self.partitions.values_mut().for_each(|held| held.durable = held.next.or(held.durable));
        }
    }

    /// A delivery in halves, with nothing outstanding before each of them, down to the record at which the plugin dies.
    async fn narrow(&mut self, batch: &SinkBatch, error: ConnectorError) -> Result<Written, ConnectorError> {
        let offset_of = |index: usize| batch.batch.record(index).offset();
        let end = batch.batch.len();
        let reject = |index: usize, error| {
            // R5: it comes again without this one, once that is durable in the dead-letter topic.
            let rejected = vec![Rejected { index, error }];
            Ok(Written { durability: Durability::Accepted, rejected })
        };
        if end == 1 {
            return reject(0, error);
        }
        let mut open = Vec::new();
        halve(0..end, &mut open);
        let mut failures = 1;
        while let Some(range) = open.pop() {
            let from = if range.start == 0 { batch.first_offset.get() } else { offset_of(range.start) };
            let to = if range.end == end { batch.next_offset.get() } else { offset_of(range.end) };
            if self.instance.is_none() {
                self.revive().await?;
            }
            let next = self.partitions.get(&*batch.partition).and_then(|held| held.next).unwrap_or(from);
            if next >= to {
                continue;
            }
            let written = self.deliver(batch, range.clone(), from..to).await;
            match written {
                Ok(written) if written.rejected.is_empty() => {
                    self.taken(&batch.partition, to, written.durability);
                    if self.outstanding {
                        self.flush().await?;
                    }
                }
                Ok(written) => return Ok(written),
                Err(Failed::Said(error)) => return Err(error),
                Err(Failed::Contained(it)) => {
                    failures += 1;
                    if failures > FAILURES_MAX {
                        return Err(it);
                    }
                    if range.len() == 1 {
                        return reject(range.start, it);
                    }
                    halve(range, &mut open);
                }
            }
        }
        Ok(Written::durable())
    }

    /// Makes safe everything that was accepted.
    async fn flush_all(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut instance = self.take()?;
        let called = instance.flush().await;
        let said = self.said(instance, called)?;
        for (partition, next) in self.positions(said)? {
            let Some(held) = self.partitions.get_mut(&partition) else { continue };
            // A flush makes everything accepted safe, and nothing else.
            if held.next != Some(next.get()) {
                let message =
                    format!("{next} of {partition} is said to be durable, and {:?} was written", held.next);
                return Err(answer(&message));
            }
            held.durable = held.next;
        }
        if let Some((partition, held)) =
            self.partitions.iter().find(|(_, it)| it.written && it.durable != it.next)
        {
            return Err(answer(&format!(
                "nothing of {partition} is said to be durable, and {:?} was written",
                held.next
            )));
        }
        self.outstanding = false;
        let written = self.partitions.iter().filter(|(_, held)| held.written);
        let durable =
            written.filter_map(|(partition, held)| Some((partition.clone(), Offset::new(held.durable?))));
        Ok(durable.collect())
    }

    /// Whether the plugin has died within these offsets before.
    fn is_suspect(&self, batch: &SinkBatch) -> bool {
        let suspects = self.suspects.lock();
        let (from, to) = (batch.first_offset.get(), batch.next_offset.get());
        suspects.get(&batch.partition).is_some_and(|range| range.start < to && from < range.end)
    }

    fn suspect(&self, batch: &SinkBatch) {
        let mut suspects = self.suspects.lock();
        if suspects.len() < SUSPECTS_MAX || suspects.contains_key(&batch.partition) {
            let partition = TopicPartition::clone(&batch.partition);
            suspects.insert(partition, batch.first_offset.get()..batch.next_offset.get());
        }
    }

    /// The part of a batch that the plugin has not taken yet: of one that comes again without a rejected record, the
    /// beginning may be there already.
    fn rest(&self, mut batch: SinkBatch) -> SinkBatch {
        let next = self.partitions.get(&*batch.partition).and_then(|held| held.next);
        let Some(next) = next.filter(|next| *next > batch.first_offset.get()) else { return batch };
        batch.batch.retain(|_, record| record.offset() >= next);
        batch.first_offset = Offset::new(next.min(batch.next_offset.get()));
        batch
    }
}

#[async_trait]
impl Sink for Running {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        for (partition, id) in added {
            self.partitions
                .insert(partition.clone(), Held { id: *id, next: None, durable: None, written: false });
        }
        let given = self.give(added).await;
        let task = self.context.task;
        let starts = given.inspect_err(|error| self.versions.not_assigned(task, &self.plugin, error))?;
        self.versions.opened(task, &self.plugin);
        for (partition, start) in &starts {
            if let Some(held) = self.partitions.get_mut(partition) {
                held.next = Some(start.get());
                held.durable = Some(start.get());
            }
        }
        Ok(starts)
    }

    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError> {
        if self.instance.is_none() && !self.outstanding {
            // It died at the record that was rejected last.
            self.revive().await?;
        }
        self.make_way().await?;
        let dropped = batch.batch.len();
        let batch = self.rest(batch);
        let dropped = dropped - batch.batch.len();
        let shifted = |mut written: Written| {
            written.rejected.iter_mut().for_each(|it| it.index += dropped);
            written
        };
        if self.outstanding && self.is_suspect(&batch) {
            self.flush().await?;
        }
        let covered = batch.first_offset.get()..batch.next_offset.get();
        if covered.is_empty() && !self.outstanding {
            return Ok(Written::durable());
        }
        match self.deliver(&batch, 0..batch.batch.len(), covered.clone()).await {
            Ok(written) => {
                if written.rejected.is_empty() {
                    self.taken(&batch.partition, covered.end, written.durability);
                }
                Ok(shifted(written))
            }
            Err(Failed::Said(error)) => Err(error),
            Err(Failed::Contained(error)) => {
                let (plugin, partition) = (&*self.plugin.name, &batch.partition);
                tracing::warn!(plugin, %partition, records = batch.batch.len(), %error, "a call into a plugin failed");
                self.suspect(&batch);
                if self.outstanding || batch.batch.is_empty() {
                    self.instance = None;
                    return Err(error);
                }
                Ok(shifted(self.narrow(&batch, error).await?))
            }
        }
    }

    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        if self.instance.is_none() && !self.outstanding {
            self.revive().await?;
        }
        if !self.outstanding {
            self.make_way().await?;
        }
        self.flush_all().await
    }

    async fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), ConnectorError> {
        let mut instance = self.take()?;
        let called = instance.revoke(&removed.iter().map(partition_out).collect::<Vec<_>>()).await;
        self.said(instance, called)?;
        self.partitions.retain(|partition, _| !removed.contains(partition));
        Ok(())
    }

    fn is_superseded(&self) -> bool {
        self.versions.is_superseded(&self.plugin)
    }

    async fn close(mut self: Box<Self>) -> Result<(), ConnectorError> {
        let Some(mut instance) = self.instance.take() else { return Ok(()) };
        let closed = instance.close_sink().await.map_err(PluginError::into_connector_error)?;
        closed.map_err(|error| failure(error, &self.configured.redactor))
    }
}
