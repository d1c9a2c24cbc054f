//! Who gets which partition: Kafka's `range` and `cooperative-sticky`; pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use towpath_types::{TopicName, TopicPartition};

/// A member's wishes, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) topics: BTreeSet<TopicName>,
    pub(super) owned: Vec<TopicPartition>,
    /// The generation in which it got what it has; −1 if unknown.
    pub(super) generation: i32,
}

/// Partitions by member id; every member has an entry.
pub(super) type Assignment = BTreeMap<String, Vec<TopicPartition>>;

/// The number of partitions of each topic that exists.
pub(super) type Counts = BTreeMap<TopicName, i32>;

/// `RangeAssignor`: of each topic, consecutive partitions for each member that wants it, members in order of their
/// instance ids (static members first), then of their ids.
pub(super) fn range(members: &[Member], counts: &Counts) -> Assignment {
    let mut assignment: Assignment = members.iter().map(|member| (member.id.clone(), Vec::new())).collect();
    let mut ordered: Vec<&Member> = members.iter().collect();
    // Static members come first, as in `AbstractPartitionAssignor.MemberInfo`.
    ordered.sort_by(|a, b| {
        let key = |member: &Member| (member.instance_id.is_none(), member.instance_id.clone());
        key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
    });
    for (topic, count) in counts {
        let wanting: Vec<&&Member> = ordered.iter().filter(|member| member.topics.contains(topic)).collect();
        let Ok(members) = i32::try_from(wanting.len()) else { continue };
        if members == 0 {
            continue;
        }
        let (each, extra) = (count / members, count % members);
        let mut next = 0;
        for (index, member) in wanting.into_iter().enumerate() {
            let take = each + i32::from((index as i32) < extra);
            if let Some(partitions) = assignment.get_mut(&member.id) {
                let range = next..next + take;
                partitions.extend(range.map(|index| TopicPartition::new(topic.clone(), index)));
            }
            next += take;
        }
    }
    assignment
}

/// `CooperativeStickyAssignor`: balanced, keeping what members have as far as balance allows; a partition that moves
/// is taken away in this generation and given in the next, so that nobody reads it twice (KIP-429).
pub(super) fn cooperative_sticky(members: &[Member], counts: &Counts) -> Assignment {
    let mut assignment = sticky(members, counts);
    // Whoever says that it has a partition may be reading it, also one with an older generation.
    let mut readers: HashMap<&TopicPartition, Vec<&str>> = HashMap::new();
    for member in members {
        for partition in &member.owned {
            readers.entry(partition).or_default().push(&member.id);
        }
    }
    for (id, partitions) in &mut assignment {
        partitions.retain(|partition| {
            readers.get(partition).is_none_or(|readers| readers.iter().all(|reader| reader == id))
        });
    }
    assignment
}

/// The work of the sticky assignment, by indexes of members.
struct Sticky<'a> {
    members: &'a [Member],
    /// What each member gets.
    shares: Vec<BTreeSet<TopicPartition>>,
}

fn sticky(members: &[Member], counts: &Counts) -> Assignment {
    let mut work = Sticky { members, shares: vec![BTreeSet::new(); members.len()] };
    let mut free = work.keep_owned(counts);
    // Partitions that few want are given first: the others can still balance afterwards.
    let wanting = |partition: &TopicPartition| {
        members.iter().filter(|member| member.topics.contains(&partition.topic)).count()
    };
    free.sort_by_cached_key(|partition| (wanting(partition), partition.clone()));
    for partition in free {
        if let Some(member) = work.least_loaded(&partition.topic) {
            work.shares[member].insert(partition);
        }
    }
    work.balance();
    let shares = work.shares.into_iter().map(|share| share.into_iter().collect());
    members.iter().map(|member| member.id.clone()).zip(shares).collect()
}

