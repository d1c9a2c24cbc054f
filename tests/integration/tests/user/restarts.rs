//! `up` again with another configuration: what was there goes on, what is new begins, and nothing does so silently (R7).

use serde_json::json;
use towpath_harness::process::Options;
use towpath_harness::{Postgres, Towpath, postgres};

use super::support::{LONG, ask, task, wait_state, wait_until};

/// A database with two tables, and a capture that can be started with other settings.
struct Shop {
    server: Postgres,
    towpath: Towpath,
}

impl Shop {
    fn new() -> Self {
        let server = Postgres::start(&postgres::Options::logical()).unwrap();
        server.create_database("shop").unwrap();
        let sql = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); \
                   INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1), (2), (3)";
        server.psql("shop", sql).unwrap();
        Self { server, towpath: Towpath::prepare(Options::broker().arg("--until-idle")).unwrap() }
    }

    fn write(&mut self, pipeline: &str, database: &str, tables: &str, topic: &str) {
        let url = self.server.url(database);
        let yaml = format!(
            "pipelines:\n  {pipeline}:\n    source: {{ type: postgres_cdc, url: \"{url}\", tables: [{tables}] }}\n    \
             topic: \"{topic}\"\n"
        );
        self.towpath.set_yaml(yaml).unwrap();
    }

    /// Runs until all is delivered; the exit code.
    fn run(&mut self) -> i32 {
        self.towpath.spawn().unwrap();
        self.towpath.wait(LONG).unwrap().code().unwrap()
    }

    /// Records of each topic, as a broker without pipelines tells.
    fn topics(&mut self) -> Vec<(String, i64)> {
        self.towpath.set_yaml("").unwrap();
        self.towpath.set_arguments(&[]);
        self.towpath.start_again().unwrap();
        let listed = ask(&self.towpath, &["topics", "list", "--json"]).json();
        let names: Vec<_> =
            listed.as_array().unwrap().iter().map(|it| it["topic"].as_str().unwrap()).collect();
        let mut line = vec!["topics", "describe", "--json"];
        line.extend(&names);
        let described = ask(&self.towpath, &line).json();
        assert!(self.towpath.terminate(LONG).unwrap().success());
        self.towpath.set_arguments(&["--until-idle"]);
        let count = |it: &serde_json::Value| {
            (it["topic"].as_str().unwrap().to_owned(), it["end_offset"].as_i64().unwrap())
        };
        described.as_array().unwrap().iter().map(count).collect()
    }
}

#[test]
fn what_is_added_begins_and_what_was_there_goes_on() {
    let mut shop = Shop::new();
    shop.write("shop", "shop", "a", "shop.{table}");
    assert_eq!(shop.run(), 0, "{}", shop.towpath.log_tail());
    shop.server.psql("shop", "INSERT INTO a VALUES (3); INSERT INTO b VALUES (4)").unwrap();
    shop.write("shop", "shop", "a, b", "shop.{table}");
    assert_eq!(shop.run(), 0, "{}", shop.towpath.log_tail());
    assert_eq!(
        shop.topics(),
        [("shop.a".into(), 3), ("shop.b".into(), 4)],
        "b as it is, and a only what is new"
    );
    // Another topic takes what comes from now on, and the old one stays.
    shop.server.psql("shop", "INSERT INTO a VALUES (5)").unwrap();
    shop.write("shop", "shop", "a, b", "new.{table}");
    assert_eq!(shop.run(), 0, "{}", shop.towpath.log_tail());
    assert_eq!(shop.topics(), [("new.a".into(), 1), ("shop.a".into(), 3), ("shop.b".into(), 4)]);
}

