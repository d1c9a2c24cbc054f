//! The data directories of one broker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use towpath_log::{CleanOptions, Log, LogConfig, LogDir, LogError};
use towpath_types::{Offset, TopicId, TopicPartition};

/// A directory that could not be used when the broker started, or that is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableDir {
    /// Where it is configured; none for one that is configured no more.
    pub path: Option<PathBuf>,
    /// Why it cannot be used.
    pub reason: String,
}

/// The data directories of one broker. The first has the metadata; a partition is in one of them. One that fails takes
/// its own partitions with it and no others (R14).
#[derive(Debug)]
pub struct LogDirs {
    dirs: Vec<Arc<LogDir>>,
    unusable: RwLock<Vec<UnusableDir>>,
    /// Whether a directory could not be used since the process began.
    lacked_one: AtomicBool,
    /// Partitions that are in several directories, with their logs there: nobody knows which is right, and none is used.
    pub(crate) twice: RwLock<BTreeMap<TopicPartition, Vec<Arc<Log>>>>,
}

impl LogDirs {
    /// A single directory.
    #[must_use]
    pub fn one(dir: Arc<LogDir>) -> Self {
        Self::new(dir, Vec::new(), Vec::new())
    }

    /// The directory of the metadata, further ones, and those that cannot be used.
    #[must_use]
    pub fn new(first: Arc<LogDir>, further: Vec<Arc<LogDir>>, unusable: Vec<UnusableDir>) -> Self {
        Self {
            dirs: std::iter::once(first).chain(further).collect(),
            lacked_one: AtomicBool::new(!unusable.is_empty()),
            unusable: RwLock::new(unusable),
            twice: RwLock::default(),
        }
    }

    /// The directories that could be opened, the one of the metadata first.
    #[must_use]
    pub fn all(&self) -> &[Arc<LogDir>] {
        &self.dirs
    }

    /// The directories that could not be opened, or are gone.
    #[must_use]
    pub fn unusable(&self) -> Vec<UnusableDir> {
        self.unusable.read().clone()
    }

    pub(crate) fn has_unusable(&self) -> bool {
        !self.unusable.read().is_empty()
    }

    /// Directories that are gone for good are no reason any more to take partitions for being elsewhere: the cluster knows
    /// that what was in them is lost. Whether all that cannot be used are such.
    pub fn forget_gone(&self) -> bool {
        let mut unusable = self.unusable.write();
        unusable.retain(|dir| dir.path.is_some());
        unusable.is_empty()
    }

    /// One more that cannot be used.
    pub fn add_unusable(&self, dir: UnusableDir) {
        self.lacked_one.store(true, Ordering::Release);
        self.unusable.write().push(dir);
    }

    /// Those that work.
    pub fn online(&self) -> impl Iterator<Item = &Arc<LogDir>> {
        self.dirs.iter().filter(|dir| dir.offline_reason().is_none())
    }

    /// Why nothing can be done any more: the directory of the metadata has failed.
    #[must_use]
    pub fn offline_reason(&self) -> Option<&str> {
        self.dirs.first().and_then(|dir| dir.offline_reason())
    }

    /// The directories that do not work, with the reason of each.
    #[must_use]
    pub fn offline(&self) -> Vec<(PathBuf, String)> {
        let failed = self
            .dirs
            .iter()
            .filter_map(|dir| Some((dir.path().to_owned(), dir.offline_reason()?.to_owned())));
        let unusable = self.unusable().into_iter().filter_map(|it| Some((it.path?, it.reason)));
        failed.chain(unusable).collect()
    }

    /// How many directories do not work.
    #[must_use]
    pub fn offline_count(&self) -> usize {
        self.dirs.len() - self.online().count() + self.unusable.read().len()
    }

    /// Whether something of this broker cannot be used: a directory, or a partition that is in several.
    #[must_use]
    pub fn has_offline(&self) -> bool {
        self.offline_count() > 0 || !self.twice.read().is_empty()
    }

    /// The directory that a partition is in; none where nobody knows which of several is right.
    #[must_use]
    pub fn of(&self, partition: &TopicPartition) -> Option<&Arc<LogDir>> {
        if self.twice.read().contains_key(partition) {
            return None;
        }
        self.dirs.iter().find(|dir| dir.get(partition).is_some())
    }

    /// The log of a partition.
    #[must_use]
    pub fn get(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.of(partition)?.get(partition)
    }

    /// The high watermark of a partition as of the last checkpoint of its directory.
    #[must_use]
    pub fn high_watermark(&self, partition: &TopicPartition) -> Offset {
        let known = self.of(partition).and_then(|dir| dir.high_watermarks().get(partition).copied());
        known.unwrap_or(Offset::ZERO)
    }

