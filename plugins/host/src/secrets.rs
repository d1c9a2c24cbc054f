//! Secrets that are used without being seen (R13): a guest gets a mark, and what it sends has the value in its place.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memmem;

use super::bindings::towpath::plugin::secrets as wit;
use super::bindings::towpath::plugin::types::Error;
use super::grants::refused;
use super::state::State;

const PREFIX: &str = "towpath-secret-";

/// The marks of one instance, which nobody can guess.
#[derive(Default)]
pub(crate) struct Marks {
    /// Name of the option → mark and value.
    known: BTreeMap<String, (String, String)>,
}

impl Marks {
    fn of(&mut self, name: &str, value: &str) -> wit::Secret {
        let (mark, _) = self.known.entry(name.to_owned()).or_insert_with(|| {
            let random: u128 = rand::random();
            (format!("{PREFIX}{random:032x}"), value.to_owned())
        });
        wit::Secret { mark: mark.clone(), length: value.len() as u32 }
    }

    /// The bytes with the values in the places of the marks.
    pub(crate) fn replace<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut bytes = Cow::Borrowed(bytes);
        for (mark, value) in self.known.values() {
            if memmem::find(&bytes, mark.as_bytes()).is_none() {
                continue;
            }
            let mut replaced = Vec::with_capacity(bytes.len());
            let mut from = 0;
            for at in memmem::find_iter(&bytes, mark.as_bytes()) {
                replaced.extend_from_slice(&bytes[from..at]);
                replaced.extend_from_slice(value.as_bytes());
                from = at + mark.len();
            }
            replaced.extend_from_slice(&bytes[from..]);
            bytes = Cow::Owned(replaced);
        }
        bytes
    }
}

impl State {
    fn secret(&mut self, name: &str) -> Result<Option<wit::Secret>, Error> {
        self.may_reach()?;
        if !self.plugin.grants.secrets.contains(name) {
            let name = super::error::cut(name, 100);
            let what = format!("use the secret option `{name}`");
            return Err(refused(&self.plugin.name, &what, &format!("secrets: [{name}]")));
        }
        Ok(self.configured.secrets.get(name).map(|value| self.marks.of(name, value)))
    }
}

impl wit::Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<Option<wit::Secret>, Error>> {
        Ok(self.secret(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_replaced_wherever_they_stand() {
        let mut marks = Marks::default();
        let (one, two) = (marks.of("one", "hunter2").mark, marks.of("two", "").mark);
        assert_eq!((one.len(), marks.of("one", "hunter2").length), (47, 7));
        let text = format!("{one} and {two}and {one}{one}");
        assert_eq!(&*marks.replace(text.as_bytes()), b"hunter2 and and hunter2hunter2");
        assert!(matches!(marks.replace(b"nothing here"), Cow::Borrowed(_)));
        assert_ne!(Marks::default().of("one", "hunter2").mark, one);
    }
}
