//! What is to be seen of a component from outside.

use towpath_api::Descriptor;

use super::component::Shape;
use super::error::PluginError;

/// A component, looked at.
#[derive(Debug)]
pub struct Inspection {
    /// Bytes of its file.
    pub bytes: usize,
    /// SHA-256 of its file, as `plugins:` pins it.
    pub sha256: String,
    /// What it imports, by full name.
    pub imports: Vec<String>,
    /// What it exports, by full name.
    pub exports: Vec<String>,
    /// Its worlds: `source`, `sink`, `transform`.
    pub worlds: Vec<&'static str>,
    /// Name, version and options; or why it cannot be used.
    pub descriptor: Result<Descriptor, PluginError>,
}

impl Inspection {
    pub(crate) fn new(
        bytes: usize,
        sha256: String,
        shape: Shape,
        descriptor: Result<Descriptor, PluginError>,
    ) -> Self {
        let worlds = shape.worlds();
        Self {
            bytes,
            sha256,
            imports: shape.imports.into_iter().collect(),
            exports: shape.exports.into_iter().collect(),
            worlds,
            descriptor,
        }
    }
}
