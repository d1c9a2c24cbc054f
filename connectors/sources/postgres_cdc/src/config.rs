//! The options of `postgres_cdc`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig,
};
use towpath_sql::{Dialect, TablePattern};

use super::catalog::Selection;
use super::wire::Endpoint;

/// Bytes of an identifier in PostgreSQL (`NAMEDATALEN` − 1).
const NAME_BYTES_MAX: usize = 63;
/// What is appended to the publication's name for `insert_only` tables.
const INSERT_ONLY_SUFFIX: &str = "_insert_only";

/// Whether and when existing rows are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SnapshotMode {
    /// Once, before the stream.
    Initial,
    /// Never.
    Never,
    /// And nothing else.
    Only,
}

/// What becomes of the rows of a partition that is dropped or detached, of which the log says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DroppedPartitions {
    /// The whole table is copied anew, after a truncate.
    Copy,
    /// They stay where they were sent.
    Keep,
}

/// The options as they come out of validation.
#[derive(Debug, Deserialize)]
struct Options {
    tables: Vec<String>,
    #[serde(default)]
    exclude_tables: Vec<String>,
    #[serde(default)]
    insert_only: Vec<String>,
    slot: Option<String>,
    publication: Option<String>,
    snapshot: SnapshotMode,
    snapshot_connections: usize,
    snapshot_chunk_bytes: u64,
    heartbeat_ms: u64,
    wal_limit_bytes: u64,
    tombstones: bool,
    dropped_partitions: DroppedPartitions,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) endpoint: Endpoint,
    pub(crate) selection: Selection,
    slot: Option<String>,
    publication: Option<String>,
    pub(crate) snapshot: SnapshotMode,
    pub(crate) snapshot_connections: usize,
    pub(crate) snapshot_chunk_bytes: u64,
    pub(crate) heartbeat_ms: u64,
    pub(crate) wal_limit_bytes: u64,
    pub(crate) tombstones: bool,
    pub(crate) dropped_partitions: DroppedPartitions,
}

/// The names of what a pipeline keeps in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) slot: String,
    pub(crate) publication: String,
    pub(crate) insert_only_publication: String,
    /// Whether the publications' names were not chosen by the user, so that everything in them is ours.
    pub(crate) own_publication: bool,
}

/// The connector's description.
pub(crate) fn descriptor() -> Descriptor {
    Descriptor {
        name: "postgres_cdc".into(),
        kind: ConnectorKind::Source,
        version: env!("CARGO_PKG_VERSION").into(),
        summary: "Change data capture from PostgreSQL 13 or newer: a consistent snapshot, then logical replication."
            .into(),
        guarantee: Some(Guarantee::ExactlyOnce),
        options: ConfigSpec::new([connection_options(), capture_options()].concat()),
    }
}

fn connection_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::required(
            "url",
            OptionType::url(&["postgres", "postgresql"]),
            "The database: postgres://USER:PASSWORD@HOST:PORT/DATABASE. The user needs REPLICATION, SELECT on the \
             tables, and CREATE on the database for the publication. Parameters as in libpq: sslmode (default: \
             prefer), sslrootcert, sslcert, sslkey, host (also a socket's directory).",
        )
        .secret(),
        OptionSpec::optional(
            "slot",
            OptionType::NonEmptyString,
            "The replication slot; towpath_PIPELINE by default. It is created on the first start, and never again: \
             when it is lost, the task stops and tells the gap.",
        ),
        OptionSpec::optional(
            "publication",
            OptionType::NonEmptyString,
            "The publication; towpath_PIPELINE by default. Created and kept up to date where the user may do that; a \
             second one with _insert_only appended serves insert_only tables.",
        ),
        OptionSpec::with_default(
            "heartbeat_ms",
            OptionType::Duration,
            json!(10_000),
            "How often a message is written into the database's log while nothing changes, so that the slot does not \
             hold back the log of a server whose other databases are busy. 0 turns it off.",
        ),
        OptionSpec::with_default(
            "wal_limit_bytes",
            OptionType::ByteSize,
            json!(4_294_967_296_i64),
            "Log held back by the slot above which an alarm is raised in log and status. 0 turns it off.",
        ),
    ]
}

