//! Connect's inline schemas: `{"schema":…,"payload":…}`, as Kafka Connect's `JsonConverter` reads and writes them,
//! with the logical types of Connect and Debezium.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use towpath_api::schema::SourceBlock;
use towpath_api::{EventSchema, Field, RowSchema, Type};
use towpath_types::limits::SCHEMA_FIELDS_MAX;

use super::plan::{Codec, EventPlan, RowPlan};
use super::scan::{Scanner, string_text};
use crate::error::FormatError;

const OUR_TYPE: &str = "towpath.type";
const OUR_SOURCE_TYPE: &str = "towpath.source_type";
const OUR_REQUIRED: &str = "towpath.required";
const OUR_CONSTANT: &str = "towpath.constant";

/// `{"schema":…,"payload":` for the key, the envelope and the row alone.
pub(crate) fn documents(schema: &EventSchema) -> [Vec<u8>; 3] {
    let name = schema.name();
    let key = schema.key().map_or(Json::Null, |key| row_document(key, &format!("{name}.Key"), false, None));
    let row = row_document(schema.value(), &format!("{name}.Value"), true, schema.key());
    let mut fields = vec![member(row.clone(), "before"), member(row.clone(), "after")];
    if let Some(block) = schema.source() {
        fields.push(member(source_document(block), "source"));
    }
    fields.push(json!({"type": "string", "optional": false, "field": "op"}));
    fields.push(json!({"type": "int64", "optional": true, "field": "ts_ms"}));
    let envelope = json!({
        "type": "struct", "fields": fields, "optional": false, "name": format!("{name}.Envelope"), "version": 1,
    });
    [key, envelope, row].map(|document| {
        let mut text = b"{\"schema\":".to_vec();
        text.extend_from_slice(document.to_string().as_bytes());
        text.extend_from_slice(b",\"payload\":");
        text
    })
}

fn member(mut document: Json, field: &str) -> Json {
    if let Json::Object(map) = &mut document {
        map.insert("field".into(), field.into());
    }
    document
}

/// The schema of a row. In values, what is not part of the key is optional whatever the database says: an unchanged
/// TOAST column or an image without it leaves the field out, and Connect's readers would refuse the record.
fn row_document(row: &RowSchema, name: &str, optional: bool, key: Option<&Arc<RowSchema>>) -> Json {
    let document = |field: &Field| {
        let in_key = !optional || key.is_some_and(|key| key.index_of(&field.name).is_some());
        field_document(field, field.nullable || !in_key)
    };
    if row.is_bare() {
        return row.fields.first().map_or(Json::Null, |field| field_document(field, true));
    }
    let fields: Vec<_> = row.fields.iter().map(|field| member(document(field), &field.name)).collect();
    json!({"type": "struct", "fields": fields, "optional": optional, "name": name})
}

fn source_document(block: &SourceBlock) -> Json {
    let mut fields: Vec<_> = block
        .constants
        .iter()
        .map(|(name, value)| {
            json!({
                "type": "string", "optional": false, "parameters": {OUR_CONSTANT: value}, "field": name,
            })
        })
        .collect();
    fields.extend(block.fields.fields.iter().map(|field| member(field_document(field, true), &field.name)));
    json!({"type": "struct", "fields": fields, "optional": false, "name": "towpath.Source"})
}

fn field_document(field: &Field, optional: bool) -> Json {
    let (ty, name) = connect_type(&field.ty);
    let mut parameters = Map::new();
    // Plain types say everything by themselves.
    if name.is_some() || ty == "string" && field.ty != Type::String {
        let ours = serde_json::to_value(&field.ty).unwrap_or_default();
        let text = ours.as_str().map_or_else(|| ours.to_string(), str::to_owned);
        parameters.insert(OUR_TYPE.into(), text.into());
    }
    if let Some(source_type) = &field.source_type {
        parameters.insert(OUR_SOURCE_TYPE.into(), source_type.as_str().into());
    }
    if optional && !field.nullable {
        parameters.insert(OUR_REQUIRED.into(), "true".into());
    }
    let mut document = json!({"type": ty, "optional": optional});
    if let Json::Object(map) = &mut document {
        if let Some(name) = name {
            map.insert("name".into(), name.into());
            map.insert("version".into(), 1.into());
        }
        if !parameters.is_empty() {
            map.insert("parameters".into(), Json::Object(parameters));
        }
    }
    document
}

