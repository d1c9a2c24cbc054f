//! The supervisor: starts every task of every pipeline, says how they are, and stops them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use towpath_api::{PipelineSpec, Redactor};
use towpath_client::Client;

use crate::env::Env;
use crate::error::SupervisorError;
use crate::runner::{self, Desired, Work};
use crate::schemas::SchemaStore;
use crate::sink_assignment::Held;
use crate::sink_task::SinkUnit;
use crate::source_task::SourceUnit;
use crate::status::{Phase, PipelineStatus, TaskShared, TaskState};
use crate::topics::Topics;
use crate::worker::{self, WorkerConfig};

/// How a supervisor works.
#[derive(Debug, Clone)]
pub struct SupervisorConfig {
    /// The cluster.
    pub client: Client,
    /// Whether the cluster is the broker in this process alone: topics then have one replica, and are flushed.
    pub embedded: bool,
    /// Whether topics are flushed record by record: where one node may hold the only copy of what counts as written (R1,
    /// R4).
    pub flushed: bool,
    /// What relative paths in connectors' options are meant against.
    pub base_dir: PathBuf,
    /// The secrets that no error and no status may show (R13).
    pub redactor: Redactor,
    /// How long a task may take to end after it is told to.
    pub stop_timeout: Duration,
    /// Shares the tasks with other workers of the same group; without it all tasks run here.
    pub worker: Option<WorkerConfig>,
}

impl SupervisorConfig {
    /// Everything runs here, on someone else's cluster.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            embedded: false,
            flushed: false,
            base_dir: PathBuf::from("."),
            redactor: Redactor::default(),
            stop_timeout: Duration::from_secs(30),
            worker: None,
        }
    }
}

/// A pipeline of the supervisor.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) spec: Arc<PipelineSpec>,
    pub(crate) units: Vec<Unit>,
    pub(crate) held: Arc<Held>,
}

#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) work: Arc<Work>,
    desired: watch::Sender<Desired>,
}

impl Unit {
    pub(crate) fn shared(&self) -> &TaskShared {
        self.work.shared()
    }

    /// R6: whether this worker may run the task.
    pub(crate) fn set_assigned(&self, assigned: bool) {
        self.desired.send_if_modified(|desired| {
            let changed = desired.assigned != assigned;
            desired.assigned = assigned;
            changed
        });
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) env: Arc<Env>,
    pub(crate) pipelines: BTreeMap<String, Pipeline>,
}

/// Runs pipelines until it is stopped. Dropping it aborts them: nothing is lost by that, what was on its way is
/// read again.
#[derive(Debug)]
pub struct Supervisor {
    pub(crate) inner: Arc<Inner>,
    runners: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    stop_timeout: Duration,
}

impl Supervisor {
    /// Starts the tasks of all pipelines; how they fare is in [`Supervisor::status`]. One pipeline that cannot work
    /// keeps no other from working. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the pipelines contradict each other, or the worker has no identity; the cluster is not asked.
    pub fn start(config: SupervisorConfig, pipelines: Vec<PipelineSpec>) -> Result<Self, SupervisorError> {
        let topics = Topics::new(config.client.clone(), config.embedded, config.flushed);
        let env = Arc::new(Env {
            schemas: SchemaStore::new(config.client.clone(), Arc::clone(&topics)),
            topics,
            client: config.client,
            embedded: config.embedded,
            redactor: config.redactor,
            base_dir: Arc::new(config.base_dir),
        });
        let alone = config.worker.is_none();
        let mut known = BTreeMap::new();
        for spec in pipelines {
            let pipeline = new_pipeline(&env, Arc::new(spec), alone)?;
            let name = pipeline.spec.name.clone();
            if known.insert(name.clone(), pipeline).is_some() {
                return Err(SupervisorError::DuplicateName(name));
            }
        }
        let inner = Arc::new(Inner { env, pipelines: known });
        let stop = CancellationToken::new();
        let mut runners = JoinSet::new();
        for unit in inner.pipelines.values().flat_map(|pipeline| &pipeline.units) {
            let (work, desired) = (Arc::clone(&unit.work), unit.desired.subscribe());
            runners.spawn(runner::run(work, desired, stop.clone(), config.stop_timeout));
        }
        runners.spawn(sample(Arc::clone(&inner), stop.clone()));
        if let Some(worker) = config.worker {
            let identity = worker.identity()?;
            runners.spawn(worker::run(Arc::clone(&inner), worker, identity, stop.clone()));
        }
        Ok(Self { inner, runners: Mutex::new(runners), stop, stop_timeout: config.stop_timeout })
    }

    /// How every pipeline and task is, at this moment.
    #[must_use]
    pub fn status(&self) -> Vec<PipelineStatus> {
        self.inner.status()
    }

    /// How one pipeline is.
    #[must_use]
    pub fn pipeline_status(&self, pipeline: &str) -> Option<PipelineStatus> {
        self.inner.pipelines.get(pipeline).map(Pipeline::status)
    }

    /// Pauses a pipeline: its tasks flush, commit and close. False if there is no such pipeline.
    pub fn pause(&self, pipeline: &str) -> bool {
        self.desire(pipeline, |desired| desired.paused = true)
    }

