//! Administration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use towpath_client::{
    AbortTransaction, Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, AlterConfig,
    Client, ClientError, CommittedOffset, ConfigResource, ConfigSource, ConfigType, ConsumerConfig,
    ErrorCode, GroupKind, IsolationLevel, LogDirDescription, MemberToRemove, NewPartitions, NewTopic,
    OffsetReset, OffsetSpec, ProducerRecord, QuotaMatch, Subscription, TransactionConfig, TransactionFilter,
};
use towpath_types::{GroupId, Offset, TopicName};

use super::{PATIENCE, fill, partitions, producer, topic, topic_with};

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
    // A cluster may take a moment to know what it has changed.
    let deadline = Instant::now() + PATIENCE;
    while read("cleanup.policy").await.value.as_deref() == Some("delete") && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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

pub(crate) async fn transactions_are_listed_described_and_fenced(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "tx-admin", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    let id = format!("tx-admin-{:08x}", rand::random::<u32>());
    let producer = client.transactional_producer(TransactionConfig::new(id.clone())).await.unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(ProducerRecord { value: Some(b"x"), ..ProducerRecord::new(&topic) }).await.unwrap();
    transaction.flush().await.unwrap();
    let (producer_id, epoch) = producer.identity().unwrap();

    let ongoing = TransactionFilter { states: vec!["Ongoing".into()], ..Default::default() };
    for filter in [
        ongoing.clone(),
        TransactionFilter { producer_ids: vec![producer_id], ..Default::default() },
        TransactionFilter { id_pattern: Some(format!("{id}.*")), ..Default::default() },
    ] {
        let listed = admin.list_transactions(&filter).await.unwrap();
        let listing = listed.iter().find(|listing| listing.transactional_id == id).unwrap();
        assert_eq!((listing.producer_id, listing.state.as_str()), (producer_id, "Ongoing"), "{filter:?}");
    }
    let young = TransactionFilter { longer_than: Some(Duration::from_secs(3_600)), ..ongoing };
    assert!(admin.list_transactions(&young).await.unwrap().iter().all(|it| it.transactional_id != id));
    let wrong = TransactionFilter { states: vec!["Dancing".into()], ..Default::default() };
    assert!(admin.list_transactions(&wrong).await.unwrap_err().to_string().contains("Dancing"));

    let described = admin.describe_transactions(&[&id, "nobody"]).await.unwrap();
    let description = described[&id].as_ref().unwrap();
    assert_eq!((description.state.as_str(), description.timeout_ms), ("Ongoing", 60_000));
    assert_eq!((description.producer_id, description.producer_epoch), (producer_id, epoch));
    assert!(description.partitions.contains(&partition) && description.start_ms.is_some());
    let unknown = described["nobody"].as_ref().unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::TransactionalIdNotFound), "{unknown}");

    let producers = admin.describe_producers(std::slice::from_ref(&partition), None).await.unwrap();
    let state = producers[&partition].as_ref().unwrap()[0];
    assert_eq!((state.producer_id, state.producer_epoch), (producer_id, i32::from(epoch.get())));
    assert_eq!((state.transaction_start, state.last_sequence), (Some(Offset::ZERO), Some(0)));
    let hanging = admin.find_hanging_transactions(std::slice::from_ref(&partition), Duration::ZERO).await;
    assert!(hanging.unwrap().is_empty(), "its coordinator knows of it");

    let fenced = admin.fence_producers(&[&id]).await.unwrap();
    assert_eq!(fenced[&id].as_ref().unwrap().0, producer_id);
    assert!(transaction.commit().await.is_err());
    assert!(producer.begin().await.unwrap_err().is_fatal());
}

pub(crate) async fn a_transaction_is_aborted_past_its_coordinator(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "tx-abort", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    let id = format!("tx-abort-{:08x}", rand::random::<u32>());
    // The second of two: its epoch is not the first that there is.
    drop(client.transactional_producer(TransactionConfig::new(id.clone())).await.unwrap());
    let producer = client.transactional_producer(TransactionConfig::new(id)).await.unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(ProducerRecord { value: Some(b"x"), ..ProducerRecord::new(&topic) }).await.unwrap();
    transaction.flush().await.unwrap();
    let end = async || {
        let specs = [(partition.clone(), OffsetSpec::Latest)];
        let listed = admin.list_offsets_at(&specs, IsolationLevel::ReadCommitted).await.unwrap();
        listed[&partition].as_ref().unwrap().offset.unwrap()
    };
    assert_eq!(end().await, Offset::ZERO, "the last stable offset");
    let producers = admin.describe_producers(std::slice::from_ref(&partition), None).await.unwrap();
    let state = producers[&partition].as_ref().unwrap()[0];
    let abort = AbortTransaction {
        partition: partition.clone(),
        producer_id: state.producer_id,
        producer_epoch: i16::try_from(state.producer_epoch).unwrap(),
        coordinator_epoch: state.coordinator_epoch.unwrap_or(-1),
    };
    let older = AbortTransaction { producer_epoch: abort.producer_epoch - 1, ..abort.clone() };
    let refused = admin.abort_transaction(&older).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidProducerEpoch), "{refused}");
    admin.abort_transaction(&abort).await.unwrap();
    assert_eq!(end().await, Offset::new(2), "behind the marker");
}

