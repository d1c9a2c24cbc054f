//! The Prometheus recorder.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::names;

/// Upper bounds of the latency buckets, in seconds.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The metrics recorder.
    #[error("the metrics recorder cannot be installed")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The log filter.
    #[error(
        "`{0}` is no log filter: a level (error, warn, info, debug, trace), or module=level pairs with commas"
    )]
    Filter(String),
    /// Tracing was set up before.
    #[error("tracing is set up twice")]
    Tracing(#[from] tracing_subscriber::util::TryInitError),
}

/// Renders the metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl std::fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsHandle")
    }
}

impl MetricsHandle {
    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Lets the recorder fold what histograms have collected; call it every few seconds, so that nothing piles up
    /// while nobody asks.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Installs the Prometheus recorder for the process and describes the metrics.
///
/// # Errors
/// [`TelemetryError::Metrics`], also when a recorder is there already.
pub fn install_metrics() -> Result<MetricsHandle, TelemetryError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .install_recorder()?;
    describe();
    Ok(MetricsHandle(handle))
}

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_gauge!(names::CONNECTIONS, "Connections open now");
    describe_counter!(names::CONNECTIONS_ACCEPTED, "Connections accepted");
    describe_counter!(names::CONNECTIONS_CLOSED, "Connections refused or ended by a limit");
    describe_counter!(names::REQUESTS, "Requests answered");
    describe_counter!(names::REQUESTS_INVALID, "Requests that could not be read");
    describe_histogram!(names::REQUEST_SECONDS, Unit::Seconds, "From a request's last byte to its answer");
    describe_counter!(names::ERRORS, "Error codes in answers");
    describe_counter!(names::BYTES_IN, Unit::Bytes, "Bytes of record batches taken in");
    describe_counter!(names::BYTES_OUT, Unit::Bytes, "Bytes of record batches given out");
    describe_counter!(names::RECORDS_IN, "Records taken in");
    describe_gauge!(names::REQUEST_MEMORY, Unit::Bytes, "Bytes of requests and answers in memory");
    describe_gauge!(names::PARTITIONS, "Partitions whose files are open");
    describe_gauge!(names::LOG_DIRS_OFFLINE, "Log directories that take no more work");
    describe_histogram!(names::FLUSH_SECONDS, Unit::Seconds, "Duration of one shared flush");
}
