//! Reads records for members of a group, gives them out, and waits for them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use towpath_controller::group_config::ShareGroupConfig;
use towpath_log::{AbortedTransaction, FetchedData};
use towpath_record::{RecordBatch, batches};
use towpath_replica::{
    Awaited, FetchPosition, FetchWaiter, FetchedPartition, Isolation, Partition, PartitionError, Reader,
};
use towpath_types::{LeaderEpoch, Offset, ProducerId};
use towpath_wire::ErrorCode;

use super::OfPartition;
use super::live::SharePartition;
use super::partition::{Acquired, Run, ShareSettings, Wish};
use super::sessions::Place;
use crate::handlers::partition_error_code;
use crate::state::BrokerState;

/// Bytes that are read of one partition at a time: what is not given out is read in vain.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// What was found of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Whole batches, with at least the records that were given out.
    pub(crate) records: Bytes,
    pub(crate) acquired: Vec<Acquired>,
}

/// A member's wish for records.
pub(crate) struct ShareFetch {
    pub(crate) broker: Arc<BrokerState>,
    pub(crate) group: Arc<str>,
    pub(crate) member: Arc<str>,
    pub(crate) config: ShareGroupConfig,
    pub(crate) places: Vec<Place>,
    /// When the member's session began.
    pub(crate) since: Instant,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) batch_size: usize,
    pub(crate) is_strict: bool,
}

/// Partitions with what was found, or why there is nothing.
pub(crate) type AllFound = Vec<(Place, Result<Found, ErrorCode>)>;

impl ShareFetch {
    const fn isolation(&self) -> Isolation {
        if self.config.reads_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
    }

    /// Gives out what there is; waits for something if there is nothing.
    pub(crate) async fn run(&self, wait: Duration) -> AllFound {
        let deadline = Instant::now() + wait;
        let news = self.broker.shares.news(&self.group);
        let mut waiting = Waiting::new(self.config.reads_committed);
        loop {
            // Before the look: what comes after it is not missed.
            let has_news = news.notified();
            let (found, partitions) = self.look().await;
            let is_something =
                |result: &Result<Found, ErrorCode>| result.as_ref().is_ok_and(|it| !it.acquired.is_empty());
            let is_enough = |result: &Result<Found, ErrorCode>| result.is_err() || is_something(result);
            if found.is_empty() || found.iter().any(|(_, result)| is_enough(result)) {
                return found;
            }
            if !waiting.is_for(&partitions) {
                // Registered only now: what came meanwhile is looked for once more.
                waiting.begin(partitions);
                continue;
            }
            tokio::select! {
                () = has_news => {}
                () = waiting.waiter.woken() => waiting.waiter.rearm(1),
                () = tokio::time::sleep_until(deadline) => return found,
            }
            if Instant::now() >= deadline || self.broker.is_stopping() {
                return found;
            }
        }
    }

    /// Looks at each partition in turn.
    async fn look(&self) -> (AllFound, Vec<Arc<Partition>>) {
        let mut all = Vec::with_capacity(self.places.len());
        let mut partitions = Vec::new();
        let (mut records, mut bytes) = (self.records_max, self.bytes_max);
        let settings = self.config.of_partition();
        for place in &self.places {
            // The first batch may be larger than all of them may be together.
            let room = (records, bytes, bytes == self.bytes_max);
            let result = match self.broker.shares.get(&self.broker, &self.group, *place) {
                Err(error) => Err(error),
                Ok(shared) => {
                    partitions.push(Arc::clone(shared.log()));
                    self.read_or_begin(&shared, *place, settings, room).await
                }
            };
            if let Ok(found) = &result {
                let given: i64 = found.acquired.iter().map(|it| it.last - it.first + 1).sum();
                records = records.saturating_sub(usize::try_from(given).unwrap_or(usize::MAX));
                bytes = bytes.saturating_sub(found.records.len());
            }
            all.push((*place, result));
        }
        (all, partitions)
    }

    /// Reads; a share partition that has just ended, since nobody had needed it, begins anew, and is waited for.
    async fn read_or_begin(
        &self,
        shared: &Arc<SharePartition>,
        place: Place,
        settings: ShareSettings,
        room: (usize, usize, bool),
    ) -> Result<Found, ErrorCode> {
        if room.0 == 0 || room.1 == 0 {
            return Ok(Found::default());
        }
        match self.read(shared, settings, room).await {
            Err(_) if shared.has_ended_idle() => {
                self.broker.shares.get(&self.broker, &self.group, place).map(|_| Found::default())
            }
            result => result,
        }
    }

    async fn read(
        &self,
        shared: &Arc<SharePartition>,
        settings: ShareSettings,
        (records_max, bytes_max, is_first): (usize, usize, bool),
    ) -> Result<Found, ErrorCode> {
        let Some(from) = shared.next_offset(settings, self.since)? else { return Ok(Found::default()) };
        let position = FetchPosition {
            offset: Offset::new(from),
            current_leader_epoch: LeaderEpoch::new(-1),
            last_fetched_epoch: LeaderEpoch::new(-1),
            bytes_max: bytes_max.min(READ_BYTES_MAX),
            min_one: is_first,
            isolation: self.isolation(),
        };
        let fetched = match shared.log().fetch(Reader::Consumer, &position) {
            Ok(fetched) => fetched,
            Err(PartitionError::OutOfRange { requested, log_start, .. }) if requested < log_start => {
                shared.log_starts_at(settings, log_start.get())?;
                return Ok(Found::default());
            }
            // What a leader before this one had given out is gone, and comes again.
            Err(PartitionError::OutOfRange { .. }) => return Ok(Found::default()),
            Err(error) => return Err(partition_error_code(&error)),
        };
        let FetchedPartition { data, aborted, .. } = fetched;
        let bytes = into_bytes(data).await?;
        let (pieces, runs) = runs(&bytes, &aborted.unwrap_or_default())?;
        let wish = Wish {
            member: Arc::clone(&self.member),
            records_max,
            is_strict: self.is_strict,
            batch_size: self.batch_size.max(1),
        };
        let acquired = shared.acquire(settings, from, &runs, &wish)?;
        let records = trimmed(&bytes, &pieces, &runs, &acquired);
        self.broker.metrics.bytes_out.increment(records.len() as u64);
        Ok(Found { records, acquired })
    }
}

