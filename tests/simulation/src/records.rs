//! The records of a run: who wrote them is in their value, so that they can be told apart.

use bytes::Bytes;
use towpath_coordinator::TransactionalProducer;
use towpath_log::Log;
use towpath_record::{BatchBuilder, Compression, ControlType, RecordBatch, batches, control_record};
use towpath_types::{Offset, ProducerEpoch, ProducerId};

use crate::violation::{Checked, INTERNAL, Violation};

/// A record in a log: the leader epoch in which it was appended, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: i32,
    pub(crate) id: u64,
}

/// What compaction has left of a record.
pub(crate) const HOLE: Entry = Entry { epoch: i32::MIN, id: u64::MAX };

/// Ids of records that no producer of ours wrote (those of coordinators).
pub(crate) const FOREIGN: u64 = 1 << 63;
/// Ids of records of producers without idempotence.
pub(crate) const LOOSE: u64 = 1 << 62;
/// Ids of records in transactions.
const TRANSACTIONAL: u64 = 1 << 61;
/// Ids of markers.
const MARKER: u64 = 1 << 60;
const COMMIT: u64 = 1 << 59;
/// The place of an offset of a group in its transaction.
pub(crate) const OF_GROUP: u64 = 0xfff;

/// The producer ids of transactional producers begin here.
pub(crate) const TRANSACTIONAL_IDS: i64 = 500_000;
/// Keys of a compacted topic.
const KEYS: u64 = 5;

/// The id of a producer's record.
pub(crate) const fn id(producer: u64, number: u64) -> u64 {
    producer << 32 | number
}

/// The id of a transaction's record: the producer id, the transaction, and the record's place in it.
pub(crate) const fn transactional_id(producer: u64, transaction: u64, place: u64) -> u64 {
    TRANSACTIONAL | (producer & 0xf_ffff) << 40 | (transaction & 0xfff_ffff) << 12 | place & 0xfff
}

/// Producer, transaction and place of an id, if it is of a record in a transaction.
pub(crate) const fn transaction_of(id: u64) -> Option<(u64, u64, u64)> {
    if id & (FOREIGN | LOOSE | TRANSACTIONAL) == TRANSACTIONAL {
        Some((id >> 40 & 0xf_ffff, id >> 12 & 0xfff_ffff, id & 0xfff))
    } else {
        None
    }
}

/// The id of a marker. A marker that is written twice has the same id.
pub(crate) const fn marker_id(producer: u64, commit: bool) -> u64 {
    MARKER | if commit { COMMIT } else { 0 } | producer & 0xf_ffff
}

/// Producer and outcome of an id, if it is a marker's.
pub(crate) const fn marker_of(id: u64) -> Option<(u64, bool)> {
    if id & (FOREIGN | LOOSE | TRANSACTIONAL | MARKER) == MARKER {
        Some((id & 0xf_ffff, id & COMMIT != 0))
    } else {
        None
    }
}

/// Producer and number of an id; none where duplicates are allowed, and in transactions.
pub(crate) const fn idempotent(id: u64) -> Option<(u64, u64)> {
    if id & (FOREIGN | LOOSE | TRANSACTIONAL | MARKER) != 0 {
        None
    } else {
        Some((id >> 32, id & 0xffff_ffff))
    }
}

/// The key of a record in a compacted topic.
pub(crate) const fn key_of(id: u64) -> Option<u8> {
    let is_of_coordinator = id & FOREIGN != 0 || marker_of(id).is_some();
    let is_of_group = matches!(transaction_of(id), Some((_, _, OF_GROUP)));
    if is_of_coordinator || is_of_group { None } else { Some((id % KEYS) as u8) }
}

fn append(builder: &mut BatchBuilder, id: u64, is_keyed: bool) -> Checked {
    let key = key_of(id).filter(|_| is_keyed).map(|key| [key]);
    builder
        .append(0, key.as_ref().map(<[u8; 1]>::as_slice), Some(&id.to_be_bytes()), &[])
        .map(drop)
        .map_err(|error| Violation::new(INTERNAL, error.to_string()))
}

