use std::sync::Arc;

use super::super::layout::{LayoutError, LayoutOptions};
use super::*;
use towpath_api::schema::SourceBlock;
use towpath_api::{BatchBuilder, EventSchema, Field, RowSchema, Type};

fn schema(keyed: bool) -> Arc<EventSchema> {
    let value = RowSchema::new(vec![
        Field::required("id", Type::Int64),
        Field::nullable("name", Type::String),
        Field::nullable("body", Type::String),
    ]);
    let key = keyed.then(|| Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)])));
    Arc::new(
        EventSchema::new("t", Arc::new(value))
            .with_key(key)
            .with_source(Some(Arc::new(SourceBlock::default()))),
    )
}

/// `(op, id, name, body)`; a body of "-" is absent.
fn batch(schema: &Arc<EventSchema>, rows: &[(Op, i64, &str, &str)]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (op, id, name, body) in rows {
        let mut record = builder.record(schema);
        record.op(Some(*op));
        let write = |row: &mut towpath_api::RowWriter<'_>| {
            row.int(*id);
            row.text(name);
            if *body == "-" { row.absent() } else { row.text(body) }
        };
        if *op != Op::Truncate {
            record.key(|row| row.int(*id));
        }
        match op {
            Op::Delete => {
                record.before(write);
            }
            Op::Tombstone | Op::Truncate => {}
            _ => {
                record.after(write);
            }
        }
        record.finish();
    }
    builder.build()
}

fn steps(batch: &Batch, layout: &Layout) -> Vec<Step> {
    let (mut tables, refusals) = plan_steps(batch, 0..batch.len(), |_| Some((0, 0)), &[layout]);
    assert_eq!(refusals, []);
    tables.pop().map(|table| table.steps).unwrap_or_default()
}

fn layout(schema: &EventSchema) -> Layout {
    Layout::new(schema, &LayoutOptions::default()).unwrap()
}

