//! Bounds what replication takes, so that moving replicas does not crowd out clients: between brokers
//! (`leader.replication.throttled.rate`, `follower.replication.throttled.rate`, KIP-73), and between the directories of one
//! (`replica.alter.log.dirs.io.max.bytes.per.second`, KIP-113). The rates change while the broker runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use towpath_controller::topic_config::ThrottledReplicas;
use towpath_types::{BrokerId, TopicId};

/// How much may be saved up: bursts of a second.
const BURST_SECONDS: f64 = 1.0;
/// The rate that is none.
pub(crate) const UNLIMITED: u64 = i64::MAX as u64;

/// Bytes a second. What moves is counted afterwards, so the balance may be negative; nothing more is begun until it is not.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: AtomicU64,
    state: Mutex<(f64, Instant)>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { bytes_per_second: AtomicU64::new(UNLIMITED), state: Mutex::new((0.0, Instant::now())) }
    }
}

impl Throttle {
    /// Another rate from here on. What was saved up under the old one is no more.
    pub(crate) fn set(&self, bytes_per_second: u64) {
        let mut state = self.state.lock();
        if self.bytes_per_second.swap(bytes_per_second, Ordering::Relaxed) != bytes_per_second {
            *state = (bytes_per_second as f64 * BURST_SECONDS, Instant::now());
        }
    }

    /// Whether there is a bound.
    pub(crate) fn is_limited(&self) -> bool {
        self.bytes_per_second.load(Ordering::Relaxed) < UNLIMITED
    }

    /// Whether something may be begun at `now`.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate >= UNLIMITED {
            return true;
        }
        let rate = rate as f64;
        let mut state = self.state.lock();
        let passed = now.saturating_duration_since(state.1).as_secs_f64();
        *state = ((state.0 + passed * rate).min(rate * BURST_SECONDS), now.max(state.1));
        state.0 > 0.0
    }

    /// So many bytes have moved.
    pub(crate) fn take(&self, bytes: u64) {
        if self.is_limited() {
            self.state.lock().0 -= bytes as f64;
        }
    }
}

/// The throttled replicas of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicThrottles {
    pub(crate) leader: ThrottledReplicas,
    pub(crate) follower: ThrottledReplicas,
}

/// The bounds of one broker.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    /// What it sends to followers of throttled replicas.
    pub(crate) leader: Throttle,
    /// What it fetches of throttled replicas.
    pub(crate) follower: Throttle,
    /// What moves between its directories.
    pub(crate) moving: Throttle,
    topics: RwLock<HashMap<TopicId, TopicThrottles>>,
}

impl Throttles {
    /// Takes what a topic's configurations say.
    pub(crate) fn set_topic(&self, topic: TopicId, throttles: TopicThrottles) {
        if throttles == TopicThrottles::default() {
            // Most topics have none: readers are not disturbed.
            if self.topics.read().contains_key(&topic) {
                self.topics.write().remove(&topic);
            }
        } else {
            self.topics.write().insert(topic, throttles);
        }
    }

    /// Whether what a leader sends of the replica on `follower` is bounded.
    pub(crate) fn leader_throttles(&self, topic: TopicId, partition: i32, follower: BrokerId) -> bool {
        let topics = self.topics.read();
        topics.get(&topic).is_some_and(|it| it.leader.contains(partition, follower.get()))
    }

    /// Whether what broker `me` fetches of a partition is bounded.
    pub(crate) fn follower_throttles(&self, topic: TopicId, partition: i32, me: BrokerId) -> bool {
        let topics = self.topics.read();
        topics.get(&topic).is_some_and(|it| it.follower.contains(partition, me.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_came_too_fast_is_waited_for() {
        let throttle = Throttle::default();
        assert!(!throttle.is_limited() && throttle.is_open(Instant::now()));
        throttle.take(1 << 40);
        assert!(throttle.is_open(Instant::now()));
        throttle.set(1000);
        let begin = Instant::now();
        assert!(throttle.is_open(begin));
        throttle.take(4000);
        for seconds in 1..=2 {
            assert!(!throttle.is_open(begin + Duration::from_secs(seconds)), "{seconds} s");
        }
        assert!(throttle.is_open(begin + Duration::from_secs(4)));
        // Idle time is not saved up for ever.
        assert!(throttle.is_open(begin + Duration::from_secs(1000)));
        throttle.take(1500);
        assert!(!throttle.is_open(begin + Duration::from_secs(1000)));
        throttle.set(UNLIMITED);
        assert!(throttle.is_open(begin));
        throttle.set(0);
        assert!(!throttle.is_open(Instant::now() + Duration::from_secs(9)), "nothing at all");
    }

    #[test]
    fn replicas_are_throttled_by_name() {
        let (throttles, id) = (Throttles::default(), TopicId::random());
        let replicas = |text| ThrottledReplicas::read(text).unwrap();
        let said = TopicThrottles { leader: replicas("*"), follower: replicas("1:2") };
        throttles.set_topic(id, said);
        assert!(throttles.leader_throttles(id, 7, BrokerId::new(9)));
        assert!(throttles.follower_throttles(id, 1, BrokerId::new(2)));
        assert!(!throttles.follower_throttles(id, 1, BrokerId::new(3)));
        throttles.set_topic(id, TopicThrottles::default());
        assert!(!throttles.leader_throttles(id, 7, BrokerId::new(9)));
    }
}
