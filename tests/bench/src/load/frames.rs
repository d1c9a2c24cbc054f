//! Request frames, and the checks of their responses.

use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use towpath_record::{BatchBuilder, Compression, batches};
use towpath_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use towpath_wire::frame::{decode_response, encode_request};
use towpath_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::link::CLIENT_ID;

/// Both brokers are asked in these versions, the last that name topics.
const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;

/// One record batch of equal records with values that do not compress, and how many records it has.
pub(crate) fn batch(seed: u64, value_bytes: usize, batch_bytes: usize) -> Result<(Bytes, u32)> {
    let timestamp = now_ms()?;
    let mut builder = BatchBuilder::new(Compression::None);
    let mut noise = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = vec![0u8; value_bytes];
    let mut records = 0;
    while records == 0 || builder.size_in_bytes() + value_bytes + 16 <= batch_bytes {
        for chunk in value.chunks_mut(8) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let bytes = noise.to_le_bytes();
            chunk.copy_from_slice(bytes.get(..chunk.len()).unwrap_or_default());
        }
        builder.append(timestamp, None, Some(&value), &[])?;
        records += 1;
    }
    Ok((builder.build()?, records))
}

/// One record batch of one record whose value is zeros.
pub(crate) fn batch_of_zeros(value_bytes: usize) -> Result<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(now_ms()?, None, Some(&vec![0; value_bytes]), &[])?;
    Ok(builder.build()?)
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

/// A produce request with `acks=all` for one partition.
pub(crate) fn produce_frame(topic: &str, partition: i32, batch: Bytes) -> Result<Vec<u8>> {
    let request = ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData { index: partition, records: Some(batch) }],
            ..Default::default()
        }],
    };
    Ok(encode_request(&request, PRODUCE_VERSION, 0, Some(CLIENT_ID))?.into_bytes().to_vec())
}

/// The base offset that a produce response tells.
pub(crate) fn produced(response: Bytes) -> Result<i64> {
    let (_, response) = decode_response::<ProduceRequest>(response, PRODUCE_VERSION)?;
    let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
    let answer = answer.context("a produce response without a partition")?;
    if answer.error_code != 0 {
        bail!("produce failed with error {} ({:?})", answer.error_code, answer.error_message);
    }
    Ok(answer.base_offset)
}

/// A fetch request with a consumer's default limits, waiting for one byte.
pub(crate) fn fetch_frame(topic: &str, partition: i32, offset: i64) -> Result<Vec<u8>> {
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    Ok(encode_request(&request, FETCH_VERSION, 0, Some(CLIENT_ID))?.into_bytes().to_vec())
}

/// What a fetch brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) next_offset: i64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Walks the batches of a fetch response; they must begin at `offset` and follow one another without a gap.
pub(crate) fn fetched(response: Bytes, offset: i64) -> Result<Fetched> {
    let (_, response) = decode_response::<FetchRequest>(response, FETCH_VERSION)?;
    if response.error_code != 0 {
        bail!("fetch failed with error {}", response.error_code);
    }
    let mut result = Fetched { next_offset: offset, records: 0, bytes: 0 };
    let Some(data) = response.responses.into_iter().flat_map(|topic| topic.partitions).next() else {
        bail!("a fetch response without the partition");
    };
    if data.error_code != 0 {
        bail!("fetch failed with error {}", data.error_code);
    }
    for batch in batches(&data.records.unwrap_or_default()) {
        let header = *batch?.header();
        if header.base_offset.get() != result.next_offset {
            bail!("a batch begins at {} instead of {}", header.base_offset, result.next_offset);
        }
        result.next_offset = header.last_offset().get() + 1;
        result.records += u64::try_from(header.record_count)?;
        result.bytes += header.size_in_bytes() as u64;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_large_as_asked() {
        let (bytes, records) = batch(1, 1024, 96 << 10).unwrap();
        assert!(bytes.len() <= 96 << 10 && bytes.len() > 94 << 10, "{}", bytes.len());
        assert_eq!(records, 95);
        let (_, single) = batch(1, 1024, 0).unwrap();
        assert_eq!(single, 1);
        assert_ne!(batch(1, 100, 1000).unwrap().0, batch(2, 100, 1000).unwrap().0);
    }

    #[test]
    fn frames_announce_their_length_and_leave_room_for_the_correlation_id() {
        let (bytes, _) = batch(1, 100, 1000).unwrap();
        for frame in [produce_frame("t", 3, bytes).unwrap(), fetch_frame("t", 3, 9).unwrap()] {
            let length = u32::from_be_bytes(*frame.first_chunk().unwrap());
            assert_eq!(length as usize + 4, frame.len());
            assert_eq!(frame[8..12], [0; 4]);
        }
    }
}
