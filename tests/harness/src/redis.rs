//! A real Redis server of its own.

use std::path::{Path, PathBuf};
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
    /// The port on which it speaks TLS.
    tls: Option<u16>,
    folder: TempDir,
}

/// Makes an authority (`ca.pem`) and a certificate of it for 127.0.0.1 and nothing else (`server.pem`, `server.key`).
fn certify(folder: &Path) -> Result<()> {
    let extensions =
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n";
    std::fs::write(folder.join("extensions"), extensions)?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
    let made = [
        [&words("req -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem")[..], &key].concat(),
        [&words("req -new -subj /CN=server -keyout server.key -out server.csr")[..], &key].concat(),
        words(
            "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions -out server.pem",
        ),
    ];
    for arguments in made {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(folder);
        Guarded::run("openssl", command, COMMAND_TIMEOUT)?;
    }
    Ok(())
}

impl Redis {
    /// Starts one that lets everybody in.
    ///
    /// # Errors
    /// If Redis is not installed or does not start; its log is in the error.
    pub fn start() -> Result<Self> {
        Self::launch(None, false)
    }

    /// Starts one with a password.
    ///
    /// # Errors
    /// If Redis is not installed or does not start; its log is in the error.
    pub fn with_password(password: &str) -> Result<Self> {
        Self::launch(Some(password.to_owned()), false)
    }

    /// Starts one with a password that speaks TLS too, on another port, with a certificate for 127.0.0.1 alone.
    ///
    /// # Errors
    /// If Redis or openssl is not installed, or Redis does not start; its log is in the error.
    pub fn with_tls(password: &str) -> Result<Self> {
        Self::launch(Some(password.to_owned()), true)
    }

    fn launch(password: Option<String>, with_tls: bool) -> Result<Self> {
        let folder = TempDir::new("redis")?;
        if with_tls {
            certify(folder.path()).context("is openssl installed?")?;
        }
        let tls = with_tls.then(free_port).transpose()?;
        let mut redis = Self { server: None, port: free_port()?, password, tls, folder };
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
        if let Some(port) = self.tls {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            let files = [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")];
            for (name, file) in files {
                command.arg(format!("--tls-{name}-file")).arg(self.folder.join(file));
            }
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

    /// The port on 127.0.0.1 on which it speaks TLS; 0 if it does not.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls.unwrap_or_default()
    }

    /// The file with the authority that has signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
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
