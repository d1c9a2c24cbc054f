//! Consumer groups of KIP-848: heartbeats, reconciliation, fencing, static members.

use std::collections::BTreeSet;

use towpath_wire::consumer_group_heartbeat::TopicPartitions;
use towpath_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::topics::FakeTopics;
use super::*;

pub(super) const SESSION_MS: i64 = 45_000;

/// A configuration in which targets are made at once.
pub(super) fn config() -> GroupConfig {
    GroupConfig { consumer_assignment_interval_ms: 0, ..GroupConfig::default() }
}

/// A world with a topic `orders` of four partitions and a topic `bills` of two.
pub(super) fn world() -> (World, FakeTopics) {
    let mut world = World::with(config());
    let topics = FakeTopics::of(&[("orders", 4), ("bills", 2)]);
    world.set_topics(&topics);
    (world, topics)
}

pub(super) fn join_request(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: 0,
        rebalance_timeout_ms: REBALANCE_MS,
        subscribed_topic_names: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

pub(super) fn beat_request(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..Default::default()
    }
}

impl World {
    pub(super) fn set_topics(&mut self, topics: &FakeTopics) {
        self.machine.topics_changed(Arc::new(topics.clone()));
    }

    pub(super) fn send_beat(&mut self, request: ConsumerGroupHeartbeatRequest, version: i16) -> Waiter {
        let client = ClientContext { client_id: "client".into(), host: "/127.0.0.1".into() };
        self.ask(|machine, now, waiter, out| {
            machine.consumer_group_heartbeat(now, waiter, &client, request, version, out);
        })
    }

    pub(super) fn beaten(&self, waiter: Waiter) -> &ConsumerGroupHeartbeatResponse {
        match self.replies.get(&waiter) {
            Some(Reply::ConsumerHeartbeat(response)) => response,
            other => panic!("no answer to ConsumerGroupHeartbeat, but {other:?}"),
        }
    }

    pub(super) fn beat_with(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let waiter = self.send_beat(request, 1);
        self.beaten(waiter).clone()
    }

    /// Joins; the epoch and what the member may use.
    pub(super) fn join_as(&mut self, member: &str, topics: &[&str]) -> (i32, Vec<i32>) {
        let response = self.beat_with(join_request(member, topics));
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        (response.member_epoch, partitions_of(&response).unwrap())
    }

    /// A heartbeat that says what the member has; what it is told, if anything.
    pub(super) fn beat_as(
        &mut self,
        member: &str,
        epoch: i32,
        owned: &[TopicPartitions],
    ) -> (i32, Option<Vec<i32>>) {
        let request = ConsumerGroupHeartbeatRequest {
            topic_partitions: Some(owned.to_vec()),
            ..beat_request(member, epoch)
        };
        let response = self.beat_with(request);
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        (response.member_epoch, partitions_of(&response))
    }

    pub(super) fn beat_error(&mut self, request: ConsumerGroupHeartbeatRequest) -> ErrorCode {
        ErrorCode::from_code(self.beat_with(request).error_code)
    }

    pub(super) fn consumer_state(&self) -> (ConsumerGroupState, i32) {
        self.machine.consumer_group("g").unwrap()
    }
}

/// The partitions of an answer, over all topics.
pub(super) fn partitions_of(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    let mut partitions: Vec<i32> =
        assignment.topic_partitions.iter().flat_map(|topic| &topic.partitions).copied().collect();
    partitions.sort_unstable();
    Some(partitions)
}

pub(super) fn owning(topics: &FakeTopics, topic: &str, partitions: &[i32]) -> Vec<TopicPartitions> {
    vec![TopicPartitions { topic_id: topics.id(topic).get(), partitions: partitions.to_vec() }]
}

#[test]
fn the_first_member_gets_everything() {
    let (mut world, topics) = world();
    let response = world.beat_with(join_request("a", &["orders", "missing"]));
    assert_eq!((response.error_code, response.member_epoch), (0, 1));
    assert_eq!(response.member_id.as_deref(), Some("a"));
    assert_eq!(response.heartbeat_interval_ms, 5_000);
    assert_eq!(partitions_of(&response), Some(vec![0, 1, 2, 3]));
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Stable, 1));
    assert_eq!(world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1, 2, 3])), (1, None), "nothing is new");
    let full = ConsumerGroupHeartbeatRequest { member_epoch: 1, ..join_request("a", &["orders", "missing"]) };
    assert_eq!(partitions_of(&world.beat_with(full)), Some(vec![0, 1, 2, 3]), "it asks for everything");
    assert_eq!(world.consumer_state().1, 1, "and says nothing new");
}

