//! The life of a task: attempts, retries, pauses. Only here is it decided whether something is tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use towpath_api::{ConnectorError, ErrorKind, PipelineSpec, Redactor};

use crate::backoff::Backoff;
use crate::sink_task::SinkUnit;
use crate::source_task::{Ended, SourceUnit};
use crate::status::{Direction, Phase, TaskError, TaskShared};

/// What a task does.
#[derive(Debug)]
pub(crate) enum Work {
    Source(SourceUnit),
    Sink(SinkUnit),
}

impl Work {
    pub(crate) const fn shared(&self) -> &Arc<TaskShared> {
        match self {
            Self::Source(unit) => &unit.shared,
            Self::Sink(unit) => &unit.shared,
        }
    }

    pub(crate) const fn spec(&self) -> &Arc<PipelineSpec> {
        match self {
            Self::Source(unit) => &unit.spec,
            Self::Sink(unit) => &unit.spec,
        }
    }

    pub(crate) const fn direction(&self) -> Direction {
        match self {
            Self::Source(_) => Direction::Source,
            Self::Sink(_) => Direction::Sink,
        }
    }

    pub(crate) const fn index(&self) -> u32 {
        match self {
            Self::Source(unit) => unit.index,
            Self::Sink(unit) => unit.index,
        }
    }

    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.spec().name, self.direction().name(), self.index())
    }

    fn redactor(&self) -> &Redactor {
        match self {
            Self::Source(unit) => &unit.env.redactor,
            Self::Sink(unit) => &unit.env.redactor,
        }
    }

    async fn run(&self, stop: CancellationToken) -> Result<Ended, ConnectorError> {
        match self {
            Self::Source(unit) => unit.run(stop).await,
            Self::Sink(unit) => unit.run(stop).await,
        }
    }
}

/// What somebody wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) paused: bool,
    /// R6: whether this worker may run it.
    pub(crate) assigned: bool,
    /// Grows with every restart by hand.
    pub(crate) generation: u64,
}

/// A spawned attempt that ends with its owner.
struct Attempt(JoinHandle<Result<Ended, ConnectorError>>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a task until `stop`. An attempt that does not end within `grace` of being told is aborted.
pub(crate) async fn run(
    work: Arc<Work>,
    mut desired: watch::Receiver<Desired>,
    stop: CancellationToken,
    grace: Duration,
) {
    let shared = Arc::clone(work.shared());
    let mut backoff = Backoff::new(work.spec().retry);
    loop {
        let want = *desired.borrow_and_update();
        let idle = match want {
            _ if stop.is_cancelled() => break,
            Desired { assigned: false, .. } => Some(Phase::Unassigned),
            Desired { paused: true, .. } => Some(Phase::Paused),
            _ => None,
        };
        if let Some(phase) = idle {
            shared.enter(phase);
            wait(&mut desired, &stop, None).await;
            continue;
        }
        shared.enter(Phase::Starting);
        let before = shared.records.load(Ordering::Relaxed);
        let begun = Instant::now();
        let token = CancellationToken::new();
        let (running, child) = (Arc::clone(&work), token.clone());
        let mut attempt = Attempt(tokio::spawn(async move { running.run(child).await }));
        let ended = tokio::select! {
            ended = &mut attempt.0 => Some(ended),
            () = wait(&mut desired, &stop, None) => None,
        };
        let Some(ended) = ended else {
            token.cancel();
            finish(&work, attempt, grace).await;
            continue;
        };
        // An attempt that moved something, or lasted, was a success that has ended.
        if shared.records.load(Ordering::Relaxed) > before || begun.elapsed() > work.spec().retry.delay_max {
            backoff.reset();
        }
        let error = match flatten(ended) {
            Ok(Ended::Stopped | Ended::Superseded) => continue,
            Ok(Ended::Completed) => {
                shared.enter(Phase::Completed);
                wait(&mut desired, &stop, None).await;
                continue;
            }
            Err(error) => error,
        };
        let delay = failed(&work, &error, &mut backoff);
        wait(&mut desired, &stop, delay).await;
        shared.restarts.fetch_add(1, Ordering::Relaxed);
        let labels = [
            ("pipeline", work.spec().name.clone()),
            ("direction", work.direction().name().to_owned()),
            ("task", work.index().to_string()),
        ];
        metrics::counter!(crate::metrics::RESTARTS, &labels).increment(1);
    }
    if shared.phase() != Phase::Failed && shared.phase() != Phase::Completed {
        shared.enter(Phase::Stopped);
    }
}

/// Waits for another wish, the stop, or the time to try again.
async fn wait(desired: &mut watch::Receiver<Desired>, stop: &CancellationToken, delay: Option<Duration>) {
    let elapsed = async {
        match delay {
            Some(delay) => tokio::time::sleep(delay).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = desired.changed() => if changed.is_err() {
            stop.cancelled().await;
        },
        () = stop.cancelled() => {}
        () = elapsed => {}
    }
}

async fn finish(work: &Work, mut attempt: Attempt, grace: Duration) {
    match tokio::time::timeout(grace, &mut attempt.0).await {
        Ok(ended) => {
            if let Err(error) = flatten(ended) {
                report(work, &error);
            }
        }
        Err(_) => {
            tracing::warn!(
                task = work.id(),
                ?grace,
                "a task did not end in time and is aborted; nothing is lost"
            );
        }
    }
}

fn flatten(ended: Result<Result<Ended, ConnectorError>, JoinError>) -> Result<Ended, ConnectorError> {
    match ended {
        Ok(outcome) => outcome,
        Err(join) if join.is_panic() => {
            let panic = join.into_panic();
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(ConnectorError::bug("PANIC", format!("the task panicked: {text}"))
                .with_hint("please report it; the pipeline can be restarted by hand"))
        }
        Err(_) => Ok(Ended::Stopped),
    }
}

fn report(work: &Work, error: &ConnectorError) {
    let told = TaskError::new(error, work.redactor());
    let (code, message, hint) = (told.code.as_str(), told.message.as_str(), told.hint.as_deref());
    tracing::error!(task = work.id(), code, hint, "{message}");
    work.shared().set_error(told);
}

/// Records a failure; returns when to try again, if by itself.
fn failed(work: &Work, error: &ConnectorError, backoff: &mut Backoff) -> Option<Duration> {
    report(work, error);
    let shared = work.shared();
    match error.kind() {
        ErrorKind::RetryAfter(at_least) => {
            shared.enter(Phase::Retrying);
            Some(backoff.next(at_least))
        }
        ErrorKind::NeedsOperator => {
            shared.enter(Phase::Failed);
            Some(work.spec().retry.probe)
        }
        ErrorKind::Terminal | ErrorKind::Bug => {
            shared.enter(Phase::Failed);
            None
        }
    }
}
