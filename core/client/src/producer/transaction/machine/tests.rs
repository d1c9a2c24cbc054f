use rand::{Rng, SeedableRng};
use towpath_types::{GroupId, Offset, TopicName};

use super::*;

const FIRST: Identity = (ProducerId::new(7), ProducerEpoch::new(0));
const SECOND: Identity = (ProducerId::new(7), ProducerEpoch::new(1));

struct World {
    machine: Machine,
    now: Instant,
}

fn one(code: ErrorCode) -> Answer {
    Answer::One(code, None)
}

impl World {
    /// One that has its identity, under the first or the second version.
    fn new(v2: bool) -> Self {
        let mut world =
            Self { machine: Machine::new("tx".into(), Backoff::new(100, 100)), now: Instant::now() };
        world.machine.learn(v2);
        let call = world.next(true);
        assert_eq!(call, Call::Init { identity: None });
        world.answer(&call, Answer::One(ErrorCode::None, Some(FIRST)));
        world
    }

    fn begin(&mut self) -> u64 {
        self.machine.begin().unwrap().unwrap()
    }

    fn next(&mut self, idle: bool) -> Call {
        self.machine.next(self.now, idle).expect("a call is due")
    }

    fn nothing(&mut self, idle: bool) {
        assert_eq!(self.machine.next(self.now, idle), None);
    }

    fn answer(&mut self, call: &Call, answer: Answer) -> bool {
        self.machine.answered(self.now, call, answer)
    }

    fn later(&mut self) {
        self.now += Duration::from_secs(1);
    }
}

fn group() -> Arc<ConsumerGroupMetadata> {
    Arc::new(ConsumerGroupMetadata::new(GroupId::new("g").unwrap()))
}

fn offsets() -> Offsets {
    let partition = TopicPartition::new(TopicName::new("in").unwrap(), 0);
    [(partition, CommittedOffset::from(Offset::new(5)))].into()
}

