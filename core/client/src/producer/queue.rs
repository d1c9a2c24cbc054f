//! The batches of one partition, in order; pure.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::time::Instant;
use towpath_record::{BatchBuilder, edit};
use towpath_types::{ProducerEpoch, ProducerId, TopicName, TopicPartition};
use towpath_wire::ErrorCode;

use super::ack::DoneGuard;
use super::barrier::Generations;
use crate::ClientError;
use crate::backoff::Backoff;

/// The identity with which the broker recognises a batch that is sent twice (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    pub(super) base: i32,
}

/// A batch's records.
#[derive(Debug)]
pub(super) enum Content {
    /// Not compressed and checksummed yet.
    Open(BatchBuilder),
    /// As it travels, with the sequence that is written in it.
    Built(Bytes, Option<Sequence>),
}

/// One batch, from its first record to its acknowledgement.
#[derive(Debug)]
pub(super) struct Batch {
    /// Grows over the whole producer.
    pub(super) id: u64,
    pub(super) generations: Generations,
    pub(super) content: Content,
    pub(super) records: i32,
    /// The newest of its records' timestamps.
    pub(super) timestamp_ms: i64,
    /// Bytes counted against `buffer_memory`.
    pub(super) bytes: usize,
    pub(super) opened: Instant,
    pub(super) done: Option<DoneGuard>,
    pub(super) sequence: Option<Sequence>,
    /// Its number among the batches of its partition, from when it was first sent.
    pub(super) ordinal: Option<u64>,
    pub(super) last_error: Option<ClientError>,
}

impl Batch {
    /// Compresses and checksums what was not yet, and writes the sequence that the batch has now. An emptied builder
    /// comes back for reuse.
    pub(super) fn build(&mut self) -> Result<(Bytes, Option<BatchBuilder>), ClientError> {
        let sequence = self.sequence;
        match std::mem::replace(&mut self.content, Content::Built(Bytes::new(), None)) {
            Content::Open(mut builder) => {
                if let Some(Sequence { id, epoch, base }) = sequence {
                    builder.set_producer(id, epoch, base);
                }
                let bytes = builder.build()?;
                self.content = Content::Built(bytes.clone(), sequence);
                Ok((bytes, Some(builder)))
            }
            Content::Built(bytes, written) if written == sequence => {
                self.content = Content::Built(bytes.clone(), written);
                Ok((bytes, None))
            }
            Content::Built(bytes, _) => {
                let mut changed = BytesMut::from(bytes);
                if let Some(Sequence { id, epoch, base }) = sequence {
                    edit::set_producer(&mut changed, id, epoch, base)
                        .map_err(|_| ClientError::Usage("a built batch has no header"))?;
                }
                let bytes = changed.freeze();
                self.content = Content::Built(bytes.clone(), sequence);
                Ok((bytes, None))
            }
        }
    }
}

/// How long a broker surely remembers a producer that is silent; Kafka's default is a day.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// The age of records, by their own timestamps, up to which Kafka surely remembers their producer when it starts. It
/// forgets those whose newest records are older than `producer.id.expiration.ms` (a day, unless configured), and takes
/// whatever they send next, also when it is in the log already.
const REMEMBERED_BY_TIMESTAMP_MS: i64 = 12 * 60 * 60 * 1000;

impl Batch {
    /// Whether a broker that has started anew may have this batch and not know so.
    pub(super) const fn may_be_forgotten(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.timestamp_ms) > REMEMBERED_BY_TIMESTAMP_MS
    }
}

/// What to do after a broker's answer about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the log.
    Acked,
    /// It was in the log already; where is not known any more.
    Duplicate,
    /// Send it again, unchanged.
    Retry,
    /// As `Retry`, and the broker may have it without knowing so: where nothing may come twice, it fails.
    Uncertain,
    /// The broker does not know what came before it, so it is not in the log, nor is anything after it: begin a new
    /// epoch with sequence 0 and send all again.
    NewEpoch,
    /// It will never be accepted.
    Fail,
    /// As `Fail`, and the producer id is of no use any more.
    FailNewId,
}

/// `head` says whether no earlier batch of the partition is unacknowledged.
pub(super) fn judge(code: ErrorCode, idempotent: bool, head: bool) -> Verdict {
    match code {
        ErrorCode::None => Verdict::Acked,
        ErrorCode::DuplicateSequenceNumber => Verdict::Duplicate,
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId if idempotent => {
            if head {
                Verdict::NewEpoch
            } else {
                Verdict::Retry
            }
        }
        ErrorCode::InvalidProducerEpoch | ErrorCode::InvalidProducerIdMapping if idempotent => {
            Verdict::FailNewId
        }
        code if code.is_retriable() => Verdict::Retry,
        _ => Verdict::Fail,
    }
}

