//! `towpath plugin`

mod check;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use towpath_api::{ConfigSpec, Descriptor, RawConfig, Transform, TransformFactory};
use towpath_config::tree::{self, SourceFile};
use towpath_config::validate::validate;
use towpath_config::{Problem, Problems, Secrets};
use towpath_host::{Inspection, PluginError, Plugins, bench};
use towpath_store::StoreError;
use towpath_tool::{Built, Kind, Language, ToolError};
use towpath_types::limits::PLUGIN_BATCH_BYTES_MAX;

mod keys;
mod store;

pub(super) use store::lock_plugins;

use super::connectors::options_listing;
use crate::cli::{Lang, Plugin, PluginKind};
use crate::failure::Failure;
use crate::output::{Facts, Listing, print_json, print_line, tell};

pub(super) async fn run(command: Plugin, json: bool) -> Result<(), Failure> {
    match command {
        Plugin::New { lang, kind, folder } => new(lang, kind, &folder, json),
        Plugin::Build { folder, output } => build(&folder, output.as_deref(), json),
        Plugin::Inspect { file } => inspect(&file, json),
        Plugin::Bench { file, options, records, bytes, seconds } => {
            let load = Load { records, bytes, seconds };
            bench(&file, &options, load, json)
        }
        Plugin::Check { file, options, grants, seconds } => {
            check::run(&file, &options, grants.as_deref(), seconds, json).await
        }
        Plugin::Lock { files, update } => store::lock(&files, update, json),
        Plugin::Install { file, directory } => store::install(&file, directory.directory, json),
        Plugin::List { directory } => store::list(directory.directory, json),
        Plugin::Keygen { file } => keys::keygen(&file, json),
        Plugin::Sign { key, files } => keys::sign(&key, &files, json),
        Plugin::Verify { keys, files } => keys::verify(&keys, &files, json),
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        let failure = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        let failure = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::from(PluginError::from(error))
    }
}

