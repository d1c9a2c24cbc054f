//! One entry of `plugins:` in the YAML.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use towpath_api::{ConfigProblem, ConfigProblems, ConfigSpec, OptionSpec, OptionType, RawConfig};
use towpath_store::{ContentHash, Reference, StoreError};

use super::grants::Grants;

const MEMORY_DEFAULT: usize = 64 * 1024 * 1024;
const MEMORY_MIN: usize = 1024 * 1024;
const MEMORY_MAX: usize = 4 * 1024 * 1024 * 1024 - 64 * 1024;
const TIME_DEFAULT: Duration = Duration::from_secs(5);
const TIME_MAX: Duration = Duration::from_secs(3600);
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// What an instance may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of memory.
    pub(crate) memory: usize,
    /// How long one call may take.
    pub(crate) time: Duration,
    /// How long all waits of one call for what is outside may take, on top.
    pub(crate) wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: MEMORY_DEFAULT, time: TIME_DEFAULT, wait: WAIT_DEFAULT }
    }
}

/// The options that say which component is meant; an entry has one of them.
pub(crate) const PATH: &str = "path";
pub(crate) const PLUGIN: &str = "plugin";

/// Which component an entry means.
#[derive(Debug, Clone)]
pub(crate) enum Meant {
    /// `path:`
    File(PathBuf),
    /// `plugin:`
    Named(Reference),
}

impl Meant {
    /// The option that says so.
    pub(crate) const fn option(&self) -> &'static str {
        match self {
            Self::File(_) => PATH,
            Self::Named(_) => PLUGIN,
        }
    }
}

/// A parsed entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) meant: Meant,
    /// The hash that the file must have.
    pub(crate) sha256: Option<ContentHash>,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
}

/// The options of an entry.
pub(crate) fn spec() -> ConfigSpec {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or_default();
    ConfigSpec::new(vec![
        OptionSpec::optional(
            PLUGIN,
            OptionType::NonEmptyString,
            "The plugin and its version, to be found in the plugin directory: `pii_mask@1.2.0` for this one version, or \
             `pii_mask@^1.2` for the one that the lock file names. An entry has this or `path`; where it has nothing else, \
             it can be written without `plugin:`.",
        ),
        OptionSpec::optional(
            PATH,
            OptionType::Path,
            "The component's file; a relative path is meant from the directory in which towpath was started.",
        ),
        OptionSpec::optional(
            "sha256",
            OptionType::NonEmptyString,
            "The hash that the file must have, in hexadecimal digits (`towpath plugin inspect` shows it): another \
             file is refused.",
        ),
        OptionSpec::with_default(
            "memory",
            OptionType::ByteSize,
            json!(MEMORY_DEFAULT),
            "The memory that each task's instance may have. A plugin that wants more is stopped.",
        ),
        OptionSpec::with_default(
            "time",
            OptionType::Duration,
            json!(millis(TIME_DEFAULT)),
            "How long one call may take, a call being one batch. A plugin that takes longer is stopped.",
        ),
        OptionSpec::with_default(
            "wait",
            OptionType::Duration,
            json!(millis(WAIT_DEFAULT)),
            "How long one call may wait for HTTP and TCP, all its waits together; this does not count as its time.",
        ),
        OptionSpec::optional(
            "grants",
            OptionType::Object(super::grants::spec()),
            "What the plugin may reach and use. What is not written here is refused.",
        ),
    ])
}

impl Entry {
    /// Reads options in normal form.
    pub(crate) fn read(config: &RawConfig) -> Result<Self, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let meant = meant(config).map_err(|problem| problems.problems.push(problem)).ok();
        let mut wrong = |name: &str, message: &str| problems.problems.push(ConfigProblem::new(name, message));
        let sha256 = config.opt_str("sha256").map(ContentHash::parse);
        if sha256 == Some(None) {
            wrong("sha256", "a SHA-256 has 64 hexadecimal digits");
        }
        let memory =
            config.int("memory").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(MEMORY_DEFAULT);
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
            wrong("memory", "a plugin has at least 1MiB of memory, and less than 4GiB");
        }
        let time = config.int("time").and_then(|millis| u64::try_from(millis).ok());
        let time = time.map_or(TIME_DEFAULT, Duration::from_millis);
        if time.is_zero() || time > TIME_MAX {
            wrong("time", "a call may take between 1ms and 1h");
        }
        let wait = config.int("wait").and_then(|millis| u64::try_from(millis).ok());
        let wait = wait.map_or(WAIT_DEFAULT, Duration::from_millis);
        if wait > TIME_MAX {
            wrong("wait", "a call may wait for 1h at most");
        }
        let grants = Grants::read(config, &mut problems.problems);
        let limits = Limits { memory, time, wait };
        match meant.filter(|_| problems.problems.is_empty()) {
            Some(meant) => Ok(Self { meant, sha256: sha256.flatten(), limits, grants }),
            None => Err(problems),
        }
    }
}

/// What `path:` or `plugin:` says.
fn meant(config: &RawConfig) -> Result<Meant, ConfigProblem> {
    match (config.opt_str(PATH), config.opt_str(PLUGIN)) {
        (Some(path), None) => Ok(Meant::File(path.into())),
        (None, Some(text)) => {
            Reference::parse(text).map(Meant::Named).map_err(|error| problem(PLUGIN, &error))
        }
        (Some(_), Some(_)) => {
            let message = "`plugin` and `path` both say which component is meant";
            Err(ConfigProblem::new(PLUGIN, message).with_hint("keep one of them"))
        }
        (None, None) => {
            let message = "it is not said which component is meant";
            Err(ConfigProblem::new("", message).with_hint(
                "add `plugin: NAME@VERSION` for one in the plugin directory, or `path:` for the file of a component",
            ))
        }
    }
}

/// An error of the store's at an option.
pub(crate) fn problem(option: &str, error: &StoreError) -> ConfigProblem {
    let problem = ConfigProblem::new(option, error.to_string()).with_code(error.code());
    match error.hint() {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_bounds() {
        let read = |values| Entry::read(&RawConfig::with_defaults(&spec(), values).unwrap());
        let entry = read(json!({"path": "a.wasm", "sha256": "AB".repeat(32)})).unwrap();
        assert_eq!((entry.limits.memory, entry.limits.time), (64 << 20, Duration::from_secs(5)));
        assert_eq!(entry.sha256.unwrap().to_string(), "ab".repeat(32));
        let problems =
            read(json!({"path": "a.wasm", "sha256": "xyz", "memory": 1, "time": 0})).unwrap_err().problems;
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["sha256", "memory", "time"]);
        for (values, path, says) in [
            (json!({}), "", "not said which component"),
            (json!({"path": "a.wasm", "plugin": "a@1.0.0"}), "plugin", "both say"),
            (json!({"plugin": "a"}), "plugin", "has no version"),
            (json!({"plugin": "a@1.2"}), "plugin", "more than one version"),
        ] {
            let problems = read(values).unwrap_err().problems;
            assert_eq!((problems.len(), problems[0].path.as_str()), (1, path), "{problems:?}");
            assert!(problems[0].message.contains(says) && problems[0].hint.is_some(), "{problems:?}");
        }
        assert!(matches!(read(json!({"plugin": "a@^1.2"})).unwrap().meant, Meant::Named(_)));
        towpath_api::conformance::descriptor(&towpath_api::Descriptor {
            name: "plugins".to_owned(),
            kind: towpath_api::ConnectorKind::Transform,
            version: "1".to_owned(),
            summary: "An entry.".to_owned(),
            guarantee: None,
            options: spec(),
        })
        .unwrap();
    }
}
