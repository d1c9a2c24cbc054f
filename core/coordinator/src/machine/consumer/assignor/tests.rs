//! Properties of the assignors, over members and topics that proptest makes up.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const TOPICS: u128 = 5;

fn topic(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(number))
}

/// Members with the topics that they subscribe to, and how many partitions each topic has.
fn spec_of(partitions: &[i32], members: &[(u8, Vec<bool>)]) -> Spec {
    let exists = |topic: &TopicId| partitions.get((topic.get().as_u128() - 1) as usize).is_some();
    let members: Vec<MemberSpec> = members
        .iter()
        .enumerate()
        .map(|(number, (instance, topics))| {
            let topics = (1..=TOPICS).zip(topics).filter(|(_, subscribes)| **subscribes);
            MemberSpec {
                id: Arc::from(format!("m{number:03}")),
                instance_id: (*instance % 3 == 0).then(|| format!("i{instance}-{number}")),
                topics: Arc::new(topics.map(|(number, _)| topic(number)).filter(exists).collect()),
                current: Partitions::new(),
            }
        })
        .collect();
    let subscribed: BTreeSet<TopicId> =
        members.iter().flat_map(|member| member.topics.iter().copied()).collect();
    let topics = (1u128..).zip(partitions).map(|(number, count)| (topic(number), *count));
    Spec { members, topics: topics.filter(|(topic, _)| subscribed.contains(topic)).collect() }
}

fn specs(homogeneous: bool) -> impl Strategy<Value = Spec> {
    let topics = proptest::collection::vec(0..12i32, 1..=TOPICS as usize);
    let member = (any::<u8>(), proptest::collection::vec(any::<bool>(), TOPICS as usize));
    (topics, proptest::collection::vec(member, 1..9)).prop_map(move |(partitions, mut members)| {
        if homogeneous {
            let first = members[0].1.clone();
            members.iter_mut().for_each(|member| member.1.clone_from(&first));
        }
        spec_of(&partitions, &members)
    })
}

/// Every partition has exactly one owner, and that one subscribes to it.
fn check(spec: &Spec, targets: &BTreeMap<MemberId, Partitions>) {
    assert_eq!(targets.len(), spec.members.len());
    let mut owners: BTreeMap<(TopicId, i32), &MemberId> = BTreeMap::new();
    for member in &spec.members {
        for (topic, partitions) in &targets[&member.id] {
            assert!(member.topics.contains(topic), "{} does not subscribe to {topic}", member.id);
            for partition in partitions {
                assert_eq!(
                    owners.insert((*topic, *partition), &member.id),
                    None,
                    "{topic} {partition} twice"
                );
            }
        }
    }
    let all: usize = spec.topics.values().map(|count| *count as usize).sum();
    assert_eq!(owners.len(), all, "all partitions are dealt out");
}

fn load(target: &Partitions) -> usize {
    target.values().map(BTreeSet::len).sum()
}

/// Nobody has two partitions more than somebody who could take one of them.
fn check_balance(spec: &Spec, targets: &BTreeMap<MemberId, Partitions>) {
    for giver in &spec.members {
        let given = &targets[&giver.id];
        for taker in &spec.members {
            let could_take = given.keys().any(|topic| taker.topics.contains(topic));
            let (more, less) = (load(given), load(&targets[&taker.id]));
            assert!(!could_take || more <= less + 1, "{} has {more}, {} has {less}", giver.id, taker.id);
        }
    }
}

fn with_current(mut spec: Spec, targets: &BTreeMap<MemberId, Partitions>) -> Spec {
    for member in &mut spec.members {
        member.current = targets.get(&member.id).cloned().unwrap_or_default();
    }
    spec
}

