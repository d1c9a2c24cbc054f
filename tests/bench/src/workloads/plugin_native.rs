//! The example `pii_mask` as it would be if it were built in: the same search over the same fields, without a border.

use async_trait::async_trait;
use pii_mask::{Kinds, find, masked};
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, RecordView, Row, RowWriter, Transform, Transformed, Type, Value,
};

const KINDS: Kinds = Kinds { email: true, card: true, iban: true };
/// The plugin's default.
const KEEP_LAST: usize = 4;

/// The transform.
#[derive(Debug)]
pub(super) struct PiiMask;

fn text<'a>(row: &Row<'a>, index: usize) -> Option<&'a str> {
    match row.get(index) {
        Value::Text(text) if row.schema().fields[index].ty == Type::String => Some(text),
        _ => None,
    }
}

fn touches(row: &Row<'_>) -> bool {
    (0..row.len()).any(|index| text(row, index).is_some_and(|text| !find(text, KINDS).is_empty()))
}

fn write(row: &Row<'_>, out: &mut RowWriter<'_>) {
    for index in 0..row.len() {
        match text(row, index) {
            Some(text) => out.text(&masked(text, KINDS, KEEP_LAST)),
            None => out.value(row.get(index)),
        }
    }
}

fn record(record: RecordView<'_>, out: &mut BatchBuilder) {
    let (before, after) = (record.before(), record.after());
    if !before.iter().chain(&after).any(touches) {
        out.push(record);
        return;
    }
    let mut changed = out.record_like(record, record.schema());
    changed.copy_key(record).copy_source(record);
    if let Some(row) = before {
        changed.before(|out| write(&row, out));
    }
    if let Some(row) = after {
        changed.after(|out| write(&row, out));
    }
    changed.finish();
}

#[async_trait]
impl Transform for PiiMask {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        let mut out = BatchBuilder::new();
        batch.records().for_each(|it| record(it, &mut out));
        Ok(out.build().into())
    }
}
