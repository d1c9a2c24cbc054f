//! One partition's files. Everything here blocks: the sink calls it on the blocking pool.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use towpath_api::ConnectorError;
use towpath_types::{TopicId, TopicPartition};

use super::errors::io_error;
use super::names::{self, Found};
use super::state::{Lock, OpenFile, State, new_owner, sync_parent};

/// A file that is being written.
#[derive(Debug)]
struct Writing {
    file: File,
    first: i64,
    bytes: u64,
    since: Instant,
}

/// A partition that this task owns.
#[derive(Debug)]
pub(crate) struct Partition {
    directory: PathBuf,
    partition: TopicPartition,
    /// As it was last made durable.
    state: State,
    writing: Option<Writing>,
    /// The offset after the last record written, durable or not.
    pub(crate) next: i64,
}

impl Partition {
    /// Takes the partition over (R6: its older owner is fenced), and cuts off what a crash left.
    pub(crate) fn take(
        directory: &Path,
        partition: &TopicPartition,
        id: TopicId,
    ) -> Result<Self, ConnectorError> {
        std::fs::create_dir_all(directory)
            .map_err(|error| io_error(&format!("create {}", directory.display()), error))?;
        let _lock = Lock::take(directory, partition)?;
        let path = names::state(directory, partition);
        let mut state = State::read(&path)?.unwrap_or_else(State::empty);
        let topic_id = if id.is_zero() { String::new() } else { id.to_string() };
        if !state.topic_id.is_empty() && !topic_id.is_empty() && state.topic_id != topic_id {
            // R7: offsets of another topic mean nothing here.
            return Err(ConnectorError::terminal(
                "SINK_TOPIC_RECREATED",
                format!(
                    "the topic {} was deleted and created again since its files were written",
                    partition.topic
                ),
            )
            .with_hint(format!(
                "move its files, and {}, out of {}",
                path.display(),
                directory.display()
            )));
        }
        if !topic_id.is_empty() {
            state.topic_id = topic_id;
        }
        state.owner = new_owner();
        let mut taken = Self {
            directory: directory.to_owned(),
            partition: partition.clone(),
            state,
            writing: None,
            next: 0,
        };
        taken.recover()?;
        taken.state.write(&path)?;
        taken.next = taken.state.next;
        Ok(taken)
    }

    /// The durable position.
    pub(crate) const fn durable(&self) -> i64 {
        self.state.next
    }

