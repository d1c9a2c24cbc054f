//! What a row must be like: one field compared with a constant.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value as Json;
use towpath_api::{ConfigProblem, RawConfig, Row, Type, Value};

use super::options::Constant;
use super::rewrite::Refusal;
use super::{decimal, temporal, text};

/// The comparisons by name.
pub(crate) const COMPARISONS: &[(&str, &str)] = &[
    ("eq", "equal to `value`; `null` is equal to null alone"),
    ("ne", "not equal to `value`"),
    ("lt", "less than `value`"),
    ("le", "less than or equal to `value`"),
    ("gt", "greater than `value`"),
    ("ge", "greater than or equal to `value`"),
    ("in", "equal to one of the list `value`"),
    ("exists", "there, and not null; takes no `value`"),
    ("contains", "text with `value` in it"),
    ("starts_with", "text that begins with `value`"),
    ("ends_with", "text that ends with `value`"),
    ("matches", "text in which the regular expression `value` is found"),
];

#[derive(Debug)]
enum Comparison {
    Equal(Constant),
    NotEqual(Constant),
    Order(Constant, fn(Ordering) -> bool),
    In(Vec<Constant>),
    Exists,
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Matches(Regex),
}

/// One field compared with a constant.
#[derive(Debug)]
pub(crate) struct Predicate {
    field: String,
    comparison: Comparison,
}

/// The outcome for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is like that.
    Yes,
    /// It is not.
    No,
    /// The source did not tell the field.
    Unknown,
}

impl Predicate {
    /// Reads `field`, `op` and `value`; `None` without a field.
    pub(crate) fn parse(config: &RawConfig) -> Result<Option<Self>, ConfigProblem> {
        let value = config.values().get("value");
        let Some(field) = config.opt_str("field") else {
            return match value {
                Some(_) => Err(ConfigProblem::new("field", "is needed with `value`")),
                None => Ok(None),
            };
        };
        let scalar = || {
            let problem = || ConfigProblem::new("value", "text, a number, true, false or null is needed");
            value.and_then(Constant::of).ok_or_else(problem)
        };
        let pattern = || match value {
            Some(Json::String(text)) => Ok(text.clone()),
            _ => Err(ConfigProblem::new("value", "text is needed")),
        };
        let order = |holds: fn(Ordering) -> bool| match scalar()? {
            Constant::Null | Constant::Bool(_) => {
                Err(ConfigProblem::new("value", "nothing is less or greater than this"))
            }
            constant => Ok(Comparison::Order(constant, holds)),
        };
        let comparison = match config.opt_str("op").unwrap_or("eq") {
            "eq" => Comparison::Equal(scalar()?),
            "ne" => Comparison::NotEqual(scalar()?),
            "lt" => order(Ordering::is_lt)?,
            "le" => order(Ordering::is_le)?,
            "gt" => order(Ordering::is_gt)?,
            "ge" => order(Ordering::is_ge)?,
            "in" => {
                let items =
                    value.and_then(Json::as_array).and_then(|items| items.iter().map(Constant::of).collect());
                let items: Option<Vec<_>> = items;
                Comparison::In(items.ok_or_else(|| {
                    ConfigProblem::new("value", "a list is needed").with_hint("`value: [a, b]`")
                })?)
            }
            "exists" if value.is_some() => {
                return Err(ConfigProblem::new("value", "`exists` takes no value"));
            }
            "exists" => Comparison::Exists,
            "contains" => Comparison::Contains(pattern()?),
            "starts_with" => Comparison::StartsWith(pattern()?),
            "ends_with" => Comparison::EndsWith(pattern()?),
            "matches" => {
                let regex = Regex::new(&pattern()?);
                Comparison::Matches(regex.map_err(|error| ConfigProblem::new("value", error.to_string()))?)
            }
            other => return Err(ConfigProblem::new("op", format!("`{other}` is no comparison"))),
        };
        Ok(Some(Self { field: field.to_owned(), comparison }))
    }

    /// Whether `row` is like that; a row without the field has it as null.
    ///
    /// # Errors
    /// [`Refusal`] when the field's type cannot be compared with the constant.
    pub(crate) fn test(&self, row: &Row<'_>) -> Result<Outcome, Refusal> {
        let Some(index) = row.schema().index_of(&self.field) else {
            return self.holds(Value::Null, &Type::String).map(Outcome::from);
        };
        match row.get(index) {
            Value::Absent => Ok(Outcome::Unknown),
            value => self.holds(value, &row.schema().fields[index].ty).map(Outcome::from),
        }
    }

