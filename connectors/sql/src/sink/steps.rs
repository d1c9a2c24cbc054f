//! From a run of records to few steps that leave the same rows behind.
//!
//! Records of one table keep their order. In a table with a key, only the last state of each key matters: runs of
//! changes become one [`Fold`], whose deletions come first and whose rows have distinct keys. A change that does not
//! tell every column (an unchanged TOAST value) takes the others from the change before it, if that is in the same
//! run, and otherwise from the row in the database ([`Upsert::is_partial`]). Truncations split runs, and so does another
//! schema of the same table. An update whose image before tells another key also deletes that key's row. Without a
//! key, new rows are appended and changes stand alone.

use std::collections::HashMap;
use std::ops::Range;

use towpath_api::{Batch, Op, RecordView, Value};

use super::layout::Layout;

/// The last state of one key within a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upsert {
    /// The newest record.
    pub record: usize,
    /// Earlier records, newest first, which tell columns that the newest does not.
    pub older: Vec<usize>,
    /// Whether the row is new, as far as the records say: it was created (or read by a snapshot) in this run, and
    /// nothing came before that.
    pub fresh: bool,
    /// Whether the row may be new. An update that does not tell every column needs one that is there.
    pub may_insert: bool,
    /// The columns that no record tells, as a set; empty when the row is whole.
    pub missing: Vec<usize>,
}

impl Upsert {
    /// Whether columns are missing, so that the row in the database must keep its own.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        !self.missing.is_empty()
    }

    /// The value of `column`.
    #[must_use]
    pub fn value<'a>(&self, batch: &'a Batch, layout: &Layout, column: usize) -> Value<'a> {
        let newest = batch.record(self.record);
        if layout.is_key(column) {
            return layout.key_value(&newest, column);
        }
        let mut value = layout.value(&newest, column);
        let mut older = self.older.iter();
        while let (Value::Absent, Some(record)) = (value, older.next()) {
            value = layout.value(&batch.record(*record), column);
        }
        value
    }
}

/// Changes of a table with a key, at most one for each key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fold {
    /// Records whose key's row is deleted, first ([`Layout::old_key_value`]).
    pub deletes: Vec<usize>,
    /// Rows that are written, in the order in which their keys came first.
    pub upserts: Vec<Upsert>,
}

/// What a keyless change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// One row that equals the image before becomes the image after.
    Update,
    /// One row that equals the image before goes.
    Delete,
}

/// One thing to do to a table. `plan` is the caller's number for table and schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Changes by key.
    Fold {
        /// Table and schema.
        plan: usize,
        /// What to do.
        fold: Fold,
    },
    /// New rows, without looking whether they are there.
    Append {
        /// Table and schema.
        plan: usize,
        /// The records.
        records: Vec<usize>,
    },
    /// One row of a table without a key changes.
    Change {
        /// Table and schema.
        plan: usize,
        /// The record.
        record: usize,
        /// What happens.
        change: Change,
    },
    /// A row gets another key, and the record does not tell all its columns.
    Move {
        /// Table and schema.
        plan: usize,
        /// The record that deletes the old key ([`Layout::old_key_value`]).
        delete: usize,
        /// The record that creates the new one; the same, if it is an update.
        create: usize,
    },
    /// All rows go.
    Truncate {
        /// Table and schema.
        plan: usize,
        /// The record.
        record: usize,
    },
}

/// The steps of one table, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSteps {
    /// The caller's number for the table.
    pub table: usize,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Why a record cannot be a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A part of the key is null or not there.
    NoKey,
    /// A change or deletion of a table without a key does not tell the row before.
    NoBefore,
}

/// Whether the row of the record's key goes, by a null value in a topic whose values are rows: other people's
/// compacted topics delete so. Behind a change event, which says it itself, a tombstone is not flat.
pub(crate) fn deletes_by_key(record: &RecordView<'_>) -> bool {
    record.op() == Some(Op::Tombstone) && record.is_flat() && record.key().is_some()
}

/// Plans the records `range` of `batch`. `place` gives each record's table and plan (records without one are left
/// out), `layouts` the layout of each plan.
pub fn plan_steps(
    batch: &Batch,
    range: Range<usize>,
    place: impl Fn(usize) -> Option<(usize, usize)>,
    layouts: &[&Layout],
) -> (Vec<TableSteps>, Vec<(usize, Refusal)>) {
    let mut keys = Keys::default();
    for index in range.clone() {
        let layout = place(index).and_then(|(_, plan)| layouts.get(plan));
        keys.push(layout, &batch.record(index));
    }
    let mut planner =
        Planner { batch, layouts, keys: &keys, first: range.start, tables: Vec::new(), refusals: Vec::new() };
    let mut skip = None;
    for index in range.clone() {
        let Some((table, plan)) = place(index) else { continue };
        if skip == Some(index) {
            continue;
        }
        if let Some(create) = planner.moved_to(index, plan, range.end, &place) {
            planner.table(table).push(Step::Move { plan, delete: index, create });
            skip = Some(create);
            continue;
        }
        planner.record(index, table, plan);
    }
    let Planner { tables, refusals, .. } = planner;
    (tables.into_iter().map(Table::finish).collect(), refusals)
}