pub(crate) async fn configs_tell_where_they_come_from(client: Client) {
    let admin = client.admin();
    let topic = topic_with(&client, "synonyms", 1, &[("retention.ms", "12345")]).await;
    let broker = admin.describe_cluster().await.unwrap().brokers[0].id;
    let resources = [ConfigResource::Topic(topic.clone()), ConfigResource::Broker(Some(broker))];
    let described = admin.describe_configs(&resources).await.unwrap();
    let of = |resource: &ConfigResource, name: &str| {
        let entries = described[resource].as_ref().unwrap();
        entries.iter().find(|entry| entry.name == name).unwrap().clone()
    };
    let retention = of(&resources[0], "retention.ms");
    assert_eq!(retention.config_type, ConfigType::Long);
    let first = &retention.synonyms[0];
    assert_eq!((first.source, first.value.as_deref()), (ConfigSource::Topic, Some("12345")));
    let policy = of(&resources[0], "cleanup.policy");
    assert_eq!(policy.config_type, ConfigType::List);
    let last = policy.synonyms.last().unwrap();
    assert_eq!((last.name.as_str(), last.source), ("log.cleanup.policy", ConfigSource::Default));
    let dynamic = ConfigResource::Broker(Some(broker));
    let set = [(dynamic.clone(), vec![AlterConfig::Set("log.cleaner.threads".into(), "2".into())])];
    admin.incremental_alter_configs(&set, false).await.unwrap()[&dynamic].as_ref().unwrap();
    let deadline = std::time::Instant::now() + super::PATIENCE;
    loop {
        let described = admin.describe_configs(std::slice::from_ref(&dynamic)).await.unwrap();
        let entries = described[&dynamic].as_ref().unwrap();
        let threads = entries.iter().find(|entry| entry.name == "log.cleaner.threads").unwrap();
        if (threads.value.as_deref(), threads.source) == (Some("2"), ConfigSource::Broker) {
            assert!(threads.synonyms.len() >= 2, "{threads:?}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{threads:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delete = [(dynamic.clone(), vec![AlterConfig::Delete("log.cleaner.threads".into())])];
    admin.incremental_alter_configs(&delete, false).await.unwrap()[&dynamic].as_ref().unwrap();
    let listed = admin.list_config_resources().await.unwrap();
    assert!(listed.contains(&resources[0]) && listed.contains(&dynamic), "{listed:?}");
}

pub(crate) async fn features_and_log_directories_are_told(client: Client) {
    let admin = client.admin();
    let features = admin.describe_features().await.unwrap();
    assert!(features.epoch.is_some());
    for (name, level) in [("transaction.version", 2), ("group.version", 1)] {
        let feature = features.features[name];
        assert_eq!(feature.finalized, Some(level), "{name}");
        assert!(feature.supported.unwrap().1 >= level, "{name}");
    }
    let topic = topic(&client, "dirs", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    let broker = admin.describe_cluster().await.unwrap().brokers[0].id;
    let deadline = std::time::Instant::now() + super::PATIENCE;
    let dir = loop {
        let dirs = admin.describe_log_dirs(&[broker]).await.unwrap().remove(&broker).unwrap().unwrap();
        let holds = |dir: &LogDirDescription| dir.replicas.iter().any(|it| it.partition == partition);
        if let Some(dir) = dirs.into_iter().find(holds) {
            break dir;
        }
        assert!(std::time::Instant::now() < deadline, "the partition is in no directory");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let to = |path: &str| BTreeMap::from([((partition.clone(), broker), path.to_owned())]);
    for (path, expected) in [(dir.path.as_str(), None), ("/nowhere", Some(ErrorCode::LogDirNotFound))] {
        let moved = admin.alter_replica_log_dirs(&to(path)).await.unwrap();
        let result = &moved[&(partition.clone(), broker)];
        assert_eq!(result.as_ref().err().and_then(|error| error.code()), expected, "{path}: {result:?}");
    }
}

pub(crate) async fn topics_grow_as_told_or_are_only_checked(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "grow", 1).await;
    let broker = admin.describe_cluster().await.unwrap().brokers[0].id;
    let to = |total, assignments| BTreeMap::from([(topic.clone(), NewPartitions { total, assignments })]);
    admin.grow_topics(&to(3, None), true).await.unwrap()[&topic].as_ref().unwrap();
    let count = async || {
        admin.describe_topics(std::slice::from_ref(&topic)).await.unwrap()[&topic]
            .as_ref()
            .map(|described| described.partitions.len())
            .unwrap()
    };
    assert_eq!(count().await, 1, "it was only checked");
    let unknown = TopicName::new("never-created").unwrap();
    let paged = admin.describe_topic_partitions(&[topic.clone(), unknown.clone()]).await.unwrap();
    let described = paged[&topic].as_ref().unwrap();
    assert_eq!((described.partitions.len(), &described.partitions[0].replicas[..]), (1, &[broker][..]));
    assert!(matches!(paged[&unknown], Err(ClientError::UnknownTopic { .. })), "{:?}", paged[&unknown]);
    let wrong = admin.grow_topics(&to(2, Some(vec![vec![broker + 100]])), false).await.unwrap();
    assert_eq!(wrong[&topic].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidReplicaAssignment));
    admin.grow_topics(&to(2, Some(vec![vec![broker]])), false).await.unwrap()[&topic].as_ref().unwrap();
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while count().await != 2 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn groups_of_both_protocols_are_described_and_emptied(client: Client) {
    let admin = client.admin();
    let topic = topic(&client, "both", 2).await;
    for kind in [GroupKind::Classic, GroupKind::Consumer] {
        let group = super::groups::group_id("both");
        let consumer = client.consumer(ConsumerConfig {
            group_id: Some(group.clone()),
            group_protocol: kind,
            group_instance_id: (kind == GroupKind::Classic).then(|| "one".to_owned()),
            auto_offset_reset: OffsetReset::Earliest,
            heartbeat_interval_ms: 100,
            ..Default::default()
        });
        consumer.subscribe(Subscription::Topics(vec![topic.clone()])).unwrap();
        super::groups::settle(&[&consumer], &[2]).await;
        let described = admin.describe_groups(std::slice::from_ref(&group)).await.unwrap();
        let description = described[&group].as_ref().unwrap();
        assert_eq!(description.group_type, kind.name());
        assert_eq!(description.epochs.is_some(), kind == GroupKind::Consumer);
        let member = &description.members[0];
        assert_eq!(member.assignment.len(), 2, "{member:?}");
        assert_eq!(member.reconciliation.is_some(), kind == GroupKind::Consumer);
        if let Some(more) = &member.reconciliation {
            assert_eq!((&more.topics[..], more.target.len()), (&[topic.as_str().to_owned()][..], 2));
        }
        let listed = admin.list_groups_with(&["Stable"], &[kind.name()]).await.unwrap();
        let listing = listed.iter().find(|listing| listing.group_id == group.as_str()).unwrap();
        assert_eq!(
            (listing.state.as_str(), listing.group_type.to_lowercase().as_str()),
            ("Stable", kind.name())
        );
        let remove = match &member.group_instance_id {
            Some(instance) => MemberToRemove::Instance(instance.clone()),
            None => MemberToRemove::Member(member.member_id.clone()),
        };
        if kind == GroupKind::Classic {
            let removed = admin.remove_members(&group, std::slice::from_ref(&remove), "test").await.unwrap();
            removed[&remove].as_ref().unwrap();
        }
        consumer.close().await;
    }
}

pub(crate) async fn acls_and_quotas_are_kept(client: Client) {
    let admin = client.admin();
    let name = format!("acl-{:08x}", rand::random::<u32>());
    let acl = |operation| Acl {
        resource: AclResource::Topic,
        name: name.clone(),
        pattern: AclPattern::Prefixed,
        principal: "User:alice".into(),
        host: "*".into(),
        operation,
        permission: AclPermission::Allow,
    };
    let acls = BTreeSet::from([acl(AclOperation::Read), acl(AclOperation::Write)]);
    assert!(admin.create_acls(&acls).await.unwrap().values().all(Result::is_ok));
    let of_name = AclFilter { name: Some(name.clone()), ..Default::default() };
    eventually(async || admin.describe_acls(&of_name).await.unwrap() == acls).await;
    let reading = AclFilter { operation: Some(AclOperation::Read), ..of_name.clone() };
    assert_eq!(admin.delete_acls(&reading).await.unwrap(), BTreeSet::from([acl(AclOperation::Read)]));
    let left = BTreeSet::from([acl(AclOperation::Write)]);
    eventually(async || admin.describe_acls(&of_name).await.unwrap() == left).await;

    let entity = BTreeMap::from([("client-id".to_owned(), Some(name.clone()))]);
    let change = |value| {
        BTreeMap::from([(entity.clone(), BTreeMap::from([("producer_byte_rate".to_owned(), value)]))])
    };
    admin.alter_client_quotas(&change(Some(1e9)), false).await.unwrap()[&entity].as_ref().unwrap();
    let filter = BTreeMap::from([("client-id".to_owned(), QuotaMatch::Name(name.clone()))]);
    let rate = async || {
        let found = admin.describe_client_quotas(&filter, true).await.unwrap();
        found.get(&entity).and_then(|quotas| quotas.get("producer_byte_rate").copied())
    };
    eventually(async || rate().await == Some(1e9)).await;
    admin.alter_client_quotas(&change(None), false).await.unwrap()[&entity].as_ref().unwrap();
    eventually(async || rate().await.is_none()).await;
    let wrong = BTreeMap::from([(entity.clone(), BTreeMap::from([("speed".to_owned(), Some(1.0))]))]);
    let refused = admin.alter_client_quotas(&wrong, false).await.unwrap();
    assert_eq!(refused[&entity].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidRequest));
}

/// A cluster may take a moment to know what it was told.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "it does not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
