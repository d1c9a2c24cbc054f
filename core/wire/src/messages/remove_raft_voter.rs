//! RemoveRaftVoter (API key 81).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of RemoveRaftVoter, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = RemoveRaftVoter, response = RemoveRaftVoterResponse, versions = "0", flexible = "0+")]
pub struct RemoveRaftVoterRequest {
    /// The cluster that is meant; null for whichever answers.
    #[wire(nullable = "0+")]
    pub cluster_id: Option<String>,
    /// The node that is to be a voter no more.
    pub voter_id: i32,
    /// The directory of that node.
    pub voter_directory_id: Uuid,
}

/// The answer to [`RemoveRaftVoterRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct RemoveRaftVoterResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", ignorable)]
    pub error_message: Option<String>,
}
