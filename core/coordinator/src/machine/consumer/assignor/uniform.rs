//! `uniform`: everybody gets as many partitions as the others, as far as subscriptions allow, and keeps as many of its own
//! as it can.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use towpath_types::TopicId;

use super::{Partitions, Spec};
use crate::machine::member::MemberId;

/// How often all topics are gone through to balance them. With subscriptions that overlap a round roughly halves what is
/// out of balance.
const ROUNDS_MAX: usize = 16;

type Place = (TopicId, i32);

pub(super) fn assign(spec: &Spec) -> BTreeMap<MemberId, Partitions> {
    if spec.members.is_empty() {
        return BTreeMap::new();
    }
    let owners = if spec.is_homogeneous() { deal_evenly(spec) } else { Dealer::new(spec).deal() };
    let mut targets: Vec<Partitions> = vec![Partitions::new(); spec.members.len()];
    for ((topic, partition), member) in owners {
        targets[member].entry(topic).or_default().insert(partition);
    }
    spec.members.iter().map(|member| Arc::clone(&member.id)).zip(targets).collect()
}

/// What members have and may keep: partitions that exist, of topics that they subscribe to, each with one owner.
fn kept(spec: &Spec) -> HashMap<Place, usize> {
    let mut owners = HashMap::new();
    for (member, member_spec) in spec.members.iter().enumerate() {
        for (topic, partitions) in &member_spec.current {
            if !member_spec.topics.contains(topic) {
                continue;
            }
            for partition in partitions.range(0..spec.partitions(*topic)) {
                owners.entry((*topic, *partition)).or_insert(member);
            }
        }
    }
    owners
}

fn places(spec: &Spec) -> impl Iterator<Item = Place> {
    spec.topics.iter().flat_map(|(topic, partitions)| (0..*partitions).map(|partition| (*topic, partition)))
}

/// All members subscribe to the same topics: each gets its share. Who has more than the least share is the first to keep
/// one more.
fn deal_evenly(spec: &Spec) -> HashMap<Place, usize> {
    let mut owners = kept(spec);
    let mut counts = vec![0usize; spec.members.len()];
    owners.values().for_each(|member| counts[*member] += 1);
    let total = places(spec).count();
    let (quota, extra) = (total / counts.len(), total % counts.len());
    let mut by_count: Vec<usize> = (0..counts.len()).collect();
    by_count.sort_by_key(|member| (usize::MAX - counts[*member], *member));
    let mut shares = vec![quota; counts.len()];
    by_count.iter().take(extra).for_each(|member| shares[*member] += 1);

    // Who has too much gives up the last of what it has.
    let mut by_member: Vec<BTreeSet<Place>> = vec![BTreeSet::new(); counts.len()];
    owners.iter().for_each(|(place, member)| {
        by_member[*member].insert(*place);
    });
    for (member, places) in by_member.iter().enumerate() {
        for place in places.iter().skip(shares[member]) {
            owners.remove(place);
            counts[member] -= 1;
        }
    }
    let mut free = (0..counts.len()).flat_map(|member| {
        let missing = shares[member].saturating_sub(counts[member]);
        std::iter::repeat_n(member, missing)
    });
    for place in places(spec) {
        if !owners.contains_key(&place)
            && let Some(member) = free.next()
        {
            owners.insert(place, member);
        }
    }
    owners
}

/// Members subscribe to different topics.
struct Dealer<'a> {
    spec: &'a Spec,
    /// Who subscribes to a topic, by index.
    subscribers: BTreeMap<TopicId, Vec<usize>>,
    owners: HashMap<Place, usize>,
    /// How many partitions each member has.
    loads: Vec<usize>,
}

impl<'a> Dealer<'a> {
    fn new(spec: &'a Spec) -> Self {
        let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (member, member_spec) in spec.members.iter().enumerate() {
            for topic in member_spec.topics.iter() {
                subscribers.entry(*topic).or_default().push(member);
            }
        }
        let owners = kept(spec);
        let mut loads = vec![0usize; spec.members.len()];
        owners.values().for_each(|member| loads[*member] += 1);
        Self { spec, subscribers, owners, loads }
    }

    /// The topics, those with the most partitions for each subscriber first; then those with the fewest subscribers.
    fn topics(&self) -> Vec<TopicId> {
        let mut topics: Vec<(TopicId, u64, u64)> = self
            .subscribers
            .iter()
            .map(|(topic, subscribers)| {
                let partitions = u64::try_from(self.spec.partitions(*topic)).unwrap_or(0);
                (*topic, partitions, subscribers.len() as u64)
            })
            .collect();
        // p1/s1 > p2/s2, in whole numbers.
        topics.sort_by(|(id1, p1, s1), (id2, p2, s2)| {
            (p2 * s1).cmp(&(p1 * s2)).then(s1.cmp(s2)).then(id1.cmp(id2))
        });
        topics.into_iter().map(|(topic, _, _)| topic).collect()
    }

    fn deal(mut self) -> HashMap<Place, usize> {
        let topics = self.topics();
        for topic in &topics {
            self.deal_free(*topic);
        }
        for _ in 0..ROUNDS_MAX {
            let moved = topics.iter().map(|topic| self.balance(*topic)).sum::<usize>();
            if moved == 0 {
                break;
            }
        }
        self.owners
    }

    fn by_load(&self, members: &[usize]) -> BTreeSet<(usize, usize)> {
        members.iter().map(|member| (self.loads[*member], *member)).collect()
    }

    fn give(&mut self, place: Place, member: usize) {
        self.loads[member] += 1;
        if let Some(old) = self.owners.insert(place, member) {
            self.loads[old] -= 1;
        }
    }

    /// Gives what nobody has of a topic to those who have the least.
    fn deal_free(&mut self, topic: TopicId) {
        let Some(subscribers) = self.subscribers.get(&topic) else { return };
        let mut by_load = self.by_load(subscribers);
        for partition in 0..self.spec.partitions(topic) {
            if self.owners.contains_key(&(topic, partition)) {
                continue;
            }
            let Some((load, member)) = by_load.pop_first() else { return };
            self.give((topic, partition), member);
            by_load.insert((load + 1, member));
        }
    }

    /// Moves partitions of a topic from those who have the most to those who have the least; how many.
    fn balance(&mut self, topic: TopicId) -> usize {
        let Some(subscribers) = self.subscribers.get(&topic) else { return 0 };
        if subscribers.len() < 2 {
            return 0;
        }
        let mut by_load = self.by_load(subscribers);
        let mut owned: HashMap<usize, Vec<i32>> = HashMap::new();
        for partition in 0..self.spec.partitions(topic) {
            if let Some(owner) = self.owners.get(&(topic, partition)) {
                owned.entry(*owner).or_default().push(partition);
            }
        }
        // Only who has a partition of this topic can give one up.
        let mut givers: BTreeSet<(usize, usize)> =
            owned.keys().map(|member| (self.loads[*member], *member)).collect();
        let mut moved = 0;
        while let (Some((most, giver)), Some((least, taker))) = (givers.pop_last(), by_load.first().copied())
        {
            if most <= least + 1 {
                break;
            }
            let Some(partition) = owned.get_mut(&giver).and_then(Vec::pop) else { continue };
            by_load.remove(&(least, taker));
            by_load.remove(&(most, giver));
            by_load.insert((least + 1, taker));
            by_load.insert((most - 1, giver));
            let was_giver = givers.remove(&(least, taker));
            if was_giver {
                givers.insert((least + 1, taker));
            }
            givers.insert((most - 1, giver));
            self.give((topic, partition), taker);
            moved += 1;
        }
        moved
    }
}
