//! What the clients and the nemesis of a cluster test wrote down: files of JSON lines, one file per process, each in the
//! order in which things happened to that process.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A record's value: who sent it, and which of that producer's records it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The producer's number; −1 if the bytes are none that a producer sends.
    pub producer: i64,
    /// Counts the producer's records from 0.
    pub seq: i64,
}

/// A record that was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "(i32, i64, i32, i64, i64)")]
pub struct Polled {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The leader epoch of its batch, −1 if the client does not say.
    pub epoch: i32,
    /// Its value.
    pub value: Value,
}

impl From<(i32, i64, i32, i64, i64)> for Polled {
    fn from((partition, offset, epoch, producer, seq): (i32, i64, i32, i64, i64)) -> Self {
        Self { partition, offset, epoch, value: Value { producer, seq } }
    }
}

/// One line. `who` is `g…` for a member of the group, `r…` for a reader of one partition, `final` for the last read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the lines' own names, explained by the variants")]
pub enum Op {
    /// A producer begins.
    Producer { producer: i64, idempotent: bool },
    /// A record is about to be handed to the client library.
    Send { producer: i64, seq: i64 },
    /// It is acknowledged. An offset below 0 is unknown.
    Ack { producer: i64, seq: i64, partition: i32, offset: i64 },
    /// It is not: definitely, or nobody knows.
    Fail { producer: i64, seq: i64, code: String, definite: bool },
    /// A producer takes a new epoch, or a new id, because it no longer knows what the broker has.
    Bump { producer: i64, text: String },
    /// A producer ends.
    ProducerEnd { producer: i64, unanswered: i64, fatal: bool },
    /// A consumer is given partitions, at these offsets (below 0: at what is committed).
    Assign { who: String, starts: Vec<(i32, i64)> },
    /// A consumer gives partitions up.
    Revoke { who: String, partitions: Vec<i32> },
    /// A consumer has lost partitions to others.
    Lost { who: String, partitions: Vec<i32> },
    /// A consumer has polled records.
    Poll { who: String, records: Vec<Polled> },
    /// A consumer was told an error instead of a record.
    PollError { who: String, code: String, text: String },
    /// A member of the group is about to commit offsets.
    Commit { who: String, offsets: Vec<(i32, i64)> },
    /// That was done.
    Committed { who: String, offsets: Vec<(i32, i64)> },
    /// It was not, or nobody knows.
    CommitFailed { who: String, code: String },
    /// Where a partition begins and ends once all is over.
    End { partition: i32, low: i64, high: i64 },
    /// A client reports trouble with a connection, or its own end.
    Error { who: String, code: String, fatal: bool },
    /// The nemesis does something.
    Nemesis { text: String },
    /// All faults are healed.
    Healed,
}

/// A line with its time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// The machine's monotonic clock, in nanoseconds.
    pub t: u64,
    /// What happened.
    #[serde(flatten)]
    pub op: Op,
}

/// What one process wrote.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The file's name.
    pub name: String,
    /// Its lines.
    pub events: Vec<Event>,
}

/// What all processes wrote.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order of their names.
    pub processes: Vec<Process>,
}

impl History {
    /// Reads every `*.jsonl` of a folder.
    ///
    /// # Errors
    /// If a file cannot be read, or a line is none of a history. A last line that is cut short (its process was killed)
    /// is an error too: clients are not killed in these tests.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "jsonl"));
        paths.sort();
        let processes = paths.iter().map(|path| Process::read(path)).collect::<Result<_>>()?;
        Ok(Self { processes })
    }

    /// All events, process by process.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.processes.iter().flat_map(|process| &process.events)
    }
}

impl Process {
    /// Reads one file.
    ///
    /// # Errors
    /// As [`History::read`].
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut events = Vec::new();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let at = || format!("{}:{}", path.display(), number + 1);
            events.push(serde_json::from_str(&line.with_context(at)?).with_context(at)?);
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, events })
    }

    /// Parses lines, for tests.
    ///
    /// # Errors
    /// If a line is none of a history.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let events = lines
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), events })
    }
}

/// The monotonic clock that the clients' histories use, in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// Writes the nemesis's own history.
#[derive(Debug)]
pub struct Writer {
    file: Mutex<File>,
    begin: u64,
}

impl Writer {
    /// Makes the file.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { file: Mutex::new(file), begin: now() })
    }

    /// A word on what the nemesis does, which is also shown with the test's output.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn nemesis(&self, text: &str) -> Result<()> {
        let t = now();
        let seconds = t.saturating_sub(self.begin) as f64 / 1e9;
        writeln!(std::io::stderr(), "{seconds:8.2} s  {text}").context("cannot write")?;
        self.line(&serde_json::json!({ "t": t, "op": "nemesis", "text": text }))
    }

    /// All faults are healed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn healed(&self) -> Result<()> {
        self.line(&serde_json::json!({ "t": now(), "op": "healed" }))
    }

    fn line(&self, line: &serde_json::Value) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(file, "{line}").context("cannot write the history")
    }
}
