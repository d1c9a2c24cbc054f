//! The producer, and raw batches.

use std::collections::BTreeSet;
use std::time::Duration;

use towpath_client::{
    Acks, Client, ClientError, Codec, Compression, ErrorCode, IsolationLevel, ProducerConfig, ProducerRecord,
    RawFetch, StartAt, murmur2,
};
use towpath_types::{Offset, TopicName, TopicPartition};

use super::{fill, manual, numbers, partitions, producer, topic, topic_with, values};

pub(crate) async fn every_compression_arrives_as_it_was(client: Client) {
    for compression in Compression::ALL {
        let topic = topic(&client, "compressed", 1).await;
        let config = ProducerConfig { compression: Codec::from(compression), ..Default::default() };
        let producer = client.producer(config);
        let headers = [("trace", Some(&b"1"[..])), ("empty", None), ("trace", Some(&b"2"[..]))];
        let long = vec![b'x'; 10_000];
        let records = [
            ProducerRecord { key: Some(b"k"), value: Some(&long), ..ProducerRecord::new(&topic) },
            ProducerRecord { value: None, key: Some(b""), headers: &headers, ..ProducerRecord::new(&topic) },
            ProducerRecord { timestamp_ms: Some(1_234), value: Some(b""), ..ProducerRecord::new(&topic) },
        ];
        for record in records {
            producer.send(record).await.unwrap();
        }
        producer.flush().await.unwrap();
        let consumer = manual(&client, &[(partitions(&topic, 1).remove(0), StartAt::Earliest)]);
        let batches = consumer.poll(super::PATIENCE).await.unwrap();
        let got: Vec<_> = batches[0].records().map(Result::unwrap).collect();
        assert_eq!(got.len(), 3, "{compression}");
        assert_eq!((got[0].key, got[0].value), (Some(&b"k"[..]), Some(&long[..])));
        assert_eq!((got[1].key, got[1].value), (Some(&b""[..]), None));
        let headers: Vec<_> = got[1].headers.iter().map(|h| (h.key, h.value)).collect();
        assert_eq!(headers, [(&b"trace"[..], Some(&b"1"[..])), (b"empty", None), (b"trace", Some(b"2"))]);
        assert_eq!((got[2].offset, got[2].timestamp_ms), (Offset::new(2), 1_234));
        assert!(!batches[0].topic_id.is_zero());
    }
}

pub(crate) async fn acks_tell_where_records_are(client: Client) {
    let topic = topic(&client, "acks", 1).await;
    let producer = producer(&client);
    let mut acks = Vec::new();
    for number in 0..1_000u32 {
        let value = number.to_be_bytes();
        let record = ProducerRecord {
            value: Some(&value),
            timestamp_ms: Some(i64::from(number)),
            ..ProducerRecord::new(&topic)
        };
        acks.push(producer.send_with_ack(record).await.unwrap());
    }
    producer.barrier().await.unwrap();
    for (number, ack) in acks.into_iter().enumerate() {
        let metadata = ack.await.unwrap();
        assert_eq!(metadata.offset, Offset::new(number as i64));
        assert_eq!((metadata.partition, metadata.timestamp_ms), (0, number as i64));
    }
    assert_eq!(producer.buffered_bytes(), 0);
}

pub(crate) async fn keys_go_where_kafka_puts_them(client: Client) {
    let topic = topic(&client, "keys", 7).await;
    let producer = producer(&client);
    for number in 0..200u32 {
        let key = number.to_string();
        let record =
            ProducerRecord { key: Some(key.as_bytes()), value: Some(b"v"), ..ProducerRecord::new(&topic) };
        let ack = producer.send_with_ack(record).await.unwrap();
        let expected = (murmur2(key.as_bytes()) & i32::MAX) % 7;
        assert_eq!(ack.await.unwrap().partition, expected);
    }
}

pub(crate) async fn records_without_a_key_spread(client: Client) {
    let topic = topic(&client, "sticky", 4).await;
    let producer = producer(&client);
    let value = vec![0; 1_000];
    let mut acks = Vec::new();
    for _ in 0..2_000 {
        let record = ProducerRecord { value: Some(&value), ..ProducerRecord::new(&topic) };
        acks.push(producer.send_with_ack(record).await.unwrap());
    }
    let mut used = BTreeSet::new();
    for ack in acks {
        used.insert(ack.await.unwrap().partition);
    }
    assert!(used.len() >= 3, "2 MB stick to {used:?}");
}

pub(crate) async fn a_small_buffer_slows_down_and_loses_nothing(client: Client) {
    let topic = topic(&client, "backpressure", 3).await;
    let config = ProducerConfig { buffer_memory: 20_000, batch_bytes: 4_000, ..Default::default() };
    let producer = client.producer(config);
    for number in 0..30_000u32 {
        let value = (number / 3).to_string();
        let record = ProducerRecord {
            partition: Some((number % 3) as i32),
            value: Some(value.as_bytes()),
            ..ProducerRecord::new(&topic)
        };
        producer.send(record).await.unwrap();
        assert!(producer.buffered_bytes() <= 20_000 + 4_096);
    }
    producer.flush().await.unwrap();
    let from: Vec<_> = partitions(&topic, 3).into_iter().map(|p| (p, StartAt::Earliest)).collect();
    let values = values(&manual(&client, &from), 30_000).await;
    for partition in 0..3 {
        assert_eq!(values[&partition], numbers(0..10_000), "in order, once each");
    }
}

