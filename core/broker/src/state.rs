//! What all connections of a broker share.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use towpath_controller::decide::{AdminError, ClusterPolicy, NewTopic, create_topics};
use towpath_controller::topic_config::TopicCompression;
use towpath_controller::{
    Configs, Controller, ControllerError, Decision, MetadataImage, PartitionImage, TopicConfig, TopicImage,
};
use towpath_coordinator::share::ShareCoordinator;
use towpath_coordinator::transaction::TransactionCoordinator;
use towpath_coordinator::{GroupCoordinator, Topics};
use towpath_log::LogConfig;
use towpath_replica::{BrokerView, Brokers, Leadership, ReplicaManager, Settings};
use towpath_types::{BrokerEpoch, BrokerId, Offset, TopicId, TopicPartition};
use towpath_wire::{ApiKey, ErrorCode};

use crate::cluster::ClusterNode;
use crate::config::{BrokerConfig, Endpoint};
use crate::connection::ErrorChain;
use crate::coordinator_log::VerifiedOffsets;
use crate::fetch_session::FetchSessions;
use crate::group_topics::GroupTopics;
use crate::live_settings::LiveSettings;
use crate::memory::MemoryBudget;
use crate::metrics::BrokerMetrics;
use crate::producer_ids::ProducerIds;
use crate::share::Shares;
use crate::throttle::{Throttles, TopicThrottles};

/// The name of the topic that holds groups and committed offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The name of the topic that holds how far share groups are.
pub(crate) const SHARE_STATE_TOPIC: &str = "__share_group_state";
/// The name of the topic that holds transactional ids and what becomes of their transactions.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// How long this node may take to go by what it has decided.
const APPLY_MAX: Duration = Duration::from_secs(5);

/// What all connections of a broker share.
#[derive(Debug)]
pub(crate) struct BrokerState {
    pub(crate) config: BrokerConfig,
    pub(crate) cluster_id: String,
    /// What clients are told to connect to.
    pub(crate) advertised: Endpoint,
    pub(crate) metadata: Metadata,
    /// The metadata that this node's partitions go by, and that clients are told.
    pub(crate) published: watch::Sender<Arc<MetadataImage>>,
    pub(crate) replicas: ReplicaManager,
    /// Settings that change while the broker runs.
    pub(crate) live: RwLock<Arc<LiveSettings>>,
    /// Bounds on what replication takes.
    pub(crate) throttles: Arc<Throttles>,
    pub(crate) sessions: FetchSessions,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) metrics: BrokerMetrics,
    /// The APIs that there are, in the order of their keys.
    pub(crate) apis: Vec<ApiKey>,
    /// Places for work that holds much memory and takes a thread for long.
    pub(crate) heavy_work: Arc<tokio::sync::Semaphore>,
    pub(crate) stopping: AtomicBool,
    /// It stops in good order: what was begun is answered.
    pub(crate) answering: AtomicBool,
    /// Set once, right after the state is made: the coordinator holds the state in turn.
    pub(crate) groups: OnceLock<GroupCoordinator>,
    /// As `groups`.
    pub(crate) transactions: OnceLock<TransactionCoordinator>,
    /// As `groups`.
    pub(crate) share_states: OnceLock<ShareCoordinator>,
    /// What members of share groups have of the partitions that this broker leads.
    pub(crate) shares: Shares,
    pub(crate) verified_offsets: VerifiedOffsets,
    /// Topics whose files could not be made: a follower's are asked for by nobody, so this is tried again.
    pub(crate) unmade: Mutex<HashSet<TopicId>>,
    /// A replica has moved from one directory to another: whoever holds its partition takes the new one.
    pub(crate) replica_moved: tokio::sync::Notify,
    /// Held from a decision to the moment when the partitions are as decided.
    pub(crate) changing: Mutex<()>,
}

/// Where metadata are decided and committed.
#[derive(Debug)]
pub(crate) enum Metadata {
    /// Here: this node is alone.
    Local { controller: Controller, broker_epoch: BrokerEpoch },
    /// By the cluster's active controller.
    Cluster(Arc<ClusterNode>),
}

impl Metadata {
    /// The cluster, where there is one.
    pub(crate) const fn cluster(&self) -> Option<&Arc<ClusterNode>> {
        match self {
            Self::Local { .. } => None,
            Self::Cluster(node) => Some(node),
        }
    }

