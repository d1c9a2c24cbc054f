//! The log of entries on disk: segments of checksummed blocks that are only ever appended to.
//!
//! What Raft takes back is not cut off but said to be void by a further block, so that every change is one block, there
//! or not. A block names the position up to which its segment was durable when the block was written. That tells a
//! torn tail from damage: bytes that cannot be read and were not yet durable for any block after them were never
//! promised to anybody, and go; where a later block has seen them durable, they were, and the store does not open (R7).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use towpath_log::{OpenMode, StorageFile};

use super::codec::{CodecError, Reader, Writer};
use super::disk::{Files, StoreError};
use super::types::LogId;

/// Bytes after which a segment is closed.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// The first bytes of every block.
const MAGIC: [u8; 4] = *b"TQB1";
/// Magic, checksum, kind, three bytes of nothing, length, durable position.
const HEADER_BYTES: usize = 24;
/// Length and checksum before every entry.
pub(crate) const FRAME_BYTES: usize = 8;
const SUFFIX: &str = ".journal";

/// What a block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first of every segment: the entry before its first one, and whether older segments are void.
    Start,
    Entries,
    /// Entries after this one are void.
    Truncate,
    /// How far entries are known to be committed.
    Committed,
    /// The store was closed.
    Close,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Entries => 2,
            Self::Truncate => 3,
            Self::Committed => 4,
            Self::Close => 5,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Start),
            2 => Some(Self::Entries),
            3 => Some(Self::Truncate),
            4 => Some(Self::Committed),
            5 => Some(Self::Close),
            _ => None,
        }
    }
}

/// Where an entry lies.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: Arc<dyn StorageFile>,
    at: u64,
    bytes: u32,
    crc: u32,
}

impl Place {
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The bytes of the entry.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.bytes as usize];
        let read = self.file.read_at(&mut bytes, self.at).map_err(|error| error.to_string())?;
        if read < bytes.len() || crc32c::crc32c(&bytes) != self.crc {
            return Err(format!("the entry at byte {} is damaged", self.at));
        }
        Ok(bytes)
    }
}

/// Entries as they go into a block.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    body: Writer,
    entries: Vec<(LogId, usize, u32, u32)>,
}

impl Frames {
    /// Adds an encoded entry.
    pub(crate) fn push(&mut self, at: LogId, entry: &[u8]) {
        let crc = crc32c::crc32c(entry);
        self.body.count(entry.len()).u32(crc);
        self.entries.push((at, self.body.0.len(), u32::try_from(entry.len()).unwrap_or(u32::MAX), crc));
        self.body.0.extend_from_slice(entry);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What an opened journal holds.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The entry before the first one.
    pub(crate) base: Option<LogId>,
    /// The entries, without holes.
    pub(crate) entries: VecDeque<(LogId, Place)>,
    /// What was known to be committed.
    pub(crate) committed: Option<LogId>,
}

impl Recovered {
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|(id, _)| *id).or(self.base)
    }
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    /// The largest index that was ever written to it.
    max_index: Option<u64>,
}

/// The journal as its one writer has it.
#[derive(Debug)]
pub(crate) struct Journal {
    files: Arc<Files>,
    closed: VecDeque<Segment>,
    active: Segment,
    /// Bytes of the active segment that are written.
    end: u64,
    /// Bytes of the active segment that are durable.
    durable: u64,
    /// Blocks that are not written yet.
    buffer: Vec<u8>,
    last: Option<LogId>,
}

fn corrupt(path: &Path, at: usize, problem: impl ToString) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), at: at as u64, problem: problem.to_string() }
}

fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    digits.parse().ok()
}

fn write_block(out: &mut Vec<u8>, kind: Kind, durable: u64, body: &[u8]) {
    let from = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[kind.code(), 0, 0, 0]);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&durable.to_be_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[from + 8..]);
    out[from + 4..from + 8].copy_from_slice(&crc.to_be_bytes());
}

/// One block of a segment that was read whole.
struct Block<'a> {
    kind: Kind,
    durable: u64,
    body: &'a [u8],
    /// Where the body begins.
    at: usize,
}

fn read_block(content: &[u8], at: usize) -> Result<Block<'_>, CodecError> {
    let mut reader = Reader(content.get(at..).unwrap_or_default());
    if reader.bytes(4)? != MAGIC {
        return Err(CodecError::Range("the beginning of a block"));
    }
    let crc = reader.u32()?;
    let checked = reader.0;
    let kind = Kind::of(reader.u8()?);
    reader.bytes(3)?;
    let bytes = reader.u32()? as usize;
    let durable = reader.u64()?;
    let body = reader.bytes(bytes)?;
    if crc32c::crc32c(&checked[..HEADER_BYTES - 8 + bytes]) != crc {
        return Err(CodecError::Range("a checksum"));
    }
    let kind = kind.ok_or(CodecError::Range("the kind of a block"))?;
    Ok(Block { kind, durable, body, at: at + HEADER_BYTES })
}

