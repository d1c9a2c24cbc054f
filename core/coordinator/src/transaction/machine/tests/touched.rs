//! What a transaction touches.

use super::*;

#[test]
fn partitions_are_in_the_log_before_anybody_may_write() {
    let mut world = World::new();
    let owner = world.init("a").unwrap();
    world.is_instant = false;
    let waiter = world.begin_add("a", owner, partitions("t", [0]), ClientVersion::V2);
    assert_eq!(world.replies.get(&waiter), None);
    let verify = |world: &World| {
        let touched = [partition("t", 0), partition("t", 1)];
        world.machine.verify_partitions("a", owner, touched.iter())
    };
    let abortable = ErrorCode::TransactionAbortable;
    assert_eq!(verify(&world), Ok(vec![abortable, abortable]), "not yet");
    world.finish_append(Ok(()));
    assert_eq!(world.replies[&waiter], TransactionReply::Add(ErrorCode::None));
    assert_eq!(verify(&world), Ok(vec![ErrorCode::None, abortable]));
    // What is there is there: nothing is written for it.
    assert_eq!(world.add("a", owner, partitions("t", [0])), ErrorCode::None);
    assert!(world.appends.is_empty());
    assert_eq!(world.reloaded().state("a"), TransactionState::Ongoing);
}

#[test]
fn only_the_producer_that_has_the_id_adds_and_verifies() {
    let mut world = World::new();
    let old = world.init("a").unwrap();
    let owner = world.init("a").unwrap();
    let touched = || partitions("t", [0]);
    let verify = |world: &World, id: &str, producer| {
        world.machine.verify_partitions(id, producer, [partition("t", 0)].iter())
    };
    let cases = [
        ("a", old, ErrorCode::ProducerFenced),
        ("a", producer(1_000, 2), ErrorCode::ProducerFenced),
        ("a", producer(1, 1), ErrorCode::InvalidProducerIdMapping),
        ("b", owner, ErrorCode::InvalidProducerIdMapping),
        ("", owner, ErrorCode::InvalidRequest),
    ];
    for (id, producer, error) in cases {
        assert_eq!(world.add(id, producer, touched()), error, "{id} {producer:?}");
        assert_eq!(verify(&world, id, producer), Err(error), "{id} {producer:?}");
    }
    assert_eq!(world.add("a", owner, touched()), ErrorCode::None);
    world.end("a", owner, true, ClientVersion::V2).unwrap();
    let next = producer(1_000, 2);
    assert_eq!(world.add("a", owner, touched()), ErrorCode::ConcurrentTransactions);
    assert_eq!(world.add("a", next, touched()), ErrorCode::ConcurrentTransactions);
    assert_eq!(verify(&world, "a", next), Err(ErrorCode::ConcurrentTransactions));
    world.write_markers();
    assert_eq!(world.add("a", owner, touched()), ErrorCode::ProducerFenced);
    assert_eq!(verify(&world, "a", next), Ok(vec![ErrorCode::TransactionAbortable]), "it is over");
    assert_eq!(world.add("a", next, touched()), ErrorCode::None);
}

#[test]
fn what_a_transaction_touches_is_bounded() {
    let config = TransactionConfig {
        partitions_max: 3,
        transaction_bytes_max: 100,
        partition_bytes_max: 1_250,
        ..TransactionConfig::default()
    };
    let mut world = World::with_config(config);
    let (a, b) = (world.init("a").unwrap(), world.init("b").unwrap());
    assert_eq!(world.add("a", a, partitions("t", 0..4)), ErrorCode::PolicyViolation);
    assert_eq!(world.state("a"), TransactionState::Empty);
    assert_eq!(world.add("a", a, partitions("t", 0..3)), ErrorCode::None);
    assert_eq!(world.add("a", a, partitions("t", [3])), ErrorCode::PolicyViolation);
    assert_eq!(world.add("b", b, partitions(&"t".repeat(100), [0])), ErrorCode::PolicyViolation, "too long");
    let many = |letter: &str| partitions(&letter.repeat(80), [0]);
    assert_eq!(world.add("b", b, many("u")), ErrorCode::None);
    assert_eq!(world.add("a", a, many("v")), ErrorCode::PolicyViolation);
    // All can end, whatever the bounds.
    for (id, owner) in [("a", a), ("b", b)] {
        world.end(id, owner, true, ClientVersion::V2).unwrap();
        world.write_markers();
    }
    assert_eq!(world.machine.stats().bytes, 2 * (1 + ID_OVERHEAD));
}

#[test]
fn what_is_on_its_way_is_counted() {
    let room = 2 * (1 + ID_OVERHEAD) + partitions("topic", 0..4).size_in_memory();
    let config = TransactionConfig { partition_bytes_max: room, ..TransactionConfig::default() };
    let mut world = World::with_config(config);
    let (a, b) = (world.init("a").unwrap(), world.init("b").unwrap());
    world.is_instant = false;
    let first = world.begin_add("a", a, partitions("topic", 0..4), ClientVersion::V2);
    assert_eq!(world.add("b", b, partitions("topic", 0..4)), ErrorCode::PolicyViolation);
    world.finish_append(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.replies[&first], TransactionReply::Add(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.machine.stats().bytes, 2 * (1 + ID_OVERHEAD));
    let second = world.begin_add("b", b, partitions("topic", 0..4), ClientVersion::V2);
    world.finish_append(Ok(()));
    assert_eq!(world.replies[&second], TransactionReply::Add(ErrorCode::None));
}
