//! Topics of the target follow those of the source, and what is to be done for that is told before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use towpath_client::{AlterConfig, Client, ConfigResource, ConfigSource, ProducerConfig};
use towpath_mirror::{Change, Link, LinkConfig, LinkState, Sync, plan};
use towpath_types::TopicName;

use super::support::{Cluster, PATIENCE, caught_up, link, send, until};

async fn set(cluster: &Cluster, topic: &TopicName, changes: Vec<AlterConfig>) {
    let resource = ConfigResource::Topic(topic.clone());
    let admin = cluster.client.admin();
    admin.incremental_alter_configs(&[(resource.clone(), changes)], false).await.unwrap()[&resource]
        .clone()
        .unwrap();
}

/// What is set of a topic itself.
async fn own(cluster: &Cluster, topic: &TopicName) -> BTreeMap<String, String> {
    let resource = ConfigResource::Topic(topic.clone());
    let described = cluster.client.admin().describe_configs(&[resource]).await.unwrap();
    let entries = described.into_values().next().unwrap().unwrap();
    let own = entries.into_iter().filter(|entry| entry.source == ConfigSource::Topic);
    own.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

async fn until_own(cluster: &Cluster, topic: &TopicName, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = own(cluster, topic).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}, and not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_change_later_follow_and_a_plan_tells_of_them() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 2, &[("retention.ms", "1000000"), ("min.insync.replicas", "1")]).await;
    let target = TopicName::new("us.orders").unwrap();
    let config = link(&us, &eu);
    let planned = plan(&config).await.unwrap();
    let configs = BTreeMap::from([("retention.ms".to_owned(), "1000000".to_owned())]);
    let [orders] = &planned[..] else { panic!("{planned:?}") };
    assert_eq!((orders.topic.as_str(), orders.target.as_str()), ("orders", "us.orders"));
    assert_eq!(orders.changes, [Change::Create { partitions: 2, configs }]);
    assert!(eu.client.admin().list_topics().await.unwrap().is_empty(), "nothing is changed by that");

    let running = Link::start(config.clone());
    caught_up(&running, &us, 2).await;
    until_own(&eu, &target, &[("retention.ms", "1000000")]).await;
    running.stop().await;
    set(
        &us,
        &topic,
        vec![
            AlterConfig::Set("retention.ms".to_owned(), "2000000".to_owned()),
            AlterConfig::Set("segment.bytes".to_owned(), "1048576".to_owned()),
        ],
    )
    .await;
    us.client.admin().create_partitions(&[(topic.clone(), 4)]).await.unwrap();
    // What belongs to the target's cluster alone stays.
    set(&eu, &target, vec![AlterConfig::Set("min.insync.replicas".to_owned(), "1".to_owned())]).await;
    let told: Vec<String> =
        plan(&config).await.unwrap().remove(0).changes.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["add partitions: 2 become 4", "set retention.ms=2000000, segment.bytes=1048576"]);
    let running = Link::start(config.clone());
    caught_up(&running, &us, 4).await;
    let kept = ("min.insync.replicas", "1");
    until_own(&eu, &target, &[kept, ("retention.ms", "2000000"), ("segment.bytes", "1048576")]).await;
    // While it runs; what only the target has is taken back.
    set(&us, &topic, vec![AlterConfig::Delete("retention.ms".to_owned())]).await;
    until_own(&eu, &target, &[kept, ("segment.bytes", "1048576")]).await;
    assert!(plan(&config).await.unwrap()[0].changes.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_synchronised_is_left_alone_and_told() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let config =
        LinkConfig { sync: Sync { configs: false, partitions: false, deletes: false }, ..link(&us, &eu) };
    let running = Link::start(config.clone());
    caught_up(&running, &us, 1).await;
    set(&us, &topic, vec![AlterConfig::Set("retention.ms".to_owned(), "2000000".to_owned())]).await;
    us.client.admin().create_partitions(&[(topic.clone(), 3)]).await.unwrap();
    assert!(plan(&config).await.unwrap()[0].changes.is_empty());
    let status = until(&running, "it is told", |status| !status.left_out.is_empty()).await;
    let (name, why) = &status.left_out[0];
    assert_eq!(name, "orders");
    assert!(
        why.contains("has 3") && why.contains("the target's has 1") && why.contains("sync: partitions"),
        "{why}"
    );
    let producer = us.producer();
    send(&producer, &topic, 0, "goes on").await;
    producer.flush().await.unwrap();
    let status = until(&running, "the first goes on", |status| status.partitions[0].mirrored == 1).await;
    assert_eq!((status.state, status.partitions.len()), (LinkState::Running, 1));
    let target = TopicName::new("us.orders").unwrap();
    assert!(own(&eu, &target).await.is_empty());
    running.stop().await;
}

