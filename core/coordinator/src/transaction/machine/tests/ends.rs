//! How transactions end.

use super::*;

const CT: ErrorCode = ErrorCode::ConcurrentTransactions;

#[test]
fn the_decision_is_stored_then_told_then_carried_out() {
    for (version, commit) in [
        (ClientVersion::V0, true),
        (ClientVersion::V0, false),
        (ClientVersion::V2, true),
        (ClientVersion::V2, false),
    ] {
        let mut world = World::new();
        let owner = world.init("a").unwrap();
        let waiter = world.begin_add("a", owner, partitions("t", [0, 1]), version);
        assert_eq!(world.replies[&waiter], TransactionReply::Add(ErrorCode::None));
        world.is_instant = false;
        let waiter = world.begin_end("a", owner, commit, version);
        assert_eq!((world.replies.get(&waiter), world.markers.len()), (None, 0));
        assert_eq!(world.end("a", owner, commit, version), Err(CT));
        world.finish_append(Ok(()));
        let bump = i16::from(version == ClientVersion::V2);
        let next = producer(1_000, bump);
        assert_eq!(world.replies[&waiter], TransactionReply::End(Ok(next)));
        let (token, marker, to) = world.markers.pop_front().unwrap();
        assert_eq!((marker.producer, marker.commit), (next, commit));
        assert_eq!(marker.bumps_epoch, version == ClientVersion::V2);
        assert_eq!(to, [partition("t", 0), partition("t", 1)]);
        // Until all markers are written, the id waits.
        for producer in [owner, next] {
            assert_eq!(world.init_as("a", Some(producer)), Err(CT));
            let added = world.begin_add("a", producer, partitions("t", [5]), version);
            assert_eq!(world.replies[&added], TransactionReply::Add(CT));
        }
        assert_eq!(world.end("a", next, !commit, ClientVersion::V2), Err(CT));
        world.act(|machine, now, out| machine.marker_written(now, token, &to[0], out));
        world.act(|machine, now, out| machine.marker_written(now, token, &to[0], out));
        assert!(world.appends.is_empty());
        assert_eq!(world.machine.describe("a").topics[0].partitions, [1], "what has no marker yet");
        world.act(|machine, now, out| machine.marker_written(now, token, &to[1], out));
        assert_eq!(world.init("a"), Err(CT), "the completion is on its way");
        world.finish_append(Ok(()));
        let complete =
            if commit { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort };
        assert_eq!(world.machine.id("a"), Some((complete, next)));
        // Whoever did not hear the answer is told again.
        assert_eq!(world.end("a", owner, commit, version), Ok(next));
        assert_eq!(world.end("a", owner, !commit, version), Err(ErrorCode::InvalidTxnState));
        assert_eq!(world.machine.stats().appends, 0);
        let reloaded = world.reloaded();
        assert_eq!((reloaded.machine.id("a"), reloaded.markers.len()), (Some((complete, next)), 0));
    }
}

#[test]
fn an_end_without_a_transaction_raises_the_epoch_only() {
    let mut world = World::new();
    let owner = world.init("a").unwrap();
    assert_eq!(world.end("a", owner, true, ClientVersion::V2), Err(ErrorCode::InvalidTxnState));
    assert_eq!(world.end("a", owner, false, ClientVersion::V0), Err(ErrorCode::InvalidTxnState));
    let records = world.log.len();
    assert_eq!(world.end("a", owner, false, ClientVersion::V2), Ok(producer(1_000, 1)));
    assert_eq!((world.state("a"), world.markers.len()), (TransactionState::CompleteAbort, 0));
    assert_eq!(world.log.len(), records + 2, "the decision and the completion");
    assert_eq!(world.end("a", owner, false, ClientVersion::V2), Ok(producer(1_000, 1)), "again");
    assert_eq!(world.end("a", producer(1_000, 1), false, ClientVersion::V2), Ok(producer(1_000, 2)));
    assert_eq!(world.end("", owner, false, ClientVersion::V2), Err(ErrorCode::InvalidRequest));
    let unknown = Err(ErrorCode::InvalidProducerIdMapping);
    assert_eq!(world.end("b", owner, false, ClientVersion::V2), unknown);
    assert_eq!(world.end("a", producer(4, 2), true, ClientVersion::V0), unknown);
}

