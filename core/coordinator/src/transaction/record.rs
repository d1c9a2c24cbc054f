//! Transactional ids as records of the state topic, in Kafka's own format: an `i16` (the kind in a key, the version in a
//! value), then the message.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use towpath_types::{InvalidName, ProducerEpoch, ProducerId, TopicName, TopicPartition};
use towpath_wire::transaction_records::PartitionsSchema;
use towpath_wire::{DecodeError, Decoder, EncodeError, Message, TransactionLogKey, TransactionLogValue};

use super::metadata::{ClientVersion, Metadata, TransactionState};
use super::partitions::Partitions;
use crate::log::TransactionalProducer;
use crate::record::OffsetsRecord;

const KIND_TRANSACTION: i16 = 0;
/// The version with tagged fields, which Kafka writes from `transaction.version` 1 on.
const VALUE_VERSION: i16 = 1;

/// A record of the state topic that cannot be understood. Loading stops at it (R7): to go on would forget how a
/// transaction ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTransactionRecord {
    /// A record without a key cannot be compacted and means nothing.
    #[error("it has no key")]
    NoKey,
    /// A kind of record that this version does not know; a newer one wrote it.
    #[error("its key is of kind {0}, which this version does not know")]
    UnknownKind(i16),
    /// A version of a value that this version does not know; a newer one wrote it.
    #[error("its value has version {0}, which this version does not know")]
    UnknownVersion(i16),
    /// The bytes are not the message.
    #[error("its {part} cannot be read")]
    Undecodable {
        /// Key or value.
        part: &'static str,
        /// Why.
        #[source]
        cause: DecodeError,
    },
    /// A state that is never stored, or none.
    #[error("its state is {0}, which is none that is stored")]
    UnknownState(i8),
    /// A feature level that this version does not know; a newer one wrote it.
    #[error("its transaction version is {0}, which this version does not know")]
    UnknownClientVersion(i16),
    /// A topic that cannot be.
    #[error("{0}")]
    Topic(#[from] InvalidName),
}

fn encode(prefix: i16, message: &impl Message, version: i16) -> Result<Bytes, EncodeError> {
    let mut buffer = BytesMut::with_capacity(128);
    buffer.put_i16(prefix);
    message.encode(&mut buffer, version)?;
    Ok(buffer.freeze())
}

fn key(transactional_id: &str) -> Result<Bytes, EncodeError> {
    encode(KIND_TRANSACTION, &TransactionLogKey { transactional_id: transactional_id.to_owned() }, 0)
}

fn to_value(metadata: &Metadata) -> TransactionLogValue {
    let topic = |(topic, indexes): (&TopicName, &std::collections::BTreeSet<i32>)| PartitionsSchema {
        topic: topic.as_str().to_owned(),
        partition_ids: indexes.iter().copied().collect(),
    };
    TransactionLogValue {
        producer_id: metadata.producer.id.get(),
        previous_producer_id: metadata.previous_id.get(),
        next_producer_id: metadata.next_id.get(),
        producer_epoch: metadata.producer.epoch.get(),
        next_producer_epoch: ProducerEpoch::NONE.get(),
        transaction_timeout_ms: metadata.timeout_ms,
        transaction_status: metadata.state.id(),
        transaction_partitions: (metadata.state != TransactionState::Empty)
            .then(|| metadata.partitions.topics().map(topic).collect()),
        transaction_last_update_timestamp_ms: metadata.updated_ms,
        transaction_start_timestamp_ms: metadata.started_ms,
        client_transaction_version: metadata.version.level(),
    }
}

fn from_value(value: TransactionLogValue) -> Result<Metadata, BadTransactionRecord> {
    let state = TransactionState::from_id(value.transaction_status)
        .ok_or(BadTransactionRecord::UnknownState(value.transaction_status))?;
    let version = ClientVersion::from_level(value.client_transaction_version)
        .ok_or(BadTransactionRecord::UnknownClientVersion(value.client_transaction_version))?;
    let mut partitions = Partitions::default();
    if state != TransactionState::Empty {
        for schema in value.transaction_partitions.iter().flatten() {
            let topic = TopicName::new(&schema.topic)?;
            for index in &schema.partition_ids {
                partitions.insert(TopicPartition::new(topic.clone(), *index));
            }
        }
    }
    Ok(Metadata {
        producer: TransactionalProducer {
            id: ProducerId::new(value.producer_id),
            epoch: ProducerEpoch::new(value.producer_epoch),
        },
        previous_id: ProducerId::new(value.previous_producer_id),
        next_id: ProducerId::new(value.next_producer_id),
        last_epoch: ProducerEpoch::NONE,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: Arc::new(partitions),
        started_ms: value.transaction_start_timestamp_ms,
        updated_ms: value.transaction_last_update_timestamp_ms,
        version,
    })
}

