//! Outbox rows and copied rows into records.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use towpath_api::{BatchBuilder, ConnectorError, EventSchema, Op, RejectedInput, SourceBatch, SourceOffsets};

use super::table::{BadRow, Table};

/// One row of the outbox.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) id: i64,
    pub(crate) op: String,
    pub(crate) ts_ms: i64,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// What a poll collects.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) builder: BatchBuilder,
    rejected: Vec<RejectedInput>,
    rejected_bytes: usize,
}

impl Output {
    /// A row whose text is no text: SQLite takes any bytes. It stalls nothing, and goes to the dead letters.
    pub(crate) fn reject(&mut self, position: String, error: std::string::FromUtf8Error) {
        let told = ConnectorError::terminal("SQLITE_NOT_UTF8", "a text of the row is not UTF-8")
            .with_cause(error.utf8_error());
        let bytes = error.into_bytes();
        self.rejected_bytes += bytes.len();
        self.rejected.push(RejectedInput { position, bytes, error: told });
    }

    pub(crate) fn size_in_bytes(&self) -> usize {
        self.builder.size_in_bytes() + self.rejected_bytes
    }

    pub(crate) fn finish(self, offsets: SourceOffsets) -> SourceBatch {
        SourceBatch { batch: self.builder.build(), offsets, rejected: self.rejected }
    }
}

/// Where a copied row stood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The outbox id at which the copy began: the copy's lane.
    pub(crate) from: i64,
    /// Which attempt this is.
    pub(crate) attempt: u32,
    pub(crate) rowid: i64,
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A copied row.
pub(crate) fn read(
    builder: &mut BatchBuilder,
    table: &mut Table,
    row: &str,
    place: Option<Place>,
    now_ms: i64,
) -> Result<(), BadRow> {
    widen(table, row)?;
    let schema = Arc::clone(&table.schema);
    let mut record = builder.record(&schema);
    record.op(Some(Op::Read)).timestamp_ms(now_ms);
    if let Some(place) = place {
        // Rowids are signed; with the sign bit flipped their bytes sort as they do.
        let position = (place.rowid as u64 ^ 1 << 63).to_be_bytes();
        record.position(lane(&table.name, place), &position);
    }
    record.try_key(|writer| table.write_key(writer, row))?;
    record.try_after(|writer| table.write_row(writer, row))?;
    record.source(|writer| {
        writer.int(now_ms);
        writer.text("true");
        writer.null();
    });
    record.finish();
    Ok(())
}

/// The lane of a copy: never 0, which is the outbox's.
fn lane(table: &str, place: Place) -> u64 {
    // FNV-1a: stable across versions, which std's hashers are not.
    let bytes = table.bytes().chain(place.from.to_be_bytes()).chain(place.attempt.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash | 1
}

/// A whole table is to be forgotten.
pub(crate) fn truncate(builder: &mut BatchBuilder, table: &Table) {
    let mut record = builder.record(&table.schema);
    record.op(Some(Op::Truncate)).timestamp_ms(now_ms()).source(|writer| {
        writer.int(now_ms());
        writer.text("true");
        writer.null();
    });
    record.finish();
}

/// The records of one outbox row: one, or three where the key changes.
pub(crate) fn change(builder: &mut BatchBuilder, table: &mut Table, change: &Change) -> Result<(), BadRow> {
    for row in [&change.before, &change.after].into_iter().flatten() {
        widen(table, row)?;
    }
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    match (change.op.as_str(), before, after) {
        ("u", Some(old), Some(new)) if table.has_key() && !table.same_key(old, new)? => {
            // A changed key is another row: the old one goes, a new one comes (data-semantics §1).
            delete(builder, table, change, old)?;
            row_record(builder, table, change, Op::Create, 2, None, Some(new))
        }
        ("u", Some(old), Some(new)) => {
            row_record(builder, table, change, Op::Update, 2, Some(old), Some(new))
        }
        ("c", _, Some(new)) => row_record(builder, table, change, Op::Create, 2, None, Some(new)),
        ("d", Some(old), _) => delete(builder, table, change, old),
        _ => Err(BadRow::Width { table: table.name.clone(), found: 0, expected: table.columns.len() }),
    }
}

fn delete(builder: &mut BatchBuilder, table: &Table, change: &Change, old: &str) -> Result<(), BadRow> {
    row_record(builder, table, change, Op::Delete, 0, Some(old), None)?;
    if table.has_key() {
        let mut record = builder.record(&table.schema);
        record.op(Some(Op::Tombstone)).timestamp_ms(change.ts_ms).position(0, &position(change.id, 1));
        record.try_key(|writer| table.write_key(writer, old))?;
        record.finish();
    }
    Ok(())
}

fn position(id: i64, ordinal: u8) -> [u8; 9] {
    let mut bytes = [ordinal; 9];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    bytes
}

fn row_record(
    builder: &mut BatchBuilder,
    table: &Table,
    change: &Change,
    op: Op,
    ordinal: u8,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<(), BadRow> {
    let schema: &Arc<EventSchema> = &table.schema;
    let mut record = builder.record(schema);
    record.op(Some(op)).timestamp_ms(change.ts_ms).position(0, &position(change.id, ordinal));
    if let Some(row) = after.or(before) {
        record.try_key(|writer| table.write_key(writer, row))?;
    }
    if let Some(row) = before {
        record.try_before(|writer| table.write_row(writer, row))?;
    }
    if let Some(row) = after {
        record.try_after(|writer| table.write_row(writer, row))?;
    }
    record.source(|writer| {
        writer.int(change.ts_ms);
        writer.text("false");
        writer.int(change.id);
    });
    record.finish();
    Ok(())
}

/// Makes room in the schema for values of other types than the declared ones.
fn widen(table: &mut Table, row: &str) -> Result<(), BadRow> {
    while let Some(index) = table.misfit(row)? {
        *table = table.widened(index);
    }
    Ok(())
}
