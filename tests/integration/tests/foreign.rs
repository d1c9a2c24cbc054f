//! Records of people who know nothing of Towpath, through every sink: each arrives or is a dead letter, and none stalls
//! the rest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};
use towpath_client::{Client, ClientConfig, ConsumerConfig, ProducerConfig, ProducerRecord, StartAt};
use towpath_harness::process::Options;
use towpath_harness::{Postgres, TempDir, Towpath, postgres};
use towpath_types::{TopicName, TopicPartition};

/// Takes whatever is posted, and answers 200.
fn receiver() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, shared) = (stream.unwrap(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let mut buffer = Vec::new();
                loop {
                    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n");
                    // A request without a body (the sink looks whether somebody is there) announces none.
                    let length = end.map(|end| {
                        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
                        let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        announced.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
                    });
                    let whole =
                        end.zip(length).map(|(end, length): (usize, usize)| (end + 4, end + 4 + length));
                    if let Some((from, to)) = whole.filter(|(_, to)| buffer.len() >= *to) {
                        shared.lock().unwrap().extend_from_slice(&buffer[from..to]);
                        buffer.drain(..to);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                            return;
                        }
                        continue;
                    }
                    let mut chunk = [0; 4096];
                    match stream.read(&mut chunk) {
                        Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
                        _ => return,
                    }
                }
            });
        }
    });
    (url, taken)
}

type Header = (&'static str, Option<&'static [u8]>);
type Foreign = (Option<&'static [u8]>, Option<Vec<u8>>, &'static [Header]);

