//! EndTxn, and the end that comes without one.

use std::sync::Arc;

use towpath_types::ProducerId;
use towpath_wire::ErrorCode;

use super::append::Then;
use super::{Asking, TransactionCommand, TransactionMachine, TransactionReply, respond};
use crate::log::TransactionalProducer;
use crate::machine::{Now, Waiter};
use crate::transaction::decide::{self, Decision};
use crate::transaction::metadata::ClientVersion;

/// The end of a transaction, as its producer wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// Who asks.
    pub producer: TransactionalProducer,
    /// Whether to commit.
    pub commit: bool,
    /// What the producer goes by.
    pub version: ClientVersion,
}

impl TransactionMachine {
    /// Takes an EndTxn: the answer leaves when the decision stands in the log, before the markers do.
    pub fn end_transaction(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: EndTransaction,
        out: &mut Vec<TransactionCommand>,
    ) {
        self.end(now, waiter, request, None, out);
    }

    pub(super) fn end(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: EndTransaction,
        fresh_id: Option<ProducerId>,
        out: &mut Vec<TransactionCommand>,
    ) {
        let refuse = |error, out: &mut Vec<TransactionCommand>| {
            respond(waiter, TransactionReply::End(Err(error)), out);
        };
        let id = request.transactional_id.as_str();
        if id.is_empty() {
            return refuse(ErrorCode::InvalidRequest, out);
        }
        let Some(entry) = self.entries.get(id) else {
            return refuse(ErrorCode::InvalidProducerIdMapping, out);
        };
        let (metadata, is_pending) = (&entry.metadata, entry.busy.is_some());
        let at = Self::moment(now, fresh_id);
        let decision = if !request.version.bumps_epoch() {
            decide::end_v0(metadata, request.producer, request.commit, is_pending, at)
        } else if is_pending {
            // Before anything else: a producer whose id is being replaced uses the new one already.
            Decision::Refuse(ErrorCode::ConcurrentTransactions)
        } else {
            decide::end_v2(metadata, request.producer, request.commit, at)
        };
        match decision {
            Decision::Refuse(error) => {
                if error == ErrorCode::InvalidTxnState {
                    let (state, commit) = (metadata.state.name(), request.commit);
                    tracing::warn!(transactional_id = id, state, commit, "a transaction cannot end so");
                }
                refuse(error, out);
            }
            Decision::Done => respond(waiter, TransactionReply::End(Ok(metadata.producer)), out),
            Decision::NeedsProducerId => self.ask(Asking::End { waiter, request }, out),
            Decision::Write(next) => self.write(now, id, next, Then::End { waiter }, out),
        }
    }

    /// Aborts the transactions that have had their time.
    pub(super) fn abort_timed_out(&mut self, now: Now, out: &mut Vec<TransactionCommand>) {
        for id in self.idle_ids(|metadata| metadata.is_timed_out(now.wall_ms)) {
            tracing::info!(transactional_id = &*id, "a transaction has had its time and is aborted");
            self.abort(now, &id, None, out);
        }
    }

    /// Aborts a transaction and fences its producer (Kafka's `PrepareEpochFence`).
    pub(super) fn abort(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        fresh_id: Option<ProducerId>,
        out: &mut Vec<TransactionCommand>,
    ) {
        let Some(entry) = self.entries.get(transactional_id) else { return };
        if entry.busy.is_some() || !entry.metadata.is_timed_out(now.wall_ms) {
            return;
        }
        match decide::fence(&entry.metadata, Self::moment(now, fresh_id)) {
            Decision::NeedsProducerId => {
                self.ask(Asking::Abort { transactional_id: Arc::clone(transactional_id) }, out);
            }
            Decision::Write(next) => {
                self.write(now, transactional_id, next, Then::Fence { waiter: None }, out);
            }
            Decision::Refuse(_) | Decision::Done => {}
        }
    }
}
