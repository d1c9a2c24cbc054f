//! Files and directories into one configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towpath_api::Registry;
use towpath_types::limits;

use super::config::Config;
use super::problem::{Problem, Problems};
use super::secret::{Environment, ProcessEnvironment, resolve};
use super::secrets::Secrets;
use super::tree::{self, Node, SourceFile};

/// Reads files, and every `.yaml` and `.yml` file of directories, as one configuration.
///
/// # Errors
/// Every problem of every file at once (R12).
pub fn load(paths: &[PathBuf], registry: &Registry) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        read_path(path, &mut files, &mut problems);
    }
    assemble(files, registry, &ProcessEnvironment, problems)
}

/// As [`load`], for one text that is called `name` in messages.
///
/// # Errors
/// Every problem at once (R12).
pub fn load_text(name: &str, text: &str, registry: &Registry) -> Result<Config, Problems> {
    let file = Arc::new(SourceFile { path: name.into(), text: text.to_owned() });
    assemble(vec![file], registry, &ProcessEnvironment, Vec::new())
}

fn assemble(
    files: Vec<Arc<SourceFile>>,
    registry: &Registry,
    environment: &dyn Environment,
    mut problems: Vec<Problem>,
) -> Result<Config, Problems> {
    let secrets = Secrets::default();
    let mut roots: Vec<Node> = Vec::new();
    for file in &files {
        if let Some(mut root) = tree::parse(file, &mut problems) {
            resolve(&mut root, environment, &secrets, &mut problems);
            roots.push(root);
        }
    }
    let config = Config::read(&roots, registry, secrets, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(Problems::new(problems)) }
}

fn read_path(path: &Path, files: &mut Vec<Arc<SourceFile>>, problems: &mut Vec<Problem>) {
    let unreadable = |path: &Path, error: &std::io::Error| {
        Problem::without_place("CONFIG_UNREADABLE", format!("{} cannot be read: {error}", path.display()))
            .with_hint("name a YAML file or a directory of YAML files")
    };
    if !path.is_dir() {
        match read_file(path) {
            Ok(file) => files.push(file),
            Err(error) => problems.push(unreadable(path, &error)),
        }
        return;
    }
    let mut found = Vec::new();
    match std::fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) if is_yaml(&entry.path()) => found.push(entry.path()),
                    Ok(_) => {}
                    Err(error) => problems.push(unreadable(path, &error)),
                }
            }
        }
        Err(error) => problems.push(unreadable(path, &error)),
    }
    if found.is_empty() {
        let message = format!("{} holds no .yaml or .yml file", path.display());
        problems.push(Problem::without_place("CONFIG_EMPTY_DIRECTORY", message));
    }
    found.sort();
    for path in found {
        match read_file(&path) {
            Ok(file) => files.push(file),
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") && !path.is_dir()
}

fn read_file(path: &Path) -> std::io::Result<Arc<SourceFile>> {
    let size = std::fs::metadata(path)?.len();
    if size > limits::CONFIG_FILE_BYTES_MAX {
        let limit = limits::CONFIG_FILE_BYTES_MAX;
        return Err(std::io::Error::other(format!("it has {size} bytes, and {limit} are the most")));
    }
    Ok(Arc::new(SourceFile { path: path.to_owned(), text: std::fs::read_to_string(path)? }))
}
