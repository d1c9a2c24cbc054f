//! The cluster's brokers, what they hold, and the features that they agree on.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::{TopicName, TopicPartition};
use towpath_wire::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use towpath_wire::messages::api_versions::ApiVersionsRequest;
use towpath_wire::messages::describe_cluster::DescribeClusterRequest;
use towpath_wire::messages::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResult};
use towpath_wire::messages::unregister_broker::UnregisterBrokerRequest;
use towpath_wire::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use towpath_wire::{ApiKey, ErrorCode};

use super::{Admin, PerItem, left_out, wants_controller};
use crate::ClientError;
use crate::client::{SHARED_CHANNEL, check};

/// The first version of DescribeCluster that can tell of fenced brokers (KIP-1073).
const CLUSTER_VERSION_FENCED: i16 = 2;
/// The first version of UpdateFeatures with a way of upgrading instead of a flag.
const FEATURES_VERSION_UPGRADE: i16 = 1;

/// [`Admin::describe_cluster`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The controller, or the broker that stands for it.
    pub controller: Option<i32>,
    /// The brokers, by id.
    pub brokers: Vec<BrokerInfo>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub id: i32,
    /// Where it listens.
    pub host: String,
    /// Where it listens.
    pub port: i32,
    /// Its rack.
    pub rack: Option<String>,
    /// Whether it is registered, and not there.
    pub is_fenced: bool,
}

/// One log directory of [`Admin::describe_log_dirs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirDescription {
    /// Its path on the broker.
    pub path: String,
    /// Why it cannot be used, if that is so.
    pub error: Option<ErrorCode>,
    /// Bytes of its volume, if the broker tells.
    pub total_bytes: Option<i64>,
    /// Bytes of its volume that are free, if the broker tells.
    pub usable_bytes: Option<i64>,
    /// What is in it.
    pub replicas: Vec<LogDirReplica>,
}

/// One replica in a [`LogDirDescription`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirReplica {
    /// The partition.
    pub partition: TopicPartition,
    /// Bytes of its log.
    pub size_bytes: i64,
    /// Records that it is behind the high watermark (or behind the current replica, if it is to replace that).
    pub offset_lag: i64,
    /// Whether it is to replace the replica in another directory of the same broker.
    pub is_future: bool,
}

/// How [`Admin::update_features`] may change a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureUpgrade {
    /// To a higher level.
    Upgrade,
    /// To a lower level too, if nothing is lost.
    SafeDowngrade,
    /// To a lower level too, whatever is lost.
    UnsafeDowngrade,
}

/// One change of [`Admin::update_features`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// The feature, e.g. `metadata.version`.
    pub feature: String,
    /// The level; 0 takes the feature away.
    pub level: i16,
    /// In which direction.
    pub upgrade: FeatureUpgrade,
}

/// [`Admin::describe_features`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeaturesDescription {
    /// Grows with every change of a level; `None` if the cluster does not tell.
    pub epoch: Option<i64>,
    /// By name, e.g. `metadata.version`.
    pub features: BTreeMap<String, FeatureDescription>,
}

/// One feature of a [`FeaturesDescription`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureDescription {
    /// The lowest and the highest level that the broker asked supports.
    pub supported: Option<(i16, i16)>,
    /// The level that the cluster has agreed on; `None` for level 0.
    pub finalized: Option<i16>,
}

