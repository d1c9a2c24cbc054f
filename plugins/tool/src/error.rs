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
    pub const fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing { .. } => "plugins in Rust need cargo and rustc: see rustup",
            Self::Toolchain(_) => {
                "where rustup is online, `rustup target add wasm32-unknown-unknown` is all it takes"
            }
            Self::NoComponent { .. } => "export the plugin with the SDK's macro, and use nothing of WASI",
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
