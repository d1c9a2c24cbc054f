//! What a broker knows of the cluster.

mod dynamic;
mod snapshot;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use towpath_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, ProducerId, TopicId, TopicName,
};
use uuid::Uuid;

use crate::broker_config;
use crate::record::{FeatureRange, MetadataRecord, MirrorRole, PeerEndpoint, RegisterBroker, is_false};

pub use dynamic::{Configs, DynamicConfigs};
pub(crate) use snapshot::{SnapshotError, SnapshotRecord};

/// The cluster's metadata after some record of the log. Cheap to clone: topics are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataImage {
    cluster_id: String,
    next_offset: i64,
    brokers: BTreeMap<BrokerId, BrokerRegistration>,
    topics: BTreeMap<TopicName, Arc<TopicImage>>,
    names: HashMap<TopicId, TopicName>,
    next_producer_id: i64,
    features: BTreeMap<String, i16>,
    cluster_configs: BTreeMap<String, String>,
    dynamic: Arc<DynamicConfigs>,
}

/// A broker that registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// The broker.
    pub id: BrokerId,
    /// Its incarnation's number: the offset of its registration.
    pub epoch: BrokerEpoch,
    /// Its incarnation as it named itself.
    pub incarnation: Uuid,
    /// The host name that clients use.
    pub host: String,
    /// The port that clients use.
    pub port: u16,
    /// Its rack.
    pub rack: Option<String>,
    /// Where other nodes reach it; none on a node that is alone.
    pub peer: Option<PeerEndpoint>,
    /// Whether it may neither lead nor be in sync (KIP-631).
    pub fenced: bool,
    /// Whether it is on its way out (KIP-841).
    pub in_controlled_shutdown: bool,
    /// The levels of features that it can work with (KIP-584).
    pub features: BTreeMap<String, FeatureRange>,
    /// The identity of its data directory (KIP-858), if known.
    pub directory: Option<Uuid>,
    /// The identities of its further directories, also of those that are missing and had something.
    pub further_directories: Vec<Uuid>,
}

impl BrokerRegistration {
    /// Whether it may lead, and be in sync.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    fn new(epoch: BrokerEpoch, record: RegisterBroker) -> Self {
        let RegisterBroker {
            broker_id,
            incarnation,
            host,
            port,
            rack,
            peer,
            fenced,
            in_controlled_shutdown,
            features,
            directory,
            further_directories,
        } = record;
        Self {
            id: broker_id,
            epoch,
            incarnation,
            host,
            port,
            rack,
            peer,
            fenced,
            in_controlled_shutdown,
            features,
            directory,
            further_directories,
        }
    }

    /// The record that registers it, in its present state.
    fn record(&self) -> RegisterBroker {
        RegisterBroker {
            broker_id: self.id,
            incarnation: self.incarnation,
            host: self.host.clone(),
            port: self.port,
            rack: self.rack.clone(),
            peer: self.peer.clone(),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            features: self.features.clone(),
            directory: self.directory,
            further_directories: self.further_directories.clone(),
        }
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// The name.
    pub name: TopicName,
    /// The id.
    pub id: TopicId,
    /// The partitions by index.
    pub partitions: Vec<PartitionImage>,
    /// The configurations that differ from the defaults.
    pub configs: BTreeMap<String, String>,
    /// What it is in a mirror, if it belongs to one.
    pub mirror: Option<MirrorRole>,
}

/// A partition, in the image as in the records that change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionImage {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub isr: Vec<BrokerId>,
    /// The leader; none while nobody can lead.
    pub leader: Option<BrokerId>,
    /// The leader's term: grows at every change of the leader (KIP-101).
    pub leader_epoch: LeaderEpoch,
    /// The number of this state of the partition: grows at every change (KIP-497).
    pub partition_epoch: PartitionEpoch,
    /// Replicas that a reassignment brings, and that are not yet all in sync (KIP-455).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding_replicas: Vec<BrokerId>,
    /// Replicas that leave when the reassignment is complete (KIP-455).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing_replicas: Vec<BrokerId>,
    /// Replicas that are not in sync but have everything that was acknowledged, since nothing is acknowledged while
    /// fewer are in sync than the topic asks for (KIP-966).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<BrokerId>,
    /// The last leader of a partition that has nobody who could lead without a loss (KIP-966).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_known_elr: Vec<BrokerId>,
    /// Whether the leader was elected uncleanly and has not yet said that it is done with what follows from that
    /// (KIP-704).
    #[serde(default, skip_serializing_if = "is_false")]
    pub recovering: bool,
    /// Replicas that their brokers cannot use, since the directory failed or is gone (KIP-858).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<BrokerId>,
}

