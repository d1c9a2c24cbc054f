//! The formats from outside: golden texts, round trips, other people's records, hostile bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::sync::Arc;

use proptest::prelude::*;
use towpath_api::schema::SourceBlock;
use towpath_api::{
    Batch, BatchBuilder, EventSchema, Field, FormatKind, FormatSpec, JsonSchemas, Op, RecordView, Row,
    RowSchema, RowWriter, Type, Value,
};
use towpath_formats::{Decoder, Encoder, FormatError, Incoming, header};
use towpath_types::TopicName;

const ID: FormatSpec = json(JsonSchemas::Id);
const INLINE: FormatSpec = json(JsonSchemas::Inline);
const NONE: FormatSpec = json(JsonSchemas::None);
const RAW: FormatSpec = FormatSpec { key: FormatKind::Raw, value: FormatKind::Raw };

const fn json(schemas: JsonSchemas) -> FormatSpec {
    FormatSpec { key: FormatKind::Json(schemas), value: FormatKind::Json(schemas) }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(&'static str, Option<Vec<u8>>)>,
}

fn encode(format: FormatSpec, record: RecordView<'_>) -> Written {
    let mut buffer = b"left over".to_vec();
    let mut encoder = Encoder::new(format);
    let encoded = encoder.encode(record, &mut buffer).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut headers = Vec::new();
    if let Some(id) = encoded.schema {
        headers.push((header::SCHEMA, Some(id.0.to_vec())));
    }
    if let Some(op) = encoded.op {
        headers.push((header::OP, Some(op.as_bytes().to_vec())));
    }
    Written { key: encoded.key.map(text), value: encoded.value.map(text), headers }
}

fn decode(
    format: FormatSpec,
    written: &Written,
    schema: Option<&Arc<EventSchema>>,
) -> Result<Batch, FormatError> {
    let topic = TopicName::new("shop.public.orders").unwrap();
    let mut builder = BatchBuilder::new();
    let incoming = Incoming {
        topic: &topic,
        partition: 0,
        offset: 42,
        timestamp_ms: 1_700_000_000_000,
        key: written.key.as_ref().map(String::as_bytes),
        value: written.value.as_ref().map(String::as_bytes),
        schema,
    };
    let headers = written.headers.iter().map(|(name, value)| (*name, value.as_deref()));
    let result = Decoder::new(format).decode(incoming, headers, &mut builder);
    assert_eq!(builder.len(), usize::from(result.is_ok()));
    result.map(|()| builder.build())
}

fn text_record(key: Option<&str>, value: Option<&str>) -> Written {
    Written { key: key.map(Into::into), value: value.map(Into::into), headers: Vec::new() }
}

fn orders() -> Arc<EventSchema> {
    let value = RowSchema::new(vec![
        Field::required("id", Type::Int64),
        Field {
            source_type: Some("postgres:numeric(10,2)".into()),
            ..Field::nullable("price", Type::Decimal)
        },
        Field::nullable("no\"te", Type::String),
        Field::nullable("doc", Type::Json),
        Field::nullable("raw", Type::Bytes),
    ]);
    let source = SourceBlock {
        constants: vec![
            ("connector".into(), "postgresql".into()),
            ("schema".into(), "public".into()),
            ("table".into(), "orders".into()),
        ],
        fields: RowSchema::new(vec![
            Field::nullable("lsn", Type::Int64),
            Field::nullable("snapshot", Type::String),
        ]),
    };
    let variables = [("schema".to_owned(), "public".to_owned()), ("table".to_owned(), "orders".to_owned())];
    Arc::new(
        EventSchema::new("public.orders", Arc::new(value))
            .with_key(Some(Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]))))
            .with_variables(variables.into())
            .with_source(Some(Arc::new(source))),
    )
}

fn update(schema: &Arc<EventSchema>, flat: bool) -> Batch {
    let mut builder = BatchBuilder::new();
    let mut record = builder.record(schema);
    record
        .op(Some(Op::Update))
        .flat(flat)
        .timestamp_ms(5)
        .key(|row| row.int(7))
        .before(|row| row.int(7))
        .after(|row| {
            row.int(7);
            row.text("12.50");
            row.text("a\n\"b\"");
            row.text("{\"k\": [1]}");
            row.bytes(&[0xff]);
        })
        .source(|row| {
            row.int(99);
            row.null();
        });
    record.finish();
    builder.build()
}