pub(crate) async fn weaker_acks_work(client: Client) {
    for acks in [Acks::None, Acks::Leader] {
        let topic = topic(&client, "weak", 1).await;
        let producer = client.producer(ProducerConfig { acks, ..Default::default() });
        fill(&producer, &topic, 0, 5_000).await;
        let from = [(partitions(&topic, 1).remove(0), StartAt::Earliest)];
        let values = values(&manual(&client, &from), 5_000).await;
        assert_eq!(values[&0], numbers(0..5_000), "{acks:?}");
    }
}

pub(crate) async fn what_the_broker_refuses_is_reported_and_the_rest_goes_on(client: Client) {
    let topic = topic_with(&client, "small", 1, &[("max.message.bytes", "2000")]).await;
    let producer = client.producer(ProducerConfig { linger_ms: 0, ..Default::default() });
    let large: Vec<u8> = (0..5_000u32).map(|n| ((n * 7_919) >> 3) as u8).collect();
    let send = async |value: &[u8]| {
        let record = ProducerRecord { value: Some(value), ..ProducerRecord::new(&topic) };
        producer.send_with_ack(record).await.unwrap().await
    };
    send(b"first").await.unwrap();
    let error = send(&large).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge), "{error}");
    assert!(!error.is_retriable());
    assert!(producer.barrier().await.is_err(), "the barrier reports it, too");
    // The sequence has a gap now: the broker and the producer must find together again.
    for number in 0..10 {
        let metadata = send(number.to_string().as_bytes()).await.unwrap();
        assert_eq!(metadata.offset, Offset::new(1 + number));
    }
    producer.barrier().await.unwrap();
}

pub(crate) async fn a_record_above_the_limit_is_refused_at_once(client: Client) {
    let topic = topic(&client, "limit", 1).await;
    let producer = client.producer(ProducerConfig { record_bytes_max: 1_000, ..Default::default() });
    let value = vec![0; 1_001];
    let record = ProducerRecord { value: Some(&value), ..ProducerRecord::new(&topic) };
    assert!(matches!(producer.send(record).await, Err(ClientError::RecordTooLarge { max: 1_000, .. })));
}

pub(crate) async fn unknown_topics_and_partitions_are_errors(client: Client) {
    let topic = topic(&client, "known", 2).await;
    let config = ProducerConfig { allow_auto_create_topics: false, max_block_ms: 500, ..Default::default() };
    let producer = client.producer(config);
    let record = ProducerRecord { partition: Some(2), ..ProducerRecord::new(&topic) };
    let error = producer.send(record).await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownPartition { count: 2, .. }), "{error}");
    let unknown = TopicName::new("there-is-no-such-topic").unwrap();
    let error = producer.send(ProducerRecord::new(&unknown)).await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownTopic { .. }), "{error}");
}

pub(crate) async fn whole_batches_travel_raw(client: Client) {
    let (from, to) = (topic(&client, "raw-from", 2).await, topic(&client, "raw-to", 2).await);
    let config = ProducerConfig { compression: Codec::from(Compression::Zstd), ..Default::default() };
    let producer = client.producer(config);
    fill(&producer, &from, 0, 700).await;
    // Of several batches some begin elsewhere than at offset 0.
    for number in 700..1_000u32 {
        let value = number.to_string();
        let record = ProducerRecord {
            partition: Some(0),
            value: Some(value.as_bytes()),
            ..ProducerRecord::new(&from)
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    fill(&producer, &from, 1, 500).await;
    let raw = client.raw();
    let mut positions = vec![Offset::ZERO; 2];
    while positions != [Offset::new(1_000), Offset::new(500)] {
        let wanted = partitions(&from, 2).into_iter().zip(positions.clone()).collect();
        let fetch = RawFetch {
            partitions: wanted,
            wait_max: Duration::from_millis(500),
            bytes_min: 1,
            bytes_max: 1 << 20,
            partition_bytes_max: 1 << 20,
            isolation_level: IsolationLevel::ReadUncommitted,
        };
        for (partition, fetched) in raw.fetch(&fetch).await.unwrap() {
            let fetched = fetched.unwrap();
            assert!(!fetched.topic_id.is_zero());
            for batch in towpath_record::batches(&fetched.batches) {
                let batch = batch.unwrap();
                let target = TopicPartition::new(to.clone(), partition.partition);
                // The producer's sequences mean nothing in another partition's log.
                let mut bytes = batch.bytes().to_vec();
                let none = towpath_types::ProducerId::new(-1);
                let epoch = towpath_types::ProducerEpoch::new(-1);
                towpath_record::edit::set_producer(&mut bytes, none, epoch, -1).unwrap();
                let produced = raw.produce(vec![(target, bytes.into())], Acks::All).await.unwrap();
                let produced = produced[0].1.as_ref().unwrap();
                assert_eq!(produced.base_offset, batch.base_offset);
                positions[partition.partition as usize] = batch.next_offset();
            }
        }
    }
    let all: Vec<_> = partitions(&to, 2).into_iter().map(|p| (p, StartAt::Earliest)).collect();
    let values = values(&manual(&client, &all), 1_500).await;
    assert_eq!((&values[&0], &values[&1]), (&numbers(0..1_000), &numbers(0..500)));
}
