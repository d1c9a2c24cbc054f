//! A bounded number of threads for work on many partitions at once: at start and at stop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

/// Threads at most (`num.recovery.threads.per.data.dir`): most of the work waits for the disk.
const THREADS_MAX: usize = 8;
/// Items that are worth a thread of their own.
const ITEMS_PER_THREAD_MIN: usize = 16;

/// Calls `work` for every item, on several threads where there are many items, and returns the results in the order
/// of the items.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = (items.len() / ITEMS_PER_THREAD_MIN).clamp(1, THREADS_MAX);
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            done.lock().push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where the system gives no thread, those that are there do the work.
            let _unless_refused =
                thread::Builder::new().name("partitions".to_owned()).spawn_scoped(scope, run);
        }
        run();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;

    #[test]
    fn every_item_is_worked_on_once_and_results_keep_their_places() {
        for count in [0usize, 1, 15, 16, 40, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let results = map(&items, |item| item * 2);
            assert_eq!(results, items.iter().map(|item| item * 2).collect::<Vec<_>>(), "{count}");
        }
    }

    #[test]
    fn threads_work_side_by_side_and_no_more_than_the_bound() {
        let items: Vec<usize> = (0..1000).collect();
        // Nobody passes before all are there: with fewer threads this would never end.
        let barrier = Barrier::new(THREADS_MAX);
        let first = AtomicUsize::new(0);
        let threads = Mutex::new(HashSet::new());
        map(&items, |_| {
            threads.lock().insert(thread::current().id());
            if first.fetch_add(1, Ordering::Relaxed) < THREADS_MAX {
                barrier.wait();
            }
        });
        assert_eq!(threads.lock().len(), THREADS_MAX);
    }
}
