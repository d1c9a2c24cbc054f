//! A plugin's file is replaced while it runs.

use std::time::{Duration, Instant};

use serde_json::json;
use towpath_api::{PluginLoader as _, PluginScope, PluginTrust, RawConfig, Transform};
use towpath_host::{Identified, Plugins};
use towpath_store::{Directory, SecretKey, Signature};

use crate::support::{HOSTILE, PII_MASK, PLUGINS, config, load, patched, replace, texts, told};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a folder must be quiet before its files are looked at.
const SEEN: Duration = Duration::from_secs(2);

/// The code with which the plugin rejects a record; whatever component does it, no record is lost.
async fn code(transform: &mut dyn Transform) -> String {
    let transformed = transform.apply(texts(&["a", "reject", "b"])).await.unwrap();
    assert_eq!(told(&transformed.batch), ["a", "b"]);
    let (_, errors) = transformed.rejected.into_parts();
    assert_eq!(errors.len(), 1);
    errors[0].code().to_owned()
}

async fn wait_for(transform: &mut dyn Transform, expected: &str) {
    let begun = Instant::now();
    loop {
        let found = code(transform).await;
        if found == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The hostile plugin under another code.
fn changed(from: &str, to: &str) -> Vec<u8> {
    patched(&HOSTILE, from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_takes_over_between_two_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::copy(&*HOSTILE, &path).unwrap();
    let factory = load(&path, &json!({})).unwrap();
    let mut transform = factory.parse(&config(&*factory, json!({}))).unwrap();
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
    replace(&path, &changed("HOSTILE_RECORD", "HOSTILE_SECOND"));
    wait_for(&mut *transform, "HOSTILE_SECOND").await;
    // A file that is no plugin, half of one, one with other options, none at all: what runs goes on.
    let good = std::fs::read(&*HOSTILE).unwrap();
    for bad in [&b"no plugin"[..], &good[..good.len() / 2], &std::fs::read(&*PII_MASK).unwrap()] {
        replace(&path, bad);
        tokio::time::sleep(SEEN).await;
        assert_eq!(code(&mut *transform).await, "HOSTILE_SECOND");
    }
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(SEEN).await;
    assert_eq!(code(&mut *transform).await, "HOSTILE_SECOND");
    // Written in place, in pieces.
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    std::fs::write(&path, &good).unwrap();
    wait_for(&mut *transform, "HOSTILE_RECORD").await;
    // A task that begins later begins with it.
    let mut later = factory.parse(&config(&*factory, json!({}))).unwrap();
    assert_eq!(code(&mut *later).await, "HOSTILE_RECORD");
}

/// A component that refuses the options of a task, or cannot be opened with them, leaves the old one in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_that_does_not_fit_the_options_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (option, harmless, harmful) in
        [("at_check", "calm at check", "harm at check"), ("at_open", "calm at open", "harm at open")]
    {
        let path = folder.path().join(format!("{option}.wasm"));
        std::fs::copy(&*HOSTILE, &path).unwrap();
        let factory = load(&path, &json!({})).unwrap();
        let mut transform = factory.parse(&config(&*factory, json!({ option: harmless }))).unwrap();
        assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
        // In the new one the harmless word means harm.
        replace(&path, &changed(harmful, harmless));
        tokio::time::sleep(SEEN).await;
        assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
        replace(&path, &changed("HOSTILE_RECORD", "HOSTILE_SECOND"));
        wait_for(&mut *transform, "HOSTILE_SECOND").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_pinned_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::copy(&*HOSTILE, &path).unwrap();
    let sha256 = crate::support::PLUGINS.inspect(&path).unwrap().sha256;
    let factory = load(&path, &json!({ "sha256": sha256 })).unwrap();
    let mut transform = factory.parse(&config(&*factory, json!({}))).unwrap();
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
    replace(&path, &changed("HOSTILE_RECORD", "HOSTILE_SECOND"));
    tokio::time::sleep(SEEN).await;
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
}

/// What is found by name is locked while it runs, also where nothing was locked before; and signed, where it must be: the
/// component may come before its signature.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_file_is_replaced_by_a_signed_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::copy(&*HOSTILE, &path).unwrap();
    let key = SecretKey::generate().unwrap();
    let sign = || {
        let Identified { identity, sha256, .. } = PLUGINS.identify(&path).unwrap();
        Signature::sign(&key, identity, sha256).write(&path).unwrap()
    };
    let trust = PluginTrust { keys: vec![key.public().to_string()], required: true };
    let scope = PluginScope { trust: Some(trust), ..PluginScope::default() };
    let entry = || RawConfig::with_defaults(&PLUGINS.options(), json!({ "path": path })).unwrap();
    let refused = PLUGINS.load("mine", &entry(), &scope).unwrap_err();
    assert_eq!(refused.problems[0].code, Some("PLUGIN_SIGNATURE"));
    sign();
    let factory = PLUGINS.load("mine", &entry(), &scope).unwrap().transform.unwrap();
    let mut transform = factory.parse(&config(&*factory, json!({}))).unwrap();
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
    replace(&path, &changed("HOSTILE_RECORD", "HOSTILE_SECOND"));
    tokio::time::sleep(SEEN).await;
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD", "the signature is still that of the old one");
    sign();
    wait_for(&mut *transform, "HOSTILE_SECOND").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_found_by_name_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let identified = PLUGINS.identify(&HOSTILE).unwrap();
    let identity = &identified.identity;
    let directory = Directory::new(folder.path().join("plugins"));
    let path = directory.install(identity, &identified.bytes, None).unwrap().path;
    let scope = PluginScope { file: folder.path().join("t.yaml"), ..PluginScope::default() };
    let plugins = Plugins::new();
    let entry = json!({ "plugin": format!("{}@*", identity.name) });
    let entry = RawConfig::with_defaults(&plugins.options(), entry).unwrap();
    let factory = plugins.load("mine", &entry, &scope).unwrap().transform.unwrap();
    let mut transform = factory.parse(&config(&*factory, json!({}))).unwrap();
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
    replace(&path, &changed("HOSTILE_RECORD", "HOSTILE_SECOND"));
    tokio::time::sleep(SEEN).await;
    assert_eq!(code(&mut *transform).await, "HOSTILE_RECORD");
    // What is written down is what was loaded, not what lies there now.
    let written = plugins.write_locks().unwrap();
    assert_eq!((written.len(), written[0].1.new.sha256), (1, identified.sha256));
    let refused = Plugins::new().load("mine", &entry, &scope).unwrap_err();
    assert_eq!(
        (refused.problems[0].code, refused.problems[0].path.as_str()),
        (Some("PLUGIN_LOCK"), "plugin")
    );
}
