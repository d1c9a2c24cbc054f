//! Transactions: what readers see, who is fenced, and how things end.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_client::{
    Client, ClientError, CommittedOffset, Consumer, ConsumerConfig, ConsumerGroupMetadata, Ended, ErrorCode,
    IsolationLevel, OffsetReset, ProducerConfig, ProducerRecord, StartAt, Transaction, TransactionConfig,
    TransactionalProducer,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::{fill, manual, partitions, producer, topic, topic_with, values};

fn id(what: &str) -> String {
    format!("{what}-{:08x}", rand::random::<u32>())
}

async fn transactional(client: &Client, id: &str) -> TransactionalProducer {
    client.transactional_producer(TransactionConfig::new(id)).await.unwrap()
}

async fn put(transaction: &Transaction, topic: &TopicName, partition: i32, value: &str) {
    let record = ProducerRecord {
        partition: Some(partition),
        value: Some(value.as_bytes()),
        ..ProducerRecord::new(topic)
    };
    transaction.send(record).await.unwrap();
}

fn committed_reader(client: &Client, topic: &TopicName, count: i32) -> Consumer {
    let config =
        ConsumerConfig { isolation_level: IsolationLevel::ReadCommitted, ..ConsumerConfig::default() };
    let consumer = client.consumer(config);
    let from: Vec<_> = partitions(topic, count).into_iter().map(|p| (p, StartAt::Earliest)).collect();
    consumer.assign(&from).unwrap();
    consumer
}

pub(crate) async fn a_transaction_is_seen_whole_or_not_at_all(client: Client) {
    let topic = topic(&client, "tx", 2).await;
    let producer = transactional(&client, &id("whole")).await;
    let reader = committed_reader(&client, &topic, 2);
    let transaction = producer.begin().await.unwrap();
    for number in 0..100 {
        put(&transaction, &topic, number % 2, &format!("a{number}")).await;
    }
    transaction.flush().await.unwrap();
    // Who does not ask for committed records alone sees them already.
    let from: Vec<_> = partitions(&topic, 2).into_iter().map(|p| (p, StartAt::Earliest)).collect();
    assert_eq!(values(&manual(&client, &from), 100).await.values().map(Vec::len).sum::<usize>(), 100);
    assert!(reader.poll(Duration::from_millis(500)).await.unwrap().is_empty());
    let both = partitions(&topic, 2);
    assert!(reader.end_offsets(&both).await.unwrap().values().all(|end| *end == Offset::ZERO));
    transaction.commit().await.unwrap();
    let seen = values(&reader, 100).await;
    assert_eq!((seen[&0].len(), seen[&1].len()), (50, 50));

    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "lost").await;
    transaction.flush().await.unwrap();
    transaction.abort().await.unwrap();
    assert_eq!(producer.settle().await.unwrap(), Some(Ended::Aborted));
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "kept").await;
    transaction.commit().await.unwrap();
    assert_eq!(values(&reader, 1).await[&0], ["kept"]);
    // 50 records, a marker, one aborted record, a marker, one record, a marker.
    let end = reader.end_offsets(&both[..1]).await.unwrap()[&both[0]];
    assert_eq!(end, Offset::new(55));
    while reader.position(&both[0]) != Some(end) {
        assert!(
            reader.poll(Duration::from_secs(5)).await.unwrap().iter().all(|part| part.records().count() == 0)
        );
    }
}

pub(crate) async fn many_transactions_follow_each_other(client: Client) {
    let topic = topic(&client, "many", 3).await;
    let producer = transactional(&client, &id("many")).await;
    let mut expected = 0;
    for number in 0..40 {
        let transaction = producer.begin().await.unwrap();
        for partition in 0..3 {
            put(&transaction, &topic, partition, &number.to_string()).await;
        }
        if number % 4 == 3 {
            transaction.abort().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            expected += 3;
        }
    }
    let seen = values(&committed_reader(&client, &topic, 3), expected).await;
    let wanted: Vec<String> = (0..40).filter(|n| n % 4 != 3).map(|n| n.to_string()).collect();
    assert!(seen.values().all(|list| *list == wanted), "{seen:?}");
}

