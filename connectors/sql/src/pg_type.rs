//! PostgreSQL's types: which [`Type`] carries them, how their text form is made canonical, and their names.

use towpath_api::Type;

/// What stands in front of [`towpath_api::Field::source_type`] for types of PostgreSQL.
pub const PREFIX: &str = "postgres:";

/// `format_type()`'s text as a field's source type.
#[must_use]
pub fn source_type(formatted: &str) -> String {
    format!("{PREFIX}{formatted}")
}

/// The type as PostgreSQL writes it, if the source type is one of PostgreSQL's.
#[must_use]
pub fn formatted(source_type: &str) -> Option<&str> {
    source_type.strip_prefix(PREFIX)
}

/// Whether `formatted` (written with an empty `search_path`) names a type that every PostgreSQL has: types outside
/// of `pg_catalog` have their schema in front. Enums, composites and extensions' types have to exist in the target
/// before a column can use them; the others can be used as they are.
#[must_use]
pub fn is_builtin(formatted: &str) -> bool {
    let mut quoted = false;
    !formatted.bytes().any(|byte| {
        quoted ^= byte == b'"';
        byte == b'.' && !quoted
    })
}

/// The type that carries values of a base type (no domain, no array) of `pg_type`, by its fixed object id; whatever
/// is not listed is carried as text.
#[must_use]
pub const fn carrier(oid: u32) -> Type {
    match oid {
        16 => Type::Bool,
        17 => Type::Bytes,
        21 => Type::Int16,
        23 => Type::Int32,
        20 | 26 => Type::Int64,
        700 => Type::Float32,
        701 => Type::Float64,
        1700 => Type::Decimal,
        114 | 3802 => Type::Json,
        2950 => Type::Uuid,
        1082 => Type::Date,
        1083 => Type::Time,
        1266 => Type::TimeTz,
        1114 => Type::Timestamp,
        1184 => Type::TimestampTz,
        1186 => Type::Interval,
        _ => Type::String,
    }
}

/// Appends a `timestamp` or `timestamptz`, written with `DateStyle` ISO and `TimeZone` UTC, in its canonical form:
/// `T` between date and time, `Z` for the offset of UTC. ` BC` and `infinity` stay.
pub fn push_timestamp(out: &mut Vec<u8>, text: &[u8]) {
    let Some(space) = text.iter().position(|byte| *byte == b' ') else {
        out.extend_from_slice(text);
        return;
    };
    let (rest, era) = match text.strip_suffix(b" BC") {
        Some(rest) if rest.len() > space => (rest, &b" BC"[..]),
        _ => (text, &b""[..]),
    };
    out.extend_from_slice(&rest[..space]);
    out.push(b'T');
    let time = &rest[space + 1..];
    match time.strip_suffix(b"+00") {
        Some(time) => {
            out.extend_from_slice(time);
            out.push(b'Z');
        }
        None => out.extend_from_slice(time),
    }
    out.extend_from_slice(era);
}

/// A `bytea` that is not in the form that `bytea_output = hex` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytea is not in hex form")]
pub struct NotHex;

/// Appends the bytes of a `bytea` in hex form (`\x68690a`).
///
/// # Errors
/// [`NotHex`]; what was appended until then stays.
pub fn push_bytea(out: &mut Vec<u8>, text: &[u8]) -> Result<(), NotHex> {
    let digits = text.strip_prefix(br"\x").ok_or(NotHex)?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(NotHex);
    }
    out.reserve(pairs.len());
    for [high, low] in pairs {
        out.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
    }
    Ok(())
}

const fn hex_digit(digit: u8) -> Result<u8, NotHex> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NotHex),
    }
}

/// `bytes` as a `bytea` in hex form.
#[must_use]
pub fn bytea(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 + bytes.len() * 2);
    out.push_str(r"\x");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_become_canonical() {
        let canonical = |text: &str| {
            let mut out = Vec::new();
            push_timestamp(&mut out, text.as_bytes());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(canonical("2024-02-29 12:34:56.789"), "2024-02-29T12:34:56.789");
        assert_eq!(canonical("2024-02-29 12:34:56+00"), "2024-02-29T12:34:56Z");
        assert_eq!(canonical("0044-03-15 12:00:00+00 BC"), "0044-03-15T12:00:00Z BC");
        assert_eq!(canonical("0044-03-15 12:00:00 BC"), "0044-03-15T12:00:00 BC");
        assert_eq!(canonical("10000-01-01 00:00:00+00"), "10000-01-01T00:00:00Z");
        assert_eq!(canonical("-infinity"), "-infinity");
    }

    #[test]
    fn bytea_goes_both_ways_and_garbage_is_refused() {
        let all: Vec<u8> = (0..=255).collect();
        let mut back = Vec::new();
        push_bytea(&mut back, bytea(&all).as_bytes()).unwrap();
        assert_eq!(back, all);
        for wrong in ["", "abc", r"\x1", r"\xzz"] {
            assert_eq!(push_bytea(&mut Vec::new(), wrong.as_bytes()), Err(NotHex), "{wrong}");
        }
    }

    #[test]
    fn builtin_types_have_no_schema() {
        assert!(
            is_builtin("numeric(10,2)")
                && is_builtin("timestamp(3) with time zone")
                && is_builtin("\"char\"")
        );
        assert!(!is_builtin("public.mood") && !is_builtin("\"a.b\".mood[]"));
        assert!(is_builtin("\"odd.name\""), "a dot in quotes separates nothing");
    }
}
