//! Records as JSON for sinks that write text: rows alone, or Debezium's envelope for change events. Everything is on
//! one line, so that it can stand in JSON lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::batch::{Op, RecordView};
use super::row::{Row, Value};
use super::schema::Type;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many bytes at the beginning are neither quote, backslash nor control; looks at eight at a time.
fn clean_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let zero_of = |word: u64| word.wrapping_sub(ONES) & !word;
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (controls | zero_of(word ^ (ONES * 0x22)) | zero_of(word ^ (ONES * 0x5c))) & HIGHS;
        if found != 0 {
            // Borrows falsify only bytes above the first match.
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let dirty = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    bytes[at..].iter().position(dirty).map_or(bytes.len(), |found| at + found)
}

/// Appends `text` as a JSON string, with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
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
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
            }
        }
        rest = &rest[clean + 1..];
    }
    out.push(b'"');
}

/// Appends an integer.
pub fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_float(out: &mut Vec<u8>, finite: Option<&str>, nan: bool, positive: bool) {
    out.extend_from_slice(match (finite, nan, positive) {
        (Some(digits), ..) => digits.as_bytes(),
        (None, true, _) => b"\"NaN\"",
        (None, false, true) => b"\"Infinity\"",
        (None, false, false) => b"\"-Infinity\"",
    });
}

