//! Topics: what makes, shows, changes and removes them.

use towpath_wire::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use towpath_wire::create_topics::{CreatableReplicaAssignment, CreatableTopic};
use towpath_wire::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use towpath_wire::delete_topics::DeleteTopicState;
use towpath_wire::describe_topic_partitions::{Cursor, TopicRequest};
use towpath_wire::metadata::MetadataRequestTopic;
use towpath_wire::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeTopicPartitionsRequest, MetadataRequest,
};
use uuid::Uuid;

use super::{batch, creatable, led, make, metadata, produce};
use crate::talk::{Talk, versions};

/// An id that no topic has.
const NO_TOPIC: Uuid = Uuid::from_u128(0x0bad_0bad_0bad_0bad_0bad_0bad_0bad_0bad);

pub(super) async fn run(talk: &mut Talk<'_>) {
    let id = make(talk, "plain", 2, &[]).await;
    metadata_of(talk, id).await;
    described(talk).await;
    describe_cluster(talk).await;
    create(talk).await;
    create_refused(talk).await;
    create_partitions(talk).await;
    delete_records(talk).await;
    delete(talk).await;
}

async fn metadata_of(talk: &mut Talk<'_>, id: Uuid) {
    for version in versions::<MetadataRequest>() {
        let of = |names: &[&str]| {
            let mut request = metadata(names);
            request.allow_auto_topic_creation = version < 4;
            request
        };
        let request = of(&["plain"]);
        talk.call(version, "one topic", &request).await;
        if version >= 4 {
            let request = of(&["nowhere", "plain", "nowhere-else"]);
            talk.call(version, "unknown topics", &request).await;
            let request = of(&["not a name", ""]);
            talk.call(version, "illegal names", &request).await;
        }
        // An empty list is all topics in version 0, and none from then on.
        let request = of(&[]);
        talk.call(version, "no topics", &request).await;
        if version >= 1 {
            let request =
                MetadataRequest { topics: None, allow_auto_topic_creation: true, ..Default::default() };
            talk.call(version, "all topics", &request).await;
        }
        if version >= 8 {
            let mut request = of(&["plain"]);
            request.include_topic_authorized_operations = true;
            request.include_cluster_authorized_operations = version <= 10;
            talk.call(version, "authorized operations", &request).await;
        }
        if version >= 10 {
            let by_id = |id| MetadataRequestTopic { topic_id: id, name: None };
            let request = MetadataRequest {
                topics: Some(vec![by_id(id), by_id(NO_TOPIC)]),
                allow_auto_topic_creation: false,
                ..Default::default()
            };
            talk.call(version, "by id", &request).await;
        }
    }
}

async fn described(talk: &mut Talk<'_>) {
    let of = |names: &[&str]| DescribeTopicPartitionsRequest {
        topics: names.iter().map(|name| TopicRequest { name: (*name).to_owned() }).collect(),
        ..Default::default()
    };
    talk.call(0, "one topic", &of(&["plain"])).await;
    talk.call(0, "all topics", &of(&[])).await;
    talk.call(0, "unknown and illegal", &of(&["nowhere", "plain", "not a name"])).await;
    let mut request = of(&["plain"]);
    request.response_partition_limit = 1;
    talk.call(0, "no more than one", &request).await;
    request.cursor = Some(Cursor { topic_name: "plain".to_owned(), partition_index: 1 });
    talk.call(0, "from a cursor", &request).await;
    request.cursor = Some(Cursor { topic_name: "plain".to_owned(), partition_index: -1 });
    talk.call(0, "from a cursor below zero", &request).await;
    request.cursor = Some(Cursor { topic_name: "zebra".to_owned(), partition_index: 0 });
    talk.call(0, "from a cursor behind all", &request).await;
}

async fn describe_cluster(talk: &mut Talk<'_>) {
    for version in versions::<DescribeClusterRequest>() {
        let plain = DescribeClusterRequest::default();
        talk.call(version, "the cluster", &plain).await;
        let request = DescribeClusterRequest { include_cluster_authorized_operations: true, ..plain.clone() };
        talk.call(version, "authorized operations", &request).await;
        if version >= 1 {
            let request = DescribeClusterRequest { endpoint_type: 2, ..plain.clone() };
            talk.call(version, "controllers, of a broker", &request).await;
            let request = DescribeClusterRequest { endpoint_type: 9, ..plain.clone() };
            talk.call(version, "no such endpoints", &request).await;
        }
        if version >= 2 {
            let request = DescribeClusterRequest { include_fenced_brokers: true, ..plain };
            talk.call(version, "fenced brokers, too", &request).await;
        }
    }
}

