//! Produce: appends record batches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use towpath_log::AppendError;
use towpath_record::{BatchHeader, Compression, InvalidRecord, Origin, ValidateError};
use towpath_replica::{Appended, Partition, PartitionError};
use towpath_types::{Offset, TopicId};
use towpath_wire::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use towpath_wire::{ApiKey, Decoder, ErrorCode, Message, ProduceRequest, ProduceResponse};

use super::{Begun, Reply, RequestContext, partition_error_code};
use crate::connection::ConnectionEnd;
use crate::metrics::BrokerMetrics;
use crate::state::BrokerState;

/// The client id under which Kafka's tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// An append that is not committed yet.
struct Uncommitted {
    partition: Arc<Partition>,
    last: Offset,
    /// Where its response is.
    at: (usize, usize),
}

/// Why one partition's batch was refused.
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<InvalidRecord>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new() }
    }
}

impl From<PartitionError> for Refusal {
    fn from(error: PartitionError) -> Self {
        let code = partition_error_code(&error);
        let message = Some(error.to_string());
        let records = match error {
            PartitionError::Append(AppendError::Invalid(
                ValidateError::InvalidRecords(records) | ValidateError::InvalidTimestamps(records),
            )) => records,
            _ => Vec::new(),
        };
        Self { code, message, records }
    }
}

/// Appends everything at once; what has to wait for durability waits afterwards, while the connection's next requests
/// are appended.
pub(super) fn begin(
    broker: &Arc<BrokerState>,
    cx: RequestContext,
    mut body: Decoder,
) -> Result<Begun, ConnectionEnd> {
    let request = ProduceRequest::decode(&mut body, cx.version)?;
    let (acks, timeout_ms) = (request.acks, request.timeout_ms);
    let (mut response, uncommitted) = append_all(broker, &cx, request);
    if acks == 0 {
        let failed =
            response.responses.iter().flat_map(|topic| &topic.partition_responses).any(|p| p.error_code != 0);
        // Without an answer, the end of the connection is the only way to say that something is wrong.
        return Ok(Begun::Done(if failed { Reply::Close } else { Reply::Nothing }));
    }
    if uncommitted.is_empty() {
        return Ok(Begun::Done(cx.reply(ApiKey::Produce, &response)));
    }
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    Ok(Begun::Waiting(Box::pin(async move {
        wait(&mut response, uncommitted, timeout).await;
        cx.reply(ApiKey::Produce, &response)
    })))
}

fn append_all(
    broker: &Arc<BrokerState>,
    cx: &RequestContext,
    request: ProduceRequest,
) -> (ProduceResponse, Vec<Uncommitted>) {
    let refusal = if !(-1..=1).contains(&request.acks) {
        Some(ErrorCode::InvalidRequiredAcks)
    } else if request.transactional_id.is_some() {
        // There are no transactions here; InitProducerId says the same.
        Some(ErrorCode::UnsupportedVersion)
    } else {
        None
    };
    let mut uncommitted = Vec::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let at = responses.len();
        let response = match refusal {
            Some(code) => refuse(topic, code),
            None => append_topic(broker, cx, request.acks, topic, at, &mut uncommitted),
        };
        responses.push(response);
    }
    (ProduceResponse { responses, ..ProduceResponse::default() }, uncommitted)
}

fn refuse(topic: TopicProduceData, code: ErrorCode) -> TopicProduceResponse {
    let partitions = topic.partition_data.iter().map(|data| refused(data.index, code.into())).collect();
    TopicProduceResponse { name: topic.name, topic_id: topic.topic_id, partition_responses: partitions }
}

