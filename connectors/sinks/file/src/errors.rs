//! From errors of the file system to classified ones.

use std::io::{Error, ErrorKind};

use towpath_api::ConnectorError;

/// Classifies `error`, which happened while we tried to do `what` ("write /data/a.jsonl").
pub(crate) fn io_error(what: &str, error: Error) -> ConnectorError {
    let message = format!("cannot {what}");
    let classified = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            ConnectorError::needs_operator("SINK_DISK_FULL", message)
                .with_hint("make room; nothing is lost, and the task goes on where it stood")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            ConnectorError::needs_operator("SINK_PERMISSION", message)
                .with_hint("let the user that towpath runs as write into the directory")
        }
        ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::IsADirectory => {
            ConnectorError::needs_operator("SINK_PATH", message)
        }
        _ => ConnectorError::retry("SINK_IO", message),
    };
    classified.with_cause(error)
}
