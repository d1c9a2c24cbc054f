//! Sources and sinks that are plugins, under kill -9: in Rust over a real Redis, which is killed as well, and in Python and
//! JavaScript over servers that stumble.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde_json::Value as Json;
use towpath_crash::{Fire, deliver};
use towpath_harness::process::{self, Options};
use towpath_harness::web::{Answer, Index, Pages};
use towpath_harness::{Redis, TempDir, Towpath, paths};

const PASSWORD: &str = "hunter2 hunter2";
const STREAMS: u64 = 3;
const KEYS: u64 = 97;

/// The components of a project or workspace, built as a user builds them.
fn build(folder: &str, to: &Path) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let mut command = process::command().unwrap();
    command.args(["plugin", "build"]).arg(paths::workspace().join(folder)).arg("--output").arg(to);
    let output = command.env("CARGO_TARGET_DIR", target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn yaml(plugins: &Path, redis: &Redis, out: &Path) -> String {
    let address = redis.address();
    let entry = |name: &str| {
        format!(
            "  {name}: {{ path: \"{}/{name}.wasm\", grants: {{ tcp: [\"{address}\"], secrets: [password] }} }}\n",
            plugins.display()
        )
    };
    format!(
        "plugins:\n{}{}pipelines:\n\
         \x20 in:\n    source: {{ type: redis_streams, address: \"{address}\", streams: [s0, s1, s2], key: nr, \
         password: \"${{env:REDIS_PASSWORD}}\" }}\n    topic: \"redis.{{stream}}\"\n\
         \x20 hashes:\n    topics: [\"redis.*\"]\n    sink: {{ type: redis_sink, address: \"{address}\", prefix: \"row:\", \
         password: \"${{env:REDIS_PASSWORD}}\" }}\n\
         \x20 files:\n    topics: [\"redis.*\"]\n    sink: {{ type: file, path: \"{}\", roll_bytes: 30000 }}\n",
        entry("redis_streams"),
        entry("redis_sink"),
        out.display()
    )
}

/// Adds numbered entries, each burst of them in one piece, until told to stop.
fn write(redis: &RwLock<Redis>, stop: &AtomicBool) {
    const SCRIPT: &str = "for i = 1, 20 do local v = redis.call('INCR', 'v'); \
        redis.call('XADD', 's' .. (v % ARGV[1]), '*', 'nr', v % ARGV[2], 'v', v) end";
    while !stop.load(Ordering::Relaxed) {
        let (streams, keys) = (STREAMS.to_string(), KEYS.to_string());
        // While the server is being killed there is nobody to hear it: what was not answered may have happened.
        let _heard = redis.read().cli(&["EVAL", SCRIPT, "0", &streams, &keys]);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers in the files of each topic, in order; where one stands in its row is what `number` tells.
fn numbers(directory: &Path, number: impl Fn(&Json) -> Option<u64>) -> BTreeMap<String, Vec<u64>> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    // `redis.s0-0-FIRST-LAST.jsonl`; nothing else is left.
    let place = |path: &Path| -> Option<(String, u64)> {
        let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?.to_owned();
        let mut parts = name.split('-');
        let topic = parts.next()?.to_owned();
        Some((topic, parts.nth(1)?.parse().ok()?))
    };
    files.retain(|path| place(path).is_some());
    files.sort_by_key(|path| place(path));
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for path in files {
        let (topic, _) = place(&path).unwrap();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let row: Json = serde_json::from_str(line).unwrap();
            let number = number(&row).unwrap_or_else(|| panic!("{line}"));
            numbers.entry(topic.clone()).or_default().push(number);
        }
    }
    numbers
}

/// Every entry is in the files once and in order, and the hashes hold the last of each key.
fn judge(redis: &Redis, out: &Path, seed: u64) {
    let total: u64 = redis.cli(&["GET", "v"]).unwrap().parse().unwrap();
    assert!(total > 200, "only {total} entries (seed {seed})");
    let numbers = numbers(out, |row| row["fields"]["v"].as_str()?.parse().ok());
    assert_eq!(numbers.len() as u64, STREAMS, "{:?} (seed {seed})", numbers.keys());
    for (topic, numbers) in numbers {
        let stream: u64 = topic.trim_start_matches("redis.s").parse().unwrap();
        let expected: Vec<u64> = (1..=total).filter(|v| v % STREAMS == stream).collect();
        assert_eq!(numbers, expected, "{topic} (seed {seed})");
    }
    for key in 0..KEYS {
        let fields: Json =
            serde_json::from_str(&redis.cli(&["HGET", &format!("row:{key}"), "fields"]).unwrap()).unwrap();
        // Each key's entries are spread over all streams: the last of one of them is what stays.
        let latest: Vec<u64> = (0..STREAMS)
            .filter_map(|stream| (1..=total).rev().find(|v| v % STREAMS == stream && v % KEYS == key))
            .collect();
        let seen: u64 = fields["v"].as_str().unwrap().parse().unwrap();
        assert!(latest.contains(&seen), "row:{key} is at {seen}, and not at one of {latest:?} (seed {seed})");
    }
}

/// The writer of entries, in a thread that ends when it is told to.
struct Writer {
    redis: Arc<RwLock<Redis>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(redis: Redis) -> Self {
        let (redis, stop) = (Arc::new(RwLock::new(redis)), Arc::new(AtomicBool::new(false)));
        let (shared, until) = (Arc::clone(&redis), Arc::clone(&stop));
        let thread = std::thread::spawn(move || write(&shared, &until));
        Self { redis, stop, thread }
    }

    fn stop(self) -> Arc<RwLock<Redis>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.redis
    }
}

