//! What a plugin says of itself: its name, and its options.

/// A plugin's name, version and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The plugin's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// What it promises across crashes; transforms promise nothing of their own.
    pub guarantee: Guarantee,
    /// Its options, in the order in which they are documented.
    pub options: Vec<OptionSpec>,
}

/// What survives a crash, seen from the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Nothing is lost; after a crash some records can come twice.
    AtLeastOnce,
    /// Nothing is lost, and nothing comes twice.
    ExactlyOnce,
}

impl Descriptor {
    /// A plugin without options, at least once.
    #[must_use]
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        let (name, version, summary) = (name.to_owned(), version.to_owned(), summary.to_owned());
        Self { name, version, summary, guarantee: Guarantee::AtLeastOnce, options: Vec::new() }
    }

    /// The same, with the promise that nothing comes twice.
    #[must_use]
    pub fn exactly_once(mut self) -> Self {
        self.guarantee = Guarantee::ExactlyOnce;
        self
    }

    /// The same with one option more.
    #[must_use]
    pub fn option(mut self, option: OptionSpec) -> Self {
        self.options.push(option);
        self
    }
}

/// One option in the YAML. Towpath validates it, with line and column, before the plugin sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key.
    pub name: String,
    /// What it does, in a sentence or two.
    pub doc: String,
    /// One value or several.
    pub shape: Shape,
    /// What a value is.
    pub element: Element,
    /// Whether it must be given.
    pub required: bool,
    /// What counts when it is not given: JSON in normal form (durations in milliseconds, sizes in bytes).
    pub default: Option<String>,
    /// Whether its value must never be shown.
    pub secret: bool,
}

impl OptionSpec {
    /// An option that may be left out.
    #[must_use]
    pub fn optional(name: &str, element: Element, doc: &str) -> Self {
        let (name, doc) = (name.to_owned(), doc.to_owned());
        Self { name, doc, shape: Shape::One, element, required: false, default: None, secret: false }
    }

    /// An option that must be given.
    #[must_use]
    pub fn required(name: &str, element: Element, doc: &str) -> Self {
        Self { required: true, ..Self::optional(name, element, doc) }
    }

    /// A list of such values.
    #[must_use]
    pub fn many(self) -> Self {
        Self { shape: Shape::Many, ..self }
    }

    /// A map to such values.
    #[must_use]
    pub fn by_key(self) -> Self {
        Self { shape: Shape::ByKey, ..self }
    }

    /// What counts when it is not given, as JSON: `"4"`, `"\"hash\""`, `"[]"`.
    #[must_use]
    pub fn default_json(self, json: &str) -> Self {
        Self { default: Some(json.to_owned()), ..self }
    }

    /// A value that must never be shown.
    #[must_use]
    pub fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// Whether an option takes one value, several, or several by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// A list.
    Many,
    /// A map.
    ByKey,
}

/// What a single value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// `true` or `false`.
    Boolean,
    /// A whole number from the first to the second, both included.
    Integer(i64, i64),
    /// Any text.
    Text,
    /// Text that is not empty.
    NonEmptyText,
    /// A URL with one of these schemes, without `://`.
    Url(Vec<String>),
    /// A path.
    Path,
    /// A span of time; normal form: milliseconds.
    Duration,
    /// An amount of memory or disk; normal form: bytes.
    ByteSize,
    /// One of these words, each with what it means.
    OneOf(Vec<(String, String)>),
    /// Text, number, boolean or null.
    Scalar,
    /// Any YAML.
    Any,
}

impl Element {
    /// One of these words, each with what it means.
    #[must_use]
    pub fn one_of(words: &[(&str, &str)]) -> Self {
        Self::OneOf(words.iter().map(|(word, doc)| ((*word).to_owned(), (*doc).to_owned())).collect())
    }
}

/// Something wrong with the options that their types do not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option, as a path (`fields[1]`).
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to type instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }
}
