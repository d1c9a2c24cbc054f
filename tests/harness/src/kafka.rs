//! A real Apache Kafka of one node (KRaft), and its command-line tools.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{Guarded, Output};
use crate::peers;
use crate::ports::free_port;
use crate::temp::TempDir;

/// How the broker is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The heap, in MiB.
    pub heap_mib: u32,
    /// How many data folders there are (`log.dirs`).
    pub log_dirs: u8,
    /// More lines of `server.properties`, later ones win.
    pub settings: Vec<(String, String)>,
    /// More arguments of the JVM.
    pub jvm: Vec<String>,
    /// Words before `java`, such as `taskset -c 0`.
    pub prefix: Vec<String>,
    /// How long a start, or a clean end, may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heap_mib: 512,
            log_dirs: 1,
            settings: Vec::new(),
            jvm: Vec::new(),
            prefix: Vec::new(),
            timeout: START_TIMEOUT,
        }
    }
}

impl Options {
    /// Adds a line of `server.properties`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the heap.
    #[must_use]
    pub fn heap_mib(mut self, mib: u32) -> Self {
        self.heap_mib = mib;
        self
    }
}

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    options: Options,
    server: Option<Guarded>,
    port: u16,
    folder: TempDir,
}

const START_TIMEOUT: Duration = Duration::from_secs(180);

impl Kafka {
    /// Formats a data folder and starts a broker.
    ///
    /// # Errors
    /// If the jars cannot be resolved or the broker does not start; its log is in the error.
    pub fn start(options: &Options) -> Result<Self> {
        let folder = TempDir::new("kafka")?;
        let (port, controller) = (free_port()?, free_port()?);
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            log_dirs(&folder, options.log_dirs)
        );
        for (name, value) in &options.settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        let properties = folder.join("server.properties");
        std::fs::write(&properties, text).context("cannot write server.properties")?;
        let mut format = peers::java("kafka.tools.StorageTool", &small_jvm(), &folder.join("format.log"))?;
        format.args(["format", "-t", &random_uuid(), "-c"]).arg(&properties);
        Guarded::run("kafka.tools.StorageTool format", format, START_TIMEOUT)?;
        let mut kafka = Self { options: options.clone(), server: None, port, folder };
        kafka.launch()?;
        Ok(kafka)
    }

    fn launch(&mut self) -> Result<()> {
        let mut jvm = vec![
            format!("-Xmx{}m", self.options.heap_mib),
            format!("-Xms{}m", self.options.heap_mib),
            "-XX:+UseG1GC".to_owned(),
        ];
        jvm.extend(self.options.jvm.iter().cloned());
        let mut java = peers::java("kafka.Kafka", &jvm, &self.log_path())?;
        java.arg(self.folder.join("server.properties"));
        let command = with_prefix(&self.options.prefix, java);
        let out = self.folder.join("out.log");
        let mut server = Guarded::spawn("Apache Kafka", command, &out, &out)?;
        let deadline = Instant::now() + self.options.timeout;
        loop {
            let not_yet = match brokers(self.address(), Duration::from_secs(5)) {
                Ok(n) if n > 0 => break,
                Ok(_) => "its metadata names no broker yet".to_owned(),
                Err(e) => format!("{e:#}"),
            };
            let ended = !server.is_running()?;
            if ended || Instant::now() >= deadline {
                let what = if ended { "ended while starting" } else { "was not ready in time" };
                bail!("Apache Kafka {what}: {not_yet}\n{}{}", server.log_tail(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("kafka.log")
    }

    /// The listener's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The listener's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    /// The folder of all that belongs to this broker.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The (first) folder of the partitions.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The process id, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Guarded::pid)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill9(&mut self) -> Result<()> {
        self.server.take().context("Apache Kafka is not running")?.kill9()
    }

    /// SIGTERM, and waits for the clean end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.terminate(self.options.timeout).map(drop),
            None => Ok(()),
        }
    }

    /// Starts it again after [`Kafka::kill9`] or [`Kafka::stop`], on the same port.
    ///
    /// # Errors
    /// If it does not start; its log is in the error.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("Apache Kafka is running already");
        }
        self.launch()
    }

    /// Stop and start.
    ///
    /// # Errors
    /// As those two.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        crate::child::tail(&self.log_path(), 60)
    }
}

