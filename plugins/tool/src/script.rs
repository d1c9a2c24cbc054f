//! Plugins in JavaScript and Python: an interpreter with the plugin in it becomes a component. Plugins in C: a compiler makes a
//! module, which becomes one here. What does that comes from the languages' registries, pinned, into the user's cache.

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use super::build::{Built, component_of, lock, with_world};
use super::error::ToolError;
use super::files::{C_SDK, File, JS_SDK, PYTHON_SDK, WIT, write, write_all};
use super::new::is_name;

/// How a language's plugins become components.
pub(crate) struct Kit {
    /// The language, for people.
    pub(crate) language: &'static str,
    /// What runs the build, and its least version.
    runtime: &'static str,
    version: (u32, u32),
    /// What is laid into the cache before anything is fetched.
    laid: &'static [File],
    /// Fetches, in the folder of `laid`.
    fetch: &'static [&'static [&'static str]],
    /// The program and the script that make the component, in that folder; an empty one is the runtime.
    interpreter: &'static str,
    script: &'static str,
    /// What is laid beside the plugin.
    sdk: &'static [File],
    entry: &'static [File],
    /// Whether the script makes a core module, and not a component.
    module: bool,
}

/// What a script makes, unless the project says otherwise (`kind`).
pub(super) const WORLD: &str = "transform";

pub(crate) const JAVASCRIPT: Kit = Kit {
    language: "JavaScript",
    runtime: "node",
    version: (20, 0),
    laid: &[
        ("package.json", include_str!("../toolchains/js/package.json")),
        ("package-lock.json", include_str!("../toolchains/js/package-lock.json")),
        ("build.mjs", include_str!("../toolchains/js/build.mjs")),
    ],
    // R11: what is fetched runs nothing while it is installed.
    fetch: &[&["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]],
    interpreter: "",
    script: "build.mjs",
    sdk: &JS_SDK,
    entry: &[
        ("entries/source.js", include_str!("../toolchains/js/entries/source.js")),
        ("entries/sink.js", include_str!("../toolchains/js/entries/sink.js")),
        ("entries/transform.js", include_str!("../toolchains/js/entries/transform.js")),
    ],
    module: false,
};

/// A virtual environment of Python with what `requirements.txt` names.
const PIP: &[&[&str]] = &[
    &["python3", "-m", "venv", "venv"],
    &[
        "venv/bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-r",
        "requirements.txt",
    ],
];

pub(crate) const PYTHON: Kit = Kit {
    language: "Python",
    runtime: "python3",
    version: (3, 11),
    laid: &[
        ("requirements.txt", include_str!("../toolchains/python/requirements.txt")),
        ("build.py", include_str!("../toolchains/python/build.py")),
    ],
    fetch: PIP,
    interpreter: "venv/bin/python",
    script: "build.py",
    sdk: &PYTHON_SDK,
    entry: &[],
    module: false,
};

/// Zig's C compiler, which brings the C library and comes as a package of Python.
pub(crate) const C: Kit = Kit {
    language: "C",
    runtime: "python3",
    version: (3, 11),
    laid: &[
        ("requirements.txt", include_str!("../toolchains/c/requirements.txt")),
        ("build.py", include_str!("../toolchains/c/build.py")),
    ],
    fetch: PIP,
    interpreter: "venv/bin/python",
    script: "build.py",
    sdk: &C_SDK,
    entry: &[],
    module: true,
};

/// Towpath's folder in the user's cache directory.
pub(crate) fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or(home).unwrap_or_else(std::env::temp_dir).join("towpath")
}

pub(super) fn run(command: &mut Command, program: &str) -> Result<Output, ToolError> {
    let missing = |source| ToolError::Missing { program: program.to_owned(), source };
    command.stdin(Stdio::null()).output().map_err(missing)
}

pub(super) fn digest(parts: impl IntoIterator<Item = impl std::hash::Hash>) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    parts.into_iter().for_each(|part| part.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// `v20.11.0`, `Python 3.11.2` or `go version go1.26.8 linux/amd64` as a version.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let digits = text.trim().trim_start_matches(|it: char| !it.is_ascii_digit());
    let mut parts = digits.split('.').map(|part| {
        let end = part.find(|it: char| !it.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end)?.parse().ok()
    });
    Some((parts.next()??, parts.next()??))
}

impl Kit {
    /// Where everything is that the build needs; fetched if need be.
    fn prepared(&self) -> Result<PathBuf, ToolError> {
        let said = run(Command::new(self.runtime).arg("--version"), self.runtime)?;
        let found = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if version(&found).is_none_or(|found| found < self.version) {
            let needed = format!("{}.{}", self.version.0, self.version.1);
            return Err(ToolError::TooOld { program: self.runtime, found, needed });
        }
        let name = format!("{}-{}", self.language.to_lowercase(), digest(self.laid));
        let place = cache().join(name);
        // One at a time; who comes second finds it done.
        let _lock = lock(&place.with_extension("lock.d"))?;
        if !place.join(".complete").exists() {
            self.fetch(&place)?;
        }
        Ok(place)
    }

    /// Fetches into `place`; what was broken off before is done again.
    fn fetch(&self, place: &Path) -> Result<(), ToolError> {
        if place.exists() {
            std::fs::remove_dir_all(place).map_err(ToolError::io(place))?;
        }
        write_all(place, self.laid)?;
        for command in self.fetch {
            let [program, arguments @ ..] = command else { continue };
            let path = if program.contains('/') { place.join(program) } else { PathBuf::from(program) };
            let output = run(Command::new(path).args(arguments).current_dir(place), program)?;
            if !output.status.success() {
                let said = [output.stderr, output.stdout].concat();
                let said = String::from_utf8_lossy(&said);
                let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(8);
                let said = said.collect::<Vec<_>>().join("; ");
                return Err(ToolError::Fetch { language: self.language, command: command.join(" "), said });
            }
        }
        write(place, ".complete", "")?;
        Ok(())
    }

    /// Builds the project in `folder`; what is made on the way goes below `place`. What has not changed since is not built
    /// again.
    pub(crate) fn build(&self, folder: &Path, place: &Path) -> Result<Built, ToolError> {
        let toolchain = self.prepared()?;
        let project = folder.canonicalize().map_err(ToolError::io(folder))?;
        std::fs::create_dir_all(place).map_err(ToolError::io(place))?;
        let place = place.canonicalize().map_err(ToolError::io(place))?;
        let work = place.join("scripts").join(digest([&project]));
        let (output, stamp) = (work.join("plugin.wasm"), work.join("built.json"));
        let mut inputs = vec![(toolchain.clone(), Vec::new())];
        inputs_of(&project, 0, &mut inputs)?;
        let carried = self.sdk.iter().chain(&WIT).chain(self.entry);
        let inputs = digest([digest(inputs), digest(carried)]);
        let before =
            std::fs::read_to_string(&stamp).ok().and_then(|text| serde_json::from_str::<Json>(&text).ok());
        if let Some(name) = before.filter(|it| it["inputs"] == inputs && output.exists())
            && let Some(name) = name["name"].as_str()
        {
            return self.named(name, &work, &output);
        }
        let name = self.component(&toolchain, &project, &work, &output)?;
        let built = self.named(&name, &work, &output)?;
        write(&work, "built.json", &json!({ "inputs": inputs, "name": name }).to_string())?;
        Ok(built)
    }

    /// Makes the component, and tells the project's name.
    fn component(
        &self,
        toolchain: &Path,
        project: &Path,
        work: &Path,
        output: &Path,
    ) -> Result<String, ToolError> {
        if work.exists() {
            std::fs::remove_dir_all(work).map_err(ToolError::io(work))?;
        }
        write_all(work, self.sdk)?;
        write_all(work, &WIT)?;
        write_all(work, self.entry)?;
        let request = json!({ "project": project, "work": work, "world": WORLD, "output": output });
        let request = write(work, "request.json", &request.to_string())?;
        let interpreter = match self.interpreter {
            "" => PathBuf::from(self.runtime),
            path => toolchain.join(path),
        };
        let mut command = Command::new(interpreter);
        command.arg(toolchain.join(self.script)).arg(request).stderr(Stdio::inherit());
        let done = run(&mut command, self.runtime)?;
        if !done.status.success() {
            return Err(ToolError::Compile("the plugin does not compile".to_owned()));
        }
        if self.module {
            componentize(output)?;
        }
        let said = String::from_utf8_lossy(&done.stdout);
        let said = said.lines().last().and_then(|line| serde_json::from_str::<Json>(line).ok());
        Ok(said.and_then(|it| Some(it["name"].as_str()?.to_owned())).unwrap_or_default())
    }

    /// The component under its project's name, without a scope (`@org/`).
    fn named(&self, name: &str, work: &Path, output: &Path) -> Result<Built, ToolError> {
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        if !is_name(&name) {
            return Err(ToolError::Name(name));
        }
        let (new, path) = (work.join("named.new"), work.join(format!("{name}.wasm")));
        // Whoever reads the old one sees a whole one.
        std::fs::copy(output, &new).map_err(ToolError::io(&new))?;
        std::fs::rename(&new, &path).map_err(ToolError::io(&path))?;
        Ok(Built { name, path })
    }
}

/// Makes a component of the core module in a file.
fn componentize(path: &Path) -> Result<(), ToolError> {
    let mut bytes = std::fs::read(path).map_err(ToolError::io(path))?;
    let component = with_world(&mut bytes, WORLD).and_then(|()| component_of(&bytes));
    let component =
        component.map_err(|reason| ToolError::NoComponent { path: path.display().to_string(), reason })?;
    std::fs::write(path, component).map_err(ToolError::io(path))
}

/// Folders below which a project's sources are looked for.
const DEPTH_MAX: u32 = 16;

/// The files of a project and what they hold, but for what is installed or made in it.
fn inputs_of(folder: &Path, depth: u32, found: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<(), ToolError> {
    let entries = std::fs::read_dir(folder).map_err(ToolError::io(folder))?;
    let mut paths = entries
        .map(|it| it.map(|it| it.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(ToolError::io(folder))?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let made = ["node_modules", "target", "towpath", "__pycache__"].contains(&&*name);
        if made || name.starts_with('.') || name.ends_with(".wasm") || depth > DEPTH_MAX {
            continue;
        }
        if path.is_dir() {
            inputs_of(&path, depth + 1, found)?;
        } else if path.is_file() {
            let bytes = std::fs::read(&path).map_err(ToolError::io(&path))?;
            found.push((path, bytes));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("v20.11.0\n"), Some((20, 11)));
        assert_eq!(version("Python 3.9.2"), Some((3, 9)));
        assert_eq!(version("go version go1.27rc1 linux/amd64"), Some((1, 27)));
        assert_eq!(version(""), None);
        assert!(version("Python 3.9.2") < Some(PYTHON.version));
    }

    #[test]
    fn what_is_installed_or_made_is_no_source() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["package.json", "src/index.js", "node_modules/a/b.js", "target/x", ".git/HEAD", "a.wasm"]
        {
            write(folder.path(), path, "x").unwrap();
        }
        let mut found = Vec::new();
        inputs_of(folder.path(), 0, &mut found).unwrap();
        let names: Vec<_> = found.iter().map(|(path, _)| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("package.json"), Path::new("src/index.js")]);
    }

    #[test]
    fn names_have_no_scope_and_no_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let output = write(folder.path(), "plugin.wasm", "x").unwrap();
        assert_eq!(PYTHON.named("@org/mine", folder.path(), &output).unwrap().name, "mine");
        for name in ["", "..", "@org/..", "a b"] {
            assert!(matches!(PYTHON.named(name, folder.path(), &output), Err(ToolError::Name(_))), "{name}");
        }
    }
}
