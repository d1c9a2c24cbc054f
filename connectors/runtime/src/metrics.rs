//! Counters of tasks.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};

use crate::status::{Direction, PipelineStatus};

/// Records durably moved.
pub const RECORDS: &str = "towpath_task_records_total";
/// Their bytes.
pub const BYTES: &str = "towpath_task_bytes_total";
/// Records that went to the dead-letter topic.
pub const DEAD_LETTERS: &str = "towpath_task_dead_letters_total";
/// Tasks started again after a failure.
pub const RESTARTS: &str = "towpath_task_restarts_total";
/// Records between what a sink holds durably and the end of its topics; 0 for a source that has reached its end.
pub const LAG: &str = "towpath_task_lag_records";
/// 1 for the state that a task is in, 0 for the others.
pub const STATE: &str = "towpath_task_state";

const STATES: [&str; 9] =
    ["STARTING", "RUNNING", "STALLED", "RETRYING", "FAILED", "PAUSED", "COMPLETED", "STOPPED", "UNASSIGNED"];

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_counter!(RECORDS, "Records durably moved by a task.");
    describe_counter!(BYTES, "Bytes of keys and values durably moved by a task.");
    describe_counter!(DEAD_LETTERS, "Records that a task wrote to its pipeline's dead-letter topic.");
    describe_counter!(RESTARTS, "Attempts of a task after a failure.");
    describe_gauge!(
        LAG,
        "Records between what a task holds durably and the end; of sources only 0 is known."
    );
    describe_gauge!(STATE, "1 for the state that a task is in.");
}

/// The counters of one task.
#[derive(Clone)]
pub(crate) struct TaskMetrics {
    records: Counter,
    bytes: Counter,
    dead_letters: Counter,
}

impl TaskMetrics {
    pub(crate) fn new(pipeline: &str, direction: Direction, index: u32) -> Self {
        let labels = [
            ("pipeline", pipeline.to_owned()),
            ("direction", direction.name().to_owned()),
            ("task", index.to_string()),
        ];
        Self {
            records: counter!(RECORDS, &labels),
            bytes: counter!(BYTES, &labels),
            dead_letters: counter!(DEAD_LETTERS, &labels),
        }
    }

    pub(crate) fn moved(&self, records: u64, bytes: u64) {
        self.records.increment(records);
        self.bytes.increment(bytes);
    }

    pub(crate) fn dead_letter(&self) {
        self.dead_letters.increment(1);
    }
}

/// Sets the gauges from a status.
pub(crate) fn publish(pipelines: &[PipelineStatus]) {
    for pipeline in pipelines {
        for task in &pipeline.tasks {
            let labels = [
                ("pipeline", pipeline.name.clone()),
                ("direction", task.direction.name().to_owned()),
                ("task", task.index.to_string()),
            ];
            // What is not known is no number: an old one would be a lie (R8).
            gauge!(LAG, &labels).set(task.lag.map_or(f64::NAN, |lag| lag as f64));
            for state in STATES {
                let mut labels = labels.to_vec();
                labels.push(("state", state.to_owned()));
                gauge!(STATE, &labels).set(f64::from(u8::from(task.state.name() == state)));
            }
        }
    }
}
