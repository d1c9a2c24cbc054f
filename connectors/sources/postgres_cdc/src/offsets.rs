//! What is stored of our progress: one document for the stream, one for each table's copy.
//!
//! *Stream* (source partition `stream`): `end_lsn` — every transaction that commits before it is covered —, and where
//! a transaction is covered in part, its commit LSN and the last covered ordinal. pgoutput's protocol 1 sends whole
//! transactions in commit order, and a commit record's LSN belongs to one transaction alone, so (commit LSN, ordinal)
//! orders all changes; the LSN where the commit ends is not known before the commit message arrives, which is why it
//! is no part of a record's position.
//!
//! *Table* (source partition: the table's quoted name): which blocks have been copied, under which snapshot, and from
//! which LSN on the stream's changes count.
//!
//! *Columns* (source partition: `columns/` and the captured table's quoted name): what its columns were when a record of
//! it was last stored, and what the catalog said when it was last read; see `evolution`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use towpath_api::{ConnectorError, SourceOffsets};

use super::config::fnv1a;
use super::lsn::Lsn;

/// The source partition of the stream's document. No table has this name: a table's always holds a dot.
pub(crate) const STREAM: &str = "stream";
/// What stands before a table's name in the source partition of its columns.
const COLUMNS: &str = "columns/";
/// The lane of the stream's positions.
pub(crate) const STREAM_LANE: u64 = 0;
const VERSION: u32 = 1;

/// How far the stream has been set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Setup {
    /// A slot is about to be created: should it be found at the next start, then it is ours and nothing of it has
    /// been used.
    Creating,
    /// The slot exists.
    Ready,
}

/// A transaction that is covered in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partial {
    pub(crate) commit_lsn: Lsn,
    /// The last covered ordinal.
    pub(crate) ordinal: u64,
}

/// The stream's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamDoc {
    v: u32,
    pub(crate) setup: Setup,
    pub(crate) system_id: String,
    pub(crate) timeline: u32,
    pub(crate) database: String,
    pub(crate) slot: String,
    /// Every transaction that commits before this is covered.
    pub(crate) end_lsn: Lsn,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transaction: Option<Partial>,
    /// Captured tables that must be copied anew, since the stream could not tell what became of their rows, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) copies: BTreeMap<String, String>,
}

/// Which server, which database and which slot a position belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) id: String,
    pub(crate) timeline: u32,
    pub(crate) database: String,
}

impl StreamDoc {
    pub(crate) fn new(system: &System, slot: &str, setup: Setup, end_lsn: Lsn) -> Self {
        Self {
            v: VERSION,
            setup,
            system_id: system.id.clone(),
            timeline: system.timeline,
            database: system.database.clone(),
            slot: slot.to_owned(),
            end_lsn,
            transaction: None,
            copies: BTreeMap::new(),
        }
    }
}

/// A column as it was when a record of its table was last stored: what renamings and additions are told by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColumnDoc {
    /// `attnum`, which survives a renaming; 0 where it could not be found out.
    pub(crate) number: i16,
    pub(crate) name: String,
    /// The type's object id and modifier, as in `pg_attribute`.
    #[serde(rename = "type")]
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
    /// What rows have that were there before the column was added, as the server writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initial: Option<String>,
}

/// What the catalog said about a table's columns when it was last read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SeenDoc {
    /// `attnum` → `xmin` of its row in `pg_attribute`: another one means that the column was changed.
    pub(crate) versions: BTreeMap<i16, u32>,
    /// Columns that are computed, which the stream does not carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) generated: Vec<i16>,
    /// `attnum` → what rows have that were there before the column was added, of columns that were new.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) initials: BTreeMap<i16, String>,
    /// Object id of each table that holds rows (itself, or its partitions) → the number of its file.
    pub(crate) files: BTreeMap<u32, u32>,
    /// `pg_current_snapshot()` at a time when the files were these.
    #[serde(default)]
    pub(crate) snapshot: String,
}

/// A captured table's columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShapeDoc {
    v: u32,
    pub(crate) oid: u32,
    pub(crate) columns: Vec<ColumnDoc>,
    /// The highest `attnum` that there was when the columns were these.
    pub(crate) highest: i16,
    pub(crate) seen: SeenDoc,
}

