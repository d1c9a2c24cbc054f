//! The files: one for each API, with every request and its answer in hex and the answer in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use towpath_wire::ApiKey;

use crate::settle::PLACES;
use crate::talk::{Answer, Exchange, name};

/// The variable that has the files written anew.
pub(crate) const WRITE: &str = "TOWPATH_GOLDEN";
/// Bytes on a line of hex.
const LINE_BYTES: usize = 60;
/// Fields that are left out of the words.
const EMPTY: &[&str] = &[
    ": 0,",
    ": None,",
    ": false,",
    ": [],",
    ": \"\",",
    ": b\"\",",
    ": 00000000-0000-0000-0000-000000000000,",
];
/// Characters of a field of bytes in words.
const BYTES_WORDS_MAX: usize = 80;
/// Characters around a difference that are shown.
const AROUND: usize = 60;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/files")
}

fn file_name(key: i16) -> String {
    format!("{key:02}-{}.txt", name(key))
}

/// The texts of all files, by their names.
fn texts(exchanges: &[Exchange]) -> BTreeMap<String, String> {
    let mut keys: Vec<i16> = exchanges.iter().map(|it| it.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| (file_name(key), text(key, exchanges))).collect()
}

fn text(key: i16, exchanges: &[Exchange]) -> String {
    let mut text = format!("# {}, key {key}", name(key));
    if let Ok(api) = ApiKey::try_from(key) {
        let versions = api.stable_versions();
        let _ = write!(text, ", versions {} to {}", versions.min, versions.max);
    }
    let _ = writeln!(
        text,
        ". Written by the test, not by hand: {WRITE}=write cargo test -p towpath-broker --test golden"
    );
    text.push_str("# `>` a request's frame and `<` its answer's, in hex, without their lengths; `=` the answer in words, without what is 0, empty or null.\n");
    for (_, places) in PLACES.iter().filter(|(api, _)| api.code() == key) {
        let _ = writeln!(text, "# Varies from run to run, and is settled: {places}.");
    }
    for exchange in exchanges.iter().filter(|it| it.key == key) {
        text.push('\n');
        text.push_str(&block(exchange));
    }
    text
}

/// One exchange as it stands in its file.
fn block(exchange: &Exchange) -> String {
    let mut text = format!("v{} {}\n", exchange.version, exchange.case);
    hex(&mut text, '>', &exchange.request);
    if let Answer::Frame(frame) = &exchange.answer {
        hex(&mut text, '<', frame);
    }
    let says_much = |line: &&str| !EMPTY.iter().any(|empty| line.ends_with(empty));
    let lines = exchange.shown.lines().map(str::trim).filter(says_much);
    let words: Vec<String> = lines.map(shortened).collect();
    let _ = writeln!(text, "= {}", words.join(" "));
    text
}

/// A field in words; of long bytes only the beginning, since the hex has all of them.
fn shortened(field: &str) -> String {
    match field.char_indices().nth(BYTES_WORDS_MAX) {
        Some((at, _)) if field.contains("b\"") => format!("{}…,", &field[..at]),
        _ => field.to_owned(),
    }
}

fn hex(text: &mut String, sign: char, bytes: &[u8]) {
    for line in bytes.chunks(LINE_BYTES) {
        let _ = write!(text, "{sign} ");
        for byte in line {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
}

/// Writes the files anew, and removes those of APIs that are gone.
pub(crate) fn write(exchanges: &[Exchange]) {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, text) in texts(exchanges) {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// What differs from the files, in words; empty if nothing does.
pub(crate) fn differences(exchanges: &[Exchange]) -> String {
    let folder = folder();
    let mut told = String::new();
    let texts = texts(exchanges);
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !texts.contains_key(&name) {
            let _ = writeln!(told, "{name}: there is no such API any more");
        }
    }
    for (name, text) in &texts {
        match std::fs::read_to_string(folder.join(name)) {
            Ok(kept) => differ(&mut told, name, &kept, text),
            Err(error) => {
                let _ = writeln!(told, "{name}: {error}");
            }
        }
    }
    told
}

fn differ(told: &mut String, name: &str, kept: &str, now: &str) {
    let (kept, now) = (blocks(kept), blocks(now));
    for (title, block) in &kept {
        match now.iter().find(|(other, _)| other == title) {
            None => {
                let _ = writeln!(told, "{name}, {title}: is kept, but not asked any more");
            }
            Some((_, other)) if other != block => {
                let _ = writeln!(told, "{name}, {title}:");
                for sign in ['>', '<', '='] {
                    point(told, sign, &part(block, sign), &part(other, sign));
                }
            }
            Some(_) => {}
        }
    }
    for (title, _) in now.iter().filter(|(title, _)| !kept.iter().any(|(other, _)| other == title)) {
        let _ = writeln!(told, "{name}, {title}: is not kept");
    }
}

/// The blocks of a file, each with its first line.
fn blocks(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("\n\n").map(str::trim_end);
    blocks.map(|block| (block.lines().next().unwrap_or_default().to_owned(), block.to_owned())).collect()
}

/// The lines of a block that begin with `sign`, as one.
fn part(block: &str, sign: char) -> String {
    block.lines().filter_map(|line| line.strip_prefix(sign)).map(str::trim).collect()
}

/// Shows where two lines part, and where they come together again.
fn point(told: &mut String, sign: char, kept: &str, now: &str) {
    if kept == now {
        return;
    }
    let (a, b): (Vec<char>, Vec<char>) = (kept.chars().collect(), now.chars().collect());
    let front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let room = a.len().min(b.len()) - front;
    let back = a.iter().rev().zip(b.iter().rev()).take(room).take_while(|(a, b)| a == b).count();
    let show = |it: &[char]| {
        let (from, to) = (front.saturating_sub(AROUND), (it.len() - back + AROUND).min(it.len()));
        let cut: String = it[from..to].iter().collect();
        format!("{}{cut}{}", if from > 0 { "…" } else { "" }, if to < it.len() { "…" } else { "" })
    };
    let _ = writeln!(told, "  {sign} kept {}\n  {sign} now  {}", show(&a), show(&b));
}
