//! Log output.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::TelemetryError;
use crate::output::LogOutput;

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the process's log to the standard error output, filtered by `filter` (a level, or `module=level` pairs
/// with commas between them).
///
/// # Errors
/// [`TelemetryError::Filter`] and [`TelemetryError::Tracing`].
pub fn init_tracing(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(|_| TelemetryError::Filter(filter.to_owned()))?;
    let layer = tracing_subscriber::fmt::layer().with_writer(LogOutput);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()?,
        LogFormat::Json => registry.with(layer.json()).try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_said_to_be_wrong() {
        let error = init_tracing("towpath=loud", LogFormat::Text).unwrap_err();
        assert!(error.to_string().contains("towpath=loud"));
    }
}
