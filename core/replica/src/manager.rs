//! The partitions of one broker.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use towpath_log::{CleanOptions, LogError};
use towpath_types::{Offset, Term, TopicId, TopicName, TopicPartition};

use crate::{Brokers, Environment, Leadership, LogDirs, Partition, PartitionError, Settings};

/// What a manager is made of.
#[derive(Debug)]
pub struct ReplicaSettings {
    /// The data directories, their partitions opened.
    pub dirs: Arc<LogDirs>,
    /// What its partitions share.
    pub environment: Arc<Environment>,
}

/// A partition, and its files as soon as somebody needs them.
#[derive(Debug)]
pub(crate) struct Slot {
    leadership: Mutex<Leadership>,
    partition: RwLock<Option<Arc<Partition>>>,
    /// It came to this broker while it ran: it has never had files before.
    is_new: bool,
}

/// One topic's partitions that this broker holds.
#[derive(Debug)]
pub struct TopicReplicas {
    name: TopicName,
    id: TopicId,
    settings: RwLock<Settings>,
    /// By index; none where this broker has no replica.
    slots: RwLock<Vec<Option<Arc<Slot>>>>,
    dirs: Arc<LogDirs>,
    environment: Arc<Environment>,
    /// Held while files are made, so that two requests do not make the same ones, and so that none is made for a
    /// topic that is being deleted.
    deleted: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<TopicName, Arc<TopicReplicas>>,
    /// What is done to all of them is done in the same order in every run of a simulation. Nobody chooses ids so that they
    /// collide: they are ours.
    by_id: HashMap<TopicId, Arc<TopicReplicas>, BuildHasherDefault<DefaultHasher>>,
}

/// The partitions of one broker, by topic name and by topic id.
#[derive(Debug)]
pub struct ReplicaManager {
    dirs: Arc<LogDirs>,
    environment: Arc<Environment>,
    topics: RwLock<Topics>,
    /// What is taken from the metadata from here on was not there when the process started.
    is_running: AtomicBool,
}

impl TopicReplicas {
    /// The topic's name.
    #[must_use]
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// The topic's id.
    #[must_use]
    pub const fn id(&self) -> TopicId {
        self.id
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.slots.read().len()
    }

    /// The partition of an index, its files made if they are not there; `None` if the topic has no such partition.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`] where other brokers have it; [`PartitionError::Storage`],
    /// [`PartitionError::Deleted`].
    pub fn partition(&self, index: i32) -> Result<Option<Arc<Partition>>, PartitionError> {
        let slot = usize::try_from(index).ok().and_then(|index| self.slots.read().get(index).cloned());
        let Some(slot) = slot else { return Ok(None) };
        let slot = slot.ok_or(PartitionError::NotLeader)?;
        if let Some(partition) = slot.get() {
            return Ok(Some(partition));
        }
        let deleted = self.deleted.lock();
        if *deleted {
            return Err(PartitionError::Deleted);
        }
        if let Some(partition) = slot.get() {
            return Ok(Some(partition));
        }
        let id = TopicPartition::new(self.name.clone(), index);
        let settings = self.settings.read().clone();
        let log = match self.dirs.get(&id) {
            Some(log) if log.topic_id() == self.id => log,
            // Another topic's records are not taken for this one's.
            Some(log) => return Err(foreign(&id, log.topic_id()).into()),
            None if let Some(problem) = self.dirs.why_twice(&id) => {
                return Err(PartitionError::Offline(problem));
            }
            None if self.may_be_elsewhere(&slot) => return Err(self.elsewhere(&id)),
            None => self.dirs.create(&id, self.id, settings.log)?,
        };
        let committed = self.dirs.high_watermark(&id);
        let environment = Arc::clone(&self.environment);
        // Held until the partition can be seen: a newer state then reaches it.
        let leadership = slot.leadership.lock();
        let partition = Partition::open(log, leadership.clone(), committed, &settings, environment);
        *slot.partition.write() = Some(Arc::clone(&partition));
        drop(leadership);
        let newer = self.settings.read().clone();
        if newer != settings {
            partition.configure(&newer);
        }
        Ok(Some(partition))
    }

    /// Makes the files of all partitions that have none.
    fn make_files(&self) -> Result<(), PartitionError> {
        let deleted = self.deleted.lock();
        if *deleted {
            return Err(PartitionError::Deleted);
        }
        let settings = self.settings.read().log;
        let slots = self.slots.read();
        let missing: Vec<TopicPartition> = (0..)
            .zip(&*slots)
            .filter(|(_, slot)| {
                slot.as_ref().is_some_and(|slot| slot.get().is_none() && !self.may_be_elsewhere(slot))
            })
            .map(|(index, _)| TopicPartition::new(self.name.clone(), index))
            .collect();
        drop(slots);
        Ok(self.dirs.create_all(&missing, self.id, settings)?)
    }

