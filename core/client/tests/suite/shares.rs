//! Share groups (KIP-932).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use towpath_client::{
    Acknowledgement, AcknowledgementMode, AcquireMode, AlterConfig, Client, ClientError, Codec, Compression,
    ConfigResource, ErrorCode, ProducerConfig, ProducerRecord, ShareConsumer, ShareConsumerConfig,
    TransactionConfig,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::groups::group_id;
use super::{PATIENCE, fill, numbers, partitions, producer, topic};

/// A group that begins at the first record, with these configs.
async fn group_with(client: &Client, what: &str, configs: &[(&str, &str)]) -> GroupId {
    let group = group_id(what);
    let all = [("share.auto.offset.reset", "earliest")];
    let set = |(name, value): &(&str, &str)| AlterConfig::Set((*name).to_owned(), (*value).to_owned());
    let changes: Vec<_> = all.iter().chain(configs).map(set).collect();
    let resource = ConfigResource::Group(group.clone());
    let altered =
        client.admin().incremental_alter_configs(&[(resource.clone(), changes)], false).await.unwrap();
    altered[&resource].as_ref().unwrap();
    group
}

async fn group(client: &Client, what: &str) -> GroupId {
    group_with(client, what, &[]).await
}

fn explicit(group: &GroupId) -> ShareConsumerConfig {
    ShareConsumerConfig {
        acknowledgement_mode: AcknowledgementMode::Explicit,
        fetch_wait_ms_max: 200,
        ..ShareConsumerConfig::new(group.clone())
    }
}

fn implicit(group: &GroupId) -> ShareConsumerConfig {
    ShareConsumerConfig { acknowledgement_mode: AcknowledgementMode::Implicit, ..explicit(group) }
}

fn member(client: &Client, config: ShareConsumerConfig, topic: &TopicName) -> ShareConsumer {
    let consumer = client.share_consumer(config);
    consumer.subscribe(std::slice::from_ref(topic)).unwrap();
    consumer
}

/// Partition, offset, delivery count and value.
type Seen = (i32, i64, i16, String);

async fn poll(consumer: &ShareConsumer) -> Vec<Seen> {
    let mut seen = Vec::new();
    for part in consumer.poll(Duration::from_millis(500)).await.unwrap() {
        for record in &part {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            seen.push((part.partition.partition, record.offset.get(), record.delivery_count, value));
        }
    }
    seen
}

/// Polls until `count` records are there.
async fn records(consumer: &ShareConsumer, count: usize) -> Vec<Seen> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < count {
        assert!(Instant::now() < deadline, "only {seen:?} of {count} records came");
        seen.extend(poll(consumer).await);
    }
    seen
}

fn offsets(seen: &[Seen]) -> Vec<i64> {
    seen.iter().map(|(_, offset, ..)| *offset).collect()
}

async fn committed(consumer: &ShareConsumer) {
    for (partition, result) in consumer.commit().await.unwrap() {
        result.unwrap_or_else(|error| panic!("{partition}: {error}"));
    }
}

fn say(consumer: &ShareConsumer, topic: &TopicName, offset: i64, what: Acknowledgement) {
    consumer.acknowledge(&TopicPartition::new(topic.clone(), 0), Offset::new(offset), what).unwrap();
}

