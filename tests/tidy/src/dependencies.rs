//! Which crate may depend on which.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::report::Finding;

/// A crate of the workspace.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Its folder, relative to the root.
    pub folder: String,
    /// What it needs to run or build: crates of the workspace and others.
    pub needs: BTreeSet<String>,
    /// What only its tests need.
    pub tests_need: BTreeSet<String>,
    /// The root files of its targets, relative to the workspace's root.
    pub roots: Vec<String>,
    /// Whether it is a macro crate, whose functions have to stand in its root file.
    pub macros: bool,
}

/// The crates of the workspace by name.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    /// By name.
    pub packages: BTreeMap<String, Package>,
}

const REMOTE: &str = "reach Kafka through towpath-client, so that it works against any Kafka";

impl Dependencies {
    /// Asks cargo.
    ///
    /// # Errors
    /// If cargo fails.
    pub fn of_this_workspace() -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .no_deps()
            .exec()
            .context("cargo metadata")?;
        let root = metadata.workspace_root.clone();
        let relative = |path: &cargo_metadata::camino::Utf8Path| {
            path.strip_prefix(&root).map_or_else(|_| path.to_string(), ToString::to_string)
        };
        let mut packages = BTreeMap::new();
        for package in metadata.workspace_packages() {
            let mut made = Package::default();
            if let Some(folder) = package.manifest_path.parent() {
                made.folder = relative(folder);
            }
            for dependency in &package.dependencies {
                let list = match dependency.kind {
                    DependencyKind::Development => &mut made.tests_need,
                    _ => &mut made.needs,
                };
                list.insert(dependency.name.clone());
            }
            made.roots = package.targets.iter().map(|target| relative(&target.src_path)).collect();
            made.macros = package.targets.iter().any(cargo_metadata::Target::is_proc_macro);
            packages.insert(package.name.to_string(), made);
        }
        Ok(Self { packages })
    }

    fn internal<'a>(&'a self, needs: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
        needs.iter().map(String::as_str).filter(|name| self.packages.contains_key(*name))
    }

    /// All crates of the workspace that this one needs, directly or not; each with the way to it.
    fn reach(&self, name: &str) -> BTreeMap<String, String> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut open = vec![(name.to_owned(), name.to_owned())];
        while let Some((at, way)) = open.pop() {
            let Some(package) = self.packages.get(&at) else { continue };
            for next in self.internal(&package.needs) {
                if !found.contains_key(next) {
                    let way = format!("{way} → {next}");
                    found.insert(next.to_owned(), way.clone());
                    open.push((next.to_owned(), way));
                }
            }
        }
        found
    }

    /// All rules of the architecture over the crates.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, package) in &self.packages {
            findings.extend(naming(name, package));
            findings.extend(self.direct(name, package));
            findings.extend(self.indirect(name, package));
        }
        findings
    }

    fn direct(&self, name: &str, package: &Package) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |other: &str, remedy: &str| {
            findings.push(Finding::new(package.folder.clone(), format!("depends on {other}"), remedy));
        };
        if name == "towpath-types" {
            self.internal(&package.needs)
                .for_each(|o| add(o, "types depends on no crate of ours: turn it round"));
        }
        for other in self.internal(&package.needs).chain(self.internal(&package.tests_need)) {
            if other == "towpath-node" {
                add(
                    other,
                    "nothing depends on the binary: start it by towpath-harness, or move the code to a library",
                );
            }
        }
        let place =
            ["connectors/sources/", "connectors/sinks/"].iter().any(|r| package.folder.starts_with(r));
        if place {
            let allowed = ["towpath-api", "towpath-config", "towpath-types", "towpath-sql"];
            for other in self.internal(&package.needs).filter(|o| !allowed.contains(o)) {
                add(
                    other,
                    "sources and sinks see api, config, types and sql only: move what is shared there",
                );
            }
        }
        if package.folder != "plugins/host" {
            let wasm = package.needs.iter().chain(&package.tests_need).filter(|n| n.starts_with("wasmtime"));
            wasm.for_each(|other| add(other, "only plugins/host uses wasmtime"));
        }
        findings
    }

    fn indirect(&self, name: &str, package: &Package) -> Vec<Finding> {
        let guest = package.folder.starts_with("connectors/") || package.folder == "mirror";
        let broker = ["towpath-broker", "towpath-log", "towpath-replica", "towpath-controller"];
        let mut findings = Vec::new();
        for (other, way) in self.reach(name) {
            let remedy = if guest && broker.contains(&other.as_str()) {
                REMOTE
            } else if package.folder == "connectors/runtime" && other == "towpath-host" {
                "the runtime knows factories only: node/registry.rs puts the WASM ones in"
            } else {
                continue;
            };
            findings.push(Finding::new(package.folder.clone(), format!("reaches {other} ({way})"), remedy));
        }
        findings
    }
}

/// `towpath-<folder>`; the rooms core, connectors, plugins and tests are left out, sources and sinks are one word.
fn naming(name: &str, package: &Package) -> Option<Finding> {
    let mut parts: Vec<&str> = package.folder.split('/').collect();
    if parts.len() > 1 && ["core", "connectors", "plugins", "tests"].contains(&parts[0]) {
        parts.remove(0);
    }
    if parts.len() > 1 {
        parts[0] = match parts[0] {
            "sources" => "source",
            "sinks" => "sink",
            other => other,
        };
    }
    let expected = format!("towpath-{}", parts.join("-").replace('_', "-"));
    (name != expected).then(|| {
        Finding::new(package.folder.clone(), format!("is called {name}"), format!("call it {expected}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(crates: &[(&str, &str, &[&str])]) -> Vec<String> {
        let packages = crates
            .iter()
            .map(|(name, folder, needs)| {
                let needs = needs.iter().map(|n| (*n).to_owned()).collect();
                ((*name).to_owned(), Package { folder: (*folder).to_owned(), needs, ..Package::default() })
            })
            .collect();
        Dependencies { packages }.findings().into_iter().map(|f| format!("{} {}", f.place, f.what)).collect()
    }

    #[test]
    fn each_rule_can_fail() {
        let found = workspace(&[
            ("towpath-types", "core/types", &["towpath-log"]),
            ("towpath-log", "core/log", &["towpath-node", "wasmtime"]),
            ("towpath-node", "core/node", &[]),
            ("towpath-client", "core/client", &["towpath-log"]),
            ("towpath-host", "plugins/host", &["wasmtime"]),
            ("towpath-runtime", "connectors/runtime", &["towpath-host", "towpath-client"]),
            ("towpath-source-a-b", "connectors/sources/a_b", &["towpath-sink-c", "towpath-api"]),
            ("towpath-api", "connectors/api", &[]),
            ("towpath-sink-c", "connectors/sinks/c", &[]),
            ("towpath-wire-derive", "core/wire/derive", &[]),
            ("towpath-oddly", "mirror", &[]),
        ]);
        for expected in [
            "core/types depends on towpath-log",
            "core/log depends on towpath-node",
            "core/log depends on wasmtime",
            "connectors/runtime reaches towpath-host",
            "connectors/runtime reaches towpath-log (towpath-runtime → towpath-client → towpath-log)",
            "connectors/sources/a_b depends on towpath-sink-c",
            "mirror is called towpath-oddly",
        ] {
            assert!(found.iter().any(|f| f.starts_with(expected)), "{expected} is missing in {found:#?}");
        }
        assert_eq!(found.len(), 7, "{found:#?}");
    }
}
