//! The next state of a partition: the one place where leaders are elected, epochs grow, eligible leader replicas are
//! computed and reassignments completed.

use towpath_types::{BrokerId, LeaderEpoch, PartitionEpoch, Rule, TopicId};

use super::policy::TopicPolicy;
use super::{AdminError, ClusterPolicy};
use crate::{MetadataImage, MetadataRecord, PartitionImage, TopicImage};

/// Who may be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// The leader stays where it can; else the first in-sync replica in the order of the assignment.
    Online,
    /// As above, but the first replica of the assignment comes before the present leader.
    Preferred,
    /// As `Online`, and where nobody can lead without a loss, anybody who is there.
    Unclean,
}

/// The image as it is about to be: one broker comes or goes with the decision that is being made.
#[derive(Clone, Copy)]
pub(super) struct Cluster<'a> {
    pub(super) image: &'a MetadataImage,
    pub(super) policy: &'a ClusterPolicy,
    /// The broker that is unfenced by this decision.
    pub(super) coming: Option<BrokerId>,
    /// The broker that stops leading by this decision.
    pub(super) going: Option<BrokerId>,
    /// The broker that may have lost records (rule 11).
    pub(super) unclean: Option<BrokerId>,
    /// The broker that has lost everything: its data directory is another one, or it is gone for good.
    pub(super) lost: Option<BrokerId>,
}

impl<'a> Cluster<'a> {
    /// The image as it is.
    pub(super) const fn new(image: &'a MetadataImage, policy: &'a ClusterPolicy) -> Self {
        Self { image, policy, coming: None, going: None, unclean: None, lost: None }
    }

    /// With a broker that is unfenced.
    pub(super) const fn coming(self, broker: BrokerId) -> Self {
        Self { coming: Some(broker), ..self }
    }

    /// With a broker that stops leading.
    pub(super) const fn going(self, broker: BrokerId) -> Self {
        Self { going: Some(broker), ..self }
    }

    /// Whether a broker may be elected.
    pub(super) fn can_lead(&self, id: BrokerId) -> bool {
        self.going != Some(id) && (self.coming == Some(id) || self.image.is_active(id))
    }

    /// Whether a leader that is on its way out may lead on, as long as nobody else can.
    fn may_lead_on(&self, id: BrokerId) -> bool {
        self.going != Some(id) && self.image.broker(id).is_some_and(|broker| !broker.fenced)
    }

    /// The records that change every partition that is concerned.
    pub(super) fn each_partition(
        &self,
        mut concerns: impl FnMut(&PartitionImage) -> bool,
        change: impl Fn(PartitionChange<'a>) -> PartitionChange<'a>,
    ) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for topic in self.image.topics() {
            let mut policy = None;
            for (index, partition) in (0..).zip(&topic.partitions) {
                if concerns(partition) {
                    let policy = *policy.get_or_insert_with(|| self.policy.topic(self.image, topic));
                    let next = change(PartitionChange::new(*self, policy, partition)).finish();
                    records.extend(next.map(|state| record(topic.id, index, state)));
                }
            }
        }
        records
    }
}

/// Whether a broker leads a partition or is in sync.
pub(super) fn involves(partition: &PartitionImage, broker: BrokerId) -> bool {
    partition.leader == Some(broker) || partition.isr.contains(&broker)
}

/// The record of a partition's new state.
pub(super) const fn record(topic_id: TopicId, partition: i32, state: PartitionImage) -> MetadataRecord {
    MetadataRecord::Partition { topic_id, partition, state }
}

/// The partition with this index.
pub(super) fn find_partition(topic: &TopicImage, partition: i32) -> Option<&PartitionImage> {
    usize::try_from(partition).ok().and_then(|index| topic.partitions.get(index))
}

/// The topic with this name, or the answer that there is none.
pub(super) fn find_topic<'a>(image: &'a MetadataImage, name: &str) -> Result<&'a TopicImage, AdminError> {
    image.topic(name).map(AsRef::as_ref).ok_or_else(AdminError::unknown_partition)
}

/// A change of one partition; begins as what the partition is.
pub(super) struct PartitionChange<'a> {
    cluster: Cluster<'a>,
    topic: TopicPolicy,
    old: &'a PartitionImage,
    pub(super) replicas: Vec<BrokerId>,
    pub(super) adding: Vec<BrokerId>,
    pub(super) removing: Vec<BrokerId>,
    isr: Vec<BrokerId>,
    pub(super) recovering: bool,
    offline: Vec<BrokerId>,
    election: Election,
}

/// What an election came to.
enum Elected {
    Nobody,
    Clean(BrokerId),
    /// Records may be lost.
    Unclean(BrokerId),
}