#[test]
fn every_entry_arrives_once_and_in_order() {
    let folder = TempDir::new("plugins").unwrap();
    let (plugins, out) = (folder.join("plugins"), folder.join("out"));
    build("plugins/examples", &plugins);
    let redis = Redis::with_password(PASSWORD).unwrap();
    let options = Options::yaml(yaml(&plugins, &redis, &out)).env("REDIS_PASSWORD", PASSWORD);
    let mut towpath = Towpath::start(options).unwrap();
    let writer = Writer::start(redis);
    let mut fire = Fire::new().unwrap();
    let seed = fire.seed;
    for round in 0..6 {
        fire.strike(&mut towpath, Duration::from_millis(300)..Duration::from_millis(2500)).unwrap();
        if round % 2 == 1 {
            let mut redis = writer.redis.write();
            redis.kill9().unwrap();
            redis.start_again().unwrap();
        }
    }
    let redis = writer.stop();
    deliver(&mut towpath, Duration::from_secs(120)).unwrap();
    judge(&redis.read(), &out, seed);
    // R13
    let said = format!("{}{}", towpath.stdout(), towpath.stderr());
    assert!(!said.contains(PASSWORD), "the password was told (seed {seed})");
}

const TOKEN: &str = "hunter2 hunter2";

fn web_yaml(plugins: &Path, pages: &Pages, index: &Index, out: &Path) -> String {
    let entry = |name: &str, address: &str| {
        format!(
            "  {name}: {{ path: \"{}/{name}.wasm\", grants: {{ http: [\"{address}\"], secrets: [token] }} }}\n",
            plugins.display()
        )
    };
    let (from, to) = (pages.address(), index.address());
    format!(
        "plugins:\n{}{}pipelines:\n\
         \x20 in:\n    source: {{ type: rest_pages, url: \"http://{from}/items\", key: id, interval: 50ms, \
         token: \"${{env:TOKEN}}\" }}\n    topic: \"api.{{stream}}\"\n\
         \x20 documents:\n    topics: [\"api.*\"]\n    sink: {{ type: bulk_index, url: \"http://{to}\", \
         token: \"${{env:TOKEN}}\" }}\n\
         \x20 files:\n    topics: [\"api.*\"]\n    sink: {{ type: file, path: \"{}\", roll_bytes: 30000 }}\n",
        entry("rest_pages", &from),
        entry("bulk_index", &to),
        out.display()
    )
}

