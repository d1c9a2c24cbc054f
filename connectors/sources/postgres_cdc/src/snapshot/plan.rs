//! What has to be copied at a start, and under which snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, literal};

use super::super::catalog::{Leaf, Table, find_slot, partitions_born_empty, snapshot_shapes};
use super::super::config::{Config, DroppedPartitions, Names, SnapshotMode, fnv1a};
use super::super::errors::classify;
use super::super::lsn::Lsn;
use super::super::offsets::{Offsets, Setup, ShapeDoc, StreamDoc, System, TableDoc, columns_partition};
use super::super::session::Session;
use super::super::setup::{FreshSlot, create_slot, drop_slot};
use super::super::shape::{Origin, Shape};
use super::super::wire::PgError;

/// Bytes of a block, as every common build of PostgreSQL has it; where it differs, chunks have another size.
const BLOCK_BYTES: u64 = 8192;
/// Before version 14 a `ctid` range is a scan of the whole table: one chunk then.
const CTID_RANGES_FROM: u32 = 140_000;
/// What the first chunk holds when there is only one.
const ALL_BLOCKS: u32 = u32::MAX;

/// Everything that [`prepare`] needs; owned, since it runs as a task of its own.
#[derive(Debug)]
pub(crate) struct Prepare {
    pub(crate) session: Session,
    pub(crate) config: Arc<Config>,
    pub(crate) names: Names,
    pub(crate) system: System,
    pub(crate) origin: Origin,
    pub(crate) tables: Vec<Table>,
    pub(crate) offsets: Offsets,
}

/// What [`prepare`] found.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The documents that must be stored before anything is copied.
    pub(crate) offsets: Offsets,
    /// Source partitions of tables that are not captured any more.
    pub(crate) forgotten: Vec<String>,
    /// What is to be copied, if anything is.
    pub(crate) plan: Option<Plan>,
}

/// A copy that is ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Keeps the snapshot alive.
    pub(crate) slot: FreshSlot,
    pub(crate) units: Vec<Unit>,
    pub(crate) jobs: VecDeque<Job>,
    /// When the snapshot was taken.
    pub(crate) ts_ms: i64,
    /// The next transaction id as the snapshot saw it, with its epoch.
    pub(crate) next_xid: u64,
    /// Rows to expect.
    pub(crate) rows: u64,
}

/// A table or partition to copy.
#[derive(Debug)]
pub(crate) struct Unit {
    /// The name of its document.
    pub(crate) key: String,
    pub(crate) leaf: Leaf,
    /// The captured table's shape: a partition's rows are those of its root.
    pub(crate) shape: Arc<Shape>,
    pub(crate) doc: TableDoc,
    /// Whether a truncate record comes before its rows.
    pub(crate) truncate: bool,
}

/// Which rows of a chunk are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    All,
    /// Those that this earlier snapshot saw.
    SeenBy(String),
    /// Those that this earlier snapshot did not see.
    NewerThan(String),
}

/// One chunk to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) unit: usize,
    pub(crate) chunk: u32,
    /// The row after which it begins, where a part of it has been copied.
    pub(crate) after: Option<(u32, u16)>,
    /// The last chunk has no upper end.
    pub(crate) last: bool,
    pub(crate) filter: Filter,
}

/// How a table's copy begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing of it has been read.
    Fresh,
    /// Read what is missing, and what is newer elsewhere.
    Converge,
    /// Read everything again under other lanes; no truncate, since keys repair what is stale.
    ConvergeWhole,
    /// Read what is missing of what the first snapshot saw.
    Exact,
    /// Read a partition that came with its rows to a table that is copied; keys repair what is stale.
    Attach,
    /// Truncate and read everything.
    Restart,
}

/// The shapes of tables as they are, with what is to be remembered of them, by object id.
type Shapes = HashMap<u32, (Arc<Shape>, ShapeDoc)>;

