//! Reading, bounded by what is there.

use bytes::Bytes;

use super::{DecodeError, Value};

/// Bytes of memory that a message may take beyond those in proportion to its size.
const MEMORY_BYTES_BASE: usize = 64 * 1024;
/// Elements for which an array allocates before it has read any.
const ELEMENTS_UP_FRONT_MAX: usize = 1024;

/// A cursor over the bytes of one frame. Byte strings are slices of the frame.
#[derive(Debug, Clone)]
pub struct Decoder {
    bytes: Bytes,
    position: usize,
    /// Where reading must stop: the end of the bytes, or of the tagged field being read.
    end: usize,
    /// Bytes of memory that arrays may still take.
    memory: usize,
}

/// The bounds that hold again after a tagged field.
#[derive(Debug)]
#[must_use]
pub struct TaggedScope {
    outer_end: usize,
}

impl Decoder {
    /// Bytes of memory that each byte of a message may take: an empty string is one byte on the wire and 24 in
    /// memory, and no sensible message consists of those.
    pub const MEMORY_BYTES_PER_BYTE: usize = 16;

    /// A cursor at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let end = bytes.len();
        let memory = end.saturating_mul(Self::MEMORY_BYTES_PER_BYTE).saturating_add(MEMORY_BYTES_BASE);
        Self { bytes, position: 0, end, memory }
    }

    /// Allows arrays no more than `bytes` of memory in all, however large the frame is (R10).
    #[must_use]
    pub fn with_memory_max(mut self, bytes: usize) -> Self {
        self.memory = self.memory.min(bytes);
        self
    }

    /// Bytes not yet read.
    #[inline]
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Bytes read so far.
    #[inline]
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// What is not yet read, as a slice of the frame.
    #[must_use]
    pub fn rest(&self) -> Bytes {
        self.bytes.slice(self.position..self.end)
    }

    /// Checks that everything was read.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::TrailingBytes { position: self.position, remaining }),
        }
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::Truncated { position: self.position, needed, remaining: self.remaining() }
    }

    /// The next `N` bytes.
    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.bytes[self.position..self.end].first_chunk::<N>() {
            Some(chunk) => {
                let chunk = *chunk;
                self.position += N;
                Ok(chunk)
            }
            None => Err(self.truncated(N)),
        }
    }

    /// Reads a bool; any byte but zero is true.
    #[inline]
    pub fn get_bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.take::<1>()?[0] != 0)
    }

    /// Reads an `i8`.
    #[inline]
    pub fn get_i8(&mut self) -> Result<i8, DecodeError> {
        self.take().map(i8::from_be_bytes)
    }

    /// Reads an `i16`.
    #[inline]
    pub fn get_i16(&mut self) -> Result<i16, DecodeError> {
        self.take().map(i16::from_be_bytes)
    }

    /// Reads a `u16`.
    #[inline]
    pub fn get_u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    /// Reads an `i32`.
    #[inline]
    pub fn get_i32(&mut self) -> Result<i32, DecodeError> {
        self.take().map(i32::from_be_bytes)
    }

    /// Reads a `u32`.
    #[inline]
    pub fn get_u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    /// Reads an `i64`.
    #[inline]
    pub fn get_i64(&mut self) -> Result<i64, DecodeError> {
        self.take().map(i64::from_be_bytes)
    }

    /// Reads an `f64`.
    #[inline]
    pub fn get_f64(&mut self) -> Result<f64, DecodeError> {
        self.take().map(f64::from_be_bytes)
    }

    /// Reads a UUID.
    #[inline]
    pub fn get_uuid(&mut self) -> Result<uuid::Uuid, DecodeError> {
        self.take().map(uuid::Uuid::from_bytes)
    }

    /// Reads an unsigned variable-length integer of at most 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::VarintOverflow`] after five bytes, or when the fifth has more than its four bits.
    #[inline]
    pub fn get_uvarint(&mut self) -> Result<u32, DecodeError> {
        let start = self.position;
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintOverflow { position: start })
    }

    /// The next `length` bytes as a slice of the frame.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn get_bytes(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.remaining() {
            return Err(self.truncated(length));
        }
        let slice = self.bytes.slice(self.position..self.position + length);
        self.position += length;
        Ok(slice)
    }

    /// A length of a string (`i16`, or compact); `None` for null.
    #[inline]
    fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let length = if flexible { self.compact_length()? } else { i64::from(self.get_i16()?) };
        if length > i64::from(i16::MAX) {
            // Kafka refuses longer strings in every version.
            return Err(DecodeError::LengthOutOfRange {
                position: self.position,
                length,
                remaining: self.remaining(),
            });
        }
        self.checked_length(length)
    }

    /// A length of bytes or records (`i32`, or compact); `None` for null.
    #[inline]
    fn bytes_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let length = if flexible { self.compact_length()? } else { i64::from(self.get_i32()?) };
        self.checked_length(length)
    }

    /// A compact length: one more than the length, or zero for null (−1).
    #[inline]
    fn compact_length(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from(self.get_uvarint()?) - 1)
    }

    /// R10: a length is within what is left before anything is done with it.
    #[inline]
    fn checked_length(&self, length: i64) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(length) {
            Ok(length) if length <= self.remaining() => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            _ => Err(DecodeError::LengthOutOfRange {
                position: self.position,
                length,
                remaining: self.remaining(),
            }),
        }
    }

    /// Reads a string or null.
    ///
    /// # Errors
    /// [`DecodeError`] for a length out of range, or bytes that are not UTF-8.
    pub fn get_nullable_string(&mut self, flexible: bool) -> Result<Option<String>, DecodeError> {
        let Some(length) = self.string_length(flexible)? else { return Ok(None) };
        let content = &self.bytes[self.position..self.position + length];
        match std::str::from_utf8(content) {
            Ok(text) => {
                let text = text.to_owned();
                self.position += length;
                Ok(Some(text))
            }
            Err(_) => Err(DecodeError::InvalidUtf8 { position: self.position }),
        }
    }

    /// Reads a byte string or null, as a slice of the frame.
    ///
    /// # Errors
    /// [`DecodeError`] for a length out of range.
    #[inline]
    pub fn get_nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.bytes_length(flexible)? {
            Some(length) => self.get_bytes(length).map(Some),
            None => Ok(None),
        }
    }

    /// Reads an array or null. R10: the number of elements is checked against the bytes that they need at least,
    /// and their memory against what the frame may take, before anything is allocated.
    ///
    /// # Errors
    /// [`DecodeError`] for a count out of range, or from an element.
    pub fn get_nullable_array<T: Value>(
        &mut self,
        version: i16,
        flexible: bool,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let count = if flexible { self.compact_length()? } else { i64::from(self.get_i32()?) };
        if count == -1 {
            return Ok(None);
        }
        let (position, remaining) = (self.position, self.remaining());
        let Ok(count) = usize::try_from(count) else {
            return Err(DecodeError::LengthOutOfRange { position, length: count, remaining });
        };
        if count > remaining / T::min_size(version, flexible).max(1) {
            return Err(DecodeError::TooManyElements { position, count, remaining });
        }
        let needed = count.saturating_mul(size_of::<T>());
        match self.memory.checked_sub(needed) {
            Some(left) => self.memory = left,
            None => return Err(DecodeError::MemoryExceeded { position, needed, allowed: self.memory }),
        }
        let mut elements = Vec::with_capacity(count.min(ELEMENTS_UP_FRONT_MAX));
        for _ in 0..count {
            elements.push(T::decode_value(self, version, flexible)?);
        }
        Ok(Some(elements))
    }

    /// Reads the tag and size of a tagged field and keeps reads within it until [`Self::end_tagged_field`].
    ///
    /// # Errors
    /// [`DecodeError`] for a size out of range.
    pub fn begin_tagged_field(&mut self) -> Result<(u32, TaggedScope), DecodeError> {
        let tag = self.get_uvarint()?;
        let size = i64::from(self.get_uvarint()?);
        let size = self.checked_length(size)?.unwrap_or(0);
        let scope = TaggedScope { outer_end: self.end };
        self.end = self.position + size;
        Ok((tag, scope))
    }

    /// Passes over the rest of the tagged field.
    #[inline]
    pub fn skip_tagged_field(&mut self) {
        self.position = self.end;
    }

    /// Leaves the tagged field.
    ///
    /// # Errors
    /// [`DecodeError::TaggedFieldSize`] when its value is shorter than its size.
    pub fn end_tagged_field(&mut self, scope: TaggedScope) -> Result<(), DecodeError> {
        let unread = self.remaining();
        if unread > 0 {
            return Err(DecodeError::TaggedFieldSize { end: self.end, unread });
        }
        self.end = scope.outer_end;
        Ok(())
    }

    /// Passes over a whole tagged section whose fields are all unknown.
    ///
    /// # Errors
    /// [`DecodeError`] for a size out of range.
    #[inline]
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.get_uvarint()? {
            let (_, scope) = self.begin_tagged_field()?;
            self.skip_tagged_field();
            self.end_tagged_field(scope)?;
        }
        Ok(())
    }
}
