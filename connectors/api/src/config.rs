//! How a connector declares its options. One declaration yields validation with line and column, the JSON Schema,
//! the documentation of `towpath connectors types`, and the typed values.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What kind of thing a descriptor describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorKind {
    /// Brings records in.
    Source,
    /// Carries records out.
    Sink,
    /// Changes records on their way.
    Transform,
}

/// What survives a crash, seen from the connector's far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Nothing is lost; after a crash some records can come twice.
    AtLeastOnce,
    /// Nothing is lost and nothing comes twice.
    ExactlyOnce,
}

impl Guarantee {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}

/// A connector type: its name in the YAML and everything that validation and documentation need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// `type:` in the YAML.
    pub name: String,
    /// Source, sink or transform.
    pub kind: ConnectorKind,
    /// The connector's own version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// What it promises across crashes; transforms promise nothing of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// The options.
    pub options: ConfigSpec,
}

/// The options of a connector or of a nested object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigSpec {
    /// In the order in which they are documented.
    pub options: Vec<OptionSpec>,
}

impl ConfigSpec {
    /// These options.
    #[must_use]
    pub const fn new(options: Vec<OptionSpec>) -> Self {
        Self { options }
    }

    /// The option called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OptionSpec> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionSpec {
    /// The key in the YAML.
    pub name: String,
    /// What it does, in a sentence or two.
    pub doc: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub ty: OptionType,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// What counts when it is not given, in the normal form of [`RawConfig`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Json>,
    /// Whether its value must never be shown (R13).
    #[serde(default)]
    pub secret: bool,
}

impl OptionSpec {
    /// An option that must be given.
    #[must_use]
    pub fn required(name: &str, ty: OptionType, doc: &str) -> Self {
        Self { name: name.into(), doc: doc.into(), ty, required: true, default: None, secret: false }
    }

    /// An option that may be left out, without a default.
    #[must_use]
    pub fn optional(name: &str, ty: OptionType, doc: &str) -> Self {
        Self { required: false, ..Self::required(name, ty, doc) }
    }

    /// An option that may be left out, with a default in the normal form of [`RawConfig`].
    #[must_use]
    pub fn with_default(name: &str, ty: OptionType, default: Json, doc: &str) -> Self {
        Self { default: Some(default), ..Self::optional(name, ty, doc) }
    }

    /// The same, never shown.
    #[must_use]
    pub fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// What an option takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionType {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds, both included.
    Int {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// Any text.
    String,
    /// Text that is not empty.
    NonEmptyString,
    /// A URL with one of these schemes; a password in it is a secret.
    Url {
        /// Without `://`.
        schemes: Vec<String>,
    },
    /// A path; a relative one is meant from the directory in which towpath was started.
    Path,
    /// A span of time: `500ms`, `10s`, `5m`, `2h`, `7d`. Normal form: milliseconds.
    Duration,
    /// An amount of memory or disk: `64KiB`, `16MiB`, `1GiB`, or a number of bytes. Normal form: bytes.
    ByteSize,
    /// One of these words.
    Enum(Vec<Choice>),
    /// Any number of values of one type.
    List(Box<OptionType>),
    /// Any keys, values of one type.
    Map(Box<OptionType>),
    /// A nested object.
    Object(ConfigSpec),
    /// A scalar of any type (a constant to insert, to compare with): text, number, boolean, null.
    Scalar,
    /// Any YAML.
    Any,
}

impl OptionType {
    /// An enum of these words with what each means.
    #[must_use]
    pub fn choices(choices: &[(&str, &str)]) -> Self {
        let choice = |(name, doc): &(&str, &str)| Choice { name: (*name).into(), doc: (*doc).into() };
        Self::Enum(choices.iter().map(choice).collect())
    }

    /// A list of values of `ty`.
    #[must_use]
    pub fn list(ty: Self) -> Self {
        Self::List(Box::new(ty))
    }

    /// A map to values of `ty`.
    #[must_use]
    pub fn map(ty: Self) -> Self {
        Self::Map(Box::new(ty))
    }

    /// A URL with one of `schemes`.
    #[must_use]
    pub fn url(schemes: &[&str]) -> Self {
        Self::Url { schemes: schemes.iter().map(|scheme| (*scheme).to_owned()).collect() }
    }

    /// A whole number from `min` to `max`.
    #[must_use]
    pub const fn int(min: i64, max: i64) -> Self {
        Self::Int { min, max }
    }
}

/// One word of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The word.
    pub name: String,
    /// What it means.
    pub doc: String,
}

/// A text that is never printed (R13).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; for the system it is meant for, and nobody else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A problem with one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The option, as a path below the connector (`tables[1]`, `batch.records`); empty for the connector itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to type instead.
    pub hint: Option<String>,
    /// A stable code, where whoever reads the problem should know it from others.
    pub code: Option<&'static str>,
}

