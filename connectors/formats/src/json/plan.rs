//! How the JSON of each field becomes a field of a row.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use towpath_api::{EventSchema, Op, RowSchema, RowWriter, Type};

use super::scan::{Scanner, string_text};
use super::{JSON_TEXT_MEMBER, UNAVAILABLE, temporal};
use crate::error::FormatError;

/// How one field's JSON is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Float32,
    Float64,
    /// A string, or a number whose digits are kept.
    Decimal,
    Text,
    Bytes,
    /// Any JSON, verbatim, or its text in a `{"$json":"…"}`.
    Json,
    /// Any JSON, verbatim.
    RawJson,
    /// JSON in a string (Debezium's `io.debezium.data.Json`).
    JsonText,
    /// Days since 1970.
    Date,
    /// Units of this many nanoseconds since 1970.
    Timestamp(i64),
    /// Units of this many nanoseconds since midnight.
    Time(i64),
    /// Base64 of a two's complement number, to be scaled.
    ConnectDecimal(i32),
    /// Debezium's struct of scale and value.
    VariableDecimal,
}

impl Codec {
    /// How Towpath writes `ty` where the schema is not inline.
    pub(crate) const fn of(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::Int16 => Self::Int { min: i16::MIN as i64, max: i16::MAX as i64 },
            Type::Int32 => Self::Int { min: i32::MIN as i64, max: i32::MAX as i64 },
            Type::Int64 => Self::Int { min: i64::MIN, max: i64::MAX },
            Type::Float32 => Self::Float32,
            Type::Float64 => Self::Float64,
            Type::Decimal => Self::Decimal,
            Type::Bytes => Self::Bytes,
            Type::Json | Type::Array(_) => Self::Json,
            _ => Self::Text,
        }
    }

    /// Writes the value that `raw` is.
    fn write(self, row: &mut RowWriter<'_>, raw: &str) -> Result<(), &'static str> {
        match self {
            Self::Bool => row.bool(match raw {
                "true" => true,
                "false" => false,
                _ => return Err("true or false was expected"),
            }),
            Self::Int { min, max } => {
                let value: i64 = raw.parse().map_err(|_| "a whole number was expected")?;
                if value < min || value > max {
                    return Err("the number is out of its type's range");
                }
                row.int(value);
            }
            Self::Float64 => row.float64(number(raw)?.parse().map_err(|_| "a number was expected")?),
            Self::Float32 => row.float32(number(raw)?.parse().map_err(|_| "a number was expected")?),
            Self::Decimal if !raw.starts_with('"') => row.text(decimal_token(raw)?),
            Self::Decimal | Self::Text => row.text(&text(raw)?),
            Self::Bytes => row.bytes(&bytes(raw)?),
            Self::Json if raw.starts_with(JSON_TEXT_MEMBER) => row.text(&wrapped(raw)?),
            Self::Json | Self::RawJson => row.text(raw),
            Self::JsonText => {
                let value = text(raw)?;
                let mut scanner = Scanner::new(&value);
                if scanner.value().and_then(|_| scanner.end()).is_err() {
                    return Err("the string holds no JSON");
                }
                row.text(&value);
            }
            Self::Date => row.text(&temporal::date(count(raw)?)),
            Self::Timestamp(nanos) => row.text(&temporal::timestamp(count(raw)?, nanos)),
            Self::Time(nanos) => row.text(&temporal::time(count(raw)?, nanos).ok_or("no time of a day")?),
            Self::ConnectDecimal(scale) => {
                row.text(&temporal::decimal(&bytes(raw)?, scale).ok_or("no decimal")?);
            }
            Self::VariableDecimal => row.text(&variable_decimal(raw)?),
        }
        Ok(())
    }

    /// Writes the value that these bytes are in the format `raw`.
    pub(crate) fn write_raw(self, row: &mut RowWriter<'_>, value: &[u8]) -> Result<(), &'static str> {
        if self == Self::Bytes {
            row.bytes(value);
            return Ok(());
        }
        let value = std::str::from_utf8(value).map_err(|_| "not valid UTF-8")?;
        match self {
            Self::Text | Self::Decimal | Self::Json => row.text(value),
            Self::Float32 => row.float32(value.parse().map_err(|_| "a number was expected")?),
            Self::Float64 => row.float64(value.parse().map_err(|_| "a number was expected")?),
            _ => return self.write(row, value),
        }
        Ok(())
    }
}

fn text(raw: &str) -> Result<std::borrow::Cow<'_, str>, &'static str> {
    match string_text(raw) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err("a string was expected"),
        Err(_) => Err("half a surrogate pair stands in a string"),
    }
}

