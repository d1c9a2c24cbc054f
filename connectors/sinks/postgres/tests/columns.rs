//! What becomes of a table's columns as its source's change, by the columns' identities.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::sync::Arc;

use serde_json::{Value as Json, json};
use support::{Records, Task, connector, database, psql};
use towpath_api::schema::SourceBlock;
use towpath_api::{ColumnId, ErrorKind, EventSchema, Field, Op, RowSchema, SinkConnector, Type};

/// A shape of the source's `table`: each column with its number, and `key` by name.
fn shape(table: u64, columns: &[(&str, u32, Type, &str)], key: &[&str]) -> Arc<EventSchema> {
    let field = |(name, column, ty, source): &(&str, u32, Type, &str)| Field {
        id: Some(ColumnId { table, column: *column }),
        source_type: Some(format!("postgres:{source}")),
        ..Field::nullable(*name, ty.clone())
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let keys: Vec<Field> =
        key.iter().filter_map(|name| fields.iter().find(|field| field.name == *name)).cloned().collect();
    let schema = EventSchema::new("public.t", Arc::new(RowSchema::new(fields)))
        .with_key((!keys.is_empty()).then(|| Arc::new(RowSchema::new(keys))))
        .with_source(Some(Arc::new(SourceBlock::default())));
    Arc::new(schema)
}

fn text(name: &str, column: u32) -> (&str, u32, Type, &'static str) {
    (name, column, Type::String, "text")
}

fn int(name: &str, column: u32) -> (&str, u32, Type, &'static str) {
    (name, column, Type::Int32, "integer")
}

fn with_initial(schema: &Arc<EventSchema>, name: &str, initial: &str) -> Arc<EventSchema> {
    let mut value = schema.value().as_ref().clone();
    let at = value.index_of(name).unwrap();
    value.fields[at].initial = Some(initial.to_owned());
    Arc::new(schema.as_ref().clone().with_value(Arc::new(value)))
}

struct World {
    database: String,
    connector: Box<dyn SinkConnector>,
}

impl World {
    fn new(setup: &str) -> Self {
        let database = database();
        psql(&database, setup);
        let connector = connector(&database, json!({"table": "t"}));
        Self { database, connector }
    }

    /// A task that knows nothing of what others have seen.
    async fn take(&self, fill: impl FnOnce(&mut Records<'_>)) {
        Task::open(self.connector.as_ref(), "shop").await.take(fill).await;
    }

    async fn create(&self, schema: &Arc<EventSchema>, row: &[Json]) {
        self.take(|records| records.create(schema, &row[..1], row)).await;
    }

    fn rows(&self, columns: &str) -> String {
        psql(&self.database, &format!("SELECT string_agg(concat_ws(',', {columns}), ' ' ORDER BY id) FROM t"))
    }

    fn columns(&self) -> String {
        let sql = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
                   FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
        psql(&self.database, sql)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_followed_by_their_identity_once() {
    let world = World::new("");
    world
        .create(
            &shape(9, &[int("id", 1), text("a", 2), text("b", 3)], &["id"]),
            &[json!(1), json!("a"), json!("b")],
        )
        .await;
    let swapped = shape(9, &[int("id", 1), text("b", 2), text("a", 3)], &["id"]);
    // Every task looks anew, and must not swap again.
    world.create(&swapped, &[json!(2), json!("a"), json!("b")]).await;
    world.create(&swapped, &[json!(3), json!("a"), json!("b")]).await;
    assert_eq!(world.rows("b, a"), "a,b a,b a,b");
    // Nothing was written under the shapes in between.
    world
        .create(
            &shape(9, &[int("nr", 1), text("c", 2), text("x", 3)], &["nr"]),
            &[json!(4), json!("a"), json!("b")],
        )
        .await;
    assert_eq!(world.columns(), "nr integer, c text, x text");
    let again = with_initial(&shape(9, &[int("id", 1), text("c", 2), int("x", 4)], &["id"]), "x", "7");
    world.create(&again, &[json!(5), json!("a"), json!(8)]).await;
    assert_eq!(world.rows("c, x, x_dropped"), "a,7,b a,7,b a,7,b a,7,b a,8");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shape_without_a_row_is_obeyed_and_changes_nothing_else() {
    let world = World::new("");
    world.create(&shape(9, &[int("id", 1)], &["id"]), &[json!(1)]).await;
    let more = with_initial(&shape(9, &[int("nr", 1), int("more", 2)], &["nr"]), "more", "5");
    let mut task = Task::open(world.connector.as_ref(), "shop").await;
    task.take(|records| records.event(&more, Op::Tombstone, &[], &[], &[])).await;
    assert_eq!(psql(&world.database, "SELECT t::text FROM t"), "(1,5)");
    assert_eq!(task.next, 2);
    // A tombstone of nobody's says nothing.
    let plain = Arc::new(EventSchema::new("x", Arc::new(RowSchema::bare(Type::String))));
    task.take(|records| records.event(&plain, Op::Tombstone, &[], &[], &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_table_gets_the_types_and_the_key_of_its_source() {
    let world = World::new("");
    let first = shape(9, &[int("id", 1), text("x", 2), text("u", 3)], &["id"]);
    world.create(&first, &[json!(1), json!("no number"), json!("u")]).await;
    let other = shape(
        9,
        &[int("id", 1), ("x", 2, Type::TimestampTz, "timestamp with time zone"), text("u", 3)],
        &["u"],
    );
    world
        .take(|records| {
            records.truncate(&other);
            records.create(&other, &[json!("k")], &[json!(2), json!("2024-01-01T00:00:00Z"), json!("k")]);
            records.update(&other, &[json!("k")], &[json!(3), json!("2024-01-01T00:00:00Z"), json!("k")]);
            records.create(&other, &[json!("l")], &[json!(null), json!(null), json!("l")]);
        })
        .await;
    assert_eq!(world.columns(), "id integer, x timestamp with time zone, u text");
    assert_eq!(world.rows("id, u"), "3,k l");
    // The same name, but another table: its columns are not those of the first.
    let recreated = shape(10, &[text("u", 1), int("id", 2)], &["u"]);
    world
        .take(|records| {
            records.truncate(&recreated);
            records.create(&recreated, &[json!("m")], &[json!("m"), json!(4)]);
        })
        .await;
    assert_eq!(world.rows("id, u"), "4,m");
    let renamed = shape(10, &[text("v", 1), int("id", 2)], &["v"]);
    world.create(&renamed, &[json!("n"), json!(5)]).await;
    assert_eq!(world.rows("id, v"), "4,m 5,n");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_tables_keep_their_columns() {
    let world = World::new("CREATE TABLE t (b varchar(9), id bigint PRIMARY KEY, a text)");
    world
        .create(
            &shape(9, &[int("id", 1), text("a", 2), text("b", 3)], &["id"]),
            &[json!(1), json!("a"), json!("b")],
        )
        .await;
    let changed =
        with_initial(&shape(9, &[int("id", 1), text("b", 2), text("c", 3), int("a", 4)], &["id"]), "a", "7");
    for id in [2, 3] {
        world.create(&changed, &[json!(id), json!("a"), json!("b"), json!(id)]).await;
    }
    assert_eq!(world.columns(), "b character varying(9), id bigint, a text, c text");
    assert_eq!(world.rows("b, c, a"), "a,b,7 a,b,2 a,b,3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_two_tables_share_is_not_renamed() {
    let world = World::new("");
    world.create(&shape(9, &[int("id", 1), text("a", 2)], &["id"]), &[json!(1), json!("a")]).await;
    world.create(&shape(8, &[int("id", 1), text("a", 5)], &["id"]), &[json!(2), json!("a")]).await;
    let renamed = shape(9, &[int("id", 1), text("b", 2)], &["id"]);
    let mut task = Task::open(world.connector.as_ref(), "shop").await;
    let error = task
        .write(|records| records.create(&renamed, &[json!(3)], &[json!(3), json!("b")]))
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.kind()), ("SINK_COLUMN_RENAMED", ErrorKind::NeedsOperator));
    assert_eq!(world.rows("a"), "a a");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_before_those_that_they_refer_to() {
    let world = World::new(
        "CREATE TABLE t (id bigint PRIMARY KEY, parent bigint REFERENCES t ON DELETE CASCADE, v text CHECK (v <> 'bad'))",
    );
    let child = shape(9, &[int("id", 1), int("parent", 2), text("v", 3)], &["id"]);
    let mut task = Task::open(world.connector.as_ref(), "shop").await;
    let written = task
        .write(|records| {
            records.create(&child, &[json!(1)], &[json!(1), json!(2), json!("a")]);
            records.create(&child, &[json!(5)], &[json!(5), json!(2), json!("bad")]);
        })
        .await
        .unwrap();
    let codes: Vec<_> = written.rejected.iter().map(|rejected| rejected.error.code()).collect();
    assert_eq!(codes, ["SINK_CHECK"], "other constraints hold");
    task.take(|records| records.create(&child, &[json!(1)], &[json!(1), json!(2), json!("a")])).await;
    task.take(|records| records.create(&child, &[json!(2)], &[json!(2), json!(null), json!("b")])).await;
    // What goes with it says so itself.
    task.take(|records| records.delete(&child, &[json!(2)])).await;
    assert_eq!(world.rows("id"), "1");
    task.take(|records| records.truncate(&child)).await;
    assert_eq!(world.rows("id"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn append_mode_keeps_its_rows_when_a_type_changes() {
    let database = database();
    let connector = connector(&database, json!({"table": "t", "mode": "append"}));
    let mut task = Task::open(connector.as_ref(), "shop").await;
    let first = shape(9, &[int("id", 1), text("x", 2)], &["id"]);
    task.take(|records| records.create(&first, &[json!(1)], &[json!(1), json!("no number")])).await;
    let wide = ("id", 1, Type::Int64, "bigint");
    let other = shape(9, &[wide, int("x", 2)], &["id"]);
    task.take(|records| {
        records.truncate(&other);
        records.create(&other, &[json!(1_i64 << 40)], &[json!(1_i64 << 40), json!(7)]);
    })
    .await;
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM t";
    assert_eq!(psql(&database, rows), "(1,\"no number\") (1099511627776,7)");
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(psql(&database, types), "bigint text");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_do_not_swap_the_same_columns_twice() {
    let world = World::new("");
    let first = shape(9, &[int("id", 1), text("a", 2), text("b", 3)], &["id"]);
    world.create(&first, &[json!(1), json!("a"), json!("b")]).await;
    let swapped = shape(9, &[int("id", 1), text("b", 2), text("a", 3)], &["id"]);
    // Both have decided what to do before either may.
    let url = support::server().url(&world.database);
    let mut locker = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let lock = format!("SELECT pg_advisory_lock({})", 0x0074_6f77_7061_7468_i64);
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut locker).await.unwrap();
    let mut writing = Vec::new();
    for id in [2, 3] {
        let topic = format!("shop{id}");
        let topic_id = towpath_types::TopicId::random();
        let mut task = Task::open_as(world.connector.as_ref(), &topic, topic_id).await;
        let swapped = Arc::clone(&swapped);
        writing.push(tokio::spawn(async move {
            let row = [json!(id), json!("a"), json!("b")];
            task.write(|records| records.create(&swapped, &row[..1], &row)).await
        }));
    }
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND \
                   database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for _ in 0..200 {
        if psql(&world.database, waiting) == "2" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(psql(&world.database, waiting), "2");
    sqlx::Connection::close(locker).await.unwrap();
    let mut errors = Vec::new();
    for write in writing {
        if let Err(error) = write.await.unwrap() {
            errors.push(error.code());
        }
    }
    assert_eq!(errors, ["PG_CONFLICT"]);
    assert_eq!(world.rows("b, a"), "a,b a,b");
}