fn way(table: &Table, keyed: bool, leaf: &Leaf, filenode: u32, doc: &TableDoc) -> Way {
    let same_table = doc.oid == leaf.oid;
    let same_file = same_table && doc.filenode == filenode;
    match (same_file, table.insert_only, keyed) {
        (true, true, _) => Way::Exact,
        (true, false, true) => Way::Converge,
        (false, false, true) if same_table => Way::ConvergeWhole,
        _ => Way::Restart,
    }
}

/// Sets the slot up if it does not exist yet, finds what has to be copied, and takes the snapshot for it. Nothing that
/// is stored may depend on it before its offsets are durable.
pub(crate) async fn prepare(mut input: Prepare) -> Result<Prepared, ConnectorError> {
    let first = input.offsets.stream.as_ref().is_none_or(|stream| stream.setup == Setup::Creating);
    let known: BTreeMap<u32, u32> =
        input.offsets.tables.values().map(|doc| (doc.oid, doc.generation)).collect();
    let forgotten = forget(&mut input.offsets, &input.tables);
    let shapes = snapshot_shapes(&mut input.session, &input.origin, &input.tables).await?;
    if input.config.snapshot == SnapshotMode::Never {
        return without_snapshot(input, &shapes, first, forgotten).await;
    }
    let files = filenodes(&mut input.session, &input.tables).await?;
    let version =
        input.session.connection().await.map_err(|error| classify("read the catalog", error))?.server_version;
    let wanted = u32::try_from(input.config.snapshot_chunk_bytes / BLOCK_BYTES).unwrap_or(ALL_BLOCKS).max(1);
    let chunk_blocks = if version >= CTID_RANGES_FROM { wanted } else { ALL_BLOCKS };
    let newcomers = newcomers(&input);
    let born = partitions_born_empty(&mut input.session, &newcomers).await?;
    let ways = Choice { known: &known, shapes: &shapes, files: &files, born: &born }.all(&mut input);
    if ways.is_empty() && !first {
        return Ok(Prepared { offsets: input.offsets, forgotten, plan: None });
    }
    let only = input.config.snapshot == SnapshotMode::Only;
    let slot = match first && !only {
        true => first_slot(&mut input).await?,
        false => create_slot(&input.session, &temporary_name(&input.names.slot), true).await?,
    };
    if first {
        input.offsets.stream =
            Some(StreamDoc::new(&input.system, &input.names.slot, Setup::Ready, slot.consistent));
    }
    let plan = build(&mut input, slot, ways, &known, &files, &shapes, chunk_blocks).await?;
    Ok(Prepared { offsets: input.offsets, forgotten, plan: Some(plan) })
}

/// Drops documents of tables that are not captured any more.
fn forget(offsets: &mut Offsets, tables: &[Table]) -> Vec<String> {
    let known: BTreeSet<String> =
        tables.iter().flat_map(|table| &table.leaves).map(|leaf| leaf.name.to_string()).collect();
    let mut gone: Vec<String> =
        offsets.tables.keys().filter(|name| !known.contains(*name)).cloned().collect();
    for name in &gone {
        offsets.tables.remove(name);
    }
    let captured: BTreeSet<String> = tables.iter().map(|table| table.name.to_string()).collect();
    let shapes: Vec<String> =
        offsets.shapes.keys().filter(|name| !captured.contains(*name)).cloned().collect();
    for name in &shapes {
        offsets.shapes.remove(name);
        gone.push(columns_partition(name));
        tracing::warn!(table = %name, "the table is not captured any more; what it sent stays where it is");
    }
    gone
}

/// Partitions that were not there when their table was last looked at.
fn newcomers(input: &Prepare) -> Vec<Leaf> {
    let is_new = |table: &Table, leaf: &Leaf| {
        let shape = input.offsets.shapes.get(&table.name.to_string());
        shape.is_some_and(|shape| !shape.seen.files.contains_key(&leaf.oid))
    };
    let partitioned = input.tables.iter().filter(|table| table.partitioned);
    let new = partitioned.flat_map(|table| table.leaves.iter().filter(move |leaf| is_new(table, leaf)));
    new.cloned().collect()
}

