use std::collections::BTreeMap;

use proptest::prelude::*;
use towpath_types::{BrokerId, LeaderEpoch, Offset, TopicId, limits};
use towpath_wire::ErrorCode;

use super::support::*;
use super::*;

#[test]
fn each_topic_is_judged_on_its_own() {
    let mut image = image(1);
    let configured = |name: &str, value: Option<&str>| NewTopic {
        configs: vec![(name.to_owned(), value.map(str::to_owned))],
        ..topic("configured", 1)
    };
    let answers = create(
        &mut image,
        &[
            topic("good", 3),
            topic("default", -1),
            topic("bad name", 1),
            topic("none", 0),
            topic("many", 10_001),
        ],
    );
    assert_eq!(answers[0].as_ref().unwrap().partitions, 3);
    assert_eq!(answers[1].as_ref().unwrap().partitions, 1);
    let errors: Vec<_> = answers[2..].iter().map(|answer| answer.clone().unwrap_err()).collect();
    assert_eq!(
        errors,
        [ErrorCode::InvalidTopicException, ErrorCode::InvalidPartitions, ErrorCode::InvalidPartitions]
    );
    assert_eq!(image.topic("good").unwrap().partitions.len(), 3);
    assert!(image.topic("none").is_none());

    assert_eq!(create(&mut image, &[topic("good", 1)])[0], Err(ErrorCode::TopicAlreadyExists));
    let twice = create(&mut image, &[topic("twice", 1), topic("twice", 1), topic("once", 1)]);
    assert_eq!(twice[0], Err(ErrorCode::InvalidRequest));
    assert_eq!(twice[1], Err(ErrorCode::InvalidRequest));
    assert!(twice[2].is_ok());
    let two = NewTopic { replication_factor: 2, ..topic("two", 1) };
    assert_eq!(create(&mut image, &[two])[0], Err(ErrorCode::InvalidReplicationFactor));
    let zero = NewTopic { replication_factor: 0, ..topic("zero", 1) };
    assert_eq!(create(&mut image, &[zero])[0], Err(ErrorCode::InvalidReplicationFactor));
    for (name, value) in [("retention.ms", Some("x")), ("nonsense", Some("1")), ("retention.ms", None)] {
        assert_eq!(create(&mut image, &[configured(name, value)])[0], Err(ErrorCode::InvalidConfig));
    }
    let created = create(&mut image, &[configured("retention.ms", Some("5"))]);
    assert_eq!(created[0].as_ref().unwrap().configs["retention.ms"], "5");
}

#[test]
fn names_that_kafkas_metrics_cannot_tell_apart_collide() {
    let mut image = image(1);
    assert!(create(&mut image, &[topic("a.b", 1)])[0].is_ok());
    assert_eq!(create(&mut image, &[topic("a_b", 1)])[0], Err(ErrorCode::InvalidTopicException));
    let both = create(&mut image, &[topic("c.d", 1), topic("c_d", 1)]);
    assert!(both[0].is_ok());
    assert_eq!(both[1], Err(ErrorCode::InvalidTopicException));
}

