//! From the classic to the consumer protocol and back, and members of both in one group.

use towpath_wire::consumer_protocol::TopicPartition;
use towpath_wire::{ConsumerGroupHeartbeatRequest, ConsumerProtocolAssignment};

use super::consumers::{beat_request, config, join_request, owning, partitions_of, world};
use super::topics::FakeTopics;
use super::*;
use crate::config::MigrationPolicy;

/// What a leader of a classic group assigns.
fn assignment(partitions: &[i32], user_data: Option<&'static [u8]>) -> Bytes {
    let assigned_partitions =
        vec![TopicPartition { topic: "orders".into(), partitions: partitions.to_vec() }];
    let message =
        ConsumerProtocolAssignment { assigned_partitions, user_data: user_data.map(Bytes::from_static) };
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    message.encode(&mut bytes, 1).unwrap();
    bytes.freeze()
}

/// What a member with the classic protocol is assigned.
fn assigned(bytes: &Bytes) -> Vec<i32> {
    let mut decoder = towpath_wire::Decoder::new(bytes.clone());
    let version = decoder.get_i16().unwrap();
    let message = ConsumerProtocolAssignment::decode(&mut decoder, version).unwrap();
    let mut all: Vec<i32> =
        message.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect();
    all.sort_unstable();
    all
}

/// A classic subscription to `orders` of a member that has some partitions.
fn owning_subscription(owned: &[i32]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    let message = ConsumerProtocolSubscription {
        topics: vec!["orders".into()],
        owned_partitions: vec![TopicPartition { topic: "orders".into(), partitions: owned.to_vec() }],
        ..Default::default()
    };
    message.encode(&mut bytes, 1).unwrap();
    bytes.freeze()
}

fn rejoining(member: &str, owned: &[i32]) -> JoinGroupRequest {
    let mut request = joining(member);
    request.protocols.iter_mut().for_each(|protocol| protocol.metadata = owning_subscription(owned));
    request
}

/// A stable classic group of two members, with two partitions each.
fn classic_pair(world: &mut World) -> (Vec<String>, i32) {
    let ids: Vec<_> = (0..2).map(|_| world.new_id()).collect();
    world.join(joining(&ids[0]));
    world.join(joining(&ids[1]));
    let again = world.join(joining(&ids[0]));
    let generation = world.joined(again).generation_id;
    let other = world.sync(&ids[1], generation, &[]);
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: generation,
        member_id: ids[0].clone(),
        assignments: [[0, 1], [2, 3]]
            .iter()
            .zip(&ids)
            .map(|(partitions, id)| SyncGroupRequestAssignment {
                member_id: id.clone(),
                assignment: assignment(partitions, None),
            })
            .collect(),
        ..Default::default()
    };
    let leader = world.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
    assert_eq!((world.sync_error(leader), world.sync_error(other)), (ErrorCode::None, ErrorCode::None));
    (ids, generation)
}

impl World {
    fn classic_join(&mut self, request: JoinGroupRequest) -> i32 {
        let waiter = self.join(request);
        let response = self.joined(waiter);
        assert_eq!(response.error_code, 0);
        assert_eq!(
            (response.protocol_type.as_deref(), response.protocol_name.as_deref()),
            (Some("consumer"), Some("range"))
        );
        assert!(response.members.is_empty() && response.leader.is_empty(), "nobody leads");
        response.generation_id
    }

    fn classic_sync(&mut self, member: &str, generation: i32) -> Vec<i32> {
        let waiter = self.sync(member, generation, &[]);
        assert_eq!(self.sync_error(waiter), ErrorCode::None);
        assigned(&self.synced(waiter).assignment)
    }
}

