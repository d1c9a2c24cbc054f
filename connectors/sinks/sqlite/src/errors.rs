//! From what sqlx and SQLite say to classified errors.

use std::time::Duration;

use sqlx::Error;
use towpath_api::{ConnectorError, ErrorKind};
use towpath_sql::sink::Fault;

/// Classifies `error`, which happened while we tried to do `what` ("write the rows").
pub(crate) fn classify(what: &str, error: Error) -> Fault {
    let soon = ErrorKind::RetryAfter(Duration::from_millis(100));
    let retry = ErrorKind::RetryAfter(Duration::from_secs(1));
    let operator = ErrorKind::NeedsOperator;
    let (code, kind, hint) = match &error {
        Error::Database(database) => {
            let extended: u32 = database.code().and_then(|code| code.parse().ok()).unwrap_or_default();
            let message = database.message();
            // The low byte is the primary result code ("Result and Error Codes").
            match extended & 0xff {
                18..=20 => return Fault::Data(refused(extended, message)),
                5 | 6 => ("SQLITE_BUSY", soon, None),
                13 => ("SINK_DISK_FULL", operator, Some("make room; nothing is lost")),
                3 | 8 | 14 | 23 => (
                    "SQLITE_CANNOT_WRITE",
                    operator,
                    Some("let the user that towpath runs as write the file and its folder"),
                ),
                11 | 26 => (
                    "SQLITE_NOT_A_DATABASE",
                    operator,
                    Some("choose another file with `path`, or restore it"),
                ),
                17 => ("SQLITE_TABLE_CHANGED", soon, None),
                // The table was changed while we wrote: opening again reads it anew.
                1 if ["no such table", "no such column", "has no column named"]
                    .iter()
                    .any(|text| message.contains(text)) =>
                {
                    ("SQLITE_TABLE_CHANGED", soon, None)
                }
                10 => ("SQLITE_IO", retry, None),
                _ => ("SQLITE", operator, None),
            }
        }
        Error::Io(_) => ("SQLITE_IO", retry, None),
        Error::WorkerCrashed => ("SQLITE_WORKER", retry, None),
        _ => ("SQLITE_CLIENT", ErrorKind::Bug, None),
    };
    let mut classified = ConnectorError::new(code, kind, format!("cannot {what}"));
    if let Some(hint) = hint {
        classified = classified.with_hint(hint);
    }
    Fault::Fatal(classified.with_cause(error))
}

/// The error of the record whose values the database refused.
fn refused(extended: u32, message: &str) -> ConnectorError {
    let code = match extended {
        275 => "SINK_CHECK",
        787 => "SINK_FOREIGN_KEY",
        1299 => "SINK_NOT_NULL",
        1555 | 2067 => "SINK_UNIQUE",
        1811 => "SINK_TRIGGER",
        3091 => "SINK_VALUE",
        other if other & 0xff == 19 => "SINK_CONSTRAINT",
        _ => "SINK_VALUE",
    };
    ConnectorError::terminal(code, format!("the database refuses the row: {message} (code {extended})"))
}
