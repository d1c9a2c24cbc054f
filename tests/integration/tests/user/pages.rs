//! /health, /ready, /metrics, /status, and the actions on pipelines.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use towpath_harness::process::Options;
use towpath_harness::{Postgres, Towpath, http, postgres};

use super::support::{LONG, ask, task, wait_state, wait_until};

const GENERATE: &str = "pipelines:\n  p:\n    source: { type: generate, records: 100 }\n    topic: t\n    sink: { type: file, path: ./out }\n";

/// Reads Prometheus' text format as strictly as it is specified; gives the samples.
fn samples(text: &str) -> HashMap<String, f64> {
    let (mut types, mut helps, mut found) = (HashMap::new(), HashSet::new(), HashMap::new());
    let mut families: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(helps.insert(help.split(' ').next().unwrap().to_owned()), "two HELPs: {line}");
            continue;
        }
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "two TYPEs: {line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = base.filter(|base| types.contains_key(*base)).unwrap_or(name);
        assert!(types.contains_key(family), "no TYPE before {line}");
        assert!(helps.contains(family), "no HELP before {line}");
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        if families.last().is_none_or(|last| last != family) {
            assert!(!families.iter().any(|known| known == family), "{family} is in two places");
            families.push(family.to_owned());
        }
        if types[family] == "counter" {
            assert!(name.ends_with("_total"), "{name}");
        }
        assert!(found.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {series}");
    }
    found
}

#[test]
fn metrics_are_prometheus_text_and_tell_of_everything() {
    let towpath = Towpath::start(Options::yaml(GENERATE)).unwrap();
    let delivered = |metrics: &HashMap<String, f64>| {
        metrics.get("towpath_task_records_total{pipeline=\"p\",direction=\"sink\",task=\"0\"}")
            == Some(&100.0)
    };
    let metrics =
        wait_until("all is delivered", || samples(&towpath.get("/metrics").unwrap().body), delivered);
    let value =
        |series: &str| *metrics.get(series).unwrap_or_else(|| panic!("{series}: {:?}", metrics.keys()));
    assert_eq!(value("towpath_partition_log_end_offset{topic=\"t\",partition=\"0\"}"), 100.0);
    assert_eq!(value("towpath_partition_high_watermark{topic=\"t\",partition=\"0\"}"), 100.0);
    assert_eq!(value("towpath_partition_log_start_offset{topic=\"t\",partition=\"0\"}"), 0.0);
    assert!(value("towpath_partition_size_bytes{topic=\"t\",partition=\"0\"}") > 100.0);
    assert!(
        value("towpath_broker_request_memory_limit_bytes") > value("towpath_broker_request_memory_bytes")
    );
    assert!(value("towpath_broker_connections") >= 1.0 && value("towpath_broker_records_in_total") >= 100.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 3.0);
    let states = metrics.iter().filter(|(series, value)| {
        series.starts_with("towpath_task_state{pipeline=\"p\",direction=\"source\"") && **value == 1.0
    });
    assert_eq!(states.count(), 1, "a task is in one state");
}

#[test]
fn status_says_what_runs_and_where() {
    let towpath = Towpath::start(Options::yaml(GENERATE)).unwrap();
    wait_until(
        "all is delivered",
        || task(&towpath, "p/sink/0"),
        |it| it["lag"] == 0 && it["records"] == 100,
    );
    let status = towpath.status().unwrap();
    let pipeline = &status["pipelines"][0];
    assert_eq!((&pipeline["topic"], &pipeline["topics"]), (&json!("t"), &json!(["t"])));
    assert_eq!(
        (&pipeline["dead_letter_topic"], &pipeline["dead_letters"]),
        (&json!("p.dead-letter"), &json!(0))
    );
    let source = wait_state(&towpath, "p/source/0", "COMPLETED");
    assert_eq!((&source["connector"], &source["records"]), (&json!("generate"), &json!(100)));
    assert_eq!(task(&towpath, "p/sink/0")["position"], "t-0 at 100");
    assert_eq!((&status["ready"], &status["cluster"]), (&json!(true), &json!(null)));
    for page in ["/health", "/ready"] {
        assert_eq!(towpath.get(page).unwrap().status, 200, "{page}");
    }
    let nowhere = towpath.get("/nowhere").unwrap();
    assert!(nowhere.status == 404 && nowhere.body.contains("/metrics"), "{nowhere:?}");
}

