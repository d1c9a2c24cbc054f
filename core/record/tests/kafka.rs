//! Batches as Apache Kafka 4.3's `MemoryRecords` writes them, and the same records written by us.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::Bytes;
use towpath_record::{
    BatchBuilder, BatchHeader, Compression, ControlType, Header, Origin, RecordBatch, TimestampType,
    ValidateOptions, batches, control_record, edit, validate,
};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

const GOLDEN: [(Compression, &str); 5] = [
    (
        Compression::None,
        "0000000000000007000000a40000000902bcb682170000000000030000018bcfe568000000018bcfe569f40000000000\
         00126700037ffffffe0000000414000000046b3104763100aa0100e80702017674686520717569636b2062726f776e20\
         666f782074686520717569636b2062726f776e20666f782074686520717569636b2062726f776e20666f78060a747261\
         6365066162630a74726163650100001200cf0f04046b3101000c000206000000",
    ),
    (
        Compression::Gzip,
        "00000000000000070000008d0000000902f8dc333c0001000000030000018bcfe568000000018bcfe569f40000000000\
         00126700037ffffffe000000041f8b08000000000000ff1361606060c9366429336458c5c8f0829d89b1ac242355a1b0\
         3433395b21a928bf3c4f212dbf4281483136ae92a2c4e454b6c4a464088b91814188e13c3f0bd00a46061e062636a075\
         0092369c5b73000000",
    ),
    (
        Compression::Snappy,
        "0000000000000007000000940000000902bb6c54e70002000000030000018bcfe568000000018bcfe569f40000000000\
         00126700037ffffffe0000000482534e415050590000000001000000010000004f739814000000046b3104763100aa01\
         00e80702017674686520717569636b2062726f776e20666f78209a140028060a747261636506616263090a4c01000012\
         00cf0f04046b3101000c000206000000",
    ),
    (
        Compression::Lz4,
        "0000000000000007000000900000000902aa667f7c0003000000030000018bcfe568000000018bcfe569f40000000000\
         00126700037ffffffe0000000404224d1860408250000000ff1814000000046b3104763100aa0100e807020176746865\
         20717569636b2062726f776e20666f7820140014b2060a7472616365066162630a00f0050100001200cf0f04046b3101\
         000c00020600000000000000",
    ),
    (
        Compression::Zstd,
        "00000000000000070000008d00000009023ae3e8b70004000000030000018bcfe568000000018bcfe569f40000000000\
         00126700037ffffffe0000000428b52ffd0058840200640414000000046b3104763100aa0100e8070201767468652071\
         7569636b2062726f776e20666f7820060a7472616365066162630100001200cf0f04046b3101000c0002060000000200\
         2d83bf2be713010000",
    ),
];
const COMMIT: &str = "0000000000000005000000420000000202f1a6ff1f00300000000000000000000004d200000000000004d20000000000\
    00004d0001ffffffff000000012000000008000000010c00000000000d00";

const FOX: &str = "the quick brown fox the quick brown fox the quick brown fox";

/// Decodes a hex literal that may be broken over lines.
fn bytes_of_hex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hex digit") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn expected() -> Vec<Plain> {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let headers =
        vec![(b"trace".to_vec(), bytes("abc")), (b"trace".to_vec(), None), (Vec::new(), Some(Vec::new()))];
    vec![
        (7, 1_700_000_000_000, bytes("k1"), bytes("v1"), Vec::new()),
        (8, 1_700_000_000_500, None, bytes(FOX), headers),
        (9, 1_699_999_999_000, bytes("k1"), None, Vec::new()),
        (10, 1_700_000_000_001, bytes(""), bytes(""), Vec::new()),
    ]
}

fn plain(batch: &RecordBatch) -> Vec<Plain> {
    let records = batch.records().expect("readable");
    let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
    records
        .iter()
        .map(|record| {
            let record = record.expect("readable");
            let headers =
                record.headers.iter().map(|header| (header.key.to_vec(), owned(header.value))).collect();
            (record.offset.get(), record.timestamp, owned(record.key), owned(record.value), headers)
        })
        .collect()
}

