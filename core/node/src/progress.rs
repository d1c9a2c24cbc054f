//! Progress bars on a terminal, a line now and then elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;
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
    told: Instant,
    /// Whether tasks without a snapshot are shown too.
    everything: bool,
}

impl Progress {
    /// For `--until-idle` everything is shown, otherwise only snapshots.
    pub(crate) fn new(everything: bool) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, tasks: HashMap::new(), told: Instant::now(), everything }
    }

    /// Shows the newest status.
    pub(crate) fn show(&mut self, pipelines: &[PipelineStatus]) {
        let tasks = pipelines.iter().flat_map(|pipeline| &pipeline.tasks);
        if let Some(bars) = self.bars.clone() {
            tasks.for_each(|task| self.draw(&bars, task));
        } else if self.told.elapsed() >= LINE_INTERVAL {
            self.told = Instant::now();
            let lines: Vec<_> =
                tasks.filter(|task| self.everything || snapshot(task).is_some()).map(line).collect();
            lines.iter().for_each(|line| tell(line));
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
                bar.set_style(style("{prefix:28} {bar:30} {pos}/{len} {msg}"));
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
            None => bar.set_style(style("{prefix:28} {spinner} {msg}")),
        }
        bar.set_prefix(task.id.clone());
        bar.set_message(line_end(task));
        bar.tick();
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        self.tasks.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn snapshot(task: &TaskStatus) -> Option<(u64, u64)> {
    task.progress.filter(|progress| progress.total > 0).map(|progress| (progress.done, progress.total))
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
