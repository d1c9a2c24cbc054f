//! One attempt of one source task: poll → transforms → route → format → producer → offsets → commit.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use towpath_api::{
    Budget, ConnectorError, PipelineSpec, Poll, Source, SourceOffsets, SourceSpec, TaskContext,
};
use towpath_client::Producer;
use towpath_types::limits::BATCH_BYTES_TARGET;

use crate::env::Env;
use crate::offsets::{self, Stored};
use crate::predecessor::Predecessor;
use crate::source_flow::Flow;
use crate::source_writer::Writer;
use crate::status::{Mark, Phase, TaskShared};

const BUDGET: Budget = Budget { bytes: BATCH_BYTES_TARGET, records: 10_000 };
/// How often an idle source is asked whether it has really reached the upstream's end.
const VERIFY_INTERVAL: Duration = Duration::from_secs(5);
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// How long an attempt waits for what the one before it has sent.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How an attempt ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// There will never be anything to do again.
    Completed,
    /// Something else has taken the place of what ran: it is opened again at once.
    Superseded,
}

/// A source task of a pipeline.
#[derive(Debug)]
pub(crate) struct SourceUnit {
    pub(crate) env: Arc<Env>,
    pub(crate) spec: Arc<PipelineSpec>,
    pub(crate) index: u32,
    pub(crate) shared: Arc<TaskShared>,
    /// What the attempt under way sends with. It outlives one that panics or is aborted.
    pub(crate) producer: Mutex<Option<Producer>>,
}

impl SourceUnit {
    fn source_spec(&self) -> Result<&SourceSpec, ConnectorError> {
        self.spec
            .source
            .as_ref()
            .ok_or_else(|| ConnectorError::bug("NO_SOURCE", "the pipeline has no source"))
    }

    fn context(&self, stop: &CancellationToken) -> TaskContext {
        TaskContext {
            pipeline: Arc::from(self.spec.name.as_str()),
            task: self.index,
            stop: stop.clone(),
            progress: Arc::clone(&self.shared.progress),
            base_dir: Arc::clone(&self.env.base_dir),
        }
    }

    /// Takes over from whoever ran the task before, and loads what is stored. None when it is stopped meanwhile.
    async fn take_over(
        &self,
        stop: &CancellationToken,
    ) -> Result<Option<(Predecessor, Stored)>, ConnectorError> {
        let name = &self.spec.name;
        let taking = async {
            let mut predecessor = Predecessor::shut_out(&self.env, name, self.index).await?;
            let stored =
                offsets::load(&self.env.client, &self.env.topics, name, self.index, &mut predecessor).await?;
            let topics = stored.targets.keys().map(|target| target.topic.clone()).collect();
            predecessor.of_topics(&self.env, &topics).await?;
            Ok(Some((predecessor, stored)))
        };
        tokio::select! {
            taken = taking => taken,
            () = stop.cancelled() => Ok(None),
        }
    }

    /// What an attempt has sent arrives or fails before another one looks at what has arrived.
    async fn settle(&self) {
        let Some(producer) = self.producer.lock().take() else { return };
        match tokio::time::timeout(SETTLE_TIMEOUT, producer.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "records of an attempt that ended were not written"),
            Err(_) => tracing::warn!(
                pipeline = self.spec.name,
                "records of an attempt that ended may still be on their way"
            ),
        }
    }

    /// Opens the source at its stored offsets and moves records until it is stopped, ends or fails.
    pub(crate) async fn run(&self, stop: CancellationToken) -> Result<Ended, ConnectorError> {
        // The attempt before may have been aborted, or have panicked.
        self.settle().await;
        let source_spec = self.source_spec()?;
        let mut plan = source_spec.connector.plan(source_spec.tasks_max).await?;
        let Some(at) = plan.iter().position(|task| task.index == self.index) else {
            self.shared.set_surplus(true);
            return Ok(Ended::Completed);
        };
        self.shared.set_surplus(false);
        let task = plan.swap_remove(at);
        let Some((predecessor, stored)) = self.take_over(&stop).await? else { return Ok(Ended::Stopped) };
        let writer = Writer::new(self, stored.targets, predecessor)?;
        *self.producer.lock() = Some(writer.producer());
        let mut flow = Flow::new(self, writer, stored.offsets.clone());
        self.shared.progress.clear();
        let context = self.context(&stop);
        let mut source = source_spec.connector.open(task, stored.offsets, context).await?;
        self.shared.enter(Phase::Running);
        let outcome =
            Run { unit: self, flow: &mut flow, verified: None, told: None }.drive(&mut *source, &stop).await;
        self.settle().await;
        let closed = source.close().await;
        let ended = outcome?;
        closed?;
        Ok(ended)
    }
}

