//! The record headers and topics that Towpath writes for itself.

use towpath_api::SchemaId;

/// The id of the record's schema: 8 bytes.
pub const SCHEMA: &str = "towpath.schema";
/// The record's place in its source: 8 bytes of task hash, 8 bytes of lane (big-endian), then the position.
pub const POSITION: &str = "towpath.position";
/// The operation of a change event that is written as its row alone: one letter, or nothing for a plain record whose
/// schema could be taken for a change event's.
pub const OP: &str = "towpath.op";
/// What the names of headers on a dead letter begin with.
pub const ERROR_PREFIX: &str = "towpath.error.";
/// What the names of all headers of Towpath begin with; they are not copied from topic to topic.
pub const PREFIX: &str = "towpath.";

/// The compacted topic of source offsets.
pub const OFFSETS_TOPIC: &str = "_towpath_offsets";
/// The compacted topic of schemas: the id in hexadecimal → the schema's JSON.
pub const SCHEMAS_TOPIC: &str = "_towpath_schemas";
/// The compacted topic of configurations and task generations.
pub const CONFIG_TOPIC: &str = "_towpath_config";

/// Reads the header [`SCHEMA`].
#[must_use]
pub fn schema_id(value: Option<&[u8]>) -> Option<SchemaId> {
    value?.try_into().ok().map(SchemaId)
}

/// Reads the header [`POSITION`]: task hash, lane, position.
#[must_use]
pub fn position(value: Option<&[u8]>) -> Option<([u8; 8], u64, &[u8])> {
    let (task, rest) = value?.split_first_chunk::<8>()?;
    let (lane, position) = rest.split_first_chunk::<8>()?;
    Some((*task, u64::from_be_bytes(*lane), position))
}

/// Writes the value of the header [`POSITION`] at the end of `out`.
pub fn write_position(out: &mut Vec<u8>, task: [u8; 8], lane: u64, position: &[u8]) {
    out.extend_from_slice(&task);
    out.extend_from_slice(&lane.to_be_bytes());
    out.extend_from_slice(position);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_and_short_ones_are_refused() {
        let mut bytes = Vec::new();
        write_position(&mut bytes, *b"taskhash", 7, b"here");
        assert_eq!(position(Some(&bytes)), Some((*b"taskhash", 7, &b"here"[..])));
        assert_eq!(position(Some(&bytes[..15])), None);
        assert_eq!(position(None), None);
        assert_eq!(schema_id(Some(b"short")), None);
    }
}