impl PartitionImage {
    /// The first state of a partition.
    #[must_use]
    pub const fn new(replicas: Vec<BrokerId>, isr: Vec<BrokerId>, leader: Option<BrokerId>) -> Self {
        Self {
            replicas,
            isr,
            leader,
            leader_epoch: LeaderEpoch::new(0),
            partition_epoch: PartitionEpoch::new(0),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            recovering: false,
            offline: Vec::new(),
        }
    }

    /// Whether a reassignment is going on.
    #[must_use]
    pub const fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// The replicas that it will have when the reassignment that is going on is complete.
    pub fn goal(&self) -> impl Iterator<Item = BrokerId> + use<'_> {
        self.replicas.iter().copied().filter(|replica| !self.removing_replicas.contains(replica))
    }

    /// The replicas that it had before the reassignment that is going on.
    pub fn original(&self) -> impl Iterator<Item = BrokerId> + use<'_> {
        self.replicas.iter().copied().filter(|replica| !self.adding_replicas.contains(replica))
    }
}

/// A record that does not fit the image: the log is damaged, or a decision was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Records come in the order of their offsets.
    #[error("a metadata record with offset {offset} where {expected} should be")]
    Order {
        /// The record's offset.
        offset: i64,
        /// The offset that comes next.
        expected: i64,
    },
    /// A second cluster id.
    #[error("the cluster's id changes from `{from}` to `{to}`")]
    ClusterId {
        /// What it was.
        from: String,
        /// What the record says.
        to: String,
    },
    /// A record about a topic that is not there.
    #[error("a metadata record about the topic {0}, which does not exist")]
    UnknownTopic(TopicId),
    /// A topic that is there already.
    #[error("the topic {0} is created twice")]
    DuplicateTopic(TopicName),
    /// A partition that neither exists nor is the next one.
    #[error("partition {partition} of the topic {topic}, which has {count}")]
    PartitionIndex {
        /// The topic.
        topic: TopicName,
        /// The index.
        partition: i32,
        /// The number of partitions.
        count: usize,
    },
    /// An epoch that goes back (R6).
    #[error("partition {partition} of the topic {topic} goes back to an older epoch")]
    Epoch {
        /// The topic.
        topic: TopicName,
        /// The index.
        partition: i32,
    },
    /// A record about an incarnation of a broker that is not the registered one (R6).
    #[error("a metadata record about the broker {broker_id} with epoch {epoch}, which is not registered")]
    UnknownBroker {
        /// The broker.
        broker_id: BrokerId,
        /// The incarnation.
        epoch: BrokerEpoch,
    },
}

