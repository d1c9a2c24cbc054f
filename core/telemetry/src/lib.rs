//! Metric names and the set-up of tracing.
//!
//! Every metric's name stands in [`names`], so that dashboards, documentation and code agree; [`describe`] gives
//! the recorder their units and meanings. [`install_metrics`] installs the Prometheus recorder, [`init_tracing`]
//! the log output, which goes past secrets and progress bars ([`write_output`]). Libraries only use the `metrics` and `tracing` macros; the binary calls these once.
#![forbid(unsafe_code)]

mod metrics_setup;
pub mod names;
mod output;
mod tracing_setup;

pub use metrics_setup::{MetricsHandle, TelemetryError, describe, install_metrics};
pub use output::{Route, install_panic_hook, redact_with, redacted, route_output, write_output};
pub use tracing_setup::{LogFormat, init_tracing};
