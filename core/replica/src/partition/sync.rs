//! What others ask of a partition's state in the metadata, and how it is stopped for a moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use towpath_types::BrokerId;

use super::{Partition, Role};
use crate::{FollowerState, Leadership};

impl Partition {
    /// Whether a broker is in sync as far as the metadata say here.
    #[must_use]
    pub fn is_in_sync(&self, id: BrokerId) -> bool {
        self.role.lock().leadership().isr.contains(&id)
    }

    /// Stops a partition whose log is about to move: nothing is appended any more, and whoever waits is told to ask again.
    /// Refused while the leader asks for more replicas in its ISR: it counts these already, and whoever takes its place
    /// would not know (R1). Refused, too, while records wait for followers, unless `at_once`: their producers would have to
    /// send them again. Whether the partition stands still.
    pub(crate) fn suspend(self: &Arc<Self>, at_once: bool) -> bool {
        let changing = self.changing_role.write();
        let mut role = self.role.lock();
        if let Role::Leader(state) = &*role {
            let counts_more = state.maximal_isr() != state.leadership().isr;
            let has_waiting = self.high_watermark() < self.log.log_end_offset();
            if counts_more || (has_waiting && !at_once) {
                return false;
            }
        }
        let leadership = Leadership { leader: None, ..role.leadership().clone() };
        self.roles_taken.fetch_add(1, Ordering::AcqRel);
        *role = Role::Follower(FollowerState::new(leadership, self.environment.rules()));
        drop(role);
        drop(changing);
        self.wake_all();
        true
    }
}
