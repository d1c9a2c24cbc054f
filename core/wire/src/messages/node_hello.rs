//! NodeHello (API key 20000, ours): the first request of a connection between nodes of one cluster.

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of NodeHello, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = NodeHello, response = NodeHelloResponse, versions = "0", flexible = "0+")]
pub struct NodeHelloRequest {
    /// The cluster that the node belongs to; null while it has not joined one.
    #[wire(nullable = "0+", default = "null")]
    pub cluster_id: Option<String>,
    /// The name of the cluster that the node is configured for.
    pub cluster_name: String,
    /// The node that calls.
    #[wire(default = "-1")]
    pub node_id: i32,
    /// The node that the caller means to have reached; -1 if any.
    #[wire(default = "-1")]
    pub expected_node_id: i32,
    /// What this process of the node is called; another one after every start.
    pub incarnation_id: Uuid,
    /// The node's data directory, which keeps its id for life.
    pub directory_id: Uuid,
    /// Whether the node has the role `broker`.
    pub is_broker: bool,
    /// Whether the node has the role `controller`.
    pub is_controller: bool,
    /// The node's version, for people.
    pub software_version: String,
}

/// The answer to [`NodeHelloRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct NodeHelloResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The cluster that the answering node belongs to; null while it has not joined one.
    #[wire(nullable = "0+", default = "null")]
    pub cluster_id: Option<String>,
    /// The node that answers.
    #[wire(default = "-1")]
    pub node_id: i32,
    /// What the answering process is called.
    pub incarnation_id: Uuid,
    /// The answering node's data directory.
    pub directory_id: Uuid,
    /// The answering node's version, for people.
    pub software_version: String,
}
