//! Connections and metadata, shared by everything made from a client.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use towpath_types::{TopicId, TopicName, TopicPartition};
use towpath_wire::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use towpath_wire::{ApiKey, ErrorCode, Request};

use crate::backoff::Backoff;
use crate::connection::{Connection, Features};
use crate::metadata::{Cluster, Node, TopicMeta};
use crate::metrics::ConnectionMetrics;
use crate::{
    Admin, ClientConfig, ClientError, Consumer, ConsumerConfig, Producer, ProducerConfig, RawClient,
    ShareConsumer, ShareConsumerConfig, TransactionConfig, TransactionalProducer,
};

/// A client of one cluster; cheap to clone. It must be used within a Tokio runtime.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<ClientInner>,
}

/// Requests that may wait long on the broker get connections of their own, so that they hold up nothing else: every
/// producer, consumer and group member has a channel, the rest shares channel 0.
pub(crate) type ChannelId = u64;

/// The first version of Metadata that can be asked by topic id alone.
const METADATA_VERSION_IDS: i16 = 12;

/// The channel of metadata and admin requests.
pub(crate) const SHARED_CHANNEL: ChannelId = 0;

#[derive(Debug)]
pub(crate) struct ClientInner {
    /// Itself, for the tasks that it starts.
    this: Weak<Self>,
    pub(crate) config: ClientConfig,
    client_id: Arc<str>,
    /// Node −1−n is the n-th bootstrap server.
    bootstrap: Vec<Node>,
    cluster: watch::Sender<Arc<Cluster>>,
    /// One metadata request at a time.
    refreshing: tokio::sync::Mutex<()>,
    pool: Mutex<HashMap<(i32, ChannelId), Arc<Slot>>>,
    channels: AtomicU64,
    /// The newest that a broker told.
    features: Mutex<Features>,
    metrics: Arc<ConnectionMetrics>,
}

/// The connection to one broker on one channel.
#[derive(Debug)]
struct Slot {
    current: Mutex<Option<Connection>>,
    opening: tokio::sync::Mutex<Opening>,
}

#[derive(Debug)]
struct Opening {
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// A channel of its own; its connections close when it is dropped.
#[derive(Debug)]
pub(crate) struct Channel {
    client: Arc<ClientInner>,
    id: ChannelId,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.client.pool.lock().retain(|(_, channel), _| *channel != self.id);
    }
}

impl Channel {
    /// The connection to a broker on this channel, opened if need be.
    pub(crate) async fn connection(&self, node: i32) -> Result<Connection, ClientError> {
        self.client.connection(node, self.id).await
    }
}

impl Client {
    /// Connects to a cluster: the first bootstrap server that answers tells the rest.
    ///
    /// # Errors
    /// [`ClientError::Bootstrap`] when none answers, [`ClientError::Usage`] for an address that is not `host:port`.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let bootstrap = config
            .bootstrap_servers
            .iter()
            .map(|address| parse_address(address))
            .collect::<Result<Vec<_>, _>>()?;
        if bootstrap.is_empty() {
            return Err(ClientError::Usage("bootstrap_servers is empty"));
        }
        let inner = Arc::new_cyclic(|this| ClientInner {
            this: this.clone(),
            client_id: Arc::from(config.client_id.as_str()),
            metrics: Arc::new(ConnectionMetrics::new(&config.client_id)),
            config,
            bootstrap,
            cluster: watch::Sender::new(Arc::default()),
            refreshing: tokio::sync::Mutex::new(()),
            pool: Mutex::default(),
            channels: AtomicU64::new(SHARED_CHANNEL + 1),
            features: Mutex::default(),
        });
        inner.refresh(&[], false).await?;
        Ok(Self { inner })
    }

    /// A producer. Must be called within a Tokio runtime: it starts a task that ends with the producer.
    #[must_use]
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        Producer::new(Arc::clone(&self.inner), config)
    }

    /// A producer whose records become visible together or not at all, once it has its transactional id: whoever had it
    /// before is fenced, and what that one left open is aborted.
    ///
    /// # Errors
    /// [`ClientError::Usage`] for a configuration that transactions cannot have; what the coordinator says; and
    /// [`ClientError::Timeout`] when it cannot be reached within `max_block_ms`.
    pub async fn transactional_producer(
        &self,
        config: TransactionConfig,
    ) -> Result<TransactionalProducer, ClientError> {
        TransactionalProducer::start(Arc::clone(&self.inner), config).await
    }

    /// A consumer with nothing assigned. Must be called within a Tokio runtime.
    #[must_use]
    pub fn consumer(&self, config: ConsumerConfig) -> Consumer {
        Consumer::new(Arc::clone(&self.inner), config)
    }

    /// A member of a share group, which subscribes. Must be called within a Tokio runtime.
    #[must_use]
    pub fn share_consumer(&self, config: ShareConsumerConfig) -> ShareConsumer {
        ShareConsumer::new(Arc::clone(&self.inner), config)
    }

    /// Administration: topics, configs, groups, offsets.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner))
    }

    /// Whole record batches in and out.
    #[must_use]
    pub fn raw(&self) -> RawClient {
        RawClient::new(Arc::clone(&self.inner))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// The cluster's id, if it has told one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.inner.cluster().cluster_id.clone()
    }
}

