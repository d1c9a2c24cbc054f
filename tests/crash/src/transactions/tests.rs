//! The checker finds what is planted, and nothing in a history that is sound.

use super::history::History;
use super::{check, workload};
use crate::check::{Kind, Report};

/// A sound history: two transfers, of which the second one's fate is not told, an aborted one, two transactions of lists
/// of which one reads the other, two producers with one id.
const SOUND: [(&str, &str); 7] = [
    (
        "bank-0r1",
        r#"{"t":10,"op":"init","who":"bank-0r1.1","id":"bank-0"}
{"t":11,"op":"ready","who":"bank-0r1.1"}
{"t":12,"op":"begin","attempt":"b1","who":"bank-0r1.1","requests":[[0,0]]}
{"t":13,"op":"write","attempt":"b1","topic":"accounts","partition":0}
{"t":14,"op":"write","attempt":"b1","topic":"accounts","partition":1}
{"t":15,"op":"commit","attempt":"b1"}
{"t":20,"op":"committed","attempt":"b1"}
{"t":21,"op":"begin","attempt":"b2","who":"bank-0r1.1","requests":[[0,1]]}
{"t":22,"op":"write","attempt":"b2","topic":"accounts","partition":1}
{"t":23,"op":"write","attempt":"b2","topic":"accounts","partition":0}
{"t":24,"op":"aborted","attempt":"b2","code":"own wish"}
{"t":31,"op":"begin","attempt":"b3","who":"bank-0r1.1","requests":[[0,1]]}
{"t":32,"op":"write","attempt":"b3","topic":"accounts","partition":1}
{"t":33,"op":"write","attempt":"b3","topic":"accounts","partition":0}
{"t":34,"op":"commit","attempt":"b3"}
{"t":35,"op":"begin","att"#,
    ),
    (
        "append-0r1",
        r#"{"t":10,"op":"init","who":"append-0r1.1","id":"append-0"}
{"t":11,"op":"ready","who":"append-0r1.1"}
{"t":11,"op":"assign","who":"append-0r1","starts":[["lists",0,0],["lists",1,0]]}
{"t":12,"op":"begin","attempt":"a1","who":"append-0r1.1"}
{"t":13,"op":"write","attempt":"a1","topic":"lists","partition":0}
{"t":14,"op":"commit","attempt":"a1"}
{"t":15,"op":"committed","attempt":"a1"}
{"t":40,"op":"begin","attempt":"a2","who":"append-0r1.1"}
{"t":41,"op":"write","attempt":"a2","topic":"lists","partition":1}
{"t":42,"op":"poll","who":"append-0r1","attempt":"a2","records":[["lists",0,0,"a1/0"]]}
{"t":43,"op":"commit","attempt":"a2"}
{"t":44,"op":"committed","attempt":"a2"}
"#,
    ),
    (
        "fight-0r1",
        r#"{"t":10,"op":"init","who":"fight-0r1.1","id":"fighters"}
{"t":11,"op":"ready","who":"fight-0r1.1"}
{"t":12,"op":"begin","attempt":"f1","who":"fight-0r1.1"}
{"t":13,"op":"write","attempt":"f1","topic":"fight","partition":0}
{"t":14,"op":"commit","attempt":"f1"}
{"t":18,"op":"committed","attempt":"f1"}
{"t":30,"op":"begin","attempt":"f2","who":"fight-0r1.1"}
{"t":31,"op":"write","attempt":"f2","topic":"fight","partition":0}
{"t":32,"op":"commit","attempt":"f2"}
{"t":33,"op":"unknown","attempt":"f2","code":"_FENCED"}
"#,
    ),
    (
        "fight-1r1",
        r#"{"t":20,"op":"init","who":"fight-1r1.1","id":"fighters"}
{"t":22,"op":"ready","who":"fight-1r1.1"}
{"t":23,"op":"begin","attempt":"f3","who":"fight-1r1.1"}
{"t":24,"op":"write","attempt":"f3","topic":"fight","partition":0}
{"t":25,"op":"commit","attempt":"f3"}
{"t":26,"op":"committed","attempt":"f3"}
"#,
    ),
    (
        "read-0r1",
        r#"{"t":9,"op":"assign","who":"r-accounts","starts":[["accounts",0,0],["accounts",1,0]]}
{"t":17,"op":"poll","who":"r-accounts","records":[["accounts",0,0,"b1/0/3/-5"],["accounts",1,0,"b1/1/4/5"]]}
"#,
    ),
    ("nemesis", "{\"t\":1,\"op\":\"healed\"}\n"),
    (
        "final-0r1",
        r#"{"t":90,"op":"generated","count":2,"unanswered":0}
{"t":91,"op":"end","topic":"accounts","partition":0,"high":6,"stable":6}
{"t":92,"op":"poll","who":"final","records":[["requests",0,0,"generate-0/0"],["requests",0,1,"generate-0/1"]]}
{"t":92,"op":"poll","who":"final","records":[["accounts",0,0,"b1/0/3/-5"],["accounts",1,0,"b1/1/4/5"]]}
{"t":93,"op":"poll","who":"final","records":[["accounts",1,4,"b3/0/4/-7"],["accounts",0,4,"b3/1/3/7"]]}
{"t":94,"op":"poll","who":"final","records":[["lists",0,0,"a1/0"],["lists",1,0,"a2/0"]]}
{"t":95,"op":"poll","who":"final","records":[["fight",0,0,"f1/0"],["fight",0,2,"f3/0"]]}
{"t":99,"op":"over"}
"#,
    ),
];

/// Checks the sound history with a text replaced.
fn with(what: &str, by: &str) -> Report {
    let mut history = History::default();
    let mut replaced = what.is_empty();
    for (name, text) in SOUND {
        replaced |= text.contains(what);
        history.add(name, &text.replace(what, by)).unwrap();
    }
    assert!(replaced, "{what} is not there");
    check(&history)
}

/// The replacement is found as these kinds and no others.
fn found(what: &str, by: &str, kinds: &[Kind]) {
    let report = with(what, by);
    assert_eq!(report.kinds().collect::<Vec<_>>(), kinds, "{what} replaced by {by}\n{report}");
}

#[test]
fn a_sound_history_is_clean() {
    let report = with("", "");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts["transfers"], 2);
    assert_eq!(report.counts["transactions that were committed after all"], 1);
}

