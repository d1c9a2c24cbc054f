//! The form in which a batch crosses into a WASM guest and back: the arena as it is, and fixed-size entries behind it.
//! `plugins/wit/README.md` is its description; this is its only reader and writer on our side.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use towpath_types::TopicName;
use towpath_types::limits::{PLUGIN_BATCH_BYTES_MAX, PLUGIN_POSITION_BYTES_MAX, RECORD_HEADERS_MAX};

use super::{Batch, Entry, Headers, NO_TOPIC, Op, Slot};
use crate::row::Row;
use crate::schema::{EventSchema, RowSchema};

/// The first four bytes: the letters of the form and its version.
pub const MAGIC: u32 = u32::from_le_bytes(*b"TPB1");
/// Bytes before the arena.
pub const HEADER_BYTES: usize = 16;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 96;

/// A batch whose bytes do not fit where they are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of {bytes} bytes is too large for a plugin; {PLUGIN_BATCH_BYTES_MAX} are the most")]
pub struct TooLarge {
    /// What it would take.
    pub bytes: usize,
}

/// A buffer that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The whole of it.
    #[error("the batch {0}")]
    Batch(&'static str),
    /// One record.
    #[error("record {index} of the batch {what}")]
    Record {
        /// Its index in the buffer.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// Writes the records of `range` to `out`, which is emptied before. `number` gives each schema the number by which the
/// guest knows it. A record's origin is its own index, counted from the beginning of the range.
///
/// # Errors
/// [`TooLarge`].
pub fn encode(
    batch: &Batch,
    range: Range<usize>,
    mut number: impl FnMut(&Arc<EventSchema>) -> u32,
    out: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    let entries = batch.entries.get(range).unwrap_or_default();
    let names: usize = batch.topics.iter().map(|topic| topic.as_str().len()).sum();
    let bytes = HEADER_BYTES + batch.arena.len() + names + entries.len() * ENTRY_BYTES;
    if bytes > PLUGIN_BATCH_BYTES_MAX {
        return Err(TooLarge { bytes });
    }
    let numbers: Vec<u32> = batch.schemas.iter().map(&mut number).collect();
    out.clear();
    out.reserve(bytes);
    out.resize(HEADER_BYTES, 0);
    out.extend_from_slice(&batch.arena);
    let topics: Vec<Slot> = batch.topics.iter().map(|topic| append(out, topic.as_str().as_bytes())).collect();
    let head = [MAGIC, entries.len() as u32, out.len() as u32, 0].map(u32::to_le_bytes);
    for (at, word) in out.chunks_exact_mut(4).zip(head) {
        at.copy_from_slice(&word);
    }
    for (index, entry) in entries.iter().enumerate() {
        let schema = numbers.get(entry.schema as usize).copied().unwrap_or(u32::MAX);
        let topic = topics.get(entry.topic as usize).copied().unwrap_or(Slot::NONE);
        out.extend_from_slice(&entry_bytes(entry, index as u32, schema, topic));
    }
    Ok(())
}

/// The bytes at the end of `out`; what they take has been looked at before.
fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Slot {
    let start = out.len();
    out.extend_from_slice(bytes);
    Slot::of(&(start..out.len()))
}

#[inline]
fn entry_bytes(entry: &Entry, origin: u32, schema: u32, topic: Slot) -> Raw {
    let moved = |slot: Slot| match slot {
        Slot::NONE => Slot::NONE,
        Slot { start, end } => Slot { start: start + HEADER_BYTES as u32, end: end + HEADER_BYTES as u32 },
    };
    let mut bytes = [0; ENTRY_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &schema.to_le_bytes());
    put(4, &entry.partition.to_le_bytes());
    put(8, &[op_code(entry.op), u8::from(entry.flat)]);
    put(12, &origin.to_le_bytes());
    put(16, &entry.timestamp_ms.to_le_bytes());
    put(24, &entry.offset.to_le_bytes());
    put(32, &entry.lane.to_le_bytes());
    let slots = [entry.key, entry.before, entry.after, entry.source, entry.headers, entry.position];
    let slots = slots.map(moved).into_iter().chain([topic]);
    for (at, slot) in slots.enumerate().map(|(index, slot)| (40 + index * 8, slot)) {
        let length = if slot == Slot::NONE { 0 } else { slot.end - slot.start };
        put(at, &slot.start.to_le_bytes());
        put(at + 4, &length.to_le_bytes());
    }
    bytes
}

const fn op_code(op: Option<Op>) -> u8 {
    match op {
        None => 0,
        Some(Op::Create) => 1,
        Some(Op::Read) => 2,
        Some(Op::Update) => 3,
        Some(Op::Delete) => 4,
        Some(Op::Truncate) => 5,
        Some(Op::Tombstone) => 6,
    }
}

const fn op_of(code: u8) -> Option<Option<Op>> {
    Some(match code {
        0 => None,
        1 => Some(Op::Create),
        2 => Some(Op::Read),
        3 => Some(Op::Update),
        4 => Some(Op::Delete),
        5 => Some(Op::Truncate),
        6 => Some(Op::Tombstone),
        _ => return None,
    })
}

/// Reads what a transform made of the records of `range` of `from`. Everything is checked before it is looked at: no
/// record of the result can be read out of bounds, or breaks its schema. Offsets, lanes and positions are those of the
/// origins, whatever the guest wrote (R5).
///
/// # Errors
/// [`Malformed`] with what is wrong, and where.
pub fn decode(
    bytes: Vec<u8>,
    from: &Batch,
    range: Range<usize>,
    schema: impl Fn(u32) -> Option<Arc<EventSchema>>,
) -> Result<(Batch, Vec<usize>), Malformed> {
    let origins = from.entries.get(range).unwrap_or_default();
    let head = head(&bytes, origins.len())?;
    let reader = entries(bytes, &head, Some(Origins { from, entries: origins, next: 0 }), schema)?;
    Ok((reader.batch, reader.used))
}

/// Reads the records that a source brings. Everything is checked as in [`decode`]; the records have no offset yet, and
/// the lanes and positions that the guest wrote.
///
/// # Errors
/// [`Malformed`] with what is wrong, and where.
pub fn read(bytes: Vec<u8>, schema: impl Fn(u32) -> Option<Arc<EventSchema>>) -> Result<Batch, Malformed> {
    let head = head(&bytes, usize::MAX)?;
    Ok(entries(bytes, &head, None, schema)?.batch)
}

/// How many entries there are, and where.
struct Head {
    count: usize,
    at: usize,
}

/// The head of a buffer that may have so many records.
fn head(bytes: &[u8], most: usize) -> Result<Head, Malformed> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
    let [Some(magic), Some(count), Some(at), Some(zero)] = [0, 4, 8, 12].map(word) else {
        return Err(Malformed::Batch("is shorter than its header"));
    };
    let (count, at) = (count as usize, at as usize);
    if magic != MAGIC {
        return Err(Malformed::Batch("does not begin with TPB1"));
    }
    if zero != 0 {
        return Err(Malformed::Batch("has something in the reserved part of its header"));
    }
    if bytes.len() > PLUGIN_BATCH_BYTES_MAX {
        return Err(Malformed::Batch("is larger than a batch may be"));
    }
    if count > most {
        return Err(Malformed::Batch("has more records than came in"));
    }
    if at < HEADER_BYTES
        || count.checked_mul(ENTRY_BYTES).and_then(|it| it.checked_add(at)) != Some(bytes.len())
    {
        return Err(Malformed::Batch("has its entries at a wrong place"));
    }
    Ok(Head { count, at })
}

fn entries<'a>(
    mut bytes: Vec<u8>,
    &Head { count, at }: &Head,
    origins: Option<Origins<'a>>,
    schema: impl Fn(u32) -> Option<Arc<EventSchema>>,
) -> Result<Reader<'a>, Malformed> {
    let entries = bytes.split_off(at);
    let batch = Batch { arena: bytes, entries: Vec::with_capacity(count), ..Batch::default() };
    let mut reader = Reader {
        batch,
        origins,
        arena_end: at,
        left: at - HEADER_BYTES,
        known: Vec::new(),
        topics: HashMap::new(),
        used: Vec::with_capacity(count),
    };
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    // Records of one schema come in runs: it is looked up, and counted as held, once for each.
    let mut current: Option<(u32, usize, Arc<EventSchema>)> = None;
    for (index, entry) in entries.iter().enumerate() {
        let wrong = |what| Malformed::Record { index, what };
        let number = u32_at(entry, 0);
        if current.as_ref().is_none_or(|(known, ..)| *known != number) {
            let at = reader.schema_index(number, &schema).map_err(wrong)?;
            current = Some((number, at, Arc::clone(&reader.batch.schemas[at])));
        }
        let Some((_, at, schema)) = &current else { continue };
        reader.entry(entry, *at, schema).map_err(wrong)?;
    }
    Ok(reader)
}

