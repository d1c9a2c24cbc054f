//! Topics, their partitions and records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use towpath_types::{LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};
use towpath_wire::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use towpath_wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use towpath_wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use towpath_wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use towpath_wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponseTopic, TopicRequest,
};
use towpath_wire::messages::metadata::MetadataResponseTopic;
use towpath_wire::{ApiKey, ErrorCode, Request};

use super::{
    Admin, NewPartitions, NewTopic, PartitionDescription, PerItem, TopicDescription, TopicListing, left_out,
    wants_controller,
};
use crate::ClientError;
use crate::client::{SHARED_CHANNEL, check};
use crate::metadata::TopicMeta;

/// The first version of DeleteTopics that takes states instead of names.
const DELETE_VERSION_STATES: i16 = 6;

impl Admin {
    /// Sends a request to the controller, and once more when it has moved.
    pub(super) async fn controller<R: Request>(
        &self,
        request: &R,
        moved: impl Fn(&R::Response) -> bool,
    ) -> Result<(R::Response, Arc<str>), ClientError> {
        let limit = self.client.request_timeout() + Duration::from_millis(1_000);
        let mut retry = self.client.retrying("asking the controller", self.client.config.api_timeout_ms);
        loop {
            let (error, refresh) = match self.client.request_controller(request, limit).await {
                Ok((response, broker)) if !moved(&response) => return Ok((response, broker)),
                Ok((_, broker)) => {
                    (check(ErrorCode::NotController.code(), None, R::KEY, &broker, "the cluster").err(), true)
                }
                // Whether it was carried out is not known: that is the caller's to find out.
                Err(error @ ClientError::RequestTimeout { .. }) => return Err(error),
                Err(error) => (Some(error), true),
            };
            let Some(error) = error else { continue };
            retry.after(error).await?;
            if refresh {
                // A failure here shows in the next attempt.
                let _ = self.client.refresh(&[], false).await;
            }
        }
    }

