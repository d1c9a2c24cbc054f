//! The five codecs, with a bound on what they may produce (R10).

use std::fmt;
use std::io::{self, Read, Write};

use crate::{BatchError, BuildError, snappy};

/// log₂ of the largest window a zstd frame may ask for: 128 MiB, what zstd's highest levels declare.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// zstd's own default.
pub(crate) const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// The level of gzip, its default for none.
pub(crate) fn gzip_level(level: Option<i32>) -> flate2::Compression {
    flate2::Compression::new(level.unwrap_or(6).clamp(1, 9) as u32)
}

/// How LZ4 frames are written. Kafka's reader wants independent blocks; 64 KiB is its writer's size.
pub(crate) fn lz4_frame() -> lz4_flex::frame::FrameInfo {
    lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Independent)
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
}

/// A codec, by Kafka's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not compressed.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy (framed as by snappy-java; raw is understood too).
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// All codecs.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The id in a batch's attributes.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec of an id.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name in Kafka's configs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a name in Kafka's configs (`uncompressed` is the topic config's word for none).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "uncompressed" {
            return Some(Self::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec and its level. Levels: gzip 1–9 (default 6), zstd -131072–22 (default 3); the others have none here (the
/// LZ4 encoder knows only the fast mode, so `compression.lz4.level` changes nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codec {
    /// The codec.
    pub compression: Compression,
    /// Its level, or its default.
    pub level: Option<i32>,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        Self { compression, level: None }
    }
}

/// Compresses payloads; keeps the zstd context, which is costly to set up.
#[derive(Default)]
pub struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor for `codec`.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { codec, zstd: None }
    }

    /// The codec.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the compressed form of `raw` to `out`.
    ///
    /// # Errors
    /// [`BuildError::Compress`].
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), BuildError> {
        let compression = self.codec.compression;
        self.try_compress(raw, out).map_err(|source| BuildError::Compress { compression, source })
    }

    fn try_compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self.codec.compression {
            Compression::None => out.extend_from_slice(raw),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, gzip_level(self.codec.level));
                encoder.write_all(raw)?;
                encoder.finish()?;
            }
            Compression::Snappy => snappy::compress(raw, out)?,
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(lz4_frame(), out);
                encoder.write_all(raw)?;
                encoder.finish().map_err(io::Error::from)?;
            }
            Compression::Zstd => self.zstd(raw, out)?,
        }
        Ok(())
    }

    fn zstd(&mut self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let context = match &mut self.zstd {
            Some(context) => context,
            empty => {
                empty.insert(zstd::bulk::Compressor::new(self.codec.level.unwrap_or(ZSTD_LEVEL_DEFAULT))?)
            }
        };
        let from = out.len();
        out.resize(from + zstd::zstd_safe::compress_bound(raw.len()), 0);
        let written = context.compress_to_buffer(raw, &mut out[from..])?;
        out.truncate(from + written);
        Ok(())
    }
}

/// A reader of the decompressed payload, and for raw snappy (which cannot be streamed) the bound on its size.
pub(crate) fn reader<'a>(
    compression: Compression,
    payload: &'a [u8],
    max: usize,
) -> Result<Box<dyn Read + 'a>, BatchError> {
    let wrap = |source| BatchError::Decompress { compression, source };
    Ok(match compression {
        Compression::None => Box::new(payload),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(payload)),
        Compression::Snappy if snappy::is_xerial(payload) => {
            Box::new(snappy::XerialReader::new(payload, max))
        }
        Compression::Snappy => Box::new(io::Cursor::new(snappy::decompress_raw(payload, max)?)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(payload)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(wrap)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(wrap)?;
            Box::new(decoder)
        }
    })
}

/// Decompresses a payload to at most `max` bytes; no more memory than that is taken (R10).
///
/// # Errors
/// [`BatchError::UncompressedTooLarge`], [`BatchError::Decompress`].
pub fn decompress(compression: Compression, payload: &[u8], max: usize) -> Result<Vec<u8>, BatchError> {
    if compression == Compression::Snappy && !snappy::is_xerial(payload) {
        return snappy::decompress_raw(payload, max);
    }
    let mut out = Vec::with_capacity(payload.len().saturating_mul(2).min(max).min(1 << 20));
    reader(compression, payload, max)?
        .take(max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|source| BatchError::Decompress { compression, source })?;
    if out.len() > max {
        return Err(BatchError::UncompressedTooLarge { max });
    }
    Ok(out)
}
