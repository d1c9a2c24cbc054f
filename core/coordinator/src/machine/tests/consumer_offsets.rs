//! Offsets of consumer groups: who may commit and fetch, deletion and expiry.

use towpath_wire::OffsetDeleteRequest;
use towpath_wire::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::consumers::{beat_request, config, join_request, owning, world};
use super::topics::FakeTopics;
use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn committing_to(member: &str, epoch: i32, partition: i32) -> OffsetCommitRequest {
    let mut request = committing(member, epoch, 5);
    request.topics[0].partitions[0].partition_index = partition;
    request
}

impl World {
    fn try_commit(&mut self, member: &str, epoch: i32, partition: i32, version: i16) -> ErrorCode {
        let waiter = self.commit_with(&committing_to(member, epoch, partition), version);
        self.commit_error(waiter)
    }

    fn try_fetch(&self, member: Option<&str>, epoch: i32) -> ErrorCode {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            member_id: member.map(str::to_owned),
            member_epoch: epoch,
            topics: None,
        };
        ErrorCode::from_code(self.machine.fetch_offsets(&request, false).error_code)
    }

    fn delete_offset(&mut self, topic: &str) -> ErrorCode {
        let request = OffsetDeleteRequest {
            group_id: "g".into(),
            topics: vec![OffsetDeleteRequestTopic {
                name: topic.into(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
            }],
        };
        let waiter = self.ask(|machine, now, waiter, out| machine.delete_offsets(now, waiter, &request, out));
        let Some(Reply::OffsetDelete(response)) = self.replies.get(&waiter) else { panic!("no answer") };
        assert_eq!(response.error_code, 0);
        ErrorCode::from_code(response.topics[0].partitions[0].error_code)
    }
}

#[test]
fn members_commit_with_their_epoch() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    assert_eq!(world.try_commit("a", 1, 0, 9), ErrorCode::None);
    assert_eq!(world.try_commit("a", 1, 0, 8), ErrorCode::UnsupportedVersion);
    assert_eq!(world.try_commit("a", 2, 0, 9), ErrorCode::StaleMemberEpoch);
    assert_eq!(world.try_commit("b", 1, 0, 9), ErrorCode::UnknownMemberId);
    assert_eq!(world.try_commit("", -1, 0, 9), ErrorCode::UnknownMemberId, "the group has members");
    // KIP-1251: an older epoch counts for what the member has had since then.
    world.join_as("b", &["orders"]);
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1, 2, 3]));
    assert_eq!(world.try_commit("a", 1, 3, 9), ErrorCode::None, "to be given up, but its own yet");
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1]));
    assert_eq!(world.try_commit("a", 1, 0, 9), ErrorCode::None);
    assert_eq!(world.try_commit("a", 1, 3, 9), ErrorCode::StaleMemberEpoch);
    world.beat_as("b", 2, &[]);
    assert_eq!(world.try_commit("b", 1, 2, 9), ErrorCode::StaleMemberEpoch, "it got this one later");
    let mut by_id = committing_to("a", 1, 0);
    by_id.topics[0].topic_id = topics.id("orders").get();
    let waiter = world.commit(&by_id);
    assert_eq!(world.commit_error(waiter), ErrorCode::None);
    by_id.topics[0].topic_id = Uuid::from_u128(99);
    let waiter = world.commit(&by_id);
    assert_eq!(world.commit_error(waiter), ErrorCode::StaleMemberEpoch, "another topic of the same name");
    // After the last member has gone anybody may.
    world.beat_with(beat_request("a", -1));
    world.beat_with(beat_request("b", -1));
    assert_eq!(world.try_commit("", -1, 0, 9), ErrorCode::None);
    assert_eq!(world.try_commit("a", 2, 0, 9), ErrorCode::UnknownMemberId);
}

#[test]
fn members_fetch_with_their_epoch() {
    let (mut world, _) = world();
    world.join_as("a", &["orders"]);
    assert_eq!(world.try_fetch(None, -1), ErrorCode::None);
    assert_eq!(world.try_fetch(Some("a"), 1), ErrorCode::None);
    assert_eq!(world.try_fetch(Some("a"), 0), ErrorCode::StaleMemberEpoch);
    assert_eq!(world.try_fetch(Some("b"), 1), ErrorCode::UnknownMemberId);
    assert_eq!(world.try_fetch(None, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn offsets_of_topics_in_use_stay() {
    let mut world = World::with(GroupConfig { offsets_retention_ms: DAY_MS, ..config() });
    world.set_topics(&FakeTopics::of(&[("orders", 4), ("bills", 2)]));
    let mut bills = committing("", -1, 3);
    bills.topics[0].name = "bills".into();
    world.commit(&bills);
    world.join_as("a", &["orders"]);
    world.try_commit("a", 1, 0, 9);
    assert_eq!(world.delete_offset("orders"), ErrorCode::GroupSubscribedToTopic);
    assert_eq!((world.fetch("orders", 0), world.fetch("bills", 0)), (5, 3));
    for _ in 0..(2 * DAY_MS / 40_000) {
        world.pass(40_000);
        world.beat_with(beat_request("a", 1));
    }
    // KAFKA-13636: what nobody subscribes to expires beside what is in use.
    assert_eq!((world.fetch("orders", 0), world.fetch("bills", 0)), (5, -1));
    world.beat_with(beat_request("a", -1));
    world.pass(DAY_MS);
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.machine.stats(), MachineStats::default(), "the group has gone with its last offset");
    let mut restarted = world.restarted();
    restarted.pass(1);
    assert_eq!(restarted.machine.stats(), MachineStats::default());
}

#[test]
fn only_empty_groups_are_deleted() {
    let (mut world, _) = world();
    world.join_as("a", &["orders"]);
    world.try_commit("a", 1, 0, 9);
    let delete = |world: &mut World| {
        let waiter = world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "g", out));
        world.replies.get(&waiter).cloned()
    };
    assert_eq!(delete(&mut world), Some(Reply::DeleteGroup(ErrorCode::NonEmptyGroup)));
    world.beat_with(beat_request("a", -1));
    assert_eq!(world.delete_offset("orders"), ErrorCode::None);
    assert_eq!(delete(&mut world), Some(Reply::DeleteGroup(ErrorCode::None)));
    assert_eq!(world.machine.stats(), MachineStats::default());
    assert_eq!(world.restarted().machine.stats(), MachineStats::default());
    // While the tombstones are on their way the group is neither there nor gone.
    world.join_as("a", &["orders"]);
    world.beat_with(beat_request("a", -1));
    world.instant_log = false;
    let deleted = world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "g", out));
    let waiter = world.send_beat(join_request("b", &["orders"]), 1);
    assert_eq!(world.beaten(waiter).error_code, code(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.machine.describe_consumer_group("g").error_code, code(ErrorCode::GroupIdNotFound));
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.replies[&deleted], Reply::DeleteGroup(ErrorCode::CoordinatorNotAvailable));
    world.commit_appends();
    world.instant_log = true;
    assert_eq!(world.restarted().machine.consumer_group("g"), world.machine.consumer_group("g"));
    assert_eq!(delete(&mut world), Some(Reply::DeleteGroup(ErrorCode::None)));
    assert_eq!(world.machine.stats(), MachineStats::default());
}
