//! What the target lacks of what the source has, and bringing it in line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use towpath_client::{
    Admin, AlterConfig, Client, ClientError, ConfigEntry, ConfigResource, ConfigSource, ErrorCode, NewTopic,
    TopicDescription,
};
use towpath_types::{TopicId, TopicName};

use super::gone;
use super::topics::{Mirrored, is_unknown, wanted};
use super::{LinkConfig, LinkError};

/// Topics whose settings are asked for at a time.
const DESCRIBED_AT_A_TIME: usize = 200;

/// Settings of topics that belong to their cluster alone (as MirrorMaker 2's `DefaultConfigPropertyFilter`): they are
/// neither set nor taken back.
const OWN_SETTINGS: [&str; 5] = [
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "unclean.leader.election.enable",
    "min.insync.replicas",
    "message.timestamp.difference.max.ms",
];

/// What is brought in line, beside that topics are created (`sync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sync {
    /// Settings of topics that change later.
    pub configs: bool,
    /// Partitions that are added later.
    pub partitions: bool,
    /// Topics that are deleted at the source, or made anew there.
    pub deletes: bool,
}

/// What is to be done with a topic of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Change {
    /// It is not there.
    Create {
        /// How many partitions it gets.
        partitions: usize,
        /// What is set of it.
        configs: BTreeMap<String, String>,
    },
    /// It has fewer partitions.
    Grow {
        /// How many it has.
        from: usize,
        /// How many it gets.
        to: usize,
    },
    /// It is gone from the source, and goes from the target as well.
    Delete,
    /// It was made anew at the source: what the target has of the old one goes, and the new one is mirrored.
    Renew,
    /// Its settings are others.
    Configure {
        /// What is set.
        set: BTreeMap<String, String>,
        /// What goes back to its default.
        reset: BTreeSet<String>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = |set: &BTreeMap<String, String>| {
            set.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Create { partitions, configs } if configs.is_empty() => {
                write!(f, "create it with {partitions} partitions")
            }
            Self::Create { partitions, configs } => {
                write!(f, "create it with {partitions} partitions and {}", pairs(configs))
            }
            Self::Grow { from, to } => write!(f, "add partitions: {from} become {to}"),
            Self::Delete => f.write_str("delete it: the source has no such topic any more"),
            Self::Renew => f.write_str("delete it and mirror it anew: the source's topic was made anew"),
            Self::Configure { set, reset } => {
                let names = reset.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                match (set.is_empty(), reset.is_empty()) {
                    (false, true) => write!(f, "set {}", pairs(set)),
                    (true, _) => write!(f, "reset {names}"),
                    (false, false) => write!(f, "set {}; reset {names}", pairs(set)),
                }
            }
        }
    }
}

/// A topic that a link mirrors, and what is to be done for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The source's name.
    pub topic: String,
    /// The target's name.
    pub target: String,
    /// What is to be done; nothing where it is in line.
    pub changes: Vec<Change>,
}

/// What a link would do with the target's topics, if it began now. Changes nothing.
///
/// # Errors
/// [`LinkError`]: one of the clusters does not answer, or a topic cannot have its name.
pub async fn plan(config: &LinkConfig) -> Result<Vec<Planned>, LinkError> {
    let of = Client::connect(config.source.clone()).await.map_err(LinkError::Source)?;
    let at = Client::connect(config.target.clone()).await.map_err(LinkError::Target)?;
    let (source, target) = (of.admin(), at.admin());
    let wanted = wanted(config, &source).await?;
    let compared = compare(config.in_line(), &source, &target, &wanted, true).await?;
    let planned = |topic: &Mirrored| Planned {
        topic: topic.source.name.to_string(),
        target: topic.target.to_string(),
        changes: compared.get(&topic.source.name).map(|it| it.changes.clone()).unwrap_or_default(),
    };
    let mut planned: Vec<_> = wanted.iter().map(planned).collect();
    for gone in gone::plan(config, &of, &at, &wanted).await? {
        planned.retain(|it| it.topic != gone.topic);
        planned.push(gone);
    }
    planned.sort_by(|one, other| one.topic.cmp(&other.topic));
    Ok(planned)
}

/// A topic's state at the target.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    /// None where it is not there.
    there: Option<There>,
    changes: Vec<Change>,
}

/// What the target has of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) id: TopicId,
    pub(crate) partitions: usize,
}

