//! A component that has been read, compiled and found to be a plugin.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_api::ConfigSpec;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use super::bindings::{Transform, TransformPre};
use super::error::PluginError;
use super::options::Limits;
use super::state::State;

/// The contract that this Towpath knows.
pub(crate) const CONTRACT: &str = "towpath:plugin@0.1.0";

/// A plugin under its name in the YAML, ready to be instantiated.
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) pre: TransformPre<State>,
    pub(crate) limits: Limits,
    /// Of its file.
    pub(crate) hash: [u8; 32],
}

/// What a component imports and exports, by full name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pub(crate) imports: BTreeSet<String>,
    pub(crate) exports: BTreeSet<String>,
}

impl Shape {
    pub(crate) fn of(engine: &Engine, component: &Component) -> Self {
        let ty = component.component_type();
        Self {
            imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            exports: ty.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }

    /// Whether it is a plugin that can be run here (R11: it gets what the contract names, and nothing else).
    pub(crate) fn check(&self) -> Result<(), PluginError> {
        for name in self.imports.iter().chain(&self.exports) {
            match contract_of(name) {
                Some(contract) if contract == CONTRACT => {}
                Some(contract) => return Err(PluginError::Version(contract)),
                None if self.imports.contains(name) => return Err(PluginError::Import(name.clone())),
                // What else it exports is nobody's business.
                None => {}
            }
        }
        let transforms = self.exports.iter().any(|name| name.starts_with("towpath:plugin/transforms@"));
        if transforms { Ok(()) } else { Err(PluginError::NoWorld) }
    }
}

/// `towpath:plugin@0.1.0` out of `towpath:plugin/log@0.1.0`.
fn contract_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("towpath:plugin/")?;
    let (_, version) = rest.split_once('@').unwrap_or((rest, "0"));
    Some(format!("towpath:plugin@{version}"))
}

/// Compiles a component.
pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, PluginError> {
    if bytes.starts_with(b"\0asm\x01\0\0\0") {
        return Err(PluginError::NoComponent("it is a core module".to_owned()));
    }
    Component::from_binary(engine, bytes).map_err(|error| PluginError::NoComponent(format!("{error:#}")))
}

/// Links a component to what a plugin gets.
pub(crate) fn link(engine: &Engine, component: &Component) -> Result<TransformPre<State>, PluginError> {
    let failed = |error: wasmtime::Error| PluginError::Start(format!("{error:#}"));
    let mut linker = Linker::new(engine);
    Transform::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state).map_err(failed)?;
    TransformPre::new(linker.instantiate_pre(component).map_err(failed)?).map_err(failed)
}

/// The empty configuration under which a plugin is asked about itself.
pub(crate) fn nothing() -> Arc<towpath_api::RawConfig> {
    Arc::default()
}

/// The texts of secret options: what is struck out of whatever the plugin says (R13).
pub(crate) fn secrets(spec: &ConfigSpec, config: &towpath_api::RawConfig) -> towpath_api::Redactor {
    fn texts(value: &serde_json::Value, into: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => into.push(text.clone()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
            serde_json::Value::Object(entries) => entries.values().for_each(|item| texts(item, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for option in spec.options.iter().filter(|option| option.secret) {
        if let Some(value) = config.values().get(&option.name) {
            texts(value, &mut found);
        }
    }
    towpath_api::Redactor::new(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(imports: &[&str], exports: &[&str]) -> Shape {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Shape { imports: set(imports), exports: set(exports) }
    }

    #[test]
    fn a_component_gets_what_the_contract_names_and_nothing_else() {
        let transforms = ["towpath:plugin/plugin@0.1.0", "towpath:plugin/transforms@0.1.0"];
        shape(&["towpath:plugin/log@0.1.0"], &transforms).check().unwrap();
        let told = |shape: Shape| shape.check().unwrap_err().to_string();
        assert!(told(shape(&["wasi:io/error@0.2.0"], &transforms)).contains("wasi:io/error@0.2.0"));
        let older = ["towpath:plugin/transforms@0.0.9"];
        assert!(told(shape(&[], &older)).contains("made for towpath:plugin@0.0.9"));
        assert!(told(shape(&[], &["wasi:cli/run@0.2.0"])).contains("no source, sink or transform"));
    }
}
