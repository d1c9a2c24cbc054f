use super::*;
use crate::testing::Random;
use towpath_types::PartitionEpoch;

fn at(offset: i64) -> Offset {
    Offset::new(offset)
}

fn epoch(epoch: i32) -> LeaderEpoch {
    LeaderEpoch::new(epoch)
}

/// A log as far as replication is concerned: a record is its offset and its epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ModelLog {
    start: i64,
    records: Vec<i32>,
    /// Epochs and where they begin; also those without records.
    epochs: Vec<(i32, i64)>,
}

impl ModelLog {
    /// Records of these epochs from offset 0 on.
    fn of(records: &[i32]) -> Self {
        let mut log = Self::default();
        records.iter().for_each(|epoch| log.append(*epoch));
        log
    }

    fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    /// A leader's term begins.
    fn assign(&mut self, epoch: i32) {
        if self.epochs.last().is_none_or(|last| last.0 < epoch) {
            let end = self.end();
            self.epochs.retain(|(_, start)| *start < end);
            self.epochs.push((epoch, end));
        }
    }

    fn append(&mut self, epoch: i32) {
        self.assign(epoch);
        self.records.push(epoch);
    }

    fn truncate(&mut self, end: i64) {
        assert!(end >= self.start);
        self.records.truncate(usize::try_from(end - self.start).unwrap());
        let end = self.end();
        self.epochs.retain(|(_, start)| *start < end);
    }

    fn restart(&mut self, start: i64) {
        *self = Self { start, ..Self::default() };
    }

    /// The records before `start` are deleted.
    fn delete_before(&mut self, start: i64) {
        self.records.drain(..usize::try_from(start - self.start).unwrap());
        self.start = start;
        let covers = self.epochs.partition_point(|(_, begins)| *begins <= start);
        if let Some(index) = covers.checked_sub(1) {
            self.epochs.drain(..index);
            self.epochs[0].1 = start;
        }
    }

    fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.records.get(usize::try_from(offset - self.start).ok()?).copied()
    }

    /// How many records from the beginning both have, as offsets go.
    fn common_end(&self, other: &Self) -> i64 {
        let first = self.start.max(other.start);
        let last = self.end().min(other.end());
        (first..last)
            .find(|offset| self.epoch_at(*offset) != other.epoch_at(*offset))
            .unwrap_or(last.max(first))
    }

    /// What a leader with this log answers (rules 3, 4).
    fn answer(&self, plan: &FetchPlan) -> LeaderAnswer {
        let out = LeaderAnswer::OutOfRange { start: at(self.start), end: at(self.end()) };
        if plan.last_fetched_epoch >= epoch(0) {
            match self.end_of_epoch(plan.last_fetched_epoch) {
                Some((epoch, end)) if end >= at(self.start) => {
                    if epoch < plan.last_fetched_epoch || end < plan.offset {
                        return LeaderAnswer::Diverging { epoch, end };
                    }
                }
                _ => return out,
            }
        }
        if plan.offset < at(self.start) || plan.offset > at(self.end()) { out } else { LeaderAnswer::Records }
    }
}

impl History for ModelLog {
    fn log_start(&self) -> Offset {
        at(self.start)
    }

    fn log_end(&self) -> Offset {
        at(self.end())
    }

    fn latest_epoch(&self) -> LeaderEpoch {
        self.epochs.last().map_or(LeaderEpoch::NONE, |(last, _)| epoch(*last))
    }

    fn end_of_epoch(&self, requested: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        if requested < epoch(0) {
            return None;
        }
        if requested == self.latest_epoch() {
            return Some((requested, self.log_end()));
        }
        let higher = self.epochs.partition_point(|(known, _)| epoch(*known) <= requested);
        let next = self.epochs.get(higher)?;
        Some((higher.checked_sub(1).map_or(requested, |index| epoch(self.epochs[index].0)), at(next.1)))
    }
}

