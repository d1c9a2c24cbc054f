//! What clients are told when the data directory fails (R14): nothing pretends to work, and what was there is there
//! after the disk is well again.

use std::time::Duration;

use towpath_wire::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use towpath_wire::find_coordinator::Coordinator;
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::{
    CreateTopicsRequest, DeleteRecordsRequest, DescribeLogDirsRequest, ErrorCode, FetchRequest,
    FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
};

use crate::support::{
    Client, TestBroker, batch, code, fetch_request, produce_request, records, spoil, until,
};

async fn latest(client: &mut Client) -> ErrorCode {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() }],
        }],
        ..ListOffsetsRequest::default()
    };
    code(client.call(6, &request).await.topics[0].partitions[0].error_code)
}

async fn commit(client: &mut Client) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 1,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    code(client.call(8, &request).await.topics[0].partitions[0].error_code)
}

async fn coordinator(client: &mut Client) -> Coordinator {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec!["g".to_owned()],
        ..FindCoordinatorRequest::default()
    };
    client.call(4, &request).await.coordinators[0].clone()
}

#[tokio::test]
async fn a_failed_directory_is_told_by_every_api_until_it_is_well() {
    let test = TestBroker::start_with(|config| config.checkpoint_interval = Duration::from_millis(100)).await;
    let mut client = test.client();
    client.create_topic("t", 1, &[]).await;
    client.create_topic("flushed", 1, &[("flush.messages", "1")]).await;
    client.produce("t", 0, batch(&["a"])).await;
    assert_eq!(coordinator(&mut client).await.error_code, 0);
    while commit(&mut client).await != ErrorCode::None {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One fetch waits for records meanwhile.
    let mut reader = test.client();
    let mut waiting = fetch_request("t", 0, 1);
    waiting.max_wait_ms = 8_000;
    let waiting = reader.send(12, &waiting).await;

    spoil(test.dir.path(), "recovery-point-offset-checkpoint.tmp").await;
    until("the directory has failed", || test.broker.status().offline_reason.is_some()).await;
    assert!(test.broker.status().offline_reason.unwrap().contains("recovery-point-offset-checkpoint"));

    for topic in ["t", "flushed"] {
        for acks in [1, -1] {
            let response = client.call(9, &produce_request(topic, 0, acks, batch(&["b"]))).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(code(answer.error_code), ErrorCode::KafkaStorageError, "{topic}, acks {acks}");
        }
    }
    let fetched = client.fetch("t", 0, 0).await;
    assert_eq!(code(fetched.error_code), ErrorCode::KafkaStorageError);
    let waited = reader.receive::<FetchRequest>(12, waiting).await;
    assert_eq!(code(waited.responses[0].partitions[0].error_code), ErrorCode::KafkaStorageError);
    assert_eq!(latest(&mut client).await, ErrorCode::KafkaStorageError);
    assert_eq!(commit(&mut client).await, ErrorCode::NotCoordinator, "as Kafka says it to group members");
    let create = CreateTopicsRequest {
        topics: vec![towpath_wire::create_topics::CreatableTopic {
            name: "new".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let created = client.call(7, &create).await.topics[0].clone();
    assert_eq!(code(created.error_code), ErrorCode::KafkaStorageError);
    let dirs = client.call(4, &DescribeLogDirsRequest::default()).await.results;
    assert_eq!(code(dirs[0].error_code), ErrorCode::KafkaStorageError);
    let metadata = client.call(12, &MetadataRequest { topics: None, ..MetadataRequest::default() }).await;
    assert!(metadata.topics.iter().flat_map(|topic| &topic.partitions).all(|p| p.offline_replicas == [1]));
    // Without an answer, the end of the connection is the only way to say so.
    let mut silent = test.client();
    silent.send(9, &produce_request("t", 0, 0, batch(&["b"]))).await;
    assert!(silent.frame().await.is_none());
    assert!(test.broker.shutdown().await.is_err(), "nothing was written at the end");

    let TestBroker { broker, dir } = test;
    drop(broker);
    std::fs::remove_dir(dir.path().join("recovery-point-offset-checkpoint.tmp")).unwrap();
    assert!(!dir.path().join(".kafka_cleanshutdown").exists());
    let test = TestBroker::start_in(dir, |_| {}).await;
    let mut client = test.client();
    assert_eq!(records(&client.fetch("t", 0, 0).await).len(), 1, "what was refused is not there");
    assert!(!client.topics().await.contains_key("new"));
    assert_eq!(client.produce("t", 0, batch(&["b"])).await.base_offset, 1);
}

#[tokio::test]
async fn records_are_said_to_be_deleted_only_when_that_is_on_disk() {
    let test = TestBroker::start().await;
    let mut client = test.client();
    client.create_topic("t", 1, &[]).await;
    for _ in 0..5 {
        client.produce("t", 0, batch(&["a"])).await;
    }
    spoil(test.dir.path(), "log-start-offset-checkpoint.tmp").await;
    let request = DeleteRecordsRequest {
        topics: ["t", "u"]
            .map(|name| DeleteRecordsTopic {
                name: name.to_owned(),
                partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 3 }],
            })
            .to_vec(),
        ..DeleteRecordsRequest::default()
    };
    let response = client.call(2, &request).await;
    let told = response.topics.iter().map(|topic| {
        let partition = &topic.partitions[0];
        (code(partition.error_code), partition.low_watermark)
    });
    let expected = [(ErrorCode::KafkaStorageError, -1), (ErrorCode::UnknownTopicOrPartition, -1)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert!(test.broker.status().offline_reason.is_some(), "R14");
}
