//! The `towpath` binary as a process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{Guarded, Output};
use crate::http;
use crate::paths;
use crate::ports::free_port;
use crate::stats::{self, Usage};
use crate::temp::TempDir;

const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// The binary of the profile that the running test was built with.
///
/// # Errors
/// If it has not been built.
pub fn binary() -> Result<PathBuf> {
    let profile = paths::profile_dir()?;
    let path = profile.join("towpath");
    if !path.is_file() {
        let flag = if profile.ends_with("release") { "--release " } else { "" };
        bail!("there is no {}: run `cargo build {flag}-p towpath-node` first", path.display());
    }
    Ok(path)
}

/// A command of the binary, whose cache is the tests' own.
///
/// # Errors
/// If it has not been built.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.env("XDG_CACHE_HOME", paths::cache()?);
    Ok(command)
}

/// Runs a `towpath` command to its end, whatever its exit code.
///
/// # Errors
/// If the binary is missing or does not end in time.
pub fn run(arguments: &[&str], timeout: Duration) -> Result<Output> {
    let mut command = command()?;
    command.args(arguments);
    Guarded::output(&format!("towpath {}", arguments.join(" ")), command, timeout)
}

/// How a `towpath up` is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// YAML after the `node:` section (`pipelines:`, `cluster:` …); empty for just a broker.
    pub yaml: String,
    /// More lines within `node:`, indented by two spaces already.
    pub node_yaml: String,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Arguments after the file, such as `--until-idle`.
    pub arguments: Vec<String>,
    /// Whether an embedded broker is expected (no `cluster: bootstrap_servers`).
    pub no_broker: bool,
    /// Words before the binary, such as `taskset -c 0`.
    pub prefix: Vec<String>,
    /// What is run of the files.
    pub runs: Runs,
}

/// Which of the commands that run until they are told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runs {
    /// `towpath up`.
    #[default]
    All,
    /// `towpath broker`: the node without pipelines.
    Broker,
    /// `towpath mirror`.
    Mirrors,
}

impl Options {
    /// Just a broker.
    #[must_use]
    pub fn broker() -> Self {
        Self::default()
    }

    /// Pipelines on the embedded broker.
    #[must_use]
    pub fn yaml(yaml: impl Into<String>) -> Self {
        Self { yaml: yaml.into(), ..Self::default() }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The YAML names someone else's brokers: none is started here.
    #[must_use]
    pub fn without_broker(mut self) -> Self {
        self.no_broker = true;
        self
    }
}

/// A running `towpath up`, with its own data folder, Kafka port and HTTP port, which it keeps over restarts.
#[derive(Debug)]
pub struct Towpath {
    options: Options,
    child: Option<Guarded>,
    kafka: SocketAddr,
    http: SocketAddr,
    folder: TempDir,
    starts: u32,
}

impl Towpath {
    /// Writes the configuration and starts it; ready when `/ready` says so.
    ///
    /// # Errors
    /// If the binary is missing, or it ends or is not ready in time; what it said is in the error.
    pub fn start(options: Options) -> Result<Self> {
        let mut towpath = Self::prepare(options)?;
        towpath.start_again()?;
        Ok(towpath)
    }

    /// Just a broker.
    ///
    /// # Errors
    /// As [`Towpath::start`].
    pub fn broker() -> Result<Self> {
        Self::start(Options::broker())
    }

    /// Writes the configuration without starting anything.
    ///
    /// # Errors
    /// If there is no port or folder to be had.
    pub fn prepare(options: Options) -> Result<Self> {
        let folder = TempDir::new("node")?;
        let kafka: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let http: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let towpath = Self { options, child: None, kafka, http, folder, starts: 0 };
        towpath.write_config()?;
        Ok(towpath)
    }

    fn write_config(&self) -> Result<()> {
        let mut text =
            format!("node:\n  data_dir: {}\n  http: {}\n", self.folder.join("data").display(), self.http);
        if !self.options.no_broker {
            text.push_str(&format!("  kafka: {}\n", self.kafka));
        }
        text.push_str(&self.options.node_yaml);
        text.push_str(&self.options.yaml);
        text.push('\n');
        std::fs::write(self.config_path(), text).context("cannot write the configuration")
    }