    /// The offset after the newest record that is committed as far as is known here.
    pub(crate) fn newest_offset(&self) -> Offset {
        match self {
            Self::Local { controller, .. } => controller.image().next_offset(),
            Self::Cluster(node) => node.image().next_offset(),
        }
    }

    /// This broker's incarnation.
    pub(crate) fn broker_epoch(&self) -> BrokerEpoch {
        match self {
            Self::Local { broker_epoch, .. } => *broker_epoch,
            Self::Cluster(node) => node.broker_epoch(),
        }
    }
}

/// Why a change of the metadata did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error("the broker is shutting down")]
    Stopping,
}

impl ChangeError {
    /// What clients are told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Controller(ControllerError::Image(_)) => ErrorCode::UnknownServerError,
            Self::Controller(ControllerError::NotController { .. }) => ErrorCode::NotController,
            Self::Controller(_) => ErrorCode::KafkaStorageError,
            Self::Stopping => ErrorCode::NotController,
        }
    }
}

impl BrokerState {
    /// The metadata that this node goes by.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.published.borrow())
    }

    /// The cluster, where there is one.
    pub(crate) const fn cluster(&self) -> Option<&Arc<ClusterNode>> {
        self.metadata.cluster()
    }

    /// The controller as clients are told it; -1 while none is known.
    pub(crate) fn controller_id(&self) -> i32 {
        match self.cluster() {
            None => self.config.node_id.get(),
            Some(node) => node.controller_id().map_or(-1, BrokerId::get),
        }
    }

    /// Settings that change while the broker runs, as they are now.
    pub(crate) fn live(&self) -> Arc<LiveSettings> {
        Arc::clone(&self.live.read())
    }

    /// The defaults of topic configurations as they are on this broker.
    pub(crate) fn topic_defaults<'a>(&'a self, image: &MetadataImage) -> std::borrow::Cow<'a, Configs> {
        image.topic_defaults(self.config.node_id, &self.config.topic_defaults)
    }

    /// Resolves when this node goes by the metadata before `offset`.
    pub(crate) async fn published_from(&self, offset: i64) {
        let mut published = self.published.subscribe();
        // An error says that the broker ends.
        drop(published.wait_for(|image| image.next_offset().get() >= offset).await);
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Those of a partition's replicas that nobody can use: of brokers that are gone, or on a directory that failed (R14).
    pub(crate) fn offline_replicas(
        &self,
        image: &MetadataImage,
        topic: TopicId,
        (index, partition): (i32, &PartitionImage),
    ) -> Vec<i32> {
        let dirs = self.replicas.dirs();
        let has_failed = || {
            dirs.has_offline()
                && (dirs.offline_reason().is_some()
                    || self.replicas.topic_by_id(topic).is_some_and(|topic| topic.is_offline(index)))
        };
        let is_offline = |id: &BrokerId| {
            image.broker(*id).is_none_or(|broker| broker.fenced)
                || partition.offline.contains(id)
                || (*id == self.config.node_id && has_failed())
        };
        partition.replicas.iter().filter(|id| is_offline(id)).map(|id| id.get()).collect()
    }

    /// What decisions go by.
    pub(crate) fn policy(&self) -> ClusterPolicy {
        match self.cluster() {
            None => self.config.policy(),
            Some(node) => node.controller().policy().clone(),
        }
    }

    /// Decides on the metadata as they are, commits, and brings the partitions of this broker in line. Other
    /// requests go on meanwhile: the disk is waited for on a thread of its own. In a cluster this is for the active
    /// controller.
    ///
    /// # Errors
    /// [`ChangeError`] when the decision could not be committed.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnMut(&MetadataImage) -> Decision<T> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let result = match self.cluster() {
            None => self.change_here(decide).await,
            Some(node) => self.change_in_cluster(Arc::clone(node), decide).await,
        };
        if let Err(error) = &result {
            tracing::error!(error = %ErrorChain(error), "a change of the metadata failed");
        }
        result
    }

    async fn change_in_cluster<T: Send + 'static>(
        &self,
        node: Arc<ClusterNode>,
        decide: impl FnMut(&MetadataImage) -> Decision<T> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let (answer, image) = node.quorum().change(decide).await?;
        // What this node then says of the metadata has the change in it.
        node.wait_for_metadata(self, image.next_offset().get(), APPLY_MAX).await;
        Ok(answer)
    }

    async fn change_here<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnMut(&MetadataImage) -> Decision<T> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let state = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _changing = state.changing.lock();
            if state.is_stopping() {
                return Err(ChangeError::Stopping);
            }
            let Metadata::Local { controller, .. } = &state.metadata else {
                return Err(ChangeError::Stopping);
            };
            let (answer, after) = controller.change(decide)?;
            state.publish(after, |_| {});
            Ok(answer)
        });
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ChangeError::Stopping),
        }
    }

    /// Goes by another image from here on: first the partitions, then what clients are told. The caller holds
    /// `changing`.
    pub(crate) fn publish(&self, after: Arc<MetadataImage>, follow: impl FnOnce(&ReplicaManager)) {
        let before = self.image();
        if after.brokers().ne(before.brokers()) {
            self.replicas.set_brokers(brokers(&after));
        }
        let forgets_otherwise = self.follow_settings(&after);
        self.reconcile(&before, &after, forgets_otherwise);
        if self.is_replaced(&after) {
            self.replicas.partitions().iter().for_each(towpath_replica::Partition::resign);
        }
        follow(&self.replicas);
        let is_news_to_groups = GroupTopics::differ(&before, &after);
        self.published.send_replace(after);
        if is_news_to_groups {
            self.tell_groups_of_topics();
        }
        self.follow_coordinated();
    }

    /// Brings the partitions of this broker in line with the metadata. What fails shows where it is used
    /// (`KAFKA_STORAGE_ERROR`), and is tried again there.
    pub(crate) fn reconcile(&self, before: &MetadataImage, after: &MetadataImage, has_other_settings: bool) {
        for topic in before.topics() {
            if after.topic_by_id(topic.id).is_some() {
                continue;
            }
            self.throttles.set_topic(topic.id, TopicThrottles::default());
            if let Err(error) = self.replicas.remove_topic(topic.id) {
                tracing::error!(topic = %topic.name, error = %ErrorChain(&error), "the files of a deleted topic remain");
            }
            if let Some(groups) = self.groups.get() {
                let partitions: Vec<_> = (0..)
                    .zip(&topic.partitions)
                    .map(|(partition, _)| TopicPartition::new(topic.name.clone(), partition))
                    .collect();
                groups.partitions_deleted(&partitions);
                if topic.name.as_str() == OFFSETS_TOPIC {
                    partitions.iter().for_each(|gone| groups.resigned(gone.partition));
                }
            }
            if let Some(shares) = self.share_states.get() {
                shares.topics_deleted(&[topic.id]);
                if topic.name.as_str() == SHARE_STATE_TOPIC {
                    (0..).zip(&topic.partitions).for_each(|(gone, _)| shares.resigned(gone));
                }
            }
            if let Some(transactions) = self.transactions.get()
                && topic.name.as_str() == TRANSACTIONS_TOPIC
            {
                (0..).zip(&topic.partitions).for_each(|(gone, _)| transactions.resigned(gone));
            }
        }
        let has_other_defaults =
            has_other_settings || self.topic_defaults(before) != self.topic_defaults(after);
        for topic in after.topics() {
            let known = before.topic_by_id(topic.id);
            // By address where it is the same one, by content where the image comes from a snapshot.
            let is_known = known.is_some_and(|known| Arc::ptr_eq(known, topic) || known == topic);
            if is_known && !has_other_defaults && !self.unmade.lock().contains(&topic.id) {
                continue;
            }
            match self.set_topic(after, topic) {
                Ok(()) => {
                    self.unmade.lock().remove(&topic.id);
                }
                Err(error) => {
                    tracing::error!(topic = %topic.name, error = %ErrorChain(&error), "a topic's files cannot be made");
                    self.unmade.lock().insert(topic.id);
                }
            }
        }
    }

    /// Puts in force what was set while the broker runs, but for the defaults of topics. Tells whether that changes what partitions go by.
    pub(crate) fn follow_settings(&self, image: &MetadataImage) -> bool {
        let dynamic = image.dynamic_configs();
        let (own, all) = (dynamic.broker(Some(self.config.node_id)), dynamic.broker(None));
        let (before, live) = (self.live(), LiveSettings::new(&self.config, own, all));
        let changes_partitions = before.producer_expiration_ms != live.producer_expiration_ms;
        if *before != live {
            live.set_rates(&self.throttles);
            *self.live.write() = Arc::new(live);
        }
        changes_partitions
    }

    /// Brings one topic's partitions in line.
    pub(crate) fn set_topic(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
    ) -> Result<(), towpath_replica::PartitionError> {
        let settings = self.settings(image, topic);
        let me = self.config.node_id;
        let leaderships = topic
            .partitions
            .iter()
            .map(|partition| partition.replicas.contains(&me).then(|| leadership(partition)))
            .collect();
        // The fifty partitions of the offsets topic get files when a group first needs them; in a cluster their
        // followers have to be there before. With several directories, what has no files is missing.
        let has_one_dir = self.config.further_dirs.is_empty();
        let eager = self.cluster().is_some() || !topic.is_internal() || !has_one_dir;
        self.replicas.set_topic(&topic.name, topic.id, leaderships, &settings, eager)
    }

    /// Whether the metadata have another incarnation of this broker, or none: what they say of it is not about this one.
    fn is_replaced(&self, image: &MetadataImage) -> bool {
        let own = self.metadata.broker_epoch();
        let known = image.broker(self.config.node_id);
        self.cluster().is_some() && own.get() >= 0 && known.is_none_or(|known| known.epoch > own)
    }

    /// The groups and transactional ids of the partitions that this broker leads are served here, and no others.
    fn follow_coordinated(&self) {
        if self.cluster().is_none() {
            return;
        }
        if let Some(groups) = self.groups.get() {
            self.each_partition(OFFSETS_TOPIC, |index, leads| {
                if leads { groups.elected(index) } else { groups.resigned(index) }
            });
        }
        if let Some(shares) = self.share_states.get() {
            self.each_partition(SHARE_STATE_TOPIC, |index, leads| {
                if leads { shares.elected(index) } else { shares.resigned(index) }
            });
        }
        if let Some(transactions) = self.transactions.get() {
            self.each_partition(TRANSACTIONS_TOPIC, |index, leads| {
                if leads { transactions.elected(index) } else { transactions.resigned(index) }
            });
        }
    }

    /// The groups go by the topics that there are now.
    pub(crate) fn tell_groups_of_topics(&self) {
        if let Some(groups) = self.groups.get() {
            let topics: Arc<dyn Topics> = Arc::new(GroupTopics::new(self.image()));
            groups.topics_changed(&topics);
        }
    }

    /// Tells of each partition of a topic whether this broker leads it.
    fn each_partition(&self, topic: &str, mut tell: impl FnMut(i32, bool)) {
        let Some(topic) = self.replicas.topic(topic) else { return };
        for index in 0..i32::try_from(topic.partition_count()).unwrap_or(i32::MAX) {
            tell(index, topic.leads(index));
        }
    }

    fn settings(&self, image: &MetadataImage, topic: &TopicImage) -> Settings {
        match TopicConfig::resolve(&topic.configs, &self.topic_defaults(image)) {
            Ok(config) => {
                let (leader, follower) = (config.leader_throttled.clone(), config.follower_throttled.clone());
                self.throttles.set_topic(topic.id, TopicThrottles { leader, follower });
                let mut settings = settings(&config);
                settings.log.producer_expiration_ms = self.live().producer_expiration_ms;
                settings
            }
            Err(problem) => {
                // Values are checked before they are stored, so only a newer version's can be at fault here.
                tracing::error!(topic = %topic.name, %problem, "the topic's configuration is not valid; defaults are in force");
                TopicConfig::resolve(&BTreeMap::new(), &BTreeMap::new()).map_or_else(
                    |_| Settings {
                        log: LogConfig::default(),
                        min_insync_replicas: 1,
                        flush_messages: i64::MAX,
                        flush_ms: i64::MAX,
                    },
                    |config| settings(&config),
                )
            }
        }
    }

    /// Creates a topic that a client named, with the defaults; an internal one with its own settings.
    ///
    /// # Errors
    /// [`AdminError`] with the protocol's code.
    pub(crate) async fn auto_create(self: &Arc<Self>, name: &str) -> Result<(), AdminError> {
        let topic = match name {
            OFFSETS_TOPIC => self.offsets_topic(),
            TRANSACTIONS_TOPIC => self.transactions_topic(),
            SHARE_STATE_TOPIC => self.share_state_topic(),
            _ => default_topic(name),
        };
        if let Some(node) = self.cluster().filter(|node| !node.is_active_controller()) {
            return node.create_topic(self, &topic).await;
        }
        let defaults = self.config.topic_defaults();
        let decide = move |image: &MetadataImage| {
            create_topics(image, std::slice::from_ref(&topic), &defaults, TopicId::random)
        };
        match self.change(decide).await {
            Ok(mut answers) => match answers.pop() {
                Some(Ok(_)) | None => Ok(()),
                // Someone else was faster.
                Some(Err(error)) if error.code == ErrorCode::TopicAlreadyExists => Ok(()),
                Some(Err(error)) => Err(error),
            },
            Err(error) => Err(AdminError::new(error.code(), ErrorChain(&error).to_string())),
        }
    }

    fn offsets_topic(&self) -> NewTopic {
        let always =
            [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")];
        let (partitions, configs) = (self.config.offsets_partitions, &self.config.offsets_topic_configs);
        coordinated_topic(OFFSETS_TOPIC, partitions, &always, configs)
    }

    /// The newest snapshot and the newest update of each share partition are all that counts: it is compacted, unlike
    /// Kafka's, which is cut off.
    fn share_state_topic(&self) -> NewTopic {
        let always = [
            ("cleanup.policy", "compact"),
            ("compression.type", "uncompressed"),
            ("segment.bytes", "104857600"),
            ("unclean.leader.election.enable", "false"),
        ];
        let (partitions, configs) =
            (self.config.share_state_partitions, &self.config.share_state_topic_configs);
        coordinated_topic(SHARE_STATE_TOPIC, partitions, &always, configs)
    }

    /// As Kafka sets it up: who forgets a decision could decide otherwise.
    fn transactions_topic(&self) -> NewTopic {
        let always = [
            ("cleanup.policy", "compact"),
            ("compression.type", "uncompressed"),
            ("segment.bytes", "104857600"),
            ("unclean.leader.election.enable", "false"),
        ];
        let (partitions, configs) =
            (self.config.transactions_partitions, &self.config.transactions_topic_configs);
        coordinated_topic(TRANSACTIONS_TOPIC, partitions, &always, configs)
    }
}