/// The records that came in.
struct Origins<'a> {
    from: &'a Batch,
    entries: &'a [Entry],
    /// The least origin that the next record may have.
    next: usize,
}

struct Reader<'a> {
    batch: Batch,
    /// None where the records are new.
    origins: Option<Origins<'a>>,
    /// Where the guest's own arena ends: behind it stand the positions that it left out.
    arena_end: usize,
    /// Bytes of the arena that no slot has taken yet: slots that share bytes would make much out of little.
    left: usize,
    /// Numbers of schemas, in the order of `batch.schemas`.
    known: Vec<u32>,
    /// Topics, by their index in `batch.topics`.
    topics: HashMap<TopicName, u32>,
    /// The origins of the records so far.
    used: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn entry(&mut self, bytes: &Raw, index: usize, schema: &EventSchema) -> Result<(), String> {
        let origin = self.origin(u32_at(bytes, 12) as usize)?;
        let op = op_of(bytes[8]).ok_or_else(|| format!("has the operation {}", bytes[8]))?;
        if bytes[9] > 1 || bytes[10..12] != [0, 0] {
            return Err("has unknown flags".to_owned());
        }
        let partition = u32_at(bytes, 4).cast_signed();
        if partition < -1 {
            return Err(format!("has the partition {partition}"));
        }
        let key = self.row::<40>(bytes, "key", schema.key().map(Arc::as_ref))?;
        let before = self.row::<48>(bytes, "before", Some(schema.value()))?;
        let after = self.row::<56>(bytes, "after", Some(schema.value()))?;
        let source = self.row::<64>(bytes, "source", schema.source().map(|block| &block.fields))?;
        let headers = self.headers(bytes)?;
        let (offset, lane, position) = match origin {
            Some(origin) => (origin.offset, origin.lane, self.position(bytes, origin)?),
            None => (-1, u64_at(bytes, 32), self.new_position(bytes)?),
        };
        let topic = self.topic(bytes)?;
        let timestamp_ms = u64_at(bytes, 16).cast_signed();
        let (schema, partition, flat) = (index as u32, partition, bytes[9] == 1);
        self.batch.entries.push(Entry {
            schema,
            topic,
            partition,
            op,
            flat,
            timestamp_ms,
            offset,
            lane,
            key,
            before,
            after,
            source,
            headers,
            position,
        });
        Ok(())
    }

    fn origin(&mut self, index: usize) -> Result<Option<&'a Entry>, String> {
        let Some(origins) = &mut self.origins else { return Ok(None) };
        let Some(origin) = origins.entries.get(index).filter(|_| index >= origins.next) else {
            return Err(format!("has the origin {index}: they must rise, and be of records that came in"));
        };
        origins.next = index + 1;
        self.used.push(index);
        Ok(Some(origin))
    }

    fn schema_index(
        &mut self,
        number: u32,
        schema: &impl Fn(u32) -> Option<Arc<EventSchema>>,
    ) -> Result<usize, String> {
        if let Some(index) = self.known.iter().rposition(|known| *known == number) {
            return Ok(index);
        }
        let schema =
            schema(number).ok_or_else(|| format!("has the schema {number}, which nobody has defined"))?;
        self.batch.schemas.push(schema);
        self.known.push(number);
        Ok(self.known.len() - 1)
    }

    #[inline]
    fn slot<const AT: usize>(&mut self, bytes: &Raw, what: &str) -> Result<Slot, String> {
        let (start, length) = (u32_at(bytes, AT), u32_at(bytes, AT + 4));
        if start == u32::MAX {
            return Ok(Slot::NONE);
        }
        let end = start.checked_add(length).filter(|end| *end as usize <= self.arena_end);
        let end = end.filter(|_| start as usize >= HEADER_BYTES);
        let end = end.ok_or_else(|| format!("has its {what} outside the arena"))?;
        self.left = self.left.checked_sub(length as usize).ok_or("shares bytes with others")?;
        Ok(Slot { start, end })
    }

    #[inline]
    fn row<const AT: usize>(
        &mut self,
        bytes: &Raw,
        what: &str,
        schema: Option<&RowSchema>,
    ) -> Result<Slot, String> {
        let slot = self.slot::<AT>(bytes, what)?;
        match (slot.bytes(&self.batch.arena), schema) {
            (None, _) => {}
            (Some(_), None) => return Err(format!("has a {what}, of which its schema knows nothing")),
            (Some(row), Some(schema)) => {
                Row::checked(schema, row).map_err(|error| format!("has a bad {what}: {error}"))?;
            }
        }
        Ok(slot)
    }

    fn headers(&mut self, bytes: &Raw) -> Result<Slot, String> {
        let slot = self.slot::<72>(bytes, "headers")?;
        let mut headers = Headers { rest: slot.bytes(&self.batch.arena).unwrap_or_default() };
        let mut count = 0;
        while !headers.rest.is_empty() {
            headers.next().ok_or("has headers that cannot be read")?;
            count += 1;
            if count > RECORD_HEADERS_MAX {
                return Err(format!("has more than {RECORD_HEADERS_MAX} headers"));
            }
        }
        Ok(slot)
    }

    /// The origin's position: as the guest carried it along, or once more.
    fn position(&mut self, bytes: &Raw, origin: &Entry) -> Result<Slot, String> {
        let slot = self.slot::<80>(bytes, "position")?;
        let from = self.origins.as_ref().map(|origins| &origins.from.arena);
        let expected = from.and_then(|arena| origin.position.bytes(arena));
        let Some(expected) = expected else { return Ok(Slot::NONE) };
        if slot.bytes(&self.batch.arena) == Some(expected) {
            return Ok(slot);
        }
        Ok(append(&mut self.batch.arena, expected))
    }

    fn new_position(&mut self, bytes: &Raw) -> Result<Slot, String> {
        let slot = self.slot::<80>(bytes, "position")?;
        match slot.bytes(&self.batch.arena).map_or(0, <[u8]>::len) {
            length if length > PLUGIN_POSITION_BYTES_MAX => {
                Err(format!("has a position of {length} bytes; {PLUGIN_POSITION_BYTES_MAX} are the most"))
            }
            _ => Ok(slot),
        }
    }

    fn topic(&mut self, bytes: &Raw) -> Result<u32, String> {
        let slot = self.slot::<88>(bytes, "topic")?;
        let Some(name) = slot.bytes(&self.batch.arena) else { return Ok(NO_TOPIC) };
        let topics = &mut self.batch.topics;
        if topics.last().is_some_and(|topic| topic.as_str().as_bytes() == name) {
            return Ok((topics.len() - 1) as u32);
        }
        let name = std::str::from_utf8(name).map_err(|_| "has a topic that is not UTF-8")?;
        let name = TopicName::new(name).map_err(|error| format!("has a topic that cannot be: {error}"))?;
        let next = topics.len() as u32;
        let index = *self.topics.entry(name.clone()).or_insert(next);
        if index == next {
            topics.push(name);
        }
        Ok(index)
    }
}

/// One entry as it crosses.
type Raw = [u8; ENTRY_BYTES];

/// `at` lies within an entry.
#[inline]
fn u32_at(entry: &Raw, at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&entry[at..at + 4]);
    u32::from_le_bytes(raw)
}

#[inline]
fn u64_at(entry: &Raw, at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&entry[at..at + 8]);
    u64::from_le_bytes(raw)
}

#[cfg(test)]
mod tests;
