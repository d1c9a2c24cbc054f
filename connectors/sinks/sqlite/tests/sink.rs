//! The SQLite sink on real files.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use towpath_api::conformance::{self, SinkWorld};
use towpath_api::schema::SourceBlock;
use towpath_api::{
    BatchBuilder, ColumnId, ConnectorError, ErrorKind, EventSchema, Field, Guarantee, Op, RawConfig,
    RowSchema, RowWriter, Sink, SinkBatch, SinkConnector, SinkFactory, TaskContext, Type, Written,
};
use towpath_sink_sqlite::SqliteSink;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

fn connector(path: &Path, mut options: Json) -> Box<dyn SinkConnector> {
    options["path"] = json!(path);
    let factory = SqliteSink::default();
    conformance::descriptor(factory.descriptor()).unwrap();
    factory.parse(&RawConfig::with_defaults(&factory.descriptor().options, options).unwrap()).unwrap()
}

/// All rows of a query, values quoted as SQL, with a bar between them.
async fn query(path: &Path, sql: &str) -> String {
    let mut connection = connect(path).await;
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join(" ")
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn run(path: &Path, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connect(path).await).await.unwrap();
}

struct Task {
    sink: Box<dyn Sink>,
    partition: Arc<TopicPartition>,
    next: i64,
}

impl Task {
    async fn open(connector: &dyn SinkConnector, topic: &str) -> Self {
        let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
        let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
        let next = sink.assign(&[(partition.clone(), TopicId::ZERO)]).await.unwrap()[&partition].get();
        Self { sink, partition: Arc::new(partition), next }
    }

    /// Writes `(op, key, before, after)` at the offsets that follow.
    async fn write(&mut self, schema: &Arc<EventSchema>, events: &[(Op, Json, Json, Json)]) -> Written {
        self.try_write(schema, events).await.unwrap()
    }

    async fn try_write(
        &mut self,
        schema: &Arc<EventSchema>,
        events: &[(Op, Json, Json, Json)],
    ) -> Result<Written, ConnectorError> {
        let mut builder = BatchBuilder::new();
        for (offset, (op, key, before, after)) in (self.next..).zip(events) {
            let mut record = builder.record(schema);
            record.op(Some(*op)).offset(offset);
            if !key.is_null() {
                record.key(|row| put(row, key));
            }
            if !before.is_null() {
                record.before(|row| put(row, before));
            }
            if !after.is_null() {
                record.after(|row| put(row, after));
            }
            record.finish();
        }
        let next = self.next + events.len() as i64;
        let written = self.send(builder, next).await?;
        if written.rejected.is_empty() {
            self.next = next;
        }
        Ok(written)
    }

    async fn send(&mut self, builder: BatchBuilder, next: i64) -> Result<Written, ConnectorError> {
        let batch = SinkBatch {
            partition: Arc::clone(&self.partition),
            topic_id: TopicId::ZERO,
            first_offset: Offset::new(self.next),
            next_offset: Offset::new(next),
            batch: builder.build(),
        };
        self.sink.write(batch).await
    }

    async fn take(&mut self, schema: &Arc<EventSchema>, events: &[(Op, Json, Json, Json)]) {
        let written = self.write(schema, events).await;
        assert!(written.rejected.is_empty(), "{:?}", written.rejected);
    }
}