    /// Lets a paused pipeline go on. False if there is no such pipeline.
    pub fn resume(&self, pipeline: &str) -> bool {
        self.desire(pipeline, |desired| desired.paused = false)
    }

    /// Closes the tasks of a pipeline and opens them again; failed ones are tried again. False if there is no such
    /// pipeline.
    pub fn restart(&self, pipeline: &str) -> bool {
        for unit in self.inner.pipelines.get(pipeline).into_iter().flat_map(|pipeline| &pipeline.units) {
            // Whoever waits from now on must not see the failure of before.
            if matches!(unit.shared().phase(), Phase::Failed | Phase::Retrying) {
                unit.shared().enter(Phase::Starting);
            }
        }
        self.desire(pipeline, |desired| desired.generation += 1)
    }

    fn desire(&self, pipeline: &str, change: impl Fn(&mut Desired)) -> bool {
        let Some(pipeline) = self.inner.pipelines.get(pipeline) else { return false };
        for unit in &pipeline.units {
            unit.desired.send_if_modified(|desired| {
                let before = *desired;
                change(desired);
                before != *desired
            });
        }
        true
    }

    /// Ends all tasks: they drain, flush and commit; what takes longer than the stop timeout is aborted.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut runners = std::mem::take(&mut *self.runners.lock());
        // A runner needs a moment more than the attempt that it waits for.
        let limit = self.stop_timeout + Duration::from_secs(5);
        let all = async { while runners.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
    }

    /// Ends all tasks where they stand, as a killed process would. For tests of what that must not lose.
    pub async fn abort(&self) {
        let mut runners = std::mem::take(&mut *self.runners.lock());
        runners.abort_all();
        while runners.join_next().await.is_some() {}
    }
}

impl Inner {
    pub(crate) fn status(&self) -> Vec<PipelineStatus> {
        self.pipelines.values().map(Pipeline::status).collect()
    }

    pub(crate) fn units(&self) -> impl Iterator<Item = &Unit> {
        self.pipelines.values().flat_map(|pipeline| &pipeline.units)
    }
}

impl Pipeline {
    fn status(&self) -> PipelineStatus {
        let tasks: Vec<_> = self
            .units
            .iter()
            .filter(|unit| !unit.shared().is_surplus())
            .map(|unit| {
                let work = &unit.work;
                let kind = match **work {
                    Work::Source(_) => self.spec.source.as_ref().map_or("", |source| source.kind.as_str()),
                    Work::Sink(_) => self.spec.sink.as_ref().map_or("", |sink| sink.kind.as_str()),
                };
                unit.shared().status(&self.spec.name, work.direction(), work.index(), kind)
            })
            .collect();
        let state = tasks.iter().map(|task| task.state).max().unwrap_or(TaskState::Completed);
        PipelineStatus { name: self.spec.name.clone(), state, tasks }
    }
}

fn new_pipeline(
    env: &Arc<Env>,
    spec: Arc<PipelineSpec>,
    assigned: bool,
) -> Result<Pipeline, SupervisorError> {
    let complete = match (&spec.source, &spec.sink) {
        (Some(_), _) => spec.topic.is_some(),
        (None, Some(_)) => !spec.topics.is_empty(),
        (None, None) => false,
    };
    if !complete {
        return Err(SupervisorError::Incomplete(spec.name.clone()));
    }
    spec.dead_letter_topic()
        .map_err(|source| SupervisorError::DeadLetterTopic { pipeline: spec.name.clone(), source })?;
    let held = Arc::new(Held::default());
    let mut works = Vec::new();
    for index in 0..spec.source.as_ref().map_or(0, |source| source.tasks_max.get()) {
        let (env, spec, shared) = (Arc::clone(env), Arc::clone(&spec), Arc::default());
        let producer = Mutex::default();
        works.push(Work::Source(SourceUnit { env, spec, index, shared, producer }));
    }
    for index in 0..spec.sink.as_ref().map_or(0, |sink| sink.tasks_max.get()) {
        let (env, spec, shared) = (Arc::clone(env), Arc::clone(&spec), Arc::default());
        let (held, buried) = (Arc::clone(&held), Arc::default());
        works.push(Work::Sink(SinkUnit { env, spec, index, shared, held, buried }));
    }
    let desired = Desired { paused: spec.paused, assigned, generation: 0 };
    let unit = |work| Unit { work: Arc::new(work), desired: watch::Sender::new(desired) };
    Ok(Pipeline { units: works.into_iter().map(unit).collect(), spec, held })
}

/// Takes samples for the rates, and publishes the gauges.
async fn sample(inner: Arc<Inner>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut told: BTreeSet<String> = BTreeSet::new();
    while !stop.is_cancelled() {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        inner.units().for_each(|unit| unit.shared().sample());
        let status = inner.status();
        crate::metrics::publish(&status);
        for task in status.iter().flat_map(|pipeline| &pipeline.tasks) {
            if task.state == TaskState::Stalled {
                if told.insert(task.id.clone()) {
                    tracing::warn!(task = task.id, position = task.position, "a task has stopped moving");
                }
            } else {
                told.remove(&task.id);
            }
        }
    }
}
