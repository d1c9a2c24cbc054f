//! R11: whatever a plugin does ends that plugin's call, with an error that says what it did; the others go on.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use towpath_api::{Batch, ConnectorError, ErrorKind, Transform, Transformed};

use crate::support::{FORGER, HOSTILE, HOSTILE_C, HOSTILE_GO, config, hostile, load, texts, told};

fn split(transformed: Transformed) -> (Vec<String>, Vec<(String, ConnectorError)>) {
    let (rejected, errors) = transformed.rejected.into_parts();
    (told(&transformed.batch), told(&rejected).into_iter().zip(errors).collect())
}

async fn apply(transform: &mut dyn Transform, batch: Batch) -> (Vec<String>, Vec<(String, ConnectorError)>) {
    split(transform.apply(batch).await.unwrap())
}

/// The record that kills a plugin is found among others and goes to the dead letters; the others go on.
#[tokio::test]
async fn the_record_at_which_a_plugin_dies_is_found() {
    for (how, code, says) in [
        ("panic", "PLUGIN_TRAP", "on purpose"),
        ("stack", "PLUGIN_TRAP", "crashed: wasm trap"),
        ("hog", "PLUGIN_MEMORY", "16777216 bytes"),
        ("giant", "PLUGIN_MEMORY", "16777216 bytes"),
        ("loop", "PLUGIN_TIMEOUT", "300ms"),
        ("flood", "PLUGIN_TIMEOUT", "300ms"),
        ("random", "PLUGIN_TRAP", "1048576 random bytes"),
        ("schema", "PLUGIN_ANSWER", "schema 4000"),
        ("topic", "PLUGIN_ANSWER", "topic"),
        ("type", "PLUGIN_ANSWER", "do not fit"),
        ("twice", "PLUGIN_ANSWER", "more records"),
        ("both", "PLUGIN_ANSWER", "rejected"),
    ] {
        let mut transform = hostile(json!({}));
        let (passed, rejected) = apply(&mut *transform, texts(&["a", "b", "c", how, "d"])).await;
        assert_eq!(passed, ["a", "b", "c", "d"], "{how}");
        let [(text, error)] = &rejected[..] else { panic!("{how}: {rejected:?}") };
        assert_eq!((text.as_str(), error.code()), (how, code), "{error}");
        assert!(error.to_string().contains(says), "{how}: {error}");
        let (passed, _) = apply(&mut *transform, texts(&["e"])).await;
        assert_eq!(passed, ["e"], "it goes on after {how}");
    }
}

