//! What each kind of plugin begins with, in each language that has several.

use super::files::File;
use super::new::Kind;

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../templates/", $file))
    };
}

/// The library in Rust.
pub(crate) const fn rust(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => template!("rust/src/source.rs.template"),
        Kind::Sink => template!("rust/src/sink.rs.template"),
        Kind::Transform => template!("rust/src/transform.rs.template"),
    }
}

/// The plugin in JavaScript.
pub(crate) const fn javascript(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => template!("js/src/source.js"),
        Kind::Sink => template!("js/src/sink.js"),
        Kind::Transform => template!("js/src/transform.js"),
    }
}

/// The plugin in TypeScript.
pub(crate) const fn typescript(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => template!("ts/src/source.ts"),
        Kind::Sink => template!("ts/src/sink.ts"),
        Kind::Transform => template!("ts/src/transform.ts"),
    }
}

/// The test of either.
pub(crate) const fn javascript_test(kind: Kind) -> File {
    let text = match kind {
        Kind::Source => template!("js/test/source.test.js"),
        Kind::Sink => template!("js/test/sink.test.js"),
        Kind::Transform => template!("js/test/transform.test.js"),
    };
    ("test/index.test.js", text)
}

/// The plugin in Python.
pub(crate) const fn python(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => template!("python/src/source.py"),
        Kind::Sink => template!("python/src/sink.py"),
        Kind::Transform => template!("python/src/transform.py"),
    }
}

/// Its test.
pub(crate) const fn python_test(kind: Kind) -> File {
    let text = match kind {
        Kind::Source => template!("python/tests/test_source.py"),
        Kind::Sink => template!("python/tests/test_sink.py"),
        Kind::Transform => template!("python/tests/test_transform.py"),
    };
    ("tests/test_plugin.py", text)
}
