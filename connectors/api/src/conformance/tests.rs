//! The suite passes honest connectors, and finds what dishonest ones do.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::*;
use crate::{
    BatchBuilder, Budget, Durability, EventSchema, Guarantee, OptionSpec, Poll, Position, Rejected,
    RowSchema, RowWriter, Sink, SinkBatch, SinkConnector, Source, SourceBatch, SourceConnector,
    SourceOffsets, TaskContext, TaskSpec, Type, Value, Written,
};

/// How a source breaks the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceSin {
    None,
    SamePosition,
    OffsetTooFar,
    TooMany,
    NewPositions,
    EarlyEnd,
    DeafToStop,
    Wasteful,
    Forgiving,
    ForgetsAtCommit,
}

#[derive(Clone)]
struct Upstream {
    count: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
    sin: SourceSin,
}

#[async_trait]
impl SourceWorld for Upstream {
    fn connector(&self) -> Box<dyn SourceConnector> {
        Box::new(self.clone())
    }

    async fn produce(&mut self, count: usize) {
        self.count.fetch_add(count as u64, Ordering::SeqCst);
    }

    fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_millis(50)
    }
}

#[async_trait]
impl SourceConnector for Upstream {
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
        let stored = resume.partitions.get("log");
        let next = stored.and_then(serde_json::Value::as_u64).unwrap_or(0);
        if self.sin != SourceSin::Forgiving && stored.is_some_and(|it| !it.is_u64()) {
            return Err(ConnectorError::terminal("OFFSET", "it cannot be read"));
        }
        let incarnation = self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Reading { upstream: self.clone(), next, incarnation, context }))
    }
}

struct Reading {
    upstream: Upstream,
    next: u64,
    incarnation: u64,
    context: TaskContext,
}

