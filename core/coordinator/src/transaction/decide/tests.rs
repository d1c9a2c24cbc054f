//! Every row of the matrix by which Kafka decides.

use std::sync::Arc;

use towpath_types::TopicPartition;

use super::*;

const MAX: i16 = i16::MAX;
const NOW_MS: i64 = 1_700_000_000_000;
const FRESH: ProducerId = ProducerId::new(900);

fn producer(id: i64, epoch: i16) -> TransactionalProducer {
    TransactionalProducer { id: ProducerId::new(id), epoch: ProducerEpoch::new(epoch) }
}

fn partitions() -> Partitions {
    [TopicPartition::new("t".parse().unwrap(), 0)].into_iter().collect()
}

/// An id of producer 7 with `epoch`.
fn stored(state: TransactionState, epoch: i16) -> Metadata {
    let mut metadata = Metadata::new(ProducerId::new(7), 60_000, NOW_MS - 9);
    metadata.producer.epoch = ProducerEpoch::new(epoch);
    metadata.previous_id = ProducerId::new(7);
    metadata.state = state;
    if state != TransactionState::Empty {
        metadata.started_ms = NOW_MS - 10;
    }
    if state == TransactionState::Ongoing || state.is_prepared() {
        metadata.partitions = Arc::new(partitions());
    }
    metadata
}

fn at(fresh_id: Option<ProducerId>) -> Moment {
    Moment { now_ms: NOW_MS, fresh_id }
}

fn written(decision: Decision) -> Metadata {
    match decision {
        Decision::Write(next) => next,
        other => panic!("{other:?}"),
    }
}

use ErrorCode::{
    ConcurrentTransactions as CT, InvalidProducerIdMapping as PIM, InvalidTxnState as ITS,
    ProducerFenced as PF,
};
use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};

/// What becomes of an EndTxn.
#[derive(Debug, PartialEq)]
enum Outcome {
    Error(ErrorCode),
    Done,
    To(TransactionState),
}

fn outcome(decision: Decision) -> Outcome {
    match decision {
        Decision::Refuse(error) => Outcome::Error(error),
        Decision::Done => Outcome::Done,
        Decision::Write(next) => Outcome::To(next.state),
        Decision::NeedsProducerId => panic!("there are epochs left"),
    }
}

#[test]
fn ends_of_version_two_are_decided_as_kafka_does() {
    use Outcome::{Done, Error, To};
    // State, what is asked for: with the epoch before, with the present one, with a later one.
    let rows = [
        (Ongoing, true, [Error(PF), To(PrepareCommit), Error(PF)]),
        (Ongoing, false, [Error(PF), To(PrepareAbort), Error(PF)]),
        (Empty, true, [Error(PF), Error(ITS), Error(PF)]),
        (Empty, false, [Error(PF), To(PrepareAbort), Error(PF)]),
        (PrepareCommit, true, [Error(CT), Error(PF), Error(PF)]),
        (PrepareCommit, false, [Error(ITS), Error(PF), Error(PF)]),
        (PrepareAbort, true, [Error(ITS), Error(PF), Error(PF)]),
        (PrepareAbort, false, [Error(CT), Error(PF), Error(PF)]),
        (CompleteCommit, true, [Done, Error(ITS), Error(PF)]),
        (CompleteCommit, false, [Error(ITS), To(PrepareAbort), Error(PF)]),
        (CompleteAbort, true, [Error(ITS), Error(ITS), Error(PF)]),
        (CompleteAbort, false, [Done, To(PrepareAbort), Error(PF)]),
    ];
    for (state, commit, outcomes) in rows {
        let mut metadata = stored(state, 5);
        metadata.version = ClientVersion::V2;
        for (epoch, expected) in [4, 5, 6].into_iter().zip(outcomes) {
            let decided = outcome(end_v2(&metadata, producer(7, epoch), commit, at(None)));
            assert_eq!(decided, expected, "{state:?}, commit {commit}, epoch {epoch}");
            let other = outcome(end_v2(&metadata, producer(8, epoch), commit, at(None)));
            assert_eq!(other, Error(PIM), "{state:?}, commit {commit}, epoch {epoch}");
        }
        let older = outcome(end_v2(&metadata, producer(7, 3), commit, at(None)));
        assert_eq!(older, Error(PF), "two epochs back is no retry");
    }
}

