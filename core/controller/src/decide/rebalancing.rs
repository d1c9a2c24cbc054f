//! Plans of reassignments: to empty a broker, or to even out what brokers have.

use towpath_types::BrokerId;
use towpath_wire::ErrorCode;

use super::placement::Placer;
use super::reassignments::move_to;
use super::{AdminError, Reassignment};
use crate::{MetadataImage, PartitionImage, TopicImage};

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
    let mut partitions: Vec<Planned<'_>> = image
        .topics()
        .flat_map(|topic| (0..).zip(&topic.partitions).map(move |(index, state)| (topic, index, state)))
        .filter(|(_, _, state)| !state.is_reassigning())
        .map(|(topic, index, state)| Planned { topic, index, state, replicas: state.replicas.clone() })
        .collect();
    for _ in 0..limit {
        // Each move makes the counts more alike, so there is an end.
        let counts = placer.by_replicas();
        let pairs = counts.iter().rev().flat_map(|from| counts.iter().map(move |to| (from, to)));
        let found = pairs.filter(|(from, to)| from.0 > to.0 + 1).find_map(|(from, to)| {
            let possible = |(at, planned): (usize, &Planned<'_>)| {
                let replicas = planned.with(from.1, to.1)?;
                let is_as_wide = placer.racks(&replicas) >= placer.racks(&planned.replicas);
                is_as_wide.then_some((at, replicas))
            };
            partitions
                .iter()
                .enumerate()
                .find_map(possible)
                .map(|(at, replicas)| (at, replicas, from.1, to.1))
        });
        let Some((at, replicas, from, to)) = found else { break };
        placer.move_replica(from, to, replicas.first() == Some(&to));
        partitions[at].replicas = replicas;
    }
    let moved = partitions.into_iter().filter(|planned| planned.replicas != planned.state.replicas);
    moved.map(|planned| move_to(planned.topic, planned.index, planned.replicas)).collect()
}

/// A partition, and the replicas that it has in a plan.
struct Planned<'a> {
    topic: &'a TopicImage,
    index: i32,
    state: &'a PartitionImage,
    replicas: Vec<BrokerId>,
}

impl Planned<'_> {
    /// The replicas with one broker in the place of another; none where that cannot be.
    fn with(&self, from: BrokerId, to: BrokerId) -> Option<Vec<BrokerId>> {
        let place = self.replicas.iter().position(|replica| *replica == from)?;
        let mut replicas = self.replicas.clone();
        *replicas.get_mut(place)? = to;
        (!self.replicas.contains(&to)).then_some(replicas)
    }
}
