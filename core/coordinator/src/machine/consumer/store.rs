//! What a group has changed goes to the log, and answers wait for it.

use std::collections::BTreeSet;

use towpath_wire::ErrorCode;

use super::records::{self, Key};
use crate::machine::append::{AppendToken, Effect};
use crate::machine::group::GroupState;
use crate::machine::timers::TimerKind;
use crate::machine::turn::Turn;
use crate::machine::{Reply, Waiter};
use crate::record::OffsetsRecord;

/// Bytes of records in one append; more are written in several. Well below what a batch of the topic may have.
const APPEND_BYTES_MAX: usize = 512 * 1024;
/// How long after a failed append its records are written again, when nothing else asks for it.
const REPAIR_MS: i32 = 1_000;

impl Turn<'_> {
    /// Sends what has changed to the log; `answer` is given when it is there, and all that the group wrote before.
    pub(in crate::machine) fn store(&mut self, answer: Option<(Waiter, Reply)>) {
        if let Some(consumer) = self.group.consumer_mut() {
            let mut changed = std::mem::take(&mut consumer.changed);
            self.group.unwritten.append(&mut changed);
        }
        if self.group.unwritten.is_empty() {
            self.answer_in_order(answer);
            return;
        }
        let keys = std::mem::take(&mut self.group.unwritten);
        self.cancel_timer(TimerKind::Repair);
        match records::records(self.group, &keys, self.now.wall_ms) {
            Ok(records) if records.is_empty() => self.answer_in_order(answer),
            Ok(records) => self.append_in_parts(records, keys, answer),
            Err(error) => {
                // A name that no record can hold is refused before; nothing is answered as if it were stored.
                tracing::error!(group = %self.group.id, %error, "a group cannot be stored");
                if let Some((waiter, reply)) = answer {
                    self.respond(waiter, reply.failed(ErrorCode::UnknownServerError));
                }
            }
        }
    }

    /// Without records of its own an answer still tells of what others have written.
    fn answer_in_order(&mut self, answer: Option<(Waiter, Reply)>) {
        let Some((waiter, reply)) = answer else { return };
        let pending = self.group.in_flight.and_then(|token| self.shared.appends.get_mut(&token));
        match pending.and_then(|pending| pending.replies_mut()) {
            Some(replies) => replies.push((waiter, reply)),
            None => self.respond(waiter, reply),
        }
    }

    fn append_in_parts(
        &mut self,
        records: Vec<OffsetsRecord>,
        keys: BTreeSet<Key>,
        answer: Option<(Waiter, Reply)>,
    ) {
        let mut parts: Vec<Vec<OffsetsRecord>> = Vec::new();
        let mut bytes = usize::MAX;
        for record in records {
            let size = record.size_in_bytes() + 64;
            if bytes.saturating_add(size) > APPEND_BYTES_MAX {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(part) = parts.last_mut() {
                part.push(record);
            }
        }
        let last = parts.pop();
        for part in parts {
            // When this one fails, all are written again, and the answer in the last one fails with it.
            self.append(part, Effect::Store { keys: keys.clone(), replies: Vec::new() });
        }
        if let Some(last) = last {
            let replies = answer.into_iter().collect();
            let token = self.append(last, Effect::Store { keys, replies });
            self.group.in_flight = Some(token);
        }
    }

    /// Records of the group are in the log, or perhaps not.
    pub(in crate::machine) fn finish_store(
        &mut self,
        token: AppendToken,
        keys: BTreeSet<Key>,
        replies: Vec<(Waiter, Reply)>,
        result: Result<(), ErrorCode>,
    ) {
        if self.group.in_flight == Some(token) {
            self.group.in_flight = None;
        }
        if result.is_err() {
            // They may be there or not: the log must catch up with what the group is now. What was sent after this was
            // made on top of it, and is told to have failed, too.
            self.group.tainted = Some(self.shared.last_append());
            self.group.unwritten.extend(keys);
            if self.group.state != GroupState::Dead {
                self.set_timer(TimerKind::Repair, REPAIR_MS);
            }
        }
        let is_tainted = self.group.tainted.is_some_and(|tainted| token <= tainted);
        let error = result.err().or(is_tainted.then_some(ErrorCode::CoordinatorNotAvailable));
        for (waiter, reply) in replies {
            self.respond(
                waiter,
                match error {
                    Some(error) => reply.failed(error),
                    None => reply,
                },
            );
        }
    }

    /// Writes again what could not be written.
    pub(in crate::machine) fn on_repair(&mut self) {
        if self.group.state != GroupState::Dead {
            self.store(None);
        }
    }
}
