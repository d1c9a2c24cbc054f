//! Configurations, and where partitions are stored.

use towpath_wire::alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::alter_replica_log_dirs::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use towpath_wire::describe_configs::DescribeConfigsResource;
use towpath_wire::describe_log_dirs::DescribableLogDirTopic;
use towpath_wire::incremental_alter_configs as incremental;
use towpath_wire::{
    AlterConfigsRequest, AlterReplicaLogDirsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};

use super::{batch, make, produce};
use crate::talk::{Talk, versions};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

pub(super) async fn run(talk: &mut Talk<'_>) {
    let id = make(talk, "configured", 2, &[("max.message.bytes", "100000")]).await;
    talk.ask(9, &produce(9, ("configured", id), 0, Some(batch(None, &["stored"])))).await;
    for version in versions::<DescribeConfigsRequest>() {
        describe(talk, version).await;
    }
    for version in versions::<AlterConfigsRequest>() {
        alter(talk, version).await;
    }
    for version in versions::<IncrementalAlterConfigsRequest>() {
        alter_some(talk, version).await;
        alter_some_refused(talk, version).await;
    }
    resources(talk).await;
    log_dirs(talk).await;
    move_replicas(talk).await;
}

fn describing(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: keys.map(|keys| keys.iter().map(|it| (*it).to_owned()).collect()),
        }],
        ..Default::default()
    }
}

async fn describe(talk: &mut Talk<'_>, version: i16) {
    let keys: &[&str] = &["max.message.bytes", "cleanup.policy", "no.such.config"];
    let mut request = describing(TOPIC, "configured", Some(keys));
    talk.call(version, "some of a topic", &request).await;
    request.include_synonyms = true;
    talk.call(version, "with synonyms", &request).await;
    if version >= 3 {
        request.include_documentation = true;
        talk.call(version, "with documentation", &request).await;
    }
    if version == 1 || version == 4 {
        talk.call(version, "all of a topic", &describing(TOPIC, "configured", None)).await;
    }
    talk.call(version, "none of a topic", &describing(TOPIC, "configured", Some(&[]))).await;
    talk.call(version, "unknown topic", &describing(TOPIC, "nowhere", None)).await;
    talk.call(version, "an illegal name", &describing(TOPIC, "not a name", None)).await;
    talk.call(version, "no name", &describing(TOPIC, "", None)).await;
    let keys: &[&str] = &["node.id", "num.io.threads", "log.retention.ms"];
    talk.call(version, "some of a broker", &describing(BROKER, "1", Some(keys))).await;
    talk.call(version, "another broker", &describing(BROKER, "7", Some(keys))).await;
    talk.call(version, "all brokers", &describing(BROKER, "", Some(keys))).await;
    talk.call(version, "no broker", &describing(BROKER, "one", Some(keys))).await;
    talk.call(version, "nothing of the kind", &describing(99, "configured", None)).await;
    talk.call(version, "none", &DescribeConfigsRequest::default()).await;
}

fn altering(kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    AlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configs: configs
                .iter()
                .map(|(name, value)| AlterableConfig {
                    name: (*name).to_owned(),
                    value: value.map(str::to_owned),
                })
                .collect(),
        }],
        validate_only: false,
    }
}

