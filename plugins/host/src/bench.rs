//! What a plugin costs: to compile, to load, to start, and for each record.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, EventSchema, Field, RawConfig, RowSchema, Transform, Type,
};

use super::component::compile;
use super::configured::Configured;
use super::error::PluginError;
use super::grants::Grants;
use super::instance::Instance;
use super::loader::{Opened, Plugins, at_once, name_of, read};
use super::options::Limits;
use super::state::Task;

/// Instances that are started, and entries that are loaded, to find the median.
const STARTS: usize = 200;
const LOADS: usize = 11;

/// What it takes until a plugin runs.
#[derive(Debug, Clone, Copy)]
pub struct Starts {
    /// Compiling the component.
    pub compile: Duration,
    /// Loading it out of the cache of compiled code; `None` where there is no cache.
    pub load: Option<Duration>,
    /// A new instance of it, as each task has one; the median of many.
    pub instantiate: Duration,
}

/// What a transform does with records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    /// Records that went in.
    pub records: u64,
    /// Those that went on.
    pub passed: u64,
    /// Those that were rejected.
    pub rejected: u64,
    /// Time of the processor.
    pub spent: Duration,
}

impl Rate {
    /// Records in a second of one core.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.records as f64 / self.spent.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The processor's time that this thread has had.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Records with a number, a level, and a line of text, which take about `bytes` each.
#[must_use]
pub fn records(count: usize, bytes: usize) -> Batch {
    let fields = vec![
        Field::nullable("id", Type::Int64),
        Field::nullable("level", Type::String),
        Field::nullable("message", Type::String),
    ];
    let schema = Arc::new(EventSchema::new("lines", Arc::new(RowSchema::new(fields))));
    // A table of three numbers, the id, the level.
    let room = bytes.saturating_sub(3 * 4 + 8 + 4);
    let words = "order 4711 of zoe@example.com was paid with 4111 1111 1111 1111 and left the house ";
    let text: String = words.chars().cycle().take(room).collect();
    let mut builder = BatchBuilder::new();
    for id in 0..count as i64 {
        let mut record = builder.record(&schema);
        record.offset(id).timestamp_ms(1_700_000_000_000 + id);
        record.after(|row| {
            row.int(id);
            row.text(if id % 4 == 0 { "warn" } else { "info" });
            row.text(&text);
        });
        record.finish();
    }
    builder.build()
}

/// Gives a transform copies of a batch for so long, and counts.
///
/// # Errors
/// What the transform fails with.
pub fn measure(transform: &mut dyn Transform, batch: &Batch, time: Duration) -> Result<Rate, ConnectorError> {
    let copy = || {
        let mut builder = BatchBuilder::new();
        batch.records().for_each(|record| builder.push(record));
        builder.build()
    };
    // The first one starts the instance.
    at_once(transform.apply(copy()))?;
    let mut rate = Rate::default();
    let begun = Instant::now();
    while begun.elapsed() < time || rate.records == 0 {
        let copy = copy();
        let before = spent();
        let transformed = at_once(transform.apply(copy))?;
        rate.spent += spent().saturating_sub(before);
        rate.records += batch.len() as u64;
        rate.passed += transformed.batch.len() as u64;
        rate.rejected += transformed.rejected.into_parts().1.len() as u64;
    }
    Ok(rate)
}

impl Plugins {
    /// What it takes until the plugin of a file runs with these options.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn measure_starts(&self, path: &Path, config: &RawConfig) -> Result<Starts, PluginError> {
        let file = read(path)?;
        let Opened { plugin, descriptors, .. } =
            self.inner.open(&name_of(path), &file, Limits::default(), Grants::default())?;
        let engine = self.inner.engine()?;
        let begun = Instant::now();
        let component = compile(engine, &file.bytes)?;
        let compile = begun.elapsed();
        let load = self.inner.cache.as_ref().and_then(|cache| {
            cache.store(engine, &file.hash.0, &component);
            let load = |_| {
                let begun = Instant::now();
                cache.load(engine, &file.hash.0).map(|_| begun.elapsed())
            };
            (0..LOADS).map(load).collect::<Option<Vec<_>>>()
        });
        let spec = descriptors.into_iter().next().map(|it| it.options).unwrap_or_default();
        let configured = Arc::new(Configured::new(&spec, config));
        let mut times = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let begun = Instant::now();
            let instance = at_once(Instance::start(&plugin, Arc::clone(&configured), Task::default()))?;
            times.push(begun.elapsed());
            drop(instance);
        }
        Ok(Starts { compile, load: load.map(median), instantiate: median(times) })
    }
}
