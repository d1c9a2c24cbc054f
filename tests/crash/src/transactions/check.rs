//! The checker of transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::history::{Event, History, Op, Polled};
use crate::check::{Kind, Report};

/// The topic whose records are no transactions' but requests for them.
const REQUESTS: &str = "requests";
/// The topic of the transfers.
const ACCOUNTS: &str = "accounts";

/// What is known of a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its commit was never asked for, or it was aborted.
    Never,
    /// Its commit was asked for, and nobody knows more.
    Perhaps,
    /// It is committed.
    Committed,
}

/// One transaction.
#[derive(Debug)]
struct Attempt<'a> {
    who: &'a str,
    fate: Fate,
    requests: &'a [(i32, i64)],
    writes: Vec<(&'a str, i32, u64)>,
    /// When its commit was asked for; `u64::MAX` for never.
    asked: u64,
    committed: u64,
}

/// A transactional id's owner for a time.
#[derive(Debug)]
struct Incarnation<'a> {
    id: &'a str,
    asked: u64,
    /// `u64::MAX` for never.
    ready: u64,
}

type Attempts<'a> = BTreeMap<&'a str, Attempt<'a>>;
/// A partition's records as the last read of what is committed found them.
type Logs<'a> = BTreeMap<(&'a str, i32), BTreeMap<i64, &'a Polled>>;

/// Checks a history.
#[must_use]
pub fn check(history: &History) -> Report {
    let mut report = Report::default();
    if !history.events().any(|event| event.op == Op::Over) {
        report.add(Kind::NoEnd, || "the partitions were not read to their ends".to_owned());
        return report;
    }
    let attempts = attempts(history, &mut report);
    let logs = logs(history, "final", &mut report);
    hanging(history, &mut report);
    let seen = records(&logs, &attempts, &mut report);
    whole(&attempts, &seen, &mut report);
    balances(&logs, &mut report);
    requests(&logs, &attempts, &seen, &mut report);
    readers(history, &logs, &attempts, &mut report);
    circles(history, &attempts, &seen, &mut report);
    zombies(history, &attempts, &seen, &mut report);
    progress(history, &attempts, &mut report);
    report
}

fn attempts<'a>(history: &'a History, report: &mut Report) -> Attempts<'a> {
    let mut attempts = Attempts::new();
    for Event { t, op } in history.events() {
        let (name, fate) = match op {
            Op::Begin { attempt, who, requests } => {
                report.count("transactions begun", 1);
                let new = Attempt {
                    who,
                    fate: Fate::Never,
                    requests,
                    writes: Vec::new(),
                    asked: u64::MAX,
                    committed: u64::MAX,
                };
                attempts.insert(attempt.as_str(), new);
                continue;
            }
            Op::Write { attempt, topic, partition } => {
                if let Some(attempt) = attempts.get_mut(attempt.as_str()) {
                    attempt.writes.push((topic, *partition, *t));
                }
                continue;
            }
            Op::Commit { attempt } => {
                if let Some(attempt) = attempts.get_mut(attempt.as_str()) {
                    attempt.asked = *t;
                }
                (attempt, Fate::Perhaps)
            }
            Op::Committed { attempt } => {
                report.count("transactions committed", 1);
                if let Some(attempt) = attempts.get_mut(attempt.as_str()) {
                    attempt.committed = *t;
                }
                (attempt, Fate::Committed)
            }
            Op::Aborted { attempt, .. } => {
                report.count("transactions aborted", 1);
                (attempt, Fate::Never)
            }
            Op::Unknown { .. } => {
                report.count("transactions that ended in errors", 1);
                continue;
            }
            Op::InitFailed { .. } => {
                report.count("ids that could not be had", 1);
                continue;
            }
            Op::Ready { .. } => {
                report.count("producers begun", 1);
                continue;
            }
            Op::Nemesis { .. } => {
                report.count("acts of the nemesis", 1);
                continue;
            }
            _ => continue,
        };
        if let Some(attempt) = attempts.get_mut(name.as_str()) {
            attempt.fate = fate;
        }
    }
    attempts
}

