//! Sources over whatever upstream their options point to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::super::source::{Seen, Session, check_positions, lanes, plan, stop_soon};
use super::super::{Violation, ensure};
use super::Report;
use crate::{
    Budget, ConnectorError, ErrorKind, Guarantee, Poll, SourceConnector, SourceOffsets, TaskContext, TaskSpec,
};

/// Records after which no more are read: enough to resume within.
const RECORDS_MAX: usize = 200;
/// How long nothing may come before it is taken for all that there is.
const QUIET: Duration = Duration::from_secs(2);
/// One after the other: a poll that may return little, and one that may return one record, however large it is.
const BUDGETS: [Budget; 2] = [Budget { bytes: 64 * 1024, records: 7 }, Budget { bytes: 1, records: 100 }];
/// An offset that no source writes.
const NO_OFFSET: &str = "\u{1} no offset of anybody";

const RESUME: &str = "offsets resume exactly: nothing missing, nothing twice beyond what positions tell";
const REPLAY: &str = "a replay from nothing is the same, with the same positions";
const COMMIT: &str = "a commit may come twice, and frees nothing of what lies after it";
const END: &str = "the upstream's end is passed when everything has been read, and not before";
const UNREADABLE: &str = "offsets that cannot be read are an error for people, never a silent beginning anew";
const POSITIONS: &str = "positions grow within their lane and are unique there";

/// What came, and where each batch ended.
struct Read {
    seen: Vec<Seen>,
    /// How many records had come, and the offsets then.
    steps: Vec<(usize, SourceOffsets)>,
    offsets: SourceOffsets,
    /// Whether that was all.
    is_whole: bool,
}

/// Checks a source over what its options point to: the records that are there, at most 200, and come within `limit`. It
/// commits what it has read, as the runtime does: what the source frees upstream by that is gone.
pub async fn source_as_given(
    connector: &dyn SourceConnector,
    guarantee: Guarantee,
    limit: Duration,
) -> Report {
    let mut report = Report::default();
    report.broken = Play { connector, guarantee, limit, report: &mut report }.run().await.err();
    report
}

struct Play<'a> {
    connector: &'a dyn SourceConnector,
    guarantee: Guarantee,
    limit: Duration,
    report: &'a mut Report,
}

