//! Which topics there are, and that the target has them.

use std::collections::BTreeMap;

use towpath_client::{
    Admin, ClientError, ConfigResource, ConfigSource, ErrorCode, NewTopic, TopicDescription,
};
use towpath_types::{TopicId, TopicName};

use super::{LinkConfig, LinkError};
use crate::naming::is_internal;

/// A topic of the source that is mirrored.
#[derive(Debug, Clone)]
pub(crate) struct Mirrored {
    pub(crate) source: TopicDescription,
    pub(crate) target: TopicName,
}

/// The topics of the source that the link takes.
pub(crate) async fn wanted(config: &LinkConfig, source: &Admin) -> Result<Vec<Mirrored>, LinkError> {
    let listed = source.list_topics().await.map_err(LinkError::Source)?;
    let taken: Vec<TopicName> = listed
        .into_iter()
        .filter(|topic| !topic.internal && !is_internal(topic.name.as_str()))
        .map(|topic| topic.name)
        .filter(|name| config.topics.takes(name.as_str()) && !config.naming.goes_round(&config.to, name))
        .collect();
    let mut wanted = Vec::new();
    for (name, described) in source.describe_topics(&taken).await.map_err(LinkError::Source)? {
        match described {
            Ok(source) => {
                wanted.push(Mirrored { target: config.naming.target(&config.from, &name)?, source })
            }
            // Deleted meanwhile.
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(LinkError::Source(error)),
        }
    }
    Ok(wanted)
}

/// What the target has of each topic, by the source's name: its id, or why it has it not.
pub(crate) type Ensured = BTreeMap<TopicName, Result<TopicId, String>>;

/// Makes sure that the target has these topics with as many partitions.
pub(crate) async fn ensure(
    source: &Admin,
    target: &Admin,
    wanted: &[Mirrored],
) -> Result<Ensured, LinkError> {
    let mut ensured = Ensured::new();
    let names: Vec<TopicName> = wanted.iter().map(|topic| topic.target.clone()).collect();
    let there = target.describe_topics(&names).await.map_err(LinkError::Target)?;
    let mut missing = Vec::new();
    for topic in wanted {
        let partitions = topic.source.partitions.len();
        let found = match there.get(&topic.target) {
            Some(Ok(found)) => found,
            Some(Err(error)) if !is_unknown(error) => return Err(LinkError::Target(error.clone())),
            _ => {
                missing.push(topic);
                continue;
            }
        };
        let grown = match found.partitions.len() < partitions {
            true => grow(target, &topic.target, partitions).await,
            false => Ok(()),
        };
        ensured.insert(topic.source.name.clone(), grown.map(|()| found.id));
    }
    for topic in missing {
        if let Some(created) = create(source, target, topic).await? {
            ensured.insert(topic.source.name.clone(), created);
        }
    }
    Ok(ensured)
}

/// Creates a topic at the target as it is at the source. `None` if it is there meanwhile, and is found the next time.
async fn create(
    source: &Admin,
    target: &Admin,
    topic: &Mirrored,
) -> Result<Option<Result<TopicId, String>>, LinkError> {
    let new = NewTopic {
        partitions: i32::try_from(topic.source.partitions.len()).ok(),
        configs: configs(source, &topic.source.name).await?,
        ..NewTopic::new(topic.target.clone())
    };
    let created = target.create_topics(&[new], false).await.map_err(LinkError::Target)?;
    match created.into_values().next() {
        Some(Ok(id)) => {
            tracing::info!(source = %topic.source.name, target = %topic.target, "a topic was created at the target");
            Ok(Some(Ok(id)))
        }
        Some(Err(ClientError::Broker { code: ErrorCode::TopicAlreadyExists, .. })) | None => Ok(None),
        Some(Err(error)) if error.is_retriable() => Err(LinkError::Target(error)),
        Some(Err(error)) => Ok(Some(Err(format!("it cannot be created at the target: {error}")))),
    }
}

fn is_unknown(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::UnknownTopic { .. }
            | ClientError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. }
    )
}

async fn grow(target: &Admin, topic: &TopicName, partitions: usize) -> Result<(), String> {
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    let grown = target.create_partitions(&[(topic.clone(), count)]).await;
    let grown = grown.and_then(|mut results| results.remove(topic).unwrap_or(Ok(())));
    grown.map_err(|error| format!("it cannot be given {partitions} partitions at the target: {error}"))?;
    tracing::info!(%topic, partitions, "a topic was given partitions at the target");
    Ok(())
}

/// What was set of a topic itself, but for what belongs to its cluster alone (as MirrorMaker 2's
/// `DefaultConfigPropertyFilter`).
async fn configs(source: &Admin, topic: &TopicName) -> Result<BTreeMap<String, String>, LinkError> {
    const LEFT_OUT: [&str; 5] = [
        "follower.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        "unclean.leader.election.enable",
        "min.insync.replicas",
        "message.timestamp.difference.max.ms",
    ];
    let resource = ConfigResource::Topic(topic.clone());
    let described = source.describe_configs(&[resource]).await.map_err(LinkError::Source)?;
    let entries = match described.into_values().next() {
        Some(entries) => entries.map_err(LinkError::Source)?,
        None => return Ok(BTreeMap::new()),
    };
    let own = entries.into_iter().filter(|entry| {
        entry.source == ConfigSource::Topic && !entry.sensitive && !LEFT_OUT.contains(&entry.name.as_str())
    });
    Ok(own.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}
