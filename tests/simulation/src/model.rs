//! What must hold of one partition: a copy of every replica's log, the committed history, and the comparison of both.
//!
//! The committed history is what leaders have said to be committed by their high watermarks, whoever they were. It only
//! grows. After an unclean election that was allowed it is what the new leader has, and from there it grows again.

use std::collections::BTreeMap;

use crate::fates::Fates;
use crate::records::{Entry, FOREIGN, HOLE, idempotent, key_of};
use crate::violation::{
    ACKNOWLEDGED, CANDIDATES, COMPACTION, Checked, IDEMPOTENCE, LOG_MATCHING, MONOTONE, OFFSETS, ONE_LEADER,
    RECOVERY, STABLE, VISIBLE, Violation,
};

/// A copy of one replica's log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mirror {
    pub(crate) start: i64,
    pub(crate) entries: Vec<Entry>,
    /// Up to here it was compared with the committed history.
    agreed: i64,
    /// The high watermark that was seen last in this life of the process.
    high_watermark: i64,
    /// The epoch in which it led when it was looked at last.
    led: Option<i32>,
    /// All below was durable when that was looked at last.
    pub(crate) durable: i64,
}

impl Mirror {
    pub(crate) fn end(&self) -> i64 {
        self.start + self.entries.len() as i64
    }

    fn at(&self, offset: i64) -> Option<Entry> {
        usize::try_from(offset - self.start).ok().and_then(|index| self.entries.get(index)).copied()
    }
}

/// How a process had ended before its log was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All that was written is there.
    Kept,
    /// What was durable is there.
    Lost,
}

/// What a replica says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) leads: bool,
    pub(crate) epoch: i32,
    pub(crate) high_watermark: i64,
    /// The last stable offset.
    pub(crate) stable: i64,
}

/// One partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionModel {
    /// By node.
    mirrors: BTreeMap<usize, Mirror>,
    /// The committed history, from offset 0 on.
    canon: Vec<Entry>,
    /// Which records were ever written at an offset: the epoch, the id, and the epoch of the record before.
    written: Vec<Vec<(Entry, i32)>>,
    leaders: BTreeMap<i32, usize>,
    /// What was acknowledged, by offset.
    acknowledged: BTreeMap<i64, u64>,
    /// The last number of each idempotent producer in the committed history, and its offset.
    numbers: BTreeMap<u64, (u64, i64)>,
    /// DeleteRecords went up to here.
    pub(crate) deleted_to: i64,
    /// An unclean election was allowed, and its leader has not been seen yet.
    reset_from: Option<i32>,
    /// The leader epoch from which on leaders say what is committed: those before have another history.
    history_from: i32,
    /// There was one; who has not heard of it may tell of other times.
    pub(crate) was_reset: bool,
    /// Logs may have holes.
    is_compacted: bool,
    /// What became of the transactions in the committed history.
    pub(crate) fates: Fates,
}

impl PartitionModel {
    pub(crate) fn new(is_compacted: bool) -> Self {
        Self { is_compacted, ..Self::default() }
    }

    /// Whether what is found is what is expected, or a hole where there may be one.
    fn is_same(&self, found: Option<Entry>, expected: Option<Entry>) -> bool {
        let is_hole = |entry| entry == Some(HOLE);
        found == expected || (self.is_compacted && (is_hole(found) || is_hole(expected)))
    }

    pub(crate) fn committed_end(&self) -> i64 {
        self.canon.len() as i64
    }

    pub(crate) fn mirror(&self, node: usize) -> Option<&Mirror> {
        self.mirrors.get(&node)
    }

    /// Whether an unclean election makes comparisons with the committed history impossible for now.
    pub(crate) const fn is_unsettled(&self) -> bool {
        self.reset_from.is_some()
    }

