//! A member of a share group (KIP-932) as its coordinator sees it; pure: heartbeats come out, answers go in.
//!
//! Several members have the same partitions, so that nothing is handed over: what the coordinator names counts at once.

use std::time::Duration;

use tokio::time::Instant;
use towpath_wire::ErrorCode;

use crate::backoff::Backoff;

/// A heartbeat to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    /// 0 joins.
    pub(super) epoch: i32,
    /// Whether the member says what it subscribes to: at the start, after a change, after an answer that did not come.
    pub(super) full: bool,
}

/// What became of the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    Member,
    /// The group has gone on without the member, which joins again.
    Lost,
    /// It will never be one.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    epoch: i32,
    full: bool,
    /// Said again when what is on its way is answered: the subscription has changed meanwhile.
    changed: bool,
    in_flight: bool,
    due: Instant,
    backoff: Backoff,
}

impl Member {
    /// One that joins at once.
    pub(super) fn new(now: Instant, backoff: Backoff) -> Self {
        Self { epoch: 0, full: true, changed: false, in_flight: false, due: now, backoff }
    }

    /// Whether the coordinator knows it.
    pub(super) const fn has_joined(&self) -> bool {
        self.epoch > 0
    }

    /// The heartbeat to send now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Beat> {
        if self.in_flight || self.due > now {
            return None;
        }
        self.in_flight = true;
        self.changed = false;
        Some(Beat { epoch: self.epoch, full: self.full || self.epoch == 0 })
    }

    /// When to look again, if nothing happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        (!self.in_flight).then_some(self.due)
    }

    /// The subscription is another one.
    pub(super) fn subscribed(&mut self, now: Instant) {
        self.full = true;
        self.changed = true;
        if !self.in_flight {
            self.due = now;
        }
    }

    /// A heartbeat was answered; the next one is due after `interval`.
    pub(super) fn answered(&mut self, now: Instant, epoch: i32, interval: Duration) {
        self.in_flight = false;
        self.backoff.reset();
        self.epoch = epoch;
        self.full = self.changed;
        self.due = if self.changed { now } else { now + interval };
    }

    /// A heartbeat failed, or was not answered.
    pub(super) fn failed(&mut self, now: Instant, code: ErrorCode) -> Outcome {
        self.in_flight = false;
        self.full = true;
        match code {
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId => {
                self.epoch = 0;
                // Who is not known although it only joins is not heard sooner for asking at once.
                self.due = now + self.backoff.next();
                Outcome::Lost
            }
            code if code.is_retriable() => {
                self.due = now + self.backoff.next();
                Outcome::Member
            }
            _ => Outcome::Refused,
        }
    }

    /// It has left, or is about to: when it comes back it joins.
    pub(super) fn rejoin(&mut self, now: Instant) {
        self.epoch = 0;
        self.full = true;
        self.in_flight = false;
        self.due = now;
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn member(now: Instant) -> Member {
        Member::new(now, Backoff::new(100, 100))
    }

    #[test]
    fn a_member_joins_says_what_it_wants_and_then_only_that_it_is_there() {
        let now = Instant::now();
        let mut member = member(now);
        assert_eq!(member.next(now), Some(Beat { epoch: 0, full: true }));
        assert_eq!((member.next(now), member.wake_at()), (None, None), "one heartbeat at a time");
        member.answered(now, 3, INTERVAL);
        assert!(member.has_joined());
        assert_eq!((member.next(now), member.wake_at()), (None, Some(now + INTERVAL)));
        let later = now + INTERVAL;
        assert_eq!(member.next(later), Some(Beat { epoch: 3, full: false }));
        // Another subscription while the heartbeat is on its way is said right afterwards.
        member.subscribed(later);
        assert_eq!(member.next(later), None);
        member.answered(later, 3, INTERVAL);
        assert_eq!(member.next(later), Some(Beat { epoch: 3, full: true }));
        member.answered(later, 4, INTERVAL);
        member.subscribed(later);
        assert_eq!(member.next(later), Some(Beat { epoch: 4, full: true }));
    }

    #[test]
    fn who_is_fenced_joins_again_and_who_is_refused_does_not() {
        let now = Instant::now();
        for code in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId] {
            let mut member = member(now);
            member.next(now);
            member.answered(now, 2, INTERVAL);
            member.next(now + INTERVAL);
            assert_eq!(member.failed(now + INTERVAL, code), Outcome::Lost);
            assert!(!member.has_joined());
            let again = member.next(now + 2 * INTERVAL);
            assert_eq!(again, Some(Beat { epoch: 0, full: true }));
            assert_eq!(member.failed(now, ErrorCode::GroupAuthorizationFailed), Outcome::Refused);
        }
    }

    /// A coordinator that loses answers, forgets members and is not there for a while: in the end it knows the member
    /// and its newest subscription.
    #[test]
    fn whatever_is_lost_the_newest_subscription_arrives() {
        for seed in 0..1_000 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let mut member = member(now);
            let (mut wanted, mut known, mut epoch) = (0, None, 0);
            for round in 0..300 {
                now += Duration::from_millis(1_000);
                let calm = round > 200;
                if !calm && rng.random_ratio(1, 10) {
                    wanted += 1;
                    member.subscribed(now);
                }
                let Some(beat) = member.next(now) else { continue };
                // What the request says was put together when it was sent.
                let said = wanted;
                if !calm && rng.random_ratio(1, 5) {
                    wanted += 1;
                    member.subscribed(now);
                }
                if beat.epoch == 0 {
                    epoch += 1;
                    known = None;
                } else if beat.epoch != epoch {
                    assert_eq!(member.failed(now, ErrorCode::FencedMemberEpoch), Outcome::Lost);
                    continue;
                }
                match rng.random_range(0..10) {
                    0 if !calm => {
                        member.failed(now, ErrorCode::CoordinatorNotAvailable);
                        continue;
                    }
                    1 if !calm => {
                        epoch += 1;
                        member.failed(now, ErrorCode::UnknownMemberId);
                        continue;
                    }
                    _ => {}
                }
                if beat.full {
                    known = Some(said);
                }
                if !calm && rng.random_ratio(1, 10) {
                    assert_eq!(member.failed(now, ErrorCode::NetworkException), Outcome::Member);
                } else {
                    member.answered(now, epoch, INTERVAL);
                }
            }
            assert_eq!(known, Some(wanted), "seed {seed}");
            assert!(member.has_joined());
        }
    }
}
