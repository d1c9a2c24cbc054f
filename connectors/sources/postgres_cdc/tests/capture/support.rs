//! A server, and a stand-in for the runtime: a topic that keeps records, offsets stored after them, and what a
//! restarted task drops because the topic has it already.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use towpath_api::{
    Budget, ConnectorError, EventSchema, Op, Poll, RawConfig, RecordView, Row, Source, SourceConnector,
    SourceFactory, SourceOffsets, TaskContext, Value,
};
use towpath_harness::Postgres;
use towpath_harness::postgres::Options;
use towpath_source_postgres_cdc::PostgresCdcFactory;

pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    // Every test leaves its slot behind.
    let options = Options::logical().without_fsync();
    let options = options.set("max_replication_slots", "100").set("max_wal_senders", "100");
    SERVER.get_or_init(|| Postgres::start(&options).expect("PostgreSQL"))
}

/// An empty database with `sql` run in it.
pub(crate) fn database(name: &str, sql: &str) -> Database {
    server().create_database(name).expect("a database");
    let database = Database { name: name.to_owned() };
    database.sql(sql);
    database
}

#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) name: String,
}

impl Database {
    pub(crate) fn sql(&self, sql: &str) -> String {
        server().psql(&self.name, sql).expect("the statement")
    }

    pub(crate) fn url(&self) -> String {
        server().url(&self.name)
    }
}

/// A field of a recorded row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Absent,
    Value(String),
}

pub(crate) type Fields = BTreeMap<String, Cell>;

#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) lane: u64,
    pub(crate) position: Vec<u8>,
    pub(crate) op: Op,
    pub(crate) schema: Arc<EventSchema>,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Fields>,
    pub(crate) before: Option<Fields>,
    pub(crate) after: Option<Fields>,
    pub(crate) source: Fields,
}

impl Recorded {
    pub(crate) fn after(&self, field: &str) -> &Cell {
        &self.after.as_ref().expect("an after image")[field]
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        match self.after(field) {
            Cell::Value(text) => text,
            other => panic!("{field} is {other:?}"),
        }
    }
}

fn fields(row: Row<'_>) -> Fields {
    let schema = row.schema();
    let cell = |index| match row.get(index) {
        Value::Null => Cell::Null,
        Value::Absent => Cell::Absent,
        Value::Bool(value) => Cell::Value(value.to_string()),
        Value::Int(value) => Cell::Value(value.to_string()),
        Value::Float32(value) => Cell::Value(value.to_string()),
        Value::Float64(value) => Cell::Value(value.to_string()),
        Value::Bytes(value) => Cell::Value(value.iter().map(|byte| format!("{byte:02x}")).collect()),
        Value::Text(value) => Cell::Value(value.to_owned()),
    };
    schema.fields.iter().enumerate().map(|(index, field)| (field.name.clone(), cell(index))).collect()
}

fn recorded(view: RecordView<'_>) -> Recorded {
    for row in [view.before(), view.after(), view.key()].into_iter().flatten() {
        for (index, field) in row.schema().fields.iter().enumerate() {
            assert!(field.nullable || row.get(index) != Value::Null, "{} is null", field.name);
        }
    }
    Recorded {
        lane: view.lane(),
        position: view.position().expect("a position").to_vec(),
        op: view.op().expect("an operation"),
        schema: Arc::clone(view.schema()),
        timestamp_ms: view.timestamp_ms(),
        key: view.key().map(fields),
        before: view.before().map(fields),
        after: view.after().map(fields),
        source: view.source().map(fields).expect("a source block"),
    }
}

/// The runtime's part, played in memory.
pub(crate) struct Runner {
    pub(crate) connector: Box<dyn SourceConnector>,
    pub(crate) context: TaskContext,
    pub(crate) source: Option<Box<dyn Source>>,
    /// What the topics hold.
    pub(crate) topic: Vec<Recorded>,
    /// What the offsets topic holds.
    pub(crate) stored: SourceOffsets,
    /// Offsets that count once they are stored.
    pending: SourceOffsets,
    /// Polls between storing; 1 stores at once.
    pub(crate) store_every: usize,
    polls: usize,
    pub(crate) budget: Budget,
    /// Records of the topic that stored offsets cover: what a restarted task does not look at again.
    covered: usize,
    /// Lane → last position that the rest held when the source was opened, until it has been replayed.
    tails: HashMap<u64, Vec<u8>>,
    /// The lanes of which the covered records hold more than the stored offsets cover.
    ahead: HashMap<u64, Vec<u8>>,
    pub(crate) replayed: usize,
    /// Whether records are kept; off for large volumes.
    pub(crate) keep: bool,
    pub(crate) count: usize,
    pub(crate) rejected: usize,
}