/// An older client has the id now, and has ended a transaction without raising the epoch.
#[test]
fn whoever_was_fenced_by_an_older_client_does_not_ask_again() {
    for (state, commit) in [(PrepareCommit, true), (CompleteCommit, true), (CompleteAbort, false)] {
        let decided = end_v2(&stored(state, 5), producer(7, 4), commit, at(None));
        assert_eq!(decided, Decision::Refuse(PF), "{state:?}");
    }
    let mut rotated = stored(CompleteAbort, 0);
    rotated.previous_id = ProducerId::new(6);
    assert_eq!(end_v2(&rotated, producer(6, MAX - 1), false, at(None)), Decision::Refuse(PIM));
}

#[test]
fn ends_of_version_zero_are_decided_as_kafka_does() {
    use Outcome::{Done, Error, To};
    let rows = [
        (Ongoing, To(PrepareCommit), To(PrepareAbort)),
        (Empty, Error(ITS), Error(ITS)),
        (PrepareCommit, Error(CT), Error(ITS)),
        (PrepareAbort, Error(ITS), Error(CT)),
        (CompleteCommit, Done, Error(ITS)),
        (CompleteAbort, Error(ITS), Done),
    ];
    for (state, committed, aborted) in rows {
        let metadata = stored(state, 5);
        let decide =
            |producer, commit, is_pending| outcome(end_v0(&metadata, producer, commit, is_pending, at(None)));
        assert_eq!(decide(producer(7, 5), true, false), committed, "{state:?}");
        assert_eq!(decide(producer(7, 5), false, false), aborted, "{state:?}");
        assert_eq!(decide(producer(7, 5), false, true), Error(CT), "{state:?}");
        for epoch in [4, 6] {
            assert_eq!(decide(producer(7, epoch), true, true), Error(PF), "before what is pending");
        }
        assert_eq!(decide(producer(8, 5), true, true), Error(PIM));
    }
}

#[test]
fn every_end_of_version_two_raises_the_epoch() {
    let begun = stored(Ongoing, 5);
    let prepared = written(end_v2(&begun, producer(7, 5), true, at(None)));
    assert_eq!((prepared.producer, prepared.last_epoch.get()), (producer(7, 6), 5));
    assert_eq!((prepared.started_ms, prepared.updated_ms), (begun.started_ms, NOW_MS));
    assert_eq!((&prepared.partitions, prepared.version), (&begun.partitions, ClientVersion::V2));
    let complete = prepared.completed(NOW_MS + 1);
    assert_eq!((complete.state, complete.producer), (CompleteCommit, producer(7, 6)));
    assert_eq!((complete.started_ms, complete.updated_ms), (begun.started_ms, NOW_MS + 1));
    assert!(complete.partitions.is_empty());
    // Nothing was begun: it ends all the same.
    let prepared = written(end_v2(&stored(Empty, 5), producer(7, 5), false, at(None)));
    assert_eq!((prepared.producer, prepared.started_ms), (producer(7, 6), NOW_MS));
    assert!(prepared.partitions.is_empty());
    assert_eq!(prepared.completed(NOW_MS).state, CompleteAbort);
    // And of the versions before none does.
    let prepared = written(end_v0(&begun, producer(7, 5), true, false, at(Some(FRESH))));
    assert_eq!((prepared.producer, prepared.next_id), (producer(7, 5), ProducerId::NONE));
    assert_eq!(prepared.completed(NOW_MS).producer, producer(7, 5));
}