fn change(schema: &Arc<EventSchema>, op: Op) -> Batch {
    let mut builder = BatchBuilder::new();
    let mut record = builder.record(schema);
    record.op(Some(op)).timestamp_ms(5);
    if op != Op::Truncate {
        record.key(|row| row.int(7));
    }
    if op == Op::Delete {
        record.before(|row| row.int(7));
    }
    if op != Op::Tombstone {
        record.source(|row| row.int(1));
    }
    record.finish();
    builder.build()
}

#[test]
fn the_envelope_is_debeziums() {
    let written = encode(ID, update(&orders(), false).record(0));
    assert_eq!(written.key.as_deref(), Some(r#"{"id":7}"#));
    assert_eq!(
        written.value.as_deref(),
        Some(concat!(
            r#"{"before":{"id":7},"#,
            r#""after":{"id":7,"price":"12.50","no\"te":"a\n\"b\"","doc":{"k": [1]},"raw":"/w=="},"#,
            r#""source":{"connector":"postgresql","schema":"public","table":"orders","lsn":99,"snapshot":null},"#,
            r#""op":"u","ts_ms":5}"#
        ))
    );
    assert_eq!(written.headers, [(header::SCHEMA, Some(orders().id().0.to_vec()))]);
}

#[test]
fn flat_records_are_their_row_and_name_their_operation() {
    let written = encode(ID, update(&orders(), true).record(0));
    assert!(written.value.as_deref().unwrap().starts_with(r#"{"id":7,"price":"12.50","#));
    assert_eq!(written.headers[1], (header::OP, Some(b"u".to_vec())));
    let batch = decode(ID, &written, Some(&orders())).unwrap();
    assert_eq!((batch.record(0).op(), batch.record(0).is_flat()), (Some(Op::Update), true));
}

#[test]
fn deletes_truncates_and_tombstones_come_back_as_what_they_are() {
    for flat in [false, true] {
        for op in [Op::Delete, Op::Truncate, Op::Tombstone] {
            let batch = change(&orders(), op);
            let mut builder = BatchBuilder::new();
            let schema = orders();
            let mut record = builder.record_like(batch.record(0), &schema);
            record
                .flat(flat)
                .copy_key(batch.record(0))
                .copy_images(batch.record(0))
                .copy_source(batch.record(0));
            record.finish();
            let written = encode(ID, builder.build().record(0));
            assert_eq!(written.value.is_some(), !flat && op != Op::Tombstone, "{op:?}");
            let read = decode(ID, &written, Some(&schema)).unwrap();
            assert_eq!(read.record(0).op(), Some(op), "flat: {flat}");
            assert_eq!(read.record(0).key().is_some(), op != Op::Truncate);
            assert_eq!(read.record(0).before().is_some(), !flat && op == Op::Delete);
        }
    }
}

#[test]
fn a_record_that_only_looks_like_a_change_event_stays_plain() {
    let schema = orders();
    let mut builder = BatchBuilder::new();
    let mut record = builder.record(&schema);
    record.after(|row| row.int(1));
    record.finish();
    let written = encode(ID, builder.build().record(0));
    let read = decode(ID, &written, Some(&schema)).unwrap();
    assert_eq!((read.record(0).op(), read.record(0).is_flat()), (None, false));
    assert_eq!(read.record(0).after().unwrap().get(0), Value::Int(1));
}

#[test]
fn inline_schemas_rebuild_the_schema_exactly() {
    let batch = update(&orders(), false);
    let written = encode(INLINE, batch.record(0));
    assert!(written.headers.is_empty());
    let value: serde_json::Value = serde_json::from_str(written.value.as_deref().unwrap()).unwrap();
    assert_eq!(value["schema"]["name"], "public.orders.Envelope");
    assert_eq!(value["schema"]["fields"][1]["fields"][3]["name"], "io.debezium.data.Json");
    assert_eq!(value["payload"]["after"]["doc"], "{\"k\": [1]}");
    let read = decode(INLINE, &written, None).unwrap();
    assert_eq!(read.record(0).schema().to_json(), orders().to_json());
    assert_eq!(images(read.record(0)), images(batch.record(0)));
}

type Images = [Option<Vec<String>>; 4];

fn images(record: RecordView<'_>) -> Images {
    let show = |row: Option<Row<'_>>| row.map(|row| row.values().map(|value| format!("{value:?}")).collect());
    [show(record.key()), show(record.before()), show(record.after()), show(record.source())]
}

#[test]
fn an_envelope_without_schema_is_recognised() {
    let value = concat!(
        r#"{"before":{"id":1,"a":"x","b":null},"after":{"id":1,"a":5,"c":[1]},"#,
        r#""source":{"db":"shop","schema":"public","table":"o\"x"},"op":"u","ts_ms":1,"transaction":null}"#
    );
    let read = decode(NONE, &text_record(Some(r#"{"id":1}"#), Some(value)), None).unwrap();
    let record = read.record(0);
    assert_eq!(record.op(), Some(Op::Update));
    let (before, after) = (record.before().unwrap(), record.after().unwrap());
    assert_eq!(after.by_name("a"), Some(Value::Text("5")), "two types meet as JSON");
    assert_eq!(before.by_name("a"), Some(Value::Text("\"x\"")));
    assert_eq!((before.by_name("b"), after.by_name("b")), (Some(Value::Null), Some(Value::Absent)));
    assert_eq!(record.schema().variables()["table"], "o\"x");
    assert_eq!(record.schema().variables()["database"], "shop");
    assert_eq!(record.key().unwrap().by_name("id"), Some(Value::Int(1)));
}

#[test]
fn other_peoples_records_are_inferred() {
    let cases = [
        (r#"{"a":18446744073709551616}"#, Type::Decimal, Value::Text("18446744073709551616")),
        (r#"{"a":1e400}"#, Type::Decimal, Value::Text("1e400")),
        (r#"{"a":{"$json":"x"}}"#, Type::Json, Value::Text(r#"{"$json":"x"}"#)),
        (r#"{"a":-0.5}"#, Type::Float64, Value::Float64(-0.5)),
        (r#""line""#, Type::String, Value::Text("line")),
    ];
    for (text, ty, value) in cases {
        let read = decode(NONE, &text_record(None, Some(text)), None).unwrap();
        let row = read.record(0).after().unwrap();
        assert_eq!((&row.schema().fields[0].ty, row.get(0)), (&ty, value), "{text}");
    }
    let read = decode(NONE, &text_record(Some("user-7"), Some("{}")), None).unwrap();
    assert_eq!(read.record(0).key().unwrap().get(0), Value::Text("user-7"), "a key that is no JSON is text");
    assert_eq!(read.record(0).op(), None);
    let read = decode(NONE, &text_record(Some("user-7"), None), None).unwrap();
    assert_eq!(read.record(0).op(), Some(Op::Tombstone));
}

#[test]
fn a_null_value_is_a_deletion_where_values_are_rows() {
    let topic = TopicName::new("t").unwrap();
    let mut decoder = Decoder::new(NONE);
    let mut builder = BatchBuilder::new();
    let envelope = r#"{"before":{"id":1},"after":null,"source":{"db":"x"},"op":"d","ts_ms":1}"#;
    for value in [None, Some(r#"{"id":1}"#), None, Some(envelope), None, Some(r#"{"id":1}"#), None] {
        let incoming = Incoming {
            topic: &topic,
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(br#"{"id":1}"#),
            value: value.map(str::as_bytes),
            schema: None,
        };
        decoder.decode(incoming, std::iter::empty(), &mut builder).unwrap();
    }
    let batch = builder.build();
    let tombstones = batch.records().filter(|record| record.op() == Some(Op::Tombstone));
    let flat: Vec<bool> = tombstones.map(|record| record.is_flat()).collect();
    assert_eq!(flat, [true, true, false, true], "behind a change event it says nothing new");
}

#[test]
fn debeziums_logical_types_become_canonical_text() {
    let fields = [
        (r#"{"type":"int32","optional":true,"name":"io.debezium.time.Date","field":"a"}"#, "19782"),
        (r#"{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","field":"b"}"#, "-1"),
        (r#"{"type":"int64","optional":true,"name":"io.debezium.time.MicroTime","field":"c"}"#, "3723000000"),
        (
            r#"{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"d"}"#,
            "\"BNI=\"",
        ),
        (
            r#"{"type":"struct","fields":[],"optional":true,"name":"io.debezium.data.VariableScaleDecimal","field":"e"}"#,
            r#"{"scale":1,"value":"/w=="}"#,
        ),
        (
            r#"{"type":"string","optional":true,"name":"io.debezium.data.Json","field":"f"}"#,
            r#""{\"x\": 1}""#,
        ),
        (r#"{"type":"array","items":{"type":"int32"},"optional":true,"field":"g"}"#, "[1,2]"),
        (r#"{"type":"string","optional":true,"field":"h"}"#, "\"__debezium_unavailable_value\""),
    ];
    let schema: Vec<_> = fields.iter().map(|(schema, _)| *schema).collect();
    let payload: Vec<_> = fields
        .iter()
        .zip("abcdefgh".chars())
        .map(|((_, value), name)| format!("\"{name}\":{value}"))
        .collect();
    let value = format!(
        r#"{{"schema":{{"type":"struct","fields":[{}],"optional":false,"name":"x.Value"}},"payload":{{{}}}}}"#,
        schema.join(","),
        payload.join(",")
    );
    let read = decode(NONE, &text_record(None, Some(&value)), None).unwrap();
    let values: Vec<_> = read.record(0).after().unwrap().values().collect();
    let texts =
        ["2024-02-29", "1969-12-31T23:59:59.999999", "01:02:03", "12.34", "-0.1", "{\"x\": 1}", "[1,2]"];
    let mut expected: Vec<_> = texts.into_iter().map(Value::Text).collect();
    expected.push(Value::Absent);
    assert_eq!(values, expected);
    assert_eq!(read.record(0).schema().name(), "x");
}

#[test]
fn what_does_not_fit_is_refused_and_says_where() {
    let schema = orders();
    let try_value = |value: &str| {
        let mut written = text_record(Some(r#"{"id":1}"#), Some(value));
        written.headers.push((header::OP, Some(b"c".to_vec())));
        decode(ID, &written, Some(&schema)).unwrap_err().to_string()
    };
    assert_eq!(try_value(r#"{"id":"x"}"#), "`id`: a whole number was expected");
    assert_eq!(try_value(r#"{"id":99999999999999999999}"#), "`id`: a whole number was expected");
    assert_eq!(try_value(r#"{"idd":1}"#), "`idd` is not in the schema the record names");
    assert_eq!(try_value(r#"{"raw":"?"}"#), "`raw`: base64 was expected");
    assert!(try_value(r#"{"id":1"#).starts_with("not valid JSON at byte"));
    assert!(try_value("{} x").contains("more text follows"));
    let envelope = decode(ID, &text_record(None, Some(r#"{"after":{"id":1}}"#)), Some(&schema));
    assert_eq!(envelope.unwrap_err().code(), "FORMAT_MISMATCH");
}

#[test]
fn raw_is_verbatim_and_refuses_rows() {
    let schema = Arc::new(
        EventSchema::new("lines", Arc::new(RowSchema::bare(Type::String)))
            .with_key(Some(Arc::new(RowSchema::new(vec![Field::required("id", Type::Int32)])))),
    );
    let mut builder = BatchBuilder::new();
    let mut record = builder.record(&schema);
    record.key(|row| row.int(7)).after(|row| row.text("a \"line\""));
    record.finish();
    let written = encode(RAW, builder.build().record(0));
    assert_eq!(written, text_record(Some("7"), Some("a \"line\"")));
    let read = decode(RAW, &written, None).unwrap();
    assert_eq!(read.record(0).after().unwrap().get(0), Value::Bytes(b"a \"line\""));
    assert_eq!(read.record(0).key().unwrap().get(0), Value::Bytes(b"7"));
    let error = Encoder::new(RAW).encode(update(&orders(), true).record(0), &mut Vec::new()).unwrap_err();
    assert_eq!(error.code(), "FORMAT_RAW");
}

#[test]
fn members_in_another_order_and_twice_are_read() {
    let mut written = text_record(None, Some(r#"{"raw":"/w==","price":1.50,"id":1,"id":2}"#));
    written.headers.push((header::OP, Some(b"c".to_vec())));
    let read = decode(ID, &written, Some(&orders())).unwrap();
    let values: Vec<_> = read.record(0).after().unwrap().values().collect();
    assert_eq!(
        values,
        [Value::Int(2), Value::Text("1.50"), Value::Absent, Value::Absent, Value::Bytes(&[0xff])]
    );
}

#[derive(Debug, Clone)]
enum Cell {
    Null,
    Absent,
    Bool(bool),
    Int(i64),
    F32(f32),
    F64(f64),
    Bytes(Vec<u8>),
    Text(String),
}

impl Cell {
    fn write(&self, row: &mut RowWriter<'_>) {
        match self {
            Self::Null => row.null(),
            Self::Absent => row.absent(),
            Self::Bool(value) => row.bool(*value),
            Self::Int(value) => row.int(*value),
            Self::F32(value) => row.float32(*value),
            Self::F64(value) => row.float64(*value),
            Self::Bytes(value) => row.bytes(value),
            Self::Text(value) => row.text(value),
        }
    }
}

fn column() -> impl Strategy<Value = (Type, Vec<Cell>)> {
    let cells = |ty: Type, cell: BoxedStrategy<Cell>| {
        let cell = prop_oneof![1 => Just(Cell::Null), 1 => Just(Cell::Absent), 6 => cell];
        proptest::collection::vec(cell, 2).prop_map(move |cells| (ty.clone(), cells))
    };
    let text = "\\PC{0,12}|[\\x00-\\x7f]{0,12}".prop_map(Cell::Text).boxed();
    let document =
        "[ ]{0,2}(null|\\{\"\\$json\":\"null\"\\}|\\{\"a\": \\[1, \"\\\\u00e4\"\\]\\}|\"x\"|1\\.50)[ ]{0,2}";
    let document = document.prop_map(Cell::Text).boxed();
    prop_oneof![
        cells(Type::Bool, any::<bool>().prop_map(Cell::Bool).boxed()),
        cells(Type::Int16, any::<i16>().prop_map(|value| Cell::Int(value.into())).boxed()),
        cells(Type::Int64, any::<i64>().prop_map(Cell::Int).boxed()),
        cells(Type::Float32, any::<f32>().prop_map(Cell::F32).boxed()),
        cells(Type::Float64, any::<f64>().prop_map(Cell::F64).boxed()),
        cells(Type::Decimal, "-?[0-9]{1,30}(\\.[0-9]{1,9})?|NaN|Infinity".prop_map(Cell::Text).boxed()),
        cells(Type::Bytes, proptest::collection::vec(any::<u8>(), 0..20).prop_map(Cell::Bytes).boxed()),
        cells(Type::String, text.clone()),
        cells(Type::Timestamp, Just(Cell::Text("0044-03-15T12:00:00 BC".into())).boxed()),
        cells(Type::Interval, text),
        cells(Type::Json, document.clone()),
        cells(Type::Array(Box::new(Type::Int32)), document),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_change_event_comes_back(
        columns in proptest::collection::vec(("\\PC{1,6}", column()), 1..8),
        flat in any::<bool>(),
        inline in any::<bool>(),
    ) {
        let mut names = std::collections::HashSet::new();
        let columns: Vec<_> = columns.into_iter().filter(|(name, _)| names.insert(name.clone())).collect();
        let fields = columns.iter().map(|(name, (ty, _))| Field::nullable(name.as_str(), ty.clone())).collect();
        let value = Arc::new(RowSchema::new(fields));
        let source = SourceBlock { constants: vec![("table".into(), "t".into())], fields: (*value).clone() };
        let schema = Arc::new(
            EventSchema::new("s.t", Arc::clone(&value))
                .with_key(Some(value))
                .with_variables([("table".to_owned(), "t".to_owned())].into())
                .with_source(Some(Arc::new(source))),
        );
        let write = |which: usize| {
            let columns = &columns;
            move |row: &mut RowWriter<'_>| columns.iter().for_each(|(_, (_, cells))| cells[which].write(row))
        };
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&schema);
        record.op(Some(Op::Update)).flat(flat).key(write(0)).before(write(0)).after(write(1)).source(write(0));
        record.finish();
        let batch = builder.build();
        let format = if inline { INLINE } else { ID };
        let written = encode(format, batch.record(0));
        let read = decode(format, &written, (!inline).then_some(&schema)).unwrap();
        let [key, before, after, source] = images(batch.record(0));
        let expected = if flat { [key, None, after, None] } else { [key, before, after, source] };
        prop_assert_eq!(images(read.record(0)), expected);
        if !flat {
            prop_assert_eq!(read.record(0).schema().id(), schema.id());
        }
    }

    #[test]
    fn hostile_bytes_never_panic(
        value in "(\\{|\\}|\\[|\\]|\"|,|:|schema|payload|type|struct|fields|before|after|op|c|id|[0-9.eE-]|\\\\|null){0,24}",
        with_schema in any::<bool>(),
    ) {
        let schema = orders();
        let written = text_record(Some(&value), Some(&value));
        let _ = decode(NONE, &written, with_schema.then_some(&schema));
        let _ = decode(RAW, &written, with_schema.then_some(&schema));
    }
}
