//! The producer.

mod ack;

use std::future::Future;
use std::sync::Arc;

pub use ack::{Ack, ProducerRecord, RecordMetadata};

use crate::client::ClientInner;
use crate::{ClientError, ProducerConfig};

/// Sends records in batches. Cheap to clone; all clones share one buffer.
#[derive(Debug, Clone)]
pub struct Producer {
    #[allow(dead_code)]
    client: Arc<ClientInner>,
}

impl Producer {
    pub(crate) fn new(client: Arc<ClientInner>, _config: ProducerConfig) -> Self {
        Self { client }
    }

    /// Copies a record into the open batch of its partition. Waits while `buffer_memory` is full, and for the topic's
    /// metadata the first time; otherwise it returns at once. Errors of the batch surface at the next
    /// [`Self::barrier`].
    ///
    /// # Errors
    /// [`ClientError::RecordTooLarge`], an unknown topic or partition, or [`ClientError::Closed`].
    pub async fn send(&self, _record: ProducerRecord<'_>) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// As [`Self::send`]; the ack tells where the record is once the brokers have it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with_ack(&self, _record: ProducerRecord<'_>) -> Result<Ack, ClientError> {
        Err(ClientError::Closed)
    }

    /// Resolves when every record sent before this call is acknowledged, or with the first error among them; an error
    /// is reported to every barrier whose records it may concern. Batches still wait for `linger_ms`.
    pub fn barrier(&self) -> impl Future<Output = Result<(), ClientError>> + Send + 'static {
        std::future::ready(Err(ClientError::Closed))
    }

    /// Closes the open batches now and waits as [`Self::barrier`] does.
    ///
    /// # Errors
    /// The first error among the records sent before this call.
    pub async fn flush(&self) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// Bytes of records that are not acknowledged yet.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        0
    }
}
