//! Secrets that are used without being seen (R13): a guest gets a mark, and what it sends has the value in its place.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use serde_json::Value as Json;

use super::bindings::towpath::plugin::secrets as wit;
use super::bindings::towpath::plugin::types::Error;
use super::grants::refused;
use super::outside::wrong;
use super::state::State;

const PREFIX: &str = "towpath-secret-";
/// Hexadecimal digits behind the prefix.
const DIGITS: usize = 32;
/// Marks of one instance.
const MARKS_MAX: usize = 64;
/// Bytes before and after a value that is encoded with them.
const AROUND_BYTES_MAX: usize = 1024;

/// How a value is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Form {
    Plain,
    Json,
    Base64 { before: String, after: String },
}

impl Form {
    fn of(self, value: &str) -> String {
        match self {
            Self::Plain => value.to_owned(),
            Self::Json => {
                let quoted = Json::String(value.to_owned()).to_string();
                quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
            }
            Self::Base64 { before, after } => STANDARD.encode(format!("{before}{value}{after}")),
        }
    }
}

/// The marks of one instance, which nobody can guess.
#[derive(Default)]
pub(crate) struct Marks {
    /// Name of the option and form → digits of the mark.
    known: HashMap<(String, Form), String>,
    /// Digits of a mark → what stands in its place.
    values: HashMap<String, String>,
}

impl Marks {
    fn of(&mut self, name: &str, form: Form, value: &str) -> Result<wit::Secret, Error> {
        let key = (name.to_owned(), form.clone());
        if !self.known.contains_key(&key) {
            // R10: a guest that wants ever other forms does not get them.
            if self.known.len() >= MARKS_MAX {
                let message = format!("a plugin can have {MARKS_MAX} marks of secrets");
                return Err(wrong("PLUGIN_LIMIT", message));
            }
            let random: u128 = rand::random();
            let digits = format!("{random:032x}");
            self.values.insert(digits.clone(), form.of(value));
            self.known.insert(key.clone(), digits);
        }
        let digits = self.known.get(&key).map_or("", String::as_str);
        let length = self.values.get(digits).map_or(0, String::len) as u32;
        Ok(wit::Secret { mark: format!("{PREFIX}{digits}"), length })
    }

    /// The bytes with the values in the places of the marks. What stands in a value is never looked at again.
    pub(crate) fn replace<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut replaced: Option<Vec<u8>> = None;
        let mut taken = 0;
        for at in memmem::find_iter(bytes, PREFIX) {
            let digits = at + PREFIX.len();
            let mark = bytes.get(digits..digits + DIGITS).and_then(|it| std::str::from_utf8(it).ok());
            let Some(value) = mark.and_then(|it| self.values.get(it)) else { continue };
            let out = replaced.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
            out.extend_from_slice(&bytes[taken..at]);
            out.extend_from_slice(value.as_bytes());
            taken = digits + DIGITS;
        }
        match replaced {
            None => Cow::Borrowed(bytes),
            Some(mut out) => {
                out.extend_from_slice(&bytes[taken..]);
                Cow::Owned(out)
            }
        }
    }
}

impl State {
    fn secret(&mut self, name: &str, form: Form) -> Result<Option<wit::Secret>, Error> {
        self.may_reach()?;
        if !self.plugin.grants.secrets.contains(name) {
            let name = super::error::cut(name, 100);
            let what = format!("use the secret option `{name}`");
            return Err(refused(&self.plugin.name, &what, &format!("secrets: [{name}]")));
        }
        if let Form::Base64 { before, after } = &form
            && before.len().max(after.len()) > AROUND_BYTES_MAX
        {
            let message = format!("around a secret can stand {AROUND_BYTES_MAX} bytes");
            return Err(wrong("PLUGIN_LIMIT", message));
        }
        let value = self.configured.secrets.get(name);
        value.map(|value| self.marks.of(name, form, value)).transpose()
    }
}

impl wit::Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<Option<wit::Secret>, Error>> {
        Ok(self.secret(&name, Form::Plain))
    }

    fn get_as(
        &mut self,
        name: String,
        form: wit::Form,
    ) -> wasmtime::Result<Result<Option<wit::Secret>, Error>> {
        let form = match form {
            wit::Form::Json => Form::Json,
            wit::Form::Base64(wit::Around { before, after }) => Form::Base64 { before, after },
        };
        Ok(self.secret(&name, form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(marks: &mut Marks, name: &str, value: &str) -> wit::Secret {
        marks.of(name, Form::Plain, value).unwrap()
    }

    #[test]
    fn marks_are_replaced_wherever_they_stand() {
        let mut marks = Marks::default();
        let (one, two) = (plain(&mut marks, "one", "hunter2").mark, plain(&mut marks, "two", "").mark);
        assert_eq!((one.len(), plain(&mut marks, "one", "hunter2").length), (47, 7));
        let text = format!("{one} and {two}and {one}{one}");
        assert_eq!(&*marks.replace(text.as_bytes()), b"hunter2 and and hunter2hunter2");
        assert!(matches!(marks.replace(b"nothing here"), Cow::Borrowed(_)));
        let strange = format!("{PREFIX}{PREFIX} {}", &one[..one.len() - 1]);
        assert!(matches!(marks.replace(strange.as_bytes()), Cow::Borrowed(_)), "half a mark is none");
        assert_eq!(
            &*marks.replace(format!("{PREFIX}{one}").as_bytes()),
            format!("{PREFIX}hunter2").as_bytes()
        );
        assert_ne!(plain(&mut Marks::default(), "one", "hunter2").mark, one);
    }

    #[test]
    fn values_are_sent_in_the_form_that_was_asked_for() {
        let mut marks = Marks::default();
        let around = |before: &str| Form::Base64 { before: before.to_owned(), after: String::new() };
        let basic = marks.of("token", around("user:"), "hunter2").unwrap();
        assert_eq!((&*marks.replace(basic.mark.as_bytes()), basic.length), (&b"dXNlcjpodW50ZXIy"[..], 16));
        assert_eq!(marks.of("token", around("user:"), "hunter2").unwrap().mark, basic.mark);
        let json = marks.of("token", Form::Json, "a\"b\\c\n\u{1}é").unwrap();
        assert_eq!(&*marks.replace(json.mark.as_bytes()), "a\\\"b\\\\c\\n\\u0001é".as_bytes());
        // A value that looks like a mark is nothing but a value.
        let plain = plain(&mut marks, "other", &basic.mark);
        assert_eq!(&*marks.replace(plain.mark.as_bytes()), basic.mark.as_bytes());
    }

    #[test]
    fn marks_are_bounded() {
        let mut marks = Marks::default();
        let form = |n: usize| Form::Base64 { before: n.to_string(), after: String::new() };
        let made = (0..1000).take_while(|n| marks.of("token", form(*n), "hunter2").is_ok()).count();
        assert_eq!(made, MARKS_MAX);
        assert!(marks.of("token", form(0), "hunter2").is_ok());
    }
}
