//! After a start: how far the copy has come, from what was stored and from what the target has.

use towpath_types::{Offset, ProducerEpoch, ProducerId};

use super::{Begun, Position};
use crate::map::{OffsetMap, Run};

/// A batch at the target, of any producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Who wrote it.
    pub producer_id: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// The sequence number of its first record.
    pub base_sequence: i32,
    /// How many records.
    pub count: u32,
    /// Where it begins.
    pub base_offset: Offset,
}

/// What [`recover`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The map of everything that is at the target; copying goes on at its [`OffsetMap::through`].
    pub map: OffsetMap,
    /// Records that were acknowledged and that the target has lost (its own fault): they are copied again.
    pub lost: u64,
}

/// The target has what nothing that was stored explains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A batch of one of the link's producers that no run begins before.
    #[error(
        "offset {} of the target has records of this link's producer {} that its position does not know: was the \
         position's topic restored from an older copy?",
        seen.base_offset, seen.producer_id
    )]
    Unknown {
        /// The batch.
        seen: Seen,
    },
    /// Some before it are missing.
    #[error(
        "offset {} of the target has records of this link before which {missing} are missing: delete the target's topic \
         to mirror it from its beginning",
        seen.base_offset
    )]
    Gap {
        /// The batch.
        seen: Seen,
        /// How many records.
        missing: u64,
    },
    /// A batch that would come before what the map has.
    #[error("offset {} of the target has records of this link that do not follow those before", seen.base_offset)]
    Order {
        /// The batch.
        seen: Seen,
    },
}

/// Goes through what the target has from the map's end on, up to the marker that fences earlier writers (R6).
///
/// `target_end` is where the target's log ends: where that is before the map's end, the target has lost what it had
/// acknowledged. `whole` says that the target cannot have removed anything in between, by retention or compaction: then
/// what is missing there was lost (R7).
///
/// # Errors
/// [`RecoverError`].
pub fn recover(
    mut map: OffsetMap,
    position: &Position,
    seen: impl IntoIterator<Item = Seen>,
    target_end: Offset,
    whole: bool,
) -> Result<Recovered, RecoverError> {
    let lost = map.cut(target_end);
    let mut next: Vec<u64> =
        (0..position.lanes.len()).map(|lane| sent(position, lane, map.through())).collect();
    let mut cursor = Cursor { runs: &position.runs, at: None };
    for seen in seen {
        let lane = position.lanes.iter().position(|lane| {
            lane.producer_id == seen.producer_id && lane.epoch == seen.epoch && seen.base_sequence >= 0
        });
        let Some((lane, next)) = lane.and_then(|lane| Some((lane, next.get_mut(lane)?))) else { continue };
        let first = cursor.take(seen, lane as u8, &mut map)?;
        if whole && first > *next {
            return Err(RecoverError::Gap { seen, missing: first - *next });
        }
        *next = first + u64::from(seen.count);
    }
    Ok(Recovered { map, lost })
}

/// How many records a lane had sent of what is below `through`.
fn sent(position: &Position, lane: usize, through: Offset) -> u64 {
    let runs = || position.runs.iter().filter(|run| usize::from(run.lane) == lane);
    let before = runs().take_while(|run| run.source < through).last();
    let after = runs().find(|run| run.source >= through).map(|run| run.sequence);
    match before {
        // Between runs is nothing of it.
        Some(run) => {
            let inside = run.sequence + (through.get() - run.source.get()).unsigned_abs();
            after.map_or(inside, |after| after.min(inside))
        }
        None => after.unwrap_or(0),
    }
}

/// Where among the runs the last batch ended.
struct Cursor<'a> {
    runs: &'a [Begun],
    /// The run, and the lane's records up to the end of the batch.
    at: Option<(usize, u64)>,
}

impl Cursor<'_> {
    /// Adds a batch to the map; returns the number of its first record, not wrapped.
    fn take(&mut self, seen: Seen, lane: u8, map: &mut OffsetMap) -> Result<u64, RecoverError> {
        let (mut index, first) = self.find(seen, lane)?;
        let mut sequence = first;
        let mut target = seen.base_offset;
        let mut left = u64::from(seen.count);
        while left > 0 {
            let run = self.runs[index];
            let next = self.next_of(index, lane);
            let room = next.map_or(u64::MAX, |next| self.runs[next].sequence - sequence);
            let count = left.min(room);
            let source = Offset::new(run.source.get() + (sequence - run.sequence) as i64);
            map.push(Run { source, target, count }).map_err(|_| RecoverError::Order { seen })?;
            sequence += count;
            target = Offset::new(target.get() + count as i64);
            left -= count;
            if let Some(next) = next.filter(|_| left > 0) {
                index = next;
            }
        }
        self.at = Some((index, sequence));
        Ok(first)
    }

    /// The lane's run after this one.
    fn next_of(&self, index: usize, lane: u8) -> Option<usize> {
        let later = self.runs.iter().enumerate().skip(index + 1);
        later.filter(|(_, run)| run.lane == lane).map(|(index, _)| index).next()
    }

    /// The run to which a batch's first record belongs, and its sequence number, not wrapped.
    fn find(&self, seen: Seen, lane: u8) -> Result<(usize, u64), RecoverError> {
        let from = self.at.map_or(0, |(index, _)| index);
        let wrapped = seen.base_sequence as u64;
        let candidates = self.runs.iter().enumerate().skip(from).filter(|(_, run)| run.lane == lane);
        let mut found = None;
        for (index, run) in candidates {
            // The first number from the run's on that is told like this one.
            let sequence = run.sequence + (wrapped.wrapping_sub(run.sequence) & 0x7fff_ffff);
            let end = self.next_of(index, lane).map(|next| self.runs[next].sequence);
            if end.is_none_or(|end| sequence < end) {
                found = Some((index, sequence));
                break;
            }
        }
        found.ok_or(RecoverError::Unknown { seen })
    }
}
