//! An upstream log that forgets what was committed, and the source that reads it.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use serde_json::json;
use towpath_api::schema::SourceBlock;
use towpath_api::{
    BatchBuilder, Budget, ConnectorError, EventSchema, Field, Op, Poll, Position, RejectedInput, RowSchema,
    Source, SourceBatch, SourceConnector, SourceOffsets, TaskContext, TaskSpec, Type,
};

/// One change: a table and a number.
#[derive(Debug, Clone)]
pub struct Change {
    pub table: String,
    pub id: i64,
}

/// What happens upstream.
#[derive(Default)]
pub struct Upstream {
    log: Mutex<Vec<Change>>,
    /// Everything before is forgotten: the source was told that it is durable.
    pub forgotten: AtomicU64,
    pub finite: AtomicBool,
    pub fail: Mutex<Option<ConnectorError>>,
    pub panic: AtomicBool,
    pub opened: AtomicU64,
    /// At most this many records come from one poll.
    pub burst: AtomicU64,
    /// Ids whose text has so many bytes.
    pub big: Mutex<HashMap<i64, usize>>,
    /// Ids that come as input that is no record.
    pub bad: Mutex<HashSet<i64>>,
    /// The log is read in so many lanes, each from where it was left, in any order. 0 counts as 1.
    pub lanes: AtomicU64,
    /// Milliseconds that every poll takes.
    pub poll_ms: AtomicU64,
    /// While true, opening waits, for nothing else than the stop.
    pub blocked: AtomicBool,
    /// A task that was opened at another version is superseded.
    pub version: AtomicU64,
}

impl Upstream {
    pub fn new() -> Arc<Self> {
        let upstream = Self::default();
        upstream.burst.store(50, Ordering::Relaxed);
        Arc::new(upstream)
    }

    /// `count` more changes, over the tables in turn.
    pub fn happen(&self, tables: &[&str], count: usize) {
        let mut log = self.log.lock();
        for _ in 0..count {
            let id = log.len() as i64;
            log.push(Change { table: tables[id as usize % tables.len()].to_owned(), id });
        }
    }

    pub fn ids(&self, table: &str) -> Vec<i64> {
        self.log.lock().iter().filter(|change| change.table == table).map(|change| change.id).collect()
    }

    pub fn len(&self) -> usize {
        self.log.lock().len()
    }
}

pub fn schema(table: &str) -> Arc<EventSchema> {
    let key = RowSchema::new(vec![Field::required("id", Type::Int64)]);
    let value =
        RowSchema::new(vec![Field::required("id", Type::Int64), Field::nullable("text", Type::String)]);
    let source = SourceBlock {
        constants: vec![("connector".into(), "scripted".into()), ("table".into(), table.into())],
        fields: RowSchema::new(vec![Field::nullable("lsn", Type::Int64)]),
    };
    Arc::new(
        EventSchema::new(table, Arc::new(value))
            .with_key(Some(Arc::new(key)))
            .with_variables([("table".to_owned(), table.to_owned())].into())
            .with_source(Some(Arc::new(source))),
    )
}

pub struct ScriptedSource(pub Arc<Upstream>);

#[async_trait]
impl SourceConnector for ScriptedSource {
    async fn check(&self, _: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        Ok(Vec::new())
    }

    async fn plan(&self, _: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        Ok(vec![TaskSpec::default()])
    }

    async fn open(
        &self,
        _: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        while self.0.blocked.load(Ordering::Relaxed) && !context.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let lanes = self.0.lanes.load(Ordering::Relaxed).max(1);
        let next: Vec<u64> = (0..lanes).map(|lane| stored(&resume, lane)).collect();
        let first = next.iter().copied().min().unwrap_or(0);
        if first < self.0.forgotten.load(Ordering::SeqCst) {
            // What an early commit would cost.
            return Err(ConnectorError::terminal("GONE", format!("{first} was forgotten already")));
        }
        let version = self.0.version.load(Ordering::Relaxed);
        Ok(Box::new(Open { upstream: Arc::clone(&self.0), next, context, version }))
    }
}

/// The source partition of a lane.
fn partition(lane: u64) -> String {
    format!("log{lane}")
}

