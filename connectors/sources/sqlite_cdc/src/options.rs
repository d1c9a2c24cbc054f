//! What the YAML says.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig, SourceConnector, SourceFactory,
};
use towpath_sql::{Dialect, TablePattern};

use super::connector::Connector;

/// The type `sqlite_cdc`.
#[derive(Debug)]
pub struct SqliteCdc {
    descriptor: Descriptor,
}

impl Default for SqliteCdc {
    fn default() -> Self {
        let table_list = || OptionType::list(OptionType::NonEmptyString);
        let options = ConfigSpec::new(vec![
            OptionSpec::required("path", OptionType::Path, "The database file."),
            OptionSpec::with_default(
                "tables",
                table_list(),
                json!(["*"]),
                "Tables to capture, names or globs (`order*`); names that hold dots or quotes stand in double quotes.",
            ),
            OptionSpec::with_default(
                "exclude_tables",
                table_list(),
                json!([]),
                "Tables to leave out, names or globs.",
            ),
            OptionSpec::with_default(
                "snapshot",
                OptionType::choices(&[
                    ("initial", "the rows that are there first, then changes"),
                    ("never", "changes only, from now on"),
                    ("only", "the rows that are there, then the end"),
                ]),
                json!("initial"),
                "Whether the rows that are there already are read.",
            ),
            OptionSpec::with_default(
                "poll_interval",
                OptionType::Duration,
                json!(50),
                "How often the database is asked for changes when it was found idle.",
            ),
        ]);
        Self {
            descriptor: Descriptor {
                name: "sqlite_cdc".to_owned(),
                kind: ConnectorKind::Source,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                summary: "Changes of an SQLite database, by triggers and an outbox table".to_owned(),
                guarantee: Some(Guarantee::ExactlyOnce),
                options,
            },
        }
    }
}

/// Validated options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) tables: Vec<TablePattern>,
    pub(crate) exclude_tables: Vec<TablePattern>,
    pub(crate) snapshot: Snapshot,
    pub(crate) poll_interval: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshot {
    Initial,
    Never,
    Only,
}

impl Options {
    fn read(config: &RawConfig) -> Result<Self, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let mut patterns = |option: &str| -> Vec<TablePattern> {
            let mut patterns = Vec::new();
            for (index, text) in config.strings(option).iter().enumerate() {
                match TablePattern::parse(text, Dialect::Sqlite) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(error) => problems.problems.push(
                        ConfigProblem::new(format!("{option}[{index}]"), error.to_string())
                            .with_hint("write name, na*e, or \"a.name with dots\""),
                    ),
                }
            }
            patterns
        };
        let tables = patterns("tables");
        let exclude_tables = patterns("exclude_tables");
        if config.strings("tables").is_empty() {
            problems
                .problems
                .push(ConfigProblem::new("tables", "names no table").with_hint("write `tables: [\"*\"]`"));
        }
        problems.into_result()?;
        Ok(Self {
            path: config.str("path").into(),
            tables,
            exclude_tables,
            snapshot: match config.str("snapshot") {
                "never" => Snapshot::Never,
                "only" => Snapshot::Only,
                _ => Snapshot::Initial,
            },
            poll_interval: Duration::from_millis(
                config.int("poll_interval").unwrap_or(50).clamp(1, 60_000) as u64
            ),
        })
    }

    /// Whether `table` is to be captured.
    pub(crate) fn wants(&self, table: &str) -> bool {
        let any =
            |patterns: &[TablePattern]| patterns.iter().any(|pattern| pattern.matches("main", table, "main"));
        any(&self.tables) && !any(&self.exclude_tables)
    }
}

impl SourceFactory for SqliteCdc {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems> {
        Ok(Box::new(Connector::new(Options::read(config)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_bad_ones_are_told() {
        let factory = SqliteCdc::default();
        let raw = |values| RawConfig::with_defaults(&factory.descriptor().options, values).unwrap();
        let good = Options::read(&raw(
            json!({"path": "x.db", "tables": ["order*", "\"a.b\""], "exclude_tables": ["order_old"]}),
        ));
        let options = good.unwrap();
        assert!(
            options.wants("orders")
                && options.wants("a.b")
                && !options.wants("order_old")
                && !options.wants("x")
        );
        let problems =
            Options::read(&raw(json!({"path": "x.db", "tables": ["a.b.c", "\"open"]}))).unwrap_err();
        let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["tables[0]", "tables[1]"]);
    }
}