#[test]
fn where_the_epochs_are_used_up_another_producer_id_follows() {
    let begun = stored(Ongoing, MAX - 1);
    assert_eq!(end_v2(&begun, producer(7, MAX - 1), true, at(None)), Decision::NeedsProducerId);
    let prepared = written(end_v2(&begun, producer(7, MAX - 1), true, at(Some(FRESH))));
    assert_eq!((prepared.producer, prepared.next_id), (producer(7, MAX), FRESH));
    let complete = prepared.completed(NOW_MS);
    assert_eq!(complete.producer, producer(FRESH.get(), 0));
    assert_eq!((complete.previous_id.get(), complete.next_id), (7, ProducerId::NONE));
    assert_eq!(complete.last_epoch.get(), MAX - 1);
    // Whoever did not hear of it asks again with the old id, and is told.
    assert_eq!(end_v2(&complete, producer(7, MAX - 1), true, at(None)), Decision::Done);
    assert_eq!(outcome(end_v2(&complete, producer(7, MAX - 1), false, at(None))), Outcome::Error(ITS));
    assert_eq!(outcome(end_v2(&complete, producer(7, MAX), true, at(None))), Outcome::Error(PIM));
    // InitProducerId, too (KIP-360).
    let again = initialize(&complete, Some(producer(7, MAX - 1)), 60_000, at(None));
    assert_eq!(written(again).producer, producer(FRESH.get(), 0));
    // With an abort of nothing, and on the way of fencing, the same.
    for decision in [
        end_v2(&stored(Empty, MAX - 1), producer(7, MAX - 1), false, at(Some(FRESH))),
        initialize(&begun, None, 60_000, at(Some(FRESH))),
        fence(&begun, at(Some(FRESH))),
    ] {
        let prepared = written(decision);
        assert_eq!((prepared.state, prepared.producer.epoch.get()), (PrepareAbort, MAX));
        assert_eq!(prepared.completed(NOW_MS).producer, producer(FRESH.get(), 0));
    }
    assert_eq!(initialize(&begun, None, 60_000, at(None)), Decision::NeedsProducerId);
    // What Kafka left behind before it was so: the last epoch of all, in the log.
    let stuck = stored(CompleteAbort, MAX);
    let taken = written(initialize(&stuck, None, 60_000, at(Some(FRESH))));
    assert_eq!(taken.producer, producer(FRESH.get(), 0));
    let fenced = written(fence(&stored(Ongoing, MAX), at(Some(FRESH))));
    assert_eq!((fenced.producer.epoch.get(), fenced.next_id), (MAX, FRESH), "it does not wrap");
}

#[test]
fn whoever_takes_an_id_gets_the_next_epoch() {
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let metadata = stored(state, 5);
        let taken = written(initialize(&metadata, None, 1_234, at(None)));
        assert_eq!((taken.state, taken.producer), (Empty, producer(7, 6)), "{state:?}");
        assert_eq!((taken.timeout_ms, taken.started_ms, taken.updated_ms), (1_234, -1, NOW_MS));
        assert_eq!(taken.last_epoch, ProducerEpoch::NONE);
        assert!(taken.partitions.is_empty());
        let fresh = written(initialize(&stored(state, MAX - 1), None, 1_234, at(Some(FRESH))));
        assert_eq!((fresh.producer, fresh.previous_id.get()), (producer(FRESH.get(), 0), 7));
    }
    let new = Metadata::new(FRESH, 60_000, NOW_MS);
    assert_eq!(written(initialize(&new, None, 60_000, at(None))).producer, producer(FRESH.get(), 0));
    for state in [PrepareCommit, PrepareAbort] {
        assert_eq!(initialize(&stored(state, 5), None, 60_000, at(None)), Decision::Refuse(CT));
    }
    // What is open is aborted, with an epoch that fences whoever began it.
    for version in [ClientVersion::V0, ClientVersion::V2] {
        let mut begun = stored(Ongoing, 5);
        begun.version = version;
        let fenced = written(initialize(&begun, None, 60_000, at(None)));
        assert_eq!((fenced.state, fenced.producer), (PrepareAbort, producer(7, 6)));
        assert_eq!((fenced.version, &fenced.partitions), (ClientVersion::V2, &begun.partitions));
    }
}

