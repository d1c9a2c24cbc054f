//! A share consumer against a broker that answers what it is told to: what is sent, and what becomes of what breaks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod script;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use script::{Script, nodes};
use towpath_client::{
    Acknowledgement, AcknowledgementMode, AcquireMode, Client, ClientError, ErrorCode, ShareConsumer,
    ShareConsumerConfig,
};
use towpath_record::{BatchBuilder, Compression};
use towpath_types::{GroupId, LeaderEpoch, Offset, TopicName, TopicPartition};
use towpath_wire::ApiKey;
use towpath_wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use towpath_wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};
use towpath_wire::messages::share_acknowledge::{
    self, ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};
use towpath_wire::messages::share_fetch::{
    self, AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, ShareFetchRequest, ShareFetchResponse,
    ShareFetchableTopicResponse,
};
use towpath_wire::messages::share_group_heartbeat::{
    Assignment, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, TopicPartitions,
};
use uuid::Uuid;

const TOPIC: Uuid = Uuid::from_u128(9);
const LONG: Duration = Duration::from_secs(20);

/// What the cluster was asked, in short.
type Log = Arc<Mutex<Vec<String>>>;

fn metadata(leader: i32) -> MetadataResponse {
    let partition = MetadataResponsePartition { leader_id: leader, leader_epoch: 1, ..Default::default() };
    let topic = MetadataResponseTopic {
        name: Some("t".into()),
        topic_id: TOPIC,
        partitions: vec![partition],
        ..Default::default()
    };
    MetadataResponse { topics: vec![topic], ..nodes() }
}

/// The node 1 coordinates, and the node 2 leads the one partition.
fn cluster(log: &Log) -> Script {
    let log = Arc::clone(log);
    Script::default()
        .with(|_: MetadataRequest| metadata(2))
        .with(|request: FindCoordinatorRequest| {
            let key = request.coordinator_keys[0].clone();
            let coordinator =
                Coordinator { key, node_id: 1, host: "scripted".into(), port: 1, ..Default::default() };
            FindCoordinatorResponse { coordinators: vec![coordinator], ..Default::default() }
        })
        .with(move |request: ShareGroupHeartbeatRequest| {
            let topics = request.subscribed_topic_names.map_or("-".to_owned(), |topics| topics.join(","));
            log.lock().push(format!("beat {} {topics}", request.member_epoch));
            let topic = TopicPartitions { topic_id: TOPIC, partitions: vec![0] };
            ShareGroupHeartbeatResponse {
                member_epoch: request.member_epoch.max(1),
                heartbeat_interval_ms: 50,
                assignment: Some(Assignment { topic_partitions: vec![topic] }),
                ..Default::default()
            }
        })
}

/// What is given out of the partition; an empty answer takes the time that the consumer waits.
fn gives(first: i64, count: i64, deliveries: i16) -> ShareFetchResponse {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        builder.append(1, None, Some(b"x"), &[]).unwrap();
    }
    builder.set_base(Offset::new(first), LeaderEpoch::new(1));
    let acquired =
        AcquiredRecords { first_offset: first, last_offset: first + count - 1, delivery_count: deliveries };
    answers(share_fetch::PartitionData {
        records: builder.build().unwrap(),
        acquired_records: vec![acquired],
        ..Default::default()
    })
}

fn answers(partition: share_fetch::PartitionData) -> ShareFetchResponse {
    ShareFetchResponse {
        acquisition_lock_timeout_ms: 30_000,
        responses: vec![ShareFetchableTopicResponse { topic_id: TOPIC, partitions: vec![partition] }],
        ..Default::default()
    }
}

fn nothing() -> ShareFetchResponse {
    std::thread::sleep(Duration::from_millis(20));
    ShareFetchResponse { acquisition_lock_timeout_ms: 30_000, ..Default::default() }
}

fn acknowledged(request: &ShareAcknowledgeRequest) -> ShareAcknowledgeResponse {
    let partition = share_acknowledge::PartitionData::default();
    let topic = ShareAcknowledgeTopicResponse { topic_id: TOPIC, partitions: vec![partition] };
    ShareAcknowledgeResponse {
        responses: if request.topics.is_empty() { vec![] } else { vec![topic] },
        ..Default::default()
    }
}