/// Appends JSON text as it is, on one line: outside of strings, line breaks are only space.
fn write_json(out: &mut Vec<u8>, text: &str) {
    let text = text.trim_ascii();
    let from = out.len();
    out.extend_from_slice(if text.is_empty() { b"null" } else { text.as_bytes() });
    for byte in &mut out[from..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// Appends a value of type `ty`: numbers, booleans and JSON as such, bytes in base64, what JSON has no number for (NaN,
/// decimals, dates …) as a string. What was not told is null.
pub fn write_value(out: &mut Vec<u8>, ty: &Type, value: Value<'_>) {
    match value {
        Value::Null | Value::Absent => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Int(value) => write_int(out, value),
        Value::Float32(value) => {
            let mut buffer = ryu::Buffer::new();
            let digits = value.is_finite().then(|| buffer.format_finite(value));
            write_float(out, digits, value.is_nan(), value > 0.0);
        }
        Value::Float64(value) => {
            let mut buffer = ryu::Buffer::new();
            let digits = value.is_finite().then(|| buffer.format_finite(value));
            write_float(out, digits, value.is_nan(), value > 0.0);
        }
        Value::Bytes(bytes) => {
            out.push(b'"');
            let from = out.len();
            out.resize(from + bytes.len().div_ceil(3) * 4, 0);
            // The space is exactly what padded base64 needs.
            let written = STANDARD.encode_slice(bytes, &mut out[from..]).unwrap_or_default();
            out.truncate(from + written);
            out.push(b'"');
        }
        Value::Text(text) if matches!(ty, Type::Json | Type::Array(_)) => write_json(out, text),
        Value::Text(text) => write_string(out, text),
    }
}

/// Appends a row as an object; a bare row as its value. Fields that were not told are left out.
pub fn write_row(out: &mut Vec<u8>, row: &Row<'_>) {
    let fields = &row.schema().fields;
    if let ([only], true) = (fields.as_slice(), row.schema().is_bare()) {
        write_value(out, &only.ty, row.get(0));
        return;
    }
    out.push(b'{');
    write_members(out, row, false);
    out.push(b'}');
}

fn write_members(out: &mut Vec<u8>, row: &Row<'_>, mut comma: bool) {
    for (index, field) in row.schema().fields.iter().enumerate() {
        let value = row.get(index);
        if matches!(value, Value::Absent) {
            continue;
        }
        if comma {
            out.push(b',');
        }
        comma = true;
        write_string(out, &field.name);
        out.push(b':');
        write_value(out, &field.ty, value);
    }
}

fn write_image(out: &mut Vec<u8>, image: Option<Row<'_>>) {
    match image {
        Some(row) => write_row(out, &row),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a record's key: its row, or null.
pub fn write_key(out: &mut Vec<u8>, record: &RecordView<'_>) {
    write_image(out, record.key());
}

/// Appends a record's value: Debezium's envelope for a change event that is not flat, otherwise the row, or null.
pub fn write_record(out: &mut Vec<u8>, record: &RecordView<'_>) {
    let op = match record.op() {
        Some(Op::Tombstone) => return out.extend_from_slice(b"null"),
        Some(op) if !record.is_flat() => op,
        _ => return write_image(out, record.after()),
    };
    out.extend_from_slice(b"{\"before\":");
    write_image(out, record.before());
    out.extend_from_slice(b",\"after\":");
    write_image(out, record.after());
    if let Some(block) = record.schema().source() {
        out.extend_from_slice(b",\"source\":{");
        for (index, (name, value)) in block.constants.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(out, name);
            out.push(b':');
            write_string(out, value);
        }
        if let Some(row) = record.source() {
            write_members(out, &row, !block.constants.is_empty());
        }
        out.push(b'}');
    }
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(op.letter().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_int(out, record.timestamp_ms());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::BatchBuilder;
    use crate::schema::{EventSchema, Field, RowSchema, SourceBlock};

    fn fields() -> RowSchema {
        RowSchema::new(vec![
            Field::required("id", Type::Int64),
            Field::nullable("f", Type::Float64),
            Field::nullable("b", Type::Bytes),
            Field::nullable("j", Type::Json),
            Field::nullable("s\"", Type::String),
            Field::nullable("gone", Type::String),
        ])
    }

    fn write(row: &mut crate::row::RowWriter<'_>) {
        row.int(-1);
        row.float64(f64::NAN);
        row.bytes(b"hi");
        row.text("{\"a\":\n [1]}");
        row.text("x\ny");
        row.absent();
    }

    #[test]
    fn change_events_are_envelopes_and_flat_ones_rows() {
        let block = SourceBlock {
            constants: vec![("table".into(), "t".into())],
            fields: RowSchema::new(vec![Field::nullable("lsn", Type::Int64)]),
        };
        let schema = Arc::new(EventSchema::new("t", Arc::new(fields())).with_source(Some(Arc::new(block))));
        let mut builder = BatchBuilder::new();
        for flat in [false, true] {
            let mut record = builder.record(&schema);
            record.op(Some(Op::Create)).flat(flat).timestamp_ms(5).after(write).source(|row| row.int(9));
            record.finish();
        }
        let mut record = builder.record(&schema);
        record.op(Some(Op::Tombstone));
        record.finish();
        let batch = builder.build();
        let line = |index| {
            let mut out = Vec::new();
            write_record(&mut out, &batch.record(index));
            String::from_utf8(out).unwrap()
        };
        let row = r#"{"id":-1,"f":"NaN","b":"aGk=","j":{"a":  [1]},"s\"":"x\ny"}"#;
        assert_eq!(line(1), row);
        let source = r#"{"table":"t","lsn":9}"#;
        assert_eq!(
            line(0),
            format!(r#"{{"before":null,"after":{row},"source":{source},"op":"c","ts_ms":5}}"#)
        );
        assert_eq!(line(2), "null");
        for index in 0..3 {
            assert!(serde_json::from_str::<serde_json::Value>(&line(index)).is_ok());
        }
    }

    proptest! {
        #[test]
        fn strings_are_what_serde_reads(text in "\\PC*|[\\x00-\\x7f]{0,40}") {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn floats_keep_every_bit(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let mut out = Vec::new();
            write_value(&mut out, &Type::Float64, Value::Float64(value));
            if value.is_finite() {
                prop_assert_eq!(std::str::from_utf8(&out).unwrap().parse::<f64>().unwrap().to_bits(), bits);
            }
        }
    }
}