    fn holds(&self, value: Value<'_>, ty: &Type) -> Result<bool, Refusal> {
        let text = || if ty.is_text() { text::of(value) } else { None };
        Ok(match &self.comparison {
            Comparison::Equal(constant) => self.equal(value, ty, constant)?,
            Comparison::NotEqual(constant) => !self.equal(value, ty, constant)?,
            Comparison::Order(constant, holds) => match value {
                Value::Null | Value::Absent => false,
                value => holds(self.order(value, ty, constant)?),
            },
            Comparison::In(constants) => {
                for constant in constants {
                    if self.equal(value, ty, constant)? {
                        return Ok(true);
                    }
                }
                false
            }
            Comparison::Exists => !value.is_missing(),
            Comparison::Contains(part) => text().is_some_and(|text| text.contains(part.as_str())),
            Comparison::StartsWith(part) => text().is_some_and(|text| text.starts_with(part.as_str())),
            Comparison::EndsWith(part) => text().is_some_and(|text| text.ends_with(part.as_str())),
            Comparison::Matches(regex) => text().is_some_and(|text| regex.is_match(&text)),
        })
    }

    fn equal(&self, value: Value<'_>, ty: &Type, constant: &Constant) -> Result<bool, Refusal> {
        match (value, constant) {
            (Value::Null | Value::Absent, constant) => Ok(*constant == Constant::Null),
            (_, Constant::Null) => Ok(false),
            (Value::Bool(value), Constant::Bool(constant)) => Ok(value == *constant),
            (Value::Text(text), Constant::Text(constant)) if !is_measured(ty) => Ok(text == constant),
            _ => self.order(value, ty, constant).map(Ordering::is_eq),
        }
    }

    /// How value and constant compare. NaN stands above all numbers, as PostgreSQL has it.
    fn order(&self, value: Value<'_>, ty: &Type, constant: &Constant) -> Result<Ordering, Refusal> {
        let order = match (value, constant) {
            (Value::Int(value), Constant::Int(constant)) => Some(value.cmp(constant)),
            (Value::Text(text), Constant::Text(constant)) => match ty {
                Type::Decimal => decimal::compare(text, constant),
                Type::Date | Type::Timestamp | Type::TimestampTz => temporal::compare(text, constant),
                Type::TimeTz | Type::Interval | Type::Json | Type::Array(_) => None,
                _ => Some(text.cmp(constant.as_str())),
            },
            (Value::Bool(_) | Value::Bytes(_), _) | (_, Constant::Bool(_) | Constant::Null) => None,
            (Value::Text(_), _) if *ty != Type::Decimal => None,
            (value, constant) => match (text::of(value), number(constant)) {
                (Some(value), Some(constant)) => decimal::compare(&value, &constant),
                _ => None,
            },
        };
        order.ok_or_else(|| {
            Refusal::new(
                "FILTER_TYPE",
                format!("the field `{}` of type {ty} cannot be compared with the value", self.field),
            )
            .with_hint("write the value as the field's type has it, or `cast` the field first")
        })
    }
}

/// Whether equal values of a type can be written in several ways.
const fn is_measured(ty: &Type) -> bool {
    matches!(ty, Type::Decimal | Type::Date | Type::Timestamp | Type::TimestampTz)
}

/// A constant as a decimal number.
fn number(constant: &Constant) -> Option<String> {
    match constant {
        Constant::Int(value) => Some(value.to_string()),
        Constant::Float(value) => Some(value.to_string()),
        Constant::Text(text) => Some(text.clone()),
        Constant::Null | Constant::Bool(_) => None,
    }
}

impl From<bool> for Outcome {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn predicate(op: &str, value: Json) -> Predicate {
        let Json::Object(values) = json!({"field": "f", "op": op, "value": value}) else { panic!() };
        Predicate::parse(&RawConfig::new(values)).unwrap().unwrap()
    }

