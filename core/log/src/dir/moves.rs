//! Moving a partition from one directory to another while it is used (KIP-113).
//!
//! The copy grows in a directory of its own, `topic-partition.id-future`. When it has everything, it is given the
//! partition's name, and only then is the old one deleted: a crash leaves the old one alone, or both, and then a file in
//! the new one says that it replaces the old one as that was at that moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use towpath_types::{LeaderEpoch, Offset, TopicId, TopicPartition};

use super::{DIR_NAME_BYTES_MAX, LogDir, PARTITION_META_FILE, parse_dir, parse_properties};
use crate::compacted::CompactedOffsets;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::{Log, OpenLog};

/// The ending of the name of a copy that does not have everything yet, as Kafka's.
pub(super) const FUTURE_SUFFIX: &str = "-future";
/// In a partition's directory: which one it replaces.
const REPLACES_FILE: &str = "replaces";
/// In a partition's directory, where not all data directories of the broker worked when it was made: those that did.
const MADE_BESIDE_FILE: &str = "made-beside";

/// A copy: the topic's id and the partition's number.
pub type FutureKey = (TopicId, i32);

/// What the directory of a partition says of one of the same name in another data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// Nothing.
    Nothing,
    /// It has everything that the other has, and comes in its place.
    Yes,
    /// It was to replace the other, which has gone on since: the move was not made.
    NotAnyMore,
    /// It was to replace the other, and both have gone on since.
    Unclear,
}

/// What a partition is said to replace: the one in this directory, as it was up to this end and this leader epoch.
struct Said {
    directory: TopicId,
    end: Offset,
    epoch: LeaderEpoch,
}