fn put(row: &mut RowWriter<'_>, values: &Json) {
    for value in values.as_array().unwrap() {
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

fn schema(fields: Vec<Field>, key: &[&str]) -> Arc<EventSchema> {
    let keys: Vec<_> = fields.iter().filter(|field| key.contains(&field.name.as_str())).cloned().collect();
    Arc::new(
        EventSchema::new("orders", Arc::new(RowSchema::new(fields)))
            .with_key((!keys.is_empty()).then(|| Arc::new(RowSchema::new(keys))))
            .with_source(Some(Arc::new(SourceBlock::default()))),
    )
}

fn orders(key: &[&str]) -> Arc<EventSchema> {
    let fields = vec![
        Field::required("id", Type::Int64),
        Field::nullable("name", Type::String),
        Field::nullable("body", Type::String),
    ];
    schema(fields, key)
}

const ORDERS: &str = "SELECT id || '|' || quote(name) || '|' || quote(body) FROM orders ORDER BY 1";
const NONE: Json = Json::Null;

struct World(tempfile::TempDir);

#[async_trait]
impl SinkWorld for World {
    fn connector(&self) -> Box<dyn SinkConnector> {
        connector(&self.0.path().join("held.db"), json!({"table": "held"}))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn held(&mut self) -> Vec<i64> {
        let ids = query(&self.0.path().join("held.db"), "SELECT id || '' FROM held").await;
        ids.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        row.null();
        row.text("a row without its key");
        true
    }

    fn schema(&self) -> Arc<EventSchema> {
        schema(vec![Field::nullable("id", Type::Int64), Field::nullable("text", Type::String)], &["id"])
    }

    fn topic(&self) -> TopicName {
        TopicName::new("conformance").unwrap()
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    conformance::sink(&mut World(tempfile::tempdir().unwrap())).await.unwrap();
}

#[tokio::test]
async fn rows_follow_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "{topic.2}"}));
    let orders = orders(&["id"]);
    let mut task = Task::open(connector.as_ref(), "shop.main.orders").await;
    let absent = json!({});
    let mut events: Vec<_> =
        (1..=300).map(|id| (Op::Create, json!([id]), NONE, json!([id, "new", "long"]))).collect();
    events.extend((3..=300).map(|id| (Op::Delete, json!([id]), NONE, NONE)));
    events.push((Op::Tombstone, json!([300]), NONE, NONE));
    events.push((Op::Update, json!([1]), NONE, json!([1, "changed", absent])));
    task.take(&orders, &events).await;
    assert_eq!(query(&path, ORDERS).await, "1|'changed'|'long' 2|'new'|'long'");
    task.take(
        &orders,
        &[
            (Op::Update, json!([1]), NONE, json!([1, "kept", absent])),
            (Op::Delete, json!([2]), NONE, NONE),
            (Op::Create, json!([5]), NONE, json!([5, "moved", absent])),
        ],
    )
    .await;
    assert_eq!(query(&path, ORDERS).await, "1|'kept'|'long' 5|'moved'|'long'");
    let written = task.write(&orders, &[(Op::Update, json!([9]), NONE, json!([9, "x", absent]))]).await;
    assert_eq!(written.rejected[0].error.code(), "SINK_ROW_MISSING");
    task.take(
        &orders,
        &[(Op::Truncate, NONE, NONE, NONE), (Op::Create, json!([7]), NONE, json!([7, null, "x"]))],
    )
    .await;
    assert_eq!(query(&path, ORDERS).await, "7|NULL|'x'");
    task.sink.close().await.unwrap();
    assert_eq!(Task::open(connector.as_ref(), "shop.main.orders").await.next, task.next);
}

#[tokio::test]
async fn keys_of_several_columns_and_tables_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "orders"}));
    let mut task = Task::open(connector.as_ref(), "t").await;
    let pair = orders(&["id", "name"]);
    let mut events: Vec<_> = (0..20)
        .flat_map(|id| ["a", "b"].map(|name| (Op::Create, json!([id, name]), NONE, json!([id, name, "x"]))))
        .collect();
    events.extend((1..20).flat_map(|id| ["a", "b"].map(|name| (Op::Delete, json!([id, name]), NONE, NONE))));
    task.take(&pair, &events[..40]).await;
    task.take(&pair, &events[40..]).await;
    assert_eq!(query(&path, ORDERS).await, "0|'a'|'x' 0|'b'|'x'");

    run(&path, "DROP TABLE orders").await;
    let mut task = Task::open(connector.as_ref(), "t").await;
    let keyless = orders(&[]);
    let same = json!([1, "same", null]);
    let mut events = vec![(Op::Create, NONE, NONE, same.clone()); 3];
    events.push((Op::Update, NONE, same.clone(), json!([1, "other", "x"])));
    events.push((Op::Delete, NONE, same, NONE));
    task.take(&keyless, &events).await;
    assert_eq!(query(&path, ORDERS).await, "1|'other'|'x' 1|'same'|NULL");
}

