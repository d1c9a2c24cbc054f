//! One node of a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{END_TIMEOUT, Peer, READY_TIMEOUT};
use crate::child::{self, Guarded};
use crate::disk::{self, Disk};
use crate::{http, kafka, metadata, peers, process};

/// The library that moves a process's clock, if it is installed (Debian's package `libfaketime`).
#[must_use]
pub fn clock_library() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?;
    let all = libraries.flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let mut found = all.filter(|path| path.is_file());
    found.next()
}

#[derive(Debug)]
pub(super) struct Setup {
    pub(super) peer: Peer,
    pub(super) id: u8,
    pub(super) address: Ipv4Addr,
    pub(super) is_controller: bool,
    pub(super) controllers: Vec<String>,
    pub(super) min_insync_replicas: u32,
    pub(super) cluster: String,
    pub(super) prefix: Vec<String>,
    pub(super) clock: bool,
    pub(super) settings: Vec<(String, String)>,
    pub(super) kafka_settings: Vec<(String, String)>,
    pub(super) kafka_jvm: Vec<String>,
}

/// A JVM that starts soon and leaves room for others: for tests, not for measurements.
pub(super) fn small_server_jvm() -> Vec<String> {
    ["-Xmx384m", "-Xms384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned).to_vec()
}

/// A node: its files, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    process: Option<Guarded>,
    should_run: bool,
    paused: bool,
    starts: u32,
    folder: PathBuf,
    data: PathBuf,
    disk: Option<Disk>,
}

impl Node {
    pub(super) fn new(setup: Setup, folder: &Path, disk_mib: Option<u64>) -> Result<Self> {
        let data = folder.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let disk = disk_mib.map(|mib| Disk::mount(&data, mib << 20)).transpose()?;
        let node = Self {
            setup,
            process: None,
            should_run: false,
            paused: false,
            starts: 0,
            folder: folder.to_owned(),
            data,
            disk,
        };
        let text = match node.setup.peer {
            Peer::Towpath => node.yaml(),
            Peer::Kafka => node.properties(),
        };
        std::fs::write(node.config_path(), text).context("cannot write the configuration")?;
        node.set_clock(0)?;
        Ok(node)
    }

    fn yaml(&self) -> String {
        let Setup { id, address, min_insync_replicas, .. } = &self.setup;
        let (roles, controller) = if self.setup.is_controller {
            ("broker, controller", format!("\n  controller: {address}:9093"))
        } else {
            ("broker", String::new())
        };
        let controllers: Vec<_> = self.setup.controllers.iter().map(|c| format!("\"{c}\"")).collect();
        let mut settings = String::new();
        for (name, value) in &self.setup.settings {
            settings.push_str(&format!("\n    {name}: {value}"));
        }
        if !settings.is_empty() {
            settings.insert_str(0, "\n  settings:");
        }
        format!(
            "node:\n  id: {id}\n  roles: [{roles}]\n  data_dir: {}\n  kafka: {address}:9092{controller}\n  \
             http: {address}:8083\n  rack: {}{settings}\ncluster:\n  name: test\n  controllers: [{}]\n  defaults:\n    \
             replication_factor: 3\n    min_insync_replicas: {min_insync_replicas}\n",
            self.data.display(),
            self.rack(),
            controllers.join(", ")
        )
    }

    fn properties(&self) -> String {
        let Setup { id, address, min_insync_replicas, .. } = &self.setup;
        let (roles, controller) = if self.setup.is_controller {
            ("broker,controller", format!(",CONTROLLER://{address}:9093"))
        } else {
            ("broker", String::new())
        };
        let mut text = format!(
            "process.roles={roles}\nnode.id={id}\nbroker.rack={}\ncontroller.quorum.voters={}\n\
             listeners=PLAINTEXT://{address}:9092{controller}\nadvertised.listeners=PLAINTEXT://{address}:9092\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}\ndefault.replication.factor=3\n\
             min.insync.replicas={min_insync_replicas}\noffsets.topic.replication.factor=3\n\
             offsets.topic.num.partitions=4\ntransaction.state.log.replication.factor=3\n\
             transaction.state.log.num.partitions=4\nshare.coordinator.state.topic.replication.factor=3\n\
             group.initial.rebalance.delay.ms=0\nlog.retention.ms=-1\nlog.segment.bytes=4194304\n",
            self.rack(),
            self.setup.controllers.join(","),
            self.data.display()
        );
        for (name, value) in self.setup.settings.iter().chain(&self.setup.kafka_settings) {
            text.push_str(&format!("{name}={value}\n"));
        }
        text
    }

