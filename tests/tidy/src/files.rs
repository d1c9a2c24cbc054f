//! Sizes of files and functions, and what may lie where.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::dependencies::Dependencies;
use crate::report::Finding;
use crate::source::{Masked, functions, head, items, mask};
use crate::tree::Tree;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

const TOP_LEVEL: [&str; 22] = [
    "core",
    "connectors",
    "plugins",
    "mirror",
    "configs",
    "tests",
    "docs",
    ".ci",
    ".cargo",
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "rust-toolchain.toml",
    "clippy.toml",
    "rustfmt.toml",
    "deny.toml",
    ".gitignore",
    ".gitattributes",
];

/// No Rust file past 800 lines.
///
/// # Errors
/// If a file cannot be read.
pub fn file_sizes(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in tree.rust() {
        let lines = tree.text(name)?.lines().count();
        if lines > FILE_LINES_MAX {
            let remedy = format!(
                "split it by subject below {FILE_LINES_MAX} lines (tests may go to {}/tests.rs)",
                stem(name)
            );
            findings.push(Finding::new(name, format!("{lines} lines"), remedy));
        }
    }
    Ok(findings)
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".rs").unwrap_or(name)
}

/// No function past 70 lines of code, as clippy counts them, in tests neither.
///
/// # Errors
/// If a file cannot be read.
pub fn function_sizes(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in tree.rust() {
        for function in functions(&mask(&tree.text(name)?)) {
            if function.code_lines > FUNCTION_LINES_MAX {
                findings.push(Finding::new(
                    format!("{name}:{}", function.line),
                    format!("{} has {} lines of code", function.name, function.code_lines),
                    format!("take steps of it out by name, below {FUNCTION_LINES_MAX} lines"),
                ));
            }
        }
    }
    Ok(findings)
}

/// `lib.rs` holds docs, attributes, modules and re-exports only. (A macro crate's functions have to stand there.)
///
/// # Errors
/// If a file cannot be read.
pub fn crate_roots_hold_no_code(tree: &Tree, crates: &Dependencies) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in crates.packages.values() {
        for root in package.roots.iter().filter(|r| r.ends_with("/lib.rs") && tree.files().contains(*r)) {
            for item in items(&mask(&tree.text(root)?)) {
                let entry = package.macros && item.contains("proc_macro") && head(&item).starts_with("fn ");
                let plain = head(&item);
                let fine = plain.is_empty()
                    || plain.starts_with("use ")
                    || plain.starts_with("extern crate ")
                    || (plain.starts_with("mod ") && plain.ends_with(';'));
                if !fine && !entry {
                    let what = format!("holds `{}`", plain.lines().next().unwrap_or_default());
                    findings.push(Finding::new(
                        root,
                        what,
                        "move it into a module: lib.rs only names and re-exports",
                    ));
                }
            }
        }
    }
    Ok(findings)
}

/// Nothing at the top level but the rooms and the files that people look for there.
#[must_use]
pub fn top_level(tree: &Tree) -> Vec<Finding> {
    let names: BTreeSet<&str> = tree.files().iter().filter_map(|f| f.split('/').next()).collect();
    names
        .into_iter()
        .filter(|name| !TOP_LEVEL.contains(name))
        .map(|name| {
            Finding::new(
                name,
                "lies at the top level",
                "put it into its room (core, connectors, tests, docs …)",
            )
        })
        .collect()
}

/// Every crate takes the workspace's lints.
///
/// # Errors
/// If a manifest cannot be read.
pub fn workspace_lints(tree: &Tree, crates: &Dependencies) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in crates.packages.values() {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let text: String = tree.text(&manifest)?.split_whitespace().collect();
        if !text.contains("[lints]workspace=true") {
            findings.push(Finding::new(manifest, "has lints of its own", "write [lints] workspace = true"));
        }
    }
    Ok(findings)
}

/// No Rust file that no crate compiles.
///
/// # Errors
/// If a file cannot be read.
pub fn dead_files(tree: &Tree, crates: &Dependencies) -> Result<Vec<Finding>> {
    let known: BTreeSet<&str> = tree.rust().collect();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<(String, bool)> =
        crates.packages.values().flat_map(|p| p.roots.iter().cloned().map(|r| (r, true))).collect();
    while let Some((file, root)) = open.pop() {
        if !known.contains(file.as_str()) || !reached.insert(file.clone()) {
            continue;
        }
        let text = tree.text(&file)?;
        let masked = mask(&text);
        for candidate in modules(&file, root, &text, &masked) {
            open.push((candidate, false));
        }
    }
    // The fuzz targets and the guests of plugins are workspaces of their own.
    let elsewhere = ["tests/fuzz/", "plugins/examples/", "plugins/host/tests/guests/"];
    Ok(known
        .into_iter()
        .filter(|f| !reached.contains(*f) && !elsewhere.iter().any(|e| f.starts_with(e)))
        .map(|f| Finding::new(f, "is in no crate", "name it by `mod`, or delete it"))
        .collect())
}

