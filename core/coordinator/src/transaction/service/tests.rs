//! The driver over a log and brokers in memory that can be slow, and can fail.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use towpath_types::{BrokerId, LeaderEpoch, Offset, Term};
use towpath_wire::add_partitions_to_txn::AddPartitionsToTxnTopic;
use towpath_wire::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
};
use towpath_wire::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::*;
use crate::log::{CoordinatorBatch, LoadedChunk, LoadedEntry};
use crate::service::PartitionState;

/// A state topic, a supply of producer ids, and two brokers that have a partition `t` each.
struct Cluster {
    exists: AtomicBool,
    leads: AtomicBool,
    term: AtomicU64,
    /// How many leader epochs have begun beside those of new terms.
    elections: AtomicU64,
    records: Mutex<HashMap<i32, Vec<LoadedEntry>>>,
    appends: AtomicU64,
    /// One permit per append or read that may finish.
    permits: Semaphore,
    next_id: AtomicI64,
    /// The election that the broker's metadata have.
    metadata_epoch: AtomicI32,
    /// Who leads which partition; the others are gone.
    leaders: Mutex<BTreeMap<TopicPartition, MarkerLeader>>,
    /// What the brokers were sent.
    sent: Mutex<Vec<(BrokerId, WriteTxnMarkersRequest)>>,
    /// What they answer; `None` when nothing.
    answer: Mutex<Option<ErrorCode>>,
}

impl Cluster {
    fn new() -> Arc<Self> {
        let leaders =
            [(0, MarkerLeader::Broker(BrokerId::new(1))), (1, MarkerLeader::Broker(BrokerId::new(2)))];
        let leaders = leaders.into_iter().map(|(index, leader)| (partition(index), leader));
        Arc::new(Self {
            exists: AtomicBool::new(true),
            leads: AtomicBool::new(true),
            term: AtomicU64::new(1),
            elections: AtomicU64::new(0),
            records: Mutex::default(),
            appends: AtomicU64::new(0),
            permits: Semaphore::new(1_000_000),
            next_id: AtomicI64::new(100),
            metadata_epoch: AtomicI32::new(i32::MAX),
            leaders: Mutex::new(leaders.collect()),
            sent: Mutex::default(),
            answer: Mutex::new(Some(ErrorCode::None)),
        })
    }

    /// From now on no append and no read finishes without a permit.
    fn hold(&self) {
        self.permits.forget_permits(usize::MAX >> 4);
    }

    fn coordinator(self: &Arc<Self>) -> TransactionCoordinator {
        let (log, ids, markers): (Arc<dyn CoordinatorLog>, Arc<dyn ProducerIds>, Arc<dyn Markers>) =
            (Arc::clone(self) as _, Arc::clone(self) as _, Arc::clone(self) as _);
        let clock = Arc::new(PausedClock(tokio::time::Instant::now()));
        TransactionCoordinator::with_clock(TransactionConfig::default(), log, ids, markers, clock)
    }

    async fn active(self: &Arc<Self>) -> TransactionCoordinator {
        let coordinator = self.coordinator();
        coordinator.start();
        settle(&coordinator, PartitionState::Active).await;
        coordinator
    }

    /// The markers that a broker was sent, in order.
    fn markers(&self, broker: i32) -> Vec<WritableTxnMarker> {
        let sent = self.sent.lock();
        let requests = sent.iter().filter(|(to, _)| to.get() == broker);
        requests.flat_map(|(_, request)| request.markers.clone()).collect()
    }
}

/// The wall clock goes with tokio's paused time.
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as i64
    }
}

#[async_trait]
impl CoordinatorLog for Cluster {
    fn partition_count(&self) -> Option<i32> {
        self.exists.load(Ordering::SeqCst).then_some(2)
    }

    async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        self.exists.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn batch_bytes_max(&self, _: i32) -> usize {
        1024 * 1024
    }

    fn term(&self, _: i32) -> Option<Term> {
        let number = self.term.load(Ordering::SeqCst);
        let elections = self.elections.load(Ordering::SeqCst);
        let leader_epoch = LeaderEpoch::new((number + elections) as i32 + 40);
        self.leads.load(Ordering::SeqCst).then_some(Term { leader_epoch, number })
    }

