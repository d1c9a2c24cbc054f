//! What `check` says when something is missing.

use serde_json::json;
use towpath_api::{ConnectorError, ErrorKind};

use super::support::{Runner, database, server};

async fn problems(run: &Runner) -> Vec<ConnectorError> {
    run.connector.check(&run.context).await.expect_err("problems")
}

fn find<'a>(problems: &'a [ConnectorError], code: &str, text: &str) -> &'a ConnectorError {
    let found = problems.iter().find(|problem| problem.code() == code && problem.message().contains(text));
    found.unwrap_or_else(|| panic!("no {code} about {text} in {problems:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_missing_is_told_at_once_with_what_to_type() {
    let db = database(
        "missing",
        "CREATE ROLE weak LOGIN; CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE nokey (n int); \
         CREATE VIEW seen AS SELECT 1 AS n; CREATE SCHEMA shut; CREATE TABLE shut.t (id int PRIMARY KEY); \
         CREATE TABLE defer (id int, PRIMARY KEY (id) DEFERRABLE); \
         CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING; \
         CREATE TABLE indexed (id int NOT NULL UNIQUE); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_id_key; \
         GRANT SELECT ON good, indexed TO weak",
    );
    let options = json!({
        "tables": ["good", "indexed", "nokey", "defer", "nothing", "seen", "Nope", "shut.*", "none.*"],
        "insert_only": ["other"],
    });
    let run = Runner::with_url(&server().url_as("weak:hidden", &db.name), "missing", options);
    let found = problems(&run).await;
    let privilege = find(&found, "PG_REPLICATION_PRIVILEGE", "weak");
    assert_eq!(privilege.hint(), Some("ALTER ROLE \"weak\" WITH REPLICATION;"));
    assert_eq!(privilege.kind(), ErrorKind::NeedsOperator);
    let identity = find(&found, "PG_NO_REPLICA_IDENTITY", "public.nokey");
    let hint = identity.hint().unwrap();
    assert!(hint.contains("REPLICA IDENTITY FULL") && hint.contains("insert_only"), "both ways out: {hint}");
    find(&found, "PG_NO_REPLICA_IDENTITY", "public.defer");
    find(&found, "PG_NO_REPLICA_IDENTITY", "public.nothing");
    assert!(!found.iter().any(|problem| problem.message().contains("indexed cannot")));
    assert_eq!(find(&found, "PG_TABLE_MISSING", "seen").path(), Some("tables[5]"));
    assert_eq!(find(&found, "PG_TABLE_MISSING", "Nope").path(), Some("tables[6]"));
    assert_eq!(find(&found, "PG_TABLE_MISSING", "none.*").path(), Some("tables[8]"));
    assert_eq!(find(&found, "PG_TABLE_MISSING", "other").path(), Some("insert_only[0]"));
    let unread = find(&found, "PG_SELECT_PRIVILEGE", "shut.t");
    assert!(unread.hint().unwrap().contains("GRANT USAGE ON SCHEMA \"shut\""));
    let publication = find(&found, "PG_PUBLICATION_PRIVILEGE", "towpath_missing");
    assert!(publication.hint().unwrap().contains("GRANT CREATE ON DATABASE \"missing\" TO \"weak\""));
    assert!(!format!("{found:?}").contains("hidden"), "R13");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_just_the_right_privileges_passes_and_works() {
    let db = database(
        "right",
        "CREATE ROLE capturer LOGIN REPLICATION; GRANT CREATE ON DATABASE \"right\" TO capturer; \
         CREATE SCHEMA own AUTHORIZATION capturer; SET ROLE capturer; \
         CREATE TABLE own.t (id int PRIMARY KEY); INSERT INTO own.t VALUES (1)",
    );
    let url = server().url_as("capturer", &db.name);
    let mut run = Runner::with_url(&url, "right", json!({"tables": ["own.*"]}));
    let good = run.connector.check(&run.context).await.expect("nothing is missing");
    assert!(good.iter().any(|line| line.contains("wal_level is logical")), "{good:?}");
    assert_eq!(db.sql("SELECT count(*) FROM pg_publication"), "0", "a check changes nothing");
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO own.t VALUES (2)");
    run.catch_up().await;
    assert_eq!(run.ops("t"), "rc");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_made_by_somebody_else_is_used_or_refused() {
    let db = database(
        "lent",
        "CREATE ROLE reader LOGIN REPLICATION; CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); \
         GRANT SELECT ON a, b TO reader; \
         CREATE PUBLICATION lent FOR TABLE ONLY a WITH (publish_via_partition_root = true); \
         CREATE PUBLICATION lent_insert_only WITH (publish = 'insert, truncate', publish_via_partition_root = true)",
    );
    let url = server().url_as("reader", &db.name);
    let run = Runner::with_url(&url, "lent", json!({"tables": ["a", "b"], "publication": "lent"}));
    let found = problems(&run).await;
    let hint = find(&found, "PG_PUBLICATION_OWNER", "lent").hint().unwrap();
    assert!(hint.contains(r#"ALTER PUBLICATION "lent" ADD TABLE ONLY "public"."b""#), "{hint}");
    let mut run = Runner::with_url(&url, "lent", json!({"tables": ["a"], "publication": "lent"}));
    run.connector.check(&run.context).await.expect("nothing is missing");
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO a VALUES (1)");
    run.catch_up().await;
    assert_eq!(run.ops("a"), "c");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_servers_and_missing_databases_are_told_apart_without_the_password() {
    let closed = towpath_harness::ports::free_port().unwrap();
    let url = format!("postgres://me:verysecret@127.0.0.1:{closed}/db");
    let mut run = Runner::with_url(&url, "x", json!({"tables": ["t"]}));
    let found = problems(&run).await;
    assert_eq!((found.len(), found[0].code()), (1, "PG_UNREACHABLE"));
    assert!(found[0].to_string().contains(&format!("127.0.0.1:{closed}")));
    let opening = run.open().await.expect_err("nobody listens");
    assert!(matches!(opening.kind(), ErrorKind::RetryAfter(_)));
    assert!(!format!("{found:?} {opening:?} {opening}").contains("verysecret"), "R13");
    let run = Runner::with_url(&server().url("nosuchdb"), "x", json!({"tables": ["t"]}));
    assert_eq!(problems(&run).await[0].code(), "PG_DATABASE_MISSING");
    let run = Runner::with_url(&server().url_as("nosuchrole", "postgres"), "x", json!({"tables": ["t"]}));
    assert_eq!(problems(&run).await[0].code(), "PG_AUTH");
}
