//! What a connector is: the traits, the record and value model, options, errors, and the contract suite.
//!
//! One [`Batch`] travels between source, transforms, format and sink, built in or WASM: an arena of bytes with rows
//! of typed fields under an [`EventSchema`]. Nothing builds a tree of values per record on the hot path.
#![forbid(unsafe_code)]

pub mod batch;
pub mod config;
pub mod conformance;
mod context;
mod error;
pub mod infer;
pub mod json;
pub mod names;
pub mod pipeline;
mod plugin;
mod redact;
mod registry;
pub mod row;
pub mod schema;
mod sink;
mod source;
mod transform;

pub use batch::{Batch, BatchBuilder, Op, RecordView};
pub use config::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig, Secret,
};
pub use context::{Progress, ProgressSnapshot, TaskContext};
pub use error::{ConnectorError, ErrorKind};
pub use names::{TopicPattern, TopicTemplate};
pub use pipeline::{
    DeadLetterSpec, FormatKind, FormatSpec, JsonSchemas, NewTopicSpec, PipelineSpec, RetrySpec, SinkSpec,
    SourceSpec, TransformSpec,
};
pub use plugin::{PluginLoader, PluginScope, PluginTrust, PluginTypes};
pub use redact::Redactor;
pub use registry::Registry;
pub use row::{Row, RowWriter, Value};
pub use schema::{ColumnId, Computed, EventSchema, Field, RowSchema, SchemaId, SourceBlock, Type};
pub use sink::{Durability, Rejected, Sink, SinkBatch, SinkConnector, SinkFactory, Written};
pub use source::{
    Budget, Poll, Position, RejectedInput, Source, SourceBatch, SourceConnector, SourceFactory,
    SourceOffsets, TaskSpec,
};
pub use transform::{RejectedRecords, Transform, TransformFactory, Transformed};
