//! Share groups (KIP-932) through the protocol: from the heartbeat to what is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use towpath_record::{Compression, batches};
use towpath_wire::alter_replica_log_dirs::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use towpath_wire::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use towpath_wire::delete_share_group_offsets::DeleteShareGroupOffsetsRequestTopic;
use towpath_wire::describe_log_dirs::DescribeLogDirsResult;
use towpath_wire::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
    DescribeShareGroupOffsetsResponseGroup,
};
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::share_fetch::{
    AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic, PartitionData,
};
use towpath_wire::{
    AlterReplicaLogDirsRequest, AlterShareGroupOffsetsRequest, ApiVersionsRequest, DeleteGroupsRequest,
    DeleteShareGroupOffsetsRequest, DescribeLogDirsRequest, DescribeShareGroupOffsetsRequest, ErrorCode,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitializeShareGroupStateRequest,
    ListGroupsRequest, ReadShareGroupStateSummaryRequest, ShareAcknowledgeRequest, ShareAcknowledgeResponse,
    ShareFetchRequest, ShareFetchResponse, ShareGroupDescribeRequest, ShareGroupHeartbeatRequest,
    initialize_share_group_state, read_share_group_state_summary, share_acknowledge,
};
use uuid::Uuid;

use crate::support::{Client, TestBroker, batch, batch_with, code};

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;
const GROUP_RESOURCE: i8 = 32;

async fn start(settings: &[(&str, &str)]) -> TestBroker {
    let all = [("share.coordinator.state.topic.num.partitions", "3")];
    TestBroker::start_with(|config| {
        for (name, value) in all.iter().chain(settings) {
            config.set(name, value).unwrap();
        }
    })
    .await
}

/// A member with its connection and session.
struct Member {
    client: Client,
    id: String,
    epoch: i32,
    topic: Uuid,
}

fn acknowledged(first_offset: i64, last_offset: i64, kind: i8) -> AcknowledgementBatch {
    AcknowledgementBatch { first_offset, last_offset, acknowledge_types: vec![kind] }
}

