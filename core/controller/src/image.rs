//! What a broker knows of the cluster.

mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use towpath_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, ProducerId, TopicId, TopicName,
};
use uuid::Uuid;

use crate::MetadataRecord;

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
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionImage {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub isr: Vec<BrokerId>,
    /// The leader.
    pub leader: Option<BrokerId>,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// The number of this state of the partition.
    pub partition_epoch: PartitionEpoch,
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
                let registration = BrokerRegistration {
                    id: broker.broker_id,
                    epoch: BrokerEpoch::new(offset.get()),
                    incarnation: broker.incarnation,
                    host: broker.host.clone(),
                    port: broker.port,
                    rack: broker.rack.clone(),
                };
                self.brokers.insert(broker.broker_id, registration);
            }
            MetadataRecord::Topic { name, id } => self.add_topic(name, *id)?,
            MetadataRecord::Partition {
                topic_id,
                partition,
                replicas,
                isr,
                leader,
                leader_epoch,
                partition_epoch,
            } => {
                let state = PartitionImage {
                    replicas: replicas.clone(),
                    isr: isr.clone(),
                    leader: *leader,
                    leader_epoch: *leader_epoch,
                    partition_epoch: *partition_epoch,
                };
                set_partition(self.topic_mut(*topic_id)?, *partition, state)?;
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
            MetadataRecord::ProducerIds { next, .. } => {
                self.next_producer_id = self.next_producer_id.max(next.get());
            }
        }
        self.next_offset += 1;
        Ok(())
    }

    fn add_topic(&mut self, name: &TopicName, id: TopicId) -> Result<(), ImageError> {
        if self.topics.contains_key(name) || self.names.contains_key(&id) {
            return Err(ImageError::DuplicateTopic(name.clone()));
        }
        let topic = TopicImage { name: name.clone(), id, partitions: Vec::new(), configs: BTreeMap::new() };
        self.topics.insert(name.clone(), Arc::new(topic));
        self.names.insert(id, name.clone());
        Ok(())
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
            replicas: vec![BrokerId::new(1)],
            isr: vec![BrokerId::new(1)],
            leader: Some(BrokerId::new(1)),
            leader_epoch: LeaderEpoch::new(leader_epoch),
            partition_epoch: PartitionEpoch::new(partition_epoch),
        }
    }

    #[test]
    fn a_topic_lives_and_dies() {
        let (mut image, id) = (MetadataImage::new(), TopicId::random());
        let name = TopicName::new("t").unwrap();
        apply(&mut image, &MetadataRecord::Topic { name: name.clone(), id }).unwrap();
        apply(&mut image, &partition(id, 0, 0, 0)).unwrap();
        apply(&mut image, &partition(id, 1, 0, 0)).unwrap();
        let before = image.clone();
        assert_eq!(
            apply(&mut image, &partition(id, 3, 0, 0)),
            Err(ImageError::PartitionIndex { topic: name.clone(), partition: 3, count: 2 })
        );
        assert_eq!(image, before, "a refused record changes nothing");
        assert_eq!(
            apply(&mut image, &MetadataRecord::Topic { name: name.clone(), id }),
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
        apply(&mut image, &MetadataRecord::Topic { name: name.clone(), id }).unwrap();
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
        let register = MetadataRecord::RegisterBroker(crate::RegisterBroker {
            broker_id: BrokerId::new(7),
            incarnation: Uuid::new_v4(),
            host: "h".to_owned(),
            port: 1,
            rack: None,
        });
        apply(&mut image, &register).unwrap();
        assert_eq!(image.broker(BrokerId::new(7)).unwrap().epoch, BrokerEpoch::new(1));
        apply(&mut image, &register).unwrap();
        assert_eq!(image.broker(BrokerId::new(7)).unwrap().epoch, BrokerEpoch::new(2));
        assert!(apply(&mut image, &MetadataRecord::Cluster { cluster_id: "b".to_owned() }).is_err());
    }
}
