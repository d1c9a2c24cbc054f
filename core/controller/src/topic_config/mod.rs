//! Topic configurations: every one declared once, with its type, default, check and documentation.

mod table;
mod typed;

pub use table::KEYS;
pub use typed::{CleanupPolicy, ConfigSource, TopicCompression, TopicConfig};

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
    /// A 64-bit integer.
    Long = 5,
    /// A floating-point number.
    Double = 6,
    /// Texts, separated by commas.
    List = 7,
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
    /// Only the default: Towpath does not have what another value asks for.
    Fixed,
}

/// One topic configuration.
#[derive(Debug, Clone, Copy)]
pub struct TopicConfigKey {
    /// Its name.
    pub name: &'static str,
    /// The name of the broker's setting that is the default of all topics, if there is one.
    pub broker_name: Option<&'static str>,
    /// Its type.
    pub config_type: ConfigType,
    /// Its default.
    pub default: &'static str,
    /// What its value must be.
    pub check: Check,
    /// What it does.
    pub doc: &'static str,
}

/// A configuration that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// No topic configuration has this name.
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
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
    let key = key(name).ok_or_else(|| ConfigProblem::Unknown(name.to_owned()))?;
    match key.problem(value) {
        None => Ok(key),
        Some(problem) => Err(ConfigProblem::Value { name: key.name, value: value.to_owned(), problem }),
    }
}

/// The elements of a list's text.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty())
}

impl TopicConfigKey {
    /// What is wrong with a value; `None` when nothing is.
    fn problem(&self, value: &str) -> Option<String> {
        let trimmed = value.trim();
        match self.config_type {
            ConfigType::Boolean => {
                let boolean = trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false");
                if !boolean {
                    return Some("it must be true or false".to_owned());
                }
            }
            ConfigType::Int => match trimmed.parse::<i32>() {
                Ok(number) => return self.out_of_range(i64::from(number)),
                Err(_) => return Some("it must be a 32-bit integer".to_owned()),
            },
            ConfigType::Long => match trimmed.parse::<i64>() {
                Ok(number) => return self.out_of_range(number),
                Err(_) => return Some("it must be a 64-bit integer".to_owned()),
            },
            ConfigType::Double => match trimmed.parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) || !matches!(self.check, Check::Fraction) => {}
                Ok(_) => return Some("it must be between 0 and 1".to_owned()),
                Err(_) => return Some("it must be a number".to_owned()),
            },
            ConfigType::String => {
                if let Check::OneOf(allowed) = self.check
                    && !allowed.contains(&trimmed)
                {
                    return Some(format!("it must be one of {}", allowed.join(", ")));
                }
            }
            ConfigType::List => {
                if let Check::OneOf(allowed) = self.check {
                    let mut elements: Vec<&str> = list(value).collect();
                    let count = elements.len();
                    elements.sort_unstable();
                    elements.dedup();
                    if count == 0 || elements.len() != count || elements.iter().any(|e| !allowed.contains(e))
                    {
                        return Some(format!("it must be a list of some of {}", allowed.join(", ")));
                    }
                }
            }
        }
        (matches!(self.check, Check::Fixed) && !trimmed.eq_ignore_ascii_case(self.default))
            .then(|| format!("this broker supports only {:?}", self.default))
    }

    fn out_of_range(&self, number: i64) -> Option<String> {
        match self.check {
            Check::AtLeast(min) if number < min => Some(format!("it must be at least {min}")),
            Check::Between(min, max) if !(min..=max).contains(&number) => {
                Some(format!("it must be between {min} and {max}"))
            }
            Check::Fixed if number.to_string() != self.default => {
                Some(format!("this broker supports only {}", self.default))
            }
            _ => None,
        }
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
