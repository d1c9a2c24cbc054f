//! A YAML document as a tree whose every value and key knows where it stands.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{DuplicateKeyPolicy, Location, Spanned};

use super::problem::Problem;

/// A file that was read.
#[derive(Debug)]
pub struct SourceFile {
    /// As the user named it.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Bytes in its text.
    pub range: Range<usize>,
}

impl Place {
    /// Line and column, both from 1, the column in characters.
    #[must_use]
    pub fn line_and_column(&self) -> (usize, usize) {
        let start = self.range.start.min(self.file.text.len());
        let before = self.file.text.get(..start).unwrap_or(&self.file.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The line in which it begins.
    pub(crate) fn line(&self) -> &str {
        let text = &self.file.text;
        let start = self.range.start.min(text.len());
        let from = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        text.get(from..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// A YAML value.
#[derive(Debug, Clone)]
pub enum Value {
    /// `null`, `~`, nothing.
    Null,
    /// A text whose secret could not be found, which is told already.
    Unresolved,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction, or beyond 64 bits.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map in file order; keys are text and unique.
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// What people call it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Unresolved => "a reference that was not found",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::String(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A map key and where it stands.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where.
    pub place: Place,
}

impl Node {
    /// The value of `key`, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name.name == key).map(|(_, node)| node)
    }

    /// The key and the value of `key`.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&(Key, Self)> {
        self.entries().iter().find(|(name, _)| name.name == key)
    }

    /// The entries of a map; nothing else has any.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text, if this is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether a reference below was not found.
    pub(crate) fn has_unresolved(&self) -> bool {
        match &self.value {
            Value::Unresolved => true,
            Value::List(items) => items.iter().any(Self::has_unresolved),
            Value::Map(entries) => entries.iter().any(|(_, node)| node.has_unresolved()),
            _ => false,
        }
    }

    /// Every text at and below this node.
    pub(crate) fn for_each_text<'a>(&'a self, each: &mut impl FnMut(&'a Self, &'a str)) {
        match &self.value {
            Value::String(text) => each(self, text),
            Value::List(items) => items.iter().for_each(|item| item.for_each_text(each)),
            Value::Map(entries) => entries.iter().for_each(|(_, node)| node.for_each_text(each)),
            _ => {}
        }
    }

    /// The node at `path` (`tables[1]`, `batch.records`), or the deepest one on the way to it.
    #[must_use]
    pub fn at(&self, path: &str) -> &Self {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let step = step.trim_end_matches(']');
            let next = match &node.value {
                Value::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => node.get(step),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

/// Parses the text of a file. An empty file is an empty map.
///
/// # Errors
/// What is not YAML, with its place; or several problems when keys are duplicated.
pub fn parse(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<Node> {
    let strict = serde_yaml::options! { duplicate_keys: DuplicateKeyPolicy::Error };
    let error = match serde_yaml::from_str_with_options::<Option<Spanned<RawNode>>>(&file.text, strict) {
        Ok(root) => return Some(root.map_or_else(|| empty(file), |root| place(root, file))),
        Err(error) => error,
    };
    let duplicate = matches!(error.without_snippet(), serde_yaml::Error::DuplicateMappingKey { .. });
    problems.push(syntax_problem(file, &error, duplicate));
    if !duplicate {
        return None;
    }
    // A key that stands twice must not hide the other problems of the file.
    let lenient = serde_yaml::options! { duplicate_keys: DuplicateKeyPolicy::FirstWins };
    let root = serde_yaml::from_str_with_options::<Option<Spanned<RawNode>>>(&file.text, lenient).ok()?;
    Some(root.map_or_else(|| empty(file), |root| place(root, file)))
}

fn empty(file: &Arc<SourceFile>) -> Node {
    Node { value: Value::Map(Vec::new()), place: Place { file: Arc::clone(file), range: 0..0 } }
}

fn syntax_problem(file: &Arc<SourceFile>, error: &serde_yaml::Error, duplicate: bool) -> Problem {
    let range = error.location().map_or(0..0, |location| byte_range(&file.text, location));
    let place = Place { file: Arc::clone(file), range };
    let text = error.without_snippet().to_string();
    let message = text.lines().next().unwrap_or_default();
    // The place is told apart.
    let message = message.split(" at line ").next().unwrap_or_default().trim();
    if duplicate {
        return Problem::new("CONFIG_DUPLICATE", place, message)
            .with_hint("each name can be used once: rename or remove one");
    }
    let (message, hint) = in_our_words(message);
    Problem::new("CONFIG_SYNTAX", place, format!("this is not valid YAML: {message}")).with_hint(hint)
}

/// What the parser says in its own terms, for whoever wrote the file.
fn in_our_words(message: &str) -> (&str, &'static str) {
    if message.starts_with("budget breached") {
        return (
            "it grows beyond every measure when its anchors are put in (`&name`, `*name`)",
            "write out what the anchors repeat, or repeat less",
        );
    }
    if message.starts_with("multiple YAML documents") {
        return (
            "a file holds one document, and here begins another",
            "remove the `---`, or put each document into a file of its own: the files of a directory are one configuration",
        );
    }
    if message.starts_with("recursive references") {
        return ("this anchor holds itself", "write out what is meant");
    }
    if message.starts_with("alias references unknown anchor") {
        return ("there is no such anchor", "an anchor (`&name`) stands before its use (`*name`)");
    }
    if message.starts_with("recursion limit") {
        return ("lists and maps within each other are too deep", "check the brackets around here");
    }
    if message.contains("tabs disallowed") {
        return ("a tab cannot indent", "replace the tab by spaces");
    }
    (message, "check the indentation and the quotes around here")
}

fn byte_range(text: &str, location: Location) -> Range<usize> {
    let span = location.span();
    if let (Some(offset), Some(len)) = (span.byte_offset(), span.byte_len()) {
        let start = (offset as usize).min(text.len());
        return start..start.saturating_add(len as usize).min(text.len());
    }
    let line_start = text
        .split_inclusive('\n')
        .take((location.line() as usize).saturating_sub(1))
        .map(str::len)
        .sum::<usize>();
    let line = text.get(line_start..).unwrap_or_default();
    let column =
        line.chars().take((location.column() as usize).saturating_sub(1)).map(char::len_utf8).sum::<usize>();
    let start = (line_start + column).min(text.len());
    start..start
}

fn place(raw: Spanned<RawNode>, file: &Arc<SourceFile>) -> Node {
    let mut range = byte_range(&file.text, raw.referenced);
    let value = match raw.value {
        RawNode::Null => Value::Null,
        RawNode::Bool(value) => Value::Bool(value),
        RawNode::Int(value) => Value::Int(value),
        RawNode::Float(value) => Value::Float(value),
        RawNode::String(value) => Value::String(value),
        RawNode::List(items) => Value::List(items.into_iter().map(|item| place(item, file)).collect()),
        RawNode::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let place_of_key =
                        Place { file: Arc::clone(file), range: byte_range(&file.text, key.referenced) };
                    (Key { name: key.value, place: place_of_key }, place(value, file))
                })
                .collect(),
        ),
    };
    if range.is_empty()
        && matches!(value, Value::String(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_))
    {
        let rest = &file.text[range.start..];
        range.end = range.start + rest.find('\n').unwrap_or(rest.len());
    }
    Node { value, place: Place { file: Arc::clone(file), range } }
}

/// The shape that serde fills; [`Spanned`] brings the places.
enum RawNode {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    List(Vec<Spanned<RawNode>>),
    Map(Vec<(Spanned<String>, Spanned<RawNode>)>),
}

impl<'de> Deserialize<'de> for RawNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawNode, E> {
        Ok(RawNode::Null)
    }

    fn visit_none<E>(self) -> Result<RawNode, E> {
        Ok(RawNode::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawNode, D::Error> {
        RawNode::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawNode, E> {
        Ok(RawNode::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawNode, E> {
        Ok(RawNode::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawNode, E> {
        Ok(i64::try_from(value).map_or(RawNode::Float(value as f64), RawNode::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawNode, E> {
        Ok(RawNode::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawNode, E> {
        Ok(RawNode::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawNode, E> {
        Ok(RawNode::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawNode, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawNode::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawNode, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            if entries.len() >= 10_000 {
                return Err(de::Error::custom("a map with more than 10000 keys"));
            }
            entries.push((key, access.next_value()?));
        }
        Ok(RawNode::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Arc<SourceFile> {
        Arc::new(SourceFile { path: "t.yaml".into(), text: text.to_owned() })
    }

    #[test]
    fn every_value_and_key_knows_its_place() {
        let file =
            file("node:\n  kafka: 127.0.0.1:9092\npipelines:\n  ö: { tasks: 3, tables: [a, \"b c\"] }\n");
        let mut problems = Vec::new();
        let root = parse(&file, &mut problems).unwrap();
        assert!(problems.is_empty());
        let at = |node: &Node| node.place.line_and_column();
        assert_eq!(at(root.at("node.kafka")), (2, 10));
        assert_eq!(at(root.at("pipelines.ö.tasks")), (4, 15));
        assert_eq!(at(root.at("pipelines.ö.tables[1]")), (4, 30));
        assert_eq!(root.at("pipelines.ö.tables[1]").as_str(), Some("b c"));
        let key = &root.at("pipelines").entries()[0].0;
        assert_eq!((key.name.as_str(), key.place.line_and_column()), ("ö", (4, 3)));
    }

    #[test]
    fn duplicate_keys_are_told_and_hide_nothing() {
        let file = file("a: 1\nb: 2\na: 3\n");
        let mut problems = Vec::new();
        let root = parse(&file, &mut problems).unwrap();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].place.as_ref().unwrap().line_and_column().0, 3);
        assert_eq!(root.entries().len(), 2);
    }

    #[test]
    fn broken_yaml_has_a_place() {
        let file = file("a: [1, 2\nb: 3\n");
        let mut problems = Vec::new();
        assert!(parse(&file, &mut problems).is_none());
        assert!(problems[0].place.as_ref().unwrap().line_and_column().0 >= 1);
    }

    #[test]
    fn what_the_parser_says_is_told_in_other_words() {
        let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
            let below = vec![format!("*a{}", level - 1); 9].join(",");
            format!("{text}a{level}: &a{level} [{below}]\n")
        });
        for (text, said, line) in [
            (bomb.as_str(), "grows beyond", 6),
            ("node: {}\n---\nnode: {}\n", "one document", 3),
            ("node:\n\tkafka: x\n", "a tab cannot indent", 2),
            ("a: &x { b: *x }\n", "holds itself", 1),
            ("a: *x\n", "no such anchor", 1),
            (&"[".repeat(5_000), "too deep", 1),
        ] {
            let mut problems = Vec::new();
            assert!(parse(&file(text), &mut problems).is_none());
            assert!(problems[0].message.contains(said), "{}", problems[0].message);
            assert!(!problems[0].message.contains(" at line "), "{}", problems[0].message);
            let at = problems[0].place.as_ref().unwrap().line_and_column();
            assert!(at.0 == line || said == "grows beyond", "{text}: {at:?}");
        }
    }

    #[test]
    fn anchors_and_merge_keys_are_put_in() {
        let file = file("a: &a { x: 1, y: 2 }\nb: { <<: *a, y: 3 }\n");
        let root = parse(&file, &mut Vec::new()).unwrap();
        assert!(matches!(root.at("b.x").value, Value::Int(1)));
        assert!(matches!(root.at("b.y").value, Value::Int(3)));
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        let mut problems = Vec::new();
        for text in ["", "# only a comment\n", "---\n"] {
            assert!(parse(&file(text), &mut problems).unwrap().entries().is_empty());
        }
        assert!(problems.is_empty());
    }
}
