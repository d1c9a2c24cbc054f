//! Which brokers get which partitions.

use std::collections::BTreeMap;

use towpath_types::BrokerId;
use towpath_wire::ErrorCode;

use super::AdminError;
use crate::{BrokerRegistration, MetadataImage, PartitionImage};

/// Brokers, and what they have.
pub(super) struct Placer<'a> {
    brokers: BTreeMap<BrokerId, Load<'a>>,
    usable: usize,
}

/// What a broker has.
#[derive(Clone, Copy)]
struct Load<'a> {
    rack: Option<&'a str>,
    /// Whether it is in service and not on its way out.
    usable: bool,
    /// Replicas of the topic that is placed.
    topic_replicas: usize,
    /// Partitions of it that prefer this broker.
    topic_preferred: usize,
    /// Replicas of all topics.
    replicas: usize,
    /// Partitions of all topics that prefer this broker.
    preferred: usize,
}

impl<'a> Placer<'a> {
    /// The brokers of an image, with what they will have when all reassignments are complete.
    pub(super) fn new(image: &'a MetadataImage) -> Self {
        let load = |broker: &'a BrokerRegistration| Load {
            rack: broker.rack.as_deref(),
            usable: broker.is_active(),
            topic_replicas: 0,
            topic_preferred: 0,
            replicas: 0,
            preferred: 0,
        };
        let brokers: BTreeMap<_, _> = image.brokers().map(|broker| (broker.id, load(broker))).collect();
        let usable = brokers.values().filter(|load| load.usable).count();
        let mut placer = Self { brokers, usable };
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            placer.add(partition.goal());
        }
        placer.next_topic();
        placer
    }

    /// Begins with another topic.
    pub(super) fn next_topic(&mut self) {
        for load in self.brokers.values_mut() {
            (load.topic_replicas, load.topic_preferred) = (0, 0);
        }
    }

    /// Notes the replicas of one more partition of the topic.
    pub(super) fn add(&mut self, replicas: impl Iterator<Item = BrokerId>) {
        for (place, replica) in replicas.enumerate() {
            let Some(load) = self.brokers.get_mut(&replica) else { continue };
            let preferred = usize::from(place == 0);
            load.topic_replicas += 1;
            load.replicas += 1;
            load.topic_preferred += preferred;
            load.preferred += preferred;
        }
    }

    /// Notes that a replica of the topic moves.
    pub(super) fn move_replica(&mut self, from: BrokerId, to: BrokerId, is_preferred: bool) {
        let preferred = usize::from(is_preferred);
        if let Some(load) = self.brokers.get_mut(&from) {
            load.replicas = load.replicas.saturating_sub(1);
            load.topic_replicas = load.topic_replicas.saturating_sub(1);
            load.preferred = load.preferred.saturating_sub(preferred);
            load.topic_preferred = load.topic_preferred.saturating_sub(preferred);
        }
        if let Some(load) = self.brokers.get_mut(&to) {
            load.replicas += 1;
            load.topic_replicas += 1;
            load.preferred += preferred;
            load.topic_preferred += preferred;
        }
    }

    /// Begins with a topic whose partitions are there, and counted already.
    pub(super) fn count_topic(&mut self, partitions: &[PartitionImage]) {
        self.next_topic();
        for partition in partitions {
            for (place, replica) in partition.goal().enumerate() {
                let Some(load) = self.brokers.get_mut(&replica) else { continue };
                load.topic_replicas += 1;
                load.topic_preferred += usize::from(place == 0);
            }
        }
    }

    /// Replicas for each of `partitions` partitions of the topic: no two on one broker, over as many racks as there
    /// are, evenly over the brokers, and the preferred leaders evenly, too, on brokers in service. Brokers that are
    /// not come last.
    ///
    /// # Errors
    /// [`AdminError`], `INVALID_REPLICATION_FACTOR`.
    pub(super) fn place(
        &mut self,
        partitions: usize,
        factor: usize,
    ) -> Result<Vec<Vec<BrokerId>>, AdminError> {
        let unable = |reason: String| {
            let message = format!("Unable to replicate the partition {factor} time(s): {reason}");
            AdminError::new(ErrorCode::InvalidReplicationFactor, message)
        };
        if factor > self.brokers.len() {
            let count = self.brokers.len();
            return Err(unable(format!(
                "The target replication factor of {factor} cannot be reached because only {count} broker(s) are \
                 registered."
            )));
        }
        if self.usable == 0 {
            return Err(unable("All brokers are currently fenced or in controlled shutdown.".to_owned()));
        }
        Ok((0..partitions)
            .map(|_| {
                let mut replicas = Vec::with_capacity(factor);
                while replicas.len() < factor
                    && let Some(next) = self.best(&replicas)
                {
                    replicas.push(next);
                }
                self.add(replicas.iter().copied());
                replicas
            })
            .collect())
    }

    /// The best broker for one more replica beside `others`, of which the first is the preferred leader.
    fn best(&self, others: &[BrokerId]) -> Option<BrokerId> {
        let is_first = others.is_empty();
        let cost = |(id, load): (&BrokerId, &Load<'_>)| {
            let preferred = if is_first { (load.topic_preferred, load.topic_replicas) } else { (0, 0) };
            (
                !load.usable,
                self.in_rack(load.rack, others),
                preferred,
                load.topic_replicas,
                if is_first { load.preferred } else { 0 },
                load.replicas,
                *id,
            )
        };
        let free = self.brokers.iter().filter(|(id, _)| !others.contains(id));
        free.map(cost).min().map(|(.., id)| id)
    }

    /// How many of the brokers are in a rack. A broker without one is alone in its own.
    fn in_rack(&self, rack: Option<&str>, brokers: &[BrokerId]) -> usize {
        let is_there = |id: &&BrokerId| self.brokers.get(*id).is_some_and(|load| load.rack == rack);
        rack.map_or(0, |_| brokers.iter().filter(is_there).count())
    }

    /// The broker in service that is the best in the place of one of a partition's replicas.
    pub(super) fn replacement(&self, replicas: &[BrokerId], place: usize) -> Option<BrokerId> {
        let mut others = replicas.to_vec();
        others.remove(place);
        let cost = |(id, load): (&BrokerId, &Load<'_>)| {
            let preferred = if place == 0 { load.preferred } else { 0 };
            (self.in_rack(load.rack, &others), preferred, load.replicas, load.topic_replicas, *id)
        };
        let free = self.brokers.iter().filter(|(id, load)| load.usable && !replicas.contains(id));
        free.map(cost).min().map(|(.., id)| id)
    }

    /// The brokers in service with the number of their replicas, fewest first.
    pub(super) fn by_replicas(&self) -> Vec<(usize, BrokerId)> {
        let usable = self.brokers.iter().filter(|(_, load)| load.usable);
        let mut counts: Vec<_> = usable.map(|(id, load)| (load.replicas, *id)).collect();
        counts.sort_unstable();
        counts
    }

    /// Over how many racks replicas are spread.
    pub(super) fn racks(&self, replicas: &[BrokerId]) -> usize {
        let mut racks: Vec<_> = replicas
            .iter()
            .map(|id| match self.brokers.get(id).and_then(|load| load.rack) {
                Some(rack) => Ok(rack),
                None => Err(*id),
            })
            .collect();
        racks.sort_unstable();
        racks.dedup();
        racks.len()
    }
}

/// The first state of a partition: the first of its brokers that is in service leads, those in service are in sync.
///
/// # Errors
/// [`AdminError`] with `code` when none is.
pub(super) fn new_partition(
    image: &MetadataImage,
    replicas: Vec<BrokerId>,
    code: ErrorCode,
) -> Result<PartitionImage, AdminError> {
    let isr: Vec<BrokerId> = replicas.iter().copied().filter(|replica| image.is_active(*replica)).collect();
    let leader = isr.first().copied();
    if leader.is_none() {
        let message = "All brokers of a partition's assignment are fenced or in controlled shutdown.";
        return Err(AdminError::new(code, message));
    }
    Ok(PartitionImage::new(replicas, isr, leader))
}
