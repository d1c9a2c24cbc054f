//! HTTP as a sink: batched POST with retries.