#[tokio::test]
async fn values_keep_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "\"Odd \"\"T\"\".x\""}));
    let typed = |name: &str, ty, source: &str| Field {
        source_type: (!source.is_empty()).then(|| format!("sqlite:{source}")),
        ..Field::nullable(name, ty)
    };
    let fields = vec![
        typed("id", Type::Int64, "INTEGER"),
        typed("price", Type::Decimal, ""),
        typed("declared", Type::Decimal, "DECIMAL(10,2)"),
        typed("Flag \"x\"", Type::Bool, ""),
        typed("ratio", Type::Float64, ""),
        typed("doc", Type::Json, ""),
    ];
    let schema = schema(fields, &["id"]);
    let mut task = Task::open(connector.as_ref(), "t").await;
    let row = json!([9_223_372_036_854_775_807_i64, "1.500", "1.500", true, 0.1, "{\"a\": 1}"]);
    task.take(&schema, &[(Op::Create, json!([9_223_372_036_854_775_807_i64]), NONE, row)]).await;
    let values = "SELECT quote(id) || quote(price) || quote(declared) || quote(\"Flag \"\"x\"\"\") || quote(ratio) || \
                  quote(doc) FROM \"Odd \"\"T\"\".x\"";
    assert_eq!(query(&path, values).await, "9223372036854775807'1.500'1.510.1'{\"a\": 1}'");
    let declared = "SELECT group_concat(type, ',') FROM pragma_table_info('Odd \"T\".x')";
    assert_eq!(query(&path, declared).await, "INTEGER,TEXT,DECIMAL(10,2),INTEGER,REAL,TEXT");
}

#[tokio::test]
async fn columns_are_added_and_renamed_and_refused_rows_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    run(
        &path,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT CHECK (length(name) < 4), twice AS (id * 2))",
    )
    .await;
    let connector = connector(&path, json!({"table": "orders"}));
    let mut task = Task::open(connector.as_ref(), "t").await;
    let old =
        schema(vec![Field::required("id", Type::Int64), Field::nullable("name", Type::String)], &["id"]);
    let create = |id: i64, name: &str| (Op::Create, json!([id]), NONE, json!([id, name]));
    let events: Vec<_> = (0..50).map(|id| create(id, if id % 20 == 7 { "too long" } else { "ok" })).collect();
    let written = task.write(&old, &events).await;
    let found: Vec<_> =
        written.rejected.iter().map(|rejected| (rejected.index, rejected.error.code())).collect();
    assert_eq!(found, [(7, "SINK_CHECK"), (27, "SINK_CHECK"), (47, "SINK_CHECK")]);
    assert_eq!(query(&path, "SELECT count(*) || '' FROM orders").await, "0");
    task.take(&old, &[create(1, "abc")]).await;
    let new = schema(
        vec![
            Field::required("id", Type::Int64),
            Field { renamed_from: Some("name".into()), ..Field::nullable("title", Type::String) },
            Field { initial: Some("it's".into()), ..Field::nullable("note", Type::String) },
        ],
        &["id"],
    );
    task.take(&new, &[(Op::Create, json!([2]), NONE, json!([2, "x", null]))]).await;
    let rows = "SELECT id || '|' || title || '|' || quote(note) || '|' || twice FROM orders ORDER BY id";
    assert_eq!(query(&path, rows).await, "1|abc|'it''s'|2 2|x|NULL|4");
}

