//! The options of the YAML's own sections: `node:`, `cluster:` and each pipeline's frame.

use serde_json::json;
use towpath_api::{ConfigSpec, OptionSpec, OptionType};

/// `node:`, all optional.
#[must_use]
pub fn node_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::with_default(
            "data_dir",
            OptionType::Path,
            json!("./towpath-data"),
            "Where the embedded broker keeps its logs and where this node's identity is stored. Relative paths are \
             meant from the directory in which towpath was started.",
        ),
        OptionSpec::with_default(
            "kafka",
            OptionType::NonEmptyString,
            json!("127.0.0.1:9092"),
            "The address on which the embedded broker listens for Kafka clients (host:port; port 0 takes a free one).",
        ),
        OptionSpec::optional(
            "advertised",
            OptionType::NonEmptyString,
            "What Kafka clients are told to connect to (host:port), where it differs from `kafka`.",
        ),
        OptionSpec::with_default(
            "http",
            OptionType::NonEmptyString,
            json!("127.0.0.1:8083"),
            "The address of /health, /ready, /metrics and /status (host:port; port 0 takes a free one).",
        ),
        OptionSpec::optional(
            "message",
            OptionType::String,
            "Text that `towpath up` shows when everything runs: what whoever started it may want to type next.",
        ),
    ])
}

/// `cluster:`, instead of the embedded broker.
#[must_use]
pub fn cluster_options() -> ConfigSpec {
    ConfigSpec::new(vec![OptionSpec::required(
        "bootstrap_servers",
        OptionType::list(OptionType::NonEmptyString),
        "Brokers of any Kafka cluster (host:port); no broker is started here.",
    )])
}

/// The frame of a pipeline: everything but what its source, sink, transforms and format declare themselves.
#[must_use]
pub fn pipeline_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::optional(
            "source",
            OptionType::Any,
            "Where records come from: `type` and the type's options.",
        ),
        OptionSpec::optional(
            "topic",
            OptionType::NonEmptyString,
            "The topic that the source writes to; a template: {schema}, {table}, {database}, {pipeline} …",
        ),
        OptionSpec::optional(
            "topics",
            OptionType::list(OptionType::NonEmptyString),
            "The topics that the sink reads; patterns with `*` and `?`.",
        ),
        OptionSpec::optional(
            "transforms",
            OptionType::list(OptionType::Any),
            "What happens to records on their way.",
        ),
        OptionSpec::optional("sink", OptionType::Any, "Where records go: `type` and the type's options."),
        OptionSpec::optional(
            "format",
            OptionType::Any,
            "How records stand in the topic: `json` (default), `raw`, or a map with `type` and `schemas` (id, inline, \
             none).",
        ),
        OptionSpec::with_default(
            "tasks",
            OptionType::int(1, 256),
            json!(1),
            "At most so many tasks for the source, and so many for the sink.",
        ),
        OptionSpec::optional(
            "dead_letter",
            OptionType::Any,
            "Where records go that cannot be handled: `true` (default: the topic `<pipeline>.dead-letter`), `false` \
             (the task fails at the record), or a map with `topic`.",
        ),
        OptionSpec::optional(
            "partitions",
            OptionType::int(1, 10_000),
            "Partitions of topics that this pipeline creates (default 1, which keeps the order of key changes and \
             truncates; more gives that up).",
        ),
        OptionSpec::optional(
            "replication_factor",
            OptionType::int(1, 32),
            "Replicas of topics that this pipeline creates (default: the cluster's own default).",
        ),
        OptionSpec::optional(
            "topic_config",
            OptionType::map(OptionType::Scalar),
            "Topic configs of topics that this pipeline creates (`cleanup.policy: compact` …).",
        ),
        OptionSpec::with_default(
            "compression",
            OptionType::choices(&[
                ("none", "as it is"),
                ("gzip", "small, slow"),
                ("snappy", "fast"),
                ("lz4", "fast"),
                ("zstd", "small"),
            ]),
            json!("none"),
            "How record batches are compressed on their way into the topic.",
        ),
    ])
}

/// The YAML's top level.
pub(crate) fn top_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::optional("node", OptionType::Any, "This process: where it listens and keeps its data."),
        OptionSpec::optional(
            "cluster",
            OptionType::Any,
            "Someone else's Kafka cluster, instead of the embedded broker.",
        ),
        OptionSpec::optional("pipelines", OptionType::Any, "Pipelines by name."),
    ])
}
