//! What every task is doing, truthfully (R8).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use towpath_api::{ConnectorError, Position, Progress, ProgressSnapshot, Redactor};

/// Without progress for this long, and without proof that there is nothing to do, a task is STALLED.
const STALLED_AFTER: Duration = Duration::from_secs(15);
/// The span over which rates are taken.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// The direction of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a source into topics.
    Source,
    /// From topics into a sink.
    Sink,
}

impl Direction {
    /// As it stands in ids and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

/// The state of a task; of a pipeline, the worst of its tasks'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// A finite source was read to its end.
    Completed,
    /// Progress was seen lately, or there is provably nothing to do.
    Running,
    /// It is being opened.
    Starting,
    /// The supervisor has stopped.
    Stopped,
    /// Somebody paused it.
    Paused,
    /// No worker has it, or another one.
    Unassigned,
    /// It failed, and will be tried again by itself.
    Retrying,
    /// It runs, but nothing has moved for a while although there is something to do.
    Stalled,
    /// It failed, and somebody has to act (or to restart it).
    Failed,
}

impl TaskState {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Running => "RUNNING",
            Self::Starting => "STARTING",
            Self::Stopped => "STOPPED",
            Self::Paused => "PAUSED",
            Self::Unassigned => "UNASSIGNED",
            Self::Retrying => "RETRYING",
            Self::Stalled => "STALLED",
            Self::Failed => "FAILED",
        }
    }
}

/// An error in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskError {
    /// The stable code.
    pub code: String,
    /// `retry_after`, `needs_operator`, `terminal` or `bug`.
    pub kind: String,
    /// The message with its causes, without secrets.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The option at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// When, in ms since 1970.
    pub at_ms: u64,
}

impl TaskError {
    /// Takes an error over, without the secrets in it (R13).
    pub(crate) fn new(error: &ConnectorError, redactor: &Redactor) -> Self {
        Self {
            code: error.code().to_owned(),
            kind: error.kind().name().to_owned(),
            message: redactor.redact(&error.full_message()).into_owned(),
            hint: error.hint().map(|hint| redactor.redact(hint).into_owned()),
            path: error.path().map(str::to_owned),
            at_ms: unix_ms(SystemTime::now()),
        }
    }
}

/// The status of a task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskStatus {
    /// `pipeline/source/0`.
    pub id: String,
    /// Its direction.
    pub direction: Direction,
    /// Its number within pipeline and direction.
    pub index: u32,
    /// The connector's type.
    pub connector: String,
    /// Its state.
    pub state: TaskState,
    /// Since when, in ms since 1970.
    pub since_ms: u64,
    /// Where it stands, for people.
    pub position: String,
    /// Records between what is durable and the end; `None` while unknown. A source knows it only when it is 0: when it
    /// is verified that it has reached the upstream's end.
    pub lag: Option<u64>,
    /// Records durably moved since the supervisor started.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records per second, lately.
    pub records_per_second: f64,
    /// Bytes per second, lately.
    pub bytes_per_second: f64,
    /// Records that went to the dead-letter topic.
    pub dead_letters: u64,
    /// How often the task was started again after a failure.
    pub restarts: u64,
    /// The newest error, also after it has healed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<TaskError>,
    /// How far a snapshot is, while one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressSnapshot>,
}

/// The status of a pipeline.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// The worst state of its tasks.
    pub state: TaskState,
    /// Its tasks.
    pub tasks: Vec<TaskStatus>,
}

/// What the runner knows of a task's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Unassigned,
    Starting,
    Running,
    Paused,
    Retrying,
    Failed,
    Completed,
    Stopped,
}

#[derive(Debug)]
struct Life {
    phase: Phase,
    since: SystemTime,
    moved: Instant,
    position: String,
    last_error: Option<TaskError>,
    samples: VecDeque<(Instant, u64, u64)>,
    surplus: bool,
}

/// What `--until-idle` wants of a source, and what it has found out.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mark {
    #[default]
    None,
    /// Somebody waits: take the upstream's end.
    Asked,
    /// It was here when the command began to wait.
    Taken(Position),
    /// It cannot be told: the source's own end is waited for.
    Endless,
    /// Everything before it is durable.
    Passed,
}

/// The part of a task that others see.
#[derive(Debug)]
pub(crate) struct TaskShared {
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// −1 while unknown.
    pub(crate) lag: AtomicI64,
    pub(crate) progress: Arc<Progress>,
    pub(crate) mark: Mutex<Mark>,
    /// Asks a sink task to look for new topics at once.
    pub(crate) nudged: AtomicBool,
    life: Mutex<Life>,
}

impl Default for TaskShared {
    fn default() -> Self {
        let life = Life {
            phase: Phase::Unassigned,
            since: SystemTime::now(),
            moved: Instant::now(),
            position: String::new(),
            last_error: None,
            samples: VecDeque::new(),
            surplus: false,
        };
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            lag: AtomicI64::new(-1),
            progress: Arc::default(),
            mark: Mutex::default(),
            nudged: AtomicBool::new(false),
            life: Mutex::new(life),
        }
    }
}

