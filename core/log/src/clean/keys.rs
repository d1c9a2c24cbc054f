//! Which record of a key is the newest.

use std::collections::HashMap;

/// Bytes that an entry of the map takes beside its key.
const ENTRY_BYTES: usize = 64;

/// The newest offset of each key below `end`.
pub(super) struct KeyMap {
    offsets: HashMap<Box<[u8]>, i64>,
    bytes: usize,
    bytes_max: usize,
    pub(super) end: i64,
}

impl KeyMap {
    pub(super) fn new(bytes_max: usize, end: i64) -> Self {
        Self { offsets: HashMap::new(), bytes: 0, bytes_max, end }
    }

    /// `false`: there is no room.
    pub(super) fn note(&mut self, key: &[u8], offset: i64) -> bool {
        if let Some(newest) = self.offsets.get_mut(key) {
            *newest = offset;
            return true;
        }
        let bytes = key.len() + ENTRY_BYTES;
        if self.bytes + bytes > self.bytes_max && !self.offsets.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.offsets.insert(key.into(), offset);
        true
    }

    pub(super) fn is_newest(&self, key: &[u8], offset: i64) -> bool {
        offset >= self.end || self.offsets.get(key).is_none_or(|newest| offset >= *newest)
    }
}
