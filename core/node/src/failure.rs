//! How a command fails: a message on standard error, a hint, and an exit code that is not 0.

use std::fmt;

use towpath_config::Problems;

use super::output::{tell, tell_problems};

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration has problems (exit code 2); nothing was started.
    Config(Problems),
    /// Systems that the configuration names lack something (exit code 1).
    Systems {
        /// What, each at its place in the files.
        problems: Problems,
        /// What that means, and what can be done about all of them.
        outcome: &'static str,
    },
    /// Something else went wrong (exit code 1).
    Other {
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The problem has been shown already (exit code 1).
    Told,
    /// The reader of our output has gone away (`| head`): not an error.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Other { message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(self, new: impl Into<String>) -> Self {
        match self {
            Self::Other { message, .. } => Self::Other { message, hint: Some(new.into()) },
            other => other,
        }
    }

    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Systems { .. } | Self::Other { .. } | Self::Told => 1,
            Self::BrokenPipe => 0,
        }
    }

    /// Tells standard error.
    pub(crate) fn report(&self, json: bool) {
        match self {
            Self::Config(problems) => {
                tell_problems(problems, json);
                tell_count(problems, "in the configuration; nothing was started", json);
            }
            Self::Systems { problems, outcome } => {
                tell_problems(problems, json);
                tell_count(problems, outcome, json);
            }
            Self::Other { message, hint } if json => {
                tell(&serde_json::json!({ "error": message, "hint": hint }).to_string());
            }
            Self::Other { message, hint } => {
                tell(&format!("error: {message}"));
                if let Some(hint) = hint {
                    tell(&format!(" hint: {hint}"));
                }
            }
            Self::Told | Self::BrokenPipe => {}
        }
    }
}

fn tell_count(problems: &Problems, outcome: &str, json: bool) {
    if !json {
        let count = problems.list().len();
        let noun = if count == 1 { "problem" } else { "problems" };
        tell(&format!("{count} {noun} {outcome}"));
    }
}

/// An error with every cause below it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) | Self::Systems { problems, .. } => problems.fmt(f),
            Self::Other { message, .. } => f.write_str(message),
            Self::Told => f.write_str("failed"),
            Self::BrokenPipe => f.write_str("output closed"),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::new(error.to_string())
        }
    }
}
