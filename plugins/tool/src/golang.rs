//! Plugins in Go: its own compiler makes a core module, and nothing is fetched but what the project's go.mod asks for.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, json};

use super::build::{Built, component_with_wasi, with_world};
use super::error::ToolError;
use super::files::{GO_SDK, replace, write, write_all};
use super::new::is_name;
use super::script::{WORLD, digest, run, version};

const PROGRAM: &str = "go";

/// Where the SDK seems to lie, below the project: the same for everybody, since a component tells of it.
const SDK: &str = ".towpath-sdk";

/// The first that lets a program export functions.
const VERSION: (u32, u32) = (1, 24);

/// Builds the project in `folder`; what is made on the way goes below `place`. It is always built: Go knows what has changed,
/// also in modules beside the project.
pub(crate) fn build(folder: &Path, place: &Path) -> Result<Built, ToolError> {
    let found = said(command().arg("version"), "`go version` fails")?.trim().to_owned();
    if version(&found).is_none_or(|found| found < VERSION) {
        let needed = format!("{}.{}", VERSION.0, VERSION.1);
        return Err(ToolError::TooOld { program: PROGRAM, found, needed });
    }
    let project = folder.canonicalize().map_err(ToolError::io(folder))?;
    let place = place.canonicalize().map_err(ToolError::io(place))?;
    let work = place.join("go").join(digest([&project]));
    let (path, mut module) = module(&project, &work)?;
    let component = with_world(&mut module, WORLD).and_then(|()| component_with_wasi(&module));
    let component =
        component.map_err(|reason| ToolError::NoComponent { path: project.display().to_string(), reason })?;
    let name = name_of(&path).to_owned();
    if !is_name(&name) {
        return Err(ToolError::Name(name));
    }
    let path = work.join(format!("{name}.wasm"));
    replace(&path, &component)?;
    Ok(Built { name, path })
}

/// Go as it is installed, whatever the environment says of other ones, other targets and workspaces.
fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.envs([
        ("GOTOOLCHAIN", "local"),
        ("GOOS", "wasip1"),
        ("GOARCH", "wasm"),
        ("CGO_ENABLED", "0"),
        ("GO111MODULE", "on"),
        ("GOWORK", "off"),
        // An empty one would be that of `go env -w`.
        ("GOFLAGS", "-mod=readonly"),
    ]);
    for name in ["GOEXPERIMENT", "GOWASM"] {
        command.env_remove(name);
    }
    command
}

/// The path of the project's module, and a core module of it with the SDK of this Towpath, which is laid below `work`.
fn module(project: &Path, work: &Path) -> Result<(String, Vec<u8>), ToolError> {
    write_all(work, &GO_SDK)?;
    let (manifest, output) = (work.join("go.mod"), work.join("core"));
    for (name, needed) in [("go.mod", true), ("go.sum", false)] {
        let (from, to) = (project.join(name), work.join(name));
        if needed || from.is_file() {
            std::fs::copy(&from, &to).map_err(ToolError::io(&from))?;
        } else if to.is_file() {
            std::fs::remove_file(&to).map_err(ToolError::io(&to))?;
        }
    }
    // The project names the SDK that lies beside it, for editors and tests; this is the one of this Towpath.
    let replace = format!("-replace=towpath=./{SDK}");
    let sdk = GO_SDK.iter().filter_map(|(path, _)| {
        let name = Path::new(path).file_name()?;
        Some((project.join(SDK).join(name).to_str()?.to_owned(), json!(work.join(path))))
    });
    let sdk = json!({ "Replace": sdk.collect::<Map<_, _>>() });
    let overlay = format!("-overlay={}", write(work, "overlay.json", &sdk.to_string())?.display());
    let mut edit = command();
    edit.args(["mod", "edit", "-require=towpath@v0.0.0", &replace]).arg(&manifest);
    said(edit.stderr(Stdio::inherit()), "go.mod cannot be read")?;
    let modfile = format!("-modfile={}", manifest.display());
    let mut list = command();
    list.args(["list", "-m", &modfile, &overlay]).current_dir(project).stderr(Stdio::inherit());
    let path = said(&mut list, "go.mod cannot be read")?;
    let mut build = command();
    build.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-buildvcs=false"]);
    build.args([&modfile, &overlay, "-o"]).arg(&output).arg(".").current_dir(project);
    said(build.stderr(Stdio::inherit()), "the plugin does not compile")?;
    let module = std::fs::read(&output).map_err(ToolError::io(&output))?;
    Ok((path.trim().to_owned(), module))
}

/// The last part of a module's path, but for that of its version (`/v2`).
fn name_of(path: &str) -> &str {
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut parts = path.rsplit('/');
    let last = parts.next().unwrap_or_default();
    parts.next().filter(|_| is_version(last)).unwrap_or(last)
}

/// What a command prints; `failed` where it fails.
fn said(command: &mut Command, failed: &str) -> Result<String, ToolError> {
    let output = run(command, PROGRAM)?;
    if !output.status.success() {
        return Err(ToolError::Compile(failed.to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_modules() {
        for (path, name) in [
            ("a", "a"),
            ("example.org/x/a-b", "a-b"),
            ("example.org/a/v2", "a"),
            ("v2", "v2"),
            ("x/vain", "vain"),
        ] {
            assert_eq!(name_of(path), name);
        }
    }
}
