//! What the controller of a cluster goes by.

use std::collections::BTreeMap;

use towpath_types::{Rule, Rules};

use super::TopicDefaults;
use crate::{MetadataImage, TopicImage, topic_config};

/// What the controller of a cluster goes by: settings that are the same on every node that may be the active one.
#[derive(Debug, Clone)]
pub struct ClusterPolicy {
    /// What topics get that do not say otherwise.
    pub defaults: TopicDefaults,
    /// The broker's settings of groups, by the broker's names: defaults and bounds of what groups may set.
    pub groups: BTreeMap<String, String>,
    /// Whether partitions have eligible leader replicas (KIP-966, `eligible.leader.replicas.version`). Without them
    /// the last member of an ISR stays in it, fenced or not.
    pub elr_enabled: bool,
    /// The rules that hold: all of them, but in a simulation.
    pub rules: Rules,
}

/// What a topic's configurations say about elections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicPolicy {
    /// `min.insync.replicas`; at least one.
    min_insync_replicas: usize,
    /// `unclean.leader.election.enable`.
    pub(super) unclean: bool,
}

impl ClusterPolicy {
    /// The policy of production: all rules hold, partitions have eligible leader replicas.
    #[must_use]
    pub const fn new(defaults: TopicDefaults) -> Self {
        Self { defaults, groups: BTreeMap::new(), elr_enabled: true, rules: Rules::ALL }
    }

    /// Whether a rule holds.
    pub(super) const fn holds(&self, rule: Rule) -> bool {
        self.rules.holds(rule)
    }

    /// What the topic's configurations say.
    pub(super) fn topic(&self, image: &MetadataImage, topic: &TopicImage) -> TopicPolicy {
        TopicPolicy::new(&topic.configs, |name| image.shared_default(name), &self.defaults.configs)
    }
}

impl TopicPolicy {
    /// What a topic's configurations say, else those of the whole cluster (`shared`), else this node's. They were checked
    /// when they were set; a value that nevertheless makes no sense counts as the default.
    pub(super) fn new<'a>(
        topic: &'a BTreeMap<String, String>,
        shared: impl Fn(&str) -> Option<&'a str>,
        node: &'a BTreeMap<String, String>,
    ) -> Self {
        let value = |name| {
            let key = topic_config::key(name)?;
            let of = |configs: &'a BTreeMap<String, String>| configs.get(name).map(String::as_str);
            Some(of(topic).or_else(|| shared(name)).or_else(|| of(node)).unwrap_or(key.default).trim())
        };
        let min_insync_replicas = value("min.insync.replicas").and_then(|value| value.parse().ok());
        Self {
            min_insync_replicas: min_insync_replicas.unwrap_or(1).max(1),
            unclean: value("unclean.leader.election.enable").is_some_and(|v| v.eq_ignore_ascii_case("true")),
        }
    }

    /// How many of `replicas` replicas must be in sync: a topic cannot ask for more than it has (rule 7).
    pub(super) fn min_isr(self, replicas: usize) -> usize {
        self.min_insync_replicas.min(replicas).max(1)
    }

    /// Whether as many replicas must be in sync by both.
    pub(super) const fn asks_for_as_many_as(self, other: Self) -> bool {
        self.min_insync_replicas == other.min_insync_replicas
    }
}
