//! AddRaftVoter (API key 80).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of AddRaftVoter, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AddRaftVoter, response = AddRaftVoterResponse, versions = "0-1", flexible = "0+")]
pub struct AddRaftVoterRequest {
    /// The cluster that is meant; null for whichever answers.
    #[wire(nullable = "0+")]
    pub cluster_id: Option<String>,
    /// Milliseconds to wait for the result.
    pub timeout_ms: i32,
    /// The node that is to be a voter.
    pub voter_id: i32,
    /// The directory of the node that is to be a voter.
    pub voter_directory_id: Uuid,
    /// Where other nodes reach the voter.
    pub listeners: Vec<Listener>,
    /// Whether the answer waits until the new set of voters is committed.
    #[wire(versions = "1+", default = "true")]
    pub ack_when_committed: bool,
}

/// A part of [`AddRaftVoterRequest`]: one entry of `listeners`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Listener {
    /// The name of the endpoint.
    pub name: String,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The answer to [`AddRaftVoterRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct AddRaftVoterResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", ignorable)]
    pub error_message: Option<String>,
}
