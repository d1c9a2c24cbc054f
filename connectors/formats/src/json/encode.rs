//! Records to JSON, straight from the batch.

use std::sync::Arc;

use towpath_api::{EventSchema, JsonSchemas, Op, RecordView, Row, RowSchema, Type, Value};

use super::text::{write_base64, write_f32, write_f64, write_int, write_string};
use super::{JSON_TEXT_MEMBER, connect};

/// How the values of types that JSON does not have are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// [`JsonSchemas::Id`]: everything comes back exactly.
    Exact,
    /// [`JsonSchemas::Inline`]: as the inline schema says, which knows JSON only as text.
    Connect,
    /// [`JsonSchemas::None`]: plain JSON.
    Plain,
}

impl From<JsonSchemas> for Style {
    fn from(schemas: JsonSchemas) -> Self {
        match schemas {
            JsonSchemas::Id => Self::Exact,
            JsonSchemas::Inline => Self::Connect,
            JsonSchemas::None => Self::Plain,
        }
    }
}

/// What is written the same for every row of a schema: `,"name":` before each value.
#[derive(Debug)]
struct RowText {
    members: Vec<Box<[u8]>>,
    bare: bool,
}

impl RowText {
    fn of(schema: &RowSchema) -> Self {
        let member = |name: &str| {
            let mut text = vec![b','];
            write_string(&mut text, name);
            text.push(b':');
            text.into_boxed_slice()
        };
        Self {
            members: schema.fields.iter().map(|field| member(&field.name)).collect(),
            bare: schema.is_bare(),
        }
    }

    fn write(&self, out: &mut Vec<u8>, row: &Row<'_>, style: Style) {
        if self.bare {
            let ty = row.schema().fields.first().map_or(&Type::String, |field| &field.ty);
            write_value(out, ty, row.get(0), style);
            return;
        }
        let from = out.len();
        self.write_members(out, row, style);
        // The first member's comma becomes the brace.
        match out.get_mut(from) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }

    fn write_members(&self, out: &mut Vec<u8>, row: &Row<'_>, style: Style) {
        for (index, (member, field)) in self.members.iter().zip(&row.schema().fields).enumerate() {
            let value = row.get(index);
            if value != Value::Absent {
                out.extend_from_slice(member);
                write_value(out, &field.ty, value, style);
            }
        }
    }
}

fn write_value(out: &mut Vec<u8>, ty: &Type, value: Value<'_>, style: Style) {
    match value {
        Value::Null | Value::Absent => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(value) => write_int(out, value),
        Value::Float32(value) => write_f32(out, value),
        Value::Float64(value) => write_f64(out, value),
        Value::Bytes(bytes) => write_base64(out, bytes),
        Value::Text(text) if matches!(ty, Type::Json | Type::Array(_)) => write_json(out, text, style),
        Value::Text(text) => write_string(out, text),
    }
}

fn write_json(out: &mut Vec<u8>, text: &str, style: Style) {
    let trimmed = text.trim_ascii();
    match style {
        Style::Connect => write_string(out, text),
        Style::Plain => out.extend_from_slice(if trimmed.is_empty() { b"null" } else { text.as_bytes() }),
        Style::Exact
            if trimmed.len() != text.len() || trimmed == "null" || text.starts_with(JSON_TEXT_MEMBER) =>
        {
            out.extend_from_slice(JSON_TEXT_MEMBER.as_bytes());
            write_string(out, text);
            out.push(b'}');
        }
        Style::Exact => out.extend_from_slice(text.as_bytes()),
    }
}

/// What is written the same for every record of a schema.
#[derive(Debug)]
pub(crate) struct EventText {
    key: Option<RowText>,
    value: RowText,
    /// `{` and the constants, and the members of each record; without a source block nothing.
    source: Option<(Vec<u8>, RowText)>,
    /// `{"schema":…,"payload":` for key, envelope and row.
    inline: Option<[Vec<u8>; 3]>,
}

impl EventText {
    pub(crate) fn of(schema: &Arc<EventSchema>, inline: bool) -> Self {
        let source = schema.source().map(|block| {
            let mut constants = Vec::new();
            for (name, value) in &block.constants {
                constants.push(b',');
                write_string(&mut constants, name);
                constants.push(b':');
                write_string(&mut constants, value);
            }
            (constants, RowText::of(&block.fields))
        });
        Self {
            key: schema.key().map(|key| RowText::of(key)),
            value: RowText::of(schema.value()),
            source,
            inline: inline.then(|| connect::documents(schema)),
        }
    }

    /// Writes `{"schema":…,"payload":`, if the schema is inline.
    fn open(&self, out: &mut Vec<u8>, which: usize, style: Style) {
        if let (Style::Connect, Some(documents)) = (style, &self.inline) {
            out.extend_from_slice(&documents[which]);
        }
    }

    fn close(out: &mut Vec<u8>, style: Style) {
        if style == Style::Connect {
            out.push(b'}');
        }
    }

    /// Writes a key.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>, key: &Row<'_>, style: Style) {
        if let Some(text) = &self.key {
            self.open(out, 0, style);
            text.write(out, key, style);
            Self::close(out, style);
        }
    }

    /// Writes a row alone.
    pub(crate) fn write_row(&self, out: &mut Vec<u8>, row: &Row<'_>, style: Style) {
        self.open(out, 2, style);
        self.value.write(out, row, style);
        Self::close(out, style);
    }

    /// Writes the envelope of a change event.
    pub(crate) fn write_envelope(&self, out: &mut Vec<u8>, record: RecordView<'_>, op: Op, style: Style) {
        self.open(out, 1, style);
        out.extend_from_slice(b"{\"before\":");
        self.write_image(out, record.before(), style);
        out.extend_from_slice(b",\"after\":");
        self.write_image(out, record.after(), style);
        if let Some((constants, text)) = &self.source {
            out.extend_from_slice(b",\"source\":");
            let from = out.len();
            out.extend_from_slice(constants);
            if let Some(row) = record.source() {
                text.write_members(out, &row, style);
            }
            match out.get_mut(from) {
                Some(comma) => *comma = b'{',
                None => out.push(b'{'),
            }
            out.push(b'}');
        }
        out.extend_from_slice(b",\"op\":\"");
        out.extend_from_slice(op.letter().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\",\"ts_ms\":");
        write_int(out, record.timestamp_ms());
        out.push(b'}');
        Self::close(out, style);
    }

    fn write_image(&self, out: &mut Vec<u8>, image: Option<Row<'_>>, style: Style) {
        match image {
            Some(row) => self.value.write(out, &row, style),
            None => out.extend_from_slice(b"null"),
        }
    }
}
