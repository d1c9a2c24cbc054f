//! One attempt of one sink task: consumer → format → transforms → sink → flush → commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use towpath_api::{ConnectorError, PipelineSpec, Sink, SinkSpec, TaskContext};
use towpath_client::{Consumer, ConsumerConfig, IsolationLevel};
use towpath_types::{GroupId, Offset, TopicPartition};

use crate::env::Env;
use crate::error::cluster_error;
use crate::sink_assignment::{Assignment, Looked};
use crate::sink_reader::{Buried, Reader};
use crate::source_task::Ended;
use crate::status::{Phase, TaskShared};

/// How often new topics and partitions are looked for.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// How often the group's offsets are committed, and the lag is taken.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How often a sink is flushed that gets nothing: what it does by the clock (rolling a file) it does there.
const IDLE_FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a poll waits; a task that is told to stop notices after this.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// R10: what is fetched ahead.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;
const POLL_BYTES: usize = 2 * 1024 * 1024;

/// A sink task of a pipeline.
#[derive(Debug)]
pub(crate) struct SinkUnit {
    pub(crate) env: Arc<Env>,
    pub(crate) spec: Arc<PipelineSpec>,
    pub(crate) index: u32,
    pub(crate) shared: Arc<TaskShared>,
    /// What the tasks of the pipeline hold durably, for `--until-idle`.
    pub(crate) held: Arc<crate::sink_assignment::Held>,
    /// What is in the dead-letter topic while the position has not passed it: another attempt does not write it again.
    pub(crate) buried: Arc<Buried>,
}

impl SinkUnit {
    pub(crate) fn sink_spec(&self) -> Result<&SinkSpec, ConnectorError> {
        self.spec.sink.as_ref().ok_or_else(|| ConnectorError::bug("NO_SINK", "the pipeline has no sink"))
    }

    fn consumer(&self) -> Result<Consumer, ConnectorError> {
        let group = GroupId::new(&self.spec.group())
            .map_err(|error| ConnectorError::terminal("GROUP", error.to_string()))?;
        Ok(self.env.client.consumer(ConsumerConfig {
            group_id: Some(group),
            // R3: what a transaction wrote that is open or was aborted is not there for anybody.
            isolation_level: IsolationLevel::ReadCommitted,
            buffer_bytes: BUFFER_BYTES,
            poll_bytes_max: POLL_BYTES,
            ..ConsumerConfig::default()
        }))
    }

    /// Opens the sink at what it holds and moves records until it is stopped or fails.
    pub(crate) async fn run(&self, stop: CancellationToken) -> Result<Ended, ConnectorError> {
        let spec = self.sink_spec()?;
        let consumer = self.consumer()?;
        let reader = Reader::new(self)?;
        self.held.forget(self.index);
        let context = TaskContext {
            pipeline: Arc::from(self.spec.name.as_str()),
            task: self.index,
            stop: stop.clone(),
            progress: Arc::clone(&self.shared.progress),
            base_dir: Arc::clone(&self.env.base_dir),
        };
        let mut sink = spec.connector.open(context).await?;
        let mut run = Run {
            unit: self,
            spec,
            assignment: Assignment::new(self, consumer),
            reader,
            refreshed: None,
            looking: None,
            looked: Instant::now(),
            accepted_bytes: 0,
            accepted_records: 0,
            accepted_since: None,
            flushed: Instant::now(),
        };
        let outcome = run.drive(&mut *sink, &stop).await;
        let closed = sink.close().await;
        let ended = outcome?;
        closed?;
        Ok(ended)
    }
}

/// A look at the ends. It goes on by itself, also while its task does something else: what it holds (a place among a
/// connection's requests) must not wait for the task, which may wait for just that. It ends with the task.
struct Looking(JoinHandle<Result<Looked, ConnectorError>>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Run<'a> {
    unit: &'a SinkUnit,
    spec: &'a SinkSpec,
    assignment: Assignment,
    reader: Reader,
    refreshed: Option<Instant>,
    /// The commit and the look at the ends that are under way: a partition that does not answer holds up no other.
    looking: Option<Looking>,
    looked: Instant,
    accepted_bytes: u64,
    accepted_records: u64,
    accepted_since: Option<Instant>,
    flushed: Instant,
}

