//! Requests whose answers, or whose own content, would be much larger than they are.

use std::io::{Read, Write};

use towpath_wire::describe_configs::DescribeConfigsResource;
use towpath_wire::frame::encode_request;
use towpath_wire::metadata::MetadataRequestTopic;
use towpath_wire::produce::{PartitionProduceData, TopicProduceData};
use towpath_wire::{
    DescribeConfigsRequest, DescribeGroupsRequest, FindCoordinatorRequest, MetadataRequest, ProduceRequest,
    Request,
};

use crate::support::{Broker, MIB, connect};

/// Sends one request and reads the length of the answer; `None`: the connection was closed.
fn answer_bytes<R: Request>(broker: &Broker, version: i16, request: &R) -> Option<usize> {
    let mut socket = connect(broker.address());
    let frame = encode_request(request, version, 1, None).unwrap().into_bytes();
    // The broker may end it before it has read everything.
    let _unless_closed = socket.write_all(&frame);
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let length = u32::from_be_bytes(length) as usize;
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).ok()?;
    Some(length)
}

#[test]
fn the_same_thing_a_million_times_is_answered_once() {
    let mut broker = Broker::start();
    broker.client().create_topic("wide", 1_000, &[]);
    let topic = || MetadataRequestTopic { name: Some("wide".to_owned()), ..MetadataRequestTopic::default() };
    let once = MetadataRequest { topics: Some(vec![topic()]), ..MetadataRequest::default() };
    let often = MetadataRequest {
        topics: Some((0..200_000).map(|_| topic()).collect()),
        ..MetadataRequest::default()
    };
    let expected = answer_bytes(&broker, 9, &once).unwrap();
    assert!(expected > 20_000);
    assert_eq!(answer_bytes(&broker, 9, &often), Some(expected), "Metadata");

    let resource = || DescribeConfigsResource {
        resource_type: 2,
        resource_name: "wide".to_owned(),
        configuration_keys: None,
    };
    let configs = |count: usize| DescribeConfigsRequest {
        resources: (0..count).map(|_| resource()).collect(),
        include_synonyms: true,
        include_documentation: true,
    };
    let expected = answer_bytes(&broker, 4, &configs(1)).unwrap();
    assert_eq!(answer_bytes(&broker, 4, &configs(100_000)), Some(expected), "DescribeConfigs");

    let groups = |count: usize| DescribeGroupsRequest {
        groups: (0..count).map(|_| "g".to_owned()).collect(),
        ..DescribeGroupsRequest::default()
    };
    let expected = answer_bytes(&broker, 5, &groups(1)).unwrap();
    assert_eq!(answer_bytes(&broker, 5, &groups(500_000)), Some(expected), "DescribeGroups");

    let keys = |count: usize| FindCoordinatorRequest {
        coordinator_keys: (0..count).map(|_| "g".to_owned()).collect(),
        ..FindCoordinatorRequest::default()
    };
    let expected = answer_bytes(&broker, 4, &keys(1)).unwrap();
    assert_eq!(answer_bytes(&broker, 4, &keys(500_000)), Some(expected), "FindCoordinator");

    broker.assert_serves();
    broker.assert_bounded("the same thing often", 64 * MIB, 200 * MIB);
}

#[test]
fn requests_that_consist_of_tiny_elements_are_bounded_in_memory() {
    let mut broker = Broker::start();
    // Ten million partitions of nothing: 60 MB on the wire, a gigabyte if it were all unfolded.
    let request = ProduceRequest {
        acks: 1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: "none".to_owned(),
            partition_data: (0..10_000_000)
                .map(|index| PartitionProduceData { index, records: None })
                .collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    assert_eq!(answer_bytes(&broker, 9, &request), None, "it ends the connection");
    broker.assert_serves();
    broker.assert_bounded("tiny elements", 64 * MIB, 320 * MIB);
}
