//! A source's or a sink's file is replaced while it runs: its task is told to go over, and does at what is durable.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use towpath_api::{
    Budget, ErrorKind, Poll, RawConfig, Sink, SinkConnector, Source, SourceConnector, SourceOffsets,
    TaskContext, Value,
};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::connectors::{Collector, HOSTILE_SINK, HOSTILE_SOURCE, load, open, plan_one};
use crate::support::{patched, replace, replaced, texts_from};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a folder must be quiet before its files are looked at.
const SEEN: Duration = Duration::from_secs(2);
/// A good third of the numbers that a poll brings are rejected at sevens.
const BUDGET: Budget = Budget { bytes: 1 << 20, records: 20 };

fn copied(folder: &Path, from: &Path) -> PathBuf {
    let path = folder.join("p.wasm");
    std::fs::copy(from, &path).unwrap();
    path
}

/// A source as the runtime has it: opened anew, at what is durable, whenever it is superseded.
struct Reading {
    connector: Box<dyn SourceConnector>,
    source: Box<dyn Source>,
    durable: SourceOffsets,
    numbers: Vec<i64>,
    opened: u32,
}

impl Reading {
    async fn start(path: &Path, options: Json) -> Self {
        let factory = load(path, &json!({ "time": 2000 })).source.unwrap();
        let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
        let connector = factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"));
        let source = open(&*connector, SourceOffsets::default()).await.unwrap();
        Self { connector, source, durable: SourceOffsets::default(), numbers: Vec::new(), opened: 1 }
    }

