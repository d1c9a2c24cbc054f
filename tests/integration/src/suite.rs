//! Suites of other people's clients, held by lists.
//!
//! A suite is a program that takes `HOST:PORT` and prints a line for each of its cases: `ok NAME (SECONDS s)`,
//! `skipped NAME …` or `FAILED NAME (SECONDS s): MESSAGE`. The environment's `SUITE_CASES` names a file with the names
//! of those to run, all without it; `SUITE_DATA_DIR` the folder in which the broker keeps its files.
//!
//! Beside the program lie three lists. `tests.allow` are the cases that have to pass against Towpath (`# again`: the
//! client's own race may fail it, so it has three tries). `tests.missing` are those that do not yet, each with its
//! reason; a reason that begins with `excluded` says that it cannot be had, from any broker or from ours for good.
//! `tests.smoke` are those which `.ci/run` runs, as far as they are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use towpath_harness::{Guarded, TempDir};

/// How often a case runs that may fail by its client's fault.
const TRIES: u32 = 3;

/// What is expected of a suite's cases.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Those that have to pass; whether the client itself may fail it.
    pub allow: BTreeMap<String, bool>,
    /// Those that do not pass, and why.
    pub missing: BTreeMap<String, String>,
    /// Those that run in `.ci/run`.
    pub smoke: BTreeSet<String>,
}

/// Lines of a list: name, and what is said after `#`.
fn lines(path: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let split = |line: &str| {
        // Names of tests may have a # of their own, but none with spaces around it.
        let (name, comment) = line.split_once(" # ").unwrap_or((line, ""));
        (name.trim().to_owned(), comment.trim().to_owned())
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    Ok(lines.map(split).collect())
}

impl Lists {
    /// Reads the lists of a folder.
    ///
    /// # Errors
    /// If one cannot be read, or a case stands in two.
    pub fn read(folder: &Path) -> Result<Self> {
        let allow = lines(&folder.join("tests.allow"))?;
        let allow: BTreeMap<_, _> = allow.into_iter().map(|(name, more)| (name, more == "again")).collect();
        let missing: BTreeMap<_, _> = lines(&folder.join("tests.missing"))?.into_iter().collect();
        let smoke = lines(&folder.join("tests.smoke"))?.into_iter().map(|(name, _)| name).collect();
        for (name, reason) in &missing {
            if allow.contains_key(name) {
                bail!("{name} is both allowed and missing in {}", folder.display());
            }
            if reason.is_empty() {
                bail!("{name} is missing without a reason in {}", folder.display());
            }
        }
        Ok(Self { allow, missing, smoke })
    }

    /// Whether a case cannot be had, whatever the broker does.
    #[must_use]
    pub fn is_excluded(&self, name: &str) -> bool {
        self.missing.get(name).is_some_and(|reason| reason.starts_with("excluded"))
    }

    /// The cases that have to pass: against Towpath those allowed, against Apache Kafka all that are not excluded.
    #[must_use]
    pub fn required(&self, kafka: bool) -> BTreeSet<String> {
        let missing = self.missing.keys().filter(|name| kafka && !self.is_excluded(name));
        self.allow.keys().chain(missing).cloned().collect()
    }

    /// The required ones for `.ci/run`.
    #[must_use]
    pub fn smoke(&self) -> BTreeSet<String> {
        self.allow.keys().filter(|name| self.smoke.contains(*name)).cloned().collect()
    }
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// It does not apply.
    Skipped,
    /// With this message.
    Failed(String),
}

/// Cases with how they ended and the seconds that they took.
pub type Results = BTreeMap<String, (Outcome, f64)>;

/// Reads what a suite's program printed.
#[must_use]
pub fn parse(stdout: &str) -> Results {
    let mut results = Results::new();
    for line in stdout.lines() {
        let Some((verb, rest)) = line.split_once(' ') else { continue };
        // Names may hold spaces and brackets; the time is in the last ones before the message.
        let marker = rest.find(" s)").map(|end| rest.split_at(end));
        let (head, tail) = marker.unwrap_or((rest, ""));
        let (name, seconds) = head.rsplit_once(" (").unwrap_or((head, "0"));
        let outcome = match verb {
            "ok" => Outcome::Passed,
            "skipped" => Outcome::Skipped,
            "FAILED" => Outcome::Failed(tail.trim_start_matches(" s)").trim_start_matches(": ").to_owned()),
            _ => continue,
        };
        // The lists' names have no space at their end either.
        results.insert(name.trim_end().to_owned(), (outcome, seconds.parse().unwrap_or(0.0)));
    }
    results
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Required cases that did not pass, and cases that no list knows; with the reason.
    pub broken: BTreeMap<String, String>,
    /// Cases that passed, and are not allowed yet.
    pub ratchet: BTreeSet<String>,
    /// What the excluded ones say.
    pub excluded: BTreeMap<String, Outcome>,
    /// How many required cases passed.
    pub passed: usize,
    /// How long it took.
    pub seconds: f64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.ratchet {
            writeln!(f, "ratchet: {name} passes; move it to tests.allow")?;
        }
        for (name, outcome) in &self.excluded {
            writeln!(f, "excluded {name}: {outcome:?}")?;
        }
        for (name, reason) in &self.broken {
            writeln!(f, "BROKEN {name}: {reason}")?;
        }
        writeln!(f, "{} passed, {} failed", self.passed, self.broken.len())?;
        write!(f, "done in {:.1} s", self.seconds)
    }
}

