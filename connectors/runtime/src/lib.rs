//! The supervisor: pipelines, tasks, offsets, retries, dead letters, status.
