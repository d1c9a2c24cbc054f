//! Which pipelines have been started here before, as far as this node remembers.
//!
//! A pipeline that has never run is checked before it is started: what is wrong then is most likely wrong in its
//! files. One that has run is started whatever its systems say at the moment: they will come back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use towpath_api::pipeline::PipelineSpec;

const FILE: &str = "pipelines.json";

/// What ran before.
#[derive(Debug)]
pub(crate) struct Remembered {
    path: PathBuf,
    /// Pipeline → the identity of its configuration.
    pipelines: BTreeMap<String, String>,
}

impl Remembered {
    /// What the data directory says. What cannot be read is not remembered: its pipelines are checked once more.
    pub(crate) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let text = std::fs::read(&path).unwrap_or_default();
        Self { pipelines: serde_json::from_slice(&text).unwrap_or_default(), path }
    }

    /// Whether this pipeline, as it is written now, has not been started before.
    pub(crate) fn is_new(&self, pipeline: &PipelineSpec) -> bool {
        self.pipelines.get(&pipeline.name) != Some(&identity(pipeline))
    }

    /// Pipelines that were started before and are not there any more.
    pub(crate) fn gone(&self, pipelines: &[PipelineSpec]) -> Vec<&str> {
        let there = |name: &&String| !pipelines.iter().any(|pipeline| pipeline.name == **name);
        self.pipelines.keys().filter(there).map(String::as_str).collect()
    }

    /// Remembers these pipelines, and no others.
    pub(crate) fn save(&mut self, pipelines: &[PipelineSpec]) -> std::io::Result<()> {
        let now: BTreeMap<_, _> = pipelines.iter().map(|it| (it.name.clone(), identity(it))).collect();
        if now != self.pipelines {
            let text = serde_json::to_string_pretty(&now).map_err(std::io::Error::other)?;
            // Half a file is none; then everything is checked again, and that is all.
            std::fs::write(&self.path, text)?;
            self.pipelines = now;
        }
        Ok(())
    }
}

fn identity(pipeline: &PipelineSpec) -> String {
    pipeline.content_hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_what_is_gone_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(PipelineSpec::new);
        let mut remembered = Remembered::load(folder.path());
        assert!(remembered.is_new(&a) && remembered.gone(&[]).is_empty());
        remembered.save(&[a.clone(), b.clone()]).unwrap();
        let remembered = Remembered::load(folder.path());
        assert!(!remembered.is_new(&a));
        assert_eq!(remembered.gone(std::slice::from_ref(&b)), ["a"]);
        let changed = PipelineSpec { content_hash: [1; 32], ..a };
        assert!(remembered.is_new(&changed));
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Remembered::load(folder.path()).is_new(&b));
    }
}
