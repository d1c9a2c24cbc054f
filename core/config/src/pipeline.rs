//! `pipelines:` into [`PipelineSpec`]s.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use towpath_api::names::{TopicPattern, TopicTemplate};
use towpath_api::pipeline::{
    Compression, DeadLetterSpec, FormatKind, FormatSpec, JsonSchemas, NewTopicSpec, PipelineSpec, SinkSpec,
    SourceSpec, TransformSpec,
};
use towpath_api::{ConfigProblems, ConnectorKind, Descriptor, RawConfig};
use towpath_types::TopicName;

use super::layout::pipeline_options;
use super::load::Root;
use super::plugins::Types;
use super::problem::Problem;
use super::secrets::Secrets;
use super::suggest::nearest;
use super::tree::{Key, Node, Place, Value};
use super::validate::{to_json, validate};

/// What `pipelines:` declares.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) pipelines: Vec<PipelineSpec>,
    /// By name, as they stand in the files.
    pub(crate) nodes: BTreeMap<String, (Key, Node)>,
}

/// Every pipeline of every file, by name.
pub(crate) fn read_all(
    files: &[Root],
    types: &Types,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Declared {
    let mut declared = Declared { pipelines: Vec::new(), nodes: BTreeMap::new() };
    for file in files {
        let Some(section) = file.resolved.get("pipelines") else { continue };
        if !matches!(section.value, Value::Map(_) | Value::Null) {
            let message = "`pipelines` must be a map of pipelines by name";
            problems.push(
                Problem::new("CONFIG_TYPE", section.place.clone(), message)
                    .with_hint("write `pipelines:`, and below it `my_pipeline:` with `source:`, `topic:` …"),
            );
        }
        for (key, node) in section.entries() {
            if let Some((first, _)) = declared.nodes.get(&key.name) {
                let (line, _) = first.place.line_and_column();
                let first = first.place.file.path.display();
                let message = format!("there is a pipeline `{}` already ({first}:{line})", key.name);
                problems.push(
                    Problem::new("CONFIG_DUPLICATE", key.place.clone(), message)
                        .with_hint("stored offsets belong to a pipeline's name: give this one another"),
                );
                continue;
            }
            check_name(&key.name, &key.place, problems);
            declared.nodes.insert(key.name.clone(), (key.clone(), node.clone()));
            let mut spec = Reader { types, secrets, problems }.pipeline(&key.name, &key.place, node);
            // R13: the identity of a pipeline is written into a topic, so secrets are not a part of it.
            let written = file.written.get("pipelines").and_then(|section| section.get(&key.name));
            spec.content_hash = Sha256::digest(written.map(to_json).unwrap_or_default().to_string()).into();
            declared.pipelines.push(spec);
        }
    }
    declared
}

fn check_name(name: &str, place: &Place, problems: &mut Vec<Problem>) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(legal) {
        problems.push(
            Problem::new("CONFIG_NAME", place.clone(), format!("`{name}` cannot be a pipeline's name"))
                .with_hint("1 to 100 characters out of a-z, A-Z, 0-9, `_` and `-`: topics, groups and slots are named after it"),
        );
    }
}

