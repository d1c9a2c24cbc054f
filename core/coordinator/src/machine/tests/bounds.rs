//! What groups hold is bounded, and what they write fits into batches of the topic.

use std::collections::BTreeMap;

use towpath_types::{TopicName, TopicPartition};
use towpath_wire::OffsetDeleteRequest;
use towpath_wire::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::*;

const TOPICS: i32 = 3;
const PARTITIONS: i32 = 5_000;
const BATCH_BYTES: usize = 50_000;

fn topic(number: i32) -> String {
    format!("topic-{number}")
}

fn many(metadata: &str, topics: i32, partitions: i32) -> OffsetCommitRequest {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 7,
        committed_metadata: Some(metadata.to_owned()),
        ..Default::default()
    };
    let topic = |number| OffsetCommitRequestTopic {
        name: topic(number),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    OffsetCommitRequest { topics: (0..topics).map(topic).collect(), ..committing("", -1, 0) }
}

/// A world whose group has fifteen thousand offsets, and whose topic takes small batches.
fn large() -> World {
    let mut world = World::new();
    let waiter = world.commit(&many("", TOPICS, PARTITIONS));
    assert_eq!(world.commit_error(waiter), ErrorCode::None);
    world.machine.set_batch_bytes_max(BATCH_BYTES);
    world.instant_log = false;
    world
}

/// How many offsets of each topic the group has.
fn counts(world: &World) -> BTreeMap<String, usize> {
    let request = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let response = world.machine.fetch_offsets(&request, false);
    response.topics.into_iter().map(|topic| (topic.name, topic.partitions.len())).collect()
}

/// What the log takes next, if it fits: `Err` is what the machine is told instead.
fn next(world: &mut World, result: Result<(), ErrorCode>) {
    let (token, appended) = world.appends.pop_front().expect("nothing is on its way");
    let Appended::Records(records, _) = &appended else { panic!("no records") };
    // As the record format has them: sizes, deltas and attributes take some bytes each.
    let bytes: usize = records.iter().map(|record| record.size_in_bytes() + 30).sum();
    assert!(bytes + 61 <= BATCH_BYTES && !records.is_empty(), "{bytes} bytes");
    if result.is_ok() {
        appended.write_to(&mut world.log);
    }
    world.act(|machine, now, out| machine.appended(now, token, result, out));
}

fn drain(world: &mut World) -> usize {
    let mut appends = 0;
    while !world.appends.is_empty() {
        next(world, Ok(()));
        appends += 1;
    }
    appends
}

fn delete_group(world: &mut World) -> Waiter {
    world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "g", out))
}

fn delete_offsets(world: &mut World, topics: i32) -> Waiter {
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let topic = |number| OffsetDeleteRequestTopic {
        name: topic(number),
        partitions: (0..PARTITIONS).map(partition).collect(),
    };
    let request = OffsetDeleteRequest { group_id: "g".into(), topics: (0..topics).map(topic).collect() };
    world.ask(|machine, now, waiter, out| machine.delete_offsets(now, waiter, &request, out))
}

fn offset_delete_error(world: &World, waiter: Waiter) -> ErrorCode {
    match world.replies.get(&waiter) {
        Some(Reply::OffsetDelete(response)) => ErrorCode::from_code(response.error_code),
        other => panic!("no answer to OffsetDelete, but {other:?}"),
    }
}

