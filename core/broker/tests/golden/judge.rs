//! Apache Kafka as the judge of our answers: the same is said to both, and what they answer is compared field by
//! field. Ids count by their order, and of messages for people only whether they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use towpath_harness::{Kafka, kafka};

use crate::families;
use crate::talk::{Exchange, Server, name};

/// What may differ: lines of `API | case | path | reason`; `*` at the end stands for anything that follows.
const ALLOWED: &str = include_str!("kafka-differences.txt");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "three minutes of Apache Kafka: tests/soak/goldens"]
async fn kafka_answers_the_same() {
    let options = kafka::Options::default().set("log.initial.task.delay.ms", "600000");
    let kafka = tokio::task::spawn_blocking(move || Kafka::start(&options).unwrap()).await.unwrap();
    let (broker, _dir) = crate::start().await;
    let (ours, theirs) = (Server::Ours(&broker), Server::Kafka(kafka.address()));
    let mut found = Found::new();
    let mut ids = (Vec::new(), Vec::new());
    let mut all = (Vec::new(), Vec::new());
    for family in families::ALL {
        let (ours, theirs) = (family.run(ours).await, family.run(theirs).await);
        compare(&mut found, &ours, &theirs, &mut ids, kafka.port());
        // Said at once: what follows may not come to its end.
        eprintln!("{family:?}, differences so far:\n{}", undeclared(&found));
        all.0.extend(ours);
        all.1.extend(theirs);
    }
    let malformed = (families::malformed(ours, &all.0).await, families::malformed(theirs, &all.1).await);
    compare(&mut found, &malformed.0, &malformed.1, &mut ids, kafka.port());
    broker.shutdown().await.unwrap();
    eprintln!("What differs, as declared:\n{}", declared(&found));
    let told = undeclared(&found) + &outdated(&found);
    assert!(told.is_empty(), "{told}");
}

/// Differences by API, case and path, with the values.
type Found = BTreeMap<(String, String, String), String>;

fn compare(
    found: &mut Found,
    ours: &[Exchange],
    theirs: &[Exchange],
    ids: &mut (Vec<String>, Vec<String>),
    port: u16,
) {
    let port = port.to_string();
    assert_eq!(ours.len(), theirs.len(), "the same is asked of both");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!((ours.key, ours.version, &ours.case), (theirs.key, theirs.version, &theirs.case));
        let mut a = flat(&ours.shown, &mut ids.0);
        let mut b = flat(&theirs.shown, &mut ids.1);
        for value in b.iter_mut().filter(|(path, value)| path.ends_with("port") && **value == port) {
            *value.1 = "9092".to_owned();
        }
        a.retain(|path, value| {
            let is_same = b.get(path) == Some(value);
            if is_same {
                b.remove(path);
            }
            !is_same
        });
        let paths: BTreeSet<_> = a.keys().chain(b.keys()).cloned().collect();
        for path in paths {
            let at = (name(ours.key).to_owned(), ours.case.clone(), without_indexes(&path));
            let none = "-".to_owned();
            let (a, b) = (a.get(&path).unwrap_or(&none), b.get(&path).unwrap_or(&none));
            let told = found.entry(at).or_default();
            if told.len() < TOLD_MAX {
                let _ = write!(told, " [v{} ours {a}, Kafka's {b}]", ours.version);
            }
        }
    }
}

/// Characters of the values told of one difference.
const TOLD_MAX: usize = 200;

type At = (String, String, String);

/// The lines of the list.
fn allowed() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = ALLOWED.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split('|').map(str::trim).collect())
}

fn allows(line: &[&str], (api, case, path): &At) -> bool {
    let &[an_api, a_case, a_path, _] = line else { panic!("four parts: {line:?}") };
    (an_api == "*" || an_api == api)
        && (a_case == "*"
            || a_case == case
            || a_case.strip_suffix('*').is_some_and(|it| case.starts_with(it)))
        && (a_path == "*"
            || a_path == path
            || a_path.strip_suffix('*').is_some_and(|it| path.starts_with(it)))
}

/// Differences that no line allows.
fn undeclared(found: &Found) -> String {
    shown(found, |at| !allowed().any(|line| allows(&line, at)))
}

/// Differences that a line allows.
fn declared(found: &Found) -> String {
    shown(found, |at| allowed().any(|line| allows(&line, at)))
}

fn shown(found: &Found, is_shown: impl Fn(&At) -> bool) -> String {
    let mut told = String::new();
    for (at, values) in found.iter().filter(|(at, _)| is_shown(at)) {
        let _ = writeln!(told, "{} | {} | {} | {values}", at.0, at.1, at.2);
    }
    told
}

/// Lines that allow what does not differ.
fn outdated(found: &Found) -> String {
    let mut told = String::new();
    let always = allowed().filter(|line| !line[3].starts_with("sometimes"));
    for line in always.filter(|line| !found.keys().any(|at| allows(line, at))) {
        let _ = writeln!(told, "this does not differ any more: {}", line.join(" | "));
    }
    told
}

/// The fields of a message that is shown on several lines, by their paths.
fn flat(shown: &str, ids: &mut Vec<String>) -> BTreeMap<String, String> {
    // What is open: its path, and for lists how many entries were seen.
    let mut open: Vec<(String, Option<usize>)> = Vec::new();
    let mut fields = BTreeMap::new();
    for line in shown.lines() {
        let line = line.trim().trim_end_matches(',');
        if matches!(line, "}" | "]" | ")") {
            if let Some((path, Some(entries))) = open.pop() {
                fields.insert(format!("{path}.len"), entries.to_string());
            }
            continue;
        }
        let (label, value) = match line.split_once(": ") {
            Some((label, value)) if label.chars().all(|it| it.is_alphanumeric() || it == '_') => {
                (label, value)
            }
            _ => ("", line),
        };
        let path = match open.last_mut() {
            None => String::new(),
            Some((path, Some(entries))) => {
                *entries += 1;
                format!("{path}[{}]", *entries - 1)
            }
            Some((path, None)) if label.is_empty() => path.clone(),
            Some((path, None)) if path.is_empty() => label.to_owned(),
            Some((path, None)) => format!("{path}.{label}"),
        };
        match value.chars().last() {
            Some('{' | '(') => open.push((path, None)),
            Some('[') => open.push((path, Some(0))),
            _ if value == "[]" => drop(fields.insert(format!("{path}.len"), "0".to_owned())),
            _ => drop(fields.insert(path.clone(), judged(&path, value, ids))),
        }
    }
    fields
}

/// A value as it is compared.
fn judged(path: &str, value: &str, ids: &mut Vec<String>) -> String {
    if path.ends_with("error_message") && value != "None" {
        return "a text".to_owned();
    }
    if path.ends_with("documentation") && value.starts_with('"') {
        return "a text".to_owned();
    }
    if path.ends_with("log_dir") {
        return "a path".to_owned();
    }
    if path.ends_with("producer_id") && value != "-1" {
        let at = ids.iter().position(|it| it == value).unwrap_or_else(|| {
            ids.push(value.to_owned());
            ids.len() - 1
        });
        return format!("producer {at}");
    }
    value.to_owned()
}

fn without_indexes(path: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for it in path.chars() {
        inside = match it {
            '[' => true,
            ']' => false,
            _ => inside,
        };
        if !inside || it == '[' {
            text.push(it);
        }
    }
    text
}
