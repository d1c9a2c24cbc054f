//! Offsets: committed, fetched, deleted, expired.

use towpath_wire::OffsetDeleteRequest;
use towpath_wire::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn fetch_all(world: &World, group: &str) -> Vec<(String, i32, i64)> {
    let request = OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
    let response = world.machine.fetch_offsets(&request, false);
    assert_eq!(response.error_code, 0);
    let topics = response.topics.into_iter();
    topics
        .flat_map(|topic| {
            let offsets = topic.partitions.into_iter();
            offsets.map(move |offset| (topic.name.clone(), offset.partition_index, offset.committed_offset))
        })
        .collect()
}

fn delete(world: &mut World, group: &str, topic: &str) -> (ErrorCode, Vec<ErrorCode>) {
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let waiter = world.ask(|machine, now, waiter, out| machine.delete_offsets(now, waiter, &request, out));
    let Some(Reply::OffsetDelete(response)) = world.replies.get(&waiter) else { panic!("no answer") };
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    (
        ErrorCode::from_code(response.error_code),
        partitions.map(|partition| ErrorCode::from_code(partition.error_code)).collect(),
    )
}

#[test]
fn an_unknown_group_has_no_offsets_and_no_error() {
    let world = World::new();
    let request = OffsetFetchRequestGroup {
        group_id: "nobody".into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "orders".into(),
            partition_indexes: vec![0, 7],
            ..Default::default()
        }]),
        ..Default::default()
    };
    let response = world.machine.fetch_offsets(&request, false);
    assert_eq!(response.error_code, 0);
    for partition in &response.topics[0].partitions {
        assert_eq!((partition.error_code, partition.committed_offset), (0, -1));
        assert_eq!((partition.committed_leader_epoch, partition.metadata.as_deref()), (-1, Some("")));
    }
    assert_eq!(fetch_all(&world, "nobody"), []);
}

#[test]
fn a_commit_is_answered_and_seen_when_the_log_has_it() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    world.instant_log = false;
    let waiter = world.commit(&committing(&ids[0], generation, 42));
    assert!(!world.replies.contains_key(&waiter));
    assert_eq!(world.fetch("orders", 0), -1);
    world.commit_appends();
    assert_eq!(world.commit_error(waiter), ErrorCode::None);
    assert_eq!(world.fetch("orders", 0), 42);
    let waiter = world.commit(&committing(&ids[0], generation, 43));
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.commit_error(waiter), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.fetch("orders", 0), 42);
    assert_eq!(world.restarted().fetch("orders", 0), 42);
}

#[test]
fn whoever_assigns_partitions_to_itself_commits_without_a_generation() {
    let mut world = World::new();
    let waiter = world.commit(&committing("", -1, 7));
    assert_eq!(world.commit_error(waiter), ErrorCode::None);
    assert_eq!(world.fetch("orders", 0), 7);
    assert_eq!(world.restarted().fetch("orders", 0), 7);
    assert_eq!(world.machine.describe_group("g", 6).protocol_type, "");
}

#[test]
fn commits_are_fenced_by_member_and_generation() {
    let mut world = World::new();
    let unknown = world.commit_with(&committing("m", 1, 1), 9);
    assert_eq!(world.commit_error(unknown), ErrorCode::GroupIdNotFound);
    let unknown = world.commit_with(&committing("m", 1, 1), 8);
    assert_eq!(world.commit_error(unknown), ErrorCode::IllegalGeneration);
    let (ids, generation) = world.stable(1);
    for (request, error) in [
        (committing("", -1, 1), ErrorCode::UnknownMemberId),
        (committing("m", generation, 1), ErrorCode::UnknownMemberId),
        (committing(&ids[0], generation - 1, 1), ErrorCode::IllegalGeneration),
        (committing(&ids[0], generation + 1, 1), ErrorCode::IllegalGeneration),
        (committing(&ids[0], -1, 1), ErrorCode::IllegalGeneration),
        (committing(&ids[0], generation, 1), ErrorCode::None),
    ] {
        let waiter = world.commit(&request);
        assert_eq!(world.commit_error(waiter), error);
    }
    // While others rejoin a member may still commit what it has done; when the new generation is formed it may not.
    let new = world.new_id();
    world.join(joining(&new));
    let waiter = world.commit(&committing(&ids[0], generation, 2));
    assert_eq!(world.commit_error(waiter), ErrorCode::None);
    world.join(joining(&ids[0]));
    let waiter = world.commit(&committing(&ids[0], generation + 1, 3));
    assert_eq!(world.commit_error(waiter), ErrorCode::RebalanceInProgress);
    assert_eq!(world.fetch("orders", 0), 2);
}

