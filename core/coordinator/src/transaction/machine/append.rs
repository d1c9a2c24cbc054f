//! Records on their way to the log, and what happens when they are there.

use std::sync::Arc;

use towpath_wire::ErrorCode;

use super::{
    Busy, Metadata, TransactionCommand, TransactionMachine, TransactionReply, TransactionToken, respond,
    size_in_bytes,
};
use crate::machine::{Now, Waiter};
use crate::transaction::record::state_record;

/// What follows when a change is in the log.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// The producer is told who it is.
    Init { waiter: Waiter },
    /// The producer, or the partition's leader, may write.
    Add { waiter: Waiter },
    /// The producer is told that it has ended, and markers are sent.
    End { waiter: Waiter },
    /// Markers are sent. Whoever wants the id tries again when they are written.
    Fence { waiter: Option<Waiter> },
    /// The transaction is over.
    Complete,
}

impl Then {
    const fn failure(self, error: ErrorCode) -> Option<(Waiter, TransactionReply)> {
        match self {
            Self::Init { waiter } | Self::Fence { waiter: Some(waiter) } => {
                Some((waiter, TransactionReply::Init(Err(error))))
            }
            Self::Add { waiter } => Some((waiter, TransactionReply::Add(error))),
            Self::End { waiter } => Some((waiter, TransactionReply::End(Err(error)))),
            Self::Fence { waiter: None } | Self::Complete => None,
        }
    }
}

/// A change of an id.
#[derive(Debug)]
pub(super) struct Change {
    transactional_id: Arc<str>,
    next: Metadata,
    then: Then,
}

/// An append that is not done.
#[derive(Debug)]
pub(super) enum Pending {
    Change(Box<Change>),
    /// Ids that are forgotten.
    Expire(Vec<Arc<str>>),
}

impl Pending {
    /// The answer when nobody will tell what became of the append.
    pub(super) fn answer(&self, error: ErrorCode) -> Option<(Waiter, TransactionReply)> {
        match self {
            Self::Change(change) => change.then.failure(error),
            Self::Expire(_) => None,
        }
    }

    pub(super) fn waiter(&self) -> Option<Waiter> {
        self.answer(ErrorCode::None).map(|(waiter, _)| waiter)
    }
}

impl TransactionMachine {
    /// Tells that an append is committed in the log, or that it failed. Unknown tokens (of before an unload) mean
    /// nothing.
    pub fn appended(
        &mut self,
        now: Now,
        token: TransactionToken,
        result: Result<(), ErrorCode>,
        out: &mut Vec<TransactionCommand>,
    ) {
        match (self.appends.remove(&token), result) {
            (None, _) => {}
            (Some(Pending::Expire(ids)), result) => self.expired(&ids, result),
            (Some(Pending::Change(change)), Ok(())) => self.changed(now, *change, out),
            (Some(Pending::Change(change)), Err(error)) => self.unchanged(now, &change, error, out),
        }
    }

    /// Sends the record of a change to the log.
    pub(super) fn write(
        &mut self,
        now: Now,
        transactional_id: &str,
        next: Metadata,
        then: Then,
        out: &mut Vec<TransactionCommand>,
    ) {
        let Some((transactional_id, _)) = self.entries.get_key_value(transactional_id) else { return };
        let change = Change { transactional_id: Arc::clone(transactional_id), next, then };
        let record = match state_record(&change.transactional_id, Some(&change.next), now.wall_ms) {
            Ok(record) => record,
            Err(error) => {
                // Names have been looked at before: this cannot be.
                tracing::error!(transactional_id = &*change.transactional_id, %error, "no record can be made");
                return self.unchanged(now, &change, ErrorCode::UnknownServerError, out);
            }
        };
        let bytes = size_in_bytes(&change.transactional_id, &change.next);
        if let Some(entry) = self.entries.get_mut(&change.transactional_id) {
            entry.busy = Some(Busy::Append);
            let bytes = bytes.max(entry.bytes);
            self.charge(&change.transactional_id, bytes);
        }
        let token = self.token();
        self.appends.insert(token, Pending::Change(Box::new(change)));
        out.push(TransactionCommand::Append { token, records: vec![record] });
    }

    /// Sends tombstones to the log, for ids that nothing else happens to.
    pub(super) fn write_tombstones(
        &mut self,
        now: Now,
        ids: Vec<Arc<str>>,
        out: &mut Vec<TransactionCommand>,
    ) {
        let (mut records, mut gone) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for id in ids {
            match state_record(&id, None, now.wall_ms) {
                Ok(record) => {
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.busy = Some(Busy::Append);
                    }
                    records.push(record);
                    gone.push(id);
                }
                Err(error) => tracing::error!(transactional_id = &*id, %error, "no tombstone can be made"),
            }
        }
        if records.is_empty() {
            return;
        }
        let token = self.token();
        self.appends.insert(token, Pending::Expire(gone));
        out.push(TransactionCommand::Append { token, records });
    }

    /// The log has the change.
    fn changed(&mut self, now: Now, change: Change, out: &mut Vec<TransactionCommand>) {
        let Change { transactional_id, next, then } = change;
        let Some(entry) = self.entries.get_mut(&transactional_id) else { return };
        entry.busy = None;
        entry.metadata = next;
        let (bytes, producer) = (size_in_bytes(&transactional_id, &entry.metadata), entry.metadata.producer);
        let next_producer = entry.metadata.completed(now.wall_ms).producer;
        self.charge(&transactional_id, bytes);
        match then {
            Then::Init { waiter } => {
                let (id, epoch) = (producer.id.get(), producer.epoch.get());
                tracing::debug!(transactional_id = &*transactional_id, id, epoch, "a producer has the id");
                respond(waiter, TransactionReply::Init(Ok(producer)), out);
            }
            Then::Add { waiter } => respond(waiter, TransactionReply::Add(ErrorCode::None), out),
            Then::End { waiter } => {
                respond(waiter, TransactionReply::End(Ok(next_producer)), out);
                self.send_markers(now, &transactional_id, out);
            }
            Then::Fence { waiter } => {
                if let Some(waiter) = waiter {
                    let error = ErrorCode::ConcurrentTransactions;
                    respond(waiter, TransactionReply::Init(Err(error)), out);
                }
                self.send_markers(now, &transactional_id, out);
            }
            Then::Complete => {}
        }
    }

    /// The log does not have the change, or it is not known whether it has.
    fn unchanged(&mut self, now: Now, change: &Change, error: ErrorCode, out: &mut Vec<TransactionCommand>) {
        let id = &change.transactional_id;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.busy = None;
            let bytes = size_in_bytes(id, &entry.metadata);
            self.charge(id, bytes);
        }
        tracing::debug!(transactional_id = &**id, state = change.next.state.name(), %error, "a change is not stored");
        if matches!(change.then, Then::Complete) {
            self.complete_later(now, id);
        }
        self.forget_if_new(id);
        if let Some((waiter, reply)) = change.then.failure(error) {
            respond(waiter, reply, out);
        }
    }
}