fn parse_address(address: &str) -> Result<Node, ClientError> {
    let problem = ClientError::Usage("a bootstrap server is not `host:port`");
    let (host, port) = address.trim().rsplit_once(':').ok_or(problem.clone())?;
    let port = port.parse().map_err(|_| problem.clone())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(problem);
    }
    Ok(Node { host: host.to_owned(), port, rack: None })
}

impl ClientInner {
    /// The newest snapshot.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster.borrow())
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.config.request_timeout_ms)
    }

    pub(crate) fn retry_backoff(&self) -> Backoff {
        Backoff::new(self.config.retry_backoff_ms, self.config.retry_backoff_ms_max)
    }

    pub(crate) fn channel(self: &Arc<Self>) -> Channel {
        Channel { client: Arc::clone(self), id: self.channels.fetch_add(1, Ordering::Relaxed) }
    }

    fn node(&self, node: i32) -> Option<Node> {
        match usize::try_from(-1 - i64::from(node)) {
            Ok(index) => self.bootstrap.get(index).cloned(),
            Err(_) => self.cluster.borrow().nodes.get(&node).cloned(),
        }
    }

    fn slot(&self, node: i32, channel: ChannelId) -> Arc<Slot> {
        let mut pool = self.pool.lock();
        let slot = pool.entry((node, channel)).or_insert_with(|| {
            let backoff =
                Backoff::new(self.config.reconnect_backoff_ms, self.config.reconnect_backoff_ms_max);
            Arc::new(Slot {
                current: Mutex::default(),
                opening: tokio::sync::Mutex::new(Opening { backoff, not_before: None }),
            })
        });
        Arc::clone(slot)
    }

    /// The connection to a broker, opened if need be, after the backoff of earlier failures.
    pub(crate) async fn connection(&self, node: i32, channel: ChannelId) -> Result<Connection, ClientError> {
        let unknown = || ClientError::Connect {
            broker: Arc::from(format!("broker {node}")),
            source: Arc::new(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the cluster's metadata does not name this broker",
            )),
        };
        let Some(address) = self.node(node) else {
            // Whoever asks again at once would ask without an end: nothing else here waits.
            tokio::time::sleep(Duration::from_millis(self.config.reconnect_backoff_ms)).await;
            return Err(unknown());
        };
        let broker: Arc<str> = Arc::from(format!("{}:{}", address.host, address.port));
        let slot = self.slot(node, channel);
        if let Some(connection) = slot.usable(&broker) {
            return Ok(connection);
        }
        self.detached(|client| async move { client.open_slot(&slot, &address, broker).await }).await
    }

    /// Runs what holds one of the client's locks as a task of its own. A caller may stop polling at any time without
    /// being dropped (a branch of a `select!` that is kept for later): it must not keep the lock from everybody else,
    /// itself among them.
    async fn detached<T, F>(&self, run: impl FnOnce(Arc<Self>) -> F) -> Result<T, ClientError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let this = self.this.upgrade().ok_or(ClientError::Closed)?;
        // It ends with the runtime only.
        tokio::spawn(run(this)).await.unwrap_or(Err(ClientError::Closed))
    }

    async fn open_slot(
        &self,
        slot: &Slot,
        address: &Node,
        broker: Arc<str>,
    ) -> Result<Connection, ClientError> {
        let mut opening = slot.opening.lock().await;
        if let Some(connection) = slot.usable(&broker) {
            return Ok(connection);
        }
        if let Some(not_before) = opening.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        match self.open(address, broker).await.inspect_err(|_| self.metrics.failures.increment(1)) {
            Ok(connection) => {
                opening.backoff.reset();
                opening.not_before = None;
                *slot.current.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let delay = opening.backoff.next();
                opening.not_before = Some(Instant::now() + delay);
                Err(error)
            }
        }
    }

    async fn open(&self, address: &Node, broker: Arc<str>) -> Result<Connection, ClientError> {
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let connect_error = |source| ClientError::Connect { broker: Arc::clone(&broker), source };
        let stream = match timeout(limit, self.config.transport.connect(&address.host, address.port)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(connect_error(Arc::new(source))),
            Err(_) => return Err(connect_error(Arc::new(std::io::ErrorKind::TimedOut.into()))),
        };
        let (client_id, metrics) = (Arc::clone(&self.client_id), Arc::clone(&self.metrics));
        let connection = Connection::open(stream, Arc::clone(&broker), client_id, metrics, limit).await?;
        self.learn_features(connection.features());
        Ok(connection)
    }

    /// The cluster's features, as the broker that knew the newest told.
    pub(crate) fn features(&self) -> Features {
        *self.features.lock()
    }

    pub(crate) fn learn_features(&self, told: Features) {
        let mut known = self.features.lock();
        if told.epoch >= known.epoch {
            *known = told;
        }
    }

    /// A connection to any broker: an open one, else any known broker, else a bootstrap server (KIP-899: when all
    /// known brokers are gone, the bootstrap servers may know the new ones).
    pub(crate) async fn any_connection(&self) -> Result<Connection, ClientError> {
        let mut candidates: Vec<i32> = self.cluster.borrow().nodes.keys().copied().collect();
        candidates.shuffle(&mut rand::rng());
        let mut servers: Vec<i32> = (0..self.bootstrap.len()).map(|index| -1 - index as i32).collect();
        servers.shuffle(&mut rand::rng());
        candidates.extend(servers);
        let open = candidates.iter().find_map(|node| {
            let slot = self.pool.lock().get(&(*node, SHARED_CHANNEL)).cloned()?;
            let connection = slot.current.lock().clone()?;
            (connection.is_open() && self.node(*node).is_some()).then_some(connection)
        });
        if let Some(connection) = open {
            return Ok(connection);
        }
        let mut last = ClientError::Closed;
        for node in candidates {
            match self.connection(node, SHARED_CHANNEL).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        let servers = self.config.bootstrap_servers.join(", ").into_boxed_str();
        Err(ClientError::Bootstrap { servers, source: Box::new(last) })
    }

    /// Sends a request to any broker.
    pub(crate) async fn request_any<R: Request>(
        &self,
        request: &R,
    ) -> Result<(R::Response, Arc<str>), ClientError> {
        let connection = self.any_connection().await?;
        let response = connection.request(request, self.request_timeout()).await?;
        Ok((response, Arc::clone(connection.broker())))
    }

    /// Sends a request to the controller, or what the cluster presents as such.
    pub(crate) async fn request_controller<R: Request>(
        &self,
        request: &R,
        timeout_after: Duration,
    ) -> Result<(R::Response, Arc<str>), ClientError> {
        let controller = self.cluster.borrow().controller;
        let connection = if self.cluster.borrow().nodes.contains_key(&controller) {
            self.connection(controller, SHARED_CHANNEL).await?
        } else {
            self.any_connection().await?
        };
        let response = connection.request(request, timeout_after).await?;
        Ok((response, Arc::clone(connection.broker())))
    }

    /// Asks for metadata without keeping it; `None` asks for all topics.
    pub(crate) async fn fetch_metadata(
        &self,
        topics: Option<&[TopicName]>,
        auto_create: bool,
    ) -> Result<(MetadataResponse, Arc<str>), ClientError> {
        let request = MetadataRequest {
            topics: topics.map(|topics| {
                let named = |name: &TopicName| MetadataRequestTopic {
                    name: Some(name.as_str().to_owned()),
                    ..Default::default()
                };
                topics.iter().map(named).collect()
            }),
            allow_auto_topic_creation: auto_create,
            ..Default::default()
        };
        let (response, broker) = self.request_any(&request).await?;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => Ok((response, broker)),
            ErrorCode::RebootstrapRequired => {
                self.rebootstrap();
                Err(broker_error(ErrorCode::RebootstrapRequired, ApiKey::Metadata, &broker, "the cluster"))
            }
            code => Err(broker_error(code, ApiKey::Metadata, &broker, "the cluster")),
        }
    }

    /// The names of topics; what does not exist (any more) is left out.
    pub(crate) async fn names_of(
        &self,
        ids: &BTreeSet<TopicId>,
    ) -> Result<HashMap<TopicId, TopicName>, ClientError> {
        let connection = self.any_connection().await?;
        let by_id = connection.version_of(ApiKey::Metadata)? >= METADATA_VERSION_IDS;
        let wanted = |id: &TopicId| MetadataRequestTopic { topic_id: id.get(), name: None };
        let request = MetadataRequest {
            topics: by_id.then(|| ids.iter().map(wanted).collect()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let response = connection.request(&request, self.request_timeout()).await?;
        let mut names = HashMap::new();
        for topic in response.topics {
            let id = TopicId::new(topic.topic_id);
            if let (0, Some(name), true) = (topic.error_code, topic.name, ids.contains(&id)) {
                names.insert(id, TopicName::new(&name)?);
            }
        }
        Ok(names)
    }

    /// Forgets all brokers, so that the bootstrap servers are asked.
    fn rebootstrap(&self) {
        self.pool.lock().retain(|(node, _), _| *node < 0);
        self.cluster.send_modify(|cluster| {
            let mut next = Cluster::clone(cluster);
            next.nodes.clear();
            *cluster = Arc::new(next);
        });
    }

    /// Learns the named topics anew, and the brokers.
    pub(crate) async fn refresh(
        &self,
        topics: &[TopicName],
        auto_create: bool,
    ) -> Result<Arc<Cluster>, ClientError> {
        let before = self.cluster.borrow().version;
        let topics = topics.to_vec();
        self.detached(|client| async move { client.refresh_since(before, &topics, auto_create).await }).await
    }

    /// Asks, unless somebody else has asked for the same since `before`.
    async fn refresh_since(
        &self,
        before: u64,
        topics: &[TopicName],
        auto_create: bool,
    ) -> Result<Arc<Cluster>, ClientError> {
        let _one = self.refreshing.lock().await;
        let now = self.cluster();
        let fresh = |name| now.topics.get(name).is_some_and(|topic: &Arc<TopicMeta>| topic.version > before);
        if now.version > before && topics.iter().all(fresh) {
            return Ok(now);
        }
        let (response, _) = self.fetch_metadata(Some(topics), auto_create).await?;
        let next = Arc::new(self.cluster.borrow().merge(response, topics));
        self.cluster.send_replace(Arc::clone(&next));
        Ok(next)
    }

    /// The topic as last learnt.
    pub(crate) fn known_topic(&self, name: &TopicName) -> Option<Arc<TopicMeta>> {
        self.cluster.borrow().topics.get(name).cloned()
    }

    /// The topic, asked for if it is not known, until it is there or the time is up.
    pub(crate) async fn topic(
        &self,
        name: &TopicName,
        auto_create: bool,
        within_ms: u64,
    ) -> Result<Arc<TopicMeta>, ClientError> {
        if let Some(topic) = self.known_topic(name) {
            return Ok(topic);
        }
        let mut retry = self.retrying("finding the topic", within_ms);
        loop {
            let error = match self.refresh(std::slice::from_ref(name), auto_create).await {
                Ok(cluster) => match cluster.topics.get(name) {
                    Some(topic) => return Ok(Arc::clone(topic)),
                    None => ClientError::UnknownTopic { topic: name.clone() },
                },
                Err(error) => error,
            };
            retry.after(error).await?;
        }
    }

    /// The leader of a partition, its epoch, and the topic; an unknown topic is asked for once.
    pub(crate) async fn leader(
        &self,
        partition: &TopicPartition,
    ) -> Result<(i32, i32, Arc<TopicMeta>), ClientError> {
        let topic = self.topic(&partition.topic, false, 0).await?;
        let Some(meta) = topic.partition(partition.partition) else {
            let count = topic.partitions.len();
            return Err(ClientError::UnknownPartition { partition: partition.clone(), count });
        };
        if meta.leader < 0 {
            return Err(ClientError::NoLeader { partition: partition.clone() });
        }
        Ok((meta.leader, meta.leader_epoch, Arc::clone(&topic)))
    }

    /// Remembers where a broker listens that a response named beside the metadata.
    pub(crate) fn learn_node(&self, id: i32, host: &str, port: i32) {
        let Ok(port) = u16::try_from(port) else { return };
        let is_known = |node: &Node| node.host == host && node.port == port;
        if self.cluster.borrow().nodes.get(&id).is_some_and(is_known) {
            return;
        }
        self.cluster.send_modify(|cluster| {
            let mut next = Cluster::clone(cluster);
            let rack = next.nodes.remove(&id).and_then(|node| node.rack);
            next.nodes.insert(id, Node { host: host.to_owned(), port, rack });
            *cluster = Arc::new(next);
        });
    }

    /// The patience of an operation that is repeated after retriable errors.
    pub(crate) fn retrying(&self, what: &'static str, within_ms: u64) -> Retry {
        Retry {
            what,
            within_ms,
            deadline: Instant::now().checked_add(Duration::from_millis(within_ms)),
            backoff: self.retry_backoff(),
        }
    }
}

/// See [`ClientInner::retrying`].
#[derive(Debug)]
pub(crate) struct Retry {
    what: &'static str,
    within_ms: u64,
    deadline: Option<Instant>,
    backoff: Backoff,
}

impl Retry {
    /// Waits before the next attempt after a retriable error; gives back any other, or when the time is up.
    pub(crate) async fn after(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.is_retriable() {
            return Err(error);
        }
        let delay = self.backoff.next();
        if self.deadline.is_some_and(|deadline| Instant::now() + delay >= deadline) {
            return Err(match error {
                ClientError::UnknownTopic { .. } | ClientError::Bootstrap { .. } => error,
                error => {
                    let (what, after_ms) = (self.what, self.within_ms);
                    ClientError::Timeout { what, after_ms, source: Some(Box::new(error)) }
                }
            });
        }
        tracing::debug!(what = self.what, %error, "retrying");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

impl Slot {
    fn usable(&self, broker: &Arc<str>) -> Option<Connection> {
        let current = self.current.lock();
        current.as_ref().filter(|connection| connection.is_open() && connection.broker() == broker).cloned()
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A broker's error code as an error.
pub(crate) fn broker_error(
    code: ErrorCode,
    api: ApiKey,
    broker: &Arc<str>,
    subject: impl std::fmt::Display,
) -> ClientError {
    let subject = subject.to_string().into_boxed_str();
    ClientError::Broker { code, api, broker: Arc::clone(broker), subject, message: None }
}

/// As [`broker_error`], with the broker's own words; `Ok` for no error.
pub(crate) fn check(
    code: i16,
    message: Option<String>,
    api: ApiKey,
    broker: &Arc<str>,
    subject: impl std::fmt::Display,
) -> Result<(), ClientError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::Broker {
            code,
            api,
            broker: Arc::clone(broker),
            subject: subject.to_string().into_boxed_str(),
            message: message.map(String::into_boxed_str),
        }),
    }
}
