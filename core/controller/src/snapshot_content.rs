//! The content of a snapshot's file: the snapshot's records as record batches, each with its checksum.

use bytes::Bytes;
use towpath_record::{BatchBuilder, Compression, batches};
use towpath_types::{LeaderEpoch, Offset};

use crate::image::{SnapshotError, SnapshotRecord};
use crate::{ControllerError, MetadataImage};

/// Bytes of one batch of a snapshot.
const SNAPSHOT_BATCH_BYTES: usize = 512 * 1024;
/// The only leader that a snapshot has.
const EPOCH: LeaderEpoch = LeaderEpoch::new(0);

/// A snapshot as record batches, each with its checksum.
pub(crate) fn encode(image: &MetadataImage) -> Result<(Vec<u8>, u64), ControllerError> {
    let append = |error: towpath_record::BuildError| ControllerError::Append(error.into());
    let mut content = Vec::new();
    let mut builder = BatchBuilder::new(Compression::None);
    let (mut records, mut first, mut bytes) = (0u64, 0u64, 0usize);
    let mut close = |builder: &mut BatchBuilder, first: u64| {
        builder.set_base(Offset::new(i64::try_from(first).unwrap_or(i64::MAX)), EPOCH);
        content.extend_from_slice(&builder.build().map_err(append)?);
        builder.reset();
        Ok::<(), ControllerError>(())
    };
    for record in image.snapshot() {
        let value = record.encode()?;
        if bytes > 0 && bytes + value.len() > SNAPSHOT_BATCH_BYTES {
            close(&mut builder, first)?;
            (first, bytes) = (records, 0);
        }
        builder.append(0, None, Some(&value), &[]).map_err(append)?;
        bytes += value.len();
        records += 1;
    }
    close(&mut builder, first)?;
    Ok((content, records))
}

/// The image that [`encode`] was given, and the number of its records.
pub(crate) fn decode(
    content: &Bytes,
) -> Result<(MetadataImage, u64), Box<dyn std::error::Error + Send + Sync>> {
    let mut records = Vec::new();
    let mut stored = batches(content);
    for batch in stored.by_ref() {
        let batch = batch?;
        batch.verify_crc()?;
        for record in &batch.records()? {
            let value = record?.value.unwrap_or_default();
            records.push(SnapshotRecord::decode(value)?);
        }
    }
    if stored.remaining() > 0 {
        return Err("it ends in the middle".into());
    }
    let count = records.len() as u64;
    Ok((MetadataImage::from_snapshot(records.into_iter().map(Ok::<_, SnapshotError>))?, count))
}
