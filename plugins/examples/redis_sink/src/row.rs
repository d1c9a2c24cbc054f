//! Rows as the words of commands.

use towpath_sdk::{Op, Record, Rejection, Row, Value};

/// What a record does to a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Sets these fields, and removes those.
    Put { set: Vec<(String, Vec<u8>)>, removed: Vec<String> },
    /// Removes the key.
    Delete,
}

/// A value as text; `None` is null, or was not told.
fn bytes(value: Value<'_>) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null | Value::Absent => return None,
        Value::Bool(value) => value.to_string().into_bytes(),
        Value::Int(value) => value.to_string().into_bytes(),
        Value::Float32(value) => value.to_string().into_bytes(),
        Value::Float64(value) => value.to_string().into_bytes(),
        Value::Bytes(value) => value.to_vec(),
        Value::Text(value) => value.as_bytes().to_vec(),
    })
}

/// The key: the values of the record's key, joined by colons, behind a prefix.
pub(crate) fn key(prefix: &str, record: &Record<'_>) -> Result<Vec<u8>, Rejection> {
    if record.op() == Some(Op::Truncate) {
        let why = Rejection::new(
            "REDIS_TRUNCATE",
            "the table was truncated, which the sink cannot do to its hashes",
        );
        return Err(why.with_hint("remove the keys by hand, and let the source take its snapshot again"));
    }
    let missing = || {
        let why = Rejection::new("REDIS_KEY", "the record has no key, or one with nothing in it");
        why.with_hint("a transform can make a key out of fields")
    };
    let row = record.key().filter(|row| !row.is_empty()).ok_or_else(missing)?;
    let mut key = prefix.as_bytes().to_vec();
    for (index, value) in row.values().enumerate() {
        if index > 0 {
            key.push(b':');
        }
        key.extend_from_slice(&bytes(value).ok_or_else(missing)?);
    }
    Ok(key)
}

fn put(row: Row<'_>) -> Result<Change, Rejection> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (field, value) in row.fields().iter().zip(row.values()) {
        match bytes(value) {
            Some(bytes) => set.push((field.name.clone(), bytes)),
            None if value == Value::Null => removed.push(field.name.clone()),
            // What the source has not told stays as it is.
            None => {}
        }
    }
    if set.is_empty() {
        return Err(Rejection::new("REDIS_EMPTY", "the record has no value in any of its fields"));
    }
    Ok(Change::Put { set, removed })
}

/// What a record does to its key.
pub(crate) fn change(record: &Record<'_>) -> Result<Change, Rejection> {
    match (record.op(), record.after()) {
        (Some(Op::Delete | Op::Tombstone), _) | (_, None) => Ok(Change::Delete),
        (_, Some(row)) => put(row),
    }
}
