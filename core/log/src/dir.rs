//! One data directory: its lock, its identity, its checkpoints, and the partitions in it.

mod moves;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::checkpoint;
use crate::compacted::CompactedOffsets;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, OpenLog};
use crate::storage::{Clock, Storage, StorageLock};
use crate::workers;

pub use moves::{FutureKey, Replaces};

const LOCK_FILE: &str = ".lock";
const META_FILE: &str = "meta.properties";
const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
const PARTITION_META_FILE: &str = "partition.metadata";
const RECOVERY_POINTS_FILE: &str = "recovery-point-offset-checkpoint";
const HIGH_WATERMARKS_FILE: &str = "replication-offset-checkpoint";
const LOG_STARTS_FILE: &str = "log-start-offset-checkpoint";
const DELETE_SUFFIX: &str = "-delete";
/// Names of directories are bounded by the file system.
const DIR_NAME_BYTES_MAX: usize = 255;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirIdentity {
    /// `cluster.id`.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: i32,
}

/// How a directory is opened.
#[derive(Debug, Clone)]
pub struct LogDirOptions {
    /// Whose it must be; a new directory takes it on.
    pub identity: DirIdentity,
    /// Bytes of recent batches that all logs of the directory may keep in memory.
    pub tail_bytes_max: usize,
}

/// The logs that could be opened, and what keeps the others from it.
pub type OpenedLogs = (Vec<Arc<Log>>, Vec<(TopicPartition, LogError)>);

/// One open data directory.
#[derive(Debug)]
pub struct LogDir {
    disk: Arc<Disk>,
    _lock: Box<dyn StorageLock>,
    directory_id: TopicId,
    clean: bool,
    clean_epoch: Option<i64>,
    recovery_points: BTreeMap<TopicPartition, Offset>,
    log_starts: BTreeMap<TopicPartition, Offset>,
    high_watermarks: BTreeMap<TopicPartition, Offset>,
    compacted: Arc<CompactedOffsets>,
    logs: RwLock<HashMap<TopicPartition, Arc<Log>>>,
    /// Copies of partitions that are moved here from another directory.
    futures: RwLock<HashMap<FutureKey, Arc<Log>>>,
    /// Held while checkpoints are written, and while directories come and go. Taken before the locks of a log.
    changing: Mutex<()>,
    /// Whether the checkpoints on disk may name partitions that are gone. They must not when one is made: a new topic
    /// would take the offsets of an older one of its name for its own. Used with `changing` held.
    stale_checkpoints: AtomicBool,
    /// Which directories of the broker work, where not all do: what is made meanwhile says so.
    usable: RwLock<Option<Vec<TopicId>>>,
}

