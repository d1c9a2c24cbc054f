//! Sources: what they bring, and what happens when they do worse.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;
use towpath_api::{ErrorKind, Poll, Position, RawConfig, SourceOffsets, TaskContext, TaskSpec, Value};

use crate::connectors::{BUDGET, FORGER_SOURCE, finds, hostile_source, load, open, plan_one};

fn offsets(partition: &str, place: &str) -> SourceOffsets {
    SourceOffsets { partitions: [(partition.to_owned(), json!(place))].into() }
}

#[tokio::test]
async fn records_offsets_rejections_and_ends_come_as_they_are_told() {
    let connector = hostile_source(json!({}), json!({}));
    let mut source = open(&*connector, offsets("numbers", "5")).await.unwrap();
    assert_eq!(source.status(), "at 5");
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("no batch") };
    let numbers: Vec<_> =
        batch.batch.records().map(|it| (it.lane(), it.offset(), it.after().unwrap().get(0))).collect();
    assert_eq!(numbers, [5, 7, 8, 9].map(|n| (1, -1, Value::Int(n))));
    assert_eq!(batch.batch.record(0).position(), Some(&5_i64.to_be_bytes()[..]));
    assert_eq!(batch.offsets, offsets("numbers", "10"));
    let [rejected] = &batch.rejected[..] else { panic!("{:?}", batch.rejected) };
    assert_eq!((rejected.position.as_str(), rejected.error.code()), ("number 6", "HOSTILE_NUMBER"));
    assert!(matches!(source.poll(BUDGET).await.unwrap(), Poll::End));
    let end = source.upstream_end().await.unwrap().unwrap();
    assert!(source.has_passed(&batch.offsets, &end) && !source.has_passed(&SourceOffsets::default(), &end));
    source.commit(&batch.offsets).await.unwrap();
    assert_eq!(source.status(), "at 10");
    source.close().await.unwrap();
}

#[tokio::test]
async fn offsets_that_are_not_the_plugins_are_an_error() {
    let connector = hostile_source(json!({}), json!({}));
    let stored = SourceOffsets { partitions: [("a.jsonl".to_owned(), json!({"byte": 7}))].into() };
    let error = open(&*connector, stored).await.err().unwrap();
    assert_eq!((error.code(), error.kind()), ("PLUGIN_OFFSETS", ErrorKind::Terminal));
}

/// R11: an endless loop, a panic, a stack that overflows, and too much memory, in pieces and at once, in every function.
#[tokio::test]
async fn every_function_is_contained() {
    for (how, code) in crate::connectors::HARM {
        for at in ["check", "plan", "open", "poll", "commit", "upstream_end", "close"] {
            let connector = hostile_source(json!({}), json!({ "at": at, "how": how }));
            let error = match at {
                "check" => connector.check(&TaskContext::new("test", 0)).await.unwrap_err().remove(0),
                "plan" => plan_one(&*connector).await.unwrap_err(),
                "open" => open(&*connector, SourceOffsets::default()).await.err().unwrap(),
                _ => {
                    let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
                    let error = match at {
                        "poll" => source.poll(BUDGET).await.map(drop).unwrap_err(),
                        "commit" => source.commit(&SourceOffsets::default()).await.unwrap_err(),
                        "upstream_end" => source.upstream_end().await.map(drop).unwrap_err(),
                        _ => source.close().await.unwrap_err(),
                    };
                    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{at} {how}: {error}");
                    error
                }
            };
            assert_eq!(error.code(), code, "{at} {how}: {error}");
        }
    }
}

