//! One partition's way to the target, as a pure machine: what was fetched goes in, what is to be stored and sent comes
//! out.
//!
//! Batches go to the target under a producer id that stays with the link, idempotent and outside of transactions: every
//! reader sees each of them once, at once. A producer's sequence numbers count its records, so that they say how far the
//! copy has come, if it is known which record of the source the first of them was. That is the [`Position`]: runs of
//! consecutive records, each from a sequence number and an offset of the source on. **A run is stored before its first
//! record is sent** (R4); where the source has no gaps nothing has to be stored for as long as one likes. After a crash
//! the target's own log says which record was the last ([`recover`]), and nothing is copied twice or left out.

mod encoding;
mod recover;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use towpath_types::{Offset, ProducerEpoch, ProducerId};

use crate::map::{OffsetMap, Run};
use crate::translate::{Copy, Piece};

pub use recover::{RecoverError, Recovered, Seen, recover};

/// Batches of one partition that are on their way at a time: what a broker recognises again (Kafka remembers the last
/// five of a producer).
pub const IN_FLIGHT_MAX: usize = 5;
/// Runs that gather before the map is stored, and the runs that it has are forgotten.
const RUNS_SINCE_MAP_MAX: usize = 256;
/// Runs of one position, but for those of a single batch (R10).
const RUNS_MAX: usize = 1024;

/// As whom records of one origin are written to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch: one for each start of the link (R6).
    pub epoch: ProducerEpoch,
}

/// A run of consecutive records of the source that one lane takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Which lane.
    pub lane: u8,
    /// How many records the lane had sent before (its sequence number, not wrapped).
    pub sequence: u64,
    /// The first record's offset at the source.
    pub source: Offset,
}

/// What has to be known of a partition after a crash, beside its map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The lanes, by number.
    pub lanes: Vec<Lane>,
    /// The runs since the map was stored, in the source's order, and the last one of before.
    pub runs: Vec<Begun>,
}

/// A batch to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// What [`Flow::acked`] and [`Flow::failed`] are told.
    pub ticket: u64,
    /// As whom.
    pub lane: Lane,
    /// The sequence number of its first record.
    pub base_sequence: i32,
    /// The batch, but for the producer's fields.
    pub bytes: Bytes,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Command {
    /// Store the map durably, then tell [`Flow::stored`] the number.
    StoreMap(u64, OffsetMap),
    /// Store the position durably, then tell [`Flow::stored`] the number.
    StorePosition(u64, Position),
    /// Send a batch, on the same connection and after those before it.
    Send(Outgoing),
}

/// Something happened that the machine rules out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The target gave an offset that is not after those before.
    #[error("the target put a batch at offset {given}, and the one before ended at {after}")]
    Target {
        /// What it gave.
        given: Offset,
        /// What was next.
        after: Offset,
    },
    /// An answer to nothing.
    #[error("an answer to a batch that was not sent ({0})")]
    Ticket(u64),
}

/// What was fetched, and is to be sent.
#[derive(Debug)]
struct Fetched {
    copy: Copy,
    lane: u8,
    /// The source's offset below which everything is done with once this is.
    through: Offset,
}

/// The same with its place in a run.
#[derive(Debug)]
struct Item {
    ticket: u64,
    lane: u8,
    sequence: u64,
    copy: Copy,
    /// The position that has to be stored before this is sent.
    needs: u64,
    /// The source's offset below which everything is done with once this is.
    through: Offset,
    /// Where the target put it.
    base_offset: Option<Acked>,
}

#[derive(Debug, Clone, Copy)]
enum Acked {
    At(Offset),
    /// It was there already, and where is not known any more.
    Somewhere,
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Flow {
    lanes: Vec<(Lane, u64)>,
    map: OffsetMap,
    runs: VecDeque<Begun>,
    fetched: VecDeque<Fetched>,
    /// What has its run and was not sent yet, and what has to be sent again.
    waiting: VecDeque<Item>,
    /// What was sent, in order.
    flight: VecDeque<Item>,
    /// Answers that are still to come; after a failure nothing is sent before it is 0.
    unanswered: usize,
    failed: bool,
    /// The lane of which the target is known to have something, and to compare what comes with it. Kafka takes any
    /// sequence number of a producer that it knows nothing of: were the first batch lost on its way, the second would be
    /// taken in its place.
    proven: Option<u8>,
    bytes: usize,
    fetch_from: Offset,
    tickets: u64,
    /// Numbers of positions and maps: the newest, the newest one that was begun to be stored, and the newest stored.
    newest: u64,
    storing: Option<(u64, bool)>,
    stored: u64,
    /// Runs whose records were all acknowledged when the map was given out that is being stored.
    covered: usize,
    map_wanted: bool,
}

impl Flow {
    /// Begins at the end of `map`. Nothing is sent before the map and the position were stored.
    #[must_use]
    pub fn new(lanes: Vec<Lane>, map: OffsetMap) -> Self {
        let fetch_from = map.through();
        Self {
            lanes: lanes.into_iter().map(|lane| (lane, 0)).collect(),
            map,
            runs: VecDeque::new(),
            fetched: VecDeque::new(),
            waiting: VecDeque::new(),
            flight: VecDeque::new(),
            unanswered: 0,
            failed: false,
            proven: None,
            bytes: 0,
            fetch_from,
            tickets: 0,
            newest: 1,
            storing: None,
            stored: 0,
            covered: 0,
            map_wanted: true,
        }
    }