fn logs<'a>(history: &'a History, reader: &str, report: &mut Report) -> Logs<'a> {
    let mut logs = Logs::new();
    for event in history.events() {
        let Op::Poll { who, records, .. } = &event.op else { continue };
        if who != reader {
            continue;
        }
        for record in records {
            let log = logs.entry((record.topic.as_str(), record.partition)).or_default();
            if log.insert(record.offset, record).is_some_and(|other| other != record) {
                report.add(Kind::InconsistentOffset, || format!("{record:?} and another one in one read"));
            }
        }
    }
    logs
}

fn hanging(history: &History, report: &mut Report) {
    for event in history.events() {
        if let Op::End { topic, partition, high, stable } = &event.op
            && high != stable
        {
            report.add(Kind::Hanging, || {
                format!("{topic}-{partition} is stable up to {stable} only, and ends at {high}")
            });
        }
    }
}

/// Which of each transaction's records are there, by their indexes. What is there must have been written there, once,
/// in order, by a transaction that may be committed.
fn records<'a>(
    logs: &Logs<'a>,
    attempts: &Attempts<'_>,
    report: &mut Report,
) -> HashMap<&'a str, BTreeSet<usize>> {
    let mut seen: HashMap<&str, BTreeSet<usize>> = HashMap::new();
    for ((topic, partition), log) in logs.iter().filter(|((topic, _), _)| *topic != REQUESTS) {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for record in log.values() {
            report.count("records committed", 1);
            let written = record.origin().and_then(|(name, index)| Some((name, index, attempts.get(name)?)));
            let Some((name, index, attempt)) = written else {
                report.add(Kind::Phantom, || format!("{record:?}, which nobody wrote"));
                continue;
            };
            if attempt.writes.get(index).is_none_or(|(t, p, _)| (t, p) != (topic, partition)) {
                report.add(Kind::Phantom, || format!("{record:?}, which was not written there"));
            }
            if attempt.fate == Fate::Never {
                report.add(Kind::AbortedRead, || format!("{record:?} is there in the end"));
            }
            if !seen.entry(name).or_default().insert(index) {
                report.add(Kind::Duplicate, || format!("{record:?} is there twice"));
            }
            if last.insert(name, index).is_some_and(|before| before > index) {
                report
                    .add(Kind::Reordered, || format!("{record:?} after a later one of the same transaction"));
            }
        }
    }
    seen
}

fn whole(attempts: &Attempts<'_>, seen: &HashMap<&str, BTreeSet<usize>>, report: &mut Report) {
    for (name, attempt) in attempts {
        let there = seen.get(name).map_or(0, BTreeSet::len);
        match (attempt.fate, there) {
            (Fate::Committed, 0) if !attempt.writes.is_empty() => {
                report.add(Kind::Lost, || format!("{name} was committed; none of its records is there"));
            }
            (Fate::Never, _) | (_, 0) => {}
            (_, there) if there != attempt.writes.len() => {
                report.add(Kind::Torn, || {
                    format!("of {name}, {there} of {} records are there", attempt.writes.len())
                });
            }
            (Fate::Perhaps, _) => report.count("transactions that were committed after all", 1),
            _ => {}
        }
    }
}

/// Each transfer takes what it gives, so the total stays what it was.
fn balances(logs: &Logs<'_>, report: &mut Report) {
    let mut transfers: BTreeMap<(&str, usize), i64> = BTreeMap::new();
    let mut total = 0;
    for record in logs.iter().filter(|((topic, _), _)| *topic == ACCOUNTS).flat_map(|(_, log)| log.values()) {
        let amount: Option<i64> = record.more().nth(1).and_then(|text| text.parse().ok());
        let (Some((name, index)), Some(amount)) = (record.origin(), amount) else {
            report.add(Kind::Phantom, || format!("{record:?} is no part of a transfer"));
            continue;
        };
        // Two records make a transfer.
        *transfers.entry((name, index / 2)).or_default() += amount;
        total += amount;
    }
    report.count("transfers", transfers.len() as u64);
    for ((name, _), sum) in transfers.iter().filter(|(_, sum)| **sum != 0) {
        report.add(Kind::Unbalanced, || format!("a transfer of {name} leaves {sum}"));
    }
    if total != 0 {
        report.add(Kind::Unbalanced, || format!("all accounts together hold {total} instead of nothing"));
    }
}

