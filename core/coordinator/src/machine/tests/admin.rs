//! Describing, listing and deleting groups; loading what cannot be.

use towpath_wire::GroupMetadataValue;
use towpath_wire::ListGroupsRequest;
use towpath_wire::offset_records::MemberMetadata;

use super::*;
use crate::record::{BadRecord, group_record};

fn entry(key: Option<Bytes>, value: Option<Bytes>) -> LoadedEntry {
    LoadedEntry::Record { offset: Offset::new(0), key, value, producer: None }
}

fn delete(world: &mut World, group: &str) -> Waiter {
    world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, group, out))
}

fn listed(world: &World, states: &[&str], types: &[&str]) -> Vec<(String, String)> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let request = ListGroupsRequest { states_filter: owned(states), types_filter: owned(types) };
    let mut groups: Vec<_> = world
        .machine
        .list_groups(&request)
        .into_iter()
        .map(|group| {
            assert_eq!(group.group_type, "classic");
            (group.group_id, group.group_state)
        })
        .collect();
    groups.sort();
    groups
}

#[test]
fn groups_are_described_by_state() {
    let mut world = World::new();
    let (ids, _) = world.stable(2);
    let group = world.machine.describe_group("g", 6);
    assert_eq!((group.error_code, group.group_state.as_str()), (0, "Stable"));
    assert_eq!((group.protocol_type.as_str(), group.protocol_data.as_str()), ("consumer", "range"));
    assert_eq!(group.members.len(), 2);
    assert!(ids.contains(&group.members[0].member_id));
    assert_eq!(group.members[0].client_id, "client");
    assert_eq!(group.members[0].client_host, "/127.0.0.1");
    assert_eq!(group.members[0].member_metadata, subscription(&["orders"]));
    assert_eq!(group.members[0].member_assignment, "part");
    assert_eq!(group.authorized_operations, i32::MIN);
    world.join(joining(&ids[0]));
    let group = world.machine.describe_group("g", 6);
    assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("PreparingRebalance", ""));
    assert_eq!(group.members[0].member_metadata, "");
}

#[test]
fn an_unknown_group_is_dead_or_not_found_by_version() {
    let world = World::new();
    let old = world.machine.describe_group("g", 5);
    assert_eq!((old.error_code, old.group_state.as_str(), old.error_message), (0, "Dead", None));
    let new = world.machine.describe_group("g", 6);
    assert_eq!((new.error_code, new.group_state.as_str()), (code(ErrorCode::GroupIdNotFound), "Dead"));
    assert!(new.error_message.is_some());
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut world = World::new();
    world.stable(1);
    let mut simple = committing("", -1, 1);
    simple.group_id = "simple".into();
    world.commit(&simple);
    let all = [("g".to_owned(), "Stable".to_owned()), ("simple".to_owned(), "Empty".to_owned())];
    assert_eq!(listed(&world, &[], &[]), all);
    assert_eq!(listed(&world, &["stable", "Dead"], &[]), all[..1]);
    assert_eq!(listed(&world, &["EMPTY"], &["Classic"]), all[1..]);
    assert_eq!(listed(&world, &[], &["consumer"]), []);
    assert_eq!(listed(&world, &["nonsense"], &[]), []);
}

#[test]
fn only_empty_groups_are_deleted_offsets_and_all() {
    let mut world = World::new();
    let unknown = delete(&mut world, "g");
    assert_eq!(world.replies[&unknown], Reply::DeleteGroup(ErrorCode::GroupIdNotFound));
    let (ids, generation) = world.stable(1);
    world.commit(&committing(&ids[0], generation, 5));
    let alive = delete(&mut world, "g");
    assert_eq!(world.replies[&alive], Reply::DeleteGroup(ErrorCode::NonEmptyGroup));
    world.leave(&ids[0], None);
    let empty = delete(&mut world, "g");
    assert_eq!(world.replies[&empty], Reply::DeleteGroup(ErrorCode::None));
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.restarted().machine.stats().groups, 0);
}

#[test]
fn a_deletion_reaches_commits_that_are_on_their_way_and_holds_off_later_ones() {
    let mut world = World::new();
    world.instant_log = false;
    let commit = world.commit(&committing("", -1, 5));
    let deletion = delete(&mut world, "g");
    let late = world.commit(&committing("", -1, 6));
    assert_eq!(world.commit_error(late), ErrorCode::CoordinatorNotAvailable);
    let join = world.join(joining(""));
    assert_eq!(world.join_error(join), ErrorCode::CoordinatorNotAvailable);
    let again = delete(&mut world, "g");
    assert_eq!(world.replies[&again], Reply::DeleteGroup(ErrorCode::GroupIdNotFound));
    world.commit_appends();
    assert_eq!(world.commit_error(commit), ErrorCode::None);
    assert_eq!(world.replies[&deletion], Reply::DeleteGroup(ErrorCode::None));
    assert_eq!(world.machine.stats(), MachineStats::default());
    assert_eq!(world.restarted().machine.stats(), MachineStats::default());
}

#[test]
fn a_deletion_that_fails_leaves_the_group() {
    let mut world = World::new();
    world.commit(&committing("", -1, 5));
    world.instant_log = false;
    let deletion = delete(&mut world, "g");
    assert_eq!(world.machine.describe_group("g", 5).group_state, "Dead");
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.replies[&deletion], Reply::DeleteGroup(ErrorCode::CoordinatorNotAvailable));
    assert_eq!((world.fetch("orders", 0), world.state()), (5, Some(GroupState::Empty)));
}

#[test]
fn impossible_groups_stop_the_loading() {
    let member = |id: &str, instance: Option<&str>| MemberMetadata {
        member_id: id.into(),
        group_instance_id: instance.map(str::to_owned),
        ..Default::default()
    };
    let value = |protocol: Option<&str>, members: Vec<MemberMetadata>| GroupMetadataValue {
        protocol_type: "consumer".into(),
        protocol: protocol.map(str::to_owned),
        members,
        ..Default::default()
    };
    for value in [
        value(None, vec![member("a", None)]),
        value(Some("range"), vec![member("a", None), member("a", None)]),
        value(Some("range"), vec![member("a", Some("i")), member("b", Some("i"))]),
    ] {
        let record = group_record("g", Some(&value), 0).unwrap();
        let error = World::new().machine.replay(&entry(Some(record.key), record.value)).unwrap_err();
        assert!(matches!(error, BadRecord::Impossible(_)), "{error}");
    }
    let mut world = World::new();
    assert!(world.machine.replay(&entry(None, None)).is_err());
    assert!(world.machine.replay(&entry(Some(Bytes::from_static(b"\x00\x63rest")), None)).is_err());
    assert!(world.machine.replay(&entry(Some(Bytes::from_static(b"\x00\x07rest")), None)).is_err());
}

#[test]
fn a_group_that_grew_beyond_the_limit_shrinks_when_it_is_loaded() {
    let mut world = World::new();
    let (ids, generation) = world.stable(3);
    let mut small = World::with(GroupConfig { members_max: 2, ..GroupConfig::default() });
    for entry in &world.log {
        small.machine.replay(entry).unwrap();
    }
    small.act(|machine, now, out| machine.loaded(now, out));
    assert_eq!(small.state(), Some(GroupState::PreparingRebalance));
    let waiters: Vec<_> = ids.iter().map(|id| small.join(joining(id))).collect();
    assert_eq!(small.join_error(waiters[2]), ErrorCode::GroupMaxSizeReached);
    assert_eq!(small.joined(waiters[0]).generation_id, generation + 1);
}
