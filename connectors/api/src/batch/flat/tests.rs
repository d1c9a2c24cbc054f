use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;
use crate::conformance::records;

/// Where the entries stand.
fn entries_at(buffer: &[u8]) -> usize {
    u32::from_le_bytes(*buffer[8..].first_chunk().unwrap()) as usize
}

/// Every schema of the batch under its index.
fn numbers(batch: &Batch) -> impl Fn(u32) -> Option<Arc<EventSchema>> {
    let schemas = batch.schemas.clone();
    move |number| schemas.get(number as usize).cloned()
}

fn flat(batch: &Batch, range: Range<usize>) -> Vec<u8> {
    let schemas = batch.schemas.clone();
    let number = |schema: &Arc<EventSchema>| {
        schemas.iter().position(|known| Arc::ptr_eq(known, schema)).unwrap() as u32
    };
    let mut out = b"what was there before".to_vec();
    encode(batch, range, number, &mut out).unwrap();
    out
}

fn same(a: &Batch, b: &Batch) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.records().zip(b.records()) {
        assert_eq!(crate::conformance::content(a), crate::conformance::content(b));
        assert_eq!((a.offset(), a.lane(), a.position()), (b.offset(), b.lane(), b.position()));
    }
}

#[test]
fn a_batch_comes_back_as_it_went() {
    let batch = records();
    let (back, used) = decode(flat(&batch, 0..batch.len()), &batch, 0..batch.len(), numbers(&batch)).unwrap();
    same(&batch, &back);
    assert_eq!(used, (0..batch.len()).collect::<Vec<_>>());
}

#[test]
fn a_part_of_a_batch_counts_its_origins_from_its_own_beginning() {
    let batch = records();
    let range = 2..batch.len() - 1;
    let (back, _) = decode(flat(&batch, range.clone()), &batch, range.clone(), numbers(&batch)).unwrap();
    let mut expected = BatchBuilder::new();
    batch.records().skip(2).take(range.len()).for_each(|record| expected.push(record));
    same(&expected.build(), &back);
}

#[test]
fn an_empty_batch_is_its_header() {
    let batch = Batch::default();
    let bytes = flat(&batch, 0..0);
    assert_eq!(bytes.len(), HEADER_BYTES);
    assert!(decode(bytes, &batch, 0..0, |_| None).unwrap().0.is_empty());
}

/// What a guest says about offset, lane and position counts for nothing (R5).
#[test]
fn offsets_and_positions_are_those_of_the_origin() {
    let batch = records();
    let mut bytes = flat(&batch, 0..batch.len());
    let at = entries_at(&bytes);
    for entry in bytes[at..].chunks_exact_mut(ENTRY_BYTES) {
        entry[24..40].fill(0x77);
        entry[80..84].fill(0xff);
    }
    let (back, _) = decode(bytes, &batch, 0..batch.len(), numbers(&batch)).unwrap();
    same(&batch, &back);
}

#[test]
fn forged_buffers_are_refused_and_told_apart() {
    let batch = records();
    let good = flat(&batch, 0..batch.len());
    let at = entries_at(&good);
    let forge = |at: usize, bytes: &[u8]| {
        let mut forged = good.clone();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        decode(forged, &batch, 0..batch.len(), numbers(&batch)).unwrap_err().to_string()
    };
    let second = at + ENTRY_BYTES;
    for (place, bytes, expected) in [
        (0, &b"TPB2"[..], "TPB1"),
        (4, &[0xff; 4], "more records"),
        (8, &[0xff; 4], "wrong place"),
        (8, &[1, 0, 0, 0], "wrong place"),
        (12, &[1], "reserved"),
        (second, &[99], "schema 99"),
        (second + 4, &(-2_i32).to_le_bytes(), "partition -2"),
        (second + 8, &[7], "operation 7"),
        (second + 9, &[2], "flags"),
        (second + 12, &[0], "origin 0"),
        (second + 12, &[0xff; 4], "must rise"),
        (second + 56, &[0xff, 0xff, 0xff, 0x7f], "outside the arena"),
        (second + 60, &[0xff; 4], "outside the arena"),
        (second + 60, &[1, 0, 0, 0], "bad after"),
    ] {
        let error = forge(place, bytes);
        assert!(error.contains(expected), "{place}: {error}");
    }
    for length in [0, 3, 15, 16, good.len() - 1] {
        decode(good[..length].to_vec(), &batch, 0..batch.len(), numbers(&batch)).unwrap_err();
    }
}

/// What a source brings has the lanes and positions that it wrote, and no offset.
#[test]
fn new_records_have_places_of_their_own() {
    let batch = records();
    let mut bytes = flat(&batch, 0..batch.len());
    let at = entries_at(&bytes);
    for entry in bytes[at..].chunks_exact_mut(ENTRY_BYTES) {
        // Origins mean nothing here.
        entry[12..16].fill(0x7f);
    }
    let read = read(bytes, numbers(&batch)).unwrap();
    assert_eq!(read.len(), batch.len());
    for (a, b) in batch.records().zip(read.records()) {
        assert_eq!(crate::conformance::content(a), crate::conformance::content(b));
        assert_eq!((b.offset(), b.lane(), b.position()), (-1, a.lane(), a.position()));
    }
}

#[test]
fn positions_of_new_records_are_bounded() {
    let batch = records();
    for (length, fits) in [(PLUGIN_POSITION_BYTES_MAX, true), (PLUGIN_POSITION_BYTES_MAX + 1, false)] {
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(batch.record(0).schema());
        record.position(1, &vec![7; length]);
        record.finish();
        let one = builder.build();
        assert_eq!(read(flat(&one, 0..1), numbers(&one)).is_ok(), fits, "{length}");
    }
}

#[test]
fn records_do_not_share_bytes() {
    let batch = records();
    let mut bytes = flat(&batch, 0..batch.len());
    let at = entries_at(&bytes);
    // One stretch as the headers of all: each alone would be fine.
    let wide = [0_u32, 0].map(u32::to_le_bytes).concat().repeat(8);
    bytes[HEADER_BYTES..HEADER_BYTES + wide.len()].copy_from_slice(&wide);
    for entry in bytes[at..].chunks_exact_mut(ENTRY_BYTES) {
        entry[40..].fill(0xff);
        entry[72..76].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        entry[76..80].copy_from_slice(&(at as u32 - HEADER_BYTES as u32 - 1).to_le_bytes());
    }
    let error = decode(bytes, &batch, 0..batch.len(), numbers(&batch)).unwrap_err().to_string();
    assert!(error.contains("headers") || error.contains("shares"), "{error}");
}

proptest! {
    /// R10: whatever comes, it is refused, or can be read to its end.
    #[test]
    fn nothing_forged_is_read_out_of_bounds(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let batch = records();
        let mut bytes = flat(&batch, 0..batch.len());
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok((read, used)) = decode(bytes, &batch, 0..batch.len(), numbers(&batch)) {
            prop_assert_eq!(read.len(), used.len());
            for record in read.records() {
                crate::conformance::content(record);
            }
        }
    }
}
