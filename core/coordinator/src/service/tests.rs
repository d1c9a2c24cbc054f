//! The driver over a log in memory that can be slow, and can fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Term, TopicId, TopicPartition};
use towpath_wire::join_group::JoinGroupRequestProtocol;
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};

use towpath_wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use towpath_wire::{ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, TxnOffsetCommitRequest};

use super::*;
use crate::log::{CoordinatorBatch, EndMarker, LoadedChunk, LoadedEntry, TransactionalProducer};
use crate::topics::TopicInfo;

/// The offsets topic in memory.
struct MemoryLog {
    exists: AtomicBool,
    leads: AtomicBool,
    term: AtomicU64,
    /// Whether what was read is committed.
    committed: watch::Sender<bool>,
    records: Mutex<HashMap<i32, Vec<LoadedEntry>>>,
    appends: AtomicUsize,
    /// One permit per append or read that may finish.
    permits: Semaphore,
    failure: Mutex<Option<fn() -> CoordinatorLogError>>,
}

impl MemoryLog {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            exists: AtomicBool::new(true),
            leads: AtomicBool::new(true),
            term: AtomicU64::new(1),
            committed: watch::Sender::new(true),
            records: Mutex::default(),
            appends: AtomicUsize::new(0),
            permits: Semaphore::new(1_000_000),
            failure: Mutex::new(None),
        })
    }

    /// From now on nothing finishes but for `permits` operations.
    fn hold(&self) {
        self.permits.forget_permits(usize::MAX >> 4);
    }

    async fn pass(&self) -> Result<(), CoordinatorLogError> {
        let permit =
            self.permits.acquire().await.map_err(|error| CoordinatorLogError::Storage(error.into()))?;
        permit.forget();
        match *self.failure.lock() {
            Some(failure) => Err(failure()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl CoordinatorLog for MemoryLog {
    fn partition_count(&self) -> Option<i32> {
        self.exists.load(Ordering::SeqCst).then_some(2)
    }

    async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        self.exists.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn batch_bytes_max(&self, _: i32) -> usize {
        1024 * 1024
    }

    fn term(&self, _: i32) -> Option<Term> {
        let number = self.term.load(Ordering::SeqCst);
        self.leads.load(Ordering::SeqCst).then_some(Term { leader_epoch: LeaderEpoch::new(0), number })
    }

    async fn append(
        &self,
        partition: i32,
        term: Term,
        batch: CoordinatorBatch<'_>,
    ) -> Result<(), CoordinatorLogError> {
        self.pass().await?;
        if self.term(partition) != Some(term) {
            return Err(CoordinatorLogError::NotLeader { partition });
        }
        self.appends.fetch_add(1, Ordering::SeqCst);
        let mut log = self.records.lock();
        let log = log.entry(partition).or_default();
        let (records, producer) = match batch {
            CoordinatorBatch::Records { records, producer } => (records, producer),
            CoordinatorBatch::Marker(marker) => {
                let offset = Offset::new(log.len() as i64);
                log.push(LoadedEntry::Marker { offset, producer: marker.producer, commit: marker.commit });
                return Ok(());
            }
        };
        for record in records {
            log.push(LoadedEntry::Record {
                offset: Offset::new(log.len() as i64),
                key: Some(record.key.clone()),
                value: record.value.clone(),
                producer,
            });
        }
        Ok(())
    }

    async fn committed(&self, _: i32, _: Term, _: Offset) -> Result<(), CoordinatorLogError> {
        let mut committed = self.committed.subscribe();
        let waited = committed.wait_for(|committed| *committed).await;
        waited.map(|_| ()).map_err(|error| CoordinatorLogError::Storage(error.into()))
    }

    async fn read(
        &self,
        partition: i32,
        _: Term,
        from: Offset,
        _: usize,
    ) -> Result<LoadedChunk, CoordinatorLogError> {
        self.pass().await?;
        let log = self.records.lock();
        let all = log.get(&partition).map_or(&[][..], Vec::as_slice);
        // Three records at a time, so that loading takes several reads.
        let from = from.get() as usize;
        let end = (from + 3).min(all.len());
        Ok(LoadedChunk {
            entries: all[from..end].to_vec(),
            next_offset: Offset::new(end as i64),
            at_end: end == all.len(),
        })
    }
}

/// A clock that stands still.
struct Fixed(AtomicI64);

impl Clock for Fixed {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn coordinator(log: &Arc<MemoryLog>) -> GroupCoordinator {
    let log: Arc<dyn CoordinatorLog> = Arc::clone(log) as _;
    GroupCoordinator::with_clock(
        GroupConfig::default(),
        log,
        Arc::new(Fixed(AtomicI64::new(1_700_000_000_000))),
    )
}

async fn active(log: &Arc<MemoryLog>) -> GroupCoordinator {
    let coordinator = coordinator(log);
    coordinator.start();
    settle(&coordinator, PartitionState::Active).await;
    coordinator
}

async fn settle(coordinator: &GroupCoordinator, state: PartitionState) {
    for _ in 0..10_000 {
        if coordinator.status().iter().all(|status| status.state == state) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{:?}", coordinator.status());
}

fn commit(group: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn error_of(response: &OffsetCommitResponse) -> ErrorCode {
    ErrorCode::from_code(response.topics[0].partitions[0].error_code)
}

fn committed(coordinator: &GroupCoordinator, group: &str) -> i64 {
    let request = OffsetFetchRequest {
        group_id: group.into(),
        topics: Some(vec![towpath_wire::offset_fetch::OffsetFetchRequestTopic {
            name: "t".into(),
            partition_indexes: vec![0],
        }]),
        ..Default::default()
    };
    let response = coordinator.fetch_offsets(request, 5);
    assert_eq!(response.error_code, 0);
    response.topics[0].partitions[0].committed_offset
}

fn joining(group: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_there_after_a_restart() {
    let log = MemoryLog::new();
    let first = active(&log).await;
    for group in ["a", "b", "c", "d", "e"] {
        for offset in [1, 2, 3] {
            assert_eq!(error_of(&first.commit_offsets(commit(group, offset), 9).await), ErrorCode::None);
        }
    }
    first.shutdown().await;
    assert_eq!(error_of(&first.commit_offsets(commit("a", 9), 9).await), ErrorCode::CoordinatorNotAvailable);
    let second = active(&log).await;
    for group in ["a", "b", "c", "d", "e"] {
        assert_eq!(committed(&second, group), 3);
    }
    assert_eq!(second.list_groups(&ListGroupsRequest::default()).groups.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn commits_that_come_together_share_an_append() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    log.hold();
    let tasks: Vec<_> = (0..100)
        .map(|offset| {
            let coordinator = coordinator.clone();
            tokio::spawn(async move { coordinator.commit_offsets(commit("a", offset), 9).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(committed(&coordinator, "a"), -1, "nothing is acknowledged or seen before it is in the log");
    assert!(tasks.iter().all(|task| !task.is_finished()));
    log.permits.add_permits(2);
    for task in tasks {
        assert_eq!(error_of(&task.await.unwrap()), ErrorCode::None);
    }
    assert!(log.appends.load(Ordering::SeqCst) <= 2, "at most the first alone, the others together");
    assert_eq!(committed(&coordinator, "a"), 99);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_read_clients_are_told_to_wait() {
    let log = MemoryLog::new();
    log.hold();
    let coordinator = coordinator(&log);
    coordinator.start();
    let loading = ErrorCode::CoordinatorLoadInProgress;
    assert_eq!(error_of(&coordinator.commit_offsets(commit("a", 1), 9).await), loading);
    let client = ClientContext::default();
    let joined = coordinator.join_group(&client, joining("a", ""), 5).await;
    assert_eq!((joined.error_code, joined.protocol_name.as_deref()), (loading.code(), Some("")));
    assert_eq!(coordinator.list_groups(&ListGroupsRequest::default()).error_code, loading.code());
    let heartbeat = HeartbeatRequest { group_id: "a".into(), ..Default::default() };
    assert_eq!(coordinator.heartbeat(&heartbeat).error_code, 0, "its session begins anew");
    let sync = SyncGroupRequest { group_id: "a".into(), ..Default::default() };
    assert_eq!(coordinator.sync_group(sync).await.error_code, ErrorCode::RebalanceInProgress.code());
    let mut request = OffsetFetchRequest { group_id: "a".into(), ..Default::default() };
    request.topics = Some(vec![towpath_wire::offset_fetch::OffsetFetchRequestTopic {
        name: "t".into(),
        partition_indexes: vec![4],
    }]);
    assert_eq!(coordinator.fetch_offsets(request.clone(), 7).error_code, loading.code());
    let oldest = coordinator.fetch_offsets(request, 1);
    assert_eq!(oldest.topics[0].partitions[0].error_code, loading.code());
    log.permits.add_permits(100);
    settle(&coordinator, PartitionState::Active).await;
    assert_eq!(error_of(&coordinator.commit_offsets(commit("a", 1), 9).await), ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_before_what_was_read_is_committed() {
    let log = MemoryLog::new();
    let first = active(&log).await;
    first.commit_offsets(commit("a", 1), 9).await;
    first.shutdown().await;
    log.committed.send_replace(false);
    let second = coordinator(&log);
    second.start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let request = OffsetFetchRequest { group_id: "a".into(), ..Default::default() };
    assert_eq!(
        second.fetch_offsets(request, 5).error_code,
        ErrorCode::CoordinatorLoadInProgress.code(),
        "what the last leader wrote may be cut off yet"
    );
    log.committed.send_replace(true);
    settle(&second, PartitionState::Active).await;
    assert_eq!(committed(&second, "a"), 1);
    log.committed.send_replace(false);
    let third = coordinator(&log);
    third.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    third.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_term_decided_is_not_written_in_a_later_one() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    coordinator.commit_offsets(commit("a", 1), 9).await;
    log.hold();
    let late = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.commit_offsets(commit("a", 2), 9).await })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    // Somebody else has led meanwhile.
    log.term.fetch_add(1, Ordering::SeqCst);
    coordinator.start();
    log.permits.add_permits(1_000);
    assert_eq!(error_of(&late.await.unwrap()), ErrorCode::NotCoordinator);
    settle(&coordinator, PartitionState::Active).await;
    assert_eq!(committed(&coordinator, "a"), 1, "and it is read anew");
    assert_eq!(error_of(&coordinator.commit_offsets(commit("a", 3), 9).await), ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn a_bad_record_stops_the_loading_loudly() {
    let log = MemoryLog::new();
    let first = active(&log).await;
    first.commit_offsets(commit("a", 1), 9).await;
    first.shutdown().await;
    for records in log.records.lock().values_mut() {
        let offset = Offset::new(records.len() as i64);
        let key = Some(Bytes::from_static(b"\x00\x63"));
        records.push(LoadedEntry::Record { offset, key, value: None, producer: None });
    }
    let second = coordinator(&log);
    second.start();
    let id = second.partition_of("a").unwrap();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let status = second.status().into_iter().find(|status| status.partition == id).unwrap();
    assert_eq!(status.state, PartitionState::Failed);
    let error = status.error.unwrap();
    assert!(error.contains("offset 1") && error.contains("kind 99"), "{error}");
    let refused = second.commit_offsets(commit("a", 2), 9).await;
    assert_eq!(error_of(&refused), ErrorCode::CoordinatorNotAvailable);
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_tried_again_and_a_corrupt_log_is_not() {
    let log = MemoryLog::new();
    *log.failure.lock() = Some(|| CoordinatorLogError::Storage("the disk sulks".into()));
    let first = coordinator(&log);
    first.start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(first.status().iter().all(|status| status.state == PartitionState::Loading));
    *log.failure.lock() = None;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(first.status().iter().all(|status| status.state == PartitionState::Active));
    *log.failure.lock() = Some(|| CoordinatorLogError::Corrupt { offset: 5, reason: "a flipped bit".into() });
    let second = coordinator(&log);
    second.start();
    settle(&second, PartitionState::Failed).await;
    assert!(second.status()[0].error.as_ref().unwrap().contains("flipped bit"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_append_is_told_in_kafkas_words() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    let failures: [(fn() -> CoordinatorLogError, ErrorCode); 4] = [
        (|| CoordinatorLogError::NotEnoughReplicas, ErrorCode::CoordinatorNotAvailable),
        (|| CoordinatorLogError::TimedOut, ErrorCode::CoordinatorNotAvailable),
        (|| CoordinatorLogError::NotLeader { partition: 0 }, ErrorCode::NotCoordinator),
        (|| CoordinatorLogError::TooLarge { bytes: 1 }, ErrorCode::UnknownServerError),
    ];
    for (failure, error) in failures {
        *log.failure.lock() = Some(failure);
        assert_eq!(error_of(&coordinator.commit_offsets(commit("a", 1), 9).await), error);
    }
    *log.failure.lock() = None;
    assert_eq!(committed(&coordinator, "a"), -1);
    assert_eq!(coordinator.status().iter().map(|status| status.stats.groups).sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn time_passes_by_itself() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    let client = ClientContext { client_id: "c".into(), host: "/h".into() };
    let given = coordinator.join_group(&client, joining("a", ""), 9).await;
    assert_eq!(given.error_code, ErrorCode::MemberIdRequired.code());
    let joined = coordinator.join_group(&client, joining("a", &given.member_id), 9).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    let heartbeat = HeartbeatRequest {
        group_id: "a".into(),
        generation_id: 1,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    assert_eq!(coordinator.heartbeat(&heartbeat).error_code, 0);
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    assert_eq!(coordinator.heartbeat(&heartbeat).error_code, 0);
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    assert_eq!(coordinator.heartbeat(&heartbeat).error_code, ErrorCode::UnknownMemberId.code());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_answered_when_the_partition_goes() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    let client = ClientContext::default();
    let first = coordinator.join_group(&client, joining("a", ""), 3).await;
    assert_eq!(first.error_code, 0);
    let waiting = {
        let coordinator = coordinator.clone();
        tokio::spawn(
            async move { coordinator.join_group(&ClientContext::default(), joining("a", ""), 3).await },
        )
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    log.leads.store(false, Ordering::SeqCst);
    let refused = coordinator.commit_offsets(commit("a", 1), 9).await;
    assert_eq!(error_of(&refused), ErrorCode::NotCoordinator);
    assert_eq!(waiting.await.unwrap().error_code, ErrorCode::NotCoordinator.code());
    let listed = coordinator.list_groups(&ListGroupsRequest::default());
    assert_eq!((listed.error_code, listed.groups.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_log_finish() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    log.hold();
    let commits: Vec<_> = (0..5)
        .map(|offset| {
            let coordinator = coordinator.clone();
            tokio::spawn(async move { coordinator.commit_offsets(commit("a", offset), 9).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let stop = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.shutdown().await })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    log.permits.add_permits(2);
    stop.await.unwrap();
    for commit in commits {
        assert_eq!(error_of(&commit.await.unwrap()), ErrorCode::None);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_topic_nobody_coordinates() {
    let log = MemoryLog::new();
    log.exists.store(false, Ordering::SeqCst);
    let coordinator = coordinator(&log);
    coordinator.start();
    assert_eq!(coordinator.partition_of("a"), None);
    let refused = coordinator.commit_offsets(commit("a", 1), 9).await;
    assert_eq!(error_of(&refused), ErrorCode::CoordinatorNotAvailable);
    coordinator.ensure_topic().await.unwrap();
    assert!(coordinator.partition_of("a").is_some());
    coordinator.partitions_deleted(&[TopicPartition::new("t".parse().unwrap(), 0)]);
}

#[tokio::test(start_paused = true)]
async fn names_are_needed_where_kafka_needs_them() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    let invalid = ErrorCode::InvalidGroupId.code();
    let joined = coordinator.join_group(&ClientContext::default(), joining("", ""), 9).await;
    assert_eq!(joined.error_code, invalid);
    assert_eq!(coordinator.sync_group(SyncGroupRequest::default()).await.error_code, invalid);
    assert_eq!(coordinator.heartbeat(&HeartbeatRequest::default()).error_code, invalid);
    assert_eq!(coordinator.leave_group(LeaveGroupRequest::default(), 5).error_code, invalid);
    assert_eq!(coordinator.leave_group(LeaveGroupRequest::default(), 0).error_code, invalid);
    assert_eq!(coordinator.delete_offsets(OffsetDeleteRequest::default()).await.error_code, invalid);
    // Offsets may be kept under an empty name: old clients without a group did.
    assert_eq!(error_of(&coordinator.commit_offsets(commit("", 4), 9).await), ErrorCode::None);
    assert_eq!(committed(&coordinator, ""), 4);
    let deleted = coordinator.delete_groups(&DeleteGroupsRequest { groups_names: vec![String::new()] }).await;
    assert_eq!(deleted.results[0].error_code, 0);
}

/// One topic with four partitions.
#[derive(Debug)]
struct OneTopic;

impl Topics for OneTopic {
    fn epoch(&self) -> i64 {
        1
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        let id = TopicId::new(uuid::Uuid::from_u128(1));
        (name == "orders").then(|| TopicInfo { id, name: Arc::from("orders"), partitions: 4 })
    }

    fn by_id(&self, _: TopicId) -> Option<TopicInfo> {
        self.by_name("orders")
    }

    fn names(&self) -> Vec<Arc<str>> {
        vec![Arc::from("orders")]
    }

    fn racks(&self, _: TopicId, _: i32) -> Vec<Arc<str>> {
        Vec::new()
    }
}

fn beat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: if epoch == 0 { 60_000 } else { -1 },
        subscribed_topic_regex: (epoch == 0).then(|| "ord.*".to_owned()),
        topic_partitions: (epoch == 0).then(Vec::new),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn consumer_groups_are_served_and_their_expressions_resolved_beside() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    let topics: Arc<dyn Topics> = Arc::new(OneTopic);
    coordinator.topics_changed(&topics);
    let client = ClientContext { client_id: "c".into(), host: "/h".into() };
    let joined = coordinator.consumer_group_heartbeat(&client, beat("a", 0), 1).await;
    assert_eq!((joined.error_code, joined.member_epoch), (0, 1));
    // The expression is resolved on another thread, in real time.
    let mut epoch = joined.member_epoch;
    for _ in 0..1_000 {
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
        let beaten = coordinator.consumer_group_heartbeat(&client, beat("a", epoch), 1).await;
        assert_eq!(beaten.error_code, 0);
        epoch = beaten.member_epoch;
        if let Some(assignment) = beaten.assignment {
            assert_eq!(assignment.topic_partitions[0].partitions, [0, 1, 2, 3]);
            break;
        }
    }
    assert_eq!(epoch, 2);
    coordinator.shutdown().await;
    let second = coordinator_of(&log, Some(&topics)).await;
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".into(), "nobody".into(), String::new()],
        ..Default::default()
    };
    let described = second.consumer_group_describe(&request).groups;
    assert_eq!((described[0].group_state.as_str(), described[0].group_epoch), ("Stable", 2));
    assert_eq!(described[0].members[0].assignment.topic_partitions[0].topic_name, "orders");
    assert_eq!(described[1].error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(described[2].error_code, ErrorCode::InvalidGroupId.code());
    let nameless = ConsumerGroupHeartbeatRequest { group_id: String::new(), ..beat("a", 0) };
    let refused = second.consumer_group_heartbeat(&client, nameless, 1).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
    second.shutdown().await;
    let late = second.consumer_group_heartbeat(&client, beat("a", 2), 1).await;
    assert_eq!(late.error_code, ErrorCode::CoordinatorNotAvailable.code());
}

async fn coordinator_of(log: &Arc<MemoryLog>, topics: Option<&Arc<dyn Topics>>) -> GroupCoordinator {
    let coordinator = coordinator(log);
    topics.into_iter().for_each(|topics| coordinator.topics_changed(topics));
    coordinator.start();
    settle(&coordinator, PartitionState::Active).await;
    coordinator
}

fn in_transaction(offset: i64) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: "t".into(),
        group_id: "a".into(),
        producer_id: 7,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_of_transactions_are_written_apart_and_ended_by_markers() {
    let log = MemoryLog::new();
    let coordinator = active(&log).await;
    coordinator.commit_offsets(commit("a", 1), 9).await;
    let producer = TransactionalProducer { id: ProducerId::new(7), epoch: ProducerEpoch::new(0) };
    let marker = move |commit| EndMarker { producer, coordinator_epoch: 0, commit, bumps_epoch: true };
    let partition = coordinator.partition_of("a").unwrap();
    // All at once, behind a slow log: each goes as a batch of its own, in its place.
    log.hold();
    let waiting: Vec<_> = [(5, true), (6, false)]
        .into_iter()
        .map(|(offset, ends_well)| {
            let coordinator = coordinator.clone();
            tokio::spawn(async move {
                let plain = coordinator.commit_offsets(commit("b", 1), 9);
                let inside = coordinator.txn_offset_commit(in_transaction(offset));
                let ended = coordinator.complete_transaction(partition, marker(ends_well));
                let (_, inside, ended) = tokio::join!(plain, inside, ended);
                (inside.topics[0].partitions[0].error_code, ended)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    log.permits.add_permits(1_000_000);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), (0, ErrorCode::None));
    }
    assert_eq!(committed(&coordinator, "a"), 5);
    coordinator.txn_offset_commit(in_transaction(9)).await;
    let request = |require_stable| OffsetFetchRequest {
        group_id: "a".into(),
        topics: None,
        require_stable,
        ..Default::default()
    };
    let error = |require_stable| {
        coordinator.fetch_offsets(request(require_stable), 7).topics[0].partitions[0].error_code
    };
    assert_eq!((error(false), error(true)), (0, ErrorCode::UnstableOffsetCommit.code()));
    coordinator.shutdown().await;
    let second = coordinator_of(&log, None).await;
    assert_eq!(committed(&second, "a"), 5);
    assert_eq!(second.complete_transaction(partition, marker(true)).await, ErrorCode::None);
    assert_eq!(committed(&second, "a"), 9);
    let nameless = TxnOffsetCommitRequest { group_id: String::new(), ..in_transaction(1) };
    let refused = second.txn_offset_commit(nameless).await;
    assert_eq!(refused.topics[0].partitions[0].error_code, ErrorCode::InvalidGroupId.code());
    second.shutdown().await;
    let late = second.complete_transaction(partition, marker(true)).await;
    assert_eq!(late, ErrorCode::CoordinatorNotAvailable);
}
