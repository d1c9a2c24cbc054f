//! R11: what sources and sinks in JavaScript and Python do that is nothing good, in every function, and how it ends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde_json::json;
use towpath_api::{
    ConfigSpec, ConnectorError, Durability, ErrorKind, Poll, Position, RawConfig, SinkBatch, SinkConnector,
    SinkFactory, SourceConnector, SourceFactory, SourceOffsets, TaskContext,
};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::connectors::{BUDGET, load, open, plan_one};
use crate::support::{built_in, texts, texts_from};

/// A guest of both kinds, as a project of one of them.
fn of_kind(folder: &str, kind: &str) -> PathBuf {
    let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests")).join(folder);
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{folder}_{kind}"));
    std::fs::create_dir_all(&project).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap().replace("KIND", kind);
        std::fs::write(project.join(path.file_name().unwrap()), text).unwrap();
    }
    built_in(&project, folder)
}

const FOLDERS: [&str; 2] = ["hostile_js", "hostile_py"];
/// Loaded once: that takes longer than whatever they do.
static SOURCES: LazyLock<[Arc<dyn SourceFactory>; 2]> = LazyLock::new(|| {
    FOLDERS.map(|folder| load(&of_kind(folder, "source"), &json!({ "time": 300 })).source.unwrap())
});
static SINKS: LazyLock<[Arc<dyn SinkFactory>; 2]> = LazyLock::new(|| {
    FOLDERS.map(|folder| load(&of_kind(folder, "sink"), &json!({ "time": 300 })).sink.unwrap())
});

/// What they do, how that ends, and what is told of it. `throw` is what the plugin does not handle; the last three are what
/// it says of itself.
const HARM: [(&str, &str, &str); 9] = [
    ("loop", "PLUGIN_TIMEOUT", "300ms"),
    ("throw", "PLUGIN_TRAP", "on purpose"),
    ("text", "PLUGIN_TRAP", "on purpose"),
    ("exit", "PLUGIN_TRAP", "on purpose"),
    ("stack", "PLUGIN_TRAP", "recursion"),
    ("hog", "PLUGIN_MEMORY", "67108864"),
    ("retry", "HOSTILE", "later"),
    ("operator", "HOSTILE", "not with these"),
    ("terminal", "HOSTILE", "no more"),
];

/// Whether the language has no such thing to do.
fn is_other_languages(folder: &str, how: &str) -> bool {
    how == if folder == "hostile_py" { "text" } else { "exit" }
}

fn is(error: &ConnectorError, at: &str, how: &str, code: &str, says: &str) {
    assert_eq!(error.code(), code, "{at} {how}: {error}");
    assert!(error.to_string().contains(says), "{at} {how}: {error}");
    let kind = match how {
        "operator" => ErrorKind::NeedsOperator,
        "terminal" => ErrorKind::Terminal,
        "retry" => ErrorKind::RetryAfter(Duration::from_secs(7)),
        _ => {
            assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{at} {how}: {error}");
            return;
        }
    };
    assert_eq!(error.kind(), kind, "{at} {how}: {error}");
}

fn config(options: &ConfigSpec, at: &str, how: &str) -> RawConfig {
    RawConfig::with_defaults(options, json!({ "at": at, "how": how })).unwrap()
}

fn source(factory: &dyn SourceFactory, at: &str, how: &str) -> Result<Box<dyn SourceConnector>, String> {
    factory.parse(&config(&factory.descriptor().options, at, how)).map_err(|problems| problems.to_string())
}

fn sink(factory: &dyn SinkFactory, at: &str, how: &str) -> Result<Box<dyn SinkConnector>, String> {
    factory.parse(&config(&factory.descriptor().options, at, how)).map_err(|problems| problems.to_string())
}

async fn fails_of_source(factory: &dyn SourceFactory, at: &str, how: &str) -> ConnectorError {
    let connector = source(factory, at, how).unwrap();
    match at {
        "check" => return connector.check(&TaskContext::new("test", 0)).await.unwrap_err().remove(0),
        "plan" => return plan_one(&*connector).await.unwrap_err(),
        "open" => return open(&*connector, SourceOffsets::default()).await.err().unwrap(),
        _ => {}
    }
    let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
    let error = match at {
        "poll" => source.poll(BUDGET).await.map(drop).unwrap_err(),
        "commit" => source.commit(&SourceOffsets::default()).await.unwrap_err(),
        "upstream_end" => source.upstream_end().await.map(drop).unwrap_err(),
        _ => return source.close().await.unwrap_err(),
    };
    if error.code().starts_with("PLUGIN_") {
        assert_eq!(source.poll(BUDGET).await.map(drop).unwrap_err().code(), "PLUGIN_GONE", "{at} {how}");
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_of_a_source_is_contained() {
    for (folder, factory) in FOLDERS.into_iter().zip(&*SOURCES) {
        for (how, code, says) in HARM {
            if is_other_languages(folder, how) {
                continue;
            }
            for at in ["check", "plan", "open", "poll", "commit", "upstream_end", "close"] {
                is(&fails_of_source(&**factory, at, how).await, at, how, code, says);
            }
        }
        // What it cannot say is no answer either.
        for at in ["check", "plan", "poll", "upstream_end"] {
            assert_eq!(fails_of_source(&**factory, at, "nonsense").await.code(), "PLUGIN_TRAP", "{at}");
        }
    }
}

/// What cannot fail in the contract ends the call where it does; what the options are is looked at before anything runs.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fail_is_contained_too() {
    for factory in &*SOURCES {
        for (how, code) in [("loop", "PLUGIN_TIMEOUT"), ("throw", "PLUGIN_TRAP"), ("terminal", "PLUGIN_TRAP")]
        {
            let connector = source(&**factory, "has_passed", how).unwrap();
            let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
            let end = Position { document: json!("1"), text: String::new() };
            let begun = Instant::now();
            assert!(!source.has_passed(&SourceOffsets::default(), &end), "{how}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{how}: {:?}", begun.elapsed());
            assert_eq!(source.poll(BUDGET).await.map(drop).unwrap_err().code(), code, "{how}");
        }
    }
    let at = "check_config";
    for (how, says) in [("loop", "longer than 300ms"), ("throw", "on purpose"), ("terminal", "no more")] {
        let of_sources = SOURCES.iter().map(|it| source(&**it, at, how).err().unwrap());
        let of_sinks = SINKS.iter().map(|it| sink(&**it, at, how).err().unwrap());
        of_sources.chain(of_sinks).for_each(|problems| assert!(problems.contains(says), "{how}: {problems}"));
    }
}

/// The host waits for no promise: that is told, and not taken for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_async_is_told() {
    let [javascript, _] = &*SOURCES;
    for at in ["check", "plan", "poll", "commit", "upstream_end", "close"] {
        let error = fails_of_source(&**javascript, at, "async").await;
        assert_eq!(error.code(), "PLUGIN_TRAP", "{at}");
        assert!(error.to_string().contains("is async"), "{at}: {error}");
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("lines").unwrap(), 0)
}

