//! Plugins in Go: its own compiler makes a core module, and nothing is fetched but what the project's go.mod asks for.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, json};

use super::error::ToolError;
use super::files::{GO_SDK, write};
use super::script::{Kit, Makes, run};

const PROGRAM: &str = "go";

/// Where the SDK seems to lie, below the project: the same for everybody, since a component tells of it.
const SDK: &str = ".towpath-sdk";

/// 1.24 is the first that lets a program export functions.
pub(crate) const GO: Kit = Kit {
    language: "Go",
    runtime: PROGRAM,
    version: (1, 24),
    laid: &[],
    fetch: &[],
    interpreter: "",
    script: "",
    sdk: &GO_SDK,
    entry: &[],
    makes: Makes::GoModule,
};

/// Go as it is installed, whatever the environment says of other ones, other targets and workspaces.
pub(crate) fn command() -> Command {
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

/// Makes a core module of the project, against the SDK that was laid below `work`, and tells the project's name.
pub(crate) fn module(project: &Path, work: &Path, output: &Path) -> Result<String, ToolError> {
    let manifest = work.join("go.mod");
    for (name, needed) in [("go.mod", true), ("go.sum", false)] {
        let from = project.join(name);
        if needed || from.is_file() {
            std::fs::copy(&from, work.join(name)).map_err(ToolError::io(&from))?;
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
    let name = said(&mut list, "go.mod cannot be read")?;
    let mut build = command();
    build.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-buildvcs=false"]);
    build.args([&modfile, &overlay, "-o"]).arg(output).arg(".").current_dir(project);
    said(build.stderr(Stdio::inherit()), "the plugin does not compile")?;
    Ok(name.trim().to_owned())
}

/// What a command prints; `failed` where it fails.
fn said(command: &mut Command, failed: &str) -> Result<String, ToolError> {
    let output = run(command, PROGRAM)?;
    if !output.status.success() {
        return Err(ToolError::Compile(failed.to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
