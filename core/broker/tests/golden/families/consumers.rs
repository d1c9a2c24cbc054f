//! Groups of the new protocol (KIP-848).

use towpath_wire::consumer_group_heartbeat::TopicPartitions;
use towpath_wire::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DescribeGroupsRequest, HeartbeatRequest,
    ListGroupsRequest,
};

use super::{coordinators, make};
use crate::talk::{Talk, versions};

/// Ids that members give themselves (KIP-1082).
fn member(n: i16) -> String {
    format!("AAAAAAAAAAAAAAAAAAAA{n}A")
}

pub(super) async fn run(talk: &mut Talk<'_>) {
    make(talk, "consumed", 2, &[]).await;
    coordinators(talk).await;
    for version in versions::<ConsumerGroupHeartbeatRequest>() {
        let group = format!("consumers-v{version}");
        lifetime(talk, version, &group).await;
        refused(talk, version, &group).await;
    }
    describe(talk).await;
    others(talk).await;
}

fn joining(group: &str, member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch: 0,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["consumed".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

fn beating(group: &str, member: &str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch,
        ..Default::default()
    }
}

async fn lifetime(talk: &mut Talk<'_>, version: i16, group: &str) {
    let me = member(version);
    let joined = if version == 0 {
        // In version 0 the coordinator makes up the id.
        let request = joining(group, "");
        talk.call_naming(version, "joins without an id", &request, |it, names| {
            names.text(it.member_id.as_deref().unwrap_or_default(), "member");
        })
        .await
    } else {
        talk.call(version, "joins", &joining(group, &me)).await
    };
    let me = joined.member_id.clone().unwrap_or(me);
    let epoch = joined.member_epoch;
    talk.call(version, "is there", &beating(group, &me, epoch)).await;
    let mut request = beating(group, &me, epoch);
    request.topic_partitions = joined.assignment.map(|it| it.topic_partitions);
    talk.call(version, "has what it was given", &request).await;
    talk.call(version, "an epoch to come", &beating(group, &me, epoch + 5)).await;
    talk.call(version, "an epoch before", &beating(group, &me, epoch - 1)).await;
    talk.call(version, "joins once more", &joining(group, &me)).await;
    let mut request = beating(group, &me, epoch);
    request.subscribed_topic_names = Some(vec!["consumed".to_owned(), "nowhere".to_owned()]);
    talk.call(version, "another subscription", &request).await;
    let mut request = joining(group, &member(version + 4));
    request.instance_id = Some("fixed".to_owned());
    talk.call(version, "a static member joins", &request).await;
    request.member_id = member(version + 6);
    talk.call(version, "a static member's name is taken", &request).await;
    let mut request = beating(group, &member(version + 4), -2);
    request.instance_id = Some("fixed".to_owned());
    talk.call(version, "a static member goes for a while", &request).await;
}

async fn refused(talk: &mut Talk<'_>, version: i16, group: &str) {
    let me = member(8);
    talk.call(version, "an unknown member", &beating(group, &me, 1)).await;
    talk.call(version, "an unknown group", &beating("nowhere", &me, 1)).await;
    talk.call(version, "no group", &joining("", &me)).await;
    talk.call(version, "no id", &beating(group, "", 1)).await;
    let mut request = joining(group, &me);
    request.rebalance_timeout_ms = -1;
    talk.call(version, "joins without a timeout", &request).await;
    let mut request = joining(group, &me);
    request.subscribed_topic_names = None;
    talk.call(version, "joins without a subscription", &request).await;
    let mut request = joining(group, &me);
    request.topic_partitions = None;
    talk.call(version, "joins without saying what it has", &request).await;
    let mut request = joining(group, &me);
    request.topic_partitions =
        Some(vec![TopicPartitions { topic_id: uuid::Uuid::from_u128(7), partitions: vec![0] }]);
    talk.call(version, "joins with what it cannot have", &request).await;
    let mut request = joining(group, &me);
    request.server_assignor = Some("nothing".to_owned());
    talk.call(version, "no such assignor", &request).await;
    let mut request = joining(group, &me);
    request.instance_id = Some(String::new());
    talk.call(version, "an empty static name", &request).await;
    let mut request = joining(group, &me);
    request.rack_id = Some(String::new());
    talk.call(version, "an empty rack", &request).await;
    talk.call(version, "leaves for a while without a static name", &beating(group, &me, -2)).await;
    talk.call(version, "no such epoch", &beating(group, &me, -3)).await;
    if version >= 1 {
        talk.call(version, "joins without an id", &joining(group, "")).await;
        let mut request = joining(group, &me);
        request.subscribed_topic_names = None;
        request.subscribed_topic_regex = Some("consumed(".to_owned());
        talk.call(version, "no regular expression", &request).await;
    }
}

async fn describe(talk: &mut Talk<'_>) {
    for version in versions::<ConsumerGroupDescribeRequest>() {
        let of = |groups: &[&str]| ConsumerGroupDescribeRequest {
            group_ids: groups.iter().map(|it| (*it).to_owned()).collect(),
            ..Default::default()
        };
        let group = format!("described-by-v{version}");
        talk.ask(1, &joining(&group, &member(version))).await;
        talk.call(version, "a group", &of(&[&group])).await;
        talk.call(version, "an unknown group", &of(&["nowhere"])).await;
        talk.call(version, "no name", &of(&[""])).await;
        talk.call(version, "none", &of(&[])).await;
        let mut request = of(&[&group]);
        request.include_authorized_operations = true;
        talk.call(version, "authorized operations", &request).await;
        let left = talk.call(1, &format!("leaves, {version}"), &beating(&group, &member(version), -1)).await;
        assert_eq!(left.error_code, 0);
        talk.call(version, "a group that is empty", &of(&[&group])).await;
    }
}

/// What the APIs of classic groups make of it.
async fn others(talk: &mut Talk<'_>) {
    let group = "described-by-v0".to_owned();
    for version in versions::<DescribeGroupsRequest>() {
        let request = DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
        talk.call(version, "a group of the new kind", &request).await;
    }
    let request =
        HeartbeatRequest { group_id: group, generation_id: 1, member_id: member(0), ..Default::default() };
    talk.call(4, "to a group of the new kind", &request).await;
    for version in versions::<ListGroupsRequest>() {
        let mut request = ListGroupsRequest::default();
        if version >= 4 {
            request.states_filter = vec!["Empty".to_owned()];
        }
        if version >= 5 {
            request.types_filter = vec!["Consumer".to_owned()];
        }
        talk.call(version, "all groups, or the empty ones of the new kind", &request).await;
    }
}
