//! Plugins by name and version: installed, locked, signed, and refused when they are not what they were.

use std::path::Path;

use serde_json::{Value as Json, json};
use towpath_harness::Towpath;
use towpath_harness::process::Options;

use super::plugins::towpath_in;
use super::support::{LONG, ask, wait_until};

/// A pipeline through a plugin, under what the YAML says of plugins.
fn yaml(plugins: &str) -> String {
    format!(
        "{plugins}\npipelines:\n  logs:\n    source: {{ type: file, paths: [in.jsonl], format: json }}\n    transforms:\n      \
         - {{ type: mine, field: level, text: debug }}\n    topic: logs\n"
    )
}

/// Makes a plugin, and returns its component.
fn made(folder: &Path, name: &str) -> Vec<u8> {
    towpath_in(folder, &["plugin", "new", name]).says(0, &["plugin build"]);
    towpath_in(folder, &["plugin", "build", name]).says(0, &[name]);
    std::fs::write(folder.join("in.jsonl"), "{\"level\":\"info\"}\n{\"level\":\"debug\"}\n").unwrap();
    std::fs::read(folder.join(format!("{name}/{name}.wasm"))).unwrap()
}

/// The same plugin, and other bytes: one more section, which nobody reads.
fn altered(component: &[u8]) -> Vec<u8> {
    [component, b"\0\x02\x01x"].concat()
}

/// Writes beside and renames, as whoever replaces a file does.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn told(towpath: &Towpath, text: &str) {
    wait_until(text, || towpath.stderr(), |said| said.contains(text));
}

/// The problem that `validate` finds.
fn problem(folder: &Path, arguments: &[&str]) -> Json {
    let said = towpath_in(folder, &[&["validate", "towpath.yaml", "--json"], arguments].concat());
    assert_eq!(said.code, 2, "{}{}", said.out, said.err);
    let problems: Json = serde_json::from_str(&said.err).unwrap();
    assert_eq!(problems["problems"].as_array().unwrap().len(), 1, "{problems}");
    problems["problems"][0].clone()
}

fn says(problem: &Json, code: &str, message: &str, hint: &str) {
    let has = |part: &str, text: &str| problem[part].as_str().unwrap_or_default().contains(text);
    assert!(problem["code"] == code && has("message", message) && has("hint", hint), "{problem}");
}

#[test]
fn a_plugin_is_installed_locked_and_refused_when_it_is_another() {
    let mut towpath = Towpath::prepare(Options::yaml(yaml("plugins:\n  mine: by_name@^0.1"))).unwrap();
    let folder = towpath.folder().to_owned();
    let towpath_in = |arguments: &[&str]| towpath_in(&folder, arguments);
    let (lock, file) = (folder.join("towpath.lock"), folder.join("plugins/by_name/0.1.0.wasm"));
    let component = made(&folder, "by_name");
    let absent = problem(&folder, &[]);
    says(&absent, "PLUGIN_DIRECTORY", "has no by_name@^0.1", "towpath plugin install FILE");
    assert_eq!((&absent["column"], absent["line"].as_u64().is_some()), (&json!(9), true), "{absent}");
    let install = ["plugin", "install", "by_name/by_name.wasm"];
    towpath_in(&install).says(0, &["installed by_name@0.1.0", "plugins: { by_name: by_name@0.1.0 }"]);
    towpath_in(&install).says(0, &["was there already"]);
    towpath_in(&["validate", "towpath.yaml"]).says(0, &["no problem found"]);
    assert!(!lock.exists(), "who only looks writes nothing");
    says(&problem(&folder, &["--locked"]), "PLUGIN_LOCK", "is not in the lock file", "towpath plugin lock");
    towpath.start_again().unwrap();
    told(&towpath, "locked by_name@0.1.0");
    let records = || ask(&towpath, &["consume", "logs", "-f", "-e", "--json"]).out.lines().count();
    wait_until("the record came through", records, |count| *count == 1);
    towpath_in(&["validate", "towpath.yaml", "--locked"]).says(0, &["no problem found"]);
    // Another file in its place, while it runs and afterwards.
    let first = std::fs::read_to_string(&lock).unwrap();
    replace(&file, &altered(&component));
    told(&towpath, "is not the file that was locked");
    towpath.terminate(LONG).unwrap();
    for arguments in [&[][..], &["--locked"]] {
        let refused = problem(&folder, arguments);
        let hint = "towpath plugin lock --update by_name towpath.yaml";
        says(&refused, "PLUGIN_LOCK", "is not the file that was locked", hint);
    }
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), first, "nothing is locked anew by itself");
    towpath_in(&install).says(1, &["is there already with another content"]);
    let updated = towpath_in(&["plugin", "lock", "--update", "mine", "towpath.yaml", "--json"]).json();
    assert!(first.contains(updated[0]["before"].as_str().unwrap()), "{updated}");
    towpath_in(&["plugin", "lock", "--update", "other", "towpath.yaml"]).says(1, &["no plugin `other`"]);
    let listed = towpath_in(&["plugin", "list", "--json"]).json();
    assert_eq!(
        (&listed[0]["sha256"], &listed[0]["signed_by"]),
        (&updated[0]["sha256"], &Json::Null),
        "{listed}"
    );
    towpath.set_arguments(&["--locked"]);
    towpath.start_again().unwrap();
    towpath.terminate(LONG).unwrap();
    a_newer_version_waits_for_the_update(&folder);
}