/// What others write, and whether it is a row with a `name` that every sink can take.
fn records() -> Vec<(Foreign, Option<&'static str>)> {
    let value = |text: &str| Some(text.as_bytes().to_vec());
    let deep = format!("{{\"id\":30,\"name\":\"deep\",\"x\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    vec![
        ((None, value(r#"{"id":1,"name":"plain"}"#), &[]), Some("plain")),
        ((Some(b"text key"), value(r#"{"id":2,"name":"text key"}"#), &[]), Some("text key")),
        ((Some(br#"{"id":3}"#), value(r#" {"id":3,"name":"gr\u00fc\u00dfe"} "#), &[]), Some("grüße")),
        ((Some(b"\xff\xfe"), value(r#"{"id":4,"name":"binary key"}"#), &[]), Some("binary key")),
        ((Some(b""), value(r#"{"id":5,"name":"empty key"}"#), &[]), Some("empty key")),
        ((None, value("this is no JSON"), &[]), None),
        ((None, Some(b"{\"id\":6,\"name\":\"\xff\"}".to_vec()), &[]), None),
        ((None, value(""), &[]), None),
        ((None, value("{\"id\":7,\"name\":\"cut"), &[]), None),
        ((None, None, &[]), None),
        ((Some(b"gone"), None, &[]), None),
        ((None, value("42"), &[]), None),
        ((None, value("[1,2,{}]"), &[]), None),
        ((None, value("null"), &[]), None),
        (
            (None, value(r#"{"id":8,"name":"header"}"#), &[("h", None), ("towpath.op", Some(b"?"))]),
            Some("header"),
        ),
        ((None, value(r#"{"id":9,"name":"short"}"#), &[("towpath.schema", Some(b"abc"))]), Some("short")),
        ((None, value(r#"{"id":10,"name":"unknown"}"#), &[("towpath.schema", Some(b"12345678"))]), None),
        ((None, value(r#"{"schema":{"type":"nonsense"},"payload":{"id":11}}"#), &[]), None),
        ((None, value(r#"{"op":"x","before":null,"after":{"id":12},"source":{},"ts_ms":1}"#), &[]), None),
        ((None, value(&deep), &[]), None),
        ((None, value(r#"{"id":99999999999999999999999,"name":"large"}"#), &[]), None),
        ((None, value(r#"{"id":31,"name":"last"}"#), &[]), Some("last")),
    ]
}

async fn produce(client: &Client, topic: &TopicName) {
    let producer = client.producer(ProducerConfig::default());
    for ((key, value, headers), _) in records() {
        let record = ProducerRecord { key, value: value.as_deref(), headers, ..ProducerRecord::new(topic) };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

/// The offsets that the dead letters of a pipeline came from, and their values.
async fn letters(client: &Client, pipeline: &str) -> BTreeSet<(i64, Option<Vec<u8>>)> {
    let topic = TopicName::new(&format!("{pipeline}.dead-letter")).unwrap();
    let partition = TopicPartition::new(topic, 0);
    let consumer = client.consumer(ConsumerConfig::default());
    let end = consumer.end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition];
    consumer.assign(&[(partition.clone(), StartAt::Earliest)]).unwrap();
    let mut found = BTreeSet::new();
    while consumer.position(&partition).is_none_or(|at| at < end) {
        for records in consumer.poll(Duration::from_secs(5)).await.unwrap() {
            for record in &records {
                let record = record.unwrap();
                let header = |name: &str| record.headers.last(name).flatten().unwrap_or_default().to_vec();
                let offset = String::from_utf8(header("towpath.error.offset")).unwrap().parse().unwrap();
                assert!(
                    !header("towpath.error.code").is_empty() && !header("towpath.error.message").is_empty()
                );
                assert!(found.insert((offset, record.value.map(<[u8]>::to_vec))), "offset {offset} twice");
            }
        }
    }
    found
}

/// Waits until each of the sinks has passed the last record.
async fn until_all_have_passed(towpath: &Towpath, sinks: usize, records: usize) {
    let position = format!("foreign-0 at {records}");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let status = towpath.status().unwrap();
        let pipelines = status["pipelines"].as_array().unwrap();
        let tasks: Vec<_> = pipelines.iter().flat_map(|it| it["tasks"].as_array().unwrap()).collect();
        let done = tasks.iter().filter(|task| task["state"] == "RUNNING" && task["lag"] == 0).count();
        if done == sinks && tasks.iter().all(|task| task["position"] == position) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{status:#}\n{}", towpath.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_records_arrive_or_are_buried_and_stall_nobody() {
    let folder = TempDir::new("foreign").unwrap();
    let server = tokio::task::spawn_blocking(|| Postgres::start(&postgres::Options::default()).unwrap())
        .await
        .unwrap();
    server.create_database("warehouse").unwrap();
    let (url, taken) = receiver();
    let sinks = [
        ("files", format!("{{ type: file, path: \"{}\" }}", folder.join("out").display())),
        ("hook", format!("{{ type: http, url: \"{url}\", body: lines }}")),
        ("lite", format!("{{ type: sqlite, path: \"{}\", mode: append }}", folder.join("out.db").display())),
        ("postgres", format!("{{ type: postgres, url: \"{}\", mode: append }}", server.url("warehouse"))),
    ];
    let pipelines: String = sinks
        .iter()
        .map(|(name, sink)| format!("  {name}:\n    topics: [foreign]\n    sink: {sink}\n"))
        .collect();
    let mut towpath = Towpath::start(Options::yaml(format!("pipelines:\n{pipelines}"))).unwrap();
    let client = Client::connect(ClientConfig {
        bootstrap_servers: vec![towpath.bootstrap()],
        ..ClientConfig::default()
    })
    .await
    .unwrap();
    let topic = TopicName::new("foreign").unwrap();
    produce(&client, &topic).await;
    let all = records();
    until_all_have_passed(&towpath, sinks.len(), all.len()).await;
    let names: BTreeSet<&str> = all.iter().filter_map(|(_, name)| *name).collect();
    for (pipeline, _) in &sinks {
        let letters = letters(&client, pipeline).await;
        for (offset, value) in &letters {
            let ((_, sent, _), name) = &all[usize::try_from(*offset).unwrap()];
            assert_eq!((value, name), (sent, &None), "{pipeline}: offset {offset}, as it was");
        }
        let buried: BTreeSet<i64> = letters.iter().map(|(offset, _)| *offset).collect();
        // What nobody can read is buried by all.
        for offset in [5, 6, 7, 8, 16, 17] {
            assert!(buried.contains(&offset), "{pipeline}: offset {offset} of {buried:?}");
        }
        eprintln!("{pipeline}: {buried:?}");
    }
    towpath.terminate(Duration::from_secs(30)).unwrap();
    let holds = |what: &str, text: &str| {
        for name in &names {
            let times = text.matches(&format!("\"{name}\"")).count();
            assert_eq!(times, 1, "{what}: {name} in\n{text}");
        }
    };
    let files = std::fs::read_dir(folder.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    holds("files", &files.map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>());
    holds("http", &String::from_utf8(taken.lock().unwrap().clone()).unwrap());
    let quoted = |names: Vec<String>| names.iter().map(|name| format!("\"{name}\"")).collect::<String>();
    let mut lite = SqliteConnectOptions::new().filename(folder.join("out.db")).connect().await.unwrap();
    let rows = sqlx::query("SELECT name FROM \"foreign\" WHERE name IS NOT NULL")
        .fetch_all(&mut lite)
        .await
        .unwrap();
    holds("sqlite", &quoted(rows.iter().map(|row| row.get(0)).collect()));
    let rows = server.psql("warehouse", "SELECT name FROM \"foreign\" WHERE name IS NOT NULL").unwrap();
    holds("postgres", &quoted(rows.lines().map(str::to_owned).collect()));
}
