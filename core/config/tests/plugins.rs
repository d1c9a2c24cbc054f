//! Plugins in configurations, right and wrong; the plugins themselves are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use towpath_api::{
    Batch, ConfigProblem, ConfigProblems, ConfigSpec, ConnectorError, ConnectorKind, Descriptor, OptionSpec,
    OptionType, PluginLoader, PluginScope, PluginTrust, PluginTypes, RawConfig, Registry, Transform,
    TransformFactory, Transformed,
};
use towpath_config::{json_schema, load_plugins, load_text};

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

/// Loads what is called `good.wasm`, and what is called `good@1.0.0` in the directory `good`.
struct Loader;

impl PluginLoader for Loader {
    fn options(&self) -> ConfigSpec {
        let hosts = OptionType::list(OptionType::NonEmptyString);
        let grants = ConfigSpec::new(vec![OptionSpec::optional("http", hosts, "Hosts.")]);
        ConfigSpec::new(vec![
            OptionSpec::optional("path", OptionType::Path, "The file."),
            OptionSpec::optional("plugin", OptionType::NonEmptyString, "The name."),
            OptionSpec::optional("grants", OptionType::Object(grants), "What it may reach."),
        ])
    }

    fn short_form(&self) -> Option<&'static str> {
        Some("plugin")
    }

    fn one_of(&self) -> &'static [&'static str] {
        &["path", "plugin"]
    }

    fn check_trust(&self, trust: &PluginTrust) -> Result<(), ConfigProblems> {
        match trust.keys.iter().position(|key| key == "bad") {
            None => Ok(()),
            Some(at) => Err(ConfigProblem::new(format!("keys[{at}]"), "this is no key").into()),
        }
    }

    fn load(
        &self,
        name: &str,
        config: &RawConfig,
        scope: &PluginScope,
    ) -> Result<PluginTypes, ConfigProblems> {
        if let Some(plugin) = config.opt_str("plugin") {
            let directory = scope.directory.as_deref().unwrap_or(Path::new("")).display();
            let trust = scope.trust.as_ref().map(|it| (it.keys.join(" "), it.required));
            if plugin != "good@1.0.0" || !directory.to_string().ends_with("good") {
                let message = format!("{}: {directory} {trust:?}", scope.file.display());
                return Err(ConfigProblem::new("plugin", message).with_code("PLUGIN_LOCK").into());
            }
        } else if config.str("path") != "good.wasm" {
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
    assert_eq!(found.len(), 1, "an unknown option: {found:?}");
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
    let entry = &schema["properties"]["plugins"]["additionalProperties"]["anyOf"][1]["properties"]["grants"];
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
    let entry = &schema["properties"]["plugins"]["additionalProperties"]["anyOf"];
    assert_eq!(entry[0]["type"], json!("string"));
    assert_eq!(entry[1]["oneOf"], json!([{ "required": ["path"] }, { "required": ["plugin"] }]));
    assert_eq!(schema["properties"]["plugin_trust"]["required"], json!(["keys"]));
    assert_eq!(schema["$defs"]["transform"]["oneOf"].as_array().unwrap().len(), 2);
}

#[test]
fn a_plugin_has_a_short_form_and_is_looked_for_where_the_file_says() {
    for plugin in ["pii: good@1.0.0", "pii: { plugin: good@1.0.0 }"] {
        let text = format!("plugin_directory: ./good\n{}", with(plugin, "{ type: pii, fields: [a] }"));
        assert_eq!(problems(&text), [], "{plugin}");
        let text = with(plugin, "{ type: pii, fields: [a] }").replace("good@1.0.0", "bad@1.0.0");
        let found = load_text("conf/t.yaml", &text, &registry()).map(|_| ()).unwrap_err();
        let problem = &found.list()[0];
        let column = 3 + plugin.find("good").unwrap();
        assert_eq!(problem.position().unwrap(), format!("conf/t.yaml:2:{column}"));
        assert_eq!((problem.code, problem.message.as_str()), ("PLUGIN_LOCK", "conf/t.yaml:  None"));
        let text = format!("plugin_directory: ../shop\nplugin_trust: {{ keys: [k, l] }}\n{text}");
        let found = load_text("conf/t.yaml", &text, &registry()).map(|_| ()).unwrap_err();
        assert_eq!(found.list()[0].message, "conf/t.yaml: conf/../shop Some((\"k l\", true))");
    }
}

#[test]
fn nothing_is_loaded_where_trust_is_in_doubt() {
    let plugins = "plugins: { pii: good@1.0.0, other: { path: bad.wasm } }\n";
    for (trust, place, says) in [
        ("{ keys: [k, bad] }", "t.yaml:1:27", "this is no key"),
        ("{ required: true }", "t.yaml:1:15", "`keys` is missing"),
        ("{ keys: [k], requird: true }", "t.yaml:1:28", "unknown key"),
        ("{ keys: k }", "t.yaml:1:23", "a list is needed"),
        ("{ keys: [\"${env:NOBODY_HAS_SET_THIS}\"] }", "t.yaml:1:24", "is not set"),
        ("true", "t.yaml:1:15", "a map of options is needed"),
    ] {
        let text = format!(
            "plugin_trust: {trust}\n{plugins}pipelines: {{ p: {{ topics: [a], sink: {{ type: pii }} }} }}\n"
        );
        let found = problems(&text);
        assert!(found.iter().all(|it| it.0.starts_with("t.yaml:1:")), "{found:?}");
        assert!(found.iter().any(|it| it.0 == place && it.1.contains(says)), "{found:?}");
    }
}

#[test]
fn plugins_can_be_loaded_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let pipelines = "pipelines: { p: { topics: [a], sink: { type: \"${env:NOBODY_HAS_SET_THIS}\" } } }\n";
    let good =
        file("good.yaml", &format!("plugin_directory: good\nplugins: {{ a: good@1.0.0 }}\n{pipelines}"));
    load_plugins(std::slice::from_ref(&good), &registry()).unwrap();
    let bad = file(
        "bad.yaml",
        "plugins: { b: good@2.0.0, c: { path: bad.wasm }, d: { nope: 1 } }\nplugin_directory: good\n",
    );
    let found = load_plugins(&[good, bad], &registry()).unwrap_err();
    let codes: Vec<_> = found.list().iter().map(|it| it.code).collect();
    assert_eq!(codes, ["PLUGIN_LOCK", "CONFIG_PLUGIN", "CONFIG_UNKNOWN_KEY", "CONFIG_DUPLICATE"]);
}
