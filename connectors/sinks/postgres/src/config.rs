//! The options of the `postgres` sink.

use serde::Deserialize;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig, SinkConnector, SinkFactory,
};
use towpath_sql::Dialect;
use towpath_sql::sink::{LayoutOptions, TargetTemplate};

use super::connector::Connector;

/// Bytes of an identifier in PostgreSQL (`NAMEDATALEN` − 1); the server cuts longer ones off.
pub(crate) const NAME_BYTES_MAX: usize = 63;
/// Prepared statements that one connection keeps: a few for each table and schema.
const STATEMENTS_MAX: usize = 500;

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
    mode: Mode,
    table: String,
    schema: String,
    key: Vec<String>,
    create_tables: bool,
    add_columns: bool,
    on_unknown: OnUnknown,
    op_column: Option<String>,
    timestamp_column: Option<String>,
    offset_column: Option<String>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) connect: PgConnectOptions,
    pub(crate) table: TargetTemplate,
    /// Where tables are whose template names no schema, and where the positions are kept.
    pub(crate) schema: String,
    pub(crate) layout: LayoutOptions,
    pub(crate) create_tables: bool,
    pub(crate) add_columns: bool,
    pub(crate) on_unknown: OnUnknown,
}

/// Makes `postgres` sinks.
#[derive(Debug)]
pub struct PostgresSink {
    descriptor: Descriptor,
}

impl Default for PostgresSink {
    fn default() -> Self {
        let options = [target_options(), column_options()].concat();
        Self {
            descriptor: Descriptor {
                name: "postgres".into(),
                kind: ConnectorKind::Sink,
                version: env!("CARGO_PKG_VERSION").into(),
                summary: "Tables of a PostgreSQL database, kept equal to their source or appended to.".into(),
                guarantee: Some(Guarantee::ExactlyOnce),
                options: ConfigSpec::new(options),
            },
        }
    }
}

fn target_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::required(
            "url",
            OptionType::url(&["postgres", "postgresql"]),
            "The database: postgres://USER:PASSWORD@HOST:PORT/DATABASE. Parameters as in libpq (sslmode, sslrootcert, \
             host …).",
        )
        .secret(),
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
            "The table, or schema and table with a dot between them, in PostgreSQL's quoting. Variables: {topic}; \
             {topic.N}, the N-th dot-separated part of the topic's name from 0, with the source's spelling restored; \
             {schema}, {table} and {database} of change events; {pipeline}. What a variable stands for is one name \
             even if it holds dots or capitals.",
        ),
        OptionSpec::with_default(
            "schema",
            OptionType::NonEmptyString,
            json!("public"),
            "The schema of tables whose template names none, and of the table towpath_sink_offsets, which holds the \
             positions.",
        ),
    ]
}

fn column_options() -> Vec<OptionSpec> {
    let column = |name, what| {
        OptionSpec::optional(
            name,
            OptionType::NonEmptyString,
            &format!("In append mode, a column for {what}. None by default."),
        )
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
            "Whether tables (and their schemas) that are not there are created.",
        ),
        OptionSpec::with_default(
            "add_columns",
            OptionType::Bool,
            json!(true),
            "Whether columns are added for new fields. In tables that Towpath created, columns are also renamed as the \
             source's were, and widened (integer to bigint, varchar to text …); in others, a renaming adds a column and \
             copies the values. Which column holds which of the source is kept in towpath_sink_columns. Columns are \
             never dropped.",
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

impl SinkFactory for PostgresSink {
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
    // The parser's own errors never repeat the URL.
    let connect = config.str("url").parse::<PgConnectOptions>().map_err(|error| {
        ConfigProblem::new("url", format!("the URL cannot be read: {error}"))
            .with_hint("postgres://USER:PASSWORD@HOST:PORT/DATABASE; percent-encode special characters")
    });
    let table = TargetTemplate::parse(&options.table, Dialect::Postgres).map_err(|error| {
        ConfigProblem::new("table", error.to_string())
            .with_hint("for example \"{topic.2}\", or archive.{table}")
    });
    if options.schema.len() > NAME_BYTES_MAX {
        problems.problems.push(ConfigProblem::new("schema", "a name has at most 63 bytes"));
    }
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
    let (connect, table) = match (connect, table) {
        (Ok(connect), Ok(table)) => (connect, table),
        (connect, table) => {
            problems.problems.extend(connect.err());
            problems.problems.extend(table.err());
            return Err(problems);
        }
    };
    problems.into_result()?;
    Ok(Config {
        connect: connect.application_name("towpath").statement_cache_capacity(STATEMENTS_MAX),
        table,
        schema: options.schema,
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: serde_json::Value) -> Result<Config, ConfigProblems> {
        let factory = PostgresSink::default();
        parse(&RawConfig::with_defaults(&factory.descriptor().options, values)?)
    }

    #[test]
    fn defaults_are_enough() {
        let config = parsed(json!({"url": "postgres://u:p%40@h:5433/d"})).unwrap();
        assert_eq!((config.connect.get_host(), config.connect.get_port()), ("h", 5433));
        assert!(!config.layout.append && config.create_tables && config.add_columns);
        assert_eq!(config.schema, "public");
    }

    #[test]
    fn all_problems_are_told_at_once_and_without_the_password() {
        let problems = parsed(json!({
            "url": "postgres://u:geheim@h:notaport/d", "table": "a.b.c", "op_column": "op",
        }))
        .unwrap_err();
        let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["op_column", "url", "table"]);
        assert!(!problems.to_string().contains("geheim"), "{problems}");
    }

    #[test]
    fn every_option_is_documented() {
        let factory = PostgresSink::default();
        assert!(factory.descriptor().options.options.iter().all(|option| option.doc.len() > 20));
    }
}