    /// Whether a partition without files may have them in a directory that cannot be used. It does not begin anew then:
    /// that would pass for all that there is.
    fn may_be_elsewhere(&self, slot: &Slot) -> bool {
        !slot.is_new && self.dirs.has_unusable()
    }

    fn elsewhere(&self, id: &TopicPartition) -> PartitionError {
        let reasons: Vec<String> = self.dirs.unusable().into_iter().map(|dir| dir.reason).collect();
        PartitionError::Offline(format!(
            "{id} is in none of the directories that work: {}",
            reasons.join("; ")
        ))
    }

    /// Whether this broker holds a partition and cannot use it: its directory has failed, or is not there.
    #[must_use]
    pub fn is_offline(&self, index: i32) -> bool {
        let Some(slot) = self.slot(index) else { return false };
        match slot.get() {
            Some(partition) => partition.log().offline_reason().is_some(),
            None => {
                let id = TopicPartition::new(self.name.clone(), index);
                self.dirs.is_twice(&id, self.id) || (self.may_be_elsewhere(&slot) && !self.has_files(&id))
            }
        }
    }

    /// The partition of an index if its files are there.
    #[must_use]
    pub fn open_partition(&self, index: i32) -> Option<Arc<Partition>> {
        let slots = self.slots.read();
        slots.get(usize::try_from(index).ok()?)?.as_ref()?.get()
    }

    /// Held while a copy takes a partition's place; whether the topic is being deleted.
    pub(crate) fn lock_deleted(&self) -> MutexGuard<'_, bool> {
        self.deleted.lock()
    }

    /// The settings of the topic as they are now.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().clone()
    }

    pub(crate) fn slot(&self, index: i32) -> Option<Arc<Slot>> {
        let slots = self.slots.read();
        slots.get(usize::try_from(index).ok()?)?.clone()
    }

    /// The term in which this broker leads the partition of an index; `None` while it does not.
    #[must_use]
    pub fn term(&self, index: i32) -> Option<Term> {
        let slot = self.slots.read().get(usize::try_from(index).ok()?)?.clone()?;
        match slot.get() {
            Some(partition) => partition.term(),
            None => {
                let leadership = slot.leadership.lock();
                (leadership.leader == Some(self.environment.me()))
                    // Whoever opens the partition begins its first term.
                    .then_some(Term { leader_epoch: leadership.leader_epoch, number: 1 })
            }
        }
    }

    /// Whether this broker leads the partition of an index: what its role says, or, before it is opened, the metadata.
    #[must_use]
    pub fn leads(&self, index: i32) -> bool {
        let slot = usize::try_from(index).ok().and_then(|index| self.slots.read().get(index).cloned());
        let Some(slot) = slot.flatten() else { return false };
        match slot.get() {
            Some(partition) => partition.is_leader(),
            None => slot.leadership.lock().leader == Some(self.environment.me()),
        }
    }

    /// The names of the partitions that this broker holds, in order.
    fn ids(&self) -> Vec<TopicPartition> {
        let slots = self.slots.read();
        let held = (0..).zip(&*slots).filter(|(_, slot)| slot.is_some());
        held.map(|(index, _)| TopicPartition::new(self.name.clone(), index)).collect()
    }

    /// Whether a partition's files are there, and this topic's.
    fn has_files(&self, id: &TopicPartition) -> bool {
        self.dirs.get(id).is_some_and(|log| log.topic_id() == self.id) || self.dirs.is_twice(id, self.id)
    }

    /// Whether a partition of this topic is in several directories, and nobody knows which is right.
    #[must_use]
    pub fn is_twice(&self, index: i32) -> bool {
        self.dirs.is_twice(&TopicPartition::new(self.name.clone(), index), self.id)
    }

    fn opened(&self) -> Vec<Arc<Partition>> {
        self.slots.read().iter().flatten().filter_map(|slot| slot.get()).collect()
    }

    /// Takes the partitions' states, one an index; returns those that this broker no longer holds.
    fn update(
        &self,
        leaderships: Vec<Option<Leadership>>,
        settings: &Settings,
        is_new: bool,
    ) -> Vec<TopicPartition> {
        let mut slots = self.slots.write();
        let mut current = self.settings.write();
        let new_settings = (*current != *settings).then_some(settings);
        let mut gone = Vec::new();
        for ((index, id), leadership) in (0..).zip(0..).zip(leaderships) {
            if slots.len() <= index {
                slots.push(None);
            }
            match (&slots[index], leadership) {
                (Some(slot), Some(leadership)) => slot.update(leadership, new_settings),
                (Some(slot), None) => {
                    if let Some(partition) = slot.get() {
                        partition.delete();
                    }
                    slots[index] = None;
                    gone.push(TopicPartition::new(self.name.clone(), id));
                }
                (None, Some(leadership)) => slots[index] = Some(Arc::new(Slot::new(leadership, is_new))),
                (None, None) => {}
            }
        }
        if let Some(settings) = new_settings {
            *current = settings.clone();
        }
        gone
    }
}