impl Admin {
    /// The brokers that are there.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        self.describe(false).await
    }

    /// As [`Self::describe_cluster`], with the brokers that are registered and fenced; older clusters do not tell of
    /// these.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_cluster_with_fenced(&self) -> Result<ClusterDescription, ClientError> {
        self.describe(true).await
    }

    async fn describe(&self, include_fenced: bool) -> Result<ClusterDescription, ClientError> {
        let connection = self.client.any_connection().await?;
        let Ok(version) = connection.version_of(ApiKey::DescribeCluster) else {
            return self.describe_cluster_by_metadata().await;
        };
        let request = DescribeClusterRequest {
            include_fenced_brokers: include_fenced && version >= CLUSTER_VERSION_FENCED,
            ..Default::default()
        };
        let response = connection.request(&request, self.client.request_timeout()).await?;
        let message = response.error_message;
        check(response.error_code, message, ApiKey::DescribeCluster, connection.broker(), "the cluster")?;
        let broker = |b: towpath_wire::messages::describe_cluster::DescribeClusterBroker| BrokerInfo {
            id: b.broker_id,
            host: b.host,
            port: b.port,
            rack: b.rack,
            is_fenced: b.is_fenced,
        };
        let mut brokers: Vec<BrokerInfo> = response.brokers.into_iter().map(broker).collect();
        brokers.sort_unstable_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            cluster_id: Some(response.cluster_id),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers,
        })
    }

    async fn describe_cluster_by_metadata(&self) -> Result<ClusterDescription, ClientError> {
        let (response, _) = self.client.fetch_metadata(Some(&[]), false).await?;
        let broker = |b: towpath_wire::messages::metadata::MetadataResponseBroker| BrokerInfo {
            id: b.node_id,
            host: b.host,
            port: b.port,
            rack: b.rack,
            is_fenced: false,
        };
        let mut brokers: Vec<BrokerInfo> = response.brokers.into_iter().map(broker).collect();
        brokers.sort_unstable_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            cluster_id: response.cluster_id,
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers,
        })
    }

    /// The log directories of brokers and every replica in them, by broker.
    ///
    /// # Errors
    /// None of its own at present: every broker has its result.
    pub async fn describe_log_dirs(
        &self,
        brokers: &[i32],
    ) -> Result<PerItem<i32, Vec<LogDirDescription>>, ClientError> {
        let mut results: PerItem<i32, Vec<LogDirDescription>> = BTreeMap::new();
        for broker in brokers {
            results.insert(*broker, self.log_dirs_of(*broker).await);
        }
        Ok(results)
    }

    async fn log_dirs_of(&self, broker: i32) -> Result<Vec<LogDirDescription>, ClientError> {
        let connection = self.client.connection(broker, SHARED_CHANNEL).await?;
        let request = DescribeLogDirsRequest { topics: None };
        let response = connection.request(&request, self.client.request_timeout()).await?;
        let api = ApiKey::DescribeLogDirs;
        check(response.error_code, None, api, connection.broker(), format_args!("broker {broker}"))?;
        response.results.into_iter().map(log_dir).collect()
    }

    /// Moves replicas to other log directories of their brokers (absolute paths); the answer comes when the moves have
    /// begun, and [`Self::describe_log_dirs`] shows how far they are.
    ///
    /// # Errors
    /// None of its own at present: every replica (partition, broker) has its result.
    pub async fn alter_replica_log_dirs(
        &self,
        targets: &BTreeMap<(TopicPartition, i32), String>,
    ) -> Result<PerItem<(TopicPartition, i32), ()>, ClientError> {
        let mut by_broker: BTreeMap<i32, Vec<(&TopicPartition, &String)>> = BTreeMap::new();
        for ((partition, broker), path) in targets {
            by_broker.entry(*broker).or_default().push((partition, path));
        }
        let mut results: PerItem<(TopicPartition, i32), ()> = BTreeMap::new();
        for (broker, moves) in by_broker {
            let answer = self.alter_log_dirs_of(broker, &moves).await;
            for (partition, _) in moves {
                let result = match &answer {
                    Ok((codes, asked)) => match codes.get(partition) {
                        Some(code) => check(*code, None, ApiKey::AlterReplicaLogDirs, asked, partition),
                        None => Err(left_out(ApiKey::AlterReplicaLogDirs, asked)),
                    },
                    Err(error) => Err(error.clone()),
                };
                results.insert((partition.clone(), broker), result);
            }
        }
        Ok(results)
    }

    async fn alter_log_dirs_of(
        &self,
        broker: i32,
        moves: &[(&TopicPartition, &String)],
    ) -> Result<(BTreeMap<TopicPartition, i16>, Arc<str>), ClientError> {
        let mut dirs: BTreeMap<&String, BTreeMap<&str, Vec<i32>>> = BTreeMap::new();
        for (partition, path) in moves {
            let topics = dirs.entry(*path).or_default();
            topics.entry(partition.topic.as_str()).or_default().push(partition.partition);
        }
        let topic = |(name, partitions): (&str, Vec<i32>)| AlterReplicaLogDirTopic {
            name: name.to_owned(),
            partitions,
        };
        let dir = |(path, topics): (&String, BTreeMap<&str, Vec<i32>>)| AlterReplicaLogDir {
            path: path.clone(),
            topics: topics.into_iter().map(topic).collect(),
        };
        let request = AlterReplicaLogDirsRequest { dirs: dirs.into_iter().map(dir).collect() };
        let connection = self.client.connection(broker, SHARED_CHANNEL).await?;
        let response = connection.request(&request, self.client.request_timeout()).await?;
        let mut codes = BTreeMap::new();
        for topic in response.results {
            let name = TopicName::new(&topic.topic_name)?;
            for partition in topic.partitions {
                let at = TopicPartition::new(name.clone(), partition.partition_index);
                codes.insert(at, partition.error_code);
            }
        }
        Ok((codes, Arc::clone(connection.broker())))
    }

    /// The features that the brokers support, and the levels that the cluster has agreed on.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_features(&self) -> Result<FeaturesDescription, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: "towpath".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (response, broker) = self.client.request_any(&request).await?;
        check(response.error_code, None, ApiKey::ApiVersions, &broker, "the features")?;
        let mut features: BTreeMap<String, FeatureDescription> = BTreeMap::new();
        for feature in response.supported_features {
            let described = features.entry(feature.name).or_default();
            described.supported = Some((feature.min_version, feature.max_version));
        }
        for feature in response.finalized_features {
            let level = feature.max_version_level;
            features.entry(feature.name).or_default().finalized = Some(level);
        }
        let epoch = response.finalized_features_epoch;
        Ok(FeaturesDescription { epoch: (epoch >= 0).then_some(epoch), features })
    }

    /// Forgets a broker that is gone for good. It can register again.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or does not know the broker.
    pub async fn unregister_broker(&self, broker: i32) -> Result<(), ClientError> {
        let request = UnregisterBrokerRequest { broker_id: broker };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let api = ApiKey::UnregisterBroker;
        check(response.error_code, response.error_message, api, &asked, format_args!("broker {broker}"))
    }

    /// Changes levels of features, or checks whether they could be changed. All or nothing from Kafka 4.0 on; older
    /// clusters have a result for each.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn update_features(
        &self,
        updates: &[FeatureUpdate],
        validate_only: bool,
    ) -> Result<PerItem<String, ()>, ClientError> {
        let version = self.client.any_connection().await?.version_of(ApiKey::UpdateFeatures)?;
        let request = UpdateFeaturesRequest {
            timeout_ms: self.timeout_ms(),
            feature_updates: updates.iter().map(|update| feature_update(update, version)).collect(),
            validate_only,
        };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let api = ApiKey::UpdateFeatures;
        check(response.error_code, response.error_message, api, &asked, "the features")?;
        let mut results: PerItem<String, ()> =
            updates.iter().map(|update| (update.feature.clone(), Ok(()))).collect();
        for result in response.results {
            let checked = check(result.error_code, result.error_message, api, &asked, &result.feature);
            results.insert(result.feature, checked);
        }
        Ok(results)
    }
}