async fn without_snapshot(
    mut input: Prepare,
    shapes: &Shapes,
    first: bool,
    forgotten: Vec<String>,
) -> Result<Prepared, ConnectorError> {
    if first {
        let slot = first_slot(&mut input).await?;
        input.offsets.stream =
            Some(StreamDoc::new(&input.system, &input.names.slot, Setup::Ready, slot.consistent));
        slot.close().await;
    }
    for table in &input.tables {
        if let Some((_, doc)) = shapes.get(&table.oid) {
            let known = input.offsets.shapes.entry(table.name.to_string()).or_insert_with(|| doc.clone());
            if known.oid != table.oid {
                *known = doc.clone();
            }
        }
    }
    for leaf in input.tables.iter().flat_map(|table| &table.leaves) {
        input
            .offsets
            .tables
            .entry(leaf.name.to_string())
            .and_modify(|doc| doc.done = true)
            .or_insert_with(|| uncopied(leaf));
    }
    Ok(Prepared { offsets: input.offsets, forgotten, plan: None })
}

/// The document of a table whose rows are not copied.
fn uncopied(leaf: &Leaf) -> TableDoc {
    TableDoc { done: true, ..TableDoc::new(leaf.oid, 0, ALL_BLOCKS, "", Lsn(0)) }
}

/// Creates the slot for good. One that exists is a leftover of an attempt that ended before anything was used: that
/// we were about to create it is on record.
async fn first_slot(input: &mut Prepare) -> Result<FreshSlot, ConnectorError> {
    let name = &input.names.slot;
    if find_slot(&mut input.session, name).await?.is_some() {
        tracing::warn!(slot = %name, "dropping the slot of an attempt that ended before it was used");
        drop_slot(&mut input.session, name).await?;
    }
    create_slot(&input.session, name, false).await
}

/// A name for a slot that lives as long as its connection.
fn temporary_name(slot: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = format!("{slot} {} {}", std::process::id(), now.as_nanos());
    format!("towpath_copy_{:016x}", fnv1a(seed.as_bytes()))
}

/// The files of all leaves. Read before the snapshot is taken: whatever is rewritten later shows by its number.
async fn filenodes(session: &mut Session, tables: &[Table]) -> Result<HashMap<u32, u32>, ConnectorError> {
    const WHAT: &str = "look at the tables' files";
    let sql =
        format!("SELECT o, coalesce(pg_relation_filenode(o), 0) FROM unnest('{}'::oid[]) o", oids(tables));
    let rows = session.query(WHAT, &sql).await?;
    let read = rows.iter().map(|row| Ok((row.parse(0, "table")?, row.parse(1, "file number")?)));
    read.collect::<Result<_, PgError>>().map_err(|error| classify(WHAT, error))
}

fn oids(tables: &[Table]) -> String {
    let list: Vec<String> =
        tables.iter().flat_map(|table| &table.leaves).map(|leaf| leaf.oid.to_string()).collect();
    format!("{{{}}}", list.join(","))
}

/// What decides how each leaf is copied.
struct Choice<'a> {
    /// Object id of everything that was copied, under whatever name → the generation of its lanes.
    known: &'a BTreeMap<u32, u32>,
    shapes: &'a Shapes,
    files: &'a HashMap<u32, u32>,
    /// Partitions whose rows all came through the stream.
    born: &'a BTreeSet<u32>,
}

