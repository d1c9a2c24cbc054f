//! DescribeConfigs: every configuration of topics, brokers and groups, with where its value comes from.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use towpath_controller::broker_config::{self, BrokerConfigKey, BrokerLayers, ConfigValue, Scope, synonyms};
use towpath_controller::decide::AdminError;
use towpath_controller::topic_config::{ConfigSource, KEYS};
use towpath_controller::{ConfigKey, Configs, MetadataImage, TopicConfigKey, group_config};
use towpath_types::TopicName;
use towpath_wire::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use towpath_wire::{DescribeConfigsRequest, DescribeConfigsResponse, ErrorCode};

use super::RequestContext;
use crate::broker_settings;
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

type Described = Result<Vec<DescribeConfigsResourceResult>, AdminError>;

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
            let name = &resource.resource_name;
            let described = match resource.resource_type {
                TOPIC => describe_topic(&broker, name, show),
                BROKER => describe_broker(&broker, name, show),
                BROKER_LOGGER => check_broker(&broker, name, false).map(|()| Vec::new()),
                GROUP => describe_group(&broker, name, show),
                other => Err(no_such_resource(other)),
            };
            result(resource, described)
        })
        .collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

/// The refusal of resources that have no configurations here.
pub(super) fn no_such_resource(resource_type: i8) -> AdminError {
    let message = match resource_type {
        CLIENT_METRICS => "There are no subscriptions of client metrics (KIP-714): this broker takes no metrics from \
                           clients. Its own are served over HTTP, at /metrics."
            .to_owned(),
        BROKER_LOGGER => "The levels of loggers do not change while the broker runs; set RUST_LOG where it is started."
            .to_owned(),
        other => {
            format!("Unsupported resource type {other}: topics, brokers and groups have configurations here.")
        }
    };
    AdminError::new(ErrorCode::InvalidRequest, message)
}

fn result(resource: DescribeConfigsResource, described: Described) -> DescribeConfigsResult {
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

/// One configuration, from all of its values that are shown, the one in force first.
fn entry(
    key: &ConfigKey,
    value: Option<&str>,
    values: &[ConfigValue<'_>],
    read_only: bool,
    show: Show,
) -> DescribeConfigsResourceResult {
    // R13: a secret is never told, not even as something that another value hides.
    let told = |value: &str| (!key.is_sensitive()).then(|| value.to_owned());
    let source = values.first().map_or(ConfigSource::Default, |value| value.source);
    let shown = values.iter().map(|it| DescribeConfigsSynonym {
        name: it.name.to_owned(),
        value: told(it.value),
        source: it.source as i8,
    });
    DescribeConfigsResourceResult {
        name: key.name.to_owned(),
        value: value.and_then(told),
        read_only,
        config_source: source as i8,
        is_sensitive: key.is_sensitive(),
        synonyms: if show.synonyms { shown.collect() } else { Vec::new() },
        config_type: key.config_type as i8,
        documentation: show.docs.then(|| key.doc.to_owned()),
    }
}

/// The configurations of this broker, by where they are set.
struct Known<'a> {
    own: &'a Configs,
    all: &'a Configs,
    file: Configs,
    topic_defaults: Configs,
}

impl<'a> Known<'a> {
    fn new(broker: &BrokerState, image: &'a MetadataImage) -> Self {
        let dynamic = image.dynamic_configs();
        Self {
            own: dynamic.broker(Some(broker.config.node_id)),
            all: dynamic.broker(None),
            file: broker_settings::in_file(broker, image),
            topic_defaults: broker.topic_defaults(image).into_owned(),
        }
    }

    fn layers(&self) -> BrokerLayers<'_> {
        BrokerLayers { own: self.own, all: self.all, file: &self.file }
    }
}

fn describe_topic(broker: &BrokerState, name: &str, show: Show) -> Described {
    if let Err(error) = TopicName::new(name) {
        return Err(AdminError::new(ErrorCode::InvalidTopicException, error.to_string()));
    }
    let image = broker.image();
    let topic = image.topic(name).ok_or_else(|| {
        AdminError::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
    })?;
    Ok(topic_configs(broker, &image, &topic.configs, show))
}

/// The configurations of a topic that sets these.
fn topic_configs(
    broker: &BrokerState,
    image: &MetadataImage,
    set: &Configs,
    show: Show,
) -> Vec<DescribeConfigsResourceResult> {
    let known = Known::new(broker, image);
    KEYS.iter().map(|key| topic_entry(key, set, &known, show)).collect()
}

