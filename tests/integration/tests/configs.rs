//! Every example under `configs/` is a right configuration.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;

use towpath_harness::{paths, process};

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
        let mut command = Command::new(process::binary().unwrap());
        command.arg("validate").arg(&example);
        command.env("SHOP_URL", "postgres://shop:secret@127.0.0.1:5432/shop");
        command.env("WAREHOUSE_URL", "postgres://shop:secret@127.0.0.1:5432/warehouse");
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:\n{errors}", example.display());
    }
}

#[test]
fn the_schema_is_printed_and_every_built_in_type_is_in_it() {
    let output = Command::new(process::binary().unwrap()).arg("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |kind: &str| -> Vec<String> {
        let variants = schema["$defs"][kind]["oneOf"].as_array().unwrap();
        variants.iter().map(|it| it["properties"]["type"]["const"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("source"), ["file", "generate", "postgres_cdc", "sqlite_cdc"]);
    assert_eq!(names("sink"), ["file", "http", "postgres", "sqlite"]);
    assert_eq!(names("transform"), ["cast", "filter", "insert_field", "mask", "rename", "route", "unwrap"]);
}
