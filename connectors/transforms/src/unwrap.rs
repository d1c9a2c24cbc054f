//! `unwrap`: the row alone instead of the change event's envelope.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::batch::RecordBuilder;
use towpath_api::{
    Batch, ConfigProblem, ConfigProblems, ConnectorError, Descriptor, EventSchema, Field, Op, OptionSpec,
    OptionType, RawConfig, RecordView, RowWriter, Transform, TransformFactory, Transformed, Type, Value,
};

use super::options::{Only, descriptor};
use super::rewrite::{Plan, Refusal, Rewrite, Rewriter, with_rows};

/// The type `unwrap`.
#[derive(Debug)]
pub struct Unwrap {
    descriptor: Descriptor,
}

impl Default for Unwrap {
    fn default() -> Self {
        let options = vec![
            OptionSpec::with_default(
                "drop_tombstones",
                OptionType::Bool,
                true.into(),
                "Whether the tombstone that follows a delete is dropped: unwrapped, the delete is a null value itself.",
            ),
            OptionSpec::with_default(
                "add_fields",
                OptionType::list(OptionType::NonEmptyString),
                serde_json::json!([]),
                "What to keep of the envelope, as fields of the row: `op` (as `__op`), `ts_ms`, and entries of the source \
                 block by their names (`lsn`, `table`, `source.ts_ms`, as `__lsn`, `__table`, `__source_ts_ms`).",
            ),
        ];
        Self {
            descriptor: descriptor(
                "unwrap",
                "Takes rows out of change events: a delete becomes a null value",
                options,
            ),
        }
    }
}

impl TransformFactory for Unwrap {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let names = config.strings("add_fields");
        for (index, name) in names.iter().enumerate() {
            if names[..index].iter().any(|other| column_name(other) == column_name(name)) {
                let message = format!("`{}` stands here twice", column_name(name));
                return Err(ConfigProblem::new(format!("add_fields[{index}]"), message).into());
            }
        }
        let only = Only::of(config);
        Ok(Box::new(Unwrapping {
            drop_tombstones: config.bool("drop_tombstones"),
            only: only.clone(),
            rows: Rewriter::new(Rows { names }, only),
        }))
    }
}

/// What a field taken from the envelope is called.
fn column_name(name: &str) -> String {
    format!("__{}", name.replace('.', "_"))
}

struct Unwrapping {
    drop_tombstones: bool,
    only: Only,
    rows: Rewriter<Rows>,
}

#[async_trait]
impl Transform for Unwrapping {
    async fn apply(&mut self, mut batch: Batch) -> Result<Transformed, ConnectorError> {
        if self.drop_tombstones {
            let only = &self.only;
            // One without a key tells of columns that changed, not of a key to forget.
            batch.retain(|_, record| {
                record.op() != Some(Op::Tombstone) || record.key().is_none() || !only.matches(record.schema())
            });
        }
        self.rows.apply(batch).await
    }
}

struct Rows {
    names: Vec<String>,
}

/// What becomes of a field.
enum Column {
    Copy,
    Op,
    TimestampMs,
    /// A field of the source block.
    Source(usize),
    /// A constant of the source block.
    Constant(Arc<str>),
}

impl Rows {
    fn added(name: &str, schema: &EventSchema) -> Result<(Field, Column), Refusal> {
        let column = column_name(name);
        match name {
            "op" => return Ok((Field::nullable(column, Type::String), Column::Op)),
            "ts_ms" => return Ok((Field::nullable(column, Type::Int64), Column::TimestampMs)),
            _ => {}
        }
        let entry = name.strip_prefix("source.").unwrap_or(name);
        let block = schema.source().map(|block| &**block);
        if let Some((_, value)) =
            block.and_then(|block| block.constants.iter().find(|(known, _)| known == entry))
        {
            return Ok((Field::nullable(column, Type::String), Column::Constant(Arc::from(value.as_str()))));
        }
        let found = block.and_then(|block| Some((block, block.fields.index_of(entry)?)));
        let Some((block, index)) = found else {
            let message = format!("the source block of {} has no `{entry}`", schema.name());
            return Err(Refusal::new("UNWRAP_FIELD", message)
                .with_hint("`op`, `ts_ms` and the entries of the records' source block can be added"));
        };
        Ok((Field::nullable(column, block.fields.fields[index].ty.clone()), Column::Source(index)))
    }
}

impl Rewrite for Rows {
    type Column = Column;

    fn plan(&self, schema: &Arc<EventSchema>) -> Result<Option<Plan<Column>>, Refusal> {
        if schema.source().is_none() {
            // Plain records have no envelope.
            return Ok(None);
        }
        if self.names.is_empty() {
            return Ok(Some(Plan { schema: Arc::clone(schema), key: None, value: None }));
        }
        let mut columns: Vec<_> = schema.value().fields.iter().map(|_| Column::Copy).collect();
        let mut value = (**schema.value()).clone();
        for name in &self.names {
            let (field, column) = Self::added(name, schema)?;
            if value.index_of(&field.name).is_some() {
                let message = format!("{} has a field `{}` already", schema.name(), field.name);
                return Err(Refusal::new("UNWRAP_CONFLICT", message).with_hint("rename it first"));
            }
            value.fields.push(field);
            columns.push(column);
        }
        Ok(Some(Plan { schema: with_rows(schema, None, value), key: None, value: Some(columns) }))
    }

