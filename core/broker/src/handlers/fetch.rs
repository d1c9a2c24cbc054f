//! Fetch: reads record batches, and waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use towpath_controller::MetadataImage;
use towpath_log::{AbortedTransaction, FetchedData};
use towpath_replica::{
    Awaited, FetchPosition, FetchWaiter, FetchedPartition, FollowerFetch, Isolation, Partition,
    PartitionError, Reader,
};
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId};
use towpath_wire::fetch::{
    EpochEndOffset, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use towpath_wire::frame::encode_response;
use towpath_wire::{ApiKey, Decoder, ErrorCode, FetchRequest, FetchResponse, Message};
use uuid::Uuid;

use super::{Begun, CurrentLeader, Reply, RequestContext, partition_error_code};
use crate::connection::ConnectionEnd;
use crate::fetch_session::{FetchContext, Session, SessionRequest, Told, TopicKey, Wanted};
use crate::metrics::BrokerMetrics;
use crate::outgoing::{Frame, Part};
use crate::state::BrokerState;

/// Stands in the encoded answer where a partition's records go; long enough to become a segment of its own.
static MARKER: [u8; towpath_wire::codec::SHARED_BYTES_MIN] = [0; towpath_wire::codec::SHARED_BYTES_MIN];
/// How long any fetch may wait.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// A partition of the fetch, looked up.
struct Target {
    wanted: Wanted,
    partition: Result<Arc<Partition>, ErrorCode>,
}

/// What is answered for a partition.
struct Found {
    result: Result<FetchedPartition, ErrorCode>,
}

/// A fetch.
struct Fetch {
    broker: Arc<BrokerState>,
    cx: RequestContext,
    targets: Vec<Target>,
    session: Option<(Arc<parking_lot::Mutex<Session>>, bool)>,
    bytes_max: usize,
    bytes_min: usize,
    read_committed: bool,
    who: Who,
}

/// Who fetches.
enum Who {
    /// A consumer; of an older version, which reads from leaders only.
    OldConsumer,
    /// A consumer in this rack, if it says so.
    Consumer { rack: String },
    /// A broker that follows.
    Follower { broker: BrokerId, epoch: BrokerEpoch },
}

/// From here on consumers may read from followers (KIP-392).
const VERSION_ANY_REPLICA: i16 = 11;
/// From here on an answer can say who leads.
const VERSION_LEADER: i16 = 12;
/// From here on an answer can say where that is (KIP-951).
const VERSION_ENDPOINTS: i16 = 16;

impl Who {
    fn is_follower(&self) -> bool {
        matches!(self, Self::Follower { .. })
    }

    fn reader(&self, wanted: &Wanted) -> Reader {
        match self {
            Self::OldConsumer => Reader::Consumer,
            Self::Consumer { .. } => Reader::AnyReplica,
            Self::Follower { broker, epoch } => Reader::Follower(FollowerFetch {
                broker: *broker,
                broker_epoch: *epoch,
                log_end: Offset::new(wanted.offset),
                log_start: Offset::new(wanted.log_start),
            }),
        }
    }
}

pub(super) fn begin(
    broker: &Arc<BrokerState>,
    cx: RequestContext,
    mut body: Decoder,
) -> Result<Begun, ConnectionEnd> {
    let request = FetchRequest::decode(&mut body, cx.version)?;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let fetch = match prepare(broker, cx.clone(), request) {
        Ok(fetch) => fetch,
        Err(code) => {
            BrokerMetrics::error(ApiKey::Fetch, code);
            let response = FetchResponse { error_code: code.code(), ..FetchResponse::default() };
            return Ok(Begun::Done(cx.reply(ApiKey::Fetch, &response)));
        }
    };
    let found = fetch.read();
    if wait.is_zero() || fetch.is_enough(&found) {
        return Ok(Begun::Done(fetch.answer(found)));
    }
    Ok(Begun::Waiting(Box::pin(async move {
        let found = fetch.wait(wait, found).await;
        fetch.answer(found)
    })))
}

fn key(version: i16, name: &str, id: Uuid) -> TopicKey {
    if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name(name.into()) }
}

