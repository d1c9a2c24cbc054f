//! The end of a log in memory: where the last batches are, and the bytes of the small ones.
//!
//! A reader at the end finds its batches here without touching index or file. Small batches are copied (a request's
//! buffer is reused, and a slice of it kept here would pin all of it); large ones are sent from the page cache.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::disk::Disk;

/// Batches whose place is remembered.
const BATCHES_MAX: usize = 512;
/// Bytes of one piece of memory that small batches are copied into.
const CHUNK_BYTES: usize = 16 * 1024;
/// Pieces of memory that one read returns; more are cheaper as one piece of the file.
const PARTS_MAX: usize = 64;

#[derive(Debug, Clone)]
pub(crate) struct TailBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) segment: i64,
    pub(crate) position: u64,
    pub(crate) size: usize,
    pub(crate) bytes: Option<Bytes>,
}

/// The last batches, without a gap between the first of them and the log end offset.
#[derive(Debug)]
pub(crate) struct Tail {
    disk: Arc<Disk>,
    batches: VecDeque<TailBatch>,
    chunk: BytesMut,
    bytes: usize,
}

/// What a reader can have from the tail.
#[derive(Debug)]
pub(crate) enum TailRead {
    /// The offset is further back.
    Before,
    /// The first batch does not fit, or is not below the bound.
    Nothing,
    /// The bytes.
    Memory(Vec<Bytes>),
    /// The place of the bytes.
    Place { segment: i64, position: u64, length: usize },
}

impl Tail {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, batches: VecDeque::new(), chunk: BytesMut::new(), bytes: 0 }
    }

    /// Takes note of a batch that was just written; its bytes are `header` and `payload`.
    pub(crate) fn push(&mut self, mut batch: TailBatch, parts: [&[u8]; 2], limits: (usize, usize)) {
        let (bytes_max, batch_bytes_max) = limits;
        if batch.size <= batch_bytes_max {
            while self.bytes + batch.size > bytes_max && self.pop() {}
            if self.bytes + batch.size <= bytes_max && self.disk.take_tail_bytes(batch.size) {
                self.bytes += batch.size;
                batch.bytes = Some(self.copy(batch.size, parts));
            }
        }
        if self.batches.len() == BATCHES_MAX {
            self.pop();
        }
        self.batches.push_back(batch);
    }

    fn copy(&mut self, size: usize, parts: [&[u8]; 2]) -> Bytes {
        if self.chunk.capacity() - self.chunk.len() < size {
            // A log that takes little holds little.
            let room = CHUNK_BYTES.min(self.bytes.saturating_mul(4)).max(size);
            self.chunk = BytesMut::with_capacity(room);
        }
        self.chunk.extend_from_slice(parts[0]);
        self.chunk.extend_from_slice(parts[1]);
        self.chunk.split().freeze()
    }

    fn pop(&mut self) -> bool {
        let Some(batch) = self.batches.pop_front() else { return false };
        if batch.bytes.is_some() {
            self.bytes -= batch.size;
            self.disk.give_tail_bytes(batch.size);
        }
        true
    }

    /// Forgets everything: the log was truncated or its end is not known.
    pub(crate) fn clear(&mut self) {
        while self.pop() {}
        self.release();
    }

    /// Gives the memory of the bytes back and keeps the places.
    pub(crate) fn release(&mut self) {
        for batch in &mut self.batches {
            batch.bytes = None;
        }
        self.disk.give_tail_bytes(std::mem::take(&mut self.bytes));
        self.batches.shrink_to_fit();
        self.chunk = BytesMut::new();
    }

    /// Whole batches from the one that contains `from`, of one segment, below `upper`, up to `bytes_max`; the first
    /// one in any case if `min_one`.
    pub(crate) fn read(&self, from: i64, upper: i64, bytes_max: usize, min_one: bool) -> TailRead {
        let start = self.batches.partition_point(|batch| batch.last_offset < from);
        let first = match self.batches.get(start) {
            Some(first) if start > 0 || first.base_offset <= from => first,
            _ => return TailRead::Before,
        };
        let mut length = 0;
        let mut count = 0;
        let mut in_memory = true;
        for batch in self.batches.range(start..) {
            let fits = length + batch.size <= bytes_max || (count == 0 && min_one);
            if batch.segment != first.segment || batch.last_offset >= upper || !fits {
                break;
            }
            length += batch.size;
            count += 1;
            in_memory &= batch.bytes.is_some();
        }
        if count == 0 {
            return TailRead::Nothing;
        }
        if in_memory && count <= PARTS_MAX {
            let parts = self.batches.range(start..start + count);
            return TailRead::Memory(parts.filter_map(|batch| batch.bytes.clone()).collect());
        }
        TailRead::Place { segment: first.segment, position: first.position, length }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.disk.give_tail_bytes(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{SimClock, SimStorage};

    fn tail(total: usize) -> Tail {
        let clock = Arc::new(SimClock::new(0));
        Tail::new(Disk::new(Arc::new(SimStorage::new(1)), clock, "/d".into(), total))
    }

    fn push(tail: &mut Tail, base: i64, position: u64, bytes: &[u8]) {
        let batch = TailBatch {
            base_offset: base,
            last_offset: base + 9,
            segment: 0,
            position,
            size: bytes.len(),
            bytes: None,
        };
        tail.push(batch, [bytes, &[]], (100, 50));
    }

    #[test]
    fn small_batches_come_from_memory_and_bounds_hold() {
        let mut tail = tail(60);
        push(&mut tail, 0, 0, &[1; 30]);
        push(&mut tail, 10, 30, &[2; 30]);
        assert!(matches!(tail.read(5, 20, 1000, true), TailRead::Memory(parts) if parts.len() == 2));
        assert!(matches!(tail.read(5, 10, 1000, true), TailRead::Memory(parts) if parts.len() == 1));
        assert!(matches!(tail.read(5, 9, 1000, true), TailRead::Nothing));
        assert!(matches!(tail.read(5, 20, 10, false), TailRead::Nothing));
        assert!(matches!(tail.read(5, 20, 10, true), TailRead::Memory(parts) if parts[0].len() == 30));
        // The bound of all logs is used up: the next is only remembered by its place.
        push(&mut tail, 20, 60, &[3; 30]);
        assert!(matches!(tail.read(20, 30, 1000, true), TailRead::Place { position: 60, length: 30, .. }));
        assert!(matches!(tail.read(15, 30, 1000, true), TailRead::Place { position: 30, length: 60, .. }));
        tail.release();
        assert!(matches!(tail.read(0, 30, 1000, true), TailRead::Place { position: 0, length: 90, .. }));
        push(&mut tail, 30, 90, &[4; 30]);
        assert!(
            matches!(tail.read(30, 40, 1000, true), TailRead::Memory(_)),
            "released bytes are free again"
        );
        tail.clear();
        assert!(matches!(tail.read(30, 40, 1000, true), TailRead::Before));
    }

    #[test]
    fn the_oldest_give_way() {
        let mut tail = tail(1000);
        for index in 0..10 {
            push(&mut tail, index * 10, index as u64 * 40, &[0; 40]);
        }
        assert!(matches!(tail.read(0, 100, 1000, true), TailRead::Before));
        assert!(matches!(tail.read(85, 100, 1000, true), TailRead::Memory(parts) if parts.len() == 2));
    }
}
