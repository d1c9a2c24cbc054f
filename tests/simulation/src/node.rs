//! A node: a disk and clocks that outlive its processes, and the process that runs on them.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use towpath_controller::{Liveness, MetadataImage, PartitionImage, TopicImage};
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{Clock, DirIdentity, Log, LogConfig, LogDir, LogDirOptions, Storage};
use towpath_replica::{
    Appended, BrokerView, Brokers, Environment, FetchPlan, Flusher, IsrProposal, Leadership, LogDirs,
    MonotonicClock, Partition, ReplicaManager, ReplicaSettings, Settings,
};
use towpath_types::{BrokerEpoch, BrokerId, Rules, TopicId, TopicPartition};
use uuid::Uuid;

use crate::groups::Coordinator;
use crate::model::Ending;
use crate::transactions::{Marking, TransactionDriver, Verifying};

use crate::net::Party;
use crate::profile::{LAG_MS, Profile};
use crate::sim::{Asked, Event};
use crate::violation::{Checked, INTERNAL, RECOVERY, Violation};

pub(crate) const CLUSTER: &str = "simulated";
const DATA: &str = "/data";

/// A monotonic clock that stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct SteadyClock(AtomicI64);

impl SteadyClock {
    pub(crate) fn reach(&self, now_ms: i64) {
        self.0.fetch_max(now_ms, Ordering::Relaxed);
    }
}

impl MonotonicClock for SteadyClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A machine.
pub(crate) struct Node {
    pub(crate) id: BrokerId,
    pub(crate) storage: SimStorage,
    pub(crate) wall: Arc<SimClock>,
    pub(crate) steady: Arc<SteadyClock>,
    /// How fast its clock runs, in thousandths.
    pub(crate) rate: i64,
    /// How far it jumped.
    pub(crate) jumped_ms: i64,
    pub(crate) process: Option<Process>,
    pub(crate) is_paused: bool,
    /// What waits for a process that is stopped.
    pub(crate) held: Vec<Event>,
    /// How the last process ended.
    pub(crate) ending: Ending,
    /// A crash took records, and no new registration has told the controller since.
    pub(crate) lost_since_registration: bool,
    /// A crash took records at some time.
    pub(crate) has_ever_lost: bool,
    /// The process that had lost them.
    pub(crate) lost_by: u64,
    /// A disturbance of its metadata: nothing is heard before this time.
    pub(crate) deaf_until: i64,
    /// How far its wall clock is from the other one.
    pub(crate) wall_jumped_ms: i64,
    /// The image that was on its disk when its last process ended.
    pub(crate) last_image: Arc<MetadataImage>,
    /// Whether something is planned for it already.
    pub(crate) is_doomed: bool,
}

/// A change of ISRs that the controller is asked for.
#[derive(Debug)]
pub(crate) struct IsrRequest {
    pub(crate) number: u64,
    pub(crate) proposals: Vec<(usize, TopicId, IsrProposal)>,
    pub(crate) until: i64,
}

/// A produce request that waits to be committed.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) topic: usize,
    pub(crate) appended: Appended,
    pub(crate) ids: Vec<u64>,
    pub(crate) client: Party,
    pub(crate) number: u64,
    pub(crate) until: i64,
}

/// A node as the active controller, or as one that believes to be it.
pub(crate) struct ActiveController {
    pub(crate) term: u64,
    pub(crate) image: Arc<MetadataImage>,
    pub(crate) liveness: Liveness,
    /// A decision is on its way to the quorum; the others wait, since each is made on the image that the one before it
    /// left.
    pub(crate) is_deciding: bool,
    pub(crate) waiting: VecDeque<Asked>,
}

/// What a process knows of its registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Asks to be registered.
    Registering,
    /// Is registered.
    Registered,
}

