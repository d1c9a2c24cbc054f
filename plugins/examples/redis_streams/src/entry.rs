//! Entries out of replies, and records out of entries.

use resp::Reply;
use towpath_sdk::{Field, Records, Rejection, Scalar, Schema, Value};

use crate::place::Id;

/// An entry that is read and not told yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index of its stream.
    pub(crate) stream: usize,
    pub(crate) id: Id,
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry of a reply: its id, and names and values in turn.
    pub(crate) fn read(stream: usize, reply: &Reply) -> Option<Self> {
        let [id, fields] = reply.array()? else { return None };
        let id = Id::parse(&id.as_string()?)?;
        let words =
            fields.array()?.iter().map(|word| Some(word.text()?.to_vec())).collect::<Option<Vec<_>>>()?;
        let fields = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        Some(Self { stream, id, fields })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len() + 16).sum()
    }
}

/// The records of a stream: the entry's id, and its fields as a JSON object; the key is one of the fields.
pub(crate) fn schema(stream: &str, key: Option<&str>) -> Schema {
    let text = |name: &str, scalar| Field { nullable: false, ..Field::nullable(name, scalar) };
    Schema {
        variables: vec![("stream".to_owned(), stream.to_owned())],
        key: key.map(|name| vec![Field::nullable(name, Scalar::Text)]),
        ..Schema::plain(stream, vec![text("id", Scalar::Text), text("fields", Scalar::Json)])
    }
}

fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The fields as a JSON object. A name that comes twice has the value that comes last.
fn json(fields: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in fields.iter().enumerate() {
        if fields[index + 1..].iter().any(|(later, _)| later == name) {
            continue;
        }
        if out.len() > 1 {
            out.push(',');
        }
        json_string(&mut out, name);
        out.push(':');
        json_string(&mut out, value);
    }
    out.push('}');
    out
}

/// A number for a stream, the same for ever (FNV-1a).
pub(crate) fn lane(stream: &str) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    stream.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Writes an entry as a record; one whose fields are no text goes to the dead-letter topic.
pub(crate) fn write(out: &mut Records<'_>, schema: u32, stream: &str, key: Option<&str>, entry: &Entry) {
    let texts: Result<Vec<_>, _> = entry
        .fields
        .iter()
        .map(|(name, value)| Ok((std::str::from_utf8(name)?, std::str::from_utf8(value)?)))
        .collect();
    let fields = match texts {
        Ok(fields) => fields,
        Err(error) => {
            let error: std::str::Utf8Error = error;
            let bytes =
                entry.fields.iter().flat_map(|(name, value)| [&name[..], b"=", &value[..], b"\n"]).flatten();
            let bytes: Vec<u8> = bytes.copied().collect();
            let why =
                Rejection::new("REDIS_ENTRY", format!("a field of the entry is no UTF-8 text: {error}"));
            return out.reject(format!("{stream} {}", entry.id), &bytes, why);
        }
    };
    let (id, json) = (entry.id.to_string(), json(&fields));
    let key = key.map(|key| fields.iter().rfind(|(name, _)| *name == key).map(|(_, value)| *value));
    let mut record = out.record(schema);
    record
        .timestamp_ms(i64::try_from(entry.id.ms).unwrap_or(i64::MAX))
        .position(lane(stream), &entry.id.bytes());
    if let Some(value) = key {
        record.key(|row| row.value(value.map_or(Value::Null, Value::Text)));
    }
    record.after(|row| {
        row.text(&id);
        row.text(&json);
    });
    record.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_an_object() {
        assert_eq!(json(&[]), "{}");
        let fields = [("a", "1"), ("q\"", "\\\n"), ("a", "2"), ("ü", "")];
        assert_eq!(json(&fields), r#"{"q\"":"\\\u000a","a":"2","ü":""}"#);
    }

    #[test]
    fn entries_are_read() {
        let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
        let entry = Reply::Array(vec![text("5-1"), Reply::Array(vec![text("a"), text("1")])]);
        let read = Entry::read(0, &entry).unwrap();
        assert_eq!((read.id, read.fields.len()), (Id { ms: 5, sequence: 1 }, 1));
        assert_eq!(Entry::read(0, &Reply::Array(vec![text("5-1"), Reply::Nil])), None);
    }
}
