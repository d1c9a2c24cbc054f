//! The broker's metrics, looked up once.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram};
use towpath_telemetry::names;
use towpath_wire::ApiKey;

/// Keys up to this have metrics of their own.
const KEYS: usize = 128;

struct ApiMetrics {
    requests: Counter,
    seconds: Histogram,
}

/// Handles of the broker's metrics.
pub(crate) struct BrokerMetrics {
    apis: Vec<Option<ApiMetrics>>,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) records_in: Counter,
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) request_memory: Gauge,
    pub(crate) partitions: Gauge,
    pub(crate) offline: Gauge,
}

impl std::fmt::Debug for BrokerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrokerMetrics")
    }
}

impl BrokerMetrics {
    /// Looks the metrics of these APIs up with the recorder that is installed.
    pub(crate) fn new(apis: &[ApiKey]) -> Self {
        let mut table: Vec<Option<ApiMetrics>> = (0..KEYS).map(|_| None).collect();
        for api in apis {
            let slot = usize::try_from(api.code()).ok().and_then(|key| table.get_mut(key));
            if let Some(slot) = slot {
                *slot = Some(ApiMetrics {
                    requests: metrics::counter!(names::REQUESTS, "api" => api.name()),
                    seconds: metrics::histogram!(names::REQUEST_SECONDS, "api" => api.name()),
                });
            }
        }
        Self {
            apis: table,
            bytes_in: metrics::counter!(names::BYTES_IN),
            bytes_out: metrics::counter!(names::BYTES_OUT),
            records_in: metrics::counter!(names::RECORDS_IN),
            connections: metrics::gauge!(names::CONNECTIONS),
            accepted: metrics::counter!(names::CONNECTIONS_ACCEPTED),
            request_memory: metrics::gauge!(names::REQUEST_MEMORY),
            partitions: metrics::gauge!(names::PARTITIONS),
            offline: metrics::gauge!(names::LOG_DIRS_OFFLINE),
        }
    }

    /// A request that arrived at `began` has its answer.
    pub(crate) fn answered(&self, api: ApiKey, began: Instant) {
        let slot = usize::try_from(api.code()).ok().and_then(|key| self.apis.get(key));
        if let Some(Some(metrics)) = slot {
            metrics.requests.increment(1);
            metrics.seconds.record(began.elapsed().as_secs_f64());
        }
    }

    /// An answer to `api` carries an error.
    pub(crate) fn error(api: ApiKey, error: towpath_wire::ErrorCode) {
        metrics::counter!(names::ERRORS, "api" => api.name(), "error" => error.name()).increment(1);
    }
}
