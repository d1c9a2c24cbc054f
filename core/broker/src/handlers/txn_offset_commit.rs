//! TxnOffsetCommit: offsets of a group that count when the producer's transaction is committed.

use std::sync::Arc;

use towpath_coordinator::TransactionalProducer;
use towpath_log::TransactionCheck;
use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::txn_offset_commit::{
    TxnOffsetCommitRequestTopic, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use towpath_wire::{ErrorCode, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{RequestContext, groups, partition_error_code};
use crate::coordinator_log::KeptProof;
use crate::state::{BrokerState, OFFSETS_TOPIC};
use crate::transactions::{Question, verify};

/// From here on a producer understands TRANSACTION_ABORTABLE (KIP-890).
const VERSION_ABORTABLE: i16 = 4;
/// From here on a producer raises its epoch with every transaction and does not add the offsets itself (KIP-890).
const VERSION_BUMP: i16 = 5;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    mut request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let unknown = take_unknown(&broker, &mut request.topics);
    let mut response = if request.topics.is_empty() {
        TxnOffsetCommitResponse::default()
    } else if request.group_id.is_empty() {
        let topics = request.topics.iter().map(|topic| refused(topic, ErrorCode::InvalidGroupId)).collect();
        TxnOffsetCommitResponse { topics, ..TxnOffsetCommitResponse::default() }
    } else {
        match commit(&broker, &cx, &request).await {
            Ok(response) => response,
            Err(code) => {
                let topics = request.topics.iter().map(|topic| refused(topic, code)).collect();
                TxnOffsetCommitResponse { topics, ..TxnOffsetCommitResponse::default() }
            }
        }
    };
    for topic in unknown {
        let refused = refused(&topic, ErrorCode::UnknownTopicOrPartition);
        match response.topics.iter_mut().find(|known| known.name == refused.name) {
            Some(known) => known.partitions.extend(refused.partitions),
            None => response.topics.push(refused),
        }
    }
    response
}

fn refused(topic: &TxnOffsetCommitRequestTopic, code: ErrorCode) -> TxnOffsetCommitResponseTopic {
    let partition = |index| TxnOffsetCommitResponsePartition { partition_index: index, error_code: code.code() };
    TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(|it| partition(it.partition_index)).collect(),
    }
}

/// Takes out what the metadata do not have.
fn take_unknown(
    broker: &BrokerState,
    topics: &mut Vec<TxnOffsetCommitRequestTopic>,
) -> Vec<TxnOffsetCommitRequestTopic> {
    let image = broker.image();
    let mut unknown = Vec::new();
    for topic in topics.iter_mut() {
        let count = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
        let exists = |index: i32| usize::try_from(index).is_ok_and(|index| index < count);
        let (there, missing): (Vec<_>, Vec<_>) =
            std::mem::take(&mut topic.partitions).into_iter().partition(|it| exists(it.partition_index));
        topic.partitions = there;
        if !missing.is_empty() {
            unknown.push(TxnOffsetCommitRequestTopic { name: topic.name.clone(), partitions: missing });
        }
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    unknown
}

async fn commit(
    broker: &Arc<BrokerState>,
    cx: &RequestContext,
    request: &TxnOffsetCommitRequest,
) -> Result<TxnOffsetCommitResponse, ErrorCode> {
    let groups = groups(broker).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let index = groups.partition_of(&request.group_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let _proof = verified(broker, cx.version, index, request).await?;
    Ok(groups.txn_offset_commit(request.clone()).await)
}

/// KIP-890: what would begin a transaction in the group's partition is appended only once its coordinator knows of it.
async fn verified<'a>(
    broker: &'a Arc<BrokerState>,
    version: i16,
    index: i32,
    request: &TxnOffsetCommitRequest,
) -> Result<Option<KeptProof<'a>>, ErrorCode> {
    let (id, epoch) = (ProducerId::new(request.producer_id), ProducerEpoch::new(request.producer_epoch));
    let offsets = broker.replicas.topic(OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let partition = match offsets.partition(index) {
        Ok(Some(partition)) => partition,
        Ok(None) => return Err(ErrorCode::CoordinatorNotAvailable),
        Err(error) => return Err(of_coordinator(partition_error_code(&error))),
    };
    let tv2 = version >= VERSION_BUMP;
    let check = partition.transaction_check_of(id, epoch, NO_SEQUENCE, tv2);
    let guard = match check.map_err(|error| of_coordinator(partition_error_code(&error)))? {
        TransactionCheck::Append => return Ok(None),
        TransactionCheck::Verify(guard) => guard,
    };
    let producer = TransactionalProducer { id, epoch };
    let question = Question {
        transactional_id: request.transactional_id.clone(),
        producer,
        verify_only: !tv2,
        partitions: vec![partition.id().clone()],
    };
    match verify(broker, &question).await.remove(partition.id()) {
        Some(ErrorCode::None) => Ok(Some(broker.verified_offsets.keep(index, producer, guard))),
        Some(code) => Err(told(code, version)),
        None => Err(ErrorCode::UnknownServerError),
    }
}

/// The sequence number of batches without one.
const NO_SEQUENCE: i32 = -1;

/// A partition's error in the words of a coordinator.
const fn of_coordinator(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        code => code,
    }
}

/// What the producer is told of the transaction coordinator's refusal, as Kafka does.
const fn told(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::ConcurrentTransactions if version < VERSION_BUMP => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::TransactionAbortable if version < VERSION_ABORTABLE => ErrorCode::InvalidTxnState,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}