impl MetadataImage {
    /// The image of an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The cluster's id; empty before the first record.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The offset of the next record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        Offset::new(self.next_offset)
    }

    /// The brokers by id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &BrokerRegistration> {
        self.brokers.values()
    }

    /// A broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRegistration> {
        self.brokers.get(&id)
    }

    /// The topics in the order of their names.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// The topics from the name `from` on.
    pub fn topics_from<'a>(&'a self, from: &str) -> impl Iterator<Item = &'a Arc<TopicImage>> + use<'a> {
        self.topics
            .range::<str, _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded))
            .map(|(_, t)| t)
    }

    /// A topic by its name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// A topic by its id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.names.get(&id).and_then(|name| self.topics.get(name))
    }

    /// How many partitions there are in all topics.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// The first producer id that nobody has yet.
    #[must_use]
    pub const fn next_producer_id(&self) -> ProducerId {
        ProducerId::new(self.next_producer_id)
    }

    /// The levels of features that were set; at 0 the cluster does without the feature. Of one that is not named the newest
    /// level that brokers know is in use.
    #[must_use]
    pub const fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// The defaults of topic configurations that hold in the whole cluster. They come after what a topic sets itself,
    /// and before what a node's own configuration says: leader and controller must not go by different ones.
    #[must_use]
    pub const fn cluster_configs(&self) -> &BTreeMap<String, String> {
        &self.cluster_configs
    }

    /// Configurations of brokers and groups that were set while the cluster runs.
    #[must_use]
    pub fn dynamic_configs(&self) -> &DynamicConfigs {
        &self.dynamic
    }

    /// The defaults of topic configurations on a node, by the topics' names: what was set for this broker while it runs,
    /// else for all brokers, else what the whole cluster has, else the node's own. It is what
    /// [`crate::TopicConfig::resolve`] takes as the broker's.
    #[must_use]
    pub fn topic_defaults<'a>(&self, node: BrokerId, of_node: &'a Configs) -> Cow<'a, Configs> {
        let (own, all) = (self.dynamic.broker(Some(node)), self.dynamic.broker(None));
        let differs = |(name, value): (&String, &String)| of_node.get(name) != Some(value);
        if own.is_empty() && all.is_empty() && !self.cluster_configs.iter().any(differs) {
            return Cow::Borrowed(of_node);
        }
        let mut merged = of_node.clone();
        merged.extend(self.cluster_configs.iter().map(|(name, value)| (name.clone(), value.clone())));
        for configs in [all, own] {
            merged.extend(broker_config::topic_defaults(configs));
        }
        Cow::Owned(merged)
    }

    /// A default of topics that must be the same on all nodes: what was set while they run, else what the active
    /// controller wrote down.
    #[must_use]
    pub fn shared_default(&self, name: &str) -> Option<&str> {
        let dynamic = self.dynamic.broker(None);
        dynamic.get(name).or_else(|| self.cluster_configs.get(name)).map(String::as_str)
    }

    /// Whether a broker is registered, not fenced and not on its way out.
    #[must_use]
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(BrokerRegistration::is_active)
    }

    /// Applies the record at `offset` of the log.
    ///
    /// # Errors
    /// [`ImageError`]; the image is as it was.
    pub fn apply(&mut self, offset: Offset, record: &MetadataRecord) -> Result<(), ImageError> {
        if offset.get() != self.next_offset {
            return Err(ImageError::Order { offset: offset.get(), expected: self.next_offset });
        }
        match record {
            MetadataRecord::Cluster { cluster_id } => {
                if !self.cluster_id.is_empty() && self.cluster_id != *cluster_id {
                    return Err(ImageError::ClusterId {
                        from: self.cluster_id.clone(),
                        to: cluster_id.clone(),
                    });
                }
                self.cluster_id.clone_from(cluster_id);
            }
            MetadataRecord::RegisterBroker(broker) => {
                let registration = BrokerRegistration::new(BrokerEpoch::new(offset.get()), broker.clone());
                self.brokers.insert(broker.broker_id, registration);
            }
            MetadataRecord::BrokerState { broker_id, epoch, fenced, in_controlled_shutdown } => {
                let broker = self.broker_mut(*broker_id, *epoch)?;
                broker.fenced = *fenced;
                broker.in_controlled_shutdown = *in_controlled_shutdown;
            }
            MetadataRecord::UnregisterBroker { broker_id, epoch } => {
                self.broker_mut(*broker_id, *epoch)?;
                self.brokers.remove(broker_id);
            }
            MetadataRecord::Topic { name, id, mirror } => self.add_topic(name, *id, mirror.clone())?,
            MetadataRecord::Partition { topic_id, partition, state } => {
                set_partition(self.topic_mut(*topic_id)?, *partition, state.clone())?;
            }
            MetadataRecord::RemoveTopic { topic_id } => {
                let name = self.names.remove(topic_id).ok_or(ImageError::UnknownTopic(*topic_id))?;
                self.topics.remove(&name);
            }
            MetadataRecord::TopicConfig { topic_id, name, value } => {
                let topic = self.topic_mut(*topic_id)?;
                match value {
                    Some(value) => topic.configs.insert(name.clone(), value.clone()),
                    None => topic.configs.remove(name),
                };
            }
            MetadataRecord::ClusterConfig { name, value } => {
                match value {
                    Some(value) => self.cluster_configs.insert(name.clone(), value.clone()),
                    None => self.cluster_configs.remove(name),
                };
            }
            MetadataRecord::BrokerConfig { broker_id, name, value } => {
                Arc::make_mut(&mut self.dynamic).set_broker(*broker_id, name, value.as_deref());
            }
            MetadataRecord::GroupConfig { group, name, value } => {
                Arc::make_mut(&mut self.dynamic).set_group(group, name, value.as_deref());
            }
            MetadataRecord::ProducerIds { next, .. } => {
                self.next_producer_id = self.next_producer_id.max(next.get());
            }
            MetadataRecord::FeatureLevel { name, level } => {
                self.features.insert(name.clone(), *level);
            }
        }
        self.next_offset += 1;
        Ok(())
    }

    fn add_topic(
        &mut self,
        name: &TopicName,
        id: TopicId,
        mirror: Option<MirrorRole>,
    ) -> Result<(), ImageError> {
        if self.topics.contains_key(name) || self.names.contains_key(&id) {
            return Err(ImageError::DuplicateTopic(name.clone()));
        }
        let topic =
            TopicImage { name: name.clone(), id, partitions: Vec::new(), configs: BTreeMap::new(), mirror };
        self.topics.insert(name.clone(), Arc::new(topic));
        self.names.insert(id, name.clone());
        Ok(())
    }

    fn broker_mut(
        &mut self,
        broker_id: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<&mut BrokerRegistration, ImageError> {
        let broker = self.brokers.get_mut(&broker_id).filter(|broker| broker.epoch == epoch);
        broker.ok_or(ImageError::UnknownBroker { broker_id, epoch })
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut TopicImage, ImageError> {
        let topic = self.names.get(&id).and_then(|name| self.topics.get_mut(name));
        topic.map(Arc::make_mut).ok_or(ImageError::UnknownTopic(id))
    }
}

fn set_partition(topic: &mut TopicImage, partition: i32, state: PartitionImage) -> Result<(), ImageError> {
    let count = topic.partitions.len();
    match usize::try_from(partition) {
        Ok(index) if index < count => {
            let old = &mut topic.partitions[index];
            if state.leader_epoch < old.leader_epoch || state.partition_epoch <= old.partition_epoch {
                return Err(ImageError::Epoch { topic: topic.name.clone(), partition });
            }
            *old = state;
            Ok(())
        }
        Ok(index) if index == count => {
            topic.partitions.push(state);
            Ok(())
        }
        _ => Err(ImageError::PartitionIndex { topic: topic.name.clone(), partition, count }),
    }
}

impl TopicImage {
    /// Whether this is one of Kafka's own topics, which clients may not write to.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        is_internal(self.name.as_str())
    }
}

