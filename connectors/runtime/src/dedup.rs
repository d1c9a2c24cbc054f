//! What a restarted task has already written (data-semantics §1: no duplicates after a crash, without transactions).
//!
//! Every record with a position carries it in a header, with the task's hash. Before a task writes to a target
//! partition for the first time it reads that partition from where its stored offsets cover it to the end, and notes
//! the highest position of each lane. The source replays; what lies at or below that is dropped. In a partition the
//! records of a lane are in the lane's order, so what is there is a prefix of what is replayed.
//!
//! A task may end again before all lanes are replayed, while others have gone on and moved the partition's stored offset
//! beyond that tail. So the lanes that are not replayed yet are stored with the offset.

use sha2::{Digest, Sha256};
use towpath_api::ConnectorError;
use towpath_client::Client;
use towpath_formats::header;
use towpath_types::{Offset, TopicPartition};

use crate::offsets::{Lanes, TargetOffset};
use crate::reader::read_to_end;
use crate::topics::TopicInfo;

/// Lanes of one partition: a tail holds what was in flight when the task ended, so there are few.
const LANES_MAX: usize = 100_000;

/// The identity of a task in the position headers: the first 8 bytes of SHA-256 over pipeline and number.
pub(crate) fn task_hash(pipeline: &str, task: u32) -> [u8; 8] {
    let digest = Sha256::digest(format!("{pipeline}/{task}"));
    let mut hash = [0; 8];
    hash.copy_from_slice(&digest[..8]);
    hash
}

/// The positions that a partition's tail holds already.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    lanes: Lanes,
}

impl Seen {
    /// Reads the tail of a target partition.
    pub(crate) async fn read(
        client: &Client,
        partition: &TopicPartition,
        info: TopicInfo,
        covered: Option<&TargetOffset>,
        task: [u8; 8],
    ) -> Result<Self, ConnectorError> {
        // Another topic of the same name holds nothing of ours that is covered.
        let covered = covered.filter(|covered| covered.id == info.id);
        let from = covered.map(|covered| covered.next);
        let mut seen = Self { lanes: covered.map(|covered| covered.ahead.clone()).unwrap_or_default() };
        let extent = read_to_end(client, partition, from, |record| {
            let value = record.headers.last(header::POSITION).flatten();
            match header::position(value) {
                Some((hash, lane, position)) if hash == task => seen.note(lane, position),
                _ => Ok(()),
            }
        })
        .await?;
        let lanes = seen.lanes.len();
        let from = from.unwrap_or(Offset::ZERO);
        tracing::debug!(%partition, %from, end = %extent.end, lanes, "read the tail of a target partition");
        Ok(seen)
    }

    fn note(&mut self, lane: u64, position: &[u8]) -> Result<(), ConnectorError> {
        if self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(&lane) {
            let message = format!("the tail of a target partition holds more than {LANES_MAX} lanes");
            return Err(ConnectorError::bug("DEDUP_LANES", message));
        }
        let highest = self.lanes.entry(lane).or_default();
        if highest.as_slice() < position {
            highest.clear();
            highest.extend_from_slice(position);
        }
        Ok(())
    }

    /// Whether the partition holds the record at this position already. Positions of a lane come in order: once one
    /// is at the end of the tail, or beyond, the lane is done with.
    pub(crate) fn holds(&mut self, lane: u64, position: &[u8]) -> bool {
        if self.lanes.is_empty() {
            return false;
        }
        let Some(highest) = self.lanes.get(&lane) else { return false };
        let order = position.cmp(highest.as_slice());
        if order.is_ge() {
            self.lanes.remove(&lane);
        }
        order.is_le()
    }

    /// The lanes that the source has not replayed to their ends.
    pub(crate) const fn ahead(&self) -> &Lanes {
        &self.lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_dropped_up_to_its_highest_position() {
        let mut seen = Seen::default();
        for (lane, position) in [(1, b"b"), (1, b"d"), (1, b"c"), (2, b"a")] {
            seen.note(lane, position).unwrap();
        }
        assert!(seen.holds(1, b"a") && seen.holds(1, b"b"));
        assert!(!seen.holds(3, b"a"), "another lane is not touched");
        assert_eq!(seen.ahead().len(), 2, "neither is at its end");
        assert!(seen.holds(1, b"d") && !seen.holds(1, b"e"));
        assert!(!seen.holds(2, b"b"), "what was at the end need not come again");
        assert!(seen.ahead().is_empty(), "nothing is looked up any more");
    }

    #[test]
    fn tasks_are_told_apart() {
        assert_ne!(task_hash("a", 1), task_hash("a", 2));
        assert_ne!(task_hash("a", 11), task_hash("a1", 1));
    }
}
