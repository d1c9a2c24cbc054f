//! `cast`: fields of other types.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use towpath_api::{
    ConfigProblem, ConfigProblems, Descriptor, EventSchema, Field, OptionSpec, OptionType, RawConfig,
    RecordView, RowSchema, RowWriter, Transform, TransformFactory, Type, Value,
};

use super::convert::{Converted, TYPES, convert, type_by_name};
use super::options::{Only, descriptor};
use super::rewrite::{Plan, Refusal, Rewrite, Rewriter, retyped, with_rows};

/// The type `cast`.
#[derive(Debug)]
pub struct Cast {
    descriptor: Descriptor,
}

impl Default for Cast {
    fn default() -> Self {
        let types: Vec<String> = TYPES.iter().map(|(name, doc)| format!("`{name}` ({doc})")).collect();
        let fields = OptionSpec::required(
            "fields",
            OptionType::map(OptionType::choices(TYPES)),
            &format!(
                "Fields and the types that they get, in key and row alike. A value that would lose something, or is \
                 no such thing, rejects its record. Types: {}",
                types.join(" ")
            ),
        );
        Self { descriptor: descriptor("cast", "Gives fields other types, without loss", vec![fields]) }
    }
}

impl TransformFactory for Cast {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let mut fields = BTreeMap::new();
        for (name, ty) in config.values().get("fields").and_then(Json::as_object).into_iter().flatten() {
            match ty.as_str().and_then(type_by_name) {
                Some(ty) => {
                    fields.insert(name.clone(), ty);
                }
                None => {
                    let problem = ConfigProblem::new(format!("fields.{name}"), format!("{ty} is no type"));
                    let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
                    problems.problems.push(problem.with_hint(format!("types are {}", known.join(", "))));
                }
            }
        }
        if fields.is_empty() && problems.problems.is_empty() {
            problems.problems.push(ConfigProblem::new("fields", "at least one field is needed"));
        }
        problems.into_result()?;
        Ok(Box::new(Rewriter::new(Casts { fields }, Only::of(config))))
    }
}

/// Which fields get which types.
struct Casts {
    fields: BTreeMap<String, Type>,
}

/// What becomes of a field.
enum Column {
    Copy,
    To { ty: Type, name: Arc<str> },
}

impl Casts {
    fn rows(&self, rows: &RowSchema) -> (RowSchema, Vec<Column>, bool) {
        let mut changed = false;
        let column = |field: &Field| match self.fields.get(&field.name) {
            Some(ty) if *ty != field.ty => {
                let initial = field.initial.as_deref().and_then(|text| recast_initial(text, ty));
                let cast = Field { initial, ..retyped(field, ty.clone(), field.nullable) };
                (cast, Column::To { ty: ty.clone(), name: Arc::from(field.name.as_str()) })
            }
            _ => (field.clone(), Column::Copy),
        };
        let (fields, columns): (Vec<_>, Vec<_>) = rows.fields.iter().map(column).unzip();
        changed |= columns.iter().any(|column| matches!(column, Column::To { .. }));
        (RowSchema::new(fields), columns, changed)
    }
}

/// What rows have in a field from before it was added, as the text of its new type.
fn recast_initial(text: &str, ty: &Type) -> Option<String> {
    match convert(Value::Text(text), ty)? {
        Converted::Text(text) => Some(text.into_owned()),
        Converted::Bool(value) => Some(value.to_string()),
        Converted::Int(value) => Some(value.to_string()),
        Converted::Float32(_) | Converted::Float64(_) => Some(text.to_owned()),
        _ => None,
    }
}

impl Rewrite for Casts {
    type Column = Column;

    fn plan(&self, schema: &Arc<EventSchema>) -> Result<Option<Plan<Column>>, Refusal> {
        let (value, value_columns, value_changed) = self.rows(schema.value());
        let key = schema.key().map(|key| self.rows(key)).filter(|(_, _, changed)| *changed);
        if !value_changed && key.is_none() {
            return Ok(None);
        }
        let (key, key_columns) = match key {
            Some((key, columns, _)) => (Some(key), Some(columns)),
            None => (None, None),
        };
        Ok(Some(Plan { schema: with_rows(schema, key, value), key: key_columns, value: Some(value_columns) }))
    }

