//! Producers' ids and transactions.

use std::time::Duration;

use towpath_wire::add_partitions_to_txn::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use towpath_wire::describe_producers::TopicRequest;
use towpath_wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use towpath_wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use towpath_wire::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use towpath_wire::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, ListTransactionsRequest,
    OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};
use uuid::Uuid;

use super::{batch, coordinators, make, produce};
use crate::talk::{Talk, versions};

/// A producer of a transactional id.
#[derive(Debug, Clone, Copy)]
struct Producer {
    id: i64,
    epoch: i16,
}

pub(super) async fn run(talk: &mut Talk<'_>) {
    let id = make(talk, "txn", 3, &[]).await;
    coordinators(talk).await;
    for version in versions::<InitProducerIdRequest>() {
        init_producer_id(talk, version).await;
    }
    for version in versions::<AddPartitionsToTxnRequest>() {
        add_partitions(talk, version).await;
    }
    for version in versions::<AddOffsetsToTxnRequest>() {
        add_offsets(talk, version).await;
    }
    for version in versions::<TxnOffsetCommitRequest>() {
        commit_offsets(talk, version, id).await;
    }
    for version in versions::<EndTxnRequest>() {
        if version < 5 {
            end(talk, version).await;
        } else {
            end_with_a_new_epoch(talk, version, id).await;
        }
    }
    open(talk, id).await;
    markers(talk).await;
}

fn initializing(transactional_id: Option<&str>, producer: Option<Producer>) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: transactional_id.map(str::to_owned),
        transaction_timeout_ms: 60_000,
        producer_id: producer.map_or(-1, |it| it.id),
        producer_epoch: producer.map_or(-1, |it| it.epoch),
        ..Default::default()
    }
}

/// Which of several markers is the newest is told by their times: none may have that of another.
async fn apart() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

async fn init(talk: &mut Talk<'_>, transactional_id: &str) -> Producer {
    apart().await;
    let request = initializing(Some(transactional_id), None);
    let response = talk.until(5, &request, |it| it.error_code == 0).await;
    Producer { id: response.producer_id, epoch: response.producer_epoch }
}

async fn init_producer_id(talk: &mut Talk<'_>, version: i16) {
    let id = format!("init-v{version}");
    talk.call(version, "without transactions", &initializing(None, None)).await;
    let given = talk.call(version, "a transactional id", &initializing(Some(&id), None)).await;
    talk.call(version, "once more", &initializing(Some(&id), None)).await;
    let mut request = initializing(Some(&id), None);
    request.transaction_timeout_ms = i32::MAX;
    talk.call(version, "too long a transaction", &request).await;
    request.transaction_timeout_ms = 0;
    talk.call(version, "no time for a transaction", &request).await;
    talk.call(version, "an empty transactional id", &initializing(Some(""), None)).await;
    if version >= 3 {
        let mine = Producer { id: given.producer_id, epoch: given.producer_epoch + 1 };
        talk.call(version, "with its own id", &initializing(Some(&id), Some(mine))).await;
        let old = Producer { epoch: 0, ..mine };
        let request = initializing(Some(&id), Some(Producer { epoch: old.epoch + 1, ..old }));
        talk.call(version, "with its own id, a lost answer", &request).await;
        talk.call(version, "with its own id, an old epoch", &initializing(Some(&id), Some(old))).await;
        let other = Producer { id: mine.id + 100_000, epoch: 0 };
        talk.call(version, "with another's id", &initializing(Some(&id), Some(other))).await;
        let odd = Producer { id: mine.id, epoch: -1 };
        talk.call(version, "an id without an epoch", &initializing(Some(&id), Some(odd))).await;
        talk.call(version, "an id without transactions", &initializing(None, Some(mine))).await;
        let unknown = format!("init-unknown-v{version}");
        talk.call(
            version,
            "an id for an unknown transactional id",
            &initializing(Some(&unknown), Some(mine)),
        )
        .await;
    }
}

