//! A batch with another codec: the records' bytes are the same in every codec, so they are not taken apart, and go from
//! one codec into the other a window at a time.

use std::io::{self, Read, Write};

use bytes::Bytes;
use towpath_types::limits;

use crate::header::{
    AT_ATTRIBUTES, AT_CRC, AT_LENGTH, ATTRIBUTE_COMPRESSION, CRC_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES,
};
use crate::{BatchHeader, BuildError, Codec, Compression, ValidateError, compression, snappy};

/// Bytes of the window, decompressed.
const WINDOW_BYTES: usize = 64 * 1024;

/// zstd's levels up to this one take a moderate amount of memory by themselves.
const ZSTD_LEVEL_OWN_WINDOW_MAX: i32 = 15;
/// log₂ of the window above that: 4 MiB.
const ZSTD_WINDOW_LOG: u32 = 22;

/// The batch that is being written. R10: it takes no more than the bound.
struct Out {
    bytes: Vec<u8>,
    max: usize,
    exceeded: bool,
}

impl Write for Out {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(part.len()) > self.max {
            self.exceeded = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why the bytes did not get from one codec into the other.
enum Stop {
    Read(io::Error),
    Write(io::Error),
}

/// The batch at the front of `batch`, which was validated, compressed with `codec`; everything else of it stays as it
/// is. It may have `bytes_max` bytes.
///
/// # Errors
/// [`ValidateError::TooLarge`] past the bound, [`ValidateError::Corrupt`], [`ValidateError::Rewrite`].
pub fn recompress(batch: &Bytes, codec: Codec, bytes_max: usize) -> Result<Bytes, ValidateError> {
    let header = BatchHeader::parse(batch)?;
    let from = header.compression()?;
    let payload = &batch[HEADER_BYTES..header.size_in_bytes().min(batch.len())];
    let mut out =
        Out { bytes: Vec::with_capacity(batch.len().min(bytes_max)), max: bytes_max, exceeded: false };
    let uncompressed_max = limits::BATCH_UNCOMPRESSED_BYTES_MAX;
    let reader = compression::reader(from, payload, uncompressed_max)?.take(uncompressed_max as u64 + 1);
    let written = out.write_all(&batch[..HEADER_BYTES]).map_err(Stop::Write);
    match written.and_then(|()| encode(reader, codec, &mut out)) {
        Err(Stop::Write(_)) if out.exceeded => {
            return Err(ValidateError::TooLarge { bytes: bytes_max.saturating_add(1), max: bytes_max });
        }
        Err(Stop::Write(source)) => {
            let compression = codec.compression;
            return Err(ValidateError::Rewrite(BuildError::Compress { compression, source }));
        }
        Err(Stop::Read(source)) => {
            return Err(crate::BatchError::Decompress { compression: from, source }.into());
        }
        Ok(read) if read > uncompressed_max => {
            return Err(crate::BatchError::UncompressedTooLarge { max: uncompressed_max }.into());
        }
        Ok(_) => {}
    }
    let mut bytes = out.bytes;
    let too_large = ValidateError::Rewrite(BuildError::TooLarge { max: i32::MAX as usize });
    let length = i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).map_err(|_| too_large)?;
    bytes[AT_LENGTH..AT_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    let attributes = (header.attributes & !ATTRIBUTE_COMPRESSION) | i16::from(codec.compression.id());
    bytes[AT_ATTRIBUTES..AT_ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(Bytes::from(bytes))
}

/// Encodes what `reader` gives; returns how many bytes that were.
fn encode(reader: impl Read, codec: Codec, out: &mut Out) -> Result<usize, Stop> {
    match codec.compression {
        Compression::None => copy(reader, out),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, compression::gzip_level(codec.level));
            let read = copy(reader, &mut encoder)?;
            encoder.finish().map_err(Stop::Write)?;
            Ok(read)
        }
        Compression::Snappy => {
            let mut encoder = snappy::XerialWriter::new(out).map_err(Stop::Write)?;
            copy(reader, &mut encoder)
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(compression::lz4_frame(), out);
            let read = copy(reader, &mut encoder)?;
            encoder.finish().map_err(|error| Stop::Write(error.into()))?;
            Ok(read)
        }
        Compression::Zstd => {
            let level = codec.level.unwrap_or(compression::ZSTD_LEVEL_DEFAULT);
            let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(Stop::Write)?;
            if level > ZSTD_LEVEL_OWN_WINDOW_MAX {
                // R10: of its own, the highest level takes hundreds of MiB for a window that no batch fills.
                encoder.window_log(ZSTD_WINDOW_LOG).map_err(Stop::Write)?;
            }
            let read = copy(reader, &mut encoder)?;
            encoder.finish().map_err(Stop::Write)?;
            Ok(read)
        }
    }
}

fn copy(mut reader: impl Read, writer: &mut impl Write) -> Result<usize, Stop> {
    let mut window = vec![0; WINDOW_BYTES];
    let mut total = 0;
    loop {
        // A full window, so that the blocks of codecs that have such are full as well.
        let mut filled = 0;
        while filled < window.len() {
            match reader.read(&mut window[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Read(error)),
            }
        }
        if filled == 0 {
            return Ok(total);
        }
        total += filled;
        writer.write_all(&window[..filled]).map_err(Stop::Write)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, Header, Origin, RecordBatch, ValidateOptions, validate};
    use towpath_types::{ProducerEpoch, ProducerId};

    fn sample(compression: Compression, values: usize) -> Bytes {
        let mut builder = BatchBuilder::new(compression);
        builder.set_producer(ProducerId::new(9), ProducerEpoch::new(3), 77);
        for index in 0..values {
            let value = format!("value {index} {}", "abc".repeat(index % 50));
            let headers = [Header::new("h", Some(b"1")), Header::new("n", None)];
            builder.append(1000 + index as i64, Some(b"key"), Some(value.as_bytes()), &headers).unwrap();
        }
        builder.build().unwrap()
    }

    #[test]
    fn every_codec_becomes_every_other_and_nothing_else_changes() {
        for from in Compression::ALL {
            // More than a window, and less.
            for values in [3, 5_000] {
                let batch = sample(from, values);
                let before = RecordBatch::parse(&batch).unwrap();
                for to in Compression::ALL {
                    let bytes = recompress(&batch, to.into(), 1 << 20).unwrap();
                    let after = RecordBatch::parse(&bytes).unwrap();
                    after.verify_crc().unwrap();
                    assert_eq!(after.compression().unwrap(), to);
                    validate(&bytes, &ValidateOptions { origin: Origin::Client, ..Default::default() })
                        .unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
                    let (old, new) = (before.records().unwrap(), after.records().unwrap());
                    assert!(
                        old.iter().map(Result::unwrap).eq(new.iter().map(Result::unwrap)),
                        "{from} to {to}"
                    );
                    let same = BatchHeader {
                        batch_length: before.batch_length,
                        crc: before.crc,
                        attributes: before.attributes,
                        ..*after.header()
                    };
                    assert_eq!(same, *before.header(), "{from} to {to}");
                }
            }
        }
    }

    #[test]
    fn the_bound_holds_while_it_is_written() {
        let batch = sample(Compression::Zstd, 5_000);
        for codec in Compression::ALL {
            let whole = recompress(&batch, codec.into(), 1 << 20).unwrap();
            assert!(recompress(&batch, codec.into(), whole.len()).is_ok());
            for max in [0, HEADER_BYTES, whole.len() / 2, whole.len() - 1] {
                let refused = recompress(&batch, codec.into(), max);
                assert!(
                    matches!(refused, Err(ValidateError::TooLarge { max: bound, .. }) if bound == max),
                    "{codec}, {max} of {}: {refused:?}",
                    whole.len()
                );
            }
        }
    }
}
