//! What a group has changed goes to the log, and answers wait for it.
//!
//! Of one group one append is on its way at a time; what changes meanwhile goes with the next one, together. So the log
//! never has a change without those that it was made on top of, whatever fails and whenever the process dies.

use std::collections::{BTreeSet, VecDeque};

use towpath_wire::ErrorCode;

use super::records::{self, Key};
use crate::machine::append::Effect;
use crate::machine::group::GroupState;
use crate::machine::timers::TimerKind;
use crate::machine::tombstones::{Part, parts_of};
use crate::machine::turn::Turn;
use crate::machine::{Command, Reply, Waiter};

/// How long after a failed append its records are written again, when nothing else asks for it.
const REPAIR_MS: i32 = 1_000;

/// What a group writes.
#[derive(Debug, Default)]
pub(in crate::machine) struct Store {
    /// Records that have to be written, or written again.
    pub(in crate::machine) unwritten: BTreeSet<Key>,
    /// Records that are on their way; none when there is no append.
    sent: BTreeSet<Key>,
    is_sending: bool,
    /// What goes after the append that is on its way, before anything else.
    parts: VecDeque<Part>,
    /// Answers that wait for what is on its way.
    waiting: Vec<(Waiter, Reply)>,
    /// Answers that wait for what goes next.
    waiting_next: Vec<(Waiter, Reply)>,
}

impl Store {
    pub(in crate::machine) fn is_idle(&self) -> bool {
        self.unwritten.is_empty() && !self.is_sending
    }

    pub(in crate::machine) fn waiters(&self) -> impl Iterator<Item = Waiter> {
        self.waiting.iter().chain(&self.waiting_next).map(|(waiter, _)| *waiter)
    }

    /// Every record that the log may have or get: none of them may outlive the group.
    pub(in crate::machine) fn bury(&mut self) -> BTreeSet<Key> {
        self.parts.clear();
        let mut keys = std::mem::take(&mut self.unwritten);
        keys.extend(self.sent.iter().cloned());
        keys
    }

    /// Answers everybody who waits with an error.
    pub(in crate::machine) fn fail(&mut self, error: ErrorCode, out: &mut Vec<Command>) {
        let waiting = self.waiting.drain(..).chain(self.waiting_next.drain(..));
        out.extend(waiting.map(|(waiter, reply)| Command::Respond { waiter, reply: reply.failed(error) }));
    }
}

impl Turn<'_> {
    /// Sends what has changed to the log; `answer` is given when it is there, and all that the group wrote before.
    pub(in crate::machine) fn store(&mut self, answer: Option<(Waiter, Reply)>) {
        if let Some(consumer) = self.group.consumer_mut() {
            let mut changed = std::mem::take(&mut consumer.changed);
            self.group.store.unwritten.append(&mut changed);
        }
        if let Some(share) = self.group.share_mut() {
            let mut changed = std::mem::take(&mut share.changed);
            self.group.store.unwritten.append(&mut changed);
        }
        let store = &mut self.group.store;
        if store.is_sending {
            let queue = if store.unwritten.is_empty() { &mut store.waiting } else { &mut store.waiting_next };
            queue.extend(answer);
            return;
        }
        store.waiting_next.extend(answer);
        self.send();
    }

    fn send(&mut self) {
        let store = &mut self.group.store;
        let keys = std::mem::take(&mut store.unwritten);
        store.waiting = std::mem::take(&mut store.waiting_next);
        self.cancel_timer(TimerKind::Repair);
        match records::records(self.group, &keys, self.now.wall_ms) {
            Ok(records) => {
                let store = &mut self.group.store;
                store.parts =
                    parts_of(records.into_iter().map(|record| (None, record)), self.shared.append_bytes_max);
                store.sent = keys;
                self.send_part();
            }
            Err(error) => {
                // A name that no record can hold is refused before; nothing is answered as if it were stored.
                tracing::error!(group = %self.group.id, %error, "a group cannot be stored");
                self.group.store.fail(ErrorCode::UnknownServerError, self.out);
            }
        }
    }

    /// Sends the next part; when there is none, all is done.
    fn send_part(&mut self) {
        let store = &mut self.group.store;
        if let Some(part) = store.parts.pop_front() {
            store.is_sending = true;
            self.append(part.records, Effect::Store);
            return;
        }
        store.is_sending = false;
        store.sent.clear();
        for (waiter, reply) in std::mem::take(&mut store.waiting) {
            self.out.push(Command::Respond { waiter, reply });
        }
        let has_more = !self.group.store.unwritten.is_empty() || !self.group.store.waiting_next.is_empty();
        if has_more && self.group.state != GroupState::Dead {
            self.send();
        }
    }

    /// Records of the group are in the log, or perhaps not.
    pub(in crate::machine) fn finish_store(&mut self, result: Result<(), ErrorCode>) {
        let is_dead = self.group.state == GroupState::Dead;
        let Err(error) = result else {
            if is_dead {
                // What was left to write goes with the group.
                self.group.store.fail(ErrorCode::CoordinatorNotAvailable, self.out);
            }
            self.send_part();
            return;
        };
        // They may be there or not: the log must catch up with what the group is now. Who waits for what was made on top
        // of them is told the same.
        let store = &mut self.group.store;
        store.is_sending = false;
        store.parts.clear();
        let mut sent = std::mem::take(&mut store.sent);
        store.unwritten.append(&mut sent);
        store.fail(error, self.out);
        if !is_dead {
            self.set_timer(TimerKind::Repair, REPAIR_MS);
        }
    }

    /// Writes again what could not be written.
    pub(in crate::machine) fn on_repair(&mut self) {
        if self.group.state != GroupState::Dead {
            self.store(None);
        }
    }
}
