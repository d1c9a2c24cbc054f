//! The options of the `file` sink.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use towpath_api::{
    ConfigProblems, ConfigSpec, ConnectorError, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig, Sink, SinkConnector, SinkFactory, TaskContext,
};

use super::errors::io_error;
use super::sink::FileTask;

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lines {
    Value,
    Full,
}

#[derive(Debug, Deserialize)]
struct Options {
    path: PathBuf,
    lines: Lines,
    roll_bytes: u64,
    roll_interval: u64,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    pub(crate) lines: Lines,
    pub(crate) roll_bytes: u64,
    pub(crate) roll_interval: Duration,
}

/// Makes `file` sinks.
#[derive(Debug)]
pub struct FileSink {
    descriptor: Descriptor,
}

impl Default for FileSink {
    fn default() -> Self {
        Self {
            descriptor: Descriptor {
                name: "file".into(),
                kind: ConnectorKind::Sink,
                version: env!("CARGO_PKG_VERSION").into(),
                summary: "JSON-lines files in a directory, one series for each partition.".into(),
                guarantee: Some(Guarantee::ExactlyOnce),
                options: ConfigSpec::new(options()),
            },
        }
    }
}

fn options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::required(
            "path",
            OptionType::Path,
            "The directory; created if it is not there. Finished files are called TOPIC-PARTITION-FIRST-LAST.jsonl after \
             the offsets that they cover; the newest records are in a file that ends in .inprogress.",
        ),
        OptionSpec::with_default(
            "lines",
            OptionType::choices(&[
                (
                    "value",
                    "the record's value: the row, or the envelope of a change event; tombstones are left out",
                ),
                (
                    "full",
                    "an object with topic, partition, offset, timestamp_ms, key and value, for every record",
                ),
            ]),
            json!("value"),
            "What a line holds.",
        ),
        OptionSpec::with_default(
            "roll_bytes",
            OptionType::ByteSize,
            json!(64 * 1024 * 1024),
            "Bytes after which a file is finished and the next one begun.",
        ),
        OptionSpec::with_default(
            "roll_interval",
            OptionType::Duration,
            json!(60_000),
            "Time after which a file is finished, give or take a second. Every file is finished when the task ends.",
        ),
    ]
}

impl SinkFactory for FileSink {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SinkConnector>, ConfigProblems> {
        let options: Options = config.parse()?;
        Ok(Box::new(Connector {
            config: Config {
                path: options.path,
                lines: options.lines,
                roll_bytes: options.roll_bytes.max(1),
                roll_interval: Duration::from_millis(options.roll_interval),
            },
        }))
    }
}

/// A configured `file` sink.
#[derive(Debug)]
struct Connector {
    config: Config,
}

impl Connector {
    fn resolved(&self, context: &TaskContext) -> Config {
        Config { path: context.base_dir.join(&self.config.path), ..self.config.clone() }
    }
}

#[async_trait]
impl SinkConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let path = self.resolved(context).path;
        let checked = tokio::task::spawn_blocking(move || check(&path)).await;
        match checked {
            Ok(Ok(text)) => Ok(vec![text]),
            Ok(Err(error)) => Err(vec![error]),
            Err(_) => Err(vec![ConnectorError::bug("SINK_FILE", "the check panicked")]),
        }
    }

    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(FileTask::new(Arc::new(self.resolved(&context)))))
    }
}

/// Looks whether files can be made there, without leaving any: in the directory, or in the nearest one above it.
fn check(path: &std::path::Path) -> Result<String, ConnectorError> {
    let mut nearest = path;
    while !nearest.exists() {
        match nearest.parent() {
            Some(parent) if parent.as_os_str().is_empty() => nearest = std::path::Path::new("."),
            Some(parent) => nearest = parent,
            None => break,
        }
    }
    if !nearest.is_dir() {
        return Err(ConnectorError::needs_operator(
            "SINK_PATH",
            format!("{} is not a directory", nearest.display()),
        )
        .with_path("path"));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(nearest, access).map_err(|error| {
        io_error(&format!("write into {}", nearest.display()), error.into()).with_path("path")
    })?;
    Ok(format!("{} can be written", path.display()))
}