    fn passes(&self, record: RecordView<'_>) -> bool {
        record.op().is_none() || record.is_flat()
    }

    fn write(
        &self,
        column: &Column,
        value: Value<'_>,
        record: RecordView<'_>,
        out: &mut RowWriter<'_>,
    ) -> Result<(), Refusal> {
        match column {
            Column::Copy => out.value(value),
            Column::Op => match record.op().and_then(Op::letter) {
                Some(letter) => out.text(letter),
                None => out.null(),
            },
            Column::TimestampMs => out.int(record.timestamp_ms()),
            Column::Source(index) => match record.source() {
                Some(source) => out.value(source.get(*index)),
                None => out.null(),
            },
            Column::Constant(text) => out.text(text),
        }
        Ok(())
    }

    fn finish(&self, record: &mut RecordBuilder<'_>) {
        record.flat(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Records, apply, build, change_schema, plain_schema, rejected};
    use serde_json::json;

    fn changes() -> Batch {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Create, 1, None, Some((1, "1", Some("n"))));
        records.change(&schema, Op::Update, 1, Some((1, "1", Some("n"))), Some((1, "2", None)));
        records.change(&schema, Op::Delete, 1, Some((1, "2", None)), None);
        records.change(&schema, Op::Tombstone, 1, None, None);
        records.change(&schema, Op::Truncate, 0, None, None);
        records.toasted(&schema, 8);
        records.plain(&plain_schema(), 9, "info", 0.5);
        records.build()
    }

    #[test]
    fn rows_are_flat_and_still_tell_what_happened() {
        let batch = apply(build(&Unwrap::default(), json!({})), changes());
        let ops: Vec<_> = batch.records().map(|record| (record.op(), record.is_flat())).collect();
        assert_eq!(
            ops,
            [
                (Some(Op::Create), true),
                (Some(Op::Update), true),
                (Some(Op::Delete), true),
                (Some(Op::Truncate), true),
                (Some(Op::Update), true),
                (None, false),
            ],
            "the tombstone is dropped"
        );
        let update = batch.record(1);
        assert_eq!(update.before().unwrap().get(2), Value::Text("n"));
        assert_eq!(update.after().unwrap().get(1), Value::Text("2"));
        assert_eq!(update.schema().id(), change_schema().id(), "the schema is the same");
        assert!(batch.record(2).after().is_none() && batch.record(2).key().is_some());
        assert!(batch.record(3).key().is_none());
        assert_eq!(batch.record(4).after().unwrap().get(2), Value::Absent);
        assert_eq!((update.lane(), update.position(), update.offset()), (3, Some(&b"p1"[..]), 1));
        assert_eq!(update.headers().count(), 1);
    }

    #[test]
    fn tombstones_can_stay() {
        let batch = apply(build(&Unwrap::default(), json!({"drop_tombstones": false})), changes());
        assert_eq!(batch.len(), 7);
        assert_eq!(batch.record(3).op(), Some(Op::Tombstone));
    }

    #[test]
    fn parts_of_the_envelope_become_fields() {
        let options = json!({"add_fields": ["op", "ts_ms", "lsn", "table", "source.ts_ms"]});
        let batch = apply(build(&Unwrap::default(), options), changes());
        let after = batch.record(1).after().unwrap();
        let added: Vec<_> = after.schema().fields[3..].iter().map(|field| field.name.as_str()).collect();
        assert_eq!(added, ["__op", "__ts_ms", "__lsn", "__table", "__source_ts_ms"]);
        let values: Vec<_> = (3..8).map(|index| after.get(index)).collect();
        assert_eq!(
            values,
            [
                Value::Text("u"),
                Value::Int(1_700_000_000_000),
                Value::Int(99),
                Value::Text("orders"),
                Value::Int(1_600)
            ]
        );
        assert_eq!(batch.record(5).after().unwrap().len(), 3, "a plain record has no envelope");
    }

    #[test]
    fn what_the_envelope_does_not_have_rejects() {
        let mut unwrap = build(&Unwrap::default(), json!({"add_fields": ["gtid"]}));
        let (batch, refused) = rejected(&mut *unwrap, changes());
        assert_eq!((batch.len(), refused.1.len()), (1, 5));
        assert_eq!(refused.1[0].code(), "UNWRAP_FIELD");
    }

    #[test]
    fn unwrapping_twice_is_unwrapping_once() {
        let options = || json!({"add_fields": ["op"]});
        let once = apply(build(&Unwrap::default(), options()), changes());
        let id = once.record(0).schema().id();
        let twice = apply(build(&Unwrap::default(), json!({})), once);
        assert_eq!(twice.record(0).schema().id(), id);
    }

    #[test]
    fn wrong_options_are_told() {
        let unwrap = Unwrap::default();
        let options = json!({"add_fields": ["source.lsn", "source_lsn"]});
        let config = RawConfig::with_defaults(&unwrap.descriptor().options, options).unwrap();
        assert_eq!(unwrap.parse(&config).err().unwrap().problems[0].path, "add_fields[1]");
    }
}
