//! Zigzag varints, as in protocol buffers.

/// Bytes of the longest varint (ten for 64 bits).
pub(crate) const VARLONG_BYTES_MAX: usize = 10;

#[inline]
pub(crate) const fn zigzag_decode(raw: u64) -> i64 {
    ((raw >> 1) as i64) ^ -((raw & 1) as i64)
}

#[inline]
pub(crate) const fn zigzag_encode(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Bytes that `value` takes.
#[inline]
pub(crate) const fn size(value: i64) -> usize {
    let raw = zigzag_encode(value);
    let bits = 64 - (raw | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads one varint at `*at`; `None` at the end of the bytes or past ten bytes.
#[inline]
pub(crate) fn read(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(zigzag_decode(u64::from(first)));
    }
    let mut raw = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(zigzag_decode(raw));
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Writes one varint into a scratch array and returns how many bytes it took.
#[inline]
pub(crate) fn write(out: &mut bytes::BytesMut, value: i64) {
    let mut raw = zigzag_encode(value);
    let mut scratch = [0u8; VARLONG_BYTES_MAX];
    let mut length = 0;
    while raw >= 0x80 {
        scratch[length] = (raw as u8) | 0x80;
        raw >>= 7;
        length += 1;
    }
    scratch[length] = raw as u8;
    out.extend_from_slice(&scratch[..=length]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(value in any::<i64>()) {
            let mut out = bytes::BytesMut::new();
            write(&mut out, value);
            prop_assert_eq!(out.len(), size(value));
            let mut at = 0;
            prop_assert_eq!(read(&out, &mut at), Some(value));
            prop_assert_eq!(at, out.len());
            for cut in 0..out.len() {
                prop_assert_eq!(read(&out[..cut], &mut 0), None);
            }
        }
    }

    #[test]
    fn extremes_and_overlong() {
        for value in [0, -1, 1, 63, 64, -64, -65, i64::MAX, i64::MIN] {
            let mut out = bytes::BytesMut::new();
            write(&mut out, value);
            assert_eq!(read(&out, &mut 0), Some(value));
        }
        assert_eq!(read(&[0xff; 11], &mut 0), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0), None);
    }
}