/// As [`judge`], for a batch of a transaction: it never begins an epoch by itself, the transaction is aborted instead.
pub(super) fn judge_transactional(code: ErrorCode, head: bool) -> Verdict {
    match code {
        ErrorCode::None => Verdict::Acked,
        ErrorCode::DuplicateSequenceNumber => Verdict::Duplicate,
        // What came before it is on its way yet.
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId if !head => Verdict::Retry,
        code if code.is_retriable() => Verdict::Retry,
        _ => Verdict::Fail,
    }
}

/// The batches of one partition.
#[derive(Debug)]
pub(super) struct PartitionQueue {
    pub(super) topic: TopicName,
    pub(super) index: i32,
    /// Takes records.
    pub(super) open: Option<Batch>,
    /// Closed, to be sent in this order.
    pub(super) closed: VecDeque<Batch>,
    /// The ids and ordinals of the batches that were sent and not answered, in order.
    pub(super) in_flight: SmallVec<[(u64, u64); 5]>,
    next_ordinal: u64,
    /// The connection on which those in flight were sent.
    connection: Option<u64>,
    /// The identity under which this partition's sequences count.
    identity: Option<(ProducerId, ProducerEpoch)>,
    next_sequence: i32,
    /// A batch came back: nothing new is sent until those in flight are answered, so that order is kept.
    draining: bool,
    /// When the broker last acknowledged a batch under this identity. A broker that knows nothing of a producer takes
    /// any sequence: were the first batch refused and the second not, they would change places. So the first goes
    /// alone, also after a pause in which the broker may have forgotten (`producer.id.expiration.ms`).
    established: Option<Instant>,
    /// Begin a new epoch as soon as nothing is in flight.
    new_epoch: bool,
    /// What a batch failed with, where nothing may follow it (`stop_after_failure`).
    pub(super) broken: Option<ClientError>,
    pub(super) retry_at: Option<Instant>,
    backoff: Backoff,
    /// Whether the accumulator's list of queues with work holds it.
    pub(super) listed: bool,
}

/// The sequence number `count` records further on; it wraps to 0 after the largest.
pub(super) fn sequence_after(base: i32, count: i32) -> i32 {
    let next = i64::from(base) + i64::from(count);
    (next % (i64::from(i32::MAX) + 1)) as i32
}

impl PartitionQueue {
    pub(super) fn new(topic: TopicName, index: i32, backoff: Backoff) -> Self {
        Self {
            topic,
            index,
            open: None,
            closed: VecDeque::new(),
            in_flight: SmallVec::new(),
            next_ordinal: 0,
            connection: None,
            identity: None,
            next_sequence: 0,
            draining: false,
            established: None,
            new_epoch: false,
            broken: None,
            retry_at: None,
            backoff,
            listed: false,
        }
    }