    /// Makes a new partition where there are the fewest.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn create(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<Arc<Log>, LogError> {
        if let Some(problem) = self.why_twice(partition) {
            return Err(LogError::Partition(problem));
        }
        self.tell_usable();
        let counts: Vec<_> = self.online().map(|dir| (dir.partition_count(), dir)).collect();
        match counts.into_iter().min_by_key(|(count, _)| *count) {
            Some((_, dir)) => dir.create(partition, topic_id, config),
            None => Err(self.nowhere()),
        }
    }

    /// Tells the directories which of them work: what is made while one does not says so, and is not mistaken for older than
    /// what that one has.
    pub(crate) fn tell_usable(&self) {
        let online: Vec<TopicId> = self.online().map(|dir| dir.directory_id()).collect();
        let is_whole = online.len() == self.dirs.len() && !self.lacked_one.load(Ordering::Acquire);
        let usable = (!is_whole).then_some(online);
        self.dirs.iter().for_each(|dir| dir.set_usable(usable.clone()));
    }

    /// Makes those of a topic's partitions that are not there yet, each where there are the fewest.
    ///
    /// # Errors
    /// [`LogError`] of the first that could not be made; the others are there.
    pub fn create_all(
        &self,
        partitions: &[TopicPartition],
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<(), LogError> {
        self.tell_usable();
        let mut plan: Vec<(usize, &Arc<LogDir>, Vec<TopicPartition>)> =
            self.online().map(|dir| (dir.partition_count(), dir, Vec::new())).collect();
        let is_there = |id: &TopicPartition| self.twice.read().contains_key(id) || self.of(id).is_some();
        for partition in partitions.iter().filter(|partition| !is_there(partition)) {
            let Some(least) = plan.iter_mut().min_by_key(|(count, ..)| *count) else {
                return Err(self.nowhere());
            };
            least.0 += 1;
            least.2.push(partition.clone());
        }
        let made = plan.iter().map(|(_, dir, partitions)| dir.create_all(partitions, topic_id, config));
        first_error(made)
    }

    fn nowhere(&self) -> LogError {
        LogError::Partition(format!("no directory works any more: {:?}", self.offline()))
    }

    /// Removes partitions with their files. What is on a directory that has failed is gone as far as that goes: it is
    /// removed as a stray when the directory is back.
    ///
    /// # Errors
    /// [`LogError`]; they are gone all the same.
    pub fn delete_all(&self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let deleted = self.dirs.iter().map(|dir| {
            let there: Vec<TopicPartition> =
                partitions.iter().filter(|partition| dir.get(partition).is_some()).cloned().collect();
            if there.is_empty() {
                return Ok(());
            }
            dir.delete_all(&there)
        });
        let result = first_error(deleted);
        self.twice.write().retain(|partition, _| !partitions.contains(partition));
        result
    }

    /// Compacts a partition's log, if it is due.
    ///
    /// # Errors
    /// As [`LogDir::clean`].
    pub(crate) fn clean(
        &self,
        partition: &TopicPartition,
        high_watermark: Offset,
        options: &CleanOptions,
    ) -> Result<(), LogError> {
        match self.of(partition) {
            Some(dir) => dir.clean(partition, high_watermark, options).map(drop),
            None => Ok(()),
        }
    }

    /// Writes the checkpoints of every directory that works.
    ///
    /// # Errors
    /// [`LogError`] of the first whose checkpoints cannot be written; those of the others are.
    pub(crate) fn checkpoint(&self, marks: &BTreeMap<TopicPartition, Offset>) -> Result<(), LogError> {
        first_error(self.online().map(|dir| {
            dir.checkpoint_high_watermarks(&self.within(dir, marks))?;
            dir.checkpoint()
        }))
    }

    /// Writes everything out, and marks every directory that works as shut down cleanly.
    ///
    /// # Errors
    /// [`LogError`] of the first that could not be, or that has failed before; the others are.
    pub(crate) fn close(
        &self,
        marks: &BTreeMap<TopicPartition, Offset>,
        broker_epoch: i64,
    ) -> Result<(), LogError> {
        first_error(self.dirs.iter().map(|dir| {
            dir.checkpoint_high_watermarks(&self.within(dir, marks))?;
            dir.close(broker_epoch)
        }))
    }

    /// Something may be written from here on ([`LogDir::begin`]).
    ///
    /// # Errors
    /// [`LogError`] of the directory of the metadata; another one is offline then.
    pub fn begin(&self) -> Result<(), LogError> {
        let mut begun = self.dirs.iter().map(|dir| dir.begin());
        let first = begun.next().unwrap_or(Ok(()));
        // The directory itself remembers that it failed.
        begun.for_each(drop);
        first
    }

    /// The broker epoch of the last process, if it shut down all directories cleanly (KIP-966).
    #[must_use]
    pub fn clean_epoch(&self) -> Option<i64> {
        let mut epochs = self.dirs.iter().map(|dir| dir.clean_epoch());
        let first = epochs.next()??;
        (self.unusable.read().is_empty() && epochs.all(|epoch| epoch == Some(first))).then_some(first)
    }

    /// The high watermarks of the partitions in a directory; of those that are not used, as they were found.
    fn within(
        &self,
        dir: &LogDir,
        marks: &BTreeMap<TopicPartition, Offset>,
    ) -> BTreeMap<TopicPartition, Offset> {
        let twice = self.twice.read();
        let unused = dir.high_watermarks().iter().filter(|(partition, _)| twice.contains_key(partition));
        let there = marks.iter().chain(unused).filter(|(partition, _)| dir.get(partition).is_some());
        there.map(|(partition, mark)| (partition.clone(), *mark)).collect()
    }
}

/// Does all, and returns the first error.
fn first_error(results: impl Iterator<Item = Result<(), LogError>>) -> Result<(), LogError> {
    results.fold(Ok(()), Result::and)
}
