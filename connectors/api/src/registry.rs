//! What connector types there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{ConnectorKind, Descriptor};
use super::plugin::{PluginLoader, PluginTypes};
use super::sink::SinkFactory;
use super::source::SourceFactory;
use super::transform::TransformFactory;

/// The types that a configuration can name, built in or plugged in. Filled once, when the program starts.
#[derive(Clone, Default)]
pub struct Registry {
    sources: BTreeMap<String, Arc<dyn SourceFactory>>,
    sinks: BTreeMap<String, Arc<dyn SinkFactory>>,
    transforms: BTreeMap<String, Arc<dyn TransformFactory>>,
    loader: Option<Arc<dyn PluginLoader>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("sources", &self.sources.keys())
            .field("sinks", &self.sinks.keys())
            .field("transforms", &self.transforms.keys())
            .finish()
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source type under its descriptor's name; a later one replaces an earlier one.
    pub fn add_source(&mut self, factory: Arc<dyn SourceFactory>) -> &mut Self {
        self.sources.insert(factory.descriptor().name.clone(), factory);
        self
    }

    /// Adds a sink type.
    pub fn add_sink(&mut self, factory: Arc<dyn SinkFactory>) -> &mut Self {
        self.sinks.insert(factory.descriptor().name.clone(), factory);
        self
    }

    /// Adds a transform type.
    pub fn add_transform(&mut self, factory: Arc<dyn TransformFactory>) -> &mut Self {
        self.transforms.insert(factory.descriptor().name.clone(), factory);
        self
    }

    /// Sets what loads the plugins that configurations name; without it there are none.
    pub fn set_plugin_loader(&mut self, loader: Arc<dyn PluginLoader>) -> &mut Self {
        self.loader = Some(loader);
        self
    }

    /// What loads plugins.
    #[must_use]
    pub fn plugin_loader(&self) -> Option<&Arc<dyn PluginLoader>> {
        self.loader.as_ref()
    }

    /// Adds the types of one plugin.
    pub fn add_plugin(&mut self, types: PluginTypes) -> &mut Self {
        if let Some(source) = types.source {
            self.add_source(source);
        }
        if let Some(sink) = types.sink {
            self.add_sink(sink);
        }
        if let Some(transform) = types.transform {
            self.add_transform(transform);
        }
        self
    }

    /// Whether there is any type called `name`, of whatever kind.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.sources.contains_key(name) || self.sinks.contains_key(name) || self.transforms.contains_key(name)
    }

    /// The source type called `name`.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&Arc<dyn SourceFactory>> {
        self.sources.get(name)
    }

    /// The sink type called `name`.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<&Arc<dyn SinkFactory>> {
        self.sinks.get(name)
    }

    /// The transform type called `name`.
    #[must_use]
    pub fn transform(&self, name: &str) -> Option<&Arc<dyn TransformFactory>> {
        self.transforms.get(name)
    }

    /// Every type of a kind, by name.
    #[must_use]
    pub fn descriptors(&self, kind: ConnectorKind) -> Vec<&Descriptor> {
        match kind {
            ConnectorKind::Source => self.sources.values().map(|factory| factory.descriptor()).collect(),
            ConnectorKind::Sink => self.sinks.values().map(|factory| factory.descriptor()).collect(),
            ConnectorKind::Transform => {
                self.transforms.values().map(|factory| factory.descriptor()).collect()
            }
        }
    }
}