fn capture_options() -> Vec<OptionSpec> {
    let names = OptionType::list(OptionType::NonEmptyString);
    vec![
        OptionSpec::required(
            "tables",
            names.clone(),
            "The tables to capture, in PostgreSQL's own quoting (public.orders, public.\"Odd Name\"); * and ? outside \
             of quotes make a glob (public.*). Without a schema, public is meant. Tables that are created later and \
             match a glob are captured too.",
        ),
        OptionSpec::with_default(
            "exclude_tables",
            names.clone(),
            json!([]),
            "Tables to leave out of what the globs in tables match.",
        ),
        OptionSpec::with_default(
            "insert_only",
            names,
            json!([]),
            "Tables of which only inserts and truncates are captured: what a table without primary key and replica \
             identity needs, since PostgreSQL would refuse its updates once they are published. A row that is updated all \
             the same before an interrupted copy has come to it does not arrive.",
        ),
        OptionSpec::with_default(
            "snapshot",
            OptionType::choices(&[
                ("initial", "Copy what is there once, then follow the changes."),
                ("never", "Follow the changes from the moment of the first start."),
                ("only", "Copy what is there, then end."),
            ]),
            json!("initial"),
            "Whether the rows that exist are copied.",
        ),
        OptionSpec::with_default(
            "snapshot_connections",
            OptionType::int(1, 32),
            json!(3),
            "Connections that copy rows at the same time.",
        ),
        OptionSpec::with_default(
            "snapshot_chunk_bytes",
            OptionType::ByteSize,
            json!(33_554_432),
            "How much of a table is copied in one transaction. Large enough to be fast; smaller chunks hold locks and \
             old row versions for a shorter time, and leave less to read again after a crash.",
        ),
        OptionSpec::with_default(
            "tombstones",
            OptionType::Bool,
            json!(true),
            "Whether a delete is followed by a record without a value, which lets a compacted topic forget the key.",
        ),
        OptionSpec::with_default(
            "dropped_partitions",
            OptionType::choices(&[
                ("copy", "The table is copied anew, after a truncate, so that they are gone everywhere."),
                (
                    "keep",
                    "They stay where they were sent: what dropping old partitions is often meant to do.",
                ),
            ]),
            json!("copy"),
            "What becomes of the rows of a partition that is dropped or detached, of which the log says nothing.",
        ),
    ]
}

fn patterns(option: &str, texts: &[String], problems: &mut ConfigProblems) -> Vec<TablePattern> {
    let mut parsed = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match TablePattern::parse(text, Dialect::Postgres) {
            Ok(pattern) => parsed.push(pattern),
            Err(error) => {
                problems
                    .problems
                    .push(ConfigProblem::new(format!("{option}[{index}]"), error.to_string()).with_hint(
                    "write schema.table, and put a part with capitals or special characters in double quotes",
                ))
            }
        }
    }
    parsed
}

fn check_name(option: &str, name: Option<&str>, bytes_max: usize, problems: &mut ConfigProblems) {
    if name.is_some_and(|name| name.len() > bytes_max || name.contains(['\0', ','])) {
        problems.problems.push(ConfigProblem::new(
            option,
            format!("must have at most {bytes_max} bytes, and neither a comma nor a NUL"),
        ));
    }
}

