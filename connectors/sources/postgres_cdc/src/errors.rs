//! From a failed connection or statement to a classified error.

use std::time::Duration;

use towpath_api::{ConnectorError, ErrorKind};

use super::wire::PgError;

/// How long what passes by itself is given.
const RETRY: Duration = Duration::from_secs(1);

/// Classifies `error`, which happened while we tried to do `what` ("read the catalog").
pub(crate) fn classify(what: &str, error: PgError) -> ConnectorError {
    let (code, kind, hint) = verdict(&error);
    let mut classified = ConnectorError::new(code, kind, format!("cannot {what}"));
    let server_hint = match &error {
        PgError::Server(server) => server.hint.clone(),
        _ => None,
    };
    if let Some(hint) = hint.map(str::to_owned).or(server_hint) {
        classified = classified.with_hint(hint);
    }
    classified.with_cause(error)
}

fn verdict(error: &PgError) -> (&'static str, ErrorKind, Option<&'static str>) {
    let retry = ErrorKind::RetryAfter(RETRY);
    match error {
        PgError::Connect { .. } => (
            "PG_UNREACHABLE",
            retry,
            Some("check host and port of the URL, listen_addresses of the server, and any firewall between"),
        ),
        PgError::Io(_) => ("PG_CONNECTION_LOST", retry, None),
        PgError::Timeout(_) => ("PG_TIMEOUT", retry, None),
        PgError::Tls(_) => (
            "PG_TLS",
            ErrorKind::NeedsOperator,
            Some("choose another sslmode in the URL, or set up TLS on the server"),
        ),
        PgError::Auth(_) => ("PG_AUTH", ErrorKind::NeedsOperator, Some("check user and password in the URL")),
        PgError::Protocol(_) | PgError::Answer(_) => ("PG_PROTOCOL", ErrorKind::Bug, None),
        PgError::Server(server) => by_sqlstate(&server.sqlstate, &server.message),
    }
}

fn by_sqlstate(sqlstate: &str, message: &str) -> (&'static str, ErrorKind, Option<&'static str>) {
    let retry = ErrorKind::RetryAfter(RETRY);
    let operator = ErrorKind::NeedsOperator;
    match sqlstate {
        "28P01" => ("PG_AUTH", operator, Some("check user and password in the URL")),
        "28000" if message.contains("pg_hba") => {
            ("PG_AUTH", operator, Some("add a line for this user, database and address to pg_hba.conf"))
        }
        "28000" => ("PG_AUTH", operator, None),
        "3D000" => ("PG_DATABASE_MISSING", operator, Some("check the database's name in the URL")),
        "42501" => ("PG_PRIVILEGE", operator, None),
        // "replication slot … is active for PID …": typically our own predecessor, whose end the server notices soon.
        "55006" => ("PG_SLOT_ACTIVE", ErrorKind::RetryAfter(Duration::from_millis(500)), None),
        "53400" => (
            "PG_SLOTS_FULL",
            operator,
            Some("raise max_replication_slots and restart the server, or drop slots that nobody uses"),
        ),
        "53300" => ("PG_CONNECTIONS_FULL", retry, None),
        // "can no longer get changes from replication slot": its WAL is gone or it was invalidated.
        "55000" if message.contains("can no longer get changes") || message.contains("invalidated") => {
            ("PG_SLOT_LOST", ErrorKind::Terminal, None)
        }
        "58P01" if message.contains("WAL segment") => ("PG_SLOT_LOST", ErrorKind::Terminal, None),
        "55000" if message.contains("wal_level") => (
            "PG_WAL_LEVEL",
            operator,
            Some("ALTER SYSTEM SET wal_level = 'logical'; then restart the server"),
        ),
        "57P01" | "57P02" | "57P03" | "57P05" | "57014" | "40001" | "40P01" | "55P03" => {
            ("PG_SERVER", retry, None)
        }
        state if state.starts_with("08") || state.starts_with("53") || state.starts_with("58") => {
            ("PG_SERVER", retry, None)
        }
        _ => ("PG_SERVER", operator, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::ServerError;
    use super::*;

    fn server(sqlstate: &str, message: &str) -> ConnectorError {
        let error =
            ServerError { sqlstate: sqlstate.into(), message: message.into(), ..ServerError::default() };
        classify("stream", PgError::Server(Box::new(error)))
    }

    #[test]
    fn errors_are_classified_by_their_sqlstate() {
        assert_eq!(server("28P01", "password authentication failed").kind(), ErrorKind::NeedsOperator);
        let active = server("55006", "replication slot \"x\" is active for PID 7");
        assert_eq!(active.code(), "PG_SLOT_ACTIVE");
        assert!(matches!(active.kind(), ErrorKind::RetryAfter(after) if after <= Duration::from_secs(1)));
        let lost = server("55000", "can no longer get changes from replication slot \"x\"");
        assert_eq!((lost.code(), lost.kind()), ("PG_SLOT_LOST", ErrorKind::Terminal));
        assert!(matches!(server("57P01", "terminating connection").kind(), ErrorKind::RetryAfter(_)));
        assert_eq!(
            server("42P01", "no such table").full_message(),
            "cannot stream: no such table (SQLSTATE 42P01)"
        );
    }
}
