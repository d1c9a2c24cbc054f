//! A component that has been read, compiled and found to be a plugin.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use towpath_store::ContentHash;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::Everything;
use super::bindings::exports::towpath::plugin::{plugin, sinks, sources, transforms};
use super::error::PluginError;
use super::grants::Grants;
use super::options::Limits;
use super::state::State;

/// The contract that this Towpath knows.
pub(crate) const CONTRACT: &str = "towpath:plugin@0.1.0";

/// A plugin under its name in the YAML, ready to be instantiated.
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: Exports,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
    /// Of its file.
    pub(crate) hash: ContentHash,
    /// For the requests of all tasks.
    pub(crate) http: OnceLock<reqwest::Client>,
}

/// Where the functions of the worlds are that a component fits.
pub(crate) struct Exports {
    pub(crate) transform: Option<(plugin::GuestIndices, transforms::GuestIndices)>,
    pub(crate) source: Option<sources::GuestIndices>,
    pub(crate) sink: Option<sinks::GuestIndices>,
}

impl Exports {
    fn find(pre: &InstancePre<State>, shape: &Shape) -> Result<Self, PluginError> {
        let failed = |error: wasmtime::Error| PluginError::Start(format!("{error:#}"));
        let transform = || {
            let indices =
                plugin::GuestIndices::new(pre).and_then(|it| Ok((it, transforms::GuestIndices::new(pre)?)));
            indices.map_err(failed)
        };
        Ok(Self {
            transform: shape.has("transforms").then(transform).transpose()?,
            source: shape
                .has("sources")
                .then(|| sources::GuestIndices::new(pre).map_err(failed))
                .transpose()?,
            sink: shape.has("sinks").then(|| sinks::GuestIndices::new(pre).map_err(failed)).transpose()?,
        })
    }
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
        if self.worlds().is_empty() { Err(PluginError::NoWorld) } else { Ok(()) }
    }

    /// Whether an interface of the contract is exported.
    fn has(&self, interface: &str) -> bool {
        let begins = |name: &String| {
            name.strip_prefix("towpath:plugin/")
                .and_then(|it| it.strip_prefix(interface))
                .is_some_and(|it| it.starts_with('@'))
        };
        self.exports.iter().any(begins)
    }

    /// The worlds that it fits.
    pub(crate) fn worlds(&self) -> Vec<&'static str> {
        let all = [("sources", "source"), ("sinks", "sink"), ("transforms", "transform")];
        all.into_iter().filter(|(interface, _)| self.has(interface)).map(|(_, world)| world).collect()
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
    // The engine would list the bytes that it had expected.
    if !bytes.starts_with(b"\0asm") {
        return Err(PluginError::NoComponent("the file does not begin as WASM does".to_owned()));
    }
    Component::from_binary(engine, bytes).map_err(|error| PluginError::NoComponent(format!("{error:#}")))
}

/// Links a component to what a plugin gets.
pub(crate) fn link(
    engine: &Engine,
    component: &Component,
    shape: &Shape,
) -> Result<(InstancePre<State>, Exports), PluginError> {
    let failed = |error: wasmtime::Error| PluginError::Start(format!("{error:#}"));
    let mut linker = Linker::new(engine);
    Everything::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state).map_err(failed)?;
    let pre = linker.instantiate_pre(component).map_err(failed)?;
    let exports = Exports::find(&pre, shape)?;
    Ok((pre, exports))
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
