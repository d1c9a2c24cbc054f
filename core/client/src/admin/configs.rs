//! Configs of topics, brokers and groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::{GroupId, TopicName};
use towpath_wire::ApiKey;
use towpath_wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use towpath_wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use towpath_wire::messages::list_config_resources::ListConfigResourcesRequest;

use super::{
    Admin, AlterConfig, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym, ConfigType, PerItem,
    left_out,
};
use crate::ClientError;
use crate::client::{SHARED_CHANNEL, check};
use crate::connection::Connection;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

impl ConfigResource {
    fn wire(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (TOPIC, name.as_str().to_owned()),
            Self::Broker(id) => (BROKER, id.map(|id| id.to_string()).unwrap_or_default()),
            Self::Group(group) => (GROUP, group.as_str().to_owned()),
            Self::BrokerLogger(id) => (BROKER_LOGGER, id.to_string()),
            Self::ClientMetrics(name) => (CLIENT_METRICS, name.clone()),
        }
    }

    fn from_wire(kind: i8, name: &str) -> Option<Self> {
        match kind {
            TOPIC => TopicName::new(name).ok().map(Self::Topic),
            BROKER if name.is_empty() => Some(Self::Broker(None)),
            BROKER => name.parse().ok().map(|id| Self::Broker(Some(id))),
            GROUP => GroupId::new(name).ok().map(Self::Group),
            BROKER_LOGGER => name.parse().ok().map(Self::BrokerLogger),
            CLIENT_METRICS => Some(Self::ClientMetrics(name.to_owned())),
            _ => None,
        }
    }

    /// The broker that alone can answer for a resource.
    fn node(&self) -> Option<i32> {
        match self {
            Self::Broker(id) => *id,
            Self::BrokerLogger(id) => Some(*id),
            _ => None,
        }
    }
}

impl std::fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(Some(id)) => write!(f, "broker {id}"),
            Self::Broker(None) => f.write_str("all brokers"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::BrokerLogger(id) => write!(f, "the loggers of broker {id}"),
            Self::ClientMetrics(name) => write!(f, "client metrics {name}"),
        }
    }
}

/// Resources by the broker to ask; `None` for any.
fn by_node<'a, T>(
    items: &'a [T],
    resource: impl Fn(&'a T) -> &'a ConfigResource,
) -> BTreeMap<Option<i32>, Vec<&'a T>> {
    let mut groups: BTreeMap<Option<i32>, Vec<&T>> = BTreeMap::new();
    for item in items {
        groups.entry(resource(item).node()).or_default().push(item);
    }
    groups
}

impl Admin {
    async fn connection_for(&self, node: Option<i32>) -> Result<Connection, ClientError> {
        match node {
            Some(node) => self.client.connection(node, SHARED_CHANNEL).await,
            None => self.client.any_connection().await,
        }
    }

