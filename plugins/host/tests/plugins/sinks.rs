//! Sinks: what they take, and what happens when they do worse.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use towpath_api::{
    ConnectorError, ErrorKind, RawConfig, Sink, SinkBatch, SinkConnector, TaskContext, Written,
};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::connectors::{Collector, HOSTILE_SINK, load};
use crate::support::texts_from;

fn connector(collector: &Collector, mut options: Json) -> Box<dyn SinkConnector> {
    let entry = json!({ "time": 300, "memory": 16 << 20, "grants": { "tcp": [collector.address] } });
    let factory = load(&HOSTILE_SINK, &entry).sink.unwrap();
    options["collector"] = json!(collector.address);
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("lines").unwrap(), 0)
}

/// Plays the runtime: a topic of lines, dead letters, and attempts that begin at what is durable.
struct Play {
    lines: Vec<String>,
    connector: Box<dyn SinkConnector>,
    id: TopicId,
    durable: i64,
    dead: BTreeMap<i64, &'static str>,
    attempts: u32,
}

impl Play {
    fn new(connector: Box<dyn SinkConnector>, lines: &[&str]) -> Self {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Self { lines, connector, id: TopicId::random(), durable: 0, dead: BTreeMap::new(), attempts: 0 }
    }

    async fn open(&self) -> Result<Box<dyn Sink>, ConnectorError> {
        let mut sink = self.connector.open(TaskContext::new("test", 0)).await?;
        sink.assign(&[(partition(), self.id)]).await?;
        Ok(sink)
    }

    fn batch(&self, from: i64, to: i64) -> SinkBatch {
        let offsets = (from..to).filter(|offset| !self.dead.contains_key(offset));
        let records = offsets.map(|offset| (offset, self.lines[offset as usize].as_str()));
        SinkBatch {
            partition: Arc::new(partition()),
            topic_id: self.id,
            first_offset: Offset::new(from),
            next_offset: Offset::new(to),
            batch: texts_from(&records.collect::<Vec<_>>()),
        }
    }

    /// One delivery, without what was rejected before, as the runtime makes it.
    async fn deliver(&mut self, sink: &mut dyn Sink, from: i64, to: i64) -> Result<Written, ConnectorError> {
        loop {
            let batch = self.batch(from, to);
            let offsets: Vec<_> = batch.batch.records().map(|record| record.offset()).collect();
            let written = sink.write(batch).await?;
            if written.rejected.is_empty() {
                return Ok(written);
            }
            for rejected in written.rejected {
                self.dead.insert(offsets[rejected.index], rejected.error.code());
            }
        }
    }

    async fn attempt(&mut self, size: i64) -> Result<(), ConnectorError> {
        self.attempts += 1;
        let mut sink = self.open().await?;
        let end = self.lines.len() as i64;
        let mut at = self.durable;
        while at < end {
            let to = end.min(at + size);
            self.deliver(&mut *sink, at, to).await?;
            at = to;
        }
        self.durable = sink.flush().await?[&partition()].get();
        sink.close().await
    }

    /// Attempts until everything is through.
    async fn run(&mut self, size: i64) {
        while let Err(error) = self.attempt(size).await {
            assert!(self.attempts < 10, "{error}");
        }
        assert_eq!(self.durable, self.lines.len() as i64);
    }
}

/// The record at which the plugin dies is found among others and goes to the dead letters; the others arrive.
#[tokio::test]
async fn the_record_at_which_a_sink_dies_is_found() {
    for (how, code) in [
        ("panic", "PLUGIN_TRAP"),
        ("stack", "PLUGIN_TRAP"),
        ("hog", "PLUGIN_MEMORY"),
        ("giant", "PLUGIN_MEMORY"),
        ("loop", "PLUGIN_TIMEOUT"),
        ("flood", "PLUGIN_TIMEOUT"),
        ("reject", "HOSTILE_RECORD"),
        ("forge", "PLUGIN_ANSWER"),
    ] {
        for (durable, size) in [(true, 100), (false, 100), (false, 3), (true, 3), (false, 1)] {
            let collector = Collector::start().await;
            let lines = ["a", "b", "c", "d", how, "e", "f"];
            let mut play = Play::new(connector(&collector, json!({ "durable": durable })), &lines);
            play.run(size).await;
            assert_eq!(play.dead, [(4, code)].into(), "{how} {durable} {size}");
            // What was accepted and not flushed comes again, once.
            let attempts = if durable || size == 100 || how == "reject" { 1 } else { 2 };
            assert_eq!(play.attempts, attempts, "{how} {durable} {size}");
            let mut came = collector.lines(6).await;
            came.dedup();
            assert_eq!(came, ["a", "b", "c", "d", "e", "f"], "{how} {durable} {size}");
        }
    }
}

