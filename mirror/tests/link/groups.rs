//! Groups go on at the target where they were at the source.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use towpath_client::{
    CommittedOffset, Consumer, ConsumerConfig, ConsumerEvent, OffsetReset, ProducerRecord, Subscription,
    TransactionConfig,
};
use towpath_mirror::Link;
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::support::{Cluster, PATIENCE, caught_up, link, send, until};

fn member(cluster: &Cluster, group: &GroupId, topic: &TopicName) -> Consumer {
    let config = ConsumerConfig {
        group_id: Some(group.clone()),
        auto_offset_reset: OffsetReset::Earliest,
        ..ConsumerConfig::default()
    };
    let consumer = cluster.client.consumer(config);
    consumer.subscribe(Subscription::Topics(vec![topic.clone()])).unwrap();
    consumer
}

/// Reads as a member, up to so many records, and commits.
async fn read(consumer: &Consumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let mut done: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while values.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records", values.len());
        let ConsumerEvent::Records(batches) = consumer.poll_event(Duration::from_millis(100)).await.unwrap()
        else {
            continue;
        };
        for batch in batches {
            for record in batch.records() {
                let record = record.unwrap();
                if values.len() == count {
                    break;
                }
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                done.insert((*batch.partition).clone(), record.offset.next());
            }
        }
    }
    consumer.commit(&done).await.unwrap();
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_where_it_was() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    let writer = us.client.transactional_producer(TransactionConfig::new("w")).await.unwrap();
    // Markers and aborted records lie between, so that offsets differ.
    for number in 0..200 {
        if number % 10 == 0 {
            let transaction = writer.begin().await.unwrap();
            transaction
                .send(ProducerRecord { value: Some(b"no"), ..ProducerRecord::new(&topic) })
                .await
                .unwrap();
            transaction.flush().await.unwrap();
            transaction.abort().await.unwrap();
        }
        send(&producer, &topic, 0, &number.to_string()).await;
        producer.flush().await.unwrap();
    }
    let group = GroupId::new("billing").unwrap();
    let consumer = member(&us, &group, &topic);
    // It does not ask for committed records alone, and sees those that were aborted.
    let before: Vec<String> = read(&consumer, 120).await.into_iter().filter(|value| value != "no").collect();
    consumer.close().await;

    let running = Link::start(link(&us, &eu));
    caught_up(&running, &us, 1).await;
    let in_step = |status: &towpath_mirror::LinkStatus| {
        status.groups.get("billing").is_some_and(|group| group.state == "in step" && group.twice == 0)
    };
    until(&running, "the group is not translated", in_step).await;
    let target = TopicName::new("us.orders").unwrap();
    let failed_over = member(&eu, &group, &target);
    let after = read(&failed_over, 200 - before.len()).await;
    let all: Vec<String> = before.into_iter().chain(after).collect();
    assert_eq!(
        all,
        (0..200).map(|number| number.to_string()).collect::<Vec<_>>(),
        "none twice, none skipped"
    );
    // While it has members there, it is left alone.
    let has_members =
        |status: &towpath_mirror::LinkStatus| status.groups["billing"].state.contains("members");
    until(&running, "it should be left alone", has_members).await;
    failed_over.close().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_at_the_target_never_go_back() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    for number in 0..50 {
        send(&producer, &topic, 0, &number.to_string()).await;
    }
    producer.flush().await.unwrap();
    let group = GroupId::new("billing").unwrap();
    let at = |topic: &TopicName, offset: i64| {
        BTreeMap::from([(TopicPartition::new(topic.clone(), 0), CommittedOffset::from(Offset::new(offset)))])
    };
    us.client.admin().alter_group_offsets(&group, &at(&topic, 20)).await.unwrap();
    let running = Link::start(link(&us, &eu));
    caught_up(&running, &us, 1).await;
    let target = TopicName::new("us.orders").unwrap();
    let committed = async || {
        let offsets = eu.client.admin().list_group_offsets(&group, None).await.unwrap();
        offsets.get(&TopicPartition::new(target.clone(), 0)).map(|it| it.offset.get())
    };
    let deadline = Instant::now() + PATIENCE;
    while committed().await != Some(20) {
        assert!(Instant::now() < deadline, "{:?}", committed().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eu.client.admin().alter_group_offsets(&group, &at(&target, 40)).await.unwrap();
    us.client.admin().alter_group_offsets(&group, &at(&topic, 30)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(committed().await, Some(40), "it had gone on there");
    us.client.admin().alter_group_offsets(&group, &at(&topic, 45)).await.unwrap();
    while committed().await != Some(45) {
        assert!(Instant::now() < deadline, "{:?}", committed().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.stop().await;
}
