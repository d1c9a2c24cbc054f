//! Share groups when leaders and coordinators are lost.

use std::collections::BTreeSet;

use tokio::time::Instant;
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::share_acknowledge::{AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch};
use towpath_wire::share_fetch::{FetchPartition, FetchTopic};
use towpath_wire::{
    ErrorCode, FindCoordinatorRequest, IncrementalAlterConfigsRequest, ShareAcknowledgeRequest,
    ShareFetchRequest, ShareGroupHeartbeatRequest,
};
use uuid::Uuid;

use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::{Client, batch, code};

/// A session of the member `m` of the group `s` with the leader of the topic `t`.
struct Session {
    client: Client,
    epoch: i32,
    topic: Uuid,
}

impl Session {
    fn next(&mut self) -> i32 {
        self.epoch += 1;
        self.epoch - 1
    }

    /// Records that it is given.
    async fn fetch(&mut self) -> Result<Vec<i64>, ErrorCode> {
        let partition = FetchPartition { partition_index: 0, acknowledgement_batches: Vec::new() };
        let request = ShareFetchRequest {
            group_id: Some("s".to_owned()),
            member_id: Some("m".to_owned()),
            share_session_epoch: self.next(),
            max_wait_ms: 300,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records: 10,
            batch_size: 10,
            share_acquire_mode: 1,
            topics: vec![FetchTopic { topic_id: self.topic, partitions: vec![partition] }],
            ..Default::default()
        };
        let response = self.client.call(2, &request).await;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let mut offsets = Vec::new();
        for partition in partitions {
            match code(partition.error_code) {
                ErrorCode::None => {}
                error => return Err(error),
            }
            offsets.extend(partition.acquired_records.iter().flat_map(|it| it.first_offset..=it.last_offset));
        }
        match code(response.error_code) {
            ErrorCode::None => Ok(offsets),
            error => Err(error),
        }
    }

    async fn accept(&mut self, offset: i64) -> ErrorCode {
        let acknowledged =
            AcknowledgementBatch { first_offset: offset, last_offset: offset, acknowledge_types: vec![1] };
        let partition =
            AcknowledgePartition { partition_index: 0, acknowledgement_batches: vec![acknowledged] };
        let request = ShareAcknowledgeRequest {
            group_id: Some("s".to_owned()),
            member_id: Some("m".to_owned()),
            share_session_epoch: self.next(),
            is_renew_ack: false,
            topics: vec![AcknowledgeTopic { topic_id: self.topic, partitions: vec![partition] }],
        };
        let response = self.client.call(2, &request).await;
        match code(response.error_code) {
            ErrorCode::None => code(response.responses[0].partitions[0].error_code),
            error => error,
        }
    }
}

/// A session with whoever leads, with the first records that it is given.
async fn begin(cluster: &TestCluster, topic: Uuid) -> (i32, Session, Vec<i64>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = cluster.leader("t").await;
        let mut session = Session { client: cluster.client(leader), epoch: 0, topic };
        let mut told = session.fetch().await;
        for _ in 0..3 {
            if told == Ok(Vec::new()) {
                told = session.fetch().await;
            }
        }
        if let Ok(offsets) = &told
            && !offsets.is_empty()
        {
            let offsets = offsets.clone();
            return (leader, session, offsets);
        }
        assert!(Instant::now() < deadline, "{told:?}");
        moment().await;
    }
}

async fn from_the_beginning(cluster: &TestCluster) {
    let config = AlterableConfig {
        name: "share.auto.offset.reset".to_owned(),
        value: Some("earliest".to_owned()),
        ..Default::default()
    };
    let resource =
        AlterConfigsResource { resource_type: 32, resource_name: "s".to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_eq!(code(cluster.client(1).call(1, &request).await.responses[0].error_code), ErrorCode::None);
}

/// The member joins the group, and is given the topic.
async fn join(cluster: &TestCluster) {
    let deadline = Instant::now() + PATIENCE;
    let find = FindCoordinatorRequest { coordinator_keys: vec!["s".to_owned()], ..Default::default() };
    let request = ShareGroupHeartbeatRequest {
        group_id: "s".to_owned(),
        member_id: "m".to_owned(),
        member_epoch: 0,
        rack_id: None,
        subscribed_topic_names: Some(vec!["t".to_owned()]),
    };
    loop {
        for id in cluster.running() {
            let mut client = cluster.client(id);
            client.call(6, &find).await;
            let response = client.call(1, &request).await;
            if response.assignment.is_some_and(|it| !it.topic_partitions.is_empty()) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "nobody coordinates the group");
        moment().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_stays_so_when_leaders_and_coordinators_are_lost() {
    let adjust = |config: &mut towpath_broker::BrokerConfig| {
        config.set("share.coordinator.state.topic.num.partitions", "3").unwrap();
        config.set("default.replication.factor", "3").unwrap();
    };
    let mut cluster = TestCluster::start_with(3, adjust).await;
    cluster.create_topic(1, "t", 3, &[]).await;
    from_the_beginning(&cluster).await;
    join(&cluster).await;
    let topic = cluster.metadata(1, "t").await.topics[0].topic_id;
    let values: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for values in values.chunks(6) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        cluster.produce("t", batch(&values)).await;
    }
    let mut accepted = BTreeSet::new();
    for round in 0..4 {
        let (leader, mut session, offsets) = begin(&cluster, topic).await;
        for offset in offsets {
            assert!(!accepted.contains(&offset), "round {round}: {offset} was accepted");
            // Every other one is with the member when the leader goes.
            if offset % 2 == 0 && session.accept(offset).await == ErrorCode::None {
                accepted.insert(offset);
            }
        }
        assert!(!accepted.is_empty());
        if round % 2 == 0 {
            cluster.kill(leader);
        } else {
            cluster.stop(leader).await;
        }
        cluster.leader_other_than("t", leader).await;
        let (_, mut session, offsets) = begin(&cluster, topic).await;
        for offset in offsets {
            assert!(!accepted.contains(&offset), "round {round}: {offset} was accepted");
            if session.accept(offset).await == ErrorCode::None {
                accepted.insert(offset);
            }
        }
        cluster.start_node(leader).await;
        for topic in ["t", "__share_group_state"] {
            cluster.until(topic, "all in sync", |partition| partition.isr_nodes.len() == 3).await;
        }
    }
    assert!(accepted.len() >= 20, "{accepted:?}");
}
