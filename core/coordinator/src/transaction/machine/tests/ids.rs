//! Who has an id.

use super::*;

#[test]
fn an_id_goes_from_one_producer_to_the_next() {
    let mut world = World::new();
    assert_eq!(world.machine.id("a"), None);
    assert_eq!(world.init("a"), Ok(producer(1_000, 0)));
    assert_eq!(world.init("a"), Ok(producer(1_000, 1)));
    assert_eq!(world.init("b"), Ok(producer(1_001, 0)));
    assert_eq!(world.machine.stats().ids, 2);
    let mut next = world.reloaded();
    assert_eq!(next.init("a"), Ok(producer(1_000, 2)));
    assert_eq!(next.machine.id("b"), Some((TransactionState::Empty, producer(1_001, 0))));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut world = World::new();
    assert_eq!(world.init(""), Err(ErrorCode::InvalidRequest));
    assert_eq!(world.init(&"x".repeat(32_768)), Err(ErrorCode::InvalidRequest));
    assert_eq!(world.init(&"x".repeat(32_767)), Ok(producer(1_000, 0)), "a key has room for this");
    for timeout_ms in [0, -1, 15 * 60 * 1_000 + 1] {
        let request = InitProducer { transactional_id: "a".into(), timeout_ms, expected: None };
        let waiter =
            world.ask(|machine, now, waiter, out| machine.init_producer_id(now, waiter, request, out));
        let reply = world.replies.remove(&waiter);
        assert_eq!(reply, Some(TransactionReply::Init(Err(ErrorCode::InvalidTransactionTimeout))));
    }
}

#[test]
fn while_somebody_takes_an_id_nobody_else_can() {
    let mut world = World::new();
    world.is_instant = false;
    let first = world.begin_init("a", None);
    let concurrent = Err(ErrorCode::ConcurrentTransactions);
    assert_eq!(world.init("a"), concurrent, "a producer id is on its way");
    assert_eq!(world.machine.id("a"), None, "nobody has it yet");
    assert_eq!(world.machine.describe("a").error_code, ErrorCode::TransactionalIdNotFound.code());
    world.give_id();
    assert_eq!(world.init("a"), concurrent, "the record is on its way");
    assert_eq!(world.add("a", producer(1_000, 0), partitions("t", [0])), ErrorCode::ConcurrentTransactions);
    assert_eq!(world.end("a", producer(1_000, 0), false, ClientVersion::V2), concurrent);
    assert_eq!(world.machine.waiters(), [first]);
    assert_eq!(world.replies.get(&first), None);
    world.finish_append(Ok(()));
    assert_eq!(world.replies[&first], TransactionReply::Init(Ok(producer(1_000, 0))));
    assert_eq!(world.machine.waiters(), []);
}

#[test]
fn without_a_producer_id_or_a_log_nobody_gets_an_id() {
    let mut world = World::new();
    world.is_instant = false;
    let waiter = world.begin_init("a", None);
    let token = world.asking.pop_front().unwrap();
    let error = ErrorCode::CoordinatorLoadInProgress;
    world.act(|machine, now, out| machine.producer_id(now, token, Err(error), out));
    assert_eq!(world.replies[&waiter], TransactionReply::Init(Err(error)));
    assert_eq!(world.machine.stats(), TransactionStats::default(), "nothing is left of it");
    let waiter = world.begin_init("a", None);
    world.give_id();
    world.finish_append(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.replies[&waiter], TransactionReply::Init(Err(ErrorCode::CoordinatorNotAvailable)));
    assert_eq!(world.machine.stats(), TransactionStats::default());
    world.is_instant = true;
    assert_eq!(world.init("a"), Ok(producer(1_001, 0)));
    world.is_instant = false;
    let waiter = world.begin_init("a", None);
    world.finish_append(Err(ErrorCode::NotCoordinator));
    assert_eq!(world.replies[&waiter], TransactionReply::Init(Err(ErrorCode::NotCoordinator)));
    assert_eq!(world.machine.id("a"), Some((TransactionState::Empty, producer(1_001, 0))), "as before");
}

#[test]
fn a_producer_goes_on_after_an_error() {
    let mut world = World::new();
    let first = world.init("a").unwrap();
    let bumped = world.init_as("a", Some(first)).unwrap();
    assert_eq!(bumped, producer(1_000, 1));
    assert_eq!(world.init_as("a", Some(first)), Ok(bumped), "it did not hear the answer");
    assert_eq!(world.init("a"), Ok(producer(1_000, 2)));
    assert_eq!(world.init_as("a", Some(bumped)), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.init_as("b", Some(producer(5, 5))), Ok(producer(1_001, 0)), "it was forgotten here");
}