#[test]
fn a_producer_that_goes_on_after_an_error_is_known_by_id_and_epoch() {
    let metadata = stored(Empty, 5);
    let bumped = written(initialize(&metadata, Some(producer(7, 5)), 60_000, at(None)));
    assert_eq!((bumped.producer, bumped.last_epoch.get()), (producer(7, 6), 5));
    // It did not hear the answer.
    let again = written(initialize(&bumped, Some(producer(7, 5)), 60_000, at(None)));
    assert_eq!((again.producer, again.last_epoch.get()), (producer(7, 6), 5));
    // Somebody else has taken the id meanwhile.
    let taken = written(initialize(&bumped, None, 60_000, at(None)));
    for epoch in [5, 6] {
        let decision = initialize(&taken, Some(producer(7, epoch)), 60_000, at(None));
        assert_eq!(decision, Decision::Refuse(PF), "epoch {epoch}");
    }
    assert_eq!(initialize(&metadata, Some(producer(8, 5)), 60_000, at(None)), Decision::Refuse(PF));
    assert_eq!(initialize(&metadata, Some(producer(7, 4)), 60_000, at(None)), Decision::Refuse(PF));
    // An id that was forgotten begins anew, whatever its producer says.
    let new = Metadata::new(FRESH, 60_000, NOW_MS);
    let taken = written(initialize(&new, Some(producer(7, 4)), 60_000, at(None)));
    assert_eq!(taken.producer, producer(FRESH.get(), 0));
    // Of a used up id too: the last answer again, or the next id.
    let mut exhausted = stored(Empty, MAX - 1);
    exhausted.last_epoch = ProducerEpoch::new(MAX - 2);
    let again = written(initialize(&exhausted, Some(producer(7, MAX - 2)), 60_000, at(None)));
    assert_eq!(again.producer, producer(7, MAX - 1));
    let decision = initialize(&exhausted, Some(producer(7, MAX - 3)), 60_000, at(None));
    assert_eq!(decision, Decision::Refuse(PF));
    let rotated = written(initialize(&exhausted, Some(producer(7, MAX - 1)), 60_000, at(Some(FRESH))));
    assert_eq!((rotated.producer, rotated.last_epoch.get()), (producer(FRESH.get(), 0), MAX - 1));
    let again = written(initialize(&rotated, Some(producer(7, MAX - 1)), 60_000, at(None)));
    assert_eq!(again.producer, producer(FRESH.get(), 0));
    // With the previous id only when that is used up.
    assert_eq!(initialize(&rotated, Some(producer(7, 3)), 60_000, at(None)), Decision::Refuse(PF));
}

#[test]
fn the_first_partition_begins_a_transaction() {
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let begun = written(add_partitions(
            &stored(state, 5),
            producer(7, 5),
            &partitions(),
            ClientVersion::V2,
            NOW_MS,
        ));
        assert_eq!((begun.state, begun.started_ms), (Ongoing, NOW_MS), "{state:?}");
        assert_eq!((&*begun.partitions, begun.version), (&partitions(), ClientVersion::V2));
        assert_eq!(begun.producer, producer(7, 5));
    }
    let begun = stored(Ongoing, 5);
    let more: Partitions = [TopicPartition::new("u".parse().unwrap(), 1)].into_iter().collect();
    let add =
        |producer, added: &Partitions| add_partitions(&begun, producer, added, ClientVersion::V0, NOW_MS);
    let grown = written(add(producer(7, 5), &more));
    assert_eq!((grown.started_ms, grown.partitions.len()), (begun.started_ms, 2));
    assert_eq!(add(producer(7, 5), &partitions()), Decision::Done);
    assert_eq!(add(producer(8, 5), &more), Decision::Refuse(PIM));
    for epoch in [4, 6] {
        assert_eq!(add(producer(7, epoch), &more), Decision::Refuse(PF));
    }
    for state in [PrepareCommit, PrepareAbort] {
        let metadata = stored(state, 5);
        let decision = add_partitions(&metadata, producer(7, 5), &more, ClientVersion::V0, NOW_MS);
        assert_eq!(decision, Decision::Refuse(CT));
        assert_eq!(verify(&metadata, producer(7, 5)), Err(CT));
    }
    assert_eq!(verify(&begun, producer(7, 5)), Ok(()));
    assert_eq!(verify(&begun, producer(7, 4)), Err(PF));
    assert_eq!(verify(&begun, producer(8, 5)), Err(PIM));
}

#[test]
fn time_ends_what_is_open_and_forgets_what_is_not() {
    let begun = stored(Ongoing, 5);
    let due_ms = begun.started_ms + 60_000;
    assert!(!begun.is_timed_out(due_ms) && begun.is_timed_out(due_ms + 1));
    let endless = Metadata { timeout_ms: i32::MAX, ..begun.clone() };
    assert!(!endless.is_timed_out(i64::MAX));
    let skewed = Metadata { started_ms: i64::MAX - 5, ..begun };
    assert!(!skewed.is_timed_out(NOW_MS), "no overflow");
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let idle = stored(state, 5);
        assert!(!idle.is_timed_out(i64::MAX));
        assert!(idle.is_expired(idle.updated_ms + 100, 100) && !idle.is_expired(idle.updated_ms + 99, 100));
    }
    for state in [Ongoing, PrepareCommit, PrepareAbort] {
        assert!(!stored(state, 5).is_expired(i64::MAX, 100));
    }
}
