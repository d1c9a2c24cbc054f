//! Writing into one buffer, or into segments that share long byte strings instead of copying them.

use bytes::{BufMut, Bytes, BytesMut};

use super::EncodeError;

/// Bytes from which on sharing a byte string is cheaper than copying it into the buffer beside it.
pub const SHARED_BYTES_MIN: usize = 1024;

/// Collects an encoded message. Made by [`Encoder::copying`] it writes one buffer; made by [`Encoder::sharing`]
/// it takes byte strings of [`SHARED_BYTES_MIN`] bytes and more as segments of their own, uncopied.
#[derive(Debug)]
pub struct Encoder {
    /// What is being written.
    buffer: BytesMut,
    /// The first segment, kept writable so that a length can be set in front.
    head: Option<BytesMut>,
    /// The segments between `head` and `buffer`.
    tail: Vec<Bytes>,
    /// Byte strings from this length on are shared.
    share_from: usize,
}

/// An encoded message as the segments to write one after the other (`writev`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    segments: Vec<Bytes>,
    bytes: usize,
}

impl Encoder {
    /// Appends to `buffer` and copies everything.
    #[must_use]
    pub fn copying(buffer: BytesMut) -> Self {
        Self { buffer, head: None, tail: Vec::new(), share_from: usize::MAX }
    }

    /// Starts an empty message of segments, with room for `capacity` bytes beside the shared ones.
    #[must_use]
    pub fn sharing(capacity: usize) -> Self {
        Self {
            buffer: BytesMut::with_capacity(capacity),
            head: None,
            tail: Vec::new(),
            share_from: SHARED_BYTES_MIN,
        }
    }

    /// Bytes written so far, shared ones included.
    #[must_use]
    pub fn written(&self) -> usize {
        self.head.as_ref().map_or(0, BytesMut::len)
            + self.tail.iter().map(Bytes::len).sum::<usize>()
            + self.buffer.len()
    }

    /// The buffer of an encoder that copies.
    #[must_use]
    pub(crate) fn into_buffer(self) -> BytesMut {
        self.buffer
    }

    /// The finished segments; none of them is empty.
    #[must_use]
    pub fn finish(self) -> Segments {
        let bytes = self.written();
        let mut segments = Vec::with_capacity(self.tail.len() + 2);
        segments.extend(self.head.map(BytesMut::freeze));
        segments.extend(self.tail);
        segments.push(self.buffer.freeze());
        segments.retain(|segment| !segment.is_empty());
        Segments { segments, bytes }
    }

    /// Sets the first four bytes to the number of bytes that follow them, which makes a frame. They must have been
    /// written before anything else.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] past 2³¹−1 bytes.
    pub(crate) fn set_length_prefix(&mut self) -> Result<(), EncodeError> {
        let length = self.written().saturating_sub(4);
        let prefix = i32::try_from(length).map_err(|_| EncodeError::TooLong { what: "a frame", length })?;
        let first = self.head.as_mut().unwrap_or(&mut self.buffer);
        if let Some(start) = first.first_chunk_mut::<4>() {
            *start = prefix.to_be_bytes();
        }
        Ok(())
    }