fn wanted(version: i16, topics: Vec<FetchTopic>) -> Vec<Wanted> {
    let mut all = Vec::with_capacity(topics.iter().map(|topic| topic.partitions.len()).sum());
    for topic in topics {
        let key = key(version, &topic.topic, topic.topic_id);
        all.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: key.clone(),
            partition: partition.partition,
            offset: partition.fetch_offset,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
            bytes_max: partition.partition_max_bytes,
            log_start: partition.log_start_offset,
            high_watermark: partition.high_watermark,
        }));
    }
    all
}

fn prepare(broker: &Arc<BrokerState>, cx: RequestContext, request: FetchRequest) -> Result<Fetch, ErrorCode> {
    let version = cx.version;
    let who = who(&cx, &request);
    let forgotten = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let key = key(version, &topic.topic, topic.topic_id);
            topic.partitions.iter().map(move |partition| (key.clone(), *partition))
        })
        .collect();
    let context = broker.sessions.context(SessionRequest {
        id: request.session_id,
        epoch: request.session_epoch,
        uses_ids: version >= 13,
        wanted: wanted(version, request.topics),
        forgotten,
    })?;
    let (session, wanted) = match context {
        FetchContext::Full(wanted) => (None, wanted),
        FetchContext::New(session, wanted) => (Some((session, false)), wanted),
        FetchContext::Incremental(session, wanted) => (Some((session, true)), wanted),
    };
    let targets = wanted
        .into_iter()
        .map(|wanted| {
            let partition = match &who {
                // Followers say who they are on the listener of nodes; nobody else is a replica of ours. Who does not
                // say which epoch it knows cannot be ahead of this one.
                None if wanted.current_leader_epoch < 0 => Err(ErrorCode::NotLeaderOrFollower),
                None => Err(ErrorCode::UnknownLeaderEpoch),
                Some(_) => find(broker, &wanted),
            };
            Target { wanted, partition }
        })
        .collect();
    let limit = broker.config.limits.fetch_bytes_max;
    Ok(Fetch {
        broker: Arc::clone(broker),
        cx,
        targets,
        session,
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(limit),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        read_committed: request.isolation_level == 1,
        who: who.unwrap_or(Who::OldConsumer),
    })
}

/// Who fetches; none for one that takes itself for a replica and is none.
fn who(cx: &RequestContext, request: &FetchRequest) -> Option<Who> {
    let (replica, epoch) = if cx.version >= 15 {
        (request.replica_state.replica_id, request.replica_state.replica_epoch)
    } else {
        (request.replica_id, -1)
    };
    match cx.node {
        Some(node) if node.get() == replica => {
            Some(Who::Follower { broker: node, epoch: BrokerEpoch::new(epoch) })
        }
        _ if replica >= 0 => None,
        _ if cx.version < VERSION_ANY_REPLICA => Some(Who::OldConsumer),
        _ => Some(Who::Consumer { rack: request.rack_id.clone() }),
    }
}

fn find(broker: &BrokerState, wanted: &Wanted) -> Result<Arc<Partition>, ErrorCode> {
    let (topic, unknown) = match &wanted.topic {
        TopicKey::Name(name) => (broker.replicas.topic(name), ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) if id.is_nil() => (None, ErrorCode::UnknownTopicId),
        TopicKey::Id(id) => (broker.replicas.topic_by_id(TopicId::new(*id)), ErrorCode::UnknownTopicId),
    };
    let partition = topic.ok_or(unknown)?.partition(wanted.partition);
    partition.map_err(|error| partition_error_code(&error))?.ok_or(ErrorCode::UnknownTopicOrPartition)
}

