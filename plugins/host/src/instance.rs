//! One instance of a plugin in a store of its own.

use std::sync::Arc;
use std::time::Duration;

use towpath_api::{RawConfig, Redactor};
use towpath_types::limits::PLUGIN_BATCH_BYTES_MAX;
use wasmtime::{AsContextMut as _, Store, UpdateDeadline};

use super::bindings::{Transform, towpath::plugin::types};
use super::component::Loaded;
use super::error::PluginError;
use super::options::Limits;
use super::state::State;

/// Bytes of an answer besides its batch: what is said of rejected records.
const ANSWER_BYTES_EXTRA: usize = 1024 * 1024;

/// An instance, thrown away after a call that did not return.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    pub(crate) world: Transform,
    limits: Limits,
}

impl Instance {
    /// A new store with the component in it.
    pub(crate) async fn start(
        plugin: &Loaded,
        config: Arc<RawConfig>,
        redactor: Redactor,
    ) -> Result<Self, PluginError> {
        let limits = plugin.limits;
        let state = State::new(Arc::clone(&plugin.name), config, redactor, limits.memory);
        let mut store = Store::new(plugin.pre.engine(), state);
        store.limiter(|state| state);
        // R10: texts and lists of what a guest says may share its bytes, and become many here.
        store.set_hostcall_fuel(limits.memory.min(PLUGIN_BATCH_BYTES_MAX) + ANSWER_BYTES_EXTRA);
        store.epoch_deadline_callback(|mut context| {
            // A guest that computes lets others run at every tick, and ends when its time is over.
            let over = context.data_mut().is_over_at_tick();
            Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        begin(&mut store, limits.time);
        let world = match plugin.pre.instantiate_async(store.as_context_mut()).await {
            Ok(world) => world,
            Err(error) if store.data().memory_denied || error.is::<wasmtime::Trap>() => {
                return Err(PluginError::of_call(&error, store.data(), limits.time));
            }
            Err(error) => return Err(PluginError::Start(format!("{error:#}"))),
        };
        Ok(Self { store, world, limits })
    }

    /// What it says of itself.
    pub(crate) async fn describe(
        &mut self,
    ) -> Result<(types::Description, Vec<types::OptionSpec>), PluginError> {
        begin(&mut self.store, self.limits.time);
        let said = self.world.towpath_plugin_plugin().call_descriptor(&mut self.store).await;
        let said = said.map_err(|error| self.ended(&error))?;
        let spec = self.world.towpath_plugin_plugin().call_config_spec(&mut self.store).await;
        Ok((said, spec.map_err(|error| self.ended(&error))?))
    }

    /// What it finds wrong with its options.
    pub(crate) async fn check_config(&mut self) -> Result<Vec<types::Problem>, PluginError> {
        begin(&mut self.store, self.limits.time);
        let found = self.world.towpath_plugin_plugin().call_check_config(&mut self.store).await;
        found.map_err(|error| self.ended(&error))
    }

    /// Opens the transform.
    pub(crate) async fn open(&mut self) -> Result<Result<(), types::Error>, PluginError> {
        begin(&mut self.store, self.limits.time);
        let opened = self.world.towpath_plugin_transforms().call_open(&mut self.store).await;
        opened.map_err(|error| self.ended(&error))
    }

    /// One batch through the transform.
    pub(crate) async fn process(
        &mut self,
        batch: &[u8],
    ) -> Result<Result<super::transform::Outcome, types::Error>, PluginError> {
        begin(&mut self.store, self.limits.time);
        let outcome = self.world.towpath_plugin_transforms().call_process(&mut self.store, batch).await;
        outcome.map_err(|error| self.ended(&error))
    }

    fn ended(&self, error: &wasmtime::Error) -> PluginError {
        PluginError::of_call(error, self.store.data(), self.limits.time)
    }
}

/// A call begins.
fn begin(store: &mut Store<State>, time: Duration) {
    store.data_mut().begin(time);
    store.set_epoch_deadline(1);
}
