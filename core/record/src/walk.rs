//! Walks over records without keeping their keys and values: what validation needs.

use std::io::Read;

use towpath_types::limits;

use crate::{BatchError, Compression, varint};

/// Bytes of the smallest record: length, attributes, two deltas, two lengths and a header count, one byte each.
pub(crate) const RECORD_BYTES_MIN: usize = 7;
/// Bytes that a streaming walk holds of the decompressed payload.
const WINDOW_BYTES: usize = 16 * 1024;

/// What validation wants to know of a record.
pub(crate) struct Shape {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i64,
    pub(crate) has_key: bool,
}

/// Where the walk reads. `Fail` is a complaint about the bytes, or about the codec.
pub(crate) enum Fail {
    Shape(&'static str),
    Source(BatchError),
}

const SHORT: Fail = Fail::Shape("it is cut short");

pub(crate) trait Source {
    fn varint(&mut self) -> Result<i64, Fail>;
    fn skip(&mut self, bytes: usize) -> Result<(), Fail>;
    /// Bytes consumed so far.
    fn position(&self) -> usize;
    /// Whether everything is consumed.
    fn at_end(&mut self) -> Result<bool, Fail>;
}

/// An uncompressed payload.
pub(crate) struct Slice<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Slice<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Out of the way of the short ones: a walk over small records is little else than varints.
    #[inline(never)]
    fn long_varint(&mut self) -> Result<i64, Fail> {
        varint::read(self.bytes, &mut self.at).ok_or(SHORT)
    }
}

impl Source for Slice<'_> {
    #[inline]
    fn varint(&mut self) -> Result<i64, Fail> {
        let Some(&[first, second]) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) else {
            return self.long_varint();
        };
        let (raw, bytes) = match (first < 0x80, second < 0x80) {
            (true, _) => (u64::from(first), 1),
            (false, true) => (u64::from(first & 0x7f) | (u64::from(second) << 7), 2),
            (false, false) => return self.long_varint(),
        };
        self.at += bytes;
        Ok(varint::zigzag_decode(raw))
    }

    #[inline]
    fn skip(&mut self, bytes: usize) -> Result<(), Fail> {
        if bytes > self.bytes.len() - self.at {
            return Err(SHORT);
        }
        self.at += bytes;
        Ok(())
    }

    #[inline]
    fn position(&self) -> usize {
        self.at
    }

    fn at_end(&mut self) -> Result<bool, Fail> {
        Ok(self.at == self.bytes.len())
    }
}

/// A compressed payload, decompressed a window at a time.
pub(crate) struct Stream<'a> {
    reader: Box<dyn Read + 'a>,
    compression: Compression,
    window: Vec<u8>,
    at: usize,
    filled: usize,
    /// Bytes that were consumed and are no longer in the window.
    before: usize,
    max: usize,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(reader: Box<dyn Read + 'a>, compression: Compression, max: usize) -> Self {
        Self { reader, compression, window: vec![0; WINDOW_BYTES], at: 0, filled: 0, before: 0, max }
    }

    /// Makes at least one byte available, or finds the end.
    fn fill(&mut self) -> Result<bool, Fail> {
        if self.at < self.filled {
            return Ok(true);
        }
        self.before += self.filled;
        self.at = 0;
        self.filled = 0;
        loop {
            match self.reader.read(&mut self.window) {
                Ok(read) => {
                    self.filled = read;
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Fail::Source(BatchError::Decompress {
                        compression: self.compression,
                        source,
                    }));
                }
            }
        }
        if self.before + self.filled > self.max {
            return Err(Fail::Source(BatchError::UncompressedTooLarge { max: self.max }));
        }
        Ok(self.filled > 0)
    }
}

impl Source for Stream<'_> {
    fn varint(&mut self) -> Result<i64, Fail> {
        if self.filled - self.at >= varint::VARLONG_BYTES_MAX {
            return varint::read(&self.window[..self.filled], &mut self.at).ok_or(SHORT);
        }
        let mut scratch = [0u8; varint::VARLONG_BYTES_MAX];
        for index in 0..scratch.len() {
            if !self.fill()? {
                return Err(SHORT);
            }
            scratch[index] = self.window[self.at];
            self.at += 1;
            if scratch[index] < 0x80 {
                return varint::read(&scratch[..=index], &mut 0).ok_or(SHORT);
            }
        }
        Err(Fail::Shape("a number is too long"))
    }

    fn skip(&mut self, mut bytes: usize) -> Result<(), Fail> {
        while bytes > 0 {
            if !self.fill()? {
                return Err(SHORT);
            }
            let step = bytes.min(self.filled - self.at);
            self.at += step;
            bytes -= step;
        }
        Ok(())
    }

    fn position(&self) -> usize {
        self.before + self.at
    }

    fn at_end(&mut self) -> Result<bool, Fail> {
        Ok(!self.fill()?)
    }
}

#[inline]
fn skip_nullable<S: Source>(source: &mut S) -> Result<bool, Fail> {
    match source.varint()? {
        -1 => Ok(false),
        length => {
            let length = i32::try_from(length)
                .ok()
                .and_then(|length| usize::try_from(length).ok())
                .ok_or(Fail::Shape("a length is out of range"))?;
            source.skip(length)?;
            Ok(true)
        }
    }
}

/// Walks over one record and checks that its fields fill its length exactly.
#[inline]
pub(crate) fn record<S: Source>(source: &mut S) -> Result<Shape, Fail> {
    let length = source.varint()?;
    let start = source.position();
    let end = usize::try_from(length)
        .ok()
        .filter(|length| *length <= i32::MAX as usize)
        .and_then(|length| start.checked_add(length))
        .ok_or(Fail::Shape("its length is out of range"))?;
    source.skip(1)?;
    let timestamp_delta = source.varint()?;
    let offset_delta = source.varint()?;
    let has_key = skip_nullable(source)?;
    skip_nullable(source)?;
    let headers = source.varint()?;
    if headers != 0 {
        skip_headers(source, headers)?;
    }
    if source.position() != end {
        return Err(Fail::Shape("its length does not match its fields"));
    }
    Ok(Shape { timestamp_delta, offset_delta, has_key })
}

fn skip_headers<S: Source>(source: &mut S, count: i64) -> Result<(), Fail> {
    if !(0..=limits::RECORD_HEADERS_MAX as i64).contains(&count) {
        return Err(Fail::Shape("it has too many headers"));
    }
    for _ in 0..count {
        if !skip_nullable(source)? {
            return Err(Fail::Shape("a header has no key"));
        }
        skip_nullable(source)?;
    }
    Ok(())
}
