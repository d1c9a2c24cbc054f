//! Plugins in configurations, right and wrong; the plugins themselves are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use towpath_api::{
    Batch, ConfigProblem, ConfigProblems, ConfigSpec, ConnectorError, ConnectorKind, Descriptor, OptionSpec,
    OptionType, PluginLoader, PluginTypes, RawConfig, Registry, Transform, TransformFactory, Transformed,
};
use towpath_config::{json_schema, load_text};

/// A transform with an option `fields`, of which none may be called `secret`.
struct Masks(Descriptor);

impl Masks {
    fn new(name: &str) -> Arc<Self> {
        let fields = OptionType::list(OptionType::NonEmptyString);
        Arc::new(Self(Descriptor {
            name: name.to_owned(),
            kind: ConnectorKind::Transform,
            version: "1".to_owned(),
            summary: "For tests.".to_owned(),
            guarantee: None,
            options: ConfigSpec::new(vec![OptionSpec::required("fields", fields, "Which.")]),
        }))
    }
}

struct Nothing;

#[async_trait]
impl Transform for Nothing {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        Ok(batch.into())
    }
}

impl TransformFactory for Masks {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        match config.strings("fields").iter().position(|field| field == "secret") {
            None => Ok(Box::new(Nothing)),
            Some(at) => Err(ConfigProblem::new(format!("fields[{at}]"), "this one is not there").into()),
        }
    }
}

/// Loads what is called `good.wasm`.
struct Loader;

impl PluginLoader for Loader {
    fn options(&self) -> ConfigSpec {
        let hosts = OptionType::list(OptionType::NonEmptyString);
        let grants = ConfigSpec::new(vec![OptionSpec::optional("http", hosts, "Hosts.")]);
        ConfigSpec::new(vec![
            OptionSpec::required("path", OptionType::Path, "The file."),
            OptionSpec::optional("grants", OptionType::Object(grants), "What it may reach."),
        ])
    }

    fn load(&self, name: &str, config: &RawConfig) -> Result<PluginTypes, ConfigProblems> {
        if config.str("path") != "good.wasm" {
            return Err(ConfigProblem::new("path", "there is no such file").with_hint("build it").into());
        }
        let grants = config.values().get("grants").and_then(|it| it["http"].as_array());
        if let Some(at) = grants.and_then(|it| it.iter().position(|host| host == "https://no.host")) {
            return Err(ConfigProblem::new(format!("grants.http[{at}]"), "this is no host").into());
        }
        Ok(PluginTypes { transform: Some(Masks::new(name)), ..PluginTypes::default() })
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.set_plugin_loader(Arc::new(Loader)).add_transform(Masks::new("mask"));
    registry
}

/// Place, message and hint of everything that is wrong, but for what the pipeline lacks.
fn problems(text: &str) -> Vec<(String, String, String)> {
    let found = load_text("t.yaml", text, &registry()).map(|_| ()).unwrap_err();
    let shown = found.list().iter().filter(|it| it.code != "CONFIG_PIPELINE");
    shown
        .map(|it| (it.position().unwrap(), it.message.clone(), it.hint.clone().unwrap_or_default()))
        .collect()
}

fn with(plugins: &str, transform: &str) -> String {
    format!("plugins:\n  {plugins}\npipelines:\n  p:\n    transforms:\n      - {transform}\n")
}

#[test]
fn a_plugin_is_validated_like_a_built_in() {
    let good = "pii: { path: good.wasm }";
    assert_eq!(problems(&with(good, "{ type: pii, fields: [a] }")), []);
    let found = problems(&with(good, "{ type: pii, fieldz: [a] }"));
    let unknown = found.iter().find(|it| it.0 == "t.yaml:6:22").unwrap();
    assert_eq!((found.len(), unknown.2.as_str()), (2, "did you mean `fields`?"));
    let found = problems(&with(good, "{ type: pii, fields: [a, secret] }"));
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("t.yaml:6:34", "this one is not there"));
    let found = problems(&with(good, "{ type: pij, fields: [a] }"));
    assert_eq!((found[0].0.as_str(), found[0].2.as_str()), ("t.yaml:6:17", "did you mean `pii`?"));
}

#[test]
fn a_plugin_that_does_not_load_is_told_once_where_it_is_declared() {
    let found = problems(&with("pii: { path: bad.wasm }", "{ type: pii, fieldz: [a] }"));
    let expected = ("t.yaml:2:16".to_owned(), "there is no such file".to_owned(), "build it".to_owned());
    assert_eq!(found, [expected]);
    let found = problems(&with("pii: { file: good.wasm }", "{ type: pii }"));
    assert_eq!(found.len(), 2, "an unknown option and a missing one: {found:?}");
}

#[test]
fn grants_are_validated_where_they_stand() {
    let with_grants = |grants: &str| {
        problems(&with(
            &format!("pii: {{ path: good.wasm, grants: {grants} }}"),
            "{ type: pii, fields: [a] }",
        ))
    };
    assert_eq!(with_grants("{ http: [a, b] }"), []);
    let found = with_grants("{ http: [a, \"https://no.host\"] }");
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("t.yaml:2:47", "this is no host"));
    let found = with_grants("{ htp: [a] }");
    assert_eq!((found[0].0.as_str(), found[0].2.as_str()), ("t.yaml:2:37", "did you mean `http`?"));
    let found = with_grants("[a]");
    assert!(found[0].1.contains("a map of options is needed here"), "{found:?}");
    let schema = json_schema(&registry());
    let entry = &schema["properties"]["plugins"]["additionalProperties"]["properties"]["grants"];
    assert_eq!(entry["properties"]["http"]["items"]["minLength"], json!(1));
    assert_eq!(entry["additionalProperties"], json!(false));
}

#[test]
fn names_are_taken_once() {
    for (plugins, says) in [
        ("mask: { path: good.wasm }", "built-in type `mask`"),
        ("a: { path: good.wasm }\n  \"b c\": { path: good.wasm }", "cannot be a plugin's name"),
    ] {
        let found = problems(&with(plugins, "{ type: mask, fields: [a] }"));
        assert!(found.len() == 1 && found[0].1.contains(says), "{found:?}");
    }
    let found = problems("plugins: [good.wasm]\n");
    assert!(found[0].1.contains("must be a map"), "{found:?}");
}

#[test]
fn a_transform_is_no_sink() {
    let text =
        "plugins: { pii: { path: good.wasm } }\npipelines: { p: { topics: [a], sink: { type: pii } } }\n";
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].2.starts_with("`pii` is a transform; as a sink"), "{found:?}");
}

#[test]
fn without_a_loader_there_are_no_plugins() {
    let text = "plugins: { pii: { path: good.wasm } }\n";
    let found = load_text("t.yaml", text, &Registry::new()).map(|_| ()).unwrap_err();
    assert_eq!((found.list().len(), found.list()[0].code), (1, "CONFIG_PLUGIN"));
    let schema = json_schema(&registry());
    let entry = &schema["properties"]["plugins"]["additionalProperties"];
    assert_eq!(entry["required"], json!(["path"]));
    assert_eq!(schema["$defs"]["transform"]["oneOf"].as_array().unwrap().len(), 2);
}
