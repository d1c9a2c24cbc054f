//! A broker in this process, and a client that speaks the protocol by hand.

#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use towpath_broker::{Broker, BrokerConfig, BrokerError};
use towpath_log::LogError;
use towpath_record::{BatchBuilder, Codec, Compression, Header, batches};
use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::create_topics::{CreatableTopic, CreatableTopicConfig};
use towpath_wire::fetch::{FetchPartition, FetchTopic, PartitionData};
use towpath_wire::frame::{decode_response, encode_request};
use towpath_wire::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use towpath_wire::{
    CreateTopicsRequest, ErrorCode, FetchRequest, FetchResponse, InitProducerIdRequest, MetadataRequest,
    ProduceRequest, Request,
};
use uuid::Uuid;

/// How long anything in a test may take, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Puts a directory where a file should be written: as on a disk that has gone bad.
pub(crate) async fn spoil(dir: &std::path::Path, file: &str) {
    // The file may just be there.
    until("the directory is in the file's place", || std::fs::create_dir(dir.join(file)).is_ok()).await;
}

/// A broker over a temporary directory.
pub(crate) struct TestBroker {
    pub(crate) broker: Broker,
    pub(crate) dir: TempDir,
}

impl TestBroker {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut BrokerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, adjust).await
    }

    pub(crate) async fn start_in(dir: TempDir, adjust: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::new(dir.path());
        config.offsets_partitions = 3;
        adjust(&mut config);
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Broker::start(config.clone()).await {
                // The last connections of the broker before may still be on their way out.
                Err(BrokerError::Log(LogError::Locked(_))) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                started => return Self { broker: started.unwrap(), dir },
            }
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(&self.broker)
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    correlation_id: i32,
}

impl Client {
    /// A connection to a broker.
    pub(crate) fn of(broker: &Broker) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        broker.accept_stream(theirs);
        Self { stream: ours, correlation_id: 0 }
    }

    /// Sends a request and returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.send_as(version, request, Some("test")).await
    }

    pub(crate) async fn send_as<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        client_id: Option<&str>,
    ) -> i32 {
        self.correlation_id += 1;
        let frame = encode_request(request, version, self.correlation_id, client_id).unwrap();
        self.stream.write_all(&frame.into_bytes()).await.unwrap();
        self.correlation_id
    }

    /// The next frame, without its length; `None` when the connection is closed.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        tokio::time::timeout(PATIENCE, async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(frame.freeze())
        })
        .await
        .expect("the broker answers in time")
    }

    /// The answer to a request.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let frame = self.frame().await.expect("the connection is open");
        let (header, response) = decode_response::<R>(frame, version).unwrap();
        assert_eq!(header.correlation_id, correlation_id, "answers come in the order of the requests");
        response
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        self.receive::<R>(version, id).await
    }

    /// Creates a topic with its configurations.
    pub(crate) async fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Uuid {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs
                    .iter()
                    .map(|(name, value)| CreatableTopicConfig {
                        name: (*name).to_owned(),
                        value: Some((*value).to_owned()),
                    })
                    .collect(),
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let response = self.call(7, &request).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
        response.topics[0].topic_id
    }

    /// The names of all topics.
    pub(crate) async fn topics(&mut self) -> BTreeMap<String, usize> {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let response = self.call(12, &request).await;
        response.topics.into_iter().map(|topic| (topic.name.unwrap(), topic.partitions.len())).collect()
    }

    /// Produces one batch.
    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let response = self.call(9, &produce_request(topic, partition, -1, batch)).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// Fetches from one partition, without a session.
    pub(crate) async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let response = self.call(12, &fetch_request(topic, partition, offset)).await;
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].clone()
    }
}

/// A batch of these values, uncompressed, without keys.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_with(Compression::None, None, values)
}

/// A batch of these values.
pub(crate) fn batch_with(
    compression: Compression,
    producer: Option<(i64, i16, i32)>,
    values: &[&str],
) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::from(compression));
    if let Some((id, epoch, sequence)) = producer {
        builder.set_producer(ProducerId::new(id), ProducerEpoch::new(epoch), sequence);
    }
    for value in values {
        let headers: [Header<'_>; 0] = [];
        builder.append(now_ms(), None, Some(value.as_bytes()), &headers).unwrap();
    }
    builder.build().unwrap()
}

/// A request for the identity of a producer without transactions.
pub(crate) fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() }
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

pub(crate) fn produce_request(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData { index: partition, records: Some(records) }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

pub(crate) fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// The records of a fetched partition: offset and value.
pub(crate) fn records(data: &PartitionData) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    for batch in batches(data.records.as_ref().unwrap()) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in &batch.records().unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            all.push((record.offset.get(), value));
        }
    }
    all
}

pub(crate) fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

pub(crate) fn fetched(response: &FetchResponse) -> Vec<(String, i32)> {
    response
        .responses
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|p| (topic.topic.clone(), p.partition_index)))
        .collect()
}
