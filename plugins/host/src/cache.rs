//! Compiled code on disk, so that a plugin is compiled once and not at every start.
//!
//! Compiled code is run as it stands: whoever can write it is Towpath. So an entry is believed only if the folder and
//! the file belong to this user, nobody else may write or read them, neither is a link, and the bytes have the hash that
//! was written with them. The hash finds damage (a torn write, a bad disk); against whoever has this user's rights
//! nothing would help. What is not believed is compiled anew and written over.

use std::fs::{DirBuilder, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use towpath_store::ContentHash;
use towpath_types::limits::PLUGIN_FILE_BYTES_MAX;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The letters of the form and its version.
const MAGIC: [u8; 8] = *b"TPCODE1\n";
const HEAD_BYTES: usize = MAGIC.len() + 32;
/// Bytes of one entry: code is some times as long as the WASM it was made of.
const ENTRY_BYTES_MAX: u64 = 16 * PLUGIN_FILE_BYTES_MAX;
/// Bytes of all entries; beyond it the oldest go.
const CACHE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// How old a file must be that was begun and never finished before it is removed.
const ABANDONED: Duration = Duration::from_secs(3600);
const SUFFIX: &str = "code";

/// A folder of compiled code.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
    user: u32,
}

/// `towpath/plugins` in the user's cache directory, if there is any: `$XDG_CACHE_HOME`, or `.cache` at home.
pub(crate) fn default_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("towpath").join("plugins"))
}

fn other(reason: &str) -> std::io::Error {
    std::io::Error::other(reason.to_owned())
}