/// Whether a topic of this name is one of Kafka's own.
#[must_use]
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: BrokerId = BrokerId::new(1);

    fn apply(image: &mut MetadataImage, record: &MetadataRecord) -> Result<(), ImageError> {
        image.apply(image.next_offset(), record)
    }

    fn partition(
        topic_id: TopicId,
        partition: i32,
        leader_epoch: i32,
        partition_epoch: i32,
    ) -> MetadataRecord {
        MetadataRecord::Partition {
            topic_id,
            partition,
            state: PartitionImage {
                leader_epoch: LeaderEpoch::new(leader_epoch),
                partition_epoch: PartitionEpoch::new(partition_epoch),
                ..PartitionImage::new(vec![BROKER], vec![BROKER], Some(BROKER))
            },
        }
    }

    #[test]
    fn a_topic_lives_and_dies() {
        let (mut image, id) = (MetadataImage::new(), TopicId::random());
        let name = TopicName::new("t").unwrap();
        apply(&mut image, &MetadataRecord::Topic { name: name.clone(), id, mirror: None }).unwrap();
        apply(&mut image, &partition(id, 0, 0, 0)).unwrap();
        apply(&mut image, &partition(id, 1, 0, 0)).unwrap();
        let before = image.clone();
        assert_eq!(
            apply(&mut image, &partition(id, 3, 0, 0)),
            Err(ImageError::PartitionIndex { topic: name.clone(), partition: 3, count: 2 })
        );
        assert_eq!(image, before, "a refused record changes nothing");
        assert_eq!(
            apply(&mut image, &MetadataRecord::Topic { name: name.clone(), id, mirror: None }),
            Err(ImageError::DuplicateTopic(name))
        );
        let set = |value: Option<&str>| MetadataRecord::TopicConfig {
            topic_id: id,
            name: "retention.ms".to_owned(),
            value: value.map(str::to_owned),
        };
        apply(&mut image, &set(Some("5"))).unwrap();
        assert_eq!(image.topic("t").unwrap().configs["retention.ms"], "5");
        assert!(before.topic("t").unwrap().configs.is_empty(), "an older image does not change");
        apply(&mut image, &set(None)).unwrap();
        assert!(image.topic_by_id(id).unwrap().configs.is_empty());
        apply(&mut image, &MetadataRecord::RemoveTopic { topic_id: id }).unwrap();
        assert!(image.topic("t").is_none() && image.topic_by_id(id).is_none());
        assert_eq!(apply(&mut image, &set(None)), Err(ImageError::UnknownTopic(id)));
    }

    #[test]
    fn epochs_and_offsets_do_not_go_back() {
        let (mut image, id) = (MetadataImage::new(), TopicId::random());
        let name = TopicName::new("t").unwrap();
        apply(&mut image, &MetadataRecord::Topic { name: name.clone(), id, mirror: None }).unwrap();
        apply(&mut image, &partition(id, 0, 3, 3)).unwrap();
        let stale = Err(ImageError::Epoch { topic: name, partition: 0 });
        assert_eq!(apply(&mut image, &partition(id, 0, 2, 4)), stale);
        assert_eq!(apply(&mut image, &partition(id, 0, 4, 3)), stale);
        apply(&mut image, &partition(id, 0, 4, 4)).unwrap();
        assert_eq!(
            image.apply(Offset::new(9), &partition(id, 0, 5, 5)),
            Err(ImageError::Order { offset: 9, expected: 3 })
        );
    }

    #[test]
    fn a_brokers_epoch_is_the_offset_of_its_registration() {
        let mut image = MetadataImage::new();
        apply(&mut image, &MetadataRecord::Cluster { cluster_id: "a".to_owned() }).unwrap();
        let register = MetadataRecord::RegisterBroker(RegisterBroker::new(
            BrokerId::new(7),
            Uuid::new_v4(),
            "h".to_owned(),
            1,
        ));
        apply(&mut image, &register).unwrap();
        assert_eq!(image.broker(BrokerId::new(7)).unwrap().epoch, BrokerEpoch::new(1));
        apply(&mut image, &register).unwrap();
        assert_eq!(image.broker(BrokerId::new(7)).unwrap().epoch, BrokerEpoch::new(2));
        assert!(apply(&mut image, &MetadataRecord::Cluster { cluster_id: "b".to_owned() }).is_err());
    }

    #[test]
    fn a_brokers_state_belongs_to_one_incarnation() {
        let (mut image, broker_id) = (MetadataImage::new(), BrokerId::new(7));
        let register = RegisterBroker {
            fenced: true,
            ..RegisterBroker::new(broker_id, Uuid::new_v4(), "h".to_owned(), 1)
        };
        let state = |epoch, fenced, in_controlled_shutdown| MetadataRecord::BrokerState {
            broker_id,
            epoch: BrokerEpoch::new(epoch),
            fenced,
            in_controlled_shutdown,
        };
        let unregister =
            |epoch| MetadataRecord::UnregisterBroker { broker_id, epoch: BrokerEpoch::new(epoch) };
        assert!(apply(&mut image, &state(0, false, false)).is_err(), "nobody is registered");
        apply(&mut image, &MetadataRecord::RegisterBroker(register.clone())).unwrap();
        assert!(!image.is_active(broker_id));
        apply(&mut image, &state(0, false, false)).unwrap();
        assert!(image.is_active(broker_id));
        apply(&mut image, &state(0, false, true)).unwrap();
        assert!(!image.is_active(broker_id) && image.broker(broker_id).unwrap().in_controlled_shutdown);
        apply(&mut image, &MetadataRecord::RegisterBroker(register)).unwrap();
        let stale = Err(ImageError::UnknownBroker { broker_id, epoch: BrokerEpoch::new(0) });
        assert_eq!(apply(&mut image, &state(0, false, false)), stale, "R6");
        assert_eq!(apply(&mut image, &unregister(0)), stale, "R6");
        apply(&mut image, &unregister(3)).unwrap();
        assert!(image.broker(broker_id).is_none() && !image.is_active(broker_id));
    }

    #[test]
    fn features_have_levels() {
        let mut image = MetadataImage::new();
        let level = |level| MetadataRecord::FeatureLevel { name: "metadata.version".to_owned(), level };
        apply(&mut image, &level(2)).unwrap();
        assert_eq!(image.features()["metadata.version"], 2);
        apply(&mut image, &level(0)).unwrap();
        assert_eq!(image.features()["metadata.version"], 0, "what was switched off stays off");
    }
}
