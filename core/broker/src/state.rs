//! What all connections of a broker share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use towpath_controller::decide::{AdminError, NewTopic, TopicDefaults, create_topics};
use towpath_controller::topic_config::TopicCompression;
use towpath_controller::{Controller, ControllerError, Decision, MetadataImage, TopicConfig, TopicImage};
use towpath_coordinator::GroupCoordinator;
use towpath_log::LogConfig;
use towpath_replica::{Leadership, ReplicaManager, Settings};
use towpath_types::{BrokerEpoch, BrokerId, TopicId, TopicPartition};
use towpath_wire::{ApiKey, ErrorCode};

use crate::config::{BrokerConfig, Endpoint};
use crate::connection::ErrorChain;
use crate::fetch_session::FetchSessions;
use crate::memory::MemoryBudget;
use crate::metrics::BrokerMetrics;
use crate::producer_ids::ProducerIds;

/// The name of the topic that holds groups and committed offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// What all connections of a broker share.
#[derive(Debug)]
pub(crate) struct BrokerState {
    pub(crate) config: BrokerConfig,
    pub(crate) cluster_id: String,
    /// What clients are told to connect to.
    pub(crate) advertised: Endpoint,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) controller: Controller,
    pub(crate) replicas: ReplicaManager,
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
    /// Held from a decision to the moment when the partitions are as decided.
    pub(crate) changing: Mutex<()>,
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
            Self::Controller(_) => ErrorCode::KafkaStorageError,
            Self::Stopping => ErrorCode::NotController,
        }
    }
}

impl BrokerState {
    /// The metadata as they are now.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.controller.image()
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Those of a partition's replicas that lie on a log directory that failed (R14).
    pub(crate) fn offline_replicas(&self, replicas: &[BrokerId]) -> Vec<i32> {
        if self.replicas.dir().offline_reason().is_none() {
            return Vec::new();
        }
        replicas.iter().filter(|id| **id == self.config.node_id).map(|id| id.get()).collect()
    }

    /// The defaults of new topics.
    pub(crate) fn topic_defaults(&self) -> TopicDefaults {
        TopicDefaults {
            partitions: self.config.partitions_default,
            replication_factor: self.config.replication_factor_default,
            configs: self.config.topic_defaults.clone(),
        }
    }

    /// Decides on the metadata as they are, commits, and brings the partitions of this broker in line. Other
    /// requests go on meanwhile: the disk is waited for on a thread of its own.
    ///
    /// # Errors
    /// [`ChangeError`] when the decision could not be committed.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&MetadataImage) -> Decision<T> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let state = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _changing = state.changing.lock();
            if state.is_stopping() {
                return Err(ChangeError::Stopping);
            }
            let before = state.image();
            let (answer, after) = state.controller.change(decide)?;
            state.reconcile(&before, &after);
            Ok(answer)
        });
        match task.await {
            Ok(result) => {
                if let Err(error) = &result {
                    tracing::error!(error = %ErrorChain(error), "a change of the metadata failed");
                }
                result
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ChangeError::Stopping),
        }
    }

    /// Brings the partitions of this broker in line with the metadata. What fails shows where it is used
    /// (`KAFKA_STORAGE_ERROR`), and is tried again there.
    pub(crate) fn reconcile(&self, before: &MetadataImage, after: &MetadataImage) {
        for topic in before.topics() {
            if after.topic_by_id(topic.id).is_some() {
                continue;
            }
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
        }
        for topic in after.topics() {
            let known = before.topic_by_id(topic.id);
            if !known.is_some_and(|known| Arc::ptr_eq(known, topic))
                && let Err(error) = self.set_topic(topic)
            {
                tracing::error!(topic = %topic.name, error = %ErrorChain(&error), "a topic's files cannot be made");
            }
        }
    }

    /// Brings one topic's partitions in line.
    pub(crate) fn set_topic(&self, topic: &TopicImage) -> Result<(), towpath_replica::PartitionError> {
        let settings = self.settings(topic);
        let leaderships = topic
            .partitions
            .iter()
            .map(|partition| Leadership {
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                replicas: partition.replicas.clone(),
                isr: partition.isr.clone(),
            })
            .collect();
        // The fifty partitions of the offsets topic get files when a group first needs them.
        self.replicas.set_topic(&topic.name, topic.id, leaderships, &settings, !topic.is_internal())
    }

    fn settings(&self, topic: &TopicImage) -> Settings {
        match TopicConfig::resolve(&topic.configs, &self.config.topic_defaults) {
            Ok(config) => settings(&config),
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
        let topic = if name == OFFSETS_TOPIC { self.offsets_topic() } else { default_topic(name) };
        let defaults = self.topic_defaults();
        let decide = move |image: &MetadataImage| create_topics(image, &[topic], &defaults, TopicId::random);
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
        let mut configs: BTreeMap<String, String> =
            [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        configs.extend(self.config.offsets_topic_configs.clone());
        NewTopic {
            name: OFFSETS_TOPIC.to_owned(),
            partitions: self.config.offsets_partitions,
            replication_factor: -1,
            configs: configs.into_iter().map(|(name, value)| (name, Some(value))).collect(),
            ..NewTopic::default()
        }
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
