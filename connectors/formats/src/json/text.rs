//! Strings and scalars as JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many bytes at the beginning need no escape (are no quote, backslash or control); looks at eight at a time.
pub(crate) fn clean_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let zero_of = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (control | zero_of(word ^ (ONES * 0x22)) | zero_of(word ^ (ONES * 0x5c))) & HIGHS;
        if found != 0 {
            // Borrows falsify only bytes above the first match.
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let dirty = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    bytes[at..].iter().position(dirty).map_or(bytes.len(), |found| at + found)
}

/// Writes `text` as a JSON string, with its quotes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let clean = clean_prefix(rest);
        out.extend_from_slice(&rest[..clean]);
        let Some(byte) = rest.get(clean) else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[clean + 1..];
    }
    out.push(b'"');
}

/// Writes an integer.
pub(crate) fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a 64-bit float; what JSON has no number for becomes a string.
pub(crate) fn write_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(special(value.is_nan(), value > 0.0));
    }
}

/// Writes a 32-bit float in its own shortest form.
pub(crate) fn write_f32(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(special(value.is_nan(), value > 0.0));
    }
}

const fn special(nan: bool, positive: bool) -> &'static [u8] {
    match (nan, positive) {
        (true, _) => b"\"NaN\"",
        (false, true) => b"\"Infinity\"",
        (false, false) => b"\"-Infinity\"",
    }
}

/// Writes bytes as a base64 string.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, 0);
    // The space is exactly what padded base64 needs.
    let written = STANDARD.encode_slice(bytes, &mut out[from..]).unwrap_or_default();
    out.truncate(from + written);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_what_serde_reads(text in "\\PC*|[\\x00-\\x7f]{0,40}") {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn floats_keep_every_bit(bits in any::<u64>(), bits32 in any::<u32>()) {
            let (value, value32) = (f64::from_bits(bits), f32::from_bits(bits32));
            let mut out = Vec::new();
            write_f64(&mut out, value);
            if value.is_finite() {
                let read: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
                prop_assert_eq!(read.to_bits(), bits);
            }
            out.clear();
            write_f32(&mut out, value32);
            if value32.is_finite() {
                let read: f32 = std::str::from_utf8(&out).unwrap().parse().unwrap();
                prop_assert_eq!(read.to_bits(), bits32);
            }
        }

        #[test]
        fn bytes_are_base64(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            write_base64(&mut out, &bytes);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(STANDARD.decode(text).unwrap(), bytes);
        }
    }

    #[test]
    fn specials_are_strings() {
        for (value, text) in [(f64::NAN, "\"NaN\""), (f64::INFINITY, "\"Infinity\"")] {
            let mut out = Vec::new();
            write_f64(&mut out, value);
            assert_eq!(out, text.as_bytes());
        }
        let mut out = Vec::new();
        write_f32(&mut out, f32::NEG_INFINITY);
        assert_eq!(out, b"\"-Infinity\"");
    }
}
