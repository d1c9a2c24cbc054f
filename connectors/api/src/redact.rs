//! Known secrets, and their removal from text that leaves the process (R13).

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Secrets shorter than this are not searched for: they would blank out ordinary words.
const SECRET_CHARS_MIN: usize = 4;
const MASK: &str = "***";

/// The secrets of a configuration. Cheap to clone; never prints them.
#[derive(Clone, Default)]
pub struct Redactor {
    /// As they are, and as they stand in JSON and in Rust's debug form.
    secrets: Arc<[String]>,
    /// What base64 makes of them, whatever is encoded before and after them.
    encoded: Arc<[String]>,
}

/// The longest first: one may be a part of another.
fn ordered(mut texts: Vec<String>) -> Arc<[String]> {
    texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    texts.dedup();
    texts.into()
}

/// A secret as it may stand in text: plain, in JSON (also of those who write ASCII only), in a debug form.
fn escaped(secret: &str) -> Vec<String> {
    let quoted = |text: String| text.get(1..text.len() - 1).unwrap_or_default().to_owned();
    let json = quoted(serde_json::Value::from(secret).to_string());
    let mut ascii = String::with_capacity(json.len());
    for it in json.chars() {
        if it.is_ascii() {
            ascii.push(it);
        } else {
            it.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")));
        }
    }
    vec![secret.to_owned(), json, ascii, quoted(format!("{secret:?}"))]
}

/// The characters of base64 that a secret alone decides, for each place at which it may begin within three bytes. The
/// characters beside them it decides in part.
fn base64_parts(secret: &str) -> Vec<String> {
    let part = |alphabet: &GeneralPurpose, before: usize| {
        let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
        let text = alphabet.encode(&bytes);
        text.get((before * 8).div_ceil(6)..bytes.len() * 8 / 6).unwrap_or_default().to_owned()
    };
    [STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().flat_map(|it| (0..3).map(move |n| part(it, n))).collect()
}

impl Redactor {
    /// A redactor for these secrets (values of secret options, passwords in URLs, resolved `${…}`).
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let secrets: Vec<_> =
            secrets.into_iter().filter(|secret| secret.chars().count() >= SECRET_CHARS_MIN).collect();
        let encoded = secrets.iter().flat_map(|it| base64_parts(it)).collect();
        let escaped = secrets.iter().flat_map(|it| escaped(it)).collect();
        Self { secrets: ordered(escaped), encoded: ordered(encoded) }
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
        for part in self.encoded.iter() {
            if text.contains(part.as_str()) {
                text = Cow::Owned(without_part(&text, part));
            }
        }
        text
    }
}

/// `text` without a part of base64, and without the characters beside it, which may tell some bits more.
fn without_part(text: &str, part: &str) -> String {
    let is_base64 = |it: char| it.is_ascii_alphanumeric() || matches!(it, '+' | '/' | '-' | '_');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(part) {
        out.push_str(before.strip_suffix(is_base64).unwrap_or(before));
        out.push_str(MASK);
        rest = after.strip_prefix(is_base64).unwrap_or(after);
    }
    out.push_str(rest);
    out
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

    #[test]
    fn secrets_are_blanked_in_the_forms_in_which_they_are_sent() {
        use base64::engine::general_purpose::{STANDARD, URL_SAFE};
        let secret = "pä\"ss\\word?>";
        let redactor = Redactor::new([secret.to_owned()]);
        let json = serde_json::json!({ "token": secret }).to_string();
        assert_eq!(redactor.redact(&json), r#"{"token":"***"}"#);
        assert_eq!(redactor.redact(r#"{"token":"p\u00e4\"ss\\word?>"}"#), r#"{"token":"***"}"#);
        assert_eq!(redactor.redact(&format!("{:?}", Some(secret))), r#"Some("***")"#);
        for before in ["", "u", "us", "user", "a longer name:"] {
            for after in ["", "x", "xy", "xyz"] {
                for alphabet in [STANDARD, URL_SAFE] {
                    let text = alphabet.encode(format!("{before}{secret}{after}"));
                    let redacted = redactor.redact(&text).into_owned();
                    assert!(redacted.contains("***"), "{before} {after}: {redacted}");
                    // What is left is what was around it.
                    let left = redacted.replace("***", "").replace('=', "");
                    let most = (before.len() * 8).div_ceil(6) + (after.len() * 8).div_ceil(6);
                    assert!(left.len() <= most, "{before} {after}: {left} is left");
                }
            }
        }
        assert_eq!(
            redactor.redact("Authorization: Basic aGVsbG86d29ybGQ="),
            "Authorization: Basic aGVsbG86d29ybGQ="
        );
    }
}
