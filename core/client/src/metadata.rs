//! What the client knows of the cluster; pure.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_types::{TopicId, TopicName};
use towpath_wire::ErrorCode;
use towpath_wire::messages::metadata::{MetadataResponse, MetadataResponseTopic};

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionMeta {
    /// −1 for none.
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    pub(crate) offline: Vec<i32>,
    pub(crate) error: ErrorCode,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicMeta {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) internal: bool,
    /// By index, without gaps.
    pub(crate) partitions: Vec<PartitionMeta>,
    /// [`Cluster::version`] when it was learnt.
    pub(crate) version: u64,
}

impl TopicMeta {
    /// The partition, if there is one with this index.
    pub(crate) fn partition(&self, index: i32) -> Option<&PartitionMeta> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// Reads one topic of a response.
    ///
    /// # Errors
    /// The topic's error code.
    pub(crate) fn from_wire(topic: MetadataResponseTopic, version: u64) -> Result<Self, ErrorCode> {
        let code = ErrorCode::from_code(topic.error_code);
        if code.is_error() {
            return Err(code);
        }
        let name = topic.name.as_deref().map(TopicName::new);
        let Some(Ok(name)) = name else { return Err(ErrorCode::InvalidTopicException) };
        let mut entries = topic.partitions;
        entries.sort_unstable_by_key(|partition| partition.partition_index);
        let gapless = entries.iter().enumerate().all(|(at, entry)| entry.partition_index as usize == at);
        if !gapless {
            return Err(ErrorCode::LeaderNotAvailable);
        }
        let partitions = entries
            .into_iter()
            .map(|entry| PartitionMeta {
                leader: entry.leader_id,
                leader_epoch: entry.leader_epoch,
                replicas: entry.replica_nodes,
                isr: entry.isr_nodes,
                offline: entry.offline_replicas,
                error: ErrorCode::from_code(entry.error_code),
            })
            .collect();
        Ok(Self { name, id: TopicId::new(topic.topic_id), internal: topic.is_internal, partitions, version })
    }

    /// Keeps what is newer of `old` (KIP-320): a partition's leader epoch never goes back within one topic id.
    fn keep_newer_epochs(&mut self, old: &Self) {
        if self.id != old.id {
            return;
        }
        for (new, old) in self.partitions.iter_mut().zip(&old.partitions) {
            if new.leader_epoch >= 0 && new.leader_epoch < old.leader_epoch {
                *new = old.clone();
            }
        }
    }
}

/// A snapshot of the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    /// Grows with every response.
    pub(crate) version: u64,
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: i32,
    pub(crate) nodes: HashMap<i32, Node>,
    pub(crate) topics: HashMap<TopicName, Arc<TopicMeta>>,
}

impl Cluster {
    /// The next snapshot after a response. `wanted` are the topics that were asked for by name: what is not there any
    /// more is forgotten.
    pub(crate) fn merge(&self, response: MetadataResponse, wanted: &[TopicName]) -> Self {
        let version = self.version + 1;
        let nodes = response
            .brokers
            .into_iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                Some((broker.node_id, Node { host: broker.host, port, rack: broker.rack }))
            })
            .collect::<HashMap<_, _>>();
        let mut topics = self.topics.clone();
        for name in wanted {
            topics.remove(name);
        }
        for topic in response.topics {
            let Ok(mut topic) = TopicMeta::from_wire(topic, version) else { continue };
            if let Some(old) = self.topics.get(&topic.name) {
                topic.keep_newer_epochs(old);
            }
            topics.insert(topic.name.clone(), Arc::new(topic));
        }
        Self {
            version,
            cluster_id: response.cluster_id,
            controller: response.controller_id,
            nodes: if nodes.is_empty() { self.nodes.clone() } else { nodes },
            topics,
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::messages::metadata::{MetadataResponseBroker, MetadataResponsePartition};

    use super::*;

    fn response(id: u128, leader: i32, epoch: i32) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataResponseBroker { node_id: 1, host: "h".into(), port: 9, rack: None }],
            topics: vec![MetadataResponseTopic {
                name: Some("t".into()),
                topic_id: uuid::Uuid::from_u128(id),
                partitions: vec![MetadataResponsePartition {
                    leader_id: leader,
                    leader_epoch: epoch,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn leader_epochs_do_not_go_back_within_a_topic() {
        let name = TopicName::new("t").unwrap();
        let wanted = [name.clone()];
        let cluster = Cluster::default().merge(response(7, 2, 5), &wanted);
        let stale = cluster.merge(response(7, 1, 4), &wanted);
        assert_eq!(stale.topics[&name].partitions[0].leader, 2);
        let recreated = stale.merge(response(8, 1, 0), &wanted);
        assert_eq!(recreated.topics[&name].partitions[0].leader, 1, "another topic has epochs of its own");
        let gone = recreated.merge(MetadataResponse::default(), &wanted);
        assert!(gone.topics.is_empty());
        assert_eq!(gone.nodes.len(), 1, "an empty list of brokers is not believed");
    }
}
