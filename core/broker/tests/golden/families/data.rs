//! Records: what appends, reads and places them.

use bytes::Bytes;
use towpath_record::Compression;
use towpath_wire::fetch::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use towpath_wire::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use towpath_wire::{
    FetchRequest, InitProducerIdRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest,
};
use uuid::Uuid;

use super::{MADE_MS, batch, batch_with, header, make, produce};
use crate::talk::{Talk, versions};

/// An id that no topic has.
const NO_TOPIC: Uuid = Uuid::from_u128(0x0bad_0bad_0bad_0bad_0bad_0bad_0bad_0bad);

/// The topics of this family.
struct Topics {
    plain: Uuid,
    compacted: Uuid,
    small: Uuid,
    stamped: Uuid,
    strict: Uuid,
    few: Uuid,
}

pub(super) async fn run(talk: &mut Talk<'_>) {
    let topics = Topics {
        plain: make(talk, "data", 2, &[]).await,
        compacted: make(talk, "data-compacted", 1, &[("cleanup.policy", "compact")]).await,
        small: make(talk, "data-small", 1, &[("max.message.bytes", "200")]).await,
        stamped: make(talk, "data-stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await,
        strict: make(talk, "data-strict", 1, &[("message.timestamp.before.max.ms", "1000")]).await,
        few: make(talk, "data-few", 1, &[("min.insync.replicas", "2")]).await,
    };
    let ids = InitProducerIdRequest { transactional_id: None, ..Default::default() };
    let producer = talk.until(4, &ids, |it| it.error_code == 0).await.producer_id;
    for version in versions::<ProduceRequest>() {
        produced(talk, version, &topics).await;
        produce_refused(talk, version, &topics).await;
        idempotent(talk, version, &topics, producer).await;
    }
    for version in [0, 1, 2] {
        // Advertised for librdkafka, and not served (KAFKA-18659).
        let body = [0, 1, 0, 0, 0x27, 0x10, 0, 0, 0, 0];
        talk.call_raw("advertised only", &header(0, version, &body)).await;
    }
    for version in versions::<FetchRequest>() {
        fetched(talk, version, &topics).await;
        fetch_refused(talk, version, &topics).await;
    }
    for version in versions::<FetchRequest>().filter(|it| *it >= 7) {
        sessions(talk, version, &topics).await;
    }
    list_offsets(talk).await;
    offsets_for_epochs(talk).await;
}

async fn produced(talk: &mut Talk<'_>, version: i16, topics: &Topics) {
    let data = ("data", topics.plain);
    let request = produce(version, data, 0, Some(batch(None, &["one", "two"])));
    talk.call(version, "a batch", &request).await;
    let mut request = produce(version, data, 0, Some(batch(None, &["leader"])));
    request.acks = 1;
    talk.call(version, "acks=1", &request).await;
    let mut request = produce(version, data, 1, Some(batch(None, &["nobody"])));
    request.acks = 0;
    talk.call_unanswered(version, "acks=0", &request).await;
    let compressed = |codec| batch_with(codec, None, Some(b"k"), &["value value value value"; 8]);
    let request = produce(version, data, 0, Some(compressed(Compression::Lz4)));
    talk.call(version, "compressed", &request).await;
    // Versions before 7 have no zstd.
    let request = produce(version, data, 0, Some(compressed(Compression::Zstd)));
    talk.call(version, "zstd", &request).await;
    let request = produce(version, ("data-stamped", topics.stamped), 0, Some(batch(None, &["when"])));
    talk.call(version, "stamped by the broker", &request).await;
    let both = {
        let mut request = produce(version, data, 0, Some(batch(None, &["both"])));
        let other = request.topic_data[0].partition_data[0].clone();
        request.topic_data[0]
            .partition_data
            .push(towpath_wire::produce::PartitionProduceData { index: 9, ..other });
        request
    };
    talk.call(version, "one partition of two", &both).await;
    let request = ProduceRequest { acks: -1, timeout_ms: 1_000, ..Default::default() };
    talk.call(version, "nothing", &request).await;
}

async fn produce_refused(talk: &mut Talk<'_>, version: i16, topics: &Topics) {
    let data = ("data", topics.plain);
    let good = batch(None, &["refused"]);
    let nowhere = ("nowhere", NO_TOPIC);
    talk.call(version, "unknown topic", &produce(version, nowhere, 0, Some(good.clone()))).await;
    talk.call(version, "unknown partition", &produce(version, data, 7, Some(good.clone()))).await;
    let mut request = produce(version, data, 0, Some(good.clone()));
    request.acks = 2;
    talk.call(version, "acks=2", &request).await;
    let mut request = produce(version, nowhere, 0, Some(good.clone()));
    request.acks = 0;
    talk.call_unanswered(version, "acks=0 and an unknown topic", &request).await;
    if version == 3 || version == 13 {
        // Kafka never answers that.
        talk.call(version, "no records", &produce(version, data, 0, None)).await;
    }
    talk.call(version, "empty records", &produce(version, data, 0, Some(Bytes::new()))).await;
    let mut bytes = good.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    talk.call(version, "a wrong CRC", &produce(version, data, 0, Some(bytes.into()))).await;
    let mut bytes = good.to_vec();
    bytes[16] = 1;
    talk.call(version, "magic 1", &produce(version, data, 0, Some(bytes.into()))).await;
    let twice = [&good[..], &good[..]].concat();
    talk.call(version, "two batches", &produce(version, data, 0, Some(twice.into()))).await;
    let cut = good.slice(..good.len() - 3);
    talk.call(version, "half a batch", &produce(version, data, 0, Some(cut))).await;
    let mut bytes = good.to_vec();
    bytes[22] |= 0x20;
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    talk.call(version, "a control batch", &produce(version, data, 0, Some(bytes.into()))).await;
    let mut bytes = good.to_vec();
    bytes[26] = 5;
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    talk.call(version, "offsets that do not count", &produce(version, data, 0, Some(bytes.into()))).await;
    let keyless = batch_with(Compression::None, None, None, &["no key", "no key either"]);
    let compacted = ("data-compacted", topics.compacted);
    talk.call(version, "no key in a compacted topic", &produce(version, compacted, 0, Some(keyless))).await;
    let large = batch(None, &["too large".repeat(40).as_str()]);
    talk.call(version, "too large", &produce(version, ("data-small", topics.small), 0, Some(large))).await;
    let strict = ("data-strict", topics.strict);
    talk.call(version, "too old", &produce(version, strict, 0, Some(good.clone()))).await;
    let few = ("data-few", topics.few);
    talk.call(
        version,
        "min.insync.replicas above the replicas",
        &produce(version, few, 0, Some(good.clone())),
    )
    .await;
    let internal = ("__consumer_offsets", NO_TOPIC);
    if version < 13 {
        talk.call(version, "an internal topic", &produce(version, internal, 0, Some(good))).await;
        let request = produce(version, ("not a name", NO_TOPIC), 0, Some(batch(None, &["refused"])));
        talk.call(version, "an illegal name", &request).await;
    }
}

async fn idempotent(talk: &mut Talk<'_>, version: i16, topics: &Topics, producer: i64) {
    let data = ("data", topics.plain);
    let of = |epoch, sequence, values: &[&str]| {
        let records = batch(Some((producer, epoch, sequence, false)), values);
        produce(version, data, 1, Some(records))
    };
    // Each version has an epoch of its own.
    talk.call(version, "a producer's first batch", &of(version, 0, &["first", "second"])).await;
    talk.call(version, "a producer's next batch", &of(version, 2, &["third"])).await;
    talk.call(version, "a batch once more", &of(version, 2, &["third"])).await;
    talk.call(version, "a gap in the sequence", &of(version, 9, &["ninth"])).await;
    talk.call(version, "an old epoch", &of(version - 1, 3, &["late"])).await;
    talk.call(version, "a new epoch not from 0", &of(version + 1, 4, &["early"])).await;
    let transactional = batch(Some((producer, version, 3, true)), &["unasked"]);
    let mut request = produce(version, data, 1, Some(transactional));
    request.transactional_id = Some("nobody".to_owned());
    talk.call(version, "a transaction that nobody knows", &request).await;
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

pub(super) fn fetch(version: i16, topic: (&str, Uuid), partition: i32, offset: i64) -> FetchRequest {
    let mut of = FetchTopic {
        partitions: vec![FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        }],
        ..Default::default()
    };
    if version >= 13 {
        of.topic_id = topic.1;
    } else {
        of.topic = topic.0.to_owned();
    }
    FetchRequest { max_wait_ms: 0, min_bytes: 1, max_bytes: 1 << 20, topics: vec![of], ..Default::default() }
}

async fn fetched(talk: &mut Talk<'_>, version: i16, topics: &Topics) {
    let data = ("data", topics.plain);
    let limited = |offset, bytes| {
        let mut request = fetch(version, data, 0, offset);
        request.topics[0].partitions[0].partition_max_bytes = bytes;
        request
    };
    talk.call(version, "from the beginning", &limited(0, 200)).await;
    talk.call(version, "from the middle of a batch", &limited(1, 1)).await;
    let mut request = limited(0, 1 << 20);
    request.max_bytes = 1;
    talk.call(version, "no more than a byte in all", &request).await;
    let end = ends(talk, "data", 0).await;
    talk.call(version, "from the end", &limited(end, 1)).await;
    let mut request = fetch(version, ("data-stamped", topics.stamped), 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    talk.call(version, "stamped by the broker", &request).await;
    let mut request = limited(0, 1);
    request.isolation_level = 1;
    talk.call(version, "committed only", &request).await;
    let mut request = limited(0, 1);
    let mut second = request.topics[0].partitions[0].clone();
    second.partition = 1;
    request.topics[0].partitions.push(second);
    talk.call(version, "two partitions", &request).await;
    let request = FetchRequest { max_wait_ms: 0, min_bytes: 0, ..Default::default() };
    talk.call(version, "nothing", &request).await;
}

async fn fetch_refused(talk: &mut Talk<'_>, version: i16, topics: &Topics) {
    let data = ("data", topics.plain);
    talk.call(version, "unknown topic", &fetch(version, ("nowhere", NO_TOPIC), 0, 0)).await;
    talk.call(version, "unknown partition", &fetch(version, data, 7, 0)).await;
    talk.call(version, "beyond the end", &fetch(version, data, 0, 1_000_000)).await;
    talk.call(version, "below zero", &fetch(version, data, 0, -5)).await;
    if version >= 9 {
        for (case, epoch) in [("the leader's epoch", 0), ("an epoch to come", 5)] {
            let mut request = fetch(version, data, 0, 0);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            request.topics[0].partitions[0].partition_max_bytes = 1;
            talk.call(version, case, &request).await;
        }
    }
    if version >= 12 {
        let mut request = fetch(version, data, 0, 1);
        request.topics[0].partitions[0].last_fetched_epoch = 3;
        request.topics[0].partitions[0].current_leader_epoch = 0;
        talk.call(version, "an epoch that the log does not have", &request).await;
    }
    let mut request = fetch(version, data, 0, 0);
    if version >= 15 {
        request.replica_state = ReplicaState { replica_id: 7, replica_epoch: -1 };
    } else {
        request.replica_id = 7;
    }
    request.topics[0].partitions[0].partition_max_bytes = 1;
    talk.call(version, "a replica that is none", &request).await;
}

async fn sessions(talk: &mut Talk<'_>, version: i16, topics: &Topics) {
    let data = ("data", topics.plain);
    let mut request = fetch(version, data, 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    request.session_epoch = 0;
    let session = talk.call(version, "a session begins", &request).await.session_id;
    let mut next =
        FetchRequest { topics: Vec::new(), session_id: session, session_epoch: 1, ..request.clone() };
    // The request's own id is this run's; what is asked is not kept, but what it is answered with is.
    let first = talk.ask(version, &next).await;
    assert_eq!((first.error_code, first.session_id), (0, session));
    next.session_epoch = 7;
    let wrong = talk.ask(version, &next).await;
    assert_eq!(wrong.error_code, towpath_wire::ErrorCode::InvalidFetchSessionEpoch.code());
    next.session_epoch = 2;
    let mut forgotten = ForgottenTopic { partitions: vec![0], ..Default::default() };
    if version >= 13 {
        forgotten.topic_id = topics.plain;
    } else {
        forgotten.topic = "data".to_owned();
    }
    next.forgotten_topics_data = vec![forgotten];
    let empty = talk.ask(version, &next).await;
    assert_eq!((empty.error_code, empty.responses.len()), (0, 0));
    next.forgotten_topics_data = Vec::new();
    next.session_epoch = -1;
    let closed = talk.ask(version, &next).await;
    assert_eq!((closed.error_code, closed.session_id), (0, 0));
    let unknown = FetchRequest { session_id: 12_345, session_epoch: 1, topics: Vec::new(), ..request };
    talk.call(version, "no such session", &unknown).await;
}

/// The end of a partition.
async fn ends(talk: &mut Talk<'_>, topic: &str, partition: i32) -> i64 {
    let request = offsets(topic, partition, -1);
    talk.ask(7, &request).await.topics[0].partitions[0].offset
}

pub(super) fn offsets(topic: &str, partition_index: i32, timestamp: i64) -> ListOffsetsRequest {
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition { partition_index, timestamp, ..Default::default() }],
        }],
        ..Default::default()
    }
}

