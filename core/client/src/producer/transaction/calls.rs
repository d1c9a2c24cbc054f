//! The calls of [`super::machine`] as requests, and their answers.

use std::sync::Arc;

use parking_lot::Mutex;
use towpath_types::{ProducerEpoch, ProducerId, TopicPartition};
use towpath_wire::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use towpath_wire::messages::add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnTopic};
use towpath_wire::messages::end_txn::EndTxnRequest;
use towpath_wire::messages::init_producer_id::InitProducerIdRequest;
use towpath_wire::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::ConsumerGroupMetadata;
use super::machine::{Answer, Call, Identity, Offsets};
use crate::ClientError;
use crate::client::{Channel, ClientInner};
use crate::coordinator::{CoordinatorLink, KeyType};
use crate::group::coordinator::partition_of;

/// The last version of AddPartitionsToTxn for clients: those above are the brokers'.
const ADD_PARTITIONS_VERSION_MAX: i16 = 3;
/// The last versions before brokers add partitions and groups by themselves (KIP-890).
const END_VERSION_V1: i16 = 4;
const OFFSETS_VERSION_V1: i16 = 4;

/// Makes calls, one after the other.
#[derive(Debug)]
pub(in crate::producer) struct Caller {
    client: Arc<ClientInner>,
    channel: Arc<Channel>,
    id: Arc<str>,
    timeout_ms: i32,
    transactions: CoordinatorLink,
    /// The group that offsets were committed for last.
    group: Mutex<Option<Arc<CoordinatorLink>>>,
}

/// What a code of a coordinator says, as an error.
pub(in crate::producer) fn error(call: &Call, code: ErrorCode, id: &str) -> ClientError {
    let (api, group) = match call {
        Call::Init { .. } => (ApiKey::InitProducerId, None),
        Call::AddPartitions { .. } => (ApiKey::AddPartitionsToTxn, None),
        Call::AddOffsets { group, .. } => (ApiKey::AddOffsetsToTxn, Some(group)),
        Call::CommitOffsets { group, .. } => (ApiKey::TxnOffsetCommit, Some(group)),
        Call::End { .. } => (ApiKey::EndTxn, None),
    };
    let subject = match group {
        Some(group) => format!("group {} in the transaction of {id}", group.group_id),
        None => format!("the transaction of {id}"),
    };
    let broker = Arc::from("the coordinator");
    ClientError::Broker { code, api, broker, subject: subject.into_boxed_str(), message: None }
}

impl Caller {
    pub(in crate::producer) fn new(
        client: Arc<ClientInner>,
        channel: Arc<Channel>,
        id: Arc<str>,
        timeout_ms: u64,
    ) -> Self {
        let transactions =
            CoordinatorLink::new(Arc::clone(&client), Some(Arc::clone(&channel)), KeyType::Transaction, &id);
        let timeout_ms = i32::try_from(timeout_ms).unwrap_or(i32::MAX);
        Self { client, channel, id, timeout_ms, transactions, group: Mutex::new(None) }
    }

    /// Makes a call; `partitions` names the queues of AddPartitions.
    pub(in crate::producer) async fn make(
        &self,
        call: &Call,
        partitions: Vec<(usize, TopicPartition)>,
    ) -> Answer {
        let answer = match call {
            Call::Init { identity } => self.init(*identity).await,
            Call::AddPartitions { identity, .. } => self.add_partitions(*identity, partitions).await,
            Call::AddOffsets { identity, group } => self.add_offsets(*identity, group).await,
            Call::CommitOffsets { identity, group, offsets, v2 } => {
                self.commit_offsets(*identity, group, offsets, *v2).await
            }
            Call::End { identity, commit, v2 } => self.end(*identity, *commit, *v2).await,
        };
        let answer = answer.unwrap_or_else(Answer::Failed);
        match &answer {
            Answer::One(code, _) => self.transactions.note(*code),
            Answer::Queues(results) => results.iter().for_each(|(_, code)| self.transactions.note(*code)),
            Answer::Offsets(_) | Answer::Failed(_) => {}
        }
        answer
    }

    async fn init(&self, identity: Option<Identity>) -> Result<Answer, ClientError> {
        let (id, epoch) = identity.unwrap_or((ProducerId::NONE, ProducerEpoch::NONE));
        let request = InitProducerIdRequest {
            transactional_id: Some(self.id.to_string()),
            transaction_timeout_ms: self.timeout_ms,
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            ..Default::default()
        };
        let limit = self.client.request_timeout();
        let (response, _) = self.transactions.call(&request, i16::MAX, limit).await?;
        Ok(one(response.error_code, response.producer_id, response.producer_epoch))
    }

