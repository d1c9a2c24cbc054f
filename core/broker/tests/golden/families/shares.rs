//! Share groups (KIP-932): the group, records given out and acknowledged, and the states that leaders keep.

use towpath_wire::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use towpath_wire::delete_share_group_offsets::DeleteShareGroupOffsetsRequestTopic;
use towpath_wire::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::share_acknowledge::{AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch};
use towpath_wire::share_fetch::{self, FetchPartition, FetchTopic, ForgottenTopic};
use towpath_wire::{
    AlterShareGroupOffsetsRequest, DeleteGroupsRequest, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupStateRequest, DescribeShareGroupOffsetsRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitializeShareGroupStateRequest, ListGroupsRequest,
    ReadShareGroupStateRequest, ReadShareGroupStateSummaryRequest, ShareAcknowledgeRequest,
    ShareFetchRequest, ShareGroupDescribeRequest, ShareGroupHeartbeatRequest, WriteShareGroupStateRequest,
    delete_share_group_state, initialize_share_group_state, read_share_group_state,
    read_share_group_state_summary, write_share_group_state,
};
use uuid::Uuid;

use super::{batch, coordinators, make, produce};
use crate::talk::{Talk, versions};

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const RENEW: i8 = 4;

/// Ids that members give themselves.
fn member(n: i16) -> String {
    format!("BBBBBBBBBBBBBBBBBBBB{n}B")
}

pub(super) async fn run(talk: &mut Talk<'_>) {
    let topic = make(talk, "shared", 1, &[]).await;
    coordinators(talk).await;
    state_topic(talk, topic).await;
    groups(talk).await;
    for version in versions::<ShareFetchRequest>() {
        records(talk, version, topic).await;
    }
    states(talk, topic).await;
    offsets(talk).await;
}

/// Waits until the coordinator of states serves.
async fn state_topic(talk: &mut Talk<'_>, topic: Uuid) {
    for n in 0..16 {
        let key = format!("probe-{n}:{}:0", towpath_types::TopicId::new(topic));
        let request =
            FindCoordinatorRequest { key_type: 2, coordinator_keys: vec![key], ..Default::default() };
        talk.until(6, &request, |it| it.coordinators[0].error_code == 0).await;
    }
}

fn joining(group: &str, member: &str) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch: 0,
        subscribed_topic_names: Some(vec!["shared".to_owned()]),
        ..Default::default()
    }
}

fn beating(group: &str, member: &str, member_epoch: i32) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest { member_epoch, subscribed_topic_names: None, ..joining(group, member) }
}

/// Joins, and waits until the member has something.
async fn join(talk: &mut Talk<'_>, group: &str, me: &str) -> i32 {
    let assigned = |it: &towpath_wire::ShareGroupHeartbeatResponse| {
        it.assignment.as_ref().is_some_and(|it| !it.topic_partitions.is_empty())
    };
    talk.until(1, &joining(group, me), assigned).await.member_epoch
}

async fn groups(talk: &mut Talk<'_>) {
    let (group, me) = ("shares", member(0));
    let epoch = join(talk, group, &me).await;
    for version in versions::<ShareGroupHeartbeatRequest>() {
        talk.call(version, "is there", &beating(group, &me, epoch)).await;
        talk.call(version, "an epoch to come", &beating(group, &me, epoch + 5)).await;
        talk.call(version, "joins once more", &joining(group, &me)).await;
        talk.call(version, "an unknown member", &beating(group, &member(8), 1)).await;
        talk.call(version, "an unknown group", &beating("nowhere", &me, 1)).await;
        talk.call(version, "no group", &joining("", &me)).await;
        talk.call(version, "no id", &joining(group, "")).await;
        talk.call(version, "no such epoch", &beating(group, &me, -2)).await;
        talk.call(version, "joins without a subscription", &beating(group, &me, 0)).await;
        let rack = ShareGroupHeartbeatRequest { rack_id: Some(String::new()), ..joining(group, &me) };
        talk.call(version, "an empty rack", &rack).await;
    }
    for version in versions::<ShareGroupDescribeRequest>() {
        let of = |groups: &[&str], include_authorized_operations| ShareGroupDescribeRequest {
            group_ids: groups.iter().map(|it| (*it).to_owned()).collect(),
            include_authorized_operations,
        };
        talk.call(version, "a group", &of(&[group], false)).await;
        talk.call(version, "authorized operations", &of(&[group], true)).await;
        talk.call(version, "an unknown group", &of(&["nowhere"], false)).await;
        talk.call(version, "no name", &of(&[""], false)).await;
        talk.call(version, "none", &of(&[], false)).await;
    }
    let list = ListGroupsRequest { types_filter: vec!["Share".to_owned()], ..Default::default() };
    talk.call(5, "share groups", &list).await;
    talk.call(1, "leaves", &beating(group, &me, -1)).await;
    let describe = ShareGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
    talk.call(1, "a group that is empty", &describe).await;
    talk.call(2, "a share group", &DeleteGroupsRequest { groups_names: vec![group.to_owned()] }).await;
}

