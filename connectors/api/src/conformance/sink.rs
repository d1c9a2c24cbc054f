//! What every sink must do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::given::Report;
use super::{Violation, ensure};
use crate::{
    BatchBuilder, Durability, EventSchema, Field, Guarantee, Op, RowSchema, RowWriter, Sink, SinkBatch,
    SinkConnector, TaskContext, Type, Written,
};

/// How long a task may take that is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The target of the sink that is checked.
#[async_trait]
pub trait SinkWorld: Send {
    /// A connector, configured for this world, that writes the rows of [`SinkWorld::schema`].
    fn connector(&self) -> Box<dyn SinkConnector>;

    /// What the sink promises.
    fn guarantee(&self) -> Guarantee;

    /// The ids of all rows that the target holds, once for each row.
    async fn held(&mut self) -> Vec<i64>;

    /// The schema of the rows; its first field is an integer, the id, and by default the key.
    fn schema(&self) -> Arc<EventSchema> {
        let key = RowSchema::new(vec![Field::required("id", Type::Int64)]);
        let value =
            RowSchema::new(vec![Field::required("id", Type::Int64), Field::nullable("text", Type::String)]);
        Arc::new(EventSchema::new("conformance", Arc::new(value)).with_key(Some(Arc::new(key))))
    }

    /// Writes a row of the schema.
    fn row(&self, id: i64, row: &mut RowWriter<'_>) {
        row.int(id);
        row.text("text");
    }

    /// Writes a row that the sink rejects; false if there is none.
    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        let _ = row;
        false
    }

    /// The topic that is written from.
    fn topic(&self) -> TopicName;

    /// Whether more is known of this world than that the sink's options point to it: what the target holds, which rows the
    /// sink takes, and which it rejects. What depends on it is not judged otherwise.
    fn is_known(&self) -> bool {
        true
    }
}

/// Checks a sink against the contract. The target is empty before.
///
/// # Errors
/// The first [`Violation`].
pub async fn sink(world: &mut dyn SinkWorld) -> Result<(), Violation> {
    let mut play = Play::new(world);
    play.run().await
}

/// The same, and what was found before it ended.
pub(super) async fn report(world: &mut dyn SinkWorld) -> Report {
    let mut play = Play::new(world);
    let broken = play.run().await.err();
    Report { broken, ..play.report }
}

struct Play<'a> {
    world: &'a mut dyn SinkWorld,
    connector: Box<dyn SinkConnector>,
    partition: Arc<TopicPartition>,
    id: TopicId,
    /// The next offset to write; a record's id is its offset.
    next: i64,
    /// The ids that the target has to hold.
    expected: Vec<i64>,
    report: Report,
}

impl<'a> Play<'a> {
    fn new(world: &'a mut dyn SinkWorld) -> Self {
        let connector = world.connector();
        let partition = Arc::new(TopicPartition::new(world.topic(), 0));
        let (id, expected, report) = (TopicId::random(), Vec::new(), Report::default());
        Self { world, connector, partition, id, next: 0, expected, report }
    }

    async fn run(&mut self) -> Result<(), Violation> {
        const CLAUSE: &str = "a prepared world passes check";
        self.connector.check(&TaskContext::new("conformance", 0)).await.map_err(|errors| {
            let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Violation::new(CLAUSE, all.join("; "))
        })?;
        self.report.keeps(CLAUSE);
        if !self.writes_and_flushes().await? {
            return Ok(());
        }
        self.report.keeps(
            "a flush says how far everything written is safe, and a position moves past an empty batch",
        );
        self.crash(false).await?;
        self.crash(true).await?;
        self.report.keeps("after a crash the sink knows what was safe");
        self.rejection().await?;
        self.revocation().await?;
        self.report.keeps("a partition goes and comes back");
        if self.exactly_once() {
            self.fencing().await?;
            self.report.keeps("an older owner changes nothing, and is told so");
        } else {
            self.report
                .cannot_judge("an older owner changes nothing", "the sink does not promise exactly once");
        }
        self.stop().await?;
        self.report.keeps("a sink flushes and closes soon after the task is told to stop");
        Ok(())
    }
}

