//! What is said to a broker, in families: each begins with a broker of its own, and builds up its state in one order.

mod cluster;
mod configs;
mod consumers;
mod data;
mod groups;
mod shares;
mod topics;
mod transactions;
mod versions;

use bytes::Bytes;
use towpath_record::{BatchBuilder, Codec, Compression, Header};
use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::create_topics::{CreatableTopic, CreatableTopicConfig};
use towpath_wire::metadata::MetadataRequestTopic;
use towpath_wire::produce::{PartitionProduceData, TopicProduceData};
use towpath_wire::{
    ApiKey, CreateTopicsRequest, FindCoordinatorRequest, ListGroupsRequest, ListTransactionsRequest,
    MetadataRequest, ProduceRequest,
};
use uuid::Uuid;

use crate::talk::{CLIENT_ID, Exchange, Server, Talk};

/// A family of APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Versions,
    Topics,
    Data,
    Groups,
    Consumers,
    Shares,
    Transactions,
    Configs,
    Cluster,
}

/// All families, in their order.
pub(crate) const ALL: &[Family] = &[
    Family::Versions,
    Family::Topics,
    Family::Data,
    Family::Groups,
    Family::Consumers,
    Family::Shares,
    Family::Transactions,
    Family::Configs,
    Family::Cluster,
];

impl Family {
    /// Says everything, and returns it with the answers.
    pub(crate) async fn run(self, server: Server<'_>) -> Vec<Exchange> {
        let mut talk = Talk::begin(server).await;
        name_cluster(&mut talk).await;
        match self {
            Self::Versions => versions::run(&mut talk).await,
            Self::Topics => topics::run(&mut talk).await,
            Self::Data => data::run(&mut talk).await,
            Self::Groups => groups::run(&mut talk).await,
            Self::Consumers => consumers::run(&mut talk).await,
            Self::Shares => shares::run(&mut talk).await,
            Self::Transactions => transactions::run(&mut talk).await,
            Self::Configs => configs::run(&mut talk).await,
            Self::Cluster => cluster::run(&mut talk).await,
        }
        talk.exchanges
    }
}

/// Lets a name stand for the cluster's id.
async fn name_cluster(talk: &mut Talk<'_>) {
    let response = talk.ask(12, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).await;
    talk.names.text(&response.cluster_id.unwrap(), "cluster");
}

/// What no API can read: every version cut short, and versions that are not advertised.
pub(crate) async fn malformed(server: Server<'_>, exchanges: &[Exchange]) -> Vec<Exchange> {
    let mut talk = Talk::begin(server).await;
    let mut first: Vec<&Exchange> = Vec::new();
    for exchange in exchanges {
        let is_there = first.iter().any(|it| (it.key, it.version) == (exchange.key, exchange.version));
        let versions = ApiKey::try_from(exchange.key).map(ApiKey::stable_versions);
        if !is_there && versions.is_ok_and(|it| it.contains(exchange.version)) {
            first.push(exchange);
        }
    }
    for exchange in &first {
        let cut = &exchange.request[..exchange.request.len() - 1];
        talk.call_raw("cut short by a byte", cut).await;
    }
    for exchange in &first {
        let versions = ApiKey::try_from(exchange.key).unwrap().stable_versions();
        // ApiVersions has an answer for that, and Produce is advertised from version 0 on: they have cases of their own.
        if exchange.version != versions.max || exchange.key == ApiKey::ApiVersions.code() {
            continue;
        }
        let mut frame = exchange.request.clone();
        frame[2..4].copy_from_slice(&(versions.max + 1).to_be_bytes());
        talk.call_raw("is not advertised", &frame).await;
        if versions.min > 0 && exchange.key != ApiKey::Produce.code() {
            frame[2..4].copy_from_slice(&(versions.min - 1).to_be_bytes());
            talk.call_raw("is not advertised", &frame).await;
        }
    }
    // UpdateMetadata, which is gone; AlterPartition, which controllers have; and what nobody has.
    for key in [6i16, ApiKey::AlterPartition.code(), 12_345] {
        talk.call_raw("is no API for clients", &header(key, 2, &[0; 8])).await;
    }
    talk.exchanges
}

/// A frame by hand: a header without tagged fields, and what follows it.
fn header(key: i16, version: i16, rest: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&crate::talk::CORRELATION_ID.to_be_bytes());
    frame.extend_from_slice(&(CLIENT_ID.len() as i16).to_be_bytes());
    frame.extend_from_slice(CLIENT_ID.as_bytes());
    frame.extend_from_slice(rest);
    frame
}

