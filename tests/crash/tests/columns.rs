//! Columns that come, go, change their names and their types while rows are written and towpath is killed: whatever the
//! stream does not tell of the rows that are there, the target ends up equal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]
#![allow(clippy::print_stderr, reason = "a seed that failed must be seen")]

use anyhow::Result;
use towpath_crash::{Table, World};

const PIPELINES: &str = r#"
pipelines:
  shop:
    source:
      type: postgres_cdc
      url: "${env:SHOP_URL}"
      tables: ["public.*"]
      insert_only: [public.logged]
    topic: "shop.{schema}.{table}"
  warehouse:
    topics: ["shop.public.*"]
    transforms: [{ type: unwrap }]
    sink: { type: postgres, url: "${env:WAREHOUSE_URL}", mode: upsert, table: "{topic.2}" }
"#;

/// Every table has `n`, which the load changes.
const SETUP: &str = r#"
CREATE TABLE added (id serial PRIMARY KEY, n int);
CREATE TABLE renamed (id serial PRIMARY KEY, n int, a text);
CREATE TABLE swapped (id serial PRIMARY KEY, n int, a int, b int, c int);
CREATE TABLE again (id serial PRIMARY KEY, n int, x int);
CREATE TABLE keyed (id serial PRIMARY KEY, n int, t text);
CREATE TABLE keys (a serial, b int, n int, t text, PRIMARY KEY (a, b));
CREATE TABLE typed (id serial PRIMARY KEY, n int, x int, y int, z text, v varchar(5));
CREATE TABLE computed (id serial PRIMARY KEY, n int);
CREATE TABLE expressed (id serial PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE keyless (n int, a text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE logged (n int, a text);
CREATE TABLE parts (id serial, n int, a text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (50);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (50) TO (1000000);
CREATE TABLE silent (id serial PRIMARY KEY, n int, gone text);
INSERT INTO added (n) SELECT g FROM generate_series(1, 100) g;
INSERT INTO renamed (n, a) SELECT g, 'a' || g FROM generate_series(1, 100) g;
INSERT INTO swapped (n, a, b, c) SELECT g, g, -g, g * 1000 FROM generate_series(1, 100) g;
INSERT INTO again (n, x) SELECT g, g FROM generate_series(1, 100) g;
INSERT INTO keyed (n, t) SELECT g, 't' FROM generate_series(1, 100) g;
INSERT INTO keys (b, n, t) SELECT g % 7, g, 't' FROM generate_series(1, 100) g;
INSERT INTO typed (n, x, y, z, v) SELECT g, g, g, repeat('z', g % 9), 'v' FROM generate_series(1, 100) g;
INSERT INTO computed (n) SELECT g FROM generate_series(1, 100) g;
INSERT INTO expressed (n) SELECT g FROM generate_series(1, 100) g;
INSERT INTO keyless SELECT g, 'a' FROM generate_series(1, 40) g;
INSERT INTO logged SELECT g, 'a' FROM generate_series(1, 40) g;
INSERT INTO parts (n, a) SELECT g, 'a' FROM generate_series(1, 100) g;
INSERT INTO silent (n, gone) SELECT g, 'g' FROM generate_series(1, 40) g;
"#;

/// Rows that are there change, rows come, a few go. No other column than `n` is named.
const LOAD: &[&str] = &[
    "UPDATE added SET n = n + 1 WHERE n % 5 = 1; INSERT INTO added (n) VALUES (7)",
    "UPDATE renamed SET n = n + 1 WHERE n % 5 = 1; INSERT INTO renamed (n) VALUES (7)",
    "UPDATE swapped SET n = n + 1 WHERE n % 5 = 1; INSERT INTO swapped (n) VALUES (7)",
    "UPDATE again SET n = n + 1 WHERE n % 5 = 1; INSERT INTO again (n) VALUES (7)",
    "UPDATE keyed SET n = n + 1 WHERE n % 5 = 1; INSERT INTO keyed (n) VALUES (7); DELETE FROM keyed WHERE n % 31 = 30",
    "UPDATE keys SET n = n + 1, b = b + 1 WHERE n % 5 = 1; INSERT INTO keys (b, n) VALUES (0, 7)",
    "UPDATE typed SET n = n + 1 WHERE n % 5 = 1; INSERT INTO typed (n) VALUES (7)",
    "UPDATE computed SET n = n + 1 WHERE n % 5 = 1; INSERT INTO computed (n) VALUES (7)",
    "UPDATE expressed SET n = n + 1 WHERE n % 5 = 1; INSERT INTO expressed (n) VALUES (7)",
    "UPDATE keyless SET n = n + 1 WHERE n % 5 = 1; INSERT INTO keyless (n) VALUES (7)",
    "INSERT INTO logged (n) VALUES (7), (8)",
    "UPDATE parts SET n = n + 1 WHERE n % 5 = 1; INSERT INTO parts (n) VALUES (7)",
];

const CHANGES: &[&str] = &[
    "ALTER TABLE added ADD COLUMN x int NOT NULL DEFAULT 5",
    r#"ALTER TABLE added ADD COLUMN t timestamptz DEFAULT '2024-01-01 00:00:00.5+00', ADD COLUMN a int[] DEFAULT '{1,NULL}',
       ADD COLUMN ok bool DEFAULT true, ADD COLUMN d numeric(10,2) NOT NULL DEFAULT 1.50, ADD COLUMN by bytea DEFAULT '\xdead',
       ADD COLUMN "it's ""odd""" text DEFAULT E'it''s\\ \n "odd"', ADD COLUMN j jsonb DEFAULT '{"a": [1]}'"#,
    // Before anybody looks.
    "ALTER TABLE renamed RENAME a TO b; ALTER TABLE renamed RENAME b TO c",
    "ALTER TABLE swapped RENAME a TO tmp; ALTER TABLE swapped RENAME b TO a; ALTER TABLE swapped RENAME tmp TO b",
    "ALTER TABLE again DROP x; ALTER TABLE again ADD x text DEFAULT 'new'",
    "ALTER TABLE keyed RENAME id TO ident; ALTER TABLE keys RENAME a TO b2; ALTER TABLE keys RENAME t TO a",
    "ALTER TABLE typed ALTER x TYPE bigint; ALTER TABLE typed ALTER y TYPE text",
    "ALTER TABLE typed ALTER z TYPE int USING length(z), ALTER v TYPE varchar(50)",
    "ALTER TABLE keyless ADD COLUMN x int DEFAULT 3; ALTER TABLE logged ADD COLUMN x int DEFAULT 3",
    "ALTER TABLE parts ADD COLUMN x int DEFAULT 3; ALTER TABLE parts RENAME a TO b",
    // A volatile default, and one that is a sequence; the values differ row by row.
    "ALTER TABLE computed ADD COLUMN r double precision DEFAULT random(); ALTER TABLE computed ADD COLUMN s serial",
    "ALTER TABLE computed ALTER n TYPE int USING n * 2",
    "ALTER TABLE expressed ALTER twice DROP EXPRESSION",
    "ALTER TABLE added ADD COLUMN g int GENERATED ALWAYS AS (n + 1) STORED",
    "ALTER TABLE added DROP COLUMN g; ALTER TABLE added ADD COLUMN g int GENERATED ALWAYS AS (n + 2) STORED; \
     ALTER TABLE added ADD COLUMN h text GENERATED ALWAYS AS (n::text || 'h') STORED",
    "ALTER TABLE added DROP COLUMN h; ALTER TABLE added ADD COLUMN h int DEFAULT 4",
    // Rotated, dropped, given the name of one that was dropped.
    "ALTER TABLE swapped RENAME a TO tmp; ALTER TABLE swapped RENAME c TO a; ALTER TABLE swapped RENAME b TO c; \
     ALTER TABLE swapped RENAME tmp TO b",
    "ALTER TABLE renamed ADD COLUMN d int DEFAULT 1; ALTER TABLE renamed DROP c; ALTER TABLE renamed RENAME d TO c",
    "ALTER TABLE keyless RENAME a TO b; ALTER TABLE logged RENAME a TO b; ALTER TABLE logged DROP x",
    "BEGIN; UPDATE again SET n = n + 1; ALTER TABLE again RENAME x TO y; UPDATE again SET n = n + 1, y = 'within'; \
     ALTER TABLE again ADD x int DEFAULT 9; UPDATE again SET n = n + 1 WHERE n % 2 = 0; COMMIT",
    "ALTER TABLE keyed DROP CONSTRAINT keyed_pkey; ALTER TABLE keyed ADD COLUMN u uuid DEFAULT gen_random_uuid(); \
     ALTER TABLE keyed ADD PRIMARY KEY (u)",
];

#[test]
fn columns_change_in_every_way_under_load() -> Result<()> {
    let mut world = World::new(SETUP, "", PIPELINES)?;
    eprintln!("seed {}", world.fire.seed);
    world.under_load(LOAD, |load| {
        for (index, change) in CHANGES.iter().enumerate() {
            load.sql(change)?;
            if index % 3 == 2 {
                load.strike()?;
            } else {
                load.wait(300);
            }
        }
        load.strike()
    })?;
    // Nothing follows: no row tells of these.
    world.sql(
        "ALTER TABLE silent ADD COLUMN late text DEFAULT 'late'; ALTER TABLE silent RENAME n TO m; \
         ALTER TABLE silent DROP gone; ALTER TABLE added RENAME x TO y",
    )?;
    let names = [
        "added",
        "renamed",
        "swapped",
        "again",
        "keyed",
        "keys",
        "typed",
        "computed",
        "expressed",
        "keyless",
        "logged",
        "parts",
        "silent",
    ];
    let tables: Vec<_> = names.iter().map(|name| Table::same(name)).collect();
    world.end(&tables)
}

/// While towpath is down, so that everything has happened when it looks.
#[test]
fn columns_change_while_nobody_looks() -> Result<()> {
    let mut world = World::new(SETUP, "", PIPELINES)?;
    eprintln!("seed {}", world.fire.seed);
    world.strike()?;
    world.towpath.kill9()?;
    for change in CHANGES {
        for sql in LOAD {
            world.sql(sql)?;
        }
        world.sql(change)?;
    }
    for sql in LOAD {
        world.sql(sql)?;
    }
    world.towpath.start_again()?;
    world.strike()?;
    let names = [
        "added",
        "renamed",
        "swapped",
        "again",
        "keyed",
        "keys",
        "typed",
        "computed",
        "expressed",
        "keyless",
        "logged",
        "parts",
        "silent",
    ];
    let tables: Vec<_> = names.iter().map(|name| Table::same(name)).collect();
    world.end(&tables)
}
