//! Transactions: what is committed is seen as a whole, what is not is never seen by those who ask for that.

use bytes::Bytes;
use towpath_record::{BatchBuilder, Codec, Compression, Header, batches};
use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::add_partitions_to_txn::AddPartitionsToTxnTopic;
use towpath_wire::fetch::PartitionData;
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use towpath_wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use towpath_wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use towpath_wire::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use towpath_wire::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, ErrorCode, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest,
    ListTransactionsRequest, OffsetFetchRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};

use crate::support::{
    Client, PATIENCE, TestBroker, batch_with, code, fetch_request, now_ms, produce_request, records,
};

/// A producer with a transactional id, as clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Producer {
    id: i64,
    epoch: i16,
}

const ID: &str = "transfer";

async fn init(client: &mut Client, transactional_id: &str) -> Result<Producer, ErrorCode> {
    let request = InitProducerIdRequest {
        transactional_id: Some(transactional_id.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let response = client.call(5, &request).await;
        match code(response.error_code) {
            ErrorCode::None => {
                return Ok(Producer { id: response.producer_id, epoch: response.producer_epoch });
            }
            ErrorCode::ConcurrentTransactions
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
                if tokio::time::Instant::now() < until =>
            {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            error => return Err(error),
        }
    }
}

/// A producer whose coordinator is found, as clients find it.
async fn begin(client: &mut Client, transactional_id: &str) -> Producer {
    let request = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec![transactional_id.to_owned()],
        ..FindCoordinatorRequest::default()
    };
    let found = client.call(6, &request).await;
    assert_eq!(found.coordinators[0].error_code, 0, "{:?}", found.coordinators[0]);
    init(client, transactional_id).await.unwrap()
}

fn batch(producer: Producer, sequence: i32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::from(Compression::None));
    builder.set_producer(ProducerId::new(producer.id), ProducerEpoch::new(producer.epoch), sequence);
    builder.set_transactional(true);
    for value in values {
        let headers: [Header<'_>; 0] = [];
        builder.append(now_ms(), None, Some(value.as_bytes()), &headers).unwrap();
    }
    builder.build().unwrap()
}

/// Sends until what is temporary has passed.
async fn produce(client: &mut Client, version: i16, partition: i32, batch: Bytes) -> ErrorCode {
    let mut request = produce_request("t", partition, -1, batch);
    request.transactional_id = Some(ID.to_owned());
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let response = client.call(version, &request).await;
        match code(response.responses[0].partition_responses[0].error_code) {
            ErrorCode::NotEnoughReplicas | ErrorCode::ConcurrentTransactions
                if tokio::time::Instant::now() < until => {}
            code => return code,
        }
    }
}

async fn add(client: &mut Client, producer: Producer, partitions: &[i32]) -> ErrorCode {
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID.to_owned(),
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: "t".to_owned(),
            partitions: partitions.to_vec(),
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    loop {
        let response = client.call(3, &request).await;
        match code(response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code) {
            ErrorCode::ConcurrentTransactions => {}
            code => return code,
        }
    }
}

