//! InitProducerId: somebody takes a transactional id.

use std::sync::Arc;

use towpath_types::ProducerId;
use towpath_wire::ErrorCode;

use super::append::Then;
use super::{Asking, Busy, TransactionCommand, TransactionMachine, TransactionReply, respond, size_in_bytes};
use crate::log::TransactionalProducer;
use crate::machine::{Now, Waiter};
use crate::transaction::decide::{self, Decision};
use crate::transaction::metadata::{Metadata, TransactionState};

/// The longest id that a record can have for a key.
const ID_BYTES_MAX: usize = i16::MAX as usize;

/// A producer that wants a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducer {
    /// The id.
    pub transactional_id: String,
    /// After how many milliseconds a transaction of it is aborted.
    pub timeout_ms: i32,
    /// Who it was until now, if it goes on after an error (KIP-360). Without that, whoever had the id is fenced.
    pub expected: Option<TransactionalProducer>,
}

impl TransactionMachine {
    /// Takes an InitProducerId with a transactional id.
    pub fn init_producer_id(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: InitProducer,
        out: &mut Vec<TransactionCommand>,
    ) {
        let id_bytes = request.transactional_id.len();
        let is_timeout_allowed = (1..=self.config.timeout_ms_max).contains(&request.timeout_ms);
        let error = if id_bytes == 0 || id_bytes > ID_BYTES_MAX {
            ErrorCode::InvalidRequest
        } else if !is_timeout_allowed {
            ErrorCode::InvalidTransactionTimeout
        } else {
            return self.initialize(now, waiter, request, None, out);
        };
        respond(waiter, TransactionReply::Init(Err(error)), out);
    }

    pub(super) fn initialize(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: InitProducer,
        fresh_id: Option<ProducerId>,
        out: &mut Vec<TransactionCommand>,
    ) {
        let Some(entry) = self.entries.get_mut(request.transactional_id.as_str()) else {
            return self.introduce(now, waiter, request, out);
        };
        if let (true, Some(id)) = (entry.metadata.is_new(), fresh_id) {
            entry.metadata.producer.id = id;
        }
        let decision = if entry.busy.is_some() {
            Decision::Refuse(ErrorCode::ConcurrentTransactions)
        } else {
            let at = Self::moment(now, fresh_id);
            decide::initialize(&entry.metadata, request.expected, request.timeout_ms, at)
        };
        match decision {
            Decision::Refuse(error) => respond(waiter, TransactionReply::Init(Err(error)), out),
            // There is always something to do.
            Decision::Done => respond(waiter, TransactionReply::Init(Ok(entry.metadata.producer)), out),
            Decision::NeedsProducerId => self.ask(Asking::Init { waiter, request }, out),
            Decision::Write(next) if next.state == TransactionState::PrepareAbort => {
                self.write(now, &request.transactional_id, next, Then::Fence { waiter: Some(waiter) }, out);
            }
            Decision::Write(next) => {
                self.write(now, &request.transactional_id, next, Then::Init { waiter }, out);
            }
        }
    }

    /// An id that is not known: it needs a producer id first of all.
    fn introduce(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: InitProducer,
        out: &mut Vec<TransactionCommand>,
    ) {
        let metadata = Metadata::new(ProducerId::NONE, request.timeout_ms, now.wall_ms);
        let bytes = size_in_bytes(&request.transactional_id, &metadata);
        // R10
        if self.entries.len() >= self.config.ids_max || self.bytes + bytes > self.config.partition_bytes_max {
            tracing::warn!(
                transactional_id = request.transactional_id,
                ids = self.entries.len(),
                "no room for another transactional id"
            );
            return respond(waiter, TransactionReply::Init(Err(ErrorCode::PolicyViolation)), out);
        }
        self.insert(Arc::from(request.transactional_id.as_str()), metadata, Some(Busy::ProducerId));
        self.ask(Asking::Init { waiter, request }, out);
    }
}
