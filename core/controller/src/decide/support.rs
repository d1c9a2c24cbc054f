//! What the tests of decisions share.

use std::collections::BTreeMap;

use towpath_types::{BrokerEpoch, BrokerId, Offset, TopicId};
use towpath_wire::ErrorCode;
use uuid::Uuid;

use super::*;
use crate::{MetadataImage, PartitionImage, RegisterBroker};

pub(super) const CLUSTER: &str = "cluster";

pub(super) fn defaults() -> TopicDefaults {
    TopicDefaults { partitions: 1, replication_factor: 1, configs: BTreeMap::new() }
}

pub(super) fn policy() -> ClusterPolicy {
    ClusterPolicy::new(defaults())
}

pub(super) fn broker(id: i32) -> RegisterBroker {
    RegisterBroker::new(BrokerId::new(id), Uuid::new_v4(), "localhost".to_owned(), 9092)
}

pub(super) fn commit<T>(image: &mut MetadataImage, decision: Decision<T>) -> T {
    for record in &decision.records {
        image.apply(image.next_offset(), record).unwrap();
    }
    decision.answer
}

/// An image with brokers in service.
pub(super) fn image(brokers: i32) -> MetadataImage {
    let mut image = MetadataImage::new();
    let cluster = MetadataRecord::Cluster { cluster_id: CLUSTER.to_owned() };
    commit(&mut image, Decision { records: vec![cluster], answer: () });
    for id in 1..=brokers {
        let decision = register_single_broker(&image, &broker(id), true);
        commit(&mut image, decision);
    }
    image
}

pub(super) fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions, replication_factor: -1, ..NewTopic::default() }
}

pub(super) fn create(image: &mut MetadataImage, topics: &[NewTopic]) -> Vec<Result<CreatedTopic, ErrorCode>> {
    let decision = create_topics(image, topics, &defaults(), TopicId::random);
    commit(image, decision).into_iter().map(|result| result.map_err(|error| error.code)).collect()
}

pub(super) fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId::new).collect()
}

/// A topic of one partition with these replicas.
pub(super) fn assigned(image: &mut MetadataImage, name: &str, replicas: &[i32], configs: &[(&str, &str)]) {
    let asked = NewTopic {
        name: name.to_owned(),
        partitions: -1,
        replication_factor: -1,
        assignments: vec![Assignment { partition: 0, brokers: ids(replicas) }],
        configs: configs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect(),
    };
    create(image, &[asked]).remove(0).unwrap();
}

pub(super) fn partition<'a>(image: &'a MetadataImage, topic: &str) -> &'a PartitionImage {
    &image.topic(topic).unwrap().partitions[0]
}

pub(super) fn epoch(image: &MetadataImage, id: i32) -> BrokerEpoch {
    image.broker(BrokerId::new(id)).unwrap().epoch
}

pub(super) fn fence(image: &mut MetadataImage, policy: &ClusterPolicy, id: i32) {
    let decision = fence_broker(image, policy, BrokerId::new(id));
    commit(image, decision);
}

/// A heartbeat of a broker that knows all there is.
pub(super) fn beat(image: &MetadataImage, id: i32) -> Heartbeat {
    Heartbeat {
        broker_id: BrokerId::new(id),
        broker_epoch: epoch(image, id),
        metadata_offset: image.next_offset(),
        want_fence: false,
        want_shutdown: false,
        lowest_offset_of_others: Some(Offset::new(i64::MAX)),
        shutdown_offset: None,
    }
}

pub(super) fn unfence(image: &mut MetadataImage, policy: &ClusterPolicy, id: i32) {
    let decision = heartbeat(image, policy, &beat(image, id)).unwrap();
    assert!(!commit(image, decision).is_fenced);
}

pub(super) fn registration(id: i32, previous: BrokerEpoch) -> Registration {
    Registration { cluster_id: CLUSTER.to_owned(), broker: broker(id), previous_broker_epoch: previous }
}

/// Registers a new incarnation, after a clean stop or another one.
pub(super) fn register(image: &mut MetadataImage, policy: &ClusterPolicy, id: i32, clean: bool) {
    let stored = image.broker(BrokerId::new(id)).map(|broker| broker.epoch);
    let previous = stored.filter(|_| clean).unwrap_or(BrokerEpoch::new(-1));
    let decision = register_broker(image, policy, &registration(id, previous), false).unwrap();
    let answer = commit(image, decision);
    assert_eq!(answer, epoch(image, id));
}

/// The leader's request for another ISR, as of now.
pub(super) fn isr_request(image: &MetadataImage, topic: &str, isr: &[i32]) -> AlterPartition {
    let topic = image.topic(topic).unwrap();
    let state = &topic.partitions[0];
    let sender = state.leader.unwrap();
    let member = |id: &i32| IsrMember {
        broker_id: BrokerId::new(*id),
        broker_epoch: image.broker(BrokerId::new(*id)).map_or(BrokerEpoch::new(-1), |b| b.epoch),
    };
    AlterPartition {
        broker_id: sender,
        broker_epoch: epoch(image, sender.get()),
        topics: vec![TopicIsrs {
            topic_id: topic.id,
            partitions: vec![PartitionIsr {
                partition: 0,
                leader_epoch: state.leader_epoch,
                partition_epoch: state.partition_epoch,
                isr: isr.iter().map(member).collect(),
                recovering: false,
            }],
        }],
    }
}

pub(super) fn alter(
    image: &mut MetadataImage,
    policy: &ClusterPolicy,
    request: &AlterPartition,
) -> Result<PartitionAnswer, ErrorCode> {
    let decision = alter_partition(image, policy, request).unwrap();
    commit(image, decision).remove(0).remove(0)
}

/// The leader sets its ISR.
pub(super) fn set_isr(image: &mut MetadataImage, policy: &ClusterPolicy, topic: &str, isr: &[i32]) {
    let request = isr_request(image, topic, isr);
    alter(image, policy, &request).unwrap();
}

pub(super) fn on_topic(name: &str) -> ConfigTarget {
    ConfigTarget::Topic(name.to_owned())
}
