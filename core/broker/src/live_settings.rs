//! Settings that change while the broker runs (KIP-226), as they are now.

use std::time::Duration;

use towpath_controller::{Configs, broker_config};

use crate::config::BrokerConfig;
use crate::throttle::{Throttles, UNLIMITED};

/// Settings that change while the broker runs. Defaults of topics are not among them: they are in the topics' settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSettings {
    /// `log.cleaner.backoff.ms`.
    pub(crate) compaction_check_interval: Duration,
    /// `log.cleaner.dedupe.buffer.size`.
    pub(crate) dedupe_buffer_bytes: usize,
    /// `producer.id.expiration.ms`.
    pub(crate) producer_expiration_ms: i64,
    /// `num.replica.fetchers`.
    pub(crate) fetchers: usize,
    /// `follower.replication.throttled.rate`.
    follower_rate: u64,
    /// `leader.replication.throttled.rate`.
    leader_rate: u64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`.
    moving_rate: u64,
}

impl LiveSettings {
    /// What was set for this broker, else for all brokers, else in the broker's file.
    pub(crate) fn new(config: &BrokerConfig, own: &Configs, all: &Configs) -> Self {
        let number = |name: &str| broker_config::number::<u64>(own, all, name);
        let count = |name: &str| broker_config::number::<usize>(own, all, name);
        Self {
            compaction_check_interval: number("log.cleaner.backoff.ms")
                .map_or(config.compaction_check_interval, Duration::from_millis),
            dedupe_buffer_bytes: count("log.cleaner.dedupe.buffer.size")
                .unwrap_or(config.dedupe_buffer_bytes),
            producer_expiration_ms: broker_config::number(own, all, "producer.id.expiration.ms")
                .unwrap_or(config.producer_expiration_ms),
            fetchers: count("num.replica.fetchers").unwrap_or(config.replication.fetchers),
            follower_rate: number("follower.replication.throttled.rate").unwrap_or(UNLIMITED),
            leader_rate: number("leader.replication.throttled.rate").unwrap_or(UNLIMITED),
            moving_rate: number("replica.alter.log.dirs.io.max.bytes.per.second").unwrap_or(UNLIMITED),
        }
    }

    /// Puts the rates in force.
    pub(crate) fn set_rates(&self, throttles: &Throttles) {
        throttles.follower.set(self.follower_rate);
        throttles.leader.set(self.leader_rate);
        throttles.moving.set(self.moving_rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_own_setting_hides_that_of_all_and_that_the_file() {
        let config =
            BrokerConfig { compaction_check_interval: Duration::from_millis(3), ..BrokerConfig::new("d") };
        let map = |value: &str| Configs::from([("log.cleaner.backoff.ms".to_owned(), value.to_owned())]);
        let none = Configs::new();
        for (own, all, expected) in
            [(&none, &none, 3), (&none, &map("5"), 5), (&map("7"), &none, 7), (&map("7"), &map("5"), 7)]
        {
            let live = LiveSettings::new(&config, own, all);
            assert_eq!(live.compaction_check_interval, Duration::from_millis(expected));
        }
    }
}
