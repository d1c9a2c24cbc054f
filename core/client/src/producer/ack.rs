//! What `send` takes, and what is known when a record is acknowledged.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use towpath_types::{Offset, TopicName};

use crate::ClientError;

/// A record to send; everything is copied by `send`.
#[derive(Debug, Clone, Copy)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a TopicName,
    /// The partition; `None` chooses by the key (murmur2, as Kafka does), or sticks to one for a batch without key.
    pub partition: Option<i32>,
    /// The timestamp (ms since 1970); `None` for now.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> ProducerRecord<'a> {
    /// An empty record for a topic.
    #[must_use]
    pub const fn new(topic: &'a TopicName) -> Self {
        Self { topic, partition: None, timestamp_ms: None, key: None, value: None, headers: &[] }
    }
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: i32,
    /// The offset; `Offset::new(-1)` when the broker did not tell (`acks=0`, or a duplicate of long ago).
    pub offset: Offset,
    /// The timestamp (ms): the record's, or the broker's append time if the topic says so.
    pub timestamp_ms: i64,
}

/// Resolves when the record is acknowledged, or failed. Dropping it changes nothing.
#[derive(Debug)]
pub struct Ack {
    pub(super) done: Arc<BatchDone>,
    pub(super) index: i32,
    pub(super) timestamp_ms: i64,
}

/// The fate of one batch, shared by the acks of its records.
#[derive(Debug, Default)]
pub(super) struct BatchDone {
    state: Mutex<DoneState>,
}

#[derive(Debug, Default)]
struct DoneState {
    outcome: Option<Result<BatchOutcome, ClientError>>,
    wakers: Vec<(i32, Waker)>,
}

/// What the broker said of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchOutcome {
    pub(super) partition: i32,
    /// −1 if unknown.
    pub(super) base_offset: i64,
    /// −1 unless the topic stamps appends.
    pub(super) log_append_time_ms: i64,
}

/// The batch's end of it: dropped without an outcome, the acks learn that the producer was closed.
#[derive(Debug, Default)]
pub(super) struct DoneGuard(Arc<BatchDone>);

impl DoneGuard {
    pub(super) fn share(&self) -> Arc<BatchDone> {
        Arc::clone(&self.0)
    }

    pub(super) fn complete(self, outcome: Result<BatchOutcome, ClientError>) {
        self.0.complete(outcome);
    }
}

impl Drop for DoneGuard {
    fn drop(&mut self) {
        self.0.complete(Err(ClientError::Closed));
    }
}

impl BatchDone {
    /// The first outcome counts.
    fn complete(&self, outcome: Result<BatchOutcome, ClientError>) {
        let wakers = {
            let mut state = self.state.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Future for Ack {
    type Output = Result<RecordMetadata, ClientError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.done.state.lock();
        let Some(outcome) = &state.outcome else {
            let waker = context.waker().clone();
            match state.wakers.iter_mut().find(|(index, _)| *index == self.index) {
                Some((_, known)) => *known = waker,
                None => state.wakers.push((self.index, waker)),
            }
            return Poll::Pending;
        };
        Poll::Ready(outcome.clone().map(|outcome| RecordMetadata {
            partition: outcome.partition,
            offset: Offset::new(if outcome.base_offset < 0 {
                -1
            } else {
                outcome.base_offset.saturating_add(i64::from(self.index))
            }),
            timestamp_ms: if outcome.log_append_time_ms >= 0 {
                outcome.log_append_time_ms
            } else {
                self.timestamp_ms
            },
        }))
    }
}