/// The brokers as replicas see them.
fn brokers(image: &MetadataImage) -> Brokers {
    Brokers::new(image.brokers().map(|broker| {
        let is_eligible = !broker.fenced && !broker.in_controlled_shutdown;
        (broker.id, BrokerView { epoch: broker.epoch, is_eligible })
    }))
}

/// A partition's state as its replicas see it.
fn leadership(partition: &PartitionImage) -> Leadership {
    Leadership {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        recovering: partition.recovering,
        adding: partition.adding_replicas.clone(),
    }
}

/// A coordinator's topic, with what it always has and what was asked for besides.
fn coordinated_topic(
    name: &str,
    partitions: i32,
    always: &[(&str, &str)],
    configs: &BTreeMap<String, String>,
) -> NewTopic {
    let mut all: BTreeMap<String, String> =
        always.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.extend(configs.clone());
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: -1,
        configs: all.into_iter().map(|(name, value)| (name, Some(value))).collect(),
        ..NewTopic::default()
    }
}

fn default_topic(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: -1, replication_factor: -1, ..NewTopic::default() }
}

/// A topic's configuration as its replicas want it.
fn settings(config: &TopicConfig) -> Settings {
    let unsigned = |value: i64| u64::try_from(value).ok();
    Settings {
        log: LogConfig {
            segment_bytes: unsigned(config.segment_bytes.into()).unwrap_or(u64::MAX),
            segment_ms: config.segment_ms,
            segment_jitter_ms: config.segment_jitter_ms,
            segment_index_bytes: unsigned(config.segment_index_bytes.into()).unwrap_or(u64::MAX),
            index_interval_bytes: unsigned(config.index_interval_bytes.into()).unwrap_or(0),
            retention_ms: (config.retention_ms >= 0).then_some(config.retention_ms),
            retention_bytes: unsigned(config.retention_bytes),
            delete: config.cleanup_policy.delete,
            compact: config.cleanup_policy.compact,
            delete_retention_ms: config.delete_retention_ms,
            compaction_lag_ms_min: config.min_compaction_lag_ms,
            compaction_lag_ms_max: config.max_compaction_lag_ms,
            dirty_ratio_min: config.min_cleanable_dirty_ratio,
            message_bytes_max: usize::try_from(config.max_message_bytes).unwrap_or(0),
            timestamp_type: config.timestamp_type,
            timestamp_before_max_ms: config.timestamp_before_max_ms,
            timestamp_after_max_ms: config.timestamp_after_max_ms,
            compression: match config.compression {
                TopicCompression::Producer => None,
                TopicCompression::Codec(codec) => Some(codec),
            },
            ..LogConfig::default()
        },
        min_insync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(1),
        flush_messages: config.flush_messages,
        flush_ms: config.flush_ms,
    }
}
