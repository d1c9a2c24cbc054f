//! The C SDK's bindings are what the contract gives.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;

use wit_bindgen_core::{Files, wit_parser::Resolve};

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