#[test]
fn manual_assignments_are_checked() {
    let mut image = image(3);
    let assigned = |name: &str, partitions: &[(i32, &[i32])]| NewTopic {
        assignments: partitions
            .iter()
            .map(|(partition, brokers)| Assignment {
                partition: *partition,
                brokers: brokers.iter().map(|id| BrokerId::new(*id)).collect(),
            })
            .collect(),
        ..topic(name, -1)
    };
    let good = create(&mut image, &[assigned("good", &[(1, &[3, 1]), (0, &[2, 3])])]);
    assert_eq!(good[0].as_ref().unwrap().replication_factor, 2);
    let partitions = &image.topic("good").unwrap().partitions;
    assert_eq!(partitions[0].leader, Some(BrokerId::new(2)));
    assert_eq!(partitions[1].replicas, [BrokerId::new(3), BrokerId::new(1)]);
    let bad: [&[(i32, &[i32])]; 6] = [
        &[(0, &[])],
        &[(0, &[1, 1])],
        &[(0, &[9])],
        &[(1, &[1])],
        &[(0, &[1]), (0, &[2])],
        &[(0, &[1]), (1, &[1, 2])],
    ];
    for partitions in bad {
        let answer = create(&mut image, &[assigned("bad", partitions)]);
        assert_eq!(answer[0], Err(ErrorCode::InvalidReplicaAssignment), "{partitions:?}");
    }
    let contradictory = NewTopic { partitions: 1, ..assigned("bad", &[(0, &[1])]) };
    assert_eq!(create(&mut image, &[contradictory])[0], Err(ErrorCode::InvalidRequest));
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let mut image = image(1);
    let created = create(&mut image, &[topic("a", 1), topic("b", 1), topic("c", 1)]);
    let id = |index: usize| created[index].as_ref().unwrap().id;
    let by_name = |name: &str| DeleteTarget { name: Some(name.to_owned()), id: TopicId::ZERO };
    let by_id = |id| DeleteTarget { name: None, id };
    let targets = [
        by_name("a"),
        by_id(id(1)),
        by_name("nothing"),
        by_id(TopicId::random()),
        by_id(TopicId::ZERO),
        DeleteTarget { name: Some("c".to_owned()), id: id(2) },
    ];
    let decision = delete_topics(&image, &targets);
    let answers = commit(&mut image, decision);
    assert_eq!(answers[0].as_ref().unwrap().id, id(0));
    assert_eq!(answers[1].as_ref().unwrap().name.as_str(), "b");
    let codes: Vec<_> = answers[2..].iter().map(|answer| answer.as_ref().unwrap_err().code).collect();
    assert_eq!(
        codes,
        [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicId,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidRequest
        ]
    );
    let twice = delete_topics(&image, &[by_name("c"), by_id(id(2))]);
    assert!(twice.records.is_empty());
    assert!(twice.answer.iter().all(|answer| answer.as_ref().unwrap_err().code == ErrorCode::InvalidRequest));
    let again = create(&mut image, &[topic("a", 1)]);
    assert_ne!(again[0].as_ref().unwrap().id, id(0), "a topic created again has another id");
}

#[test]
fn partitions_are_only_added() {
    let mut image = image(1);
    create(&mut image, &[topic("t", 2)]).remove(0).unwrap();
    let more = |name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>| MorePartitions {
        name: name.to_owned(),
        count,
        assignments: assignments.map(|all| {
            all.iter().map(|brokers| brokers.iter().map(|id| BrokerId::new(*id)).collect()).collect()
        }),
    };
    for (asked, code) in [
        (more("t", 2, None), ErrorCode::InvalidPartitions),
        (more("t", 1, None), ErrorCode::InvalidPartitions),
        (more("t", -1, None), ErrorCode::InvalidPartitions),
        (more("t", limits::PARTITIONS_PER_TOPIC_MAX + 1, None), ErrorCode::InvalidPartitions),
        (more("u", 3, None), ErrorCode::UnknownTopicOrPartition),
        (more("t", 4, Some(vec![vec![1]])), ErrorCode::InvalidReplicaAssignment),
        (more("t", 3, Some(vec![vec![2]])), ErrorCode::InvalidReplicaAssignment),
    ] {
        let decision = create_partitions(&image, std::slice::from_ref(&asked));
        assert!(decision.records.is_empty());
        assert_eq!(decision.answer[0].as_ref().unwrap_err().code, code, "{asked:?}");
    }
    let decision = create_partitions(&image, &[more("t", 5, None)]);
    assert!(commit(&mut image, decision)[0].is_ok());
    assert_eq!(image.topic("t").unwrap().partitions.len(), 5);
    let twice = create_partitions(&image, &[more("t", 6, None), more("t", 7, None)]);
    assert!(twice.answer.iter().all(|answer| answer.as_ref().unwrap_err().code == ErrorCode::InvalidRequest));
}

