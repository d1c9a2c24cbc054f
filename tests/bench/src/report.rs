//! Figures of several subjects, run in turns, as a table for people or JSON for machines.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::machine;
use crate::series::{Better, Summary, TIE, ratios, summary, turn};

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// What, such as `broker CPU`.
    pub(crate) name: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Which way is better.
    pub(crate) better: Better,
}

/// A lower-is-better figure.
pub(crate) const fn lower(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, better: Better::Lower }
}

/// A higher-is-better figure.
pub(crate) const fn higher(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, better: Better::Higher }
}

/// Says that a subject cannot do this work on this machine: the others are measured without it.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// One workload's figures: a sample per figure, subject and pair.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    figures: Vec<Figure>,
    subjects: Vec<String>,
    /// `samples[subject][figure]`, one for each pair.
    samples: Vec<Vec<Vec<f64>>>,
    notes: Vec<String>,
}

impl Report {
    /// Runs the subjects in turns. The first is the one that the ratios are about. `run` is told the subject and the
    /// pair, and gives one sample per figure; a run that was not whole is its error. A subject whose error is [`Skipped`]
    /// runs no more.
    pub(crate) fn measure(
        title: String,
        figures: &[Figure],
        subjects: &[&str],
        pairs: usize,
        mut run: impl FnMut(usize, usize) -> Result<Vec<f64>>,
    ) -> Result<Self> {
        let mut samples = vec![vec![Vec::with_capacity(pairs); figures.len()]; subjects.len()];
        let (mut gone, mut skipped) = (BTreeSet::new(), Vec::new());
        for pair in 0..pairs {
            for subject in
                turn(subjects.len(), pair).into_iter().filter(|s| !gone.contains(s)).collect::<Vec<_>>()
            {
                let name = subjects.get(subject).copied().unwrap_or_default();
                let context = || format!("{title}: {name}, pair {}", pair + 1);
                let values = match run(subject, pair) {
                    Err(error) if error.is::<Skipped>() => {
                        skipped.push(format!("{name} is left out: {error:#}"));
                        say(&format!("{}: left out: {error:#}", context()));
                        gone.insert(subject);
                        continue;
                    }
                    result => result.with_context(context)?,
                };
                if values.len() != figures.len() || values.iter().any(|value| !value.is_finite()) {
                    bail!("{}: {values:?} are no figures", context());
                }
                progress(&title, name, pair, figures, &values);
                for (kept, value) in samples.get_mut(subject).into_iter().flatten().zip(values) {
                    kept.push(value);
                }
            }
        }
        let subjects = subjects.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self { title, figures: figures.to_vec(), subjects, samples, notes: skipped })
    }

    /// Adds a line about how it was measured.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    fn values(&self, subject: usize, figure: usize) -> &[f64] {
        self.samples.get(subject).and_then(|figures| figures.get(figure)).map_or(&[], Vec::as_slice)
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut head = vec![String::new()];
        head.extend(self.subjects.iter().cloned());
        head.extend(self.subjects.iter().skip(1).map(|name| format!("times better than {name}")));
        let mut rows = vec![head];
        for (index, figure) in self.figures.iter().enumerate() {
            let mut row = vec![format!("{}, {}", figure.name, figure.unit)];
            for subject in 0..self.subjects.len() {
                row.push(summary(self.values(subject, index)).map_or_else(String::new, shown));
            }
            for peer in 1..self.subjects.len() {
                let ratios = ratios(self.values(0, index), self.values(peer, index), figure.better);
                row.push(summary(&ratios).map_or_else(String::new, shown_ratio));
            }
            rows.push(row);
        }
        rows
    }

    fn text(&self) -> String {
        let pairs = self.values(0, 0).len();
        let mut text = format!("\n{}\n{pairs} runs each, in turns; median (least – most)\n", self.title);
        text.push_str(&aligned(&self.rows()));
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        let _ = writeln!(text, "- machine: {}", machine::description());
        let _ = writeln!(text, "- command: {}", machine::command());
        text
    }

    fn json(&self) -> Value {
        let part = |s: Option<Summary>| s.map(|s| json!({ "median": s.median, "min": s.min, "max": s.max }));
        let figures: Vec<Value> = self
            .figures
            .iter()
            .enumerate()
            .map(|(index, figure)| {
                let subjects: Vec<Value> = self
                    .subjects
                    .iter()
                    .enumerate()
                    .map(|(subject, name)| {
                        let samples = self.values(subject, index);
                        json!({ "name": name, "summary": part(summary(samples)), "samples": samples })
                    })
                    .collect();
                let times_better: Vec<Value> = (1..self.subjects.len())
                    .map(|peer| {
                        let samples = ratios(self.values(0, index), self.values(peer, index), figure.better);
                        json!({ "than": self.subjects.get(peer), "summary": part(summary(&samples)), "samples": samples })
                    })
                    .collect();
                json!({ "figure": figure.name, "unit": figure.unit, "subjects": subjects, "times_better": times_better })
            })
            .collect();
        json!({
            "title": self.title,
            "figures": figures,
            "notes": self.notes,
            "machine": machine::description(),
            "command": machine::command(),
        })
    }

    /// Prints it.
    pub(crate) fn print(&self, as_json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if as_json {
            writeln!(out, "{}", self.json())?;
        } else {
            out.write_all(self.text().as_bytes())?;
        }
        Ok(out.flush()?)
    }
}

