//! What every transform must do.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Violation, descriptor, ensure};
use crate::{
    Batch, BatchBuilder, EventSchema, Field, Op, RawConfig, RecordView, Row, RowSchema, SourceBlock,
    Transform, TransformFactory, Type,
};

/// Checks a transform, with options in normal form that it accepts, over the records of [`records`]: whatever it does
/// with them, it may not lose their places, keep them, or depend on how they are cut into batches.
///
/// # Errors
/// The first [`Violation`].
pub async fn transform(factory: &dyn TransformFactory, config: &RawConfig) -> Result<(), Violation> {
    descriptor(factory.descriptor())?;
    let build = || {
        factory
            .parse(config)
            .map_err(|problems| Violation::new("accepted options are accepted again", problems.to_string()))
    };
    let mut first = build()?;
    let empty = apply(&mut *first, Batch::default()).await?;
    ensure("nothing comes of nothing", empty.0.is_empty() && empty.1.is_empty(), || format!("{empty:?}"))?;
    let whole = apply(&mut *first, records()).await?;
    places(&whole)?;
    let again = apply(&mut *first, records()).await?;
    ensure("the same records become the same again", whole == again, || difference(&whole, &again))?;
    let other = apply(&mut *build()?, records()).await?;
    ensure("a new instance makes the same", whole == other, || difference(&whole, &other))?;
    let mut parts = (Vec::new(), Vec::new());
    let mut single = build()?;
    for index in 0..records().len() {
        let mut part = records();
        part.retain(|at, _| at == index);
        let (passed, rejected) = apply(&mut *single, part).await?;
        parts.0.extend(passed);
        parts.1.extend(rejected);
    }
    ensure("records one by one become the same as in one batch", whole == parts, || {
        difference(&whole, &parts)
    })
}

/// Contents of the records that went on, and of those that were rejected.
type Outcome = (Vec<String>, Vec<String>);

async fn apply(transform: &mut dyn Transform, batch: Batch) -> Result<Outcome, Violation> {
    let transformed = transform
        .apply(batch)
        .await
        .map_err(Violation::failed("good records are transformed or rejected"))?;
    for record in transformed.batch.records() {
        sound(record)?;
    }
    let (rejected, errors) = transformed.rejected.into_parts();
    ensure("every rejected record has a reason", rejected.len() == errors.len(), || {
        format!("{} records, {} reasons", rejected.len(), errors.len())
    })?;
    let originals = records();
    let original =
        |record: &RecordView<'_>| originals.records().any(|original| placed(original) == placed(*record));
    ensure("records are rejected as they came", rejected.records().all(|it| original(&it)), || {
        rejected.records().map(placed).collect::<Vec<_>>().join("\n")
    })?;
    Ok((transformed.batch.records().map(placed).collect(), rejected.records().map(placed).collect()))
}

/// Every row fits its schema.
fn sound(record: RecordView<'_>) -> Result<(), Violation> {
    const CLAUSE: &str = "every row fits its schema";
    let schema = record.schema();
    let rows = [
        (record.key(), schema.key().map(Arc::as_ref)),
        (record.before(), Some(schema.value().as_ref())),
        (record.after(), Some(schema.value().as_ref())),
        (record.source(), schema.source().map(|block| &block.fields)),
    ];
    for (row, schema) in rows {
        let (Some(row), Some(schema)) = (row, schema) else { continue };
        ensure(CLAUSE, row.len() == schema.fields.len(), || format!("{row:?}"))?;
        for (value, field) in row.values().zip(&schema.fields) {
            ensure(CLAUSE, field.nullable || value != crate::Value::Null, || {
                format!("`{}` of {} is null and may not be", field.name, record.schema().name())
            })?;
        }
    }
    Ok(())
}