#[test]
fn aborted_records_are_found() {
    // At the end, with its effect on what is answered; and by a reader alone.
    found(
        r#""b3/0/4/-7"],["accounts",0,4,"b3/1/3/7""#,
        r#""b3/0/4/-7"],["accounts",0,4,"b3/1/3/7"],["accounts",1,2,"b2/0/1/-1"],["accounts",0,2,"b2/1/2/1""#,
        &[Kind::AbortedRead, Kind::RequestTwice],
    );
    found(
        r#"{"t":17,"op":"poll","who":"r-accounts","records":["#,
        r#"{"t":30,"op":"poll","who":"r-accounts","records":[["accounts",1,2,"b2/0/1/-1"]]}
{"t":17,"op":"poll","who":"r-fight","records":["#,
        &[Kind::Vanished, Kind::PollOrder, Kind::PollSkip, Kind::AbortedRead],
    );
}

#[test]
fn torn_and_lost_transactions_are_found() {
    found(r#"["accounts",1,4,"b3/0/4/-7"],"#, "", &[Kind::Torn, Kind::Unbalanced]);
    found(r#"["lists",1,0,"a2/0"]"#, r#"["lists",0,0,"a1/0"]"#, &[Kind::Lost]);
    found(
        r#"{"t":93,"op":"poll","who":"final","records":[["accounts",1,4,"b3/0/4/-7"],["accounts",0,4,"b3/1/3/7"]]}
"#,
        "",
        &[Kind::RequestLost],
    );
}

#[test]
fn records_at_wrong_places_are_found() {
    found(r#"["lists",1,0,"a2/0"]"#, r#"["lists",0,5,"a2/0"]"#, &[Kind::Phantom]);
    found(r#"["lists",1,0,"a2/0"]"#, r#"["lists",1,0,"a2/0"],["lists",1,3,"a2/0"]"#, &[Kind::Duplicate]);
    found(r#"["lists",1,0,"a2/0"]"#, r#"["lists",1,0,"a2/0"],["lists",1,3,"z/0"]"#, &[Kind::Phantom]);
    found(r#""b3/1/3/7""#, r#""b3/1/3/8""#, &[Kind::Unbalanced]);
}

#[test]
fn requests_answered_twice_are_found() {
    found(
        r#""attempt":"b3","who":"bank-0r1.1","requests":[[0,1]]"#,
        r#""attempt":"b3","who":"bank-0r1.1","requests":[[0,0],[0,1]]"#,
        &[Kind::RequestTwice],
    );
    found(r#",["requests",0,1,"generate-0/1"]"#, "", &[Kind::Vanished]);
}

#[test]
fn early_and_circular_reads_are_found() {
    found(r#""t":17,"op":"poll""#, r#""t":14,"op":"poll""#, &[Kind::DirtyRead]);
    // Its own, before it is committed.
    found(
        r#"[["lists",0,0,"a1/0"]]}
{"t":43"#,
        r#"[["lists",0,0,"a1/0"],["lists",1,0,"a2/0"]]}
{"t":43"#,
        &[Kind::DirtyRead],
    );
    found(
        r#"{"t":14,"op":"commit","attempt":"a1"}"#,
        r#"{"t":13,"op":"poll","who":"append-0r1","attempt":"a1","records":[["lists",1,0,"a2/0"]]}
{"t":14,"op":"commit","attempt":"a1"}"#,
        &[Kind::DirtyRead, Kind::CircularRead],
    );
}

#[test]
fn readers_that_skip_are_found() {
    const READ: &str = r#"{"t":17,"op":"poll","who":"r-accounts","records":["#;
    let skips = r#"{"t":60,"op":"poll","who":"r-accounts","records":[["accounts",0,4,"b3/1/3/7"]]}
{"t":61,"op":"poll","who":"r-accounts","records":["#;
    found(READ, skips, &[Kind::PollOrder, Kind::PollSkip]);
    let twice = r#"{"t":17,"op":"poll","who":"r-accounts","records":[["accounts",1,0,"b1/1/4/5"],"#;
    found(READ, twice, &[Kind::PollOrder]);
}

#[test]
fn zombies_are_found() {
    found(r#"["fight",0,2,"f3/0"]"#, r#"["fight",0,2,"f3/0"],["fight",0,4,"f2/0"]"#, &[Kind::Zombie]);
    found(
        r#"{"t":18,"op":"committed","attempt":"f1"}"#,
        r#"{"t":18,"op":"committed","attempt":"f1"}
{"t":19,"op":"begin","attempt":"f9","who":"fight-0r1.1"}
{"t":23,"op":"commit","attempt":"f9"}
{"t":24,"op":"committed","attempt":"f9"}"#,
        &[Kind::Zombie],
    );
}

#[test]
fn what_never_ends_is_found() {
    found(r#""high":6,"stable":6"#, r#""high":6,"stable":4"#, &[Kind::Hanging]);
    found(r#"{"t":1,"op":"healed"}"#, r#"{"t":30,"op":"healed"}"#, &[Kind::NoProgress]);
    found(r#""unanswered":0"#, r#""unanswered":1"#, &[Kind::NoProgress]);
    found(r#"{"t":99,"op":"over"}"#, "", &[Kind::NoEnd]);
}

#[test]
fn a_line_cut_short_is_allowed_at_the_end_only() {
    let mut history = History::default();
    history.add("x", "{\"t\":1,\"op\":\"healed\"}\n{\"t\":2,\"op\"").unwrap();
    assert_eq!(history.events().count(), 1);
    assert!(history.add("y", "{\"t\":2,\"op\"\n{\"t\":1,\"op\":\"healed\"}\n").is_err());
    assert_eq!(workload::options(towpath_harness::cluster::Peer::Kafka).nodes, 3);
}