fn leadership(term: i32) -> Leadership {
    Leadership {
        leader: Some(BrokerId::new(1)),
        leader_epoch: epoch(term),
        partition_epoch: PartitionEpoch::new(term),
        replicas: vec![BrokerId::new(1), BrokerId::new(2)],
        isr: vec![BrokerId::new(1), BrokerId::new(2)],
        recovering: false,
        adding: Vec::new(),
    }
}

fn follower(term: i32) -> FollowerState {
    FollowerState::new(leadership(term), Rules::ALL)
}

/// One fetch of at most `limit` records; returns what was done.
fn round(state: &FollowerState, log: &mut ModelLog, leader: &ModelLog, limit: usize) -> Step {
    let plan = state.plan(log).unwrap();
    let step = state.answered(&plan, leader.answer(&plan), log);
    match step {
        Step::Append { epoch_max } => {
            let from = usize::try_from(plan.offset.get() - leader.start).unwrap();
            for record in leader.records.iter().skip(from).take(limit) {
                if epoch(*record) > epoch_max {
                    break;
                }
                log.append(*record);
            }
            // The leader's log start is taken over (rule 7).
            if leader.start > log.start {
                log.delete_before(leader.start.min(log.end()));
            }
        }
        Step::Truncate { to } => log.truncate(to.get()),
        Step::Restart { at } => log.restart(at.get()),
        Step::Discard => {}
    }
    step
}

/// Fetches until nothing is missing; returns the cuts.
fn follow(state: &FollowerState, log: &mut ModelLog, leader: &ModelLog) -> Vec<Step> {
    let mut cuts = Vec::new();
    for _ in 0..100 {
        let before = log.clone();
        let step = round(state, log, leader, 3);
        if !matches!(step, Step::Append { .. }) {
            cuts.push(step);
        } else if *log == before {
            assert_eq!(log.records, leader.records[usize::try_from(log.start - leader.start).unwrap()..]);
            return cuts;
        }
    }
    panic!("no end: {log:?} follows {leader:?}, {cuts:?}");
}

/// Rule 1.
#[test]
fn an_older_state_is_not_taken() {
    let mut state = follower(4);
    assert!(!state.follow(leadership(3)));
    let old = Leadership { leader_epoch: epoch(5), partition_epoch: PartitionEpoch::new(3), ..leadership(5) };
    assert!(!state.follow(old));
    assert_eq!(state.leadership().leader_epoch, epoch(4));
    assert!(state.follow(leadership(4)), "the same one is");
    assert!(state.follow(leadership(5)));
    let mut gullible = FollowerState::new(leadership(4), Rules::ALL.without(Rule::Epochs));
    assert!(gullible.follow(leadership(3)));
    assert_eq!(gullible.leadership().leader_epoch, epoch(3));
}

#[test]
fn a_fetch_says_where_the_log_ends_and_in_which_epoch() {
    let mut log = ModelLog::of(&[1, 1, 3]);
    log.delete_before(1);
    let plan = follower(4).plan(&log).unwrap();
    assert_eq!((plan.offset, plan.last_fetched_epoch, plan.log_start), (at(3), epoch(3), at(1)));
    assert_eq!((plan.leader, plan.leader_epoch), (BrokerId::new(1), epoch(4)));
    let nobody = Leadership { leader: None, ..leadership(5) };
    assert_eq!(FollowerState::new(nobody, Rules::ALL).plan(&log), None);
}

/// Rule 5.
#[test]
fn an_answer_to_a_fetch_of_the_past_is_dropped() {
    let log = ModelLog::of(&[1, 1, 1]);
    let mut state = follower(1);
    let plan = state.plan(&log).unwrap();
    let diverging = LeaderAnswer::Diverging { epoch: epoch(0), end: at(0) };
    let answers = [LeaderAnswer::Records, diverging, LeaderAnswer::OutOfRange { start: at(9), end: at(9) }];
    let mut cut = log.clone();
    cut.truncate(2);
    state.follow(leadership(2));
    let gullible = FollowerState::new(leadership(2), Rules::ALL.without(Rule::FollowerTruncation));
    for answer in answers {
        assert_eq!(state.answered(&plan, answer, &log), Step::Discard, "another leader's term: {answer:?}");
        assert_eq!(follower(1).answered(&plan, answer, &cut), Step::Discard, "another end: {answer:?}");
        assert_ne!(
            gullible.answered(&plan, answer, &cut),
            Step::Discard,
            "without the rule it has an effect"
        );
    }
}

