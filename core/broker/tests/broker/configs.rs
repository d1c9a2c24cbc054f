//! Configurations that change while the broker runs: of the broker itself, of all brokers, of groups.

use towpath_wire::alter_configs::{self, AlterConfigsRequest};
use towpath_wire::describe_configs::{DescribeConfigsResource, DescribeConfigsResourceResult};
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::{
    DescribeConfigsRequest, ErrorCode, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};

use crate::support::{Client, TestBroker, batch, code};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

async fn alter(
    client: &mut Client,
    (resource_type, name): (i8, &str),
    changes: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> (ErrorCode, String) {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: (*name).to_owned(),
        config_operation: *operation,
        value: value.map(str::to_owned),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configs: changes.iter().map(change).collect(),
        }],
        validate_only,
    };
    let response = client.call(1, &request).await.responses.remove(0);
    (code(response.error_code), response.error_message.unwrap_or_default())
}

pub(crate) async fn set(client: &mut Client, resource: (i8, &str), name: &str, value: &str) {
    let (error, message) = alter(client, resource, &[(name, SET, Some(value))], false).await;
    assert_eq!(error, ErrorCode::None, "{message}");
}

async fn describe(
    client: &mut Client,
    (resource_type, name): (i8, &str),
) -> Vec<DescribeConfigsResourceResult> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configuration_keys: None,
        }],
        include_synonyms: true,
        include_documentation: false,
    };
    let result = client.call(4, &request).await.results.remove(0);
    assert_eq!(code(result.error_code), ErrorCode::None, "{:?}", result.error_message);
    result.configs
}

/// Value, source and synonyms (name, value, source) of a configuration.
type Told = (Option<String>, i8, Vec<(String, String, i8)>);

async fn told(client: &mut Client, resource: (i8, &str), name: &str) -> Told {
    let configs = describe(client, resource).await;
    let config = configs.into_iter().find(|config| config.name == name).expect("it is there");
    let synonyms = config.synonyms.into_iter().map(|it| (it.name, it.value.unwrap_or_default(), it.source));
    (config.value, config.config_source, synonyms.collect())
}

fn synonym(name: &str, value: &str, source: i8) -> (String, String, i8) {
    (name.to_owned(), value.to_owned(), source)
}

#[tokio::test]
async fn topics_follow_the_defaults_that_change_while_the_broker_runs() {
    let broker = TestBroker::start_with(|config| config.set("message.max.bytes", "900000").unwrap()).await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    client.create_topic("own", 1, &[("max.message.bytes", "800000")]).await;
    let large = batch(&[&"x".repeat(2000)]);
    set(&mut client, (BROKER, ""), "message.max.bytes", "1000").await;
    assert_eq!(code(client.produce("t", 0, large.clone()).await.error_code), ErrorCode::MessageTooLarge);
    assert_eq!(client.produce("own", 0, large.clone()).await.error_code, 0, "it says so itself");
    set(&mut client, (BROKER, "1"), "message.max.bytes", "700000").await;
    assert_eq!(client.produce("t", 0, large.clone()).await.error_code, 0, "this broker's own goes before");
    let name = "message.max.bytes";
    assert_eq!(
        told(&mut client, (TOPIC, "t"), "max.message.bytes").await,
        (
            Some("700000".to_owned()),
            2,
            vec![
                synonym(name, "700000", 2),
                synonym(name, "1000", 3),
                synonym(name, "900000", 4),
                synonym(name, "1048588", 5)
            ]
        )
    );
    assert_eq!(told(&mut client, (TOPIC, "own"), "max.message.bytes").await.1, 1);
    assert_eq!(told(&mut client, (BROKER, "1"), name).await.2.len(), 4);
    assert_eq!(
        told(&mut client, (BROKER, ""), name).await,
        (Some("1000".to_owned()), 3, vec![synonym(name, "1000", 3)])
    );
    assert_eq!(describe(&mut client, (BROKER, "")).await.len(), 1, "only what is set for all");
    // A restart keeps it; whoever takes it back has what was before.
    broker.broker.shutdown().await.unwrap();
    let TestBroker { broker, dir } = broker;
    drop(broker);
    let broker = TestBroker::start_in(dir, |_| {}).await;
    let mut client = broker.client();
    for resource in [(BROKER, "1"), (BROKER, "")] {
        assert_eq!(alter(&mut client, resource, &[(name, DELETE, None)], false).await.0, ErrorCode::None);
        let is_refused = code(client.produce("t", 0, large.clone()).await.error_code) != ErrorCode::None;
        assert_eq!(is_refused, resource.1 == "1");
    }
}

