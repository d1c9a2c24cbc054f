//! Frames from somebody who means harm: no panic, no allocation out of proportion to the frame (R10).

#![allow(
    unsafe_code,
    reason = "a global allocator that counts is the only way to see what decoding allocates"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use towpath_wire::codec::{DecodeError, Decoder, FieldType};
use towpath_wire::{Message, Request, frame, request_header_version};

/// Counts what the current thread holds, and its peak.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peak of what `work` allocates, in bytes.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, usize::try_from(PEAK.get() - before).unwrap())
}

/// Twice the decoder's own limit (a vector that grows holds its old elements and room for twice as many), and the
/// frame itself, since strings are copied.
fn allowed(frame: usize) -> usize {
    3 * (16 * frame + 64 * 1024) + frame
}

/// Damages bytes the way that finds most: lengths, bits, cuts, copies.
fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            3 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            4 => {
                let length: [u8; 4] =
                    [i32::MAX, i32::MIN, -2, 1_000_000][rng.random_range(0..4)].to_be_bytes();
                bytes.iter_mut().skip(at).zip(length).for_each(|(byte, new)| *byte = new);
            }
            5 => {
                let varint = [0xff, 0xff, 0xff, 0xff, [0x07, 0x0f, 0x7f, 0xff][rng.random_range(0..4)]];
                bytes.splice(at..at, varint);
            }
            _ => {
                let copy = bytes[at..].to_vec();
                bytes.extend_from_slice(&copy[..copy.len().min(200)]);
            }
        }
    }
}

fn header<R: Request>(version: i16) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(R::KEY.code());
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(4);
    out.put_slice(b"test");
    if request_header_version(R::KEY, version) == 2 {
        out.put_u8(0);
    }
    out
}

/// Decodes and, when that works, encodes again: what was understood can be written.
fn survives<M: Message>(bytes: Bytes, version: i16) -> bool {
    let length = bytes.len();
    let (result, peak) = peak_of(|| M::decode(&mut Decoder::new(bytes), version));
    assert!(peak <= allowed(length), "{} v{version}: {peak} bytes for a frame of {length}", M::NAME);
    let Ok(message) = result else { return false };
    let mut again = BytesMut::new();
    message.encode(&mut again, version).unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    let mut twice = BytesMut::new();
    M::decode(&mut Decoder::new(again.clone().freeze()), version)
        .unwrap()
        .encode(&mut twice, version)
        .unwrap();
    assert_eq!(again, twice, "{} v{version}", M::NAME);
    true
}

/// Returns how many damaged messages were still understood, and how many were not.
fn attack<R: Request>(rounds: usize) -> (usize, usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(0xbad + u64::from(R::KEY.code().unsigned_abs()));
    let (mut understood, mut refused) = (0, 0);
    for round in 0..rounds {
        let version = rng.random_range(R::VERSIONS.min..=R::VERSIONS.max);
        let unknown_tags = rng.random_bool(0.1);
        let whole = if round % 2 == 0 {
            let mut bytes = support::random_bytes::<R>(&mut rng, version, unknown_tags).to_vec();
            mutate(&mut rng, &mut bytes);
            let request = Bytes::from(bytes);
            let mut whole = header::<R>(version);
            whole.put_slice(&request);
            let ok = survives::<R>(request, version);
            understood += usize::from(ok);
            refused += usize::from(!ok);
            whole
        } else {
            let mut bytes = support::random_bytes::<R::Response>(&mut rng, version, unknown_tags).to_vec();
            mutate(&mut rng, &mut bytes);
            survives::<R::Response>(Bytes::from(bytes), version);
            header::<R>(version)
        };
        let mut whole = whole.to_vec();
        mutate(&mut rng, &mut whole);
        let length = whole.len();
        let (_, peak) = peak_of(|| frame::decode_request::<R>(Bytes::from(whole)));
        assert!(peak <= allowed(length), "{}: {peak} bytes for a frame of {length}", R::NAME);
    }
    (understood, refused)
}

macro_rules! attack_all {
    ($($request:ident,)*) => {
        [$((towpath_wire::$request::NAME, attack::<towpath_wire::$request>(4000))),*]
    };
}

#[test]
fn damaged_frames_neither_panic_nor_allocate_much() {
    let kafkas = towpath_wire::for_each_request!(attack_all);
    let ours = towpath_wire::for_each_own_request!(attack_all);
    for (name, (understood, refused)) in kafkas.into_iter().chain(ours) {
        assert!(understood + refused == 2000, "{name}: {understood} + {refused}");
        assert!(refused > 100, "{name}: only {refused} damaged messages were refused");
    }
}

macro_rules! noise_all {
    ($($request:ident,)*) => {
        $(
            noise::<towpath_wire::$request>();
            noise::<<towpath_wire::$request as Request>::Response>();
        )*
    };
}

