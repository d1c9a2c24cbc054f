//! Frames that are not what they say.

use std::io::Write;

use crate::support::{Broker, MIB, connect, is_closed};

/// `socket.request.max.bytes`.
const REQUEST_BYTES_MAX: i32 = 100 * 1024 * 1024;

#[test]
fn a_frame_longer_than_the_maximum_is_refused_at_its_first_bytes() {
    let mut broker = Broker::start();
    for length in [REQUEST_BYTES_MAX + 1, i32::MAX, -1, i32::MIN] {
        let mut socket = connect(broker.address());
        socket.write_all(&length.to_be_bytes()).unwrap();
        assert!(is_closed(&mut socket), "{length}");
    }
    // One that goes on sending although nobody reads.
    for _ in 0..8 {
        let mut socket = connect(broker.address());
        socket.write_all(&i32::MAX.to_be_bytes()).unwrap();
        let chunk = vec![0; 1 << 20];
        let mut sent = 0;
        while sent < 200 && socket.write_all(&chunk).is_ok() {
            sent += 1;
        }
        assert!(sent < 100, "{sent} MiB were taken from a frame that is too long");
    }
    broker.assert_serves();
    broker.assert_bounded("frames that are too long", 16 * MIB, 32 * MIB);
}

#[test]
fn what_is_no_request_ends_the_connection_and_nothing_else() {
    let mut broker = Broker::start();
    let mut frames: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // The beginning of a TLS handshake.
        [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 200]].concat(),
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 1, 0],
        // An API and a version that nobody has.
        vec![0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        vec![0, 0, 0, 10, 0, 3, 0x7f, 0xff, 0, 0, 0, 1, 0xff, 0xff],
    ];
    for key in 0..95u8 {
        // A body of ones: lengths and counts of all kinds.
        frames.push([&[0, 0, 4, 0, 0, key, 0, 4, 0, 0, 0, 1, 0xff, 0xff][..], &[0x7f; 1014]].concat());
    }
    for frame in frames {
        let mut socket = connect(broker.address());
        socket.write_all(&frame).unwrap();
        assert!(is_closed(&mut socket), "{frame:?}");
    }
    broker.assert_serves();
    broker.assert_bounded("noise", 16 * MIB, 32 * MIB);
}

/// A request of fifty bytes in which some array has a million elements: key, version, and what stands before the count.
const ARRAYS: [(u8, u8, &[u8]); 12] = [
    // Metadata: topics.
    (3, 4, &[]),
    // Produce: transactional id, acks, timeout; topics.
    (0, 3, &[0xff, 0xff, 0, 1, 0, 0, 0, 0]),
    // Fetch: replica, wait, min, max, isolation; topics.
    (1, 4, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // ListOffsets: replica, isolation; topics.
    (2, 2, &[0xff, 0xff, 0xff, 0xff, 0]),
    // OffsetCommit: group, generation, member, retention; topics.
    (8, 2, &[0, 1, b'g', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // OffsetFetch: group; topics.
    (9, 1, &[0, 1, b'g']),
    // JoinGroup: group, session timeout, member, protocol type; protocols.
    (11, 0, &[0, 1, b'g', 0, 0, 0x40, 0, 0, 0, 0, 0]),
    // SyncGroup: group, generation, member; assignments.
    (14, 0, &[0, 1, b'g', 0, 0, 0, 0, 0, 0]),
    // DescribeGroups: groups.
    (15, 0, &[]),
    // CreateTopics: topics.
    (19, 2, &[]),
    // DescribeConfigs: resources.
    (32, 1, &[]),
    // DeleteGroups: groups.
    (42, 0, &[]),
];

#[test]
fn a_million_elements_in_fifty_bytes_are_refused() {
    let mut broker = Broker::start();
    for (key, version, before) in ARRAYS {
        for count in [1_000_000i32, i32::MAX] {
            let mut frame = vec![0, key, 0, version, 0, 0, 0, 1, 0xff, 0xff];
            frame.extend_from_slice(before);
            frame.extend_from_slice(&count.to_be_bytes());
            frame.resize(50, 0);
            let mut socket = connect(broker.address());
            socket.write_all(&50i32.to_be_bytes()).unwrap();
            socket.write_all(&frame).unwrap();
            assert!(is_closed(&mut socket), "key {key}, {count} elements");
        }
    }
    // The same in the compact form: Metadata 9, a million and one as a varint.
    let mut frame = vec![0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0xc1, 0x84, 0x3d];
    frame.resize(50, 0);
    let mut socket = connect(broker.address());
    socket.write_all(&[&50i32.to_be_bytes()[..], &frame].concat()).unwrap();
    assert!(is_closed(&mut socket));
    broker.assert_serves();
    broker.assert_bounded("a million elements", 8 * MIB, 16 * MIB);
}