pub(crate) async fn a_transaction_that_is_dropped_is_aborted(client: Client) {
    let topic = topic(&client, "dropped", 1).await;
    let producer = transactional(&client, &id("dropped")).await;
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "lost").await;
    transaction.flush().await.unwrap();
    let error = producer.begin().await.unwrap_err();
    assert!(matches!(error, ClientError::Usage(_)), "{error}");
    drop(transaction);
    assert_eq!(producer.settle().await.unwrap(), Some(Ended::Aborted));
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "also lost").await;
    transaction.flush().await.unwrap();
    // With its producer: in the background.
    drop((transaction, producer));
    let other = producer_of(&client, &topic, "plain").await;
    drop(other);
    assert_eq!(values(&committed_reader(&client, &topic, 1), 1).await[&0], ["plain"]);
}

async fn producer_of(client: &Client, topic: &TopicName, value: &str) -> towpath_client::Producer {
    let producer = producer(client);
    let record = ProducerRecord { value: Some(value.as_bytes()), ..ProducerRecord::new(topic) };
    producer.send(record).await.unwrap();
    producer.flush().await.unwrap();
    producer
}

pub(crate) async fn a_second_producer_fences_the_first(client: Client) {
    let topic = topic(&client, "fence", 1).await;
    let id = id("fence");
    let first = transactional(&client, &id).await;
    let transaction = first.begin().await.unwrap();
    put(&transaction, &topic, 0, "of the first").await;
    transaction.flush().await.unwrap();
    let second = transactional(&client, &id).await;
    // What the first had open is aborted, and it hears so at the latest when it commits.
    let error = transaction.commit().await.unwrap_err();
    assert!(error.is_fatal() || error.is_abortable(), "{error}");
    let error = first.begin().await.unwrap_err();
    assert!(matches!(error, ClientError::ProducerFenced { .. }) && error.is_fatal(), "{error}");
    let transaction = second.begin().await.unwrap();
    put(&transaction, &topic, 0, "of the second").await;
    transaction.commit().await.unwrap();
    assert_eq!(values(&committed_reader(&client, &topic, 1), 1).await[&0], ["of the second"]);
}

pub(crate) async fn what_fails_in_a_transaction_aborts_it(client: Client) {
    let topic = topic_with(&client, "fails", 1, &[("max.message.bytes", "2000")]).await;
    let producer = transactional(&client, &id("fails")).await;
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "lost").await;
    let large: String = (0..5_000u32).map(|n| char::from(b'a' + ((n * 7_919) >> 3) as u8 % 26)).collect();
    put(&transaction, &topic, 0, &large).await;
    let error = transaction.commit().await.unwrap_err();
    assert!(error.is_abortable(), "{error}");
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "kept").await;
    transaction.commit().await.unwrap();
    assert_eq!(values(&committed_reader(&client, &topic, 1), 1).await[&0], ["kept"]);
}

