//! What is there after a stop, and after a crash.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_broker::{Broker, BrokerConfig, BrokerError};
use towpath_wire::frame::encode_request;
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use towpath_wire::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use towpath_wire::{ErrorCode, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest};

use crate::support::{TestBroker, batch, fetch_request, records};

async fn leader_epoch(broker: &TestBroker) -> i32 {
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    broker.client().call(12, &request).await.topics[0].partitions[0].leader_epoch
}

/// Copies a data directory as a crash would leave it: while the broker runs.
fn crash_copy(broker: &TestBroker) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(broker.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let target = to.path().join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            for file in std::fs::read_dir(entry.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
            }
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    to
}

#[tokio::test]
async fn everything_is_there_after_a_clean_stop() {
    let TestBroker { broker, dir } = {
        let test = TestBroker::start().await;
        let mut client = test.client();
        client.create_topic("t", 2, &[("retention.ms", "-1")]).await;
        client.produce("t", 1, batch(&["a", "b"])).await;
        client.call(4, &crate::support::init_producer_id()).await;
        test
    };
    let cluster = broker.cluster_id().to_owned();
    broker.shutdown().await.unwrap();
    assert!(dir.path().join(".kafka_cleanshutdown").exists());
    drop(broker);
    let test = TestBroker::start_in(dir, |_| {}).await;
    assert_eq!(test.broker.cluster_id(), cluster);
    let mut client = test.client();
    assert_eq!(client.topics().await["t"], 2);
    assert_eq!(records(&client.fetch("t", 1, 0).await).len(), 2);
    assert_eq!(client.produce("t", 1, batch(&["c"])).await.base_offset, 2);
    assert_eq!(leader_epoch(&test).await, 0, "nothing was lost: the leader's term goes on");
    let id = client.call(4, &crate::support::init_producer_id()).await.producer_id;
    assert!(id >= 1000, "ids are never given twice");
    assert!(!test.dir.path().join(".kafka_cleanshutdown").exists(), "the marker speaks of the past only");
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_crash() {
    let test = TestBroker::start().await;
    let mut client = test.client();
    client.create_topic("t", 1, &[]).await;
    client.create_topic("flushed", 1, &[("flush.messages", "1")]).await;
    for _ in 0..20 {
        client.produce("t", 0, batch(&["a"])).await;
        client.produce("flushed", 0, batch(&["b"])).await;
    }
    let after = TestBroker::start_in(crash_copy(&test), |_| {}).await;
    let mut client = after.client();
    for topic in ["t", "flushed"] {
        let data = client.fetch(topic, 0, 0).await;
        assert_eq!((data.high_watermark, records(&data).len()), (20, 20), "{topic}");
        assert_eq!(client.produce(topic, 0, batch(&["c"])).await.base_offset, 20);
    }
    assert_eq!(leader_epoch(&after).await, 1, "readers are told that the log may have changed (KIP-320)");
    for (epoch, expected) in
        [(0, ErrorCode::FencedLeaderEpoch), (1, ErrorCode::None), (2, ErrorCode::UnknownLeaderEpoch)]
    {
        let mut fetch = fetch_request("t", 0, 0);
        fetch.topics[0].partitions[0].current_leader_epoch = epoch;
        let fetched = client.call(12, &fetch).await.responses[0].partitions[0].clone();
        let list = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: "t".to_owned(),
                partitions: vec![ListOffsetsPartition {
                    current_leader_epoch: epoch,
                    timestamp: -1,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let listed = client.call(6, &list).await.topics[0].partitions[0].clone();
        let ends = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: "t".to_owned(),
                partitions: vec![OffsetForLeaderPartition {
                    current_leader_epoch: epoch,
                    ..OffsetForLeaderPartition::default()
                }],
            }],
        };
        let ended = client.call(4, &ends).await.topics[0].partitions[0].clone();
        for told in [fetched.error_code, listed.error_code, ended.error_code] {
            assert_eq!(ErrorCode::from_code(told), expected, "epoch {epoch}");
        }
    }
}

