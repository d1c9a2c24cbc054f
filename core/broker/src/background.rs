//! What a broker does now and then: retention, compaction, checkpoints, idle connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_log::CleanOptions;

use crate::connection::ErrorChain;
use crate::state::BrokerState;

/// How often it is looked whether something is due.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How often idle connections are looked for, and idle logs give their memory back.
const IDLE_CHECK: Duration = Duration::from_secs(30);

/// When something was last done.
struct Due {
    every: Duration,
    last: Instant,
}

impl Due {
    fn new(every: Duration) -> Self {
        Self { every, last: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Runs until the task is aborted. Work on disks is done on a thread of its own, one piece at a time.
pub(crate) async fn run(broker: Arc<BrokerState>) {
    let config = &broker.config;
    let mut retention = Due::new(config.retention_check_interval);
    let mut compaction = Due::new(config.compaction_check_interval);
    let mut checkpoint = Due::new(config.checkpoint_interval);
    let mut idle = Due::new(IDLE_CHECK);
    loop {
        tokio::time::sleep(TICK).await;
        let live = broker.live();
        compaction.every = live.compaction_check_interval;
        let (retain, compact, write) = (retention.is_due(), compaction.is_due(), checkpoint.is_due());
        let is_idle_check = idle.is_due();
        if is_idle_check {
            let closed = broker.memory.close_idle(config.limits.connection_idle_max);
            if closed > 0 {
                tracing::debug!(closed, "idle connections closed");
            }
        }
        let state = Arc::clone(&broker);
        let work = tokio::task::spawn_blocking(move || {
            state.replicas.flush_old();
            if retain {
                state.replicas.enforce_retention();
            }
            if compact {
                state.replicas.compact(&CleanOptions { map_bytes_max: live.dedupe_buffer_bytes });
            }
            if is_idle_check {
                state.replicas.release_idle_memory();
            }
            if write && let Err(error) = state.replicas.checkpoint() {
                tracing::error!(error = %ErrorChain(&error), "the checkpoints cannot be written");
            }
            observe(&state);
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "housekeeping failed");
        }
    }
}

fn observe(broker: &BrokerState) {
    broker.metrics.request_memory.set(broker.memory.used() as f64);
    broker.metrics.partitions.set(broker.replicas.partitions().len() as f64);
    let offline = broker.replicas.dirs().offline_count() > 0;
    broker.metrics.offline.set(if offline { 1.0 } else { 0.0 });
}
