//! Which component the tasks of a source or a sink are opened with, while its file is replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use towpath_api::{ConnectorError, ErrorKind};

use super::component::Loaded;
use super::reload::Slot;

/// The components of one connector. A new one is opened where the one before it stood: between two batches, with
/// everything durable. Where it cannot be, the one before it goes on, and the new one is not tried again.
pub(crate) struct Versions {
    slot: Arc<Slot>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Task → the component that it was opened with last.
    opened: BTreeMap<u32, Arc<Loaded>>,
    /// The component that could not be opened where the one before it could.
    refused: Option<Arc<Loaded>>,
}

impl Versions {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self { slot, state: Mutex::default() }
    }

    /// From now on the file is watched.
    pub(crate) fn watch(&self) {
        self.slot.watch();
    }

    /// What is to run.
    pub(crate) fn newest(&self) -> Arc<Loaded> {
        let (newest, state) = (self.slot.current(), self.state.lock());
        if is(state.refused.as_ref(), &newest)
            && let Some(before) = state.opened.values().next()
        {
            return Arc::clone(before);
        }
        newest
    }

    /// What to open a task with, and what to go back to if that fails.
    pub(crate) fn choice(&self, task: u32) -> (Arc<Loaded>, Option<Arc<Loaded>>) {
        let (newest, state) = (self.slot.current(), self.state.lock());
        let before = state.opened.get(&task).filter(|it| !Arc::ptr_eq(it, &newest)).cloned();
        match before {
            Some(before) if is(state.refused.as_ref(), &newest) => (before, None),
            before => (newest, before),
        }
    }

    /// What another task runs, if it is not this one.
    pub(crate) fn other(&self, than: &Arc<Loaded>) -> Option<Arc<Loaded>> {
        self.state.lock().opened.values().find(|it| !Arc::ptr_eq(it, than)).cloned()
    }

    /// A task was opened with this component.
    pub(crate) fn opened(&self, task: u32, plugin: &Arc<Loaded>) {
        let before = self.state.lock().opened.insert(task, Arc::clone(plugin));
        if before.is_some_and(|it| !Arc::ptr_eq(&it, plugin)) {
            let plugin = &*plugin.name;
            tracing::info!(plugin, task, "a task has gone over to the plugin's new component");
        }
    }

    /// A task cannot be opened with this component, and could with the one before it.
    pub(crate) fn refuse(&self, plugin: &Arc<Loaded>, error: &ConnectorError) {
        self.state.lock().refused = Some(Arc::clone(plugin));
        let plugin = &*plugin.name;
        tracing::error!(plugin, %error, "the plugin's new component cannot be opened; the old one goes on");
    }

    /// The partitions of a task could not be given to this component. Where that is its own fault, and not the world's,
    /// the next attempt is made with the one before it.
    pub(crate) fn not_assigned(&self, task: u32, plugin: &Arc<Loaded>, error: &ConnectorError) {
        let before = self.state.lock().opened.get(&task).cloned();
        let outside = matches!(error.kind(), ErrorKind::RetryAfter(_) | ErrorKind::NeedsOperator)
            && !error.code().starts_with("PLUGIN_");
        if before.is_some_and(|it| !Arc::ptr_eq(&it, plugin)) && !outside {
            self.refuse(plugin, error);
        }
    }

    /// Whether another component is to take the place of the one that a task runs.
    pub(crate) fn is_superseded(&self, plugin: &Arc<Loaded>) -> bool {
        let newest = self.slot.current();
        !Arc::ptr_eq(&newest, plugin) && !is(self.state.lock().refused.as_ref(), &newest)
    }
}

fn is(one: Option<&Arc<Loaded>>, other: &Arc<Loaded>) -> bool {
    one.is_some_and(|it| Arc::ptr_eq(it, other))
}
