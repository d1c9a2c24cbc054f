//! Known secrets, and their removal from text that leaves the process (R13).

use std::borrow::Cow;
use std::sync::Arc;

/// Secrets shorter than this are not searched for: they would blank out ordinary words.
const SECRET_CHARS_MIN: usize = 4;
const MASK: &str = "***";

/// The secrets of a configuration. Cheap to clone; never prints them.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<[String]>,
}

impl Redactor {
    /// A redactor for these secrets (values of secret options, passwords in URLs, resolved `${…}`).
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<_> =
            secrets.into_iter().filter(|secret| secret.chars().count() >= SECRET_CHARS_MIN).collect();
        // The longest first: a secret may be a part of another.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets: secrets.into() }
    }

    /// `text` without the secrets.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in self.secrets.iter() {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), MASK));
            }
        }
        text
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blanked_the_longest_first() {
        let redactor = Redactor::new(["hunter2".to_owned(), "hunter2-and-more".to_owned(), "a".to_owned()]);
        assert_eq!(redactor.redact("pw hunter2-and-more, hunter2, a"), "pw ***, ***, a");
        assert!(!format!("{redactor:?}").contains("hunter2"));
    }
}
