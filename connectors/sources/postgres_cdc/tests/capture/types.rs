//! Every type, by snapshot and by stream alike.

use serde_json::json;
use towpath_api::Type;

use super::support::{Cell, Runner, database};

/// Column, type, value, carrier, carried text, source type if it is not the type as written.
type Case = (&'static str, &'static str, Type, &'static str, &'static str);

fn array(element: Type) -> Type {
    Type::Array(Box::new(element))
}

fn cases() -> Vec<Case> {
    let mut cases = cases_of_scalars();
    cases.extend(cases_as_text_and_arrays());
    cases
}

fn cases_of_scalars() -> Vec<Case> {
    vec![
        ("bool", "true", Type::Bool, "true", "boolean"),
        ("int2", "-32768", Type::Int16, "-32768", "smallint"),
        ("int4", "2147483647", Type::Int32, "2147483647", "integer"),
        ("int8", "-9223372036854775808", Type::Int64, "-9223372036854775808", "bigint"),
        ("oid", "4294967295", Type::Int64, "4294967295", "oid"),
        ("float4", "'NaN'", Type::Float32, "NaN", "real"),
        ("float8", "'-Infinity'", Type::Float64, "-inf", "double precision"),
        ("float8", "0.1", Type::Float64, "0.1", "double precision"),
        ("numeric(10,2)", "1.5", Type::Decimal, "1.50", "numeric(10,2)"),
        ("numeric", "'NaN'", Type::Decimal, "NaN", "numeric"),
        ("numeric", "1e100", Type::Decimal, "1", "numeric"),
        ("text", r"E'tab\t nl\n back\\ N \\N é'", Type::String, "tab\t nl\n back\\ N \\N é", "text"),
        ("text", "''", Type::String, "", "text"),
        ("text", r"'\N'", Type::String, r"\N", "text"),
        ("varchar(5)", "'abc'", Type::String, "abc", "character varying(5)"),
        ("char(4)", "'ab'", Type::String, "ab  ", "character(4)"),
        ("\"char\"", "'x'", Type::String, "x", "\"char\""),
        ("name", "'n'", Type::String, "n", "name"),
        ("bytea", r"'\x00ff5c'", Type::Bytes, "00ff5c", "bytea"),
        ("json", r#"'{"a" : 1}'"#, Type::Json, r#"{"a" : 1}"#, "json"),
        ("jsonb", r#"'{"b":[1, null]}'"#, Type::Json, r#"{"b": [1, null]}"#, "jsonb"),
        (
            "uuid",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            Type::Uuid,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "uuid",
        ),
        ("date", "'0044-03-15 BC'", Type::Date, "0044-03-15 BC", "date"),
        ("date", "'infinity'", Type::Date, "infinity", "date"),
        ("time", "'23:59:59.999999'", Type::Time, "23:59:59.999999", "time without time zone"),
        ("timetz", "'12:00:00+05:30'", Type::TimeTz, "12:00:00+05:30", "time with time zone"),
        (
            "timestamp",
            "'2024-02-29 12:34:56.789'",
            Type::Timestamp,
            "2024-02-29T12:34:56.789",
            "timestamp without time zone",
        ),
        ("timestamp(0)", "'-infinity'", Type::Timestamp, "-infinity", "timestamp(0) without time zone"),
        (
            "timestamptz",
            "'2024-06-01 12:00:00+02'",
            Type::TimestampTz,
            "2024-06-01T10:00:00Z",
            "timestamp with time zone",
        ),
        (
            "timestamptz",
            "'0044-03-15 12:00:00+00 BC'",
            Type::TimestampTz,
            "0044-03-15T12:00:00Z BC",
            "timestamp with time zone",
        ),
        (
            "interval",
            "'1 year 2 mons -3 days 04:05:06.7'",
            Type::Interval,
            "1 year 2 mons -3 days +04:05:06.7",
            "interval",
        ),
    ]
}

/// Types that have no form of their own, and arrays.
fn cases_as_text_and_arrays() -> Vec<Case> {
    vec![
        ("money", "12.34", Type::String, "$12.34", "money"),
        ("inet", "'10.0.0.1/8'", Type::String, "10.0.0.1/8", "inet"),
        ("bit varying(5)", "B'101'", Type::String, "101", "bit varying(5)"),
        ("point", "'(1,2.5)'", Type::String, "(1,2.5)", "point"),
        ("polygon", "'((0,0),(1,1),(2,0))'", Type::String, "((0,0),(1,1),(2,0))", "polygon"),
        ("int4range", "'[1,5)'", Type::String, "[1,5)", "int4range"),
        ("tstzrange", "'[2024-01-01 00:00+00,)'", Type::String, "[\"2024-01-01 00:00:00+00\",)", "tstzrange"),
        ("tsvector", "'a:1 b:2'", Type::String, "'a':1 'b':2", "tsvector"),
        ("xml", "'<a/>'", Type::String, "<a/>", "xml"),
        ("int2vector", "'1 2 3'", Type::String, "1 2 3", "int2vector"),
        ("public.\"Mood x\"", "'so \"so\"'", Type::String, "so \"so\"", "public.\"Mood x\""),
        ("public.pair", "ROW(1, 'a,b')", Type::String, "(1,\"a,b\")", "public.pair"),
        ("public.price", "9.5", Type::Decimal, "9.50", "numeric(8,2)"),
        ("public.prices", "'{1,2}'", array(Type::Decimal), r#"["1.00","2.00"]"#, "numeric(8,2)[]"),
        ("int4[]", "'{1,NULL,3}'", array(Type::Int32), "[1,null,3]", "integer[]"),
        ("int4[]", "'[0:1]={1,2}'", array(Type::Int32), "\"[0:1]={1,2}\"", "integer[]"),
        (
            "text[]",
            r#"'{{"a b","NULL"},{"q\"\\",NULL}}'"#,
            array(Type::String),
            r#"[["a b","NULL"],["q\"\\",null]]"#,
            "text[]",
        ),
        (
            "timestamptz[]",
            "'{2024-01-01 00:00+00}'",
            array(Type::TimestampTz),
            r#"["2024-01-01T00:00:00Z"]"#,
            "timestamp with time zone[]",
        ),
        ("bytea[]", r#"ARRAY['\x6869'::bytea]"#, array(Type::Bytes), r#"["aGk="]"#, "bytea[]"),
        ("public.price[]", "'{3}'", array(Type::Decimal), r#"["3.00"]"#, "public.price[]"),
        (
            "box[]",
            "'{(1,1),(0,0);(3,3),(2,2)}'",
            array(Type::String),
            r#"["(1,1),(0,0)","(3,3),(2,2)"]"#,
            "box[]",
        ),
        (
            "public.pair[]",
            "ARRAY[ROW(1,'x')::public.pair]",
            array(Type::String),
            r#"["(1,x)"]"#,
            "public.pair[]",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_carried_alike_by_snapshot_and_stream() {
    let cases = cases();
    let columns: Vec<String> =
        cases.iter().enumerate().map(|(index, case)| format!("c{index} {}", case.0)).collect();
    let values: Vec<&str> = cases.iter().map(|case| case.1).collect();
    let insert = |id: u32| format!("INSERT INTO public.t VALUES ({id}, {}, DEFAULT); ", values.join(", "));
    let nulls = |id: u32| format!("INSERT INTO public.t (id) VALUES ({id}); ");
    let db = database(
        "types",
        &format!(
            "CREATE TYPE public.\"Mood x\" AS ENUM ('sad', 'so \"so\"'); \
             CREATE TYPE public.pair AS (a int, b text); \
             CREATE DOMAIN public.base AS numeric(8,2); CREATE DOMAIN public.price AS public.base CHECK (value > 0); \
             CREATE DOMAIN public.prices AS numeric(8,2)[]; \
             CREATE TABLE public.t (id int PRIMARY KEY, {}, made int GENERATED ALWAYS AS (id * 2) STORED); {}{}",
            columns.join(", "),
            insert(1),
            nulls(2)
        ),
    );
    let mut run = Runner::new(&db, "types", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql(&(insert(3) + &nulls(4)));
    run.catch_up().await;
    let records = run.of_table("t");
    assert_eq!(run.ops("t"), "rrcc");
    assert_eq!(records[0].schema.id(), records[2].schema.id(), "snapshot and stream share the schema");
    assert_eq!(records[0].schema.value().index_of("made"), None, "generated columns are not replicated");
    for (index, (written, _, ty, text, formatted)) in cases.iter().enumerate() {
        let name = format!("c{index}");
        let field = &records[0].schema.value().fields[index + 1];
        assert_eq!((&field.name, &field.ty), (&name, ty), "{written}");
        assert_eq!(field.source_type.as_deref(), Some(format!("postgres:{formatted}").as_str()), "{written}");
        assert_eq!(records[0].after(&name), records[2].after(&name), "{written}: snapshot and stream differ");
        let carried = records[2].text(&name);
        if *text == "1" {
            assert!(carried.len() == 101 && carried.trim_end_matches('0') == "1", "no exponent, no rounding");
        } else {
            assert_eq!(carried, *text, "{written}");
        }
        assert_eq!(
            (records[1].after(&name), records[3].after(&name)),
            (&Cell::Null, &Cell::Null),
            "{written}"
        );
    }
    run.close().await;
}
