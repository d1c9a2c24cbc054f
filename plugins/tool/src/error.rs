//! What goes wrong when plugins are made.

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A file or folder.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program that is needed and is not there.
    #[error("`{program}` cannot be run: {source}")]
    Missing {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The compiler has said what is wrong.
    #[error("{0}")]
    Compile(String),
    /// There is no compiler for WASM, and none can be had.
    #[error("there is no compiler for wasm32-unknown-unknown: {0}")]
    Toolchain(String),
    /// A program that is too old.
    #[error("`{program}` is too old: it is {found}, and {needed} is the least that makes plugins")]
    TooOld {
        /// Which.
        program: &'static str,
        /// What it says it is.
        found: String,
        /// The least version.
        needed: String,
    },
    /// What makes components of a language cannot be had.
    #[error("what makes plugins in {language} cannot be fetched: `{command}` said: {said}")]
    Fetch {
        /// For people.
        language: &'static str,
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// No file tells what the project is written in.
    #[error(
        "{0} has no Cargo.toml, package.json, pyproject.toml, towpath.toml or go.mod: it is no plugin's project"
    )]
    NoProject(String),
    /// The language has no such plugins.
    #[error("plugins in {language} are transforms so far")]
    Kind {
        /// For people.
        language: &'static str,
    },
    /// What was compiled is no plugin.
    #[error("{path} cannot be made a component: {reason}")]
    NoComponent {
        /// Which module.
        path: String,
        /// Why.
        reason: String,
    },
    /// Nothing was compiled that could be a plugin.
    #[error("{0} has no crate of type cdylib")]
    Nothing(String),
    /// The name is none.
    #[error("`{0}` cannot be a plugin's name")]
    Name(String),
}

impl ToolError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing { program, .. } => match program.as_str() {
                "node" | "npm" => {
                    "plugins in JavaScript need Node.js and npm: `apt-get install nodejs npm`, or their like"
                }
                "python3" | "venv/bin/python" => {
                    "plugins in Python and C need Python with venv: `apt-get install python3 python3-venv`, or their like"
                }
                "go" => "plugins in Go need Go 1.24 or newer on the PATH: see go.dev/dl",
                "bash" => {
                    "install bash, or let rustup add the target: `rustup target add wasm32-unknown-unknown`"
                }
                _ => "plugins in Rust need cargo and rustc: see rustup",
            },
            Self::TooOld { program: "node", .. } => "install a newer Node.js",
            Self::TooOld { program: "go", .. } => "install a newer Go: see go.dev/dl",
            Self::TooOld { .. } => "install a newer Python",
            Self::Fetch { language: "Python" | "C", .. } => {
                "it takes python3 with venv (`apt-get install python3-venv`) and pip's reach to its registry, once"
            }
            Self::Fetch { .. } => "it takes npm's reach to its registry, once",
            Self::NoProject(_) => "`towpath plugin new FOLDER` writes one",
            Self::Kind { .. } => {
                "sources and sinks are written in Rust, JavaScript, TypeScript or Python: `--lang rust`"
            }
            Self::Toolchain(_) => {
                "where rustup is online, `rustup target add wasm32-unknown-unknown` is all it takes"
            }
            Self::NoComponent { .. } => {
                "export the plugin with the SDK's macro, and use nothing of a system (WASI): no files, no clock but the SDK's"
            }
            Self::Nothing(_) => "write `[lib] crate-type = [\"cdylib\"]` into its Cargo.toml",
            Self::Name(_) => {
                "it begins with a letter, and has letters, digits, `_` and `-` in it, 64 at most"
            }
            Self::Io { .. } | Self::Compile(_) => return None,
        })
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}
