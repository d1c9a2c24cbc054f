//! Fetch, ListOffsets and epochs: what readers see, and when.

use std::time::{Duration, Instant};

use towpath_record::{BatchBuilder, Compression};
use towpath_wire::fetch::{FetchPartition, FetchTopic, ForgottenTopic};
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopic};
use towpath_wire::offset_for_leader_epoch::{EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopic};
use towpath_wire::{ErrorCode, FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use uuid::Uuid;

use crate::support::{
    Client, TestBroker, batch, code, fetch_request, fetched, now_ms, produce_request, records,
};

#[tokio::test]
async fn every_version_reads() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let id = client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, batch(&["a", "b"])).await;
    client.produce("t", 0, batch(&[&"c".repeat(100_000)])).await;
    for version in 4..=18 {
        let mut request = fetch_request("t", 0, 0);
        if version >= 13 {
            request.topics[0].topic.clear();
            request.topics[0].topic_id = id;
        }
        request.isolation_level = i8::from(version % 2 == 0);
        let response = client.call(version, &request).await;
        let data = &response.responses[0].partitions[0];
        assert_eq!(
            (data.error_code, data.high_watermark, data.last_stable_offset),
            (0, 3, 3),
            "version {version}"
        );
        let read = records(data);
        assert_eq!(read[1], (1, "b".to_owned()));
        assert_eq!(read[2].1.len(), 100_000);
        assert_eq!(data.aborted_transactions.is_some(), version % 2 == 0, "read_committed gets a list");
    }
}

#[tokio::test]
async fn the_batch_that_contains_the_offset_comes_whole() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, batch(&["a", "b", "c"])).await;
    client.produce("t", 0, batch(&["d"])).await;
    let read = records(&client.fetch("t", 0, 1).await);
    assert_eq!(read.first().unwrap().0, 0);
    assert_eq!(read.last().unwrap().0, 3);
    assert_eq!(records(&client.fetch("t", 0, 3).await), [(3, "d".to_owned())]);
    let end = client.fetch("t", 0, 4).await;
    assert_eq!((end.error_code, end.records.unwrap().len()), (0, 0), "at the end: empty, no error");
    for offset in [5, -1, i64::MAX] {
        assert_eq!(
            code(client.fetch("t", 0, offset).await.error_code),
            ErrorCode::OffsetOutOfRange,
            "{offset}"
        );
    }
}

#[tokio::test]
async fn the_first_partition_with_data_may_exceed_the_bounds_and_no_other() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 3, &[]).await;
    let large = "x".repeat(5000);
    for partition in 1..3 {
        client.produce("t", partition, batch(&[&large])).await;
        client.produce("t", partition, batch(&[&large])).await;
    }
    let mut request = fetch_request("t", 0, 0);
    request.max_bytes = 100;
    request.topics[0].partitions = (0..3)
        .map(|partition| FetchPartition { partition, partition_max_bytes: 50, ..FetchPartition::default() })
        .collect();
    let response = client.call(12, &request).await;
    let counts: Vec<usize> =
        response.responses[0].partitions.iter().map(|data| records(data).len()).collect();
    assert_eq!(counts, [0, 1, 0]);
}

#[tokio::test]
async fn a_fetch_waits_for_bytes_or_for_its_time() {
    let broker = TestBroker::start().await;
    let (mut reader, mut writer) = (broker.client(), broker.client());
    writer.create_topic("t", 2, &[]).await;
    let mut request = fetch_request("t", 0, 0);
    request.max_wait_ms = 300;
    let begun = Instant::now();
    let response = reader.call(12, &request).await;
    assert!(begun.elapsed() >= Duration::from_millis(290), "nothing comes: the time passes");
    assert_eq!(records(&response.responses[0].partitions[0]).len(), 0);

    request.max_wait_ms = 50_000;
    request.min_bytes = 600;
    request.topics[0].partitions.push(FetchPartition {
        partition: 1,
        partition_max_bytes: 9999,
        ..FetchPartition::default()
    });
    let begun = Instant::now();
    let id = reader.send(12, &request).await;
    writer.produce("t", 0, batch(&[&"a".repeat(200)])).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.produce("t", 1, batch(&[&"b".repeat(200)])).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.produce("t", 0, batch(&[&"c".repeat(200)])).await;
    let response = reader.receive::<FetchRequest>(12, id).await;
    let counts: Vec<usize> =
        response.responses[0].partitions.iter().map(|data| records(data).len()).collect();
    assert_eq!(counts, [2, 1], "the bytes of all partitions count together");
    assert!(begun.elapsed() < Duration::from_secs(40));
}

