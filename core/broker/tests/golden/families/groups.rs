//! Groups of the classic protocol, and the offsets of groups.

use bytes::Bytes;
use towpath_wire::join_group::JoinGroupRequestProtocol;
use towpath_wire::leave_group::MemberIdentity;
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use towpath_wire::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use towpath_wire::sync_group::SyncGroupRequestAssignment;
use towpath_wire::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    SyncGroupRequest,
};
use uuid::Uuid;

use super::{coordinators, make};
use crate::talk::{Talk, versions};

/// An id that no topic has.
const NO_TOPIC: Uuid = Uuid::from_u128(0x0bad_0bad_0bad_0bad_0bad_0bad_0bad_0bad);
/// A subscription to the topic `groups`, version 0, without user data.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x06groups\xff\xff\xff\xff";

pub(super) async fn run(talk: &mut Talk<'_>) {
    let id = make(talk, "groups", 2, &[]).await;
    coordinators(talk).await;
    find(talk).await;
    for version in versions::<JoinGroupRequest>() {
        join(talk, version).await;
    }
    let member = stable(talk, "stable").await;
    sync(talk, &member).await;
    heartbeat(talk, &member).await;
    describe(talk, &member).await;
    commit(talk, &member, id).await;
    fetch(talk, id).await;
    list(talk).await;
    delete_offsets(talk).await;
    leave(talk).await;
    describe_left(talk).await;
    delete(talk).await;
}

async fn find(talk: &mut Talk<'_>) {
    for version in versions::<FindCoordinatorRequest>() {
        let of = |key_type: i8, keys: &[&str]| {
            let mut request = FindCoordinatorRequest { key_type, ..Default::default() };
            if version >= 4 {
                request.coordinator_keys = keys.iter().map(|it| (*it).to_owned()).collect();
            } else {
                request.key = keys[0].to_owned();
            }
            request
        };
        talk.call(version, "a group's", &of(0, &["a-group"])).await;
        talk.call(version, "of an empty name", &of(0, &[""])).await;
        if version >= 1 {
            talk.call(version, "a transaction's", &of(1, &["an-id"])).await;
            talk.call(version, "of no such kind", &of(9, &["a-group"])).await;
        }
        if version >= 4 {
            talk.call(version, "of two groups", &of(0, &["a-group", "another"])).await;
            talk.call(version, "of none", &of(0, &[])).await;
        }
        if version >= 1 {
            // Share groups' came with version 6 (KIP-932).
            talk.call(version, "a share partition's, misspelt", &of(2, &["a-group"])).await;
        }
    }
}

fn joining(version: i16, group: &str, member: &str, protocols: &[&str]) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: if version >= 1 { 30_000 } else { -1 },
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: protocols
            .iter()
            .map(|name| JoinGroupRequestProtocol {
                name: (*name).to_owned(),
                metadata: Bytes::from_static(SUBSCRIPTION),
            })
            .collect(),
        ..Default::default()
    }
}

async fn join(talk: &mut Talk<'_>, version: i16) {
    let group = format!("joined-by-v{version}");
    let request = joining(version, &group, "", &["range"]);
    let mut joined = talk
        .call_naming(version, "a first member", &request, |it, names| names.text(&it.member_id, "member"))
        .await;
    if version >= 4 {
        let request = joining(version, &group, &joined.member_id, &["range"]);
        joined = talk.call(version, "with the id that it was given", &request).await;
    }
    let request = joining(version, &group, &joined.member_id, &["range"]);
    talk.call(version, "once more, before the leader has assigned", &request).await;
    talk.call(version, "an unknown member", &joining(version, &group, "nobody-000000000000", &["range"]))
        .await;
    let mut request = joining(version, &group, "", &["range"]);
    request.session_timeout_ms = 1;
    talk.call(version, "too short a session", &request).await;
    request.session_timeout_ms = i32::MAX;
    talk.call(version, "too long a session", &request).await;
    talk.call(version, "no protocols", &joining(version, "empty", "", &[])).await;
    let mut request = joining(version, &group, "", &["range"]);
    request.protocol_type = "connect".to_owned();
    talk.call_naming(version, "another type of protocol", &request, |it, names| {
        names.text(&it.member_id, "member");
    })
    .await;
    let mut request = joining(version, "typeless", "", &["range"]);
    request.protocol_type = String::new();
    talk.call_naming(version, "no type of protocol", &request, |it, names| {
        names.text(&it.member_id, "member");
    })
    .await;
    let other = joining(version, &group, "", &["roundrobin"]);
    talk.call_naming(version, "no protocol in common", &other, |it, names| {
        names.text(&it.member_id, "member");
    })
    .await;
    talk.call(version, "no group", &joining(version, "", "", &["range"])).await;
    if version >= 5 {
        fixed(talk, version, &format!("fixed-by-v{version}")).await;
    }
}

