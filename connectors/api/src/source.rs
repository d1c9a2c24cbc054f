//! The source side: what brings records in.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::config::{ConfigProblems, Descriptor, RawConfig};
use super::context::TaskContext;
use super::error::ConnectorError;

/// Makes source connectors of one type out of configurations.
pub trait SourceFactory: Send + Sync {
    /// Name, version, guarantee and options.
    fn descriptor(&self) -> &Descriptor;

    /// Reads a configuration that already fits the [`Descriptor`]'s options. Pure: touches nothing outside.
    ///
    /// # Errors
    /// Every problem at once (R12).
    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems>;
}

/// The share of a connector's work that one task does: a document only the connector understands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The number of the task, from 0.
    pub index: u32,
    /// What the connector wants to find again in [`SourceConnector::open`].
    pub assignment: serde_json::Value,
}

/// A configured source that has not been opened.
#[async_trait]
pub trait SourceConnector: Send + Sync {
    /// Touches the world: connects, and looks for what is missing there (privileges, settings, files). Changes
    /// nothing. Returns what it verified, one line each, for `towpath check`.
    ///
    /// # Errors
    /// Everything that would keep [`SourceConnector::open`] from working.
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>>;

    /// Splits the work into at most `tasks_max` tasks.
    ///
    /// # Errors
    /// When the world must be asked and cannot be.
    async fn plan(&self, tasks_max: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError>;

    /// Opens one task at the stored offsets; empty offsets mean a first start. Offsets that cannot be decoded or no
    /// longer exist upstream are an error, never a silent restart (R7).
    ///
    /// # Errors
    /// As classified by the connector.
    async fn open(
        &self,
        task: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError>;
}

/// How much a poll may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes after which the batch is returned; one record may exceed it.
    pub bytes: usize,
    /// Records after which the batch is returned.
    pub records: usize,
}

/// What a poll found.
#[derive(Debug)]
pub enum Poll {
    /// Records, and the offsets that hold once they are durable.
    Batch(SourceBatch),
    /// Nothing for the moment. A poll waits a little (up to about 100 ms) before it says so. Offsets may have
    /// moved all the same (a database whose other tables change).
    Idle(SourceOffsets),
    /// Nothing ever again: a finite source has been read to its end.
    End,
}

/// Records with the offsets that hold once they are durable.
#[derive(Debug, Default)]
pub struct SourceBatch {
    /// The records, in order.
    pub batch: Batch,
    /// The source partitions whose offset changes with this batch; the runtime merges them into what it stores.
    pub offsets: SourceOffsets,
    /// Input that is no record (a line that is not JSON): it goes to the dead-letter topic, durably, before the
    /// offsets count (R5); where there is none, the task fails at it.
    pub rejected: Vec<RejectedInput>,
}

/// Input that a source could not make a record of.
#[derive(Debug)]
pub struct RejectedInput {
    /// Where it stood, for people (`orders.jsonl, byte 1234`).
    pub position: String,
    /// The input as it was.
    pub bytes: Vec<u8>,
    /// Why.
    pub error: ConnectorError,
}

/// How far a source has been read: a JSON document for each *source partition* (a table, a file, a slot), which the
/// connector alone understands and versions. Stored in a compacted topic, one record per source partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceOffsets {
    /// Source partition → offset document; `null` forgets the partition.
    pub partitions: BTreeMap<String, serde_json::Value>,
}

impl SourceOffsets {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Takes over what `newer` says.
    pub fn merge(&mut self, newer: Self) {
        for (partition, offset) in newer.partitions {
            if offset.is_null() {
                self.partitions.remove(&partition);
            } else {
                self.partitions.insert(partition, offset);
            }
        }
    }
}

/// A point in the upstream's own order, compared as bytes by nobody but [`Source::has_passed`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The connector's own form.
    pub document: serde_json::Value,
    /// What a person reads in the status (`0/1A2B3C`).
    pub text: String,
}

/// An open source task.
#[async_trait]
pub trait Source: Send {
    /// The next records. Must return soon after `context.stop` is cancelled.
    ///
    /// # Errors
    /// As classified by the connector; the runtime closes the task and decides when to open it again.
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError>;

    /// R4: called only after the records and these offsets are durable. May free what lies before upstream.
    ///
    /// # Errors
    /// As classified by the connector.
    async fn commit(&mut self, durable: &SourceOffsets) -> Result<(), ConnectorError>;

    /// Where the upstream ends at this moment, if it can tell: what `--until-idle` waits for. `None` means that only
    /// [`Poll::End`] ends this source.
    ///
    /// # Errors
    /// When the upstream cannot be asked.
    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError>;

    /// Whether everything up to `end` (of [`Source::upstream_end`]) is covered by `durable`.
    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool;

    /// Where the task stands, for people (`snapshot 3 of 4 tables`, `streaming at 0/1A2B3C`).
    fn status(&self) -> String;

    /// Whether something else is to take the place of what runs: the file of a plugin was replaced, or an instance of it has
    /// used up its memory. The runtime then ends the task between two batches, once everything that was
    /// polled is durable and committed, and opens it again at once.
    fn is_superseded(&self) -> bool {
        false
    }

    /// Ends the task; what is not committed is read again next time.
    ///
    /// # Errors
    /// When the upstream cannot be left cleanly; nothing is lost by that.
    async fn close(self: Box<Self>) -> Result<(), ConnectorError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_offsets_replaces_adds_and_forgets() {
        let mut offsets =
            SourceOffsets { partitions: [("a".into(), json!(1)), ("b".into(), json!(2))].into() };
        offsets.merge(SourceOffsets {
            partitions: [("a".into(), json!(5)), ("b".into(), json!(null)), ("c".into(), json!(3))].into(),
        });
        assert_eq!(offsets.partitions, [("a".into(), json!(5)), ("c".into(), json!(3))].into());
    }
}