impl Play<'_> {
    async fn run(mut self) -> Result<(), Violation> {
        const CHECK: &str = "a prepared world passes check";
        self.connector.check(&TaskContext::new("conformance", 0)).await.map_err(|errors| {
            let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Violation::new(CHECK, all.join("; "))
        })?;
        self.report.keeps(CHECK);
        let task = plan(self.connector).await?;
        self.report.keeps("a plan has between one and tasks_max tasks, numbered from 0");
        let read = self.read(&task).await?;
        if read.seen.is_empty() {
            let why = format!("nothing came within {:?}", self.limit);
            for clause in [RESUME, REPLAY, COMMIT, POSITIONS] {
                self.report.cannot_judge(clause, why.clone());
            }
        } else {
            self.positions(&read.seen)?;
            self.replay(&task, &read).await?;
            self.resume(&task, &read).await?;
            self.commit(&task, &read).await?;
        }
        self.unreadable(&task, &read.offsets).await?;
        stop_soon(self.connector, &task, read.offsets).await?;
        self.report.keeps("a poll returns soon after the task is told to stop");
        Ok(())
    }

    /// The first look, from nothing.
    async fn read(&mut self, task: &TaskSpec) -> Result<Read, Violation> {
        let mut session = Session::open(self.connector, task, SourceOffsets::default()).await?;
        let mut steps = Vec::new();
        let (begun, mut last) = (Instant::now(), Instant::now());
        let mut turn = 0;
        while session.seen.len() < RECORDS_MAX && !session.ended && begun.elapsed() < self.limit {
            if session.step_within(BUDGETS[turn % 2], true).await? {
                last = Instant::now();
                turn += 1;
                steps.push((session.seen.len(), session.offsets.clone()));
            } else if !steps.is_empty() && last.elapsed() > QUIET.min(self.limit) {
                break;
            }
        }
        let is_whole =
            session.seen.len() < RECORDS_MAX && (session.ended || last.elapsed() > QUIET.min(self.limit));
        if turn > 1 {
            self.report.keeps("a poll respects its budget, down to one record");
        }
        if !session.seen.is_empty() {
            const CLAUSE: &str = "records come with offsets";
            ensure(CLAUSE, !session.offsets.is_empty(), || "there are none".to_owned())?;
            self.report.keeps(CLAUSE);
        }
        self.end(&mut session, is_whole).await?;
        let (seen, offsets) = session.close().await?;
        Ok(Read { seen, steps, offsets, is_whole })
    }

    async fn end(&mut self, session: &mut Session, is_whole: bool) -> Result<(), Violation> {
        let end = session.source.upstream_end().await.map_err(Violation::failed(END))?;
        let Some(end) = end else {
            self.report.cannot_judge(END, "it does not tell where its upstream ends");
            return Ok(());
        };
        if session.seen.is_empty() || !is_whole {
            self.report.cannot_judge(END, "not everything was read, or nothing was there");
            return Ok(());
        }
        ensure(END, !session.source.has_passed(&SourceOffsets::default(), &end), || {
            format!("nothing has passed {}", end.text)
        })?;
        let deadline = Instant::now() + self.limit;
        while !session.source.has_passed(&session.offsets, &end) && !session.ended {
            ensure(END, Instant::now() < deadline, || {
                format!("{:?} never passes {}", session.offsets, end.text)
            })?;
            session.step_within(BUDGETS[0], true).await?;
        }
        self.report.keeps(END);
        Ok(())
    }

    fn positions(&mut self, seen: &[Seen]) -> Result<(), Violation> {
        const CLAUSE: &str = "a source that promises exactly once gives each record its place";
        check_positions(seen)?;
        let has = seen.iter().all(|record| record.position.is_some());
        if self.guarantee == Guarantee::ExactlyOnce {
            ensure(CLAUSE, has, || "there are records without one".to_owned())?;
            self.report.keeps(CLAUSE);
        }
        if has {
            self.report.keeps(POSITIONS);
        } else {
            self.report.cannot_judge(POSITIONS, "its records have none: it delivers at least once");
        }
        Ok(())
    }

    /// A crash before the first offset was stored.
    async fn replay(&mut self, task: &TaskSpec, read: &Read) -> Result<(), Violation> {
        let context = TaskContext::new("conformance", 0);
        match self.connector.open(task.clone(), SourceOffsets::default(), context).await {
            Ok(source) => source.close().await.map_err(Violation::failed("a task closes"))?,
            Err(error) => {
                let why =
                    format!("its first start leaves something behind, and a second one is refused: {error}");
                self.report.cannot_judge(REPLAY, why);
                return Ok(());
            }
        }
        let again = self.again(task, SourceOffsets::default(), &[], read).await?;
        compare(REPLAY, &read.seen, &again)?;
        self.report.keeps(REPLAY);
        Ok(())
    }

    /// A crash after some batches.
    async fn resume(&mut self, task: &TaskSpec, read: &Read) -> Result<(), Violation> {
        let last = read.steps.len() - 1;
        let mut places = vec![0, last / 2, last];
        places.dedup();
        for (count, offsets) in places.into_iter().filter_map(|at| read.steps.get(at)) {
            let before = &read.seen[..*count];
            let all = self.again(task, offsets.clone(), before, read).await?;
            compare(RESUME, &read.seen, &all)?;
        }
        if read.steps.len() < 2 {
            self.report.cannot_judge(RESUME, "all records came in one batch: only its end was resumed at");
        } else {
            self.report.keeps(RESUME);
        }
        Ok(())
    }

    async fn commit(&mut self, task: &TaskSpec, read: &Read) -> Result<(), Violation> {
        let Some((count, offsets)) = read.steps.get(read.steps.len() / 2) else { return Ok(()) };
        let mut session = Session::open(self.connector, task, offsets.clone()).await?;
        for _ in 0..2 {
            session.source.commit(offsets).await.map_err(Violation::failed(COMMIT))?;
        }
        session.step_within(BUDGETS[0], true).await?;
        session.close().await?;
        let all = self.again(task, offsets.clone(), &read.seen[..*count], read).await?;
        compare(COMMIT, &read.seen, &all)?;
        self.report.keeps(COMMIT);
        Ok(())
    }

    /// What comes from `offsets` on, behind what had come before them: until all of `read` has come again, or nothing more
    /// does. What is replayed all the same is dropped by its position, as the runtime does.
    async fn again(
        &self,
        task: &TaskSpec,
        offsets: SourceOffsets,
        before: &[Seen],
        read: &Read,
    ) -> Result<Vec<Seen>, Violation> {
        let mut session = Session::open(self.connector, task, offsets).await?;
        let highest: BTreeMap<_, _> = lanes(before)
            .into_iter()
            .filter_map(|(lane, records)| Some((lane, records.last()?.position.clone()?)))
            .collect();
        let new = |record: &&Seen| match (&record.position, highest.get(&record.lane)) {
            (Some(position), Some(highest)) => position > highest,
            _ => true,
        };
        let joined =
            |seen: &[Seen]| -> Vec<Seen> { before.iter().chain(seen.iter().filter(new)).cloned().collect() };
        let deadline = Instant::now() + self.limit;
        while !covers(&joined(&session.seen), &read.seen) && !session.ended && Instant::now() < deadline {
            session.step_within(BUDGETS[0], true).await?;
        }
        // Where that was all, what comes once more would come now.
        if read.is_whole && !session.ended {
            session.step_within(BUDGETS[0], true).await?;
        }
        let (seen, _) = session.close().await?;
        Ok(joined(&seen))
    }

    /// R7.
    async fn unreadable(&mut self, task: &TaskSpec, offsets: &SourceOffsets) -> Result<(), Violation> {
        let own = offsets.partitions.keys().filter(|name| !name.starts_with("towpath:"));
        let spoilt: BTreeMap<_, _> = own.map(|name| (name.clone(), Json::from(NO_OFFSET))).collect();
        if spoilt.is_empty() {
            self.report.cannot_judge(UNREADABLE, "no offsets came that could be spoilt");
            return Ok(());
        }
        let context = TaskContext::new("conformance", 0);
        let opened = self.connector.open(task.clone(), SourceOffsets { partitions: spoilt }, context).await;
        // A place that only the upstream can read is found to be none by the first poll.
        let found = match opened {
            Ok(mut source) => {
                let polled = source.poll(BUDGETS[0]).await;
                let _closed = source.close().await;
                polled
            }
            Err(error) => Err(error),
        };
        let broken = |what: String| Err(Violation { clause: UNREADABLE, what });
        match found {
            Ok(Poll::Batch(batch)) => broken(format!("{} records came", batch.batch.len())),
            Ok(Poll::Idle(_) | Poll::End) => broken("it opens, and says nothing".to_owned()),
            Err(error) if is_for_people(&error) => {
                self.report.keeps(UNREADABLE);
                Ok(())
            }
            Err(error) => broken(format!("it is tried again and again: {error}")),
        }
    }
}

