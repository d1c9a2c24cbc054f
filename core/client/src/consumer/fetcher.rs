//! The task behind a consumer: looks up positions and keeps a fetch in flight per broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};
use towpath_wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::fetched::Fetched;
use super::session::{Session, SessionRequest, Wanted};
use super::state::Validation;
use super::{Shared, StartAt};
use crate::client::{Channel, ClientInner, broker_error, now_ms};
use crate::connection::Connection;
use crate::error::code_wants_metadata;
use crate::metadata::Cluster;
use crate::offsets::{end_of_epoch, is_out_of_range};
use crate::{ClientError, ConsumerConfig, IsolationLevel};

/// The last version that names topics; the next has their ids.
const FETCH_VERSION_NAMES: i16 = 12;
/// The first version with sessions.
const FETCH_VERSION_SESSIONS: i16 = 7;
/// How long a broker may wait while other partitions of it are about to be ready.
const WAIT_WHILE_STARTING: Duration = Duration::from_millis(10);

/// What was asked about one partition.
type Asked = HashMap<Arc<TopicPartition>, (u64, Wanted)>;
type Lookups = Vec<(Arc<TopicPartition>, u64, StartAt)>;
type Found = Vec<(Arc<TopicPartition>, u64, Result<Option<Offset>, ClientError>)>;

#[derive(Debug, Default)]
struct NodeState {
    connection: Option<Connection>,
    /// A connection is being opened, or a fetch is in flight.
    busy: bool,
    session: Session,
    /// The version of the session's requests.
    version: i16,
    not_before: Option<Instant>,
}

enum Event {
    Connected(i32, Result<Connection, ClientError>),
    Fetched(i32, Asked, Result<FetchResponse, ClientError>, Arc<str>),
    LookedUp(Found),
    Validated(Validation, Result<Option<Offset>, ClientError>),
    Refreshed(Result<Arc<Cluster>, ClientError>),
}

pub(super) struct Fetcher {
    client: Arc<ClientInner>,
    config: Arc<ConsumerConfig>,
    channel: Arc<Channel>,
    shared: Arc<Shared>,
    nodes: HashMap<i32, NodeState>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    refreshing: bool,
    refresh_after: Option<Instant>,
    refresh_due: Instant,
    /// A leader turned out not to be one: ask, although all leaders are known.
    suspicious: bool,
}

impl Fetcher {
    pub(super) fn new(client: Arc<ClientInner>, config: Arc<ConsumerConfig>, shared: Arc<Shared>) -> Self {
        let max_age = Duration::from_millis(client.config.metadata_max_age_ms);
        Self {
            channel: Arc::new(client.channel()),
            client,
            config,
            shared,
            nodes: HashMap::new(),
            events: FuturesUnordered::new(),
            refreshing: false,
            refresh_after: None,
            refresh_due: Instant::now() + max_age,
            suspicious: false,
        }
    }

