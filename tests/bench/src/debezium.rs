//! The peer of W6 to W8: Debezium in a Kafka Connect worker, on Apache Kafka.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use towpath_harness::connect::{self, Connect};
use towpath_harness::peers::Plugin;
use towpath_harness::{Kafka, Postgres, http};

use crate::admin::Admin;
use crate::broker::kafka_options;
use crate::source::{DATABASE, TABLE};

const TIMEOUT: Duration = Duration::from_secs(120);

/// Names of the versions that are compared with.
pub(crate) const SOURCE: &str = "Debezium 3.6";
pub(crate) const SINK: &str = "Debezium JDBC sink 3.3";

/// A worker and its Kafka, both running.
pub(crate) struct Debezium {
    pub(crate) admin: Admin,
    connect: Connect,
    _kafka: Kafka,
}

impl Debezium {
    /// Starts both; values are JSON with or without their schema.
    pub(crate) fn start(schemas: bool) -> Result<Self> {
        let kafka = Kafka::start(&kafka_options(false))?;
        let enable = |part: &str| (format!("{part}.converter.schemas.enable"), schemas.to_string());
        let connect = Connect::start(&connect::Options {
            bootstrap: kafka.bootstrap(),
            heap_mib: 1024,
            plugins: vec![Plugin::DebeziumPostgres, Plugin::DebeziumJdbc],
            worker: vec![enable("key"), enable("value")],
            connectors: Vec::new(),
        })?;
        Ok(Self { admin: Admin::connect(kafka.address())?, connect, _kafka: kafka })
    }

    /// The worker's process, without Apache Kafka's.
    pub(crate) fn pid(&self) -> u32 {
        self.connect.pid()
    }

    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Result<String> {
        let response = http::request(self.connect.rest_address(), method, path, body, TIMEOUT)?;
        if !(200..300).contains(&response.status) {
            bail!("{method} {path}: {} {}", response.status, response.body);
        }
        Ok(response.body)
    }

    /// Creates a connector and waits until it runs.
    pub(crate) fn create(&mut self, name: &str, lines: &[(&str, &str)]) -> Result<()> {
        let mut config: Map<String, Value> =
            lines.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        config.insert("tasks.max".to_owned(), json!("1"));
        let body = Value::Object(config).to_string();
        self.ask("PUT", &format!("/connectors/{name}/config"), Some(&body))?;
        self.connect.wait_running(name, TIMEOUT)
    }

    /// Creates a source on the table of the workloads.
    pub(crate) fn create_source(&mut self, name: &str, server: &Postgres, prefix: &str) -> Result<()> {
        self.create(
            name,
            &[
                ("connector.class", Plugin::DebeziumPostgres.class()),
                ("database.hostname", "127.0.0.1"),
                ("database.port", &server.port().to_string()),
                ("database.user", "postgres"),
                ("database.dbname", DATABASE),
                ("plugin.name", "pgoutput"),
                ("slot.name", name),
                ("publication.name", name),
                ("publication.autocreate.mode", "filtered"),
                ("table.include.list", &format!("public.{TABLE}")),
                ("topic.prefix", prefix),
            ],
        )
    }

    /// Creates a sink of a topic.
    pub(crate) fn create_sink(
        &mut self,
        name: &str,
        server: &Postgres,
        topic: &str,
        table: &str,
    ) -> Result<()> {
        let url = format!("jdbc:postgresql://127.0.0.1:{}/{DATABASE}", server.port());
        self.create(
            name,
            &[
                ("connector.class", Plugin::DebeziumJdbc.class()),
                ("topics", topic),
                ("connection.url", &url),
                ("connection.username", "postgres"),
                ("connection.password", ""),
                ("insert.mode", "upsert"),
                ("primary.key.mode", "record_key"),
                ("schema.evolution", "none"),
                ("collection.name.format", table),
                ("batch.size", "3000"),
                ("consumer.override.max.poll.records", "3000"),
                ("consumer.override.auto.offset.reset", "earliest"),
            ],
        )
    }

    /// Ends the connector's task; the worker, warm, keeps the connector and its offsets.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        self.ask("PUT", &format!("/connectors/{name}/stop"), None)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let text = self.ask("GET", &format!("/connectors/{name}/status"), None)?;
            let status: Value = serde_json::from_str(&text).context("a status that is no JSON")?;
            let state = status.pointer("/connector/state").and_then(Value::as_str);
            let tasks = status.get("tasks").and_then(Value::as_array).map_or(0, Vec::len);
            if state == Some("STOPPED") && tasks == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{name} has not stopped: {text}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts the connector's task again.
    pub(crate) fn resume(&self, name: &str) -> Result<()> {
        self.ask("PUT", &format!("/connectors/{name}/resume"), None).map(drop)
    }

    /// Deletes the connector.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.ask("DELETE", &format!("/connectors/{name}"), None).map(drop)
    }

    /// The end of the worker's log.
    pub(crate) fn log_tail(&self) -> String {
        self.connect.log_tail()
    }
}
