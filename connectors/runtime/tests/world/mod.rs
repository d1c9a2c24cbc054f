//! A small world for the runtime's tests: an upstream log, a target, connectors that honour the traits over both,
//! and Towpath's own broker in process.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each test binary uses its part.

pub mod sink;
pub mod source;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_api::pipeline::{SinkSpec, SourceSpec};
use towpath_api::{PipelineSpec, TopicPattern, TopicTemplate};
use towpath_broker::{Broker, BrokerConfig};
use towpath_client::{Client, ClientConfig, ConsumerConfig, InProcessTransport, OffsetSpec, StartAt};
use towpath_runtime::{Supervisor, SupervisorConfig, TaskState};
use towpath_types::{TopicName, TopicPartition};

pub use sink::Target;
pub use source::Upstream;

/// A broker in this process and a client of it.
pub struct Cluster {
    pub broker: Arc<Broker>,
    pub client: Client,
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = BrokerConfig { offsets_partitions: 2, ..BrokerConfig::new(folder.path()) };
        let broker = Arc::new(Broker::start(config).await.unwrap());
        let accepting = Arc::clone(&broker);
        let transport = InProcessTransport::new(move |stream| accepting.accept_stream(stream));
        let client = Client::connect(ClientConfig {
            bootstrap_servers: vec!["in-process:1".to_owned()],
            transport: Arc::new(transport),
            ..ClientConfig::default()
        })
        .await
        .unwrap();
        Self { broker, client, _folder: folder }
    }

    pub fn config(&self) -> SupervisorConfig {
        SupervisorConfig {
            embedded: true,
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

/// Waits until every task is done with what there is, or fails the test after a minute.
pub async fn settle(supervisor: &Supervisor) {
    let mut last = String::new();
    let idle = supervisor.until_idle(|progress| {
        last = format!("{:?} {:#?}", progress.waiting_for, progress.status);
    });
    let idle = tokio::time::timeout(Duration::from_secs(60), idle).await;
    match idle {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => panic!("{failure}"),
        Err(_) => panic!("still waiting for {last}"),
    }
}

/// Waits until `what` holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn state(supervisor: &Supervisor, pipeline: &str) -> TaskState {
    supervisor.pipeline_status(pipeline).unwrap().state
}
