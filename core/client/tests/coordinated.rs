//! Transactions and hanging ones against a cluster that breaks connections and moves coordinators on demand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod script;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use script::{Asked, Script, nodes};
use towpath_client::{
    Client, Ended, ErrorCode, ProducerConfig, ProducerRecord, TransactionConfig, TransactionalProducer,
};
use towpath_record::batches;
use towpath_types::{TopicName, TopicPartition};
use towpath_wire::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use towpath_wire::messages::find_coordinator::Coordinator as Found;
use towpath_wire::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};
use towpath_wire::messages::produce::{PartitionProduceResponse, TopicProduceResponse};
use towpath_wire::messages::{describe_producers, describe_transactions, list_transactions};
use towpath_wire::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest,
    EndTxnResponse, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse,
};

const TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(77);

/// A coordinator and a log, with the rules of both versions; trouble comes from a seed.
struct World {
    v2: bool,
    rng: rand::rngs::StdRng,
    trouble: u32,
    coordinator: u16,
    /// No coordinator is there.
    gone: bool,
    epoch: i16,
    ongoing: bool,
    last: Option<bool>,
    /// The partition's producer: its epoch, and the next sequence.
    producer: (i16, i32),
    open: Vec<String>,
    committed: Vec<String>,
}

enum Luck {
    Good,
    /// The request gets lost.
    LostBefore,
    /// The answer gets lost.
    LostAfter,
    Refused(ErrorCode),
}