/// The record of a transactional id; a tombstone without `metadata`.
///
/// # Errors
/// When the id is longer than the format allows.
pub(super) fn state_record(
    transactional_id: &str,
    metadata: Option<&Metadata>,
    timestamp_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let value =
        metadata.map(|metadata| encode(VALUE_VERSION, &to_value(metadata), VALUE_VERSION)).transpose()?;
    Ok(OffsetsRecord { key: key(transactional_id)?, value, timestamp_ms })
}

/// Reads a stored record: an id, and what is known of it; `None` when it was forgotten.
///
/// # Errors
/// [`BadTransactionRecord`].
pub(super) fn decode(
    key: Option<&Bytes>,
    value: Option<&Bytes>,
) -> Result<(String, Option<Metadata>), BadTransactionRecord> {
    let bad_key = |cause| BadTransactionRecord::Undecodable { part: "key", cause };
    let mut decoder = Decoder::new(key.ok_or(BadTransactionRecord::NoKey)?.clone());
    let kind = decoder.get_i16().map_err(bad_key)?;
    if kind != KIND_TRANSACTION {
        return Err(BadTransactionRecord::UnknownKind(kind));
    }
    let key = TransactionLogKey::decode(&mut decoder, 0).map_err(bad_key)?;
    decoder.finish().map_err(bad_key)?;
    let Some(bytes) = value else { return Ok((key.transactional_id, None)) };
    let bad_value = |cause| BadTransactionRecord::Undecodable { part: "value", cause };
    let mut decoder = Decoder::new(bytes.clone());
    let version = decoder.get_i16().map_err(bad_value)?;
    if !TransactionLogValue::VERSIONS.contains(version) {
        return Err(BadTransactionRecord::UnknownVersion(version));
    }
    // Trailing bytes are left alone: Kafka's own reader does so, too.
    let value = TransactionLogValue::decode(&mut decoder, version).map_err(bad_value)?;
    Ok((key.transactional_id, Some(from_value(value)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        let digits = hex.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn partitions() -> Arc<Partitions> {
        let orders = TopicPartition::new("orders".parse().unwrap(), 3);
        Arc::new([orders].into_iter().collect())
    }

    fn metadata(state: TransactionState, id: i64, epoch: i16) -> Metadata {
        let mut metadata = Metadata::new(ProducerId::new(id), 60_000, 1_700_000_000_123);
        metadata.state = state;
        metadata.producer.epoch = ProducerEpoch::new(epoch);
        metadata
    }

    /// What `TransactionLog` of Apache Kafka 4.3.0 wrote for the same states.
    fn goldens() -> Vec<(Metadata, &'static str)> {
        let empty = metadata(TransactionState::Empty, 4711, 0);
        let mut ongoing = metadata(TransactionState::Ongoing, 4711, 5);
        ongoing.previous_id = ProducerId::new(4711);
        ongoing.partitions = partitions();
        ongoing.started_ms = 1_700_000_000_001;
        let mut prepared = metadata(TransactionState::PrepareCommit, 4711, i16::MAX);
        prepared.previous_id = ProducerId::new(4711);
        prepared.next_id = ProducerId::new(4712);
        prepared.partitions = partitions();
        prepared.started_ms = 1_700_000_000_001;
        prepared.version = ClientVersion::V2;
        let mut complete = metadata(TransactionState::CompleteCommit, 4712, 0);
        complete.previous_id = ProducerId::new(4711);
        complete.started_ms = 1_700_000_000_001;
        complete.updated_ms = 1_700_000_000_124;
        complete.version = ClientVersion::V2;
        vec![
            (empty, "0001000000000000126700000000ea6000000000018bcfe5687bffffffffffffffff00"),
            (
                ongoing,
                "0001000000000000126700050000ea600102076f72646572730200000003000000018bcfe5687b0000018bcfe5680101\
                 00080000000000001267",
            ),
            (
                prepared,
                "000100000000000012677fff0000ea600202076f72646572730200000003000000018bcfe5687b0000018bcfe5680103\
                 000800000000000012670108000000000000126802020002",
            ),
            (
                complete,
                "0001000000000000126800000000ea6004010000018bcfe5687c0000018bcfe568010200080000000000001267020200\
                 02",
            ),
        ]
    }

    #[test]
    fn states_have_kafkas_bytes() {
        for (metadata, golden) in goldens() {
            let record = state_record("my-txn", Some(&metadata), 7).unwrap();
            assert_eq!(record.key, bytes("000000066d792d74786e"));
            assert_eq!(record.value, Some(bytes(golden)), "{:?}", metadata.state);
            assert_eq!(record.timestamp_ms, 7);
            let (id, read) = decode(Some(&record.key), record.value.as_ref()).unwrap();
            assert_eq!((id.as_str(), read), ("my-txn", Some(metadata)));
        }
        let tombstone = state_record("my-txn", None, 0).unwrap();
        assert_eq!(decode(Some(&tombstone.key), None).unwrap(), ("my-txn".to_owned(), None));
    }

    #[test]
    fn records_of_before_kip_890_are_read() {
        let key = bytes("000000066d792d74786e");
        let empty = bytes("0000000000000000126700000000ea6000ffffffff0000018bcfe5687bffffffffffffffff");
        let (_, read) = decode(Some(&key), Some(&empty)).unwrap();
        assert_eq!(read, Some(metadata(TransactionState::Empty, 4711, 0)));
        let ongoing = bytes(
            "0000000000000000126700050000ea60010000000100066f726465727300000001000000030000018bcfe5687b0000018bcfe56801",
        );
        let (_, read) = decode(Some(&key), Some(&ongoing)).unwrap();
        let mut expected = metadata(TransactionState::Ongoing, 4711, 5);
        expected.partitions = partitions();
        expected.started_ms = 1_700_000_000_001;
        assert_eq!(read, Some(expected));
        // With the epoch of KIP-939, which says nothing where two-phase commit is not there.
        let prepared =
            bytes("000100000000000000010002000000070101000000000000000800000000000000090103020009");
        assert_eq!(decode(Some(&key), Some(&prepared)).unwrap().1.unwrap().producer.epoch.get(), 2);
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let key = bytes("000000066d792d74786e");
        let state = |status: i8, level: i16, topic: &str| {
            let schema = PartitionsSchema { topic: topic.to_owned(), partition_ids: vec![1] };
            let value = TransactionLogValue {
                transaction_status: status,
                transaction_partitions: Some(vec![schema]),
                client_transaction_version: level,
                ..TransactionLogValue::default()
            };
            decode(Some(&key), Some(&encode(1, &value, 1).unwrap())).unwrap_err()
        };
        assert_eq!(decode(None, None), Err(BadTransactionRecord::NoKey));
        assert_eq!(decode(Some(&bytes("0001000161")), None), Err(BadTransactionRecord::UnknownKind(1)));
        assert_eq!(decode(Some(&key), Some(&bytes("0002"))), Err(BadTransactionRecord::UnknownVersion(2)));
        assert_eq!(state(6, 0, "t"), BadTransactionRecord::UnknownState(6));
        assert_eq!(state(1, 3, "t"), BadTransactionRecord::UnknownClientVersion(3));
        assert!(matches!(state(1, 0, "no topic"), BadTransactionRecord::Topic(_)));
        for (key, value) in [
            (bytes("00"), None),
            (bytes("0000000561"), None),
            (bytes("000000016161"), None),
            (key.clone(), Some(bytes("000100"))),
        ] {
            let error = decode(Some(&key), value.as_ref()).unwrap_err();
            assert!(matches!(error, BadTransactionRecord::Undecodable { .. }), "{error}");
        }
        assert!(state_record(&"x".repeat(40_000), None, 0).is_err());
    }

    #[test]
    fn states_have_kafkas_numbers_and_names() {
        for (id, name) in
            ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort"]
                .into_iter()
                .enumerate()
        {
            let state = TransactionState::from_id(id as i8).unwrap();
            assert_eq!((state.name(), TransactionState::from_name(name)), (name, Some(state)));
        }
        assert_eq!(TransactionState::from_id(6), None);
        assert_eq!(TransactionState::from_name("Dead"), None);
    }
}
