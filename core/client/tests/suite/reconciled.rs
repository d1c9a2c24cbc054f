//! Groups of the consumer protocol (KIP-848).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use towpath_client::{
    Client, ClientError, Consumer, ConsumerConfig, ConsumerEvent, ErrorCode, GroupKind, OffsetReset,
    ProducerRecord, Subscription, TransactionConfig,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::groups::{group_id, settle};
use super::{PATIENCE, fill, partitions, producer, topic, values};

fn config(group: &GroupId) -> ConsumerConfig {
    ConsumerConfig {
        group_id: Some(group.clone()),
        group_protocol: GroupKind::Consumer,
        auto_offset_reset: OffsetReset::Earliest,
        ..Default::default()
    }
}

fn member(client: &Client, group: &GroupId, topic: &TopicName) -> Consumer {
    let consumer = client.consumer(config(group));
    consumer.subscribe(Subscription::Topics(vec![topic.clone()])).unwrap();
    consumer
}

pub(crate) async fn reconciled_members_share_and_take_over(client: Client) {
    let topic = topic(&client, "kip848", 4).await;
    let group = group_id("kip848");
    let first = member(&client, &group, &topic);
    settle(&[&first], &[4]).await;
    let before: BTreeSet<_> = first.assignment().into_iter().collect();
    let second = member(&client, &group, &topic);
    settle(&[&first, &second], &[2, 2]).await;
    assert!(first.assignment().iter().all(|partition| before.contains(partition)), "what stays is not moved");
    let third = member(&client, &group, &topic);
    settle(&[&first, &second, &third], &[1, 1, 2]).await;
    second.close().await;
    settle(&[&first, &third], &[2, 2]).await;
    third.close().await;
    settle(&[&first], &[4]).await;
    first.close().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let deleted = client.admin().delete_groups(std::slice::from_ref(&group)).await.unwrap();
        match &deleted[&group] {
            Ok(()) => break,
            Err(error) if error.code() == Some(ErrorCode::NonEmptyGroup) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "the members have left, but the group does not become empty");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn a_reconciled_member_commits_before_it_lets_go(client: Client) {
    let topic = topic(&client, "kip848-revoke", 2).await;
    let producer = producer(&client);
    fill(&producer, &topic, 0, 10).await;
    fill(&producer, &topic, 1, 10).await;
    let group = group_id("kip848-revoke");
    let first = member(&client, &group, &topic);
    let mut seen: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    while seen.values().filter(|offset| offset.get() == 10).count() < 2 {
        for batch in first.poll(Duration::from_millis(200)).await.unwrap() {
            seen.insert((*batch.partition).clone(), batch.next_offset);
        }
    }
    let second = member(&client, &group, &topic);
    let mut revoked = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while revoked.is_empty() {
        assert!(Instant::now() < deadline, "nothing is revoked");
        if let ConsumerEvent::Revoked(partitions) =
            first.poll_event(Duration::from_millis(100)).await.unwrap()
        {
            let commit = partitions.iter().map(|p| (p.clone(), seen[p])).collect();
            first.commit(&commit).await.unwrap();
            revoked = partitions;
        }
    }
    assert_eq!(revoked.len(), 1);
    settle(&[&first, &second], &[1, 1]).await;
    assert_eq!(second.assignment(), revoked);
    fill(&producer, &topic, revoked[0].partition, 1).await;
    let values = values(&second, 1).await;
    assert_eq!(values[&revoked[0].partition], ["0"]);
    assert_eq!(second.position(&revoked[0]), Some(Offset::new(11)));
}

pub(crate) async fn a_reconciled_static_member_keeps_its_place(client: Client) {
    let topic = topic(&client, "kip848-static", 4).await;
    let group = group_id("kip848-static");
    let subscribe = |instance: &str| {
        let consumer = client
            .consumer(ConsumerConfig { group_instance_id: Some(instance.to_owned()), ..config(&group) });
        consumer.subscribe(Subscription::Topics(vec![topic.clone()])).unwrap();
        consumer
    };
    let (one, two) = (subscribe("one"), subscribe("two"));
    settle(&[&one, &two], &[2, 2]).await;
    let mine: BTreeSet<_> = two.assignment().into_iter().collect();
    // Somebody with the name of one who is there is refused.
    let impostor = subscribe("two");
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "two members have one instance id");
        one.poll(Duration::from_millis(20)).await.unwrap();
        two.poll(Duration::from_millis(20)).await.unwrap();
        if let Err(error) = impostor.poll(Duration::from_millis(20)).await {
            break error;
        }
    };
    assert!(
        matches!(error, ClientError::MembershipLost { code: ErrorCode::UnreleasedInstanceId, .. }),
        "{error}"
    );
    assert!(error.is_fatal());
    two.close().await;
    drop((two, impostor));
    let again = subscribe("two");
    settle(&[&one, &again], &[2, 2]).await;
    assert_eq!(again.assignment().into_iter().collect::<BTreeSet<_>>(), mine);
}

