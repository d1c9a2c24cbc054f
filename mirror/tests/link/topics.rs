//! Topics of the target follow those of the source, and what is to be done for that is told before.

use std::collections::BTreeMap;

use towpath_client::{AlterConfig, ConfigResource, ConfigSource};
use towpath_mirror::{Change, Link, LinkState, Sync, plan};
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
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let found = own(cluster, topic).await;
        if found == expected {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{found:?}, and not {expected:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
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
        towpath_mirror::LinkConfig { sync: Sync { configs: false, partitions: false }, ..link(&us, &eu) };
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
