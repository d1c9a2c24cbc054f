//! The Redis plugins keep the contract that built-in connectors keep, over a real server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use towpath_api::conformance::{self, SinkWorld, SourceWorld};
use towpath_api::{
    BatchBuilder, EventSchema, Field, Guarantee, Op, Poll, RawConfig, RowSchema, RowWriter, SinkBatch,
    SinkConnector, Source, SourceConnector, SourceOffsets, TaskContext, Type, Value,
};
use towpath_harness::Redis;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::connectors::{BUDGET, REDIS_SINK, REDIS_STREAMS, load, plan_one};

const PASSWORD: &str = "let me in, Redis!";

fn grants(redis: &Redis) -> Json {
    json!({ "grants": { "tcp": [redis.address()], "secrets": ["password"] } })
}

fn streams(redis: &Redis, options: Json) -> Box<dyn SourceConnector> {
    let factory = load(&REDIS_STREAMS, &grants(redis)).source.unwrap();
    assert_eq!(factory.descriptor().guarantee, Some(Guarantee::ExactlyOnce));
    let mut options = options;
    options["address"] = json!(redis.address());
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(crate) fn add(redis: &Redis, stream: &str, count: usize) {
    let script = "for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'n', i, 'text', 'entry ' .. i) end";
    redis.cli(&["EVAL", script, "1", stream, &count.to_string()]).unwrap();
}

struct Streams(Arc<Redis>);

#[async_trait]
impl SourceWorld for Streams {
    fn connector(&self) -> Box<dyn SourceConnector> {
        streams(&self.0, json!({ "streams": ["one", "two"], "key": "n", "password": PASSWORD }))
    }

    async fn produce(&mut self, count: usize) {
        add(&self.0, "one", count / 2);
        add(&self.0, "two", count - count / 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_streams_keep_the_contract() {
    let redis = Arc::new(Redis::with_password(PASSWORD).unwrap());
    conformance::source(&mut Streams(redis)).await.unwrap();
}

async fn opened(connector: &dyn SourceConnector, resume: SourceOffsets) -> Result<Box<dyn Source>, String> {
    let task = plan_one(connector).await.unwrap().remove(0);
    let opened = connector.open(task, resume, TaskContext::new("test", 0)).await;
    opened.map_err(|error| format!("{} {error}", error.code()))
}

/// Everything that is there now, and where that ends.
async fn read(connector: &dyn SourceConnector, mut resume: SourceOffsets) -> (Vec<String>, SourceOffsets) {
    let mut source = opened(connector, resume.clone()).await.unwrap();
    let mut texts = Vec::new();
    loop {
        match source.poll(BUDGET).await.unwrap() {
            Poll::Batch(batch) => {
                for record in batch.batch.records() {
                    let row = record.after().unwrap();
                    let Value::Text(fields) = row.get(1) else { panic!("{:?}", row.get(1)) };
                    texts.push(fields.to_owned());
                }
                texts.extend(batch.rejected.iter().map(|it| it.error.code().to_owned()));
                resume.merge(batch.offsets);
            }
            Poll::Idle(_) => return (texts, resume),
            Poll::End => panic!("a stream has no end"),
        }
    }
}

/// R7: entries that are gone before they were read are told, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_lost_are_told() {
    let redis = Redis::start().unwrap();
    let connector = streams(&redis, json!({ "streams": ["s"] }));
    let (texts, nothing) = read(&*connector, SourceOffsets::default()).await;
    assert!(texts.is_empty() && nothing.is_empty());
    redis.cli(&["XADD", "s", "5-1", "a", "1", "q\"", "\\"]).unwrap();
    redis.cli(&["EVAL", "redis.call('XADD', 's', '5-2', 'a', '\\255')", "0"]).unwrap();
    let (texts, stored) = read(&*connector, SourceOffsets::default()).await;
    assert_eq!(texts, [r#"{"a":"1","q\"":"\\"}"#, "REDIS_ENTRY"]);
    assert_eq!(stored.partitions["s"], json!("5-2 2"));
    redis.cli(&["XTRIM", "s", "MAXLEN", "0"]).unwrap();
    redis.cli(&["XADD", "s", "6-0", "b", "1"]).unwrap();
    let (texts, later) = read(&*connector, stored.clone()).await;
    assert_eq!(
        (texts.as_slice(), &later.partitions["s"]),
        (&[r#"{"b":"1"}"#.to_owned()][..], &json!("6-0 3"))
    );
    redis.cli(&["XTRIM", "s", "MAXLEN", "0"]).unwrap();
    redis.cli(&["XADD", "s", "7-0", "c", "1"]).unwrap();
    assert!(opened(&*connector, stored).await.err().unwrap().contains("trimmed"));
    assert!(opened(&*connector, later.clone()).await.is_ok());
    redis.cli(&["DEL", "s"]).unwrap();
    assert!(opened(&*connector, later.clone()).await.err().unwrap().contains("gone"));
    redis.cli(&["XADD", "s", "1-0", "d", "1"]).unwrap();
    assert!(opened(&*connector, later).await.err().unwrap().contains("begun anew"));
    let unreadable = SourceOffsets { partitions: [("s".to_owned(), json!("rubbish"))].into() };
    assert!(opened(&*connector, unreadable).await.err().unwrap().starts_with("REDIS_OFFSET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_is_wrong() {
    let redis = Redis::with_password(PASSWORD).unwrap();
    redis.cli(&["SET", "text", "x"]).unwrap();
    let context = TaskContext::new("test", 0);
    let good = json!({ "streams": ["s"], "password": PASSWORD });
    let lines = streams(&redis, good).check(&context).await.unwrap();
    assert!(lines[0].starts_with("Redis ") && lines[1].contains("not there yet"), "{lines:?}");
    for (options, code) in [
        (json!({ "streams": ["s"], "password": "wrong" }), "REDIS_AUTH"),
        (json!({ "streams": ["s"] }), "REDIS_AUTH"),
        (json!({ "streams": ["text"], "password": PASSWORD }), "REDIS_STREAM"),
    ] {
        let errors = streams(&redis, options).check(&context).await.unwrap_err();
        assert_eq!(errors[0].code(), code, "{errors:?}");
        assert!(!format!("{errors:?}").contains(PASSWORD));
    }
}

/// Nulls, values that were not told, deletions, and keys that hold something else.
#[tokio::test(flavor = "multi_thread")]
async fn rows_become_hashes() {
    let redis = Redis::with_password(PASSWORD).unwrap();
    let partition = TopicPartition::new(TopicName::new("rows").unwrap(), 0);
    let key = Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]));
    let value = [
        Field::required("id", Type::Int64),
        Field::nullable("a", Type::String),
        Field::nullable("b", Type::Bool),
    ];
    let schema =
        Arc::new(EventSchema::new("rows", Arc::new(RowSchema::new(value.to_vec()))).with_key(Some(key)));
    let mut sink = sink(&redis).open(TaskContext::new("test", 0)).await.unwrap();
    let id = TopicId::random();
    sink.assign(&[(partition.clone(), id)]).await.unwrap();
    let mut next = 0;
    let mut change = |row_id: i64, op: Op, after: Option<(Option<&str>, Option<bool>)>| {
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&schema);
        record.offset(next).op(Some(op)).key(|row| row.int(row_id));
        if let Some((a, b)) = after {
            record.after(|row| {
                row.int(row_id);
                row.value(a.map_or(Value::Null, Value::Text));
                row.value(b.map_or(Value::Absent, Value::Bool));
            });
        }
        record.finish();
        next += 1;
        SinkBatch {
            partition: Arc::new(partition.clone()),
            topic_id: id,
            first_offset: Offset::new(next - 1),
            next_offset: Offset::new(next),
            batch: builder.build(),
        }
    };
    let all = |key: &str| redis.cli(&["HGETALL", key]).unwrap().replace('\n', " ");
    sink.write(change(1, Op::Create, Some((Some("x"), Some(true))))).await.unwrap();
    assert_eq!(all("row:1"), "id 1 a x b true");
    sink.write(change(1, Op::Update, Some((None, None)))).await.unwrap();
    assert_eq!(all("row:1"), "id 1 b true");
    sink.write(change(1, Op::Delete, None)).await.unwrap();
    assert_eq!(all("row:1"), "");
    redis.cli(&["SET", "row:2", "a text"]).unwrap();
    let written = sink.write(change(2, Op::Create, Some((Some("x"), None)))).await.unwrap();
    assert_eq!(written.rejected[0].error.code(), "REDIS_TYPE");
}

/// A Redis that has lost what it told is written from where it stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_end_is_noticed() {
    let redis = Arc::new(Redis::with_password(PASSWORD).unwrap());
    let connector = sink(&redis);
    let partition = TopicPartition::new(TopicName::new("rows").unwrap(), 0);
    let (id, added) = (TopicId::random(), |id| [(partition.clone(), id)]);
    let batch = |from: i64| SinkBatch {
        partition: Arc::new(partition.clone()),
        topic_id: id,
        first_offset: Offset::new(from),
        next_offset: Offset::new(from + 5),
        batch: towpath_api::Batch::default(),
    };
    let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
    sink.assign(&added(id)).await.unwrap();
    sink.write(batch(0)).await.unwrap();
    redis.cli(&["HSET", &format!("towpath:positions:{id}:0"), "next", "2"]).unwrap();
    let error = sink.write(batch(5)).await.unwrap_err();
    assert_eq!(error.code(), "REDIS_POSITION", "{error}");
    let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
    assert_eq!(sink.assign(&added(id)).await.unwrap()[&partition], Offset::new(2));
}

struct Hashes(Arc<Redis>);

fn sink(redis: &Redis) -> Box<dyn SinkConnector> {
    let factory = load(&REDIS_SINK, &grants(redis)).sink.unwrap();
    let options = json!({ "address": redis.address(), "prefix": "row:", "password": PASSWORD });
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

#[async_trait]
impl SinkWorld for Hashes {
    fn connector(&self) -> Box<dyn SinkConnector> {
        sink(&self.0)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn held(&mut self) -> Vec<i64> {
        let keys = self.0.cli(&["KEYS", "row:*"]).unwrap();
        keys.lines().filter_map(|key| key.strip_prefix("row:")?.parse().ok()).collect()
    }

    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        row.absent();
        row.absent();
        true
    }

    fn topic(&self) -> TopicName {
        TopicName::new("rows").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_sink_keeps_the_contract() {
    let redis = Arc::new(Redis::with_password(PASSWORD).unwrap());
    conformance::sink(&mut Hashes(Arc::clone(&redis))).await.unwrap();
    assert_eq!(redis.cli(&["HGET", "row:3", "text"]).unwrap(), "text");
}

/// What `towpath plugin check` does: nobody but the options knows the server.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_keep_what_can_be_judged_of_the_contract() {
    let redis = Redis::with_password(PASSWORD).unwrap();
    let connector = streams(&redis, json!({ "streams": ["one", "two"], "key": "n", "password": PASSWORD }));
    let limit = Duration::from_secs(20);
    // In an empty world little can be judged, and that is said.
    let report =
        conformance::source_as_given(&*connector, Guarantee::ExactlyOnce, Duration::from_secs(1)).await;
    assert!(report.broken.is_none(), "{report:?}");
    assert_eq!((report.kept.len(), report.not_judged.len()), (3, 6), "{report:?}");
    add(&redis, "one", 70);
    add(&redis, "two", 30);
    let report = conformance::source_as_given(&*connector, Guarantee::ExactlyOnce, limit).await;
    assert!(report.broken.is_none() && report.not_judged.is_empty(), "{report:?}");
    // More than it reads.
    add(&redis, "one", 500);
    let report = conformance::source_as_given(&*connector, Guarantee::ExactlyOnce, limit).await;
    assert!(report.broken.is_none(), "{report:?}");
    assert_eq!(report.not_judged.len(), 1, "{report:?}");
    let report = conformance::sink_as_given(sink(&redis), Guarantee::ExactlyOnce).await;
    assert!(report.broken.is_none(), "{report:?}");
    assert_eq!((report.kept.len(), report.not_judged.len()), (7, 1), "{report:?}");
    assert!(report.not_judged[0].1.contains("towpath-check-"), "{report:?}");
    // Without a password nothing is judged, and it is said why.
    let connector = streams(&redis, json!({ "streams": ["one"] }));
    let report = conformance::source_as_given(&*connector, Guarantee::ExactlyOnce, limit).await;
    assert!(report.broken.unwrap().to_string().contains("REDIS_AUTH"));
}
