//! Consumers against a cluster that does what it is told: nearer replicas, fenced members, aborted data.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod script;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use script::{Script, nodes};
use towpath_client::{
    Client, ClientError, Consumer, ConsumerConfig, ConsumerEvent, ErrorCode, GroupKind, OffsetReset, StartAt,
    Subscription,
};
use towpath_record::{BatchBuilder, Compression};
use towpath_types::{GroupId, LeaderEpoch, Offset, TopicName, TopicPartition};
use towpath_wire::messages::consumer_group_heartbeat::{Assignment, TopicPartitions};
use towpath_wire::messages::fetch::{FetchableTopicResponse, PartitionData};
use towpath_wire::messages::find_coordinator::Coordinator as Found;
use towpath_wire::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};
use towpath_wire::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use towpath_wire::messages::offset_fetch::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use towpath_wire::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FetchRequest, FetchResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};

const TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(77);

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new(topic(), 0)
}

fn metadata(request: &MetadataRequest) -> MetadataResponse {
    let topic = |name: Option<String>| MetadataResponseTopic {
        name: Some(name.unwrap_or_else(|| "t".to_owned())),
        topic_id: TOPIC_ID,
        partitions: vec![MetadataResponsePartition {
            leader_id: 1,
            leader_epoch: 0,
            replica_nodes: vec![1, 2],
            ..Default::default()
        }],
        ..Default::default()
    };
    let wanted = request.topics.iter().flatten().map(|topic| topic.name.clone());
    MetadataResponse { topics: wanted.map(topic).collect(), ..nodes() }
}

fn batch(offset: i64) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1, None, Some(b"x"), &[]).unwrap();
    builder.set_base(Offset::new(offset), LeaderEpoch::new(0));
    builder.build().unwrap()
}

