//! A real PostgreSQL server of its own.
//!
//! When the tests run as root, `initdb` and `postgres` run as the user `postgres`, since they refuse root.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::child::Guarded;
use crate::ports::free_port;
use crate::temp::TempDir;

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `minimal`, `replica` or `logical`.
    pub wal_level: String,
    /// Whether commits are on disk before they are acknowledged, as by default.
    pub fsync: bool,
    /// More lines of `postgresql.conf`, later ones win.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { wal_level: "logical".to_owned(), fsync: true, settings: Vec::new() }
    }
}

impl Options {
    /// `wal_level = logical`, honest fsync: what a source needs.
    #[must_use]
    pub fn logical() -> Self {
        Self::default()
    }

    /// `wal_level = replica`, PostgreSQL's own default: a source must refuse it.
    #[must_use]
    pub fn replica() -> Self {
        Self { wal_level: "replica".to_owned(), ..Self::default() }
    }

    /// Adds a line of `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Acknowledges before the disk has it. Only for tests that never ask what a crash leaves.
    #[must_use]
    pub fn without_fsync(mut self) -> Self {
        self.fsync = false;
        self
    }
}

/// A running server with the superuser `postgres`, trusted on a free port of 127.0.0.1 and on a socket.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    server: Option<Guarded>,
    port: u16,
    folder: TempDir,
}

const START_TIMEOUT: Duration = Duration::from_secs(60);

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start; its log is in the error.
    pub fn start(options: &Options) -> Result<Self> {
        let binaries = find_binaries()?;
        let folder = TempDir::new("postgres")?;
        if let Some((uid, gid)) = server_user()? {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))
                .context("cannot give the folder away")?;
        }
        let data = folder.join("data");
        let mut initdb = as_server_user(&binaries.join("initdb"))?;
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D"]);
        initdb.arg(&data).current_dir(folder.path());
        Guarded::run("initdb", initdb, START_TIMEOUT)?;
        let port = free_port()?;
        let text = configuration(options, port, folder.path());
        std::fs::write(data.join("postgresql.auto.conf"), text).context("cannot write the settings")?;
        let mut postgres = Self { binaries, server: None, port, folder };
        postgres.launch()?;
        Ok(postgres)
    }

    fn launch(&mut self) -> Result<()> {
        let log = self.folder.join("log");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let seen = std::fs::metadata(&log).map_or(0, |m| m.len());
            let mut command = as_server_user(&self.binaries.join("postgres"))?;
            command.arg("-D").arg(self.folder.join("data")).current_dir(self.folder.path());
            let mut server = Guarded::spawn("postgres", command, &log, &log)?;
            match self.wait_ready(&mut server, deadline) {
                Ok(()) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(e) => {
                    let new = std::fs::read(&log).unwrap_or_default();
                    let new = String::from_utf8_lossy(new.get(usize::try_from(seen)?..).unwrap_or_default());
                    // After a kill -9, the children of the old server need a moment to notice.
                    let lingering = new.contains("pre-existing shared memory block")
                        || (new.contains("lock file") && new.contains("already exists"));
                    if !lingering || Instant::now() >= deadline {
                        return Err(e);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn wait_ready(&self, server: &mut Guarded, deadline: Instant) -> Result<()> {
        loop {
            let mut command = Command::new(self.binaries.join("pg_isready"));
            command.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if command.status().context("cannot run pg_isready")?.success() {
                return Ok(());
            }
            if !server.is_running()? {
                bail!("postgres ended while starting\n{}", server.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("postgres was not ready within {START_TIMEOUT:?}\n{}", server.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds its socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The server's process id, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Guarded::pid)
    }

    /// `postgres://postgres@127.0.0.1:PORT/DB`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of another role (all are trusted; a password may stand after a colon).
    #[must_use]
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// One of PostgreSQL's programs, with host, port and superuser in its environment.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Runs SQL in one session by `psql`, stopping at the first error; gives unaligned rows, fields between `|`.
    ///
    /// # Errors
    /// If a statement fails; what psql said is in the error.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.program("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        Guarded::run("psql", command, Duration::from_secs(300))
            .map(|text| text.trim_end_matches('\n').to_owned())
    }

    /// Runs a file of SQL by `psql`.
    ///
    /// # Errors
    /// If a statement fails; what psql said is in the error.
    pub fn psql_file(&self, database: &str, file: &Path) -> Result<String> {
        let mut command = self.program("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(file);
        Guarded::run("psql", command, Duration::from_secs(300))
    }

    /// Makes an empty database; the name may hold anything.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""))).map(drop)
    }

    /// Stops it as an operator would (fast shutdown).
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::INT)?;
            server.wait(START_TIMEOUT)?;
        }
        Ok(())
    }

    /// Starts it again after [`Postgres::stop`] or [`Postgres::kill9`], on the same port.
    ///
    /// # Errors
    /// If it does not start; its log is in the error.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("postgres is running already");
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

    /// `kill -9` of the postmaster; its children end by themselves as in a real crash.
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill9(&mut self) -> Result<()> {
        let mut server = self.server.take().context("postgres is not running")?;
        server.kill9()
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        crate::child::tail(&self.folder.join("log"), 60)
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.folder.join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// `pgbench -i`: the four TPC-B tables at a scale.
    ///
    /// # Errors
    /// If pgbench fails.
    pub fn pgbench_init(&self, database: &str, scale: u32) -> Result<()> {
        let mut command = self.program("pgbench");
        command.args(["-i", "-q", "-s", &scale.to_string(), database]);
        Guarded::run("pgbench -i", command, Duration::from_secs(600)).map(drop)
    }

    /// Starts `pgbench` (TPC-B unless `extra` says otherwise) in the background for some seconds.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn pgbench(&self, database: &str, clients: u32, seconds: u32, extra: &[&str]) -> Result<Pgbench> {
        let folder = TempDir::new("pgbench")?;
        let log = folder.join("log");
        let mut command = self.program("pgbench");
        command.args(["-n", "-c", &clients.to_string(), "-j", "1", "-T", &seconds.to_string()]);
        command.args(extra).arg(database);
        let child = Guarded::spawn("pgbench", command, &log, &log)?;
        Ok(Pgbench { child, _folder: folder })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Immediate shutdown ends the children too, which are in sessions of their own.
            if server.signal(Signal::QUIT).is_ok() {
                let _ended = server.wait(Duration::from_secs(5));
            }
        }
    }
}

/// A pgbench that runs in the background.
#[derive(Debug)]
pub struct Pgbench {
    child: Guarded,
    _folder: TempDir,
}

/// What pgbench did.
#[derive(Clone, Debug)]
pub struct PgbenchResult {
    /// Whether every client ran to its end (not so when the server was restarted meanwhile).
    pub whole: bool,
    /// Transactions that were committed, as far as pgbench knows.
    pub transactions: u64,
    /// All it said.
    pub text: String,
}

impl Pgbench {
    /// Whether it is still running.
    ///
    /// # Errors
    /// If the kernel cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        self.child.is_running()
    }

    /// Waits for its end. Clients that were thrown out by a restart of the server are no error: see `whole`.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait(mut self, timeout: Duration) -> Result<PgbenchResult> {
        let status = self.child.wait(timeout)?;
        let text = self.child.stdout();
        let transactions = text
            .lines()
            .find_map(|line| line.strip_prefix("number of transactions actually processed: "))
            .and_then(|rest| rest.split(['/', ' ']).next())
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0);
        Ok(PgbenchResult { whole: status.success(), transactions, text })
    }
}

