//! Registration of brokers, and the producer ids that they hand out.

use towpath_types::{BrokerId, LeaderEpoch, PartitionEpoch, ProducerId};
use towpath_wire::ErrorCode;

use super::{AdminError, Decision};
use crate::{MetadataImage, MetadataRecord, RegisterBroker};

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

/// Decides about a broker that begins to serve. Where it stopped without order, what it had not flushed may be gone,
/// so the partitions that it leads begin a new leader epoch: readers then see that the log may have changed
/// (KIP-320).
#[must_use]
pub fn register_broker(image: &MetadataImage, broker: &RegisterBroker, clean: bool) -> Decision<()> {
    let mut records = vec![MetadataRecord::RegisterBroker(broker.clone())];
    if !clean {
        for topic in image.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.leader == Some(broker.broker_id) {
                    records.push(MetadataRecord::Partition {
                        topic_id: topic.id,
                        partition: index,
                        replicas: partition.replicas.clone(),
                        isr: partition.isr.clone(),
                        leader: partition.leader,
                        leader_epoch: LeaderEpoch::new(partition.leader_epoch.get().saturating_add(1)),
                        partition_epoch: PartitionEpoch::new(
                            partition.partition_epoch.get().saturating_add(1),
                        ),
                    });
                }
            }
        }
    }
    Decision { records, answer: () }
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
