//! Values as the text that PostgreSQL's input functions read, plain and escaped for `COPY`.

use std::io::Write as _;

use towpath_api::{ConnectorError, Type, Value};
use towpath_sql::pg_array;

/// How a value becomes text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Numbers in digits, booleans as `t` and `f`, bytes as `\x…`, text as it is.
    Plain,
    /// A boolean for a column of numbers.
    BoolAsNumber,
    /// The JSON form of an array as a literal.
    Array { element: Type, delimiter: u8 },
}

/// Writes `value`; false stands for NULL (and for what no record told).
pub(crate) fn write(out: &mut Vec<u8>, codec: &Codec, value: Value<'_>) -> Result<bool, ConnectorError> {
    match value {
        Value::Null | Value::Absent => return Ok(false),
        Value::Bool(value) => out.push(match (codec, value) {
            (Codec::BoolAsNumber, true) => b'1',
            (Codec::BoolAsNumber, false) => b'0',
            (_, true) => b't',
            (_, false) => b'f',
        }),
        Value::Int(value) => push_int(out, value),
        Value::Float32(value) => push_float(out, f64::from(value), |out, short| {
            if short { write!(out, "{value}") } else { write!(out, "{value:e}") }
        }),
        Value::Float64(value) => {
            push_float(
                out,
                value,
                |out, short| {
                    if short { write!(out, "{value}") } else { write!(out, "{value:e}") }
                },
            )
        }
        Value::Bytes(bytes) => push_hex(out, bytes),
        Value::Text(text) => match codec {
            Codec::Array { element, delimiter } => push_array(out, text, element, *delimiter)?,
            _ => out.extend_from_slice(text.as_bytes()),
        },
    }
    Ok(true)
}

/// Appends a value for `COPY` in text format: `\N` for NULL, backslash and controls escaped.
pub(crate) fn write_copy(out: &mut Vec<u8>, codec: &Codec, value: Value<'_>) -> Result<(), ConnectorError> {
    match (codec, value) {
        (_, Value::Null | Value::Absent) => out.extend_from_slice(br"\N"),
        (_, Value::Bytes(bytes)) => {
            out.push(b'\\');
            push_hex(out, bytes);
        }
        (Codec::Array { element, delimiter }, Value::Text(text)) => {
            let mut literal = Vec::with_capacity(text.len() + 8);
            push_array(&mut literal, text, element, *delimiter)?;
            push_escaped(out, &literal);
        }
        (_, Value::Text(text)) => push_escaped(out, text.as_bytes()),
        (codec, value) => {
            write(out, codec, value)?;
        }
    }
    Ok(())
}

/// Appends an integer.
fn push_int(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0; 20];
    let (mut rest, mut at) = (value.unsigned_abs(), digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a float: whole numbers in digits, so that they fit columns of integers, too.
fn push_float(out: &mut Vec<u8>, value: f64, exact: impl FnOnce(&mut Vec<u8>, bool) -> std::io::Result<()>) {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() < EXACT_MAX && value.trunc() == value {
        push_int(out, value as i64);
    } else {
        // Writing into memory cannot fail.
        let _ = exact(out, (1e-5..1e16).contains(&value.abs()));
    }
}

/// Two digits for each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2 + 2);
    out.extend_from_slice(br"\x");
    for byte in bytes {
        out.extend_from_slice(&HEX[usize::from(*byte)]);
    }
}

fn push_array(out: &mut Vec<u8>, json: &str, element: &Type, delimiter: u8) -> Result<(), ConnectorError> {
    let literal = pg_array::json_to_literal(json, element, delimiter).map_err(|error| {
        ConnectorError::terminal("SINK_VALUE", "a value does not fit a column of arrays").with_cause(error)
    })?;
    out.extend_from_slice(literal.as_bytes());
    Ok(())
}

/// Appends text for `COPY`, eight bytes at a time as long as nothing needs an escape.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let clean = clean_prefix(rest);
        out.extend_from_slice(&rest[..clean]);
        let Some(byte) = rest.get(clean) else { return };
        match byte {
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            other => out.push(*other),
        }
        rest = &rest[clean + 1..];
    }
}

/// How many bytes at the beginning are neither controls nor backslashes.
fn clean_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let backslashes = word ^ (ONES * 0x5c);
        let found = (controls | (backslashes.wrapping_sub(ONES) & !backslashes)) & HIGHS;
        if found != 0 {
            // Borrows falsify only bytes above the first match.
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let dirty = |byte: &u8| *byte < 0x20 || *byte == b'\\';
    bytes[at..].iter().position(dirty).map_or(bytes.len(), |found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: Value<'_>) -> String {
        let mut out = Vec::new();
        assert!(write(&mut out, &Codec::Plain, value).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_exact() {
        for value in [0, 7, -1, i64::MAX, i64::MIN] {
            assert_eq!(plain(Value::Int(value)), value.to_string());
        }
        for value in [0.1, -1.5e-300, f64::MAX, 1e22, 123_456.0, 5e-324] {
            let text = plain(Value::Float64(value));
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
        }
        assert_eq!(plain(Value::Float64(-0.0)), "-0");
        assert_eq!(plain(Value::Float64(5.0)), "5");
        assert_eq!(plain(Value::Float32(0.1)), "0.1");
        assert_eq!(plain(Value::Float32(f32::NEG_INFINITY)), "-Infinity");
    }

    #[test]
    fn copy_escapes_what_copy_would_take_for_itself() {
        let copied = |value| {
            let mut out = Vec::new();
            write_copy(&mut out, &Codec::Plain, value).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            copied(Value::Text("long enough\\to\tbe\nscanned\r\u{8}")),
            "long enough\\\\to\\tbe\\nscanned\\r\u{8}"
        );
        assert_eq!(copied(Value::Text("\\N")), "\\\\N");
        assert_eq!(copied(Value::Bytes(&[0, 255])), "\\\\x00ff");
        assert_eq!(copied(Value::Null), "\\N");
        assert_eq!(copied(Value::Bool(true)), "t");
    }

    #[test]
    fn every_position_of_a_special_byte_is_found() {
        for length in 0..24 {
            for at in 0..length {
                for special in [b'\\', b'\n', 0, 0x1f] {
                    let mut bytes = vec![0xc3; length];
                    bytes[at] = special;
                    assert_eq!(clean_prefix(&bytes), at);
                }
            }
            assert_eq!(clean_prefix(&vec![b'a'; length]), length);
        }
    }

    #[test]
    fn arrays_become_literals() {
        let codec = Codec::Array { element: Type::Int32, delimiter: b',' };
        let mut out = Vec::new();
        write(&mut out, &codec, Value::Text("[1,null]")).unwrap();
        assert_eq!(out, b"{\"1\",NULL}");
        assert_eq!(write(&mut Vec::new(), &codec, Value::Text("{}")).unwrap_err().code(), "SINK_VALUE");
    }
}