fn append_topic(
    broker: &Arc<BrokerState>,
    cx: &RequestContext,
    acks: i16,
    topic: TopicProduceData,
    at: usize,
    uncommitted: &mut Vec<Uncommitted>,
) -> TopicProduceResponse {
    let by_id = cx.version >= 13;
    let replicas = if by_id {
        broker.replicas.topic_by_id(TopicId::new(topic.topic_id))
    } else {
        broker.replicas.topic(&topic.name)
    };
    let Some(replicas) = replicas else {
        let code = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        return refuse(topic, code);
    };
    let name = replicas.name().as_str();
    if name.starts_with("__") && is_internal(broker, name) && cx.client_id.as_deref() != Some(ADMIN_CLIENT_ID)
    {
        return refuse(topic, ErrorCode::InvalidTopicException);
    }
    let mut partitions = Vec::with_capacity(topic.partition_data.len());
    for data in topic.partition_data {
        let appended = match replicas.partition(data.index) {
            Ok(Some(partition)) => {
                append(&partition, cx.version, acks, data.records).map(|appended| (partition, appended))
            }
            Ok(None) => Err(ErrorCode::UnknownTopicOrPartition.into()),
            Err(error) => Err(error.into()),
        };
        partitions.push(match appended {
            Ok((partition, appended)) => {
                if !appended.committed && acks != 0 {
                    let at = (at, partitions.len());
                    uncommitted.push(Uncommitted { partition, last: appended.info.last_offset, at });
                }
                broker.metrics.bytes_in.increment(appended.bytes);
                let records = appended.info.last_offset.get() - appended.info.first_offset.get() + 1;
                broker.metrics.records_in.increment(u64::try_from(records).unwrap_or(0));
                succeeded(data.index, &appended)
            }
            Err(refusal) => refused(data.index, refusal),
        });
    }
    TopicProduceResponse { name: topic.name, topic_id: topic.topic_id, partition_responses: partitions }
}

fn is_internal(broker: &BrokerState, name: &str) -> bool {
    broker.image().topic(name).is_some_and(|topic| topic.is_internal())
}

fn append(
    partition: &Arc<Partition>,
    version: i16,
    acks: i16,
    records: Option<Bytes>,
) -> Result<Appended, Refusal> {
    let invalid = |message: &str| Refusal {
        code: ErrorCode::InvalidRecord,
        message: Some(message.to_owned()),
        records: Vec::new(),
    };
    let records = records.filter(|records| !records.is_empty()).ok_or_else(|| {
        invalid("a partition takes exactly one record batch per request, and there is none")
    })?;
    match BatchHeader::parse(&records) {
        Ok(header) => {
            if version < 7 && header.compression().is_ok_and(|codec| codec == Compression::Zstd) {
                return Err(ErrorCode::UnsupportedCompressionType.into());
            }
            if header.is_transactional() {
                return Err(ErrorCode::InvalidTxnState.into());
            }
        }
        Err(error @ towpath_record::BatchError::Magic(_)) => return Err(invalid(&error.to_string())),
        // The log says what is wrong.
        Err(_) => {}
    }
    Ok(partition.append(records, acks == -1, Origin::Client)?)
}

fn succeeded(index: i32, appended: &Appended) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: ErrorCode::None.code(),
        base_offset: appended.info.first_offset.get(),
        log_append_time_ms: appended.info.log_append_time_ms.unwrap_or(-1),
        log_start_offset: appended.info.log_start_offset.get(),
        ..PartitionProduceResponse::default()
    }
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    BrokerMetrics::error(ApiKey::Produce, refusal.code);
    let record_errors = refusal
        .records
        .into_iter()
        .map(|record| BatchIndexAndErrorMessage {
            batch_index: record.index,
            batch_index_error_message: Some(record.problem.to_owned()),
        })
        .collect();
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors,
        error_message: refusal.message,
        current_leader: LeaderIdAndEpoch::default(),
    }
}

/// Waits until everything is committed; what is not in time is said to be so. The waits go on side by side: one
/// flush may end several of them.
async fn wait(response: &mut ProduceResponse, uncommitted: Vec<Uncommitted>, timeout: Duration) {
    let deadline = tokio::time::Instant::now() + timeout;
    for append in uncommitted {
        let committed = append.partition.committed(append.last);
        let refusal: Refusal = match tokio::time::timeout_at(deadline, committed).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.into(),
            Err(_) => ErrorCode::RequestTimedOut.into(),
        };
        let (topic, index) = append.at;
        let slot =
            response.responses.get_mut(topic).and_then(|topic| topic.partition_responses.get_mut(index));
        if let Some(slot) = slot {
            *slot = refused(slot.index, refusal);
        }
    }
}
