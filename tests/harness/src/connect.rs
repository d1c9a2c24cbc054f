//! A Kafka Connect worker of one process, for the comparison with Debezium.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::child::Guarded;
use crate::http;
use crate::peers::{self, Plugin};
use crate::ports::free_port;
use crate::temp::TempDir;

/// How the worker is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the topics are.
    pub bootstrap: String,
    /// The heap, in MiB.
    pub heap_mib: u32,
    /// The plugins it can load.
    pub plugins: Vec<Plugin>,
    /// More lines of the worker's properties, later ones win.
    pub worker: Vec<(String, String)>,
    /// One connector per entry; `name` and `connector.class` must be among its lines.
    pub connectors: Vec<Vec<(String, String)>>,
}

/// A running worker.
#[derive(Debug)]
pub struct Connect {
    worker: Guarded,
    rest: SocketAddr,
    folder: TempDir,
}

impl Connect {
    /// Starts it, and waits until its REST port answers.
    ///
    /// # Errors
    /// If the jars cannot be resolved or it does not start; its log is in the error.
    pub fn start(options: &Options) -> Result<Self> {
        let folder = TempDir::new("connect")?;
        let rest: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let plugins = options
            .plugins
            .iter()
            .map(|p| p.resolve().map(|f| f.display().to_string()))
            .collect::<Result<Vec<_>>>()?;
        let mut worker = vec![
            ("bootstrap.servers".to_owned(), options.bootstrap.clone()),
            ("listeners".to_owned(), format!("http://{rest}")),
            ("key.converter".to_owned(), "org.apache.kafka.connect.json.JsonConverter".to_owned()),
            ("value.converter".to_owned(), "org.apache.kafka.connect.json.JsonConverter".to_owned()),
            ("offset.storage.file.filename".to_owned(), folder.join("offsets").display().to_string()),
            ("offset.flush.interval.ms".to_owned(), "1000".to_owned()),
            ("plugin.path".to_owned(), plugins.join(",")),
        ];
        worker.extend(options.worker.iter().cloned());
        let worker_file = folder.join("worker.properties");
        std::fs::write(&worker_file, properties(&worker))?;
        let jvm = [format!("-Xmx{}m", options.heap_mib), format!("-Xms{}m", options.heap_mib)];
        let mut command =
            peers::java("org.apache.kafka.connect.cli.ConnectStandalone", &jvm, &folder.join("log"))?;
        command.arg(&worker_file);
        for (index, connector) in options.connectors.iter().enumerate() {
            let file = folder.join(format!("connector-{index}.properties"));
            std::fs::write(&file, properties(connector))?;
            command.arg(file);
        }
        let out = folder.join("out");
        let worker = Guarded::spawn("Kafka Connect", command, &out, &out)?;
        let mut connect = Self { worker, rest, folder };
        connect.wait_rest(Duration::from_secs(120))?;
        Ok(connect)
    }

    fn wait_rest(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            if http::get(self.rest, "/connectors", Duration::from_secs(5)).is_ok_and(|r| r.status == 200) {
                return Ok(());
            }
            if !self.worker.is_running()? || Instant::now() >= deadline {
                bail!("Kafka Connect did not start\n{}{}", self.worker.log_tail(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The worker's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.worker.pid()
    }

    /// The REST API's address.
    #[must_use]
    pub fn rest_address(&self) -> SocketAddr {
        self.rest
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        crate::child::tail(&self.log_path(), 60)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Waits until a connector and at least one task of it are RUNNING.
    ///
    /// # Errors
    /// If one has FAILED, or it takes too long; the trace is in the error.
    pub fn wait_running(&mut self, connector: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let text =
                http::get(self.rest, &format!("/connectors/{connector}/status"), Duration::from_secs(5))
                    .map(|r| r.body)
                    .unwrap_or_default();
            let status: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            let state = |v: &Value| v.get("state").and_then(Value::as_str).unwrap_or("").to_owned();
            let mut states: Vec<String> =
                status.get("tasks").and_then(Value::as_array).into_iter().flatten().map(state).collect();
            let tasks = states.len();
            states.push(status.get("connector").map(state).unwrap_or_default());
            if states.iter().any(|s| s == "FAILED") {
                bail!("{connector} has failed: {text}\n{}", self.log_tail());
            }
            if tasks > 0 && states.iter().all(|s| s == "RUNNING") {
                return Ok(());
            }
            if !self.worker.is_running()? || Instant::now() >= deadline {
                bail!("{connector} is not running after {timeout:?}: {text}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn properties(lines: &[(String, String)]) -> String {
    let escape = |s: &str| s.replace('\\', "\\\\").replace('\n', "\\n");
    lines.iter().map(|(name, value)| format!("{name}={}\n", escape(value))).collect()
}
