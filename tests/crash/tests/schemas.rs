//! What databases are really like: every type, tables without keys, TOAST, key changes, TRUNCATE, columns that come, go
//! and change their names under load, partitions, odd names, and one transaction of very many rows; with kills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]
#![allow(clippy::print_stderr, reason = "a seed that failed must be seen")]

use anyhow::Result;
use towpath_crash::{Table, World};

/// Rows of the large transaction. A million is the soak's, `million.rs`.
const LARGE: u32 = 200_000;

const SETUP: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE all_types (
    id bigint PRIMARY KEY, i2 smallint, i4 int, b boolean, n numeric, n2 numeric(10,2), r real, d double precision,
    t text, v varchar(20), c char(7), nm name, by bytea, u uuid, j json, jb jsonb, x xml,
    da date, ti time, tz timetz, ts timestamp, tsz timestamptz, iv interval, ts0 timestamp(0),
    a int[], ta text[], na numeric[][], tsa timestamptz[], ba bytea[], ra int4range[],
    r4 int4range, r8 int8range, rn numrange, rt tstzrange, rd daterange, mr int4multirange,
    m mood, ma mood[], p pair, po positive,
    pt point, l line, ls lseg, bx box, pa path, pg polygon, ci circle,
    ip inet, cd cidr, mac macaddr, bi bit(5), vb bit varying(9), tv tsvector, tq tsquery, ls2 pg_lsn, mo money, o oid
);
CREATE TABLE composite_key (a int, b text, v text, PRIMARY KEY (b, a));
CREATE TABLE keyless_full (n int, t text, j json);
ALTER TABLE keyless_full REPLICA IDENTITY FULL;
CREATE TABLE keyless_log (n int, t text);
CREATE TABLE toasted (id int PRIMARY KEY, n int, big text);
ALTER TABLE toasted ALTER COLUMN big SET STORAGE EXTERNAL;
CREATE TABLE emptied (id int PRIMARY KEY, t text);
CREATE TABLE shaped (id int PRIMARY KEY, t text, gone int);
CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us');
CREATE TABLE "Odd Näme.with ""quotes""" ("Köy.1" int PRIMARY KEY, "select" text, "a ""b"" c" text);
CREATE TABLE large (id int PRIMARY KEY, v text);

INSERT INTO all_types SELECT g, g, g, g % 2 = 0, g / 7.0, g / 3.0, g / 3.0, g / 3.0, 'text ' || g, 'v', 'c', 'n',
    decode(md5(g::text), 'hex'), md5(g::text)::uuid, '{"a": [1, 2.50, null]}', '{"b": {"c": "ü"}}', '<a>b</a>',
    '2024-02-29', '12:34:56.789', '01:02:03+04:30', '2024-02-29 12:34:56.123456', '2024-02-29 12:34:56.123456+02',
    '1 year 2 mons -3 days 04:05:06.789', '2024-01-01 00:00:01',
    '{1,NULL,3}', '{a,"b c","d\"e",NULL,"NULL",""}', '{{1.5,2},{3,NaN}}', '{"2024-01-01 00:00:00+00"}', '{"\\x00ff"}',
    '{"[1,5)",empty}', '[1,10)', '(,5)', '(1.5,2.5]', '["2024-01-01 00:00:00+00",)', '[2024-01-01,2024-02-01)',
    '{[1,3),[5,7)}', 'it''s ok', '{sad,"it''s ok"}', '(1,"a,b")', 5,
    '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)', '((0,0),(1,1))', '((0,0),(1,1),(1,0))', '<(0,0),5>',
    '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '10110', '101', 'a:1 b:2', 'a & b', '16/B374D848', 12.34, 42
    FROM generate_series(1, 50) g;
INSERT INTO composite_key SELECT g, 'b' || g % 3, 'v' FROM generate_series(1, 100) g;
INSERT INTO keyless_full SELECT g % 5, 'same', '{"a":1}' FROM generate_series(1, 60) g;
INSERT INTO keyless_log SELECT g % 5, 'same' FROM generate_series(1, 60) g;
INSERT INTO toasted SELECT g, 0, repeat(md5(g::text), 400) FROM generate_series(1, 40) g;
INSERT INTO emptied SELECT g, 'old' FROM generate_series(1, 40) g;
INSERT INTO shaped SELECT g, 'before', g FROM generate_series(1, 40) g;
INSERT INTO parts SELECT g, CASE g % 2 WHEN 0 THEN 'eu' ELSE 'us' END, 'v' FROM generate_series(1, 40) g;
INSERT INTO "Odd Näme.with ""quotes""" SELECT g, 'sel', 'x"y' FROM generate_series(1, 20) g;
INSERT INTO large VALUES (0, 'first');
"#;