impl Slot {
    fn new(leadership: Leadership, is_new: bool) -> Self {
        Self { leadership: Mutex::new(leadership), partition: RwLock::default(), is_new }
    }

    pub(crate) fn get(&self) -> Option<Arc<Partition>> {
        self.partition.read().clone()
    }

    /// Holds up new states of the partition.
    pub(crate) fn lock_leadership(&self) -> MutexGuard<'_, Leadership> {
        self.leadership.lock()
    }

    /// Another partition takes the place of this one. The caller holds up new states.
    pub(crate) fn replace(&self, partition: Arc<Partition>) {
        *self.partition.write() = Some(partition);
    }

    fn update(&self, leadership: Leadership, settings: Option<&Settings>) {
        let mut known = self.leadership.lock();
        match (self.get(), settings) {
            (Some(partition), Some(settings)) => partition.update_and_configure(leadership.clone(), settings),
            (Some(partition), None) if *known != leadership => partition.update(leadership.clone()),
            _ => {}
        }
        *known = leadership;
    }
}

fn foreign(partition: &TopicPartition, topic: TopicId) -> LogError {
    LogError::Partition(format!("the directory of {partition} belongs to another topic, with the id {topic}"))
}

impl ReplicaManager {
    /// A manager without topics.
    #[must_use]
    pub fn new(settings: ReplicaSettings) -> Self {
        Self {
            dirs: settings.dirs,
            environment: settings.environment,
            topics: RwLock::default(),
            is_running: AtomicBool::new(false),
        }
    }

    /// What the partitions share.
    #[must_use]
    pub const fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    /// Takes the brokers as the metadata have them now.
    pub fn set_brokers(&self, brokers: Brokers) {
        self.environment.set_brokers(brokers);
        self.partitions().iter().for_each(Partition::brokers_changed);
    }

    /// The data directories.
    #[must_use]
    pub const fn dirs(&self) -> &Arc<LogDirs> {
        &self.dirs
    }

    /// The metadata as of the start are known: what is taken from them from here on has never had files here.
    pub fn started(&self) {
        self.is_running.store(true, Ordering::Release);
    }

