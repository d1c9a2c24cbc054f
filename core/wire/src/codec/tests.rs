//! The primitives, at their limits.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{DecodeError, Decoder, EncodeError, Encoder, Nullable, SHARED_BYTES_MIN, Value};

fn decoder(bytes: &[u8]) -> Decoder {
    Decoder::new(Bytes::copy_from_slice(bytes))
}

fn written(write: impl FnOnce(&mut Encoder)) -> Bytes {
    let mut e = Encoder::sharing(0);
    write(&mut e);
    e.finish().into_bytes()
}

proptest! {
    #[test]
    fn a_varint_comes_back(value: u32) {
        let bytes = written(|e| e.put_uvarint(value));
        let mut d = Decoder::new(bytes.clone());
        prop_assert_eq!(d.get_uvarint(), Ok(value));
        prop_assert!(d.finish().is_ok());
        for end in 0..bytes.len() {
            let cut = decoder(&bytes[..end]).get_uvarint();
            let truncated = matches!(cut, Err(DecodeError::Truncated { needed: 1, remaining: 0, .. }));
            prop_assert!(truncated);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, flexible: bool) {
        let d = decoder(&bytes);
        let _ = d.clone().get_uvarint();
        let _ = d.clone().get_nullable_string(flexible);
        let _ = d.clone().get_nullable_bytes(flexible);
        let _ = d.clone().get_nullable_array::<String>(0, flexible);
        let _ = d.clone().get_nullable_array::<i64>(0, flexible);
        let _ = d.clone().skip_tagged_fields();
    }
}

#[test]
fn a_varint_has_the_bytes_of_the_specification() {
    for (value, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (300, &[0xac, 0x02]),
        (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        assert_eq!(written(|e| e.put_uvarint(value)), bytes);
        assert_eq!(decoder(bytes).get_uvarint(), Ok(value));
    }
}

#[test]
fn a_varint_of_more_than_32_bits_is_refused() {
    for bytes in [[0xff, 0xff, 0xff, 0xff, 0x1f], [0x80, 0x80, 0x80, 0x80, 0x80], [0xff; 5]] {
        assert_eq!(decoder(&bytes).get_uvarint(), Err(DecodeError::VarintOverflow { position: 0 }));
    }
}

#[test]
fn lengths_are_checked_before_anything_is_done_with_them() {
    let out_of_range = |result: Result<_, DecodeError>, length: i64| {
        assert!(
            matches!(result, Err(DecodeError::LengthOutOfRange { length: at, .. }) if at == length),
            "{result:?}, not {length}"
        );
    };
    out_of_range(decoder(&[0, 5, b'a']).get_nullable_string(false).map(drop), 5);
    out_of_range(decoder(&[0xff, 0xfe]).get_nullable_string(false).map(drop), -2);
    out_of_range(decoder(&[3, b'a']).get_nullable_string(true).map(drop), 2);
    out_of_range(
        decoder(&[0x7f, 0xff, 0xff, 0xff, 1]).get_nullable_bytes(false).map(drop),
        i64::from(i32::MAX),
    );
    out_of_range(decoder(&[0x80, 0, 0, 0]).get_nullable_bytes(false).map(drop), i64::from(i32::MIN));
    out_of_range(decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f]).get_nullable_bytes(true).map(drop), 0xffff_fffe);
    out_of_range(decoder(&[0xff, 0xff, 0xff, 0xf0]).get_nullable_array::<i8>(0, false).map(drop), -16);
}

#[test]
fn an_array_needs_room_for_its_smallest_elements() {
    let mut bytes = vec![0, 0, 0, 4];
    bytes.extend([0; 31]);
    let short = decoder(&bytes).get_nullable_array::<i64>(0, false);
    assert_eq!(short, Err(DecodeError::TooManyElements { position: 4, count: 4, remaining: 31 }));
    bytes.push(0);
    assert_eq!(decoder(&bytes).get_nullable_array::<i64>(0, false), Ok(Some(vec![0; 4])));
}

#[test]
fn memory_is_bounded_by_the_size_of_the_message() {
    // A million empty strings are a million bytes here and 24 million in memory.
    let mut bytes = written(|e| e.put_uvarint(1_000_001)).to_vec();
    bytes.resize(bytes.len() + 1_000_000, 1);
    let refused = decoder(&bytes).get_nullable_array::<String>(0, true);
    assert!(matches!(refused, Err(DecodeError::MemoryExceeded { needed: 24_000_000, .. })), "{refused:?}");
    let capped = decoder(&bytes).with_memory_max(999_999).get_nullable_array::<i8>(0, true);
    assert!(matches!(capped, Err(DecodeError::MemoryExceeded { allowed: 999_999, .. })), "{capped:?}");
    // Bytes are not worth less than bytes.
    assert_eq!(decoder(&bytes).get_nullable_array::<i8>(0, true), Ok(Some(vec![1; 1_000_000])));
}

#[test]
fn a_string_is_utf_8() {
    let refused = decoder(&[0, 2, 0xc3, 0x28]).get_nullable_string(false);
    assert_eq!(refused, Err(DecodeError::InvalidUtf8 { position: 2 }));
    assert_eq!(decoder(&[0, 2, 0xc3, 0xa4]).get_nullable_string(false), Ok(Some("ä".to_owned())));
}

