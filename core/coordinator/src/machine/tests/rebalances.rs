//! From generation to generation.

use super::*;

#[test]
fn the_first_generation_forms_at_once_by_default() {
    let mut world = World::new();
    let id = world.new_id();
    let waiter = world.join(joining(&id));
    assert_eq!(world.joined(waiter).generation_id, 1);
}

#[test]
fn the_first_generation_waits_for_more_members_when_told_to() {
    let config = GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() };
    let mut world = World::with(config);
    let first = world.join_with(joining(""), 3);
    world.pass(2_000);
    let second = world.join_with(joining(""), 3);
    world.pass(1_500);
    assert!(!world.replies.contains_key(&first), "a member came during the delay: once more");
    world.pass(2_500);
    assert_eq!(world.joined(first).generation_id, 1);
    assert_eq!(world.joined(first).members.len(), 2);
    assert_eq!(world.joined(second).generation_id, 1);
    assert_eq!(world.joined(second).members.len(), 0, "only the leader is told");
}

#[test]
fn the_first_generation_does_not_wait_for_ever() {
    let config = GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() };
    let mut world = World::with(config);
    let first = world.join_with(JoinGroupRequest { rebalance_timeout_ms: 7_000, ..joining("") }, 3);
    for _ in 0..3 {
        world.pass(2_300);
        assert!(!world.replies.contains_key(&first));
        world.join_with(JoinGroupRequest { rebalance_timeout_ms: 7_000, ..joining("") }, 3);
    }
    world.pass(200);
    assert_eq!(world.joined(first).members.len(), 4);
}

#[test]
fn protocols_are_chosen_by_vote_among_those_that_all_support() {
    let mut world = World::new();
    let first =
        world.join_with(JoinGroupRequest { protocols: protocols(&["a", "b", "c"]), ..joining("") }, 3);
    let leader = world.joined(first).member_id.clone();
    world.join_with(JoinGroupRequest { protocols: protocols(&["c", "b"]), ..joining("") }, 3);
    world.join_with(JoinGroupRequest { protocols: protocols(&["c", "b", "d"]), ..joining("") }, 3);
    let again = world.join(JoinGroupRequest { protocols: protocols(&["a", "b", "c"]), ..joining(&leader) });
    assert_eq!(world.joined(again).protocol_name.as_deref(), Some("c"), "two votes against one for b");
    let stranger = world.join_with(JoinGroupRequest { protocols: protocols(&["a", "d"]), ..joining("") }, 3);
    assert_eq!(world.join_error(stranger), ErrorCode::InconsistentGroupProtocol);
    let other = JoinGroupRequest { protocol_type: "connect".into(), ..joining("") };
    let stranger = world.join_with(other, 3);
    assert_eq!(world.join_error(stranger), ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn a_protocol_named_twice_is_one_vote() {
    let mut world = World::new();
    let first =
        world.join_with(JoinGroupRequest { protocols: protocols(&["a", "a", "b"]), ..joining("") }, 3);
    let second = JoinGroupRequest { protocols: protocols(&["a"]), ..joining("") };
    world.join_with(second, 3);
    let leader = world.joined(first).member_id.clone();
    let again = world.join(JoinGroupRequest { protocols: protocols(&["a", "a", "b"]), ..joining(&leader) });
    assert_eq!(world.joined(again).protocol_name.as_deref(), Some("a"));
}

#[test]
fn a_leader_that_rejoins_always_rebalances_and_a_follower_only_when_it_changed() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let follower = world.join(joining(&ids[1]));
    assert_eq!(world.joined(follower).generation_id, generation, "here it is again");
    assert_eq!(world.joined(follower).leader, ids[0]);
    assert_eq!(world.state(), Some(GroupState::Stable));
    let changed = JoinGroupRequest { protocols: protocols(&["range"]), ..joining(&ids[1]) };
    let follower = world.join(changed.clone());
    assert!(!world.replies.contains_key(&follower));
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    world.join(joining(&ids[0]));
    assert_eq!(world.joined(follower).generation_id, generation + 1);
    world.sync(&ids[0], generation + 1, &[]);
    world.sync(&ids[1], generation + 1, &[]);
    world.join(joining(&ids[0]));
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    world.join(changed);
    assert_eq!(world.machine.group("g"), Some((GroupState::CompletingRebalance, generation + 2)));
}

#[test]
fn a_lost_answer_is_given_again() {
    let mut world = World::new();
    let id = world.new_id();
    world.join(joining(&id));
    let again = world.join(joining(&id));
    assert_eq!(world.joined(again).generation_id, 1);
    assert_eq!(world.joined(again).members.len(), 1);
    assert_eq!(world.state(), Some(GroupState::CompletingRebalance));
    let first = world.sync(&id, 1, &[(&id, "all")]);
    let again = world.sync(&id, 1, &[(&id, "other")]);
    assert_eq!(world.synced(first).assignment, "all");
    assert_eq!(world.synced(again).assignment, "all");
}

#[test]
fn whoever_repeats_a_waiting_request_gets_the_answer_and_the_old_request_an_error() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let first = world.join(joining(&ids[0]));
    let second = world.join(joining(&ids[0]));
    assert_eq!(world.join_error(first), ErrorCode::RebalanceInProgress);
    world.join(joining(&ids[1]));
    assert_eq!(world.joined(second).generation_id, generation + 1);
    let first = world.sync(&ids[1], generation + 1, &[]);
    let second = world.sync(&ids[1], generation + 1, &[]);
    assert_eq!(world.sync_error(first), ErrorCode::RebalanceInProgress);
    world.sync(&ids[0], generation + 1, &[(&ids[1], "x")]);
    assert_eq!(world.synced(second).assignment, "x");
}

