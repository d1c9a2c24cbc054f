//! `towpath plugin`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

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
    /// Run the contract suite on a plugin, and say what it breaks.
    Check {
        /// The component.
        file: PathBuf,
        /// Its options, as YAML or JSON.
        #[arg(long, default_value = "{}", value_name = "YAML")]
        options: String,
    },
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