#[test]
fn metadata_has_a_bound_that_counts_as_kafka_does() {
    let mut world = World::new();
    let with = |text: String| {
        let mut request = committing("", -1, 1);
        request.topics[0].partitions[0].committed_metadata = Some(text);
        request.topics[0].partitions.push(OffsetCommitRequestPartition {
            partition_index: 1,
            committed_offset: 9,
            ..Default::default()
        });
        request
    };
    for (text, error) in [
        ("x".repeat(4096), ErrorCode::None),
        ("ä".repeat(4096), ErrorCode::None),
        ("x".repeat(4097), ErrorCode::OffsetMetadataTooLarge),
        ("😀".repeat(2049), ErrorCode::OffsetMetadataTooLarge),
    ] {
        let waiter = world.commit(&with(text));
        assert_eq!(world.commit_error(waiter), error);
        assert_eq!(
            world.committed(waiter).topics[0].partitions[1].error_code,
            0,
            "each partition on its own"
        );
    }
    assert_eq!(world.fetch("orders", 1), 9);
}

#[test]
fn a_recreated_topic_does_not_inherit_offsets() {
    let mut world = World::new();
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut request = committing("", -1, 5);
    request.topics[0].topic_id = old;
    let waiter = world.commit(&request);
    assert_eq!(world.committed(waiter).topics[0].topic_id, old);
    let world = world.restarted();
    for (topic_id, offset) in [(old, 5), (new, -1), (Uuid::nil(), 5)] {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "orders".into(),
                topic_id,
                partition_indexes: vec![0],
            }]),
            ..Default::default()
        };
        let fetched = world.machine.fetch_offsets(&request, false);
        assert_eq!(fetched.topics[0].partitions[0].committed_offset, offset);
        assert_eq!(fetched.topics[0].topic_id, topic_id);
    }
}

#[test]
fn offsets_of_topics_in_use_cannot_be_deleted() {
    let mut world = World::new();
    assert_eq!(delete(&mut world, "g", "orders").0, ErrorCode::GroupIdNotFound);
    assert_eq!(delete(&mut world, "", "orders").0, ErrorCode::InvalidGroupId);
    let (ids, generation) = world.stable(1);
    let mut request = committing(&ids[0], generation, 5);
    let mut other = request.topics[0].clone();
    other.name = "customers".into();
    request.topics.push(other);
    world.commit(&request);
    assert_eq!(delete(&mut world, "g", "orders"), (ErrorCode::None, vec![ErrorCode::GroupSubscribedToTopic]));
    assert_eq!(delete(&mut world, "g", "customers"), (ErrorCode::None, vec![ErrorCode::None]));
    assert_eq!(fetch_all(&world, "g"), [("orders".into(), 0, 5)]);
    world.leave(&ids[0], None);
    assert_eq!(delete(&mut world, "g", "orders"), (ErrorCode::None, vec![ErrorCode::None]));
    assert_eq!(fetch_all(&world, "g"), []);
    assert_eq!(fetch_all(&world.restarted(), "g"), []);
}

#[test]
fn two_deletions_of_the_last_offset_are_both_answered() {
    let mut world = World::new();
    world.commit(&committing("", -1, 7));
    world.instant_log = false;
    let request = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "orders".into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let mut ask =
        || world.ask(|machine, now, waiter, out| machine.delete_offsets(now, waiter, &request, out));
    let waiters = [ask(), ask()];
    world.commit_appends();
    for waiter in waiters {
        let Some(Reply::OffsetDelete(response)) = world.replies.get(&waiter) else { panic!("no answer") };
        assert_eq!(response.error_code, 0);
    }
    assert_eq!(world.machine.stats(), MachineStats::default(), "the group goes with its last append");
}

