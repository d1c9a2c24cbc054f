//! The partitions as the last read found them, which everything else is compared with.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Kind, Report, Sends};
use crate::history::{History, Op, Polled, Value};

/// One partition.
#[derive(Debug, Default)]
struct Log {
    low: i64,
    high: i64,
    records: BTreeMap<i64, Polled>,
}

/// All partitions.
#[derive(Debug, Default)]
pub(super) struct Logs {
    partitions: BTreeMap<i32, Log>,
}

impl Logs {
    /// Takes what `final` polled; a hole in it is a finding.
    pub(super) fn collect(history: &History, report: &mut Report) -> Self {
        let mut logs = Self::default();
        for event in history.events() {
            match &event.op {
                Op::End { partition, low, high } => {
                    let log = logs.partitions.entry(*partition).or_default();
                    (log.low, log.high) = (*low, *high);
                }
                Op::Poll { who, records } if who == "final" => {
                    for record in records {
                        logs.insert(*record, report);
                    }
                }
                _ => {}
            }
        }
        for (partition, log) in &logs.partitions {
            report.count("records in the end", log.records.len() as u64);
            for hole in (log.low..log.high).filter(|offset| !log.records.contains_key(offset)) {
                report.add(Kind::PollSkip, || format!("the last read found nothing at {partition}@{hole}"));
            }
        }
        logs
    }

    fn insert(&mut self, record: Polled, report: &mut Report) {
        let log = self.partitions.entry(record.partition).or_default();
        if let Some(other) = log.records.insert(record.offset, record)
            && other != record
        {
            report.add(Kind::InconsistentOffset, || format!("{other:?} and {record:?} in one read"));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    pub(super) fn at(&self, partition: i32, offset: i64) -> Option<Polled> {
        self.partitions.get(&partition)?.records.get(&offset).copied()
    }

    /// The offset after the last; 0 for a partition that was not read.
    pub(super) fn end(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |log| log.high)
    }

    /// All records, partition by partition, in the order of their offsets.
    pub(super) fn records(&self) -> impl Iterator<Item = &Polled> {
        self.partitions.values().flat_map(|log| log.records.values())
    }

    /// Where each value is; the first place, if there are two, which `strict` producers' values may not have.
    pub(super) fn places(&self, strict: &HashSet<i64>, report: &mut Report) -> HashMap<Value, (i32, i64)> {
        let mut places = HashMap::new();
        for record in self.records() {
            let place = (record.partition, record.offset);
            if let Some(first) = places.get(&record.value) {
                if !strict.contains(&record.value.producer) {
                    report.count("duplicates by a new producer epoch", 1);
                    continue;
                }
                report.add(Kind::Duplicate, || format!("{:?} at {first:?} and {place:?}", record.value));
            } else {
                places.insert(record.value, place);
            }
        }
        places
    }

    /// The order of each producer's records, of epochs, and of what happened one after the other.
    pub(super) fn order(&self, sends: &Sends, strict: &HashSet<i64>, report: &mut Report) {
        for (partition, log) in &self.partitions {
            let mut last: HashMap<i64, i64> = HashMap::new();
            let mut epoch = -1;
            for record in log.records.values() {
                let Value { producer, seq } = record.value;
                let before = last.insert(producer, seq);
                if strict.contains(&producer) && before.is_some_and(|before| before > seq) {
                    report.add(Kind::Reordered, || {
                        format!(
                            "producer {producer}: {before:?} before {seq} at {partition}@{}",
                            record.offset
                        )
                    });
                }
                if record.epoch < epoch {
                    report.add(Kind::EpochOrder, || format!("epoch {epoch} before that of {record:?}"));
                }
                epoch = epoch.max(record.epoch);
            }
            realtime(*partition, log, sends, report);
        }
    }
}

/// From the end to the beginning: nothing was sent after something behind it had been acknowledged.
fn realtime(partition: i32, log: &Log, sends: &Sends, report: &mut Report) {
    let mut earliest: Option<(u64, i64)> = None;
    for (offset, record) in log.records.iter().rev() {
        let Some(sent) = sends.get(&record.value) else { continue };
        if let Some((acked, behind)) = earliest
            && acked < sent.sent
        {
            report.add(Kind::RealtimeOrder, || {
                format!("{partition}@{offset} was sent after the acknowledgement of {partition}@{behind}")
            });
        }
        // A copy somewhere else than acknowledged is a finding already.
        if let Some((acked, at, place)) = sent.acked
            && (at, place) == (partition, *offset)
            && earliest.is_none_or(|(time, _)| acked < time)
        {
            earliest = Some((acked, *offset));
        }
    }
}