/// Says on standard error how far it is; a reader of standard output sees only the result.
fn progress(title: &str, subject: &str, pair: usize, figures: &[Figure], values: &[f64]) {
    let mut line = format!("  [{title}] {subject}, pair {}:", pair + 1);
    for (figure, value) in figures.iter().zip(values) {
        let _ = write!(line, " {} {} {};", figure.name, number(*value), figure.unit);
    }
    // Progress that nobody can read is no error.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says what is being prepared.
pub(crate) fn say(text: &str) {
    // As in `progress`.
    let _ = writeln!(std::io::stderr(), "  {text}");
}

/// Three digits that count.
fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 100_000.0 => format!("{:.0} k", value / 1_000.0),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn shown(summary: Summary) -> String {
    format!("{} ({} – {})", number(summary.median), number(summary.min), number(summary.max))
}

fn shown_ratio(summary: Summary) -> String {
    let tie = if (1.0 / TIE..TIE).contains(&summary.median) { ", a tie" } else { "" };
    format!("{}{tie}", shown(summary))
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let figures = [lower("CPU", "s/GB"), higher("throughput", "MB/s")];
        let mut order = Vec::new();
        let report = Report::measure("W".to_owned(), &figures, &["ours", "theirs"], 3, |subject, pair| {
            order.push(subject);
            let step = pair as f64;
            Ok(if subject == 0 { vec![1.0 + step, 100.0] } else { vec![4.0 + step, 95.0] })
        })
        .unwrap();
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
        report.note("page cache")
    }

    #[test]
    fn the_table_tells_median_range_ratio_and_ties() {
        let text = report().text();
        let line = text.lines().find(|line| line.starts_with("CPU")).unwrap();
        assert!(line.contains("2.00 (1.00 – 3.00)") && line.contains("5.00 (4.00 – 6.00)"), "{text}");
        assert!(line.contains("2.50 (2.00 – 4.00)") && !line.contains("tie"), "{text}");
        let line = text.lines().find(|line| line.starts_with("throughput")).unwrap();
        assert!(line.contains("1.05 (1.05 – 1.05), a tie"), "{text}");
        assert!(text.contains("- page cache"), "{text}");
    }

    #[test]
    fn json_holds_every_sample() {
        let json = report().json();
        assert_eq!(json["figures"][0]["subjects"][1]["samples"], json!([4.0, 5.0, 6.0]));
        assert_eq!(json["figures"][0]["times_better"][0]["summary"]["median"], json!(2.5));
    }

    #[test]
    fn a_run_that_fails_or_gives_nonsense_is_an_error() {
        let figures = [lower("CPU", "s/GB")];
        let measure = |value: Result<Vec<f64>, &str>| {
            let value = value.map_err(|text| anyhow::anyhow!("{text}"));
            let mut value = Some(value);
            Report::measure("W".to_owned(), &figures, &["ours"], 1, |_, _| value.take().unwrap())
        };
        assert!(format!("{:#}", measure(Err("lost")).unwrap_err()).contains("ours, pair 1: lost"));
        assert!(measure(Ok(vec![f64::NAN])).is_err());
        assert!(measure(Ok(vec![])).is_err());
        assert!(measure(Ok(vec![1.0])).is_ok());
    }

    #[test]
    fn a_subject_that_cannot_is_left_out() {
        let figures = [lower("CPU", "s/GB")];
        let mut runs = 0;
        let report = Report::measure("W".to_owned(), &figures, &["ours", "theirs"], 3, |subject, _| {
            runs += 1;
            if subject == 1 { Err(Skipped("too slow".to_owned()).into()) } else { Ok(vec![1.0]) }
        })
        .unwrap();
        assert_eq!(runs, 4);
        let text = report.text();
        assert!(
            text.contains("- theirs is left out: too slow") && text.contains("1.00 (1.00 – 1.00)"),
            "{text}"
        );
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        let text = [0.1234, 1.234, 12.34, 1234.5, 123_456.0].map(number);
        assert_eq!(text, ["0.123", "1.23", "12.3", "1234", "123 k"]);
    }
}