#[tokio::test]
async fn several_are_found_in_one_delivery() {
    let collector = Collector::start().await;
    let lines = ["panic", "a", "panic", "reject", "b", "loop", "c", "panic"];
    let mut play = Play::new(connector(&collector, json!({})), &lines);
    play.run(8).await;
    assert_eq!(play.dead.keys().collect::<Vec<_>>(), [&0, &2, &3, &5, &7]);
    let mut came = collector.lines(3).await;
    came.dedup();
    assert_eq!(came, ["a", "b", "c"]);
}

/// R11: an endless loop, a panic, a stack that overflows, and too much memory, in pieces and at once, in every function.
#[tokio::test]
async fn every_function_is_contained() {
    let collector = Collector::start().await;
    for (how, code) in crate::connectors::HARM {
        for at in ["check", "open", "assign", "flush", "revoke", "close"] {
            let mut play = Play::new(connector(&collector, json!({ "at": at, "how": how })), &["a"]);
            let error = match at {
                "check" => play.connector.check(&TaskContext::new("test", 0)).await.unwrap_err().remove(0),
                "open" | "assign" => play.open().await.err().unwrap(),
                _ => {
                    let mut sink = play.open().await.unwrap();
                    play.deliver(&mut *sink, 0, 1).await.unwrap();
                    match at {
                        "flush" => sink.flush().await.unwrap_err(),
                        "revoke" => sink.revoke(&[partition()]).await.unwrap_err(),
                        _ => sink.close().await.unwrap_err(),
                    }
                }
            };
            assert_eq!(error.code(), code, "{at} {how}: {error}");
            assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{at} {how}: {error}");
        }
        // Where it dies at every record, every record goes to the dead letters; and where it dies without any, the task
        // ends.
        let mut play = Play::new(connector(&collector, json!({ "at": "write", "how": how })), &["a", "b"]);
        assert_eq!(play.attempt(2).await.unwrap_err().code(), code, "{how}");
        assert_eq!(play.dead, [(0, code), (1, code)].into(), "{how}");
    }
}

#[tokio::test]
async fn positions_that_cannot_be_are_refused() {
    let collector = Collector::start().await;
    for how in ["stray", "negative"] {
        let play = Play::new(connector(&collector, json!({ "how": how })), &["a"]);
        assert_eq!(play.open().await.err().unwrap().code(), "PLUGIN_ANSWER", "{how}");
    }
    for how in ["beyond", "silent"] {
        let mut play = Play::new(connector(&collector, json!({ "how": how })), &["a"]);
        let mut sink = play.open().await.unwrap();
        play.deliver(&mut *sink, 0, 1).await.unwrap();
        assert_eq!(sink.flush().await.unwrap_err().code(), "PLUGIN_ANSWER", "{how}");
    }
}

/// R11: a sink reaches nobody but those that it was granted.
#[tokio::test]
async fn a_host_that_is_not_granted_is_refused() {
    let (granted, other) = (Collector::start().await, Collector::start().await);
    let entry = json!({ "grants": { "tcp": [granted.address] } });
    let factory = load(&HOSTILE_SINK, &entry).sink.unwrap();
    let options = json!({ "collector": other.address });
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    let sink = factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"));
    let error = sink.open(TaskContext::new("test", 0)).await.err().unwrap();
    assert_eq!((error.code(), error.kind()), ("PLUGIN_GRANT", ErrorKind::NeedsOperator), "{error}");
    assert!(error.hint().unwrap().contains(&other.address), "{error:?}");
}
