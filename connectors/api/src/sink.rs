//! The sink side: what carries records out.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use towpath_types::{Offset, TopicId, TopicPartition};

use super::batch::Batch;
use super::config::{ConfigProblems, Descriptor, RawConfig};
use super::context::TaskContext;
use super::error::ConnectorError;

/// Makes sink connectors of one type out of configurations.
pub trait SinkFactory: Send + Sync {
    /// Name, version, guarantee and options.
    fn descriptor(&self) -> &Descriptor;

    /// Reads a configuration that already fits the [`Descriptor`]'s options. Pure: touches nothing outside.
    ///
    /// # Errors
    /// Every problem at once (R12).
    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SinkConnector>, ConfigProblems>;
}

/// A configured sink that has not been opened.
#[async_trait]
pub trait SinkConnector: Send + Sync {
    /// Touches the world: connects, and looks for what is missing there. Changes nothing. Returns what it verified.
    ///
    /// # Errors
    /// Everything that would keep [`SinkConnector::open`] from working.
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>>;

    /// Opens one task; partitions follow with [`Sink::assign`].
    ///
    /// # Errors
    /// As classified by the connector.
    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError>;
}

/// Records of one partition, in offset order.
#[derive(Debug)]
pub struct SinkBatch {
    /// Where they come from.
    pub partition: Arc<TopicPartition>,
    /// The topic's identity: a topic that was deleted and created again is another one. Zero where the cluster has
    /// no topic ids.
    pub topic_id: TopicId,
    /// The first offset that this batch covers, including records that transforms dropped.
    pub first_offset: Offset,
    /// The offset after the last that this batch covers, including gaps and records that transforms dropped. The
    /// sink's position moves here even when `batch` is empty.
    pub next_offset: Offset,
    /// The records.
    pub batch: Batch,
}

/// What the sink did with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Taken, not yet safe; the next [`Sink::flush`] makes it so.
    Accepted,
    /// Safe, and so is everything accepted before it (cumulative).
    Durable,
}

/// A record that the sink cannot take, now or ever: it goes to the dead-letter topic (R5).
#[derive(Debug)]
pub struct Rejected {
    /// Its index in the batch.
    pub index: usize,
    /// Why.
    pub error: ConnectorError,
}

/// The answer to a write.
#[derive(Debug)]
pub struct Written {
    /// How safe the batch is.
    pub durability: Durability,
    /// The records that were left out.
    pub rejected: Vec<Rejected>,
}

impl Written {
    /// Everything is safe.
    #[must_use]
    pub const fn durable() -> Self {
        Self { durability: Durability::Durable, rejected: Vec::new() }
    }

    /// Everything is taken.
    #[must_use]
    pub const fn accepted() -> Self {
        Self { durability: Durability::Accepted, rejected: Vec::new() }
    }
}

/// An open sink task.
#[async_trait]
pub trait Sink: Send {
    /// Partitions are now this task's. A sink that keeps positions of its own fences older owners here (R6) and
    /// returns the next offset it wants of each; where it returns none, the group's committed offset counts.
    ///
    /// # Errors
    /// As classified by the connector.
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError>;

    /// Takes a batch. Rejected records are not errors; an error means that nothing of the batch counts.
    ///
    /// When records were rejected, the runtime first makes them durable in the dead-letter topic and only then
    /// lets the position pass them (R5): a sink that commits its own position with the data therefore must not
    /// commit a batch that has rejections. It returns them, changes nothing, and is given the batch again without.
    ///
    /// # Errors
    /// As classified by the connector; the runtime closes the task and opens it again from durable offsets.
    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError>;

    /// Makes everything accepted safe. Returns the durable next offset of each partition written so far. Also called
    /// every second or so while nothing comes, for what a sink does by the clock.
    ///
    /// # Errors
    /// As classified by the connector.
    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError>;

    /// Partitions are no longer this task's; called after a flush.
    ///
    /// # Errors
    /// As classified by the connector.
    async fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), ConnectorError>;

    /// Whether something else is to take the place of what runs: the file of a plugin was replaced, or an instance of it has
    /// used up its memory. The runtime then ends the task between two batches, once everything that was
    /// written is flushed and committed, and opens it again at once.
    fn is_superseded(&self) -> bool {
        false
    }

    /// Ends the task; called after a flush unless the task failed.
    ///
    /// # Errors
    /// When the target cannot be left cleanly; nothing is lost by that.
    async fn close(self: Box<Self>) -> Result<(), ConnectorError>;
}
