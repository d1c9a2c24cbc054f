//! `towpath plugin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Begin a plugin: write a project that builds, with the SDK beside it.
    New {
        /// What it is written in.
        #[arg(long, value_enum, default_value_t = Lang::Rust)]
        lang: Lang,
        /// What it is.
        #[arg(long, value_enum, default_value_t = Kind::Transform)]
        kind: Kind,
        /// The folder to make; its name is the plugin's.
        folder: PathBuf,
    },
    /// Build the plugins of a project, in the language that its files tell: one component each, NAME.wasm.
    Build {
        /// The project.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where the components go, if not into the project's folder.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Show what a component is: worlds, options, imports, size and hash.
    Inspect {
        /// The component.
        file: PathBuf,
    },
    /// Measure what a transform costs on one core: for each record, and until it runs.
    Bench {
        /// The component.
        file: PathBuf,
        /// Its options, as YAML or JSON.
        #[arg(long, default_value = "{}", value_name = "YAML")]
        options: String,
        /// Records of each batch.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        records: u32,
        /// Bytes of each record.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        bytes: u32,
        /// How long records are given to it.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// Run the contract suite on a plugin, and say what it breaks, and what could not be judged. A source or a sink is tried
    /// over what its options point to: a sink writes some forty records there, and a source commits what it reads.
    Check {
        /// The component.
        file: PathBuf,
        /// Its options, as YAML or JSON.
        #[arg(long, default_value = "{}", value_name = "YAML")]
        options: String,
        /// What a source or a sink may reach, as under `grants` of its plugin: `{ tcp: ["127.0.0.1:6379"] }`. Without it only
        /// its options are looked at.
        #[arg(long, value_name = "YAML")]
        grants: Option<String>,
        /// How long a source may take to bring the records that it is tried with.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// Lock the plugins that the files name by version: write what was found, and its hash, into `towpath.lock` beside them.
    Lock {
        /// YAML files, and directories of YAML files.
        #[arg(default_value = ".", value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
        /// Look for this plugin anew, whatever is locked: a newer version, or another file of the same; may be given several
        /// times.
        #[arg(long, value_name = "NAME")]
        update: Vec<String>,
    },
    /// Put a component into the plugin directory, under its own name and version; its signature too, if it has one.
    Install {
        /// The component.
        file: PathBuf,
        #[command(flatten)]
        directory: DirectoryArgument,
    },
    /// List the plugin directory.
    List {
        #[command(flatten)]
        directory: DirectoryArgument,
    },
    /// Make a key for signing plugins: the private one for yourself, the public one for those who trust you.
    Keygen {
        /// Where the private key goes; the public one goes beside it, with `.pub` after the name.
        #[arg(default_value = "towpath-plugin.key")]
        file: PathBuf,
    },
    /// Sign components: the signature goes beside each, with `.sig` after the name.
    Sign {
        /// The file of the private key.
        #[arg(long, env = "TOWPATH_PLUGIN_KEY", value_name = "FILE")]
        key: PathBuf,
        /// The components.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say whether components are signed by somebody who is trusted.
    Verify {
        /// Whose signature counts, as `ed25519:…` or as a file that holds that; may be given several times.
        #[arg(long = "key", required = true, value_name = "KEY|FILE")]
        keys: Vec<String>,
        /// The components.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DirectoryArgument {
    /// The plugin directory.
    #[arg(long, env = "TOWPATH_PLUGIN_DIRECTORY", default_value = "plugins", value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    /// Rust.
    Rust,
    /// JavaScript.
    #[value(alias = "javascript")]
    Js,
    /// TypeScript.
    #[value(alias = "typescript")]
    Ts,
    /// Python.
    Python,
    /// C.
    C,
    /// Go.
    Go,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// It brings records in.
    Source,
    /// It carries records out.
    Sink,
    /// It changes records on their way.
    Transform,
}
