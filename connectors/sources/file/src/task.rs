//! All files of a task, and the records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use notify::Watcher as _;
use serde::Deserialize as _;
use serde_json::json;
use tokio::sync::Notify;
use towpath_api::infer::{Inference, write_row};
use towpath_api::{
    BatchBuilder, Budget, ConnectorError, EventSchema, Poll, Position, RejectedInput, RowSchema, Source,
    SourceBatch, SourceOffsets, TaskContext, Type,
};

use super::connector::{classify, matching};
use super::identity::FileOffset;
use super::options::Options;
use super::reader::{Line, Reader};

/// How long a poll waits for something to happen, at most: the fallback where the watcher sees nothing (NFS).
const NAP: Duration = Duration::from_millis(100);
/// How often the directories are looked through at least.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// Stored offsets of files that are gone are forgotten after so many files: the store stays bounded.
const FORGOTTEN_MIN: usize = 1_000;

/// A running task.
pub(crate) struct Task {
    options: Options,
    context: TaskContext,
    readers: Vec<Reader>,
    /// Stored offsets of files that are not open.
    stored: BTreeMap<String, FileOffset>,
    /// Whether anything was ever stored: `start_at: end` counts for the first start only.
    first_start: bool,
    inference: Inference,
    text_schemas: BTreeMap<PathBuf, Arc<EventSchema>>,
    /// Where files begin that were not known before: told before anything else, so that it is known after a crash.
    untold: SourceOffsets,
    scanned: Option<Instant>,
    changed: Arc<Notify>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Task {
    pub(crate) fn open(
        options: Options,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Self, ConnectorError> {
        let mut stored = BTreeMap::new();
        for (partition, document) in &resume.partitions {
            let offset = FileOffset::deserialize(document).map_err(|error| {
                // R7: never taken for "not read yet".
                ConnectorError::terminal(
                    "FILE_OFFSET",
                    format!("the stored offset of `{partition}` cannot be read"),
                )
                .with_cause(error)
            })?;
            stored.insert(partition.clone(), offset);
        }
        let changed = Arc::new(Notify::new());
        let watcher = if options.once { None } else { watch(&options, &changed) };
        let mut task = Self {
            first_start: stored.is_empty(),
            options,
            context,
            readers: Vec::new(),
            stored,
            inference: Inference::default(),
            text_schemas: BTreeMap::new(),
            untold: SourceOffsets::default(),
            scanned: None,
            changed,
            _watcher: watcher,
        };
        task.scan()?;
        task.first_start = false;
        let unread: u64 = task.readers.iter().filter_map(|reader| reader.unread_bytes().ok()).sum();
        task.context.progress.expect(unread);
        Ok(task)
    }

    /// Finds files that came, that were replaced, and rotated ones that still have unread lines.
    fn scan(&mut self) -> Result<(), ConnectorError> {
        self.scanned = Some(Instant::now());
        let paths =
            matching(&self.options).map_err(|error| classify(error, &self.options.paths[0].directory))?;
        for reader in &mut self.readers {
            let now = fs::metadata(&reader.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
            reader.set_replaced(now != Some((reader.offset.device, reader.offset.inode)));
        }
        self.find_rotated();
        for path in paths {
            self.open_file(&path)?;
        }
        Ok(())
    }

    /// Files with unread lines that were renamed while nobody was reading.
    fn find_rotated(&mut self) {
        let directories: BTreeSet<_> =
            self.options.paths.iter().map(|pattern| pattern.directory.clone()).collect();
        for directory in directories {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file())
            {
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let partition = format!("file {}:{}", metadata.dev(), metadata.ino());
                let Some(offset) = self.stored.get(&partition) else { continue };
                let Ok(file) = fs::File::open(&path) else { continue };
                if metadata.len() > offset.offset && offset.is_of(&file).unwrap_or(false) {
                    let mut reader = Reader::new(path, file, offset.clone(), self.options.line_bytes_max);
                    reader.set_replaced(Path::new(&offset.path) != reader.path);
                    self.stored.remove(&partition);
                    self.readers.push(reader);
                }
            }
        }
    }

    fn open_file(&mut self, path: &Path) -> Result<(), ConnectorError> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            // Gone between the look and the opening: rotated away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(classify(error, path)),
        };
        let fresh = FileOffset::new(&path.to_string_lossy(), &file).map_err(|error| classify(error, path))?;
        let same =
            |reader: &Reader| (reader.offset.device, reader.offset.inode) == (fresh.device, fresh.inode);
        if self.readers.iter().any(same) {
            return Ok(());
        }
        let offset = match self.stored.remove(&fresh.partition()) {
            Some(stored) => {
                let mut offset = FileOffset { path: fresh.path.clone(), ..stored };
                if !offset.is_of(&file).map_err(|error| classify(error, path))? {
                    // The inode is used again, or the file was cut: other lines, another lane.
                    tracing::warn!(
                        path = %path.display(),
                        offset = offset.offset,
                        "the file has other content than when it was last read: reading it from its beginning; what \
                         came behind this offset and was cut off is lost"
                    );
                    offset.begin_anew();
                }
                offset
            }
            None => self.begin(fresh, &file).map_err(|error| classify(error, path))?,
        };
        self.untold.partitions.insert(offset.partition(), json!(offset));
        self.readers.push(Reader::new(path.to_owned(), file, offset, self.options.line_bytes_max));
        Ok(())
    }