/// A batch of `count` records with the numbers from `first` on.
pub(crate) fn batch(
    producer: u64,
    first: u64,
    count: u64,
    sequence: Option<i32>,
    is_keyed: bool,
) -> Checked<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(sequence) = sequence {
        let producer = i64::try_from(producer).unwrap_or(i64::MAX);
        builder.set_producer(ProducerId::new(producer), ProducerEpoch::new(0), sequence);
    }
    let loose = if sequence.is_some() { 0 } else { LOOSE };
    for number in first..first + count {
        append(&mut builder, id(producer, number) | loose, is_keyed)?;
    }
    builder.build().map_err(|error| Violation::new(INTERNAL, error.to_string()))
}

/// A batch of a transaction.
pub(crate) fn transactional_batch(
    producer: TransactionalProducer,
    ids: &[u64],
    sequence: i32,
    is_keyed: bool,
) -> Checked<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(producer.id, producer.epoch, sequence);
    builder.set_transactional(true);
    for id in ids {
        append(&mut builder, *id, is_keyed)?;
    }
    builder.build().map_err(|error| Violation::new(INTERNAL, error.to_string()))
}

/// FNV-1a.
fn hash(parts: [&[u8]; 2]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The records of whole batches, with the offset of the first; the rest of a cut batch is left out.
pub(crate) fn entries(bytes: &Bytes) -> Result<Vec<(i64, Entry)>, String> {
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        batch.verify_crc().map_err(|error| error.to_string())?;
        entries_of(&batch, &mut found)?;
    }
    Ok(found)
}

/// The records of a batch.
pub(crate) fn entries_of(batch: &RecordBatch, found: &mut Vec<(i64, Entry)>) -> Result<(), String> {
    let epoch = batch.partition_leader_epoch.get();
    let producer = batch.producer_id.get() as u64;
    let records = batch.records().map_err(|error| error.to_string())?;
    for record in &records {
        let record = record.map_err(|error| error.to_string())?;
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let own = if key.len() <= 1 { value.first_chunk::<8>() } else { None };
        // An offset of a group: the version of the value, and the offset, which is the transaction's number.
        let of_group = value.get(2..10).and_then(|offset| offset.first_chunk::<8>());
        let id = match (own, of_group) {
            _ if batch.is_control() => {
                match control_record(&record).map_err(|error| error.to_string())?.control_type {
                    ControlType::Commit => marker_id(producer, true),
                    ControlType::Abort => marker_id(producer, false),
                    ControlType::Other(_) => hash([key, value]) | FOREIGN,
                }
            }
            (Some(own), _) => u64::from_be_bytes(*own),
            (None, Some(offset)) if batch.is_transactional() => {
                transactional_id(producer, u64::from_be_bytes(*offset), OF_GROUP)
            }
            _ => hash([key, value]) | FOREIGN,
        };
        found.push((record.offset.get(), Entry { epoch, id }));
    }
    Ok(())
}

/// All that a log holds; a log that is compacted may have holes.
pub(crate) fn read_log(log: &Log, is_compacted: bool) -> Result<(i64, Vec<Entry>), String> {
    let start = log.log_start_offset();
    let end = log.log_end_offset();
    let (mut at, mut found) = (start, Vec::new());
    while at < end {
        let data = log.read(at, 1 << 20, end, true).map_err(|error| error.to_string())?;
        let bytes = data.into_bytes().map_err(|error| error.to_string())?;
        let read = entries(&bytes)?;
        let next = batches(&bytes).filter_map(Result::ok).last().map(|batch| batch.next_offset());
        if read.is_empty() && !is_compacted {
            return Err(format!("nothing can be read at offset {at} of {end}"));
        }
        let fill = |found: &mut Vec<Entry>, to: i64| {
            let missing = usize::try_from(to - start.get()).unwrap_or(0);
            if missing > found.len() {
                found.resize(missing, HOLE);
            }
        };
        for (offset, entry) in read {
            if offset < at.get() {
                continue;
            }
            if offset != at.get() && !is_compacted {
                return Err(format!("offset {offset} where {at} should be"));
            }
            fill(&mut found, offset);
            found.push(entry);
            at = Offset::new(offset + 1);
        }
        if is_compacted {
            // What was in the last batches may be gone, and nothing be left up to the end.
            at = next.unwrap_or(end).max(at).min(end);
            fill(&mut found, at.get());
        }
    }
    Ok((start.get(), found))
}