/// The same in C, opened with these options.
fn hostile_c(options: Json) -> Box<dyn Transform> {
    let factory = load(&HOSTILE_C, &json!({ "time": 300, "memory": 16 << 20 })).unwrap();
    factory.parse(&config(&*factory, options)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The same in Go.
fn hostile_go(options: Json) -> Box<dyn Transform> {
    let factory = load(&HOSTILE_GO, &json!({ "time": 500, "memory": 16 << 20 })).unwrap();
    factory.parse(&config(&*factory, options)).unwrap_or_else(|problems| panic!("{problems}"))
}

#[tokio::test]
async fn a_plugin_in_c_dies_alone() {
    for (how, code, says) in [
        ("panic", "PLUGIN_TRAP", "on purpose"),
        ("abort", "PLUGIN_TRAP", "crashed: wasm trap"),
        ("stack", "PLUGIN_TRAP", "crashed: wasm trap"),
        ("hog", "PLUGIN_MEMORY", "16777216 bytes"),
        ("loop", "PLUGIN_TIMEOUT", "300ms"),
        ("type", "PLUGIN_TRAP", "takes no int, but text"),
        ("twice", "PLUGIN_TRAP", "a record goes on once"),
        ("utf-8", "PLUGIN_ANSWER", "do not fit"),
        ("cut", "HOSTILE_RECORD", "a?ü???"),
    ] {
        let mut transform = hostile_c(json!({ "number": 1 }));
        let (passed, rejected) = apply(&mut *transform, texts(&["a", "b", "c", how, "d"])).await;
        assert_eq!(passed, ["a", "b", "c", "d"], "{how}");
        let [(text, error)] = &rejected[..] else { panic!("{how}: {rejected:?}") };
        assert_eq!((text.as_str(), error.code()), (how, code), "{error}");
        assert!(error.to_string().contains(says), "{how}: {error}");
        let (passed, _) = apply(&mut *transform, texts(&["e"])).await;
        assert_eq!(passed, ["e"], "it goes on after {how}");
    }
}

#[tokio::test]
async fn a_plugin_in_c_knows_its_options_and_the_world() {
    let options = json!({
        "number": -5, "flag": true, "list": ["a", "b"], "map": { "k": [1] }, "url": "http://example.org/", "wait": 1500,
    });
    let mut transform = hostile_c(options);
    let (passed, _) = apply(&mut *transform, texts(&["options", "world", "calls", "calls"])).await;
    assert_eq!(passed, [r#"x -5 1 2 b {"k":[1]} http://example.org/ 1500"#, "right", "1", "2"]);
    let (passed, _) = apply(&mut *transform, texts(&["calls"])).await;
    assert_eq!(passed, ["3"]);
    let error = transform.apply(texts(&["a", "terminal"])).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("HOSTILE_END", ErrorKind::Terminal));
    assert_eq!(error.message(), "no more of 2");
    let opened = |how: &'static str| async move {
        hostile_c(json!({ "number": 1, "at_open": how })).apply(texts(&["a"])).await.unwrap_err()
    };
    assert_eq!(opened("operator").await.kind(), ErrorKind::NeedsOperator);
    assert_eq!(opened("retry").await.kind(), ErrorKind::RetryAfter(Duration::from_secs(7)));
    let spec = load(&HOSTILE_C, &json!({})).unwrap().descriptor().options.options.clone();
    let spec: Vec<_> = spec.iter().map(|it| serde_json::to_value(it).unwrap()).collect();
    assert_eq!(spec.len(), 10);
    assert_eq!(
        (&spec[1]["required"], &spec[8]["secret"], &spec[0]["default"]),
        (&json!(true), &json!(true), &json!("x"))
    );
    let types = json!(spec.iter().map(|it| &it["type"]).collect::<Vec<_>>()).to_string();
    for part in ["-5", "https", "\"a\"", "B."] {
        assert!(types.contains(part), "{part}: {types}");
    }
}

#[tokio::test]
async fn a_plugin_in_go_dies_alone() {
    for (how, code, says) in [
        ("panic", "PLUGIN_TRAP", "it said: panic: on purpose"),
        ("nil", "PLUGIN_TRAP", "assignment to entry in nil map"),
        ("index", "PLUGIN_TRAP", "index out of range"),
        ("exit", "PLUGIN_TRAP", "crashed: wasm trap"),
        ("stack", "PLUGIN_TRAP", "stack overflow"),
        ("stderr", "PLUGIN_TRAP", "it said: panic: 1 ? 2 ü€𝄞 3 ??? 4 ?? 5 ?x 6 ???? 7 ? [PLUGIN_TRAP]"),
        ("long", "PLUGIN_TRAP", "it said: panic: €€€"),
        ("deadlock", "PLUGIN_TRAP", "all goroutines are asleep"),
        ("elsewhere", "PLUGIN_TRAP", "in another goroutine"),
        ("hog", "PLUGIN_MEMORY", "16777216 bytes"),
        ("loop", "PLUGIN_TIMEOUT", "500ms"),
        ("sleep", "PLUGIN_TIMEOUT", "500ms"),
        ("type", "PLUGIN_TRAP", "takes no int, but text"),
        ("twice", "PLUGIN_TRAP", "a record goes on once"),
        ("utf-8", "PLUGIN_ANSWER", "do not fit"),
        ("cut", "HOSTILE_RECORD", "a?ü"),
    ] {
        let mut transform = hostile_go(json!({ "number": 1 }));
        let (passed, rejected) = apply(&mut *transform, texts(&["a", "b", "c", how, "d"])).await;
        assert_eq!(passed, ["a", "b", "c", "d"], "{how}");
        let [(text, error)] = &rejected[..] else { panic!("{how}: {rejected:?}") };
        assert_eq!((text.as_str(), error.code()), (how, code), "{error}");
        assert!(error.to_string().contains(says), "{how}: {error}");
        let (passed, _) = apply(&mut *transform, texts(&["e"])).await;
        assert_eq!(passed, ["e"], "it goes on after {how}");
    }
}

#[tokio::test]
async fn a_plugin_in_go_knows_its_options_and_the_world() {
    let options = json!({
        "number": -5, "flag": true, "list": ["a", "b"], "map": { "k": [1] }, "url": "http://example.org/", "wait": 1500,
    });
    let mut transform = hostile_go(options);
    let (passed, _) = apply(&mut *transform, texts(&["options", "world", "calls", "calls"])).await;
    assert_eq!(passed, [r#"x -5 true [a b] {"k":[1]} http://example.org/ 1.5s"#, "right", "1", "2"]);
    let (passed, _) = apply(&mut *transform, texts(&["calls"])).await;
    assert_eq!(passed, ["3"]);
    let error = transform.apply(texts(&["a", "terminal"])).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("HOSTILE_END", ErrorKind::Terminal));
    assert_eq!(error.message(), "no more of 2");
    let opened = |how: &'static str| async move {
        hostile_go(json!({ "number": 1, "at_open": how })).apply(texts(&["a"])).await.unwrap_err()
    };
    assert_eq!(opened("operator").await.kind(), ErrorKind::NeedsOperator);
    let later = opened("retry").await;
    assert_eq!(later.kind(), ErrorKind::RetryAfter(Duration::from_secs(7)));
    assert_eq!(later.message(), "around: later");
    let plain = opened("plain").await;
    assert_eq!((plain.code(), plain.kind()), ("PLUGIN_ERROR", ErrorKind::RetryAfter(Duration::from_secs(1))));
    let spec = load(&HOSTILE_GO, &json!({})).unwrap().descriptor().options.options.clone();
    let in_c = load(&HOSTILE_C, &json!({})).unwrap().descriptor().options.options.clone();
    assert_eq!(serde_json::to_value(spec).unwrap(), serde_json::to_value(in_c).unwrap());
}

/// What a plugin has begun goes on in its calls, and calls nobody in between, when the host has memory allocated.
#[tokio::test]
async fn goroutines_of_a_plugin_in_go_live_on_between_its_calls() {
    let mut transform = hostile_go(json!({ "number": 1 }));
    assert_eq!(apply(&mut *transform, texts(&["background"])).await.0, ["begun"]);
    let mut done = 0;
    for round in 1..=50 {
        // Schemas are asked for in the midst of it.
        let (passed, rejected) = apply(&mut *transform, texts(&["work", "done"])).await;
        assert!(passed.len() == 2 && passed[0] == "given" && rejected.is_empty(), "{passed:?} {rejected:?}");
        let now = passed[1].parse().unwrap();
        assert!(done <= now && now <= round * 400, "{now}");
        done = now;
    }
    assert!(done > 400, "{done}");
}

#[tokio::test]
async fn what_a_plugin_says_of_records_counts() {
    let mut transform = hostile(json!({"token": "hunter2-hunter2"}));
    let (passed, rejected) = apply(&mut *transform, texts(&["a", "reject", "drop", "define"])).await;
    assert_eq!(passed, ["a", "Int(7)"]);
    let [(text, error)] = &rejected[..] else { panic!("{rejected:?}") };
    assert_eq!((text.as_str(), error.code()), ("reject", "HOSTILE_RECORD"));
    // R13
    assert_eq!(error.message(), "not this one ***");
    let error = transform.apply(texts(&["a", "terminal"])).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("HOSTILE_END", ErrorKind::Terminal));
    assert_eq!(error.message(), "no more ***");
}

#[tokio::test]
async fn errors_at_the_opening_keep_their_kinds() {
    let opened =
        |how: &'static str| async move { hostile(json!({"at_open": how})).apply(texts(&["a"])).await };
    let error = opened("operator").await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("HOSTILE_OPEN", ErrorKind::NeedsOperator));
    let error = opened("retry").await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("PLUGIN_ERROR", ErrorKind::RetryAfter(Duration::from_secs(7))));
    let error = opened("loop").await.unwrap_err();
    assert_eq!(error.code(), "PLUGIN_TIMEOUT");
}