impl<'a> PartitionChange<'a> {
    /// No change yet. Where the topic allows it, elections may be unclean.
    pub(super) fn new(cluster: Cluster<'a>, topic: TopicPolicy, old: &'a PartitionImage) -> Self {
        Self {
            cluster,
            topic,
            old,
            replicas: old.replicas.clone(),
            adding: old.adding_replicas.clone(),
            removing: old.removing_replicas.clone(),
            isr: old.isr.clone(),
            recovering: old.recovering,
            offline: old.offline.clone(),
            election: if topic.unclean { Election::Unclean } else { Election::Online },
        }
    }

    /// Takes a broker out of the ISR.
    pub(super) fn without(mut self, broker: BrokerId) -> Self {
        self.isr.retain(|member| *member != broker);
        self
    }

    /// Whether a broker cannot use its replica, though it lives.
    pub(super) fn with_offline(mut self, broker: BrokerId, is_offline: bool) -> Self {
        self.offline.retain(|id| *id != broker);
        if is_offline {
            self.offline.push(broker);
        }
        self
    }

    /// With another ISR.
    pub(super) fn with_isr(mut self, isr: Vec<BrokerId>) -> Self {
        self.isr = isr;
        self
    }

    /// With another kind of election.
    pub(super) const fn with_election(mut self, election: Election) -> Self {
        self.election = election;
        self
    }

    /// The partition's next state; none where nothing changes.
    pub(super) fn finish(mut self) -> Option<PartitionImage> {
        self.complete_reassignment();
        let eligible = self.eligible();
        let (leader, unclean) = match self.elect(&eligible) {
            Elected::Nobody => (None, false),
            Elected::Clean(leader) => (Some(leader), false),
            Elected::Unclean(leader) => (Some(leader), true),
        };
        if let Some(leader) = leader
            && (unclean || !self.isr.contains(&leader))
        {
            // An eligible leader replica begins alone; of an unclean election nobody else's log is known to agree.
            self.isr = vec![leader];
            self.recovering |= unclean;
        }
        if self.isr.is_empty() && !self.cluster.policy.elr_enabled {
            // Rule 10: without eligible leader replicas the last member is all that tells who has the records.
            let remains =
                |member: &BrokerId| self.replicas.contains(member) && self.cluster.lost != Some(*member);
            self.isr = self.old.isr.iter().copied().filter(remains).collect();
        }
        let last_known_elr = self.last_known(leader);
        let elr = self.elr(eligible, unclean);
        let old = self.old;
        let mut offline = self.offline;
        offline.retain(|id| self.replicas.contains(id));
        let changed_hands = leader != old.leader;
        let left = old.replicas.iter().any(|replica| !self.replicas.contains(replica));
        let mut next = PartitionImage {
            replicas: self.replicas,
            isr: self.isr,
            leader,
            leader_epoch: old.leader_epoch,
            partition_epoch: old.partition_epoch,
            adding_replicas: self.adding,
            removing_replicas: self.removing,
            elr,
            last_known_elr,
            recovering: self.recovering,
            offline,
        };
        if next == *old {
            return None;
        }
        // Rule 1: a replica that left the assignment must not be believed by the leader that stays, either.
        if (changed_hands || left) && self.cluster.policy.holds(Rule::Epochs) {
            next.leader_epoch = LeaderEpoch::new(old.leader_epoch.get().saturating_add(1));
        }
        next.partition_epoch = PartitionEpoch::new(old.partition_epoch.get().saturating_add(1));
        Some(next)
    }

