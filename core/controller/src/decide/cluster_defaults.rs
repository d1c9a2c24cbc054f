//! Defaults of topic configurations that must be the same on all nodes.

use std::collections::BTreeMap;

use super::configs::without_eligible_replicas;
use super::policy::TopicPolicy;
use super::{ClusterPolicy, Decision};
use crate::broker_config;
use crate::topic_config::{self, TopicConfigKey};
use crate::{MetadataImage, MetadataRecord};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Decides about the defaults of the whole cluster: `defaults` are those of the node that has become the active
/// controller, by the names of topic configurations. Only `min.insync.replicas` and `unclean.leader.election.enable`
/// are looked at; one that is not named there gets the declared default, so that no node goes by its own.
///
/// When `min.insync.replicas` changes, the topics that do not set it themselves have no eligible leader replicas any
/// more (rule 11 of the cluster's rules). What leaders went by before it was set for the first time is not known, so that
/// counts as a change. What was set while the cluster runs hides these defaults and stays.
#[must_use]
pub fn set_cluster_defaults(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    defaults: &BTreeMap<String, String>,
) -> Decision<()> {
    let mut configs = image.cluster_configs().clone();
    let mut records = Vec::new();
    for key in broker_config::SHARED.into_iter().filter_map(topic_config::key) {
        let value = value(key, defaults);
        if configs.get(key.name).map(String::as_str) != Some(value) {
            configs.insert(key.name.to_owned(), value.to_owned());
            let (name, value) = (key.name.to_owned(), Some(value.to_owned()));
            records.push(MetadataRecord::ClusterConfig { name, value });
        }
    }
    let was_known = image.cluster_configs().contains_key(MIN_INSYNC_REPLICAS);
    let dynamic = image.dynamic_configs().broker(None);
    let was_known = was_known || dynamic.contains_key(MIN_INSYNC_REPLICAS);
    let after = |name: &str| dynamic.get(name).or_else(|| configs.get(name)).map(String::as_str);
    records.extend(other_min_isr(image, policy, was_known, after));
    Decision { records, answer: () }
}

/// What a change of the shared defaults to `after` does to topics that do not say themselves how many replicas must be in
/// sync; `was_known` where it is known what leaders go by until then.
pub(super) fn other_min_isr<'a>(
    image: &'a MetadataImage,
    policy: &'a ClusterPolicy,
    was_known: bool,
    after: impl Fn(&str) -> Option<&'a str>,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in image.topics() {
        let next = TopicPolicy::new(&topic.configs, &after, &policy.defaults.configs);
        let is_same = was_known && next.asks_for_as_many_as(policy.topic(image, topic));
        if !is_same && !topic.configs.contains_key(MIN_INSYNC_REPLICAS) {
            records.extend(without_eligible_replicas(topic, policy));
        }
    }
    records
}

/// A value that makes no sense was refused when the configuration was read; here it counts as none.
fn value<'a>(key: &'a TopicConfigKey, defaults: &'a BTreeMap<String, String>) -> &'a str {
    let named = defaults.get(key.name).map(|value| value.trim());
    named.filter(|value| topic_config::check(key.name, value).is_ok()).unwrap_or(key.default)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use towpath_types::BrokerId;

    use super::super::support::*;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn set(image: &mut MetadataImage, policy: &ClusterPolicy, pairs: &[(&str, &str)]) -> usize {
        let decision = set_cluster_defaults(image, policy, &map(pairs));
        let count = decision.records.len();
        commit(image, decision);
        count
    }

    #[test]
    fn the_cluster_has_one_default_whatever_nodes_say() {
        let (mut image, policy) = (image(3), policy());
        assert_eq!(set(&mut image, &policy, &[("min.insync.replicas", " 2 "), ("retention.ms", "5")]), 2);
        let both = map(&[("min.insync.replicas", "2"), ("unclean.leader.election.enable", "false")]);
        assert_eq!(*image.cluster_configs(), both);
        assert_eq!(set(&mut image, &policy, &[("min.insync.replicas", "2")]), 0, "nothing differs");
        // A node with another file decides, and follows, by the same.
        let of_node = map(&[("min.insync.replicas", "3"), ("retention.ms", "7")]);
        let defaults = image.topic_defaults(BrokerId::new(1), &of_node);
        assert_eq!(defaults["min.insync.replicas"], "2");
        assert_eq!((defaults.len(), defaults["retention.ms"].as_str()), (3, "7"));
        assert!(matches!(image.topic_defaults(BrokerId::new(1), &both), Cow::Borrowed(_)));
        let mut other = policy.clone();
        other.defaults.configs = of_node;
        assigned(&mut image, "t", &[1, 2, 3], &[]);
        assigned(&mut image, "own", &[1, 2, 3], &[("min.insync.replicas", "1")]);
        assert_eq!(other.topic(&image, image.topic("t").unwrap()).min_isr(3), 2);
        assert_eq!(other.topic(&image, image.topic("own").unwrap()).min_isr(3), 1);
        assert_eq!(set(&mut image, &policy, &[("unclean.leader.election.enable", "TRUE")]), 2);
        assert!(other.topic(&image, image.topic("t").unwrap()).unclean);
        assert_eq!(image.cluster_configs()["min.insync.replicas"], "1", "not named");
        assert_eq!(
            set(&mut image, &policy, &[("min.insync.replicas", "0")]),
            1,
            "makes no sense, counts as none"
        );
        assert_eq!(image.cluster_configs()["unclean.leader.election.enable"], "false");
        let none = MetadataRecord::ClusterConfig { name: "min.insync.replicas".to_owned(), value: None };
        commit(&mut image, Decision { records: vec![none], answer: () });
        assert_eq!(other.topic(&image, image.topic("t").unwrap()).min_isr(3), 3);
    }

    #[test]
    fn another_number_ends_eligibility_where_topics_do_not_set_it() {
        let (mut image, policy) = (image(3), policy());
        set(&mut image, &policy, &[("min.insync.replicas", "3")]);
        assigned(&mut image, "t", &[1, 2, 3], &[]);
        assigned(&mut image, "own", &[1, 2, 3], &[("min.insync.replicas", "3")]);
        assigned(&mut image, "alone", &[2], &[]);
        fence(&mut image, &policy, 2);
        for topic in ["t", "own", "alone"] {
            assert_eq!(partition(&image, topic).elr, ids(&[2]), "{topic}");
        }
        assert_eq!(set(&mut image, &policy, &[("min.insync.replicas", "3")]), 0);
        let before = partition(&image, "t").clone();
        assert_eq!(set(&mut image, &policy, &[("min.insync.replicas", "2")]), 2);
        let after = partition(&image, "t");
        assert!(after.elr.is_empty() && after.partition_epoch > before.partition_epoch);
        assert_eq!((after.leader_epoch, after.leader), (before.leader_epoch, before.leader));
        assert_eq!(partition(&image, "own").elr, ids(&[2]), "it says so itself");
        assert_eq!(partition(&image, "alone").elr, ids(&[2]), "nobody is in sync");
    }

    #[test]
    fn the_first_default_counts_as_a_change() {
        let mut policy = policy();
        policy.defaults.configs = map(&[("min.insync.replicas", "3")]);
        let mut image = image(3);
        assigned(&mut image, "t", &[1, 2, 3], &[]);
        fence(&mut image, &policy, 2);
        assert_eq!(partition(&image, "t").elr, ids(&[2]));
        let defaults = policy.defaults.configs.clone();
        let decision = set_cluster_defaults(&image, &policy, &defaults);
        commit(&mut image, decision);
        assert!(partition(&image, "t").elr.is_empty());
    }
}
