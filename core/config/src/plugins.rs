//! `plugins:` into types that stand beside the built-in ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use towpath_api::{
    ConfigProblem, ConnectorKind, PluginLoader, PluginScope, PluginTrust, RawConfig, Registry,
};

use super::config::section;
use super::layout::trust_options;
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
    let loader = built_in.plugin_loader().map(|loader| &**loader);
    let roots: Vec<_> = files.iter().map(|file| &file.resolved).collect();
    let directory = directory(&roots, problems);
    let trust = trust(&roots, loader, secrets, problems);
    // Nothing is loaded where it is not known whether it may be.
    let loader = loader.filter(|_| trust.is_ok()).ok_or(trust.is_err());
    let trust = trust.unwrap_or_default();
    let mut reader = Reader { loader, directory, trust, secrets, problems };
    for file in files {
        let Some(section) = file.resolved.get("plugins") else { continue };
        if !matches!(section.value, Value::Map(_) | Value::Null) {
            let message = "`plugins` must be a map of plugins by name";
            reader.problems.push(
                Problem::new("CONFIG_TYPE", section.place.clone(), message)
                    .with_hint("write `plugins:`, and below it `my_plugin: { path: my_plugin.wasm }`"),
            );
        }
        for (key, node) in section.entries() {
            if declare(&mut types, key, built_in, reader.problems) && !reader.load(&mut types, key, node) {
                types.broken.insert(key.name.clone());
            }
        }
    }
    types
}

/// `plugin_directory:`, from where the file is that says so.
fn directory(roots: &[&Node], problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let node = section(roots, "plugin_directory", problems)?;
    let path = match &node.value {
        Value::String(path) => path.clone(),
        Value::Int(number) => number.to_string(),
        // Told already, as of any wrong type.
        _ => return None,
    };
    let folder = node.place.file.path.parent();
    Some(folder.map_or_else(|| PathBuf::from(&path), |folder| folder.join(&path)))
}

/// It is not known whose signatures count, which is told.
struct InDoubt;

/// `plugin_trust:`
fn trust(
    roots: &[&Node],
    loader: Option<&dyn PluginLoader>,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Result<Option<PluginTrust>, InDoubt> {
    let before = problems.len();
    let Some(node) = section(roots, "plugin_trust", problems) else { return Ok(None) };
    let config = validate(node, &trust_options(), &[], secrets, problems);
    if problems.len() > before || node.has_unresolved() {
        return Err(InDoubt);
    }
    let trust = PluginTrust { keys: config.strings("keys"), required: config.bool("required") };
    let found = loader.map_or(Ok(()), |loader| loader.check_trust(&trust));
    found.map(|()| Some(trust)).map_err(|found| {
        problems.extend(found.problems.into_iter().map(|it| shown(it, node, secrets)));
        InDoubt
    })
}

/// A problem that the loader has found, at its place below `node`.
fn shown(problem: ConfigProblem, node: &Node, secrets: &Secrets) -> Problem {
    let place = node.at(&problem.path).place.clone();
    let code = problem.code.unwrap_or("CONFIG_PLUGIN");
    let mut shown = Problem::new(code, place, secrets.redact(&problem.message));
    shown.hint = problem.hint;
    shown
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

/// Reads entries.
struct Reader<'a> {
    /// What loads plugins; or whether it is told already why none is loaded.
    loader: Result<&'a dyn PluginLoader, bool>,
    directory: Option<PathBuf>,
    trust: Option<PluginTrust>,
    secrets: &'a Secrets,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// Whether it could be loaded.
    fn load(&mut self, types: &mut Types, key: &Key, node: &Node) -> bool {
        let loader = match self.loader {
            Ok(loader) => loader,
            Err(is_told) => {
                let message = "this program loads no plugins";
                let problem = Problem::new("CONFIG_PLUGIN", key.place.clone(), message);
                self.problems.extend((!is_told).then_some(problem));
                return false;
            }
        };
        let whole = loader.short_form().and_then(|option| whole(node, option));
        let node = whole.as_ref().unwrap_or(node);
        let Some(config) = self.options(node, loader) else { return false };
        let scope = PluginScope {
            file: key.place.file.path.clone(),
            directory: self.directory.clone(),
            trust: self.trust.clone(),
        };
        match loader.load(&key.name, &config, &scope) {
            Ok(plugin) => {
                types.registry.add_plugin(plugin);
                true
            }
            Err(found) => {
                let secrets = self.secrets;
                self.problems.extend(found.problems.into_iter().map(|it| shown(it, node, secrets)));
                false
            }
        }
    }

    /// The options of an entry, if all are right.
    fn options(&mut self, node: &Node, loader: &dyn PluginLoader) -> Option<RawConfig> {
        let before = self.problems.len();
        let config = validate(node, &loader.options(), &[], self.secrets, self.problems);
        (self.problems.len() == before && !node.has_unresolved()).then_some(config)
    }
}

/// An entry that is a text, as the map that it stands for.
fn whole(node: &Node, option: &str) -> Option<Node> {
    node.as_str()?;
    let place = node.place.clone();
    let key = Key { name: option.to_owned(), place: place.clone() };
    Some(Node { value: Value::Map(vec![(key, node.clone())]), place })
}
