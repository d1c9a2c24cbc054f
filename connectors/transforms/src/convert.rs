//! Values into values of another type: without loss, or not at all.

use std::borrow::Cow;

use towpath_api::{RowWriter, Type, Value};

use super::{decimal, temporal, text};

/// The names by which a configuration knows types.
pub(crate) const TYPES: &[(&str, &str)] = &[
    ("bool", "True or false; also out of `true`, `false`, `t`, `f`, 1 and 0."),
    ("int16", "A whole number of 16 bits."),
    ("int32", "A whole number of 32 bits."),
    ("int64", "A whole number of 64 bits."),
    ("float32", "A floating-point number of 32 bits."),
    ("float64", "A floating-point number of 64 bits."),
    ("decimal", "A decimal number of any precision."),
    ("string", "Text."),
    ("bytes", "Bytes; text becomes its UTF-8."),
    ("date", "`YYYY-MM-DD`."),
    ("time", "`HH:MM:SS`."),
    ("timestamp", "A date and a time of no zone."),
    ("timestamp_tz", "A date and a time with `Z` or an offset."),
    ("uuid", "A UUID."),
    ("json", "A JSON value, given as text."),
];

/// The type called `name` in [`TYPES`].
pub(crate) fn type_by_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float32" => Type::Float32,
        "float64" => Type::Float64,
        "decimal" => Type::Decimal,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "date" => Type::Date,
        "time" => Type::Time,
        "timestamp" => Type::Timestamp,
        "timestamp_tz" => Type::TimestampTz,
        "uuid" => Type::Uuid,
        "json" => Type::Json,
        _ => return None,
    })
}

/// A converted value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Converted<'a> {
    Null,
    Absent,
    Bool(bool),
    Int(i64),
    Float32(f32),
    Float64(f64),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
}

impl Converted<'_> {
    /// Writes it as the next field.
    pub(crate) fn write(&self, out: &mut RowWriter<'_>) {
        match self {
            Self::Null => out.null(),
            Self::Absent => out.absent(),
            Self::Bool(value) => out.bool(*value),
            Self::Int(value) => out.int(*value),
            Self::Float32(value) => out.float32(*value),
            Self::Float64(value) => out.float64(*value),
            Self::Bytes(value) => out.bytes(value),
            Self::Text(value) => out.text(value),
        }
    }
}

/// `value` as a `to`; `None` when that would lose something, or makes no sense.
pub(crate) fn convert<'a>(value: Value<'a>, to: &Type) -> Option<Converted<'a>> {
    match value {
        Value::Null => return Some(Converted::Null),
        Value::Absent => return Some(Converted::Absent),
        _ => {}
    }
    match to {
        Type::Bool => to_bool(value).map(Converted::Bool),
        Type::Int16 => to_int(value, i16::MIN.into(), i16::MAX.into()),
        Type::Int32 => to_int(value, i32::MIN.into(), i32::MAX.into()),
        Type::Int64 => to_int(value, i64::MIN, i64::MAX),
        Type::Float32 => to_float32(value).map(Converted::Float32),
        Type::Float64 => to_float64(value).map(Converted::Float64),
        Type::Bytes => match value {
            Value::Bytes(bytes) => Some(Converted::Bytes(Cow::Borrowed(bytes))),
            Value::Text(text) => Some(Converted::Bytes(Cow::Borrowed(text.as_bytes()))),
            _ => None,
        },
        _ => to_text(value, to).map(Converted::Text),
    }
}

fn to_bool(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(value),
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        Value::Text("true" | "t" | "1") => Some(true),
        Value::Text("false" | "f" | "0") => Some(false),
        _ => None,
    }
}

/// The whole number that a float is, if it is one within `i64`.
fn whole(value: f64) -> Option<i64> {
    // 2^63 itself is past the end; every float below is in range.
    let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    (in_range && value.fract() == 0.0).then_some(value as i64)
}

fn to_int(value: Value<'_>, min: i64, max: i64) -> Option<Converted<'static>> {
    let number = match value {
        Value::Bool(value) => i64::from(value),
        Value::Int(value) => value,
        Value::Float32(value) => whole(value.into())?,
        Value::Float64(value) => whole(value)?,
        Value::Text(text) => decimal::to_int(text)?,
        _ => return None,
    };
    (min..=max).contains(&number).then_some(Converted::Int(number))
}

/// The float that a decimal text is exactly, or prints as.
fn parse_float(text: &str) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let value: f64 = text.parse().ok()?;
    let same = value.is_finite() && decimal::compare(&value.to_string(), text)?.is_eq();
    same.then_some(value)
}

fn to_float64(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => {
            let float = value as f64;
            (whole(float) == Some(value)).then_some(float)
        }
        Value::Float32(value) => Some(value.into()),
        Value::Float64(value) => Some(value),
        Value::Text(text) => parse_float(text),
        _ => None,
    }
}