impl ShapeDoc {
    pub(crate) fn new(oid: u32, columns: Vec<ColumnDoc>, highest: i16, seen: SeenDoc) -> Self {
        Self { v: VERSION, oid, columns, highest, seen }
    }
}

/// One table's (or partition's) copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableDoc {
    pub(crate) v: u32,
    pub(crate) oid: u32,
    /// The file that holds the rows: another one means that the table was rewritten or truncated.
    pub(crate) filenode: u32,
    /// Whether the copy is complete.
    pub(crate) done: bool,
    /// Whether the record that empties the table has not been handed out yet: only behind it may its rows come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncate: bool,
    /// Counts the times when the copy had to change its lanes.
    pub(crate) generation: u32,
    /// Blocks of one chunk.
    pub(crate) chunk_blocks: u32,
    /// Chunks that have been copied, as ranges `[from, to)`, merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) chunks: Vec<(u32, u32)>,
    /// Chunks that have been copied in part: chunk, and block and tuple of the last row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) begun: Vec<(u32, u32, u16)>,
    /// `pg_current_snapshot()` of the first copy.
    pub(crate) snapshot: String,
    /// Changes of transactions that commit before this are in the copy already.
    pub(crate) from_lsn: Lsn,
    /// Rows may have been read as they were here: changes before it can be of rows that are gone since.
    #[serde(default)]
    pub(crate) until_lsn: Lsn,
}

impl TableDoc {
    pub(crate) fn new(oid: u32, filenode: u32, chunk_blocks: u32, snapshot: &str, from_lsn: Lsn) -> Self {
        Self {
            v: VERSION,
            oid,
            filenode,
            done: false,
            truncate: false,
            generation: 0,
            chunk_blocks,
            chunks: Vec::new(),
            begun: Vec::new(),
            snapshot: snapshot.to_owned(),
            from_lsn,
            until_lsn: from_lsn,
        }
    }

    /// Whether chunk `chunk` has been copied.
    pub(crate) fn has(&self, chunk: u32) -> bool {
        self.chunks.iter().any(|(from, to)| (*from..*to).contains(&chunk))
    }

    /// The last row of chunk `chunk` that has been copied, if it was begun.
    pub(crate) fn begun_at(&self, chunk: u32) -> Option<(u32, u16)> {
        self.begun.iter().find(|(begun, _, _)| *begun == chunk).map(|(_, block, tuple)| (*block, *tuple))
    }

    /// Notes that chunk `chunk` has been copied up to the row at `(block, tuple)`.
    pub(crate) fn begin(&mut self, chunk: u32, (block, tuple): (u32, u16)) {
        match self.begun.iter_mut().find(|(begun, _, _)| *begun == chunk) {
            Some(begun) => *begun = (chunk, block, tuple),
            None => self.begun.push((chunk, block, tuple)),
        }
    }

    /// Notes that chunk `chunk` has been copied.
    pub(crate) fn add(&mut self, chunk: u32) {
        self.begun.retain(|(begun, _, _)| *begun != chunk);
        let at = self.chunks.partition_point(|(from, _)| *from <= chunk);
        self.chunks.insert(at, (chunk, chunk.saturating_add(1)));
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.chunks.len());
        for (from, to) in self.chunks.drain(..) {
            match merged.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        self.chunks = merged;
    }

    /// The lane of chunk `chunk`: never the stream's.
    pub(crate) fn lane(&self, chunk: u32) -> u64 {
        let parts = [self.oid, self.filenode, self.generation, self.chunk_blocks, chunk];
        fnv1a(&parts.map(u32::to_be_bytes).concat()).max(STREAM_LANE + 1)
    }

    /// The lane of the records that only tell of new columns, of the captured table `oid`.
    pub(crate) fn columns_lane(oid: u32) -> u64 {
        fnv1a(&[b"columns".as_slice(), &oid.to_be_bytes()].concat()).max(STREAM_LANE + 1)
    }

    /// The lane of the record that empties the table before it is copied again.
    pub(crate) fn truncate_lane(&self) -> u64 {
        self.lane(u32::MAX)
    }
}

/// All documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Offsets {
    pub(crate) stream: Option<StreamDoc>,
    pub(crate) tables: BTreeMap<String, TableDoc>,
    /// By the captured table's name.
    pub(crate) shapes: BTreeMap<String, ShapeDoc>,
}

