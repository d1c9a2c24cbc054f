//! Transactions and the producers behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use towpath_types::{Offset, ProducerEpoch, ProducerId, TopicPartition};
use towpath_wire::messages::describe_producers::{
    DescribeProducersRequest, PartitionResponse, ProducerState as WireProducer, TopicRequest,
};
use towpath_wire::messages::describe_transactions::{DescribeTransactionsRequest, TransactionState};
use towpath_wire::messages::init_producer_id::InitProducerIdRequest;
use towpath_wire::messages::list_transactions::ListTransactionsRequest;
use towpath_wire::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::{Admin, PerItem, left_out};
use crate::ClientError;
use crate::client::{SHARED_CHANNEL, check, now_ms};
use crate::coordinator::{CoordinatorLink, KeyType};
use crate::group::coordinator::partition_of;

/// The first versions of ListTransactions with a duration and with a pattern.
const LIST_VERSION_DURATION: i16 = 1;
const LIST_VERSION_PATTERN: i16 = 2;

/// Milliseconds of the timeout with which a fencing asks for the producer id: it begins no transaction.
const FENCE_TIMEOUT_MS: i32 = 1;

/// Which transactions [`Admin::list_transactions`] lists: those that match everything that is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionFilter {
    /// In one of these states, e.g. `Ongoing`; empty for all.
    pub states: Vec<String>,
    /// Of one of these producers; empty for all.
    pub producer_ids: Vec<ProducerId>,
    /// Open for longer than this. Needs Kafka 3.8.
    pub longer_than: Option<Duration>,
    /// With an id that matches this expression (RE2). Needs Kafka 4.1.
    pub id_pattern: Option<String>,
}

/// One transaction of [`Admin::list_transactions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionListing {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: ProducerId,
    /// The state, e.g. `Ongoing` or `CompleteCommit`.
    pub state: String,
}

/// One transaction of [`Admin::describe_transactions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The state, e.g. `Ongoing` or `CompleteCommit`.
    pub state: String,
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Milliseconds after which the transaction is given up.
    pub timeout_ms: i32,
    /// When it began (ms since 1970), if one is open.
    pub start_ms: Option<i64>,
    /// What it has written to.
    pub partitions: BTreeSet<TopicPartition>,
}

/// A producer that a partition remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: i32,
    /// The sequence number of its last record; `None` if it wrote none.
    pub last_sequence: Option<i32>,
    /// The timestamp of its last record (ms); `None` if it wrote none.
    pub last_timestamp_ms: Option<i64>,
    /// The epoch of the coordinator that ended its last transaction, if one did.
    pub coordinator_epoch: Option<i32>,
    /// Where its open transaction begins, if one is open.
    pub transaction_start: Option<Offset>,
}

/// What [`Admin::abort_transaction`] aborts: as [`Admin::describe_producers`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbortTransaction {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The coordinator's epoch; −1 if the partition knows none.
    pub coordinator_epoch: i32,
}

/// A transaction that is open in a partition, and that no coordinator will end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangingTransaction {
    /// What aborts it.
    pub abort: AbortTransaction,
    /// Where it begins.
    pub start: Offset,
    /// The timestamp of its last record (ms).
    pub last_timestamp_ms: i64,
}

impl Admin {
    fn transaction_coordinator(&self, id: &str) -> CoordinatorLink {
        CoordinatorLink::new(Arc::clone(&self.client), None, KeyType::Transaction, id)
    }

