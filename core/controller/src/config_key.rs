//! What the configurations of topics, brokers and groups have in common: types, checks, and where a value comes from.

use std::collections::BTreeMap;

/// The type of a configuration's value, by the numbers of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// A text.
    String = 2,
    /// A 32-bit integer.
    Int = 3,
    /// A 16-bit integer.
    Short = 4,
    /// A 64-bit integer.
    Long = 5,
    /// A floating-point number.
    Double = 6,
    /// Texts, separated by commas.
    List = 7,
    /// The name of a class.
    Class = 8,
    /// A secret: its value is never told (R13).
    Password = 9,
}

/// What a value must be besides its type.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// Anything of the type.
    Any,
    /// An integer of at least this.
    AtLeast(i64),
    /// An integer between these, both included.
    Between(i64, i64),
    /// A fraction between 0 and 1.
    Fraction,
    /// One of these, or a list of some of these.
    OneOf(&'static [&'static str]),
    /// Replicas as `partition:broker` pairs, or `*` for all of them, or nothing.
    Replicas,
    /// Only the default: Towpath does not have what another value asks for.
    Fixed,
}

/// Where a value comes from, by the numbers of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic = 1,
    /// Set on the broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefault = 3,
    /// Set in the broker's configuration.
    Broker = 4,
    /// The declared default.
    Default = 5,
    /// Set on the group.
    Group = 8,
}

/// A configuration that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// No configuration has this name.
    #[error("Unknown {of} config name: {name}")]
    Unknown {
        /// What has the configuration: a topic, a broker, a group.
        of: &'static str,
        /// The name.
        name: String,
    },
    /// The value does not fit.
    #[error("Invalid value {value} for configuration {name}: {problem}")]
    Value {
        /// The configuration.
        name: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        problem: String,
    },
}

/// A configuration: its name, what its values are, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub config_type: ConfigType,
    /// Its default, if it has one.
    pub default: Option<&'static str>,
    /// What its value must be.
    pub check: Check,
    /// What it does.
    pub doc: &'static str,
}

impl ConfigKey {
    /// Checks a value.
    ///
    /// # Errors
    /// [`ConfigProblem::Value`].
    pub fn check(&self, value: &str) -> Result<(), ConfigProblem> {
        match self.problem(value) {
            None => Ok(()),
            Some(problem) => {
                Err(ConfigProblem::Value { name: self.name, value: self.shown(value).to_owned(), problem })
            }
        }
    }