impl Choice<'_> {
    /// Decides for every leaf that is not copied yet: table, leaf and way.
    fn all(&self, input: &mut Prepare) -> Vec<(usize, usize, Way)> {
        let keep = input.config.dropped_partitions == DroppedPartitions::Keep;
        let copies = input.offsets.stream.as_ref().map(|stream| stream.copies.clone()).unwrap_or_default();
        let mut chosen = Vec::new();
        for (at, table) in input.tables.iter().enumerate() {
            let name = table.name.to_string();
            let mut ways = self.of_table(&mut input.offsets, table, &name);
            if input.config.snapshot == SnapshotMode::Only {
                // No stream follows that would put right what has changed since.
                let converges = |way: &Way| matches!(way, Way::Converge | Way::ConvergeWhole);
                ways.iter_mut().filter(|(_, way)| converges(way)).for_each(|(_, way)| *way = Way::Restart);
            }
            let gone = self.lost_partitions(&mut input.offsets, table, &name);
            let why = match (copies.get(&name), gone && !keep) {
                (Some(why), _) => Some(why.as_str()),
                (None, true) => Some("a partition was dropped or detached with its rows"),
                (None, false) if ways.iter().any(|(_, way)| *way == Way::Restart) => {
                    Some("its copy cannot go on, or it is another table")
                }
                (None, false) => None,
            };
            if let Some(why) = why {
                tracing::warn!(table = %name, reason = why, "the table is copied anew");
                // A truncate record empties the whole table, so all partitions begin anew.
                ways = (0..table.leaves.len()).map(|index| (index, Way::Restart)).collect();
            }
            chosen.extend(ways.into_iter().map(|(index, way)| (at, index, way)));
        }
        chosen
    }

    fn of_table(&self, offsets: &mut Offsets, table: &Table, name: &str) -> Vec<(usize, Way)> {
        let Some((shape, doc_now)) = self.shapes.get(&table.oid) else { return Vec::new() };
        let shape_doc = offsets.shapes.get(name);
        let is_other = shape_doc.is_some_and(|doc| doc.oid != table.oid);
        // Rows are copied under the columns of now, which must be those that the stream goes on with.
        let same_columns = shape_doc.is_none_or(|doc| {
            let version = |doc: &ShapeDoc, number: &i16| doc.seen.versions.get(number).copied();
            doc.columns.len() == doc_now.columns.len()
                && doc.columns.iter().zip(&doc_now.columns).all(|(old, now)| {
                    old.number == now.number && version(doc, &old.number) == version(doc_now, &now.number)
                })
        });
        // A partition may have been copied as a table of its own, or as another's.
        let belongs =
            |leaf: &Leaf| shape_doc.is_some_and(|doc| doc.seen.files.contains_key(&leaf.oid) || is_other);
        // A partitioned table may have had no partition so far: its rows come through the stream all the same.
        let is_known = table.partitioned && shape_doc.is_some_and(|doc| doc.oid == table.oid)
            || table
                .leaves
                .iter()
                .any(|leaf| belongs(leaf) && offsets.tables.contains_key(&leaf.name.to_string()));
        let (mut ways, mut born) = (Vec::new(), Vec::new());
        for (index, leaf) in table.leaves.iter().enumerate() {
            let filenode = self.files.get(&leaf.oid).copied().unwrap_or_default();
            let doc = offsets.tables.get(&leaf.name.to_string()).filter(|_| belongs(leaf));
            let way = match doc {
                None if is_known && self.born.contains(&leaf.oid) => {
                    born.push(leaf);
                    continue;
                }
                None if is_known && shape.is_keyed() && !table.insert_only => Way::Attach,
                None if is_known => Way::Restart,
                // Renamed: where it goes now may hold rows of it already.
                None if self.known.contains_key(&leaf.oid) => Way::Restart,
                None => Way::Fresh,
                Some(_) if is_other => Way::Restart,
                Some(doc) if doc.done && doc.oid == leaf.oid && !doc.truncate => continue,
                // A crash came before the record that empties it.
                Some(doc) if doc.truncate => Way::Restart,
                Some(doc) => way(table, shape.is_keyed(), leaf, filenode, doc),
            };
            let goes_on = !matches!(way, Way::Fresh | Way::Restart);
            ways.push((index, if goes_on && !same_columns { Way::Restart } else { way }));
        }
        for leaf in born {
            offsets.tables.insert(leaf.name.to_string(), uncopied(leaf));
            self.note_file(offsets, name, leaf);
        }
        for (index, _) in ways.iter().filter(|(_, way)| *way == Way::Attach) {
            self.note_file(offsets, name, &table.leaves[*index]);
        }
        if !offsets.shapes.contains_key(name) {
            offsets.shapes.insert(name.to_owned(), doc_now.clone());
        }
        ways
    }

    fn note_file(&self, offsets: &mut Offsets, name: &str, leaf: &Leaf) {
        if let Some(doc) = offsets.shapes.get_mut(name) {
            doc.seen.files.insert(leaf.oid, self.files.get(&leaf.oid).copied().unwrap_or_default());
        }
    }

    /// Whether partitions that were there before are not any more; they are forgotten.
    fn lost_partitions(&self, offsets: &mut Offsets, table: &Table, name: &str) -> bool {
        let Some(doc) = offsets.shapes.get_mut(name).filter(|doc| doc.oid == table.oid && table.partitioned)
        else {
            return false;
        };
        let before = doc.seen.files.len();
        doc.seen.files.retain(|oid, _| table.leaves.iter().any(|leaf| leaf.oid == *oid));
        doc.seen.files.len() < before
    }
}