impl World {
    fn new(v2: bool, seed: u64, trouble: u32) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            v2,
            rng: rand::rngs::StdRng::seed_from_u64(seed),
            trouble,
            coordinator: 1,
            gone: false,
            epoch: -1,
            ongoing: false,
            last: None,
            producer: (-1, 0),
            open: Vec::new(),
            committed: Vec::new(),
        }))
    }

    fn luck(&mut self, refusals: &[ErrorCode]) -> Luck {
        if self.trouble == 0 || !self.rng.random_ratio(self.trouble, 100) {
            return Luck::Good;
        }
        match self.rng.random_range(0..2 + refusals.len()) {
            0 => Luck::LostBefore,
            1 => Luck::LostAfter,
            refusal => Luck::Refused(refusals[refusal - 2]),
        }
    }

    /// What happens to a request to the coordinator: its code, or `None` for a broken connection.
    fn coordinate(&mut self, asked: Asked, act: impl FnOnce(&mut Self) -> ErrorCode) -> Option<ErrorCode> {
        if self.gone {
            return Some(ErrorCode::CoordinatorNotAvailable);
        }
        if asked.node != self.coordinator {
            return Some(ErrorCode::NotCoordinator);
        }
        if self.trouble > 0 && self.rng.random_ratio(1, 20) {
            self.coordinator = 3 - self.coordinator;
            return Some(ErrorCode::NotCoordinator);
        }
        match self.luck(&[ErrorCode::ConcurrentTransactions, ErrorCode::CoordinatorLoadInProgress]) {
            Luck::Good => Some(act(self)),
            Luck::LostBefore => None,
            Luck::LostAfter => {
                act(self);
                None
            }
            Luck::Refused(code) => Some(code),
        }
    }

    fn init(&mut self, request: &InitProducerIdRequest) -> ErrorCode {
        assert_eq!(request.transactional_id.as_deref(), Some("tx"));
        if request.producer_epoch > self.epoch {
            return ErrorCode::ProducerFenced;
        }
        assert!(!self.ongoing, "the epoch is left while a transaction is open");
        self.epoch += 1;
        self.last = None;
        ErrorCode::None
    }

    fn end(&mut self, request: &EndTxnRequest, version: i16) -> ErrorCode {
        assert_eq!(version >= 5, self.v2, "the version says who bumps the epoch");
        if self.v2 && request.producer_epoch + 1 == self.epoch && self.last == Some(request.committed) {
            return ErrorCode::None;
        }
        if request.producer_epoch != self.epoch {
            return ErrorCode::ProducerFenced;
        }
        if !self.ongoing && (self.v2 && request.committed || !self.v2 && self.last != Some(request.committed))
        {
            return ErrorCode::InvalidTxnState;
        }
        let open = std::mem::take(&mut self.open);
        if request.committed {
            self.committed.extend(open);
        }
        self.ongoing = false;
        self.last = Some(request.committed);
        self.epoch += i16::from(self.v2);
        ErrorCode::None
    }

    fn append(&mut self, request: &ProduceRequest, version: i16) -> Result<(), ErrorCode> {
        assert_eq!(request.transactional_id.as_deref(), Some("tx"));
        assert_eq!(version >= 12, self.v2, "the version says who adds the partition");
        let records = request.topic_data[0].partition_data[0].records.clone().unwrap();
        let batch = batches(&records).next().unwrap().unwrap();
        assert!(batch.is_transactional());
        let (epoch, sequence) = (batch.producer_epoch.get(), batch.base_sequence);
        if epoch != self.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if !self.v2 && !self.ongoing {
            return Err(ErrorCode::InvalidTxnState);
        }
        if self.producer.0 != epoch {
            self.producer = (epoch, 0);
        }
        let count = batch.record_count;
        if sequence < self.producer.1 {
            return Ok(());
        }
        if sequence > self.producer.1 {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
        self.producer.1 += count;
        (self.ongoing, self.last) = (true, None);
        for record in &batch.records().unwrap() {
            self.open.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
        Ok(())
    }

    fn produce(&mut self, request: &ProduceRequest, asked: Asked) -> Option<ProduceResponse> {
        let code = match self.luck(&[ErrorCode::NotEnoughReplicas, ErrorCode::NotLeaderOrFollower]) {
            Luck::Good => self.append(request, asked.version).err(),
            Luck::LostBefore => return None,
            Luck::LostAfter => {
                let _ = self.append(request, asked.version);
                return None;
            }
            Luck::Refused(code) => Some(code),
        };
        let partition =
            PartitionProduceResponse { error_code: code.map_or(0, ErrorCode::code), ..Default::default() };
        let by_id = asked.version > 12;
        let topic = TopicProduceResponse {
            name: if by_id { String::new() } else { "t".to_owned() },
            topic_id: if by_id { TOPIC_ID } else { uuid::Uuid::nil() },
            partition_responses: vec![partition],
        };
        Some(ProduceResponse { responses: vec![topic], ..Default::default() })
    }
}

fn metadata(request: &MetadataRequest) -> MetadataResponse {
    let topic = |name: String| MetadataResponseTopic {
        name: Some(name),
        topic_id: TOPIC_ID,
        partitions: vec![MetadataResponsePartition { leader_id: 1, leader_epoch: 0, ..Default::default() }],
        ..Default::default()
    };
    let named = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
    MetadataResponse { topics: named.map(topic).collect(), ..nodes() }
}

fn find(request: FindCoordinatorRequest, node: u16) -> FindCoordinatorResponse {
    assert_eq!(request.key_type, 1, "a transactional id has a coordinator of its own");
    let found = Found {
        key: request.coordinator_keys[0].clone(),
        node_id: i32::from(node),
        host: "scripted".into(),
        port: i32::from(node),
        ..Default::default()
    };
    FindCoordinatorResponse { coordinators: vec![found], ..Default::default() }
}

fn script(world: &Arc<Mutex<World>>) -> Script {
    let of = || Arc::clone(world);
    let (finding, initing, adding, ending, producing) = (of(), of(), of(), of(), of());
    let script = Script::default()
        .feature("transaction.version", if world.lock().v2 { 2 } else { 0 })
        .with(|request: MetadataRequest| metadata(&request))
        .with(move |request: FindCoordinatorRequest| find(request, finding.lock().coordinator))
        .on(move |request: InitProducerIdRequest, asked| {
            let mut world = initing.lock();
            let code = world.coordinate(asked, |world| world.init(&request))?;
            let known = code == ErrorCode::None;
            Some(InitProducerIdResponse {
                error_code: code.code(),
                producer_id: if known { 7 } else { -1 },
                producer_epoch: if known { world.epoch } else { -1 },
                ..Default::default()
            })
        })
        .on(move |request: EndTxnRequest, asked| {
            let mut world = ending.lock();
            let code = world.coordinate(asked, |world| world.end(&request, asked.version))?;
            let told = world.v2 && code == ErrorCode::None;
            Some(EndTxnResponse {
                error_code: code.code(),
                producer_id: if told { 7 } else { -1 },
                producer_epoch: if told { world.epoch } else { -1 },
                ..Default::default()
            })
        })
        .on(move |request: ProduceRequest, asked| producing.lock().produce(&request, asked));
    script.on(move |request: AddPartitionsToTxnRequest, asked| {
        let mut world = adding.lock();
        assert!(!world.v2, "the brokers add partitions themselves");
        assert!(asked.version <= 3, "later versions are the brokers'");
        let code = world.coordinate(asked, |world| {
            if request.v3_and_below_producer_epoch != world.epoch {
                return ErrorCode::InvalidProducerEpoch;
            }
            (world.ongoing, world.last) = (true, None);
            ErrorCode::None
        })?;
        let result =
            AddPartitionsToTxnPartitionResult { partition_index: 0, partition_error_code: code.code() };
        let topic = AddPartitionsToTxnTopicResult { name: "t".into(), results_by_partition: vec![result] };
        Some(AddPartitionsToTxnResponse { results_by_topic_v3_and_below: vec![topic], ..Default::default() })
    })
}

async fn producer(client: &Client) -> TransactionalProducer {
    let mut config = TransactionConfig::new("tx");
    config.producer = ProducerConfig { batch_bytes: 1, linger_ms: 0, ..Default::default() };
    client.transactional_producer(config).await.unwrap()
}

/// Runs transactions of ten records each; every third is aborted. What is to be visible in the end.
async fn transact(producer: &TransactionalProducer, count: u32) -> Vec<String> {
    let topic = TopicName::new("t").unwrap();
    let mut visible = Vec::new();
    for number in 0..count {
        let transaction = producer.begin().await.unwrap();
        let values: Vec<String> = (0..10).map(|record| format!("{number}.{record}")).collect();
        let mut failed = false;
        for value in &values {
            let record = ProducerRecord { value: Some(value.as_bytes()), ..ProducerRecord::new(&topic) };
            if let Err(error) = transaction.send(record).await {
                assert!(error.is_abortable(), "{error}");
                failed = true;
                break;
            }
        }
        if number % 3 == 2 {
            transaction.abort().await.unwrap();
            assert_eq!(producer.settle().await.unwrap(), Some(Ended::Aborted));
            continue;
        }
        match transaction.commit().await {
            Ok(()) => {
                assert!(!failed);
                visible.extend(values);
            }
            Err(error) => assert!(error.is_abortable(), "{error}"),
        }
    }
    visible
}

#[tokio::test]
async fn both_versions_commit_and_abort() {
    for v2 in [false, true] {
        let world = World::new(v2, 0, 0);
        let client = script(&world).client().await;
        let producer = producer(&client).await;
        let visible = transact(&producer, 9).await;
        assert_eq!((visible.len(), &visible), (60, &world.lock().committed), "v2: {v2}");
        // Each end of the second version has an epoch of its own; the first version keeps its one.
        assert_eq!(world.lock().epoch, if v2 { 9 } else { 0 });
        assert_eq!(producer.identity().unwrap().1.get(), world.lock().epoch);
    }
}

#[tokio::test]
async fn whatever_breaks_a_commit_is_whole_and_an_abort_leaves_nothing() {
    for seed in 0..30 {
        let world = World::new(seed % 2 == 0, seed, 15);
        let client = script(&world).client().await;
        let producer = producer(&client).await;
        let visible = tokio::time::timeout(Duration::from_secs(60), transact(&producer, 12)).await.unwrap();
        assert_eq!(visible, world.lock().committed, "seed {seed}");
    }
}

#[tokio::test]
async fn a_commit_that_is_not_answered_in_time_goes_on_and_can_be_asked_for() {
    let world = World::new(true, 0, 0);
    let client = script(&world).client().await;
    let mut config = TransactionConfig::new("tx");
    config.producer = ProducerConfig { max_block_ms: 200, ..Default::default() };
    let producer = client.transactional_producer(config).await.unwrap();
    let topic = TopicName::new("t").unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(ProducerRecord { value: Some(b"x"), ..ProducerRecord::new(&topic) }).await.unwrap();
    transaction.flush().await.unwrap();
    world.lock().gone = true;
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, towpath_client::ClientError::Timeout { .. }), "{error}");
    assert!(producer.begin().await.is_err(), "nothing begins before it is over");
    world.lock().gone = false;
    assert_eq!(producer.settle().await.unwrap(), Some(Ended::Committed));
    assert_eq!(world.lock().committed, ["x"]);
}