/// The source partition of a table's columns. No table has such a name: a slash would be in quotes.
pub(crate) fn columns_partition(table: &str) -> String {
    format!("{COLUMNS}{table}")
}

impl Offsets {
    /// Reads what was stored; what cannot be read stops the task (R7).
    pub(crate) fn read(stored: &SourceOffsets) -> Result<Self, ConnectorError> {
        let mut offsets = Self::default();
        for (partition, document) in &stored.partitions {
            let unreadable = |cause: Box<dyn std::error::Error + Send + Sync>| {
                ConnectorError::terminal("PG_OFFSETS", format!("the stored offset of {partition:?} cannot be read"))
                    .with_hint("it was written by another version or by hand; reset the pipeline (`towpath pipelines reset`) to start anew")
                    .with_cause(cause)
            };
            let version = document.get("v").and_then(serde_json::Value::as_u64);
            if version != Some(u64::from(VERSION)) {
                return Err(unreadable(format!("its version is {version:?}, not {VERSION}").into()));
            }
            if partition == STREAM {
                let read = StreamDoc::deserialize(document);
                offsets.stream = Some(read.map_err(|error| unreadable(error.into()))?);
            } else if let Some(table) = partition.strip_prefix(COLUMNS) {
                let read = ShapeDoc::deserialize(document);
                offsets.shapes.insert(table.to_owned(), read.map_err(|error| unreadable(error.into()))?);
            } else {
                let read = TableDoc::deserialize(document);
                offsets.tables.insert(partition.clone(), read.map_err(|error| unreadable(error.into()))?);
            }
        }
        if offsets.stream.is_none() && !offsets.tables.is_empty() {
            return Err(ConnectorError::terminal(
                "PG_OFFSETS",
                "the stored offsets have tables but no stream position",
            )
            .with_hint("reset the pipeline (`towpath pipelines reset`) to start anew"));
        }
        Ok(offsets)
    }

    /// The stream's document, to be stored.
    pub(crate) fn stream_update(&self) -> Result<SourceOffsets, ConnectorError> {
        let mut update = SourceOffsets::default();
        if let Some(stream) = &self.stream {
            update.partitions.insert(STREAM.to_owned(), document(stream)?);
        }
        Ok(update)
    }

    /// Everything, to be stored.
    pub(crate) fn whole(&self) -> Result<SourceOffsets, ConnectorError> {
        let mut update = self.stream_update()?;
        for (name, table) in &self.tables {
            update.partitions.insert(name.clone(), document(table)?);
        }
        for (name, shape) in &self.shapes {
            update.partitions.insert(columns_partition(name), document(shape)?);
        }
        Ok(update)
    }

    /// The records that empty tables have been handed out: what changes in the documents, to be stored behind them.
    pub(crate) fn emptied(&mut self) -> Result<SourceOffsets, ConnectorError> {
        let mut update = SourceOffsets::default();
        for (name, table) in self.tables.iter_mut().filter(|(_, table)| table.truncate) {
            table.truncate = false;
            update.partitions.insert(name.clone(), document(table)?);
        }
        Ok(update)
    }

    /// The columns of one table, to be stored.
    pub(crate) fn shape_update(&self, name: &str) -> Result<SourceOffsets, ConnectorError> {
        let mut update = SourceOffsets::default();
        if let Some(shape) = self.shapes.get(name) {
            update.partitions.insert(columns_partition(name), document(shape)?);
        }
        Ok(update)
    }

    /// One table's document, to be stored.
    pub(crate) fn table_update(&self, name: &str) -> Result<SourceOffsets, ConnectorError> {
        let mut update = SourceOffsets::default();
        if let Some(table) = self.tables.get(name) {
            update.partitions.insert(name.to_owned(), document(table)?);
        }
        Ok(update)
    }
}

fn document(value: &impl Serialize) -> Result<serde_json::Value, ConnectorError> {
    serde_json::to_value(value)
        .map_err(|error| ConnectorError::bug("PG_OFFSETS", "an offset cannot be written").with_cause(error))
}

