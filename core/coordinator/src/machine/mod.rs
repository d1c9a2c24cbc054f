//! The groups of one partition of the offsets topic, as a pure state machine.
//!
//! A request comes with a [`Waiter`], which is answered exactly once by [`Command::Respond`]: at once, when the
//! group has come together, or when the record of a change is committed. Records to append leave as
//! [`Command::Append`] in the order in which they must stand in the log; [`GroupMachine::appended`] tells what
//! became of them, in the same order. Time is what the caller says it is: [`GroupMachine::next_deadline_ms`] tells
//! when [`GroupMachine::tick`] is due.
//!
//! Offsets are visible, and a generation is stable, only when the log has them. Loading is [`GroupMachine::replay`]
//! for every stored record and [`GroupMachine::loaded`] at the end.

mod admin;
mod append;
pub(crate) mod consumer;
mod expire;
mod group;
mod held;
mod join;
mod leave;
mod member;
mod offset;
mod offsets;
mod rebalance;
mod replay;
pub(crate) mod share;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod tombstones;
mod transactions;
mod turn;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use towpath_types::ProducerId;
use towpath_wire::{
    ConsumerGroupHeartbeatResponse, ErrorCode, HeartbeatRequest, HeartbeatResponse, JoinGroupResponse,
    OffsetCommitResponse, OffsetDeleteResponse, ShareGroupHeartbeatResponse, SyncGroupResponse,
    TxnOffsetCommitResponse,
};
use uuid::Uuid;

pub use append::AppendToken;
pub(crate) use consumer::heartbeat_error;
pub use consumer::{ASSIGNORS, ConsumerGroupState, ResolvedRegexes, resolve_regexes};
pub use group::GroupState;
pub use held::HeldBytes;
pub(crate) use offset::commit_error;
pub(crate) use share::share_heartbeat_error;
pub use share::{SIMPLE_ASSIGNOR, ShareStateTopic, ShareStateView};
pub(crate) use tombstones::{RECORD_OVERHEAD, append_bytes};
pub(crate) use transactions::transactional_commit_error;
pub(crate) use turn::{join_error, sync_error};

use self::append::Pending;
use self::group::Group;
use self::held::Books;
use self::timers::Timers;
use self::tombstones::APPEND_BYTES_MAX;
use self::turn::Turn;
use crate::config::GroupConfig;
use crate::log::{EndMarker, TransactionalProducer};
use crate::record::OffsetsRecord;
use crate::topics::{NoTopics, Topics};

/// The two clocks of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds that only go forward, from any beginning: for timeouts.
    pub monotonic_ms: i64,
    /// Milliseconds since 1970 UTC: for what is stored.
    pub wall_ms: i64,
}

/// Somebody who waits for an answer. The caller chooses the numbers, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientContext {
    /// What the client calls itself (`client.id`).
    pub client_id: String,
    /// The address that it comes from, as Kafka shows it (`/127.0.0.1`).
    pub host: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To JoinGroup.
    Join(JoinGroupResponse),
    /// To SyncGroup.
    Sync(SyncGroupResponse),
    /// To OffsetCommit.
    Commit(OffsetCommitResponse),
    /// To OffsetDelete.
    OffsetDelete(OffsetDeleteResponse),
    /// To the deletion of one group.
    DeleteGroup(ErrorCode),
    /// To TxnOffsetCommit.
    TransactionalCommit(TxnOffsetCommitResponse),
    /// To the end of a transaction.
    EndTransaction(ErrorCode),
    /// To ConsumerGroupHeartbeat.
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    /// To ShareGroupHeartbeat.
    ShareHeartbeat(ShareGroupHeartbeatResponse),
    /// To a change of what a share group knows of its share partitions: its epoch, or why not.
    ShareState(Result<i32, (ErrorCode, String)>),
}

impl Reply {
    /// What is told when a change that the answer speaks of could not be stored.
    fn failed(self, error: ErrorCode) -> Self {
        match self {
            Self::Join(response) => Self::Join(join_error(&response.member_id, error)),
            Self::Sync(_) => Self::Sync(sync_error(error)),
            Self::ConsumerHeartbeat(_) => Self::ConsumerHeartbeat(heartbeat_error(error, None)),
            Self::ShareHeartbeat(_) => Self::ShareHeartbeat(share_heartbeat_error(error, None)),
            Self::ShareState(Ok(_)) => {
                Self::ShareState(Err((error, "The change could not be stored.".to_owned())))
            }
            // These have failures of their own, part by part.
            other => other,
        }
    }
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Answer a waiter; it waits no longer.
    Respond {
        /// Who.
        waiter: Waiter,
        /// What.
        reply: Reply,
    },
    /// Append records to the partition, after all records of earlier commands and in one piece, and tell
    /// [`GroupMachine::appended`].
    Append {
        /// The append's name.
        token: AppendToken,
        /// At least one record.
        records: Vec<OffsetsRecord>,
        /// Whose transaction they belong to.
        producer: Option<TransactionalProducer>,
    },
    /// Append the end of a transaction, in the order of the other appends, and tell [`GroupMachine::appended`].
    AppendMarker {
        /// The append's name.
        token: AppendToken,
        /// The marker.
        marker: EndMarker,
    },
    /// Resolve regular expressions with [`resolve_regexes`] over [`GroupMachine::topics`], where nothing waits for it, and
    /// tell [`GroupMachine::regexes_resolved`]; also when that failed.
    ResolveRegexes {
        /// The group.
        group: Arc<str>,
        /// Its expressions.
        expressions: Vec<String>,
    },
}