impl Run<'_> {
    async fn drive(
        &mut self,
        sink: &mut dyn Sink,
        stop: &CancellationToken,
    ) -> Result<Ended, ConnectorError> {
        self.refresh(sink).await?;
        self.unit.shared.enter(Phase::Running);
        loop {
            if stop.is_cancelled() {
                self.leave(sink).await?;
                return Ok(Ended::Stopped);
            }
            if sink.is_superseded() {
                self.leave(sink).await?;
                return Ok(Ended::Superseded);
            }
            let nudged = self.unit.shared.nudged.swap(false, Ordering::Relaxed);
            if nudged || self.refreshed.is_none_or(|at| at.elapsed() > REFRESH_INTERVAL) {
                self.refresh(sink).await?;
            }
            let fetched = tokio::select! {
                biased;
                looked = pending(&mut self.looking) => {
                    self.learn(looked?);
                    continue;
                }
                fetched = poll(&self.assignment, stop) => fetched?,
            };
            let nothing = fetched.is_empty();
            for records in fetched {
                self.deliver(sink, records).await?;
            }
            if nothing || self.flush_due() {
                self.flush(sink).await?;
            }
            if nothing && self.flushed.elapsed() > IDLE_FLUSH_INTERVAL {
                // R8: what an idle sink flushes is no progress; only a look at the ends says that it is well.
                self.flushed = Instant::now();
                let flushed = sink.flush().await?;
                self.assignment.durable(flushed);
            }
            if self.looking.is_none() && self.looked.elapsed() > COMMIT_INTERVAL {
                self.looking = Some(Looking(tokio::spawn(self.assignment.look())));
                self.unit.shared.set_position(self.assignment.text());
            }
        }
    }

    /// Ends between two batches: what was accepted is flushed and committed (R5) before the partitions go.
    async fn leave(&mut self, sink: &mut dyn Sink) -> Result<(), ConnectorError> {
        self.looking = None;
        self.flush(sink).await?;
        self.assignment.commit().await?;
        self.assignment.revoke_all(sink).await
    }

    async fn refresh(&mut self, sink: &mut dyn Sink) -> Result<(), ConnectorError> {
        self.refreshed = Some(Instant::now());
        if self.assignment.changed().await? {
            // What is asked may be about partitions that are gone, and is asked anew.
            self.looking = None;
            // Positions of partitions that go must count before they go.
            self.flush(sink).await?;
            self.assignment.apply(sink).await?;
        }
        self.unit.shared.set_position(self.assignment.text());
        Ok(())
    }

    async fn deliver(
        &mut self,
        sink: &mut dyn Sink,
        records: towpath_client::PartitionRecords,
    ) -> Result<(), ConnectorError> {
        self.assignment.check_identity(&records)?;
        let delivered = self.reader.deliver(sink, &records).await?;
        self.assignment.accepted(&records.partition, records.next_offset);
        self.accepted_records += delivered.records;
        self.accepted_bytes += delivered.bytes;
        self.accepted_since.get_or_insert_with(Instant::now);
        if delivered.durable {
            // Durability is cumulative: everything accepted before is safe too.
            let positions = self.assignment.take_accepted();
            self.durable(positions);
        }
        Ok(())
    }

    fn flush_due(&self) -> bool {
        let bytes = usize::try_from(self.accepted_bytes).unwrap_or(usize::MAX);
        bytes >= self.spec.flush_bytes
            || self.accepted_since.is_some_and(|since| since.elapsed() >= self.spec.flush_interval)
    }

    async fn flush(&mut self, sink: &mut dyn Sink) -> Result<(), ConnectorError> {
        if self.accepted_since.is_none() {
            return Ok(());
        }
        self.flush_now(sink).await
    }

    async fn flush_now(&mut self, sink: &mut dyn Sink) -> Result<(), ConnectorError> {
        self.flushed = Instant::now();
        let flushed = sink.flush().await?;
        self.assignment.flushed(&flushed)?;
        self.durable(flushed);
        Ok(())
    }

    /// R5: positions pass records only here, after the sink holds them.
    fn durable(&mut self, positions: BTreeMap<TopicPartition, Offset>) {
        self.unit.buried.forget_before(&positions);
        self.assignment.durable(positions);
        self.unit.shared.set_position(self.assignment.text());
        self.accepted_since = None;
        let (records, bytes) =
            (std::mem::take(&mut self.accepted_records), std::mem::take(&mut self.accepted_bytes));
        self.unit.shared.moved(records, bytes);
        self.reader.metrics().moved(records, bytes);
    }

    fn learn(&mut self, looked: Looked) {
        self.looking = None;
        self.looked = Instant::now();
        let lag = self.assignment.learn(looked);
        self.unit.shared.lag.store(lag.unwrap_or(-1), Ordering::Relaxed);
        if lag == Some(0) {
            // R8: it is verified that there is nothing to do.
            self.unit.shared.alive();
        }
    }
}

async fn pending(looking: &mut Option<Looking>) -> Result<Looked, ConnectorError> {
    match looking {
        Some(Looking(looking)) => looking.await.unwrap_or_else(|error| {
            Err(ConnectorError::bug("LOOK", "the look at the ends of the topics ended early")
                .with_cause(error))
        }),
        None => std::future::pending().await,
    }
}

async fn poll(
    assignment: &Assignment,
    stop: &CancellationToken,
) -> Result<Vec<towpath_client::PartitionRecords>, ConnectorError> {
    if assignment.is_empty() {
        // Nothing to read yet; new topics are looked for soon.
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(POLL_WAIT) => {}
        }
        return Ok(Vec::new());
    }
    let fetched = assignment.consumer().poll(POLL_WAIT).await;
    fetched.map_err(|error| cluster_error("reading the topics", error))
}