#[test]
fn a_classic_group_becomes_a_consumer_group_while_it_works() {
    let (mut world, _) = world();
    let (ids, generation) = classic_pair(&mut world);
    world.commit(&committing(&ids[0], generation, 17));
    assert_eq!(world.join_as("new", &["orders"]), (generation + 1, vec![]), "all partitions are taken");
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Reconciling, generation + 1));
    assert_eq!(world.fetch("orders", 0), 17, "offsets stay");
    let described = world.machine.describe_consumer_group("g");
    let types: Vec<i8> = described.members.iter().map(|member| member.member_type).collect();
    assert_eq!(types.iter().sum::<i8>(), 1, "{types:?}");
    // Those with the classic protocol notice by their heartbeats, give up and come back.
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let mut given_up = 0;
    for (id, owned) in [(&ids[0], [0, 1]), (&ids[1], [2, 3])] {
        let epoch = world.classic_join(rejoining(id, &owned));
        let kept = world.classic_sync(id, epoch);
        if epoch == generation {
            // Partitions are to be given up first.
            given_up += 1;
            assert_eq!(kept.len(), 1);
            assert_eq!(world.heartbeat(id, generation), ErrorCode::RebalanceInProgress);
            assert_eq!(world.classic_join(rejoining(id, &kept)), generation + 1);
            assert_eq!(world.classic_sync(id, generation + 1), kept);
        } else {
            assert_eq!(kept, owned);
        }
        assert_eq!(world.heartbeat(id, generation + 1), ErrorCode::None);
    }
    assert_eq!(given_up, 1, "four partitions, three members");
    let (epoch, mine) = world.beat_as("new", generation + 1, &[]);
    assert_eq!((epoch, mine.map(|mine| mine.len())), (generation + 1, Some(1)));
    assert_eq!(world.consumer_state().0, ConsumerGroupState::Stable);
    let late = world.commit(&committing(&ids[0], generation, 18));
    assert_eq!(world.commit_error(late), ErrorCode::IllegalGeneration);
    let good = world.commit(&committing(&ids[0], generation + 1, 18));
    assert_eq!(world.commit_error(good), ErrorCode::None);
    let restarted = world.restarted();
    assert_eq!(restarted.machine.describe_consumer_group("g"), world.machine.describe_consumer_group("g"));
    assert_eq!(restarted.fetch("orders", 0), 18);
}

#[test]
fn a_rebalance_of_the_classic_group_ends_with_its_upgrade() {
    let (mut world, _) = world();
    let (ids, generation) = classic_pair(&mut world);
    let waiting = world.join(rejoining(&ids[0], &[0, 1]));
    world.join_as("new", &["orders"]);
    assert_eq!(world.join_error(waiting), ErrorCode::RebalanceInProgress);
    assert_eq!(world.machine.waiters(), []);
    assert_eq!(world.classic_join(rejoining(&ids[0], &[])), generation + 1);
    // No deadline of the classic group is left.
    world.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(
        world.machine.consumer_group("g").map(|(state, _)| state),
        Some(ConsumerGroupState::Reconciling)
    );
    world.pass(1);
    let members = world.machine.describe_consumer_group("g").members;
    assert_eq!(members.len(), 1, "sessions of classic members have their own length");
}

#[test]
fn an_upgrade_can_be_refused() {
    let upgrade = |config: GroupConfig, prepare: &dyn Fn(&mut World)| {
        let mut world = World::with(config);
        world.set_topics(&FakeTopics::of(&[("orders", 4)]));
        prepare(&mut world);
        let before = world.machine.describe_group("g", 6);
        let error = world.beat_error(join_request("new", &["orders"]));
        assert_eq!(world.machine.describe_group("g", 6), before, "nothing has changed");
        assert_eq!(world.machine.consumer_group("g"), None);
        error
    };
    let pair = |world: &mut World| drop(classic_pair(world));
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Downgrade] {
        let config = GroupConfig { consumer_migration_policy: policy, ..config() };
        assert_eq!(upgrade(config, &pair), ErrorCode::GroupIdNotFound);
    }
    let other_type = |world: &mut World| {
        let request = JoinGroupRequest { protocol_type: "connect".into(), ..joining("") };
        world.join_with(request, 3);
    };
    assert_eq!(upgrade(config(), &other_type), ErrorCode::GroupIdNotFound);
    let custom = |world: &mut World| {
        let id = world.new_id();
        let joined = world.join(joining(&id));
        let generation = world.joined(joined).generation_id;
        let request = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: id.clone(),
            assignments: vec![SyncGroupRequestAssignment {
                member_id: id,
                assignment: assignment(&[0], Some(b"mine")),
            }],
            ..Default::default()
        };
        world.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
    };
    assert_eq!(upgrade(config(), &custom), ErrorCode::GroupIdNotFound);
    let malformed = |world: &mut World| drop(world.stable(1));
    assert_eq!(upgrade(config(), &malformed), ErrorCode::GroupIdNotFound, "`part` is no assignment");
    let (mut world, _) = world();
    classic_pair(&mut world);
    assert_eq!(
        world.beat_error(beat_request("new", 1)),
        ErrorCode::GroupIdNotFound,
        "only who joins upgrades"
    );
}

