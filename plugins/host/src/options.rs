//! One entry of `plugins:` in the YAML.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use towpath_api::{ConfigProblem, ConfigProblems, ConfigSpec, OptionSpec, OptionType, RawConfig};

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

/// A parsed entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// The hash that the file must have, in lower case.
    pub(crate) sha256: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
}

/// The options of an entry.
pub(crate) fn spec() -> ConfigSpec {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or_default();
    ConfigSpec::new(vec![
        OptionSpec::required(
            "path",
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
        let mut wrong = |name: &str, message: &str| problems.problems.push(ConfigProblem::new(name, message));
        let sha256 = config.opt_str("sha256").map(str::to_ascii_lowercase);
        if sha256
            .as_ref()
            .is_some_and(|hash| hash.len() != 64 || !hash.bytes().all(|it| it.is_ascii_hexdigit()))
        {
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
        problems.into_result()?;
        Ok(Self { path: config.str("path").into(), sha256, limits: Limits { memory, time, wait }, grants })
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
        assert_eq!(entry.sha256.unwrap(), "ab".repeat(32));
        let problems =
            read(json!({"path": "a.wasm", "sha256": "xyz", "memory": 1, "time": 0})).unwrap_err().problems;
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["sha256", "memory", "time"]);
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