/// Connect's type and the logical name. Everything carried as text stays text, under the names that Debezium gives
/// to its ISO strings.
const fn connect_type(ty: &Type) -> (&'static str, Option<&'static str>) {
    match ty {
        Type::Bool => ("boolean", None),
        Type::Int16 => ("int16", None),
        Type::Int32 => ("int32", None),
        Type::Int64 => ("int64", None),
        Type::Float32 => ("float", None),
        Type::Float64 => ("double", None),
        Type::Bytes => ("bytes", None),
        Type::Decimal | Type::String => ("string", None),
        Type::Date => ("string", Some("io.debezium.time.IsoDate")),
        Type::Time => ("string", Some("io.debezium.time.IsoTime")),
        Type::TimeTz => ("string", Some("io.debezium.time.ZonedTime")),
        Type::Timestamp => ("string", Some("io.debezium.time.IsoTimestamp")),
        Type::TimestampTz => ("string", Some("io.debezium.time.ZonedTimestamp")),
        Type::Interval => ("string", Some("io.debezium.time.Interval")),
        Type::Uuid => ("string", Some("io.debezium.data.Uuid")),
        Type::Json | Type::Array(_) => ("string", Some("io.debezium.data.Json")),
    }
}

/// An inline schema as it stands in a record.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    fields: Vec<Document>,
    #[serde(default)]
    items: Option<Box<Document>>,
    #[serde(default)]
    parameters: Option<BTreeMap<String, String>>,
}

impl Document {
    fn read(text: &str) -> Result<Self, FormatError> {
        serde_json::from_str(text).map_err(|_| FormatError::InlineSchema("it is no Connect schema"))
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.fields.iter().find(|field| field.field.as_deref() == Some(name))
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.as_ref()?.get(name).map(String::as_str)
    }

    fn is_envelope(&self) -> bool {
        let image = |name| self.child(name).is_some_and(|image| image.ty == "struct");
        self.ty == "struct" && self.child("op").is_some() && (image("after") || image("before"))
    }

    /// The field's type and how its JSON is read.
    fn codec(&self) -> Result<(Type, Codec), FormatError> {
        if let Some(ours) = self.parameter(OUR_TYPE) {
            let json =
                if ours.starts_with('{') { serde_json::from_str(ours).ok() } else { Some(ours.into()) };
            let ty: Type = json
                .and_then(|json| Type::deserialize::<Json>(json).ok())
                .ok_or(FormatError::InlineSchema("`towpath.type` is no type"))?;
            let codec = match ty {
                Type::Json | Type::Array(_) => Codec::JsonText,
                ref ty => Codec::of(ty),
            };
            return Ok((ty, codec));
        }
        if let Some(logical) = self.name.as_deref().and_then(|name| self.logical(name)) {
            return Ok(logical);
        }
        let ty = match self.ty.as_str() {
            "boolean" => Type::Bool,
            "int8" | "int16" => Type::Int16,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "float" | "float32" => Type::Float32,
            "double" | "float64" => Type::Float64,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "array" => {
                let element = self.items.as_ref().and_then(|items| items.codec().ok());
                return Ok(match element {
                    // Elements whose JSON is already the canonical form of their type.
                    Some((ty, codec)) if codec == Codec::of(&ty) && codec != Codec::Json => {
                        (Type::Array(Box::new(ty)), Codec::RawJson)
                    }
                    _ => (Type::Json, Codec::RawJson),
                });
            }
            "struct" | "map" => return Ok((Type::Json, Codec::RawJson)),
            _ => return Err(FormatError::InlineSchema("a field's type is unknown")),
        };
        let codec = Codec::of(&ty);
        Ok((ty, codec))
    }

    fn logical(&self, name: &str) -> Option<(Type, Codec)> {
        const MILLIS: i64 = 1_000_000;
        const MICROS: i64 = 1000;
        Some(match (name, self.ty.as_str()) {
            ("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date", "int32") => {
                (Type::Date, Codec::Date)
            }
            ("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp", "int64") => {
                (Type::Timestamp, Codec::Timestamp(MILLIS))
            }
            ("io.debezium.time.MicroTimestamp", "int64") => (Type::Timestamp, Codec::Timestamp(MICROS)),
            ("io.debezium.time.NanoTimestamp", "int64") => (Type::Timestamp, Codec::Timestamp(1)),
            ("io.debezium.time.Time" | "org.apache.kafka.connect.data.Time", "int32") => {
                (Type::Time, Codec::Time(MILLIS))
            }
            ("io.debezium.time.MicroTime", "int64") => (Type::Time, Codec::Time(MICROS)),
            ("io.debezium.time.NanoTime", "int64") => (Type::Time, Codec::Time(1)),
            ("io.debezium.time.ZonedTimestamp", "string") => (Type::TimestampTz, Codec::Text),
            ("io.debezium.time.ZonedTime", "string") => (Type::TimeTz, Codec::Text),
            ("io.debezium.time.IsoDate", "string") => (Type::Date, Codec::Text),
            ("io.debezium.time.IsoTime", "string") => (Type::Time, Codec::Text),
            ("io.debezium.time.IsoTimestamp", "string") => (Type::Timestamp, Codec::Text),
            ("io.debezium.time.Interval", "string") => (Type::Interval, Codec::Text),
            ("io.debezium.data.Uuid", "string") => (Type::Uuid, Codec::Text),
            ("io.debezium.data.Json", "string") => (Type::Json, Codec::JsonText),
            ("org.apache.kafka.connect.data.Decimal", "bytes") => {
                let scale = self.parameter("scale")?.parse().ok()?;
                (Type::Decimal, Codec::ConnectDecimal(scale))
            }
            ("io.debezium.data.VariableScaleDecimal", "struct") => (Type::Decimal, Codec::VariableDecimal),
            _ => return None,
        })
    }