#[test]
fn only_the_last_state_of_a_key_counts() {
    let schema = schema(true);
    let layout = layout(&schema);
    let batch = batch(
        &schema,
        &[
            (Op::Create, 1, "a", "x"),
            (Op::Create, 2, "b", "y"),
            (Op::Update, 1, "c", "-"),
            (Op::Delete, 2, "b", "y"),
            (Op::Tombstone, 2, "", ""),
            (Op::Update, 1, "d", "-"),
            (Op::Delete, 3, "z", "z"),
            (Op::Create, 3, "z2", "z2"),
        ],
    );
    let steps = steps(&batch, &layout);
    let [Step::Fold { fold, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(fold.deletes, [3]);
    let [first, third] = fold.upserts.as_slice() else { panic!("{fold:?}") };
    assert!(!first.is_partial() && first.may_insert);
    assert_eq!(first.older, [0], "the update in between told nothing new");
    let values: Vec<_> = (0..3).map(|column| first.value(&batch, &layout, column)).collect();
    assert_eq!(values, [Value::Int(1), Value::Text("d"), Value::Text("x")]);
    assert_eq!(third.record, 7);
    assert!(first.fresh && !third.fresh, "a row that was deleted in the same run is still there");
}

#[test]
fn what_nobody_told_stays_the_databases() {
    let schema = schema(true);
    let layout = layout(&schema);
    let batch = batch(&schema, &[(Op::Update, 1, "a", "-"), (Op::Update, 1, "b", "-")]);
    let steps = steps(&batch, &layout);
    let [Step::Fold { fold, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(fold.upserts[0].missing, [2]);
    assert!(!fold.upserts[0].may_insert);
}

#[test]
fn truncations_split_and_moves_stand_alone() {
    let schema = schema(true);
    let layout = layout(&schema);
    let batch = batch(
        &schema,
        &[
            (Op::Create, 1, "a", "x"),
            (Op::Truncate, 0, "", ""),
            (Op::Create, 2, "b", "y"),
            (Op::Delete, 2, "b", "-"),
            (Op::Tombstone, 2, "", ""),
            (Op::Create, 3, "b", "-"),
            (Op::Delete, 3, "b", "-"),
            (Op::Create, 4, "whole", "row"),
        ],
    );
    let steps = steps(&batch, &layout);
    let [
        Step::Fold { .. },
        Step::Truncate { record: 1, .. },
        Step::Fold { fold, .. },
        Step::Move { delete: 3, create: 5, .. },
        Step::Fold { fold: last, .. },
    ] = steps.as_slice()
    else {
        panic!("{steps:?}")
    };
    assert_eq!(fold.upserts.len(), 1);
    assert_eq!((last.deletes.len(), last.upserts.len()), (1, 1), "a whole row needs nothing of the old one");
}

#[test]
fn without_a_key_rows_are_appended_and_changes_stand_alone() {
    let schema = schema(false);
    let layout = layout(&schema);
    let batch = batch(
        &schema,
        &[
            (Op::Read, 1, "a", "x"),
            (Op::Create, 1, "a", "x"),
            (Op::Delete, 1, "a", "x"),
            (Op::Create, 2, "b", "y"),
        ],
    );
    let steps = steps(&batch, &layout);
    assert_eq!(
        steps,
        [
            Step::Append { plan: 0, records: vec![0, 1] },
            Step::Change { plan: 0, record: 2, change: Change::Delete },
            Step::Append { plan: 0, records: vec![3] },
        ]
    );
}

#[test]
fn append_mode_takes_every_row() {
    let schema = schema(true);
    let options = LayoutOptions { append: true, op_column: Some("op".into()), ..LayoutOptions::default() };
    let layout = Layout::new(&schema, &options).unwrap();
    let batch = batch(
        &schema,
        &[
            (Op::Create, 1, "a", "x"),
            (Op::Delete, 1, "a", "x"),
            (Op::Tombstone, 1, "", ""),
            (Op::Truncate, 0, "", ""),
        ],
    );
    assert_eq!(steps(&batch, &layout), [Step::Append { plan: 0, records: vec![0, 1] }]);
    assert_eq!(layout.appended(&batch.record(1), 3), Value::Text("d"));
    assert_eq!(layout.appended(&batch.record(1), 1), Value::Text("a"));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let schema = schema(true);
    let nullable = LayoutOptions { key: vec!["name".into()], ..LayoutOptions::default() };
    let layout = Layout::new(&schema, &nullable).unwrap();
    let mut builder = BatchBuilder::new();
    let mut record = builder.record(&schema);
    record.after(|row| {
        row.int(1);
        row.null();
    });
    record.finish();
    let batch = builder.build();
    let (_, refusals) = plan_steps(&batch, 0..1, |_| Some((0, 0)), &[&layout]);
    assert_eq!(refusals, [(0, Refusal::NoKey)]);
    let wrong = LayoutOptions { key: vec!["nobody".into()], ..LayoutOptions::default() };
    assert_eq!(Layout::new(&schema, &wrong).unwrap_err(), LayoutError::NoSuchKey("nobody".into()));
}

/// `(name before, name after, body)` of updates of row 1, whose key is its name.
fn renamings(schema: &Arc<EventSchema>, rows: &[(&str, &str, &str)]) -> Batch {
    let mut builder = BatchBuilder::new();
    for &(before, after, body) in rows {
        let write = |row: &mut towpath_api::RowWriter<'_>, name: &str| {
            row.int(1);
            if name == "-" {
                row.absent()
            } else {
                row.text(name)
            }
            if body == "-" { row.absent() } else { row.text(body) }
        };
        let mut record = builder.record(schema);
        record
            .op(Some(Op::Update))
            .key(|row| row.int(1))
            .before(|row| write(row, before))
            .after(|row| write(row, after));
        record.finish();
    }
    builder.build()
}

#[test]
fn an_update_of_the_key_deletes_the_row_before() {
    let schema = schema(true);
    let options = LayoutOptions { key: vec!["name".into()], ..LayoutOptions::default() };
    let layout = Layout::new(&schema, &options).unwrap();
    let rows = [("a", "b", "x"), ("b", "c", "x"), ("c", "c", "y"), ("-", "d", "x")];
    let batch = renamings(&schema, &rows);
    let found = steps(&batch, &layout);
    let [Step::Fold { fold, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(fold.deletes, [0, 1], "a name that is not told says nothing");
    let old: Vec<_> =
        fold.deletes.iter().map(|index| layout.old_key_value(&batch.record(*index), 1)).collect();
    assert_eq!(old, [Value::Text("a"), Value::Text("b")]);
    let new: Vec<_> = fold.upserts.iter().map(|upsert| upsert.value(&batch, &layout, 1)).collect();
    assert_eq!(new, [Value::Text("c"), Value::Text("d")]);
    let partial = renamings(&schema, &[("a", "b", "-")]);
    assert_eq!(steps(&partial, &layout), [Step::Move { plan: 0, delete: 0, create: 0 }]);
}

#[test]
fn a_flat_tombstone_deletes_by_its_key() {
    let schema = schema(true);
    let layout = layout(&schema);
    let written = batch(&schema, &[(Op::Create, 1, "a", "x"), (Op::Create, 2, "b", "y")]);
    let mut builder = written.into_builder();
    for flat in [true, false] {
        let mut record = builder.record(&schema);
        record.op(Some(Op::Tombstone)).flat(flat).key(|row| row.int(if flat { 1 } else { 2 }));
        record.finish();
    }
    let batch = builder.build();
    let steps = steps(&batch, &layout);
    let [Step::Fold { fold, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((fold.deletes.as_slice(), fold.upserts.len()), (&[2][..], 1));
    let of_key = Layout::of_key(&schema, &LayoutOptions::default()).unwrap().unwrap();
    assert_eq!((of_key.columns.len(), of_key.key.as_slice()), (1, &[0][..]));
    let append = LayoutOptions { append: true, ..LayoutOptions::default() };
    assert_eq!(Layout::of_key(&schema, &append), Ok(None));
    assert!(layout.is_keyed_by(schema.key().unwrap()));
}
