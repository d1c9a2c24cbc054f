//! One thread that makes appends durable, many at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::Partition;

/// How long a flush that failed waits before it is tried again.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Queue {
    partitions: Vec<Arc<Partition>>,
    /// Those whose flush failed, the first to be due first. They may go meanwhile.
    later: VecDeque<(Instant, Weak<Partition>)>,
    stopped: bool,
}

impl Queue {
    /// Puts in what is due, and returns when the next one will be.
    fn take_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, _)) = self.later.front() {
            if *at > now {
                return Some(*at);
            }
            let partition = self.later.pop_front().and_then(|(_, partition)| partition.upgrade());
            self.partitions.extend(partition.filter(|partition| partition.begin_request()));
        }
        None
    }
}

/// Called with how long one partition's flush took.
type Observer = Box<dyn Fn(Duration) + Send + Sync>;

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    observer: Observer,
}

/// Flushes partitions in the order in which they ask for it. While one flush runs, the appends of all producers
/// gather for the next (group commit).
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Flusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flusher").field("queued", &self.shared.queue.lock().partitions.len()).finish()
    }
}

impl Flusher {
    /// Starts the thread. `observer` is called with the duration of every flush.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(observer: impl Fn(Duration) + Send + Sync + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            observer: Box::new(observer),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("flusher".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || run(&worker))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// A flusher without a thread: nothing is flushed until [`Self::flush_queued`] is called. For simulations.
    #[must_use]
    pub fn manual() -> Self {
        let shared = Shared { queue: Mutex::default(), wake: Condvar::new(), observer: Box::new(|_| {}) };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Flushes what was asked for, in that order, on the caller's thread, and returns how many partitions that were. What
    /// failed and can be tried again waits for the next call. For a flusher that was made by [`Self::manual`].
    pub fn flush_queued(&self) -> usize {
        let batch = std::mem::take(&mut self.shared.queue.lock().partitions);
        let count = batch.len();
        for partition in batch {
            if partition.flush_now() {
                self.request(partition);
            }
        }
        count
    }

    /// Asks for a flush of what `partition` holds now. A partition is in the queue at most once.
    pub(crate) fn request(&self, partition: Arc<Partition>) {
        if partition.begin_request() {
            self.shared.queue.lock().partitions.push(partition);
            self.shared.wake.notify_one();
        }
    }

    /// Flushes what was asked for and ends the thread. Where there is none, nothing is flushed any more: what was asked
    /// for is forgotten.
    pub fn stop(&self) {
        self.shared.queue.lock().stopped = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            // The thread itself may be the last to let go of a partition, and with it of the flusher.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the flusher thread panicked");
        }
        // The partitions hold this flusher: without a thread that takes them, they would keep each other.
        let left = std::mem::take(&mut self.shared.queue.lock().partitions);
        drop(left);
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    loop {
        let batch = {
            let mut queue = shared.queue.lock();
            loop {
                let next = queue.take_due(Instant::now());
                if !queue.partitions.is_empty() || queue.stopped {
                    break;
                }
                match next {
                    None => shared.wake.wait(&mut queue),
                    Some(at) => {
                        // Whether it was woken or not, it looks again.
                        let _timed_out = shared.wake.wait_until(&mut queue, at);
                    }
                }
            }
            if queue.partitions.is_empty() {
                return;
            }
            std::mem::take(&mut queue.partitions)
        };
        for partition in batch {
            let started = Instant::now();
            let again = partition.flush_now();
            (shared.observer)(started.elapsed());
            if again {
                shared.queue.lock().later.push_back((Instant::now() + RETRY, Arc::downgrade(&partition)));
            }
        }
    }
}