/// Every request is answered by one committed transaction.
fn requests(
    logs: &Logs<'_>,
    attempts: &Attempts<'_>,
    seen: &HashMap<&str, BTreeSet<usize>>,
    report: &mut Report,
) {
    let mut answers: BTreeMap<(i32, i64), Vec<&str>> = BTreeMap::new();
    for (name, attempt) in attempts.iter().filter(|(name, _)| seen.contains_key(*name)) {
        for request in attempt.requests {
            answers.entry(*request).or_default().push(name);
        }
    }
    for ((_, partition), log) in logs.iter().filter(|((topic, _), _)| *topic == REQUESTS) {
        for offset in log.keys() {
            report.count("requests", 1);
            match answers.remove(&(*partition, *offset)).as_deref() {
                None => {
                    report.add(Kind::RequestLost, || format!("nobody answered {partition}@{offset}"));
                }
                Some([_]) => {}
                Some(many) => {
                    report
                        .add(Kind::RequestTwice, || format!("{partition}@{offset} was answered by {many:?}"));
                }
            }
        }
    }
    for ((partition, offset), names) in answers {
        report.add(Kind::Vanished, || format!("{names:?} answered {partition}@{offset}, which is not there"));
    }
}

/// Readers of what is committed saw what is there in the end, all of it and in order, and nothing before its time.
fn readers(history: &History, logs: &Logs<'_>, attempts: &Attempts<'_>, report: &mut Report) {
    for (_, events) in &history.processes {
        let mut next: HashMap<(&str, &str, i32), i64> = HashMap::new();
        for Event { t, op } in events {
            match op {
                Op::Assign { who, starts } => {
                    let places = starts.iter().map(|(topic, partition, start)| {
                        ((who.as_str(), topic.as_str(), *partition), *start)
                    });
                    next.extend(places);
                }
                Op::Poll { who, attempt, records } if !["final", "raw"].contains(&who.as_str()) => {
                    for record in records {
                        report.count("records polled", 1);
                        let key = (who.as_str(), record.topic.as_str(), record.partition);
                        position(who, record, next.get_mut(&key), logs, report);
                        early(who, *t, record, attempt.as_deref(), attempts, report);
                    }
                }
                _ => {}
            }
        }
    }
}

fn position(who: &str, record: &Polled, next: Option<&mut i64>, logs: &Logs<'_>, report: &mut Report) {
    let Some(next) = next else {
        report.add(Kind::PollOrder, || format!("{who} polled {record:?}, which it was not assigned"));
        return;
    };
    let log = logs.get(&(record.topic.as_str(), record.partition));
    match log.and_then(|log| log.get(&record.offset)) {
        Some(there) if *there == record => {}
        Some(there) => {
            report.add(Kind::InconsistentOffset, || {
                format!("{who} polled {record:?}, in the end there is {there:?}")
            });
        }
        // Those of aborted transactions are told below.
        None => {
            report.add(Kind::Vanished, || format!("{who} polled {record:?}, which is not there in the end"))
        }
    }
    if record.offset < *next {
        report.add(Kind::PollOrder, || format!("{who} at {next} polled {record:?}"));
    }
    let skipped = log.and_then(|log| log.range(*next..record.offset.max(*next)).next());
    if let Some((offset, skipped)) = skipped {
        report.add(Kind::PollSkip, || format!("{who} polled {record:?}, but not {skipped:?} at {offset}"));
    }
    *next = record.offset + 1;
}

fn early(
    who: &str,
    t: u64,
    record: &Polled,
    within: Option<&str>,
    attempts: &Attempts<'_>,
    report: &mut Report,
) {
    let Some((name, attempt)) = record.origin().and_then(|(name, _)| Some((name, attempts.get(name)?)))
    else {
        return;
    };
    if attempt.fate == Fate::Never {
        report.add(Kind::AbortedRead, || format!("{who} polled {record:?}"));
    } else if attempt.asked > t {
        report.add(Kind::DirtyRead, || format!("{who} polled {record:?} before its commit was asked for"));
    } else if within == Some(name) {
        report.add(Kind::DirtyRead, || format!("{name} read its own {record:?}"));
    }
}

