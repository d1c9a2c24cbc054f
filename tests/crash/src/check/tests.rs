//! Every fault, planted into a history that is otherwise clean, is found; and nothing else is.

use super::*;
use crate::history::Process;

type Histories = Vec<(&'static str, Vec<String>)>;

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Two producers, two partitions, a reader, a group of two whose partitions change hands, and a last read.
fn clean() -> Histories {
    let mut all = producers();
    all.extend(consumers());
    all
}

fn producers() -> Histories {
    vec![
        (
            "p0",
            lines(
                r#"{"t":1,"op":"producer","producer":0,"idempotent":true,"acks":"all"}
                {"t":10,"op":"send","producer":0,"seq":0}
                {"t":20,"op":"ack","producer":0,"seq":0,"partition":0,"offset":0}
                {"t":30,"op":"send","producer":0,"seq":1}
                {"t":31,"op":"send","producer":0,"seq":2}
                {"t":40,"op":"ack","producer":0,"seq":1,"partition":0,"offset":1}
                {"t":46,"op":"send","producer":0,"seq":4}
                {"t":47,"op":"fail","producer":0,"seq":4,"code":"_QUEUE_FULL","definite":true}
                {"t":48,"op":"ack","producer":0,"seq":2,"partition":0,"offset":2}
                {"t":900,"op":"producer_end","producer":0,"sent":5,"unanswered":0,"fatal":false}"#,
            ),
        ),
        (
            "p1",
            lines(
                r#"{"t":1,"op":"producer","producer":1,"idempotent":true,"acks":"all"}
                {"t":11,"op":"send","producer":1,"seq":0}
                {"t":21,"op":"ack","producer":1,"seq":0,"partition":1,"offset":0}
                {"t":50,"op":"send","producer":1,"seq":1}
                {"t":60,"op":"ack","producer":1,"seq":1,"partition":0,"offset":3}
                {"t":900,"op":"producer_end","producer":1,"sent":2,"unanswered":0,"fatal":false}"#,
            ),
        ),
        // Its only record ran out of time, and is there. It never began, as far as anyone wrote: no progress is expected.
        (
            "p2",
            lines(
                r#"{"t":42,"op":"send","producer":2,"seq":0}
                {"t":45,"op":"fail","producer":2,"seq":0,"code":"_MSG_TIMED_OUT","definite":false}"#,
            ),
        ),
    ]
}

fn consumers() -> Histories {
    vec![
        (
            "readers",
            lines(
                r#"{"t":5,"op":"assign","who":"r0","starts":[[0,0]]}
                {"t":70,"op":"poll","who":"r0","records":[[0,0,1,0,0],[0,1,1,0,1]]}
                {"t":71,"op":"poll","who":"r0","records":[[0,2,2,0,2],[0,3,2,1,1],[0,4,2,2,0]]}"#,
            ),
        ),
        (
            "g0",
            lines(
                r#"{"t":5,"op":"assign","who":"g0","starts":[[0,-1001],[1,-1001]]}
                {"t":72,"op":"poll","who":"g0","records":[[0,0,1,0,0],[0,1,1,0,1],[1,0,1,1,0]]}
                {"t":73,"op":"commit","who":"g0","offsets":[[0,2],[1,1]]}
                {"t":75,"op":"committed","who":"g0","offsets":[[0,2],[1,1]]}
                {"t":76,"op":"revoke","who":"g0","partitions":[0,1]}
                {"t":79,"op":"assign","who":"g0","starts":[[1,-1001]]}"#,
            ),
        ),
        (
            "g1",
            lines(
                r#"{"t":78,"op":"assign","who":"g1","starts":[[0,-1001]]}
                {"t":80,"op":"poll","who":"g1","records":[[0,2,2,0,2],[0,3,2,1,1],[0,4,2,2,0]]}
                {"t":81,"op":"commit","who":"g1","offsets":[[0,5]]}
                {"t":82,"op":"committed","who":"g1","offsets":[[0,5]]}"#,
            ),
        ),
        ("nemesis", lines(r#"{"t":15,"op":"healed"}"#)),
        (
            "z-final",
            lines(
                r#"{"t":100,"op":"end","partition":0,"low":0,"high":5}
                {"t":100,"op":"end","partition":1,"low":0,"high":1}
                {"t":101,"op":"assign","who":"final","starts":[[0,0],[1,0]]}
                {"t":110,"op":"poll","who":"final","records":[[0,0,1,0,0],[0,1,1,0,1],[1,0,1,1,0]]}
                {"t":111,"op":"poll","who":"final","records":[[0,2,2,0,2],[0,3,2,1,1],[0,4,2,2,0]]}"#,
            ),
        ),
    ]
}

fn report(processes: &[(&'static str, Vec<String>)]) -> Report {
    let parse =
        |(name, lines): &(&'static str, Vec<String>)| Process::parse(name, &lines.join("\n")).unwrap();
    check(&History { processes: processes.iter().map(parse).collect() })
}

/// Replaces text in every line of the processes whose names begin so; it has to be there.
fn planted(edits: &[(&str, &str, &str)]) -> Vec<Kind> {
    let mut processes = clean();
    for (process, old, new) in edits {
        let mut found = false;
        for (_, lines) in processes.iter_mut().filter(|(name, _)| name.starts_with(process)) {
            for line in lines.iter_mut() {
                found |= line.contains(old);
                *line = line.replace(old, new);
            }
            lines.retain(|line| !line.is_empty());
        }
        assert!(found, "{old} is not in {process}");
    }
    report(&processes).kinds().collect()
}

/// The line of `process` that holds `old`, replaced as a whole.
fn planted_line(process: &str, old: &str, new: &str) -> Vec<Kind> {
    let mut processes = clean();
    let lines = &mut processes.iter_mut().find(|(name, _)| *name == process).unwrap().1;
    let line = lines.iter_mut().find(|line| line.contains(old)).unwrap();
    *line = new.to_owned();
    lines.retain(|line| !line.is_empty());
    report(&processes).kinds().collect()
}

#[test]
fn a_clean_history_is_clean() {
    let report = report(&clean());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts["acknowledged"], 5);
    assert_eq!(report.counts["records in the end"], 6);
    assert_eq!(report.counts["polled"], 11);
    assert!(report.to_string().contains("nothing is wrong"));
}

#[test]
fn losses() {
    // Another record took the offset, and nobody ever saw the acknowledged one.
    let all = [
        ("r", "[0,1,1,0,1]", "[0,1,1,0,4]"),
        ("g", "[0,1,1,0,1]", "[0,1,1,0,4]"),
        ("z", "[0,1,1,0,1]", "[0,1,1,0,4]"),
    ];
    let fail = (
        "p0",
        "\"seq\":4,\"code\":\"_QUEUE_FULL\",\"definite\":true",
        "\"seq\":4,\"code\":\"X\",\"definite\":false",
    );
    let mut edits = all.to_vec();
    edits.push(fail);
    let found = planted(&edits);
    assert!(found.contains(&Kind::Lost) && found.contains(&Kind::InconsistentOffset), "{found:?}");
    // Acknowledged without an offset, and nowhere.
    let ack = r#"{"t":47,"op":"ack","producer":0,"seq":4,"partition":0,"offset":-1001}"#;
    assert_eq!(planted_line("p0", "_QUEUE_FULL", ack), [Kind::Lost]);
    // Acknowledged past the end.
    let ack = r#"{"t":47,"op":"ack","producer":0,"seq":4,"partition":0,"offset":5}"#;
    assert_eq!(planted_line("p0", "_QUEUE_FULL", ack), [Kind::Unseen]);
    // Polled and committed once, gone in the end.
    let found = planted(&[("z", ",[0,4,2,2,0]", ""), ("z", "\"high\":5", "\"high\":4")]);
    assert_eq!(found, [Kind::Vanished]);
    // A hole in the last read.
    let found = planted(&[("z", "[0,2,2,0,2],", "")]);
    assert_eq!(found, [Kind::Lost, Kind::Vanished, Kind::PollSkip]);
}

#[test]
fn offsets_and_values() {
    // A reader saw another value at an offset.
    assert_eq!(planted(&[("r", "[0,4,2,2,0]", "[0,4,2,0,2]")]), [Kind::InconsistentOffset]);
    // One value at two offsets, of which one was acknowledged.
    let all = ("", "[0,4,2,2,0]", "[0,4,2,0,2]");
    assert_eq!(planted(&[all]), [Kind::Duplicate]);
    // After a record of that producer ran out of time, the client may have sent others twice.
    let late = ("p0", "\"_QUEUE_FULL\",\"definite\":true", "\"_MSG_TIMED_OUT\",\"definite\":false");
    assert_eq!(planted(&[all, late]), []);
    let bump = r#"{"t":47,"op":"bump","producer":0,"text":""}"#;
    let mut processes = clean();
    processes[0].1.push(bump.to_owned());
    for (_, lines) in &mut processes {
        for line in lines.iter_mut() {
            *line = line.replace(all.1, all.2);
        }
    }
    assert!(report(&processes).is_clean());
    // But what it was told of offsets holds.
    let elsewhere = ("p0", "\"partition\":0,\"offset\":2", "\"partition\":0,\"offset\":1");
    assert_eq!(planted(&[late, elsewhere]), [Kind::InconsistentOffset, Kind::Duplicate]);
    // Nobody sent it; the bytes were none of ours; its send had failed for certain.
    assert_eq!(planted(&[("", "[0,4,2,2,0]", "[0,4,2,0,77]")]), [Kind::Phantom]);
    assert_eq!(planted(&[("", "[0,4,2,2,0]", "[0,4,2,-1,-1]")]), [Kind::Phantom]);
    assert_eq!(planted(&[("", "[0,4,2,2,0]", "[0,4,2,0,4]")]), [Kind::Phantom]);
}

#[test]
fn orders() {
    // Values 1 and 2 of an idempotent producer change places.
    let swap = [
        ("", "[0,1,1,0,1]", "[0,1,1,0,9]"),
        ("", "[0,2,2,0,2]", "[0,2,2,0,1]"),
        ("", "[0,1,1,0,9]", "[0,1,1,0,2]"),
        ("p0", "\"seq\":1,\"partition\":0,\"offset\":1", "\"seq\":1,\"partition\":0,\"offset\":2"),
        ("p0", "\"seq\":2,\"partition\":0,\"offset\":2", "\"seq\":2,\"partition\":0,\"offset\":1"),
    ];
    assert_eq!(planted(&swap), [Kind::Reordered]);
    // Without idempotence that is allowed.
    let mut allowed = swap.to_vec();
    allowed.push(("p0", "\"idempotent\":true", "\"idempotent\":false"));
    assert_eq!(planted(&allowed), []);
    let mut late = swap.to_vec();
    late.push(("p0", "\"_QUEUE_FULL\",\"definite\":true", "\"_MSG_TIMED_OUT\",\"definite\":false"));
    assert_eq!(planted(&late), []);
    // Sent after a record behind it was acknowledged.
    assert_eq!(
        planted(&[("p1", "{\"t\":60,", "{\"t\":29,"), ("p1", "{\"t\":50,", "{\"t\":28,")]),
        [Kind::RealtimeOrder]
    );
    // Epochs fall along the log; two readers see different ones.
    assert_eq!(planted(&[("", "[0,0,1,0,0]", "[0,0,7,0,0]")]), [Kind::EpochOrder]);
    assert_eq!(planted(&[("r", "[0,4,2,2,0]", "[0,4,3,2,0]")]), [Kind::EpochOrder]);
}

#[test]
fn polls() {
    // A reader goes back, jumps, reads what it was not given, and hears that its offset is no more.
    assert_eq!(planted(&[("r", "[0,3,2,1,1],", "[0,3,2,1,1],[0,2,2,0,2],[0,3,2,1,1],")]), [Kind::PollOrder]);
    assert_eq!(planted(&[("r", "[0,3,2,1,1],", "")]), [Kind::PollSkip]);
    assert_eq!(planted(&[("r", "[[0,0]]", "[[1,0]]")]), [Kind::PollOrder]);
    assert_eq!(planted(&[("r", "[[0,0]]", "[[0,1]]")]), [Kind::PollOrder]);
    for code in ["OFFSET_OUT_OF_RANGE", "_AUTO_OFFSET_RESET", "_LOG_TRUNCATION"] {
        let line = format!(r#"{{"t":71,"op":"poll_error","who":"r0","code":"{code}","text":""}}"#);
        assert_eq!(planted_line("readers", "\"t\":71", &line), [Kind::OutOfRange]);
    }
}

#[test]
fn groups() {
    // Nobody of the group polled the last record; then its commit is ahead as well.
    let found = planted(&[("g1", ",[0,4,2,2,0]", "")]);
    assert_eq!(found, [Kind::GroupSkip, Kind::CommitAhead]);
    let found = planted(&[("g1", ",[0,4,2,2,0]", ""), ("g1", "[[0,5]]", "[[0,4]]")]);
    assert_eq!(found, [Kind::GroupSkip]);
    // Committed before it was polled.
    assert_eq!(planted(&[("g0", "{\"t\":73,", "{\"t\":71,")]), [Kind::CommitAhead]);
    // The new owner begins before what was committed, or without the first owner's having committed (fine).
    let again = ("g1", "[0,2,2,0,2],", "[0,1,1,0,1],[0,2,2,0,2],");
    assert_eq!(planted(&[again]), [Kind::CommitLost]);
    assert_eq!(
        planted(&[again, ("g0", "\"op\":\"committed\"", "\"op\":\"commit_failed\",\"code\":\"X\"")]),
        []
    );
    // Acknowledged only after the new owner was assigned: it may have asked before.
    assert_eq!(planted(&[again, ("g0", "{\"t\":75,", "{\"t\":79,")]), []);
}

#[test]
fn ends() {
    assert_eq!(planted(&[("p1", "\"unanswered\":0", "\"unanswered\":3")]), [Kind::NoProgress]);
    assert_eq!(planted(&[("nemesis", "{\"t\":15,", "{\"t\":50,")]), [Kind::NoProgress]);
    let line = r#"{"t":899,"op":"error","who":"p1","code":"_FATAL","fatal":true,"text":""}"#;
    let mut processes = clean();
    processes[1].1.push(line.to_owned());
    assert_eq!(report(&processes).kinds().collect::<Vec<_>>(), [Kind::ClientEnded]);
    let mut processes = clean();
    processes.pop();
    assert_eq!(report(&processes).kinds().collect::<Vec<_>>(), [Kind::NoEnd]);
    assert!(Process::parse("x", "{\"t\":1,\"op\":\"sen").is_err());
}
