//! The C SDK's bindings are what the contract gives, and the Go SDK finds things where the contract has them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::Path;

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, SizeAlign, Type, TypeDefKind, TypeId};

/// `transform.h` and `transform.c` as the generator writes them. With `TOWPATH_BINDINGS=write` they are written anew.
#[test]
fn bindings_for_c_are_those_of_the_contract() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(plugins.join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("transform")).unwrap();
    // The component's type is put in by the build, which knows the contract: no object file lies among sources.
    let options = wit_bindgen_c::Opts { no_object_file: true, ..Default::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let write = std::env::var("TOWPATH_BINDINGS").is_ok_and(|it| it == "write");
    let mut names = Vec::new();
    for (name, text) in files.iter() {
        let text = std::str::from_utf8(text).unwrap();
        let path = plugins.join("sdk/c").join(name);
        if write {
            std::fs::write(&path, text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{name} is another: run this test with TOWPATH_BINDINGS=write");
        names.push(name.to_owned());
    }
    names.sort();
    assert_eq!(names, ["transform.c", "transform.h"]);
}

/// A type of one of the contract's interfaces.
fn type_of(resolve: &Resolve, interface: &str, name: &str) -> TypeId {
    let mut interfaces = resolve.interfaces.iter();
    let (_, found) = interfaces.find(|(_, it)| it.name.as_deref() == Some(interface)).unwrap();
    found.types[name]
}

/// `lift.go` and `component.go` are written by hand, with sizes and places as numbers.
#[test]
fn records_are_where_the_sdk_for_go_has_them() {
    let mut resolve = Resolve::default();
    resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let records: [(&str, &str, usize, &[usize]); 13] = [
        ("schemas", "field", 72, &[0, 8, 10, 12, 24, 36, 48]),
        ("schemas", "field-type", 2, &[0, 1]),
        ("schemas", "column-id", 16, &[0, 8]),
        ("schemas", "computed", 24, &[0, 8, 16]),
        ("schemas", "source-block", 16, &[0, 8]),
        ("schemas", "schema", 64, &[0, 8, 16, 28, 36, 44]),
        ("types", "description", 24, &[0, 8, 16]),
        ("types", "option-spec", 72, &[0, 8, 16, 24, 48, 52, 64]),
        ("types", "choice", 16, &[0, 8]),
        ("types", "problem", 28, &[0, 8, 16]),
        ("types", "details", 40, &[0, 8, 16, 28]),
        ("types", "rejection", 44, &[0, 4]),
        ("transforms", "outcome", 16, &[0, 8]),
    ];
    for (interface, name, size, places) in records {
        let id = type_of(&resolve, interface, name);
        let TypeDefKind::Record(record) = &resolve.types[id].kind else { panic!("{name} is no record") };
        let found = sizes.field_offsets(record.fields.iter().map(|field| &field.ty));
        let found: Vec<_> = found.iter().map(|(at, _)| at.size_wasm32()).collect();
        assert_eq!((sizes.size(&Type::Id(id)).size_wasm32(), &*found), (size, places), "{name}");
    }
    for (interface, name, words) in [
        ("log", "level", "debug info warn error"),
        (
            "schemas",
            "scalar",
            "boolean int16 int32 int64 float32 float64 decimal text bytes date time time-tz timestamp timestamp-tz \
             interval uuid json",
        ),
        ("types", "shape", "one many by-key"),
        ("types", "error", "retry-after needs-operator terminal"),
        (
            "types",
            "element",
            "boolean integer text non-empty-text url path duration byte-size one-of scalar any",
        ),
    ] {
        let found: Vec<_> = match &resolve.types[type_of(&resolve, interface, name)].kind {
            TypeDefKind::Enum(it) => it.cases.iter().map(|case| &*case.name).collect(),
            TypeDefKind::Variant(it) => it.cases.iter().map(|case| &*case.name).collect(),
            other => panic!("{name} is {}", other.as_str()),
        };
        assert_eq!(found.join(" "), words, "{name}");
    }
}
