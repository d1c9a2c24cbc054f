//! Transforms out of components.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::batch::flat;
use towpath_api::{
    Batch, ConfigProblem, ConfigProblems, ConnectorError, ConnectorKind, Descriptor, ErrorKind, RawConfig,
    RejectedRecords, Transform, TransformFactory, Transformed,
};

pub(crate) use super::bindings::exports::towpath::plugin::transforms::Outcome;
use super::bindings::towpath::plugin::types;
use super::component::Loaded;
use super::configured::Configured;
use super::describe::{PROBLEMS_MAX, problem};
use super::error::{PluginError, details, failure};
use super::instance::Instance;
use super::loader::at_once;
use super::reload::Slot;
use super::state::Task;

/// Calls that may end badly over one batch, while the records are looked for at which they do. One record of a
/// thousand takes eleven.
const FAILURES_MAX: u32 = 48;
/// Bytes of the buffer that are kept from batch to batch.
const BUFFER_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// A transform type out of a component.
pub(crate) struct PluginTransform {
    slot: Arc<Slot>,
    descriptor: Descriptor,
}

impl PluginTransform {
    pub(crate) const fn new(slot: Arc<Slot>, descriptor: Descriptor) -> Self {
        Self { slot, descriptor }
    }
}

impl TransformFactory for PluginTransform {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let configured = Arc::new(Configured::new(&self.descriptor.options, config));
        let plugin = self.slot.current();
        check(&plugin, &configured, ConnectorKind::Transform)?;
        self.slot.used_with(ConnectorKind::Transform, &configured);
        Ok(Box::new(Running {
            slot: Arc::clone(&self.slot),
            is_watched: false,
            plugin,
            refused: None,
            configured,
            instance: None,
            buffer: Vec::new(),
        }))
    }
}

/// Asks the plugin what is wrong with its options.
pub(crate) fn check(
    plugin: &Arc<Loaded>,
    configured: &Arc<Configured>,
    kind: ConnectorKind,
) -> Result<(), ConfigProblems> {
    let found = at_once(async {
        let start = Instance::start(plugin, Arc::clone(configured), Task::default());
        start.await?.check_config(kind).await
    });
    let found = found.map_err(|error: PluginError| ConfigProblem::new("", error.to_string()))?;
    let problems = found.iter().take(PROBLEMS_MAX).map(|it| problem(it, &configured.redactor)).collect();
    ConfigProblems { problems }.into_result()
}

/// A transform of one task, with an instance as long as all goes well.
struct Running {
    slot: Arc<Slot>,
    is_watched: bool,
    plugin: Arc<Loaded>,
    /// The component that has taken the place of this one, and could not be opened.
    refused: Option<Arc<Loaded>>,
    configured: Arc<Configured>,
    instance: Option<Instance>,
    /// Reused from batch to batch.
    buffer: Vec<u8>,
}

/// Why a stretch of a batch was not transformed.
enum Failed {
    /// A call did not return, or returned what cannot be: a record may be the reason.
    Contained(ConnectorError),
    /// The plugin said so.
    Said(ConnectorError),
}

/// What became of a stretch of a batch.
struct Part {
    batch: Batch,
    /// By their index in the whole batch.
    rejected: Vec<(usize, ConnectorError)>,
}

impl Running {
    /// An open instance that has room for the schemas of a batch. It is taken out, and whoever lets its call run to the
    /// end puts it back: one that is left in the middle of a call is never called again.
    async fn take_ready(&mut self, schemas: usize) -> Result<Instance, Failed> {
        let has_room = |instance: &Instance| !instance.store.data().schemas.is_full_for(schemas);
        if let Some(instance) = self.instance.take().filter(has_room) {
            return Ok(instance);
        }
        self.opened(&self.plugin).await.map_err(Failed::Said)
    }

    /// A new instance, open.
    async fn opened(&self, plugin: &Arc<Loaded>) -> Result<Instance, ConnectorError> {
        let start = Instance::start(plugin, Arc::clone(&self.configured), Task::default());
        let mut instance = start.await.map_err(PluginError::into_connector_error)?;
        let opened = instance.open_transform().await.map_err(PluginError::into_connector_error)?;
        opened.map_err(|error| failure(error, &self.configured.redactor))?;
        Ok(instance)
    }