/// KAFKA-18723: the leader may have gone on to another term while it read.
#[test]
fn records_of_an_epoch_after_the_fetchs_are_not_taken() {
    let log = ModelLog::of(&[1]);
    let plan = follower(2).plan(&log).unwrap();
    assert_eq!(
        follower(2).answered(&plan, LeaderAnswer::Records, &log),
        Step::Append { epoch_max: epoch(2) }
    );
    let mut behind = log;
    round(&follower(2), &mut behind, &ModelLog::of(&[1, 2, 2, 3]), 10);
    assert_eq!(behind.records, [1, 2, 2]);
    let gullible = FollowerState::new(leadership(2), Rules::ALL.without(Rule::FollowerTruncation));
    let mut behind = ModelLog::of(&[1]);
    round(&gullible, &mut behind, &ModelLog::of(&[1, 2, 2, 3]), 10);
    assert_eq!(behind.records, [1, 2, 2, 3]);
}

/// KIP-101, scenario 1: the follower restarts with an old high watermark, and its leader is gone. Nothing is cut by the
/// high watermark, so it leads with what it has.
#[test]
fn nothing_is_cut_before_the_leader_was_asked() {
    let mut log = ModelLog::of(&[0, 0]);
    let leader = ModelLog::of(&[0, 0]);
    assert_eq!(follow(&follower(0), &mut log, &leader), []);
    assert_eq!(log.records, [0, 0]);
}

/// KIP-101, scenario 2: both lost power; each wrote another record at the same offset.
#[test]
fn a_record_of_another_epoch_at_the_same_offset_is_replaced() {
    let mut leader = ModelLog::of(&[0]);
    leader.append(1);
    let mut log = ModelLog::of(&[0, 0]);
    assert_eq!(follow(&follower(1), &mut log, &leader), [Step::Truncate { to: at(1) }]);
    assert_eq!(log, leader);
}

/// KIP-279: after fast changes of leaders the epochs of the two logs alternate, and one round does not find out.
#[test]
fn a_truncation_goes_on_until_the_epochs_agree() {
    let mut leader = ModelLog::of(&[0, 0, 0, 2, 2]);
    leader.assign(4);
    let mut log = ModelLog::of(&[0, 0, 1, 1, 3]);
    let cuts = follow(&follower(4), &mut log, &leader);
    // The leader has nothing between 2 and 3; the follower nothing between 1 and 2: so it goes to its own end of 1, and
    // from there to the end of 0.
    assert_eq!(cuts, [Step::Truncate { to: at(4) }, Step::Truncate { to: at(2) }]);
    assert_eq!(log.records, leader.records);

    let mut careless = ModelLog::of(&[0, 0, 1, 1, 3]);
    let state = FollowerState::new(leadership(4), Rules::ALL.without(Rule::FollowerTruncation));
    let plan = state.plan(&careless).unwrap();
    // The leader's word alone: its end of epoch 2 is past the follower's.
    let step = state.answered(&plan, leader.answer(&plan), &careless);
    assert_eq!(step, Step::Truncate { to: at(5) }, "the follower's own epochs are not looked at");
    careless.truncate(5);
    assert_eq!(careless.records, [0, 0, 1, 1, 3], "the wrong ones stay");
}

#[test]
fn a_term_without_records_at_the_end_is_forgotten() {
    // The follower led in epoch 3, wrote nothing, and is a follower in epoch 4.
    let mut log = ModelLog::of(&[0, 0]);
    log.assign(3);
    let mut leader = ModelLog::of(&[0, 0]);
    leader.append(4);
    assert_eq!(follow(&follower(4), &mut log, &leader), [Step::Truncate { to: at(2) }]);
    assert_eq!(log.records, [0, 0, 4]);
}