fn stored(offsets: &SourceOffsets, lane: u64) -> u64 {
    offsets.partitions.get(&partition(lane)).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

struct Open {
    upstream: Arc<Upstream>,
    /// Lane → everything of it before this id was read. Ids go to the lanes in turn.
    next: Vec<u64>,
    context: TaskContext,
    version: u64,
}

impl Open {
    fn offsets(&self) -> SourceOffsets {
        let lanes = self.next.iter().zip(0..).map(|(next, lane)| (partition(lane), json!(next)));
        SourceOffsets { partitions: lanes.collect() }
    }

    /// At most `burst` changes of one lane that has any.
    fn read(&mut self, burst: usize) -> (u64, Vec<Change>) {
        let log = self.upstream.log.lock();
        let lanes = self.next.len() as u64;
        let mut order: Vec<u64> = (0..lanes).collect();
        order.shuffle(&mut rand::rng());
        for lane in order {
            let from = self.next[lane as usize] as usize;
            let of_lane = |change: &&Change| change.id as u64 % lanes == lane;
            let changes: Vec<_> = log.iter().skip(from).filter(of_lane).take(burst).cloned().collect();
            // A lane of which there is no more was read to the end of the log.
            let whole = changes.len() < burst;
            let last = changes.last().map_or(from as u64, |change| change.id as u64 + 1);
            self.next[lane as usize] = if whole { log.len() as u64 } else { last };
            if !changes.is_empty() {
                return (lane, changes);
            }
        }
        (0, Vec::new())
    }
}

#[async_trait]
impl Source for Open {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        if let Some(error) = self.upstream.fail.lock().take() {
            return Err(error);
        }
        assert!(!self.upstream.panic.swap(false, Ordering::Relaxed), "told to panic");
        let burst = (self.upstream.burst.load(Ordering::Relaxed) as usize).min(budget.records);
        tokio::time::sleep(Duration::from_millis(self.upstream.poll_ms.load(Ordering::Relaxed))).await;
        let (lane, changes) = self.read(burst);
        if changes.is_empty() {
            if self.upstream.finite.load(Ordering::Relaxed) {
                return Ok(Poll::End);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
                () = self.context.stop.cancelled() => {}
            }
            return Ok(Poll::Idle(self.offsets()));
        }
        let mut builder = BatchBuilder::new();
        let mut rejected = Vec::new();
        for change in &changes {
            if self.upstream.bad.lock().contains(&change.id) {
                rejected.push(RejectedInput {
                    position: format!("change {}", change.id),
                    bytes: format!("bad {}", change.id).into_bytes(),
                    error: ConnectorError::terminal("BAD_INPUT", "not a record"),
                });
                continue;
            }
            let big = self.upstream.big.lock().get(&change.id).map(|bytes| "x".repeat(*bytes));
            let schema = schema(&change.table);
            let mut record = builder.record(&schema);
            record
                .op(Some(Op::Create))
                .timestamp_ms(1_700_000_000_000 + change.id)
                .position(lane + 1, &change.id.to_be_bytes())
                .key(|row| row.int(change.id))
                .after(|row| {
                    row.int(change.id);
                    row.text(big.as_deref().unwrap_or("some text"));
                })
                .source(|row| row.int(change.id));
            record.finish();
        }
        Ok(Poll::Batch(SourceBatch { batch: builder.build(), offsets: self.offsets(), rejected }))
    }

    async fn commit(&mut self, durable: &SourceOffsets) -> Result<(), ConnectorError> {
        let next = (0..self.next.len() as u64).map(|lane| stored(durable, lane)).min();
        self.upstream.forgotten.fetch_max(next.unwrap_or(0), Ordering::SeqCst);
        Ok(())
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        let end = self.upstream.len();
        Ok(Some(Position { document: json!(end), text: end.to_string() }))
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let passed = |end| (0..self.next.len() as u64).all(|lane| stored(durable, lane) >= end);
        end.document.as_u64().is_some_and(passed)
    }

    fn status(&self) -> String {
        format!("at {}", self.next.iter().min().copied().unwrap_or(0))
    }

    fn is_superseded(&self) -> bool {
        self.upstream.version.load(Ordering::Relaxed) != self.version
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}
