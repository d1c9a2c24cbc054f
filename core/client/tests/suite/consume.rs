//! The consumer with a manual assignment.

use std::time::{Duration, Instant};

use towpath_client::{Client, ClientError, ConsumerConfig, NewTopic, OffsetReset, ProducerRecord, StartAt};
use towpath_types::{Offset, TopicName, TopicPartition};

use super::{PATIENCE, fill, manual, numbers, partitions, producer, topic, values};

pub(crate) async fn reading_starts_where_it_is_told(client: Client) {
    let topic = topic(&client, "starts", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    fill(&producer(&client), &topic, 0, 100).await;
    for (start, first) in
        [(StartAt::Earliest, 0), (StartAt::Offset(Offset::new(42)), 42), (StartAt::Timestamp(0), 0)]
    {
        let consumer = manual(&client, &[(partition.clone(), start)]);
        let values = values(&consumer, 100 - first as usize).await;
        assert_eq!(values[&0], numbers(first..100), "{start:?}");
        assert_eq!(consumer.position(&partition), Some(Offset::new(100)));
    }
    let consumer = manual(&client, &[(partition.clone(), StartAt::Latest)]);
    assert!(consumer.poll(Duration::from_millis(300)).await.unwrap().is_empty());
    assert_eq!(consumer.position(&partition), Some(Offset::new(100)));
    fill(&producer(&client), &topic, 0, 1).await;
    assert_eq!(values(&consumer, 1).await[&0], ["0"]);
    consumer.seek(&partition, StartAt::Offset(Offset::new(99))).unwrap();
    assert_eq!(values(&consumer, 2).await[&0], ["99", "0"]);
    let late = manual(&client, &[(partition.clone(), StartAt::Timestamp(i64::MAX / 2))]);
    assert!(late.poll(Duration::from_millis(300)).await.unwrap().is_empty());
    assert_eq!(late.position(&partition), Some(Offset::new(101)), "after the last record's time: the end");
}

pub(crate) async fn the_end_of_the_log_is_told(client: Client) {
    let topic = topic(&client, "log-end", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    let consumer = client.consumer(ConsumerConfig::default());
    assert_eq!(consumer.log_end_offset(&partition).await.unwrap(), Some(Offset::ZERO));
    fill(&producer(&client), &topic, 0, 25).await;
    assert_eq!(consumer.log_end_offset(&partition).await.unwrap(), Some(Offset::new(25)));
}

pub(crate) async fn an_offset_that_does_not_exist_is_an_error_or_reset(client: Client) {
    let topic = topic(&client, "range", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    fill(&producer(&client), &topic, 0, 10).await;
    let far = [(partition.clone(), StartAt::Offset(Offset::new(1_000)))];
    let consumer = manual(&client, &far);
    for _ in 0..2 {
        let error = poll_error(&consumer).await;
        assert!(
            matches!(&error, ClientError::OffsetOutOfRange { partition: p, offset }
                if *p == partition && offset.get() == 1_000),
            "{error}"
        );
    }
    let config = ConsumerConfig { auto_offset_reset: OffsetReset::Earliest, ..Default::default() };
    let consumer = client.consumer(config);
    consumer.assign(&far).unwrap();
    assert_eq!(values(&consumer, 10).await[&0], numbers(0..10));
}

async fn poll_error(consumer: &towpath_client::Consumer) -> ClientError {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no error came");
        if let Err(error) = consumer.poll(Duration::from_millis(200)).await {
            return error;
        }
    }
}

pub(crate) async fn a_recreated_topic_is_an_error(client: Client) {
    let topic = topic(&client, "again", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    fill(&producer(&client), &topic, 0, 10).await;
    let consumer = manual(&client, &[(partition.clone(), StartAt::Earliest)]);
    assert_eq!(values(&consumer, 10).await[&0].len(), 10);
    let before = consumer.topic_id(&topic).unwrap();
    let deleted = client.admin().delete_topics(std::slice::from_ref(&topic)).await.unwrap();
    deleted[&topic].as_ref().unwrap();
    let mut new = NewTopic::new(topic.clone());
    new.partitions = Some(1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let created = client.admin().create_topics(std::slice::from_ref(&new), false).await.unwrap();
        match &created[&topic] {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fill(&producer(&client), &topic, 0, 20).await;
    let error = poll_error(&consumer).await;
    assert!(
        matches!(&error, ClientError::TopicRecreated { expected, actual, .. }
            if *expected == before && *actual != before),
        "{error}"
    );
    consumer.seek(&partition, StartAt::Earliest).unwrap();
    assert_eq!(values(&consumer, 20).await[&0], numbers(0..20), "whoever seeks accepts the new topic");
}

pub(crate) async fn an_unknown_topic_is_reported_and_found_later(client: Client) {
    let name = TopicName::new(&format!("later-{:08x}", rand::random::<u32>())).unwrap();
    let consumer = manual(&client, &[(TopicPartition::new(name.clone(), 0), StartAt::Earliest)]);
    let error = poll_error(&consumer).await;
    assert!(matches!(error, ClientError::UnknownTopic { .. }), "{error}");
    let mut new = NewTopic::new(name.clone());
    new.partitions = Some(1);
    client.admin().create_topics(&[new], false).await.unwrap()[&name].as_ref().unwrap();
    fill(&producer(&client), &name, 0, 3).await;
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < 3 {
        assert!(Instant::now() < deadline, "the topic was not found");
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(batches) => seen += batches.iter().flat_map(|batch| batch.records()).count(),
            Err(error) => assert!(matches!(error, ClientError::UnknownTopic { .. }), "{error}"),
        }
    }
}

pub(crate) async fn paused_partitions_keep_their_place(client: Client) {
    let topic = topic(&client, "pause", 2).await;
    let both = partitions(&topic, 2);
    let producer = producer(&client);
    fill(&producer, &topic, 0, 10).await;
    fill(&producer, &topic, 1, 10).await;
    let from: Vec<_> = both.iter().map(|p| (p.clone(), StartAt::Earliest)).collect();
    let consumer = manual(&client, &from);
    consumer.pause(&both[..1]);
    let only = values(&consumer, 10).await;
    assert!(!only.contains_key(&0) && only[&1].len() == 10);
    assert!(consumer.poll(Duration::from_millis(200)).await.unwrap().is_empty());
    consumer.resume(&both[..1]);
    assert_eq!(values(&consumer, 10).await[&0], numbers(0..10));
}

pub(crate) async fn offsets_are_found_by_time_and_at_the_edges(client: Client) {
    let topic = topic(&client, "times", 2).await;
    let both = partitions(&topic, 2);
    let producer = producer(&client);
    for second in 1..=5 {
        let record = ProducerRecord {
            partition: Some(0),
            timestamp_ms: Some(second * 1_000),
            value: Some(b"x"),
            ..ProducerRecord::new(&topic)
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    let consumer = client.consumer(ConsumerConfig::default());
    assert_eq!(consumer.beginning_offsets(&both).await.unwrap()[&both[0]], Offset::ZERO);
    let ends = consumer.end_offsets(&both).await.unwrap();
    assert_eq!((ends[&both[0]].get(), ends[&both[1]].get()), (5, 0));
    let times = [(both[0].clone(), 2_500), (both[1].clone(), 0)];
    let found = consumer.offsets_for_times(&times).await.unwrap();
    assert_eq!((found[&both[0]].offset.get(), found[&both[0]].timestamp_ms), (2, 3_000));
    assert!(!found.contains_key(&both[1]), "an empty partition has no record of any time");
}

pub(crate) async fn little_memory_still_reads_everything(client: Client) {
    let topic = topic(&client, "little", 4).await;
    let producer = producer(&client);
    let value = "x".repeat(2_000);
    for partition in 0..4 {
        for _ in 0..500 {
            let record = ProducerRecord {
                partition: Some(partition),
                value: Some(value.as_bytes()),
                ..ProducerRecord::new(&topic)
            };
            producer.send(record).await.unwrap();
        }
    }
    producer.flush().await.unwrap();
    let config = ConsumerConfig {
        buffer_bytes: 100_000,
        poll_bytes_max: 50_000,
        partition_fetch_bytes_max: 10_000,
        ..Default::default()
    };
    let consumer = client.consumer(config);
    let from: Vec<_> = partitions(&topic, 4).into_iter().map(|p| (p, StartAt::Earliest)).collect();
    consumer.assign(&from).unwrap();
    let values = values(&consumer, 2_000).await;
    assert!(values.values().all(|list| list.len() == 500));
}
