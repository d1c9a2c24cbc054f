//! What every fuzz target does with its bytes: nothing may panic, and what was understood can be written and read
//! again.

use bytes::{Bytes, BytesMut};
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
            assert_eq!((peek.api_key, peek.api_version), (header.request_api_key, header.request_api_version));
            assert_eq!(peek.correlation_id, header.correlation_id);
        }
        for version in [0, 1] {
            let _ = frame::ResponseHeader::decode(&mut Decoder::new(bytes.clone()), version);
        }
    }
}