async fn list_offsets(talk: &mut Talk<'_>) {
    for version in versions::<ListOffsetsRequest>() {
        for (case, timestamp) in [
            ("the end", -1),
            ("the beginning", -2),
            ("the largest timestamp", -3),
            ("the beginning here", -4),
            ("the end elsewhere", -5),
            ("what is to be uploaded", -6),
            ("no such place", -7),
            ("the second record's time", MADE_MS + 1),
            ("the epoch", 0),
            ("the end of time", i64::MAX),
        ] {
            talk.call(version, case, &offsets("data", 0, timestamp)).await;
        }
        talk.call(version, "unknown topic", &offsets("nowhere", 0, -1)).await;
        talk.call(version, "unknown partition", &offsets("data", 7, -1)).await;
        talk.call(version, "an empty partition, its largest timestamp", &offsets("data-strict", 0, -3)).await;
        talk.call(version, "an empty partition, by time", &offsets("data-strict", 0, MADE_MS)).await;
        let mut request = offsets("data", 0, -1);
        let once_more = request.topics[0].partitions[0].clone();
        request.topics[0].partitions.push(once_more);
        talk.call(version, "named twice", &request).await;
        let mut request = offsets("data", 0, -1);
        request.replica_id = 7;
        talk.call(version, "a replica that is none", &request).await;
        if version >= 2 {
            let mut request = offsets("data", 0, -1);
            request.isolation_level = 1;
            talk.call(version, "the end of what is committed", &request).await;
        }
        if version >= 4 {
            for (case, epoch) in [("the leader's epoch", 0), ("an epoch to come", 5)] {
                let mut request = offsets("data", 0, -1);
                request.topics[0].partitions[0].current_leader_epoch = epoch;
                talk.call(version, case, &request).await;
            }
        }
    }
}

async fn offsets_for_epochs(talk: &mut Talk<'_>) {
    for version in versions::<OffsetForLeaderEpochRequest>() {
        for (case, topic, partition, current, epoch) in [
            ("the first epoch", "data", 0, -1, 0),
            ("a later epoch", "data", 0, -1, 5),
            ("no epoch", "data", 0, -1, -1),
            ("an empty partition", "data-strict", 0, -1, 0),
            ("the leader's epoch", "data", 0, 0, 0),
            ("a leader to come", "data", 0, 5, 0),
            ("unknown topic", "nowhere", 0, -1, 0),
            ("unknown partition", "data", 7, -1, 0),
        ] {
            let request = OffsetForLeaderEpochRequest {
                topics: vec![OffsetForLeaderTopic {
                    topic: topic.to_owned(),
                    partitions: vec![OffsetForLeaderPartition {
                        partition,
                        current_leader_epoch: current,
                        leader_epoch: epoch,
                    }],
                }],
                ..Default::default()
            };
            talk.call(version, case, &request).await;
        }
    }
}
