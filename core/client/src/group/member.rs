//! A member of a group of the consumer protocol (KIP-848); pure: heartbeats and reconciliations come out, answers and
//! what was reconciled go in.
//!
//! The coordinator names the partitions that the member is to have. The member lets go what it is not to have any
//! more, takes what is new, and says so with the next heartbeat: nobody else is waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use towpath_types::TopicId;
use towpath_wire::ErrorCode;

use crate::backoff::Backoff;

/// Partitions, by the ids of their topics.
pub(super) type Partitions = BTreeSet<(TopicId, i32)>;

/// A heartbeat to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    /// 0 joins.
    pub(super) epoch: i32,
    /// Whether everything about the member is said again: at the start, and after an answer that did not come.
    pub(super) full: bool,
    /// What the member has, unless the coordinator knows.
    pub(super) owned: Option<Partitions>,
}

/// What a coordinator answered to a heartbeat.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) epoch: i32,
    pub(super) interval: Duration,
    /// What the member is to have, if that is new.
    pub(super) assignment: Option<Partitions>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Beat(Beat),
    /// Let go and take these; [`Member::reconciled`] when that is done.
    Reconcile {
        revoke: Partitions,
        assign: Partitions,
    },
}

/// What became of the membership.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    Member,
    /// The group has gone on without the member (R6): these partitions belong to others. It joins again.
    Lost(Partitions),
    /// It will never be one.
    Refused(ErrorCode),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    epoch: i32,
    owned: Partitions,
    target: Partitions,
    reconciling: bool,
    /// What the coordinator was told last of `owned`.
    told: Option<Partitions>,
    full: bool,
    in_flight: bool,
    due: Instant,
    interval: Duration,
    last_good: Instant,
    session_timeout: Duration,
    backoff: Backoff,
}

impl Member {
    /// One that joins at once.
    pub(super) fn new(now: Instant, session_timeout: Duration, backoff: Backoff) -> Self {
        Self {
            epoch: 0,
            owned: Partitions::new(),
            target: Partitions::new(),
            reconciling: false,
            told: None,
            full: true,
            in_flight: false,
            due: now,
            interval: Duration::from_secs(5),
            last_good: now,
            session_timeout,
            backoff,
        }
    }

    /// The member epoch; `None` until the member has joined.
    pub(super) fn epoch(&self) -> Option<i32> {
        (self.epoch > 0).then_some(self.epoch)
    }

    /// What is to be done now. Topics whose names are not `known` yet wait.
    pub(super) fn next(&mut self, now: Instant, known: impl Fn(TopicId) -> bool) -> Option<Step> {
        if !self.in_flight && self.due <= now {
            return Some(Step::Beat(self.beat()));
        }
        if self.reconciling {
            return None;
        }
        let wanted: Partitions = self.target.iter().filter(|(topic, _)| known(*topic)).copied().collect();
        if wanted == self.owned {
            return None;
        }
        self.reconciling = true;
        Some(Step::Reconcile { revoke: &self.owned - &wanted, assign: &wanted - &self.owned })
    }

    fn beat(&mut self) -> Beat {
        self.in_flight = true;
        let full = self.full || self.epoch == 0;
        let owned = (full || self.told.as_ref() != Some(&self.owned)).then(|| self.owned.clone());
        // Believed as soon as it is sent: without an answer everything is said again.
        self.told = Some(self.owned.clone());
        Beat { epoch: self.epoch, full, owned }
    }

    /// Topics that the member is to have partitions of, and whose names are not known.
    pub(super) fn unknown(&self, known: impl Fn(TopicId) -> bool) -> BTreeSet<TopicId> {
        self.target.iter().map(|(topic, _)| *topic).filter(|topic| !known(*topic)).collect()
    }