/// Makes the random part of member ids.
pub type MemberIds = Box<dyn FnMut() -> Uuid + Send>;

/// How much there is in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineStats {
    /// Groups, empty ones included.
    pub groups: usize,
    /// Members of all groups.
    pub members: usize,
    /// Ids that were given out and not yet joined with.
    pub pending_members: usize,
    /// Partitions with a committed offset, over all groups.
    pub offsets: usize,
    /// Producers with an open transaction in some group.
    pub transactions: usize,
    /// Deadlines set.
    pub timers: usize,
    /// Appends that are not done.
    pub appends: usize,
    /// Bytes of everything that groups hold.
    pub bytes: usize,
}

/// What the groups of a machine share.
struct Shared {
    config: GroupConfig,
    timers: Timers,
    appends: HashMap<AppendToken, Pending>,
    next_append: u64,
    ids: MemberIds,
    /// Bytes of all groups.
    bytes: Books,
    /// Bytes of records that an append may have of what can be cut.
    append_bytes_max: usize,
    topics: Arc<dyn Topics>,
    /// The groups in which a producer's transaction has offsets.
    transactions: HashMap<ProducerId, BTreeSet<Arc<str>>>,
    /// The newest place in the order of the log that an offset has.
    stamp: u64,
}

impl Shared {
    /// How long a member of a consumer group may be silent.
    fn session_timeout_ms(&self, group: &str) -> i32 {
        self.topics.session_timeout_ms(group).unwrap_or(self.config.consumer_session_timeout_ms)
    }

    /// How many more bytes groups may hold (R10).
    fn room(&self) -> usize {
        self.bytes.room(&self.config)
    }

    /// How long a member of a share group may be silent.
    fn share_session_timeout_ms(&self, group: &str) -> i32 {
        self.topics.share_session_timeout_ms(group).unwrap_or(self.config.share_session_timeout_ms)
    }

    const fn next_token(&mut self) -> AppendToken {
        let token = AppendToken(self.next_append);
        self.next_append += 1;
        token
    }

    const fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }
}

/// The groups of one partition of the offsets topic.
pub struct GroupMachine {
    groups: HashMap<Arc<str>, Group>,
    shared: Shared,
    next_expiry_ms: i64,
}

