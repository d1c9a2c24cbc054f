//! Bytes to records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use towpath_api::{BatchBuilder, EventSchema, Field, FormatKind, FormatSpec, Op, RowSchema, SchemaId, Type};
use towpath_types::TopicName;

use crate::error::FormatError;
use crate::header;
use crate::json::connect;
use crate::json::infer::{Shapes, fields_of};
use crate::json::plan::{Codec, EventPlan, RowPlan, Scratch, Stretches};
use crate::json::scan::{Scanner, text_of};

/// Schemas whose plan is kept before the cache starts anew.
const SCHEMAS_MAX: usize = 4096;
/// Bytes of inline schemas that are kept before the cache starts anew.
const INLINE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A record as it was read from a topic.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The topic.
    pub topic: &'a TopicName,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The timestamp.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The schema that the header [`header::SCHEMA`] names, looked up by the caller.
    pub schema: Option<&'a Arc<EventSchema>>,
}

/// Reads records in one format; keeps what is the same for all records of a schema.
#[derive(Debug)]
pub struct Decoder {
    format: FormatSpec,
    plans: HashMap<SchemaId, Arc<EventPlan>>,
    last: Option<Arc<EventPlan>>,
    inline: InlinePlans,
    shapes: Shapes,
    raw: HashMap<(String, bool, Vec<Field>), Arc<EventPlan>>,
    /// Topics without schemas by id whose last value was an envelope: their null values do not tell.
    envelopes: HashSet<TopicName>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct InlinePlans {
    known: HashMap<(String, String, String), Arc<EventPlan>>,
    bytes: usize,
}

impl Decoder {
    /// A decoder for `format`. JSON is read with a schema by id, inline or without one, whatever the format says
    /// about schemas.
    #[must_use]
    pub fn new(format: FormatSpec) -> Self {
        Self {
            format,
            plans: HashMap::new(),
            last: None,
            inline: InlinePlans::default(),
            shapes: Shapes::default(),
            raw: HashMap::new(),
            envelopes: HashSet::new(),
            scratch: Scratch::default(),
        }
    }

    /// Reads one record to the end of `builder`. Headers of Towpath are not copied.
    ///
    /// # Errors
    /// The record is undecodable; `builder` is as it was.
    pub fn decode<'h>(
        &mut self,
        incoming: Incoming<'_>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
        builder: &mut BatchBuilder,
    ) -> Result<(), FormatError> {
        let op_header = headers.clone().find(|(name, _)| *name == header::OP).and_then(|(_, value)| value);
        let key = self.key_text(&incoming)?;
        let value = self.value_text(&incoming)?;
        let (plan, key, value) = self.plan(&incoming, key, value)?;
        let mut record = builder.record(&plan.schema);
        record
            .timestamp_ms(incoming.timestamp_ms)
            .offset(incoming.offset)
            .topic(incoming.topic)
            .partition(incoming.partition);
        let own = |name: &str| name.starts_with(header::PREFIX);
        for (name, value) in headers.filter(|(name, _)| !own(name)) {
            record.header(name, value);
        }
        let scratch = &mut self.scratch;
        if let Some(key) = key {
            let row_plan = plan.key.as_ref();
            let row_plan =
                row_plan.ok_or_else(|| FormatError::mismatch("the key", "the schema has no key"))?;
            record.try_key(|row| write(row_plan, row, key, &mut scratch.row))?;
        }
        let op = op_header.map(|value| std::str::from_utf8(value).unwrap_or_default());
        match (value, op) {
            (None, Some(letter)) => {
                record.op(Op::from_letter(letter)).flat(true);
            }
            // A flat one is all that tells of the deletion; the other follows the change event that does.
            (None, None) => {
                let follows =
                    plan.envelope || incoming.schema.is_none() && self.envelopes.contains(incoming.topic);
                record.op(Some(Op::Tombstone)).flat(!follows);
            }
            (Some(Payload::Json(text)), None) if plan.envelope => {
                plan.collect_envelope(text, scratch)?;
                let op =
                    scratch.op.ok_or_else(|| FormatError::mismatch("op", "an operation was expected"))?;
                record.op(Some(op)).flat(false);
                if let Some(before) = scratch.image(0) {
                    record.try_before(|row| plan.value.write_collected(row, text, before))?;
                }
                if let Some(after) = scratch.image(1) {
                    record.try_after(|row| plan.value.write_collected(row, text, after))?;
                }
                if let (Some(source), Some(source_plan)) = (scratch.image(2), &plan.source) {
                    record.try_source(|row| source_plan.write_collected(row, text, source))?;
                }
                if incoming.schema.is_none() && !self.envelopes.contains(incoming.topic) {
                    self.envelopes.insert(incoming.topic.clone());
                }
            }
            (Some(payload), letter) => {
                let op = letter.and_then(Op::from_letter);
                record.op(op).flat(op.is_some());
                if let Some(payload) = payload.present() {
                    record.try_after(|row| write(&plan.value, row, payload, &mut scratch.row))?;
                }
                if incoming.schema.is_none() && !self.envelopes.is_empty() {
                    self.envelopes.remove(incoming.topic);
                }
            }
        }
        record.finish();
        Ok(())
    }