impl Fetch {
    /// Reads every partition in order. The first one with data may exceed the bounds: without that a large batch
    /// would never be read.
    fn read(&self) -> Vec<Found> {
        let mut left = self.bytes_max;
        let mut min_one = true;
        let may_exceed = self.broker.throttles.leader.is_open(Instant::now());
        self.targets
            .iter()
            .map(|target| {
                let result = match &target.partition {
                    Err(code) => Err(*code),
                    Ok(partition) => {
                        // Over the bound it is only heard how far the follower is.
                        let is_held_back = !may_exceed && self.is_held_back(partition);
                        let limit = usize::try_from(target.wanted.bytes_max).unwrap_or(0);
                        let limit = if is_held_back { 0 } else { limit };
                        let position = FetchPosition {
                            offset: Offset::new(target.wanted.offset),
                            current_leader_epoch: LeaderEpoch::new(target.wanted.current_leader_epoch),
                            last_fetched_epoch: LeaderEpoch::new(target.wanted.last_fetched_epoch),
                            bytes_max: limit.min(left),
                            min_one: min_one && !is_held_back,
                            isolation: self.isolation(),
                        };
                        let reader = self.who.reader(&target.wanted);
                        partition.fetch(reader, &position).map_err(|error| {
                            match (&error, &target.wanted.topic) {
                                // Whoever names topics by their ids is told which kind of name is gone.
                                (PartitionError::Deleted, TopicKey::Id(_)) => ErrorCode::UnknownTopicId,
                                _ => partition_error_code(&error),
                            }
                        })
                    }
                };
                let bytes = result.as_ref().map_or(0, |fetched| fetched.data.len());
                left = left.saturating_sub(bytes);
                min_one = min_one && bytes == 0;
                Found { result }
            })
            .collect()
    }

    const fn isolation(&self) -> Isolation {
        if self.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
    }

    const fn awaited(&self) -> Awaited {
        match &self.who {
            Who::Follower { .. } => Awaited::Appended,
            _ if self.read_committed => Awaited::Stable,
            _ => Awaited::Committed,
        }
    }

    /// Whether the follower that fetches gets nothing of a partition while the bound is exceeded. Records wait for whoever
    /// is in sync: that is never held up.
    fn is_held_back(&self, partition: &Partition) -> bool {
        self.is_throttled(partition)
            && matches!(&self.who, Who::Follower { broker, .. } if !partition.is_in_sync(*broker))
    }

    fn is_throttled(&self, partition: &Partition) -> bool {
        let Who::Follower { broker, .. } = &self.who else { return false };
        let throttles = &self.broker.throttles;
        throttles.leader.is_limited()
            && throttles.leader_throttles(partition.topic_id(), partition.id().partition, *broker)
    }

    /// Whether the answer need not wait: enough bytes, an error, or nothing to wait for.
    fn is_enough(&self, found: &[Found]) -> bool {
        let mut bytes = 0;
        for (found, target) in found.iter().zip(&self.targets) {
            match &found.result {
                Err(_) => return true,
                Ok(fetched) if fetched.diverging.is_some() => return true,
                Ok(fetched) if self.has_news(target, fetched) => return true,
                Ok(fetched) => bytes += fetched.data.len(),
            }
        }
        found.is_empty() || bytes >= self.bytes_min
    }

    /// Whether a follower knows another high watermark than it should, or has records that were deleted: it hears of
    /// that at once (KAFKA-18616).
    fn has_news(&self, target: &Target, fetched: &FetchedPartition) -> bool {
        // Whoever is held back does not take the news in, and would ask again at once.
        let is_held_back = || {
            !self.broker.throttles.leader.is_open(Instant::now())
                && target.partition.as_ref().is_ok_and(|partition| self.is_held_back(partition))
        };
        self.who.is_follower()
            && (fetched.high_watermark.get() > target.wanted.high_watermark
                || fetched.log_start_offset.get() > target.wanted.log_start)
            && !is_held_back()
    }

