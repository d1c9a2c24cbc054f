//! The table that W6 to W8 are about, and work for its replication slots.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use towpath_harness::{Postgres, Towpath, postgres, process};

use crate::admin::Admin;
use crate::sql;

/// The database.
pub(crate) const DATABASE: &str = "bench";
/// The table, in `public`.
pub(crate) const TABLE: &str = "orders";
/// The topic of the table's changes under the prefix `bench`.
pub(crate) const TOPIC: &str = "bench.public.orders";

/// A table that nobody captures.
const FENCE: &str = "fence";
const CHUNK: u64 = 10_000;
const COLUMNS: &str = "id bigint PRIMARY KEY, customer int NOT NULL, amount numeric(10,2) NOT NULL, \
                       note text NOT NULL, created timestamptz NOT NULL";

/// A server with its defaults but for the WAL level and room for WAL, with the empty table.
pub(crate) fn server() -> Result<Postgres> {
    let options = postgres::Options::logical()
        .set("shared_buffers", "512MB")
        .set("max_wal_size", "32GB")
        .set("checkpoint_timeout", "1h");
    let server = Postgres::start(&options)?;
    server.create_database(DATABASE)?;
    server.psql(DATABASE, &format!("CREATE TABLE {TABLE} ({COLUMNS}); CREATE TABLE {FENCE} (n int)"))?;
    Ok(server)
}

/// The values of the row `i`.
const ROW: &str = "i, i % 5000, (i % 100000) / 100.0, 'order ' || i || ' of customer ' || (i % 5000) || ', to be \
                   delivered', timestamptz '2026-01-01' + i * interval '1 second'";

/// Writes rows in transactions of `per_transaction`.
pub(crate) fn insert(server: &Postgres, first: u64, rows: u64, per_transaction: u64) -> Result<()> {
    let insert = format!(
        "INSERT INTO {TABLE} SELECT {ROW} FROM generate_series(at, least(at + {per_transaction}, {end}) - 1) i",
        end = first + rows
    );
    in_transactions(server, first, rows, per_transaction, &insert)
}

/// Changes rows in transactions of 10,000.
pub(crate) fn update(server: &Postgres, first: u64, rows: u64) -> Result<()> {
    let update = format!(
        "UPDATE {TABLE} SET amount = amount + 1, note = note || '!' WHERE id >= at AND id < least(at + {CHUNK}, {end})",
        end = first + rows
    );
    in_transactions(server, first, rows, CHUNK, &update)
}

fn in_transactions(server: &Postgres, first: u64, rows: u64, step: u64, statement: &str) -> Result<()> {
    let block = format!(
        "DO $$ DECLARE at bigint := {first}; BEGIN WHILE at < {end} LOOP {statement}; COMMIT; at := at + {step}; \
         END LOOP; END $$",
        end = first + rows
    );
    sql::write(server, DATABASE, &block)?;
    // A commit that waits for the disk, so that the log's end is behind all of it.
    server.psql(DATABASE, &format!("INSERT INTO {FENCE} VALUES (1)")).map(drop)
}

/// Writes rows in transactions of 10,000.
pub(crate) fn insert_in_chunks(server: &Postgres, first: u64, rows: u64) -> Result<()> {
    insert(server, first, rows, CHUNK)
}

/// A configuration that captures the table into [`TOPIC`], on the embedded broker. Slot and publication have the given
/// name.
pub(crate) fn capture_options(server: &Postgres, name: &str) -> process::Options {
    let yaml = format!(
        "pipelines:\n  {name}:\n    source:\n      type: postgres_cdc\n      url: \"${{env:BENCH_URL}}\"\n      \
         tables: [public.{TABLE}]\n      slot: {name}\n      publication: {name}\n    \
         topic: \"bench.{{schema}}.{{table}}\"\n    partitions: 1\n"
    );
    process::Options::yaml(yaml).env("BENCH_URL", server.url(DATABASE))
}

/// Counts a topic's records in a towpath that must be running.
pub(crate) fn captured(towpath: &mut Towpath, admin: &Admin) -> Result<u64> {
    if !towpath.is_running()? {
        bail!("towpath has ended\n{}", towpath.log_tail());
    }
    Ok(admin.records(TOPIC, 1))
}

/// Waits until a count is reached.
pub(crate) fn wait_for(what: &str, rows: u64, mut count: impl FnMut() -> Result<u64>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let there = count()?;
        if there >= rows {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{what}: {there} of {rows} rows arrived in time");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Drops a slot, once nobody reads it any more, and its publication.
pub(crate) fn drop_slot(server: &Postgres, name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let statement = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'"
    );
    while let Err(error) = server.psql(DATABASE, &statement) {
        if Instant::now() >= deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    server.psql(DATABASE, &format!("DROP PUBLICATION IF EXISTS {name}")).map(drop)
}