#[test]
fn configurations_change_all_or_nothing() {
    let mut image = image(1);
    create(&mut image, &[topic("t", 1)]).remove(0).unwrap();
    let policy = policy();
    let change = |name: &str, operation, value: Option<&str>| ConfigChange {
        name: name.to_owned(),
        operation,
        value: value.map(str::to_owned),
    };
    use ConfigOperation::{Append, Delete, Set, Subtract};
    let mut alter = |changes: &[ConfigChange]| {
        alter_configs(&image, &on_topic("t"), changes, &policy)
            .map(|decision| commit(&mut image, decision))
            .map(|()| image.topic("t").unwrap().configs.clone())
            .map_err(|error| error.code)
    };
    let configs =
        alter(&[change("retention.ms", Set, Some("5")), change("cleanup.policy", Append, Some("compact"))]);
    assert_eq!(configs.unwrap()["cleanup.policy"], "delete,compact");
    let configs = alter(&[
        change("cleanup.policy", Subtract, Some("delete")),
        change("retention.ms", Delete, None),
        change("nonsense", Delete, None),
    ]);
    assert_eq!(configs.unwrap(), BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]));
    for (changes, code) in [
        (vec![change("retention.ms", Append, Some("5"))], ErrorCode::InvalidConfig),
        (vec![change("nonsense", Set, Some("5"))], ErrorCode::InvalidConfig),
        (vec![change("retention.ms", Set, None)], ErrorCode::InvalidRequest),
        (vec![change("cleanup.policy", Subtract, Some("compact"))], ErrorCode::InvalidConfig),
        (
            vec![change("retention.ms", Set, Some("1")), change("retention.ms", Delete, None)],
            ErrorCode::InvalidRequest,
        ),
        (
            vec![change("segment.ms", Set, Some("1")), change("retention.ms", Set, Some("-7"))],
            ErrorCode::InvalidConfig,
        ),
    ] {
        assert_eq!(alter(&changes).unwrap_err(), code, "{changes:?}");
    }
    assert_eq!(image.topic("t").unwrap().configs.len(), 1, "a refused request changes nothing");
    let replaced =
        replace_configs(&image, &on_topic("t"), &[("segment.ms".to_owned(), Some("7".to_owned()))], &policy);
    commit(&mut image, replaced.unwrap());
    assert_eq!(
        image.topic("t").unwrap().configs,
        BTreeMap::from([("segment.ms".to_owned(), "7".to_owned())])
    );
    let unknown = alter_configs(&image, &on_topic("u"), &[], &policy).unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn an_unclean_stop_begins_new_leader_epochs() {
    let mut image = image(2);
    create(&mut image, &[topic("t", 4)]).remove(0).unwrap();
    let clean = register_single_broker(&image, &broker(1), true);
    assert_eq!(clean.records.len(), 1);
    let unclean = register_single_broker(&image, &broker(1), false);
    commit(&mut image, unclean);
    for partition in &image.topic("t").unwrap().partitions {
        let expected = i32::from(partition.leader == Some(BrokerId::new(1)));
        assert_eq!(partition.leader_epoch, LeaderEpoch::new(expected));
    }
}

#[test]
fn producer_ids_are_handed_out_once() {
    let mut image = image(2);
    let mut firsts = Vec::new();
    for id in [1, 2, 1] {
        let decision = allocate_producer_ids(&image, BrokerId::new(id)).unwrap();
        firsts.push(commit(&mut image, decision).first.get());
    }
    assert_eq!(firsts, [0, 1000, 2000]);
}