    /// Runs until the consumer is closed.
    pub(super) async fn run(mut self) {
        while !self.shared.closed.load(Ordering::Acquire) {
            let wake_at = self.step();
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.handle(event),
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        self.shared.news.notify_waiters();
    }

    fn step(&mut self) -> Instant {
        let now = Instant::now();
        let cluster = self.client.cluster();
        let (stale, lookups, validations, news, retry_at, topics) = {
            let mut state = self.shared.state.lock();
            let stale = state.follow(&cluster, now);
            let lookups = state.lookups(now);
            let validations = state.validations(&cluster, now);
            let mut topics: Vec<TopicName> = state.parts.keys().map(|p| p.topic.clone()).collect();
            topics.dedup();
            (stale, lookups, validations, state.has_news(), state.retry_at(now), topics)
        };
        if news {
            self.shared.news.notify_waiters();
        }
        if !lookups.is_empty() {
            self.look_up(lookups);
        }
        // One by one: a leader that does not answer holds up no other.
        for asked in validations {
            let (client, channel) = (Arc::clone(&self.client), Arc::clone(&self.channel));
            self.events.push(Box::pin(async move {
                let result = validate(&client, &channel, &asked).await;
                Event::Validated(asked, result)
            }));
        }
        if topics.is_empty() && now >= self.refresh_due {
            self.refresh_due = now + Duration::from_millis(self.client.config.metadata_max_age_ms);
        }
        let due = now >= self.refresh_due || self.suspicious || !stale.is_empty();
        if due && !self.refreshing && !topics.is_empty() && self.refresh_after.is_none_or(|at| at <= now) {
            self.refresh(topics);
        }
        self.fetch(now, &cluster);
        let mut wake_at = self.refresh_due.max(now + Duration::from_millis(1));
        let nodes = self.nodes.values().filter_map(|node| node.not_before);
        for at in retry_at.into_iter().chain(nodes).chain(self.refresh_after).filter(|at| *at > now) {
            wake_at = wake_at.min(at);
        }
        wake_at
    }

    fn refresh(&mut self, topics: Vec<TopicName>) {
        self.refreshing = true;
        self.suspicious = false;
        self.refresh_due = Instant::now() + Duration::from_millis(self.client.config.metadata_max_age_ms);
        let client = Arc::clone(&self.client);
        let auto_create = self.config.allow_auto_create_topics;
        self.events
            .push(Box::pin(async move { Event::Refreshed(client.refresh(&topics, auto_create).await) }));
    }

    fn look_up(&mut self, lookups: Lookups) {
        let (committed, listed): (Lookups, Lookups) =
            lookups.into_iter().partition(|(_, _, start)| *start == StartAt::Committed);
        if !committed.is_empty() {
            let shared = Arc::clone(&self.shared);
            self.events
                .push(Box::pin(async move { Event::LookedUp(look_up_committed(&shared, committed).await) }));
        }
        if !listed.is_empty() {
            let client = Arc::clone(&self.client);
            let isolation = self.config.isolation_level;
            self.events
                .push(Box::pin(async move { Event::LookedUp(look_up(&client, listed, isolation).await) }));
        }
    }

    /// Sends a fetch to every idle broker that leads partitions which want one.
    fn fetch(&mut self, now: Instant, cluster: &Cluster) {
        let mut by_node: HashMap<i32, Vec<(Arc<TopicPartition>, u64, Wanted)>> = HashMap::new();
        let (room, starting) = {
            let state = self.shared.state.lock();
            let partition_bytes_max =
                i32::try_from(self.config.partition_fetch_bytes_max).unwrap_or(i32::MAX);
            let mut starting = false;
            for (partition, part) in &state.parts {
                if !part.wants_fetch(now) {
                    starting |= part.looking_up || part.retry_at.is_some();
                    continue;
                }
                let Some(topic) = cluster.topics.get(&partition.topic) else { continue };
                let Some(meta) = topic.partition(partition.partition).filter(|meta| meta.leader >= 0) else {
                    continue;
                };
                let wanted = Wanted {
                    topic_id: topic.id,
                    offset: part.fetch_offset,
                    leader_epoch: meta.leader_epoch,
                    bytes_max: partition_bytes_max,
                };
                let source = part.source(meta.leader, now);
                let source = if cluster.nodes.contains_key(&source) { source } else { meta.leader };
                by_node.entry(source).or_default().push((Arc::clone(&part.key), part.version, wanted));
            }
            (self.config.buffer_bytes.saturating_sub(state.buffered), starting)
        };
        // R10: what is fetched ahead is bounded; the broker returns at least one batch, so there must be room for it.
        if room == 0 {
            return;
        }
        for (node, partitions) in by_node {
            self.fetch_from(node, partitions, room, starting, now);
        }
    }

    fn fetch_from(
        &mut self,
        node: i32,
        partitions: Vec<(Arc<TopicPartition>, u64, Wanted)>,
        room: usize,
        starting: bool,
        now: Instant,
    ) {
        let state = self.nodes.entry(node).or_default();
        if state.busy || state.not_before.is_some_and(|at| at > now) {
            return;
        }
        state.not_before = None;
        let open = state.connection.take().filter(Connection::is_open);
        let Some(connection) = open else {
            state.busy = true;
            state.session.reset();
            let channel = Arc::clone(&self.channel);
            self.events.push(Box::pin(async move { Event::Connected(node, channel.connection(node).await) }));
            return;
        };
        let broker = Arc::clone(connection.broker());
        let version = match connection.version_of(ApiKey::Fetch) {
            Ok(version) => version,
            Err(error) => {
                let asked = asked(&partitions);
                state.connection = Some(connection);
                state.not_before = Some(now + Duration::from_secs(1));
                self.fetch_failed(&asked, &error);
                return;
            }
        };
        let ids = partitions.iter().all(|(_, _, wanted)| !wanted.topic_id.is_zero());
        let version = if ids { version } else { version.min(FETCH_VERSION_NAMES) };
        if state.version != version {
            // KIP-516: a session speaks of names or of ids, not of both.
            state.session.reset();
            state.version = version;
        }
        let wanted: Vec<_> = partitions.iter().map(|(key, _, wanted)| (Arc::clone(key), *wanted)).collect();
        let mut session = state.session.request(&wanted);
        if version < FETCH_VERSION_SESSIONS {
            session.epoch = -1;
        }
        let wait = Duration::from_millis(self.config.fetch_wait_ms_max);
        let wait = if starting { wait.min(WAIT_WHILE_STARTING) } else { wait };
        let request = fetch_request(&self.config, session, room, wait);
        let limit = self.client.request_timeout() + wait;
        let in_flight = connection.begin(&request, version);
        state.busy = true;
        state.connection = Some(connection);
        let asked = asked(&partitions);
        let seconds = self.shared.metrics.seconds.clone();
        self.events.push(Box::pin(async move {
            let result = match in_flight {
                Ok(in_flight) => in_flight.answer(limit).await,
                Err(error) => Err(error),
            };
            seconds.record(now.elapsed());
            Event::Fetched(node, asked, result, broker)
        }));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected(node, result) => {
                let state = self.nodes.entry(node).or_default();
                state.busy = false;
                match result {
                    Ok(connection) => state.connection = Some(connection),
                    Err(error) => {
                        tracing::debug!(%error, "consumer cannot connect");
                        self.suspicious = true;
                        self.shared.state.lock().back_to_leaders(node);
                    }
                }
            }
            Event::Refreshed(result) => {
                self.refreshing = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "consumer cannot refresh metadata");
                    self.suspicious = true;
                }
                self.refresh_after =
                    Some(Instant::now() + Duration::from_millis(self.client.config.retry_backoff_ms));
            }
            Event::LookedUp(found) => {
                let mut state = self.shared.state.lock();
                for (partition, version, result) in found {
                    self.suspicious |= result.as_ref().is_err_and(ClientError::wants_metadata);
                    state.looked_up(&partition, version, result, Instant::now());
                }
            }
            Event::Validated(asked, result) => {
                self.suspicious |= result.as_ref().is_err_and(ClientError::wants_metadata);
                self.shared.state.lock().validated(&asked, result, Instant::now());
            }
            Event::Fetched(node, asked, result, broker) => {
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.busy = false;
                }
                match result {
                    Ok(response) => self.fetched(node, &asked, response, &broker),
                    Err(error) => {
                        if let Some(state) = self.nodes.get_mut(&node) {
                            state.session.reset();
                        }
                        self.shared.state.lock().back_to_leaders(node);
                        self.fetch_failed(&asked, &error);
                    }
                }
            }
        }
    }

    fn fetch_failed(&mut self, asked: &Asked, error: &ClientError) {
        tracing::debug!(%error, "fetch failed");
        self.suspicious |= error.wants_metadata();
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        for (partition, (version, _)) in asked {
            let Some(part) = state.current(partition, *version) else { continue };
            if error.is_retriable() {
                part.retry_later(now);
            } else {
                part.error = Some(error.clone());
            }
        }
    }

    fn fetched(&mut self, node: i32, asked: &Asked, response: FetchResponse, broker: &Arc<str>) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let code = ErrorCode::from_code(response.error_code);
        match code {
            ErrorCode::None => state.session.answered(response.session_id),
            ErrorCode::FetchSessionIdNotFound
            | ErrorCode::InvalidFetchSessionEpoch
            | ErrorCode::FetchSessionTopicIdError => {
                // The broker has dropped the session; the next request begins another.
                state.session.reset();
                return;
            }
            code => {
                state.session.reset();
                let error = broker_error(code, ApiKey::Fetch, broker, "the fetch");
                self.fetch_failed(asked, &error);
                return;
            }
        }
        let by_name: HashMap<(&str, i32), &Arc<TopicPartition>> =
            asked.keys().map(|key| ((key.topic.as_str(), key.partition), key)).collect();
        let by_id: HashMap<(uuid::Uuid, i32), &Arc<TopicPartition>> =
            asked.iter().map(|(key, (_, wanted))| ((wanted.topic_id.get(), key.partition), key)).collect();
        for topic in response.responses {
            for data in topic.partitions {
                let key = if topic.topic_id.is_nil() {
                    by_name.get(&(topic.topic.as_str(), data.partition_index))
                } else {
                    by_id.get(&(topic.topic_id, data.partition_index))
                };
                let Some(key) = key else { continue };
                if let Some((version, wanted)) = asked.get(*key) {
                    self.partition_fetched(key, *version, *wanted, data, broker);
                }
            }
        }
    }

    fn partition_fetched(
        &mut self,
        partition: &Arc<TopicPartition>,
        version: u64,
        wanted: Wanted,
        data: PartitionData,
        broker: &Arc<str>,
    ) {
        let code = ErrorCode::from_code(data.error_code);
        let mut state = self.shared.state.lock();
        if code == ErrorCode::None {
            if data.preferred_read_replica >= 0
                && let Some(part) = state.current(partition, version)
            {
                // As in Kafka: as long as metadata is believed.
                let age = Duration::from_millis(self.client.config.metadata_max_age_ms);
                part.prefer(data.preferred_read_replica, Instant::now() + age);
                return;
            }
            let records = data.records.unwrap_or_default();
            self.shared.metrics.bytes.increment(records.len() as u64);
            let fetched = Fetched::new(
                Arc::clone(partition),
                version,
                wanted.topic_id,
                data.high_watermark,
                &records,
                data.aborted_transactions,
            );
            state.fetched(fetched, wanted.offset);
            return;
        }
        if is_out_of_range(code) {
            state.out_of_range(partition, version, wanted.offset, Instant::now());
            return;
        }
        self.suspicious |= code_wants_metadata(code);
        let Some(part) = state.current(partition, version) else { return };
        let error = broker_error(code, ApiKey::Fetch, broker, &**partition);
        part.back_to_leader(None);
        if error.is_retriable() {
            tracing::debug!(%error, "partition not fetched");
            part.retry_later(Instant::now());
        } else {
            part.error = Some(error);
        }
    }
}

