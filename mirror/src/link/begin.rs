//! One life of a link: takes over, finds out how far it had come, and moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use towpath_client::{
    Client, ClientError, ConfigResource, IsolationLevel, OffsetSpec, PartitionDescription, RawFetch,
};
use towpath_types::{Offset, ProducerEpoch, ProducerId, TopicId, TopicName, TopicPartition};
use uuid::Uuid;

use super::announce::Announcer;
use super::groups;
use super::inherit::{self, Syncs};
use super::mover::{Moved, Mover};
use super::pacer::Pacer;
use super::plan;
use super::provenance::Provenance;
use super::state::{self, Store, Stored};
use super::status::Progress;
use super::topics::{self, Mirrored};
use super::{Begin, LinkError, LinkState, Shared};
use crate::DecodeError;
use crate::flow::{Flow, Lane, Position, Seen, recover};
use crate::map::OffsetMap;
use crate::naming::Naming;

/// Bytes of one look at the target's log.
const SCAN_BYTES: usize = 4 << 20;
/// Looks at the source for one at the settings of its topics.
const CONFIGS_EVERY: u32 = 6;
/// Partitions that wait for a mover.
const QUEUE: usize = 1024;
/// How long a start waits for leaders of new topics, and other things that come by themselves.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What one life has.
pub(super) struct Life<'a> {
    pub(super) shared: &'a Shared,
    pub(super) source: Client,
    pub(super) target: Client,
    pub(super) store: Store,
    pub(super) stored: Stored,
    lane: Lane,
    provenance: Option<Arc<Provenance>>,
    /// The partitions that were given to a mover, or cannot be.
    pub(super) begun: BTreeSet<TopicPartition>,
    /// Which topics are mirrored, by the source's name.
    pub(super) ids: BTreeMap<TopicName, Ids>,
    movers: Vec<mpsc::Sender<Moved>>,
    /// When settings are looked at again.
    configs_at: Option<Instant>,
    /// Topics that the source did not list, and how many times in a row.
    pub(super) missing: BTreeMap<TopicName, u32>,
    /// What MirrorMaker has told, where the link goes on from there.
    syncs: Syncs,
}

/// The topics of both sides, which are others when they were made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) source: TopicId,
    pub(super) target: TopicId,
}

impl Ids {
    fn encode(self) -> Bytes {
        Bytes::from([*self.source.get().as_bytes(), *self.target.get().as_bytes()].concat())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (ids, []) = bytes.as_chunks::<16>() else {
            return Err(DecodeError::Damaged("an id has 16 bytes"));
        };
        let [source, target] = ids else { return Err(DecodeError::Damaged("there are two ids")) };
        let id = |bytes: &[u8; 16]| TopicId::new(Uuid::from_bytes(*bytes));
        Ok(Self { source: id(source), target: id(target) })
    }
}

/// Runs until the link is told to stop, or something ends this life.
pub(super) async fn run(
    shared: &Shared,
    told: &watch::Sender<(LinkState, Option<String>)>,
) -> Result<(), LinkError> {
    let mut stop = shared.stop.clone();
    let mut tasks = JoinSet::new();
    let (fail, mut failed) = mpsc::channel(1);
    let begun = async {
        let mut life = Life::begin(shared, &mut tasks, &fail).await?;
        let mut announcer = match shared.config.mirrormaker_topics {
            true => Some(Announcer::begin(&shared.config, &life.source, &life.target).await?),
            false => None,
        };
        loop {
            // Who has nothing to store would not notice that another has taken over, and say that it runs (R8).
            life.own().await?;
            life.discover().await?;
            told.send_replace((LinkState::Running, None));
            let translated = groups::sync(shared, &life.source, &life.target).await?;
            if let Some(announcer) = &mut announcer {
                announcer.tell(translated).await?;
            }
            tokio::time::sleep(shared.config.refresh).await;
        }
    };
    let ended = tokio::select! {
        ended = begun => ended,
        Some(error) = failed.recv() => Err(error),
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    };
    tasks.shutdown().await;
    ended
}

