//! A compiler that knows WASM.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::ToolError;

/// The target that plugins are compiled for: no operating system, so that nothing but the contract is imported.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// What the sandbox's processor has beyond the least of WASM: code that goes through bytes needs a fraction of the time.
const FEATURES: &str = r#"target.wasm32-unknown-unknown.rustflags = ["-C", "target-feature=+simd128"]"#;

/// Fetches a compiler from Debian's packages, and prints where it is.
const SCRIPT: &str = include_str!("../rustc-from-debian");

/// How guests are compiled on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The compiler that is installed knows the target.
    Installed,
    /// Another one, unpacked here, which builds the standard library along.
    Debian(PathBuf),
}

fn output(program: &str, arguments: &[&str], folder: &Path) -> Result<std::process::Output, ToolError> {
    let missing = |source| ToolError::Missing { program: program.to_owned(), source };
    Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output().map_err(missing)
}

/// Whether the compiler of `folder` has the target's standard library.
fn is_installed(folder: &Path) -> Result<bool, ToolError> {
    let printed = output("rustc", &["--print", "target-libdir", "--target", TARGET], folder)?;
    let path = String::from_utf8_lossy(&printed.stdout);
    Ok(printed.status.success() && Path::new(path.trim()).is_dir())
}

impl Toolchain {
    /// Finds one, and fetches it if need be. `TOWPATH_RUSTC_FROM_DEBIAN=1` takes the second way at once.
    pub(crate) fn find(folder: &Path) -> Result<Self, ToolError> {
        let forced = std::env::var_os("TOWPATH_RUSTC_FROM_DEBIAN").is_some_and(|value| value == "1");
        if !forced && (is_installed(folder)? || Self::added(folder)) {
            return Ok(Self::Installed);
        }
        Self::fetched()
    }

    fn added(folder: &Path) -> bool {
        let added = output("rustup", &["target", "add", TARGET], folder);
        added.is_ok_and(|output| output.status.success()) && is_installed(folder).unwrap_or_default()
    }

    fn fetched() -> Result<Self, ToolError> {
        let cache = super::script::cache().join("rustc-wasm");
        let missing = |source| ToolError::Missing { program: "bash".to_owned(), source };
        let output = Command::new("bash")
            .args(["-c", SCRIPT, "rustc-from-debian"])
            .arg(&cache)
            .stdin(Stdio::null())
            .output()
            .map_err(missing)?;
        if output.status.success() {
            return Ok(Self::Debian(cache));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(ToolError::Toolchain(said.lines().last().unwrap_or("the script failed").to_owned()))
    }

    /// `cargo build` with this compiler.
    pub(crate) fn cargo(&self, folder: &Path) -> Result<Command, ToolError> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--target", TARGET, "--config", FEATURES]);
        cargo.current_dir(folder).stdin(Stdio::null());
        // What an outer cargo has set for its own build is none of the guest's.
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_TARGET",
            "CARGO_INCREMENTAL",
        ] {
            cargo.env_remove(name);
        }
        if let Self::Debian(place) = self {
            let printed = output("rustc", &["--print", "sysroot"], folder)?;
            let sysroot = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
            let linkers = format!("{sysroot}/lib/rustlib/x86_64-unknown-linux-gnu/bin");
            let path = std::env::var("PATH").unwrap_or_default();
            cargo
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC", place.join("usr/bin/rustc"))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("LD_LIBRARY_PATH", place.join("usr/lib/x86_64-linux-gnu"))
                .env("PATH", format!("{linkers}:{path}"));
        }
        Ok(cargo)
    }
}