fn number(raw: &str) -> Result<&str, &'static str> {
    match raw.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Ok(raw),
        _ => match raw {
            "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"" => Ok(&raw[1..raw.len() - 1]),
            _ => Err("a number was expected"),
        },
    }
}

fn decimal_token(raw: &str) -> Result<&str, &'static str> {
    match raw.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Ok(raw),
        _ => Err("a decimal number was expected"),
    }
}

fn count(raw: &str) -> Result<i64, &'static str> {
    raw.parse().map_err(|_| "a whole number was expected")
}

fn bytes(raw: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD.decode(text(raw)?.as_bytes()).map_err(|_| "base64 was expected")
}

fn wrapped(raw: &str) -> Result<std::borrow::Cow<'_, str>, &'static str> {
    let inner = raw.strip_prefix(JSON_TEXT_MEMBER).and_then(|rest| rest.strip_suffix('}'));
    text(inner.unwrap_or_default().trim())
}

fn variable_decimal(raw: &str) -> Result<String, &'static str> {
    let (mut scale, mut value) = (None, None);
    let read = Scanner::new(raw).object(|name, raw| {
        match name {
            "scale" => scale = raw.parse().ok(),
            "value" => value = bytes(raw).ok(),
            _ => {}
        }
        Ok(())
    });
    match (read, scale, value) {
        (Ok(()), Some(scale), Some(value)) => temporal::decimal(&value, scale).ok_or("no decimal"),
        _ => Err("an object with scale and value was expected"),
    }
}

/// Where the values of a row stand in its text.
pub(crate) type Stretches = Vec<(u32, u32)>;

const NOWHERE: (u32, u32) = (u32::MAX, 0);

/// How the JSON of a row is read.
#[derive(Debug, Clone)]
pub(crate) struct RowPlan {
    schema: Arc<RowSchema>,
    codecs: Vec<Codec>,
    bare: bool,
    /// Members that the schema does not have are an error; otherwise they are skipped.
    strict: bool,
    /// [`UNAVAILABLE`] stands for an absent field.
    debezium: bool,
}

impl RowPlan {
    /// For rows as Towpath writes them.
    pub(crate) fn of(schema: &Arc<RowSchema>) -> Self {
        let codecs = schema.fields.iter().map(|field| Codec::of(&field.ty)).collect();
        Self { bare: schema.is_bare(), schema: Arc::clone(schema), codecs, strict: true, debezium: false }
    }

    /// For rows whose fields are read by `codecs`, one for each field.
    pub(crate) fn with_codecs(schema: &Arc<RowSchema>, codecs: Vec<Codec>) -> Self {
        Self { codecs, strict: false, debezium: true, ..Self::of(schema) }
    }

    /// The same, skipping members that the schema does not have.
    pub(crate) fn lenient(self) -> Self {
        Self { strict: false, ..self }
    }

    pub(crate) const fn schema(&self) -> &Arc<RowSchema> {
        &self.schema
    }

    pub(crate) fn codec(&self, index: usize) -> Option<Codec> {
        self.codecs.get(index).copied()
    }

    /// Writes the row that `raw` is.
    pub(crate) fn write(
        &self,
        row: &mut RowWriter<'_>,
        raw: &str,
        stretches: &mut Stretches,
    ) -> Result<(), FormatError> {
        let mut scanner = Scanner::new(raw);
        self.collect(&mut scanner, stretches)?;
        scanner.end()?;
        self.write_collected(row, raw, stretches)
    }

