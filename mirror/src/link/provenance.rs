//! Where a record was first written, for topics that are called the same on both sides: it goes on to every cluster but
//! that one, and so never round.
//!
//! Whoever mirrors into a cluster writes there under a producer id for each cluster of origin, and enters it in that
//! cluster's register, a compacted topic, before its first use. So the header of a batch tells where it comes from,
//! without looking into it: a producer that is not in the register writes here, and for itself. Clusters are known by
//! their ids, which nobody chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use towpath_client::{Acks, Client, ClientError, IsolationLevel, ProducerConfig, ProducerRecord, RawFetched};
use towpath_types::{Offset, ProducerId, TopicName, TopicPartition};

use super::state::{self, Store};
use super::{LinkConfig, LinkError};
use crate::flow::Lane;

/// The register of a cluster.
const REGISTER: &str = "towpath-mirror.origins.internal";
/// Producers that are kept in mind that are not in the register (R10): they can be asked for again.
const KEPT_MAX: usize = 100_000;

fn register() -> Result<TopicName, LinkError> {
    TopicName::new(REGISTER).map_err(LinkError::Link)
}

/// What is known of the producers of one cluster.
#[derive(Debug, Default)]
struct Known {
    /// Those that write for another cluster.
    entered: BTreeMap<ProducerId, Arc<str>>,
    /// Those that write for themselves.
    own: BTreeSet<ProducerId>,
}

/// Where records of the source come from, and under which producer of the target they are written.
#[derive(Debug)]
pub(crate) struct Provenance {
    link: String,
    source: Client,
    target: Client,
    store: Store,
    register: TopicName,
    /// The ids of both clusters.
    from: Arc<str>,
    to: Arc<str>,
    /// Whether records of other clusters go on.
    forwards: bool,
    /// Whether the source is mirrored to.
    is_shared: bool,
    known: Mutex<Known>,
    /// Up to where the source's register was read.
    read: tokio::sync::Mutex<Offset>,
    /// By the cluster of origin.
    lanes: Mutex<BTreeMap<Arc<str>, Lane>>,
}

async fn id_of(
    client: &Client,
    alias: &str,
    failed: fn(ClientError) -> LinkError,
) -> Result<Arc<str>, LinkError> {
    let id = client.admin().describe_cluster().await.map_err(failed)?.cluster_id;
    id.map(Arc::from).ok_or_else(|| LinkError::NoId { alias: alias.to_owned() })
}

/// The transactional id of the producer that writes what comes from one cluster.
fn transactional_id(link: &str, origin: &str) -> String {
    format!("towpath-mirror.{link}.from.{origin}")
}

impl Provenance {
    /// Takes over every lane that the link has had, wherever it may have written (R6).
    pub(crate) async fn begin(
        config: &LinkConfig,
        (source, target): (&Client, &Client),
        store: &Store,
        stored: &state::Stored,
        written: &[TopicPartition],
    ) -> Result<Self, LinkError> {
        let from = id_of(source, &config.from, LinkError::Source).await?;
        let to = id_of(target, &config.to, LinkError::Target).await?;
        if from == to {
            return Err(LinkError::Itself { id: from.to_string() });
        }
        let register = register()?;
        state::create(target, &register).await.map_err(LinkError::Target)?;
        if config.is_shared() {
            // The other direction writes to it. It has to be there, so that a broker that does not know it yet, after a
            // start, is not taken for one that nobody mirrors to: everything would go round then.
            state::create(source, &register).await.map_err(LinkError::Source)?;
        }
        let provenance = Self {
            link: config.name.clone(),
            source: source.clone(),
            target: target.clone(),
            store: store.clone(),
            register,
            from: Arc::clone(&from),
            to,
            forwards: config.forward,
            is_shared: config.is_shared(),
            known: Mutex::default(),
            read: tokio::sync::Mutex::new(Offset::ZERO),
            lanes: Mutex::default(),
        };
        let had = format!("{}:", state::LANE);
        let origins: BTreeSet<Arc<str>> =
            stored.keys().filter_map(|key| key.strip_prefix(&had)).map(Arc::from).chain([from]).collect();
        for origin in origins {
            provenance.open(&origin, written).await?;
        }
        Ok(provenance)
    }