/// The extremes, and NULL everywhere.
const EXTREMES: &str = r#"
INSERT INTO all_types (id) VALUES (1000);
INSERT INTO all_types (id, n, r, d, da, ts, tsz, iv, by, a, t, j) VALUES
    (1001, 'NaN', 'NaN', '-Infinity', 'infinity', '-infinity', 'infinity', '-178000000 years', '', '{}', '', 'null'),
    (1002, 'Infinity', 'Infinity', 'NaN', '4713-01-01 BC', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999+00',
     '178000000 years', '\x00', '[0:2]={1,2,3}', E'tab\there\nline\\back', '"s"'),
    (1003, 123456789012345678901234567890.123456789, 3.4028235e38, 1.7976931348623157e308, '5874897-12-31',
     '0044-03-15 12:00:00 BC', '0001-01-01 00:00:00+00 BC', '-00:00:00.000001', decode(repeat('ab', 3000), 'hex'),
     '{{{1}},{{2}}}', 'emoji 🚢 and "quotes"', '[{"deep": [1e400]}]'),
    (1004, -0.000000000000000000001, 1e-45, 5e-324, '0001-01-01', '0001-01-01 00:00:00', '1969-12-31 23:59:59.5+00',
     '0', '\xdeadbeef', '{-2147483648,2147483647}', '\N', '" \u0041 "');
UPDATE all_types SET t = 'changed', jb = '{"n": 12345678901234567890.5}' WHERE id % 3 = 0;
DELETE FROM all_types WHERE id = 7;
"#;

const CHANGES: &[&str] = &[
    "UPDATE composite_key SET a = a + 1000 WHERE a % 2 = 0; DELETE FROM composite_key WHERE a = 1; \
     UPDATE composite_key SET a = 9999, b = 'z' WHERE a = 3; INSERT INTO composite_key VALUES (3, 'b0', 'again')",
    "UPDATE keyless_full SET t = 'one' WHERE ctid = (SELECT min(ctid) FROM keyless_full WHERE n = 1); \
     DELETE FROM keyless_full WHERE ctid = (SELECT min(ctid) FROM keyless_full WHERE n = 2); \
     INSERT INTO keyless_full VALUES (7, NULL, NULL), (7, NULL, NULL); \
     DELETE FROM keyless_full WHERE ctid = (SELECT min(ctid) FROM keyless_full WHERE n = 7)",
    "INSERT INTO keyless_log SELECT g, 'late' FROM generate_series(1, 30) g",
    "UPDATE toasted SET n = n + 1; UPDATE toasted SET big = repeat('z', 9000) WHERE id = 5; \
     UPDATE toasted SET id = 500 WHERE id = 6",
    "INSERT INTO emptied VALUES (900, 'before'); TRUNCATE emptied; INSERT INTO emptied VALUES (1, 'after'), (2, 'after')",
    "UPDATE parts SET region = 'us' WHERE id = 2; DELETE FROM parts WHERE id = 4; UPDATE parts SET v = 'w' WHERE id < 10; \
     INSERT INTO parts VALUES (1000, 'eu', 'new')",
    r#"UPDATE "Odd Näme.with ""quotes""" SET "select" = 'changed' WHERE "Köy.1" % 2 = 0;
       DELETE FROM "Odd Näme.with ""quotes""" WHERE "Köy.1" = 3"#,
];

/// Columns that come, go and change their names while the table is captured.
const SHAPES: &[&str] = &[
    "ALTER TABLE shaped ADD COLUMN extra int DEFAULT 5; INSERT INTO shaped (id, t, gone, extra) VALUES (100, 'x', 1, 2); \
     UPDATE shaped SET t = 'touched' WHERE id = 1",
    "ALTER TABLE shaped DROP COLUMN gone; INSERT INTO shaped (id, t) VALUES (101, 'y'); DELETE FROM shaped WHERE id = 2",
    "ALTER TABLE shaped RENAME COLUMN t TO label; INSERT INTO shaped (id, label) VALUES (102, 'z'); \
     UPDATE shaped SET label = 'renamed' WHERE id = 3",
];

const PIPELINES: &str = r#"
pipelines:
  shop:
    source:
      type: postgres_cdc
      url: "${env:SHOP_URL}"
      tables: ["public.*"]
      exclude_tables: [public.parts_eu, public.parts_us]
      insert_only: [public.keyless_log]
    topic: "shop.{schema}.{table}"
  warehouse:
    topics: ["shop.public.*"]
    transforms: [{ type: unwrap }]
    sink: { type: postgres, url: "${env:WAREHOUSE_URL}", mode: upsert, table: "{topic.2}" }
"#;

fn world() -> Result<World> {
    let world = World::new(SETUP, "", PIPELINES)?;
    eprintln!("seed {}", world.fire.seed);
    Ok(world)
}

fn same(names: &[&str]) -> Vec<Table> {
    names.iter().map(|name| Table::same(name)).collect()
}

#[test]
fn databases_as_they_are() -> Result<()> {
    let mut world = world()?;
    world.strike()?;
    world.server.psql("shop", EXTREMES)?;
    for (index, change) in CHANGES.iter().enumerate() {
        world.server.psql("shop", change)?;
        if index % 4 == 1 {
            world.strike()?;
        }
    }
    let large = format!("INSERT INTO large SELECT g, md5(g::text) FROM generate_series(1, {LARGE}) g");
    world.server.psql("shop", &large)?;
    world.strike()?;
    world.strike()?;
    let odd = r#""Odd Näme.with ""quotes""""#;
    world.end(&same(&[
        "all_types",
        "composite_key",
        "keyless_full",
        "keyless_log",
        "toasted",
        "emptied",
        "parts",
        odd,
        "large",
    ]))
}

#[test]
fn columns_that_come_go_and_change_their_names() -> Result<()> {
    let mut world = world()?;
    for change in SHAPES {
        world.server.psql("shop", change)?;
        world.strike()?;
    }
    world.end(&same(&["shaped"]))
}
