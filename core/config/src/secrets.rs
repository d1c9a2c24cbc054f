//! R13: the secrets that a configuration holds, collected while it is read.

use std::ops::Range;
use std::sync::{Arc, RwLock};

/// Texts shorter than this are not redacted wherever they occur: they would blacken ordinary words.
const SECRET_BYTES_MIN: usize = 4;

/// What a key ends in whose value is nobody's business, even where nobody declares such an option.
const SECRET_KEYS: [&str; 7] = ["password", "passwd", "secret", "token", "salt", "apikey", "authorization"];

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

    /// Learns the password of a URL, if it has one, and its query, in which there may be another.
    pub fn add_url(&self, url: &str) {
        if let Some((_, query)) = url.split_once('?').filter(|(_, query)| query.contains("password=")) {
            self.add(query);
        }
        if let Some(password) = password_of(url) {
            self.add(password);
            if let Some(decoded) = percent_decoded(password) {
                self.add(&decoded);
            }
        }
    }

    /// The text of a file with every secret in it struck out, byte for byte, so that places stay where they are.
    #[must_use]
    pub(crate) fn strike_out(&self, text: &str) -> String {
        let mut ranges = secret_ranges(text);
        let secrets = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for secret in secrets.iter() {
            ranges.extend(text.match_indices(secret.as_str()).map(|(at, found)| at..at + found.len()));
        }
        ranges.sort_by_key(|range| range.start);
        let mut struck = String::with_capacity(text.len());
        let mut done = 0;
        for range in ranges {
            let start = range.start.max(done);
            if start < range.end {
                struck.push_str(&text[done..start]);
                struck.extend(std::iter::repeat_n('*', range.end - start));
                done = range.end;
            }
        }
        struck.push_str(&text[done..]);
        struck
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

/// The password between `user:` and `@` of a URL. One with an unencoded `/`, `?` or `#` in its password is no URL, but
/// the password is one all the same.
fn password_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (userinfo, _) = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@'))?;
    userinfo.split_once(':').map(|(_, password)| password)
}

/// Where in the text of a file secrets stand literally, known or not: passwords within URLs, and what follows a key
/// whose name says so. References (`${…}`) are none.
fn secret_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for (at, _) in text.match_indices("://") {
        let end = text[at..]
            .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .map_or(text.len(), |n| at + n);
        if let Some(password) = password_of(&text[at..end]) {
            let start = at + text[at..end].find(password).unwrap_or(0);
            ranges.push(start..start + password.len());
        }
    }
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        for (at, _) in line.match_indices(':') {
            let key: String = line[..at]
                .chars()
                .rev()
                .take_while(|c| c.is_alphanumeric() || "_-\"'".contains(*c))
                .collect();
            let key = key.chars().rev().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
            if SECRET_KEYS.iter().any(|word| key.ends_with(word)) {
                ranges.extend(value_range(line, at + 1).map(|it| line_start + it.start..line_start + it.end));
            }
        }
        line_start += line.len();
    }
    ranges.retain(|range| !text[range.clone()].contains("${"));
    ranges
}

/// The value behind a colon: quoted, or up to what ends it.
fn value_range(line: &str, from: usize) -> Option<Range<usize>> {
    let start = from + line[from..].find(|c: char| !c.is_whitespace())?;
    let rest = &line[start..];
    let end = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].find(quote).map_or(rest.len(), |n| n + 2),
        _ => rest.find([',', '}', '\n']).unwrap_or(rest.len()),
    };
    Some(start..start + end)
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
    fn what_is_shown_of_a_file_has_no_secrets_and_keeps_its_places() {
        let secrets = Secrets::default();
        secrets.add("hunter2");
        let struck = |text: &str| {
            let struck = secrets.strike_out(text);
            assert_eq!(struck.len(), text.len());
            struck
        };
        assert_eq!(struck("url: postgres://u:pä@h/db # x"), "url: postgres://u:***@h/db # x");
        assert_eq!(struck("a: 'pg://u:p/w,@h', b: hunter2"), "a: 'pg://u:****@h', b: *******");
        assert_eq!(struck("{ db-Password: abc, x: 1 }"), "{ db-Password: ***, x: 1 }");
        assert_eq!(
            struck("headers: { \"Authorization\": \"Bearer x\" }"),
            "headers: { \"Authorization\": ********** }"
        );
        assert_eq!(
            struck("token: ${env:T}\nurl: pg://u:${env:P}@h"),
            "token: ${env:T}\nurl: pg://u:${env:P}@h"
        );
        assert_eq!(struck("password:\nx: http://h:80/p"), "password:\nx: http://h:80/p");
    }

    #[test]
    fn a_secret_within_another_leaves_no_rest() {
        let secrets = Secrets::default();
        secrets.add("token");
        secrets.add("token-and-more");
        assert_eq!(secrets.redact("x token-and-more y"), "x *** y");
    }
}
