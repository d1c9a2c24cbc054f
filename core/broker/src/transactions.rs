//! What the transaction coordinator and the leaders of partitions need of each other: markers go one way, questions
//! whether a transaction is open the other.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use towpath_controller::{MetadataImage, PartitionImage};
use towpath_coordinator::TransactionalProducer;
use towpath_coordinator::transaction::{
    Coordinates, MarkerLeader, Markers, ProducerIds, SendFailed, TransactionCoordinator,
};
use towpath_types::{BrokerId, ProducerId, TopicName, TopicPartition};
use towpath_wire::add_partitions_to_txn::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use towpath_wire::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ErrorCode, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};

use crate::cluster::forward;
use crate::coordinator_log::BrokerCoordinatorLog;
use crate::handlers;
use crate::state::{BrokerState, TRANSACTIONS_TOPIC};

/// How long a leader may take to have markers committed.
const MARKERS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a coordinator may take to say whether a transaction is open; the producer then asks anew.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long, and how often, a question is asked again while the producer's transaction before is not complete (Kafka's
/// `add.partitions.to.txn.retry.backoff.max.ms` and `add.partitions.to.txn.retry.backoff.ms`).
const CONCURRENT_MAX: Duration = Duration::from_millis(100);
const CONCURRENT_BACKOFF: Duration = Duration::from_millis(20);
/// The version of a broker's questions (KIP-890): for several transactions, and adding what is asked about.
pub(crate) const VERSION_BROKERS: i16 = 5;

/// The broker's transaction coordinator, not started yet.
pub(crate) fn coordinator(broker: &Arc<BrokerState>) -> TransactionCoordinator {
    let way = Arc::new(Way(Arc::downgrade(broker)));
    let log = Arc::new(BrokerCoordinatorLog::new(broker, TRANSACTIONS_TOPIC));
    let ids: Arc<dyn ProducerIds> = Arc::clone(&way) as _;
    TransactionCoordinator::new(broker.config.transactions.clone(), log, ids, way)
}

/// The coordinator's way to the rest of the broker. Weak, because the broker holds the coordinator.
struct Way(Weak<BrokerState>);

#[async_trait]
impl ProducerIds for Way {
    async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let broker = self.0.upgrade().ok_or(ErrorCode::CoordinatorNotAvailable)?;
        broker.producer_ids.next(&broker).await
    }
}

#[async_trait]
impl Markers for Way {
    fn leader(&self, partition: &TopicPartition, coordinates: Coordinates) -> MarkerLeader {
        let Some(broker) = self.0.upgrade() else { return MarkerLeader::Unknown };
        let image = broker.image();
        // An image that this node has not caught up to yet may lack a topic that is there.
        if image.next_offset() < broker.metadata.newest_offset() {
            return MarkerLeader::Unknown;
        }
        marker_leader(&image, partition, coordinates)
    }

    async fn send(
        &self,
        leader: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, SendFailed> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| SendFailed { broker: leader, cause };
        let broker = self.0.upgrade().ok_or_else(|| failed("the broker is gone".into()))?;
        if leader == broker.config.node_id {
            return Ok(handlers::write_txn_markers::write(&broker, request).await);
        }
        let node = broker.cluster().ok_or_else(|| failed("this broker is alone".into()))?;
        forward::ask_broker(node, leader, &request, MARKERS_TIMEOUT)
            .await
            .map_err(|error| failed(error.into()))
    }
}

fn partition_in<'a>(image: &'a MetadataImage, topic: &str, index: i32) -> Option<&'a PartitionImage> {
    image.topic(topic)?.partitions.get(usize::try_from(index).ok()?)
}

/// Who leads a partition, or that it is gone: that is said by metadata only that have the coordinator's own election.
fn marker_leader(
    image: &MetadataImage,
    partition: &TopicPartition,
    coordinates: Coordinates,
) -> MarkerLeader {
    match partition_in(image, partition.topic.as_str(), partition.partition) {
        Some(found) => found.leader.map_or(MarkerLeader::Unknown, MarkerLeader::Broker),
        None => {
            let own = partition_in(image, TRANSACTIONS_TOPIC, coordinates.partition);
            let is_new_enough = own.is_some_and(|own| own.leader_epoch >= coordinates.leader_epoch);
            if is_new_enough { MarkerLeader::Gone } else { MarkerLeader::Unknown }
        }
    }
}

