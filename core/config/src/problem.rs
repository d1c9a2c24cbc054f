//! What is wrong with a configuration: where, what, and what to type instead.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceSpan};
use serde_json::json;

use super::secrets::Secrets;
use super::tree::Place;

/// The longest line of which a snippet is shown.
const SNIPPET_LINE_BYTES_MAX: usize = 400;

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
    /// Whether it may be right all the same: told, but nothing is refused for it.
    pub is_warning: bool,
}

impl Problem {
    /// A problem at a place.
    #[must_use]
    pub fn new(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { code, place: Some(place), message: message.into(), hint: None, is_warning: false }
    }

    /// A problem without a place in a text (a file that cannot be read).
    #[must_use]
    pub fn without_place(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, place: None, message: message.into(), hint: None, is_warning: false }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same as a warning.
    #[must_use]
    pub(crate) fn warning(self) -> Self {
        Self { is_warning: true, ..self }
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
    secrets: Secrets,
}

impl Problems {
    /// Sorts by file and place. What is shown of the problems and of the files holds none of the secrets (R13).
    #[must_use]
    pub fn new(mut list: Vec<Problem>, secrets: Secrets) -> Self {
        let order = |problem: &Problem| {
            problem.place.as_ref().map(|place| (place.file.path.clone(), place.range.start))
        };
        list.sort_by_key(order);
        for problem in &mut list {
            problem.message = secrets.redact(&problem.message);
            problem.hint = problem.hint.take().map(|hint| secrets.redact(&hint));
        }
        Self { list, secrets }
    }

    /// The problems.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
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
        self.list.iter().map(|problem| miette::Report::new(Shown::of(problem, &self.secrets)))
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
    fn of(problem: &Problem, secrets: &Secrets) -> Self {
        let shown = problem.place.as_ref().filter(|place| place.line().len() <= SNIPPET_LINE_BYTES_MAX);
        let source = shown.map(|place| {
            let text = secrets.strike_out(&place.file.text);
            NamedSource::new(place.file.path.display().to_string(), text).with_language("yaml")
        });
        Self { problem: problem.clone(), source }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)?;
        match self.problem.position().filter(|_| self.source.is_none()) {
            Some(position) => write!(f, " ({position})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn severity(&self) -> Option<Severity> {
        self.problem.is_warning.then_some(Severity::Warning)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.hint.as_ref().map(|hint| Box::new(hint) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.problem.place.as_ref().filter(|_| self.source.is_some())?;
        let text = &place.file.text;
        // A value of several lines is pointed at where it begins.
        let start = place.range.start.min(text.len());
        let stretch = text.get(start..place.range.end.min(text.len())).unwrap_or_default();
        let length = stretch.find('\n').unwrap_or(stretch.len());
        let span = SourceSpan::new(start.into(), length);
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}
