//! An image as records of its own, from which it can be made anew without the log that led to it.

use serde::{Deserialize, Serialize};
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, ProducerId, TopicId, TopicName};

use super::{BrokerRegistration, ImageError, MetadataImage, PartitionImage, set_partition};
use crate::{RecordError, RegisterBroker};

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
    /// A topic.
    Topic { name: TopicName, id: TopicId, configs: std::collections::BTreeMap<String, String> },
    /// The next partition of the topic before.
    Partition {
        replicas: Vec<BrokerId>,
        isr: Vec<BrokerId>,
        leader: Option<BrokerId>,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
    },
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
        let brokers = self.brokers.values().map(|broker| SnapshotRecord::Broker {
            epoch: broker.epoch,
            broker: RegisterBroker {
                broker_id: broker.id,
                incarnation: broker.incarnation,
                host: broker.host.clone(),
                port: broker.port,
                rack: broker.rack.clone(),
            },
        });
        let topics = self.topics.values().flat_map(|topic| {
            let head = SnapshotRecord::Topic {
                name: topic.name.clone(),
                id: topic.id,
                configs: topic.configs.clone(),
            };
            std::iter::once(head).chain(topic.partitions.iter().map(|partition| SnapshotRecord::Partition {
                replicas: partition.replicas.clone(),
                isr: partition.isr.clone(),
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
            }))
        });
        let partitions = self.topics.values().map(|topic| topic.partitions.len());
        let records = 1 + self.brokers.len() + self.topics.len() + partitions.sum::<usize>();
        let end = SnapshotRecord::End { records: records as u64 };
        std::iter::once(begin).chain(brokers).chain(topics).chain(std::iter::once(end))
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
                let RegisterBroker { broker_id: id, incarnation, host, port, rack } = broker;
                let registration = BrokerRegistration { id, epoch, incarnation, host, port, rack };
                self.brokers.insert(id, registration);
            }
            SnapshotRecord::Topic { name, id, configs } => {
                self.add_topic(&name, id)?;
                self.topic_mut(id)?.configs = configs;
                return Ok(Some(id));
            }
            SnapshotRecord::Partition { replicas, isr, leader, leader_epoch, partition_epoch } => {
                let topic = self.topic_mut(topic.ok_or(SnapshotError::Partition)?)?;
                let index = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                let state = PartitionImage { replicas, isr, leader, leader_epoch, partition_epoch };
                set_partition(topic, index, state)?;
            }
            SnapshotRecord::End { records } => return Err(SnapshotError::End { found: records }),
        }
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetadataRecord;
    use uuid::Uuid;

    fn sample() -> MetadataImage {
        let mut image = MetadataImage::new();
        let id = TopicId::random();
        let broker = RegisterBroker {
            broker_id: BrokerId::new(7),
            incarnation: Uuid::new_v4(),
            host: "h".to_owned(),
            port: 9092,
            rack: Some("r".to_owned()),
        };
        let partition = |partition, leader, epoch| MetadataRecord::Partition {
            topic_id: id,
            partition,
            replicas: vec![BrokerId::new(7), BrokerId::new(8)],
            isr: vec![BrokerId::new(7)],
            leader,
            leader_epoch: LeaderEpoch::new(epoch),
            partition_epoch: PartitionEpoch::new(epoch + 1),
        };
        for record in [
            MetadataRecord::Cluster { cluster_id: "c".to_owned() },
            MetadataRecord::RegisterBroker(broker),
            MetadataRecord::Topic { name: TopicName::new("empty").unwrap(), id: TopicId::random() },
            MetadataRecord::Topic { name: TopicName::new("t").unwrap(), id },
            partition(0, Some(BrokerId::new(7)), 3),
            partition(1, None, 0),
            MetadataRecord::TopicConfig {
                topic_id: id,
                name: "retention.ms".to_owned(),
                value: Some("5".to_owned()),
            },
            MetadataRecord::ProducerIds { broker_id: BrokerId::new(7), next: ProducerId::new(2000) },
        ] {
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
