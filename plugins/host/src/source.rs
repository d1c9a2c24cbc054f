//! Sources out of components.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value as Json;
use towpath_api::batch::flat;
use towpath_api::{
    Budget, ConfigProblems, ConnectorError, ConnectorKind, Descriptor, ErrorKind, Poll, Position, RawConfig,
    RejectedInput, Source, SourceBatch, SourceConnector, SourceFactory, SourceOffsets, TaskContext, TaskSpec,
};
use towpath_types::limits::{PLUGIN_OFFSET_BYTES_MAX, PLUGIN_OFFSETS_MAX, PLUGIN_TEXT_BYTES_MAX};

use super::bindings::exports::towpath::plugin::sources as wit;
use super::component::Loaded;
use super::configured::Configured;
use super::error::{PluginError, answer, cut, details, failure};
use super::instance::Instance;
use super::loader::at_once;
use super::memory::{Memory, RESERVED};
use super::reload::Slot;
use super::state::Task;
use super::transform::check;
use super::versions::Versions;

/// What a poll takes at least that finds nothing.
const IDLE_TIME: Duration = Duration::from_millis(100);

/// A source type out of a component.
pub(crate) struct PluginSource {
    slot: Arc<Slot>,
    descriptor: Descriptor,
}

impl PluginSource {
    pub(crate) const fn new(slot: Arc<Slot>, descriptor: Descriptor) -> Self {
        Self { slot, descriptor }
    }
}

impl SourceFactory for PluginSource {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems> {
        let configured = Arc::new(Configured::new(&self.descriptor.options, config));
        check(&self.slot.current(), &configured, ConnectorKind::Source)?;
        self.slot.used_with(ConnectorKind::Source, &configured);
        let versions = Arc::new(Versions::new(Arc::clone(&self.slot)));
        Ok(Box::new(Connector { versions, configured }))
    }
}

/// A configured source.
struct Connector {
    versions: Arc<Versions>,
    configured: Arc<Configured>,
}

impl Connector {
    async fn start(&self, plugin: &Arc<Loaded>, task: Task) -> Result<Instance, ConnectorError> {
        let start = Instance::start(plugin, Arc::clone(&self.configured), task);
        start.await.map_err(PluginError::into_connector_error)
    }

    async fn plan_with(
        &self,
        plugin: &Arc<Loaded>,
        tasks_max: NonZeroU32,
    ) -> Result<Vec<TaskSpec>, ConnectorError> {
        let mut instance = self.start(plugin, Task::default()).await?;
        let planned = instance.plan(tasks_max.get()).await.map_err(PluginError::into_connector_error)?;
        let planned = planned.map_err(|error| failure(error, &self.configured.redactor))?;
        let numbered = planned.iter().zip(0..).all(|(task, index)| task.index == index);
        if planned.is_empty() || planned.len() > tasks_max.get() as usize || !numbered {
            return Err(answer(&format!("a plan of {} tasks, of at most {tasks_max}", planned.len())));
        }
        let task = |it: wit::Task| TaskSpec { index: it.index, assignment: Json::String(it.assignment) };
        Ok(planned.into_iter().map(task).collect())
    }

    /// An open task of this component.
    async fn open_with(
        &self,
        plugin: Arc<Loaded>,
        task: &TaskSpec,
        resume: &SourceOffsets,
        context: &TaskContext,
    ) -> Result<Running, ConnectorError> {
        let mut instance = self.start(&plugin, Task { stop: context.stop.clone() }).await?;
        instance.store.data_mut().memory = Memory::load(task.index, resume)?;
        let offsets = offsets_out(resume)?;
        let assignment = task.assignment.as_str().unwrap_or_default().to_owned();
        let spec = wit::Task { index: task.index, assignment };
        let opened =
            instance.open_source(&spec, &offsets).await.map_err(PluginError::into_connector_error)?;
        let status = opened.map_err(|error| failure(error, &self.configured.redactor))?;
        let mut running = Running {
            versions: Arc::clone(&self.versions),
            plugin,
            configured: Arc::clone(&self.configured),
            instance: RefCell::new(Some(instance)),
            broken: RefCell::new(None),
            task: task.index,
            context: context.clone(),
            status: String::new(),
        };
        running.set_status(&status);
        Ok(running)
    }
}

