//! R13: the secrets that a configuration holds, collected while it is read.

use std::sync::{Arc, RwLock};

/// Texts shorter than this are not redacted wherever they occur: they would blacken ordinary words.
const SECRET_BYTES_MIN: usize = 4;

/// Knows the secrets of a configuration. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub struct Secrets {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Learns a secret.
    pub fn add(&self, secret: &str) {
        if secret.len() < SECRET_BYTES_MIN {
            return;
        }
        let mut secrets = self.secrets.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !secrets.iter().any(|known| known == secret) {
            secrets.push(secret.to_owned());
            // The longest first, so that a secret within another one does not leave its rest behind.
            secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Learns the password of a URL, if it has one.
    pub fn add_url(&self, url: &str) {
        if let Some(password) = password_of(url) {
            self.add(password);
            if let Some(decoded) = percent_decoded(password) {
                self.add(&decoded);
            }
        }
    }

    /// What the runtime redacts its errors and statuses with.
    #[must_use]
    pub fn redactor(&self) -> towpath_api::Redactor {
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        towpath_api::Redactor::new(secrets.iter().cloned())
    }

    /// `text` with every known secret replaced by `***`.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        secrets.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), "***") } else { text }
        })
    }
}

/// The password between `user:` and `@` of a URL.
fn password_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let (userinfo, _) = authority.rsplit_once('@')?;
    userinfo.split_once(':').map(|(_, password)| password)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_disappear_in_both_spellings() {
        let secrets = Secrets::default();
        secrets.add_url("postgres://me:s%40cret!@host/db");
        let text = secrets.redact("failed for s@cret! (postgres://me:s%40cret!@host/db)");
        assert_eq!(text, "failed for *** (postgres://me:***@host/db)");
    }

    #[test]
    fn a_secret_within_another_leaves_no_rest() {
        let secrets = Secrets::default();
        secrets.add("token");
        secrets.add("token-and-more");
        assert_eq!(secrets.redact("x token-and-more y"), "x *** y");
    }
}
