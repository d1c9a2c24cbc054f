//! The architecture, held by a test: dependency rules, sizes, and what may lie where.
//!
//! Each rule gives a list of [`Finding`]s; `tests/tidy.rs` fails with a table of them that says what to do.

mod dependencies;
mod files;
mod report;
mod source;
mod tree;

pub use dependencies::{Dependencies, Package};
pub use files::{
    config_references, crate_roots_hold_no_code, dead_files, file_sizes, foreign_names, function_sizes,
    top_level, workspace_lints,
};
pub use report::{Finding, table};
pub use source::{Function, Masked, functions, items, mask};
pub use tree::Tree;
