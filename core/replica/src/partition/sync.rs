//! What others ask of a partition's state in the metadata.

use towpath_types::BrokerId;

use super::Partition;

impl Partition {
    /// Whether a broker is in sync as far as the metadata say here.
    #[must_use]
    pub fn is_in_sync(&self, id: BrokerId) -> bool {
        self.role.lock().leadership().isr.contains(&id)
    }
}
