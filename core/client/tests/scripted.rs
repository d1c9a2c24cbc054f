//! What no real broker can be made to do on demand: answers out of order, errors in a given place, frames of lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use towpath_client::{
    ByteStream, Client, ClientConfig, ClientError, ConsumerConfig, ErrorCode, InProcessTransport, Producer,
    ProducerConfig, ProducerRecord, Transport,
};
use towpath_record::batches;
use towpath_types::{TopicName, TopicPartition};
use towpath_wire::frame::{self, decode_request, encode_response, peek_request};
use towpath_wire::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use towpath_wire::messages::init_producer_id::InitProducerIdResponse;
use towpath_wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use towpath_wire::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use towpath_wire::{ApiKey, Message, Segments};

const TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(77);

/// What the broker says to the next produce request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Append,
    Error(ErrorCode),
    /// It appends, and the connection breaks before the answer.
    AppendAndBreak,
    /// The connection breaks before it appends.
    Break,
}

/// A broker of one partition that keeps Kafka's rules for sequences and otherwise does as the script says.
#[derive(Default)]
struct Broker {
    script: Mutex<Vec<Answer>>,
    log: Mutex<Log>,
    produced: AtomicU32,
}

/// Epoch, and first sequence, last sequence and offset of each batch.
type Produced = (i16, Vec<(i32, i32, i64)>);

#[derive(Default)]
struct Log {
    values: Vec<String>,
    /// By producer id: epoch, and the batches remembered (first and last sequence, offset).
    producers: HashMap<i64, Produced>,
}