#[async_trait]
impl Source for Reading {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        let sin = self.upstream.sin;
        let end = self.upstream.count.load(Ordering::SeqCst);
        if self.next == end || sin == SourceSin::DeafToStop && self.context.stop.is_cancelled() {
            if sin == SourceSin::DeafToStop && self.context.stop.is_cancelled() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            return Ok(Poll::Idle(SourceOffsets::default()));
        }
        let schema = Arc::new(EventSchema::new("t", Arc::new(RowSchema::bare(Type::Int64))));
        let mut builder = BatchBuilder::new();
        let most = match sin {
            SourceSin::TooMany => 100,
            SourceSin::Wasteful => budget.records,
            _ if budget.bytes == 1 => 1,
            _ => budget.records,
        };
        while self.next < end && builder.len() < most {
            let position = match sin {
                SourceSin::SamePosition => 1,
                SourceSin::NewPositions => self.next + self.incarnation,
                _ => self.next,
            };
            let mut record = builder.record(&schema);
            record.position(0, &position.to_be_bytes()).after(|row| row.int(self.next as i64));
            record.finish();
            self.next += 1;
        }
        let next = if sin == SourceSin::OffsetTooFar { self.next + 1 } else { self.next };
        let offsets = SourceOffsets { partitions: [("log".to_owned(), json!(next))].into() };
        Ok(Poll::Batch(SourceBatch { batch: builder.build(), offsets, ..SourceBatch::default() }))
    }

    async fn commit(&mut self, _: &SourceOffsets) -> Result<(), ConnectorError> {
        if self.upstream.sin == SourceSin::ForgetsAtCommit {
            self.upstream.count.store(self.next, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        let end = self.upstream.count.load(Ordering::SeqCst);
        Ok(Some(Position { document: json!(end), text: end.to_string() }))
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let durable = durable.partitions.get("log").and_then(serde_json::Value::as_u64).unwrap_or(0);
        self.upstream.sin == SourceSin::EarlyEnd || end.document.as_u64().is_some_and(|end| durable >= end)
    }

    fn status(&self) -> String {
        String::new()
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[tokio::test]
async fn an_honest_source_passes_and_each_sin_is_found() {
    for (sin, clause) in [
        (SourceSin::None, ""),
        (SourceSin::SamePosition, "positions grow"),
        (SourceSin::OffsetTooFar, "offsets resume exactly"),
        (SourceSin::TooMany, "budget"),
        (SourceSin::NewPositions, "a replay is the same"),
        (SourceSin::EarlyEnd, "upstream's end"),
        (SourceSin::DeafToStop, "told to stop"),
    ] {
        let mut world = Upstream { count: Arc::default(), opened: Arc::default(), sin };
        match source(&mut world).await {
            Ok(()) => assert_eq!(sin, SourceSin::None),
            Err(violation) => {
                assert!(!clause.is_empty() && violation.clause.contains(clause), "{sin:?}: {violation}");
            }
        }
    }
}

/// The same without anybody who makes records happen: what is there is judged, and what is not there is told.
#[tokio::test]
async fn a_source_is_judged_by_what_there_is() {
    let limit = std::time::Duration::from_millis(100);
    for (sin, clause) in [
        (SourceSin::None, ""),
        (SourceSin::SamePosition, "positions grow"),
        (SourceSin::OffsetTooFar, "offsets resume exactly"),
        (SourceSin::TooMany, "budget"),
        (SourceSin::Wasteful, "budget"),
        (SourceSin::NewPositions, "a replay from nothing is the same"),
        (SourceSin::EarlyEnd, "upstream's end"),
        (SourceSin::DeafToStop, "told to stop"),
        (SourceSin::Forgiving, "offsets that cannot be read"),
        (SourceSin::ForgetsAtCommit, "frees nothing of what lies after it"),
    ] {
        let world = Upstream { count: Arc::new(AtomicU64::new(40)), opened: Arc::default(), sin };
        let report = source_as_given(&world, Guarantee::ExactlyOnce, limit).await;
        match report.broken {
            None => {
                assert_eq!(sin, SourceSin::None);
                assert!(report.not_judged.is_empty() && report.kept.len() == 12, "{report:?}");
            }
            Some(violation) => {
                assert!(!clause.is_empty() && violation.clause.contains(clause), "{sin:?}: {violation}");
            }
        }
    }
    let nothing = Upstream { count: Arc::default(), opened: Arc::default(), sin: SourceSin::None };
    let report = source_as_given(&nothing, Guarantee::ExactlyOnce, limit).await;
    assert!(report.broken.is_none() && report.not_judged.len() == 6, "{report:?}");
    let endless = Upstream { count: Arc::new(AtomicU64::new(5000)), ..nothing };
    let report = source_as_given(&endless, Guarantee::AtLeastOnce, limit * 10).await;
    assert!(report.broken.is_none() && report.not_judged.len() == 1, "{report:?}");
}

/// How a sink breaks the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SinkSin {
    None,
    ForgetsPosition,
    NoFence,
    KeepsRejectedBatch,
    IgnoresEmpty,
    FalseDurable,
}

#[derive(Default)]
struct Tables {
    rows: Vec<i64>,
    position: Option<(Offset, u64)>,
}

#[derive(Clone)]
struct Target {
    tables: Arc<Mutex<Tables>>,
    owners: Arc<AtomicU64>,
    sin: SinkSin,
    guarantee: Guarantee,
}

#[async_trait]
impl SinkWorld for Target {
    fn connector(&self) -> Box<dyn SinkConnector> {
        Box::new(self.clone())
    }

    fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    async fn held(&mut self) -> Vec<i64> {
        self.tables.lock().unwrap().rows.clone()
    }

    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        row.int(-1);
        true
    }

    fn topic(&self) -> TopicName {
        TopicName::new("t").unwrap()
    }
}

#[async_trait]
impl SinkConnector for Target {
    async fn check(&self, _: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        Ok(Vec::new())
    }

    async fn open(&self, _: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        let owner = self.owners.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Box::new(Writing { target: self.clone(), owner, rows: Vec::new(), next: BTreeMap::new() }))
    }
}

struct Writing {
    target: Target,
    owner: u64,
    rows: Vec<i64>,
    next: BTreeMap<TopicPartition, Offset>,
}