/// Compares the topics of both sides, by the source's names; later settings only `with_configs`.
pub(crate) async fn compare(
    sync: Sync,
    source: &Admin,
    target: &Admin,
    wanted: &[Mirrored],
    with_configs: bool,
) -> Result<BTreeMap<TopicName, Compared>, LinkError> {
    let names: Vec<TopicName> = wanted.iter().map(|topic| topic.target.clone()).collect();
    let described = target.describe_topics(&names).await.map_err(LinkError::Target)?;
    let mut there: BTreeMap<&TopicName, &TopicDescription> = BTreeMap::new();
    for (name, described) in &described {
        match described {
            Ok(found) => drop(there.insert(name, found)),
            Err(error) if is_unknown(error) => {}
            Err(error) => return Err(LinkError::Target(error.clone())),
        }
    }
    let with_configs = with_configs && sync.configs;
    let asked = |topic: &&Mirrored| with_configs || !there.contains_key(&topic.target);
    let asked: Vec<&Mirrored> = wanted.iter().filter(asked).collect();
    let ours: Vec<_> = asked.iter().map(|topic| topic.source.name.clone()).collect();
    let ours = configs(source, &ours).await.map_err(LinkError::Source)?;
    let theirs: Vec<_> = asked.iter().map(|topic| topic.target.clone()).collect();
    let theirs: Vec<_> = theirs.into_iter().filter(|name| there.contains_key(name)).collect();
    let theirs = configs(target, &theirs).await.map_err(LinkError::Target)?;
    let mut compared = BTreeMap::new();
    for topic in wanted {
        let partitions = topic.source.partitions.len();
        let mine = ours.get(&topic.source.name);
        let mut changes = Vec::new();
        let found = there.get(&topic.target);
        match found {
            // A topic that is gone from the source meanwhile is not created: there is nothing to mirror.
            None => changes.extend(mine.cloned().map(|configs| Change::Create { partitions, configs })),
            Some(found) => {
                if sync.partitions && found.partitions.len() < partitions {
                    changes.push(Change::Grow { from: found.partitions.len(), to: partitions });
                }
                if let (Some(mine), Some(theirs)) = (mine, theirs.get(&topic.target)) {
                    changes.extend(configure(mine, theirs));
                }
            }
        }
        let there = found.map(|found| There { id: found.id, partitions: found.partitions.len() });
        compared.insert(topic.source.name.clone(), Compared { there, changes });
    }
    Ok(compared)
}

/// What has to be changed of `theirs` to be as `mine`.
fn configure(mine: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Option<Change> {
    let differs = |(name, value): &(&String, &String)| theirs.get(*name) != Some(*value);
    let set: BTreeMap<_, _> =
        mine.iter().filter(differs).map(|(name, value)| (name.clone(), value.clone())).collect();
    let reset: BTreeSet<_> = theirs.keys().filter(|name| !mine.contains_key(*name)).cloned().collect();
    (!set.is_empty() || !reset.is_empty()).then_some(Change::Configure { set, reset })
}

/// What was set of topics themselves, but for [`OWN_SETTINGS`]. Topics that are gone meanwhile have no entry.
async fn configs(
    admin: &Admin,
    topics: &[TopicName],
) -> Result<BTreeMap<TopicName, BTreeMap<String, String>>, ClientError> {
    let own = |entry: &ConfigEntry| {
        entry.source == ConfigSource::Topic
            && !entry.sensitive
            && !OWN_SETTINGS.contains(&entry.name.as_str())
    };
    let mut all = BTreeMap::new();
    for topics in topics.chunks(DESCRIBED_AT_A_TIME) {
        let resources: Vec<_> = topics.iter().cloned().map(ConfigResource::Topic).collect();
        for (resource, entries) in admin.describe_configs(&resources).await? {
            let ConfigResource::Topic(topic) = resource else { continue };
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) if is_unknown(&error) => continue,
                Err(error) => return Err(error),
            };
            let set = entries.into_iter().filter(own).filter_map(|entry| Some((entry.name, entry.value?)));
            all.insert(topic, set.collect());
        }
    }
    Ok(all)
}

/// What the target has of each topic, by the source's name, or why it has it not.
pub(crate) type Ensured = BTreeMap<TopicName, Result<There, String>>;