/// Asks a new leader where its log of the old epoch ends.
async fn validate(
    client: &ClientInner,
    channel: &Channel,
    asked: &Validation,
) -> Result<Option<Offset>, ClientError> {
    let connection = channel.connection(asked.leader).await?;
    let limit = client.request_timeout();
    match end_of_epoch(&connection, limit, &asked.partition, asked.leader_epoch, asked.fetch_epoch).await {
        // A cluster that old cannot tell: what it fetches is believed.
        Err(ClientError::UnsupportedApi { .. }) => Ok(None),
        result => result,
    }
}

fn asked(partitions: &[(Arc<TopicPartition>, u64, Wanted)]) -> Asked {
    partitions.iter().map(|(key, version, wanted)| (Arc::clone(key), (*version, *wanted))).collect()
}

fn fetch_request(
    config: &ConsumerConfig,
    session: SessionRequest,
    room: usize,
    wait: Duration,
) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (key, wanted) in session.send {
        let entry = FetchPartition {
            partition: key.partition,
            current_leader_epoch: wanted.leader_epoch,
            fetch_offset: wanted.offset,
            partition_max_bytes: wanted.bytes_max,
            ..Default::default()
        };
        match topics.last_mut().filter(|topic| topic.topic == key.topic.as_str()) {
            Some(topic) => topic.partitions.push(entry),
            None => topics.push(FetchTopic {
                topic: key.topic.as_str().to_owned(),
                topic_id: wanted.topic_id.get(),
                partitions: vec![entry],
            }),
        }
    }
    let forget = |(key, topic_id): (Arc<TopicPartition>, TopicId)| ForgottenTopic {
        topic: key.topic.as_str().to_owned(),
        topic_id: topic_id.get(),
        partitions: vec![key.partition],
    };
    let small = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    FetchRequest {
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: small(config.fetch_bytes_min),
        max_bytes: small(config.fetch_bytes_max.min(room)),
        isolation_level: config.isolation_level.wire(),
        session_id: session.id,
        session_epoch: session.epoch,
        topics,
        forgotten_topics_data: session.forget.into_iter().map(forget).collect(),
        rack_id: config.rack.clone().unwrap_or_default(),
        ..Default::default()
    }
}

