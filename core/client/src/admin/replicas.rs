//! Leaders, and where replicas are.

use std::collections::BTreeMap;

use towpath_types::{TopicName, TopicPartition};
use towpath_wire::ApiKey;
use towpath_wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use towpath_wire::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use towpath_wire::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};

use super::{Admin, PerItem, left_out, wants_controller};
use crate::ClientError;
use crate::client::check;

/// How a leader is chosen by [`Admin::elect_leaders`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The first replica leads, if it is in sync.
    Preferred,
    /// Any replica that is there leads, if none in sync is: acknowledged records may be lost.
    Unclean,
}

/// One partition of [`Admin::list_partition_reassignments`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// Its replicas at present: the old ones and the new ones.
    pub replicas: Vec<i32>,
    /// Those that are new.
    pub adding: Vec<i32>,
    /// Those that go when the new ones are in sync.
    pub removing: Vec<i32>,
}

impl Admin {
    /// Elects leaders of partitions, or of all partitions that need it. A partition that has the right leader already
    /// has the result `ELECTION_NOT_NEEDED`, unless all were asked for.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        let topics = partitions.map(|partitions| {
            let topics = by_topic(partitions.iter().map(|at| (at, at.partition))).into_iter();
            topics.map(|(topic, partitions)| TopicPartitions { topic, partitions }).collect()
        });
        let request = ElectLeadersRequest {
            election_type: i8::from(election == Election::Unclean),
            topic_partitions: topics,
            timeout_ms: self.timeout_ms(),
        };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let api = ApiKey::ElectLeaders;
        check(response.error_code, None, api, &asked, "leaders")?;
        let mut results: PerItem<TopicPartition, ()> = BTreeMap::new();
        for topic in response.replica_election_results {
            let name = TopicName::new(&topic.topic)?;
            for partition in topic.partition_result {
                let at = TopicPartition::new(name.clone(), partition.partition_id);
                let checked = check(partition.error_code, partition.error_message, api, &asked, &at);
                results.insert(at, checked);
            }
        }
        for partition in partitions.unwrap_or_default() {
            results.entry(partition.clone()).or_insert_with(|| Err(left_out(api, &asked)));
        }
        Ok(results)
    }

    /// Moves partitions to other replicas, in the order of preference; `None` takes back a move that is not over.
    /// The answer comes when the moves have begun.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn alter_partition_reassignments(
        &self,
        targets: &BTreeMap<TopicPartition, Option<Vec<i32>>>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        let partition = |at: &TopicPartition, replicas: &Option<Vec<i32>>| ReassignablePartition {
            partition_index: at.partition,
            replicas: replicas.clone(),
        };
        let topics = by_topic(targets.iter().map(|(at, replicas)| (at, partition(at, replicas)))).into_iter();
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: topics.map(|(name, partitions)| ReassignableTopic { name, partitions }).collect(),
            ..Default::default()
        };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let api = ApiKey::AlterPartitionReassignments;
        check(response.error_code, response.error_message, api, &asked, "partitions")?;
        let mut results: PerItem<TopicPartition, ()> = BTreeMap::new();
        for topic in response.responses {
            let name = TopicName::new(&topic.name)?;
            for partition in topic.partitions {
                let at = TopicPartition::new(name.clone(), partition.partition_index);
                let checked = check(partition.error_code, partition.error_message, api, &asked, &at);
                results.insert(at, checked);
            }
        }
        for partition in targets.keys() {
            results.entry(partition.clone()).or_insert_with(|| Err(left_out(api, &asked)));
        }
        Ok(results)
    }

    /// Moves that are not over: of the partitions given, or of all. Partitions that do not move are left out.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn list_partition_reassignments(
        &self,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, Reassignment>, ClientError> {
        let topics = partitions.map(|partitions| {
            let topics = by_topic(partitions.iter().map(|at| (at, at.partition))).into_iter();
            topics
                .map(|(name, partition_indexes)| ListPartitionReassignmentsTopics { name, partition_indexes })
                .collect()
        });
        let request = ListPartitionReassignmentsRequest { timeout_ms: self.timeout_ms(), topics };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let api = ApiKey::ListPartitionReassignments;
        check(response.error_code, response.error_message, api, &asked, "partitions")?;
        let mut found = BTreeMap::new();
        for topic in response.topics {
            let name = TopicName::new(&topic.name)?;
            for partition in topic.partitions {
                let moving = Reassignment {
                    replicas: partition.replicas,
                    adding: partition.adding_replicas,
                    removing: partition.removing_replicas,
                };
                found.insert(TopicPartition::new(name.clone(), partition.partition_index), moving);
            }
        }
        Ok(found)
    }
}

/// What there is about each partition, by topic.
fn by_topic<'a, T>(items: impl Iterator<Item = (&'a TopicPartition, T)>) -> BTreeMap<String, Vec<T>> {
    let mut topics: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (at, item) in items {
        topics.entry(at.topic.as_str().to_owned()).or_default().push(item);
    }
    topics
}
