//! A real Redis server of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::Guarded;
use crate::ports::free_port;
use crate::temp::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server on a free port of 127.0.0.1, whose writes are on disk before they are answered.
#[derive(Debug)]
pub struct Redis {
    server: Option<Guarded>,
    port: u16,
    password: Option<String>,
    folder: TempDir,
}

impl Redis {
    /// Starts one that lets everybody in.
    ///
    /// # Errors
    /// If Redis is not installed or does not start; its log is in the error.
    pub fn start() -> Result<Self> {
        Self::launch(None)
    }

    /// Starts one with a password.
    ///
    /// # Errors
    /// If Redis is not installed or does not start; its log is in the error.
    pub fn with_password(password: &str) -> Result<Self> {
        Self::launch(Some(password.to_owned()))
    }

    fn launch(password: Option<String>) -> Result<Self> {
        let folder = TempDir::new("redis")?;
        let mut redis = Self { server: None, port: free_port()?, password, folder };
        redis.start_again()?;
        Ok(redis)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Starts it again, with what is on its disk.
    ///
    /// # Errors
    /// If it runs already or does not start; its log is in the error.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("redis is running already");
        }
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder.path())
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]);
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let log = self.log();
        let server = Guarded::spawn("redis", command, &log, &log);
        let mut server = server.context("is redis-server installed? see tests/harness/install")?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if self.cli(&["PING"]).is_ok_and(|answer| answer == "PONG") {
                self.server = Some(server);
                return Ok(());
            }
            if !server.is_running()? || Instant::now() >= deadline {
                bail!("redis does not start\n{}", server.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill9(&mut self) -> Result<()> {
        let mut server = self.server.take().context("redis is not running")?;
        server.kill9()
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs one command by redis-cli; gives what it prints, without the last line break.
    ///
    /// # Errors
    /// If the server refuses; what it said is in the error.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(password) = &self.password {
            command.args(["-a", password, "--no-auth-warning"]);
        }
        command.args(words);
        let text = Guarded::run("redis-cli", command, COMMAND_TIMEOUT)?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }
}
