//! Values as SQLite stores them.

use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;
use towpath_api::{ConnectorError, Type, Value};

/// Appends a value: what SQLite has no storage class for is text. NaN is text, too, since SQLite would make NULL of it;
/// what no record told is NULL.
pub(crate) fn push(arguments: &mut SqliteArguments, value: Value<'_>) -> Result<(), ConnectorError> {
    let added = match value {
        Value::Null | Value::Absent => arguments.add(None::<i64>),
        Value::Bool(value) => arguments.add(i64::from(value)),
        Value::Int(value) => arguments.add(value),
        Value::Float32(value) if value.is_nan() => arguments.add("NaN"),
        Value::Float64(value) if value.is_nan() => arguments.add("NaN"),
        // By way of its shortest digits: 0.1 stays 0.1.
        Value::Float32(value) => arguments.add(value.to_string().parse().unwrap_or(f64::from(value))),
        Value::Float64(value) => arguments.add(value),
        Value::Bytes(bytes) => arguments.add(bytes),
        Value::Text(text) => arguments.add(text),
    };
    added.map_err(|error| ConnectorError::bug("SQLITE_CLIENT", "a value cannot be passed").with_cause(error))
}

/// The column type for a field: as declared, where the source is SQLite, otherwise the storage class that keeps every
/// value as it is. Decimals are text: a numeric column would make floats of them.
pub(crate) fn column_type(ty: &Type, source_type: Option<&str>) -> String {
    if let Some(declared) = source_type.and_then(|source| source.strip_prefix("sqlite:"))
        && is_harmless(declared)
    {
        return declared.to_owned();
    }
    match ty {
        Type::Bool | Type::Int16 | Type::Int32 | Type::Int64 => "INTEGER",
        Type::Float32 | Type::Float64 => "REAL",
        Type::Bytes => "BLOB",
        _ => "TEXT",
    }
    .to_owned()
}

/// Whether a declared type, which comes out of a topic, is only words and numbers in parentheses.
fn is_harmless(declared: &str) -> bool {
    let (words, numbers) = declared.split_once('(').unwrap_or((declared, ")"));
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_');
    let number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b' ' | b',');
    // Words that would end the type and begin a constraint.
    const CONSTRAINTS: [&str; 10] = [
        "CONSTRAINT",
        "PRIMARY",
        "NOT",
        "NULL",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "COLLATE",
        "REFERENCES",
        "GENERATED",
    ];
    let constrains = |word: &str| CONSTRAINTS.iter().any(|known| word.eq_ignore_ascii_case(known));
    let numbers = numbers.strip_suffix(')');
    !words.is_empty()
        && words.bytes().all(word)
        && !words.split(' ').any(|word| constrains(word) || word.eq_ignore_ascii_case("AS"))
        && words.starts_with(|first: char| first.is_ascii_alphabetic())
        && numbers.is_some_and(|numbers| numbers.bytes().all(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_kept_and_nothing_else_gets_through() {
        let text = |declared: &str| column_type(&Type::String, Some(&format!("sqlite:{declared}")));
        for kept in ["INTEGER", "VARCHAR(20)", "DECIMAL(10, 2)", "UNSIGNED BIG INT", "DATETIME"] {
            assert_eq!(text(kept), kept);
        }
        for refused in
            ["", "INT); DROP TABLE t; --", "INT DEFAULT 1", "INT(1", "INT) x", "INT NOT NULL", "\"x\"", "(1)"]
        {
            assert_eq!(text(refused), "TEXT", "{refused}");
        }
        assert_eq!(column_type(&Type::Decimal, Some("postgres:numeric(10,2)")), "TEXT");
        assert_eq!(column_type(&Type::Bool, None), "INTEGER");
    }
}
