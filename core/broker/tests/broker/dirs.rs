//! Several data directories: what lies where, one that fails or is missing, and replicas that move between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towpath_broker::BrokerConfig;
use towpath_wire::alter_replica_log_dirs::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use towpath_wire::delete_topics::DeleteTopicState;
use towpath_wire::describe_log_dirs::DescribeLogDirsResult;
use towpath_wire::{
    AlterReplicaLogDirsRequest, DeleteTopicsRequest, DescribeLogDirsRequest, ErrorCode, MetadataRequest,
};

use crate::support::{Client, PATIENCE, TestBroker, batch, code, records, spoil, until};

/// The second directory, beside the first.
fn second(dir: &TempDir) -> PathBuf {
    dir.path().join("second-disk")
}

fn two_dirs(config: &mut BrokerConfig) {
    config.further_dirs = vec![config.data_dir.join("second-disk")];
    config.checkpoint_interval = Duration::from_millis(100);
}

async fn dirs(client: &mut Client) -> Vec<DescribeLogDirsResult> {
    client.call(4, &DescribeLogDirsRequest { topics: None }).await.results
}

/// In which directory each partition of `t` is; copies are not counted.
async fn places(client: &mut Client) -> BTreeMap<i32, usize> {
    let mut places = BTreeMap::new();
    for (at, dir) in dirs(client).await.into_iter().enumerate() {
        for topic in dir.topics.iter().filter(|topic| topic.name == "t") {
            for partition in topic.partitions.iter().filter(|partition| !partition.is_future_key) {
                assert_eq!(places.insert(partition.partition_index, at), None, "in two directories");
            }
        }
    }
    places
}

async fn produce(client: &mut Client, partition: i32) -> ErrorCode {
    code(client.produce("t", partition, batch(&["a"])).await.error_code)
}

async fn offline(client: &mut Client) -> Vec<i32> {
    let metadata = client.call(12, &MetadataRequest { topics: None, ..MetadataRequest::default() }).await;
    let topic = metadata.topics.into_iter().find(|topic| topic.name.as_deref() == Some("t")).unwrap();
    let offline = topic.partitions.iter().filter(|partition| partition.offline_replicas == [1]);
    let mut offline: Vec<i32> = offline.map(|partition| partition.partition_index).collect();
    offline.sort_unstable();
    offline
}

fn in_dir(places: &BTreeMap<i32, usize>, dir: usize) -> Vec<i32> {
    places.iter().filter(|(_, at)| **at == dir).map(|(index, _)| *index).collect()
}

async fn stop(test: TestBroker) -> TempDir {
    drop(test.broker.shutdown().await);
    let TestBroker { broker, dir } = test;
    drop(broker);
    dir
}

#[tokio::test]
async fn partitions_are_spread_and_one_directory_fails_alone() {
    let test = TestBroker::start_with(two_dirs).await;
    let mut client = test.client();
    client.create_topic("t", 6, &[]).await;
    for partition in 0..6 {
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
    }
    let before = places(&mut client).await;
    assert_eq!((in_dir(&before, 0).len(), in_dir(&before, 1).len()), (3, 3), "the metadata log counts, too");
    for dir in dirs(&mut client).await {
        assert_eq!(code(dir.error_code), ErrorCode::None);
        assert!(Path::new(&dir.log_dir).is_absolute() && dir.total_bytes > 0);
        let partitions = dir.topics.iter().flat_map(|topic| &topic.partitions);
        assert!(partitions.clone().all(|it| it.partition_size > 0 && it.offset_lag == 0), "{dir:?}");
    }
    spoil(&second(&test.dir), "recovery-point-offset-checkpoint.tmp").await;
    until("the directory has failed", || !test.broker.status().offline_dirs.is_empty()).await;
    assert_eq!(test.broker.status().offline_reason, None, "the broker lives");
    for (partition, dir) in &before {
        let expected = if *dir == 1 { ErrorCode::KafkaStorageError } else { ErrorCode::None };
        assert_eq!(produce(&mut client, *partition).await, expected, "{partition}");
        assert_eq!(code(client.fetch("t", *partition, 0).await.error_code), expected, "{partition}");
    }
    assert_eq!(offline(&mut client).await, in_dir(&before, 1));
    let told = dirs(&mut client).await;
    assert_eq!(code(told[0].error_code), ErrorCode::None);
    assert_eq!(code(told[1].error_code), ErrorCode::KafkaStorageError);
    client.create_topic("new", 2, &[]).await;
    assert_eq!(client.produce("new", 1, batch(&["b"])).await.error_code, 0, "what is new goes elsewhere");
    assert!(test.broker.shutdown().await.is_err(), "not everything could be written");
    let TestBroker { broker, dir } = test;
    drop(broker);
    std::fs::remove_dir(second(&dir).join("recovery-point-offset-checkpoint.tmp")).unwrap();
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert_eq!(places(&mut client).await, before);
    assert!(offline(&mut client).await.is_empty());
    for (partition, dir) in &before {
        let count = records(&client.fetch("t", *partition, 0).await).len();
        assert_eq!(count, if *dir == 1 { 1 } else { 2 });
        assert_eq!(produce(&mut client, *partition).await, ErrorCode::None);
    }
}

