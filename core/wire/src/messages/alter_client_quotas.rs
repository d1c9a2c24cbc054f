//! AlterClientQuotas (API key 49).

use towpath_wire_derive::Message;

/// The request of AlterClientQuotas, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AlterClientQuotas, response = AlterClientQuotasResponse, versions = "0-1", flexible = "1+")]
pub struct AlterClientQuotasRequest {
    /// The quota configuration entries to alter.
    pub entries: Vec<EntryData>,
    /// Whether to check the request without doing it.
    pub validate_only: bool,
}

/// A part of [`AlterClientQuotasRequest`]: one entry of `entries`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct EntryData {
    /// The quota entity to alter.
    pub entity: Vec<EntityData>,
    /// An individual quota configuration entry to alter.
    pub ops: Vec<OpData>,
}

/// A part of [`AlterClientQuotasRequest`]: one entry of `entity`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct EntityData {
    /// The entity type.
    pub entity_type: String,
    /// The name of the entity; null if the default.
    #[wire(nullable = "0+")]
    pub entity_name: Option<String>,
}

/// A part of [`AlterClientQuotasRequest`]: one entry of `ops`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OpData {
    /// The quota configuration key.
    pub key: String,
    /// The value to set, otherwise ignored if the value is to be removed.
    pub value: f64,
    /// Whether the quota configuration value should be removed, otherwise set.
    pub remove: bool,
}

/// The answer to [`AlterClientQuotasRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "1+")]
pub struct AlterClientQuotasResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The quota configuration entries to alter.
    pub entries: Vec<response::EntryData>,
}

/// The parts of [`AlterClientQuotasResponse`] whose names the request has, too.
pub mod response {
    use towpath_wire_derive::Message;

    /// A part of [`super::AlterClientQuotasResponse`]: one entry of `entries`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct EntryData {
        /// The error code; 0 for none.
        pub error_code: i16,
        /// What went wrong, in words; null for none.
        #[wire(nullable = "0+")]
        pub error_message: Option<String>,
        /// The quota entity to alter.
        pub entity: Vec<super::EntityData>,
    }
}