/// What a transactional batch's leader wants to know of its coordinator.
pub(crate) struct Question {
    pub(crate) transactional_id: String,
    pub(crate) producer: TransactionalProducer,
    /// Only whether the partitions are part of the transaction, as clients before `transaction.version` 2 have said
    /// themselves; otherwise they are added.
    pub(crate) verify_only: bool,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// Asks the coordinator whether partitions are part of a producer's open transaction (KIP-890): the answer for each.
///
/// A producer may begin its next transaction as soon as the end of the one before is decided, while markers are still on
/// their way. A client that is told so may wait for seconds, until its metadata are renewed: the question is asked again
/// for a moment first, as Kafka does (`add.partitions.to.txn.retry.backoff.ms`).
pub(crate) async fn verify(
    broker: &Arc<BrokerState>,
    question: &Question,
) -> HashMap<TopicPartition, ErrorCode> {
    let begin = Instant::now();
    loop {
        let answers = verify_once(broker, question).await;
        let is_early = answers.values().any(|code| *code == ErrorCode::ConcurrentTransactions);
        if question.verify_only || !is_early || begin.elapsed() >= CONCURRENT_MAX {
            return answers;
        }
        tokio::time::sleep(CONCURRENT_BACKOFF).await;
    }
}

async fn verify_once(broker: &Arc<BrokerState>, question: &Question) -> HashMap<TopicPartition, ErrorCode> {
    let all = |code: ErrorCode| question.partitions.iter().map(|it| (it.clone(), code)).collect();
    let response = match ask(broker, question).await {
        Ok(response) => response,
        Err(code) => return all(code),
    };
    if response.error_code != ErrorCode::None.code() {
        return all(ErrorCode::from_code(response.error_code));
    }
    let mut answers: HashMap<TopicPartition, ErrorCode> = all(ErrorCode::UnknownServerError);
    for topic in response.results_by_transaction.into_iter().flat_map(|result| result.topic_results) {
        let Ok(name) = TopicName::new(&topic.name) else { continue };
        for partition in topic.results_by_partition {
            let at = TopicPartition::new(name.clone(), partition.partition_index);
            answers.insert(at, ErrorCode::from_code(partition.partition_error_code));
        }
    }
    answers
}

async fn ask(
    broker: &Arc<BrokerState>,
    question: &Question,
) -> Result<AddPartitionsToTxnResponse, ErrorCode> {
    let transactions = broker.transactions.get().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let partition =
        transactions.partition_of(&question.transactional_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let image = broker.image();
    let leader = image
        .topic(TRANSACTIONS_TOPIC)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?)?.leader)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let request = request(question);
    if leader == broker.config.node_id {
        return Ok(handlers::add_partitions_to_txn::add(broker, request, VERSION_BROKERS).await);
    }
    let node = broker.cluster().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    forward::ask_broker(node, leader, &request, VERIFY_TIMEOUT).await.map_err(|error| {
        tracing::debug!(%error, "a transaction cannot be verified");
        ErrorCode::NetworkException
    })
}

fn request(question: &Question) -> AddPartitionsToTxnRequest {
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for partition in &question.partitions {
        let name = partition.topic.as_str();
        match topics.last_mut().filter(|topic| topic.name == name) {
            Some(topic) => topic.partitions.push(partition.partition),
            None => topics.push(AddPartitionsToTxnTopic {
                name: name.to_owned(),
                partitions: vec![partition.partition],
            }),
        }
    }
    AddPartitionsToTxnRequest {
        transactions: vec![AddPartitionsToTxnTransaction {
            transactional_id: question.transactional_id.clone(),
            producer_id: question.producer.id.get(),
            producer_epoch: question.producer.epoch.get(),
            verify_only: question.verify_only,
            topics,
        }],
        ..AddPartitionsToTxnRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use towpath_controller::MetadataRecord;
    use towpath_types::{LeaderEpoch, TopicId};

    use super::*;

    const ME: BrokerId = BrokerId::new(1);

    fn apply(image: &mut MetadataImage, record: &MetadataRecord) {
        image.apply(image.next_offset(), record).unwrap();
    }

    fn partition_record(topic_id: TopicId, partition: i32, leader_epoch: i32) -> MetadataRecord {
        let leader_epoch = LeaderEpoch::new(leader_epoch);
        let state = PartitionImage { leader_epoch, ..PartitionImage::new(vec![ME], vec![ME], Some(ME)) };
        MetadataRecord::Partition { topic_id, partition, state }
    }

    fn add(image: &mut MetadataImage, name: &str, leader_epochs: &[i32]) -> TopicId {
        let id = TopicId::random();
        apply(image, &MetadataRecord::Topic { name: TopicName::new(name).unwrap(), id, mirror: None });
        for (index, leader_epoch) in (0..).zip(leader_epochs) {
            apply(image, &partition_record(id, index, *leader_epoch));
        }
        id
    }

    #[test]
    fn what_is_not_there_is_gone_only_for_metadata_that_have_the_election() {
        let mut image = MetadataImage::new();
        let coordinates = Coordinates { partition: 1, leader_epoch: LeaderEpoch::new(5) };
        let of = |image: &MetadataImage, index| {
            marker_leader(image, &TopicPartition::new(TopicName::new("t").unwrap(), index), coordinates)
        };
        assert_eq!(of(&image, 0), MarkerLeader::Unknown, "nothing is known yet");
        add(&mut image, TRANSACTIONS_TOPIC, &[9, 4]);
        assert_eq!(of(&image, 0), MarkerLeader::Unknown, "from before the election");
        let id = add(&mut image, "t", &[0]);
        assert_eq!(of(&image, 0), MarkerLeader::Broker(ME), "what is there is there");
        assert_eq!(of(&image, 1), MarkerLeader::Unknown, "it may have got more partitions since");
        let mut newer = MetadataImage::new();
        add(&mut newer, TRANSACTIONS_TOPIC, &[0, 5]);
        assert_eq!(of(&newer, 0), MarkerLeader::Gone);
        apply(&mut image, &MetadataRecord::RemoveTopic { topic_id: id });
        assert_eq!(of(&image, 0), MarkerLeader::Unknown);
    }
}
