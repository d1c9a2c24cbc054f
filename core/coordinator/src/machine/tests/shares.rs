//! Share groups: heartbeats, assignments, fencing, what is stored, and what a group knows of its share partitions.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use towpath_types::TopicId;
use towpath_wire::list_groups::ListedGroup;
use towpath_wire::{ListGroupsRequest, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::topics::FakeTopics;
use super::*;

const SESSION_MS: i64 = 45_000;

fn world() -> (World, FakeTopics) {
    let mut world = World::with(GroupConfig::default());
    let topics = FakeTopics::of(&[("orders", 4), ("bills", 2)]);
    world.set_topics(&topics);
    (world, topics)
}

fn request(member: &str, member_epoch: i32, topics: Option<&[&str]>) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: "s".into(),
        member_id: member.into(),
        member_epoch,
        rack_id: None,
        subscribed_topic_names: topics.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
    }
}

fn partitions_of(response: &ShareGroupHeartbeatResponse) -> Option<BTreeSet<(TopicId, i32)>> {
    let topics = &response.assignment.as_ref()?.topic_partitions;
    let places = |topic: &towpath_wire::share_group_heartbeat::TopicPartitions| {
        let id = TopicId::new(topic.topic_id);
        topic.partitions.iter().map(move |partition| (id, *partition)).collect::<Vec<_>>()
    };
    Some(topics.iter().flat_map(places).collect())
}

impl World {
    fn send_share(&mut self, request: ShareGroupHeartbeatRequest) -> Waiter {
        let client = ClientContext { client_id: "client".into(), host: "/127.0.0.1".into() };
        self.ask(|machine, now, waiter, out| {
            machine.share_group_heartbeat(now, waiter, &client, request, out);
        })
    }

    fn share(&mut self, request: ShareGroupHeartbeatRequest) -> ShareGroupHeartbeatResponse {
        let waiter = self.send_share(request);
        match self.replies.get(&waiter) {
            Some(Reply::ShareHeartbeat(response)) => response.clone(),
            other => panic!("no answer to ShareGroupHeartbeat, but {other:?}"),
        }
    }

    fn alter(
        &mut self,
        act: impl FnOnce(&mut GroupMachine, Now, Waiter, &mut Vec<Command>),
    ) -> Result<i32, ErrorCode> {
        let waiter = self.ask(act);
        match self.replies.get(&waiter) {
            Some(Reply::ShareState(result)) => result.clone().map_err(|(error, _)| error),
            other => panic!("no answer, but {other:?}"),
        }
    }

    fn listed(&self) -> Vec<ListedGroup> {
        let types_filter = vec!["Share".to_owned()];
        self.machine.list_groups(&ListGroupsRequest { types_filter, ..Default::default() })
    }
}

#[test]
fn members_share_partitions() {
    let (mut world, topics) = world();
    let first = world.share(request("a", 0, Some(&["orders"])));
    assert_eq!((first.error_code, first.member_epoch, first.heartbeat_interval_ms), (0, 1, 5_000));
    let all: BTreeSet<_> = (0..4).map(|partition| (topics.id("orders"), partition)).collect();
    assert_eq!(partitions_of(&first), Some(all.clone()));
    let second = world.share(request("b", 0, Some(&["orders"])));
    let half = partitions_of(&second).unwrap();
    assert_eq!((second.member_epoch, half.len()), (2, 2));
    let moved = world.share(request("a", 1, None));
    let rest = partitions_of(&moved).unwrap();
    assert_eq!((moved.member_epoch, rest.union(&half).count()), (2, 4));
    assert_eq!(partitions_of(&world.share(request("a", 1, None))), None, "the answer may have been lost");
    assert_eq!(partitions_of(&world.share(request("a", 2, None))), None);
    for member in ["c", "d", "e", "f"] {
        world.share(request(member, 0, Some(&["orders"])));
    }
    let described = world.machine.describe_share_group("s");
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Stable", 6));
    assert_eq!(described.assignor_name, "simple");
    assert_eq!(world.listed()[0].group_state, "Stable");
}