    async fn append(
        &self,
        partition: i32,
        term: Term,
        batch: CoordinatorBatch<'_>,
    ) -> Result<(), CoordinatorLogError> {
        self.permits.acquire().await.unwrap().forget();
        if self.term(partition) != Some(term) {
            return Err(CoordinatorLogError::NotLeader { partition });
        }
        let CoordinatorBatch::Records { records, producer: None } = batch else {
            panic!("no transaction here")
        };
        self.appends.fetch_add(1, Ordering::SeqCst);
        let mut log = self.records.lock();
        let log = log.entry(partition).or_default();
        for record in records {
            log.push(LoadedEntry::Record {
                offset: Offset::new(log.len() as i64),
                key: Some(record.key.clone()),
                value: record.value.clone(),
                producer: None,
            });
        }
        Ok(())
    }

    async fn committed(&self, _: i32, _: Term, _: Offset) -> Result<(), CoordinatorLogError> {
        self.permits.acquire().await.unwrap().forget();
        Ok(())
    }

    async fn read(
        &self,
        partition: i32,
        _: Term,
        from: Offset,
        _: usize,
    ) -> Result<LoadedChunk, CoordinatorLogError> {
        self.permits.acquire().await.unwrap().forget();
        let log = self.records.lock();
        let all = log.get(&partition).map_or(&[][..], Vec::as_slice);
        let from = from.get() as usize;
        // Three records at a time, so that loading takes several reads.
        let end = (from + 3).min(all.len());
        let next_offset = Offset::new(end as i64);
        Ok(LoadedChunk { entries: all[from..end].to_vec(), next_offset, at_end: end == all.len() })
    }
}

#[async_trait]
impl ProducerIds for Cluster {
    async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        if id < 0 { Err(ErrorCode::CoordinatorLoadInProgress) } else { Ok(ProducerId::new(id)) }
    }
}

#[async_trait]
impl Markers for Cluster {
    fn leader(&self, partition: &TopicPartition, coordinates: Coordinates) -> MarkerLeader {
        let election = self.term(coordinates.partition).map(|term| term.leader_epoch);
        assert!(election >= Some(coordinates.leader_epoch), "it coordinates since then");
        if election.is_some_and(|election| self.metadata_epoch.load(Ordering::SeqCst) < election.get()) {
            return MarkerLeader::Unknown;
        }
        self.leaders.lock().get(partition).copied().unwrap_or(MarkerLeader::Gone)
    }

    async fn send(
        &self,
        broker: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, SendFailed> {
        self.sent.lock().push((broker, request.clone()));
        let Some(error) = *self.answer.lock() else {
            return Err(SendFailed { broker, cause: "the wire is cut".into() });
        };
        let partition =
            |partition_index| WritableTxnMarkerPartitionResult { partition_index, error_code: error.code() };
        let result = |marker: WritableTxnMarker| WritableTxnMarkerResult {
            producer_id: marker.producer_id,
            topics: marker
                .topics
                .into_iter()
                .map(|topic| WritableTxnMarkerTopicResult {
                    name: topic.name,
                    partitions: topic.partition_indexes.into_iter().map(partition).collect(),
                })
                .collect(),
        };
        Ok(WriteTxnMarkersResponse { markers: request.markers.into_iter().map(result).collect() })
    }
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new("t".parse().unwrap(), index)
}

async fn settle(coordinator: &TransactionCoordinator, state: PartitionState) {
    for _ in 0..10_000 {
        if coordinator.status().iter().all(|status| status.state == state) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{:?}", coordinator.status());
}

async fn init(coordinator: &TransactionCoordinator, id: &str) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    coordinator.init_producer_id(request, 5).await
}

fn topics(indexes: &[i32]) -> Vec<AddPartitionsToTxnTopic> {
    vec![AddPartitionsToTxnTopic { name: "t".into(), partitions: indexes.to_vec() }]
}

fn adding(id: &str, producer: &InitProducerIdResponse, indexes: &[i32]) -> AddPartitionsToTxnTransaction {
    AddPartitionsToTxnTransaction {
        transactional_id: id.into(),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        verify_only: false,
        topics: topics(indexes),
    }
}

/// All topics are there.
fn any(_: &str, _: i32) -> ErrorCode {
    ErrorCode::None
}

async fn add(
    coordinator: &TransactionCoordinator,
    transactions: Vec<AddPartitionsToTxnTransaction>,
) -> Vec<Vec<ErrorCode>> {
    let request = AddPartitionsToTxnRequest { transactions, ..AddPartitionsToTxnRequest::default() };
    let response = coordinator.add_partitions(request, 5, any).await;
    assert_eq!((response.error_code, response.results_by_topic_v3_and_below.len()), (0, 0));
    response.results_by_transaction.iter().map(|result| errors_of(&result.topic_results)).collect()
}

fn errors_of(
    topics: &[towpath_wire::add_partitions_to_txn::AddPartitionsToTxnTopicResult],
) -> Vec<ErrorCode> {
    let partitions = topics.iter().flat_map(|topic| &topic.results_by_partition);
    partitions.map(|partition| ErrorCode::from_code(partition.partition_error_code)).collect()
}

fn ending(id: &str, producer: &InitProducerIdResponse, committed: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: id.into(),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        committed,
    }
}