#[test]
fn a_repeated_assignment_does_not_replace_the_one_on_its_way() {
    let mut world = World::new();
    let id = world.new_id();
    world.join(joining(&id));
    world.instant_log = false;
    world.sync(&id, 1, &[(&id, "first")]);
    let again = world.sync(&id, 1, &[(&id, "second")]);
    assert_eq!(world.appends.len(), 1);
    world.commit_appends();
    assert_eq!(world.synced(again).assignment, "first");
    assert_eq!(world.restarted().machine.describe_group("g", 6).members[0].member_assignment, "first");
}

#[test]
fn members_that_do_not_rejoin_in_time_are_out() {
    let mut world = World::new();
    let (ids, generation) = world.stable(3);
    let waiters: Vec<_> = ids[1..]
        .iter()
        .map(|id| {
            let changed = JoinGroupRequest { protocols: protocols(&["range"]), ..joining(id) };
            world.join(changed)
        })
        .collect();
    // The leader lives, but does not rejoin.
    for _ in 0..11 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    }
    assert!(waiters.iter().all(|waiter| !world.replies.contains_key(waiter)));
    world.pass(5_000);
    let response = world.joined(waiters[0]);
    assert_eq!(response.generation_id, generation + 1);
    assert!(ids[1..].contains(&response.leader), "a leader that has joined");
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn members_that_do_not_sync_in_time_are_out() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.join(joining(&ids[0]));
    world.join(joining(&ids[1]));
    let follower = world.sync(&ids[1], generation + 1, &[]);
    for _ in 0..12 {
        assert_eq!(world.heartbeat(&ids[0], generation + 1), ErrorCode::None);
        world.pass(5_000);
    }
    assert_eq!(world.sync_error(follower), ErrorCode::RebalanceInProgress, "the leader never assigned");
    assert_eq!(world.heartbeat(&ids[0], generation + 1), ErrorCode::UnknownMemberId);
    let again = world.join(joining(&ids[1]));
    assert_eq!(world.joined(again).leader, ids[1]);
}

#[test]
fn a_join_during_the_sync_phase_sends_everybody_back() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.join(joining(&ids[0]));
    world.join(joining(&ids[1]));
    let sync = world.sync(&ids[1], generation + 1, &[]);
    let new = world.new_id();
    world.join(joining(&new));
    assert_eq!(world.sync_error(sync), ErrorCode::RebalanceInProgress);
    let late = world.sync(&ids[0], generation + 1, &[]);
    assert_eq!(world.sync_error(late), ErrorCode::RebalanceInProgress);
}

#[test]
fn an_assignment_counts_only_when_it_is_in_the_log() {
    let mut world = World::new();
    let id = world.new_id();
    world.join(joining(&id));
    world.instant_log = false;
    let sync = world.sync(&id, 1, &[(&id, "all")]);
    assert!(!world.replies.contains_key(&sync));
    assert_eq!(world.state(), Some(GroupState::CompletingRebalance));
    world.fail_appends(ErrorCode::NotCoordinator);
    assert_eq!(world.sync_error(sync), ErrorCode::NotCoordinator);
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance));
    let again = world.join(joining(&id));
    assert_eq!(world.joined(again).generation_id, 2);
}

#[test]
fn an_assignment_of_an_older_generation_changes_nothing() {
    let mut world = World::new();
    let id = world.new_id();
    world.join(joining(&id));
    world.instant_log = false;
    world.sync(&id, 1, &[(&id, "old")]);
    let new = world.new_id();
    world.join(joining(&new));
    world.join(joining(&id));
    assert_eq!(world.machine.group("g"), Some((GroupState::CompletingRebalance, 2)));
    world.commit_appends();
    assert_eq!(world.machine.group("g"), Some((GroupState::CompletingRebalance, 2)));
}

#[test]
fn sync_names_the_right_protocol() {
    let mut world = World::new();
    let id = world.new_id();
    world.join(joining(&id));
    for (protocol_type, protocol_name, expected) in [
        (Some("connect"), None, ErrorCode::InconsistentGroupProtocol),
        (None, Some("roundrobin"), ErrorCode::InconsistentGroupProtocol),
        (Some("consumer"), Some("range"), ErrorCode::None),
    ] {
        let request = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: 1,
            member_id: id.clone(),
            protocol_type: protocol_type.map(str::to_owned),
            protocol_name: protocol_name.map(str::to_owned),
            ..Default::default()
        };
        let sync = world.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
        assert_eq!(world.sync_error(sync), expected);
    }
}

#[test]
fn version_0_has_the_session_timeout_for_both() {
    let mut world = World::new();
    let request = JoinGroupRequest { rebalance_timeout_ms: -1, ..joining("") };
    let first = world.join_with(request.clone(), 0);
    let leader = world.joined(first).member_id.clone();
    let second = world.join_with(request, 0);
    world.pass(5_000);
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
    world.pass(i64::from(SESSION_MS) - 5_000);
    assert_eq!(world.joined(second).generation_id, 2, "the leader did not rejoin within 10 s");
}

#[test]
fn a_restarted_coordinator_knows_the_members() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let mut world = world.restarted();
    assert_eq!(world.machine.group("g"), Some((GroupState::Stable, generation)));
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::None);
    let sync = world.sync(&ids[1], generation, &[]);
    assert_eq!(world.synced(sync).assignment, "part");
    world.pass(5_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    world.pass(5_000);
    assert_eq!(world.state(), Some(GroupState::PreparingRebalance), "sessions began when it was loaded");
    assert_eq!(world.leave(&ids[0], None), ErrorCode::None);
    assert_eq!(world.machine.group("g"), Some((GroupState::Empty, generation + 1)));
    assert_eq!(world.restarted().machine.group("g"), Some((GroupState::Empty, generation + 1)));
}