/// Ends a transaction; the producer of the next one.
async fn end(
    client: &mut Client,
    version: i16,
    producer: Producer,
    committed: bool,
) -> Result<Producer, ErrorCode> {
    let request = EndTxnRequest {
        transactional_id: ID.to_owned(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed,
    };
    loop {
        let response = client.call(version, &request).await;
        return match code(response.error_code) {
            ErrorCode::CoordinatorLoadInProgress => continue,
            ErrorCode::None if version >= 5 => {
                Ok(Producer { id: response.producer_id, epoch: response.producer_epoch })
            }
            ErrorCode::None => Ok(producer),
            error => Err(error),
        };
    }
}

async fn fetch(client: &mut Client, partition: i32, committed: bool) -> PartitionData {
    let mut request = fetch_request("t", partition, 0);
    request.isolation_level = i8::from(committed);
    client.call(12, &request).await.responses[0].partitions[0].clone()
}

/// What a `read_committed` consumer makes of an answer: control batches and aborted records are left out.
fn seen(data: &PartitionData) -> Vec<String> {
    let mut aborted: Vec<_> = data.aborted_transactions.clone().unwrap_or_default();
    aborted.sort_by_key(|it| it.first_offset);
    let mut open = std::collections::HashSet::new();
    let mut values = Vec::new();
    for batch in batches(data.records.as_ref().unwrap()) {
        let batch = batch.unwrap();
        let id = batch.producer_id.get();
        while aborted.first().is_some_and(|it| it.first_offset <= batch.last_offset().get()) {
            open.insert(aborted.remove(0).producer_id);
        }
        if batch.is_control() {
            open.remove(&id);
            continue;
        }
        if batch.is_transactional() && open.contains(&id) {
            continue;
        }
        for record in &batch.records().unwrap() {
            values.push(String::from_utf8_lossy(record.unwrap().value.unwrap()).into_owned());
        }
    }
    values
}

/// Waits until the markers have come to a partition: nothing is open there any more.
async fn settled(client: &mut Client, partition: i32) -> PartitionData {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let data = fetch(client, partition, true).await;
        if data.last_stable_offset == data.high_watermark {
            return data;
        }
        assert!(tokio::time::Instant::now() < until, "{data:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_committed_is_seen_and_what_is_aborted_is_not() {
    for tv2 in [false, true] {
        let broker = TestBroker::start().await;
        let mut client = broker.client();
        client.create_topic("t", 2, &[]).await;
        let (produce_version, end_version) = if tv2 { (12, 5) } else { (11, 4) };
        let mut producer = begin(&mut client, ID).await;
        let mut sequences = [0, 0];
        for (round, commit) in [(0, true), (1, false), (2, true), (3, false)] {
            if tv2 {
                sequences = [0, 0];
            } else {
                assert_eq!(add(&mut client, producer, &[0, 1]).await, ErrorCode::None);
            }
            for partition in [0, 1] {
                let (a, b) = (format!("{round}-{partition}-a"), format!("{round}-{partition}-b"));
                let sequence = &mut sequences[partition];
                for value in [&a, &b] {
                    let batch = batch(producer, *sequence, &[value]);
                    let code =
                        produce(&mut client, produce_version, i32::try_from(partition).unwrap(), batch).await;
                    assert_eq!(code, ErrorCode::None, "tv2 {tv2}, round {round}");
                    *sequence += 1;
                }
            }
            let open = fetch(&mut client, 0, true).await;
            assert_eq!(open.last_stable_offset, open.high_watermark - 2, "nothing of it is stable");
            let before = producer;
            producer = end(&mut client, end_version, producer, commit).await.unwrap();
            if tv2 {
                assert_eq!(producer, Producer { epoch: before.epoch + 1, ..before });
            }
            for partition in [0, 1] {
                settled(&mut client, partition).await;
            }
        }
        for partition in [0, 1] {
            let data = settled(&mut client, partition).await;
            let expected: Vec<String> = [0, 2]
                .into_iter()
                .flat_map(|round| [format!("{round}-{partition}-a"), format!("{round}-{partition}-b")])
                .collect();
            assert_eq!(seen(&data), expected, "tv2 {tv2}");
            assert_eq!(data.aborted_transactions.as_ref().map(Vec::len), Some(2));
            let all = fetch(&mut client, partition, false).await;
            assert_eq!(all.aborted_transactions, None);
            assert_eq!(records(&all).len(), 8 + 4, "four markers stand there, too");
        }
    }
}

#[tokio::test]
async fn whoever_takes_an_id_over_fences_the_one_before() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let first = begin(&mut client, ID).await;
    assert_eq!(produce(&mut client, 12, 0, batch(first, 0, &["never"])).await, ErrorCode::None);
    let second = begin(&mut client, ID).await;
    assert_eq!(second.id, first.id);
    assert!(second.epoch > first.epoch);
    let fenced = produce(&mut client, 12, 0, batch(first, 1, &["zombie"])).await;
    assert_eq!(fenced, ErrorCode::InvalidProducerEpoch);
    assert_eq!(end(&mut client, 5, first, true).await, Err(ErrorCode::ProducerFenced));
    assert_eq!(produce(&mut client, 12, 0, batch(second, 0, &["heir"])).await, ErrorCode::None);
    end(&mut client, 5, second, true).await.unwrap();
    assert_eq!(seen(&settled(&mut client, 0).await), ["heir"]);
}

#[tokio::test]
async fn what_was_not_added_is_not_appended() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 2, &[]).await;
    let producer = begin(&mut client, ID).await;
    assert_eq!(
        produce(&mut client, 11, 0, batch(producer, 0, &["a"])).await,
        ErrorCode::TransactionAbortable
    );
    assert_eq!(produce(&mut client, 10, 0, batch(producer, 0, &["a"])).await, ErrorCode::InvalidTxnState);
    assert_eq!(add(&mut client, producer, &[0]).await, ErrorCode::None);
    assert_eq!(produce(&mut client, 11, 0, batch(producer, 0, &["a"])).await, ErrorCode::None);
    assert_eq!(add(&mut client, producer, &[2]).await, ErrorCode::UnknownTopicOrPartition);
    // Not within the transaction, but of the same producer.
    let outside = batch_with(Compression::None, Some((producer.id, producer.epoch, 1)), &["b"]);
    let response = client.produce("t", 0, outside).await;
    assert_eq!(code(response.error_code), ErrorCode::InvalidTxnState);
    // A transactional batch belongs to a transactional id.
    let response = client.produce("t", 0, batch(producer, 1, &["b"])).await;
    assert_eq!(code(response.error_code), ErrorCode::TransactionalIdAuthorizationFailed);
}