    fn write(
        &self,
        column: &Column,
        value: Value<'_>,
        _record: RecordView<'_>,
        out: &mut RowWriter<'_>,
    ) -> Result<(), Refusal> {
        match column {
            Column::Copy => out.value(value),
            Column::To { ty, name } => {
                let converted = convert(value, ty).ok_or_else(|| {
                    Refusal::new("CAST_LOSSY", format!("the field `{name}` has a value that is no {ty}"))
                        .with_hint(
                            "cast it to `string`, which takes everything, or correct the value at its source",
                        )
                })?;
                converted.write(out);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Records, apply, build, change_schema, rejected};
    use serde_json::json;
    use towpath_api::Op;

    #[test]
    fn key_and_images_are_cast_alike() {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Update, 7, Some((7, "1.50", Some("a"))), Some((7, "2", None)));
        let cast = json!({"fields": {"id": "string", "price": "float64"}});
        let batch = apply(build(&Cast::default(), cast), records.build());
        let record = batch.record(0);
        assert_eq!(record.key().unwrap().get(0), Value::Text("7"));
        assert_eq!(record.schema().key().unwrap().fields[0].ty, Type::String);
        assert_eq!(record.before().unwrap().get(1), Value::Float64(1.5));
        let after = record.after().unwrap();
        assert_eq!(
            (after.get(0), after.get(1), after.get(2)),
            (Value::Text("7"), Value::Float64(2.0), Value::Null)
        );
        let price = &record.schema().value().fields[1];
        assert_eq!((&price.ty, &price.source_type), (&Type::Float64, &None));
        assert_eq!(record.source().unwrap().get(0), Value::Int(99), "the source block stays");
        assert_eq!(record.schema().name(), schema.name());
    }

    #[test]
    fn one_bad_value_rejects_one_record() {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Create, 1, None, Some((1, "1", None)));
        records.change(&schema, Op::Create, 2, None, Some((2, "1.5", None)));
        records.change(&schema, Op::Create, 3, None, Some((3, "3", None)));
        let mut cast = build(&Cast::default(), json!({"fields": {"price": "int32"}}));
        let (batch, refused) = rejected(&mut *cast, records.build());
        assert_eq!(batch.len(), 2);
        assert_eq!(refused.0.record(0).key().unwrap().get(0), Value::Int(2), "as it came in");
        assert_eq!(refused.1[0].code(), "CAST_LOSSY");
        assert!(refused.1[0].message().contains("`price`") && !refused.1[0].message().contains("1.5"));
    }

    #[test]
    fn absent_and_null_stay() {
        let schema = change_schema();
        let mut records = Records::default();
        records.toasted(&schema, 1);
        let batch = apply(build(&Cast::default(), json!({"fields": {"note": "json"}})), records.build());
        assert_eq!(batch.record(0).after().unwrap().get(2), Value::Absent);
    }

    #[test]
    fn schemas_without_the_field_pass_untouched() {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Delete, 1, Some((1, "1", None)), None);
        let batch = apply(build(&Cast::default(), json!({"fields": {"nobody": "json"}})), records.build());
        assert!(Arc::ptr_eq(batch.record(0).schema(), &schema));
    }

    #[test]
    fn wrong_options_are_told() {
        let cast = Cast::default();
        for (options, path) in [
            (json!({"fields": {}}), "fields"),
            (json!({"fields": {"a": "number"}}), "fields.a"),
            (json!({"fields": {"a": 5}}), "fields.a"),
        ] {
            let config = RawConfig::with_defaults(&cast.descriptor().options, options).unwrap();
            let problems = cast.parse(&config).err().unwrap();
            assert_eq!(problems.problems[0].path, path);
        }
    }
}
