//! PostgreSQL's array literals (`{1,NULL,"a b"}`) ↔ the JSON text that carries [`Type::Array`].
//!
//! Elements in JSON: booleans and integers as such; finite floats as numbers, `NaN` and infinities as strings;
//! `bytea` in base64; everything else as a string with the element's canonical text (a decimal keeps its digits, a
//! JSON document stays apart from NULL). A literal with bounds of its own (`[0:1]={1,2}`) is one JSON string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use towpath_api::Type;

use super::pg_type;

/// Dimensions that PostgreSQL allows (`MAXDIM`).
const DEPTH_MAX: usize = 6;

/// A text that is no array literal, or JSON that is none of its carrier forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an array: {0}")]
pub struct ArrayError(&'static str);

/// Appends the JSON form of an array `literal` whose elements are of type `element`, separated by `delimiter`
/// (`pg_type.typdelim`: a comma for every type but `box`).
///
/// # Errors
/// [`ArrayError`]; what was appended until then stays, and the caller drops it.
pub fn literal_to_json(
    literal: &str,
    element: &Type,
    delimiter: u8,
    out: &mut Vec<u8>,
) -> Result<(), ArrayError> {
    if literal.starts_with('[') {
        push_json_string(out, literal);
        return Ok(());
    }
    let mut reader = Reader { rest: literal.as_bytes(), element, delimiter, scratch: Vec::new() };
    reader.array(out, 0)?;
    if reader.rest.is_empty() { Ok(()) } else { Err(ArrayError("text follows the closing brace")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    element: &'a Type,
    delimiter: u8,
    scratch: Vec<u8>,
}

impl Reader<'_> {
    fn take(&mut self) -> Result<u8, ArrayError> {
        let (first, rest) = self.rest.split_first().ok_or(ArrayError("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), ArrayError> {
        if depth >= DEPTH_MAX {
            return Err(ArrayError("too many dimensions"));
        }
        if self.take()? != b'{' {
            return Err(ArrayError("an opening brace is missing"));
        }
        out.push(b'[');
        if self.rest.first() == Some(&b'}') {
            self.rest = &self.rest[1..];
            out.push(b']');
            return Ok(());
        }
        loop {
            match self.rest.first() {
                Some(b'{') => self.array(out, depth + 1)?,
                Some(b'"') => self.quoted(out)?,
                _ => self.bare(out)?,
            }
            match self.take()? {
                b'}' => break,
                byte if byte == self.delimiter => out.push(b','),
                _ => return Err(ArrayError("an element is not followed by a delimiter")),
            }
        }
        out.push(b']');
        Ok(())
    }

    fn quoted(&mut self, out: &mut Vec<u8>) -> Result<(), ArrayError> {
        self.take()?;
        self.scratch.clear();
        loop {
            match self.take()? {
                b'"' => break,
                b'\\' => {
                    let byte = self.take()?;
                    self.scratch.push(byte);
                }
                byte => self.scratch.push(byte),
            }
        }
        push_element(out, &self.scratch, self.element)
    }

    fn bare(&mut self, out: &mut Vec<u8>) -> Result<(), ArrayError> {
        let end = self.rest.iter().position(|byte| *byte == b'}' || *byte == self.delimiter);
        let (bytes, rest) = self.rest.split_at(end.ok_or(ArrayError("it ends early"))?);
        self.rest = rest;
        if bytes.eq_ignore_ascii_case(b"NULL") {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        if bytes.is_empty() || bytes.contains(&b'\\') || bytes.contains(&b'"') || bytes.contains(&b'{') {
            return Err(ArrayError("an element is not quoted as it should be"));
        }
        push_element(out, bytes, self.element)
    }
}

fn push_element(out: &mut Vec<u8>, bytes: &[u8], element: &Type) -> Result<(), ArrayError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ArrayError("an element is not UTF-8"))?;
    match element {
        Type::Bool => out.extend_from_slice(match text {
            "t" => b"true",
            "f" => b"false",
            _ => return Err(ArrayError("an element is neither t nor f")),
        }),
        Type::Int16 | Type::Int32 | Type::Int64 => {
            text.parse::<i64>().map_err(|_| ArrayError("an element is no integer"))?;
            out.extend_from_slice(bytes);
        }
        Type::Float32 | Type::Float64 => {
            let value = text.parse::<f64>().map_err(|_| ArrayError("an element is no number"))?;
            if value.is_finite() {
                out.extend_from_slice(bytes);
            } else {
                push_json_string(out, text);
            }
        }
        Type::Bytes => {
            let mut raw = Vec::new();
            pg_type::push_bytea(&mut raw, bytes).map_err(|_| ArrayError("a bytea is not in hex form"))?;
            push_json_string(out, &BASE64.encode(raw));
        }
        Type::Timestamp | Type::TimestampTz => {
            let mut canonical = Vec::with_capacity(bytes.len());
            pg_type::push_timestamp(&mut canonical, bytes);
            push_json_string(out, std::str::from_utf8(&canonical).unwrap_or(text));
        }
        _ => push_json_string(out, text),
    }
    Ok(())
}

/// Appends `text` as a JSON string.
pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            0..0x20 => {
                out.extend_from_slice(br"\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// The array literal of the JSON form that [`literal_to_json`] gives; JSON numbers and nested documents are taken
/// where a string is expected, too, so that arrays written by others fit.
///
/// # Errors
/// [`ArrayError`].
pub fn json_to_literal(json: &str, element: &Type, delimiter: u8) -> Result<String, ArrayError> {
    match serde_json::from_str(json).map_err(|_| ArrayError("it is not JSON"))? {
        Json::String(literal) => Ok(literal),
        Json::Array(items) => {
            let mut out = String::with_capacity(json.len() + 8);
            push_literal(&mut out, &items, element, char::from(delimiter), 0)?;
            Ok(out)
        }
        _ => Err(ArrayError("it is neither a JSON array nor a string")),
    }
}

fn push_literal(
    out: &mut String,
    items: &[Json],
    element: &Type,
    delimiter: char,
    depth: usize,
) -> Result<(), ArrayError> {
    if depth >= DEPTH_MAX {
        return Err(ArrayError("too many dimensions"));
    }
    out.push('{');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(delimiter);
        }
        match item {
            Json::Null => out.push_str("NULL"),
            Json::Array(items) if *element != Type::Json => {
                push_literal(out, items, element, delimiter, depth + 1)?;
            }
            Json::String(text) if *element == Type::Bytes => {
                let raw = BASE64.decode(text).map_err(|_| ArrayError("an element is not base64"))?;
                push_quoted(out, &pg_type::bytea(&raw));
            }
            Json::String(text) => push_quoted(out, text),
            Json::Bool(value) if *element != Type::Json => out.push(if *value { 't' } else { 'f' }),
            other => push_quoted(out, &other.to_string()),
        }
    }
    out.push('}');
    Ok(())
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            out.push('\\');
        }
        out.push(char);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(literal: &str, element: Type) -> Result<String, ArrayError> {
        let mut out = Vec::new();
        literal_to_json(literal, &element, b',', &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn literals_become_json() {
        assert_eq!(json("{}", Type::Int32).unwrap(), "[]");
        assert_eq!(json("{1,NULL,-3}", Type::Int32).unwrap(), "[1,null,-3]");
        assert_eq!(json("{{1,2},{3,4}}", Type::Int64).unwrap(), "[[1,2],[3,4]]");
        assert_eq!(json("{t,f,null}", Type::Bool).unwrap(), "[true,false,null]");
        assert_eq!(
            json(r#"{a,"b c","NULL","q\"\\","{}",""}"#, Type::String).unwrap(),
            r#"["a","b c","NULL","q\"\\","{}",""]"#
        );
        assert_eq!(json("{1.5,NaN,-Infinity}", Type::Float64).unwrap(), r#"[1.5,"NaN","-Infinity"]"#);
        assert_eq!(json("{1.500}", Type::Decimal).unwrap(), r#"["1.500"]"#);
        assert_eq!(json(r#"{"\\x6869"}"#, Type::Bytes).unwrap(), r#"["aGk="]"#);
        assert_eq!(
            json(r#"{"2024-01-02 03:04:05+00"}"#, Type::TimestampTz).unwrap(),
            r#"["2024-01-02T03:04:05Z"]"#
        );
        assert_eq!(json("[0:1]={1,2}", Type::Int32).unwrap(), r#""[0:1]={1,2}""#);
        let mut out = Vec::new();
        literal_to_json("{(1,1),(0,0);(3,3),(2,2)}", &Type::String, b';', &mut out).unwrap();
        assert_eq!(out, br#"["(1,1),(0,0)","(3,3),(2,2)"]"#);
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for wrong in ["", "1", "{", "{1", "{1}x", "{,}", "{\"a}", "{1 2}", "{a{b}", "{{{{{{{1}}}}}}}"] {
            assert!(json(wrong, Type::Int32).is_err(), "{wrong}");
        }
        assert!(json("{x}", Type::Bool).is_err());
    }

    #[test]
    fn json_becomes_a_literal_again() {
        let literal = |json: &str, element| json_to_literal(json, &element, b',').unwrap();
        assert_eq!(literal("[1,null,[2]]", Type::Int32), r#"{"1",NULL,{"2"}}"#);
        assert_eq!(literal(r#"["a\"b\\",true]"#, Type::String), r#"{"a\"b\\",t}"#);
        assert_eq!(literal(r#"["aGk="]"#, Type::Bytes), r#"{"\\x6869"}"#);
        assert_eq!(literal(r#"[{"a":[1]},"[2]",null]"#, Type::Json), r#"{"{\"a\":[1]}","[2]",NULL}"#);
        assert_eq!(literal(r#""[0:1]={1,2}""#, Type::Int32), "[0:1]={1,2}");
        assert!(json_to_literal("{}", &Type::Int32, b',').is_err());
        assert!(json_to_literal("[1", &Type::Int32, b',').is_err());
    }

    proptest! {
        #[test]
        fn text_arrays_survive_both_ways(items in proptest::collection::vec(proptest::option::of("\\PC{0,8}"), 0..6)) {
            let original = serde_json::to_string(&items).unwrap();
            let literal = json_to_literal(&original, &Type::String, b',').unwrap();
            let back = json(&literal, Type::String).unwrap();
            prop_assert_eq!(serde_json::from_str::<Json>(&back).unwrap(), serde_json::from_str::<Json>(&original).unwrap());
        }

        #[test]
        fn parsing_never_panics(text in "[{}\",\\\\a1 NUL]{0,24}") {
            let _parsed = json(&text, Type::String);
        }
    }
}
