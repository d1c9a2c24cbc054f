//! One instance of a plugin in a store of its own.

use std::sync::Arc;
use std::time::Duration;

use towpath_api::ConnectorKind;
use towpath_types::limits::PLUGIN_BATCH_BYTES_MAX;
use wasmtime::component::Instance as Linked;
use wasmtime::{AsContextMut as _, Store, UpdateDeadline};

use super::bindings::exports::towpath::plugin::{plugin, sinks, sources, transforms};
use super::bindings::towpath::plugin::types;
use super::component::Loaded;
use super::configured::Configured;
use super::describe::Said;
use super::error::PluginError;
use super::options::Limits;
use super::state::{Reach, State, Task};

/// Bytes of an answer besides its batch: what is said of rejected records, and offsets.
const ANSWER_BYTES_EXTRA: usize = 1024 * 1024;
/// How long `has-passed` may take, which is answered at once.
const PASSED_TIME: Duration = Duration::from_millis(100);

/// An instance, thrown away after a call that did not return.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    exports: Loads,
    limits: Limits,
    /// Bytes of memory that it had when it was open.
    at_open: usize,
}

/// The functions of the worlds that the component fits.
struct Loads {
    plugin: Option<plugin::Guest>,
    transform: Option<transforms::Guest>,
    source: Option<sources::Guest>,
    sink: Option<sinks::Guest>,
}

impl Loads {
    fn load(plugin: &Loaded, store: &mut Store<State>, linked: &Linked) -> wasmtime::Result<Self> {
        let exports = &plugin.exports;
        let transform = exports.transform.as_ref();
        let plugin = transform.map(|(it, _)| it.load(&mut *store, linked)).transpose()?;
        let transform = transform.map(|(_, it)| it.load(&mut *store, linked)).transpose()?;
        let source = exports.source.as_ref().map(|it| it.load(&mut *store, linked)).transpose()?;
        let sink = exports.sink.as_ref().map(|it| it.load(&mut *store, linked)).transpose()?;
        Ok(Self { plugin, transform, source, sink })
    }
}

/// One call into a world that may take `$time`.
macro_rules! call {
    ($self:ident, $time:expr, $reach:expr, $guest:expr, $function:ident $(, $argument:expr)*) => {{
        begin(&mut $self.store, $time, $reach);
        let guest = $guest.ok_or_else(|| PluginError::Start("it has no such world".to_owned()))?;
        let called = guest.$function(&mut $self.store $(, $argument)*).await;
        called.map_err(|error| PluginError::of_call(&error, $self.store.data(), $time))
    }};
}

impl Instance {
    /// A new store with the component in it.
    pub(crate) async fn start(
        plugin: &Arc<Loaded>,
        configured: Arc<Configured>,
        task: Task,
    ) -> Result<Self, PluginError> {
        let limits = plugin.limits;
        let state = State::new(Arc::clone(plugin), configured, task);
        let mut store = Store::new(plugin.pre.engine(), state);
        store.limiter(|state| state);
        // R10: texts and lists of what a guest says may share its bytes, and become many here.
        store.set_hostcall_fuel(limits.memory.min(PLUGIN_BATCH_BYTES_MAX) + ANSWER_BYTES_EXTRA);
        store.epoch_deadline_callback(|mut context| {
            // A guest that computes lets others run at every tick, and ends when its time is over.
            let over = context.data_mut().is_over_at_tick();
            // tokio's way to yield, after which sockets and timers are looked at too.
            let others = || Box::pin(tokio::task::yield_now());
            Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::YieldCustom(1, others()) })
        });
        begin(&mut store, limits.time, Reach::Nothing);
        let linked = match plugin.pre.instantiate_async(store.as_context_mut()).await {
            Ok(linked) => linked,
            Err(error) if store.data().memory_denied || error.is::<wasmtime::Trap>() => {
                return Err(PluginError::of_call(&error, store.data(), limits.time));
            }
            Err(error) => return Err(PluginError::Start(format!("{error:#}"))),
        };
        let exports = Loads::load(plugin, &mut store, &linked);
        let exports = exports.map_err(|error| PluginError::Start(format!("{error:#}")))?;
        Ok(Self { store, exports, limits, at_open: 0 })
    }

    /// What it says of each type that it brings.
    pub(crate) async fn describe(&mut self) -> Result<Vec<Said>, PluginError> {
        let time = self.limits.time;
        let mut all = Vec::new();
        if self.exports.source.is_some() {
            let description =
                call!(self, time, Reach::Nothing, self.exports.source.as_ref(), call_descriptor)?;
            let options = call!(self, time, Reach::Nothing, self.exports.source.as_ref(), call_config_spec)?;
            let guarantee = call!(self, time, Reach::Nothing, self.exports.source.as_ref(), call_promise)?;
            all.push(Said { kind: ConnectorKind::Source, description, options, guarantee: Some(guarantee) });
        }
        if self.exports.sink.is_some() {
            let description = call!(self, time, Reach::Nothing, self.exports.sink.as_ref(), call_descriptor)?;
            let options = call!(self, time, Reach::Nothing, self.exports.sink.as_ref(), call_config_spec)?;
            let guarantee = call!(self, time, Reach::Nothing, self.exports.sink.as_ref(), call_promise)?;
            all.push(Said { kind: ConnectorKind::Sink, description, options, guarantee: Some(guarantee) });
        }
        if self.exports.transform.is_some() {
            let description =
                call!(self, time, Reach::Nothing, self.exports.plugin.as_ref(), call_descriptor)?;
            let options = call!(self, time, Reach::Nothing, self.exports.plugin.as_ref(), call_config_spec)?;
            all.push(Said { kind: ConnectorKind::Transform, description, options, guarantee: None });
        }
        Ok(all)
    }

    /// What it finds wrong with the options of a type.
    pub(crate) async fn check_config(
        &mut self,
        kind: ConnectorKind,
    ) -> Result<Vec<types::Problem>, PluginError> {
        let time = self.limits.time;
        match kind {
            ConnectorKind::Source => {
                call!(self, time, Reach::Nothing, self.exports.source.as_ref(), call_check_config)
            }
            ConnectorKind::Sink => {
                call!(self, time, Reach::Nothing, self.exports.sink.as_ref(), call_check_config)
            }
            ConnectorKind::Transform => {
                call!(self, time, Reach::Nothing, self.exports.plugin.as_ref(), call_check_config)
            }
        }
    }

    /// Opens the transform.
    pub(crate) async fn open_transform(&mut self) -> Result<Result<(), types::Error>, PluginError> {
        let opened =
            call!(self, self.limits.time, Reach::Nothing, self.exports.transform.as_ref(), call_open);
        self.at_open = self.store.data().memory_used;
        opened
    }

    /// Whether it has used up most of the memory that it had left when it was open, so that it should make way for another
    /// before it fails. Interpreters collect late, or lose a little at each call (R10).
    pub(crate) fn is_worn(&self) -> bool {
        let room = self.limits.memory.saturating_sub(self.at_open);
        self.store.data().memory_used.saturating_sub(self.at_open) > room / 4 * 3
    }

    /// One batch through the transform.
    pub(crate) async fn process(
        &mut self,
        batch: &[u8],
    ) -> Result<Result<transforms::Outcome, types::Error>, PluginError> {
        call!(self, self.limits.time, Reach::Nothing, self.exports.transform.as_ref(), call_process, batch)
    }
}

