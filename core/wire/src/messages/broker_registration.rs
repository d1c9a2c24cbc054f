//! BrokerRegistration (API key 62): a broker that has started makes itself known to the active controller.

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of BrokerRegistration, versions 0-4.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = BrokerRegistration, response = BrokerRegistrationResponse, versions = "0-4", flexible = "0+")]
pub struct BrokerRegistrationRequest {
    /// The broker that registers.
    pub broker_id: i32,
    /// The cluster that the broker believes to belong to.
    pub cluster_id: String,
    /// What this process of the broker is called; another one after every start.
    pub incarnation_id: Uuid,
    /// Where clients and other brokers reach the broker.
    pub listeners: Vec<Listener>,
    /// The features that the broker knows. In versions 0-3, those with the lowest version 0 are left out.
    pub features: Vec<Feature>,
    /// The rack of the broker; null for none.
    #[wire(nullable = "0+")]
    pub rack: Option<String>,
    /// Whether the broker comes from a cluster with ZooKeeper; Kafka 4 refuses that.
    #[wire(versions = "1+")]
    pub is_migrating_zk_broker: bool,
    /// The log directories that the broker has.
    #[wire(versions = "2+", ignorable)]
    pub log_dirs: Vec<Uuid>,
    /// The epoch that the broker had before its last clean shutdown; -1 if it did not shut down cleanly (KIP-966).
    #[wire(versions = "3+", ignorable, default = "-1")]
    pub previous_broker_epoch: i64,
}

/// A part of [`BrokerRegistrationRequest`]: one entry of `listeners`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Listener {
    /// The name of the endpoint.
    pub name: String,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Kafka's number of the security protocol: 0 is PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// A part of [`BrokerRegistrationRequest`]: one entry of `features`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Feature {
    /// The name of the feature.
    pub name: String,
    /// The lowest level that the broker knows.
    pub min_supported_version: i16,
    /// The highest level that the broker knows.
    pub max_supported_version: i16,
}

/// The answer to [`BrokerRegistrationRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-4", flexible = "0+")]
pub struct BrokerRegistrationResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The epoch that the broker has got; -1 if none.
    #[wire(default = "-1")]
    pub broker_epoch: i64,
}
