//! The options of the `sqlite` sink.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig, SinkConnector, SinkFactory,
};
use towpath_sql::Dialect;
use towpath_sql::sink::{LayoutOptions, TargetTemplate};

use super::connector::Connector;

/// What becomes of a field that the table has no column for, when none may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnUnknown {
    Reject,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Upsert,
    Append,
}

/// The options as they come out of validation.
#[derive(Debug, Deserialize)]
struct Options {
    path: PathBuf,
    mode: Mode,
    table: String,
    key: Vec<String>,
    create_tables: bool,
    add_columns: bool,
    on_unknown: OnUnknown,
    op_column: Option<String>,
    timestamp_column: Option<String>,
    offset_column: Option<String>,
    busy_timeout: u64,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    pub(crate) table: TargetTemplate,
    pub(crate) layout: LayoutOptions,
    pub(crate) create_tables: bool,
    pub(crate) add_columns: bool,
    pub(crate) on_unknown: OnUnknown,
    pub(crate) busy_timeout: Duration,
}

/// Makes `sqlite` sinks.
#[derive(Debug)]
pub struct SqliteSink {
    descriptor: Descriptor,
}

impl Default for SqliteSink {
    fn default() -> Self {
        Self {
            descriptor: Descriptor {
                name: "sqlite".into(),
                kind: ConnectorKind::Sink,
                version: env!("CARGO_PKG_VERSION").into(),
                summary: "Tables of an SQLite database, kept equal to their source or appended to.".into(),
                guarantee: Some(Guarantee::ExactlyOnce),
                options: ConfigSpec::new([target_options(), column_options()].concat()),
            },
        }
    }
}

fn target_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::required("path", OptionType::Path, "The database file; created if it is not there."),
        OptionSpec::with_default(
            "mode",
            OptionType::choices(&[
                (
                    "upsert",
                    "tables are kept equal to their source: rows are inserted, updated and deleted by their key; \
                     rows without a key are appended, and changes of them hit exactly one equal row",
                ),
                ("append", "every record becomes a row of its own; truncations are left out"),
            ]),
            json!("upsert"),
            "What a record does to its table.",
        ),
        OptionSpec::with_default(
            "table",
            OptionType::NonEmptyString,
            json!("{topic}"),
            "The table, in double quotes where it holds a dot. Variables: {topic}; {topic.N}, the N-th dot-separated part \
             of the topic's name from 0, with the source's spelling restored; {schema}, {table} and {database} of change \
             events; {pipeline}.",
        ),
        OptionSpec::with_default(
            "busy_timeout",
            OptionType::Duration,
            json!(10_000),
            "How long to wait for other writers of the file.",
        ),
    ]
}

fn column_options() -> Vec<OptionSpec> {
    let column = |name, what| {
        let doc = format!("In append mode, a column for {what}. None by default.");
        OptionSpec::optional(name, OptionType::NonEmptyString, &doc)
    };
    vec![
        OptionSpec::with_default(
            "key",
            OptionType::list(OptionType::NonEmptyString),
            json!([]),
            "In upsert mode, the fields that identify a row, for records that come without a key or with another. One \
             name also tells which column a key without fields stands for.",
        ),
        OptionSpec::with_default(
            "create_tables",
            OptionType::Bool,
            json!(true),
            "Whether tables that are not there are created.",
        ),
        OptionSpec::with_default(
            "add_columns",
            OptionType::Bool,
            json!(true),
            "Whether columns are added for new fields, or renamed where the source renamed them. Columns are never dropped.",
        ),
        OptionSpec::with_default(
            "on_unknown",
            OptionType::choices(&[
                ("reject", "the record goes to the dead-letter topic"),
                ("ignore", "the field is left out"),
            ]),
            json!("reject"),
            "With add_columns off: what becomes of records with a field that the table has no column for.",
        ),
        column("op_column", "the operation's letter (c, r, u, d); only with it, deletions are rows, too"),
        column("timestamp_column", "the record's timestamp (milliseconds since 1970 UTC)"),
        column("offset_column", "the record's offset in its partition"),
    ]
}

impl SinkFactory for SqliteSink {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SinkConnector>, ConfigProblems> {
        Ok(Box::new(Connector::new(parse(config)?)))
    }
}

fn parse(config: &RawConfig) -> Result<Config, ConfigProblems> {
    let options: Options = config.parse()?;
    let mut problems = ConfigProblems::default();
    let append = options.mode == Mode::Append;
    if append && !options.key.is_empty() {
        problems.problems.push(ConfigProblem::new("key", "rows have no key in append mode"));
    }
    for (name, column) in [
        ("op_column", &options.op_column),
        ("timestamp_column", &options.timestamp_column),
        ("offset_column", &options.offset_column),
    ] {
        if !append && column.is_some() {
            problems.problems.push(
                ConfigProblem::new(name, "is for append mode")
                    .with_hint("set mode: append, or remove this option"),
            );
        }
    }
    let table = match TargetTemplate::parse(&options.table, Dialect::Sqlite) {
        Ok(table) => table,
        Err(error) => {
            problems
                .problems
                .push(ConfigProblem::new("table", error.to_string()).with_hint("for example \"{topic.2}\""));
            return Err(problems);
        }
    };
    problems.into_result()?;
    Ok(Config {
        path: options.path,
        table,
        layout: LayoutOptions {
            append,
            key: options.key,
            op_column: options.op_column,
            timestamp_column: options.timestamp_column,
            offset_column: options.offset_column,
        },
        create_tables: options.create_tables,
        add_columns: options.add_columns,
        on_unknown: options.on_unknown,
        busy_timeout: Duration::from_millis(options.busy_timeout),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_at_once() {
        let factory = SqliteSink::default();
        let parsed = |values| {
            parse(&RawConfig::with_defaults(&factory.descriptor().options, values).unwrap())
                .map(|config| config.path)
        };
        assert_eq!(parsed(json!({"path": "a.db"})).unwrap(), PathBuf::from("a.db"));
        let problems = parsed(json!({"path": "a.db", "table": "a.b", "op_column": "op"})).unwrap_err();
        let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["op_column", "table"]);
    }
}
