//! `towpath cluster reassign`, and how moves are begun and waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use towpath_client::{Admin, Reassignment};
use towpath_types::{TopicName, TopicPartition, limits};

use super::placement::Move;
use super::{Partitions, all_partitions, named_partitions};
use crate::cli::{PartitionsArgument, ReassignTo};
use crate::command::connection::all_done;
use crate::failure::Failure;
use crate::output::{Listing, tell};

/// How often moves are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a line is written where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// What neither moves nor is where it was to go for so long was taken back by somebody: metadata follow sooner.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// How a command is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) wait: bool,
    pub(super) dry_run: bool,
    pub(super) json: bool,
}

pub(super) async fn reassign(
    admin: &Admin,
    named: &[PartitionsArgument],
    to: &ReassignTo,
    how: How,
) -> Result<(), Failure> {
    if to.list || to.cancel {
        let wanted: Option<Vec<_>> = match named {
            [] => None,
            named => Some(named_partitions(admin, named).await?.into_keys().collect()),
        };
        let moving = admin.list_partition_reassignments(wanted.as_deref()).await?;
        return if to.list { show(&moving, how.json) } else { cancel(admin, moving, how).await };
    }
    let (now, targets) = match (&to.file, &to.replicas) {
        (Some(file), _) => (all_partitions(admin).await?, read_file(file)?),
        (None, replicas) => {
            let replicas = replicas.as_deref().unwrap_or_default();
            check_replicas("--replicas", replicas)?;
            let now = named_partitions(admin, named).await?;
            let targets = turned(&now, named, replicas);
            (now, targets)
        }
    };
    let moves = moves(&now, targets)?;
    if moves.is_empty() && !how.json {
        tell("everything is where it is to be already");
        return Ok(());
    }
    if how.dry_run {
        return show_planned(&moves, how.json);
    }
    begin(admin, &moves).await?;
    if how.wait {
        wait(admin, &moves).await?;
    }
    table(&moves).tell_done(if how.wait { "moved" } else { "moving" }, how.json)
}

/// What a dry run would do.
pub(super) fn show_planned(moves: &[Move], json: bool) -> Result<(), Failure> {
    table(moves).print(json)?;
    if !json {
        tell("nothing was changed (--dry-run)");
    }
    Ok(())
}

pub(super) fn table(moves: &[Move]) -> Listing {
    let columns = [("TOPIC", "topic"), ("PARTITION", "partition"), ("FROM", "from"), ("TO", "to")];
    let mut listing = Listing::new(&columns);
    for it in moves {
        let (topic, partition) = (it.partition.topic.as_str(), it.partition.partition);
        listing.row(vec![json!(topic), json!(partition), json!(it.from), json!(it.to)]);
    }
    listing
}

fn show(moving: &BTreeMap<TopicPartition, Reassignment>, json: bool) -> Result<(), Failure> {
    if moving.is_empty() && !json {
        tell("nothing moves");
        return Ok(());
    }
    let mut listing = Listing::new(&[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("REPLICAS", "replicas"),
        ("ADDING", "adding"),
        ("REMOVING", "removing"),
    ]);
    for (at, it) in moving {
        let (topic, partition) = (at.topic.as_str(), at.partition);
        listing.row(vec![
            json!(topic),
            json!(partition),
            json!(it.replicas),
            json!(it.adding),
            json!(it.removing),
        ]);
    }
    listing.print(json)
}

async fn cancel(
    admin: &Admin,
    moving: BTreeMap<TopicPartition, Reassignment>,
    how: How,
) -> Result<(), Failure> {
    if moving.is_empty() || how.dry_run {
        return show(&moving, how.json);
    }
    let targets = moving.keys().map(|at| (at.clone(), None)).collect();
    let mut listing = Listing::new(&[("TOPIC", "topic"), ("PARTITION", "partition")]);
    for (at, ()) in all_done(admin.alter_partition_reassignments(&targets).await?)? {
        listing.row(vec![json!(at.topic.as_str()), json!(at.partition)]);
    }
    listing.tell_done("taken back", how.json)
}

/// A list of brokers names each of them once.
fn check_replicas(what: &str, replicas: &[i32]) -> Result<(), Failure> {
    let distinct: BTreeSet<_> = replicas.iter().collect();
    let problem = if replicas.is_empty() {
        "names no broker"
    } else if distinct.len() != replicas.len() {
        "names a broker twice"
    } else if replicas.iter().any(|id| *id < 0) {
        "names a broker below 0"
    } else {
        return Ok(());
    };
    Err(Failure::new(format!("{what} {problem}"))
        .with_hint("write ids as `towpath cluster brokers` shows them: 1,2,3"))
}

