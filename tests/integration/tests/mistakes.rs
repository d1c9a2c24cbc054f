//! What users get wrong: each mistake is told with its place and what to do, the exit code is not 0, and nothing has
//! been started.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::process::Output;
use std::time::{Duration, Instant};

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
        let frame = |word: &&str| !matches!(*word, "│" | "·");
        let said = self.errors().split_whitespace().filter(frame).collect::<Vec<_>>().join(" ");
        for text in texts {
            assert!(said.contains(text), "`{text}` was not said:\n{}", self.errors());
        }
        self
    }
}

fn towpath(command: &str, yaml: &str, more: &[&str], env: &[(&str, &str)]) -> Ran {
    let folder = TempDir::new("mistake").unwrap();
    std::fs::write(folder.join("c.yaml"), yaml).unwrap();
    let mut towpath = process::command().unwrap();
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
fn a_setting_of_the_broker_that_is_none() {
    let yaml = "node:\n  settings: { num.partitoins: 3, group.max.size: many }\n";
    towpath("validate", yaml, &[], &[]).says(
        2,
        &["c.yaml:2:15", "unknown key `num.partitoins`", "did you mean `num.partitions`?", "c.yaml:2:50"],
    );
    let yaml = "node: { kafka: 127.0.0.1:0, http: 127.0.0.1:0, settings: { log.cleanup.policy: burn } }\n";
    let ran = towpath("up", yaml, &[], &[]);
    ran.says(2, &["c.yaml:1:80", "log.cleanup.policy", "burn", "nothing was started"]);
    assert!(!ran.folder.join("towpath-data").exists(), "nothing may have been started");
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
    for (command, more) in [("check", &[][..]), ("up", &[]), ("up", &["--until-idle"])] {
        let ran = towpath(command, &yaml, more, &[]);
        ran.says(1, &["PG_UNREACHABLE", "c.yaml:4:40", "refused", "check host and port of the URL"]);
        assert!(!ran.errors().contains("geheim77"), "R13: {}", ran.errors());
        assert!(!ran.folder.join("data").exists(), "nothing may have been started");
    }
    let located = towpath("check", &yaml, &["--json"], &[]);
    let found: serde_json::Value = serde_json::from_slice(&located.output.stdout).unwrap();
    assert_eq!(
        (&found[0]["errors"][0]["line"], &found[0]["errors"][0]["code"]),
        (&4.into(), &"PG_UNREACHABLE".into())
    );
}

/// What has never run is checked; `--no-check` starts it all the same, and it waits.
#[test]
fn a_database_that_is_not_there_yet_can_be_waited_for() {
    let yaml = capture(&format!("postgres://me@127.0.0.1:{}/shop", free_port().unwrap()), "public.t", "");
    let folder = TempDir::new("mistake").unwrap();
    std::fs::write(folder.join("c.yaml"), yaml).unwrap();
    let mut command = process::command().unwrap();
    command.args(["up", "c.yaml", "--no-check"]).current_dir(folder.path());
    let log = folder.join("log");
    let mut up = towpath_harness::Guarded::spawn("up", command, &log, &log).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !up.stderr().contains("PG_UNREACHABLE") {
        assert!(up.is_running().unwrap() && Instant::now() < deadline, "{}", up.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(up.terminate(Duration::from_secs(30)).unwrap().success(), "{}", up.log_tail());
}

#[test]
fn files_that_are_no_configuration() {
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{text}a{level}: &a{level} [{below}]\n")
    });
    let sink = |url: &str| {
        format!("pipelines:\n  p:\n    topics: [t]\n    sink: {{ type: postgres, url: \"{url}\" }}\n")
    };
    for (yaml, texts) in [
        ("node: [\n", &["c.yaml:1:", "not valid YAML"][..]),
        ("node:\n\thttp: x\n", &["c.yaml:2:2", "replace the tab by spaces"]),
        ("just text", &["c.yaml:1:1", "a map of options is needed here"]),
        ("node: {}\n---\nnode: {}\n", &["c.yaml:3:1", "one document", "of its own"]),
        (bomb.as_str(), &["grows beyond every measure"]),
        (&"[".repeat(100_000), &["c.yaml:1:", "too deep"]),
        (&sink("${env:NOPE}"), &["c.yaml:4:34", "`NOPE` is not set", "export NOPE=", "1 problem in"]),
        (&sink("${env:NOPE"), &["c.yaml:4:34", "a `${` without its `}`", "1 problem in"]),
        (&sink("${file:/no/such/file}"), &["c.yaml:4:34", "/no/such/file cannot be read", "1 problem in"]),
        (&sink("${vault:x}"), &["c.yaml:4:34", "no reference that Towpath knows", "1 problem in"]),
        (
            &sink("postgres://h/db\", table: \"{topic.9}"),
            &["c.yaml:4:", "`{topic.9}` does not exist", "`{topic.0}`"],
        ),
        (
            "cluster: { bootstrap_servers: [\"h:1\"] }\nnode: { kafka: \"127.0.0.1:1\" }\n",
            &["c.yaml:2:9", "`kafka`", "remove"],
        ),
        (
            "cluster: { name: eu, controllers: [\"1@h:1\", \"2@h\"], bootstrap_servers: [\"h:1\"] }\n",
            &["c.yaml:1:", "names someone else's cluster", "remove one of them"],
        ),
        (
            "node: { id: 4, kafka: \"h:1\" }\ncluster: { name: eu, controllers: [\"1@h:9093\"] }\n",
            &["c.yaml:1:13", "this node is 4", "the controllers are 1@h:9093", "roles: [broker]"],
        ),
        (
            "node: { kafka: \"127.0.0.1:9999\", http: \"127.0.0.1:9999\" }\n",
            &["c.yaml:1:", "are both 127.0.0.1:9999"],
        ),
    ] {
        let ran = towpath("up", yaml, &[], &[]);
        ran.says(2, texts).says(2, &["nothing was started"]);
        assert!(ran.errors().len() < 4_000, "a long line is not shown whole");
        assert!(!ran.folder.join("towpath-data").exists(), "nothing may have been started");
    }
}

#[test]
fn paths_that_are_no_configuration() {
    let ran = towpath("validate", "", &["nowhere.yaml"], &[]);
    ran.says(2, &["nowhere.yaml cannot be read", "name a YAML file"]);
    let folder = TempDir::new("mistake").unwrap();
    std::fs::create_dir(folder.join("below")).unwrap();
    std::fs::write(folder.join("latin1.yaml"), b"node:\n  message: gr\xfc\xdfe\n").unwrap();
    let validate = |path: &str| {
        let mut towpath = process::command().unwrap();
        towpath.args(["validate", path]).current_dir(folder.path());
        let output = towpath.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = validate("latin1.yaml");
    assert!(
        code == Some(2) && said.contains("latin1.yaml:2:14") && said.contains("save it as UTF-8"),
        "{said}"
    );
    let (code, said) = validate("below");
    assert!(code == Some(2) && said.contains("holds no .yaml or .yml file"), "{said}");
    let ran = towpath("validate", "# nothing\n", &[], &[]);
    ran.says(0, &["no pipelines: `towpath up` starts just a broker"]);
}

#[test]
fn a_topic_that_nobody_writes_to_is_a_warning() {
    let yaml = "pipelines:\n  s: { source: { type: generate }, topic: shop.orders }\n  \
                k: { topics: [shop.oders], sink: { type: file, path: ./out } }\n";
    towpath("validate", yaml, &[], &[]).says(
        0,
        &["c.yaml:3:17", "no pipeline in these files writes to `shop.oders`", "did you mean `shop.orders`?"],
    );
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
    let ran = towpath("up", &capture(&server.url_as("poor", "shop"), "public.t", ""), &[], &[]);
    ran.says(1, &["PG_REPLICATION_PRIVILEGE", "c.yaml:4:", "ALTER ROLE", "nothing was started"]);
    assert!(!ran.folder.join("data").exists(), "nothing may have been started");
    let slots = server.psql("shop", "SELECT count(*) FROM pg_replication_slots").unwrap();
    assert_eq!(slots.trim(), "0", "nothing may be left behind");
}
