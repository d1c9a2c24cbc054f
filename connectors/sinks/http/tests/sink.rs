//! The HTTP sink against a real server.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Router, serve};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use towpath_api::conformance::{self, SinkWorld};
use towpath_api::{
    BatchBuilder, ErrorKind, EventSchema, Field, Guarantee, Op, RawConfig, RowSchema, Sink, SinkBatch,
    SinkConnector, SinkFactory, TaskContext, Type,
};
use towpath_sink_http::HttpSink;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

/// What the server was sent, and how it answers.
#[derive(Default)]
struct Receiver {
    requests: Vec<(HeaderMap, Bytes)>,
    /// Ids that were taken.
    taken: Vec<i64>,
    /// Answers for the next requests, before everything else.
    script: Vec<(StatusCode, Option<&'static str>)>,
    /// Ids that make a request be answered with 422.
    poison: Vec<i64>,
}

type Shared = Arc<Mutex<Receiver>>;

async fn receive(State(state): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut state = state.lock().await;
    state.requests.push((headers, body.clone()));
    if !state.script.is_empty() {
        let (status, wait) = state.script.remove(0);
        let headers: Vec<_> = wait.map(|wait| ("Retry-After", wait)).into_iter().collect();
        let mut response = (status, "scripted").into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        return response;
    }
    let values: Vec<Json> = match serde_json::from_slice(&body) {
        Ok(Json::Array(values)) => values,
        _ => std::str::from_utf8(&body)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    };
    let ids: Vec<i64> = values
        .iter()
        .filter_map(|value| value["id"].as_i64().or_else(|| value["value"]["id"].as_i64()))
        .collect();
    if ids.iter().any(|id| state.poison.contains(id)) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "a bad id").into_response();
    }
    state.taken.extend(ids);
    StatusCode::NO_CONTENT.into_response()
}

async fn server() -> (Shared, String) {
    let state = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in?token=geheim", listener.local_addr().unwrap());
    let router = Router::new().route("/in", any(receive)).with_state(Arc::clone(&state));
    tokio::spawn(async move { serve(listener, router).await });
    (state, url)
}

fn connector(url: &str, mut options: Json) -> Box<dyn SinkConnector> {
    // As in main: one provider for the whole process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    options["url"] = json!(url);
    let factory = HttpSink::default();
    conformance::descriptor(factory.descriptor()).unwrap();
    factory.parse(&RawConfig::with_defaults(&factory.descriptor().options, options).unwrap()).unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), 3)
}

async fn open(connector: &dyn SinkConnector) -> Box<dyn Sink> {
    let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
    assert!(sink.assign(&[(partition(), TopicId::ZERO)]).await.unwrap().is_empty());
    sink
}

