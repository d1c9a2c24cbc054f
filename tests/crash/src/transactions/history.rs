//! What the clients of `workload/transactions.py` wrote down.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A record that was polled: topic, partition, offset and value. The value is `attempt/index`, and what belongs to the
/// topic after another `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(from = "(String, i32, i64, String)")]
#[allow(missing_docs, reason = "named as what they are")]
pub struct Polled {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub value: String,
}

impl From<(String, i32, i64, String)> for Polled {
    fn from((topic, partition, offset, value): (String, i32, i64, String)) -> Self {
        Self { topic, partition, offset, value }
    }
}

impl Polled {
    /// The attempt that wrote it, and which of its records it is.
    #[must_use]
    pub fn origin(&self) -> Option<(&str, usize)> {
        let mut parts = self.value.split('/');
        Some((parts.next()?, parts.next()?.parse().ok()?))
    }

    /// What follows the index.
    pub fn more(&self) -> impl Iterator<Item = &str> {
        self.value.split('/').skip(2)
    }
}

/// One line. `who` of a producer is one incarnation of it (`bank-0.3`), of a consumer its process, `final` for the last
/// read of what is committed and `raw` for that of everything.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the lines' own names, explained by the variants")]
pub enum Op {
    /// A producer asks for its transactional id.
    Init { who: String, id: String },
    /// It has it; every one before it is fenced.
    Ready { who: String },
    /// It could not have it, or nobody knows.
    InitFailed { who: String, code: String },
    /// A transaction begins. Of the topic of requests it has consumed these (partition, offset).
    Begin {
        attempt: String,
        who: String,
        #[serde(default)]
        requests: Vec<(i32, i64)>,
    },
    /// A record of it is about to be sent.
    Write { attempt: String, topic: String, partition: i32 },
    /// Its commit is about to be asked for.
    Commit { attempt: String },
    /// It is committed.
    Committed { attempt: String },
    /// It is aborted.
    Aborted { attempt: String, code: String },
    /// It ended in an error that does not say how.
    Unknown { attempt: String, code: String },
    /// A consumer begins to read partitions at offsets.
    Assign { who: String, starts: Vec<(String, i32, i64)> },
    /// It has polled records, perhaps as a part of a transaction.
    Poll {
        who: String,
        #[serde(default)]
        attempt: Option<String>,
        records: Vec<Polled>,
    },
    /// The producer of requests has ended.
    Generated { count: u64, unanswered: u64 },
    /// Where a partition ends once all is over, and where what is committed ends.
    End { topic: String, partition: i32, high: i64, stable: i64 },
    /// Everything was read.
    Over,
    /// The nemesis does something.
    Nemesis { text: String },
    /// All faults are healed.
    Healed,
}

/// A line with its time on the machine's monotonic clock, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "explained above")]
pub struct Event {
    pub t: u64,
    #[serde(flatten)]
    pub op: Op,
}

/// What all processes wrote: for each its file's name and its lines in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order of their names.
    pub processes: Vec<(String, Vec<Event>)>,
}

impl History {
    /// Reads every `*.jsonl` of a folder. A last line that is cut short was its process's end.
    ///
    /// # Errors
    /// If a file cannot be read, or another line is none of a history.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "jsonl"));
        paths.sort();
        let mut history = Self::default();
        for path in paths {
            let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            history.add(&name, &text).with_context(|| path.display().to_string())?;
        }
        Ok(history)
    }

    /// Adds what one process wrote.
    ///
    /// # Errors
    /// If a line, but for a last one without an end, is none of a history.
    pub fn add(&mut self, name: &str, text: &str) -> Result<()> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter(|line| !line.trim().is_empty());
        let events = lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        self.processes.push((name.to_owned(), events.collect::<Result<_>>()?));
        Ok(())
    }

    /// All events, process by process.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.processes.iter().flat_map(|(_, events)| events)
    }
}
