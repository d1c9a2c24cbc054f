//! Progress bars on a terminal, a line now and then elsewhere.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use towpath_runtime::{Direction, PipelineStatus, TaskState, TaskStatus};

use super::output::tell;

/// How often a line is written where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far tasks are.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    tasks: HashMap<String, ProgressBar>,
    /// Tasks whose snapshot has been shown, and is not over.
    snapshots: HashSet<String>,
    told: Instant,
    /// Whether tasks without a snapshot are shown too.
    everything: bool,
}

impl Progress {
    /// For `--until-idle` everything is shown, otherwise only snapshots.
    pub(crate) fn new(everything: bool) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        if let Some(bars) = bars.clone() {
            // What is logged meanwhile goes above the bars.
            towpath_telemetry::route_output(Some(Box::new(move |text| {
                bars.suspend(|| drop(std::io::stderr().lock().write_all(text.as_bytes())));
            })));
        }
        Self { bars, tasks: HashMap::new(), snapshots: HashSet::new(), told: Instant::now(), everything }
    }

    /// Shows the newest status.
    pub(crate) fn show(&mut self, pipelines: &[PipelineStatus]) {
        let due = self.told.elapsed() >= LINE_INTERVAL;
        for task in pipelines.iter().flat_map(|pipeline| &pipeline.tasks) {
            let running = snapshot(task);
            if running.is_some() {
                self.snapshots.insert(task.id.clone());
            } else if self.snapshots.remove(&task.id) {
                tell(&format!("{}: what was there is read, {} records so far", task.id, task.records));
            }
            if let Some(bars) = self.bars.clone() {
                self.draw(&bars, task);
            } else if due && (self.everything || running.is_some()) {
                tell(&line(task));
            }
        }
        if due {
            self.told = Instant::now();
        }
    }

    fn draw(&mut self, bars: &MultiProgress, task: &TaskStatus) {
        let shown = snapshot(task);
        if shown.is_none() && !self.everything {
            if let Some(bar) = self.tasks.remove(&task.id) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = self.tasks.entry(task.id.clone()).or_insert_with(|| bars.add(ProgressBar::no_length()));
        match shown {
            Some((done, total)) => {
                bar.set_style(style("{prefix:28} {bar:30} {pos}/{len} {wide_msg}"));
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
            None => bar.set_style(style("{prefix:28} {spinner} {wide_msg}")),
        }
        bar.set_prefix(task.id.clone());
        bar.set_message(line_end(task));
        bar.tick();
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        self.tasks.drain().for_each(|(_, bar)| bar.finish_and_clear());
        towpath_telemetry::route_output(None);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What is done and what there is, while that is not all.
fn snapshot(task: &TaskStatus) -> Option<(u64, u64)> {
    let running = matches!(task.state, TaskState::Running | TaskState::Stalled);
    let progress = task.progress.filter(|progress| running && progress.done < progress.total);
    progress.map(|progress| (progress.done, progress.total))
}

fn line(task: &TaskStatus) -> String {
    let snapshot = snapshot(task).map(|(done, total)| format!(" {done}/{total}")).unwrap_or_default();
    format!("{}{snapshot} {}", task.id, line_end(task))
}

fn line_end(task: &TaskStatus) -> String {
    let lag = match (task.direction, task.lag) {
        (Direction::Sink, Some(lag)) => format!(", {lag} behind"),
        _ => String::new(),
    };
    let error = match (&task.last_error, task.state) {
        (Some(error), TaskState::Failed | TaskState::Retrying) => {
            format!(": {} [{}]", error.message, error.code)
        }
        _ => String::new(),
    };
    format!("{} {} records ({:.0}/s){lag}{error}", task.state.name(), task.records, task.records_per_second)
}
