//! How partitions are dealt out. The assignors are pure: members and topics in, a target for each member out.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_types::TopicId;

use super::member::Partitions;
use crate::machine::member::MemberId;

const UNIFORM: &str = "uniform";
const RANGE: &str = "range";

/// The names of the assignors (`group.consumer.assignors`); the first is the default.
pub const ASSIGNORS: [&str; 2] = [UNIFORM, RANGE];
/// What is taken when no member asks for another one.
pub(super) const DEFAULT_ASSIGNOR: &str = UNIFORM;

/// A member, to an assignor.
#[derive(Debug, Clone)]
pub(super) struct MemberSpec {
    pub(super) id: MemberId,
    pub(super) instance_id: Option<String>,
    /// The topics that it subscribes to; all of them exist.
    pub(super) topics: Arc<BTreeSet<TopicId>>,
    /// Its target so far.
    pub(super) current: Partitions,
}

/// What is to be assigned to whom.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    /// In the order of their ids.
    pub(super) members: Vec<MemberSpec>,
    /// How many partitions each topic has that somebody subscribes to.
    pub(super) topics: BTreeMap<TopicId, i32>,
}

impl Spec {
    /// Whether all members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let Some(first) = self.members.first() else { return true };
        self.members
            .iter()
            .all(|member| Arc::ptr_eq(&member.topics, &first.topics) || member.topics == first.topics)
    }

    fn partitions(&self, topic: TopicId) -> i32 {
        self.topics.get(&topic).copied().unwrap_or(0)
    }
}

/// Deals out every partition of every topic that somebody subscribes to, each to exactly one subscriber.
pub(super) fn assign(assignor: &str, spec: &Spec) -> BTreeMap<MemberId, Partitions> {
    if assignor == RANGE { range::assign(spec) } else { uniform::assign(spec) }
}
