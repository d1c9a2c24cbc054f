//! `towpath topics`

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use towpath_client::{
    Admin, AlterConfig, Client, ConfigResource, ConfigSource, IsolationLevel, ListedOffset, NewTopic,
    OffsetSpec, PerItem, TopicDescription,
};
use towpath_types::{TopicName, TopicPartition};

use super::connection::{all_done, connect, sorted_out, topic_names};
use crate::cli::Topics;
use crate::failure::Failure;
use crate::output::{Listing, tell};

pub(super) async fn run(command: Topics, json: bool) -> Result<(), Failure> {
    match command {
        Topics::List { cluster, internal } => {
            list(&connect(&cluster.bootstrap_server).await?, internal, json).await
        }
        Topics::Describe { cluster, topics } => {
            describe(&connect(&cluster.bootstrap_server).await?, &topic_names(&topics)?, json).await
        }
        Topics::Create { cluster, topic, partitions, replication_factor, configs } => {
            let name = TopicName::new(&topic)?;
            let configs: BTreeMap<_, _> = configs.into_iter().collect();
            let topic = NewTopic { name, partitions, replication_factor, configs };
            let created =
                connect(&cluster.bootstrap_server).await?.admin().create_topics(&[topic], false).await?;
            let (done, failed) = sorted_out(created);
            let mut listing = Listing::new(&[("TOPIC", "topic"), ("ID", "id")]);
            for (name, id) in done {
                listing.row(vec![json!(name.as_str()), json!(id.to_string())]);
            }
            listing.tell_done("created", json)?;
            failed
        }
        Topics::Delete { cluster, topics } => {
            let topics = topic_names(&topics)?;
            let deleted = connect(&cluster.bootstrap_server).await?.admin().delete_topics(&topics).await?;
            let (done, failed) = sorted_out(deleted);
            let mut listing = Listing::new(&[("TOPIC", "topic")]);
            for (name, ()) in done {
                listing.row(vec![json!(name.as_str())]);
            }
            listing.tell_done("deleted", json)?;
            failed
        }
        Topics::Config { cluster, topic, set, unset, all } => {
            let client = connect(&cluster.bootstrap_server).await?;
            let topic = TopicName::new(&topic)?;
            if !(set.is_empty() && unset.is_empty()) {
                alter(&client, &topic, set, unset).await?;
            }
            configs(&client, topic, all, json).await
        }
    }
}

async fn list(client: &Client, internal: bool, json: bool) -> Result<(), Failure> {
    let mut topics = client.admin().list_topics().await?;
    topics.retain(|topic| internal || !topic.internal && !topic.name.as_str().starts_with("_towpath_"));
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut listing = Listing::new(&[("TOPIC", "topic"), ("PARTITIONS", "partitions"), ("ID", "id")]);
    for topic in topics {
        listing.row(vec![json!(topic.name.as_str()), json!(topic.partitions), json!(topic.id.to_string())]);
    }
    listing.print(json)
}

async fn describe(client: &Client, topics: &[TopicName], json: bool) -> Result<(), Failure> {
    let admin = client.admin();
    let described = all_done(admin.describe_topics(topics).await?)?;
    let mut wanted = Vec::new();
    for (name, topic) in &described {
        for partition in topic.partitions.iter().filter(|partition| partition.leader.is_some()) {
            let partition = TopicPartition::new(name.clone(), partition.partition);
            wanted.push((partition.clone(), OffsetSpec::Earliest));
            wanted.push((partition, OffsetSpec::Latest));
        }
    }
    let (earliest, latest): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(_, spec)| *spec == OffsetSpec::Earliest);
    let stable = admin.list_offsets_at(&latest, IsolationLevel::ReadCommitted).await?;
    let (earliest, latest) = (admin.list_offsets(&earliest).await?, admin.list_offsets(&latest).await?);
    let bytes = bytes(&admin, &described).await;
    let offset = |offsets: &PerItem<TopicPartition, ListedOffset>, partition: &TopicPartition| {
        let listed = offsets.get(partition).and_then(|listed| listed.as_ref().ok());
        listed.and_then(|listed| listed.offset).map_or(Json::Null, |offset| json!(offset.get()))
    };
    let mut listing = Listing::new(&[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("LEADER", "leader"),
        ("EPOCH", "leader_epoch"),
        ("REPLICAS", "replicas"),
        ("IN SYNC", "in_sync_replicas"),
        ("BEGIN", "begin_offset"),
        ("END", "end_offset"),
        ("STABLE END", "last_stable_offset"),
        ("BYTES", "bytes"),
        ("ID", "id"),
    ]);
    for (name, topic) in described {
        for partition in &topic.partitions {
            let at = TopicPartition::new(name.clone(), partition.partition);
            listing.row(vec![
                json!(name.as_str()),
                json!(partition.partition),
                json!(partition.leader),
                json!(partition.leader_epoch.get()),
                json!(partition.replicas),
                json!(partition.in_sync_replicas),
                offset(&earliest, &at),
                offset(&latest, &at),
                offset(&stable, &at),
                json!(bytes.get(&(at, partition.leader.unwrap_or(-1)))),
                json!(topic.id.to_string()),
            ]);
        }
    }
    listing.print(json)
}

