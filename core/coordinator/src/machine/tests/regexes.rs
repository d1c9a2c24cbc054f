//! Subscriptions by regular expression.

use towpath_wire::ConsumerGroupHeartbeatRequest;

use super::consumers::{beat_request, join_request, partitions_of, world};
use super::*;

fn joining(member: &str, regex: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(regex.into()),
        ..join_request(member, &[])
    }
}

fn changing(member: &str, epoch: i32, regex: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some(regex.into()),
        ..beat_request(member, epoch)
    }
}

/// Resolves what the machine wants resolved; how many groups that were.
fn resolve(world: &mut World) -> usize {
    let mut groups = 0;
    while let Some((group, expressions)) = world.resolving.pop_front() {
        let resolved = resolve_regexes(&expressions, &*world.machine.topics());
        world.act(|machine, now, out| machine.regexes_resolved(now, &group, resolved, out));
        groups += 1;
    }
    groups
}

#[test]
fn topics_are_found_beside_the_heartbeat() {
    let (mut world, _) = world();
    let response = world.beat_with(joining("a", "ord.*|nothing"));
    assert_eq!((response.error_code, response.member_epoch), (0, 1));
    assert_eq!(partitions_of(&response), Some(vec![]), "it is not known yet");
    assert_eq!(resolve(&mut world), 1);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Assigning, 2));
    assert_eq!(world.beat_as("a", 1, &[]), (2, Some(vec![0, 1, 2, 3])));
    assert_eq!(resolve(&mut world), 0);
    // Who brings the same expression finds it resolved.
    let response = world.beat_with(joining("b", "ord.*|nothing"));
    assert_eq!(response.member_epoch, 3);
    assert_eq!(resolve(&mut world), 0);
    let described = world.machine.describe_consumer_group("g");
    assert_eq!(described.members[0].subscribed_topic_regex.as_deref(), Some("ord.*|nothing"));
    assert_eq!(described, world.restarted().machine.describe_consumer_group("g"));
}

#[test]
fn bad_expressions_are_refused() {
    let (mut world, _) = world();
    for bad in ["(", "a)(b", "[z-a]", &"a".repeat(5_000), r"(?=a)b"] {
        assert_eq!(world.beat_error(joining("a", bad)), ErrorCode::InvalidRegularExpression, "{bad}");
    }
    assert_eq!(world.machine.stats(), MachineStats::default());
    for number in 0..100 {
        let request = joining(&format!("m{number}"), &format!("t{number}"));
        assert_eq!(world.beat_error(request), ErrorCode::None);
    }
    assert_eq!(world.beat_error(joining("more", "t100")), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.beat_error(joining("more", "t7")), ErrorCode::None, "the group has it");
}

#[test]
fn new_topics_are_noticed() {
    let (mut world, mut topics) = world();
    world.beat_with(joining("a", "ord.*"));
    resolve(&mut world);
    assert_eq!(world.beat_as("a", 1, &[]), (2, Some(vec![0, 1, 2, 3])));
    topics.set("ordinary", 1);
    world.set_topics(&topics);
    world.pass(10_000);
    world.beat_as("a", 2, &[]);
    assert_eq!(resolve(&mut world), 0, "not within ten seconds");
    world.pass(1);
    world.beat_as("a", 2, &[]);
    world.beat_as("a", 2, &[]);
    assert_eq!(resolve(&mut world), 1, "once, however many ask");
    assert_eq!(world.beat_as("a", 2, &[]), (3, Some(vec![0, 0, 1, 2, 3])));
    // Without any change they are looked at again after a while, which changes nothing.
    for _ in 0..60 {
        world.pass(10_001);
        world.beat_as("a", 3, &[]);
    }
    assert_eq!(resolve(&mut world), 1);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Stable, 3));
}

#[test]
fn an_expression_goes_with_its_last_member() {
    let (mut world, _) = world();
    world.beat_with(joining("a", "ord.*"));
    resolve(&mut world);
    world.beat_as("a", 1, &[]);
    let is_there = |world: &World| {
        let machine = &world.restarted().machine;
        machine.stats().bytes
    };
    let before = is_there(&world);
    let response = world.beat_with(changing("a", 2, ""));
    assert_eq!(
        (response.member_epoch, partitions_of(&response)),
        (2, Some(vec![])),
        "it is to give up everything"
    );
    assert!(is_there(&world) < before);
    assert_eq!(world.beat_as("a", 2, &[]), (3, None));
    // One that is on its way when its member goes is not taken in.
    world.pass(20_000);
    world.beat_with(changing("a", 3, "bil.*"));
    world.beat_with(beat_request("a", -1));
    assert_eq!(resolve(&mut world), 1);
    assert_eq!(world.consumer_state(), (ConsumerGroupState::Empty, 4));
    // And one of a group that is gone means nothing.
    let resolved = resolve_regexes(&["x".to_owned()], &*world.machine.topics());
    world.act(|machine, now, out| machine.regexes_resolved(now, "nobody", resolved, out));
}

#[test]
fn names_and_an_expression_go_together() {
    let (mut world, topics) = world();
    let both = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec!["bills".into()]),
        ..joining("a", "orders")
    };
    assert_eq!(partitions_of(&world.beat_with(both)), Some(vec![0, 1]));
    resolve(&mut world);
    let owned = super::consumers::owning(&topics, "bills", &[0, 1]);
    assert_eq!(world.beat_as("a", 1, &owned), (2, Some(vec![0, 0, 1, 1, 2, 3])));
    // A failed resolution is tried again.
    world.pass(11_000);
    world.beat_with(changing("a", 2, "nothing"));
    let (group, _) = world.resolving.pop_front().unwrap();
    world.act(|machine, now, out| machine.regexes_resolved(now, &group, ResolvedRegexes::default(), out));
    world.pass(11_000);
    world.beat_with(beat_request("a", 2));
    assert_eq!(resolve(&mut world), 1);
}
