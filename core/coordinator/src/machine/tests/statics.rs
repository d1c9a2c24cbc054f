//! Static members (KIP-345, KIP-814).

use super::*;

/// Two static members, stable; their ids, the leader first, and the generation.
fn stable_statics(world: &mut World) -> (String, String, i32) {
    let first = world.join(static_joining("", "one"));
    let leader = world.joined(first).member_id.clone();
    assert!(leader.starts_with("one-"));
    let second = world.join(static_joining("", "two"));
    world.join(static_joining(&leader, "one"));
    let follower = world.joined(second).member_id.clone();
    let waiting = world.sync(&follower, 2, &[]);
    world.sync(&leader, 2, &[(&leader, "mine"), (&follower, "yours")]);
    assert_eq!(world.synced(waiting).assignment, "yours");
    (leader, follower, 2)
}

#[test]
fn a_static_member_that_comes_back_gets_its_place_without_a_rebalance() {
    let mut world = World::new();
    let (_, old, generation) = stable_statics(&mut world);
    let back = world.join(static_joining("", "two"));
    let response = world.joined(back).clone();
    assert_eq!((response.error_code, response.generation_id), (0, generation));
    assert_ne!(response.member_id, old);
    assert!(!response.skip_assignment && response.members.is_empty());
    assert_eq!(world.state(), Some(GroupState::Stable));
    let sync = world.sync(&response.member_id, generation, &[]);
    assert_eq!(world.synced(sync).assignment, "yours");
    // The new id survives a restart; sessions do, too.
    let mut world = world.restarted();
    assert_eq!(world.heartbeat(&response.member_id, generation), ErrorCode::None);
    assert_eq!(world.heartbeat(&old, generation), ErrorCode::UnknownMemberId);
}

#[test]
fn the_old_member_is_fenced() {
    let mut world = World::new();
    let (_, old, generation) = stable_statics(&mut world);
    world.join(static_joining("", "two"));
    let join = world.join(static_joining(&old, "two"));
    assert_eq!(world.join_error(join), ErrorCode::FencedInstanceId);
    let heartbeat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: generation,
        member_id: old.clone(),
        group_instance_id: Some("two".into()),
    };
    let response = world.act(|machine, now, out| machine.heartbeat(now, &heartbeat, out));
    assert_eq!(response.error_code, code(ErrorCode::FencedInstanceId));
    let mut commit = committing(&old, generation, 5);
    commit.group_instance_id = Some("two".into());
    let commit = world.commit(&commit);
    assert_eq!(world.commit_error(commit), ErrorCode::FencedInstanceId);
    assert_eq!(world.leave(&old, Some("two")), ErrorCode::FencedInstanceId);
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: generation,
        member_id: old,
        group_instance_id: Some("two".into()),
        ..Default::default()
    };
    let sync = world.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
    assert_eq!(world.sync_error(sync), ErrorCode::FencedInstanceId);
}

#[test]
fn a_leader_that_comes_back_skips_the_assignment() {
    let mut world = World::new();
    let (old, _, generation) = stable_statics(&mut world);
    let back = world.join_with(static_joining("", "one"), 9);
    let response = world.joined(back).clone();
    assert!(response.skip_assignment);
    assert_eq!(response.leader, response.member_id);
    assert_eq!(response.members.len(), 2, "it is told about the others, to watch their subscriptions");
    assert_eq!(response.generation_id, generation);
    // An older client cannot be told to skip it: it must not take itself for the leader.
    let back = world.join_with(static_joining("", "one"), 8);
    let older = world.joined(back).clone();
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(older.leader, response.member_id);
    assert_ne!(older.leader, older.member_id);
    assert_ne!(older.leader, old);
}

#[test]
fn a_static_member_that_changes_the_protocol_rebalances() {
    let mut world = World::new();
    let (leader, _, generation) = stable_statics(&mut world);
    let changed = JoinGroupRequest { protocols: protocols(&["roundrobin"]), ..static_joining("", "two") };
    let back = world.join(changed);
    assert!(!world.replies.contains_key(&back));
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    world.join(static_joining(&leader, "one"));
    assert_eq!(world.joined(back).generation_id, generation + 1);
    assert_eq!(world.joined(back).protocol_name.as_deref(), Some("roundrobin"));
}