    /// One batch; the code with which sevens were rejected in it, if any was.
    async fn step(&mut self) -> Option<&'static str> {
        let Poll::Batch(batch) = self.source.poll(BUDGET).await.unwrap() else { panic!("no batch") };
        let mut came: Vec<i64> = batch
            .batch
            .records()
            .map(|it| match it.after().unwrap().get(0) {
                Value::Int(number) => number,
                other => panic!("{other:?}"),
            })
            .collect();
        let number = |text: &str| text.trim_start_matches("number ").parse::<i64>().unwrap();
        came.extend(batch.rejected.iter().map(|it| number(&it.position)));
        came.sort_unstable();
        self.numbers.extend(came);
        self.durable.merge(batch.offsets);
        if self.source.is_superseded() {
            self.source.commit(&self.durable).await.unwrap();
            plan_one(&*self.connector).await.unwrap();
            let new = open(&*self.connector, self.durable.clone()).await.unwrap();
            std::mem::replace(&mut self.source, new).close().await.unwrap();
            self.opened += 1;
        }
        batch.rejected.first().map(|it| it.error.code())
    }

    async fn until(&mut self, expected: &str) {
        let begun = Instant::now();
        while self.step().await.is_none_or(|code| code != expected) {
            assert!(begun.elapsed() < PATIENCE, "{expected} never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn only(&mut self, expected: &str, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            assert!(self.step().await.is_none_or(|code| code == expected));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_goes_over_between_two_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = copied(folder.path(), &HOSTILE_SOURCE);
    let mut reading = Reading::start(&path, json!({ "count": 1_i64 << 40 })).await;
    reading.until("HOSTILE_NUMBER").await;
    replace(&path, &patched(&HOSTILE_SOURCE, "HOSTILE_NUMBER", "HOSTILE_SECOND"));
    reading.until("HOSTILE_SECOND").await;
    assert_eq!(reading.opened, 2);
    // Half of a file is none: what runs goes on.
    let good = std::fs::read(&*HOSTILE_SOURCE).unwrap();
    replace(&path, &good[..good.len() / 2]);
    reading.only("HOSTILE_SECOND", SEEN).await;
    assert_eq!(reading.opened, 2);
    replace(&path, &good);
    reading.until("HOSTILE_NUMBER").await;
    assert_eq!(reading.opened, 3);
    let count = reading.numbers.len() as i64;
    assert!(reading.numbers.iter().copied().eq(0..count), "every number once, and in order");
}

/// What loads and cannot be opened where the old one stood, or plans what cannot be, leaves the old one in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_cannot_be_opened_leaves_the_old_one() {
    for (calm, harm) in [("calm at open", "harm at open"), ("calm at plan", "harm at plan")] {
        let folder = tempfile::tempdir().unwrap();
        let path = copied(folder.path(), &HOSTILE_SOURCE);
        let options = json!({ "count": 1_i64 << 40, "at": calm });
        let mut reading = Reading::start(&path, options).await;
        reading.until("HOSTILE_NUMBER").await;
        // In the new one the harmless word means harm.
        let mut bad = patched(&HOSTILE_SOURCE, "HOSTILE_NUMBER", "HOSTILE_SECOND");
        replaced(&mut bad, harm, calm);
        replace(&path, &bad);
        let begun = Instant::now();
        while reading.opened < 2 && begun.elapsed() < PATIENCE {
            reading.only("HOSTILE_NUMBER", Duration::from_millis(100)).await;
        }
        // It was tried once, and the old one opened again.
        reading.only("HOSTILE_NUMBER", SEEN).await;
        assert_eq!(reading.opened, 2, "{calm}");
        assert!(!reading.source.is_superseded());
        replace(&path, &patched(&HOSTILE_SOURCE, "HOSTILE_NUMBER", "HOSTILE_THIRD_"));
        reading.until("HOSTILE_THIRD_").await;
        assert_eq!(reading.opened, 3, "{calm}");
        let count = reading.numbers.len() as i64;
        assert!(reading.numbers.iter().copied().eq(0..count), "every number once, and in order");
    }
}

/// A sink as the runtime has it.
struct Writing {
    connector: Box<dyn SinkConnector>,
    sink: Option<Box<dyn Sink>>,
    partition: TopicPartition,
    id: TopicId,
    next: i64,
    opened: u32,
    failed: u32,
}

impl Writing {
    fn start(path: &Path, collector: &Collector, mut options: Json) -> Self {
        let entry = json!({ "time": 2000, "grants": { "tcp": [collector.address] } });
        let factory = load(path, &entry).sink.unwrap();
        options["collector"] = json!(collector.address);
        let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
        let connector = factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"));
        let partition = TopicPartition::new(TopicName::new("lines").unwrap(), 0);
        let id = TopicId::random();
        Self { connector, sink: None, partition, id, next: 0, opened: 0, failed: 0 }
    }

    async fn open(&mut self) -> &mut Box<dyn Sink> {
        while self.sink.is_none() {
            let mut sink = self.connector.open(TaskContext::new("test", 0)).await.unwrap();
            self.opened += 1;
            match sink.assign(&[(self.partition.clone(), self.id)]).await {
                Ok(_) => self.sink = Some(sink),
                Err(error) => {
                    assert_eq!((error.code(), error.kind()), ("HOSTILE_ASSIGN", ErrorKind::Terminal));
                    self.failed += 1;
                    assert!(self.failed < 5);
                }
            }
        }
        self.sink.as_mut().unwrap()
    }

    fn batch(&self, lines: &[String]) -> towpath_api::SinkBatch {
        let records: Vec<_> = (self.next..).zip(lines.iter().map(String::as_str)).collect();
        towpath_api::SinkBatch {
            partition: std::sync::Arc::new(self.partition.clone()),
            topic_id: self.id,
            first_offset: Offset::new(self.next),
            next_offset: Offset::new(self.next + lines.len() as i64),
            batch: texts_from(&records),
        }
    }

    /// Two lines that are taken; the code with which a third was rejected before.
    async fn step(&mut self) -> &'static str {
        let lines = vec![format!("line {}", self.next), format!("line {}", self.next + 1)];
        let (bad, good) = (self.batch(&["reject".to_owned()]), self.batch(&lines));
        let next = good.next_offset;
        let sink = self.open().await;
        let code = sink.write(bad).await.unwrap().rejected[0].error.code();
        assert!(sink.write(good).await.unwrap().rejected.is_empty());
        if sink.is_superseded() {
            let partition = self.partition.clone();
            let mut sink = self.sink.take().unwrap();
            assert_eq!(sink.flush().await.unwrap()[&partition], next);
            sink.revoke(&[partition]).await.unwrap();
            sink.close().await.unwrap();
        }
        self.next = next.get();
        code
    }

    async fn until(&mut self, expected: &str) {
        let begun = Instant::now();
        while self.step().await != expected {
            assert!(begun.elapsed() < PATIENCE, "{expected} never came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn only(&mut self, expected: &str, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            assert_eq!(self.step().await, expected);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that was written has come, once and in order.
    async fn ends(mut self, collector: &Collector) {
        self.open().await.flush().await.unwrap();
        let expected: Vec<_> = (0..self.next).map(|number| format!("line {number}")).collect();
        assert_eq!(collector.lines(expected.len()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_goes_over_between_two_batches() {
    let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let path = copied(folder.path(), &HOSTILE_SINK);
    let mut writing = Writing::start(&path, &collector, json!({}));
    writing.until("HOSTILE_RECORD").await;
    replace(&path, &patched(&HOSTILE_SINK, "HOSTILE_RECORD", "HOSTILE_SECOND"));
    writing.until("HOSTILE_SECOND").await;
    assert_eq!((writing.opened, writing.failed), (2, 0));
    replace(&path, b"no plugin");
    writing.only("HOSTILE_SECOND", SEEN).await;
    assert_eq!(writing.opened, 2);
    writing.ends(&collector).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_cannot_be_opened_leaves_the_old_one() {
    for (calm, harm, failures) in
        [("calm at open", "harm at open", 0), ("calm at assign", "harm at assign", 1)]
    {
        let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
        let path = copied(folder.path(), &HOSTILE_SINK);
        let mut writing = Writing::start(&path, &collector, json!({ "at": calm }));
        writing.until("HOSTILE_RECORD").await;
        let mut bad = patched(&HOSTILE_SINK, "HOSTILE_RECORD", "HOSTILE_SECOND");
        replaced(&mut bad, harm, calm);
        replace(&path, &bad);
        let begun = Instant::now();
        while writing.opened < 2 + failures && begun.elapsed() < PATIENCE {
            writing.only("HOSTILE_RECORD", Duration::from_millis(100)).await;
        }
        writing.only("HOSTILE_RECORD", SEEN).await;
        assert_eq!((writing.opened, writing.failed), (2 + failures, failures), "{calm}");
        replace(&path, &patched(&HOSTILE_SINK, "HOSTILE_RECORD", "HOSTILE_THIRD_"));
        writing.until("HOSTILE_THIRD_").await;
        writing.ends(&collector).await;
    }
}
