use towpath_types::BrokerId;
use towpath_wire::ErrorCode;

use super::super::support::*;
use super::super::{ClusterPolicy, set_cluster_defaults};
use super::*;

fn change(name: &str, operation: ConfigOperation, value: Option<&str>) -> ConfigChange {
    ConfigChange { name: name.to_owned(), operation, value: value.map(str::to_owned) }
}

fn set(name: &str, value: &str) -> ConfigChange {
    change(name, ConfigOperation::Set, Some(value))
}

fn map(pairs: &[(&str, &str)]) -> Configs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const ALL: ConfigTarget = ConfigTarget::Broker(None);
const ONE: ConfigTarget = ConfigTarget::Broker(Some(BrokerId::new(1)));

fn group(name: &str) -> ConfigTarget {
    ConfigTarget::Group(name.to_owned())
}

fn alter(
    image: &mut MetadataImage,
    policy: &ClusterPolicy,
    target: &ConfigTarget,
    changes: &[ConfigChange],
) -> Result<usize, ErrorCode> {
    let decision = alter_configs(image, target, changes, policy).map_err(|error| error.code)?;
    let count = decision.records.len();
    commit(image, decision);
    Ok(count)
}

#[test]
fn brokers_configurations_are_set_for_one_and_for_all() {
    let (mut image, policy) = (image(2), policy());
    let all = [set("log.retention.ms", "5"), set("follower.replication.throttled.rate", "1000")];
    assert_eq!(alter(&mut image, &policy, &ALL, &all), Ok(2));
    assert_eq!(alter(&mut image, &policy, &ALL, &all), Ok(0), "nothing differs");
    assert_eq!(alter(&mut image, &policy, &ONE, &[set("log.retention.ms", "7")]), Ok(1));
    let node = map(&[("retention.ms", "3"), ("segment.ms", "9")]);
    let defaults = |id| {
        let defaults = image.topic_defaults(BrokerId::new(id), &node).into_owned();
        (defaults["retention.ms"].clone(), defaults["segment.ms"].clone())
    };
    assert_eq!(defaults(1), ("7".to_owned(), "9".to_owned()));
    assert_eq!(defaults(2), ("5".to_owned(), "9".to_owned()));
    // A list goes out from what is in force: the default of all, the file's, the declared one.
    let append = change("log.cleanup.policy", ConfigOperation::Append, Some("compact"));
    assert_eq!(alter(&mut image, &policy, &ALL, &[append]), Ok(1));
    assert_eq!(image.dynamic_configs().broker(None)["log.cleanup.policy"], "delete,compact");
    let subtract = change("log.cleanup.policy", ConfigOperation::Subtract, Some("delete"));
    assert_eq!(alter(&mut image, &policy, &ONE, &[subtract]), Ok(1));
    let one = Some(BrokerId::new(1));
    assert_eq!(image.dynamic_configs().broker(one)["log.cleanup.policy"], "compact");
    // As a whole: what is not named goes back.
    let whole = [("log.segment.bytes".to_owned(), Some("1048576".to_owned()))];
    let decision = replace_configs(&image, &ONE, &whole, &policy).unwrap();
    assert_eq!(decision.records.len(), 3);
    commit(&mut image, decision);
    assert_eq!(*image.dynamic_configs().broker(one), map(&[("log.segment.bytes", "1048576")]));
    let gone = [change("log.segment.bytes", ConfigOperation::Delete, None)];
    assert_eq!(alter(&mut image, &policy, &ONE, &gone), Ok(1));
    assert_eq!(alter(&mut image, &policy, &ONE, &gone), Ok(0), "it is gone already");
    assert!(image.dynamic_configs().brokers().next().is_none());
}