#[test]
fn a_plugin_that_hangs_while_its_options_are_checked_is_told() {
    let factory = load(&HOSTILE, &json!({ "time": 200 })).unwrap();
    let parse = |how: &str| factory.parse(&config(&*factory, json!({ "at_check": how }))).err().unwrap();
    assert!(parse("loop").to_string().contains("longer than 200ms"));
    assert!(parse("panic").to_string().contains("on purpose"));
    assert_eq!(parse("problem").problems[0].path, "at_check");
}

/// What a plugin returns that does not use the SDK is looked at byte by byte.
#[tokio::test]
async fn forged_answers_are_refused_and_named() {
    let factory = load(&FORGER, &json!({ "memory": 64 << 20 })).unwrap();
    for (how, code, says) in [
        ("nothing", "PLUGIN_ANSWER", "shorter than its header"),
        ("letters", "PLUGIN_ANSWER", "TPB1"),
        ("short", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("long", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("many", "PLUGIN_ANSWER", "more records than came in"),
        ("entries", "PLUGIN_ANSWER", "entries at a wrong place"),
        ("outside", "PLUGIN_ANSWER", "after outside the arena"),
        ("far", "PLUGIN_ANSWER", "after outside the arena"),
        ("header", "PLUGIN_ANSWER", "headers outside the arena"),
        ("shared", "PLUGIN_ANSWER", "record 0"),
        ("origin", "PLUGIN_ANSWER", "origin 1"),
        ("index", "PLUGIN_ANSWER", "record 4294967295 is rejected"),
        // R10: 64 KiB that four thousand texts share would be 256 MiB here.
        ("rejections", "PLUGIN_TRAP", "fuel"),
        ("schemas", "FORGED", "31 schemas"),
    ] {
        let options = config(&*factory, json!({ "how": how }));
        let mut transform = factory.parse(&options).unwrap();
        let (passed, rejected) = apply(&mut *transform, texts(&["a"])).await;
        assert!(passed.is_empty(), "{how}: {passed:?}");
        let [(text, error)] = &rejected[..] else { panic!("{how}: {rejected:?}") };
        assert_eq!((text.as_str(), error.code()), ("a", code), "{how}: {error}");
        assert!(error.to_string().contains(says), "{how}: {error}");
    }
    let mut honest = factory.parse(&config(&*factory, json!({ "how": "echo" }))).unwrap();
    assert_eq!(apply(&mut *honest, texts(&["a", "b"])).await.0, ["a", "b"]);
    let problems = factory.parse(&config(&*factory, json!({ "how": "problems" }))).err().unwrap();
    assert_eq!(problems.problems.len(), 100);
}

/// A call that is left in its middle, as at the end of a task, leaves nothing that could be called again.
#[tokio::test(flavor = "current_thread")]
async fn a_call_that_is_abandoned_does_no_harm() {
    let mut transform = hostile(json!({}));
    assert_eq!(apply(&mut *transform, texts(&["calls"])).await.0, ["1"]);
    let abandoned = tokio::time::timeout(Duration::from_millis(50), transform.apply(texts(&["loop"]))).await;
    assert!(abandoned.is_err());
    assert_eq!(apply(&mut *transform, texts(&["calls"])).await.0, ["1"], "it is a new instance");
}

/// An endless loop does not keep others from the thread that runs it.
#[tokio::test(flavor = "current_thread")]
async fn a_busy_plugin_lets_others_run() {
    let busy = tokio::spawn(async { split(hostile(json!({})).apply(texts(&["loop"])).await.unwrap()) });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let mut turns = 0;
    while !busy.is_finished() && begun.elapsed() < Duration::from_secs(20) {
        tokio::task::yield_now().await;
        turns += 1;
    }
    assert!(turns > 2, "{turns} turns");
    assert_eq!(busy.await.unwrap().1[0].1.code(), "PLUGIN_TIMEOUT");
}

/// Each task has an instance of its own, with a memory of its own.
#[tokio::test]
async fn tasks_share_nothing() {
    let (mut one, mut two) = (hostile(json!({})), hostile(json!({})));
    for expected in ["1", "2", "3"] {
        assert_eq!(apply(&mut *one, texts(&["calls"])).await.0, [expected]);
    }
    assert_eq!(apply(&mut *two, texts(&["calls"])).await.0, ["1"]);
}

#[tokio::test]
async fn chatter_is_bounded() {
    let mut transform = hostile(json!({}));
    let (passed, _) = apply(&mut *transform, texts(&["chatter"])).await;
    assert_eq!(passed, ["chatter"]);
}

/// Where every record kills the plugin, the task ends instead of trying for ever.
#[tokio::test]
async fn too_many_deaths_end_the_task() {
    let error = hostile(json!({})).apply(texts(&["panic"; 200])).await.unwrap_err();
    assert_eq!(error.code(), "PLUGIN_TRAP");
}
