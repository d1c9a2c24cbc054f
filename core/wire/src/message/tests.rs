//! Messages: defaults, versions, and what a version cannot carry.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::messages::{fetch, produce};
use crate::{
    CreateTopicsRequest, DecodeError, Decoder, EncodeError, FetchRequest, FetchResponse, JoinGroupResponse,
    ListOffsetsRequest, Message, MetadataRequest, OffsetFetchRequest, ProduceRequest, ProduceResponse,
    VersionRange,
};

fn encoded<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).map(|()| out.freeze())
}

fn round_trip<M: Message>(message: &M, version: i16) -> M {
    let mut d = Decoder::new(encoded(message, version).unwrap());
    let back = M::decode(&mut d, version).unwrap();
    d.finish().unwrap();
    back
}

fn produce(records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![produce::TopicProduceData {
            name: "orders".into(),
            partition_data: vec![produce::PartitionProduceData { index: 3, records: Some(records) }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn defaults_are_those_of_the_schema() {
    let fetch = FetchRequest::default();
    assert_eq!((fetch.replica_id, fetch.max_bytes, fetch.session_epoch), (-1, i32::MAX, -1));
    assert_eq!((fetch.cluster_id, fetch.replica_state.replica_epoch), (None, -1));
    assert_eq!(fetch::FetchPartition::default().high_watermark, i64::MAX);
    assert_eq!(fetch::PartitionData::default().records, None);
    assert_eq!(CreateTopicsRequest::default().timeout_ms, 60_000);
    // Nullable without a default: empty, not null.
    assert_eq!(MetadataRequest::default().topics, Some(Vec::new()));
    assert!(MetadataRequest::default().allow_auto_topic_creation);
    assert_eq!(JoinGroupResponse::default().protocol_name, Some(String::new()));
    assert_eq!(produce::PartitionProduceResponse::default().error_message, None);
}

#[test]
fn a_produce_request_has_the_bytes_of_the_protocol() {
    let bytes = encoded(&produce(Bytes::from_static(b"batch")), 9).unwrap();
    let expected = [
        &b"\x00\xff\xff\x00\x00\x75\x30\x02"[..], // no transactional id, acks, timeout, one topic
        b"\x07orders\x02\x00\x00\x00\x03\x06batch", // one partition
        b"\x00\x00\x00",                          // the tagged sections of partition, topic, request
    ]
    .concat();
    assert_eq!(bytes, expected);
    let bytes = encoded(&produce(Bytes::from_static(b"batch")), 3).unwrap();
    let expected = [
        &b"\xff\xff\xff\xff\x00\x00\x75\x30\x00\x00\x00\x01"[..],
        b"\x00\x06orders\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00\x05batch",
    ]
    .concat();
    assert_eq!(bytes, expected);
}

#[test]
fn records_are_slices_of_the_frame() {
    for version in ProduceRequest::VERSIONS.iter() {
        let frame = encoded(&produce(Bytes::from(vec![42; 5000])), version).unwrap();
        let decoded = ProduceRequest::decode(&mut Decoder::new(frame.clone()), version).unwrap();
        let records = decoded.topic_data[0].partition_data[0].records.clone().unwrap();
        let (start, records_start) = (frame.as_ptr() as usize, records.as_ptr() as usize);
        assert!(records_start >= start && records_start + records.len() <= start + frame.len());
        assert_eq!(records, vec![42; 5000]);
    }
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    for version in [-1, 2, 14, i16::MAX] {
        let error = DecodeError::UnsupportedVersion {
            message: "ProduceRequest",
            version,
            supported: VersionRange::new(3, 13),
        };
        assert_eq!(ProduceRequest::decode(&mut Decoder::new(Bytes::new()), version), Err(error));
        let refused = encoded(&ProduceRequest::default(), version);
        assert!(matches!(refused, Err(EncodeError::UnsupportedVersion { version: v, .. }) if v == version));
    }
}

#[test]
fn what_a_version_cannot_carry_is_an_error_unless_ignorable() {
    // The topic's name and id are ignorable.
    let mut request = produce(Bytes::new());
    assert_eq!(round_trip(&request, 13).topic_data[0].name, "");
    request.topic_data[0].topic_id = Uuid::from_u128(7);
    assert!(round_trip(&request, 12).topic_data[0].topic_id.is_nil());
    // The leader in a response is not, tagged though it is.
    let mut response = ProduceResponse::default();
    response.responses.push(produce::TopicProduceResponse {
        partition_responses: vec![produce::PartitionProduceResponse {
            current_leader: produce::LeaderIdAndEpoch { leader_id: 1, leader_epoch: 5 },
            ..Default::default()
        }],
        ..Default::default()
    });
    let error = |version| EncodeError::FieldNotInVersion {
        message: "PartitionProduceResponse",
        field: "current_leader",
        version,
    };
    assert_eq!(encoded(&response, 8), Err(error(8)));
    assert_eq!(encoded(&response, 9), Err(error(9)));
    assert_eq!(round_trip(&response, 10), response);
    // The same for a field that is not tagged.
    let request = ListOffsetsRequest { isolation_level: 1, ..Default::default() };
    assert!(matches!(
        encoded(&request, 1),
        Err(EncodeError::FieldNotInVersion { field: "isolation_level", version: 1, .. })
    ));
    let request = FetchRequest { rack_id: "r".into(), ..Default::default() };
    assert_eq!(round_trip(&request, 10).rack_id, "", "the rack is ignorable");
    let request =
        FetchRequest { forgotten_topics_data: vec![fetch::ForgottenTopic::default()], ..Default::default() };
    assert!(matches!(
        encoded(&request, 6),
        Err(EncodeError::FieldNotInVersion { field: "forgotten_topics_data", version: 6, .. })
    ));
}

#[test]
fn null_needs_a_version_that_has_it() {
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(round_trip(&all, 1), all);
    let error = EncodeError::NullNotAllowed { message: "MetadataRequest", field: "topics", version: 0 };
    assert_eq!(encoded(&all, 0), Err(error));
    let null = Decoder::new(Bytes::from_static(&[0xff; 4]));
    assert_eq!(
        MetadataRequest::decode(&mut null.clone(), 0),
        Err(DecodeError::UnexpectedNull { position: 4 })
    );
    let all_offsets = OffsetFetchRequest { group_id: "g".into(), topics: None, ..Default::default() };
    assert!(encoded(&all_offsets, 1).is_err());
    assert_eq!(round_trip(&all_offsets, 2), all_offsets);
}

#[test]
fn a_failed_encoding_leaves_the_buffer_as_it_was() {
    let mut out = BytesMut::from(&b"before"[..]);
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert!(all.encode(&mut out, 0).is_err());
    let mut response = FetchResponse::default();
    response.node_endpoints.push(fetch::NodeEndpoint::default());
    response.responses.push(fetch::FetchableTopicResponse::default());
    assert!(response.encode(&mut out, 4).is_err());
    assert_eq!(out, &b"before"[..]);
}

#[test]
fn tagged_fields_travel_only_when_set() {
    let empty = encoded(&FetchRequest::default(), 18).unwrap();
    let request = FetchRequest {
        cluster_id: Some("c".into()),
        replica_state: fetch::ReplicaState { replica_id: 4, replica_epoch: 9 },
        ..Default::default()
    };
    let full = encoded(&request, 18).unwrap();
    assert_eq!((empty[empty.len() - 1], full.len() - empty.len()), (0, 4 + 15));
    assert_eq!(round_trip(&request, 18), request);
    assert!(matches!(
        encoded(&request, 14),
        Err(EncodeError::FieldNotInVersion { field: "replica_state", version: 14, .. })
    ));
}