struct Reader<'a> {
    types: &'a Types,
    secrets: &'a Secrets,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn pipeline(&mut self, name: &str, place: &Place, node: &Node) -> PipelineSpec {
        let frame = validate(node, &pipeline_options(), &[], self.secrets, self.problems);
        let tasks_max =
            frame.int("tasks").and_then(|tasks| u32::try_from(tasks).ok()).and_then(NonZeroU32::new);
        let tasks_max = tasks_max.unwrap_or(NonZeroU32::MIN);
        let mut spec = PipelineSpec::new(name);
        spec.source = node.get("source").and_then(|node| self.source(node, tasks_max));
        spec.sink = node.get("sink").and_then(|node| self.sink(node, tasks_max));
        spec.transforms = self.transforms(node);
        spec.topic = self.topic(node);
        spec.topics = self.topics(node);
        spec.format = self.format(node);
        spec.dead_letter = self.dead_letter(node);
        spec.new_topics = new_topics(&frame);
        spec.compression = compression(frame.str("compression"));
        self.check_shape(place, node);
        if let Err(error) = spec.dead_letter_topic() {
            self.problems.push(Problem::new("CONFIG_NAME", place.clone(), error.to_string()));
        }
        spec
    }

    /// A pipeline has a source and a topic, or topics and a sink, or a source, a topic and a sink.
    fn check_shape(&mut self, place: &Place, node: &Node) {
        let has = |name: &str| node.get(name).is_some_and(|node| !matches!(node.value, Value::Null));
        let (message, hint) = match (has("source"), has("topic"), has("topics"), has("sink")) {
            (true, true, false, _) | (false, false, true, true) => return,
            (false, _, _, false) => (
                "this pipeline has neither a source nor a sink",
                "give it `source:` and `topic:`, or `topics:` and `sink:`, or `source:`, `topic:` and `sink:`",
            ),
            (true, false, _, _) => (
                "this pipeline has a source but no `topic` to write to",
                "add `topic:`, for example `topic: \"shop.{schema}.{table}\"`",
            ),
            (true, true, true, _) => (
                "`topics` does not go with `source`: its sink reads what `topic` makes",
                "remove `topics:`, or move the sink into a pipeline of its own",
            ),
            (false, true, false, true) => (
                "a pipeline with a sink alone reads `topics`, not `topic`",
                "write `topics: [name, \"pattern.*\"]`",
            ),
            (false, true, true, true) => {
                ("`topic` belongs to a source, and this pipeline has none", "remove `topic:`")
            }
            (false, false, false, true) => (
                "this pipeline has a sink but no `topics` to read",
                "add `topics:`, for example `topics: [\"shop.public.*\"]`",
            ),
        };
        self.problems.push(Problem::new("CONFIG_PIPELINE", place.clone(), message).with_hint(hint));
    }

    fn source(&mut self, node: &Node, tasks_max: NonZeroU32) -> Option<SourceSpec> {
        let registry = &self.types.registry;
        let known = registry.descriptors(ConnectorKind::Source);
        let kind = self.kind(node, "source", &known)?;
        let factory = registry.source(&kind)?;
        let config = self.options(node, factory.descriptor())?;
        let connector = self.parsed(node, factory.parse(&config))?;
        Some(SourceSpec { kind, connector: Arc::from(connector), tasks_max })
    }

    fn sink(&mut self, node: &Node, tasks_max: NonZeroU32) -> Option<SinkSpec> {
        let registry = &self.types.registry;
        let known = registry.descriptors(ConnectorKind::Sink);
        let kind = self.kind(node, "sink", &known)?;
        let factory = registry.sink(&kind)?;
        let config = self.options(node, factory.descriptor())?;
        let connector = self.parsed(node, factory.parse(&config))?;
        Some(SinkSpec { tasks_max, ..SinkSpec::new(kind, Arc::from(connector)) })
    }

    fn transforms(&mut self, node: &Node) -> Vec<TransformSpec> {
        let Some(Value::List(items)) = node.get("transforms").map(|node| &node.value) else {
            return Vec::new();
        };
        items.iter().filter_map(|item| self.transform(item)).collect()
    }

    fn transform(&mut self, node: &Node) -> Option<TransformSpec> {
        let registry = &self.types.registry;
        let known = registry.descriptors(ConnectorKind::Transform);
        let kind = self.kind(node, "transform", &known)?;
        let factory = registry.transform(&kind)?;
        let config = self.options(node, factory.descriptor())?;
        self.parsed(node, factory.parse(&config))?;
        Some(TransformSpec { kind, factory: Arc::clone(factory), config })
    }

    /// The `type` of a source, sink or transform: the first of the two steps (the second is [`Reader::options`]).
    fn kind(&mut self, node: &Node, what: &str, known: &[&Descriptor]) -> Option<String> {
        let names = || known.iter().map(|descriptor| descriptor.name.as_str());
        let all = names().collect::<Vec<_>>().join(", ");
        let Some(kind) = node.get("type") else {
            let message = if matches!(node.value, Value::Map(_)) {
                format!("this {what} has no `type`")
            } else {
                format!("a {what} is a map with a `type`, not {}", node.value.kind())
            };
            let problem = Problem::new("CONFIG_MISSING", node.place.clone(), message);
            self.problems.push(problem.with_hint(format!("add `type:`, one of {all}")));
            return None;
        };
        if let Some(name) = kind.as_str() {
            if names().any(|known| known == name) {
                return Some(name.to_owned());
            }
            if self.types.broken.contains(name) {
                return None;
            }
            let hint = match (self.types.kinds(name).as_slice(), nearest(name, names())) {
                ([], Some(word)) => format!("did you mean `{word}`?"),
                ([], None) => format!("there are: {all}"),
                (kinds, _) => {
                    format!("`{name}` is a {}; as a {what} there are: {all}", kinds.join(" and a "))
                }
            };
            let problem = Problem::new(
                "CONFIG_UNKNOWN_TYPE",
                kind.place.clone(),
                format!("there is no {what} `{name}`"),
            );
            self.problems.push(problem.with_hint(hint));
        } else {
            let message = format!("`type` must be a word, not {}", kind.value.kind());
            self.problems.push(Problem::new("CONFIG_TYPE", kind.place.clone(), message));
        }
        None
    }

    /// The options, when all of them are right.
    fn options(&mut self, node: &Node, descriptor: &Descriptor) -> Option<RawConfig> {
        let before = self.problems.len();
        let config = validate(node, &descriptor.options, &["type"], self.secrets, self.problems);
        // What could not be resolved is told already, and nobody is asked what is wrong without it.
        (self.problems.len() == before && !node.has_unresolved()).then_some(config)
    }

    /// What a factory made of them, or its problems at their places.
    fn parsed<T>(&mut self, node: &Node, result: Result<T, ConfigProblems>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problems) => {
                for problem in problems.problems {
                    let message = self.secrets.redact(&problem.message);
                    let mut shown =
                        Problem::new("CONFIG_OPTION", node.at(&problem.path).place.clone(), message);
                    shown.hint = problem.hint;
                    self.problems.push(shown);
                }
                None
            }
        }
    }

    fn topic(&mut self, node: &Node) -> Option<TopicTemplate> {
        let topic = node.get("topic")?;
        match TopicTemplate::parse(topic.as_str()?) {
            Ok(template) => Some(template),
            Err(error) => {
                self.problems.push(Problem::new("CONFIG_TEMPLATE", topic.place.clone(), error.to_string()));
                None
            }
        }
    }

    fn topics(&mut self, node: &Node) -> Vec<TopicPattern> {
        let Some(Value::List(items)) = node.get("topics").map(|node| &node.value) else { return Vec::new() };
        let mut patterns = Vec::new();
        for item in items {
            match item.as_str().map(TopicPattern::parse) {
                Some(Ok(pattern)) => patterns.push(pattern),
                Some(Err(error)) => {
                    self.problems.push(Problem::new(
                        "CONFIG_TEMPLATE",
                        item.place.clone(),
                        error.to_string(),
                    ));
                }
                None => {}
            }
        }
        if items.is_empty() {
            let place = node.get("topics").unwrap_or(node).place.clone();
            self.problems.push(Problem::new("CONFIG_TEMPLATE", place, "`topics` names no topic"));
        }
        patterns
    }

    fn format(&mut self, node: &Node) -> FormatSpec {
        let Some(format) = node.get("format") else { return FormatSpec::default() };
        let (name, schemas) = match &format.value {
            Value::String(name) => (Some(name.as_str()), None),
            Value::Map(entries) => {
                for (key, _) in
                    entries.iter().filter(|(key, _)| !["type", "schemas"].contains(&key.name.as_str()))
                {
                    let message = format!("unknown key `{}`", key.name);
                    let problem = Problem::new("CONFIG_UNKNOWN_KEY", key.place.clone(), message);
                    self.problems.push(problem.with_hint("known here: type, schemas"));
                }
                (format.get("type").and_then(Node::as_str), format.get("schemas"))
            }
            _ => (None, None),
        };
        let schemas = match schemas.map(|node| (node, node.as_str())) {
            None | Some((_, Some("id"))) => JsonSchemas::Id,
            Some((_, Some("inline"))) => JsonSchemas::Inline,
            Some((_, Some("none"))) => JsonSchemas::None,
            Some((node, _)) => {
                let message = "`schemas` must be `id`, `inline` or `none`";
                self.problems.push(Problem::new("CONFIG_TYPE", node.place.clone(), message));
                JsonSchemas::Id
            }
        };
        match name {
            Some("json") => FormatSpec { key: FormatKind::Json(schemas), value: FormatKind::Json(schemas) },
            Some("raw") => FormatSpec { key: FormatKind::Raw, value: FormatKind::Raw },
            _ => {
                let problem =
                    Problem::new("CONFIG_TYPE", format.place.clone(), "`format` must be `json` or `raw`");
                self.problems.push(problem.with_hint("or a map: { type: json, schemas: inline }"));
                FormatSpec::default()
            }
        }
    }

    fn dead_letter(&mut self, node: &Node) -> DeadLetterSpec {
        let mut spec = DeadLetterSpec::default();
        let Some(node) = node.get("dead_letter") else { return spec };
        match &node.value {
            Value::Bool(enabled) => spec.enabled = *enabled,
            Value::Map(entries) => {
                for (key, value) in entries {
                    match (key.name.as_str(), &value.value) {
                        ("enabled", Value::Bool(enabled)) => spec.enabled = *enabled,
                        ("topic", Value::String(topic)) => match TopicName::new(topic) {
                            Ok(topic) => spec.topic = Some(topic),
                            Err(error) => self.problems.push(Problem::new(
                                "CONFIG_NAME",
                                value.place.clone(),
                                error.to_string(),
                            )),
                        },
                        ("enabled" | "topic", _) => self.problems.push(Problem::new(
                            "CONFIG_TYPE",
                            value.place.clone(),
                            format!("`{}` cannot be {}", key.name, value.value.kind()),
                        )),
                        (other, _) => self.problems.push(
                            Problem::new(
                                "CONFIG_UNKNOWN_KEY",
                                key.place.clone(),
                                format!("unknown key `{other}`"),
                            )
                            .with_hint("known here: enabled, topic"),
                        ),
                    }
                }
            }
            other => self.problems.push(
                Problem::new(
                    "CONFIG_TYPE",
                    node.place.clone(),
                    format!("`dead_letter` cannot be {}", other.kind()),
                )
                .with_hint("write true, false, or { topic: name }"),
            ),
        }
        spec
    }
}

fn new_topics(frame: &RawConfig) -> NewTopicSpec {
    let mut spec = NewTopicSpec::default();
    if let Some(partitions) = frame.int("partitions").and_then(|partitions| i32::try_from(partitions).ok()) {
        spec.partitions = partitions;
    }
    spec.replication_factor = frame.int("replication_factor").and_then(|factor| i16::try_from(factor).ok());
    if let Some(configs) = frame.values().get("topic_config").and_then(serde_json::Value::as_object) {
        let text =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        spec.configs = configs.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    }
    spec
}

fn compression(name: &str) -> Compression {
    match name {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        // The validator lets nothing else through than `none`, or nothing at all after a problem.
        _ => Compression::None,
    }
}