async fn alter(talk: &mut Talk<'_>, version: i16) {
    let good: &[(&str, Option<&str>)] = &[("retention.ms", Some("-1")), ("segment.bytes", Some("2000000"))];
    let mut request = altering(TOPIC, "configured", good);
    request.validate_only = true;
    talk.call(version, "looked at only", &request).await;
    talk.call(version, "a topic's", &altering(TOPIC, "configured", good)).await;
    let seen = describing(TOPIC, "configured", Some(&["segment.bytes", "max.message.bytes"]));
    let is_seen = |it: &towpath_wire::DescribeConfigsResponse| {
        it.results[0].configs.iter().any(|it| it.value.as_deref() == Some("2000000"))
    };
    talk.until(4, &seen, is_seen).await;
    talk.call(4, &format!("after AlterConfigs v{version}"), &seen).await;
    talk.call(version, "unknown topic", &altering(TOPIC, "nowhere", good)).await;
    let name: &[(&str, Option<&str>)] = &[("no.such.config", Some("1"))];
    talk.call(version, "no such config", &altering(TOPIC, "configured", name)).await;
    let value: &[(&str, Option<&str>)] = &[("segment.bytes", Some("much"))];
    talk.call(version, "no such value", &altering(TOPIC, "configured", value)).await;
    let null: &[(&str, Option<&str>)] = &[("segment.bytes", None)];
    talk.call(version, "a null value", &altering(TOPIC, "configured", null)).await;
    talk.call(version, "no name", &altering(TOPIC, "", good)).await;
    talk.call(version, "nothing of the kind", &altering(99, "configured", good)).await;
    let mut request = altering(TOPIC, "configured", good);
    request.resources.push(request.resources[0].clone());
    talk.call(version, "named twice", &request).await;
    talk.call(version, "none", &AlterConfigsRequest::default()).await;
}

/// Kafka's operations.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn some(kind: i8, name: &str, configs: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configs: configs
                .iter()
                .map(|(name, operation, value)| incremental::AlterableConfig {
                    name: (*name).to_owned(),
                    config_operation: *operation,
                    value: value.map(str::to_owned),
                })
                .collect(),
        }],
        validate_only: false,
    }
}

async fn alter_some(talk: &mut Talk<'_>, version: i16) {
    let topic = |configs: &[(&str, i8, Option<&str>)]| some(TOPIC, "configured", configs);
    let mut request = topic(&[("max.message.bytes", SET, Some("77777"))]);
    request.validate_only = true;
    talk.call(version, "looked at only", &request).await;
    let bytes = (80_000 + i32::from(version)).to_string();
    talk.call(version, "set", &topic(&[("max.message.bytes", SET, Some(&bytes))])).await;
    talk.call(version, "append", &topic(&[("cleanup.policy", APPEND, Some("compact"))])).await;
    talk.call(version, "append once more", &topic(&[("cleanup.policy", APPEND, Some("compact"))])).await;
    let keys: &[&str] = &["max.message.bytes", "cleanup.policy", "segment.bytes"];
    let seen = describing(TOPIC, "configured", Some(keys));
    let has = |it: &towpath_wire::DescribeConfigsResponse, value: &str| {
        it.results[0].configs.iter().any(|it| it.value.as_deref() == Some(value))
    };
    talk.until(4, &seen, |it| has(it, &bytes) && has(it, "delete,compact")).await;
    talk.call(4, &format!("after IncrementalAlterConfigs v{version}"), &seen).await;
    talk.call(version, "subtract", &topic(&[("cleanup.policy", SUBTRACT, Some("compact"))])).await;
    talk.call(version, "subtract once more", &topic(&[("cleanup.policy", SUBTRACT, Some("compact"))])).await;
    talk.call(version, "delete", &topic(&[("max.message.bytes", DELETE, None)])).await;
    talk.call(version, "delete once more", &topic(&[("max.message.bytes", DELETE, None)])).await;
    talk.until(4, &seen, |it| !has(it, &bytes) && has(it, "delete")).await;
    talk.call(4, &format!("after all of IncrementalAlterConfigs v{version}"), &seen).await;
}