    fn bytes(found: &[Found]) -> usize {
        found.iter().filter_map(|found| found.result.as_ref().ok()).map(|fetched| fetched.data.len()).sum()
    }

    /// Waits for enough bytes on all partitions together, for an error, or for the time to pass.
    async fn wait(&self, wait: Duration, mut found: Vec<Found>) -> Vec<Found> {
        let deadline = tokio::time::Instant::now() + wait;
        let missing = self.bytes_min.saturating_sub(Self::bytes(&found)).max(1);
        let waiting = Waiting::begin(&self.targets, missing, self.awaited());
        loop {
            // What came between the read and the registration woke nobody.
            if self.has_moved(&found) {
                found = self.read();
                if self.is_enough(&found) {
                    return found;
                }
                waiting.waiter.rearm(self.bytes_min.saturating_sub(Self::bytes(&found)).max(1));
                if self.has_moved(&found) {
                    continue;
                }
            }
            if tokio::time::timeout_at(deadline, waiting.waiter.woken()).await.is_err() {
                return self.read();
            }
            found = self.read();
            if self.is_enough(&found) {
                return found;
            }
            waiting.waiter.rearm(self.bytes_min.saturating_sub(Self::bytes(&found)).max(1));
        }
    }

    fn has_moved(&self, found: &[Found]) -> bool {
        self.targets.iter().zip(found).any(|(target, found)| match (&target.partition, &found.result) {
            (Ok(partition), Ok(fetched)) if self.who.is_follower() => {
                partition.log().log_end_offset() != fetched.log_end_offset
            }
            (Ok(partition), Ok(fetched)) => partition.high_watermark() != fetched.high_watermark,
            _ => false,
        })
    }

    fn answer(&self, found: Vec<Found>) -> Reply {
        let mut response = FetchResponse::default();
        let mut data = Vec::new();
        let mut session = self.session.as_ref().map(|(session, incremental)| (session.lock(), *incremental));
        if let Some((session, _)) = &session {
            response.session_id = session.id();
        }
        let mut last: Option<&TopicKey> = None;
        let image = self.broker.image();
        for (target, found) in self.targets.iter().zip(found) {
            let mut must = found
                .result
                .as_ref()
                .map_or(true, |fetched| fetched.diverging.is_some() || self.has_news(target, fetched));
            let (mut partition, mut records) = self.partition_data(target.wanted.partition, found.result);
            self.tell_leader(&image, target, &mut partition, &mut response.node_endpoints);
            if let Some(nearer) = self.nearer_replica(&image, target, &partition) {
                // The records are there, too.
                partition.preferred_read_replica = nearer.get();
                partition.records = Some(Bytes::new());
                records = FetchedData::Empty;
                must = true;
            }
            if let Some((session, incremental)) = &mut session {
                let told =
                    Told { high_watermark: partition.high_watermark, log_start: partition.log_start_offset };
                let wanted = &target.wanted;
                let has_data = !records.is_empty();
                let news = session.tell(&wanted.topic, wanted.partition, told, has_data, must);
                if *incremental && !news {
                    continue;
                }
            }
            if let Ok(partition) = &target.partition
                && self.is_throttled(partition)
            {
                self.broker.throttles.leader.take(records.len() as u64);
            }
            data.push(records);
            if last != Some(&target.wanted.topic) {
                response.responses.push(topic_response(&target.wanted.topic));
                last = Some(&target.wanted.topic);
            }
            if let Some(topic) = response.responses.last_mut() {
                topic.partitions.push(partition);
            }
        }
        drop(session);
        match encode(&self.cx, &response, data) {
            Ok(frame) => Reply::Frame(frame),
            Err(error) => {
                tracing::error!(%error, version = self.cx.version, "a fetch answer cannot be encoded");
                Reply::Close
            }
        }
    }

