//! The cluster's errors as the runtime classifies them.

use std::time::Duration;

use towpath_api::{ConnectorError, ErrorKind};
use towpath_client::{ClientError, ErrorCode};

/// What keeps a supervisor from starting.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Two pipelines have one name.
    #[error("two pipelines are called `{0}`")]
    DuplicateName(String),
    /// A pipeline without what it needs.
    #[error("pipeline `{0}` needs a source and a topic, or topics and a sink")]
    Incomplete(String),
    /// A name that cannot be a topic's.
    #[error("the dead-letter topic of pipeline `{pipeline}`")]
    DeadLetterTopic {
        /// The pipeline.
        pipeline: String,
        /// Why.
        source: towpath_types::InvalidName,
    },
    /// The worker's identity cannot be read or written.
    #[error("the worker's identity in {path}")]
    Identity {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Classifies what the cluster said while the runtime did `what`.
pub(crate) fn cluster_error(what: &str, error: ClientError) -> ConnectorError {
    let kind = match error.code() {
        Some(
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::PolicyViolation
            | ErrorCode::InvalidReplicationFactor
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge,
        ) => ErrorKind::NeedsOperator,
        _ if error.is_retriable() => ErrorKind::RetryAfter(Duration::ZERO),
        _ => match &error {
            // R7: a position that is no longer there is never replaced by another one silently.
            ClientError::OffsetOutOfRange { .. }
            | ClientError::TopicRecreated { .. }
            | ClientError::LogTruncated { .. }
            | ClientError::NoOffset { .. }
            | ClientError::CorruptBatch { .. } => ErrorKind::Terminal,
            ClientError::UnsupportedApi { .. } | ClientError::Frame { .. } => ErrorKind::NeedsOperator,
            ClientError::Usage(_) => ErrorKind::Bug,
            // Sequences that do not fit, a closed connection: a new producer begins anew and drops what is there.
            _ => ErrorKind::RetryAfter(Duration::ZERO),
        },
    };
    let code = code(&error);
    let hint = error.hint();
    let converted = ConnectorError::new(code, kind, what.to_owned()).with_cause(error);
    match hint {
        Some(hint) => converted.with_hint(hint),
        None => converted,
    }
}

const fn code(error: &ClientError) -> &'static str {
    match error {
        ClientError::Bootstrap { .. } | ClientError::Connect { .. } => "KAFKA_UNREACHABLE",
        ClientError::Disconnected { .. } => "KAFKA_DISCONNECTED",
        ClientError::RequestTimeout { .. } | ClientError::Timeout { .. } => "KAFKA_TIMEOUT",
        ClientError::DeliveryTimeout { .. } => "KAFKA_DELIVERY_TIMEOUT",
        ClientError::UnknownTopic { .. } | ClientError::UnknownPartition { .. } => "KAFKA_UNKNOWN_TOPIC",
        ClientError::OffsetOutOfRange { .. } => "KAFKA_OFFSET_OUT_OF_RANGE",
        ClientError::TopicRecreated { .. } => "KAFKA_TOPIC_RECREATED",
        ClientError::LogTruncated { .. } => "KAFKA_LOG_TRUNCATED",
        ClientError::CorruptBatch { .. } => "KAFKA_CORRUPT_BATCH",
        ClientError::RecordTooLarge { .. } => "KAFKA_RECORD_TOO_LARGE",
        ClientError::MembershipLost { .. } => "KAFKA_MEMBERSHIP_LOST",
        ClientError::UnsupportedApi { .. } => "KAFKA_UNSUPPORTED_API",
        _ => "KAFKA_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_types::{Offset, TopicName, TopicPartition};

    #[test]
    fn lost_positions_stop_the_task_and_lost_connections_do_not() {
        let partition = TopicPartition::new(TopicName::new("t").unwrap(), 0);
        let gone = ClientError::OffsetOutOfRange { partition, offset: Offset::new(5) };
        let error = cluster_error("reading", gone);
        assert_eq!((error.kind(), error.code()), (ErrorKind::Terminal, "KAFKA_OFFSET_OUT_OF_RANGE"));
        assert!(error.hint().is_some());
        let error =
            cluster_error("reading", ClientError::Disconnected { broker: "b".into(), reason: "x".into() });
        assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)));
    }
}
