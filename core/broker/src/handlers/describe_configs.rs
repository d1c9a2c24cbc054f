//! DescribeConfigs: every configuration of topics and brokers, with where its value comes from.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use towpath_controller::decide::AdminError;
use towpath_controller::topic_config::{ConfigSource, KEYS};
use towpath_types::TopicName;
use towpath_wire::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use towpath_wire::{DescribeConfigsRequest, DescribeConfigsResponse, ErrorCode};

use super::RequestContext;
use crate::broker_settings::{self, BrokerSetting};
use crate::state::BrokerState;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// What the request wants to see of each configuration.
#[derive(Clone, Copy)]
struct Show {
    synonyms: bool,
    docs: bool,
}

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let show = Show { synonyms: request.include_synonyms, docs: request.include_documentation };
    // R10: once each; the answer to the same resource a thousand times would be a thousand times as large.
    let mut seen = HashSet::new();
    let results = request
        .resources
        .into_iter()
        .filter(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())))
        .map(|resource| {
            let described = match resource.resource_type {
                TOPIC => describe_topic(&broker, &resource.resource_name, show),
                BROKER => describe_broker(&broker, &resource.resource_name, show),
                BROKER_LOGGER => check_broker(&broker, &resource.resource_name, false).map(|()| Vec::new()),
                other => Err(AdminError::new(
                    ErrorCode::InvalidRequest,
                    format!("Unsupported resource type {other}: topics and brokers have configurations here."),
                )),
            };
            result(resource, described)
        })
        .collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn result(
    resource: DescribeConfigsResource,
    described: Result<Vec<DescribeConfigsResourceResult>, AdminError>,
) -> DescribeConfigsResult {
    let mut result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        ..DescribeConfigsResult::default()
    };
    match described {
        Ok(mut configs) => {
            if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
                let keys: BTreeSet<String> = keys.into_iter().collect();
                configs.retain(|config| keys.contains(&config.name));
            }
            result.configs = configs;
        }
        Err(error) => {
            result.error_code = error.code.code();
            result.error_message = Some(error.message);
        }
    }
    result
}

fn describe_topic(
    broker: &BrokerState,
    name: &str,
    show: Show,
) -> Result<Vec<DescribeConfigsResourceResult>, AdminError> {
    if let Err(error) = TopicName::new(name) {
        return Err(AdminError::new(ErrorCode::InvalidTopicException, error.to_string()));
    }
    let image = broker.image();
    let topic = image.topic(name).ok_or_else(|| {
        AdminError::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
    })?;
    let defaults = image.topic_defaults(&broker.config.topic_defaults);
    Ok(KEYS.iter().map(|key| describe_key(key, &topic.configs, &defaults, show)).collect())
}

fn describe_key(
    key: &'static towpath_controller::TopicConfigKey,
    topic: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
    show: Show,
) -> DescribeConfigsResourceResult {
    let values = key.values(topic, broker);
    let (value, source) = values.first().copied().unwrap_or((key.default, ConfigSource::Default));
    let synonyms = values
        .iter()
        // The topic's own value has the topic's name; what it hides has the broker's, if there is one.
        .filter_map(|(value, source)| {
            let name = if *source == ConfigSource::Topic { Some(key.name) } else { key.broker_name };
            Some(DescribeConfigsSynonym {
                name: name?.to_owned(),
                value: Some((*value).to_owned()),
                source: *source as i8,
            })
        })
        .collect();
    DescribeConfigsResourceResult {
        name: key.name.to_owned(),
        value: Some(value.to_owned()),
        read_only: false,
        config_source: source as i8,
        is_sensitive: false,
        synonyms: if show.synonyms { synonyms } else { Vec::new() },
        config_type: key.config_type as i8,
        documentation: show.docs.then(|| key.doc.to_owned()),
    }
}

/// Whether a name is this broker's, or (empty) that of the defaults of all brokers.
fn check_broker(broker: &BrokerState, name: &str, may_be_default: bool) -> Result<(), AdminError> {
    let id = broker.config.node_id;
    if name == id.to_string() || (may_be_default && name.is_empty()) {
        return Ok(());
    }
    Err(AdminError::new(
        ErrorCode::InvalidRequest,
        format!("Unexpected broker id, expected {id}, but received {name}"),
    ))
}

fn describe_broker(
    broker: &BrokerState,
    name: &str,
    show: Show,
) -> Result<Vec<DescribeConfigsResourceResult>, AdminError> {
    check_broker(broker, name, true)?;
    if name.is_empty() {
        // The dynamic defaults of all brokers: there are none.
        return Ok(Vec::new());
    }
    Ok(broker_settings::all(broker).into_iter().map(|setting| describe_setting(setting, show)).collect())
}

fn describe_setting(setting: BrokerSetting, show: Show) -> DescribeConfigsResourceResult {
    let source = if setting.is_set { ConfigSource::Broker } else { ConfigSource::Default };
    let synonym = DescribeConfigsSynonym {
        name: setting.name.to_owned(),
        value: Some(setting.value.clone()),
        source: source as i8,
    };
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: Some(setting.value),
        read_only: true,
        config_source: source as i8,
        is_sensitive: false,
        synonyms: if show.synonyms { vec![synonym] } else { Vec::new() },
        config_type: setting.config_type as i8,
        documentation: show.docs.then(|| setting.doc.to_owned()),
    }
}