/// Waits until a group is done with all of these partitions. (Its start offset comes after that: Kafka stores it with the
/// write that follows.)
async fn done_with(client: &Client, group: &GroupId, wanted: &[TopicPartition]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let described = client.admin().list_share_group_offsets(group, None).await.unwrap();
        let lags: Vec<_> = described.values().map(|it| it.as_ref().map_or(None, |it| it.lag)).collect();
        if described.keys().eq(wanted) && lags.iter().all(|lag| *lag == Some(0)) {
            return;
        }
        assert!(Instant::now() < deadline, "the group stands at {described:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn shared_records_are_accepted_by_polling_on(client: Client) {
    let topic = topic(&client, "share", 2).await;
    let producer = producer(&client);
    fill(&producer, &topic, 0, 30).await;
    fill(&producer, &topic, 1, 20).await;
    let group = group(&client, "share").await;
    let consumer = member(&client, implicit(&group), &topic);
    let mut values: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (partition, _, deliveries, value) in records(&consumer, 50).await {
        assert_eq!(deliveries, 1);
        values.entry(partition).or_default().push(value);
    }
    assert_eq!((&values[&0], &values[&1]), (&numbers(0..30), &numbers(0..20)));
    assert_eq!(consumer.assignment(), partitions(&topic, 2));
    assert!(poll(&consumer).await.is_empty(), "nothing twice");
    committed(&consumer).await;
    done_with(&client, &group, &partitions(&topic, 2)).await;
    assert!(consumer.close().await.is_empty(), "the commit told all");
    assert!(matches!(consumer.poll(Duration::ZERO).await, Err(ClientError::Closed)));
    // What was accepted is not given out again; what comes is.
    fill(&producer, &topic, 1, 1).await;
    let next = member(&client, implicit(&group), &topic);
    assert_eq!(records(&next, 1).await, [(1, 20, 1, "0".to_owned())]);
    next.close().await;
}

pub(crate) async fn what_is_said_of_a_record_counts(client: Client) {
    let topic = topic(&client, "share-said", 1).await;
    let producer = producer(&client);
    fill(&producer, &topic, 0, 5).await;
    let group = group(&client, "share-said").await;
    let consumer = member(&client, explicit(&group), &topic);
    assert_eq!(offsets(&records(&consumer, 5).await), [0, 1, 2, 3, 4]);
    say(&consumer, &topic, 0, Acknowledgement::Accept);
    say(&consumer, &topic, 1, Acknowledgement::Release);
    say(&consumer, &topic, 2, Acknowledgement::Reject);
    say(&consumer, &topic, 3, Acknowledgement::Renew);
    committed(&consumer).await;
    // A renewed record stays, as does one of which nothing was said.
    let again = records(&consumer, 1).await;
    assert_eq!(again, [(0, 1, 2, "1".to_owned())]);
    for offset in [1, 3, 4] {
        // What is said last counts.
        say(&consumer, &topic, offset, Acknowledgement::Release);
        say(&consumer, &topic, offset, Acknowledgement::Accept);
    }
    let results = consumer.commit().await.unwrap();
    let partition = TopicPartition::new(topic.clone(), 0);
    assert!(results[&partition].is_ok());
    assert!(consumer.commit().await.unwrap().is_empty(), "told once");
    let error = consumer.acknowledge(&partition, Offset::new(0), Acknowledgement::Accept).unwrap_err();
    assert!(matches!(error, ClientError::NotAcquired { .. }) && error.hint().is_some(), "{error}");
    done_with(&client, &group, std::slice::from_ref(&partition)).await;
    assert!(poll(&consumer).await.is_empty());
    // With the next poll, too.
    fill(&producer, &topic, 0, 1).await;
    records(&consumer, 1).await;
    say(&consumer, &topic, 5, Acknowledgement::Accept);
    assert!(poll(&consumer).await.is_empty());
    assert!(consumer.commit().await.unwrap()[&partition].is_ok(), "it went with the poll");
    done_with(&client, &group, &[partition]).await;
    consumer.close().await;
}

pub(crate) async fn what_is_not_acknowledged_is_given_back(client: Client) {
    let topic = topic(&client, "share-back", 1).await;
    fill(&producer(&client), &topic, 0, 4).await;
    let group = group(&client, "share-back").await;
    let first = member(&client, explicit(&group), &topic);
    assert_eq!(records(&first, 4).await.len(), 4);
    say(&first, &topic, 0, Acknowledgement::Accept);
    let partition = TopicPartition::new(topic.clone(), 0);
    assert!(first.close().await[&partition].is_ok());
    let second = member(&client, implicit(&group), &topic);
    let again = records(&second, 3).await;
    assert_eq!(offsets(&again), [1, 2, 3]);
    assert!(again.iter().all(|(_, _, deliveries, _)| *deliveries == 2), "{again:?}");
    // Who is dropped gives back as well.
    drop(second);
    let third = member(&client, implicit(&group), &topic);
    let again = records(&third, 3).await;
    assert!(again.iter().all(|(_, _, deliveries, _)| *deliveries == 3), "{again:?}");
    committed(&third).await;
    done_with(&client, &group, &[partition]).await;
    third.close().await;
}

pub(crate) async fn members_share_the_records_of_one_partition(client: Client) {
    let topic = topic(&client, "share-many", 1).await;
    let group = group(&client, "share-many").await;
    let few = || ShareConsumerConfig {
        max_poll_records: 10,
        acquire_mode: AcquireMode::RecordLimit,
        ..explicit(&group)
    };
    let (one, two) = (member(&client, few(), &topic), member(&client, few(), &topic));
    let deadline = Instant::now() + PATIENCE;
    while one.assignment().len() + two.assignment().len() < 2 {
        assert!(Instant::now() < deadline, "both have the one partition");
        assert!(poll(&one).await.is_empty() && poll(&two).await.is_empty());
    }
    let producer = producer(&client);
    fill(&producer, &topic, 0, 200).await;
    let (mut all, mut by_two) = (BTreeMap::<i64, u32>::new(), 0);
    while all.len() < 200 {
        assert!(Instant::now() < deadline + PATIENCE, "{} of 200", all.len());
        for consumer in [&one, &two] {
            let parts = consumer.poll(Duration::from_millis(200)).await.unwrap();
            let mut count = 0;
            for part in &parts {
                for record in part {
                    let record = record.unwrap();
                    *all.entry(record.offset.get()).or_default() += 1;
                    count += 1;
                }
                consumer.acknowledge_all(part, Acknowledgement::Accept).unwrap();
            }
            assert!(count <= 10, "strictly");
            by_two += if std::ptr::eq(consumer, &raw const two) { count } else { 0 };
        }
    }
    assert!(all.values().all(|count| *count == 1), "each to one of them");
    assert!((50..=150).contains(&by_two), "{by_two} of 200");
    committed(&one).await;
    committed(&two).await;
    done_with(&client, &group, &partitions(&topic, 1)).await;
    // One that leaves takes nothing along.
    one.close().await;
    fill(&producer, &topic, 0, 1).await;
    assert_eq!(offsets(&records(&two, 1).await), [200]);
    two.close().await;
}

pub(crate) async fn a_lock_ends_unless_it_is_renewed(client: Client) {
    let topic = topic(&client, "share-lock", 1).await;
    fill(&producer(&client), &topic, 0, 2).await;
    let group = group_with(&client, "share-lock", &[("share.record.lock.duration.ms", "1000")]).await;
    let consumer = member(&client, explicit(&group), &topic);
    assert_eq!(records(&consumer, 2).await.len(), 2);
    let began = Instant::now();
    let partition = TopicPartition::new(topic.clone(), 0);
    while began.elapsed() < Duration::from_millis(2_500) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        say(&consumer, &topic, 0, Acknowledgement::Renew);
        committed(&consumer).await;
    }
    say(&consumer, &topic, 0, Acknowledgement::Accept);
    committed(&consumer).await;
    // The other one comes again.
    let again = records(&consumer, 1).await;
    assert_eq!((again[0].1, again[0].2), (1, 2), "{again:?}");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    // Nobody asks the broker about what has certainly ended; if it is not known here yet, the broker refuses.
    let said = consumer.acknowledge(&partition, Offset::new(1), Acknowledgement::Accept);
    let ended = match said {
        Err(ClientError::NotAcquired { .. }) => true,
        Err(error) => panic!("{error}"),
        Ok(()) => {
            let results = consumer.commit().await.unwrap();
            results[&partition].as_ref().unwrap_err().code() == Some(ErrorCode::InvalidRecordState)
        }
    };
    assert!(ended);
    let again = records(&consumer, 1).await;
    assert_eq!((again[0].1, again[0].2), (1, 3), "{again:?}");
    consumer.close().await;
}