/// Each record that goes on keeps the place of one that came in, in their order; none is both passed and rejected.
fn places(outcome: &Outcome) -> Result<(), Violation> {
    const CLAUSE: &str = "records keep their places and their order";
    let place = |text: &String| text.split(' ').next().unwrap_or_default().to_owned();
    let all: Vec<_> = records().records().map(|record| place(&placed(record))).collect();
    for half in [&outcome.0, &outcome.1] {
        let mut left = all.iter();
        for text in half {
            let found = left.any(|known| *known == place(text));
            ensure(CLAUSE, found, || format!("there is no such place, or not here: {text}"))?;
        }
    }
    let twice = outcome.0.iter().find(|text| outcome.1.iter().any(|other| place(other) == place(text)));
    ensure("a record is passed or rejected, not both", twice.is_none(), || format!("{twice:?}"))
}

fn difference(a: &Outcome, b: &Outcome) -> String {
    let lines = |(passed, rejected): &Outcome| [passed.as_slice(), rejected.as_slice()].concat();
    let (a, b) = (lines(a), lines(b));
    let differing = a.iter().zip(&b).find(|(a, b)| a != b);
    differing.map_or_else(
        || format!("{} records instead of {}", b.len(), a.len()),
        |(a, b)| format!("{b}\n  instead of\n{a}"),
    )
}

/// A record's place, and its content.
fn placed(record: RecordView<'_>) -> String {
    format!("{}/{}/{:02x?} {}", record.offset(), record.lane(), record.position(), content(record))
}

/// Everything that a record says, but for its place, as text.
pub(crate) fn content(record: RecordView<'_>) -> String {
    let mut text = format!(
        "{} {:?} flat={} ts={} topic={:?} partition={:?}",
        record.schema().id(),
        record.op(),
        record.is_flat(),
        record.timestamp_ms(),
        record.topic().map(|topic| topic.as_str()),
        record.partition()
    );
    let mut row = |name: &str, row: Option<Row<'_>>| {
        let Some(row) = row else { return };
        let _ = write!(text, " {name}=");
        for (value, field) in row.values().zip(&row.schema().fields) {
            let _ = write!(text, "[{}:{}={value:?}]", field.name, field.ty);
        }
    };
    row("key", record.key());
    row("before", record.before());
    row("after", record.after());
    row("source", record.source());
    for (name, value) in record.headers() {
        let _ = write!(text, " {name}:{value:?}");
    }
    text
}

/// Records of every kind: change events with all operations, plain ones, null and absent fields, headers, positions in
/// lanes, every type, and texts that hold what people write (addresses, numbers, nothing at all).
#[must_use]
pub fn records() -> Batch {
    let mut builder = BatchBuilder::new();
    let customers = customers();
    let ops = [Op::Read, Op::Create, Op::Update, Op::Delete, Op::Truncate, Op::Tombstone];
    for (index, op) in ops.into_iter().enumerate() {
        customer(&mut builder, &customers, index as i64, op);
    }
    let everything = everything();
    for index in 0..4_i64 {
        let mut record = builder.record(&everything);
        record.timestamp_ms(1_700_000_000_000 + index).offset(100 + index).flat(index == 3);
        record.after(|row| everything_row(row, &everything, index));
        record.finish();
    }
    let lines = Arc::new(EventSchema::new("lines", Arc::new(RowSchema::bare(Type::String))));
    for (index, line) in ["", "Zoë <zoe@example.com> 4111 1111 1111 1111", "a\u{0}b"].into_iter().enumerate()
    {
        let mut record = builder.record(&lines);
        record.offset(200 + index as i64).position(9, &[index as u8]).after(|row| row.text(line));
        record.finish();
    }
    builder.build()
}

fn customers() -> Arc<EventSchema> {
    let value = RowSchema::new(vec![
        Field::required("id", Type::Int64),
        Field::nullable("email", Type::String),
        Field::nullable("note", Type::String),
        Field {
            source_type: Some("postgres:numeric(10,2)".into()),
            ..Field::nullable("balance", Type::Decimal)
        },
    ]);
    let source = SourceBlock {
        constants: vec![("db".into(), "shop".into()), ("table".into(), "customers".into())],
        fields: RowSchema::new(vec![Field::required("lsn", Type::Int64)]),
    };
    let variables = [("schema", "public"), ("table", "customers")].map(|(name, of)| (name.into(), of.into()));
    Arc::new(
        EventSchema::new("public.customers", Arc::new(value))
            .with_key(Some(Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]))))
            .with_source(Some(Arc::new(source)))
            .with_variables(variables.into()),
    )
}

