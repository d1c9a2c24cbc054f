//! `route`: another topic for a record.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use regex::Regex;
use towpath_api::names::{Template, encode_part};
use towpath_api::{
    Batch, BatchBuilder, ConfigProblem, ConfigProblems, ConnectorError, Descriptor, EventSchema, OptionSpec,
    OptionType, RawConfig, RecordView, RejectedRecords, TopicTemplate, Transform, TransformFactory,
    Transformed,
};
use towpath_types::TopicName;

use super::options::{Only, descriptor};
use super::rewrite::Refusal;
use super::text;

/// The type `route`.
#[derive(Debug)]
pub struct Route {
    descriptor: Descriptor,
}

impl Default for Route {
    fn default() -> Self {
        let options = vec![
            OptionSpec::optional(
                "topic",
                OptionType::NonEmptyString,
                "The topic, as a template: `{topic}` is the topic so far and `{topic.N}` its N-th part, `{value.NAME}` \
                 and `{key.NAME}` are fields of the record, and everything else is a variable of its schema (`{schema}`, \
                 `{table}`). Variables are encoded, so that any value makes a legal name.",
            ),
            OptionSpec::optional(
                "pattern",
                OptionType::NonEmptyString,
                "Instead of a template: a regular expression that the whole topic so far must match; topics that do not \
                 match stay as they are.",
            ),
            OptionSpec::optional(
                "replacement",
                OptionType::String,
                "With `pattern`: the new topic, in which `$1` or `${name}` stands for a group.",
            ),
        ];
        let summary = "Chooses the topic of each record (the topic so far: the one it comes from, else its schema's name)";
        Self { descriptor: descriptor("route", summary, options) }
    }
}

impl TransformFactory for Route {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let options = (config.opt_str("topic"), config.opt_str("pattern"), config.opt_str("replacement"));
        let to = match options {
            (Some(topic), None, None) => {
                let legal = TopicTemplate::parse(topic);
                let template = legal.and_then(|_| Template::parse(topic));
                To::Template(template.map_err(|error| ConfigProblem::new("topic", error.to_string()))?)
            }
            (None, Some(pattern), Some(replacement)) => {
                // The whole name, so that nothing is left over by accident.
                let pattern = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|error| ConfigProblem::new("pattern", error.to_string()))?;
                To::Replacement(pattern, replacement.to_owned())
            }
            (None, Some(_), None) => {
                return Err(ConfigProblem::new("replacement", "is needed with `pattern`").into());
            }
            (None, None, Some(_)) => {
                return Err(ConfigProblem::new("pattern", "is needed with `replacement`").into());
            }
            (Some(_), _, _) => {
                return Err(ConfigProblem::new(
                    "topic",
                    "a template, or a pattern and a replacement: not both",
                )
                .into());
            }
            (None, None, None) => {
                let problem = ConfigProblem::new("", "`topic`, or `pattern` and `replacement`, are needed");
                return Err(problem.with_hint("`topic: \"{schema}.{table}\"`").into());
            }
        };
        Ok(Box::new(Routing { to, only: Only::of(config), last: None }))
    }
}

enum To {
    Template(Template),
    Replacement(Regex, String),
}

/// The last decision that depended on nothing but schema and topic.
struct Last {
    schema: Arc<EventSchema>,
    from: Option<TopicName>,
    to: Option<TopicName>,
}

struct Routing {
    to: To,
    only: Only,
    last: Option<Last>,
}

fn field<'a>(record: RecordView<'a>, name: &str) -> Option<Cow<'a, str>> {
    let value = if let Some(name) = name.strip_prefix("value.") {
        record.after().or_else(|| record.before())?.by_name(name)
    } else if let Some(name) = name.strip_prefix("key.") {
        record.key()?.by_name(name)
    } else {
        return record.schema().variables().get(name).map(|value| Cow::Borrowed(value.as_str()));
    };
    text::of(value?)
}

impl To {
    /// Whether records of one schema and topic all go the same way.
    fn is_fixed(&self) -> bool {
        match self {
            Self::Template(template) => {
                !template.variables().any(|name| name.starts_with("value.") || name.starts_with("key."))
            }
            Self::Replacement(..) => true,
        }
    }

    /// Where a record goes; `None` for where it goes anyway.
    fn choose(&self, record: RecordView<'_>) -> Result<Option<TopicName>, Refusal> {
        let current = record.topic().map_or(record.schema().name(), TopicName::as_str);
        let name = match self {
            Self::Template(template) => template
                .render(|name| match name.strip_prefix("topic") {
                    Some("") => Some(Cow::Borrowed(current)),
                    Some(part) if part.starts_with('.') => {
                        let index = part[1..].parse().ok()?;
                        // As it stands in the name: encoded already.
                        current.split('.').nth(index).map(Cow::Borrowed)
                    }
                    _ => field(record, name).map(|value| Cow::Owned(encode_part(&value).into_owned())),
                })
                .map_err(|error| {
                    Refusal::new(
                        "ROUTE_VARIABLE",
                        format!("no topic for a record of {}: {error}", record.schema().name()),
                    )
                    .with_hint("`towpath topics` and the record's schema tell what there is to use")
                })?,
            Self::Replacement(pattern, replacement) => match pattern.replace(current, replacement.as_str()) {
                Cow::Borrowed(_) => return Ok(None),
                Cow::Owned(name) => name,
            },
        };
        TopicName::new(&name).map(Some).map_err(|error| Refusal::new("ROUTE_TOPIC", error.to_string()))
    }
}

