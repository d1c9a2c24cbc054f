//! Where replicas go when a broker is to hold none any more. Pure: from who holds what to moves.

use std::collections::BTreeMap;

use towpath_types::{TopicName, TopicPartition};

/// A broker that can hold replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: i32,
    pub(super) rack: Option<String>,
}

/// A partition goes from some brokers to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) partition: TopicPartition,
    pub(super) from: Vec<i32>,
    /// The preferred leader first.
    pub(super) to: Vec<i32>,
}

/// How much each broker holds.
#[derive(Debug, Default)]
struct Load {
    replicas: BTreeMap<i32, usize>,
    of_topic: BTreeMap<(TopicName, i32), usize>,
    /// Partitions that a broker is the first replica of.
    preferred: BTreeMap<i32, usize>,
}

impl Load {
    fn of(held: &BTreeMap<TopicPartition, Vec<i32>>) -> Self {
        let mut load = Self::default();
        for (at, replicas) in held {
            replicas.iter().for_each(|id| load.add(&at.topic, *id));
            if let Some(first) = replicas.first() {
                *load.preferred.entry(*first).or_default() += 1;
            }
        }
        load
    }

    fn add(&mut self, topic: &TopicName, id: i32) {
        *self.replicas.entry(id).or_default() += 1;
        *self.of_topic.entry((topic.clone(), id)).or_default() += 1;
    }

    fn replicas(&self, id: i32) -> usize {
        self.replicas.get(&id).copied().unwrap_or(0)
    }

    fn of_topic(&self, topic: &TopicName, id: i32) -> usize {
        self.of_topic.get(&(topic.clone(), id)).copied().unwrap_or(0)
    }

    fn preferred(&self, id: i32) -> usize {
        self.preferred.get(&id).copied().unwrap_or(0)
    }
}

/// The moves that leave nothing on `broker`. `places` are the brokers that may take replicas, `held` is where every
/// replica is, the preferred leader first. A replica goes to a rack that holds none of its partition, where there is
/// one, and there to the broker that holds least; where the broker was the preferred leader, the one of the new
/// replicas that is this for the fewest partitions becomes it, and those that have the data already come first.
///
/// # Errors
/// The partitions for which there is no broker that does not hold them already.
pub(super) fn drain(
    broker: i32,
    places: &[Place],
    held: &BTreeMap<TopicPartition, Vec<i32>>,
) -> Result<Vec<Move>, Vec<TopicPartition>> {
    let mut load = Load::of(held);
    let (mut moves, mut stuck) = (Vec::new(), Vec::new());
    for (at, from) in held.iter().filter(|(_, replicas)| replicas.contains(&broker)) {
        let stay: Vec<i32> = from.iter().copied().filter(|id| *id != broker).collect();
        let Some(new) = best(places, broker, &stay, &at.topic, &load) else {
            stuck.push(at.clone());
            continue;
        };
        load.add(&at.topic, new);
        let mut to: Vec<i32> = from.iter().map(|id| if *id == broker { new } else { *id }).collect();
        if from.first() == Some(&broker) {
            // The new replica stands first now; it moves behind one that has the data and leads no more than it does.
            let preferred =
                to.iter().enumerate().min_by_key(|(at, id)| (load.preferred(**id), *at == 0, *at));
            if let Some((at, id)) = preferred.map(|(at, id)| (at, *id)) {
                to.remove(at);
                to.insert(0, id);
                *load.preferred.entry(id).or_default() += 1;
            }
        }
        moves.push(Move { partition: at.clone(), from: from.clone(), to });
    }
    if stuck.is_empty() { Ok(moves) } else { Err(stuck) }
}