    /// Creates topics, or checks whether they could be created. The values are the ids (zero from clusters without).
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<PerItem<TopicName, TopicId>, ClientError> {
        let creatable = |topic: &NewTopic| CreatableTopic {
            name: topic.name.as_str().to_owned(),
            num_partitions: topic.partitions.unwrap_or(-1),
            replication_factor: topic.replication_factor.unwrap_or(-1),
            assignments: Vec::new(),
            configs: topic
                .configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) })
                .collect(),
        };
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let (response, broker) = self
            .controller(&request, |response| response.topics.iter().any(|t| wants_controller(t.error_code)))
            .await?;
        let mut results: PerItem<TopicName, TopicId> = BTreeMap::new();
        for topic in response.topics {
            let name = TopicName::new(&topic.name)?;
            let checked =
                check(topic.error_code, topic.error_message, ApiKey::CreateTopics, &broker, &topic.name);
            results.insert(name, checked.map(|()| TopicId::new(topic.topic_id)));
        }
        for topic in topics {
            let missing = || Err(left_out(ApiKey::CreateTopics, &broker));
            results.entry(topic.name.clone()).or_insert_with(missing);
        }
        Ok(results)
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn delete_topics(&self, topics: &[TopicName]) -> Result<PerItem<TopicName, ()>, ClientError> {
        let connection = self.client.any_connection().await?;
        let mut request = DeleteTopicsRequest { timeout_ms: self.timeout_ms(), ..Default::default() };
        let names = topics.iter().map(|name| name.as_str().to_owned());
        if connection.version_of(ApiKey::DeleteTopics)? >= DELETE_VERSION_STATES {
            let state = |name| DeleteTopicState { name: Some(name), ..Default::default() };
            request.topics = names.map(state).collect();
        } else {
            request.topic_names = names.collect();
        }
        let (response, broker) = self
            .controller(&request, |response| {
                response.responses.iter().any(|topic| wants_controller(topic.error_code))
            })
            .await?;
        let mut results: PerItem<TopicName, ()> = BTreeMap::new();
        for topic in response.responses {
            let Some(name) = topic.name else { continue };
            let checked = check(topic.error_code, topic.error_message, ApiKey::DeleteTopics, &broker, &name);
            results.insert(TopicName::new(&name)?, checked);
        }
        for topic in topics {
            let missing = || Err(left_out(ApiKey::DeleteTopics, &broker));
            results.entry(topic.clone()).or_insert_with(missing);
        }
        Ok(results)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>, ClientError> {
        let mut retry = self.client.retrying("listing topics", self.client.config.api_timeout_ms);
        let (response, _) = loop {
            match self.client.fetch_metadata(None, false).await {
                Ok(response) => break response,
                Err(error) => retry.after(error).await?,
            }
        };
        let listing = |topic: MetadataResponseTopic| {
            let name = TopicName::new(topic.name.as_deref()?).ok()?;
            Some(TopicListing {
                name,
                id: TopicId::new(topic.topic_id),
                internal: topic.is_internal,
                partitions: topic.partitions.len(),
            })
        };
        let mut topics: Vec<_> = response.topics.into_iter().filter_map(listing).collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Describes topics. A partition without a leader is described as such, and is no error.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_topics(
        &self,
        topics: &[TopicName],
    ) -> Result<PerItem<TopicName, TopicDescription>, ClientError> {
        let mut retry = self.client.retrying("describing topics", self.client.config.api_timeout_ms);
        let (response, broker) = loop {
            match self.client.fetch_metadata(Some(topics), false).await {
                Ok(response) => break response,
                Err(error) => retry.after(error).await?,
            }
        };
        let mut results: PerItem<TopicName, TopicDescription> = BTreeMap::new();
        for topic in response.topics {
            let Some(name) = topic.name.clone() else { continue };
            let key = TopicName::new(&name)?;
            let described = match TopicMeta::from_wire(topic, 0) {
                Ok(meta) => Ok(describe(&meta)),
                Err(ErrorCode::UnknownTopicOrPartition) => {
                    Err(ClientError::UnknownTopic { topic: key.clone() })
                }
                Err(code) => Err(crate::client::broker_error(code, ApiKey::Metadata, &broker, &name)),
            };
            results.insert(key, described);
        }
        for topic in topics {
            let missing = || Err(left_out(ApiKey::Metadata, &broker));
            results.entry(topic.clone()).or_insert_with(missing);
        }
        Ok(results)
    }

    /// As [`Self::describe_topics`], page by page, with the replicas that are eligible to lead (KIP-966). Needs Kafka
    /// 3.7.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_topic_partitions(
        &self,
        topics: &[TopicName],
    ) -> Result<PerItem<TopicName, TopicDescription>, ClientError> {
        let mut results: PerItem<TopicName, TopicDescription> = BTreeMap::new();
        let mut cursor = None;
        let asked = loop {
            let mut names: Vec<_> = topics.iter().map(|topic| topic.as_str().to_owned()).collect();
            // The broker goes on at the cursor, in the order of the names.
            names.sort_unstable();
            let request = DescribeTopicPartitionsRequest {
                topics: names.into_iter().map(|name| TopicRequest { name }).collect(),
                cursor: cursor.take(),
                ..Default::default()
            };
            let ask = || self.client.request_any(&request);
            let (response, broker) = self.patiently("describing topics", ask).await?;
            for topic in response.topics {
                add_page(&mut results, topic, &broker)?;
            }
            match response.next_cursor {
                Some(next) => cursor = Some(next),
                None => break broker,
            }
        };
        for topic in topics {
            let missing = || Err(left_out(ApiKey::DescribeTopicPartitions, &asked));
            results.entry(topic.clone()).or_insert_with(missing);
        }
        Ok(results)
    }

    /// Raises the number of partitions to the totals given.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn create_partitions(
        &self,
        totals: &[(TopicName, i32)],
    ) -> Result<PerItem<TopicName, ()>, ClientError> {
        let new = |(name, total): &(TopicName, i32)| {
            (name.clone(), NewPartitions { total: *total, assignments: None })
        };
        self.grow_topics(&totals.iter().map(new).collect(), false).await
    }

    /// As [`Self::create_partitions`], with the replicas of the new partitions, or only checks whether it could be
    /// done.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn grow_topics(
        &self,
        topics: &BTreeMap<TopicName, NewPartitions>,
        validate_only: bool,
    ) -> Result<PerItem<TopicName, ()>, ClientError> {
        let assignment =
            |broker_ids: &Vec<i32>| CreatePartitionsAssignment { broker_ids: broker_ids.clone() };
        let topic = |(name, new): (&TopicName, &NewPartitions)| CreatePartitionsTopic {
            name: name.as_str().to_owned(),
            count: new.total,
            assignments: new.assignments.as_ref().map(|all| all.iter().map(assignment).collect()),
        };
        let request = CreatePartitionsRequest {
            topics: topics.iter().map(topic).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let (response, broker) = self
            .controller(&request, |response| response.results.iter().any(|t| wants_controller(t.error_code)))
            .await?;
        let mut results: PerItem<TopicName, ()> = BTreeMap::new();
        for topic in response.results {
            let checked =
                check(topic.error_code, topic.error_message, ApiKey::CreatePartitions, &broker, &topic.name);
            results.insert(TopicName::new(&topic.name)?, checked);
        }
        for topic in topics.keys() {
            let missing = || Err(left_out(ApiKey::CreatePartitions, &broker));
            results.entry(topic.clone()).or_insert_with(missing);
        }
        Ok(results)
    }

    pub(super) async fn delete_records_of(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, ClientError> {
        let (leader, ..) = self.client.leader(partition).await?;
        let connection = self.client.connection(leader, SHARED_CHANNEL).await?;
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: partition.topic.as_str().to_owned(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition.partition,
                    offset: before.get(),
                }],
            }],
            timeout_ms: self.timeout_ms(),
        };
        let response = connection.request(&request, self.client.request_timeout()).await?;
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(answer) = answer else {
            return Err(left_out(ApiKey::DeleteRecords, connection.broker()));
        };
        check(answer.error_code, None, ApiKey::DeleteRecords, connection.broker(), partition)?;
        Ok(Offset::new(answer.low_watermark))
    }
}