/// The keys of a range of records, one after the other.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    /// Where each record's key ends, and whether it is whole.
    ends: Vec<(usize, bool)>,
    /// The keys that updates take from their rows, by the places of the updates.
    old: HashMap<usize, Vec<u8>>,
    scratch: Vec<u8>,
}

impl Keys {
    fn push(&mut self, layout: Option<&&Layout>, record: &RecordView<'_>) {
        let from = self.bytes.len();
        let whole = match layout {
            Some(layout) if layout.is_keyed() => layout.push_key(record, &mut self.bytes),
            _ => false,
        };
        let moves = whole && record.op() == Some(Op::Update) && record.after().is_some();
        if let Some(layout) = layout.filter(|_| moves && record.before().is_some()) {
            self.scratch.clear();
            if layout.push_key_before(record, &mut self.scratch) && self.bytes[from..] != self.scratch[..] {
                self.old.insert(self.ends.len(), self.scratch.clone());
            }
        }
        self.ends.push((self.bytes.len(), whole));
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before].0);
        let (end, whole) = self.ends[at];
        whole.then(|| &self.bytes[from..end])
    }
}

/// A key's state in the run that is being folded.
enum Slot {
    Delete(usize),
    Upsert(Upsert),
}

/// A run that is still open.
enum Run<'a> {
    Fold { plan: usize, slots: Vec<Slot>, by_key: HashMap<&'a [u8], usize> },
    Append { plan: usize, records: Vec<usize> },
}

struct Table<'a> {
    table: usize,
    steps: Vec<Step>,
    run: Option<Run<'a>>,
}

impl Table<'_> {
    fn close(&mut self) {
        match self.run.take() {
            None => {}
            Some(Run::Append { plan, records }) => self.steps.push(Step::Append { plan, records }),
            Some(Run::Fold { plan, slots, .. }) => {
                let mut fold = Fold::default();
                for slot in slots {
                    match slot {
                        Slot::Delete(record) => fold.deletes.push(record),
                        Slot::Upsert(upsert) => fold.upserts.push(upsert),
                    }
                }
                self.steps.push(Step::Fold { plan, fold });
            }
        }
    }

    fn push(&mut self, step: Step) {
        self.close();
        self.steps.push(step);
    }

    fn finish(mut self) -> TableSteps {
        self.close();
        TableSteps { table: self.table, steps: self.steps }
    }
}

struct Planner<'a> {
    batch: &'a Batch,
    layouts: &'a [&'a Layout],
    keys: &'a Keys,
    first: usize,
    tables: Vec<Table<'a>>,
    refusals: Vec<(usize, Refusal)>,
}

impl<'a> Planner<'a> {
    fn table(&mut self, table: usize) -> &mut Table<'a> {
        let at = self.tables.iter().position(|known| known.table == table).unwrap_or_else(|| {
            self.tables.push(Table { table, steps: Vec::new(), run: None });
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    fn key(&self, record: usize) -> Option<&'a [u8]> {
        self.keys.get(record - self.first)
    }

    /// The key that an update takes from its row.
    fn old_key(&self, record: usize) -> Option<&'a [u8]> {
        self.keys.old.get(&(record - self.first)).map(Vec::as_slice)
    }

    /// The record that creates the row again under another key, if `delete` and it are the two halves of a change
    /// of the key and it does not tell every column.
    fn moved_to(
        &self,
        delete: usize,
        plan: usize,
        end: usize,
        place: &impl Fn(usize) -> Option<(usize, usize)>,
    ) -> Option<usize> {
        let layout = self.layouts[plan];
        if self.batch.record(delete).op() != Some(Op::Delete) || !layout.is_keyed() {
            return None;
        }
        let next = (delete + 1..end)
            .find(|index| place(*index).is_some() && self.batch.record(*index).op() != Some(Op::Tombstone))?;
        let record = self.batch.record(next);
        let fits = record.op() == Some(Op::Create)
            && place(next).is_some_and(|(_, other)| other == plan)
            && self.key(delete).is_some()
            && self.key(next).is_some()
            && !missing(layout, &record).is_empty();
        fits.then_some(next)
    }