#[test]
fn with_the_last_epoch_a_transaction_ends_into_another_producer_id() {
    let mut world = World::new();
    let mut owner = world.init("a").unwrap();
    for epoch in 1..i16::MAX {
        owner = world.end("a", owner, false, ClientVersion::V2).unwrap();
        assert_eq!(owner, producer(1_000, epoch));
    }
    world.add("a", owner, partitions("t", [0]));
    world.is_instant = false;
    let waiter = world.begin_end("a", owner, true, ClientVersion::V2);
    assert_eq!(world.asking.len(), 1);
    assert_eq!(world.end("a", owner, true, ClientVersion::V2), Err(CT));
    assert_eq!(world.machine.waiters(), [waiter]);
    world.give_id();
    world.finish_append(Ok(()));
    let next = producer(1_001, 0);
    assert_eq!(world.replies[&waiter], TransactionReply::End(Ok(next)));
    let marker = world.markers[0].1;
    assert_eq!(marker.producer, producer(1_000, i16::MAX), "the old one ends with the last epoch of all");
    // The producer uses the new id at once.
    assert_eq!(world.add("a", next, partitions("t", [1])), CT);
    assert_eq!(world.end("a", next, false, ClientVersion::V2), Err(CT));
    let mut other = world.reloaded();
    for world in [&mut world, &mut other] {
        world.is_instant = true;
        world.write_markers();
        assert_eq!(world.machine.id("a"), Some((TransactionState::CompleteCommit, next)));
        assert_eq!(world.end("a", owner, true, ClientVersion::V2), Ok(next), "it did not hear of it");
        assert_eq!(world.add("a", next, partitions("t", [1])), ErrorCode::None);
    }
    world.is_instant = false;
}

#[test]
fn without_another_producer_id_the_last_epoch_does_not_end() {
    let mut world = World::new();
    let mut owner = world.init("a").unwrap();
    for _ in 1..i16::MAX {
        owner = world.end("a", owner, false, ClientVersion::V2).unwrap();
    }
    world.add("a", owner, partitions("t", [0]));
    world.is_instant = false;
    let waiter = world.begin_end("a", owner, true, ClientVersion::V2);
    let token = world.asking.pop_front().unwrap();
    let error = ErrorCode::CoordinatorLoadInProgress;
    world.act(|machine, now, out| machine.producer_id(now, token, Err(error), out));
    assert_eq!(world.replies[&waiter], TransactionReply::End(Err(error)));
    assert_eq!(world.state("a"), TransactionState::Ongoing);
    // Nor by time, until there is one.
    world.pass(i64::from(TIMEOUT_MS) + 10_000);
    let token = world.asking.pop_front().unwrap();
    world.act(|machine, now, out| machine.producer_id(now, token, Err(error), out));
    world.is_instant = true;
    world.pass(10_000);
    assert_eq!(world.state("a"), TransactionState::PrepareAbort);
    world.write_markers();
    assert_eq!(world.machine.id("a"), Some((TransactionState::CompleteAbort, producer(1_001, 0))));
}

#[test]
fn a_decision_that_is_not_stored_is_none() {
    let mut world = World::new();
    let owner = world.init("a").unwrap();
    world.add("a", owner, partitions("t", [0]));
    world.is_instant = false;
    let waiter = world.begin_end("a", owner, true, ClientVersion::V2);
    world.finish_append(Err(ErrorCode::CoordinatorNotAvailable));
    let unavailable = TransactionReply::End(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.replies[&waiter], unavailable);
    assert_eq!((world.state("a"), world.markers.len()), (TransactionState::Ongoing, 0));
    world.is_instant = true;
    assert_eq!(world.end("a", owner, true, ClientVersion::V2), Ok(producer(1_000, 1)));
}

#[test]
fn a_completion_that_is_not_stored_is_stored_later() {
    let mut world = World::new();
    let owner = world.init("a").unwrap();
    world.add("a", owner, partitions("t", [0]));
    world.end("a", owner, true, ClientVersion::V2).unwrap();
    world.is_instant = false;
    world.write_markers();
    for error in
        [ErrorCode::CoordinatorNotAvailable, ErrorCode::NotCoordinator, ErrorCode::UnknownServerError]
    {
        world.finish_append(Err(error));
        assert_eq!(world.state("a"), TransactionState::PrepareCommit);
        assert_eq!(world.init("a"), Err(CT));
        assert!(world.appends.is_empty());
        world.pass(1_000);
        assert_eq!(world.appends.len(), 1);
    }
    world.finish_append(Ok(()));
    assert_eq!(world.state("a"), TransactionState::CompleteCommit);
    assert!(world.markers.is_empty(), "the markers are not sent again");
}

