//! The source through its public face.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use towpath_api::conformance::{self, SourceWorld};
use towpath_api::{
    Budget, Poll, RawConfig, Source, SourceConnector, SourceFactory as _, SourceOffsets, TaskContext,
};
use towpath_source_generate::Generate;

async fn open(values: serde_json::Value, tasks: u32, resume: &SourceOffsets) -> Vec<Box<dyn Source>> {
    let factory = Generate::default();
    let config = RawConfig::with_defaults(&factory.descriptor().options, values).unwrap();
    let connector = factory.parse(&config).unwrap();
    let mut sources = Vec::new();
    for task in connector.plan(NonZeroU32::new(tasks).unwrap()).await.unwrap() {
        sources.push(connector.open(task, resume.clone(), TaskContext::new("p", 0)).await.unwrap());
    }
    sources
}

/// Every record as `key: row`, and the offsets at the end.
async fn read(source: &mut dyn Source, records: usize, polls: usize) -> (Vec<String>, SourceOffsets) {
    let (mut lines, mut offsets) = (Vec::new(), SourceOffsets::default());
    for _ in 0..polls {
        match source.poll(Budget { bytes: 1 << 20, records }).await.unwrap() {
            Poll::Batch(batch) => {
                for record in batch.batch.records() {
                    let key: Option<Vec<_>> =
                        record.key().map(|key| key.values().map(|it| format!("{it:?}")).collect());
                    let row: Vec<_> = record.after().unwrap().values().map(|it| format!("{it:?}")).collect();
                    lines.push(format!("{key:?}: {row:?}"));
                }
                offsets.merge(batch.offsets);
            }
            Poll::Idle(_) => {}
            Poll::End => break,
        }
    }
    (lines, offsets)
}

fn options() -> serde_json::Value {
    let fields = json!({
        "word": "word", "id": "sequence", "n": "int(-5,5)", "price": "decimal(0,9)", "f": "float", "b": "bool",
        "u": "uuid", "t": "timestamp", "x": "text(8)", "c": "choice(a,b)",
    });
    json!({ "records": 100, "seed": 7, "fields": fields, "key": "n" })
}

#[tokio::test]
async fn the_same_seed_gives_the_same_records_however_they_are_read() {
    let whole = read(&mut *open(options(), 1, &SourceOffsets::default()).await[0], 1000, 10).await.0;
    assert_eq!(whole.len(), 100);
    let (mut pieces, offsets) =
        read(&mut *open(options(), 1, &SourceOffsets::default()).await[0], 7, 6).await;
    assert_eq!(pieces.len(), 42);
    pieces.extend(read(&mut *open(options(), 1, &offsets).await[0], 50, 10).await.0);
    assert_eq!(pieces, whole);
    let mut split = Vec::new();
    for mut source in open(options(), 3, &SourceOffsets::default()).await {
        split.extend(read(&mut *source, 1000, 10).await.0);
    }
    split.sort();
    let mut sorted = whole.clone();
    sorted.sort();
    assert_eq!(split, sorted, "three tasks make the same records together");
    let mut other = options();
    other["seed"] = json!(8);
    assert_ne!(read(&mut *open(other, 1, &SourceOffsets::default()).await[0], 1000, 10).await.0, whole);
}

/// What has happened upstream is what the configuration says: records up to a number.
struct World(u64);

#[async_trait]
impl SourceWorld for World {
    fn connector(&self) -> Box<dyn SourceConnector> {
        let factory = Generate::default();
        let values = json!({ "records": self.0, "seed": 3 });
        factory.parse(&RawConfig::with_defaults(&factory.descriptor().options, values).unwrap()).unwrap()
    }

    async fn produce(&mut self, count: usize) {
        self.0 += count as u64;
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    conformance::descriptor(Generate::default().descriptor()).unwrap();
    conformance::source(&mut World(0)).await.unwrap();
}

#[tokio::test]
async fn the_key_is_the_fields_own_value() {
    let lines = read(&mut *open(options(), 1, &SourceOffsets::default()).await[0], 1000, 1).await.0;
    for line in lines {
        let (key, row) = line.split_once("]): ").unwrap();
        let key = key.strip_prefix("Some([").unwrap();
        assert!(row.contains(key), "{line}");
    }
}

#[tokio::test]
async fn the_rate_is_kept() {
    let mut sources = open(json!({ "rate": 500 }), 1, &SourceOffsets::default()).await;
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < Duration::from_millis(400) {
        count += read(&mut *sources[0], 1000, 1).await.0.len();
    }
    // Timing is never a test of speed; a pace that is exceeded is a fault all the same.
    let most = (begin.elapsed().as_secs_f64() * 500.0) as usize + 2;
    assert!(count > 0 && count <= most, "{count} records, at most {most} were due");
}

#[tokio::test]
async fn another_seed_does_not_go_on_with_old_offsets() {
    let (_, offsets) = read(&mut *open(options(), 1, &SourceOffsets::default()).await[0], 10, 1).await;
    let factory = Generate::default();
    let mut values = options();
    values["seed"] = json!(8);
    let config = RawConfig::with_defaults(&factory.descriptor().options, values).unwrap();
    let connector = factory.parse(&config).unwrap();
    let task = connector.plan(NonZeroU32::MIN).await.unwrap().remove(0);
    let error = connector.open(task, offsets, TaskContext::new("p", 0)).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "GENERATE_OFFSET");
}
