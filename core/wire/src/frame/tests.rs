//! Headers and frames.

use bytes::{Bytes, BytesMut};

use super::{
    FrameLengthError, RequestHeader, ResponseHeader, announced_length, decode_request, decode_response,
    encode_request, encode_response, peek_request, take_frame,
};
use crate::messages::fetch;
use crate::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DecodeError, Decoder, Encoder, ErrorCode, FetchRequest,
    FetchResponse, MetadataRequest, ProduceRequest, SaslHandshakeRequest, request_header_version,
    response_header_version,
};

/// The frame behind its length.
fn body(frame: Bytes) -> Bytes {
    let length = announced_length(&frame, 1 << 30).unwrap().unwrap();
    assert_eq!(length, frame.len() - 4);
    frame.slice(4..)
}

#[test]
fn header_versions_follow_flexibility() {
    assert_eq!(
        (request_header_version(ApiKey::Produce, 8), response_header_version(ApiKey::Produce, 8)),
        (1, 0)
    );
    assert_eq!(
        (request_header_version(ApiKey::Produce, 9), response_header_version(ApiKey::Produce, 9)),
        (2, 1)
    );
    // ApiVersions: the request is flexible from version 3 on, the response's header never.
    for version in [0, 2, 3, 4, 99] {
        assert_eq!(request_header_version(ApiKey::ApiVersions, version), if version < 3 { 1 } else { 2 });
        assert_eq!(response_header_version(ApiKey::ApiVersions, version), 0);
    }
    assert_eq!(request_header_version(ApiKey::SaslHandshake, 1), 1);
    assert_eq!(request_header_version(ApiKey::OffsetDelete, 0), 1);
    assert_eq!(request_header_version(ApiKey::ConsumerGroupHeartbeat, 0), 2);
}

#[test]
fn an_api_versions_response_has_no_tagged_section_in_its_header() {
    let response = ApiVersionsResponse { error_code: 0, ..Default::default() };
    let frame = encode_response(ApiKey::ApiVersions, 3, 77, &response).unwrap().into_bytes();
    // length, correlation id, error, no keys, throttle time, the body's tagged section
    assert_eq!(&frame[..], b"\0\0\0\x0c\0\0\0\x4d\0\0\x01\0\0\0\0\0");
    let (header, back) = decode_response::<ApiVersionsRequest>(body(frame), 3).unwrap();
    assert_eq!((header.correlation_id, back), (77, response));
}

#[test]
fn a_request_of_the_future_can_be_answered_without_reading_its_body() {
    let mut e = Encoder::sharing(64);
    let sent = RequestHeader {
        request_api_key: ApiKey::ApiVersions.code(),
        request_api_version: 99,
        correlation_id: 5,
        client_id: Some("future".into()),
    };
    sent.encode(&mut e).unwrap();
    e.put_slice(b"\xff\xff\xff whatever that version has");
    let frame = e.finish().into_bytes();
    let peek = peek_request(&frame).unwrap();
    assert_eq!((peek.api_key, peek.api_version, peek.correlation_id), (18, 99, 5));
    let mut d = Decoder::new(frame.clone());
    assert_eq!(RequestHeader::decode(&mut d), Ok(sent));
    assert!(d.rest().starts_with(b"\xff\xff\xff whatever"));
    let refused = decode_request::<ApiVersionsRequest>(frame);
    assert!(matches!(refused, Err(DecodeError::UnsupportedVersion { version: 99, .. })), "{refused:?}");
}

#[test]
fn a_request_comes_back_at_every_version() {
    let request = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    for version in ApiKey::Metadata.versions().iter() {
        for client_id in [None, Some("me")] {
            let frame = encode_request(&request, version, -9, client_id).unwrap().into_bytes();
            let (header, back) = decode_request::<MetadataRequest>(body(frame)).unwrap();
            assert_eq!(back, request);
            assert_eq!((header.api_key(), header.request_api_version), (Ok(ApiKey::Metadata), version));
            assert_eq!((header.correlation_id, header.client_id.as_deref()), (-9, client_id));
        }
    }
}

#[test]
fn what_does_not_belong_in_a_frame_is_refused() {
    let request = SaslHandshakeRequest { mechanism: "PLAIN".into() };
    let frame = body(encode_request(&request, 1, 1, None).unwrap().into_bytes());
    let more = Bytes::from([&frame[..], b"x"].concat());
    let refused = decode_request::<SaslHandshakeRequest>(more);
    assert!(matches!(refused, Err(DecodeError::TrailingBytes { remaining: 1, .. })), "{refused:?}");
    let other = decode_request::<ProduceRequest>(frame.clone());
    assert_eq!(other, Err(DecodeError::UnexpectedApiKey { key: 17, expected: ApiKey::Produce }));
    for end in 0..frame.len() {
        assert!(decode_request::<SaslHandshakeRequest>(frame.slice(..end)).is_err(), "cut at {end}");
    }
    let unknown = Bytes::from_static(b"\0\x04\0\0\0\0\0\x01\xff\xff");
    assert_eq!(RequestHeader::decode(&mut Decoder::new(unknown)), Err(DecodeError::UnknownApiKey { key: 4 }));
    assert_eq!(
        peek_request(b"\0\x01\0\x04\0\0\0"),
        Err(DecodeError::Truncated { position: 0, needed: 8, remaining: 7 })
    );
}

