//! `--until-idle`: everything that was there when the command began to wait is delivered durably.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use towpath_api::ConnectorError;
use towpath_client::{ConsumerConfig, IsolationLevel};
use towpath_types::{Offset, TopicPartition};

use crate::runner::Work;
use crate::sink_assignment::list_topics;
use crate::status::{Mark, Phase, PipelineStatus, TaskError};
use crate::supervisor::{Inner, Pipeline, Supervisor, Unit};

const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a task may belong to nobody here: a worker that was killed keeps its tasks for its session's length.
const UNASSIGNED_MAX: Duration = Duration::from_secs(90);

/// Why waiting was in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} failed{}", error.as_ref().map(|error| format!(": {} [{}]", error.message, error.code)).unwrap_or_default())]
pub struct IdleFailure {
    /// The task.
    pub task: String,
    /// What it said.
    pub error: Option<Box<TaskError>>,
}

/// What is being waited for.
#[derive(Debug, Clone)]
pub struct IdleProgress {
    /// The tasks that are not done.
    pub waiting_for: Vec<String>,
    /// How all pipelines are.
    pub status: Vec<PipelineStatus>,
}

impl Supervisor {
    /// Waits until every source has ended, or its durable offsets have passed the upstream's end as it was when this
    /// was called, and every sink then holds everything that was in its topics. A task that is tried again and again
    /// is waited for, which `progress` tells.
    ///
    /// # Errors
    /// The first task that has failed for good, or needs an operator.
    pub async fn until_idle(
        &self,
        mut progress: impl FnMut(&IdleProgress) + Send,
    ) -> Result<(), IdleFailure> {
        let inner = &*self.inner;
        for unit in inner.units().filter(|unit| matches!(*unit.work, Work::Source(_))) {
            *unit.shared().mark.lock() = Mark::Asked;
        }
        self.wait(&mut progress, sources_left).await?;
        let mut ends = self.ends(&mut progress).await?;
        for unit in inner.units() {
            // Topics that the sources have just created.
            unit.shared().nudged.store(true, Ordering::Relaxed);
        }
        self.wait(&mut progress, |inner| {
            ends.retain(|(pipeline, partition, end)| {
                !inner.pipelines.get(pipeline).is_some_and(|pipeline| pipeline.held.has(partition, *end))
            });
            let left: BTreeSet<_> = ends.iter().map(|(pipeline, ..)| format!("{pipeline}/sink")).collect();
            left.into_iter().collect()
        })
        .await
    }

    async fn wait(
        &self,
        progress: &mut (impl FnMut(&IdleProgress) + Send),
        mut left: impl FnMut(&Inner) -> Vec<String> + Send,
    ) -> Result<(), IdleFailure> {
        let mut assigned = Instant::now();
        loop {
            let waiting_for = left(&self.inner);
            let done = waiting_for.is_empty();
            progress(&IdleProgress { waiting_for, status: self.status() });
            self.check_failed()?;
            if done {
                return Ok(());
            }
            match self.inner.units().find(|unit| unit.shared().phase() == Phase::Unassigned) {
                Some(unit) if assigned.elapsed() > UNASSIGNED_MAX => return Err(self.elsewhere(unit)),
                Some(_) => {}
                None => assigned = Instant::now(),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// What another process does is not to be seen from here.
    fn elsewhere(&self, unit: &Unit) -> IdleFailure {
        let message = "another towpath process on this cluster runs the task";
        let error = ConnectorError::needs_operator("TASK_ELSEWHERE", message)
            .with_hint("stop that one, or wait there: `--until-idle` sees only its own tasks");
        let error = TaskError::new(&error, &self.inner.env.redactor);
        IdleFailure { task: unit.work.id(), error: Some(Box::new(error)) }
    }

    fn check_failed(&self) -> Result<(), IdleFailure> {
        let failed = self.inner.units().find(|unit| unit.shared().phase() == Phase::Failed);
        match failed {
            Some(unit) => {
                Err(IdleFailure { task: unit.work.id(), error: unit.shared().last_error().map(Box::new) })
            }
            None => Ok(()),
        }
    }

    /// The ends of everything that sinks read; asks until the cluster answers.
    async fn ends(
        &self,
        progress: &mut (impl FnMut(&IdleProgress) + Send),
    ) -> Result<Vec<(String, TopicPartition, Offset)>, IdleFailure> {
        loop {
            match self.try_ends().await {
                Ok(ends) => return Ok(ends),
                Err(error) => tracing::warn!(%error, "the ends of the topics cannot be looked up yet"),
            }
            progress(&IdleProgress { waiting_for: vec!["the cluster".to_owned()], status: self.status() });
            self.check_failed()?;
            tokio::time::sleep(LOOK_INTERVAL * 5).await;
        }
    }

    async fn try_ends(
        &self,
    ) -> Result<Vec<(String, TopicPartition, Offset)>, Box<dyn std::error::Error + Send + Sync>> {
        let client = &self.inner.env.client;
        let topics = list_topics(client).await?;
        let mut wanted: Vec<(String, TopicPartition)> = Vec::new();
        for pipeline in self.inner.pipelines.values().filter(|pipeline| pipeline.spec.sink.is_some()) {
            wanted.extend(
                matching(pipeline, &topics)
                    .into_iter()
                    .map(|partition| (pipeline.spec.name.clone(), partition)),
            );
        }
        let asked: BTreeSet<_> = wanted.iter().map(|(_, partition)| partition.clone()).collect();
        let asked: Vec<_> = asked.into_iter().collect();
        // As far as a sink can read: to where the first open transaction begins.
        let config = ConsumerConfig { isolation_level: IsolationLevel::ReadCommitted, ..Default::default() };
        let ends = client.consumer(config).end_offsets(&asked).await?;
        let with_end = |(pipeline, partition): (String, TopicPartition)| {
            let end = ends.get(&partition).copied().unwrap_or(Offset::ZERO);
            (pipeline, partition, end)
        };
        Ok(wanted.into_iter().map(with_end).collect())
    }
}

fn sources_left(inner: &Inner) -> Vec<String> {
    let waits = |unit: &&Unit| {
        let passed = matches!(*unit.shared().mark.lock(), Mark::Passed);
        matches!(*unit.work, Work::Source(_)) && !passed && unit.shared().phase() != Phase::Completed
    };
    inner.units().filter(waits).map(|unit| unit.work.id()).collect()
}

fn matching(
    pipeline: &Pipeline,
    topics: &[(towpath_types::TopicName, towpath_types::TopicId, usize)],
) -> Vec<TopicPartition> {
    let patterns = pipeline.spec.sink_topics();
    topics
        .iter()
        .filter(|(topic, ..)| patterns.iter().any(|pattern| pattern.matches(topic.as_str())))
        .flat_map(|(topic, _, partitions)| {
            (0..*partitions).map(|partition| TopicPartition::new(topic.clone(), partition as i32))
        })
        .collect()
}