#[test]
fn bad_requests_are_refused() {
    let (mut world, _) = world();
    let valid = || join_request("a", &["orders"]);
    let cases: Vec<(ConsumerGroupHeartbeatRequest, ErrorCode)> = vec![
        (ConsumerGroupHeartbeatRequest { group_id: String::new(), ..valid() }, ErrorCode::InvalidRequest),
        (ConsumerGroupHeartbeatRequest { member_id: String::new(), ..valid() }, ErrorCode::InvalidRequest),
        (
            ConsumerGroupHeartbeatRequest { instance_id: Some(String::new()), ..valid() },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest { rack_id: Some(String::new()), ..valid() },
            ErrorCode::InvalidRequest,
        ),
        (ConsumerGroupHeartbeatRequest { rebalance_timeout_ms: -1, ..valid() }, ErrorCode::InvalidRequest),
        (ConsumerGroupHeartbeatRequest { topic_partitions: None, ..valid() }, ErrorCode::InvalidRequest),
        (
            ConsumerGroupHeartbeatRequest { subscribed_topic_names: None, ..valid() },
            ErrorCode::InvalidRequest,
        ),
        (ConsumerGroupHeartbeatRequest { member_epoch: -2, ..valid() }, ErrorCode::InvalidRequest),
        (ConsumerGroupHeartbeatRequest { member_epoch: -3, ..valid() }, ErrorCode::InvalidRequest),
        (
            ConsumerGroupHeartbeatRequest { member_id: "m".repeat(2_000), ..valid() },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest { server_assignor: Some("mine".into()), ..valid() },
            ErrorCode::UnsupportedAssignor,
        ),
        (beat_request("a", 1), ErrorCode::GroupIdNotFound),
        (beat_request("a", -1), ErrorCode::GroupIdNotFound),
    ];
    for (request, error) in cases {
        let shown = format!("{request:?}");
        assert_eq!(world.beat_error(request), error, "{shown}");
    }
    assert_eq!(world.machine.stats(), MachineStats::default(), "nothing is left of them");
    world.join_as("a", &["orders"]);
    assert_eq!(world.beat_error(beat_request("b", 1)), ErrorCode::UnknownMemberId);
}

#[test]
fn before_version_one_the_coordinator_makes_the_member_id() {
    let (mut world, _) = world();
    let waiter = world.send_beat(join_request("", &["orders"]), 0);
    let response = world.beaten(waiter).clone();
    assert_eq!((response.error_code, response.member_epoch), (0, 1));
    let id = response.member_id.unwrap();
    assert!(!id.is_empty());
    assert_eq!(world.beat_error(beat_request(&id, 1)), ErrorCode::None);
}

#[test]
fn a_partition_moves_only_when_it_is_given_up() {
    let (mut world, topics) = world();
    assert_eq!(world.join_as("a", &["orders"]), (1, vec![0, 1, 2, 3]));
    assert_eq!(world.join_as("b", &["orders"]), (2, vec![]), "everything belongs to the other");
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Reconciling, 2));
    assert_eq!(world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1, 2, 3])), (1, Some(vec![0, 1])));
    assert_eq!(world.beat_as("b", 2, &[]), (2, None), "not given up yet");
    assert_eq!(world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1, 2])), (1, None), "not all yet");
    assert_eq!(world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1])), (2, None));
    assert_eq!(world.beat_as("b", 2, &[]), (2, Some(vec![2, 3])));
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Stable, 2));
    // The other way round: who leaves frees what it had at once.
    assert_eq!(world.beat_error(beat_request("a", -1)), ErrorCode::None);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Assigning, 3));
    assert_eq!(world.beat_as("b", 2, &owning(&topics, "orders", &[2, 3])), (3, Some(vec![0, 1, 2, 3])));
}