fn fetched(data: PartitionData) -> FetchResponse {
    let topic = FetchableTopicResponse { topic_id: TOPIC_ID, partitions: vec![data], ..Default::default() };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

fn asked_offset(request: &FetchRequest) -> Option<i64> {
    Some(request.topics.first()?.partitions.first()?.fetch_offset)
}

fn records(offset: i64) -> FetchResponse {
    fetched(PartitionData {
        high_watermark: 1_000,
        records: Some(batch(offset)),
        preferred_read_replica: -1,
        ..Default::default()
    })
}

async fn poll_to(consumer: &Consumer, offset: i64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while consumer.position(&partition()).is_none_or(|position| position.get() < offset) {
        assert!(std::time::Instant::now() < deadline, "stuck at {:?}", consumer.position(&partition()));
        consumer.poll(Duration::from_millis(50)).await.unwrap();
    }
}

fn reader(client: &Client) -> Consumer {
    let consumer = client.consumer(ConsumerConfig {
        rack: Some("r2".to_owned()),
        buffer_bytes: 1,
        fetch_wait_ms_max: 10,
        ..Default::default()
    });
    consumer.assign(&[(partition(), StartAt::Offset(Offset::ZERO))]).unwrap();
    consumer
}

#[tokio::test]
async fn the_nearer_replica_is_read_until_it_fails_or_is_behind() {
    for trouble in [None, Some(ErrorCode::OffsetOutOfRange), Some(ErrorCode::NotLeaderOrFollower)] {
        // Which node answered what.
        let log: Arc<Mutex<Vec<(u16, i64)>>> = Arc::default();
        let written = Arc::clone(&log);
        let sent_back = Mutex::new(false);
        let client = Script::default()
            .with(|request: MetadataRequest| metadata(&request))
            .on(move |request: FetchRequest, asked| {
                assert_eq!(request.rack_id, "r2");
                let Some(offset) = asked_offset(&request) else { return Some(FetchResponse::default()) };
                if asked.node == 1 {
                    if offset == 0 || *sent_back.lock() {
                        // The leader knows a nearer one, at first; after trouble it answers itself.
                        if offset == 0 {
                            return Some(fetched(PartitionData {
                                preferred_read_replica: 2,
                                ..Default::default()
                            }));
                        }
                        written.lock().push((1, offset));
                        return Some(records(offset));
                    }
                    panic!("the leader is asked for {offset} although there is a nearer replica");
                }
                if offset >= 5 {
                    *sent_back.lock() = true;
                    // Without an answer the connection breaks.
                    let error_code = trouble?.code();
                    let preferred_read_replica = -1;
                    return Some(fetched(PartitionData {
                        error_code,
                        preferred_read_replica,
                        ..Default::default()
                    }));
                }
                written.lock().push((2, offset));
                Some(records(offset))
            })
            .client()
            .await;
        let consumer = reader(&client);
        poll_to(&consumer, 8).await;
        let log = log.lock();
        assert_eq!(log[..5], [(2, 0), (2, 1), (2, 2), (2, 3), (2, 4)], "{trouble:?}");
        assert_eq!(log[5], (1, 5), "{trouble:?}: back to the leader, at the same place");
    }
}

#[tokio::test]
async fn a_reset_by_duration_asks_for_a_time() {
    let client = Script::default()
        .with(|request: MetadataRequest| metadata(&request))
        .with(|request: ListOffsetsRequest| {
            let wanted = request.topics[0].partitions[0].timestamp;
            let found = towpath_wire::messages::list_offsets::ListOffsetsPartitionResponse {
                partition_index: 0,
                // Young records begin at 40; of none that is younger than that the end is 50.
                offset: if wanted < 0 { 50 } else { 40 },
                timestamp: wanted,
                ..Default::default()
            };
            let topic = towpath_wire::messages::list_offsets::ListOffsetsTopicResponse {
                name: "t".into(),
                partitions: vec![found],
            };
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let age = since.as_millis() as i64 - wanted;
            assert!((3_600_000..3_610_000).contains(&age), "{age} ms");
            ListOffsetsResponse { topics: vec![topic], ..Default::default() }
        })
        .with(|request: FetchRequest| match asked_offset(&request) {
            Some(offset @ 40..) => records(offset),
            Some(_) => fetched(PartitionData {
                error_code: ErrorCode::OffsetOutOfRange.code(),
                preferred_read_replica: -1,
                ..Default::default()
            }),
            None => FetchResponse::default(),
        })
        .client()
        .await;
    let config = ConsumerConfig {
        auto_offset_reset: OffsetReset::ByDuration(Duration::from_secs(3_600)),
        ..Default::default()
    };
    let consumer = client.consumer(config);
    consumer.assign(&[(partition(), StartAt::Offset(Offset::new(7)))]).unwrap();
    let first = loop {
        if let Some(first) = consumer.poll(Duration::from_secs(5)).await.unwrap().first() {
            break first.first_offset;
        }
    };
    assert_eq!(first, Offset::new(40));
}

/// What the coordinator of a group of the consumer protocol does.
#[derive(Default)]
struct Group {
    epoch: i32,
    /// The heartbeats: epoch, and what the member says that it has.
    beats: Vec<(i32, Option<usize>)>,
    /// What the next heartbeat is refused with.
    refuse: Option<ErrorCode>,
    /// Commits are of another epoch until then.
    stale: u32,
}

fn grouped(group: &Arc<Mutex<Group>>) -> Script {
    let (beating, committing) = (Arc::clone(group), Arc::clone(group));
    Script::default()
        .with(|request: MetadataRequest| metadata(&request))
        .with(|request: FindCoordinatorRequest| {
            let found = Found {
                key: request.coordinator_keys[0].clone(),
                node_id: 2,
                host: "scripted".into(),
                port: 2,
                ..Default::default()
            };
            FindCoordinatorResponse { coordinators: vec![found], ..Default::default() }
        })
        .with(|_: OffsetFetchRequest| {
            let partition = OffsetFetchResponsePartitions { committed_offset: 3, ..Default::default() };
            let topic = OffsetFetchResponseTopics {
                name: "t".into(),
                partitions: vec![partition],
                ..Default::default()
            };
            let group =
                OffsetFetchResponseGroup { group_id: "g".into(), topics: vec![topic], ..Default::default() };
            OffsetFetchResponse { groups: vec![group], ..Default::default() }
        })
        .with(|_: FetchRequest| FetchResponse::default())
        .with(move |request: ConsumerGroupHeartbeatRequest| {
            let mut group = beating.lock();
            let owned = request.topic_partitions.as_ref().map(Vec::len);
            group.beats.push((request.member_epoch, owned));
            if let Some(code) = group.refuse.take() {
                return ConsumerGroupHeartbeatResponse { error_code: code.code(), ..Default::default() };
            }
            let joins = request.member_epoch == 0;
            if joins {
                assert_eq!(request.subscribed_topic_names.as_deref(), Some(&["t".to_owned()][..]));
                assert_eq!(request.topic_partitions.as_deref(), Some(&[][..]));
                assert!(request.rebalance_timeout_ms > 0 && !request.member_id.is_empty());
                group.epoch += 1;
            }
            let given = TopicPartitions { topic_id: TOPIC_ID, partitions: vec![0] };
            ConsumerGroupHeartbeatResponse {
                member_id: Some(request.member_id),
                member_epoch: if request.member_epoch < 0 { request.member_epoch } else { group.epoch },
                heartbeat_interval_ms: 20,
                assignment: joins.then(|| Assignment { topic_partitions: vec![given] }),
                ..Default::default()
            }
        })
        .with(move |request: OffsetCommitRequest| {
            let mut group = committing.lock();
            let code = if group.stale > 0 {
                group.stale -= 1;
                ErrorCode::StaleMemberEpoch
            } else {
                assert_eq!(request.generation_id_or_member_epoch, group.epoch);
                ErrorCode::None
            };
            let partitions =
                vec![OffsetCommitResponsePartition { partition_index: 0, error_code: code.code() }];
            let topic = OffsetCommitResponseTopic { name: "t".into(), partitions, ..Default::default() };
            OffsetCommitResponse { topics: vec![topic], ..Default::default() }
        })
}

fn subscribed(client: &Client) -> Consumer {
    let consumer = client.consumer(ConsumerConfig {
        group_id: Some(GroupId::new("g").unwrap()),
        group_protocol: GroupKind::Consumer,
        auto_offset_reset: OffsetReset::Earliest,
        ..Default::default()
    });
    consumer.subscribe(Subscription::Topics(vec![topic()])).unwrap();
    consumer
}

async fn event(consumer: &Consumer) -> ConsumerEvent {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        assert!(std::time::Instant::now() < deadline, "nothing happens");
        match consumer.poll_event(Duration::from_millis(50)).await.unwrap() {
            ConsumerEvent::Records(_) => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn a_fenced_member_loses_its_partitions_and_joins_again() {
    let group: Arc<Mutex<Group>> = Arc::default();
    let client = grouped(&group).client().await;
    let consumer = subscribed(&client);
    for (round, code) in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId].into_iter().enumerate() {
        let assigned = event(&consumer).await;
        assert!(matches!(&assigned, ConsumerEvent::Assigned(it) if it[..] == [partition()]), "{assigned:?}");
        assert_eq!(consumer.group_metadata().unwrap().generation, round as i32 + 1);
        group.lock().refuse = Some(code);
        let lost = event(&consumer).await;
        assert!(matches!(&lost, ConsumerEvent::Lost(it) if it[..] == [partition()]), "{lost:?}");
    }
    event(&consumer).await;
    consumer.close().await;
    let beats = group.lock().beats.clone();
    assert_eq!(beats[0], (0, Some(0)));
    assert!(beats.contains(&(1, Some(1))), "what it has is said: {beats:?}");
    assert_eq!(beats.iter().filter(|(epoch, _)| *epoch == 0).count(), 3, "{beats:?}");
    assert!(beats.iter().any(|(epoch, _)| *epoch == -1), "it says good-bye: {beats:?}");
}

#[tokio::test]
async fn a_commit_of_an_older_epoch_is_made_again_under_the_newer() {
    let group: Arc<Mutex<Group>> = Arc::default();
    let client = grouped(&group).client().await;
    let consumer = subscribed(&client);
    event(&consumer).await;
    group.lock().stale = 3;
    consumer.commit(&BTreeMap::from([(partition(), Offset::new(5))])).await.unwrap();
    assert_eq!(group.lock().stale, 0);
    group.lock().refuse = Some(ErrorCode::GroupMaxSizeReached);
    let error = loop {
        if let Err(error) = consumer.poll(Duration::from_millis(100)).await {
            break error;
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::GroupMaxSizeReached), "{error}");
    let gone = consumer.commit(&BTreeMap::from([(partition(), Offset::new(6))])).await.unwrap_err();
    assert!(matches!(gone, ClientError::MembershipLost { .. }), "{gone}");
}