    pub(super) fn partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.index)
    }

    pub(super) fn has_work(&self) -> bool {
        self.open.is_some() || !self.closed.is_empty()
    }

    /// Closes the open batch.
    pub(super) fn close(&mut self) {
        self.closed.extend(self.open.take());
    }

    /// Whether a batch may be sent now: `in_flight_max` is per partition. It bounds how far batches get ahead of the
    /// oldest one that is not acknowledged, also when those between are: the broker remembers no more than that, and
    /// one that was appended although its answer was an error or lost must be recognised when it comes again.
    pub(super) fn may_send(&self, now: Instant, in_flight_max: usize, idempotent: bool) -> bool {
        let remembered = self.established.is_some_and(|at| now.duration_since(at) < REMEMBERED_FOR);
        let in_flight_max = if idempotent && !remembered { 1 } else { in_flight_max };
        let Some(next) = self.closed.front() else { return false };
        let oldest = self.in_flight.iter().map(|(_, ordinal)| *ordinal).chain(next.ordinal).min();
        let ahead = oldest.map_or(0, |oldest| next.ordinal.unwrap_or(self.next_ordinal) - oldest);
        self.in_flight.len() < in_flight_max
            && usize::try_from(ahead).is_ok_and(|ahead| ahead < in_flight_max)
            && (!self.draining || self.in_flight.is_empty())
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Whether a batch may go on this connection. While batches are in flight only theirs will do: on one connection
    /// the answers come in order and a break fails all, but on a new one the next batches could overtake one whose
    /// failure is not known yet, by so many that the broker no longer remembers it and takes it twice.
    pub(super) fn may_send_on(&self, connection: u64) -> bool {
        self.in_flight.is_empty() || self.connection == Some(connection)
    }

    /// Ends draining and begins a new epoch if one is due and nothing is in flight. True when the epochs of the
    /// producer id are used up: the id is forgotten, and the producer needs a new one.
    pub(super) fn settle(&mut self) -> bool {
        if !self.in_flight.is_empty() {
            return false;
        }
        self.draining = false;
        if !self.new_epoch {
            return false;
        }
        self.begin_epoch();
        self.identity.is_none()
    }

    /// Takes the next batch to send; with `identity` (that of the producer) it gets a sequence, under the identity
    /// that the partition has already if it has one.
    pub(super) fn take(
        &mut self,
        identity: Option<(ProducerId, ProducerEpoch)>,
        connection: u64,
    ) -> Option<Batch> {
        if let Some(current) = identity {
            let (id, epoch) = *self.identity.get_or_insert(current);
            let batch = self.closed.front_mut()?;
            if batch.sequence.is_none() {
                batch.sequence = Some(Sequence { id, epoch, base: self.next_sequence });
                self.next_sequence = sequence_after(self.next_sequence, batch.records);
            }
        }
        let mut batch = self.closed.pop_front()?;
        let ordinal = *batch.ordinal.get_or_insert_with(|| {
            self.next_ordinal += 1;
            self.next_ordinal - 1
        });
        self.retry_at = None;
        self.connection = Some(connection);
        self.in_flight.push((batch.id, ordinal));
        Some(batch)
    }

    fn begin_epoch(&mut self) {
        self.new_epoch = false;
        self.established = None;
        self.next_sequence = 0;
        // The largest epoch is the broker's to fence with.
        self.identity = self.identity.and_then(|(id, epoch)| {
            let next = epoch.get().checked_add(1).filter(|next| *next < i16::MAX)?;
            Some((id, ProducerEpoch::new(next)))
        });
        for batch in &mut self.closed {
            batch.sequence = None;
        }
    }

    /// Whether no earlier batch than `id` is unacknowledged.
    pub(super) fn is_head(&self, id: u64) -> bool {
        self.in_flight.iter().all(|(other, _)| *other >= id) && self.closed.front().is_none_or(|b| b.id > id)
    }

    /// A batch was answered, well or badly, and does not come back.
    pub(super) fn finished(&mut self, id: u64, well: Option<Instant>) {
        self.in_flight.retain(|(other, _)| *other != id);
        if well.is_some() {
            self.established = well;
            self.backoff.reset();
        }
    }

    /// Puts a batch back in its place, to be sent again.
    pub(super) fn put_back(&mut self, batch: Batch, now: Instant, new_epoch: bool) {
        self.in_flight.retain(|(other, _)| *other != batch.id);
        self.new_epoch |= new_epoch;
        if !self.draining || self.retry_at.is_none() {
            let delay = if new_epoch { Duration::ZERO } else { self.backoff.next() };
            self.retry_at = Some(now + delay);
        }
        self.draining = true;
        let at = self.closed.partition_point(|other| other.id < batch.id);
        self.closed.insert(at, batch);
    }

    /// Forgets the producer id: the next batch begins under a new one.
    pub(super) fn forget_identity(&mut self) {
        self.established = None;
        self.identity = None;
        self.next_sequence = 0;
        for batch in &mut self.closed {
            batch.sequence = None;
        }
    }

    /// The id under which this partition sends, if it has one.
    pub(super) fn identity(&self) -> Option<(ProducerId, ProducerEpoch)> {
        self.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: u64, records: i32) -> Batch {
        Batch {
            id,
            generations: Generations { first: 0, last: 0 },
            content: Content::Built(Bytes::new(), None),
            records,
            timestamp_ms: 0,
            bytes: 0,
            opened: Instant::now(),
            done: None,
            sequence: None,
            ordinal: None,
            last_error: None,
        }
    }

    fn queue(batches: &[(u64, i32)]) -> PartitionQueue {
        let mut queue = PartitionQueue::new(TopicName::new("t").unwrap(), 0, Backoff::new(0, 0));
        queue.closed.extend(batches.iter().map(|(id, records)| batch(*id, *records)));
        queue
    }

    const IDENTITY: Option<(ProducerId, ProducerEpoch)> = Some((ProducerId::new(9), ProducerEpoch::new(0)));

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(0, 3), 3);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn a_retried_batch_keeps_its_sequence_and_its_place() {
        let mut queue = queue(&[(1, 2), (2, 3), (3, 4)]);
        let (first, second) = (queue.take(IDENTITY, 1).unwrap(), queue.take(IDENTITY, 1).unwrap());
        assert_eq!(second.sequence.unwrap().base, 2);
        queue.put_back(second, Instant::now(), false);
        assert!(
            !queue.may_send(Instant::now() + Duration::from_secs(1), 5, true),
            "the first is still in flight"
        );
        queue.put_back(first, Instant::now(), false);
        assert!(!queue.settle());
        let again: Vec<_> = std::iter::from_fn(|| queue.take(IDENTITY, 1)).collect();
        assert_eq!(again.iter().map(|batch| batch.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(
            again.iter().map(|batch| batch.sequence.unwrap().base).collect::<Vec<_>>(),
            [0, 2, 5],
            "unchanged, and the third follows"
        );
    }

    #[test]
    fn nothing_gets_further_ahead_than_the_broker_remembers() {
        let mut queue = queue(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        queue.established = Some(now);
        let first = queue.take(IDENTITY, 1).unwrap();
        queue.take(IDENTITY, 1).unwrap();
        queue.finished(2, Some(now));
        assert!(queue.may_send(now, 3, true), "the third is two ahead of the first");
        queue.take(IDENTITY, 1).unwrap();
        queue.finished(3, Some(now));
        assert!(!queue.may_send(now, 3, true), "the fourth would be three ahead");
        queue.put_back(first, now, false);
        assert!(queue.may_send(later, 3, true), "the first itself may always go");
        queue.take(IDENTITY, 1).unwrap();
        assert!(!queue.may_send(later, 3, true));
        queue.finished(1, Some(now));
        assert!(queue.may_send(later, 3, true));
    }

    #[test]
    fn another_connection_waits_for_what_is_in_flight() {
        let mut queue = queue(&[(1, 1), (2, 1)]);
        assert!(queue.may_send_on(1));
        let first = queue.take(IDENTITY, 1).unwrap();
        assert!(queue.may_send_on(1) && !queue.may_send_on(2));
        queue.put_back(first, Instant::now(), false);
        assert!(queue.may_send_on(2));
    }

    #[test]
    fn the_first_batch_of_an_identity_goes_alone() {
        let mut queue = queue(&[(1, 1), (2, 1), (3, 1)]);
        let now = Instant::now();
        queue.take(IDENTITY, 1).unwrap();
        assert!(!queue.may_send(now, 5, true), "the broker does not know the producer yet");
        assert!(queue.may_send(now, 5, false));
        queue.finished(1, Some(now));
        queue.take(IDENTITY, 1).unwrap();
        assert!(queue.may_send(now, 5, true));
        assert!(!queue.may_send(now + REMEMBERED_FOR, 5, true), "it may have forgotten");
    }

    #[test]
    fn a_new_epoch_begins_when_nothing_is_in_flight() {
        let mut queue = queue(&[(1, 2), (2, 3)]);
        let first = queue.take(IDENTITY, 1).unwrap();
        let second = queue.take(IDENTITY, 1).unwrap();
        assert!(queue.is_head(1) && !queue.is_head(2));
        queue.put_back(first, Instant::now(), true);
        assert!(!queue.may_send(Instant::now(), 5, true));
        queue.put_back(second, Instant::now(), false);
        assert!(!queue.settle());
        let first = queue.take(IDENTITY, 1).unwrap();
        assert_eq!(
            first.sequence.unwrap(),
            Sequence { id: ProducerId::new(9), epoch: ProducerEpoch::new(1), base: 0 }
        );
        assert_eq!(queue.take(IDENTITY, 1).unwrap().sequence.unwrap().base, 2);
    }

    #[test]
    fn after_the_last_epoch_another_id_is_taken() {
        let mut queue = queue(&[(1, 1)]);
        let last = Some((ProducerId::new(9), ProducerEpoch::new(i16::MAX - 1)));
        let first = queue.take(last, 1).unwrap();
        queue.put_back(first, Instant::now(), true);
        assert!(queue.settle(), "a new id is needed");
        let other = Some((ProducerId::new(10), ProducerEpoch::new(0)));
        assert_eq!(queue.take(other, 1).unwrap().sequence.unwrap().id, ProducerId::new(10));
    }

    #[test]
    fn verdicts_follow_kafkas_transaction_manager() {
        use ErrorCode as E;
        assert_eq!(judge(E::OutOfOrderSequenceNumber, true, false), Verdict::Retry);
        assert_eq!(judge(E::OutOfOrderSequenceNumber, true, true), Verdict::NewEpoch);
        assert_eq!(judge(E::UnknownProducerId, true, true), Verdict::NewEpoch);
        assert_eq!(judge(E::OutOfOrderSequenceNumber, false, true), Verdict::Fail);
        assert_eq!(judge(E::DuplicateSequenceNumber, true, true), Verdict::Duplicate);
        assert_eq!(judge(E::NotLeaderOrFollower, true, true), Verdict::Retry);
        assert_eq!(judge(E::MessageTooLarge, true, true), Verdict::Fail);
        assert_eq!(judge(E::NotEnoughReplicasAfterAppend, true, true), Verdict::Retry);
        assert_eq!(judge_transactional(E::OutOfOrderSequenceNumber, false), Verdict::Retry);
        assert_eq!(judge_transactional(E::ConcurrentTransactions, true), Verdict::Retry);
        for code in [E::OutOfOrderSequenceNumber, E::InvalidProducerEpoch, E::TransactionAbortable] {
            assert_eq!(judge_transactional(code, true), Verdict::Fail, "{code}");
        }
    }
}