impl Sticky<'_> {
    /// Gives everybody what it has and may keep; of two who claim a partition the one with the newer generation, and
    /// neither of two with the same. Returns what is left.
    fn keep_owned(&mut self, counts: &Counts) -> Vec<TopicPartition> {
        let mut owners: BTreeMap<&TopicPartition, (i32, Option<usize>)> = BTreeMap::new();
        for (index, member) in self.members.iter().enumerate() {
            for partition in &member.owned {
                let exists = counts.get(&partition.topic).is_some_and(|count| partition.partition < *count);
                if !exists || !member.topics.contains(&partition.topic) {
                    continue;
                }
                let claim = owners.entry(partition).or_insert((i32::MIN, None));
                if member.generation > claim.0 {
                    *claim = (member.generation, Some(index));
                } else if member.generation == claim.0 {
                    claim.1 = None;
                }
            }
        }
        let mut free = Vec::new();
        for (topic, count) in counts {
            for index in 0..*count {
                let partition = TopicPartition::new(topic.clone(), index);
                match owners.get(&partition) {
                    Some((_, Some(owner))) => drop(self.shares[*owner].insert(partition)),
                    _ => free.push(partition),
                }
            }
        }
        free
    }

    /// The member with the fewest partitions among those who want the topic; of several the first by id.
    fn least_loaded(&self, topic: &TopicName) -> Option<usize> {
        let wanting = (0..self.members.len()).filter(|index| self.members[*index].topics.contains(topic));
        wanting.min_by_key(|index| (self.shares[*index].len(), &self.members[*index].id))
    }

    /// Moves partitions from members to ones with at least two fewer until there are none: the sum of squares of the
    /// shares falls with every move, so this ends.
    fn balance(&mut self) {
        loop {
            let mut by_load: Vec<usize> = (0..self.members.len()).collect();
            by_load.sort_by_key(|index| std::cmp::Reverse(self.shares[*index].len()));
            let step = by_load.into_iter().find_map(|from| {
                let load = self.shares[from].len();
                let mut topics: Vec<&TopicName> = self.shares[from].iter().map(|p| &p.topic).collect();
                topics.dedup();
                let target = |topic: &&TopicName| Some((self.least_loaded(topic)?, (*topic).clone()));
                let (to, topic) = topics
                    .iter()
                    .filter_map(target)
                    .min_by_key(|(to, _)| self.shares[*to].len())
                    .filter(|(to, _)| self.shares[*to].len() + 1 < load)?;
                // Rather one that did not have an owner before than one that is being read.
                let owned: BTreeSet<&TopicPartition> = self.members[from].owned.iter().collect();
                let mut candidates: Vec<&TopicPartition> =
                    self.shares[from].iter().filter(|partition| partition.topic == topic).collect();
                candidates.sort_by_key(|p| (owned.contains(*p), std::cmp::Reverse(p.partition)));
                candidates.first().map(|partition| (from, to, (*partition).clone()))
            });
            let Some((from, to, partition)) = step else { return };
            self.shares[from].remove(&partition);
            self.shares[to].insert(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn member(id: &str, topics: &[&str], owned: &[(&str, i32)], generation: i32) -> Member {
        Member {
            id: id.to_owned(),
            instance_id: None,
            topics: topics.iter().map(|name| topic(name)).collect(),
            owned: owned.iter().map(|(name, index)| TopicPartition::new(topic(name), *index)).collect(),
            generation,
        }
    }

    fn counts(counts: &[(&str, i32)]) -> Counts {
        counts.iter().map(|(name, count)| (topic(name), *count)).collect()
    }

    fn text(assignment: &Assignment) -> Vec<String> {
        let list = |partitions: &Vec<TopicPartition>| {
            partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assignment.iter().map(|(id, partitions)| format!("{id}: {}", list(partitions))).collect()
    }

    #[test]
    fn range_is_kafkas_documented_example() {
        // RangeAssignor's documentation: two members, two topics of three partitions.
        let members = [member("C0", &["t0", "t1"], &[], -1), member("C1", &["t0", "t1"], &[], -1)];
        let assignment = range(&members, &counts(&[("t0", 3), ("t1", 3)]));
        assert_eq!(text(&assignment), ["C0: t0-0 t0-1 t1-0 t1-1", "C1: t0-2 t1-2"]);
    }

    #[test]
    fn range_orders_static_members_by_instance_id() {
        let mut members = vec![member("a", &["t"], &[], -1), member("b", &["t"], &[], -1)];
        members[0].instance_id = Some("i2".to_owned());
        members[1].instance_id = Some("i1".to_owned());
        let assignment = range(&members, &counts(&[("t", 3)]));
        assert_eq!(text(&assignment), ["a: t-2", "b: t-0 t-1"]);
    }

    #[test]
    fn range_leaves_members_without_partitions() {
        let members = [member("a", &["t"], &[], -1), member("b", &["u"], &[], -1)];
        let assignment = range(&members, &counts(&[("t", 1)]));
        assert_eq!(text(&assignment), ["a: t-0", "b: "]);
    }

    #[test]
    fn sticky_gives_a_newcomer_a_share_in_two_generations() {
        let owned = [("t", 0), ("t", 1), ("t", 2), ("t", 3)];
        let members = [member("a", &["t"], &owned, 1), member("b", &["t"], &[], -1)];
        let topics = counts(&[("t", 4)]);
        let first = cooperative_sticky(&members, &topics);
        assert_eq!(text(&first), ["a: t-0 t-1", "b: "], "what moves belongs to nobody for one generation");
        let members = [member("a", &["t"], &[("t", 0), ("t", 1)], 2), member("b", &["t"], &[], 2)];
        let second = cooperative_sticky(&members, &topics);
        assert_eq!(text(&second), ["a: t-0 t-1", "b: t-2 t-3"]);
    }

    #[test]
    fn sticky_moves_only_what_balance_needs_when_a_member_leaves() {
        let members =
            [member("a", &["t"], &[("t", 0), ("t", 1)], 3), member("b", &["t"], &[("t", 4), ("t", 5)], 3)];
        let assignment = cooperative_sticky(&members, &counts(&[("t", 6)]));
        assert_eq!(text(&assignment), ["a: t-0 t-1 t-2", "b: t-3 t-4 t-5"]);
    }

    #[test]
    fn an_older_generation_loses_its_claim_but_is_waited_for() {
        let members = [member("a", &["t"], &[("t", 0)], 1), member("b", &["t"], &[("t", 0), ("t", 1)], 2)];
        let sticky = sticky(&members, &counts(&[("t", 2)]));
        assert_eq!(sticky.values().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let cooperative = cooperative_sticky(&members, &counts(&[("t", 2)]));
        let given: usize = cooperative.values().map(Vec::len).sum();
        assert!(given <= 1, "{cooperative:?}: t-0 is claimed by two");
    }

    #[test]
    fn sticky_respects_subscriptions_and_balances_within_them() {
        let members =
            [member("a", &["t", "u"], &[], -1), member("b", &["t"], &[], -1), member("c", &["u"], &[], -1)];
        let assignment = sticky(&members, &counts(&[("t", 3), ("u", 3)]));
        assert_eq!(assignment.values().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        assert!(assignment["b"].iter().all(|partition| partition.topic == topic("t")));
        assert!(assignment["c"].iter().all(|partition| partition.topic == topic("u")));
    }

    #[test]
    fn everything_is_given_exactly_once_and_evenly() {
        use rand::{Rng, SeedableRng};
        for seed in 0..300 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let topics = counts(&[("t", rng.random_range(1..9)), ("u", rng.random_range(1..9))]);
            let mut members: Vec<Member> = (0..rng.random_range(1..6))
                .map(|index| member(&format!("m{index}"), &["t", "u"], &[], -1))
                .collect();
            let mut generation = 0;
            for _ in 0..6 {
                generation += 1;
                let assignment = sticky(&members, &topics);
                let all: Vec<_> = assignment.values().flatten().collect();
                assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
                assert_eq!(all.len() as i32, topics.values().sum::<i32>());
                let loads: Vec<usize> = assignment.values().map(Vec::len).collect();
                assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
                let given = cooperative_sticky(&members, &topics);
                for member in &mut members {
                    // Nobody gets what another still has.
                    member.owned = given[&member.id].clone();
                    member.generation = generation;
                }
                if rng.random() && members.len() > 1 {
                    members.remove(0);
                } else {
                    members.push(member(&format!("n{generation}"), &["t", "u"], &[], -1));
                }
            }
        }
    }
}