    /// The number of a lane, which is new if nothing was sent under that producer yet. `None` if there are too many.
    pub fn lane(&mut self, lane: Lane) -> Option<u8> {
        let known = self.lanes.iter().position(|(known, _)| known.producer_id == lane.producer_id);
        if known.is_none() && self.lanes.len() <= usize::from(u8::MAX) {
            self.lanes.push((lane, 0));
            return u8::try_from(self.lanes.len() - 1).ok();
        }
        known.and_then(|at| u8::try_from(at).ok())
    }

    /// The offset to fetch from.
    #[must_use]
    pub const fn fetch_from(&self) -> Offset {
        self.fetch_from
    }

    /// Bytes that were fetched and not acknowledged.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The map of what was acknowledged.
    #[must_use]
    pub const fn map(&self) -> &OffsetMap {
        &self.map
    }

    /// Whether nothing is on its way, or to be sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.fetched.is_empty() && self.waiting.is_empty() && self.flight.is_empty()
    }

    /// Asks for the map to be stored, so that a start finds less to look through.
    pub const fn want_map(&mut self) {
        self.map_wanted = true;
    }

    /// Takes what was fetched from [`Self::fetch_from`] on. `lane` says who takes a piece, `None` for those that are left
    /// out.
    pub fn fetched(&mut self, pieces: impl IntoIterator<Item = Piece>, lane: impl Fn(&Piece) -> Option<u8>) {
        for piece in pieces {
            let next = piece.next_offset;
            let chosen = lane(&piece);
            match (piece.copy, chosen) {
                (Some(copy), Some(lane)) if usize::from(lane) < self.lanes.len() => {
                    self.bytes += copy.bytes.len();
                    self.fetched.push_back(Fetched { copy, lane, through: next });
                }
                _ => self.left_out(next),
            }
            self.fetch_from = next;
        }
    }

    /// Nothing is sent of what is below `through` and was not queued: it is done with once what is before it is.
    fn left_out(&mut self, through: Offset) {
        let before = match self.fetched.back_mut() {
            Some(fetched) => Some(&mut fetched.through),
            None => self.waiting.back_mut().or_else(|| self.flight.back_mut()).map(|item| &mut item.through),
        };
        match before {
            Some(before) => *before = through,
            None => self.map.reach(through),
        }
    }

    /// Gives what was fetched its place in the runs, as far as there is room for them.
    fn assign(&mut self) {
        while let Some(fetched) = self.fetched.front() {
            let room = RUNS_MAX.saturating_sub(self.runs.len());
            if fetched.copy.offsets.len() > room && !(self.waiting.is_empty() && self.flight.is_empty()) {
                return;
            }
            let Some(Fetched { copy, lane, through }) = self.fetched.pop_front() else { return };
            let Some((_, next)) = self.lanes.get_mut(usize::from(lane)) else { return };
            let sequence = *next;
            *next += u64::from(copy.records());
            let mut at = sequence;
            for (source, count) in &copy.offsets {
                self.begin(Begun { lane, sequence: at, source: *source });
                at += u64::from(*count);
            }
            self.tickets += 1;
            let (ticket, needs) = (self.tickets, self.newest);
            self.waiting.push_back(Item { ticket, lane, sequence, copy, needs, through, base_offset: None });
        }
    }

    /// A run begins here, unless the last one goes on.
    fn begin(&mut self, begun: Begun) {
        let goes_on = self.runs.back().is_some_and(|run| {
            run.lane == begun.lane
                && begun.source.get() - run.source.get() == (begun.sequence - run.sequence) as i64
        });
        if goes_on {
            return;
        }
        self.runs.push_back(begun);
        // A position that is not being stored yet is stored with this run.
        let begun_to_store = self.storing.is_some_and(|(number, _)| number == self.newest);
        if begun_to_store || self.stored == self.newest {
            self.newest += 1;
        }
    }

    /// What is to be done next, if anything.
    pub fn next_command(&mut self) -> Option<Command> {
        self.assign();
        if self.storing.is_none() {
            let full = self.runs.len() > RUNS_SINCE_MAP_MAX && self.acknowledged_runs() > 0;
            if self.map_wanted || full {
                self.map_wanted = false;
                self.covered = self.acknowledged_runs();
                // The position is stored anew after it, without the runs that the map has.
                self.newest += u64::from(self.stored == self.newest);
                self.storing = Some((self.newest, true));
                return Some(Command::StoreMap(self.newest, self.map.clone()));
            }
            if self.stored < self.newest {
                self.storing = Some((self.newest, false));
                return Some(Command::StorePosition(self.newest, self.position()));
            }
        }
        self.send().map(Command::Send)
    }