    /// Replaces the YAML after `node:`, for the next start.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_yaml(&mut self, yaml: impl Into<String>) -> Result<()> {
        self.options.yaml = yaml.into();
        self.write_config()
    }

    /// Replaces the arguments after the file, for the next start.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.options.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    }

    /// The command that starts it.
    ///
    /// # Errors
    /// If the binary is missing.
    fn command(&self) -> Result<Command> {
        let binary = binary()?;
        let mut command = match self.options.prefix.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&binary);
                command
            }
            None => Command::new(&binary),
        };
        command
            .arg(match self.options.runs {
                Runs::All => "up",
                Runs::Broker => "broker",
                Runs::Mirrors => "mirror",
            })
            .arg(self.config_path())
            .args(&self.options.arguments);
        command.env("XDG_CACHE_HOME", paths::cache()?);
        command.envs(self.options.env.iter().map(|(n, v)| (n, v))).current_dir(self.folder.path());
        Ok(command)
    }

    /// Starts the process and returns at once.
    ///
    /// # Errors
    /// If it is running already or cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("towpath is running already");
        }
        self.starts += 1;
        let name = format!("towpath (start {})", self.starts);
        let (out, err) = (self.stdout_path(), self.stderr_path());
        self.child = Some(Guarded::spawn(&name, self.command()?, &out, &err)?);
        Ok(())
    }

    /// Starts it (again) with the same configuration, and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time; what it said is in the error.
    pub fn start_again(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready(READY_TIMEOUT)
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Errors
    /// If the process ends or is not ready in time; what it said is in the error.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let last = match http::get(self.http, "/ready", Duration::from_secs(5)) {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => format!("{}: {}", response.status, response.body),
                Err(e) => format!("{e:#}"),
            };
            let ended = !self.is_running()?;
            if ended || Instant::now() >= deadline {
                let what = if ended { "ended" } else { "was not ready in time" };
                bail!("towpath {what}; /ready: {last}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn running(&mut self) -> Result<&mut Guarded> {
        self.child.as_mut().context("towpath was not started")
    }

    /// Whether the process runs.
    ///
    /// # Errors
    /// If the kernel cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        self.child.as_mut().map_or(Ok(false), Guarded::is_running)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it was not started.
    pub fn kill9(&mut self) -> Result<()> {
        self.running()?.kill9()
    }

    /// SIGTERM, and waits for the graceful end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.running()?.terminate(timeout)
    }

    /// Waits for it to end by itself (`--until-idle`).
    ///
    /// # Errors
    /// If it does not in time; what it said is in the error.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.running()?.wait(timeout)
    }

    /// The embedded broker's `127.0.0.1:PORT`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.kafka.to_string()
    }

    /// The embedded broker's address.
    #[must_use]
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka
    }

    /// The HTTP address.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// GET on its HTTP port.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn get(&self, path: &str) -> Result<http::Response> {
        http::get(self.http, path, Duration::from_secs(10))
    }

    /// `/status`, parsed.
    ///
    /// # Errors
    /// If it does not answer with JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let body = self.get("/status")?.body;
        serde_json::from_str(&body).with_context(|| format!("/status is no JSON: {body}"))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Guarded::pid)
    }

    /// Memory and CPU of the process.
    ///
    /// # Errors
    /// If it is not running.
    pub fn usage(&self) -> Result<Usage> {
        stats::usage(self.pid().context("towpath was not started")?)
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("towpath.yaml")
    }

    /// `node.data_dir`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder that the process runs in, for files of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn stdout_path(&self) -> PathBuf {
        self.folder.join("stdout")
    }

    fn stderr_path(&self) -> PathBuf {
        self.folder.join("stderr")
    }

    /// Its standard output, of all starts.
    #[must_use]
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.stdout_path()).unwrap_or_default()
    }

    /// Its standard error, of all starts.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.stderr_path()).unwrap_or_default()
    }

    /// The end of what it said, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        format!(
            "--- towpath says, at the end:\n{}--- and on standard error:\n{}",
            crate::child::tail(&self.stdout_path(), 40),
            crate::child::tail(&self.stderr_path(), 40)
        )
    }
}
