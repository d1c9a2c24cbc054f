//! Batches that are small on the wire and huge when they are decompressed.

use std::thread;

use bytes::{BufMut, Bytes, BytesMut};
use towpath_record::{Compression, Compressor, HEADER_BYTES};
use towpath_wire::ErrorCode;

use crate::support::{Broker, Client, MIB, batch, produce_request};

/// Producers at the same time.
const PRODUCERS: usize = 8;

/// A batch of one record with the codec's id and a payload of our own; the checksum is right.
fn framed(compression: Compression, payload: &[u8]) -> Bytes {
    let template = batch(Compression::None, &[b"x"]);
    let mut bytes = BytesMut::from(&template[..HEADER_BYTES]);
    bytes[8..12].copy_from_slice(&((HEADER_BYTES - 12 + payload.len()) as i32).to_be_bytes());
    bytes[21..23].copy_from_slice(&i16::from(compression.id()).to_be_bytes());
    bytes.put_slice(payload);
    // Any edit of a whole batch computes the checksum anew; this one changes nothing.
    towpath_record::edit::set_producer(
        &mut bytes,
        towpath_types::ProducerId::NONE,
        towpath_types::ProducerEpoch::new(-1),
        -1,
    )
    .unwrap();
    bytes.freeze()
}

/// A record whose value has `bytes` bytes, up to where the value begins.
fn record_head(bytes: u32) -> Vec<u8> {
    let varint = |mut value: u64| {
        let mut out = Vec::new();
        value <<= 1;
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    };
    let value_length = varint(u64::from(bytes));
    // Attributes, timestamp delta, offset delta, no key; after the value, no headers.
    let length = 1 + 1 + 1 + 1 + value_length.len() as u64 + u64::from(bytes) + 1;
    [varint(length), vec![0, 0, 0, 1], value_length].concat()
}

fn compress(compression: Compression, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Compressor::new(compression.into()).compress(raw, &mut out).unwrap();
    out
}

/// Streams of gzip and zstd may be put one behind the other: one small piece of zeros, many times.
fn repeated(compression: Compression, piece_bytes: usize, times: usize) -> Bytes {
    let total = (piece_bytes * times) as u32;
    let head = compress(compression, &record_head(total));
    let piece = compress(compression, &vec![0; piece_bytes]);
    framed(compression, &[head, piece.repeat(times), compress(compression, &[0])].concat())
}

fn bombs() -> Vec<(&'static str, Bytes)> {
    let lz4 = [record_head(220 << 20), vec![0; (220 << 20) + 1]].concat();
    // Raw snappy says in front how long it is: here 4 GiB minus one, in five bytes.
    let snappy_claim = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 64]].concat();
    vec![
        ("gzip, 800 MiB", repeated(Compression::Gzip, 16 << 20, 50)),
        ("zstd, 2 GiB", repeated(Compression::Zstd, 32 << 20, 63)),
        ("lz4, 220 MiB", framed(Compression::Lz4, &compress(Compression::Lz4, &lz4))),
        ("snappy that claims 4 GiB", framed(Compression::Snappy, &snappy_claim)),
    ]
}

#[test]
fn batches_that_decompress_to_gigabytes_are_refused() {
    let mut broker = Broker::start();
    let bombs = bombs();
    for (what, bomb) in &bombs {
        assert!(bomb.len() < 1 << 20, "{what}: {} bytes are more than a topic takes", bomb.len());
    }
    // The second topic would have them compressed anew.
    let mut client = broker.client();
    client.create_topic("plain", 1, &[]);
    client.create_topic("again", 1, &[("compression.type", "lz4")]);
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (address, bombs) = (broker.address(), &bombs);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for (what, bomb) in bombs {
                    let topic = if producer % 2 == 0 { "plain" } else { "again" };
                    let answer = client.call(9, &produce_request(topic, bomb.clone()));
                    let answer = &answer.responses[0].partition_responses[0];
                    let code = ErrorCode::from_code(answer.error_code);
                    assert_eq!(code, ErrorCode::CorruptMessage, "{what}: {:?}", answer.error_message);
                }
            });
        }
        broker.assert_serves();
    });
    broker.assert_serves();
    // A zstd frame may ask for a window of 128 MiB, and each of the two threads here can have one at a time.
    broker.assert_bounded("bombs", 64 * MIB, 400 * MIB);
}

#[test]
fn batches_that_are_just_within_the_bound_are_taken_and_cost_no_more_than_their_turn() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("again", 1, &[("compression.type", "lz4")]);
    // 100 MiB of zeros: legal, if odd; as LZ4 they are some hundred KiB.
    let batch = repeated(Compression::Zstd, 20 << 20, 5);
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            let (address, batch) = (broker.address(), batch.clone());
            scope.spawn(move || Client::connect(address).produce("again", batch));
        }
        for _ in 0..10 {
            broker.assert_serves();
        }
    });
    broker.assert_serves();
    broker.assert_bounded("large batches compressed anew", 64 * MIB, 400 * MIB);
}
