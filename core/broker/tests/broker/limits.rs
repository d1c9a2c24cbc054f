//! What clients can make a broker hold, and that it lives through it (R10).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use towpath_wire::frame::{decode_response, encode_request};
use towpath_wire::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};

use crate::support::{Client, PATIENCE, TestBroker, batch, fetch_request, produce_request, records, until};

async fn listening(adjust: impl FnOnce(&mut towpath_broker::BrokerConfig)) -> (TestBroker, SocketAddr) {
    // All tests of this process share it, and some of these have hundreds of connections.
    towpath_broker::raise_open_files_limit();
    let broker = TestBroker::start_with(|config| {
        config.listen = Some("127.0.0.1:0".parse().unwrap());
        adjust(config);
    })
    .await;
    let address = broker.broker.local_addr().unwrap();
    (broker, address)
}

/// How often a client may be taken for one that stands still, on a machine that is busy.
const TRIES: usize = 20;

async fn ask(address: SocketAddr, frame: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(frame).await?;
    let length = socket.read_i32().await?;
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    socket.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The broker still serves a new client, which connects again where it is closed, as clients do.
async fn assert_serves(address: SocketAddr) {
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let frame = encode_request(&request, 9, 3, Some("new")).unwrap().into_bytes();
    for _ in 0..TRIES {
        let answer = tokio::time::timeout(PATIENCE, ask(address, &frame)).await;
        if let Ok(answer) = answer.expect("a new client is answered") {
            decode_response::<MetadataRequest>(answer.into(), 9).unwrap();
            return;
        }
    }
    panic!("no new client is served");
}

/// Waits until the other side has closed.
async fn is_closed(socket: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(PATIENCE, socket.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_frame_longer_than_the_maximum_is_refused_at_its_first_bytes() {
    let (_broker, address) = listening(|config| config.limits.request_bytes_max = 1000).await;
    for length in [1001, i32::MAX, -1, i32::MIN] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&length.to_be_bytes()).await.unwrap();
        assert!(is_closed(&mut socket).await, "{length}");
    }
    assert_serves(address).await;
}

#[tokio::test]
async fn a_million_elements_in_fifty_bytes_are_refused() {
    let (_broker, address) = listening(|_| {}).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut frame = vec![0, 3, 0, 4, 0, 0, 0, 1, 0, 1, b'x'];
    frame.extend_from_slice(&1_000_000i32.to_be_bytes());
    frame.resize(50, 0);
    socket.write_all(&50i32.to_be_bytes()).await.unwrap();
    socket.write_all(&frame).await.unwrap();
    assert!(is_closed(&mut socket).await);
    assert_serves(address).await;
}

#[tokio::test]
async fn announcements_cost_nothing() {
    let (broker, address) = listening(|config| config.limits.request_memory_bytes = 8 << 20).await;
    let mut sockets = Vec::new();
    const CLIENTS: usize = 300;
    for _ in 0..CLIENTS {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&(1i32 << 20).to_be_bytes()).await.unwrap();
        socket.write_all(&[0; 100]).await.unwrap();
        sockets.push(socket);
    }
    until("all are taken", || broker.broker.status().connections >= CLIENTS).await;
    // What came is read by now, or will be; in either case nothing is held for what was announced.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let held = broker.broker.status().request_memory_bytes;
    assert!(held < CLIENTS * 256, "{CLIENTS} stalled clients hold {held} bytes");
    assert_serves(address).await;
}

/// Whether a new connection gets a record of so many bytes through.
async fn is_appended(broker: &TestBroker, bytes: usize) -> bool {
    let mut client = broker.client();
    let request = produce_request("t", 0, -1, batch(&[&"x".repeat(bytes)]));
    let frame = encode_request(&request, 9, 1, None).unwrap().into_bytes();
    if client.stream.write_all(&frame).await.is_err() {
        return false;
    }
    let Some(answer) = client.frame().await else { return false };
    let (_, answer) = decode_response::<ProduceRequest>(answer, 9).unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    true
}

