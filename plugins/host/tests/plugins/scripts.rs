//! The source in Python and the sink in JavaScript keep the contract that built-in connectors keep, over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use towpath_api::conformance::{self, SinkWorld, SourceWorld};
use towpath_api::{
    BatchBuilder, ConnectorError, Durability, ErrorKind, EventSchema, Field, Guarantee, Op, Poll, RawConfig,
    RowSchema, RowWriter, Sink, SinkBatch, SinkConnector, Source, SourceConnector, SourceOffsets,
    TaskContext, Type, Value,
};
use towpath_harness::web::{Answer, Index, Pages};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::connectors::{BUDGET, BULK_INDEX, REST_PAGES, load, open};
use crate::support::PLUGINS;

const TOKEN: &str = "hunter2 hunter2";

/// As the binary does: HTTP's client takes the process's own.
fn with_cryptography() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn source(pages: &Pages) -> Box<dyn SourceConnector> {
    with_cryptography();
    let grants = json!({ "grants": { "http": [pages.address()], "secrets": ["token"] } });
    let factory = load(&REST_PAGES, &grants).source.unwrap();
    assert_eq!(factory.descriptor().guarantee, Some(Guarantee::ExactlyOnce));
    let url = format!("http://{}/items", pages.address());
    let options = json!({ "url": url, "key": "id", "token": TOKEN, "interval": 100 });
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

struct Api(Pages);

#[async_trait]
impl SourceWorld for Api {
    fn connector(&self) -> Box<dyn SourceConnector> {
        source(&self.0)
    }

    async fn produce(&mut self, count: usize) {
        self.0.add(count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_in_python_keeps_the_contract() {
    conformance::source(&mut Api(Pages::start(9, Some(TOKEN)).unwrap())).await.unwrap();
    let pages = Pages::start(9, Some(TOKEN)).unwrap();
    pages.add(100);
    let limit = Duration::from_secs(20);
    let report = conformance::source_as_given(&*source(&pages), Guarantee::ExactlyOnce, limit).await;
    assert!(report.broken.is_none() && report.not_judged.is_empty(), "{report:?}");
}

fn ids(poll: &Poll) -> Vec<i64> {
    let Poll::Batch(batch) = poll else { return Vec::new() };
    let id = |value| match value {
        Value::Text(text) => text.parse().unwrap(),
        other => panic!("{other:?}"),
    };
    batch.batch.records().map(|record| id(record.after().unwrap().get(0))).collect()
}

async fn fails(source: &mut dyn Source) -> ConnectorError {
    source.poll(BUDGET).await.map(drop).unwrap_err()
}

/// What the API says of itself keeps its kind, and nothing is skipped for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_in_python_waits_as_long_as_it_is_asked_to() {
    let pages = Pages::start(10, Some(TOKEN)).unwrap();
    pages.add(25);
    let connector = source(&pages);
    let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
    let busy = |seconds: &str| Answer::With(429, vec![("retry-after", seconds.to_owned())], String::new());
    pages.answer_next([busy("7"), busy("soon"), Answer::status(500), Answer::status(401), Answer::Hangup]);
    let error = fails(&mut *source).await;
    assert_eq!((error.code(), error.kind()), ("REST_BUSY", ErrorKind::RetryAfter(Duration::from_secs(7))));
    assert_eq!(fails(&mut *source).await.kind(), ErrorKind::RetryAfter(Duration::from_secs(1)));
    assert_eq!(fails(&mut *source).await.code(), "REST_STATUS");
    let error = fails(&mut *source).await;
    assert_eq!((error.code(), error.kind()), ("REST_AUTH", ErrorKind::NeedsOperator));
    let error = fails(&mut *source).await;
    assert!(error.code() == "PLUGIN_HTTP" && matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error}");
    let mut found = Vec::new();
    let mut durable = SourceOffsets::default();
    for _ in 0..3 {
        let polled = source.poll(BUDGET).await.unwrap();
        found.extend(ids(&polled));
        let Poll::Batch(batch) = polled else { panic!("no batch") };
        durable.merge(batch.offsets);
    }
    assert_eq!(found, (0..25).collect::<Vec<_>>());
    assert!(matches!(source.poll(BUDGET).await.unwrap(), Poll::Idle(_)));
    assert_eq!(source.status(), "item 5 of page 2");
    // An item without its key is no record; what is not there any more is told.
    pages.change(|items| items.push(json!("nothing")));
    let mut source = open(&*connector, durable.clone()).await.unwrap();
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("no batch") };
    let [rejected] = &batch.rejected[..] else { panic!("{batch:?}") };
    assert_eq!((rejected.position.as_str(), rejected.error.code()), ("page 2, item 5", "REST_KEY"));
    assert_eq!(rejected.bytes, b"\"nothing\"");
    pages.change(|items| items.truncate(22));
    let mut source = open(&*connector, durable.clone()).await.unwrap();
    assert_eq!(fails(&mut *source).await.code(), "REST_SHRUNK");
    pages.change(|items| items.truncate(2));
    let mut source = open(&*connector, durable).await.unwrap();
    assert_eq!(fails(&mut *source).await.code(), "REST_CURSOR");
}

/// R10, R4: an interpreter loses memory at each call. Its instance asks to make way between two polls; what is opened at the
/// offsets of the last one goes on there, and no call fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_in_python_runs_for_long_in_its_memory() {
    let pages = Pages::start(500, Some(TOKEN)).unwrap();
    let text = "ü".repeat(1000);
    pages.change(|items| items.extend((0..40_000).map(|id| json!({ "id": id, "text": text }))));
    let connector = source(&pages);
    let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
    let (mut found, mut durable, mut opened) = (Vec::new(), SourceOffsets::default(), 1);
    while found.len() < 40_000 {
        let polled = source.poll(towpath_api::Budget { bytes: 1 << 20, records: 1000 }).await.unwrap();
        found.extend(ids(&polled));
        if let Poll::Batch(batch) = polled {
            durable.merge(batch.offsets);
        }
        if source.is_superseded() {
            source.commit(&durable).await.unwrap();
            source.close().await.unwrap();
            source = open(&*connector, durable.clone()).await.unwrap();
            assert!(!source.is_superseded());
            opened += 1;
        }
    }
    assert!(found.iter().copied().eq(0..40_000), "every item once, and in order");
    assert!((2..100).contains(&opened), "{opened}");
}

fn sink(index: &Index) -> Box<dyn SinkConnector> {
    sink_with(index, json!({}))
}

fn sink_with(index: &Index, mut entry: Json) -> Box<dyn SinkConnector> {
    with_cryptography();
    entry["grants"] = json!({ "http": [index.address()], "secrets": ["token"] });
    let factory = load(&BULK_INDEX, &entry).sink.unwrap();
    assert_eq!(factory.descriptor().guarantee, Some(Guarantee::AtLeastOnce));
    let options = json!({ "url": format!("http://{}", index.address()), "token": TOKEN });
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Rows of which some cannot be said in JSON.
struct Documents(Arc<Index>);

#[async_trait]
impl SinkWorld for Documents {
    fn connector(&self) -> Box<dyn SinkConnector> {
        sink(&self.0)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn held(&mut self) -> Vec<i64> {
        self.0.documents("rows").keys().map(|id| id.parse().unwrap()).collect()
    }

    fn schema(&self) -> Arc<EventSchema> {
        let key = RowSchema::new(vec![Field::required("id", Type::Int64)]);
        let value =
            RowSchema::new(vec![Field::required("id", Type::Int64), Field::nullable("real", Type::Float64)]);
        Arc::new(EventSchema::new("conformance", Arc::new(value)).with_key(Some(Arc::new(key))))
    }

    fn row(&self, id: i64, row: &mut RowWriter<'_>) {
        row.int(id);
        row.value(Value::Float64(0.5));
    }

    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        row.int(0);
        row.value(Value::Float64(f64::NAN));
        true
    }

    fn topic(&self) -> TopicName {
        TopicName::new("Rows").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_in_javascript_keeps_the_contract() {
    let index = Arc::new(Index::start(Some(TOKEN)).unwrap());
    conformance::sink(&mut Documents(Arc::clone(&index))).await.unwrap();
    assert_eq!(index.documents("rows")["3"], json!({ "id": 3, "real": 0.5 }));
    let report = conformance::sink_as_given(sink(&index), Guarantee::AtLeastOnce).await;
    assert!(report.broken.is_none(), "{report:?}");
}

/// A topic of rows, given by the piece.
struct Given {
    partition: TopicPartition,
    id: TopicId,
    schema: Arc<EventSchema>,
}

impl Given {
    fn new() -> Self {
        let key = Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]));
        let value = vec![Field::required("id", Type::Int64), Field::nullable("text", Type::String)];
        let schema = EventSchema::new("rows", Arc::new(RowSchema::new(value))).with_key(Some(key));
        let partition = TopicPartition::new(TopicName::new("rows").unwrap(), 0);
        Self { partition, id: TopicId::random(), schema: Arc::new(schema) }
    }

    async fn open(&self, connector: &dyn SinkConnector) -> Box<dyn Sink> {
        let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
        sink.assign(&[(self.partition.clone(), self.id)]).await.unwrap();
        sink
    }

    /// Rows from an offset on; one without a text is a deletion.
    fn batch(&self, from: i64, rows: &[(i64, Option<&str>)]) -> SinkBatch {
        let mut builder = BatchBuilder::new();
        for (offset, (id, text)) in (from..).zip(rows) {
            let mut record = builder.record(&self.schema);
            let op = if text.is_some() { Op::Create } else { Op::Delete };
            record.offset(offset).op(Some(op)).key(|row| row.int(*id));
            if let Some(text) = text {
                record.after(|row| {
                    row.int(*id);
                    row.text(text);
                });
            }
            record.finish();
        }
        SinkBatch {
            partition: Arc::new(self.partition.clone()),
            topic_id: self.id,
            first_offset: Offset::new(from),
            next_offset: Offset::new(from + rows.len() as i64),
            batch: builder.build(),
        }
    }
}

fn texts(index: &Index) -> BTreeMap<String, String> {
    let text = |document: Json| document["text"].as_str().unwrap().to_owned();
    index.documents("rows").into_iter().map(|(id, document)| (id, text(document))).collect()
}

fn is(index: &Index, expected: &[(&str, &str)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
    assert_eq!(texts(index), expected);
}

/// A delivery counts after a 2xx and not before; 4xx rejects records by their index, and 5xx is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn the_sink_in_javascript_counts_what_was_answered() {
    let index = Index::start(Some(TOKEN)).unwrap();
    let (connector, given) = (sink(&index), Given::new());
    let rows = [(1, Some("a")), (2, Some("poison")), (3, Some("c"))];
    let mut sink = given.open(&*connector).await;
    let written = sink.write(given.batch(0, &rows)).await.unwrap();
    let rejected: Vec<_> = written.rejected.iter().map(|it| (it.index, it.error.code())).collect();
    assert_eq!(rejected, [(1, "BULK_DOCUMENT")]);
    assert!(written.rejected[0].error.message().contains("poison is none"), "{written:?}");
    assert!(sink.flush().await.unwrap().is_empty(), "nothing of it counts");
    // Without it, and with nobody who hears whether it was written.
    index.answer_next([(Answer::status(500), false), (Answer::Hangup, true)]);
    let without = || {
        let mut batch = given.batch(0, &rows);
        batch.batch.retain(|at, _| at != 1);
        batch
    };
    let error = sink.write(without()).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("BULK_STATUS", ErrorKind::RetryAfter(Duration::from_secs(1))));
    let mut sink = given.open(&*connector).await;
    let error = sink.write(without()).await.unwrap_err();
    assert!(error.code() == "PLUGIN_HTTP" && matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error}");
    let mut sink = given.open(&*connector).await;
    let written = sink.write(without()).await.unwrap();
    assert!(written.rejected.is_empty() && written.durability == Durability::Durable, "{written:?}");
    assert_eq!(sink.flush().await.unwrap(), [(given.partition.clone(), Offset::new(3))].into());
    is(&index, &[("1", "a"), ("3", "c")]);
    // The same request has the same key when it comes again.
    let keys = index.keys();
    assert!(keys[1] == keys[2] && keys[1].starts_with(&given.id.to_string()), "{keys:?}");
    // Newer ones replace, deletions delete, and what is older than what is held changes nothing.
    sink.write(given.batch(3, &[(1, Some("new")), (3, None), (9, None)])).await.unwrap();
    is(&index, &[("1", "new")]);
    sink.write(given.batch(6, &[(4, Some("d"))])).await.unwrap();
    let mut sink = given.open(&*connector).await;
    sink.write(without()).await.unwrap();
    is(&index, &[("1", "new"), ("4", "d")]);
    index.answer_next([(Answer::With(429, vec![("retry-after", "9".to_owned())], String::new()), false)]);
    let error = sink.write(given.batch(7, &[(5, Some("e"))])).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("BULK_BUSY", ErrorKind::RetryAfter(Duration::from_secs(9))));
}

/// R10, R5: an instance that is worn makes way for another between two deliveries, and none of them fails or is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_sink_in_javascript_runs_for_long_in_its_memory() {
    let index = Index::start(Some(TOKEN)).unwrap();
    let (connector, given) = (sink_with(&index, json!({ "memory": 32 << 20 })), Given::new());
    let mut sink = given.open(&*connector).await;
    let text = "ü".repeat(1000);
    // 100 KB each, 40 MB in all.
    for round in 0..400 {
        let rows: Vec<_> = (0..50).map(|at| (round * 50 + at, Some(&*text))).collect();
        sink.write(given.batch(round * 50, &rows)).await.unwrap();
    }
    assert_eq!(sink.flush().await.unwrap(), [(given.partition.clone(), Offset::new(20_000))].into());
    assert_eq!(index.documents("rows").len(), 20_000);
    sink.close().await.unwrap();
}

/// R11
#[test]
fn they_import_nothing_but_the_contract() {
    for path in [&*REST_PAGES, &*BULK_INDEX] {
        let imports = PLUGINS.inspect(path).unwrap().imports;
        assert!(imports.iter().all(|name| name.starts_with("towpath:plugin/")), "{imports:?}");
    }
}
