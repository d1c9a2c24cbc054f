//! Plans of reassignments: to empty a broker, or to even out what brokers have.

use towpath_types::BrokerId;
use towpath_wire::ErrorCode;

use super::placement::Placer;
use super::reassignments::move_to;
use super::{AdminError, Reassignment};
use crate::MetadataImage;

/// A plan after which a broker has no replicas: each of them goes to the broker in service that keeps the partition on
/// the most racks and has the least, in the same place of the assignment. Where a reassignment is going on, the plan
/// goes out from its goal. To be carried out by [`super::alter_partition_reassignments`], as many at a time as the
/// cluster can copy, and allowing changes of the replication factor, since such a goal may have been one.
///
/// # Errors
/// [`AdminError`]: `BROKER_ID_NOT_REGISTERED` for a broker that is neither registered nor has replicas; `INVALID_REPLICATION_FACTOR` when some partition has a replica on every
/// other broker already.
pub fn drain_broker(image: &MetadataImage, id: BrokerId) -> Result<Vec<Reassignment>, AdminError> {
    let mut placer = Placer::new(image);
    let mut plan = Vec::new();
    for topic in image.topics() {
        placer.count_topic(&topic.partitions);
        for (index, partition) in (0..).zip(&topic.partitions) {
            let mut goal: Vec<BrokerId> = partition.goal().collect();
            let Some(place) = goal.iter().position(|replica| *replica == id) else { continue };
            let Some(replacement) = placer.replacement(&goal, place) else {
                let message = format!(
                    "No broker in service is left for partition {index} of {}: broker {id} can be drained when there \
                     is another broker, or the topic has fewer replicas.",
                    topic.name
                );
                return Err(AdminError::new(ErrorCode::InvalidReplicationFactor, message));
            };
            goal[place] = replacement;
            placer.move_replica(id, replacement, place == 0);
            plan.push(move_to(topic, index, goal));
        }
    }
    if plan.is_empty() && image.broker(id).is_none() {
        let message = format!("Broker ID {id} is not currently registered");
        return Err(AdminError::new(ErrorCode::BrokerIdNotRegistered, message));
    }
    Ok(plan)
}

/// A plan of at most `limit` moves, each of one replica, from brokers that have many to brokers that have few (new
/// ones, say), until no two in service differ by more than one replica or no move is possible that leaves a partition
/// on as many racks. Partitions that are being reassigned stay as they are.
#[must_use]
pub fn balance(image: &MetadataImage, limit: usize) -> Vec<Reassignment> {
    let mut placer = Placer::new(image);
    let mut moved = std::collections::BTreeSet::new();
    let mut plan = Vec::new();
    while plan.len() < limit {
        let counts = placer.by_replicas();
        let pairs = counts.iter().rev().flat_map(|from| counts.iter().map(move |to| (from, to)));
        let found = pairs.filter(|(from, to)| from.0 > to.0 + 1).find_map(|(from, to)| {
            let mut partitions = image.topics().flat_map(|topic| {
                (0..).zip(&topic.partitions).map(move |(index, state)| (topic, index, state))
            });
            partitions
                .find_map(|(topic, index, state)| {
                    if state.is_reassigning()
                        || moved.contains(&(topic.id, index))
                        || state.replicas.contains(&to.1)
                    {
                        return None;
                    }
                    let place = state.replicas.iter().position(|replica| *replica == from.1)?;
                    let mut replicas = state.replicas.clone();
                    replicas[place] = to.1;
                    let is_as_wide = placer.racks(&replicas) >= placer.racks(&state.replicas);
                    is_as_wide.then_some((topic, index, replicas, place))
                })
                .map(|found| (found, from.1, to.1))
        });
        let Some(((topic, index, replicas, place), from, to)) = found else { break };
        moved.insert((topic.id, index));
        plan.push(move_to(topic, index, replicas));
        placer.move_replica(from, to, place == 0);
    }
    plan
}
