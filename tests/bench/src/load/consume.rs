//! Consuming from the beginning to a known end.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::frames::{fetch_frame, fetched};
use super::link::Link;

/// What to consume: one partition from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct ConsumeLoad {
    pub(crate) topic: String,
    /// How many records there are.
    pub(crate) records: u64,
}

/// Fetches as a consumer with default settings does (1 MiB a partition), one request under way; gives the bytes of the
/// batches. Every batch must begin where the one before it ended.
pub(crate) fn consume(address: SocketAddr, load: &ConsumeLoad) -> Result<u64> {
    consume_from(address, load, 0)
}

/// As [`consume`], from an offset on.
pub(crate) fn consume_from(address: SocketAddr, load: &ConsumeLoad, from: i64) -> Result<u64> {
    let mut link = Link::connect(address, 1 << 20)?;
    let (mut offset, mut records, mut bytes) = (from, 0, 0);
    while records < load.records {
        link.send(&mut fetch_frame(&load.topic, 0, offset)?)?;
        let got = fetched(link.receive()?, offset)?;
        if got.records == 0 {
            bail!("the log ends at {offset}, after {records} records of {}", load.records);
        }
        offset = got.next_offset;
        records += got.records;
        bytes += got.bytes;
    }
    if records != load.records || u64::try_from(offset - from) != Ok(records) {
        bail!("{records} records up to offset {offset} instead of {}", load.records);
    }
    Ok(bytes)
}
