//! One engine for all plugins of the process, and the clock that ends their calls.

use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::error::PluginError;

/// How often running guests are looked at: a call ends this much after its deadline at the latest.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Instances of all plugins together; one is a task.
const INSTANCES_MAX: u32 = 256;
/// Core modules of one component: the guest itself and the adapters around it. Python's interpreter and its libraries
/// are linked out of nearly forty.
pub(crate) const CORE_INSTANCES_MAX: u32 = 64;
/// Entries of one table: Python's functions that can be called indirectly are some ten thousand.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// Bytes of a memory that stay with its place in the pool when an instance ends, wiped: the next one starts faster.
const KEPT_BYTES: usize = 256 * 1024;

/// An engine whose epoch advances every [`TICK`] until it is dropped.
pub(crate) fn start() -> Result<Engine, PluginError> {
    let failed = |error: wasmtime::Error| PluginError::Start(error.to_string());
    let mut config = Config::new();
    config.epoch_interruption(true);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(INSTANCES_MAX * CORE_INSTANCES_MAX)
        .total_memories(INSTANCES_MAX)
        .total_tables(INSTANCES_MAX * 2)
        .total_stacks(INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEPT_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = match Engine::new(&config) {
        Ok(engine) => engine,
        Err(error) => {
            // Address space is limited here (`ulimit -v`): memory is taken as it is needed then.
            tracing::warn!(%error, "no pool for plugins; every instance takes its memory by itself");
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config).map_err(failed)?
        }
    };
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    let spawned = std::thread::Builder::new().name("towpath-plugins".to_owned()).spawn(tick);
    spawned.map_err(|error| PluginError::Start(format!("no thread for the clock: {error}")))?;
    Ok(engine)
}
