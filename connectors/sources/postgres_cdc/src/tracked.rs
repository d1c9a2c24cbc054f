//! What is known of the columns of each captured table while the stream runs: see `evolution` for how it is found.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use towpath_api::{Batch, BatchBuilder, Computed, ConnectorError, Op};
use towpath_sql::TableName;

use super::catalog::{Described, Table, has_old_row, keys_now, keys_told, observe, shape_of, told};
use super::evolution::{Observed, Verdict, guess, judge, judge_exactly};
use super::lsn::Lsn;
use super::offsets::{ColumnDoc, Offsets, ShapeDoc, TableDoc, columns_position};
use super::pgoutput::RelationMessage;
use super::session::Session;
use super::shape::{Origin, Provenance, Shape};

/// One captured table.
#[derive(Debug)]
struct Tracked {
    table: Table,
    /// The columns as they are to be stored.
    doc: ShapeDoc,
    /// Newer ones, until a record with them has been handed out: a replay must tell the change again.
    pending: Option<(ShapeDoc, Arc<Shape>)>,
    /// The shape that records have at the moment.
    shape: Option<Arc<Shape>>,
    /// When a description was last looked into.
    resolved: Option<Instant>,
    /// Whether `doc` has to be stored.
    dirty: bool,
}

impl Tracked {
    /// The columns at the stream's position.
    fn current(&self) -> &ShapeDoc {
        self.pending.as_ref().map_or(&self.doc, |(doc, _)| doc)
    }

    fn computed(&self) -> Vec<Computed> {
        self.shape.as_ref().map(|shape| shape.schema.computed().to_vec()).unwrap_or_default()
    }

    /// Whether a partition has another file and none of the rows that it had: a TRUNCATE of it alone sends nothing.
    async fn is_emptied(&self, session: &mut Session, now: &Observed) -> Result<bool, ConnectorError> {
        if !self.table.partitioned {
            return Ok(false);
        }
        for leaf in &self.table.leaves {
            let before = self.doc.seen.files.get(&leaf.oid);
            let is_other =
                before.is_some_and(|before| now.files.get(&leaf.oid).is_some_and(|now| now != before));
            if is_other && !has_old_row(session, leaf, &self.doc.seen.snapshot).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers what the catalog said, and the columns that follow; `exact` says that it is what the stream has come to.
    fn note(&mut self, columns: Vec<ColumnDoc>, highest: i16, now: &Observed, exact: bool) -> ShapeDoc {
        let mut seen = now.remembered(Some(&self.doc.seen));
        if self.table.partitioned && !exact {
            // Whether a partition was emptied is still to be found out.
            seen.files.clone_from(&self.doc.seen.files);
            seen.snapshot.clone_from(&self.doc.seen.snapshot);
        }
        self.dirty |= seen != self.doc.seen;
        self.doc.seen = seen.clone();
        if let Some((pending, _)) = &mut self.pending {
            pending.seen = seen.clone();
        }
        ShapeDoc::new(self.table.oid, columns, highest, seen)
    }
}

/// A look at the catalog that the stream must catch up with before it says anything.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// When it began.
    pub(crate) taken: Instant,
    /// Everything that was committed before this is in it.
    pub(crate) covers: Lsn,
    /// Everything that is in it was committed before this.
    pub(crate) reached: Lsn,
    /// By the tables' object id.
    pub(crate) tables: HashMap<u32, Observed>,
}

/// All captured tables.
#[derive(Debug)]
pub(crate) struct TrackedColumns {
    tables: HashMap<u32, Tracked>,
    /// Tables that have to be copied anew, and why.
    copies: BTreeMap<String, String>,
    /// Whether they may be.
    may_copy: bool,
}

impl TrackedColumns {
    pub(crate) fn new(tables: Vec<Table>, offsets: &Offsets, may_copy: bool) -> Self {
        let tracked = |table: Table| {
            let doc = offsets.shapes.get(&table.name.to_string())?.clone();
            let oid = table.oid;
            let tracked = Tracked { table, doc, pending: None, shape: None, resolved: None, dirty: false };
            Some((oid, tracked))
        };
        Self { tables: tables.into_iter().filter_map(tracked).collect(), copies: BTreeMap::new(), may_copy }
    }

    /// Tables that have to be copied anew, and why.
    pub(crate) const fn copies(&self) -> &BTreeMap<String, String> {
        &self.copies
    }

    /// The documents that `batch`, or what was learnt meanwhile, changes, by the tables' names.
    pub(crate) fn take_changed(&mut self, batch: &Batch) -> Vec<(String, ShapeDoc)> {
        let mut changed = Vec::new();
        for tracked in self.tables.values_mut() {
            let is_told =
                |shape: &Shape| batch.records().any(|record| Arc::ptr_eq(record.schema(), &shape.schema));
            if let Some((doc, _)) = tracked.pending.take_if(|(_, shape)| is_told(shape)) {
                tracked.doc = doc;
                tracked.dirty = true;
            }
            if std::mem::take(&mut tracked.dirty) {
                changed.push((tracked.table.name.to_string(), tracked.doc.clone()));
            }
        }
        changed
    }

