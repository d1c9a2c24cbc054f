//! What is refused before anything runs.

use std::path::Path;

use serde_json::json;
use towpath_host::Plugins;

use crate::support::{PII_MASK, PLUGINS, load};

fn refused(bytes: &[u8], options: &serde_json::Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::write(&path, bytes).unwrap();
    load(&path, options).err().unwrap()
}

#[test]
fn files_that_are_no_plugins_are_told_apart() {
    let good = std::fs::read(&*PII_MASK).unwrap();
    assert!(load(Path::new("/nowhere/p.wasm"), &json!({})).err().unwrap().contains("cannot be read"));
    assert!(refused(b"", &json!({})).contains("no WASM component"));
    assert!(refused(b"#!/bin/sh\n", &json!({})).contains("no WASM component"));
    assert!(refused(b"\0asm\x01\0\0\0", &json!({})).contains("core module"));
    for length in [good.len() / 4, good.len() / 2, good.len() - 1] {
        assert!(refused(&good[..length], &json!({})).contains("no WASM component"), "{length}");
    }
}

/// What one process has compiled, the next one finds; what is damaged is compiled anew, and told by nothing but the log.
#[test]
fn compiled_code_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("plugins");
    let open = || Plugins::with_cache(cache.clone()).open_path(&PII_MASK).map(drop);
    open().unwrap();
    let entries = || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|it| it.unwrap().path()).collect() };
    let [entry] = &entries()[..] else { panic!("{:?}", entries()) };
    let content = std::fs::read(entry).unwrap();
    let written = || std::fs::metadata(entry).unwrap().modified().unwrap();
    let first = written();
    open().unwrap();
    assert_eq!(written(), first, "it was not compiled again");
    std::fs::write(entry, &content[..content.len() / 2]).unwrap();
    open().unwrap();
    assert_eq!(std::fs::read(entry).unwrap().len(), content.len());
    assert_eq!(entries().len(), 1);
}

#[test]
fn a_pinned_hash_must_be_the_files() {
    let inspection = PLUGINS.inspect(&PII_MASK).unwrap();
    assert!(load(&PII_MASK, &json!({ "sha256": inspection.sha256 })).is_ok());
    let error = load(&PII_MASK, &json!({ "sha256": "0".repeat(64) })).err().unwrap();
    assert!(error.contains(&inspection.sha256), "{error}");
    assert_eq!(inspection.worlds, ["transform"]);
    assert_eq!(inspection.descriptor.unwrap().name, "pii_mask");
    assert!(
        inspection.imports.iter().all(|name| name.starts_with("towpath:plugin/")),
        "{:?}",
        inspection.imports
    );
}