/// Adds what one page of an answer says of a topic.
fn add_page(
    results: &mut PerItem<TopicName, TopicDescription>,
    topic: DescribeTopicPartitionsResponseTopic,
    broker: &Arc<str>,
) -> Result<(), ClientError> {
    let Some(name) = topic.name else { return Ok(()) };
    let key = TopicName::new(&name)?;
    match ErrorCode::from_code(topic.error_code) {
        ErrorCode::None => {}
        ErrorCode::UnknownTopicOrPartition => {
            results.insert(key.clone(), Err(ClientError::UnknownTopic { topic: key }));
            return Ok(());
        }
        code => {
            let error = crate::client::broker_error(code, ApiKey::DescribeTopicPartitions, broker, &name);
            results.insert(key, Err(error));
            return Ok(());
        }
    }
    let partitions = topic.partitions.into_iter().map(|partition| PartitionDescription {
        partition: partition.partition_index,
        leader: (partition.leader_id >= 0).then_some(partition.leader_id),
        leader_epoch: LeaderEpoch::new(partition.leader_epoch),
        replicas: partition.replica_nodes,
        in_sync_replicas: partition.isr_nodes,
        offline_replicas: partition.offline_replicas,
        eligible_leader_replicas: partition.eligible_leader_replicas,
        last_known_eligible_leader_replicas: partition.last_known_elr,
    });
    let fresh = TopicDescription {
        name: key.clone(),
        id: TopicId::new(topic.topic_id),
        internal: topic.is_internal,
        partitions: Vec::new(),
    };
    if let Ok(described) = results.entry(key).or_insert(Ok(fresh)) {
        described.partitions.extend(partitions);
        described.partitions.sort_unstable_by_key(|partition| partition.partition);
    }
    Ok(())
}

fn describe(meta: &TopicMeta) -> TopicDescription {
    let partitions = meta.partitions.iter().zip(0..).map(|(partition, index)| PartitionDescription {
        partition: index,
        leader: (partition.leader >= 0).then_some(partition.leader),
        leader_epoch: LeaderEpoch::new(partition.leader_epoch),
        replicas: partition.replicas.clone(),
        in_sync_replicas: partition.isr.clone(),
        offline_replicas: partition.offline.clone(),
        eligible_leader_replicas: None,
        last_known_eligible_leader_replicas: None,
    });
    TopicDescription {
        name: meta.name.clone(),
        id: meta.id,
        internal: meta.internal,
        partitions: partitions.collect(),
    }
}
