//! Names that travel through topic names: how `{schema}.{table}` becomes a legal topic, and how a sink gets the
//! original names back.
//!
//! A topic name has only `a-z A-Z 0-9 . _ -`; a table's name may hold anything. A variable is therefore encoded:
//! letters, digits, `-` and `_` stay, everything else — the dot included, so that splitting at dots is safe —
//! becomes `_xH_` with the code point in lower-case hexadecimal (`a.b` → `a_x2e_b`). A `_` that would begin such an
//! escape by accident (`_x` and a hexadecimal digit) becomes `_x5f_`. Decoding gives back exactly what was encoded.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use towpath_types::TopicName;

const HEX_DIGITS_MAX: usize = 6;

/// Encodes one part of a topic name.
#[must_use]
pub fn encode_part(text: &str) -> Cow<'_, str> {
    let plain = |at: usize, byte: u8| match byte {
        b'_' => !begins_escape(&text.as_bytes()[at..]),
        _ => byte.is_ascii_alphanumeric() || byte == b'-',
    };
    if text.bytes().enumerate().all(|(at, byte)| plain(at, byte)) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for (at, character) in text.char_indices() {
        if character.is_ascii() && plain(at, character as u8) {
            encoded.push(character);
        } else {
            // Writing into a string cannot fail.
            let _ = write!(encoded, "_x{:x}_", u32::from(character));
        }
    }
    Cow::Owned(encoded)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn begins_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'_', b'x', digit, ..] if is_lower_hex(*digit))
}

/// The escape at the beginning of `text`: its character and its length.
fn escape(text: &str) -> Option<(char, usize)> {
    let bytes = text.as_bytes();
    if !begins_escape(bytes) {
        return None;
    }
    let digits = bytes[2..].iter().take_while(|byte| is_lower_hex(**byte)).count();
    if digits > HEX_DIGITS_MAX || bytes.get(2 + digits) != Some(&b'_') {
        return None;
    }
    let code = u32::from_str_radix(&text[2..2 + digits], 16).ok()?;
    Some((char::from_u32(code)?, digits + 3))
}

/// Decodes one part of a topic name; text that is no escape stays as it is.
#[must_use]
pub fn decode_part(text: &str) -> Cow<'_, str> {
    if !text.contains("_x") {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (character, length) = escape(rest).unwrap_or((first, first.len_utf8()));
        decoded.push(character);
        rest = &rest[length..];
    }
    Cow::Owned(decoded)
}

/// The `index`-th dot-separated part of a topic's name, counted from 0 and decoded: what `{topic.N}` stands for.
#[must_use]
pub fn topic_part(topic: &str, index: usize) -> Option<Cow<'_, str>> {
    topic.split('.').nth(index).map(decode_part)
}

/// A template that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is empty.
    #[error("the template is empty")]
    Empty,
    /// A `{` without its `}`, or the other way round.
    #[error("`{{` and `}}` do not match in `{0}`")]
    Unbalanced(String),
    /// Something between the braces that is no name.
    #[error("`{{{0}}}` is no variable: letters, digits, `_` and `.` are")]
    Variable(String),
    /// A character that no topic name can have.
    #[error("`{0}` cannot stand in a topic's name (a-z, A-Z, 0-9, `.`, `_` and `-` can)")]
    Character(char),
    /// A name without variables that is no topic name.
    #[error(transparent)]
    Topic(#[from] towpath_types::InvalidName),
}

/// Text that was rendered in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The record's schema has no such variable.
    #[error("`{{{0}}}` has no value for these records")]
    Unknown(String),
    /// The result is no topic name (too long, as a rule).
    #[error(transparent)]
    Topic(#[from] towpath_types::InvalidName),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    Variable(String),
}

/// Text with `{variables}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
}