#[test]
fn empty_groups_change_their_kind() {
    let (mut world, _) = world();
    let (ids, generation) = classic_pair(&mut world);
    world.commit(&committing(&ids[0], generation, 3));
    ids.iter().for_each(|id| assert_eq!(world.leave(id, None), ErrorCode::None));
    assert_eq!(world.state(), Some(GroupState::Empty));
    assert_eq!(world.join_as("a", &["orders"]), (1, vec![0, 1, 2, 3]), "a consumer group begins at one");
    assert_eq!(world.restarted().machine.describe_consumer_group("g").group_state, "Stable");
    world.beat_with(beat_request("a", -1));
    let classic = world.new_id();
    assert_eq!(world.machine.consumer_group("g"), None);
    let joined = world.join(joining(&classic));
    assert_eq!(world.joined(joined).generation_id, 1);
    assert_eq!(world.joined(joined).leader, classic);
    let synced = world.sync(&classic, 1, &[(&classic, "part")]);
    assert_eq!(world.sync_error(synced), ErrorCode::None);
    let restarted = world.restarted();
    assert_eq!(restarted.state(), Some(GroupState::Stable));
    assert_eq!(restarted.machine.consumer_group("g"), None);
    assert_eq!(restarted.fetch("orders", 0), 3);
    // A simple group becomes a consumer group, too.
    world.commit(&OffsetCommitRequest { group_id: "simple".into(), ..committing("", -1, 3) });
    let joining =
        ConsumerGroupHeartbeatRequest { group_id: "simple".into(), ..join_request("a", &["orders"]) };
    assert_eq!(world.beat_error(joining), ErrorCode::None);
}

#[test]
fn classic_members_join_consumer_groups() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    let id = world.new_id();
    assert_eq!(world.machine.describe_consumer_group("g").members.len(), 1, "an id is only a promise");
    assert_eq!(world.classic_join(rejoining(&id, &[])), 2);
    assert_eq!(world.classic_sync(&id, 2), Vec::<i32>::new());
    assert_eq!(world.heartbeat(&id, 2), ErrorCode::None, "it waits for the other");
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1]));
    assert_eq!(world.heartbeat(&id, 2), ErrorCode::RebalanceInProgress, "something is free for it");
    assert_eq!(world.classic_join(rejoining(&id, &[])), 2);
    assert_eq!(world.classic_sync(&id, 2).len(), 2);
    // What it gets wrong.
    assert_eq!(world.heartbeat(&id, 1), ErrorCode::IllegalGeneration);
    assert_eq!(world.heartbeat("nobody", 2), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat("a", 2), ErrorCode::UnknownMemberId, "not with the classic protocol");
    let stale = world.sync(&id, 1, &[]);
    assert_eq!(world.sync_error(stale), ErrorCode::IllegalGeneration);
    let foreign = world.sync("a", 2, &[]);
    assert_eq!(world.sync_error(foreign), ErrorCode::UnknownMemberId);
    let other = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 2,
        member_id: id.clone(),
        protocol_name: Some("sticky".into()),
        ..Default::default()
    };
    let waiter = world.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, other, out));
    assert_eq!(world.sync_error(waiter), ErrorCode::InconsistentGroupProtocol);
    let mut request = joining("");
    request.protocols = protocols(&["sticky"]);
    let waiter = world.join_with(request, 3);
    assert_eq!(
        world.join_error(waiter),
        ErrorCode::InconsistentGroupProtocol,
        "nothing in common with the others"
    );
    let waiter = world.join_with(JoinGroupRequest { protocol_type: "connect".into(), ..joining("") }, 3);
    assert_eq!(world.join_error(waiter), ErrorCode::InconsistentGroupProtocol);
    let mut request = joining("");
    request.protocols.iter_mut().for_each(|protocol| protocol.metadata = Bytes::from_static(b"x"));
    let waiter = world.join_with(request, 3);
    assert_eq!(world.join_error(waiter), ErrorCode::InconsistentGroupProtocol);
    // It leaves.
    assert_eq!(world.leave("a", None), ErrorCode::UnknownMemberId, "LeaveGroup is not for it");
    assert_eq!(world.leave(&id, None), ErrorCode::None);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Assigning, 3));
}

#[test]
fn classic_members_keep_their_deadlines() {
    let (mut world, topics) = world();
    world.join_as("a", &["orders"]);
    let id = world.new_id();
    world.classic_join(rejoining(&id, &[]));
    let keep = |world: &mut World| world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1, 2, 3]));
    // It never asks for its assignment, though its session lives.
    for _ in 0..7 {
        world.pass(9_000);
        world.heartbeat(&id, 2);
        keep(&mut world);
    }
    assert_eq!(world.heartbeat(&id, 2), ErrorCode::UnknownMemberId);

    let (mut world, topics) = super::consumers::world();
    world.join_as("a", &["orders"]);
    let id = world.new_id();
    world.classic_join(rejoining(&id, &[]));
    world.classic_sync(&id, 2);
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1]));
    assert_eq!(world.heartbeat(&id, 2), ErrorCode::RebalanceInProgress);
    for _ in 0..7 {
        world.pass(9_000);
        world.heartbeat(&id, 2);
        world.beat_with(beat_request("a", 2));
    }
    assert_eq!(
        world.heartbeat(&id, 2),
        ErrorCode::UnknownMemberId,
        "it was asked to join again, and did not"
    );
}

