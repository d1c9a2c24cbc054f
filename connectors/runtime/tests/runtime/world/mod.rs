//! A small world for the runtime's tests: an upstream log, a target, connectors that honour the traits over both,
//! and Towpath's own broker in process.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each test binary uses its part.

pub mod sink;
pub mod source;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use towpath_api::pipeline::{SinkSpec, SourceSpec};
use towpath_api::{PipelineSpec, TopicPattern, TopicTemplate};
use towpath_broker::{Broker, BrokerConfig};
use towpath_client::{
    AlterConfig, Client, ClientConfig, ConfigResource, ConsumerConfig, InProcessTransport, NewTopic,
    OffsetSpec, ProducerConfig, ProducerRecord, StartAt,
};
use towpath_runtime::{Supervisor, SupervisorConfig, TaskError, TaskState};
use towpath_types::limits::MESSAGE_BYTES_MAX;
use towpath_types::{Offset, TopicName, TopicPartition};

pub use sink::Target;
pub use source::Upstream;

/// A broker in this process and a client of it.
pub struct Cluster {
    broker: Arc<Mutex<Option<Arc<Broker>>>>,
    pub client: Client,
    folder: tempfile::TempDir,
    embedded: bool,
}

/// With `RUST_LOG` set, what is logged is shown.
fn show_logs() {
    if std::env::var_os("RUST_LOG").is_some() {
        // Another test of this process may have been first.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
    }
}

fn broker_config(folder: &Path) -> BrokerConfig {
    BrokerConfig { offsets_partitions: 2, ..BrokerConfig::new(folder) }
}

impl Cluster {
    pub async fn start() -> Self {
        show_logs();
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(broker_config(folder.path())).await.unwrap();
        let broker = Arc::new(Mutex::new(Some(Arc::new(broker))));
        let accepting = Arc::clone(&broker);
        let transport = InProcessTransport::routed(move |_, _, stream| match &*accepting.lock() {
            Some(broker) => {
                broker.accept_stream(stream);
                Ok(())
            }
            None => Err(std::io::ErrorKind::ConnectionRefused.into()),
        });
        let client = Client::connect(ClientConfig {
            bootstrap_servers: vec!["in-process:1".to_owned()],
            transport: Arc::new(transport),
            ..ClientConfig::default()
        })
        .await
        .unwrap();
        Self { broker, client, folder, embedded: true }
    }

    /// Somebody else's brokers.
    pub async fn foreign(bootstrap: &str) -> Self {
        show_logs();
        let bootstrap_servers = vec![bootstrap.to_owned()];
        let client =
            Client::connect(ClientConfig { bootstrap_servers, ..ClientConfig::default() }).await.unwrap();
        Self { broker: Arc::default(), client, folder: tempfile::tempdir().unwrap(), embedded: false }
    }

    /// As [`Self::start`], with a broker that outlives the processes which use it.
    pub async fn lasting() -> Self {
        Self { embedded: false, ..Self::start().await }
    }