#[test]
fn a_string_is_no_longer_than_kafka_reads() {
    let long = "x".repeat(32_768);
    let mut e = Encoder::sharing(0);
    for flexible in [false, true] {
        let refused = e.put_nullable_string(Some(&long), flexible);
        assert_eq!(refused, Err(EncodeError::TooLong { what: "a string", length: 32_768 }));
    }
    let longest = &long[1..];
    let mut bytes = written(|e| e.put_nullable_string(Some(longest), true).unwrap());
    assert_eq!(Decoder::new(bytes.clone()).get_nullable_string(true), Ok(Some(longest.to_owned())));
    bytes = written(|e| e.put_uvarint(32_769));
    let bytes = [&bytes[..], long.as_bytes()].concat();
    assert!(matches!(decoder(&bytes).get_nullable_string(true), Err(DecodeError::LengthOutOfRange { .. })));
}

#[test]
fn null_is_an_error_where_a_value_must_be() {
    let null = Err(DecodeError::UnexpectedNull { position: 2 });
    assert_eq!(String::decode_value(&mut decoder(&[0xff, 0xff]), 0, false), null);
    assert_eq!(String::decode_nullable(&mut decoder(&[0xff, 0xff]), 0, false), Ok(None));
    assert!(Bytes::decode_value(&mut decoder(&[0]), 0, true).is_err());
    assert!(Vec::<i32>::decode_value(&mut decoder(&[0]), 0, true).is_err());
    assert_eq!(Vec::<i32>::decode_nullable(&mut decoder(&[0]), 0, true), Ok(None));
}

#[test]
fn byte_strings_are_slices_of_the_frame() {
    let frame = Bytes::from(vec![0, 0, 0, 3, 7, 8, 9, 1]);
    let mut d = Decoder::new(frame.clone());
    let slice = d.get_nullable_bytes(false).unwrap().unwrap();
    assert_eq!(slice.as_ptr(), frame[4..].as_ptr());
    assert_eq!((slice.as_ref(), d.rest().as_ref()), (&[7, 8, 9][..], &[1][..]));
    assert_eq!(d.finish(), Err(DecodeError::TrailingBytes { position: 7, remaining: 1 }));
}

#[test]
fn a_tagged_field_keeps_to_its_size() {
    // Tag 0, two bytes long, of which the value takes one.
    let mut d = decoder(&[0, 2, 5, 6, 9]);
    let (tag, scope) = d.begin_tagged_field().unwrap();
    assert_eq!((tag, d.get_i8()), (0, Ok(5)));
    assert_eq!(d.end_tagged_field(scope), Err(DecodeError::TaggedFieldSize { end: 4, unread: 1 }));
    // The value may not reach beyond it.
    let mut d = decoder(&[0, 2, 5, 6, 9, 9]);
    let (_, scope) = d.begin_tagged_field().unwrap();
    assert_eq!(d.get_i32(), Err(DecodeError::Truncated { position: 2, needed: 4, remaining: 2 }));
    d.skip_tagged_field();
    d.end_tagged_field(scope).unwrap();
    assert_eq!(d.get_i8(), Ok(9));
    // Nor it beyond the message.
    assert!(matches!(decoder(&[0, 3, 5, 6]).begin_tagged_field(), Err(DecodeError::LengthOutOfRange { .. })));
    // A section that claims four thousand million fields ends where the bytes end.
    assert!(decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 1]).skip_tagged_fields().is_err());
}

#[test]
fn a_long_tagged_field_has_a_size_of_several_bytes() {
    for length in [0usize, 1, 127, 128, 16_383, 16_384, 3_000_000] {
        let content = Bytes::from(vec![7; length]);
        let bytes = written(|e| {
            e.put_i8(1);
            e.put_tagged_field(3, |e| {
                e.put_shared(&content);
                Ok(())
            })
            .unwrap();
            e.put_i8(2);
        });
        let mut d = Decoder::new(bytes);
        assert_eq!(d.get_i8(), Ok(1));
        let (tag, scope) = d.begin_tagged_field().unwrap();
        assert_eq!((tag, d.rest()), (3, content));
        d.skip_tagged_field();
        d.end_tagged_field(scope).unwrap();
        assert_eq!(d.get_i8(), Ok(2));
        d.finish().unwrap();
    }
}

#[test]
fn long_byte_strings_are_shared_and_short_ones_copied() {
    let long = Bytes::from(vec![1; SHARED_BYTES_MIN]);
    let short = Bytes::from(vec![2; SHARED_BYTES_MIN - 1]);
    let mut e = Encoder::sharing(0);
    e.put_nullable_bytes(Some(&long), false).unwrap();
    e.put_nullable_bytes(Some(&long), false).unwrap();
    e.put_nullable_bytes(Some(&short), false).unwrap();
    assert_eq!(e.written(), 12 + 3 * SHARED_BYTES_MIN - 1);
    let segments = e.finish();
    assert_eq!(segments.len(), 12 + 3 * SHARED_BYTES_MIN - 1);
    let lengths: Vec<usize> = segments.as_slice().iter().map(Bytes::len).collect();
    assert_eq!(lengths, [4, SHARED_BYTES_MIN, 4, SHARED_BYTES_MIN, 4 + SHARED_BYTES_MIN - 1]);
    for at in [1, 3] {
        assert_eq!(segments.as_slice()[at].as_ptr(), long.as_ptr());
    }
    let mut whole = BytesMut::new();
    segments.as_slice().iter().for_each(|segment| whole.extend_from_slice(segment));
    assert_eq!(segments.into_bytes(), whole);
}