impl TaskShared {
    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut life = self.life.lock();
        if life.phase != phase {
            life.phase = phase;
            life.since = SystemTime::now();
        }
        if !matches!(phase, Phase::Running | Phase::Completed) {
            // R8: nobody looks any more.
            self.lag.store(-1, Ordering::Relaxed);
        }
        life.moved = Instant::now();
    }

    pub(crate) fn phase(&self) -> Phase {
        self.life.lock().phase
    }

    /// There was progress, or it was verified that there is nothing to do.
    pub(crate) fn alive(&self) {
        self.life.lock().moved = Instant::now();
    }

    /// Records and bytes are durable.
    pub(crate) fn moved(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.alive();
    }

    pub(crate) fn set_position(&self, position: String) {
        self.life.lock().position = position;
    }

    pub(crate) fn set_error(&self, error: TaskError) {
        self.life.lock().last_error = Some(error);
    }

    pub(crate) fn last_error(&self) -> Option<TaskError> {
        self.life.lock().last_error.clone()
    }

    /// There is no work for a task of this number.
    pub(crate) fn set_surplus(&self, surplus: bool) {
        self.life.lock().surplus = surplus;
    }

    pub(crate) fn is_surplus(&self) -> bool {
        self.life.lock().surplus
    }

    /// Takes a sample for the rates.
    pub(crate) fn sample(&self) {
        let sample =
            (Instant::now(), self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let mut life = self.life.lock();
        while life.samples.front().is_some_and(|(at, ..)| sample.0 - *at > RATE_SPAN) {
            life.samples.pop_front();
        }
        life.samples.push_back(sample);
    }

    /// The state as of now.
    pub(crate) fn state(&self) -> TaskState {
        let life = self.life.lock();
        match life.phase {
            Phase::Unassigned => TaskState::Unassigned,
            Phase::Starting => TaskState::Starting,
            // R8: RUNNING is a claim about progress, not about a process.
            Phase::Running if life.moved.elapsed() > STALLED_AFTER => TaskState::Stalled,
            Phase::Running => TaskState::Running,
            Phase::Paused => TaskState::Paused,
            Phase::Retrying => TaskState::Retrying,
            Phase::Failed => TaskState::Failed,
            Phase::Completed => TaskState::Completed,
            Phase::Stopped => TaskState::Stopped,
        }
    }

    /// The whole status.
    pub(crate) fn status(
        &self,
        pipeline: &str,
        direction: Direction,
        index: u32,
        connector: &str,
    ) -> TaskStatus {
        let state = self.state();
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let life = self.life.lock();
        let since = match state {
            TaskState::Stalled => SystemTime::now() - life.moved.elapsed(),
            _ => life.since,
        };
        let rate = |now: u64, then: fn(&(Instant, u64, u64)) -> u64| match life.samples.front() {
            Some(sample) if sample.0.elapsed() > Duration::from_millis(200) => {
                now.saturating_sub(then(sample)) as f64 / sample.0.elapsed().as_secs_f64()
            }
            _ => 0.0,
        };
        let progress = self.progress.read();
        TaskStatus {
            id: format!("{pipeline}/{}/{index}", direction.name()),
            direction,
            index,
            connector: connector.to_owned(),
            state,
            since_ms: unix_ms(since),
            position: life.position.clone(),
            lag: u64::try_from(self.lag.load(Ordering::Relaxed)).ok(),
            records,
            bytes,
            records_per_second: rate(records, |sample| sample.1),
            bytes_per_second: rate(bytes, |sample| sample.2),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            last_error: life.last_error.clone(),
            progress: (progress.total > 0).then_some(progress),
        }
    }
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_without_progress_is_stalled() {
        let shared = TaskShared::default();
        shared.enter(Phase::Running);
        assert_eq!(shared.state(), TaskState::Running);
        shared.life.lock().moved -= STALLED_AFTER + Duration::from_secs(1);
        assert_eq!(shared.state(), TaskState::Stalled);
        let status = shared.status("p", Direction::Sink, 1, "file");
        assert!(status.since_ms + 15_000 <= unix_ms(SystemTime::now()));
        shared.moved(1, 10);
        assert_eq!(shared.state(), TaskState::Running);
        shared.lag.store(0, Ordering::Relaxed);
        shared.enter(Phase::Retrying);
        assert_eq!(shared.status("p", Direction::Sink, 1, "file").lag, None, "nobody knows");
    }

    #[test]
    fn statuses_say_what_the_error_was_without_its_secrets() {
        let redactor = Redactor::new(["hunter2".to_owned()]);
        let error = ConnectorError::terminal("X", "password hunter2 refused").with_hint("not hunter2");
        let shared = TaskShared::default();
        shared.set_error(TaskError::new(&error, &redactor));
        let status = shared.status("p", Direction::Source, 0, "generate");
        let json = serde_json::to_string(&status).unwrap();
        assert!(!json.contains("hunter2"));
        assert!(json.contains("\"state\":\"UNASSIGNED\"") && json.contains("\"id\":\"p/source/0\""));
        assert_eq!(status.lag, None);
    }
}
