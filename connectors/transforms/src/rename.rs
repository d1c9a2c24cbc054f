//! `rename`: fields under other names. Rows stay as they are: their layout has no names.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value as Json;

use towpath_api::{
    Batch, BatchBuilder, ConfigProblem, ConfigProblems, ConnectorError, Descriptor, EventSchema, Field,
    OptionSpec, OptionType, RawConfig, RejectedRecords, RowSchema, Transform, TransformFactory, Transformed,
};

use super::options::{Only, descriptor};
use super::rewrite::{Plans, Refusal, with_rows};

/// The type `rename`.
#[derive(Debug)]
pub struct Rename {
    descriptor: Descriptor,
}

impl Default for Rename {
    fn default() -> Self {
        let fields = OptionSpec::required(
            "fields",
            OptionType::map(OptionType::NonEmptyString),
            "Old names and new ones (`{old: new}`), in key and row alike. All renamings happen at once: two fields can \
             change places. A record whose row has the new name already is rejected.",
        );
        Self { descriptor: descriptor("rename", "Gives fields other names", vec![fields]) }
    }
}

impl TransformFactory for Rename {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (old, new) in config.values().get("fields").and_then(Json::as_object).into_iter().flatten() {
            let new = new.as_str().unwrap_or_default();
            let path = format!("fields.{old}");
            if new.is_empty() {
                problems.problems.push(ConfigProblem::new(path, "a new name is needed"));
            } else if names.values().any(|other| other == new) {
                problems
                    .problems
                    .push(ConfigProblem::new(path, format!("two fields would be called `{new}`")));
            } else {
                names.insert(old.clone(), new.to_owned());
            }
        }
        if names.is_empty() && problems.problems.is_empty() {
            problems.problems.push(ConfigProblem::new("fields", "at least one field is needed"));
        }
        problems.into_result()?;
        Ok(Box::new(Renames { names, only: Only::of(config), plans: Plans::default() }))
    }
}

struct Renames {
    names: BTreeMap<String, String>,
    only: Only,
    plans: Plans<Option<Arc<EventSchema>>>,
}

fn renamed(names: &BTreeMap<String, String>, rows: &RowSchema) -> Result<Option<RowSchema>, Refusal> {
    if !rows.fields.iter().any(|field| names.contains_key(&field.name)) {
        return Ok(None);
    }
    let new_name = |name: &String| names.get(name).unwrap_or(name).clone();
    let mut fields: Vec<Field> = Vec::with_capacity(rows.fields.len());
    for field in &rows.fields {
        let name = new_name(&field.name);
        if fields.iter().any(|other| other.name == name) {
            let message = format!("renaming would give the row two fields called `{name}`");
            return Err(Refusal::new("RENAME_CONFLICT", message)
                .with_hint("choose a name that the row does not have"));
        }
        // A column that was renamed upstream had, for whoever reads this, the other name before.
        let renamed_from = field.renamed_from.as_ref().map(new_name).filter(|before| *before != name);
        fields.push(Field { name, renamed_from, ..field.clone() });
    }
    Ok(Some(RowSchema::new(fields)))
}

fn plan(names: &BTreeMap<String, String>, schema: &EventSchema) -> Result<Option<Arc<EventSchema>>, Refusal> {
    let value = renamed(names, schema.value())?;
    let key = schema.key().map(|key| renamed(names, key)).transpose()?.flatten();
    if value.is_none() && key.is_none() {
        return Ok(None);
    }
    let value = value.unwrap_or_else(|| (**schema.value()).clone());
    Ok(Some(with_rows(schema, key, value)))
}

