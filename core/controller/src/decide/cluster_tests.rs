//! The decisions of a cluster one by one, with the exact codes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, Rule, Rules, TopicId};
use towpath_wire::ErrorCode;

use super::support::*;
use super::*;
use crate::{FeatureRange, MetadataImage, PartitionImage, RegisterBroker};

const MIN_2: &[(&str, &str)] = &[("min.insync.replicas", "2")];
const UNCLEAN: &[(&str, &str)] = &[("unclean.leader.election.enable", "true")];

/// Three brokers, and a topic `t` on all of them that asks for two in sync.
fn three() -> (MetadataImage, ClusterPolicy) {
    let mut image = image(3);
    assigned(&mut image, "t", &[1, 2, 3], MIN_2);
    (image, policy())
}

fn id(id: i32) -> BrokerId {
    BrokerId::new(id)
}

fn epochs(partition: &PartitionImage) -> (i32, i32) {
    (partition.leader_epoch.get(), partition.partition_epoch.get())
}

#[test]
fn a_broker_registers_once() {
    let (mut image, policy) = three();
    let previous = epoch(&image, 1);
    let again = registration(1, previous);
    let refused = |asked: &Registration, alive| {
        register_broker(&image, &policy, asked, alive).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(refused(&again, true), Err(ErrorCode::DuplicateBrokerRegistration));
    let stranger = Registration { cluster_id: "other".to_owned(), ..again.clone() };
    assert_eq!(refused(&stranger, false), Err(ErrorCode::InconsistentClusterId));
    let lax = ClusterPolicy { rules: Rules::ALL.without(Rule::Registration), ..policy.clone() };
    assert!(register_broker(&image, &lax, &again, true).is_ok());

    let decision = register_broker(&image, &policy, &again, false).unwrap();
    let answer = commit(&mut image, decision);
    assert_eq!(answer, epoch(&image, 1));
    assert!(answer > previous && image.broker(id(1)).unwrap().fenced);
    // The answer was lost, and the request comes again.
    let retried = register_broker(&image, &policy, &again, true).unwrap();
    assert!(retried.records.is_empty());
    assert_eq!(retried.answer, answer);
    // A fenced incarnation is in nobody's way.
    assert!(register_broker(&image, &policy, &registration(1, answer), true).is_ok());
}

#[test]
fn a_new_broker_must_know_the_features_in_use() {
    let (mut image, policy) = three();
    let level = MetadataRecord::FeatureLevel { name: "metadata.version".to_owned(), level: 3 };
    commit(&mut image, Decision { records: vec![level], answer: () });
    for (range, works) in [(None, false), (Some((1, 2)), false), (Some((1, 3)), true)] {
        let mut asked = registration(4, BrokerEpoch::new(-1));
        let named = range.map(|(min, max)| ("metadata.version".to_owned(), FeatureRange { min, max }));
        asked.broker.features = named.into_iter().collect();
        match register_broker(&image, &policy, &asked, false) {
            Ok(_) => assert!(works, "{range:?}"),
            Err(error) => {
                assert!(!works);
                assert_eq!(error.code, ErrorCode::UnsupportedVersion);
            }
        }
    }
}

/// KIP-966: the last replica standing stops uncleanly, and is not taken for one that has everything.
#[test]
fn a_broker_that_stopped_uncleanly_is_not_eligible() {
    for clean in [true, false] {
        let (mut image, policy) = three();
        for broker in [1, 2, 3] {
            fence(&mut image, &policy, broker);
        }
        let state = partition(&image, "t");
        assert_eq!((state.leader, &state.isr[..], &state.elr[..]), (None, &[][..], &ids(&[2, 3])[..]));
        assert_eq!(state.last_known_elr, ids(&[3]));
        register(&mut image, &policy, 3, clean);
        let expected = if clean { ids(&[2, 3]) } else { ids(&[2]) };
        assert_eq!(partition(&image, "t").elr, expected);
        unfence(&mut image, &policy, 3);
        unfence(&mut image, &policy, 1);
        let leader = clean.then(|| id(3));
        assert_eq!(partition(&image, "t").leader, leader, "1 was not in sync, 3 only after a clean stop");
        unfence(&mut image, &policy, 2);
        let state = partition(&image, "t");
        assert_eq!(state.leader, Some(if clean { id(3) } else { id(2) }));
        assert_eq!(state.isr.len(), 1);
        assert!(!state.recovering && state.last_known_elr.is_empty());
    }
}

#[test]
fn when_all_stopped_uncleanly_the_last_leader_leads() {
    let (mut image, policy) = three();
    for broker in [1, 2, 3] {
        fence(&mut image, &policy, broker);
    }
    for broker in [2, 3, 1] {
        register(&mut image, &policy, broker, false);
    }
    let state = partition(&image, "t");
    assert!(state.isr.is_empty() && state.elr.is_empty());
    for broker in [1, 2] {
        unfence(&mut image, &policy, broker);
        assert_eq!(partition(&image, "t").leader, None);
    }
    unfence(&mut image, &policy, 3);
    let state = partition(&image, "t");
    assert_eq!((state.leader, &state.isr[..], state.recovering), (Some(id(3)), &ids(&[3])[..], true));
}

#[test]
fn without_elr_the_last_member_stays() {
    let (mut image, policy) = three();
    let policy = ClusterPolicy { elr_enabled: false, ..policy };
    for broker in [1, 2, 3] {
        fence(&mut image, &policy, broker);
    }
    let state = partition(&image, "t");
    assert_eq!((state.leader, &state.isr[..], state.elr.len()), (None, &ids(&[3])[..], 0));
    unfence(&mut image, &policy, 1);
    assert_eq!(partition(&image, "t").leader, None);
    unfence(&mut image, &policy, 3);
    assert_eq!(partition(&image, "t").leader, Some(id(3)));
}

#[test]
fn fencing_elects_in_the_order_of_the_assignment() {
    let (mut image, policy) = three();
    fence(&mut image, &policy, 3);
    assert_eq!(epochs(partition(&image, "t")), (0, 1), "an ISR that shrinks is no change of the leader");
    fence(&mut image, &policy, 1);
    let state = partition(&image, "t");
    assert_eq!((state.leader, &state.isr[..], epochs(state)), (Some(id(2)), &ids(&[2])[..], (1, 2)));
    assert_eq!(state.elr, ids(&[1]), "of those in sync when there were enough");
    assert!(fence_broker(&image, &policy, id(1)).records.is_empty(), "fenced already");
    assert!(fence_broker(&image, &policy, id(9)).records.is_empty(), "unknown");
    unfence(&mut image, &policy, 1);
    set_isr(&mut image, &policy, "t", &[1, 2]);
    let state = partition(&image, "t");
    assert!(state.elr.is_empty(), "rule 11: enough are in sync");
    assert_eq!((state.leader, state.leader_epoch), (Some(id(2)), LeaderEpoch::new(1)));
}

#[test]
fn unclean_elections_are_only_where_they_are_allowed() {
    let (mut image, policy) = three();
    assigned(&mut image, "u", &[1, 2, 3], UNCLEAN);
    for topic in ["t", "u"] {
        set_isr(&mut image, &policy, topic, &[1]);
    }
    fence(&mut image, &policy, 1);
    let state = partition(&image, "t");
    assert_eq!((state.leader, &state.elr[..]), (Some(id(2)), &ids(&[3, 1])[..]), "from the ELR");
    let state = partition(&image, "u");
    assert_eq!((state.leader, &state.isr[..], state.recovering), (Some(id(2)), &ids(&[2])[..], true));
    assert!(state.elr.is_empty() && state.last_known_elr.is_empty());
    // A recovering leader is alone until it says that it is done.
    let request = isr_request(&image, "u", &[2, 3]);
    let mut recovering = request.clone();
    recovering.topics[0].partitions[0].recovering = true;
    assert_eq!(alter(&mut image, &policy, &recovering), Err(ErrorCode::InvalidRequest));
    assert!(!alter(&mut image, &policy, &request).unwrap().recovering);
    let mut again = isr_request(&image, "u", &[2]);
    again.topics[0].partitions[0].recovering = true;
    assert_eq!(alter(&mut image, &policy, &again), Err(ErrorCode::InvalidRequest));
}

#[test]
fn a_heartbeat_unfences_who_knows_of_its_registration() {
    let (mut image, policy) = three();
    let stale = beat(&image, 1);
    register(&mut image, &policy, 1, true);
    let code = |beat: &Heartbeat| heartbeat(&image, &policy, beat).map(|_| ()).map_err(|error| error.code);
    assert_eq!(code(&stale), Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(code(&Heartbeat { broker_id: id(9), ..stale }), Err(ErrorCode::BrokerIdNotRegistered));
    let early = Heartbeat { metadata_offset: Offset::new(epoch(&image, 1).get()), ..beat(&image, 1) };
    let decision = heartbeat(&image, &policy, &early).unwrap();
    assert!(decision.records.is_empty() && decision.answer.is_fenced && !decision.answer.is_caught_up);
    let shy = Heartbeat { want_fence: true, ..beat(&image, 1) };
    assert!(heartbeat(&image, &policy, &shy).unwrap().answer.is_fenced);
    let leaving = Heartbeat { want_shutdown: true, ..beat(&image, 1) };
    assert!(heartbeat(&image, &policy, &leaving).unwrap().answer.should_shut_down);
    unfence(&mut image, &policy, 1);
    assert!(heartbeat(&image, &policy, &beat(&image, 1)).unwrap().records.is_empty());
    let decision = heartbeat(&image, &policy, &Heartbeat { want_fence: true, ..beat(&image, 1) }).unwrap();
    assert!(commit(&mut image, decision).is_fenced);
    assert!(!image.is_active(id(1)));
}

#[test]
fn a_broker_hands_over_before_it_stops() {
    let (mut image, policy) = three();
    assigned(&mut image, "alone", &[1], &[]);
    assigned(&mut image, "follows", &[2, 1], &[]);
    let leaving = |image: &MetadataImage, others, shutdown_offset| Heartbeat {
        want_shutdown: true,
        lowest_offset_of_others: others,
        shutdown_offset,
        ..beat(image, 1)
    };
    let decision = heartbeat(&image, &policy, &leaving(&image, None, None)).unwrap();
    let answer = commit(&mut image, decision);
    assert!(answer.in_controlled_shutdown && !answer.should_shut_down && !answer.is_fenced);
    let moved = image.next_offset();
    assert_eq!(partition(&image, "t").leader, Some(id(2)));
    assert_eq!(partition(&image, "t").isr, ids(&[2, 3]));
    assert_eq!(partition(&image, "follows").isr, ids(&[2]));
    assert_eq!(partition(&image, "alone").leader, Some(id(1)), "nobody else can");

    // KIP-841: it does not come back into the ISR, and gets nothing new to lead.
    let request = isr_request(&image, "t", &[1, 2, 3]);
    assert_eq!(alter(&mut image, &policy, &request), Err(ErrorCode::IneligibleReplica));
    let created = create(&mut image, &[NewTopic { replication_factor: 3, ..topic("new", 3) }]);
    assert!(created[0].is_ok());
    let new = &image.topic("new").unwrap().partitions;
    assert!(new.iter().all(|state| state.leader != Some(id(1)) && !state.isr.contains(&id(1))));

    let before = Offset::new(moved.get() - 1);
    let early = leaving(&image, Some(before), Some(moved));
    let decision = heartbeat(&image, &policy, &early).unwrap();
    assert!(decision.records.is_empty() && !decision.answer.should_shut_down, "others do not know yet");
    let decision = heartbeat(&image, &policy, &leaving(&image, Some(moved), Some(moved))).unwrap();
    let answer = commit(&mut image, decision);
    assert!(answer.should_shut_down && answer.is_fenced);
    let state = partition(&image, "alone");
    assert_eq!((state.leader, &state.elr[..]), (None, &ids(&[1])[..]));
    let again = heartbeat(&image, &policy, &leaving(&image, None, None)).unwrap();
    assert!(again.answer.should_shut_down && again.records.is_empty());
    register(&mut image, &policy, 1, true);
    unfence(&mut image, &policy, 1);
    assert_eq!(partition(&image, "alone").leader, Some(id(1)));
}

/// A partition that gets a second in-sync replica during a controlled shutdown is handed over to it.
#[test]
fn a_leader_on_its_way_out_may_ask_for_a_successor() {
    let (mut image, policy) = three();
    assigned(&mut image, "u", &[1, 2], &[]);
    set_isr(&mut image, &policy, "u", &[1]);
    let leaving = Heartbeat { want_shutdown: true, ..beat(&image, 1) };
    let decision = heartbeat(&image, &policy, &leaving).unwrap();
    commit(&mut image, decision);
    assert_eq!(partition(&image, "u").leader, Some(id(1)));
    let request = isr_request(&image, "u", &[1]);
    assert!(alter(&mut image, &policy, &request).is_ok());
    let request = isr_request(&image, "u", &[1, 2]);
    assert_eq!(alter(&mut image, &policy, &request), Err(ErrorCode::NewLeaderElected));
    assert_eq!(partition(&image, "u").leader, Some(id(2)));
}

#[test]
fn alter_partition_has_kafkas_codes() {
    let (mut image, policy) = three();
    fence(&mut image, &policy, 3);
    let good = isr_request(&image, "t", &[1, 2]);
    let changed = |change: &dyn Fn(&mut PartitionIsr)| {
        let mut request = good.clone();
        change(&mut request.topics[0].partitions[0]);
        alter_partition(&image, &policy, &request).unwrap().answer.remove(0).remove(0).unwrap_err()
    };
    let codes = [
        (changed(&|asked| asked.partition = 7), ErrorCode::UnknownTopicOrPartition),
        (changed(&|asked| asked.leader_epoch = LeaderEpoch::new(9)), ErrorCode::NotController),
        (changed(&|asked| asked.partition_epoch = PartitionEpoch::new(9)), ErrorCode::NotController),
        (changed(&|asked| asked.leader_epoch = LeaderEpoch::new(-1)), ErrorCode::FencedLeaderEpoch),
        (changed(&|asked| asked.partition_epoch = PartitionEpoch::new(0)), ErrorCode::InvalidUpdateVersion),
        (changed(&|asked| asked.isr.clear()), ErrorCode::InvalidRequest),
        (changed(&|asked| asked.isr = asked.isr.split_off(1)), ErrorCode::InvalidRequest),
        (changed(&|asked| asked.isr[1].broker_id = id(1)), ErrorCode::InvalidRequest),
        (changed(&|asked| asked.isr[1].broker_id = id(9)), ErrorCode::InvalidRequest),
        (changed(&|asked| asked.recovering = true), ErrorCode::InvalidRequest),
        (changed(&|asked| asked.isr[1].broker_epoch = BrokerEpoch::new(0)), ErrorCode::IneligibleReplica),
        (
            changed(&|asked| {
                let broker_epoch = epoch(&image, 3);
                asked.isr.push(IsrMember { broker_id: id(3), broker_epoch });
            }),
            ErrorCode::IneligibleReplica,
        ),
    ];
    for (place, (found, expected)) in codes.into_iter().enumerate() {
        assert_eq!(found, expected, "case {place}");
    }
    let mut from_another = good.clone();
    (from_another.broker_id, from_another.broker_epoch) = (id(2), epoch(&image, 2));
    assert_eq!(alter(&mut image, &policy, &from_another), Err(ErrorCode::InvalidRequest));
    let mut unknown = good.clone();
    unknown.topics[0].topic_id = TopicId::random();
    assert_eq!(alter(&mut image, &policy, &unknown), Err(ErrorCode::UnknownTopicId));
    let mut stale = good.clone();
    stale.broker_epoch = BrokerEpoch::new(0);
    let code = |request: &AlterPartition| alter_partition(&image, &policy, request).unwrap_err().code;
    assert_eq!(code(&stale), ErrorCode::StaleBrokerEpoch);
    stale.broker_id = id(9);
    assert_eq!(code(&stale), ErrorCode::StaleBrokerEpoch);

    // A change, the same again, twice in one request.
    let shrinks = isr_request(&image, "t", &[1]);
    let answer = alter(&mut image, &policy, &shrinks).unwrap();
    assert_eq!((answer.isr.clone(), answer.partition_epoch.get()), (ids(&[1]), 2));
    let mut same = isr_request(&image, "t", &[1]);
    let decision = alter_partition(&image, &policy, &same).unwrap();
    assert!(decision.records.is_empty());
    assert_eq!(decision.answer, [[Ok(answer)]]);
    let twin = same.topics[0].partitions[0].clone();
    same.topics[0].partitions.push(twin);
    let decision = alter_partition(&image, &policy, &same).unwrap();
    assert_eq!(decision.answer[0][1], Err(ErrorCode::InvalidUpdateVersion));
}

/// KIP-903: a leader that has not seen a fetch yet may keep whom it found in the ISR, and add nobody.
#[test]
fn an_unknown_incarnation_stays_but_does_not_enter() {
    let (mut image, policy) = three();
    let mut request = isr_request(&image, "t", &[1, 2]);
    request.topics[0].partitions[0].isr[1].broker_epoch = BrokerEpoch::new(-1);
    assert!(alter(&mut image, &policy, &request).is_ok());
    let mut request = isr_request(&image, "t", &[1, 2, 3]);
    request.topics[0].partitions[0].isr[2].broker_epoch = BrokerEpoch::new(-1);
    assert_eq!(alter(&mut image, &policy, &request), Err(ErrorCode::IneligibleReplica));
}

fn elect_codes(decision: &Decision<Vec<ElectionResult>>) -> Vec<ErrorCode> {
    let code = |result: &ElectionResult| result.result.as_ref().err().map_or(ErrorCode::None, |e| e.code);
    decision.answer.iter().map(code).collect()
}

#[test]
fn elections_have_kafkas_codes() {
    let (mut image, policy) = three();
    let of = |topic: &str, partition| PartitionRef { topic: topic.to_owned(), partition };
    let named = [of("t", 0), of("t", 1), of("u", 0), of("t", 0)];
    let run = |image: &MetadataImage, kind, named: &[PartitionRef]| {
        elect_leaders(image, &policy, kind, Some(named))
    };
    let codes = elect_codes(&run(&image, ElectionKind::Preferred, &named));
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [ErrorCode::ElectionNotNeeded, unknown, unknown, ErrorCode::InvalidRequest]);
    fence(&mut image, &policy, 1);
    let codes = elect_codes(&run(&image, ElectionKind::Preferred, &named[..1]));
    assert_eq!(codes, [ErrorCode::PreferredLeaderNotAvailable]);
    assert_eq!(elect_codes(&run(&image, ElectionKind::Unclean, &named[..1])), [ErrorCode::ElectionNotNeeded]);
    unfence(&mut image, &policy, 1);
    set_isr(&mut image, &policy, "t", &[1, 2]);
    let decision = elect_leaders(&image, &policy, ElectionKind::Preferred, None);
    assert_eq!(elect_codes(&decision), [ErrorCode::None]);
    commit(&mut image, decision);
    assert_eq!(partition(&image, "t").leader, Some(id(1)));
    let all = elect_leaders(&image, &policy, ElectionKind::Preferred, None);
    assert!(all.answer.is_empty(), "those that need none are not spoken of");

    // Only 3 is there, and it was not in sync.
    for broker in [3, 2, 1] {
        fence(&mut image, &policy, broker);
    }
    let decision = run(&image, ElectionKind::Unclean, &named[..1]);
    assert_eq!(elect_codes(&decision), [ErrorCode::EligibleLeadersNotAvailable]);
    unfence(&mut image, &policy, 3);
    assert_eq!(partition(&image, "t").leader, None);
    assert!(elect_where_unclean_is_allowed(&image, &policy, 9).records.is_empty());
    let decision = run(&image, ElectionKind::Unclean, &named[..1]);
    assert_eq!(elect_codes(&decision), [ErrorCode::None]);
    let mut operators = image.clone();
    commit(&mut operators, decision);
    assert!(partition(&operators, "t").recovering);
    let change = ConfigChange {
        name: "unclean.leader.election.enable".to_owned(),
        operation: ConfigOperation::Set,
        value: Some("true".to_owned()),
    };
    let decision = alter_configs(&image, &on_topic("t"), &[change], &policy).unwrap();
    commit(&mut image, decision);
    let decision = elect_where_unclean_is_allowed(&image, &policy, 9);
    assert_eq!(commit(&mut image, decision).len(), 1);
    assert_eq!(partition(&image, "t").leader, Some(id(3)));
}

#[test]
fn leaders_go_back_where_too_many_are_elsewhere() {
    let (mut image, policy) = (image(2), policy());
    for name in ["a", "b", "c", "d"] {
        assigned(&mut image, name, &[1, 2], &[]);
    }
    fence(&mut image, &policy, 1);
    unfence(&mut image, &policy, 1);
    for name in ["a", "b"] {
        set_isr(&mut image, &policy, name, &[1, 2]);
    }
    assert_eq!(rebalance_leaders(&image, &policy, 100, 9).answer, 0, "all of them are not more than all");
    assert_eq!(rebalance_leaders(&image, &policy, 10, 1).answer, 1, "the limit");
    let decision = rebalance_leaders(&image, &policy, 10, 9);
    assert_eq!(commit(&mut image, decision), 2, "only where 1 is in sync");
    assert_eq!(partition(&image, "a").leader, Some(id(1)));
    assert_eq!(partition(&image, "c").leader, Some(id(2)));
    set_isr(&mut image, &policy, "c", &[2, 1]);
    assert_eq!(rebalance_leaders(&image, &policy, 50, 9).answer, 0, "half is not more than half");
    assert_eq!(rebalance_leaders(&image, &policy, 49, 9).answer, 1);
}

/// KAFKA-16540.
#[test]
fn another_min_isr_makes_nobody_eligible() {
    let (mut image, policy) = three();
    for broker in [3, 2] {
        fence(&mut image, &policy, broker);
    }
    assert_eq!(partition(&image, "t").elr, ids(&[2]));
    let change = |name: &str, value: &str| ConfigChange {
        name: name.to_owned(),
        operation: ConfigOperation::Set,
        value: Some(value.to_owned()),
    };
    let other = alter_configs(&image, &on_topic("t"), &[change("retention.ms", "5")], &policy).unwrap();
    assert_eq!(other.records.len(), 1);
    let same =
        alter_configs(&image, &on_topic("t"), &[change("min.insync.replicas", " 2")], &policy).unwrap();
    assert_eq!(same.records.len(), 1, "the same number, written otherwise");
    let less = alter_configs(&image, &on_topic("t"), &[change("min.insync.replicas", "1")], &policy).unwrap();
    let mut with_less = image.clone();
    commit(&mut with_less, less);
    assert!(partition(&with_less, "t").elr.is_empty());
    assert_eq!(epochs(partition(&with_less, "t")), (0, 3));
    // Nothing was acknowledged while nobody was in sync: they are all there is.
    fence(&mut image, &policy, 1);
    assert_eq!(partition(&image, "t").elr, ids(&[2, 1]));
    let decision = replace_configs(&image, &on_topic("t"), &[], &policy).unwrap();
    commit(&mut image, decision);
    assert_eq!(partition(&image, "t").elr, ids(&[2, 1]));
    unfence(&mut image, &policy, 2);
    let state = partition(&image, "t");
    assert_eq!((state.leader, &state.isr[..], state.elr.len()), (Some(id(2)), &ids(&[2])[..], 0));
}

/// Another default of `min.insync.replicas` after a restart: who was eligible lacks what one alone acknowledged.
#[test]
fn a_stored_elr_does_not_count_while_enough_are_in_sync() {
    let mut image = image(3);
    assigned(&mut image, "t", &[1, 2, 3], &[]);
    let mut two = policy();
    two.defaults.configs.insert("min.insync.replicas".to_owned(), "2".to_owned());
    for broker in [3, 2] {
        fence(&mut image, &two, broker);
    }
    assert_eq!(partition(&image, "t").elr, ids(&[2]));
    let one = policy();
    unfence(&mut image, &one, 2);
    fence(&mut image, &one, 1);
    let state = partition(&image, "t");
    assert_eq!((state.leader, &state.elr[..]), (None, &ids(&[1])[..]));
}

fn reassign(
    image: &mut MetadataImage,
    policy: &ClusterPolicy,
    target: Option<&[i32]>,
    any_factor: bool,
) -> Result<(), ErrorCode> {
    let partition = PartitionRef { topic: "t".to_owned(), partition: 0 };
    let asked = Reassignment { partition, replicas: target.map(ids) };
    let decision = alter_partition_reassignments(image, policy, &[asked], any_factor);
    commit(image, decision).remove(0).map_err(|error| error.code)
}

#[test]
fn a_reassignment_keeps_the_old_replicas_until_the_new_are_in_sync() {
    let (mut image, policy) = (image(6), policy());
    assigned(&mut image, "t", &[1, 2, 3], MIN_2);
    reassign(&mut image, &policy, Some(&[4, 5, 3]), false).unwrap();
    let state = partition(&image, "t");
    assert_eq!(state.replicas, ids(&[4, 5, 3, 1, 2]));
    assert_eq!(
        (&state.adding_replicas[..], &state.removing_replicas[..]),
        (&ids(&[4, 5])[..], &ids(&[1, 2])[..])
    );
    assert_eq!((state.leader, epochs(state)), (Some(id(1)), (0, 1)));
    let listed = list_partition_reassignments(&image, None);
    assert_eq!((listed.len(), &listed[0].adding[..]), (1, &ids(&[4, 5])[..]));
    let of = |topic: &str| PartitionRef { topic: topic.to_owned(), partition: 0 };
    assert_eq!(list_partition_reassignments(&image, Some(&[of("t"), of("t"), of("u")])).len(), 1);
    set_isr(&mut image, &policy, "t", &[1, 2, 3, 4]);
    assert_eq!(partition(&image, "t").replicas.len(), 5);
    let request = isr_request(&image, "t", &[1, 2, 3, 4, 5]);
    assert_eq!(alter(&mut image, &policy, &request), Err(ErrorCode::NewLeaderElected));
    let state = partition(&image, "t");
    assert_eq!((&state.replicas[..], &state.isr[..]), (&ids(&[4, 5, 3])[..], &ids(&[3, 4, 5])[..]));
    assert_eq!((state.leader, epochs(state)), (Some(id(4)), (1, 3)));
    assert!(!state.is_reassigning());
}

#[test]
fn a_reassignment_can_be_undone_or_overtaken() {
    let (mut image, policy) = (image(7), policy());
    assigned(&mut image, "t", &[1, 2, 3], MIN_2);
    assert_eq!(reassign(&mut image, &policy, None, true), Err(ErrorCode::NoReassignmentInProgress));
    reassign(&mut image, &policy, Some(&[4, 5, 6]), true).unwrap();
    set_isr(&mut image, &policy, "t", &[1, 2, 3, 4]);
    let mut undone = image.clone();
    reassign(&mut undone, &policy, None, true).unwrap();
    let state = partition(&undone, "t");
    assert_eq!((&state.replicas[..], &state.isr[..]), (&ids(&[1, 2, 3])[..], &ids(&[1, 2, 3])[..]));
    assert_eq!(epochs(state), (1, 3), "rule 1: replicas left the assignment");
    // Another target: what was only on the way goes at once, and is not what undoing leads back to.
    reassign(&mut image, &policy, Some(&[1, 2, 7]), true).unwrap();
    let state = partition(&image, "t");
    assert_eq!(state.replicas, ids(&[1, 2, 7, 3]));
    assert_eq!((&state.adding_replicas[..], &state.removing_replicas[..]), (&ids(&[7])[..], &ids(&[3])[..]));
    assert_eq!(state.isr, ids(&[1, 2, 3]));
    reassign(&mut image, &policy, None, true).unwrap();
    assert_eq!(partition(&image, "t").replicas, ids(&[1, 2, 3]));
}

/// KAFKA-9672 and KAFKA-19975: the ISR stays within the replicas, and what cannot be undone is not.
#[test]
fn undoing_does_not_drop_the_only_replica_with_the_records() {
    let (mut image, policy) = (image(4), policy());
    assigned(&mut image, "t", &[1, 2, 3], &[]);
    reassign(&mut image, &policy, Some(&[4, 2, 3]), true).unwrap();
    set_isr(&mut image, &policy, "t", &[1]);
    // Rule 13 off: the new ones replace the old at once.
    let lax = ClusterPolicy { rules: Rules::ALL.without(Rule::Reassignment), ..policy.clone() };
    let mut broken = image.clone();
    reassign(&mut broken, &lax, Some(&[4, 2, 3]), true).unwrap();
    assert_eq!(partition(&broken, "t").replicas, ids(&[4, 2, 3]));

    fence(&mut image, &policy, 2);
    fence(&mut image, &policy, 3);
    let mut shrunk = isr_request(&image, "t", &[1, 4]);
    assert_eq!(
        alter(&mut image, &policy, &shrunk),
        Err(ErrorCode::NewLeaderElected),
        "4 is all that was missing"
    );
    assert_eq!(partition(&image, "t").isr, ids(&[4]));
    unfence(&mut image, &policy, 2);
    reassign(&mut image, &policy, Some(&[1, 2, 3]), true).unwrap();
    shrunk = isr_request(&image, "t", &[4]);
    alter(&mut image, &policy, &shrunk).unwrap();
    reassign(&mut image, &policy, None, true).unwrap();
    assert_eq!(partition(&image, "t").isr, ids(&[4]));
    reassign(&mut image, &policy, Some(&[4, 2, 3, 1]), true).unwrap();
    let added = isr_request(&image, "t", &[4, 1]);
    assert_eq!(alter(&mut image, &policy, &added).map(|_| ()), Ok(()), "complete, the leader stays");
    assert!(!partition(&image, "t").is_reassigning());
    reassign(&mut image, &policy, Some(&[2]), true).unwrap();
    assert!(partition(&image, "t").is_reassigning(), "fewer than before: all that remain must be in sync");
}

#[test]
fn undoing_that_would_lose_records_is_refused() {
    let (mut image, policy) = (image(4), policy());
    assigned(&mut image, "t", &[1, 2], &[]);
    reassign(&mut image, &policy, Some(&[3, 4]), true).unwrap();
    set_isr(&mut image, &policy, "t", &[1, 2, 3]);
    fence(&mut image, &policy, 1);
    fence(&mut image, &policy, 2);
    assert_eq!(partition(&image, "t").isr, ids(&[3]));
    assert_eq!(reassign(&mut image, &policy, None, true), Err(ErrorCode::InvalidReplicaAssignment));
    fence(&mut image, &policy, 3);
    assert_eq!(partition(&image, "t").elr, ids(&[3]));
    assert_eq!(reassign(&mut image, &policy, None, true), Err(ErrorCode::InvalidReplicaAssignment));
}

#[test]
fn bad_reassignments_have_kafkas_codes() {
    let (mut image, policy) = three();
    let before = image.clone();
    for (target, any_factor, code) in [
        (&[][..], true, ErrorCode::InvalidReplicaAssignment),
        (&[1, 1], true, ErrorCode::InvalidReplicaAssignment),
        (&[1, 9], true, ErrorCode::InvalidReplicaAssignment),
        (&[1, 2], false, ErrorCode::InvalidReplicationFactor),
    ] {
        assert_eq!(reassign(&mut image, &policy, Some(target), any_factor), Err(code), "{target:?}");
    }
    assert_eq!(image, before);
    let of = |topic: &str, partition| Reassignment {
        partition: PartitionRef { topic: topic.to_owned(), partition },
        replicas: Some(ids(&[3, 2, 1])),
    };
    let asked = [of("u", 0), of("t", 1), of("t", 0), of("t", 0)];
    let decision = alter_partition_reassignments(&image, &policy, &asked, true);
    let codes: Vec<_> =
        decision.answer.iter().map(|a| a.as_ref().err().map_or(ErrorCode::None, |e| e.code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [unknown, unknown, ErrorCode::None, ErrorCode::InvalidRequest]);
    commit(&mut image, decision);
    let state = partition(&image, "t");
    assert_eq!(
        (&state.replicas[..], state.is_reassigning()),
        (&ids(&[3, 2, 1])[..], false),
        "a new order only"
    );
}

#[test]
fn only_fenced_brokers_are_unregistered() {
    let (mut image, policy) = three();
    let code = |image: &MetadataImage, broker| {
        unregister_broker(image, &policy, id(broker)).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(code(&image, 9), Err(ErrorCode::BrokerIdNotRegistered));
    assert_eq!(code(&image, 3), Err(ErrorCode::InvalidRequest));
    for broker in [2, 3] {
        fence(&mut image, &policy, broker);
    }
    assert_eq!(partition(&image, "t").elr, ids(&[3]));
    let decision = unregister_broker(&image, &policy, id(3)).unwrap();
    commit(&mut image, decision);
    assert!(image.broker(id(3)).is_none());
    assert!(partition(&image, "t").elr.is_empty(), "should it come back, it is a new broker");
    let plan = drain_broker(&image, id(3)).unwrap_err();
    assert_eq!(plan.code, ErrorCode::InvalidReplicationFactor, "2 has one already, 1 too");
}

#[test]
fn new_partitions_do_not_wait_for_fenced_brokers() {
    let (mut image, policy) = (image(3), policy());
    fence(&mut image, &policy, 3);
    let three = NewTopic { replication_factor: 3, ..topic("three", 4) };
    let two = NewTopic { replication_factor: 2, ..topic("two", 4) };
    let four = NewTopic { replication_factor: 4, ..topic("four", 1) };
    let answers = create(&mut image, &[three, two, four]);
    assert_eq!(answers[2], Err(ErrorCode::InvalidReplicationFactor));
    for state in &image.topic("three").unwrap().partitions {
        assert_eq!((state.replicas.len(), state.isr.len()), (3, 2));
        assert!(!state.isr.contains(&id(3)) && state.leader != Some(id(3)) && state.elr.is_empty());
    }
    assert!(image.topic("two").unwrap().partitions.iter().all(|state| !state.replicas.contains(&id(3))));
    for broker in [1, 2] {
        fence(&mut image, &policy, broker);
    }
    assert_eq!(create(&mut image, &[topic("none", 1)])[0], Err(ErrorCode::InvalidReplicationFactor));
    let assignments = vec![Assignment { partition: 0, brokers: ids(&[1]) }];
    let manual = NewTopic { assignments, ..topic("manual", -1) };
    assert_eq!(create(&mut image, &[manual])[0], Err(ErrorCode::InvalidReplicaAssignment));
    let more = MorePartitions { name: "two".to_owned(), count: 5, assignments: None };
    let decision = create_partitions(&image, &[more]);
    assert_eq!(decision.answer[0].as_ref().unwrap_err().code, ErrorCode::InvalidReplicationFactor);
}

/// Brokers of racks, in service.
fn racks(racks: &[Option<u8>]) -> MetadataImage {
    let mut image = image(0);
    for (id, rack) in (1..).zip(racks) {
        let broker = RegisterBroker { rack: rack.map(|rack| format!("r{rack}")), ..broker(id) };
        let decision = register_single_broker(&image, &broker, true);
        commit(&mut image, decision);
    }
    image
}

fn spread(counts: &BTreeMap<BrokerId, usize>) -> usize {
    counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
}

fn replica_counts(image: &MetadataImage) -> BTreeMap<BrokerId, usize> {
    let mut counts: BTreeMap<_, _> = image.brokers().map(|broker| (broker.id, 0)).collect();
    for partition in image.topics().flat_map(|topic| &topic.partitions) {
        partition.goal().for_each(|replica| *counts.entry(replica).or_default() += 1);
    }
    counts
}

fn rack_count(image: &MetadataImage, replicas: &[BrokerId]) -> usize {
    let racks: std::collections::BTreeSet<_> =
        replicas.iter().map(|id| image.broker(*id).unwrap().rack.clone()).collect();
    racks.len()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every partition is on as many racks as can be; where the racks are alike, brokers have as much as one another.
    #[test]
    fn placement_is_over_racks_and_even(
        per_rack in 1..4u8, racks_n in 1..4u8, partitions in 1..30i32, factor in 1..4i16, topics in 1..4,
    ) {
        let all: Vec<_> = (0..per_rack * racks_n).map(|broker| Some(broker % racks_n)).collect();
        let mut image = racks(&all);
        if factor as usize > all.len() {
            return Ok(());
        }
        let asked: Vec<_> = (0..topics)
            .map(|n| NewTopic { replication_factor: factor, ..topic(&format!("t{n}"), partitions) })
            .collect();
        prop_assert!(create(&mut image, &asked).iter().all(Result::is_ok));
        let widest = (factor as usize).min(racks_n as usize);
        for topic in image.topics() {
            let mut led: BTreeMap<_, _> = image.brokers().map(|broker| (broker.id, 0)).collect();
            for partition in &topic.partitions {
                prop_assert_eq!(rack_count(&image, &partition.replicas), widest);
                *led.get_mut(&partition.leader.unwrap()).unwrap() += 1;
            }
            prop_assert!(spread(&led) <= 1, "leaders {led:?}");
        }
        let counts = replica_counts(&image);
        prop_assert!(spread(&counts) <= 2, "replicas {counts:?}");
    }

    /// A drained broker has nothing left, racks stay as wide, and the rest is even; a new broker gets its share.
    #[test]
    fn drained_and_balanced_clusters_are_even(partitions in 1..24i32, drained in 1..7i32) {
        let all: Vec<_> = (0..6u8).map(|broker| Some(broker % 3)).collect();
        let (mut image, policy) = (racks(&all), policy());
        let asked = NewTopic { replication_factor: 3, ..topic("t", partitions) };
        create(&mut image, &[asked]).remove(0).unwrap();
        let plan = drain_broker(&image, id(drained)).unwrap();
        let decision = alter_partition_reassignments(&image, &policy, &plan, false);
        prop_assert!(commit(&mut image, decision).iter().all(Result::is_ok));
        prop_assert_eq!(replica_counts(&image)[&id(drained)], 0);
        for partition in &image.topic("t").unwrap().partitions {
            prop_assert_eq!(rack_count(&image, &partition.goal().collect::<Vec<_>>()), 3);
        }

        let mut image = racks(&all[..3]);
        let asked = NewTopic { replication_factor: 2, ..topic("t", partitions) };
        create(&mut image, &[asked]).remove(0).unwrap();
        for new in 4..=6 {
            let broker = RegisterBroker { rack: Some(format!("r{}", (new - 1) % 3)), ..broker(new) };
            let decision = register_single_broker(&image, &broker, true);
            commit(&mut image, decision);
        }
        let plan = balance(&image, usize::MAX);
        let decision = alter_partition_reassignments(&image, &policy, &plan, false);
        prop_assert!(commit(&mut image, decision).iter().all(Result::is_ok));
        let counts = replica_counts(&image);
        prop_assert!(spread(&counts) <= 2, "{counts:?}");
        for partition in &image.topic("t").unwrap().partitions {
            prop_assert_eq!(rack_count(&image, &partition.goal().collect::<Vec<_>>()), 2);
        }
    }
}
