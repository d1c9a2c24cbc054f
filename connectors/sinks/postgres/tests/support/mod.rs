//! A shared server, sinks on it, and records as `postgres_cdc` makes them.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Value as Json, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row as _};
use towpath_api::schema::SourceBlock;
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, EventSchema, Field, Op, RawConfig, RowSchema, RowWriter, Sink,
    SinkBatch, SinkConnector, SinkFactory, TaskContext, Type, Written,
};
use towpath_harness::postgres::{Options, Postgres};
use towpath_sink_postgres::PostgresSink;
use towpath_sql::{pg_array, pg_type};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

/// The server of this test binary.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(&Options::replica().without_fsync()).unwrap())
}

/// A database of its own; gives its name.
pub(crate) fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server().create_database(&name).unwrap();
    name
}

/// Runs SQL, gives unaligned rows.
pub(crate) fn psql(database: &str, sql: &str) -> String {
    server().psql(database, sql).unwrap()
}

pub(crate) fn connector(database: &str, options: Json) -> Box<dyn SinkConnector> {
    connector_at(&server().url(database), options)
}

pub(crate) fn connector_at(url: &str, mut options: Json) -> Box<dyn SinkConnector> {
    options["url"] = json!(url);
    let factory = PostgresSink::default();
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap()
}

/// An open sink that owns partition 0 of `topic`, and where its partition stands.
pub(crate) struct Task {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) partition: TopicPartition,
    pub(crate) id: TopicId,
    pub(crate) next: i64,
}

impl Task {
    pub(crate) async fn open(connector: &dyn SinkConnector, topic: &str) -> Self {
        Self::open_as(connector, topic, TopicId::new(uuid(7))).await
    }

    pub(crate) async fn open_as(connector: &dyn SinkConnector, topic: &str, id: TopicId) -> Self {
        let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
        let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
        let positions = sink.assign(&[(partition.clone(), id)]).await.unwrap();
        let next = positions[&partition].get();
        Self { sink, partition, id, next }
    }