    /// When to look again, if nothing happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        (!self.in_flight).then_some(self.due)
    }

    /// A heartbeat was answered.
    pub(super) fn answered(&mut self, now: Instant, answer: Answer) {
        self.in_flight = false;
        self.full = false;
        self.backoff.reset();
        self.last_good = now;
        self.epoch = answer.epoch;
        self.interval = answer.interval;
        if let Some(assignment) = answer.assignment {
            self.target = assignment;
        }
        // What was reconciled since it was sent is said at once.
        self.due = if self.told.as_ref() == Some(&self.owned) { now + self.interval } else { now };
    }

    /// A heartbeat failed, or was not answered.
    pub(super) fn failed(&mut self, now: Instant, code: ErrorCode) -> Outcome {
        use ErrorCode as E;
        self.in_flight = false;
        self.full = true;
        match code {
            E::FencedMemberEpoch | E::UnknownMemberId => Outcome::Lost(self.rejoin(now)),
            code if code.is_retriable() => {
                // R6: without an answer for this long the group has gone on; whoever cannot ask must assume it.
                if self.epoch > 0 && now - self.last_good >= self.session_timeout {
                    return Outcome::Lost(self.rejoin(now));
                }
                self.due = now + self.backoff.next();
                Outcome::Member
            }
            code => Outcome::Refused(code),
        }
    }

    /// Joins anew; what the member had comes back.
    pub(super) fn rejoin(&mut self, now: Instant) -> Partitions {
        self.epoch = 0;
        self.full = true;
        self.told = None;
        self.target.clear();
        self.reconciling = false;
        self.in_flight = false;
        self.due = now;
        self.last_good = now;
        std::mem::take(&mut self.owned)
    }

    /// A reconciliation is done: the coordinator hears of it at once.
    pub(super) fn reconciled(&mut self, now: Instant, revoked: &Partitions, assigned: &Partitions) {
        if !self.reconciling {
            return;
        }
        self.reconciling = false;
        self.owned.retain(|partition| !revoked.contains(partition));
        self.owned.extend(assigned);
        if !self.in_flight {
            self.due = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn topic(number: u128) -> TopicId {
        TopicId::new(uuid::Uuid::from_u128(number))
    }

    fn parts(indexes: &[i32]) -> Partitions {
        indexes.iter().map(|index| (topic(1), *index)).collect()
    }

    fn member(now: Instant) -> Member {
        Member::new(now, Duration::from_secs(45), Backoff::new(100, 100))
    }

    fn answer(epoch: i32, assignment: Option<Partitions>) -> Answer {
        Answer { epoch, interval: Duration::from_secs(5), assignment }
    }

    fn beat(member: &mut Member, now: Instant) -> Beat {
        match member.next(now, |_| true) {
            Some(Step::Beat(beat)) => beat,
            other => panic!("{other:?} instead of a heartbeat"),
        }
    }

    #[test]
    fn a_member_joins_takes_what_it_is_given_and_says_so() {
        let now = Instant::now();
        let mut member = member(now);
        assert_eq!(beat(&mut member, now), Beat { epoch: 0, full: true, owned: Some(parts(&[])) });
        assert_eq!(member.next(now, |_| true), None, "one heartbeat at a time");
        member.answered(now, answer(3, Some(parts(&[0, 1]))));
        assert_eq!(member.epoch(), Some(3));
        let step = member.next(now, |_| true);
        assert_eq!(step, Some(Step::Reconcile { revoke: parts(&[]), assign: parts(&[0, 1]) }));
        member.reconciled(now, &parts(&[]), &parts(&[0, 1]));
        assert_eq!(beat(&mut member, now), Beat { epoch: 3, full: false, owned: Some(parts(&[0, 1])) });
        member.answered(now, answer(3, None));
        assert_eq!(member.next(now, |_| true), None);
        let later = now + Duration::from_secs(5);
        assert_eq!(beat(&mut member, later), Beat { epoch: 3, full: false, owned: None }, "nothing new");
    }

    #[test]
    fn heartbeats_go_on_while_partitions_are_let_go() {
        let now = Instant::now();
        let mut member = member(now);
        beat(&mut member, now);
        member.answered(now, answer(1, Some(parts(&[0, 1]))));
        member.next(now, |_| true);
        member.reconciled(now, &parts(&[]), &parts(&[0, 1]));
        beat(&mut member, now);
        member.answered(now, answer(1, Some(parts(&[0]))));
        let step = member.next(now, |_| true);
        assert_eq!(step, Some(Step::Reconcile { revoke: parts(&[1]), assign: parts(&[]) }));
        let later = now + Duration::from_secs(5);
        assert_eq!(beat(&mut member, later).owned, None, "not let go yet");
        member.answered(later, answer(1, None));
        member.reconciled(later, &parts(&[1]), &parts(&[]));
        assert_eq!(beat(&mut member, later).owned, Some(parts(&[0])), "said at once");
    }

    #[test]
    fn who_is_fenced_loses_everything_and_joins_again() {
        for code in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId] {
            let now = Instant::now();
            let mut member = member(now);
            beat(&mut member, now);
            member.answered(now, answer(1, Some(parts(&[0]))));
            member.next(now, |_| true);
            member.reconciled(now, &parts(&[]), &parts(&[0]));
            beat(&mut member, now);
            assert_eq!(member.failed(now, code), Outcome::Lost(parts(&[0])));
            assert_eq!(member.epoch(), None);
            assert_eq!(beat(&mut member, now), Beat { epoch: 0, full: true, owned: Some(parts(&[])) });
        }
    }

    #[test]
    fn after_a_lost_answer_everything_is_said_again() {
        let now = Instant::now();
        let mut member = member(now);
        beat(&mut member, now);
        member.answered(now, answer(2, None));
        let later = now + Duration::from_secs(5);
        assert!(!beat(&mut member, later).full);
        assert_eq!(member.failed(later, ErrorCode::NetworkException), Outcome::Member);
        assert_eq!(member.next(later, |_| true), None, "after the backoff");
        let again = beat(&mut member, later + Duration::from_secs(1));
        assert_eq!(again, Beat { epoch: 2, full: true, owned: Some(parts(&[])) });
        let silent = later + Duration::from_secs(50);
        assert_eq!(member.failed(silent, ErrorCode::NetworkException), Outcome::Lost(parts(&[])));
        beat(&mut member, silent);
        assert_eq!(
            member.failed(silent, ErrorCode::UnreleasedInstanceId),
            Outcome::Refused(ErrorCode::UnreleasedInstanceId)
        );
    }

    #[test]
    fn topics_without_a_known_name_wait() {
        let now = Instant::now();
        let mut member = member(now);
        beat(&mut member, now);
        let both: Partitions = [(topic(1), 0), (topic(2), 0)].into();
        member.answered(now, answer(1, Some(both)));
        let known = |id: TopicId| id == topic(1);
        assert_eq!(member.unknown(known), [topic(2)].into());
        let step = member.next(now, known);
        assert_eq!(step, Some(Step::Reconcile { revoke: parts(&[]), assign: parts(&[0]) }));
        member.reconciled(now, &parts(&[]), &parts(&[0]));
        beat(&mut member, now);
        member.answered(now, answer(1, None));
        assert_eq!(member.next(now, known), None);
        assert!(matches!(member.next(now, |_| true), Some(Step::Reconcile { .. })));
    }

    /// A coordinator that gives partitions to members as KIP-848 has it: one that a member has not let go yet is given
    /// to nobody else.
    #[test]
    fn whatever_happens_no_partition_has_two_owners_and_all_find_one() {
        for seed in 0..300 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let mut members: Vec<Member> = (0..3).map(|_| member(now)).collect();
            // What the coordinator believes: each member's epoch, and the partitions it may have.
            let mut given: Vec<Partitions> = vec![Partitions::new(); 3];
            let mut reconciling: Vec<Option<(Partitions, Partitions)>> = vec![None; 3];
            let mut target: Vec<Partitions> = vec![parts(&[0, 1]), parts(&[2, 3]), parts(&[4, 5])];
            for round in 0..400 {
                now += Duration::from_millis(500);
                if rng.random_ratio(1, 20) && round < 300 {
                    target.rotate_left(1);
                }
                for at in 0..3 {
                    if let Some((revoke, assign)) = reconciling[at].take_if(|_| rng.random()) {
                        members[at].reconciled(now, &revoke, &assign);
                    }
                    match members[at].next(now, |_| true) {
                        Some(Step::Reconcile { revoke, assign }) => reconciling[at] = Some((revoke, assign)),
                        Some(Step::Beat(beat)) => {
                            if rng.random_ratio(1, 30) && round < 300 {
                                members[at].failed(now, ErrorCode::UnknownMemberId);
                                (given[at], reconciling[at]) = (Partitions::new(), None);
                                continue;
                            }
                            if let Some(owned) = beat.owned {
                                given[at] =
                                    given[at].intersection(&target[at]).copied().collect::<Partitions>();
                                given[at].extend(owned);
                            }
                            let others: Partitions =
                                (0..3).filter(|o| *o != at).flat_map(|o| given[o].clone()).collect();
                            let assignment = &target[at] - &others;
                            given[at].extend(&assignment);
                            members[at].answered(now, answer(1, Some(assignment)));
                        }
                        None => {}
                    }
                }
                let all: Vec<_> = members.iter().flat_map(|member| &member.owned).collect();
                let once: BTreeSet<_> = all.iter().collect();
                assert_eq!(all.len(), once.len(), "seed {seed}, round {round}");
            }
            for (member, target) in members.iter().zip(&target) {
                assert_eq!(member.owned, *target, "seed {seed}");
            }
        }
    }
}