#[test]
fn members_with_another_epoch_are_fenced() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    world.join_as("b", &["orders"]);
    assert_eq!(
        world.beat_error(beat_request("a", 2)),
        ErrorCode::FencedMemberEpoch,
        "ahead of the coordinator"
    );
    // The answer with the new epoch is lost: the old epoch counts once more, with nothing but what the member may have.
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1]));
    assert_eq!(world.beat_as("a", 1, &owning(&topics, "orders", &[0])), (2, None));
    assert_eq!(
        world.beat_error(beat_request("a", 1)),
        ErrorCode::FencedMemberEpoch,
        "it does not say what it has"
    );
    let too_much = ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(owning(&topics, "orders", &[0, 3])),
        ..beat_request("a", 1)
    };
    assert_eq!(world.beat_error(too_much), ErrorCode::FencedMemberEpoch);
    // A fenced member joins anew under its id (KAFKA-19233) and is told what it has.
    assert_eq!(world.join_as("a", &["orders"]), (2, vec![0, 1]));
}

#[test]
fn a_silent_member_is_fenced() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    world.join_as("b", &["orders"]);
    world.pass(SESSION_MS - 1);
    world.beat_as("b", 2, &[]);
    world.pass(1);
    assert_eq!(world.beat_error(beat_request("a", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(world.beat_as("b", 2, &[]), (3, Some(vec![0, 1, 2, 3])));
    world.pass(SESSION_MS);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Empty, 4));
    let _ = topics;
}

#[test]
fn who_does_not_give_up_partitions_in_time_is_fenced() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    world.join_as("b", &["orders"]);
    let all = owning(&topics, "orders", &[0, 1, 2, 3]);
    world.beat_as("a", 1, &all);
    for _ in 0..5 {
        world.pass(i64::from(REBALANCE_MS) / 6);
        world.beat_as("a", 1, &all);
        world.beat_as("b", 2, &[]);
    }
    world.pass(i64::from(REBALANCE_MS) / 6);
    assert_eq!(world.beat_error(beat_request("a", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(world.beat_as("b", 2, &[]), (3, Some(vec![0, 1, 2, 3])));
}

#[test]
fn a_subscription_can_change() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    let changed = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec!["bills".into()]),
        topic_partitions: Some(owning(&topics, "orders", &[0, 1, 2, 3])),
        ..beat_request("a", 1)
    };
    let response = world.beat_with(changed);
    assert_eq!(
        (response.member_epoch, partitions_of(&response)),
        (1, Some(vec![])),
        "first it gives up the others"
    );
    assert_eq!(world.beat_as("a", 1, &[]), (2, Some(vec![0, 1])));
    let described = world.machine.describe_consumer_group("g");
    assert_eq!(described.members[0].subscribed_topic_names, ["bills"]);
    assert_eq!(described.members[0].assignment.topic_partitions[0].topic_name, "bills");
}

#[test]
fn topics_change_the_groups_epoch() {
    let (mut world, mut topics) = world();
    world.join_as("a", &["orders"]);
    topics.set("bills", 5);
    world.set_topics(&topics);
    let all = owning(&topics, "orders", &[0, 1, 2, 3]);
    assert_eq!(world.beat_as("a", 1, &all), (1, None), "of no concern to the group");
    topics.set("orders", 6);
    world.set_topics(&topics);
    assert_eq!(world.beat_as("a", 1, &all), (2, Some(vec![0, 1, 2, 3, 4, 5])));
    topics.move_to("north");
    world.set_topics(&topics);
    assert_eq!(world.beat_as("a", 2, &all), (3, None), "racks matter, too");
    topics.remove("orders");
    world.set_topics(&topics);
    assert_eq!(world.beat_as("a", 3, &all), (3, Some(vec![])));
    assert_eq!(world.beat_as("a", 3, &[]), (4, None));
    topics.set("orders", 1);
    world.set_topics(&topics);
    assert_eq!(world.beat_as("a", 4, &[]), (5, Some(vec![0])), "a topic of the same name is another one");
}

#[test]
fn most_votes_choose_the_assignor() {
    let (mut world, topics) = world();
    let with = |member: &str, assignor: &str| ConsumerGroupHeartbeatRequest {
        server_assignor: Some(assignor.into()),
        ..join_request(member, &["orders", "bills"])
    };
    world.beat_with(with("a", "range"));
    assert_eq!(world.machine.describe_consumer_group("g").assignor_name, "range");
    world.beat_with(with("b", "range"));
    world.beat_with(with("c", "uniform"));
    let described = world.machine.describe_consumer_group("g");
    assert_eq!(described.assignor_name, "range");
    let target = &described.members[1].target_assignment.topic_partitions;
    let of =
        |topic: &str| target.iter().find(|target| target.topic_name == topic).unwrap().partitions.clone();
    assert_eq!((of("orders"), of("bills")), (vec![2], vec![1]), "a stretch of each topic");
    let _ = topics;
}