impl Member {
    /// Joins the group, and waits until it has its assignment.
    async fn join(broker: &TestBroker, id: &str, name: &str, topic: Uuid) -> Self {
        let mut member = Self { client: broker.client(), id: id.to_owned(), epoch: 0, topic };
        let request = member.heartbeat(0, Some(name));
        for _ in 0..1_000 {
            let find = FindCoordinatorRequest { coordinator_keys: vec!["s".into()], ..Default::default() };
            member.client.call(6, &find).await;
            let response = member.client.call(1, &request).await;
            if response.error_code == 0 {
                assert!(response.assignment.is_some_and(|it| !it.topic_partitions.is_empty()));
                return member;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no coordinator");
    }

    fn heartbeat(&self, member_epoch: i32, topic: Option<&str>) -> ShareGroupHeartbeatRequest {
        ShareGroupHeartbeatRequest {
            group_id: "s".into(),
            member_id: self.id.clone(),
            member_epoch,
            rack_id: None,
            subscribed_topic_names: topic.map(|topic| vec![topic.to_owned()]),
        }
    }

    fn request(&mut self, acknowledgement_batches: Vec<AcknowledgementBatch>) -> ShareFetchRequest {
        let partition = FetchPartition { partition_index: 0, acknowledgement_batches };
        let share_session_epoch = self.epoch;
        self.epoch += 1;
        ShareFetchRequest {
            group_id: Some("s".into()),
            member_id: Some(self.id.clone()),
            share_session_epoch,
            max_wait_ms: 2_000,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records: 100,
            batch_size: 100,
            topics: vec![FetchTopic { topic_id: self.topic, partitions: vec![partition] }],
            ..Default::default()
        }
    }

    async fn fetch_with(&mut self, request: &ShareFetchRequest) -> PartitionData {
        let response = self.client.call(2, request).await;
        assert_eq!(response.error_code, 0, "{:?}", code(response.error_code));
        first(response)
    }

    /// Fetches, and waits for records.
    async fn fetch(&mut self) -> PartitionData {
        let request = self.request(Vec::new());
        self.fetch_with(&request).await
    }

    /// Fetches until there is something.
    async fn fetch_some(&mut self) -> PartitionData {
        for _ in 0..100 {
            let data = self.fetch().await;
            if !data.acquired_records.is_empty() {
                return data;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nothing is given out");
    }

    /// Leaves the group, and not its session.
    async fn vanish(&mut self) {
        let request = self.heartbeat(-1, None);
        assert_eq!(self.client.call(1, &request).await.error_code, 0);
    }

    async fn acknowledge(&mut self, batches: &[(i64, i64, i8)]) -> ErrorCode {
        let response = self.acknowledge_as(batches, self.epoch).await;
        self.epoch += 1;
        assert_eq!(response.error_code, 0, "{:?}", code(response.error_code));
        code(response.responses[0].partitions[0].error_code)
    }

    async fn acknowledge_as(&mut self, batches: &[(i64, i64, i8)], epoch: i32) -> ShareAcknowledgeResponse {
        let batch =
            |(first_offset, last_offset, kind): &(i64, i64, i8)| share_acknowledge::AcknowledgementBatch {
                first_offset: *first_offset,
                last_offset: *last_offset,
                acknowledge_types: vec![*kind],
            };
        let partition = share_acknowledge::AcknowledgePartition {
            partition_index: 0,
            acknowledgement_batches: batches.iter().map(batch).collect(),
        };
        let topics =
            vec![share_acknowledge::AcknowledgeTopic { topic_id: self.topic, partitions: vec![partition] }];
        let request = ShareAcknowledgeRequest {
            group_id: Some("s".into()),
            member_id: Some(self.id.clone()),
            share_session_epoch: epoch,
            is_renew_ack: batches.iter().any(|(_, _, kind)| *kind == RENEW),
            topics,
        };
        self.client.call(2, &request).await
    }

    /// Ends the session and leaves.
    async fn leave(&mut self) {
        let request = ShareAcknowledgeRequest {
            group_id: Some("s".into()),
            member_id: Some(self.id.clone()),
            share_session_epoch: -1,
            ..Default::default()
        };
        assert_eq!(self.client.call(2, &request).await.error_code, 0);
        self.vanish().await;
    }
}

fn first(response: ShareFetchResponse) -> PartitionData {
    response.responses.into_iter().flat_map(|topic| topic.partitions).next().unwrap_or_default()
}

/// What was given out: offset, value, and how often.
fn given(data: &PartitionData) -> Vec<(i64, String, i16)> {
    assert_eq!(data.error_code, 0, "{:?}", code(data.error_code));
    let mut all = Vec::new();
    for batch in batches(&data.records) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in &batch.records().unwrap() {
            let record = record.unwrap();
            let offset = record.offset.get();
            let acquired =
                data.acquired_records.iter().find(|it| (it.first_offset..=it.last_offset).contains(&offset));
            if let Some(acquired) = acquired {
                let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                all.push((offset, value, acquired.delivery_count));
            }
        }
    }
    let acquired: i64 = data.acquired_records.iter().map(|it| it.last_offset - it.first_offset + 1).sum();
    assert_eq!(i64::try_from(all.len()).unwrap(), acquired, "every record that was given out is there");
    all
}

fn offsets(data: &PartitionData) -> Vec<i64> {
    given(data).into_iter().map(|(offset, _, _)| offset).collect()
}

async fn set_group(client: &mut Client, name: &str, value: &str) {
    let config = AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let resource = AlterConfigsResource {
        resource_type: GROUP_RESOURCE,
        resource_name: "s".into(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = client.call(1, &request).await;
    assert_eq!(response.responses[0].error_code, 0, "{:?}", response.responses[0].error_message);
}

/// A broker with a topic `t` of one partition, which the group reads from the beginning.
async fn prepared(settings: &[(&str, &str)]) -> (TestBroker, Client, Uuid) {
    let broker = start(settings).await;
    let mut client = broker.client();
    let topic = client.create_topic("t", 1, &[]).await;
    set_group(&mut client, "share.auto.offset.reset", "earliest").await;
    (broker, client, topic)
}

#[tokio::test]
async fn what_is_acknowledged_is_done_with_for_good() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a", "b", "c", "d", "e"])).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    let data = member.fetch().await;
    let expected: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(str::to_owned).collect();
    let values: Vec<_> = given(&data).into_iter().map(|(_, value, _)| value).collect();
    assert_eq!(values, expected);
    assert_eq!(member.acknowledge(&[(0, 1, ACCEPT), (2, 2, RELEASE), (3, 3, REJECT)]).await, ErrorCode::None);
    assert_eq!(member.acknowledge(&[(1, 1, ACCEPT)]).await, ErrorCode::None, "it lies before the start");
    assert_eq!(member.acknowledge(&[(3, 3, ACCEPT)]).await, ErrorCode::InvalidRecordState);
    assert_eq!(member.acknowledge(&[(9, 9, ACCEPT)]).await, ErrorCode::InvalidRequest);
    // With a fetch, and the answer has what comes next.
    let request = member.request(vec![acknowledged(4, 4, ACCEPT)]);
    let data = member.fetch_with(&request).await;
    assert_eq!(data.acknowledge_error_code, 0);
    assert_eq!(given(&data), [(2, "c".to_owned(), 2)]);
    drop((member, client));
    let TestBroker { broker, dir } = broker;
    broker.shutdown().await.unwrap();
    drop(broker);

    // What was with somebody is for the next one; all else is as it was.
    let broker = TestBroker::start_in(dir, |_| {}).await;
    let mut member = Member::join(&broker, "n", "t", topic).await;
    let mut client = broker.client();
    client.produce("t", 0, batch(&["f"])).await;
    let mut seen = BTreeMap::new();
    while seen.len() < 2 {
        for (offset, value, deliveries) in given(&member.fetch().await) {
            assert!(seen.insert(offset, (value, deliveries)).is_none());
        }
    }
    // Whether it came back before the broker had stopped is a matter of chance: it counts then.
    assert!(matches!(seen.get(&2), Some((value, 2 | 3)) if value == "c"), "{seen:?}");
    assert_eq!(seen.get(&5), Some(&("f".to_owned(), 1)));
}

#[tokio::test]
async fn records_come_back_when_their_time_is_over_and_not_for_ever() {
    let settings =
        [("group.share.record.lock.duration.ms", "300"), ("group.share.delivery.count.limit", "2")];
    let (broker, mut client, topic) = prepared(&settings).await;
    client.produce("t", 0, batch(&["a", "b"])).await;
    let mut first = Member::join(&broker, "m", "t", topic).await;
    let mut second = Member::join(&broker, "n", "t", topic).await;
    assert_eq!(offsets(&first.fetch().await), [0, 1]);
    assert_eq!(first.acknowledge(&[(0, 0, RENEW)]).await, ErrorCode::None);
    // Waits until the lock ends.
    let data = second.fetch().await;
    let taken: Vec<_> =
        given(&data).into_iter().map(|(offset, _, deliveries)| (offset, deliveries)).collect();
    assert!(taken.contains(&(1, 2)), "{taken:?}");
    assert_eq!(first.acknowledge(&[(1, 1, ACCEPT)]).await, ErrorCode::InvalidRecordState);
    assert_eq!(second.acknowledge(&[(1, 1, RELEASE)]).await, ErrorCode::None);
    // It was given out often enough.
    client.produce("t", 0, batch(&["c"])).await;
    let mut seen = BTreeSet::new();
    while !seen.contains(&2) {
        seen.extend(offsets(&second.fetch().await));
    }
    assert!(!seen.contains(&1), "{seen:?}");
}

#[tokio::test]
async fn sessions_are_kept_in_step() {
    let (broker, mut client, topic) = prepared(&[("group.share.max.share.sessions", "1")]).await;
    client.produce("t", 0, batch(&["a"])).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    let error = |response: ShareFetchResponse| code(response.error_code);
    let early = ShareFetchRequest { share_session_epoch: 1, ..member.request(Vec::new()) };
    assert_eq!(error(client.call(2, &early).await), ErrorCode::ShareSessionNotFound);
    member.epoch = 0;
    assert_eq!(offsets(&member.fetch().await), [0]);
    let wrong = ShareFetchRequest { share_session_epoch: 7, ..member.request(Vec::new()) };
    assert_eq!(error(client.call(2, &wrong).await), ErrorCode::InvalidShareSessionEpoch);
    let unknown = ShareFetchRequest { member_id: None, ..member.request(Vec::new()) };
    assert_eq!(error(client.call(2, &unknown).await), ErrorCode::InvalidRequest);
    let other = ShareFetchRequest {
        member_id: Some("o".into()),
        share_session_epoch: 0,
        ..member.request(Vec::new())
    };
    assert_eq!(error(client.call(2, &other).await), ErrorCode::ShareSessionLimitReached);
    let zero = member.acknowledge_as(&[(0, 0, ACCEPT)], 0).await;
    assert_eq!(code(zero.error_code), ErrorCode::InvalidShareSessionEpoch);
    // It ends, and what it had is for the next one at once.
    let last = member.acknowledge_as(&[], -1).await;
    assert_eq!(last.error_code, 0);
    member.epoch = 0;
    let again = member.fetch().await;
    assert_eq!(given(&again), [(0, "a".to_owned(), 2)]);
    // Without partitions there is nothing.
    member.epoch = 1;
    let forgotten = ForgottenTopic { topic_id: topic, partitions: vec![0] };
    let request = ShareFetchRequest {
        topics: Vec::new(),
        forgotten_topics_data: vec![forgotten],
        ..member.request(Vec::new())
    };
    assert!(client.call(2, &request).await.responses.is_empty());
    let request = ShareFetchRequest {
        topics: vec![FetchTopic {
            topic_id: Uuid::from_u128(9),
            partitions: vec![FetchPartition::default()],
        }],
        ..member.request(Vec::new())
    };
    let data = first(client.call(2, &request).await);
    assert_eq!(code(data.error_code), ErrorCode::UnknownTopicId);
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_gets_no_more_than_it_may() {
    let (broker, mut client, topic) = prepared(&[("group.share.partition.max.record.locks", "6")]).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    // Begins the session; the state is read meanwhile.
    let mut begin = member.request(Vec::new());
    begin.max_wait_ms = 0;
    member.fetch_with(&begin).await;
    let request = member.request(Vec::new());
    let id = member.client.send(2, &request).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.produce("t", 0, batch(&["a", "b", "c", "d", "e"])).await;
    let data = first(member.client.receive::<ShareFetchRequest>(2, id).await);
    assert_eq!(offsets(&data).len(), 5);
    client.produce("t", 0, batch(&["f", "g", "h"])).await;
    assert_eq!(offsets(&member.fetch().await), [5], "six are out");
    let mut nothing = member.request(Vec::new());
    nothing.max_wait_ms = 50;
    assert!(member.fetch_with(&nothing).await.acquired_records.is_empty());
    let mut strict = member.request(vec![acknowledged(0, 5, ACCEPT)]);
    (strict.share_acquire_mode, strict.max_records) = (1, 1);
    assert_eq!(offsets(&member.fetch_with(&strict).await), [6]);
}

#[tokio::test]
async fn records_of_aborted_transactions_are_not_given_out_where_that_is_asked_for() {
    use towpath_wire::{AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest};
    let (broker, mut client, topic) = prepared(&[]).await;
    set_group(&mut client, "share.isolation.level", "read_committed").await;
    for (value, committed) in [("a", false), ("b", true)] {
        let init = InitProducerIdRequest {
            transactional_id: Some("x".into()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let mut producer = client.call(4, &init).await;
        for _ in 0..1_000 {
            if producer.error_code == 0 {
                break;
            }
            let find = FindCoordinatorRequest {
                key_type: 1,
                coordinator_keys: vec!["x".into()],
                ..Default::default()
            };
            client.call(6, &find).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            producer = client.call(4, &init).await;
        }
        let add = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: "x".into(),
            v3_and_below_producer_id: producer.producer_id,
            v3_and_below_producer_epoch: producer.producer_epoch,
            v3_and_below_topics: vec![towpath_wire::add_partitions_to_txn::AddPartitionsToTxnTopic {
                name: "t".into(),
                partitions: vec![0],
            }],
            ..Default::default()
        };
        client.call(3, &add).await;
        let mut builder = towpath_record::BatchBuilder::new(towpath_record::Codec::from(Compression::None));
        let id = towpath_types::ProducerId::new(producer.producer_id);
        builder.set_producer(id, towpath_types::ProducerEpoch::new(producer.producer_epoch), 0);
        builder.set_transactional(true);
        builder.append(crate::support::now_ms(), None, Some(value.as_bytes()), &[]).unwrap();
        let mut request = crate::support::produce_request("t", 0, -1, builder.build().unwrap());
        request.transactional_id = Some("x".into());
        let produced = client.call(9, &request).await;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
        let end = EndTxnRequest {
            transactional_id: "x".into(),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            committed,
        };
        assert_eq!(client.call(3, &end).await.error_code, 0);
    }
    let mut member = Member::join(&broker, "m", "t", topic).await;
    assert_eq!(given(&member.fetch().await), [(2, "b".to_owned(), 1)]);
}

async fn described(client: &mut Client, all: bool) -> DescribeShareGroupOffsetsResponseGroup {
    let topics = (!all).then(Vec::new);
    let group = DescribeShareGroupOffsetsRequestGroup { group_id: "s".into(), topics };
    let response = client.call(1, &DescribeShareGroupOffsetsRequest { groups: vec![group] }).await;
    response.groups.into_iter().next().unwrap()
}

async fn altered(client: &mut Client, start_offset: i64) -> (ErrorCode, Option<ErrorCode>) {
    let partition = AlterShareGroupOffsetsRequestPartition { partition_index: 0, start_offset };
    let topic = AlterShareGroupOffsetsRequestTopic { topic_name: "t".into(), partitions: vec![partition] };
    let request = AlterShareGroupOffsetsRequest { group_id: "s".into(), topics: vec![topic] };
    let response = client.call(0, &request).await;
    let of_partition = response.responses.first().map(|topic| code(topic.partitions[0].error_code));
    (code(response.error_code), of_partition)
}

#[tokio::test]
async fn groups_are_listed_described_set_back_and_deleted() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a", "b", "c", "d"])).await;
    assert_eq!(code(described(&mut client, true).await.error_code), ErrorCode::CoordinatorNotAvailable);
    let mut member = Member::join(&broker, "m", "t", topic).await;
    assert_eq!(offsets(&member.fetch().await).len(), 4);
    assert_eq!(member.acknowledge(&[(0, 0, ACCEPT), (2, 2, ACCEPT)]).await, ErrorCode::None);
    let partition = described(&mut client, true).await.topics[0].partitions[0].clone();
    assert_eq!((partition.error_code, partition.start_offset, partition.lag), (0, 1, 2));
    assert_eq!(altered(&mut client, 0).await, (ErrorCode::NonEmptyGroup, None));
    let types_filter = vec!["share".to_owned()];
    let list = ListGroupsRequest { types_filter, ..Default::default() };
    let listed = client.call(5, &list).await.groups;
    assert_eq!((listed.len(), listed[0].group_state.as_str()), (1, "Stable"));
    assert_eq!((listed[0].group_type.as_str(), listed[0].protocol_type.as_str()), ("share", "share"));
    let describe = ShareGroupDescribeRequest { group_ids: vec!["s".into()], ..Default::default() };
    let group = client.call(1, &describe).await.groups.remove(0);
    assert_eq!((group.members.len(), group.assignor_name.as_str()), (1, "simple"));
    assert_eq!(group.members[0].assignment.topic_partitions[0].topic_name, "t");
    member.leave().await;
    assert_eq!(altered(&mut client, 3).await, (ErrorCode::None, Some(ErrorCode::None)));
    let partition = described(&mut client, true).await.topics[0].partitions[0].clone();
    assert_eq!(partition.start_offset, 3);
    let mut member = Member::join(&broker, "n", "t", topic).await;
    assert_eq!(given(&member.fetch().await), [(3, "d".to_owned(), 1)]);
    member.leave().await;
    let topics = vec![DeleteShareGroupOffsetsRequestTopic { topic_name: "t".into() }];
    let delete = DeleteShareGroupOffsetsRequest { group_id: "s".into(), topics };
    let deleted = client.call(0, &delete).await;
    assert_eq!((deleted.error_code, deleted.responses[0].error_code), (0, 0));
    assert!(described(&mut client, true).await.topics.is_empty());
    let mut member = Member::join(&broker, "o", "t", topic).await;
    assert_eq!(offsets(&member.fetch().await).len(), 4, "from the beginning");
    let groups_names = vec!["s".to_owned()];
    let delete = DeleteGroupsRequest { groups_names };
    assert_eq!(code(client.call(2, &delete).await.results[0].error_code), ErrorCode::NonEmptyGroup);
    member.leave().await;
    assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
    let gone = described(&mut client, true).await;
    assert_eq!((gone.error_code, gone.topics.len()), (0, 0));
}

/// Sets the state of the group, as a partition's leader does.
async fn initialize(client: &mut Client, topic_id: Uuid, state_epoch: i32, start_offset: i64) {
    let partition = initialize_share_group_state::PartitionData { partition: 0, state_epoch, start_offset };
    let partitions = vec![partition];
    let topics = vec![initialize_share_group_state::InitializeStateData { topic_id, partitions }];
    let request = InitializeShareGroupStateRequest { group_id: "s".into(), topics };
    let find = FindCoordinatorRequest {
        key_type: 2,
        coordinator_keys: vec![format!("s:{topic_id}:0")],
        ..Default::default()
    };
    for _ in 0..1_000 {
        client.call(6, &find).await;
        if client.call(0, &request).await.results[0].partitions[0].error_code == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no coordinator of states");
}

#[tokio::test]
async fn why_a_state_cannot_be_used_is_told() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a"])).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    initialize(&mut client, topic, 0, i64::MAX - 1).await;
    for _ in 0..3 {
        assert_eq!(code(member.fetch().await.error_code), ErrorCode::UnknownServerError);
    }
    // It is tried again, though not at once.
    initialize(&mut client, topic, 1, 0).await;
    assert_eq!(offsets(&member.fetch_some().await), [0]);
}

#[tokio::test]
async fn a_state_without_a_beginning_begins_where_the_group_does() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a", "b"])).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    initialize(&mut client, topic, 0, -1).await;
    assert_eq!(offsets(&member.fetch_some().await), [0, 1]);
    let partition = described(&mut client, true).await.topics[0].partitions[0].clone();
    assert_eq!((partition.start_offset, partition.lag), (0, 2));
}

#[tokio::test]
async fn what_is_set_back_holds_also_while_a_session_is_left_over() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a", "b", "c", "d"])).await;
    let mut ghost = Member::join(&broker, "m", "t", topic).await;
    assert_eq!(offsets(&ghost.fetch_some().await).len(), 4);
    assert_eq!(ghost.acknowledge(&[(0, 1, ACCEPT)]).await, ErrorCode::None);
    ghost.vanish().await;
    assert_eq!(altered(&mut client, 1).await, (ErrorCode::None, Some(ErrorCode::None)));
    let mut member = Member::join(&broker, "n", "t", topic).await;
    let data = member.fetch_some().await;
    let taken: Vec<_> =
        given(&data).into_iter().map(|(offset, _, deliveries)| (offset, deliveries)).collect();
    assert_eq!(taken, [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(ghost.acknowledge(&[(2, 2, ACCEPT)]).await, ErrorCode::InvalidRecordState);
}

/// Moves the log of `t` to the directory in which it is not.
async fn move_log(client: &mut Client) {
    let request = DescribeLogDirsRequest { topics: None };
    let is_in = |dir: &DescribeLogDirsResult| {
        let topics = dir.topics.iter().filter(|topic| topic.name == "t");
        topics.flat_map(|topic| &topic.partitions).any(|partition| !partition.is_future_key)
    };
    let all = client.call(4, &request).await.results;
    let to = all.iter().find(|dir| !is_in(dir)).unwrap().log_dir.clone();
    let topics = vec![AlterReplicaLogDirTopic { name: "t".into(), partitions: vec![0] }];
    let alter = AlterReplicaLogDirsRequest { dirs: vec![AlterReplicaLogDir { path: to.clone(), topics }] };
    let altered = client.call(2, &alter).await;
    assert_eq!(altered.results[0].partitions[0].error_code, 0);
    for _ in 0..1_000 {
        let all = client.call(4, &request).await.results;
        if all.iter().any(|dir| dir.log_dir == to && is_in(dir)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log does not move");
}

#[tokio::test]
async fn what_is_acknowledged_stays_so_when_the_log_moves_to_another_directory() {
    let broker = TestBroker::start_with(|config| {
        config.further_dirs = vec![config.data_dir.join("second-disk")];
        config.checkpoint_interval = Duration::from_millis(100);
        config.set("share.coordinator.state.topic.num.partitions", "3").unwrap();
    })
    .await;
    let mut client = broker.client();
    let topic = client.create_topic("t", 1, &[]).await;
    set_group(&mut client, "share.auto.offset.reset", "earliest").await;
    client.produce("t", 0, batch(&["a", "b", "c", "d", "e", "f"])).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    assert_eq!(offsets(&member.fetch_some().await).len(), 6);
    assert_eq!(member.acknowledge(&[(1, 1, ACCEPT)]).await, ErrorCode::None);
    move_log(&mut client).await;
    // What was with the member is given out again, and nothing else.
    assert_eq!(offsets(&member.fetch_some().await), [0, 2, 3, 4, 5]);
    assert_eq!(member.acknowledge(&[(0, 0, ACCEPT), (3, 3, ACCEPT)]).await, ErrorCode::None);
    move_log(&mut client).await;
    assert_eq!(offsets(&member.fetch_some().await), [2, 4, 5]);
}

#[tokio::test]
async fn nothing_is_stored_for_a_group_that_nobody_is_in() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a"])).await;
    Member::join(&broker, "m", "t", topic).await.vanish().await;
    let mut zombie = Member { client: broker.client(), id: "z".to_owned(), epoch: 0, topic };
    let mut told = zombie.fetch().await;
    // While coordinators come into being there is nothing.
    for _ in 0..30 {
        if told.error_code != 0 {
            break;
        }
        told = zombie.fetch().await;
    }
    assert_eq!(code(told.error_code), ErrorCode::UnknownServerError);
    let partitions = vec![read_share_group_state_summary::PartitionData { partition: 0, leader_epoch: 0 }];
    let topics = vec![read_share_group_state_summary::ReadStateSummaryData { topic_id: topic, partitions }];
    let request = ReadShareGroupStateSummaryRequest { group_id: "s".into(), topics };
    let summary = client.call(1, &request).await.results[0].partitions[0].clone();
    assert_eq!((summary.error_code, summary.state_epoch), (0, -1));
    let mut member = Member::join(&broker, "m", "t", topic).await;
    assert_eq!(offsets(&member.fetch_some().await), [0]);
}

#[tokio::test]
async fn what_is_named_twice_is_neither_taken_nor_told_twice() {
    let (broker, mut client, topic) = prepared(&[]).await;
    client.produce("t", 0, batch(&["a", "b"])).await;
    let mut member = Member::join(&broker, "m", "t", topic).await;
    assert_eq!(offsets(&member.fetch_some().await).len(), 2);
    let batches = vec![share_acknowledge::AcknowledgementBatch {
        first_offset: 0,
        last_offset: 0,
        acknowledge_types: vec![ACCEPT],
    }];
    let partition =
        share_acknowledge::AcknowledgePartition { partition_index: 0, acknowledgement_batches: batches };
    let twice = share_acknowledge::AcknowledgeTopic {
        topic_id: topic,
        partitions: vec![partition.clone(), partition],
    };
    let request = ShareAcknowledgeRequest {
        group_id: Some("s".into()),
        member_id: Some("m".into()),
        share_session_epoch: member.epoch,
        is_renew_ack: false,
        topics: vec![twice],
    };
    let response = member.client.call(2, &request).await.responses.remove(0);
    assert_eq!(response.partitions.len(), 1);
    assert_eq!(code(response.partitions[0].error_code), ErrorCode::InvalidRequest);
    member.vanish().await;
    let partition =
        |start_offset| AlterShareGroupOffsetsRequestPartition { partition_index: 0, start_offset };
    let partitions = vec![partition(1), partition(2)];
    let topic = AlterShareGroupOffsetsRequestTopic { topic_name: "t".into(), partitions };
    let request = AlterShareGroupOffsetsRequest { group_id: "s".into(), topics: vec![topic] };
    let response = client.call(0, &request).await.responses.remove(0);
    let codes: Vec<_> = response.partitions.iter().map(|partition| code(partition.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest, ErrorCode::InvalidRequest]);
    let topic = DescribeShareGroupOffsetsRequestTopic { topic_name: "t".into(), partitions: vec![0, 0] };
    let group = DescribeShareGroupOffsetsRequestGroup { group_id: "s".into(), topics: Some(vec![topic]) };
    let request = DescribeShareGroupOffsetsRequest { groups: vec![group.clone(), group] };
    let groups = client.call(1, &request).await.groups;
    assert_eq!((groups.len(), groups[0].topics[0].partitions.len()), (1, 1));
    assert_eq!(groups[0].topics[0].partitions[0].start_offset, 0);
}

#[tokio::test]
async fn clients_find_that_share_groups_are_there() {
    let broker = start(&[]).await;
    let mut client = broker.client();
    let request =
        ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1".into() };
    let response = client.call(4, &request).await;
    let level = response.finalized_features.iter().find(|it| it.name == "share.version");
    assert_eq!(level.map(|it| it.max_version_level), Some(1));
    for key in [76, 77, 78, 79, 83, 84, 85, 86, 87, 90, 91, 92] {
        assert!(response.api_keys.iter().any(|it| it.api_key == key), "{key}");
    }
    for (key, expected) in
        [("s:AAAAAAAAAAAAAAAAAAAACQ:0", ErrorCode::None), ("s:0", ErrorCode::InvalidRequest)]
    {
        let mut found = ErrorCode::CoordinatorNotAvailable;
        for _ in 0..100 {
            let request = FindCoordinatorRequest {
                key_type: 2,
                coordinator_keys: vec![key.into()],
                ..Default::default()
            };
            found = code(client.call(6, &request).await.coordinators[0].error_code);
            if found != ErrorCode::CoordinatorNotAvailable {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(found, expected, "{key}");
    }
}

/// Members take and give back at once; every record is accepted exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_members_have_each_record_once() {
    let (broker, mut client, topic) = prepared(&[("group.share.delivery.count.limit", "10")]).await;
    let values: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    for values in values.chunks(7) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        client.produce("t", 0, batch_with(Compression::Lz4, None, &values)).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    let total = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for number in 0..3 {
        let mut member = Member::join(&broker, &format!("m{number}"), "t", topic).await;
        let total = std::sync::Arc::clone(&total);
        tasks.spawn(async move {
            let mut accepted = Vec::new();
            let mut turn = 0usize;
            while total.load(std::sync::atomic::Ordering::Relaxed) < 300 {
                let mut request = member.request(Vec::new());
                (request.max_wait_ms, request.max_records) = (100, 10);
                for (offset, _, deliveries) in given(&member.fetch_with(&request).await) {
                    turn += 1;
                    let releases = turn.is_multiple_of(5) && deliveries < 9;
                    let kind = if releases { RELEASE } else { ACCEPT };
                    assert_eq!(member.acknowledge(&[(offset, offset, kind)]).await, ErrorCode::None);
                    if !releases {
                        accepted.push(offset);
                        total.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            }
            accepted
        });
    }
    let mut all: Vec<i64> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<i64>>());
}
