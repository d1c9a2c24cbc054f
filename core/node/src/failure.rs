//! How a command fails: a message on standard error, a hint, and an exit code that is not 0.

use std::fmt;

use towpath_config::Problems;

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration has problems (exit code 2); nothing was started.
    Config(Problems),
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
            Self::Other { .. } | Self::Told => 1,
            Self::BrokenPipe => 0,
        }
    }

    /// Tells standard error.
    pub(crate) fn report(&self, json: bool) {
        match self {
            Self::Config(problems) if json => crate::eprintln_safely(&problems.to_json().to_string()),
            Self::Config(problems) => {
                for report in problems.reports() {
                    crate::eprintln_safely(&format!("{report:?}"));
                }
                let count = problems.list().len();
                let noun = if count == 1 { "problem" } else { "problems" };
                crate::eprintln_safely(&format!("{count} {noun} in the configuration; nothing was started"));
            }
            Self::Other { message, hint } if json => {
                crate::eprintln_safely(&serde_json::json!({ "error": message, "hint": hint }).to_string());
            }
            Self::Other { message, hint } => {
                crate::eprintln_safely(&format!("error: {message}"));
                if let Some(hint) = hint {
                    crate::eprintln_safely(&format!(" hint: {hint}"));
                }
            }
            Self::Told | Self::BrokenPipe => {}
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
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
