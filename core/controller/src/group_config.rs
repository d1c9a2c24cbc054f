//! Configurations of groups (KIP-848, KIP-932): every one declared once.

use std::collections::BTreeMap;

use crate::config_key::{Check, ConfigKey, ConfigProblem, ConfigType};

mod share;

pub use self::share::{ShareGroupConfig, ShareOffsetReset};

/// One configuration of groups.
#[derive(Debug, Clone, Copy)]
pub struct GroupConfigKey {
    /// Name, type, default and check.
    pub key: ConfigKey,
    /// The broker's setting that is the default of all groups, if there is one.
    pub broker_name: Option<&'static str>,
    /// The broker's settings between which its value must be, if there are any.
    pub bounds: Option<(&'static str, &'static str)>,
}

const HEARTBEAT: GroupConfigKey = GroupConfigKey {
    key: ConfigKey {
        name: "consumer.heartbeat.interval.ms",
        config_type: ConfigType::Int,
        default: Some("5000"),
        check: Check::AtLeast(1),
        doc: "Milliseconds between two heartbeats of a member of the group.",
    },
    broker_name: Some("group.consumer.heartbeat.interval.ms"),
    bounds: Some(("group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms")),
};

const SESSION: GroupConfigKey = GroupConfigKey {
    key: ConfigKey {
        name: "consumer.session.timeout.ms",
        config_type: ConfigType::Int,
        default: Some("45000"),
        check: Check::AtLeast(1),
        doc: "Milliseconds without a heartbeat after which a member of the group is taken for gone.",
    },
    broker_name: Some("group.consumer.session.timeout.ms"),
    bounds: Some(("group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms")),
};

/// Every configuration of groups, sorted by name.
pub const KEYS: &[GroupConfigKey] = &[
    HEARTBEAT,
    SESSION,
    share::OFFSET_RESET,
    share::DELIVERIES,
    share::HEARTBEAT,
    share::ISOLATION,
    share::LOCKS,
    share::LOCK_DURATION,
    share::RENEWS,
    share::SESSION,
];

/// What the configurations of a consumer group come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
}

/// The configuration with this name.
#[must_use]
pub fn key(name: &str) -> Option<&'static GroupConfigKey> {
    KEYS.iter().find(|config| config.key.name == name)
}

/// Checks a name and its value by themselves.
///
/// # Errors
/// [`ConfigProblem`].
pub fn check(name: &str, value: &str) -> Result<&'static GroupConfigKey, ConfigProblem> {
    let config = key(name).ok_or_else(|| unknown(name))?;
    config.key.check(value)?;
    Ok(config)
}

pub(crate) fn unknown(name: &str) -> ConfigProblem {
    ConfigProblem::Unknown { of: "group", name: name.to_owned() }
}

impl ConsumerGroupConfig {
    /// What holds for a group with these configurations, on brokers with these settings (by the brokers' names; those
    /// that are not there have their defaults).
    ///
    /// # Errors
    /// [`ConfigProblem`] for values that do not fit, or not together.
    pub fn resolve(
        group: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigProblem> {
        let [heartbeat, session] = [&HEARTBEAT, &SESSION];
        let resolved = Self {
            heartbeat_interval_ms: bounded(heartbeat, group, broker)?,
            session_timeout_ms: bounded(session, group, broker)?,
        };
        if resolved.session_timeout_ms <= resolved.heartbeat_interval_ms {
            return Err(ConfigProblem::Value {
                name: session.key.name,
                value: resolved.session_timeout_ms.to_string(),
                problem: format!(
                    "it must be greater than {} ({})",
                    heartbeat.key.name, resolved.heartbeat_interval_ms
                ),
            });
        }
        Ok(resolved)
    }
}

/// A broker's setting: what its file says, else its default.
fn setting(broker: &BTreeMap<String, String>, name: &str) -> Option<i32> {
    let default = || crate::broker_config::key(name).and_then(|config| config.key.default);
    broker.get(name).map(String::as_str).or_else(default)?.trim().parse().ok()
}

fn bounded(
    config: &GroupConfigKey,
    group: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
) -> Result<i32, ConfigProblem> {
    let Some(value) = group.get(config.key.name) else {
        let name = config.broker_name.unwrap_or(config.key.name);
        let default = || config.key.default.and_then(|value| value.parse().ok());
        return Ok(setting(broker, name).or_else(default).unwrap_or_default());
    };
    config.key.check(value)?;
    let wrong =
        |problem: String| Err(ConfigProblem::Value { name: config.key.name, value: value.clone(), problem });
    let Ok(number) = value.trim().parse::<i32>() else { return wrong("it must be a number".to_owned()) };
    let Some((least, most)) = config.bounds else { return Ok(number) };
    if let Some(bound) = setting(broker, least).filter(|bound| number < *bound) {
        return wrong(format!("it must be greater than or equal to {least} ({bound})"));
    }
    if let Some(bound) = setting(broker, most).filter(|bound| number > *bound) {
        return wrong(format!("it must be less than or equal to {most} ({bound})"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_the_brokers() {
        assert!(KEYS.is_sorted_by(|a, b| a.key.name < b.key.name));
        for config in KEYS {
            if let Some(name) = config.broker_name {
                let broker = crate::broker_config::key(name).unwrap();
                assert_eq!(broker.key.default, config.key.default);
            }
            for bound in config.bounds.into_iter().flat_map(|(least, most)| [least, most]) {
                assert!(crate::broker_config::key(bound).is_some(), "{bound}");
            }
        }
    }

    #[test]
    fn a_groups_values_lie_within_the_brokers_bounds() {
        let none = BTreeMap::new();
        let default = ConsumerGroupConfig { heartbeat_interval_ms: 5000, session_timeout_ms: 45_000 };
        assert_eq!(ConsumerGroupConfig::resolve(&none, &none), Ok(default));
        let good =
            map(&[("consumer.heartbeat.interval.ms", "6000"), ("consumer.session.timeout.ms", "50000")]);
        let resolved = ConsumerGroupConfig::resolve(&good, &none).unwrap();
        assert_eq!((resolved.heartbeat_interval_ms, resolved.session_timeout_ms), (6000, 50_000));
        for (name, value) in [
            ("consumer.heartbeat.interval.ms", "4999"),
            ("consumer.heartbeat.interval.ms", "15001"),
            ("consumer.session.timeout.ms", "44999"),
            ("consumer.session.timeout.ms", "60001"),
            ("consumer.session.timeout.ms", "x"),
        ] {
            assert!(ConsumerGroupConfig::resolve(&map(&[(name, value)]), &none).is_err(), "{name}={value}");
        }
        let broker = map(&[("group.consumer.min.session.timeout.ms", "1000")]);
        let short = map(&[("consumer.session.timeout.ms", "5000")]);
        assert!(ConsumerGroupConfig::resolve(&short, &broker).is_err(), "not longer than the heartbeat's");
        let longer = map(&[("consumer.session.timeout.ms", "5001")]);
        assert!(ConsumerGroupConfig::resolve(&longer, &broker).is_ok());
        assert!(check("streams.session.timeout.ms", "1").is_err());
    }
}
