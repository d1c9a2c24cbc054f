//! What all tasks of a supervisor share.

use std::path::PathBuf;
use std::sync::Arc;

use towpath_api::Redactor;
use towpath_api::pipeline::Compression;
use towpath_client::{Client, Codec, Fenced, Producer, ProducerConfig};
use towpath_types::limits::MESSAGE_BYTES_MAX;

use crate::schemas::SchemaStore;
use crate::topics::Topics;

/// Bytes of records that one task may have on their way to the brokers.
const BUFFER_BYTES: usize = 2 * MESSAGE_BYTES_MAX;
const BATCH_BYTES: usize = 256 * 1024;
/// A record must fit a batch of [`MESSAGE_BYTES_MAX`] with the batch's own header.
pub(crate) const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4096;
const LINGER_MS: u64 = 2;

#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) client: Client,
    pub(crate) embedded: bool,
    pub(crate) redactor: Redactor,
    pub(crate) base_dir: Arc<PathBuf>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) schemas: SchemaStore,
}

impl Env {
    /// A producer for one attempt of one task: idempotent, acks=all; its failures surface and the task begins anew.
    /// R4: nothing follows a batch that failed, so that a partition holds a prefix of what was sent to it: the next
    /// attempt takes what it finds there for everything before.
    pub(crate) fn producer(&self, compression: Compression, identity: Option<Fenced>) -> Producer {
        use towpath_client::Compression as C;
        let compression = match compression {
            Compression::None => C::None,
            Compression::Gzip => C::Gzip,
            Compression::Snappy => C::Snappy,
            Compression::Lz4 => C::Lz4,
            Compression::Zstd => C::Zstd,
        };
        self.client.producer(ProducerConfig {
            compression: Codec::from(compression),
            batch_bytes: BATCH_BYTES,
            linger_ms: LINGER_MS,
            buffer_memory: BUFFER_BYTES,
            record_bytes_max: RECORD_BYTES_MAX,
            allow_auto_create_topics: false,
            stop_after_failure: true,
            identity,
            ..ProducerConfig::default()
        })
    }
}