/// What a call into a source or a sink came to.
pub(crate) type Called<T> = Result<Result<T, types::Error>, PluginError>;

/// The source.
impl Instance {
    pub(crate) async fn check_source(
        &mut self,
    ) -> Result<Result<Vec<String>, Vec<types::Error>>, PluginError> {
        call!(self, self.limits.time, Reach::Granted, self.exports.source.as_ref(), call_check)
    }

    pub(crate) async fn plan(&mut self, tasks_max: u32) -> Called<Vec<sources::Task>> {
        call!(self, self.limits.time, Reach::Granted, self.exports.source.as_ref(), call_plan, tasks_max)
    }

    pub(crate) async fn open_source(
        &mut self,
        task: &sources::Task,
        offsets: &[sources::Offset],
    ) -> Called<String> {
        let source = self.exports.source.as_ref();
        let opened = call!(self, self.limits.time, Reach::Granted, source, call_open, task, offsets);
        self.at_open = self.store.data().memory_used;
        opened
    }

    pub(crate) async fn poll(&mut self, budget: sources::Budget) -> Called<sources::Polled> {
        call!(self, self.limits.time, Reach::UntilStopped, self.exports.source.as_ref(), call_poll, budget)
    }

    pub(crate) async fn commit(&mut self, offsets: &[sources::Offset]) -> Called<()> {
        call!(self, self.limits.time, Reach::Granted, self.exports.source.as_ref(), call_commit, offsets)
    }

    pub(crate) async fn upstream_end(&mut self) -> Called<Option<sources::Position>> {
        call!(self, self.limits.time, Reach::Granted, self.exports.source.as_ref(), call_upstream_end)
    }

    pub(crate) async fn has_passed(
        &mut self,
        durable: &[sources::Offset],
        end: &sources::Position,
    ) -> Result<bool, PluginError> {
        let time = self.limits.time.min(PASSED_TIME);
        call!(self, time, Reach::Nothing, self.exports.source.as_ref(), call_has_passed, durable, end)
    }

    pub(crate) async fn close_source(&mut self) -> Called<()> {
        call!(self, self.limits.time, Reach::Granted, self.exports.source.as_ref(), call_close)
    }
}

/// The sink.
impl Instance {
    pub(crate) async fn check_sink(&mut self) -> Result<Result<Vec<String>, Vec<types::Error>>, PluginError> {
        call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_check)
    }

    pub(crate) async fn open_sink(&mut self) -> Called<()> {
        let opened = call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_open);
        self.at_open = self.store.data().memory_used;
        opened
    }

    pub(crate) async fn assign(&mut self, added: &[sinks::Assigned]) -> Called<Vec<sinks::Position>> {
        call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_assign, added)
    }

    pub(crate) async fn write(&mut self, delivery: &sinks::Delivery) -> Called<sinks::Written> {
        call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_write, delivery)
    }

    pub(crate) async fn flush(&mut self) -> Called<Vec<sinks::Position>> {
        call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_flush)
    }

    pub(crate) async fn revoke(&mut self, removed: &[sinks::TopicPartition]) -> Called<()> {
        call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_revoke, removed)
    }

    pub(crate) async fn close_sink(&mut self) -> Called<()> {
        call!(self, self.limits.time, Reach::Granted, self.exports.sink.as_ref(), call_close)
    }
}

/// A call begins.
fn begin(store: &mut Store<State>, time: Duration, reach: Reach) {
    store.data_mut().begin(time, reach);
    store.set_epoch_deadline(1);
}