    fn begin(&self, mut fresh: FileOffset, file: &fs::File) -> std::io::Result<FileOffset> {
        if self.first_start && self.options.from_end {
            fresh.offset = file.metadata()?.len();
            fresh.learn_head(file, fresh.offset)?;
        }
        Ok(fresh)
    }

    fn read(&mut self, budget: Budget) -> Result<SourceBatch, ConnectorError> {
        let mut builder = BatchBuilder::new();
        let mut batch = SourceBatch::default();
        // R10: what is rejected, and what becomes nothing, counts as well.
        let (mut lines, mut bytes) = (0, 0);
        for index in 0..self.readers.len() {
            let before = (self.readers[index].offset.generation, self.readers[index].offset.offset);
            while lines < budget.records && bytes.max(builder.size_in_bytes()) < budget.bytes {
                let reader = &mut self.readers[index];
                let last = self.options.once || reader.is_final();
                match reader.next_line(last).map_err(|error| classify(error, &reader.path))? {
                    Line::Found { at, bytes: line } => {
                        bytes += line.len();
                        self.line(index, at, line, &mut builder, &mut batch);
                    }
                    Line::TooLong { at, head, length } => {
                        bytes += head.len();
                        batch.rejected.push(self.too_long(index, at, head, length));
                    }
                    Line::Cut => {
                        let path = reader.path.display();
                        tracing::info!(%path, "the file was cut: reading it from its beginning");
                        reader.begin_anew();
                    }
                    Line::Nothing | Line::Busy => break,
                }
                lines += 1;
            }
            let reader = &self.readers[index];
            if (reader.offset.generation, reader.offset.offset) != before {
                let from = if reader.offset.generation == before.0 { before.1 } else { 0 };
                self.context.progress.advance(reader.offset.offset - from);
                batch.offsets.partitions.insert(reader.offset.partition(), json!(reader.offset));
            }
        }
        batch.batch = builder.build();
        Ok(batch)
    }

    /// A poison line stalls nothing: its beginning goes to the dead letters.
    fn too_long(&self, index: usize, at: u64, head: Vec<u8>, length: u64) -> RejectedInput {
        let (path, limit) = (self.readers[index].path.display(), self.options.line_bytes_max);
        let message =
            format!("the line has {length} bytes, and {limit} are allowed; only its beginning is kept");
        RejectedInput {
            position: format!("{path}, byte {at}"),
            bytes: head,
            error: ConnectorError::terminal("FILE_LINE_TOO_LONG", message)
                .with_path("line_bytes_max")
                .with_hint("raise line_bytes_max"),
        }
    }