    fn holds(op: &str, constant: Json, value: Value<'_>, ty: Type) -> Result<bool, &'static str> {
        predicate(op, constant).holds(value, &ty).map_err(|refusal| refusal.code)
    }

    #[test]
    fn values_are_equal_by_meaning() {
        for (constant, value, ty, expected) in [
            (json!("error"), Value::Text("error"), Type::String, true),
            (json!("error"), Value::Text("Error"), Type::String, false),
            (json!(5), Value::Int(5), Type::Int16, true),
            (json!("5"), Value::Int(5), Type::Int16, true),
            (json!(5.0), Value::Int(5), Type::Int16, true),
            (json!(1.5), Value::Text("1.50"), Type::Decimal, true),
            (json!("1.5"), Value::Text("1.500"), Type::Decimal, true),
            (json!(0.1), Value::Float64(0.1), Type::Float64, true),
            (json!(0.1), Value::Float32(0.1), Type::Float32, true),
            (json!(true), Value::Bool(true), Type::Bool, true),
            (json!(null), Value::Null, Type::Int16, true),
            (json!(null), Value::Int(0), Type::Int16, false),
            (json!(0), Value::Null, Type::Int16, false),
            (json!("2024-01-01T00:00:00Z"), Value::Text("2024-01-01T01:00:00+01"), Type::TimestampTz, true),
            (json!("{}"), Value::Text("{}"), Type::Json, true),
        ] {
            assert_eq!(
                holds("eq", constant.clone(), value, ty.clone()),
                Ok(expected),
                "{constant} {value:?}"
            );
            assert_eq!(holds("ne", constant, value, ty), Ok(!expected));
        }
    }

    #[test]
    fn order_is_the_types_own() {
        for (op, constant, value, ty, expected) in [
            ("lt", json!(10), Value::Int(9), Type::Int64, true),
            ("lt", json!("10"), Value::Text("9"), Type::String, false),
            ("lt", json!("10"), Value::Text("9"), Type::Decimal, true),
            ("ge", json!(9_007_199_254_740_993i64), Value::Int(9_007_199_254_740_992), Type::Int64, false),
            ("gt", json!("2024-01-31"), Value::Text("10000-01-01"), Type::Date, true),
            ("le", json!("2024-01-31"), Value::Text("infinity"), Type::Date, false),
            ("gt", json!(0), Value::Null, Type::Int64, false),
            ("le", json!(0), Value::Null, Type::Int64, false),
        ] {
            assert_eq!(holds(op, constant.clone(), value, ty), Ok(expected), "{op} {constant} {value:?}");
        }
    }

    #[test]
    fn texts_are_searched() {
        for (op, constant, text, expected) in [
            ("contains", "rro", "error", true),
            ("starts_with", "rro", "error", false),
            ("starts_with", "err", "error", true),
            ("ends_with", "or", "error", true),
            ("matches", "^e.+r$", "error", true),
            ("matches", "^e.r$", "error", false),
        ] {
            assert_eq!(holds(op, json!(constant), Value::Text(text), Type::String), Ok(expected));
            assert_eq!(holds(op, json!(constant), Value::Null, Type::String), Ok(false));
            assert_eq!(holds(op, json!(constant), Value::Int(5), Type::Int64), Ok(false));
        }
        assert_eq!(holds("in", json!(["a", "b", null]), Value::Text("b"), Type::String), Ok(true));
        assert_eq!(holds("in", json!(["a", "b", null]), Value::Null, Type::String), Ok(true));
        assert_eq!(holds("in", json!([]), Value::Text("b"), Type::String), Ok(false));
    }

    #[test]
    fn what_cannot_be_compared_is_no_answer() {
        for (op, constant, value, ty) in [
            ("eq", json!("abc"), Value::Int(5), Type::Int64),
            ("lt", json!(5), Value::Text("5"), Type::String),
            ("lt", json!("soon"), Value::Text("2024-01-01"), Type::Date),
            ("lt", json!(5), Value::Bool(true), Type::Bool),
            ("lt", json!("x"), Value::Text("{}"), Type::Json),
            ("eq", json!("x"), Value::Bytes(b"x"), Type::Bytes),
            ("eq", json!(true), Value::Int(1), Type::Int16),
        ] {
            assert_eq!(
                holds(op, constant.clone(), value, ty),
                Err("FILTER_TYPE"),
                "{op} {constant} {value:?}"
            );
        }
    }

    #[test]
    fn wrong_options_are_told() {
        for (options, path) in [
            (json!({"value": 1}), "field"),
            (json!({"field": "f"}), "value"),
            (json!({"field": "f", "op": "lt", "value": null}), "value"),
            (json!({"field": "f", "op": "in", "value": 1}), "value"),
            (json!({"field": "f", "op": "in", "value": [[1]]}), "value"),
            (json!({"field": "f", "op": "exists", "value": 1}), "value"),
            (json!({"field": "f", "op": "matches", "value": "("}), "value"),
            (json!({"field": "f", "op": "contains", "value": 1}), "value"),
            (json!({"field": "f", "op": "like", "value": 1}), "op"),
        ] {
            let Json::Object(values) = options else { panic!() };
            assert_eq!(Predicate::parse(&RawConfig::new(values)).unwrap_err().path, path);
        }
    }
}
