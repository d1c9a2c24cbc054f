//! DescribeClientQuotas (API key 48).

use towpath_wire_derive::Message;

/// The request of DescribeClientQuotas, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeClientQuotas, response = DescribeClientQuotasResponse, versions = "0-1", flexible = "1+")]
pub struct DescribeClientQuotasRequest {
    /// Filter components to apply to quota entities.
    pub components: Vec<ComponentData>,
    /// Whether entities with further components than those named are left out.
    pub strict: bool,
}

/// A part of [`DescribeClientQuotasRequest`]: one entry of `components`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ComponentData {
    /// The entity type that the filter component applies to.
    pub entity_type: String,
    /// How to match the entity {0 = exact name, 1 = default name, 2 = any specified name}.
    pub match_type: i8,
    /// The string to match against; null if unused for the match type.
    #[wire(nullable = "0+")]
    pub match_: Option<String>,
}

/// The answer to [`DescribeClientQuotasRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "1+")]
pub struct DescribeClientQuotasResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// A result entry.
    #[wire(nullable = "0+")]
    pub entries: Option<Vec<EntryData>>,
}

/// A part of [`DescribeClientQuotasResponse`]: one entry of `entries`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct EntryData {
    /// The quota entity description.
    pub entity: Vec<EntityData>,
    /// The quota values for the entity.
    pub values: Vec<ValueData>,
}

/// A part of [`DescribeClientQuotasResponse`]: one entry of `entity`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct EntityData {
    /// The entity type.
    pub entity_type: String,
    /// The entity name; null if the default.
    #[wire(nullable = "0+")]
    pub entity_name: Option<String>,
}

/// A part of [`DescribeClientQuotasResponse`]: one entry of `values`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ValueData {
    /// The quota configuration key.
    pub key: String,
    /// The quota configuration value.
    pub value: f64,
}