#[test]
fn who_is_not_in_step_is_told() {
    let (mut world, _) = world();
    let error = |response: ShareGroupHeartbeatResponse| ErrorCode::from_code(response.error_code);
    assert_eq!(error(world.share(request("a", 3, None))), ErrorCode::GroupIdNotFound);
    assert_eq!(error(world.share(request("a", 0, None))), ErrorCode::InvalidRequest);
    assert_eq!(error(world.share(request("a", -2, None))), ErrorCode::InvalidRequest);
    assert_eq!(error(world.share(request("", 0, Some(&["orders"])))), ErrorCode::InvalidRequest);
    world.share(request("a", 0, Some(&["orders"])));
    assert_eq!(error(world.share(request("b", 1, None))), ErrorCode::UnknownMemberId);
    assert_eq!(error(world.share(request("a", 7, None))), ErrorCode::FencedMemberEpoch);
    assert_eq!(error(world.share(request("b", -1, None))), ErrorCode::UnknownMemberId);
    let mut small = World::with(GroupConfig { share_members_max: 1, ..GroupConfig::default() });
    small.share(request("a", 0, Some(&["orders"])));
    assert_eq!(error(small.share(request("b", 0, Some(&["x"])))), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_group_is_of_one_kind() {
    let (mut world, _) = world();
    world.share(request("a", 0, Some(&["orders"])));
    let client = ClientContext::default();
    let consumer = towpath_wire::ConsumerGroupHeartbeatRequest {
        group_id: "s".into(),
        ..super::consumers::join_request("m", &["orders"])
    };
    let waiter = world.ask(|machine, now, waiter, out| {
        machine.consumer_group_heartbeat(now, waiter, &client, consumer, 1, out);
    });
    let Some(Reply::ConsumerHeartbeat(refused)) = world.replies.get(&waiter) else { panic!("no answer") };
    assert_eq!(refused.error_code, code(ErrorCode::GroupIdNotFound));
    assert_eq!(world.machine.describe_group("s", 6).error_code, code(ErrorCode::GroupIdNotFound));
    assert_eq!(world.machine.describe_consumer_group("s").error_code, code(ErrorCode::GroupIdNotFound));
    assert_eq!(world.machine.describe_share_group("x").error_code, code(ErrorCode::GroupIdNotFound));
}

#[test]
fn states_are_altered_and_forgotten_without_members_only() {
    let (mut world, topics) = world();
    world.share(request("a", 0, Some(&["bills"])));
    let noted = ShareStateTopic { id: topics.id("orders"), name: "orders".into(), partitions: [1].into() };
    let alter = |world: &mut World, noted: ShareStateTopic| {
        world.alter(|machine, now, waiter, out| machine.alter_share_state(now, waiter, "s", vec![noted], out))
    };
    assert_eq!(alter(&mut world, noted.clone()), Err(ErrorCode::NonEmptyGroup));
    // A group that is not there is made.
    let made = world.alter(|machine, now, waiter, out| {
        machine.alter_share_state(now, waiter, "new", vec![noted.clone()], out);
    });
    assert_eq!(made, Ok(1));
    let waiter = world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "new", out));
    assert_eq!(world.replies[&waiter], Reply::DeleteGroup(ErrorCode::None));
    world.share(request("a", -1, None));
    let before = world.machine.share_state("s").unwrap();
    assert_eq!((before.has_members, before.topics.len()), (false, 1));
    assert_eq!(alter(&mut world, noted.clone()), Ok(before.epoch + 1));
    assert_eq!(world.machine.share_state("s").unwrap().topics.len(), 2);
    let bills = [topics.id("bills")];
    let forgotten =
        world.alter(|machine, now, waiter, out| machine.forget_share_topics(now, waiter, "s", &bills, out));
    assert_eq!(forgotten, Ok(before.epoch + 1));
    let loaded = world.loaded();
    assert_eq!(loaded.share_state("s"), world.machine.share_state("s"));
    assert_eq!(loaded.share_state("s").unwrap().topics, [noted]);
    let waiter = world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "s", out));
    assert_eq!(world.replies[&waiter], Reply::DeleteGroup(ErrorCode::None));
    assert!(world.loaded().share_state("s").is_err() && world.machine.stats().groups == 0);
    assert_eq!((world.machine.stats().bytes, world.loaded().stats().groups), (0, 0));
}