fn customer(builder: &mut BatchBuilder, schema: &Arc<EventSchema>, id: i64, op: Op) {
    let mut record = builder.record(schema);
    record.op(Some(op)).timestamp_ms(1_700_000_000_000).offset(id).position(3, format!("p{id}").as_bytes());
    record.header("trace", Some(b"abc")).header("empty", None);
    if op != Op::Truncate {
        record.key(|row| row.int(id));
    }
    if matches!(op, Op::Update | Op::Delete) {
        record.before(|row| {
            row.int(id);
            row.text("old@example.org");
            row.null();
            row.text("1.50");
        });
    }
    if matches!(op, Op::Create | Op::Read | Op::Update) {
        record.after(|row| {
            row.int(id);
            row.text("new.name+tag@example.co.uk");
            if op == Op::Update {
                row.absent()
            } else {
                row.text("card 4111 1111 1111 1111, call me")
            }
            row.text("-99999999999999999999.01");
        });
    }
    record.source(|row| row.int(99 + id));
    record.finish();
}

fn everything() -> Arc<EventSchema> {
    let types = [
        Type::Bool,
        Type::Int16,
        Type::Int32,
        Type::Int64,
        Type::Float32,
        Type::Float64,
        Type::Decimal,
        Type::String,
        Type::Bytes,
        Type::Date,
        Type::Time,
        Type::TimeTz,
        Type::Timestamp,
        Type::TimestampTz,
        Type::Interval,
        Type::Uuid,
        Type::Json,
        Type::Array(Box::new(Type::Int32)),
        Type::Array(Box::new(Type::Array(Box::new(Type::String)))),
    ];
    let fields =
        types.into_iter().enumerate().map(|(at, ty)| Field::nullable(format!("f{at}"), ty)).collect();
    Arc::new(EventSchema::new("everything", Arc::new(RowSchema::new(fields))))
}

/// Row 0 has values, row 1 nulls, row 2 nothing told, row 3 values again.
fn everything_row(row: &mut crate::RowWriter<'_>, schema: &EventSchema, index: i64) {
    for field in &schema.value().fields {
        match (index, &field.ty) {
            (1, _) => row.null(),
            (2, _) => row.absent(),
            (_, Type::Bool) => row.bool(true),
            (_, Type::Int16 | Type::Int32 | Type::Int64) => row.int(-7 - index),
            (_, Type::Float32) => row.float32(f32::MIN),
            (_, Type::Float64) => row.float64(-0.5),
            (_, Type::Decimal) => row.text("123456789012345678901234567890.5"),
            (_, Type::Bytes) => row.bytes(&[0, 0xff, 7]),
            (_, Type::Date) => row.text("0044-03-15 BC"),
            (_, Type::Time) => row.text("23:59:60"),
            (_, Type::TimeTz) => row.text("12:00:00+02"),
            (_, Type::Timestamp) => row.text("infinity"),
            (_, Type::TimestampTz) => row.text("2026-11-29T12:00:00.123456Z"),
            (_, Type::Interval) => row.text("1 mon -3 days"),
            (_, Type::Uuid) => row.text("018f7c9e-0000-7000-8000-000000000000"),
            (_, Type::Json) => row.text(r#"{"mail":"a@example.com"}"#),
            (_, Type::Array(element)) if **element == Type::Int32 => row.text("[1,null,3]"),
            (_, Type::Array(_)) => row.text(r#"[["a"],["b"]]"#),
            (_, Type::String) => row.text("Grüße an zoe@example.com"),
        }
    }
}
