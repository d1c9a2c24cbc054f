//! Values as canonical text.

use std::borrow::Cow;

use towpath_api::Value;

/// The text of a value; `None` for null, absent and bytes.
pub(crate) fn of<'a>(value: Value<'a>) -> Option<Cow<'a, str>> {
    Some(match value {
        Value::Null | Value::Absent | Value::Bytes(_) => return None,
        Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Value::Int(value) => Cow::Owned(value.to_string()),
        Value::Float32(value) => float(f64::from(value), || value.to_string()),
        Value::Float64(value) => float(value, || value.to_string()),
        Value::Text(text) => Cow::Borrowed(text),
    })
}

fn float(value: f64, finite: impl FnOnce() -> String) -> Cow<'static, str> {
    if value.is_nan() {
        Cow::Borrowed("NaN")
    } else if value.is_infinite() {
        Cow::Borrowed(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        Cow::Owned(finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_text() {
        for (value, text) in [
            (Value::Bool(true), Some("true")),
            (Value::Int(-5), Some("-5")),
            (Value::Float32(0.1), Some("0.1")),
            (Value::Float64(1e21), Some("1000000000000000000000")),
            (Value::Float64(f64::NAN), Some("NaN")),
            (Value::Float32(f32::NEG_INFINITY), Some("-Infinity")),
            (Value::Text("x"), Some("x")),
            (Value::Null, None),
            (Value::Bytes(b"x"), None),
        ] {
            assert_eq!(of(value).as_deref(), text);
        }
    }
}
