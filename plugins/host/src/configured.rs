//! One configuration of a plugin: what its instances share.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use towpath_api::{ConfigSpec, RawConfig, Redactor};

/// Options as the user gave them, and what is secret of them.
#[derive(Default)]
pub(crate) struct Configured {
    pub(crate) config: RawConfig,
    /// What is struck out of whatever the plugin says (R13).
    pub(crate) redactor: Redactor,
    /// The names of secret options.
    pub(crate) secret: BTreeSet<String>,
    /// The secret options that are one text.
    pub(crate) secrets: BTreeMap<String, String>,
}

impl Configured {
    pub(crate) fn new(spec: &ConfigSpec, config: &RawConfig) -> Self {
        fn texts(value: &Json, into: &mut Vec<String>) {
            match value {
                Json::String(text) => into.push(text.clone()),
                Json::Array(items) => items.iter().for_each(|item| texts(item, into)),
                Json::Object(entries) => entries.values().for_each(|item| texts(item, into)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        let (mut secret, mut secrets) = (BTreeSet::new(), BTreeMap::new());
        for option in spec.options.iter().filter(|option| option.secret) {
            secret.insert(option.name.clone());
            let Some(value) = config.values().get(&option.name) else { continue };
            texts(value, &mut found);
            if let Some(text) = value.as_str() {
                secrets.insert(option.name.clone(), text.to_owned());
            }
        }
        Self { config: config.clone(), redactor: Redactor::new(found), secret, secrets }
    }
}
