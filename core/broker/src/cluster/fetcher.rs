//! Followers' fetches: one loop for each leader, for all partitions that it leads and this broker follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use towpath_replica::{Applied, FollowerAnswer, LeaderAnswer, Partition, PartitionError};
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId};
use towpath_wire::fetch::PartitionData;
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use towpath_wire::{ErrorCode, FetchRequest, FetchResponse, ListOffsetsRequest, Request, frame};
use uuid::Uuid;

use super::fetch_session::{FollowerSession, Wanted, key};
use super::peer::{PeerAddress, PeerError, encode, read_frame, version_of};
use crate::connection::ErrorChain;
use crate::throttle::Throttles;

/// How long a partition that could not be fetched waits (`replica.fetch.backoff.ms`).
pub(crate) const BACKOFF: Duration = Duration::from_millis(200);
/// How long the loop waits after its connection broke: a restarted leader is back soon.
const RECONNECT: Duration = Duration::from_millis(50);
/// How long a leader may say nothing, beyond what it was told to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a loop without partitions waits to be given some.
const IDLE: Duration = Duration::from_millis(500);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

type Key = (Uuid, i32);

/// What the fetch loops need of their node.
pub(crate) trait FetchContext: Send + Sync + 'static {
    /// This broker.
    fn me(&self) -> BrokerId;
    /// Its incarnation.
    fn broker_epoch(&self) -> BrokerEpoch;
    /// Where another broker is reached by nodes, and what this one says there.
    fn hello(&self, broker: BrokerId) -> Option<(PeerAddress, towpath_wire::NodeHelloRequest)>;
    /// The connection to a leader broke.
    fn lost(&self, broker: BrokerId, error: &PeerError);
    /// Bounds on what replication takes.
    fn throttles(&self) -> &Throttles;
}

/// The partitions that a loop fetches.
#[derive(Debug, Default)]
struct Assigned {
    partitions: Mutex<HashMap<Key, Arc<Partition>>>,
    changed: Notify,
}

struct FetchLoop {
    assigned: Arc<Assigned>,
    task: JoinHandle<()>,
}

/// The loops, by leader.
pub(crate) struct Fetchers {
    context: Arc<dyn FetchContext>,
    /// Loops for each leader (`num.replica.fetchers`).
    per_leader: AtomicUsize,
    loops: Mutex<HashMap<Lane, FetchLoop>>,
}

/// A loop: its leader, and which of the loops for this leader it is.
type Lane = (BrokerId, usize);

impl std::fmt::Debug for Fetchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetchers").field("leaders", &self.loops.lock().len()).finish()
    }
}

impl Fetchers {
    pub(crate) fn new(context: Arc<dyn FetchContext>, per_leader: usize) -> Self {
        Self { context, per_leader: AtomicUsize::new(per_leader.max(1)), loops: Mutex::default() }
    }

    /// So many loops for each leader, from the next [`Self::assign`] on.
    pub(crate) fn set_per_leader(&self, per_leader: usize) {
        self.per_leader.store(per_leader.max(1), Ordering::Relaxed);
    }

    /// Which of a leader's loops a partition belongs to; always the same while there are as many.
    fn index(&self, (topic, partition): &Key) -> usize {
        let id = topic.as_u128() as usize;
        id.wrapping_add(usize::try_from(*partition).unwrap_or(0)) % self.per_leader.load(Ordering::Relaxed)
    }

    /// Fetches exactly these partitions, each from its leader.
    pub(crate) fn assign(&self, partitions: impl IntoIterator<Item = Arc<Partition>>) {
        let me = self.context.me();
        let mut by_leader: HashMap<Lane, HashMap<Key, Arc<Partition>>> = HashMap::new();
        for partition in partitions {
            if let Some(leader) = partition.leader().filter(|leader| *leader != me) {
                let key = key(partition.topic_id(), partition.id().partition);
                by_leader.entry((leader, self.index(&key))).or_default().insert(key, partition);
            }
        }
        let mut loops = self.loops.lock();
        loops.retain(|lane, running| {
            let stays = by_leader.contains_key(lane);
            if !stays {
                running.task.abort();
            }
            stays
        });
        for (lane, partitions) in by_leader {
            if loops.get(&lane).is_some_and(|running| running.task.is_finished()) {
                tracing::error!(leader = %lane.0, "the loop that fetches from a leader had ended; it begins anew");
                loops.remove(&lane);
            }
            let running = loops.entry(lane).or_insert_with(|| {
                let assigned = Arc::new(Assigned::default());
                let work = Work::new(Arc::clone(&self.context), lane.0, Arc::clone(&assigned));
                FetchLoop { assigned, task: tokio::spawn(work.run()) }
            });
            *running.assigned.partitions.lock() = partitions;
            running.assigned.changed.notify_one();
        }
    }

    /// Ends all loops.
    pub(crate) fn stop(&self) {
        self.loops.lock().drain().for_each(|(_, running)| running.task.abort());
    }
}

