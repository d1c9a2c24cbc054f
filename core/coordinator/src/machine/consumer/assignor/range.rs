//! `range`: of each topic, every subscriber gets a stretch of partitions, in the order of the members. Topics with as many
//! partitions and the same subscribers are cut in the same places, so that their partitions can be joined.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::TopicId;

use super::{MemberSpec, Partitions, Spec};
use crate::machine::member::MemberId;

/// Where the next stretch of a topic begins, and how long it is.
struct Cutter {
    partitions: i32,
    next: i32,
    quota: i32,
    /// Members that get one more.
    extra: i32,
}

/// Static members first, by instance id: they come back as the same, so that they keep what they had.
fn in_order(spec: &Spec) -> Vec<&MemberSpec> {
    let mut members: Vec<&MemberSpec> = spec.members.iter().collect();
    members.sort_by(|left, right| match (&left.instance_id, &right.instance_id) {
        (Some(left), Some(right)) => left.cmp(right),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => left.id.cmp(&right.id),
    });
    members
}

pub(super) fn assign(spec: &Spec) -> BTreeMap<MemberId, Partitions> {
    let members = in_order(spec);
    let mut subscribers: BTreeMap<TopicId, i32> = BTreeMap::new();
    for topic in members.iter().flat_map(|member| member.topics.iter()) {
        *subscribers.entry(*topic).or_default() += 1;
    }
    let cutter = |(topic, subscribers): (TopicId, i32)| {
        let partitions = spec.partitions(topic);
        let (quota, extra) = (partitions / subscribers, partitions % subscribers);
        (topic, Cutter { partitions, next: 0, quota, extra })
    };
    let mut cutters: BTreeMap<TopicId, Cutter> = subscribers.into_iter().map(cutter).collect();
    let mut targets = BTreeMap::new();
    for member in members {
        let mut target = Partitions::new();
        for topic in member.topics.iter() {
            let Some(cutter) = cutters.get_mut(topic) else { continue };
            let length = cutter.quota + i32::from(cutter.extra > 0);
            cutter.extra = (cutter.extra - 1).max(0);
            let end = (cutter.next + length).min(cutter.partitions);
            if cutter.next < end {
                target.insert(*topic, (cutter.next..end).collect());
            }
            cutter.next = end;
        }
        targets.insert(Arc::clone(&member.id), target);
    }
    targets
}