#[tokio::test]
async fn deleted_records_stay_deleted_after_a_crash() {
    let test = TestBroker::start().await;
    let mut client = test.client();
    client.create_topic("t", 1, &[]).await;
    for _ in 0..5 {
        client.produce("t", 0, batch(&["a"])).await;
    }
    let request = towpath_wire::DeleteRecordsRequest {
        topics: vec![towpath_wire::delete_records::DeleteRecordsTopic {
            name: "t".to_owned(),
            partitions: vec![towpath_wire::delete_records::DeleteRecordsPartition {
                partition_index: 0,
                offset: 3,
            }],
        }],
        ..Default::default()
    };
    client.call(2, &request).await;
    let after = TestBroker::start_in(crash_copy(&test), |_| {}).await;
    assert_eq!(after.client().fetch("t", 0, 3).await.log_start_offset, 3);
}

#[tokio::test]
async fn partitions_without_metadata_are_not_touched() {
    let test = TestBroker::start().await;
    test.client().create_topic("t", 1, &[]).await;
    test.broker.shutdown().await.unwrap();
    let TestBroker { broker, dir } = test;
    drop(broker);
    std::fs::remove_dir_all(dir.path().join("__cluster_metadata-0")).unwrap();
    let error = Broker::start(BrokerConfig::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, BrokerError::MetadataMissing { count: 1, .. }), "{error}");
    assert!(dir.path().join("t-0").exists());
}

#[tokio::test]
async fn two_brokers_do_not_share_a_directory_or_a_port() {
    let test = TestBroker::start_with(|config| config.listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let error = Broker::start(BrokerConfig::new(test.dir.path())).await.unwrap_err();
    assert!(matches!(error, BrokerError::Log(_)), "{error}");
    let other = tempfile::tempdir().unwrap();
    let config = BrokerConfig { listen: test.broker.local_addr(), ..BrokerConfig::new(other.path()) };
    let error = Broker::start(config).await.unwrap_err();
    assert!(matches!(error, BrokerError::Listen { .. }), "{error}");
    assert!(std::fs::read_dir(other.path()).unwrap().next().is_none(), "nothing was touched");
}

#[tokio::test]
async fn a_stop_ends_connections_and_is_quick() {
    let test = TestBroker::start().await;
    let mut client = test.client();
    client.create_topic("t", 1, &[]).await;
    let mut fetch = crate::support::fetch_request("t", 0, 0);
    fetch.max_wait_ms = 60_000;
    client.send(12, &fetch).await;
    let begun = Instant::now();
    test.broker.shutdown().await.unwrap();
    assert!(client.frame().await.is_none());
    assert!(begun.elapsed() < Duration::from_secs(40));
    test.broker.shutdown().await.unwrap();
}

/// Sends batches of one record as fast as the connection takes them, reads the answers until the connection ends, and
/// returns how many there were.
async fn flood(address: std::net::SocketAddr) -> u64 {
    // The stop may come before the connection is taken.
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return 0 };
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        let request = crate::support::produce_request("t", 0, -1, batch(&["a"]));
        let frame = encode_request(&request, 9, 1, Some("test")).unwrap().into_bytes();
        while write.write_all(&frame).await.is_ok() {}
    });
    let mut answers = 0;
    while let Ok(length) = read.read_i32().await {
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        read.read_exact(&mut frame).await.expect("no answer is cut off");
        answers += 1;
    }
    sending.abort();
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_answered_before_a_stop() {
    for round in 0..12 {
        let test =
            TestBroker::start_with(|config| config.listen = Some("127.0.0.1:0".parse().unwrap())).await;
        // Every batch waits for the disk.
        test.client().create_topic("t", 1, &[("flush.messages", "1")]).await;
        let clients: Vec<_> =
            (0..3).map(|_| tokio::spawn(flood(test.broker.local_addr().unwrap()))).collect();
        tokio::time::sleep(Duration::from_millis(5 * round)).await;
        test.broker.shutdown().await.unwrap();
        let mut answers = 0;
        for client in clients {
            answers += client.await.unwrap();
        }
        let TestBroker { broker, dir } = test;
        drop(broker);
        let after = TestBroker::start_in(dir, |_| {}).await;
        let end = after.client().fetch("t", 0, 0).await.high_watermark;
        assert_eq!(i64::try_from(answers).unwrap(), end, "round {round}: what is in the log was answered");
    }
}
