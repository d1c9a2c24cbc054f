//! The options as the user gave them.

use std::collections::BTreeMap;

/// The value of one option, where there is no host to ask: in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A text.
    Text(String),
    /// A number, a duration in milliseconds, a size in bytes.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// A list of texts.
    Texts(Vec<String>),
}

/// The options of this instance, validated, with defaults filled in.
#[derive(Debug, Clone, Default)]
pub struct Config {
    #[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "the host is asked there"))]
    settings: BTreeMap<String, Setting>,
}

impl Config {
    /// Options for a test of a plugin.
    #[must_use]
    pub fn of(settings: impl IntoIterator<Item = (&'static str, Setting)>) -> Self {
        Self { settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }
}

#[cfg(target_arch = "wasm32")]
impl Config {
    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        crate::bindings::towpath::plugin::config::text(name)
    }

    /// A number, a duration in milliseconds, or a size in bytes.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        crate::bindings::towpath::plugin::config::integer(name)
    }

    /// True or false.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        crate::bindings::towpath::plugin::config::flag(name)
    }

    /// The texts of a list; empty where there is none.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        crate::bindings::towpath::plugin::config::texts(name)
    }

    /// Any option as JSON.
    #[must_use]
    pub fn json(&self, name: &str) -> Option<String> {
        crate::bindings::towpath::plugin::config::json(name)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Config {
    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        if let Some(Setting::Text(text)) = self.settings.get(name) { Some(text.clone()) } else { None }
    }

    /// A number, a duration in milliseconds, or a size in bytes.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        if let Some(Setting::Integer(number)) = self.settings.get(name) { Some(*number) } else { None }
    }

    /// True or false.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        if let Some(Setting::Flag(flag)) = self.settings.get(name) { Some(*flag) } else { None }
    }

    /// The texts of a list; empty where there is none.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        if let Some(Setting::Texts(texts)) = self.settings.get(name) { texts.clone() } else { Vec::new() }
    }
}
