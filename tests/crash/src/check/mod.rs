//! The checker: what a history of clients proves about the cluster they talked to, after Jepsen's analyses of Kafka
//! (https://jepsen.io/analyses/redpanda-21.10.1). Nothing is assumed of the cluster but that it has no transactions or
//! compaction in the topic, so that its offsets have no holes.

mod consumers;
mod log;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::history::{History, Op, Value};
use log::Logs;
pub use report::{Kind, Report};

/// What a producer was told of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// When it was handed to the client.
    sent: u64,
    /// When it was acknowledged, and where it is.
    acked: Option<(u64, i32, i64)>,
    /// It failed for certain.
    failed: bool,
}

/// All records that were sent.
pub(crate) type Sends = HashMap<Value, Sent>;

/// Checks a history.
#[must_use]
pub fn check(history: &History) -> Report {
    let mut report = Report::default();
    let sends = sends(history, &mut report);
    let logs = Logs::collect(history, &mut report);
    if logs.is_empty() {
        report.add(Kind::NoEnd, || "no partition's end was read".to_owned());
        return report;
    }
    let strict = strict(history);
    report.count("producers held to once and in order", strict.len() as u64);
    let places = logs.places(&strict, &mut report);
    acknowledged(&sends, &logs, &places, &mut report);
    phantoms(&sends, &places, &mut report);
    logs.order(&sends, &strict, &mut report);
    consumers::positions(history, &mut report);
    consumers::contents(history, &logs, &places, &mut report);
    consumers::group(history, &logs, &mut report);
    progress(history, &mut report);
    report
}

fn sends(history: &History, report: &mut Report) -> Sends {
    let mut sends = Sends::new();
    for event in history.events() {
        match &event.op {
            Op::Send { producer, seq } => {
                report.count("sent", 1);
                sends.entry(value(*producer, *seq)).or_default().sent = event.t;
            }
            Op::Ack { producer, seq, partition, offset } => {
                report.count("acknowledged", 1);
                sends.entry(value(*producer, *seq)).or_default().acked = Some((event.t, *partition, *offset));
            }
            Op::Fail { producer, seq, definite, .. } => {
                report.count(if *definite { "failed for certain" } else { "failed, perhaps" }, 1);
                sends.entry(value(*producer, *seq)).or_default().failed = *definite;
            }
            Op::Bump { .. } => report.count("new producer epochs", 1),
            Op::Nemesis { .. } => report.count("acts of the nemesis", 1),
            Op::Assign { who, .. } if who.starts_with('g') => report.count("assignments in the group", 1),
            Op::CommitFailed { .. } => report.count("commits that failed, perhaps", 1),
            _ => {}
        }
    }
    sends
}

fn value(producer: i64, seq: i64) -> Value {
    Value { producer, seq }
}

/// The producers whose records must be there once and in order: idempotent ones that never took a new epoch. When
/// librdkafka does that (a record ran out of time; an answer within a pipeline that it did not expect), it sends what was
/// under way again with new sequence numbers, and no broker can know that it has those records already (librdkafka's
/// issue 4953; seen here with Apache Kafka).
fn strict(history: &History) -> HashSet<i64> {
    let mut strict: HashSet<i64> = HashSet::new();
    for event in history.events() {
        if let Op::Producer { producer, idempotent: true } = event.op {
            strict.insert(producer);
        }
    }
    for event in history.events() {
        if let Op::Fail { producer, definite: false, .. } | Op::Bump { producer, .. } = event.op {
            strict.remove(&producer);
        }
    }
    strict
}

/// Every acknowledged record is where the acknowledgement said.
fn acknowledged(sends: &Sends, logs: &Logs, places: &HashMap<Value, (i32, i64)>, report: &mut Report) {
    for (value, sent) in sends {
        let Some((_, partition, offset)) = sent.acked else { continue };
        let place = places.get(value);
        // The client may be told of a success without a place, by a broker that remembers no more.
        if offset < 0 {
            if place.is_none() {
                report.add(Kind::Lost, || format!("{value:?} acknowledged, offset unknown"));
            }
            continue;
        }
        let there = logs.at(partition, offset);
        if there.is_some_and(|record| record.value == *value) {
            continue;
        }
        let text = || {
            format!(
                "{value:?} acknowledged at {partition}@{offset}, found at {place:?}; there is {:?}",
                there.map(|r| r.value)
            )
        };
        if there.is_some() {
            report.add(Kind::InconsistentOffset, text);
        }
        match place {
            Some(_) => report.add(Kind::Duplicate, text),
            None if offset >= logs.end(partition) => report.add(Kind::Unseen, text),
            None => report.add(Kind::Lost, text),
        }
    }
}

/// Everything that is there was sent, and did not fail for certain.
fn phantoms(sends: &Sends, places: &HashMap<Value, (i32, i64)>, report: &mut Report) {
    for (value, place) in places {
        match sends.get(value) {
            Some(sent) if sent.failed => {
                report.add(Kind::Phantom, || {
                    format!("{value:?} at {place:?}, whose send had failed for certain")
                });
            }
            Some(_) => {}
            None => report.add(Kind::Phantom, || format!("{value:?} at {place:?}, which nobody sent")),
        }
    }
}

/// Producers go on after the faults, and end with every record answered.
fn progress(history: &History, report: &mut Report) {
    let healed = history.events().find(|event| event.op == Op::Healed).map(|event| event.t);
    let mut last_ack: HashMap<i64, u64> = HashMap::new();
    let mut acks = Vec::new();
    for event in history.events() {
        if let Op::Ack { producer, .. } = event.op {
            let last = last_ack.entry(producer).or_default();
            *last = event.t.max(*last);
            acks.push(event.t);
        }
    }
    for event in history.events() {
        match &event.op {
            Op::Producer { producer, .. } => {
                let last = last_ack.get(producer).copied().unwrap_or_default();
                if last <= healed.unwrap_or_default() {
                    report
                        .add(Kind::NoProgress, || format!("producer {producer} had no ack after the faults"));
                }
            }
            Op::ProducerEnd { producer, unanswered, fatal } if *unanswered > 0 || *fatal => {
                report.add(Kind::NoProgress, || {
                    format!("producer {producer} ended with {unanswered} unanswered, fatal: {fatal}")
                });
            }
            Op::Error { who, code, fatal: true } => {
                report.add(Kind::ClientEnded, || format!("{who} ended by itself: {code}"));
            }
            _ => {}
        }
    }
    acks.sort_unstable();
    let gap = acks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    report.count("longest time without an acknowledgement, ms", gap / 1_000_000);
}