fn to_float32(value: Value<'_>) -> Option<f32> {
    match value {
        Value::Float32(value) => Some(value),
        Value::Text(text) if !matches!(text, "NaN" | "Infinity" | "-Infinity") => {
            let value: f32 = text.parse().ok()?;
            let same = value.is_finite() && decimal::compare(&value.to_string(), text)?.is_eq();
            same.then_some(value)
        }
        other => {
            let wide = to_float64(other)?;
            let narrow = wide as f32;
            (f64::from(narrow) == wide || wide.is_nan()).then_some(narrow)
        }
    }
}

fn to_text<'a>(value: Value<'a>, to: &Type) -> Option<Cow<'a, str>> {
    if let (Value::Bytes(bytes), Type::String) = (value, to) {
        return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    let text = text::of(value)?;
    match to {
        Type::String => Some(text),
        // A boolean is no number, though it has a text.
        Type::Decimal if !matches!(value, Value::Bool(_)) => decimal::is_valid(&text).then_some(text),
        Type::Json => is_json(value, &text).then_some(text),
        Type::Uuid => to_uuid(&text).map(Cow::Owned),
        Type::Date | Type::Timestamp | Type::TimestampTz => to_moment(text, to),
        Type::Time => temporal::is_time(&text, false).then_some(text),
        Type::TimeTz => temporal::is_time(&text, true).then_some(text),
        _ => None,
    }
}

/// NaN and infinities are floats and no JSON; a text must be JSON itself.
fn is_json(value: Value<'_>, text: &str) -> bool {
    match value {
        Value::Text(_) => serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(),
        Value::Float32(value) => value.is_finite(),
        Value::Float64(value) => value.is_finite(),
        _ => true,
    }
}

fn to_uuid(text: &str) -> Option<String> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let is_one =
        groups == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase())
}

/// Between dates and timestamps: a date is its midnight, and the other way round only midnight is a date. A zone is
/// neither invented nor dropped.
fn to_moment<'a>(text: Cow<'a, str>, to: &Type) -> Option<Cow<'a, str>> {
    let (moment, shape) = temporal::moment(&text)?;
    if !matches!(moment, temporal::Moment::At(_)) {
        return Some(text);
    }
    let body = text.strip_suffix(" BC").map_or(&*text, |body| body);
    let era = if body.len() == text.len() { "" } else { " BC" };
    match to {
        Type::Date if !shape.has_time => Some(text),
        Type::Date => {
            let (day, time) = body.split_at_checked(body.find(['T', ' '])?)?;
            let is_midnight =
                !shape.has_offset && time[1..].bytes().all(|byte| matches!(byte, b'0' | b':' | b'.'));
            is_midnight.then(|| Cow::Owned(format!("{day}{era}")))
        }
        Type::Timestamp if !shape.has_time => Some(Cow::Owned(format!("{body}T00:00:00{era}"))),
        Type::Timestamp if !shape.has_offset => Some(with_t(text)),
        Type::TimestampTz if shape.has_offset => Some(with_t(text)),
        _ => None,
    }
}