    /// A lane for what comes from `origin`. It is stored first, so that a successor finds it, and entered before it is used.
    async fn open(&self, origin: &Arc<str>, written: &[TopicPartition]) -> Result<(), LinkError> {
        let key = format!("{}:{origin}", state::LANE);
        self.store.put(key, bytes::Bytes::new()).await.map_err(LinkError::state)?;
        let id = transactional_id(&self.link, origin);
        let fence = self.target.raw().take_over(&id).await.map_err(LinkError::Target)?;
        let writer = fence.identity();
        // A marker is a batch of this producer, too.
        self.enter(writer.producer_id, origin).await.map_err(LinkError::Target)?;
        fence.shut_out(written).await.map_err(LinkError::Target)?;
        let lane = Lane { producer_id: writer.producer_id, epoch: writer.epoch };
        tracing::info!(link = self.link, %origin, producer_id = lane.producer_id.get(), epoch = lane.epoch.get(), "a lane was opened");
        self.lanes.lock().insert(Arc::clone(origin), lane);
        Ok(())
    }

    async fn enter(&self, producer: ProducerId, origin: &str) -> Result<(), ClientError> {
        let writer = self.target.producer(ProducerConfig { acks: Acks::All, ..ProducerConfig::default() });
        let key = producer.get().to_string();
        let record = ProducerRecord {
            partition: Some(0),
            key: Some(key.as_bytes()),
            value: Some(origin.as_bytes()),
            ..ProducerRecord::new(&self.register)
        };
        writer.send(record).await?;
        writer.flush().await
    }

    /// Makes sure that it is known of whoever wrote what was fetched where it comes from, and that it has a lane.
    pub(crate) async fn learn<'a>(
        &self,
        fetched: impl Iterator<Item = &'a RawFetched>,
    ) -> Result<(), LinkError> {
        let mut producers = BTreeSet::new();
        for batch in fetched.flat_map(|it| towpath_record::batches(&it.batches)).map_while(Result::ok) {
            if !batch.is_control() && batch.producer_id != ProducerId::NONE {
                producers.insert(batch.producer_id);
            }
        }
        let is_new =
            |known: &Known, id: &ProducerId| !known.own.contains(id) && !known.entered.contains_key(id);
        if producers.iter().any(|id| is_new(&self.known.lock(), id)) {
            let mut read = self.read.lock().await;
            // Whoever writes for another cluster was entered before: all that were fetched are there by now.
            let entries = read_register(&self.source, &self.register, &mut read, self.is_shared).await;
            let entries = entries.map_err(LinkError::Source)?;
            let mut known = self.known.lock();
            if known.own.len() > KEPT_MAX {
                known.own.clear();
            }
            for (producer, origin) in entries {
                known.own.remove(&producer);
                known.entered.insert(producer, origin);
            }
            for producer in &producers {
                if !known.entered.contains_key(producer) {
                    known.own.insert(*producer);
                }
            }
        }
        let origins: BTreeSet<Arc<str>> = {
            let known = self.known.lock();
            producers.iter().filter_map(|id| known.entered.get(id)).cloned().collect()
        };
        for origin in origins.into_iter().filter(|origin| self.takes(origin)) {
            if !self.lanes.lock().contains_key(&origin) {
                // Nobody has written for it before: else it would be stored.
                self.open(&origin, &[]).await?;
            }
        }
        Ok(())
    }

    /// Whether records that were first written at `origin` go to the target.
    fn takes(&self, origin: &Arc<str>) -> bool {
        *origin != self.to && (self.forwards || *origin == self.from)
    }

    /// Under which producer a batch goes on; `None` if it came from the target, or comes there by another way.
    pub(crate) fn lane(&self, producer: ProducerId) -> Option<Lane> {
        let origin =
            self.known.lock().entered.get(&producer).cloned().unwrap_or_else(|| Arc::clone(&self.from));
        if self.takes(&origin) { self.lanes.lock().get(&origin).copied() } else { None }
    }

    /// The lane of the source's own records.
    pub(crate) fn own(&self) -> Option<Lane> {
        self.lanes.lock().get(&self.from).copied()
    }
}

/// What was entered since the last look. Where the register need not be, it may be unknown as long as it was not seen.
async fn read_register(
    client: &Client,
    topic: &TopicName,
    next: &mut Offset,
    has_to_be: bool,
) -> Result<Vec<(ProducerId, Arc<str>)>, ClientError> {
    let mut entries = Vec::new();
    let there = client.admin().describe_topics(std::slice::from_ref(topic)).await?.remove(topic);
    match there {
        Some(Err(error)) if super::topics::is_unknown(&error) && !has_to_be && *next == Offset::ZERO => {
            return Ok(entries);
        }
        Some(Err(error)) => return Err(error),
        _ => {}
    }
    let end = state::read_from(client, topic, *next, IsolationLevel::ReadUncommitted, |key, value| {
        let producer = key.parse().ok().map(ProducerId::new);
        let origin = value.and_then(|value| std::str::from_utf8(value).ok()).map(Arc::from);
        entries.extend(producer.zip(origin));
    })
    .await?;
    *next = end;
    Ok(entries)
}
