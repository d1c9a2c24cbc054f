//! Batches from a plugin that means harm: no panic, no allocation out of proportion to the buffer (R10), nothing that
//! could be read out of bounds, and every refusal says what is wrong, and with which record.

#![allow(
    unsafe_code,
    reason = "a global allocator that counts is the only way to see what decoding allocates"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use towpath_api::batch::flat::{self, ENTRY_BYTES, HEADER_BYTES, Malformed};
use towpath_api::{Batch, EventSchema, RecordView, Row, Value, conformance};

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

/// The schemas that a plugin would know: those of the batch, by their first appearance.
fn schemas(batch: &Batch) -> Vec<Arc<EventSchema>> {
    let mut known: Vec<Arc<EventSchema>> = Vec::new();
    for record in batch.records() {
        if !known.iter().any(|it| it.id() == record.schema().id()) {
            known.push(Arc::clone(record.schema()));
        }
    }
    known
}

struct Attack {
    rng: ChaCha8Rng,
    batch: Batch,
    schemas: Vec<Arc<EventSchema>>,
    good: Vec<u8>,
    entries_at: usize,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let batch = conformance::records();
        let schemas = schemas(&batch);
        let mut good = Vec::new();
        let number =
            |schema: &Arc<EventSchema>| schemas.iter().position(|it| it.id() == schema.id()).unwrap() as u32;
        flat::encode(&batch, 0..batch.len(), number, &mut good).unwrap();
        let entries_at = good.len() - batch.len() * ENTRY_BYTES;
        Self { rng: ChaCha8Rng::seed_from_u64(seed), batch, schemas, good, entries_at }
    }

    fn put(bytes: &mut [u8], at: usize, word: u32) {
        bytes.iter_mut().skip(at).zip(word.to_le_bytes()).for_each(|(byte, new)| *byte = new);
    }

    /// A length or a place that lies near one that counts.
    fn word(&mut self) -> u32 {
        let near = [0, HEADER_BYTES, self.entries_at, self.good.len(), 0x4000_0000, 0x8000_0000, 0xffff_ffff];
        let base = near[self.rng.random_range(0..near.len())] as u32;
        let small = self.rng.random_range(0..4);
        if self.rng.random() { base.wrapping_add(small) } else { base.wrapping_sub(small) }
    }

    /// Damages a buffer the way that finds most: places, lengths, entries in disorder, tables of rows, cuts.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let count = self.batch.len();
        for _ in 0..self.rng.random_range(1..4) {
            let entry = self.entries_at + self.rng.random_range(0..count) * ENTRY_BYTES;
            let other = self.entries_at + self.rng.random_range(0..count) * ENTRY_BYTES;
            let at = self.rng.random_range(0..=bytes.len());
            let (word, byte) = (self.word(), self.rng.random());
            let (field, slot) = (self.rng.random_range(0..ENTRY_BYTES), self.rng.random_range(0..14));
            let whole = other.max(entry) + ENTRY_BYTES <= bytes.len();
            match self.rng.random_range(0..10) {
                0 => Self::put(bytes, entry + 40 + slot * 4, word),
                1 => Self::put(bytes, entry + field / 4 * 4, word),
                2 => bytes.iter_mut().skip(entry + field).take(1).for_each(|it| *it = byte),
                3 => Self::put(bytes, self.rng.random_range(0..4) * 4, word),
                4 if whole => bytes.copy_within(entry..entry + ENTRY_BYTES, other),
                5 if whole => bytes.copy_within(entry + 40..entry + ENTRY_BYTES, other + 40),
                // A slot of one record as another one of the next.
                6 if whole => {
                    let from = self.rng.random_range(0..7) * 8 + entry + 40;
                    bytes.copy_within(from..from + 8, other + 40 + slot / 2 * 8);
                }
                7 => bytes.truncate(at),
                8 => bytes.insert(at, byte),
                _ => bytes.iter_mut().skip(at.min(self.entries_at - 1)).take(1).for_each(|it| *it = byte),
            }
        }
    }

    /// What becomes of a buffer: records that can be read, or why not.
    fn decode(&self, bytes: Vec<u8>) -> Result<Batch, Malformed> {
        let length = bytes.len();
        self.read(bytes.clone());
        let known = |number: u32| self.schemas.get(number as usize).cloned();
        let (decoded, peak) = peak_of(|| flat::decode(bytes, &self.batch, 0..self.batch.len(), known));
        // The entries stand twice for a while, and an arena that grows doubles.
        assert!(peak <= 4 * (length + self.good.len()) + 4096, "{peak} bytes for a buffer of {length}");
        let (batch, used) = decoded?;
        assert_eq!(batch.len(), used.len());
        assert!(used.is_sorted_by(|a, b| a < b), "{used:?}");
        for (record, origin) in batch.records().zip(used) {
            read_to_the_end(record);
            let origin = self.batch.record(origin);
            let place = |it: RecordView<'_>| (it.offset(), it.lane(), it.position().map(<[u8]>::to_vec));
            assert_eq!(place(record), place(origin), "R5: places are the origin's");
        }
        self.comes_back(&batch);
        Ok(batch)
    }

    /// The same buffer as what a source brings.
    fn read(&self, bytes: Vec<u8>) {
        let length = bytes.len();
        let known = |number: u32| self.schemas.get(number as usize).cloned();
        let (read, peak) = peak_of(|| flat::read(bytes, known));
        assert!(peak <= 4 * (length + self.good.len()) + 4096, "{peak} bytes for a buffer of {length}");
        let Ok(batch) = read else { return };
        for record in batch.records() {
            read_to_the_end(record);
            assert_eq!(record.offset(), -1, "an offset is the topic's to give");
            assert!(record.position().is_none_or(|it| it.len() <= 1024));
        }
    }

    /// What was read can be written, and read again.
    fn comes_back(&self, batch: &Batch) {
        let mut bytes = Vec::new();
        let number = |schema: &Arc<EventSchema>| {
            self.schemas.iter().position(|it| it.id() == schema.id()).unwrap() as u32
        };
        flat::encode(batch, 0..batch.len(), number, &mut bytes).unwrap();
        let known = |number: u32| self.schemas.get(number as usize).cloned();
        let (again, _) = flat::decode(bytes, batch, 0..batch.len(), known).unwrap();
        assert_eq!(again.len(), batch.len());
    }
}

