//! Who may be a member, and for how long.

use super::*;

#[test]
fn a_new_dynamic_member_must_come_back_with_its_id() {
    let mut world = World::new();
    let id = world.new_id();
    assert!(id.starts_with("client-"), "{id}");
    assert_eq!(world.state(), Some(GroupState::Empty));
    assert_eq!(world.machine.stats().pending_members, 1);
    let waiter = world.join(joining(&id));
    let response = world.joined(waiter);
    assert_eq!((response.error_code, response.generation_id), (0, 1));
    assert_eq!((response.leader.as_str(), response.member_id.as_str()), (id.as_str(), id.as_str()));
    assert_eq!(response.protocol_name.as_deref(), Some("range"));
    assert_eq!(response.members.len(), 1);
    assert_eq!(response.members[0].metadata, subscription(&["orders"]));
}

#[test]
fn before_version_4_a_new_member_is_taken_at_once() {
    let mut world = World::new();
    let waiter = world.join_with(joining(""), 3);
    assert_eq!(world.join_error(waiter), ErrorCode::None);
}

#[test]
fn an_id_that_nobody_joins_with_is_forgotten_after_the_session_timeout() {
    let mut world = World::new();
    let id = world.new_id();
    world.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(world.machine.stats().pending_members, 1);
    world.pass(1);
    assert_eq!(world.machine.stats(), MachineStats::default(), "and the group with it");
    let waiter = world.join(joining(&id));
    assert_eq!(world.join_error(waiter), ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_the_ids_that_were_given_out() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let pending = world.new_id();
    let again = world.join(joining(&ids[0]));
    assert!(!world.replies.contains_key(&again), "somebody is about to join");
    assert_eq!(world.leave(&pending, None), ErrorCode::None);
    assert_eq!(world.joined(again).generation_id, generation + 1);
}

#[test]
fn session_timeouts_have_bounds() {
    let mut world = World::new();
    for (timeout, error) in [
        (5_999, ErrorCode::InvalidSessionTimeout),
        (6_000, ErrorCode::MemberIdRequired),
        (1_800_000, ErrorCode::MemberIdRequired),
        (1_800_001, ErrorCode::InvalidSessionTimeout),
        (-1, ErrorCode::InvalidSessionTimeout),
    ] {
        let waiter = world.join(JoinGroupRequest { session_timeout_ms: timeout, ..joining("") });
        assert_eq!(world.join_error(waiter), error, "{timeout}");
    }
}

#[test]
fn a_group_needs_a_name_and_a_member_a_protocol() {
    let mut world = World::new();
    let nameless = world.join(JoinGroupRequest { group_id: String::new(), ..joining("") });
    assert_eq!(world.join_error(nameless), ErrorCode::InvalidGroupId);
    let without = world.join(JoinGroupRequest { protocols: Vec::new(), ..joining("") });
    assert_eq!(world.join_error(without), ErrorCode::InconsistentGroupProtocol);
    let untyped = world.join(JoinGroupRequest { protocol_type: String::new(), ..joining("") });
    assert_eq!(world.join_error(untyped), ErrorCode::InconsistentGroupProtocol);
    assert_eq!(world.machine.stats().groups, 0, "refused members leave nothing");
}

#[test]
fn somebody_unknown_does_not_make_a_group() {
    let mut world = World::new();
    let waiter = world.join(joining("who"));
    assert_eq!(world.join_error(waiter), ErrorCode::UnknownMemberId);
    assert_eq!(world.machine.stats().groups, 0);
    assert_eq!(world.heartbeat("who", 1), ErrorCode::UnknownMemberId);
    let sync = world.sync("who", 1, &[]);
    assert_eq!(world.sync_error(sync), ErrorCode::UnknownMemberId);
    assert_eq!(world.leave("who", None), ErrorCode::UnknownMemberId);
}

#[test]
fn heartbeats_tell_the_state() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    assert_eq!(world.heartbeat(&ids[0], generation - 1), ErrorCode::IllegalGeneration);
    assert_eq!(world.heartbeat("who", generation), ErrorCode::UnknownMemberId);
    let new = world.new_id();
    world.join(joining(&new));
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    world.join(joining(&ids[0]));
    assert_eq!(world.state(), Some(GroupState::CompletingRebalance));
    assert_eq!(world.heartbeat(&ids[0], generation + 1), ErrorCode::None);
}

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.pass(6_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    world.pass(4_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::UnknownMemberId);
    let again = world.join(joining(&ids[0]));
    assert_eq!(world.joined(again).members.len(), 1);
}

#[test]
fn commits_count_as_signs_of_life() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    for offset in 0..5 {
        world.pass(9_000);
        let waiter = world.commit(&committing(&ids[0], generation, offset));
        assert_eq!(world.commit_error(waiter), ErrorCode::None);
    }
    assert_eq!(world.state(), Some(GroupState::Stable));
    world.pass(10_000);
    assert_eq!(world.state(), Some(GroupState::Empty));
    assert_eq!(world.machine.group("g"), Some((GroupState::Empty, generation + 1)));
}