    /// The transactions of all coordinators, by id.
    ///
    /// # Errors
    /// When a broker cannot be asked, or does not know a state that is filtered by.
    pub async fn list_transactions(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>, ClientError> {
        let cluster = self.client.refresh(&[], false).await?;
        let nodes: BTreeSet<i32> = cluster.nodes.keys().copied().collect();
        let mut listed = BTreeMap::new();
        for node in nodes {
            let mut retry = self.client.retrying("listing transactions", self.client.config.api_timeout_ms);
            let found = loop {
                match self.list_transactions_of(node, filter).await {
                    Ok(found) => break found,
                    Err(error) => retry.after(error).await?,
                }
            };
            listed.extend(found.into_iter().map(|listing| (listing.transactional_id.clone(), listing)));
        }
        Ok(listed.into_values().collect())
    }

    async fn list_transactions_of(
        &self,
        node: i32,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>, ClientError> {
        let connection = self.client.connection(node, SHARED_CHANNEL).await?;
        let version = connection.version_of(ApiKey::ListTransactions)?;
        // An older broker would list all: that is not what was asked for.
        let needed = match filter {
            TransactionFilter { id_pattern: Some(_), .. } => LIST_VERSION_PATTERN,
            TransactionFilter { longer_than: Some(_), .. } => LIST_VERSION_DURATION,
            _ => 0,
        };
        if version < needed {
            let broker = Arc::clone(connection.broker());
            return Err(ClientError::UnsupportedApi { api: ApiKey::ListTransactions, broker });
        }
        let longer = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let request = ListTransactionsRequest {
            state_filters: filter.states.clone(),
            producer_id_filters: filter.producer_ids.iter().map(|id| id.get()).collect(),
            duration_filter: filter.longer_than.map_or(-1, longer),
            transactional_id_pattern: filter.id_pattern.clone(),
        };
        let response = connection.request_at(&request, version, self.client.request_timeout()).await?;
        let (api, broker) = (ApiKey::ListTransactions, connection.broker());
        check(response.error_code, None, api, broker, "transactions")?;
        if let Some(unknown) = response.unknown_state_filters.first() {
            let message = Some(format!("there is no state `{unknown}`"));
            check(ErrorCode::InvalidRequest.code(), message, api, broker, "transactions")?;
        }
        let listing =
            |state: towpath_wire::messages::list_transactions::TransactionState| TransactionListing {
                transactional_id: state.transactional_id,
                producer_id: ProducerId::new(state.producer_id),
                state: state.transaction_state,
            };
        Ok(response.transaction_states.into_iter().map(listing).collect())
    }

    /// What the coordinators know of transactional ids.
    ///
    /// # Errors
    /// None of its own at present: every id has its result.
    pub async fn describe_transactions(
        &self,
        ids: &[&str],
    ) -> Result<PerItem<String, TransactionDescription>, ClientError> {
        let mut results = BTreeMap::new();
        for id in ids {
            let coordinator = self.transaction_coordinator(id);
            let describe = || describe_transaction(&coordinator, id);
            let result = self.patiently("describing a transaction", describe).await;
            results.insert((*id).to_owned(), result);
        }
        Ok(results)
    }

    /// Fences the producers that have transactional ids, and aborts what they have open. The values are the identities
    /// that fence them.
    ///
    /// # Errors
    /// None of its own at present: every id has its result.
    pub async fn fence_producers(
        &self,
        ids: &[&str],
    ) -> Result<PerItem<String, (ProducerId, ProducerEpoch)>, ClientError> {
        let mut results = BTreeMap::new();
        for id in ids {
            let coordinator = self.transaction_coordinator(id);
            let result = self.patiently("fencing a producer", || fence(&coordinator, id)).await;
            results.insert((*id).to_owned(), result);
        }
        Ok(results)
    }

    /// The producers that partitions remember: what their leaders do, or a given replica.
    ///
    /// # Errors
    /// None of its own at present: every partition has its result.
    pub async fn describe_producers(
        &self,
        partitions: &[TopicPartition],
        replica: Option<i32>,
    ) -> Result<PerItem<TopicPartition, Vec<ProducerState>>, ClientError> {
        let mut results = BTreeMap::new();
        for partition in partitions {
            let describe = || self.producers_of(partition, replica);
            let result = self.patiently_led(partition, "describing producers", describe).await;
            results.insert(partition.clone(), result);
        }
        Ok(results)
    }

    async fn producers_of(
        &self,
        partition: &TopicPartition,
        replica: Option<i32>,
    ) -> Result<Vec<ProducerState>, ClientError> {
        let node = match replica {
            Some(replica) => replica,
            None => self.client.leader(partition).await?.0,
        };
        let connection = self.client.connection(node, SHARED_CHANNEL).await?;
        let topic = TopicRequest {
            name: partition.topic.as_str().to_owned(),
            partition_indexes: vec![partition.partition],
        };
        let request = DescribeProducersRequest { topics: vec![topic] };
        let response = connection.request(&request, self.client.request_timeout()).await?;
        let api = ApiKey::DescribeProducers;
        let answer = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let answer: PartitionResponse = answer.ok_or_else(|| left_out(api, connection.broker()))?;
        check(answer.error_code, answer.error_message, api, connection.broker(), partition)?;
        Ok(answer.active_producers.iter().map(producer).collect())
    }

    /// Aborts a transaction in one partition, past its coordinator: the remedy for one that hangs (see
    /// [`Self::find_hanging_transactions`]). Used on any other, the coordinator and the partition disagree.
    ///
    /// # Errors
    /// The leader's, for example `INVALID_PRODUCER_EPOCH` when the producer has gone on.
    pub async fn abort_transaction(&self, abort: &AbortTransaction) -> Result<(), ClientError> {
        let write = || self.write_abort(abort);
        self.patiently_led(&abort.partition, "aborting a transaction", write).await
    }

    async fn write_abort(&self, abort: &AbortTransaction) -> Result<(), ClientError> {
        let partition = &abort.partition;
        let (leader, ..) = self.client.leader(partition).await?;
        let connection = self.client.connection(leader, SHARED_CHANNEL).await?;
        let marker = WritableTxnMarker {
            producer_id: abort.producer_id.get(),
            producer_epoch: abort.producer_epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic {
                name: partition.topic.as_str().to_owned(),
                partition_indexes: vec![partition.partition],
            }],
            // As Kafka's: an epoch of 0 for a transaction whose coordinator wrote nothing here yet.
            coordinator_epoch: abort.coordinator_epoch.max(0),
            ..Default::default()
        };
        let request = WriteTxnMarkersRequest { markers: vec![marker] };
        let response = connection.request(&request, self.client.request_timeout()).await?;
        let topics = response.markers.into_iter().flat_map(|marker| marker.topics);
        let answer = topics.flat_map(|topic| topic.partitions).next();
        let api = ApiKey::WriteTxnMarkers;
        let answer = answer.ok_or_else(|| left_out(api, connection.broker()))?;
        check(answer.error_code, None, api, connection.broker(), partition)
    }

    /// Transactions that are open in these partitions for longer than `longer_than` (by the timestamps of their last
    /// records), and that no coordinator knows to be open there: nobody will end them, and whoever reads committed
    /// records does not get past them. Choose more than the brokers' `transaction.max.timeout.ms` (15 minutes by
    /// default).
    ///
    /// # Errors
    /// When a partition or a coordinator cannot be asked.
    pub async fn find_hanging_transactions(
        &self,
        partitions: &[TopicPartition],
        longer_than: Duration,
    ) -> Result<Vec<HangingTransaction>, ClientError> {
        let age = i64::try_from(longer_than.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(age);
        let mut suspects = Vec::new();
        for (partition, producers) in self.describe_producers(partitions, None).await? {
            for producer in producers? {
                let last_timestamp_ms = producer.last_timestamp_ms.unwrap_or(0);
                let Some(start) = producer.transaction_start.filter(|_| last_timestamp_ms < before) else {
                    continue;
                };
                let abort = AbortTransaction {
                    partition: partition.clone(),
                    producer_id: producer.producer_id,
                    producer_epoch: i16::try_from(producer.producer_epoch).unwrap_or(i16::MAX),
                    coordinator_epoch: producer.coordinator_epoch.unwrap_or(-1),
                };
                suspects.push(HangingTransaction { abort, start, last_timestamp_ms });
            }
        }
        if suspects.is_empty() {
            return Ok(suspects);
        }
        let open = self.open_partitions(&suspects).await?;
        suspects.retain(|it| !open.contains(&(it.abort.producer_id, it.abort.partition.clone())));
        Ok(suspects)
    }

    /// Where the coordinators know of open transactions of these producers.
    async fn open_partitions(
        &self,
        suspects: &[HangingTransaction],
    ) -> Result<BTreeSet<(ProducerId, TopicPartition)>, ClientError> {
        let producers: BTreeSet<ProducerId> = suspects.iter().map(|it| it.abort.producer_id).collect();
        let filter =
            TransactionFilter { producer_ids: producers.into_iter().collect(), ..Default::default() };
        let listed = self.list_transactions(&filter).await?;
        let ids: Vec<&str> = listed.iter().map(|listing| listing.transactional_id.as_str()).collect();
        let mut open = BTreeSet::new();
        for (_, described) in self.describe_transactions(&ids).await? {
            match described {
                Ok(described) => {
                    let id = described.producer_id;
                    open.extend(described.partitions.into_iter().map(|partition| (id, partition)));
                }
                // It has expired in between.
                Err(error) if error.code() == Some(ErrorCode::TransactionalIdNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }
}

async fn describe_transaction(
    coordinator: &CoordinatorLink,
    id: &str,
) -> Result<TransactionDescription, ClientError> {
    let request = DescribeTransactionsRequest { transactional_ids: vec![id.to_owned()] };
    let node = coordinator.find().await?;
    let limit = coordinator.client.request_timeout();
    let (mut response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    let api = ApiKey::DescribeTransactions;
    let state: TransactionState = response.transaction_states.pop().ok_or_else(|| left_out(api, &broker))?;
    coordinator.note(ErrorCode::from_code(state.error_code));
    check(state.error_code, None, api, &broker, id)?;
    let mut partitions = BTreeSet::new();
    for topic in state.topics {
        for index in topic.partitions {
            partitions.insert(partition_of(&topic.topic, index)?);
        }
    }
    Ok(TransactionDescription {
        coordinator: node,
        state: state.transaction_state,
        producer_id: ProducerId::new(state.producer_id),
        producer_epoch: ProducerEpoch::new(state.producer_epoch),
        timeout_ms: state.transaction_timeout_ms,
        start_ms: (state.transaction_start_time_ms >= 0).then_some(state.transaction_start_time_ms),
        partitions,
    })
}

async fn fence(coordinator: &CoordinatorLink, id: &str) -> Result<(ProducerId, ProducerEpoch), ClientError> {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: FENCE_TIMEOUT_MS,
        ..Default::default()
    };
    let limit = coordinator.client.request_timeout();
    let (response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    coordinator.note(ErrorCode::from_code(response.error_code));
    check(response.error_code, None, ApiKey::InitProducerId, &broker, id)?;
    Ok((ProducerId::new(response.producer_id), ProducerEpoch::new(response.producer_epoch)))
}

fn producer(state: &WireProducer) -> ProducerState {
    ProducerState {
        producer_id: ProducerId::new(state.producer_id),
        producer_epoch: state.producer_epoch,
        last_sequence: (state.last_sequence >= 0).then_some(state.last_sequence),
        last_timestamp_ms: (state.last_timestamp >= 0).then_some(state.last_timestamp),
        coordinator_epoch: (state.coordinator_epoch >= 0).then_some(state.coordinator_epoch),
        transaction_start: (state.current_txn_start_offset >= 0)
            .then(|| Offset::new(state.current_txn_start_offset)),
    }
}
