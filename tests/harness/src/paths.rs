//! Where the workspace, its target folder and the resolved peers are.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The folder with the binaries of the profile that the running program was built with (`target/release`).
///
/// # Errors
/// If the running program does not lie in such a folder.
pub fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("where does the running program lie?")?;
    for folder in exe.ancestors().skip(1) {
        if folder.join(".fingerprint").is_dir() || folder.join("deps").is_dir() {
            return Ok(folder.to_path_buf());
        }
    }
    bail!("{} does not lie in a cargo target folder", exe.display())
}

/// `target/peers`: what the tests resolve once and keep (jars, virtual environments, node_modules).
///
/// # Errors
/// If it cannot be made.
pub fn peers() -> Result<PathBuf> {
    let profile = profile_dir()?;
    let target = profile.parent().context("a target folder has a parent")?;
    let peers = target.join("peers");
    std::fs::create_dir_all(&peers).with_context(|| format!("cannot make {}", peers.display()))?;
    Ok(peers)
}

/// `target/cache`: the cache directory of every towpath that tests start. They share it, so that what one has compiled the
/// others find; the user's own is left alone, but for the compiler of plugins that may be in it.
///
/// # Errors
/// If it cannot be made.
pub fn cache() -> Result<PathBuf> {
    let profile = profile_dir()?;
    let cache = profile.parent().context("a target folder has a parent")?.join("cache");
    let ours = cache.join("towpath");
    std::fs::create_dir_all(&ours).with_context(|| format!("cannot make {}", ours.display()))?;
    let users = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let users = users.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let compiler = users.map(|users| users.join("towpath/rustc-wasm")).filter(|it| it.is_dir());
    let link = ours.join("rustc-wasm");
    if let Some(compiler) = compiler.filter(|it| *it != link && !link.exists()) {
        // Another test may have made it meanwhile.
        let _there = std::os::unix::fs::symlink(compiler, &link);
    }
    Ok(cache)
}

/// The hexadecimal SHA-256, 16 characters of it, of some files' contents and a few more words.
///
/// # Errors
/// If a file cannot be read.
pub fn fingerprint(files: &[PathBuf], words: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    for word in words {
        hash.update([0]);
        hash.update(word);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Makes `target/peers/<name>` once for all test processes: `build` is called with the folder, empty, under a file
/// lock, unless a stamp says that it was made from the same `fingerprint` before.
///
/// # Errors
/// Whatever `build` says, or I/O.
pub fn once(name: &str, fingerprint: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let peers = peers()?;
    let folder = peers.join(name);
    let stamp = folder.join(".stamp");
    let done = || std::fs::read_to_string(&stamp).is_ok_and(|text| text == fingerprint);
    if done() {
        return Ok(folder);
    }
    let lock_path = peers.join(format!(".{name}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("cannot make {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if done() {
        return Ok(folder);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    build(&folder).with_context(|| format!("cannot prepare {}", folder.display()))?;
    std::fs::write(&stamp, fingerprint).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(folder)
}