/// Brings the target's topics in line. Topics that appear at the target meanwhile are found the next time.
pub(crate) async fn ensure(
    config: &LinkConfig,
    source: &Admin,
    target: &Admin,
    wanted: &[Mirrored],
    with_configs: bool,
) -> Result<Ensured, LinkError> {
    let compared = compare(config.in_line(), source, target, wanted, with_configs).await?;
    let mut ensured = Ensured::new();
    for topic in wanted {
        let name = &topic.source.name;
        let Some(Compared { there, changes }) = compared.get(name) else { continue };
        let mut state = there.map(Ok);
        for change in changes {
            match apply(target, &topic.target, change).await? {
                Applied::Done => {
                    tracing::info!(link = config.name, topic = %name, target = %topic.target, %change, "done at the target");
                    if let (Change::Grow { to, .. }, Some(Ok(there))) = (change, &mut state) {
                        there.partitions = *to;
                    }
                }
                Applied::Created(id, partitions) => {
                    tracing::info!(link = config.name, topic = %name, target = %topic.target, %change, "done at the target");
                    state = Some(Ok(There { id, partitions }));
                }
                Applied::Later => {}
                // Settings that the target does not take keep nobody from copying.
                Applied::Refused(error) if matches!(change, Change::Configure { .. }) => {
                    tracing::warn!(link = config.name, topic = %name, target = %topic.target, %change, error, "not done at the target");
                }
                Applied::Refused(error) => state = Some(Err(format!("at the target: {change}: {error}"))),
            }
        }
        ensured.extend(state.map(|state| (name.clone(), state)));
    }
    Ok(ensured)
}

enum Applied {
    Done,
    Created(TopicId, usize),
    /// Somebody else was faster.
    Later,
    Refused(String),
}

/// Carries out one change.
async fn apply(target: &Admin, topic: &TopicName, change: &Change) -> Result<Applied, LinkError> {
    let outcome = match change {
        // Done where a topic is found to be gone: there is nothing to compare it with.
        Change::Delete | Change::Renew => return Ok(Applied::Later),
        Change::Create { partitions, configs } => {
            let new = NewTopic {
                partitions: i32::try_from(*partitions).ok(),
                configs: configs.clone(),
                ..NewTopic::new(topic.clone())
            };
            let created = target.create_topics(&[new], false).await.map_err(LinkError::Target)?;
            match created.into_values().next() {
                Some(Ok(id)) => return Ok(Applied::Created(id, *partitions)),
                Some(Err(ClientError::Broker { code: ErrorCode::TopicAlreadyExists, .. })) | None => {
                    return Ok(Applied::Later);
                }
                Some(Err(error)) => Err(error),
            }
        }
        Change::Grow { to, .. } => {
            let count = i32::try_from(*to).unwrap_or(i32::MAX);
            let grown = target.create_partitions(&[(topic.clone(), count)]).await;
            grown.and_then(|mut results| results.remove(topic).unwrap_or(Ok(())))
        }
        Change::Configure { set, reset } => {
            let set = set.iter().map(|(name, value)| AlterConfig::Set(name.clone(), value.clone()));
            let reset = reset.iter().map(|name| AlterConfig::Delete(name.clone()));
            let change = (ConfigResource::Topic(topic.clone()), set.chain(reset).collect());
            let altered = target.incremental_alter_configs(&[change], false).await;
            altered.and_then(|results| results.into_values().next().unwrap_or(Ok(())))
        }
    };
    match outcome {
        Ok(()) => Ok(Applied::Done),
        Err(error) if is_unknown(&error) => Ok(Applied::Later),
        Err(error) if error.is_retriable() => Err(LinkError::Target(error)),
        Err(error) => Ok(Applied::Refused(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let mine = settings(&[("retention.ms", "1"), ("segment.bytes", "2")]);
        assert_eq!(configure(&mine, &mine), None);
        let theirs =
            settings(&[("retention.ms", "3"), ("segment.bytes", "2"), ("cleanup.policy", "compact")]);
        let change = configure(&mine, &theirs);
        let reset = BTreeSet::from(["cleanup.policy".to_owned()]);
        assert_eq!(change, Some(Change::Configure { set: settings(&[("retention.ms", "1")]), reset }));
        assert_eq!(
            change.map(|it| it.to_string()).as_deref(),
            Some("set retention.ms=1; reset cleanup.policy")
        );
        let text = |change: Option<Change>| change.map(|it| it.to_string()).unwrap_or_default();
        assert_eq!(text(configure(&mine, &BTreeMap::new())), "set retention.ms=1, segment.bytes=2");
        assert_eq!(text(configure(&BTreeMap::new(), &mine)), "reset retention.ms, segment.bytes");
    }
}