#[test]
fn of_groups_of_other_kinds_nothing_is_deleted_while_they_live() {
    let mut world = World::new();
    let request = JoinGroupRequest { protocol_type: "connect".into(), ..joining("") };
    world.join_with(request, 3);
    assert_eq!(delete(&mut world, "g", "orders"), (ErrorCode::NonEmptyGroup, Vec::new()));
    let unreadable = JoinGroupRequest {
        group_id: "h".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\xff"),
        }],
        ..joining("")
    };
    world.join_with(unreadable, 3);
    assert_eq!(
        delete(&mut world, "h", "orders"),
        (ErrorCode::None, vec![ErrorCode::GroupSubscribedToTopic]),
        "when it is not known what a consumer group subscribes to, it may be anything"
    );
}

#[test]
fn offsets_outlive_the_last_member_by_the_retention() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    world.commit(&committing(&ids[0], generation, 5));
    for _ in 0..10 * 24 * 60 * 12 {
        world.pass(5_000);
        if world.now_ms > 8 * DAY_MS {
            break;
        }
        world.heartbeat(&ids[0], generation);
    }
    assert_eq!(world.fetch("orders", 0), 5, "the group is alive");
    world.leave(&ids[0], None);
    world.pass(7 * DAY_MS - 1_000);
    assert_eq!(world.fetch("orders", 0), 5);
    world.pass(20 * 60 * 1_000);
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.state(), None, "the group goes with its last offset");
    assert_eq!(world.restarted().machine.stats().groups, 0);
}

#[test]
fn a_live_group_loses_only_topics_that_it_gave_up() {
    let mut world = World::with(GroupConfig { offsets_retention_ms: 60_000, ..GroupConfig::default() });
    let (ids, generation) = world.stable(1);
    let mut request = committing(&ids[0], generation, 5);
    let mut other = request.topics[0].clone();
    other.name = "customers".into();
    request.topics.push(other);
    world.commit(&request);
    for _ in 0..200 {
        world.pass(5_000);
        world.heartbeat(&ids[0], generation);
    }
    assert_eq!(fetch_all(&world, "g"), [("orders".into(), 0, 5)], "KAFKA-13636");
}

#[test]
fn simple_commits_expire_by_their_own_age_and_by_their_own_wish() {
    let mut world = World::new();
    world.commit(&committing("", -1, 1));
    let mut request = committing("", -1, 2);
    request.topics[0].name = "short".into();
    request.retention_time_ms = 60_000;
    world.commit_with(&request, 4);
    world.pass(5 * DAY_MS);
    assert_eq!(fetch_all(&world, "g"), [("orders".into(), 0, 1)]);
    world.commit(&committing("", -1, 3));
    let mut world = world.restarted();
    world.pass(6 * DAY_MS);
    assert_eq!(world.fetch("orders", 0), 3, "it was renewed");
    world.pass(DAY_MS + 20 * 60 * 1_000);
    assert_eq!(world.state(), None);
}

#[test]
fn an_offset_that_is_being_committed_does_not_expire() {
    let mut world = World::with(GroupConfig { offsets_retention_ms: 60_000, ..GroupConfig::default() });
    world.commit(&committing("", -1, 1));
    world.pass(599_000);
    world.instant_log = false;
    world.commit(&committing("", -1, 2));
    world.pass(1_000);
    world.commit_appends();
    assert_eq!(world.fetch("orders", 0), 2);
    assert_eq!(world.restarted().fetch("orders", 0), 2);
}

#[test]
fn offsets_go_with_their_topic() {
    let mut world = World::new();
    world.commit(&committing("", -1, 1));
    let gone = [towpath_types::TopicPartition::new("orders".parse().unwrap(), 0)];
    world.act(|machine, now, out| machine.partitions_deleted(now, &gone, out));
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.restarted().machine.stats(), world.machine.stats());
}