async fn alter_some_refused(talk: &mut Talk<'_>, version: i16) {
    let topic = |configs: &[(&str, i8, Option<&str>)]| some(TOPIC, "configured", configs);
    for (case, config) in [
        ("append to a number", ("max.message.bytes", APPEND, Some("1"))),
        ("subtract from a number", ("max.message.bytes", SUBTRACT, Some("1"))),
        ("no such operation", ("max.message.bytes", 9, Some("1"))),
        ("set to null", ("max.message.bytes", SET, None)),
        ("append null", ("cleanup.policy", APPEND, None)),
        ("no such config", ("no.such.config", SET, Some("1"))),
        ("delete what does not exist", ("no.such.config", DELETE, None)),
        ("no such value", ("max.message.bytes", SET, Some("much"))),
        ("out of range", ("max.message.bytes", SET, Some("-1"))),
    ] {
        talk.call(version, case, &topic(&[config])).await;
    }
    let twice: &[(&str, i8, Option<&str>)] =
        &[("max.message.bytes", SET, Some("1000")), ("max.message.bytes", SET, Some("2000"))];
    talk.call(version, "a config named twice", &topic(twice)).await;
    let good: &[(&str, i8, Option<&str>)] = &[("max.message.bytes", SET, Some("1000"))];
    talk.call(version, "unknown topic", &some(TOPIC, "nowhere", good)).await;
    talk.call(version, "no name", &some(TOPIC, "", good)).await;
    talk.call(version, "nothing of the kind", &some(99, "configured", good)).await;
    let mut request = topic(good);
    request.resources.push(request.resources[0].clone());
    talk.call(version, "a resource named twice", &request).await;
    talk.call(version, "none", &IncrementalAlterConfigsRequest::default()).await;
}

async fn resources(talk: &mut Talk<'_>) {
    for version in versions::<ListConfigResourcesRequest>() {
        let of = |kinds: &[i8]| ListConfigResourcesRequest { resource_types: kinds.to_vec() };
        if version == 0 {
            talk.call(version, "client metrics", &of(&[])).await;
            continue;
        }
        for (case, kinds) in [
            ("all", &[][..]),
            ("topics", &[TOPIC][..]),
            ("brokers", &[BROKER][..]),
            ("loggers", &[8][..]),
            ("client metrics", &[16][..]),
            ("groups", &[32][..]),
            ("nothing of the kind", &[99][..]),
        ] {
            talk.call(version, case, &of(kinds)).await;
        }
    }
}

async fn log_dirs(talk: &mut Talk<'_>) {
    for version in versions::<DescribeLogDirsRequest>() {
        let of = |name: &str, partitions: &[i32]| DescribeLogDirsRequest {
            topics: Some(vec![DescribableLogDirTopic {
                topic: name.to_owned(),
                partitions: partitions.to_vec(),
            }]),
        };
        for (case, request) in [
            ("a topic", of("configured", &[0, 1])),
            ("one partition", of("configured", &[0])),
            ("unknown partition", of("configured", &[7])),
            ("unknown topic", of("nowhere", &[0])),
            ("no topic", DescribeLogDirsRequest { topics: Some(Vec::new()) }),
        ] {
            talk.call_naming(version, case, &request, |it, names| {
                it.results.iter().for_each(|it| names.text(&it.log_dir, "/log-dir"));
            })
            .await;
        }
    }
}

async fn move_replicas(talk: &mut Talk<'_>) {
    let all = talk.ask(4, &DescribeLogDirsRequest { topics: None }).await;
    let dir = all.results[0].log_dir.clone();
    talk.names.text(&dir, "/log-dir");
    for version in versions::<AlterReplicaLogDirsRequest>() {
        let to = |path: &str, name: &str, partition| AlterReplicaLogDirsRequest {
            dirs: vec![AlterReplicaLogDir {
                path: path.to_owned(),
                topics: vec![AlterReplicaLogDirTopic { name: name.to_owned(), partitions: vec![partition] }],
            }],
        };
        talk.call(version, "where it is", &to(&dir, "configured", 0)).await;
        talk.call(version, "to an unknown directory", &to("/nowhere", "configured", 0)).await;
        talk.call(version, "to no absolute path", &to("nowhere", "configured", 0)).await;
        talk.call(version, "unknown topic", &to(&dir, "nowhere", 0)).await;
        talk.call(version, "unknown partition", &to(&dir, "configured", 7)).await;
        talk.call(version, "none", &AlterReplicaLogDirsRequest::default()).await;
    }
}
