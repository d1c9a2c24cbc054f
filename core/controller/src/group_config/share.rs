//! Configurations of share groups (KIP-932, KIP-1240).

use std::collections::BTreeMap;

use super::{GroupConfigKey, bounded, key};
use crate::config_key::{Check, ConfigKey, ConfigProblem, ConfigType};

const fn int(
    name: &'static str,
    default: &'static str,
    names: (&'static str, (&'static str, &'static str)),
    doc: &'static str,
) -> GroupConfigKey {
    GroupConfigKey {
        key: ConfigKey {
            name,
            config_type: ConfigType::Int,
            default: Some(default),
            check: Check::AtLeast(1),
            doc,
        },
        broker_name: Some(names.0),
        bounds: Some(names.1),
    }
}

const fn other(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> GroupConfigKey {
    GroupConfigKey {
        key: ConfigKey { name, config_type, default: Some(default), check, doc },
        broker_name: None,
        bounds: None,
    }
}

pub(super) const OFFSET_RESET: GroupConfigKey = other(
    "share.auto.offset.reset",
    ConfigType::String,
    "latest",
    Check::Any,
    "Where the group begins in a partition that it has not read: latest, earliest, or by_duration:PnDTnHnMn.nS.",
);

pub(super) const DELIVERIES: GroupConfigKey = int(
    "share.delivery.count.limit",
    "5",
    (
        "group.share.delivery.count.limit",
        ("group.share.min.delivery.count.limit", "group.share.max.delivery.count.limit"),
    ),
    "How often a record is given out before it is given up.",
);

pub(super) const HEARTBEAT: GroupConfigKey = int(
    "share.heartbeat.interval.ms",
    "5000",
    (
        "group.share.heartbeat.interval.ms",
        ("group.share.min.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms"),
    ),
    "Milliseconds between two heartbeats of a member of the group.",
);

pub(super) const ISOLATION: GroupConfigKey = other(
    "share.isolation.level",
    ConfigType::String,
    "read_uncommitted",
    Check::OneOf(&["read_committed", "read_uncommitted"]),
    "Whether members are given records of transactions that are open or were aborted.",
);

pub(super) const LOCKS: GroupConfigKey = int(
    "share.partition.max.record.locks",
    "2000",
    (
        "group.share.partition.max.record.locks",
        ("group.share.min.partition.max.record.locks", "group.share.max.partition.max.record.locks"),
    ),
    "Records of one partition that may be with members, or wait for earlier ones, at the same time.",
);

pub(super) const LOCK_DURATION: GroupConfigKey = int(
    "share.record.lock.duration.ms",
    "30000",
    (
        "group.share.record.lock.duration.ms",
        ("group.share.min.record.lock.duration.ms", "group.share.max.record.lock.duration.ms"),
    ),
    "Milliseconds for which a member has a record to itself.",
);

pub(super) const RENEWS: GroupConfigKey = other(
    "share.renew.acknowledge.enable",
    ConfigType::Boolean,
    "true",
    Check::Any,
    "Whether members may renew the locks of records.",
);

pub(super) const SESSION: GroupConfigKey = int(
    "share.session.timeout.ms",
    "45000",
    (
        "group.share.session.timeout.ms",
        ("group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"),
    ),
    "Milliseconds without a heartbeat after which a member of the group is taken for gone.",
);

/// Where a share group begins in a partition that it has not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShareOffsetReset {
    /// At the end.
    #[default]
    Latest,
    /// At the beginning.
    Earliest,
    /// At the first record that is not older than so many milliseconds.
    ByDuration(i64),
}

/// What the configurations of a share group come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareGroupConfig {
    /// `share.auto.offset.reset`.
    pub offset_reset: ShareOffsetReset,
    /// `share.delivery.count.limit`.
    pub delivery_count_limit: i32,
    /// `share.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `share.isolation.level` is `read_committed`.
    pub reads_committed: bool,
    /// `share.partition.max.record.locks`.
    pub partition_max_record_locks: i32,
    /// `share.record.lock.duration.ms`.
    pub record_lock_duration_ms: i32,
    /// `share.renew.acknowledge.enable`.
    pub may_renew: bool,
    /// `share.session.timeout.ms`.
    pub session_timeout_ms: i32,
}

