//! Every example under `configs/` is a right configuration.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use towpath_harness::{Guarded, TempDir, envs, paths, process};

/// Files and directories below `configs/`, each a configuration by itself.
fn configurations(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(configurations(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_example_is_valid() {
    let examples = configurations(&paths::workspace().join("configs"));
    assert!(examples.len() >= 5, "the examples are gone: {examples:?}");
    for example in examples {
        let mut command = process::command().unwrap();
        command.arg("validate").arg(&example);
        command.env("SHOP_URL", "postgres://shop:secret@127.0.0.1:5432/shop");
        command.env("WAREHOUSE_URL", "postgres://shop:secret@127.0.0.1:5432/warehouse");
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:\n{errors}", example.display());
    }
}

/// Every example is accepted by the JSON Schema, and what is plainly wrong is not: judged by somebody else's validator.
#[test]
fn the_schema_accepts_every_example_and_refuses_mistakes() {
    let folder = TempDir::new("schema").unwrap();
    let output = process::command().unwrap().arg("schema").output().unwrap();
    std::fs::write(folder.join("schema.json"), &output.stdout).unwrap();
    let judge = |wanted: &str, files: &[PathBuf]| {
        let mut python = Command::new(envs::python().unwrap());
        python.arg(paths::workspace().join("tests/integration/schema.py")).arg(folder.join("schema.json"));
        python.arg(wanted).args(files);
        Guarded::run("the validator", python, Duration::from_secs(60)).unwrap();
    };
    let mut right = configurations(&paths::workspace().join("configs"));
    let anchors = "node:\npipelines:\n  a: &a\n    source: { type: generate, fields: { id: sequence } }\n    topic: t\n  \
                   b: { <<: *a, topic: u, format: { type: json, schemas: inline }, dead_letter: false }\n";
    std::fs::write(folder.join("anchors.yaml"), anchors).unwrap();
    right.push(folder.join("anchors.yaml"));
    judge("right", &right);
    let wrong = [
        "nod: {}",
        "node: { kafka: [1] }",
        "cluster: {}",
        "pipelines: { p: {} }",
        "pipelines: { p: { source: { type: generate } } }",
        "pipelines: { \"a b\": { source: { type: generate }, topic: t } }",
        // A type that is not built in may be a plugin's: `towpath validate` knows, the schema does not.
        "pipelines: { p: { source: { type: 5 }, topic: t } }",
        "plugins: { p: { path: a.wasm, nope: 1 } }",
        "pipelines: { p: { source: { type: generate, rate: fast }, topic: t } }",
        "pipelines: { p: { topics: [t], sink: { type: postgres } } }",
        "pipelines: { p: { topics: [t], sink: { type: postgres, url: \"mysql://h\" } } }",
        "pipelines: { p: { topics: [t], sink: { type: file, path: x }, tasks: 0 } }",
    ];
    std::fs::write(folder.join("wrong.yaml"), wrong.join("\n---\n")).unwrap();
    judge("wrong", &[folder.join("wrong.yaml")]);
}

#[test]
fn the_schema_is_printed_and_every_built_in_type_is_in_it() {
    let output = process::command().unwrap().arg("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |kind: &str| -> Vec<String> {
        let variants = schema["$defs"][kind]["oneOf"].as_array().unwrap();
        // The last one stands for plugins.
        let named = |it: &serde_json::Value| Some(it["properties"]["type"]["const"].as_str()?.to_owned());
        variants.iter().filter_map(named).collect()
    };
    assert_eq!(names("source"), ["file", "generate", "postgres_cdc", "sqlite_cdc"]);
    assert_eq!(names("sink"), ["file", "http", "postgres", "sqlite"]);
    assert_eq!(names("transform"), ["cast", "filter", "insert_field", "mask", "rename", "route", "unwrap"]);
}
