//! The names of all metrics of the broker. Labels stand behind each.

/// Connections open now.
pub const CONNECTIONS: &str = "towpath_broker_connections";
/// Connections accepted since the start.
pub const CONNECTIONS_ACCEPTED: &str = "towpath_broker_connections_accepted_total";
/// Connections refused or ended by a limit; label `reason`.
pub const CONNECTIONS_CLOSED: &str = "towpath_broker_connections_closed_total";
/// Requests answered; label `api`.
pub const REQUESTS: &str = "towpath_broker_requests_total";
/// Requests that could not be read; label `reason`.
pub const REQUESTS_INVALID: &str = "towpath_broker_requests_invalid_total";
/// Seconds from the arrival of a request's last byte to its answer, waiting included; label `api`.
pub const REQUEST_SECONDS: &str = "towpath_broker_request_seconds";
/// Error codes of produce and fetch answers; labels `api`, `error`.
pub const ERRORS: &str = "towpath_broker_errors_total";
/// Bytes of record batches taken in.
pub const BYTES_IN: &str = "towpath_broker_bytes_in_total";
/// Bytes of record batches given out.
pub const BYTES_OUT: &str = "towpath_broker_bytes_out_total";
/// Records taken in.
pub const RECORDS_IN: &str = "towpath_broker_records_in_total";
/// Bytes of requests and answers held in memory.
pub const REQUEST_MEMORY: &str = "towpath_broker_request_memory_bytes";
/// Bytes that requests and answers may hold in memory, all together.
pub const REQUEST_MEMORY_LIMIT: &str = "towpath_broker_request_memory_limit_bytes";
/// First offset of a partition; labels `topic`, `partition`.
pub const LOG_START_OFFSET: &str = "towpath_partition_log_start_offset";
/// The offset after the last record of a partition; labels `topic`, `partition`.
pub const LOG_END_OFFSET: &str = "towpath_partition_log_end_offset";
/// The offset up to which consumers see a partition; labels `topic`, `partition`.
pub const HIGH_WATERMARK: &str = "towpath_partition_high_watermark";
/// Bytes of a partition on disk; labels `topic`, `partition`.
pub const PARTITION_BYTES: &str = "towpath_partition_size_bytes";
/// Always 1; label `version`.
pub const BUILD_INFO: &str = "towpath_build_info";
/// Partitions whose files are open: the others are opened when somebody asks for them.
pub const PARTITIONS: &str = "towpath_broker_partitions";
/// Log directories that failed and take no more work.
pub const LOG_DIRS_OFFLINE: &str = "towpath_broker_log_dirs_offline";
/// Seconds that one shared flush took.
pub const FLUSH_SECONDS: &str = "towpath_broker_flush_seconds";