#[test]
fn nobody_joins_while_states_are_deleted() {
    let (mut world, topics) = world();
    let error = |response: ShareGroupHeartbeatResponse| ErrorCode::from_code(response.error_code);
    let hold = |world: &mut World| {
        let held = world.act(|machine, now, _| machine.hold_share_group(now, "s"));
        held.map(|view| view.topics.len()).map_err(|(error, _)| error)
    };
    let forget = |world: &mut World, topic: &str| {
        let gone = [topics.id(topic)];
        world.alter(|machine, now, waiter, out| machine.forget_share_topics(now, waiter, "s", &gone, out))
    };
    assert_eq!(hold(&mut world), Err(ErrorCode::GroupIdNotFound));
    world.share(request("a", 0, Some(&["orders"])));
    assert_eq!(hold(&mut world), Err(ErrorCode::NonEmptyGroup));
    assert_eq!(forget(&mut world, "orders"), Err(ErrorCode::NonEmptyGroup));
    world.share(request("a", -1, None));
    assert_eq!(hold(&mut world), Ok(1));
    let join = request("b", 0, Some(&["orders"]));
    assert_eq!(error(world.share(join.clone())), ErrorCode::CoordinatorNotAvailable);
    let altered = world.alter(|machine, now, waiter, out| {
        machine.alter_share_state(now, waiter, "s", Vec::new(), out);
    });
    assert_eq!(altered, Err(ErrorCode::CoordinatorNotAvailable));
    assert!(forget(&mut world, "orders").is_ok());
    world.act(|machine, _, _| machine.release_share_group("s"));
    assert_eq!(error(world.share(join.clone())), ErrorCode::None);
    // Whoever deletes them may be gone.
    world.share(request("b", -1, None));
    assert_eq!(hold(&mut world), Ok(1));
    world.pass(60_000);
    assert_eq!(error(world.share(join)), ErrorCode::None);
}

#[test]
fn an_empty_share_group_does_not_expire() {
    let (mut world, _) = world();
    world.share(request("a", 0, Some(&["bills"])));
    world.pass(SESSION_MS + 1);
    assert_eq!(world.listed()[0].group_state, "Empty");
    world.pass(30 * 24 * 60 * 60 * 1_000);
    assert_eq!(world.listed().len(), 1);
}

impl World {
    /// Another machine over the same log.
    fn loaded(&self) -> GroupMachine {
        let mut machine = GroupMachine::new(GroupConfig::default(), ids());
        machine.topics_changed(self.machine.topics());
        for entry in &self.log {
            machine.replay(entry).unwrap();
        }
        machine
    }
}

/// Members come, go and are silent, topics change, appends fail: in the end all partitions are covered, everybody has some,
/// and the log says what the machine does.
#[test]
fn every_partition_is_covered_whatever_happens() {
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut world, mut topics) = world();
        let names = ["orders", "bills", "later"];
        for _ in 0..random.random_range(5..60) {
            let member = format!("m{}", random.random_range(0..5));
            let wanted: Vec<&str> = names.into_iter().filter(|_| random.random_bool(0.6)).collect();
            match random.random_range(0..8) {
                0..3 if !wanted.is_empty() => {
                    world.send_share(request(&member, 0, Some(&wanted)));
                }
                3 => {
                    world.send_share(request(&member, -1, None));
                }
                4 => world.pass(random.random_range(0..30_000)),
                5 => {
                    topics.set(names[random.random_range(0..3)], random.random_range(1..7));
                    world.set_topics(&topics);
                }
                6 => {
                    // Half of it is in the log, or nothing.
                    world.instant_log = false;
                    world.send_share(request(&member, 0, Some(&["orders"])));
                    if random.random()
                        && let Some((_, appended)) = world.appends.front()
                    {
                        appended.clone().write_to(&mut world.log);
                    }
                    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
                    world.instant_log = true;
                }
                _ => {
                    world.send_share(request(&member, random.random_range(1..9), None));
                }
            }
        }
        world.share(request("z", 0, Some(&["orders"])));
        world.pass(2_000);
        let described = world.machine.describe_share_group("s");
        for member in &described.members {
            world.share(request(&member.member_id, member.member_epoch, None));
        }
        let described = world.machine.describe_share_group("s");
        let mut covered: BTreeSet<(String, i32)> = BTreeSet::new();
        for member in &described.members {
            assert_eq!(member.member_epoch, described.group_epoch, "seed {seed}");
            for topic in &member.assignment.topic_partitions {
                assert!(!topic.partitions.is_empty());
                covered
                    .extend(topic.partitions.iter().map(|partition| (topic.topic_name.clone(), *partition)));
            }
            let existing = member.subscribed_topic_names.iter().filter(|name| topics.partitions(name) > 0);
            assert_eq!(member.assignment.topic_partitions.len(), existing.count(), "seed {seed}");
        }
        assert!((0..topics.partitions("orders")).all(|it| covered.contains(&("orders".to_owned(), it))));
        assert_eq!(world.loaded().describe_share_group("s"), described, "seed {seed}");
        assert_eq!(world.loaded().share_state("s"), world.machine.share_state("s"), "seed {seed}");
    }
}
