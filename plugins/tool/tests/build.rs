//! Plugins from source to component: the examples, the guests of other tests, and what `plugin new` writes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};

use towpath_tool::{Built, Kind, Language, build, new};
use wit_component::DecodedWasm;

/// Compiled guests are kept for all tests of the workspace.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests")
}

fn built(folder: &Path) -> Vec<Built> {
    build(folder, Some(&target())).unwrap_or_else(|error| panic!("{error}"))
}

/// What a component imports and exports, by full name.
fn shape(component: &Path) -> (Vec<String>, Vec<String>) {
    let DecodedWasm::Component(resolve, world) =
        wit_component::decode(&std::fs::read(component).unwrap()).unwrap()
    else {
        panic!("{} is no component", component.display());
    };
    let world = &resolve.worlds[world];
    let imports = world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
    (imports, world.exports.keys().map(|key| resolve.name_world_key(key)).collect())
}

/// R11: a plugin imports what the contract names, and nothing else.
fn is(kind: Kind, built: &Built) {
    let (imports, mut exports) = shape(&built.path);
    // By which componentize-py starts its interpreter; nobody calls it.
    exports.retain(|name| name != "exports");
    assert!(imports.iter().all(|name| name.starts_with("towpath:plugin/")), "{imports:?}");
    let expected = match kind {
        Kind::Source => vec!["towpath:plugin/sources@0.1.0"],
        Kind::Sink => vec!["towpath:plugin/sinks@0.1.0"],
        Kind::Transform => vec!["towpath:plugin/plugin@0.1.0", "towpath:plugin/transforms@0.1.0"],
    };
    assert_eq!(exports, expected);
}

#[test]
fn examples_become_components() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    for (folder, name, kind) in [
        ("plugins/examples", "pii_mask", Kind::Transform),
        ("plugins/examples", "redis_streams", Kind::Source),
        ("plugins/examples", "redis_sink", Kind::Sink),
        ("plugins/examples/geohash", "geohash", Kind::Transform),
        ("plugins/examples/ip_prefix", "ip_prefix", Kind::Transform),
        ("plugins/examples/rest_pages", "rest_pages", Kind::Source),
        ("plugins/examples/bulk_index", "bulk_index", Kind::Sink),
        ("plugins/host/tests/guests", "hostile", Kind::Transform),
    ] {
        let all = built(&root.join(folder));
        is(kind, all.iter().find(|it| it.name == name).unwrap());
    }
}

#[test]
fn a_new_project_in_c_builds_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("new_c");
    new(Language::C, Kind::Transform, &project).unwrap();
    let target = folder.path().join("target");
    let all = build(&project, Some(&target)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((all.len(), all[0].name.as_str()), (1, "new_c"));
    is(Kind::Transform, &all[0]);
    // R11: what the C library would do with a system is refused, and told.
    let plugin = project.join("plugin.c");
    let source = std::fs::read_to_string(&plugin).unwrap();
    let print = source.replace("    return NULL;", "    puts(\"\");\n    return NULL;");
    std::fs::write(&plugin, format!("#include <stdio.h>\n{print}")).unwrap();
    let error = build(&project, Some(&target)).unwrap_err();
    assert!(error.to_string().contains("wasi_snapshot_preview1"), "{error}");
    assert!(error.hint().unwrap().contains("no files"), "{error}");
    std::fs::write(&plugin, source.replace("towpath_keep(out", "towpath_kept(out")).unwrap();
    let error = build(&project, Some(&target)).unwrap_err().to_string();
    assert!(error.contains("does not compile"), "{error}");
    std::fs::write(project.join("towpath.toml"), "name = \"a\"\nlanguage = \"c\"\nsources = [\"no.c\"]\n")
        .unwrap();
    build(&project, Some(&target)).unwrap_err();
}

#[test]
fn a_new_project_in_go_builds_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("new-go");
    new(Language::Go, Kind::Transform, &project).unwrap();
    let target = folder.path().join("target");
    let all = build(&project, Some(&target)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((all.len(), all[0].name.as_str()), (1, "new-go"));
    is(Kind::Transform, &all[0]);
    // It says nothing of where it was made.
    let other = folder.path().join("elsewhere/new-go");
    new(Language::Go, Kind::Transform, &other).unwrap();
    let again = build(&other, Some(&folder.path().join("other"))).unwrap_or_else(|error| panic!("{error}"));
    assert!(std::fs::read(&all[0].path).unwrap() == std::fs::read(&again[0].path).unwrap());
    let plugin = project.join("plugin.go");
    let source = std::fs::read_to_string(&plugin).unwrap();
    // R11: what asks for more of a system than Go's runtime does still imports nothing but the contract.
    let asks = source
        .replace("import \"towpath\"", "import (\n\"os\"\n\"towpath\"\n)\nvar _, _ = os.ReadDir(\".\")");
    std::fs::write(&plugin, asks).unwrap();
    is(Kind::Transform, &build(&project, Some(&target)).unwrap_or_else(|error| panic!("{error}"))[0]);
    std::fs::write(&plugin, source.replace("out.Keep(", "out.Kept(")).unwrap();
    let error = build(&project, Some(&target)).unwrap_err().to_string();
    assert!(error.contains("does not compile"), "{error}");
    std::fs::write(project.join("go.mod"), "module new-go\n\nno 1\n").unwrap();
    let error = build(&project, Some(&target)).unwrap_err().to_string();
    assert!(error.contains("go.mod"), "{error}");
}