#[test]
fn a_group_without_new_members_becomes_classic_again() {
    for by_timeout in [false, true] {
        let (mut world, topics) = world();
        let (ids, generation) = classic_pair(&mut world);
        world.commit(&committing(&ids[0], generation, 9));
        world.join_as("new", &["orders"]);
        world.classic_join(rejoining(&ids[0], &[0, 1]));
        if by_timeout {
            for _ in 0..5 {
                world.pass(9_000);
                // Their sessions live, although they are told to join.
                for member in world.machine.describe_consumer_group("g").members {
                    world.heartbeat(&member.member_id, member.member_epoch);
                }
            }
        } else {
            assert_eq!(world.beat_error(beat_request("new", -1)), ErrorCode::None);
        }
        assert_eq!(world.machine.consumer_group("g"), None);
        assert_eq!(world.state(), Some(GroupState::PreparingRebalance), "all are asked to join again");
        assert_eq!(world.machine.group("g"), Some((GroupState::PreparingRebalance, generation + 1)));
        assert_eq!(world.heartbeat(&ids[0], generation + 1), ErrorCode::RebalanceInProgress);
        assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::IllegalGeneration);
        let restarted = world.restarted();
        assert_eq!(
            restarted.machine.group("g"),
            Some((GroupState::Stable, generation + 1)),
            "as it stands in the log"
        );
        let described = restarted.machine.describe_group("g", 6);
        let partitions: usize =
            described.members.iter().map(|member| assigned(&member.member_assignment).len()).sum();
        assert!(partitions >= 2, "everybody keeps its target: {partitions}");
        let joins: Vec<Waiter> = ids.iter().map(|id| world.join(joining(id))).collect();
        for waiter in joins {
            assert_eq!(world.joined(waiter).generation_id, generation + 2);
        }
        assert_eq!(world.fetch("orders", 0), 9);
        let _ = topics;
    }
}

#[test]
fn a_group_stays_where_the_policy_wants_it() {
    for policy in [MigrationPolicy::Upgrade, MigrationPolicy::Bidirectional] {
        let mut world = World::with(GroupConfig { consumer_migration_policy: policy, ..config() });
        world.set_topics(&FakeTopics::of(&[("orders", 4)]));
        classic_pair(&mut world);
        world.join_as("new", &["orders"]);
        world.beat_with(beat_request("new", -1));
        let stays = policy == MigrationPolicy::Upgrade;
        assert_eq!(world.machine.consumer_group("g").is_some(), stays, "{policy:?}");
    }
}

#[test]
fn a_static_member_changes_its_protocol() {
    let (mut world, topics) = world();
    let request =
        ConsumerGroupHeartbeatRequest { instance_id: Some("i".into()), ..join_request("new", &["orders"]) };
    assert_eq!(partitions_of(&world.beat_with(request.clone())), Some(vec![0, 1, 2, 3]));
    // The only member now uses the classic protocol: the group does, too, and nobody has to rebalance.
    let waiter = world.join(static_joining("", "i"));
    let joined = world.joined(waiter).clone();
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(world.machine.group("g"), Some((GroupState::Stable, 1)));
    let synced = world.sync(&joined.member_id, 1, &[]);
    assert_eq!(world.sync_error(synced), ErrorCode::None);
    assert_eq!(assigned(&world.synced(synced).assignment), [0, 1, 2, 3]);
    assert_eq!(world.restarted().machine.group("g"), Some((GroupState::Stable, 1)));
    // And back.
    let back = world.beat_with(ConsumerGroupHeartbeatRequest { member_id: "newer".into(), ..request });
    assert_eq!((back.error_code, partitions_of(&back)), (0, Some(vec![0, 1, 2, 3])));
    assert_eq!(world.heartbeat(&joined.member_id, 1), ErrorCode::UnknownMemberId);
    let _ = topics;
}

#[test]
fn a_failed_downgrade_is_written_again() {
    let (mut world, _) = world();
    let (ids, generation) = classic_pair(&mut world);
    world.join_as("new", &["orders"]);
    world.instant_log = false;
    let left = world.send_beat(beat_request("new", -1), 1);
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.beaten(left).error_code, code(ErrorCode::CoordinatorNotAvailable));
    assert!(world.restarted().machine.consumer_group("g").is_some());
    world.pass(1_000);
    world.commit_appends();
    assert_eq!(world.restarted().machine.consumer_group("g"), None);
    world.instant_log = true;
    let joins: Vec<Waiter> = ids.iter().map(|id| world.join(joining(id))).collect();
    let leader = world.joined(joins[0]).leader.clone();
    assert_eq!(world.joined(joins[0]).generation_id, generation + 2);
    let synced = world.sync(&leader, generation + 2, &[(&leader, "part")]);
    assert_eq!(world.sync_error(synced), ErrorCode::None);
    assert_eq!(world.restarted().machine.group("g"), Some((GroupState::Stable, generation + 2)));
}