impl Cache {
    /// The cache in `folder`, which is made when the first entry is written.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, user: rustix::process::geteuid().as_raw() }
    }

    /// One entry for each component, engine version, and set of settings and processor features.
    fn path(&self, engine: &Engine, hash: &[u8; 32]) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.folder.join(format!("{}-{:016x}.{SUFFIX}", ContentHash(*hash), hasher.finish()))
    }

    /// The compiled component, if there is one that can be believed.
    pub(crate) fn load(&self, engine: &Engine, hash: &[u8; 32]) -> Option<Component> {
        let path = self.path(engine, hash);
        match self.read(&path).and_then(|code| self.revive(engine, &code)) {
            Ok(component) => Some(component),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "compiled code of a plugin is not used; it is compiled anew");
                None
            }
        }
    }

    /// The code in a file, if it is as it was written, and nobody else's.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.check_folder()?;
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != self.user || metadata.mode() & 0o077 != 0 {
            return Err(other("the file is not this user's alone"));
        }
        if metadata.len() > ENTRY_BYTES_MAX {
            return Err(other("the file is too large"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        file.take(ENTRY_BYTES_MAX).read_to_end(&mut bytes)?;
        let code = bytes.split_off(HEAD_BYTES.min(bytes.len()));
        if bytes != head(&code) {
            return Err(other("the file is damaged"));
        }
        Ok(code)
    }

    #[allow(unsafe_code, reason = "compiled code cannot be checked; see the head of this file")]
    fn revive(&self, engine: &Engine, code: &[u8]) -> std::io::Result<Component> {
        // SAFETY: `read` has found that these bytes are what `store` has written: a component that wasmtime itself has
        // compiled. That it was this version with these settings, wasmtime checks.
        let component = unsafe { Component::deserialize(engine, code) };
        component.map_err(|error| other(&format!("{error:#}")))
    }

    /// Keeps a compiled component. What goes wrong is told, and costs the next start its time.
    pub(crate) fn store(&self, engine: &Engine, hash: &[u8; 32], component: &Component) {
        let path = self.path(engine, hash);
        let code = component.serialize().map_err(|error| other(&format!("{error:#}")));
        let stored = code.and_then(|code| self.write(&path, &code));
        if let Err(error) = stored.and_then(|()| self.clean(CACHE_BYTES_MAX)) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "compiled code of a plugin cannot be kept");
        }
    }

    /// Written beside and renamed: whoever reads sees a whole entry, the old one or the new one.
    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.check_folder()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let new = path.with_extension(format!("{}-{number}.new", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = file.write_all(&head(code)).and_then(|()| file.write_all(code));
        let written = written.and_then(|()| std::fs::rename(&new, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written
    }

    fn check_folder(&self) -> std::io::Result<()> {
        let metadata = std::fs::symlink_metadata(&self.folder)?;
        if metadata.is_dir() && metadata.uid() == self.user && metadata.mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(other("the folder is not this user's alone: make it so with `chmod 700`"))
    }

    /// R10: at most `max` bytes; the oldest entries go first.
    fn clean(&self, max: u64) -> std::io::Result<()> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // What another process has removed meanwhile is no matter.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let (Ok(modified), true) = (metadata.modified(), metadata.is_file()) else { continue };
            match path.extension().and_then(|it| it.to_str()) {
                Some(SUFFIX) => entries.push((modified, metadata.len(), path)),
                Some("new") if is_older(modified, ABANDONED) => std::fs::remove_file(&path)?,
                _ => {}
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in entries {
            if bytes <= max {
                break;
            }
            std::fs::remove_file(&path)?;
            bytes -= length;
        }
        Ok(())
    }
}

fn is_older(modified: SystemTime, age: Duration) -> bool {
    modified.elapsed().is_ok_and(|elapsed| elapsed > age)
}

fn head(code: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..MAGIC.len()].copy_from_slice(&MAGIC);
    head[MAGIC.len()..].copy_from_slice(&Sha256::digest(code));
    head
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The smallest component.
    const EMPTY: [u8; 8] = *b"\0asm\x0d\0\x01\0";

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A cache with one entry, and where that is.
    fn cached(engine: &Engine, folder: &Path) -> (Cache, PathBuf) {
        let cache = Cache::new(folder.join("below/plugins"));
        assert!(cache.load(engine, &[7; 32]).is_none());
        let component = Component::from_binary(engine, &EMPTY).unwrap();
        cache.store(engine, &[7; 32], &component);
        let path = cache.path(engine, &[7; 32]);
        assert!(cache.load(engine, &[7; 32]).is_some());
        (cache, path)
    }

    #[test]
    fn an_entry_is_one_components_and_one_engines() {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::engine::start().unwrap();
        let (cache, path) = cached(&engine, folder.path());
        assert!(cache.load(&engine, &[8; 32]).is_none());
        let other = Engine::default();
        assert_ne!(cache.path(&other, &[7; 32]), path);
        // Under a name that it should not have, it is still not taken.
        std::fs::copy(&path, cache.path(&other, &[7; 32])).unwrap();
        assert!(cache.load(&other, &[7; 32]).is_none());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&cache.folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_damaged_is_not_believed_and_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::engine::start().unwrap();
        let (cache, path) = cached(&engine, folder.path());
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut letters = good.clone();
        letters[0] ^= 1;
        let longer = [good.as_slice(), b"x"].concat();
        for bad in
            [&good[..good.len() - 1], &good[..HEAD_BYTES], &good[..3], b"", &flipped, &letters, &longer]
        {
            std::fs::write(&path, bad).unwrap();
            assert!(cache.load(&engine, &[7; 32]).is_none());
            cache.store(&engine, &[7; 32], &Component::from_binary(&engine, &EMPTY).unwrap());
            assert!(cache.load(&engine, &[7; 32]).is_some());
        }
        // Whole, and yet no code.
        let nonsense = b"this was never compiled";
        std::fs::write(&path, [&head(nonsense)[..], nonsense].concat()).unwrap();
        assert!(cache.load(&engine, &[7; 32]).is_none());
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::engine::start().unwrap();
        let (cache, path) = cached(&engine, folder.path());
        for loose in [0o620, 0o602, 0o640] {
            mode(&path, loose);
            assert!(cache.load(&engine, &[7; 32]).is_none(), "{loose:o}");
        }
        mode(&path, 0o600);
        for loose in [0o770, 0o707, 0o750] {
            mode(&cache.folder, loose);
            assert!(cache.load(&engine, &[7; 32]).is_none(), "{loose:o}");
            assert!(cache.write(&path, b"code").is_err(), "{loose:o}");
        }
        mode(&cache.folder, 0o700);
        assert!(cache.load(&engine, &[7; 32]).is_some());
        let foreign = Cache { user: cache.user + 1, ..cache.clone() };
        assert!(foreign.load(&engine, &[7; 32]).is_none());
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(cache.load(&engine, &[7; 32]).is_none(), "a link");
    }

    #[test]
    fn the_cache_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("plugins"));
        let path = |name: &str| cache.folder.join(name);
        let age = |name: &str, seconds: u64| {
            let then = SystemTime::now() - Duration::from_secs(seconds);
            OpenOptions::new().append(true).open(path(name)).unwrap().set_modified(then).unwrap();
        };
        for (index, name) in ["a.code", "b.code", "c.code"].iter().enumerate() {
            cache.write(&path(name), &[0; 1000]).unwrap();
            age(name, 100 - index as u64);
        }
        for (name, seconds) in [("d.1-1.new", 10), ("e.1-2.new", 4000)] {
            std::fs::write(path(name), b"").unwrap();
            age(name, seconds);
        }
        cache.clean(2 * (1000 + HEAD_BYTES as u64)).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&cache.folder)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["b.code", "c.code", "d.1-1.new"]);
    }
}
