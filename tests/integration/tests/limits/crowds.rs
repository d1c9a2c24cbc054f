//! Many clients at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use towpath_harness::process::Options;
use towpath_wire::ApiVersionsRequest;
use towpath_wire::frame::encode_request;

use crate::support::{Broker, MIB, PATIENCE, connect, raise_open_files_limit, was_closed};

fn api_versions() -> Vec<u8> {
    let request = ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
    };
    encode_request(&request, 3, 1, Some("test")).unwrap().into_bytes().to_vec()
}

/// Sends a request and reads its answer.
fn is_served(socket: &mut TcpStream, request: &[u8]) -> bool {
    let mut length = [0; 4];
    if socket.write_all(request).is_err() || socket.read_exact(&mut length).is_err() {
        return false;
    }
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut answer).is_ok()
}

#[test]
fn ten_thousand_connections_are_served() {
    // Both ends are on this machine, in two processes.
    let files = raise_open_files_limit();
    let count = 10_000.min(files.saturating_sub(500) as usize);
    println!("{count} connections; this process may have {files} files open");
    assert!(count >= 10_000, "the system allows {files} open files");
    let mut broker = Broker::start();
    let request = api_versions();
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        sockets.push(connect(broker.address()));
    }
    for socket in &mut sockets {
        assert!(is_served(socket, &request), "{}", broker.process.log_tail());
    }
    broker.assert_serves();
    broker.assert_bounded("ten thousand connections", 80 * MIB, 100 * MIB);
    // They are still there, all of them, and served again.
    for socket in sockets.iter_mut().step_by(7) {
        assert!(is_served(socket, &request));
    }
    std::thread::sleep(Duration::from_secs(2));
    broker.assert_bounded("ten thousand idle connections", 80 * MIB, 100 * MIB);
    drop(sockets);
    broker.assert_serves();
}

#[test]
fn a_thousand_clients_that_announce_a_mebibyte_and_stall_cost_nothing() {
    raise_open_files_limit();
    let mut broker = Broker::start();
    let mut stalled = Vec::new();
    for _ in 0..1_000 {
        let mut socket = connect(broker.address());
        // A Produce request of 1 MiB: its length, and the first bytes of its header.
        socket.write_all(&(1i32 << 20).to_be_bytes()).unwrap();
        socket.write_all(&[0, 0, 0, 9, 0, 0, 0, 1, 0, 4, b't', b'e', b's', b't']).unwrap();
        stalled.push(socket);
    }
    for _ in 0..20 {
        broker.assert_serves();
    }
    broker.assert_bounded("a thousand announcements", 16 * MIB, 24 * MIB);
    assert!(stalled.iter_mut().all(|socket| !was_closed(socket)), "they may still go on");
}

#[test]
fn a_thousand_clients_that_send_most_of_a_mebibyte_and_stall_share_one_budget() {
    raise_open_files_limit();
    let mut broker = Broker::start();
    let mut stalled = Vec::new();
    let most = vec![0; 1_000_000];
    for _ in 0..1_000 {
        let mut socket = connect(broker.address());
        socket.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let sent = socket.write_all(&(1i32 << 20).to_be_bytes());
        // Once the budget is used up nobody takes the rest, and some are closed for it.
        let _some_of_it = sent.and_then(|()| socket.write_all(&most));
        stalled.push(socket);
    }
    // A gigabyte is on its way; 256 MiB may be here, and the holes that growing buffers leave in the allocator's arenas:
    // between 5 and 40 % more, as the threads happen to take turns.
    broker.assert_serves();
    broker.assert_bounded("a thousand halves", 440 * MIB, 440 * MIB);
    let closed = stalled.iter_mut().map(was_closed).filter(|closed| *closed).count();
    assert!(closed > 100, "{closed} were closed to make room");
    drop(stalled);
    broker.assert_serves();
}

#[test]
fn more_connections_than_open_files_leave_the_storage_alone() {
    raise_open_files_limit();
    let options =
        Options { prefix: vec!["prlimit".to_owned(), "--nofile=400:400".to_owned()], ..Options::broker() };
    let mut broker = Broker::start_with(options);
    let mut before = broker.client();
    before.create_topic("t", 1, &[]);
    let request = api_versions();
    let mut sockets: Vec<TcpStream> = Vec::new();
    for _ in 0..600 {
        let mut socket = connect(broker.address());
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // Refused or served; but the ones before stay.
        let _refused = socket.write_all(&request);
        sockets.push(socket);
    }
    let mut served = 0;
    for socket in &mut sockets {
        let mut length = [0; 4];
        served += usize::from(socket.read_exact(&mut length).is_ok());
    }
    println!("{served} of 600 connections were served with 400 open files");
    assert!((100..400).contains(&served));
    // Whoever was there before can make topics, which need files of their own.
    for index in 0..20 {
        before.create_topic(&format!("made{index}"), 1, &[]);
    }
    before.produce("made7", crate::support::batch(towpath_record::Compression::None, &[b"x"]));
    assert_eq!(broker.process.get("/health").unwrap().status, 200, "{}", broker.process.log_tail());
    drop(sockets);
    let until = std::time::Instant::now() + PATIENCE;
    while broker.process.usage().unwrap().open_files > 200 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    broker.assert_serves();
    broker.assert_bounded("too many connections", 32 * MIB, 32 * MIB);
}
