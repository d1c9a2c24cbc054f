//! What connector types there are: the built-in ones, and what loads the others. Here, and only here, they meet.

use std::sync::Arc;

use towpath_api::Registry;
use towpath_host::Plugins;
use towpath_store::LockMode;

/// Every built-in source, transform and sink, and plugins.
pub(crate) fn built_in() -> Registry {
    with_plugins(LockMode::Complete).0
}

/// The same with what loads the plugins, and what that does about those that are not locked.
pub(crate) fn with_plugins(mode: LockMode) -> (Registry, Arc<Plugins>) {
    let plugins = Arc::new(Plugins::with_users_cache().locking(mode));
    let mut registry = Registry::new();
    registry
        .add_source(Arc::new(towpath_source_postgres_cdc::PostgresCdcFactory))
        .add_source(Arc::new(towpath_source_sqlite_cdc::SqliteCdc::default()))
        .add_source(Arc::new(towpath_source_file::File::default()))
        .add_source(Arc::new(towpath_source_generate::Generate::default()))
        .add_sink(Arc::new(towpath_sink_postgres::PostgresSink::default()))
        .add_sink(Arc::new(towpath_sink_sqlite::SqliteSink::default()))
        .add_sink(Arc::new(towpath_sink_file::FileSink::default()))
        .add_sink(Arc::new(towpath_sink_http::HttpSink::default()));
    registry.set_plugin_loader(Arc::<Plugins>::clone(&plugins));
    for transform in towpath_transforms::factories() {
        registry.add_transform(transform);
    }
    (registry, plugins)
}