async fn build(
    input: &mut Prepare,
    slot: FreshSlot,
    ways: Vec<(usize, usize, Way)>,
    known: &BTreeMap<u32, u32>,
    files: &HashMap<u32, u32>,
    shapes: &Shapes,
    chunk_blocks: u32,
) -> Result<Plan, ConnectorError> {
    let seen = look(&mut input.session, &slot.snapshot_name, &input.tables).await?;
    let mut plan = Plan {
        slot,
        units: vec![],
        jobs: VecDeque::new(),
        ts_ms: seen.ts_ms,
        next_xid: seen.next_xid,
        rows: 0,
    };
    for (at, index, way) in ways {
        let (table, leaf) = (&input.tables[at], &input.tables[at].leaves[index]);
        let key = leaf.name.to_string();
        let Some((shape, shape_doc)) = shapes.get(&table.oid) else { continue };
        if matches!(way, Way::Fresh | Way::Restart) {
            input.offsets.shapes.insert(table.name.to_string(), shape_doc.clone());
        }
        let filenode = files.get(&leaf.oid).copied().unwrap_or_default();
        let mut fresh = TableDoc::new(leaf.oid, filenode, chunk_blocks, &seen.snapshot, plan.slot.consistent);
        fresh.generation = known.get(&leaf.oid).map_or(0, |generation| generation.saturating_add(1));
        let old = input.offsets.tables.remove(&key);
        let mut doc = next_document(way, fresh, old);
        if way == Way::Attach {
            // The stream's changes count as before: they are those of all partitions.
            let others =
                table.leaves.iter().filter_map(|leaf| input.offsets.tables.get(&leaf.name.to_string()));
            doc.from_lsn = others.map(|doc| doc.from_lsn).max().unwrap_or_default();
        }
        if way != Way::Fresh {
            tracing::info!(table = %leaf.name, ?way, "the copy of a table goes on");
        }
        let unit = plan.units.len();
        let blocks = seen.blocks.get(&leaf.oid).copied().unwrap_or_default();
        push_jobs(&mut plan.jobs, unit, way, &doc, blocks);
        plan.rows = plan.rows.saturating_add(leaf.rows);
        input.offsets.tables.insert(key.clone(), doc.clone());
        plan.units.push(Unit {
            key,
            leaf: leaf.clone(),
            shape: Arc::clone(shape),
            doc,
            truncate: way == Way::Restart && index == 0,
        });
    }
    Ok(plan)
}

