//! Administration.

use std::collections::BTreeMap;

use towpath_client::{
    AlterConfig, Client, CommittedOffset, ConfigResource, ConfigSource, ErrorCode, NewTopic, OffsetSpec,
};
use towpath_types::{GroupId, Offset, TopicName};

use super::{fill, partitions, producer, topic, topic_with};

pub(crate) async fn topics_are_created_described_grown_and_deleted(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "admin", 2).await;
    let described = admin.describe_topics(std::slice::from_ref(&topic)).await.unwrap();
    let description = described[&topic].as_ref().unwrap();
    assert_eq!(description.partitions.len(), 2);
    assert!(description.partitions.iter().all(|p| p.leader.is_some() && p.replicas.len() == 1));
    let listed = admin.list_topics().await.unwrap();
    let listing = listed.iter().find(|listing| listing.name == topic).unwrap();
    assert_eq!((listing.partitions, listing.id), (2, description.id));
    let again = admin.create_topics(&[NewTopic::new(topic.clone())], false).await.unwrap();
    assert_eq!(again[&topic].as_ref().unwrap_err().code(), Some(ErrorCode::TopicAlreadyExists));
    admin.create_partitions(&[(topic.clone(), 5)]).await.unwrap()[&topic].as_ref().unwrap();
    let fewer = admin.create_partitions(&[(topic.clone(), 1)]).await.unwrap();
    assert_eq!(fewer[&topic].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidPartitions));
    let dry = TopicName::new("only-checked").unwrap();
    admin.create_topics(&[NewTopic::new(dry.clone())], true).await.unwrap()[&dry].as_ref().unwrap();
    assert!(admin.describe_topics(std::slice::from_ref(&dry)).await.unwrap()[&dry].is_err());
    admin.delete_topics(std::slice::from_ref(&topic)).await.unwrap()[&topic].as_ref().unwrap();
    let gone = admin.delete_topics(std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!(gone[&topic].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopicOrPartition));
    let cluster = admin.describe_cluster().await.unwrap();
    assert_eq!(cluster.brokers.len(), 1);
    assert!(cluster.cluster_id.is_some());
}

pub(crate) async fn configs_are_read_and_changed(client: Client) {
    let admin = client.admin();
    let topic = topic_with(&client, "configs", 1, &[("retention.ms", "12345")]).await;
    let resource = ConfigResource::Topic(topic.clone());
    let read = async |name: &str| {
        let described = admin.describe_configs(std::slice::from_ref(&resource)).await.unwrap();
        let entries = described[&resource].as_ref().unwrap().clone();
        entries.into_iter().find(|entry| entry.name == name).unwrap()
    };
    let entry = read("retention.ms").await;
    assert_eq!((entry.value.as_deref(), entry.source), (Some("12345"), ConfigSource::Topic));
    assert_eq!(read("cleanup.policy").await.value.as_deref(), Some("delete"));
    let change = |changes: Vec<AlterConfig>| [(resource.clone(), changes)];
    let set = change(vec![
        AlterConfig::Delete("retention.ms".into()),
        AlterConfig::Append("cleanup.policy".into(), "compact".into()),
        AlterConfig::Set("max.message.bytes".into(), "7777".into()),
    ]);
    admin.incremental_alter_configs(&set, false).await.unwrap()[&resource].as_ref().unwrap();
    assert_eq!(read("cleanup.policy").await.value.as_deref(), Some("delete,compact"));
    assert_eq!(read("max.message.bytes").await.value.as_deref(), Some("7777"));
    assert_ne!(read("retention.ms").await.source, ConfigSource::Topic);
    let wrong = change(vec![AlterConfig::Set("retention.ms".into(), "soon".into())]);
    let refused = admin.incremental_alter_configs(&wrong, false).await.unwrap();
    assert_eq!(refused[&resource].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidConfig));
}

pub(crate) async fn records_are_deleted_and_offsets_listed(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "delete", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    fill(&producer(&client), &topic, 0, 50).await;
    let before = BTreeMap::from([(partition.clone(), Offset::new(30))]);
    let deleted = admin.delete_records(&before).await.unwrap();
    assert_eq!(*deleted[&partition].as_ref().unwrap(), Offset::new(30));
    for (spec, expected) in [(OffsetSpec::Earliest, 30), (OffsetSpec::Latest, 50)] {
        let listed = admin.list_offsets(&[(partition.clone(), spec)]).await.unwrap();
        assert_eq!(listed[&partition].as_ref().unwrap().offset, Some(Offset::new(expected)), "{spec:?}");
    }
    let beyond = BTreeMap::from([(partition.clone(), Offset::new(1_000))]);
    let refused = admin.delete_records(&beyond).await.unwrap();
    assert_eq!(refused[&partition].as_ref().unwrap_err().code(), Some(ErrorCode::OffsetOutOfRange));
}

pub(crate) async fn group_offsets_are_set_and_deleted(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "groupoffsets", 2).await;
    let both = partitions(&topic, 2);
    let group = GroupId::new(&format!("reset-{:08x}", rand::random::<u32>())).unwrap();
    let mut offset = CommittedOffset::from(Offset::new(7));
    offset.metadata = "why".to_owned();
    let offsets: BTreeMap<_, _> = both.iter().map(|p| (p.clone(), offset.clone())).collect();
    for (_, result) in admin.alter_group_offsets(&group, &offsets).await.unwrap() {
        result.unwrap();
    }
    assert_eq!(admin.list_group_offsets(&group, Some(&both)).await.unwrap(), offsets);
    let listed = admin.list_groups().await.unwrap();
    assert!(listed.iter().any(|listing| listing.group_id == group.as_str()));
    for (_, result) in admin.delete_group_offsets(&group, &both[..1]).await.unwrap() {
        result.unwrap();
    }
    let left = admin.list_group_offsets(&group, None).await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), [&both[1]]);
    admin.delete_groups(std::slice::from_ref(&group)).await.unwrap()[&group].as_ref().unwrap();
    assert!(admin.list_group_offsets(&group, None).await.unwrap().is_empty());
}