async fn fails_of_sink(factory: &dyn SinkFactory, at: &str, how: &str) -> ConnectorError {
    let connector = sink(factory, at, how).unwrap();
    if at == "check" {
        return connector.check(&TaskContext::new("test", 0)).await.unwrap_err().remove(0);
    }
    let opened = connector.open(TaskContext::new("test", 0)).await;
    if at == "open" {
        return opened.err().unwrap();
    }
    let (mut sink, topic_id) = (opened.unwrap(), TopicId::random());
    let assigned = sink.assign(&[(partition(), topic_id)]).await;
    if at == "assign" {
        return assigned.unwrap_err();
    }
    let batch = SinkBatch {
        partition: Arc::new(partition()),
        topic_id,
        first_offset: Offset::new(0),
        next_offset: Offset::new(1),
        batch: texts(&["a"]),
    };
    let written = sink.write(batch).await;
    if at == "write" {
        // Where it dies at a record, that one is rejected with what it died of; what it says itself ends the task.
        return written.map_or_else(|error| error, |mut it| it.rejected.remove(0).error);
    }
    written.unwrap();
    match at {
        "flush" => sink.flush().await.unwrap_err(),
        "revoke" => sink.revoke(&[partition()]).await.unwrap_err(),
        _ => sink.close().await.unwrap_err(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_of_a_sink_is_contained() {
    for (folder, factory) in FOLDERS.into_iter().zip(&*SINKS) {
        for (how, code, says) in HARM {
            if is_other_languages(folder, how) {
                continue;
            }
            for at in ["check", "open", "assign", "write", "flush", "revoke", "close"] {
                is(&fails_of_sink(&**factory, at, how).await, at, how, code, says);
            }
        }
        for at in ["check", "assign", "write"] {
            assert_eq!(fails_of_sink(&**factory, at, "nonsense").await.code(), "PLUGIN_TRAP", "{at}");
        }
    }
}

/// R10, R5: what an interpreter loses at each call adds up to more than its memory. Its instance makes way for another after a
/// flush of what was only accepted, and the runtime sees nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_makes_way_for_another_instance() {
    let text = "ü".repeat(20_000);
    for folder in FOLDERS {
        let factory = load(&of_kind(folder, "sink"), &json!({})).sink.unwrap();
        let options = RawConfig::with_defaults(&factory.descriptor().options, json!({})).unwrap();
        let connector = factory.parse(&options).unwrap_or_else(|problems| panic!("{problems}"));
        let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
        let topic_id = TopicId::random();
        sink.assign(&[(partition(), topic_id)]).await.unwrap();
        // 400 KB each, 100 MB in all: more than the memory of one instance.
        for first in (0..2500).step_by(10) {
            let records: Vec<_> = (first..first + 10).map(|offset| (offset, &*text)).collect();
            let batch = SinkBatch {
                partition: Arc::new(partition()),
                topic_id,
                first_offset: Offset::new(first),
                next_offset: Offset::new(first + 10),
                batch: texts_from(&records),
            };
            let written = sink.write(batch).await.unwrap();
            assert!(written.rejected.is_empty() && written.durability == Durability::Accepted);
        }
        assert_eq!(sink.flush().await.unwrap(), [(partition(), Offset::new(2500))].into());
        sink.revoke(&[partition()]).await.unwrap();
        sink.close().await.unwrap();
    }
}

/// What they bring and take where they do nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn they_work_where_they_do_no_harm() {
    for factory in &*SOURCES {
        let connector = source(&**factory, "", "").unwrap();
        let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
        let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("no batch") };
        let offsets = SourceOffsets { partitions: [("numbers".to_owned(), json!("1"))].into() };
        assert_eq!((batch.batch.len(), batch.offsets), (1, offsets));
        assert_eq!(source.status(), "running");
        source.close().await.unwrap();
    }
    for factory in &*SINKS {
        let connector = sink(&**factory, "", "").unwrap();
        connector.check(&TaskContext::new("test", 0)).await.unwrap();
        let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
        assert!(sink.assign(&[(partition(), TopicId::random())]).await.unwrap().is_empty());
        assert!(sink.flush().await.unwrap().is_empty());
        sink.revoke(&[partition()]).await.unwrap();
        sink.close().await.unwrap();
    }
}