    /// One line into a record, or into the rejected input.
    fn line(
        &mut self,
        index: usize,
        at: u64,
        bytes: Vec<u8>,
        builder: &mut BatchBuilder,
        batch: &mut SourceBatch,
    ) {
        let reader = &self.readers[index];
        let (path, lane) = (reader.path.clone(), reader.offset.lane());
        let outcome = if self.options.json {
            self.json_record(&path, at, lane, &bytes, builder)
        } else {
            self.text_record(&path, at, lane, &bytes, builder)
        };
        if let Err(error) = outcome {
            batch.rejected.push(RejectedInput {
                position: format!("{}, byte {at}", path.display()),
                bytes,
                error,
            });
        }
    }

    fn text_record(
        &mut self,
        path: &Path,
        at: u64,
        lane: u64,
        bytes: &[u8],
        builder: &mut BatchBuilder,
    ) -> Result<(), ConnectorError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            ConnectorError::terminal("FILE_NOT_UTF8", "the line is not UTF-8 text").with_cause(error)
        })?;
        if !self.text_schemas.contains_key(path) {
            if self.text_schemas.len() >= 1024 {
                self.text_schemas.clear();
            }
            let schema = EventSchema::new(file_name(path), Arc::new(RowSchema::bare(Type::String)));
            self.text_schemas.insert(path.to_owned(), Arc::new(schema.with_variables(variables(path))));
        }
        let mut record = builder.record(&self.text_schemas[path]);
        record.timestamp_ms(now_ms()).position(lane, &at.to_be_bytes()).after(|row| row.text(text));
        record.finish();
        Ok(())
    }

    fn json_record(
        &mut self,
        path: &Path,
        at: u64,
        lane: u64,
        bytes: &[u8],
        builder: &mut BatchBuilder,
    ) -> Result<(), ConnectorError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
            ConnectorError::terminal("FILE_NOT_JSON", "the line is not one JSON value").with_cause(error)
        })?;
        let key = match &self.options.key {
            None => None,
            Some(name) => Some(value.get(name).filter(|key| !key.is_null()).cloned().ok_or_else(|| {
                ConnectorError::terminal(
                    "FILE_NO_KEY",
                    format!("the line has no member `{name}` for its key"),
                )
            })?),
        };
        let row = self.inference.row_schema(&value);
        let key_object = key.and_then(|key| Some(json!({ self.options.key.clone()?: key })));
        let key_row = key_object.as_ref().map(|key| self.inference.row_schema(key));
        let schema = self.inference.event_schema(&file_name(path), key_row, row);
        let mut record = builder.record(&schema);
        record.timestamp_ms(now_ms()).position(lane, &at.to_be_bytes());
        if let Some(key) = &key_object {
            record.key(|row| write_row(row, key));
        }
        record.after(|row| write_row(row, &value));
        record.finish();
        Ok(())
    }

    /// Closes files that were replaced and are read.
    fn tidy(&mut self) -> Result<(), ConnectorError> {
        let mut kept = Vec::new();
        for reader in std::mem::take(&mut self.readers) {
            let read = reader.unread_bytes().map_err(|error| classify(error, &reader.path))? == 0;
            if reader.is_final() && read {
                self.stored.insert(reader.offset.partition(), reader.offset);
            } else {
                kept.push(reader);
            }
        }
        self.readers = kept;
        Ok(())
    }

    /// Stored offsets of files that exist nowhere any more, once there are many.
    fn forgettable(&mut self) -> SourceOffsets {
        let mut forgotten = SourceOffsets::default();
        if self.stored.len() < FORGOTTEN_MIN {
            return forgotten;
        }
        let gone: Vec<_> = self
            .stored
            .iter()
            .filter(|(_, offset)| !Path::new(&offset.path).exists())
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.stored.remove(&name);
            forgotten.partitions.insert(name, serde_json::Value::Null);
        }
        forgotten
    }
}