    fn key_text<'a>(&self, incoming: &Incoming<'a>) -> Result<Option<Payload<'a>>, FormatError> {
        let Some(key) = incoming.key else { return Ok(None) };
        if self.format.key == FormatKind::Raw {
            return Ok(Some(Payload::Raw(key)));
        }
        if incoming.schema.is_some() {
            return Ok(Some(Payload::Json(text_of(key)?.trim_ascii())));
        }
        match json_text(key) {
            Ok(text) => Ok(Some(Payload::Json(text))),
            // Keys of other people's records are often plain text.
            Err(_) => Ok(Some(Payload::Raw(key))),
        }
    }

    fn value_text<'a>(&self, incoming: &Incoming<'a>) -> Result<Option<Payload<'a>>, FormatError> {
        let Some(value) = incoming.value else { return Ok(None) };
        match self.format.value {
            FormatKind::Raw => Ok(Some(Payload::Raw(value))),
            // Reading by the schema checks the whole text; everything else looks at it before.
            FormatKind::Json(_) if incoming.schema.is_some() => {
                Ok(Some(Payload::Json(text_of(value)?.trim_ascii())))
            }
            FormatKind::Json(_) => json_text(value).map(|text| Some(Payload::Json(text))),
        }
    }

    /// How the record is read, and what of key and value is to be read (the payload of an inline schema).
    fn plan<'a>(
        &mut self,
        incoming: &Incoming<'a>,
        key: Option<Payload<'a>>,
        value: Option<Payload<'a>>,
    ) -> Result<Planned<'a>, FormatError> {
        if let Some(schema) = incoming.schema {
            return Ok((self.plan_by_id(schema), key, value));
        }
        let (key_schema, key) = inline_parts(key)?;
        let (value_schema, value) = inline_parts(value)?;
        if let (Some(schema), Some(Payload::Json(payload))) = (value_schema, value) {
            let plan = self.inline.plan(incoming.topic.as_str(), key, key_schema, schema, payload)?;
            let value = Some(Payload::Json(payload)).filter(|_| payload != "null");
            return Ok((plan, key, value));
        }
        let json = |payload: Option<Payload<'a>>| match payload {
            Some(Payload::Json(text)) => Some(text),
            _ => None,
        };
        let raw = |payload| matches!(payload, Some(Payload::Raw(_)));
        let plan = if raw(key) || raw(value) || key_schema.is_some() {
            self.raw_plan(incoming, key, key_schema, value)?
        } else {
            self.shapes.plan(incoming.topic.as_str(), json(key), json(value))?
        };
        Ok((plan, key, value))
    }

    fn plan_by_id(&mut self, schema: &Arc<EventSchema>) -> Arc<EventPlan> {
        let id = schema.id();
        if let Some(last) = &self.last
            && last.schema.id() == id
        {
            return Arc::clone(last);
        }
        if self.plans.len() >= SCHEMAS_MAX {
            self.plans.clear();
        }
        let plan = self.plans.entry(id).or_insert_with(|| Arc::new(EventPlan::of(schema)));
        self.last = Some(Arc::clone(plan));
        Arc::clone(plan)
    }

    /// Records of which one half is raw, or whose value is null beside a key with an inline schema.
    fn raw_plan(
        &mut self,
        incoming: &Incoming<'_>,
        key: Option<Payload<'_>>,
        key_schema: Option<&str>,
        value: Option<Payload<'_>>,
    ) -> Result<Arc<EventPlan>, FormatError> {
        let row = |payload: Option<Payload<'_>>| match payload {
            None => Ok(None),
            Some(Payload::Raw(_)) => Ok(Some(RowPlan::of(&Arc::new(RowSchema::bare(Type::Bytes))))),
            Some(Payload::Json(text)) => infer_row(text).map(Some),
        };
        let key = match key_schema {
            Some(schema) => Some(connect::row_plan(schema)?),
            // A key that should have been JSON and is not: text, if it is.
            None => match key {
                Some(Payload::Raw(bytes)) if self.format.key != FormatKind::Raw => {
                    let ty = if std::str::from_utf8(bytes).is_ok() { Type::String } else { Type::Bytes };
                    Some(RowPlan::of(&Arc::new(RowSchema::bare(ty))))
                }
                other => row(other)?,
            },
        };
        let value = row(value)?.unwrap_or_else(|| RowPlan::of(&Arc::default()));
        let mut fields = value.schema().fields.clone();
        fields.extend(key.iter().flat_map(|key| key.schema().fields.clone()));
        let shape = (incoming.topic.as_str().to_owned(), key.is_some(), fields);
        if self.raw.len() >= SCHEMAS_MAX {
            self.raw.clear();
        }
        let plan = self.raw.entry(shape).or_insert_with(|| {
            let event = EventSchema::new(incoming.topic.as_str(), Arc::clone(value.schema()))
                .with_key(key.as_ref().map(|key| Arc::clone(key.schema())));
            Arc::new(EventPlan { schema: Arc::new(event), key, value, source: None, envelope: false })
        });
        Ok(Arc::clone(plan))
    }
}

