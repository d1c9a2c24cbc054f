//! An image as records of its own, from which it can be made anew without the log that led to it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use towpath_types::{BrokerEpoch, BrokerId, ProducerId, TopicId, TopicName};

use super::{BrokerRegistration, DynamicConfigs, ImageError, MetadataImage, PartitionImage, set_partition};
use crate::{MirrorRole, RecordError, RegisterBroker};

/// The version of the encoding: one byte in front of every record.
const VERSION: u8 = 1;

/// One record of a snapshot. They come in the order of the variants; partitions follow their topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum SnapshotRecord {
    /// The first.
    Begin {
        /// The offset of the log's next record.
        next_offset: i64,
        cluster_id: String,
        next_producer_id: ProducerId,
    },
    /// A registered broker; its epoch was the offset of a record that need not be there any more.
    Broker { epoch: BrokerEpoch, broker: RegisterBroker },
    /// A feature that the cluster uses.
    Feature { name: String, level: i16 },
    /// A default of the whole cluster.
    ClusterConfig { name: String, value: String },
    /// A configuration of one broker, or of all.
    BrokerConfig { broker_id: Option<BrokerId>, name: String, value: String },
    /// A configuration of a group.
    GroupConfig { group: String, name: String, value: String },
    /// A topic.
    Topic {
        name: TopicName,
        id: TopicId,
        configs: std::collections::BTreeMap<String, String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mirror: Option<MirrorRole>,
    },
    /// The next partition of the topic before.
    Partition(PartitionImage),
    /// The last, with the number of those before it.
    End { records: u64 },
}

