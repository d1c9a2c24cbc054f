//! A child process in its own process group, with its output in files, killed with all its children on drop.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::temp::TempDir;
use crate::watchdog;

/// A running child and its process group.
#[derive(Debug)]
pub struct Guarded {
    name: String,
    child: Child,
    pid: u32,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a program that ran to its end has said.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Guarded {
    /// Starts `command` in its own process group; both outputs are appended to the given files (they may be one).
    ///
    /// # Errors
    /// If the program cannot be started or watched.
    pub fn spawn(name: &str, command: Command, stdout: &Path, stderr: &Path) -> Result<Self> {
        Self::spawn_with_input(name, command, Stdio::null(), stdout, stderr)
    }

    /// As [`Guarded::spawn`], with something to read from.
    ///
    /// # Errors
    /// If the program cannot be started or watched.
    pub fn spawn_with_input(
        name: &str,
        mut command: Command,
        stdin: Stdio,
        stdout: &Path,
        stderr: &Path,
    ) -> Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot open {}", path.display()))
        };
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(stdin)
            .stdout(open(stdout)?)
            .stderr(open(stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({program})"))?;
        let pid = child.id();
        let guarded = Self {
            name: name.to_owned(),
            child,
            pid,
            status: None,
            stdout: stdout.to_path_buf(),
            stderr: stderr.to_path_buf(),
        };
        watchdog::watch_group(pid)?;
        Ok(guarded)
    }

    /// The process id, which is the process group's too.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The child's input, if it was started with a pipe.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// If the kernel cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.poll()?.is_none())
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
            if self.status.is_some() {
                self.end_group();
            }
        }
        Ok(self.status)
    }

    /// What is left of the group dies with its leader.
    fn end_group(&self) {
        if let Some(pid) = self.raw_pid() {
            // An empty group is the usual case and no error.
            let _already_gone = kill_process_group(pid, Signal::KILL);
        }
        watchdog::forget_group(self.pid);
    }

    fn raw_pid(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }

    /// Sends a signal to the process itself (not to its children).
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.poll()?.is_some() {
            bail!("{} has ended already", self.name);
        }
        let pid = self.raw_pid().context("a process id that is none")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// `kill -9` for the whole group, and waits for the end.
    ///
    /// # Errors
    /// If the kernel cannot say that it ended.
    pub fn kill9(&mut self) -> Result<()> {
        if self.poll()?.is_some() {
            return Ok(());
        }
        if let Some(pid) = self.raw_pid() {
            let _already_gone = kill_process_group(pid, Signal::KILL);
        }
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        self.status = Some(status);
        self.end_group();
        Ok(())
    }

    /// SIGTERM, then waits.
    ///
    /// # Errors
    /// If it has not ended in time (it is left running).
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.poll()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// If it has not ended in time (it is left running).
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} has not ended within {timeout:?}\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// All of its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// All of its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// The last lines of both outputs, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let mut text = format!("--- {} says, at the end:\n{}", self.name, tail(&self.stdout, 40));
        if self.stderr != self.stdout {
            text.push_str("--- and on standard error:\n");
            text.push_str(&tail(&self.stderr, 40));
        }
        text
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// If it cannot be started or does not end in time (it is killed then).
    pub fn output(name: &str, command: Command, timeout: Duration) -> Result<Output> {
        let folder = TempDir::new("run")?;
        let (out, err) = (folder.join("out"), folder.join("err"));
        let mut child = Self::spawn(name, command, &out, &err)?;
        let status = child.wait(timeout)?;
        Ok(Output { status, stdout: read_lossy(&out), stderr: read_lossy(&err) })
    }

    /// Runs a program that has to succeed, and gives its standard output.
    ///
    /// # Errors
    /// As [`Guarded::output`], and if it ends with another code than 0.
    pub fn run(name: &str, command: Command, timeout: Duration) -> Result<String> {
        let output = Self::output(name, command, timeout)?;
        if !output.status.success() {
            bail!("{name} ended with {}\n{}{}", output.status, output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Nothing to tell the test: it is over.
        let _ended = self.kill9();
    }
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The last lines of a file, or a word on why there are none.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => return format!("({}: {e})\n", path.display()),
    };
    let all: Vec<&str> = text.lines().collect();
    let mut end = all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n");
    end.push('\n');
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: u32) -> bool {
        // A zombie that nobody has waited for yet is dead all the same.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
    }

    fn gone_within(pid: u32, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while alive(pid) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn pid_from(path: &Path) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(pid) = std::fs::read_to_string(path).unwrap_or_default().trim().parse() {
                return pid;
            }
            assert!(Instant::now() < deadline, "no process id in {}", path.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn drop_kills_grandchildren_too() {
        let folder = TempDir::new("child").unwrap();
        let (log, pid_file) = (folder.join("log"), folder.join("pid"));
        let script = format!("sleep 300 & echo $! > {}; wait", pid_file.display());
        let child = Guarded::spawn("shell", shell(&script), &log, &log).unwrap();
        let grandchild = pid_from(&pid_file);
        assert!(alive(grandchild));
        drop(child);
        assert!(gone_within(grandchild, Duration::from_secs(5)));
    }

    #[test]
    fn a_killed_test_process_leaves_nothing() {
        // This test runs itself as another process, which starts a sleeper and is then killed.
        if let Some(folder) = std::env::var_os("TOWPATH_HARNESS_VICTIM") {
            let folder = PathBuf::from(folder);
            let temp = TempDir::new("victim").unwrap();
            let log = temp.join("log");
            let child = Guarded::spawn("sleeper", shell("sleep 300 & wait"), &log, &log).unwrap();
            std::fs::write(folder.join("temp"), temp.path().to_str().unwrap()).unwrap();
            std::fs::write(folder.join("pid"), child.pid().to_string()).unwrap();
            std::thread::sleep(Duration::from_secs(300));
        }
        let folder = TempDir::new("child").unwrap();
        let log = folder.join("log");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child::tests::a_killed_test_process_leaves_nothing", "--nocapture"]);
        command.env("TOWPATH_HARNESS_VICTIM", folder.path());
        let mut victim = Guarded::spawn("victim", command, &log, &log).unwrap();
        let sleeper = pid_from(&folder.join("pid"));
        let temp = PathBuf::from(std::fs::read_to_string(folder.join("temp")).unwrap());
        assert!(alive(sleeper) && temp.is_dir());
        victim.signal(Signal::KILL).unwrap();
        assert!(gone_within(sleeper, Duration::from_secs(5)), "the sleeper outlived its test process");
        let deadline = Instant::now() + Duration::from_secs(5);
        while temp.exists() {
            assert!(Instant::now() < deadline, "{} was left behind", temp.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn run_tells_what_the_program_said() {
        let error =
            Guarded::run("shell", shell("echo alas >&2; exit 3"), Duration::from_secs(10)).unwrap_err();
        assert!(format!("{error:#}").contains("alas"), "{error:#}");
        let error = Guarded::run("shell", shell("sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("has not ended within"), "{error:#}");
    }
}
