//! Snapshots of one member on disk. Two are kept: if the newer one cannot be read, the older one and the log after it
//! say the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::codec::{CodecError, Reader, Writer};
use super::disk::{Files, StoreError};
use super::types::{LogId, Snapshot, SnapshotMeta, log_id};
use crate::{MetadataImage, snapshot_content};

const MAGIC: [u8; 4] = *b"TQS1";
const SUFFIX: &str = ".snapshot";
/// How many snapshots are kept.
const KEPT: usize = 2;

/// The snapshots of one member.
#[derive(Debug)]
pub(crate) struct Snapshots {
    files: Arc<Files>,
    /// Those that are there, the newest first.
    known: Mutex<Vec<LogId>>,
    /// Those that cannot be read; they go when there is a newer one.
    broken: Mutex<Vec<LogId>>,
    /// The index up to which the log may go from the disk.
    keep_from: Arc<AtomicU64>,
}

/// A snapshot that was read.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) meta: SnapshotMeta,
    pub(crate) image: MetadataImage,
    /// Records of the snapshot.
    pub(crate) records: u64,
}

fn name(id: LogId) -> String {
    format!("{:020}-{:020}{SUFFIX}", id.index(), id.committed_leader_id().term)
}

fn parse_name(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    Some(log_id(term.parse().ok()?, index.parse().ok()?)).filter(|id| self::name(*id) == name)
}

impl Snapshots {
    /// Looks for snapshots, and reads the newest that can be read.
    pub(crate) fn open(files: &Arc<Files>) -> Result<(Self, Restored), StoreError> {
        let mut known: Vec<LogId> = files.list()?.iter().filter_map(|name| parse_name(name)).collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        let snapshots = Self {
            files: Arc::clone(files),
            known: Mutex::default(),
            broken: Mutex::default(),
            keep_from: Arc::default(),
        };
        let mut failure = None;
        for (position, id) in known.iter().enumerate() {
            match snapshots.read(*id).and_then(|(meta, content)| snapshots.restore(*id, meta, &content)) {
                Ok(restored) => {
                    *snapshots.known.lock() = known.split_off(position);
                    *snapshots.broken.lock() = known;
                    snapshots.note(None)?;
                    return Ok((snapshots, restored));
                }
                Err(error) => {
                    tracing::error!(%error, "a metadata snapshot cannot be read; trying the one before");
                    failure.get_or_insert(error);
                }
            }
        }
        // R7: what a snapshot held is nowhere else.
        failure.map_or_else(|| Ok((snapshots, Restored::default())), Err)
    }

    pub(crate) fn keep_from(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.keep_from)
    }

    fn path(&self, id: LogId) -> PathBuf {
        self.files.path(&name(id))
    }

    fn corrupt(&self, id: LogId, problem: impl ToString) -> StoreError {
        StoreError::Corrupt { path: self.path(id), at: 0, problem: problem.to_string() }
    }

    fn restore(&self, id: LogId, meta: SnapshotMeta, content: &Bytes) -> Result<Restored, StoreError> {
        let (image, records) =
            snapshot_content::decode(content).map_err(|error| self.corrupt(id, error.to_string()))?;
        Ok(Restored { meta, image, records })
    }

    fn read(&self, id: LogId) -> Result<(SnapshotMeta, Bytes), StoreError> {
        let path = self.path(id);
        let content = Bytes::from(self.files.read(&path)?.ok_or_else(|| self.corrupt(id, "it is gone"))?);
        let bad = |error: CodecError| self.corrupt(id, error);
        let mut reader = Reader(&content);
        if reader.bytes(4).map_err(bad)? != MAGIC {
            return Err(self.corrupt(id, "it is no snapshot"));
        }
        let crc = reader.u32().map_err(bad)?;
        let meta = reader.slice().map_err(bad)?;
        if crc32c::crc32c_append(crc32c::crc32c(meta), reader.0) != crc {
            return Err(self.corrupt(id, "its checksum is wrong"));
        }
        let image = content.slice(content.len() - reader.0.len()..);
        let meta = Reader(meta).snapshot_meta().map_err(bad)?;
        if meta.last_log_id != Some(id) {
            return Err(self.corrupt(id, "it is another one"));
        }
        Ok((meta, image))
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> Result<Option<Snapshot>, StoreError> {
        let newest = self.known.lock().first().copied();
        let read = newest.map(|id| self.read(id)).transpose()?;
        Ok(read.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }

    /// Writes a snapshot; it is durable when this returns. Older ones but one go.
    pub(crate) fn write(&self, meta: &SnapshotMeta, content: &Bytes) -> Result<(), StoreError> {
        let Some(id) = meta.last_log_id else { return Ok(()) };
        let mut encoded = Writer::default();
        encoded.snapshot_meta(meta);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&encoded.0), content);
        let mut head = Writer(MAGIC.to_vec());
        head.u32(crc).slice(&encoded.0);
        self.files.replace(&self.path(id), [&head.0, content])?;
        let broken = std::mem::take(&mut *self.broken.lock());
        for other in broken.into_iter().filter(|other| *other != id) {
            self.files.remove(&self.path(other))?;
        }
        self.note(Some(id))?;
        tracing::info!(%id, bytes = content.len(), "metadata snapshot written");
        Ok(())
    }

    /// Takes a new snapshot into account, and removes what is not kept any more.
    fn note(&self, new: Option<LogId>) -> Result<(), StoreError> {
        let gone = {
            let mut known = self.known.lock();
            known.extend(new);
            known.sort_unstable_by(|a, b| b.cmp(a));
            known.dedup();
            let gone = if known.len() > KEPT { known.split_off(KEPT) } else { Vec::new() };
            let older = if known.len() < KEPT { None } else { known.last() };
            self.keep_from.store(older.map_or(0, LogId::index), Ordering::Release);
            gone
        };
        gone.into_iter().try_for_each(|id| self.files.remove(&self.path(id)))
    }
}

/// An image as the content of a snapshot, and the number of its records.
pub(crate) fn encode(image: &MetadataImage) -> Result<(Bytes, u64), String> {
    let encoded = snapshot_content::encode(image);
    encoded.map(|(content, records)| (Bytes::from(content), records)).map_err(|error| error.to_string())
}
