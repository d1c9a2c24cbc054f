//! Producing as fast as the broker takes it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use super::frames::{batch, batch_of_zeros, produce_frame, produced};
use super::link::Link;

/// What to produce.
#[derive(Clone, Debug)]
pub(crate) struct ProduceLoad {
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    /// At least so many records: whole batches, as many for each partition.
    pub(crate) records: u64,
    pub(crate) value_bytes: usize,
    /// Bytes of a batch, which is a request.
    pub(crate) batch_bytes: usize,
    /// Requests under way.
    pub(crate) in_flight: i32,
}

/// Frames that differ, so that no cache of the processor makes it look cheaper than it is.
const FRAMES_MIN: usize = 16;

/// Produces into a new topic, one connection, the partitions in turn; gives the number of records. Every response is
/// checked: no error, and the offset that must come next.
pub(crate) fn produce(address: SocketAddr, load: &ProduceLoad) -> Result<u64> {
    produce_part(address, load, &(0..load.partitions).collect::<Vec<_>>())
}

/// As [`produce`], but only the share of these partitions, which the broker at `address` leads.
pub(crate) fn produce_part(address: SocketAddr, load: &ProduceLoad, partitions: &[i32]) -> Result<u64> {
    produce_from(address, load, partitions, 0)
}

/// As [`produce_part`], into partitions that all end at `first`.
pub(crate) fn produce_from(
    address: SocketAddr,
    load: &ProduceLoad,
    partitions: &[i32],
    first: i64,
) -> Result<u64> {
    let mut frames = Vec::new();
    let mut per_batch = 0;
    let mut seed = 0;
    for _ in 0..(FRAMES_MIN / partitions.len().max(1)).max(1) {
        for partition in partitions {
            seed += 1;
            let (batch, records) = batch(seed, load.value_bytes, load.batch_bytes)?;
            frames.push(produce_frame(&load.topic, *partition, batch)?);
            per_batch = u64::from(records);
        }
    }
    let each = load.records.div_ceil(per_batch.max(1) * u64::try_from(load.partitions)?);
    let partitions = partitions.len() as u64;
    let requests = each * partitions;
    let mut link = Link::connect(address, 16 << 10)?;
    let mut acknowledged = 0u64;
    let mut check = |link: &mut Link| {
        let expected = first + i64::try_from(acknowledged / partitions * per_batch)?;
        let offset = produced(link.receive()?)?;
        if offset != expected {
            bail!("a batch was appended at {offset} instead of {expected}");
        }
        acknowledged += 1;
        anyhow::Ok(())
    };
    let count = frames.len();
    for request in 0..requests {
        let index = usize::try_from(request)? % count;
        link.send(frames.get_mut(index).context("no frame")?)?;
        while link.in_flight() >= load.in_flight {
            check(&mut link)?;
        }
    }
    while link.in_flight() > 0 {
        check(&mut link)?;
    }
    Ok(requests * per_batch)
}

/// Bytes of the values with which a log is filled; nearly all of their pages are zeros.
const FILLING_BYTES: usize = 96 << 10;
/// Requests under way while a log is filled.
const FILLING_IN_FLIGHT: i32 = 5;

/// Fills partition 0 with about `bytes` of records of zeros, each with the time at which it is written; the log ends at
/// `first` before, and where it ends then is given back.
pub(crate) fn fill(address: SocketAddr, topic: &str, bytes: u64, first: i64) -> Result<i64> {
    let mut link = Link::connect(address, 16 << 10)?;
    let mut end = first;
    let mut check = |link: &mut Link| {
        let offset = produced(link.receive()?)?;
        if offset != end {
            bail!("a batch was appended at {offset} instead of {end}");
        }
        end += 1;
        anyhow::Ok(())
    };
    for _ in 0..bytes.div_ceil(FILLING_BYTES as u64) {
        link.send(&mut produce_frame(topic, 0, batch_of_zeros(FILLING_BYTES)?)?)?;
        while link.in_flight() >= FILLING_IN_FLIGHT {
            check(&mut link)?;
        }
    }
    while link.in_flight() > 0 {
        check(&mut link)?;
    }
    Ok(end)
}
