//! What changes records on their way.

use async_trait::async_trait;

use super::batch::{Batch, BatchBuilder, RecordView};
use super::config::{ConfigProblems, Descriptor, RawConfig};
use super::error::ConnectorError;

/// Makes transforms of one type out of configurations.
pub trait TransformFactory: Send + Sync {
    /// Name, version and options.
    fn descriptor(&self) -> &Descriptor;

    /// Reads a configuration that already fits the [`Descriptor`]'s options. Pure: touches nothing outside.
    ///
    /// # Errors
    /// Every problem at once (R12).
    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems>;
}

/// The outcome of a transform.
#[derive(Debug)]
pub struct Transformed {
    /// The records that go on. Each keeps the offset or position of the record it was made from.
    pub batch: Batch,
    /// Records that could not be transformed: they go to the dead-letter topic.
    pub rejected: RejectedRecords,
}

impl From<Batch> for Transformed {
    fn from(batch: Batch) -> Self {
        Self { batch, rejected: RejectedRecords::default() }
    }
}

/// Records as they came into a transform that could not handle them, each with its reason.
#[derive(Debug, Default)]
pub struct RejectedRecords {
    records: BatchBuilder,
    errors: Vec<ConnectorError>,
}

impl RejectedRecords {
    /// Adds a copy of `record`.
    pub fn push(&mut self, record: RecordView<'_>, error: ConnectorError) {
        self.records.push(record);
        self.errors.push(error);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The records, and the reasons in the same order.
    #[must_use]
    pub fn into_parts(self) -> (Batch, Vec<ConnectorError>) {
        (self.records.build(), self.errors)
    }
}

/// A transform in a pipeline; it may keep state (caches of schemas), but no records.
#[async_trait]
pub trait Transform: Send {
    /// Transforms one batch, which may be empty.
    ///
    /// # Errors
    /// When the transform itself is broken; a record it cannot handle is rejected instead.
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError>;
}
