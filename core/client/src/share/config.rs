//! Settings of a share consumer. Names follow Kafka's, with units last.

use towpath_types::{GroupId, limits};

/// Who says what became of the records that a share consumer was given (`share.acknowledgement.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcknowledgementMode {
    /// All records that a poll returned are accepted with the next poll or commit.
    #[default]
    Implicit,
    /// The application says it of each record. What it says nothing of stays with it until its lock ends.
    Explicit,
}

/// How strictly the bound on the records of a poll is kept (`share.acquire.mode`, KIP-1206).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcquireMode {
    /// Whole batches are given out: a poll may return more than `max_poll_records`, from several brokers at once.
    #[default]
    BatchOptimized,
    /// Not one record more than `max_poll_records`; brokers are asked one after the other. Brokers before ShareFetch
    /// version 2 (Apache Kafka 4.2) cannot.
    RecordLimit,
}

impl AcquireMode {
    pub(super) const fn wire(self) -> i8 {
        match self {
            Self::BatchOptimized => 0,
            Self::RecordLimit => 1,
        }
    }
}

/// What becomes of a record (KIP-932, KIP-1222).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Acknowledgement {
    /// It is processed: nobody is given it again.
    Accept,
    /// It is given back: somebody is given it again, until it was delivered too often.
    Release,
    /// It cannot be processed: nobody is given it again.
    Reject,
    /// Its lock begins anew: it stays with this consumer, which acknowledges it later. Brokers before ShareAcknowledge
    /// version 2 (Apache Kafka 4.2) cannot.
    Renew,
}

impl Acknowledgement {
    pub(super) const fn wire(self) -> i8 {
        match self {
            Self::Accept => 1,
            Self::Release => 2,
            Self::Reject => 3,
            Self::Renew => 4,
        }
    }

    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Release => "release",
            Self::Reject => "reject",
            Self::Renew => "renew",
        }
    }
}

/// Settings of a share consumer.
#[derive(Debug, Clone)]
pub struct ShareConsumerConfig {
    /// The share group.
    pub group_id: GroupId,
    /// Who acknowledges.
    pub acknowledgement_mode: AcknowledgementMode,
    /// How strictly `max_poll_records` is kept.
    pub acquire_mode: AcquireMode,
    /// Records that a poll should return at most, and that one broker gives out at a time.
    pub max_poll_records: usize,
    /// Records that the application may have without having acknowledged them: with more, a poll is an error.
    pub unacknowledged_records_max: usize,
    /// Milliseconds between polls after which the member leaves its group, until there is a poll.
    pub max_poll_interval_ms: u64,
    /// Whether the checksum of every batch is compared.
    pub check_crcs: bool,
    /// Bytes for which a broker waits before it answers a fetch.
    pub fetch_bytes_min: usize,
    /// Milliseconds that a broker waits for them. A commit waits for a fetch that is on its way.
    pub fetch_wait_ms_max: u64,
    /// Bytes of one fetch response (a single larger batch is fetched nevertheless).
    pub fetch_bytes_max: usize,
    /// Bytes that brokers have answered and the application has not polled yet.
    pub buffer_bytes: usize,
    /// Bytes of records, after decompression, that one poll returns (a single larger batch is returned whole).
    pub poll_bytes_max: usize,
    /// The rack of this client.
    pub rack: Option<String>,
}

impl ShareConsumerConfig {
    /// Kafka's defaults for a group.
    #[must_use]
    pub fn new(group_id: GroupId) -> Self {
        Self {
            group_id,
            acknowledgement_mode: AcknowledgementMode::Implicit,
            acquire_mode: AcquireMode::BatchOptimized,
            max_poll_records: 500,
            unacknowledged_records_max: 10_000,
            max_poll_interval_ms: 300_000,
            check_crcs: true,
            fetch_bytes_min: 1,
            fetch_wait_ms_max: 500,
            fetch_bytes_max: 16 * 1024 * 1024,
            buffer_bytes: limits::CONSUMER_BUFFER_BYTES,
            poll_bytes_max: 4 * 1024 * 1024,
            rack: None,
        }
    }
}
