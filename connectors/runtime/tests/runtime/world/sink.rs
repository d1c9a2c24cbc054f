//! A target that keeps rows and its own positions in one step, and the sink that writes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use towpath_api::{
    ConnectorError, Durability, Op, Rejected, Sink, SinkBatch, SinkConnector, TaskContext, Value, Written,
};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

#[derive(Debug, Default)]
struct Tables {
    rows: Vec<(String, i64, Option<Op>)>,
    positions: HashMap<TopicPartition, (Offset, u64)>,
}

/// Where records end up.
#[derive(Debug, Default)]
pub struct Target {
    tables: Mutex<Tables>,
    /// Whether it keeps positions of its own (exactly once), or leaves them to the group (at least once).
    pub own_positions: bool,
    /// Whether rows are safe only after a flush.
    pub buffered: bool,
    /// Ids that it never takes.
    pub refuses: Mutex<Vec<i64>>,
    pub fail: Mutex<Option<ConnectorError>>,
    pub panic: AtomicBool,
    /// While true, a write waits and looks at nothing else.
    pub hangs: AtomicBool,
    /// How long every write takes.
    pub write_ms: AtomicU64,
    pub writes: AtomicU64,
    pub flushes: AtomicU64,
    pub owners: AtomicU64,
    pub opened: AtomicU64,
    pub closed: AtomicBool,
    /// A task that was opened at another version is superseded.
    pub version: AtomicU64,
}

impl Target {
    pub fn exactly_once() -> Arc<Self> {
        Arc::new(Self { own_positions: true, buffered: true, ..Self::default() })
    }

    pub fn at_least_once() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn new(own_positions: bool) -> Arc<Self> {
        if own_positions { Self::exactly_once() } else { Self::at_least_once() }
    }

    pub fn buffered_at_least_once() -> Arc<Self> {
        Arc::new(Self { buffered: true, ..Self::default() })
    }

    /// Its own position in partition 0 of a topic.
    pub fn position(&self, topic: &str) -> Option<i64> {
        let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
        self.tables.lock().positions.get(&partition).map(|(offset, _)| offset.get())
    }

    pub fn ids(&self, topic: &str) -> Vec<i64> {
        let tables = self.tables.lock();
        tables.rows.iter().filter(|(known, ..)| known == topic).map(|(_, id, _)| *id).collect()
    }

    pub fn len(&self) -> usize {
        self.tables.lock().rows.len()
    }
}

pub struct ScriptedSink(pub Arc<Target>);

#[async_trait]
impl SinkConnector for ScriptedSink {
    async fn check(&self, _: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        Ok(Vec::new())
    }

    async fn open(&self, _: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Open {
            target: Arc::clone(&self.0),
            owner: self.0.owners.fetch_add(1, Ordering::SeqCst) + 1,
            pending: Vec::new(),
            next: BTreeMap::new(),
            version: self.0.version.load(Ordering::Relaxed),
        }))
    }
}

struct Open {
    target: Arc<Target>,
    owner: u64,
    pending: Vec<(String, i64, Option<Op>)>,
    next: BTreeMap<TopicPartition, Offset>,
    version: u64,
}

impl Open {
    /// Rows and positions in one step; an older owner changes nothing (R6).
    fn apply(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut tables = self.target.tables.lock();
        if self.target.own_positions {
            for partition in self.next.keys() {
                if tables.positions.get(partition).is_some_and(|(_, owner)| *owner > self.owner) {
                    return Err(ConnectorError::retry("FENCED", format!("{partition} has another owner")));
                }
            }
            for (partition, next) in &self.next {
                tables.positions.insert(partition.clone(), (*next, self.owner));
            }
        }
        tables.rows.append(&mut self.pending);
        Ok(self.next.clone())
    }
}

#[async_trait]
impl Sink for Open {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        if !self.target.own_positions {
            return Ok(BTreeMap::new());
        }
        let mut tables = self.target.tables.lock();
        let own = |(partition, _): &(TopicPartition, TopicId)| {
            let entry = tables.positions.entry(partition.clone()).or_insert((Offset::ZERO, 0));
            entry.1 = self.owner;
            (partition.clone(), entry.0)
        };
        Ok(added.iter().map(own).collect())
    }

    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError> {
        self.target.writes.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = self.target.fail.lock().take() {
            return Err(error);
        }
        assert!(!self.target.panic.swap(false, Ordering::Relaxed), "told to panic");
        while self.target.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(self.target.write_ms.load(Ordering::Relaxed))).await;
        let mut rows = Vec::new();
        let mut rejected = Vec::new();
        for (index, record) in batch.batch.records().enumerate() {
            let row = record.after().or_else(|| record.key());
            let id = match row.and_then(|row| row.by_name("id")) {
                Some(Value::Int(id)) => id,
                _ => -1,
            };
            if self.target.refuses.lock().contains(&id) {
                rejected.push(Rejected { index, error: ConnectorError::terminal("REFUSED", "not this one") });
            } else {
                rows.push((batch.partition.topic.to_string(), id, record.op()));
            }
        }
        if !rejected.is_empty() {
            return Ok(Written { durability: Durability::Accepted, rejected });
        }
        self.pending.append(&mut rows);
        self.next.insert((*batch.partition).clone(), batch.next_offset);
        if self.target.buffered {
            return Ok(Written::accepted());
        }
        self.apply()?;
        Ok(Written::durable())
    }

    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        self.target.flushes.fetch_add(1, Ordering::Relaxed);
        self.apply()
    }

    async fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), ConnectorError> {
        self.next.retain(|partition, _| !removed.contains(partition));
        Ok(())
    }

    fn is_superseded(&self) -> bool {
        self.target.version.load(Ordering::Relaxed) != self.version
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        self.target.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}