#[async_trait]
impl SourceConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let task = Task { stop: context.stop.clone() };
        let plugin = self.versions.newest();
        let mut instance = self.start(&plugin, task).await.map_err(|error| vec![error])?;
        let checked = instance.check_source().await.map_err(|error| vec![error.into_connector_error()])?;
        super::sink::checked(checked, &self.configured)
    }

    async fn plan(&self, tasks_max: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        let plugin = self.versions.newest();
        let error = match self.plan_with(&plugin, tasks_max).await {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        let Some(before) = self.versions.other(&plugin) else { return Err(error) };
        let Ok(plan) = self.plan_with(&before, tasks_max).await else { return Err(error) };
        self.versions.refuse(&plugin, &error);
        Ok(plan)
    }

    async fn open(
        &self,
        task: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        self.versions.watch();
        let (plugin, before) = self.versions.choice(task.index);
        let running = match (self.open_with(Arc::clone(&plugin), &task, &resume, &context).await, before) {
            (Ok(running), _) => running,
            (Err(error), None) => return Err(error),
            (Err(error), Some(before)) => {
                // Where the one before it cannot be opened either, it is not the new one's fault.
                let Ok(running) = self.open_with(before, &task, &resume, &context).await else {
                    return Err(error);
                };
                self.versions.refuse(&plugin, &error);
                running
            }
        };
        self.versions.opened(task.index, &running.plugin);
        Ok(Box::new(running))
    }
}

/// An open source task. Its instance is taken out for each call, and put back by whoever lets the call run to its end:
/// one that is left in the middle of a call is never called again.
struct Running {
    versions: Arc<Versions>,
    plugin: Arc<Loaded>,
    configured: Arc<Configured>,
    instance: RefCell<Option<Instance>>,
    /// What went wrong where it could not be told.
    broken: RefCell<Option<ConnectorError>>,
    task: u32,
    context: TaskContext,
    status: String,
}

/// The guest's own offsets.
fn offsets_out(offsets: &SourceOffsets) -> Result<Vec<wit::Offset>, ConnectorError> {
    let own = offsets.partitions.iter().filter(|(partition, _)| !partition.starts_with(RESERVED));
    own.map(|(partition, document)| match document {
        Json::String(place) => Ok(wit::Offset { partition: partition.clone(), place: Some(place.clone()) }),
        // R7: what the plugin has not written is not guessed at.
        _ => {
            let message = format!("the stored offset of `{}` is none of this plugin", cut(partition, 200));
            Err(ConnectorError::terminal("PLUGIN_OFFSETS", message)
                .with_hint("another source has run under the name of this pipeline: `towpath pipelines reset` begins anew"))
        }
    })
    .collect()
}

impl Running {
    fn take(&mut self) -> Result<Instance, ConnectorError> {
        if let Some(error) = self.broken.get_mut().take() {
            return Err(error);
        }
        self.instance.get_mut().take().ok_or_else(gone)
    }

    fn set_status(&mut self, said: &str) {
        let clean = self.configured.redactor.redact(said);
        cut(&clean, PLUGIN_TEXT_BYTES_MAX).clone_into(&mut self.status);
    }

    /// Offsets that a guest tells, and what has changed in its memory.
    fn offsets_in(
        &self,
        instance: &mut Instance,
        said: Vec<wit::Offset>,
    ) -> Result<SourceOffsets, ConnectorError> {
        if said.len() > PLUGIN_OFFSETS_MAX {
            return Err(answer(&format!("{} offsets; {PLUGIN_OFFSETS_MAX} are the most", said.len())));
        }
        let mut partitions = BTreeMap::new();
        for wit::Offset { partition, place } in said {
            let bytes = partition.len() + place.as_ref().map_or(0, String::len);
            if partition.is_empty() || partition.starts_with(RESERVED) || bytes > PLUGIN_OFFSET_BYTES_MAX {
                let what =
                    format!("an offset of {bytes} bytes of the source partition `{}`", cut(&partition, 200));
                return Err(answer(&what));
            }
            partitions.insert(partition, place.map_or(Json::Null, Json::String));
        }
        let mut offsets = SourceOffsets { partitions };
        instance.store.data_mut().memory.save(self.task, &mut offsets);
        Ok(offsets)
    }

    fn found(&self, instance: &mut Instance, found: wit::Found) -> Result<Poll, ConnectorError> {
        let wit::Records { batch, offsets, rejected } = match found {
            wit::Found::Records(records) => records,
            wit::Found::Idle(offsets) => return Ok(Poll::Idle(self.offsets_in(instance, offsets)?)),
            wit::Found::End => return Ok(Poll::End),
        };
        let schemas = &instance.store.data().schemas;
        let batch =
            flat::read(batch, |number| schemas.get(number)).map_err(|error| answer(&error.to_string()))?;
        let redactor = &self.configured.redactor;
        let rejected = rejected.into_iter().map(|it| RejectedInput {
            position: cut(&redactor.redact(&it.position), PLUGIN_TEXT_BYTES_MAX).to_owned(),
            bytes: it.bytes,
            error: details(ErrorKind::Terminal, it.details, redactor),
        });
        let rejected = rejected.collect();
        let offsets = self.offsets_in(instance, offsets)?;
        Ok(Poll::Batch(SourceBatch { batch, offsets, rejected }))
    }