pub(crate) const LONG: Duration = Duration::from_secs(60);

impl Runner {
    pub(crate) fn new(database: &Database, pipeline: &str, options: Json) -> Self {
        Self::with_url(&database.url(), pipeline, options)
    }

    pub(crate) fn with_url(url: &str, pipeline: &str, options: Json) -> Self {
        let mut values = json!({"url": url, "heartbeat_ms": 500});
        for (name, value) in options.as_object().expect("a map") {
            values[name] = value.clone();
        }
        let factory = PostgresCdcFactory;
        let raw = RawConfig::with_defaults(&factory.descriptor().options, values).expect("options");
        Self {
            connector: factory.parse(&raw).expect("a connector"),
            context: TaskContext::new(pipeline, 0),
            source: None,
            topic: Vec::new(),
            stored: SourceOffsets::default(),
            pending: SourceOffsets::default(),
            store_every: 1,
            polls: 0,
            budget: Budget { bytes: 1 << 20, records: 10_000 },
            covered: 0,
            tails: HashMap::new(),
            ahead: HashMap::new(),
            replayed: 0,
            keep: true,
            count: 0,
            rejected: 0,
        }
    }

    pub(crate) async fn open(&mut self) -> Result<(), ConnectorError> {
        let task = self.connector.plan(NonZeroU32::MIN).await?.remove(0);
        self.tails.clone_from(&self.ahead);
        for record in &self.topic[self.covered..] {
            let tail = self.tails.entry(record.lane).or_default();
            if record.position > *tail {
                tail.clone_from(&record.position);
            }
        }
        self.pending = SourceOffsets::default();
        self.source = Some(self.connector.open(task, self.stored.clone(), self.context.clone()).await?);
        Ok(())
    }

    pub(crate) fn source(&mut self) -> &mut Box<dyn Source> {
        self.source.as_mut().expect("an open source")
    }

    /// One poll; `false` at the end.
    pub(crate) async fn poll(&mut self) -> Result<bool, ConnectorError> {
        let budget = self.budget;
        let offsets = match self.source().poll(budget).await? {
            Poll::End => {
                self.store().await?;
                return Ok(false);
            }
            Poll::Idle(offsets) => offsets,
            Poll::Batch(batch) => {
                self.rejected += batch.rejected.len();
                for view in batch.batch.records() {
                    self.append(view);
                }
                batch.offsets
            }
        };
        for (name, document) in offsets.partitions {
            self.pending.partitions.insert(name, document);
        }
        self.polls += 1;
        if self.polls.is_multiple_of(self.store_every) {
            self.store().await?;
        }
        Ok(true)
    }

    fn append(&mut self, view: RecordView<'_>) {
        self.count += 1;
        if !self.keep {
            return;
        }
        let record = recorded(view);
        let order = self.tails.get(&record.lane).map(|tail| record.position.cmp(tail));
        if order.is_some_and(Ordering::is_ge) {
            self.tails.remove(&record.lane);
        }
        if order.is_some_and(Ordering::is_le) {
            // A replay must say the same at the same place.
            let same = |known: &&Recorded| known.lane == record.lane && known.position == record.position;
            let known = self.topic.iter().rev().find(same).expect("what is replayed was there");
            assert_eq!((known.op, &known.key, &known.after), (record.op, &record.key, &record.after));
            self.replayed += 1;
            return;
        }
        let tail = self.topic.iter().rev().find(|known| known.lane == record.lane);
        if let Some(tail) = tail {
            assert!(
                tail.position < record.position,
                "positions grow within a lane: {tail:?}, then {record:?}; {}",
                self.source.as_ref().map(|source| source.status()).unwrap_or_default()
            );
        }
        self.topic.push(record);
    }

