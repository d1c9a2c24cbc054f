//! Settings by Kafka's names, as they stand in a configuration.

use std::str::FromStr;
use std::time::Duration;

use towpath_controller::{broker_config, topic_config};

use crate::config::BrokerConfig;
use crate::error::BrokerError;

/// What can be read of consumer groups, and follows from other settings.
const FOLLOWS: &[&str] = &["group.consumer.max.size"];

/// Writes a number where it belongs.
fn number<T: FromStr>(slot: &mut T, value: &str) -> Result<(), String> {
    *slot = value.parse().map_err(|_| "it is no number that fits".to_owned())?;
    Ok(())
}

/// The same, with Kafka's lower bound.
fn at_least<T: FromStr + PartialOrd + Copy + std::fmt::Display>(
    slot: &mut T,
    value: &str,
    least: T,
) -> Result<(), String> {
    let mut found = least;
    number(&mut found, value)?;
    if found < least {
        return Err(format!("it is at least {least}"));
    }
    *slot = found;
    Ok(())
}

fn milliseconds(slot: &mut Duration, value: &str) -> Result<(), String> {
    let mut ms = 0;
    at_least(&mut ms, value, 1_u64)?;
    *slot = Duration::from_millis(ms);
    Ok(())
}

impl BrokerConfig {
    /// Sets a setting by the name that Kafka's `server.properties` has for it. Those that are defaults of topic
    /// configurations are among them (`log.retention.ms`).
    ///
    /// # Errors
    /// [`BrokerError::Setting`] for a name that is not known, and for a value that does not fit.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BrokerError> {
        self.try_set(name, value).map_err(|problem| BrokerError::Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            problem,
        })?;
        self.settings.insert(name.to_owned(), value.trim().to_owned());
        self.take_units(name);
        Ok(())
    }

    /// A default of topics that can be set in several units: which of them counts does not depend on the order in which
    /// they stand in the file.
    fn take_units(&mut self, name: &str) {
        let Some(topic) = broker_config::topic_key(name).filter(|topic| !topic.units.is_empty()) else {
            return;
        };
        let names = topic.broker_name.into_iter().chain(topic.units.iter().map(|unit| unit.name));
        let first = names.filter_map(|name| Some((name, self.settings.get(name)?))).next();
        if let Some((name, value)) = first
            && let Ok(Some((topic, value))) = broker_config::topic_default(name, value)
        {
            self.topic_defaults.insert(topic.to_owned(), value);
        }
    }

    fn set_transactions(&mut self, name: &str, value: &str) -> Result<(), String> {
        let transactions = &mut self.transactions;
        match name {
            "transaction.state.log.num.partitions" => at_least(&mut self.transactions_partitions, value, 1),
            "transaction.state.log.min.isr" => {
                topic_config::check("min.insync.replicas", value).map_err(|problem| problem.to_string())?;
                self.transactions_topic_configs.insert("min.insync.replicas".to_owned(), value.to_owned());
                Ok(())
            }
            "transaction.state.log.segment.bytes" => {
                topic_config::check("segment.bytes", value).map_err(|problem| problem.to_string())?;
                self.transactions_topic_configs.insert("segment.bytes".to_owned(), value.to_owned());
                Ok(())
            }
            "transaction.max.timeout.ms" => at_least(&mut transactions.timeout_ms_max, value, 1),
            "transactional.id.expiration.ms" => at_least(&mut transactions.id_expiration_ms, value, 1),
            "transaction.abort.timed.out.transaction.cleanup.interval.ms" => {
                at_least(&mut transactions.abort_interval_ms, value, 1)
            }
            "transaction.remove.expired.transaction.cleanup.interval.ms" => {
                at_least(&mut transactions.expiration_interval_ms, value, 1)
            }
            _ => Err("the broker has no such setting".to_owned()),
        }
    }

    fn set_groups(&mut self, name: &str, value: &str) -> Result<(), String> {
        let groups = &mut self.groups;
        match name {
            "group.min.session.timeout.ms" => at_least(&mut groups.session_timeout_ms_min, value, 1),
            "group.max.session.timeout.ms" => at_least(&mut groups.session_timeout_ms_max, value, 1),
            "group.initial.rebalance.delay.ms" => at_least(&mut groups.initial_rebalance_delay_ms, value, 0),
            "group.max.size" => at_least(&mut groups.members_max, value, 1),
            "group.consumer.assignment.interval.ms" => {
                at_least(&mut groups.consumer_assignment_interval_ms, value, 0)
            }
            "group.consumer.session.timeout.ms" => {
                at_least(&mut groups.consumer_session_timeout_ms, value, 1)
            }
            "group.consumer.heartbeat.interval.ms" => {
                at_least(&mut groups.consumer_heartbeat_interval_ms, value, 1)
            }
            "group.consumer.migration.policy" => {
                groups.consumer_migration_policy = value.parse()?;
                Ok(())
            }
            // It has no slot here but the file itself: the bounds of what can be set for single groups.
            _ => match broker_config::key(name).filter(|config| !FOLLOWS.contains(&config.key.name)) {
                Some(config) => config.key.check(value).map_err(|problem| problem.to_string()),
                None => Err("the broker has no such setting".to_owned()),
            },
        }
    }

    fn set_shares(&mut self, name: &str, value: &str) -> Result<(), String> {
        let groups = &mut self.groups;
        match name {
            "group.share.session.timeout.ms" => at_least(&mut groups.share_session_timeout_ms, value, 1),
            "group.share.heartbeat.interval.ms" => {
                at_least(&mut groups.share_heartbeat_interval_ms, value, 1)
            }
            "group.share.max.size" => at_least(&mut groups.share_members_max, value, 1),
            "share.coordinator.snapshot.update.records.per.snapshot" => {
                number(&mut self.share_states.updates_per_snapshot, value)
            }
            "share.coordinator.state.topic.num.partitions" => {
                at_least(&mut self.share_state_partitions, value, 1)
            }
            "share.coordinator.state.topic.min.isr" => {
                topic_config::check("min.insync.replicas", value).map_err(|problem| problem.to_string())?;
                self.share_state_topic_configs.insert("min.insync.replicas".to_owned(), value.to_owned());
                Ok(())
            }
            // The others are looked up by their names.
            _ => match broker_config::key(name) {
                Some(config) => config.key.check(value).map_err(|problem| problem.to_string()),
                None => Err("the broker has no such setting".to_owned()),
            },
        }
    }

    fn try_set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let (groups, limits, replication) = (&mut self.groups, &mut self.limits, &mut self.replication);
        match name {
            "auto.create.topics.enable" => number(&mut self.auto_create_topics, value),
            "num.partitions" => at_least(&mut self.partitions_default, value, 1),
            "offsets.topic.num.partitions" => at_least(&mut self.offsets_partitions, value, 1),
            "offsets.retention.minutes" => {
                let mut minutes = 1_i64;
                at_least(&mut minutes, value, 1)?;
                groups.offsets_retention_ms = minutes.saturating_mul(60_000);
                Ok(())
            }
            _ if name.starts_with("transaction") => self.set_transactions(name, value),
            _ if name.starts_with("group.share.") || name.starts_with("share.coordinator.") => {
                self.set_shares(name, value)
            }
            _ if name.starts_with("group.") => self.set_groups(name, value),
            "connections.max.idle.ms" => milliseconds(&mut limits.connection_idle_max, value),
            "max.connections" => at_least(&mut limits.connections_max, value, 1),
            "socket.request.max.bytes" => at_least(&mut limits.request_bytes_max, value, 1024),
            "queued.max.request.bytes" => at_least(&mut limits.request_memory_bytes, value, 1 << 20),
            "fetch.max.bytes" => at_least(&mut limits.fetch_bytes_max, value, 1024),
            "default.replication.factor" => at_least(&mut self.replication_factor_default, value, 1),
            "replica.lag.time.max.ms" => milliseconds(&mut replication.replica_lag_max, value),
            "num.replica.fetchers" => at_least(&mut replication.fetchers, value, 1),
            "broker.session.timeout.ms" => milliseconds(&mut replication.session_timeout, value),
            "broker.heartbeat.interval.ms" => milliseconds(&mut replication.heartbeat_interval, value),
            "controller.quorum.election.timeout.ms" => milliseconds(&mut replication.election_timeout, value),
            "auto.leader.rebalance.enable" => number(&mut replication.auto_leader_rebalance, value),
            "replica.selector.class" => {
                replication.rack_aware_reads = match value.rsplit('.').next() {
                    Some("RackAwareReplicaSelector") => true,
                    Some("") | None => false,
                    _ => return Err("only RackAwareReplicaSelector is known".to_owned()),
                };
                Ok(())
            }
            "leader.imbalance.check.interval.seconds" => {
                let mut seconds = 1_u64;
                at_least(&mut seconds, value, 1)?;
                replication.leader_imbalance_check_interval = Duration::from_secs(seconds);
                Ok(())
            }
            "log.cleaner.dedupe.buffer.size" => at_least(&mut self.dedupe_buffer_bytes, value, 1 << 20),
            "producer.id.expiration.ms" => at_least(&mut self.producer_expiration_ms, value, 1),
            "log.retention.check.interval.ms" => milliseconds(&mut self.retention_check_interval, value),
            "log.cleaner.backoff.ms" => milliseconds(&mut self.compaction_check_interval, value),
            _ => {
                let default =
                    broker_config::topic_default(name, value).map_err(|problem| problem.to_string())?;
                let (topic, value) = default.ok_or("the broker has no such setting")?;
                self.topic_defaults.insert(topic.to_owned(), value);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_land_where_they_belong() {
        let mut config = BrokerConfig::new("data");
        for (name, value) in [
            ("auto.create.topics.enable", "false"),
            ("group.min.session.timeout.ms", "100"),
            ("group.consumer.assignment.interval.ms", "250"),
            ("offsets.retention.minutes", "2"),
            ("connections.max.idle.ms", "1500"),
            ("log.retention.ms", "-1"),
            ("log.cleanup.policy", "compact,delete"),
        ] {
            config.set(name, value).unwrap();
        }
        assert!(!config.auto_create_topics);
        assert_eq!(config.groups.session_timeout_ms_min, 100);
        assert_eq!(config.groups.consumer_assignment_interval_ms, 250);
        assert_eq!(config.groups.offsets_retention_ms, 120_000);
        assert_eq!(config.limits.connection_idle_max, Duration::from_millis(1500));
        assert_eq!(config.topic_defaults["retention.ms"], "-1");
        assert_eq!(config.topic_defaults["cleanup.policy"], "compact,delete");
    }

    #[test]
    fn of_several_units_the_smallest_counts() {
        let mut config = BrokerConfig::new("data");
        config.set("log.retention.hours", "2").unwrap();
        assert_eq!(config.topic_defaults["retention.ms"], "7200000");
        config.set("log.retention.ms", "5").unwrap();
        config.set("log.retention.minutes", "1").unwrap();
        assert_eq!(config.topic_defaults["retention.ms"], "5");
        assert_eq!(config.settings["log.retention.minutes"], "1");
        config.set("log.roll.hours", "1").unwrap();
        assert_eq!(config.topic_defaults["segment.ms"], "3600000");
    }

    #[test]
    fn what_is_no_setting_or_no_value_is_refused() {
        let mut config = BrokerConfig::new("data");
        for (name, value) in [
            ("num.partition", "1"),
            ("num.partitions", "many"),
            ("group.max.size", "-1"),
            ("offsets.retention.minutes", "-1"),
            ("queued.max.request.bytes", "0"),
            ("auto.create.topics.enable", "1"),
            ("log.cleanup.policy", "burn"),
            ("log.roll.hours", "0"),
            ("follower.replication.throttled.rate", "1000"),
            ("group.consumer.session.timeout.ms", "soon"),
            ("group.consumer.nonsense", "1"),
            ("group.consumer.max.size", "5"),
            ("replica.fetch.max.bytes", "1048576"),
        ] {
            let error = config.set(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