/// Where the partitions named go: a partition named alone to exactly these brokers, those of a whole topic by turns.
fn turned(
    now: &Partitions,
    named: &[PartitionsArgument],
    replicas: &[i32],
) -> BTreeMap<TopicPartition, Vec<i32>> {
    let alone = |at: &TopicPartition| {
        named.iter().any(|it| it.topic == at.topic && it.partition == Some(at.partition))
    };
    let target = |at: &TopicPartition| {
        let mut replicas = replicas.to_vec();
        if !alone(at) && !replicas.is_empty() {
            let by = usize::try_from(at.partition).unwrap_or(0) % replicas.len();
            replicas.rotate_left(by);
        }
        replicas
    };
    now.keys().map(|at| (at.clone(), target(at))).collect()
}

/// The targets that differ from what is.
fn moves(now: &Partitions, targets: BTreeMap<TopicPartition, Vec<i32>>) -> Result<Vec<Move>, Failure> {
    let mut moves = Vec::new();
    for (partition, to) in targets {
        let Some(found) = now.get(&partition) else {
            let TopicPartition { topic, partition } = partition;
            return Err(Failure::new(format!("there is no partition {partition} of a topic {topic}"))
                .with_hint("`towpath topics list` shows what there is"));
        };
        if found.replicas != to {
            moves.push(Move { partition, from: found.replicas.clone(), to });
        }
    }
    Ok(moves)
}

/// The format of `kafka-reassign-partitions`.
#[derive(Debug, Deserialize)]
struct ReassignmentFile {
    #[serde(default)]
    version: Option<i64>,
    partitions: Vec<ReassignmentEntry>,
}

#[derive(Debug, Deserialize)]
struct ReassignmentEntry {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
    #[serde(default)]
    log_dirs: Vec<String>,
}