    /// Whoever asks the wrong broker is told the right one (KIP-951).
    fn tell_leader(
        &self,
        image: &MetadataImage,
        target: &Target,
        data: &mut PartitionData,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        let code = ErrorCode::from_code(data.error_code);
        let is_wrong_broker = matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
        if !is_wrong_broker || self.cx.version < VERSION_LEADER {
            return;
        }
        let topic = match &target.wanted.topic {
            TopicKey::Name(name) => image.topic(name),
            TopicKey::Id(id) => image.topic_by_id(TopicId::new(*id)),
        };
        let Some(leader) = topic.and_then(|topic| CurrentLeader::find(image, topic, target.wanted.partition))
        else {
            return;
        };
        data.current_leader =
            LeaderIdAndEpoch { leader_id: leader.id.get(), leader_epoch: leader.epoch.get() };
        let is_told = endpoints.iter().any(|endpoint| endpoint.node_id == leader.id.get());
        if !is_told && self.cx.version >= VERSION_ENDPOINTS {
            endpoints.push(NodeEndpoint {
                node_id: leader.id.get(),
                host: leader.host,
                port: leader.port,
                rack: leader.rack,
            });
        }
    }

    /// A replica in the consumer's own rack that has what the consumer wants (KIP-392); only the leader names one.
    fn nearer_replica(
        &self,
        image: &MetadataImage,
        target: &Target,
        data: &PartitionData,
    ) -> Option<BrokerId> {
        let Who::Consumer { rack } = &self.who else { return None };
        let node = self.broker.cluster().filter(|node| node.replication().rack_aware_reads)?;
        if rack.is_empty() || data.error_code != 0 || data.diverging_epoch.epoch >= 0 {
            return None;
        }
        let partition = target.partition.as_ref().ok().filter(|partition| partition.is_leader())?;
        let in_rack =
            |id: &BrokerId| image.broker(*id).is_some_and(|broker| broker.rack.as_deref() == Some(rack));
        if in_rack(&node.me()) {
            return None;
        }
        let has_it = |id: &BrokerId| {
            partition.follower_log_end(*id).is_some_and(|end| end.get() >= target.wanted.offset)
        };
        partition.maximal_isr().into_iter().find(|id| *id != node.me() && in_rack(id) && has_it(id))
    }

    fn partition_data(
        &self,
        index: i32,
        result: Result<FetchedPartition, ErrorCode>,
    ) -> (PartitionData, FetchedData) {
        let mut data = PartitionData {
            partition_index: index,
            high_watermark: -1,
            records: Some(Bytes::new()),
            ..PartitionData::default()
        };
        match result {
            Err(code) => {
                BrokerMetrics::error(ApiKey::Fetch, code);
                data.error_code = code.code();
                // Kafka's have null where a log was asked, and an empty list where there is none.
                if !matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) {
                    data.aborted_transactions = None;
                }
                (data, FetchedData::Empty)
            }
            Ok(fetched) => {
                data.high_watermark = fetched.high_watermark.get();
                data.last_stable_offset = fetched.last_stable_offset.get();
                data.log_start_offset = fetched.log_start_offset.get();
                data.aborted_transactions = fetched.aborted.map(|aborted| {
                    let told = |aborted: AbortedTransaction| towpath_wire::fetch::AbortedTransaction {
                        producer_id: aborted.producer_id.get(),
                        first_offset: aborted.first_offset.get(),
                    };
                    aborted.into_iter().map(told).collect()
                });
                if let Some((epoch, end)) = fetched.diverging {
                    data.diverging_epoch = EpochEndOffset { epoch: epoch.get(), end_offset: end.get() };
                }
                if !fetched.data.is_empty() {
                    self.broker.metrics.bytes_out.increment(fetched.data.len() as u64);
                    data.records = Some(Bytes::from_static(&MARKER));
                }
                (data, fetched.data)
            }
        }
    }
}

fn topic_response(key: &TopicKey) -> FetchableTopicResponse {
    let mut topic = FetchableTopicResponse::default();
    match key {
        TopicKey::Name(name) => topic.topic = name.to_string(),
        TopicKey::Id(id) => topic.topic_id = *id,
    }
    topic
}