    /// Makes the pending offsets durable.
    pub(crate) async fn store(&mut self) -> Result<(), ConnectorError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.stored.merge(std::mem::take(&mut self.pending));
        self.covered = self.topic.len();
        self.ahead.clone_from(&self.tails);
        let stored = self.stored.clone();
        self.source().commit(&stored).await
    }

    /// Polls until `done`.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not within {LONG:?}; {}", self.source().status());
            self.poll().await.expect(what);
        }
    }

    /// Polls until everything that is in the database now has come.
    pub(crate) async fn catch_up(&mut self) {
        let end = self.source().upstream_end().await.expect("the end").expect("a position");
        let deadline = Instant::now() + LONG;
        loop {
            self.store().await.expect("storing");
            let stored = self.stored.clone();
            if self.source().has_passed(&stored, &end) {
                return;
            }
            assert!(Instant::now() < deadline, "not caught up: {}", self.source().status());
            self.poll().await.expect("catching up");
        }
    }

    /// `kill -9`: what was not stored is forgotten, nobody says good-bye.
    pub(crate) fn kill(&mut self) {
        self.source = None;
        self.pending = SourceOffsets::default();
    }

    pub(crate) async fn close(&mut self) {
        if let Some(source) = self.source.take() {
            source.close().await.expect("closing");
        }
    }

    pub(crate) fn of_table(&self, table: &str) -> Vec<&Recorded> {
        self.topic.iter().filter(|record| record.schema.variables()["table"] == table).collect()
    }

    /// The operations of a table, as letters.
    pub(crate) fn ops(&self, table: &str) -> String {
        self.of_table(table).iter().map(|record| record.op.letter().unwrap_or("-")).collect()
    }

    /// What a sink that applies the records by key ends up with: key → row.
    pub(crate) fn by_key(&self, table: &str) -> BTreeMap<String, Fields> {
        let mut rows: BTreeMap<String, Fields> = BTreeMap::new();
        for record in self.of_table(table) {
            let key = record.key.as_ref().map(|key| format!("{:?}", key.values().collect::<Vec<_>>()));
            match (record.op, key, &record.after) {
                (Op::Truncate, _, _) => rows.clear(),
                (Op::Delete | Op::Tombstone, Some(key), _) => {
                    rows.remove(&key);
                }
                (_, Some(key), Some(after)) => {
                    let row = rows.entry(key).or_default();
                    for (name, cell) in after {
                        if *cell != Cell::Absent {
                            row.insert(name.clone(), cell.clone());
                        }
                    }
                }
                other => panic!("{table}: {other:?}"),
            }
        }
        rows
    }

    /// What a sink that appends (and honours truncates, and deletes one matching row) ends up with: sorted rows.
    pub(crate) fn as_bag(&self, table: &str) -> Vec<Fields> {
        let mut rows: Vec<Fields> = Vec::new();
        let remove = |rows: &mut Vec<Fields>, row: &Option<Fields>| {
            let at = rows.iter().position(|known| Some(known) == row.as_ref()).expect("the row to take out");
            rows.swap_remove(at);
        };
        for record in self.of_table(table) {
            match record.op {
                Op::Truncate => rows.clear(),
                Op::Delete => remove(&mut rows, &record.before),
                Op::Update => {
                    remove(&mut rows, &record.before);
                    rows.push(record.after.clone().expect("a row"));
                }
                _ => rows.push(record.after.clone().expect("a row")),
            }
        }
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    }
}

/// Rows of a query with two columns, key and value, as `by_key` would have them in `field`.
pub(crate) fn expected(database: &Database, sql: &str) -> Vec<(String, String)> {
    let text = database.sql(sql);
    text.lines()
        .map(|line| {
            line.split_once('|').map(|(key, value)| (key.to_owned(), value.to_owned())).expect("two columns")
        })
        .collect()
}

/// `key_field` and `field` of every row in `rows`, sorted by the text of the key.
pub(crate) fn pairs<'a>(
    rows: impl IntoIterator<Item = &'a Fields>,
    key: &str,
    field: &str,
) -> Vec<(String, String)> {
    let text = |cell: &Cell| match cell {
        Cell::Value(text) => text.clone(),
        Cell::Null => String::new(),
        Cell::Absent => "ABSENT".to_owned(),
    };
    let mut pairs: Vec<_> = rows.into_iter().map(|row| (text(&row[key]), text(&row[field]))).collect();
    pairs.sort();
    pairs
}