impl LogDir {
    /// Begins a copy of a partition that is in another directory. One that is there already is begun anew.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn create_future(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<Arc<Log>, LogError> {
        self.drop_future((topic_id, partition.partition))?;
        let _changing = self.changing.lock();
        self.disk.check()?;
        let path = self.future_dir(partition);
        self.disk.wrote("make", &path, self.disk.storage.create_dir_all(&path))?;
        let fill = || {
            let meta = format!("version: 0\ntopic_id: {topic_id}");
            self.disk.replace(&path.join(PARTITION_META_FILE), meta.as_bytes())?;
            self.say_usable(&path)?;
            let open = opening(partition, topic_id, config, true, &self.compacted);
            let log = Log::open(&self.disk, &path, open)?;
            self.disk.sync_dir(&self.disk.root)?;
            Ok(log)
        };
        let log = fill().inspect_err(|_| self.unmake(partition, &path))?;
        self.futures.write().insert((topic_id, partition.partition), Arc::clone(&log));
        Ok(log)
    }

    /// The copies that are being made here.
    #[must_use]
    pub fn futures(&self) -> Vec<(FutureKey, Arc<Log>)> {
        let futures = self.futures.read();
        let mut all: Vec<_> = futures.iter().map(|(key, log)| (*key, Arc::clone(log))).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// A copy that is being made here.
    #[must_use]
    pub fn future(&self, key: FutureKey) -> Option<Arc<Log>> {
        self.futures.read().get(&key).cloned()
    }

    /// Gives a copy up.
    ///
    /// # Errors
    /// [`LogError`]; it is given up all the same.
    pub fn drop_future(&self, key: FutureKey) -> Result<(), LogError> {
        let _changing = self.changing.lock();
        let Some(log) = self.futures.write().remove(&key) else { return Ok(()) };
        log.shut();
        self.disk.remove_dir_all(log.dir())
    }

    /// Makes the copy the partition, in the place of the one in `from`, which nobody must append to any more. What the
    /// checkpoints say of it is on disk when this returns. The caller deletes that one, and then calls [`Self::moved`].
    ///
    /// # Errors
    /// [`LogError`]; the copy is given up, and `from` has the partition as before.
    pub fn promote(&self, key: FutureKey, old: &Log, from: &Self) -> Result<Arc<Log>, LogError> {
        let _changing = self.changing.lock();
        let partition = old.partition();
        let Some(future) = self.futures.write().remove(&key) else {
            return Err(LogError::Partition(format!("there is no copy of {partition}")));
        };
        let path = self.disk.root.join(partition.to_string());
        let promoted = self.promote_locked(&future, old, from, &path);
        if promoted.is_err() {
            // Where it says that it replaces what goes on, that goes before at the next start.
            for left in [future.dir(), &path] {
                let _unless_the_disk_failed = self.disk.storage.remove_dir_all(left);
            }
        }
        promoted
    }

    fn promote_locked(
        &self,
        future: &Log,
        old: &Log,
        from: &Self,
        path: &Path,
    ) -> Result<Arc<Log>, LogError> {
        // What the checkpoints may still say of an earlier partition of the name is nothing that this one has.
        self.forget_deleted()?;
        self.clear(path)?;
        future.close()?;
        let (end, epoch) = (old.log_end_offset(), old.latest_epoch());
        let said = format!("directory.id={}\nend={end}\nepoch={epoch}\n", from.directory_id);
        self.disk.replace(&future.dir().join(REPLACES_FILE), said.as_bytes())?;
        future.shut();
        self.disk.rename(future.dir(), path)?;
        self.disk.sync_dir(&self.disk.root)?;
        let mut open = opening(old.partition(), old.topic_id(), *future.config(), true, &self.compacted);
        open.recovery_point = future.log_end_offset();
        open.log_start = future.log_start_offset();
        let log = Log::open(&self.disk, path, open)?;
        self.logs.write().insert(old.partition().clone(), Arc::clone(&log));
        // Where the log starts is a fact of this place only once it is on disk here.
        self.checkpoint_locked().inspect_err(|_| {
            self.stale_checkpoints.store(true, Ordering::Relaxed);
            self.logs.write().remove(old.partition());
            log.shut();
        })?;
        Ok(log)
    }

    /// The old one is deleted: the partition is this directory's without a doubt.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn moved(&self, partition: &TopicPartition) -> Result<(), LogError> {
        let Some(log) = self.get(partition) else { return Ok(()) };
        self.disk.remove_file(&log.dir().join(REPLACES_FILE))?;
        self.disk.sync_dir(log.dir())
    }

    /// The partitions that are in another directory as well.
    #[must_use]
    pub fn partitions_in_both(&self, other: &Self) -> Vec<TopicPartition> {
        let logs = self.logs.read();
        let mut both: Vec<_> = logs.keys().filter(|id| other.get(id).is_some()).cloned().collect();
        both.sort_unstable();
        both
    }

    /// What a partition here says of the one of its name in another directory.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn replaces(&self, partition: &TopicPartition, other: &Self) -> Result<Replaces, LogError> {
        let (Some(log), Some(there)) = (self.get(partition), other.get(partition)) else {
            return Ok(Replaces::Nothing);
        };
        let Some(said) = self.said_to_replace(&log)? else { return Ok(Replaces::Nothing) };
        if said.directory != other.directory_id || log.topic_id() != there.topic_id() {
            return Ok(Replaces::Nothing);
        }
        let has_gone_on = |log: &Log| log.log_end_offset() > said.end || log.latest_epoch() > said.epoch;
        Ok(match (has_gone_on(&there), has_gone_on(&log)) {
            (false, _) => Replaces::Yes,
            (true, false) => Replaces::NotAnyMore,
            (true, true) => Replaces::Unclear,
        })
    }

    /// What the directory of a log says that it replaces. What cannot be read is told and says nothing.
    fn said_to_replace(&self, log: &Log) -> Result<Option<Said>, LogError> {
        let path = log.dir().join(REPLACES_FILE);
        let Some(content) = self.disk.read_small(&path)? else { return Ok(None) };
        let said = parse_properties(&content).and_then(|said| {
            let end: i64 = said.get("end")?.parse().ok()?;
            let epoch: i32 = said.get("epoch")?.parse().ok()?;
            let directory = said.get("directory.id")?.parse().ok()?;
            Some(Said { directory, end: Offset::new(end), epoch: LeaderEpoch::new(epoch) })
        });
        if said.is_none() {
            tracing::warn!(path = %path.display(), "it does not say what is replaced");
        }
        Ok(said)
    }

    /// After a start nothing replaces anything any more, as far as the other directories could be looked at: `was_open` tells
    /// it of a directory by its id. What replaces a partition on a disk that is out says so until that is back.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn forget_moves(&self, was_open: impl Fn(TopicId) -> bool) -> Result<(), LogError> {
        for log in self.logs() {
            if self.said_to_replace(&log)?.is_some_and(|said| was_open(said.directory)) {
                self.moved(log.partition())?;
            }
        }
        Ok(())
    }

    /// Which directories of the broker work from here on, by their ids, if not all of them do. A partition that is made
    /// meanwhile says so ([`Self::was_made_without`]).
    pub fn set_usable(&self, usable: Option<Vec<TopicId>>) {
        *self.usable.write() = usable;
    }

    /// Writes down beside a partition that is being made which directories work, if not all do.
    pub(super) fn say_usable(&self, path: &Path) -> Result<(), LogError> {
        let Some(usable) = self.usable.read().clone() else { return Ok(()) };
        let ids: Vec<String> = usable.iter().map(ToString::to_string).collect();
        self.disk
            .replace(&path.join(MADE_BESIDE_FILE), format!("directory.ids={}\n", ids.join(",")).as_bytes())
    }

    /// Whether a partition here was made while another directory could not be used: what that one has of it had been given
    /// up by then.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn was_made_without(&self, partition: &TopicPartition, other: &Self) -> Result<bool, LogError> {
        let Some(log) = self.get(partition) else { return Ok(false) };
        let path = log.dir().join(MADE_BESIDE_FILE);
        let Some(content) = self.disk.read_small(&path)? else { return Ok(false) };
        let ids: Option<Vec<TopicId>> = parse_properties(&content)
            .and_then(|said| said.get("directory.ids")?.split(',').map(|id| id.parse().ok()).collect());
        match ids {
            Some(ids) => Ok(!ids.contains(&other.directory_id)),
            None => {
                tracing::warn!(path = %path.display(), "it does not say which directories there were");
                Ok(false)
            }
        }
    }

    /// Opens a copy that an earlier process has begun. One that cannot be opened is begun anew when somebody asks for it.
    pub(super) fn open_future(&self, path: &Path) -> Result<(), LogError> {
        let content = self.disk.read_small(&path.join(PARTITION_META_FILE))?;
        let topic_id: Option<TopicId> = content
            .as_deref()
            .and_then(parse_properties)
            .and_then(|properties| properties.get("topic_id")?.parse().ok());
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let partition = name.strip_suffix(FUTURE_SUFFIX).and_then(|name| parse_dir(name.rsplit_once('.')?.0));
        let (Some(topic_id), Some(partition)) = (topic_id, partition) else {
            return self.remove_remains(path);
        };
        let open = opening(&partition, topic_id, LogConfig::default(), self.clean, &self.compacted);
        match Log::open(&self.disk, path, open) {
            Ok(log) => {
                let earlier = self.futures.write().insert((topic_id, partition.partition), log);
                earlier.map_or(Ok(()), |earlier| self.disk.remove_dir_all(earlier.dir()))
            }
            Err(error) => {
                tracing::warn!(%partition, %error, "a copy that was begun cannot be opened; it is given up");
                self.remove_remains(path)
            }
        }
    }

    /// Kafka's name for a copy: topic and partition, a unique id, `-future`; within the bound.
    fn future_dir(&self, partition: &TopicPartition) -> PathBuf {
        let unique = TopicId::random();
        let unique = format!("-{}.{:x}{FUTURE_SUFFIX}", partition.partition, unique.get().simple());
        let mut name = partition.topic.as_str().to_owned();
        name.truncate(DIR_NAME_BYTES_MAX - unique.len());
        self.disk.root.join(name + &unique)
    }
}

fn opening(
    partition: &TopicPartition,
    topic_id: TopicId,
    config: LogConfig,
    clean: bool,
    compacted: &Arc<CompactedOffsets>,
) -> OpenLog {
    OpenLog {
        partition: partition.clone(),
        topic_id,
        config,
        clean,
        recovery_point: Offset::ZERO,
        log_start: Offset::ZERO,
        // Whoever makes a replica of the copy says what is committed.
        high_watermark: Offset::ZERO,
        compacted: Arc::clone(compacted),
    }
}
