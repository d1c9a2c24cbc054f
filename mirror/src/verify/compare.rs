//! The records of both sides against the map, as a pure machine: both are given in the order of their offsets.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use towpath_types::Offset;

use crate::map::OffsetMap;

/// Records of one range.
pub(super) const RANGE_RECORDS: u64 = 10_000;

/// A record: where it is, and the hash of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) offset: Offset,
    pub(crate) hash: [u8; 32],
}

/// What the two sides may differ in without a fault.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowed {
    /// Records are removed from between others on either side (`cleanup.policy=compact`).
    pub(super) compacted: bool,
    /// Others write to the target as well, and what came from there does not go back.
    pub(super) shared: bool,
}

/// Consecutive records that were compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first one's offset at the source.
    pub from: i64,
    /// The last one's.
    pub to: i64,
    /// How many.
    pub records: u64,
    /// SHA-256 over the source's offset, timestamp, key, value and headers of each.
    pub hash: String,
}

/// Where the two sides begin to differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Difference {
    /// A record says something else.
    Other {
        /// Its offset at the source.
        source: i64,
        /// Its offset at the target.
        target: i64,
    },
    /// A record of the source is not at the target.
    Missing {
        /// Its offset at the source.
        source: i64,
    },
    /// A record of the target is none of the source's.
    Foreign {
        /// Its offset at the target.
        target: i64,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other { source, target } => {
                write!(f, "offset {source} of the source and {target} of the target say different things")
            }
            Self::Missing { source } => write!(f, "offset {source} of the source is not at the target"),
            Self::Foreign { target } => write!(f, "offset {target} of the target is none of the source's"),
        }
    }
}

/// What is to be given next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    Source,
    Target,
    Both,
}

/// See the module.
pub(super) struct Compare {
    map: OffsetMap,
    allowed: Allowed,
    /// Where the target begins now: what lies before was removed there.
    target_start: Offset,
    open: Option<(Offset, Offset, u64, Sha256)>,
    pub(super) ranges: Vec<Range>,
    pub(super) records: u64,
    /// Records that only one side has any more, by retention or compaction, or whose place is not known any more.
    pub(super) passed_over: u64,
    pub(super) difference: Option<Difference>,
}

impl Compare {
    pub(super) const fn new(map: OffsetMap, allowed: Allowed, target_start: Offset) -> Self {
        Self {
            map,
            allowed,
            target_start,
            open: None,
            ranges: Vec::new(),
            records: 0,
            passed_over: 0,
            difference: None,
        }
    }

    /// Looks at the next record of each side, as far as there is one, and says which of them is done with; `None` once both
    /// sides are at their end, or differ.
    pub(super) fn step(&mut self, source: Option<&Hashed>, target: Option<&Hashed>) -> Option<Take> {
        match (source, target) {
            _ if self.difference.is_some() => None,
            (None, None) => None,
            (source, Some(target)) => {
                let Some(meant) = self.map.source_of(target.offset) else {
                    return Some(self.unknown(target));
                };
                match source {
                    Some(source) if source.offset < meant => Some(self.source_alone(source)),
                    Some(source) if source.offset == meant => Some(self.both(source, target)),
                    // The source has removed it since.
                    _ => {
                        self.passed_over += 1;
                        Some(Take::Target)
                    }
                }
            }
            (Some(source), None) => Some(self.source_alone(source)),
        }
    }

    fn both(&mut self, source: &Hashed, target: &Hashed) -> Take {
        if source.hash != target.hash {
            let (source, target) = (source.offset.get(), target.offset.get());
            self.difference = Some(Difference::Other { source, target });
            return Take::Both;
        }
        self.records += 1;
        let open = self.open.get_or_insert_with(|| (source.offset, source.offset, 0, Sha256::new()));
        (open.1, open.2) = (source.offset, open.2 + 1);
        open.3.update(source.offset.get().to_be_bytes());
        open.3.update(source.hash);
        if open.2 == RANGE_RECORDS {
            self.close();
        }
        Take::Both
    }

    /// Nothing of the map is where this record stands at the target.
    fn unknown(&mut self, target: &Hashed) -> Take {
        if self.allowed.shared || self.map.is_thinned() {
            self.passed_over += 1;
        } else {
            self.difference = Some(Difference::Foreign { target: target.offset.get() });
        }
        Take::Target
    }