fn a_newer_version_waits_for_the_update(folder: &Path) {
    let manifest = folder.join("by_name/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("0.1.0", "0.1.1", 1)).unwrap();
    towpath_in(folder, &["plugin", "build", "by_name"]).says(0, &["by_name"]);
    towpath_in(folder, &["plugin", "install", "by_name/by_name.wasm"]).says(0, &["by_name@0.1.1"]);
    towpath_in(folder, &["plugin", "list"]).says(0, &["by_name 0.1.1", "by_name 0.1.0"]);
    towpath_in(folder, &["plugin", "lock", "towpath.yaml"]).says(0, &["nothing to change"]);
    // The folder's own files are what is meant where none is named.
    let updated = towpath_in(folder, &["plugin", "lock", "--update", "by_name", "--json"]).json();
    assert_eq!(
        (&updated[0]["version"], &updated[0]["before"]),
        (&json!("0.1.1"), &json!("0.1.0")),
        "{updated}"
    );
    towpath_in(folder, &["validate", "towpath.yaml", "--locked"]).says(0, &["no problem found"]);
    // A file under a version that is not its own.
    let [older, newer] =
        ["0.1.0", "0.1.1"].map(|version| folder.join(format!("plugins/by_name/{version}.wasm")));
    std::fs::remove_file(folder.join("towpath.lock")).unwrap();
    replace(&newer, &std::fs::read(older).unwrap());
    let other = problem(folder, &[]);
    says(
        &other,
        "PLUGIN_IDENTITY",
        "calls itself by_name@0.1.0, and its file is that of by_name@0.1.1",
        "install",
    );
    std::fs::write(folder.join("towpath.lock"), "{").unwrap();
    says(&problem(folder, &[]), "PLUGIN_LOCK", "cannot be understood: EOF", "plugin lock");
}

#[test]
fn a_signature_is_required_and_must_be_right() {
    let towpath = Towpath::prepare(Options::yaml("")).unwrap();
    let folder = towpath.folder().to_owned();
    let towpath_in = |arguments: &[&str]| towpath_in(&folder, arguments);
    let component = made(&folder, "signed");
    let key = |file: &str| {
        let made = towpath_in(&["plugin", "keygen", file, "--json"]).json();
        made["key"].as_str().unwrap().to_owned()
    };
    let [ours, theirs] = ["ours.key", "theirs.key"].map(key);
    towpath_in(&["plugin", "keygen", "ours.key"]).says(1, &["ours.key"]);
    let write = |plugin: &str, trust: &str| {
        let text = format!("plugins:\n  mine: {plugin}\nplugin_trust: {{ keys: [\"{ours}\"]{trust} }}");
        std::fs::write(folder.join("towpath.yaml"), yaml(&text)).unwrap();
    };
    let file = "signed/signed.wasm";
    let sign = |key: &str| towpath_in(&["plugin", "sign", "--key", key, file]);
    write("{ path: signed/signed.wasm }", "");
    says(&problem(&folder, &[]), "PLUGIN_SIGNATURE", "it is not signed", "plugin sign");
    write("{ path: signed/signed.wasm }", ", required: false");
    towpath_in(&["validate", "towpath.yaml"]).says(0, &["no problem found"]);
    sign("theirs.key").says(0, &["signed 0.1.0"]);
    for required in ["", ", required: false"] {
        write("{ path: signed/signed.wasm }", required);
        let refused = problem(&folder, &[]);
        says(
            &refused,
            "PLUGIN_SIGNATURE",
            &format!("signed by {theirs}, which is not trusted"),
            "plugin_trust",
        );
        says(&refused, "PLUGIN_SIGNATURE", &format!("trusted: {ours}"), "");
    }
    write("{ path: signed/signed.wasm }", "");
    sign("ours.key").says(0, &["signed 0.1.0"]);
    towpath_in(&["validate", "towpath.yaml"]).says(0, &["no problem found"]);
    towpath_in(&["plugin", "verify", "--key", "ours.key.pub", file]).says(0, &["signed 0.1.0"]);
    towpath_in(&["plugin", "verify", "--key", &theirs, file]).says(1, &["not trusted"]);
    towpath_in(&["plugin", "verify", "--key", "ours.key", file]).says(1, &["is no public key"]);
    // Another file under the same signature, and the same file under another version.
    replace(&folder.join(file), &altered(&component));
    says(&problem(&folder, &[]), "PLUGIN_SIGNATURE", "is for a file with the SHA-256", "sign the new file");
    replace(&folder.join(file), &component);
    let signature = std::fs::read_to_string(folder.join("signed/signed.wasm.sig")).unwrap();
    let forged = signature.replace("version: 0.1.0", "version: 0.2.0");
    std::fs::write(folder.join("signed/signed.wasm.sig"), forged).unwrap();
    says(&problem(&folder, &[]), "PLUGIN_SIGNATURE", "is wrong", "sign it again");
    std::fs::write(folder.join("signed/signed.wasm.sig"), signature).unwrap();
    towpath_in(&["plugin", "install", file]).says(0, &[&format!("signed by {ours}")]);
    assert_eq!(towpath_in(&["plugin", "list", "--json"]).json()[0]["signed_by"], json!(ours));
    write("signed@0.1.0", "");
    towpath_in(&["validate", "towpath.yaml"]).says(0, &["no problem found"]);
    std::fs::remove_file(folder.join("plugins/signed/0.1.0.wasm.sig")).unwrap();
    says(&problem(&folder, &[]), "PLUGIN_SIGNATURE", "it is not signed", "plugin sign");
    std::process::Command::new("chmod").args(["644", "ours.key"]).current_dir(&folder).status().unwrap();
    sign("ours.key").says(1, &["others than its owner can read", "chmod 600"]);
}