#[test]
fn targets_are_not_made_too_often() {
    let mut world = World::with(GroupConfig::default());
    let topics = FakeTopics::of(&[("orders", 4)]);
    world.set_topics(&topics);
    assert_eq!(world.join_as("a", &["orders"]), (1, vec![0, 1, 2, 3]), "the first one at once");
    assert_eq!(world.join_as("b", &["orders"]), (1, vec![]));
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Assigning, 2));
    world.pass(999);
    assert_eq!(world.beat_as("b", 1, &[]), (1, None));
    world.pass(1);
    assert_eq!(world.beat_as("b", 1, &[]), (2, None));
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Reconciling, 2));
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let (mut world, _) = world();
    let joining = |member: &str| ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..join_request(member, &["orders"])
    };
    let with_instance = |member: &str, epoch: i32| ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..beat_request(member, epoch)
    };
    let response = world.beat_with(joining("old"));
    assert_eq!(partitions_of(&response), Some(vec![0, 1, 2, 3]));
    assert_eq!(world.beat_error(joining("new")), ErrorCode::UnreleasedInstanceId);
    assert_eq!(
        partitions_of(&world.beat_with(joining("old"))),
        Some(vec![0, 1, 2, 3]),
        "its answer was lost"
    );
    assert_eq!(world.beat_error(with_instance("stranger", -1)), ErrorCode::FencedInstanceId);
    let away = world.beat_with(with_instance("old", -2));
    assert_eq!((away.error_code, away.member_epoch), (0, -2));
    world.join_as("b", &["orders"]);
    assert_eq!(world.beat_as("b", 2, &[]), (2, None), "what a member has that is away stays its own");
    let back = world.beat_with(joining("new"));
    assert_eq!((back.error_code, back.member_id.as_deref()), (0, Some("new")));
    assert_eq!(world.beat_error(with_instance("old", 1)), ErrorCode::FencedInstanceId);
    assert_eq!(world.beat_error(beat_request("old", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(world.consumer_state().1, 2, "no rebalance for it");
    let unknown = ConsumerGroupHeartbeatRequest { instance_id: Some("j".into()), ..beat_request("x", 2) };
    assert_eq!(world.beat_error(unknown), ErrorCode::UnknownMemberId);
    assert_eq!(world.beat_error(with_instance("new", -1)), ErrorCode::None);
    assert_eq!(world.beat_as("b", 2, &[]), (3, Some(vec![0, 1, 2, 3])));
}

#[test]
fn a_static_member_that_stays_away_is_fenced() {
    let (mut world, _) = world();
    let joining =
        ConsumerGroupHeartbeatRequest { instance_id: Some("i".into()), ..join_request("a", &["orders"]) };
    world.beat_with(joining);
    let away = ConsumerGroupHeartbeatRequest { instance_id: Some("i".into()), ..beat_request("a", -2) };
    world.beat_with(away);
    world.pass(SESSION_MS);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Empty, 2));
}

#[test]
fn a_group_has_bounds() {
    let mut world = World::with(GroupConfig { members_max: 2, groups_max: 1, ..config() });
    world.set_topics(&FakeTopics::of(&[("orders", 4)]));
    world.join_as("a", &["orders"]);
    world.join_as("b", &["orders"]);
    assert_eq!(world.beat_error(join_request("c", &["orders"])), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.beat_error(join_request("b", &["orders"])), ErrorCode::None, "it is a member");
    let other = ConsumerGroupHeartbeatRequest { group_id: "h".into(), ..join_request("a", &["orders"]) };
    assert_eq!(world.beat_error(other), ErrorCode::GroupMaxSizeReached);
    let long = "t".repeat(600 * 1024);
    assert_eq!(world.beat_error(join_request("b", &[&long])), ErrorCode::GroupMaxSizeReached);

    let mut small = World::with(GroupConfig { group_bytes_max: 4_000, ..config() });
    assert_eq!(small.beat_error(join_request("a", &[&"t".repeat(5_000)])), ErrorCode::GroupMaxSizeReached);
    assert_eq!(small.machine.stats(), MachineStats::default());
}