    /// Rule 13: the old replicas go when all new ones are in sync, and where there will be fewer than before, when
    /// all that remain are.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays = |replica: &BrokerId| !self.removing.contains(replica);
        let replicas: Vec<BrokerId> = self.replicas.iter().copied().filter(stays).collect();
        let mut isr: Vec<BrokerId> = self.isr.iter().copied().filter(stays).collect();
        let before = self.replicas.iter().filter(|replica| !self.adding.contains(replica)).count();
        let required = if replicas.len() < before { &replicas } else { &self.adding };
        let is_complete = !isr.is_empty() && required.iter().all(|replica| isr.contains(replica));
        if !is_complete {
            if self.cluster.policy.holds(Rule::Reassignment) {
                return;
            }
            if isr.is_empty() {
                isr.extend(replicas.iter().copied().find(|replica| self.cluster.can_lead(*replica)));
            }
        }
        self.replicas = replicas;
        self.isr = isr;
        self.adding.clear();
        self.removing.clear();
    }

    /// Rule 11: replicas outside the new ISR that nevertheless have everything that was acknowledged, provided that
    /// fewer are in sync than the topic asks for.
    fn eligible(&self) -> Vec<BrokerId> {
        if !self.cluster.policy.elr_enabled {
            return Vec::new();
        }
        let old = self.old;
        // Who is stored there while enough are in sync lacks what these acknowledged (the broker's default of
        // `min.insync.replicas` may have changed with a restart).
        let stored_counts = old.isr.len() < self.topic.min_isr(old.replicas.len())
            || !self.cluster.policy.holds(Rule::EligibleLeaderReplicas);
        let stored: &[BrokerId] = if stored_counts { &old.elr } else { &[] };
        let mut eligible: Vec<BrokerId> = Vec::new();
        for replica in stored.iter().chain(&old.isr).copied() {
            let counts = self.replicas.contains(&replica)
                && !self.isr.contains(&replica)
                && self.cluster.unclean != Some(replica)
                && !eligible.contains(&replica);
            if counts {
                eligible.push(replica);
            }
        }
        eligible
    }

    /// The eligible leader replicas to store once the ISR is known.
    fn elr(&self, mut eligible: Vec<BrokerId>, unclean: bool) -> Vec<BrokerId> {
        let enough = self.isr.len() >= self.topic.min_isr(self.replicas.len());
        if unclean || (enough && self.cluster.policy.holds(Rule::EligibleLeaderReplicas)) {
            return Vec::new();
        }
        eligible.retain(|replica| !self.isr.contains(replica));
        eligible
    }

    /// Who was the last in sync when the ISR became empty: the leader, or where there was none any more, since it could
    /// not lead on (it was on its way out), whoever was left. Of use only until there is a leader, and once nobody is
    /// eligible any more.
    fn last_known(&self, leader: Option<BrokerId>) -> Vec<BrokerId> {
        let old = self.old;
        if !self.cluster.policy.elr_enabled || leader.is_some() {
            return Vec::new();
        }
        let stays = |replica: &&BrokerId| self.replicas.contains(replica);
        let mut last: Vec<BrokerId> = if !self.isr.is_empty() || old.last_known_elr.iter().any(|r| stays(&r))
        {
            old.last_known_elr.clone()
        } else if !old.isr.is_empty() {
            old.leader.iter().chain(&old.isr).find(stays).copied().into_iter().collect()
        } else if !old.last_known_elr.is_empty() {
            // A reassignment that was undone has dropped it. Whoever is eligible has as much.
            old.elr.iter().find(stays).copied().into_iter().collect()
        } else {
            Vec::new()
        };
        // Whoever begins with nothing has less than anybody else. Who is to lead is an operator's decision then.
        last.retain(|last| self.cluster.lost != Some(*last));
        last
    }

    /// Rule 10: elects from the ISR, and where it is empty from the eligible leader replicas.
    fn elect(&self, eligible: &[BrokerId]) -> Elected {
        let cluster = &self.cluster;
        let is_usable = |replica: &BrokerId| !self.offline.contains(replica);
        let can_lead = |replica: BrokerId| is_usable(&replica) && cluster.can_lead(replica);
        let valid = |replica: BrokerId| {
            let has_all = self.isr.contains(&replica) || (self.isr.is_empty() && eligible.contains(&replica));
            (has_all || !cluster.policy.holds(Rule::Fencing)) && can_lead(replica)
        };
        let present = self.old.leader.filter(|leader| valid(*leader));
        let preferred = self.replicas.first().copied().filter(|replica| valid(*replica));
        let clean = match self.election {
            Election::Preferred => preferred.or(present),
            Election::Online | Election::Unclean => present,
        };
        let clean =
            clean.or_else(|| self.replicas.iter().copied().find(|replica| valid(*replica))).or_else(|| {
                let leads_on = |l: &BrokerId| self.isr.contains(l) && is_usable(l) && cluster.may_lead_on(*l);
                self.old.leader.filter(leads_on)
            });
        if let Some(leader) = clean {
            return Elected::Clean(leader);
        }
        if cluster.policy.elr_enabled
            && self.isr.is_empty()
            && eligible.is_empty()
            && let [last] = self.old.last_known_elr[..]
            && self.replicas.contains(&last)
            && can_lead(last)
        {
            // KIP-966: everybody stopped uncleanly; nobody has more than the last leader.
            return Elected::Unclean(last);
        }
        if self.election == Election::Unclean
            && let Some(any) = self.replicas.iter().copied().find(|replica| can_lead(*replica))
        {
            return Elected::Unclean(any);
        }
        Elected::Nobody
    }
}