    fn recover(&mut self) -> Result<(), ConnectorError> {
        let failed = |error| io_error(&format!("read {}", self.directory.display()), error);
        let (mut leftovers, mut finished) = (Vec::new(), None);
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str().and_then(|name| names::parse(name, &self.partition)) {
                Some(Found::Finished { first, last }) => finished = finished.max(Some((last, first))),
                Some(Found::Open { first }) => leftovers.push((first, entry.path())),
                None => {}
            }
        }
        if let Some((last, _)) = finished
            && last >= self.state.next
        {
            // The crash came between the renaming and the position.
            self.state.next = last.saturating_add(1);
            self.state.open = None;
        } else if let (Some((last, first)), Some(open)) = (finished, self.state.open)
            && first == open.first
        {
            self.state.next = last.saturating_add(1);
            self.state.open = None;
        }
        for (first, path) in leftovers {
            if self.state.open.is_none_or(|open| open.first != first) {
                std::fs::remove_file(&path)
                    .map_err(|error| io_error(&format!("remove {}", path.display()), error))?;
            }
        }
        match self.state.open {
            Some(open) => self.reopen(open),
            None => Ok(()),
        }
    }

    fn reopen(&mut self, open: OpenFile) -> Result<(), ConnectorError> {
        let path = names::open(&self.directory, &self.partition, open.first);
        let failed = |error| io_error(&format!("open {}", path.display()), error);
        let lost = || {
            // R7: flushed records are gone, and their offsets have been passed.
            ConnectorError::terminal(
                "SINK_POSITION",
                format!("{} holds less than has been flushed to it", path.display()),
            )
            .with_hint(
                "restore the file; or move the partition's files and state away to write everything anew",
            )
        };
        let mut old = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(lost()),
            opened => opened.map_err(failed)?,
        };
        if old.metadata().map_err(failed)?.len() < open.bytes {
            return Err(lost());
        }
        // R6: an older owner may still hold the file open: go on in a copy of what counts.
        let copy = path.with_extension("copy");
        let mut replace = || -> std::io::Result<File> {
            let mut file = File::create(&copy)?;
            let copied = std::io::copy(&mut Read::by_ref(&mut old).take(open.bytes), &mut file)?;
            if copied != open.bytes {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            file.sync_all()?;
            std::fs::rename(&copy, &path)?;
            sync_parent(&path)?;
            Ok(file)
        };
        let file = replace().map_err(failed)?;
        self.writing = Some(Writing { file, first: open.first, bytes: open.bytes, since: Instant::now() });
        Ok(())
    }

    /// Appends `lines`, which cover the offsets from `first` up to `next`.
    pub(crate) fn append(&mut self, lines: &[u8], first: i64, next: i64) -> Result<(), ConnectorError> {
        if !lines.is_empty() {
            if self.writing.is_none() {
                self.begin(first)?;
            }
            if let Some(writing) = &mut self.writing {
                let path = names::open(&self.directory, &self.partition, writing.first);
                writing
                    .file
                    .write_all(lines)
                    .map_err(|error| io_error(&format!("write {}", path.display()), error))?;
                writing.bytes += lines.len() as u64;
            }
        }
        self.next = next;
        Ok(())
    }

    fn begin(&mut self, first: i64) -> Result<(), ConnectorError> {
        // Gaps belong to the file that follows them, so that the files cover every offset.
        let first = first.min(self.next);
        let path = names::open(&self.directory, &self.partition, first);
        let _lock = Lock::take(&self.directory, &self.partition)?;
        self.check_owner()?;
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| io_error(&format!("create {}", path.display()), error))?;
        self.writing = Some(Writing { file, first, bytes: 0, since: Instant::now() });
        Ok(())
    }

    /// Whether the file is due to be finished.
    pub(crate) fn is_full(&self, bytes: u64, age: std::time::Duration) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.bytes >= bytes || writing.since.elapsed() >= age)
    }

    /// Makes everything written durable.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectorError> {
        if self.next == self.state.next {
            return Ok(());
        }
        let open = match &self.writing {
            None => None,
            Some(writing) => {
                let path = names::open(&self.directory, &self.partition, writing.first);
                let failed = |error| io_error(&format!("flush {}", path.display()), error);
                writing.file.sync_all().map_err(failed)?;
                if self.state.open.is_none() {
                    sync_parent(&path).map_err(failed)?;
                }
                Some(OpenFile { first: writing.first, bytes: writing.bytes })
            }
        };
        let _lock = Lock::take(&self.directory, &self.partition)?;
        self.check_owner()?;
        self.commit(State { next: self.next, open, ..self.state.clone() })
    }

    /// Makes everything written durable, and gives the file its final name.
    pub(crate) fn finish(&mut self) -> Result<(), ConnectorError> {
        let Some(writing) = &self.writing else { return self.flush() };
        let path = names::open(&self.directory, &self.partition, writing.first);
        let failed = |error| io_error(&format!("finish {}", path.display()), error);
        writing.file.sync_all().map_err(failed)?;
        let _lock = Lock::take(&self.directory, &self.partition)?;
        self.check_owner()?;
        let last = self.next.saturating_sub(1);
        let done = names::finished(&self.directory, &self.partition, writing.first, last);
        std::fs::rename(&path, &done).map_err(failed)?;
        sync_parent(&done).map_err(failed)?;
        self.writing = None;
        self.commit(State { next: self.next, open: None, ..self.state.clone() })
    }

    fn commit(&mut self, state: State) -> Result<(), ConnectorError> {
        state.write(&names::state(&self.directory, &self.partition))?;
        self.state = state;
        Ok(())
    }

    /// R6: under the lock, a fenced owner changes nothing.
    fn check_owner(&self) -> Result<(), ConnectorError> {
        let now = State::read(&names::state(&self.directory, &self.partition))?;
        if now.is_some_and(|now| now.owner == self.state.owner) {
            return Ok(());
        }
        Err(ConnectorError::retry(
            "SINK_FENCED",
            format!("another task has taken over {}, or its state file was removed", self.partition),
        )
        .with_hint("the task opens again and reads the position that counts"))
    }
}
