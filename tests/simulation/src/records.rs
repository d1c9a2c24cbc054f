//! The records of a run: who wrote them is in their value, so that they can be told apart.

use bytes::Bytes;
use towpath_log::Log;
use towpath_record::{BatchBuilder, Compression, batches};
use towpath_types::{Offset, ProducerEpoch, ProducerId};

use crate::violation::{Checked, INTERNAL, Violation};

/// A record in a log: the leader epoch in which it was appended, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: i32,
    pub(crate) id: u64,
}

/// Ids of records that no producer of ours wrote (those of groups).
pub(crate) const FOREIGN: u64 = 1 << 63;
/// Ids of records of producers without idempotence.
pub(crate) const LOOSE: u64 = 1 << 62;

/// The id of a producer's record.
pub(crate) const fn id(producer: u64, number: u64) -> u64 {
    producer << 32 | number
}

/// Producer and number of an id; none where duplicates are allowed.
pub(crate) const fn idempotent(id: u64) -> Option<(u64, u64)> {
    if id & (FOREIGN | LOOSE) != 0 { None } else { Some((id >> 32, id & 0xffff_ffff)) }
}

/// A batch of `count` records with the numbers from `first` on.
pub(crate) fn batch(producer: u64, first: u64, count: u64, sequence: Option<i32>) -> Checked<Bytes> {
    let failed = |error: towpath_record::BuildError| Violation::new(INTERNAL, error.to_string());
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(sequence) = sequence {
        let producer = i64::try_from(producer).unwrap_or(i64::MAX);
        builder.set_producer(ProducerId::new(producer), ProducerEpoch::new(0), sequence);
    }
    let loose = if sequence.is_some() { 0 } else { LOOSE };
    for number in first..first + count {
        let value = (id(producer, number) | loose).to_be_bytes();
        builder.append(0, None, Some(&value), &[]).map_err(failed)?;
    }
    builder.build().map_err(failed)
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
        let epoch = batch.partition_leader_epoch.get();
        let records = batch.records().map_err(|error| error.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.unwrap_or_default();
            let own = record.key.is_none().then(|| value.first_chunk::<8>().copied()).flatten();
            let id = own
                .map_or_else(|| hash([record.key.unwrap_or_default(), value]) | FOREIGN, u64::from_be_bytes);
            found.push((record.offset.get(), Entry { epoch, id }));
        }
    }
    Ok(found)
}

/// All that a log holds.
pub(crate) fn read_log(log: &Log) -> Result<(i64, Vec<Entry>), String> {
    let start = log.log_start_offset();
    let end = log.log_end_offset();
    let (mut at, mut found) = (start, Vec::new());
    while at < end {
        let data = log.read(at, 1 << 20, end, true).map_err(|error| error.to_string())?;
        let bytes = data.into_bytes().map_err(|error| error.to_string())?;
        let read = entries(&bytes)?;
        if read.is_empty() {
            return Err(format!("nothing can be read at offset {at} of {end}"));
        }
        for (offset, entry) in read {
            if offset < at.get() {
                continue;
            }
            if offset != at.get() {
                return Err(format!("offset {offset} where {at} should be"));
            }
            found.push(entry);
            at = Offset::new(offset + 1);
        }
    }
    Ok((start.get(), found))
}