    fn rack(&self) -> char {
        char::from(b'a' + (self.setup.id - 1) % 26)
    }

    fn config_path(&self) -> PathBuf {
        self.folder.join(match self.setup.peer {
            Peer::Towpath => "node.yaml",
            Peer::Kafka => "server.properties",
        })
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn output_path(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// Starts the process and returns at once. An empty Kafka folder is formatted first.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("node {} is running already", self.setup.id);
        }
        let inner = match self.setup.peer {
            Peer::Towpath => {
                let mut command = process::command()?;
                command.arg("broker").arg(self.config_path());
                command
            }
            Peer::Kafka => self.kafka()?,
        };
        let (program, rest) = self.setup.prefix.split_first().context("a namespace has a command")?;
        let mut command = Command::new(program);
        command.args(rest).arg(inner.get_program()).args(inner.get_args()).current_dir(&self.folder);
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if self.setup.clock {
            let library = clock_library().context("libfaketime is not installed")?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock_path());
            // Timers run on the monotonic clock, which no administrator moves.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        self.starts += 1;
        let name = format!("node {} (start {})", self.setup.id, self.starts);
        let output = self.output_path();
        self.process = Some(Guarded::spawn(&name, command, &output, &output)?);
        self.should_run = true;
        self.paused = false;
        Ok(())
    }

    fn kafka(&self) -> Result<Command> {
        if !self.data.join("meta.properties").is_file() {
            let mut format =
                peers::java("kafka.tools.StorageTool", &kafka::small_jvm(), &self.folder.join("format.log"))?;
            format.args(["format", "-t", &self.setup.cluster, "-c"]).arg(self.config_path());
            Guarded::run("kafka.tools.StorageTool format", format, READY_TIMEOUT)?;
        }
        let mut java = peers::java("kafka.Kafka", &self.setup.kafka_jvm, &self.log_path())?;
        java.arg(self.config_path());
        Ok(java)
    }

