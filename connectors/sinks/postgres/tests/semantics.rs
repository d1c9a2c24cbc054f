//! What the sink does to tables, records and positions, on a real server.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::sync::Arc;

use serde_json::json;
use support::{Task, absent, connector, connector_at, database, psql, schema, server};
use towpath_api::conformance::{self, SinkWorld};
use towpath_api::{
    BatchBuilder, ErrorKind, EventSchema, Field, Guarantee, Op, RowSchema, SinkConnector, SinkFactory,
    TaskContext, Type,
};
use towpath_sink_postgres::PostgresSink;
use towpath_types::{TopicId, TopicName};

fn orders() -> Arc<EventSchema> {
    schema(
        "orders",
        &[("id", Type::Int64, "bigint"), ("name", Type::String, "text"), ("body", Type::String, "text")],
        &["id"],
    )
}

const ORDERS: &str = "SELECT string_agg(o::text, ' ' ORDER BY o::text) FROM public.orders o";
const POSITION: &str = "SELECT string_agg(next_offset::text, ',') FROM towpath_sink_offsets";

async fn open(database: &str) -> (Box<dyn SinkConnector>, Task) {
    let connector = connector(database, json!({"table": "{table}"}));
    let task = Task::open(connector.as_ref(), "shop.public.orders").await;
    (connector, task)
}

struct World(String);

