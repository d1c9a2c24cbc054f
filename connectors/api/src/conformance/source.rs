//! What every source must do.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Violation, ensure};
use crate::{Batch, Budget, Poll, Source, SourceConnector, SourceOffsets, TaskContext, TaskSpec};

/// The upstream of the source that is checked.
#[async_trait]
pub trait SourceWorld: Send {
    /// A connector, configured for this world as it is now, of which the suite runs the first task.
    fn connector(&self) -> Box<dyn SourceConnector>;

    /// Makes `count` records happen upstream.
    async fn produce(&mut self, count: usize);

    /// Whether a task without offsets can be opened a second time and reads everything again. False where the first
    /// start leaves something behind upstream that belongs to offsets (a replication slot).
    fn replays_from_nothing(&self) -> bool {
        true
    }

    /// How long nothing may come before everything has come.
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }
}

const BUDGET: Budget = Budget { bytes: 64 * 1024, records: 7 };
const PRODUCED: usize = 40;
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// One record as the suite compares it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) lane: u64,
    pub(super) position: Option<Vec<u8>>,
    pub(super) content: String,
}

/// An open task and what came out of it.
pub(super) struct Session {
    pub(super) source: Box<dyn Source>,
    context: TaskContext,
    pub(super) seen: Vec<Seen>,
    pub(super) offsets: SourceOffsets,
    pub(super) ended: bool,
}

/// Checks a source against the contract.
///
/// # Errors
/// The first [`Violation`].
pub async fn source(world: &mut dyn SourceWorld) -> Result<(), Violation> {
    let connector = world.connector();
    connector.check(&TaskContext::new("conformance", 0)).await.map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Violation::new("a prepared world passes check", all.join("; "))
    })?;
    let task = plan(&*connector).await?;
    world.produce(PRODUCED).await;
    let connector = world.connector();
    let all = read_all(world, &*connector, &task).await?;
    resume_anywhere(world, &*connector, &task, &all).await?;
    commit_and_go_on(world, &task, &all).await?;
    stop_soon(&*connector, &task, SourceOffsets::default()).await
}

pub(super) async fn plan(connector: &dyn SourceConnector) -> Result<TaskSpec, Violation> {
    const CLAUSE: &str = "a plan has between one and tasks_max tasks, numbered from 0";
    let tasks_max = NonZeroU32::MIN.saturating_add(2);
    let plan = connector.plan(tasks_max).await.map_err(Violation::failed(CLAUSE))?;
    let numbered = plan.iter().enumerate().all(|(at, task)| task.index as usize == at);
    ensure(CLAUSE, numbered && !plan.is_empty() && plan.len() <= 3, || format!("{plan:?}"))?;
    let mut single = connector.plan(NonZeroU32::MIN).await.map_err(Violation::failed(CLAUSE))?;
    ensure(CLAUSE, single.len() == 1, || format!("{} tasks of at most one", single.len()))?;
    Ok(single.remove(0))
}

impl Session {
    pub(super) async fn open(
        connector: &dyn SourceConnector,
        task: &TaskSpec,
        resume: SourceOffsets,
    ) -> Result<Self, Violation> {
        let context = TaskContext::new("conformance", 0);
        let source = connector
            .open(task.clone(), resume.clone(), context.clone())
            .await
            .map_err(Violation::failed("a task opens at nothing and at offsets that it gave itself"))?;
        Ok(Self { source, context, seen: Vec::new(), offsets: resume, ended: false })
    }

    /// One poll. True if records came.
    async fn step(&mut self) -> Result<bool, Violation> {
        self.step_within(BUDGET, false).await
    }

    /// One poll within a budget; one of a byte is full with one record. Whether input may come that is no record.
    pub(super) async fn step_within(&mut self, budget: Budget, rejects: bool) -> Result<bool, Violation> {
        const CLAUSE: &str = "a poll respects its budget";
        let most = if budget.bytes == 1 { 1 } else { budget.records };
        let polled = self.source.poll(budget).await.map_err(Violation::failed("a poll succeeds"))?;
        match polled {
            Poll::Batch(batch) => {
                ensure(CLAUSE, batch.batch.len() <= most, || {
                    format!("{} records of at most {most}", batch.batch.len())
                })?;
                let is_clean = rejects || batch.rejected.is_empty();
                ensure("rejected input has no place in a clean world", is_clean, || {
                    format!("{:?}", batch.rejected)
                })?;
                note(&mut self.seen, &batch.batch);
                self.offsets.merge(batch.offsets);
                Ok(true)
            }
            Poll::Idle(offsets) => {
                self.offsets.merge(offsets);
                Ok(false)
            }
            Poll::End => {
                self.ended = true;
                Ok(false)
            }
        }
    }