impl Log {
    /// Kafka's rules for idempotence, without which the retries of a client prove nothing.
    fn append(&mut self, bytes: &Bytes) -> Result<i64, ErrorCode> {
        let batch = batches(bytes).next().unwrap().unwrap();
        batch.verify_crc().unwrap();
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        let known = self.producers.get(&batch.producer_id.get()).cloned();
        let epoch = batch.producer_epoch.get();
        let mut remembered = Vec::new();
        if let Some((known_epoch, list)) = known {
            if epoch < known_epoch {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            if epoch == known_epoch {
                if let Some((.., offset)) = list.iter().find(|(f, l, _)| (*f, *l) == (first, last)) {
                    return Ok(*offset);
                }
                if list.last().is_some_and(|(_, l, _)| l + 1 != first) {
                    return Err(ErrorCode::OutOfOrderSequenceNumber);
                }
                remembered = list;
            } else if first != 0 {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
        }
        let offset = self.values.len() as i64;
        for record in &batch.records().unwrap() {
            let value = record.unwrap().value.unwrap().to_vec();
            self.values.push(String::from_utf8(value).unwrap());
        }
        remembered.push((first, last, offset));
        let from = remembered.len().saturating_sub(5);
        self.producers.insert(batch.producer_id.get(), (epoch, remembered.split_off(from)));
        Ok(offset)
    }
}

impl Broker {
    async fn serve(self: Arc<Self>, mut stream: DuplexStream) {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(request) = frame::take_frame(&mut buffer, 1 << 20).unwrap() {
                let Some(answer) = self.answer(request) else { return };
                for segment in answer.as_slice() {
                    if stream.write_all(segment).await.is_err() {
                        return;
                    }
                }
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// `None` breaks the connection.
    fn answer(&self, request: Bytes) -> Option<Segments> {
        let peek = peek_request(&request).unwrap();
        let key = ApiKey::try_from(peek.api_key).unwrap();
        let (version, id) = (peek.api_version, peek.correlation_id);
        Some(match key {
            ApiKey::ApiVersions => encode_response(key, version, id, &api_versions()).unwrap(),
            ApiKey::Metadata => {
                let (_, request) = decode_request::<MetadataRequest>(request).unwrap();
                encode_response(key, version, id, &metadata(&request)).unwrap()
            }
            ApiKey::InitProducerId => {
                let response =
                    InitProducerIdResponse { producer_id: 5, producer_epoch: 0, ..Default::default() };
                encode_response(key, version, id, &response).unwrap()
            }
            ApiKey::Produce => {
                let (_, request) = decode_request::<ProduceRequest>(request).unwrap();
                let response = self.produce(&request)?;
                encode_response(key, version, id, &response).unwrap()
            }
            other => panic!("{other} was not to be sent"),
        })
    }

    fn produce(&self, request: &ProduceRequest) -> Option<ProduceResponse> {
        self.produced.fetch_add(1, Ordering::Relaxed);
        let answer = {
            let mut script = self.script.lock();
            if script.is_empty() { Answer::Append } else { script.remove(0) }
        };
        let records = request.topic_data[0].partition_data[0].records.clone().unwrap();
        let appended = match answer {
            Answer::Break => return None,
            Answer::Error(code) => Err(code),
            Answer::Append | Answer::AppendAndBreak => self.log.lock().append(&records),
        };
        if matches!(answer, Answer::AppendAndBreak) {
            return None;
        }
        let partition = PartitionProduceResponse {
            base_offset: appended.unwrap_or(-1),
            error_code: appended.err().map_or(0, ErrorCode::code),
            ..Default::default()
        };
        Some(ProduceResponse {
            responses: vec![TopicProduceResponse {
                topic_id: TOPIC_ID,
                partition_responses: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        })
    }
}

fn api_versions() -> ApiVersionsResponse {
    let keys = [ApiKey::Produce, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::ApiVersions];
    let api_keys = keys.map(|key| {
        let versions = key.stable_versions();
        ApiVersion { api_key: key.code(), min_version: versions.min, max_version: versions.max }
    });
    ApiVersionsResponse { api_keys: api_keys.to_vec(), ..Default::default() }
}

fn metadata(request: &MetadataRequest) -> MetadataResponse {
    let topic = |name: String| MetadataResponseTopic {
        name: Some(name),
        topic_id: TOPIC_ID,
        partitions: vec![MetadataResponsePartition { leader_id: 1, leader_epoch: 0, ..Default::default() }],
        ..Default::default()
    };
    let named = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
    MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: 1, host: "scripted".into(), port: 1, rack: None }],
        topics: named.map(topic).collect(),
        ..Default::default()
    }
}

async fn client(broker: &Arc<Broker>) -> Client {
    let broker = Arc::clone(broker);
    let transport =
        InProcessTransport::new(move |stream| drop(tokio::spawn(Arc::clone(&broker).serve(stream))));
    connect(transport, 5_000).await.unwrap()
}

async fn connect(transport: InProcessTransport, request_timeout_ms: u64) -> Result<Client, ClientError> {
    let config = ClientConfig {
        bootstrap_servers: vec!["scripted:1".to_owned()],
        transport: Arc::new(transport),
        request_timeout_ms,
        connect_timeout_ms: request_timeout_ms,
        retry_backoff_ms: 5,
        retry_backoff_ms_max: 20,
        reconnect_backoff_ms: 1,
        ..Default::default()
    };
    Client::connect(config).await
}

/// Sends `count` numbers as batches of one record each, so that many are in flight.
async fn send(producer: &Producer, topic: &TopicName, range: std::ops::Range<u32>) {
    for number in range {
        let value = number.to_string();
        let record = ProducerRecord { value: Some(value.as_bytes()), ..ProducerRecord::new(topic) };
        if let Err(error) = producer.send(record).await {
            // Only a producer that has stopped refuses.
            assert!(error.code().is_some(), "{error}");
        }
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Runs a script and returns what is in the log in the end.
async fn run(script: &[Answer], count: u32) -> (Result<(), ClientError>, Vec<String>, u32) {
    run_with(script, count, ProducerConfig::default()).await
}

async fn run_with(
    script: &[Answer],
    count: u32,
    config: ProducerConfig,
) -> (Result<(), ClientError>, Vec<String>, u32) {
    let broker = Arc::new(Broker::default());
    *broker.script.lock() = script.to_vec();
    let client = client(&broker).await;
    let producer = client.producer(ProducerConfig { batch_bytes: 1, ..config });
    let topic = TopicName::new("t").unwrap();
    send(&producer, &topic, 0..count).await;
    let result = tokio::time::timeout(Duration::from_secs(20), producer.flush()).await.unwrap();
    let values = broker.log.lock().values.clone();
    (result, values, broker.produced.load(Ordering::Relaxed))
}

#[tokio::test]
async fn retriable_errors_change_neither_order_nor_number() {
    use Answer::{Append, Error};
    for code in [ErrorCode::NotLeaderOrFollower, ErrorCode::NotEnoughReplicas, ErrorCode::UnknownTopicId] {
        let script = [Error(code), Append, Error(code), Append, Error(code), Error(code), Append];
        let (result, values, requests) = run(&script, 40).await;
        result.unwrap();
        assert_eq!(values, numbers(0..40), "{code}");
        assert!(requests > 40);
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_append_twice() {
    use Answer::{Append, AppendAndBreak, Break};
    let script = [AppendAndBreak, Append, Append, AppendAndBreak, Append, Break, Append, AppendAndBreak];
    let (result, values, _) = run(&script, 40).await;
    result.unwrap();
    assert_eq!(values, numbers(0..40));
}

#[tokio::test]
async fn after_a_refused_batch_a_new_epoch_goes_on_without_it() {
    use Answer::{Append, Error};
    let script = [Append, Append, Error(ErrorCode::MessageTooLarge)];
    let (result, values, _) = run(&script, 40).await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    let mut expected = numbers(0..40);
    expected.remove(2);
    assert_eq!(values, expected, "the others are there once, in order");
}

#[tokio::test]
async fn a_producer_that_stops_at_a_failure_leaves_a_prefix() {
    use Answer::{Append, AppendAndBreak, Error};
    let config = || ProducerConfig { stop_after_failure: true, ..Default::default() };
    for code in
        [ErrorCode::MessageTooLarge, ErrorCode::InvalidProducerEpoch, ErrorCode::TopicAuthorizationFailed]
    {
        for before in [1, 2, 7] {
            let mut script = vec![Append; before];
            script.extend([Error(code), Append, AppendAndBreak]);
            let (result, values, _) = run_with(&script, 40, config()).await;
            assert_eq!(result.unwrap_err().code(), Some(code));
            assert_eq!(values, numbers(0..before as u32), "{code}: nothing behind what was refused");
        }
    }
    let (result, values, _) =
        run_with(&[Append, AppendAndBreak, Append, Error(ErrorCode::NotLeaderOrFollower)], 40, config())
            .await;
    result.unwrap();
    assert_eq!(values, numbers(0..40), "what is tried again is no failure");
}

/// Connecting takes a while.
#[derive(Debug)]
struct Slow(InProcessTransport);

#[async_trait::async_trait]
impl Transport for Slow {
    async fn connect(&self, host: &str, port: u16) -> std::io::Result<Box<dyn ByteStream>> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.0.connect(host, port).await
    }
}

#[tokio::test]
async fn who_is_not_polled_any_more_holds_up_nobody() {
    let topic = TopicName::new("t").unwrap();
    let partition = [TopicPartition::new(topic, 0)];
    for polled_for_ms in [1, 10, 30, 60] {
        let broker = Arc::new(Broker::default());
        let transport =
            InProcessTransport::new(move |stream| drop(tokio::spawn(Arc::clone(&broker).serve(stream))));
        let config = ClientConfig {
            bootstrap_servers: vec!["scripted:1".to_owned()],
            transport: Arc::new(Slow(transport)),
            ..Default::default()
        };
        let client = Client::connect(config).await.unwrap();
        let consumer = client.consumer(ConsumerConfig::default());
        // Asks the leader, to which there is no connection yet; and stays where it is then.
        let mut kept = std::pin::pin!(consumer.end_offsets(&partition));
        let _early = tokio::time::timeout(Duration::from_millis(polled_for_ms), &mut kept).await;
        let other = consumer.end_offsets(&partition);
        let answer = tokio::time::timeout(Duration::from_secs(20), other).await;
        let answer = answer.expect("it waits for what nobody polls");
        // The scripted broker has no ListOffsets.
        assert!(matches!(answer, Err(ClientError::UnsupportedApi { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn a_broker_that_forgot_the_producer_is_told_anew() {
    use Answer::{Append, Error};
    let script = [Append, Append, Error(ErrorCode::UnknownProducerId), Append];
    let (result, values, _) = run(&script, 30).await;
    result.unwrap();
    assert_eq!(values, numbers(0..30));
}

#[tokio::test]
async fn what_is_so_old_that_kafka_forgets_who_sent_it_is_not_sent_twice_by_who_must_not_double_anything() {
    for old in [true, false] {
        let broker = Arc::new(Broker::default());
        *broker.script.lock() = vec![Answer::Append, Answer::Append, Answer::AppendAndBreak];
        let client = client(&broker).await;
        let config = ProducerConfig { batch_bytes: 1, stop_after_failure: true, ..Default::default() };
        let (producer, topic) = (client.producer(config), TopicName::new("t").unwrap());
        for number in 0..10 {
            let value = number.to_string();
            let timestamp_ms = old.then_some(1_700_000_000_000);
            let record =
                ProducerRecord { value: Some(value.as_bytes()), timestamp_ms, ..ProducerRecord::new(&topic) };
            if producer.send(record).await.is_err() {
                assert!(old, "nothing is wrong");
            }
        }
        let result = tokio::time::timeout(Duration::from_secs(20), producer.flush()).await.unwrap();
        assert_eq!(result.is_err(), old, "{result:?}");
        let written = broker.log.lock().values.clone();
        // The broker of the script never forgets; what counts is that it is not asked to remember.
        assert_eq!(broker.produced.load(Ordering::Relaxed), if old { 3 } else { 11 }, "{written:?}");
        assert_eq!(written, numbers(0..if old { 3 } else { 10 }));
    }
}

#[tokio::test]
async fn random_trouble_changes_neither_order_nor_number() {
    use rand::{Rng, SeedableRng};
    for seed in 0..40 {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let script: Vec<Answer> = (0..60)
            .map(|_| match rng.random_range(0..10) {
                0 => Answer::Break,
                1 => Answer::AppendAndBreak,
                2 => Answer::Error(ErrorCode::NotLeaderOrFollower),
                3 => Answer::Error(ErrorCode::RequestTimedOut),
                _ => Answer::Append,
            })
            .collect();
        let (result, values, _) = run(&script, 60).await;
        result.unwrap();
        assert_eq!(values, numbers(0..60), "seed {seed}");
    }
}

/// A transport whose connections are all given to `then`.
fn misbehaving<F>(then: impl Fn(DuplexStream) -> F + Send + Sync + 'static) -> InProcessTransport
where
    F: Future<Output = ()> + Send + 'static,
{
    InProcessTransport::new(move |stream| drop(tokio::spawn(then(stream))))
}

#[tokio::test]
async fn a_silent_broker_is_a_timeout_with_its_name() {
    let transport = misbehaving(|stream| async move {
        let _open = stream;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let error = connect(transport, 200).await.unwrap_err();
    let ClientError::Bootstrap { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, ClientError::RequestTimeout { api: ApiKey::ApiVersions, .. }), "{source}");
    assert_eq!(error.broker(), Some("scripted:1"));
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_frame_of_gigabytes_is_refused_without_memory_for_it() {
    let transport = misbehaving(|mut stream| async move {
        let _ = stream.write_all(&i32::MAX.to_be_bytes()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let error = connect(transport, 2_000).await.unwrap_err();
    let ClientError::Bootstrap { source, .. } = &error else { panic!("{error}") };
    let ClientError::Disconnected { reason, .. } = &**source else { panic!("{source}") };
    assert!(reason.contains("2147483647"), "{reason}");
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let transport = misbehaving(|mut stream| async move {
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 99]).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    assert!(connect(transport, 2_000).await.is_err());
}

#[tokio::test]
async fn a_broker_without_our_version_of_api_versions_is_asked_at_its_own() {
    // KIP-511: an unknown version is answered at version 0, with the versions that there are.
    let transport = misbehaving(|mut stream| async move {
        let mut buffer = BytesMut::new();
        let broker = Broker::default();
        loop {
            while let Some(request) = frame::take_frame(&mut buffer, 1 << 20).unwrap() {
                let peek = peek_request(&request).unwrap();
                let key = ApiKey::ApiVersions;
                let answer = if peek.api_key == key.code() && peek.api_version > 2 {
                    let range = ApiVersion { api_key: key.code(), min_version: 0, max_version: 2 };
                    let response = ApiVersionsResponse {
                        error_code: ErrorCode::UnsupportedVersion.code(),
                        api_keys: vec![range],
                        ..Default::default()
                    };
                    assert!(ApiVersionsResponse::VERSIONS.contains(0));
                    encode_response(key, 0, peek.correlation_id, &response).unwrap()
                } else {
                    broker.answer(request).unwrap()
                };
                stream.write_all(&answer.into_bytes()).await.unwrap();
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
    });
    connect(transport, 2_000).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_an_error_with_a_hint() {
    let config = ClientConfig { bootstrap_servers: vec!["127.0.0.1:1".to_owned()], ..Default::default() };
    let error = Client::connect(config).await.unwrap_err();
    assert!(matches!(error, ClientError::Bootstrap { .. }), "{error}");
    assert!(error.is_retriable() && error.hint().is_some());
    let wrong = ClientConfig { bootstrap_servers: vec!["no-port".to_owned()], ..Default::default() };
    assert!(matches!(Client::connect(wrong).await.unwrap_err(), ClientError::Usage(_)));
}
