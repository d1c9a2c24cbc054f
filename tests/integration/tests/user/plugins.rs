//! A plugin from nothing to a running pipeline, as its page says.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use towpath_harness::Towpath;
use towpath_harness::process::Options;

use super::support::{LONG, Said, ask, task, type_in, wait_until};

/// A command in a folder; what it compiles is kept with what other tests compile.
pub(crate) fn towpath_in(folder: &Path, arguments: &[&str]) -> Said {
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

/// The templates of JavaScript, Python, C and Go, side by side in one pipeline each.
#[test]
fn plugins_in_other_languages_run_as_those_in_rust_do() {
    let languages = ["js", "python", "c", "go"];
    let mut yaml = "plugins:\n".to_owned();
    for lang in languages {
        yaml += &format!("  no_debug_{lang}: {{ path: no_debug_{lang}/no_debug_{lang}.wasm }}\n");
    }
    yaml += "pipelines:\n";
    for lang in languages {
        yaml += &format!(
            "  {lang}:\n    source: {{ type: file, paths: [in.jsonl], format: json }}\n    transforms:\n      - {{ type: \
             no_debug_{lang}, field: level, text: debug }}\n    topic: {lang}\n"
        );
    }
    let mut towpath = Towpath::prepare(Options::yaml(yaml)).unwrap();
    let folder = towpath.folder().to_owned();
    for lang in languages {
        let name = format!("no_debug_{lang}");
        towpath_in(&folder, &["plugin", "new", "--lang", lang, &name])
            .says(0, &["is a plugin now", "plugin build"]);
        towpath_in(&folder, &["plugin", "build", &name]).says(0, &[&format!("{name}/{name}.wasm")]);
        let file = format!("{name}/{name}.wasm");
        towpath_in(&folder, &["plugin", "check", &file])
            .says(2, &["`field` is missing", "`text` is missing"]);
    }
    let refused = towpath_in(&folder, &["plugin", "new", "--lang", "c", "--kind", "sink", "other"]);
    refused.says(1, &["plugins in C are transforms so far", "--lang rust"]);
    towpath_in(&folder, &["plugin", "build", "."])
        .says(1, &["no Cargo.toml, package.json, pyproject.toml, towpath.toml or go.mod"]);
    let lines = "{\"level\":\"info\",\"n\":1}\n{\"level\":\"debug\",\"n\":2}\n{\"level\":\"warn\",\"n\":3}\n";
    std::fs::write(folder.join("in.jsonl"), lines).unwrap();
    towpath.start_again().unwrap();
    for lang in languages {
        let values = || {
            let records = ask(&towpath, &["consume", lang, "-f", "-e", "--json"]);
            if records.code != 0 {
                return Vec::new();
            }
            let value = |it: &serde_json::Value| it["value"].as_str().unwrap_or_default().to_owned();
            records.json_lines().iter().map(value).collect()
        };
        let values = wait_until("two records came", values, |values: &Vec<_>| values.len() == 2);
        assert!(values[0].contains("info") && values[1].contains("warn"), "{lang}: {values:?}");
    }
}

/// Serves the same page to everybody, as long as the test runs.
fn page(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
            let _ = stream.write_all((head + text).as_bytes());
        }
    });
    address
}

#[test]
fn a_source_reaches_what_it_was_granted() {
    let address = page("one\ntwo\nnot who");
    let yaml = |grants: &str| {
        format!(
            "plugins:\n  page: {{ path: page/page.wasm{grants} }}\npipelines:\n  lines:\n    source: {{ type: page, url: \
             \"http://{address}/\" }}\n    topic: lines\n"
        )
    };
    let mut towpath = Towpath::prepare(Options::yaml(yaml(""))).unwrap();
    let folder = towpath.folder().to_owned();
    towpath_in(&folder, &["plugin", "new", "--kind", "source", "page"]).says(0, &["page/src/lib.rs"]);
    towpath_in(&folder, &["plugin", "build", "page"]).says(0, &["page/page.wasm"]);
    let seen = towpath_in(&folder, &["plugin", "inspect", "page/page.wasm", "--json"]).json();
    assert_eq!(seen["worlds"][0], "source", "{seen}");
    let check = ["plugin", "check", "page/page.wasm", "--options", "{ url: \"http://x/\" }"];
    towpath_in(&folder, &check).says(0, &["is a source, and takes these options"]);
    std::fs::write(folder.join("wrong.yaml"), yaml(", grants: { http: [\"http://x/\"] }")).unwrap();
    towpath_in(&folder, &["validate", "wrong.yaml"]).says(2, &["`http://x/` is no host", "wrong.yaml:2:"]);
    towpath.start_again().unwrap();
    let refused = |task: &serde_json::Value| task.to_string().contains("PLUGIN_GRANT");
    let refused = wait_until("it is refused", || task(&towpath, "lines/source/0"), refused).to_string();
    assert!(refused.contains("plugins.page.grants.http: ") && refused.contains(&address), "{refused}");
    towpath.terminate(LONG).unwrap();
    towpath.set_yaml(yaml(&format!(", grants: {{ http: [\"{address}\"] }}"))).unwrap();
    towpath.start_again().unwrap();
    let lines = || {
        let records = ask(&towpath, &["consume", "lines", "-f", "-e", "--json"]);
        if records.code == 0 { records.json_lines() } else { Vec::new() }
    };
    let lines = wait_until("two lines came", lines, |lines| lines.len() == 2);
    assert!(lines[0]["value"].as_str().unwrap().contains("one"), "{lines:?}");
}