impl Template {
    /// Reads `text`; `{{` and `}}` stand for the braces themselves.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let unbalanced = || TemplateError::Unbalanced(text.to_owned());
        let (mut segments, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(unbalanced());
            }
            let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
            if name.is_empty() || !name.bytes().all(legal) {
                return Err(TemplateError::Variable(name.to_owned()));
            }
            if !literal.is_empty() {
                segments.push(Segment::Literal(std::mem::take(&mut literal)));
            }
            segments.push(Segment::Variable(name.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The variables in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Puts in what `variable` says.
    ///
    /// # Errors
    /// [`RenderError::Unknown`] when it says nothing.
    pub fn render<'a>(
        &self,
        mut variable: impl FnMut(&str) -> Option<Cow<'a, str>>,
    ) -> Result<String, RenderError> {
        let mut text = String::with_capacity(self.text.len() + 16);
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => text.push_str(literal),
                Segment::Variable(name) => {
                    text.push_str(&variable(name).ok_or_else(|| RenderError::Unknown(name.clone()))?);
                }
            }
        }
        Ok(text)
    }

    /// Puts in the parts of a topic's name: `{topic}`, `{topic.N}`; for everything else `variable` is asked.
    ///
    /// # Errors
    /// [`RenderError::Unknown`] when there is no such part and `variable` says nothing.
    pub fn render_for_topic<'a>(
        &self,
        topic: &'a str,
        mut variable: impl FnMut(&str) -> Option<Cow<'a, str>>,
    ) -> Result<String, RenderError> {
        self.render(|name| match name.strip_prefix("topic") {
            Some("") => Some(Cow::Borrowed(topic)),
            Some(part) => match part.strip_prefix('.').and_then(|index| index.parse().ok()) {
                Some(index) => topic_part(topic, index),
                None => variable(name),
            },
            None => variable(name),
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `topic:` of a source pipeline: where its records go. Literal text is taken as it is, variables are encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicTemplate(Template);

impl TopicTemplate {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let template = Template::parse(text)?;
        for segment in &template.segments {
            if let Segment::Literal(literal) = segment {
                let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if let Some(character) = literal.chars().find(|character| !legal(character)) {
                    return Err(TemplateError::Character(character));
                }
            }
        }
        if template.variables().next().is_none() {
            TopicName::new(text)?;
        }
        Ok(Self(template))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The variables in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.variables()
    }

    /// The topic for records whose variables `variable` tells (not yet encoded).
    ///
    /// # Errors
    /// A variable without a value, or a result that is no topic name.
    pub fn render<'a>(
        &self,
        mut variable: impl FnMut(&str) -> Option<&'a str>,
    ) -> Result<TopicName, RenderError> {
        let name = self.0.render(|name| variable(name).map(encode_part))?;
        Ok(TopicName::new(&name)?)
    }

    /// A pattern that matches every topic this template can render.
    #[must_use]
    pub fn pattern(&self) -> TopicPattern {
        let text = self.0.segments.iter().map(|segment| match segment {
            Segment::Literal(literal) => literal.as_str(),
            Segment::Variable(_) => "*",
        });
        TopicPattern { text: text.collect() }
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry of `topics:`: a topic's name, or a pattern in which `*` stands for any run of characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPattern {
    text: String,
}

impl TopicPattern {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`TemplateError`] when no topic could ever match.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?');
        match text.chars().find(|character| !legal(character)) {
            Some(character) => Err(TemplateError::Character(character)),
            None if text.is_empty() => Err(TemplateError::Empty),
            None => Ok(Self { text: text.to_owned() }),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The topic, when the pattern names exactly one.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        if self.text.contains(['*', '?']) { None } else { Some(&self.text) }
    }

    /// Whether `topic` matches. Internal topics (`__…`, `_towpath_…`) and dead letters (`….dead-letter`) match only
    /// when they are named exactly.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if self.text == topic {
            return true;
        }
        !is_internal(topic) && self.exact().is_none() && glob(self.text.as_bytes(), topic.as_bytes())
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a pipeline's dead-letter topic ends in by default.
pub const DEAD_LETTER_SUFFIX: &str = ".dead-letter";
/// What Towpath's own topics begin with.
pub const INTERNAL_PREFIX: &str = "_towpath_";

/// Whether patterns leave `topic` out.
#[must_use]
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with("__") || topic.starts_with(INTERNAL_PREFIX) || topic.ends_with(DEAD_LETTER_SUFFIX)
}