/// A process.
pub(crate) struct Process {
    /// Unique among all processes.
    pub(crate) number: u64,
    pub(crate) incarnation: Uuid,
    pub(crate) dir: Arc<LogDir>,
    pub(crate) environment: Arc<Environment>,
    pub(crate) manager: ReplicaManager,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) previous_epoch: BrokerEpoch,
    pub(crate) epoch: BrokerEpoch,
    pub(crate) stage: Stage,
    /// Whether its partitions are open to others.
    pub(crate) serves: bool,
    /// The metadata that it goes by.
    pub(crate) image: Arc<MetadataImage>,
    /// Opened, before the metadata said what belongs here.
    pub(crate) logs: Vec<Arc<Log>>,
    pub(crate) heartbeat_due: i64,
    pub(crate) asks_until: i64,
    pub(crate) is_stopping: bool,
    /// The fetches that are out, by topic and leader, and until when each is waited for.
    pub(crate) fetches: BTreeMap<(usize, BrokerId), (FetchPlan, i64)>,
    pub(crate) isr: Option<IsrRequest>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) flush_planned: bool,
    pub(crate) controller: Option<ActiveController>,
    /// Which controller it asks.
    pub(crate) view: usize,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) transactions: Option<TransactionDriver>,
    /// What waits for the transaction coordinator's word.
    pub(crate) verifying: Vec<Verifying>,
    /// Markers that wait to be committed.
    pub(crate) marking: Vec<Marking>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both hold partitions, which hold them.
        self.flusher.stop();
        drop(self.environment.isr_queue().take());
    }
}

impl Node {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        let id = BrokerId::new(i32::try_from(index).unwrap_or(0) + 1);
        Self {
            id,
            storage: SimStorage::new(seed.wrapping_mul(31).wrapping_add(index as u64)),
            wall: Arc::new(SimClock::new(0)),
            steady: Arc::new(SteadyClock::default()),
            rate: 1000,
            jumped_ms: 0,
            process: None,
            is_paused: false,
            held: Vec::new(),
            ending: Ending::Kept,
            lost_since_registration: false,
            has_ever_lost: false,
            lost_by: 0,
            deaf_until: 0,
            wall_jumped_ms: 0,
            last_image: Arc::new(MetadataImage::new()),
            is_doomed: false,
        }
    }

    /// What its clock says.
    pub(crate) fn clock_ms(&self, now: i64) -> i64 {
        now * self.rate / 1000 + self.jumped_ms
    }

    /// Moves its clocks.
    pub(crate) fn pass_time(&self, now: i64) {
        let ms = self.clock_ms(now);
        self.steady.reach(ms);
        self.wall.set(ms + self.wall_jumped_ms);
    }

    /// A running process that is not stopped.
    pub(crate) const fn running(&mut self) -> Option<&mut Process> {
        if self.is_paused { None } else { self.process.as_mut() }
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.is_paused && self.process.is_some()
    }

    /// Starts a process on what is on the disk.
    pub(crate) fn start(&mut self, number: u64, rules: Rules, log: LogConfig) -> Checked {
        let failed = |error: towpath_log::LogError| {
            Violation::new(RECOVERY, format!("node {} does not start: {error}", self.id))
        };
        let options = LogDirOptions {
            identity: DirIdentity { cluster_id: CLUSTER.to_owned(), node_id: self.id.get() },
            tail_bytes_max: 1 << 20,
        };
        let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
        let wall: Arc<dyn Clock> = Arc::clone(&self.wall) as Arc<dyn Clock>;
        let dir = Arc::new(LogDir::open(storage, wall, Path::new(DATA), &options).map_err(failed)?);
        let (logs, broken) = dir.open_all(|_, _| log).map_err(failed)?;
        if let Some((partition, error)) = broken.into_iter().next() {
            return Err(Violation::new(RECOVERY, format!("node {}, {partition}: {error}", self.id)));
        }
        let flusher = Arc::new(Flusher::manual());
        let steady: Arc<dyn MonotonicClock> = Arc::clone(&self.steady) as Arc<dyn MonotonicClock>;
        let environment =
            Arc::new(Environment::new(self.id, LAG_MS, Arc::clone(&flusher)).simulated(steady, rules));
        let manager = ReplicaManager::new(ReplicaSettings {
            dirs: Arc::new(LogDirs::one(Arc::clone(&dir))),
            environment: Arc::clone(&environment),
        });
        self.process = Some(Process {
            number,
            incarnation: Uuid::from_u64_pair(1, number),
            previous_epoch: BrokerEpoch::new(dir.clean_epoch().unwrap_or(-1)),
            dir,
            environment,
            manager,
            flusher,
            epoch: BrokerEpoch::new(-1),
            stage: Stage::Registering,
            serves: false,
            image: Arc::new(MetadataImage::new()),
            logs,
            heartbeat_due: 0,
            asks_until: 0,
            is_stopping: false,
            fetches: BTreeMap::new(),
            isr: None,
            waiting: Vec::new(),
            flush_planned: false,
            controller: None,
            view: 0,
            coordinator: None,
            transactions: None,
            verifying: Vec::new(),
            marking: Vec::new(),
        });
        Ok(())
    }

    /// The process is gone; what becomes of the disk is the caller's matter.
    pub(crate) fn end_process(&mut self) {
        if let Some(process) = self.process.take() {
            self.last_image = Arc::clone(&process.image);
        }
        self.is_paused = false;
        // Its sockets are gone with it.
        self.held.clear();
    }
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records of producers.
    Data,
    /// `__consumer_offsets`.
    Offsets,
    /// `__transaction_state`.
    Transactions,
}

