//! What is equal is said to be equal, and what is not is found.

use towpath_client::{TransactionConfig, TransactionalProducer};
use towpath_mirror::{Difference, Link, LinkConfig, LinkError, Mode, Naming, Verified, verify};
use towpath_types::{TopicName, TopicPartition};

use super::support::{Cluster, caught_up, link, send};

async fn verified(config: &LinkConfig) -> Vec<Verified> {
    let mut all = Vec::new();
    verify(config, |it| all.push(it)).await.unwrap();
    all
}

/// A transaction of three records.
async fn transaction(producer: &TransactionalProducer, topic: &TopicName, what: &str, commits: bool) {
    let transaction = producer.begin().await.unwrap();
    for number in 0..3 {
        let value = format!("{what} {number}");
        let record = towpath_client::ProducerRecord {
            partition: Some(0),
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            ..towpath_client::ProducerRecord::new(topic)
        };
        transaction.send(record).await.unwrap();
    }
    if commits { transaction.commit().await.unwrap() } else { transaction.abort().await.unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_are_compared() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 2, &[]).await;
    let config = link(&us, &eu);
    let none = verify(&config, |_| {}).await;
    assert!(matches!(none, Err(LinkError::Unborn { .. })), "{none:?}");
    let (producer, writer) =
        (us.producer(), us.client.transactional_producer(TransactionConfig::new("w")).await.unwrap());
    for round in 0..20 {
        send(&producer, &topic, round % 2, &format!("value {round}")).await;
        producer.flush().await.unwrap();
        transaction(&writer, &topic, &format!("round {round}"), round % 3 > 0).await;
    }
    let running = Link::start(config.clone());
    caught_up(&running, &us, 2).await;
    running.stop().await;
    // What is stored is what is looked at: a new life stores what the one before had sent.
    let running = Link::start(config.clone());
    caught_up(&running, &us, 2).await;
    let equal = loop {
        let all = verified(&config).await;
        if all.iter().map(|it| it.records).sum::<u64>() == 20 + 13 * 3 {
            break all;
        }
        assert!(all.iter().all(|it| it.difference.is_none()), "{all:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(
        equal.iter().all(|it| it.difference.is_none() && it.passed_over == 0 && it.ranges.len() == 1),
        "{equal:?}"
    );
    running.stop().await;

    // Somebody else writes to the target, and then the link goes on.
    let target = TopicName::new("us.orders").unwrap();
    let stranger = eu.producer();
    let record = towpath_client::ProducerRecord {
        partition: Some(1),
        value: Some(b"none of ours"),
        ..towpath_client::ProducerRecord::new(&target)
    };
    let there = stranger.send_with_ack(record).await.unwrap().await.unwrap().offset;
    send(&producer, &topic, 1, "ours").await;
    producer.flush().await.unwrap();
    let running = Link::start(config.clone());
    caught_up(&running, &us, 2).await;
    running.stop().await;
    let running = Link::start(config.clone());
    let differs = loop {
        let all = verified(&config).await;
        if all[1].difference.is_some() {
            break all;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(differs[1].difference, Some(Difference::Foreign { target: there.get() }));
    assert_eq!((differs[0].difference.clone(), differs[0].records), (None, equal[0].records));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_either_side_has_deleted_is_passed_over() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let config = LinkConfig { naming: Naming::Identical, mode: Mode::ActiveActive, ..link(&us, &eu) };
    let producer = us.producer();
    for number in 0..30 {
        send(&producer, &topic, 0, &format!("value {number}")).await;
    }
    producer.flush().await.unwrap();
    let running = Link::start(config.clone());
    caught_up(&running, &us, 1).await;
    running.stop().await;
    let running = Link::start(config.clone());
    while verified(&config).await[0].records < 30 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let partition = TopicPartition::new(topic.clone(), 0);
    let delete = async |cluster: &Cluster, offset: i64| {
        let to = [(partition.clone(), towpath_types::Offset::new(offset))].into();
        let deleted = cluster.client.admin().delete_records(&to).await.unwrap();
        deleted.into_values().for_each(|result| assert!(result.is_ok(), "{result:?}"));
    };
    delete(&us, 5).await;
    let found = verified(&config).await;
    assert_eq!((found[0].records, found[0].passed_over, &found[0].difference), (25, 5, &None));
    delete(&eu, 12).await;
    let found = verified(&config).await;
    assert_eq!((found[0].records, found[0].passed_over, &found[0].difference), (18, 7, &None));
    running.stop().await;
}