    /// A value as it may be shown (R13).
    #[must_use]
    pub const fn shown<'a>(&self, value: &'a str) -> &'a str {
        if self.is_sensitive() { "[hidden]" } else { value }
    }

    /// Whether its value is never told.
    #[must_use]
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.config_type, ConfigType::Password)
    }

    /// What is wrong with a value; `None` when nothing is.
    fn problem(&self, value: &str) -> Option<String> {
        let trimmed = value.trim();
        let typed = match self.config_type {
            ConfigType::Boolean => {
                let boolean = trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false");
                (!boolean).then(|| "it must be true or false".to_owned())
            }
            ConfigType::Short => self.integer(trimmed.parse::<i16>().map(i64::from), "16-bit"),
            ConfigType::Int => self.integer(trimmed.parse::<i32>().map(i64::from), "32-bit"),
            ConfigType::Long => self.integer(trimmed.parse::<i64>(), "64-bit"),
            ConfigType::Double => match trimmed.parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) || !matches!(self.check, Check::Fraction) => None,
                Ok(_) => Some("it must be between 0 and 1".to_owned()),
                Err(_) => Some("it must be a number".to_owned()),
            },
            ConfigType::String | ConfigType::Class | ConfigType::Password => match self.check {
                Check::OneOf(allowed) if !allowed.contains(&trimmed) => {
                    Some(format!("it must be one of {}", allowed.join(", ")))
                }
                _ => None,
            },
            ConfigType::List => self.list_problem(value),
        };
        typed.or_else(|| {
            let default = self.default.unwrap_or_default();
            (matches!(self.check, Check::Fixed) && !trimmed.eq_ignore_ascii_case(default))
                .then(|| format!("this broker supports only {default:?}"))
        })
    }

    fn integer<E>(&self, parsed: Result<i64, E>, width: &str) -> Option<String> {
        let Ok(number) = parsed else { return Some(format!("it must be a {width} integer")) };
        match self.check {
            Check::AtLeast(min) if number < min => Some(format!("it must be at least {min}")),
            Check::Between(min, max) if !(min..=max).contains(&number) => {
                Some(format!("it must be between {min} and {max}"))
            }
            _ => None,
        }
    }

    fn list_problem(&self, value: &str) -> Option<String> {
        match self.check {
            Check::OneOf(allowed) => {
                let mut elements: Vec<&str> = list(value).collect();
                let count = elements.len();
                elements.sort_unstable();
                elements.dedup();
                let is_wrong =
                    count == 0 || elements.len() != count || elements.iter().any(|e| !allowed.contains(e));
                is_wrong.then(|| format!("it must be a list of some of {}", allowed.join(", ")))
            }
            Check::Replicas => ThrottledReplicas::read(value).is_none().then(|| {
                "it must be the literal '*' or a list of replicas in the form of \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                    .to_owned()
            }),
            _ => None,
        }
    }
}

/// The elements of a list's text.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// The replicas whose replication is throttled (KIP-73), as `leader.replication.throttled.replicas` and
/// `follower.replication.throttled.replicas` of a topic say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All of the topic.
    All,
    /// Those of these partitions, each on this broker.
    Some(Vec<(i32, i32)>),
}

impl ThrottledReplicas {
    /// Reads the configuration's value; none where it is not valid.
    #[must_use]
    pub fn read(value: &str) -> Option<Self> {
        let mut elements = list(value).peekable();
        if elements.peek().is_none() {
            return Some(Self::None);
        }
        if value.trim() == "*" {
            return Some(Self::All);
        }
        let pair = |element: &str| {
            let (partition, broker) = element.split_once(':')?;
            let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| *number >= 0);
            Some((number(partition)?, number(broker)?))
        };
        elements.map(pair).collect::<Option<Vec<_>>>().map(Self::Some)
    }

    /// Whether the replica of a partition on a broker is among them.
    #[must_use]
    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(pairs) => pairs.contains(&(partition, broker)),
        }
    }
}

/// One value that a configuration has, or would have if another did not hide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigValue<'a> {
    /// The name under which it is set.
    pub name: &'static str,
    /// The value.
    pub value: &'a str,
    /// Where it is set.
    pub source: ConfigSource,
}

/// The configurations of one broker, by the brokers' names: what was set for it while it runs, what was set for all
/// brokers, and what stands in its own file.
#[derive(Debug, Clone, Copy)]
pub struct BrokerLayers<'a> {
    /// Set for this broker while it runs.
    pub own: &'a BTreeMap<String, String>,
    /// Set for all brokers while they run.
    pub all: &'a BTreeMap<String, String>,
    /// In the broker's file.
    pub file: &'a BTreeMap<String, String>,
}

impl<'a> BrokerLayers<'a> {
    /// The values of a configuration that can be set under any of these names, the one in force first, in Kafka's order:
    /// by source, and within a source in the order of the names.
    #[must_use]
    pub fn values(&self, keys: &[ConfigKey]) -> Vec<ConfigValue<'a>> {
        let set = [
            (self.own, ConfigSource::DynamicBroker),
            (self.all, ConfigSource::DynamicDefault),
            (self.file, ConfigSource::Broker),
        ];
        let mut values = Vec::with_capacity(4);
        for (configs, source) in set {
            values.extend(keys.iter().filter_map(|key| {
                let value = configs.get(key.name)?;
                Some(ConfigValue { name: key.name, value, source })
            }));
        }
        values.extend(keys.iter().filter_map(|key| {
            Some(ConfigValue { name: key.name, value: key.default?, source: ConfigSource::Default })
        }));
        values
    }
}