struct Run<'a> {
    unit: &'a SourceUnit,
    flow: &'a mut Flow,
    verified: Option<Instant>,
    told: Option<Instant>,
}

impl Run<'_> {
    async fn drive(
        &mut self,
        source: &mut dyn Source,
        stop: &CancellationToken,
    ) -> Result<Ended, ConnectorError> {
        loop {
            self.settle(source).await?;
            if stop.is_cancelled() {
                self.drain(source).await?;
                return Ok(Ended::Stopped);
            }
            if source.is_superseded() {
                // R4: what was polled is durable and committed before another one goes on from there.
                self.drain(source).await?;
                self.ask_again();
                return Ok(Ended::Superseded);
            }
            let polled = {
                // The poll is never dropped: what it has read would be lost to the source's own state.
                let mut poll = pin!(source.poll(BUDGET));
                loop {
                    tokio::select! {
                        biased;
                        polled = &mut poll => break polled?,
                        progress = self.flow.progress() => progress?,
                    }
                }
            };
            match polled {
                Poll::Batch(batch) => {
                    self.verified = None;
                    self.unit.shared.lag.store(-1, Ordering::Relaxed);
                    self.flow.take(batch).await?;
                }
                Poll::Idle(offsets) => {
                    self.flow.take_idle(offsets).await?;
                    self.verify_idle(source).await?;
                }
                Poll::End => {
                    self.drain(source).await?;
                    *self.unit.shared.mark.lock() = Mark::Passed;
                    self.unit.shared.lag.store(0, Ordering::Relaxed);
                    self.tell(source, true);
                    return Ok(Ended::Completed);
                }
            }
        }
    }

    /// R4: the source hears of durability only here, after its records and offsets are in the log.
    async fn settle(&mut self, source: &mut dyn Source) -> Result<(), ConnectorError> {
        if let Some(durable) = self.flow.take_committable() {
            source.commit(&durable).await?;
            self.look_at_mark(source);
        }
        let asked = matches!(*self.unit.shared.mark.lock(), Mark::Asked);
        if asked {
            let mark = match source.upstream_end().await? {
                Some(end) => Mark::Taken(end),
                None => Mark::Endless,
            };
            *self.unit.shared.mark.lock() = mark;
            self.flow.hurry();
            self.look_at_mark(source);
        }
        self.tell(source, false);
        Ok(())
    }

    fn look_at_mark(&self, source: &dyn Source) {
        let mut mark = self.unit.shared.mark.lock();
        if let Mark::Taken(end) = &*mark
            && source.has_passed(self.flow.durable(), end)
        {
            self.unit.shared.set_position(self.unit.env.redactor.redact(&source.status()).into_owned());
            *mark = Mark::Passed;
        }
    }

    /// The upstream's end is for the one that has told it: another one tells its own.
    fn ask_again(&self) {
        let mut mark = self.unit.shared.mark.lock();
        if matches!(*mark, Mark::Taken(_)) {
            *mark = Mark::Asked;
        }
    }

    fn tell(&mut self, source: &dyn Source, now: bool) {
        if now || self.told.is_none_or(|told| told.elapsed() > STATUS_INTERVAL) {
            self.told = Some(Instant::now());
            self.unit.shared.set_position(self.unit.env.redactor.redact(&source.status()).into_owned());
        }
    }

    /// R8: an idle source counts as RUNNING only while it is verified that it is at the upstream's end, or where
    /// the upstream cannot tell, while it answers.
    async fn verify_idle(&mut self, source: &mut dyn Source) -> Result<(), ConnectorError> {
        if self.verified.is_some_and(|verified| verified.elapsed() < VERIFY_INTERVAL) {
            return Ok(());
        }
        self.verified = Some(Instant::now());
        let nothing_to_do = match source.upstream_end().await? {
            Some(end) => source.has_passed(self.flow.durable(), &end),
            None => true,
        };
        if nothing_to_do {
            self.unit.shared.alive();
        }
        self.unit.shared.lag.store(if nothing_to_do { 0 } else { -1 }, Ordering::Relaxed);
        self.look_at_mark(source);
        Ok(())
    }

    async fn drain(&mut self, source: &mut dyn Source) -> Result<(), ConnectorError> {
        let durable: SourceOffsets = self.flow.drain().await?;
        source.commit(&durable).await?;
        self.look_at_mark(source);
        Ok(())
    }
}