#[test]
fn what_was_paused_stays_so_until_it_is_resumed() {
    let yaml = "pipelines:\n  numbers:\n    source: { type: generate, rate: 50 }\n    topic: numbers\n";
    let mut towpath = Towpath::start(Options::yaml(yaml)).unwrap();
    wait_state(&towpath, "numbers/source/0", "RUNNING");
    ask(&towpath, &["pipelines", "pause", "numbers"]).says(0, &[]);
    wait_state(&towpath, "numbers/source/0", "PAUSED");
    towpath.kill9().unwrap();
    towpath.set_arguments(&["--until-idle"]);
    towpath.spawn().unwrap();
    assert_eq!(towpath.wait(LONG).unwrap().code(), Some(1), "it could wait for ever");
    assert!(towpath.log_tail().contains("pipelines resume numbers"), "{}", towpath.log_tail());
    towpath.set_arguments(&[]);
    towpath.start_again().unwrap();
    wait_state(&towpath, "numbers/source/0", "PAUSED");
    ask(&towpath, &["pipelines", "resume", "numbers"]).says(0, &[]);
    wait_state(&towpath, "numbers/source/0", "RUNNING");
    towpath.kill9().unwrap();
    towpath.start_again().unwrap();
    wait_state(&towpath, "numbers/source/0", "RUNNING");
}

#[test]
fn a_pipeline_with_another_name_begins_anew_and_that_is_said() {
    let mut shop = Shop::new();
    shop.write("shop", "shop", "a", "shop.{table}");
    assert_eq!(shop.run(), 0, "{}", shop.towpath.log_tail());
    shop.write("store", "shop", "a", "shop.{table}");
    assert_eq!(shop.run(), 0, "{}", shop.towpath.log_tail());
    let said = shop.towpath.stderr();
    assert!(said.contains("the pipeline `shop` has run here and is not in the files any more"), "{said}");
    assert!(said.contains("begins anew"), "{said}");
    assert_eq!(shop.topics(), [("shop.a".into(), 4)]);
}

#[test]
fn another_database_or_a_lost_slot_stops_the_pipeline_and_reset_begins_anew() {
    let mut shop = Shop::new();
    shop.write("shop", "shop", "a", "shop.{table}");
    assert_eq!(shop.run(), 0, "{}", shop.towpath.log_tail());
    shop.server.create_database("other").unwrap();
    shop.server.psql("other", "CREATE TABLE a (id int PRIMARY KEY)").unwrap();
    shop.write("shop", "other", "a", "shop.{table}");
    assert_eq!(shop.run(), 1);
    assert!(shop.towpath.stderr().contains("PG_OTHER_DATABASE"), "{}", shop.towpath.log_tail());
    // The slot is dropped behind our back.
    shop.server.psql("shop", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    shop.write("shop", "shop", "a", "shop.{table}");
    assert_eq!(shop.run(), 1);
    let said = shop.towpath.stderr();
    // Where in the files, why, and what to do.
    assert!(
        said.contains("PG_SLOT_MISSING") && said.contains("towpath.yaml:") && said.contains("help:"),
        "{said}"
    );
    // A user who wants it begins anew.
    shop.towpath.set_arguments(&[]);
    shop.towpath.start_again().unwrap();
    wait_state(&shop.towpath, "shop/source/0", "FAILED");
    ask(&shop.towpath, &["pipelines", "reset", "shop"]).says(1, &["is not paused"]);
    ask(&shop.towpath, &["pipelines", "pause", "shop"]).says(0, &["shop is paused"]);
    wait_state(&shop.towpath, "shop/source/0", "PAUSED");
    ask(&shop.towpath, &["pipelines", "reset", "shop"]).says(0, &[]);
    ask(&shop.towpath, &["pipelines", "resume", "shop"]).says(0, &[]);
    wait_until("the table is copied anew", || task(&shop.towpath, "shop/source/0"), |it| it["records"] == 2);
    let status = shop.towpath.status().unwrap();
    assert_eq!(status["pipelines"][0]["topics"], json!(null), "nothing reads it here");
}

#[test]
fn a_failed_task_ends_until_idle_with_its_place_in_the_files() {
    let mut shop = Shop::new();
    shop.write("shop", "shop", "a", "shop.{table}");
    shop.server
        .psql("shop", "SELECT pg_create_logical_replication_slot('towpath_shop', 'pgoutput')")
        .unwrap();
    assert_eq!(shop.run(), 1);
    let said = shop.towpath.stderr();
    assert!(
        said.contains("task shop/source/0 failed") && said.contains("pg_drop_replication_slot"),
        "{said}"
    );
    assert!(said.contains("towpath.yaml:"), "{said}");
    assert!(shop.towpath.stdout().contains("FAILED"), "{}", shop.towpath.stdout());
}