async fn from_the_beginning(talk: &mut Talk<'_>, group: &str) {
    let config = AlterableConfig {
        name: "share.auto.offset.reset".to_owned(),
        value: Some("earliest".to_owned()),
        ..Default::default()
    };
    let resource =
        AlterConfigsResource { resource_type: 32, resource_name: group.to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_eq!(talk.ask(1, &request).await.responses[0].error_code, 0);
}

/// A request to fetch, without waiting.
fn fetching(group: &str, me: &str, topic_id: Uuid, share_session_epoch: i32) -> ShareFetchRequest {
    let partition = FetchPartition { partition_index: 0, acknowledgement_batches: Vec::new() };
    ShareFetchRequest {
        group_id: Some(group.to_owned()),
        member_id: Some(me.to_owned()),
        share_session_epoch,
        max_wait_ms: 200,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_records: 10,
        batch_size: 10,
        topics: vec![FetchTopic { topic_id, partitions: vec![partition] }],
        ..Default::default()
    }
}

fn saying(
    group: &str,
    me: &str,
    topic_id: Uuid,
    share_session_epoch: i32,
    batches: &[(i64, i64, i8)],
) -> ShareAcknowledgeRequest {
    let batch = |(first_offset, last_offset, kind): &(i64, i64, i8)| AcknowledgementBatch {
        first_offset: *first_offset,
        last_offset: *last_offset,
        acknowledge_types: vec![*kind],
    };
    let partition = AcknowledgePartition {
        partition_index: 0,
        acknowledgement_batches: batches.iter().map(batch).collect(),
    };
    ShareAcknowledgeRequest {
        group_id: Some(group.to_owned()),
        member_id: Some(me.to_owned()),
        share_session_epoch,
        is_renew_ack: false,
        topics: vec![AcknowledgeTopic { topic_id, partitions: vec![partition] }],
    }
}

async fn records(talk: &mut Talk<'_>, version: i16, topic: Uuid) {
    let group = format!("fetchers-v{version}");
    let me = member(version);
    let values = ["a", "b", "c", "d"];
    talk.ask(9, &produce(9, ("shared", topic), 0, Some(batch(None, &values)))).await;
    let first = 4 * i64::from(version - 1);
    from_the_beginning(talk, &group).await;
    join(talk, &group, &me).await;
    let fetch = |epoch| fetching(&group, &me, topic, epoch);
    let say = |epoch, batches: &[(i64, i64, i8)]| saying(&group, &me, topic, epoch, batches);
    talk.call(version, "no session", &fetch(3)).await;
    talk.call(version, "no session to acknowledge in", &say(3, &[])).await;
    // Whoever is first waits until the state is read.
    let is_given = |it: &towpath_wire::ShareFetchResponse| {
        it.responses.iter().flat_map(|it| &it.partitions).any(|it| !it.acquired_records.is_empty())
    };
    talk.until(version, &fetch(0), is_given).await;
    talk.call(version, "releases all", &say(1, &[(0, first + 3, RELEASE)])).await;
    talk.call(version, "everything", &fetch(2)).await;
    talk.call(version, "another epoch than is due", &fetch(9)).await;
    talk.call(version, "acknowledges with another epoch than is due", &say(9, &[])).await;
    talk.call(version, "accepts one and releases one", &say(3, &[(0, 0, ACCEPT), (1, 1, RELEASE)])).await;
    talk.call(version, "accepts what it does not have", &say(4, &[(1, 1, ACCEPT)])).await;
    talk.call(version, "accepts what there is not", &say(5, &[(900, 900, ACCEPT)])).await;
    talk.call(version, "says nothing that is known", &say(6, &[(2, 2, 9)])).await;
    let mut request = fetch(7);
    request.topics[0].partitions[0].acknowledgement_batches = vec![share_fetch::AcknowledgementBatch {
        first_offset: 2,
        last_offset: 2,
        acknowledge_types: vec![ACCEPT],
    }];
    talk.call(version, "accepts and fetches", &request).await;
    if version >= 2 {
        let mut request = say(8, &[(3, 3, RENEW)]);
        request.is_renew_ack = true;
        talk.call(version, "renews", &request).await;
    } else {
        talk.call(version, "nothing", &say(8, &[])).await;
    }
    let mut request = fetch(9);
    request.topics =
        vec![FetchTopic { topic_id: Uuid::from_u128(99), partitions: vec![FetchPartition::default()] }];
    request.forgotten_topics_data = vec![ForgottenTopic { topic_id: topic, partitions: vec![0] }];
    talk.call(version, "an unknown topic", &request).await;
    talk.call(version, "no group", &ShareFetchRequest { group_id: None, ..fetch(0) }).await;
    talk.call(version, "no member", &ShareFetchRequest { member_id: None, ..fetch(0) }).await;
    let mut request = say(-1, &[(3, 3, ACCEPT)]);
    request.topics[0].topic_id = topic;
    talk.call(version, "the last", &request).await;
    talk.call(version, "after the last", &say(-1, &[])).await;
    talk.call(version, "to begin with", &say(0, &[])).await;
    talk.ask(1, &beating(&group, &me, -1)).await;
}

async fn states(talk: &mut Talk<'_>, topic_id: Uuid) {
    let group_id = "states".to_owned();
    let request = |group: &str, state_epoch| InitializeShareGroupStateRequest {
        group_id: group.to_owned(),
        topics: vec![initialize_share_group_state::InitializeStateData {
            topic_id,
            partitions: vec![initialize_share_group_state::PartitionData {
                partition: 0,
                state_epoch,
                start_offset: 5,
            }],
        }],
    };
    let is_begun =
        |it: &towpath_wire::InitializeShareGroupStateResponse| it.results[0].partitions[0].error_code == 0;
    talk.until(0, &request(&group_id, 2), is_begun).await;
    talk.call(0, "begun", &request(&group_id, 3)).await;
    talk.call(0, "an epoch before", &request(&group_id, 1)).await;
    let read = |leader_epoch| ReadShareGroupStateRequest {
        group_id: group_id.clone(),
        topics: vec![read_share_group_state::ReadStateData {
            topic_id,
            partitions: vec![read_share_group_state::PartitionData { partition: 0, leader_epoch }],
        }],
    };
    talk.call(0, "as it begins", &read(4)).await;
    for version in versions::<WriteShareGroupStateRequest>() {
        let write = |state_epoch, leader_epoch| WriteShareGroupStateRequest {
            group_id: group_id.clone(),
            topics: vec![write_share_group_state::WriteStateData {
                topic_id,
                partitions: vec![write_share_group_state::PartitionData {
                    partition: 0,
                    state_epoch,
                    leader_epoch,
                    start_offset: 6 + i64::from(version),
                    delivery_complete_count: 1,
                    state_batches: vec![write_share_group_state::StateBatch {
                        first_offset: 8,
                        last_offset: 9 + i64::from(version),
                        delivery_state: 2,
                        delivery_count: 1,
                    }],
                }],
            }],
        };
        talk.call(version, "a change", &write(3, 4)).await;
        talk.call(version, "an old leader", &write(3, 1)).await;
        talk.call(version, "an old state", &write(1, 4)).await;
        talk.call(0, &format!("after a change, {version}"), &read(4)).await;
    }
    talk.call(0, "an old leader", &read(2)).await;
    end_of_states(talk, topic_id, group_id).await;
}

async fn end_of_states(talk: &mut Talk<'_>, topic_id: Uuid, group_id: String) {
    for version in versions::<ReadShareGroupStateSummaryRequest>() {
        let request = ReadShareGroupStateSummaryRequest {
            group_id: group_id.clone(),
            topics: vec![read_share_group_state_summary::ReadStateSummaryData {
                topic_id,
                partitions: vec![read_share_group_state_summary::PartitionData {
                    partition: 0,
                    leader_epoch: 4,
                }],
            }],
        };
        talk.call(version, "how far it is", &request).await;
    }
    let delete = DeleteShareGroupStateRequest {
        group_id,
        topics: vec![delete_share_group_state::DeleteStateData {
            topic_id,
            partitions: vec![delete_share_group_state::PartitionData { partition: 0 }],
        }],
    };
    talk.call(0, "a state", &delete).await;
}

async fn offsets(talk: &mut Talk<'_>) {
    let group = "fetchers-v1";
    let describe = |group: &str, topics: Option<&[&str]>| DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: group.to_owned(),
            topics: topics.map(|topics| {
                let topic = |name: &&str| DescribeShareGroupOffsetsRequestTopic {
                    topic_name: (*name).to_owned(),
                    partitions: vec![0],
                };
                topics.iter().map(topic).collect()
            }),
        }],
    };
    for version in versions::<DescribeShareGroupOffsetsRequest>() {
        talk.call(version, "all topics", &describe(group, None)).await;
        talk.call(version, "a topic", &describe(group, Some(&["shared"]))).await;
        talk.call(version, "an unknown topic", &describe(group, Some(&["nowhere"]))).await;
        talk.call(version, "an unknown group", &describe("nowhere", None)).await;
    }
    let alter = |group: &str, topic: &str| AlterShareGroupOffsetsRequest {
        group_id: group.to_owned(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: topic.to_owned(),
            partitions: vec![AlterShareGroupOffsetsRequestPartition { partition_index: 0, start_offset: 2 }],
        }],
    };
    talk.call(0, "an unknown topic", &alter(group, "nowhere")).await;
    talk.call(0, "an unknown group", &alter("nowhere", "shared")).await;
    talk.call(0, "set back", &alter(group, "shared")).await;
    talk.call(1, "set back", &describe(group, None)).await;
    let delete = |group: &str, topic: &str| DeleteShareGroupOffsetsRequest {
        group_id: group.to_owned(),
        topics: vec![DeleteShareGroupOffsetsRequestTopic { topic_name: topic.to_owned() }],
    };
    talk.call(0, "an unknown topic", &delete(group, "nowhere")).await;
    talk.call(0, "an unknown group", &delete("never-there", "shared")).await;
    talk.call(0, "a topic", &delete(group, "shared")).await;
    talk.call(1, "nothing left", &describe(group, None)).await;
}