/// The blocks of a segment, and where they end. Behind that is a torn tail.
fn read_blocks<'a>(
    path: &Path,
    content: &'a [u8],
    is_last: bool,
) -> Result<(Vec<Block<'a>>, usize), StoreError> {
    let (mut blocks, mut at) = (Vec::new(), 0);
    while at < content.len() {
        match read_block(content, at) {
            Ok(block) => {
                at = block.at + block.body.len();
                blocks.push(block);
            }
            Err(error) if !is_last => return Err(corrupt(path, at, error)),
            Err(error) => {
                // R7: was this durable for somebody?
                let later = (at + 1..content.len().saturating_sub(HEADER_BYTES - 1))
                    .filter(|from| content[*from..].starts_with(&MAGIC))
                    .filter_map(|from| read_block(content, from).ok())
                    .any(|block| block.durable > at as u64);
                if later {
                    return Err(corrupt(path, at, format!("{error}, in what was durable")));
                }
                break;
            }
        }
    }
    Ok((blocks, at))
}

/// Takes what a segment says into `found`; returns the largest index in it, and whether older segments are void.
fn replay(
    segment: &Path,
    file: &Arc<dyn StorageFile>,
    blocks: &[Block<'_>],
    is_first: bool,
    found: &mut Recovered,
) -> Result<(Option<u64>, bool), StoreError> {
    let (mut max_index, mut is_reset) = (None, false);
    for (position, block) in blocks.iter().enumerate() {
        let bad = |error: CodecError| corrupt(segment, block.at, error);
        let mut reader = Reader(block.body);
        if (position == 0) != (block.kind == Kind::Start) {
            return Err(corrupt(segment, block.at, "a segment without one beginning"));
        }
        match block.kind {
            Kind::Start => {
                let before = reader.option(Reader::log_id).map_err(bad)?;
                is_reset = reader.bool().map_err(bad)?;
                if is_first || is_reset {
                    found.base = before;
                    found.entries.clear();
                } else if before != found.last() {
                    return Err(corrupt(segment, block.at, "it does not go on where the one before ends"));
                }
            }
            Kind::Entries => {
                while !reader.0.is_empty() {
                    let at = block.at + block.body.len() - reader.0.len() + FRAME_BYTES;
                    let bytes = reader.u32().map_err(bad)?;
                    let crc = reader.u32().map_err(bad)?;
                    let entry = reader.bytes(bytes as usize).map_err(bad)?;
                    let id = Reader(entry).log_id().map_err(bad)?;
                    let last = found.last();
                    // Where an empty log begins is not the journal's matter.
                    let is_next = last.is_none_or(|last| id.index() == last.index() + 1 && id > last);
                    if !is_next {
                        return Err(corrupt(segment, at, format!("{id} after {last:?}")));
                    }
                    let place = Place { file: Arc::clone(file), at: at as u64, bytes, crc };
                    found.entries.push_back((id, place));
                    max_index = max_index.max(Some(id.index()));
                }
            }
            Kind::Truncate => {
                let keep = reader.option(Reader::log_id).map_err(bad)?;
                while found.entries.back().is_some_and(|(id, _)| Some(*id) > keep) {
                    found.entries.pop_back();
                }
                if found.entries.is_empty() {
                    found.base = keep.min(found.base);
                }
                if found.last() != keep {
                    return Err(corrupt(segment, block.at, "it cuts at an entry that is not there"));
                }
            }
            Kind::Committed => found.committed = reader.option(Reader::log_id).map_err(bad)?,
            Kind::Close => {}
        }
    }
    Ok((max_index, is_reset))
}

impl Journal {
    /// Opens the journal; makes one that is empty if there is none.
    pub(crate) fn open(files: &Arc<Files>) -> Result<(Self, Recovered), StoreError> {
        let mut numbers: Vec<u64> = files.list()?.iter().filter_map(|name| parse_name(name)).collect();
        numbers.sort_unstable();
        let mut found = Recovered::default();
        let mut segments: VecDeque<Segment> = VecDeque::new();
        let mut end = 0;
        for (position, number) in numbers.iter().enumerate() {
            let is_last = position + 1 == numbers.len();
            let path = files.path(&name(*number));
            let content = files.read(&path)?.unwrap_or_default();
            let (blocks, until) = read_blocks(&path, &content, is_last)?;
            if blocks.is_empty() && is_last {
                // It was being made: entries only come after its beginning is durable.
                files.remove(&path)?;
                files.sync_dir()?;
                break;
            }
            let file = files.open_file(&path, OpenMode::ReadWrite)?;
            if until < content.len() {
                tracing::warn!(path = %path.display(), at = until, bytes = content.len() - until, "torn tail removed");
                files.wrote("truncate", &path, file.truncate(until as u64))?;
                files.wrote("sync", &path, file.sync_data())?;
            }
            let first = segments.is_empty();
            let (max_index, is_reset) = replay(&path, &file, &blocks, first, &mut found)?;
            if is_reset {
                // Their removal was not finished.
                for old in segments.drain(..) {
                    files.remove(&old.path)?;
                }
            } else if segments.back().is_some_and(|before| before.number + 1 != *number) {
                return Err(corrupt(&path, 0, "the segment before it is missing"));
            }
            end = until as u64;
            segments.push_back(Segment { number: *number, path, file, max_index });
        }
        let last = found.last();
        let Some(active) = segments.pop_back() else {
            let active = create(files, numbers.last().map_or(1, |last| last + 1), last, false)?;
            let journal = Self::with(files, VecDeque::new(), active.0, active.1, last);
            return Ok((journal, found));
        };
        // What a killed process wrote and did not sync is read from here on as if it were durable: it must be.
        files.wrote("sync", &active.path, active.file.sync_data())?;
        Ok((Self::with(files, segments, active, end, last), found))
    }

    fn with(
        files: &Arc<Files>,
        closed: VecDeque<Segment>,
        active: Segment,
        end: u64,
        last: Option<LogId>,
    ) -> Self {
        let files = Arc::clone(files);
        Self { files, closed, active, end, durable: end, buffer: Vec::new(), last }
    }

    fn block(&mut self, kind: Kind, body: &[u8]) {
        write_block(&mut self.buffer, kind, self.durable, body);
    }

    /// Appends entries; they are durable after [`Self::flush`]. Returns where each will lie.
    pub(crate) fn append(&mut self, frames: &Frames) -> Result<Vec<(LogId, Place)>, StoreError> {
        if self.end + self.buffer.len() as u64 >= SEGMENT_BYTES {
            self.roll(self.last, false)?;
        }
        let from = self.end + (self.buffer.len() + HEADER_BYTES) as u64;
        self.block(Kind::Entries, &frames.body.0);
        if let Some((id, ..)) = frames.entries.last() {
            self.last = Some(*id);
            self.active.max_index = self.active.max_index.max(Some(id.index()));
        }
        let file = &self.active.file;
        let place =
            |at: usize, bytes, crc| Place { file: Arc::clone(file), at: from + at as u64, bytes, crc };
        Ok(frames.entries.iter().map(|(id, at, bytes, crc)| (*id, place(*at, *bytes, *crc))).collect())
    }

    /// Says that entries after `keep` are void.
    pub(crate) fn truncate(&mut self, keep: Option<LogId>) {
        let mut body = Writer::default();
        body.option(keep.as_ref(), Writer::log_id);
        self.block(Kind::Truncate, &body.0);
        self.last = keep;
    }

    /// Notes what is committed. This need not be durable: who knows less after a crash learns it again.
    pub(crate) fn committed(&mut self, committed: Option<LogId>) {
        let mut body = Writer::default();
        body.option(committed.as_ref(), Writer::log_id);
        self.block(Kind::Committed, &body.0);
    }

    /// Writes what waits, without making it durable.
    pub(crate) fn write(&mut self) -> Result<(), StoreError> {
        self.files.check()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.active.file.write_at([&self.buffer, &[]], self.end);
        self.files.wrote("write", &self.active.path, written)?;
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what waits and makes all of it durable.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        self.write()?;
        if self.durable < self.end {
            self.files.wrote("sync", &self.active.path, self.active.file.sync_data())?;
            self.durable = self.end;
        }
        Ok(())
    }

    fn roll(&mut self, before: Option<LogId>, is_reset: bool) -> Result<(), StoreError> {
        self.flush()?;
        let (next, end) = create(&self.files, self.active.number + 1, before, is_reset)?;
        self.closed.push_back(std::mem::replace(&mut self.active, next));
        (self.end, self.durable) = (end, end);
        Ok(())
    }

    /// Gives up entries up to `upto`. Files go that hold none after `upto` and none after `keep_from`, so that an older
    /// snapshot that ends there is still worth something.
    pub(crate) fn purge(&mut self, upto: LogId, keep_from: u64) -> Result<(), StoreError> {
        if self.last < Some(upto) {
            // A snapshot went past the end of the log.
            self.roll(Some(upto), true)?;
            self.last = Some(upto);
            for old in std::mem::take(&mut self.closed) {
                self.files.remove(&old.path)?;
            }
            return Ok(());
        }
        if self.active.max_index.is_some() {
            self.roll(self.last, false)?;
        }
        let until = upto.index().min(keep_from);
        while self.closed.front().is_some_and(|old| old.max_index.is_none_or(|index| index <= until)) {
            if let Some(old) = self.closed.pop_front() {
                self.files.remove(&old.path)?;
            }
        }
        Ok(())
    }

    /// Makes everything durable and says so, so that at the next start any damage is seen as such.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.block(Kind::Close, &[]);
        self.flush()
    }
}

/// Makes a segment; its beginning is durable when this returns.
fn create(
    files: &Arc<Files>,
    number: u64,
    before: Option<LogId>,
    is_reset: bool,
) -> Result<(Segment, u64), StoreError> {
    let path = files.path(&name(number));
    let mut body = Writer::default();
    body.option(before.as_ref(), Writer::log_id).bool(is_reset);
    let mut block = Vec::new();
    write_block(&mut block, Kind::Start, 0, &body.0);
    let file = files.open_file(&path, OpenMode::Truncate)?;
    files.wrote("write", &path, file.write_at([&block, &[]], 0))?;
    files.wrote("sync", &path, file.sync_data())?;
    files.sync_dir()?;
    Ok((Segment { number, path, file, max_index: None }, block.len() as u64))
}