pub(crate) async fn expressions_find_topics_that_come_later(client: Client) {
    for kind in [GroupKind::Consumer, GroupKind::Classic] {
        let mark = format!("{:08x}", rand::random::<u32>());
        let first = topic(&client, &format!("regex-{mark}"), 1).await;
        let group = group_id("regex");
        let config = ConsumerConfig {
            group_protocol: kind,
            topic_refresh_ms: 200,
            heartbeat_interval_ms: 100,
            ..config(&group)
        };
        let by_regex = client.consumer(config.clone());
        by_regex.subscribe(Subscription::Regex(format!("regex-({mark}|never)-[0-9a-f]+"))).unwrap();
        settle(&[&by_regex], &[1]).await;
        assert_eq!(by_regex.assignment()[0].topic, first);
        if kind == GroupKind::Classic {
            topic(&client, &format!("regex-{mark}"), 2).await;
            settle(&[&by_regex], &[3]).await;
        }
        let by_pattern = client.consumer(ConsumerConfig { group_id: Some(group_id("glob")), ..config });
        by_pattern.subscribe(Subscription::Patterns(vec![format!("regex-{mark}-*")])).unwrap();
        settle(&[&by_pattern], &[by_regex.assignment().len()]).await;
    }
    let refused = client.consumer(config(&group_id("no-regex")));
    refused.subscribe(Subscription::Regex("(".to_owned())).unwrap();
    let error = refused.poll(PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidRegularExpression), "{error}");
}

pub(crate) async fn a_reconciled_member_commits_with_transactions(client: Client) {
    let (input, output) = (topic(&client, "kip848-in", 1).await, topic(&client, "kip848-out", 1).await);
    fill(&producer(&client), &input, 0, 5).await;
    let source = partitions(&input, 1).remove(0);
    let group = group_id("kip848-tx");
    let consumer = member(&client, &group, &input);
    assert_eq!(values(&consumer, 5).await[&0].len(), 5);
    let id = format!("kip848-{:08x}", rand::random::<u32>());
    let producer = client.transactional_producer(TransactionConfig::new(id)).await.unwrap();
    let metadata = consumer.group_metadata().unwrap();
    assert!(metadata.generation > 0 && !metadata.member_id.is_empty());
    let offsets = BTreeMap::from([(source.clone(), Offset::new(5).into())]);
    let transaction = producer.begin().await.unwrap();
    transaction.send(ProducerRecord { value: Some(b"x"), ..ProducerRecord::new(&output) }).await.unwrap();
    transaction.send_offsets(&offsets, &metadata).await.unwrap();
    transaction.commit().await.unwrap();
    let committed = consumer.committed(std::slice::from_ref(&source)).await.unwrap();
    assert_eq!(committed[&source].offset, Offset::new(5));
    // A member of an epoch that never was is none.
    let zombie = towpath_client::ConsumerGroupMetadata { generation: metadata.generation + 5, ..metadata };
    let transaction = producer.begin().await.unwrap();
    let error = transaction.send_offsets(&offsets, &zombie).await.unwrap_err();
    assert!(error.is_abortable(), "{error}");
    transaction.abort().await.unwrap();
}
