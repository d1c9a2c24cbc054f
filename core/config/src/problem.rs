//! What is wrong with a configuration: where, what, and what to type instead.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceSpan};
use serde_json::json;

use super::tree::Place;

/// One problem.
#[derive(Debug, Clone)]
pub struct Problem {
    /// A stable code (`CONFIG_UNKNOWN_KEY`).
    pub code: &'static str,
    /// Where it stands; `None` when the problem is the file itself.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place.
    #[must_use]
    pub fn new(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { code, place: Some(place), message: message.into(), hint: None }
    }

    /// A problem without a place in a text (a file that cannot be read).
    #[must_use]
    pub fn without_place(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, place: None, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// `file:line:column`, if there is a place.
    #[must_use]
    pub fn position(&self) -> Option<String> {
        let place = self.place.as_ref()?;
        let (line, column) = place.line_and_column();
        Some(format!("{}:{line}:{column}", place.file.path.display()))
    }
}

/// All problems of a configuration, in the order of files and lines.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Sorts by file and place.
    #[must_use]
    pub fn new(mut list: Vec<Problem>) -> Self {
        let order = |problem: &Problem| {
            problem.place.as_ref().map(|place| (place.file.path.clone(), place.range.start))
        };
        list.sort_by_key(order);
        Self { list }
    }

    /// The problems.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// For `--json`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let one = |problem: &Problem| {
            let place = problem.place.as_ref();
            let at = place.map(Place::line_and_column);
            json!({
                "code": problem.code,
                "file": place.map(|place| place.file.path.display().to_string()),
                "line": at.map(|(line, _)| line),
                "column": at.map(|(_, column)| column),
                "message": problem.message,
                "hint": problem.hint,
            })
        };
        json!({ "problems": self.list.iter().map(one).collect::<Vec<_>>() })
    }

    /// One report for each problem, with its snippet.
    pub fn reports(&self) -> impl Iterator<Item = miette::Report> + '_ {
        self.list.iter().map(|problem| miette::Report::new(Shown::of(problem)))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(position) = problem.position() {
                write!(f, "{position}: ")?;
            }
            write!(f, "{} [{}]", problem.message, problem.code)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A problem as miette draws it.
#[derive(Debug)]
struct Shown {
    problem: Problem,
    source: Option<NamedSource<String>>,
}

impl Shown {
    fn of(problem: &Problem) -> Self {
        let source = problem.place.as_ref().map(|place| {
            NamedSource::new(place.file.path.display().to_string(), place.file.text.clone())
                .with_language("yaml")
        });
        Self { problem: problem.clone(), source }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.hint.as_ref().map(|hint| Box::new(hint) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.problem.place.as_ref()?;
        let text = &place.file.text;
        // A value of several lines is pointed at where it begins.
        let start = place.range.start.min(text.len());
        let stretch = text.get(start..place.range.end.min(text.len())).unwrap_or_default();
        let length = stretch.find('\n').unwrap_or(stretch.len());
        let span = SourceSpan::new(start.into(), length);
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}
