//! W10: what a plugin costs: records through WASM and back against the same work built in, and what it takes to begin.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use towpath_api::{Batch, RawConfig, Transform, TransformFactory};
use towpath_host::{Plugins, bench};

use super::plugin_native;
use crate::cli::{Arguments, Side};
use crate::machine;
use crate::report::{Report, higher, lower, say};

/// Records of one batch, and bytes of each.
const RECORDS: usize = 500;
const BYTES: usize = 200;

/// W10.
pub(crate) fn w10(arguments: &Arguments) -> Result<Vec<Report>> {
    machine::pin_load()?;
    let guests = Guests {
        measured: built("plugins/host/tests/guests", "measured")?,
        pii_mask: built("plugins/examples", "pii_mask")?,
    };
    let cache = std::env::temp_dir().join(format!("towpath-bench-{}", std::process::id()));
    let plugins = Plugins::with_cache(cache.clone());
    let reports = measured(arguments, &plugins, &guests);
    // What is left behind in a temporary folder is no failure of the measurement.
    let _ = std::fs::remove_dir_all(cache);
    machine::unpin_load()?;
    reports
}

/// The components.
struct Guests {
    measured: PathBuf,
    pii_mask: PathBuf,
}

fn built(project: &str, name: &str) -> Result<PathBuf> {
    say("building the plugin");
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let built = towpath_tool::build(&root.join(project), Some(&root.join("target/guests")))?;
    let built = built.into_iter().find(|it| it.name == name);
    Ok(built.with_context(|| format!("there is no plugin `{name}`"))?.path)
}

fn measured(arguments: &Arguments, plugins: &Plugins, guests: &Guests) -> Result<Vec<Report>> {
    let transform = |path: &Path| plugins.open_path(path)?.transform.context("it is no transform");
    let (plugin, pii_mask) = (transform(&guests.measured)?, transform(&guests.pii_mask)?);
    let built_in = towpath_transforms::factories();
    let mask = built_in.iter().find(|it| it.descriptor().name == "mask").context("there is no `mask`")?;
    let time = if arguments.quick { Duration::from_millis(100) } else { Duration::from_secs(1) };
    let batch = bench::records(RECORDS, BYTES);
    let rate = |factory: &dyn TransformFactory, options: &Value| rate(factory, options, &batch, time);
    let figures = [lower("CPU", "ns/record"), higher("rate", "M records/s per core")];
    let batches = format!("batches of {RECORDS} records of {BYTES} B");
    let mut reports = Vec::new();
    if arguments.wants(Side::Towpath) {
        let title = format!("plugin: every field read and written again, {batches}");
        let through = |_, _| rate(&*plugin, &json!({}));
        let report = Report::measure(title, &figures, &["WASM (Rust)"], arguments.pairs(), through)?;
        reports.push(
            report.note("encoding, the call, the guest's work, checking and decoding; one core, no I/O"),
        );
    }
    let mut names = Vec::new();
    if arguments.wants(Side::Towpath) {
        names.push("WASM (Rust)");
    }
    if arguments.wants(Side::Peer) {
        names.push("built in");
    }
    let title = format!("plugin: `message` masked by a constant, {batches}");
    let masked = |subject: usize, _| match names.get(subject) {
        Some(&"built in") => rate(&**mask, &json!({ "fields": ["message"], "with": "***" })),
        _ => rate(&*plugin, &json!({ "field": "message", "with": "***" })),
    };
    reports.push(Report::measure(title, &figures, &names, arguments.pairs(), masked)?);
    let title = format!("plugin: the example `pii_mask` searches every text, {batches}");
    let searched = |subject: usize, _| match names.get(subject) {
        Some(&"built in") => figure(&mut plugin_native::PiiMask::default(), &batch, time),
        _ => rate(&*pii_mask, &json!({})),
    };
    let report = Report::measure(title, &figures, &names, arguments.pairs(), searched)?;
    reports.push(report.note("built in: the same source, compiled for this machine"));
    if arguments.wants(Side::Towpath) {
        reports.push(starts(arguments, plugins, &guests.measured, &plugin)?);
    }
    Ok(reports)
}

fn rate(factory: &dyn TransformFactory, options: &Value, batch: &Batch, time: Duration) -> Result<Vec<f64>> {
    let config = config(factory, options)?;
    let mut transform = factory.parse(&config).map_err(|problems| anyhow!("{problems}"))?;
    figure(&mut *transform, batch, time)
}

fn figure(transform: &mut dyn Transform, batch: &Batch, time: Duration) -> Result<Vec<f64>> {
    let rate = bench::measure(transform, batch, time)?;
    anyhow::ensure!(rate.passed == rate.records, "{rate:?}: not every record came through");
    Ok(vec![1e9 / rate.per_second(), rate.per_second() / 1e6])
}

fn config(factory: &dyn TransformFactory, options: &Value) -> Result<RawConfig> {
    let config = RawConfig::with_defaults(&factory.descriptor().options, options.clone());
    config.map_err(|problem| anyhow!("{problem:?}"))
}

fn starts(
    arguments: &Arguments,
    plugins: &Plugins,
    guest: &Path,
    plugin: &Arc<dyn TransformFactory>,
) -> Result<Report> {
    let figures = [
        lower("compile", "ms"),
        lower("load compiled code from the disk", "ms"),
        lower("instance of a task", "µs"),
    ];
    let config = config(&**plugin, &json!({}))?;
    let title = "plugin: what it takes to begin".to_owned();
    let starts = |_, _| {
        let starts = plugins.measure_starts(guest, &config)?;
        let load = starts.load.context("there is no cache")?;
        let milliseconds = |it: Duration| it.as_secs_f64() * 1e3;
        Ok(vec![milliseconds(starts.compile), milliseconds(load), milliseconds(starts.instantiate) * 1e3])
    };
    let report = Report::measure(title, &figures, &["WASM (Rust)"], arguments.pairs(), starts)?;
    Ok(report.note("the code is in the page cache; the instance is the median of 200, one after the other"))
}