#[test]
fn a_new_project_builds_as_it_is() {
    for kind in [Kind::Source, Kind::Sink, Kind::Transform] {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join(format!("new_{}", kind.name()));
        new(Language::Rust, kind, &project).unwrap();
        let all = built(&project);
        assert_eq!((all.len(), all[0].name.clone()), (1, format!("new_{}", kind.name())));
        is(kind, &all[0]);
    }
}

/// The world is what the project says; what it cannot be is told.
#[test]
fn new_projects_in_javascript_and_python_build_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    for (language, kind) in [
        (Language::JavaScript, Kind::Source),
        (Language::TypeScript, Kind::Sink),
        (Language::Python, Kind::Source),
        (Language::Python, Kind::Sink),
    ] {
        let project = folder.path().join(format!("{}_{}", language.name(), kind.name()));
        new(language, kind, &project).unwrap();
        let all =
            build(&project, Some(&folder.path().join("target"))).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(all.len(), 1);
        is(kind, &all[0]);
        let manifest =
            project.join(if language == Language::Python { "pyproject.toml" } else { "package.json" });
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace(&format!("\"{}\"", kind.name()), "\"fountain\"")).unwrap();
        build(&project, Some(&folder.path().join("target"))).unwrap_err();
    }
}

/// Runs a program in a folder, and panics with what it says where it fails.
fn succeeds(folder: &Path, program: &str, arguments: &[&str], env: &[(&str, &str)]) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .envs(env.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// Compiles C for this machine, with sanitizers, and runs it. The paths are below `folder`, but for those of the SDK.
fn c_succeeds(folder: &Path, sdk: &Path, files: &[&str]) {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("test").to_str().unwrap().to_owned();
    let include = format!("-I{}", sdk.display());
    let flags = [
        "-std=c11",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ];
    let own = ["towpath.c", "output.c", "testing.c"].map(|file| sdk.join(file).to_str().unwrap().to_owned());
    let own = own.iter().map(String::as_str);
    let arguments: Vec<_> = flags
        .into_iter()
        .chain([&*include, "-o", &program])
        .chain(files.iter().copied())
        .chain(own)
        .collect();
    succeeds(folder, "cc", &arguments, &[]);
    succeeds(folder, &program, &[], &[]);
}

/// Go as it is installed.
fn go_succeeds(folder: &Path, arguments: &[&str]) {
    succeeds(folder, "go", arguments, &[("GOTOOLCHAIN", "local"), ("GOFLAGS", ""), ("GOWORK", "off")]);
}

/// Links the SDK for JavaScript into a project, as npm would.
fn linked(project: &Path, sdk: &Path) {
    std::fs::create_dir(project.join("node_modules")).unwrap();
    std::os::unix::fs::symlink(sdk, project.join("node_modules/towpath-sdk")).unwrap();
}

/// The SDKs' own tests and those of examples, in their languages.
#[test]
fn the_other_sdks_pass_their_tests() {
    let sdks = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk"));
    succeeds(&sdks.join("js"), "node", &["--test"], &[]);
    let tests = ["-B", "-m", "unittest", "discover", "-s", "tests"];
    succeeds(&sdks.join("python"), "python3", &tests, &[("PYTHONPATH", ".")]);
    let examples = sdks.join("../examples");
    succeeds(&examples.join("rest_pages"), "python3", &tests, &[("PYTHONPATH", "src:../../sdk/python")]);
    let folder = tempfile::tempdir().unwrap();
    let bulk = examples.join("bulk_index");
    succeeds(&bulk, "cp", &["-r", "package.json", "src", "test", folder.path().to_str().unwrap()], &[]);
    linked(folder.path(), &sdks.join("js"));
    succeeds(folder.path(), "node", &["--test"], &[]);
    c_succeeds(&sdks.join("c"), &sdks.join("c"), &["tests/test_sdk.c"]);
    let example = sdks.join("../examples/geohash");
    c_succeeds(&example, &sdks.join("c"), &["plugin.c", "geohash.c", "tests/test_geohash.c"]);
    for folder in [sdks.join("go"), sdks.join("../examples/ip_prefix")] {
        go_succeeds(&folder, &["vet", "./..."]);
        go_succeeds(&folder, &["test", "./..."]);
    }
}

/// What `plugin new` writes passes the tests that it writes, on this machine and without WASM.
#[test]
fn new_projects_pass_their_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Source, Kind::Sink, Kind::Transform] {
        let js = folder.path().join(format!("{}-js", kind.name()));
        new(Language::JavaScript, kind, &js).unwrap();
        linked(&js, Path::new("../towpath/sdk/js"));
        succeeds(&js, "node", &["--test"], &[]);
        let python = folder.path().join(format!("{}-python", kind.name()));
        new(Language::Python, kind, &python).unwrap();
        let path = [("PYTHONPATH", "src:towpath/sdk/python")];
        succeeds(&python, "python3", &["-B", "-m", "unittest", "discover", "tests"], &path);
    }
    let c = folder.path().join("drop-c");
    new(Language::C, Kind::Transform, &c).unwrap();
    c_succeeds(&c, &c.join("towpath/sdk/c"), &["plugin.c", "tests/test_plugin.c"]);
    let go = folder.path().join("drop-go");
    new(Language::Go, Kind::Transform, &go).unwrap();
    go_succeeds(&go, &["vet", "./..."]);
    go_succeeds(&go, &["test", "./..."]);
}

#[test]
fn what_does_not_compile_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("broken");
    new(Language::Rust, Kind::Transform, &project).unwrap();
    let source = project.join("src/lib.rs");
    let broken = std::fs::read_to_string(&source).unwrap().replace("out.keep(record)", "out.kept(record)");
    std::fs::write(&source, broken).unwrap();
    let error = build(&project, Some(&target())).unwrap_err().to_string();
    assert!(error.contains("does not compile"), "{error}");
}
