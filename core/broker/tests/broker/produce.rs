//! Produce: what is taken, what is refused and how.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use towpath_wire::frame::encode_request;

use crate::support::{TestBroker, batch, batch_with, code, fetch_request, produce_request, records};
use bytes::{BufMut, Bytes, BytesMut};
use towpath_record::{BatchBuilder, BatchHeader, Compression};
use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use towpath_wire::{ErrorCode, FetchRequest, InitProducerIdRequest, ProduceRequest};
use uuid::Uuid;

#[tokio::test]
async fn offsets_follow_each_other_with_every_compression() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    for (index, compression) in (0..).zip(Compression::ALL) {
        let response = client.produce("t", 0, batch_with(compression, None, &["a", "b"])).await;
        assert_eq!(code(response.error_code), ErrorCode::None, "{compression}: {:?}", response.error_message);
        assert_eq!(response.base_offset, 2 * index);
        assert_eq!((response.log_append_time_ms, response.log_start_offset), (-1, 0));
    }
    let fetched = client.fetch("t", 0, 0).await;
    assert_eq!(fetched.high_watermark, 10);
    assert_eq!(records(&fetched).len(), 10);
}

#[tokio::test]
async fn every_version_appends() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let id = client.create_topic("t", 1, &[]).await;
    for (index, version) in (0..).zip(3..=13) {
        let mut request = produce_request("t", 0, 1, batch(&["a"]));
        if version >= 13 {
            request.topic_data[0].name.clear();
            request.topic_data[0].topic_id = id;
        }
        let response = client.call(version, &request).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, index), "version {version}");
    }
}

#[tokio::test]
async fn acks_are_checked_and_zero_has_no_answer() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let response = client.call(9, &produce_request("t", 0, 2, batch(&["a"]))).await;
    assert_eq!(code(response.responses[0].partition_responses[0].error_code), ErrorCode::InvalidRequiredAcks);
    client.send(9, &produce_request("t", 0, 0, batch(&["quiet"]))).await;
    // The next answer is the next request's.
    let response = client.produce("t", 0, batch(&["loud"])).await;
    assert_eq!(response.base_offset, 1);
    client.send(9, &produce_request("nowhere", 0, 0, batch(&["lost"]))).await;
    assert!(client.frame().await.is_none(), "an error without an answer ends the connection");
}

/// More of them than a connection has in work at a time; they stand in its buffer together.
#[tokio::test]
async fn a_burst_without_answers_is_appended_whole() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    for closes in [false, true] {
        let mut sender = broker.client();
        let request = produce_request("t", 0, 0, batch(&["quiet"]));
        let frame = encode_request(&request, 9, 1, None).unwrap().into_bytes();
        sender.stream.write_all(&frame.repeat(300)).await.unwrap();
        if closes {
            sender.stream.shutdown().await.unwrap();
        }
        let expected = if closes { 600 } else { 300 };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let end = client.fetch("t", 0, 0).await.high_watermark;
            if end == expected {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{end} of {expected} are there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn unknown_topics_and_partitions() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let response = client.produce("u", 0, batch(&["a"])).await;
    assert_eq!(code(response.error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(response.base_offset, -1);
    for partition in [1, -1] {
        let response = client.produce("t", partition, batch(&["a"])).await;
        assert_eq!(code(response.error_code), ErrorCode::UnknownTopicOrPartition);
    }
    let mut request = produce_request("", 0, -1, batch(&["a"]));
    request.topic_data[0].topic_id = Uuid::new_v4();
    let response = client.call(13, &request).await;
    assert_eq!(code(response.responses[0].partition_responses[0].error_code), ErrorCode::UnknownTopicId);
}

fn flipped(batch: &Bytes, at: usize) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[at] ^= 1;
    bytes.freeze()
}

#[tokio::test]
async fn broken_batches_are_refused_and_nothing_is_appended() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("max.message.bytes", "1000")]).await;
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    let good = batch(&["a", "b"]);
    let last = good.len() - 1;
    let two = Bytes::from([&good[..], &good[..]].concat());
    let mut magic1 = BytesMut::from(&good[..]);
    magic1[16] = 1;
    for (name, topic, records, expected) in [
        ("no batch", "t", Bytes::new(), ErrorCode::InvalidRecord),
        ("two batches", "t", two, ErrorCode::InvalidRecord),
        ("a flipped bit", "t", flipped(&good, last), ErrorCode::CorruptMessage),
        ("cut short", "t", good.slice(..last), ErrorCode::InvalidRecord),
        ("old magic", "t", magic1.freeze(), ErrorCode::InvalidRecord),
        ("too large", "t", batch(&[&"x".repeat(1000)]), ErrorCode::MessageTooLarge),
        ("no key", "compacted", good.clone(), ErrorCode::InvalidRecord),
    ] {
        let response = client.produce(topic, 0, records).await;
        assert_eq!(code(response.error_code), expected, "{name}: {:?}", response.error_message);
        assert!(response.error_message.is_some(), "{name}");
        assert_eq!(client.fetch(topic, 0, 0).await.high_watermark, 0, "{name}");
    }
    let response = client.produce("compacted", 0, good).await;
    let indices: Vec<i32> = response.record_errors.iter().map(|record| record.batch_index).collect();
    assert_eq!(indices, [0, 1], "each record at fault is named");
    let none = ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            name: "t".to_owned(),
            partition_data: vec![PartitionProduceData { index: 0, records: None }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let response = client.call(9, &none).await;
    assert_eq!(code(response.responses[0].partition_responses[0].error_code), ErrorCode::InvalidRecord);
}

