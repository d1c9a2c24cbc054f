//! Loading: what the log says becomes the ids.

use std::sync::Arc;

use bytes::Bytes;

use super::{TransactionCommand, TransactionMachine};
use crate::machine::Now;
use crate::transaction::record::{self, BadTransactionRecord};

impl TransactionMachine {
    /// Takes a record from the log; the newest of each id wins, a tombstone takes away.
    ///
    /// # Errors
    /// [`BadTransactionRecord`]: loading must stop (R7).
    pub fn replay(&mut self, key: Option<&Bytes>, value: Option<&Bytes>) -> Result<(), BadTransactionRecord> {
        match record::decode(key, value)? {
            (id, Some(metadata)) => self.insert(Arc::from(id), metadata, None),
            (id, None) => self.remove(&id),
        }
        Ok(())
    }

    /// Everything is replayed: what was decided and is not known to be complete is completed.
    pub fn loaded(&mut self, now: Now, out: &mut Vec<TransactionCommand>) {
        self.next_abort_ms = now.monotonic_ms.saturating_add(self.config.abort_interval_ms.max(1));
        self.next_expiry_ms = now.monotonic_ms.saturating_add(self.config.expiration_interval_ms.max(1));
        for id in self.idle_ids(|metadata| metadata.state.is_prepared()) {
            self.send_markers(now, &id, out);
        }
    }
}