#[test]
fn a_new_member_that_waits_for_others_is_out_after_five_minutes() {
    let mut world = World::new();
    let slow = JoinGroupRequest { rebalance_timeout_ms: 1_000_000, ..joining("") };
    let first = world.join_with(slow.clone(), 3);
    let leader = world.joined(first).member_id.clone();
    world.sync(&leader, 1, &[]);
    let new = world.join_with(slow, 3);
    for _ in 0..299 {
        world.pass(1_000);
        assert_eq!(world.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
    }
    assert!(!world.replies.contains_key(&new));
    world.pass(1_000);
    assert_eq!(world.join_error(new), ErrorCode::UnknownMemberId);
    assert_eq!(world.joined(new).member_id, "");
}

#[test]
fn a_leaving_member_gets_its_answers() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let join = world.join(joining(&ids[0]));
    assert_eq!(world.leave(&ids[0], None), ErrorCode::None);
    assert_eq!(world.join_error(join), ErrorCode::UnknownMemberId);
    let other = world.join(joining(&ids[1]));
    assert_eq!(world.joined(other).generation_id, generation + 1);
    let sync = world.sync(&ids[1], generation, &[]);
    assert_eq!(world.sync_error(sync), ErrorCode::IllegalGeneration);
    world.instant_log = false;
    let sync = world.sync(&ids[1], generation + 1, &[]);
    assert_eq!(world.leave(&ids[1], None), ErrorCode::None);
    assert_eq!(world.sync_error(sync), ErrorCode::UnknownMemberId);
    world.commit_appends();
    assert_eq!(world.state(), Some(GroupState::Empty));
}

#[test]
fn the_number_of_members_is_bounded() {
    let mut world = World::with(GroupConfig { members_max: 2, ..GroupConfig::default() });
    let (ids, generation) = world.stable(2);
    let third = world.join(joining(""));
    assert_eq!(world.join_error(third), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None, "the others do not notice");
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::None);
}

#[test]
fn ids_given_out_count_as_members() {
    let mut world = World::with(GroupConfig { members_max: 3, ..GroupConfig::default() });
    for _ in 0..3 {
        world.new_id();
    }
    let waiter = world.join(joining(""));
    assert_eq!(world.join_error(waiter), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.machine.stats().pending_members, 3);
}

#[test]
fn what_members_say_is_bounded() {
    let mut world = World::with(GroupConfig { group_bytes_max: 10_000, ..GroupConfig::default() });
    let (ids, generation) = world.stable(1);
    let large = |member: &str| JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: vec![0; 20_000].into() }],
        ..joining(member)
    };
    let new = world.join_with(large(""), 3);
    assert_eq!(world.join_error(new), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    world.join(joining(&ids[0]));
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: generation + 1,
        member_id: ids[0].clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: ids[0].clone(),
            assignment: vec![0; 20_000].into(),
        }],
        ..Default::default()
    };
    let sync = world.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
    assert_eq!(world.sync_error(sync), ErrorCode::UnknownServerError);
}

#[test]
fn the_number_of_groups_is_bounded() {
    let mut world = World::with(GroupConfig { groups_max: 1, ..GroupConfig::default() });
    world.new_id();
    let waiter = world.join(JoinGroupRequest { group_id: "h".into(), ..joining("") });
    assert_eq!(world.join_error(waiter), ErrorCode::GroupMaxSizeReached);
    let mut request = committing("", -1, 5);
    request.group_id = "h".into();
    let waiter = world.commit(&request);
    assert_eq!(world.commit_error(waiter), ErrorCode::InvalidCommitOffsetSize);
}

#[test]
fn books_are_kept() {
    let mut world = World::new();
    let (ids, generation) = world.stable(3);
    let waiter = world.commit(&committing(&ids[0], generation, 1));
    assert_eq!(world.commit_error(waiter), ErrorCode::None);
    let bytes = world.machine.stats().bytes;
    assert_eq!(
        bytes,
        world.restarted().machine.stats().bytes
            + 3 * (64 + "roundrobin".len() + subscription(&["orders"]).len())
    );
    for id in &ids {
        assert_eq!(world.leave(id, None), ErrorCode::None);
    }
    let delete = world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "g", out));
    assert_eq!(world.replies[&delete], Reply::DeleteGroup(ErrorCode::None));
    assert_eq!(world.machine.stats(), MachineStats::default());
}

#[test]
fn everybody_is_answered_when_the_partition_goes() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.instant_log = false;
    let commit = world.commit(&committing(&ids[0], generation, 1));
    let join = world.join(joining(&ids[0]));
    world.act(|machine, _, out| machine.unload(ErrorCode::NotCoordinator, out));
    assert_eq!(world.commit_error(commit), ErrorCode::NotCoordinator);
    assert_eq!(world.join_error(join), ErrorCode::NotCoordinator);
    assert_eq!(world.machine.waiters(), []);
    world.commit_appends();
}
