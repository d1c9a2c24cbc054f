//! Decisions: image and request in, records and answer out.

mod brokers;
mod configs;
mod partitions;
mod topics;

#[cfg(test)]
mod tests;

use towpath_wire::ErrorCode;

use crate::MetadataRecord;

pub use brokers::{PRODUCER_IDS_PER_BLOCK, ProducerIdBlock, allocate_producer_ids, register_broker};
pub use configs::{ConfigChange, ConfigOperation, alter_topic_config, replace_topic_config};
pub use partitions::{MorePartitions, create_partitions};
pub use topics::{
    Assignment, CreatedTopic, DeleteTarget, DeletedTopic, NewTopic, TopicDefaults, create_topics,
    delete_topics,
};

/// The records to commit, and what to answer once they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<T> {
    /// The records; all of them or none take effect.
    pub records: Vec<MetadataRecord>,
    /// The answer.
    pub answer: T,
}

impl<T> Decision<T> {
    /// An answer that changes nothing.
    pub const fn unchanged(answer: T) -> Self {
        Self { records: Vec::new(), answer }
    }
}

/// Why a request is refused, with the protocol's code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// The code of the answer.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
}

impl AdminError {
    /// An error with its reason.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
