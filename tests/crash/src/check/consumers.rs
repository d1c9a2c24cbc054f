//! What consumers polled and committed.

use std::collections::{BTreeMap, HashMap};

use super::log::Logs;
use super::{Kind, Report};
use crate::history::{Event, History, Op, Polled, Value};

/// Errors that say that an offset which a reader had reached is no more.
const GONE: [&str; 4] = ["OFFSET_OUT_OF_RANGE", "_AUTO_OFFSET_RESET", "_LOG_TRUNCATION", "_NO_OFFSET"];

/// Each consumer polls offset after offset, from where it was assigned on.
pub(super) fn positions(history: &History, report: &mut Report) {
    for process in &history.processes {
        // None: assigned, but at what is committed, which shows with the first record.
        let mut next: HashMap<(&str, i32), Option<i64>> = HashMap::new();
        for event in &process.events {
            match &event.op {
                Op::Assign { who, starts } => {
                    for (partition, start) in starts {
                        next.insert((who, *partition), (*start >= 0).then_some(*start));
                    }
                }
                Op::Revoke { who, partitions } | Op::Lost { who, partitions } => {
                    for partition in partitions {
                        next.remove(&(who.as_str(), *partition));
                    }
                }
                Op::Poll { who, records } => {
                    for record in records {
                        position(who, record, next.get_mut(&(who.as_str(), record.partition)), report);
                    }
                }
                Op::PollError { who, code, text } => {
                    report.count("errors polled", 1);
                    if GONE.contains(&code.trim_start_matches("ERR_")) {
                        report.add(Kind::OutOfRange, || format!("{who}: {code}: {text}"));
                    }
                }
                _ => {}
            }
        }
    }
}

fn position(who: &str, record: &Polled, next: Option<&mut Option<i64>>, report: &mut Report) {
    let Some(next) = next else {
        report.add(Kind::PollOrder, || format!("{who} polled {record:?}, which it was not assigned"));
        return;
    };
    match *next {
        Some(position) if record.offset < position => {
            report.add(Kind::PollOrder, || format!("{who} at {position} polled {record:?}"));
        }
        Some(position) if record.offset > position => {
            report.add(Kind::PollSkip, || format!("{who} at {position} polled {record:?}"));
        }
        _ => {}
    }
    *next = Some(record.offset + 1);
}

/// Whatever anybody polled at any time is what was there in the end.
pub(super) fn contents(
    history: &History,
    logs: &Logs,
    places: &HashMap<Value, (i32, i64)>,
    report: &mut Report,
) {
    for (_, who, record) in polled(history).filter(|(_, who, _)| *who != "final") {
        report.count("polled", 1);
        let there = logs.at(record.partition, record.offset);
        match there {
            Some(there) if there == *record => {}
            Some(there) if there.value == record.value => {
                report.add(Kind::EpochOrder, || {
                    format!("{who} polled {record:?}, in the end there is {there:?}")
                });
            }
            _ => {
                let place = places.get(&record.value);
                let text =
                    || format!("{who} polled {record:?}, in the end there is {there:?}; it is at {place:?}");
                if place.is_none() {
                    report.add(Kind::Vanished, text);
                }
                if there.is_some() {
                    report.add(Kind::InconsistentOffset, text);
                } else if place.is_some() {
                    report.add(Kind::Duplicate, text);
                }
            }
        }
    }
}

fn polled(history: &History) -> impl Iterator<Item = (u64, &str, &Polled)> {
    history.events().flat_map(|event| match &event.op {
        Op::Poll { who, records } => records.iter().map(|r| (event.t, who.as_str(), r)).collect::<Vec<_>>(),
        _ => Vec::new(),
    })
}

/// For each partition, when each offset was first polled by a member of the group; `u64::MAX` for never.
type FirstPolls = BTreeMap<i32, Vec<u64>>;