pub(crate) async fn offsets_are_committed_with_their_transaction(client: Client) {
    let (input, output) = (topic(&client, "tx-in", 1).await, topic(&client, "tx-out", 1).await);
    let source = partitions(&input, 1).remove(0);
    fill(&producer(&client), &input, 0, 10).await;
    let group = GroupId::new(&id("tx-group")).unwrap();
    let config = ConsumerConfig {
        group_id: Some(group.clone()),
        auto_offset_reset: OffsetReset::Earliest,
        isolation_level: IsolationLevel::ReadCommitted,
        ..ConsumerConfig::default()
    };
    let consumer = client.consumer(config);
    let metadata = consumer.group_metadata().unwrap();
    assert_eq!(metadata, ConsumerGroupMetadata::new(group.clone()));
    let producer = transactional(&client, &id("offsets")).await;
    let at = |offset| BTreeMap::from([(source.clone(), CommittedOffset::from(Offset::new(offset)))]);
    let committed = async || {
        let offsets = client.admin().list_group_offsets(&group, None).await.unwrap();
        offsets.get(&source).map(|committed| committed.offset.get())
    };

    let transaction = producer.begin().await.unwrap();
    put(&transaction, &output, 0, "lost").await;
    transaction.send_offsets(&at(3), &metadata).await.unwrap();
    assert_eq!(committed().await, None, "not before the end");
    transaction.abort().await.unwrap();
    assert_eq!(committed().await, None);

    let transaction = producer.begin().await.unwrap();
    put(&transaction, &output, 0, "kept").await;
    transaction.send_offsets(&at(7), &metadata).await.unwrap();
    transaction.commit().await.unwrap();
    // Whoever needs offsets that no transaction changes any more waits for its end.
    assert_eq!(consumer.committed(std::slice::from_ref(&source)).await.unwrap()[&source].offset.get(), 7);
    assert_eq!(values(&committed_reader(&client, &output, 1), 1).await[&0], ["kept"]);

    // A transaction of offsets alone.
    let transaction = producer.begin().await.unwrap();
    transaction.send_offsets(&at(10), &metadata).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(consumer.committed(std::slice::from_ref(&source)).await.unwrap()[&source].offset.get(), 10);
}

pub(crate) async fn offsets_of_a_member_that_is_none_abort_the_transaction(client: Client) {
    let topic = topic(&client, "zombie", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    let group = GroupId::new(&id("zombie")).unwrap();
    let zombie = ConsumerGroupMetadata {
        generation: 7,
        member_id: "gone".into(),
        ..ConsumerGroupMetadata::new(group)
    };
    let producer = transactional(&client, &id("zombie")).await;
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "lost").await;
    let offsets = BTreeMap::from([(partition, CommittedOffset::from(Offset::ZERO))]);
    let error = transaction.send_offsets(&offsets, &zombie).await.unwrap_err();
    assert!(error.is_abortable(), "{error}");
    assert!(
        matches!(error.code(), Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)),
        "{error}"
    );
    assert!(transaction.commit().await.unwrap_err().is_abortable());
    producer.begin().await.unwrap().commit().await.unwrap();
}

pub(crate) async fn wrong_settings_of_transactions_are_errors(client: Client) {
    let empty = client.transactional_producer(TransactionConfig::new("")).await.unwrap_err();
    assert!(matches!(empty, ClientError::Usage(_)), "{empty}");
    let mut config = TransactionConfig::new(id("weak"));
    config.producer.enable_idempotence = false;
    let weak = client.transactional_producer(config).await.unwrap_err();
    assert!(matches!(weak, ClientError::Usage(_)), "{weak}");
    let mut config = TransactionConfig::new(id("long"));
    config.transaction_timeout_ms = i32::MAX as u64;
    let long = client.transactional_producer(config).await.unwrap_err();
    assert_eq!(long.code(), Some(ErrorCode::InvalidTransactionTimeout), "{long}");
    assert!(long.is_fatal() && long.hint().is_some());
}

pub(crate) async fn a_transaction_that_takes_too_long_is_given_up(client: Client) {
    let topic = topic(&client, "timeout", 1).await;
    let mut config = TransactionConfig::new(id("timeout"));
    config.transaction_timeout_ms = 1_000;
    config.producer = ProducerConfig { linger_ms: 0, ..ProducerConfig::default() };
    let producer = client.transactional_producer(config).await.unwrap();
    let transaction = producer.begin().await.unwrap();
    put(&transaction, &topic, 0, "lost").await;
    transaction.flush().await.unwrap();
    // The coordinator looks for such transactions every ten seconds by default.
    let reader = committed_reader(&client, &topic, 1);
    let partition: TopicPartition = partitions(&topic, 1).remove(0);
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while reader.end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition] != Offset::new(2) {
        assert!(std::time::Instant::now() < deadline, "the transaction is not given up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let error = transaction.commit().await.unwrap_err();
    assert!(error.is_fatal() || error.is_abortable(), "{error}");
    assert!(reader.poll(Duration::from_millis(300)).await.unwrap().iter().all(|p| p.records().count() == 0));
}