pub(crate) async fn a_record_is_given_out_so_often_and_no_more(client: Client) {
    let topic = topic(&client, "share-limit", 1).await;
    let producer = producer(&client);
    fill(&producer, &topic, 0, 1).await;
    let group = group(&client, "share-limit").await;
    let consumer = member(&client, explicit(&group), &topic);
    for deliveries in 1..=5 {
        let seen = records(&consumer, 1).await;
        assert_eq!((seen[0].1, seen[0].2), (0, deliveries));
        say(&consumer, &topic, 0, Acknowledgement::Release);
    }
    fill(&producer, &topic, 0, 1).await;
    assert_eq!(offsets(&records(&consumer, 1).await), [1], "the first one was given out five times");
    consumer.close().await;
}

pub(crate) async fn compressed_and_transactional_records_are_shared(client: Client) {
    let topic = topic(&client, "share-kinds", 1).await;
    let group = group_with(&client, "share-kinds", &[("share.isolation.level", "read_committed")]).await;
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Lz4, Compression::Snappy] {
        let config = ProducerConfig { compression: Codec::from(compression), ..Default::default() };
        fill(&client.producer(config), &topic, 0, 10).await;
    }
    let id = format!("share-{:08x}", rand::random::<u32>());
    let transactional = client.transactional_producer(TransactionConfig::new(id)).await.unwrap();
    for commits in [false, true] {
        let transaction = transactional.begin().await.unwrap();
        for _ in 0..5 {
            let value = if commits { b"kept".as_slice() } else { b"lost" };
            transaction
                .send(ProducerRecord { value: Some(value), ..ProducerRecord::new(&topic) })
                .await
                .unwrap();
        }
        // Otherwise what is aborted is never sent.
        transaction.flush().await.unwrap();
        match commits {
            true => transaction.commit().await.unwrap(),
            false => transaction.abort().await.unwrap(),
        }
    }
    let consumer = member(&client, implicit(&group), &topic);
    let seen = records(&consumer, 45).await;
    assert_eq!(seen.iter().filter(|(.., value)| value == "kept").count(), 5);
    assert!(seen.iter().all(|(.., value)| value != "lost"));
    committed(&consumer).await;
    // Control records are done with, too.
    done_with(&client, &group, &partitions(&topic, 1)).await;
    consumer.close().await;
}

