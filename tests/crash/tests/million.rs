//! One transaction of a million rows, and one that changes every one of them: memory must not depend on them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]
#![allow(clippy::print_stderr, reason = "the figures are the point")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use towpath_crash::{Table, World};

const ROWS: u32 = 1_000_000;
/// What towpath may hold at most, whatever the transaction: a small part of the transaction's text.
const RSS_MAX_BYTES: u64 = 320 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(300);

const PIPELINES: &str = r#"
pipelines:
  shop:
    source: { type: postgres_cdc, url: "${env:SHOP_URL}", tables: [public.large] }
    topic: "shop.{schema}.{table}"
  warehouse:
    topics: ["shop.public.*"]
    transforms: [{ type: unwrap }]
    sink: { type: postgres, url: "${env:WAREHOUSE_URL}", mode: upsert, table: "{topic.2}" }
"#;

const SETUP: &str =
    "CREATE TABLE large (id int PRIMARY KEY, v text, w text); INSERT INTO large VALUES (0, 'first', '')";

/// Runs `sql` in one transaction and waits until `done` is true in the warehouse. Gives the most that towpath has held so far.
fn transaction(world: &World, what: &str, sql: &str, done: &str) -> Result<u64> {
    let begin = Instant::now();
    world.sql(sql)?;
    let committed = begin.elapsed();
    loop {
        if world.server.psql("warehouse", done).is_ok_and(|text| text == "t") {
            break;
        }
        ensure!(
            begin.elapsed() < committed + PATIENCE,
            "{what}: not delivered\n{}",
            world.towpath.log_tail()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let peak = world.towpath.usage()?.peak_rss_bytes;
    eprintln!(
        "{what}: committed after {:.1} s, delivered {:.1} s later, at most {} MiB held",
        committed.as_secs_f64(),
        (begin.elapsed() - committed).as_secs_f64(),
        peak / (1024 * 1024)
    );
    Ok(peak)
}

#[test]
#[ignore = "a soak: about two minutes"]
fn a_transaction_of_a_million_rows_is_not_held() -> Result<()> {
    let world = World::new(SETUP, "", PIPELINES)?;
    let insert = format!(
        "INSERT INTO large SELECT g, md5(g::text), repeat(md5(g::text), 3) FROM generate_series(1, {ROWS}) g"
    );
    let inserted = format!("SELECT count(*) = {ROWS} + 1 FROM large");
    transaction(&world, "insert", &insert, &inserted)?;
    let updated = "SELECT to_regclass('large') IS NOT NULL AND NOT EXISTS (SELECT FROM large WHERE v <> 'u')";
    transaction(&world, "update", "UPDATE large SET v = 'u'", updated)?;
    let deleted = "SELECT count(*) = 1 FROM large";
    let peak = transaction(&world, "delete", "DELETE FROM large WHERE id > 0", deleted)?;
    ensure!(peak < RSS_MAX_BYTES, "towpath held {peak} bytes");
    world.end(&[Table::same("large")])
}
