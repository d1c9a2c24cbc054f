//! Classic groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use towpath_client::{
    Assignor, Client, Consumer, ConsumerConfig, ConsumerEvent, ErrorCode, OffsetReset, StartAt, Subscription,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::{PATIENCE, fill, manual, partitions, producer, topic, values};

pub(super) fn group_id(what: &str) -> GroupId {
    GroupId::new(&format!("{what}-{:08x}", rand::random::<u32>())).unwrap()
}

fn member(client: &Client, group: &GroupId, assignor: Assignor, topic: &TopicName) -> Consumer {
    let config = ConsumerConfig {
        group_id: Some(group.clone()),
        assignors: vec![assignor],
        auto_offset_reset: OffsetReset::Earliest,
        heartbeat_interval_ms: 100,
        session_timeout_ms: 6_000,
        ..Default::default()
    };
    let consumer = client.consumer(config);
    consumer.subscribe(Subscription::Topics(vec![topic.clone()])).unwrap();
    consumer
}

/// Polls all members until their assignments are as many partitions as expected, together and each once.
pub(super) async fn settle(members: &[&Consumer], sizes: &[usize]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for member in members {
            member.poll(Duration::from_millis(20)).await.unwrap();
        }
        let assignments: Vec<_> = members.iter().map(|member| member.assignment()).collect();
        let all: Vec<_> = assignments.iter().flatten().collect();
        let once: BTreeSet<_> = all.iter().collect();
        let mut now: Vec<usize> = assignments.iter().map(Vec::len).collect();
        now.sort_unstable();
        if now == sizes && once.len() == all.len() {
            return;
        }
        assert!(Instant::now() < deadline, "assignments do not settle: {assignments:?}");
    }
}

