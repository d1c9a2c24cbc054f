//! Tests of the machine: a world around it, and one file per matter.

mod admin;
mod bounds;
mod commits;
mod consumer_offsets;
mod consumer_simulation;
mod consumers;
mod membership;
mod migrations;
mod rebalances;
mod regexes;
mod shares;
mod simulation;
mod statics;
mod topics;
mod transactions;

use std::collections::{HashMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use towpath_types::Offset;
use towpath_wire::join_group::JoinGroupRequestProtocol;
use towpath_wire::leave_group::MemberIdentity;
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use towpath_wire::sync_group::SyncGroupRequestAssignment;
use towpath_wire::{
    ConsumerProtocolSubscription, ErrorCode, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, Message, OffsetCommitRequest, OffsetCommitResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use uuid::Uuid;

use super::*;
use crate::log::LoadedEntry;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;
const WALL_MS: i64 = 1_700_000_000_000;

/// A machine with a clock, a log and somebody who remembers the answers.
struct World {
    machine: GroupMachine,
    now_ms: i64,
    next_waiter: u64,
    replies: HashMap<Waiter, Reply>,
    appends: VecDeque<(AppendToken, Appended)>,
    /// What is committed.
    log: Vec<LoadedEntry>,
    /// Groups whose regular expressions are to be resolved.
    resolving: VecDeque<(Arc<str>, Vec<String>)>,
    /// Whether appends are committed as soon as they are asked for.
    instant_log: bool,
}

/// What goes to the log in one piece.
#[derive(Debug, Clone)]
enum Appended {
    Records(Vec<OffsetsRecord>, Option<TransactionalProducer>),
    Marker(EndMarker),
}

impl Appended {
    /// The entries that stand in the log for it, behind those that are there.
    fn write_to(self, log: &mut Vec<LoadedEntry>) {
        match self {
            Self::Records(records, producer) => {
                for record in records {
                    log.push(LoadedEntry::Record {
                        offset: Offset::new(log.len() as i64),
                        key: Some(record.key),
                        value: record.value,
                        producer,
                    });
                }
            }
            Self::Marker(marker) => log.push(LoadedEntry::Marker {
                offset: Offset::new(log.len() as i64),
                producer: marker.producer,
                commit: marker.commit,
            }),
        }
    }
}

/// The keys and values of the records in a log.
fn records_of(log: &[LoadedEntry]) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
    log.iter().filter_map(|entry| match entry {
        LoadedEntry::Record { key, value, .. } => Some((key.as_ref().unwrap(), value.as_ref())),
        LoadedEntry::Marker { .. } => None,
    })
}

fn ids() -> MemberIds {
    let mut next = 0u128;
    Box::new(move || {
        next += 1;
        Uuid::from_u128(next)
    })
}

fn code(error: ErrorCode) -> i16 {
    error.code()
}

/// What a consumer says about itself.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    ConsumerProtocolSubscription { topics, ..Default::default() }.encode(&mut bytes, 1).unwrap();
    bytes.freeze()
}

fn protocols(names: &[&str]) -> Vec<JoinGroupRequestProtocol> {
    let protocol = |name: &&str| JoinGroupRequestProtocol {
        name: (*name).to_owned(),
        metadata: subscription(&["orders"]),
    };
    names.iter().map(protocol).collect()
}

fn joining(member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: protocols(&["range", "roundrobin"]),
        ..Default::default()
    }
}

fn static_joining(member: &str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(instance.into()), ..joining(member) }
}

