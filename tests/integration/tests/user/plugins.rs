//! A plugin from nothing to a running pipeline, as its page says.

use std::io::Write as _;
use std::path::Path;

use towpath_harness::Towpath;
use towpath_harness::process::Options;

use super::support::{Said, ask, type_in, wait_until};

/// A command in a folder; what it compiles is kept with what other tests compile.
fn towpath_in(folder: &Path, arguments: &[&str]) -> Said {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    type_in(folder, arguments, "", &[("CARGO_TARGET_DIR", target.to_str().unwrap())])
}

const YAML: &str = "plugins:\n  no_debug: { path: no_debug/no_debug.wasm }\npipelines:\n  logs:\n    source: { type: file, \
                    paths: [in.jsonl], format: json }\n    transforms:\n      - { type: no_debug, field: level, text: \
                    debug }\n    topic: logs\n";

#[test]
fn a_plugin_is_made_built_checked_and_run() {
    let mut towpath = Towpath::prepare(Options::yaml(YAML)).unwrap();
    let folder = towpath.folder().to_owned();
    towpath_in(&folder, &["plugin", "new", "no_debug"]).says(0, &["no_debug/src/lib.rs", "plugin build"]);
    towpath_in(&folder, &["plugin", "new", "no_debug"]).says(1, &["there already"]);
    std::fs::write(folder.join("right.yaml"), YAML).unwrap();
    let before = towpath_in(&folder, &["validate", "right.yaml"]);
    before.says(2, &["no_debug.wasm cannot be read", "right.yaml:2:21", "1 problem"]);
    towpath_in(&folder, &["plugin", "build", "no_debug"]).says(0, &["no_debug/no_debug.wasm"]);
    let options = "{ field: level, text: debug }";
    let file = "no_debug/no_debug.wasm";
    towpath_in(&folder, &["plugin", "check", file, "--options", options]).says(0, &["keeps the contract"]);
    towpath_in(&folder, &["plugin", "check", file]).says(2, &["`field` is missing", "`text` is missing"]);
    let measured =
        ["plugin", "bench", file, "--options", options, "--records", "8", "--seconds", "1", "--json"];
    let measured = towpath_in(&folder, &measured).json();
    assert_eq!((&measured["passed"], &measured["rejected"]), (&measured["records"], &0.into()), "{measured}");
    assert!(measured["records_per_second"].as_f64().is_some_and(|it| it > 0.0), "{measured}");
    let seen = towpath_in(&folder, &["plugin", "inspect", file, "--json"]).json();
    assert_eq!((&seen["name"], &seen["worlds"][0]), (&"no_debug".into(), &"transform".into()), "{seen}");
    assert_eq!(seen["options"].as_array().unwrap().len(), 2, "{seen}");
    towpath_in(&folder, &["plugin", "inspect", "towpath.yaml"]).says(1, &["no WASM component"]);
    let wrong = YAML.replace("field: level", "feild: level");
    std::fs::write(folder.join("wrong.yaml"), wrong).unwrap();
    towpath_in(&folder, &["validate", "wrong.yaml"]).says(2, &["did you mean `field`?", "wrong.yaml:7:27"]);
    let lines = "{\"level\":\"info\",\"n\":1}\n{\"level\":\"debug\",\"n\":2}\n{\"level\":\"warn\",\"n\":3}\n";
    std::fs::write(folder.join("in.jsonl"), lines).unwrap();
    towpath.start_again().unwrap();
    let numbers = || {
        let records = ask(&towpath, &["consume", "logs", "-f", "-e", "--json"]);
        if records.code != 0 {
            return Vec::new();
        }
        let value = |it: &serde_json::Value| it["value"].as_str().unwrap_or_default().to_owned();
        records.json_lines().iter().map(value).collect()
    };
    let values = wait_until("two records came", numbers, |values| values.len() == 2);
    assert!(values[0].contains("info") && values[1].contains("warn"), "{values:?}");
    // Built anew while it runs, it keeps what it dropped before: lines are written until the first comes through.
    let source = folder.join("no_debug/src/lib.rs");
    let inverted = std::fs::read_to_string(&source).unwrap().replace("if value != Some", "if value == Some");
    std::fs::write(&source, inverted).unwrap();
    towpath_in(&folder, &["plugin", "build", "no_debug"]).says(0, &["no_debug/no_debug.wasm"]);
    let look = || {
        let mut file = std::fs::OpenOptions::new().append(true).open(folder.join("in.jsonl")).unwrap();
        file.write_all(b"{\"level\":\"debug\",\"n\":4}\n").unwrap();
        numbers()
    };
    let values = wait_until("the new component took over", look, |values| values.len() > 2);
    assert!(values[2].contains("debug"), "{values:?}");
}