#[async_trait]
impl Sink for Writing {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut tables = self.target.tables.lock().unwrap();
        let at = tables.position.map_or(Offset::ZERO, |(offset, _)| offset);
        tables.position = Some((at, self.owner));
        if self.target.guarantee == Guarantee::AtLeastOnce {
            return Ok(BTreeMap::new());
        }
        let start = if self.target.sin == SinkSin::ForgetsPosition { Offset::ZERO } else { at };
        Ok(added.iter().map(|(partition, _)| (partition.clone(), start)).collect())
    }

    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError> {
        let sin = self.target.sin;
        let mut rejected = Vec::new();
        let mut rows = Vec::new();
        for (index, record) in batch.batch.records().enumerate() {
            match record.after().map(|row| row.get(0)) {
                Some(Value::Int(id)) if id >= 0 => rows.push(id),
                _ => rejected.push(Rejected { index, error: ConnectorError::terminal("BAD", "bad") }),
            }
        }
        if !rejected.is_empty() {
            if sin == SinkSin::KeepsRejectedBatch {
                self.target.tables.lock().unwrap().rows.append(&mut rows);
            }
            return Ok(Written { durability: Durability::Accepted, rejected });
        }
        if !(sin == SinkSin::IgnoresEmpty && batch.batch.is_empty()) {
            self.next.insert((*batch.partition).clone(), batch.next_offset);
        }
        self.rows.append(&mut rows);
        Ok(if sin == SinkSin::FalseDurable { Written::durable() } else { Written::accepted() })
    }

    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut tables = self.target.tables.lock().unwrap();
        let fenced = tables.position.is_some_and(|(_, owner)| owner > self.owner);
        if fenced && self.target.sin != SinkSin::NoFence {
            return Err(ConnectorError::retry("FENCED", "another owner"));
        }
        tables.rows.append(&mut self.rows);
        if let Some(next) = self.next.values().next() {
            tables.position = Some((*next, self.owner));
        }
        Ok(self.next.clone())
    }

    async fn revoke(&mut self, _: &[TopicPartition]) -> Result<(), ConnectorError> {
        self.next.clear();
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[tokio::test]
async fn an_honest_sink_passes_and_each_sin_is_found() {
    for (sin, guarantee, clause) in [
        (SinkSin::None, Guarantee::ExactlyOnce, ""),
        (SinkSin::None, Guarantee::AtLeastOnce, ""),
        (SinkSin::ForgetsPosition, Guarantee::ExactlyOnce, "position moves past"),
        (SinkSin::NoFence, Guarantee::ExactlyOnce, "older owner"),
        (SinkSin::KeepsRejectedBatch, Guarantee::ExactlyOnce, "rejected record changes nothing"),
        (SinkSin::IgnoresEmpty, Guarantee::ExactlyOnce, "flush says"),
        (SinkSin::FalseDurable, Guarantee::ExactlyOnce, "knows what was safe"),
    ] {
        let mut world = Target { tables: Arc::default(), owners: Arc::default(), sin, guarantee };
        match sink(&mut world).await {
            Ok(()) => assert_eq!(sin, SinkSin::None),
            Err(violation) => {
                assert!(!clause.is_empty() && violation.clause.contains(clause), "{sin:?}: {violation}");
            }
        }
    }
}

/// The same without anybody who looks into the target.
#[tokio::test]
async fn a_sink_is_judged_by_what_it_says() {
    for (sin, guarantee, clause) in [
        (SinkSin::None, Guarantee::ExactlyOnce, ""),
        (SinkSin::None, Guarantee::AtLeastOnce, ""),
        (SinkSin::ForgetsPosition, Guarantee::ExactlyOnce, "position moves past"),
        (SinkSin::NoFence, Guarantee::ExactlyOnce, "older owner"),
        (SinkSin::IgnoresEmpty, Guarantee::ExactlyOnce, "flush says"),
        (SinkSin::FalseDurable, Guarantee::ExactlyOnce, "knows what was safe"),
    ] {
        let target = Target { tables: Arc::default(), owners: Arc::default(), sin, guarantee };
        let report = sink_as_given(Box::new(target), guarantee).await;
        let last = report.not_judged.last().unwrap();
        assert!(last.0.contains("in the target") && last.1.contains("towpath-check-"), "{last:?}");
        match report.broken {
            None => {
                assert_eq!(sin, SinkSin::None);
                let fenced = usize::from(guarantee == Guarantee::ExactlyOnce);
                assert_eq!((report.kept.len(), report.not_judged.len()), (6 + fenced, 2 - fenced));
            }
            Some(violation) => {
                assert!(!clause.is_empty() && violation.clause.contains(clause), "{sin:?}: {violation}");
            }
        }
    }
}

#[test]
fn descriptors_are_looked_through() {
    let option = |name: &str| OptionSpec::with_default(name, OptionType::int(0, 9), json!(3), "How often.");
    let with = |options| Descriptor {
        name: "x".into(),
        kind: crate::ConnectorKind::Sink,
        version: "1".into(),
        summary: "Does it.".into(),
        guarantee: None,
        options: ConfigSpec::new(options),
    };
    descriptor(&with(vec![option("a"), option("b")])).unwrap();
    let spoilt: [fn(&mut OptionSpec); 3] = [
        |option| option.doc = " ".into(),
        |option| option.default = Some(json!(10)),
        |option| option.required = true,
    ];
    for spoil in spoilt {
        let mut bad = option("a");
        spoil(&mut bad);
        assert!(descriptor(&with(vec![bad])).is_err());
    }
    let inner = OptionType::Object(ConfigSpec::new(vec![option("a"), option("a")]));
    assert!(descriptor(&with(vec![OptionSpec::optional("o", inner, "Nested.")])).is_err());
}