fn configuration(options: &Options, port: u16, socket: &Path) -> String {
    let mut lines = vec![
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
        format!("unix_socket_directories = '{}'", socket.display()),
        format!("wal_level = '{}'", options.wal_level),
        format!("fsync = {}", if options.fsync { "on" } else { "off" }),
        "max_connections = 120".to_owned(),
        "shared_buffers = '128MB'".to_owned(),
        "max_wal_size = '4GB'".to_owned(),
        "timezone = 'UTC'".to_owned(),
        "log_timezone = 'UTC'".to_owned(),
        "logging_collector = off".to_owned(),
    ];
    if options.wal_level == "minimal" {
        lines.push("max_wal_senders = 0".to_owned());
    } else {
        lines.push("max_wal_senders = 20".to_owned());
        lines.push("max_replication_slots = 20".to_owned());
    }
    for (name, value) in &options.settings {
        lines.push(format!("{name} = '{}'", value.replace('\'', "''")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The newest `/usr/lib/postgresql/*/bin`, or the folder of the `postgres` in PATH.
fn find_binaries() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        for version in versions.flatten() {
            let bin = version.path().join("bin");
            if let (Ok(number), true) =
                (version.file_name().to_string_lossy().parse(), bin.join("postgres").is_file())
            {
                found.push((number, bin));
            }
        }
    }
    if let Some((_, bin)) = found.into_iter().max() {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        .context("PostgreSQL is not installed: run tests/harness/install")
}

/// The user that the server runs as when we are root.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("cannot read the list of users")?;
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let ["postgres", _, uid, gid, ..] = fields.as_slice() {
            return Ok(Some((uid.parse()?, gid.parse()?)));
        }
    }
    bail!("there is no user postgres (the server refuses root): run tests/harness/install")
}

fn as_server_user(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = server_user()? {
        command.uid(uid).gid(gid).env("HOME", "/");
    }
    Ok(command)
}
