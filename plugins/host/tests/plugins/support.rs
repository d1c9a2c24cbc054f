//! Builds guests, once for all tests of this file, and runs them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Value as Json, json};
use towpath_api::{
    Batch, BatchBuilder, EventSchema, PluginLoader as _, PluginScope, RawConfig, RowSchema, Transform,
    TransformFactory, Type, Value,
};
use towpath_host::Plugins;

/// A component of a project or workspace of guests, built as users' are.
pub(crate) fn built_in(folder: &Path, name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let all = towpath_tool::build(folder, Some(&target)).unwrap_or_else(|error| panic!("{error}"));
    let found = all.into_iter().find(|it| it.name == name);
    found.unwrap_or_else(|| panic!("{} has no {name}", folder.display())).path
}

pub(crate) fn built_component(folder: &str, name: &str) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    built_in(&root.join(folder), name)
}

pub(crate) static PII_MASK: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples", "pii_mask"));
pub(crate) static HOSTILE: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests", "hostile"));

pub(crate) static FORGER: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests", "forger"));

pub(crate) static JSON_COLUMNS: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples/json_columns", "json_columns"));
pub(crate) static CONTACTS: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples/contacts", "contacts"));
pub(crate) static GEOHASH: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples/geohash", "geohash"));
pub(crate) static HOSTILE_C: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests/hostile_c", "hostile_c"));
pub(crate) static IP_PREFIX: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples/ip_prefix", "ip_prefix"));
pub(crate) static HOSTILE_GO: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests/hostile_go", "hostile_go"));

/// One loader for all tests: each component is compiled once.
pub(crate) static PLUGINS: LazyLock<Plugins> = LazyLock::new(Plugins::new);

/// A plugin as an entry of `plugins:`.
pub(crate) fn load(path: &Path, options: &Json) -> Result<Arc<dyn TransformFactory>, String> {
    let mut values = json!({ "path": path });
    for (name, value) in options.as_object().unwrap() {
        values[name] = value.clone();
    }
    let config = RawConfig::with_defaults(&PLUGINS.options(), values).unwrap();
    let types =
        PLUGINS.load("mine", &config, &PluginScope::default()).map_err(|problems| problems.to_string())?;
    Ok(types.transform.unwrap())
}

pub(crate) fn config(factory: &dyn TransformFactory, options: Json) -> RawConfig {
    RawConfig::with_defaults(&factory.descriptor().options, options).unwrap()
}

/// The hostile plugin with a limit of a third of a second and 16 MiB.
pub(crate) fn hostile(options: Json) -> Box<dyn Transform> {
    let factory =
        load(&HOSTILE, &json!({ "time": 300, "memory": 16 << 20, "grants": { "reveal": ["token"] } }))
            .unwrap();
    factory.parse(&config(&*factory, options)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Records of one text each, with their offsets from 0.
pub(crate) fn texts(texts: &[&str]) -> Batch {
    texts_from(&(0..).zip(texts.iter().copied()).collect::<Vec<_>>())
}

/// Records of one text each, with their offsets.
pub(crate) fn texts_from(texts: &[(i64, &str)]) -> Batch {
    let schema = Arc::new(EventSchema::new("lines", Arc::new(RowSchema::bare(Type::String))));
    let mut builder = BatchBuilder::new();
    for (offset, text) in texts {
        let mut record = builder.record(&schema);
        record.offset(*offset).after(|row| row.text(text));
        record.finish();
    }
    builder.build()
}

/// The texts of a batch.
pub(crate) fn told(batch: &Batch) -> Vec<String> {
    let text = |value| match value {
        Value::Text(text) => text.to_owned(),
        other => format!("{other:?}"),
    };
    batch.records().map(|record| text(record.after().unwrap().get(0))).collect()
}

/// A component with another word in the places of one.
pub(crate) fn patched(path: &Path, from: &str, to: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    replaced(&mut bytes, from, to);
    bytes
}

/// Puts another word in the places of one.
pub(crate) fn replaced(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let found = bytes.windows(from.len()).enumerate().filter(|(_, it)| *it == from.as_bytes());
    let places: Vec<_> = found.map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "{from} is not there");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

/// Puts a file in the place of another at once.
pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(&new, path).unwrap();
}
