//! The HTTP sink against a server that breaks connections, takes its time, or answers half.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use towpath_api::{
    BatchBuilder, ErrorKind, EventSchema, Field, RawConfig, RowSchema, Sink, SinkBatch, SinkFactory,
    TaskContext, Type,
};
use towpath_sink_http::HttpSink;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It breaks the connection when half of the body is there.
    ResetInBody,
    /// It takes the records, and breaks the connection instead of answering.
    ResetAfterTaking,
    /// It takes the records, and answers half a status line.
    HalfAnAnswer,
    /// It takes the records, and answers too late.
    Late,
}

#[derive(Debug, Default)]
struct Receiver {
    script: Vec<Option<Fault>>,
    /// The ids of every request that was taken, with its key.
    taken: Vec<(String, Vec<i64>)>,
}

type Shared = Arc<Mutex<Receiver>>;

async fn server(script: &[Option<Fault>]) -> (Shared, String) {
    let state = Arc::new(Mutex::new(Receiver { script: script.to_vec(), ..Receiver::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let shared = Arc::clone(&state);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    });
    (state, url)
}

/// Reads up to the end of the head; what is behind it stays in `buffer`.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            return String::from_utf8(std::mem::replace(buffer, rest)).ok();
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = |line: &'a str| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name));
    head.lines().find_map(line).map_or("", |(_, value)| value.trim())
}

async fn serve(mut stream: TcpStream, state: Shared) {
    let mut buffer = Vec::new();
    while let Some(head) = head(&mut stream, &mut buffer).await {
        let length: usize = header(&head, "content-length").parse().unwrap();
        let fault = {
            let mut state = state.lock().await;
            if state.script.is_empty() { None } else { state.script.remove(0) }
        };
        let wanted = if fault == Some(Fault::ResetInBody) { length / 2 } else { length };
        while buffer.len() < wanted {
            if stream.read_buf(&mut buffer).await.unwrap() == 0 {
                return;
            }
        }
        if fault == Some(Fault::ResetInBody) {
            // With bytes unread, the close is a reset.
            return;
        }
        let rest = buffer.split_off(length);
        let body: Vec<Json> = serde_json::from_slice(&std::mem::replace(&mut buffer, rest)).unwrap();
        let ids = body.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        state.lock().await.taken.push((header(&head, "idempotency-key").to_owned(), ids));
        match fault {
            Some(Fault::ResetAfterTaking) => {
                stream.set_zero_linger().unwrap();
                return;
            }
            Some(Fault::HalfAnAnswer) => {
                let _ = stream.write_all(b"HTTP/1.1 20").await;
                return;
            }
            Some(Fault::Late) => tokio::time::sleep(Duration::from_secs(3)).await,
            _ => {}
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), 0)
}

async fn open(url: &str, mut options: Json) -> Box<dyn Sink> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    options["url"] = json!(url);
    let factory = HttpSink::default();
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    let mut sink = factory.parse(&config).unwrap().open(TaskContext::new("test", 0)).await.unwrap();
    sink.assign(&[(partition(), TopicId::ZERO)]).await.unwrap();
    sink
}

fn batch(from: i64, to: i64) -> SinkBatch {
    let row = || Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]));
    let schema = Arc::new(EventSchema::new("orders", row()).with_key(Some(row())));
    let mut builder = BatchBuilder::new();
    for offset in from..to {
        let mut record = builder.record(&schema);
        record.offset(offset).key(|row| row.int(offset)).after(|row| row.int(offset));
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

#[tokio::test]
async fn what_was_not_answered_is_sent_again_under_its_key_and_nothing_overtakes_it() {
    for fault in [Fault::ResetInBody, Fault::ResetAfterTaking, Fault::HalfAnAnswer, Fault::Late] {
        // The second of four requests fails twice.
        let (state, url) = server(&[None, Some(fault), Some(fault)]).await;
        let mut sink = open(&url, json!({"batch_records": 50, "timeout": 500})).await;
        let written = sink.write(batch(0, 200)).await.unwrap();
        assert!(written.rejected.is_empty(), "{fault:?}");
        assert_eq!(sink.flush().await.unwrap()[&partition()].get(), 200);
        let taken = state.lock().await.taken.clone();
        let mut keys: Vec<_> = taken.iter().map(|(key, _)| key.as_str()).collect();
        // Who takes a key once has every record once, in order.
        keys.dedup();
        assert_eq!(
            keys,
            ["orders-0-0-49", "orders-0-50-99", "orders-0-100-149", "orders-0-150-199"],
            "{fault:?}"
        );
        for (key, ids) in &taken {
            let first = ids[0];
            assert_eq!(*ids, (first..first + 50).collect::<Vec<_>>(), "{key}: one key, one content");
        }
        let often = taken.iter().filter(|(key, _)| key == "orders-0-50-99").count();
        assert_eq!(often, if fault == Fault::ResetInBody { 1 } else { 3 }, "{fault:?}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_fails_the_task_and_not_the_record() {
    let (state, url) = server(&[Some(Fault::Late); 20]).await;
    let mut sink = open(&url, json!({"timeout": 200, "attempts": 3})).await;
    let error = sink.write(batch(0, 10)).await.unwrap_err();
    assert_eq!(error.code(), "HTTP_TIMEOUT");
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "it is nobody's fault for ever: {error:?}");
    assert!(sink.flush().await.unwrap().is_empty(), "R5: the position stays");
    assert_eq!(state.lock().await.taken.len(), 3, "as often as was allowed");
}
