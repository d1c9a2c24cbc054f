//! How a plugin says that something went wrong. Only Towpath decides when to try again.

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The world may heal by itself: try again, and not before this many milliseconds have passed.
    RetryAfter(u64, Rejection),
    /// Somebody has to change something outside.
    NeedsOperator(Rejection),
    /// Going on would lose or falsify data, or can never work.
    Terminal(Rejection),
}

impl Error {
    /// A passing fault, tried again after at least a second.
    #[must_use]
    pub fn retry(code: &str, message: impl Into<String>) -> Self {
        Self::RetryAfter(1_000, Rejection::new(code, message))
    }

    /// Somebody has to act.
    #[must_use]
    pub fn needs_operator(code: &str, message: impl Into<String>) -> Self {
        Self::NeedsOperator(Rejection::new(code, message))
    }

    /// Nothing can be done by trying again.
    #[must_use]
    pub fn terminal(code: &str, message: impl Into<String>) -> Self {
        Self::Terminal(Rejection::new(code, message))
    }
}

/// What is told of a failure, of a call or of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A stable word in upper snake case, which users look up and alert on.
    pub code: String,
    /// One sentence, without secrets.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
    /// The option at fault, as a path below the connector.
    pub path: Option<String>,
}

impl Rejection {
    /// A code and a message.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: None, path: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
