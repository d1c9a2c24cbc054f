//! What barriers wait for, and which errors they report; pure.
//!
//! Every barrier ends a generation of records: barrier *n* covers what was sent in the generations up to *n*. A batch
//! may hold records of several generations, so its failure concerns all barriers of that range; each of them reports
//! it, and if all of them were dropped the next one does. Nothing that failed is ever passed over (R4).

use std::collections::BTreeSet;
use std::task::Waker;

use crate::ClientError;

/// Failures kept apart; more are merged into the last one.
const FAILURES_MAX: usize = 64;

/// The generations whose records are in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generations {
    pub(super) first: u64,
    pub(super) last: u64,
}

#[derive(Debug)]
struct Failure {
    generations: Generations,
    error: ClientError,
    reported: bool,
}

/// A barrier's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BarrierId {
    generation: u64,
    /// Batches with a smaller id hold everything that was sent before.
    batches_below: u64,
}

#[derive(Debug, Default)]
pub(super) struct Barriers {
    generation: u64,
    unfinished: BTreeSet<u64>,
    failures: Vec<Failure>,
    /// Generations of the barriers that have not reported.
    outstanding: BTreeSet<u64>,
    waiting: Vec<(BarrierId, Waker)>,
}

impl Barriers {
    /// The generation of a record that is sent now.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Ends the generation; `next_batch` is the id that the next batch will get.
    pub(super) fn begin(&mut self, next_batch: u64) -> BarrierId {
        let id = BarrierId { generation: self.generation, batches_below: next_batch };
        self.outstanding.insert(self.generation);
        self.generation += 1;
        id
    }

    /// Nobody waits for this barrier any more.
    pub(super) fn abandon(&mut self, id: BarrierId) {
        self.outstanding.remove(&id.generation);
        self.waiting.retain(|(waiting, _)| *waiting != id);
    }

    pub(super) fn batch_opened(&mut self, id: u64) {
        self.unfinished.insert(id);
    }

    /// Records the end of a batch; the wakers are to be woken outside of any lock.
    #[must_use]
    pub(super) fn batch_finished(
        &mut self,
        id: u64,
        failure: Option<(Generations, ClientError)>,
    ) -> Vec<Waker> {
        self.unfinished.remove(&id);
        if let Some((generations, error)) = failure {
            self.add_failure(generations, error);
        }
        let done = self.unfinished.first().copied().unwrap_or(u64::MAX);
        let (due, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(id, _)| id.batches_below <= done);
        self.waiting = waiting;
        let due: Vec<(BarrierId, Waker)> = due;
        due.into_iter().map(|(_, waker)| waker).collect()
    }

    fn add_failure(&mut self, generations: Generations, error: ClientError) {
        let full = self.failures.len() >= FAILURES_MAX;
        match self.failures.last_mut() {
            Some(last) if full => {
                let last_generations = &mut last.generations;
                last_generations.first = last_generations.first.min(generations.first);
                last_generations.last = last_generations.last.max(generations.last);
                last.reported = false;
            }
            _ => self.failures.push(Failure { generations, error, reported: false }),
        }
    }