#[async_trait::async_trait]
impl SinkWorld for World {
    fn connector(&self) -> Box<dyn SinkConnector> {
        connector(&self.0, json!({"table": "held"}))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn held(&mut self) -> Vec<i64> {
        psql(&self.0, "SELECT id FROM held").lines().map(|line| line.parse().unwrap()).collect()
    }

    fn poison(&self, row: &mut towpath_api::RowWriter<'_>) -> bool {
        row.int(1 << 40);
        row.text("NUL \0");
        true
    }

    fn topic(&self) -> TopicName {
        TopicName::new("conformance").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    conformance::descriptor(PostgresSink::default().descriptor()).unwrap();
    conformance::sink(&mut World(database())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_follow_their_keys() {
    let target = database();
    let (_connector, mut task) = open(&target).await;
    let orders = orders();
    task.take(|records| {
        for id in 1..=4 {
            records.create(&orders, &[json!(id)], &[json!(id), json!("new"), json!("long")]);
        }
        records.update(&orders, &[json!(1)], &[json!(1), json!("changed"), absent()]);
        records.delete(&orders, &[json!(2)]);
    })
    .await;
    assert_eq!(psql(&target, ORDERS), "(1,changed,long) (3,new,long) (4,new,long)");
    // Not told columns keep what the database has, also when the row came in an earlier batch; keys change.
    task.take(|records| {
        records.update(&orders, &[json!(3)], &[json!(3), json!("kept"), absent()]);
        records.delete(&orders, &[json!(4)]);
        records.create(&orders, &[json!(5)], &[json!(5), json!("moved"), absent()]);
        records.delete(&orders, &[json!(1)]);
        records.create(&orders, &[json!(1)], &[json!(1), json!("again"), json!(null)]);
    })
    .await;
    assert_eq!(psql(&target, ORDERS), "(1,again,) (3,kept,long) (5,moved,long)");
    task.take(|records| {
        records.create(&orders, &[json!(8)], &[json!(8), json!("gone"), json!(null)]);
        records.truncate(&orders);
        records.create(&orders, &[json!(9)], &[json!(9), json!("after"), json!(null)]);
    })
    .await;
    assert_eq!(psql(&target, ORDERS), "(9,after,)");
    assert_eq!(psql(&target, POSITION), task.next.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_said_to_be_new_may_be_there() {
    let target = database();
    let (_connector, mut task) = open(&target).await;
    let orders = orders();
    for (name, from) in [("first", 0), ("again", 50), ("last", 150)] {
        task.take(|records| {
            // Updates and deletions among them; a row that is deleted and comes again is not new.
            records.delete(&orders, &[json!(from + 1)]);
            for id in from..from + 100 {
                records.event(&orders, Op::Read, &[json!(id)], &[], &[json!(id), json!(name), json!("x")]);
            }
            records.update(&orders, &[json!(from)], &[json!(from), json!("changed"), absent()]);
        })
        .await;
    }
    let counts = "SELECT string_agg(name || ' ' || n, ' ' ORDER BY name) FROM \
                  (SELECT name, count(*) AS n FROM orders GROUP BY name) c";
    assert_eq!(psql(&target, counts), "again 99 changed 3 first 49 last 99");
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_survive_and_what_came_before_is_ignored() {
    let target = database();
    let (connector, mut task) = open(&target).await;
    let orders = orders();
    task.take(|records| records.create(&orders, &[json!(1)], &[json!(1), json!("a"), json!("b")])).await;
    // A gap at the end, and a batch without records.
    let (first, next) = (task.next, task.next + 9);
    task.send(BatchBuilder::new().build(), first, next).await.unwrap();
    assert_eq!(psql(&target, POSITION), next.to_string());
    let mut again = Task::open(connector.as_ref(), "shop.public.orders").await;
    assert_eq!(again.next, next);
    // Redelivered from the start: what is known changes nothing, what is new counts.
    again.next = 0;
    again
        .take(|records| {
            records.create(&orders, &[json!(1)], &[json!(1), json!("WRONG"), json!("b")]);
            records.offset = next;
            records.create(&orders, &[json!(2)], &[json!(2), json!("new"), json!("b")]);
        })
        .await;
    assert_eq!(psql(&target, ORDERS), "(1,a,b) (2,new,b)");
    assert_eq!(psql(&target, POSITION), (next + 1).to_string());
    // A topic of the same name that was created anew is another one.
    let id = TopicId::random();
    assert_eq!(Task::open_as(connector.as_ref(), "shop.public.orders", id).await.next, 0);
    assert_eq!(Task::open_as(connector.as_ref(), "shop.public.orders", TopicId::ZERO).await.next, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_task_changes_nothing() {
    let target = database();
    let (connector, mut old) = open(&target).await;
    let orders = orders();
    old.take(|records| records.create(&orders, &[json!(1)], &[json!(1), json!("a"), json!("b")])).await;
    let mut new = Task::open(connector.as_ref(), "shop.public.orders").await;
    let error = old
        .write(|records| records.create(&orders, &[json!(2)], &[json!(2), json!("zombie"), json!("b")]))
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), "SINK_FENCED");
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)));
    assert_eq!(psql(&target, ORDERS), "(1,a,b)");
    new.take(|records| records.create(&orders, &[json!(2)], &[json!(2), json!("heir"), json!("b")])).await;
    assert_eq!(psql(&target, ORDERS), "(1,a,b) (2,heir,b)");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_records_are_found_and_the_rest_goes_through() {
    let target = database();
    psql(
        &target,
        "CREATE TABLE orders (id bigint PRIMARY KEY, name varchar(5), body int CHECK (body <> 13))",
    );
    let (_connector, mut task) = open(&target).await;
    let orders = orders();
    let fill = |records: &mut support::Records<'_>, without: &[i64]| {
        for id in 0..100 {
            let (name, body) = match id {
                7 => ("too long", "1"),
                42 => ("a", "no number"),
                77 => ("a", "13"),
                78 => ("nul\0", "1"),
                _ => ("a", "1"),
            };
            if without.contains(&id) {
                records.offset += 1;
            } else {
                records.create(&orders, &[json!(id)], &[json!(id), json!(name), json!(body)]);
            }
        }
    };
    let written = task.write(|records| fill(records, &[])).await.unwrap();
    let found: Vec<_> =
        written.rejected.iter().map(|rejected| (rejected.index, rejected.error.code())).collect();
    assert_eq!(found, [(7, "SINK_VALUE"), (42, "SINK_VALUE"), (77, "SINK_CHECK"), (78, "SINK_VALUE")]);
    assert!(written.rejected[2].error.hint().unwrap().contains("orders_body_check"));
    assert_eq!(
        psql(&target, "SELECT count(*) FROM orders"),
        "0",
        "nothing of a batch with rejections is written"
    );
    assert_eq!(psql(&target, POSITION), "0");
    task.take(|records| fill(records, &[7, 42, 77, 78])).await;
    assert_eq!(psql(&target, "SELECT count(*) FROM orders"), "96");
    assert_eq!(psql(&target, POSITION), "100");
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_that_depend_on_the_order_hold() {
    let target = database();
    psql(
        &target,
        "CREATE TABLE orders (id bigint PRIMARY KEY, name text UNIQUE, body text); \
         ALTER TABLE orders ADD CONSTRAINT late UNIQUE (body) DEFERRABLE INITIALLY DEFERRED; \
         INSERT INTO orders VALUES (1, 'x', '1'), (2, 'y', '2')",
    );
    let (_connector, mut task) = open(&target).await;
    let orders = orders();
    task.take(|records| {
        records.update(&orders, &[json!(2)], &[json!(2), json!("tmp"), json!("2")]);
        records.update(&orders, &[json!(1)], &[json!(1), json!("y"), json!("1")]);
        records.update(&orders, &[json!(2)], &[json!(2), json!("x"), json!("2")]);
    })
    .await;
    assert_eq!(psql(&target, ORDERS), "(1,y,1) (2,x,2)");
    let written = task
        .write(|records| {
            records.create(&orders, &[json!(3)], &[json!(3), json!("z"), json!("3")]);
            records.create(&orders, &[json!(4)], &[json!(4), json!("w"), json!("1")]);
        })
        .await
        .unwrap();
    let found: Vec<_> =
        written.rejected.iter().map(|rejected| (rejected.index, rejected.error.code())).collect();
    assert_eq!(found, [(1, "SINK_UNIQUE")], "a deferred constraint speaks at the commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_need_a_row_which_is_not_there_are_rejected() {
    let target = database();
    let (_connector, mut task) = open(&target).await;
    let orders = orders();
    let written = task
        .write(|records| {
            records.update(&orders, &[json!(1)], &[json!(1), json!("x"), absent()]);
            records.create(&orders, &[json!(2)], &[json!(2), json!("x"), absent()]);
            records.event(&orders, Op::Create, &[], &[], &[json!(null), json!("x"), json!("y")]);
        })
        .await
        .unwrap();
    let found: Vec<_> =
        written.rejected.iter().map(|rejected| (rejected.index, rejected.error.code())).collect();
    assert_eq!(found, [(0, "SINK_ROW_MISSING"), (2, "SINK_NO_KEY")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_a_key_keep_equal_rows_apart() {
    let target = database();
    let log = schema("log", &[("at", Type::Int64, "bigint"), ("text", Type::String, "text")], &[]);
    let connector = connector(&target, json!({"table": "{topic.2}"}));
    let mut task = Task::open(connector.as_ref(), "shop.public.log").await;
    let row = |at: i64, text: &str| [json!(at), json!(text)];
    task.take(|records| {
        for _ in 0..3 {
            records.create(&log, &[], &row(1, "same"));
        }
        records.event(&log, Op::Update, &[], &row(1, "same"), &row(1, "other"));
        records.event(&log, Op::Delete, &[], &row(1, "same"), &[]);
        records.create(&log, &[], &[json!(2), json!(null)]);
        records.event(&log, Op::Update, &[], &[json!(2), json!(null)], &row(2, "filled"));
    })
    .await;
    let rows = "SELECT string_agg(l::text, ' ' ORDER BY l::text) FROM log l";
    assert_eq!(psql(&target, rows), "(1,other) (1,same) (2,filled)");
    let written = task
        .write(|records| {
            records.event(&log, Op::Delete, &[], &row(7, "nobody"), &[]);
            records.event(&log, Op::Delete, &[], &[], &[]);
        })
        .await
        .unwrap();
    let found: Vec<_> =
        written.rejected.iter().map(|rejected| (rejected.index, rejected.error.code())).collect();
    assert_eq!(found, [(0, "SINK_ROW_MISSING"), (1, "SINK_NO_BEFORE")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_renamed_and_widened_where_the_stream_says_so() {
    let target = database();
    let (_connector, mut task) = open(&target).await;
    let first =
        schema("orders", &[("id", Type::Int32, "integer"), ("name", Type::String, "varchar(3)")], &["id"]);
    let value = vec![
        first.value().fields[0].clone(),
        Field {
            source_type: Some("postgres:text".into()),
            renamed_from: Some("name".into()),
            ..Field::nullable("Title \"x\"", Type::String)
        },
        Field { initial: Some("it's".into()), ..Field::nullable("note", Type::String) },
    ];
    let second = Arc::new(first.as_ref().clone().with_value(Arc::new(RowSchema::new(value))));
    let wide = schema("orders", &[("id", Type::Int64, "bigint")], &["id"]);
    let written = task
        .write(|records| {
            records.create(&first, &[json!(1)], &[json!(1), json!("abc")]);
            records.create(&first, &[json!(2)], &[json!(2), json!("def")]);
            records.create(&second, &[json!(3)], &[json!(3), json!("g"), json!(null)]);
            records.update(&second, &[json!(2)], &[json!(2), json!("h"), absent()]);
            records.create(&wide, &[json!(1_i64 << 40)], &[json!(1_i64 << 40)]);
        })
        .await
        .unwrap();
    assert!(written.rejected.is_empty(), "{:?}", written.rejected);
    let rows = "SELECT string_agg(o::text, ' ' ORDER BY id) FROM orders o";
    assert_eq!(psql(&target, rows), "(1,abc,it's) (2,h,it's) (3,g,) (1099511627776,,)");
    let columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
                   FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0";
    assert_eq!(psql(&target, columns), "id bigint, Title \"x\" text, note text");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_generated_and_identity_columns() {
    let target = database();
    psql(
        &target,
        "CREATE SCHEMA \"Odd.Schema\"; CREATE TABLE \"Odd.Schema\".\"T \"\"x\"\".y\" (\"Id\" bigint GENERATED ALWAYS AS \
         IDENTITY PRIMARY KEY, \"a b\" int, twice int GENERATED ALWAYS AS (\"a b\" * 2) STORED, extra int DEFAULT 7)",
    );
    let fields =
        [("Id", Type::Int64, "bigint"), ("a b", Type::Int32, "integer"), ("twice", Type::Int32, "integer")];
    let odd = schema("x", &fields, &["Id"]);
    let connector = connector(&target, json!({"table": "{topic.1}.{topic.2}"}));
    let topic = format!(
        "shop.{}.{}",
        towpath_api::names::encode_part("Odd.Schema"),
        towpath_api::names::encode_part("T \"x\".y")
    );
    let mut task = Task::open(connector.as_ref(), &topic).await;
    for value in [4, 5] {
        task.take(|records| records.create(&odd, &[json!(9)], &[json!(9), json!(value), json!(0)])).await;
    }
    assert_eq!(psql(&target, "SELECT t::text FROM \"Odd.Schema\".\"T \"\"x\"\".y\" t"), "(9,5,10,7)");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_create_the_same_table_at_the_same_time() {
    let target = database();
    let wide: Vec<(String, Type, &str)> =
        (0..50).map(|index| (format!("c{index}"), Type::String, "text")).collect();
    let fields: Vec<(&str, Type, &str)> =
        wide.iter().map(|(name, ty, source)| (name.as_str(), ty.clone(), *source)).collect();
    let shared = schema("shared", &fields, &["c0"]);
    let mut tasks = Vec::new();
    for number in 0..6 {
        let (target, shared) = (target.clone(), Arc::clone(&shared));
        tasks.push(tokio::spawn(async move {
            let connector = connector(&target, json!({"table": "new.{table}"}));
            let mut task = Task::open_as(connector.as_ref(), &format!("t{number}"), TopicId::random()).await;
            let values: Vec<_> = (0..50).map(|_| json!(number.to_string())).collect();
            task.take(|records| records.create(&shared, &values[..1], &values)).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(psql(&target, "SELECT count(*) FROM new.shared"), "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn append_mode_keeps_every_record() {
    let target = database();
    let orders = orders();
    let options = json!({"table": "{table}_log", "mode": "append", "op_column": "op", "offset_column": "at"});
    let connector = connector(&target, options);
    let mut task = Task::open(connector.as_ref(), "shop.public.orders").await;
    task.take(|records| {
        records.create(&orders, &[json!(1)], &[json!(1), json!("a"), json!("b")]);
        records.update(&orders, &[json!(1)], &[json!(1), json!("c"), absent()]);
        records.delete(&orders, &[json!(1)]);
        records.truncate(&orders);
    })
    .await;
    let rows = "SELECT string_agg(o::text, ' ' ORDER BY at) FROM orders_log o";
    assert_eq!(psql(&target, rows), "(1,a,b,c,0) (1,c,,u,1) (1,,,d,2)");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_records_use_the_keys_that_they_have() {
    let target = database();
    let value =
        RowSchema::new(vec![Field::nullable("name", Type::String), Field::nullable("n", Type::Int64)]);
    let bare = Arc::new(
        EventSchema::new("plain", Arc::new(value)).with_key(Some(Arc::new(RowSchema::bare(Type::String)))),
    );
    let connector = connector(&target, json!({"key": ["id"]}));
    let mut task = Task::open(connector.as_ref(), "plain.topic").await;
    let mut builder = BatchBuilder::new();
    for (offset, (key, name)) in [("a", Some("x")), ("b", Some("y")), ("a", None)].into_iter().enumerate() {
        let mut record = builder.record(&bare);
        record.offset(offset as i64).key(|row| row.text(key));
        if let Some(name) = name {
            record.after(|row| {
                row.text(name);
                row.int(1);
            });
        }
        record.finish();
    }
    let written = task.send(builder.build(), 0, 3).await.unwrap();
    assert!(written.rejected.is_empty(), "{:?}", written.rejected);
    assert_eq!(psql(&target, "SELECT p::text FROM \"plain.topic\" p"), "(y,1,b)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_leaves_nothing_half_done() {
    let target = database();
    let (connector, mut task) = open(&target).await;
    let orders = orders();
    task.take(|records| records.create(&orders, &[json!(1)], &[json!(1), json!("a"), json!("b")])).await;
    // A lock keeps the next write waiting in the middle of its transaction.
    let url = server().url(&target);
    let mut locker = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut locker).await.unwrap();
    let writing = tokio::spawn(async move {
        let orders = self::orders();
        task.write(|records| records.create(&orders, &[json!(2)], &[json!(2), json!("a"), json!("b")])).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let killed = psql(
        &target,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'towpath' AND \
         datname = current_database() AND wait_event_type = 'Lock'",
    );
    assert_eq!(killed, "1");
    let error = writing.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error}");
    sqlx::raw_sql("ROLLBACK").execute(&mut locker).await.unwrap();
    assert_eq!(psql(&target, ORDERS), "(1,a,b)");
    let mut again = Task::open(connector.as_ref(), "shop.public.orders").await;
    assert_eq!(again.next, 1, "the position did not move without the data");
    again.take(|records| records.create(&orders, &[json!(2)], &[json!(2), json!("a"), json!("b")])).await;
    assert_eq!(psql(&target, ORDERS), "(1,a,b) (2,a,b)");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_before_anything_starts() {
    let target = database();
    psql(&target, "CREATE ROLE reader LOGIN; CREATE TABLE fixed (id int, name text NOT NULL)");
    let context = TaskContext::new("test", 0);
    let check = async |url: &str, options| connector_at(url, options).check(&context).await;
    let verified = check(&server().url(&target), json!({"table": "fixed"})).await.unwrap();
    assert_eq!(verified.len(), 3, "{verified:?}");
    let errors = check(&server().url_as("reader", &target), json!({"table": "fixed"})).await.unwrap_err();
    let codes: Vec<_> = errors.iter().map(towpath_api::ConnectorError::code).collect();
    assert_eq!(codes, ["PG_PRIVILEGE", "PG_PRIVILEGE"]);
    let errors = check(&server().url("nowhere"), json!({})).await.unwrap_err();
    assert_eq!(errors[0].code(), "PG_DATABASE_MISSING");
    let errors = check("postgres://u:geheim@127.0.0.1:1/d", json!({})).await.unwrap_err();
    assert_eq!(errors[0].code(), "PG_UNREACHABLE");
    assert!(!format!("{errors:?}").contains("geheim"));
    let errors = check(&server().url(&target), json!({"table": "fixed", "key": ["id"]})).await.unwrap_err();
    assert_eq!(errors[0].code(), "SINK_KEY_NOT_UNIQUE");
    assert_eq!(psql(&target, "SELECT count(*) FROM pg_class WHERE relname = 'towpath_sink_offsets'"), "0");

    // Tables that no record could be written into stop the task, and say what to type.
    let keyed = schema("fixed", &[("id", Type::Int32, "integer")], &["id"]);
    let connector = connector(&target, json!({"table": "{table}"}));
    let mut task = Task::open(connector.as_ref(), "t").await;
    let error = task.write(|records| records.create(&keyed, &[json!(1)], &[json!(1)])).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("SINK_KEY_NOT_UNIQUE", ErrorKind::NeedsOperator));
    assert!(error.hint().unwrap().contains("CREATE UNIQUE INDEX ON \"public\".\"fixed\" (\"id\")"));
    psql(&target, "CREATE UNIQUE INDEX ON fixed (id)");
    let mut task = Task::open(connector.as_ref(), "t").await;
    let error = task.write(|records| records.create(&keyed, &[json!(1)], &[json!(1)])).await.unwrap_err();
    assert_eq!(error.code(), "SINK_COLUMN_REQUIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_keyless_table_with_an_identity_are_changed() {
    let target = database();
    psql(&target, "CREATE TABLE log (nr bigint GENERATED ALWAYS AS IDENTITY, text text)");
    let log = schema("log", &[("nr", Type::Int64, "bigint"), ("text", Type::String, "text")], &[]);
    let connector = connector(&target, json!({"table": "log"}));
    let mut task = Task::open(connector.as_ref(), "shop").await;
    let row = |nr: i64, text: &str| [json!(nr), json!(text)];
    task.take(|records| {
        records.create(&log, &[], &row(5, "a"));
        records.event(&log, Op::Update, &[], &row(5, "a"), &row(5, "b"));
        // Nothing is left that could be set.
        records.event(&log, Op::Update, &[], &row(5, "b"), &[json!(5), absent()]);
    })
    .await;
    assert_eq!(psql(&target, "SELECT l::text FROM log l"), "(5,b)");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_key_leaves_no_row_behind() {
    let target = database();
    let connector = connector(&target, json!({"table": "orders", "key": ["name"]}));
    let mut task = Task::open(connector.as_ref(), "shop").await;
    let orders = orders();
    let row = |name: &str| [json!(1), json!(name), json!("x")];
    task.take(|records| records.create(&orders, &[json!(1)], &row("a"))).await;
    task.take(|records| records.event(&orders, Op::Update, &[json!(1)], &row("a"), &row("b"))).await;
    assert_eq!(psql(&target, ORDERS), "(1,b,x)");
    let partial = |name: &str| [json!(1), json!(name), absent()];
    task.take(|records| records.event(&orders, Op::Update, &[json!(1)], &partial("b"), &partial("c"))).await;
    assert_eq!(psql(&target, ORDERS), "(1,c,x)", "what is not told is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_value_in_a_topic_of_rows_deletes() {
    let target = database();
    let connector = connector(&target, json!({"table": "orders"}));
    let orders = orders();
    let id = RowSchema::new(vec![Field::required("id", Type::Int64)]);
    let keys =
        Arc::new(EventSchema::new("shop", Arc::new(RowSchema::default())).with_key(Some(Arc::new(id))));
    let tombstone = |records: &mut support::Records<'_>, id: i64| {
        let mut record = records.builder.record(&keys);
        record.op(Some(Op::Tombstone)).flat(true).offset(records.offset).key(|row| row.int(id));
        record.finish();
        records.offset += 1;
    };
    let mut task = Task::open(connector.as_ref(), "shop").await;
    task.take(|records| tombstone(records, 1)).await;
    assert_eq!(psql(&target, "SELECT to_regclass('orders') IS NULL"), "t", "no table for a deletion");
    task.take(|records| {
        for id in [1, 2, 3] {
            records.create(&orders, &[json!(id)], &[json!(id), json!("a"), json!("b")]);
        }
        tombstone(records, 2);
    })
    .await;
    assert_eq!(psql(&target, ORDERS), "(1,a,b) (3,a,b)");
    let mut task = Task::open(connector.as_ref(), "shop").await;
    task.take(|records| tombstone(records, 3)).await;
    assert_eq!(psql(&target, ORDERS), "(1,a,b)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_does_not_wait_for_ever() {
    let target = database();
    let (connector, mut task) = open(&target).await;
    let orders = orders();
    task.take(|records| records.create(&orders, &[json!(1)], &[json!(1), json!("a"), json!("b")])).await;
    // An owner that is gone without a word holds its row.
    let url = server().url(&target);
    let mut gone = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE towpath_sink_offsets SET topic = topic").execute(&mut gone).await.unwrap();
    let mut sink = connector.open(TaskContext::new("test", 0)).await.unwrap();
    let taken = sink.assign(&[(task.partition.clone(), task.id)]).await;
    let error = taken.unwrap_err();
    assert_eq!(error.code(), "PG_CONFLICT");
    assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)));
    assert!(error.hint().unwrap().contains("towpath_sink_offsets"));
    sqlx::raw_sql("ROLLBACK").execute(&mut gone).await.unwrap();
    assert_eq!(Task::open(connector.as_ref(), "shop.public.orders").await.next, 1);
}