/// Adds items, and lets both servers stumble: they refuse, fail, or hang up before or after they have done what was asked.
fn stumble(pages: &Pages, index: &Index, stop: &AtomicBool) {
    let busy = || Answer::With(429, vec![("retry-after", "1".to_owned())], String::new());
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        pages.add(20);
        match round % 400 {
            100 => pages.answer_next([busy()]),
            200 => pages.answer_next([Answer::Hangup, Answer::status(500)]),
            150 => index.answer_next([(Answer::Hangup, true), (Answer::status(503), false)]),
            250 => index.answer_next([(Answer::Hangup, false), (Answer::status(500), true)]),
            350 => index.answer_next([(busy(), false)]),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Every item of the pages is in the files once and in order, and in the index.
#[test]
fn every_item_becomes_a_document() {
    let folder = TempDir::new("web").unwrap();
    let (plugins, out) = (folder.join("plugins"), folder.join("out"));
    build("plugins/examples/rest_pages", &plugins);
    build("plugins/examples/bulk_index", &plugins);
    let pages = Arc::new(Pages::start(250, Some(TOKEN)).unwrap());
    let index = Arc::new(Index::start(Some(TOKEN)).unwrap());
    pages.add(1);
    let options = Options::yaml(web_yaml(&plugins, &pages, &index, &out)).env("TOKEN", TOKEN);
    let mut towpath = Towpath::start(options).unwrap();
    // An interpreter takes a while to compile: one that is killed before would never get further.
    let deadline = Instant::now() + Duration::from_secs(300);
    while !has_moved(&towpath, "documents/sink/0") {
        assert!(Instant::now() < deadline, "nothing is delivered:\n{}", towpath.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (servers, until) = ((Arc::clone(&pages), Arc::clone(&index)), Arc::clone(&stop));
    let writer = std::thread::spawn(move || stumble(&servers.0, &servers.1, &until));
    let mut fire = Fire::new().unwrap();
    let seed = fire.seed;
    for _ in 0..6 {
        fire.strike(&mut towpath, Duration::from_millis(300)..Duration::from_millis(4000)).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    deliver(&mut towpath, Duration::from_secs(180)).unwrap();
    let total = pages.add(0);
    assert!(total > 200, "only {total} items (seed {seed})");
    let numbers =
        numbers(&out, |row| row["item"]["id"].as_u64().or_else(|| row["id"].as_str()?.parse().ok()));
    let expected: Vec<_> = (0..total as u64).collect();
    assert_eq!(numbers, [("api.items".to_owned(), expected)].into(), "(seed {seed})");
    let documents = index.documents("api.items");
    assert_eq!(documents.len(), total, "(seed {seed})");
    assert!(documents.iter().all(|(id, it)| it["item"]["text"] == format!("item {id}")), "(seed {seed})");
    // R13
    let said = format!("{}{}", towpath.stdout(), towpath.stderr());
    assert!(!said.contains(TOKEN), "the token was told (seed {seed})");
}

/// The same component with other bytes: a section that nobody reads stands behind it.
fn another(component: &[u8], number: u8) -> Vec<u8> {
    [component, &[0, 6, 4, b't', b'e', b's', b't', number][..]].concat()
}

fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

/// Whether a task has had records.
fn has_moved(towpath: &Towpath, id: &str) -> bool {
    let status = towpath.status().unwrap();
    let pipelines = status["pipelines"].as_array().unwrap();
    let mut tasks = pipelines.iter().flat_map(|pipeline| pipeline["tasks"].as_array().unwrap());
    tasks.any(|task| task["id"] == id && task["records"].as_u64() > Some(0))
}

/// Waits until a line was logged so many times.
fn wait_for(towpath: &Towpath, line: &str, times: usize) {
    let deadline = Instant::now() + Duration::from_secs(180);
    let said = || format!("{}{}", towpath.stdout(), towpath.stderr());
    while said().matches(line).count() < times {
        assert!(Instant::now() < deadline, "`{line}` was not said {times} times:\n{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The files of a source and of a sink are replaced while entries go through them: tasks go over between two batches, and
/// none of them fails. What is no component changes nothing.
#[test]
fn replaced_files_take_over_without_loss() {
    let folder = TempDir::new("replaced").unwrap();
    let (plugins, out) = (folder.join("plugins"), folder.join("out"));
    build("plugins/examples", &plugins);
    let redis = Redis::with_password(PASSWORD).unwrap();
    let options = Options::yaml(yaml(&plugins, &redis, &out)).env("REDIS_PASSWORD", PASSWORD);
    let mut towpath = Towpath::start(options).unwrap();
    let writer = Writer::start(redis);
    let files = ["redis_streams", "redis_sink"].map(|name| plugins.join(format!("{name}.wasm")));
    let good = files.each_ref().map(|path| fs::read(path).unwrap());
    // A task that was given no partition yet has nothing to go over with.
    let deadline = Instant::now() + Duration::from_secs(180);
    while !has_moved(&towpath, "hashes/sink/0") {
        assert!(Instant::now() < deadline, "nothing is delivered:\n{}", towpath.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    for round in 1..=3 {
        std::thread::sleep(Duration::from_millis(700));
        for (path, bytes) in files.iter().zip(&good) {
            replace(path, &another(bytes, round));
        }
        wait_for(&towpath, "a task has gone over to the plugin's new component", 2 * usize::from(round));
    }
    for (path, bytes) in files.iter().zip(&good) {
        replace(path, &bytes[..bytes.len() / 2]);
    }
    wait_for(&towpath, "the plugin's new file cannot be used; the old one goes on", 2);
    std::thread::sleep(Duration::from_millis(500));
    let redis = writer.stop();
    let said = format!("{}{}", towpath.stdout(), towpath.stderr());
    assert!(!said.contains("PLUGIN_") && !said.contains("REDIS_"), "a task failed:\n{said}");
    for (path, bytes) in files.iter().zip(&good) {
        replace(path, bytes);
    }
    deliver(&mut towpath, Duration::from_secs(120)).unwrap();
    judge(&redis.read(), &out, 0);
}
