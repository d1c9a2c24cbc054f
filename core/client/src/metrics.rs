//! What producers, consumers and connections count, through the `metrics` facade: without a recorder it costs nothing.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use towpath_wire::ApiKey;

use crate::Acknowledgement;

/// Connections open now; label `client_id`, as behind all others.
pub const CONNECTIONS: &str = "towpath_client_connections";
/// Connections opened.
pub const CONNECTIONS_OPENED: &str = "towpath_client_connections_opened_total";
/// Attempts to connect that failed.
pub const CONNECTION_FAILURES: &str = "towpath_client_connection_failures_total";
/// Requests sent; label `api`.
pub const REQUESTS: &str = "towpath_client_requests_total";
/// Requests that were not answered in time; label `api`.
pub const REQUEST_TIMEOUTS: &str = "towpath_client_request_timeouts_total";
/// Records acknowledged.
pub const PRODUCED_RECORDS: &str = "towpath_producer_records_total";
/// Bytes of batches sent, as they travel; repetitions count.
pub const PRODUCED_BYTES: &str = "towpath_producer_bytes_total";
/// Batches sent; repetitions count.
pub const PRODUCED_BATCHES: &str = "towpath_producer_batches_total";
/// Batches that came back and are sent again.
pub const PRODUCE_RETRIES: &str = "towpath_producer_retries_total";
/// Records that failed.
pub const PRODUCE_FAILURES: &str = "towpath_producer_failed_records_total";
/// Bytes of records that are not acknowledged yet.
pub const PRODUCER_BUFFER: &str = "towpath_producer_buffer_bytes";
/// Seconds from a produce request to its answer.
pub const PRODUCE_SECONDS: &str = "towpath_producer_request_seconds";
/// Transactions that ended; label `result` (`committed` or `aborted`).
pub const TRANSACTIONS: &str = "towpath_producer_transactions_total";
/// Records given to the application.
pub const CONSUMED_RECORDS: &str = "towpath_consumer_records_total";
/// Bytes of batches fetched, as they travel.
pub const CONSUMED_BYTES: &str = "towpath_consumer_bytes_total";
/// Seconds from a fetch to its answer, the broker's wait for data included.
pub const FETCH_SECONDS: &str = "towpath_consumer_fetch_seconds";
/// Bytes fetched ahead of the application.
pub const CONSUMER_BUFFER: &str = "towpath_consumer_buffer_bytes";
/// The most records that a partition just polled is behind its high watermark.
pub const CONSUMER_LAG: &str = "towpath_consumer_lag_records";
/// Rebalances: partitions assigned, revoked or lost; label `event`.
pub const REBALANCES: &str = "towpath_consumer_rebalances_total";

/// Records that share consumers gave to the application; those given out again count again.
pub const SHARE_RECORDS: &str = "towpath_share_consumer_records_total";
/// Bytes of batches that share consumers fetched, as they travel.
pub const SHARE_BYTES: &str = "towpath_share_consumer_bytes_total";
/// Seconds from a share fetch to its answer, the broker's wait for data included.
pub const SHARE_FETCH_SECONDS: &str = "towpath_share_consumer_fetch_seconds";
/// Bytes that brokers have answered to share consumers and the application has not polled.
pub const SHARE_BUFFER: &str = "towpath_share_consumer_buffer_bytes";
/// Records that the application has not acknowledged, as of the last poll.
pub const SHARE_HELD: &str = "towpath_share_consumer_held_records";
/// Records of which something was said; label `type` (`accept`, `release`, `reject` or `renew`).
pub const SHARE_ACKNOWLEDGEMENTS: &str = "towpath_share_consumer_acknowledgements_total";
/// Times that what was said of a partition's records counted for nothing.
pub const SHARE_FAILURES: &str = "towpath_share_consumer_acknowledgement_failures_total";

/// Tells the recorder what the client's metrics mean.
pub fn describe_metrics() {
    describe_gauge!(CONNECTIONS, "Connections open now");
    describe_counter!(CONNECTIONS_OPENED, "Connections opened");
    describe_counter!(CONNECTION_FAILURES, "Attempts to connect that failed");
    describe_counter!(REQUESTS, "Requests sent");
    describe_counter!(REQUEST_TIMEOUTS, "Requests not answered in time");
    describe_counter!(PRODUCED_RECORDS, "Records acknowledged");
    describe_counter!(PRODUCED_BYTES, Unit::Bytes, "Bytes of batches sent");
    describe_counter!(PRODUCED_BATCHES, "Batches sent");
    describe_counter!(PRODUCE_RETRIES, "Batches sent again");
    describe_counter!(PRODUCE_FAILURES, "Records that failed");
    describe_gauge!(PRODUCER_BUFFER, Unit::Bytes, "Bytes of records not acknowledged yet");
    describe_histogram!(PRODUCE_SECONDS, Unit::Seconds, "From a produce request to its answer");
    describe_counter!(TRANSACTIONS, "Transactions ended");
    describe_counter!(CONSUMED_RECORDS, "Records given to the application");
    describe_counter!(CONSUMED_BYTES, Unit::Bytes, "Bytes of batches fetched");
    describe_histogram!(FETCH_SECONDS, Unit::Seconds, "From a fetch to its answer");
    describe_gauge!(CONSUMER_BUFFER, Unit::Bytes, "Bytes fetched ahead");
    describe_gauge!(CONSUMER_LAG, "Records behind the high watermark");
    describe_counter!(REBALANCES, "Partitions assigned, revoked or lost");
    describe_counter!(SHARE_RECORDS, "Records given to the application by share consumers");
    describe_counter!(SHARE_BYTES, Unit::Bytes, "Bytes of batches fetched by share consumers");
    describe_histogram!(SHARE_FETCH_SECONDS, Unit::Seconds, "From a share fetch to its answer");
    describe_gauge!(SHARE_BUFFER, Unit::Bytes, "Bytes answered to share consumers and not polled");
    describe_gauge!(SHARE_HELD, "Records not acknowledged");
    describe_counter!(SHARE_ACKNOWLEDGEMENTS, "Records acknowledged");
    describe_counter!(SHARE_FAILURES, "Acknowledgements of partitions that counted for nothing");
}

