//! Bytes that are not what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;

use bytes::Bytes;
use proptest::prelude::*;
use towpath_record::{
    BatchBuilder, BatchError, Codec, Compression, Header, Origin, RecordBatch, ValidateError,
    ValidateOptions, batches, decompress, validate,
};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

fn sample(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for index in 0..20u8 {
        let value = vec![index; 40];
        let header = [Header::new("h", Some(&value[..3]))];
        builder.append(1000 + i64::from(index), Some(&[index]), Some(&value), &header).unwrap();
    }
    builder.build().unwrap()
}

/// Recomputes the checksum, so that the damage reaches the code behind it.
fn fix_crc(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn read_all(bytes: &Bytes) {
    for batch in batches(bytes).flatten() {
        if let Ok(records) = batch.records_capped(1 << 20) {
            for record in records.iter().flatten() {
                let _ = record.headers.iter().count();
            }
        }
    }
}

#[test]
fn truncation_at_every_byte_is_an_error_and_not_a_panic() {
    for compression in Compression::ALL {
        let whole = sample(compression);
        validate(&whole, &ValidateOptions::default()).unwrap();
        for cut in 0..whole.len() {
            let part = whole.slice(..cut);
            assert!(validate(&part, &ValidateOptions::default()).is_err(), "{compression} cut at {cut}");
            assert_eq!(batches(&part).count(), 0, "a consumer ignores a partial batch");
            // The length field is made to fit, and the checksum too.
            if cut >= 61 {
                let mut bytes = part.to_vec();
                bytes[8..12].copy_from_slice(&((cut - 12) as i32).to_be_bytes());
                fix_crc(&mut bytes);
                let bytes = Bytes::from(bytes);
                read_all(&bytes);
                // The last bytes of a frame may be its checksum or end mark only.
                let result = validate(&bytes, &ValidateOptions::default());
                if compression == Compression::None || cut + 12 < whole.len() {
                    assert!(result.is_err(), "{compression} cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed_by_the_checksum_or_harmless() {
    for compression in Compression::ALL {
        let whole = sample(compression);
        for byte in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.to_vec();
                bytes[byte] ^= 1 << bit;
                let damaged = Bytes::from(bytes.clone());
                let checked = RecordBatch::parse(&damaged).and_then(|batch| batch.verify_crc());
                // Only base offset and leader epoch are outside of the checksum.
                let outside = byte < 8 || (12..16).contains(&byte);
                assert_eq!(checked.is_ok(), outside, "{compression} byte {byte} bit {bit}");
                if byte >= 21 {
                    fix_crc(&mut bytes);
                }
                let damaged = Bytes::from(bytes);
                read_all(&damaged);
                let _ = validate(&damaged, &ValidateOptions::default());
            }
        }
    }
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300), codec in 0u8..8) {
        let mut bytes = vec![0; 61];
        bytes.extend_from_slice(&noise);
        let length = bytes.len();
        bytes[8..12].copy_from_slice(&((length - 12) as i32).to_be_bytes());
        bytes[16] = 2;
        bytes[22] = codec;
        bytes[26] = 2;
        bytes[43..57].fill(0xff);
        bytes[60] = 3;
        fix_crc(&mut bytes);
        let bytes = Bytes::from(bytes);
        read_all(&bytes);
        let _ = validate(&bytes, &ValidateOptions::default());
        read_all(&Bytes::from(noise));
    }
}

fn framed(compression: Compression, payload: &[u8], count: i32) -> Bytes {
    let mut bytes = vec![0; 61];
    bytes.extend_from_slice(payload);
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    bytes[22] = compression.id();
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[43..57].fill(0xff);
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    fix_crc(&mut bytes);
    Bytes::from(bytes)
}

/// A gigabyte of zeros, as each codec writes it, without ever having it in memory.
fn bomb(compression: Compression) -> Vec<u8> {
    let block = vec![0u8; 1 << 20];
    let mut out = Vec::new();
    match compression {
        Compression::None => unreachable!("nothing expands"),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            (0..1024).for_each(|_| encoder.write_all(&block).unwrap());
            out = encoder.finish().unwrap();
        }
        Compression::Snappy => {
            out.extend_from_slice(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
            let packed = snap::raw::Encoder::new().compress_vec(&block).unwrap();
            for _ in 0..1024 {
                out.extend_from_slice(&(packed.len() as i32).to_be_bytes());
                out.extend_from_slice(&packed);
            }
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            (0..1024).for_each(|_| encoder.write_all(&block).unwrap());
            out = encoder.finish().unwrap();
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, 1).unwrap();
            (0..1024).for_each(|_| encoder.write_all(&block).unwrap());
            out = encoder.finish().unwrap();
        }
    }
    out
}

#[test]
fn bombs_are_refused_by_every_codec() {
    let max = 16 << 20;
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let payload = bomb(compression);
        let refused = |result: Result<(), BatchError>| {
            assert!(
                matches!(result, Err(BatchError::UncompressedTooLarge { .. })),
                "{compression}: {result:?}"
            );
        };
        refused(decompress(compression, &payload, max).map(drop));
        let batch = framed(compression, &payload, 1);
        refused(RecordBatch::parse(&batch).unwrap().records_capped(max).map(drop));
        // A record whose value is all of it: the streaming walk stops at the bound as well.
        let options = ValidateOptions {
            message_bytes_max: usize::MAX,
            uncompressed_bytes_max: max,
            ..ValidateOptions::default()
        };
        // Zeros are records of length 0, which no record has: refused long before the bound.
        assert!(validate(&batch, &options).is_err());
    }
    // A raw snappy block that claims four gigabytes in ten bytes.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0];
    assert!(decompress(Compression::Snappy, &claim, usize::MAX).is_err());
    assert!(decompress(Compression::Snappy, &claim, max).is_err());
}