/// The synonyms of a configuration as DescribeConfigs shows them: its values from the first on that is set under its own
/// name.
#[must_use]
pub fn synonyms<'a>(name: &str, mut values: Vec<ConfigValue<'a>>) -> Vec<ConfigValue<'a>> {
    let first = values.iter().position(|value| value.name == name).unwrap_or(values.len());
    values.split_off(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(config_type: ConfigType, check: Check) -> ConfigKey {
        ConfigKey { name: "k", config_type, default: Some("7"), check, doc: "d" }
    }

    #[test]
    fn values_fit_their_types() {
        for (config_type, check, good, bad) in [
            (ConfigType::Boolean, Check::Any, " TRUE ", "1"),
            (ConfigType::Short, Check::Any, "-1", "40000"),
            (ConfigType::Int, Check::AtLeast(2), "2", "1"),
            (ConfigType::Int, Check::Any, "2147483647", "2147483648"),
            (ConfigType::Long, Check::Between(1, 3), "3", "4"),
            (ConfigType::Long, Check::Fixed, "7", "8"),
            (ConfigType::Double, Check::Fraction, "0.5", "2"),
            (ConfigType::String, Check::OneOf(&["a", "b"]), "b", "c"),
            (ConfigType::List, Check::OneOf(&["a", "b"]), "b, a", "a,a"),
            (ConfigType::List, Check::Replicas, "0:1, 2:3", "0:1,2"),
            (ConfigType::List, Check::Replicas, "*", "*,*"),
            (ConfigType::List, Check::Replicas, "", "0:-1"),
        ] {
            let key = key(config_type, check);
            assert_eq!(key.check(good), Ok(()), "{good:?}");
            assert!(key.check(bad).is_err(), "{bad:?}");
        }
        let secret = key(ConfigType::Password, Check::OneOf(&["x"]));
        let told = secret.check("hunter2").unwrap_err().to_string();
        assert!(!told.contains("hunter2"), "R13: {told}");
    }

    #[test]
    fn throttled_replicas_are_found() {
        let some = ThrottledReplicas::read("0:1,3:2").unwrap();
        assert!(some.contains(3, 2) && !some.contains(3, 1));
        assert!(ThrottledReplicas::read(" * ").unwrap().contains(9, 9));
        assert!(!ThrottledReplicas::read(" ").unwrap().contains(0, 0));
    }

    #[test]
    fn the_values_of_a_configuration_are_in_kafkas_order() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let (own, all) = (map(&[("ms", "1")]), map(&[("ms", "2")]));
        let file = map(&[("ms", "3"), ("hours", "4")]);
        let layers = BrokerLayers { own: &own, all: &all, file: &file };
        let ms = ConfigKey { name: "ms", default: None, ..key(ConfigType::Long, Check::Any) };
        let hours = ConfigKey { name: "hours", ..ms };
        let hours = ConfigKey { default: Some("168"), ..hours };
        let told = |keys: &[ConfigKey]| {
            let values = layers.values(keys);
            values.iter().map(|it| (it.name, it.value.to_owned(), it.source as i8)).collect::<Vec<_>>()
        };
        let text = str::to_owned;
        assert_eq!(
            told(&[ms, hours]),
            [
                ("ms", text("1"), 2),
                ("ms", text("2"), 3),
                ("ms", text("3"), 4),
                ("hours", text("4"), 4),
                ("hours", text("168"), 5)
            ]
        );
        assert_eq!(synonyms("hours", layers.values(&[ms, hours])).len(), 2);
        assert!(synonyms("minutes", layers.values(&[ms, hours])).is_empty());
    }
}
