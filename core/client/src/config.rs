//! Settings of the client, the producer and the consumer. Names follow Kafka's, with units last.

use std::sync::Arc;
use std::time::Duration;

use towpath_record::Codec;
use towpath_types::{GroupId, limits};

use crate::consumer::StartAt;
use crate::producer::Fenced;
use crate::transport::{TcpTransport, Transport};

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of some brokers; one that answers is enough.
    pub bootstrap_servers: Vec<String>,
    /// The name by which brokers know this client (logs, quotas).
    pub client_id: String,
    /// How connections are opened: TCP, or a broker in the same process.
    pub transport: Arc<dyn Transport>,
    /// Milliseconds in which a broker must answer one request; afterwards the connection is closed.
    pub request_timeout_ms: u64,
    /// Milliseconds in which a connection must be established and its versions negotiated.
    pub connect_timeout_ms: u64,
    /// Milliseconds that an operation with its retries may take (admin calls, offset commits, metadata of a topic).
    pub api_timeout_ms: u64,
    /// Milliseconds after which metadata is asked for again although nothing failed.
    pub metadata_max_age_ms: u64,
    /// Milliseconds before the first attempt to reach a broker again; doubles with every failure, with jitter.
    pub reconnect_backoff_ms: u64,
    /// The most that [`Self::reconnect_backoff_ms`] grows to.
    pub reconnect_backoff_ms_max: u64,
    /// Milliseconds before a failed request is sent again; doubles with every failure, with jitter.
    pub retry_backoff_ms: u64,
    /// The most that [`Self::retry_backoff_ms`] grows to.
    pub retry_backoff_ms_max: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "towpath".to_owned(),
            transport: Arc::new(TcpTransport),
            request_timeout_ms: 30_000,
            connect_timeout_ms: 10_000,
            api_timeout_ms: 60_000,
            metadata_max_age_ms: 300_000,
            reconnect_backoff_ms: 50,
            reconnect_backoff_ms_max: 1_000,
            retry_backoff_ms: 100,
            retry_backoff_ms_max: 1_000,
        }
    }
}

/// When a produce request counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// When it is written to the socket. Nothing is known of its fate; offsets in acks are −1.
    None,
    /// When the leader has it.
    Leader,
    /// When all in-sync replicas have it.
    #[default]
    All,
}

impl Acks {
    pub(crate) const fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Settings of a producer.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// When a record counts as acknowledged. Anything but [`Acks::All`] turns idempotence off.
    pub acks: Acks,
    /// Whether retries may leave duplicates: with idempotence they do not, and order is kept (KIP-98).
    pub enable_idempotence: bool,
    /// The codec of batches (and its level).
    pub compression: Codec,
    /// Uncompressed bytes at which a batch is closed; a larger record gets a batch of its own.
    pub batch_bytes: usize,
    /// Milliseconds that a batch waits for more records.
    pub linger_ms: u64,
    /// Bytes of unacknowledged records above which `send` waits.
    pub buffer_memory: usize,
    /// Bytes of the largest record that `send` takes.
    pub record_bytes_max: usize,
    /// Milliseconds that `send` waits for the topic's metadata.
    pub max_block_ms: u64,
    /// Milliseconds from a batch's first record to its acknowledgement, retries included; `u64::MAX` retries for ever.
    pub delivery_timeout_ms: u64,
    /// Produce requests in flight to one broker (at most 5 with idempotence).
    pub in_flight_max: usize,
    /// Whether brokers may create topics that do not exist when they are first written to.
    pub allow_auto_create_topics: bool,
    /// Whether a batch that fails takes along everything that was sent to its partition after it, now and later. What
    /// a partition holds is then a prefix of what was sent to it, without a gap and without repetition: a writer that
    /// looks there for where it stood needs that. A batch of which the broker cannot tell whether it has it fails too.
    pub stop_after_failure: bool,
    /// Under which it writes, if a [`crate::Fence`] gave one: a successor shuts it out. It never takes another by itself;
    /// once it is shut out, everything fails with `INVALID_PRODUCER_EPOCH`. For idempotent producers.
    pub identity: Option<Fenced>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            enable_idempotence: true,
            compression: Codec::default(),
            batch_bytes: 64 * 1024,
            linger_ms: 5,
            buffer_memory: limits::PRODUCER_BUFFER_BYTES,
            record_bytes_max: 1024 * 1024,
            max_block_ms: 60_000,
            delivery_timeout_ms: 120_000,
            in_flight_max: 5,
            allow_auto_create_topics: true,
            stop_after_failure: false,
            identity: None,
        }
    }
}

/// Settings of a transactional producer.
#[derive(Debug, Clone)]
pub struct TransactionConfig {
    /// The name under which the producer is known over restarts: of all producers with it the newest counts.
    pub transactional_id: String,
    /// Milliseconds after which the coordinator gives up a transaction that is not ended (at most the brokers'
    /// `transaction.max.timeout.ms`). The producer is fenced then.
    pub transaction_timeout_ms: u64,
    /// The rest. `acks` must be [`Acks::All`] with idempotence; `stop_after_failure` is of no use here: after a failure
    /// the whole transaction is aborted. `max_block_ms` also bounds how long a commit or an abort is waited for.
    pub producer: ProducerConfig,
}

