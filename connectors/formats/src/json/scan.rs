//! A strict scanner over JSON text: finds where values begin and end, without building them.

use std::borrow::Cow;

use super::text::clean_prefix;
use crate::error::FormatError;

/// Nesting beyond this is refused.
const DEPTH_MAX: usize = 256;

/// A cursor over JSON text that is known to be UTF-8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// Checks that `bytes` are UTF-8.
pub(crate) fn text_of(bytes: &[u8]) -> Result<&str, FormatError> {
    std::str::from_utf8(bytes).map_err(|error| FormatError::Utf8 { at: error.valid_up_to() })
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn error(&self, what: &'static str) -> FormatError {
        FormatError::Syntax { at: self.at, what }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Fails unless only white space is left.
    pub(crate) fn end(&mut self) -> Result<(), FormatError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.error("more text follows the value")) }
    }

    /// The next value, as it is written.
    pub(crate) fn value(&mut self) -> Result<&'a str, FormatError> {
        self.skip_space();
        let from = self.at;
        self.skip(0)?;
        Ok(&self.text[from..self.at])
    }

    fn skip(&mut self, depth: usize) -> Result<(), FormatError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.skip_nested(depth, b'}', true),
            Some(b'[') => self.skip_nested(depth, b']', false),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("a value was expected")),
            None => Err(self.error("the text ends where a value was expected")),
        }
    }

    fn skip_nested(&mut self, depth: usize, close: u8, names: bool) -> Result<(), FormatError> {
        if depth >= DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.at += 1;
        self.skip_space();
        if self.eat(close) {
            return Ok(());
        }
        loop {
            if names {
                self.name()?;
            }
            self.skip_space();
            self.skip(depth + 1)?;
            self.skip_space();
            if self.eat(close) {
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.error("`,` or the end of the object or array was expected"));
            }
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), FormatError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error("a value was expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), FormatError> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if from == self.at { Err(self.error("a digit was expected")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), FormatError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _sign = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// A string's text between its quotes, still escaped, and whether there is an escape in it.
    fn string(&mut self) -> Result<(&'a str, bool), FormatError> {
        if !self.eat(b'"') {
            return Err(self.error("a string was expected"));
        }
        let (from, mut escaped) = (self.at, false);
        loop {
            self.at += clean_prefix(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((&self.text[from..self.at - 1], escaped));
                }
                Some(b'\\') => self.at += 1,
                Some(_) => return Err(self.error("a control character stands in a string")),
                None => return Err(self.error("a string does not end")),
            }
            escaped = true;
            self.check_escape()?;
        }
    }

    fn check_escape(&mut self) -> Result<(), FormatError> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.error("four hexadecimal digits were expected"));
                }
                self.at += 5;
            }
            _ => return Err(self.error("an escape was expected")),
        }
        Ok(())
    }

    /// A member's name and the colon after it.
    fn name(&mut self) -> Result<Cow<'a, str>, FormatError> {
        self.skip_space();
        let at = self.at;
        let (raw, escaped) = self.string()?;
        self.skip_space();
        if !self.eat(b':') {
            return Err(self.error("`:` was expected"));
        }
        if escaped { Ok(Cow::Owned(unescape(raw, at)?)) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// Calls `member` with the name and the written value of every member of the object that comes next.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&str, &'a str) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        self.members(|name, scanner| member(name, scanner.value()?))
    }

    /// Calls `member` with the name of every member of the object that comes next, and with the scanner before the
    /// member's value, which it must read.
    pub(crate) fn members(
        &mut self,
        mut member: impl FnMut(&str, &mut Self) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        self.skip_space();
        if !self.eat(b'{') {
            return Err(self.error("an object was expected"));
        }
        self.skip_space();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            self.skip_space();
            member(&name, self)?;
            self.skip_space();
            if self.eat(b'}') {
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.error("`,` or `}` was expected"));
            }
        }
    }

    /// The next value, as the stretch of the text that it takes.
    pub(crate) fn stretch(&mut self) -> Result<(u32, u32), FormatError> {
        self.skip_space();
        let from = self.at;
        self.skip(0)?;
        Ok((from as u32, self.at as u32))
    }

    /// Reads a `null`, if one comes next.
    pub(crate) fn null(&mut self) -> bool {
        self.skip_space();
        let null = self.text.as_bytes()[self.at..].starts_with(b"null");
        self.at += if null { 4 } else { 0 };
        null
    }
}

/// The text of a scanned string `"…"`; `None` if `raw` is no string.
pub(crate) fn string_text(raw: &str) -> Result<Option<Cow<'_, str>>, FormatError> {
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return Ok(None) };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    unescape(inner, 0).map(|text| Some(Cow::Owned(text)))
}

fn unescape(raw: &str, at: usize) -> Result<String, FormatError> {
    let lone = FormatError::Syntax { at, what: "half a surrogate pair stands in a string" };
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(found) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..found]);
        let kind = rest.as_bytes().get(found + 1).copied().unwrap_or_default();
        rest = rest.get(found + 2..).unwrap_or_default();
        let plain = match kind {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (code, after) = code_point(rest).ok_or_else(|| lone.clone())?;
                rest = after;
                code
            }
            other => char::from(other),
        };
        text.push(plain);
    }
    text.push_str(rest);
    Ok(text)
}

/// The character of the four digits after `\u`, with its second half if it is a pair, and what follows.
fn code_point(rest: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(rest)?;
    let after = rest.get(4..)?;
    if !(0xd800..0xe000).contains(&first) {
        return Some((char::from_u32(first)?, after));
    }
    let second = unit(after.strip_prefix("\\u")?)?;
    if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Some((char::from_u32(code)?, after.get(6..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.value().and_then(|_| scanner.end()).is_ok()
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_accepts(text in "[\\[\\]{},:\"\\\\a0-9.eE+ \\-truefalsn]{0,16}") {
            let serde = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(accepts(&text), serde, "{}", text);
        }

        #[test]
        fn strings_read_as_serde_reads_them(text in "([a-z\"]|\\\\u[0-9a-fD-d]{4}|\\\\n|ä){0,8}") {
            let quoted = format!("\"{text}\"");
            let ours = Scanner::new(&quoted).value().ok().filter(|raw| raw.len() == quoted.len())
                .and_then(|raw| string_text(raw).ok().flatten());
            let serde = serde_json::from_str::<String>(&quoted).ok();
            prop_assert_eq!(ours.as_deref(), serde.as_deref(), "{}", quoted);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&deep(DEPTH_MAX)));
        assert!(!accepts(&deep(DEPTH_MAX + 1)));
        assert!(!accepts(&"[".repeat(1_000_000)));
    }

    #[test]
    fn members_come_in_order_with_their_text() {
        let mut seen = Vec::new();
        let mut scanner = Scanner::new(r#" {"a" : [1, 2] , "\u00e4":"x\"y"} "#);
        scanner
            .object(|name, value| {
                seen.push((name.to_owned(), value));
                Ok(())
            })
            .unwrap();
        scanner.end().unwrap();
        assert_eq!(seen, [("a".to_owned(), "[1, 2]"), ("ä".to_owned(), r#""x\"y""#)]);
    }
}