#[tokio::test]
async fn a_transaction_that_no_coordinator_knows_is_found_hanging() {
    let partition = |name: &str| TopicPartition::new(TopicName::new(name).unwrap(), 0);
    let client = Script::default()
        .with(|request: MetadataRequest| metadata(&request))
        .with(|request: FindCoordinatorRequest| find(request, 2))
        .with(|request: DescribeProducersRequest| {
            let state =
                |producer_id, current_txn_start_offset, last_timestamp| describe_producers::ProducerState {
                    producer_id,
                    producer_epoch: 3,
                    last_timestamp,
                    current_txn_start_offset,
                    coordinator_epoch: -1,
                    ..Default::default()
                };
            let young = i64::MAX / 2;
            let partition = describe_producers::PartitionResponse {
                active_producers: vec![state(1, 5, 1), state(2, 6, 1), state(3, -1, 1), state(4, 7, young)],
                ..Default::default()
            };
            let topic = describe_producers::TopicResponse {
                name: request.topics[0].name.clone(),
                partitions: vec![partition],
            };
            DescribeProducersResponse { topics: vec![topic], ..Default::default() }
        })
        .on(|request: ListTransactionsRequest, asked| {
            assert_eq!(request.producer_id_filters, [1, 2]);
            let state = list_transactions::TransactionState {
                transactional_id: "known".into(),
                producer_id: 2,
                transaction_state: "Ongoing".into(),
            };
            let transaction_states = if asked.node == 2 { vec![state] } else { vec![] };
            Some(ListTransactionsResponse { transaction_states, ..Default::default() })
        })
        .with(|request: DescribeTransactionsRequest| {
            assert_eq!(request.transactional_ids, ["known"]);
            let topic = describe_transactions::TopicData { topic: "a".into(), partitions: vec![0] };
            let state = describe_transactions::TransactionState {
                producer_id: 2,
                topics: vec![topic],
                ..Default::default()
            };
            DescribeTransactionsResponse { transaction_states: vec![state], ..Default::default() }
        })
        .client()
        .await;
    let wanted = [partition("a"), partition("b")];
    let age = Duration::from_secs(900);
    let found = client.admin().find_hanging_transactions(&wanted, age).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|it| (it.abort.partition.topic.as_str(), it.abort.producer_id.get(), it.start.get()))
        .collect();
    // Producer 2 is known to be open in `a`, and not in `b`.
    assert_eq!(found, [("a", 1, 5), ("b", 1, 5), ("b", 2, 6)]);
}
