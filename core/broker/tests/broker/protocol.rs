//! What every connection keeps to: versions, order, and what ends it.

use crate::support::{Client, TestBroker, batch, code, fetch_request, produce_request};
use bytes::{BufMut, BytesMut};
use tokio::io::AsyncWriteExt;
use towpath_wire::frame::{RequestHeader, decode_response};
use towpath_wire::{
    ApiKey, ApiVersionsRequest, Encoder, ErrorCode, FetchRequest, Message, MetadataRequest, ProduceRequest,
    Request, response_header_version,
};

/// A frame with a header and whatever body.
async fn send_raw(client: &mut Client, key: i16, version: i16, body: &[u8]) {
    let mut encoder = Encoder::sharing(64);
    let header = RequestHeader {
        request_api_key: key,
        request_api_version: version,
        correlation_id: 77,
        client_id: Some("raw".to_owned()),
    };
    header.encode(&mut encoder).unwrap();
    encoder.put_slice(body);
    let content = encoder.finish().into_bytes();
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(content.len()).unwrap());
    frame.put_slice(&content);
    client.stream.write_all(&frame).await.unwrap();
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: "test".to_owned(), client_software_version: "1.0".to_owned() }
}

#[tokio::test]
async fn every_version_of_api_versions_is_answered_with_header_version_0() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    for version in 0..=4 {
        let response = client.call(version, &api_versions()).await;
        assert_eq!(response.error_code, 0);
        let keys: Vec<i16> = response.api_keys.iter().map(|api| api.api_key).collect();
        assert!(keys.is_sorted() && keys.contains(&18));
        // KAFKA-18659: librdkafka gives up compression when Produce does not begin at 0.
        let produce = response.api_keys.iter().find(|api| api.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        // KAFKA-17011
        let all_begin_later = response.supported_features.iter().all(|feature| feature.min_version > 0);
        assert!(version >= 4 || all_begin_later, "KAFKA-17011");
    }
}

#[tokio::test]
async fn a_version_of_api_versions_from_the_future_is_answered_without_reading_its_body() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    send_raw(&mut client, 18, 5, &[0xff; 40]).await;
    let frame = client.frame().await.unwrap();
    let (header, response) = decode_response::<ApiVersionsRequest>(frame, 0).unwrap();
    assert_eq!(header.correlation_id, 77);
    assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
    assert_eq!(response.api_keys.len(), 1);
    assert_eq!((response.api_keys[0].api_key, response.api_keys[0].max_version), (18, 4));
    assert_eq!(client.call(3, &api_versions()).await.error_code, 0, "the connection goes on");
}

#[tokio::test]
async fn a_client_without_a_proper_name_is_refused() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    for (name, expected) in
        [("a b", ErrorCode::InvalidRequest), ("-a", ErrorCode::InvalidRequest), ("a-b.c", ErrorCode::None)]
    {
        let request = ApiVersionsRequest { client_software_name: name.to_owned(), ..api_versions() };
        assert_eq!(code(client.call(3, &request).await.error_code), expected, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_there_ends_the_connection() {
    let broker = TestBroker::start().await;
    for (key, version, what) in [
        (0, 2, "a listed version of Produce that is refused"),
        (3, 14, "a version from the future"),
        (24, 0, "an API that is not there"),
        (52, 0, "an API between brokers"),
        (4, 0, "an API of old"),
        (999, 0, "an API that never was"),
        (3, 12, "a body that cannot be read"),
    ] {
        let mut client = broker.client();
        send_raw(&mut client, key, version, &[0xff; 3]).await;
        assert!(client.frame().await.is_none(), "{what}");
    }
    let mut client = broker.client();
    client.stream.write_all(&[0, 0, 0, 2, 0, 3]).await.unwrap();
    assert!(client.frame().await.is_none(), "a frame without a header");
}

#[tokio::test]
async fn bytes_after_a_request_are_ignored_as_kafka_does() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let mut body = BytesMut::new();
    MetadataRequest { topics: None, ..MetadataRequest::default() }.encode(&mut body, 4).unwrap();
    body.put_u8(0);
    send_raw(&mut client, 3, 4, &body).await;
    assert!(client.frame().await.is_some(), "librdkafka leaves bytes behind its requests");
}

#[tokio::test]
async fn everything_that_is_listed_answers() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let listed = client.call(4, &api_versions()).await.api_keys;
    let mut answered = 0;
    macro_rules! ask {
        ($($request:ident,)*) => {
            $({
                use towpath_wire::$request;
                let key = <$request as Request>::KEY;
                if let Some(api) = listed.iter().find(|api| api.api_key == key.code()) {
                    let lowest = if key == ApiKey::Produce { 3 } else { api.min_version };
                    for version in lowest..=api.max_version {
                        let mut request = <$request>::default();
                        prepare(&mut request);
                        let id = client.send(version, &request).await;
                        let frame = client.frame().await.unwrap_or_else(|| panic!("{key} {version} is answered"));
                        let header = response_header_version(key, version);
                        let (header, _) = decode_response::<$request>(frame, version)
                            .unwrap_or_else(|error| panic!("{key} {version} (header {header}): {error}"));
                        assert_eq!(header.correlation_id, id);
                    }
                    answered += 1;
                }
            })*
        };
    }
    towpath_wire::for_each_request!(ask);
    assert_eq!(answered, listed.len());
}

/// A default Produce asks for no answer.
fn prepare(request: &mut dyn std::any::Any) {
    if let Some(produce) = request.downcast_mut::<ProduceRequest>() {
        produce.acks = -1;
    }
    if let Some(fetch) = request.downcast_mut::<FetchRequest>() {
        fetch.session_epoch = -1;
    }
}

#[tokio::test]
async fn answers_keep_the_order_of_requests_although_the_first_waits() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let mut fetch = fetch_request("t", 0, 0);
    fetch.max_wait_ms = 10_000;
    let first = client.send(12, &fetch).await;
    let second = client.send(9, &produce_request("t", 0, -1, batch(&["a"]))).await;
    let third = client.send(4, &api_versions()).await;
    // The record that ends the wait comes behind it on the same connection.
    let fetched = client.receive::<FetchRequest>(12, first).await;
    assert_eq!(crate::support::records(&fetched.responses[0].partitions[0]), [(0, "a".to_owned())]);
    client.receive::<ProduceRequest>(9, second).await;
    client.receive::<ApiVersionsRequest>(4, third).await;
}

#[tokio::test]
async fn requests_may_come_in_pieces_and_in_heaps() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let frame =
        towpath_wire::frame::encode_request(&api_versions(), 3, 5, Some("slow")).unwrap().into_bytes();
    for byte in &frame {
        client.stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    client.receive::<ApiVersionsRequest>(3, 5).await;
    let heap = frame.repeat(500);
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let writing = tokio::spawn(async move {
        writer.write_all(&heap).await.unwrap();
        writer
    });
    for _ in 0..500 {
        use tokio::io::AsyncReadExt;
        let length = reader.read_i32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [0, 0, 0, 5]);
    }
    writing.await.unwrap();
}
