//! A project to begin with: the template, and beside it the SDK and the contract of this very Towpath.

use std::path::{Path, PathBuf};

use super::error::ToolError;
use super::files::{C_SDK, File, GO_SDK, JS_SDK, PYTHON_SDK, RUST_SDK, WIT, write, write_all};
use super::templates;

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../templates/", $file))
    };
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust.
    Rust,
    /// JavaScript.
    JavaScript,
    /// TypeScript.
    TypeScript,
    /// Python.
    Python,
    /// C.
    C,
    /// Go.
    Go,
}

impl Language {
    /// What the project in `folder` is written in; TypeScript is built as JavaScript is.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        [
            ("Cargo.toml", Self::Rust),
            ("package.json", Self::JavaScript),
            ("pyproject.toml", Self::Python),
            ("towpath.toml", Self::C),
            ("go.mod", Self::Go),
        ]
        .into_iter()
        .find_map(|(file, language)| folder.join(file).is_file().then_some(language))
    }

    /// The language, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::TypeScript => "TypeScript",
            Self::Python => "Python",
            Self::C => "C",
            Self::Go => "Go",
        }
    }

    /// The file of a new project that is the plugin.
    #[must_use]
    pub const fn main_file(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::JavaScript => "src/index.js",
            Self::TypeScript => "src/index.ts",
            Self::Python => "src/plugin.py",
            Self::C => "plugin.c",
            Self::Go => "plugin.go",
        }
    }

    /// Whether plugins of this kind can be written in it.
    const fn has(self, kind: Kind) -> bool {
        match self {
            Self::Rust | Self::JavaScript | Self::TypeScript | Self::Python => true,
            Self::C | Self::Go => matches!(kind, Kind::Transform),
        }
    }

    /// The files that are filled in, and those of the SDK, which go below `towpath/`.
    fn files(self, kind: Kind) -> (Vec<File>, Vec<&'static File>) {
        let main = |text| (self.main_file(), text);
        match self {
            Self::Rust => (
                [RUST.as_slice(), &[main(templates::rust(kind))]].concat(),
                RUST_SDK.iter().chain(&WIT).chain([&SDK_MANIFEST]).collect(),
            ),
            Self::JavaScript => {
                let own = [main(templates::javascript(kind)), templates::javascript_test(kind)];
                ([JAVASCRIPT.as_slice(), &own].concat(), JS_SDK.iter().collect())
            }
            Self::TypeScript => {
                let own = [
                    main(templates::typescript(kind)),
                    templates::javascript_test(kind),
                    ("tsconfig.json", template!("ts/tsconfig.json")),
                ];
                ([JAVASCRIPT.as_slice(), &own].concat(), JS_SDK.iter().collect())
            }
            Self::Python => {
                let own = [main(templates::python(kind)), templates::python_test(kind)];
                ([PYTHON.as_slice(), &own].concat(), PYTHON_SDK.iter().collect())
            }
            Self::C => (C.to_vec(), C_SDK.iter().collect()),
            Self::Go => (GO.to_vec(), GO_SDK.iter().collect()),
        }
    }
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

/// `NAME` stands for the plugin's name, `TYPE` for that of its type, `KIND` for what it is, `MAIN` for its file, `LANGUAGE`
/// for what it is written in, `EXAMPLE` and `OPTIONS` for how it is used.
const RUST: [File; 3] = [
    ("Cargo.toml", template!("rust/Cargo.toml.template")),
    ("README.md", template!("rust/README.md")),
    (".gitignore", "/target\n"),
];

const JAVASCRIPT: [File; 3] = [
    ("package.json", template!("js/package.json")),
    ("README.md", template!("js/README.md")),
    (".gitignore", "/node_modules\n/target\n"),
];

const PYTHON: [File; 3] = [
    ("pyproject.toml", template!("python/pyproject.toml.template")),
    ("README.md", template!("python/README.md")),
    (".gitignore", "/target\n__pycache__\n"),
];

const C: [File; 5] = [
    ("towpath.toml", template!("c/towpath.toml")),
    ("plugin.c", template!("c/plugin.c")),
    ("tests/test_plugin.c", template!("c/tests/test_plugin.c")),
    ("README.md", template!("c/README.md")),
    (".gitignore", "/target\n/target-test\n"),
];

const GO: [File; 5] = [
    ("go.mod", template!("go/go.mod.template")),
    ("plugin.go", template!("go/plugin.go.template")),
    ("plugin_test.go", template!("go/plugin_test.go.template")),
    ("README.md", template!("go/README.md")),
    (".gitignore", "/target\n"),
];

const SDK_MANIFEST: File = ("sdk/rust/Cargo.toml", template!("rust/sdk.Cargo.toml.template"));

/// Writes a new project into `folder`, which must not be there yet. Returns the files.
///
/// # Errors
/// A name that cannot be, a folder that is there, a file that cannot be written.
pub fn new(language: Language, kind: Kind, folder: &Path) -> Result<Vec<PathBuf>, ToolError> {
    if !language.has(kind) {
        return Err(ToolError::Kind { language: language.name() });
    }
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_name(&name) {
        return Err(ToolError::Name(name));
    }
    if folder.exists() {
        let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already");
        return Err(ToolError::Io { path: folder.display().to_string(), source });
    }
    let (own, sdk) = language.files(kind);
    let mut written = Vec::new();
    for (path, text) in own {
        written.push(write(folder, path, &filled_in(text, language, kind, &name))?);
    }
    written.extend(write_all(&folder.join("towpath"), sdk)?);
    Ok(written)
}

/// Whether a text can be a plugin's name, and so a file's.
pub(crate) fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(legal)
}

fn filled_in(text: &str, language: Language, kind: Kind, name: &str) -> String {
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
        .replace("LANGUAGE", language.name())
        .replace("MAIN", language.main_file())
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

    #[test]
    fn each_language_has_its_template() {
        let folder = tempfile::tempdir().unwrap();
        for language in [
            Language::Rust,
            Language::JavaScript,
            Language::TypeScript,
            Language::Python,
            Language::C,
            Language::Go,
        ] {
            for kind in [Kind::Source, Kind::Sink, Kind::Transform] {
                let project = folder.path().join(format!("{}-{}", language.name(), kind.name()));
                if !language.has(kind) {
                    let refused = new(language, kind, &project).unwrap_err();
                    assert!(matches!(refused, ToolError::Kind { language: "C" | "Go" }), "{refused}");
                    assert!(!project.exists());
                    continue;
                }
                let files = new(language, kind, &project).unwrap();
                let main = std::fs::read_to_string(project.join(language.main_file())).unwrap();
                assert!(main.contains(&format!("The {} `", kind.name())), "{main}");
                assert!(main.contains(language.name()), "{main}");
                assert!(files.iter().all(|file| file.is_file()));
                let built_as = Language::of(&project).unwrap();
                assert!(built_as == language || language == Language::TypeScript);
            }
        }
    }
}
