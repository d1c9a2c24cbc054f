//! What users get wrong: each mistake is told with its place and what to do, the exit code is not 0, and nothing has
//! been started.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::process::{Command, Output};

use towpath_harness::ports::free_port;
use towpath_harness::{Postgres, TempDir, postgres, process};

struct Ran {
    output: Output,
    folder: TempDir,
}

impl Ran {
    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
            + &String::from_utf8_lossy(&self.output.stdout)
    }

    /// Fails unless every text was said, and the exit code is `code`.
    fn says(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.output.status.code(), Some(code), "{}", self.errors());
        // Long lines are wrapped for people.
        let said = self.errors().split_whitespace().collect::<Vec<_>>().join(" ");
        for text in texts {
            assert!(said.contains(text), "`{text}` was not said:\n{}", self.errors());
        }
        self
    }
}

fn towpath(command: &str, yaml: &str, more: &[&str], env: &[(&str, &str)]) -> Ran {
    let folder = TempDir::new("mistake").unwrap();
    std::fs::write(folder.join("c.yaml"), yaml).unwrap();
    let mut towpath = Command::new(process::binary().unwrap());
    towpath.arg(command).arg("c.yaml").args(more).current_dir(folder.path()).envs(env.iter().copied());
    Ran { output: towpath.output().unwrap(), folder }
}

#[test]
fn a_wrong_file_is_told_at_once_and_nothing_starts() {
    let yaml = r#"node: { data_dir: ./data, kafka: 127.0.0.1:1, htpp: x }
pipelines:
  a:
    source: { type: postgress_cdc, url: "postgres://h/db", tables: [t] }
    topic: t
  b:
    source: { type: postgres_cdc, url: "postgres//h", tables: t }
    topic: t
  c:
    topics: [t]
    sink: { type: postgres, url: "${env:NOBODY_SETS_THIS}", tabel: x }
"#;
    let ran = towpath("up", yaml, &[], &[]);
    ran.says(
        2,
        &[
            "c.yaml:1:47",
            "unknown key `htpp`",
            "did you mean `http`?",
            "there is no source `postgress_cdc`",
            "did you mean `postgres_cdc`?",
            "c.yaml:7:40",
            "no URL of the right kind",
            "a list is needed here",
            "`NOBODY_SETS_THIS` is not set",
            "export NOBODY_SETS_THIS=",
            "unknown key `tabel`",
            "nothing was started",
        ],
    );
    assert!(!ran.folder.join("data").exists(), "nothing may have been started");
}

#[test]
fn a_name_that_stands_twice() {
    let pipeline = "    topics: [t]\n    sink: { type: file, path: ./out }\n";
    let yaml = format!("pipelines:\n  p:\n{pipeline}  p:\n{pipeline}");
    towpath("validate", &yaml, &[], &[]).says(2, &["c.yaml:5:3", "p"]);
}

#[test]
fn problems_for_machines() {
    let ran = towpath("validate", "pipelines: { p: { sink: { type: nope } } }\n", &["--json"], &[]);
    let problems: serde_json::Value = serde_json::from_slice(&ran.output.stderr).unwrap();
    let problems = problems["problems"].as_array().unwrap();
    assert!(
        problems.iter().all(|it| it["line"] == 1 && it["column"].is_number() && it["hint"].is_string()),
        "{problems:?}"
    );
    assert_eq!(ran.output.status.code(), Some(2));
}

fn capture(url: &str, tables: &str, more: &str) -> String {
    let (kafka, http) = (free_port().unwrap(), free_port().unwrap());
    format!(
        "node: {{ data_dir: ./data, kafka: \"127.0.0.1:{kafka}\", http: \"127.0.0.1:{http}\" }}\n\
         pipelines:\n  shop:\n    source: {{ type: postgres_cdc, url: \"{url}\", tables: [{tables}]{more} }}\n    topic: t\n"
    )
}

#[test]
fn an_unreachable_database() {
    let port = free_port().unwrap();
    let yaml = capture(&format!("postgres://me:geheim77@127.0.0.1:{port}/shop"), "public.t", "");
    let ran = towpath("check", &yaml, &[], &[]);
    ran.says(1, &["PG_UNREACHABLE"]);
    assert!(!ran.errors().contains("geheim77"), "R13: {}", ran.errors());
}

#[test]
fn what_a_database_lacks_is_told_with_what_to_type() {
    let server = Postgres::start(&postgres::Options::replica()).unwrap();
    server.create_database("shop").unwrap();
    server.psql("shop", "CREATE TABLE t (id int PRIMARY KEY)").unwrap();
    let yaml = capture(&server.url("shop"), "public.t", "");
    towpath("check", &yaml, &[], &[]).says(1, &["PG_WAL_LEVEL", "wal_level"]);
    towpath("up", &yaml, &["--until-idle"], &[]).says(1, &["PG_WAL_LEVEL"]);

    let server = Postgres::start(&postgres::Options::logical()).unwrap();
    server.create_database("shop").unwrap();
    server
        .psql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (n int); CREATE ROLE poor LOGIN",
        )
        .unwrap();
    let yaml = capture(&server.url_as("poor", "shop"), "public.t", "");
    towpath("check", &yaml, &[], &[]).says(1, &["PG_REPLICATION_PRIVILEGE", "ALTER ROLE"]);
    let yaml = capture(&server.url("shop"), "public.t, public.keyless, public.nowhere", "");
    let ran = towpath("check", &yaml, &[], &[]);
    ran.says(1, &["PG_NO_REPLICA_IDENTITY", "insert_only", "REPLICA IDENTITY FULL", "nowhere"]);
    towpath("up", &capture(&server.url("shop"), "public.keyless", ""), &["--until-idle"], &[])
        .says(1, &["PG_NO_REPLICA_IDENTITY"]);
    let slots = server.psql("shop", "SELECT count(*) FROM pg_replication_slots").unwrap();
    assert_eq!(slots.trim(), "0", "nothing may be left behind");
}