/// Bytes that never were a message: of any value, and of the few values that lengths are made of.
fn noise<M: Message>() {
    let mut rng = ChaCha8Rng::seed_from_u64(0x0015e);
    for version in M::VERSIONS.iter() {
        for round in 0..200 {
            let length = rng.random_range(0..[8, 64, 600][round % 3]);
            let few = [0, 0, 1, 2, 0x7f, 0x80, 0xff, 0xff];
            let byte = |rng: &mut ChaCha8Rng| match round % 2 {
                0 => rng.random(),
                _ => few[rng.random_range(0..few.len())],
            };
            let bytes: Vec<u8> = (0..length).map(|_| byte(&mut rng)).collect();
            survives::<M>(Bytes::from(bytes), version);
        }
    }
}

#[test]
fn noise_neither_panics_nor_allocates_much() {
    towpath_wire::for_each_request!(noise_all);
    towpath_wire::for_each_own_request!(noise_all);
}

macro_rules! cut_all {
    ($($request:ident,)*) => {
        $(
            cut::<towpath_wire::$request>();
            cut::<<towpath_wire::$request as Request>::Response>();
        )*
    };
}

/// A valid message cut at any byte is an error.
fn cut<M: Message>() {
    let mut rng = ChaCha8Rng::seed_from_u64(0xc07);
    for version in M::VERSIONS.iter() {
        let bytes = support::random_bytes::<M>(&mut rng, version, true).freeze();
        for end in 0..bytes.len() {
            let result = M::decode(&mut Decoder::new(bytes.slice(..end)), version);
            assert!(result.is_err(), "{} v{version} cut at {end} of {}: {result:?}", M::NAME, bytes.len());
        }
        M::decode(&mut Decoder::new(bytes), version).unwrap();
    }
}

#[test]
fn a_message_cut_at_any_byte_is_refused() {
    towpath_wire::for_each_request!(cut_all);
    towpath_wire::for_each_own_request!(cut_all);
}

macro_rules! million_all {
    ($($request:ident,)*) => {
        0 $(
            + million::<towpath_wire::$request>()
            + million::<<towpath_wire::$request as Request>::Response>()
        )*
    };
}

/// A message whose first field is an array that claims a million elements, in 50 bytes.
fn million<M: Message>() -> usize {
    let mut refused = 0;
    let first = support::table::<M>().fields.first();
    let Some(FieldType::Array(_)) = first.map(|field| field.field_type) else { return 0 };
    for version in M::VERSIONS.iter() {
        let mut bytes = BytesMut::new();
        if M::is_flexible(version) {
            support::put_uvarint(&mut bytes, 1_000_001);
        } else {
            bytes.put_i32(1_000_000);
        }
        bytes.resize(50, 0);
        let bytes = bytes.freeze();
        let (result, peak) = peak_of(|| M::decode(&mut Decoder::new(bytes), version));
        if first.is_some_and(|field| field.versions.contains(version) && field.tag.is_none()) {
            assert!(
                matches!(result, Err(DecodeError::TooManyElements { count: 1_000_000, .. })),
                "{} v{version}: {result:?}",
                M::NAME
            );
            assert_eq!(peak, 0, "{} v{version}: {peak} bytes allocated", M::NAME);
            refused += 1;
        }
    }
    refused
}

#[test]
fn a_million_elements_in_fifty_bytes_allocate_nothing() {
    let refused = towpath_wire::for_each_request!(million_all);
    assert!(refused > 50, "only {refused} messages begin with an array");
}

/// An array whose elements are as small as they can be, as many as the frame can hold.
#[test]
fn an_array_of_the_smallest_elements_stays_in_proportion() {
    for length in [1000, 100_000, 4_000_000] {
        let mut bytes = BytesMut::new();
        bytes.put_i32(i32::try_from(length / 2).unwrap());
        bytes.resize(length + 4, 0);
        // MetadataRequest v0: an array of topics, each a name of at least two bytes and, in memory, 40 bytes more.
        let frame = bytes.freeze();
        let (result, peak) = peak_of(|| towpath_wire::MetadataRequest::decode(&mut Decoder::new(frame), 0));
        assert!(peak <= allowed(length), "{peak} bytes for {length}");
        if length > 100_000 {
            assert!(matches!(result, Err(DecodeError::MemoryExceeded { .. })), "{result:?}");
        }
    }
}

macro_rules! names_of_all {
    ($($request:ident,)*) => {
        [$(towpath_wire::$request::KEY.name()),*]
    };
}

#[test]
fn every_request_has_a_fuzz_target() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    let kafkas = towpath_wire::for_each_request!(names_of_all);
    let ours = towpath_wire::for_each_own_request!(names_of_all);
    for name in kafkas.into_iter().chain(ours) {
        let snake = name.chars().fold(String::new(), |mut snake, character| {
            if character.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(character.to_lowercase());
            snake
        });
        let target = std::fs::read_to_string(format!("{folder}/fuzz_targets/{snake}.rs")).expect(&snake);
        assert!(target.contains(&format!("towpath_wire::{name}Request")), "{snake}");
        assert!(manifest.contains(&format!("name = \"{snake}\"")), "{snake} is not in the manifest");
    }
}
