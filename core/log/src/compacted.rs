//! Up to which offset each log of a directory is compacted (`cleaner-offset-checkpoint`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use towpath_types::{Offset, TopicPartition};

use crate::checkpoint;
use crate::disk::Disk;
use crate::error::LogError;

/// Kafka's name for the file.
const COMPACTED_FILE: &str = "cleaner-offset-checkpoint";

/// The offsets, as they are on disk. Its lock is taken after all others.
#[derive(Debug)]
pub(crate) struct CompactedOffsets {
    disk: Arc<Disk>,
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    offsets: BTreeMap<TopicPartition, Offset>,
    /// Whether the file says something else, because it could not be written.
    dirty: bool,
}

impl CompactedOffsets {
    pub(crate) fn read(disk: &Arc<Disk>) -> Result<Arc<Self>, LogError> {
        let path = disk.root.join(COMPACTED_FILE);
        let known = Mutex::new(Known { offsets: checkpoint::read_offsets(disk, &path)?, dirty: false });
        Ok(Arc::new(Self { disk: Arc::clone(disk), path, known }))
    }

    /// Where the next compaction of a log begins.
    pub(crate) fn get(&self, partition: &TopicPartition) -> Offset {
        self.known.lock().offsets.get(partition).copied().unwrap_or(Offset::ZERO)
    }

    /// A log is compacted up to `offset`.
    pub(crate) fn set(&self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        self.change(|offsets| offsets.insert(partition.clone(), offset) != Some(offset))
    }

    /// A log is about to be cut at `end`: what is written there afterwards is not compacted. It is durable when this
    /// returns; otherwise a tombstone among it could go before what it deletes.
    pub(crate) fn lower(&self, partition: &TopicPartition, end: Offset) -> Result<(), LogError> {
        self.change(|offsets| match offsets.get_mut(partition) {
            Some(offset) if *offset > end => {
                *offset = end;
                true
            }
            _ => false,
        })
    }

    /// Forgets the partitions for which `holds` does not hold.
    pub(crate) fn retain(&self, holds: impl Fn(&TopicPartition) -> bool) -> Result<(), LogError> {
        self.change(|offsets| {
            let count = offsets.len();
            offsets.retain(|partition, _| holds(partition));
            offsets.len() < count
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<TopicPartition, Offset>) -> bool,
    ) -> Result<(), LogError> {
        let known = &mut *self.known.lock();
        known.dirty |= change(&mut known.offsets);
        if known.dirty {
            checkpoint::write_offsets(&self.disk, &self.path, &known.offsets)?;
            known.dirty = false;
        }
        Ok(())
    }
}