impl Routing {
    fn route(&mut self, record: RecordView<'_>) -> Result<Option<TopicName>, Refusal> {
        if let Some(last) = &self.last
            && Arc::ptr_eq(&last.schema, record.schema())
            && last.from.as_ref() == record.topic()
        {
            return Ok(last.to.clone());
        }
        if !self.only.matches(record.schema()) {
            return Ok(None);
        }
        let to = self.to.choose(record)?;
        if self.to.is_fixed() {
            let (schema, from) = (Arc::clone(record.schema()), record.topic().cloned());
            self.last = Some(Last { schema, from, to: to.clone() });
        }
        Ok(to)
    }
}

#[async_trait]
impl Transform for Routing {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        let mut out = BatchBuilder::new();
        let mut rejected = RejectedRecords::default();
        for record in batch.records() {
            match self.route(record) {
                Ok(topic) => {
                    let mut copy = out.record_like(record, record.schema());
                    if let Some(topic) = topic {
                        copy.topic(&topic);
                    }
                    copy.copy_key(record).copy_images(record).copy_source(record);
                    copy.finish();
                }
                Err(refusal) => rejected.push(record, refusal.into()),
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
    use towpath_api::Op;

    fn changes() -> Batch {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Create, 7, None, Some((7, "1", Some("EU west"))));
        records.change(&schema, Op::Delete, 8, Some((8, "2", Some("us"))), None);
        records.build()
    }

    fn from_topic(topic: &str) -> Batch {
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&plain_schema());
        record.topic(&topic.parse().unwrap()).after(|row| row.int(1));
        record.finish();
        builder.build()
    }

    fn topics(batch: &Batch) -> Vec<&str> {
        batch.records().map(|record| record.topic().map_or("-", TopicName::as_str)).collect()
    }

    #[test]
    fn templates_use_variables_topics_and_fields() {
        for (template, expected) in [
            ("shop.{schema}.{table}", ["shop.public.or_x2e_ders", "shop.public.or_x2e_ders"]),
            ("notes.{value.note}", ["notes.EU_x20_west", "notes.us"]),
            ("by-key.{key.id}", ["by-key.7", "by-key.8"]),
            ("fixed", ["fixed", "fixed"]),
            ("copy.{topic}", ["copy.public.orders", "copy.public.orders"]),
            ("{topic.1}", ["orders", "orders"]),
        ] {
            let batch = apply(build(&Route::default(), json!({"topic": template})), changes());
            assert_eq!(topics(&batch), expected, "{template}");
            assert_eq!(batch.record(0).after().unwrap().len(), 3);
            assert_eq!(batch.record(1).op(), Some(Op::Delete));
        }
        let batch =
            apply(build(&Route::default(), json!({"topic": "{topic.0}.all"})), from_topic("eu_x2e_1.orders"));
        assert_eq!(topics(&batch), ["eu_x2e_1.all"], "parts stay encoded");
    }

    #[test]
    fn patterns_replace_whole_names() {
        let route = || build(&Route::default(), json!({"pattern": "(\\w+)\\.log", "replacement": "logs.$1"}));
        assert_eq!(topics(&apply(route(), from_topic("app.log"))), ["logs.app"]);
        assert_eq!(topics(&apply(route(), from_topic("app.log.old"))), ["app.log.old"]);
        let renamed =
            build(&Route::default(), json!({"pattern": "public\\.(?P<t>.*)", "replacement": "x.${t}"}));
        assert_eq!(
            topics(&apply(renamed, changes())),
            ["x.orders", "x.orders"],
            "the schema's name at first"
        );
    }

    #[test]
    fn records_without_a_way_are_rejected() {
        let mut records = Records::default();
        records.plain(&plain_schema(), 1, "info", 0.5);
        records.plain(&plain_schema(), 2, &"ä".repeat(100), 0.5);
        let mut route = build(&Route::default(), json!({"topic": "{value.level}"}));
        let (batch, refused) = rejected(&mut *route, records.build());
        assert_eq!(topics(&batch), ["info"]);
        assert_eq!(refused.1[0].code(), "ROUTE_TOPIC");
        let mut route = build(&Route::default(), json!({"topic": "{table}"}));
        let mut records = Records::default();
        records.plain(&plain_schema(), 1, "info", 0.5);
        let (_, refused) = rejected(&mut *route, records.build());
        assert_eq!(refused.1[0].code(), "ROUTE_VARIABLE");
    }

    #[test]
    fn other_tables_stay_where_they_are() {
        let options = json!({"topic": "elsewhere", "only": ["logs"]});
        assert_eq!(topics(&apply(build(&Route::default(), options), changes())), ["-", "-"]);
    }

    #[test]
    fn wrong_options_are_told() {
        let route = Route::default();
        for (options, path) in [
            (json!({}), ""),
            (json!({"topic": "a b"}), "topic"),
            (json!({"topic": "a{b"}), "topic"),
            (json!({"topic": "a", "pattern": "b", "replacement": "c"}), "topic"),
            (json!({"pattern": "b"}), "replacement"),
            (json!({"replacement": "b"}), "pattern"),
            (json!({"pattern": "(", "replacement": "c"}), "pattern"),
        ] {
            let config = RawConfig::with_defaults(&route.descriptor().options, options).unwrap();
            assert_eq!(route.parse(&config).err().unwrap().problems[0].path, path);
        }
    }
}