    /// Goes over to the component that has taken the place of this one, between two batches: no record is lost or seen
    /// twice. Where that one cannot be opened, this one goes on.
    async fn renew(&mut self) {
        if !self.is_watched {
            self.slot.watch();
            self.is_watched = true;
        }
        let newest = self.slot.current();
        let is_refused = self.refused.as_ref().is_some_and(|it| Arc::ptr_eq(it, &newest));
        if Arc::ptr_eq(&self.plugin, &newest) || is_refused {
            return;
        }
        match self.opened(&newest).await {
            Ok(instance) => {
                self.instance = Some(instance);
                self.refused = None;
                self.plugin = newest;
                tracing::info!(
                    plugin = &*self.plugin.name,
                    "a task has gone over to the plugin's new component"
                );
            }
            Err(error) => {
                let plugin = &*self.plugin.name;
                tracing::error!(plugin, %error, "the plugin's new component cannot be opened; the old one goes on");
                self.refused = Some(newest);
            }
        }
    }

    /// One call. An instance that does not return what it should is not called again.
    async fn process(&mut self, batch: &Batch, range: Range<usize>) -> Result<Part, Failed> {
        let mut instance = self.take_ready(batch.schema_count()).await?;
        let schemas = &mut instance.store.data_mut().schemas;
        let encoded = flat::encode(batch, range.clone(), |schema| schemas.number(schema), &mut self.buffer);
        if let Err(error) = encoded {
            self.instance = Some(instance);
            return Err(Failed::Contained(ConnectorError::terminal("PLUGIN_BATCH", error.to_string())));
        }
        let called = instance.process(&self.buffer).await;
        // R10: one batch that was large does not keep its room for ever.
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        let outcome = called.map_err(|error| Failed::Contained(error.into_connector_error()))?;
        let outcome = outcome.map_err(|error| Failed::Said(failure(error, &self.configured.redactor)))?;
        let part = self.read(&instance, batch, range, outcome)?;
        if instance.is_worn() {
            let (plugin, bytes) = (&*self.plugin.name, instance.store.data().memory_used);
            tracing::debug!(
                plugin,
                bytes,
                "an instance has used up most of its memory; another takes its place"
            );
        } else {
            self.instance = Some(instance);
        }
        Ok(part)
    }

    /// What a guest returns is checked before it is believed (R11).
    fn read(
        &self,
        instance: &Instance,
        batch: &Batch,
        range: Range<usize>,
        outcome: Outcome,
    ) -> Result<Part, Failed> {
        let wrong = |what: String| {
            let message = format!("what the plugin returned cannot be: {what}");
            Failed::Contained(ConnectorError::retry("PLUGIN_ANSWER", message))
        };
        let schema = |number| instance.store.data().schemas.get(number);
        let decoded = flat::decode(outcome.batch, batch, range.clone(), schema);
        let (read, used) = decoded.map_err(|error| wrong(error.to_string()))?;
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut rejected = Vec::with_capacity(outcome.rejected.len().min(range.len()));
        for types::Rejection { index, details: said } in outcome.rejected {
            let index = index as usize;
            if index >= range.len() || !seen.insert(index) || used.binary_search(&index).is_ok() {
                return Err(wrong(format!("record {index} is rejected, and is not there, or not only that")));
            }
            rejected
                .push((range.start + index, details(ErrorKind::Terminal, said, &self.configured.redactor)));
        }
        rejected.sort_by_key(|(index, _)| *index);
        Ok(Part { batch: read, rejected })
    }

    /// All of a batch: where a call fails, halves of it, down to the records at which it does, which are rejected.
    async fn all(&mut self, batch: &Batch) -> Result<Transformed, ConnectorError> {
        let mut open: Vec<_> = std::iter::once(0..batch.len()).collect();
        let mut failures = 0;
        let mut passed: Option<Batch> = None;
        let mut rejected = RejectedRecords::default();
        while let Some(range) = open.pop() {
            let error = match self.process(batch, range.clone()).await {
                Ok(part) => {
                    for (index, error) in part.rejected {
                        rejected.push(batch.record(index), error);
                    }
                    passed = Some(match passed {
                        None => part.batch,
                        Some(before) => joined(before, &part.batch),
                    });
                    continue;
                }
                Err(Failed::Said(error)) => return Err(error),
                Err(Failed::Contained(error)) => error,
            };
            failures += 1;
            if range.is_empty() || failures > FAILURES_MAX {
                return Err(error);
            }
            tracing::warn!(plugin = &*self.plugin.name, records = range.len(), %error, "a call into a plugin failed");
            if range.len() == 1 {
                rejected.push(batch.record(range.start), error);
            } else {
                let middle = range.start + range.len() / 2;
                open.push(middle..range.end);
                open.push(range.start..middle);
            }
        }
        Ok(Transformed { batch: passed.unwrap_or_default(), rejected })
    }
}

fn joined(before: Batch, after: &Batch) -> Batch {
    let mut builder = before.into_builder();
    after.records().for_each(|record| builder.push(record));
    builder.build()
}

#[async_trait]
impl Transform for Running {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        self.renew().await;
        self.all(&batch).await
    }
}
