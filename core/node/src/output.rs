//! Tables for people, JSON for machines.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value as Json;
use towpath_config::Problems;

use super::failure::Failure;

/// Rows that can be shown either way.
pub(crate) struct Listing {
    /// Column titles and the keys of the JSON objects.
    columns: Vec<(&'static str, &'static str)>,
    rows: Vec<Vec<Json>>,
}

impl Listing {
    /// Columns as (title, JSON key).
    pub(crate) fn new(columns: &[(&'static str, &'static str)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one value a column.
    pub(crate) fn row(&mut self, values: Vec<Json>) {
        debug_assert_eq!(values.len(), self.columns.len(), "one value a column");
        self.rows.push(values);
    }

    /// The rows as JSON objects.
    pub(crate) fn to_json(&self) -> Json {
        let object = |row: &Vec<Json>| {
            self.columns.iter().zip(row).map(|((_, key), value)| ((*key).to_owned(), value.clone())).collect()
        };
        Json::Array(self.rows.iter().map(|row| Json::Object(object(row))).collect())
    }

    /// What a command has done to each row: JSON on standard output, or a line for people on standard error.
    pub(crate) fn tell_done(&self, what: &str, json: bool) -> Result<(), Failure> {
        if json {
            return print_json(&self.to_json());
        }
        for row in &self.rows {
            let mut cells = row.iter().map(cell);
            let first = cells.next().unwrap_or_default();
            let rest: String = cells.map(|cell| format!(" ({cell})")).collect();
            tell(&format!("{what} {first}{rest}"));
        }
        Ok(())
    }

    /// Writes several listings to standard output: one table after the other, or one JSON array of all rows.
    pub(crate) fn print_all(listings: &[Self], json: bool) -> Result<(), Failure> {
        if json {
            let rows = listings.iter().filter_map(|listing| match listing.to_json() {
                Json::Array(rows) => Some(rows),
                _ => None,
            });
            return print_json(&Json::Array(rows.flatten().collect()));
        }
        for (at, listing) in listings.iter().enumerate() {
            if at > 0 {
                print_line("")?;
            }
            listing.print_table()?;
        }
        Ok(())
    }

    /// Writes the listing to standard output.
    pub(crate) fn print(&self, json: bool) -> Result<(), Failure> {
        Self::print_all(std::slice::from_ref(self), json)
    }

    fn print_table(&self) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(self.columns.iter().map(|(title, _)| *title));
        for row in &self.rows {
            table.add_row(self.columns.iter().zip(row).map(|((_, key), value)| shown(key, value)));
        }
        for line in table.lines() {
            // The style begins each line with a space.
            print_line(line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        Ok(())
    }
}

/// Names and values of one thing: a line each for people, an object for machines.
#[derive(Default)]
pub(crate) struct Facts {
    facts: Vec<(&'static str, &'static str, Json)>,
}

impl Facts {
    /// A fact with its name for people, and its key.
    pub(crate) fn add(&mut self, name: &'static str, key: &'static str, value: Json) {
        self.facts.push((name, key, value));
    }

    pub(crate) fn to_json(&self) -> Json {
        self.facts.iter().map(|(_, key, value)| ((*key).to_owned(), value.clone())).collect()
    }

    /// Writes the lines to standard output.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        self.lines().iter().try_for_each(|line| print_line(line))
    }

    fn lines(&self) -> Vec<String> {
        let width = self.facts.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        self.facts.iter().map(|(name, _, value)| format!("{name:width$}  {}", cell(value))).collect()
    }
}

/// A cell of a column; one of bytes is shown in the largest unit that fits.
fn shown(key: &str, value: &Json) -> String {
    match value.as_f64().filter(|_| key.ends_with("_bytes")) {
        Some(bytes) => byte_size(bytes),
        None => cell(value),
    }
}

fn byte_size(bytes: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = units.into_iter().find(|(_, power)| bytes >= f64::from(1 << power));
    fits.map_or_else(
        || format!("{bytes} B"),
        |(unit, power)| format!("{:.1} {unit}", bytes / f64::from(1 << power)),
    )
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) if text.is_empty() => "-".to_owned(),
        Json::Array(items) if items.is_empty() => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// One JSON document on standard output.
pub(crate) fn print_json(value: &Json) -> Result<(), Failure> {
    print_line(&format!("{value:#}"))
}

/// One line on standard output.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::from)
}

/// A line for people on standard error: where a command tells what it is doing.
pub(crate) fn tell(line: &str) {
    towpath_telemetry::write_output(&format!("{line}\n"));
}

/// Shows problems of a configuration on standard error.
pub(crate) fn tell_problems(problems: &Problems, json: bool) {
    if json {
        return tell(&problems.to_json().to_string());
    }
    for report in problems.reports() {
        tell(&format!("{report:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_listing_has_the_same_content_both_ways() {
        let mut listing = Listing::new(&[("TOPIC", "topic"), ("REPLICAS", "replicas"), ("ERROR", "error")]);
        listing.row(vec![json!("a"), json!([1, 2]), Json::Null]);
        assert_eq!(listing.to_json(), json!([{ "topic": "a", "replicas": [1, 2], "error": null }]));
        assert_eq!(listing.rows[0].iter().map(cell).collect::<Vec<_>>(), ["a", "1, 2", "-"]);
    }

    #[test]
    fn facts_have_the_same_content_both_ways() {
        let mut facts = Facts::default();
        facts.add("brokers alive", "brokers_alive", json!([1, 2]));
        facts.add("moving", "moving", json!(0));
        facts.add("fenced", "fenced", json!([]));
        assert_eq!(facts.to_json(), json!({ "brokers_alive": [1, 2], "moving": 0, "fenced": [] }));
        assert_eq!(facts.lines(), ["brokers alive  1, 2", "moving         0", "fenced         -"]);
    }

    #[test]
    fn bytes_are_shown_in_a_unit_that_fits() {
        for (bytes, text) in [(0_i64, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5_i64 << 29, "2.5 GiB")] {
            assert_eq!(shown("size_bytes", &json!(bytes)), text);
        }
        assert_eq!(shown("size", &json!(2048)), "2048");
        assert_eq!(shown("size_bytes", &Json::Null), "-");
    }
}