/// A link with `sync: deletes`, and topics of which one has a record.
async fn deleting(us: &Cluster, eu: &Cluster) -> LinkConfig {
    let topic = us.topic("orders", 1, &[]).await;
    us.topic("others", 1, &[]).await;
    let producer = us.producer();
    send(&producer, &topic, 0, "old").await;
    producer.flush().await.unwrap();
    let sync = Sync { configs: true, partitions: true, deletes: true };
    let config = LinkConfig { sync, ..link(us, eu) };
    let running = Link::start(config.clone());
    caught_up(&running, us, 2).await;
    running.stop().await;
    config
}

async fn delete(cluster: &Cluster, topic: &str) {
    let topic = TopicName::new(topic).unwrap();
    let deleted = cluster.client.admin().delete_topics(std::slice::from_ref(&topic)).await.unwrap();
    deleted.into_values().for_each(|result| result.unwrap());
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let listed = cluster.client.admin().list_topics().await.unwrap();
    let names = listed.into_iter().map(|topic| topic.name.to_string());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("us.")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_go_at_the_source_go_at_the_target_if_that_is_wanted() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let config = deleting(&us, &eu).await;
    eu.topic("us.somebody_elses", 1, &[]).await;
    delete(&us, "orders").await;
    let told: Vec<_> = plan(&config).await.unwrap().into_iter().map(|it| (it.target, it.changes)).collect();
    let gone = ("us.orders".to_owned(), vec![Change::Delete]);
    assert_eq!(told, [gone, ("us.others".to_owned(), vec![])]);
    // Nothing goes where it is not wanted.
    let kept = Link::start(LinkConfig { sync: Sync { deletes: false, ..config.sync }, ..config.clone() });
    until(&kept, "it runs", |status| status.state == LinkState::Running).await;
    tokio::time::sleep(config.refresh * 6).await;
    assert_eq!(names(&eu).await, ["us.orders", "us.others", "us.somebody_elses"]);
    kept.stop().await;
    // One that is not moved in this life, and one that is.
    let running = Link::start(config.clone());
    until_names(&eu, &["us.others", "us.somebody_elses"]).await;
    delete(&us, "others").await;
    until_names(&eu, &["us.somebody_elses"]).await;
    until(&running, "it goes on without", |status| {
        status.state == LinkState::Running && status.partitions.is_empty()
    })
    .await;
    assert!(plan(&config).await.unwrap().is_empty());
    running.stop().await;
}

async fn until_names(cluster: &Cluster, expected: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let names = names(cluster).await;
        if names == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{names:?}, and not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_made_anew_are_mirrored_anew_if_deletes_are_wanted() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let config = deleting(&us, &eu).await;
    let target = TopicName::new("us.orders").unwrap();
    delete(&us, "orders").await;
    let topic = us.topic("orders", 1, &[]).await;
    let producer = Client::connect(us.config.clone()).await.unwrap().producer(ProducerConfig::default());
    for value in ["new", "newer"] {
        send(&producer, &topic, 0, value).await;
    }
    producer.flush().await.unwrap();
    let planned = plan(&config).await.unwrap();
    assert!(planned.iter().any(|it| it.changes == [Change::Renew]), "{planned:?}");
    let running = Link::start(config.clone());
    let deadline = Instant::now() + PATIENCE;
    // While it is deleted there, it cannot be read.
    loop {
        let there = until(&running, "it mirrors", |status| status.state == LinkState::Running).await;
        let moved = there.partitions.iter().any(|it| it.topic == "orders" && it.mirrored == 2);
        if moved && eu.values(&target, 1).await[&0] == ["new", "newer"] {
            break;
        }
        assert!(Instant::now() < deadline, "{there:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_fetched_than_the_bandwidth_allows() {
    let (us, eu) = (Cluster::start().await, Cluster::start().await);
    let topic = us.topic("orders", 1, &[]).await;
    let producer = us.producer();
    let value = "x".repeat(10_000);
    for _ in 0..300 {
        send(&producer, &topic, 0, &value).await;
    }
    producer.flush().await.unwrap();
    let begun = Instant::now();
    let bandwidth = 1_000_000;
    let running = Link::start(LinkConfig { bandwidth: Some(bandwidth), ..link(&us, &eu) });
    caught_up(&running, &us, 1).await;
    // 3 MB, of which two fetches come before anything has to be waited for.
    assert!(begun.elapsed().as_secs_f64() > 2.0, "{:?}", begun.elapsed());
    assert_eq!(eu.values(&TopicName::new("us.orders").unwrap(), 1).await[&0].len(), 300);
    running.stop().await;
}