fn state(coordinator: &TransactionCoordinator, id: &str) -> String {
    let request = DescribeTransactionsRequest { transactional_ids: vec![id.into()] };
    let described = &coordinator.describe(&request).transaction_states[0];
    if described.error_code == 0 {
        described.transaction_state.clone()
    } else {
        ErrorCode::from_code(described.error_code).to_string()
    }
}

async fn until(coordinator: &TransactionCoordinator, id: &str, wanted: &str) {
    for _ in 0..1_000 {
        if state(coordinator, id) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} is {}, not {wanted}", state(coordinator, id));
}

/// A transaction of `id` over both partitions is begun.
async fn begun(coordinator: &TransactionCoordinator, id: &str) -> InitProducerIdResponse {
    let owner = init(coordinator, id).await;
    assert_eq!(owner.error_code, 0);
    let added = add(coordinator, vec![adding(id, &owner, &[0, 1])]).await;
    assert_eq!(added, [[ErrorCode::None, ErrorCode::None]]);
    owner
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_committed_everywhere() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let owner = begun(&coordinator, "a").await;
    assert_eq!((owner.producer_id, owner.producer_epoch), (100, 0));
    assert_eq!(state(&coordinator, "a"), "Ongoing");
    let ended = coordinator.end_txn(ending("a", &owner, true), 5).await;
    assert_eq!((ended.error_code, ended.producer_id, ended.producer_epoch), (0, 100, 1));
    until(&coordinator, "a", "CompleteCommit").await;
    for (broker, index) in [(1, 0), (2, 1)] {
        let markers = cluster.markers(broker);
        assert_eq!(markers.len(), 1);
        let marker = &markers[0];
        assert_eq!((marker.producer_id, marker.producer_epoch, marker.transaction_result), (100, 1, true));
        assert_eq!((marker.coordinator_epoch, marker.transaction_version), (41, 2));
        assert_eq!(
            (marker.topics[0].name.as_str(), &marker.topics[0].partition_indexes[..]),
            ("t", &[index][..])
        );
    }
    // A producer of before KIP-890 keeps its epoch, and so do its markers.
    let owner = init(&coordinator, "a").await;
    assert_eq!(owner.producer_epoch, 2);
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: "a".into(),
        v3_and_below_producer_id: 100,
        v3_and_below_producer_epoch: 2,
        v3_and_below_topics: topics(&[0]),
        ..AddPartitionsToTxnRequest::default()
    };
    let response = coordinator.add_partitions(request, 0, any).await;
    assert_eq!(response.results_by_transaction.len(), 0);
    assert_eq!(errors_of(&response.results_by_topic_v3_and_below), [ErrorCode::None]);
    let ended = coordinator.end_txn(ending("a", &owner, false), 1).await;
    assert_eq!((ended.error_code, ended.producer_id, ended.producer_epoch), (0, -1, -1));
    until(&coordinator, "a", "CompleteAbort").await;
    let marker = cluster.markers(1).pop().unwrap();
    assert_eq!((marker.producer_epoch, marker.transaction_result, marker.transaction_version), (2, false, 0));
}

