//! What the YAML says.

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorError, ConnectorKind, Descriptor, EventSchema, Field,
    Guarantee, OptionSpec, OptionType, RawConfig, RowSchema, Source, SourceConnector, SourceFactory,
    SourceOffsets, TaskContext, TaskSpec,
};

use super::field::{KINDS, Kind};
use super::task::Task;

/// The type `generate`.
#[derive(Debug)]
pub struct Generate {
    descriptor: Descriptor,
}

impl Default for Generate {
    fn default() -> Self {
        let options = ConfigSpec::new(vec![
            OptionSpec::optional(
                "records",
                OptionType::int(0, i64::MAX),
                "How many records; without it, no end.",
            ),
            OptionSpec::optional(
                "rate",
                OptionType::int(1, 100_000_000),
                "Records a second; without it, as fast as possible.",
            ),
            OptionSpec::with_default(
                "seed",
                OptionType::int(0, i64::MAX),
                json!(1),
                "The same seed gives the same records.",
            ),
            OptionSpec::with_default(
                "fields",
                OptionType::map(OptionType::NonEmptyString),
                json!({ "id": "sequence", "at": "timestamp", "word": "word", "amount": "decimal(0,1000)" }),
                &format!("Fields and what they hold: {KINDS}."),
            ),
            OptionSpec::optional(
                "key",
                OptionType::NonEmptyString,
                "The field that becomes the record's key.",
            ),
            OptionSpec::with_default(
                "name",
                OptionType::NonEmptyString,
                json!("generated"),
                "What {table} stands for.",
            ),
        ]);
        Self {
            descriptor: Descriptor {
                name: "generate".to_owned(),
                kind: ConnectorKind::Source,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                summary: "Synthetic records from a seed, at a chosen rate".to_owned(),
                guarantee: Some(Guarantee::ExactlyOnce),
                options,
            },
        }
    }
}

/// Validated options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) records: Option<u64>,
    pub(crate) rate: Option<u64>,
    pub(crate) seed: u64,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) key: Option<usize>,
    pub(crate) schema: Arc<EventSchema>,
}

impl Options {
    fn read(config: &RawConfig) -> Result<Self, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let (mut kinds, mut fields) = (Vec::new(), Vec::new());
        for (name, kind) in
            config.values().get("fields").and_then(|fields| fields.as_object()).into_iter().flatten()
        {
            match Kind::parse(kind.as_str().unwrap_or_default()) {
                Ok(kind) => {
                    fields.push(Field::required(name.as_str(), kind.ty()));
                    kinds.push(kind);
                }
                Err(message) => problems.problems.push(ConfigProblem::new(format!("fields.{name}"), message)),
            }
        }
        let row = RowSchema::new(fields);
        let key = config.opt_str("key").and_then(|name| {
            let index = row.index_of(name);
            if index.is_none() && problems.problems.is_empty() {
                problems.problems.push(ConfigProblem::new("key", format!("there is no field `{name}`")));
            }
            index
        });
        problems.into_result()?;
        let key_row = key.map(|index| Arc::new(RowSchema::new(vec![row.fields[index].clone()])));
        let name = config.str("name");
        let schema = EventSchema::new(name, Arc::new(row))
            .with_key(key_row)
            .with_variables([("table".to_owned(), name.to_owned())].into());
        let number = |name: &str| config.int(name).and_then(|number| u64::try_from(number).ok());
        Ok(Self {
            records: number("records"),
            rate: number("rate"),
            seed: number("seed").unwrap_or(1),
            kinds,
            key,
            schema: Arc::new(schema),
        })
    }
}

impl SourceFactory for Generate {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems> {
        Ok(Box::new(Connector { options: Options::read(config)? }))
    }
}

struct Connector {
    options: Options,
}

#[async_trait]
impl SourceConnector for Connector {
    async fn check(&self, _context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        Ok(vec![format!("{} fields", self.options.kinds.len())])
    }

    async fn plan(&self, tasks_max: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        // Task i makes every record whose number is i modulo the number of tasks.
        let of = tasks_max.get();
        Ok((0..of).map(|index| TaskSpec { index, assignment: json!({ "of": of }) }).collect())
    }

    async fn open(
        &self,
        task: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        let of = task.assignment.get("of").and_then(serde_json::Value::as_u64).unwrap_or(1).max(1);
        Ok(Box::new(Task::open(self.options.clone(), u64::from(task.index), of, &resume, context)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_fields_and_keys_are_told() {
        let factory = Generate::default();
        let read =
            |values| Options::read(&RawConfig::with_defaults(&factory.descriptor.options, values).unwrap());
        assert_eq!(read(json!({ "key": "id" })).unwrap().key, Some(0));
        let problems = read(json!({ "fields": { "a": "int(2,1)", "b": "what" } })).unwrap_err().problems;
        assert_eq!(problems.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["fields.a", "fields.b"]);
        assert_eq!(read(json!({ "key": "nope" })).unwrap_err().problems[0].path, "key");
    }
}