/// How many partitions have another owner than before.
fn moved(before: &BTreeMap<MemberId, Partitions>, after: &BTreeMap<MemberId, Partitions>) -> usize {
    let kept: usize = after
        .iter()
        .map(|(id, target)| {
            let old = before.get(id);
            let kept = |(topic, partitions): (&TopicId, &BTreeSet<i32>)| {
                let old = old.and_then(|old| old.get(topic));
                partitions.iter().filter(|partition| old.is_some_and(|old| old.contains(partition))).count()
            };
            target.iter().map(kept).sum::<usize>()
        })
        .sum();
    after.values().map(load).sum::<usize>() - kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn uniform_is_complete_balanced_and_stable(spec in specs(false)) {
        let first = assign(UNIFORM, &spec);
        check(&spec, &first);
        check_balance(&spec, &first);
        let again = assign(UNIFORM, &with_current(spec, &first));
        prop_assert_eq!(again, first, "nothing moves without a reason");
    }

    #[test]
    fn uniform_moves_as_little_as_it_must(spec in specs(true), leaves in any::<prop::sample::Index>()) {
        let before = assign(UNIFORM, &spec);
        check(&spec, &before);
        check_balance(&spec, &before);
        let total: usize = before.values().map(load).sum();
        // Somebody leaves: only what it had moves.
        let mut fewer = with_current(spec.clone(), &before);
        let gone = fewer.members.remove(leaves.index(spec.members.len()));
        if !fewer.members.is_empty() {
            let after = assign(UNIFORM, &fewer);
            check(&fewer, &after);
            check_balance(&fewer, &after);
            prop_assert_eq!(moved(&before, &after), load(&before[&gone.id]));
        }
        // Somebody comes: it gets its share, and nothing else moves.
        let mut more = with_current(spec.clone(), &before);
        let topics = Arc::clone(&more.members[0].topics);
        more.members.push(MemberSpec {
            id: Arc::from("n"),
            instance_id: None,
            topics,
            current: Partitions::new(),
        });
        let after = assign(UNIFORM, &more);
        check(&more, &after);
        check_balance(&more, &after);
        prop_assert_eq!(moved(&before, &after), load(&after["n"]));
        prop_assert!(load(&after["n"]) <= total / more.members.len());
    }

    #[test]
    fn uniform_follows_subscriptions_and_topics(before in specs(false), after in specs(false)) {
        // The members have something else by now: other topics, other sizes.
        let old = assign(UNIFORM, &before);
        let spec = with_current(after, &old);
        let new = assign(UNIFORM, &spec);
        check(&spec, &new);
        check_balance(&spec, &new);
    }

    #[test]
    fn range_is_complete_and_in_stretches(spec in specs(false)) {
        let targets = assign(RANGE, &spec);
        check(&spec, &targets);
        for topic in spec.topics.keys() {
            let sizes: Vec<usize> = spec
                .members
                .iter()
                .filter(|member| member.topics.contains(topic))
                .map(|member| targets[&member.id].get(topic).map_or(0, BTreeSet::len))
                .collect();
            let (most, least) = (sizes.iter().max().unwrap(), sizes.iter().min().unwrap());
            prop_assert!(most - least <= 1, "{sizes:?}");
        }
        for target in targets.values() {
            for partitions in target.values() {
                let (first, last) = (partitions.first().unwrap(), partitions.last().unwrap());
                prop_assert_eq!(partitions.len(), (last - first + 1) as usize, "a stretch");
            }
        }
    }

    #[test]
    fn range_cuts_topics_of_one_size_in_the_same_places(count in 1..20i32, members in 1..9usize) {
        let members: Vec<(u8, Vec<bool>)> = (0..members).map(|number| (number as u8, vec![true; 5])).collect();
        let spec = spec_of(&[count; 3], &members);
        for target in assign(RANGE, &spec).values() {
            let stretches: BTreeSet<&BTreeSet<i32>> = target.values().collect();
            prop_assert!(stretches.len() <= 1 && (target.is_empty() || target.len() == 3));
        }
    }
}

#[test]
fn static_members_come_first_in_range() {
    let mut spec = spec_of(&[3], &[(1, vec![true; 5]), (2, vec![true; 5]), (0, vec![true; 5])]);
    spec.members[2].instance_id = Some("z".into());
    let targets = assign(RANGE, &spec);
    assert_eq!(targets["m002"][&topic(1)], [0].into());
    assert_eq!(targets["m000"][&topic(1)], [1].into());
}

#[test]
fn nobody_and_nothing_can_be_assigned() {
    for assignor in ASSIGNORS {
        assert!(assign(assignor, &spec_of(&[3], &[])).is_empty());
        let targets = assign(assignor, &spec_of(&[], &[(0, vec![true; 5])]));
        assert_eq!(targets.values().map(load).sum::<usize>(), 0);
    }
}