impl Play<'_> {
    fn exactly_once(&self) -> bool {
        self.world.guarantee() == Guarantee::ExactlyOnce
    }

    /// A sink with the partition, and where it wants to begin.
    async fn open(&self) -> Result<(Box<dyn Sink>, Option<Offset>), Violation> {
        const CLAUSE: &str = "a sink opens and takes a partition";
        let opened = self.connector.open(TaskContext::new("conformance", 0)).await;
        let mut sink = opened.map_err(Violation::failed(CLAUSE))?;
        let partition = (*self.partition).clone();
        let starts = sink.assign(&[(partition.clone(), self.id)]).await;
        let start = starts.map_err(Violation::failed(CLAUSE))?.remove(&partition);
        ensure("an exactly-once sink knows where to begin", !self.exactly_once() || start.is_some(), || {
            "it tells no position".to_owned()
        })?;
        Ok((sink, start))
    }

    /// The offsets from `from` to before `to`, but for those of `without`; the record of `bad` is one that the sink
    /// rejects.
    fn batch(&self, from: i64, to: i64, bad: Option<i64>, without: &[i64]) -> SinkBatch {
        let schema = self.world.schema();
        let mut builder = BatchBuilder::new();
        for offset in (from..to).filter(|offset| !without.contains(offset)) {
            let mut record = builder.record(&schema);
            record.offset(offset).timestamp_ms(1_700_000_000_000).op(Some(Op::Create)).flat(true);
            record.key(|row| row.int(offset));
            record.after(|row| {
                if bad != Some(offset) || !self.world.poison(row) {
                    self.world.row(offset, row);
                }
            });
            record.finish();
        }
        SinkBatch {
            partition: Arc::clone(&self.partition),
            topic_id: self.id,
            first_offset: Offset::new(from),
            next_offset: Offset::new(to),
            batch: builder.build(),
        }
    }

    async fn write(sink: &mut dyn Sink, batch: SinkBatch) -> Result<Written, Violation> {
        sink.write(batch).await.map_err(Violation::failed("a write succeeds"))
    }

    async fn flush(&self, sink: &mut dyn Sink, next: i64) -> Result<(), Violation> {
        const CLAUSE: &str = "a flush says how far everything written is safe";
        let flushed = sink.flush().await.map_err(Violation::failed(CLAUSE))?;
        let expected: BTreeMap<_, _> = [((*self.partition).clone(), Offset::new(next))].into();
        ensure(CLAUSE, flushed == expected, || format!("{flushed:?} instead of {expected:?}"))
    }

    async fn close(sink: Box<dyn Sink>) -> Result<(), Violation> {
        sink.close().await.map_err(Violation::failed("a sink closes"))
    }

    async fn check_held(&mut self, clause: &'static str) -> Result<(), Violation> {
        if !self.world.is_known() {
            return Ok(());
        }
        let mut held = self.world.held().await;
        held.sort_unstable();
        if !self.exactly_once() {
            held.dedup();
        }
        ensure(clause, held == self.expected, || {
            format!("the target holds {held:?} instead of {:?}", self.expected)
        })
    }

    /// Plain work and an empty batch. False if the suite has no records that the sink takes.
    async fn writes_and_flushes(&mut self) -> Result<bool, Violation> {
        let (mut sink, start) = self.open().await?;
        ensure("an empty target wants everything", start.is_none_or(|start| start == Offset::ZERO), || {
            format!("it begins at {start:?}")
        })?;
        let written = Self::write(&mut *sink, self.batch(0, 5, None, &[])).await?;
        if let (Some(rejected), false) = (written.rejected.first(), self.world.is_known()) {
            let why = format!(
                "it rejects records of an id and a text, and the suite has no others: {}",
                rejected.error
            );
            self.report.cannot_judge("what becomes of records", why);
            return Ok(false);
        }
        ensure("good records are not rejected", written.rejected.is_empty(), || format!("{written:?}"))?;
        Self::write(&mut *sink, self.batch(5, 10, None, &[])).await?;
        self.flush(&mut *sink, 10).await?;
        self.expected.extend(0..10);
        self.check_held("what was flushed is in the target").await?;
        self.flush(&mut *sink, 10).await?;
        // The barrier of a batch whose records were all dropped on the way.
        Self::write(&mut *sink, self.batch(10, 12, None, &[10, 11])).await?;
        self.flush(&mut *sink, 12).await?;
        Self::close(sink).await?;
        self.next = 12;
        let (sink, start) = self.open().await?;
        ensure(
            "a position moves past an empty batch",
            !self.exactly_once() || start == Some(Offset::new(12)),
            || format!("it begins at {start:?}"),
        )?;
        Self::close(sink).await?;
        Ok(true)
    }

    /// Dropped without a flush and a close; the records come again from where the sink says.
    async fn crash(&mut self, flushed: bool) -> Result<(), Violation> {
        let (from, to) = (self.next, self.next + 8);
        let (mut sink, _) = self.open().await?;
        let written = Self::write(&mut *sink, self.batch(from, from + 5, None, &[])).await?;
        if flushed {
            self.flush(&mut *sink, from + 5).await?;
        }
        Self::write(&mut *sink, self.batch(from + 5, to, None, &[])).await?;
        drop(sink);
        let (mut sink, start) = self.open().await?;
        let safe = if flushed || written.durability == Durability::Durable { from + 5 } else { from };
        let start = start.map_or(from, Offset::get);
        let known = !self.exactly_once() || (safe..=to).contains(&start);
        ensure("after a crash the sink knows what was safe", known, || {
            format!("it begins at {start}, and everything before {safe} was safe")
        })?;
        if start < to {
            Self::write(&mut *sink, self.batch(start, to, None, &[])).await?;
            self.flush(&mut *sink, to).await?;
        }
        Self::close(sink).await?;
        self.expected.extend(from..to);
        self.next = to;
        self.check_held("after a crash every record is there, as often as was promised").await
    }

    /// R5: a rejected record keeps the whole batch from counting until it comes without.
    async fn rejection(&mut self) -> Result<(), Violation> {
        const CLAUSE: &str = "a batch with a rejected record changes nothing until it comes without";
        let schema = self.world.schema();
        let mut probe = BatchBuilder::new();
        let mut poisons = false;
        probe.record(&schema).after(|row| poisons = self.world.poison(row));
        if !poisons {
            return Ok(());
        }
        let (from, to, bad) = (self.next, self.next + 5, self.next + 2);
        let (mut sink, _) = self.open().await?;
        let written = match sink.write(self.batch(from, to, Some(bad), &[])).await {
            Err(error) if !self.world.is_known() => {
                let why = format!("at a record without values it fails instead: {error}");
                self.report.cannot_judge(CLAUSE, why);
                return Ok(());
            }
            written => written.map_err(Violation::failed("a write succeeds"))?,
        };
        if written.rejected.is_empty() && !self.world.is_known() {
            self.report
                .cannot_judge(CLAUSE, "it takes a record without values too, and the suite has no worse one");
            self.flush(&mut *sink, to).await?;
            self.next = to;
            return Self::close(sink).await;
        }
        let rejected: Vec<_> = written.rejected.iter().map(|rejected| rejected.index).collect();
        ensure("exactly the bad record is rejected", rejected == [2], || format!("{rejected:?}"))?;
        drop(sink);
        self.check_held(CLAUSE).await?;
        let (mut sink, start) = self.open().await?;
        let start = start.map_or(from, Offset::get);
        ensure(CLAUSE, start == from, || format!("the position moved from {from} to {start}"))?;
        let again = Self::write(&mut *sink, self.batch(from, to, Some(bad), &[])).await?;
        ensure("a bad record is rejected again", again.rejected.len() == 1, || format!("{again:?}"))?;
        let written = Self::write(&mut *sink, self.batch(from, to, None, &[bad])).await?;
        ensure("without it nothing is rejected", written.rejected.is_empty(), || format!("{written:?}"))?;
        self.flush(&mut *sink, to).await?;
        Self::close(sink).await?;
        self.expected.extend((from..to).filter(|id| *id != bad));
        self.next = to;
        self.report.keeps(CLAUSE);
        self.check_held("everything but the rejected record is there").await
    }

    /// A task that is told to stop is flushed and closed.
    async fn stop(&mut self) -> Result<(), Violation> {
        const CLAUSE: &str = "a sink flushes and closes soon after the task is told to stop";
        let context = TaskContext::new("conformance", 0);
        let opened = self.connector.open(context.clone()).await;
        let mut sink = opened.map_err(Violation::failed(CLAUSE))?;
        let assigned = sink.assign(&[((*self.partition).clone(), self.id)]).await;
        assigned.map_err(Violation::failed(CLAUSE))?;
        Self::write(&mut *sink, self.batch(self.next, self.next + 2, None, &[])).await?;
        context.stop.cancel();
        let next = self.next + 2;
        let ended = async {
            self.flush(&mut *sink, next).await?;
            Self::close(sink).await
        };
        let ended = tokio::time::timeout(STOP_LIMIT, ended).await;
        ended
            .unwrap_or_else(|_| Err(Violation::new(CLAUSE, format!("it took longer than {STOP_LIMIT:?}"))))?;
        self.expected.extend(self.next..next);
        self.next = next;
        self.check_held(CLAUSE).await
    }

    /// A partition goes and comes back to the same task.
    async fn revocation(&mut self) -> Result<(), Violation> {
        const CLAUSE: &str = "a partition goes and comes back";
        let partition = (*self.partition).clone();
        let (mut sink, _) = self.open().await?;
        Self::write(&mut *sink, self.batch(self.next, self.next + 3, None, &[])).await?;
        self.flush(&mut *sink, self.next + 3).await?;
        self.expected.extend(self.next..self.next + 3);
        self.next += 3;
        let revoked = sink.revoke(std::slice::from_ref(&partition)).await;
        revoked.map_err(Violation::failed(CLAUSE))?;
        let starts = sink.assign(&[(partition.clone(), self.id)]).await.map_err(Violation::failed(CLAUSE))?;
        let start = starts.get(&partition).map_or(self.next, |start| start.get());
        ensure(CLAUSE, start == self.next, || format!("it begins at {start} instead of {}", self.next))?;
        Self::write(&mut *sink, self.batch(self.next, self.next + 2, None, &[])).await?;
        self.flush(&mut *sink, self.next + 2).await?;
        self.expected.extend(self.next..self.next + 2);
        self.next += 2;
        Self::close(sink).await?;
        self.check_held(CLAUSE).await
    }

    /// R6: an older owner of a partition changes nothing.
    async fn fencing(&mut self) -> Result<(), Violation> {
        const CLAUSE: &str = "an older owner changes nothing";
        let (mut old, _) = self.open().await?;
        let (mut new, start) = self.open().await?;
        ensure(CLAUSE, start == Some(Offset::new(self.next)), || {
            format!("the new owner begins at {start:?}")
        })?;
        let zombie = match old.write(self.batch(self.next, self.next + 2, None, &[])).await {
            Ok(_) => old.flush().await.map(drop),
            Err(error) => Err(error),
        };
        ensure(CLAUSE, zombie.is_err(), || "it was not told so".to_owned())?;
        self.check_held(CLAUSE).await?;
        Self::write(&mut *new, self.batch(self.next, self.next + 2, None, &[])).await?;
        self.flush(&mut *new, self.next + 2).await?;
        Self::close(new).await?;
        self.expected.extend(self.next..self.next + 2);
        self.next += 2;
        self.check_held(CLAUSE).await
    }
}