#[async_trait]
impl Transform for Renames {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        let (names, only, plans) = (&self.names, &self.only, &mut self.plans);
        let mut find = |schema: &Arc<EventSchema>| {
            plans.get(schema, |schema| if only.matches(schema) { plan(names, schema) } else { Ok(None) })
        };
        if batch.records().all(|record| matches!(*find(record.schema()), Ok(None))) {
            return Ok(batch.into());
        }
        let mut out = BatchBuilder::new();
        let mut rejected = RejectedRecords::default();
        for record in batch.records() {
            match &*find(record.schema()) {
                Ok(None) => out.push(record),
                Ok(Some(schema)) => {
                    let mut copy = out.record_like(record, schema);
                    // The new schemas have the same fields in the same order and of the same types.
                    copy.copy_key(record).copy_images(record).copy_source(record);
                    copy.finish();
                }
                Err(refusal) => rejected.push(record, refusal.clone().into()),
            }
        }
        Ok(Transformed { batch: out.build(), rejected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Records, apply, build, change_schema, plain_schema, rejected};
    use serde_json::json;
    use towpath_api::{Op, Value};

    #[test]
    fn key_and_images_are_renamed_alike() {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Update, 7, Some((7, "1", Some("a"))), Some((7, "2", None)));
        let batch = apply(
            build(&Rename::default(), json!({"fields": {"id": "order_id", "note": "remark"}})),
            records.build(),
        );
        let record = batch.record(0);
        assert_eq!(record.key().unwrap().by_name("order_id"), Some(Value::Int(7)));
        assert_eq!(record.before().unwrap().by_name("remark"), Some(Value::Text("a")));
        assert_eq!(record.after().unwrap().by_name("id"), None);
        assert_eq!(record.schema().value().fields[1], schema.value().fields[1], "the others stay");
        assert_eq!(record.source().unwrap().get(0), Value::Int(99));
        assert_eq!((record.offset(), record.position()), (7, Some(&b"p7"[..])));
    }

    #[test]
    fn fields_can_change_places_but_not_share_one() {
        let schema = plain_schema();
        let mut records = Records::default();
        records.plain(&schema, 1, "error", 0.5);
        let batch = apply(
            build(&Rename::default(), json!({"fields": {"level": "ratio", "ratio": "level"}})),
            records.build(),
        );
        assert_eq!(batch.record(0).after().unwrap().by_name("ratio"), Some(Value::Text("error")));
        let mut records = Records::default();
        records.plain(&schema, 1, "error", 0.5);
        let mut rename = build(&Rename::default(), json!({"fields": {"level": "ratio"}}));
        let (batch, refused) = rejected(&mut *rename, records.build());
        assert_eq!((batch.len(), refused.1[0].code()), (0, "RENAME_CONFLICT"));
    }

    #[test]
    fn a_column_renamed_upstream_had_its_new_name_before() {
        let mut field = Field::nullable("client", towpath_api::Type::String);
        field.renamed_from = Some("customer".into());
        let schema = Arc::new(EventSchema::new("t", Arc::new(RowSchema::new(vec![field]))));
        let names =
            [("customer".to_owned(), "buyer".to_owned()), ("client".to_owned(), "kunde".to_owned())].into();
        let renamed = plan(&names, &schema).unwrap().unwrap();
        assert_eq!(renamed.value().fields[0].renamed_from.as_deref(), Some("buyer"));
        let names = [("customer".to_owned(), "name".to_owned()), ("client".to_owned(), "name2".to_owned())];
        let same = [names[0].clone(), ("client".to_owned(), "name".to_owned())].into();
        assert_eq!(plan(&same, &schema).unwrap().unwrap().value().fields[0].renamed_from, None);
    }

    #[test]
    fn wrong_options_are_told() {
        let rename = Rename::default();
        for (options, path) in [
            (json!({"fields": {}}), "fields"),
            (json!({"fields": {"a": ""}}), "fields.a"),
            (json!({"fields": {"a": "c", "b": "c"}}), "fields.b"),
        ] {
            let config = RawConfig::with_defaults(&rename.descriptor().options, options).unwrap();
            assert_eq!(rename.parse(&config).err().unwrap().problems[0].path, path);
        }
    }
}