/// Runs one of Kafka's tools by its main class, such as `org.apache.kafka.tools.TopicCommand`.
///
/// # Errors
/// If the jars cannot be resolved or it does not end in time; how it ended is in the output.
pub fn tool(main_class: &str, arguments: &[&str], timeout: Duration) -> Result<Output> {
    let folder = TempDir::new("tool")?;
    let mut command = peers::java(main_class, &small_jvm(), &folder.join("tool.log"))?;
    command.args(arguments).current_dir(folder.path());
    Guarded::output(main_class, command, timeout)
}

pub(crate) fn small_jvm() -> Vec<String> {
    ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"].map(str::to_owned).to_vec()
}

/// `FOLDER/data`, and `FOLDER/data-2` and so on where there are more.
fn log_dirs(folder: &TempDir, count: u8) -> String {
    let name = |i: u8| if i == 1 { "data".to_owned() } else { format!("data-{i}") };
    (1..=count.max(1)).map(|i| folder.join(name(i)).display().to_string()).collect::<Vec<_>>().join(",")
}

fn with_prefix(prefix: &[String], command: std::process::Command) -> std::process::Command {
    let Some((program, rest)) = prefix.split_first() else { return command };
    let mut whole = std::process::Command::new(program);
    whole.args(rest).arg(command.get_program()).args(command.get_args());
    whole
}

/// 16 random bytes as Kafka writes an id: base64 for URLs, without padding.
pub(crate) fn random_uuid() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 22 characters hold 132 bits; the last one carries only 2 of the 128. No leading dash: tools take it for an option.
    let mut bits: u128 = rand::random::<u128>() & (u128::MAX >> 1);
    let mut text = Vec::with_capacity(22);
    text.push(((bits & 3) << 4) as usize);
    bits >>= 2;
    for _ in 0..21 {
        text.push((bits & 63) as usize);
        bits >>= 6;
    }
    text.iter().rev().filter_map(|i| ALPHABET.get(*i)).map(|c| char::from(*c)).collect()
}

/// Asks a broker for its metadata (version 1, in bytes written by hand) and counts the brokers it names.
///
/// # Errors
/// If it does not answer, or answers something else.
pub fn brokers(address: SocketAddr, timeout: Duration) -> Result<u32> {
    let mut stream =
        TcpStream::connect_timeout(&address, timeout).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // length, api key 3, version 1, correlation 7, client id null, topics: none (an empty array in version 1)
    let request: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];
    stream.write_all(&request)?;
    let mut head = [0u8; 12];
    stream.read_exact(&mut head).with_context(|| format!("metadata from {address}"))?;
    let [_, _, _, _, c0, c1, c2, c3, n0, n1, n2, n3] = head;
    if u32::from_be_bytes([c0, c1, c2, c3]) != 7 {
        bail!("{address} answered something that is not Kafka's protocol");
    }
    Ok(u32::from_be_bytes([n0, n1, n2, n3]))
}

/// Waits until the broker's metadata names a broker.
///
/// # Errors
/// If it does not in time.
pub fn wait_ready(address: SocketAddr, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        match brokers(address, Duration::from_secs(5)) {
            Ok(n) if n > 0 => return Ok(()),
            Ok(_) if Instant::now() < deadline => {}
            Ok(_) => bail!("{address} named no broker within {timeout:?}"),
            Err(_) if Instant::now() < deadline => {}
            Err(e) => return Err(e.context(format!("{address} was not ready within {timeout:?}"))),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_kafkas() {
        for _ in 0..200 {
            let id = random_uuid();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'), "{id}");
            assert!(
                ["A", "Q", "g", "w"].iter().any(|end| id.ends_with(end)),
                "{id} has stray bits at its end"
            );
        }
    }
}