/// `*` and `?`, in linear space and without recursion.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, tried)) => {
                    star = Some((at, tried + 1));
                    p = at + 1;
                    t = tried + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn legal(text: &str) -> bool {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    }

    proptest! {
        #[test]
        fn any_name_comes_back(name in "\\PC*") {
            let encoded = encode_part(&name);
            prop_assert!(legal(&encoded), "{}", encoded);
            prop_assert_eq!(decode_part(&encoded), name.as_str());
        }

        #[test]
        fn names_that_look_like_escapes_come_back(name in "[_x2e.\\\"a5f]{0,12}") {
            let encoded = encode_part(&name);
            prop_assert!(legal(&encoded));
            prop_assert_eq!(decode_part(&encoded), name.as_str());
        }

        #[test]
        fn different_names_never_meet(a in "[_x2e.5f ]{0,8}", b in "[_x2e.5f ]{0,8}") {
            prop_assert_eq!(a == b, encode_part(&a) == encode_part(&b));
        }

        #[test]
        fn parts_come_back_out_of_a_topic(schema in "\\PC{1,12}", table in "\\PC{1,12}") {
            let template = TopicTemplate::parse("shop.{schema}.{table}").unwrap();
            let topic = template
                .render(|name| Some(if name == "schema" { schema.as_str() } else { table.as_str() }))
                .unwrap();
            prop_assert_eq!(topic_part(topic.as_str(), 1).unwrap(), schema.as_str());
            prop_assert_eq!(topic_part(topic.as_str(), 2).unwrap(), table.as_str());
            prop_assert_eq!(topic_part(topic.as_str(), 3), None);
            prop_assert!(template.pattern().matches(topic.as_str()));
        }
    }

    #[test]
    fn plain_names_stay_readable() {
        for name in ["orders", "order_lines", "Order-Lines", "a_x", "tax_xyz", "_"] {
            assert_eq!(encode_part(name), name);
        }
        assert_eq!(encode_part("Odd Näme.with \"quotes\""), "Odd_x20_N_xe4_me_x2e_with_x20__x22_quotes_x22_");
        assert_eq!(encode_part("a_x2e_b"), "a_x5f_x2e_b");
        assert_eq!(decode_part("_xd800_"), "_xd800_", "a surrogate is no character");
    }

    #[test]
    fn templates_say_what_is_wrong() {
        assert_eq!(TopicTemplate::parse(""), Err(TemplateError::Empty));
        assert!(matches!(TopicTemplate::parse("a{b"), Err(TemplateError::Unbalanced(_))));
        assert!(matches!(TopicTemplate::parse("a}b"), Err(TemplateError::Unbalanced(_))));
        assert!(matches!(TopicTemplate::parse("a{ b }"), Err(TemplateError::Variable(_))));
        assert_eq!(TopicTemplate::parse("a b{c}"), Err(TemplateError::Character(' ')));
        assert!(matches!(TopicTemplate::parse(".."), Err(TemplateError::Topic(_))));
        let template = TopicTemplate::parse("{a}").unwrap();
        assert_eq!(template.render(|_| None), Err(RenderError::Unknown("a".into())));
        assert!(matches!(template.render(|_| Some(LONG)), Err(RenderError::Topic(_))));
    }

    const LONG: &str =
        concat!("ääääääääääääääääääääääääääääääääääääääää", "ääääääääääääääääääääääääääääääääääääääää");

    #[test]
    fn table_templates_see_the_topics_parts() {
        let template = Template::parse("{{x}}{topic.1}/{topic}/{other}").unwrap();
        let text = template.render_for_topic("a.b_x2e_c", |name| (name == "other").then_some("o".into()));
        assert_eq!(text.unwrap(), "{x}b.c/a.b_x2e_c/o");
        assert!(Template::parse("{topic.9}").unwrap().render_for_topic("a", |_| None).is_err());
    }

    #[test]
    fn patterns_leave_internal_topics_alone() {
        let all = TopicPattern::parse("*").unwrap();
        assert!(all.matches("shop.public.orders"));
        for internal in ["_towpath_offsets", "__consumer_offsets", "shop.dead-letter"] {
            assert!(!all.matches(internal));
            assert!(TopicPattern::parse(internal).unwrap().matches(internal));
        }
        let pattern = TopicPattern::parse("shop.*.or?ers*").unwrap();
        assert!(pattern.matches("shop.public.orders") && pattern.matches("shop.a.b.orders2"));
        assert!(!pattern.matches("shop.orders") && !pattern.matches("xshop.public.orders"));
        assert!(TopicPattern::parse("a b").is_err());
    }
}