#[tokio::test]
async fn columns_are_followed_by_their_identity_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "T"}));
    let field = |name: &str, column, ty| Field {
        id: Some(ColumnId { table: 9, column }),
        ..Field::nullable(name, ty)
    };
    let text = |name: &str, column| field(name, column, Type::String);
    let id = || field("id", 1, Type::Int64);
    // Every task looks anew, and must not do again what was done.
    let take = async |fields: Vec<Field>, row: Json| {
        let shape = schema(fields, &["id"]);
        let mut task = Task::open(connector.as_ref(), "t").await;
        task.take(&shape, &[(Op::Create, json!([row[0]]), NONE, row)]).await;
    };
    take(vec![id(), text("a", 2), text("b", 3)], json!([1, "a", "b"])).await;
    for row in [2, 3] {
        take(vec![id(), text("B", 2), text("a", 3)], json!([row, "a", "b"])).await;
    }
    let rows = "SELECT group_concat(concat_ws(',', b, a), ' ') FROM t";
    assert_eq!(query(&path, rows).await, "a,b a,b a,b");
    let again = Field { initial: Some("true".into()), ..field("a", 4, Type::Bool) };
    take(vec![id(), text("c", 2), again], json!([4, "a", false])).await;
    let rows = "SELECT group_concat(concat_ws(',', c, a, a_dropped), ' ') FROM t";
    assert_eq!(query(&path, rows).await, "a,1,b a,1,b a,1,b a,0");
    // A shape without a row.
    let mut task = Task::open(connector.as_ref(), "t").await;
    let more = schema(vec![id(), text("d", 2), text("e", 5)], &["id"]);
    task.take(&more, &[(Op::Tombstone, NONE, NONE, NONE)]).await;
    let names = "SELECT group_concat(name) FROM pragma_table_info('t')";
    assert_eq!(query(&path, names).await, "id,d,a_dropped,a,e");
    // Dropped and created again by somebody: nothing is known of it.
    run(&path, "DROP TABLE t").await;
    take(vec![id(), text("a", 2)], json!([1, "x"])).await;
    assert_eq!(query(&path, "SELECT a FROM t").await, "x");
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let context = TaskContext::new("test", 0);
    std::fs::write(folder.path().join("file"), "").unwrap();
    let path = folder.path().join("file/folder/a.db");
    let errors = connector(&path, json!({})).check(&context).await.unwrap_err();
    assert_eq!(errors[0].code(), "SQLITE_CANNOT_WRITE");
    let path = folder.path().join("no/such/folder/a.db");
    assert_eq!(connector(&path, json!({})).check(&context).await.unwrap().len(), 1);
    assert!(!folder.path().join("no").exists(), "a check creates no folder either");
    assert!(connector(&path, json!({})).open(context.clone()).await.is_ok(), "the task does");
    let path = folder.path().join("a.db");
    assert_eq!(connector(&path, json!({})).check(&context).await.unwrap().len(), 1);
    assert!(!path.exists(), "a check creates nothing");
    std::fs::write(&path, vec![b'x'; 4096]).unwrap();
    let errors = connector(&path, json!({"table": "fixed"})).check(&context).await.unwrap_err();
    assert_eq!((errors[0].code(), errors[0].kind()), ("SQLITE_NOT_A_DATABASE", ErrorKind::NeedsOperator));
    std::fs::remove_file(&path).unwrap();
    run(&path, "CREATE TABLE orders (id INTEGER, must TEXT NOT NULL)").await;
    let connector = connector(&path, json!({"table": "orders"}));
    let mut task = Task::open(connector.as_ref(), "t").await;
    let orders = orders(&["id"]);
    let mut builder = BatchBuilder::new();
    let mut record = builder.record(&orders);
    record.offset(0).op(Some(Op::Create)).key(|row| row.int(1)).after(|row| row.int(1));
    record.finish();
    let batch = SinkBatch {
        partition: Arc::clone(&task.partition),
        topic_id: TopicId::ZERO,
        first_offset: Offset::ZERO,
        next_offset: Offset::new(1),
        batch: builder.build(),
    };
    let error = task.sink.write(batch).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("SINK_KEY_NOT_UNIQUE", ErrorKind::NeedsOperator));
}

#[tokio::test]
async fn rejections_are_counted_in_the_batch_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "t"}));
    let mut task = Task::open(connector.as_ref(), "t").await;
    let id = || Field::required("id", Type::Int64);
    let first = schema(vec![id(), Field::nullable("a", Type::String)], &["id"]);
    let second = schema(vec![id(), Field::nullable("b", Type::String)], &["id"]);
    run(&path, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT CHECK (b <> 'bad'))").await;
    let rows = [(1, "ok"), (2, "ok"), (3, "bad"), (4, "ok"), (5, "bad"), (6, "ok")];
    // As the runtime does it: the batch comes again without what is buried, from where it began.
    let fill = |buried: &[i64]| {
        let mut builder = BatchBuilder::new();
        for (id, text) in rows.iter().filter(|(id, _)| !buried.contains(id)) {
            let mut record = builder.record(if *id < 3 { &first } else { &second });
            record.offset(id - 1).op(Some(Op::Create)).key(|row| row.int(*id)).after(|row| {
                row.int(*id);
                row.text(text);
            });
            record.finish();
        }
        builder
    };
    let rejected =
        |written: Written| written.rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>();
    assert_eq!(rejected(task.send(fill(&[]), 6).await.unwrap()), [2, 4]);
    assert_eq!(rejected(task.send(fill(&[3]), 6).await.unwrap()), [3], "the first part is committed");
    assert_eq!(rejected(task.send(fill(&[3, 5]), 6).await.unwrap()), [0_usize; 0]);
    assert_eq!(query(&path, "SELECT group_concat(id) FROM (SELECT id FROM t ORDER BY id)").await, "1,2,4,6");
}