fn committing(member: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "orders".into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_metadata: Some("note".into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

impl World {
    fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    fn with(config: GroupConfig) -> Self {
        let mut world = Self {
            machine: GroupMachine::new(config, ids()),
            now_ms: 0,
            next_waiter: 0,
            replies: HashMap::new(),
            appends: VecDeque::new(),
            log: Vec::new(),
            resolving: VecDeque::new(),
            instant_log: true,
        };
        world.act(|machine, now, out| machine.loaded(now, out));
        world
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms }
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut GroupMachine, Now, &mut Vec<Command>) -> R) -> R {
        let mut out = Vec::new();
        let now = self.now();
        let result = act(&mut self.machine, now, &mut out);
        for command in out {
            match command {
                Command::Respond { waiter, reply } => {
                    assert!(self.replies.insert(waiter, reply).is_none(), "{waiter:?} is answered twice");
                }
                Command::Append { token, records, producer } => {
                    self.appends.push_back((token, Appended::Records(records, producer)));
                }
                Command::AppendMarker { token, marker } => {
                    self.appends.push_back((token, Appended::Marker(marker)));
                }
                Command::ResolveRegexes { group, expressions } => {
                    self.resolving.push_back((group, expressions));
                }
            }
        }
        if self.instant_log {
            self.commit_appends();
        }
        result
    }

    fn commit_appends(&mut self) {
        while let Some((token, appended)) = self.appends.pop_front() {
            appended.write_to(&mut self.log);
            self.act(|machine, now, out| machine.appended(now, token, Ok(()), out));
        }
    }

    fn fail_appends(&mut self, error: ErrorCode) {
        while let Some((token, _)) = self.appends.pop_front() {
            self.act(|machine, now, out| machine.appended(now, token, Err(error), out));
        }
    }

    fn ask(&mut self, act: impl FnOnce(&mut GroupMachine, Now, Waiter, &mut Vec<Command>)) -> Waiter {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.act(|machine, now, out| act(machine, now, waiter, out));
        waiter
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, milliseconds: i64) {
        let end = self.now_ms + milliseconds;
        while let Some(deadline) = self.machine.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            self.act(|machine, now, out| machine.tick(now, out));
        }
        self.now_ms = end;
    }

    fn join_with(&mut self, request: JoinGroupRequest, version: i16) -> Waiter {
        let client = ClientContext { client_id: "client".into(), host: "/127.0.0.1".into() };
        self.ask(|machine, now, waiter, out| machine.join_group(now, waiter, &client, request, version, out))
    }

    fn join(&mut self, request: JoinGroupRequest) -> Waiter {
        self.join_with(request, 9)
    }

    fn joined(&self, waiter: Waiter) -> &JoinGroupResponse {
        match self.replies.get(&waiter) {
            Some(Reply::Join(response)) => response,
            other => panic!("no answer to JoinGroup, but {other:?}"),
        }
    }

    /// The member id that a new dynamic member is given (KIP-394).
    fn new_id(&mut self) -> String {
        let waiter = self.join(joining(""));
        let response = self.joined(waiter);
        assert_eq!(response.error_code, code(ErrorCode::MemberIdRequired));
        response.member_id.clone()
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Waiter {
        let assignments = assignments.iter().map(|(member, bytes)| SyncGroupRequestAssignment {
            member_id: (*member).to_owned(),
            assignment: Bytes::from_static(bytes.as_bytes()),
        });
        let request = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: member.into(),
            assignments: assignments.collect(),
            ..Default::default()
        };
        self.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out))
    }

    fn synced(&self, waiter: Waiter) -> &SyncGroupResponse {
        match self.replies.get(&waiter) {
            Some(Reply::Sync(response)) => response,
            other => panic!("no answer to SyncGroup, but {other:?}"),
        }
    }

    fn sync_error(&self, waiter: Waiter) -> ErrorCode {
        ErrorCode::from_code(self.synced(waiter).error_code)
    }

    fn join_error(&self, waiter: Waiter) -> ErrorCode {
        ErrorCode::from_code(self.joined(waiter).error_code)
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: member.into(),
            ..Default::default()
        };
        ErrorCode::from_code(self.act(|machine, now, out| machine.heartbeat(now, &request, out)).error_code)
    }

    fn leave(&mut self, member: &str, instance: Option<&str>) -> ErrorCode {
        let request = LeaveGroupRequest {
            group_id: "g".into(),
            members: vec![MemberIdentity {
                member_id: member.into(),
                group_instance_id: instance.map(str::to_owned),
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = self.act(|machine, now, out| machine.leave_group(now, &request, out));
        assert_eq!(response.error_code, 0);
        ErrorCode::from_code(response.members[0].error_code)
    }

    fn commit(&mut self, request: &OffsetCommitRequest) -> Waiter {
        self.commit_with(request, 10)
    }

    fn commit_with(&mut self, request: &OffsetCommitRequest, version: i16) -> Waiter {
        self.ask(|machine, now, waiter, out| machine.commit_offsets(now, waiter, request, version, out))
    }

    fn committed(&self, waiter: Waiter) -> &OffsetCommitResponse {
        match self.replies.get(&waiter) {
            Some(Reply::Commit(response)) => response,
            other => panic!("no answer to OffsetCommit, but {other:?}"),
        }
    }

    fn commit_error(&self, waiter: Waiter) -> ErrorCode {
        ErrorCode::from_code(self.committed(waiter).topics[0].partitions[0].error_code)
    }

    /// The committed offset of a partition of the group.
    fn fetch(&self, topic: &str, partition: i32) -> i64 {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: vec![partition],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let response = self.machine.fetch_offsets(&request, false);
        assert_eq!(response.error_code, 0);
        response.topics[0].partitions[0].committed_offset
    }

    fn state(&self) -> Option<GroupState> {
        self.machine.group("g").map(|(state, _)| state)
    }

    /// A stable group of `count` dynamic members, the leader first, and its generation.
    fn stable(&mut self, count: usize) -> (Vec<String>, i32) {
        let ids: Vec<_> = (0..count).map(|_| self.new_id()).collect();
        let first = self.join(joining(&ids[0]));
        assert_eq!(self.joined(first).generation_id, 1);
        let others: Vec<_> = ids[1..].iter().map(|id| self.join(joining(id))).collect();
        let again = if others.is_empty() { first } else { self.join(joining(&ids[0])) };
        let response = self.joined(again).clone();
        assert_eq!(response.error_code, 0);
        assert_eq!(response.leader, ids[0]);
        assert_eq!(response.members.len(), count);
        let syncs: Vec<_> = ids.iter().skip(1).map(|id| self.sync(id, response.generation_id, &[])).collect();
        let assignments: Vec<(&str, &'static str)> = ids.iter().map(|id| (id.as_str(), "part")).collect();
        let leader = self.sync(&ids[0], response.generation_id, &assignments);
        for waiter in syncs.into_iter().chain([leader]) {
            assert_eq!(self.synced(waiter).assignment, "part");
        }
        assert_eq!(self.state(), Some(GroupState::Stable));
        (ids, response.generation_id)
    }

    /// A machine that has loaded what this one's log holds.
    fn restarted(&self) -> Self {
        let mut world = Self::new();
        world.now_ms = self.now_ms;
        world.machine.topics_changed(self.machine.topics());
        for entry in &self.log {
            world.machine.replay(entry).unwrap();
        }
        world.log.clone_from(&self.log);
        world.act(|machine, now, out| machine.loaded(now, out));
        world
    }
}
