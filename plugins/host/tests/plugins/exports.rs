//! R11: what is called before any option is known, and a component of another version, of every world.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use towpath_api::{PluginLoader as _, PluginScope, RawConfig};

use crate::connectors::{HOSTILE_SINK, HOSTILE_SOURCE};
use crate::support::{HOSTILE, PLUGINS, patched};

fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::write(&path, bytes).unwrap();
    let entry = json!({ "path": path, "time": 300, "memory": 16 << 20 });
    let config = RawConfig::with_defaults(&PLUGINS.options(), entry).unwrap();
    PLUGINS.load("mine", &config, &PluginScope::default()).unwrap_err().to_string()
}

fn worlds() -> [(&'static str, &'static Path); 3] {
    [("transform", HOSTILE.as_path()), ("source", HOSTILE_SOURCE.as_path()), ("sink", HOSTILE_SINK.as_path())]
}

/// `descriptor`, `config-spec`, and of sources and sinks `promise`: the SDK answers all with what this loops in.
#[test]
fn a_plugin_that_hangs_while_it_tells_of_itself_is_refused() {
    for (world, path) in worlds() {
        for call in 0..if world == "transform" { 2 } else { 3 } {
            let begun = Instant::now();
            let error = refused(&patched(path, "descriptor 9", &format!("descriptor {call}")));
            assert!(error.contains("longer than 300ms"), "{world} {call}: {error}");
            assert!(begun.elapsed() < Duration::from_secs(60), "{world} {call}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn other_versions_and_half_files_are_refused_of_every_world() {
    for (world, path) in worlds() {
        let error = refused(&patched(path, "@0.1.0", "@0.9.0"));
        assert!(error.contains("made for towpath:plugin@0.9.0"), "{world}: {error}");
        let good = std::fs::read(path).unwrap();
        for length in [good.len() / 3, good.len() - 1] {
            assert!(refused(&good[..length]).contains("no WASM component"), "{world} {length}");
        }
    }
}