#[tokio::test]
async fn a_null_value_in_a_topic_of_rows_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "t"}));
    let id = || vec![Field::nullable("id", Type::Int64)];
    let of = |value: RowSchema| {
        Arc::new(EventSchema::new("t", Arc::new(value)).with_key(Some(Arc::new(RowSchema::new(id())))))
    };
    let rows = of(RowSchema::new([id(), vec![Field::nullable("a", Type::String)]].concat()));
    let keys = of(RowSchema::default());
    let send = async |records: &[(i64, bool)]| {
        // Every task looks anew.
        let mut task = Task::open(connector.as_ref(), "t").await;
        let mut builder = BatchBuilder::new();
        for (offset, (id, is_row)) in (task.next..).zip(records) {
            let mut record = builder.record(if *is_row { &rows } else { &keys });
            record.offset(offset).key(|row| row.int(*id));
            if *is_row {
                record.after(|row| {
                    row.int(*id);
                    row.text("x");
                });
            } else {
                record.op(Some(Op::Tombstone)).flat(true);
            }
            record.finish();
        }
        let next = task.next + records.len() as i64;
        let written = task.send(builder, next).await.unwrap();
        assert!(written.rejected.is_empty(), "{:?}", written.rejected);
    };
    send(&[(1, false)]).await;
    let tables = "SELECT count(*) || '' FROM pragma_table_list WHERE name = 't'";
    assert_eq!(query(&path, tables).await, "0", "nothing to delete, and no table for it");
    send(&[(1, true), (2, true), (3, true), (4, true), (2, false), (3, false), (3, true)]).await;
    let left = "SELECT group_concat(id) FROM (SELECT id FROM t ORDER BY id)";
    assert_eq!(query(&path, left).await, "1,3,4");
    send(&[(1, false)]).await;
    assert_eq!(query(&path, left).await, "3,4");
    send(&[(3, false), (3, true), (4, false)]).await;
    assert_eq!(query(&path, left).await, "3");
}

#[tokio::test]
async fn an_update_of_the_key_leaves_no_row_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "orders", "key": ["name"]}));
    let orders = orders(&["id"]);
    let mut task = Task::open(connector.as_ref(), "t").await;
    let absent = json!({});
    task.take(&orders, &[(Op::Create, json!([1]), NONE, json!([1, "a", "x"]))]).await;
    task.take(&orders, &[(Op::Update, json!([1]), json!([1, "a", "x"]), json!([1, "b", "x"]))]).await;
    assert_eq!(query(&path, ORDERS).await, "1|'b'|'x'");
    task.take(&orders, &[(Op::Update, json!([1]), json!([1, "b", absent]), json!([1, "c", absent]))]).await;
    assert_eq!(query(&path, ORDERS).await, "1|'c'|'x'", "what is not told is kept");
}

#[tokio::test]
async fn a_column_that_is_gone_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connector = connector(&path, json!({"table": "orders"}));
    for key in [&["id"][..], &["id", "name"]] {
        run(&path, "DROP TABLE IF EXISTS orders").await;
        let orders = orders(key);
        let key_of = |id: i64| if key.len() == 1 { json!([id]) } else { json!([id, "a"]) };
        let events =
            [(Op::Delete, key_of(1), NONE, NONE), (Op::Create, key_of(2), NONE, json!([2, "a", "x"]))];
        for event in events {
            let mut task = Task::open(connector.as_ref(), "t").await;
            task.take(&orders, &[(Op::Create, key_of(1), NONE, json!([1, "a", "x"]))]).await;
            run(&path, "ALTER TABLE orders RENAME COLUMN id TO nr").await;
            let error = task.try_write(&orders, &[event]).await.unwrap_err();
            assert_eq!(error.code(), "SQLITE_TABLE_CHANGED", "{error}");
            run(&path, "ALTER TABLE orders RENAME COLUMN nr TO id").await;
        }
    }
}