#[test]
fn what_cannot_change_while_brokers_run_is_refused() {
    let (mut image, policy) = (image(2), policy());
    let nobody = ConfigTarget::Broker(Some(BrokerId::new(9)));
    for (target, changes, code) in [
        (&ALL, vec![set("num.partitions", "3")], ErrorCode::InvalidRequest),
        (&ONE, vec![set("log.retention.hours", "3")], ErrorCode::InvalidRequest),
        (&ALL, vec![set("background.threads", "3")], ErrorCode::InvalidRequest),
        (&ALL, vec![set("no.such.config", "3")], ErrorCode::InvalidRequest),
        (&ALL, vec![set("log.retention.ms", "soon")], ErrorCode::InvalidRequest),
        (&ONE, vec![set("min.insync.replicas", "2")], ErrorCode::InvalidConfig),
        (&ONE, vec![set("unclean.leader.election.enable", "true")], ErrorCode::InvalidConfig),
        (&nobody, vec![set("log.retention.ms", "3")], ErrorCode::InvalidRequest),
        (&ALL, vec![set("log.retention.ms", "3"), set("log.retention.ms", "4")], ErrorCode::InvalidRequest),
        (
            &ALL,
            vec![change("log.retention.ms", ConfigOperation::Append, Some("3"))],
            ErrorCode::InvalidConfig,
        ),
        (&ALL, vec![change("log.retention.ms", ConfigOperation::Set, None)], ErrorCode::InvalidRequest),
        (
            &ALL,
            vec![set("log.segment.bytes", "1048576"), set("num.io.threads", "9")],
            ErrorCode::InvalidRequest,
        ),
    ] {
        assert_eq!(alter(&mut image, &policy, target, &changes), Err(code), "{changes:?}");
    }
    let message = alter_configs(&image, &ALL, &[set("num.io.threads", "9")], &policy).unwrap_err().message;
    assert!(message.contains("num.io.threads") && message.contains("no pools"), "{message}");
    // Those of topics have to fit together with the new defaults.
    assigned(&mut image, "t", &[1], &[("max.compaction.lag.ms", "10")]);
    let lag = [set("log.cleaner.min.compaction.lag.ms", "11")];
    assert_eq!(alter(&mut image, &policy, &ALL, &lag), Err(ErrorCode::InvalidConfig));
    assert_eq!(alter(&mut image, &policy, &ONE, &[set("log.cleaner.min.compaction.lag.ms", "10")]), Ok(1));
    assert!(image.dynamic_configs().broker(None).is_empty(), "a refused request changes nothing");
}

#[test]
fn the_default_of_all_brokers_decides_who_may_be_elected() {
    let (mut image, policy) = (image(3), policy());
    let decision = set_cluster_defaults(&image, &policy, &map(&[("min.insync.replicas", "3")]));
    commit(&mut image, decision);
    assigned(&mut image, "t", &[1, 2, 3], &[]);
    assigned(&mut image, "own", &[1, 2, 3], &[("min.insync.replicas", "3")]);
    fence(&mut image, &policy, 2);
    assert_eq!(partition(&image, "t").elr, ids(&[2]));
    // Fewer have to be in sync: whoever was eligible by the old number is not any more (rule 11).
    assert_eq!(alter(&mut image, &policy, &ALL, &[set("min.insync.replicas", "2")]), Ok(2));
    assert!(partition(&image, "t").elr.is_empty());
    assert_eq!(partition(&image, "own").elr, ids(&[2]));
    assert_eq!(policy.topic(&image, image.topic("t").unwrap()).min_isr(3), 2);
    // A new active controller with another file does not undo it.
    let decision = set_cluster_defaults(&image, &policy, &map(&[("min.insync.replicas", "1")]));
    commit(&mut image, decision);
    assert_eq!(policy.topic(&image, image.topic("t").unwrap()).min_isr(3), 2);
    let gone = [change("min.insync.replicas", ConfigOperation::Delete, None)];
    assert_eq!(alter(&mut image, &policy, &ALL, &gone), Ok(1));
    assert_eq!(policy.topic(&image, image.topic("t").unwrap()).min_isr(3), 1);
    alter(&mut image, &policy, &ALL, &[set("unclean.leader.election.enable", "true")]).unwrap();
    assert!(policy.topic(&image, image.topic("t").unwrap()).unclean);
}

#[test]
fn groups_have_configurations_of_their_own() {
    let (mut image, mut policy) = (image(1), policy());
    let timeout = |value| set("consumer.session.timeout.ms", value);
    assert_eq!(alter(&mut image, &policy, &group("g"), &[timeout("50000")]), Ok(1));
    assert_eq!(image.dynamic_configs().group("g")["consumer.session.timeout.ms"], "50000");
    for (target, changes, code) in [
        (group(""), vec![timeout("50000")], ErrorCode::InvalidRequest),
        (group("g"), vec![timeout("1000")], ErrorCode::InvalidConfig),
        (group("g"), vec![timeout("x")], ErrorCode::InvalidConfig),
        (group("g"), vec![set("retention.ms", "1")], ErrorCode::InvalidConfig),
        (group("g"), vec![timeout("50000"), timeout("50000")], ErrorCode::InvalidRequest),
    ] {
        assert_eq!(alter(&mut image, &policy, &target, &changes), Err(code), "{changes:?}");
    }
    policy.groups = map(&[("group.consumer.min.session.timeout.ms", "1000")]);
    let shorter = [timeout("6000")];
    assert_eq!(alter(&mut image, &policy, &group("h"), &shorter), Ok(1));
    let decision = replace_configs(&image, &group("g"), &[], &policy).unwrap();
    commit(&mut image, decision);
    assert_eq!(image.dynamic_configs().groups().map(|(name, _)| name).collect::<Vec<_>>(), ["h"]);
    // R10: not without end.
    let mut refused = None;
    for number in 0..400 {
        let name = format!("{}{number}", "x".repeat(32_000));
        if let Err(code) = alter(&mut image, &policy, &group(&name), &shorter) {
            refused = Some(code);
            break;
        }
    }
    assert_eq!(refused, Some(ErrorCode::PolicyViolation));
}