    /// Polls until `count` records have come, or nothing has for `patience`.
    async fn read(&mut self, count: usize, patience: Duration) -> Result<(), Violation> {
        let mut last = Instant::now();
        while self.seen.len() < count && !self.ended && last.elapsed() < patience {
            if self.step().await? {
                last = Instant::now();
            }
        }
        Ok(())
    }

    pub(super) async fn close(self) -> Result<(Vec<Seen>, SourceOffsets), Violation> {
        self.source.close().await.map_err(Violation::failed("a task closes"))?;
        Ok((self.seen, self.offsets))
    }
}

fn note(seen: &mut Vec<Seen>, batch: &Batch) {
    for record in batch.records() {
        let row = |row: Option<crate::Row<'_>>| {
            row.map(|row| row.values().map(|v| format!("{v:?}")).collect::<Vec<_>>())
        };
        seen.push(Seen {
            lane: record.lane(),
            position: record.position().map(<[u8]>::to_vec),
            content: format!(
                "{} {:?} {:?} {:?} {:?}",
                record.schema().name(),
                record.op(),
                row(record.key()),
                row(record.before()),
                row(record.after())
            ),
        });
    }
}

pub(super) fn lanes(seen: &[Seen]) -> BTreeMap<u64, Vec<&Seen>> {
    let mut lanes: BTreeMap<u64, Vec<&Seen>> = BTreeMap::new();
    for record in seen {
        lanes.entry(record.lane).or_default().push(record);
    }
    lanes
}

pub(super) fn check_positions(seen: &[Seen]) -> Result<(), Violation> {
    const CLAUSE: &str = "positions grow within their lane and are unique there";
    for (lane, records) in lanes(seen) {
        for pair in records.windows(2) {
            if let [Seen { position: Some(first), .. }, Seen { position: Some(second), .. }] = pair {
                ensure(CLAUSE, first < second, || format!("lane {lane}: {first:02x?} then {second:02x?}"))?;
            }
        }
    }
    let with = seen.iter().filter(|record| record.position.is_some()).count();
    ensure("all records have positions, or none has", with == 0 || with == seen.len(), || {
        format!("{with} of {} records have one", seen.len())
    })
}

/// Everything from nothing, and the same again: a crash before the first offset was stored.
async fn read_all(
    world: &dyn SourceWorld,
    connector: &dyn SourceConnector,
    task: &TaskSpec,
) -> Result<Vec<Seen>, Violation> {
    const CLAUSE: &str = "everything that happened comes";
    let mut session = Session::open(connector, task, SourceOffsets::default()).await?;
    session.read(PRODUCED, world.patience()).await?;
    ensure(CLAUSE, session.seen.len() >= PRODUCED, || {
        format!("{} of {PRODUCED} records", session.seen.len())
    })?;
    check_end(&mut session).await?;
    let (seen, offsets) = session.close().await?;
    ensure("records come with offsets", !offsets.is_empty(), || "there are none".to_owned())?;
    check_positions(&seen)?;
    if world.replays_from_nothing() {
        let mut again = Session::open(connector, task, SourceOffsets::default()).await?;
        again.read(seen.len(), world.patience()).await?;
        let (replayed, _) = again.close().await?;
        same_lanes("a replay is the same, with the same positions", &seen, &replayed)?;
    }
    Ok(seen)
}

fn same_lanes(clause: &'static str, first: &[Seen], second: &[Seen]) -> Result<(), Violation> {
    let (first, second) = (lanes(first), lanes(second));
    ensure(clause, first == second, || format!("first {first:#?}\nthen {second:#?}"))
}

