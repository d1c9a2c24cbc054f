//! The producer ids that brokers hand out.

use towpath_types::{BrokerId, ProducerId};
use towpath_wire::ErrorCode;

use super::{AdminError, Decision};
use crate::{MetadataImage, MetadataRecord};

/// Producer ids that a broker gets at a time.
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// A block of producer ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first.
    pub first: ProducerId,
    /// How many.
    pub count: i64,
}

/// Decides about a block of producer ids for a broker.
///
/// # Errors
/// [`AdminError`] when the ids are used up.
pub fn allocate_producer_ids(
    image: &MetadataImage,
    broker_id: BrokerId,
) -> Result<Decision<ProducerIdBlock>, AdminError> {
    let first = image.next_producer_id();
    let next = first
        .get()
        .checked_add(PRODUCER_IDS_PER_BLOCK)
        .ok_or_else(|| AdminError::new(ErrorCode::UnknownServerError, "Exhausted all producer ids."))?;
    Ok(Decision {
        records: vec![MetadataRecord::ProducerIds { broker_id, next: ProducerId::new(next) }],
        answer: ProducerIdBlock { first, count: PRODUCER_IDS_PER_BLOCK },
    })
}
