//! The examples keep the contract that built-in transforms keep, and do what they say.

use serde_json::json;
use towpath_api::conformance;

use crate::support::{HOSTILE, PII_MASK, config, load, texts, told};

#[tokio::test]
async fn plugins_keep_the_contract() {
    let mask = load(&PII_MASK, &json!({})).unwrap();
    for options in [json!({}), json!({"detect": ["card"], "fields": ["note"], "keep_last": 0})] {
        conformance::transform(&*mask, &config(&*mask, options)).await.unwrap();
    }
    let hostile = load(&HOSTILE, &json!({})).unwrap();
    conformance::transform(&*hostile, &config(&*hostile, json!({}))).await.unwrap();
}

#[tokio::test]
async fn personal_data_are_masked() {
    let factory = load(&PII_MASK, &json!({})).unwrap();
    let descriptor = factory.descriptor();
    assert_eq!((descriptor.name.as_str(), descriptor.version.as_str()), ("mine", "0.1.0"));
    let mut mask = factory.parse(&config(&*factory, json!({}))).unwrap();
    let lines =
        texts(&["zoe@example.com paid with 4111 1111 1111 1111", "nothing here", "DE89370400440532013000"]);
    let transformed = mask.apply(lines).await.unwrap();
    assert!(transformed.rejected.is_empty());
    assert_eq!(
        told(&transformed.batch),
        ["***@example.com paid with **** **** **** 1111", "nothing here", "******************3000"]
    );
    let offsets: Vec<_> = transformed.batch.records().map(|record| record.offset()).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn a_plugin_finds_what_types_do_not_show() {
    let factory = load(&PII_MASK, &json!({})).unwrap();
    let problems = factory.parse(&config(&*factory, json!({"fields": ["a", "a"]}))).err().unwrap().problems;
    assert_eq!((problems[0].path.as_str(), problems.len()), ("fields[1]", 1));
}