/// Of all connections of a client.
pub(crate) struct ConnectionMetrics {
    client_id: String,
    pub(crate) open: Gauge,
    pub(crate) opened: Counter,
    pub(crate) failures: Counter,
    /// By API key.
    requests: Vec<OnceLock<Counter>>,
}

impl std::fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectionMetrics")
    }
}

impl ConnectionMetrics {
    pub(crate) fn new(client_id: &str) -> Self {
        let id = || client_id.to_owned();
        Self {
            open: gauge!(CONNECTIONS, "client_id" => id()),
            opened: counter!(CONNECTIONS_OPENED, "client_id" => id()),
            failures: counter!(CONNECTION_FAILURES, "client_id" => id()),
            requests: (0..128).map(|_| OnceLock::new()).collect(),
            client_id: id(),
        }
    }

    pub(crate) fn sent(&self, api: ApiKey) {
        let slot = usize::try_from(api.code()).ok().and_then(|index| self.requests.get(index));
        if let Some(slot) = slot {
            let id = || self.client_id.clone();
            slot.get_or_init(|| counter!(REQUESTS, "client_id" => id(), "api" => api.name())).increment(1);
        }
    }

    pub(crate) fn timed_out(&self, api: ApiKey) {
        let id = self.client_id.clone();
        counter!(REQUEST_TIMEOUTS, "client_id" => id, "api" => api.name()).increment(1);
    }
}

/// Of a producer; those of one client id add up.
pub(crate) struct ProducerMetrics {
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) retries: Counter,
    pub(crate) failures: Counter,
    pub(crate) buffer: Gauge,
    pub(crate) seconds: Histogram,
    pub(crate) committed: Counter,
    pub(crate) aborted: Counter,
}

impl ProducerMetrics {
    pub(crate) fn new(client_id: &str) -> Self {
        let id = || client_id.to_owned();
        Self {
            records: counter!(PRODUCED_RECORDS, "client_id" => id()),
            bytes: counter!(PRODUCED_BYTES, "client_id" => id()),
            batches: counter!(PRODUCED_BATCHES, "client_id" => id()),
            retries: counter!(PRODUCE_RETRIES, "client_id" => id()),
            failures: counter!(PRODUCE_FAILURES, "client_id" => id()),
            buffer: gauge!(PRODUCER_BUFFER, "client_id" => id()),
            seconds: histogram!(PRODUCE_SECONDS, "client_id" => id()),
            committed: counter!(TRANSACTIONS, "client_id" => id(), "result" => "committed"),
            aborted: counter!(TRANSACTIONS, "client_id" => id(), "result" => "aborted"),
        }
    }
}

/// Of a consumer; those of one client id add up.
pub(crate) struct ConsumerMetrics {
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) buffer: Gauge,
    pub(crate) lag: Gauge,
    pub(crate) assigned: Counter,
    pub(crate) revoked: Counter,
    pub(crate) lost: Counter,
}

impl std::fmt::Debug for ConsumerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConsumerMetrics")
    }
}

impl ConsumerMetrics {
    pub(crate) fn new(client_id: &str) -> Self {
        let id = || client_id.to_owned();
        let rebalances = |event| counter!(REBALANCES, "client_id" => id(), "event" => event);
        Self {
            records: counter!(CONSUMED_RECORDS, "client_id" => id()),
            bytes: counter!(CONSUMED_BYTES, "client_id" => id()),
            seconds: histogram!(FETCH_SECONDS, "client_id" => id()),
            buffer: gauge!(CONSUMER_BUFFER, "client_id" => id()),
            lag: gauge!(CONSUMER_LAG, "client_id" => id()),
            assigned: rebalances("assigned"),
            revoked: rebalances("revoked"),
            lost: rebalances("lost"),
        }
    }
}

/// Of a share consumer; those of one client id add up.
pub(crate) struct ShareMetrics {
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) buffer: Gauge,
    pub(crate) held: Gauge,
    pub(crate) failures: Counter,
    acknowledgements: [(Acknowledgement, Counter); 4],
}

impl std::fmt::Debug for ShareMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShareMetrics")
    }
}

impl ShareMetrics {
    pub(crate) fn new(client_id: &str) -> Self {
        use Acknowledgement as A;
        let id = || client_id.to_owned();
        let of =
            |what: A| (what, counter!(SHARE_ACKNOWLEDGEMENTS, "client_id" => id(), "type" => what.name()));
        Self {
            records: counter!(SHARE_RECORDS, "client_id" => id()),
            bytes: counter!(SHARE_BYTES, "client_id" => id()),
            seconds: histogram!(SHARE_FETCH_SECONDS, "client_id" => id()),
            buffer: gauge!(SHARE_BUFFER, "client_id" => id()),
            held: gauge!(SHARE_HELD, "client_id" => id()),
            failures: counter!(SHARE_FAILURES, "client_id" => id()),
            acknowledgements: [A::Accept, A::Release, A::Reject, A::Renew].map(of),
        }
    }

    pub(crate) fn acknowledged(&self, what: Acknowledgement, count: u64) {
        if let Some((_, counter)) = self.acknowledgements.iter().find(|(known, _)| *known == what) {
            counter.increment(count);
        }
    }
}