fn adding(
    version: i16,
    transactional_id: &str,
    producer: Producer,
    topics: &[(&str, &[i32])],
    verify_only: bool,
) -> AddPartitionsToTxnRequest {
    let topics: Vec<_> = topics
        .iter()
        .map(|(name, partitions)| AddPartitionsToTxnTopic {
            name: (*name).to_owned(),
            partitions: partitions.to_vec(),
        })
        .collect();
    if version >= 4 {
        return AddPartitionsToTxnRequest {
            transactions: vec![AddPartitionsToTxnTransaction {
                transactional_id: transactional_id.to_owned(),
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                verify_only,
                topics,
            }],
            ..Default::default()
        };
    }
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: transactional_id.to_owned(),
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: topics,
        ..Default::default()
    }
}

async fn add_partitions(talk: &mut Talk<'_>, version: i16) {
    let id = format!("add-v{version}");
    let me = init(talk, &id).await;
    let fenced = init(talk, &id).await;
    let (old, me) = (me, fenced);
    let to = |producer, topics: &[(&str, &[i32])]| adding(version, &id, producer, topics, false);
    if version >= 4 {
        let request = adding(version, &id, me, &[("txn", &[0])], true);
        talk.call(version, "verified before it is there", &request).await;
    }
    talk.call(version, "an old epoch", &to(old, &[("txn", &[0])])).await;
    talk.call(version, "an epoch to come", &to(Producer { epoch: 9, ..me }, &[("txn", &[0])])).await;
    talk.call(version, "another's id", &to(Producer { id: me.id + 100_000, ..me }, &[("txn", &[0])])).await;
    let request = adding(version, "nobody", me, &[("txn", &[0])], false);
    talk.call(version, "an unknown transactional id", &request).await;
    let request = adding(version, "", me, &[("txn", &[0])], false);
    talk.call(version, "an empty transactional id", &request).await;
    talk.call(version, "an unknown partition", &to(me, &[("txn", &[0, 7])])).await;
    talk.call(version, "an unknown topic", &to(me, &[("nowhere", &[0])])).await;
    talk.call(version, "nothing", &to(me, &[])).await;
    talk.call(version, "two partitions", &to(me, &[("txn", &[0, 1])])).await;
    talk.call(version, "the same partitions", &to(me, &[("txn", &[0, 1])])).await;
    if version >= 4 {
        let request = adding(version, &id, me, &[("txn", &[0, 2])], true);
        talk.call(version, "verified, one of two", &request).await;
        let mut request = to(me, &[("txn", &[0])]);
        request.transactions.extend(adding(version, "nobody", me, &[("txn", &[0])], false).transactions);
        talk.call(version, "two transactions", &request).await;
        let request = AddPartitionsToTxnRequest::default();
        talk.call(version, "no transaction", &request).await;
    }
    ended(talk, &id, me, false).await;
}

fn ending(transactional_id: &str, producer: Producer, committed: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: transactional_id.to_owned(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed,
    }
}

/// Ends a transaction in the old way, and waits until it has.
async fn ended(talk: &mut Talk<'_>, transactional_id: &str, producer: Producer, committed: bool) {
    let response = talk.ask(4, &ending(transactional_id, producer, committed)).await;
    assert_eq!(response.error_code, 0, "{transactional_id}");
    complete(talk, transactional_id).await;
}

fn describing(transactional_id: &str) -> DescribeTransactionsRequest {
    DescribeTransactionsRequest { transactional_ids: vec![transactional_id.to_owned()] }
}

async fn complete(talk: &mut Talk<'_>, transactional_id: &str) {
    let request = describing(transactional_id);
    talk.until(0, &request, |it| it.transaction_states[0].transaction_state.starts_with("Complete")).await;
    apart().await;
}

