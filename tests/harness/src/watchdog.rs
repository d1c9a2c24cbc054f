//! A helper process that outlives the test process by a moment, to kill what it left running.
//!
//! A parent-death signal would need `unsafe` between fork and exec, and it fires when the *thread* that started the
//! child ends, not the process. Instead one small shell reads the process groups and folders to clean from a pipe;
//! the kernel closes that pipe when the test process ends, however it ends, and the shell then cleans up.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail};

const SCRIPT: &str = r#"
trap '' INT TERM HUP PIPE
declare -A groups folders mounts netns links
while IFS=' ' read -r op arg; do
    case "$op" in
        +g) groups[$arg]=1 ;;
        -g) unset "groups[$arg]" ;;
        +d) folders[$arg]=1 ;;
        -d) unset "folders[$arg]" ;;
        +m) mounts[$arg]=1 ;;
        -m) unset "mounts[$arg]" ;;
        +n) netns[$arg]=1 ;;
        -n) unset "netns[$arg]" ;;
        +l) links[$arg]=1 ;;
        -l) unset "links[$arg]" ;;
    esac
done
for g in "${!groups[@]}"; do kill -9 -- "-$g"; done
for m in "${!mounts[@]}"; do umount -l -- "$m"; done
for d in "${!folders[@]}"; do rm -rf -- "$d" || { sleep 0.2; rm -rf -- "$d"; }; done
for n in "${!netns[@]}"; do ip netns del "$n"; done
for l in "${!links[@]}"; do ip link del "$l"; done
"#;

static PIPE: OnceLock<Result<Mutex<ChildStdin>, String>> = OnceLock::new();

fn start() -> Result<Mutex<ChildStdin>, String> {
    let mut child = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot start the watchdog (bash): {e}"))?;
    child.stdin.take().map(Mutex::new).ok_or_else(|| "the watchdog has no pipe".to_owned())
}

fn tell(line: &str) -> Result<()> {
    let pipe = match PIPE.get_or_init(start) {
        Ok(pipe) => pipe,
        Err(message) => bail!("{message}"),
    };
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    pipe.write_all(line.as_bytes()).context("the watchdog is gone")
}

/// From now on, the process group `pgid` is killed if this process ends.
///
/// # Errors
/// If the watchdog cannot be started or is gone.
pub fn watch_group(pgid: u32) -> Result<()> {
    tell(&format!("+g {pgid}\n"))
}

/// Forgets a process group that has ended.
pub fn forget_group(pgid: u32) {
    // A watchdog that is gone watches nothing any more.
    drop(tell(&format!("-g {pgid}\n")));
}

/// From now on, the folder is removed if this process ends.
///
/// # Errors
/// If the watchdog cannot be started or is gone, or the path holds a line break.
pub fn watch_folder(path: &Path) -> Result<()> {
    let text = path.to_str().context("a temporary folder whose path is not UTF-8")?;
    if text.contains('\n') {
        bail!("a temporary folder whose path holds a line break");
    }
    tell(&format!("+d {text}\n"))
}

/// Forgets a folder that has been removed.
pub fn forget_folder(path: &Path) {
    if let Some(text) = path.to_str() {
        drop(tell(&format!("-d {text}\n")));
    }
}

/// What else is undone when this process ends, after its groups are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// A mounted file system, by its path.
    Mount,
    /// A network namespace, by its name.
    Namespace,
    /// A network device, by its name.
    Link,
}

impl Undo {
    fn letter(self) -> char {
        match self {
            Self::Mount => 'm',
            Self::Namespace => 'n',
            Self::Link => 'l',
        }
    }
}

/// From now on, this is undone if this process ends.
///
/// # Errors
/// If the watchdog cannot be started or is gone, or the name holds a line break.
pub fn watch(kind: Undo, name: &str) -> Result<()> {
    if name.contains('\n') {
        bail!("a name that holds a line break: {name:?}");
    }
    tell(&format!("+{} {name}\n", kind.letter()))
}

/// Forgets what has been undone.
pub fn forget(kind: Undo, name: &str) {
    drop(tell(&format!("-{} {name}\n", kind.letter())));
}
