//! What can go wrong, with the broker and the error code kept.

use std::io;
use std::sync::Arc;

use towpath_record::{BatchError, BuildError};
use towpath_types::{InvalidName, Offset, TopicId, TopicName, TopicPartition};
use towpath_wire::frame::FrameLengthError;
use towpath_wire::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// Why a call of the client failed. Cheap to clone: one failed batch fails many records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No bootstrap server answered; the cause is that of the last one tried.
    #[error("no bootstrap server answered ({servers})")]
    Bootstrap {
        /// The addresses tried, separated by commas.
        servers: Box<str>,
        /// What the last one said.
        source: Box<ClientError>,
    },
    /// A broker could not be reached.
    #[error("cannot connect to {broker}")]
    Connect {
        /// `host:port`.
        broker: Arc<str>,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// An established connection ended before the answer was there.
    #[error("the connection to {broker} ended: {reason}")]
    Disconnected {
        /// `host:port`.
        broker: Arc<str>,
        /// Why, as far as known.
        reason: Arc<str>,
    },
    /// No answer in time.
    #[error("{broker} did not answer {api} within {after_ms} ms")]
    RequestTimeout {
        /// `host:port`.
        broker: Arc<str>,
        /// The request.
        api: ApiKey,
        /// Milliseconds waited.
        after_ms: u64,
    },
    /// Retries of a whole operation took longer than allowed; the cause is that of the last attempt.
    #[error("{what} did not succeed within {after_ms} ms")]
    Timeout {
        /// The operation.
        what: &'static str,
        /// Milliseconds waited.
        after_ms: u64,
        /// What the last attempt said.
        source: Option<Box<ClientError>>,
    },
    /// A broker answered with an error code.
    #[error("{api} of {subject} at {broker}: {code}{}", message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Broker {
        /// The code.
        code: ErrorCode,
        /// The request.
        api: ApiKey,
        /// `host:port`.
        broker: Arc<str>,
        /// What the error is about: a topic, a partition, a group.
        subject: Box<str>,
        /// The broker's own words.
        message: Option<Box<str>>,
    },
    /// The broker does not have an API, or no version of it that this client knows.
    #[error("{broker} has no version of {api} that this client speaks")]
    UnsupportedApi {
        /// The API.
        api: ApiKey,
        /// `host:port`.
        broker: Arc<str>,
    },
    /// A frame announces more bytes than allowed (R10), or the peer does not speak Kafka's protocol.
    #[error("{broker} sent a frame that is no Kafka response")]
    Frame {
        /// `host:port`.
        broker: Arc<str>,
        /// The cause.
        source: FrameLengthError,
    },
    /// A response could not be decoded.
    #[error("the answer of {broker} to {api} cannot be decoded")]
    Decode {
        /// `host:port`.
        broker: Arc<str>,
        /// The request.
        api: ApiKey,
        /// The cause.
        source: DecodeError,
    },
    /// A request cannot be encoded at the version that the broker speaks.
    #[error("{api} cannot say this to {broker}")]
    Encode {
        /// `host:port`.
        broker: Arc<str>,
        /// The request.
        api: ApiKey,
        /// The cause.
        source: EncodeError,
    },
    /// A response leaves out what was asked for, or contradicts itself.
    #[error("the answer of {broker} to {api} is not complete: {problem}")]
    Malformed {
        /// `host:port`.
        broker: Arc<str>,
        /// The request.
        api: ApiKey,
        /// What is wrong.
        problem: &'static str,
    },
    /// A fetched record batch cannot be read.
    #[error("the record batch of {partition} at offset {offset} cannot be read")]
    CorruptBatch {
        /// The partition.
        partition: TopicPartition,
        /// Its position.
        offset: Offset,
        /// The cause.
        source: Arc<BatchError>,
    },
    /// A record batch could not be built.
    #[error("a record batch cannot be built")]
    Build {
        /// The cause.
        source: Arc<BuildError>,
    },
    /// A record is larger than the producer's `record_bytes_max`, or than its whole buffer.
    #[error("the record has {bytes} bytes; the limit is {max}")]
    RecordTooLarge {
        /// Bytes of the record.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The cluster does not have the topic.
    #[error("there is no topic `{topic}`")]
    UnknownTopic {
        /// The topic.
        topic: TopicName,
    },
    /// The topic does not have the partition.
    #[error("topic `{}` has no partition {}: there are {count}", partition.topic, partition.partition)]
    UnknownPartition {
        /// The partition.
        partition: TopicPartition,
        /// The number of partitions.
        count: usize,
    },
    /// A partition has no leader at the moment.
    #[error("{partition} has no leader")]
    NoLeader {
        /// The partition.
        partition: TopicPartition,
    },
    /// A batch was not acknowledged within `delivery_timeout_ms`; the cause is that of the last attempt.
    #[error("{records} records for {partition} were not acknowledged within {after_ms} ms")]
    DeliveryTimeout {
        /// The partition.
        partition: TopicPartition,
        /// Records of the batch.
        records: i32,
        /// Milliseconds since the batch was opened.
        after_ms: u64,
        /// What the last attempt said.
        source: Option<Box<ClientError>>,
    },
    /// The position of a partition is not in its log, and `auto_offset_reset` is `None` (R7).
    #[error("offset {offset} of {partition} does not exist (any more)")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: Offset,
    },
    /// A partition has no committed offset, and `auto_offset_reset` is `None` (R7).
    #[error("there is no committed offset of {partition}")]
    NoOffset {
        /// The partition.
        partition: TopicPartition,
    },
    /// A topic was deleted and created again: positions in the old one mean nothing in the new one (R7).
    #[error("topic `{topic}` was deleted and created again: its id was {expected} and is {actual}")]
    TopicRecreated {
        /// The topic.
        topic: TopicName,
        /// The id of the topic that was being read.
        expected: TopicId,
        /// The id of the topic that has its name now.
        actual: TopicId,
    },
    /// The log was truncated below the position after an unclean leader election (KIP-320).
    #[error("the log of {partition} was truncated to {end_offset}, below the position {offset}")]
    LogTruncated {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: Offset,
        /// Where the log ends that the position belonged to.
        end_offset: Offset,
    },
    /// A partition is not assigned to the consumer.
    #[error("{partition} is not assigned to this consumer")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// A share consumer does not have the record (any more): its lock has ended, it was acknowledged, or the session with
    /// the leader has broken. Somebody may be given it again.
    #[error("the record of {partition} at offset {offset} is not with this consumer (any more)")]
    NotAcquired {
        /// The partition.
        partition: TopicPartition,
        /// The offset of (one of) the records.
        offset: Offset,
    },
    /// The group has gone on without this member: what it owned belongs to others now (R6).
    #[error("this member is no longer in group `{group}`: {code}")]
    MembershipLost {
        /// The group.
        group: Box<str>,
        /// What the coordinator said.
        code: ErrorCode,
    },
    /// The transaction cannot be committed any more: it must be (or is being) aborted. The producer goes on with the
    /// next one.
    #[error("the transaction of `{transactional_id}` cannot be committed: it is aborted")]
    TransactionAborted {
        /// Whose transaction.
        transactional_id: Arc<str>,
        /// Why; `None` when the application aborted it.
        source: Option<Box<ClientError>>,
    },
    /// Another producer has the transactional id now, or the coordinator gave the transaction up after
    /// `transaction_timeout_ms` (R6). This producer can do nothing any more.
    #[error("the producer of `{transactional_id}` is fenced: {code}")]
    ProducerFenced {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// What the broker said.
        code: ErrorCode,
    },
    /// The transactional producer cannot go on after what happened.
    #[error("the producer of `{transactional_id}` cannot go on")]
    TransactionalProducerFailed {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// What happened.
        source: Box<ClientError>,
    },
    /// The call needs a group, or the configuration contradicts itself.
    #[error("{0}")]
    Usage(&'static str),
    /// A name that breaks its rules.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The producer, consumer or client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Bootstrap { .. }
            | Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::RequestTimeout { .. }
            | Self::Timeout { .. }
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::NoLeader { .. }
            | Self::DeliveryTimeout { .. } => true,
            // Another process has taken over the instance id: coming back would only fence that one.
            Self::MembershipLost { code, .. } => !matches!(
                code,
                ErrorCode::FencedInstanceId
                    | ErrorCode::UnreleasedInstanceId
                    | ErrorCode::GroupAuthorizationFailed
            ),
            Self::Broker { code, .. } => code.is_retriable() || *code == ErrorCode::RebalanceInProgress,
            _ => false,
        }
    }

    /// Whether the producer, consumer or member that reported it can do nothing any more: make a new one, if at all.
    /// (Another process has taken over its transactional id or instance id, it was closed, or it may not go on.)
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::ProducerFenced { .. } | Self::TransactionalProducerFailed { .. } | Self::Closed => true,
            Self::MembershipLost { .. } => !self.is_retriable(),
            _ => false,
        }
    }

    /// Whether the transaction must be aborted, after which the producer goes on: everything of the transaction may be
    /// done again in the next one.
    #[must_use]
    pub fn is_abortable(&self) -> bool {
        match self {
            Self::TransactionAborted { .. } => true,
            Self::Broker { code, .. } => *code == ErrorCode::TransactionAbortable,
            _ => false,
        }
    }

    /// The broker's error code, of this error or of its cause.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. }
            | Self::MembershipLost { code, .. }
            | Self::ProducerFenced { code, .. } => Some(*code),
            Self::OffsetOutOfRange { .. } => Some(ErrorCode::OffsetOutOfRange),
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => {
                Some(ErrorCode::UnknownTopicOrPartition)
            }
            Self::Bootstrap { source, .. } | Self::TransactionalProducerFailed { source, .. } => {
                source.code()
            }
            Self::Timeout { source, .. }
            | Self::DeliveryTimeout { source, .. }
            | Self::TransactionAborted { source, .. } => source.as_ref().and_then(|source| source.code()),
            _ => None,
        }
    }

    /// The broker that this is about (`host:port`), of this error or of its cause.
    #[must_use]
    pub fn broker(&self) -> Option<&str> {
        match self {
            Self::Connect { broker, .. }
            | Self::Disconnected { broker, .. }
            | Self::RequestTimeout { broker, .. }
            | Self::Broker { broker, .. }
            | Self::UnsupportedApi { broker, .. }
            | Self::Frame { broker, .. }
            | Self::Decode { broker, .. }
            | Self::Encode { broker, .. }
            | Self::Malformed { broker, .. } => Some(broker),
            Self::Bootstrap { source, .. } | Self::TransactionalProducerFailed { source, .. } => {
                source.broker()
            }
            Self::Timeout { source, .. }
            | Self::DeliveryTimeout { source, .. }
            | Self::TransactionAborted { source, .. } => source.as_ref().and_then(|source| source.broker()),
            _ => None,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bootstrap { .. } => {
                "is a Kafka broker listening at these addresses (`bootstrap_servers`), and can this machine reach them?"
            }
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there: is the broker running, and does it advertise an address that this machine reaches?"
            }
            Self::Connect { .. } => {
                "the address comes from the broker's advertised listeners: can this machine resolve and reach it?"
            }
            Self::Frame { .. } => "is this port TLS, HTTP or something else than a plain Kafka listener?",
            Self::UnsupportedApi { .. } => "the cluster is too old, or does not implement this API",
            Self::RecordTooLarge { .. } => {
                "raise the producer's `record_bytes_max` and the topic's `max.message.bytes`"
            }
            Self::UnknownTopic { .. } => "create the topic, or allow its automatic creation on the brokers",
            Self::OffsetOutOfRange { .. } => {
                "the records were removed by retention or DeleteRecords, or the log was truncated; choose a new position"
            }
            Self::NotAcquired { .. } => {
                "acknowledge or renew a record while its lock lasts (`share.record.lock.duration.ms` of the group)"
            }
            Self::NoOffset { .. } => "commit an offset, or set `auto_offset_reset` to earliest or latest",
            Self::TopicRecreated { .. } => "decide where to begin in the new topic",
            Self::Broker { code: ErrorCode::UnsupportedVersion, api, .. } if is_of_share_groups(*api) => {
                "share groups are off in this cluster: its feature `share.version` turns them on"
            }
            Self::Broker { code, .. } => return code_hint(*code),
            Self::ProducerFenced { .. } => {
                "two producers use the same transactional id, or a transaction took longer than `transaction_timeout_ms`"
            }
            Self::TransactionalProducerFailed { source, .. }
            | Self::TransactionAborted { source: Some(source), .. }
            | Self::Timeout { source: Some(source), .. }
            | Self::DeliveryTimeout { source: Some(source), .. } => return source.hint(),
            _ => return None,
        })
    }

    /// Whether leaders or ids may have changed, so that metadata must be asked for again.
    pub(crate) fn wants_metadata(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code_wants_metadata(*code),
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::RequestTimeout { .. }
            | Self::NoLeader { .. }
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. } => true,
            _ => false,
        }
    }

    /// Whether the connection failed: nobody knows whether the request was carried out.
    pub(crate) fn is_network(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Disconnected { .. } | Self::RequestTimeout { .. })
    }
}

