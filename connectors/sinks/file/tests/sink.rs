//! The file sink on a real file system.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use towpath_api::conformance::{self, SinkWorld};
use towpath_api::{
    BatchBuilder, ErrorKind, EventSchema, Field, Guarantee, Op, RawConfig, RowSchema, Sink, SinkBatch,
    SinkConnector, SinkFactory, TaskContext, Type,
};
use towpath_sink_file::FileSink;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

fn connector(path: &Path, mut options: serde_json::Value) -> Box<dyn SinkConnector> {
    options["path"] = json!(path);
    let factory = FileSink::default();
    conformance::descriptor(factory.descriptor()).unwrap();
    factory.parse(&RawConfig::with_defaults(&factory.descriptor().options, options).unwrap()).unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("shop.orders-0").unwrap(), 1)
}

fn schema() -> Arc<EventSchema> {
    let value = RowSchema::new(vec![Field::required("id", Type::Int64)]);
    let key = RowSchema::new(vec![Field::required("id", Type::Int64)]);
    Arc::new(EventSchema::new("orders", Arc::new(value)).with_key(Some(Arc::new(key))))
}

fn batch(from: i64, to: i64) -> SinkBatch {
    let (schema, mut builder) = (schema(), BatchBuilder::new());
    for offset in from..to {
        let mut record = builder.record(&schema);
        record.offset(offset).timestamp_ms(7).key(|row| row.int(offset)).after(|row| row.int(offset));
        record.finish();
    }
    SinkBatch {
        partition: Arc::new(partition()),
        topic_id: TopicId::ZERO,
        first_offset: Offset::new(from),
        next_offset: Offset::new(to),
        batch: builder.build(),
    }
}

async fn open(connector: &dyn SinkConnector, id: TopicId) -> (Box<dyn Sink>, i64) {
    let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
    let positions = sink.assign(&[(partition(), id)]).await.unwrap();
    let position = positions[&partition()].get();
    (sink, position)
}

/// Names and contents of what is not hidden.
fn files(path: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())
        })
        .filter(|(name, _)| !name.starts_with('.'))
        .collect()
}

fn lines(from: i64, to: i64) -> String {
    (from..to).map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

struct World(tempfile::TempDir);

#[async_trait]
impl SinkWorld for World {
    fn connector(&self) -> Box<dyn SinkConnector> {
        connector(self.0.path(), json!({"roll_bytes": 200}))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn held(&mut self) -> Vec<i64> {
        let text: String = files(self.0.path()).into_values().collect();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap())
            .collect()
    }

    fn topic(&self) -> TopicName {
        TopicName::new("conformance").unwrap()
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let mut world = World(tempfile::tempdir().unwrap());
    conformance::sink(&mut world).await.unwrap();
}

#[tokio::test]
async fn files_are_named_after_their_offsets_and_rolled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep");
    let connector = connector(&path, json!({"roll_bytes": 60}));
    assert_eq!(connector.check(&TaskContext::new("test", 0)).await.unwrap().len(), 1);
    assert!(!path.exists(), "a check leaves nothing behind");
    let (mut sink, position) = open(connector.as_ref(), TopicId::ZERO).await;
    assert_eq!(position, 0);
    sink.write(batch(3, 10)).await.unwrap();
    sink.write(batch(10, 12)).await.unwrap();
    sink.flush().await.unwrap();
    let found = files(&path);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        [
            "shop.orders-0-1-00000000000000000000-00000000000000000009.jsonl",
            "shop.orders-0-1-00000000000000000010.jsonl.inprogress",
        ]
    );
    assert_eq!(found.values().cloned().collect::<Vec<_>>(), [lines(3, 10), lines(10, 12)]);
    sink.close().await.unwrap();
    assert!(files(&path).contains_key("shop.orders-0-1-00000000000000000010-00000000000000000011.jsonl"));
}

#[tokio::test]
async fn a_file_is_finished_in_time_although_nothing_comes() {
    let folder = tempfile::tempdir().unwrap();
    let connector = connector(folder.path(), json!({"roll_interval": 100}));
    let (mut sink, _) = open(connector.as_ref(), TopicId::ZERO).await;
    sink.write(batch(0, 3)).await.unwrap();
    sink.flush().await.unwrap();
    assert!(files(folder.path()).keys().all(|name| name.ends_with(".inprogress")));
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(sink.flush().await.unwrap()[&partition()].get(), 3);
    let name = "shop.orders-0-1-00000000000000000000-00000000000000000002.jsonl";
    assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), [name]);
    assert_eq!(sink.flush().await.unwrap()[&partition()].get(), 3, "nothing more to finish");
    sink.write(batch(3, 5)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(files(folder.path()).into_values().collect::<String>(), lines(0, 5));
}