    fn field(&self) -> Result<(Field, Codec), FormatError> {
        let (ty, codec) = self.codec()?;
        let name = self.field.clone().unwrap_or_default();
        let nullable = self.optional && self.parameter(OUR_REQUIRED).is_none();
        let source_type = self.parameter(OUR_SOURCE_TYPE).map(str::to_owned);
        Ok((Field { nullable, source_type, ..Field::required(name, ty) }, codec))
    }

    fn row(&self) -> Result<RowPlan, FormatError> {
        let (fields, codecs) = if self.ty == "struct" {
            self.fields.iter().map(Self::field).collect::<Result<Vec<_>, _>>()?.into_iter().unzip()
        } else {
            let (field, codec) = self.field()?;
            (vec![Field { name: String::new(), ..field }], vec![codec])
        };
        if fields.len() > SCHEMA_FIELDS_MAX {
            return Err(FormatError::InlineSchema("it has too many fields"));
        }
        Ok(RowPlan::with_codecs(&Arc::new(RowSchema::new(fields)), codecs))
    }
}

/// Splits `{"schema":…,"payload":…}`; `None` if `text` is something else. A null schema is none.
pub(crate) fn split(text: &str) -> Result<Option<(&str, &str)>, FormatError> {
    let (mut schema, mut payload, mut others) = (None, None, false);
    let mut scanner = Scanner::new(text);
    scanner.object(|name, value| {
        match name {
            "schema" => schema = Some(value),
            "payload" => payload = Some(value),
            _ => others = true,
        }
        Ok(())
    })?;
    scanner.end()?;
    Ok(match (schema, payload, others) {
        (Some(schema), Some(payload), false) if schema.starts_with('{') => Some((schema, payload)),
        _ => None,
    })
}

/// The row that an inline schema describes.
pub(crate) fn row_plan(schema: &str) -> Result<RowPlan, FormatError> {
    Document::read(schema)?.row()
}

/// How records with this inline value schema are read. `payload` is one of them: it tells the table's name.
pub(crate) fn event_plan(
    topic: &str,
    key: Option<RowPlan>,
    schema: &str,
    payload: &str,
) -> Result<EventPlan, FormatError> {
    let document = Document::read(schema)?;
    let named = |suffix| document.name.as_deref().and_then(|name| name.strip_suffix(suffix));
    let key_schema = key.as_ref().map(|plan| Arc::clone(plan.schema()));
    if !document.is_envelope() {
        let value = document.row()?;
        let name = named(".Value").or(document.name.as_deref()).unwrap_or(topic);
        let event = EventSchema::new(name, Arc::clone(value.schema())).with_key(key_schema);
        return Ok(EventPlan { schema: Arc::new(event), key, value, source: None, envelope: false });
    }
    let image = document.child("after").or_else(|| document.child("before"));
    let value = image.ok_or(FormatError::InlineSchema("the envelope has no image"))?.row()?;
    let (block, source) = match document.child("source") {
        Some(source) => source_block(source)?,
        None => (SourceBlock::default(), None),
    };
    let name = named(".Envelope").unwrap_or(topic);
    let event = EventSchema::new(name, Arc::clone(value.schema()))
        .with_key(key_schema)
        .with_variables(variables(payload))
        .with_source(Some(Arc::new(block)));
    Ok(EventPlan { schema: Arc::new(event), key, value, source, envelope: true })
}

fn source_block(document: &Document) -> Result<(SourceBlock, Option<RowPlan>), FormatError> {
    let (mut constants, mut fields, mut codecs) = (Vec::new(), Vec::new(), Vec::new());
    for child in &document.fields {
        let (field, codec) = child.field()?;
        if let Some(constant) = child.parameter(OUR_CONSTANT) {
            constants.push((field.name, constant.to_owned()));
        } else {
            fields.push(field);
            codecs.push(codec);
        }
    }
    let fields = RowSchema::new(fields);
    let plan = RowPlan::with_codecs(&Arc::new(fields.clone()), codecs);
    Ok((SourceBlock { constants, fields }, Some(plan)))
}

/// What the source block of an envelope says about where it comes from.
pub(crate) fn variables(payload: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut read_source = |source: &str| {
        Scanner::new(source).object(|name, value| {
            let variable = match name {
                "db" => "database",
                "schema" | "table" => name,
                _ => return Ok(()),
            };
            if let Ok(Some(text)) = string_text(value) {
                variables.insert(variable.to_owned(), text.into_owned());
            }
            Ok(())
        })
    };
    // A payload that is no object has no variables; reading the record itself will say what is wrong with it.
    let _ = Scanner::new(payload).object(|name, value| {
        if name == "source" && value.starts_with('{') { read_source(value) } else { Ok(()) }
    });
    variables
}