/// Whether an error is not tried again by itself at once.
fn is_for_people(error: &ConnectorError) -> bool {
    matches!(error.kind(), ErrorKind::NeedsOperator | ErrorKind::Terminal)
}

fn has_positions(seen: &[Seen]) -> bool {
    seen.iter().any(|record| record.position.is_some())
}

fn sorted(seen: &[Seen]) -> Vec<&str> {
    let mut contents: Vec<_> = seen.iter().map(|record| record.content.as_str()).collect();
    contents.sort_unstable();
    contents
}

/// Whether all records of `all` are in `seen`.
fn covers(seen: &[Seen], all: &[Seen]) -> bool {
    if has_positions(all) {
        let seen = lanes(seen);
        return lanes(all)
            .iter()
            .all(|(lane, records)| seen.get(lane).is_some_and(|it| it.len() >= records.len()));
    }
    let (seen, mut at) = (sorted(seen), 0);
    sorted(all).into_iter().all(|content| {
        let found = seen.get(at..).and_then(|rest| rest.iter().position(|it| *it == content));
        at += found.map_or(0, |it| it + 1);
        found.is_some()
    })
}

/// Everything must have come; with positions in the same order, and each once.
fn compare(clause: &'static str, all: &[Seen], again: &[Seen]) -> Result<(), Violation> {
    ensure(clause, covers(again, all), || {
        format!("{} of {} records came", again.len().min(all.len()), all.len())
    })?;
    if !has_positions(all) {
        return Ok(());
    }
    let again = lanes(again);
    for (lane, records) in lanes(all) {
        let others = again.get(&lane).and_then(|it| it.get(..records.len())).unwrap_or_default();
        let differs = records.iter().zip(others).find(|(one, other)| one != other);
        ensure(clause, differs.is_none(), || format!("in lane {lane} came first and then: {differs:#?}"))?;
    }
    Ok(())
}