pub(crate) async fn subscriptions_of_share_groups_change(client: Client) {
    let (first, second) = (topic(&client, "share-a", 1).await, topic(&client, "share-b", 1).await);
    let producer = producer(&client);
    fill(&producer, &first, 0, 1).await;
    fill(&producer, &second, 0, 1).await;
    let group = group(&client, "share-sub").await;
    let consumer = client.share_consumer(implicit(&group));
    let early = consumer.poll(Duration::ZERO).await.unwrap_err();
    assert!(matches!(early, ClientError::Usage(_)), "{early}");
    consumer.subscribe(std::slice::from_ref(&first)).unwrap();
    records(&consumer, 1).await;
    assert_eq!(consumer.assignment(), partitions(&first, 1));
    consumer.subscribe(std::slice::from_ref(&second)).unwrap();
    records(&consumer, 1).await;
    assert_eq!(consumer.assignment(), partitions(&second, 1));
    assert_eq!(consumer.subscription(), std::slice::from_ref(&second));
    // Without topics it leaves, and joins again with some.
    consumer.subscribe(&[]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !consumer.assignment().is_empty() {
        assert!(Instant::now() < deadline, "it does not leave");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consumer.subscribe(&[first.clone(), second]).unwrap();
    fill(&producer, &first, 0, 1).await;
    // Also who never waits gets something.
    let mut seen = 0;
    while seen == 0 {
        assert!(Instant::now() < deadline + PATIENCE, "nothing comes");
        seen = consumer.poll(Duration::ZERO).await.unwrap().iter().flatten().count();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    consumer.close().await;
}

pub(crate) async fn a_share_consumer_that_cannot_be_a_member_says_so(client: Client) {
    let topic = topic(&client, "share-refused", 1).await;
    // A group of another kind has the name.
    let group = group_id("share-refused");
    let config = towpath_client::ConsumerConfig { group_id: Some(group.clone()), ..Default::default() };
    let other = client.consumer(config);
    let offsets: BTreeMap<_, _> = [(TopicPartition::new(topic.clone(), 0), Offset::new(0))].into();
    other.commit(&offsets).await.unwrap();
    let consumer = member(&client, explicit(&group), &topic);
    let error = consumer.poll(PATIENCE).await.unwrap_err();
    assert!(error.code().is_some() && !error.is_retriable(), "{error}");
    assert!(consumer.poll(PATIENCE).await.is_err(), "for good");
    consumer.close().await;
    let consumer = client.share_consumer(implicit(&group));
    let said = consumer.acknowledge(&TopicPartition::new(topic, 0), Offset::new(0), Acknowledgement::Accept);
    assert!(matches!(said, Err(ClientError::Usage(_))));
}

pub(crate) async fn share_groups_are_listed_described_and_moved(client: Client) {
    let topic = topic(&client, "share-admin", 2).await;
    let producer = producer(&client);
    fill(&producer, &topic, 0, 10).await;
    fill(&producer, &topic, 1, 10).await;
    let (admin, group) = (client.admin(), group(&client, "share-admin").await);
    let consumer = member(&client, implicit(&group), &topic);
    records(&consumer, 20).await;
    committed(&consumer).await;
    let all = partitions(&topic, 2);
    done_with(&client, &group, &all).await;
    let listed = admin.list_groups_with(&[], &["share"]).await.unwrap();
    let mine = listed.iter().find(|it| it.group_id == group.as_str()).unwrap();
    assert_eq!((mine.group_type.as_str(), mine.state.as_str()), ("share", "Stable"));
    for described in [
        admin.describe_share_groups(std::slice::from_ref(&group)).await.unwrap(),
        admin.describe_groups(std::slice::from_ref(&group)).await.unwrap(),
    ] {
        let described = described[&group].as_ref().unwrap();
        assert_eq!((described.group_type.as_str(), described.protocol.as_str()), ("share", "simple"));
        let member = &described.members[0];
        let assigned: BTreeSet<_> = member.assignment.iter().cloned().collect();
        assert_eq!(assigned, all.iter().cloned().collect());
        let more = member.reconciliation.as_ref().unwrap();
        assert!(more.epoch > 0 && more.topics == [topic.as_str()]);
    }
    // As long as there are members the group stays as it is.
    let to = |offset| [(all[0].clone(), Offset::new(offset))].into();
    let refused = admin.alter_share_group_offsets(&group, &to(4)).await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::NonEmptyGroup));
    let refused = admin.delete_groups(std::slice::from_ref(&group)).await.unwrap();
    assert_eq!(refused[&group].as_ref().unwrap_err().code(), Some(ErrorCode::NonEmptyGroup));
    consumer.close().await;
    assert!(admin.alter_share_group_offsets(&group, &to(4)).await.unwrap()[&all[0]].is_ok());
    let told = admin.list_share_group_offsets(&group, Some(&all)).await.unwrap();
    let first = told[&all[0]].as_ref().unwrap();
    assert_eq!(first.start_offset, Some(Offset::new(4)));
    assert!(first.lag.is_none_or(|lag| lag == 6), "{first:?}");
    let consumer = member(&client, implicit(&group), &topic);
    assert_eq!(offsets(&records(&consumer, 6).await), [4, 5, 6, 7, 8, 9]);
    committed(&consumer).await;
    consumer.close().await;
    let deleted = admin.delete_share_group_offsets(&group, std::slice::from_ref(&topic)).await.unwrap();
    deleted[&topic].as_ref().unwrap();
    assert!(admin.list_share_group_offsets(&group, None).await.unwrap().is_empty());
    let never = TopicName::new("never-was").unwrap();
    let missing = admin.delete_share_group_offsets(&group, std::slice::from_ref(&never)).await.unwrap();
    assert_eq!(missing[&never].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopicOrPartition));
    admin.delete_groups(std::slice::from_ref(&group)).await.unwrap()[&group].as_ref().unwrap();
    let gone = admin.describe_share_groups(std::slice::from_ref(&group)).await.unwrap();
    assert_eq!(gone[&group].as_ref().unwrap_err().code(), Some(ErrorCode::GroupIdNotFound));
}