#[test]
fn kafkas_batches_are_read() {
    for (compression, hex) in GOLDEN {
        let bytes = bytes_of_hex(hex);
        let all: Vec<_> = batches(&bytes).collect::<Result<_, _>>().expect("whole");
        assert_eq!(all.len(), 1);
        let batch = &all[0];
        batch.verify_crc().expect("the checksum is right");
        assert_eq!(batch.compression().expect("known"), compression);
        assert_eq!(batch.base_offset, Offset::new(7));
        assert_eq!(batch.partition_leader_epoch, LeaderEpoch::new(9));
        assert_eq!(batch.last_offset(), Offset::new(10));
        assert_eq!(batch.max_timestamp, 1_700_000_000_500);
        assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
        assert_eq!(batch.producer_id, ProducerId::new(4711));
        assert_eq!(batch.producer_epoch, ProducerEpoch::new(3));
        assert_eq!(batch.base_sequence, 2_147_483_646);
        assert_eq!(batch.last_sequence(), 1, "sequences wrap to 0");
        assert!(!batch.is_transactional() && !batch.is_control());
        assert_eq!(batch.delete_horizon_ms(), None);
        assert_eq!(plain(batch), expected(), "{compression}");
        let records = batch.records().expect("readable");
        let second = records.iter().nth(1).expect("four records").expect("readable");
        assert_eq!(second.headers.len(), 3);
        assert_eq!(second.headers.last("trace"), Some(None), "the last of two headers");
        assert_eq!(records.share(second.value.expect("a value")), FOX);
    }
}

#[test]
fn the_same_batch_is_written() {
    let headers =
        [Header::new("trace", Some(b"abc")), Header::new("trace", None), Header::new("", Some(b""))];
    for (compression, hex) in GOLDEN {
        let mut builder = BatchBuilder::new(compression);
        for _ in 0..2 {
            builder.set_base(Offset::new(7), LeaderEpoch::new(9));
            builder.set_producer(ProducerId::new(4711), ProducerEpoch::new(3), 2_147_483_646);
            builder.append(1_700_000_000_000, Some(b"k1"), Some(b"v1"), &[]).expect("fits");
            builder.append(1_700_000_000_500, None, Some(FOX.as_bytes()), &headers).expect("fits");
            builder.append(1_699_999_999_000, Some(b"k1"), None, &[]).expect("fits");
            builder.append(1_700_000_000_001, Some(b""), Some(b""), &[]).expect("fits");
            let built = builder.build().expect("built");
            if compression == Compression::None {
                assert_eq!(built, bytes_of_hex(hex), "byte for byte what Kafka writes");
            }
            let batch = RecordBatch::parse(&built).expect("whole");
            batch.verify_crc().expect("the checksum is right");
            assert_eq!(plain(&batch), expected());
        }
    }
}

#[test]
fn validation_accepts_what_a_kafka_producer_sends() {
    for (compression, hex) in GOLDEN {
        let mut bytes = bytes_of_hex(hex).to_vec();
        edit::assign(&mut bytes, Offset::ZERO, LeaderEpoch::NONE).expect("a header");
        let valid = validate(&Bytes::from(bytes), &ValidateOptions::default()).expect("valid");
        assert_eq!(valid.compression, compression);
        assert_eq!(valid.max_timestamp, 1_700_000_000_500);
        assert_eq!(valid.max_timestamp_delta, 1);
    }
}

#[test]
fn a_commit_marker_is_decoded() {
    let bytes = bytes_of_hex(COMMIT);
    let batch = RecordBatch::parse(&bytes).expect("whole");
    batch.verify_crc().expect("the checksum is right");
    assert!(batch.is_control() && batch.is_transactional());
    let records = batch.records().expect("readable");
    let record = records.iter().next().expect("one record").expect("readable");
    let marker = control_record(&record).expect("a marker");
    assert_eq!(marker.control_type, ControlType::Commit);
    assert_eq!(marker.coordinator_epoch, Some(13));
    let options = ValidateOptions { origin: Origin::Coordinator, ..ValidateOptions::default() };
    validate(&bytes, &options).expect("a coordinator may write it");
    let mut from_client = bytes.to_vec();
    edit::assign(&mut from_client, Offset::ZERO, LeaderEpoch::NONE).expect("a header");
    assert!(validate(&Bytes::from(from_client), &ValidateOptions::default()).is_err());
}

#[test]
fn editing_keeps_the_checksum_true() {
    let mut bytes = bytes_of_hex(GOLDEN[0].1).to_vec();
    edit::assign(&mut bytes, Offset::new(1 << 40), LeaderEpoch::new(77)).expect("a header");
    let batch = RecordBatch::parse(&Bytes::from(bytes.clone())).expect("whole");
    batch.verify_crc().expect("offset and epoch are outside of it");
    assert_eq!(batch.base_offset, Offset::new(1 << 40));
    let (header, payload) = bytes.split_at_mut(61);
    edit::set_timestamp(header, payload, TimestampType::LogAppendTime, 42).expect("a header");
    let batch = RecordBatch::parse(&Bytes::from(bytes)).expect("whole");
    batch.verify_crc().expect("computed anew");
    assert!(plain(&batch).iter().all(|(_, timestamp, ..)| *timestamp == 42));
    assert_eq!(BatchHeader::parse(batch.bytes()).expect("a header"), *batch.header());
}
