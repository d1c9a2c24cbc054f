//! Clients that ask for much and do not read it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use towpath_record::Compression;
use towpath_wire::frame::encode_request;
use towpath_wire::{MetadataRequest, Request};

use crate::support::{Broker, MIB, batch, connect, fetch_request};

/// Clients at the same time.
const READERS: usize = 200;

fn encoded<R: Request>(version: i16, request: &R) -> Vec<u8> {
    encode_request(request, version, 1, None).unwrap().into_bytes().to_vec()
}

/// Sends as much of this as the broker takes within a moment.
fn flood(broker: &Broker, bytes: &[u8]) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..READERS {
        let mut socket = connect(broker.address());
        socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // What does not fit into the buffers between us stays here: that is the point.
        let _some_of_it = socket.write_all(bytes);
        sockets.push(socket);
    }
    sockets
}

#[test]
fn fetched_records_wait_in_their_files() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    for _ in 0..100 {
        client.produce("t", batch(Compression::None, &[&[7; 900_000]]));
    }
    let fetch = encoded(12, &fetch_request("t", 0, 50 << 20));
    let sockets = flood(&broker, &fetch.repeat(64));
    broker.assert_serves();
    // 200 clients × 64 answers of 50 MB each.
    broker.assert_bounded("slow readers of records", 48 * MIB, 64 * MIB);
    drop(sockets);
    broker.assert_serves();
}

#[test]
fn small_requests_with_large_answers_are_worked_off_as_their_answers_are_read() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    for index in 0..5 {
        client.create_topic(&format!("wide{index}"), 400, &[]);
    }
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let answer = client.call(9, &all);
    assert!(answer.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() >= 2_001);
    let answer_bytes = 2_001 * 30;
    let requests = encoded(9, &all).repeat(2_000);
    let mut sockets = flood(&broker, &requests);
    for _ in 0..10 {
        broker.assert_serves();
    }
    // Asked for are 24 GB of answers. All connections together have 256 MiB for what waits.
    assert!(READERS as u64 * 2_000 * answer_bytes > 20_000 * MIB);
    broker.assert_bounded("slow readers of metadata", 440 * MIB, 440 * MIB);
    // Nobody reads: after half a minute the broker gives up on them, and what they held is free. The two thousand
    // partitions remain.
    std::thread::sleep(Duration::from_secs(45));
    broker.assert_bounded("slow readers of metadata, given up", 96 * MIB, 440 * MIB);
    assert!(sockets.iter_mut().all(ends), "one was not given up");
    broker.assert_serves();
}

/// Whether the connection ends after what was sent before.
fn ends(socket: &mut TcpStream) -> bool {
    let mut chunk = vec![0; 1 << 20];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