#[tokio::test(start_paused = true)]
async fn markers_are_sent_until_they_are_written() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let failures = [
        None,
        Some(ErrorCode::NotLeaderOrFollower),
        Some(ErrorCode::UnknownTopicOrPartition),
        Some(ErrorCode::NotEnoughReplicas),
        Some(ErrorCode::CoordinatorLoadInProgress),
        Some(ErrorCode::TransactionCoordinatorFenced),
        Some(ErrorCode::InvalidProducerEpoch),
    ];
    for failure in failures {
        *cluster.answer.lock() = failure;
        let owner = begun(&coordinator, "a").await;
        assert_eq!(coordinator.end_txn(ending("a", &owner, true), 5).await.error_code, 0, "it is decided");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(state(&coordinator, "a"), "PrepareCommit", "{failure:?}");
        assert_eq!(init(&coordinator, "a").await.error_code, ErrorCode::ConcurrentTransactions.code());
        let sent = cluster.sent.lock().len();
        assert!((10..80).contains(&sent), "{sent} requests in 20 s");
        *cluster.answer.lock() = Some(ErrorCode::None);
        until(&coordinator, "a", "CompleteCommit").await;
        cluster.sent.lock().clear();
    }
    // A leader moves, and comes back.
    cluster.leaders.lock().insert(partition(1), MarkerLeader::Unknown);
    let owner = begun(&coordinator, "a").await;
    coordinator.end_txn(ending("a", &owner, false), 5).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((cluster.markers(1).len(), cluster.markers(2).len()), (1, 0));
    let described =
        coordinator.describe(&DescribeTransactionsRequest { transactional_ids: vec!["a".into()] });
    assert_eq!(described.transaction_states[0].topics[0].partitions, [1], "what is left");
    cluster.leaders.lock().insert(partition(1), MarkerLeader::Broker(BrokerId::new(1)));
    until(&coordinator, "a", "CompleteAbort").await;
    // A topic is deleted: its transaction ends without it.
    let owner = begun(&coordinator, "a").await;
    *cluster.answer.lock() = Some(ErrorCode::UnknownTopicOrPartition);
    coordinator.end_txn(ending("a", &owner, true), 5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&coordinator, "a"), "PrepareCommit");
    cluster.leaders.lock().clear();
    until(&coordinator, "a", "CompleteCommit").await;
}

#[tokio::test(start_paused = true)]
async fn markers_are_of_the_newest_epoch_in_which_the_coordinator_leads() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let owner = begun(&coordinator, "a").await;
    *cluster.answer.lock() = Some(ErrorCode::TransactionCoordinatorFenced);
    coordinator.end_txn(ending("a", &owner, true), 5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.markers(1).iter().all(|marker| marker.coordinator_epoch == 41));
    // Another one was elected in between, and this broker again, before it had heard of that: its term goes on.
    cluster.elections.fetch_add(2, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.markers(1).last().unwrap().coordinator_epoch, 43);
    *cluster.answer.lock() = Some(ErrorCode::None);
    until(&coordinator, "a", "CompleteCommit").await;
}