fn config() -> ShareConsumerConfig {
    ShareConsumerConfig {
        acknowledgement_mode: AcknowledgementMode::Explicit,
        ..ShareConsumerConfig::new(GroupId::new("s").unwrap())
    }
}

fn consumer(client: &Client, config: ShareConsumerConfig) -> ShareConsumer {
    let consumer = client.share_consumer(config);
    consumer.subscribe(&[TopicName::new("t").unwrap()]).unwrap();
    consumer
}

fn at() -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), 0)
}

/// Offsets and delivery counts, as soon as there are any.
async fn poll(consumer: &ShareConsumer) -> Vec<(i64, i16)> {
    let polled = consumer.poll(LONG).await.unwrap();
    let seen = polled.iter().flatten().map(Result::unwrap);
    seen.map(|record| (record.offset.get(), record.delivery_count)).collect()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_that_have_no_share_groups_say_so() {
    let log = Log::default();
    let old =
        Script::default().with(|_: MetadataRequest| metadata(2)).with(|request: FindCoordinatorRequest| {
            let key = request.coordinator_keys[0].clone();
            let coordinator =
                Coordinator { key, node_id: 1, host: "scripted".into(), port: 1, ..Default::default() };
            FindCoordinatorResponse { coordinators: vec![coordinator], ..Default::default() }
        });
    let error = consumer(&old.client().await, config()).poll(LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::UnsupportedApi { .. }) && error.hint().is_some(), "{error}");
    let off = cluster(&log).with(|_: ShareGroupHeartbeatRequest| ShareGroupHeartbeatResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        error_message: Some("they are off".into()),
        ..Default::default()
    });
    let member = consumer(&off.client().await, config());
    for _ in 0..2 {
        let error = member.poll(LONG).await.unwrap_err();
        assert!(error.to_string().contains("they are off"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("share.version")));
    }
    // The leader refuses for good what the coordinator does not.
    let refused = cluster(&log).with(|_: ShareFetchRequest| ShareFetchResponse {
        error_code: ErrorCode::GroupAuthorizationFailed.code(),
        ..Default::default()
    });
    let error = consumer(&refused.client().await, config()).poll(LONG).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::GroupAuthorizationFailed));
    let first_version = cluster(&log).with(|_: ShareFetchRequest| nothing()).at(ApiKey::ShareFetch, 1);
    let strict = ShareConsumerConfig { acquire_mode: AcquireMode::RecordLimit, ..config() };
    let error = consumer(&first_version.client().await, strict).poll(LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::UnsupportedApi { api: ApiKey::ShareFetch, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_is_told_and_comes_again() {
    let (log, fetches, sent) = (Log::default(), Log::default(), Log::default());
    let (mut given, mut broken) = (0, false);
    let (fetched, said) = (Arc::clone(&fetches), Arc::clone(&sent));
    let script = cluster(&log)
        .on(move |request: ShareFetchRequest, asked| {
            assert_eq!((asked.node, request.max_records, request.is_renew_ack), (2, 500, false));
            fetched.lock().push(format!("{}", request.share_session_epoch));
            if request.share_session_epoch == 0 {
                given += 1;
                return Some(gives(0, 2, given));
            }
            Some(nothing())
        })
        .on(move |request: ShareAcknowledgeRequest, _| {
            let batches = request.topics.iter().flat_map(|topic| &topic.partitions);
            let batches: Vec<_> = batches.flat_map(|it| &it.acknowledgement_batches).collect();
            let types: Vec<_> =
                batches.iter().map(|it| (it.first_offset, it.acknowledge_types.clone())).collect();
            said.lock().push(format!("{} {types:?}", request.share_session_epoch));
            // The first one is stored, or not: nobody knows.
            std::mem::replace(&mut broken, true).then(|| acknowledged(&request))
        });
    let client = script.client().await;
    let consumer = consumer(&client, config());
    assert_eq!(poll(&consumer).await, [(0, 1), (1, 1)]);
    consumer.acknowledge(&at(), Offset::new(0), Acknowledgement::Accept).unwrap();
    let error = consumer.commit().await.unwrap().remove(&at()).unwrap().unwrap_err();
    assert!(error.is_retriable() && matches!(error, ClientError::Disconnected { .. }), "{error}");
    let lost = consumer.acknowledge(&at(), Offset::new(1), Acknowledgement::Accept).unwrap_err();
    assert!(matches!(lost, ClientError::NotAcquired { .. }) && !lost.is_retriable(), "{lost}");
    assert_eq!(poll(&consumer).await, [(0, 2), (1, 2)], "in a new session");
    consumer.acknowledge(&at(), Offset::new(0), Acknowledgement::Reject).unwrap();
    consumer.acknowledge(&at(), Offset::new(1), Acknowledgement::Accept).unwrap();
    assert!(consumer.commit().await.unwrap()[&at()].is_ok());
    assert!(consumer.close().await.is_empty());
    assert_eq!(*fetches.lock(), ["0", "0"]);
    assert_eq!(*sent.lock(), ["1 [(0, [1])]", "1 [(0, [3, 1])]", "-1 []"]);
    assert_eq!(log.lock().last().unwrap(), "beat -1 -", "it has left its group");
    assert_eq!(log.lock()[0], "beat 0 t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moved_says_where_to() {
    let log = Log::default();
    let asked_of = Arc::new(Mutex::new(Vec::new()));
    let nodes_asked = Arc::clone(&asked_of);
    let script = cluster(&log).on(move |request: ShareFetchRequest, asked| {
        nodes_asked.lock().push((asked.node, request.share_session_epoch));
        if asked.node == 2 {
            let endpoint =
                NodeEndpoint { node_id: 1, host: "scripted".into(), port: 1, ..Default::default() };
            return Some(ShareFetchResponse {
                node_endpoints: vec![endpoint],
                ..answers(share_fetch::PartitionData {
                    error_code: ErrorCode::NotLeaderOrFollower.code(),
                    current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 4 },
                    ..Default::default()
                })
            });
        }
        Some(if request.share_session_epoch == 0 { gives(5, 1, 1) } else { nothing() })
    });
    // The session with the old leader is ended.
    let script = script.with(|request: ShareAcknowledgeRequest| acknowledged(&request));
    let client = script.client().await;
    // Metadata goes on to name the old leader.
    assert_eq!(poll(&consumer(&client, config())).await, [(5, 1)]);
    assert_eq!(asked_of.lock()[..2], [(2, 0), (1, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_broker_has_forgotten_begins_anew() {
    let log = Log::default();
    let epochs = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&epochs);
    let script = cluster(&log)
        .with(move |request: ShareFetchRequest| {
            let mut seen = seen.lock();
            seen.push(request.share_session_epoch);
            match seen.len() {
                1 => nothing(),
                2 => ShareFetchResponse {
                    error_code: ErrorCode::ShareSessionNotFound.code(),
                    ..Default::default()
                },
                3 => ShareFetchResponse {
                    error_code: ErrorCode::ShareSessionLimitReached.code(),
                    ..Default::default()
                },
                4 => gives(0, 1, 1),
                _ => nothing(),
            }
        })
        .with(|request: ShareAcknowledgeRequest| acknowledged(&request));
    let client = script.client().await;
    assert_eq!(poll(&consumer(&client, config())).await, [(0, 1)]);
    assert_eq!(epochs.lock()[..4], [0, 1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_poll_leaves_until_it_does() {
    let log = Log::default();
    // Without partitions its session ends, too.
    let script = cluster(&log)
        .with(|_: ShareFetchRequest| nothing())
        .with(|request: ShareAcknowledgeRequest| acknowledged(&request));
    let client = script.client().await;
    let consumer = consumer(&client, ShareConsumerConfig { max_poll_interval_ms: 150, ..config() });
    assert!(consumer.poll(Duration::from_millis(400)).await.unwrap().is_empty(), "a long poll is one");
    assert!(log.lock().iter().all(|beat| beat != "beat -1 -"), "{:?}", log.lock());
    until("it leaves", || log.lock().iter().any(|beat| beat == "beat -1 -")).await;
    until("it has no partitions", || consumer.assignment().is_empty()).await;
    let before = log.lock().len();
    assert!(consumer.poll(Duration::from_millis(120)).await.unwrap().is_empty());
    until("it joins again", || log.lock()[before..].iter().any(|beat| beat == "beat 0 t")).await;
}
