//! Where connectors come from that are not built in.

use std::sync::Arc;

use super::config::{ConfigProblems, ConfigSpec, RawConfig};
use super::sink::SinkFactory;
use super::source::SourceFactory;
use super::transform::TransformFactory;

/// What one plugin brings, each under the name that the user gave it.
#[derive(Clone, Default)]
pub struct PluginTypes {
    /// A source type.
    pub source: Option<Arc<dyn SourceFactory>>,
    /// A sink type.
    pub sink: Option<Arc<dyn SinkFactory>>,
    /// A transform type.
    pub transform: Option<Arc<dyn TransformFactory>>,
}

impl std::fmt::Debug for PluginTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginTypes")
            .field("source", &self.source.is_some())
            .field("sink", &self.sink.is_some())
            .field("transform", &self.transform.is_some())
            .finish()
    }
}

/// Loads the plugins that a configuration names under `plugins:`.
pub trait PluginLoader: Send + Sync {
    /// The options of one entry.
    fn options(&self) -> ConfigSpec;

    /// Loads the plugin that the user calls `name`. Reads its file and asks it for its options; touches nothing else.
    ///
    /// # Errors
    /// Every problem at once (R12), at the options of the entry.
    fn load(&self, name: &str, config: &RawConfig) -> Result<PluginTypes, ConfigProblems>;
}
