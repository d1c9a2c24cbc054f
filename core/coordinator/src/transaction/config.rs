//! The settings of the transaction coordinator, under Kafka's names.

use towpath_types::limits;

/// The settings of the transaction coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`: a longer transaction timeout is refused.
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`: an id that was not used for so long, and has no open transaction, is forgotten.
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`: how often it is looked for transactions to abort.
    pub abort_interval_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`: how often it is looked for ids to forget.
    pub expiration_interval_ms: i64,
    /// Transactional ids of one partition of the state topic.
    pub ids_max: usize,
    /// Partitions of one transaction.
    pub partitions_max: usize,
    /// Bytes of one transaction's partitions, as they stand in a record.
    pub transaction_bytes_max: usize,
    /// Bytes that the ids of one partition of the state topic hold together.
    pub partition_bytes_max: usize,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timeout_ms_max: 15 * 60 * 1_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            abort_interval_ms: 10_000,
            expiration_interval_ms: 60 * 60 * 1_000,
            ids_max: limits::TRANSACTIONAL_IDS_MAX,
            partitions_max: limits::TRANSACTION_PARTITIONS_MAX,
            transaction_bytes_max: limits::TRANSACTION_BYTES_MAX,
            partition_bytes_max: limits::TRANSACTION_PARTITION_BYTES_MAX,
        }
    }
}