/// The end of the upstream is passed by the offsets that cover everything, and not by nothing.
async fn check_end(session: &mut Session) -> Result<(), Violation> {
    const CLAUSE: &str = "the upstream's end is passed when everything has been read, and not before";
    let end = session.source.upstream_end().await.map_err(Violation::failed(CLAUSE))?;
    let Some(end) = end else { return Ok(()) };
    ensure(CLAUSE, !session.source.has_passed(&SourceOffsets::default(), &end), || {
        format!("nothing has passed {}", end.text)
    })?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !session.source.has_passed(&session.offsets, &end) {
        ensure(CLAUSE, Instant::now() < deadline, || {
            format!("{:?} never passes {}", session.offsets, end.text)
        })?;
        session.step().await?;
        if session.ended {
            break;
        }
    }
    Ok(())
}

/// A crash after any batch: the offsets of that batch bring exactly the rest.
async fn resume_anywhere(
    world: &dyn SourceWorld,
    connector: &dyn SourceConnector,
    task: &TaskSpec,
    all: &[Seen],
) -> Result<(), Violation> {
    const CLAUSE: &str = "offsets resume exactly: nothing missing, nothing twice beyond what positions tell";
    if !world.replays_from_nothing() {
        return Ok(());
    }
    for stop_after in [1, 9, 20, all.len()] {
        let mut first = Session::open(connector, task, SourceOffsets::default()).await?;
        first.read(stop_after, world.patience()).await?;
        let (mut seen, offsets) = first.close().await?;
        let mut second = Session::open(connector, task, offsets).await?;
        let missing = all.len().saturating_sub(seen.len());
        let patience = if missing == 0 { Duration::from_millis(500) } else { world.patience() };
        second.read(missing.max(1), patience).await?;
        let (rest, _) = second.close().await?;
        // What is replayed all the same is dropped by its position, as the runtime does.
        let highest: BTreeMap<_, _> = lanes(&seen)
            .into_iter()
            .filter_map(|(lane, records)| Some((lane, records.last()?.position.clone()?)))
            .collect();
        let new = |record: &Seen| match (&record.position, highest.get(&record.lane)) {
            (Some(position), Some(highest)) => position > highest,
            _ => true,
        };
        seen.extend(rest.into_iter().filter(new));
        same_lanes(CLAUSE, all, &seen)?;
    }
    Ok(())
}

/// After a commit the source goes on from there, and new records come.
async fn commit_and_go_on(
    world: &mut dyn SourceWorld,
    task: &TaskSpec,
    all: &[Seen],
) -> Result<(), Violation> {
    const CLAUSE: &str = "committed offsets resume, and what happens later comes";
    if !world.replays_from_nothing() {
        return Ok(());
    }
    let mut session = Session::open(&*world.connector(), task, SourceOffsets::default()).await?;
    session.read(all.len(), world.patience()).await?;
    let offsets = session.offsets.clone();
    session
        .source
        .commit(&offsets)
        .await
        .map_err(Violation::failed("a commit of durable offsets succeeds"))?;
    session.source.commit(&offsets).await.map_err(Violation::failed("a commit may come twice"))?;
    let (_, offsets) = session.close().await?;
    world.produce(5).await;
    let mut session = Session::open(&*world.connector(), task, offsets).await?;
    session.read(5, world.patience()).await?;
    let (seen, _) = session.close().await?;
    ensure(CLAUSE, seen.len() == 5, || format!("{} of 5 records: {seen:#?}", seen.len()))?;
    let known = seen.iter().any(|record| all.contains(record));
    ensure(CLAUSE, !known, || format!("an old record came again: {seen:#?}"))
}

pub(super) async fn stop_soon(
    connector: &dyn SourceConnector,
    task: &TaskSpec,
    resume: SourceOffsets,
) -> Result<(), Violation> {
    const CLAUSE: &str = "a poll returns soon after the task is told to stop";
    // After a commit the beginning may be gone: R7 asks for an error then.
    let Ok(mut session) = Session::open(connector, task, resume).await else {
        return Ok(());
    };
    session.context.stop.cancel();
    let begun = Instant::now();
    let polled = tokio::time::timeout(STOP_LIMIT, session.source.poll(BUDGET)).await;
    ensure(CLAUSE, polled.is_ok(), || format!("it took longer than {:?}", begun.elapsed()))?;
    session.close().await.map(drop)
}
