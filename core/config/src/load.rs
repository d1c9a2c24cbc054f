//! Files and directories into one configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towpath_api::Registry;
use towpath_types::limits;

use super::config::Config;
use super::layout::top_options;
use super::plugins;
use super::problem::{Problem, Problems};
use super::secret::{Environment, ProcessEnvironment, resolve};
use super::secrets::Secrets;
use super::tree::{self, Node, Place, SourceFile, Value};
use super::validate::validate;

/// A file as it is written, and with its references resolved.
#[derive(Debug)]
pub(crate) struct Root {
    /// Without secrets: what identifies a configuration is made of this (R13).
    pub(crate) written: Node,
    pub(crate) resolved: Node,
}

/// Reads files, and every `.yaml` and `.yml` file of directories, as one configuration.
///
/// # Errors
/// Every problem of every file at once (R12).
pub fn load(paths: &[PathBuf], registry: &Registry) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    let files = read_all(paths, &mut problems);
    assemble(files, registry, &ProcessEnvironment, problems)
}

/// As [`load`], of plugins alone: each is loaded, and what else the files say is not looked at, so that the secrets of
/// pipelines need not be there.
///
/// # Errors
/// Every problem with a plugin at once (R12), and files that cannot be read.
pub fn load_plugins(paths: &[PathBuf], registry: &Registry) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let files = read_all(paths, &mut problems);
    let secrets = Secrets::default();
    let own = |key: &str| ["plugins", "plugin_directory", "plugin_trust"].contains(&key);
    let roots = parse_all(&files, own, &ProcessEnvironment, &secrets, &mut problems);
    for root in &roots {
        validate(&root.resolved, &top_options(), &[], &secrets, &mut problems);
    }
    plugins::read_all(&roots, registry, &secrets, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(Problems::new(problems, secrets)) }
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
    let roots = parse_all(&files, |_| true, environment, &secrets, &mut problems);
    let config = Config::read(roots, registry, &secrets, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(Problems::new(problems, secrets)) }
}

fn read_all(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<Arc<SourceFile>> {
    let mut files = Vec::new();
    for path in paths {
        read_path(path, &mut files, problems);
    }
    // A file that is named, and is in a directory that is named, is meant once.
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.path.canonicalize().unwrap_or_else(|_| file.path.clone())));
    files
}

/// The sections of each file that are asked for by name.
fn parse_all(
    files: &[Arc<SourceFile>],
    is_asked_for: impl Fn(&str) -> bool,
    environment: &dyn Environment,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Vec<Root> {
    let mut roots = Vec::new();
    for file in files {
        if let Some(mut written) = tree::parse(file, problems) {
            if let Value::Map(entries) = &mut written.value {
                entries.retain(|(key, _)| is_asked_for(&key.name));
            }
            let mut resolved = written.clone();
            resolve(&mut resolved, environment, secrets, problems);
            roots.push(Root { written, resolved });
        }
    }
    roots
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::without_place("CONFIG_UNREADABLE", format!("{} cannot be read: {error}", path.display()))
        .with_hint("name a YAML file or a directory of YAML files")
}

fn read_path(path: &Path, files: &mut Vec<Arc<SourceFile>>, problems: &mut Vec<Problem>) {
    if !path.is_dir() {
        read_file(path, files, problems);
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
        problems.push(Problem::without_place("CONFIG_EMPTY_DIRECTORY", message).with_hint(
            "name a file, or a directory that holds some itself: those below it are not looked into",
        ));
    }
    found.sort();
    for path in found {
        read_file(&path, files, problems);
    }
}

/// Hidden files are an editor's, not the user's.
fn is_yaml(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let named = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    named && !hidden && !path.is_dir()
}

fn read_file(path: &Path, files: &mut Vec<Arc<SourceFile>>, problems: &mut Vec<Problem>) {
    match read_bytes(path).map(String::from_utf8) {
        Ok(Ok(text)) => {
            // An editor's byte order mark is no part of the text.
            let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
            files.push(Arc::new(SourceFile { path: path.to_owned(), text }));
        }
        Ok(Err(error)) => problems.push(not_utf8(path, &error)),
        Err(error) => problems.push(unreadable(path, &error)),
    }
}

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > limits::CONFIG_FILE_BYTES_MAX {
        let limit = limits::CONFIG_FILE_BYTES_MAX;
        return Err(std::io::Error::other(format!("it has {size} bytes, and {limit} are the most")));
    }
    std::fs::read(path)
}

/// The place of the first byte that is no text, in what can be shown of the file.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Problem {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let file = Arc::new(SourceFile { path: path.to_owned(), text });
    let end = at + char::REPLACEMENT_CHARACTER.len_utf8();
    Problem::new("CONFIG_ENCODING", Place { file, range: at..end }, "this file is not UTF-8 text")
        .with_hint("save it as UTF-8; only text can be YAML")
}