    /// Starts it, and waits until it serves clients.
    ///
    /// # Errors
    /// If it ends or is not ready in time; its log is in the error.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready(READY_TIMEOUT)
    }

    /// Waits until it serves clients.
    ///
    /// # Errors
    /// If it ends or is not ready in time; its log is in the error.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while let Err(e) = self.ready() {
            if !self.is_running()? || Instant::now() >= deadline {
                return Err(e.context(format!(
                    "node {} did not become ready within {timeout:?}\n{}",
                    self.setup.id,
                    self.log_tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether it serves clients now: `/ready` of towpath; Kafka's metadata.
    ///
    /// # Errors
    /// If not; why, is in the error.
    pub fn ready(&mut self) -> Result<()> {
        if !self.is_running()? {
            bail!("node {} does not run", self.setup.id);
        }
        let timeout = Duration::from_secs(5);
        match self.setup.peer {
            Peer::Towpath => {
                let answer = http::get(self.http_address(), "/ready", timeout)?;
                if answer.status != 200 {
                    bail!("/ready: {} {}", answer.status, answer.body);
                }
            }
            Peer::Kafka => {
                let id = i32::from(self.setup.id);
                if !metadata::ask(self.kafka_address(), timeout)?.brokers.contains(&id) {
                    bail!("it does not know itself as a broker yet");
                }
            }
        }
        Ok(())
    }

    /// Whether the process runs (a paused one does).
    ///
    /// # Errors
    /// If the kernel cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.as_mut().map_or(Ok(false), Guarded::is_running)
    }

    /// Whether the test wants it to run; it may have ended by itself.
    #[must_use]
    pub fn should_run(&self) -> bool {
        self.should_run
    }

    fn running(&mut self) -> Result<&mut Guarded> {
        let id = self.setup.id;
        self.process.as_mut().with_context(|| format!("node {id} was not started"))
    }

    pub(super) fn signal_kill(&mut self) {
        if let Some(process) = &mut self.process {
            // One that has ended already needs no kill.
            let _gone = process.signal(Signal::KILL);
        }
    }

    /// `kill -9`, also of one that has ended already.
    ///
    /// # Errors
    /// If the kernel cannot say that it ended.
    pub fn kill9(&mut self) -> Result<()> {
        self.should_run = false;
        self.process.take().map_or(Ok(()), |mut process| process.kill9())
    }

    /// SIGTERM, and no waiting.
    ///
    /// # Errors
    /// If it does not run.
    pub fn ask_to_end(&mut self) -> Result<()> {
        self.should_run = false;
        self.running()?.signal(Signal::TERM)
    }

    /// SIGTERM unless it was sent already, and waits for the graceful end.
    ///
    /// # Errors
    /// If it does not end in time; it is left running.
    pub fn terminate(&mut self, timeout: Duration) -> Result<()> {
        if self.should_run {
            self.ask_to_end()?;
        }
        self.running()?.wait(timeout)?;
        self.process = None;
        Ok(())
    }

    /// Graceful end and start, ready again.
    ///
    /// # Errors
    /// If either takes too long.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate(END_TIMEOUT)?;
        self.start()
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&mut self) -> Result<()> {
        self.paused = false;
        self.running()?.signal(Signal::CONT)
    }

    /// Whether it was paused and not resumed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Removes all its data, as a new disk would.
    ///
    /// # Errors
    /// If it runs, or something cannot be removed.
    pub fn wipe(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("node {} is running", self.setup.id);
        }
        disk::wipe(&self.data)
    }

    /// The file system of its data, if it has one of its own.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    fn clock_path(&self) -> PathBuf {
        self.folder.join("clock")
    }

    /// Moves its clock by so many seconds, if the cluster was started with [`super::Options::clock`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        // A file that is half written would be half a time.
        let new = self.folder.join("clock.new");
        std::fs::write(&new, format!("{seconds:+}\n")).context("cannot write the clock")?;
        std::fs::rename(&new, self.clock_path()).context("cannot write the clock")
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.setup.id
    }

    /// Where its clients connect.
    #[must_use]
    pub fn kafka_address(&self) -> SocketAddr {
        (self.setup.address, 9092).into()
    }

    /// Its HTTP address (towpath only).
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        (self.setup.address, 8083).into()
    }

    /// The folder of its partitions.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Guarded> {
        self.process.as_ref()
    }

    /// The end of what it said, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let id = self.setup.id;
        let mut text = format!("--- node {id} says, at the end:\n{}", child::tail(&self.output_path(), 20));
        if self.log_path().is_file() {
            text.push_str(&format!("--- and in its log:\n{}", child::tail(&self.log_path(), 20)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempDir;

    fn node(folder: &TempDir, peer: Peer, id: u8, is_controller: bool) -> Node {
        let controllers = [1, 2, 3].map(|id| format!("{id}@10.77.0.{id}:9093")).to_vec();
        let setup = Setup {
            peer,
            id,
            address: Ipv4Addr::new(10, 77, 0, id),
            is_controller,
            controllers,
            min_insync_replicas: 2,
            cluster: "x".to_owned(),
            prefix: Vec::new(),
            clock: false,
            settings: Vec::new(),
            kafka_settings: vec![("a".to_owned(), "b".to_owned())],
            kafka_jvm: small_server_jvm(),
        };
        Node::new(setup, &folder.join(format!("n{id}")), None).unwrap()
    }

    #[test]
    fn writes_the_configuration_of_towpath() {
        let folder = TempDir::new("node").unwrap();
        let second = node(&folder, Peer::Towpath, 2, true);
        let text = std::fs::read_to_string(second.config_path()).unwrap();
        let expected = format!(
            "node:\n  id: 2\n  roles: [broker, controller]\n  data_dir: {}\n  kafka: 10.77.0.2:9092\n  \
             controller: 10.77.0.2:9093\n  http: 10.77.0.2:8083\n  rack: b\ncluster:\n  name: test\n  \
             controllers: [\"1@10.77.0.1:9093\", \"2@10.77.0.2:9093\", \"3@10.77.0.3:9093\"]\n  defaults:\n    \
             replication_factor: 3\n    min_insync_replicas: 2\n",
            folder.join("n2/data").display()
        );
        assert_eq!(text, expected);
        let fourth = node(&folder, Peer::Towpath, 4, false);
        let text = std::fs::read_to_string(fourth.config_path()).unwrap();
        assert!(text.contains("roles: [broker]\n") && !text.contains("  controller: "), "{text}");
    }

    #[test]
    fn writes_the_configuration_of_kafka() {
        let folder = TempDir::new("node").unwrap();
        let first = node(&folder, Peer::Kafka, 1, true);
        let text = std::fs::read_to_string(first.config_path()).unwrap();
        assert!(
            text.contains("\nlisteners=PLAINTEXT://10.77.0.1:9092,CONTROLLER://10.77.0.1:9093\n"),
            "{text}"
        );
        assert!(text.ends_with("a=b\n"), "{text}");
    }
}
