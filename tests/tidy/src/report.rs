//! What a rule has found, and how it is shown.

use std::fmt::Write;

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, crate or dependency.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding.
    pub fn new(place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), remedy: remedy.into() }
    }
}

/// The findings as a table for people.
#[must_use]
pub fn table(rule: &str, findings: &[Finding]) -> String {
    let mut sorted = findings.to_vec();
    sorted.sort();
    let width = |of: fn(&Finding) -> &String| sorted.iter().map(|f| of(f).chars().count()).max().unwrap_or(0);
    let (place, what) = (width(|f| &f.place), width(|f| &f.what));
    let mut text = format!("{rule}: {} to mend\n", sorted.len());
    for finding in &sorted {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:place$}  {:what$}  → {}", finding.place, finding.what, finding.remedy);
    }
    text
}
