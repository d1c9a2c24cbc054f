//! A disk in memory that behaves as badly as real ones may: it forgets at a crash what was not synced, tears writes,
//! fills up, fails, and flips bits. For tests and for the simulator.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::storage::{Clock, DirEntry, OpenMode, Storage, StorageFile, StorageLock};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct SimClock(AtomicI64);

impl SimClock {
    /// A clock at `now_ms`.
    #[must_use]
    pub const fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets the clock.
    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened to a file since it was last synced.
#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Truncate(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let at = *at as usize;
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(length) => content.resize(*length as usize, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

/// What happened to the names since their directory was last synced.
#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Set(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
                return;
            }
            let old: Vec<PathBuf> = inside(names, from).map(|(path, _)| path.clone()).collect();
            for path in old {
                if let (Some(id), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) {
                    names.insert(to.join(rest), id);
                }
            }
        }
    }
}

/// The files in a directory, and in those below.
fn inside<'a>(
    names: &'a BTreeMap<PathBuf, u64>,
    dir: &'a Path,
) -> impl Iterator<Item = (&'a PathBuf, &'a u64)> {
    // By their components paths are in order: what is in a directory comes right after it.
    names
        .range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded))
        .take_while(move |(path, _)| path.starts_with(dir))
}

#[derive(Debug, Default)]
struct Disk {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    contents: HashMap<u64, Content>,
    next_id: u64,
    /// Grows at every crash; handles of an earlier life fail.
    life: u64,
    locks: HashSet<PathBuf>,
    random: u64,
    space: Option<u64>,
    writes_until_failure: Option<u64>,
    syncs_until_failure: Option<u64>,
    operations_until_crash: Option<u64>,
    out_of_descriptors: bool,
    opens_until_refusal: Option<u64>,
}

