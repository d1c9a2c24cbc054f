//! A plugin's file is replaced while it runs.

use std::time::{Duration, Instant};

use serde_json::json;
use towpath_api::Transform;

use crate::support::{HOSTILE, PII_MASK, config, load, patched, replace, texts, told};

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