/// Compares what came out with what had to.
#[must_use]
pub fn judge(lists: &Lists, required: &BTreeSet<String>, results: &Results) -> Verdict {
    let mut verdict = Verdict::default();
    for name in required {
        match results.get(name) {
            Some((Outcome::Passed, _)) => verdict.passed += 1,
            Some((Outcome::Skipped, _)) => drop(verdict.broken.insert(name.clone(), "skipped".to_owned())),
            Some((Outcome::Failed(why), _)) => drop(verdict.broken.insert(name.clone(), why.clone())),
            None => drop(verdict.broken.insert(name.clone(), "did not run".to_owned())),
        }
    }
    for (name, (outcome, _)) in results.iter().filter(|(name, _)| !required.contains(*name)) {
        let is_missing = lists.missing.contains_key(name);
        if !is_missing && !lists.allow.contains_key(name) && *outcome != Outcome::Skipped {
            verdict.broken.insert(name.clone(), format!("no list has it; it ended as {outcome:?}"));
        }
        if lists.is_excluded(name) {
            verdict.excluded.insert(name.clone(), outcome.clone());
        } else if is_missing && *outcome == Outcome::Passed {
            verdict.ratchet.insert(name.clone());
        }
    }
    verdict
}

/// Which cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of `.ci/run`.
    Smoke,
    /// All that have to pass.
    Required,
    /// All that there are.
    All,
}

/// Runs a suite: `command` makes its program's command, once for each try.
///
/// # Errors
/// If it cannot be run. What did not pass is in the verdict.
pub fn run(
    folder: &Path,
    which: Which,
    kafka: bool,
    timeout: Duration,
    command: impl Fn() -> Result<Command>,
) -> Result<Verdict> {
    let begin = Instant::now();
    let lists = Lists::read(folder)?;
    let required = if which == Which::Smoke { lists.smoke() } else { lists.required(kafka) };
    let chosen = (which != Which::All).then_some(&required);
    let mut results = once(chosen, timeout, &command)?;
    for _ in 1..TRIES {
        let failed: BTreeSet<String> = required
            .iter()
            .filter(|name| lists.allow.get(*name) == Some(&true))
            .filter(|name| results.get(*name).is_none_or(|(outcome, _)| *outcome != Outcome::Passed))
            .cloned()
            .collect();
        if failed.is_empty() {
            break;
        }
        results.extend(once(Some(&failed), timeout, &command)?);
    }
    let mut verdict = judge(&lists, &required, &results);
    verdict.seconds = begin.elapsed().as_secs_f64();
    Ok(verdict)
}

/// One run of the program; its errors are shown where cases failed.
fn once(
    chosen: Option<&BTreeSet<String>>,
    timeout: Duration,
    command: &impl Fn() -> Result<Command>,
) -> Result<Results> {
    let folder = TempDir::new("suite")?;
    let mut command = command()?;
    if let Some(chosen) = chosen {
        let list = folder.join("cases");
        let text: String = chosen.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(&list, text).context("cannot write the list of cases")?;
        command.env("SUITE_CASES", list);
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let output = Guarded::output(&name, command, timeout)?;
    let results = parse(&output.stdout);
    if results.is_empty() {
        bail!("{name} ended with {} and ran nothing\n{}{}", output.status, output.stdout, output.stderr);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let results = parse(
            "begin\nok A.b (0.01 s)\nFAILED spaces (and brackets) (12.50 s): why (1 s) not\nskipped c\n\
             ok x # y (1 s)\n3 passed, 1 failed\n",
        );
        assert_eq!(results.len(), 4);
        assert_eq!(results["A.b"], (Outcome::Passed, 0.01));
        assert_eq!(results["spaces (and brackets)"], (Outcome::Failed("why (1 s) not".to_owned()), 12.5));
        assert_eq!(results["c"].0, Outcome::Skipped);
        assert_eq!(results["x # y"].0, Outcome::Passed);
    }

    #[test]
    fn verdicts() {
        let map = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), false)).collect();
        let missing = [("m", "transactions"), ("x", "excluded: TLS")];
        let missing = missing.map(|(name, why)| (name.to_owned(), why.to_owned())).into();
        let smoke = ["a", "m"].map(str::to_owned).into();
        let lists = Lists { allow: map(&["a", "b"]), missing, smoke };
        assert_eq!(lists.smoke(), ["a".to_owned()].into());
        assert_eq!(lists.required(false).len(), 2);
        assert_eq!(lists.required(true).len(), 3);
        let results = parse("ok a (1 s)\nFAILED b (1 s): no\nok m (1 s)\nok x (1 s)\nok new (1 s)\n");
        let verdict = judge(&lists, &lists.required(false), &results);
        assert_eq!((verdict.passed, verdict.broken.len()), (1, 2), "{verdict}");
        assert_eq!(verdict.ratchet, ["m".to_owned()].into());
        assert!(verdict.broken["new"].contains("no list"));
    }
}
