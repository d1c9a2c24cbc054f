//! The records of the metadata log, and their form on disk.

use serde::{Deserialize, Serialize};
use towpath_types::{BrokerId, LeaderEpoch, PartitionEpoch, ProducerId, TopicId, TopicName};
use uuid::Uuid;

/// The version of the encoding: one byte in front of every record.
const VERSION: u8 = 1;

/// One change of the cluster's metadata.
///
/// New kinds of records and new optional fields may be added; a kind or version that a node does not know stops it
/// (R7), since an image with a gap would be wrong in ways that nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum MetadataRecord {
    /// The first record of every log.
    Cluster {
        /// The cluster's id, 22 characters of URL-safe base64.
        cluster_id: String,
    },
    /// A broker began to serve. Its broker epoch is the offset of this record (KIP-631).
    RegisterBroker(RegisterBroker),
    /// A topic was created; its partitions follow.
    Topic {
        /// The name.
        name: TopicName,
        /// The id.
        id: TopicId,
    },
    /// A partition was created or changed.
    Partition {
        /// The topic.
        topic_id: TopicId,
        /// The index.
        partition: i32,
        /// The brokers that hold it, the preferred leader first.
        replicas: Vec<BrokerId>,
        /// Those of them that are in sync.
        isr: Vec<BrokerId>,
        /// The leader; none while nobody can lead.
        leader: Option<BrokerId>,
        /// Grows at every change of the leader.
        leader_epoch: LeaderEpoch,
        /// Grows at every change of the partition.
        partition_epoch: PartitionEpoch,
    },
    /// A topic and all of its partitions and configurations are gone.
    RemoveTopic {
        /// The topic.
        topic_id: TopicId,
    },
    /// A configuration of a topic was set, or (without a value) went back to its default.
    TopicConfig {
        /// The topic.
        topic_id: TopicId,
        /// The configuration's name.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// A block of producer ids was handed out.
    ProducerIds {
        /// The broker that got it.
        broker_id: BrokerId,
        /// The first id that nobody has yet.
        next: ProducerId,
    },
}

/// A broker's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterBroker {
    /// The broker.
    pub broker_id: BrokerId,
    /// Drawn anew at every start of the process.
    pub incarnation: Uuid,
    /// The host name that clients use.
    pub host: String,
    /// The port that clients use.
    pub port: u16,
    /// The rack, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is nothing.
    #[error("an empty metadata record")]
    Empty,
    /// A newer Towpath wrote it.
    #[error("a metadata record of version {0}, and this version of Towpath reads only version {VERSION}")]
    Version(u8),
    /// It is not what it should be.
    #[error("a metadata record that cannot be read")]
    Content(#[from] serde_json::Error),
}

impl MetadataRecord {
    /// The record as bytes.
    ///
    /// # Errors
    /// [`RecordError::Content`].
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`], also for a version or a kind that is not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            None => Err(RecordError::Empty),
            Some((&VERSION, content)) => Ok(serde_json::from_slice(content)?),
            Some((&version, _)) => Err(RecordError::Version(version)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let id = TopicId::random();
        let records = [
            MetadataRecord::Cluster { cluster_id: "c".to_owned() },
            MetadataRecord::RegisterBroker(RegisterBroker {
                broker_id: BrokerId::new(1),
                incarnation: Uuid::new_v4(),
                host: "h".to_owned(),
                port: 9092,
                rack: None,
            }),
            MetadataRecord::Topic { name: TopicName::new("t").unwrap(), id },
            MetadataRecord::Partition {
                topic_id: id,
                partition: 3,
                replicas: vec![BrokerId::new(1)],
                isr: vec![BrokerId::new(1)],
                leader: None,
                leader_epoch: LeaderEpoch::new(4),
                partition_epoch: PartitionEpoch::new(5),
            },
            MetadataRecord::TopicConfig { topic_id: id, name: "retention.ms".to_owned(), value: None },
            MetadataRecord::RemoveTopic { topic_id: id },
            MetadataRecord::ProducerIds { broker_id: BrokerId::new(1), next: ProducerId::new(1000) },
        ];
        for record in records {
            assert_eq!(MetadataRecord::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(matches!(MetadataRecord::decode(b""), Err(RecordError::Empty)));
        assert!(matches!(MetadataRecord::decode(b"\x02{}"), Err(RecordError::Version(2))));
        for bad in
            [&b"\x01{\"type\":\"teapot\"}"[..], b"\x01{\"type\":\"cluster\",\"cluster_id\":\"c\",\"x\":1}"]
        {
            assert!(matches!(MetadataRecord::decode(bad), Err(RecordError::Content(_))), "{bad:?}");
        }
    }
}