/// Bytes of each replica, by partition and broker, as far as the brokers tell.
async fn bytes(
    admin: &Admin,
    described: &[(TopicName, TopicDescription)],
) -> BTreeMap<(TopicPartition, i32), i64> {
    let partitions = described.iter().flat_map(|(_, topic)| &topic.partitions);
    let brokers: BTreeSet<i32> = partitions.flat_map(|partition| partition.replicas.clone()).collect();
    let wanted: BTreeSet<&TopicName> = described.iter().map(|(name, _)| name).collect();
    let brokers: Vec<i32> = brokers.into_iter().collect();
    let Ok(described) = admin.describe_log_dirs(&brokers).await else { return BTreeMap::new() };
    let mut bytes = BTreeMap::new();
    // One that is down tells nothing: the column stays empty there.
    for (broker, dirs) in described.into_iter().filter_map(|(broker, dirs)| Some((broker, dirs.ok()?))) {
        let replicas = dirs.into_iter().flat_map(|dir| dir.replicas).filter(|it| !it.is_future);
        for replica in replicas.filter(|it| wanted.contains(&it.partition.topic)) {
            bytes.insert((replica.partition, broker), replica.size_bytes);
        }
    }
    bytes
}

async fn alter(
    client: &Client,
    topic: &TopicName,
    set: Vec<(String, String)>,
    unset: Vec<String>,
) -> Result<(), Failure> {
    let changes: Vec<_> = set
        .into_iter()
        .map(|(name, value)| AlterConfig::Set(name, value))
        .chain(unset.into_iter().map(AlterConfig::Delete))
        .collect();
    let resource = ConfigResource::Topic(topic.clone());
    let altered = client.admin().incremental_alter_configs(&[(resource, changes)], false).await?;
    match altered.into_values().find_map(Result::err) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

async fn configs(client: &Client, topic: TopicName, all: bool, json: bool) -> Result<(), Failure> {
    let described = client.admin().describe_configs(&[ConfigResource::Topic(topic)]).await?;
    let mut listing = Listing::new(&[("CONFIG", "name"), ("VALUE", "value"), ("SOURCE", "source")]);
    for entries in described.into_values() {
        let mut entries = entries?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries.into_iter().filter(|entry| all || entry.source == ConfigSource::Topic) {
            let value = if entry.sensitive { json!("(sensitive)") } else { json!(entry.value) };
            listing.row(vec![json!(entry.name), value, json!(source_name(entry.source))]);
        }
    }
    listing.print(json)?;
    if !all && !json {
        tell("only what is set on the topic is shown; --all shows defaults too");
    }
    Ok(())
}

const fn source_name(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Topic => "topic",
        ConfigSource::Broker => "broker",
        ConfigSource::ClusterDefault => "cluster",
        ConfigSource::BrokerFile => "broker file",
        ConfigSource::Group => "group",
        ConfigSource::ClientMetrics => "client metrics",
        ConfigSource::Default => "default",
        ConfigSource::Other(_) => "other",
    }
}