/// A stream position: the LSN of the transaction's commit record, then the ordinal, both big endian, so that bytes
/// compare as positions do. Three ordinals belong to each change (a change of key takes all three: delete,
/// tombstone, create), counted over every change of every published table in the transaction, whatever is filtered:
/// replays number alike.
pub(crate) fn stream_position(commit_lsn: Lsn, ordinal: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&commit_lsn.0.to_be_bytes());
    bytes[8..].copy_from_slice(&ordinal.to_be_bytes());
    bytes
}

/// The position of a record that only tells of new columns, within its table's lane.
pub(crate) fn columns_position(lsn: Lsn) -> [u8; 8] {
    lsn.0.to_be_bytes()
}

/// The position of a copied row within its chunk's lane: block and tuple, both big endian.
pub(crate) fn copy_position(block: u32, tuple: u16) -> [u8; 6] {
    let mut bytes = [0; 6];
    bytes[..4].copy_from_slice(&block.to_be_bytes());
    bytes[4..].copy_from_slice(&tuple.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn system() -> System {
        System { id: "7".into(), timeline: 1, database: "shop".into() }
    }

    #[test]
    fn chunks_are_merged() {
        let mut doc = TableDoc::new(1, 2, 4096, "1:1:", Lsn(5));
        for chunk in [3, 0, 1, 5, 4] {
            doc.add(chunk);
        }
        assert_eq!(doc.chunks, [(0, 2), (3, 6)]);
        doc.begin(2, (9, 1));
        doc.begin(2, (9, 4));
        assert_eq!((doc.begun_at(2), doc.begun_at(3)), (Some((9, 4)), None));
        doc.add(2);
        assert_eq!((&doc.chunks[..], doc.begun_at(2)), (&[(0, 6)][..], None));
        assert!(doc.has(5) && !doc.has(6));
    }

    #[test]
    fn lanes_differ_by_chunk_generation_and_file() {
        let doc = TableDoc::new(1, 2, 4096, "1:1:", Lsn(5));
        let later = TableDoc { generation: 1, ..doc.clone() };
        let rewritten = TableDoc { filenode: 3, ..doc.clone() };
        let lanes =
            [doc.lane(0), doc.lane(1), later.lane(0), rewritten.lane(0), doc.truncate_lane(), STREAM_LANE];
        for (index, lane) in lanes.iter().enumerate() {
            assert!(!lanes[..index].contains(lane), "{index}");
        }
    }

    #[test]
    fn documents_go_both_ways_and_others_are_refused() {
        let column = ColumnDoc { number: 1, name: "a".into(), type_oid: 23, modifier: -1, initial: None };
        let seen = SeenDoc { versions: [(1, 700)].into(), files: [(1, 2)].into(), ..SeenDoc::default() };
        let shape = ShapeDoc::new(1, vec![column], 1, seen);
        let mut offsets = Offsets {
            stream: Some(StreamDoc::new(&system(), "s", Setup::Ready, Lsn(0x10_0000_0001))),
            tables: [("public.a".to_owned(), TableDoc::new(1, 2, 4096, "1:1:", Lsn(5)))].into(),
            shapes: [("public.a".to_owned(), shape)].into(),
        };
        offsets.stream.as_mut().unwrap().transaction = Some(Partial { commit_lsn: Lsn(9), ordinal: 4 });
        let whole = offsets.whole().unwrap();
        assert_eq!(whole.partitions[STREAM]["end_lsn"], "10/1");
        assert_eq!(whole.partitions["columns/public.a"]["columns"][0]["name"], "a");
        assert_eq!(Offsets::read(&whole).unwrap(), offsets);
        let code = |partitions: serde_json::Value| {
            let stored: SourceOffsets = serde_json::from_value(partitions).unwrap();
            Offsets::read(&stored).unwrap_err().code()
        };
        assert_eq!(code(json!({"stream": {"v": 2}})), "PG_OFFSETS");
        assert_eq!(code(json!({"stream": 5})), "PG_OFFSETS");
        let table = whole.partitions["public.a"].clone();
        assert_eq!(code(json!({"public.a": table})), "PG_OFFSETS");
    }

    #[test]
    fn positions_compare_as_bytes() {
        assert!(stream_position(Lsn(1), 300) < stream_position(Lsn(2), 0));
        assert!(stream_position(Lsn(2), 255) < stream_position(Lsn(2), 256));
        assert!(copy_position(1, 300) < copy_position(2, 1));
    }
}
