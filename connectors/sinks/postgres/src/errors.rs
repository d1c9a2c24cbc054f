//! From what sqlx and the server say to classified errors.

use std::time::Duration;

use sqlx::Error;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use towpath_api::{ConnectorError, ErrorKind};
use towpath_sql::sink::Fault;

/// The error of the record whose value the server refused.
fn refused(sqlstate: &str, error: &dyn DatabaseError) -> ConnectorError {
    let code = match sqlstate {
        "23502" => "SINK_NOT_NULL",
        "23503" => "SINK_FOREIGN_KEY",
        "23505" => "SINK_UNIQUE",
        "23514" | "44000" => "SINK_CHECK",
        state if state.starts_with("23") => "SINK_CONSTRAINT",
        "P0001" => "SINK_TRIGGER",
        _ => "SINK_VALUE",
    };
    let mut message = format!("the database refuses the row: {} (SQLSTATE {sqlstate})", error.message());
    let postgres = error.try_downcast_ref::<PgDatabaseError>();
    if let Some(detail) = postgres.and_then(PgDatabaseError::detail) {
        message.push_str(": ");
        message.push_str(detail);
    }
    let refused = ConnectorError::terminal(code, message);
    match (code, error.constraint()) {
        ("SINK_VALUE", _) => {
            refused.with_hint("change the column's type, or cast the field with a transform")
        }
        (_, Some(constraint)) => refused.with_hint(format!("see the constraint {constraint:?} of the table")),
        _ => refused,
    }
}

/// Classifies `error`, which happened while we tried to do `what` ("write the rows").
pub(crate) fn classify(what: &str, error: Error) -> Fault {
    let (code, kind, hint) = match &error {
        Error::Database(database) => {
            let sqlstate = database.code().unwrap_or_default().into_owned();
            if is_data(&sqlstate) {
                return Fault::Data(refused(&sqlstate, database.as_ref()));
            }
            by_sqlstate(&sqlstate, database.message())
        }
        Error::Io(_) => ("PG_CONNECTION_LOST", ErrorKind::RetryAfter(RETRY), None),
        Error::Tls(_) => (
            "PG_TLS",
            ErrorKind::NeedsOperator,
            Some("choose another sslmode in the URL, or set up TLS on the server"),
        ),
        Error::Configuration(_) => ("PG_URL", ErrorKind::Terminal, Some("check the URL")),
        Error::WorkerCrashed | Error::PoolClosed | Error::PoolTimedOut => {
            ("PG_CONNECTION_LOST", ErrorKind::RetryAfter(RETRY), None)
        }
        // What the connection says after it broke in the middle of an answer.
        Error::Protocol(_) => ("PG_PROTOCOL", ErrorKind::RetryAfter(RETRY), None),
        _ => ("PG_CLIENT", ErrorKind::Bug, None),
    };
    let mut classified = ConnectorError::new(code, kind, format!("cannot {what}"));
    if let Some(hint) = hint {
        classified = classified.with_hint(hint);
    }
    Fault::Fatal(classified.with_cause(error))
}

/// How long what passes by itself is given.
const RETRY: Duration = Duration::from_secs(1);

/// Whether it is about the values of a row: data exceptions, integrity constraints, a row named twice, triggers that
/// object, rows past a limit, values of the wrong type.
fn is_data(sqlstate: &str) -> bool {
    let class = sqlstate.get(..2).unwrap_or_default();
    matches!(class, "22" | "23" | "44" | "21")
        || matches!(sqlstate, "P0001" | "P0002" | "P0003" | "P0004" | "54000" | "42804" | "42846" | "2200N")
}

fn by_sqlstate(sqlstate: &str, message: &str) -> (&'static str, ErrorKind, Option<&'static str>) {
    let retry = ErrorKind::RetryAfter(RETRY);
    let soon = ErrorKind::RetryAfter(Duration::from_millis(100));
    let operator = ErrorKind::NeedsOperator;
    match sqlstate {
        "28P01" | "28000" => ("PG_AUTH", operator, Some("check user, password and pg_hba.conf")),
        "3D000" => {
            ("PG_DATABASE_MISSING", operator, Some("create the database, or correct its name in the URL"))
        }
        "42501" => ("PG_PRIVILEGE", operator, Some("grant the privilege to the user of the URL")),
        "25006" => ("PG_READ_ONLY", operator, Some("the URL must lead to a server that takes writes")),
        "53300" | "55P04" => ("PG_CONNECTIONS_FULL", retry, None),
        "53100" => ("PG_DISK_FULL", operator, Some("make room on the database server")),
        "40001" | "40P01" | "55P03" | "57014" => ("PG_CONFLICT", soon, None),
        "57P01" | "57P02" | "57P03" | "57P05" | "25P02" | "25P03" => ("PG_SERVER_RESTART", retry, None),
        // The table was changed while we wrote: opening again reads the catalog anew.
        "42P01" | "42703" | "42704" | "42P10" | "3F000" => ("PG_TABLE_CHANGED", soon, None),
        "0A000" if message.contains("cached plan") => ("PG_TABLE_CHANGED", soon, None),
        state if state.starts_with("08") || state.starts_with("53") || state.starts_with("58") => {
            ("PG_SERVER", retry, None)
        }
        _ => ("PG_SERVER", operator, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_sqlstate() {
        let kind = |state| by_sqlstate(state, "").1;
        for passing in ["40P01", "40001", "53300", "57P01", "08006", "42P01"] {
            assert!(matches!(kind(passing), ErrorKind::RetryAfter(_)), "{passing}");
        }
        for operator in ["28P01", "42501", "53100", "25006", "3D000"] {
            assert_eq!(kind(operator), ErrorKind::NeedsOperator, "{operator}");
        }
        for data in ["22P02", "23505", "23502", "21000", "P0001", "54000", "44000", "22021"] {
            assert!(is_data(data), "{data}");
        }
        assert!(!is_data("57014") && !is_data(""));
    }

    #[test]
    fn lost_connections_are_tried_again() {
        let lost = Error::Io(std::io::ErrorKind::ConnectionReset.into());
        let error = classify("write the rows", lost).fatal();
        assert_eq!(error.code(), "PG_CONNECTION_LOST");
        assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)));
    }
}