type Planned<'a> = (Arc<EventPlan>, Option<Payload<'a>>, Option<Payload<'a>>);

impl InlinePlans {
    fn plan(
        &mut self,
        topic: &str,
        key: Option<Payload<'_>>,
        key_schema: Option<&str>,
        schema: &str,
        payload: &str,
    ) -> Result<Arc<EventPlan>, FormatError> {
        // A key without an inline schema beside a value with one has its shape as its identity.
        let key_shape = match (key_schema, key) {
            (Some(schema), _) => schema.to_owned(),
            (None, Some(Payload::Json(text))) => {
                let plan = infer_row(text)?;
                serde_json::to_string(plan.schema().as_ref()).unwrap_or_default()
            }
            (None, Some(Payload::Raw(_))) => "raw".to_owned(),
            (None, None) => String::new(),
        };
        let identity = (topic.to_owned(), key_shape, schema.to_owned());
        if let Some(known) = self.known.get(&identity) {
            return Ok(Arc::clone(known));
        }
        let key = match (key_schema, key) {
            (Some(schema), _) => Some(connect::row_plan(schema)?),
            (None, Some(Payload::Json(text))) => Some(infer_row(text)?),
            (None, Some(Payload::Raw(_))) => Some(RowPlan::of(&Arc::new(RowSchema::bare(Type::Bytes)))),
            (None, None) => None,
        };
        let plan = Arc::new(connect::event_plan(topic, key, schema, payload)?);
        let bytes = identity.0.len() + identity.1.len() + identity.2.len();
        if self.bytes + bytes > INLINE_BYTES_MAX {
            self.known.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.known.insert(identity, Arc::clone(&plan));
        Ok(plan)
    }
}

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
enum Payload<'a> {
    Json(&'a str),
    Raw(&'a [u8]),
}

impl Payload<'_> {
    fn present(self) -> Option<Self> {
        match self {
            Self::Json("null") => None,
            other => Some(other),
        }
    }
}

fn write(
    plan: &RowPlan,
    row: &mut towpath_api::RowWriter<'_>,
    payload: Payload<'_>,
    stretches: &mut Stretches,
) -> Result<(), FormatError> {
    match payload {
        Payload::Json(text) => plan.write(row, text, stretches),
        Payload::Raw(bytes) => {
            let only = if plan.schema().fields.len() == 1 { plan.codec(0) } else { None };
            let only =
                only.ok_or_else(|| FormatError::mismatch("the record", "raw bytes carry one value"))?;
            only.write_raw(row, bytes).map_err(|what| FormatError::mismatch("the record", what))
        }
    }
}

/// The one JSON value that `bytes` are, without the white space around it.
fn json_text(bytes: &[u8]) -> Result<&str, FormatError> {
    let mut scanner = Scanner::new(text_of(bytes)?);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

fn infer_row(text: &str) -> Result<RowPlan, FormatError> {
    let fields = fields_of(text)?;
    let codecs = fields.iter().map(|field| match field.ty {
        Type::Json => Codec::RawJson,
        ref ty => Codec::of(ty),
    });
    let codecs = codecs.collect();
    Ok(RowPlan::with_codecs(&Arc::new(RowSchema::new(fields)), codecs))
}

type InlineParts<'a> = (Option<&'a str>, Option<Payload<'a>>);

fn inline_parts(payload: Option<Payload<'_>>) -> Result<InlineParts<'_>, FormatError> {
    match payload {
        Some(Payload::Json(text)) if text.starts_with('{') => Ok(match connect::split(text)? {
            Some((schema, payload)) => (Some(schema), Some(Payload::Json(payload))),
            None => (None, Some(Payload::Json(text))),
        }),
        other => Ok((None, other)),
    }
}