/// Why records are no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("it does not begin, or begins twice")]
    Begin,
    #[error("it does not end after {found} records")]
    End { found: u64 },
    #[error("a partition without a topic")]
    Partition,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl SnapshotRecord {
    /// The record as bytes.
    ///
    /// # Errors
    /// [`RecordError::Content`].
    pub(crate) fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`], also for a version or a kind that is not known (R7).
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            None => Err(RecordError::Empty),
            Some((&VERSION, content)) => Ok(serde_json::from_slice(content)?),
            Some((&version, _)) => Err(RecordError::Version(version)),
        }
    }
}

impl MetadataImage {
    /// The records of a snapshot of this image.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = SnapshotRecord> + use<'_> {
        let begin = SnapshotRecord::Begin {
            next_offset: self.next_offset,
            cluster_id: self.cluster_id.clone(),
            next_producer_id: ProducerId::new(self.next_producer_id),
        };
        let brokers = self
            .brokers
            .values()
            .map(|broker| SnapshotRecord::Broker { epoch: broker.epoch, broker: broker.record() });
        let features = self
            .features
            .iter()
            .map(|(name, level)| SnapshotRecord::Feature { name: name.clone(), level: *level });
        let configs = self
            .cluster_configs
            .iter()
            .map(|(name, value)| SnapshotRecord::ClusterConfig { name: name.clone(), value: value.clone() });
        let topics = self.topics.values().flat_map(|topic| {
            let head = SnapshotRecord::Topic {
                name: topic.name.clone(),
                id: topic.id,
                configs: topic.configs.clone(),
                mirror: topic.mirror.clone(),
            };
            let partitions = topic.partitions.iter().cloned().map(SnapshotRecord::Partition);
            std::iter::once(head).chain(partitions)
        });
        let partitions = self.topics.values().map(|topic| topic.partitions.len());
        let heads = 1
            + self.brokers.len()
            + self.features.len()
            + self.cluster_configs.len()
            + self.dynamic.len()
            + self.topics.len();
        let records = heads + partitions.sum::<usize>();
        let end = SnapshotRecord::End { records: records as u64 };
        let heads = std::iter::once(begin).chain(brokers).chain(features).chain(configs);
        let heads = heads.chain(dynamic(&self.dynamic));
        heads.chain(topics).chain(std::iter::once(end))
    }

    /// The image that a snapshot's records describe.
    ///
    /// # Errors
    /// [`SnapshotError`]; of half a snapshot nothing is used (R7).
    pub(crate) fn from_snapshot(
        records: impl Iterator<Item = Result<SnapshotRecord, SnapshotError>>,
    ) -> Result<Self, SnapshotError> {
        let mut image = Self::new();
        let mut topic: Option<TopicId> = None;
        let mut found = 0;
        let mut ended = false;
        for record in records {
            let record = record?;
            if ended {
                return Err(SnapshotError::End { found });
            }
            if (found == 0) != matches!(record, SnapshotRecord::Begin { .. }) {
                return Err(SnapshotError::Begin);
            }
            match record {
                SnapshotRecord::End { records } if records == found => ended = true,
                SnapshotRecord::End { .. } => return Err(SnapshotError::End { found }),
                record => topic = image.restore(record, topic)?,
            }
            found += 1;
        }
        if ended { Ok(image) } else { Err(SnapshotError::End { found }) }
    }

    /// Takes one record of a snapshot; returns the topic that partitions belong to from here on.
    fn restore(
        &mut self,
        record: SnapshotRecord,
        topic: Option<TopicId>,
    ) -> Result<Option<TopicId>, SnapshotError> {
        match record {
            SnapshotRecord::Begin { next_offset, cluster_id, next_producer_id } => {
                self.next_offset = next_offset;
                self.cluster_id = cluster_id;
                self.next_producer_id = next_producer_id.get();
            }
            SnapshotRecord::Broker { epoch, broker } => {
                self.brokers.insert(broker.broker_id, BrokerRegistration::new(epoch, broker));
            }
            SnapshotRecord::Feature { name, level } => {
                self.features.insert(name, level);
            }
            SnapshotRecord::ClusterConfig { name, value } => {
                self.cluster_configs.insert(name, value);
            }
            SnapshotRecord::BrokerConfig { broker_id, name, value } => {
                Arc::make_mut(&mut self.dynamic).set_broker(broker_id, &name, Some(&value));
            }
            SnapshotRecord::GroupConfig { group, name, value } => {
                Arc::make_mut(&mut self.dynamic).set_group(&group, &name, Some(&value));
            }
            SnapshotRecord::Topic { name, id, configs, mirror } => {
                self.add_topic(&name, id, mirror)?;
                self.topic_mut(id)?.configs = configs;
                return Ok(Some(id));
            }
            SnapshotRecord::Partition(state) => {
                let topic = self.topic_mut(topic.ok_or(SnapshotError::Partition)?)?;
                let index = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                set_partition(topic, index, state)?;
            }
            SnapshotRecord::End { records } => return Err(SnapshotError::End { found: records }),
        }
        Ok(topic)
    }
}

/// The configurations of brokers and groups.
fn dynamic(configs: &DynamicConfigs) -> impl Iterator<Item = SnapshotRecord> + use<'_> {
    let own = configs.brokers().map(|(id, configs)| (Some(id), configs));
    let brokers = own.chain([(None, configs.broker(None))]).flat_map(|(broker_id, configs)| {
        configs.iter().map(move |(name, value)| SnapshotRecord::BrokerConfig {
            broker_id,
            name: name.clone(),
            value: value.clone(),
        })
    });
    let groups = configs.groups().flat_map(|(group, configs)| {
        configs.iter().map(move |(name, value)| SnapshotRecord::GroupConfig {
            group: group.to_owned(),
            name: name.clone(),
            value: value.clone(),
        })
    });
    brokers.chain(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FeatureRange, MetadataRecord, MirrorState, PeerEndpoint};
    use towpath_types::{LeaderEpoch, PartitionEpoch};
    use uuid::Uuid;

    fn configs() -> [MetadataRecord; 4] {
        let (name, value) = (|name: &str| name.to_owned(), |value: &str| Some(value.to_owned()));
        [
            MetadataRecord::ClusterConfig { name: name("min.insync.replicas"), value: value("2") },
            MetadataRecord::BrokerConfig {
                broker_id: Some(BrokerId::new(7)),
                name: name("log.retention.ms"),
                value: value("5"),
            },
            MetadataRecord::BrokerConfig {
                broker_id: None,
                name: name("message.max.bytes"),
                value: value("6"),
            },
            MetadataRecord::GroupConfig {
                group: name("g"),
                name: name("consumer.session.timeout.ms"),
                value: value("7"),
            },
        ]
    }

    fn sample() -> MetadataImage {
        let mut image = MetadataImage::new();
        let id = TopicId::random();
        let ids = |range: std::ops::Range<i32>| range.map(BrokerId::new).collect::<Vec<_>>();
        let plain = RegisterBroker::new(BrokerId::new(7), Uuid::new_v4(), "h".to_owned(), 9092);
        let full = RegisterBroker {
            broker_id: BrokerId::new(8),
            rack: Some("r".to_owned()),
            peer: Some(PeerEndpoint { host: "p".to_owned(), port: 9093 }),
            fenced: true,
            features: [("metadata.version".to_owned(), FeatureRange { min: 1, max: 3 })].into(),
            directory: Some(Uuid::from_u128(5)),
            further_directories: vec![Uuid::from_u128(6)],
            ..plain.clone()
        };
        let mirror = MirrorRole {
            role: MirrorState::Writable,
            source_cluster: "s".to_owned(),
            source_topic_id: TopicId::random(),
        };
        let alone = PartitionImage::new(ids(7..9), ids(7..8), None);
        let state = PartitionImage {
            leader: Some(BrokerId::new(7)),
            leader_epoch: LeaderEpoch::new(3),
            partition_epoch: PartitionEpoch::new(4),
            adding_replicas: ids(1..3),
            removing_replicas: ids(4..5),
            elr: ids(8..9),
            last_known_elr: ids(9..10),
            recovering: true,
            offline: ids(6..7),
            ..alone.clone()
        };
        for record in [
            MetadataRecord::Cluster { cluster_id: "c".to_owned() },
            MetadataRecord::RegisterBroker(plain),
            MetadataRecord::RegisterBroker(full),
            MetadataRecord::BrokerState {
                broker_id: BrokerId::new(7),
                epoch: BrokerEpoch::new(1),
                fenced: false,
                in_controlled_shutdown: true,
            },
            MetadataRecord::FeatureLevel { name: "metadata.version".to_owned(), level: 2 },
            MetadataRecord::Topic {
                name: TopicName::new("empty").unwrap(),
                id: TopicId::random(),
                mirror: Some(mirror),
            },
            MetadataRecord::Topic { name: TopicName::new("t").unwrap(), id, mirror: None },
            MetadataRecord::Partition { topic_id: id, partition: 0, state },
            MetadataRecord::Partition { topic_id: id, partition: 1, state: alone },
            MetadataRecord::TopicConfig {
                topic_id: id,
                name: "retention.ms".to_owned(),
                value: Some("5".to_owned()),
            },
            MetadataRecord::ProducerIds { broker_id: BrokerId::new(7), next: ProducerId::new(2000) },
        ]
        .into_iter()
        .chain(configs())
        {
            image.apply(image.next_offset(), &record).unwrap();
        }
        image
    }

    fn restored(records: Vec<SnapshotRecord>) -> Result<MetadataImage, SnapshotError> {
        let bytes = records.into_iter().map(|record| record.encode().unwrap());
        MetadataImage::from_snapshot(bytes.map(|bytes| Ok(SnapshotRecord::decode(&bytes)?)))
    }

    #[test]
    fn an_image_survives_its_snapshot() {
        for image in [MetadataImage::new(), sample()] {
            assert_eq!(restored(image.snapshot().collect()).unwrap(), image);
        }
    }

    #[test]
    fn half_a_snapshot_is_none() {
        let whole: Vec<_> = sample().snapshot().collect();
        for cut in 0..whole.len() {
            assert!(restored(whole[..cut].to_vec()).is_err(), "the first {cut} records");
        }
        for gone in 0..whole.len() {
            let mut holed = whole.clone();
            holed.remove(gone);
            assert!(restored(holed).is_err(), "without record {gone}");
        }
        let mut twice = whole.clone();
        twice.extend(whole);
        assert!(restored(twice).is_err());
    }
}
