//! From what a member has to what it shall have: each member goes its way alone (KIP-848).

use std::collections::BTreeSet;

use towpath_types::TopicId;

use super::member::{ConsumerMember, MemberState, Owned, Partitions};

/// What a member is to be reconciled with.
pub(super) struct Goal<'a> {
    pub(super) target_epoch: i32,
    pub(super) target: &'a Partitions,
    /// The topics that the member subscribes to; of others it keeps nothing.
    pub(super) subscribed: &'a BTreeSet<TopicId>,
    /// What the member says that it has; `None` when it does not say so.
    pub(super) owned: Option<&'a Partitions>,
    /// The member has just changed its subscription.
    pub(super) subscription_changed: bool,
    /// Whether somebody has a partition (or has not given it up yet).
    pub(super) is_held: &'a dyn Fn(TopicId, i32) -> bool,
}

/// The member's next step; `None` when it stays where it is. A member in an unknown state that does not come without
/// partitions is fenced: that is the error.
pub(super) fn next(member: &ConsumerMember, goal: &Goal<'_>) -> Result<Option<ConsumerMember>, Fenced> {
    match member.state {
        MemberState::Stable if member.epoch != goal.target_epoch => {
            Ok(Some(advance(member, member.epoch, goal)))
        }
        MemberState::Stable if goal.subscription_changed => Ok(drop_unsubscribed(member, goal)),
        MemberState::Stable => Ok(None),
        MemberState::UnrevokedPartitions if has_any(goal.owned, &member.revoking) => {
            Ok(if goal.subscription_changed { drop_unsubscribed(member, goal) } else { None })
        }
        MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
            Ok(Some(advance(member, member.epoch, goal)))
        }
        MemberState::Unknown if goal.owned.is_some_and(Partitions::is_empty) => {
            Ok(Some(advance(member, goal.target_epoch, goal)))
        }
        MemberState::Unknown => Err(Fenced),
    }
}

/// The member must begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fenced;

/// Whether the member still has one of `revoking`; when it does not say what it has, yes.
fn has_any(owned: Option<&Partitions>, revoking: &Owned) -> bool {
    let Some(owned) = owned else { return true };
    owned.iter().any(|(topic, partitions)| {
        revoking
            .get(topic)
            .is_some_and(|revoking| partitions.iter().any(|partition| revoking.contains_key(partition)))
    })
}

fn insert(owned: &mut Owned, topic: TopicId, partition: i32, epoch: i32) {
    owned.entry(topic).or_default().insert(partition, epoch);
}

/// Takes away what the member no longer subscribes to; its epoch stays.
fn drop_unsubscribed(member: &ConsumerMember, goal: &Goal<'_>) -> Option<ConsumerMember> {
    let is_gone = |topic: &TopicId| !goal.subscribed.contains(topic);
    if !member.assigned.keys().any(is_gone) {
        return None;
    }
    let mut next = member.clone();
    next.assigned.retain(|topic, _| goal.subscribed.contains(topic));
    let mut revoking = member.revoking.clone();
    for (topic, partitions) in member.assigned.iter().filter(|(topic, _)| is_gone(topic)) {
        revoking.entry(*topic).or_default().extend(partitions);
    }
    if has_any(goal.owned, &revoking) {
        next.state = MemberState::UnrevokedPartitions;
        next.revoking = revoking;
    }
    next.update_epoch(member.epoch);
    Some(next)
}

