//! The records of the metadata log, and their form on disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use towpath_types::{BrokerEpoch, BrokerId, ProducerId, TopicId, TopicName};
use uuid::Uuid;

use crate::PartitionImage;

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
    /// A registered broker was fenced or unfenced, or began to shut down (KIP-631, KIP-841).
    BrokerState {
        /// The broker.
        broker_id: BrokerId,
        /// Its incarnation; a record about another one is refused.
        epoch: BrokerEpoch,
        /// Whether it may neither lead nor be in sync.
        fenced: bool,
        /// Whether it is on its way out, and gets no more leaders.
        in_controlled_shutdown: bool,
    },
    /// A broker is not part of the cluster any more.
    UnregisterBroker {
        /// The broker.
        broker_id: BrokerId,
        /// Its incarnation.
        epoch: BrokerEpoch,
    },
    /// A topic was created; its partitions follow.
    Topic {
        /// The name.
        name: TopicName,
        /// The id.
        id: TopicId,
        /// What it is in a mirror, if it belongs to one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mirror: Option<MirrorRole>,
    },
    /// A partition was created or changed.
    Partition {
        /// The topic.
        topic_id: TopicId,
        /// The index.
        partition: i32,
        /// All of its state.
        #[serde(flatten)]
        state: PartitionImage,
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
    /// The default of a topic's configuration was set for the whole cluster, or (without a value) every node goes by
    /// its own again.
    ClusterConfig {
        /// The configuration's name, as of a topic.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// A configuration of one broker, or (without an id) of all brokers was set while they run, or (without a value) is
    /// what it was before.
    BrokerConfig {
        /// The broker; all of them without one.
        broker_id: Option<BrokerId>,
        /// The configuration's name, as of a broker.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// A configuration of a group was set, or (without a value) went back to its default.
    GroupConfig {
        /// The group.
        group: String,
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
    /// The cluster uses a feature at this level from here on (KIP-584); at 0 it does not use it.
    FeatureLevel {
        /// The feature, e.g. `metadata.version`.
        name: String,
        /// The level.
        level: i16,
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
    /// Where other nodes reach it; none on a node that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerEndpoint>,
    /// Whether it begins fenced: every broker of a cluster does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fenced: bool,
    /// Whether it is on its way out (only in snapshots: a broker does not begin so).
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_controlled_shutdown: bool,
    /// The levels of features that it can work with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, FeatureRange>,
    /// The identity of its data directory (KIP-858), if known: another one has none of what the last one had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Uuid>,
    /// The identities of its further directories, also of those that are missing and had something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_directories: Vec<Uuid>,
}

impl RegisterBroker {
    /// A registration with nothing but an address, as that of a node that is alone.
    #[must_use]
    pub const fn new(broker_id: BrokerId, incarnation: Uuid, host: String, port: u16) -> Self {
        Self {
            broker_id,
            incarnation,
            host,
            port,
            rack: None,
            peer: None,
            fenced: false,
            in_controlled_shutdown: false,
            features: BTreeMap::new(),
            directory: None,
            further_directories: Vec::new(),
        }
    }
}

/// Where other nodes reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEndpoint {
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The levels of a feature, both ends included, that something can work with (KIP-584).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRange {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl FeatureRange {
    /// Whether the level is one of these. At 0 a feature is not used, which everything can do that allows it.
    #[must_use]
    pub const fn contains(self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// What a topic is in a mirror: which topic of which cluster it follows, or followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorRole {
    /// Whether it follows or is written to.
    pub role: MirrorState,
    /// The id of the cluster that has the source.
    pub source_cluster: String,
    /// The id of the source there.
    pub source_topic_id: TopicId,
}

/// Whether a topic of a mirror follows its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// It was promoted: clients write to it.
    Writable,
    /// It follows its source; only the mirror writes to it.
    Mirror,
}

/// For fields that are left out where they say nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
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
    use towpath_types::{LeaderEpoch, PartitionEpoch};

    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let id = TopicId::random();
        let plain = RegisterBroker::new(BrokerId::new(1), Uuid::new_v4(), "h".to_owned(), 9092);
        let full = RegisterBroker {
            rack: Some("r".to_owned()),
            peer: Some(PeerEndpoint { host: "p".to_owned(), port: 9093 }),
            fenced: true,
            in_controlled_shutdown: true,
            features: BTreeMap::from([("metadata.version".to_owned(), FeatureRange { min: 1, max: 2 })]),
            directory: Some(Uuid::from_u128(9)),
            further_directories: vec![Uuid::from_u128(10)],
            ..plain.clone()
        };
        let mirror = MirrorRole {
            role: MirrorState::Mirror,
            source_cluster: "c".to_owned(),
            source_topic_id: TopicId::random(),
        };
        let alone = PartitionImage::new(vec![BrokerId::new(1)], vec![BrokerId::new(1)], None);
        let state = PartitionImage {
            leader: Some(BrokerId::new(1)),
            leader_epoch: LeaderEpoch::new(4),
            partition_epoch: PartitionEpoch::new(5),
            adding_replicas: vec![BrokerId::new(2)],
            removing_replicas: vec![BrokerId::new(3)],
            elr: vec![BrokerId::new(4)],
            last_known_elr: vec![BrokerId::new(5)],
            recovering: true,
            offline: vec![BrokerId::new(6)],
            ..alone.clone()
        };
        let (broker_id, epoch) = (BrokerId::new(1), BrokerEpoch::new(2));
        let records = [
            MetadataRecord::Cluster { cluster_id: "c".to_owned() },
            MetadataRecord::RegisterBroker(plain),
            MetadataRecord::RegisterBroker(full),
            MetadataRecord::BrokerState { broker_id, epoch, fenced: true, in_controlled_shutdown: false },
            MetadataRecord::UnregisterBroker { broker_id, epoch },
            MetadataRecord::ClusterConfig {
                name: "min.insync.replicas".to_owned(),
                value: Some("2".to_owned()),
            },
            MetadataRecord::ClusterConfig { name: "min.insync.replicas".to_owned(), value: None },
            MetadataRecord::BrokerConfig {
                broker_id: Some(broker_id),
                name: "n".to_owned(),
                value: Some(String::new()),
            },
            MetadataRecord::BrokerConfig { broker_id: None, name: "n".to_owned(), value: None },
            MetadataRecord::GroupConfig {
                group: "g".to_owned(),
                name: "n".to_owned(),
                value: Some("1".to_owned()),
            },
            MetadataRecord::Topic { name: TopicName::new("t").unwrap(), id, mirror: None },
            MetadataRecord::Topic { name: TopicName::new("m").unwrap(), id, mirror: Some(mirror) },
            MetadataRecord::Partition { topic_id: id, partition: 3, state: alone },
            MetadataRecord::Partition { topic_id: id, partition: 4, state },
            MetadataRecord::TopicConfig { topic_id: id, name: "retention.ms".to_owned(), value: None },
            MetadataRecord::RemoveTopic { topic_id: id },
            MetadataRecord::ProducerIds { broker_id: BrokerId::new(1), next: ProducerId::new(1000) },
            MetadataRecord::FeatureLevel { name: "metadata.version".to_owned(), level: 2 },
        ];
        for record in records {
            assert_eq!(MetadataRecord::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    /// Bytes as a node without a cluster has always written them, and still does.
    #[test]
    fn old_records_mean_what_they_meant() {
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let broker = format!(
            r#"{{"type":"register_broker","broker_id":1,"incarnation":"{uuid}","host":"h","port":9092,"rack":"r"}}"#
        );
        let partition = format!(
            r#"{{"type":"partition","topic_id":"{uuid}","partition":0,"replicas":[1,2],"isr":[1],"leader":1,"leader_epoch":3,"partition_epoch":4}}"#
        );
        let topic = format!(r#"{{"type":"topic","name":"t","id":"{uuid}"}}"#);
        for text in [&broker, &partition, &topic] {
            let bytes = [b"\x01", text.as_bytes()].concat();
            let record = MetadataRecord::decode(&bytes).unwrap();
            assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), format!("\x01{text}"));
            match record {
                MetadataRecord::RegisterBroker(broker) => {
                    assert!(!broker.fenced && broker.peer.is_none() && broker.features.is_empty());
                    assert_eq!(broker.directory, None);
                }
                MetadataRecord::Partition { state, .. } => {
                    assert_eq!((state.leader_epoch.get(), state.partition_epoch.get()), (3, 4));
                    assert!(state.elr.is_empty() && state.adding_replicas.is_empty() && !state.recovering);
                }
                MetadataRecord::Topic { mirror, .. } => assert_eq!(mirror, None),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(matches!(MetadataRecord::decode(b""), Err(RecordError::Empty)));
        assert!(matches!(MetadataRecord::decode(b"\x02{}"), Err(RecordError::Version(2))));
        let partition = format!(
            r#"{{"type":"partition","topic_id":"{}","partition":0,"replicas":[],"isr":[],"leader":null,"leader_epoch":0,"partition_epoch":0,"x":1}}"#,
            Uuid::nil()
        );
        for bad in [
            r#"{"type":"teapot"}"#,
            r#"{"type":"cluster","cluster_id":"c","x":1}"#,
            &partition,
            &partition.replace(r#","x":1"#, r#","leader":1"#),
            &partition.replace(r#""isr":[],"#, "").replace(r#","x":1"#, ""),
        ] {
            let bytes = [b"\x01", bad.as_bytes()].concat();
            assert!(matches!(MetadataRecord::decode(&bytes), Err(RecordError::Content(_))), "{bad:?}");
        }
        let good = partition.replace(r#","x":1"#, "");
        assert!(MetadataRecord::decode(&[b"\x01", good.as_bytes()].concat()).is_ok());
    }
}