impl Drop for Fetchers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One loop.
struct Work {
    context: Arc<dyn FetchContext>,
    leader: BrokerId,
    assigned: Arc<Assigned>,
    session: FollowerSession,
    connection: Option<(TcpStream, BytesMut)>,
    correlation: i32,
    /// Partitions that wait after an error.
    delayed: HashMap<Key, Instant>,
}

impl Work {
    fn new(context: Arc<dyn FetchContext>, leader: BrokerId, assigned: Arc<Assigned>) -> Self {
        Self {
            context,
            leader,
            assigned,
            session: FollowerSession::default(),
            connection: None,
            correlation: 0,
            delayed: HashMap::new(),
        }
    }

    async fn run(mut self) {
        loop {
            let wanted = self.plan().await;
            if wanted.is_empty() {
                // Nothing to fetch, or everything waits: after an error, or for its turn.
                let waits = !self.delayed.is_empty() || self.context.throttles().follower.is_limited();
                let wait = if waits { BACKOFF / 4 } else { IDLE };
                drop(tokio::time::timeout(wait, self.assigned.changed.notified()).await);
                continue;
            }
            if let Err(error) = self.round(wanted).await {
                tracing::debug!(leader = %self.leader, error = %ErrorChain(&error), "the connection to a leader broke");
                self.connection = None;
                self.session.reset();
                self.context.lost(self.leader, &error);
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }

    /// The fetches that are due; what has to be durable before them is.
    async fn plan(&mut self) -> HashMap<Key, Wanted> {
        let partitions: Vec<(Key, Arc<Partition>)> = {
            let assigned = self.assigned.partitions.lock();
            assigned.iter().map(|(key, partition)| (*key, Arc::clone(partition))).collect()
        };
        let now = Instant::now();
        self.delayed.retain(|_, until| *until > now);
        self.flush(&partitions).await;
        let mut wanted = HashMap::with_capacity(partitions.len());
        let is_open = self.context.throttles().follower.is_open(now);
        for (key, partition) in partitions {
            if self.delayed.contains_key(&key) || (!is_open && self.is_held_back(&key, &partition)) {
                continue;
            }
            // R14: nothing can be taken there any more; the controller is told.
            if partition.log().offline_reason().is_some() {
                continue;
            }
            let Some(plan) = partition.plan_fetch().filter(|plan| plan.leader == self.leader) else {
                continue;
            };
            let high_watermark = partition.high_watermark();
            wanted.insert(key, Wanted { partition, plan, high_watermark });
        }
        wanted
    }

    /// Whether a partition is not fetched while the bound is exceeded: records wait for whoever is in sync, and nothing may
    /// hold that up.
    fn is_held_back(&self, key: &Key, partition: &Partition) -> bool {
        let me = self.context.me();
        self.context.throttles().follower_throttles(TopicId::new(key.0), key.1, me)
            && !partition.is_in_sync(me)
    }

    /// So many bytes of a partition came.
    fn count(&self, key: &Key, bytes: u64) {
        let throttles = self.context.throttles();
        let is_listed = || throttles.follower_throttles(TopicId::new(key.0), key.1, self.context.me());
        if throttles.follower.is_limited() && is_listed() {
            throttles.follower.take(bytes);
        }
    }

    /// R1: the leader counts what the next fetch says is here. A partition that cannot be flushed waits.
    async fn flush(&mut self, partitions: &[(Key, Arc<Partition>)]) {
        let unflushed: Vec<(Key, Arc<Partition>)> = partitions
            .iter()
            .filter(|(_, partition)| partition.counts_when_flushed())
            .filter(|(_, partition)| partition.log().recovery_point() < partition.log().log_end_offset())
            .cloned()
            .collect();
        if unflushed.is_empty() {
            return;
        }
        let flushing = move || {
            let flush = |(key, partition): &(Key, Arc<Partition>)| (*key, partition.flush_fetched());
            unflushed.iter().map(flush).collect::<Vec<_>>()
        };
        for (key, result) in blocking(flushing).await {
            if let Err(error) = result {
                tracing::debug!(topic = %key.0, partition = key.1, error = %ErrorChain(&error), "cannot be flushed");
                self.delay(key);
            }
        }
    }

    async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, PeerError> {
        let (peer, hello) = self.context.hello(self.leader).ok_or_else(|| PeerError::Io {
            node: self.leader,
            address: Arc::from("an address that the metadata do not know"),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let io = |source: std::io::Error| PeerError::Io {
            node: peer.node,
            address: Arc::clone(&peer.address),
            source,
        };
        let (stream, buffer) = match &mut self.connection {
            Some(open) => (&mut open.0, &mut open.1),
            closed => {
                let hello = towpath_wire::NodeHelloRequest { is_for_records: true, ..hello };
                let (stream, _) = peer.connect(&hello).await?;
                let open = closed.insert((stream, BytesMut::new()));
                (&mut open.0, &mut open.1)
            }
        };
        self.correlation = self.correlation.wrapping_add(1);
        let bytes = encode(request, version_of::<R>(), self.correlation).map_err(io)?;
        let answering = async {
            stream.write_all(&bytes).await?;
            read_frame(stream, buffer).await
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answering).await;
        let answer = answer
            .map_err(|_| PeerError::Timeout {
                node: peer.node,
                address: Arc::clone(&peer.address),
                within: ANSWER_TIMEOUT,
            })?
            .map_err(io)?;
        let (_, response) = frame::decode_response::<R>(answer, version_of::<R>())
            .map_err(|error| io(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        Ok(response)
    }

    async fn round(&mut self, wanted: HashMap<Key, Wanted>) -> Result<(), PeerError> {
        let (me, epoch) = (self.context.me(), self.context.broker_epoch());
        let request: FetchRequest = self.session.request(me, epoch, &wanted);
        let response: FetchResponse = self.call(&request).await?;
        if response.error_code != ErrorCode::None.code() {
            tracing::debug!(leader = %self.leader, code = response.error_code, "the fetch session begins anew");
            self.session.reset();
            return Ok(());
        }
        self.session.answered(response.session_id);
        let mut answers = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let Some(wanted) = wanted.get(&key) else { continue };
                match self.answer_of(wanted, &data).await? {
                    Some(answer) => answers.push((key, wanted.clone(), answer)),
                    None => self.delay(key),
                }
            }
        }
        self.apply(answers).await;
        Ok(())
    }

    /// Leaves a partition out for a while. The next request says so to the leader, which would else answer each one at
    /// once with the same error.
    fn delay(&mut self, key: Key) {
        self.delayed.insert(key, Instant::now() + BACKOFF);
    }

    /// What the leader said of a partition; none after an error that time or newer metadata will end.
    async fn answer_of(
        &mut self,
        wanted: &Wanted,
        data: &PartitionData,
    ) -> Result<Option<FollowerAnswer>, PeerError> {
        let answer = match ErrorCode::from_code(data.error_code) {
            ErrorCode::None if data.diverging_epoch.epoch >= 0 => LeaderAnswer::Diverging {
                epoch: LeaderEpoch::new(data.diverging_epoch.epoch),
                end: Offset::new(data.diverging_epoch.end_offset),
            },
            ErrorCode::None => LeaderAnswer::Records,
            ErrorCode::OffsetOutOfRange => match self.leaders_range(wanted).await? {
                Some((start, end)) => LeaderAnswer::OutOfRange { start, end },
                None => return Ok(None),
            },
            code => {
                tracing::debug!(partition = %wanted.partition.id(), leader = %self.leader, ?code, "cannot fetch");
                return Ok(None);
            }
        };
        Ok(Some(FollowerAnswer {
            answer,
            records: data.records.clone().unwrap_or_default(),
            high_watermark: Offset::new(data.high_watermark),
            log_start: Offset::new(data.log_start_offset),
        }))
    }

    /// Where the leader's log begins and ends.
    async fn leaders_range(&mut self, wanted: &Wanted) -> Result<Option<(Offset, Offset)>, PeerError> {
        let mut found = [Offset::ZERO; 2];
        for (slot, timestamp) in found.iter_mut().zip([EARLIEST, LATEST]) {
            let request = ListOffsetsRequest {
                replica_id: self.context.me().get(),
                topics: vec![ListOffsetsTopic {
                    name: wanted.partition.id().topic.as_str().to_owned(),
                    partitions: vec![ListOffsetsPartition {
                        partition_index: wanted.partition.id().partition,
                        current_leader_epoch: wanted.plan.leader_epoch.get(),
                        timestamp,
                    }],
                }],
                ..ListOffsetsRequest::default()
            };
            let response = self.call(&request).await?;
            let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
            match partition.filter(|partition| partition.error_code == 0) {
                Some(partition) => *slot = Offset::new(partition.offset),
                None => return Ok(None),
            }
        }
        let [start, end] = found;
        Ok(Some((start, end)))
    }

    /// Appends what came. What may wait for the disk is done on another thread.
    async fn apply(&mut self, answers: Vec<(Key, Wanted, FollowerAnswer)>) {
        let (quick, slow): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, _, answer)| answer.answer == LeaderAnswer::Records);
        let mut results: Vec<_> = quick.iter().map(apply_one).collect();
        if !slow.is_empty() {
            let applying = move || slow.iter().map(apply_one).collect::<Vec<_>>();
            results.extend(blocking(applying).await);
        }
        for (key, result) in results {
            match result {
                Ok(Applied::Appended(bytes)) => self.count(&key, bytes),
                Ok(Applied::Nothing) => {}
                Ok(Applied::Cut(_)) => self.session.repeat(&key),
                Err(PartitionError::Deleted) => self.delay(key),
                Err(error) => {
                    tracing::warn!(topic = %key.0, partition = key.1, error = %ErrorChain(&error), "what was fetched cannot be taken");
                    self.delay(key);
                }
            }
        }
    }
}

fn apply_one(
    (key, wanted, answer): &(Key, Wanted, FollowerAnswer),
) -> (Key, Result<Applied, PartitionError>) {
    (*key, wanted.partition.apply_fetched(&wanted.plan, answer))
}

/// Runs what waits for a disk on another thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Err(_) => std::future::pending().await,
    }
}