fn taken(call: &Call, code: ErrorCode) -> Answer {
    match call {
        Call::CommitOffsets { offsets, .. } => {
            Answer::Offsets(offsets.keys().map(|partition| (partition.clone(), code)).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_version_adds_partitions_and_groups_before_anything_is_sent() {
    let mut world = World::new(false);
    let number = world.begin();
    world.machine.touch(4);
    assert!(!world.machine.permits(4));
    let call = world.next(false);
    assert_eq!(call, Call::AddPartitions { identity: FIRST, queues: vec![4] });
    world.answer(&call, Answer::Queues(vec![(4, ErrorCode::None)]));
    assert!(world.machine.permits(4));
    world.machine.touch(4);
    world.nothing(true);
    let job = world.machine.add_offsets(group(), offsets()).unwrap();
    let call = world.next(true);
    assert!(matches!(call, Call::AddOffsets { .. }), "{call:?}");
    world.answer(&call, one(ErrorCode::None));
    assert!(world.machine.offsets_taken(number, job).is_none());
    let call = world.next(true);
    assert!(matches!(call, Call::CommitOffsets { v2: false, .. }), "{call:?}");
    world.answer(&call, taken(&call, ErrorCode::None));
    assert!(world.machine.offsets_taken(number, job).unwrap().is_ok());
    world.machine.end(number, true);
    world.nothing(false);
    let call = world.next(true);
    assert_eq!(call, Call::End { identity: FIRST, commit: true, v2: false });
    assert!(!world.answer(&call, one(ErrorCode::None)), "the epoch stays");
    assert_eq!(world.machine.outcome(number).unwrap().unwrap(), Ended::Committed);
    assert!(world.machine.writable().is_err(), "there is no transaction");
    assert_eq!(world.begin(), number + 1);
}

#[test]
fn the_second_version_sends_at_once_and_takes_the_next_epoch_from_the_end() {
    let mut world = World::new(true);
    let number = world.begin();
    world.machine.touch(4);
    assert!(world.machine.permits(4));
    world.nothing(false);
    world.machine.add_offsets(group(), offsets()).unwrap();
    let call = world.next(false);
    assert!(matches!(call, Call::CommitOffsets { v2: true, .. }), "{call:?}");
    world.answer(&call, taken(&call, ErrorCode::None));
    world.machine.end(number, true);
    let call = world.next(true);
    assert!(world.answer(&call, Answer::One(ErrorCode::None, Some(SECOND))), "sequences begin anew");
    assert_eq!(world.machine.identity(), Some(SECOND));
    assert!(world.machine.settled().unwrap().is_ok());
}

#[test]
fn a_transaction_that_touched_nothing_ends_without_a_word() {
    for (v2, commit) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut world = World::new(v2);
        let number = world.begin();
        world.machine.end(number, commit);
        world.nothing(true);
        let expected = if commit { Ended::Committed } else { Ended::Aborted };
        assert_eq!(world.machine.outcome(number).unwrap().unwrap(), expected);
    }
}

#[test]
fn what_is_concurrent_or_away_is_asked_again() {
    let mut world = World::new(false);
    let number = world.begin();
    world.machine.touch(1);
    let call = world.next(true);
    world.answer(&call, Answer::Queues(vec![(1, ErrorCode::ConcurrentTransactions)]));
    world.nothing(true);
    world.now += ADD_AGAIN_AFTER;
    let call = world.next(true);
    world.answer(&call, Answer::Queues(vec![(1, ErrorCode::None)]));
    world.machine.end(number, true);
    for answer in [
        one(ErrorCode::CoordinatorLoadInProgress),
        one(ErrorCode::NotCoordinator),
        one(ErrorCode::ConcurrentTransactions),
        Answer::Failed(ClientError::Disconnected { broker: "b".into(), reason: "gone".into() }),
    ] {
        let call = world.next(true);
        assert!(matches!(call, Call::End { commit: true, .. }));
        world.answer(&call, answer);
        assert!(world.machine.problem().is_some());
        world.later();
    }
    let call = world.next(true);
    world.answer(&call, one(ErrorCode::None));
    assert_eq!(world.machine.outcome(number).unwrap().unwrap(), Ended::Committed);
}

#[test]
fn who_is_fenced_is_fenced_for_good() {
    for code in [ErrorCode::ProducerFenced, ErrorCode::InvalidProducerEpoch] {
        let mut world = World::new(true);
        let number = world.begin();
        world.machine.touch(0);
        world.machine.end(number, true);
        let call = world.next(true);
        world.answer(&call, one(code));
        for error in [
            world.machine.outcome(number).unwrap().map(drop).unwrap_err(),
            world.machine.begin().unwrap().unwrap_err(),
            world.machine.writable().unwrap_err(),
        ] {
            assert!(matches!(error, ClientError::ProducerFenced { .. }) && error.is_fatal(), "{error}");
        }
        world.nothing(true);
    }
}

#[test]
fn a_failed_batch_makes_the_commit_an_abort() {
    let refused = ClientError::Broker {
        code: ErrorCode::MessageTooLarge,
        api: towpath_wire::ApiKey::Produce,
        broker: "b".into(),
        subject: "t-0".into(),
        message: None,
    };
    for v2 in [false, true] {
        let mut world = World::new(v2);
        let number = world.begin();
        world.machine.touch(0);
        if !v2 {
            let call = world.next(false);
            world.answer(&call, Answer::Queues(vec![(0, ErrorCode::None)]));
        }
        world.machine.end(number, true);
        world.machine.batch_failed(&refused, true);
        let error = world.machine.commit_failed(number).unwrap();
        assert!(error.is_abortable() && error.code() == Some(ErrorCode::MessageTooLarge), "{error}");
        assert!(world.machine.dropped().is_some());
        let call = world.next(true);
        assert_eq!(call, Call::End { identity: FIRST, commit: false, v2 });
        world.answer(&call, Answer::One(ErrorCode::None, v2.then_some(SECOND)));
        assert_eq!(world.machine.outcome(number).unwrap().unwrap(), Ended::Aborted);
        if !v2 {
            // A batch of this epoch may arrive yet.
            assert!(world.machine.begin().is_none());
            let call = world.next(true);
            assert_eq!(call, Call::Init { identity: Some(FIRST) });
            world.answer(&call, Answer::One(ErrorCode::None, Some(SECOND)));
        }
        assert_eq!(world.machine.identity(), Some(SECOND));
        world.begin();
    }
}

#[test]
fn a_group_that_has_gone_on_aborts_the_transaction() {
    for code in [ErrorCode::IllegalGeneration, ErrorCode::UnknownMemberId, ErrorCode::StaleMemberEpoch] {
        let mut world = World::new(true);
        let number = world.begin();
        let job = world.machine.add_offsets(group(), offsets()).unwrap();
        let call = world.next(true);
        world.answer(&call, taken(&call, code));
        let error = world.machine.offsets_taken(number, job).unwrap().unwrap_err();
        assert!(error.is_abortable() && error.code() == Some(code), "{error}");
        world.nothing(true);
        world.machine.end(number, false);
        assert!(matches!(world.next(true), Call::End { commit: false, .. }));
    }
}

#[test]
fn an_abortable_commit_is_aborted() {
    let mut world = World::new(true);
    let number = world.begin();
    world.machine.touch(0);
    world.machine.end(number, true);
    let call = world.next(true);
    world.answer(&call, one(ErrorCode::TransactionAbortable));
    assert!(world.machine.commit_failed(number).unwrap().is_abortable());
    assert!(matches!(world.next(true), Call::End { commit: false, .. }));
}

#[test]
fn a_partition_that_may_be_added_is_added_before_the_abort() {
    let mut world = World::new(false);
    let number = world.begin();
    world.machine.touch(3);
    let call = world.next(true);
    let gone = || ClientError::Disconnected { broker: "b".into(), reason: "gone".into() };
    world.answer(&call, Answer::Failed(gone()));
    world.machine.end(number, false);
    let call = world.next(true);
    assert!(matches!(call, Call::AddPartitions { .. }), "or a late one would begin it again: {call:?}");
    world.answer(&call, Answer::Queues(vec![(3, ErrorCode::None)]));
    assert!(matches!(world.next(true), Call::End { commit: false, .. }));
}

#[test]
fn an_expired_id_is_asked_for_anew() {
    let mut world = World::new(false);
    let number = world.begin();
    world.machine.touch(0);
    let call = world.next(true);
    world.answer(&call, Answer::Queues(vec![(0, ErrorCode::InvalidProducerIdMapping)]));
    assert!(world.machine.writable().unwrap_err().is_abortable());
    world.machine.end(number, false);
    let call = world.next(true);
    assert_eq!(call, Call::Init { identity: Some(FIRST) }, "there is nothing to end");
    let other = (ProducerId::new(9), ProducerEpoch::new(0));
    assert!(world.answer(&call, Answer::One(ErrorCode::None, Some(other))));
    world.begin();
}

#[test]
fn an_upgrade_counts_from_the_next_transaction_on() {
    let mut world = World::new(false);
    let number = world.begin();
    world.machine.touch(0);
    let call = world.next(true);
    world.answer(&call, Answer::Queues(vec![(0, ErrorCode::None)]));
    world.machine.learn(true);
    world.machine.end(number, true);
    let call = world.next(true);
    assert_eq!(call, Call::End { identity: FIRST, commit: true, v2: false });
    world.answer(&call, one(ErrorCode::None));
    assert_eq!(world.machine.outcome(number).unwrap().unwrap(), Ended::Committed);
    let call = world.next(true);
    assert_eq!(call, Call::Init { identity: Some(FIRST) });
    world.answer(&call, Answer::One(ErrorCode::None, Some(SECOND)));
    assert!(world.machine.is_v2());
}

/// A coordinator with the rules of Kafka's, as far as the producer sees them.
#[derive(Default)]
struct Coordinator {
    epoch: i16,
    ongoing: bool,
    /// How the transaction before the present epoch ended; what a repeated EndTxn is answered from.
    last: Option<bool>,
    committed: u32,
    aborted: u32,
}

impl Coordinator {
    fn identity(&self) -> Identity {
        (ProducerId::new(7), ProducerEpoch::new(self.epoch))
    }

    fn serve(&mut self, call: &Call, v2: bool) -> Answer {
        let epoch = |identity: &Identity| identity.1.get();
        match call {
            Call::Init { identity } => {
                assert!(!self.ongoing, "a transaction is aborted before its epoch is left");
                if identity.is_none_or(|identity| epoch(&identity) <= self.epoch) {
                    self.epoch += 1;
                }
                (self.ongoing, self.last) = (false, None);
                Answer::One(ErrorCode::None, Some(self.identity()))
            }
            Call::AddPartitions { identity, queues } => {
                assert!(!v2 && epoch(identity) == self.epoch);
                (self.ongoing, self.last) = (true, None);
                Answer::Queues(queues.iter().map(|queue| (*queue, ErrorCode::None)).collect())
            }
            Call::AddOffsets { identity, .. } => {
                assert!(!v2 && epoch(identity) == self.epoch);
                (self.ongoing, self.last) = (true, None);
                one(ErrorCode::None)
            }
            Call::CommitOffsets { identity, .. } => {
                assert!(epoch(identity) == self.epoch && (v2 || self.ongoing));
                self.ongoing = true;
                taken(call, ErrorCode::None)
            }
            Call::End { identity, commit, .. } => self.end(epoch(identity), *commit, v2),
        }
    }

    fn end(&mut self, epoch: i16, commit: bool, v2: bool) -> Answer {
        if v2 && epoch + 1 == self.epoch && self.last == Some(commit) {
            return Answer::One(ErrorCode::None, Some(self.identity()));
        }
        assert_eq!(epoch, self.epoch);
        if !self.ongoing {
            assert!(if v2 { !commit } else { self.last == Some(commit) }, "nothing is there to end");
        }
        if self.ongoing {
            *(if commit { &mut self.committed } else { &mut self.aborted }) += 1;
        }
        self.ongoing = false;
        self.last = Some(commit);
        self.epoch += i16::from(v2);
        Answer::One(ErrorCode::None, v2.then(|| self.identity()))
    }
}

#[test]
fn whatever_gets_lost_the_coordinator_agrees_how_transactions_end() {
    for seed in 0..2_000 {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let v2 = rng.random();
        let mut coordinator = Coordinator::default();
        let mut machine = Machine::new("tx".into(), Backoff::new(1, 1));
        machine.learn(v2);
        let mut now = Instant::now();
        let (mut open, mut begun, mut outcomes) = (None, 0, [0, 0]);
        for _ in 0..200 {
            now += Duration::from_millis(rng.random_range(0..3));
            match open {
                None => open = machine.begin().map(|begun| begun.unwrap()),
                Some(number) => match rng.random_range(0..6) {
                    0 if machine.writable().is_ok() => {
                        machine.touch(rng.random_range(0..3));
                        // The leader adds the partition when the batch arrives.
                        coordinator.ongoing |= v2;
                    }
                    1 => drop(machine.add_offsets(group(), offsets())),
                    2 => machine.end(number, rng.random_ratio(3, 4)),
                    3 if rng.random_ratio(1, 4) => machine.batch_failed(&ClientError::Closed, rng.random()),
                    _ => {}
                },
            }
            if let Some(call) = machine.next(now, rng.random()) {
                // A request or its answer gets lost.
                let lost = ClientError::Disconnected { broker: "b".into(), reason: "gone".into() };
                let answer = match rng.random_range(0..8) {
                    0 => Answer::Failed(lost),
                    1 => {
                        // Kafka's own client, too, may not ask for an epoch twice and not know: the second is higher.
                        drop(coordinator.serve(&call, v2));
                        Answer::Failed(lost)
                    }
                    _ => coordinator.serve(&call, v2),
                };
                machine.answered(now, &call, answer);
            }
            if let Some(ended) = open.and_then(|number| machine.outcome(number)) {
                let ended = ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                outcomes[usize::from(ended == Ended::Committed)] += 1;
                (open, begun) = (None, begun + 1);
            }
        }
        assert!(begun > 0 || open.is_some(), "seed {seed}");
        assert!(coordinator.committed <= outcomes[1] + 1, "seed {seed}");
        assert!(coordinator.aborted <= outcomes[0] + 1, "seed {seed}");
    }
}