#[test]
fn tombstones_of_many_offsets_go_in_several_appends() {
    let mut world = large();
    let deletion = delete_group(&mut world);
    assert!(drain(&mut world) > 10);
    assert_eq!(world.replies[&deletion], Reply::DeleteGroup(ErrorCode::None));
    assert_eq!(world.machine.stats(), MachineStats::default());
    assert_eq!(world.restarted().machine.stats(), MachineStats::default());

    let mut world = large();
    let deletion = delete_offsets(&mut world, 2);
    assert!(!world.replies.contains_key(&deletion));
    assert!(drain(&mut world) > 10);
    assert_eq!(offset_delete_error(&world, deletion), ErrorCode::None);
    assert_eq!(counts(&world), [(topic(2), PARTITIONS as usize)].into());
    assert_eq!(counts(&world.restarted()), counts(&world));

    let mut world = large();
    let gone: Vec<TopicPartition> = (0..PARTITIONS)
        .map(|partition| TopicPartition::new(TopicName::new(&topic(1)).unwrap(), partition))
        .collect();
    world.act(|machine, now, out| machine.partitions_deleted(now, &gone, out));
    assert!(drain(&mut world) > 5);
    assert_eq!(counts(&world).len(), 2);
    assert_eq!(counts(&world.restarted()), counts(&world));

    let mut world = large();
    world.pass(8 * 24 * 60 * 60 * 1_000);
    assert!(drain(&mut world) > 10);
    assert_eq!(world.machine.stats(), MachineStats::default());
    assert_eq!(world.restarted().machine.stats(), MachineStats::default());
}

#[test]
fn a_part_of_a_groups_deletion_that_fails_leaves_the_group_with_the_rest() {
    for written in [0, 1, 7] {
        let mut world = large();
        let deletion = delete_group(&mut world);
        (0..written).for_each(|_| next(&mut world, Ok(())));
        // Nothing comes in between.
        let late = world.commit(&committing("", -1, 6));
        assert_eq!(world.commit_error(late), ErrorCode::CoordinatorNotAvailable);
        assert!(!world.replies.contains_key(&deletion));
        next(&mut world, Err(ErrorCode::CoordinatorNotAvailable));
        assert_eq!(world.replies[&deletion], Reply::DeleteGroup(ErrorCode::CoordinatorNotAvailable));
        assert!(world.appends.is_empty(), "what would follow is not written");
        assert_eq!(world.state(), Some(GroupState::Empty));
        let left: usize = counts(&world).values().sum();
        assert_eq!(left < (TOPICS * PARTITIONS) as usize, written > 0);
        assert_eq!(counts(&world.restarted()), counts(&world), "the log says the same");
        let commit = world.commit(&committing("", -1, 9));
        drain(&mut world);
        assert_eq!((world.commit_error(commit), world.fetch("orders", 0)), (ErrorCode::None, 9));
        let again = delete_group(&mut world);
        drain(&mut world);
        assert_eq!(world.replies[&again], Reply::DeleteGroup(ErrorCode::None));
        assert_eq!(world.restarted().machine.stats(), MachineStats::default());
    }
}

#[test]
fn a_part_of_a_deletion_of_offsets_that_fails_is_told_and_leaves_its_offsets() {
    let mut world = large();
    let deletion = delete_offsets(&mut world, TOPICS);
    // A commit that comes later is not taken away by a part that is written later.
    let mut renewed = many("", TOPICS, PARTITIONS);
    renewed
        .topics
        .iter_mut()
        .for_each(|topic| topic.partitions.retain(|it| it.partition_index >= PARTITIONS - 3));
    let commit = world.commit(&renewed);
    let parts = world.appends.len() - 1;
    for part in 0..parts {
        let result = if part == 4 { Err(ErrorCode::NotCoordinator) } else { Ok(()) };
        next(&mut world, result);
    }
    assert_eq!(offset_delete_error(&world, deletion), ErrorCode::NotCoordinator);
    let left: usize = counts(&world).values().sum();
    assert!(left > 100 && left < 2_000, "{left}");
    assert_eq!(counts(&world.restarted()), counts(&world));
    drain(&mut world);
    assert_eq!(world.commit_error(commit), ErrorCode::None);
    assert_eq!(world.fetch(&topic(2), PARTITIONS - 1), 7);
    assert_eq!(counts(&world.restarted()), counts(&world));
}

