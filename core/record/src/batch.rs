//! A batch and its own bytes; the batches of a fetched or stored run of bytes.

use std::ops::Deref;

use bytes::Bytes;
use towpath_types::limits;

use crate::header::{CRC_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::{BatchError, BatchHeader, Compression, Records, decompress};

/// One record batch: the parsed header (reachable by dereference) and the bytes, shared and not copied.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Deref for RecordBatch {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
}

impl RecordBatch {
    /// Takes the batch at the front of `bytes`; what follows it is left out.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] if the batch is not whole, [`BatchError::Length`], [`BatchError::Magic`]. The
    /// checksum is not looked at: see [`Self::verify_crc`].
    pub fn parse(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_in_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Truncated { needed, available: bytes.len() });
        }
        Ok(Self { header, bytes: bytes.slice(..needed) })
    }

    /// The parsed header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch's bytes, header included.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes after the header, compressed as they are.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// Compares the checksum with the bytes.
    ///
    /// # Errors
    /// [`BatchError::Crc`].
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        verify_crc(&self.header, &self.bytes)
    }

    /// The records, decompressed if need be, up to [`limits::BATCH_UNCOMPRESSED_BYTES_MAX`].
    ///
    /// # Errors
    /// See [`Self::records_capped`].
    pub fn records(&self) -> Result<Records, BatchError> {
        self.records_capped(limits::BATCH_UNCOMPRESSED_BYTES_MAX)
    }

    /// The records, decompressed if need be, up to `max` bytes.
    ///
    /// # Errors
    /// [`BatchError::UncompressedTooLarge`] past the bound, [`BatchError::Decompress`],
    /// [`BatchError::UnknownCompression`], or a record count that the payload cannot hold.
    pub fn records_capped(&self, max: usize) -> Result<Records, BatchError> {
        let payload = match self.header.compression()? {
            Compression::None => self.payload(),
            compression => Bytes::from(decompress(compression, &self.bytes[HEADER_BYTES..], max)?),
        };
        Records::new(self.header, payload)
    }
}

pub(crate) fn verify_crc(header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchError> {
    let computed = crc32c::crc32c(&bytes[CRC_FROM..header.size_in_bytes()]);
    if computed == header.crc { Ok(()) } else { Err(BatchError::Crc { stored: header.crc, computed }) }
}

/// The batches of `bytes`, one after the other. A partial last batch (a fetch is cut at a byte bound) ends the
/// iteration; [`Batches::remaining`] then says how many bytes were left, which a broker treats as an error and a
/// consumer ignores.
#[must_use]
pub fn batches(bytes: &Bytes) -> Batches {
    Batches { rest: bytes.clone(), failed: false }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    failed: bool,
}

impl Batches {
    /// Bytes not yet returned; after the end of the iteration, those of a partial batch.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.len() < LENGTH_PREFIX_BYTES {
            return None;
        }
        match RecordBatch::parse(&self.rest) {
            Ok(batch) => {
                self.rest = self.rest.slice(batch.size_in_bytes()..);
                Some(Ok(batch))
            }
            Err(BatchError::Truncated { .. }) => {
                self.failed = true;
                None
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}