#[async_trait]
impl Source for Task {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        if self.context.stop.is_cancelled() {
            return Ok(Poll::Idle(SourceOffsets::default()));
        }
        if !self.untold.is_empty() {
            return Ok(Poll::Idle(std::mem::take(&mut self.untold)));
        }
        let batch = self.read(budget)?;
        if !batch.batch.is_empty() || !batch.offsets.is_empty() || !batch.rejected.is_empty() {
            return Ok(Poll::Batch(batch));
        }
        let unread = |reader: &Reader| reader.unread_bytes().map_err(|error| classify(error, &reader.path));
        if self.options.once {
            // A line that is skipped over many polls is no end.
            for reader in &self.readers {
                if unread(reader)? > 0 {
                    return Ok(Poll::Idle(SourceOffsets::default()));
                }
            }
            self.context.progress.clear();
            return Ok(Poll::End);
        }
        self.tidy()?;
        let notified = Arc::clone(&self.changed);
        let scan_due = self.scanned.is_none_or(|scanned| scanned.elapsed() >= SCAN_INTERVAL);
        if !scan_due {
            let woken = tokio::select! {
                () = notified.notified() => true,
                () = tokio::time::sleep(NAP) => false,
                () = self.context.stop.cancelled() => false,
            };
            if !woken {
                return Ok(Poll::Idle(SourceOffsets::default()));
            }
        }
        self.scan()?;
        Ok(Poll::Idle(self.forgettable()))
    }

    async fn commit(&mut self, _durable: &SourceOffsets) -> Result<(), ConnectorError> {
        // Files are not ours to delete.
        Ok(())
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        if self.options.once {
            return Ok(None);
        }
        self.scan()?;
        // Only finished lines can be waited for.
        let mut ends = serde_json::Map::new();
        for reader in &self.readers {
            let end = finished_bytes(reader).map_err(|error| classify(error, &reader.path))?;
            ends.insert(reader.offset.partition(), json!(end));
        }
        Ok(Some(Position { text: format!("{} files", ends.len()), document: ends.into() }))
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let passed = |partition: &str, end: &serde_json::Value| {
            let end = end.as_u64().unwrap_or(0);
            let read = durable.partitions.get(partition).and_then(|stored| stored.get("offset")?.as_u64());
            end == 0 || read.is_some_and(|read| read >= end)
        };
        end.document.as_object().is_none_or(|ends| ends.iter().all(|(partition, end)| passed(partition, end)))
    }

    fn status(&self) -> String {
        match self.readers.as_slice() {
            [] => "waiting for a file".to_owned(),
            [only] => format!("{} at byte {}", only.path.display(), only.offset.offset),
            many => format!("{} files", many.len()),
        }
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// The end of the last finished line at or behind the read position.
fn finished_bytes(reader: &Reader) -> std::io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let mut end = reader.file.metadata()?.len();
    let mut chunk = vec![0; 64 * 1024];
    while end > reader.offset.offset {
        let from = end.saturating_sub(chunk.len() as u64).max(reader.offset.offset);
        let wanted = usize::try_from(end - from).unwrap_or(chunk.len());
        reader.file.read_exact_at(&mut chunk[..wanted], from)?;
        if let Some(at) = memchr::memrchr(b'\n', &chunk[..wanted]) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(reader.offset.offset)
}

/// Watches the directories (a file's own watch would not survive its rotation); `None` where that is impossible.
fn watch(options: &Options, changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let notify = Arc::clone(changed);
    let handler = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too; it must not wake us.
        if !matches!(event, Ok(notify::Event { kind: notify::EventKind::Access(_), .. })) {
            notify.notify_one();
        }
    };
    let outcome = notify::recommended_watcher(handler).and_then(|mut watcher| {
        for pattern in &options.paths {
            if pattern.directory.is_dir() {
                watcher.watch(&pattern.directory, notify::RecursiveMode::NonRecursive)?;
            }
        }
        Ok(watcher)
    });
    outcome
        .inspect_err(|error| tracing::warn!(%error, "files are not watched; looking at them every 100 ms"))
        .ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn variables(path: &Path) -> BTreeMap<String, String> {
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    [("file".to_owned(), file_name(path)), ("stem".to_owned(), stem)].into()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
