//! Records to bytes.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::{EventSchema, FormatKind, FormatSpec, JsonSchemas, Op, RecordView, Row, SchemaId, Value};

use crate::error::FormatError;
use crate::json::encode::{EventText, Style};
use crate::json::text::{write_f32, write_f64, write_int};

/// Schemas whose text is kept before the cache starts anew.
const SCHEMAS_MAX: usize = 4096;

/// A record as bytes, in the buffer that was handed to [`Encoder::encode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null: a deletion, or a tombstone.
    pub value: Option<&'a [u8]>,
    /// What the header [`crate::header::SCHEMA`] has to say: the schema must be in the schemas topic before.
    pub schema: Option<SchemaId>,
    /// What the header [`crate::header::OP`] has to say.
    pub op: Option<&'static str>,
}

/// Writes records in one format; keeps what is the same for all records of a schema.
#[derive(Debug)]
pub struct Encoder {
    format: FormatSpec,
    texts: HashMap<SchemaId, Arc<EventText>>,
    last: Option<(SchemaId, Arc<EventText>)>,
}

impl Encoder {
    /// An encoder for `format`.
    #[must_use]
    pub fn new(format: FormatSpec) -> Self {
        Self { format, texts: HashMap::new(), last: None }
    }

    /// Writes key and value of `record` into `buffer`, whose old content goes.
    ///
    /// # Errors
    /// [`FormatError::RawNeedsOneValue`]; JSON carries every record.
    pub fn encode<'b>(
        &mut self,
        record: RecordView<'_>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Encoded<'b>, FormatError> {
        let schema = record.schema();
        let text = self.text(schema);
        buffer.clear();
        let has_key = match (record.key(), self.format.key) {
            (None, _) => false,
            (Some(key), FormatKind::Raw) => write_raw(buffer, &key, "key")?,
            (Some(key), FormatKind::Json(schemas)) => {
                text.write_key(buffer, &key, Style::from(schemas));
                true
            }
        };
        let split = buffer.len();
        let envelope = schema.source().is_some() && !record.is_flat();
        let has_value = match (self.format.value, record.op()) {
            (_, Some(Op::Tombstone)) => false,
            (FormatKind::Raw, Some(_)) if envelope => return Err(FormatError::RawNeedsOneValue("value")),
            (FormatKind::Raw, _) => match record.after() {
                Some(row) => write_raw(buffer, &row, "value")?,
                None => false,
            },
            (FormatKind::Json(schemas), Some(op)) if envelope => {
                text.write_envelope(buffer, record, op, Style::from(schemas));
                true
            }
            (FormatKind::Json(schemas), _) => match record.after() {
                Some(row) => {
                    text.write_row(buffer, &row, Style::from(schemas));
                    true
                }
                None => false,
            },
        };
        let op = match record.op() {
            Some(op) if !envelope => op.letter(),
            // A plain record whose schema says "change event" must not be taken for one.
            None if schema.source().is_some() => Some(""),
            _ => None,
        };
        let by_id = |format| format == FormatKind::Json(JsonSchemas::Id);
        let by_id = by_id(self.format.key) || by_id(self.format.value);
        let (key, value) = buffer.split_at(split);
        Ok(Encoded {
            key: has_key.then_some(key),
            value: has_value.then_some(value),
            schema: by_id.then(|| schema.id()),
            op,
        })
    }

    fn text(&mut self, schema: &Arc<EventSchema>) -> Arc<EventText> {
        let id = schema.id();
        if let Some((last, text)) = &self.last
            && *last == id
        {
            return Arc::clone(text);
        }
        if self.texts.len() >= SCHEMAS_MAX {
            self.texts.clear();
        }
        let inline = |format| format == FormatKind::Json(JsonSchemas::Inline);
        let inline = inline(self.format.key) || inline(self.format.value);
        let text = self.texts.entry(id).or_insert_with(|| Arc::new(EventText::of(schema, inline)));
        self.last = Some((id, Arc::clone(text)));
        Arc::clone(text)
    }
}

/// Writes the only value of a row verbatim; false if it is null.
fn write_raw(out: &mut Vec<u8>, row: &Row<'_>, what: &'static str) -> Result<bool, FormatError> {
    if row.len() != 1 {
        return Err(FormatError::RawNeedsOneValue(what));
    }
    match row.get(0) {
        Value::Null | Value::Absent => return Ok(false),
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Int(value) => write_int(out, value),
        Value::Float32(value) if value.is_finite() => write_f32(out, value),
        Value::Float64(value) if value.is_finite() => write_f64(out, value),
        Value::Float32(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Float64(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
    }
    Ok(true)
}