/// A partition of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// The topic's name.
    pub(crate) name: String,
    pub(crate) index: i32,
    /// The topic's place in the profile.
    pub(crate) topic: usize,
    pub(crate) kind: Kind,
    pub(crate) is_compacted: bool,
    /// The topic as it is now; another one when it was deleted and created again.
    pub(crate) id: Option<TopicId>,
    /// How often it was deleted.
    pub(crate) generation: u64,
}

impl Slot {
    /// All partitions of a profile's topics.
    pub(crate) fn all(profile: &Profile) -> Vec<Self> {
        let data = profile.topics.len() - 1 - usize::from(profile.transactional);
        let slots = profile.topics.iter().enumerate().flat_map(|(topic, wanted)| {
            let (name, kind) = match topic {
                _ if topic < data => (format!("t{topic}"), Kind::Data),
                _ if topic == data => ("__consumer_offsets".to_owned(), Kind::Offsets),
                _ => ("__transaction_state".to_owned(), Kind::Transactions),
            };
            (0..).take(wanted.partitions).map(move |index| Self {
                name: name.clone(),
                index,
                topic,
                kind,
                is_compacted: wanted.compacted,
                id: None,
                generation: 0,
            })
        });
        slots.collect()
    }

    /// The partition in the metadata.
    pub(crate) fn state<'a>(&self, image: &'a MetadataImage) -> Option<&'a PartitionImage> {
        image.topic(&self.name)?.partitions.get(usize::try_from(self.index).ok()?)
    }

    /// Whether a replica's files are of this partition as it is now.
    pub(crate) fn is_at(&self, partition: &TopicPartition, topic: TopicId) -> bool {
        self.id == Some(topic) && self.index == partition.partition && self.name == partition.topic.as_str()
    }
}

/// What the metadata say of a partition, for a replica.
pub(crate) fn leadership(partition: &PartitionImage) -> Leadership {
    Leadership {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        recovering: partition.recovering,
        adding: partition.adding_replicas.clone(),
    }
}

fn brokers(image: &MetadataImage) -> Brokers {
    let view = |broker: &towpath_controller::BrokerRegistration| {
        (broker.id, BrokerView { epoch: broker.epoch, is_eligible: broker.is_active() })
    };
    Brokers::new(image.brokers().map(view))
}

/// `min.insync.replicas` of a topic.
pub(crate) fn min_isr(topic: &TopicImage) -> usize {
    topic.configs.get("min.insync.replicas").and_then(|value| value.parse().ok()).unwrap_or(1)
}