#[tokio::test]
async fn nameless_transactions_and_control_batches_are_refused() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(ProducerId::new(1), ProducerEpoch::new(0), 0);
    builder.set_transactional(true);
    builder.append(0, None, Some(b"a"), &[]).unwrap();
    let response = client.produce("t", 0, builder.build().unwrap()).await;
    assert_eq!(code(response.error_code), ErrorCode::TransactionalIdAuthorizationFailed, "it names none");
    builder.set_producer(ProducerId::new(1), ProducerEpoch::new(0), 0);
    builder.set_control(true);
    builder.append(0, None, Some(b"a"), &[]).unwrap();
    let response = client.produce("t", 0, builder.build().unwrap()).await;
    assert_eq!(code(response.error_code), ErrorCode::InvalidRecord);
    let init = InitProducerIdRequest {
        transactional_id: Some(String::new()),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    assert_eq!(code(client.call(4, &init).await.error_code), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn zstd_needs_version_7() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let request = produce_request("t", 0, -1, batch_with(Compression::Zstd, None, &["a"]));
    let response = client.call(6, &request).await;
    assert_eq!(
        code(response.responses[0].partition_responses[0].error_code),
        ErrorCode::UnsupportedCompressionType
    );
    assert_eq!(client.call(7, &request).await.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn internal_topics_are_for_the_broker() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("__consumer_offsets", 1, &[]).await;
    client.create_topic("__mine", 1, &[]).await;
    let response = client.produce("__consumer_offsets", 0, batch(&["a"])).await;
    assert_eq!(code(response.error_code), ErrorCode::InvalidTopicException);
    assert_eq!(client.produce("__mine", 0, batch(&["a"])).await.error_code, 0);
    let request = produce_request("__consumer_offsets", 0, -1, batch(&["a"]));
    let id = client.send_as(9, &request, Some("__admin_client")).await;
    let response = client.receive::<ProduceRequest>(9, id).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn timestamps_are_bounded_and_may_be_the_brokers() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("bounded", 1, &[("message.timestamp.before.max.ms", "1000")]).await;
    client.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1, None, Some(b"old"), &[]).unwrap();
    let old = builder.build().unwrap();
    let response = client.produce("bounded", 0, old.clone()).await;
    assert_eq!(code(response.error_code), ErrorCode::InvalidTimestamp);
    assert_eq!(response.record_errors.len(), 1);
    let before = crate::support::now_ms();
    let response = client.produce("stamped", 0, old).await;
    assert_eq!(response.error_code, 0);
    assert!(response.log_append_time_ms >= before);
}

#[tokio::test]
async fn idempotence_takes_each_batch_once() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let init = client.call(4, &crate::support::init_producer_id()).await;
    assert_eq!((init.error_code, init.producer_epoch), (0, 0));
    let other = client.call(4, &crate::support::init_producer_id()).await;
    assert_ne!(init.producer_id, other.producer_id);
    let id = init.producer_id;
    let with =
        |epoch: i16, sequence: i32| batch_with(Compression::None, Some((id, epoch, sequence)), &["a", "b"]);
    assert_eq!(client.produce("t", 0, with(0, 0)).await.base_offset, 0);
    assert_eq!(client.produce("t", 0, with(0, 2)).await.base_offset, 2);
    let again = client.produce("t", 0, with(0, 0)).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0), "the original offsets");
    let gap = client.produce("t", 0, with(0, 6)).await;
    assert_eq!(code(gap.error_code), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(client.produce("t", 0, with(1, 0)).await.base_offset, 4);
    let fenced = client.produce("t", 0, with(0, 4)).await;
    assert_eq!(code(fenced.error_code), ErrorCode::InvalidProducerEpoch);
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 6);
}

