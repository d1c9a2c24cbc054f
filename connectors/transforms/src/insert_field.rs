//! `insert_field`: a field more, with a constant or with what is known of the record.

use std::sync::Arc;

use towpath_api::{
    ConfigProblem, ConfigProblems, Descriptor, EventSchema, Field, OptionSpec, OptionType, RawConfig,
    RecordView, RowWriter, Transform, TransformFactory, Type, Value,
};

use super::options::{Constant, Only, descriptor};
use super::rewrite::{Plan, Refusal, Rewrite, Rewriter, with_rows};
use super::temporal;

const ORIGINS: &[(&str, &str)] = &[
    ("topic", "The topic that the record comes from, or that was chosen for it; null if there is none yet."),
    ("partition", "The partition, in the same way."),
    ("offset", "The offset; null for a record on its way into a topic."),
    ("timestamp", "The record's timestamp."),
    ("op", "The operation of a change event (`c`, `r`, `u`, `d`); null for others."),
    ("schema", "The name of the record's schema (`public.orders`)."),
];

/// The type `insert_field`.
#[derive(Debug)]
pub struct InsertField {
    descriptor: Descriptor,
}

impl Default for InsertField {
    fn default() -> Self {
        let options = vec![
            OptionSpec::required(
                "name",
                OptionType::NonEmptyString,
                "The new field, behind all others; a record whose row has it already is rejected.",
            ),
            OptionSpec::optional(
                "value",
                OptionType::Scalar,
                "A constant: text, a number, true, false or null.",
            ),
            OptionSpec::optional(
                "from",
                OptionType::choices(ORIGINS),
                "Instead of a constant: what is known of the record.",
            ),
        ];
        Self { descriptor: descriptor("insert_field", "Adds a field", options) }
    }
}

impl TransformFactory for InsertField {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let constant = config.values().get("value").map(Constant::of);
        let content = match (constant, config.opt_str("from")) {
            (Some(Some(constant)), None) => Content::Constant(constant),
            (None, Some(origin)) => match Origin::by_name(origin) {
                Some(origin) => Content::Origin(origin),
                None => return Err(ConfigProblem::new("from", format!("`{origin}` is not known")).into()),
            },
            (Some(None), _) => {
                return Err(
                    ConfigProblem::new("value", "text, a number, true, false or null is needed").into()
                );
            }
            (Some(_), Some(_)) => {
                return Err(ConfigProblem::new("from", "`value` is there already: one of them").into());
            }
            (None, None) => {
                let problem = ConfigProblem::new("", "`value` or `from` is needed");
                return Err(problem
                    .with_hint("`value: 1` for a constant, `from: offset` for the record's offset")
                    .into());
            }
        };
        let name = config.str("name").to_owned();
        Ok(Box::new(Rewriter::new(Insertion { name, content }, Only::of(config))))
    }
}

/// What is known of a record.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Op,
    Schema,
}

impl Origin {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "topic" => Self::Topic,
            "partition" => Self::Partition,
            "offset" => Self::Offset,
            "timestamp" => Self::Timestamp,
            "op" => Self::Op,
            "schema" => Self::Schema,
            _ => return None,
        })
    }

    const fn ty(self) -> Type {
        match self {
            Self::Topic | Self::Op | Self::Schema => Type::String,
            Self::Partition => Type::Int32,
            Self::Offset => Type::Int64,
            Self::Timestamp => Type::TimestampTz,
        }
    }

    fn write(self, record: RecordView<'_>, out: &mut RowWriter<'_>) {
        let text = match self {
            Self::Topic => record.topic().map(towpath_types::TopicName::as_str),
            Self::Op => record.op().and_then(towpath_api::Op::letter),
            Self::Schema => Some(record.schema().name()),
            Self::Partition => return number(record.partition().map(i64::from), out),
            Self::Offset => return number(Some(record.offset()).filter(|offset| *offset >= 0), out),
            Self::Timestamp => return out.text(&temporal::from_epoch_ms(record.timestamp_ms())),
        };
        match text {
            Some(text) => out.text(text),
            None => out.null(),
        }
    }
}

fn number(value: Option<i64>, out: &mut RowWriter<'_>) {
    match value {
        Some(value) => out.int(value),
        None => out.null(),
    }
}

/// What the field holds.
#[derive(Debug)]
enum Content {
    Constant(Constant),
    Origin(Origin),
}

struct Insertion {
    name: String,
    content: Content,
}

/// What becomes of a field.
enum Column {
    Copy,
    Insert,
}

impl Rewrite for Insertion {
    type Column = Column;

    fn plan(&self, schema: &Arc<EventSchema>) -> Result<Option<Plan<Column>>, Refusal> {
        let rows = schema.value();
        if rows.is_bare() {
            let message = format!("the records of {} have no fields, but are one value", schema.name());
            return Err(Refusal::new("INSERT_FIELD_BARE", message)
                .with_hint("give the value a name with `rename: {fields: {\"\": line}}` first"));
        }
        if rows.index_of(&self.name).is_some() {
            let message = format!("{} has a field `{}` already", schema.name(), self.name);
            return Err(Refusal::new("INSERT_FIELD_CONFLICT", message).with_hint("choose another name"));
        }
        let ty = match &self.content {
            Content::Constant(constant) => constant.natural_type(),
            Content::Origin(origin) => origin.ty(),
        };
        let mut value = (**rows).clone();
        value.fields.push(Field::nullable(self.name.as_str(), ty));
        let mut columns: Vec<_> = rows.fields.iter().map(|_| Column::Copy).collect();
        columns.push(Column::Insert);
        Ok(Some(Plan { schema: with_rows(schema, None, value), key: None, value: Some(columns) }))
    }

