//! DescribeCluster (API key 60).

use towpath_wire_derive::Message;

/// The request of DescribeCluster, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeCluster, response = DescribeClusterResponse, versions = "0-2", flexible = "0+")]
pub struct DescribeClusterRequest {
    /// Whether to include cluster authorized operations.
    pub include_cluster_authorized_operations: bool,
    /// The endpoint type to describe.
    #[wire(versions = "1+", default = "1")]
    pub endpoint_type: i8,
    /// Whether to include fenced brokers when listing brokers.
    #[wire(versions = "2+")]
    pub include_fenced_brokers: bool,
}

/// The answer to [`DescribeClusterRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "0+")]
pub struct DescribeClusterResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The endpoint type that was described.
    #[wire(versions = "1+", default = "1")]
    pub endpoint_type: i8,
    /// The cluster id that responding broker belongs to.
    pub cluster_id: String,
    /// The id of the controller.
    #[wire(default = "-1")]
    pub controller_id: i32,
    /// Each broker in the response.
    pub brokers: Vec<DescribeClusterBroker>,
    /// 32-bit bitfield to represent authorized operations for this cluster.
    #[wire(default = "-2147483648")]
    pub cluster_authorized_operations: i32,
}

/// A part of [`DescribeClusterResponse`]: one entry of `brokers`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeClusterBroker {
    /// The broker id.
    pub broker_id: i32,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: i32,
    /// The rack of the broker; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub rack: Option<String>,
    /// Whether the broker is fenced.
    #[wire(versions = "2+")]
    pub is_fenced: bool,
}