impl<'a> Life<'a> {
    async fn begin(
        shared: &'a Shared,
        tasks: &mut JoinSet<()>,
        fail: &mpsc::Sender<LinkError>,
    ) -> Result<Self, LinkError> {
        let config = &shared.config;
        let source = Client::connect(config.source.clone()).await.map_err(LinkError::Source)?;
        let target = Client::connect(config.target.clone()).await.map_err(LinkError::Target)?;
        let topic = state::topic_of(&config.name).map_err(LinkError::Link)?;
        // R6: who begins again after a failure does not take over from who has taken over meanwhile.
        if shared.owned.load(Ordering::Relaxed) {
            let stored = state::read(&target, &topic).await.map_err(LinkError::state)?;
            if stored.get(state::OWNER).is_some_and(|owner| **owner != *shared.owner.as_bytes()) {
                return Err(LinkError::Fenced);
            }
        }
        let (store, stored, writing) =
            Store::start(&target, &config.name, &topic).await.map_err(LinkError::state)?;
        tasks.spawn(writing);
        shared.known.lock().clear();
        let syncs = match config.begin {
            Begin::MirrorMaker => inherit::syncs(config, &source).await?,
            Begin::Anew => Syncs::new(),
        };
        let mut life = Self {
            shared,
            source,
            target,
            store,
            stored,
            lane: Lane { producer_id: ProducerId::NONE, epoch: ProducerEpoch::NONE },
            provenance: None,
            begun: BTreeSet::new(),
            ids: BTreeMap::new(),
            movers: Vec::new(),
            configs_at: None,
            missing: BTreeMap::new(),
            syncs,
        };
        life.own().await?;
        life.take_over().await?;
        let pacer = Arc::new(Pacer::new(config.bandwidth));
        for _ in 0..config.tasks.max(1) {
            let (mover, more) = mpsc::channel(QUEUE);
            life.movers.push(mover);
            let provenance = life.provenance.clone();
            let pacer = Arc::clone(&pacer);
            let moving =
                Mover::new(|| life.source.raw(), life.target.raw(), life.store.clone(), provenance, pacer);
            let (stop, fail) = (shared.stop.clone(), fail.clone());
            tasks.spawn(async move {
                if let Err(error) = moving.run(more, stop).await {
                    // The first one tells.
                    let _ = fail.try_send(error);
                }
            });
        }
        Ok(life)
    }

