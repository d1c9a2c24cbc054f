//! Progress: bars on a terminal, lines elsewhere.

use std::process::Command;

use towpath_harness::child::Guarded;
use towpath_harness::{TempDir, paths, ports::free_port, process};

use super::support::{LONG, type_in};

fn configuration(folder: &TempDir) {
    let (kafka, http) = (free_port().unwrap(), free_port().unwrap());
    let yaml = format!(
        "node: {{ kafka: \"127.0.0.1:{kafka}\", http: \"127.0.0.1:{http}\" }}\npipelines:\n  p:\n    \
         source: {{ type: generate, records: 900, rate: 600 }}\n    topic: t\n    sink: {{ type: file, path: out }}\n"
    );
    std::fs::write(folder.join("c.yaml"), yaml).unwrap();
}

#[test]
fn a_terminal_shows_bars_and_what_is_piped_shows_none() {
    let folder = TempDir::new("terminal").unwrap();
    configuration(&folder);
    let binary = process::binary().unwrap();
    // util-linux's `script` gives the command a terminal of its own.
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} up c.yaml --until-idle", binary.display()), "typescript"]);
    command.current_dir(folder.path()).env("TERM", "xterm");
    command.env("XDG_CACHE_HOME", paths::cache().unwrap());
    let output = Guarded::output("script", command, LONG).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.contains("█") && output.stdout.contains("/900"), "{}", output.stdout);
    assert!(output.stdout.contains("p/sink/0"), "{}", output.stdout);

    for made in ["towpath-data", "out"] {
        std::fs::remove_dir_all(folder.join(made)).unwrap();
    }
    let said = type_in(folder.path(), &["up", "c.yaml", "--until-idle", "--json"], "", &[]);
    assert!(!said.err.contains('█') && !said.err.contains('\u{1b}'), "{}", said.err);
    let tasks = said.json();
    let sink = tasks.as_array().unwrap().iter().find(|task| task["task"] == "p/sink/0").unwrap().clone();
    assert_eq!((&sink["records"], &sink["position"]), (&900.into(), &"t-0 at 900".into()));
}