#[tokio::test]
async fn what_a_crash_leaves_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let connector = connector(folder.path(), json!({}));
    let (mut sink, _) = open(connector.as_ref(), TopicId::ZERO).await;
    sink.write(batch(0, 4)).await.unwrap();
    sink.flush().await.unwrap();
    sink.write(batch(4, 8)).await.unwrap();
    drop(sink);
    let (mut sink, position) = open(connector.as_ref(), TopicId::ZERO).await;
    assert_eq!(position, 4);
    assert_eq!(files(folder.path()).into_values().collect::<String>(), lines(0, 4));
    sink.write(batch(4, 6)).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    // The crash came after the file had got its final name, and before that was noted.
    let from = folder.path().join("shop.orders-0-1-00000000000000000000.jsonl.inprogress");
    let to = folder.path().join("shop.orders-0-1-00000000000000000000-00000000000000000005.jsonl");
    std::fs::rename(from, to).unwrap();
    let (mut sink, position) = open(connector.as_ref(), TopicId::ZERO).await;
    assert_eq!(position, 6);
    // An unflushed file without a state is not counted at all.
    sink.write(batch(6, 9)).await.unwrap();
    drop(sink);
    let (sink, position) = open(connector.as_ref(), TopicId::ZERO).await;
    assert_eq!((position, files(folder.path()).len()), (6, 1));
    sink.close().await.unwrap();
}

#[tokio::test]
async fn lost_files_and_other_topics_stop_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let connector = connector(folder.path(), json!({}));
    let id = TopicId::random();
    let (mut sink, _) = open(connector.as_ref(), id).await;
    sink.write(batch(0, 4)).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
    let error = sink.assign(&[(partition(), TopicId::random())]).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("SINK_TOPIC_RECREATED", ErrorKind::Terminal));
    let open_file = folder.path().join("shop.orders-0-1-00000000000000000000.jsonl.inprogress");
    std::fs::write(&open_file, "{").unwrap();
    let error = sink.assign(&[(partition(), id)]).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("SINK_POSITION", ErrorKind::Terminal));
    std::fs::write(folder.path().join(".towpath-shop.orders-0-1.json"), "garbage").unwrap();
    let error = sink.assign(&[(partition(), id)]).await.unwrap_err();
    assert_eq!(error.code(), "SINK_POSITION");
}

#[tokio::test]
async fn a_fenced_task_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let connector = connector(folder.path(), json!({}));
    let (mut old, _) = open(connector.as_ref(), TopicId::ZERO).await;
    old.write(batch(0, 2)).await.unwrap();
    let (mut new, position) = open(connector.as_ref(), TopicId::ZERO).await;
    assert_eq!(position, 0);
    let error = old.flush().await.unwrap_err();
    assert_eq!(error.code(), "SINK_FENCED");
    drop(old);
    new.write(batch(0, 2)).await.unwrap();
    new.close().await.unwrap();
    assert_eq!(files(folder.path()).into_values().collect::<String>(), lines(0, 2));
}

#[tokio::test]
async fn full_lines_tell_everything() {
    let folder = tempfile::tempdir().unwrap();
    let connector = connector(folder.path(), json!({"lines": "full"}));
    let (mut sink, _) = open(connector.as_ref(), TopicId::ZERO).await;
    let (schema, mut builder) = (schema(), BatchBuilder::new());
    let mut record = builder.record(&schema);
    record.op(Some(Op::Tombstone)).offset(5).timestamp_ms(7).key(|row| row.int(1));
    record.finish();
    let mut batch = batch(5, 6);
    batch.batch = builder.build();
    sink.write(batch).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(
        files(folder.path()).into_values().collect::<String>(),
        "{\"topic\":\"shop.orders-0\",\"partition\":1,\"offset\":5,\"timestamp_ms\":7,\"key\":{\"id\":1},\"value\":null}\n"
    );
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_counts() {
    let folder = tempfile::tempdir().unwrap();
    let connector = connector(folder.path(), json!({}));
    let (mut sink, _) = open(connector.as_ref(), TopicId::ZERO).await;
    sink.write(batch(0, 2)).await.unwrap();
    sink.flush().await.unwrap();
    sink.write(batch(2, 4)).await.unwrap();
    // Every write to this device fails with ENOSPC.
    let state = folder.path().join(".towpath-shop.orders-0-1.tmp");
    std::os::unix::fs::symlink("/dev/full", &state).unwrap();
    let error = sink.flush().await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("SINK_DISK_FULL", ErrorKind::NeedsOperator));
    drop(sink);
    std::fs::remove_file(state).unwrap();
    let (sink, position) = open(connector.as_ref(), TopicId::ZERO).await;
    assert_eq!(position, 2);
    sink.close().await.unwrap();
    assert_eq!(files(folder.path()).into_values().collect::<String>(), lines(0, 2));
}