impl Config {
    /// Reads the options; all problems at once (R12).
    pub(crate) fn parse(raw: &RawConfig) -> Result<Self, ConfigProblems> {
        let options: Options = raw.parse()?;
        let mut problems = ConfigProblems::default();
        let endpoint = Endpoint::parse(raw.str("url"))
            .map_err(|error| problems.problems.push(ConfigProblem::new("url", error.to_string())));
        if options.tables.is_empty() {
            problems.problems.push(
                ConfigProblem::new("tables", "names no table")
                    .with_hint("tables: [public.*] captures all of a schema"),
            );
        }
        let selection = Selection {
            tables: patterns("tables", &options.tables, &mut problems),
            exclude: patterns("exclude_tables", &options.exclude_tables, &mut problems),
            insert_only: patterns("insert_only", &options.insert_only, &mut problems),
        };
        let publication_max = NAME_BYTES_MAX - INSERT_ONLY_SUFFIX.len();
        check_name("publication", options.publication.as_deref(), publication_max, &mut problems);
        check_name("slot", options.slot.as_deref(), NAME_BYTES_MAX, &mut problems);
        let legal = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
        if options.slot.as_deref().is_some_and(|slot| !slot.chars().all(legal)) {
            problems.problems.push(ConfigProblem::new(
                "slot",
                "a slot's name has lower-case letters, digits and underscores only",
            ));
        }
        let Ok(endpoint) = endpoint else { return Err(problems) };
        problems.into_result()?;
        Ok(Self {
            endpoint,
            selection,
            slot: options.slot,
            publication: options.publication,
            snapshot: options.snapshot,
            snapshot_connections: options.snapshot_connections,
            snapshot_chunk_bytes: options.snapshot_chunk_bytes,
            heartbeat_ms: options.heartbeat_ms,
            wal_limit_bytes: options.wal_limit_bytes,
            tombstones: options.tombstones,
            dropped_partitions: options.dropped_partitions,
        })
    }

    /// The names for `pipeline`.
    pub(crate) fn names(&self, pipeline: &Arc<str>) -> Names {
        let default = || default_name(pipeline);
        let publication = self.publication.clone().unwrap_or_else(default);
        Names {
            slot: self.slot.clone().unwrap_or_else(default),
            insert_only_publication: format!("{publication}{INSERT_ONLY_SUFFIX}"),
            publication,
            own_publication: self.publication.is_none(),
        }
    }
}

/// `towpath_PIPELINE` in the characters that a slot may have; a hash tells pipelines apart that would collide.
fn default_name(pipeline: &str) -> String {
    const BYTES_MAX: usize = NAME_BYTES_MAX - INSERT_ONLY_SUFFIX.len();
    let legal = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    let plain = format!("towpath_{pipeline}");
    if plain.len() <= BYTES_MAX && plain.chars().all(legal) {
        return plain;
    }
    let mut name: String = plain.chars().map(|char| if legal(char) { char } else { '_' }).collect();
    name.truncate(BYTES_MAX - 9);
    format!("{name}_{:08x}", fnv1a(pipeline.as_bytes()) as u32)
}

/// FNV-1a: stable across versions and machines.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: serde_json::Value) -> Result<Config, ConfigProblems> {
        Config::parse(&RawConfig::with_defaults(&descriptor().options, values)?)
    }

    #[test]
    fn defaults_are_filled_in_and_names_derived() {
        let config = parse(json!({"url": "postgres://u@h/db", "tables": ["public.*"]})).unwrap();
        assert_eq!((config.snapshot, config.tombstones), (SnapshotMode::Initial, true));
        let names = config.names(&"shop".into());
        assert_eq!((names.slot.as_str(), names.own_publication), ("towpath_shop", true));
        assert_eq!(names.insert_only_publication, "towpath_shop_insert_only");
        let (a, b) = (default_name("Shop-1"), default_name("Shop.1"));
        assert!(a.starts_with("towpath__hop_1_") && a != b, "{a} {b}");
        assert!(default_name(&"x".repeat(200)).len() + INSERT_ONLY_SUFFIX.len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn all_problems_are_told_at_once_and_none_shows_the_password() {
        let problems = parse(json!({
            "url": "postgres://u:hidden@h:x/db",
            "tables": ["a.b.c", "Odd Name"],
            "insert_only": ["\"x"],
            "slot": "Bad-Slot",
        }))
        .unwrap_err();
        let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["url", "tables[0]", "tables[1]", "insert_only[0]", "slot"]);
        assert!(!problems.to_string().contains("hidden"));
    }
}