/// The files that a file's `mod name;`, `#[path]` and `include!` may mean.
fn modules(file: &str, root: bool, text: &str, masked: &Masked) -> Vec<String> {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let inner = if root || name == "mod.rs" { folder.to_owned() } else { format!("{folder}/{}", stem(name)) };
    let mut found = Vec::new();
    // A macro of this file that declares modules (`mod $name;`) may get any name in the file.
    if masked.text().contains("mod $") {
        let words =
            masked.text().split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
        found.extend(words.map(|word| format!("{inner}/{word}.rs")));
    }
    // Inline modules are a folder of their own.
    let mut at: Vec<(String, i32)> = Vec::new();
    let mut depth = 0i32;
    for (plain, line) in masked.text().lines().zip(text.lines()) {
        let declared = head(plain.trim()).strip_prefix("mod ").map(str::trim);
        let here = at.iter().fold(inner.clone(), |path, (name, _)| format!("{path}/{name}"));
        if let Some(name) = declared.and_then(|d| d.strip_suffix(';')) {
            found.push(format!("{here}/{name}.rs"));
            found.push(format!("{here}/{name}/mod.rs"));
        } else if let Some((name, _)) = declared.and_then(|d| d.split_once('{')) {
            at.push((name.trim().to_owned(), depth));
        }
        for path in ["#[path", "include!("]
            .iter()
            .filter(|p| plain.contains(**p))
            .flat_map(|_| line.split('"').nth(1))
        {
            found.push(normal(&format!("{folder}/{path}")));
        }
        for c in plain.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
        }
        while at.last().is_some_and(|(_, opened)| depth <= *opened) && plain.contains('}') {
            at.pop();
        }
    }
    found
}

fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// No path of a particular machine and no package registry's host in any file.
///
/// # Errors
/// If a file cannot be read.
pub fn foreign_names(tree: &Tree) -> Result<Vec<Finding>> {
    // Written in two parts, so that this file does not find itself.
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let hosts = [
        concat!("registry.npm", "js.org"),
        concat!("registry.yarn", "pkg.com"),
        concat!("files.python", "hosted.org"),
        concat!("//py", "pi.org"),
        concat!("repo1.mav", "en.org"),
        concat!("repo.maven.ap", "ache.org"),
        concat!("index.crat", "es.io"),
        concat!("static.crat", "es.io"),
        concat!("proxy.go", "lang.org"),
        concat!("deb.deb", "ian.org"),
        concat!("\"resol", "ved\": \"http"),
    ];
    let mut findings = Vec::new();
    for name in tree.files() {
        for (number, line) in tree.text(name)?.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            for path in paths.iter().filter(|path| absolute(line, path)) {
                let remedy = "name it relative to the workspace, or take it from the environment";
                findings.push(Finding::new(
                    &place,
                    format!("names {path}…, a folder of one machine"),
                    remedy,
                ));
            }
            for host in hosts.iter().filter(|host| line.contains(**host)) {
                let remedy = "leave the registry to the client's own settings";
                findings.push(Finding::new(&place, format!("names {host}, a package registry"), remedy));
            }
        }
    }
    Ok(findings)
}

/// Whether the path begins here, rather than being the middle of a longer one.
fn absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|s| s.chars().next_back());
        before.is_none_or(|c| !(c.is_alphanumeric() || "_-.}/*~".contains(c)))
    })
}