    fn write(
        &self,
        column: &Column,
        value: Value<'_>,
        record: RecordView<'_>,
        out: &mut RowWriter<'_>,
    ) -> Result<(), Refusal> {
        match (column, &self.content) {
            (Column::Copy, _) => out.value(value),
            (Column::Insert, Content::Origin(origin)) => origin.write(record, out),
            (Column::Insert, Content::Constant(constant)) => match constant {
                Constant::Null => out.null(),
                Constant::Bool(value) => out.bool(*value),
                Constant::Int(value) => out.int(*value),
                Constant::Float(value) => out.float64(*value),
                Constant::Text(text) => out.text(text),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Records, apply, build, change_schema, plain_schema, rejected};
    use serde_json::json;
    use towpath_api::{BatchBuilder, Op, RowSchema};

    #[test]
    fn constants_are_inserted_before_and_after() {
        for (value, expected, ty) in [
            (json!("eu"), Value::Text("eu"), Type::String),
            (json!(7), Value::Int(7), Type::Int64),
            (json!(0.5), Value::Float64(0.5), Type::Float64),
            (json!(true), Value::Bool(true), Type::Bool),
            (json!(null), Value::Null, Type::String),
        ] {
            let schema = change_schema();
            let mut records = Records::default();
            records.change(&schema, Op::Update, 7, Some((7, "1", None)), Some((7, "2", Some("n"))));
            records.change(&schema, Op::Delete, 7, Some((7, "1", None)), None);
            let batch = apply(
                build(&InsertField::default(), json!({"name": "region", "value": value})),
                records.build(),
            );
            let record = batch.record(0);
            assert_eq!(record.before().unwrap().by_name("region"), Some(expected));
            assert_eq!(record.after().unwrap().by_name("region"), Some(expected));
            assert_eq!(record.after().unwrap().get(2), Value::Text("n"));
            assert_eq!(record.key().unwrap().get(0), Value::Int(7));
            assert_eq!(record.schema().value().fields[3].ty, ty);
            assert!(batch.record(1).after().is_none(), "a deletion stays one");
        }
    }

    #[test]
    fn what_is_known_of_a_record_is_inserted() {
        let schema = change_schema();
        for (from, expected) in [
            ("topic", Value::Null),
            ("partition", Value::Null),
            ("offset", Value::Int(7)),
            ("timestamp", Value::Text("2023-11-14T22:13:20.000Z")),
            ("op", Value::Text("c")),
            ("schema", Value::Text("public.orders")),
        ] {
            let mut records = Records::default();
            records.change(&schema, Op::Create, 7, None, Some((7, "1", None)));
            let batch =
                apply(build(&InsertField::default(), json!({"name": "_x", "from": from})), records.build());
            assert_eq!(batch.record(0).after().unwrap().by_name("_x"), Some(expected), "{from}");
        }
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&plain_schema());
        record.topic(&"logs.eu".parse().unwrap()).partition(3).after(|row| row.int(1));
        record.finish();
        let batch =
            apply(build(&InsertField::default(), json!({"name": "t", "from": "topic"})), builder.build());
        assert_eq!(batch.record(0).after().unwrap().by_name("t"), Some(Value::Text("logs.eu")));
        let batch = apply(build(&InsertField::default(), json!({"name": "p", "from": "partition"})), batch);
        assert_eq!(batch.record(0).after().unwrap().by_name("p"), Some(Value::Int(3)));
        let batch = apply(build(&InsertField::default(), json!({"name": "o", "from": "offset"})), batch);
        assert_eq!(batch.record(0).after().unwrap().by_name("o"), Some(Value::Null));
    }

    #[test]
    fn rows_that_cannot_take_it_are_rejected() {
        let mut records = Records::default();
        records.plain(&plain_schema(), 1, "info", 0.5);
        let mut insert = build(&InsertField::default(), json!({"name": "level", "value": 1}));
        let (_, refused) = rejected(&mut *insert, records.build());
        assert_eq!(refused.1[0].code(), "INSERT_FIELD_CONFLICT");
        let bare = Arc::new(EventSchema::new("lines", Arc::new(RowSchema::bare(Type::String))));
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&bare);
        record.after(|row| row.text("line"));
        record.finish();
        let (_, refused) = rejected(&mut *insert, builder.build());
        assert_eq!(refused.1[0].code(), "INSERT_FIELD_BARE");
    }

    #[test]
    fn wrong_options_are_told() {
        let insert = InsertField::default();
        for (options, path) in [
            (json!({"name": "a"}), ""),
            (json!({"name": "a", "value": 1, "from": "op"}), "from"),
            (json!({"name": "a", "from": "nowhere"}), "from"),
            (json!({"name": "a", "value": {}}), "value"),
        ] {
            let config = RawConfig::with_defaults(&insert.descriptor().options, options).unwrap();
            assert_eq!(insert.parse(&config).err().unwrap().problems[0].path, path);
        }
    }
}
