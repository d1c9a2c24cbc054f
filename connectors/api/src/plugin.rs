//! Where connectors come from that are not built in.

use std::path::PathBuf;
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

/// What a configuration says around its plugins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginScope {
    /// The file that declares the plugin.
    pub file: PathBuf,
    /// `plugin_directory:`, from where that was written.
    pub directory: Option<PathBuf>,
    /// `plugin_trust:`; without it nobody is asked for signatures.
    pub trust: Option<PluginTrust>,
}

/// `plugin_trust:`, whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginTrust {
    /// Public keys as they are written.
    pub keys: Vec<String>,
    /// Whether each plugin must be signed by one of them.
    pub required: bool,
}

/// Loads the plugins that a configuration names under `plugins:`.
pub trait PluginLoader: Send + Sync {
    /// The options of one entry.
    fn options(&self) -> ConfigSpec;

    /// The option that is meant where an entry is a text and no map of options; without one there is no such form.
    fn short_form(&self) -> Option<&'static str> {
        None
    }

    /// Options of which an entry has exactly one.
    fn one_of(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether what `plugin_trust:` says can be understood.
    ///
    /// # Errors
    /// Every problem at once (R12), at the options of `plugin_trust:`.
    fn check_trust(&self, trust: &PluginTrust) -> Result<(), ConfigProblems>;

    /// Loads the plugin that the user calls `name`. Reads files of plugins and asks it for its options; touches nothing else.
    ///
    /// # Errors
    /// Every problem at once (R12), at the options of the entry.
    fn load(
        &self,
        name: &str,
        config: &RawConfig,
        scope: &PluginScope,
    ) -> Result<PluginTypes, ConfigProblems>;
}