    /// All configs of topics, brokers or groups, by name.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<PerItem<ConfigResource, Vec<ConfigEntry>>, ClientError> {
        let mut results: PerItem<ConfigResource, Vec<ConfigEntry>> = BTreeMap::new();
        for (node, resources) in by_node(resources, |resource| resource) {
            let connection = self.connection_for(node).await?;
            let documented = connection.version_of(ApiKey::DescribeConfigs)? >= 3;
            let wanted = |resource: &&ConfigResource| {
                let (resource_type, resource_name) = resource.wire();
                DescribeConfigsResource { resource_type, resource_name, configuration_keys: None }
            };
            let request = DescribeConfigsRequest {
                resources: resources.iter().map(wanted).collect(),
                include_synonyms: true,
                include_documentation: documented,
            };
            let response = connection.request(&request, self.client.request_timeout()).await?;
            for result in response.results {
                let key = ConfigResource::from_wire(result.resource_type, &result.resource_name);
                if let Some(key) = key {
                    let entries = described(result, &key, connection.broker());
                    results.insert(key, entries);
                }
            }
            for resource in resources {
                let missing = || Err(left_out(ApiKey::DescribeConfigs, connection.broker()));
                results.entry(resource.clone()).or_insert_with(missing);
            }
        }
        Ok(results)
    }

    /// Everything that has dynamic configs of its own: topics and brokers that there are, groups and subscriptions to
    /// clients' metrics that were configured. Clusters before Kafka 4.1 list the latter alone.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn list_config_resources(&self) -> Result<Vec<ConfigResource>, ClientError> {
        // An empty list of types means all that the broker supports.
        let request = ListConfigResourcesRequest::default();
        let (response, broker) = self.client.request_any(&request).await?;
        check(response.error_code, None, ApiKey::ListConfigResources, &broker, "the resources")?;
        let resource = |found: towpath_wire::messages::list_config_resources::ConfigResource| {
            ConfigResource::from_wire(found.resource_type, &found.resource_name)
        };
        let mut resources: Vec<_> = response.config_resources.into_iter().filter_map(resource).collect();
        resources.sort_unstable();
        Ok(resources)
    }

    /// Changes single configs and leaves the others as they are.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn incremental_alter_configs(
        &self,
        changes: &[(ConfigResource, Vec<AlterConfig>)],
        validate_only: bool,
    ) -> Result<PerItem<ConfigResource, ()>, ClientError> {
        let mut results: PerItem<ConfigResource, ()> = BTreeMap::new();
        for (node, changes) in by_node(changes, |change| &change.0) {
            let connection = self.connection_for(node).await?;
            let altered = |change: &&(ConfigResource, Vec<AlterConfig>)| {
                let (resource_type, resource_name) = change.0.wire();
                let configs = change.1.iter().map(alterable).collect();
                AlterConfigsResource { resource_type, resource_name, configs }
            };
            let request = IncrementalAlterConfigsRequest {
                resources: changes.iter().map(altered).collect(),
                validate_only,
            };
            let response = connection.request(&request, self.client.request_timeout()).await?;
            let api = ApiKey::IncrementalAlterConfigs;
            for answer in response.responses {
                let key = ConfigResource::from_wire(answer.resource_type, &answer.resource_name);
                if let Some(key) = key {
                    let broker = connection.broker();
                    let result = check(answer.error_code, answer.error_message, api, broker, &key);
                    results.insert(key, result);
                }
            }
            for (resource, _) in changes {
                let missing = || Err(left_out(api, connection.broker()));
                results.entry(resource.clone()).or_insert_with(missing);
            }
        }
        Ok(results)
    }
}

fn synonym(synonym: DescribeConfigsSynonym) -> ConfigSynonym {
    ConfigSynonym {
        name: synonym.name,
        value: synonym.value,
        source: ConfigSource::from_wire(synonym.source),
    }
}

fn alterable(change: &AlterConfig) -> AlterableConfig {
    let (config_operation, name, value) = match change {
        AlterConfig::Set(name, value) => (0, name, Some(value.clone())),
        AlterConfig::Delete(name) => (1, name, None),
        AlterConfig::Append(name, value) => (2, name, Some(value.clone())),
        AlterConfig::Subtract(name, value) => (3, name, Some(value.clone())),
    };
    AlterableConfig { name: name.clone(), config_operation, value }
}

fn described(
    result: DescribeConfigsResult,
    resource: &ConfigResource,
    broker: &Arc<str>,
) -> Result<Vec<ConfigEntry>, ClientError> {
    check(result.error_code, result.error_message, ApiKey::DescribeConfigs, broker, resource)?;
    let entry = |config: DescribeConfigsResourceResult| ConfigEntry {
        name: config.name,
        value: config.value,
        source: ConfigSource::from_wire(config.config_source),
        read_only: config.read_only,
        sensitive: config.is_sensitive,
        config_type: ConfigType::from_wire(config.config_type),
        synonyms: config.synonyms.into_iter().map(synonym).collect(),
        documentation: config.documentation,
    };
    let mut entries: Vec<_> = result.configs.into_iter().map(entry).collect();
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
