//! Which offsets of a source's partition are which of the target's: exact, as runs of consecutive ones.
//!
//! Records are copied in order, so both sides of the map only grow. What was left out (control records, aborted
//! transactions, what compaction had removed, what a filter dropped) and what others wrote to the target lies between
//! runs.

mod encoding;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use towpath_types::Offset;

/// How many runs of one partition are kept (R10). Past it, the older half is thinned out.
pub const RUNS_MAX: usize = 4096;

/// Consecutive records of the source that are consecutive at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first one's offset at the source.
    pub source: Offset,
    /// The first one's offset at the target.
    pub target: Offset,
    /// How many there are; at least one.
    pub count: u64,
}

impl Run {
    const fn source_end(&self) -> i64 {
        self.source.get().saturating_add(self.count as i64)
    }

    const fn target_end(&self) -> i64 {
        self.target.get().saturating_add(self.count as i64)
    }

    /// Whether `next` goes on where this one ends, on both sides.
    fn goes_on(&self, next: &Self) -> bool {
        self.source_end() == next.source.get() && self.target_end() == next.target.get()
    }
}

/// The map of one partition, from the first record that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMap {
    /// Where copying began, on both sides.
    begin: (Offset, Offset),
    /// Everything of the source below it was copied or left out for good.
    through: Offset,
    runs: VecDeque<Run>,
    /// Whether runs were taken out between others: what lies between runs is then no longer known to be nothing.
    thinned: bool,
}

/// A run that does not come after all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run at {} → {} does not come after all others of its partition", run.source, run.target)]
pub struct OutOfOrder {
    /// The run.
    pub run: Run,
}

impl OffsetMap {
    /// An empty map of a copy that begins with `source`, whose first record will be at or after `target`.
    #[must_use]
    pub const fn new(source: Offset, target: Offset) -> Self {
        Self { begin: (source, target), through: source, runs: VecDeque::new(), thinned: false }
    }

    /// A map of what somebody else has copied, of which only the end is known: what is below is translated to `begin`, where
    /// both sides begin.
    #[must_use]
    pub const fn unknown(begin: (Offset, Offset)) -> Self {
        Self { begin, through: begin.0, runs: VecDeque::new(), thinned: true }
    }

    /// Where copying began: the source's offset, and where the target was to be written to next.
    #[must_use]
    pub const fn begin(&self) -> (Offset, Offset) {
        self.begin
    }

    /// The source's offset below which everything was copied, or left out for good.
    #[must_use]
    pub const fn through(&self) -> Offset {
        self.through
    }

    /// The target's offset after the last record that was copied.
    #[must_use]
    pub fn target_end(&self) -> Offset {
        self.runs.back().map_or(self.begin.1, |run| Offset::new(run.target_end()))
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// Adds what was copied last.
    ///
    /// # Errors
    /// [`OutOfOrder`], and the map is as it was.
    pub fn push(&mut self, run: Run) -> Result<(), OutOfOrder> {
        let after = self.through.get().max(self.runs.back().map_or(i64::MIN, Run::source_end));
        if run.count == 0 || run.source.get() < after || run.target < self.target_end() {
            return Err(OutOfOrder { run });
        }
        match self.runs.back_mut().filter(|last| last.goes_on(&run)) {
            Some(last) => last.count += run.count,
            None => self.runs.push_back(run),
        }
        self.through = Offset::new(run.source_end());
        if self.runs.len() > RUNS_MAX {
            self.thin();
        }
        Ok(())
    }

    /// Everything of the source below `through` was copied, or left out for good. It never goes back.
    pub fn reach(&mut self, through: Offset) {
        self.through = self.through.max(through);
    }

    /// Something was copied, and where it is at the target is not known.
    pub const fn lose_sight(&mut self) {
        self.thinned = true;
    }

    /// The target's log ends at `target_end`: what the map has from there on is gone, and is to be copied again. Returns how
    /// many records that are.
    pub fn cut(&mut self, target_end: Offset) -> u64 {
        let mut gone = 0;
        while let Some(last) = self.runs.back_mut().filter(|run| run.target_end() > target_end.get()) {
            let keep = u64::try_from(target_end.get() - last.target.get()).unwrap_or(0);
            gone += last.count - keep;
            last.count = keep;
            self.through = Offset::new(last.source_end());
            if keep == 0 {
                self.runs.pop_back();
            }
        }
        gone
    }

    /// Takes out every second run of the older half. What is left is as exact as before; offsets of the runs that are
    /// gone are translated to where they begin.
    fn thin(&mut self) {
        let half = self.runs.len() / 2;
        let mut index = 0;
        self.runs.retain(|_| {
            index += 1;
            // The first one stays, so that what is below it is known.
            index > half || index % 2 == 1
        });
        self.thinned = true;
    }

    /// Where a group that has processed everything of the source below `position` goes on at the target.
    ///
    /// Nothing of the source from `position` on is below the answer at the target (R9), and nothing else of the source
    /// is at or after it, but for what [`Self::twice_at_most`] says.
    #[must_use]
    pub fn translate(&self, position: Offset) -> Offset {
        let after = self.runs.partition_point(|run| run.source <= position);
        match after.checked_sub(1).and_then(|index| self.runs.get(index)) {
            None => self.begin.1,
            Some(run) if position.get() < run.source_end() => {
                Offset::new(run.target.get() + (position.get() - run.source.get()))
            }
            // Between two runs nothing of the source is at the target, or it is not known any more: the end of the one
            // before is right either way.
            Some(run) => Offset::new(run.target_end()),
        }
    }

    /// How many records at most a group that has processed everything of the source below `position` finds again at
    /// the target: those that are not mirrored yet, and those whose place is not known any more.
    #[must_use]
    pub fn twice_at_most(&self, position: Offset) -> u64 {
        let to_come = position.get().saturating_sub(self.through.get()).max(0);
        let after = self.runs.partition_point(|run| run.source <= position);
        let before = after.checked_sub(1).and_then(|index| self.runs.get(index));
        let unknown = match (before, self.runs.get(after)) {
            (Some(run), _) if !self.thinned || position.get() <= run.source_end() => 0,
            (Some(run), Some(next)) => next.target.get().saturating_sub(run.target_end()),
            (Some(run), None) => self.through.get().min(position.get()).saturating_sub(run.source_end()),
            (None, Some(first)) if self.thinned && position > self.begin.0 => {
                first.target.get().saturating_sub(self.begin.1.get())
            }
            (None, _) => 0,
        };
        to_come.saturating_add(unknown).unsigned_abs()
    }

    /// Whether a record of the source is at the target, as far as is known.
    #[must_use]
    pub fn has(&self, source: Offset) -> bool {
        let after = self.runs.partition_point(|run| run.source <= source);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.is_some_and(|run| source.get() < run.source_end())
    }

    /// Whether runs are missing: what lies between others is not known to be nothing then.
    #[must_use]
    pub const fn is_thinned(&self) -> bool {
        self.thinned
    }

    /// Where a record of the target comes from: the source's offset, if it was copied and is still known.
    #[must_use]
    pub fn source_of(&self, target: Offset) -> Option<Offset> {
        let after = self.runs.partition_point(|run| run.target <= target);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let at = target.get() - run.target.get();
        (at < run.count as i64).then(|| Offset::new(run.source.get() + at))
    }
}
