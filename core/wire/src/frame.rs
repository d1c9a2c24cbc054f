//! Frames: a length of four bytes, a header and a body.

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{DecodeError, Decoder, EncodeError, Encoder, Segments};
use crate::{ApiKey, Message, Request, request_header_version, response_header_version};

/// Bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;

/// Bytes for which a response's first segment makes room.
const CAPACITY: usize = 256;

/// What stands in front of every request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeader {
    /// The API's key; see [`RequestHeader::api_key`].
    pub request_api_key: i16,
    /// The version of the request and of its response.
    pub request_api_version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<String>,
}

/// What stands in front of every response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHeader {
    /// The correlation id of the request.
    pub correlation_id: i32,
}

/// The fixed part of a request header, which is the same in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestPeek {
    /// The API's key, known or not.
    pub api_key: i16,
    /// The version, known or not.
    pub api_version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
}

/// A frame whose announced length is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame announces {length} bytes; the limit is {limit}")]
pub struct FrameLengthError {
    /// Bytes announced.
    pub length: i32,
    /// Bytes allowed.
    pub limit: usize,
}

/// Reads key, version and correlation id of a request (without its length) and nothing else.
///
/// # Errors
/// [`DecodeError::Truncated`].
pub fn peek_request(frame: &[u8]) -> Result<RequestPeek, DecodeError> {
    match frame.first_chunk::<8>() {
        Some(&[k0, k1, v0, v1, c0, c1, c2, c3]) => Ok(RequestPeek {
            api_key: i16::from_be_bytes([k0, k1]),
            api_version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
        }),
        None => Err(DecodeError::Truncated { position: 0, needed: 8, remaining: frame.len() }),
    }
}

/// The length that `buffer` announces; `None` while its four bytes are not there yet. R10: call it before making room
/// for the frame.
///
/// # Errors
/// [`FrameLengthError`] for a negative length, or one above `limit`.
pub fn announced_length(buffer: &[u8], limit: usize) -> Result<Option<usize>, FrameLengthError> {
    let Some(&prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(bytes) if bytes <= limit => Ok(Some(bytes)),
        _ => Err(FrameLengthError { length, limit }),
    }
}

/// Takes the first whole frame (without its length) out of `buffer`; `None` while some of it is missing.
///
/// # Errors
/// [`FrameLengthError`] for a negative length, or one above `limit`.
pub fn take_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameLengthError> {
    let Some(length) = announced_length(buffer, limit)? else { return Ok(None) };
    if buffer.len() - LENGTH_BYTES < length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

impl RequestHeader {
    /// The API.
    ///
    /// # Errors
    /// [`DecodeError::UnknownApiKey`].
    pub fn api_key(&self) -> Result<ApiKey, DecodeError> {
        known(self.request_api_key)
    }

    /// Reads the header; its own version follows from the key and version that it begins with. The version is not
    /// checked: a caller answers one that it does not know.
    ///
    /// # Errors
    /// [`DecodeError`], also for an unknown key.
    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        let request_api_key = d.get_i16()?;
        let request_api_version = d.get_i16()?;
        let correlation_id = d.get_i32()?;
        let key = known(request_api_key)?;
        // The client id keeps its old form in version 2, so that it can be read before the version is known.
        let client_id = d.get_nullable_string(false)?;
        if request_header_version(key, request_api_version) >= 2 {
            d.skip_tagged_fields()?;
        }
        Ok(Self { request_api_key, request_api_version, correlation_id, client_id })
    }

    /// Writes the header in the version that belongs to the request's.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] for a client id of more than 32,767 bytes.
    pub fn encode(&self, e: &mut Encoder) -> Result<(), EncodeError> {
        let flexible = ApiKey::try_from(self.request_api_key)
            .is_ok_and(|key| request_header_version(key, self.request_api_version) >= 2);
        put_request_header(
            e,
            (self.request_api_key, self.request_api_version, self.correlation_id),
            self.client_id.as_deref(),
            flexible,
        )
    }
}

fn put_request_header(
    e: &mut Encoder,
    (key, version, correlation_id): (i16, i16, i32),
    client_id: Option<&str>,
    flexible: bool,
) -> Result<(), EncodeError> {
    e.put_i16(key);
    e.put_i16(version);
    e.put_i32(correlation_id);
    e.put_nullable_string(client_id, false)?;
    if flexible {
        e.put_uvarint(0);
    }
    Ok(())
}

fn known(key: i16) -> Result<ApiKey, DecodeError> {
    ApiKey::try_from(key).map_err(|_| DecodeError::UnknownApiKey { key })
}

impl ResponseHeader {
    /// Reads a header of `header_version` (see [`response_header_version`]).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(d: &mut Decoder, header_version: i16) -> Result<Self, DecodeError> {
        let correlation_id = d.get_i32()?;
        if header_version >= 1 {
            d.skip_tagged_fields()?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes a header of `header_version` (see [`response_header_version`]).
    pub fn encode(self, e: &mut Encoder, header_version: i16) {
        e.put_i32(self.correlation_id);
        if header_version >= 1 {
            e.put_uvarint(0);
        }
    }
}

/// A whole request frame, its length included; records are shared, not copied.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Segments, EncodeError> {
    let mut e = Encoder::sharing(CAPACITY);
    e.put_i32(0);
    let header = (R::KEY.code(), version, correlation_id);
    put_request_header(&mut e, header, client_id, request_header_version(R::KEY, version) >= 2)?;
    request.encode_to(&mut e, version)?;
    e.set_length_prefix()?;
    Ok(e.finish())
}

/// A whole response frame, its length included; records are shared, not copied. `version` is the body's: an unknown
/// version of ApiVersions is answered at version 0.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_response<M: Message>(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &M,
) -> Result<Segments, EncodeError> {
    let mut e = Encoder::sharing(CAPACITY);
    e.put_i32(0);
    ResponseHeader { correlation_id }.encode(&mut e, response_header_version(key, version));
    response.encode_to(&mut e, version)?;
    e.set_length_prefix()?;
    Ok(e.finish())
}

/// Reads a request frame (without its length) whose API is known to be `R`'s.
///
/// # Errors
/// [`DecodeError`], also for the key of another API and for bytes after the body.
pub fn decode_request<R: Request>(frame: Bytes) -> Result<(RequestHeader, R), DecodeError> {
    let mut d = Decoder::new(frame);
    let header = RequestHeader::decode(&mut d)?;
    if header.request_api_key != R::KEY.code() {
        return Err(DecodeError::UnexpectedApiKey { key: header.request_api_key, expected: R::KEY });
    }
    let request = R::decode(&mut d, header.request_api_version)?;
    d.finish()?;
    Ok((header, request))
}

/// Reads the response frame (without its length) to a request of `version`.
///
/// # Errors
/// [`DecodeError`], also for bytes after the body.
pub fn decode_response<R: Request>(
    frame: Bytes,
    version: i16,
) -> Result<(ResponseHeader, R::Response), DecodeError> {
    let mut d = Decoder::new(frame);
    let header = ResponseHeader::decode(&mut d, response_header_version(R::KEY, version))?;
    let response = R::Response::decode(&mut d, version)?;
    d.finish()?;
    Ok((header, response))
}

#[cfg(test)]
mod tests;