    /// What a call came to. After what the plugin said itself, it can still be closed.
    fn said<T>(
        &mut self,
        instance: Instance,
        called: super::instance::Called<T>,
    ) -> Result<(Instance, T), ConnectorError> {
        match called {
            Ok(Ok(value)) => Ok((instance, value)),
            Ok(Err(error)) => {
                *self.instance.get_mut() = Some(instance);
                Err(failure(error, &self.configured.redactor))
            }
            Err(error) => Err(error.into_connector_error()),
        }
    }
}

/// The answer to a call into an instance that went wrong before.
pub(crate) fn gone() -> ConnectorError {
    ConnectorError::retry("PLUGIN_GONE", "the plugin was stopped, and is started anew")
}

#[async_trait]
impl Source for Running {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        let mut instance = self.take()?;
        let limit = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let budget = wit::Budget { bytes: limit(budget.bytes), records: limit(budget.records) };
        let begun = Instant::now();
        let called = instance.poll(budget).await;
        let (mut instance, polled) = match self.said(instance, called) {
            Ok(said) => said,
            // What a poll says whose waits were ended is no failure; what it has not told is read again.
            Err(_) if self.context.stop.is_cancelled() => return Ok(Poll::Idle(SourceOffsets::default())),
            Err(error) => return Err(error),
        };
        self.set_status(&polled.status);
        let found = self.found(&mut instance, polled.found)?;
        *self.instance.get_mut() = Some(instance);
        if matches!(&found, Poll::Idle(offsets) if offsets.is_empty()) {
            // A plugin has nothing to wait with but its connections: asked again at once, it would only burn its core.
            let rest = IDLE_TIME.saturating_sub(begun.elapsed());
            let _stopped = tokio::time::timeout(rest, self.context.stop.cancelled()).await;
        }
        Ok(found)
    }

    async fn commit(&mut self, durable: &SourceOffsets) -> Result<(), ConnectorError> {
        let offsets = offsets_out(durable)?;
        if self.context.stop.is_cancelled() && self.instance.get_mut().is_none() {
            return Ok(());
        }
        let mut instance = self.take()?;
        let called = instance.commit(&offsets).await;
        let (instance, ()) = self.said(instance, called)?;
        *self.instance.get_mut() = Some(instance);
        Ok(())
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        if self.context.stop.is_cancelled() && self.instance.get_mut().is_none() {
            return Ok(None);
        }
        let mut instance = self.take()?;
        let called = instance.upstream_end().await;
        let (instance, end) = self.said(instance, called)?;
        *self.instance.get_mut() = Some(instance);
        let text = |it: &str| cut(&self.configured.redactor.redact(it), PLUGIN_TEXT_BYTES_MAX).to_owned();
        Ok(end.map(|it| Position { text: text(&it.text), document: Json::String(it.document) }))
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let Ok(durable) = offsets_out(durable) else { return false };
        let Some(mut instance) = self.instance.borrow_mut().take() else { return false };
        let document = end.document.as_str().unwrap_or_default().to_owned();
        let end = wit::Position { document, text: end.text.clone() };
        match at_once(instance.has_passed(&durable, &end)) {
            Ok(passed) => {
                *self.instance.borrow_mut() = Some(instance);
                passed
            }
            Err(error) => {
                // The next call tells.
                *self.broken.borrow_mut() = Some(error.into_connector_error());
                false
            }
        }
    }

    fn status(&self) -> String {
        self.status.clone()
    }

    /// An instance that is worn goes the way of one whose file was replaced: another is opened at what is committed (R4).
    fn is_superseded(&self) -> bool {
        let is_worn = self.instance.borrow().as_ref().is_some_and(Instance::is_worn);
        is_worn || self.versions.is_superseded(&self.plugin)
    }

    async fn close(mut self: Box<Self>) -> Result<(), ConnectorError> {
        let Some(mut instance) = self.instance.get_mut().take() else { return Ok(()) };
        let closed = instance.close_source().await.map_err(PluginError::into_connector_error)?;
        closed.map_err(|error| failure(error, &self.configured.redactor))
    }
}
