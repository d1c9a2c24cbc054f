//! What a store holds, and what the imports of a guest do (R11: this is all that it can reach).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use towpath_types::limits::{PLUGIN_LOG_BYTES_MAX, PLUGIN_LOG_LINES_MAX, PLUGIN_RANDOM_BYTES_MAX};
use wasmtime::{ResourceLimiter, Result, bail};

use super::bindings::towpath::plugin as wit;
use super::component::Loaded;
use super::configured::Configured;
use super::engine::{CORE_INSTANCES_MAX, TABLE_ELEMENTS, TICK};
use super::error::cut;
use super::memory::Memory;
use super::schema::SchemaTable;
use super::secrets::Marks;
use super::tcp::Connections;

/// How much longer than its time a call may take on a machine that does not let it run.
const PATIENCE: u32 = 10;

/// Which task an instance belongs to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Task {
    /// Cancelled when it should end.
    pub(crate) stop: CancellationToken,
}

/// The data of one store.
pub(crate) struct State {
    pub(crate) plugin: Arc<Loaded>,
    pub(crate) configured: Arc<Configured>,
    pub(crate) task: Task,
    pub(crate) memory_used: usize,
    /// Whether it has wanted more memory than it may have.
    pub(crate) memory_denied: bool,
    pub(crate) call: Call,
    /// The last line that the guest wrote as an error: what it says of its own end.
    pub(crate) last_error: Option<String>,
    pub(crate) schemas: SchemaTable,
    pub(crate) marks: Marks,
    pub(crate) connections: Connections,
    pub(crate) memory: Memory,
    begun: Instant,
}

/// What a call may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing outside.
    Nothing,
    /// What is granted.
    Granted,
    /// The same, and its waits end when the task is told to stop.
    UntilStopped,
}

/// The call that is under way.
pub(crate) struct Call {
    /// When it began, how long it may take, and how often the clock has struck while the guest ran.
    begun: Instant,
    time: Duration,
    ticks: u32,
    /// How long it has waited for what is outside: that does not count.
    pub(crate) waited: Duration,
    pub(crate) reach: Reach,
    /// When it was seen that the task is to stop.
    pub(crate) stopped: Option<Instant>,
    /// Lines that it has written.
    log_lines: u32,
}

impl State {
    pub(crate) fn new(plugin: Arc<Loaded>, configured: Arc<Configured>, task: Task) -> Self {
        let now = Instant::now();
        let call = Call {
            begun: now,
            time: Duration::ZERO,
            ticks: 0,
            waited: Duration::ZERO,
            reach: Reach::Nothing,
            stopped: None,
            log_lines: 0,
        };
        Self {
            plugin,
            configured,
            task,
            memory_used: 0,
            memory_denied: false,
            call,
            last_error: None,
            schemas: SchemaTable::default(),
            marks: Marks::default(),
            connections: Connections::default(),
            memory: Memory::default(),
            begun: now,
        }
    }

    /// A call begins that may take so long.
    pub(crate) fn begin(&mut self, time: Duration, reach: Reach) {
        let left_out = self.call.log_lines.checked_sub(PLUGIN_LOG_LINES_MAX).filter(|count| *count > 0);
        if let Some(left_out) = left_out {
            let plugin = &*self.plugin.name;
            tracing::warn!(plugin, left_out, "the plugin wrote too many lines in one call");
        }
        let begun = Instant::now();
        self.call =
            Call { begun, time, ticks: 0, waited: Duration::ZERO, reach, stopped: None, log_lines: 0 };
        self.memory_denied = false;
        self.last_error = None;
    }

    /// The clock has struck while the guest ran: whether its call has taken too long. Time counts during which the guest
    /// had the processor: a machine that stands still is not the plugin's fault.
    pub(crate) fn is_over_at_tick(&mut self) -> bool {
        let call = &mut self.call;
        call.ticks = call.ticks.saturating_add(1);
        let passed = call.begun.elapsed().saturating_sub(call.waited);
        let ran = TICK * call.ticks >= call.time;
        passed >= call.time && (ran || passed >= call.time * PATIENCE)
    }

    /// An option, unless it is a secret that the plugin may not see (R13).
    fn option(&self, name: &str) -> Option<&Json> {
        let hidden = self.configured.secret.contains(name) && !self.plugin.grants.reveal.contains(name);
        let value = self.configured.config.values().get(name).filter(|_| !hidden);
        value.filter(|value| !value.is_null())
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let used = self.memory_used.saturating_sub(current).saturating_add(desired);
        if used > self.plugin.limits.memory {
            self.memory_denied = true;
            return Ok(false);
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        4
    }
}

impl wit::types::Host for State {}

impl wit::log::Host for State {
    fn write(&mut self, level: wit::log::Level, message: String) -> Result<()> {
        self.call.log_lines = self.call.log_lines.saturating_add(1);
        if self.call.log_lines > PLUGIN_LOG_LINES_MAX {
            return Ok(());
        }
        // R13: cut after the redaction, so that no half of a secret stays.
        let redacted = self.configured.redactor.redact(&message);
        let (plugin, line) = (&*self.plugin.name, cut(&redacted, PLUGIN_LOG_BYTES_MAX));
        match level {
            wit::log::Level::Debug => tracing::debug!(plugin, "{line}"),
            wit::log::Level::Info => tracing::info!(plugin, "{line}"),
            wit::log::Level::Warn => tracing::warn!(plugin, "{line}"),
            wit::log::Level::Error => {
                tracing::error!(plugin, "{line}");
                self.last_error = Some(line.to_owned());
            }
        }
        Ok(())
    }
}

impl wit::config::Host for State {
    fn text(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.option(&name).and_then(Json::as_str).map(str::to_owned))
    }

    fn integer(&mut self, name: String) -> Result<Option<i64>> {
        Ok(self.option(&name).and_then(Json::as_i64))
    }

    fn flag(&mut self, name: String) -> Result<Option<bool>> {
        Ok(self.option(&name).and_then(Json::as_bool))
    }

    fn texts(&mut self, name: String) -> Result<Vec<String>> {
        let items = self.option(&name).and_then(Json::as_array).into_iter().flatten();
        Ok(items.filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    fn json(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.option(&name).map(Json::to_string))
    }
}

impl wit::clock::Host for State {
    fn now_ms(&mut self) -> Result<i64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic_ns(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl wit::random::Host for State {
    fn bytes(&mut self, length: u32) -> Result<Vec<u8>> {
        if length > PLUGIN_RANDOM_BYTES_MAX {
            bail!("it asked for {length} random bytes, and {PLUGIN_RANDOM_BYTES_MAX} are the most");
        }
        let mut bytes = vec![0; length as usize];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
        Ok(bytes)
    }
}

impl wit::schemas::Host for State {
    fn get(&mut self, number: u32) -> Result<Option<wit::schemas::Schema>> {
        Ok(self.schemas.get(number).map(|schema| super::schema::to_wit(&schema)))
    }

    fn define(
        &mut self,
        schema: wit::schemas::Schema,
    ) -> Result<std::result::Result<u32, wit::schemas::Refusal>> {
        Ok(self.schemas.define(schema))
    }
}