#[tokio::test]
async fn a_flushed_topic_acknowledges_pipelined_batches_in_order() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("flush.messages", "1")]).await;
    let mut ids = Vec::new();
    for index in 0..50 {
        ids.push(client.send(9, &produce_request("t", 0, -1, batch(&[&index.to_string()]))).await);
    }
    for (index, id) in (0..).zip(ids) {
        let response = client.receive::<ProduceRequest>(9, id).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, index));
    }
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 50);
}

#[tokio::test]
async fn size_limits_of_batches_have_their_own_errors() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("small", 1, &[("max.message.bytes", "1000")]).await;
    client.create_topic("segment", 1, &[("segment.bytes", "1048576")]).await;
    client
        .create_topic("unpacked", 1, &[("max.message.bytes", "1000"), ("compression.type", "uncompressed")])
        .await;
    let zeros = "0".repeat(2_000);
    for (topic, records, expected) in [
        ("small", batch(&[&zeros]), ErrorCode::MessageTooLarge),
        ("small", batch_with(Compression::Gzip, None, &[&zeros]), ErrorCode::None),
        // Checked again after the topic's own codec.
        ("unpacked", batch_with(Compression::Gzip, None, &[&zeros]), ErrorCode::MessageTooLarge),
        ("unpacked", batch_with(Compression::Gzip, None, &["0"]), ErrorCode::None),
        // 1,048,580 bytes: the message limit allows them, the segment does not.
        ("segment", batch(&[&"x".repeat(1_048_505)]), ErrorCode::RecordListTooLarge),
        ("segment", batch(&[&"x".repeat(1_048_400)]), ErrorCode::None),
    ] {
        let bytes = records.len();
        let answer = client.produce(topic, 0, records).await;
        assert_eq!(code(answer.error_code), expected, "{topic}, {bytes} bytes: {:?}", answer.error_message);
    }
}

/// What is much work (large batches, the topic's own codec) is done on other threads: the order of an idempotent
/// producer's pipelined batches is kept all the same.
#[tokio::test]
async fn large_and_small_batches_keep_their_order() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("compression.type", "zstd")]).await;
    let noise = |index: usize| -> String {
        let letters = (0..if index.is_multiple_of(3) { 400_000 } else { 10 })
            .map(|at: usize| (index * 31 + at * at) % 26);
        letters.map(|letter| char::from(b'a' + letter as u8)).collect()
    };
    let id = client.call(4, &crate::support::init_producer_id()).await.producer_id;
    let mut sent = Vec::new();
    for index in 0..30usize {
        let compression = Compression::ALL[index % 5];
        let sequence = i32::try_from(index).unwrap();
        let batch = batch_with(compression, Some((id, 0, sequence)), &[&noise(index)]);
        sent.push(client.send(9, &produce_request("t", 0, -1, batch)).await);
        if index % 7 == 6 {
            // Another kind of request between them waits for its turn as well.
            let request = fetch_request("t", 0, 0);
            let fetch = client.send(12, &request).await;
            for (index, id) in (index - 6..).zip(sent.drain(..)) {
                let response = client.receive::<ProduceRequest>(9, id).await;
                let partition = &response.responses[0].partition_responses[0];
                let expected = (0, i64::try_from(index).unwrap());
                assert_eq!((partition.error_code, partition.base_offset), expected);
            }
            let fetched = client.receive::<FetchRequest>(12, fetch).await;
            let expected = i64::try_from(index + 1).unwrap();
            assert_eq!(fetched.responses[0].partitions[0].high_watermark, expected);
        }
    }
    for (index, id) in (28..).zip(sent) {
        let response = client.receive::<ProduceRequest>(9, id).await;
        assert_eq!(response.responses[0].partition_responses[0].base_offset, index);
    }
    let data = client.fetch("t", 0, 29).await;
    let stored = BatchHeader::parse(data.records.as_ref().unwrap()).unwrap();
    assert_eq!(stored.compression().unwrap(), Compression::Zstd);
    for index in [0, 1, 15, 29] {
        let data = client.fetch("t", 0, index).await;
        assert_eq!(records(&data)[0].1, noise(usize::try_from(index).unwrap()));
    }
}

