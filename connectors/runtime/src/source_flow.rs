//! What is on its way from a source: chunks whose records are not acknowledged, offsets that are not stored.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;
use towpath_api::{ConnectorError, SourceBatch, SourceOffsets};
use towpath_types::TopicPartition;

use crate::offsets::{self, Changes, TargetOffset};
use crate::source_task::SourceUnit;
use crate::source_writer::{Sent, Writer};
use crate::status::TaskShared;

/// Offsets are stored at most this often while records flow.
const STORE_INTERVAL: Duration = Duration::from_millis(50);
/// Offsets that move without records are stored at most this often.
const STORE_INTERVAL_IDLE: Duration = Duration::from_millis(500);
/// R10: chunks, and bytes of their batches, that may be on their way.
const CHUNKS_MAX: usize = 64;
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, ConnectorError>> + Send>>;
type Targets = BTreeMap<TopicPartition, TargetOffset>;

/// The records of one poll, on their way.
struct Chunk {
    done: Boxed<Targets>,
    offsets: SourceOffsets,
    records: u64,
    bytes: u64,
    held: usize,
}

/// The stages between a poll and the durable offset.
pub(crate) struct Flow {
    writer: Writer,
    shared: Arc<TaskShared>,
    pipeline: Arc<str>,
    task: u32,
    chunks: VecDeque<Chunk>,
    held: usize,
    /// Acknowledged, to be stored.
    changes: Changes,
    with_records: bool,
    storing: Option<(Boxed<()>, Arc<Changes>)>,
    stored_at: Option<Instant>,
    hurry: bool,
    /// What a poll said last, to see what has changed.
    seen: SourceOffsets,
    durable: SourceOffsets,
    committable: bool,
}

impl Flow {
    pub(crate) fn new(unit: &SourceUnit, writer: Writer, durable: SourceOffsets) -> Self {
        Self {
            writer,
            shared: Arc::clone(&unit.shared),
            pipeline: Arc::from(unit.spec.name.as_str()),
            task: unit.index,
            chunks: VecDeque::new(),
            held: 0,
            changes: Changes::default(),
            with_records: false,
            storing: None,
            stored_at: None,
            hurry: false,
            seen: durable.clone(),
            durable,
            committable: false,
        }
    }

    /// What is stored.
    pub(crate) const fn durable(&self) -> &SourceOffsets {
        &self.durable
    }

    /// What is stored, if the source has not heard of it.
    pub(crate) fn take_committable(&mut self) -> Option<SourceOffsets> {
        std::mem::take(&mut self.committable).then(|| self.durable.clone())
    }

    /// Somebody waits for the offsets: store them as soon as there are any.
    pub(crate) fn hurry(&mut self) {
        self.hurry = true;
    }

    /// Sends the records of a poll.
    pub(crate) async fn take(&mut self, batch: SourceBatch) -> Result<(), ConnectorError> {
        let held = batch.batch.size_in_bytes();
        let sent = self.writer.write(batch.batch, batch.rejected).await?;
        self.push(sent, batch.offsets, held).await
    }

    /// Takes offsets that moved without records.
    pub(crate) async fn take_idle(&mut self, offsets: SourceOffsets) -> Result<(), ConnectorError> {
        let changed = |(partition, document): &(String, Json)| {
            let known = self.seen.partitions.get(partition).unwrap_or(&Json::Null);
            known != document
        };
        let told = !offsets.is_empty();
        let partitions: BTreeMap<_, _> = offsets.partitions.into_iter().filter(changed).collect();
        if partitions.is_empty() {
            // A source may wait for what it tells to be durable; after a restart it may be so already.
            self.committable |= told && self.is_settled();
            return Ok(());
        }
        self.push(Sent::default(), SourceOffsets { partitions }, 0).await
    }

    /// Whether everything taken is durable.
    fn is_settled(&self) -> bool {
        self.chunks.is_empty() && self.storing.is_none() && self.changes.is_empty()
    }

    async fn push(&mut self, sent: Sent, offsets: SourceOffsets, held: usize) -> Result<(), ConnectorError> {
        self.seen.merge(offsets.clone());
        let (records, bytes) = (sent.records, sent.bytes);
        let done = self.writer.acknowledged(sent);
        self.held += held;
        self.chunks.push_back(Chunk { done, offsets, records, bytes, held });
        while self.chunks.len() > CHUNKS_MAX || self.held > CHUNK_BYTES_MAX && self.chunks.len() > 1 {
            self.progress().await?;
        }
        Ok(())
    }

    fn store_due(&self) -> Instant {
        let interval = match (self.hurry, self.with_records) {
            (true, _) => Duration::ZERO,
            // Nothing follows at the moment: there is no reason to wait.
            (false, true) if self.chunks.is_empty() => Duration::ZERO,
            (false, true) => STORE_INTERVAL,
            (false, false) => STORE_INTERVAL_IDLE,
        };
        self.stored_at.map_or_else(Instant::now, |at| at + interval)
    }

    /// Waits for the next thing to happen to what is on its way; may be dropped at any time without losing anything.
    pub(crate) async fn progress(&mut self) -> Result<(), ConnectorError> {
        let due = self.store_due();
        let to_store = self.storing.is_none() && !self.changes.is_empty();
        let Self { chunks, storing, .. } = self;
        tokio::select! {
            targets = async { match chunks.front_mut() {
                Some(chunk) => chunk.done.as_mut().await,
                None => std::future::pending().await,
            } } => self.acknowledged(targets?),
            stored = async { match storing {
                Some((storing, _)) => storing.as_mut().await,
                None => std::future::pending().await,
            } } => {
                stored?;
                self.stored();
            }
            () = tokio::time::sleep_until(due), if to_store => self.begin_to_store(),
        }
        Ok(())
    }

    /// The oldest chunk is in the log.
    fn acknowledged(&mut self, targets: Targets) {
        let Some(chunk) = self.chunks.pop_front() else { return };
        self.held -= chunk.held;
        self.with_records |= chunk.records > 0;
        self.changes.offsets.extend(chunk.offsets.partitions);
        self.changes.targets.extend(targets);
        if chunk.records > 0 {
            self.shared.moved(chunk.records, chunk.bytes);
        }
    }

    fn begin_to_store(&mut self) {
        let changes = Arc::new(std::mem::take(&mut self.changes));
        self.with_records = false;
        self.stored_at = Some(Instant::now());
        let (producer, pipeline) = (self.writer.producer(), Arc::clone(&self.pipeline));
        let storing = Box::pin(offsets::store(producer, pipeline, self.task, Arc::clone(&changes)));
        self.storing = Some((storing, changes));
    }

    /// The offsets are in the log too: now they count.
    fn stored(&mut self) {
        if let Some((_, changes)) = self.storing.take() {
            self.durable.merge(SourceOffsets { partitions: changes.offsets.clone() });
            self.committable = true;
            self.shared.alive();
        }
    }

    /// Waits until everything taken is durable. Returns the offsets.
    pub(crate) async fn drain(&mut self) -> Result<SourceOffsets, ConnectorError> {
        self.hurry = true;
        while !self.is_settled() {
            self.progress().await?;
        }
        self.committable = false;
        Ok(self.durable.clone())
    }
}