#[test]
fn whoever_loads_a_decision_sends_the_markers_again() {
    let mut world = World::new();
    for (id, commit) in [("a", true), ("b", false), ("c", true)] {
        let owner = world.init(id).unwrap();
        world.add(id, owner, partitions(id, [0, 1]));
        if id != "c" {
            world.end(id, owner, commit, ClientVersion::V2).unwrap();
        }
    }
    // One marker is written; the next coordinator does not know.
    let (token, _, to) = world.markers[0].clone();
    world.act(|machine, now, out| machine.marker_written(now, token, &to[0], out));
    let mut next = world.reloaded();
    let sent: Vec<_> = next.markers.iter().map(|(_, marker, to)| (marker.commit, to.len())).collect();
    assert_eq!(sent, [(true, 2), (false, 2)]);
    assert!(next.markers.iter().all(|(_, marker, _)| marker.coordinator_epoch == COORDINATOR_EPOCH + 1));
    assert_eq!(next.init("a"), Err(CT));
    next.write_markers();
    assert_eq!(next.state("a"), TransactionState::CompleteCommit);
    assert_eq!(next.state("b"), TransactionState::CompleteAbort);
    assert_eq!(next.state("c"), TransactionState::Ongoing);
    // What the old one hears means nothing to the new one.
    next.act(|machine, now, out| machine.marker_written(now, token, &to[1], out));
    assert_eq!(next.state("a"), TransactionState::CompleteCommit);
}

#[test]
fn a_transaction_that_has_had_its_time_is_aborted_and_its_producer_fenced() {
    for version in [ClientVersion::V0, ClientVersion::V2] {
        let mut world = World::new();
        let owner = world.init("a").unwrap();
        world.begin_add("a", owner, partitions("t", [0]), version);
        world.pass(i64::from(TIMEOUT_MS));
        assert_eq!(world.state("a"), TransactionState::Ongoing);
        // A partition more does not give it more time.
        world.begin_add("a", owner, partitions("t", [1]), version);
        world.pass(10_000);
        assert_eq!(world.state("a"), TransactionState::PrepareAbort);
        let (_, marker, to) = &world.markers[0];
        let fenced = producer(1_000, 1);
        assert_eq!((marker.producer, marker.commit, marker.bumps_epoch), (fenced, false, true));
        assert_eq!(to.len(), 2);
        world.write_markers();
        assert_eq!(world.machine.id("a"), Some((TransactionState::CompleteAbort, fenced)));
        assert_eq!(world.add("a", owner, partitions("t", [0])), ErrorCode::ProducerFenced);
        if version == ClientVersion::V0 {
            assert_eq!(world.end("a", owner, false, version), Err(ErrorCode::ProducerFenced));
        } else {
            // With the epoch before: as far as can be seen, somebody who did not hear the answer.
            assert_eq!(world.end("a", owner, false, version), Ok(fenced));
            assert_eq!(world.end("a", owner, true, version), Err(ErrorCode::InvalidTxnState));
        }
        assert_eq!(world.init_as("a", Some(owner)), Ok(fenced), "it may go on (KIP-588)");
    }
}

#[test]
fn an_abort_by_time_that_is_not_stored_comes_again() {
    let mut world = World::new();
    let owner = world.init("a").unwrap();
    world.add("a", owner, partitions("t", [0]));
    world.is_instant = false;
    world.pass(i64::from(TIMEOUT_MS) + 10_000);
    world.finish_append(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.machine.id("a"), Some((TransactionState::Ongoing, owner)));
    world.pass(10_000);
    world.finish_append(Ok(()));
    assert_eq!(world.machine.id("a"), Some((TransactionState::PrepareAbort, producer(1_000, 1))));
    // And what has ended by itself meanwhile is left alone.
    let mut world = World::new();
    let owner = world.init("a").unwrap();
    world.add("a", owner, partitions("t", [0]));
    world.pass(i64::from(TIMEOUT_MS) - 1_000);
    world.is_instant = false;
    let waiter = world.begin_end("a", owner, true, ClientVersion::V2);
    world.pass(20_000);
    world.finish_append(Ok(()));
    assert_eq!(world.replies[&waiter], TransactionReply::End(Ok(producer(1_000, 1))));
    assert_eq!((world.state("a"), world.appends.len()), (TransactionState::PrepareCommit, 0));
}