#[test]
fn an_answer_waits_for_what_it_tells() {
    let (mut world, topics) = world();
    world.instant_log = false;
    let first = world.send_beat(join_request("a", &["orders"]), 1);
    assert!(!world.replies.contains_key(&first));
    let second = world.send_beat(beat_request("a", 1), 1);
    assert!(!world.replies.contains_key(&second), "it speaks of what is not stored yet");
    assert_eq!(world.machine.waiters(), [first, second]);
    world.commit_appends();
    assert_eq!(world.beaten(first).member_epoch, 1);
    assert_eq!(world.beaten(second).member_epoch, 1);
    let third = world.send_beat(beat_request("a", 1), 1);
    assert_eq!(world.beaten(third).error_code, 0, "nothing to wait for");
    let _ = topics;
}

#[test]
fn a_failed_append_is_as_a_lost_answer() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    world.instant_log = false;
    let joined = world.send_beat(join_request("b", &["orders"]), 1);
    let beside = world.send_beat(beat_request("a", 1), 1);
    let after = world.send_beat(join_request("c", &["orders"]), 1);
    // The first append fails; the second one was made on top of it and is told to have failed, too.
    let (token, _) = world.appends.pop_front().unwrap();
    let error = ErrorCode::CoordinatorNotAvailable;
    world.act(|machine, now, out| machine.appended(now, token, Err(error), out));
    world.commit_appends();
    for waiter in [joined, beside, after] {
        assert_eq!(world.beaten(waiter).error_code, code(error), "{waiter:?}");
    }
    world.instant_log = true;
    let again = world.beat_with(join_request("b", &["orders"]));
    assert_eq!((again.error_code, again.member_epoch), (0, 3));
    let restarted = world.restarted();
    assert_eq!(restarted.machine.describe_consumer_group("g"), world.machine.describe_consumer_group("g"));
    let _ = topics;
}

#[test]
fn what_could_not_be_written_is_written_again_by_itself() {
    let (mut world, _) = world();
    world.join_as("a", &["orders"]);
    world.instant_log = false;
    world.send_beat(beat_request("a", -1), 1);
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert!(world.restarted().machine.consumer_group("g").unwrap().0 != ConsumerGroupState::Empty);
    world.pass(1_000);
    assert_eq!(world.appends.len(), 1);
    world.commit_appends();
    assert_eq!(world.restarted().machine.consumer_group("g"), Some((ConsumerGroupState::Empty, 2)));
    world.pass(10_000);
    assert!(world.appends.is_empty());
}

#[test]
fn a_large_change_is_written_in_parts() {
    let (mut world, _) = world();
    let names: Vec<String> = (0..4_000).map(|number| format!("topic-{number:060}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.join_as("a", &names);
    world.instant_log = false;
    let waiters: Vec<Waiter> =
        (0..3).map(|number| world.send_beat(join_request(&format!("m{number}"), &names), 1)).collect();
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    let waiter = world.send_beat(join_request("m0", &names), 1);
    assert!(world.appends.len() > 1, "all four subscriptions are written again");
    let sizes: Vec<usize> = world
        .appends
        .iter()
        .map(|(_, appended)| match appended {
            Appended::Records(records, _) => records.iter().map(OffsetsRecord::size_in_bytes).sum(),
            Appended::Marker(_) => 0,
        })
        .collect();
    assert!(sizes.iter().all(|size| *size < 600 * 1024), "{sizes:?}");
    world.commit_appends();
    assert_eq!(world.beaten(waiter).error_code, 0);
    assert_eq!(
        world.restarted().machine.describe_consumer_group("g"),
        world.machine.describe_consumer_group("g")
    );
    assert!(waiters.iter().all(|waiter| world.beaten(*waiter).error_code != 0));
}

#[test]
fn a_loaded_group_goes_on() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    let joining = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        rack_id: Some("north".into()),
        server_assignor: Some("range".into()),
        ..join_request("b", &["orders", "bills"])
    };
    world.beat_with(joining);
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1, 2, 3]));
    let mut restarted = world.restarted();
    let described = restarted.machine.describe_consumer_group("g");
    assert_eq!(described, world.machine.describe_consumer_group("g"));
    assert_eq!(described.group_state, "Reconciling");
    let (before, after) = (world.machine.stats(), restarted.machine.stats());
    assert_eq!((before.members, before.bytes), (after.members, after.bytes));
    // Static members come first with `range`.
    assert_eq!(restarted.beat_as("a", 1, &owning(&topics, "orders", &[2, 3])).0, 2);
    // The deadline for revocations begins anew, too, and so do sessions.
    let mut other = world.restarted();
    other.pass(SESSION_MS);
    assert_eq!(other.consumer_state().0, ConsumerGroupState::Empty);
    assert_eq!(other.machine.stats().timers, 0);
}