fn creating(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false }
}

async fn create(talk: &mut Talk<'_>) {
    for version in versions::<CreateTopicsRequest>() {
        let name = format!("created-by-v{version}");
        let topic = creatable(&name, 2, &[("cleanup.policy", "compact")]);
        let mut request = creating(vec![topic]);
        request.validate_only = true;
        talk.call(version, "looked at only", &request).await;
        request.validate_only = false;
        talk.call_naming(version, "a topic", &request, |it, names| names.id(it.topics[0].topic_id)).await;
        led(talk, &name, 2).await;
        talk.call(version, "there already", &request).await;
        if version >= 4 {
            let topic = CreatableTopic {
                name: format!("by-default-v{version}"),
                num_partitions: -1,
                replication_factor: -1,
                ..Default::default()
            };
            let request = creating(vec![topic]);
            talk.call_naming(version, "as by default", &request, |it, names| {
                names.id(it.topics[0].topic_id);
            })
            .await;
        }
        let assigned = |index| CreatableReplicaAssignment { partition_index: index, broker_ids: vec![1] };
        let topic = CreatableTopic {
            name: format!("assigned-v{version}"),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![assigned(0), assigned(1)],
            ..Default::default()
        };
        let request = creating(vec![topic]);
        talk.call_naming(version, "assigned", &request, |it, names| names.id(it.topics[0].topic_id)).await;
    }
}

async fn create_refused(talk: &mut Talk<'_>) {
    let good = creatable("refused", 1, &[]);
    let assigned = |index, brokers: &[i32]| CreatableReplicaAssignment {
        partition_index: index,
        broker_ids: brokers.to_vec(),
    };
    let by_hand = |assignments| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments,
        ..good.clone()
    };
    let long = "x".repeat(250);
    let cases = [
        ("an illegal name", CreatableTopic { name: "not a name".to_owned(), ..good.clone() }),
        ("no name", CreatableTopic { name: String::new(), ..good.clone() }),
        ("two dots", CreatableTopic { name: "..".to_owned(), ..good.clone() }),
        ("too long a name", CreatableTopic { name: long, ..good.clone() }),
        ("no partition", CreatableTopic { num_partitions: 0, ..good.clone() }),
        ("less than no partition", CreatableTopic { num_partitions: -2, ..good.clone() }),
        ("no replica", CreatableTopic { replication_factor: 0, ..good.clone() }),
        ("more replicas than brokers", CreatableTopic { replication_factor: 2, ..good.clone() }),
        ("no such config", creatable("refused", 1, &[("no.such.config", "1")])),
        ("no such value", creatable("refused", 1, &[("segment.bytes", "much")])),
        ("out of range", creatable("refused", 1, &[("min.insync.replicas", "0")])),
        ("no such policy", creatable("refused", 1, &[("cleanup.policy", "burn")])),
        ("assigned with a gap", by_hand(vec![assigned(0, &[1]), assigned(2, &[1])])),
        ("assigned to nobody", by_hand(vec![assigned(0, &[])])),
        ("assigned to an unknown broker", by_hand(vec![assigned(0, &[7])])),
        ("assigned twice", by_hand(vec![assigned(0, &[1, 1])])),
        ("counted and assigned", CreatableTopic { assignments: vec![assigned(0, &[1])], ..good.clone() }),
        ("a name that collides", CreatableTopic { name: "with.dot".to_owned(), ..good.clone() }),
    ];
    make(talk, "with_dot", 1, &[]).await;
    for version in versions::<CreateTopicsRequest>() {
        for (case, topic) in &cases {
            let request = creating(vec![topic.clone()]);
            talk.call_naming(version, case, &request, |it, names| names.id(it.topics[0].topic_id)).await;
        }
        talk.call(version, "named twice", &creating(vec![good.clone(), good.clone()])).await;
        talk.call(version, "none", &creating(Vec::new())).await;
    }
}