#[test]
fn a_deletion_that_nobody_ends_is_answered_once() {
    let mut world = large();
    let (offsets, group) = (delete_offsets(&mut world, 1), delete_group(&mut world));
    assert_eq!(world.machine.waiters(), [offsets, group]);
    next(&mut world, Ok(()));
    world.act(|machine, _, out| machine.unload(ErrorCode::NotCoordinator, out));
    assert_eq!(offset_delete_error(&world, offsets), ErrorCode::NotCoordinator);
    assert_eq!(world.replies[&group], Reply::DeleteGroup(ErrorCode::NotCoordinator));
}

#[test]
fn metadata_of_known_offsets_need_room_where_they_grow() {
    let config = GroupConfig { partition_bytes_max: 60_000, ..GroupConfig::default() };
    let mut world = World::with(config.clone());
    let commit = world.commit(&many("four", 1, 100));
    assert_eq!(world.commit_error(commit), ErrorCode::None);
    // R10: however often, and however many in one request.
    let long = "x".repeat(4_000);
    for _ in 0..3 {
        let commit = world.commit(&many(&long, 1, 100));
        let partitions = &world.committed(commit).topics[0].partitions;
        let errors: Vec<i16> = partitions.iter().map(|partition| partition.error_code).collect();
        assert!(errors.contains(&code(ErrorCode::InvalidCommitOffsetSize)), "{errors:?}");
        assert!(world.machine.stats().bytes <= config.partition_bytes_max, "{:?}", world.machine.stats());
    }
    // A group that asks for no more goes on, and with less there is room again.
    let commit = world.commit(&many("four", 1, 100));
    assert!(world.committed(commit).topics[0].partitions.iter().all(|it| it.error_code == 0));
    let commit = world.commit(&many("longer", 1, 100));
    assert!(world.committed(commit).topics[0].partitions.iter().all(|it| it.error_code == 0));
    assert_eq!(world.restarted().machine.stats().bytes, world.machine.stats().bytes);
    // Also while they are on their way to the log.
    let mut world = World::with(config.clone());
    world.instant_log = false;
    for _ in 0..5 {
        world.commit(&many(&long, 1, 100));
    }
    let bytes = world.machine.stats().bytes;
    assert!(bytes > 40_000 && bytes <= config.partition_bytes_max, "{bytes}");
    world.commit_appends();
    assert!(world.machine.stats().bytes <= config.partition_bytes_max);
}

#[test]
fn the_partitions_of_a_coordinator_share_one_bound() {
    let config = GroupConfig { coordinator_bytes_max: 100_000, ..GroupConfig::default() };
    let held = Arc::new(HeldBytes::default());
    let sharing = || {
        let mut world = World::with(config.clone());
        world.machine = GroupMachine::new(config.clone(), ids()).sharing(Arc::clone(&held));
        world.act(|machine, now, out| machine.loaded(now, out));
        world
    };
    let (mut first, mut second) = (sharing(), sharing());
    let long = "x".repeat(4_000);
    first.commit(&many(&long, 1, 50));
    assert!(held.get() > 90_000 && held.get() <= 100_000, "{}", held.get());
    assert_eq!(held.get(), first.machine.stats().bytes);
    let refused = second.commit(&many(&long, 1, 5));
    assert_eq!(second.commit_error(refused), ErrorCode::InvalidCommitOffsetSize);
    let small = second.commit(&many("", 1, 2));
    assert_eq!(second.commit_error(small), ErrorCode::None);
    assert_eq!(held.get(), first.machine.stats().bytes + second.machine.stats().bytes);
    // What goes makes room, by a deletion or with the partition.
    delete_group(&mut first);
    let commit = second.commit(&many(&long, 1, 20));
    assert!(second.committed(commit).topics[0].partitions.iter().all(|it| it.error_code == 0));
    first.commit(&many("", 1, 1));
    drop(second);
    assert_eq!(held.get(), first.machine.stats().bytes);
    first.act(|machine, _, out| machine.unload(ErrorCode::NotCoordinator, out));
    assert_eq!(held.get(), 0);
}