    fn record(&mut self, index: usize, table: usize, plan: usize) {
        let (record, layout) = (self.batch.record(index), self.layouts[plan]);
        if layout.is_append() {
            if layout.appends(&record) {
                self.append(index, table, plan);
            }
            return;
        }
        match record.op() {
            Some(Op::Tombstone) if !layout.is_keyed() || !deletes_by_key(&record) => {}
            Some(Op::Truncate) => self.table(table).push(Step::Truncate { plan, record: index }),
            _ if layout.is_keyed() => match (self.key(index), self.old_key(index)) {
                (Some(_), Some(_)) if !missing(layout, &record).is_empty() => {
                    self.table(table).push(Step::Move { plan, delete: index, create: index });
                }
                (Some(key), old) => {
                    if let Some(old) = old {
                        self.settle(index, table, plan, old, Slot::Delete(index));
                    }
                    self.fold(index, table, plan, key);
                }
                (None, _) => self.refusals.push((index, Refusal::NoKey)),
            },
            Some(Op::Update | Op::Delete) => {
                let change = if record.after().is_some() { Change::Update } else { Change::Delete };
                match record.before() {
                    Some(_) => self.table(table).push(Step::Change { plan, record: index, change }),
                    None => self.refusals.push((index, Refusal::NoBefore)),
                }
            }
            _ if record.after().is_none() => self.refusals.push((index, Refusal::NoKey)),
            _ => self.append(index, table, plan),
        }
    }

    fn append(&mut self, index: usize, table: usize, plan: usize) {
        let table = self.table(table);
        match &mut table.run {
            Some(Run::Append { plan: open, records }) if *open == plan => records.push(index),
            _ => {
                table.close();
                table.run = Some(Run::Append { plan, records: vec![index] });
            }
        }
    }

    fn fold(&mut self, index: usize, table: usize, plan: usize, key: &'a [u8]) {
        let (batch, layout) = (self.batch, self.layouts[plan]);
        let fresh = if batch.record(index).after().is_none() {
            Slot::Delete(index)
        } else {
            Slot::Upsert(upsert(layout, batch, index, None))
        };
        self.settle(index, table, plan, key, fresh);
    }

    /// Puts the state that `index` gives to `key` into the run.
    fn settle(&mut self, index: usize, table: usize, plan: usize, key: &'a [u8], fresh: Slot) {
        let (batch, layout) = (self.batch, self.layouts[plan]);
        let table = self.table(table);
        if !matches!(&table.run, Some(Run::Fold { plan: open, .. }) if *open == plan) {
            table.close();
        }
        if let (Some(Run::Fold { slots, by_key, .. }), Slot::Upsert(new)) = (&table.run, &fresh)
            && new.is_partial()
            && by_key.get(key).is_some_and(|at| matches!(slots[*at], Slot::Delete(_)))
        {
            // What is missing must not come from the row that this run deletes.
            table.close();
        }
        let run =
            table.run.get_or_insert_with(|| Run::Fold { plan, slots: Vec::new(), by_key: HashMap::new() });
        let Run::Fold { slots, by_key, .. } = run else { return };
        match by_key.get(key) {
            None => {
                by_key.insert(key, slots.len());
                slots.push(fresh);
            }
            Some(at) => {
                let slot = &mut slots[*at];
                *slot = match (fresh, &*slot) {
                    (Slot::Upsert(_), Slot::Upsert(older)) => {
                        Slot::Upsert(upsert(layout, batch, index, Some(older)))
                    }
                    // Its old row is still in the database.
                    (Slot::Upsert(new), Slot::Delete(_)) => Slot::Upsert(Upsert { fresh: false, ..new }),
                    (fresh, _) => fresh,
                };
            }
        }
    }
}

/// The state that `index` makes of a key, after `before` in the same run.
fn upsert(layout: &Layout, batch: &Batch, index: usize, before: Option<&Upsert>) -> Upsert {
    let record = batch.record(index);
    let alone = missing(layout, &record);
    let is_new = record.op() != Some(Op::Update);
    let fresh = match before {
        Some(before) => before.fresh,
        None => matches!(record.op(), Some(Op::Create | Op::Read)),
    };
    let Some(before) = before.filter(|_| !alone.is_empty()) else {
        let may_insert = is_new || alone.is_empty();
        return Upsert { record: index, older: Vec::new(), fresh, may_insert, missing: alone };
    };
    // Only records that tell something new stay in the chain: it is never longer than there are columns.
    let (mut older, mut missing) = (Vec::new(), alone);
    for candidate in std::iter::once(before.record).chain(before.older.iter().copied()) {
        let (view, left) = (batch.record(candidate), missing.len());
        missing.retain(|column| matches!(layout.value(&view, *column), Value::Absent));
        if missing.len() < left {
            older.push(candidate);
        }
    }
    Upsert { record: index, older, fresh, may_insert: before.may_insert || is_new, missing }
}

/// The columns, the key's apart, that `record` does not tell.
fn missing(layout: &Layout, record: &RecordView<'_>) -> Vec<usize> {
    let absent =
        |column: &usize| !layout.is_key(*column) && matches!(layout.value(record, *column), Value::Absent);
    (0..layout.columns.len()).filter(absent).collect()
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