    /// Stops the broker and starts another one over the same data.
    pub async fn restart_broker(&self) {
        // Nobody reaches it any more.
        let old = self.broker.lock().take().unwrap();
        old.shutdown().await.unwrap();
        drop(old);
        // The connections of the old one are still about to notice, and hold its lock.
        let deadline = Instant::now() + Duration::from_secs(10);
        let new = loop {
            match Broker::start(broker_config(self.folder.path())).await {
                Ok(new) => break new,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        *self.broker.lock() = Some(Arc::new(new));
    }

    /// A topic with these configs.
    pub async fn create(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let mut new = NewTopic::new(TopicName::new(topic).unwrap());
        new.partitions = Some(partitions);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        new.configs = configs.iter().map(owned).collect();
        let mut created = self.client.admin().create_topics(&[new.clone()], false).await.unwrap();
        created.remove(&new.name).unwrap().unwrap();
    }

    /// Changes a topic's config.
    pub async fn set(&self, topic: &str, name: &str, value: &str) {
        let resource = ConfigResource::Topic(TopicName::new(topic).unwrap());
        let change = vec![AlterConfig::Set(name.to_owned(), value.to_owned())];
        let changes = [(resource.clone(), change)];
        let mut altered = self.client.admin().incremental_alter_configs(&changes, false).await.unwrap();
        altered.remove(&resource).unwrap().unwrap();
    }

    pub async fn delete(&self, topic: &str) {
        let name = TopicName::new(topic).unwrap();
        let mut deleted = self.client.admin().delete_topics(std::slice::from_ref(&name)).await.unwrap();
        deleted.remove(&name).unwrap().unwrap();
    }

    /// Removes the records of partition 0 before an offset, as retention does once somebody has switched it on.
    pub async fn forget_before(&self, topic: &str, offset: i64) {
        let resource = ConfigResource::Topic(TopicName::new(topic).unwrap());
        let change = AlterConfig::Append("cleanup.policy".to_owned(), "delete".to_owned());
        let changes = [(resource.clone(), vec![change])];
        let mut altered = self.client.admin().incremental_alter_configs(&changes, false).await.unwrap();
        altered.remove(&resource).unwrap().unwrap();
        let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
        let before = [(partition.clone(), Offset::new(offset))].into();
        let mut deleted = self.client.admin().delete_records(&before).await.unwrap();
        deleted.remove(&partition).unwrap().unwrap();
    }

    /// Sends values as somebody else does who knows nothing of schemas.
    pub async fn send(&self, topic: &str, partition: i32, values: &[&[u8]]) {
        let topic = TopicName::new(topic).unwrap();
        let producer = self.client.producer(ProducerConfig {
            record_bytes_max: MESSAGE_BYTES_MAX,
            buffer_memory: 2 * MESSAGE_BYTES_MAX,
            ..ProducerConfig::default()
        });
        for value in values {
            let record = ProducerRecord {
                partition: Some(partition),
                value: Some(value),
                ..ProducerRecord::new(&topic)
            };
            producer.send(record).await.unwrap();
        }
        producer.flush().await.unwrap();
    }

    pub fn config(&self) -> SupervisorConfig {
        SupervisorConfig {
            embedded: self.embedded,
            stop_timeout: Duration::from_secs(10),
            ..SupervisorConfig::new(self.client.clone())
        }
    }

    pub fn supervise(&self, pipelines: Vec<PipelineSpec>) -> Supervisor {
        Supervisor::start(self.config(), pipelines).unwrap()
    }

    /// Waits until what a killed supervisor has left in the broker's queues is carried out: a killed process takes
    /// its embedded broker with it, this one goes on.
    pub async fn quiet(&self) {
        let mut before = Vec::new();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(250) {
            let mut ends = Vec::new();
            for topic in self.client.admin().list_topics().await.unwrap() {
                let partitions = (0..topic.partitions).map(|partition| {
                    (TopicPartition::new(topic.name.clone(), partition as i32), OffsetSpec::Latest)
                });
                let partitions: Vec<_> = partitions.collect();
                let listed = self.client.admin().list_offsets(&partitions).await.unwrap();
                ends.extend(
                    listed
                        .into_iter()
                        .map(|(partition, end)| (partition, end.ok().and_then(|end| end.offset))),
                );
            }
            if ends != before {
                before = ends;
                since = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything in a topic: partition, key, value and headers.
    pub async fn read(&self, topic: &str) -> Vec<Read> {
        let name = TopicName::new(topic).unwrap();
        let described = self.client.admin().describe_topics(std::slice::from_ref(&name)).await.unwrap();
        let Ok(description) = &described[&name] else { return Vec::new() };
        let partitions: Vec<_> = (0..description.partitions.len())
            .map(|partition| TopicPartition::new(name.clone(), partition as i32))
            .collect();
        let consumer = self.client.consumer(ConsumerConfig::default());
        let ends = consumer.end_offsets(&partitions).await.unwrap();
        let starts: Vec<_> =
            partitions.iter().map(|partition| (partition.clone(), StartAt::Earliest)).collect();
        consumer.assign(&starts).unwrap();
        let mut all = Vec::new();
        let behind = |consumer: &towpath_client::Consumer| {
            ends.iter()
                .any(|(partition, end)| end.get() > consumer.position(partition).map_or(0, |at| at.get()))
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while behind(&consumer) {
            assert!(Instant::now() < deadline, "reading {topic} takes too long");
            for records in consumer.poll(Duration::from_millis(50)).await.unwrap() {
                for record in &records {
                    let record = record.unwrap();
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    all.push(Read {
                        partition: records.partition.partition,
                        key: record.key.map(text),
                        value: record.value.map(text),
                        headers: record
                            .headers
                            .iter()
                            .map(|header| (text(header.key), header.value.unwrap_or_default().to_vec()))
                            .collect(),
                    });
                }
            }
        }
        all
    }
}

/// A record of [`Cluster::read`].
#[derive(Debug, Clone)]
pub struct Read {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: BTreeMap<String, Vec<u8>>,
}

impl Read {
    pub fn header(&self, name: &str) -> String {
        String::from_utf8_lossy(self.headers.get(name).map(Vec::as_slice).unwrap_or_default()).into_owned()
    }
}

/// `name`: upstream → `shop.{table}`.
pub fn capture(name: &str, upstream: &Arc<Upstream>) -> PipelineSpec {
    let mut spec = PipelineSpec::new(name);
    spec.source = Some(SourceSpec {
        kind: "scripted".into(),
        connector: Arc::new(source::ScriptedSource(Arc::clone(upstream))),
        tasks_max: NonZeroU32::MIN,
    });
    spec.topic = Some(TopicTemplate::parse("shop.{table}").unwrap());
    quick(&mut spec);
    spec
}

/// `name`: `shop.*` → target.
pub fn deliver(name: &str, target: &Arc<Target>) -> PipelineSpec {
    let mut spec = PipelineSpec::new(name);
    spec.topics = vec![TopicPattern::parse("shop.*").unwrap()];
    spec.sink = Some(sink_spec(target));
    quick(&mut spec);
    spec
}

pub fn sink_spec(target: &Arc<Target>) -> SinkSpec {
    SinkSpec {
        flush_interval: Duration::from_millis(20),
        ..SinkSpec::new("scripted", Arc::new(sink::ScriptedSink(Arc::clone(target))))
    }
}

fn quick(spec: &mut PipelineSpec) {
    spec.retry.delay_min = Duration::from_millis(10);
    spec.retry.delay_max = Duration::from_millis(200);
    spec.retry.probe = Duration::from_millis(200);
}

/// Waits until every task is done with what there is, or fails the test after three minutes: an Apache Kafka that was
/// killed takes a while to come back to itself.
pub async fn settle(supervisor: &Supervisor) {
    let mut last = String::new();
    let idle = supervisor.until_idle(|progress| {
        last = format!("{:?} {:#?}", progress.waiting_for, progress.status);
    });
    let idle = tokio::time::timeout(Duration::from_secs(180), idle).await;
    match idle {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => panic!("{failure}"),
        Err(_) => panic!("still waiting for {last}"),
    }
}

/// Waits until `what` holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The newest error of a pipeline's first task; empty if there was none.
pub fn error(supervisor: &Supervisor, pipeline: &str) -> TaskError {
    let told = supervisor.pipeline_status(pipeline).unwrap().tasks.remove(0).last_error;
    told.unwrap_or_else(|| TaskError {
        code: String::new(),
        kind: String::new(),
        message: String::new(),
        hint: None,
        path: None,
        at_ms: 0,
    })
}

pub fn keys(records: &[Read]) -> Vec<String> {
    records.iter().filter_map(|record| record.key.clone()).collect()
}

pub fn state(supervisor: &Supervisor, pipeline: &str) -> TaskState {
    supervisor.pipeline_status(pipeline).unwrap().state
}