#[tokio::test]
async fn when_memory_is_used_up_those_that_stand_still_make_room() {
    let limit = 4 << 20;
    let (broker, address) = listening(|config| config.limits.request_memory_bytes = limit).await;
    broker.client().create_topic("t", 1, &[("max.message.bytes", "2000000")]).await;
    let mut stalled = Vec::new();
    for _ in 0..30 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&(1i32 << 20).to_be_bytes()).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(100), socket.write_all(&vec![0; 900 << 10])).await;
        stalled.push(socket);
    }
    let held = broker.broker.status().request_memory_bytes;
    assert!(held < limit + (2 << 20), "{held} bytes are held of {limit}");
    assert_serves(address).await;
    let mut tries = 0;
    while !is_appended(&broker, 1 << 20).await {
        tries += 1;
        assert!(tries < TRIES, "a large request does not get through");
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    while stalled.len() >= 20 {
        assert!(tokio::time::Instant::now() < end, "only {} of 30 were closed", 30 - stalled.len());
        let mut open = Vec::new();
        for mut socket in stalled {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(1), socket.read(&mut byte)).await;
            if !matches!(read, Ok(Ok(0) | Err(_))) {
                open.push(socket);
            }
        }
        stalled = open;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_bounded_and_ended() {
    let (broker, address) =
        listening(|config| config.limits.write_stall_max = Duration::from_millis(500)).await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    for _ in 0..20 {
        client.produce("t", 0, batch(&[&"x".repeat(500_000)])).await;
    }
    let others = broker.broker.status().connections;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut request = fetch_request("t", 0, 0);
    request.max_bytes = 50 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    let frame = encode_request(&request, 12, 1, None).unwrap().into_bytes();
    for _ in 0..20 {
        // On a machine that is busy it may be given up while it still asks.
        if socket.write_all(&frame).await.is_err() {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = broker.broker.status().request_memory_bytes;
    assert!(held < 1 << 20, "200 MB of answers hold {held} bytes");
    assert_serves(address).await;
    // It reads nothing; after a while the broker gives up, and what was not in flight never comes.
    until("the client is given up", || broker.broker.status().connections <= others).await;
    let mut read = 0;
    let mut chunk = vec![0; 1 << 20];
    while let Ok(Ok(count @ 1..)) = tokio::time::timeout(PATIENCE, socket.read(&mut chunk)).await {
        read += count;
    }
    assert!(read < 200_000_000, "{read} bytes were written to a client that did not read");
}

#[tokio::test]
async fn connections_are_counted_and_refused_above_the_maximum() {
    let (broker, address) = listening(|config| config.limits.connections_max = 5).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(TcpStream::connect(address).await.unwrap());
    }
    until("all are taken", || broker.broker.status().connections == 5).await;
    let mut sixth = TcpStream::connect(address).await.unwrap();
    assert!(is_closed(&mut sixth).await);
    drop(sockets.pop());
    until("one has gone", || broker.broker.status().connections < 5).await;
    assert_serves(address).await;
}

#[tokio::test]
async fn idle_connections_hold_no_memory() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("max.message.bytes", "2000000")]).await;
    client.produce("t", 0, batch(&[&"x".repeat(1 << 20)])).await;
    until("the buffer is given back", || broker.broker.status().request_memory_bytes == 0).await;
    assert_eq!(client.produce("t", 0, batch(&["a"])).await.base_offset, 1);
}

#[tokio::test]
async fn a_flood_of_pipelined_requests_is_answered_piece_by_piece() {
    let broker = TestBroker::start_with(|config| config.limits.requests_in_flight_max = 4).await;
    let mut admin = broker.client();
    admin.create_topic("t", 1, &[]).await;
    let Client { stream, .. } = broker.client();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut fetch = fetch_request("t", 0, 0);
    fetch.max_wait_ms = 5;
    let fetch = encode_request(&fetch, 12, 1, None).unwrap().into_bytes();
    let quick = ApiVersionsRequest::default();
    let quick = encode_request(&quick, 0, 2, None).unwrap().into_bytes();
    let writing = tokio::spawn(async move {
        for _ in 0..100 {
            writer.write_all(&fetch).await.unwrap();
            writer.write_all(&quick).await.unwrap();
        }
        writer
    });
    for index in 0..200 {
        let length = reader.read_i32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[3], 1 + index % 2, "in order");
        if index % 2 == 0 {
            let (_, response) = decode_response::<FetchRequest>(answer.into(), 12).unwrap();
            assert!(records(&response.responses[0].partitions[0]).is_empty());
        }
    }
    writing.await.unwrap();
}