fn read_file(path: &Path) -> Result<BTreeMap<TopicPartition, Vec<i32>>, Failure> {
    let failed = |problem: String| Failure::new(format!("{}: {problem}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > limits::CONFIG_FILE_BYTES_MAX {
        return Err(failed(format!("it has {size} bytes; {} are the most", limits::CONFIG_FILE_BYTES_MAX)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    parse_file(&text).map_err(|failure| match failure {
        Failure::Other { message, hint } => {
            let hint = hint.unwrap_or_else(|| {
                "write {\"version\": 1, \"partitions\": [{\"topic\": \"t\", \"partition\": 0, \"replicas\": [1, 2]}]}"
                    .to_owned()
            });
            failed(message).with_hint(hint)
        }
        other => other,
    })
}

fn parse_file(text: &str) -> Result<BTreeMap<TopicPartition, Vec<i32>>, Failure> {
    let file: ReassignmentFile = serde_json::from_str(text)
        .map_err(|error| Failure::new(format!("this is no reassignment: {error}")))?;
    if let Some(version) = file.version.filter(|version| *version != 1) {
        return Err(Failure::new(format!("`version` is {version}, and only 1 is known")));
    }
    let mut targets = BTreeMap::new();
    for entry in file.partitions {
        let at = TopicPartition::new(TopicName::new(&entry.topic)?, entry.partition);
        check_replicas(&format!("`replicas` of {at}"), &entry.replicas)?;
        if entry.log_dirs.iter().any(|dir| dir != "any") {
            return Err(Failure::new(format!("`log_dirs` of {at} names a directory"))
                .with_hint("leave it out, or write \"any\": a broker chooses its directories itself"));
        }
        if targets.insert(at.clone(), entry.replicas).is_some() {
            return Err(Failure::new(format!("{at} stands there twice")));
        }
    }
    Ok(targets)
}

/// Begins moves; all of them are asked for, whatever becomes of one.
pub(super) async fn begin(admin: &Admin, moves: &[Move]) -> Result<(), Failure> {
    if moves.is_empty() {
        return Ok(());
    }
    let targets = moves.iter().map(|it| (it.partition.clone(), Some(it.to.clone()))).collect();
    all_done(admin.alter_partition_reassignments(&targets).await?).map(drop)
}

/// Waits until everything is where it was to go.
pub(super) async fn wait(admin: &Admin, moves: &[Move]) -> Result<(), Failure> {
    if moves.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = moves.iter().map(|it| it.partition.clone()).collect();
    let topics: BTreeSet<_> = keys.iter().map(|at| at.topic.clone()).collect();
    let topics: Vec<_> = topics.into_iter().collect();
    let mut progress = Progress::new(moves.len());
    let mut settled: Option<Instant> = None;
    loop {
        let moving = admin.list_partition_reassignments(Some(&keys)).await?;
        let mut now = Partitions::new();
        for (name, topic) in all_done(admin.describe_topics(&topics).await?)? {
            super::insert(&mut now, &name, topic.partitions);
        }
        let open = still_open(moves, &moving, &now);
        progress.show(moves.len() - open.len());
        let Some(first) = open.first() else { return Ok(()) };
        if open.iter().any(|it| moving.contains_key(&it.partition)) {
            settled = None;
        } else if settled.get_or_insert_with(Instant::now).elapsed() > SETTLED_AFTER {
            let message = format!(
                "{} of {} moves were taken back, that of {} among them",
                open.len(),
                moves.len(),
                first.partition
            );
            return Err(Failure::new(message)
                .with_hint("`towpath topics describe TOPIC` shows where its replicas are"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The moves that are not over.
fn still_open<'a>(
    moves: &'a [Move],
    moving: &BTreeMap<TopicPartition, Reassignment>,
    now: &Partitions,
) -> Vec<&'a Move> {
    let there = |it: &Move| now.get(&it.partition).is_some_and(|partition| partition.replicas == it.to);
    moves.iter().filter(|it| moving.contains_key(&it.partition) || !there(it)).collect()
}

/// How many partitions are moved: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    told: Option<Instant>,
}

impl Progress {
    fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("moving {bar:30} {pos}/{len} partitions, {elapsed}");
            let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, total, told: None }
    }

    fn show(&mut self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
            bar.tick();
        } else if self.told.is_none_or(|told| told.elapsed() >= LINE_INTERVAL) {
            tell(&format!("moving: {done} of {} partitions are there", self.total));
            self.told = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, described};
    use super::*;

    fn named(names: &[&str]) -> Vec<PartitionsArgument> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn now() -> Partitions {
        (0..3).map(|number| (at("t", number), described(number, Some(1), &[1, 2], &[1, 2]))).collect()
    }

    #[test]
    fn whole_topics_are_turned_and_single_partitions_are_not() {
        let targets = turned(&now(), &named(&["t"]), &[1, 2, 3]);
        assert_eq!(targets.into_values().collect::<Vec<_>>(), [[1, 2, 3], [2, 3, 1], [3, 1, 2]]);
        let one = turned(&now(), &named(&["t:1"]), &[1, 2, 3]);
        assert_eq!(one[&at("t", 1)], [1, 2, 3]);
    }

    #[test]
    fn only_what_differs_moves() {
        let targets = BTreeMap::from([(at("t", 0), vec![1, 2]), (at("t", 1), vec![2, 1])]);
        let found = moves(&now(), targets).unwrap();
        assert_eq!(found, [Move { partition: at("t", 1), from: vec![1, 2], to: vec![2, 1] }]);
        let missing = moves(&now(), BTreeMap::from([(at("u", 0), vec![1])])).unwrap_err();
        assert!(missing.to_string().contains("no partition 0 of a topic u"), "{missing}");
        assert_eq!(
            table(&found).to_json()[0],
            json!({ "topic": "t", "partition": 1, "from": [1, 2], "to": [2, 1] })
        );
    }

    #[test]
    fn kafkas_files_are_read() {
        let targets = parse_file(
            r#"{"version":1,"partitions":[
                {"topic":"t","partition":0,"replicas":[3,1],"log_dirs":["any","any"]},
                {"topic":"u","partition":2,"replicas":[1]}
            ]}"#,
        )
        .unwrap();
        assert_eq!(targets, BTreeMap::from([(at("t", 0), vec![3, 1]), (at("u", 2), vec![1])]));
        let entry = |replicas: &str| format!("{{\"topic\":\"t\",\"partition\":0,\"replicas\":{replicas}}}");
        let one = |entry: &str| format!("{{\"version\":1,\"partitions\":[{entry}]}}");
        for (text, says) in [
            ("{}".to_owned(), "no reassignment"),
            ("{\"version\":2,\"partitions\":[]}".to_owned(), "only 1 is known"),
            (one(&entry("[]")), "names no broker"),
            (one(&entry("[1,1]")), "names a broker twice"),
            (one(&entry("[-1]")), "below 0"),
            (one(&format!("{0},{0}", entry("[1]"))), "stands there twice"),
            (one(&entry("[1],\"log_dirs\":[\"/d\"]")), "names a directory"),
            (one(&entry("[1]").replace("\"t\"", "\"a b\"")), "a b"),
        ] {
            let refused = parse_file(&text).unwrap_err();
            assert!(refused.to_string().contains(says), "{text}: {refused}");
        }
        let folder = tempfile::tempdir().unwrap();
        let Failure::Other { message, hint } = read_file(&folder.path().join("no.json")).unwrap_err() else {
            panic!("a failure of its own");
        };
        assert!(message.contains("no.json") && hint.is_none(), "{message}");
    }

    #[test]
    fn moves_are_over_when_the_metadata_says_so() {
        let wanted =
            [0, 1, 2].map(|number| Move { partition: at("t", number), from: vec![1, 2], to: vec![2, 3] });
        let mut now = now();
        now.insert(at("t", 1), described(1, Some(2), &[2, 3], &[2, 3]));
        now.insert(at("t", 2), described(2, Some(2), &[2, 3, 1], &[1, 2]));
        let reassignment = Reassignment { replicas: vec![2, 3, 1], adding: vec![3], removing: vec![1] };
        let moving = BTreeMap::from([(at("t", 2), reassignment)]);
        let open: Vec<_> =
            still_open(&wanted, &moving, &now).iter().map(|it| it.partition.partition).collect();
        assert_eq!(open, [0, 2]);
    }
}
