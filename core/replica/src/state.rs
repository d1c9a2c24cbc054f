//! What the metadata say of a partition and of brokers, as far as its replicas need it.

use std::collections::BTreeMap;

use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

/// What the metadata say of a partition that this broker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; none while nobody can lead.
    pub leader: Option<BrokerId>,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// The number of the partition's state.
    pub partition_epoch: PartitionEpoch,
    /// All replicas.
    pub replicas: Vec<BrokerId>,
    /// Those in sync, the leader included.
    pub isr: Vec<BrokerId>,
    /// The leader was elected although it may lack records (KIP-704): its first change of the ISR ends that.
    pub recovering: bool,
    /// Replicas that a reassignment adds.
    pub adding: Vec<BrokerId>,
}

impl Leadership {
    /// Whether this state is newer than `other` or the same: older ones change nothing (R6, rule 1).
    #[must_use]
    pub fn is_at_least(&self, other: &Self) -> bool {
        self.leader_epoch >= other.leader_epoch && self.partition_epoch >= other.partition_epoch
    }
}

/// What the metadata say of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerView {
    /// Its incarnation.
    pub epoch: BrokerEpoch,
    /// Neither fenced nor shutting down: it may be in sync.
    pub is_eligible: bool,
}

/// The brokers of the cluster, as the metadata have them now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brokers(BTreeMap<BrokerId, BrokerView>);

impl Brokers {
    /// These brokers.
    #[must_use]
    pub fn new(brokers: impl IntoIterator<Item = (BrokerId, BrokerView)>) -> Self {
        Self(brokers.into_iter().collect())
    }

    /// A broker.
    #[must_use]
    pub fn get(&self, id: BrokerId) -> Option<BrokerView> {
        self.0.get(&id).copied()
    }
}