async fn create_partitions(talk: &mut Talk<'_>) {
    make(talk, "grown", 1, &[]).await;
    let mut count = 1;
    for version in versions::<CreatePartitionsRequest>() {
        let to = |name: &str, count, brokers: Option<&[&[i32]]>| CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.to_owned(),
                count,
                assignments: brokers.map(|all| {
                    all.iter().map(|it| CreatePartitionsAssignment { broker_ids: it.to_vec() }).collect()
                }),
            }],
            timeout_ms: 10_000,
            validate_only: false,
        };
        let mut request = to("grown", count + 1, None);
        request.validate_only = true;
        talk.call(version, "looked at only", &request).await;
        talk.call(version, "one more", &to("grown", count + 1, None)).await;
        talk.call(version, "one more, assigned", &to("grown", count + 2, Some(&[&[1]]))).await;
        count += 2;
        led(talk, "grown", count).await;
        talk.call(version, "as many", &to("grown", count, None)).await;
        talk.call(version, "fewer", &to("grown", count - 1, None)).await;
        talk.call(version, "less than none", &to("grown", -1, None)).await;
        talk.call(version, "unknown topic", &to("nowhere", 5, None)).await;
        talk.call(version, "assigned too few", &to("grown", count + 2, Some(&[&[1]]))).await;
        talk.call(version, "assigned to an unknown broker", &to("grown", count + 1, Some(&[&[7]]))).await;
        talk.call(version, "assigned to nobody", &to("grown", count + 1, Some(&[&[]]))).await;
        talk.call(version, "assigned twice", &to("grown", count + 1, Some(&[&[1, 1]]))).await;
        let mut request = to("grown", count + 1, None);
        request.topics.push(request.topics[0].clone());
        talk.call(version, "named twice", &request).await;
    }
}

async fn delete_records(talk: &mut Talk<'_>) {
    let id = make(talk, "shortened", 1, &[]).await;
    make(talk, "compacted", 1, &[("cleanup.policy", "compact")]).await;
    let values: Vec<&str> = vec!["value"; 20];
    for value in values {
        talk.ask(9, &produce(9, ("shortened", id), 0, Some(batch(None, &[value])))).await;
    }
    let to = |name: &str, partition_index, offset| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: name.to_owned(),
            partitions: vec![DeleteRecordsPartition { partition_index, offset }],
        }],
        timeout_ms: 10_000,
    };
    for version in versions::<DeleteRecordsRequest>() {
        let offset = 3 * i64::from(version) + 3;
        talk.call(version, "up to an offset", &to("shortened", 0, offset)).await;
        talk.call(version, "up to one before", &to("shortened", 0, offset - 1)).await;
        talk.call(version, "beyond the end", &to("shortened", 0, 21)).await;
        talk.call(version, "below -1", &to("shortened", 0, -2)).await;
        talk.call(version, "unknown topic", &to("nowhere", 0, 0)).await;
        talk.call(version, "unknown partition", &to("shortened", 7, 0)).await;
        talk.call(version, "compacted", &to("compacted", 0, 0)).await;
    }
    for version in versions::<DeleteRecordsRequest>() {
        talk.call(version, "all", &to("shortened", 0, -1)).await;
    }
}

async fn delete(talk: &mut Talk<'_>) {
    for version in versions::<DeleteTopicsRequest>() {
        let (name, other) = (format!("deleted-by-v{version}"), format!("deleted-by-id-v{version}"));
        make(talk, &name, 1, &[]).await;
        let id = make(talk, &other, 1, &[]).await;
        let by = |names: &[&str], ids: &[Uuid]| {
            let mut request = DeleteTopicsRequest { timeout_ms: 10_000, ..Default::default() };
            if version >= 6 {
                let named = names
                    .iter()
                    .map(|it| DeleteTopicState { name: Some((*it).to_owned()), topic_id: Uuid::nil() });
                let by_id = ids.iter().map(|it| DeleteTopicState { name: None, topic_id: *it });
                request.topics = named.chain(by_id).collect();
            } else {
                request.topic_names = names.iter().map(|it| (*it).to_owned()).collect();
            }
            request
        };
        talk.call(version, "a topic", &by(&[&name], &[])).await;
        talk.call(version, "unknown topic", &by(&[&name], &[])).await;
        talk.call(version, "no name", &by(&[""], &[])).await;
        talk.call(version, "none", &by(&[], &[])).await;
        talk.call(version, "named twice", &by(&[&other, &other], &[])).await;
        if version >= 6 {
            talk.call(version, "by id", &by(&[], &[id])).await;
            talk.call(version, "unknown id", &by(&[], &[NO_TOPIC])).await;
            let mut request = by(&["plain"], &[]);
            request.topics[0].topic_id = NO_TOPIC;
            talk.call(version, "by name and id", &request).await;
            talk.call(version, "by neither", &by(&[], &[Uuid::nil()])).await;
        }
    }
}