    /// What `message` means; `None` when the table is left out from here on, since it has to be copied anew.
    pub(crate) async fn resolve(
        &mut self,
        session: &mut Session,
        origin: &Origin,
        message: &RelationMessage<'_>,
    ) -> Result<Option<Arc<Shape>>, ConnectorError> {
        let Some(tracked) = self.tables.get_mut(&message.oid) else { return Ok(None) };
        tracked.resolved = Some(Instant::now());
        let name = TableName::new(message.schema, message.table);
        let now = observe(session, &[&tracked.table]).await?.remove(&message.oid).unwrap_or_default();
        let told = told(message);
        let verdict = match judge(tracked.current(), &told, &now) {
            _ if name != tracked.table.name => Verdict::Copy("it was renamed"),
            // It is gone; nothing of it has to be right any more.
            _ if now.files.is_empty() && !tracked.table.leaves.is_empty() => {
                Verdict::Columns(guess(tracked.current(), &told, &now))
            }
            verdict => verdict,
        };
        let columns = match verdict {
            Verdict::Columns(columns) => columns,
            Verdict::Copy(why) if self.may_copy => {
                self.copy(message.oid, why);
                return Ok(None);
            }
            Verdict::Copy(why) => {
                untold(&tracked.table.name, why);
                guess(tracked.current(), &told, &now)
            }
        };
        let is_key = keys_told(message, &columns, &now, tracked.shape.as_deref());
        let before = tracked.current().columns.clone();
        let computed_before = tracked.computed();
        let described = Described {
            origin,
            oid: message.oid,
            name: &name,
            before: &before,
            computed_before: &computed_before,
            now: &now,
        };
        let shape = shape_of(session, described, &columns, &is_key).await?;
        let is_new = before != columns;
        let same = tracked.shape.as_ref().filter(|known| known.is_same(&shape) && !is_new);
        if let Some(same) = same.map(Arc::clone) {
            // Sent again without a change: records go on sharing a schema.
            tracked.note(columns, 0, &now, false);
            return Ok(Some(same));
        }
        let shape = Arc::new(shape);
        let numbers = columns.iter().map(|column| column.number);
        let highest = numbers.max().unwrap_or_default().max(tracked.current().highest);
        let doc = tracked.note(columns, highest, &now, false);
        if is_new {
            tracing::info!(table = %name, "the table's columns changed");
            tracked.pending = Some((doc, Arc::clone(&shape)));
        }
        tracked.shape = Some(Arc::clone(&shape));
        Ok(Some(shape))
    }

    /// Notes that a table has to be copied anew.
    fn copy(&mut self, oid: u32, why: &str) {
        let Some(tracked) = self.tables.get_mut(&oid) else { return };
        tracked.pending = None;
        tracing::warn!(table = %tracked.table.name, reason = why, "the table has to be copied anew");
        self.copies.insert(tracked.table.name.to_string(), why.to_owned());
    }

    /// Compares the tables with a look at the catalog that the stream has caught up with: what is new was followed by no
    /// change. Appends records that tell of new columns; gives the tables to leave out, and whether all were compared.
    pub(crate) async fn compare(
        &mut self,
        session: &mut Session,
        origin: &Origin,
        look: Look,
        builder: &mut BatchBuilder,
        provenance: Provenance,
    ) -> Result<Compared, ConnectorError> {
        let mut compared = Compared { left_out: Vec::new(), all: true };
        for (oid, now) in &look.tables {
            let Some(tracked) = self.tables.get_mut(oid) else { continue };
            if self.copies.contains_key(&tracked.table.name.to_string()) {
                continue;
            }
            if tracked.resolved.is_some_and(|resolved| resolved >= look.taken) {
                // The look may be older than what the stream said since.
                compared.all = false;
                continue;
            }
            let before = tracked.current().columns.clone();
            let verdict = match tracked.is_emptied(session, now).await? {
                true => Verdict::Copy("a partition was emptied or rewritten by itself"),
                false => judge_exactly(tracked.current(), now),
            };
            let columns = match verdict {
                Verdict::Columns(columns) => columns,
                Verdict::Copy(why) if self.may_copy => {
                    self.copy(*oid, why);
                    compared.left_out.push(*oid);
                    continue;
                }
                Verdict::Copy(why) => {
                    untold(&tracked.table.name, why);
                    guess(tracked.current(), &now.told(), now)
                }
            };
            let is_new = before != columns;
            let is_key = keys_now(&tracked.table, &columns, now);
            let computes = now.computes_otherwise(&tracked.doc.seen);
            let added = computes || columns.iter().any(|column| !before.contains(column));
            let doc = tracked.note(columns, now.highest(), now, true);
            if !is_new && !computes {
                continue;
            }
            // The next description is compared with these columns.
            if added {
                let name = &tracked.table.name;
                tracing::info!(table = %name, "the table's columns changed, and no row with them");
                let described =
                    Described { origin, oid: *oid, name, before: &before, computed_before: &[], now };
                let shape = Arc::new(shape_of(session, described, &doc.columns, &is_key).await?);
                announce(builder, *oid, &shape, look.reached, provenance);
                tracked.shape = Some(Arc::clone(&shape));
                tracked.pending = Some((doc, shape));
            } else {
                tracked.doc = doc;
                tracked.pending = None;
                tracked.dirty = true;
            }
        }
        Ok(compared)
    }
}

/// What [`TrackedColumns::compare`] found.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Tables whose changes do not count any more.
    pub(crate) left_out: Vec<u32>,
    /// Whether every table was compared.
    pub(crate) all: bool,
}

/// What existing rows hold cannot be told, and copying them is not wanted.
fn untold(table: &TableName, why: &str) {
    tracing::error!(
        %table,
        reason = why,
        "PG_COLUMNS_UNTOLD: rows sent before may differ from the table's now; `snapshot: never` forbids to copy them anew"
    );
}

/// A record that only tells the columns: a tombstone without a key.
fn announce(builder: &mut BatchBuilder, oid: u32, shape: &Shape, lsn: Lsn, provenance: Provenance) {
    let mut record = builder.record(&shape.schema);
    record
        .op(Some(Op::Tombstone))
        .timestamp_ms(provenance.ts_ms)
        .position(TableDoc::columns_lane(oid), &columns_position(lsn))
        .source(|row| provenance.write(row));
    record.finish();
}
