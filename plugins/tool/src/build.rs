//! A project into components.

use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{PackageId, Resolve, SourceMap};

use super::error::ToolError;
use super::files::{WIT, replace};
use super::golang;
use super::new::Language;
use super::script::{C, JAVASCRIPT, PYTHON};
use super::toolchain::Toolchain;
use super::wasi;

/// One component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The name of its crate.
    pub name: String,
    /// The component's file, among the compiled files.
    pub path: PathBuf,
}

/// Builds every plugin of the project or workspace in `folder`, in the language that its files tell. `target` is where
/// compiled files go, if not where the project keeps them. What the compiler says goes to standard error.
///
/// # Errors
/// What the compiler says, or why there is none.
pub fn build(folder: &Path, target: Option<&Path>) -> Result<Vec<Built>, ToolError> {
    let Some(language) = Language::of(folder) else {
        return Err(ToolError::NoProject(folder.display().to_string()));
    };
    let place = place_of(folder, target);
    let kit = match language {
        Language::Rust => return build_rust(folder, target),
        Language::Go => {
            let _lock = lock(&place)?;
            return Ok(vec![golang::build(folder, &place)?]);
        }
        Language::JavaScript | Language::TypeScript => JAVASCRIPT,
        Language::Python => PYTHON,
        Language::C => C,
    };
    let _lock = lock(&place)?;
    Ok(vec![kit.build(folder, &place)?])
}

fn build_rust(folder: &Path, target: Option<&Path>) -> Result<Vec<Built>, ToolError> {
    // One at a time: cargo would wait for itself, but not for what is made of its output.
    let _lock = lock(&place_of(folder, target))?;
    let mut cargo = Toolchain::find(folder)?.cargo(folder)?;
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(std::process::Stdio::inherit());
    if let Some(target) = target {
        cargo.arg("--target-dir").arg(target);
    }
    let output =
        cargo.output().map_err(|source| ToolError::Missing { program: "cargo".to_owned(), source })?;
    if !output.status.success() {
        return Err(ToolError::Compile("the plugin does not compile".to_owned()));
    }
    let mut built = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((name, module)) = artifact(line) else { continue };
        built.push(Built { name, path: package(&module, folder)? });
    }
    if built.is_empty() { Err(ToolError::Nothing(folder.display().to_string())) } else { Ok(built) }
}

/// Where compiled files go, as cargo sees it from the project's folder.
fn place_of(folder: &Path, target: Option<&Path>) -> PathBuf {
    let chosen = || std::env::var_os("CARGO_TARGET_DIR").filter(|it| !it.is_empty()).map(PathBuf::from);
    folder.join(target.map(Path::to_owned).or_else(chosen).unwrap_or_else(|| "target".into()))
}

/// Held until it is dropped, or its process ends.
pub(super) fn lock(place: &Path) -> Result<std::fs::File, ToolError> {
    std::fs::create_dir_all(place).map_err(ToolError::io(place))?;
    let path = place.join(".towpath-plugin-build");
    let file = std::fs::File::create(&path).map_err(ToolError::io(&path))?;
    file.lock().map_err(ToolError::io(&path))?;
    Ok(file)
}

/// The name and the module of a crate that cargo says it has built.
fn artifact(line: &str) -> Option<(String, PathBuf)> {
    let message: Json = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let files = message["filenames"].as_array()?.iter().filter_map(Json::as_str);
    let module = files.map(PathBuf::from).find(|file| file.extension().is_some_and(|it| it == "wasm"))?;
    Some((message["target"]["name"].as_str()?.to_owned(), module))
}

/// Makes a component of a core module, below its folder. Replaces an older one at once: whoever reads it sees a whole
/// one. Projects that share a place for compiled files may share names too, so that each has a folder there.
fn package(module: &Path, project: &Path) -> Result<PathBuf, ToolError> {
    let bytes = std::fs::read(module).map_err(ToolError::io(module))?;
    let component = component_of(&bytes)
        .map_err(|reason| ToolError::NoComponent { path: module.display().to_string(), reason })?;
    let project = project.canonicalize().map_err(ToolError::io(project))?;
    let mut hasher = std::hash::DefaultHasher::new();
    project.hash(&mut hasher);
    let folder = module.with_file_name(format!("components/{:016x}", hasher.finish()));
    std::fs::create_dir_all(&folder).map_err(ToolError::io(&folder))?;
    let path = folder.join(module.file_name().unwrap_or_default());
    replace(&path, &component)?;
    Ok(path)
}

/// The contract, in a place where worlds can be looked up.
fn contract() -> Result<(Resolve, PackageId), String> {
    let mut sources = SourceMap::default();
    for (path, text) in WIT.iter().filter(|(path, _)| path.ends_with(".wit")) {
        sources.push_str(path, *text);
    }
    let group = sources.parse().map_err(|(_, error)| error.to_string())?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|error| error.to_string())?;
    Ok((resolve, package))
}

/// Puts the types of a world of `package` into a core module.
fn embed(
    module: &mut Vec<u8>,
    resolve: &Resolve,
    package: PackageId,
    world: Option<&str>,
) -> Result<(), String> {
    let world = resolve.select_world(&[package], world).map_err(|error| format!("{error:#}"))?;
    wit_component::embed_component_metadata(module, resolve, world, StringEncoding::UTF8)
        .map_err(|error| format!("{error:#}"))
}

/// Puts the types of one of the contract's worlds into a core module, as the bindings for Rust do by themselves.
pub(super) fn with_world(module: &mut Vec<u8>, world: &str) -> Result<(), String> {
    let (resolve, package) = contract()?;
    embed(module, &resolve, package, Some(world))
}

pub(super) fn component_of(module: &[u8]) -> Result<Vec<u8>, String> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| format!("{error:#}"))
}

/// Makes a component of a module that asks for WASI, and gets it out of the contract.
pub(super) fn component_with_wasi(module: &[u8]) -> Result<Vec<u8>, String> {
    let (mut resolve, package) = contract()?;
    let mut adapter = wasi::adapter(|interface| resolve.id_of_name(package, interface));
    let version = resolve.packages[package].name.version.as_ref().map(ToString::to_string);
    let text = wasi::WORLD.replace("VERSION", &version.unwrap_or_default());
    let package = resolve.push_source("wasi.wit", &text).map_err(|error| format!("{error:#}"))?;
    embed(&mut adapter, &resolve, package, None)?;
    let encoder = ComponentEncoder::default().validate(true).module(module);
    let encoder = encoder.and_then(|encoder| encoder.adapter(wasi::NAME, &adapter));
    encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_what_cargo_says() {
        let line =
            r#"{"reason":"compiler-artifact","target":{"name":"a"},"filenames":["/t/a.d","/t/a.wasm"]}"#;
        assert_eq!(artifact(line), Some(("a".to_owned(), "/t/a.wasm".into())));
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(artifact("not json"), None);
    }

    #[test]
    fn what_is_no_plugin_is_told() {
        assert!(component_of(b"\0asm").is_err());
        let folder = tempfile::tempdir().unwrap();
        let error = build(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml") && error.contains("pyproject.toml"), "{error}");
    }
}