    async fn add_partitions(
        &self,
        (id, epoch): Identity,
        partitions: Vec<(usize, TopicPartition)>,
    ) -> Result<Answer, ClientError> {
        let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
        for (_, partition) in &partitions {
            match topics.iter_mut().find(|topic| topic.name == partition.topic.as_str()) {
                Some(topic) => topic.partitions.push(partition.partition),
                None => topics.push(AddPartitionsToTxnTopic {
                    name: partition.topic.as_str().to_owned(),
                    partitions: vec![partition.partition],
                }),
            }
        }
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.to_string(),
            v3_and_below_producer_id: id.get(),
            v3_and_below_producer_epoch: epoch.get(),
            v3_and_below_topics: topics,
            ..Default::default()
        };
        let limit = self.client.request_timeout();
        let (response, broker) = self.transactions.call(&request, ADD_PARTITIONS_VERSION_MAX, limit).await?;
        let mut results = Vec::new();
        for (queue, partition) in partitions {
            let mut answers = response
                .results_by_topic_v3_and_below
                .iter()
                .filter(|topic| topic.name == partition.topic.as_str())
                .flat_map(|topic| &topic.results_by_partition);
            let Some(answer) = answers.find(|answer| answer.partition_index == partition.partition) else {
                let (api, problem) = (ApiKey::AddPartitionsToTxn, "it leaves out a partition");
                return Err(ClientError::Malformed { broker, api, problem });
            };
            results.push((queue, ErrorCode::from_code(answer.partition_error_code)));
        }
        Ok(Answer::Queues(results))
    }

    async fn add_offsets(
        &self,
        (id, epoch): Identity,
        group: &ConsumerGroupMetadata,
    ) -> Result<Answer, ClientError> {
        let request = AddOffsetsToTxnRequest {
            transactional_id: self.id.to_string(),
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            group_id: group.group_id.as_str().to_owned(),
        };
        let limit = self.client.request_timeout();
        let (response, _) = self.transactions.call(&request, i16::MAX, limit).await?;
        Ok(one(response.error_code, -1, -1))
    }

    fn group(&self, group: &ConsumerGroupMetadata) -> Arc<CoordinatorLink> {
        let mut known = self.group.lock();
        if let Some(link) = known.as_ref().filter(|link| link.is_for(group.group_id.as_str())) {
            return Arc::clone(link);
        }
        let channel = Some(Arc::clone(&self.channel));
        let key = group.group_id.as_str();
        let link = Arc::new(CoordinatorLink::new(Arc::clone(&self.client), channel, KeyType::Group, key));
        *known = Some(Arc::clone(&link));
        link
    }

    async fn commit_offsets(
        &self,
        (id, epoch): Identity,
        group: &ConsumerGroupMetadata,
        offsets: &Offsets,
        v2: bool,
    ) -> Result<Answer, ClientError> {
        let mut topics: Vec<TxnOffsetCommitRequestTopic> = Vec::new();
        for (partition, offset) in offsets {
            let entry = TxnOffsetCommitRequestPartition {
                partition_index: partition.partition,
                committed_offset: offset.offset.get(),
                committed_leader_epoch: offset.leader_epoch.get(),
                committed_metadata: Some(offset.metadata.clone()),
            };
            match topics.last_mut().filter(|topic| topic.name == partition.topic.as_str()) {
                Some(topic) => topic.partitions.push(entry),
                None => topics.push(TxnOffsetCommitRequestTopic {
                    name: partition.topic.as_str().to_owned(),
                    partitions: vec![entry],
                }),
            }
        }
        let request = TxnOffsetCommitRequest {
            transactional_id: self.id.to_string(),
            group_id: group.group_id.as_str().to_owned(),
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            generation_id: group.generation,
            member_id: group.member_id.to_string(),
            group_instance_id: group.group_instance_id.as_ref().map(ToString::to_string),
            topics,
        };
        let link = self.group(group);
        let version = if v2 { i16::MAX } else { OFFSETS_VERSION_V1 };
        let (response, broker) = link.call(&request, version, self.client.request_timeout()).await?;
        let mut results = Vec::new();
        for topic in response.topics {
            for entry in topic.partitions {
                let code = ErrorCode::from_code(entry.error_code);
                link.note(code);
                results.push((partition_of(&topic.name, entry.partition_index)?, code));
            }
        }
        if offsets.keys().any(|partition| !results.iter().any(|(of, _)| of == partition)) {
            let (api, problem) = (ApiKey::TxnOffsetCommit, "it leaves out a partition");
            return Err(ClientError::Malformed { broker, api, problem });
        }
        Ok(Answer::Offsets(results))
    }

    async fn end(&self, (id, epoch): Identity, commit: bool, v2: bool) -> Result<Answer, ClientError> {
        let request = EndTxnRequest {
            transactional_id: self.id.to_string(),
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            committed: commit,
        };
        let version = if v2 { i16::MAX } else { END_VERSION_V1 };
        let (response, _) = self.transactions.call(&request, version, self.client.request_timeout()).await?;
        Ok(one(response.error_code, response.producer_id, response.producer_epoch))
    }
}

fn one(code: i16, id: i64, epoch: i16) -> Answer {
    let identity = (id >= 0).then(|| (ProducerId::new(id), ProducerEpoch::new(epoch)));
    Answer::One(ErrorCode::from_code(code), identity)
}
