//! How far a link has come (R8): what `status` shows is what was acknowledged, and what the source has told last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use towpath_types::{Offset, TopicPartition};

use crate::map::OffsetMap;

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// One partition's, written by whoever moves it.
#[derive(Debug)]
pub(crate) struct Progress {
    through: AtomicI64,
    source_end: AtomicI64,
    /// What the target has to have, and when the source was asked where it ends; then when it was asked what the target
    /// has by now (ms).
    mark: Mutex<Option<(Offset, i64)>>,
    synced_at_ms: AtomicI64,
    begun_at: i64,
    bytes: AtomicU64,
    /// When the target last took something (ms).
    moved_at_ms: AtomicI64,
    stopped: AtomicBool,
    problem: Mutex<Option<String>>,
    /// Asked for by whoever translates offsets, given by whoever moves the partition.
    map: Mutex<Asked>,
}

#[derive(Debug, Default)]
enum Asked {
    #[default]
    Nothing,
    Wanted,
    Given(Box<OffsetMap>),
}

impl Progress {
    pub(crate) const fn new(through: Offset) -> Self {
        Self {
            through: AtomicI64::new(through.get()),
            source_end: AtomicI64::new(-1),
            mark: Mutex::new(None),
            synced_at_ms: AtomicI64::new(-1),
            begun_at: through.get(),
            bytes: AtomicU64::new(0),
            moved_at_ms: AtomicI64::new(-1),
            stopped: AtomicBool::new(false),
            problem: Mutex::new(None),
            map: Mutex::new(Asked::Nothing),
        }
    }

    pub(crate) fn want_map(&self) {
        *self.map.lock() = Asked::Wanted;
    }

    /// Gives the map, if it was asked for.
    pub(crate) fn give_map(&self, map: &OffsetMap) {
        let mut asked = self.map.lock();
        if matches!(*asked, Asked::Wanted) {
            *asked = Asked::Given(Box::new(map.clone()));
        }
    }

    pub(crate) fn take_map(&self) -> Option<OffsetMap> {
        let mut asked = self.map.lock();
        match std::mem::take(&mut *asked) {
            Asked::Given(map) => Some(*map),
            other => {
                *asked = other;
                None
            }
        }
    }

    /// The source was asked at `asked_at_ms`, and ended at `end`.
    pub(crate) fn source_end(&self, end: Offset, asked_at_ms: i64) {
        self.source_end.store(end.get(), Ordering::Relaxed);
        self.mark.lock().get_or_insert((end, asked_at_ms));
    }

    pub(crate) fn through(&self, through: Offset) {
        self.through.store(through.get(), Ordering::Relaxed);
        let mut mark = self.mark.lock();
        if let Some((_, at)) = mark.take_if(|(end, _)| *end <= through) {
            self.synced_at_ms.store(at, Ordering::Relaxed);
        }
    }

    /// Offsets of the source that are not mirrored yet, once the source has told its end.
    pub(crate) fn lag(&self) -> Option<i64> {
        let end = Some(self.source_end.load(Ordering::Relaxed)).filter(|end| *end >= 0)?;
        Some((end - self.through.load(Ordering::Relaxed)).max(0))
    }

    /// What the lag takes, if its records are as large as those that were mirrored.
    fn lag_bytes(&self) -> Option<u64> {
        let lag = self.lag()?.unsigned_abs();
        let through = self.through.load(Ordering::Relaxed);
        let moved = u64::try_from(through - self.begun_at).ok().filter(|moved| *moved > 0);
        let bytes =
            |moved| u128::from(self.bytes.load(Ordering::Relaxed)) * u128::from(lag) / u128::from(moved);
        if lag == 0 {
            Some(0)
        } else {
            moved.map(|moved: u64| u64::try_from(bytes(moved)).unwrap_or(u64::MAX))
        }
    }

    pub(crate) fn moved(&self, through: Offset, bytes: usize) {
        self.through(through);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved_at_ms.store(now_ms(), Ordering::Relaxed);
        *self.problem.lock() = None;
    }

