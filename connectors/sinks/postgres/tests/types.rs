//! Every PostgreSQL type survives the way out of one table and into another.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use serde_json::json;
use support::{Snapshot, Task, connector, database, psql, schema};
use towpath_api::{Op, Type};

/// One column for each type, and rows with ordinary, extreme and null values.
const EVERYTHING: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'so-so "quoted"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN short AS varchar(5);
CREATE TABLE everything (
    id int PRIMARY KEY,
    b boolean, i2 smallint, i4 integer, i8 bigint, o oid,
    f4 real, f8 double precision, n numeric, n2 numeric(12,3), m money,
    t text, v varchar(20), c char(5), ch "char", nm name,
    by bytea, bi bit(5), vb bit varying(10),
    d date, ti time, ti3 time(3), tz timetz, ts timestamp, ts0 timestamp(0), tstz timestamptz, iv interval,
    j json, jb jsonb, x xml, u uuid,
    ip inet, cd cidr, mac macaddr, mac8 macaddr8,
    pt point, ln line, ls lseg, bx box, pa path, po polygon, ci circle,
    tv tsvector, tq tsquery, lsn pg_lsn, sn pg_snapshot, jp jsonpath, rc regclass,
    r4 int4range, rn numrange, rts tsrange, rtz tstzrange, rd daterange, mr int4multirange,
    md mood, pr pair, dom positive, dsh short,
    ai int[], at text[], an numeric[], ab boolean[], aby bytea[], ats timestamptz[], aj jsonb[], abx box[],
    am mood[], ap pair[], a2 int[][], af float8[], ar int4range[]
);
INSERT INTO everything VALUES (1, true, -32768, -2147483648, -9223372036854775808, 4294967295,
    3.4028235e38, 1.7976931348623157e308, 'NaN', -123456789.123, '-$1,234.56',
    E'tab\t newline\n backslash \\ quote '' " \\N Zoë 😀', 'v', 'c', 'x', 'name',
    '\x00ff5c6e', B'10101', B'101',
    '0044-03-15 BC', '23:59:59.999999', '24:00:00', '12:00:00+05:30', '0044-03-15 12:00:00 BC', '2024-02-29 12:34:56',
    '294276-12-31 23:59:59.999999+00', '-1 year -2 months +3 days -04:05:06.789',
    '{"b": 1,  "a": [1, null, "\u00e9"], "b": 2}', '{"b": 1, "a": [1, null]}', '<a href="x">y</a>',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
    '::ffff:1.2.3.4/128', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    '(1.5,-2.25)', '{1,2,3}', '[(0,0),(1,1)]', '(3,3),(1,1)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,2),3>',
    '''a'':1A b:2', 'a & !b', '16/B374D848', '10:20:10,14,15', '$."a"[*]?(@ > 1)', 'pg_class',
    '[1,10)', '(,5.5]', '[2024-01-01 00:00:00,infinity)', '["2024-01-01 00:00:00+00",)', 'empty', '{[1,3),[5,8)}',
    'so-so "quoted"', '(1,"a ""b"" , c")', 7, 'abcde',
    '{1,NULL,-3}', '{a,"b c",NULL,"NULL","",",{}\\\""}', '{1.50,NaN}', '{t,f,NULL}', '{"\\x00ff",NULL}',
    '{"2024-01-02 03:04:05+00",infinity}', '{"{\"a\": [1]}","null",NULL}', '{(3,3),(1,1);(4,4),(0,0)}',
    '{sad,"so-so \"quoted\""}', '{"(1,x)","(2,\"y z\")"}', '{{1,2},{3,4}}', '{1.5,NaN,-Infinity,1e-300}', '{"[1,5)"}');
INSERT INTO everything (id, f4, f8, n, d, ts, tstz, iv, t, c, by, ai, at, a2, jb, j, vb, ti, dom, x)
VALUES (2, 'NaN', '-Infinity', 0.000000000000000000000000000000001, 'infinity', '-infinity', 'infinity', '0',
    '', '', '', '{}', '{}', '[0:1][-1:0]={{1,2},{3,4}}', 'null', '"x"', '', '00:00', 1, 'text only');
INSERT INTO everything (id, f4, f8, n, d, ts, tstz, iv, jb)
VALUES (3, '-0', 5e-324, 1e100, '5874897-12-31', '294276-12-31 23:59:59.999999', '4714-11-24 00:00:00+00 BC',
    '178000000 years', '"text"');
INSERT INTO everything (id) VALUES (4);
"#;

const AS_TEXT: &str = "SELECT t::text FROM public.everything t ORDER BY id";

async fn copied(
    options: serde_json::Value,
    target_sql: &str,
    key: &[&str],
    rounds: usize,
) -> (String, String) {
    let (source, target) = (database(), database());
    psql(&source, EVERYTHING);
    if !target_sql.is_empty() {
        psql(&target, target_sql);
    }
    let snapshot = Snapshot::read(&source, "everything", key).await;
    assert_eq!(snapshot.len(), 4);
    let connector = connector(&target, options);
    let mut task = Task::open(connector.as_ref(), "shop.public.everything").await;
    for _ in 0..rounds {
        task.take(|records| snapshot.push(records, Op::Read, false)).await;
    }
    (psql(&source, AS_TEXT), psql(&target, AS_TEXT))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_reaches_a_table_of_the_same_types_by_key() {
    let table = EVERYTHING.split("INSERT INTO").next().unwrap();
    let (source, target) = copied(json!({"table": "{topic.2}"}), table, &["id"], 2).await;
    assert_eq!(source, target);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_reaches_a_table_of_the_same_types_by_copy() {
    let table = EVERYTHING.split("INSERT INTO").next().unwrap();
    let (source, target) = copied(json!({"table": "{topic.2}", "mode": "append"}), table, &["id"], 1).await;
    assert_eq!(source, target);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_reaches_a_table_that_the_sink_creates() {
    let (source, target) = (database(), database());
    psql(&source, EVERYTHING);
    // One of the types is there, the others are not.
    psql(&target, "CREATE TYPE mood AS ENUM ('sad', 'ok', 'so-so \"quoted\"')");
    let snapshot = Snapshot::read(&source, "everything", &["id"]).await;
    let connector = connector(&target, json!({"table": "{topic.2}"}));
    let mut task = Task::open(connector.as_ref(), "shop.public.everything").await;
    task.take(|records| snapshot.push(records, Op::Read, false)).await;
    assert_eq!(psql(&source, AS_TEXT), psql(&target, AS_TEXT));
    let types = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), E'\\n' ORDER BY attnum) \
                 FROM pg_attribute WHERE attrelid = 'everything'::regclass AND attnum > 0";
    let created = psql(&target, types);
    for expected in [
        "n2 numeric(12,3)",
        "v character varying(20)",
        "bi bit(5)",
        "ts0 timestamp(0) without time zone",
        "md mood",
        "am mood[]",
        "ap text[]",
        "pr text",
        "dom integer",
        "mr int4multirange",
        "abx box[]",
        "ch \"char\"",
    ] {
        assert!(created.lines().any(|line| line == expected), "{expected} is missing in\n{created}");
    }
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'everything'::regclass";
    assert_eq!(psql(&target, key), "PRIMARY KEY (id)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_key_is_found_by_all_its_columns() {
    let (source, target) = (database(), database());
    psql(&source, EVERYTHING);
    psql(&target, EVERYTHING.split("INSERT INTO").next().unwrap());
    psql(&target, "ALTER TABLE everything DROP CONSTRAINT everything_pkey");
    let snapshot = Snapshot::read(&source, "everything", &[]).await;
    let connector = connector(&target, json!({"table": "{topic.2}"}));
    let mut task = Task::open(connector.as_ref(), "shop.public.everything").await;
    task.take(|records| snapshot.push(records, Op::Read, false)).await;
    task.take(|records| snapshot.push(records, Op::Create, false)).await;
    assert_eq!(psql(&target, "SELECT count(*) FROM everything"), "8");
    task.take(|records| snapshot.push(records, Op::Delete, true)).await;
    assert_eq!(
        psql(&source, AS_TEXT),
        psql(&target, AS_TEXT),
        "each deletion hit exactly one of two equal rows"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_other_types_is_written_by_casting() {
    let target = database();
    psql(
        &target,
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id bigint PRIMARY KEY, whole integer, small smallint, \
         flag integer, mood mood, day date, doc jsonb, list text, ids bigint[], u uuid, price numeric(10,2), s text)",
    );
    let fields = [
        ("id", Type::Int32, ""),
        ("whole", Type::Decimal, ""),
        ("small", Type::Float64, ""),
        ("flag", Type::Bool, ""),
        ("mood", Type::String, ""),
        ("day", Type::Timestamp, ""),
        ("doc", Type::Array(Box::new(Type::Int32)), ""),
        ("list", Type::Array(Box::new(Type::Int32)), "integer[]"),
        ("ids", Type::Json, ""),
        ("u", Type::String, ""),
        ("price", Type::Decimal, ""),
        ("s", Type::Int64, ""),
    ];
    let schema = schema("t", &fields, &["id"]);
    let values = [
        json!(1),
        json!("42.00"),
        json!(7.5),
        json!(true),
        json!("ok"),
        json!("2024-01-02T03:04:05"),
        json!("[1,2]"),
        json!("[1,null]"),
        json!("[5,6]"),
        json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        json!("1.005"),
        json!(-9),
    ];
    let connector = connector(&target, json!({"table": "{topic.2}"}));
    let mut task = Task::open(connector.as_ref(), "shop.public.t").await;
    task.take(|records| records.create(&schema, &[json!(1)], &values)).await;
    assert_eq!(
        psql(&target, "SELECT t::text FROM t"),
        "(1,42,8,1,ok,2024-01-02,\"[1, 2]\",\"{\"\"1\"\",NULL}\",\"{5,6}\",\
         a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,1.01,-9)"
    );
}
