//! The topics that pipelines write to: created when they are first needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use towpath_api::{ConnectorError, NewTopicSpec};
use towpath_client::{AlterConfig, Client, ClientError, ConfigResource, ErrorCode, NewTopic};
use towpath_types::limits::MESSAGE_BYTES_MAX;
use towpath_types::{TopicId, TopicName};

use crate::error::cluster_error;

/// How long a new topic may take to appear in the metadata.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(15);

/// What a topic is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TopicKind<'a> {
    /// A pipeline's records.
    Data(&'a NewTopicSpec),
    /// A pipeline's dead letters.
    DeadLetter(&'a NewTopicSpec),
    /// State, the newest value of each key.
    State,
}

/// What is known of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicInfo {
    pub(crate) id: TopicId,
    pub(crate) partitions: i32,
}

#[derive(Debug)]
pub(crate) struct Topics {
    client: Client,
    embedded: bool,
    flushed: bool,
    creating: Mutex<()>,
}

impl Topics {
    pub(crate) fn new(client: Client, embedded: bool, flushed: bool) -> Arc<Self> {
        Arc::new(Self { client, embedded, flushed: embedded || flushed, creating: Mutex::default() })
    }

    /// The topic, created if it does not exist.
    pub(crate) async fn ensure(
        &self,
        topic: &TopicName,
        kind: TopicKind<'_>,
    ) -> Result<TopicInfo, ConnectorError> {
        // Tasks that need the same topic at the same time wait for the first.
        let _one_at_a_time = self.creating.lock().await;
        match self.describe(topic).await? {
            Some(info) => {
                self.make_durable(topic).await?;
                Ok(info)
            }
            None => self.create(topic, kind).await,
        }
    }

    /// The topic, if it exists.
    pub(crate) async fn describe(&self, topic: &TopicName) -> Result<Option<TopicInfo>, ConnectorError> {
        let what = || format!("looking for topic `{topic}`");
        let mut described = self
            .client
            .admin()
            .describe_topics(std::slice::from_ref(topic))
            .await
            .map_err(|error| cluster_error(&what(), error))?;
        match described.remove(topic) {
            Some(Ok(description))
                if description.partitions.iter().all(|partition| partition.leader.is_some()) =>
            {
                let partitions = description.partitions.len() as i32;
                Ok((partitions > 0).then_some(TopicInfo { id: description.id, partitions }))
            }
            Some(Ok(_)) => {
                Err(ConnectorError::retry("KAFKA_NO_LEADER", format!("topic `{topic}` has no leader")))
            }
            None => Ok(None),
            Some(Err(error)) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(None),
            Some(Err(error)) => Err(cluster_error(&what(), error)),
        }
    }

    async fn create(&self, topic: &TopicName, kind: TopicKind<'_>) -> Result<TopicInfo, ConnectorError> {
        let new = new_topic(topic, kind, self.embedded, self.flushed);
        let what = || format!("creating topic `{topic}`");
        let mut created = self
            .client
            .admin()
            .create_topics(std::slice::from_ref(&new), false)
            .await
            .map_err(|error| cluster_error(&what(), error))?;
        match created.remove(topic) {
            Some(Err(error)) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Some(Err(error)) => return Err(cluster_error(&what(), error)),
            _ => tracing::info!(topic = topic.as_str(), partitions = ?new.partitions, "created a topic"),
        }
        let deadline = Instant::now() + APPEAR_TIMEOUT;
        loop {
            match self.describe(topic).await {
                Ok(Some(info)) => return Ok(info),
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(None) if Instant::now() > deadline => {
                    let error = ClientError::UnknownTopic { topic: topic.clone() };
                    return Err(cluster_error(&what(), error));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// R1, R4: where one node is all that has it, an acknowledged record must have been flushed, also in a topic that
    /// somebody else created.
    async fn make_durable(&self, topic: &TopicName) -> Result<(), ConnectorError> {
        if !self.flushed {
            return Ok(());
        }
        let what = || format!("setting `flush.messages` of topic `{topic}`");
        let resource = ConfigResource::Topic(topic.clone());
        let admin = self.client.admin();
        let described = admin.describe_configs(std::slice::from_ref(&resource)).await;
        let mut described = described.map_err(|error| cluster_error(&what(), error))?;
        let entries =
            described.remove(&resource).transpose().map_err(|error| cluster_error(&what(), error))?;
        let flushed = |entries: &Vec<towpath_client::ConfigEntry>| {
            entries.iter().any(|entry| entry.name == "flush.messages" && entry.value.as_deref() == Some("1"))
        };
        if entries.as_ref().is_some_and(flushed) {
            return Ok(());
        }
        let change = AlterConfig::Set("flush.messages".to_owned(), "1".to_owned());
        let changes = [(resource.clone(), vec![change])];
        let altered = admin.incremental_alter_configs(&changes, false).await;
        let mut altered = altered.map_err(|error| cluster_error(&what(), error))?;
        altered.remove(&resource).unwrap_or(Ok(())).map_err(|error| cluster_error(&what(), error))
    }
}

fn new_topic(topic: &TopicName, kind: TopicKind<'_>, embedded: bool, flushed: bool) -> NewTopic {
    let mut configs = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        configs.insert(name.to_owned(), value);
    };
    if flushed {
        set("flush.messages", "1".to_owned());
    }
    let (partitions, replication_factor) = match kind {
        TopicKind::Data(spec) | TopicKind::DeadLetter(spec) => {
            // Changes, and records that could not be processed, are not forgotten silently.
            set("retention.ms", "-1".to_owned());
            set("max.message.bytes", MESSAGE_BYTES_MAX.to_string());
            if let TopicKind::Data(spec) = kind {
                configs.extend(spec.configs.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            let partitions = if matches!(kind, TopicKind::Data(_)) { spec.partitions } else { 1 };
            (partitions, spec.replication_factor)
        }
        TopicKind::State => {
            set("cleanup.policy", "compact".to_owned());
            set("segment.bytes", (16 * 1024 * 1024).to_string());
            set("max.message.bytes", MESSAGE_BYTES_MAX.to_string());
            (1, None)
        }
    };
    let replication_factor = replication_factor.or(embedded.then_some(1));
    NewTopic { name: topic.clone(), partitions: Some(partitions), replication_factor, configs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_topics_forget_nothing_unless_told() {
        let topic = TopicName::new("t").unwrap();
        let mut spec = NewTopicSpec { partitions: 3, ..NewTopicSpec::default() };
        let new = new_topic(&topic, TopicKind::Data(&spec), true, true);
        assert_eq!(new.configs["retention.ms"], "-1");
        assert_eq!(new.configs["flush.messages"], "1");
        assert_eq!((new.partitions, new.replication_factor), (Some(3), Some(1)));
        spec.configs.insert("retention.ms".into(), "1000".into());
        let new = new_topic(&topic, TopicKind::Data(&spec), false, false);
        assert_eq!(new.configs["retention.ms"], "1000");
        assert!(!new.configs.contains_key("flush.messages"));
        assert_eq!(new.replication_factor, None, "the cluster's default");
        let dead = new_topic(&topic, TopicKind::DeadLetter(&spec), true, true);
        assert_eq!((dead.configs["retention.ms"].as_str(), dead.partitions), ("-1", Some(1)));
        assert_eq!(new_topic(&topic, TopicKind::State, true, true).configs["cleanup.policy"], "compact");
    }
}