    /// All topics, in no order.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<TopicReplicas>> {
        self.topics.read().by_id.values().cloned().collect()
    }

    /// Takes a topic from the metadata, new or changed: one leadership for every partition that this broker holds, none
    /// for the others; the files of those that it no longer holds are removed. With `eager`, files are made at once;
    /// those that exist are always opened.
    ///
    /// # Errors
    /// [`PartitionError`] of the first partition whose files could not be made or opened.
    pub fn set_topic(
        &self,
        name: &TopicName,
        id: TopicId,
        leaderships: Vec<Option<Leadership>>,
        settings: &Settings,
        eager: bool,
    ) -> Result<(), PartitionError> {
        let topic = {
            let mut topics = self.topics.write();
            match topics.by_id.get(&id) {
                Some(topic) => Arc::clone(topic),
                None => {
                    let topic = Arc::new(TopicReplicas {
                        name: name.clone(),
                        id,
                        settings: RwLock::new(settings.clone()),
                        slots: RwLock::default(),
                        dirs: Arc::clone(&self.dirs),
                        environment: Arc::clone(&self.environment),
                        deleted: Mutex::new(false),
                    });
                    topics.by_name.insert(name.clone(), Arc::clone(&topic));
                    topics.by_id.insert(id, Arc::clone(&topic));
                    topic
                }
            }
        };
        let gone = topic.update(leaderships, settings, self.is_running.load(Ordering::Acquire));
        let mut result = self.remove_files(&topic, gone).map_err(PartitionError::from);
        if eager {
            result = result.and_then(|()| topic.make_files());
        }
        // Where some could not be made, the others are used all the same.
        for id in topic.ids() {
            if (eager && result.is_ok()) || topic.has_files(&id) {
                let opened = match topic.partition(id.partition) {
                    // Nothing that a second attempt could mend: it is told as offline.
                    Err(PartitionError::Offline(_)) => Ok(()),
                    opened => opened.map(drop),
                };
                result = result.and(opened);
            }
        }
        result
    }

    /// Removes a topic and its files.
    ///
    /// # Errors
    /// [`LogError`]; the partitions are gone all the same, and their files go at the next start.
    pub fn remove_topic(&self, id: TopicId) -> Result<(), LogError> {
        let removed = {
            let mut topics = self.topics.write();
            let removed = topics.by_id.remove(&id);
            if let Some(topic) = &removed
                && topics.by_name.get(&topic.name).is_some_and(|named| named.id == id)
            {
                topics.by_name.remove(&topic.name);
            }
            removed
        };
        let Some(topic) = removed else { return Ok(()) };
        *topic.deleted.lock() = true;
        topic.opened().iter().for_each(|partition| partition.delete());
        // Also those that were made and never opened, because the creation failed halfway: their names must be free.
        let partitions = topic.ids();
        self.remove_files(&topic, partitions)
    }

    fn remove_files(
        &self,
        topic: &TopicReplicas,
        mut partitions: Vec<TopicPartition>,
    ) -> Result<(), LogError> {
        partitions.retain(|id| topic.has_files(id));
        if partitions.is_empty() { Ok(()) } else { self.dirs.delete_all(&partitions) }
    }

    /// A topic by its name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<TopicReplicas>> {
        self.topics.read().by_name.get(name).cloned()
    }

    /// A topic by its id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicReplicas>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    /// All partitions whose files are open, in no order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.read().by_id.values().flat_map(|topic| topic.opened()).collect()
    }

    /// Writes the checkpoints of the directories that work: high watermarks, recovery points, log start offsets.
    ///
    /// # Errors
    /// [`LogError`] of the first directory that fails by that.
    pub fn checkpoint(&self) -> Result<(), LogError> {
        self.dirs.checkpoint(&self.high_watermarks())
    }

    fn high_watermarks(&self) -> BTreeMap<TopicPartition, Offset> {
        let partitions = self.partitions();
        partitions.iter().map(|partition| (partition.id().clone(), partition.high_watermark())).collect()
    }

    /// Removes segments past their retention, and forgets producers that have been silent for too long.
    pub fn enforce_retention(&self) {
        for partition in self.partitions() {
            partition.log().expire_producers();
            match partition.log().delete_old_segments(partition.high_watermark()) {
                Ok(_) | Err(LogError::Closed(_)) => {}
                Err(error) => tracing::error!(partition = %partition.id(), %error, "retention failed"),
            }
        }
    }

    /// Compacts the logs that are due.
    pub fn compact(&self, options: &CleanOptions) {
        for partition in self.partitions() {
            if !partition.log().config().compact {
                continue;
            }
            // By name: a topic that was created anew is another one.
            if self.dirs.get(partition.id()).is_none_or(|log| log.topic_id() != partition.topic_id()) {
                continue;
            }
            match self.dirs.clean(partition.id(), partition.high_watermark(), options) {
                Ok(()) | Err(LogError::Closed(_) | LogError::Partition(_)) => {}
                Err(error) => tracing::error!(partition = %partition.id(), %error, "compaction failed"),
            }
        }
    }

    /// Lets logs that nobody has written to since the last call give back the memory of their recent batches.
    pub fn release_idle_memory(&self) {
        for partition in self.partitions() {
            partition.release_if_idle();
        }
    }

    /// Looks for followers that have fallen behind: silence says nothing, so somebody has to ask now and then.
    pub fn consider_isrs(&self) {
        for partition in self.partitions() {
            partition.consider_isr();
        }
    }

    /// Asks for the flushes that `flush.ms` wants. Called every second.
    pub fn flush_old(&self) {
        for partition in self.partitions() {
            partition.flush_if_old();
        }
    }

    /// Stops flushing, writes everything out and marks the directories as shut down cleanly.
    ///
    /// # Errors
    /// [`LogError`]; the next start then recovers as after a crash.
    pub fn close(&self, broker_epoch: i64) -> Result<(), LogError> {
        self.environment.flusher().stop();
        self.dirs.close(&self.high_watermarks(), broker_epoch)
    }
}