    pub(crate) fn problem(&self, problem: &str) {
        *self.problem.lock() = Some(problem.to_owned());
    }

    pub(crate) fn stopped(&self, problem: String) {
        *self.problem.lock() = Some(problem);
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn told(&self, source: &TopicPartition, target: &TopicPartition) -> PartitionStatus {
        let through = self.through.load(Ordering::Relaxed);
        let end = self.source_end.load(Ordering::Relaxed);
        let known = |value: i64| (value >= 0).then_some(value);
        PartitionStatus {
            topic: source.topic.to_string(),
            partition: source.partition,
            target: target.topic.to_string(),
            mirrored: through,
            source_end: known(end),
            lag: self.lag(),
            lag_bytes: self.lag_bytes(),
            behind_ms: known(self.synced_at_ms.load(Ordering::Relaxed)).map(|at| (now_ms() - at).max(0)),
            bytes: self.bytes.load(Ordering::Relaxed),
            moved_at_ms: known(self.moved_at_ms.load(Ordering::Relaxed)),
            stopped: self.stopped.load(Ordering::Relaxed),
            problem: self.problem.lock().clone(),
        }
    }
}

/// How far one partition has come.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    /// The source's topic.
    pub topic: String,
    /// Which of its partitions; the target's has the same number.
    pub partition: i32,
    /// The target's topic.
    pub target: String,
    /// The source's offset below which everything is at the target, or left out for good.
    pub mirrored: i64,
    /// Where the source ends for readers of committed records, as it was told last.
    pub source_end: Option<i64>,
    /// Offsets of the source that are not mirrored yet.
    pub lag: Option<i64>,
    /// Their bytes, if they are as large as those that were mirrored since the start.
    pub lag_bytes: Option<u64>,
    /// The age of what the target has (ms): everything that the source had so long ago is there. What is lost if the source
    /// is lost now was written after that. Unknown until it has had everything once since the start.
    pub behind_ms: Option<i64>,
    /// Bytes that the target has acknowledged since the start.
    pub bytes: u64,
    /// When it last acknowledged something (ms since 1970).
    pub moved_at_ms: Option<i64>,
    /// Whether it stands still for good: see `problem`.
    pub stopped: bool,
    /// What keeps it from going on, or kept it last.
    pub problem: Option<String>,
}

/// What became of one group's offsets.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GroupStatus {
    /// What was done, or why nothing.
    pub state: String,
    /// Partitions whose offsets were translated.
    pub partitions: usize,
    /// How many records at most the group would process twice if it went over to the target now: those that it has
    /// processed and that are not mirrored yet, and those whose place is not known any more.
    pub twice: u64,
    /// Records of its partitions that the target does not have yet: what the group does not get if the source is lost.
    pub unmirrored: Option<i64>,
    /// Offsets that were committed at the target in the last round.
    pub committed: usize,
    /// What went wrong.
    pub problem: Option<String>,
}

impl GroupStatus {
    pub(crate) fn problem(problem: String) -> Self {
        Self { state: "not translated".to_owned(), problem: Some(problem), ..Self::default() }
    }
}

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It looks for its clusters, or through what is at the target.
    Starting,
    /// It mirrors.
    Running,
    /// It waits before it starts again: see `problem`.
    Waiting,
    /// It will not go on by itself: see `problem`.
    Failed,
    /// It was told to stop.
    Stopped,
}

/// How far a link has come.
#[derive(Debug, Clone, Serialize)]
pub struct LinkStatus {
    /// Its name.
    pub link: String,
    /// The alias of the source's cluster.
    pub from: String,
    /// The alias of the target's.
    pub to: String,
    /// What it does.
    pub state: LinkState,
    /// Why, if something is wrong.
    pub problem: Option<String>,
    /// Each partition's.
    pub partitions: Vec<PartitionStatus>,
    /// Topics that are not mirrored although they were asked for, and why.
    pub left_out: Vec<(String, String)>,
    /// Each group's.
    pub groups: BTreeMap<String, GroupStatus>,
}