impl LogDir {
    /// Locks the directory (made if need be), checks whose it is, and reads its checkpoints. The partitions are
    /// opened by [`Self::open_all`].
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process has it, [`LogError::Identity`], [`LogError::Corrupt`],
    /// [`LogError::Io`].
    pub fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        path: &Path,
        options: &LogDirOptions,
    ) -> Result<Self, LogError> {
        let dir = Self::open_to_wait(storage, clock, path, options)?;
        dir.begin()?;
        Ok(dir)
    }

    /// As [`Self::open`], for a process that may have to wait before it writes anything: the marker of the last clean
    /// shutdown stays until [`Self::begin`]. One that ends before that takes nothing away.
    ///
    /// # Errors
    /// As there.
    pub fn open_to_wait(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        path: &Path,
        options: &LogDirOptions,
    ) -> Result<Self, LogError> {
        let disk = Disk::new(storage, clock, path.to_owned(), options.tail_bytes_max);
        disk.wrote("make", path, disk.storage.create_dir_all(path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = match disk.storage.lock(&lock_path) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(LogError::Locked(path.to_owned()));
            }
            result => disk.wrote("lock", &lock_path, result)?,
        };
        let directory_id = check_identity(&disk, &options.identity)?;
        let marker = path.join(CLEAN_SHUTDOWN_FILE);
        let marked = disk.read_small(&marker)?;
        let clean_epoch = marked.as_deref().and_then(marked_epoch);
        let read = |name: &str| checkpoint::read_offsets(&disk, &path.join(name));
        Ok(Self {
            recovery_points: read(RECOVERY_POINTS_FILE)?,
            log_starts: read(LOG_STARTS_FILE)?,
            high_watermarks: read(HIGH_WATERMARKS_FILE)?,
            compacted: CompactedOffsets::read(&disk)?,
            disk,
            _lock: lock,
            directory_id,
            clean: marked.is_some(),
            clean_epoch,
            logs: RwLock::new(HashMap::new()),
            futures: RwLock::default(),
            changing: Mutex::new(()),
            // The last process may have ended between a deletion and the checkpoints.
            stale_checkpoints: AtomicBool::new(true),
            usable: RwLock::default(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.disk.root
    }

    /// The directory's own id (`directory.id`), for which Kafka uses the same form as for topic ids.
    #[must_use]
    pub const fn directory_id(&self) -> TopicId {
        self.directory_id
    }

    /// Whether the last process that had the directory shut down cleanly.
    #[must_use]
    pub const fn was_clean(&self) -> bool {
        self.clean
    }

    /// Something may be written from here on: the marker says something about the past only, and a crash is a crash.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn begin(&self) -> Result<(), LogError> {
        self.disk.remove_file(&self.disk.root.join(CLEAN_SHUTDOWN_FILE))?;
        self.disk.sync_dir(&self.disk.root)
    }

    /// The broker epoch of the last process that shut down cleanly; none where it did not (KIP-966).
    #[must_use]
    pub const fn clean_epoch(&self) -> Option<i64> {
        self.clean_epoch
    }

    /// Why the directory takes no more work, if it does not (R14).
    #[must_use]
    pub fn offline_reason(&self) -> Option<&str> {
        self.disk.offline_reason()
    }

    /// The high watermarks as of the last checkpoint.
    #[must_use]
    pub const fn high_watermarks(&self) -> &BTreeMap<TopicPartition, Offset> {
        &self.high_watermarks
    }

    /// Opens every partition of the directory, several at a time. One that cannot be opened does not keep the others from it: the
    /// second list says which, and why.
    ///
    /// # Errors
    /// [`LogError`] if the directory itself cannot be read.
    pub fn open_all(
        &self,
        config: impl Fn(&TopicPartition, TopicId) -> LogConfig + Sync,
    ) -> Result<OpenedLogs, LogError> {
        let _changing = self.changing.lock();
        let root = &self.disk.root;
        let entries = self.disk.did_read("list", root, self.disk.storage.list(root))?;
        let mut partitions = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            let path = root.join(&entry.name);
            if entry.name.ends_with(DELETE_SUFFIX) {
                self.remove_remains(&path)?;
                continue;
            }
            if entry.name.ends_with(moves::FUTURE_SUFFIX) {
                self.open_future(&path)?;
                continue;
            }
            partitions.extend(parse_dir(&entry.name).map(|partition| (partition, path)));
        }
        let results = workers::map(&partitions, |(partition, path)| self.open_one(partition, path, &config));
        let mut opened = Vec::with_capacity(partitions.len());
        let mut failed = Vec::new();
        for ((partition, _), result) in partitions.into_iter().zip(results) {
            match result {
                Ok(Some(log)) => opened.push(log),
                Ok(None) => {}
                Err(error) => failed.push((partition, error)),
            }
        }
        self.logs.write().extend(opened.iter().map(|log| (log.partition().clone(), Arc::clone(log))));
        if failed.is_empty() {
            self.forget_deleted()?;
        }
        Ok((opened, failed))
    }

    /// Removes a directory that will not be opened again; where there is no file descriptor for that, it remains until
    /// the next start.
    fn remove_remains(&self, path: &Path) -> Result<(), LogError> {
        match self.disk.remove_dir_all(path) {
            Err(error) if error.is_out_of_descriptors() => {
                tracing::warn!(path = %path.display(), "not removed for lack of file descriptors");
                Ok(())
            }
            result => result,
        }
    }

    fn open_one(
        &self,
        partition: &TopicPartition,
        path: &Path,
        config: &impl Fn(&TopicPartition, TopicId) -> LogConfig,
    ) -> Result<Option<Arc<Log>>, LogError> {
        let meta = path.join(PARTITION_META_FILE);
        let Some(content) = self.disk.read_small(&meta)? else {
            // The metadata is the first file of a partition: without it the creation was not finished.
            tracing::warn!(partition = %partition, "directory without partition.metadata removed");
            self.remove_remains(path)?;
            return Ok(None);
        };
        let topic_id = parse_properties(&content)
            .and_then(|properties| properties.get("topic_id")?.parse().ok())
            .ok_or_else(|| LogError::corrupt(&meta, "it has no topic_id"))?;
        let known = |offsets: &BTreeMap<TopicPartition, Offset>| {
            offsets.get(partition).copied().unwrap_or(Offset::ZERO)
        };
        let open = OpenLog {
            partition: partition.clone(),
            topic_id,
            config: config(partition, topic_id),
            clean: self.clean,
            recovery_point: known(&self.recovery_points),
            log_start: known(&self.log_starts),
            high_watermark: known(&self.high_watermarks),
            compacted: Arc::clone(&self.compacted),
        };
        Log::open(&self.disk, path, open).map(Some)
    }

    /// Makes a new partition.
    ///
    /// # Errors
    /// [`LogError::Partition`] if it is there already; [`LogError`].
    pub fn create(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<Arc<Log>, LogError> {
        let _changing = self.changing.lock();
        if self.logs.read().contains_key(partition) {
            return Err(LogError::Partition(format!("{partition} is in the directory already")));
        }
        self.create_locked(std::slice::from_ref(partition), topic_id, config)?;
        self.get(partition).ok_or_else(|| LogError::Partition(format!("{partition} was not made")))
    }

    /// Makes those of a topic's partitions that are not there yet, several at a time.
    ///
    /// # Errors
    /// [`LogError`] of the first that could not be made; the others are there.
    pub fn create_all(
        &self,
        partitions: &[TopicPartition],
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<(), LogError> {
        let _changing = self.changing.lock();
        let missing: Vec<TopicPartition> = {
            let logs = self.logs.read();
            partitions.iter().filter(|partition| !logs.contains_key(partition)).cloned().collect()
        };
        if missing.is_empty() { Ok(()) } else { self.create_locked(&missing, topic_id, config) }
    }

    fn create_locked(
        &self,
        partitions: &[TopicPartition],
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<(), LogError> {
        self.disk.check()?;
        self.forget_deleted()?;
        let results = workers::map(partitions, |partition| self.make(partition, topic_id, config));
        let (made, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let made: Vec<Arc<Log>> = made.into_iter().flatten().collect();
        if let Err(error) = self.disk.sync_dir(&self.disk.root) {
            made.iter().for_each(|log| self.unmake(log.partition(), log.dir()));
            return Err(error);
        }
        let mut logs = self.logs.write();
        logs.extend(made.into_iter().map(|log| (log.partition().clone(), log)));
        failed.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }

    /// Makes a new partition's directory and files.
    fn make(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<Arc<Log>, LogError> {
        let path = self.disk.root.join(partition.to_string());
        self.clear(&path)?;
        self.disk.wrote("make", &path, self.disk.storage.create_dir_all(&path))?;
        let fill = || {
            let meta = format!("version: 0\ntopic_id: {topic_id}");
            self.disk.replace(&path.join(PARTITION_META_FILE), meta.as_bytes())?;
            self.say_usable(&path)?;
            let open = OpenLog {
                partition: partition.clone(),
                topic_id,
                config,
                clean: true,
                recovery_point: Offset::ZERO,
                log_start: Offset::ZERO,
                high_watermark: Offset::ZERO,
                compacted: Arc::clone(&self.compacted),
            };
            Log::open(&self.disk, &path, open)
        };
        fill().inspect_err(|_| self.unmake(partition, &path))
    }

    /// Makes sure that nothing is where a partition is to be made. Without its metadata, which is the first file, an
    /// earlier creation was not finished.
    fn clear(&self, path: &Path) -> Result<(), LogError> {
        let entries = match self.disk.storage.list(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => self.disk.did_read("list", path, result)?,
        };
        if entries.iter().any(|entry| entry.name == PARTITION_META_FILE) {
            return Err(LogError::Partition(format!("{} exists and was not opened", path.display())));
        }
        self.disk.remove_dir_all(path)
    }

    /// Half of a partition would be in the way of the next attempt. What cannot be removed now, perhaps for lack of a
    /// file descriptor, goes at the next start.
    fn unmake(&self, partition: &TopicPartition, path: &Path) {
        if self.disk.storage.remove_dir_all(path).is_err() {
            let _left = self.disk.storage.rename(path, &self.deleted_dir(partition, TopicId::random()));
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.logs.read().len()
    }

    /// The log of a partition.
    #[must_use]
    pub fn get(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.logs.read().get(partition).cloned()
    }

    /// All logs, in the order of their names: what is done to all of them is done alike in every run.
    #[must_use]
    pub fn logs(&self) -> Vec<Arc<Log>> {
        let mut logs: Vec<Arc<Log>> = self.logs.read().values().cloned().collect();
        logs.sort_unstable_by(|a, b| a.partition().cmp(b.partition()));
        logs
    }

    /// Removes a partition with its files. Readers that still hold a piece of a file can finish.
    ///
    /// # Errors
    /// [`LogError::Partition`] if it is not there; [`LogError`].
    pub fn delete(&self, partition: &TopicPartition) -> Result<(), LogError> {
        self.delete_all(std::slice::from_ref(partition))
    }

    /// Removes partitions with their files, several at a time.
    ///
    /// # Errors
    /// [`LogError::Partition`] if one is not there; [`LogError`]. They are gone all the same; files that remain, perhaps
    /// for lack of file descriptors, go at the next start.
    pub fn delete_all(&self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let _changing = self.changing.lock();
        self.stale_checkpoints.store(true, Ordering::Relaxed);
        let shut = workers::map(partitions, |partition| self.shut(partition));
        self.disk.sync_dir(&self.disk.root)?;
        let forgotten = self.forget_deleted();
        let removed = workers::map(&shut, |path| match path {
            Ok(path) => self.disk.remove_dir_all(path),
            Err(_) => Ok(()),
        });
        shut.into_iter().map(|path| path.map(drop)).chain([forgotten]).chain(removed).collect()
    }

    /// Takes the partitions that are gone out of the checkpoints, if there may be any. The caller holds `changing`.
    fn forget_deleted(&self) -> Result<(), LogError> {
        if !self.stale_checkpoints.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.compacted.retain(|partition| self.get(partition).is_some())?;
        for name in [RECOVERY_POINTS_FILE, LOG_STARTS_FILE, HIGH_WATERMARKS_FILE] {
            let path = self.disk.root.join(name);
            let mut offsets = checkpoint::read_offsets(&self.disk, &path)?;
            let count = offsets.len();
            offsets.retain(|partition, _| self.get(partition).is_some());
            if offsets.len() < count {
                checkpoint::write_offsets(&self.disk, &path, &offsets)?;
            }
        }
        self.stale_checkpoints.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a partition out and gives its directory a name under which it will not be opened again.
    fn shut(&self, partition: &TopicPartition) -> Result<PathBuf, LogError> {
        let Some(log) = self.logs.write().remove(partition) else {
            return Err(LogError::Partition(format!("{partition} is not in the directory")));
        };
        log.shut();
        let to = self.deleted_dir(partition, log.topic_id());
        self.disk.rename(log.dir(), &to)?;
        Ok(to)
    }

    /// Kafka's name for a directory on its way out: topic, a unique id, `-delete`; within the bound.
    fn deleted_dir(&self, partition: &TopicPartition, topic_id: TopicId) -> PathBuf {
        let unique = format!("-{}.{:x}{DELETE_SUFFIX}", partition.partition, topic_id.get().simple());
        let mut name = partition.topic.as_str().to_owned();
        name.truncate(DIR_NAME_BYTES_MAX - unique.len());
        self.disk.root.join(name + &unique)
    }

    /// Writes the recovery points and log start offsets of all logs. Call it every minute or so, after
    /// [`Log::flush`] of those that have much to lose, and after `DeleteRecords`.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn checkpoint(&self) -> Result<(), LogError> {
        let _changing = self.changing.lock();
        self.checkpoint_locked()
    }

    fn checkpoint_locked(&self) -> Result<(), LogError> {
        let logs = self.logs();
        let root = &self.disk.root;
        let recovery_points: BTreeMap<_, _> =
            logs.iter().map(|log| (log.partition().clone(), log.recovery_point())).collect();
        checkpoint::write_offsets(&self.disk, &root.join(RECOVERY_POINTS_FILE), &recovery_points)?;
        for log in &logs {
            if let Some(written) = recovery_points.get(log.partition()) {
                log.recovery_point_written(*written);
            }
        }
        // As in Kafka: only where it is not simply the first segment's.
        let log_starts: BTreeMap<_, _> = logs
            .iter()
            .filter(|log| log.log_start_offset() > log.first_segment_base_offset())
            .map(|log| (log.partition().clone(), log.log_start_offset()))
            .collect();
        checkpoint::write_offsets(&self.disk, &root.join(LOG_STARTS_FILE), &log_starts)
    }

    /// Writes the high watermarks, which the replicas know.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn checkpoint_high_watermarks(
        &self,
        high_watermarks: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), LogError> {
        let _changing = self.changing.lock();
        checkpoint::write_offsets(&self.disk, &self.disk.root.join(HIGH_WATERMARKS_FILE), high_watermarks)
    }

    /// Compacts a log from where the last compaction ended, if it is due: enough of it is dirty
    /// (`min.cleanable.dirty.ratio`), or it has been for too long (`max.compaction.lag.ms`). Only closed segments
    /// below the high watermark and the last stable offset take part. The log is flushed before; appends and reads go on
    /// meanwhile. A truncation of the same log ends it early: `None`.
    ///
    /// # Errors
    /// [`LogError`]; [`LogError::Closed`] if the partition was deleted meanwhile.
    pub fn clean(
        &self,
        partition: &TopicPartition,
        high_watermark: Offset,
        options: &crate::CleanOptions,
    ) -> Result<Option<crate::CleanStats>, LogError> {
        let Some(log) = self.get(partition) else {
            return Err(LogError::Partition(format!("{partition} is not in the directory")));
        };
        match self.clean_log(&log, high_watermark, options) {
            Ok(stats) => Ok(stats),
            Err(LogError::Interrupted(_)) => Ok(None),
            // Whatever failed first: its files are gone.
            Err(error) => log.check_not_deleted().and(Err(error)),
        }
    }

    fn clean_log(
        &self,
        log: &Log,
        high_watermark: Offset,
        options: &crate::CleanOptions,
    ) -> Result<Option<crate::CleanStats>, LogError> {
        if !log.is_clean_due(high_watermark)? {
            return Ok(None);
        }
        let flushed = log.flush()?;
        self.checkpoint()?;
        log.clean(high_watermark.min(flushed), options)
    }

    /// Closes every log, several at a time, writes the checkpoints and then the marker of a clean shutdown. `broker_epoch` goes into
    /// the marker, so that the next registration can prove it (KIP-966).
    ///
    /// # Errors
    /// [`LogError`]; without the marker the next start recovers as after a crash.
    pub fn close(&self, broker_epoch: i64) -> Result<(), LogError> {
        let closed = workers::map(&self.logs(), |log| match log.close() {
            // Deleted meanwhile: there is nothing left to write.
            Err(LogError::Closed(_)) => Ok(()),
            result => result,
        });
        closed.into_iter().collect::<Result<(), LogError>>()?;
        for (_, future) in self.futures() {
            future.close()?;
        }
        let _changing = self.changing.lock();
        self.checkpoint_locked()?;
        let marker = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
        self.disk.replace(&self.disk.root.join(CLEAN_SHUTDOWN_FILE), marker.as_bytes())
    }
}

/// The epoch in the marker of a clean shutdown, as [`LogDir::close`] and Kafka write it.
fn marked_epoch(content: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(content).ok()?;
    let (_, after) = text.split_once("\"brokerEpoch\":")?;
    let digits = after.trim_start().trim_end_matches(|c: char| c != '-' && !c.is_ascii_digit());
    digits.split(|c: char| c != '-' && !c.is_ascii_digit()).next()?.parse().ok()
}

/// Splits `topic-partition`.
fn parse_dir(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let number: i32 = partition.parse().ok()?;
    // `+1` and `01` are no names that we give.
    if number < 0 || number.to_string() != partition {
        return None;
    }
    Some(TopicPartition::new(TopicName::new(topic).ok()?, number))
}

/// Java properties as far as Kafka's own files use them: `key=value` or `key: value`, `#` comments.
fn parse_properties(content: &[u8]) -> Option<BTreeMap<&str, &str>> {
    let text = std::str::from_utf8(content).ok()?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(['=', ':']).map(|(key, value)| (key.trim(), value.trim()))).collect()
}

/// Reads `meta.properties`, or writes it into a new directory; returns the directory's id.
fn check_identity(disk: &Disk, identity: &DirIdentity) -> Result<TopicId, LogError> {
    let path = disk.root.join(META_FILE);
    let Some(content) = disk.read_small(&path)? else {
        let id = TopicId::random();
        let text = format!(
            "version=1\ncluster.id={}\nnode.id={}\ndirectory.id={id}\n",
            identity.cluster_id, identity.node_id
        );
        disk.replace(&path, text.as_bytes())?;
        return Ok(id);
    };
    let properties =
        parse_properties(&content).ok_or_else(|| LogError::corrupt(&path, "it is no properties file"))?;
    let node_id = identity.node_id.to_string();
    for (key, expected) in [("cluster.id", identity.cluster_id.as_str()), ("node.id", node_id.as_str())] {
        let found = properties.get(key).copied().unwrap_or_default();
        if found != expected {
            return Err(LogError::Identity {
                dir: disk.root.clone(),
                key,
                found: found.to_owned(),
                expected: expected.to_owned(),
            });
        }
    }
    properties
        .get("directory.id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| LogError::corrupt(&path, "it has no directory.id"))
}