fn batch(from: i64, to: i64, without: &[i64]) -> SinkBatch {
    let row = || Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]));
    let schema = Arc::new(EventSchema::new("orders", row()).with_key(Some(row())));
    let mut builder = BatchBuilder::new();
    for offset in (from..to).filter(|offset| !without.contains(offset)) {
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

struct World(Shared, String);

#[async_trait]
impl SinkWorld for World {
    fn connector(&self) -> Box<dyn SinkConnector> {
        connector(&self.1, json!({"batch_records": 3}))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn held(&mut self) -> Vec<i64> {
        self.0.lock().await.taken.clone()
    }

    fn topic(&self) -> TopicName {
        TopicName::new("conformance").unwrap()
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let (state, url) = server().await;
    conformance::sink(&mut World(state, url)).await.unwrap();
}

#[tokio::test]
async fn requests_are_batched_in_order_under_keys_of_their_offsets() {
    let (state, url) = server().await;
    let options = json!({"batch_records": 4, "headers": {"Authorization": "Bearer x"}});
    let mut sink = open(connector(&url, options).as_ref()).await;
    assert!(sink.write(batch(0, 10, &[])).await.unwrap().rejected.is_empty());
    let state = state.lock().await;
    assert_eq!(state.taken, (0..10).collect::<Vec<_>>());
    let keys: Vec<_> = state.requests.iter().map(|(headers, _)| headers["idempotency-key"].clone()).collect();
    assert_eq!(keys, ["orders-3-0-3", "orders-3-4-7", "orders-3-8-9"]);
    let (headers, body) = &state.requests[2];
    assert_eq!(headers["authorization"], "Bearer x");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(&body[..], br#"[{"id":8},{"id":9}]"#);
}

#[tokio::test]
async fn bodies_can_be_lines_of_full_records_and_bounded_in_bytes() {
    let (state, url) = server().await;
    let mut sink =
        open(connector(&url, json!({"body": "lines", "records": "full", "batch_bytes": 150})).as_ref()).await;
    sink.write(batch(0, 3, &[])).await.unwrap();
    let state = state.lock().await;
    assert_eq!(state.requests.len(), 3, "two records are more than 150 bytes");
    assert_eq!(
        &state.requests[1].1[..],
        b"{\"topic\":\"orders\",\"partition\":3,\"offset\":1,\"timestamp_ms\":7,\"key\":{\"id\":1},\"value\":{\"id\":1}}\n"
    );
}

#[tokio::test]
async fn refused_records_are_found_and_the_rest_is_sent_once() {
    let (state, url) = server().await;
    let mut sink = open(connector(&url, json!({})).as_ref()).await;
    state.lock().await.poison = vec![5, 12];
    let written = sink.write(batch(0, 20, &[])).await.unwrap();
    let found: Vec<_> =
        written.rejected.iter().map(|rejected| (rejected.index, rejected.error.code())).collect();
    assert_eq!(found, [(5, "SINK_HTTP_REJECTED"), (12, "SINK_HTTP_REJECTED")]);
    assert!(written.rejected[0].error.message().contains("a bad id"));
    assert!(sink.flush().await.unwrap().is_empty(), "the position does not pass rejected records");
    let again = sink.write(batch(0, 20, &[5])).await.unwrap();
    assert_eq!(again.rejected.len(), 1, "12 is refused again");
    sink.write(batch(0, 20, &[5, 12])).await.unwrap();
    assert_eq!(sink.flush().await.unwrap()[&partition()].get(), 20);
    let expected: Vec<_> = (0..20).filter(|id| ![5, 12].contains(id)).collect();
    assert_eq!(state.lock().await.taken, expected);
}

#[tokio::test]
async fn passing_faults_are_sat_out_and_lasting_ones_told() {
    let (state, url) = server().await;
    let mut sink = open(connector(&url, json!({"attempts": 3})).as_ref()).await;
    state.lock().await.script =
        vec![(StatusCode::SERVICE_UNAVAILABLE, None), (StatusCode::TOO_MANY_REQUESTS, Some("1"))];
    let began = Instant::now();
    assert!(sink.write(batch(0, 2, &[])).await.unwrap().rejected.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(1200), "Retry-After is honoured");
    assert_eq!(state.lock().await.taken, [0, 1]);

    state.lock().await.script = vec![(StatusCode::TOO_MANY_REQUESTS, Some("600"))];
    let error = sink.write(batch(2, 4, &[])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RetryAfter(Duration::from_secs(600)));
    state.lock().await.script = vec![(StatusCode::BAD_GATEWAY, None); 3];
    let error = sink.write(batch(2, 4, &[])).await.unwrap_err();
    assert_eq!(error.code(), "HTTP_UNAVAILABLE");
    for (status, code) in [
        (StatusCode::UNAUTHORIZED, "HTTP_AUTH"),
        (StatusCode::NOT_FOUND, "HTTP_REFUSED"),
        (StatusCode::FOUND, "HTTP_REDIRECT"),
    ] {
        state.lock().await.script = vec![(status, None)];
        let error = sink.write(batch(2, 4, &[])).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, ErrorKind::NeedsOperator));
    }
}

#[tokio::test]
async fn nobody_there_is_told_without_secrets() {
    let (_state, url) = server().await;
    let context = TaskContext::new("test", 0);
    assert_eq!(connector(&url, json!({})).check(&context).await.unwrap().len(), 1);
    let nobody = connector("http://u:geheim@127.0.0.1:1/x?token=geheim", json!({"attempts": 1}));
    let errors = nobody.check(&context).await.unwrap_err();
    assert_eq!(errors[0].code(), "HTTP_UNREACHABLE");
    let error = open(nobody.as_ref()).await.write(batch(0, 1, &[])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)));
    assert!(!format!("{errors:?}{error:?}{error}").contains("geheim"), "{error:?}");
}

#[tokio::test]
async fn a_stop_ends_the_waiting() {
    let (state, url) = server().await;
    let context = TaskContext::new("test", 0);
    let mut sink = connector(&url, json!({"attempts": 9})).open(context.clone()).await.unwrap();
    sink.assign(&[(partition(), TopicId::ZERO)]).await.unwrap();
    state.lock().await.script = vec![(StatusCode::SERVICE_UNAVAILABLE, Some("20")); 9];
    let writing = tokio::spawn(async move { sink.write(batch(0, 1, &[])).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    context.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), writing).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().code(), "HTTP_UNAVAILABLE");
}

#[tokio::test]
async fn tombstones_are_left_out_of_values() {
    let (state, url) = server().await;
    let mut sink = open(connector(&url, json!({})).as_ref()).await;
    let mut with_tombstone = batch(0, 1, &[]);
    let schema = Arc::clone(with_tombstone.batch.record(0).schema());
    let mut builder = std::mem::take(&mut with_tombstone.batch).into_builder();
    let mut record = builder.record(&schema);
    record.op(Some(Op::Tombstone)).offset(1).key(|row| row.int(0));
    record.finish();
    with_tombstone.batch = builder.build();
    with_tombstone.next_offset = Offset::new(2);
    sink.write(with_tombstone).await.unwrap();
    assert_eq!(&state.lock().await.requests[0].1[..], br#"[{"id":0}]"#);
}