/// Static members (KIP-345).
async fn fixed(talk: &mut Talk<'_>, version: i16, group: &str) {
    let mut request = joining(version, group, "", &["range"]);
    request.group_instance_id = Some("fixed".to_owned());
    let first = talk
        .call_naming(version, "a static member", &request, |it, names| names.text(&it.member_id, "member"))
        .await;
    let sync = syncing(group, first.generation_id, &first.member_id);
    let sync = SyncGroupRequest { group_instance_id: Some("fixed".to_owned()), ..sync };
    assert_eq!(talk.ask(3, &sync).await.error_code, 0);
    talk.call_naming(version, "a static member is back", &request, |it, names| {
        names.text(&it.member_id, "member");
    })
    .await;
    request.member_id = first.member_id.clone();
    talk.call(version, "a static member that was replaced", &request).await;
}

fn syncing(group: &str, generation_id: i32, member: &str) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id,
        member_id: member.to_owned(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: member.to_owned(),
            assignment: Bytes::from_static(b"all"),
        }],
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        ..Default::default()
    }
}

/// A group with one member that has everything.
async fn stable(talk: &mut Talk<'_>, group: &str) -> String {
    let given = talk.ask(9, &joining(9, group, "", &["range"])).await;
    talk.names.text(&given.member_id, "member");
    let joined = talk.ask(9, &joining(9, group, &given.member_id, &["range"])).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(talk.ask(5, &syncing(group, 1, &joined.member_id)).await.error_code, 0);
    joined.member_id
}

async fn sync(talk: &mut Talk<'_>, member: &str) {
    for version in versions::<SyncGroupRequest>() {
        talk.call(version, "once more", &syncing("stable", 1, member)).await;
        talk.call(version, "an old generation", &syncing("stable", 0, member)).await;
        talk.call(version, "a generation to come", &syncing("stable", 2, member)).await;
        talk.call(version, "an unknown member", &syncing("stable", 1, "nobody-000000000000")).await;
        talk.call(version, "an unknown group", &syncing("nowhere", 1, member)).await;
        talk.call(version, "no group", &syncing("", 1, member)).await;
        if version >= 3 {
            let mut request = syncing("stable", 1, member);
            request.group_instance_id = Some("nobody".to_owned());
            talk.call(version, "an unknown static member", &request).await;
        }
        if version >= 5 {
            let mut request = syncing("stable", 1, member);
            request.protocol_type = Some("consumer".to_owned());
            request.protocol_name = Some("roundrobin".to_owned());
            talk.call(version, "another protocol", &request).await;
            request.protocol_type = Some("connect".to_owned());
            request.protocol_name = Some("range".to_owned());
            talk.call(version, "another type of protocol", &request).await;
            request.protocol_type = None;
            talk.call(version, "no type of protocol", &request).await;
            request.protocol_type = Some("consumer".to_owned());
            request.protocol_name = None;
            talk.call(version, "no protocol", &request).await;
        }
    }
}

async fn heartbeat(talk: &mut Talk<'_>, member: &str) {
    for version in versions::<HeartbeatRequest>() {
        let of = |group: &str, generation_id, member: &str| HeartbeatRequest {
            group_id: group.to_owned(),
            generation_id,
            member_id: member.to_owned(),
            ..Default::default()
        };
        talk.call(version, "a member", &of("stable", 1, member)).await;
        talk.call(version, "an old generation", &of("stable", 0, member)).await;
        talk.call(version, "an unknown member", &of("stable", 1, "nobody-000000000000")).await;
        talk.call(version, "an unknown group", &of("nowhere", 1, member)).await;
        talk.call(version, "no group", &of("", 1, member)).await;
        if version >= 3 {
            let mut request = of("stable", 1, member);
            request.group_instance_id = Some("nobody".to_owned());
            talk.call(version, "an unknown static member", &request).await;
        }
    }
}

async fn describe(talk: &mut Talk<'_>, _member: &str) {
    for version in versions::<DescribeGroupsRequest>() {
        let of = |groups: &[&str]| DescribeGroupsRequest {
            groups: groups.iter().map(|it| (*it).to_owned()).collect(),
            ..Default::default()
        };
        // In-process clients have no address; over TCP Kafka shows one.
        talk.call(version, "a stable group", &of(&["stable"])).await;
        talk.call(version, "an unknown group", &of(&["nowhere"])).await;
        talk.call(version, "an empty name", &of(&[""])).await;
        talk.call(version, "none", &of(&[])).await;
        if version >= 3 {
            let mut request = of(&["stable", "nowhere"]);
            request.include_authorized_operations = true;
            talk.call(version, "authorized operations", &request).await;
        }
    }
}