#[tokio::test]
async fn kafkas_units_and_defaults_are_shown_as_kafka_shows_them() {
    let broker = TestBroker::start_with(|config| config.set("log.roll.hours", "24").unwrap()).await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let value = |text: &str| Some(text.to_owned());
    assert_eq!(told(&mut client, (TOPIC, "t"), "retention.ms").await, (value("604800000"), 5, vec![]));
    assert_eq!(told(&mut client, (TOPIC, "t"), "segment.ms").await, (value("86400000"), 4, vec![]));
    assert_eq!(told(&mut client, (BROKER, "1"), "log.retention.ms").await, (None, 5, vec![]));
    assert_eq!(
        told(&mut client, (BROKER, "1"), "log.retention.hours").await,
        (value("168"), 5, vec![synonym("log.retention.hours", "168", 5)])
    );
    assert_eq!(told(&mut client, (BROKER, "1"), "log.roll.hours").await.1, 4);
    set(&mut client, (BROKER, ""), "log.roll.ms", "5000").await;
    assert_eq!(
        told(&mut client, (TOPIC, "t"), "segment.ms").await,
        (
            value("5000"),
            3,
            vec![
                synonym("log.roll.ms", "5000", 3),
                synonym("log.roll.hours", "24", 4),
                synonym("log.roll.hours", "168", 5)
            ]
        )
    );
}

#[tokio::test]
async fn what_cannot_be_set_is_refused_and_changes_nothing() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    for (resource, changes, expected, words) in [
        ((BROKER, ""), vec![("background.threads", SET, Some("3"))], ErrorCode::InvalidRequest, "no pools"),
        ((BROKER, "1"), vec![("num.partitions", SET, Some("3"))], ErrorCode::InvalidRequest, "dynamically"),
        ((BROKER, "x"), vec![("log.roll.ms", SET, Some("3"))], ErrorCode::InvalidRequest, "integer"),
        ((BROKER, "2"), vec![("log.roll.ms", SET, Some("3"))], ErrorCode::InvalidRequest, "broker 2"),
        (
            (BROKER, "1"),
            vec![("min.insync.replicas", SET, Some("1"))],
            ErrorCode::InvalidConfig,
            "all brokers",
        ),
        ((BROKER, ""), vec![("log.roll.ms", APPEND, Some("3"))], ErrorCode::InvalidConfig, "LIST"),
        (
            (BROKER, ""),
            vec![("log.roll.ms", SET, Some("3")), ("log.roll.ms", DELETE, None)],
            ErrorCode::InvalidRequest,
            "duplicate",
        ),
        ((CLIENT_METRICS, "m"), vec![("interval.ms", SET, Some("3"))], ErrorCode::InvalidRequest, "metrics"),
        ((8, "1"), vec![("root", SET, Some("INFO"))], ErrorCode::InvalidRequest, "RUST_LOG"),
        ((GROUP, "g"), vec![("retention.ms", SET, Some("3"))], ErrorCode::InvalidConfig, "group config"),
    ] {
        let (error, message) = alter(&mut client, resource, &changes, false).await;
        assert_eq!(error, expected, "{changes:?}: {message}");
        assert!(message.contains(words), "{message}");
    }
    let (error, _) = alter(&mut client, (BROKER, ""), &[("log.roll.ms", SET, Some("3"))], true).await;
    assert_eq!(error, ErrorCode::None);
    assert!(describe(&mut client, (BROKER, "")).await.is_empty(), "validated only");
}

#[tokio::test]
async fn legacy_requests_set_the_whole() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let mut replace = async |configs: &[(&str, &str)]| {
        let config = |(name, value): &(&str, &str)| alter_configs::AlterableConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        };
        let request = AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: BROKER,
                resource_name: String::new(),
                configs: configs.iter().map(config).collect(),
            }],
            validate_only: false,
        };
        let response = client.call(2, &request).await;
        assert_eq!(code(response.responses[0].error_code), ErrorCode::None);
        let configs = describe(&mut client, (BROKER, "")).await;
        configs.into_iter().map(|config| config.name).collect::<Vec<_>>()
    };
    assert_eq!(replace(&[("log.roll.ms", "5"), ("log.segment.bytes", "1048576")]).await.len(), 2);
    assert_eq!(replace(&[("log.roll.ms", "5")]).await, ["log.roll.ms"]);
    assert!(replace(&[]).await.is_empty());
}

#[tokio::test]
async fn groups_have_configurations() {
    let broker = TestBroker::start_with(|config| {
        config.set("group.consumer.min.session.timeout.ms", "10000").unwrap();
    })
    .await;
    let mut client = broker.client();
    let name = "consumer.session.timeout.ms";
    set(&mut client, (GROUP, "g"), name, "10000").await;
    let told = told(&mut client, (GROUP, "g"), name).await;
    let hidden = synonym("group.consumer.session.timeout.ms", "45000", 5);
    assert_eq!(told, (Some("10000".to_owned()), 8, vec![synonym(name, "10000", 8), hidden]));
    let (error, _) = alter(&mut client, (GROUP, "g"), &[(name, SET, Some("9999"))], false).await;
    assert_eq!(error, ErrorCode::InvalidConfig);
    let listed = client.call(1, &ListConfigResourcesRequest { resource_types: vec![GROUP] }).await;
    let groups: Vec<_> = listed.config_resources.iter().map(|it| it.resource_name.as_str()).collect();
    assert_eq!(groups, ["g"]);
    let all = client.call(1, &ListConfigResourcesRequest { resource_types: vec![] }).await;
    assert!(all.config_resources.iter().any(|it| it.resource_type == GROUP && it.resource_name == "g"));
}