async fn commit_offset(client: &mut Client, version: i16, producer: Producer, offset: i64) -> ErrorCode {
    let request = TxnOffsetCommitRequest {
        transactional_id: ID.to_owned(),
        group_id: "g".to_owned(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        generation_id: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_metadata: Some(String::new()),
                ..TxnOffsetCommitRequestPartition::default()
            }],
        }],
        ..TxnOffsetCommitRequest::default()
    };
    loop {
        let response = client.call(version, &request).await;
        match code(response.topics[0].partitions[0].error_code) {
            ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions => {}
            code => return code,
        }
    }
}

async fn committed(client: &mut Client, stable: bool) -> Result<i64, ErrorCode> {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".to_owned(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".to_owned(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable: stable,
        ..OffsetFetchRequest::default()
    };
    let response = client.call(9, &request).await;
    let partition = &response.groups[0].topics[0].partitions[0];
    match code(partition.error_code) {
        ErrorCode::None => Ok(partition.committed_offset),
        error => Err(error),
    }
}

#[tokio::test]
async fn offsets_count_when_their_transaction_is_committed() {
    for tv2 in [false, true] {
        let broker = TestBroker::start().await;
        let mut client = broker.client();
        client.create_topic("t", 1, &[]).await;
        let found = FindCoordinatorRequest {
            key_type: 0,
            coordinator_keys: vec!["g".to_owned()],
            ..FindCoordinatorRequest::default()
        };
        assert_eq!(client.call(6, &found).await.coordinators[0].error_code, 0);
        let (commit_version, end_version) = if tv2 { (5, 5) } else { (4, 4) };
        let mut producer = begin(&mut client, ID).await;
        let mut last = -1;
        for (offset, commit) in [(10, true), (20, false), (30, true)] {
            if !tv2 {
                let request = AddOffsetsToTxnRequest {
                    transactional_id: ID.to_owned(),
                    producer_id: producer.id,
                    producer_epoch: producer.epoch,
                    group_id: "g".to_owned(),
                };
                loop {
                    match code(client.call(3, &request).await.error_code) {
                        ErrorCode::ConcurrentTransactions => {}
                        code => break assert_eq!(code, ErrorCode::None),
                    }
                }
            }
            let code = commit_offset(&mut client, commit_version, producer, offset).await;
            assert_eq!(code, ErrorCode::None, "tv2 {tv2}, offset {offset}");
            assert_eq!(committed(&mut client, false).await, Ok(last), "not before the end");
            assert_eq!(committed(&mut client, true).await, Err(ErrorCode::UnstableOffsetCommit));
            producer = end(&mut client, end_version, producer, commit).await.unwrap();
            if commit {
                last = offset;
            }
            let until = tokio::time::Instant::now() + PATIENCE;
            while committed(&mut client, true).await != Ok(last) {
                assert!(tokio::time::Instant::now() < until, "the marker comes");
            }
        }
    }
}