fn best(places: &[Place], broker: i32, stay: &[i32], topic: &TopicName, load: &Load) -> Option<i32> {
    let rack_of = |id: i32| places.iter().find(|place| place.id == id).and_then(|place| place.rack.as_ref());
    let candidates = places.iter().filter(|place| place.id != broker && !stay.contains(&place.id));
    let cost = |place: &&Place| {
        let shares_rack = place.rack.is_some() && stay.iter().any(|id| rack_of(*id) == place.rack.as_ref());
        (shares_rack, load.replicas(place.id), load.of_topic(topic, place.id), place.id)
    };
    candidates.min_by_key(cost).map(|place| place.id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::at;
    use super::*;

    fn places(racks: &[(i32, &str)]) -> Vec<Place> {
        let rack = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        racks.iter().map(|(id, name)| Place { id: *id, rack: rack(name) }).collect()
    }

    #[test]
    fn replicas_go_where_least_is() {
        let held: BTreeMap<_, _> = (0..12).map(|number| (at("t", number), vec![1, 2])).collect();
        let moves = drain(1, &places(&[(2, ""), (3, ""), (4, ""), (5, "")]), &held).unwrap();
        assert_eq!(moves.len(), 12);
        let count = |id: i32| moves.iter().filter(|it| it.to.contains(&id)).count();
        assert_eq!([count(2), count(3), count(4), count(5)], [12, 4, 4, 4]);
        let first: BTreeSet<_> = moves.iter().map(|it| it.to[0]).collect();
        assert_eq!(first, BTreeSet::from([2, 3, 4, 5]), "each of them leads some");
    }

    #[test]
    fn racks_stay_apart_where_they_can() {
        let racks = places(&[(2, "b"), (3, "a"), (4, "b"), (5, "a")]);
        let held =
            BTreeMap::from([(at("t", 0), vec![1, 2]), (at("t", 1), vec![4, 1]), (at("u", 0), vec![3, 1])]);
        let moves = drain(1, &racks, &held).unwrap();
        assert!(matches!(moves[0].to[..], [2, 3 | 5] | [3 | 5, 2]), "{moves:?}");
        assert!(matches!(moves[1].to[..], [4, 3 | 5]), "{moves:?}");
        assert!(matches!(moves[2].to[..], [3, 2 | 4]), "{moves:?}");
        // Where every rack holds one already, one of them holds two.
        let full = BTreeMap::from([(at("t", 0), vec![1, 2, 3])]);
        let moves = drain(1, &racks, &full).unwrap();
        assert_eq!(moves[0].to.iter().copied().collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn the_order_of_the_others_is_kept() {
        let held = BTreeMap::from([(at("t", 0), vec![2, 1, 3])]);
        let moves = drain(1, &places(&[(2, ""), (3, ""), (4, "")]), &held).unwrap();
        assert_eq!(moves[0].to, [2, 4, 3]);
        let first = BTreeMap::from([(at("t", 0), vec![1, 2])]);
        let moves = drain(1, &places(&[(2, ""), (4, "")]), &first).unwrap();
        assert_eq!(moves[0].to, [2, 4], "the one that has the data leads");
    }

    #[test]
    fn what_cannot_go_anywhere_is_told() {
        let held = BTreeMap::from([(at("t", 0), vec![1, 2]), (at("u", 0), vec![1]), (at("v", 0), vec![2])]);
        assert_eq!(drain(1, &places(&[(2, "")]), &held).unwrap_err(), [at("t", 0)]);
        assert_eq!(drain(9, &places(&[(1, ""), (2, "")]), &held).unwrap(), []);
    }

    /// A small generator of numbers, the same on every run.
    fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn whatever_there_is_a_drained_broker_holds_nothing() {
        for seed in 0..300 {
            let mut next = numbers(seed);
            let brokers = i32::try_from(3 + next(7)).unwrap();
            let racks = 1 + next(4);
            let all: Vec<_> = (1..=brokers)
                .map(|id| Place { id, rack: (racks > 1).then(|| format!("r{}", id as u64 % racks)) })
                .collect();
            let mut held = BTreeMap::new();
            for number in 0..next(60) {
                let factor = 1 + next(brokers as u64 - 1);
                let mut replicas: Vec<i32> = (1..=brokers).collect();
                for at in (1..replicas.len()).rev() {
                    replicas.swap(at, usize::try_from(next(at as u64 + 1)).unwrap());
                }
                replicas.truncate(usize::try_from(factor).unwrap());
                held.insert(at(["a", "b"][usize::try_from(number % 2).unwrap()], number as i32), replicas);
            }
            check(&all, &held, brokers);
        }
    }

    fn check(all: &[Place], held: &BTreeMap<TopicPartition, Vec<i32>>, broker: i32) {
        let rest: Vec<_> = all.iter().filter(|place| place.id != broker).cloned().collect();
        let mut after = held.clone();
        for it in drain(broker, &rest, held).unwrap() {
            assert_eq!(held[&it.partition], it.from);
            let distinct: BTreeSet<_> = it.to.iter().collect();
            assert_eq!((it.to.len(), distinct.len()), (it.from.len(), it.from.len()), "{it:?}");
            let kept = it.from.iter().filter(|id| it.to.contains(id)).count();
            assert_eq!(kept, it.from.len() - 1, "one replica moves, and no more: {it:?}");
            let rack = |id: &i32| rest.iter().find(|place| place.id == *id).unwrap().rack.clone();
            let new = it.to.iter().find(|id| !it.from.contains(id)).unwrap();
            let others: BTreeSet<_> = it.to.iter().filter(|id| *id != new).map(rack).collect();
            let free = rest.iter().any(|place| !it.to.contains(&place.id) && !others.contains(&place.rack));
            assert!(!free || !others.contains(&rack(new)), "a free rack was not taken: {it:?}");
            after.insert(it.partition, it.to);
        }
        assert!(after.values().all(|replicas| !replicas.contains(&broker)));
    }
}