#[test]
fn what_kafka_4_0_stored_is_read_and_cleared() {
    use towpath_wire::consumer_group_records::*;
    let (mut world, _) = world();
    let key = ConsumerGroupPartitionMetadataKey { group_id: "g".into() };
    let value = ConsumerGroupPartitionMetadataValue::default();
    let old = crate::record::keyed_record(4, &key, Some(&value), 0).unwrap();
    let key = ConsumerGroupMetadataKey { group_id: "g".into() };
    let value = ConsumerGroupMetadataValue { epoch: 7, metadata_hash: 0 };
    let epoch = crate::record::keyed_record(3, &key, Some(&value), 0).unwrap();
    let loaded = Appended::Records(vec![old.clone(), epoch], None);
    loaded.write_to(&mut world.log);
    let mut world = world.restarted();
    world.set_topics(&FakeTopics::of(&[("orders", 4)]));
    assert_eq!(world.join_as("a", &["orders"]), (8, vec![0, 1, 2, 3]));
    assert!(records_of(&world.log).any(|(key, value)| *key == old.key && value.is_none()));
    let clears = records_of(&world.log).filter(|(key, _)| **key == old.key).count();
    world.join_as("b", &["orders"]);
    assert_eq!(records_of(&world.log).filter(|(key, _)| **key == old.key).count(), clears, "once");
}

#[test]
fn groups_are_described() {
    let (mut world, topics) = world();
    let joining = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        rack_id: Some("north".into()),
        ..join_request("a", &["orders"])
    };
    world.beat_with(joining);
    let described = world.machine.describe_consumer_group("g");
    assert_eq!((described.error_code, described.group_state.as_str()), (0, "Stable"));
    assert_eq!((described.group_epoch, described.assignment_epoch), (1, 1));
    assert_eq!((described.assignor_name.as_str(), described.authorized_operations), ("uniform", i32::MIN));
    let member = &described.members[0];
    assert_eq!((member.member_id.as_str(), member.member_epoch, member.member_type), ("a", 1, 1));
    assert_eq!((member.instance_id.as_deref(), member.rack_id.as_deref()), (Some("i"), Some("north")));
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("client", "/127.0.0.1"));
    assert_eq!(member.assignment, member.target_assignment);
    assert_eq!(member.assignment.topic_partitions[0].topic_id, topics.id("orders").get());
    assert_eq!(member.assignment.topic_partitions[0].partitions, [0, 1, 2, 3]);
    assert_eq!(world.machine.describe_consumer_group("h").error_code, code(ErrorCode::GroupIdNotFound));
    let classic = world.machine.describe_group("g", 6);
    assert_eq!(
        (classic.error_code, classic.group_state.as_str()),
        (code(ErrorCode::GroupIdNotFound), "Dead")
    );
    assert_eq!(classic.error_message.as_deref(), Some("Group g is not a classic group."));
    world.commit(&OffsetCommitRequest { group_id: "simple".into(), ..committing("", -1, 3) });
    let simple = world.machine.describe_consumer_group("simple");
    assert_eq!(simple.error_message.as_deref(), Some("Group simple is not a consumer group."));
    let list = |types: &[&str], states: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let request =
            towpath_wire::ListGroupsRequest { states_filter: owned(states), types_filter: owned(types) };
        let listed = world.machine.list_groups(&request);
        listed.into_iter().map(|group| (group.group_id, group.group_type)).collect::<BTreeSet<_>>()
    };
    let (consumer, simple) =
        (("g".to_owned(), "consumer".to_owned()), ("simple".to_owned(), "classic".to_owned()));
    assert_eq!(list(&[], &[]), [consumer.clone(), simple.clone()].into());
    assert_eq!(list(&["Consumer"], &["stable"]), [consumer].into());
    assert_eq!(list(&["classic"], &[]), [simple].into());
    assert_eq!(list(&["consumer"], &["empty"]), BTreeSet::new());
}
