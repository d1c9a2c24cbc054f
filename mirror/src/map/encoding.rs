//! A map as bytes: what is kept in the compacted topic of a link.
//!
//! `version (1) · flags · begin (2) · through · runs`, numbers as LEB128; a run is told as how far each side has gone on
//! since the end of the one before, and its length.

use towpath_types::Offset;

use super::{OffsetMap, RUNS_MAX, Run};
use crate::bytes::{DecodeError, Reader, put};

const VERSION: u8 = 1;
const THINNED: u8 = 1;

impl OffsetMap {
    /// The map as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.runs.len() * 4);
        out.extend([VERSION, if self.thinned { THINNED } else { 0 }]);
        put(&mut out, self.begin.0.get());
        put(&mut out, self.begin.1.get());
        put(&mut out, self.through.get());
        put(&mut out, self.runs.len() as i64);
        let (mut source, mut target) = (self.begin.0.get(), self.begin.1.get());
        for run in &self.runs {
            put(&mut out, run.source.get() - source);
            put(&mut out, run.target.get() - target);
            put(&mut out, run.count as i64);
            (source, target) = (run.source_end(), run.target_end());
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
        let thinned = reader.byte()? & THINNED != 0;
        let mut map = Self::new(Offset::new(reader.number()?), Offset::new(reader.number()?));
        let through = Offset::new(reader.number()?);
        let (mut source, mut target) = (map.begin.0.get(), map.begin.1.get());
        let sum = |a: i64, b: i64| a.checked_add(b).ok_or(DecodeError::Damaged("its offsets are too large"));
        for _ in 0..reader.length(RUNS_MAX)? {
            source = sum(source, reader.number()?)?;
            target = sum(target, reader.number()?)?;
            let count = reader.number()?;
            let run = Run { source: Offset::new(source), target: Offset::new(target), count: count as u64 };
            (source, target) = (sum(source, count)?, sum(target, count)?);
            map.push(run).map_err(|_| DecodeError::Damaged("its runs are out of order"))?;
        }
        if through < map.through {
            return Err(DecodeError::Damaged("its runs are past its end"));
        }
        map.through = through;
        map.thinned = thinned;
        reader.end()?;
        Ok(map)
    }
}