#[tokio::test]
async fn what_is_in_a_missing_directory_does_not_begin_anew() {
    let test = TestBroker::start_with(two_dirs).await;
    let mut client = test.client();
    client.create_topic("t", 4, &[]).await;
    for partition in 0..4 {
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
    }
    let before = places(&mut client).await;
    let missing = in_dir(&before, 1);
    let dir = stop(test).await;
    let aside = dir.path().join("aside");
    std::fs::rename(second(&dir), &aside).unwrap();
    // First one that cannot be used at all, then an empty one in its place.
    std::fs::write(second(&dir), "no directory").unwrap();
    let mut kept = Some(dir);
    for round in 0..3 {
        if round == 1 {
            std::fs::remove_file(second(kept.as_ref().unwrap())).unwrap();
        }
        let test = TestBroker::start_in(kept.take().unwrap(), two_dirs).await;
        let mut client = test.client();
        assert_eq!(offline(&mut client).await, missing, "round {round}");
        for (partition, dir) in &before {
            let expected = if *dir == 1 { ErrorCode::KafkaStorageError } else { ErrorCode::None };
            assert_eq!(produce(&mut client, *partition).await, expected, "round {round}, {partition}");
        }
        if round == 0 {
            assert_eq!(code(dirs(&mut client).await[1].error_code), ErrorCode::KafkaStorageError);
        }
        client.create_topic(&format!("new{round}"), 3, &[]).await;
        kept = Some(stop(test).await);
    }
    // It is back, and so is what it had. What was made meanwhile in the one in its place is not.
    let dir = kept.unwrap();
    std::fs::remove_dir_all(second(&dir)).unwrap();
    std::fs::rename(&aside, second(&dir)).unwrap();
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert!(offline(&mut client).await.is_empty());
    for partition in missing {
        assert_eq!(records(&client.fetch("t", partition, 0).await).len(), 1);
    }
}

#[tokio::test]
async fn without_the_directory_of_the_metadata_the_broker_ends() {
    let test = TestBroker::start_with(two_dirs).await;
    test.client().create_topic("t", 2, &[]).await;
    spoil(test.dir.path(), "recovery-point-offset-checkpoint.tmp").await;
    let reason = tokio::time::timeout(PATIENCE, test.broker.failed()).await.expect("it is told");
    assert!(reason.contains("metadata"), "{reason}");
    assert!(test.broker.status().offline_reason.is_some());
}

