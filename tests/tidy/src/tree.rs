//! The files of the repository, as git knows them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace's folder and the files that git tracks in it.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<String>,
}

impl Tree {
    /// Reads the list of tracked files (those that still exist) of the workspace that this crate belongs to.
    ///
    /// # Errors
    /// If git is missing or this is no checkout.
    pub fn of_this_workspace() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).context("this crate lies two folders deep")?.to_path_buf();
        let output = Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "-z"])
            .current_dir(&root)
            .output()
            .context("cannot run git")?;
        if !output.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
        let files = names
            .split('\0')
            .filter(|n| !n.is_empty() && root.join(n).is_file())
            .map(str::to_owned)
            .collect();
        Ok(Self { root, files })
    }

    /// A tree made of a folder's files by their names, for the tests of the rules.
    #[must_use]
    pub fn new(root: PathBuf, files: Vec<String>) -> Self {
        Self { root, files }
    }

    /// The workspace's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All files, relative to the root, with `/`.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str).filter(|name| name.ends_with(".rs"))
    }

    /// A file's text; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self, name: &str) -> Result<String> {
        let bytes = std::fs::read(self.root.join(name)).with_context(|| format!("cannot read {name}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