#[test]
fn when_the_epochs_are_used_up_the_producer_id_changes() {
    let mut world = World::new();
    world.init("a").unwrap();
    for epoch in 1..i16::MAX {
        assert_eq!(world.init("a"), Ok(producer(1_000, epoch)));
    }
    assert_eq!(world.init("a"), Ok(producer(1_001, 0)), "the very last one is for fencing");
    assert_eq!(world.init_as("a", Some(producer(1_000, i16::MAX - 1))), Err(ErrorCode::ProducerFenced));
}

#[test]
fn whoever_takes_an_id_ends_what_is_open() {
    let mut world = World::new();
    let first = world.init("a").unwrap();
    assert_eq!(world.add("a", first, partitions("t", [0, 1])), ErrorCode::None);
    assert_eq!(world.init("a"), Err(ErrorCode::ConcurrentTransactions), "it is aborted first");
    assert_eq!(world.state("a"), TransactionState::PrepareAbort);
    assert_eq!(world.init("a"), Err(ErrorCode::ConcurrentTransactions));
    let (_, marker, to) = world.markers.front().cloned().unwrap();
    let fenced = producer(1_000, 1);
    assert_eq!((marker.producer, marker.commit, marker.bumps_epoch), (fenced, false, true));
    assert_eq!((marker.coordinator_epoch, to.len()), (COORDINATOR_EPOCH, 2));
    world.write_markers();
    assert_eq!(world.state("a"), TransactionState::CompleteAbort);
    assert_eq!(world.init("a"), Ok(producer(1_000, 2)));
    assert_eq!(world.add("a", first, partitions("t", [0])), ErrorCode::ProducerFenced);
    for commit in [true, false] {
        let ended = world.end("a", first, commit, ClientVersion::V2);
        assert_eq!(ended, Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn fencing_that_is_not_stored_changes_nothing() {
    let mut world = World::new();
    let first = world.init("a").unwrap();
    world.add("a", first, partitions("t", [0]));
    world.is_instant = false;
    let waiter = world.begin_init("a", None);
    world.finish_append(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.replies[&waiter], TransactionReply::Init(Err(ErrorCode::CoordinatorNotAvailable)));
    assert_eq!(world.machine.id("a"), Some((TransactionState::Ongoing, first)));
    world.is_instant = true;
    assert_eq!(world.init("a"), Err(ErrorCode::ConcurrentTransactions));
    world.write_markers();
    assert_eq!(world.init("a"), Ok(producer(1_000, 2)), "the epoch is raised once for it");
}

#[test]
fn ids_are_bounded() {
    let config = TransactionConfig { ids_max: 2, ..TransactionConfig::default() };
    let mut world = World::with_config(config);
    world.init("a").unwrap();
    world.init("b").unwrap();
    assert_eq!(world.init("c"), Err(ErrorCode::PolicyViolation));
    assert_eq!(world.init("a"), Ok(producer(1_000, 1)), "those that are there go on");
    let config = TransactionConfig { partition_bytes_max: 10_000, ..TransactionConfig::default() };
    let mut world = World::with_config(config);
    world.init(&"x".repeat(5_000)).unwrap();
    assert_eq!(world.init(&"y".repeat(5_000)), Err(ErrorCode::PolicyViolation));
    assert_eq!(world.machine.stats().bytes, 5_000 + ID_OVERHEAD);
}

#[test]
fn whoever_waits_is_answered_when_the_partition_goes() {
    let mut world = World::new();
    let a = world.init("a").unwrap();
    let b = world.init("b").unwrap();
    world.is_instant = false;
    let waiters = [
        world.begin_init("c", None),
        world.begin_add("a", a, partitions("t", [0]), ClientVersion::V0),
        world.begin_end("b", b, false, ClientVersion::V2),
    ];
    assert_eq!(world.machine.waiters(), waiters);
    world.act(|machine, _, out| machine.unload(ErrorCode::NotCoordinator, out));
    let error = ErrorCode::NotCoordinator;
    assert_eq!(world.replies[&waiters[0]], TransactionReply::Init(Err(error)));
    assert_eq!(world.replies[&waiters[1]], TransactionReply::Add(error));
    assert_eq!(world.replies[&waiters[2]], TransactionReply::End(Err(error)));
    assert_eq!(world.machine.stats(), TransactionStats::default());
    assert_eq!((world.machine.next_deadline_ms(), world.machine.waiters()), (None, vec![]));
    // What comes late means nothing.
    world.settle();
    assert_eq!(world.machine.stats(), TransactionStats::default());
}
