//! A position as bytes: `version (1) · lanes · runs`, numbers as LEB128.

use towpath_types::{Offset, ProducerEpoch, ProducerId};

use super::{Begun, Lane, Position};
use crate::bytes::{DecodeError, Reader, put};

const VERSION: u8 = 1;
/// Lanes are told by one byte.
const LANES_MAX: usize = 256;
/// As many runs as the smallest records of a batch of a mebibyte could be (R10).
const RUNS_MAX: usize = 1 << 18;

impl Position {
    /// The position as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.lanes.len() * 8 + self.runs.len() * 8);
        out.push(VERSION);
        put(&mut out, self.lanes.len() as i64);
        for lane in &self.lanes {
            put(&mut out, lane.producer_id.get());
            put(&mut out, i64::from(lane.epoch.get()));
        }
        put(&mut out, self.runs.len() as i64);
        for run in &self.runs {
            out.push(run.lane);
            put(&mut out, run.sequence as i64);
            put(&mut out, run.source.get());
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        reader.version(VERSION)?;
        let mut position = Self::default();
        for _ in 0..reader.length(LANES_MAX)? {
            let producer_id = ProducerId::new(reader.number()?);
            let epoch =
                i16::try_from(reader.number()?).map_err(|_| DecodeError::Damaged("an epoch is too large"))?;
            position.lanes.push(Lane { producer_id, epoch: ProducerEpoch::new(epoch) });
        }
        for _ in 0..reader.length(RUNS_MAX)? {
            let lane = reader.byte()?;
            let sequence = reader.number()? as u64;
            let begun = Begun { lane, sequence, source: Offset::new(reader.number()?) };
            let last = position.runs.iter().rev().find(|run| run.lane == lane);
            let goes_back = last.is_some_and(|last| last.sequence >= sequence)
                || position.runs.last().is_some_and(|last| last.source >= begun.source);
            if usize::from(lane) >= position.lanes.len() || goes_back {
                return Err(DecodeError::Damaged("its runs are out of order"));
            }
            position.runs.push(begun);
        }
        reader.end()?;
        Ok(position)
    }
}