    /// Writes what `fill` builds, at the offsets that follow.
    pub(crate) async fn write(
        &mut self,
        fill: impl FnOnce(&mut Records<'_>),
    ) -> Result<Written, ConnectorError> {
        let mut builder = BatchBuilder::new();
        let mut records = Records { builder: &mut builder, offset: self.next };
        fill(&mut records);
        let next = records.offset;
        let written = self.send(builder.build(), self.next, next).await?;
        if written.rejected.is_empty() {
            self.next = next;
        }
        Ok(written)
    }

    pub(crate) async fn send(
        &mut self,
        batch: Batch,
        first: i64,
        next: i64,
    ) -> Result<Written, ConnectorError> {
        self.sink
            .write(SinkBatch {
                partition: Arc::new(self.partition.clone()),
                topic_id: self.id,
                first_offset: Offset::new(first),
                next_offset: Offset::new(next),
                batch,
            })
            .await
    }

    /// As [`Task::write`], which must take everything.
    pub(crate) async fn take(&mut self, fill: impl FnOnce(&mut Records<'_>)) {
        let written = self.write(fill).await.unwrap();
        assert!(written.rejected.is_empty(), "{:?}", written.rejected);
    }
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

/// A batch in the making.
pub(crate) struct Records<'a> {
    pub(crate) builder: &'a mut BatchBuilder,
    pub(crate) offset: i64,
}

impl Records<'_> {
    /// A change event; `key`, `before` and `after` are values in the schema's order (see [`put`]).
    pub(crate) fn event(
        &mut self,
        schema: &Arc<EventSchema>,
        op: Op,
        key: &[Json],
        before: &[Json],
        after: &[Json],
    ) {
        let mut record = self.builder.record(schema);
        record.op(Some(op)).offset(self.offset).timestamp_ms(1_700_000_000_000);
        self.offset += 1;
        if !key.is_empty() {
            record.key(|row| put(row, key));
        }
        if !before.is_empty() {
            record.before(|row| put(row, before));
        }
        if !after.is_empty() {
            record.after(|row| put(row, after));
        }
        record.finish();
    }

    pub(crate) fn create(&mut self, schema: &Arc<EventSchema>, key: &[Json], after: &[Json]) {
        self.event(schema, Op::Create, key, &[], after);
    }

    pub(crate) fn update(&mut self, schema: &Arc<EventSchema>, key: &[Json], after: &[Json]) {
        self.event(schema, Op::Update, key, &[], after);
    }

    /// A deletion and its tombstone.
    pub(crate) fn delete(&mut self, schema: &Arc<EventSchema>, key: &[Json]) {
        self.event(schema, Op::Delete, key, &[], &[]);
        self.event(schema, Op::Tombstone, key, &[], &[]);
    }

    pub(crate) fn truncate(&mut self, schema: &Arc<EventSchema>) {
        self.event(schema, Op::Truncate, &[], &[], &[]);
    }
}

/// The value that stands for "not told".
pub(crate) fn absent() -> Json {
    json!({"absent": true})
}

/// Writes values: JSON booleans, numbers and strings as such, [`absent`] as absent.
pub(crate) fn put(row: &mut RowWriter<'_>, values: &[Json]) {
    for value in values {
        match value {
            Json::Null => row.null(),
            Json::Bool(value) => row.bool(*value),
            Json::Number(number) if number.is_i64() => row.int(number.as_i64().unwrap()),
            Json::Number(number) => row.float64(number.as_f64().unwrap()),
            Json::String(text) => row.text(text),
            _ => row.absent(),
        }
    }
}

/// `(name, type, source type)` of each field; `key` names the key's.
pub(crate) fn schema(table: &str, fields: &[(&str, Type, &str)], key: &[&str]) -> Arc<EventSchema> {
    let field = |(name, ty, source): &(&str, Type, &str)| Field {
        nullable: !key.contains(name),
        source_type: (!source.is_empty()).then(|| format!("postgres:{source}")),
        ..Field::required(*name, ty.clone())
    };
    let fields: Vec<Field> = fields.iter().map(field).collect();
    let keys: Vec<Field> =
        key.iter().filter_map(|name| fields.iter().find(|field| field.name == *name)).cloned().collect();
    Arc::new(
        EventSchema::new(format!("public.{table}"), Arc::new(RowSchema::new(fields)))
            .with_key((!keys.is_empty()).then(|| Arc::new(RowSchema::new(keys))))
            .with_source(Some(Arc::new(SourceBlock::default())))
            .with_variables(
                [("schema".to_owned(), "public".to_owned()), ("table".to_owned(), table.to_owned())].into(),
            ),
    )
}

/// A table's rows as `postgres_cdc` reads them: every value as text, made canonical.
pub(crate) struct Snapshot {
    pub(crate) schema: Arc<EventSchema>,
    rows: Vec<Vec<Option<String>>>,
    columns: Vec<(Type, Type, u8)>,
}

impl Snapshot {
    pub(crate) async fn read(database: &str, table: &str, key: &[&str]) -> Self {
        let mut connection = PgConnection::connect(&server().url(database)).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(
            "SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; SET search_path = ''"
                .to_owned(),
        ))
        .execute(&mut connection)
        .await
        .unwrap();
        let catalog = "WITH RECURSIVE chain(attnum, oid, base, typmod) AS ( \
             SELECT a.attnum, t.oid, t.typbasetype, CASE WHEN t.typbasetype = 0 THEN a.atttypmod ELSE t.typtypmod END \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped \
             UNION ALL SELECT c.attnum, t.oid, t.typbasetype, c.typmod FROM chain c JOIN pg_type t ON t.oid = c.base \
             WHERE c.base <> 0) \
             SELECT a.attname::text, format_type(t.oid, c.typmod), t.oid::int8, \
             CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem ELSE 0 END::int8, \
             coalesce(e.typdelim::text, ',') FROM chain c JOIN pg_type t ON t.oid = c.oid \
             JOIN pg_attribute a ON a.attrelid = $1::regclass AND a.attnum = c.attnum \
             LEFT JOIN pg_type e ON e.oid = t.typelem WHERE c.base = 0 ORDER BY a.attnum";
        let described =
            sqlx::query(catalog).bind(format!("public.{table}")).fetch_all(&mut connection).await.unwrap();
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for row in &described {
            let (name, formatted): (String, String) = (row.get(0), row.get(1));
            let (oid, element) = (row.get::<i64, _>(2) as u32, row.get::<i64, _>(3) as u32);
            let element_type = pg_type::carrier(element);
            let ty = if element == 0 {
                pg_type::carrier(oid)
            } else {
                Type::Array(Box::new(element_type.clone()))
            };
            columns.push((ty.clone(), element_type, row.get::<String, _>(4).as_bytes()[0]));
            let source_type = Some(pg_type::source_type(&formatted));
            let nullable = !key.contains(&name.as_str());
            fields.push(Field { nullable, source_type, ..Field::required(name, ty) });
        }
        let names: Vec<String> =
            fields.iter().map(|field| format!("{}::text", towpath_sql::ident(&field.name))).collect();
        let sql = format!("SELECT {} FROM public.{table}", names.join(", "));
        let read = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        let rows = read.iter().map(|row| (0..fields.len()).map(|column| row.get(column)).collect()).collect();
        let keys: Vec<Field> =
            key.iter().filter_map(|name| fields.iter().find(|field| field.name == *name)).cloned().collect();
        let schema = EventSchema::new(format!("public.{table}"), Arc::new(RowSchema::new(fields)))
            .with_key((!keys.is_empty()).then(|| Arc::new(RowSchema::new(keys))))
            .with_source(Some(Arc::new(SourceBlock::default())));
        Self { schema: Arc::new(schema), rows, columns }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds all rows as records of a snapshot.
    pub(crate) fn push(&self, records: &mut Records<'_>, op: Op, as_before: bool) {
        for row in &self.rows {
            let mut record = records.builder.record(&self.schema);
            record.op(Some(op)).offset(records.offset);
            records.offset += 1;
            let key = self.schema.key().map(|key| key.fields.clone()).unwrap_or_default();
            record.key(|writer| {
                for field in &key {
                    let at = self.schema.value().index_of(&field.name).unwrap();
                    self.write(writer, at, row[at].as_deref());
                }
            });
            let fill = |writer: &mut RowWriter<'_>| {
                for (at, value) in row.iter().enumerate() {
                    self.write(writer, at, value.as_deref());
                }
            };
            if as_before {
                record.before(fill);
            } else {
                record.after(fill);
            }
            record.finish();
        }
    }

    fn write(&self, row: &mut RowWriter<'_>, column: usize, text: Option<&str>) {
        let (ty, element, delimiter) = &self.columns[column];
        let Some(text) = text else { return row.null() };
        match ty {
            // `::text` writes booleans in full.
            Type::Bool => row.bool(text == "true"),
            Type::Int16 | Type::Int32 | Type::Int64 => row.int(text.parse().unwrap()),
            Type::Float32 => row.float32(text.parse().unwrap()),
            Type::Float64 => row.float64(text.parse().unwrap()),
            Type::Bytes => {
                let mut bytes = Vec::new();
                pg_type::push_bytea(&mut bytes, text.as_bytes()).unwrap();
                row.bytes(&bytes);
            }
            Type::Timestamp | Type::TimestampTz => row
                .text_with(|out| {
                    pg_type::push_timestamp(out, text.as_bytes());
                    Ok::<(), ()>(())
                })
                .unwrap(),
            Type::Array(_) => {
                row.text_with(|out| pg_array::literal_to_json(text, element, *delimiter, out)).unwrap();
            }
            _ => row.text(text),
        }
    }
}