fn committing(version: i16, group: &str, member: (&str, i32), topic: (&str, Uuid)) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: member.1,
        member_id: member.0.to_owned(),
        topics: vec![OffsetCommitRequestTopic {
            name: if version >= 10 { String::new() } else { topic.0.to_owned() },
            topic_id: if version >= 10 { topic.1 } else { Uuid::nil() },
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 40 + i64::from(version),
                committed_metadata: Some("note".to_owned()),
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

async fn commit(talk: &mut Talk<'_>, member: &str, id: Uuid) {
    let topic = ("groups", id);
    let none = ("", -1);
    for version in versions::<OffsetCommitRequest>() {
        let me = (member, 1);
        talk.call(version, "of a member", &committing(version, "stable", me, topic)).await;
        talk.call(version, "of a group without members", &committing(version, "simple", none, topic)).await;
        talk.call(
            version,
            "of no member, of a group with members",
            &committing(version, "stable", none, topic),
        )
        .await;
        talk.call(version, "an old generation", &committing(version, "stable", (member, 0), topic)).await;
        talk.call(
            version,
            "an unknown member",
            &committing(version, "stable", ("nobody-000000000000", 1), topic),
        )
        .await;
        talk.call(version, "an unknown group", &committing(version, "nowhere", me, topic)).await;
        talk.call(version, "no group", &committing(version, "", none, topic)).await;
        let nowhere = ("nowhere", NO_TOPIC);
        talk.call(version, "unknown topic", &committing(version, "simple", none, nowhere)).await;
        let mut request = committing(version, "simple", none, topic);
        request.topics[0].partitions[0].partition_index = 7;
        talk.call(version, "unknown partition", &request).await;
        let mut request = committing(version, "simple", none, topic);
        request.topics[0].partitions[0].committed_metadata = Some("x".repeat(4097));
        if version == 2 || version == 10 {
            talk.call(version, "too much metadata", &request).await;
        }
        request.topics[0].partitions[0].committed_metadata = None;
        request.topics[0].partitions[0].partition_index = 1;
        talk.call(version, "no metadata", &request).await;
        if version >= 6 {
            request.topics[0].partitions[0].committed_leader_epoch = 3;
            talk.call(version, "with the leader's epoch", &request).await;
        }
        if version >= 7 {
            let mut request = committing(version, "stable", me, topic);
            request.group_instance_id = Some("nobody".to_owned());
            talk.call(version, "an unknown static member", &request).await;
        }
        let request =
            OffsetCommitRequest { topics: Vec::new(), ..committing(version, "simple", none, topic) };
        talk.call(version, "nothing", &request).await;
    }
}

async fn fetch(talk: &mut Talk<'_>, id: Uuid) {
    for version in versions::<OffsetFetchRequest>() {
        let of = |group: &str, topics: Option<&[(&str, Uuid, &[i32])]>| {
            let mut request = OffsetFetchRequest::default();
            if version < 8 {
                request.group_id = group.to_owned();
                request.topics = topics.map(|all| {
                    all.iter()
                        .map(|(name, _, partitions)| OffsetFetchRequestTopic {
                            name: (*name).to_owned(),
                            partition_indexes: partitions.to_vec(),
                        })
                        .collect()
                });
                return request;
            }
            let topics = topics.map(|all| {
                all.iter()
                    .map(|(name, id, partitions)| OffsetFetchRequestTopics {
                        name: if version >= 10 { String::new() } else { (*name).to_owned() },
                        topic_id: if version >= 10 { *id } else { Uuid::nil() },
                        partition_indexes: partitions.to_vec(),
                    })
                    .collect()
            });
            let group = OffsetFetchRequestGroup { group_id: group.to_owned(), topics, ..Default::default() };
            request.groups = vec![group];
            request
        };
        let both: &[(&str, Uuid, &[i32])] = &[("groups", id, &[0, 1, 7])];
        talk.call(version, "what is there and what is not", &of("simple", Some(both))).await;
        talk.call(version, "an unknown group", &of("nowhere", Some(both))).await;
        talk.call(version, "no group", &of("", Some(both))).await;
        let nowhere: &[(&str, Uuid, &[i32])] = &[("nowhere", NO_TOPIC, &[0])];
        talk.call(version, "unknown topic", &of("simple", Some(nowhere))).await;
        talk.call(version, "no topic", &of("simple", Some(&[]))).await;
        if version >= 2 {
            talk.call(version, "all topics", &of("stable", None)).await;
        }
        if version >= 7 {
            let mut request = of("simple", Some(both));
            request.require_stable = true;
            talk.call(version, "stable only", &request).await;
        }
        if version >= 8 {
            let mut request = of("simple", Some(both));
            request.groups.extend(of("nowhere", None).groups);
            talk.call(version, "two groups", &request).await;
        }
        if version >= 9 {
            let mut request = of("simple", Some(both));
            request.groups[0].member_id = Some("nobody".to_owned());
            request.groups[0].member_epoch = 3;
            talk.call(version, "an unknown member", &request).await;
        }
    }
}

async fn list(talk: &mut Talk<'_>) {
    // Only the groups of one state: which ones those are does not depend on timeouts.
    for version in versions::<ListGroupsRequest>() {
        if version >= 4 {
            let of = |states: &[&str], types: &[&str]| ListGroupsRequest {
                states_filter: states.iter().map(|it| (*it).to_owned()).collect(),
                types_filter: types.iter().map(|it| (*it).to_owned()).collect(),
            };
            talk.call(version, "stable ones", &of(&["stable"], &[])).await;
            talk.call(version, "of no such state", &of(&["nothing"], &[])).await;
            if version >= 5 {
                talk.call(version, "stable and classic ones", &of(&["Stable"], &["classic"])).await;
                talk.call(version, "stable and new ones", &of(&["Stable"], &["consumer"])).await;
                talk.call(version, "of no such type", &of(&[], &["nothing"])).await;
            }
        }
    }
}

async fn delete_offsets(talk: &mut Talk<'_>) {
    let of = |group: &str, topic: &str, partition_index| OffsetDeleteRequest {
        group_id: group.to_owned(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.to_owned(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index }],
        }],
    };
    talk.call(0, "an offset", &of("simple", "groups", 1)).await;
    talk.call(0, "an offset that is not there", &of("simple", "groups", 1)).await;
    talk.call(0, "of a topic that the group has subscribed to", &of("stable", "groups", 0)).await;
    talk.call(0, "unknown topic", &of("simple", "nowhere", 0)).await;
    talk.call(0, "unknown partition", &of("simple", "groups", 7)).await;
    talk.call(0, "an unknown group", &of("nowhere", "groups", 0)).await;
    talk.call(0, "no group", &of("", "groups", 0)).await;
}

