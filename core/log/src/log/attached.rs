//! Files that belong to a log beside its segments: what its records add up to, so that they need not be kept.

use towpath_types::Offset;

use super::Log;
use crate::error::LogError;

/// Kafka's name for the snapshots of its metadata log: the offset after the last record, and that record's epoch.
const SUFFIX: &str = "-0000000000.checkpoint";

fn name(offset: Offset) -> String {
    format!("{:020}{SUFFIX}", offset.get())
}

fn parse(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    digits.parse().ok().map(Offset::new)
}

impl Log {
    /// The offsets of the checkpoints that are there, the newest first.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn checkpoints(&self) -> Result<Vec<Offset>, LogError> {
        let entries = self.disk.did_read("list", &self.dir, self.disk.storage.list(&self.dir))?;
        let mut offsets: Vec<Offset> = entries.iter().filter_map(|entry| parse(&entry.name)).collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        Ok(offsets)
    }

    /// The content of the checkpoint at `offset`; `None` if there is none.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Corrupt`] for one that is too large.
    pub fn read_checkpoint(&self, offset: Offset) -> Result<Option<Vec<u8>>, LogError> {
        self.disk.read_small(&self.dir.join(name(offset)))
    }

    /// Writes a checkpoint: when this returns, all of it is durable; after a crash before, nothing of it is there.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn write_checkpoint(&self, offset: Offset, content: &[u8]) -> Result<(), LogError> {
        self.disk.replace(&self.dir.join(name(offset)), content)
    }

    /// Removes a checkpoint, which may be gone already.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn remove_checkpoint(&self, offset: Offset) -> Result<(), LogError> {
        self.disk.remove_file(&self.dir.join(name(offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_others_are_left_alone() {
        assert_eq!(name(Offset::new(42)), "00000000000000000042-0000000000.checkpoint");
        assert_eq!(parse(&name(Offset::new(42))), Some(Offset::new(42)));
        for other in [
            "00000000000000000042.log",
            "42-0000000000.checkpoint",
            "0000000000000000004x-0000000000.checkpoint",
            "00000000000000000042-0000000000.checkpoint.tmp",
            "leader-epoch-checkpoint",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
