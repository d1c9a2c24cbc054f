//! Replicas on directories that failed, of brokers that live on (KIP-858).

use towpath_types::{BrokerEpoch, BrokerId, TopicId};
use towpath_wire::ErrorCode;

use super::change::{Cluster, PartitionChange, find_partition, record};
use super::heartbeat::check_epoch;
use super::{AdminError, ClusterPolicy, Decision};
use crate::MetadataImage;

/// What became of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState {
    /// They can be used (again).
    Online,
    /// Their directory failed: they may come back with it.
    Offline,
    /// Their directory is gone, and everything in it.
    Lost,
}

/// A broker's word on what became of some of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStates {
    /// The broker.
    pub broker_id: BrokerId,
    /// Its incarnation.
    pub broker_epoch: BrokerEpoch,
    /// What became of them.
    pub state: ReplicaState,
    /// The partitions.
    pub partitions: Vec<(TopicId, i32)>,
}

/// Decides about replicas that a broker cannot use, or can use again. Until then one neither leads nor is in sync; one
/// whose directory is gone has nothing any more, so it is not eligible either, nor the last known leader (rule 11).
/// Partitions that are not there, or not on this broker, are passed over: the broker has yet to hear of that.
///
/// # Errors
/// [`AdminError`]: `BROKER_ID_NOT_REGISTERED`, `STALE_BROKER_EPOCH` from another incarnation than the registered one.
pub fn set_replica_states(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    request: &ReplicaStates,
) -> Result<Decision<()>, AdminError> {
    let id = request.broker_id;
    let broker = image.broker(id).ok_or_else(|| {
        let message = format!("No broker registration found for broker id {id}");
        AdminError::new(ErrorCode::BrokerIdNotRegistered, message)
    })?;
    check_epoch(broker, request.broker_epoch)?;
    let lost = (request.state == ReplicaState::Lost).then_some(id);
    let cluster = Cluster { unclean: lost, lost, ..Cluster::new(image, policy) };
    let mut records = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (topic_id, index) in &request.partitions {
        let Some(topic) = image.topic_by_id(*topic_id) else { continue };
        let Some(old) = find_partition(topic, *index).filter(|old| old.replicas.contains(&id)) else {
            continue;
        };
        if !seen.insert((*topic_id, *index)) {
            continue;
        }
        let change = PartitionChange::new(cluster, policy.topic(image, topic), old);
        let change = match request.state {
            ReplicaState::Online => change.with_offline(id, false),
            ReplicaState::Offline | ReplicaState::Lost => change.without(id).with_offline(id, true),
        };
        records.extend(change.finish().map(|state| record(*topic_id, *index, state)));
    }
    Ok(Decision { records, answer: () })
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use crate::PartitionImage;

    fn report(image: &mut MetadataImage, policy: &ClusterPolicy, id: i32, state: ReplicaState) -> usize {
        let request = ReplicaStates {
            broker_id: BrokerId::new(id),
            broker_epoch: epoch(image, id),
            state,
            partitions: image
                .topics()
                .flat_map(|topic| [(topic.id, 0), (topic.id, 0), (topic.id, 7)])
                .collect(),
        };
        let decision = set_replica_states(image, policy, &request).unwrap();
        let count = decision.records.len();
        commit(image, decision);
        count
    }

    fn who(partition: &PartitionImage) -> (Option<i32>, Vec<i32>, Vec<i32>, Vec<i32>) {
        let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
        (
            partition.leader.map(BrokerId::get),
            numbers(&partition.isr),
            numbers(&partition.elr),
            numbers(&partition.offline),
        )
    }

    #[test]
    fn another_leads_in_the_place_of_a_replica_whose_directory_failed() {
        let (mut image, policy) = (image(3), policy());
        assigned(&mut image, "t", &[1, 2, 3], &[]);
        assigned(&mut image, "other", &[2, 3], &[]);
        assert_eq!(report(&mut image, &policy, 1, ReplicaState::Offline), 1);
        assert_eq!(who(partition(&image, "t")), (Some(2), vec![2, 3], vec![], vec![1]));
        assert_eq!(report(&mut image, &policy, 1, ReplicaState::Offline), 0, "known already");
        // While its broker lives, it is neither elected nor let in.
        let mut request = isr_request(&image, "t", &[1, 2, 3]);
        request.topics[0].partitions[0].isr[0].broker_epoch = epoch(&image, 1);
        assert_eq!(alter(&mut image, &policy, &request), Err(ErrorCode::IneligibleReplica));
        fence(&mut image, &policy, 2);
        fence(&mut image, &policy, 3);
        assert_eq!(partition(&image, "t").leader, None);
        let unclean = super::super::elect_leaders(&image, &policy, super::super::ElectionKind::Unclean, None);
        assert!(unclean.records.is_empty(), "nobody is there");
        unfence(&mut image, &policy, 2);
        unfence(&mut image, &policy, 3);
        assert_eq!(report(&mut image, &policy, 1, ReplicaState::Online), 1);
        assert_eq!(partition(&image, "t").offline, []);
        set_isr(&mut image, &policy, "t", &[1, 2, 3]);
    }

    #[test]
    fn the_last_one_leads_again_when_its_directory_is_back_and_not_when_it_is_gone() {
        for (state, clean) in
            [(ReplicaState::Offline, true), (ReplicaState::Offline, false), (ReplicaState::Lost, false)]
        {
            let (mut image, policy) = (image(2), policy());
            assigned(&mut image, "t", &[1], &[]);
            report(&mut image, &policy, 1, ReplicaState::Offline);
            assert_eq!(who(partition(&image, "t")), (None, vec![], vec![1], vec![1]));
            // A restart: what the last incarnation had says nothing about this one's directories.
            register(&mut image, &policy, 1, clean);
            assert_eq!(partition(&image, "t").offline, []);
            if state == ReplicaState::Lost {
                report(&mut image, &policy, 1, state);
                assert!(
                    partition(&image, "t").last_known_elr.is_empty() && partition(&image, "t").elr.is_empty()
                );
                report(&mut image, &policy, 1, ReplicaState::Online);
            }
            unfence(&mut image, &policy, 1);
            let leads = partition(&image, "t").leader == Some(BrokerId::new(1));
            assert_eq!(leads, state != ReplicaState::Lost, "{state:?}, {clean}");
        }
    }

    #[test]
    fn only_the_registered_incarnation_is_heard() {
        let (mut image, policy) = (image(1), policy());
        assigned(&mut image, "t", &[1], &[]);
        let id = image.topic("t").unwrap().id;
        for (broker, expected) in [(1, ErrorCode::StaleBrokerEpoch), (9, ErrorCode::BrokerIdNotRegistered)] {
            let request = ReplicaStates {
                broker_id: BrokerId::new(broker),
                broker_epoch: BrokerEpoch::new(77),
                state: ReplicaState::Offline,
                partitions: vec![(id, 0)],
            };
            assert_eq!(set_replica_states(&image, &policy, &request).unwrap_err().code, expected, "R6");
        }
    }
}