impl Disk {
    /// xorshift64*: deterministic, and good enough to choose what is lost.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { (self.random() >> 11) % bound }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.contents.get(id))
            .map(|content| content.now.len() as u64)
            .sum()
    }

    /// Counts an operation that changes something; past the chosen one, nothing happens any more.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.operations_until_crash {
            Some(0) => Err(io::Error::other("the simulated machine has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts what takes a file descriptor.
    fn check_descriptors(&mut self) -> io::Result<()> {
        let refused = match &mut self.opens_until_refusal {
            Some(0) => {
                self.opens_until_refusal = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if refused || self.out_of_descriptors { Err(rustix::io::Errno::MFILE.into()) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        self.step()?;
        apply_name(&mut self.names, &change);
        self.unsynced_names.push(change);
        Ok(())
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn eio(what: &str) -> io::Error {
    io::Error::other(format!("simulated {what} failure"))
}

/// The disk. Clones share it.
#[derive(Debug, Clone)]
pub struct SimStorage {
    disk: Arc<Mutex<Disk>>,
}

impl SimStorage {
    /// An empty disk; `seed` decides what crashes lose.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let disk =
            Disk { random: seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The machine loses its power. Of what was not synced, any part may survive: of a directory's changes some
    /// first ones, of a file's changes any, the last of them torn. Open files and locks are gone.
    pub fn crash(&self) {
        let mut disk = self.disk.lock();
        let disk = &mut *disk;
        disk.life += 1;
        disk.locks.clear();
        disk.operations_until_crash = None;
        let keep = disk.below(disk.unsynced_names.len() as u64 + 1) as usize;
        let changes = std::mem::take(&mut disk.unsynced_names);
        for change in &changes[..keep] {
            apply_name(&mut disk.durable_names, change);
        }
        disk.names = disk.durable_names.clone();
        // A directory whose renaming or removal is undone is there again.
        for path in disk.names.keys() {
            for dir in path.ancestors().skip(1) {
                if disk.dirs.contains(dir) {
                    break;
                }
                disk.dirs.insert(dir.to_owned());
            }
        }
        let mut ids: Vec<u64> = disk.contents.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(mut content) = disk.contents.remove(&id) else { continue };
            for change in std::mem::take(&mut content.unsynced) {
                let survives = disk.below(4) > 0;
                let torn = disk.below(4) == 0;
                let change = match change {
                    Change::Write { at, mut bytes } if torn => {
                        bytes.truncate(disk.below(bytes.len() as u64 + 1) as usize);
                        Change::Write { at, bytes }
                    }
                    change => change,
                };
                if survives {
                    change.apply(&mut content.durable);
                }
            }
            content.now = content.durable.clone();
            disk.contents.insert(id, content);
        }
    }

    /// The process is killed, the machine lives on: what was written stays, open files and locks are gone.
    pub fn kill(&self) {
        let mut disk = self.disk.lock();
        disk.life += 1;
        disk.locks.clear();
        disk.operations_until_crash = None;
    }

    /// After this many more operations that change something, every further one fails: for crashes in the middle.
    pub fn stop_after(&self, operations: u64) {
        self.disk.lock().operations_until_crash = Some(operations);
    }

    /// How many bytes fit on the disk (`None`: any number). A write that does not fit is cut and fails.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.disk.lock().space = bytes;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// After this many more writes, one fails with half of its bytes written.
    pub fn fail_write_after(&self, writes: u64) {
        self.disk.lock().writes_until_failure = Some(writes);
    }

    /// After this many more syncs, one fails, and what it should have kept is as unsafe as before.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.disk.lock().syncs_until_failure = Some(syncs);
    }

    /// Whether the process has no file descriptor left: nothing can be opened, what is open goes on.
    pub fn set_out_of_descriptors(&self, out: bool) {
        self.disk.lock().out_of_descriptors = out;
    }

    /// After this many more files and directories were opened, one cannot be, for lack of a file descriptor (`None`: all
    /// can be).
    pub fn refuse_open_after(&self, opens: Option<u64>) {
        self.disk.lock().opens_until_refusal = opens;
    }

    /// Flips one bit of a file, on the disk itself.
    ///
    /// # Errors
    /// If there is no such file or bit.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let id = *disk.names.get(path).ok_or_else(|| not_found(path))?;
        let content = disk.contents.get_mut(&id).ok_or_else(|| not_found(path))?;
        for copy in [&mut content.now, &mut content.durable] {
            if let Some(byte) = copy.get_mut(byte as usize) {
                *byte ^= 1 << (bit & 7);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
    life: u64,
    writable: bool,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Disk, &mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.life != self.life {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        let mut content = disk.contents.remove(&self.id).ok_or_else(|| eio("file"))?;
        let result = work(&mut disk, &mut content);
        disk.contents.insert(self.id, content);
        result
    }

    fn writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// How many of `wanted` bytes may be written, and whether the write fails after them.
fn admit(disk: &mut Disk, content: &Content, at: u64, wanted: usize) -> (usize, Option<io::Error>) {
    match &mut disk.writes_until_failure {
        Some(0) => {
            disk.writes_until_failure = None;
            return (wanted / 2, Some(eio("write")));
        }
        Some(left) => *left -= 1,
        None => {}
    }
    if let Some(space) = disk.space {
        // The file itself is taken out of the disk while it is worked on.
        let room = space.saturating_sub(disk.used()).max(content.now.len() as u64);
        if at + wanted as u64 > room {
            let fits = room.saturating_sub(at) as usize;
            return (fits.min(wanted), Some(io::ErrorKind::StorageFull.into()));
        }
    }
    (wanted, None)
}

impl StorageFile for SimFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|_, content| {
            let from = (at as usize).min(content.now.len());
            let length = out.len().min(content.now.len() - from);
            out[..length].copy_from_slice(&content.now[from..from + length]);
            Ok(length)
        })
    }

    fn write_at(&self, parts: [&[u8]; 2], at: u64) -> io::Result<()> {
        self.writable()?;
        self.with(|disk, content| {
            disk.step()?;
            let mut bytes = parts.concat();
            let (admitted, failure) = admit(disk, content, at, bytes.len());
            bytes.truncate(admitted);
            let change = Change::Write { at, bytes };
            change.apply(&mut content.now);
            content.unsynced.push(change);
            failure.map_or(Ok(()), Err)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|disk, content| {
            disk.step()?;
            match &mut disk.syncs_until_failure {
                Some(0) => {
                    disk.syncs_until_failure = None;
                    return Err(eio("sync"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            for change in content.unsynced.drain(..) {
                change.apply(&mut content.durable);
            }
            Ok(())
        })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.writable()?;
        self.with(|disk, content| {
            disk.step()?;
            let change = Change::Truncate(bytes);
            change.apply(&mut content.now);
            content.unsynced.push(change);
            Ok(())
        })
    }

    fn bytes(&self) -> io::Result<u64> {
        self.with(|_, content| Ok(content.now.len() as u64))
    }

    fn modified_ms(&self) -> io::Result<i64> {
        Ok(0)
    }
}

#[derive(Debug)]
struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    life: u64,
}

impl StorageLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.life == self.life {
            disk.locks.remove(&self.path);
        }
    }
}

impl Storage for SimStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk.lock();
        disk.check_descriptors()?;
        let known = disk.names.get(path).copied();
        let id = match (known, mode) {
            (Some(id), _) => id,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(not_found(path)),
            (None, OpenMode::Create | OpenMode::Truncate) => {
                if !path.parent().is_some_and(|parent| disk.dirs.contains(parent)) {
                    return Err(not_found(path));
                }
                let id = disk.next_id;
                disk.change_name(NameChange::Set(path.to_owned(), id))?;
                disk.next_id += 1;
                disk.contents.insert(id, Content::default());
                id
            }
        };
        if mode == OpenMode::Truncate {
            disk.step()?;
            if let Some(content) = disk.contents.get_mut(&id)
                && !content.now.is_empty()
            {
                content.now.clear();
                content.unsynced.push(Change::Truncate(0));
            }
        }
        let life = disk.life;
        Ok(Arc::new(SimFile { disk: Arc::clone(&self.disk), id, life, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let is_dir = disk.dirs.contains(from);
        if !is_dir && !disk.names.contains_key(from) {
            return Err(not_found(from));
        }
        disk.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))?;
        if is_dir {
            disk.dirs.insert(to.to_owned());
            disk.dirs.remove(from);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if !disk.names.contains_key(path) {
            return Err(not_found(path));
        }
        disk.change_name(NameChange::Remove(path.to_owned()))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.check_descriptors()?;
        let names: Vec<PathBuf> = inside(&disk.names, path).map(|(name, _)| name.clone()).collect();
        for name in names {
            disk.change_name(NameChange::Remove(name))?;
        }
        disk.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut disk = self.disk.lock();
        disk.check_descriptors()?;
        if !disk.dirs.contains(path) {
            return Err(not_found(path));
        }
        let name = |entry: &Path| {
            (entry.parent() == Some(path)).then(|| entry.file_name()?.to_str().map(str::to_owned)).flatten()
        };
        let files = inside(&disk.names, path)
            .filter_map(|(entry, _)| Some(DirEntry { name: name(entry)?, is_dir: false }));
        let dirs = disk.dirs.iter().filter_map(|entry| Some(DirEntry { name: name(entry)?, is_dir: true }));
        Ok(files.chain(dirs).collect())
    }

    /// Directories are durable at once: what is in them is not.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        for dir in path.ancestors() {
            disk.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    /// One journal for all names: a sync of any directory makes all earlier changes durable, as on ext4.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let disk = &mut *disk;
        if !disk.dirs.contains(path) {
            return Err(not_found(path));
        }
        disk.check_descriptors()?;
        disk.step()?;
        for change in disk.unsynced_names.drain(..) {
            apply_name(&mut disk.durable_names, &change);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        let mut disk = self.disk.lock();
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: Arc::clone(&self.disk), path: path.to_owned(), life: disk.life }))
    }
}
