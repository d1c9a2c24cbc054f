//! Files that this binary carries, and where it puts them.

use std::path::{Path, PathBuf};

use super::error::ToolError;

/// Where a file goes, and what it holds.
pub(crate) type File = (&'static str, &'static str);

macro_rules! carried {
    ($to:literal, $from:literal: $($file:literal)*) => {
        [$((concat!($to, $file), include_str!(concat!($from, $file))),)*]
    };
}

/// The contract.
pub(crate) const WIT: [File; 8] = carried!("wit/", "../../wit/":
    "README.md" "types.wit" "host.wit" "plugin.wit" "transform.wit" "outside.wit" "source.wit" "sink.wit"
);

pub(crate) const RUST_SDK: [File; 18] = carried!("sdk/rust/", "../../sdk/rust/":
    "README.md" "src/lib.rs" "src/batch.rs" "src/bindings.rs" "src/bindings_sink.rs" "src/bindings_source.rs"
    "src/config.rs" "src/describe.rs" "src/error.rs" "src/host.rs" "src/output.rs" "src/outside.rs" "src/records.rs"
    "src/row.rs" "src/schema.rs" "src/sink.rs" "src/source.rs" "src/transform.rs"
);

pub(crate) const JS_SDK: [File; 16] = carried!("sdk/js/", "../../sdk/js/":
    "package.json" "index.d.ts" "README.md" "src/index.js" "src/batch.js" "src/component.js" "src/delivery.js" "src/describe.js"
    "src/error.js" "src/host.js" "src/outside.js" "src/output.js" "src/records.js" "src/row.js" "src/schema.js" "src/testing.js"
);

pub(crate) const PYTHON_SDK: [File; 17] = carried!("sdk/python/", "../../sdk/python/":
    "README.md" "towpath_sdk/__init__.py" "towpath_sdk/batch.py" "towpath_sdk/component.py" "towpath_sdk/connector.py"
    "towpath_sdk/describe.py" "towpath_sdk/host.py" "towpath_sdk/http.py" "towpath_sdk/outside.py" "towpath_sdk/output.py"
    "towpath_sdk/records.py" "towpath_sdk/row.py" "towpath_sdk/schema.py" "towpath_sdk/secrets.py" "towpath_sdk/state.py"
    "towpath_sdk/tcp.py" "towpath_sdk/testing.py"
);

pub(crate) const C_SDK: [File; 10] = carried!("sdk/c/", "../../sdk/c/":
    "README.md" "towpath.h" "internal.h" "towpath.c" "output.c" "component.c" "transform.h" "transform.c" "testing.h"
    "testing.c"
);

pub(crate) const GO_SDK: [File; 14] = carried!("sdk/go/", "../../sdk/go/":
    "README.md" "go.mod" "batch.go" "component.go" "describe.go" "error.go" "host.go" "host_native.go" "lift.go"
    "output.go" "row.go" "schema.go" "towpath.go" "try.go"
);

/// Writes a file below `folder`, with the folders above it.
pub(crate) fn write(folder: &Path, path: &str, text: &str) -> Result<PathBuf, ToolError> {
    let file = folder.join(path);
    let parent = file.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(ToolError::io(parent))?;
    std::fs::write(&file, text).map_err(ToolError::io(&file))?;
    Ok(file)
}

/// Puts a file in the place of an older one at once: whoever reads it sees a whole one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ToolError> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).map_err(ToolError::io(&new))?;
    std::fs::rename(&new, path).map_err(ToolError::io(path))
}

/// Writes carried files below `folder`.
pub(crate) fn write_all<'a>(
    folder: &Path,
    files: impl IntoIterator<Item = &'a File>,
) -> Result<Vec<PathBuf>, ToolError> {
    files.into_iter().map(|(path, text)| write(folder, path, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true if ["test", "tests", "__pycache__", "node_modules"].contains(&&*name) => {}
                true => files_below(&path, found),
                false if name.ends_with("_test.go") => {}
                // Projects have one of their own, which is no part of a workspace.
                false if name == "Cargo.toml" => {}
                false => found.push(path),
            }
        }
    }

    /// Every file of the SDKs and the contract goes along.
    #[test]
    fn nothing_is_forgotten() {
        for (place, files) in [
            ("sdk/rust", RUST_SDK.as_slice()),
            ("sdk/js", JS_SDK.as_slice()),
            ("sdk/python", PYTHON_SDK.as_slice()),
            ("sdk/c", C_SDK.as_slice()),
            ("sdk/go", GO_SDK.as_slice()),
            ("wit", WIT.as_slice()),
        ] {
            let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let mut found = Vec::new();
            files_below(&plugins.join(place), &mut found);
            let mut names: Vec<_> = files.iter().map(|(path, _)| plugins.join(path)).collect();
            found.sort();
            names.sort();
            assert_eq!(found, names, "{place}");
        }
    }
}