/// Whether a topic counts records only once they are flushed.
pub(crate) fn is_flushed(topic: &TopicImage) -> bool {
    topic.configs.get("flush.messages").is_some_and(|value| value == "1")
}

impl Process {
    /// A partition, if it is here, and of the topic that is there now.
    pub(crate) fn partition(&self, slot: &Slot) -> Option<Arc<Partition>> {
        let topic = self.manager.topic(&slot.name).filter(|topic| Some(topic.id()) == slot.id)?;
        topic.open_partition(slot.index)
    }

    /// A topic is another one: what was under way there comes to nothing.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.fetches.retain(|(of, _), _| *of != slot);
        self.waiting.retain(|waiting| waiting.topic != slot);
        self.marking.retain(|marking| marking.slot != slot);
        self.verifying.retain(|verifying| verifying.write.slot != slot);
    }

    /// Whether the directory takes no more work.
    pub(crate) fn is_offline(&self) -> bool {
        self.dir.offline_reason().is_some()
    }

    /// Goes by another image from here on. Returns the partitions whose files were removed.
    pub(crate) fn apply(
        &mut self,
        me: BrokerId,
        image: &Arc<MetadataImage>,
        log: LogConfig,
    ) -> Checked<Vec<(TopicPartition, TopicId)>> {
        let before = std::mem::replace(&mut self.image, Arc::clone(image));
        if image.brokers().ne(before.brokers()) {
            self.manager.set_brokers(brokers(image));
        }
        let mut removed = Vec::new();
        for gone in before.topics().filter(|topic| image.topic_by_id(topic.id).is_none()) {
            let files =
                (0..).take(gone.partitions.len()).map(|index| TopicPartition::new(gone.name.clone(), index));
            removed.extend(files.map(|partition| (partition, gone.id)));
            // What fails is removed at the next start.
            drop(self.manager.remove_topic(gone.id));
        }
        for topic in image.topics() {
            let known = before.topic_by_id(topic.id);
            if known.is_some_and(|known| Arc::ptr_eq(known, topic) || known == topic) {
                continue;
            }
            let here = self.manager.topic_by_id(topic.id);
            let mut own = Vec::with_capacity(topic.partitions.len());
            for (index, state) in (0..).zip(&topic.partitions) {
                let leadership = state.replicas.contains(&me).then(|| leadership(state));
                if leadership.is_none()
                    && here.as_ref().is_some_and(|here| here.open_partition(index).is_some())
                {
                    removed.push((TopicPartition::new(topic.name.clone(), index), topic.id));
                }
                own.push(leadership);
            }
            let compact = topic.configs.get("cleanup.policy").is_some_and(|value| value == "compact");
            let settings = Settings {
                log: LogConfig { compact, delete: !compact, ..log },
                min_insync_replicas: min_isr(topic),
                flush_messages: if is_flushed(topic) { 1 } else { i64::MAX },
                flush_ms: i64::MAX,
            };
            // What fails shows where it is used: the directory is offline then.
            let set = self.manager.set_topic(&topic.name, topic.id, own, &settings, true);
            if let Err(error) = set
                && !self.is_offline()
            {
                return Err(Violation::new(INTERNAL, format!("topic {}: {error}", topic.name)));
            }
        }
        Ok(removed)
    }

    /// Removes what is on the disk and does not belong here any more. Returns the partitions.
    pub(crate) fn remove_strays(
        &mut self,
        me: BrokerId,
        image: &MetadataImage,
    ) -> Vec<(TopicPartition, TopicId)> {
        let mut removed = Vec::new();
        for log in std::mem::take(&mut self.logs) {
            let index = usize::try_from(log.partition().partition).unwrap_or(usize::MAX);
            let state = image.topic_by_id(log.topic_id()).and_then(|topic| topic.partitions.get(index));
            if !state.is_some_and(|state| state.replicas.contains(&me)) {
                // A disk that fails shows where it is used.
                drop(self.dir.delete(log.partition()));
                removed.push((log.partition().clone(), log.topic_id()));
            }
        }
        removed
    }
}