    /// The target has nothing for this record.
    fn source_alone(&mut self, source: &Hashed) -> Take {
        let removed = self.map.translate(source.offset) < self.target_start;
        let known = self.map.has(source.offset);
        // What is in no run was left out, since it came from the target, or its run is not known any more.
        let left_out = !known && (self.allowed.shared || self.map.is_thinned());
        if removed || left_out || self.allowed.compacted {
            self.passed_over += 1;
        } else {
            self.difference = Some(Difference::Missing { source: source.offset.get() });
        }
        Take::Source
    }

    /// Ends the last range.
    pub(super) fn close(&mut self) {
        let Some((from, to, records, hash)) = self.open.take() else { return };
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.ranges.push(Range { from: from.get(), to: to.get(), records, hash });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Run;

    fn record(offset: i64, says: u8) -> Hashed {
        Hashed { offset: Offset::new(offset), hash: [says; 32] }
    }

    /// Source offsets 10..14 are 100..104 of the target, and 20..23 are 106..109.
    fn map() -> OffsetMap {
        let mut map = OffsetMap::new(Offset::new(10), Offset::new(100));
        for (source, target, count) in [(10, 100, 4), (20, 106, 3)] {
            map.push(Run { source: Offset::new(source), target: Offset::new(target), count }).unwrap();
        }
        map
    }

    fn compared(allowed: Allowed, start: i64, source: &[Hashed], target: &[Hashed]) -> Compare {
        let mut compare = Compare::new(map(), allowed, Offset::new(start));
        let (mut source, mut target) = (source.iter().peekable(), target.iter().peekable());
        while let Some(take) = compare.step(source.peek().copied(), target.peek().copied()) {
            if take != Take::Target {
                source.next();
            }
            if take != Take::Source {
                target.next();
            }
        }
        compare.close();
        compare
    }

    fn all() -> (Vec<Hashed>, Vec<Hashed>) {
        let pairs = [(10, 100), (11, 101), (12, 102), (13, 103), (20, 106), (21, 107), (22, 108)];
        let of = |(at, (source, target)): (usize, &(i64, i64))| {
            (record(*source, at as u8), record(*target, at as u8))
        };
        pairs.iter().enumerate().map(of).unzip()
    }

    #[test]
    fn what_is_equal_is_equal() {
        let (source, target) = all();
        let found = compared(Allowed::default(), 100, &source, &target);
        assert_eq!((found.records, found.passed_over, found.difference), (7, 0, None));
        assert_eq!((found.ranges.len(), found.ranges[0].from, found.ranges[0].to), (1, 10, 22));
        let other = compared(Allowed::default(), 100, &source[1..], &target[1..]);
        assert_ne!(other.ranges[0].hash, found.ranges[0].hash);
    }

    #[test]
    fn the_first_difference_is_told() {
        let (source, target) = all();
        for at in 0..source.len() {
            let mut wrong = target.clone();
            wrong[at].hash = [99; 32];
            let difference = compared(Allowed::default(), 100, &source, &wrong).difference;
            let (source_at, target_at) = (source[at].offset.get(), target[at].offset.get());
            assert_eq!(difference, Some(Difference::Other { source: source_at, target: target_at }));
            let mut gone = target.clone();
            gone.remove(at);
            let found = compared(Allowed::default(), 100, &source, &gone);
            assert_eq!(found.difference, Some(Difference::Missing { source: source_at }));
            // Compaction may have taken it.
            let allowed = Allowed { compacted: true, shared: false };
            let found = compared(allowed, 100, &source, &gone);
            assert_eq!((found.records, found.passed_over, found.difference), (6, 1, None));
            // The source's retention may have taken it.
            let mut gone = source.clone();
            gone.remove(at);
            let found = compared(Allowed::default(), 100, &gone, &target);
            assert_eq!((found.records, found.passed_over, found.difference), (6, 1, None));
        }
    }

    #[test]
    fn what_the_target_has_removed_is_not_missing() {
        let (source, target) = all();
        let found = compared(Allowed::default(), 102, &source, &target[2..]);
        assert_eq!((found.records, found.passed_over, found.difference), (5, 2, None));
    }

    #[test]
    fn what_is_none_of_the_sources_is_told_where_nobody_else_writes() {
        let (source, mut target) = all();
        target.insert(4, record(104, 7));
        let found = compared(Allowed::default(), 100, &source, &target);
        assert_eq!(found.difference, Some(Difference::Foreign { target: 104 }));
        let shared = Allowed { compacted: false, shared: true };
        // And what came from the target is not expected there.
        let mut more = source;
        more.insert(4, record(15, 8));
        let found = compared(shared, 100, &more, &target);
        assert_eq!((found.records, found.passed_over, found.difference), (7, 2, None));
    }
}