#[test]
fn a_record_that_expands_past_the_bound_is_refused_while_it_streams() {
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(compression);
        builder.append(0, None, Some(&vec![0; 8 << 20]), &[]).unwrap();
        let batch = builder.build().unwrap();
        let options = ValidateOptions { uncompressed_bytes_max: 1 << 20, ..ValidateOptions::default() };
        let result = validate(&batch, &options);
        assert!(
            matches!(result, Err(ValidateError::Corrupt(BatchError::UncompressedTooLarge { .. }))),
            "{compression}: {result:?}"
        );
        validate(&batch, &ValidateOptions::default()).unwrap();
    }
}

#[test]
fn raw_snappy_is_read_as_well() {
    let mut raw = BatchBuilder::new(Compression::None);
    raw.append(5, Some(b"k"), Some(&[7; 1000]), &[]).unwrap();
    let raw = raw.build().unwrap();
    let packed = snap::raw::Encoder::new().compress_vec(&raw[61..]).unwrap();
    let batch = framed(Compression::Snappy, &packed, 1);
    validate(&batch, &ValidateOptions::default()).unwrap();
    let records = RecordBatch::parse(&batch).unwrap().records().unwrap();
    assert_eq!(records.iter().next().unwrap().unwrap().value, Some(&[7u8; 1000][..]));
}

/// Builds a batch, lets `change` alter its bytes, and validates it.
fn check(options: &ValidateOptions, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), ValidateError> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1000, Some(b"a"), Some(b"1"), &[]).unwrap();
    builder.append(2000, None, Some(b"2"), &[]).unwrap();
    let mut bytes = builder.build().unwrap().to_vec();
    change(&mut bytes);
    fix_crc(&mut bytes);
    validate(&Bytes::from(bytes), options).map(drop)
}

#[test]
fn the_produce_rules() {
    let plain = ValidateOptions::default();
    check(&plain, |_| {}).unwrap();
    let invalid = |result: Result<(), ValidateError>| {
        assert!(matches!(result, Err(ValidateError::InvalidBatch(_))), "{result:?}");
    };
    invalid(check(&plain, |bytes| bytes[60] = 1));
    invalid(check(&plain, |bytes| bytes[57..61].copy_from_slice(&0i32.to_be_bytes())));
    invalid(check(&plain, |bytes| bytes[57..61].copy_from_slice(&(-1i32).to_be_bytes())));
    invalid(check(&plain, |bytes| bytes[22] |= 0x20));
    invalid(check(&plain, |bytes| bytes[22] |= 0x10));
    invalid(check(&plain, |bytes| bytes[22] |= 0x40));
    invalid(check(&plain, |bytes| bytes[7] = 1));
    let again = sample(Compression::None);
    invalid(check(&plain, |bytes| bytes.extend_from_slice(&again)));
    assert!(matches!(check(&plain, |bytes| bytes[22] |= 0x08), Err(ValidateError::InvalidTimestamps(_))));
    assert!(matches!(
        check(&plain, |bytes| bytes[22] |= 0x07),
        Err(ValidateError::Corrupt(BatchError::UnknownCompression(7)))
    ));
    assert!(matches!(
        check(&plain, |bytes| bytes[16] = 1),
        Err(ValidateError::Corrupt(BatchError::Magic(1)))
    ));
    let small = ValidateOptions { message_bytes_max: 70, ..plain };
    assert!(matches!(check(&small, |_| {}), Err(ValidateError::TooLarge { max: 70, .. })));
    let compacted = ValidateOptions { compacted: true, ..plain };
    match check(&compacted, |_| {}) {
        Err(ValidateError::InvalidRecords(records)) => assert_eq!(records[0].index, 1),
        other => panic!("{other:?}"),
    }
    // The second record's offset delta: length, attributes, timestamp delta (two bytes), then the delta.
    let second = 61 + 9;
    match check(&plain, |bytes| bytes[second + 4] = 4) {
        Err(ValidateError::InvalidRecords(records)) => assert_eq!(records[0].index, 1),
        other => panic!("{other:?}"),
    }
    let producer = |sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.set_producer(ProducerId::new(1), ProducerEpoch::new(0), sequence);
        builder.append(0, None, None, &[]).unwrap();
        validate(&builder.build().unwrap(), &plain).map(drop)
    };
    producer(0).unwrap();
    invalid(producer(-1));
}

