//! Waiting for what is outside: within the call's limits, and only where it may.

use std::time::{Duration, Instant};

use super::bindings::towpath::plugin::types::{Details, Error, Retry};
use super::error::cut;
use super::state::{Reach, State};

/// How long a poll may go on waiting, all its waits together, after its task was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A failure that may pass by itself.
pub(crate) fn passing(code: &str, message: impl Into<String>) -> Error {
    Error::RetryAfter(Retry { delay_ms: 1_000, details: told(code, message) })
}

/// A call that can never work.
pub(crate) fn wrong(code: &str, message: impl Into<String>) -> Error {
    Error::Terminal(told(code, message))
}

fn told(code: &str, message: impl Into<String>) -> Details {
    Details { code: code.to_owned(), message: cut(&message.into(), 1024).to_owned(), hint: None, path: None }
}

impl State {
    /// Whether the call that is under way may reach what is outside.
    pub(crate) fn may_reach(&self) -> Result<(), Error> {
        if self.call.reach != Reach::Nothing {
            return Ok(());
        }
        let message = "nothing outside can be reached here: not while the plugin is asked about itself, its options or \
                       `has-passed`, and not by a transform";
        Err(wrong("PLUGIN_OUTSIDE", message))
    }

    /// Waits, and not longer than the guest wishes, the call may, or its task goes on. None if it takes longer.
    pub(crate) async fn wait<T>(&mut self, wish_ms: u32, future: impl Future<Output = T>) -> Option<T> {
        let left = self.plugin.limits.wait.saturating_sub(self.call.waited);
        let limit = Duration::from_millis(wish_ms.into()).min(left);
        let begun = Instant::now();
        let stops = self.call.reach == Reach::UntilStopped;
        let stop = self.task.stop.clone();
        let grace = self.call.stopped.map_or(STOP_GRACE, |at| STOP_GRACE.saturating_sub(at.elapsed()));
        let stopped = async {
            if !stops {
                return std::future::pending().await;
            }
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let done = tokio::select! {
            biased;
            done = tokio::time::timeout(limit, future) => done.ok(),
            () = stopped => None,
        };
        self.call.waited += begun.elapsed();
        if stops && self.task.stop.is_cancelled() {
            self.call.stopped.get_or_insert_with(Instant::now);
        }
        done
    }
}
