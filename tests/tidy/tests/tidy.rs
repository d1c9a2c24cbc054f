//! The architecture, held: each test is one rule over the whole repository.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may")]

use towpath_tidy::{
    Dependencies, Finding, Tree, config_references, crate_roots_hold_no_code, dead_files, file_sizes,
    foreign_names, function_sizes, table, top_level, workspace_lints,
};

fn tree() -> Tree {
    Tree::of_this_workspace().unwrap()
}

fn crates() -> Dependencies {
    Dependencies::of_this_workspace().unwrap()
}

fn none(rule: &str, findings: Vec<Finding>) {
    assert!(findings.is_empty(), "\n{}", table(rule, &findings));
}

#[test]
fn crates_depend_as_the_architecture_says() {
    let crates = crates();
    assert!(crates.packages.len() > 20, "cargo metadata names only {} crates", crates.packages.len());
    none("dependencies and names of crates", crates.findings());
}

#[test]
fn files_are_short() {
    none("files", file_sizes(&tree()).unwrap());
}

#[test]
fn functions_are_short() {
    none("functions", function_sizes(&tree()).unwrap());
}

#[test]
fn crate_roots_only_name_and_re_export() {
    none("lib.rs", crate_roots_hold_no_code(&tree(), &crates()).unwrap());
}

#[test]
fn the_top_level_is_the_picture() {
    none("top level", top_level(&tree()));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    none("lints", workspace_lints(&tree(), &crates()).unwrap());
}

#[test]
fn no_file_is_dead() {
    none("dead files", dead_files(&tree(), &crates()).unwrap());
}

#[test]
fn no_machine_and_no_registry_is_named() {
    none("names of machines and registries", foreign_names(&tree()).unwrap());
}

#[test]
fn every_example_is_loaded_by_a_test() {
    none("examples", config_references(&tree()).unwrap());
}