fn read_to_the_end(record: RecordView<'_>) {
    let schema = record.schema();
    let (key, value) = (schema.key().map(Arc::as_ref), Some(schema.value().as_ref()));
    let rows = [
        (record.key(), key),
        (record.before(), value),
        (record.after(), value),
        (record.source(), schema.source().map(|block| &block.fields)),
    ];
    for (row, schema) in rows {
        let (Some(row), Some(schema)) = (row, schema) else { continue };
        assert_eq!(row.len(), schema.fields.len());
        assert!(row.values().all(|value| value != Value::Text("\u{fffd}")));
        let bytes: usize = (0..row.len()).map(|index| row.bytes(index).len()).sum();
        assert!(bytes <= usize::MAX / 2);
    }
    assert!(record.headers().count() <= 4096);
    assert!(record.topic().is_none_or(|topic| !topic.as_str().is_empty()));
    assert!(record.partition().is_none_or(|partition| partition >= 0));
}

#[test]
fn damaged_batches_are_refused_and_named_or_readable() {
    let (mut refused, mut understood) = (0, 0);
    let mut named = BTreeSet::new();
    for seed in 0..20 {
        let mut attack = Attack::new(seed);
        attack.decode(attack.good.clone()).unwrap();
        for round in 0..2_000 {
            let mut bytes = attack.good.clone();
            attack.mutate(&mut bytes);
            match attack.decode(bytes) {
                Ok(_) => understood += 1,
                Err(error) => {
                    refused += 1;
                    if let Malformed::Record { index, .. } = &error {
                        assert!(*index < attack.batch.len(), "seed {seed}, round {round}: {error}");
                    }
                    let letters = |it: &char| !it.is_ascii_digit() && *it != '-';
                    named.insert(error.to_string().chars().filter(letters).collect::<String>());
                }
            }
        }
    }
    assert!(refused > 10_000 && understood > 1_000, "{refused} refused, {understood} understood");
    for expected in [
        "the batch does not begin with TPB",
        "the batch has more records than came in",
        "the batch has its entries at a wrong place",
        "the batch has something in the reserved part of its header",
        "the batch is shorter than its header",
        "record  of the batch has the origin : they must rise, and be of records that came in",
        "record  of the batch has the schema , which nobody has defined",
        "record  of the batch has the operation ",
        "record  of the batch has unknown flags",
        "record  of the batch has the partition ",
        "record  of the batch has its key outside the arena",
        "record  of the batch has its after outside the arena",
        "record  of the batch has its headers outside the arena",
        "record  of the batch has headers that cannot be read",
        "record  of the batch shares bytes with others",
    ] {
        assert!(named.contains(expected), "nobody was told: {expected}\n{named:#?}");
    }
    for part in ["bad after", "bad before", "bad key", "field's end", "do not fit its type", "a topic that"] {
        assert!(named.iter().any(|it| it.contains(part)), "nobody was told: {part}\n{named:#?}");
    }
}

/// Bytes that never were a batch, behind a header that says so.
#[test]
fn noise_is_refused_or_readable() {
    let mut attack = Attack::new(0x0015e);
    for round in 0..20_000_usize {
        let count = round % 4;
        let arena = attack.rng.random_range(0..64);
        let few = [0, 0, 1, 2, 16, 0x7f, 0x80, 0xff, 0xff];
        let mut bytes: Vec<u8> = (0..HEADER_BYTES + arena + count * ENTRY_BYTES)
            .map(|_| {
                if round % 2 == 0 { attack.rng.random() } else { few[attack.rng.random_range(0..few.len())] }
            })
            .collect();
        let head = [flat::MAGIC, count as u32, (HEADER_BYTES + arena) as u32, 0];
        head.into_iter().enumerate().for_each(|(index, word)| Attack::put(&mut bytes, index * 4, word));
        let _ = attack.decode(bytes);
    }
}

/// A row as a plugin may write it, byte by byte: what is let through can be read.
#[test]
fn rows_of_noise_are_refused_or_readable() {
    let mut rng = ChaCha8Rng::seed_from_u64(0x40_55);
    let all = schemas(&conformance::records());
    let mut let_through = 0;
    for round in 0..40_000_usize {
        let schema = all[round % all.len()].value();
        let table = schema.fields.len() * 4;
        let length = rng.random_range(0..table + 48);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        // Ends that rise, and states that there are, get further.
        let mut end = 0_u32;
        for entry in bytes.chunks_exact_mut(4).take(schema.fields.len()).filter(|_| round % 3 != 0) {
            let state = [0, 0, 0, 1, 2, 3][rng.random_range(0..6)];
            end += if state == 0 { [0, 1, 4, 8, 9][rng.random_range(0..5)] } else { 0 };
            entry.copy_from_slice(&(state << 30 | end).to_le_bytes());
        }
        if let Ok(row) = Row::checked(schema, &bytes) {
            let_through += 1;
            assert_eq!(row.values().count(), schema.fields.len());
        }
    }
    assert!(let_through > 100, "{let_through}");
}