pub(crate) async fn offsets_are_committed_and_resumed(client: Client) {
    let topic = topic(&client, "commit", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    fill(&producer(&client), &topic, 0, 20).await;
    let group = group_id("simple");
    let config = ConsumerConfig {
        group_id: Some(group.clone()),
        auto_offset_reset: OffsetReset::Earliest,
        ..Default::default()
    };
    let consumer = client.consumer(config.clone());
    assert!(consumer.committed(std::slice::from_ref(&partition)).await.unwrap().is_empty());
    consumer.assign(&[(partition.clone(), StartAt::Committed)]).unwrap();
    assert_eq!(values(&consumer, 20).await[&0].len(), 20);
    consumer.commit(&BTreeMap::from([(partition.clone(), Offset::new(15))])).await.unwrap();
    let again = client.consumer(config);
    again.assign(&[(partition.clone(), StartAt::Committed)]).unwrap();
    assert_eq!(values(&again, 5).await[&0], ["15", "16", "17", "18", "19"]);
    let committed = client.admin().list_group_offsets(&group, None).await.unwrap();
    assert_eq!(committed[&partition].offset, Offset::new(15));
}

pub(crate) async fn range_members_share_and_take_over(client: Client) {
    share_and_take_over(client, Assignor::Range).await;
}

pub(crate) async fn cooperative_members_share_and_take_over(client: Client) {
    share_and_take_over(client, Assignor::CooperativeSticky).await;
}

async fn share_and_take_over(client: Client, assignor: Assignor) {
    let topic = topic(&client, "shared", 4).await;
    let group = group_id("share");
    let first = member(&client, &group, assignor, &topic);
    settle(&[&first], &[4]).await;
    let before: BTreeSet<_> = first.assignment().into_iter().collect();
    let second = member(&client, &group, assignor, &topic);
    settle(&[&first, &second], &[2, 2]).await;
    assert!(first.assignment().iter().all(|partition| before.contains(partition)));
    let described = client.admin().describe_groups(std::slice::from_ref(&group)).await.unwrap();
    let description = described[&group].as_ref().unwrap();
    assert_eq!((description.members.len(), description.protocol.as_str()), (2, assignor.name()));
    assert_eq!(description.members.iter().map(|member| member.assignment.len()).sum::<usize>(), 4);
    second.close().await;
    settle(&[&first], &[4]).await;
    first.close().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let deleted = client.admin().delete_groups(std::slice::from_ref(&group)).await.unwrap();
        match &deleted[&group] {
            Ok(()) => break,
            Err(error) if error.code() == Some(ErrorCode::NonEmptyGroup) => {}
            // An empty group without offsets may be gone already.
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "the members have left, but the group does not become empty");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn a_revoked_partition_can_be_committed_first(client: Client) {
    let topic = topic(&client, "revoke", 2).await;
    let producer = producer(&client);
    fill(&producer, &topic, 0, 10).await;
    fill(&producer, &topic, 1, 10).await;
    let group = group_id("revoke");
    let first = member(&client, &group, Assignor::CooperativeSticky, &topic);
    let mut seen: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    while seen.values().filter(|offset| offset.get() == 10).count() < 2 {
        for batch in first.poll(Duration::from_millis(200)).await.unwrap() {
            seen.insert((*batch.partition).clone(), batch.next_offset);
        }
    }
    let second = member(&client, &group, Assignor::CooperativeSticky, &topic);
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
    // It goes on behind the commit: of the ten records none comes again.
    fill(&producer, &topic, revoked[0].partition, 1).await;
    let values = values(&second, 1).await;
    assert_eq!(values[&revoked[0].partition], ["0"]);
    assert_eq!(second.position(&revoked[0]), Some(Offset::new(11)));
}

pub(crate) async fn a_static_member_comes_back_without_a_rebalance(client: Client) {
    let topic = topic(&client, "static", 4).await;
    let group = group_id("static");
    let config = |instance: &str| ConsumerConfig {
        group_id: Some(group.clone()),
        group_instance_id: Some(instance.to_owned()),
        auto_offset_reset: OffsetReset::Earliest,
        heartbeat_interval_ms: 100,
        session_timeout_ms: 30_000,
        ..Default::default()
    };
    let subscribe = |instance: &str| {
        let consumer = client.consumer(config(instance));
        consumer.subscribe(Subscription::Topics(vec![topic.clone()])).unwrap();
        consumer
    };
    let (one, two) = (subscribe("one"), subscribe("two"));
    settle(&[&one, &two], &[2, 2]).await;
    let mine = two.assignment();
    two.close().await;
    drop(two);
    let again = subscribe("two");
    settle(&[&one, &again], &[2, 2]).await;
    assert_eq!(again.assignment(), mine);
}

pub(crate) async fn patterns_find_topics_that_come_later(client: Client) {
    let mark = format!("{:08x}", rand::random::<u32>());
    let first = topic(&client, &format!("pattern-{mark}"), 1).await;
    let config = ConsumerConfig {
        group_id: Some(group_id("pattern")),
        auto_offset_reset: OffsetReset::Earliest,
        topic_refresh_ms: 200,
        heartbeat_interval_ms: 100,
        ..Default::default()
    };
    let consumer = client.consumer(config);
    consumer.subscribe(Subscription::Patterns(vec![format!("pattern-{mark}-*")])).unwrap();
    settle(&[&consumer], &[1]).await;
    assert_eq!(consumer.assignment()[0].topic, first);
    let _second = topic(&client, &format!("pattern-{mark}"), 2).await;
    settle(&[&consumer], &[3]).await;
}

pub(crate) async fn a_fenced_commit_is_refused(client: Client) {
    let topic = topic(&client, "fenced", 1).await;
    let group = group_id("fenced");
    let consumer = member(&client, &group, Assignor::Range, &topic);
    settle(&[&consumer], &[1]).await;
    // Somebody else, who is no member, may not commit for a group that has members.
    let outsider = client.consumer(ConsumerConfig { group_id: Some(group.clone()), ..Default::default() });
    let offsets = BTreeMap::from([(partitions(&topic, 1).remove(0), Offset::ZERO)]);
    let error = outsider.commit(&offsets).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownMemberId), "{error}");
    consumer.commit(&offsets).await.unwrap();
    let reader = manual(&client, &[(partitions(&topic, 1).remove(0), StartAt::Earliest)]);
    assert!(reader.commit(&offsets).await.is_err(), "without a group there is nothing to commit to");
}