/// Registered with all partitions of a fetch, until dropped.
struct Waiting {
    waiter: Arc<FetchWaiter>,
    partitions: Vec<Arc<Partition>>,
    awaited: Awaited,
}

impl Waiting {
    fn begin(targets: &[Target], missing: usize, awaited: Awaited) -> Self {
        let waiter = FetchWaiter::new(missing);
        let partitions: Vec<_> =
            targets.iter().filter_map(|target| target.partition.as_ref().ok().cloned()).collect();
        partitions.iter().for_each(|partition| partition.wait_for_records(&waiter, awaited));
        Self { waiter, partitions, awaited }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|partition| partition.stop_waiting(&self.waiter, self.awaited));
    }
}

/// Encodes the answer with markers for the records, and puts the records in their places: neither memory nor file is
/// copied.
fn encode(
    cx: &RequestContext,
    response: &FetchResponse,
    data: Vec<FetchedData>,
) -> Result<Frame, towpath_wire::EncodeError> {
    let segments = encode_response(ApiKey::Fetch, cx.version, cx.correlation_id, response)?.into_vec();
    let mut data = data.into_iter().filter(|data| !data.is_empty());
    let flexible = ApiKey::Fetch.is_flexible(cx.version);
    let mut parts: Vec<Part> = Vec::with_capacity(segments.len() + 2);
    let mut length = 0;
    for segment in segments {
        if segment.as_ptr() != MARKER.as_ptr() {
            length += segment.len();
            parts.push(Part::Bytes(segment));
            continue;
        }
        let Some(records) = data.next() else { continue };
        let bytes = records.len();
        if let Some(Part::Bytes(before)) = parts.last_mut() {
            // The marker's own length stands right before it.
            let stale = if flexible { uvarint(MARKER.len() as u32 + 1).1 } else { 4 };
            before.truncate(before.len() - stale);
            length -= stale;
        }
        let prefix = length_prefix(bytes, flexible)?;
        length += prefix.len() + bytes;
        parts.push(Part::Bytes(prefix));
        match records {
            FetchedData::Empty => {}
            FetchedData::Memory(pieces) => parts.extend(pieces.into_iter().map(Part::Bytes)),
            FetchedData::File(slice) => parts.push(Part::File(slice)),
        }
    }
    set_frame_length(&mut parts, length)?;
    Ok(Frame { parts })
}

fn length_prefix(bytes: usize, flexible: bool) -> Result<Bytes, towpath_wire::EncodeError> {
    let too_long = || towpath_wire::EncodeError::TooLong { what: "fetched records", length: bytes };
    let value = i32::try_from(bytes).ok().filter(|value| *value < i32::MAX).ok_or_else(too_long)?;
    if !flexible {
        return Ok(Bytes::copy_from_slice(&value.to_be_bytes()));
    }
    let (varint, width) = uvarint(value.unsigned_abs() + 1);
    Ok(Bytes::copy_from_slice(&varint[..width]))
}

fn uvarint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut width = 0;
    while value >= 0x80 {
        bytes[width] = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
        width += 1;
    }
    bytes[width] = value as u8;
    (bytes, width + 1)
}

/// Replaces the first four bytes, the frame's length, by what it is with the records.
fn set_frame_length(parts: &mut Vec<Part>, length: usize) -> Result<(), towpath_wire::EncodeError> {
    let body = length.saturating_sub(4);
    let prefix = i32::try_from(body)
        .map_err(|_| towpath_wire::EncodeError::TooLong { what: "a frame", length: body })?;
    if let Some(Part::Bytes(first)) = parts.first_mut() {
        first.advance(4.min(first.len()));
    }
    parts.insert(0, Part::Bytes(Bytes::copy_from_slice(&prefix.to_be_bytes())));
    Ok(())
}