    /// Reads one row, noting where the value of each field stands.
    pub(crate) fn collect(
        &self,
        scanner: &mut Scanner<'_>,
        stretches: &mut Stretches,
    ) -> Result<(), FormatError> {
        stretches.clear();
        if self.bare {
            stretches.push(scanner.stretch()?);
            return Ok(());
        }
        stretches.resize(self.codecs.len(), NOWHERE);
        let mut expected = 0;
        scanner.members(|name, scanner| {
            // Members come in the schema's order unless somebody else wrote them.
            let index = match self.schema.fields.get(expected) {
                Some(field) if field.name == name => Some(expected),
                _ => self.schema.index_of(name),
            };
            match index {
                Some(index) => {
                    stretches[index] = scanner.stretch()?;
                    expected = index + 1;
                }
                None if self.strict => return Err(FormatError::UnknownField(name.to_owned())),
                None => {
                    scanner.stretch()?;
                }
            }
            Ok(())
        })
    }

    /// Writes the row whose values stand at `stretches` of `text`.
    pub(crate) fn write_collected(
        &self,
        row: &mut RowWriter<'_>,
        text: &str,
        stretches: &Stretches,
    ) -> Result<(), FormatError> {
        for (index, (start, end)) in stretches.iter().enumerate() {
            match text.get(*start as usize..*end as usize) {
                Some(value) => self.write_field(row, index, value)?,
                None => row.absent(),
            }
        }
        Ok(())
    }

    fn write_field(&self, row: &mut RowWriter<'_>, index: usize, raw: &str) -> Result<(), FormatError> {
        if raw == "null" {
            row.null();
            return Ok(());
        }
        if self.debezium && is_unavailable(raw) {
            row.absent();
            return Ok(());
        }
        self.codecs[index].write(row, raw).map_err(|what| {
            let name = &self.schema.fields[index].name;
            FormatError::mismatch(if name.is_empty() { "the value" } else { name }, what)
        })
    }
}

fn is_unavailable(raw: &str) -> bool {
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    // The same in base64, for columns of bytes.
    inner == UNAVAILABLE || inner == "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="
}

/// How the records of one schema are read.
#[derive(Debug)]
pub(crate) struct EventPlan {
    pub(crate) schema: Arc<EventSchema>,
    pub(crate) key: Option<RowPlan>,
    pub(crate) value: RowPlan,
    pub(crate) source: Option<RowPlan>,
    /// Whether values are envelopes (unless a header says otherwise).
    pub(crate) envelope: bool,
}

impl EventPlan {
    /// For records as Towpath writes them.
    pub(crate) fn of(schema: &Arc<EventSchema>) -> Self {
        Self {
            key: schema.key().map(RowPlan::of),
            value: RowPlan::of(schema.value()),
            source: schema.source().map(|block| RowPlan::of(&Arc::new(block.fields.clone())).lenient()),
            envelope: schema.source().is_some(),
            schema: Arc::clone(schema),
        }
    }
}

/// Memory for reading envelopes, kept from record to record.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) row: Stretches,
    images: [Stretches; 3],
    there: [bool; 3],
    pub(crate) op: Option<Op>,
}

impl Scratch {
    /// The values of `before` (0), `after` (1) and `source` (2), if the envelope has them.
    pub(crate) fn image(&self, index: usize) -> Option<&Stretches> {
        self.there[index].then_some(&self.images[index])
    }
}

impl EventPlan {
    /// Reads an envelope in one pass. Members that it does not know are skipped (`transaction`, `ts_us`).
    pub(crate) fn collect_envelope(&self, text: &str, scratch: &mut Scratch) -> Result<(), FormatError> {
        scratch.there = [false; 3];
        scratch.op = None;
        let mut scanner = Scanner::new(text);
        scanner.members(|name, scanner| {
            let (index, plan) = match name {
                "before" => (0, &self.value),
                "after" => (1, &self.value),
                "source" if self.source.is_some() => (2, self.source.as_ref().unwrap_or(&self.value)),
                "op" => {
                    scratch.op = string_text(scanner.value()?)?.as_deref().and_then(Op::from_letter);
                    return Ok(());
                }
                _ => return scanner.stretch().map(drop),
            };
            scratch.there[index] = !scanner.null();
            if scratch.there[index] {
                plan.collect(scanner, &mut scratch.images[index])?;
            }
            Ok(())
        })?;
        scanner.end()
    }
}