#[tokio::test(start_paused = true)]
async fn what_metadata_do_not_have_is_not_gone_before_they_have_the_election() {
    let cluster = Cluster::new();
    let before = cluster.active().await;
    let owner = begun(&before, "a").await;
    *cluster.answer.lock() = None;
    before.end_txn(ending("a", &owner, true), 5).await;
    before.shutdown().await;
    // Another broker coordinates, whose metadata are older than that, and than the topic.
    cluster.term.store(2, Ordering::SeqCst);
    cluster.metadata_epoch.store(41, Ordering::SeqCst);
    let leaders = std::mem::take(&mut *cluster.leaders.lock());
    *cluster.answer.lock() = Some(ErrorCode::None);
    cluster.sent.lock().clear();
    let after = cluster.active().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(state(&after, "a"), "PrepareCommit", "not without its markers");
    *cluster.leaders.lock() = leaders;
    cluster.metadata_epoch.store(42, Ordering::SeqCst);
    until(&after, "a", "CompleteCommit").await;
    assert_eq!((cluster.markers(1).len(), cluster.markers(2).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn markers_for_one_broker_go_together() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    // Nobody answers at first, so that they gather.
    *cluster.answer.lock() = None;
    let mut owners = Vec::new();
    for number in 0..30 {
        let id = format!("id-{number}");
        let owner = begun(&coordinator, &id).await;
        coordinator.end_txn(ending(&id, &owner, number % 2 == 0), 5).await;
        owners.push(id);
    }
    cluster.leaders.lock().insert(partition(0), MarkerLeader::Unknown);
    cluster.leaders.lock().insert(partition(1), MarkerLeader::Unknown);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.sent.lock().clear();
    *cluster.answer.lock() = Some(ErrorCode::None);
    cluster.leaders.lock().insert(partition(0), MarkerLeader::Broker(BrokerId::new(1)));
    cluster.leaders.lock().insert(partition(1), MarkerLeader::Broker(BrokerId::new(2)));
    for (number, id) in owners.iter().enumerate() {
        until(&coordinator, id, if number % 2 == 0 { "CompleteCommit" } else { "CompleteAbort" }).await;
    }
    for broker in [1, 2] {
        assert_eq!(cluster.markers(broker).len(), 30);
    }
    let largest = cluster.sent.lock().iter().map(|(_, request)| request.markers.len()).max();
    assert!(largest > Some(1), "{largest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_brokers_shares_appends() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let mut transactions = Vec::new();
    for number in 0..50 {
        let id = format!("id-{number}");
        let owner = init(&coordinator, &id).await;
        transactions.push(adding(&id, &owner, &[0]));
    }
    transactions[7].producer_epoch = 9;
    transactions[8].transactional_id = "nobody".into();
    transactions[9].transactional_id.clear();
    let before = cluster.appends.load(Ordering::SeqCst);
    let errors: Vec<ErrorCode> = add(&coordinator, transactions.clone()).await.concat();
    assert!(cluster.appends.load(Ordering::SeqCst) - before <= 4, "one or two for each partition");
    let odd = [ErrorCode::ProducerFenced, ErrorCode::InvalidProducerIdMapping, ErrorCode::InvalidRequest];
    assert_eq!(errors[7..10], odd);
    assert!(errors[..7].iter().chain(&errors[10..]).all(|error| *error == ErrorCode::None));
    // Only asked for.
    let before = cluster.appends.load(Ordering::SeqCst);
    for transaction in &mut transactions {
        transaction.verify_only = true;
        transaction.topics = topics(&[1, 0]);
    }
    let errors = add(&coordinator, transactions).await;
    assert_eq!(errors[0], [ErrorCode::TransactionAbortable, ErrorCode::None]);
    assert_eq!(errors[7], [ErrorCode::ProducerFenced; 2]);
    assert_eq!(errors[9], [ErrorCode::InvalidRequest; 2]);
    assert_eq!(cluster.appends.load(Ordering::SeqCst), before);
}

#[tokio::test(start_paused = true)]
async fn one_partition_that_cannot_be_added_keeps_all_out() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let owner = init(&coordinator, "a").await;
    let mut request = AddPartitionsToTxnRequest {
        transactions: vec![adding("a", &owner, &[0, 1, 2])],
        ..AddPartitionsToTxnRequest::default()
    };
    request.transactions[0]
        .topics
        .push(AddPartitionsToTxnTopic { name: "not a name".into(), partitions: vec![0] });
    let check =
        |_: &str, index| if index == 2 { ErrorCode::TopicAuthorizationFailed } else { ErrorCode::None };
    let response = coordinator.add_partitions(request, 4, check).await;
    let errors = errors_of(&response.results_by_transaction[0].topic_results);
    let (missing, skipped) = (ErrorCode::UnknownTopicOrPartition, ErrorCode::OperationNotAttempted);
    assert_eq!(errors, [skipped, skipped, ErrorCode::TopicAuthorizationFailed, missing]);
    assert_eq!(state(&coordinator, "a"), "Empty");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_touched_like_a_partition() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let owner = init(&coordinator, "a").await;
    let request = AddOffsetsToTxnRequest {
        transactional_id: "a".into(),
        producer_id: owner.producer_id,
        producer_epoch: owner.producer_epoch,
        group_id: "g".into(),
    };
    let response = coordinator.add_offsets(request.clone(), 3, None).await;
    assert_eq!(response.error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(coordinator.add_offsets(request.clone(), 3, Some(17)).await.error_code, 0);
    let described =
        coordinator.describe(&DescribeTransactionsRequest { transactional_ids: vec!["a".into()] });
    let topic = &described.transaction_states[0].topics[0];
    assert_eq!((topic.topic.as_str(), &topic.partitions[..]), ("__consumer_offsets", &[17][..]));
    let stale = AddOffsetsToTxnRequest { producer_epoch: 9, ..request };
    for (version, error) in [(1, ErrorCode::InvalidProducerEpoch), (2, ErrorCode::ProducerFenced)] {
        let response = coordinator.add_offsets(stale.clone(), version, Some(17)).await;
        assert_eq!(response.error_code, error.code());
    }
}

#[tokio::test(start_paused = true)]
async fn older_clients_are_told_in_words_that_they_know() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let owner = init(&coordinator, "a").await;
    let mut stale = owner.clone();
    stale.producer_epoch = 7;
    for (version, error) in [(1, ErrorCode::InvalidProducerEpoch), (2, ErrorCode::ProducerFenced)] {
        assert_eq!(coordinator.end_txn(ending("a", &stale, true), version).await.error_code, error.code());
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: "a".into(),
            v3_and_below_producer_id: stale.producer_id,
            v3_and_below_producer_epoch: stale.producer_epoch,
            v3_and_below_topics: topics(&[0, 1]),
            ..AddPartitionsToTxnRequest::default()
        };
        let response = coordinator.add_partitions(request, version, any).await;
        assert_eq!(errors_of(&response.results_by_topic_v3_and_below), [error, error]);
    }
    let mut request = InitProducerIdRequest {
        transactional_id: Some("a".into()),
        transaction_timeout_ms: 60_000,
        producer_id: stale.producer_id,
        producer_epoch: stale.producer_epoch,
        ..InitProducerIdRequest::default()
    };
    for (version, error) in [(3, ErrorCode::InvalidProducerEpoch), (4, ErrorCode::ProducerFenced)] {
        let response = coordinator.init_producer_id(request.clone(), version).await;
        assert_eq!(
            (response.error_code, response.producer_id, response.producer_epoch),
            (error.code(), -1, -1)
        );
    }
    let refused = async |request: &InitProducerIdRequest| {
        ErrorCode::from_code(coordinator.init_producer_id(request.clone(), 6).await.error_code)
    };
    request.producer_epoch = -1;
    assert_eq!(refused(&request).await, ErrorCode::InvalidRequest);
    request.producer_id = -1;
    request.transaction_timeout_ms = 0;
    assert_eq!(refused(&request).await, ErrorCode::InvalidTransactionTimeout);
    request.keep_prepared_txn = true;
    assert_eq!(refused(&request).await, ErrorCode::UnsupportedVersion);
    request.enable2_pc = true;
    assert_eq!(refused(&request).await, ErrorCode::TransactionalIdAuthorizationFailed);
    request.transactional_id = Some(String::new());
    assert_eq!(refused(&request).await, ErrorCode::InvalidRequest);
    // Without a transactional id there is nothing to coordinate.
    request.transactional_id = None;
    let response = coordinator.init_producer_id(request, 5).await;
    assert_eq!((response.error_code, response.producer_id, response.producer_epoch), (0, 101, 0));
    cluster.next_id.store(-1, Ordering::SeqCst);
    let loading = ErrorCode::CoordinatorLoadInProgress.code();
    assert_eq!(init(&coordinator, "b").await.error_code, loading);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_read_clients_are_told_to_wait() {
    let cluster = Cluster::new();
    let first = cluster.active().await;
    let owner = begun(&first, "a").await;
    first.shutdown().await;
    assert_eq!(init(&first, "a").await.error_code, ErrorCode::CoordinatorNotAvailable.code());
    cluster.hold();
    let second = cluster.coordinator();
    second.start();
    let loading = ErrorCode::CoordinatorLoadInProgress;
    assert_eq!(init(&second, "a").await.error_code, loading.code());
    assert_eq!(add(&second, vec![adding("a", &owner, &[0])]).await, [[loading]]);
    assert_eq!(second.end_txn(ending("a", &owner, true), 5).await.error_code, loading.code());
    assert_eq!(state(&second, "a"), loading.to_string());
    assert_eq!(second.list(&ListTransactionsRequest::default()).error_code, loading.code());
    // All is read, and not all is known to be committed.
    cluster.permits.add_permits(3);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(second.status().iter().any(|status| status.state == PartitionState::Loading));
    cluster.permits.add_permits(1_000);
    settle(&second, PartitionState::Active).await;
    assert_eq!(second.end_txn(ending("a", &owner, true), 5).await.error_code, 0);
    let listed = second.list(&ListTransactionsRequest::default());
    assert_eq!((listed.error_code, listed.transaction_states.len()), (0, 1));
    let request = ListTransactionsRequest {
        transactional_id_pattern: Some("(".into()),
        state_filters: vec!["Nonsense".into()],
        ..ListTransactionsRequest::default()
    };
    assert_eq!(second.list(&request).error_code, ErrorCode::InvalidRegularExpression.code());
    let request = ListTransactionsRequest { transactional_id_pattern: None, ..request };
    let listed = second.list(&request);
    assert_eq!((listed.unknown_state_filters, listed.transaction_states), (vec!["Nonsense".into()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn whoever_coordinates_next_goes_on() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    *cluster.answer.lock() = None;
    let owner = begun(&coordinator, "a").await;
    let open = begun(&coordinator, "b").await;
    assert_eq!(coordinator.end_txn(ending("a", &owner, true), 5).await.error_code, 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Somebody else has led meanwhile; an end that was on its way then is not written now.
    cluster.hold();
    let late = {
        let (coordinator, request) = (coordinator.clone(), ending("b", &open, true));
        tokio::spawn(async move { coordinator.end_txn(request, 5).await })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    cluster.term.fetch_add(1, Ordering::SeqCst);
    coordinator.start();
    cluster.permits.add_permits(1_000);
    assert_eq!(late.await.unwrap().error_code, ErrorCode::NotCoordinator.code());
    settle(&coordinator, PartitionState::Active).await;
    assert_eq!(
        (state(&coordinator, "a"), state(&coordinator, "b")),
        ("PrepareCommit".into(), "Ongoing".into())
    );
    cluster.sent.lock().clear();
    *cluster.answer.lock() = Some(ErrorCode::None);
    until(&coordinator, "a", "CompleteCommit").await;
    let markers = [cluster.markers(1), cluster.markers(2)].concat();
    assert!(markers.iter().all(|marker| marker.coordinator_epoch == 42), "{markers:?}");
    // Nobody leads: nothing is sent and nothing is served.
    *cluster.answer.lock() = None;
    coordinator.end_txn(ending("b", &open, true), 5).await;
    cluster.leads.store(false, Ordering::SeqCst);
    coordinator.resigned(0);
    coordinator.resigned(1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.sent.lock().clear();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.sent.lock().len(), 0);
    assert_eq!(init(&coordinator, "a").await.error_code, ErrorCode::NotCoordinator.code());
    let listed = coordinator.list(&ListTransactionsRequest::default());
    assert_eq!((listed.error_code, listed.transaction_states.len()), (0, 0));
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn time_ends_a_transaction_that_nobody_ends() {
    let cluster = Cluster::new();
    let coordinator = cluster.active().await;
    let owner = begun(&coordinator, "a").await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(state(&coordinator, "a"), "Ongoing");
    tokio::time::sleep(Duration::from_secs(12)).await;
    until(&coordinator, "a", "CompleteAbort").await;
    assert!(!cluster.markers(1)[0].transaction_result);
    let added = add(&coordinator, vec![adding("a", &owner, &[0])]).await;
    assert_eq!(added, [[ErrorCode::ProducerFenced]]);
    tokio::time::sleep(Duration::from_secs(8 * 24 * 60 * 60)).await;
    assert_eq!(state(&coordinator, "a"), ErrorCode::TransactionalIdNotFound.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_understood_is_not_served() {
    let cluster = Cluster::new();
    let first = cluster.active().await;
    begun(&first, "a").await;
    let id = first.partition_of("a").unwrap();
    first.shutdown().await;
    let bad = LoadedEntry::Record {
        offset: Offset::new(2),
        key: Some(bytes::Bytes::from_static(b"\x00\x63")),
        value: None,
        producer: None,
    };
    cluster.records.lock().entry(id).or_default().push(bad);
    let second = cluster.coordinator();
    second.start();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let status = second.status().into_iter().find(|status| status.partition == id).unwrap();
    assert_eq!(status.state, PartitionState::Failed);
    let error = status.error.unwrap();
    assert!(error.contains("offset 2") && error.contains("kind 99"), "{error}");
    assert_eq!(init(&second, "a").await.error_code, ErrorCode::CoordinatorNotAvailable.code());
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_topic_nobody_coordinates() {
    let cluster = Cluster::new();
    cluster.exists.store(false, Ordering::SeqCst);
    let coordinator = cluster.coordinator();
    coordinator.start();
    assert_eq!(coordinator.partition_of("a"), None);
    assert_eq!(init(&coordinator, "a").await.error_code, ErrorCode::CoordinatorNotAvailable.code());
    coordinator.ensure_topic().await.unwrap();
    settle(&coordinator, PartitionState::Active).await;
    assert!(coordinator.partition_of("a").is_some());
    assert_eq!(init(&coordinator, "a").await.error_code, 0);
}