    fn position(&self) -> Position {
        Position {
            lanes: self.lanes.iter().map(|(lane, _)| *lane).collect(),
            runs: self.runs.iter().copied().collect(),
        }
    }

    fn send(&mut self) -> Option<Outgoing> {
        if self.failed {
            return None;
        }
        let next = self.waiting.front()?;
        // One lane at a time: across two of them no sequence number would keep the order.
        let other_lane = self.flight.back().is_some_and(|before| before.lane != next.lane);
        let alone = self.proven != Some(next.lane) && !self.flight.is_empty();
        if next.needs > self.stored || self.flight.len() >= IN_FLIGHT_MAX || other_lane || alone {
            return None;
        }
        let item = self.waiting.pop_front()?;
        let outgoing = Outgoing {
            ticket: item.ticket,
            lane: self.lanes.get(usize::from(item.lane))?.0,
            base_sequence: (item.sequence & 0x7fff_ffff) as i32,
            bytes: item.copy.bytes.clone(),
        };
        self.flight.push_back(item);
        self.unanswered += 1;
        Some(outgoing)
    }

    /// The map or position of this number is durable.
    pub fn stored(&mut self, number: u64) {
        let Some((storing, map)) = self.storing.filter(|(storing, _)| *storing == number) else { return };
        self.storing = None;
        if map {
            self.runs.drain(..self.covered.min(self.runs.len()));
            self.covered = 0;
        } else {
            self.stored = storing;
        }
    }

    /// How many of the runs have nothing that is not acknowledged; the last one of them always stays, since records may
    /// follow in it.
    fn acknowledged_runs(&self) -> usize {
        let Some(first) = self.flight.front().or_else(|| self.waiting.front()) else {
            return self.runs.len().saturating_sub(1);
        };
        let open = |run: &Begun| run.lane == first.lane && run.sequence <= first.sequence;
        self.runs.iter().rposition(open).unwrap_or(0)
    }

    /// The target has a batch, at this offset; `None` if it had it before and does not say where. Returns the bytes that are
    /// done with now.
    ///
    /// # Errors
    /// [`FlowError`]: nothing may be sent any more; see [`recover`].
    pub fn acked(&mut self, ticket: u64, base_offset: Option<Offset>) -> Result<usize, FlowError> {
        self.answered(ticket)?;
        let before = self.bytes;
        if let Some(item) = self.flight.iter_mut().find(|item| item.ticket == ticket) {
            item.base_offset = Some(base_offset.map_or(Acked::Somewhere, Acked::At));
        }
        while let Some(acked) = self.flight.front().and_then(|item| item.base_offset) {
            let Some(item) = self.flight.pop_front() else { break };
            self.bytes -= item.copy.bytes.len();
            match acked {
                Acked::At(base) => self.note(&item, base)?,
                Acked::Somewhere => self.map.lose_sight(),
            }
            self.proven = Some(item.lane);
            self.map.reach(item.through);
        }
        self.settle();
        if self.is_idle() {
            // Who is silent for long is forgotten.
            self.proven = None;
        }
        Ok(before - self.bytes)
    }

    /// Whether a batch is the first of those that are not acknowledged: nothing before it can be why it was refused.
    #[must_use]
    pub fn is_first(&self, ticket: u64) -> bool {
        self.flight.front().is_some_and(|item| item.ticket == ticket)
    }

    fn note(&mut self, item: &Item, base: Offset) -> Result<(), FlowError> {
        let after = self.map.target_end();
        let mut target = base;
        for (source, count) in &item.copy.offsets {
            let run = Run { source: *source, target, count: u64::from(*count) };
            self.map.push(run).map_err(|_| FlowError::Target { given: base, after })?;
            target = Offset::new(target.get() + i64::from(*count));
        }
        Ok(())
    }

    /// A batch was refused, or its answer is lost: it is sent again, in its place, once all others are answered.
    ///
    /// # Errors
    /// [`FlowError::Ticket`].
    pub fn failed(&mut self, ticket: u64) -> Result<(), FlowError> {
        self.answered(ticket)?;
        self.failed = true;
        self.settle();
        Ok(())
    }

    fn answered(&mut self, ticket: u64) -> Result<(), FlowError> {
        if self.unanswered == 0 || !self.flight.iter().any(|item| item.ticket == ticket) {
            return Err(FlowError::Ticket(ticket));
        }
        self.unanswered -= 1;
        Ok(())
    }

    /// After a failure: what was not acknowledged waits again, in order. Whatever was acknowledged behind it is sent again
    /// with it, and recognised.
    fn settle(&mut self) {
        if !self.failed || self.unanswered > 0 {
            return;
        }
        (self.failed, self.proven) = (false, None);
        while let Some(mut item) = self.flight.pop_back() {
            item.base_offset = None;
            self.waiting.push_front(item);
        }
    }
}