    /// Makes room for `bytes` more.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes);
    }

    /// Writes a bool.
    #[inline]
    pub fn put_bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    /// Writes an `i8`.
    #[inline]
    pub fn put_i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Writes an `i16`.
    #[inline]
    pub fn put_i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// Writes a `u16`.
    #[inline]
    pub fn put_u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    /// Writes an `i32`.
    #[inline]
    pub fn put_i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// Writes a `u32`.
    #[inline]
    pub fn put_u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    /// Writes an `i64`.
    #[inline]
    pub fn put_i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Writes an `f64`.
    #[inline]
    pub fn put_f64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }

    /// Writes a UUID.
    #[inline]
    pub fn put_uuid(&mut self, value: &uuid::Uuid) {
        self.buffer.put_slice(value.as_bytes());
    }

    /// Writes an unsigned variable-length integer.
    #[inline]
    pub fn put_uvarint(&mut self, value: u32) {
        let (bytes, length) = uvarint(value);
        self.buffer.put_slice(&bytes[..length]);
    }

    /// Copies bytes as they are, without a length.
    #[inline]
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// Takes bytes as they are, without a length: shared from [`SHARED_BYTES_MIN`] on, else copied.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < self.share_from {
            self.buffer.put_slice(bytes);
            return;
        }
        let before = self.buffer.split();
        if self.head.is_none() {
            self.head = Some(before);
        } else if !before.is_empty() {
            self.tail.push(before.freeze());
        }
        self.tail.push(bytes.clone());
    }

    /// Writes a compact length: one more than the length, or zero for null.
    fn put_compact_length(&mut self, what: &'static str, length: Option<usize>) -> Result<(), EncodeError> {
        let Some(length) = length else {
            self.put_uvarint(0);
            return Ok(());
        };
        // Kafka's own limit is an i32, whatever the varint could say.
        match i32::try_from(length) {
            Ok(value) if value < i32::MAX => self.put_uvarint(value.unsigned_abs() + 1),
            _ => return Err(EncodeError::TooLong { what, length }),
        }
        Ok(())
    }

    /// Writes an `i32` length; −1 for null.
    fn put_i32_length(&mut self, what: &'static str, length: Option<usize>) -> Result<(), EncodeError> {
        match length.map(i32::try_from) {
            None => self.put_i32(-1),
            Some(Ok(length)) => self.put_i32(length),
            Some(Err(_)) => return Err(EncodeError::TooLong { what, length: length.unwrap_or(0) }),
        }
        Ok(())
    }

    /// Writes a string or null.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] past 32,767 bytes: Kafka reads no longer ones in any version.
    pub fn put_nullable_string(&mut self, text: Option<&str>, flexible: bool) -> Result<(), EncodeError> {
        let Some(text) = text else {
            if flexible {
                self.put_uvarint(0);
            } else {
                self.put_i16(-1);
            }
            return Ok(());
        };
        let Ok(length) = i16::try_from(text.len()) else {
            return Err(EncodeError::TooLong { what: "a string", length: text.len() });
        };
        if flexible {
            self.put_uvarint(u32::from(length.unsigned_abs()) + 1);
        } else {
            self.put_i16(length);
        }
        self.put_slice(text.as_bytes());
        Ok(())
    }

    /// Writes a byte string or null; a long one is shared.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] past 2³¹−2 bytes.
    pub fn put_nullable_bytes(&mut self, bytes: Option<&Bytes>, flexible: bool) -> Result<(), EncodeError> {
        let length = bytes.map(Bytes::len);
        if flexible {
            self.put_compact_length("a byte string", length)?;
        } else {
            self.put_i32_length("a byte string", length)?;
        }
        if let Some(bytes) = bytes {
            self.put_shared(bytes);
        }
        Ok(())
    }

    /// Writes the number of an array's elements; `None` for null.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] past 2³¹−2 elements.
    pub fn put_array_length(&mut self, count: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        if flexible {
            self.put_compact_length("an array", count)
        } else {
            self.put_i32_length("an array", count)
        }
    }

    /// Writes a tagged field: its tag, its size and what `write` writes. Its content is never shared.
    ///
    /// # Errors
    /// From `write`; [`EncodeError::TooLong`] when the size is more than a length can say.
    pub fn put_tagged_field(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.put_uvarint(tag);
        // One byte holds the size of nearly every tagged field; a longer size moves the content.
        let at = self.buffer.len();
        self.buffer.put_u8(0);
        let share_from = std::mem::replace(&mut self.share_from, usize::MAX);
        let result = write(self);
        self.share_from = share_from;
        result?;
        let length = self.buffer.len() - at - 1;
        let size =
            u32::try_from(length).map_err(|_| EncodeError::TooLong { what: "a tagged field", length })?;
        let (bytes, width) = uvarint(size);
        if width > 1 {
            let end = self.buffer.len();
            self.buffer.put_bytes(0, width - 1);
            self.buffer.copy_within(at + 1..end, at + width);
        }
        self.buffer[at..at + width].copy_from_slice(&bytes[..width]);
        Ok(())
    }
}

/// The bytes of an unsigned variable-length integer, and how many of them count.
#[inline]
fn uvarint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    (bytes, length + 1)
}

impl Segments {
    /// The segments in the order in which they are to be written; none is empty.
    #[must_use]
    pub fn as_slice(&self) -> &[Bytes] {
        &self.segments
    }

    /// The segments themselves.
    #[must_use]
    pub fn into_vec(self) -> Vec<Bytes> {
        self.segments
    }

    /// Bytes of all segments together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Everything in one piece: the only segment as it is, or a copy of several.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.segments.len() == 1 {
            return self.segments.swap_remove(0);
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        self.segments.iter().for_each(|segment| whole.put_slice(segment));
        whole.freeze()
    }
}
