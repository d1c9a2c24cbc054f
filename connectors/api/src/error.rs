//! How a connector says that something went wrong: classified here, retried elsewhere (only the runtime retries).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// Codes that plugins bring along, kept for ever: every one after these keeps the code that it was made with.
const CODES_MAX: usize = 1024;
const CODE_BYTES_MAX: usize = 64;
static CODES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// What the runtime does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The world may heal by itself (a lost connection, a server that starts): the task is restarted with backoff,
    /// and not before this much time has passed.
    RetryAfter(Duration),
    /// Somebody has to change something outside (a privilege, a setting, a full disk); the task keeps probing
    /// slowly and says so in the status.
    NeedsOperator,
    /// Going on would lose or falsify data, or can never work; the task stays FAILED until it is restarted by hand.
    Terminal,
    /// A broken assumption inside Towpath or the connector; treated as [`ErrorKind::Terminal`].
    Bug,
}

impl ErrorKind {
    /// The word that stands in the status and in `--json` output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetryAfter(_) => "retry_after",
            Self::NeedsOperator => "needs_operator",
            Self::Terminal => "terminal",
            Self::Bug => "bug",
        }
    }
}

/// An error of a connector. Its text must hold no secret (R13); the runtime redacts known secrets once more.
#[derive(Debug)]
pub struct ConnectorError {
    code: &'static str,
    kind: ErrorKind,
    message: String,
    path: Option<String>,
    hint: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ConnectorError {
    /// An error with a stable `code` in upper snake case (`PG_WAL_LEVEL`), which users look up and alert on.
    #[must_use]
    pub fn new(code: &'static str, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { code, kind, message: message.into(), path: None, hint: None, cause: None }
    }

    /// A passing fault: the task is restarted after at least one second.
    #[must_use]
    pub fn retry(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, ErrorKind::RetryAfter(Duration::from_secs(1)), message)
    }

    /// Somebody has to act.
    #[must_use]
    pub fn needs_operator(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, ErrorKind::NeedsOperator, message)
    }

    /// Nothing can be done by trying again.
    #[must_use]
    pub fn terminal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, ErrorKind::Terminal, message)
    }

    /// A broken assumption of ours.
    #[must_use]
    pub fn bug(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, ErrorKind::Bug, message)
    }

    /// The same under a code that is known at run time only, a plugin's own. What is no code in upper snake case of at
    /// most 64 bytes, or one too many, changes nothing.
    #[must_use]
    pub fn with_code(mut self, code: &str) -> Self {
        let legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=CODE_BYTES_MAX).contains(&code.len()) || !code.bytes().all(legal) {
            return self;
        }
        let mut codes = CODES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match codes.get(code) {
            Some(known) => self.code = known,
            None if codes.len() < CODES_MAX => {
                // R10: codes are `&'static` everywhere, and those of plugins are few.
                self.code = Box::leak(code.to_owned().into_boxed_str());
                codes.insert(self.code);
            }
            None => {}
        }
        self
    }

    /// What the user can type or change.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The option at fault, as a path below the connector (`tables[1]`).
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What the runtime does about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without code, hint and causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The option at fault, if one is.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message and every cause below it, in one line.
    #[must_use]
    pub fn full_message(&self) -> String {
        let mut text = self.message.clone();
        let mut cause: Option<&dyn std::error::Error> = self.cause.as_deref().map(|cause| cause as _);
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
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.full_message(), self.code)
    }
}

impl std::error::Error for ConnectorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_plugins_are_codes_and_bounded() {
        let error = || ConnectorError::retry("PLUGIN_ERROR", "it failed");
        assert_eq!(error().with_code("REDIS_AUTH").code(), "REDIS_AUTH");
        for none in ["", "redis", "A B", &"A".repeat(65)] {
            assert_eq!(error().with_code(none).code(), "PLUGIN_ERROR");
        }
        for number in 0..2 * CODES_MAX {
            let _ = error().with_code(&format!("CODE_{number}"));
        }
        assert_eq!(error().with_code("REDIS_AUTH").code(), "REDIS_AUTH");
        assert_eq!(error().with_code("ONE_MORE").code(), "PLUGIN_ERROR");
    }
}