/// With the `T` that canonical timestamps have between date and time.
fn with_t(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.find(['T', ' ']) {
        Some(at) if text.as_bytes()[at] == b' ' => Cow::Owned(format!("{}T{}", &text[..at], &text[at + 1..])),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn int(value: i64) -> Option<Converted<'static>> {
        Some(Converted::Int(value))
    }

    fn text(value: &str) -> Option<Converted<'static>> {
        Some(Converted::Text(Cow::Owned(value.to_owned())))
    }

    #[test]
    fn every_name_is_a_type() {
        for (name, _) in TYPES {
            assert_eq!(type_by_name(name).map(|ty| ty.to_string()).as_deref(), Some(*name));
        }
        assert_eq!(type_by_name("number"), None);
    }

    #[test]
    fn whole_numbers() {
        assert_eq!(convert(Value::Int(32_767), &Type::Int16), int(32_767));
        assert_eq!(convert(Value::Int(32_768), &Type::Int16), None);
        assert_eq!(convert(Value::Text("12.00"), &Type::Int32), int(12));
        assert_eq!(convert(Value::Text("12.5"), &Type::Int32), None);
        assert_eq!(convert(Value::Text(" 12"), &Type::Int32), None);
        assert_eq!(convert(Value::Float64(3.0), &Type::Int64), int(3));
        assert_eq!(convert(Value::Float64(3.5), &Type::Int64), None);
        assert_eq!(convert(Value::Float64(9_223_372_036_854_775_808.0), &Type::Int64), None);
        assert_eq!(convert(Value::Float64(f64::NAN), &Type::Int64), None);
        assert_eq!(convert(Value::Bool(true), &Type::Int16), int(1));
        assert_eq!(convert(Value::Null, &Type::Int16), Some(Converted::Null));
        assert_eq!(convert(Value::Absent, &Type::Int16), Some(Converted::Absent));
    }

    #[test]
    fn floats_only_when_they_are_exact() {
        assert_eq!(
            convert(Value::Int(1 << 53), &Type::Float64),
            Some(Converted::Float64(9_007_199_254_740_992.0))
        );
        assert_eq!(convert(Value::Int((1 << 53) + 1), &Type::Float64), None);
        assert_eq!(convert(Value::Int(i64::MAX), &Type::Float64), None);
        assert_eq!(convert(Value::Text("0.1"), &Type::Float64), Some(Converted::Float64(0.1)));
        assert_eq!(convert(Value::Text("0.1"), &Type::Float32), Some(Converted::Float32(0.1)));
        assert_eq!(convert(Value::Text("0.12345678901234567890123"), &Type::Float64), None);
        assert_eq!(convert(Value::Text("1e400"), &Type::Float64), None);
        assert_eq!(convert(Value::Float64(0.1), &Type::Float32), None);
        assert_eq!(convert(Value::Float64(0.5), &Type::Float32), Some(Converted::Float32(0.5)));
        let nan = convert(Value::Text("NaN"), &Type::Float32);
        assert!(matches!(nan, Some(Converted::Float32(value)) if value.is_nan()));
    }

    #[test]
    fn texts_of_many_kinds() {
        assert_eq!(convert(Value::Float64(0.1), &Type::Decimal), text("0.1"));
        assert_eq!(convert(Value::Text("abc"), &Type::Decimal), None);
        assert_eq!(convert(Value::Bool(true), &Type::Decimal), None);
        assert_eq!(convert(Value::Bool(true), &Type::String), text("true"));
        assert_eq!(convert(Value::Bytes(b"abc"), &Type::String), text("abc"));
        assert_eq!(convert(Value::Bytes(b"\xff"), &Type::String), None);
        assert_eq!(convert(Value::Text("{\"a\": 1}"), &Type::Json), text("{\"a\": 1}"));
        assert_eq!(convert(Value::Text("{a}"), &Type::Json), None);
        assert_eq!(convert(Value::Float64(f64::NAN), &Type::Json), None);
        let uuid = "6BA7B810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(convert(Value::Text(uuid), &Type::Uuid), text(&uuid.to_lowercase()));
        assert_eq!(convert(Value::Text("6ba7b8109dad11d180b400c04fd430c8"), &Type::Uuid), None);
        assert_eq!(convert(Value::Text("t"), &Type::Bool), Some(Converted::Bool(true)));
        assert_eq!(convert(Value::Text("yes"), &Type::Bool), None);
        assert_eq!(convert(Value::Int(2), &Type::Bool), None);
    }

    #[test]
    fn dates_and_timestamps() {
        assert_eq!(convert(Value::Text("2024-02-29"), &Type::Date), text("2024-02-29"));
        assert_eq!(convert(Value::Text("2023-02-29"), &Type::Date), None);
        assert_eq!(convert(Value::Text("2024-02-29"), &Type::Timestamp), text("2024-02-29T00:00:00"));
        assert_eq!(convert(Value::Text("0044-03-15 BC"), &Type::Timestamp), text("0044-03-15T00:00:00 BC"));
        assert_eq!(convert(Value::Text("2024-02-29T00:00:00.000"), &Type::Date), text("2024-02-29"));
        assert_eq!(convert(Value::Text("2024-02-29T00:00:01"), &Type::Date), None);
        assert_eq!(
            convert(Value::Text("2024-02-29 10:00:00"), &Type::Timestamp),
            text("2024-02-29T10:00:00")
        );
        assert_eq!(convert(Value::Text("2024-02-29T10:00:00"), &Type::TimestampTz), None);
        assert_eq!(convert(Value::Text("2024-02-29T10:00:00Z"), &Type::Timestamp), None);
        assert_eq!(
            convert(Value::Text("2024-02-29 10:00:00+02"), &Type::TimestampTz),
            text("2024-02-29T10:00:00+02")
        );
        assert_eq!(convert(Value::Text("infinity"), &Type::Date), text("infinity"));
        assert_eq!(convert(Value::Text("10:00:00"), &Type::Time), text("10:00:00"));
        assert_eq!(convert(Value::Int(5), &Type::Date), None);
    }

    proptest! {
        #[test]
        fn integers_survive_the_way_through_text(value in any::<i64>()) {
            let Some(Converted::Text(text)) = convert(Value::Int(value), &Type::String) else { panic!() };
            prop_assert_eq!(convert(Value::Text(&text), &Type::Int64), int(value));
        }

        #[test]
        fn floats_survive_the_way_through_decimals(value in any::<f64>().prop_filter("a number", |v| v.is_finite())) {
            let Some(Converted::Text(text)) = convert(Value::Float64(value), &Type::Decimal) else { panic!() };
            prop_assert_eq!(convert(Value::Text(&text), &Type::Float64), Some(Converted::Float64(value)));
        }
    }
}
