//! What the runtime hands to every task.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

/// What a task may know of its surroundings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The task's number within its pipeline and direction, from 0.
    pub task: u32,
    /// Cancelled when the task should end. The runtime never ends a task by dropping its future: look at this
    /// wherever you wait.
    pub stop: CancellationToken,
    /// Where long work says how far it is.
    pub progress: Arc<Progress>,
    /// The directory from which relative paths are meant: where towpath was started.
    pub base_dir: Arc<PathBuf>,
}

impl TaskContext {
    /// A context for a task of `pipeline` with a stop signal of its own, for checks and tests.
    #[must_use]
    pub fn new(pipeline: &str, task: u32) -> Self {
        Self {
            pipeline: Arc::from(pipeline),
            task,
            stop: CancellationToken::new(),
            progress: Arc::default(),
            base_dir: Arc::new(PathBuf::from(".")),
        }
    }
}

/// How far a snapshot or another long piece of work is. Units are rows unless the connector says otherwise.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

/// A reading of [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ProgressSnapshot {
    /// What there is to do, possibly an estimate; 0 while unknown or when nothing long is going on.
    pub total: u64,
    /// What is done of it.
    pub done: u64,
}

impl Progress {
    /// Adds to what there is to do.
    pub fn expect(&self, amount: u64) {
        self.total.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds to what is done.
    pub fn advance(&self, amount: u64) {
        self.done.fetch_add(amount, Ordering::Relaxed);
    }

    /// Nothing long is going on (any more).
    pub fn clear(&self) {
        self.total.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Both numbers.
    #[must_use]
    pub fn read(&self) -> ProgressSnapshot {
        ProgressSnapshot {
            total: self.total.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
        }
    }
}