#[test]
fn timestamps_have_bounds() {
    let now = 1_000_000;
    let bounded = ValidateOptions {
        now_ms: now,
        timestamp_before_max_ms: 100,
        timestamp_after_max_ms: 50,
        ..ValidateOptions::default()
    };
    let with = |timestamp: i64, options: &ValidateOptions| {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        builder.append(now, None, None, &[]).unwrap();
        builder.append(timestamp, None, None, &[]).unwrap();
        validate(&builder.build().unwrap(), options)
    };
    for good in [now, now - 100, now + 50, -1] {
        with(good, &bounded).unwrap();
    }
    for bad in [now - 101, now + 51, i64::MAX, i64::MIN] {
        match with(bad, &bounded) {
            Err(ValidateError::InvalidTimestamps(records)) => assert_eq!(records[0].index, 1, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    let append_time =
        ValidateOptions { timestamp_type: towpath_record::TimestampType::LogAppendTime, ..bounded };
    with(now + 51, &append_time).unwrap();
    let coordinator = ValidateOptions { origin: Origin::Coordinator, ..bounded };
    with(now + 51, &coordinator).unwrap();
}

#[test]
fn compacted_batches_keep_their_offsets() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.set_base(Offset::new(100), LeaderEpoch::new(3));
    builder.set_delete_horizon(5_000);
    builder.append_at(2, 1_000, Some(b"a"), None, &[]).unwrap();
    builder.append_at(7, 3_000, Some(b"b"), Some(b"x"), &[]).unwrap();
    assert!(builder.append_at(7, 3_000, None, None, &[]).is_err(), "offsets grow");
    builder.set_last_offset_delta(9);
    let batch = RecordBatch::parse(&builder.build().unwrap()).unwrap();
    assert_eq!(batch.last_offset(), Offset::new(109));
    assert_eq!(batch.delete_horizon_ms(), Some(5_000));
    let records = batch.records().unwrap();
    let read: Vec<_> =
        records.iter().map(|record| record.map(|r| (r.offset.get(), r.timestamp)).unwrap()).collect();
    assert_eq!(read, [(102, 1_000), (107, 3_000)]);
    builder.set_last_offset_delta(4);
    let empty = RecordBatch::parse(&builder.build().unwrap()).unwrap();
    empty.verify_crc().unwrap();
    assert!(empty.records().unwrap().is_empty());
    assert_eq!(empty.next_offset(), Offset::new(5));
}

type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_built_is_read(
        records in proptest::collection::vec(
            (
                -1i64..4_000_000_000_000,
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
                proptest::option::of(proptest::collection::vec(0u8..4, 0..400)),
                proptest::collection::vec(
                    ("[a-z]{0,5}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9))),
                    0..4,
                ),
            ),
            1..60,
        ),
        codec in 0u8..5,
        level in proptest::option::of(1i32..9),
    ) {
        let compression = Compression::from_id(codec).unwrap();
        let mut builder = BatchBuilder::new(Codec { compression, level });
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<_> =
                headers.iter().map(|(key, value)| Header::new(key, value.as_deref())).collect();
            let before = builder.size_in_bytes();
            builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers).unwrap();
            let estimate = towpath_record::record_bytes(key.as_deref(), value.as_deref(), &headers);
            prop_assert!(builder.size_in_bytes() - before <= estimate);
        }
        let bytes = builder.build().unwrap();
        let valid = validate(&bytes, &ValidateOptions::default()).unwrap();
        prop_assert_eq!(valid.max_timestamp, records.iter().map(|record| record.0).max().unwrap());
        prop_assert_eq!(valid.max_timestamp, valid.header.max_timestamp);
        let batch = RecordBatch::parse(&bytes).unwrap();
        let read = batch.records().unwrap();
        let read: Vec<Plain> = read
            .iter()
            .map(|record| {
                let record = record.unwrap();
                let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
                let headers = record
                    .headers
                    .iter()
                    .map(|header| (String::from_utf8(header.key.to_vec()).unwrap(), owned(header.value)))
                    .collect();
                (record.timestamp, owned(record.key), owned(record.value), headers)
            })
            .collect();
        prop_assert_eq!(read, records);
    }
}