impl ConfigProblem {
    /// A problem at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None, code: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a code.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

/// All problems of one connector's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigProblems {
    /// At least one.
    pub problems: Vec<ConfigProblem>,
}

impl ConfigProblems {
    fn lines(&self) -> String {
        let line = |problem: &ConfigProblem| match problem.path.as_str() {
            "" => problem.message.clone(),
            path => format!("{path}: {}", problem.message),
        };
        self.problems.iter().map(line).collect::<Vec<_>>().join("; ")
    }

    /// `Ok` when there is none.
    ///
    /// # Errors
    /// Itself, when there is one.
    pub fn into_result(self) -> Result<(), Self> {
        if self.problems.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<ConfigProblem> for ConfigProblems {
    fn from(problem: ConfigProblem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// A connector's options after validation: unknown keys are gone (they were problems), types fit the
/// [`ConfigSpec`], secrets are resolved, defaults are filled in, durations are milliseconds and sizes bytes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RawConfig {
    values: serde_json::Map<String, Json>,
}

impl fmt::Debug for RawConfig {
    /// Only the keys: values can be secrets (R13).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl RawConfig {
    /// Wraps values in normal form, for the validator and for tests.
    #[must_use]
    pub const fn new(values: serde_json::Map<String, Json>) -> Self {
        Self { values }
    }

    /// For tests and programs: values in normal form, with the defaults of `spec` filled in.
    ///
    /// # Errors
    /// A required option is missing, or an option is unknown.
    pub fn with_defaults(spec: &ConfigSpec, values: Json) -> Result<Self, ConfigProblems> {
        let Json::Object(mut values) = values else {
            return Err(ConfigProblem::new("", "options must be a map").into());
        };
        let mut problems = ConfigProblems::default();
        for key in values.keys().filter(|key| spec.get(key).is_none()) {
            problems.problems.push(ConfigProblem::new(key.as_str(), "unknown option"));
        }
        for option in
            spec.options.iter().filter(|option| !values.contains_key(&option.name)).collect::<Vec<_>>()
        {
            match &option.default {
                Some(default) => {
                    values.insert(option.name.clone(), default.clone());
                }
                None if option.required => {
                    problems.problems.push(ConfigProblem::new(option.name.as_str(), "is required"));
                }
                None => {}
            }
        }
        problems.into_result()?;
        Ok(Self { values })
    }

    /// All values.
    #[must_use]
    pub const fn values(&self) -> &serde_json::Map<String, Json> {
        &self.values
    }

    /// The connector's own options struct, by serde.
    ///
    /// # Errors
    /// A problem without a path, when struct and [`ConfigSpec`] disagree: a bug of the connector.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigProblems> {
        T::deserialize(Json::Object(self.values.clone()))
            .map_err(|error| ConfigProblem::new("", format!("the options cannot be read: {error}")).into())
    }

    /// The text of a required option.
    #[must_use]
    pub fn str(&self, name: &str) -> &str {
        self.values.get(name).and_then(Json::as_str).unwrap_or_default()
    }

    /// The text of an optional option.
    #[must_use]
    pub fn opt_str(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Json::as_str)
    }

    /// A number, duration (ms) or size (bytes).
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        self.values.get(name).and_then(Json::as_i64)
    }

    /// The entries of a nested object or map whose values are scalars, as texts; those that are null are left out.
    #[must_use]
    pub fn texts(&self, name: &str) -> BTreeMap<String, String> {
        let entries = self.values.get(name).and_then(Json::as_object).into_iter().flatten();
        let text = |(name, value): (&String, &Json)| match value {
            Json::Null => None,
            Json::String(text) => Some((name.clone(), text.clone())),
            other => Some((name.clone(), other.to_string())),
        };
        entries.filter_map(text).collect()
    }

    /// A boolean; absent is false.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        self.values.get(name).and_then(Json::as_bool).unwrap_or_default()
    }

    /// The texts of a list; absent is empty.
    #[must_use]
    pub fn strings(&self, name: &str) -> Vec<String> {
        let items = self.values.get(name).and_then(Json::as_array);
        items.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// A secret text.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.opt_str(name).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> ConfigSpec {
        ConfigSpec::new(vec![
            OptionSpec::required("url", OptionType::url(&["http", "https"]), "Where to.").secret(),
            OptionSpec::with_default("retries", OptionType::int(0, 9), json!(3), "How often."),
        ])
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problems = RawConfig::with_defaults(&spec(), json!({"uri": 1, "retrys": 2})).unwrap_err();
        let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["uri", "retrys", "url"]);
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = RawConfig::with_defaults(&spec(), json!({"url": "http://u:pw@h"})).unwrap();
        assert_eq!(config.int("retries"), Some(3));
        assert!(!format!("{config:?} {:?}", config.secret("url")).contains("pw"));
    }
}