/// No two committed transactions, and no longer circle of them, read what the next one wrote: whatever was read was
/// committed before, and so one of them had ended before it began to read.
fn circles(
    history: &History,
    attempts: &Attempts<'_>,
    seen: &HashMap<&str, BTreeSet<usize>>,
    report: &mut Report,
) {
    let mut reads: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in history.events() {
        let Op::Poll { attempt: Some(reader), records, .. } = &event.op else { continue };
        let is_committed = attempts.get(reader.as_str()).is_some_and(|a| a.fate == Fate::Committed)
            || seen.contains_key(reader.as_str());
        if is_committed {
            let writers = records.iter().filter_map(|record| Some(record.origin()?.0));
            reads.entry(reader.as_str()).or_default().extend(writers.filter(|writer| writer != reader));
        }
    }
    report.count("transactions that read", reads.len() as u64);
    // What nobody reads from, or reads nothing, is in no circle: what is left when those are gone is.
    loop {
        let before = reads.len();
        let read: HashSet<&str> = reads.values().flatten().copied().collect();
        let readers: HashSet<&str> = reads.keys().copied().collect();
        for writers in reads.values_mut() {
            writers.retain(|writer| readers.contains(writer));
        }
        reads.retain(|reader, writers| read.contains(reader) && !writers.is_empty());
        if reads.len() == before {
            break;
        }
    }
    for (reader, writers) in &reads {
        report.add(Kind::CircularRead, || {
            format!("{reader} read what {writers:?} wrote, and they what it wrote")
        });
    }
}

/// Nothing of a producer is committed that it asked for, or wrote, after another one had taken its id.
fn zombies(
    history: &History,
    attempts: &Attempts<'_>,
    seen: &HashMap<&str, BTreeSet<usize>>,
    report: &mut Report,
) {
    let mut incarnations: BTreeMap<&str, Incarnation<'_>> = BTreeMap::new();
    for Event { t, op } in history.events() {
        match op {
            Op::Init { who, id } => {
                incarnations.insert(who, Incarnation { id, asked: *t, ready: u64::MAX });
            }
            Op::Ready { who } => {
                if let Some(incarnation) = incarnations.get_mut(who.as_str()) {
                    incarnation.ready = *t;
                }
            }
            _ => {}
        }
    }
    for (name, attempt) in attempts {
        let Some(own) = incarnations.get(attempt.who) else { continue };
        let is_committed = attempt.fate == Fate::Committed || seen.contains_key(name);
        if !is_committed {
            continue;
        }
        let last_write = attempt.writes.iter().map(|(_, _, t)| *t).max().unwrap_or_default();
        let acted = attempt.asked.max(last_write);
        let successor = incarnations
            .iter()
            .find(|(_, other)| other.id == own.id && other.asked > own.ready && other.ready < acted);
        if let Some((successor, _)) = successor {
            report.add(Kind::Zombie, || {
                format!("{name} was committed, asked for after {successor} had its id")
            });
        }
    }
}

/// Every kind of client commits after all has healed; those that take too long need not.
fn progress(history: &History, attempts: &Attempts<'_>, report: &mut Report) {
    let healed = history.events().find(|event| event.op == Op::Healed).map_or(0, |event| event.t);
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for attempt in attempts.values() {
        let kind = attempt.who.split('-').next().unwrap_or_default();
        let latest = last.entry(kind).or_default();
        if attempt.committed != u64::MAX {
            *latest = attempt.committed.max(*latest);
        }
    }
    for (kind, latest) in last.iter().filter(|(kind, latest)| **kind != "late" && **latest <= healed) {
        report.add(Kind::NoProgress, || {
            format!("no {kind} committed after the faults; the last one at {latest}")
        });
    }
    for event in history.events() {
        if let Op::Generated { unanswered, .. } = event.op
            && unanswered > 0
        {
            report.add(Kind::NoProgress, || format!("{unanswered} requests were never acknowledged"));
        }
    }
}