async fn add_offsets(talk: &mut Talk<'_>, version: i16) {
    let id = format!("offsets-v{version}");
    let old = init(talk, &id).await;
    let me = init(talk, &id).await;
    let to = |transactional_id: &str, producer: Producer, group: &str| AddOffsetsToTxnRequest {
        transactional_id: transactional_id.to_owned(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        group_id: group.to_owned(),
    };
    talk.call(version, "an old epoch", &to(&id, old, "txn-group")).await;
    talk.call(version, "another's id", &to(&id, Producer { id: me.id + 100_000, ..me }, "txn-group")).await;
    talk.call(version, "an unknown transactional id", &to("nobody", me, "txn-group")).await;
    talk.call(version, "an empty transactional id", &to("", me, "txn-group")).await;
    talk.call(version, "a group", &to(&id, me, "txn-group")).await;
    talk.call(version, "the same group", &to(&id, me, "txn-group")).await;
    talk.call(version, "no group", &to(&id, me, "")).await;
    ended(talk, &id, me, true).await;
}

async fn commit_offsets(talk: &mut Talk<'_>, version: i16, topic_id: Uuid) {
    let (id, group) = (format!("commit-v{version}"), format!("txn-group-v{version}"));
    let old = init(talk, &id).await;
    let me = init(talk, &id).await;
    let of = |producer: Producer, topic: &str, partition_index| TxnOffsetCommitRequest {
        transactional_id: id.clone(),
        group_id: group.clone(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: topic.to_owned(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index,
                committed_offset: 5,
                committed_metadata: Some("note".to_owned()),
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    if version < 5 {
        talk.call(version, "a group that was not added", &of(me, "txn", 0)).await;
        let request = AddOffsetsToTxnRequest {
            transactional_id: id.clone(),
            producer_id: me.id,
            producer_epoch: me.epoch,
            group_id: group.clone(),
        };
        talk.until(3, &request, |it| it.error_code == 0).await;
    }
    talk.call(version, "offsets", &of(me, "txn", 0)).await;
    talk.call(version, "an old epoch", &of(old, "txn", 0)).await;
    talk.call(version, "another's id", &of(Producer { id: me.id + 100_000, ..me }, "txn", 0)).await;
    talk.call(version, "unknown topic", &of(me, "nowhere", 0)).await;
    talk.call(version, "unknown partition", &of(me, "txn", 7)).await;
    let mut request = of(me, "txn", 0);
    request.topics[0].partitions[0].committed_metadata = Some("x".repeat(4097));
    if version == 0 || version == 5 {
        talk.call(version, "too much metadata", &request).await;
    }
    let mut request = of(me, "txn", 0);
    request.group_id = String::new();
    talk.call(version, "no group", &request).await;
    if version >= 3 {
        let mut request = of(me, "txn", 0);
        request.generation_id = 3;
        talk.call(version, "a generation of a group without members", &request).await;
        request.member_id = "nobody-000000000000".to_owned();
        talk.call(version, "an unknown member", &request).await;
    }
    let all = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.clone(),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id,
                partition_indexes: vec![0, 1],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        require_stable: true,
        ..Default::default()
    };
    talk.call(10, &format!("pending offsets by TxnOffsetCommit v{version}"), &all).await;
    ended(talk, &id, me, true).await;
    let is_there =
        |it: &towpath_wire::OffsetFetchResponse| it.groups[0].topics[0].partitions[0].error_code == 0;
    talk.until(10, &all, is_there).await;
    talk.call(10, &format!("offsets by TxnOffsetCommit v{version}"), &all).await;
}

async fn end(talk: &mut Talk<'_>, version: i16) {
    let id = format!("end-v{version}");
    let old = init(talk, &id).await;
    let me = init(talk, &id).await;
    for (what, committed) in [("commit", true), ("abort", false)] {
        let case = |text: &str| format!("{what}: {text}");
        talk.call(version, &case("nothing is open"), &ending(&id, me, committed)).await;
        let request = adding(3, &id, me, &[("txn", &[0])], false);
        talk.until(3, &request, |it| {
            it.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == 0
        })
        .await;
        talk.call(version, &case("an old epoch"), &ending(&id, old, committed)).await;
        let other = Producer { id: me.id + 100_000, ..me };
        talk.call(version, &case("another's id"), &ending(&id, other, committed)).await;
        talk.call(version, &case("a transaction"), &ending(&id, me, committed)).await;
        complete(talk, &id).await;
        talk.call(version, &case("once more"), &ending(&id, me, committed)).await;
        talk.call(version, &case("the other way"), &ending(&id, me, !committed)).await;
    }
    talk.call(version, "an unknown transactional id", &ending("nobody", me, true)).await;
    talk.call(version, "an empty transactional id", &ending("", me, true)).await;
}

/// Appendix D: every end has an epoch of its own (KIP-890).
async fn end_with_a_new_epoch(talk: &mut Talk<'_>, version: i16, topic: Uuid) {
    let id = format!("end-v{version}");
    let mut me = init(talk, &id).await;
    talk.call(version, "commit: nothing was ever open", &ending(&id, me, true)).await;
    let next = talk.call(version, "abort: nothing was ever open", &ending(&id, me, false)).await;
    complete(talk, &id).await;
    talk.call(version, "abort: nothing was ever open, once more", &ending(&id, me, false)).await;
    me = Producer { id: next.producer_id, epoch: next.producer_epoch };
    for (what, committed) in [("commit", true), ("abort", false)] {
        let case = |text: &str| format!("{what}: {text}");
        let records = batch(Some((me.id, me.epoch, 0, true)), &[what]);
        let mut request = produce(12, ("txn", topic), 0, Some(records));
        request.transactional_id = Some(id.clone());
        talk.until(12, &request, |it| it.responses[0].partition_responses[0].error_code == 0).await;
        let early = Producer { epoch: me.epoch + 1, ..me };
        talk.call(version, &case("an epoch to come"), &ending(&id, early, committed)).await;
        let other = Producer { id: me.id + 100_000, ..me };
        talk.call(version, &case("another's id"), &ending(&id, other, committed)).await;
        let next = talk.call(version, &case("a transaction"), &ending(&id, me, committed)).await;
        complete(talk, &id).await;
        talk.call(version, &case("once more"), &ending(&id, me, committed)).await;
        talk.call(version, &case("the other way"), &ending(&id, me, !committed)).await;
        let late = Producer { epoch: me.epoch - 1, ..me };
        talk.call(version, &case("an old epoch"), &ending(&id, late, committed)).await;
        me = Producer { id: next.producer_id, epoch: next.producer_epoch };
        talk.call(version, &case("nothing is open, commit"), &ending(&id, me, true)).await;
    }
    talk.call(version, "an unknown transactional id", &ending("nobody", me, true)).await;
    talk.call(version, "an empty transactional id", &ending("", me, true)).await;
}

/// What is seen of a transaction while it is open, and after its end.
async fn open(talk: &mut Talk<'_>, topic: Uuid) {
    let me = init(talk, "open").await;
    for version in versions::<ProduceRequest>().filter(|it| *it >= 11) {
        let partition = i32::from(version == 11);
        // Versions before 12 do not add the partition by themselves.
        let sequence = i32::from(version == 13);
        let records = batch(Some((me.id, me.epoch, sequence, true)), &["open"]);
        let mut request = produce(version, ("txn", topic), 1 + partition, Some(records));
        request.transactional_id = Some("open".to_owned());
        talk.call(version, "in a transaction", &request).await;
    }
    described(talk, me).await;
    for (when, is_open) in [("open", true), ("aborted", false)] {
        if !is_open {
            assert_eq!(talk.ask(5, &ending("open", me, false)).await.error_code, 0);
            complete(talk, "open").await;
        }
        for version in versions::<FetchRequest>() {
            for (isolation, level) in [("committed", 1), ("any", 0)] {
                // The same bytes but for the version: once for each form of the answer is enough.
                if level == 0 && !matches!(version, 4 | 5 | 7 | 11 | 12 | 13 | 16) {
                    continue;
                }
                let mut request = super::data::fetch(version, ("txn", topic), 1, 0);
                request.isolation_level = level;
                talk.call(version, &format!("{isolation} records of a transaction, {when}"), &request).await;
            }
        }
        for version in versions::<ListOffsetsRequest>().filter(|it| *it >= 2) {
            for timestamp in [-1, -3] {
                let mut request = super::data::offsets("txn", 1, timestamp);
                request.isolation_level = 1;
                let case = format!("place {timestamp} of what is committed, with a transaction, {when}");
                talk.call(version, &case, &request).await;
            }
        }
    }
    let producers = |name: &str, partition| DescribeProducersRequest {
        topics: vec![TopicRequest { name: name.to_owned(), partition_indexes: vec![partition] }],
    };
    talk.call(0, "after a transaction", &producers("txn", 1)).await;
}

async fn described(talk: &mut Talk<'_>, me: Producer) {
    talk.call(0, "an open one", &describing("open")).await;
    talk.call(0, "an ended one", &describing("end-v0")).await;
    talk.call(0, "an unused one", &describing("init-v0")).await;
    talk.call(0, "an unknown one", &describing("nobody")).await;
    talk.call(0, "an empty name", &describing("")).await;
    let two =
        DescribeTransactionsRequest { transactional_ids: vec!["nobody".to_owned(), "init-v0".to_owned()] };
    talk.call(0, "two", &two).await;
    talk.call(0, "none", &DescribeTransactionsRequest::default()).await;
    for version in versions::<ListTransactionsRequest>() {
        let of = |states: &[&str], ids: &[i64]| ListTransactionsRequest {
            state_filters: states.iter().map(|it| (*it).to_owned()).collect(),
            producer_id_filters: ids.to_vec(),
            ..Default::default()
        };
        talk.call(version, "all", &of(&[], &[])).await;
        talk.call(version, "open ones", &of(&["Ongoing"], &[])).await;
        talk.call(version, "of no such state", &of(&["Ongoing", "Nothing"], &[])).await;
        talk.call(version, "of a producer", &of(&[], &[me.id])).await;
        talk.call(version, "of no producer", &of(&[], &[1_000_000])).await;
        if version >= 1 {
            let mut request = of(&[], &[]);
            request.duration_filter = 0;
            talk.call(version, "open for any time", &request).await;
            request.duration_filter = 3_600_000;
            talk.call(version, "open for an hour", &request).await;
        }
        if version >= 2 {
            let mut request = of(&[], &[]);
            request.transactional_id_pattern = Some("init-v[12]".to_owned());
            talk.call(version, "by a pattern", &request).await;
            request.transactional_id_pattern = Some("nit".to_owned());
            talk.call(version, "by a part of the name", &request).await;
            request.transactional_id_pattern = Some("init-v[".to_owned());
            talk.call(version, "by no pattern", &request).await;
            request.transactional_id_pattern = Some(String::new());
            talk.call(version, "by an empty pattern", &request).await;
        }
    }
    for (case, name, partition) in [
        ("an open transaction", "txn", 1),
        ("no producer", "txn", 2),
        ("unknown topic", "nowhere", 0),
        ("unknown partition", "txn", 7),
    ] {
        let topics = vec![TopicRequest { name: name.to_owned(), partition_indexes: vec![partition] }];
        talk.call(0, case, &DescribeProducersRequest { topics }).await;
    }
}

async fn markers(talk: &mut Talk<'_>) {
    make(talk, "marked", 2, &[]).await;
    for version in versions::<WriteTxnMarkersRequest>() {
        let of = |topic: &str, partition, producer_epoch, coordinator_epoch| WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: 700_000 + i64::from(version),
                producer_epoch,
                transaction_result: true,
                topics: vec![WritableTxnMarkerTopic {
                    name: topic.to_owned(),
                    partition_indexes: vec![partition],
                }],
                coordinator_epoch,
                ..Default::default()
            }],
        };
        talk.call(version, "a marker", &of("marked", 0, 1, 5)).await;
        talk.call(version, "a marker once more", &of("marked", 0, 1, 5)).await;
        talk.call(version, "an old producer", &of("marked", 0, 0, 5)).await;
        talk.call(version, "an old coordinator", &of("marked", 0, 1, 4)).await;
        talk.call(version, "unknown topic", &of("nowhere", 0, 1, 5)).await;
        talk.call(version, "unknown partition", &of("marked", 7, 1, 5)).await;
        talk.call(version, "none", &WriteTxnMarkersRequest::default()).await;
        if version >= 2 {
            let mut request = of("marked", 1, 1, 5);
            request.markers[0].transaction_version = 2;
            talk.call(version, "a marker of an epoch of its own", &request).await;
        }
        let mut request = of("marked", 1, 3, 5);
        request.markers[0].transaction_result = false;
        request.markers[0].topics[0].partition_indexes = vec![0, 1, 7];
        talk.call(version, "an abort in three partitions", &request).await;
    }
}