#[tokio::test]
async fn errors_do_not_wait() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let waiting = |mut request: FetchRequest| {
        request.max_wait_ms = 60_000;
        request
    };
    let unknown = client.call(12, &waiting(fetch_request("u", 0, 0))).await;
    assert_eq!(code(unknown.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let mut by_id = waiting(fetch_request("", 0, 0));
    by_id.topics[0].topic_id = Uuid::new_v4();
    let unknown = client.call(13, &by_id).await;
    assert_eq!(code(unknown.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicId);
    for (epoch, expected) in [(1, ErrorCode::UnknownLeaderEpoch), (-1, ErrorCode::None)] {
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.call(12, &request).await;
        assert_eq!(code(response.responses[0].partitions[0].error_code), expected);
    }
    let mut follower = fetch_request("t", 0, 0);
    follower.replica_id = 3;
    for (epoch, expected) in [(-1, ErrorCode::NotLeaderOrFollower), (0, ErrorCode::UnknownLeaderEpoch)] {
        follower.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.call(12, &follower).await;
        assert_eq!(code(response.responses[0].partitions[0].error_code), expected);
    }
}

#[tokio::test]
async fn a_deleted_topic_ends_the_wait() {
    let broker = TestBroker::start().await;
    let (mut reader, mut admin) = (broker.client(), broker.client());
    admin.create_topic("t", 1, &[]).await;
    let mut request = fetch_request("t", 0, 0);
    request.max_wait_ms = 60_000;
    let id = reader.send(12, &request).await;
    let delete =
        towpath_wire::DeleteTopicsRequest { topic_names: vec!["t".to_owned()], ..Default::default() };
    assert_eq!(admin.call(5, &delete).await.responses[0].error_code, 0);
    let response = reader.receive::<FetchRequest>(12, id).await;
    assert_eq!(code(response.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    // Whoever knows the topic by its id is told the same of the id, and a new topic of the name is another one.
    let topic_id = admin.create_topic("t", 1, &[]).await;
    let mut request = fetch_request("", 0, 0);
    request.max_wait_ms = 60_000;
    request.topics[0].topic_id = topic_id;
    let id = reader.send(13, &request).await;
    assert_eq!(admin.call(5, &delete).await.responses[0].error_code, 0);
    let response = reader.receive::<FetchRequest>(13, id).await;
    assert_eq!(code(response.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicId);
    admin.create_topic("t", 1, &[]).await;
    let response = reader.call(13, &request).await;
    assert_eq!(code(response.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicId);
}

#[tokio::test]
async fn a_consumer_of_a_topic_that_is_deleted_and_made_anew_gets_nothing_of_the_old_one() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    for _ in 0..10 {
        client.produce("t", 0, batch(&[&"x".repeat(20_000)])).await;
    }
    // A session by name, which goes on at offset 10.
    let opened = session(&mut client, 0, 0, from("t", &[(0, 10)])).await;
    let delete =
        towpath_wire::DeleteTopicsRequest { topic_names: vec!["t".to_owned()], ..Default::default() };
    client.call(5, &delete).await;
    let gone = session(&mut client, opened.session_id, 1, Vec::new()).await;
    assert_eq!(code(gone.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, batch(&["new"])).await;
    let beyond = session(&mut client, opened.session_id, 2, Vec::new()).await;
    assert_eq!(code(beyond.responses[0].partitions[0].error_code), ErrorCode::OffsetOutOfRange);
    let again = session(&mut client, opened.session_id, 3, from("t", &[(0, 0)])).await;
    assert_eq!(records(&again.responses[0].partitions[0]), [(0, "new".to_owned())]);
}

async fn session(client: &mut Client, id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchResponse {
    let request = FetchRequest { session_id: id, session_epoch: epoch, topics, ..fetch_request("t", 0, 0) };
    client.call(12, &request).await
}

fn from(topic: &str, positions: &[(i32, i64)]) -> Vec<FetchTopic> {
    let partitions = positions.iter().map(|(partition, offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    vec![FetchTopic { topic: topic.to_owned(), partitions: partitions.collect(), ..FetchTopic::default() }]
}

#[tokio::test]
async fn a_session_says_only_what_is_new() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 3, &[]).await;
    let full = session(&mut client, 0, 0, from("t", &[(0, 0), (1, 0), (2, 0)])).await;
    assert_ne!(full.session_id, 0);
    assert_eq!(fetched(&full).len(), 3, "a full answer says everything");
    let id = full.session_id;
    let quiet = session(&mut client, id, 1, vec![]).await;
    assert_eq!((quiet.session_id, fetched(&quiet)), (id, vec![]));
    client.produce("t", 1, batch(&["a"])).await;
    let news = session(&mut client, id, 2, vec![]).await;
    assert_eq!(fetched(&news), [("t".to_owned(), 1)]);
    let moved = session(&mut client, id, 3, from("t", &[(1, 1)])).await;
    assert_eq!(fetched(&moved), [], "what was read and said is not news");
    let forgotten = FetchRequest {
        session_id: id,
        session_epoch: 4,
        topics: vec![],
        forgotten_topics_data: vec![ForgottenTopic {
            topic: "t".to_owned(),
            partitions: vec![0],
            ..ForgottenTopic::default()
        }],
        ..fetch_request("t", 0, 0)
    };
    client.produce("t", 0, batch(&["b"])).await;
    client.produce("t", 2, batch(&["c"])).await;
    assert_eq!(fetched(&client.call(12, &forgotten).await), [("t".to_owned(), 2)]);
    let wrong = session(&mut client, id, 9, vec![]).await;
    assert_eq!(code(wrong.error_code), ErrorCode::InvalidFetchSessionEpoch);
    let unknown = session(&mut client, id + 1, 5, vec![]).await;
    assert_eq!(code(unknown.error_code), ErrorCode::FetchSessionIdNotFound);
    let by_id = FetchRequest { session_id: id, session_epoch: 5, topics: vec![], ..fetch_request("t", 0, 0) };
    assert_eq!(code(client.call(13, &by_id).await.error_code), ErrorCode::FetchSessionTopicIdError);
    let last = session(&mut client, id, -1, from("t", &[(1, 0)])).await;
    assert_eq!((last.session_id, fetched(&last).len()), (0, 1));
    let gone = session(&mut client, id, 5, vec![]).await;
    assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);
}

#[tokio::test]
async fn with_no_room_for_a_session_a_client_goes_on_without() {
    let broker = TestBroker::start_with(|config| config.limits.fetch_sessions_max = 1).await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    assert_ne!(session(&mut client, 0, 0, from("t", &[(0, 0)])).await.session_id, 0);
    let second = session(&mut client, 0, 0, from("t", &[(0, 0)])).await;
    assert_eq!((second.error_code, second.session_id, fetched(&second).len()), (0, 0, 1));
}

#[tokio::test]
async fn cold_data_comes_from_the_file_and_hot_data_from_memory_alike() {
    let broker = TestBroker::start_with(|config| {
        config.listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("segment.bytes", "1048576")]).await;
    let mut expected = Vec::new();
    for index in 0..400 {
        let value = format!("{index}-{}", "y".repeat(index * 37 % 20_000));
        client.produce("t", 0, batch(&[&value])).await;
        expected.push(value);
    }
    // Over TCP the file is sent as it is, over a stream of the process it is read.
    let address = broker.broker.local_addr().unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    for over_tcp in [false, true] {
        let mut read = Vec::new();
        while read.len() < expected.len() {
            let request = fetch_request("t", 0, i64::try_from(read.len()).unwrap());
            let data = if over_tcp {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let frame = towpath_wire::frame::encode_request(&request, 12, 1, None).unwrap().into_bytes();
                socket.write_all(&frame).await.unwrap();
                let length = usize::try_from(socket.read_i32().await.unwrap()).unwrap();
                let mut answer = vec![0; length];
                socket.read_exact(&mut answer).await.unwrap();
                let (_, response) =
                    towpath_wire::frame::decode_response::<FetchRequest>(answer.into(), 12).unwrap();
                response.responses[0].partitions[0].clone()
            } else {
                client.call(12, &request).await.responses[0].partitions[0].clone()
            };
            read.extend(records(&data).into_iter().map(|(_, value)| value));
        }
        assert!(read == expected, "over TCP: {over_tcp}");
    }
}

async fn list(client: &mut Client, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() }],
        }],
        ..ListOffsetsRequest::default()
    };
    client.call(version, &request).await.topics[0].partitions[0].clone()
}

#[tokio::test]
async fn offsets_are_listed_by_time() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let now = now_ms();
    let mut builder = BatchBuilder::new(Compression::None);
    for (delta, value) in [(0, "a"), (100, "b"), (50, "c")] {
        builder.append(now + delta, None, Some(value.as_bytes()), &[]).unwrap();
    }
    client.produce("t", 0, builder.build().unwrap()).await;
    let found = |response: ListOffsetsPartitionResponse| (response.offset, response.timestamp);
    for version in 1..=11 {
        assert_eq!(found(list(&mut client, version, -1).await), (3, -1));
        assert_eq!(found(list(&mut client, version, -2).await), (0, -1));
        assert_eq!(found(list(&mut client, version, now + 1).await), (1, now + 100));
        assert_eq!(found(list(&mut client, version, now + 101).await), (-1, -1), "past everything");
        let special = [(-3, 7, (1, now + 100)), (-4, 8, (0, -1)), (-5, 9, (-1, -1)), (-6, 11, (-1, -1))];
        for (timestamp, from, expected) in special {
            let response = list(&mut client, version, timestamp).await;
            if version < from {
                assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion, "{version} {timestamp}");
            } else {
                assert_eq!((response.error_code, found(response)), (0, expected), "{version} {timestamp}");
            }
        }
        assert_eq!(code(list(&mut client, version, -7).await.error_code), ErrorCode::UnsupportedVersion);
    }
    assert_eq!(list(&mut client, 4, -1).await.leader_epoch, 0);
    let twice = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() }; 2],
        }],
        ..ListOffsetsRequest::default()
    };
    let response = client.call(7, &twice).await;
    assert!(response.topics[0].partitions.iter().all(|p| code(p.error_code) == ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn leader_epochs_have_ends() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    client.call(9, &produce_request("t", 0, 1, batch(&["a"]))).await;
    let mut ask = async |partition: i32, current: i32, epoch: i32| -> EpochEndOffset {
        let request = OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic {
                topic: "t".to_owned(),
                partitions: vec![OffsetForLeaderPartition {
                    partition,
                    current_leader_epoch: current,
                    leader_epoch: epoch,
                }],
            }],
            ..OffsetForLeaderEpochRequest::default()
        };
        client.call(4, &request).await.topics[0].partitions[0].clone()
    };
    let end = ask(0, 0, 0).await;
    assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, 0, 1));
    let unknown = ask(0, -1, 7).await;
    assert_eq!((unknown.error_code, unknown.leader_epoch, unknown.end_offset), (0, -1, -1));
    assert_eq!(code(ask(0, 5, 0).await.error_code), ErrorCode::UnknownLeaderEpoch);
    assert_eq!(code(ask(1, -1, 0).await.error_code), ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test]
async fn a_reader_with_another_history_is_told_where_it_diverges() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, batch(&["a", "b"])).await;
    let mut request = fetch_request("t", 0, 5);
    request.max_wait_ms = 60_000;
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let response = client.call(12, &request).await;
    let data = &response.responses[0].partitions[0];
    assert_eq!((data.error_code, data.diverging_epoch.epoch, data.diverging_epoch.end_offset), (0, 0, 2));
    request.topics[0].partitions[0].fetch_offset = 0;
    let response = client.call(12, &request).await;
    assert_eq!(records(&response.responses[0].partitions[0]).len(), 2);
}