fn next_document(way: Way, fresh: TableDoc, old: Option<TableDoc>) -> TableDoc {
    let Some(old) = old else { return fresh };
    let generation = old.generation.saturating_add(1);
    match way {
        Way::Fresh => fresh,
        Way::Attach => TableDoc { generation, ..fresh },
        Way::Exact => old,
        Way::Converge => TableDoc { generation, begun: Vec::new(), until_lsn: fresh.from_lsn, ..old },
        Way::ConvergeWhole => TableDoc { generation, from_lsn: old.from_lsn, ..fresh },
        Way::Restart => TableDoc { generation, truncate: true, ..fresh },
    }
}

fn push_jobs(jobs: &mut VecDeque<Job>, unit: usize, way: Way, doc: &TableDoc, blocks: u64) {
    let count = blocks.div_ceil(u64::from(doc.chunk_blocks)).clamp(1, u64::from(u32::MAX)) as u32;
    // Chunks that were copied when the table was longer are still to be looked at.
    let count = doc.chunks.last().map_or(count, |(_, to)| count.max(*to));
    for chunk in 0..count {
        let filter = match (way, doc.has(chunk)) {
            (Way::Converge, true) => Filter::NewerThan(readable(&doc.snapshot)),
            (_, true) => continue,
            (Way::Exact, false) => Filter::SeenBy(readable(&doc.snapshot)),
            (_, false) => Filter::All,
        };
        // Only where rows are where they were can a chunk be taken up in its middle.
        let after = if way == Way::Exact { doc.begun_at(chunk) } else { None };
        jobs.push_back(Job { unit, chunk, after, last: chunk + 1 == count, filter });
    }
}

/// A `pg_snapshot` as the server takes it back. One that was exported by a slot may be written with an xmax below its
/// xmin, which `pg_snapshot_in` refuses; it sees everything before its xmin (`XidInMVCCSnapshot`).
fn readable(snapshot: &str) -> String {
    let mut parts = snapshot.splitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    match (number(), number()) {
        (Some(xmin), Some(xmax)) if xmax < xmin => format!("{xmin}:{xmin}:"),
        _ => snapshot.to_owned(),
    }
}

/// What a snapshot sees.
struct Seen {
    snapshot: String,
    next_xid: u64,
    ts_ms: i64,
    /// Leaf → blocks.
    blocks: HashMap<u32, u64>,
}