fn log_dir(dir: DescribeLogDirsResult) -> Result<LogDirDescription, ClientError> {
    let mut replicas = Vec::new();
    for topic in dir.topics {
        let name = TopicName::new(&topic.name)?;
        replicas.extend(topic.partitions.into_iter().map(|partition| LogDirReplica {
            partition: TopicPartition::new(name.clone(), partition.partition_index),
            size_bytes: partition.partition_size,
            offset_lag: partition.offset_lag,
            is_future: partition.is_future_key,
        }));
    }
    replicas.sort_unstable_by(|a, b| a.partition.cmp(&b.partition));
    let known = |bytes: i64| (bytes >= 0).then_some(bytes);
    Ok(LogDirDescription {
        path: dir.log_dir,
        error: ErrorCode::from_code(dir.error_code).into_result().err(),
        total_bytes: known(dir.total_bytes),
        usable_bytes: known(dir.usable_bytes),
        replicas,
    })
}

fn feature_update(update: &FeatureUpdate, version: i16) -> FeatureUpdateKey {
    let by_type = version >= FEATURES_VERSION_UPGRADE;
    let upgrade_type = match update.upgrade {
        FeatureUpgrade::SafeDowngrade if by_type => 2,
        FeatureUpgrade::UnsafeDowngrade if by_type => 3,
        _ => 1,
    };
    FeatureUpdateKey {
        feature: update.feature.clone(),
        max_version_level: update.level,
        allow_downgrade: !by_type && update.upgrade != FeatureUpgrade::Upgrade,
        upgrade_type,
    }
}