/// Every example under `configs/` is loaded by a test: its path, or a folder above it, is named in one.
///
/// # Errors
/// If a file cannot be read.
pub fn config_references(tree: &Tree) -> Result<Vec<Finding>> {
    let mut tests = String::new();
    for name in tree.rust().filter(|n| n.contains("tests/") || n.ends_with("/tests.rs")) {
        if !name.starts_with("tests/tidy/") {
            tests.push_str(&tree.text(name)?);
        }
    }
    let named = |path: &str| tests.contains(&format!("{path}\"")) || tests.contains(&format!("{path}/\""));
    let ways = |file: &str| -> Vec<String> {
        let parts: Vec<&str> = file.split('/').collect();
        (1..=parts.len()).filter_map(|n| parts.get(..n)).map(|p| p.join("/")).collect()
    };
    Ok(tree
        .files()
        .iter()
        .filter(|f| f.starts_with("configs/") && !ways(f).iter().any(|way| named(way)))
        .map(|f| Finding::new(f, "is loaded by no test", "name it, or its folder, in a test that loads it"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::Package;

    struct Made {
        tree: Tree,
        crates: Dependencies,
        _folder: tempfile::TempDir,
    }

    fn made(files: &[(&str, &str)]) -> Made {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let names = files.iter().map(|(n, _)| (*n).to_owned()).collect();
        let roots = vec!["core/a/src/lib.rs".to_owned(), "core/a/tests/t.rs".to_owned()];
        let package = Package { folder: "core/a".to_owned(), roots, ..Package::default() };
        let crates = Dependencies { packages: [("towpath-a".to_owned(), package)].into() };
        Made { tree: Tree::new(folder.path().to_path_buf(), names), crates, _folder: folder }
    }

    fn places(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|f| f.place.as_str()).collect()
    }

    #[test]
    fn sizes_have_bounds() {
        let long = "// x\n".repeat(801);
        let body = |n: usize| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(n));
        let made = made(&[("a.rs", &long), ("b.rs", &body(71)), ("c.rs", &body(70))]);
        assert_eq!(places(&file_sizes(&made.tree).unwrap()), ["a.rs"]);
        assert_eq!(places(&function_sizes(&made.tree).unwrap()), ["b.rs:1"]);
    }

    #[test]
    fn finds_dead_files_and_follows_every_kind_of_module() {
        let made = made(&[
            ("core/a/src/lib.rs", "mod b;\npub mod c;\n#[path = \"odd/name.rs\"]\nmod d;\n"),
            ("core/a/src/b.rs", "mod inner;\nmod inline {\n    mod deep;\n}\nmod after;"),
            ("core/a/src/b/inner.rs", ""),
            ("core/a/src/b/inline/deep.rs", ""),
            ("core/a/src/b/after.rs", ""),
            (
                "core/a/src/c/mod.rs",
                "#[cfg(test)] mod tests;\nmacro_rules! m { ($n:ident) => { mod $n; }; }\nm!(by_macro);",
            ),
            ("core/a/src/c/by_macro.rs", ""),
            ("core/a/src/c/by_nobody.rs", ""),
            ("core/a/src/c/tests.rs", ""),
            ("core/a/src/odd/name.rs", ""),
            ("core/a/tests/t.rs", "mod common;"),
            ("core/a/tests/common/mod.rs", ""),
            ("core/a/src/dead.rs", ""),
            ("core/a/src/b/dead.rs", "// mod dead;"),
        ]);
        let found = dead_files(&made.tree, &made.crates).unwrap();
        assert_eq!(
            places(&found),
            ["core/a/src/b/dead.rs", "core/a/src/c/by_nobody.rs", "core/a/src/dead.rs"]
        );
    }

    #[test]
    fn crate_roots_and_lints() {
        let made = made(&[
            (
                "core/a/src/lib.rs",
                "//! Docs.\n#![forbid(x)]\nmod b;\npub use b::{C, D};\npub fn f() {}\nmod t { }\n",
            ),
            ("core/a/Cargo.toml", "[package]\nname = \"towpath-a\"\n"),
        ]);
        let found = crate_roots_hold_no_code(&made.tree, &made.crates).unwrap();
        let what: Vec<_> = found.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(what, ["holds `fn f() {}`", "holds `mod t { }`"]);
        assert_eq!(workspace_lints(&made.tree, &made.crates).unwrap().len(), 1);
    }

    #[test]
    fn names_of_machines_and_strangers_at_the_top() {
        let path = concat!("see /ro", "ot/x");
        let made = made(&[
            ("docs/a.md", path),
            ("docs/b.md", concat!("url = https://files.python", "hosted.org/x")),
            ("docs/c.md", concat!("~/ho", "me/x and a/wo", "rk/b are fine")),
            ("stray.txt", ""),
            ("configs/x/one.yaml", ""),
            ("configs/two.yaml", ""),
            ("core/a/tests/t.rs", "load(\"configs/x\")"),
        ]);
        assert_eq!(places(&foreign_names(&made.tree).unwrap()), ["docs/a.md:1", "docs/b.md:1"]);
        assert_eq!(places(&top_level(&made.tree)), ["stray.txt"]);
        assert_eq!(places(&config_references(&made.tree).unwrap()), ["configs/two.yaml"]);
    }
}
