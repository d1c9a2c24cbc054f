//! From PostgreSQL's text forms to fields of a row.

use towpath_api::{RowWriter, Type};
use towpath_sql::pg_array::{self, ArrayError};
use towpath_sql::pg_type;
use towpath_types::limits::FIELD_BYTES_MAX;

/// How a column's text becomes a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Codec {
    Bool,
    Int,
    Float32,
    Float64,
    Bytes,
    /// `T` and `Z` are put in.
    Timestamp,
    /// The text as it is.
    Text,
    Array {
        element: Type,
        delimiter: u8,
    },
}

impl Codec {
    /// For a base type that is no array.
    pub(crate) const fn scalar(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::Int16 | Type::Int32 | Type::Int64 => Self::Int,
            Type::Float32 => Self::Float32,
            Type::Float64 => Self::Float64,
            Type::Bytes => Self::Bytes,
            Type::Timestamp | Type::TimestampTz => Self::Timestamp,
            _ => Self::Text,
        }
    }
}

/// A text that is no value of its column's type, or too large to travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("the text is not valid UTF-8")]
    NotUtf8,
    #[error("the text is no number")]
    NotNumber,
    #[error("the text is neither t nor f")]
    NotBool,
    #[error("the text is no bytea in hex form")]
    NotHex,
    #[error(transparent)]
    NotArray(#[from] ArrayError),
    #[error("the value has more than {FIELD_BYTES_MAX} bytes, more than any record can hold")]
    TooLarge,
}

fn text(bytes: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(bytes).map_err(|_| ValueError::NotUtf8)
}

/// An integer in decimal digits.
fn int(bytes: &[u8]) -> Result<i64, ValueError> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(ValueError::NotNumber);
    }
    // Counting down, since the least value has no positive counterpart.
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ValueError::NotNumber);
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(digit)))
            .ok_or(ValueError::NotNumber)?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or(ValueError::NotNumber) }
}

/// Writes the value that the server wrote as `bytes`. `scratch` is working memory.
pub(crate) fn write(
    row: &mut RowWriter<'_>,
    codec: &Codec,
    bytes: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<(), ValueError> {
    if bytes.len() > FIELD_BYTES_MAX {
        return Err(ValueError::TooLarge);
    }
    match codec {
        Codec::Text => row.text(text(bytes)?),
        Codec::Int => row.int(int(bytes)?),
        Codec::Bool => match bytes {
            b"t" => row.bool(true),
            b"f" => row.bool(false),
            _ => return Err(ValueError::NotBool),
        },
        Codec::Float32 => row.float32(text(bytes)?.parse().map_err(|_| ValueError::NotNumber)?),
        Codec::Float64 => row.float64(text(bytes)?.parse().map_err(|_| ValueError::NotNumber)?),
        Codec::Bytes => {
            scratch.clear();
            pg_type::push_bytea(scratch, bytes).map_err(|_| ValueError::NotHex)?;
            row.bytes(scratch);
        }
        Codec::Timestamp => {
            text(bytes)?;
            row.text_with(|out| {
                pg_type::push_timestamp(out, bytes);
                Ok::<(), ValueError>(())
            })?;
        }
        Codec::Array { element, delimiter } => {
            let literal = text(bytes)?;
            row.text_with(|out| pg_array::literal_to_json(literal, element, *delimiter, out))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_to_their_bounds() {
        assert_eq!(int(b"0"), Ok(0));
        assert_eq!(int(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int(b"9223372036854775807"), Ok(i64::MAX));
        for wrong in ["", "-", "9223372036854775808", "-9223372036854775809", "1.0", "+1", "1 "] {
            assert_eq!(int(wrong.as_bytes()), Err(ValueError::NotNumber), "{wrong}");
        }
    }
}
