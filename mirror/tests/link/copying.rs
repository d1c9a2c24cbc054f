//! What is copied, and that it is copied once.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use towpath_client::{Compression, ProducerConfig, ProducerRecord, TransactionConfig};
use towpath_mirror::{Link, LinkState, Naming};
use towpath_types::{Offset, TopicPartition};

use super::support::{Cluster, PATIENCE, caught_up, link, send, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_arrive_in_order_with_all_that_they_have() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 3, &[("retention.ms", "123456789")]).await;
    for compression in Compression::ALL {
        let config = ProducerConfig { compression: compression.into(), ..ProducerConfig::default() };
        let producer = us.client.producer(config);
        for number in 0..300 {
            send(&producer, &topic, number % 3, &format!("{compression:?} {number}")).await;
        }
        producer.flush().await.unwrap();
    }
    let running = Link::start(link(&us, &eu));
    caught_up(&running, &us, 3).await;
    let target = towpath_types::TopicName::new("us.orders").unwrap();
    assert_eq!(eu.values(&target, 3).await, us.values(&topic, 3).await);

    // A topic and partitions that come later, and records with everything.
    let late = us.topic("late", 1, &[]).await;
    let producer = us.producer();
    let headers: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), ("b", None)];
    let record = ProducerRecord {
        key: Some(b"key"),
        value: Some(b"value"),
        timestamp_ms: Some(1_234_567),
        headers: &headers,
        ..ProducerRecord::new(&late)
    };
    producer.send(record).await.unwrap();
    producer
        .send(ProducerRecord { key: Some(b"key"), value: None, ..ProducerRecord::new(&late) })
        .await
        .unwrap();
    producer.flush().await.unwrap();
    us.client.admin().create_partitions(&[(topic.clone(), 5)]).await.unwrap();
    send(&producer, &topic, 4, "new").await;
    producer.flush().await.unwrap();
    caught_up(&running, &us, 6).await;
    assert_eq!(eu.values(&target, 5).await[&4], ["new"]);
    let described = eu.client.admin().describe_topics(std::slice::from_ref(&target)).await.unwrap();
    assert_eq!(described[&target].as_ref().unwrap().partitions.len(), 5);
    let resource = towpath_client::ConfigResource::Topic(target.clone());
    let configs =
        eu.client.admin().describe_configs(&[resource]).await.unwrap().into_values().next().unwrap();
    let retention = configs.unwrap().into_iter().find(|entry| entry.name == "retention.ms").unwrap();
    assert_eq!(retention.value.as_deref(), Some("123456789"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_transactions_only_the_committed_ones_arrive() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("bank", 2, &[]).await;
    let running = Link::start(link(&us, &eu));
    let writers = [
        us.client.transactional_producer(TransactionConfig::new("a")).await.unwrap(),
        us.client.transactional_producer(TransactionConfig::new("b")).await.unwrap(),
    ];
    for round in 0..60 {
        let [a, b] = &writers;
        let (first, second) = (a.begin().await.unwrap(), b.begin().await.unwrap());
        for (transaction, name) in [(&first, "a"), (&second, "b")] {
            for partition in 0..2 {
                let value = format!("{name} {round}");
                let record = ProducerRecord {
                    partition: Some(partition),
                    value: Some(value.as_bytes()),
                    ..ProducerRecord::new(&topic)
                };
                transaction.send(record).await.unwrap();
            }
            transaction.flush().await.unwrap();
        }
        if round % 3 == 0 {
            first.abort().await.unwrap()
        } else {
            first.commit().await.unwrap()
        }
        if round % 5 == 0 { second.abort().await.unwrap() } else { second.commit().await.unwrap() }
    }
    caught_up(&running, &us, 2).await;
    let target = towpath_types::TopicName::new("us.bank").unwrap();
    let copied = eu.values(&target, 2).await;
    assert_eq!(copied, us.values(&topic, 2).await);
    assert_eq!(copied[&0].len(), 40 + 48);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_killed_again_and_again_copies_each_record_once() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 4, &[]).await;
    let producer = us.producer();
    let writer = us.client.transactional_producer(TransactionConfig::new("w")).await.unwrap();
    let mut rng = StdRng::seed_from_u64(17);
    for round in 0..25 {
        for number in 0..400 {
            send(&producer, &topic, number % 4, &format!("{round} {number}")).await;
        }
        let transaction = writer.begin().await.unwrap();
        let record =
            ProducerRecord { partition: Some(round % 4), value: Some(b"t"), ..ProducerRecord::new(&topic) };
        transaction.send(record).await.unwrap();
        transaction.commit().await.unwrap();
        let running = Link::start(link(&us, &eu));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
        running.kill();
    }
    producer.flush().await.unwrap();
    let running = Link::start(link(&us, &eu));
    caught_up(&running, &us, 4).await;
    let target = towpath_types::TopicName::new("us.orders").unwrap();
    assert_eq!(eu.values(&target, 4).await, us.values(&topic, 4).await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_of_two_links_goes_on_and_the_other_ends() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 2, &[]).await;
    let producer = us.producer();
    let mut links = vec![Link::start(link(&us, &eu))];
    for round in 0..6 {
        for number in 0..500 {
            send(&producer, &topic, number % 2, &format!("{round} {number}")).await;
        }
        if round % 2 == 1 {
            links.push(Link::start(link(&us, &eu)));
        }
    }
    producer.flush().await.unwrap();
    let newest = links.pop().unwrap();
    // Whichever was last to take over goes on; the test's own is not always that one.
    let mut running = vec![newest];
    running.extend(links);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let alive =
        |running: &[Link]| running.iter().filter(|link| link.status().state != LinkState::Failed).count();
    while alive(&running) > 1 {
        let said = || running.iter().map(Link::status).collect::<Vec<_>>();
        assert!(tokio::time::Instant::now() < deadline, "{:#?}", said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The one that is left stays.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alive(&running), 1, "{:#?}", running.iter().map(Link::status).collect::<Vec<_>>());
    let at = running.iter().position(|link| link.status().state != LinkState::Failed).unwrap();
    let alive = running.swap_remove(at);
    send(&producer, &topic, 0, "last").await;
    producer.flush().await.unwrap();
    caught_up(&alive, &us, 2).await;
    let target = towpath_types::TopicName::new("us.orders").unwrap();
    assert_eq!(eu.values(&target, 2).await, us.values(&topic, 2).await);
    for ended in &running {
        until(ended, "it should have ended", |status| {
            status.state == LinkState::Failed
                && status.problem.as_ref().is_some_and(|it| it.contains("another process"))
        })
        .await;
    }
    alive.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_anew_is_told_and_not_mixed() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let mut config = link(&us, &eu);
    config.naming = Naming::Identical;
    let topic = us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    send(&producer, &topic, 0, "old").await;
    producer.flush().await.unwrap();
    let running = Link::start(config.clone());
    caught_up(&running, &us, 1).await;
    us.client.admin().delete_topics(std::slice::from_ref(&topic)).await.unwrap();
    us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    send(&producer, &topic, 0, "new").await;
    producer.flush().await.unwrap();
    let told = |status: &towpath_mirror::LinkStatus| {
        status.left_out.iter().any(|(_, why)| why.contains("made anew"))
    };
    until(&running, "it should be told", told).await;
    assert_eq!(eu.values(&topic, 1).await[&0], ["old"]);
    // As the status says.
    eu.client.admin().delete_topics(std::slice::from_ref(&topic)).await.unwrap();
    until(&running, "it should be mirrored", |status| status.left_out.is_empty()).await;
    caught_up(&running, &us, 1).await;
    assert_eq!(eu.values(&topic, 1).await[&0], ["new"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_target_has_deleted_meanwhile_is_not_missed() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    let target = towpath_types::TopicName::new("us.orders").unwrap();
    for round in 0..3 {
        for number in 0..50 {
            send(&producer, &topic, 0, &format!("{round} {number}")).await;
        }
        producer.flush().await.unwrap();
        let running = Link::start(link(&us, &eu));
        caught_up(&running, &us, 1).await;
        // The map that is stored ends before these records.
        running.kill();
        let all = TopicPartition::new(target.clone(), 0);
        let deleted =
            eu.client.admin().delete_records(&[(all.clone(), Offset::new(-1))].into()).await.unwrap();
        deleted[&all].as_ref().unwrap();
    }
    send(&producer, &topic, 0, "last").await;
    producer.flush().await.unwrap();
    let running = Link::start(link(&us, &eu));
    caught_up(&running, &us, 1).await;
    let left = eu.values(&target, 1).await;
    assert_eq!(left[&0].last().map(String::as_str), Some("last"));
    running.stop().await;
}