proptest! {
    /// Whatever is asked for, what is created has the shape that was asked for, on brokers that exist, and only once
    /// each per partition.
    #[test]
    fn placement_is_sound(brokers in 1..6i32, partitions in 1..20i32, factor in 1..6i16) {
        let mut image = image(brokers);
        let asked = NewTopic { replication_factor: factor, ..topic("t", partitions) };
        let answer = create(&mut image, &[asked]).remove(0);
        if i32::from(factor) > brokers {
            prop_assert_eq!(answer, Err(ErrorCode::InvalidReplicationFactor));
            return Ok(());
        }
        answer.unwrap();
        let topic = image.topic("t").unwrap();
        prop_assert_eq!(topic.partitions.len(), partitions as usize);
        let mut led = BTreeMap::new();
        for partition in &topic.partitions {
            let mut replicas = partition.replicas.clone();
            replicas.sort_unstable();
            replicas.dedup();
            prop_assert_eq!(replicas.len(), factor as usize);
            prop_assert_eq!(partition.leader, partition.replicas.first().copied());
            *led.entry(partition.leader).or_insert(0) += 1;
        }
        let (least, most) = (led.values().min().unwrap(), led.values().max().unwrap());
        prop_assert!(most - least <= 1 || led.len() < brokers as usize);
    }
}

/// KAFKA-19522: who is the last in sync may be on its way out, and lead nothing; it is remembered all the same.
#[test]
fn the_last_in_sync_is_remembered_although_it_could_not_lead() {
    let (mut image, policy) = (image(3), policy());
    assigned(&mut image, "u", &[1, 2], &[("min.insync.replicas", "2")]);
    set_isr(&mut image, &policy, "u", &[1]);
    let leaving =
        Heartbeat { want_shutdown: true, lowest_offset_of_others: Some(Offset::ZERO), ..beat(&image, 1) };
    let decision = heartbeat(&image, &policy, &leaving).unwrap();
    commit(&mut image, decision);
    let request = isr_request(&image, "u", &[1, 2]);
    assert_eq!(alter(&mut image, &policy, &request), Err(ErrorCode::NewLeaderElected));
    fence(&mut image, &policy, 2);
    let state = partition(&image, "u");
    assert_eq!((state.leader, &state.isr[..], &state.elr[..]), (None, &ids(&[1])[..], &ids(&[2])[..]));
    fence(&mut image, &policy, 1);
    for broker in [1, 2] {
        register(&mut image, &policy, broker, false);
    }
    let state = partition(&image, "u");
    assert!(state.isr.is_empty() && state.elr.is_empty());
    unfence(&mut image, &policy, 2);
    assert_eq!(partition(&image, "u").leader, None, "it left before the last one did");
    unfence(&mut image, &policy, 1);
    let state = partition(&image, "u");
    assert_eq!((state.leader, state.recovering), (Some(BrokerId::new(1)), true));
}

#[test]
fn a_reassignment_is_not_undone_if_that_drops_the_last_leader() {
    let (mut image, policy) = (image(2), policy());
    assigned(&mut image, "u", &[1], &[]);
    let of = PartitionRef { topic: "u".to_owned(), partition: 0 };
    let asked =
        |replicas: Option<&[i32]>| Reassignment { partition: of.clone(), replicas: replicas.map(ids) };
    let decision = alter_partition_reassignments(&image, &policy, &[asked(Some(&[2]))], true);
    commit(&mut image, decision);
    let decision = alter_partition_reassignments(&image, &policy, &[asked(Some(&[2, 1]))], true);
    commit(&mut image, decision);
    let state = partition(&image, "u");
    assert_eq!((&state.adding_replicas[..], &state.isr[..]), (&ids(&[2])[..], &ids(&[1])[..]));
    fence(&mut image, &policy, 1);
    register(&mut image, &policy, 1, false);
    let mut state = partition(&image, "u").clone();
    assert_eq!((state.leader, &state.last_known_elr[..]), (None, &ids(&[1])[..]));
    // As after an election of the replica that was being added.
    state.last_known_elr = ids(&[2]);
    state.partition_epoch = towpath_types::PartitionEpoch::new(state.partition_epoch.get() + 1);
    let topic_id = image.topic("u").unwrap().id;
    commit(
        &mut image,
        Decision { records: vec![MetadataRecord::Partition { topic_id, partition: 0, state }], answer: () },
    );
    let decision = alter_partition_reassignments(&image, &policy, &[asked(None)], true);
    assert_eq!(decision.answer[0].as_ref().unwrap_err().code, ErrorCode::InvalidReplicaAssignment);
}
