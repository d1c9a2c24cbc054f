//! Topics and end offsets, blocking.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::runtime::{Builder, Runtime};
use towpath_client::{Client, ClientConfig, NewTopic, OffsetSpec};
use towpath_types::{TopicName, TopicPartition};

/// Thousands of partitions take their time.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection for administration, beside the load's own.
pub(crate) struct Admin {
    runtime: Runtime,
    client: Client,
}

impl Admin {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        Self::connect_any(&[address])
    }

    /// Connects to a cluster through the first of its nodes that answers.
    pub(crate) fn connect_any(addresses: &[SocketAddr]) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let config = ClientConfig {
            bootstrap_servers: addresses.iter().map(ToString::to_string).collect(),
            client_id: "towpath-bench-admin".to_owned(),
            ..Default::default()
        };
        let client = runtime.block_on(Client::connect(config))?;
        Ok(Self { runtime, client })
    }

    /// Creates a topic with the page-cache durability that both brokers have by default.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create(name, partitions, 1, &[])
    }

    /// Creates a topic with three replicas of which two must have a record before it is acknowledged.
    pub(crate) fn create_replicated(&self, name: &str, partitions: i32) -> Result<()> {
        self.create(name, partitions, 3, &[("min.insync.replicas", "2")])
    }

    fn create(&self, name: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) -> Result<()> {
        let mut topic = NewTopic::new(TopicName::new(name)?);
        topic.partitions = Some(partitions);
        topic.replication_factor = Some(replicas);
        topic.configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.runtime.block_on(async {
            let results = self.client.admin().create_topics(&[topic], false).await?;
            results.into_values().collect::<Result<Vec<_>, _>>()?;
            anyhow::Ok(())
        })?;
        // Leaders may be named a moment later than the answer comes.
        let deadline = std::time::Instant::now() + LEADERS_TIMEOUT;
        loop {
            match self.end_offsets(name, partitions) {
                Ok(_) => return Ok(()),
                Err(error) if std::time::Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The active controller; Kafka's brokers tell it in no other way.
    pub(crate) fn controller(&self) -> Result<u8> {
        let quorum = self.runtime.block_on(self.client.admin().describe_quorum())?;
        let leader = quorum.leader.context("the quorum has no leader")?;
        Ok(u8::try_from(leader)?)
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<()> {
        let name = TopicName::new(name)?;
        let results = self.runtime.block_on(self.client.admin().delete_topics(&[name]))?;
        results.into_values().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// The log end offset of each partition.
    pub(crate) fn end_offsets(&self, name: &str, partitions: i32) -> Result<Vec<i64>> {
        let topic = TopicName::new(name)?;
        let wanted: Vec<_> =
            (0..partitions).map(|p| (TopicPartition::new(topic.clone(), p), OffsetSpec::Latest)).collect();
        let admin = self.client.admin();
        let listed = self.runtime.block_on(async {
            let limit = Duration::from_secs(30);
            tokio::time::timeout(limit, admin.list_offsets(&wanted)).await
        });
        let results: BTreeMap<_, _> = listed.context("the broker does not answer")??;
        results
            .into_values()
            .map(|listed| Ok(listed?.offset.context("a partition without an end offset")?.get()))
            .collect()
    }

    /// The records of a topic that nothing was deleted from; 0 while it is not there.
    pub(crate) fn records(&self, name: &str, partitions: i32) -> u64 {
        self.end_offsets(name, partitions)
            .map_or(0, |ends| ends.iter().map(|end| u64::try_from(*end).unwrap_or(0)).sum())
    }

    /// Checks that a topic has exactly that many records.
    pub(crate) fn verify_records(&self, name: &str, partitions: i32, records: u64) -> Result<()> {
        let ends = self.end_offsets(name, partitions)?;
        let there: i64 = ends.iter().sum();
        if i64::try_from(records) != Ok(there) {
            bail!("{name} has {there} records instead of {records}");
        }
        Ok(())
    }
}