/// What is wrong with one file of several.
fn about(file: &Path, error: impl Into<PluginError>) -> Failure {
    let error = error.into();
    let failure = Failure::new(format!("{}: {error}", file.display()));
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn new(lang: Lang, kind: PluginKind, folder: &Path, json: bool) -> Result<(), Failure> {
    let language = match lang {
        Lang::Rust => Language::Rust,
        Lang::Js => Language::JavaScript,
        Lang::Ts => Language::TypeScript,
        Lang::Python => Language::Python,
        Lang::C => Language::C,
        Lang::Go => Language::Go,
    };
    let kind = match kind {
        PluginKind::Source => Kind::Source,
        PluginKind::Sink => Kind::Sink,
        PluginKind::Transform => Kind::Transform,
    };
    let files = towpath_tool::new(language, kind, folder)?;
    if json {
        return print_json(&json!({ "folder": folder, "files": files }));
    }
    let (folder, file) = (folder.display(), language.main_file());
    tell(&format!(
        "{folder} is a plugin now: write it in {folder}/{file}, then `towpath plugin build {folder}`"
    ));
    Ok(())
}

fn build(folder: &Path, output: Option<&Path>, json: bool) -> Result<(), Failure> {
    let built = towpath_tool::build(folder, None)?;
    let output = output.unwrap_or(folder);
    std::fs::create_dir_all(output)?;
    let mut listing = Listing::new(&[
        ("PLUGIN", "plugin"),
        ("FILE", "file"),
        ("SIZE", "size_bytes"),
        ("SHA-256", "sha256"),
    ]);
    for Built { name, path } in built {
        let file = put(&path, &output.join(format!("{name}.wasm")))?;
        let inspection = Plugins::with_users_cache().inspect(&file)?;
        listing.row(vec![json!(name), json!(file), json!(inspection.bytes), json!(inspection.sha256)]);
        if let Err(error) = inspection.descriptor {
            listing.print(json)?;
            return Err(Failure::from(error));
        }
    }
    listing.print(json)
}

/// A copy that whoever reads the old one never sees half of.
fn put(from: &Path, to: &Path) -> Result<PathBuf, Failure> {
    let new = to.with_extension("wasm.new");
    std::fs::copy(from, &new)?;
    std::fs::rename(&new, to)?;
    Ok(to.to_owned())
}

fn inspect(file: &Path, json: bool) -> Result<(), Failure> {
    let Inspection { bytes, sha256, imports, exports, worlds, descriptor } =
        Plugins::with_users_cache().inspect(file)?;
    let said = descriptor.as_ref().ok();
    let mut facts = Facts::default();
    facts.add("file", "file", json!(file));
    facts.add("name", "name", json!(said.map(|it| &it.name)));
    facts.add("version", "version", json!(said.map(|it| &it.version)));
    facts.add("summary", "summary", json!(said.map(|it| &it.summary)));
    facts.add("worlds", "worlds", json!(worlds));
    facts.add("size", "size_bytes", json!(bytes));
    facts.add("sha256", "sha256", json!(sha256));
    facts.add("imports", "imports", json!(imports));
    facts.add("exports", "exports", json!(exports));
    if json {
        let mut shown = facts.to_json();
        shown["options"] = json!(said.map(|it| &it.options));
        shown["problem"] = json!(descriptor.as_ref().err().map(ToString::to_string));
        print_json(&shown)?;
        return if descriptor.is_ok() { Ok(()) } else { Err(Failure::Told) };
    }
    facts.print()?;
    let descriptor = descriptor?;
    if !descriptor.options.options.is_empty() {
        print_line("")?;
        options_listing(&descriptor.options).print(false)?;
    }
    Ok(())
}

/// The options as the user would write them in the YAML.
fn options(text: &str, descriptor: &Descriptor) -> Result<RawConfig, Failure> {
    read("--options", text, &descriptor.options)
}

/// YAML on the command line.
fn read(argument: &str, text: &str, spec: &ConfigSpec) -> Result<RawConfig, Failure> {
    let file = Arc::new(SourceFile { path: argument.into(), text: text.to_owned() });
    let secrets = Secrets::default();
    let mut problems: Vec<Problem> = Vec::new();
    let node = tree::parse(&file, &mut problems);
    let config = node.map(|node| validate(&node, spec, &[], &secrets, &mut problems));
    match config.filter(|_| problems.is_empty()) {
        Some(config) => Ok(config),
        None => Err(Failure::Config(Problems::new(problems, secrets))),
    }
}

/// A type, options of it, and what they make of it.
type Opened = (Arc<dyn TransformFactory>, RawConfig, Box<dyn Transform>);

/// A component as a transform with options that it accepts.
fn transform_of(plugins: &Plugins, file: &Path, text: &str) -> Result<Opened, Failure> {
    let types = plugins.open_path(file)?;
    let Some(factory) = types.transform else {
        return Err(Failure::new(format!(
            "{} is no transform, and only transforms can be measured",
            file.display()
        )));
    };
    let config = options(text, factory.descriptor())?;
    let transform = factory.parse(&config).map_err(|problems| {
        Failure::new(format!("the plugin refuses these options: {problems}"))
            .with_hint("give it others: --options")
    })?;
    Ok((factory, config, transform))
}

/// What a plugin is measured with.
struct Load {
    records: u32,
    bytes: u32,
    seconds: u64,
}

fn bench(file: &Path, text: &str, load: Load, json: bool) -> Result<(), Failure> {
    let plugins = Plugins::with_users_cache();
    let (_, config, mut transform) = transform_of(&plugins, file, text)?;
    let Load { records, bytes, seconds } = load;
    let starts = plugins.measure_starts(file, &config)?;
    let total = u64::from(records) * u64::from(bytes);
    if total > PLUGIN_BATCH_BYTES_MAX as u64 / 2 {
        return Err(Failure::new(format!("{records} records of {bytes} bytes are more than a batch holds"))
            .with_hint("give it fewer, or smaller ones: --records, --bytes"));
    }
    let batch = bench::records(records as usize, bytes as usize);
    let rate = bench::measure(&mut *transform, &batch, Duration::from_secs(seconds))
        .map_err(|error| Failure::new(format!("the plugin fails: {error}")))?;
    let rounded = |value: f64| json!((value * 100.0).round() / 100.0);
    let milliseconds = |time: Duration| rounded(time.as_secs_f64() * 1e3);
    let mut facts = Facts::default();
    facts.add("file", "file", json!(file));
    facts.add("records of a batch", "batch_records", json!(records));
    facts.add("bytes of a record", "record_size", json!(bytes));
    facts.add("records a second and core", "records_per_second", json!(rate.per_second().round()));
    facts.add("CPU of a record, ns", "record_ns", rounded(1e9 / rate.per_second()));
    facts.add("records in", "records", json!(rate.records));
    facts.add("passed", "passed", json!(rate.passed));
    facts.add("rejected", "rejected", json!(rate.rejected));
    facts.add("compile, ms", "compile_ms", milliseconds(starts.compile));
    facts.add("load from cache, ms", "load_ms", starts.load.map_or(json!(null), milliseconds));
    facts.add("instance, µs", "instantiate_us", rounded(starts.instantiate.as_secs_f64() * 1e6));
    if json {
        return print_json(&facts.to_json());
    }
    facts.print()?;
    if cfg!(debug_assertions) {
        tell("this towpath was built without optimisation: its figures mean nothing");
    }
    Ok(())
}
