//! One thread that makes appends durable, many at a time.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::Partition;

#[derive(Debug, Default)]
struct Queue {
    partitions: Vec<Arc<Partition>>,
    stopped: bool,
}

/// Called with how long one partition's flush took.
type Observer = Box<dyn Fn(std::time::Duration) + Send + Sync>;

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
    pub fn start(observer: impl Fn(std::time::Duration) + Send + Sync + 'static) -> std::io::Result<Self> {
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

    /// Asks for a flush of what `partition` holds now. A partition is in the queue at most once.
    pub(crate) fn request(&self, partition: Arc<Partition>) {
        if partition.begin_request() {
            self.shared.queue.lock().partitions.push(partition);
            self.shared.wake.notify_one();
        }
    }

    /// Flushes what was asked for and ends the thread.
    pub fn stop(&self) {
        self.shared.queue.lock().stopped = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the flusher thread panicked");
        }
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
            while queue.partitions.is_empty() && !queue.stopped {
                shared.wake.wait(&mut queue);
            }
            if queue.partitions.is_empty() {
                return;
            }
            std::mem::take(&mut queue.partitions)
        };
        for partition in batch {
            let started = Instant::now();
            partition.flush_now();
            (shared.observer)(started.elapsed());
        }
    }
}
