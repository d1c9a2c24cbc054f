//! Snappy as Kafka's Java clients frame it (snappy-java, "xerial"), and raw.

use std::io::{self, Read, Write};

use crate::{BatchError, Compression};

/// The magic of snappy-java's stream, followed by a version and a compatible version (both 1).
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Bytes that the encoder puts into one block, as Kafka's.
const BLOCK_BYTES: usize = 32 * 1024;

pub(crate) fn is_xerial(payload: &[u8]) -> bool {
    payload.len() >= XERIAL_HEADER_BYTES && payload[..8] == XERIAL_MAGIC
}

fn broken(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Compresses with the xerial framing.
pub(crate) fn compress(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    XerialWriter::new(out)?.write_all(raw)
}

/// Writes the xerial framing; every write becomes blocks of its own.
pub(crate) struct XerialWriter<W> {
    out: W,
    encoder: snap::raw::Encoder,
    block: Vec<u8>,
}

impl<W: Write> XerialWriter<W> {
    /// Writes the stream's header.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&XERIAL_MAGIC)?;
        out.write_all(&1i32.to_be_bytes())?;
        out.write_all(&1i32.to_be_bytes())?;
        Ok(Self { out, encoder: snap::raw::Encoder::new(), block: Vec::new() })
    }
}

impl<W: Write> Write for XerialWriter<W> {
    fn write(&mut self, raw: &[u8]) -> io::Result<usize> {
        let part = &raw[..raw.len().min(BLOCK_BYTES)];
        self.block.resize(snap::raw::max_compress_len(part.len()), 0);
        let written = self.encoder.compress(part, &mut self.block).map_err(io::Error::from)?;
        self.out.write_all(&(written as i32).to_be_bytes())?;
        self.out.write_all(&self.block[..written])?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decompresses a raw (unframed) payload; its length is checked against `max` first.
pub(crate) fn decompress_raw(payload: &[u8], max: usize) -> Result<Vec<u8>, BatchError> {
    let wrap = |error: snap::Error| BatchError::Decompress {
        compression: Compression::Snappy,
        source: io::Error::from(error),
    };
    let length = snap::raw::decompress_len(payload).map_err(wrap)?;
    // R10: the declared length is a claim; the smallest possible encoding bounds it as well.
    if length > max {
        return Err(BatchError::UncompressedTooLarge { max });
    }
    // A copy element of three bytes yields at most 64 bytes.
    if length / 64 > payload.len() {
        return Err(BatchError::Decompress {
            compression: Compression::Snappy,
            source: broken("the declared length is more than the bytes can hold"),
        });
    }
    snap::raw::Decoder::new().decompress_vec(payload).map_err(wrap)
}

/// Decompresses the xerial framing block by block.
pub(crate) struct XerialReader<'a> {
    rest: &'a [u8],
    block: Vec<u8>,
    at: usize,
    max: usize,
}

impl<'a> XerialReader<'a> {
    /// A reader of a payload for which [`is_xerial`] holds; no block may have more than `max` bytes.
    pub(crate) fn new(payload: &'a [u8], max: usize) -> Self {
        Self { rest: &payload[XERIAL_HEADER_BYTES..], block: Vec::new(), at: 0, max }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let (length, rest) =
            self.rest.split_first_chunk::<4>().ok_or_else(|| broken("a block's length is cut short"))?;
        // snappy-java concatenates streams: a header may stand where a block is expected.
        if self.rest.len() >= XERIAL_HEADER_BYTES && self.rest[..8] == XERIAL_MAGIC {
            self.rest = &self.rest[XERIAL_HEADER_BYTES..];
            self.block.clear();
            self.at = 0;
            return Ok(());
        }
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| broken("a negative length"))?;
        let block = rest.get(..length).ok_or_else(|| broken("a block is cut short"))?;
        let size = snap::raw::decompress_len(block).map_err(io::Error::from)?;
        if size > self.max || size / 64 > block.len() {
            return Err(broken("a block decompresses to more than allowed"));
        }
        self.block.clear();
        self.block.resize(size, 0);
        snap::raw::Decoder::new().decompress(block, &mut self.block).map_err(io::Error::from)?;
        self.at = 0;
        self.rest = &rest[length..];
        Ok(())
    }
}

impl Read for XerialReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let length = out.len().min(self.block.len() - self.at);
        out[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