#[tokio::test]
async fn a_directory_that_is_named_twice_or_is_somebody_elses_is_refused() {
    let test = TestBroker::start_with(two_dirs).await;
    let dir = stop(test).await;
    let mut config = BrokerConfig::new(dir.path());
    config.further_dirs = vec![second(&dir), dir.path().join("./second-disk")];
    let error = towpath_broker::Broker::start(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let other = tempfile::tempdir().unwrap();
    config.data_dir = other.path().to_owned();
    config.further_dirs = vec![second(&dir)];
    let error = towpath_broker::Broker::start(config).await.unwrap_err();
    assert!(format!("{error:?}").contains("Identity"), "{error:?}");
}

async fn alter(client: &mut Client, to: &str, topic: &str, partition: i32) -> ErrorCode {
    let request = AlterReplicaLogDirsRequest {
        dirs: vec![AlterReplicaLogDir {
            path: to.to_owned(),
            topics: vec![AlterReplicaLogDirTopic { name: topic.to_owned(), partitions: vec![partition] }],
        }],
    };
    let response = client.call(2, &request).await;
    code(response.results[0].partitions[0].error_code)
}

#[tokio::test]
async fn replicas_move_between_directories_while_they_are_written_to() {
    let test = TestBroker::start_with(two_dirs).await;
    let mut client = test.client();
    client.create_topic("t", 1, &[("segment.bytes", "1048576")]).await;
    let large = batch(&[&"x".repeat(50_000)]);
    let (mut sent, mut tried) = (0, 0);
    for _ in 0..60 {
        assert_eq!(client.produce("t", 0, large.clone()).await.error_code, 0);
        (sent, tried) = (sent + 1, tried + 1);
    }
    let paths: Vec<String> = dirs(&mut client).await.into_iter().map(|dir| dir.log_dir).collect();
    for (to, topic, partition, expected) in [
        ("/no/such/directory", "t", 0, ErrorCode::LogDirNotFound),
        ("second-disk", "t", 0, ErrorCode::LogDirNotFound),
        (paths[0].as_str(), "u", 0, ErrorCode::UnknownTopicOrPartition),
        (paths[0].as_str(), "t", 7, ErrorCode::UnknownTopicOrPartition),
    ] {
        assert_eq!(alter(&mut client, to, topic, partition).await, expected, "{to} {topic} {partition}");
    }
    for _ in 0..2 {
        let from = places(&mut client).await[&0];
        let to = 1 - from;
        assert_eq!(alter(&mut client, &paths[to], "t", 0).await, ErrorCode::None);
        let end = Instant::now() + PATIENCE;
        while places(&mut client).await.get(&0) != Some(&to) {
            assert!(Instant::now() < end, "it does not move, after {tried} records");
            if tried > 10_000 {
                // Half a gigabyte was written as fast as it goes; the disk is not ours alone.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let answer = client.produce("t", 0, large.clone()).await;
            let error = code(answer.error_code);
            assert!(error == ErrorCode::None || error.is_retriable(), "{error:?}");
            (sent, tried) = (sent + i64::from(error == ErrorCode::None), tried + 1);
        }
        let fetched = client.fetch("t", 0, 0).await;
        assert_eq!(code(fetched.error_code), ErrorCode::None);
        // Whoever was told to ask again while the partition stood still may have been heard all the same.
        let end = fetched.high_watermark;
        assert!((sent..=tried).contains(&end), "{end}, of {sent} acknowledged and {tried} sent");
        (sent, tried) = (end, end);
    }
    // The next broker finds it there.
    let place = places(&mut client).await;
    let dir = stop(test).await;
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert_eq!(places(&mut client).await, place);
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, sent);
}

#[tokio::test]
async fn a_move_goes_on_after_a_restart_and_no_faster_than_allowed() {
    let test = TestBroker::start_with(two_dirs).await;
    let mut client = test.client();
    client.create_topic("t", 1, &[]).await;
    let large = batch(&[&"x".repeat(500_000)]);
    for _ in 0..10 {
        assert_eq!(client.produce("t", 0, large.clone()).await.error_code, 0);
    }
    crate::configs::set(&mut client, (4, "1"), "replica.alter.log.dirs.io.max.bytes.per.second", "1").await;
    let from = places(&mut client).await[&0];
    let paths: Vec<String> = dirs(&mut client).await.into_iter().map(|dir| dir.log_dir).collect();
    assert_eq!(alter(&mut client, &paths[1 - from], "t", 0).await, ErrorCode::None);
    let copy = async |client: &mut Client| {
        let all = dirs(client).await;
        let found =
            all[1 - from].topics.iter().flat_map(|topic| &topic.partitions).find(|it| it.is_future_key);
        found.map(|it| (it.partition_size, it.offset_lag))
    };
    let end = Instant::now() + PATIENCE;
    while copy(&mut client).await.is_none_or(|(size, _)| size == 0) {
        assert!(Instant::now() < end, "it does not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (size, lag) = copy(&mut client).await.expect("it has begun");
    assert!(lag > 0 && size < 4_000_000, "{size} bytes, {lag} behind");
    let dir = stop(test).await;
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert!(copy(&mut client).await.is_some(), "it is remembered");
    crate::configs::set(&mut client, (4, "1"), "replica.alter.log.dirs.io.max.bytes.per.second", "100000000")
        .await;
    let end = Instant::now() + PATIENCE;
    while places(&mut client).await.get(&0) != Some(&(1 - from)) {
        assert!(Instant::now() < end, "it does not move");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 10);
}

async fn delete_topic(client: &mut Client, name: &str) {
    let state = DeleteTopicState { name: Some(name.to_owned()), ..DeleteTopicState::default() };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 5_000, ..Default::default() };
    assert_eq!(client.call(6, &request).await.responses[0].error_code, 0);
}

#[tokio::test]
async fn a_directory_that_comes_back_has_nothing_of_a_topic_that_was_made_anew() {
    let test = TestBroker::start_with(two_dirs).await;
    let mut client = test.client();
    client.create_topic("t", 4, &[]).await;
    for partition in 0..4 {
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
    }
    let was_in_second = in_dir(&places(&mut client).await, 1);
    let dir = stop(test).await;
    let aside = dir.path().join("aside");
    std::fs::rename(second(&dir), &aside).unwrap();
    std::fs::write(second(&dir), "no directory").unwrap();
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    delete_topic(&mut client, "t").await;
    client.create_topic("t", 4, &[]).await;
    for partition in 0..4 {
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
    }
    let dir = stop(test).await;
    std::fs::remove_file(second(&dir)).unwrap();
    std::fs::rename(&aside, second(&dir)).unwrap();
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert!(offline(&mut client).await.is_empty());
    assert_eq!(in_dir(&places(&mut client).await, 0).len(), 4);
    for partition in 0..4 {
        assert_eq!(records(&client.fetch("t", partition, 0).await).len(), 1, "{partition}");
    }
    for partition in was_in_second {
        assert!(!second(&test.dir).join(format!("t-{partition}")).exists());
    }
}

#[tokio::test]
async fn a_partition_that_is_in_two_directories_is_offline_alone() {
    let test = TestBroker::start_with(two_dirs).await;
    let mut client = test.client();
    client.create_topic("t", 3, &[]).await;
    for partition in 0..3 {
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
    }
    let before = places(&mut client).await;
    let dir = stop(test).await;
    let (from, to) = if before[&0] == 0 {
        (dir.path().to_owned(), second(&dir))
    } else {
        (second(&dir), dir.path().to_owned())
    };
    std::fs::create_dir(to.join("t-0")).unwrap();
    for entry in std::fs::read_dir(from.join("t-0")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join("t-0").join(entry.file_name())).unwrap();
    }
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert_eq!(offline(&mut client).await, [0]);
    assert_eq!(produce(&mut client, 0).await, ErrorCode::KafkaStorageError);
    for partition in 1..3 {
        assert_eq!(produce(&mut client, partition).await, ErrorCode::None);
    }
    // Whoever runs the broker keeps one of them.
    let dir = stop(test).await;
    std::fs::remove_dir_all(to.join("t-0")).unwrap();
    let test = TestBroker::start_in(dir, two_dirs).await;
    let mut client = test.client();
    assert!(offline(&mut client).await.is_empty());
    assert_eq!(records(&client.fetch("t", 0, 0).await).len(), 1);
    assert_eq!(produce(&mut client, 0).await, ErrorCode::None);
}