async fn into_bytes(data: FetchedData) -> Result<Bytes, ErrorCode> {
    let storage = ErrorCode::KafkaStorageError;
    match data {
        // The disk is waited for elsewhere.
        data @ FetchedData::File(_) => {
            let read = tokio::task::spawn_blocking(move || data.into_bytes());
            read.await.map_err(|_| storage)?.map_err(|_| storage)
        }
        data => data.into_bytes().map_err(|_| storage),
    }
}

/// The batches in what was read: where each ends, and what it is.
fn runs(bytes: &Bytes, aborted: &[AbortedTransaction]) -> Result<(Vec<usize>, Vec<Run>), ErrorCode> {
    let (mut ends, mut runs) = (Vec::new(), Vec::new());
    let mut aborted = Aborted::new(aborted);
    let mut end = 0;
    for batch in batches(bytes) {
        let batch = batch.map_err(|_| ErrorCode::CorruptMessage)?;
        end += batch.bytes().len();
        let is_aborted = aborted.has(&batch);
        ends.push(end);
        runs.push(Run {
            first: batch.base_offset.get(),
            last: batch.next_offset().get() - 1,
            is_data: !batch.is_control() && !is_aborted,
        });
    }
    Ok((ends, runs))
}

/// The transactions that are open and end in vain, on the way through a log.
struct Aborted<'a> {
    coming: Vec<&'a AbortedTransaction>,
    open: HashSet<ProducerId>,
}

impl<'a> Aborted<'a> {
    fn new(aborted: &'a [AbortedTransaction]) -> Self {
        let mut coming: Vec<_> = aborted.iter().collect();
        coming.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { coming, open: HashSet::new() }
    }

    /// Whether a batch belongs to one of them.
    fn has(&mut self, batch: &RecordBatch) -> bool {
        while let Some(next) = self.coming.pop_if(|next| next.first_offset < batch.next_offset()) {
            self.open.insert(next.producer_id);
        }
        if batch.is_control() {
            self.open.remove(&batch.producer_id);
            return false;
        }
        batch.is_transactional() && self.open.contains(&batch.producer_id)
    }
}

/// From the first batch with a record that was given out to the last one.
fn trimmed(bytes: &Bytes, ends: &[usize], runs: &[Run], acquired: &[Acquired]) -> Bytes {
    let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else { return Bytes::new() };
    let from = runs.iter().position(|run| run.last >= first.first);
    let to = runs.iter().rposition(|run| run.first <= last.last);
    let (Some(from), Some(to)) = (from, to) else { return Bytes::new() };
    let begin = from.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(to).copied().unwrap_or(bytes.len());
    let found = bytes.slice(begin..end);
    // R10: a few records do not keep all that was read in memory until they are sent.
    if found.len() < bytes.len() / 2 { Bytes::copy_from_slice(&found) } else { found }
}

/// Registered with partitions, until dropped.
struct Waiting {
    waiter: Arc<FetchWaiter>,
    partitions: Vec<Arc<Partition>>,
    awaited: Awaited,
}

impl Waiting {
    fn new(reads_committed: bool) -> Self {
        let awaited = if reads_committed { Awaited::Stable } else { Awaited::Committed };
        Self { waiter: FetchWaiter::new(1), partitions: Vec::new(), awaited }
    }

    fn is_for(&self, partitions: &[Arc<Partition>]) -> bool {
        self.partitions.len() == partitions.len()
            && self.partitions.iter().zip(partitions).all(|(known, other)| Arc::ptr_eq(known, other))
    }

    fn begin(&mut self, partitions: Vec<Arc<Partition>>) {
        self.end();
        partitions.iter().for_each(|partition| partition.wait_for_records(&self.waiter, self.awaited));
        self.partitions = partitions;
    }

    fn end(&mut self) {
        for partition in self.partitions.drain(..) {
            partition.stop_waiting(&self.waiter, self.awaited);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_records_do_not_keep_all_that_was_read() {
        let bytes = Bytes::from((0..100).collect::<Vec<u8>>());
        let runs = [0, 1, 2, 3].map(|offset| Run { first: offset, last: offset, is_data: true });
        let ends = [10, 20, 30, 100];
        let of = |first, last| trimmed(&bytes, &ends, &runs, &[Acquired { first, last, deliveries: 1 }]);
        assert_eq!(of(1, 2), bytes.slice(10..30));
        assert_eq!(of(3, 3), bytes.slice(30..));
        let is_within = |found: &Bytes| bytes.as_ptr_range().contains(&found.as_ptr());
        assert!(!is_within(&of(1, 2)) && is_within(&of(3, 3)));
        assert!(of(7, 7).is_empty());
    }
}
