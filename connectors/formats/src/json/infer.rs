//! Records without a schema: the fields are those of the object, the types those of its values.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use towpath_api::schema::SourceBlock;
use towpath_api::{EventSchema, Field, Op, RowSchema, Type};
use towpath_types::limits::SCHEMA_FIELDS_MAX;

use super::connect::variables;
use super::plan::{Codec, EventPlan, RowPlan};
use super::scan::{Scanner, string_text};
use crate::error::FormatError;

/// Shapes kept before the cache starts anew.
const SHAPES_MAX: usize = 1024;

/// What a record looks like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape {
    topic: String,
    key: Option<Vec<Field>>,
    value: Vec<Field>,
    /// The source block's fields and what it says, if the record is an envelope.
    source: Option<(Vec<Field>, BTreeMap<String, String>)>,
}

/// The shapes that have been seen.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    known: HashMap<Shape, Arc<EventPlan>>,
}

/// The type of a JSON value by its text.
fn type_of(raw: &str) -> Type {
    match raw.as_bytes().first() {
        Some(b'"') => Type::String,
        Some(b't' | b'f') => Type::Bool,
        Some(b'-' | b'0'..=b'9') if raw.parse::<i64>().is_ok() => Type::Int64,
        Some(b'-' | b'0'..=b'9') if raw.contains(['.', 'e', 'E']) => match raw.parse::<f64>() {
            Ok(value) if value.is_finite() => Type::Float64,
            _ => Type::Decimal,
        },
        // A whole number beyond 64 bits keeps its digits.
        Some(b'-' | b'0'..=b'9') => Type::Decimal,
        _ => Type::Json,
    }
}

/// The fields of an object, or one bare field.
pub(crate) fn fields_of(raw: &str) -> Result<Vec<Field>, FormatError> {
    if !raw.starts_with('{') {
        return Ok(vec![Field::nullable("", type_of(raw))]);
    }
    let mut fields: Vec<Field> = Vec::new();
    merge_fields(&mut fields, raw)?;
    Ok(fields)
}

/// Adds the members of an object; where a member is known with another type, null gives way to everything and the
/// rest becomes JSON.
fn merge_fields(fields: &mut Vec<Field>, raw: &str) -> Result<(), FormatError> {
    let mut expected = 0;
    Scanner::new(raw).object(|name, value| {
        let found = match fields.get(expected) {
            Some(field) if field.name == name => Some(expected),
            _ => fields.iter().position(|field| field.name == name),
        };
        let ty = type_of(value);
        match found {
            Some(index) => {
                expected = index + 1;
                let known = &mut fields[index].ty;
                if *known != ty && value != "null" {
                    *known = Type::Json;
                }
            }
            None if fields.len() >= SCHEMA_FIELDS_MAX => {
                return Err(FormatError::mismatch(name, "the object has too many members"));
            }
            None => {
                fields.push(Field::nullable(name, ty));
                expected = fields.len();
            }
        }
        Ok(())
    })
}

/// The parts of Debezium's envelope.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Envelope<'a> {
    pub(crate) before: Option<&'a str>,
    pub(crate) after: Option<&'a str>,
    pub(crate) source: Option<&'a str>,
    pub(crate) op: Option<Op>,
    ts_ms: bool,
}

impl<'a> Envelope<'a> {
    /// Takes an envelope apart. Members that it does not know are skipped (`transaction`, `ts_us`).
    pub(crate) fn read(raw: &'a str) -> Result<Self, FormatError> {
        let mut envelope = Self::default();
        Scanner::new(raw).object(|name, value| {
            match name {
                "before" => envelope.before = Some(value),
                "after" => envelope.after = Some(value),
                "source" => envelope.source = Some(value),
                "ts_ms" => envelope.ts_ms = true,
                "op" => {
                    let text = string_text(value)?;
                    envelope.op = text.as_deref().and_then(Op::from_letter);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(envelope)
    }

    /// Whether a record without any schema is meant as a change event.
    fn is_one(&self) -> bool {
        let image = |raw: Option<&str>| raw.is_some_and(|raw| raw == "null" || raw.starts_with('{'));
        let place = self.ts_ms || self.source.is_some_and(|source| source.starts_with('{'));
        self.op.is_some() && place && (image(self.after) || image(self.before))
    }
}

impl Shapes {
    /// How the record is read: `key` and `value` are JSON that has been scanned.
    pub(crate) fn plan(
        &mut self,
        topic: &str,
        key: Option<&str>,
        value: Option<&str>,
    ) -> Result<Arc<EventPlan>, FormatError> {
        let key = key.map(fields_of).transpose()?;
        let mut shape = Shape { topic: topic.to_owned(), key, value: Vec::new(), source: None };
        match value {
            None => {}
            Some(value) => {
                let envelope =
                    if value.starts_with('{') { Envelope::read(value)? } else { Envelope::default() };
                if envelope.is_one() {
                    for image in [envelope.after, envelope.before].into_iter().flatten() {
                        if image.starts_with('{') {
                            merge_fields(&mut shape.value, image)?;
                        }
                    }
                    let source = envelope.source.filter(|source| source.starts_with('{'));
                    let fields = source.map(fields_of).transpose()?.unwrap_or_default();
                    shape.source = Some((fields, variables(value)));
                } else {
                    shape.value = fields_of(value)?;
                }
            }
        }
        if let Some(known) = self.known.get(&shape) {
            return Ok(Arc::clone(known));
        }
        if self.known.len() >= SHAPES_MAX {
            self.known.clear();
        }
        let plan = Arc::new(plan_of(&shape));
        self.known.insert(shape, Arc::clone(&plan));
        Ok(plan)
    }
}

fn plan_of(shape: &Shape) -> EventPlan {
    let row = |fields: &Vec<Field>| {
        let codecs = fields
            .iter()
            .map(|field| match field.ty {
                Type::Json => Codec::RawJson,
                ref ty => Codec::of(ty),
            })
            .collect();
        RowPlan::with_codecs(&Arc::new(RowSchema::new(fields.clone())), codecs)
    };
    let (key, value) = (shape.key.as_ref().map(row), row(&shape.value));
    let mut event = EventSchema::new(shape.topic.as_str(), Arc::clone(value.schema()))
        .with_key(key.as_ref().map(|plan| Arc::clone(plan.schema())));
    let mut source = None;
    if let Some((fields, variables)) = &shape.source {
        let plan = row(fields);
        let block = SourceBlock { constants: Vec::new(), fields: plan.schema().as_ref().clone() };
        event = event.with_variables(variables.clone()).with_source(Some(Arc::new(block)));
        source = Some(plan);
    }
    EventPlan { schema: Arc::new(event), key, value, envelope: source.is_some(), source }
}