#[test]
fn unknown_tagged_fields_of_a_header_are_skipped() {
    let mut frame = BytesMut::new();
    frame.extend_from_slice(b"\0\x12\0\x03\0\0\0\x01\0\x01c"); // ApiVersions v3, client id "c"
    frame.extend_from_slice(b"\x01\x05\x02zz"); // one tagged field: tag 5, two bytes
    frame.extend_from_slice(b"\x02n\x02v\0"); // the body
    let (header, request) = decode_request::<ApiVersionsRequest>(frame.freeze()).unwrap();
    assert_eq!(header.client_id.as_deref(), Some("c"));
    assert_eq!(request.client_software_name, "n");
    let mut d = Decoder::new(Bytes::from_static(b"\0\0\0\x09\x01\x05\x02zz!"));
    assert_eq!(ResponseHeader::decode(&mut d, 1), Ok(ResponseHeader { correlation_id: 9 }));
    assert_eq!(d.rest(), &b"!"[..]);
}

#[test]
fn frames_are_taken_whole_and_within_the_limit() {
    let mut buffer = BytesMut::from(&b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02d"[..]);
    assert_eq!(take_frame(&mut buffer, 3), Ok(Some(Bytes::from_static(b"abc"))));
    assert_eq!(take_frame(&mut buffer, 3), Ok(Some(Bytes::new())));
    assert_eq!(take_frame(&mut buffer, 3), Ok(None));
    buffer.extend_from_slice(b"e\0\0");
    assert_eq!(take_frame(&mut buffer, 3), Ok(Some(Bytes::from_static(b"de"))));
    assert_eq!(take_frame(&mut buffer, 3), Ok(None));
    assert_eq!(announced_length(b"\0\0\0\x04", 3), Err(FrameLengthError { length: 4, limit: 3 }));
    assert_eq!(announced_length(b"\xff\xff\xff\xff", 3), Err(FrameLengthError { length: -1, limit: 3 }));
    assert_eq!(announced_length(b"\0\0\0", 3), Ok(None));
}

#[test]
fn a_fetch_response_shares_its_records() {
    let records = [Bytes::from(vec![1; 70_000]), Bytes::from(vec![2; 100]), Bytes::from(vec![3; 4096])];
    let partition = |(index, records): (usize, &Bytes)| fetch::PartitionData {
        partition_index: i32::try_from(index).unwrap(),
        records: Some(records.clone()),
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![fetch::FetchableTopicResponse {
            partitions: records.iter().enumerate().map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in ApiKey::Fetch.versions().iter() {
        let segments = encode_response(ApiKey::Fetch, version, 3, &response).unwrap();
        let shared: Vec<*const u8> = segments.as_slice().iter().map(|segment| segment.as_ptr()).collect();
        let tail = usize::from(ApiKey::Fetch.is_flexible(version));
        assert_eq!(shared.len(), 4 + tail, "header, records, header, records and, when flexible, a tail");
        assert_eq!((shared[1], shared[3]), (records[0].as_ptr(), records[2].as_ptr()));
        let whole = segments.clone().into_bytes();
        assert_eq!(whole.len(), segments.len());
        let (_, back) = decode_response::<FetchRequest>(body(whole), version).unwrap();
        assert_eq!(back, response);
    }
}

#[test]
fn error_codes_have_kafkas_names_and_numbers() {
    assert_eq!(ErrorCode::from_code(3), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(ErrorCode::UnknownTopicOrPartition.to_string(), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(ErrorCode::RebootstrapRequired.code(), 129);
    assert!(ErrorCode::NotLeaderOrFollower.is_retriable() && !ErrorCode::ProducerFenced.is_retriable());
    for unknown in [i16::MIN, -2, 134, i16::MAX] {
        assert_eq!(ErrorCode::from_code(unknown), ErrorCode::UnknownServerError);
    }
    let codes: Vec<i16> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
    assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
    for error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(error.code()), *error);
    }
    assert_eq!(ErrorCode::None.into_result(), Ok(()));
    assert_eq!(ErrorCode::InvalidRecord.into_result(), Err(ErrorCode::InvalidRecord));
}

#[test]
fn api_keys_come_back_from_their_numbers() {
    for key in ApiKey::ALL {
        assert_eq!(ApiKey::try_from(key.code()), Ok(*key));
    }
    for unknown in [-1, 4, 5, 6, 7, 93, 19_999, 20_003, i16::MAX] {
        assert!(ApiKey::try_from(unknown).is_err(), "{unknown}");
    }
    assert_eq!(ApiKey::InitProducerId.stable_versions().max, 5);
}
