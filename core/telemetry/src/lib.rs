//! Metric names, tracing set-up.