#[test]
fn a_log_with_nothing_in_common_is_begun_anew_where_it_began() {
    let mut leader = ModelLog::of(&[0, 0, 5]);
    leader.assign(6);
    let mut log = ModelLog { start: 4, ..ModelLog::default() };
    log.append(2);
    log.append(2);
    // The leader's history up to 2 ends before the follower's log begins.
    let cuts = follow(&follower(6), &mut log, &leader);
    assert_eq!(cuts, [Step::Restart { at: at(4) }, Step::Restart { at: at(3) }]);
    assert_eq!((log.start, log.end()), (3, 3));
}

/// Rule 6.
#[test]
fn a_follower_out_of_range_goes_to_the_end_that_it_missed() {
    let answered = |state: &FollowerState, log: &ModelLog, start: i64, end: i64| {
        let answer = LeaderAnswer::OutOfRange { start: at(start), end: at(end) };
        state.answered(&state.plan(log).unwrap(), answer, log)
    };
    let mut log = ModelLog::of(&[1; 10]);
    log.delete_before(4);
    let state = follower(1);
    assert_eq!(answered(&state, &log, 0, 7), Step::Truncate { to: at(7) }, "after an unclean election");
    assert_eq!(answered(&state, &log, 0, 2), Step::Restart { at: at(2) });
    assert_eq!(answered(&state, &log, 20, 30), Step::Restart { at: at(20) }, "it was away for too long");
    assert_eq!(answered(&state, &log, 5, 12), Step::Discard, "the leader has come so far meanwhile");
    let gullible = FollowerState::new(leadership(1), Rules::ALL.without(Rule::OutOfRange));
    assert_eq!(answered(&gullible, &log, 0, 7), Step::Restart { at: at(10) }, "past the leader for ever");
}

/// Three replicas through random terms, of which any may win: what two of them hold at the end.
fn random_histories(random: &mut Random) -> (ModelLog, ModelLog, i32) {
    let mut logs = vec![ModelLog::default(); 3];
    let mut leader = 0;
    let terms = random.below(8) as i32 + 1;
    for term in 0..=terms {
        leader = random.below(3) as usize;
        logs[leader].assign(term);
        for _ in 0..random.below(4) {
            logs[leader].append(term);
        }
        if term < terms {
            let copied = logs[leader].clone();
            let other = (leader + 1 + random.below(2) as usize) % 3;
            let state = follower(term);
            for _ in 0..random.below(5) {
                round(&state, &mut logs[other], &copied, 2);
            }
        }
        if random.below(6) == 0 {
            let log = &mut logs[random.below(3) as usize];
            let end = log.end();
            let start = log.start + i64::from(random.below((end - log.start) as u32 + 1));
            log.delete_before(start);
        }
    }
    let other = (leader + 1 + random.below(2) as usize) % 3;
    (logs[leader].clone(), logs[other].clone(), terms)
}

#[test]
fn two_histories_end_as_one_after_finitely_many_rounds() {
    let mut cut = 0;
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let (leader, mut log, term) = random_histories(&mut random);
        let state = follower(term);
        let begun = log.clone();
        for rounds in 0.. {
            assert!(rounds < 60, "seed {seed}: no end: {begun:?} follows {leader:?}, now {log:?}");
            let before = log.clone();
            let step = round(&state, &mut log, &leader, random.below(3) as usize + 1);
            if let Step::Truncate { to } = step {
                let common = before.common_end(&leader);
                assert!(
                    to.get() >= common || common <= leader.start,
                    "seed {seed}: {to} is less than {common}, which both have: {before:?} follows {leader:?}"
                );
                cut += 1;
            }
            assert_ne!(step, Step::Discard, "seed {seed}: {before:?} follows {leader:?}");
            if log == before {
                break;
            }
        }
        assert_eq!(log.end(), leader.end(), "seed {seed}");
        let common = log.common_end(&leader);
        assert_eq!(common, leader.end().max(log.start), "seed {seed}: {log:?} follows {leader:?}");
    }
    assert!(cut > 2_000, "{cut} truncations only");
}