impl TransactionConfig {
    /// Kafka's defaults for a transactional id.
    #[must_use]
    pub fn new(transactional_id: impl Into<String>) -> Self {
        Self {
            transactional_id: transactional_id.into(),
            transaction_timeout_ms: 60_000,
            producer: ProducerConfig::default(),
        }
    }
}

/// What to do with a partition whose position is unknown or does not exist (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// Begin at the first record there is.
    Earliest,
    /// Begin at the end.
    Latest,
    /// Begin at the first record that is not older than this, by its timestamp; at the end if there is none (KIP-1106).
    ByDuration(Duration),
    /// Report it: [`crate::ClientError::OffsetOutOfRange`] or [`crate::ClientError::NoOffset`] (R7).
    #[default]
    None,
}

impl OffsetReset {
    /// Where to begin, unless the problem is to be reported.
    pub(crate) const fn start(self) -> Option<StartAt> {
        match self {
            Self::Earliest => Some(StartAt::Earliest),
            Self::Latest => Some(StartAt::Latest),
            Self::ByDuration(age) => Some(StartAt::Ago(age)),
            Self::None => None,
        }
    }
}

/// The protocol between a group's members and its coordinator (`group.protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupKind {
    /// Members join together and one of them shares out: every cluster has it.
    #[default]
    Classic,
    /// The coordinator shares out, and each member follows by itself (KIP-848).
    Consumer,
}

impl GroupKind {
    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// The visibility of transactional records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// Everything below the high watermark, also of open and aborted transactions.
    #[default]
    ReadUncommitted,
    /// Only records outside of transactions and of committed ones, below the last stable offset.
    ReadCommitted,
}

impl IsolationLevel {
    pub(crate) const fn wire(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How the leader of a group distributes partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// Kafka's `range`: of each topic, consecutive partitions for each member. Rebalances stop everything (eager).
    Range,
    /// Kafka's `cooperative-sticky`: balanced, moves as little as possible, and only what moves pauses (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }
}

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The group: needed to subscribe and to commit, not for a manual assignment that does neither.
    pub group_id: Option<GroupId>,
    /// Makes the member static (KIP-345): it keeps its partitions when it comes back within the session timeout.
    pub group_instance_id: Option<String>,
    /// The group's protocol.
    pub group_protocol: GroupKind,
    /// The coordinator's assignor (`uniform` or `range`; `None` for its default), in the consumer protocol.
    pub remote_assignor: Option<String>,
    /// The assignors that the member supports, the most liked first, in the classic protocol. The cooperative one is
    /// used when all are cooperative.
    pub assignors: Vec<Assignor>,
    /// Milliseconds without a heartbeat after which the group goes on without this member. (In the consumer protocol
    /// the coordinator has a limit of its own; after this one the member gives up by itself.)
    pub session_timeout_ms: u64,
    /// Milliseconds between heartbeats. (In the consumer protocol the coordinator says.)
    pub heartbeat_interval_ms: u64,
    /// Milliseconds between polls after which the member leaves; also how long a rebalance waits for it.
    pub max_poll_interval_ms: u64,
    /// What to do without a position, or with one that does not exist.
    pub auto_offset_reset: OffsetReset,
    /// The visibility of transactional records.
    pub isolation_level: IsolationLevel,
    /// Whether the checksum of every batch is compared.
    pub check_crcs: bool,
    /// Bytes for which a broker waits before it answers a fetch.
    pub fetch_bytes_min: usize,
    /// Milliseconds that a broker waits for them.
    pub fetch_wait_ms_max: u64,
    /// Bytes of one fetch response (a single larger batch is fetched nevertheless).
    pub fetch_bytes_max: usize,
    /// Bytes of one partition in one fetch response.
    pub partition_fetch_bytes_max: usize,
    /// Bytes fetched ahead of the application, above which fetching pauses.
    pub buffer_bytes: usize,
    /// Bytes of records, after decompression, that one `poll` returns (a single larger batch is returned whole).
    pub poll_bytes_max: usize,
    /// Milliseconds after which new topics and partitions that a pattern matches are looked for.
    pub topic_refresh_ms: u64,
    /// Whether asking for a topic's metadata may create it.
    pub allow_auto_create_topics: bool,
    /// The rack of this client, for fetching from the nearest replica (KIP-392).
    pub rack: Option<String>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group_id: None,
            group_instance_id: None,
            group_protocol: GroupKind::Classic,
            remote_assignor: None,
            assignors: vec![Assignor::CooperativeSticky],
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 3_000,
            max_poll_interval_ms: 300_000,
            auto_offset_reset: OffsetReset::None,
            isolation_level: IsolationLevel::ReadUncommitted,
            check_crcs: true,
            fetch_bytes_min: 1,
            fetch_wait_ms_max: 500,
            fetch_bytes_max: 16 * 1024 * 1024,
            partition_fetch_bytes_max: 1024 * 1024,
            buffer_bytes: limits::CONSUMER_BUFFER_BYTES,
            poll_bytes_max: 4 * 1024 * 1024,
            topic_refresh_ms: 30_000,
            allow_auto_create_topics: false,
            rack: None,
        }
    }
}
