//! Configurations of brokers that change while they run (KIP-226).

use towpath_types::BrokerId;

use super::super::cluster_defaults::other_min_isr;
use super::super::{AdminError, ClusterPolicy};
use super::topic::NOBODY;
use super::{Current, bad_request, differences, invalid, records, refused};
use crate::broker_config::{self, BrokerConfigKey, Scope};
use crate::{Configs, MetadataImage, MetadataRecord, TopicConfig};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Those that have to fit together.
const LAGS: [&str; 2] = ["log.cleaner.max.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"];

/// The configuration of this name, if it can be changed for this broker, or for all.
fn changeable(name: &str, broker: Option<BrokerId>) -> Result<BrokerConfigKey, AdminError> {
    if let Some(why) = broker_config::not_here(name) {
        return Err(bad_request(format!("Cannot update these configs dynamically: {name}: {why}.")));
    }
    let config =
        broker_config::key(name).ok_or_else(|| bad_request(format!("Unknown broker config name: {name}")))?;
    match (config.scope, broker) {
        (Scope::Any, _) | (Scope::AllBrokers, None) => Ok(config),
        (Scope::ReadOnly, _) => Err(bad_request(format!(
            "Cannot update these configs dynamically: {name}: it is set in the broker's file and takes effect at a start."
        ))),
        (Scope::AllBrokers, Some(_)) => Err(invalid(format!(
            "Broker-level {name} cannot be altered: all brokers must go by the same. Set it as the default of all brokers, \
             or on a topic."
        ))),
    }
}

pub(super) fn current<'a>(
    image: &'a MetadataImage,
    broker: Option<BrokerId>,
    policy: &'a ClusterPolicy,
) -> Result<Current<'a>, AdminError> {
    if let Some(id) = broker.filter(|id| image.broker(*id).is_none()) {
        return Err(bad_request(format!("Unexpected broker id: no broker {id} is registered.")));
    }
    let dynamic = image.dynamic_configs();
    let unset = move |name: &str| {
        let config = changeable(name, broker)?;
        let all = broker.and_then(|_| dynamic.broker(None).get(name));
        let file = broker_config::topic_key(name).and_then(|topic| policy.defaults.configs.get(topic.name));
        let in_force = all.or(file).map(String::as_str).or(config.key.default);
        Ok((config.key, in_force.unwrap_or_default().to_owned()))
    };
    Ok(Current { configs: dynamic.broker(broker), unset: Box::new(unset) })
}

pub(super) fn finish(
    image: &MetadataImage,
    broker: Option<BrokerId>,
    new: &Configs,
    policy: &ClusterPolicy,
) -> Result<Vec<MetadataRecord>, AdminError> {
    let old = image.dynamic_configs().broker(broker);
    let changes = differences(old, new);
    for (name, value) in &changes {
        if let Some(value) = value {
            let config = changeable(name, broker)?;
            // KAFKA-13609: Kafka answers so, and clients know it.
            config.key.check(value).map_err(|problem| bad_request(problem.to_string()))?;
        }
    }
    let record = move |name, value| MetadataRecord::BrokerConfig { broker_id: broker, name, value };
    let mut made: Vec<MetadataRecord> = records(&changes, record).collect();
    let changes_any = |of: &[&str]| changes.iter().any(|(name, _)| of.contains(&name.as_str()));
    if changes_any(&LAGS) {
        check_topics(image, broker, &made, policy)?;
    }
    if broker.is_none() && changes_any(&[MIN_INSYNC_REPLICAS]) {
        let cluster = image.cluster_configs();
        let after = |name: &str| new.get(name).or_else(|| cluster.get(name)).map(String::as_str);
        made.extend(other_min_isr(image, policy, true, after));
    }
    Ok(made)
}

/// Every topic's configurations have to fit together with the new defaults on every broker that they are for.
fn check_topics(
    image: &MetadataImage,
    broker: Option<BrokerId>,
    records: &[MetadataRecord],
    policy: &ClusterPolicy,
) -> Result<(), AdminError> {
    let mut next = image.clone();
    for record in records {
        next.apply(next.next_offset(), record).map_err(|error| bad_request(error.to_string()))?;
    }
    let brokers: Vec<BrokerId> = match broker {
        Some(id) => vec![id],
        None => [NOBODY].into_iter().chain(image.brokers().map(|known| known.id)).collect(),
    };
    let nothing = Configs::new();
    for id in brokers {
        let defaults = next.topic_defaults(id, &policy.defaults.configs);
        let topics = image.topics().map(|topic| &topic.configs).chain([&nothing]);
        for configs in topics {
            TopicConfig::resolve(configs, &defaults).map_err(|problem| refused(&problem))?;
        }
    }
    Ok(())
}