#[tokio::test]
async fn operators_see_what_is_open() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 2, &[]).await;
    let producer = begin(&mut client, ID).await;
    assert_eq!(produce(&mut client, 12, 1, batch(producer, 0, &["a"])).await, ErrorCode::None);
    let listed = client.call(2, &ListTransactionsRequest { duration_filter: -1, ..Default::default() }).await;
    assert_eq!(listed.transaction_states.len(), 1);
    assert_eq!(listed.transaction_states[0].transaction_state, "Ongoing");
    let describe = DescribeTransactionsRequest { transactional_ids: vec![ID.to_owned(), "none".to_owned()] };
    let described = client.call(0, &describe).await;
    assert_eq!(described.transaction_states[0].topics[0].partitions, [1]);
    assert_eq!(code(described.transaction_states[1].error_code), ErrorCode::TransactionalIdNotFound);
    let producers = DescribeProducersRequest {
        topics: vec![towpath_wire::describe_producers::TopicRequest {
            name: "t".to_owned(),
            partition_indexes: vec![0, 1, 2],
        }],
    };
    let answer = client.call(0, &producers).await.topics.remove(0);
    assert!(answer.partitions[0].active_producers.is_empty());
    let active = &answer.partitions[1].active_producers[0];
    assert_eq!((active.producer_id, active.current_txn_start_offset), (producer.id, 0));
    assert_eq!(code(answer.partitions[2].error_code), ErrorCode::UnknownTopicOrPartition);
    let latest = |isolation_level| ListOffsetsRequest {
        replica_id: -1,
        isolation_level,
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 1,
                current_leader_epoch: -1,
                timestamp: -1,
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    assert_eq!(client.call(7, &latest(0)).await.topics[0].partitions[0].offset, 1);
    assert_eq!(client.call(7, &latest(1)).await.topics[0].partitions[0].offset, 0, "the last stable offset");
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let first = begin(&mut client, ID).await;
    assert_eq!(produce(&mut client, 12, 0, batch(first, 0, &["a"])).await, ErrorCode::None);
    let second = end(&mut client, 5, first, true).await.unwrap();
    assert_eq!(produce(&mut client, 12, 0, batch(second, 0, &["b"])).await, ErrorCode::None);
    drop(client);
    let TestBroker { broker, dir } = broker;
    broker.shutdown().await.unwrap();
    drop(broker);
    let broker = TestBroker::start_in(dir, |_| {}).await;
    let mut client = broker.client();
    let data = fetch(&mut client, 0, true).await;
    assert_eq!(seen(&data), ["a"], "the open transaction is open still");
    assert_eq!(produce(&mut client, 12, 0, batch(second, 1, &["c"])).await, ErrorCode::None);
    end(&mut client, 5, second, true).await.unwrap();
    assert_eq!(seen(&settled(&mut client, 0).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn nobody_has_a_transaction_in_the_coordinators_own_topic() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let producer = begin(&mut client, ID).await;
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID.to_owned(),
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: "__transaction_state".to_owned(),
            partitions: vec![0],
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    let added = client.call(3, &request).await;
    let answer = &added.results_by_topic_v3_and_below[0].results_by_partition[0];
    assert_eq!(code(answer.partition_error_code), ErrorCode::TopicAuthorizationFailed);
    let marker = WritableTxnMarker {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        topics: vec![WritableTxnMarkerTopic {
            name: "__transaction_state".to_owned(),
            partition_indexes: vec![0],
        }],
        ..WritableTxnMarker::default()
    };
    let written = client.call(1, &WriteTxnMarkersRequest { markers: vec![marker] }).await;
    let answer = &written.markers[0].topics[0].partitions[0];
    assert_eq!(code(answer.error_code), ErrorCode::UnsupportedForMessageFormat);
}
