//! Numbers as LEB128, as what is stored in a link's topic has them.

/// Bytes of the longest number.
const NUMBER_BYTES: u32 = 10;

/// What was stored cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later release.
    #[error("it has version {0}, which this release does not know")]
    Version(u8),
    /// It ends in the middle, or says what cannot be.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Writes a number; what is negative is 0.
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut value = u64::try_from(value).unwrap_or(0);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads numbers from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        let version = self.byte()?;
        if version == known { Ok(()) } else { Err(DecodeError::Version(version)) }
    }

    /// A number from 0 to `i64::MAX`.
    pub(crate) fn number(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0_u64;
        for at in 0..NUMBER_BYTES {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at).unwrap_or(0);
            if byte & 0x80 == 0 {
                return i64::try_from(value).map_err(|_| DecodeError::Damaged("a number is too large"));
            }
        }
        Err(DecodeError::Damaged("a number does not end"))
    }

    /// A length, which is not believed past `max` (R10).
    pub(crate) fn length(&mut self, max: usize) -> Result<usize, DecodeError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length <= max { Ok(length) } else { Err(DecodeError::Damaged("it is longer than it may be")) }
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Damaged("it has bytes too many")) }
    }
}
