//! The clients of a cluster test: processes of `workload/workload.py`, which write their histories into one folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use towpath_harness::{Guarded, envs, paths};

/// How long a client may take to end; those under test wait for their last answers.
const END_TIMEOUT: Duration = Duration::from_secs(300);

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Its replication factor.
    pub replicas: u32,
    /// Its `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// How many producers there are.
    pub producers: u32,
    /// How many records each sends in a second.
    pub rate: u32,
    /// `all`, with idempotence, or `1` or `0`, without.
    pub acks: String,
    /// When a record fails, in milliseconds; 0: 150 s, and 10 s for every fourth producer.
    pub timeout_ms: u32,
    /// How many members the group has.
    pub members: u32,
    /// The group's protocol: `classic` or `consumer` (KIP-848).
    pub protocol: String,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            topic: "history".to_owned(),
            partitions: 4,
            replicas: 3,
            min_insync_replicas: 2,
            producers: 4,
            rate: 60,
            acks: "all".to_owned(),
            timeout_ms: 0,
            members: 2,
            protocol: "classic".to_owned(),
        }
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Workload {
    load: Load,
    bootstrap: String,
    python: PathBuf,
    folder: PathBuf,
    producers: Vec<Guarded>,
    consumers: Vec<Guarded>,
}

const GROUP: &str = "group";

impl Workload {
    /// Creates the topic. Histories and what the clients say go to `folder`.
    ///
    /// # Errors
    /// If the Python environment cannot be made, or the topic cannot.
    pub fn create(load: Load, bootstrap: &str, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let python = envs::python()?;
        let workload = Self {
            load,
            bootstrap: bootstrap.to_owned(),
            python,
            folder: folder.to_owned(),
            producers: Vec::new(),
            consumers: Vec::new(),
        };
        let mut create = workload.command("create");
        create.args(["--replicas", &workload.load.replicas.to_string()]);
        create.args(["--config", &format!("min.insync.replicas={}", workload.load.min_insync_replicas)]);
        create.args(["--config", "retention.ms=-1"]);
        Guarded::run("workload.py create", create, END_TIMEOUT)?;
        Ok(workload)
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(paths::workspace().join("tests/crash/workload/workload.py")).arg(what);
        command.args(["--bootstrap", &self.bootstrap, "--topic", &self.load.topic]);
        command.args(["--partitions", &self.load.partitions.to_string()]);
        command.env("PYTHONUNBUFFERED", "1");
        command
    }

    fn spawn(&self, what: &str, id: u32, more: &[&str]) -> Result<Guarded> {
        let name = format!("{what}-{id}");
        let mut command = self.command(what);
        command.args(["--id", &id.to_string(), "--history"]).arg(self.folder.join(format!("{name}.jsonl")));
        command.args(more);
        let output = self.folder.join(format!("{name}.out"));
        Guarded::spawn(&format!("workload.py {name}"), command, &output, &output)
    }

    /// Starts the consumers, and then the producers.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let consumers = &["--group", GROUP, "--protocol", &self.load.protocol];
        for id in 0..self.load.members {
            let member = self.spawn("group", id, consumers)?;
            self.consumers.push(member);
        }
        let readers = self.spawn("read", 0, &[])?;
        self.consumers.push(readers);
        let (rate, timeout) = (self.load.rate.to_string(), self.load.timeout_ms.to_string());
        let more = &["--rate", &rate, "--acks", &self.load.acks, "--timeout-ms", &timeout];
        for id in 0..self.load.producers {
            let producer = self.spawn("produce", id, more)?;
            self.producers.push(producer);
        }
        Ok(())
    }

    /// Sets a configuration of the topic.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub fn alter(&self, setting: &str) -> Result<()> {
        let mut command = self.command("alter");
        command.args(["--config", setting]);
        Guarded::run("workload.py alter", command, END_TIMEOUT).map(drop)
    }

    /// Ends the producers once all their records are answered.
    ///
    /// # Errors
    /// If one does not end well; what it said is in the error.
    pub fn stop_producers(&mut self) -> Result<()> {
        stop(&mut self.producers)
    }

    /// Reads every partition to its end, waits until the group has done so too, and ends the consumers.
    ///
    /// # Errors
    /// If that cannot be done in time; what a client said is in the error.
    pub fn finish(&mut self) -> Result<()> {
        let group: &[&str] = if self.load.members > 0 { &["--group", GROUP] } else { &[] };
        let mut last = self.spawn("final", 0, group)?;
        let status = last.wait(END_TIMEOUT * 2)?;
        if !status.success() {
            bail!("the last read ended with {status}\n{}", last.log_tail());
        }
        stop(&mut self.consumers)
    }
}

fn stop(clients: &mut Vec<Guarded>) -> Result<()> {
    for client in clients.iter_mut() {
        if !client.is_running()? {
            bail!("a client ended by itself\n{}", client.log_tail());
        }
        client.signal(Signal::TERM)?;
    }
    for mut client in clients.drain(..) {
        let status = client.wait(END_TIMEOUT)?;
        if !status.success() {
            bail!("a client ended with {status}\n{}", client.log_tail());
        }
    }
    Ok(())
}