    /// Stores whose turn it is.
    async fn own(&self) -> Result<(), LinkError> {
        let owner = Bytes::copy_from_slice(self.shared.owner.as_bytes());
        self.store.put(state::OWNER.to_owned(), owner).await.map_err(LinkError::state)?;
        self.shared.owned.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Shuts out whoever wrote before, wherever it may write.
    async fn take_over(&mut self) -> Result<(), LinkError> {
        let config = &self.shared.config;
        let mut written = Vec::new();
        let positions = format!("{}:", state::POSITION);
        let sources: Vec<TopicPartition> =
            self.stored.keys().filter_map(|key| state::parse(key.strip_prefix(&positions)?)).collect();
        for source in sources {
            written.push(TopicPartition::new(
                config.naming.target(&config.from, &source.topic)?,
                source.partition,
            ));
        }
        // What was deleted at the target cannot be written to by anybody.
        let topics: BTreeSet<TopicName> = written.iter().map(|partition| partition.topic.clone()).collect();
        let topics: Vec<TopicName> = topics.into_iter().collect();
        let there = self.target.admin().describe_topics(&topics).await.map_err(LinkError::Target)?;
        written.retain(|partition| {
            let described = there.get(&partition.topic).and_then(|described| described.as_ref().ok());
            described
                .is_some_and(|topic| topic.partitions.iter().any(|it| it.partition == partition.partition))
        });
        if config.naming == Naming::Identical {
            let provenance =
                Provenance::begin(config, (&self.source, &self.target), &self.store, &self.stored, &written);
            let provenance = provenance.await?;
            self.lane = provenance.own().unwrap_or(self.lane);
            self.provenance = Some(Arc::new(provenance));
        } else {
            let id = format!("towpath-mirror.{}", config.name);
            let writer = self.target.raw().fence(&id, &written).await.map_err(LinkError::Target)?;
            self.lane = Lane { producer_id: writer.producer_id, epoch: writer.epoch };
        }
        tracing::info!(
            link = config.name,
            producer_id = self.lane.producer_id.get(),
            epoch = self.lane.epoch.get(),
            partitions = written.len(),
            "the link has taken over"
        );
        Ok(())
    }

    /// Looks for topics and partitions, and begins those that are new.
    async fn discover(&mut self) -> Result<(), LinkError> {
        let (source, target) = (self.source.admin(), self.target.admin());
        let wanted = topics::wanted(&self.shared.config, &source).await?;
        // Settings change seldom, and there are many of them.
        let with_configs = self.configs_at.is_none_or(|at| at <= Instant::now());
        let ensured = plan::ensure(&self.shared.config, &source, &target, &wanted, with_configs).await?;
        if with_configs {
            self.configs_at = Some(Instant::now() + self.shared.config.refresh * CONFIGS_EVERY);
        }
        self.notice_gone(&wanted).await?;
        let mut left_out = BTreeMap::new();
        for topic in &wanted {
            let name = &topic.source.name;
            let known = match ensured.get(name) {
                None => continue,
                Some(Err(problem)) => Err(problem.clone()),
                Some(Ok(there)) => self.same(topic, there.id).await?,
            };
            if let Err(problem) = known {
                left_out.insert(name.clone(), problem);
                continue;
            }
            let there = ensured.get(name).and_then(|it| it.as_ref().ok()).map_or(0, |it| it.partitions);
            let has_it = |partition: &&PartitionDescription| {
                usize::try_from(partition.partition).is_ok_and(|it| it < there)
            };
            if there < topic.source.partitions.len() {
                let count = topic.source.partitions.len();
                let why = format!(
                    "its partitions from {there} on: it has {count}, the target's has {there}, and `sync: partitions` is off"
                );
                left_out.insert(name.clone(), why);
            }
            for partition in topic.source.partitions.iter().filter(has_it) {
                let from = TopicPartition::new(name.clone(), partition.partition);
                if !self.begun.contains(&from) {
                    self.start(&from, TopicPartition::new(topic.target.clone(), partition.partition)).await?;
                    self.begun.insert(from);
                }
            }
        }
        *self.shared.left_out.lock() = left_out;
        Ok(())
    }

    /// Whether the topics are those that the link knows (R7): one of the same name that was made anew at the source has
    /// other records. Where the target's was made anew, it is mirrored from its beginning.
    async fn same(&mut self, topic: &Mirrored, target: TopicId) -> Result<Result<(), String>, LinkError> {
        let name = &topic.source.name;
        let key = state::topic_key(name);
        let ids = Ids { source: topic.source.id, target };
        let known = match self.ids.get(name) {
            Some(known) => Some(*known),
            None => self.read(&key, Ids::decode)?,
        };
        match known {
            Some(known) if known == ids => {}
            Some(known) if known.target != ids.target => {
                tracing::warn!(topic = %name, target = %topic.target, "the target's topic was made anew: it is mirrored from its beginning");
                if self.ids.contains_key(name) {
                    // Its partitions are with movers, which know the old one.
                    return Err(LinkError::Task(format!(
                        "the mirroring of {name}, which was made anew at the target"
                    )));
                }
                self.forget(name).await?;
                self.store.put(key, ids.encode()).await.map_err(LinkError::state)?;
            }
            Some(known) if self.shared.config.in_line().deletes => {
                self.delete(name, &topic.target, known).await?;
                return Ok(Err(
                    "the source's topic was made anew: it is mirrored from its beginning".to_owned()
                ));
            }
            Some(known) => {
                return Ok(Err(format!(
                    "the source's topic was deleted and made anew (its id was {}, and is {}): delete `{}` at the target \
                     to mirror the new one from its beginning",
                    known.source, ids.source, topic.target
                )));
            }
            None => self.store.put(key, ids.encode()).await.map_err(LinkError::state)?,
        }
        self.ids.insert(name.clone(), ids);
        Ok(Ok(()))
    }

    /// Finds out how far a partition had come, and gives it to a mover.
    async fn start(&self, source: &TopicPartition, target: TopicPartition) -> Result<(), LinkError> {
        let end =
            self.offset_of(&self.target, &target, OffsetSpec::Latest).await.map_err(LinkError::Target)?;
        let map = match self.read(&state::key(state::MAP, source), OffsetMap::decode)? {
            Some(map) => {
                let position =
                    self.read(&state::key(state::POSITION, source), Position::decode)?.unwrap_or_default();
                // What the target has deleted meanwhile cannot be looked at, and is not missing.
                let start = self.offset_of(&self.target, &target, OffsetSpec::Earliest).await;
                let from = map.target_end().max(start.map_err(LinkError::Target)?);
                let seen = self.scan(&target, from, end).await.map_err(LinkError::Target)?;
                let whole = from == map.target_end() && !self.compacts(&target.topic).await?;
                let recovered = recover(map, &position, seen, end, whole)
                    .map_err(|error| LinkError::Recover { partition: target.clone(), error })?;
                if recovered.lost > 0 {
                    tracing::warn!(
                        partition = %target,
                        records = recovered.lost,
                        "the target has lost records that it had acknowledged: they are mirrored again"
                    );
                }
                recovered.map
            }
            None if self.shared.config.begin == Begin::MirrorMaker && end > Offset::ZERO => {
                let here = self.offset_of(&self.source, source, OffsetSpec::Latest).await;
                let ends = (here.map_err(LinkError::Source)?, end);
                let sync = self.syncs.get(source);
                inherit::map(sync, (&self.source, source), (&self.target, &target), ends).await?
            }
            None => {
                let from = self.offset_of(&self.source, source, OffsetSpec::Earliest).await;
                OffsetMap::new(from.map_err(LinkError::Source)?, end)
            }
        };
        let progress = Arc::new(Progress::new(map.through()));
        self.shared.known.lock().insert(source.clone(), (target.clone(), Arc::clone(&progress)));
        let moved = Moved::new(
            source.clone(),
            target,
            Flow::new(vec![self.lane], map),
            progress,
            self.provenance.clone(),
        );
        let mover = self.begun.len() % self.movers.len().max(1);
        let ended = || LinkError::Task("a mover".to_owned());
        self.movers.get(mover).ok_or_else(ended)?.send(moved).await.map_err(|_| ended())
    }

    pub(super) fn read<T>(
        &self,
        key: &str,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, LinkError> {
        let Some(bytes) = self.stored.get(key) else { return Ok(None) };
        decode(bytes).map(Some).map_err(|error| LinkError::Stored { what: key.to_owned(), error })
    }

    /// Whether the target removes records of a topic from between others.
    async fn compacts(&self, topic: &TopicName) -> Result<bool, LinkError> {
        let resource = ConfigResource::Topic(topic.clone());
        let described = self.target.admin().describe_configs(&[resource]).await.map_err(LinkError::Target)?;
        let entries = described.into_values().next().unwrap_or(Ok(Vec::new())).map_err(LinkError::Target)?;
        let policy =
            entries.into_iter().find(|entry| entry.name == "cleanup.policy").and_then(|entry| entry.value);
        Ok(policy.is_some_and(|policy| policy.contains("compact")))
    }

    async fn offset_of(
        &self,
        client: &Client,
        partition: &TopicPartition,
        spec: OffsetSpec,
    ) -> Result<Offset, ClientError> {
        let listed = client.admin().list_offsets(&[(partition.clone(), spec)]).await?;
        let listed = listed.into_values().next().unwrap_or(Err(ClientError::Closed))?;
        listed.offset.ok_or(ClientError::NoLeader { partition: partition.clone() })
    }

    /// The batches of the target between two offsets.
    async fn scan(
        &self,
        target: &TopicPartition,
        from: Offset,
        end: Offset,
    ) -> Result<Vec<Seen>, ClientError> {
        let raw = self.target.raw();
        let mut seen = Vec::new();
        let mut at = from;
        let mut failed_since = None;
        while at < end {
            let fetch = RawFetch {
                partitions: vec![(target.clone(), at)],
                wait_max: Duration::from_millis(500),
                bytes_min: 1,
                bytes_max: SCAN_BYTES,
                partition_bytes_max: SCAN_BYTES,
                isolation_level: IsolationLevel::ReadUncommitted,
            };
            let fetched =
                raw.fetch(&fetch).await?.pop().map_or(Err(ClientError::Closed), |(_, result)| result);
            let next = match fetched {
                Ok(fetched) => take(&fetched.batches, at, &mut seen),
                Err(error) if error.is_retriable() => {
                    let since = *failed_since.get_or_insert_with(tokio::time::Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if next > at {
                failed_since = None;
            } else {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            at = next;
        }
        Ok(seen)
    }
}

/// Adds what the batches are, and returns where the next one begins. Control batches are passed over.
fn take(batches: &Bytes, from: Offset, seen: &mut Vec<Seen>) -> Offset {
    let mut at = from;
    for batch in towpath_record::batches(batches).map_while(Result::ok) {
        if batch.next_offset() <= from {
            continue;
        }
        at = batch.next_offset();
        if !batch.is_control() && batch.base_offset >= from {
            seen.push(Seen {
                producer_id: batch.producer_id,
                epoch: batch.producer_epoch,
                base_sequence: batch.base_sequence,
                // As many as there were: what was compacted away counts.
                count: u32::try_from(batch.next_offset().get() - batch.base_offset.get()).unwrap_or_default(),
                base_offset: batch.base_offset,
            });
        }
    }
    at
}
