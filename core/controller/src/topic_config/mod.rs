//! Topic configurations: every one declared once, with its type, default, check and documentation.

mod table;
mod typed;

use crate::config_key::ConfigKey;

pub use crate::config_key::{Check, ConfigProblem, ConfigSource, ConfigType, ThrottledReplicas, list};
pub use table::KEYS;
pub use typed::{CleanupPolicy, TopicCompression, TopicConfig};

/// One topic configuration.
#[derive(Debug, Clone, Copy)]
pub struct TopicConfigKey {
    /// Its name.
    pub name: &'static str,
    /// The name of the broker's setting that is the default of all topics, if there is one.
    pub broker_name: Option<&'static str>,
    /// Settings of the broker that say the same in other units, after `broker_name` in the order in which they count.
    pub units: &'static [Unit],
    /// Its type.
    pub config_type: ConfigType,
    /// Its default.
    pub default: &'static str,
    /// What its value must be.
    pub check: Check,
    /// What it does.
    pub doc: &'static str,
}

/// A setting of the broker that says in another unit what a topic configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Its name.
    pub name: &'static str,
    /// How many of the topic configuration's units are one of this.
    pub factor: i64,
    /// Its default, if it has one.
    pub default: Option<&'static str>,
}

/// The configuration with this name.
#[must_use]
pub fn key(name: &str) -> Option<&'static TopicConfigKey> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &KEYS[index])
}

/// Checks a name and its value.
///
/// # Errors
/// [`ConfigProblem`].
pub fn check(name: &str, value: &str) -> Result<&'static TopicConfigKey, ConfigProblem> {
    let key = key(name).ok_or_else(|| unknown(name))?;
    key.as_key().check(value)?;
    Ok(key)
}

pub(crate) fn unknown(name: &str) -> ConfigProblem {
    ConfigProblem::Unknown { of: "topic", name: name.to_owned() }
}

impl TopicConfigKey {
    /// Name, type, default and check.
    #[must_use]
    pub const fn as_key(&self) -> ConfigKey {
        ConfigKey {
            name: self.name,
            config_type: self.config_type,
            default: Some(self.default),
            check: self.check,
            doc: self.doc,
        }
    }

    /// The settings of the broker that are the default of all topics, the first that is set counts.
    #[must_use]
    pub fn broker_keys(&self) -> Vec<ConfigKey> {
        let Some(name) = self.broker_name else { return Vec::new() };
        // Where there are other units, the default stands there, as in Kafka; `log.flush.interval.ms` has none.
        let default = (self.units.is_empty() && self.name != "flush.ms").then_some(self.default);
        let mut keys = vec![ConfigKey { name, default, ..self.as_key() }];
        keys.extend(self.units.iter().map(|unit| ConfigKey {
            name: unit.name,
            config_type: ConfigType::Int,
            default: unit.default,
            check: match self.check {
                Check::AtLeast(least) => Check::AtLeast(least),
                _ => Check::Any,
            },
            doc: "The same as the setting in milliseconds, in another unit.",
        }));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in KEYS {
            assert!(check(key.name, key.default).is_ok() || key.default.is_empty(), "{}", key.name);
            assert!(!key.doc.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn values_are_checked() {
        for (name, good) in [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "delete, compact"),
            ("retention.ms", "-1"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("compression.type", "zstd"),
            ("preallocate", "False"),
            ("compression.gzip.level", "-1"),
        ] {
            assert!(check(name, good).is_ok(), "{name}={good}");
        }
        for (name, bad) in [
            ("cleanup.policy", "compost"),
            ("cleanup.policy", "compact,compact"),
            ("cleanup.policy", ""),
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("segment.bytes", "1048575"),
            ("segment.bytes", "99999999999"),
            ("min.cleanable.dirty.ratio", "1.1"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("compression.type", "zip"),
            ("preallocate", "maybe"),
            ("remote.storage.enable", "true"),
            ("no.such.config", "1"),
        ] {
            assert!(check(name, bad).is_err(), "{name}={bad}");
        }
    }
}
