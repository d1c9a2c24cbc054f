//! The broker's own settings under Kafka's names, as they stand in its file: what DescribeConfigs shows below what was set
//! while it runs. Names, types and defaults are declared in [`towpath_controller::broker_config`].

use towpath_controller::broker_config::{self, SHARED};
use towpath_controller::{Configs, MetadataImage, topic_config};
use towpath_coordinator::ASSIGNORS;

use crate::cluster::NODES;
use crate::config::BrokerConfig;
use crate::state::BrokerState;

/// The settings that stand in the file, or that differ from the default.
pub(crate) fn in_file(broker: &BrokerState, image: &MetadataImage) -> Configs {
    let config = &broker.config;
    let mut file = Configs::new();
    for declared in broker_config::all() {
        let name = declared.key.name;
        let Some(value) = value(broker, name) else { continue };
        if declared.key.default != Some(value.as_str()) || config.settings.contains_key(name) {
            file.insert(name.to_owned(), value);
        }
    }
    for topic in topic_config::KEYS {
        let Some(name) = topic.broker_name else { continue };
        let units =
            || topic.units.iter().filter_map(|unit| Some((unit.name, config.settings.get(unit.name)?)));
        file.extend(units().map(|(name, value)| (name.to_owned(), value.clone())));
        // What only another unit says is not said twice.
        let is_own = config.settings.contains_key(name) || units().next().is_none();
        if let Some(value) = config.topic_defaults.get(topic.name).filter(|_| is_own) {
            file.insert(name.to_owned(), value.clone());
        }
    }
    // All nodes go by what the active controller's file says of these.
    for topic in SHARED.into_iter().filter_map(topic_config::key) {
        match image.cluster_configs().get(topic.name) {
            Some(value) if value != topic.default || file.contains_key(topic.name) => {
                file.insert(topic.name.to_owned(), value.clone());
            }
            _ => {}
        }
    }
    file
}