    /// The end of what is acknowledged.
    pub(crate) fn acknowledged_end(&self) -> i64 {
        self.acknowledged.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// How much of what is committed a node's log holds.
    pub(crate) fn holds(&mut self, node: usize) -> i64 {
        let (end, is_compacted) = (self.committed_end(), self.is_compacted);
        let Some(mirror) = self.mirrors.get_mut(&node) else { return 0 };
        // What is deleted need not agree: a follower may keep a diverging record there, and nobody sees it.
        let deleted = self.deleted_to.min(mirror.end());
        mirror.agreed = mirror.agreed.max(mirror.start).max(deleted).min(end);
        while mirror.agreed < end
            && mirror.at(mirror.agreed).is_some_and(|entry| {
                // The committed history has holes, too, once a leader was elected uncleanly that had compacted it.
                let committed = self.canon[mirror.agreed as usize];
                entry == committed || (is_compacted && (entry == HOLE || committed == HOLE))
            })
        {
            mirror.agreed += 1;
        }
        mirror.agreed
    }

    fn note_written(&mut self, node: usize, offset: i64, entry: Entry, before: Option<i32>) -> Checked {
        let Ok(index) = usize::try_from(offset) else { return Ok(()) };
        if entry == HOLE {
            return Ok(());
        }
        if self.written.len() <= index {
            self.written.resize(index + 1, Vec::new());
        }
        let known = self.written[index].iter_mut().find(|(known, _)| known.epoch == entry.epoch);
        match known {
            None => self.written[index].push((entry, before.unwrap_or(i32::MIN))),
            Some((known, _)) if known.id != entry.id => {
                return Err(Violation::new(
                    LOG_MATCHING,
                    format!("node {node} has {entry:?} at offset {offset}, another one {known:?}"),
                ));
            }
            Some((_, known)) => {
                if let Some(before) = before.filter(|_| offset > self.deleted_to) {
                    if *known == i32::MIN {
                        *known = before;
                    } else if *known != before {
                        let detail = format!(
                            "before {entry:?} at offset {offset} node {node} has a record of epoch {before}, \
                             another one of epoch {known}"
                        );
                        return Err(Violation::new(LOG_MATCHING, detail));
                    }
                }
            }
        }
        Ok(())
    }

    /// A replica appended.
    pub(crate) fn appended(&mut self, node: usize, entries: &[(i64, Entry)]) -> Checked {
        for (offset, entry) in entries {
            if self.is_compacted {
                self.fill(node, *offset);
            }
            let mirror = self.mirrors.entry(node).or_default();
            if *offset != mirror.end() {
                let detail = format!("node {node} appends offset {offset} where {} comes next", mirror.end());
                return Err(Violation::new(OFFSETS, detail));
            }
            let before = mirror.at(offset - 1).filter(|before| *before != HOLE).map(|before| before.epoch);
            // What is deleted may be of another history.
            if *offset > self.deleted_to && before.is_some_and(|before| before > entry.epoch) {
                let detail = format!("node {node} has epoch {} after {before:?} at {offset}", entry.epoch);
                return Err(Violation::new(LOG_MATCHING, detail));
            }
            mirror.entries.push(*entry);
            self.note_written(node, *offset, *entry, before)?;
        }
        Ok(())
    }

    /// A replica's log goes up to `end`; what is missing was compacted.
    pub(crate) fn fill(&mut self, node: usize, end: i64) {
        let mirror = self.mirrors.entry(node).or_default();
        let count = usize::try_from(end - mirror.start).unwrap_or(0);
        if self.is_compacted && mirror.entries.len() < count {
            mirror.entries.resize(count, HOLE);
        }
    }

    /// A replica cut its log.
    pub(crate) fn cut(&mut self, node: usize, end: i64) {
        let mirror = self.mirrors.entry(node).or_default();
        let keep = usize::try_from(end - mirror.start).unwrap_or(0);
        if end < mirror.start || end > mirror.end() {
            // Begun anew.
            *mirror =
                Mirror { start: end, agreed: end, high_watermark: end, durable: end, ..Mirror::default() };
            return;
        }
        mirror.entries.truncate(keep);
        mirror.agreed = mirror.agreed.min(end);
        mirror.durable = mirror.durable.min(end);
        if self.was_reset || self.reset_from.is_some() {
            mirror.high_watermark = mirror.high_watermark.min(end);
        }
    }

    /// A process opened its log again. Returns how many records are not there any more.
    pub(crate) fn reloaded(
        &mut self,
        node: usize,
        (start, entries): (i64, Vec<Entry>),
        ending: Ending,
    ) -> Checked<u64> {
        let before = self.mirrors.remove(&node).unwrap_or_default();
        let mut mirror = Mirror { start, entries, durable: start, ..Mirror::default() };
        let keeps = match ending {
            Ending::Kept => before.end(),
            Ending::Lost => before.durable,
        };
        if start > before.start.max(self.deleted_to) && start > 0 && keeps > before.start {
            let detail = format!(
                "node {node}'s log began at {} and begins at {start} after its restart",
                before.start
            );
            return Err(Violation::new(RECOVERY, detail));
        }
        // What is deleted may be another replica's by now.
        for offset in before.start.max(start).max(self.deleted_to)..before.end() {
            if offset < keeps && !self.is_same(mirror.at(offset), before.at(offset)) {
                let detail = format!(
                    "node {node} had {:?} at offset {offset}, durable up to {keeps}, and has {:?} after its restart",
                    before.at(offset),
                    mirror.at(offset)
                );
                return Err(Violation::new(RECOVERY, detail));
            }
        }
        if mirror.end() < keeps {
            let detail = format!("node {node} was durable up to {keeps} and ends at {}", mirror.end());
            return Err(Violation::new(RECOVERY, detail));
        }
        let lost = u64::try_from(before.end() - mirror.end()).unwrap_or(0);
        let mut prior = None;
        for (offset, entry) in (start..).zip(mirror.entries.clone()) {
            self.note_written(node, offset, entry, prior)?;
            prior = Some(entry.epoch).filter(|_| entry != HOLE);
        }
        mirror.agreed = start;
        self.mirrors.insert(node, mirror);
        Ok(lost)
    }

    /// A replica's files were removed.
    pub(crate) fn removed(&mut self, node: usize) {
        self.mirrors.remove(&node);
    }

    /// What is durable at a replica now.
    pub(crate) fn durable(&mut self, node: usize, end: i64) {
        if let Some(mirror) = self.mirrors.get_mut(&node) {
            mirror.durable = end.min(mirror.end());
        }
    }

    /// Looks at a replica. Returns how much has become committed.
    pub(crate) fn observe(&mut self, node: usize, seen: Seen) -> Checked<u64> {
        if seen.leads {
            let leader = *self.leaders.entry(seen.epoch).or_insert(node);
            if leader != node {
                let detail = format!("nodes {leader} and {node} lead in epoch {}", seen.epoch);
                return Err(Violation::new(ONE_LEADER, detail));
            }
            if let Some(from) = self.reset_from.filter(|from| seen.epoch >= *from) {
                self.history_from = from;
                self.reset_to(node);
            }
        }
        let Some(mirror) = self.mirrors.get_mut(&node) else { return Ok(0) };
        if seen.high_watermark < mirror.high_watermark && !self.was_reset && self.reset_from.is_none() {
            let detail =
                format!("node {node}'s goes from {} to {}", mirror.high_watermark, seen.high_watermark);
            return Err(Violation::new(MONOTONE, detail));
        }
        mirror.high_watermark = seen.high_watermark;
        let led = std::mem::replace(&mut mirror.led, seen.leads.then_some(seen.epoch));
        if self.reset_from.is_some() {
            return Ok(0);
        }
        // Who has just ceased to lead may have committed something in the same moment.
        let leads = seen.leads.then_some(seen.epoch);
        let counts = leads.max(led).is_some_and(|epoch| epoch >= self.history_from);
        let grown = if counts { self.commit(node, seen.high_watermark)? } else { 0 };
        if !self.was_reset && self.holds(node) < seen.high_watermark {
            let holds = self.holds(node);
            let detail = format!(
                "node {node} shows all before {} and shares with what is committed (up to {}) only what is before \
                 {holds}",
                seen.high_watermark,
                self.committed_end()
            );
            return Err(Violation::new(VISIBLE, detail));
        }
        self.check_stable(node, seen)?;
        Ok(grown)
    }

    /// R3: the last stable offset does not pass a transaction whose end is not below the high watermark.
    fn check_stable(&self, node: usize, seen: Seen) -> Checked {
        let Some(mirror) = self.mirrors.get(&node) else { return Ok(()) };
        // What is deleted or compacted nobody reads.
        let has = |offset| offset >= self.deleted_to && mirror.at(offset).is_some_and(|entry| entry != HOLE);
        let first = self.fates.first_undecided(seen.high_watermark, has);
        match first.filter(|first| seen.stable > *first && !self.was_reset) {
            None => Ok(()),
            Some(first) => {
                let detail = format!(
                    "node {node} says {} (high watermark {}), a transaction from {first} on is not decided",
                    seen.stable, seen.high_watermark
                );
                Err(Violation::new(STABLE, detail))
            }
        }
    }

    /// A leader said that all before `end` is committed.
    fn commit(&mut self, node: usize, end: i64) -> Checked<u64> {
        let first = self.committed_end();
        if end <= first {
            return Ok(0);
        }
        let Some(mirror) = self.mirrors.get(&node) else { return Ok(0) };
        let mut new = Vec::new();
        for offset in first..end {
            if self.was_reset && offset < mirror.start {
                // Deleted before it could be seen.
                new.push(Entry { epoch: -1, id: FOREIGN });
                continue;
            }
            let entry = mirror.at(offset).ok_or_else(|| {
                let detail = format!("leader {node} has committed offset {offset}, which it does not have");
                Violation::new(VISIBLE, detail)
            })?;
            new.push(entry);
        }
        for entry in new {
            self.number(entry.id, self.committed_end())?;
            self.fates.committed(self.canon.len() as i64, entry.id)?;
            self.canon.push(entry);
        }
        Ok((end - first) as u64)
    }

    /// Numbers of an idempotent producer come once and in order. As in Kafka, a replica that began its log anew after a
    /// DeleteRecords knows nothing of producers whose records are all deleted.
    fn number(&mut self, id: u64, offset: i64) -> Checked {
        let Some((producer, number)) = idempotent(id) else { return Ok(()) };
        if let Some((last, at)) = self.numbers.insert(producer, (number, offset))
            && last >= number
            && at >= self.deleted_to
        {
            let detail = format!("producer {producer}: record {number} is committed after {last}");
            return Err(Violation::new(IDEMPOTENCE, detail));
        }
        Ok(())
    }

    /// An unclean election was allowed: from this leader epoch on another history counts.
    pub(crate) fn allow_loss(&mut self, epoch: i32) {
        self.reset_from = Some(epoch);
    }

    fn reset_to(&mut self, node: usize) {
        self.reset_from = None;
        self.was_reset = true;
        self.fates.is_void = true;
        let kept = self.holds(node);
        self.canon.truncate(usize::try_from(kept).unwrap_or(0));
        if let Some(start) = self.mirrors.get(&node).map(|mirror| mirror.start).filter(|start| *start > kept)
        {
            // What is before the new leader's log was deleted before, and nobody can see it any more.
            let gone = Entry { epoch: -1, id: FOREIGN };
            self.canon.resize(usize::try_from(start).unwrap_or(0), gone);
            self.deleted_to = self.deleted_to.max(start);
        }
        self.acknowledged.split_off(&kept);
        self.numbers.clear();
        for (offset, entry) in (0..).zip(&self.canon) {
            if let Some((producer, number)) = idempotent(entry.id) {
                self.numbers.insert(producer, (number, offset));
            }
        }
        for mirror in self.mirrors.values_mut() {
            mirror.agreed = mirror.agreed.min(kept);
        }
    }

    /// Somebody was told that these records are safe.
    pub(crate) fn acknowledge(&mut self, epoch: i32, first: i64, ids: &[u64]) -> Checked {
        if self.is_unsettled() || epoch < self.history_from {
            return Ok(());
        }
        for (offset, id) in (first..).zip(ids) {
            if self.was_reset && offset < self.deleted_to {
                // Of what was deleted an unclean leader may have heard nothing.
                continue;
            }
            let committed = usize::try_from(offset).ok().and_then(|index| self.canon.get(index));
            if committed.is_none_or(|entry| entry.id != *id) {
                let detail =
                    format!("record {id:#x} at offset {offset} is acknowledged; {committed:?} is committed");
                return Err(Violation::new(ACKNOWLEDGED, detail));
            }
            self.acknowledged.insert(offset, *id);
        }
        Ok(())
    }

    /// A consumer read records.
    pub(crate) fn consumed(&self, node: usize, records: &[(i64, Entry)]) -> Checked {
        if self.is_unsettled() || self.was_reset {
            return Ok(());
        }
        for (offset, entry) in records {
            let committed = usize::try_from(*offset).ok().and_then(|index| self.canon.get(index));
            if committed != Some(entry) {
                let detail =
                    format!("node {node} gave {entry:?} at offset {offset}; {committed:?} is committed");
                return Err(Violation::new(VISIBLE, detail));
            }
        }
        Ok(())
    }

    /// A `read_committed` consumer read what is from `from` on before `end`, and takes these records out of it.
    pub(crate) fn consumed_stable(
        &self,
        node: usize,
        (from, end): (i64, i64),
        records: &[(i64, Entry)],
    ) -> Checked {
        self.consumed(node, records)?;
        if self.is_unsettled() || self.was_reset {
            return Ok(());
        }
        let mut taken = records.iter().peekable();
        for offset in from.max(self.deleted_to)..end {
            while taken.next_if(|(before, _)| *before < offset).is_some() {}
            let is_taken = taken.next_if(|(this, _)| *this == offset).is_some();
            let shall = self.fates.is_visible(offset);
            if is_taken != shall && (is_taken || !self.is_compacted) {
                let detail =
                    format!("node {node}: a reader of what is committed takes offset {offset}: {is_taken}");
                return Err(Violation::new(STABLE, detail));
            }
        }
        Ok(())
    }

    /// Of each key the newest record that counts is there.
    pub(crate) fn check_compacted(&self, node: usize, start: i64, found: &[Entry]) -> Checked {
        if !self.is_compacted || self.was_reset || self.is_unsettled() {
            return Ok(());
        }
        let mut newest = BTreeMap::new();
        for (offset, entry) in (0..).zip(&self.canon) {
            if offset >= start.max(self.deleted_to)
                && self.fates.is_visible(offset)
                && let Some(key) = key_of(entry.id)
            {
                newest.insert(key, (offset, *entry));
            }
        }
        for (key, (offset, entry)) in newest {
            let there = usize::try_from(offset - start).ok().and_then(|index| found.get(index));
            if there != Some(&entry) {
                let detail = format!(
                    "node {node}: of key {key} {entry:?} at {offset} is the newest; {there:?} is there"
                );
                return Err(Violation::new(COMPACTION, detail));
            }
        }
        Ok(())
    }

    /// Whether what is read from the disk is what was written there, from `start` on.
    pub(crate) fn is_content(&self, node: usize, start: i64, found: &[Entry]) -> bool {
        let Some(mirror) = self.mirrors.get(&node) else { return true };
        let skipped = usize::try_from(start - mirror.start).unwrap_or(0);
        mirror.entries.get(skipped..).is_some_and(|written| {
            written.len() == found.len()
                && found
                    .iter()
                    .zip(written)
                    .all(|(found, written)| self.is_same(Some(*found), Some(*written)))
        })
    }

    /// Whether a node has all that is committed.
    pub(crate) fn has_all(&mut self, node: usize) -> bool {
        self.holds(node) >= self.committed_end()
    }

    /// Whether a node that may lead without a loss has all that is committed.
    pub(crate) fn check_candidate(&mut self, node: usize, invariant: &'static str) -> Checked {
        if self.is_unsettled() {
            return Ok(());
        }
        let (holds, end) = (self.holds(node), self.committed_end());
        if self.was_reset && end <= self.deleted_to {
            // After an unclean election what was deleted before may lie past all that there is.
            return Ok(());
        }
        let start = self.mirrors.get(&node).map_or(0, |mirror| mirror.start);
        if holds < end || start > self.deleted_to {
            let detail = format!(
                "node {node} has only what is before {holds} of {end} committed records; its log goes from {start} to \
                 {}, records were deleted before {}",
                self.mirrors.get(&node).map_or(0, Mirror::end),
                self.deleted_to
            );
            return Err(Violation::new(invariant, detail));
        }
        Ok(())
    }

    /// At the end, with everything healed: all that was acknowledged can be read at this node.
    pub(crate) fn check_end(&mut self, node: usize) -> Checked {
        self.check_candidate(node, CANDIDATES)?;
        let Some(mirror) = self.mirrors.get(&node) else { return Ok(()) };
        for (offset, id) in self.acknowledged.range(mirror.start.max(self.deleted_to)..) {
            if mirror.at(*offset).is_none_or(|entry| entry.id != *id && !(self.is_compacted && entry == HOLE))
            {
                let detail = format!(
                    "node {node}: {id:#x} at {offset} was acknowledged; {:?} is there",
                    mirror.at(*offset)
                );
                return Err(Violation::new(ACKNOWLEDGED, detail));
            }
        }
        Ok(())
    }
}