    /// The barrier's result, if everything it covers is finished; else `waker` is woken then.
    pub(super) fn poll(&mut self, id: BarrierId, waker: &Waker) -> Option<Result<(), ClientError>> {
        if self.unfinished.first().is_some_and(|first| *first < id.batches_below) {
            match self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
                Some((_, known)) => known.clone_from(waker),
                None => self.waiting.push((id, waker.clone())),
            }
            return None;
        }
        Some(self.report(id.generation))
    }

    /// Forgets failures that nobody has asked for: whoever failed was told in another way.
    pub(super) fn forget_failures(&mut self) {
        self.failures.clear();
    }

    /// Whether nothing that was sent is still on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// The wakers of everybody who waits.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, waker)| waker).collect()
    }

    fn report(&mut self, generation: u64) -> Result<(), ClientError> {
        let mut first = None;
        for failure in &mut self.failures {
            let Generations { first: from, last: to } = failure.generations;
            if from <= generation && (generation <= to || !failure.reported) {
                failure.reported = true;
                first.get_or_insert_with(|| failure.error.clone());
            }
        }
        self.outstanding.remove(&generation);
        // A failure is kept until every barrier that it concerns has reported it, also those that are still to come.
        let (outstanding, open) = (&self.outstanding, self.generation);
        self.failures.retain(|failure| {
            let Generations { first, last } = failure.generations;
            !failure.reported || last >= open || outstanding.range(first..=last).next().is_some()
        });
        first.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(first: u64, last: u64) -> Option<(Generations, ClientError)> {
        Some((Generations { first, last }, ClientError::Closed))
    }

    fn poll(barriers: &mut Barriers, id: BarrierId) -> Option<Result<(), ClientError>> {
        barriers.poll(id, Waker::noop())
    }

    #[test]
    fn a_barrier_waits_for_what_was_sent_before_only() {
        let mut barriers = Barriers::default();
        barriers.batch_opened(0);
        let first = barriers.begin(1);
        barriers.batch_opened(1);
        assert!(poll(&mut barriers, first).is_none());
        assert_eq!(barriers.batch_finished(0, None).len(), 1, "the barrier is woken");
        assert!(poll(&mut barriers, first).unwrap().is_ok());
        assert!(!barriers.is_idle());
    }

    #[test]
    fn a_batch_across_two_generations_fails_both_barriers() {
        let mut barriers = Barriers::default();
        barriers.batch_opened(0);
        let first = barriers.begin(1);
        let second = barriers.begin(1);
        let third = barriers.begin(1);
        let _ = barriers.batch_finished(0, failure(0, 1));
        assert!(poll(&mut barriers, first).unwrap().is_err());
        assert!(poll(&mut barriers, second).unwrap().is_err());
        assert!(poll(&mut barriers, third).unwrap().is_ok(), "nothing of its generation failed");
    }

    #[test]
    fn an_error_of_a_later_generation_is_kept_for_its_own_barrier() {
        let mut barriers = Barriers::default();
        barriers.batch_opened(0);
        let first = barriers.begin(1);
        barriers.batch_opened(1);
        let second = barriers.begin(2);
        let _ = barriers.batch_finished(1, failure(1, 1));
        let _ = barriers.batch_finished(0, None);
        assert!(poll(&mut barriers, first).unwrap().is_ok());
        assert!(poll(&mut barriers, second).unwrap().is_err());
    }

    #[test]
    fn the_error_of_a_dropped_barrier_goes_to_the_next() {
        let mut barriers = Barriers::default();
        barriers.batch_opened(0);
        let dropped = barriers.begin(1);
        let _ = barriers.batch_finished(0, failure(0, 0));
        barriers.abandon(dropped);
        let next = barriers.begin(1);
        assert!(poll(&mut barriers, next).unwrap().is_err());
        let after = barriers.begin(1);
        assert!(poll(&mut barriers, after).unwrap().is_ok());
        assert!(barriers.failures.is_empty() && barriers.outstanding.is_empty());
    }

    #[test]
    fn who_looks_later_hears_of_its_failure_all_the_same() {
        for generations in [(0, 0), (0, 1)] {
            let mut barriers = Barriers::default();
            barriers.batch_opened(0);
            let (first, second) = (barriers.begin(1), barriers.begin(1));
            let _ = barriers.batch_finished(0, failure(generations.0, generations.1));
            assert!(poll(&mut barriers, second).unwrap().is_err());
            assert!(poll(&mut barriers, first).unwrap().is_err());
            assert!(barriers.failures.is_empty(), "all that it concerns have reported it");
        }
    }

    #[test]
    fn failures_are_bounded_and_none_is_lost() {
        let mut barriers = Barriers::default();
        for id in 0..1000 {
            barriers.batch_opened(id);
            let _ = barriers.batch_finished(id, failure(id, id));
            let _ = barriers.begin(id + 1);
        }
        assert!(barriers.failures.len() <= FAILURES_MAX);
        let last = barriers.begin(1000);
        assert!(poll(&mut barriers, last).unwrap().is_err());
    }
}