/// A group stays when its last member has left.
async fn describe_left(talk: &mut Talk<'_>) {
    for version in versions::<DescribeGroupsRequest>() {
        let request = DescribeGroupsRequest { groups: vec!["left-by-v3".to_owned()], ..Default::default() };
        talk.call(version, "a group that all have left", &request).await;
    }
}

async fn leave(talk: &mut Talk<'_>) {
    for version in versions::<LeaveGroupRequest>() {
        let group = format!("left-by-v{version}");
        let member = stable(talk, &group).await;
        let of = |group: &str, member: &str| {
            let mut request = LeaveGroupRequest { group_id: group.to_owned(), ..Default::default() };
            if version >= 3 {
                let identity = MemberIdentity { member_id: member.to_owned(), ..Default::default() };
                request.members = vec![identity];
            } else {
                request.member_id = member.to_owned();
            }
            request
        };
        talk.call(version, "an unknown member", &of(&group, "nobody-000000000000")).await;
        talk.call(version, "an unknown group", &of("nowhere", &member)).await;
        talk.call(version, "no group", &of("", &member)).await;
        if version >= 3 {
            let mut request = of(&group, "");
            request.members[0].group_instance_id = Some("nobody".to_owned());
            talk.call(version, "an unknown static member", &request).await;
            request.members.clear();
            talk.call(version, "nobody", &request).await;
        }
        if version >= 5 {
            let mut request = of(&group, &member);
            request.members[0].reason = Some("enough".to_owned());
            talk.call(version, "a member, with a reason", &request).await;
        }
        talk.call(version, "a member", &of(&group, &member)).await;
        talk.call(version, "a member that has left", &of(&group, &member)).await;
    }
}

async fn delete(talk: &mut Talk<'_>) {
    for version in versions::<DeleteGroupsRequest>() {
        let of = |groups: &[&str]| DeleteGroupsRequest {
            groups_names: groups.iter().map(|it| (*it).to_owned()).collect(),
        };
        let group = format!("left-by-v{version}");
        talk.call(version, "an empty group", &of(&[&group])).await;
        talk.call(version, "a group that is gone", &of(&[&group])).await;
        talk.call(version, "a group with members", &of(&["stable"])).await;
        talk.call(version, "no name", &of(&[""])).await;
        talk.call(version, "none", &of(&[])).await;
    }
}
