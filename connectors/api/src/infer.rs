//! Rows out of JSON that comes without a schema: the fields are those of the object, the types those of its values.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::row::RowWriter;
use super::schema::{EventSchema, Field, RowSchema, Type};

/// Shapes kept before the cache starts anew; a stream with more shapes pays for building them again.
const SHAPES_MAX: usize = 1024;

/// A name, a key's row and a value's row.
type Shape = (String, Option<Arc<RowSchema>>, Arc<RowSchema>);

/// Finds the schema of schemaless JSON, and remembers the shapes that it has seen.
#[derive(Debug, Default)]
pub struct Inference {
    shapes: HashMap<Vec<Field>, Arc<RowSchema>>,
    events: HashMap<Shape, Arc<EventSchema>>,
}

impl Inference {
    /// The row schema of `value`: the fields of an object, or one bare field for anything else. Every field is
    /// nullable; objects, arrays and nulls are [`Type::Json`].
    pub fn row_schema(&mut self, value: &Json) -> Arc<RowSchema> {
        let fields = match value {
            Json::Object(map) => {
                map.iter().map(|(name, value)| Field::nullable(name.as_str(), type_of(value))).collect()
            }
            other => vec![Field::nullable("", type_of(other))],
        };
        if let Some(known) = self.shapes.get(&fields) {
            return Arc::clone(known);
        }
        if self.shapes.len() >= SHAPES_MAX {
            self.shapes.clear();
        }
        let schema = Arc::new(RowSchema::new(fields.clone()));
        self.shapes.insert(fields, Arc::clone(&schema));
        schema
    }

    /// The event schema `name` of an inferred key and row.
    pub fn event_schema(
        &mut self,
        name: &str,
        key: Option<Arc<RowSchema>>,
        value: Arc<RowSchema>,
    ) -> Arc<EventSchema> {
        if self.events.len() >= SHAPES_MAX {
            self.events.clear();
        }
        let entry = self.events.entry((name.to_owned(), key, value));
        let make = |(name, key, value): &Shape| {
            Arc::new(EventSchema::new(name.as_str(), Arc::clone(value)).with_key(key.clone()))
        };
        Arc::clone(match entry {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let schema = make(new.key());
                new.insert(schema)
            }
        })
    }
}

fn type_of(value: &Json) -> Type {
    match value {
        Json::Bool(_) => Type::Bool,
        Json::Number(number) if number.is_i64() => Type::Int64,
        Json::Number(number) if number.is_u64() => Type::Decimal,
        Json::Number(_) => Type::Float64,
        Json::String(_) => Type::String,
        Json::Null | Json::Array(_) | Json::Object(_) => Type::Json,
    }
}

/// Writes `value` under the schema that [`Inference::row_schema`] gave for it.
pub fn write_row(row: &mut RowWriter<'_>, value: &Json) {
    match value {
        Json::Object(map) => map.values().for_each(|value| write_field(row, value)),
        other => write_field(row, other),
    }
}

fn write_field(row: &mut RowWriter<'_>, value: &Json) {
    match value {
        Json::Null => row.null(),
        Json::Bool(value) => row.bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => row.int(value),
            (None, Some(value), _) => row.text(&value.to_string()),
            (None, None, Some(value)) => row.float64(value),
            (None, None, None) => row.null(),
        },
        Json::String(text) => row.text(text),
        other => row.text(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Row, Value};
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_becomes_a_row_and_its_shape_is_remembered() {
        let mut inference = Inference::default();
        let value =
            json!({"id": 7, "big": u64::MAX, "ratio": 0.5, "name": "x", "none": null, "list": [1, {"a": 2}]});
        let schema = inference.row_schema(&value);
        assert!(Arc::ptr_eq(&schema, &inference.row_schema(&value)));
        let mut arena = Vec::new();
        let mut row = RowWriter::new(&mut arena, &schema);
        write_row(&mut row, &value);
        let range = row.finish();
        let values: Vec<_> = Row::checked(&schema, &arena[range]).unwrap().values().collect();
        assert_eq!(
            values,
            [
                Value::Int(7),
                Value::Text("18446744073709551615"),
                Value::Float64(0.5),
                Value::Text("x"),
                Value::Null,
                Value::Text(r#"[1,{"a":2}]"#),
            ]
        );
    }

    #[test]
    fn a_scalar_becomes_a_bare_row() {
        let mut inference = Inference::default();
        assert!(inference.row_schema(&json!("line")).is_bare());
        assert_eq!(inference.row_schema(&json!(1)).fields[0].ty, Type::Int64);
    }
}
