//! AddPartitionsToTxn and AddOffsetsToTxn: what a transaction touches.

use towpath_types::TopicPartition;
use towpath_wire::ErrorCode;

use super::append::Then;
use super::{TransactionCommand, TransactionMachine, TransactionReply, respond, size_in_bytes};
use crate::log::TransactionalProducer;
use crate::machine::{Now, Waiter};
use crate::transaction::decide::{self, Decision};
use crate::transaction::metadata::ClientVersion;
use crate::transaction::partitions::Partitions;

/// Partitions that a transaction is about to touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitions {
    /// The transactional id.
    pub transactional_id: String,
    /// Who asks, or for whom is asked.
    pub producer: TransactionalProducer,
    /// The partitions.
    pub partitions: Partitions,
    /// What the producer goes by.
    pub version: ClientVersion,
}

impl TransactionMachine {
    /// Takes an AddPartitionsToTxn or an AddOffsetsToTxn: the answer leaves when the log has the partitions, so that
    /// whatever is written to them gets a marker.
    pub fn add_partitions(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: &AddPartitions,
        out: &mut Vec<TransactionCommand>,
    ) {
        let id = request.transactional_id.as_str();
        let decision = match self.entries.get(id) {
            _ if id.is_empty() => Decision::Refuse(ErrorCode::InvalidRequest),
            None => Decision::Refuse(ErrorCode::InvalidProducerIdMapping),
            // Before anything else: a producer whose id is being replaced uses the new one already.
            Some(entry) if entry.busy.is_some() => Decision::Refuse(ErrorCode::ConcurrentTransactions),
            Some(entry) => {
                let (producer, partitions) = (request.producer, &request.partitions);
                decide::add_partitions(&entry.metadata, producer, partitions, request.version, now.wall_ms)
            }
        };
        let error = match decision {
            Decision::Write(next) => {
                let bytes = size_in_bytes(id, &next);
                if self.has_room(id, &next.partitions, bytes) {
                    return self.write(now, id, next, Then::Add { waiter }, out);
                }
                ErrorCode::PolicyViolation
            }
            Decision::Refuse(error) => error,
            Decision::Done | Decision::NeedsProducerId => ErrorCode::None,
        };
        respond(waiter, TransactionReply::Add(error), out);
    }

    /// R10: whether an id may grow to `bytes`, with `partitions`.
    fn has_room(&self, id: &str, partitions: &Partitions, bytes: usize) -> bool {
        let before = self.entries.get(id).map_or(0, |entry| entry.bytes);
        let has_room = partitions.len() <= self.config.partitions_max
            && partitions.size_in_record() <= self.config.transaction_bytes_max
            && self.bytes - before + bytes <= self.config.partition_bytes_max;
        if !has_room {
            let partitions = partitions.len();
            tracing::warn!(
                transactional_id = id,
                partitions,
                "no room for a transaction with so many partitions"
            );
        }
        has_room
    }

    /// Takes an AddPartitionsToTxn that only asks whether the transaction touches the partitions. What is on its way
    /// does not matter: whoever appends then is stopped by a marker that came between.
    ///
    /// # Errors
    /// The answer for all partitions, where it is the same; otherwise each has its own.
    pub fn verify_partitions<'a>(
        &self,
        transactional_id: &str,
        producer: TransactionalProducer,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let entry = self.entries.get(transactional_id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        decide::verify(&entry.metadata, producer)?;
        let verify = |partition| {
            if entry.metadata.partitions.contains(partition) {
                ErrorCode::None
            } else {
                ErrorCode::TransactionAbortable
            }
        };
        Ok(partitions.map(verify).collect())
    }
}