impl ShareGroupConfig {
    /// What holds for a group with these configurations, on brokers with these settings (by the brokers' names; those
    /// that are not there have their defaults).
    ///
    /// # Errors
    /// [`ConfigProblem`] for values that do not fit, or not together.
    pub fn resolve(
        group: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigProblem> {
        for (name, value) in group {
            if let Some(config) = key(name) {
                config.key.check(value)?;
            }
        }
        let text = |config: &GroupConfigKey| {
            group
                .get(config.key.name)
                .map(String::as_str)
                .or(config.key.default)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let resolved = Self {
            offset_reset: offset_reset(&text(&OFFSET_RESET))?,
            delivery_count_limit: bounded(&DELIVERIES, group, broker)?,
            heartbeat_interval_ms: bounded(&HEARTBEAT, group, broker)?,
            reads_committed: text(&ISOLATION) == "read_committed",
            partition_max_record_locks: bounded(&LOCKS, group, broker)?,
            record_lock_duration_ms: bounded(&LOCK_DURATION, group, broker)?,
            may_renew: text(&RENEWS).eq_ignore_ascii_case("true"),
            session_timeout_ms: bounded(&SESSION, group, broker)?,
        };
        if resolved.session_timeout_ms <= resolved.heartbeat_interval_ms {
            return Err(ConfigProblem::Value {
                name: SESSION.key.name,
                value: resolved.session_timeout_ms.to_string(),
                problem: format!(
                    "it must be greater than {} ({})",
                    HEARTBEAT.key.name, resolved.heartbeat_interval_ms
                ),
            });
        }
        Ok(resolved)
    }

    /// What holds for groups without configurations of their own.
    #[must_use]
    pub fn of_broker(broker: &BTreeMap<String, String>) -> Self {
        let none = BTreeMap::new();
        let number = |config: &GroupConfigKey| bounded(config, &none, broker).unwrap_or_default();
        Self {
            offset_reset: ShareOffsetReset::Latest,
            delivery_count_limit: number(&DELIVERIES),
            heartbeat_interval_ms: number(&HEARTBEAT),
            reads_committed: false,
            partition_max_record_locks: number(&LOCKS),
            record_lock_duration_ms: number(&LOCK_DURATION),
            may_renew: true,
            session_timeout_ms: number(&SESSION),
        }
    }
}

fn offset_reset(value: &str) -> Result<ShareOffsetReset, ConfigProblem> {
    let lower = value.to_ascii_lowercase();
    let problem = || ConfigProblem::Value {
        name: OFFSET_RESET.key.name,
        value: value.to_owned(),
        problem: "it must be latest, earliest, or by_duration: and a duration such as PT1H".to_owned(),
    };
    match lower.as_str() {
        "latest" => Ok(ShareOffsetReset::Latest),
        "earliest" => Ok(ShareOffsetReset::Earliest),
        _ => {
            let duration = lower.strip_prefix("by_duration:").and_then(duration_ms);
            duration.map(ShareOffsetReset::ByDuration).ok_or_else(problem)
        }
    }
}

/// Milliseconds of a duration as ISO 8601 and Java write it: `pNdTnHnMn.nS`, of which parts may be missing.
fn duration_ms(text: &str) -> Option<i64> {
    let (days, time) = match text.strip_prefix('p')?.split_once('t') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (text.strip_prefix('p')?, ""),
    };
    let mut total: i64 = 0;
    let mut parts = 0;
    let mut add = |text: &str, units: &[(char, i64)]| -> Option<()> {
        let (mut rest, mut units) = (text, units.iter());
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
            let (number, after) = rest.split_at(end);
            let unit = after.chars().next()?;
            let (_, unit_ms) = units.find(|(name, _)| *name == unit)?;
            let milliseconds = match number.split_once('.') {
                Some((whole, fraction)) if unit == 's' && !fraction.is_empty() => {
                    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
                    whole.parse::<i64>().ok()?.checked_mul(*unit_ms)?.checked_add(digits.parse().ok()?)?
                }
                _ => number.parse::<i64>().ok()?.checked_mul(*unit_ms)?,
            };
            // A time that lies ahead is none that a record can have.
            total = total.checked_add(milliseconds).filter(|total| *total >= 0)?;
            parts += 1;
            rest = &after[1..];
        }
        Some(())
    };
    add(days, &[('d', 86_400_000)])?;
    add(time, &[('h', 3_600_000), ('m', 60_000), ('s', 1_000)])?;
    (parts > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_share_groups_values_are_its_own_the_brokers_or_the_defaults() {
        let none = BTreeMap::new();
        let default = ShareGroupConfig::resolve(&none, &none).unwrap();
        assert_eq!(default, ShareGroupConfig::of_broker(&none));
        assert_eq!((default.delivery_count_limit, default.record_lock_duration_ms), (5, 30_000));
        assert_eq!((default.partition_max_record_locks, default.may_renew), (2_000, true));
        let broker = map(&[("group.share.record.lock.duration.ms", "20000")]);
        let own = map(&[
            ("share.auto.offset.reset", "earliest"),
            ("share.isolation.level", "read_committed"),
            ("share.delivery.count.limit", "3"),
        ]);
        let resolved = ShareGroupConfig::resolve(&own, &broker).unwrap();
        assert_eq!(resolved.offset_reset, ShareOffsetReset::Earliest);
        assert!(resolved.reads_committed);
        assert_eq!((resolved.delivery_count_limit, resolved.record_lock_duration_ms), (3, 20_000));
        for (name, value) in [
            ("share.delivery.count.limit", "11"),
            ("share.record.lock.duration.ms", "1"),
            ("share.isolation.level", "none"),
            ("share.auto.offset.reset", "none"),
            ("share.auto.offset.reset", "by_duration:1h"),
            ("share.partition.max.record.locks", "10"),
        ] {
            assert!(ShareGroupConfig::resolve(&map(&[(name, value)]), &none).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn no_group_may_have_more_records_in_flight_than_a_broker_has_room_for() {
        for name in [LOCKS.broker_name.unwrap(), LOCKS.bounds.unwrap().0, LOCKS.bounds.unwrap().1] {
            let key = &crate::broker_config::key(name).unwrap().key;
            assert!(key.check("10000").is_ok() && key.check("10001").is_err(), "{name}");
        }
    }

    #[test]
    fn durations_are_read_as_java_writes_them() {
        let known = [("pt1h", 3_600_000), ("p1dt2m", 86_520_000), ("pt0.5s", 500), ("p2d", 172_800_000)];
        for (text, expected) in known {
            assert_eq!(duration_ms(text), Some(expected), "{text}");
        }
        for text in ["", "p", "pt", "1h", "pt1", "ptm", "pt1m1h", "pt-1s", "pt1.s", "p999999999999999999d"] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }
}
