//! What leaders answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use towpath_wire::{ApiKey, ErrorCode};

use super::{Place, Places, Sent, State, TRY_AGAIN_AFTER, Told, ToldPartition};
use crate::ClientError;
use crate::error::code_wants_metadata;
use crate::share::fetched::{Fetched, acquired};
use crate::share::lease::{Answer, Leases};

/// How long a lock lasts for a broker that does not tell.
const LOCK_UNTOLD: Duration = Duration::from_secs(3600);

/// The epoch after `epoch`.
const fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

/// Who answers.
pub(in crate::share) struct Source<'a> {
    pub(in crate::share) node: i32,
    pub(in crate::share) broker: &'a Arc<str>,
    pub(in crate::share) now: Instant,
}

impl Source<'_> {
    fn error(&self, code: ErrorCode, api: ApiKey, subject: &str, message: Option<String>) -> ClientError {
        let (broker, message) = (Arc::clone(self.broker), message.map(String::into_boxed_str));
        ClientError::Broker { code, api, broker, subject: subject.into(), message }
    }
}

impl State {
    /// A leader has answered; whether leaders may have changed.
    pub(in crate::share) fn answered(&mut self, from: &Source<'_>, told: Told) -> bool {
        let Some(node) = self.nodes.get_mut(&from.node) else { return false };
        let Some(sent) = node.sent.take() else { return false };
        let api = if sent.is_fetch { ApiKey::ShareFetch } else { ApiKey::ShareAcknowledge };
        let code = ErrorCode::from_code(told.code);
        if code != ErrorCode::None {
            let error = from.error(code, api, "the share session", told.message);
            return self.refused(from, error);
        }
        node.backoff.reset();
        node.not_before = None;
        node.epoch = if sent.ends { 0 } else { next_epoch(node.epoch) };
        node.places = if sent.ends { Places::new() } else { sent.places.clone() };
        let lock = u64::try_from(told.lock_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        let lock = lock.unwrap_or(LOCK_UNTOLD);
        let mut moved = false;
        let mut silent = sent.said.clone();
        for partition in told.partitions {
            let place = partition.place;
            if let Some(is_said) = silent.remove(&place) {
                moved |= self.acknowledged(from, api, &partition, is_said, lock);
            }
            if sent.is_fetch {
                moved |= self.fetched(from, &sent, partition, lock);
            }
        }
        for (place, is_said) in silent {
            let problem = "it leaves out what became of acknowledgements";
            let error = ClientError::Malformed { broker: Arc::clone(from.broker), api, problem };
            self.settle(from, place, is_said, Answer::Failed, || error);
        }
        if sent.ends {
            self.lose_node(from.node, &ClientError::Closed);
        }
        moved
    }

    /// A request as a whole was refused. The session begins anew.
    fn refused(&mut self, from: &Source<'_>, error: ClientError) -> bool {
        let code = error.code().unwrap_or(ErrorCode::UnknownServerError);
        let is_session =
            matches!(code, ErrorCode::ShareSessionNotFound | ErrorCode::InvalidShareSessionEpoch);
        self.broken(from.node, from.now, &error);
        if let Some(node) = self.nodes.get_mut(&from.node) {
            if is_session {
                // The next request begins another one.
                node.not_before = None;
            } else if !error.is_retriable() && code != ErrorCode::ShareSessionLimitReached {
                node.not_before = Some(from.now + TRY_AGAIN_AFTER);
                self.error = Some(error);
            }
        }
        code_wants_metadata(code)
    }

    /// The session with a leader has ended: what it had given out is no longer this member's.
    pub(in crate::share) fn broken(&mut self, id: i32, now: Instant, error: &ClientError) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.sent = None;
            node.epoch = 0;
            node.places.clear();
            node.buffered.clear();
            node.not_before = Some(now + node.backoff.next());
        }
        self.lose_node(id, error);
    }

    fn lose_node(&mut self, id: i32, error: &ClientError) {
        let mut lost = Vec::new();
        self.leases.retain(|_, (key, leases)| {
            lost.push((Arc::clone(key), leases.lose_node(id)));
            !leases.is_empty()
        });
        for (key, lost) in lost {
            self.lost(&key, lost, || error.clone());
        }
    }

    /// Takes what became of a partition's acknowledgements; whether its leader may have changed.
    fn acknowledged(
        &mut self,
        from: &Source<'_>,
        api: ApiKey,
        told: &ToldPartition,
        is_said: bool,
        lock: Duration,
    ) -> bool {
        let code = ErrorCode::from_code(told.said_code);
        let is_gone = code_wants_metadata(code);
        let answer = match code {
            ErrorCode::None => Answer::Stored(lock),
            // Whoever leads the partition knows nothing of what this one has given out.
            _ if is_gone => Answer::Failed,
            code if code.is_retriable() => Answer::Retry(from.now + self.settings.patience),
            _ => Answer::Failed,
        };
        let subject = self.leases.get(&told.place).map(|(key, _)| key.to_string()).unwrap_or_default();
        let error = || from.error(code, api, &subject, told.message.clone());
        let outcome = self.settle(from, told.place, is_said, answer, error);
        if let (Answer::Retry(_), Some(node)) = (outcome, self.nodes.get_mut(&from.node)) {
            node.not_before = Some(from.now + node.backoff.next());
        }
        if is_gone && let Some((key, leases)) = self.leases.get_mut(&told.place) {
            let (key, lost) = (Arc::clone(key), leases.lose_node(from.node));
            self.lost(&key, lost, error);
            self.leader_told(told, code);
        }
        is_gone
    }

    fn settle(
        &mut self,
        from: &Source<'_>,
        place: Place,
        is_said: bool,
        answer: Answer,
        error: impl FnOnce() -> ClientError,
    ) -> Answer {
        let Some((key, leases)) = self.leases.get_mut(&place) else { return Answer::Failed };
        let (key, outcome) = (Arc::clone(key), leases.answered(from.node, from.now, answer));
        match outcome {
            _ if !is_said => {}
            Answer::Stored(_) => self.settled(&key, Ok(())),
            Answer::Retry(_) => {}
            Answer::Failed => self.settled(&key, Err(error())),
        }
        outcome
    }

    /// Takes what a fetch brought of a partition; whether its leader may have changed.
    fn fetched(&mut self, from: &Source<'_>, sent: &Sent, told: ToldPartition, lock: Duration) -> bool {
        let code = ErrorCode::from_code(told.code);
        let place = told.place;
        if code == ErrorCode::None {
            self.records(from, sent, told, lock);
            return false;
        }
        let wants_metadata = code_wants_metadata(code);
        let knows_better = self.leader_told(&told, code);
        let Some(assigned) = self.assigned.get_mut(&place) else { return wants_metadata };
        if knows_better {
            assigned.retry_at = None;
            return wants_metadata;
        }
        let error = from.error(code, ApiKey::ShareFetch, &assigned.key.to_string(), told.message);
        assigned.retry_at = Some(from.now + assigned.backoff.next());
        if error.is_retriable() || wants_metadata {
            tracing::debug!(%error, "share partition not fetched");
        } else {
            assigned.retry_at = Some(from.now + TRY_AGAIN_AFTER);
            assigned.error = Some(error);
        }
        wants_metadata
    }

    /// Takes who leads a partition now; whether that is news.
    fn leader_told(&mut self, told: &ToldPartition, code: ErrorCode) -> bool {
        if !matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch) {
            return false;
        }
        let Some((node, epoch)) = told.leader.filter(|(node, _)| *node >= 0) else { return false };
        let Some(assigned) = self.assigned.get_mut(&told.place) else { return false };
        let known = assigned.told.into_iter().chain(assigned.leader).map(|(_, epoch)| epoch).max();
        let is_news = known.is_none_or(|known| known < epoch);
        if is_news {
            assigned.told = Some((node, epoch));
        }
        is_news
    }

    fn records(&mut self, from: &Source<'_>, sent: &Sent, told: ToldPartition, lock: Duration) {
        let place = told.place;
        if let Some(assigned) = self.assigned.get_mut(&place) {
            assigned.backoff.reset();
            assigned.retry_at = None;
        }
        let Some(key) = sent.places.get(&place).map(Arc::clone) else { return };
        if told.acquired.is_empty() {
            return;
        }
        let Some(ranges) = acquired(&told.acquired) else {
            let problem = "the records that it gives out contradict each other";
            let (broker, api) = (Arc::clone(from.broker), ApiKey::ShareFetch);
            self.error = Some(ClientError::Malformed { broker, api, problem });
            return;
        };
        // Whoever is no longer to have the partition gives back what still came.
        let is_wanted = self.assigned.contains_key(&place) && !self.is_closing;
        let until = from.now + lock;
        let (_, leases) = self.leases.entry(place).or_insert_with(|| (Arc::clone(&key), Leases::default()));
        for range in ranges.iter() {
            leases.acquire(from.node, range.first, range.last, until);
        }
        let fetched = Fetched::new(place, key, until, &told.records, ranges);
        match self.nodes.get_mut(&from.node) {
            Some(node) if is_wanted => node.buffered.push_back(fetched),
            _ => fetched.give_back(leases),
        }
    }
}
