//! DescribeUserScramCredentials (API key 50).

use towpath_wire_derive::Message;

/// The request of DescribeUserScramCredentials, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeUserScramCredentials, response = DescribeUserScramCredentialsResponse, versions = "0", flexible = "0+")]
pub struct DescribeUserScramCredentialsRequest {
    /// The users to describe, or null/empty to describe all users.
    #[wire(nullable = "0+")]
    pub users: Option<Vec<UserName>>,
}

/// A part of [`DescribeUserScramCredentialsRequest`]: one entry of `users`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct UserName {
    /// The user name.
    pub name: String,
}

/// The answer to [`DescribeUserScramCredentialsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct DescribeUserScramCredentialsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The results for descriptions, one per user.
    pub results: Vec<DescribeUserScramCredentialsResult>,
}

/// A part of [`DescribeUserScramCredentialsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeUserScramCredentialsResult {
    /// The user name.
    pub user: String,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The mechanism and related information associated with the user's SCRAM credentials.
    pub credential_infos: Vec<CredentialInfo>,
}

/// A part of [`DescribeUserScramCredentialsResponse`]: one entry of `credential_infos`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CredentialInfo {
    /// The SCRAM mechanism.
    pub mechanism: i8,
    /// The number of iterations used in the SCRAM credential.
    pub iterations: i32,
}