/// The group as a whole: at least once, and no commit ahead of that or forgotten.
pub(super) fn group(history: &History, logs: &Logs, report: &mut Report) {
    let is_member = |event: &Event| match &event.op {
        Op::Assign { who, .. } | Op::Poll { who, .. } => who.starts_with('g'),
        _ => false,
    };
    if !history.events().any(is_member) {
        return;
    }
    let mut first = FirstPolls::new();
    for (t, _, record) in polled(history).filter(|(_, who, _)| who.starts_with('g')) {
        let (times, Ok(index)) = (first.entry(record.partition).or_default(), usize::try_from(record.offset))
        else {
            continue;
        };
        if times.len() <= index {
            times.resize(index + 1, u64::MAX);
        }
        if let Some(time) = times.get_mut(index) {
            *time = t.min(*time);
        }
    }
    for record in logs.records() {
        let index = usize::try_from(record.offset).unwrap_or(usize::MAX);
        let time = first.get(&record.partition).and_then(|times| times.get(index));
        if time.is_none_or(|time| *time == u64::MAX) {
            report.add(Kind::GroupSkip, || format!("no member polled {record:?}"));
        }
    }
    commits_ahead(history, first, report);
    commits_lost(history, report);
}

fn commits_ahead(history: &History, mut first: FirstPolls, report: &mut Report) {
    // From "first polled" to "all up to here polled".
    for times in first.values_mut() {
        let mut latest = 0;
        for time in times {
            latest = latest.max(*time);
            *time = latest;
        }
    }
    for event in history.events() {
        let Op::Commit { who, offsets } = &event.op else { continue };
        for (partition, offset) in offsets {
            let Ok(count @ 1..) = usize::try_from(*offset) else { continue };
            let all_polled = first.get(partition).and_then(|times| times.get(count - 1));
            if all_polled.is_none_or(|time| *time > event.t) {
                report.add(Kind::CommitAhead, || {
                    format!("{who} committed {partition}@{offset}; not all before it had been polled")
                });
            }
        }
    }
}

fn commits_lost(history: &History, report: &mut Report) {
    // For each partition: when a commit was acknowledged, and of which offset.
    let mut acknowledged: BTreeMap<i32, Vec<(u64, i64)>> = BTreeMap::new();
    for event in history.events() {
        if let Op::Committed { offsets, .. } = &event.op {
            report.count("commits", 1);
            for (partition, offset) in offsets {
                acknowledged.entry(*partition).or_default().push((event.t, *offset));
            }
        }
    }
    for commits in acknowledged.values_mut() {
        commits.sort_unstable();
        let mut highest = 0;
        for (_, offset) in commits {
            highest = highest.max(*offset);
            *offset = highest;
        }
    }
    for process in &history.processes {
        let mut assigned: HashMap<(&str, i32), u64> = HashMap::new();
        for event in &process.events {
            match &event.op {
                Op::Assign { who, starts } if who.starts_with('g') => {
                    assigned
                        .extend(starts.iter().map(|(partition, _)| ((who.as_str(), *partition), event.t)));
                }
                Op::Revoke { who, partitions } | Op::Lost { who, partitions } => {
                    for partition in partitions {
                        assigned.remove(&(who.as_str(), *partition));
                    }
                }
                Op::Poll { who, records } => {
                    for record in records {
                        // Only the first record after an assignment shows where it began.
                        let Some(since) = assigned.remove(&(who.as_str(), record.partition)) else {
                            continue;
                        };
                        began(who, record, since, acknowledged.get(&record.partition), report);
                    }
                }
                _ => {}
            }
        }
    }
}

fn began(who: &str, record: &Polled, since: u64, commits: Option<&Vec<(u64, i64)>>, report: &mut Report) {
    let commits = commits.map(Vec::as_slice).unwrap_or_default();
    let before = commits.partition_point(|(time, _)| *time < since);
    let committed = before.checked_sub(1).and_then(|last| commits.get(last)).map_or(0, |(_, offset)| *offset);
    if record.offset < committed {
        report.add(Kind::CommitLost, || {
            format!("{who} began with {record:?}, though {committed} had been committed")
        });
    }
}
