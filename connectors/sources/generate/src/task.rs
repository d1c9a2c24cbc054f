//! The records and their pace.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::time::Instant;
use towpath_api::{
    BatchBuilder, Budget, ConnectorError, Poll, Position, Source, SourceBatch, SourceOffsets, TaskContext,
};

use super::field::timestamp_ms;
use super::options::Options;

/// The longest nap between two looks at the clock.
const NAP: Duration = Duration::from_millis(100);

/// A running task: every `of`-th record, beginning with `index`.
pub(crate) struct Task {
    options: Options,
    context: TaskContext,
    partition: String,
    of: u64,
    /// The number of the next record.
    next: u64,
    /// Records made since `since`, for the pace.
    made: u64,
    since: Instant,
}

impl Task {
    pub(crate) fn open(
        options: Options,
        index: u64,
        of: u64,
        resume: &SourceOffsets,
        context: TaskContext,
    ) -> Result<Self, ConnectorError> {
        let partition = format!("task {index} of {of}");
        let next = match resume.partitions.get(&partition) {
            None => index,
            Some(stored) => match (stored.get("next").and_then(|next| next.as_u64()), stored.get("seed")) {
                (Some(next), Some(seed)) if *seed == json!(options.seed) => next,
                // R7: going on with another seed would tear the sequence silently.
                _ => {
                    return Err(ConnectorError::terminal(
                        "GENERATE_OFFSET",
                        format!("the stored offset of `{partition}` cannot be read, or was stored under another seed"),
                    )
                    .with_hint("use the old seed, or another pipeline name"));
                }
            },
        };
        if let Some(records) = options.records {
            context.progress.expect(records.saturating_sub(next).div_ceil(of));
        }
        Ok(Self { options, context, partition, of, next, made: 0, since: Instant::now() })
    }

    /// How many records are due now.
    fn due(&self, most: usize) -> usize {
        let Some(rate) = self.options.rate else { return most };
        // Each task has its share of the rate.
        let share = rate as f64 / self.of as f64;
        let due = (self.since.elapsed().as_secs_f64() * share) as u64 + 1;
        usize::try_from(due.saturating_sub(self.made)).map_or(most, |due| due.min(most))
    }

    fn write_record(&self, builder: &mut BatchBuilder) {
        let number = self.next;
        // One stream of random numbers a record: each can be made without those before it.
        let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
        random.set_stream(number);
        let mut record = builder.record(&self.options.schema);
        record.timestamp_ms(timestamp_ms(number)).position(0, &number.to_be_bytes());
        record.after(|row| self.options.kinds.iter().for_each(|kind| kind.write(row, number, &mut random)));
        if let Some(key) = self.options.key {
            let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
            random.set_stream(number);
            let schema = Arc::clone(self.options.schema.value());
            record.key(|row| {
                // The fields before the key draw from the same stream: draw them again.
                let mut arena = Vec::new();
                let mut scratch = towpath_api::RowWriter::new(&mut arena, &schema);
                self.options.kinds[..key]
                    .iter()
                    .for_each(|kind| kind.write(&mut scratch, number, &mut random));
                scratch.abandon();
                self.options.kinds[key].write(row, number, &mut random);
            });
        }
        record.finish();
    }

    fn offsets(&self) -> SourceOffsets {
        let offset = json!({ "v": 1, "seed": self.options.seed, "next": self.next });
        SourceOffsets { partitions: [(self.partition.clone(), offset)].into() }
    }
}

#[async_trait]
impl Source for Task {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        let mut builder = BatchBuilder::new();
        for _ in 0..self.due(budget.records) {
            if self.options.records.is_some_and(|records| self.next >= records) {
                break;
            }
            self.write_record(&mut builder);
            self.next += self.of;
            self.made += 1;
            if builder.size_in_bytes() >= budget.bytes {
                break;
            }
        }
        if !builder.is_empty() {
            self.context.progress.advance(builder.len() as u64);
            let offsets = self.offsets();
            return Ok(Poll::Batch(SourceBatch {
                batch: builder.build(),
                offsets,
                ..SourceBatch::default()
            }));
        }
        if self.options.records.is_some_and(|records| self.next >= records) {
            return Ok(Poll::End);
        }
        let share = self.options.rate.map_or(1.0, |rate| rate as f64 / self.of as f64);
        let nap = Duration::from_secs_f64((1.0 / share).min(NAP.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = self.context.stop.cancelled() => {}
        }
        Ok(Poll::Idle(SourceOffsets::default()))
    }

    async fn commit(&mut self, _durable: &SourceOffsets) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        match self.options.records {
            Some(_) => Ok(None),
            // An endless source is waited for as far as it has come.
            None => Ok(Some(Position { document: json!(self.next), text: format!("record {}", self.next) })),
        }
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let next = durable.partitions.get(&self.partition).and_then(|stored| stored.get("next")?.as_u64());
        next >= end.document.as_u64()
    }

    fn status(&self) -> String {
        match self.options.records {
            Some(records) => format!("record {} of {records}", self.next.min(records)),
            None => format!("record {}", self.next),
        }
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}
