//! Sources and sinks out of components, as the runtime sees them.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Value as Json, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use towpath_api::{
    Budget, ConnectorError, PluginLoader as _, PluginScope, PluginTypes, Poll, RawConfig, Source,
    SourceConnector, SourceOffsets, TaskContext, TaskSpec,
};

use crate::support::{PLUGINS, built_component};

pub(crate) static HOSTILE_SOURCE: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests", "hostile_source"));
pub(crate) static HOSTILE_SINK: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests", "hostile_sink"));
pub(crate) static REDIS_STREAMS: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples", "redis_streams"));
pub(crate) static REDIS_SINK: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples", "redis_sink"));
pub(crate) static REST_PAGES: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples/rest_pages", "rest_pages"));
pub(crate) static BULK_INDEX: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/examples/bulk_index", "bulk_index"));

pub(crate) static FORGER_SOURCE: LazyLock<PathBuf> =
    LazyLock::new(|| built_component("plugins/host/tests/guests", "forger_source"));

/// What a plugin does, and how it is stopped.
pub(crate) const HARM: [(&str, &str); 5] = [
    ("loop", "PLUGIN_TIMEOUT"),
    ("panic", "PLUGIN_TRAP"),
    ("stack", "PLUGIN_TRAP"),
    ("hog", "PLUGIN_MEMORY"),
    ("giant", "PLUGIN_MEMORY"),
];

pub(crate) const BUDGET: Budget = Budget { bytes: 1 << 20, records: 100 };

/// A plugin as an entry of `plugins:`.
pub(crate) fn load(path: &Path, entry: &Json) -> PluginTypes {
    let mut values = json!({ "path": path });
    for (name, value) in entry.as_object().unwrap() {
        values[name] = value.clone();
    }
    let config = RawConfig::with_defaults(&PLUGINS.options(), values).unwrap();
    PLUGINS.load("mine", &config, &PluginScope::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The hostile source with little time and memory.
pub(crate) fn hostile_source(mut entry: Json, options: Json) -> Box<dyn SourceConnector> {
    for (name, value) in [("time", json!(300)), ("memory", json!(16 << 20))] {
        if entry.get(name).is_none() {
            entry[name] = value;
        }
    }
    let factory = load(&HOSTILE_SOURCE, &entry).source.unwrap();
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(crate) async fn open(
    connector: &dyn SourceConnector,
    resume: SourceOffsets,
) -> Result<Box<dyn Source>, ConnectorError> {
    let task = TaskSpec { index: 0, assignment: json!("") };
    connector.open(task, resume, TaskContext::new("test", 0)).await
}

pub(crate) async fn plan_one(connector: &dyn SourceConnector) -> Result<Vec<TaskSpec>, ConnectorError> {
    connector.plan(NonZeroU32::MIN).await
}

/// What one poll of the hostile source finds out, and its offsets.
pub(crate) async fn finds(entry: Json, options: Json) -> Result<(String, SourceOffsets), ConnectorError> {
    let connector = hostile_source(entry, options);
    let mut source = open(&*connector, SourceOffsets::default()).await?;
    match source.poll(BUDGET).await? {
        Poll::Batch(batch) => Ok((crate::support::told(&batch.batch).join(","), batch.offsets)),
        other => panic!("{other:?}"),
    }
}

/// Takes lines by TCP, until it is asked for them.
pub(crate) struct Collector {
    pub(crate) address: String,
    lines: Arc<parking_lot::Mutex<Vec<u8>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lines: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(length) = stream.read(&mut buffer).await {
                        if length == 0 {
                            break;
                        }
                        kept.lock().extend_from_slice(&buffer[..length]);
                    }
                });
            }
        });
        Self { address, lines }
    }

    /// The lines so far, once there are as many as `count`.
    pub(crate) async fn lines(&self, count: usize) -> Vec<String> {
        for _ in 0..200 {
            let text = String::from_utf8(self.lines.lock().clone()).unwrap();
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        String::from_utf8(self.lines.lock().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}