#[test]
fn a_replacement_answers_those_who_wait_for_the_old_id() {
    let mut world = World::new();
    let (leader, follower, generation) = stable_statics(&mut world);
    let join = world.join(static_joining(&leader, "one"));
    let back = world.join(static_joining("", "one"));
    assert_eq!(world.join_error(join), ErrorCode::FencedInstanceId);
    world.join(static_joining(&follower, "two"));
    let leader = world.joined(back).member_id.clone();
    assert_eq!(world.joined(back).leader, leader);
    let sync = world.sync(&follower, generation + 1, &[]);
    // The group is completing its rebalance: an assignment to the old id would reach nobody.
    let back = world.join(static_joining("", "two"));
    assert_eq!(world.sync_error(sync), ErrorCode::FencedInstanceId);
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    world.join(static_joining(&leader, "one"));
    assert_eq!(world.joined(back).generation_id, generation + 2);
}

#[test]
fn a_static_member_that_is_away_stays_until_its_session_ends() {
    let mut world = World::new();
    let request = |member: &str, instance: &str| JoinGroupRequest {
        session_timeout_ms: 100_000,
        rebalance_timeout_ms: 5_000,
        ..static_joining(member, instance)
    };
    let first = world.join(request("", "one"));
    let one = world.joined(first).member_id.clone();
    let second = world.join(request("", "two"));
    world.join(request(&one, "one"));
    let two = world.joined(second).member_id.clone();
    world.sync(&two, 2, &[]);
    world.sync(&one, 2, &[]);
    let again = world.join(request(&one, "one"));
    world.pass(5_000);
    let response = world.joined(again);
    assert_eq!(response.generation_id, 3);
    assert_eq!(response.members.len(), 2, "it did not rejoin, and still has its place");
    // It does not sync either: then it is out.
    world.sync(&one, 3, &[]);
    world.pass(5_000);
    let again = world.join(request(&one, "one"));
    assert_eq!(world.joined(again).members.len(), 1);
}

#[test]
fn a_group_of_absent_static_members_keeps_waiting_for_them() {
    let mut world = World::new();
    let request = |member: &str| JoinGroupRequest {
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 0,
        ..static_joining(member, "one")
    };
    let first = world.join(request(""));
    let one = world.joined(first).member_id.clone();
    world.sync(&one, 1, &[]);
    let stranger = world.new_id();
    let waiter = world.join(joining(&stranger));
    assert_eq!(world.leave(&stranger, None), ErrorCode::None);
    assert_eq!(world.join_error(waiter), ErrorCode::UnknownMemberId);
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    world.pass(50_000);
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    world.pass(10_000);
    assert_eq!(world.state(), Some(GroupState::Empty), "its session has ended");
}

#[test]
fn an_administrator_removes_a_member_by_instance_id() {
    let mut world = World::new();
    let (leader, follower, generation) = stable_statics(&mut world);
    assert_eq!(world.leave("", Some("three")), ErrorCode::UnknownMemberId);
    assert_eq!(world.leave("", Some("two")), ErrorCode::None);
    assert_eq!(world.heartbeat(&leader, generation), ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(&follower, generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_new_id_that_cannot_be_stored_is_refused() {
    let mut world = World::new();
    let (_, old, generation) = stable_statics(&mut world);
    world.instant_log = false;
    let back = world.join(static_joining("", "two"));
    assert!(!world.replies.contains_key(&back));
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.join_error(back), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.joined(back).member_id, "");
    world.instant_log = true;
    let back = world.join(static_joining("", "two"));
    assert_eq!(world.joined(back).generation_id, generation);
    assert_eq!(world.heartbeat(&old, generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_that_begins_while_the_new_id_is_stored_includes_it() {
    let mut world = World::new();
    let (leader, _, generation) = stable_statics(&mut world);
    world.instant_log = false;
    let back = world.join(static_joining("", "two"));
    world.join(static_joining(&leader, "one"));
    assert_eq!(world.joined(back).generation_id, generation + 1, "it has joined already");
    world.commit_appends();
}

#[test]
fn a_pending_member_is_no_static_member() {
    let mut world = World::new();
    let id = world.new_id();
    let waiter = world.join(static_joining(&id, "one"));
    assert_eq!(world.join_error(waiter), ErrorCode::UnknownMemberId);
}