#[test]
fn pipelines_are_paused_resumed_restarted_and_reset() {
    let towpath = Towpath::start(Options::yaml(GENERATE)).unwrap();
    wait_until("all is delivered", || task(&towpath, "p/sink/0"), |it| it["records"] == 100);
    let done = |action: &str| ask(&towpath, &["pipelines", action, "p", "--json"]).json();
    wait_until("the lag is taken", || task(&towpath, "p/sink/0"), |it| it["lag"] == 0);
    ask(&towpath, &["pipelines", "list"]).says(0, &["p RUNNING 2 0"]);
    ask(&towpath, &["pipelines", "reset", "p"]).says(1, &["`p` is not paused", "towpath pipelines pause p"]);
    assert_eq!(done("pause"), json!({ "pipeline": "p", "done": "pause" }));
    wait_state(&towpath, "p/source/0", "PAUSED");
    wait_state(&towpath, "p/sink/0", "PAUSED");
    ask(&towpath, &["pipelines", "reset", "p"]).says(0, &["p has forgotten"]);
    done("resume");
    let again = |it: &serde_json::Value| it["records"] == 200;
    wait_until("all comes once more", || task(&towpath, "p/source/0"), again);
    done("restart");
    wait_state(&towpath, "p/source/0", "COMPLETED");
    assert_eq!(task(&towpath, "p/source/0")["records"], 200, "a restart begins nothing anew");
    // R8: after a restart nobody has looked yet.
    wait_until("the lag is taken again", || task(&towpath, "p/sink/0"), |it| it["lag"] == 0);
    ask(&towpath, &["pipelines", "status", "p"]).says(0, &["p/sink/0 RUNNING t-0 at 200 0 200"]);
    assert_eq!(ask(&towpath, &["pipelines", "status", "--json"]).json()[0]["name"], "p");
    for action in ["pause", "resume", "restart", "reset", "status"] {
        ask(&towpath, &["pipelines", action, "q"]).says(1, &["there is no pipeline `q`", "pipelines list"]);
    }
    let response = http::request(towpath.http_address(), "POST", "/pipelines/p/explode", None, LONG).unwrap();
    assert!(response.status == 404 && response.body.contains("restart"), "{response:?}");
}

/// R8.
#[test]
fn status_tells_the_truth_about_a_database_that_dies_and_comes_back() {
    let mut server = Postgres::start(&postgres::Options::logical()).unwrap();
    server.create_database("shop").unwrap();
    server.psql("shop", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
    let yaml = format!(
        "pipelines:\n  p:\n    source: {{ type: postgres_cdc, url: \"{}\", tables: [t] }}\n    topic: t\n",
        server.url("shop")
    );
    let mut towpath = Towpath::start(Options::yaml(yaml)).unwrap();
    let caught_up = |it: &serde_json::Value| it["state"] == "RUNNING" && it["lag"] == 0;
    wait_until("the row is there", || task(&towpath, "p/source/0"), |it| it["records"] == 1);
    wait_until("it is known that there is no more", || task(&towpath, "p/source/0"), caught_up);
    server.kill9().unwrap();
    let down = wait_state(&towpath, "p/source/0", "RETRYING");
    assert!(down["last_error"]["code"].as_str().unwrap().starts_with("PG_"), "{down}");
    let unreachable = |it: &serde_json::Value| it["last_error"]["code"] == "PG_UNREACHABLE";
    let down = wait_until("it says why", || task(&towpath, "p/source/0"), unreachable);
    assert!(down["last_error"]["hint"].is_string() && down["state"] != "RUNNING", "{down}");
    ask(&towpath, &["pipelines", "status"])
        .says(0, &["RETRYING", "PG_UNREACHABLE (", "s ago)", "check host and port"]);
    // It has run before: an outage keeps it from nothing, also across a start.
    assert!(towpath.terminate(LONG).unwrap().success());
    towpath.start_again().unwrap();
    wait_until("it says why again", || task(&towpath, "p/source/0"), unreachable);
    server.start_again().unwrap();
    server.psql("shop", "INSERT INTO t VALUES (2)").unwrap();
    ask(&towpath, &["pipelines", "restart", "p"]).says(0, &[]);
    wait_until(
        "it goes on",
        || task(&towpath, "p/source/0"),
        |it| it["records"] == 1 && it["state"] == "RUNNING",
    );
    ask(&towpath, &["pipelines", "status"]).says(0, &["RUNNING", "ago, overcome)"]);
}

/// R8.
#[test]
fn status_tells_the_truth_about_a_target_that_dies_and_comes_back() {
    let mut server = Postgres::start(&postgres::Options::replica()).unwrap();
    server.create_database("w").unwrap();
    let yaml = format!(
        "pipelines:\n  p:\n    source: {{ type: generate, rate: 100 }}\n    topic: t\n    \
         sink: {{ type: postgres, url: \"{}\", table: t, mode: append }}\n",
        server.url("w")
    );
    let mut towpath = Towpath::start(Options::yaml(yaml)).unwrap();
    wait_until("records arrive", || task(&towpath, "p/sink/0"), |it| it["records"].as_u64() > Some(0));
    server.kill9().unwrap();
    let down = wait_state(&towpath, "p/sink/0", "RETRYING");
    assert!(down["last_error"]["code"].as_str().unwrap().starts_with("PG_"), "{down}");
    let before = down["records"].as_u64();
    assert_eq!(task(&towpath, "p/source/0")["state"], "RUNNING", "the one does not hold up the other");
    ask(&towpath, &["pipelines", "list"]).says(0, &["p RETRYING"]);
    server.start_again().unwrap();
    wait_until(
        "it goes on",
        || task(&towpath, "p/sink/0"),
        |it| it["state"] == "RUNNING" && it["records"].as_u64() > before,
    );
    assert!(towpath.terminate(LONG).unwrap().success());
    let twice = "SELECT count(*) - count(DISTINCT id) FROM t";
    assert_eq!(server.psql("w", twice).unwrap(), "0", "nothing came twice");
}