async fn look(session: &mut Session, snapshot_name: &str, tables: &[Table]) -> Result<Seen, ConnectorError> {
    const WHAT: &str = "look at the snapshot";
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; \
         SELECT pg_current_snapshot(), pg_snapshot_xmax(pg_current_snapshot()), \
                (extract(epoch FROM clock_timestamp()) * 1000)::int8; \
         COMMIT",
        literal(snapshot_name, Dialect::Postgres)
    );
    let rows = session.query(WHAT, &sql).await?;
    let sql = format!(
        "SELECT o, coalesce(pg_relation_size(o), 0) / current_setting('block_size')::int8 FROM unnest('{}'::oid[]) o",
        oids(tables)
    );
    let sizes = session.query(WHAT, &sql).await?;
    let read = || {
        let row = rows.first().ok_or(PgError::Answer("snapshot"))?;
        let sizes = sizes.iter().map(|row| Ok((row.parse(0, "table")?, row.parse(1, "size")?)));
        Ok(Seen {
            snapshot: readable(row.text(0, "snapshot")?),
            next_xid: row.parse(1, "transaction id")?,
            ts_ms: row.parse(2, "time")?,
            blocks: sizes.collect::<Result<_, PgError>>()?,
        })
    };
    read().map_err(|error| classify(WHAT, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_sql::TableName;

    const CHUNK_BLOCKS: u32 = 4096;

    fn table(insert_only: bool) -> Table {
        let name = TableName::new("public", "t");
        Table {
            oid: 1,
            name: name.clone(),
            partitioned: false,
            identity: b'd',
            identifiable: true,
            insert_only,
            leaves: vec![Leaf { oid: 1, name, rows: 0 }],
            readable: true,
            schema_usable: true,
            owned: true,
        }
    }

    #[test]
    fn a_broken_copy_goes_on_in_the_way_that_its_table_allows() {
        let doc = TableDoc::new(1, 10, CHUNK_BLOCKS, "5:9:", Lsn(7));
        let way_of = |insert_only, keyed, filenode, doc: &TableDoc| {
            let table = table(insert_only);
            way(&table, keyed, &table.leaves[0], filenode, doc)
        };
        assert_eq!(way_of(false, true, 10, &doc), Way::Converge);
        assert_eq!(way_of(true, false, 10, &doc), Way::Exact);
        assert_eq!(way_of(false, false, 10, &doc), Way::Restart, "no key, replica identity full");
        assert_eq!(way_of(false, true, 11, &doc), Way::ConvergeWhole, "rewritten");
        assert_eq!(way_of(true, false, 11, &doc), Way::Restart);
        let old = TableDoc { generation: 3, ..doc.clone() };
        let restarted =
            next_document(Way::Restart, TableDoc::new(1, 11, CHUNK_BLOCKS, "9:9:", Lsn(8)), Some(old));
        assert!(restarted.truncate && restarted.generation == 4, "remembered until the record is on its way");
        let recreated = TableDoc { oid: 2, ..doc };
        assert_eq!(way_of(false, true, 10, &recreated), Way::Restart, "another table of the same name");
    }

    #[test]
    fn snapshots_can_be_given_back() {
        for (written, expected) in
            [("9357:9356:", "9357:9357:"), ("5:9:", "5:9:"), ("5:9:6,7", "5:9:6,7"), ("9:9:", "9:9:")]
        {
            assert_eq!(readable(written), expected);
        }
    }

    #[test]
    fn what_is_left_becomes_jobs() {
        let mut doc = TableDoc::new(1, 10, CHUNK_BLOCKS, "5:9:", Lsn(7));
        doc.add(1);
        let jobs = |way, doc: &TableDoc, blocks| {
            let mut jobs = VecDeque::new();
            push_jobs(&mut jobs, 0, way, doc, blocks);
            jobs.into_iter().map(|job| (job.chunk, job.last, job.filter)).collect::<Vec<_>>()
        };
        let newer = Filter::NewerThan("5:9:".into());
        let seen = Filter::SeenBy("5:9:".into());
        let blocks = u64::from(CHUNK_BLOCKS) * 2 + 1;
        assert_eq!(
            jobs(Way::Converge, &doc, blocks),
            [(0, false, Filter::All), (1, false, newer), (2, true, Filter::All)]
        );
        assert_eq!(jobs(Way::Exact, &doc, blocks), [(0, false, seen.clone()), (2, true, seen)]);
        doc.begin(2, (9000, 5));
        let mut exact = VecDeque::new();
        push_jobs(&mut exact, 0, Way::Exact, &doc, blocks);
        assert_eq!((exact[0].after, exact[1].after), (None, Some((9000, 5))), "taken up in the middle");
        let empty = TableDoc::new(1, 10, CHUNK_BLOCKS, "5:9:", Lsn(7));
        assert_eq!(
            jobs(Way::Fresh, &empty, 0),
            [(0, true, Filter::All)],
            "an empty table has one open chunk"
        );
    }

    #[test]
    fn documents_keep_what_the_way_needs() {
        let old = TableDoc { generation: 3, ..TableDoc::new(1, 10, CHUNK_BLOCKS, "5:9:", Lsn(7)) };
        let fresh = TableDoc::new(1, 11, CHUNK_BLOCKS, "8:8:", Lsn(9));
        let next = |way| next_document(way, fresh.clone(), Some(old.clone()));
        assert_eq!(next(Way::Exact), old);
        assert_eq!((next(Way::Converge).generation, next(Way::Converge).from_lsn), (4, Lsn(7)));
        assert_eq!((next(Way::ConvergeWhole).filenode, next(Way::ConvergeWhole).from_lsn), (11, Lsn(7)));
        assert_eq!((next(Way::Restart).generation, next(Way::Restart).from_lsn), (4, Lsn(9)));
    }
}