impl fmt::Debug for GroupMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupMachine").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl GroupMachine {
    /// A machine without groups.
    #[must_use]
    pub fn new(config: GroupConfig, ids: MemberIds) -> Self {
        let shared = Shared {
            config,
            timers: Timers::default(),
            appends: HashMap::new(),
            next_append: 0,
            ids,
            bytes: Books::default(),
            append_bytes_max: APPEND_BYTES_MAX,
            topics: Arc::new(NoTopics),
            transactions: HashMap::new(),
            stamp: 0,
        };
        Self { groups: HashMap::new(), shared, next_expiry_ms: i64::MAX }
    }

    /// The machine shares its bound on memory with others, whose groups count in `held` as well.
    #[must_use]
    pub fn sharing(mut self, held: Arc<HeldBytes>) -> Self {
        self.shared.bytes = Books::with(held);
        self
    }

    /// The topic now takes batches of so many bytes. What groups write without being asked for one batch is cut accordingly.
    pub fn set_batch_bytes_max(&mut self, bytes: usize) {
        self.shared.append_bytes_max = append_bytes(bytes);
    }

    /// How much there is.
    #[must_use]
    pub fn stats(&self) -> MachineStats {
        let mut stats = MachineStats {
            groups: self.groups.len(),
            timers: self.shared.timers.len(),
            appends: self.shared.appends.len(),
            bytes: self.shared.bytes.own(),
            transactions: self.shared.transactions.len(),
            ..MachineStats::default()
        };
        for group in self.groups.values() {
            stats.members += group.members.len();
            stats.members += group.consumer().map_or(0, |consumer| consumer.members().len());
            stats.members += group.share().map_or(0, |share| share.members().count());
            stats.pending_members += group.pending.len();
            stats.offsets += group.offsets.iter().map(|(_, partitions)| partitions.len()).sum::<usize>();
        }
        stats
    }

    /// The cluster's topics are now these. Groups notice with their next heartbeat.
    pub fn topics_changed(&mut self, topics: Arc<dyn Topics>) {
        self.shared.topics = topics;
    }

    /// The topics that groups go by.
    #[must_use]
    pub fn topics(&self) -> Arc<dyn Topics> {
        Arc::clone(&self.shared.topics)
    }

    /// The state and epoch of a consumer group; `None` when it is none.
    #[must_use]
    pub fn consumer_group(&self, id: &str) -> Option<(ConsumerGroupState, i32)> {
        let consumer = self.groups.get(id)?.consumer()?;
        Some((consumer.state(), consumer.epoch()))
    }

    /// The state and generation of a classic group.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<(GroupState, i32)> {
        let group = self.groups.get(id).filter(|group| group.consumer().is_none())?;
        Some((group.state, group.generation))
    }

    /// Everybody who waits for an answer.
    #[must_use]
    pub fn waiters(&self) -> Vec<Waiter> {
        let members = self.groups.values().flat_map(|group| group.members.values());
        let waiting = members.flat_map(|member| [member.awaiting_join, member.awaiting_sync]);
        let appending = self.shared.appends.values().flat_map(Pending::waiters);
        let storing = self.groups.values().flat_map(|group| group.store.waiters());
        let mut waiters: Vec<Waiter> = waiting.flatten().chain(appending).chain(storing).collect();
        waiters.sort_unstable();
        waiters.dedup();
        waiters
    }

    /// When [`GroupMachine::tick`] is due, in monotonic milliseconds.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let expiry = (self.next_expiry_ms != i64::MAX).then_some(self.next_expiry_ms);
        self.shared.timers.next_ms().into_iter().chain(expiry).min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Command>) {
        let bound = self.shared.timers.bound();
        while let Some(key) = self.shared.timers.pop_due(now.monotonic_ms, bound) {
            let group = Arc::clone(&key.group);
            self.turn(&group, now, out, |turn| turn.on_timer(&key.kind));
        }
        if now.monotonic_ms >= self.next_expiry_ms {
            let interval = self.shared.config.offsets_retention_check_interval_ms.max(1_000);
            self.next_expiry_ms = now.monotonic_ms.saturating_add(interval);
            self.expire_offsets(now, out);
        }
    }

    /// Takes a heartbeat.
    pub fn heartbeat(
        &mut self,
        now: Now,
        request: &HeartbeatRequest,
        out: &mut Vec<Command>,
    ) -> HeartbeatResponse {
        let error = if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else {
            self.turn(&request.group_id, now, out, |turn| turn.heartbeat(request))
                .unwrap_or(ErrorCode::UnknownMemberId)
        };
        HeartbeatResponse { error_code: error.code(), ..HeartbeatResponse::default() }
    }

    /// Answers everybody with `error`: this broker does not coordinate the partition any more. The machine is then
    /// of no use; appends that are in flight come to nothing here.
    pub fn unload(&mut self, error: ErrorCode, out: &mut Vec<Command>) {
        for (_, mut group) in self.groups.drain() {
            for (id, member) in std::mem::take(&mut group.members) {
                turn::fail_waiters(&id, &member, error, out);
            }
            group.store.fail(error, out);
        }
        for (_, pending) in self.shared.appends.drain() {
            out.extend(pending.into_failure(error));
        }
        self.shared.timers = Timers::default();
        self.shared.transactions.clear();
        self.shared.bytes.clear();
        self.next_expiry_ms = i64::MAX;
    }

    /// Lets one group act, and keeps the books afterwards. `None` when there is no such group.
    fn turn<R>(
        &mut self,
        id: &str,
        now: Now,
        out: &mut Vec<Command>,
        act: impl FnOnce(&mut Turn<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        let before = group.size_in_bytes();
        let offsets_before = group.offsets.size_in_bytes();
        let result = act(&mut Turn { group, shared: &mut self.shared, now, out, offsets_before });
        let after = group.size_in_bytes();
        self.shared.bytes.take(before);
        if group.is_nothing() {
            self.groups.remove(id);
        } else {
            self.shared.bytes.add(after);
        }
        Some(result)
    }

    /// Makes a group if there is none; false when there may be no more.
    fn ensure_group(&mut self, id: &str, now: Now) -> bool {
        if self.groups.contains_key(id) {
            return true;
        }
        if self.groups.len() >= self.shared.config.groups_max || self.shared.room() == 0 {
            tracing::warn!(group = id, groups = self.groups.len(), "no room for another group");
            return false;
        }
        let group = Group::new(Arc::from(id), now.wall_ms);
        self.shared.bytes.add(group.size_in_bytes());
        self.groups.insert(Arc::clone(&group.id), group);
        true
    }
}