/// As the answer to CreateTopics shows the configurations of a new topic.
pub(super) fn of_new_topic(
    broker: &BrokerState,
    image: &MetadataImage,
    set: &Configs,
) -> Vec<DescribeConfigsResourceResult> {
    topic_configs(broker, image, set, Show { synonyms: false, docs: false })
}

fn topic_entry(
    topic: &'static TopicConfigKey,
    set: &Configs,
    known: &Known<'_>,
    show: Show,
) -> DescribeConfigsResourceResult {
    let layers = known.layers();
    let hidden = layers.values(&topic.broker_keys());
    let source = hidden.first().map_or(ConfigSource::Default, |value| value.source);
    // The topic's own value has the topic's name; what it hides has the broker's, if there is one.
    let hidden = topic.broker_name.map_or_else(Vec::new, |name| synonyms(name, hidden));
    let own = set.get(topic.name).map(String::as_str);
    let in_force = own.or_else(|| known.topic_defaults.get(topic.name).map(String::as_str));
    let own = own.map(|value| ConfigValue { name: topic.name, value, source: ConfigSource::Topic });
    let is_own = own.is_some();
    let values: Vec<_> = own.into_iter().chain(hidden).collect();
    let mut entry = entry(&topic.as_key(), in_force.or(Some(topic.default)), &values, false, show);
    if !is_own {
        // Also where it was set in a unit that is not shown.
        entry.config_source = source as i8;
    }
    entry
}

/// Whether a name is this broker's, or (empty) that of the defaults of all brokers.
fn check_broker(broker: &BrokerState, name: &str, may_be_default: bool) -> Result<(), AdminError> {
    let id = broker.config.node_id;
    if name == id.to_string() || (may_be_default && name.is_empty()) {
        return Ok(());
    }
    let or_all = if may_be_default { " or empty string" } else { "" };
    Err(AdminError::new(
        ErrorCode::InvalidRequest,
        format!("Unexpected broker id, expected {id}{or_all}, but received {name}"),
    ))
}

fn describe_broker(broker: &BrokerState, name: &str, show: Show) -> Described {
    check_broker(broker, name, true)?;
    let image = broker.image();
    let known = Known::new(broker, &image);
    if name.is_empty() {
        let set = known.all.keys().filter_map(|name| broker_config::key(name));
        return Ok(set.map(|config| default_entry(&config, &known, show)).collect());
    }
    Ok(broker_config::all().iter().map(|config| broker_entry(config, &known, show)).collect())
}

fn broker_entry(config: &BrokerConfigKey, known: &Known<'_>, show: Show) -> DescribeConfigsResourceResult {
    let key = &config.key;
    // Of several units each shows its own value, and from there on those that it hides.
    let values = synonyms(key.name, known.layers().values(&broker_config::names(config)));
    let value = values.first().map(|value| value.value);
    entry(key, value, &values, config.scope == Scope::ReadOnly, show)
}

/// What was set for all brokers.
fn default_entry(config: &BrokerConfigKey, known: &Known<'_>, show: Show) -> DescribeConfigsResourceResult {
    let mut values = known.layers().values(&[config.key]);
    values.retain(|value| value.source == ConfigSource::DynamicDefault);
    let value = values.first().map(|value| value.value);
    entry(&config.key, value, &values, config.scope == Scope::ReadOnly, show)
}

fn describe_group(broker: &BrokerState, group: &str, show: Show) -> Described {
    if group.is_empty() {
        return Err(AdminError::new(ErrorCode::InvalidRequest, "Group name must not be empty"));
    }
    let image = broker.image();
    let set = image.dynamic_configs().group(group);
    let known = Known::new(broker, &image);
    Ok(group_config::KEYS.iter().map(|config| group_entry(config, set, &known, show)).collect())
}

fn group_entry(
    config: &group_config::GroupConfigKey,
    set: &Configs,
    known: &Known<'_>,
    show: Show,
) -> DescribeConfigsResourceResult {
    let own = set.get(config.key.name).map(String::as_str);
    let own = own.map(|value| ConfigValue { name: config.key.name, value, source: ConfigSource::Group });
    let of_broker = config.broker_name.and_then(broker_config::key);
    let hidden = of_broker.map_or_else(Vec::new, |it| known.layers().values(&broker_config::names(&it)));
    let values: Vec<_> = own.into_iter().chain(hidden).collect();
    let value = values.first().map(|value| value.value).or(config.key.default);
    entry(&config.key, value, &values, false, show)
}
