//! A project to begin with: the template, and beside it the SDK and the contract of this very Towpath.

use std::path::{Path, PathBuf};

use super::error::ToolError;

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust.
    Rust,
}

/// What a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It brings records in.
    Source,
    /// It carries records out.
    Sink,
    /// It changes records on their way.
    Transform,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
            Self::Transform => "transform",
        }
    }

    const fn library(self) -> &'static str {
        match self {
            Self::Source => include_str!("../templates/rust/src/source.rs.template"),
            Self::Sink => include_str!("../templates/rust/src/sink.rs.template"),
            Self::Transform => include_str!("../templates/rust/src/transform.rs.template"),
        }
    }

    /// How it is named in the YAML, and with which options it is checked.
    const fn example(self) -> &'static str {
        match self {
            Self::Source => SOURCE_EXAMPLE,
            Self::Sink => SINK_EXAMPLE,
            Self::Transform => TRANSFORM_EXAMPLE,
        }
    }

    const fn options(self) -> &'static str {
        match self {
            Self::Source => r#"{"url": "https://example.org/lines.txt"}"#,
            Self::Sink => r#"{"url": "https://example.org/lines", "field": "message"}"#,
            Self::Transform => r#"{"field": "level", "text": "debug"}"#,
        }
    }
}

const SOURCE_EXAMPLE: &str = "\
plugins:
  NAME: { path: NAME.wasm, grants: { http: [example.org] } }
pipelines:
  lines:
    source: { type: NAME, url: \"https://example.org/lines.txt\" }
    topic: lines";

const SINK_EXAMPLE: &str = "\
plugins:
  NAME: { path: NAME.wasm, grants: { http: [example.org] } }
pipelines:
  lines:
    topics: [logs]
    sink: { type: NAME, url: \"https://example.org/lines\", field: message }";

const TRANSFORM_EXAMPLE: &str = "\
plugins:
  NAME: { path: NAME.wasm }
pipelines:
  logs:
    source: { type: file, paths: [app.jsonl], format: json }
    transforms:
      - { type: NAME, field: level, text: debug }
    topic: logs";

/// Where in the project a file goes, and what it holds.
type File = (&'static str, &'static str);

/// `NAME` stands for the plugin's name, `TYPE` for that of its Rust type, `KIND` for what it is, `EXAMPLE` and `OPTIONS`
/// for how it is used.
const TEMPLATE: [File; 3] = [
    ("Cargo.toml", include_str!("../templates/rust/Cargo.toml.template")),
    ("README.md", include_str!("../templates/rust/README.md")),
    (".gitignore", "/target\n"),
];

macro_rules! sdk {
    ($($file:literal)*) => {
        [$((concat!("towpath/sdk/rust/src/", $file), include_str!(concat!("../../sdk/rust/src/", $file))),)*]
    };
}

const SDK: [File; 17] = sdk!(
    "lib.rs" "batch.rs" "bindings.rs" "bindings_sink.rs" "bindings_source.rs" "config.rs" "describe.rs" "error.rs"
    "host.rs" "output.rs" "outside.rs" "records.rs" "row.rs" "schema.rs" "sink.rs" "source.rs" "transform.rs"
);

macro_rules! wit {
    ($($file:literal)*) => {
        [$((concat!("towpath/wit/", $file), include_str!(concat!("../../wit/", $file))),)*]
    };
}

const WIT: [File; 8] = wit!(
    "README.md" "types.wit" "host.wit" "plugin.wit" "transform.wit" "outside.wit" "source.wit" "sink.wit"
);

const SDK_MANIFEST: File =
    ("towpath/sdk/rust/Cargo.toml", include_str!("../templates/rust/sdk.Cargo.toml.template"));

/// Writes a new project into `folder`, which must not be there yet. Returns the files.
///
/// # Errors
/// A name that cannot be, a folder that is there, a file that cannot be written.
pub fn new(language: Language, kind: Kind, folder: &Path) -> Result<Vec<PathBuf>, ToolError> {
    let Language::Rust = language;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.len() > 64 || !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.bytes().all(legal) {
        return Err(ToolError::Name(name));
    }
    if folder.exists() {
        let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already");
        return Err(ToolError::Io { path: folder.display().to_string(), source });
    }
    let mut written = Vec::new();
    let library = [("src/lib.rs", kind.library())];
    let template = TEMPLATE.iter().chain(&library);
    for (path, text) in template.clone().chain(&SDK).chain(&WIT).chain([&SDK_MANIFEST]) {
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(ToolError::io(parent))?;
        let is_template = template.clone().any(|(known, _)| known == path);
        let text = if is_template { filled_in(text, kind, &name) } else { (*text).to_owned() };
        std::fs::write(&file, text).map_err(ToolError::io(&file))?;
        written.push(file);
    }
    Ok(written)
}

fn filled_in(text: &str, kind: Kind, name: &str) -> String {
    let ty: String = name
        .split(['_', '-'])
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        })
        .collect();
    text.replace("EXAMPLE", kind.example())
        .replace("OPTIONS", kind.options())
        .replace("KIND", kind.name())
        .replace("TYPE", &ty)
        .replace("NAME", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_written_once_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("drop-debug");
        let files = new(Language::Rust, Kind::Transform, &project).unwrap();
        assert!(files.iter().all(|file| file.is_file()));
        let manifest = std::fs::read_to_string(project.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"drop-debug\""), "{manifest}");
        assert!(std::fs::read_to_string(project.join("src/lib.rs")).unwrap().contains("struct DropDebug"));
        let readme = std::fs::read_to_string(project.join("README.md")).unwrap();
        assert!(
            readme.contains("A transform for Towpath") && readme.contains("{ type: drop-debug, field"),
            "{readme}"
        );
        assert!(matches!(new(Language::Rust, Kind::Transform, &project), Err(ToolError::Io { .. })));
        for name in ["1st", "a b", "", "ä"] {
            assert!(new(Language::Rust, Kind::Transform, &folder.path().join(name)).is_err(), "{name}");
        }
    }

    /// Every file of the SDK and the contract goes along.
    #[test]
    fn nothing_is_forgotten() {
        for (place, files) in [("../sdk/rust/src", SDK.as_slice()), ("../wit", WIT.as_slice())] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), files.len(), "{place}");
        }
    }
}
