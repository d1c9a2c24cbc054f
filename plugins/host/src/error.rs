//! What goes wrong with plugins.

use std::time::Duration;

use towpath_api::{ConnectorError, Redactor};
use towpath_store::{ContentHash, StoreError};
use towpath_types::limits::PLUGIN_TEXT_BYTES_MAX;
use wasmtime::Trap;

use super::bindings::towpath::plugin::types;
use super::state::State;

/// A component that cannot be used as a plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The file cannot be read, or is too large.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is another file than the one that was pinned.
    #[error("its SHA-256 is {actual}, and {expected} was asked for")]
    OtherContent {
        /// What the user wrote.
        expected: ContentHash,
        /// What the file has.
        actual: ContentHash,
    },
    /// It is not found by its name and version, not the one that was locked, or not signed as it must be.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no WASM component: truncated, a core module, something else.
    #[error("this is no WASM component: {0}")]
    NoComponent(String),
    /// It wants what no plugin gets.
    #[error("it imports {0}, and a plugin has no such thing")]
    Import(String),
    /// It was made for another version of the contract.
    #[error("it was made for {0}, and this Towpath knows {known}", known = super::component::CONTRACT)]
    Version(String),
    /// It fits no world.
    #[error("it exports no source, sink or transform")]
    NoWorld,
    /// It cannot be linked or started.
    #[error("it cannot be started: {0}")]
    Start(String),
    /// It says something impossible of itself.
    #[error("what it says of itself cannot be: {0}")]
    Description(String),
    /// A call ended otherwise than by returning.
    #[error("{message}")]
    Call {
        /// `PLUGIN_TRAP`, `PLUGIN_TIMEOUT` or `PLUGIN_MEMORY`.
        code: &'static str,
        /// What happened.
        message: String,
    },
}

impl PluginError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let words = match self {
            Self::Store(error) => return error.hint(),
            Self::Unreadable { .. } => {
                "relative paths are meant from the directory in which towpath was started"
            }
            Self::OtherContent { .. } => {
                "if the new file is meant, write its hash; `towpath plugin inspect` shows it"
            }
            Self::NoComponent(_) => "`towpath plugin build` makes a component out of a plugin's source",
            Self::Import(_) => {
                "build it for wasm32-unknown-unknown, without WASI; `towpath plugin build` does"
            }
            Self::Version(_) => "build it with the SDK of this Towpath",
            Self::NoWorld => "an SDK's export macro makes it one",
            Self::Call { code: "PLUGIN_MEMORY", .. } => {
                "raise `memory` of the plugin, or send it smaller batches"
            }
            Self::Call { code: "PLUGIN_TIMEOUT", .. } => "raise `time` of the plugin, if it needs that long",
            _ => return None,
        };
        Some(words.to_owned())
    }

    /// A stable code, where the kind of error has one of its own.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => Some(error.code()),
            Self::Call { code, .. } => Some(code),
            _ => None,
        }
    }

    /// How the runtime sees it.
    pub(crate) fn into_connector_error(self) -> ConnectorError {
        let code = self.code().unwrap_or("PLUGIN_START");
        let error = ConnectorError::retry(code, self.to_string());
        match self.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// Why a call into a store ended.
    pub(crate) fn of_call(error: &wasmtime::Error, state: &State, time: Duration) -> Self {
        let trap = error.downcast_ref::<Trap>();
        let (code, message) = if trap == Some(&Trap::Interrupt) {
            ("PLUGIN_TIMEOUT", format!("a call of the plugin took longer than {time:?}"))
        } else if state.memory_denied {
            (
                "PLUGIN_MEMORY",
                format!("the plugin wanted more than its {} bytes of memory", state.plugin.limits.memory),
            )
        } else if let Some(trap) = trap {
            ("PLUGIN_TRAP", format!("the plugin crashed: {trap}"))
        } else {
            ("PLUGIN_TRAP", format!("the plugin was stopped: {}", error.root_cause()))
        };
        let said = state.last_error.as_ref().map(|line| format!("; it said: {line}")).unwrap_or_default();
        Self::Call { code, message: format!("{message}{said}") }
    }
}

/// At most `max` bytes of a text that a guest chose.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// The error of an answer that cannot be (R11).
pub(crate) fn answer(what: &str) -> ConnectorError {
    ConnectorError::retry("PLUGIN_ANSWER", format!("what the plugin returned cannot be: {what}"))
}

/// What a guest says of a failure, as an error of ours (R13: without the secrets of its configuration).
pub(crate) fn failure(error: types::Error, redactor: &Redactor) -> ConnectorError {
    match error {
        types::Error::RetryAfter(retry) => {
            let delay = Duration::from_millis(retry.delay_ms.min(86_400_000));
            details(towpath_api::ErrorKind::RetryAfter(delay), retry.details, redactor)
        }
        types::Error::NeedsOperator(said) => details(towpath_api::ErrorKind::NeedsOperator, said, redactor),
        types::Error::Terminal(said) => details(towpath_api::ErrorKind::Terminal, said, redactor),
    }
}

/// An error out of what a guest said.
pub(crate) fn details(
    kind: towpath_api::ErrorKind,
    said: types::Details,
    redactor: &Redactor,
) -> ConnectorError {
    let clean = |text: &str| cut(&redactor.redact(text), PLUGIN_TEXT_BYTES_MAX).to_owned();
    let mut error = ConnectorError::new("PLUGIN_ERROR", kind, clean(&said.message)).with_code(&said.code);
    if let Some(hint) = said.hint {
        error = error.with_hint(clean(&hint));
    }
    if let Some(path) = said.path {
        error = error.with_path(clean(&path));
    }
    error
}
