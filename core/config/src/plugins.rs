//! `plugins:` into types that stand beside the built-in ones.

use std::collections::{BTreeMap, BTreeSet};

use towpath_api::{ConnectorKind, Registry};

use super::load::Root;
use super::problem::Problem;
use super::secrets::Secrets;
use super::tree::{Key, Node, Place, Value};
use super::validate::validate;

/// The types of a configuration.
pub(crate) struct Types {
    pub(crate) registry: Registry,
    /// Plugins that are declared and could not be loaded: that is told once, where they are declared.
    pub(crate) broken: BTreeSet<String>,
    /// Where each plugin is declared.
    pub(crate) places: BTreeMap<String, Place>,
}

impl Types {
    /// The kinds of type that `name` is, as people say it.
    pub(crate) fn kinds(&self, name: &str) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        for (kind, word) in [
            (ConnectorKind::Source, "source"),
            (ConnectorKind::Sink, "sink"),
            (ConnectorKind::Transform, "transform"),
        ] {
            if self.registry.descriptors(kind).iter().any(|descriptor| descriptor.name == name) {
                kinds.push(word);
            }
        }
        kinds
    }
}

/// The built-in types and those of every plugin of every file.
pub(crate) fn read_all(
    files: &[Root],
    built_in: &Registry,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Types {
    let mut types = Types { registry: built_in.clone(), broken: BTreeSet::new(), places: BTreeMap::new() };
    for file in files {
        let Some(section) = file.resolved.get("plugins") else { continue };
        if !matches!(section.value, Value::Map(_) | Value::Null) {
            let message = "`plugins` must be a map of plugins by name";
            problems.push(
                Problem::new("CONFIG_TYPE", section.place.clone(), message)
                    .with_hint("write `plugins:`, and below it `my_plugin: { path: my_plugin.wasm }`"),
            );
        }
        for (key, node) in section.entries() {
            if declare(&mut types, key, built_in, problems) && !load(&mut types, key, node, secrets, problems)
            {
                types.broken.insert(key.name.clone());
            }
        }
    }
    types
}

/// Whether the name is free, and one.
fn declare(types: &mut Types, key: &Key, built_in: &Registry, problems: &mut Vec<Problem>) -> bool {
    let mut wrong = |code: &'static str, message: String, hint: &str| {
        problems.push(Problem::new(code, key.place.clone(), message).with_hint(hint));
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if key.name.is_empty() || key.name.len() > 100 || !key.name.bytes().all(legal) {
        types.broken.insert(key.name.clone());
        wrong(
            "CONFIG_NAME",
            format!("`{}` cannot be a plugin's name", key.name),
            "1 to 100 characters out of a-z, A-Z, 0-9, `_` and `-`: it is what stands behind `type:`",
        );
        return false;
    }
    if built_in.contains(&key.name) {
        wrong(
            "CONFIG_DUPLICATE",
            format!("there is a built-in type `{}`", key.name),
            "give the plugin another name: what `type:` means would be a matter of luck",
        );
        return false;
    }
    if let Some(first) = types.places.get(&key.name) {
        let (line, _) = first.line_and_column();
        let message =
            format!("there is a plugin `{}` already ({}:{line})", key.name, first.file.path.display());
        wrong("CONFIG_DUPLICATE", message, "remove one of them, or give it another name");
        return false;
    }
    types.places.insert(key.name.clone(), key.place.clone());
    true
}

/// Whether it could be loaded.
fn load(types: &mut Types, key: &Key, node: &Node, secrets: &Secrets, problems: &mut Vec<Problem>) -> bool {
    let Some(loader) = types.registry.plugin_loader().cloned() else {
        let message = "this program loads no plugins";
        problems.push(Problem::new("CONFIG_PLUGIN", key.place.clone(), message));
        return false;
    };
    let before = problems.len();
    let config = validate(node, &loader.options(), &[], secrets, problems);
    if problems.len() > before || node.has_unresolved() {
        return false;
    }
    match loader.load(&key.name, &config) {
        Ok(plugin) => {
            types.registry.add_plugin(plugin);
            true
        }
        Err(found) => {
            for problem in found.problems {
                let place = node.at(&problem.path).place.clone();
                let mut shown = Problem::new("CONFIG_PLUGIN", place, secrets.redact(&problem.message));
                shown.hint = problem.hint;
                problems.push(shown);
            }
            false
        }
    }
}