/// What a source returns that does not use the SDK is looked at byte by byte.
#[tokio::test]
async fn forged_batches_are_refused_and_named() {
    let factory = load(&FORGER_SOURCE, &json!({ "memory": 64 << 20 })).source.unwrap();
    let opened = async |how: &str| {
        let config = RawConfig::with_defaults(&factory.descriptor().options, json!({ "how": how })).unwrap();
        let connector = factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"));
        open(&*connector, SourceOffsets::default()).await.unwrap()
    };
    for (how, code, says) in [
        ("nothing", "PLUGIN_ANSWER", "shorter than its header"),
        ("letters", "PLUGIN_ANSWER", "TPB1"),
        ("short", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("long", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("many", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("entries", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("beyond", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("outside", "PLUGIN_ANSWER", "after outside the arena"),
        ("far", "PLUGIN_ANSWER", "after outside the arena"),
        ("before", "PLUGIN_ANSWER", "after outside the arena"),
        ("field", "PLUGIN_ANSWER", "bad after"),
        ("schema", "PLUGIN_ANSWER", "schema 4000"),
        ("operation", "PLUGIN_ANSWER", "operation 99"),
        ("partition", "PLUGIN_ANSWER", "partition -2147483648"),
        ("text", "PLUGIN_ANSWER", "bad after"),
        ("shared", "PLUGIN_ANSWER", "record 0"),
        // R10: 64 KiB that four thousand inputs share would be 256 MiB here.
        ("rejected", "PLUGIN_TRAP", "fuel"),
    ] {
        let error = opened(how).await.poll(BUDGET).await.map(drop).unwrap_err();
        assert_eq!(error.code(), code, "{how}: {error}");
        assert!(error.to_string().contains(says), "{how}: {error}");
    }
    let Poll::Batch(batch) = opened("honest").await.poll(BUDGET).await.unwrap() else { panic!("no batch") };
    assert_eq!(crate::support::told(&batch.batch), ["x"]);
}

/// R11: whatever one does, another one beside it goes on.
#[tokio::test(flavor = "current_thread")]
async fn neighbours_are_not_disturbed() {
    let neighbour = hostile_source(json!({ "time": 60_000 }), json!({ "count": 1_i64 << 40 }));
    let mut neighbour = open(&*neighbour, SourceOffsets::default()).await.unwrap();
    for (how, code) in crate::connectors::HARM {
        let connector = hostile_source(json!({}), json!({ "at": "poll", "how": how }));
        let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
        let harm = async { source.poll(BUDGET).await.map(drop).unwrap_err() };
        let (error, polled) = tokio::join!(harm, neighbour.poll(BUDGET));
        assert_eq!(error.code(), code, "{how}: {error}");
        assert!(matches!(polled.unwrap(), Poll::Batch(batch) if !batch.batch.is_empty()), "{how}");
    }
}

/// After a call that did not return, no other is made into what is left of the instance.
#[tokio::test]
async fn a_broken_instance_is_not_called_again() {
    let connector = hostile_source(json!({}), json!({ "at": "poll", "how": "panic" }));
    let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
    assert_eq!(source.poll(BUDGET).await.map(drop).unwrap_err().code(), "PLUGIN_TRAP");
    assert_eq!(source.poll(BUDGET).await.map(drop).unwrap_err().code(), "PLUGIN_GONE");
    source.close().await.unwrap();
    assert!(open(&*connector, SourceOffsets::default()).await.is_ok());
}

#[tokio::test]
async fn has_passed_is_answered_at_once_or_not_at_all() {
    let connector = hostile_source(json!({ "time": 60_000 }), json!({ "at": "has_passed", "how": "loop" }));
    let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
    let begun = Instant::now();
    assert!(
        !source
            .has_passed(&offsets("numbers", "10"), &Position { document: json!("1"), text: String::new() })
    );
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(source.poll(BUDGET).await.map(drop).unwrap_err().code(), "PLUGIN_TIMEOUT");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    for (how, says) in [
        ("schema", "schema 4000"),
        ("type", "do not fit"),
        ("topic", "topic"),
        ("position", "position of 2000 bytes"),
        ("reserved", "towpath:state:1:k"),
        ("nameless", "source partition ``"),
        ("large", "100007 bytes"),
        ("many", "10001 offsets"),
    ] {
        let connector = hostile_source(json!({}), json!({ "at": "forge", "how": how }));
        let mut source = open(&*connector, SourceOffsets::default()).await.unwrap();
        let error = source.poll(BUDGET).await.map(drop).unwrap_err();
        assert_eq!(error.code(), "PLUGIN_ANSWER", "{how}: {error}");
        assert!(error.to_string().contains(says), "{how}: {error}");
    }
    for how in ["no_tasks", "many_tasks"] {
        let connector = hostile_source(json!({}), json!({ "how": how }));
        assert_eq!(plan_one(&*connector).await.unwrap_err().code(), "PLUGIN_ANSWER", "{how}");
    }
}

/// A source that waits for long is not waited for when its task is to end.
#[tokio::test]
async fn waits_end_when_the_task_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let grants = json!({ "grants": { "tcp": [address] } });
    let connector = hostile_source(grants, json!({ "at": "poll", "how": "waits", "target": address }));
    let context = TaskContext::new("test", 0);
    let task = TaskSpec { index: 0, assignment: json!("") };
    let mut source = connector.open(task, SourceOffsets::default(), context.clone()).await.unwrap();
    let stop = context.stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    });
    let begun = Instant::now();
    // It goes on as long as it is let, and then its time is over, or its waits say nothing.
    let _ended = source.poll(BUDGET).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    source.commit(&SourceOffsets::default()).await.unwrap();
    source.close().await.unwrap();
}

/// What a source remembers is its own, and comes and goes with its offsets.
#[tokio::test]
async fn state_travels_with_the_offsets() {
    let options = || json!({ "at": "poll", "how": "state" });
    let error = finds(json!({}), options()).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("PLUGIN_GRANT", ErrorKind::NeedsOperator));
    assert!(error.hint().unwrap().contains("plugins.mine.grants.state: true"), "{error:?}");
    let connector = hostile_source(json!({ "grants": { "state": true } }), options());
    let mut stored = SourceOffsets::default();
    let others = [("towpath:state:1:k", "c2VjcmV0"), ("towpath:state:10:k", "c2VjcmV0")];
    stored.partitions.extend(others.map(|(name, value)| (name.to_owned(), json!(value))));
    for expected in ["None 0 [\"k\"]", "Some(\"x\") 0 [\"k\"]", "Some(\"xx\") 0 [\"k\"]"] {
        let mut source = open(&*connector, stored.clone()).await.unwrap();
        let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("no batch") };
        assert_eq!(crate::support::told(&batch.batch), [expected]);
        assert_eq!(batch.offsets.partitions.keys().collect::<Vec<_>>(), ["towpath:state:0:k"]);
        stored.merge(batch.offsets);
        // What is not stored has not been.
        let mut lost = open(&*connector, SourceOffsets::default()).await.unwrap();
        let Poll::Batch(batch) = lost.poll(BUDGET).await.unwrap() else { panic!("no batch") };
        assert_eq!(crate::support::told(&batch.batch), ["None 0 [\"k\"]"]);
    }
}
