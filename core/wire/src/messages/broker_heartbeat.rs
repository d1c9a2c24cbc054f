//! BrokerHeartbeat (API key 63): a broker tells the active controller that it lives, and what it wants.

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of BrokerHeartbeat, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = BrokerHeartbeat, response = BrokerHeartbeatResponse, versions = "0-2", flexible = "0+")]
pub struct BrokerHeartbeatRequest {
    /// The broker.
    pub broker_id: i32,
    /// The epoch of the broker; -1 if it has none.
    #[wire(default = "-1")]
    pub broker_epoch: i64,
    /// The highest offset of the metadata log that the broker has applied.
    pub current_metadata_offset: i64,
    /// Whether the broker wants to be fenced.
    pub want_fence: bool,
    /// Whether the broker wants to shut down.
    pub want_shut_down: bool,
    /// The log directories that have failed.
    #[wire(versions = "1+", tag = 0, tagged = "1+")]
    pub offline_log_dirs: Vec<Uuid>,
    /// The log directories that take no new replicas; null before the broker has recovered its logs.
    #[wire(versions = "2+", tag = 1, tagged = "2+", nullable = "2+", default = "null")]
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

/// The answer to [`BrokerHeartbeatRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "0+")]
pub struct BrokerHeartbeatResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// Whether the broker has caught up with the metadata.
    pub is_caught_up: bool,
    /// Whether the broker is fenced.
    #[wire(default = "true")]
    pub is_fenced: bool,
    /// Whether the broker may shut down now.
    pub should_shut_down: bool,
}