/// When all records were made: an hour that does not move.
const MADE_MS: i64 = 1_700_000_000_000;

/// A topic whose records never grow too old.
fn creatable(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let all = configs.iter().chain(&[("retention.ms", "-1")]);
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: all
            .map(|(name, value)| CreatableTopicConfig {
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect(),
        ..Default::default()
    }
}

/// Makes a topic that is led when this returns.
async fn make(talk: &mut Talk<'_>, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
    let request =
        CreateTopicsRequest { topics: vec![creatable(name, partitions, configs)], ..Default::default() };
    let response = talk.ask(7, &request).await;
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    let id = led(talk, name, partitions).await;
    // Kafka's brokers know a topic a moment before they have it.
    for partition in 0..partitions {
        let request = data::offsets(name, partition, -1);
        talk.until(7, &request, |it| it.topics[0].partitions[0].error_code == 0).await;
    }
    id
}

/// Waits until a topic is led, and gives its id a name.
async fn led(talk: &mut Talk<'_>, name: &str, partitions: i32) -> Uuid {
    let response = talk
        .until(12, &metadata(&[name]), |it| {
            let partitions_led = it.topics[0].partitions.iter().filter(|it| it.error_code == 0).count();
            it.topics[0].error_code == 0 && partitions_led == partitions as usize
        })
        .await;
    talk.names.id(response.topics[0].topic_id);
    response.topics[0].topic_id
}

fn metadata(names: &[&str]) -> MetadataRequest {
    let topics = names
        .iter()
        .map(|name| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() });
    MetadataRequest { topics: Some(topics.collect()), allow_auto_topic_creation: false, ..Default::default() }
}

/// Waits until both coordinators serve.
async fn coordinators(talk: &mut Talk<'_>) {
    for (key_type, topic) in [(0, "__consumer_offsets"), (1, "__transaction_state")] {
        let request = FindCoordinatorRequest {
            key_type,
            coordinator_keys: vec!["any".to_owned()],
            ..Default::default()
        };
        talk.until(4, &request, |it| it.coordinators[0].error_code == 0).await;
        led(talk, topic, 4).await;
    }
    talk.until(0, &ListGroupsRequest::default(), |it| it.error_code == 0).await;
    talk.until(0, &ListTransactionsRequest::default(), |it| it.error_code == 0).await;
    // The lists leave out what is still loading; each partition is seen by a key of its own.
    for n in 0..16 {
        let request =
            towpath_wire::DescribeTransactionsRequest { transactional_ids: vec![format!("probe-{n}")] };
        // TRANSACTIONAL_ID_NOT_FOUND
        talk.until(0, &request, |it| it.transaction_states[0].error_code == 105).await;
        let request =
            towpath_wire::DescribeGroupsRequest { groups: vec![format!("probe-{n}")], ..Default::default() };
        talk.until(0, &request, |it| it.groups[0].error_code == 0).await;
    }
}

/// Who wrote a batch: producer id, epoch, first sequence, and whether in a transaction.
type Producer = Option<(i64, i16, i32, bool)>;

fn batch(producer: Producer, values: &[&str]) -> Bytes {
    batch_with(Compression::None, producer, Some(b"k"), values)
}

fn batch_with(compression: Compression, producer: Producer, key: Option<&[u8]>, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::from(compression));
    if let Some((id, epoch, sequence, is_transactional)) = producer {
        builder.set_producer(ProducerId::new(id), ProducerEpoch::new(epoch), sequence);
        builder.set_transactional(is_transactional);
    }
    for (n, value) in values.iter().enumerate() {
        let headers: [Header<'_>; 0] = [];
        builder.append(MADE_MS + n as i64, key, Some(value.as_bytes()), &headers).unwrap();
    }
    builder.build().unwrap()
}

fn produce(version: i16, topic: (&str, Uuid), partition: i32, records: Option<Bytes>) -> ProduceRequest {
    let mut data = TopicProduceData {
        partition_data: vec![PartitionProduceData { index: partition, records }],
        ..Default::default()
    };
    if version >= 13 {
        data.topic_id = topic.1;
    } else {
        data.name = topic.0.to_owned();
    }
    ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![data], ..Default::default() }
}
