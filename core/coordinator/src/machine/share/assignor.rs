//! Kafka's simple assignor: every partition of a topic has a member, and every member has a partition of each topic that it
//! subscribes to. Partitions are shared, so nothing has to be given up before somebody else can have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::machine::consumer::Partitions;
use crate::machine::member::MemberId;
use crate::topics::Topics;

/// The name of the only assignor of share groups.
pub const SIMPLE_ASSIGNOR: &str = "simple";

/// What each member is given. Members and partitions go round together, of each topic a bit further on, so that many
/// topics with few partitions do not all burden the same members.
pub(super) fn assign<'a>(
    members: impl Iterator<Item = (MemberId, &'a BTreeSet<String>)>,
    topics: &dyn Topics,
) -> BTreeMap<MemberId, Partitions> {
    let mut subscribers: BTreeMap<&str, Vec<MemberId>> = BTreeMap::new();
    for (id, names) in members {
        for name in names {
            subscribers.entry(name).or_default().push(Arc::clone(&id));
        }
    }
    let mut assigned: BTreeMap<MemberId, Partitions> = BTreeMap::new();
    let mut first = 0;
    for (name, members) in subscribers {
        let Some(topic) = topics.by_name(name) else { continue };
        let partitions = usize::try_from(topic.partitions).unwrap_or(0);
        if partitions == 0 {
            continue;
        }
        for turn in 0..partitions.max(members.len()) {
            let Some(member) = members.get((first + turn) % members.len()) else { continue };
            let partition = i32::try_from(turn % partitions).unwrap_or(0);
            assigned.entry(Arc::clone(member)).or_default().entry(topic.id).or_default().insert(partition);
        }
        first += partitions;
    }
    assigned
}
