//! The target assignment: made anew when the group's epoch is newer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_types::TopicId;

use super::assignor::{DEFAULT_ASSIGNOR, MemberSpec, Spec, assign};
use super::member::ConsumerMember;
use super::{ConsumerGroup, Context};
use crate::machine::member::MemberId;

/// What a member wants: topics by name, and an expression.
type Wish<'a> = (&'a BTreeSet<String>, Option<&'a str>);

impl ConsumerGroup {
    /// The assignor that most members ask for; of several the first by name.
    pub(super) fn assignor(&self) -> &str {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.assignor.as_deref()) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.values().max().copied().unwrap_or(0);
        votes.into_iter().find(|(_, count)| *count == most).map_or(DEFAULT_ASSIGNOR, |(assignor, _)| assignor)
    }

    /// Makes the target of the group's epoch, unless the last one was made a moment ago (KIP-1263).
    pub(super) fn update_targets(&mut self, context: &Context<'_>) {
        let since_ms = context.now.wall_ms.saturating_sub(self.target_at_ms);
        let interval_ms = i64::from(context.config.consumer_assignment_interval_ms);
        let is_first = self.target_at_ms == 0 || self.targets.is_empty();
        // A clock that was set back does not hold up the group.
        if !is_first && (0..interval_ms).contains(&since_ms) {
            return;
        }
        let spec = self.spec(context);
        let assignor = self.assignor();
        let mut targets = assign(assignor, &spec);
        tracing::debug!(
            epoch = self.epoch,
            assignor,
            members = self.members.len(),
            "a target assignment is made"
        );
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let target = targets.remove(&id).unwrap_or_default();
            // A member without a target has an empty one; its record would say nothing.
            if !target.is_empty() || self.targets.contains_key(&id) {
                self.put_target(&id, target);
            }
        }
        self.set_target_epoch(self.epoch, context.now.wall_ms);
    }

    fn spec(&self, context: &Context<'_>) -> Spec {
        let mut topics: BTreeMap<TopicId, i32> = BTreeMap::new();
        // Most members subscribe to the same: each set is looked up once.
        let mut known: BTreeMap<Wish<'_>, Arc<BTreeSet<TopicId>>> = BTreeMap::new();
        let mut members = Vec::with_capacity(self.members.len());
        for (id, member) in &self.members {
            let key = (&member.topics, member.regex());
            let subscribed = known.entry(key).or_insert_with(|| {
                let subscribed = self.subscribed_topics(member, context.topics);
                for topic in &subscribed {
                    if let Some(topic) = context.topics.by_id(*topic) {
                        topics.insert(topic.id, topic.partitions);
                    }
                }
                Arc::new(subscribed)
            });
            members.push(MemberSpec {
                id: Arc::clone(id),
                instance_id: member.instance_id.clone(),
                topics: Arc::clone(subscribed),
                current: self.targets.get(id).cloned().unwrap_or_default(),
            });
        }
        Spec { members, topics }
    }

    /// Whether a member waits for partitions that others still have.
    pub(super) fn waits_for_others(&self, id: &MemberId, member: &ConsumerMember) -> bool {
        let Some(target) = self.targets.get(id) else { return false };
        target.iter().any(|(topic, partitions)| {
            let assigned = member.assigned.get(topic);
            partitions.iter().any(|partition| {
                !assigned.is_some_and(|assigned| assigned.contains_key(partition))
                    && self.is_held(*topic, *partition)
            })
        })
    }
}
