//! Topics of the same name on both sides, written to on both.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use towpath_client::{ProducerConfig, TransactionConfig};
use towpath_mirror::{Link, LinkConfig, LinkState, Mode, Naming};
use towpath_types::TopicName;

use super::support::{Cluster, PATIENCE, link, send, until};

fn shared(name: &str, source: &Cluster, target: &Cluster) -> LinkConfig {
    LinkConfig {
        name: name.to_owned(),
        naming: Naming::Identical,
        mode: Mode::ActiveActive,
        ..link(source, target)
    }
}

/// Waits until every cluster has these values, each once, and those of each origin in their order.
async fn until_all_have(clusters: &[&Cluster], topic: &TopicName, written: &BTreeMap<String, Vec<String>>) {
    let count: usize = written.values().map(Vec::len).sum();
    for (at, cluster) in clusters.iter().enumerate() {
        let deadline = std::time::Instant::now() + PATIENCE;
        let values = loop {
            let values = cluster.values(topic, 1).await.remove(&0).unwrap();
            if values.len() >= count {
                break values;
            }
            assert!(std::time::Instant::now() < deadline, "cluster {at} has {} of {count}", values.len());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        for (origin, expected) in written {
            let found: Vec<_> = values.iter().filter(|value| value.starts_with(origin)).cloned().collect();
            assert_eq!(&found, expected, "of {origin}, at cluster {at}");
        }
        assert_eq!(values.len(), count, "cluster {at}");
    }
}

/// Writes so many values on each of the clusters, some in transactions.
async fn write(
    clusters: &[&Cluster],
    topic: &TopicName,
    round: usize,
    written: &mut BTreeMap<String, Vec<String>>,
) {
    for (at, cluster) in clusters.iter().enumerate() {
        let origin = format!("origin-{at}:");
        let values: Vec<_> = (0..40).map(|number| format!("{origin} {round} {number}")).collect();
        if round.is_multiple_of(2) {
            let producer = cluster.client.producer(ProducerConfig::default());
            for value in &values {
                send(&producer, topic, 0, value).await;
            }
            producer.flush().await.unwrap();
        } else {
            let config = TransactionConfig::new(format!("{origin} {round}"));
            let producer = cluster.client.transactional_producer(config).await.unwrap();
            let transaction = producer.begin().await.unwrap();
            for value in &values {
                let record = towpath_client::ProducerRecord {
                    partition: Some(0),
                    value: Some(value.as_bytes()),
                    ..towpath_client::ProducerRecord::new(topic)
                };
                transaction.send(record).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        written.entry(origin).or_default().extend(values);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_have_everything_once_and_nothing_goes_round() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let sides = [&us, &eu];
    let links = [shared("us-to-eu", &us, &eu), shared("eu-to-us", &eu, &us)];
    let mut running: Vec<Link> = links.iter().cloned().map(Link::start).collect();
    until(&running[1], "the other side has the topic", |status| status.partitions.len() == 1).await;
    let mut written = BTreeMap::new();
    for round in 0..8 {
        write(&sides, &topic, round, &mut written).await;
        if random.random_bool(0.5) {
            until_all_have(&sides, &topic, &written).await;
        }
        let at = random.random_range(0..2);
        running.remove(at).kill();
        running.insert(at, Link::start(links[at].clone()));
    }
    until_all_have(&sides, &topic, &written).await;
    // What would go round comes again and again.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    until_all_have(&sides, &topic, &written).await;
    for link in &running {
        let status = until(link, "it runs", |status| status.state == LinkState::Running).await;
        assert!(status.problem.is_none(), "{status:?}");
        link.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_ring_everything_goes_on_to_where_it_began_and_no_further() {
    let (us, eu, ap) = (Cluster::start().await, Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let sides = [&us, &eu, &ap];
    let links = [shared("a", &us, &eu), shared("b", &eu, &ap), shared("c", &ap, &us)];
    let mut running: Vec<Link> = links.iter().cloned().map(Link::start).collect();
    until(&running[2], "all have the topic", |status| status.partitions.len() == 1).await;
    let mut written = BTreeMap::new();
    for round in 0..6 {
        write(&sides, &topic, round, &mut written).await;
        let at = round % 3;
        running.remove(at).kill();
        running.insert(at, Link::start(links[at].clone()));
    }
    until_all_have(&sides, &topic, &written).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    until_all_have(&sides, &topic, &written).await;
    for link in &running {
        link.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_mesh_everything_goes_to_all_others_by_one_way() {
    let (us, eu, ap) = (Cluster::start().await, Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let sides = [&us, &eu, &ap];
    let mut links = Vec::new();
    for (from, source) in sides.iter().enumerate() {
        for (to, target) in sides.iter().enumerate().filter(|(to, _)| *to != from) {
            links.push(LinkConfig { forward: false, ..shared(&format!("{from}-to-{to}"), source, target) });
        }
    }
    let mut running: Vec<Link> = links.iter().cloned().map(Link::start).collect();
    for link in &running {
        until(link, "all have the topic", |status| status.partitions.len() == 1).await;
    }
    let mut written = BTreeMap::new();
    for (round, link) in links.into_iter().enumerate() {
        write(&sides, &topic, round, &mut written).await;
        running.remove(round).kill();
        running.insert(round, Link::start(link));
    }
    until_all_have(&sides, &topic, &written).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    until_all_have(&sides, &topic, &written).await;
    for link in &running {
        link.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_not_mirrored_into_itself() {
    let us = Cluster::start().await;
    let topic = us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    send(&producer, &topic, 0, "once").await;
    producer.flush().await.unwrap();
    let running = Link::start(shared("self", &us, &us));
    let status = until(&running, "it ends", |status| status.state == LinkState::Failed).await;
    assert!(status.problem.unwrap().contains("the same cluster"));
    assert_eq!(us.values(&topic, 1).await[&0], ["once"]);
}
