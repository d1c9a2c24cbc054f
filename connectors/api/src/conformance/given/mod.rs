//! The part of the suite that takes the world as the connector's options give it: nobody makes anything happen upstream,
//! and nobody looks into the target. It says what was kept, what could not be judged, and why.

mod sink;
mod source;

pub use sink::sink_as_given;
pub use source::source_as_given;

use super::Violation;

/// What was found of a connector.
#[derive(Debug, Default)]
pub struct Report {
    /// The clauses that it kept.
    pub kept: Vec<&'static str>,
    /// The clauses that could not be judged, and why not.
    pub not_judged: Vec<(&'static str, String)>,
    /// The clause that it broke; nothing was looked at after it.
    pub broken: Option<Violation>,
}

impl Report {
    pub(super) fn keeps(&mut self, clause: &'static str) {
        if !self.kept.contains(&clause) {
            self.kept.push(clause);
        }
    }

    pub(super) fn cannot_judge(&mut self, clause: &'static str, why: impl Into<String>) {
        self.not_judged.push((clause, why.into()));
    }
}
