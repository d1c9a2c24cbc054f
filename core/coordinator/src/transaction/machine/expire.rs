//! Ids that nobody uses are forgotten.

use std::sync::Arc;

use towpath_wire::ErrorCode;

use super::{TransactionCommand, TransactionMachine};
use crate::machine::Now;

/// Bytes of ids that go with one append.
const TOMBSTONE_BYTES: usize = 64 * 1024;
/// Bytes that a tombstone takes beside the id.
const TOMBSTONE_OVERHEAD: usize = 32;

impl TransactionMachine {
    /// Writes tombstones for the ids that have expired.
    pub(super) fn expire_ids(&mut self, now: Now, out: &mut Vec<TransactionCommand>) {
        let expiration_ms = self.config.id_expiration_ms;
        let expired = self.idle_ids(|metadata| metadata.is_expired(now.wall_ms, expiration_ms));
        let (mut batch, mut bytes) = (Vec::new(), 0usize);
        for id in expired {
            let id_bytes = id.len() + TOMBSTONE_OVERHEAD;
            if bytes + id_bytes > TOMBSTONE_BYTES && !batch.is_empty() {
                self.write_tombstones(now, std::mem::take(&mut batch), out);
                bytes = 0;
            }
            bytes += id_bytes;
            batch.push(id);
        }
        if !batch.is_empty() {
            self.write_tombstones(now, batch, out);
        }
    }

    /// The tombstones are in the log, or not.
    pub(super) fn expired(&mut self, ids: &[Arc<str>], result: Result<(), ErrorCode>) {
        match result {
            Ok(()) => {
                tracing::info!(ids = ids.len(), "transactional ids that nobody used are forgotten");
                ids.iter().for_each(|id| self.remove(id));
            }
            Err(error) => {
                tracing::warn!(ids = ids.len(), %error, "transactional ids could not be forgotten; later");
                for id in ids {
                    if let Some(entry) = self.entries.get_mut(id) {
                        entry.busy = None;
                    }
                }
            }
        }
    }
}