/// A request may have a batch that is much work in its middle: those before it are appended once.
#[tokio::test]
async fn a_large_batch_among_others_is_appended_once_like_them() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 3, &[("compression.type", "gzip")]).await;
    client.create_topic("u", 1, &[]).await;
    let large: Vec<String> = (0..20_000).map(|index| format!("{index} {}", index * index)).collect();
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    let mut request = produce_request("t", 0, -1, batch(&["small"]));
    for (index, records) in [(1, batch(&large)), (7, batch(&["nowhere"])), (2, batch(&["small"]))] {
        let data = PartitionProduceData { index, records: Some(records) };
        request.topic_data[0].partition_data.push(data);
    }
    request
        .topic_data
        .extend(produce_request("u", 0, -1, batch_with(Compression::Lz4, None, &large)).topic_data);
    for round in 1..=2 {
        let response = client.call(9, &request).await;
        let answers: Vec<_> = response
            .responses
            .iter()
            .flat_map(|topic| {
                let partition =
                    |p: &PartitionProduceResponse| (topic.name.clone(), p.index, code(p.error_code));
                topic.partition_responses.iter().map(partition).collect::<Vec<_>>()
            })
            .collect();
        let (t, u) = ("t".to_owned(), "u".to_owned());
        let expected = [
            (t.clone(), 0, ErrorCode::None),
            (t.clone(), 1, ErrorCode::None),
            (t.clone(), 7, ErrorCode::UnknownTopicOrPartition),
            (t, 2, ErrorCode::None),
            (u, 0, ErrorCode::None),
        ];
        assert_eq!(answers, expected);
        for (topic, partition, count) in [("t", 0, 1), ("t", 1, 20_000), ("t", 2, 1), ("u", 0, 20_000)] {
            assert_eq!(
                client.fetch(topic, partition, 0).await.high_watermark,
                round * count,
                "{topic}-{partition}"
            );
        }
    }
}

#[tokio::test]
async fn a_batch_that_decompresses_to_gigabytes_is_refused() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("max.message.bytes", "10000000")]).await;
    // A gzip of 200 MiB of zeros, made by hand in a batch whose header claims one record.
    let mut builder = BatchBuilder::new(Compression::Gzip);
    let zeros = vec![0; 60 << 20];
    builder.append(0, None, Some(&zeros), &[]).unwrap();
    builder.append(0, None, Some(&zeros), &[]).unwrap();
    let built = builder.build().unwrap();
    // One more gzip member behind it: decoders go on with the next one.
    let member = &built[61..];
    let mut bomb = BytesMut::from(&built[..]);
    for _ in 0..20 {
        bomb.put_slice(member);
    }
    let length = i32::try_from(bomb.len() - 12).unwrap();
    bomb[8..12].copy_from_slice(&length.to_be_bytes());
    let mut bomb = bomb.to_vec();
    let (header, payload) = bomb.split_at_mut(61);
    towpath_record::edit::set_timestamp(header, payload, towpath_record::TimestampType::CreateTime, 0)
        .unwrap();
    let response = client.produce("t", 0, Bytes::from(bomb)).await;
    assert_eq!(code(response.error_code), ErrorCode::CorruptMessage, "{:?}", response.error_message);
    assert_eq!(client.produce("t", 0, batch(&["a"])).await.base_offset, 0, "the broker lives");
}
