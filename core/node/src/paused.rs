//! Which pipelines somebody has paused: they stay so when the process starts again, until somebody resumes them.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

const FILE: &str = "paused.json";

/// The paused pipelines of this node.
#[derive(Debug)]
pub(crate) struct Paused {
    path: PathBuf,
    names: Mutex<BTreeSet<String>>,
}

impl Paused {
    /// What the data directory says.
    ///
    /// # Errors
    /// When it says something that cannot be read: what was paused on purpose is not started by mistake.
    pub(crate) fn load(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let names = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, names: Mutex::new(names) })
    }

    /// Where it is written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn contains(&self, pipeline: &str) -> bool {
        self.names.lock().contains(pipeline)
    }

    /// Remembers, durably, whether a pipeline is paused.
    pub(crate) fn set(&self, pipeline: &str, paused: bool) -> io::Result<()> {
        let mut names = self.names.lock();
        let changed = if paused { names.insert(pipeline.to_owned()) } else { names.remove(pipeline) };
        if !changed {
            return Ok(());
        }
        let written = write(&self.path, &names);
        if written.is_err() {
            // As the file says.
            if paused {
                names.remove(pipeline)
            } else {
                names.insert(pipeline.to_owned())
            };
        }
        written
    }
}

/// Half a file must not be left behind.
fn write(path: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(names)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let paused = Paused::load(folder.path()).unwrap();
        paused.set("a", true).unwrap();
        paused.set("b", true).unwrap();
        paused.set("a", false).unwrap();
        let paused = Paused::load(folder.path()).unwrap();
        assert!(paused.contains("b") && !paused.contains("a"));
        std::fs::write(paused.path(), "[").unwrap();
        assert!(Paused::load(folder.path()).is_err());
        let nowhere = Paused::load(&folder.path().join("missing")).unwrap();
        assert!(nowhere.set("a", true).is_err() && !nowhere.contains("a"));
    }
}
