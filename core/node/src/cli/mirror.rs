//! `towpath mirror …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Node;

/// Copy topics between clusters.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Mirror {
    #[command(subcommand)]
    pub(crate) command: Option<MirrorCommand>,
    /// YAML files, and directories of YAML files, whose `mirrors:` are run.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
}

/// Read both sides of mirrors and compare them, record by record.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Only these mirrors.
    #[arg(long = "mirror", value_name = "NAME")]
    pub(crate) mirrors: Vec<String>,
    /// YAML files, and directories of YAML files, that declare them.
    #[arg(value_name = "FILE|DIR", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Show what the mirrors of the files would change of the target's topics, and change nothing.
    Plan {
        /// YAML files, and directories of YAML files.
        #[arg(value_name = "FILE|DIR", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show how far each mirror of a running towpath has come.
    Status {
        #[command(flatten)]
        node: Node,
        /// Only these mirrors.
        mirrors: Vec<String>,
        /// Show each partition.
        #[arg(long)]
        partitions: bool,
        /// Show each consumer group.
        #[arg(long)]
        groups: bool,
    },
}
