//! Configurations of brokers: every one declared once. Those that are the defaults of topics are declared with the topics'
//! configurations ([`crate::topic_config`]); all others here.
//!
//! What can change while a broker runs stands in the metadata, for one broker or for all ([`crate::DynamicConfigs`]).

mod table;

use std::collections::BTreeMap;

use crate::config_key::{ConfigKey, ConfigProblem};
use crate::topic_config::{self, TopicConfigKey};

pub use crate::config_key::{BrokerLayers, ConfigValue, synonyms};

/// Whether and for whom a configuration can be changed while brokers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// It stands in the broker's file and is in force from start to stop.
    ReadOnly,
    /// For one broker, or for all.
    Any,
    /// For all brokers alone: leaders and the controller must not go by different ones.
    AllBrokers,
}

/// One configuration of a broker.
#[derive(Debug, Clone, Copy)]
pub struct BrokerConfigKey {
    /// Name, type, default and check.
    pub key: ConfigKey,
    /// Whether and for whom it can be changed.
    pub scope: Scope,
}

/// Defaults of topics that must be the same on all nodes: they decide what leaders acknowledge and whom the controller may
/// elect.
pub const SHARED: [&str; 2] = ["min.insync.replicas", "unclean.leader.election.enable"];

/// All configurations of a broker, sorted by name.
#[must_use]
pub fn all() -> Vec<BrokerConfigKey> {
    let mut all = table::KEYS.to_vec();
    all.extend(topic_config::KEYS.iter().flat_map(of_topic));
    all.sort_unstable_by_key(|config| config.key.name);
    all
}

/// The defaults of topics that a topic's configuration has at the broker.
fn of_topic(topic: &TopicConfigKey) -> Vec<BrokerConfigKey> {
    let scope = |name: &str| match topic.broker_name {
        Some(own) if SHARED.contains(&own) => Scope::AllBrokers,
        Some(own) if own == name => Scope::Any,
        // As in Kafka: of several units the milliseconds alone can be changed.
        _ => Scope::ReadOnly,
    };
    topic.broker_keys().into_iter().map(|key| BrokerConfigKey { key, scope: scope(key.name) }).collect()
}

/// The configuration with this name.
#[must_use]
pub fn key(name: &str) -> Option<BrokerConfigKey> {
    if let Ok(index) = table::KEYS.binary_search_by(|config| config.key.name.cmp(name)) {
        return Some(table::KEYS[index]);
    }
    of_topic(topic_key(name)?).into_iter().find(|config| config.key.name == name)
}

/// The configuration of topics whose default a broker's configuration is.
#[must_use]
pub fn topic_key(name: &str) -> Option<&'static TopicConfigKey> {
    topic_config::KEYS
        .iter()
        .find(|topic| topic.broker_name == Some(name) || topic.units.iter().any(|unit| unit.name == name))
}

/// The names under which the configuration can be set, the first that is set counts.
#[must_use]
pub fn names(config: &BrokerConfigKey) -> Vec<ConfigKey> {
    match topic_key(config.key.name) {
        Some(topic) => topic.broker_keys(),
        None => vec![config.key],
    }
}

/// Why a configuration that Kafka has is not one here.
#[must_use]
pub fn not_here(name: &str) -> Option<&'static str> {
    table::NOT_HERE.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, why)| *why)
}

/// The default of topics that a broker's setting is, under the topic configuration's name and in its unit; none for a
/// setting that is no such default.
///
/// # Errors
/// [`ConfigProblem`] for a value that does not fit.
pub fn topic_default(name: &str, value: &str) -> Result<Option<(&'static str, String)>, ConfigProblem> {
    let Some(topic) = topic_key(name) else { return Ok(None) };
    let Some(unit) = topic.units.iter().find(|unit| unit.name == name) else {
        topic.as_key().check(value)?;
        return Ok(Some((topic.name, value.to_owned())));
    };
    let Some(config) = key(name) else { return Ok(None) };
    config.key.check(value)?;
    // Below zero it is no number of units but says that there is no limit.
    let number: i64 = value.trim().parse().unwrap_or(-1);
    let in_topics_unit = if number < 0 { -1 } else { number.saturating_mul(unit.factor) };
    Ok(Some((topic.name, in_topics_unit.to_string())))
}

/// Those of a broker's configurations that are defaults of topics, by the topics' names. What is not valid is left out:
/// it was checked before it was stored.
#[must_use]
pub fn topic_defaults(configs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let defaults = configs.iter().filter_map(|(name, value)| topic_default(name, value).ok().flatten());
    defaults.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A number among a broker's configurations that are set while it runs: the broker's own, else that of all brokers.
#[must_use]
pub fn number<T: std::str::FromStr>(
    own: &BTreeMap<String, String>,
    all: &BTreeMap<String, String>,
    name: &str,
) -> Option<T> {
    own.get(name).or_else(|| all.get(name)).and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_say_nothing_twice() {
        assert!(table::KEYS.is_sorted_by(|a, b| a.key.name < b.key.name));
        assert!(table::NOT_HERE.is_sorted_by(|a, b| a.0 < b.0));
        let all = all();
        assert!(all.is_sorted_by(|a, b| a.key.name < b.key.name), "a name twice");
        for config in &all {
            assert!(!config.key.doc.is_empty(), "{}", config.key.name);
            if let Some(default) = config.key.default {
                assert_eq!(config.key.check(default), Ok(()), "{}", config.key.name);
            }
            assert_eq!(key(config.key.name).unwrap().scope, config.scope);
            assert!(
                config.scope == Scope::ReadOnly || not_here(config.key.name).is_none(),
                "{}: here and not here",
                config.key.name
            );
        }
    }

    #[test]
    fn defaults_of_topics_come_in_the_topics_units() {
        let default = |name, value| topic_default(name, value).unwrap();
        assert_eq!(default("log.retention.hours", "2"), Some(("retention.ms", "7200000".to_owned())));
        assert_eq!(default("log.retention.minutes", "-1"), Some(("retention.ms", "-1".to_owned())));
        assert_eq!(default("log.retention.ms", "5"), Some(("retention.ms", "5".to_owned())));
        assert_eq!(default("message.max.bytes", "5"), Some(("max.message.bytes", "5".to_owned())));
        assert_eq!(default("num.partitions", "5"), None);
        assert!(topic_default("log.retention.hours", "soon").is_err());
        assert!(topic_default("log.cleanup.policy", "burn").is_err());
        let scope = |name| key(name).unwrap().scope;
        assert_eq!(scope("log.retention.ms"), Scope::Any);
        assert_eq!(scope("log.retention.hours"), Scope::ReadOnly);
        assert_eq!(scope("min.insync.replicas"), Scope::AllBrokers);
        assert_eq!(key("log.retention.ms").unwrap().key.default, None);
        assert!(not_here("ssl.keystore.location").is_some() && not_here("num.partitions").is_none());
    }
}
