//! The example `pii_mask` as it would be if it were built in: the same search over the same fields, without a border.

use std::ops::Range;

use async_trait::async_trait;
use pii_mask::{Kind, Kinds, find_into, hidden, star};
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, RecordView, Row, RowWriter, Transform, Transformed, Type, Value,
};

const KINDS: Kinds = Kinds { email: true, card: true, iban: true };
/// The plugin's default.
const KEEP_LAST: usize = 4;

/// The transform.
#[derive(Debug, Default)]
pub(super) struct PiiMask {
    finds: Vec<(usize, Range<usize>, Kind)>,
    found: Vec<(Range<usize>, Kind)>,
    masked: Vec<u8>,
}

fn text<'a>(row: &Row<'a>, index: usize) -> Option<&'a str> {
    match row.get(index) {
        Value::Text(text) if row.schema().fields[index].ty == Type::String => Some(text),
        _ => None,
    }
}

impl PiiMask {
    fn search(&mut self, row: &Row<'_>) -> bool {
        self.finds.clear();
        for index in 0..row.len() {
            if let Some(text) = text(row, index) {
                self.found.clear();
                find_into(text, KINDS, &mut self.found);
                self.finds.extend(self.found.iter().map(|(range, kind)| (index, range.clone(), *kind)));
            }
        }
        !self.finds.is_empty()
    }

    /// Writes the row that was searched last.
    fn write(&mut self, row: &Row<'_>, out: &mut RowWriter<'_>) {
        for (index, value) in row.values().enumerate() {
            let mine = self.finds.iter().filter(|(field, ..)| *field == index);
            match value {
                Value::Text(text) if mine.clone().next().is_some() => {
                    self.masked.clear();
                    self.masked.extend_from_slice(text.as_bytes());
                    for (_, range, kind) in mine {
                        let hidden = hidden(text, range, *kind, KEEP_LAST);
                        let hidden = self.masked.get_mut(hidden).unwrap_or_default();
                        hidden.iter_mut().for_each(|character| *character = star(*kind, *character));
                    }
                    out.text(std::str::from_utf8(&self.masked).unwrap_or(text));
                }
                value => out.value(value),
            }
        }
    }

    /// Rows of a log have no image of before.
    fn record(&mut self, record: RecordView<'_>, out: &mut BatchBuilder) {
        match record.after() {
            Some(row) if self.search(&row) => {
                let mut changed = out.record_like(record, record.schema());
                changed.copy_key(record).copy_source(record);
                changed.after(|out| self.write(&row, out));
                changed.finish();
            }
            _ => out.push(record),
        }
    }
}

#[async_trait]
impl Transform for PiiMask {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        let mut out = BatchBuilder::new();
        batch.records().for_each(|it| self.record(it, &mut out));
        Ok(out.build().into())
    }
}
