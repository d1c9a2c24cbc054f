//! The README's first command, followed word by word.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use towpath_harness::child::{Guarded, Output};
use towpath_harness::{TempDir, http, paths, ports::free_port, process};

use super::support::{LONG, interrupt, type_in, wait_until};

const FILE: &str = "configs/quickstart/quickstart.yaml";

/// A folder with the examples, on ports of its own.
struct Copy {
    folder: TempDir,
    kafka: u16,
    http: u16,
}

impl Copy {
    fn new() -> Self {
        let folder = TempDir::new("quickstart").unwrap();
        let (kafka, http) = (free_port().unwrap(), free_port().unwrap());
        std::fs::create_dir_all(folder.join("configs/quickstart")).unwrap();
        let copy = Self { folder, kafka, http };
        copy.write(kafka, http);
        copy
    }

    fn write(&self, kafka: u16, http: u16) {
        let text = std::fs::read_to_string(paths::workspace().join(FILE)).unwrap();
        let node = format!("node:\n  kafka: 127.0.0.1:{kafka}\n  http: 127.0.0.1:{http}\n");
        let changed = text.replacen("node:\n", &node, 1);
        assert_ne!(text, changed);
        std::fs::write(self.folder.join(FILE), changed).unwrap();
    }

    fn up(&self, name: &str) -> Guarded {
        let mut command = process::command().unwrap();
        command.args(["up", "configs/quickstart"]).current_dir(self.folder.path());
        let (out, err) = (self.folder.join("out"), self.folder.join(name));
        let child = Guarded::spawn("towpath up", command, &out, &err).unwrap();
        let address = ([127, 0, 0, 1], self.http).into();
        http::wait_ok(address, "/ready", LONG).unwrap();
        child
    }

    /// Runs a line as it is printed for people who have cargo, with the binary that is built already.
    fn type_line(&self, line: &str) -> Output {
        let binary = process::binary().unwrap();
        let script = format!("cargo() {{ shift 3; \"{}\" \"$@\"; }}; {line}", binary.display());
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", &script]).current_dir(self.folder.path());
        command.env("XDG_CACHE_HOME", paths::cache().unwrap());
        command.env("TOWPATH_BOOTSTRAP_SERVER", format!("127.0.0.1:{}", self.kafka));
        command.env("TOWPATH_HTTP", format!("127.0.0.1:{}", self.http));
        Guarded::output(line, command, LONG).unwrap()
    }

    /// How many orders the second database holds, and the highest number among them.
    fn copied(&self) -> String {
        rows(&self.folder.join("towpath-data/quickstart/copy.db"))
    }
}

fn rows(path: &Path) -> String {
    if !path.exists() {
        return String::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::{Connection as _, Row as _};
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let found =
            sqlx::query("SELECT count(*) || '|' || max(id) FROM orders").fetch_one(&mut connection).await;
        found.map_or_else(|error| error.to_string(), |row| row.get(0))
    })
}

#[test]
fn the_quickstart_does_what_it_says() {
    let copy = Copy::new();
    let checked = type_in(copy.folder.path(), &["check", "configs/quickstart"], "", &[]);
    checked.says(0, &["the pipeline shop_application makes ./towpath-data/quickstart/shop.db"]);
    let mut up = copy.up("err-1");
    wait_until("a thousand orders are copied", || copy.copied(), |rows| rows == "1000|999");

    // What it says to type works as it stands there.
    let said = up.stderr();
    let lines: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let line = |part: &str| {
        *lines.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {said}"))
    };
    let consumed = copy.type_line(&format!("{} | head -n 3", line("consume")));
    assert_eq!(consumed.stdout.lines().count(), 3, "{consumed:?}");
    assert!(consumed.stdout.lines().all(|line| line.contains("\"op\":\"r\"")), "{consumed:?}");
    assert_eq!(consumed.stderr, "", "a closed pipe is no error");
    let produced = copy.type_line(line("produce"));
    assert!(
        produced.status.success() && produced.stderr.contains("1 record written to orders"),
        "{produced:?}"
    );
    wait_until("the new order is copied", || copy.copied(), |rows| rows == "1001|100001");
    let tail = line("tail -f").replace("tail -f", "tail -qn 1");
    wait_until(
        "the change is in the files",
        || copy.type_line(&tail).stdout,
        |text| text.contains("narrowboat"),
    );
    let status = copy.type_line(line("pipelines status"));
    assert!(status.status.success(), "{status:?}");
    for task in ["capture/source/0", "copy/sink/0", "files/sink/0", "shop_application/sink/0"] {
        let shown = status.stdout.lines().find(|line| line.starts_with(task)).unwrap_or_default();
        assert!(shown.contains("RUNNING"), "{status:?}");
    }
    assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");

    // Ctrl-C, which a terminal and a wrapper may both pass on.
    interrupt(up.pid());
    interrupt(up.pid());
    assert!(up.wait(LONG).unwrap().success(), "{}", up.log_tail());

    let mut up = copy.up("err-2");
    let produced = copy.type_line(&line("produce").replace("100001", "100002"));
    assert!(produced.status.success(), "{produced:?}");
    wait_until("it goes on", || copy.copied(), |rows| rows == "1002|100002");
    assert!(up.terminate(LONG).unwrap().success(), "{}", up.log_tail());
}

#[test]
fn a_second_start_says_what_is_in_its_way() {
    let copy = Copy::new();
    let _up = copy.up("err");
    let second = || type_in(copy.folder.path(), &["up", "configs/quickstart"], "", &[]);
    second().says(1, &["HTTP cannot listen on", "in use", "towpath pipelines status"]);
    let (kafka, http) = (free_port().unwrap(), free_port().unwrap());
    copy.write(copy.kafka, http);
    second().says(1, &["the broker cannot listen on", "in use", "`kafka:`"]);
    copy.write(kafka, http);
    second().says(1, &["quickstart/broker is in use by another process", "data_dir:"]);
}