/// Finds committed positions at the coordinator.
async fn look_up_committed(shared: &Shared, committed: Lookups) -> Found {
    let partitions: Vec<TopicPartition> = committed.iter().map(|(key, ..)| (**key).clone()).collect();
    let offsets = match &shared.coordinator {
        Some(coordinator) => coordinator.committed(Some(&partitions), true).await,
        None => Err(ClientError::Usage("committed offsets need a group_id")),
    };
    let of = |key: &TopicPartition| match &offsets {
        Ok(offsets) => Ok(offsets.get(key).map(|committed| committed.offset)),
        Err(error) => Err(error.clone()),
    };
    committed.into_iter().map(|(key, version, _)| (Arc::clone(&key), version, of(&key))).collect()
}

/// Finds positions at the leaders. Each partition is asked for once: those that have to be asked for again do not hold
/// up the others.
async fn look_up(client: &ClientInner, listed: Lookups, isolation: IsolationLevel) -> Found {
    let mut found = Found::new();
    let now_ms = now_ms();
    let wanted = |start| match start {
        StartAt::Earliest => -2,
        StartAt::Timestamp(timestamp_ms) => timestamp_ms,
        // Not below 0: negative numbers mean something else.
        StartAt::Ago(age) => now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)).max(0),
        _ => -1,
    };
    let asked: Vec<_> = listed.iter().map(|(key, _, start)| ((**key).clone(), wanted(*start))).collect();
    let mut offsets = client.list_offsets_once(&asked, isolation).await;
    let unmatched: Vec<_> = listed
        .iter()
        .filter(|(key, ..)| offsets.get(&**key).is_some_and(|r| r.as_ref().is_ok_and(|l| l.offset.is_none())))
        .map(|(key, ..)| ((**key).clone(), -1))
        .collect();
    if !unmatched.is_empty() {
        // No record with such a timestamp: at the end.
        offsets.extend(client.list_offsets_once(&unmatched, isolation).await);
    }
    for (key, version, _) in listed {
        let offset = match offsets.remove(&*key) {
            Some(Ok(listed)) => listed.offset.map_or(Err(ClientError::Closed), |offset| Ok(Some(offset))),
            Some(Err(error)) => Err(error),
            None => Err(ClientError::NoLeader { partition: (*key).clone() }),
        };
        found.push((key, version, offset));
    }
    found
}