impl From<BuildError> for ClientError {
    fn from(source: BuildError) -> Self {
        Self::Build { source: Arc::new(source) }
    }
}

/// Codes after which the client's idea of the cluster is stale.
pub(crate) fn code_wants_metadata(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::BrokerNotAvailable
            | ErrorCode::KafkaStorageError
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::UnknownTopicId
            | ErrorCode::InconsistentTopicId
            | ErrorCode::ListenerNotFound
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::NetworkException
    )
}

fn is_of_share_groups(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::ShareGroupHeartbeat
            | ApiKey::ShareGroupDescribe
            | ApiKey::ShareFetch
            | ApiKey::ShareAcknowledge
            | ApiKey::DescribeShareGroupOffsets
            | ApiKey::AlterShareGroupOffsets
            | ApiKey::DeleteShareGroupOffsets
    )
}

fn code_hint(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed => "grant the client's principal the operation (ACLs)",
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            "raise the topic's `max.message.bytes`, or lower the producer's `batch_bytes`"
        }
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
            "fewer replicas are in sync than `min.insync.replicas` asks for: bring brokers back"
        }
        ErrorCode::InvalidReplicationFactor => "the cluster has fewer brokers than the replication factor",
        ErrorCode::PolicyViolation => "the cluster's policy forbids it",
        ErrorCode::UnsupportedCompressionType => "choose another compression",
        ErrorCode::InvalidRecord => "a compacted topic needs a key in every record",
        ErrorCode::InvalidTransactionTimeout => {
            "lower `transaction_timeout_ms`, or raise the brokers' `transaction.max.timeout.ms`"
        }
        ErrorCode::UnreleasedInstanceId => "another member has this `group_instance_id`: stop it first",
        ErrorCode::UnsupportedAssignor => "choose one of the brokers' assignors as `remote_assignor`",
        ErrorCode::InvalidRegularExpression => "the brokers read RE2 expressions",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_keep_code_and_broker() {
        let inner = ClientError::Broker {
            code: ErrorCode::NotLeaderOrFollower,
            api: ApiKey::Produce,
            broker: "b:9092".into(),
            subject: "t-0".into(),
            message: None,
        };
        let outer = ClientError::Timeout { what: "x", after_ms: 5, source: Some(Box::new(inner)) };
        assert_eq!(outer.code(), Some(ErrorCode::NotLeaderOrFollower));
        assert_eq!(outer.broker(), Some("b:9092"));
        assert!(outer.is_retriable());
        assert!(!ClientError::Closed.is_retriable());
    }

    #[test]
    fn transactional_errors_say_what_to_do() {
        let id: Arc<str> = "tx".into();
        let fenced = ClientError::ProducerFenced {
            transactional_id: Arc::clone(&id),
            code: ErrorCode::InvalidProducerEpoch,
        };
        assert!(fenced.is_fatal() && !fenced.is_abortable() && !fenced.is_retriable());
        let source = Some(Box::new(ClientError::Closed));
        let aborted = ClientError::TransactionAborted { transactional_id: id, source };
        assert!(aborted.is_abortable() && !aborted.is_fatal() && !aborted.is_retriable());
    }

    #[test]
    fn a_result_stays_small() {
        assert!(std::mem::size_of::<ClientError>() <= 96, "{}", std::mem::size_of::<ClientError>());
    }
}
