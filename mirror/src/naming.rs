//! What a source's topic is called at the target, and whence a topic comes by its name.
//!
//! `prefixed` is `DefaultReplicationPolicy` of MirrorMaker 2 with its separator, `identical` is
//! `IdentityReplicationPolicy`.

use towpath_types::TopicName;

/// Between the alias of a cluster and a topic's name (`replication.policy.separator`).
const SEPARATOR: char = '.';
/// MirrorMaker 2's heartbeats: they are named alike everywhere, and never go round.
pub const HEARTBEATS: &str = "heartbeats";

/// What pipelines know and remember (`_towpath_offsets` and others) is each cluster's own: copied, it would send them back,
/// or ahead.
const RUNTIME: &str = "_towpath_";

/// How topics are called at the target (`naming`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// As at the source.
    #[default]
    Identical,
    /// With the alias of the source's cluster in front: `us.orders`.
    Prefixed,
}

/// A name that is too long with the alias in front, or has characters that no topic may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic `{topic}` cannot be called `{name}` at the target: {problem}")]
pub struct NameError {
    topic: String,
    name: String,
    problem: String,
}

impl Naming {
    /// What `topic` of the cluster `source` is called at the target.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn target(self, source: &str, topic: &TopicName) -> Result<TopicName, NameError> {
        match self {
            Self::Identical => Ok(topic.clone()),
            Self::Prefixed => {
                let name = format!("{source}{SEPARATOR}{topic}");
                TopicName::new(&name).map_err(|error| NameError {
                    topic: topic.to_string(),
                    name,
                    problem: error.to_string(),
                })
            }
        }
    }

    /// Whether `topic` of the source came from `target` by a link that prefixes, on whatever way: copying it there again
    /// would go round for ever. With identical names the name does not tell.
    #[must_use]
    pub fn goes_round(self, target: &str, topic: &TopicName) -> bool {
        match self {
            Self::Identical => false,
            // Aliases may have dots themselves, so that every one of the parts before the topic's own name is looked at.
            Self::Prefixed => {
                let name = topic.as_str();
                let own = format!("{target}{SEPARATOR}");
                name.starts_with(&own) || name.contains(&format!("{SEPARATOR}{own}"))
            }
        }
    }
}

/// Whether a topic is the cluster's own, or a tool's: never mirrored, whatever a filter says. MirrorMaker 2 leaves out the
/// same (`DefaultTopicFilter`, `isInternalTopic`).
#[must_use]
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with("__")
        || topic.starts_with(RUNTIME)
        || topic.ends_with(".internal")
        || topic.ends_with("-internal")
        || topic.ends_with(".replica")
        || topic.ends_with(".quarantine")
        || topic == HEARTBEATS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    #[test]
    fn names_at_the_target() {
        assert_eq!(Naming::Identical.target("us", &topic("orders")).unwrap(), topic("orders"));
        assert_eq!(Naming::Prefixed.target("us", &topic("orders")).unwrap(), topic("us.orders"));
        let error = Naming::Prefixed.target("us", &topic(&"a".repeat(249))).unwrap_err();
        assert!(error.to_string().contains("cannot be called `us.aaa"), "{error}");
    }

    #[test]
    fn what_comes_from_the_target_does_not_go_back() {
        let prefixed = |target: &str, name: &str| Naming::Prefixed.goes_round(target, &topic(name));
        assert!(prefixed("eu", "eu.orders"));
        assert!(prefixed("eu", "us.eu.orders"));
        assert!(!prefixed("eu", "us.orders"));
        assert!(!prefixed("eu", "eur.orders"));
        assert!(!Naming::Identical.goes_round("eu", &topic("eu.orders")));
    }

    #[test]
    fn topics_of_the_cluster_itself_stay() {
        for name in [
            "_towpath_offsets",
            "__consumer_offsets",
            "mm2-offset-syncs.eu.internal",
            "connect-internal",
            "heartbeats",
        ] {
            assert!(is_internal(name), "{name}");
        }
        assert!(!is_internal("orders"));
    }
}
