//! What groups hold in memory is bounded, in one partition of the offsets topic and over all that a coordinator has (R10).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::GroupConfig;

/// Bytes that the groups of all partitions of a coordinator hold.
#[derive(Debug, Default)]
pub struct HeldBytes(AtomicUsize);

impl HeldBytes {
    /// Bytes, of all partitions.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The books of one partition. What it holds is given back when it is gone.
#[derive(Debug, Default)]
pub(super) struct Books {
    own: usize,
    all: Arc<HeldBytes>,
}

impl Books {
    pub(super) const fn with(all: Arc<HeldBytes>) -> Self {
        Self { own: 0, all }
    }

    /// Bytes of this partition's groups.
    pub(super) const fn own(&self) -> usize {
        self.own
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.own += bytes;
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.own -= bytes;
        self.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn clear(&mut self) {
        self.take(self.own);
    }

    /// How much more there may be.
    pub(super) fn room(&self, config: &GroupConfig) -> usize {
        let here = config.partition_bytes_max.saturating_sub(self.own);
        here.min(config.coordinator_bytes_max.saturating_sub(self.all.get()))
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.clear();
    }
}
