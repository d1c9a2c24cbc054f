//! What every fuzz target does with its bytes: nothing may panic, and what was understood can be written and read
//! again.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use towpath_api::batch::flat;
use towpath_api::{Batch, EventSchema, conformance};
use towpath_wire::{Decoder, Message, Request, frame};

/// The longest frame that [`exercise_frames`] accepts.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The first byte chooses the version and whether the rest is a request, a response or a whole frame.
pub fn exercise<R: Request>(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let versions = R::VERSIONS;
    let count = versions.max - versions.min + 1;
    let version = versions.min + i16::from(choice / 3) % count;
    let bytes = Bytes::copy_from_slice(rest);
    match choice % 3 {
        0 => round_trip::<R>(bytes, version),
        1 => round_trip::<R::Response>(bytes, version),
        _ => {
            let _ = frame::decode_request::<R>(bytes.clone());
            let _ = frame::decode_response::<R>(bytes, version);
        }
    }
}

/// Decodes; encodes what came out; decodes that, and compares the bytes of both encodings (a NaN is not equal to
/// itself).
fn round_trip<M: Message>(bytes: Bytes, version: i16) {
    let Ok(message) = M::decode(&mut Decoder::new(bytes), version) else { return };
    let mut once = BytesMut::new();
    message.encode(&mut once, version).expect("what was read at a version can be written at it");
    let mut d = Decoder::new(once.clone().freeze());
    let again = M::decode(&mut d, version).expect("what was written can be read");
    d.finish().expect("and nothing is left of it");
    let mut twice = BytesMut::new();
    again.encode(&mut twice, version).expect("and written again");
    assert_eq!(once, twice);
}

/// Splits bytes into frames and reads their headers.
pub fn exercise_frames(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(bytes)) = frame::take_frame(&mut buffer, FRAME_BYTES_MAX) {
        let peek = frame::peek_request(&bytes);
        let mut d = Decoder::new(bytes.clone());
        if let Ok(header) = frame::RequestHeader::decode(&mut d) {
            let peek = peek.expect("a header that can be read can be peeked at");
            assert_eq!(
                (peek.api_key, peek.api_version),
                (header.request_api_key, header.request_api_version)
            );
            assert_eq!(peek.correlation_id, header.correlation_id);
        }
        for version in [0, 1] {
            let _ = frame::ResponseHeader::decode(&mut Decoder::new(bytes.clone()), version);
        }
    }
}

/// What a plugin returns for the records of the contract suite. The first byte chooses whether the rest is the whole
/// buffer, or what is changed in a good one: places of two bytes, and the byte that goes there.
pub fn exercise_plugin_batch(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let batch = conformance::records();
    let bytes = if choice % 2 == 0 {
        rest.to_vec()
    } else {
        let mut bytes = flat_of(&batch, &mut schemas(&batch));
        for change in rest.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
            bytes[at] = change[2];
        }
        bytes
    };
    let mut known = schemas(&batch);
    let Some(read) = decoded(bytes, &batch, 0..batch.len(), &known) else { return };
    let again = flat_of(&read, &mut known);
    let again = decoded(again, &read, 0..read.len(), &known).expect("what was read can be written and read");
    assert_eq!(again.len(), read.len());
    for (a, b) in again.records().zip(read.records()) {
        assert_eq!(a.schema().id(), b.schema().id());
        assert_eq!((a.offset(), a.lane(), a.position()), (b.offset(), b.lane(), b.position()));
        assert_eq!((a.op(), a.topic(), a.partition()), (b.op(), b.topic(), b.partition()));
        assert!(a.headers().eq(b.headers()));
        for (a, b) in
            [(a.key(), b.key()), (a.before(), b.before()), (a.after(), b.after()), (a.source(), b.source())]
        {
            // As bytes: a NaN is not equal to itself.
            let bytes = |row: Option<towpath_api::Row<'_>>| {
                row.map(|row| (0..row.len()).map(|index| row.bytes(index).to_vec()).collect::<Vec<_>>())
            };
            assert_eq!(bytes(a), bytes(b));
        }
    }
}

/// The schemas that a plugin would know, by number.
fn schemas(batch: &Batch) -> Vec<Arc<EventSchema>> {
    let mut known = Vec::new();
    batch.records().for_each(|record| _ = number(&mut known, record.schema()));
    known
}

fn number(known: &mut Vec<Arc<EventSchema>>, schema: &Arc<EventSchema>) -> u32 {
    let at = known.iter().position(|it| it.id() == schema.id()).unwrap_or_else(|| {
        known.push(Arc::clone(schema));
        known.len() - 1
    });
    at as u32
}

fn flat_of(batch: &Batch, known: &mut Vec<Arc<EventSchema>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    flat::encode(batch, 0..batch.len(), |schema| number(known, schema), &mut bytes).expect("it is small");
    bytes
}

fn decoded(bytes: Vec<u8>, from: &Batch, range: Range<usize>, known: &[Arc<EventSchema>]) -> Option<Batch> {
    let schema = |number: u32| known.get(number as usize).cloned();
    flat::decode(bytes, from, range, schema).ok().map(|(batch, _)| batch)
}