/// Goes as far towards the target as revocations and other members allow.
fn advance(member: &ConsumerMember, epoch: i32, goal: &Goal<'_>) -> ConsumerMember {
    let (mut assigned, mut revoking) = (Owned::new(), Owned::new());
    let wanted = |topic: TopicId, partition: i32| {
        goal.subscribed.contains(&topic)
            && goal.target.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
    };
    for (topic, partitions) in &member.assigned {
        for (partition, since) in partitions {
            let place = if wanted(*topic, *partition) { &mut assigned } else { &mut revoking };
            insert(place, *topic, *partition, *since);
        }
    }
    let mut next = member.clone();
    if !revoking.is_empty() && has_any(goal.owned, &revoking) {
        // It stays in its epoch until it has given these up.
        next.state = MemberState::UnrevokedPartitions;
        next.assigned = assigned;
        next.revoking = revoking;
        next.update_epoch(epoch);
        return next;
    }
    let mut has_unreleased = false;
    for (topic, partitions) in goal.target.iter().filter(|(topic, _)| goal.subscribed.contains(topic)) {
        for partition in partitions {
            let has = |owned: &Owned| owned.get(topic).is_some_and(|owned| owned.contains_key(partition));
            if has(&member.assigned) {
                continue;
            }
            // What the member itself was to give up is free for it: nobody else can have it.
            if (goal.is_held)(*topic, *partition) && !has(&member.revoking) {
                has_unreleased = true;
            } else {
                insert(&mut assigned, *topic, *partition, goal.target_epoch);
            }
        }
    }
    next.state = if has_unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable };
    next.assigned = assigned;
    next.revoking = Owned::new();
    next.update_epoch(goal.target_epoch);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: u128) -> TopicId {
        TopicId::new(uuid::Uuid::from_u128(number))
    }

    fn partitions(topics: &[(u128, &[i32])]) -> Partitions {
        topics.iter().map(|(id, partitions)| (topic(*id), partitions.iter().copied().collect())).collect()
    }

    fn owned(topics: &[(u128, &[i32])], epoch: i32) -> Owned {
        let with_epoch =
            |partitions: &[i32]| partitions.iter().map(|partition| (*partition, epoch)).collect();
        topics.iter().map(|(id, partitions)| (topic(*id), with_epoch(partitions))).collect()
    }

    fn member(state: MemberState, epoch: i32) -> ConsumerMember {
        ConsumerMember { epoch, previous_epoch: epoch - 1, state, ..ConsumerMember::default() }
    }

    struct World {
        target: Partitions,
        subscribed: BTreeSet<TopicId>,
        held: BTreeSet<(TopicId, i32)>,
    }

    impl World {
        fn new(target: &[(u128, &[i32])]) -> Self {
            let subscribed = [topic(1), topic(2)].into();
            Self { target: partitions(target), subscribed, held: BTreeSet::new() }
        }

        fn step(
            &self,
            member: &ConsumerMember,
            epoch: i32,
            owned: Option<&Partitions>,
            changed: bool,
        ) -> Option<ConsumerMember> {
            let is_held = |topic, partition| self.held.contains(&(topic, partition));
            let goal = Goal {
                target_epoch: epoch,
                target: &self.target,
                subscribed: &self.subscribed,
                owned,
                subscription_changed: changed,
                is_held: &is_held,
            };
            next(member, &goal).unwrap()
        }
    }

    #[test]
    fn a_new_member_takes_what_is_free_and_waits_for_the_rest() {
        let mut world = World::new(&[(1, &[0, 1]), (2, &[5])]);
        world.held.insert((topic(2), 5));
        let first = world.step(&member(MemberState::Stable, 0), 3, Some(&Partitions::new()), true).unwrap();
        assert_eq!(
            (first.state, first.epoch, first.previous_epoch),
            (MemberState::UnreleasedPartitions, 3, 0)
        );
        assert_eq!(first.assigned, owned(&[(1, &[0, 1])], 3));
        let waiting = world.step(&first, 3, None, false).unwrap();
        assert_eq!((waiting.state, waiting.epoch), (MemberState::UnreleasedPartitions, 3));
        world.held.clear();
        let done = world.step(&first, 3, None, false).unwrap();
        assert_eq!(done.state, MemberState::Stable);
        assert_eq!(done.assigned, owned(&[(1, &[0, 1]), (2, &[5])], 3));
        assert_eq!(world.step(&done, 3, None, false), None);
    }

    #[test]
    fn revocation_keeps_the_epoch_until_the_member_says_so() {
        let world = World::new(&[(1, &[0])]);
        let mut old = member(MemberState::Stable, 4);
        old.assigned = owned(&[(1, &[0, 1])], 2);
        let revoking = world.step(&old, 5, None, false).unwrap();
        assert_eq!((revoking.state, revoking.epoch), (MemberState::UnrevokedPartitions, 4));
        assert_eq!(revoking.assigned, owned(&[(1, &[0])], 2), "and the assignment epoch stays");
        assert_eq!(revoking.revoking, owned(&[(1, &[1])], 2));
        assert_eq!(world.step(&revoking, 5, None, false), None, "it does not say what it has");
        assert_eq!(world.step(&revoking, 5, Some(&partitions(&[(1, &[0, 1])])), false), None);
        let done = world.step(&revoking, 5, Some(&partitions(&[(1, &[0])])), false).unwrap();
        assert_eq!((done.state, done.epoch, done.previous_epoch), (MemberState::Stable, 5, 4));
        assert_eq!(done.revoking, Owned::new());
    }

    #[test]
    fn after_a_revocation_the_newest_target_counts() {
        // KAFKA-19974: more has to be revoked meanwhile, so the epoch stays once more.
        let world = World::new(&[(2, &[3])]);
        let mut old = member(MemberState::UnrevokedPartitions, 4);
        old.assigned = owned(&[(1, &[0])], 2);
        old.revoking = owned(&[(1, &[1])], 2);
        let again = world.step(&old, 6, Some(&partitions(&[(1, &[0])])), false).unwrap();
        assert_eq!((again.state, again.epoch), (MemberState::UnrevokedPartitions, 4));
        assert_eq!(again.revoking, owned(&[(1, &[0])], 2));
        let done = world.step(&again, 6, Some(&Partitions::new()), false).unwrap();
        assert_eq!((done.state, done.epoch), (MemberState::Stable, 6));
        assert_eq!(done.assigned, owned(&[(2, &[3])], 6));
    }

    #[test]
    fn what_was_to_be_revoked_comes_back_when_the_target_wants_it() {
        let mut world = World::new(&[(1, &[0, 1])]);
        let mut old = member(MemberState::UnrevokedPartitions, 4);
        old.assigned = owned(&[(1, &[0])], 2);
        old.revoking = owned(&[(1, &[1])], 2);
        world.held.extend([(topic(1), 0), (topic(1), 1)]);
        let done = world.step(&old, 6, Some(&partitions(&[(1, &[0])])), false).unwrap();
        assert_eq!((done.state, done.epoch), (MemberState::Stable, 6));
        assert_eq!(done.assigned[&topic(1)], [(0, 2), (1, 6)].into());
    }

    #[test]
    fn what_is_not_subscribed_to_goes_at_once() {
        let mut world = World::new(&[(1, &[0]), (2, &[0])]);
        world.subscribed = [topic(2)].into();
        let mut old = member(MemberState::Stable, 4);
        old.assigned = owned(&[(1, &[0]), (2, &[0])], 2);
        assert_eq!(world.step(&old, 4, None, false), None);
        let next = world.step(&old, 4, None, true).unwrap();
        assert_eq!((next.state, next.epoch), (MemberState::UnrevokedPartitions, 4));
        assert_eq!(next.assigned, owned(&[(2, &[0])], 2));
        assert_eq!(next.revoking, owned(&[(1, &[0])], 2));
        let at_once = world.step(&old, 4, Some(&partitions(&[(2, &[0])])), true).unwrap();
        assert_eq!((at_once.state, at_once.revoking.len()), (MemberState::Stable, 0));
    }

    #[test]
    fn a_member_in_an_unknown_state_begins_anew() {
        let world = World::new(&[(1, &[0])]);
        let old = member(MemberState::Unknown, 4);
        let is_held = |_, _| false;
        let mut goal = Goal {
            target_epoch: 6,
            target: &world.target,
            subscribed: &world.subscribed,
            owned: None,
            subscription_changed: false,
            is_held: &is_held,
        };
        assert_eq!(next(&old, &goal), Err(Fenced));
        let empty = Partitions::new();
        goal.owned = Some(&empty);
        let done = next(&old, &goal).unwrap().unwrap();
        assert_eq!((done.state, done.epoch), (MemberState::Stable, 6));
    }
}