/// The settings of groups that stand in the file.
pub(crate) fn of_groups(config: &BrokerConfig) -> Configs {
    let named = config.settings.iter().filter(|(name, _)| name.starts_with("group."));
    named.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The value that a setting has by the file; none where it has none, or is a default of topics.
fn value(broker: &BrokerState, name: &str) -> Option<String> {
    own(broker, name)
        .or_else(|| storage(&broker.config, name))
        .or_else(|| limit(&broker.config, name))
        .or_else(|| group(&broker.config, name))
        .or_else(|| transaction(broker, name))
}

/// What the broker is, what topics get that do not say, and how brokers treat each other.
fn own(broker: &BrokerState, name: &str) -> Option<String> {
    let config = &broker.config;
    let replication = &config.replication;
    let said = match name {
        "advertised.listeners" => {
            format!("PLAINTEXT://{}:{}", broker.advertised.host, broker.advertised.port)
        }
        "auto.create.topics.enable" => config.auto_create_topics.to_string(),
        "auto.leader.rebalance.enable" => replication.auto_leader_rebalance.to_string(),
        "broker.heartbeat.interval.ms" => replication.heartbeat_interval.as_millis().to_string(),
        "broker.id" | "node.id" => config.node_id.to_string(),
        "broker.rack" => config.rack.clone()?,
        "broker.session.timeout.ms" => replication.session_timeout.as_millis().to_string(),
        "controlled.shutdown.enable" | "delete.topic.enable" => "true".to_owned(),
        "controller.listener.names" => config.cluster.as_ref().map_or("", |_| NODES).to_owned(),
        "controller.quorum.election.timeout.ms" => replication.election_timeout.as_millis().to_string(),
        "controller.quorum.voters" => voters(config),
        "default.replication.factor"
        | "offsets.topic.replication.factor"
        | "transaction.state.log.replication.factor" => config.replication_factor_default.to_string(),
        "leader.imbalance.check.interval.seconds" => {
            replication.leader_imbalance_check_interval.as_secs().to_string()
        }
        "listener.security.protocol.map" => {
            let nodes = config.cluster.as_ref().map(|_| format!("{NODES}:PLAINTEXT,"));
            nodes.unwrap_or_default() + "PLAINTEXT:PLAINTEXT"
        }
        "listeners" => config.listen.map_or_else(String::new, |address| format!("PLAINTEXT://{address}")),
        "num.partitions" => config.partitions_default.to_string(),
        "num.replica.fetchers" => replication.fetchers.to_string(),
        "process.roles" => roles(config),
        "replica.lag.time.max.ms" => replication.replica_lag_max.as_millis().to_string(),
        "replica.selector.class" if replication.rack_aware_reads => {
            let named = config.settings.get(name);
            named
                .map_or("org.apache.kafka.common.replica.RackAwareReplicaSelector", String::as_str)
                .to_owned()
        }
        _ => return None,
    };
    Some(said)
}

fn voters(config: &BrokerConfig) -> String {
    let controllers = config.cluster.iter().flat_map(|cluster| &cluster.controllers);
    let voters = controllers.map(|(id, endpoint)| format!("{id}@{}:{}", endpoint.host, endpoint.port));
    voters.collect::<Vec<_>>().join(",")
}

fn roles(config: &BrokerConfig) -> String {
    let roles = config.cluster.as_ref().map(|cluster| cluster.roles).unwrap_or_default();
    let named = [("broker", roles.broker), ("controller", roles.controller)];
    named.iter().filter(|(_, is_so)| *is_so).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// Where it stores, and how often it looks after that.
fn storage(config: &BrokerConfig, name: &str) -> Option<String> {
    let said = match name {
        "log.cleaner.backoff.ms" => config.compaction_check_interval.as_millis().to_string(),
        "log.cleaner.dedupe.buffer.size" => config.dedupe_buffer_bytes.to_string(),
        "log.cleaner.enable" => "true".to_owned(),
        "log.dirs" => {
            let dirs = config.all_dirs().map(|dir| dir.display().to_string());
            dirs.collect::<Vec<_>>().join(",")
        }
        "log.flush.offset.checkpoint.interval.ms"
        | "log.flush.start.offset.checkpoint.interval.ms"
        | "replica.high.watermark.checkpoint.interval.ms" => {
            config.checkpoint_interval.as_millis().to_string()
        }
        "log.retention.check.interval.ms" => config.retention_check_interval.as_millis().to_string(),
        "metadata.log.dir" => config.data_dir.display().to_string(),
        "producer.id.expiration.ms" => config.producer_expiration_ms.to_string(),
        _ => return None,
    };
    Some(said)
}

/// What clients can make it hold (R10).
fn limit(config: &BrokerConfig, name: &str) -> Option<String> {
    let limits = &config.limits;
    let said = match name {
        "connections.max.idle.ms" => limits.connection_idle_max.as_millis().to_string(),
        "fetch.max.bytes" => limits.fetch_bytes_max.to_string(),
        "max.connections" => limits.connections_max.to_string(),
        "max.incremental.fetch.session.cache.slots" => limits.fetch_sessions_max.to_string(),
        "queued.max.request.bytes" => limits.request_memory_bytes.to_string(),
        "socket.request.max.bytes" => limits.request_bytes_max.to_string(),
        _ => return None,
    };
    Some(said)
}

fn group(config: &BrokerConfig, name: &str) -> Option<String> {
    let groups = &config.groups;
    let said = match name {
        "group.consumer.assignment.interval.ms" => groups.consumer_assignment_interval_ms.to_string(),
        "group.consumer.assignors" => ASSIGNORS.join(","),
        "group.initial.rebalance.delay.ms" => groups.initial_rebalance_delay_ms.to_string(),
        "group.max.session.timeout.ms" => groups.session_timeout_ms_max.to_string(),
        "group.consumer.max.size" | "group.max.size" => groups.members_max.to_string(),
        "group.min.session.timeout.ms" => groups.session_timeout_ms_min.to_string(),
        "offset.metadata.max.bytes" => groups.offset_metadata_max.to_string(),
        "offsets.retention.check.interval.ms" => groups.offsets_retention_check_interval_ms.to_string(),
        "offsets.retention.minutes" => (groups.offsets_retention_ms / 60_000).to_string(),
        "offsets.topic.num.partitions" => config.offsets_partitions.to_string(),
        "offsets.topic.segment.bytes" => config.offsets_topic_configs.get("segment.bytes")?.clone(),
        _ if ["group.consumer.", "group.share.", "share.coordinator."]
            .iter()
            .any(|it| name.starts_with(it)) =>
        {
            config.settings.get(name)?.clone()
        }
        _ => return None,
    };
    Some(said)
}

/// The transaction coordinator and its topic.
fn transaction(broker: &BrokerState, name: &str) -> Option<String> {
    transaction_limit(&broker.config, name).or_else(|| {
        let topic = &broker.config.transactions_topic_configs;
        match name {
            "transaction.state.log.min.isr" => {
                let of_all = || broker.topic_defaults(&broker.image()).get("min.insync.replicas").cloned();
                topic.get("min.insync.replicas").cloned().or_else(of_all)
            }
            "transaction.state.log.segment.bytes" => topic.get("segment.bytes").cloned(),
            _ => None,
        }
    })
}

fn transaction_limit(config: &BrokerConfig, name: &str) -> Option<String> {
    let transactions = &config.transactions;
    let said = match name {
        "transaction.abort.timed.out.transaction.cleanup.interval.ms" => {
            transactions.abort_interval_ms.to_string()
        }
        "transaction.max.timeout.ms" => transactions.timeout_ms_max.to_string(),
        "transaction.remove.expired.transaction.cleanup.interval.ms" => {
            transactions.expiration_interval_ms.to_string()
        }
        "transaction.state.log.num.partitions" => config.transactions_partitions.to_string(),
        "transactional.id.expiration.ms" => transactions.id_expiration_ms.to_string(),
        _ => return None,
    };
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background;
    use crate::cluster::fetching;
    use crate::handlers::PARTITIONS_TOLD_MAX;

    /// What is declared, since it can be read, and stands in the code.
    fn always(name: &str) -> Option<String> {
        let said = match name {
            "log.flush.scheduler.interval.ms" => background::TICK.as_millis().to_string(),
            "max.request.partition.size.limit" => PARTITIONS_TOLD_MAX.to_string(),
            "replica.fetch.backoff.ms" => fetching::BACKOFF.as_millis().to_string(),
            "replica.fetch.max.bytes" => fetching::PARTITION_BYTES.to_string(),
            "replica.fetch.min.bytes" => fetching::MIN_BYTES.to_string(),
            "replica.fetch.response.max.bytes" => fetching::RESPONSE_BYTES.to_string(),
            "replica.fetch.wait.max.ms" => fetching::WAIT_MS.to_string(),
            _ => return None,
        };
        Some(said)
    }

    /// What the configuration is without anything in the file, and what is declared as the default, are the same.
    #[test]
    fn the_declared_defaults_are_those_in_force() {
        let config = BrokerConfig::new("d");
        let told = |name: &str| {
            storage(&config, name)
                .or_else(|| limit(&config, name))
                .or_else(|| group(&config, name))
                .or_else(|| transaction_limit(&config, name))
                .or_else(|| always(name))
        };
        let is_path = |name: &str| matches!(name, "log.dirs" | "metadata.log.dir");
        let mut found = 0;
        for declared in broker_config::all() {
            let Some(value) = told(declared.key.name).filter(|_| !is_path(declared.key.name)) else {
                continue;
            };
            assert_eq!(declared.key.default, Some(value.as_str()), "{}", declared.key.name);
            found += 1;
        }
        assert!(found >= 37, "{found}");
        assert_eq!(roles(&config), "broker,controller");
    }
}
