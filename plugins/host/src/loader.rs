//! Components by path into factories.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, PluginLoader, PluginTypes,
    RawConfig,
};
use towpath_types::limits::PLUGIN_FILE_BYTES_MAX;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::cache::{Cache, default_folder};
use super::component::{Loaded, Shape, compile, link};
use super::error::PluginError;
use super::grants::Grants;
use super::inspect::Inspection;
use super::instance::Instance;
use super::options::{Entry, Limits, spec};
use super::reload::{Slot, Watcher};
use super::sink::PluginSink;
use super::source::PluginSource;
use super::state::Task;
use super::transform::PluginTransform;

/// Compiled components that a process keeps; beyond them it forgets all, and asks the cache again.
const COMPILED_MAX: usize = 64;

/// Compiled components of this process, by the hash of their files.
type Compiled = HashMap<[u8; 32], Component>;

/// Loads plugins. Its engine is started with the first of them, so that a process without plugins pays nothing.
#[derive(Default)]
pub struct Plugins {
    pub(crate) inner: Arc<Inner>,
}

/// What all plugins of a process share.
#[derive(Default)]
pub(crate) struct Inner {
    engine: OnceLock<Engine>,
    compiled: Mutex<Compiled>,
    pub(crate) cache: Option<Cache>,
    pub(crate) watcher: OnceLock<Watcher>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").field("compiled", &self.inner.compiled.lock().len()).finish()
    }
}

/// A component that is ready, and what it brings.
pub(crate) struct Opened {
    pub(crate) plugin: Arc<Loaded>,
    pub(crate) descriptors: Vec<Descriptor>,
}

/// Factories of what a component brings.
fn types(slot: &Arc<Slot>, descriptors: Vec<Descriptor>) -> PluginTypes {
    let mut types = PluginTypes::default();
    for descriptor in descriptors {
        let slot = Arc::clone(slot);
        match descriptor.kind {
            ConnectorKind::Source => types.source = Some(Arc::new(PluginSource::new(slot, descriptor))),
            ConnectorKind::Sink => types.sink = Some(Arc::new(PluginSink::new(slot, descriptor))),
            ConnectorKind::Transform => {
                types.transform = Some(Arc::new(PluginTransform::new(slot, descriptor)));
            }
        }
    }
    types
}

/// A file that has been read.
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: [u8; 32],
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl File {
    /// Whether it is the one that was pinned, if any was.
    pub(crate) fn check(&self, pinned: Option<&str>) -> Result<(), PluginError> {
        let actual = hex(&self.hash);
        match pinned.filter(|expected| **expected != actual) {
            Some(expected) => Err(PluginError::OtherContent { expected: expected.to_owned(), actual }),
            None => Ok(()),
        }
    }
}

/// R10: never more than a plugin may have, however long the file is.
pub(crate) fn read(path: &Path) -> Result<File, PluginError> {
    let unreadable = |source| PluginError::Unreadable { path: path.display().to_string(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(PLUGIN_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > PLUGIN_FILE_BYTES_MAX {
        let message = format!("it has more than {PLUGIN_FILE_BYTES_MAX} bytes");
        return Err(unreadable(std::io::Error::other(message)));
    }
    let hash = Sha256::digest(&bytes).into();
    Ok(File { bytes, hash })
}

/// Runs a call that waits for nothing outside: asking a plugin about itself.
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // What is pending here is a guest that yielded at a tick; its deadline ends it.
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

impl Plugins {
    /// A loader that has loaded nothing yet, and keeps compiled code in memory only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A loader that keeps compiled code in a folder, which is made with the first of it and must be this user's alone.
    #[must_use]
    pub fn with_cache(folder: PathBuf) -> Self {
        let inner = Inner { cache: Some(Cache::new(folder)), ..Inner::default() };
        Self { inner: Arc::new(inner) }
    }

    /// A loader that keeps compiled code in the user's cache directory (`$XDG_CACHE_HOME/towpath/plugins`, or
    /// `~/.cache/towpath/plugins`), if there is any.
    #[must_use]
    pub fn with_users_cache() -> Self {
        default_folder().map_or_else(Self::new, Self::with_cache)
    }

    fn load_entry(&self, name: &str, entry: &Entry) -> Result<(Arc<Slot>, Vec<Descriptor>), PluginError> {
        let file = read(&entry.path)?;
        file.check(entry.sha256.as_deref())?;
        let Opened { plugin, descriptors } =
            self.inner.open(name, &file, entry.limits, entry.grants.clone())?;
        let slot = Slot::new(entry.clone(), descriptors.clone(), plugin, Arc::clone(&self.inner));
        Ok((Arc::new(slot), descriptors))
    }

    /// Looks at a component without running more of it than what tells about itself.
    ///
    /// # Errors
    /// Why it cannot be read or compiled. What else is wrong with it stands in the inspection.
    pub fn inspect(&self, path: &Path) -> Result<Inspection, PluginError> {
        let file = read(path)?;
        let component = self.inner.component(&file)?;
        let shape = Shape::of(self.inner.engine()?, &component);
        let opened = self.inner.open(&name_of(path), &file, Limits::default(), Grants::default());
        let descriptor = opened.and_then(|it| it.descriptors.into_iter().next().ok_or(PluginError::NoWorld));
        Ok(Inspection::new(file.bytes.len(), hex(&file.hash), shape, descriptor))
    }

    /// A component as the types it brings, under the name of its file, for programs and tests.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open_path(&self, path: &Path) -> Result<PluginTypes, PluginError> {
        let (limits, grants) = (Limits::default(), Grants::default());
        let entry = Entry { path: path.to_owned(), sha256: None, limits, grants };
        self.load_entry(&name_of(path), &entry).map(|(slot, descriptors)| types(&slot, descriptors))
    }
}

impl Inner {
    pub(crate) fn engine(&self) -> Result<&Engine, PluginError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = super::engine::start()?;
        Ok(self.engine.get_or_init(|| engine))
    }

    fn component(&self, file: &File) -> Result<Component, PluginError> {
        let mut compiled = self.compiled.lock();
        if let Some(component) = compiled.get(&file.hash) {
            return Ok(component.clone());
        }
        let engine = self.engine()?;
        let cached = self.cache.as_ref().and_then(|cache| cache.load(engine, &file.hash));
        let component = match cached {
            Some(component) => component,
            None => {
                let component = compile(engine, &file.bytes)?;
                if let Some(cache) = &self.cache {
                    cache.store(engine, &file.hash, &component);
                }
                component
            }
        };
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(file.hash, component.clone());
        Ok(component)
    }

    pub(crate) fn open(
        &self,
        name: &str,
        file: &File,
        limits: Limits,
        grants: Grants,
    ) -> Result<Opened, PluginError> {
        let component = self.component(file)?;
        let engine = self.engine()?;
        let shape = Shape::of(engine, &component);
        shape.check()?;
        let (pre, exports) = link(engine, &component, &shape)?;
        let (hash, http) = (file.hash, OnceLock::new());
        let plugin = Arc::new(Loaded { name: Arc::from(name), pre, exports, limits, grants, hash, http });
        let said = at_once(async {
            let mut instance = Instance::start(&plugin, Arc::default(), Task::default()).await?;
            instance.describe().await
        })?;
        let descriptors = said.into_iter().map(|said| super::describe::descriptor(name, said));
        Ok(Opened { plugin, descriptors: descriptors.collect::<Result<_, _>>()? })
    }
}

pub(crate) fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "plugin".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl PluginLoader for Plugins {
    fn options(&self) -> ConfigSpec {
        spec()
    }

    fn load(&self, name: &str, config: &RawConfig) -> Result<PluginTypes, ConfigProblems> {
        let entry = Entry::read(config)?;
        let (slot, descriptors) = self.load_entry(name, &entry).map_err(|error| {
            let place = if matches!(error, PluginError::OtherContent { .. }) { "sha256" } else { "path" };
            let message = format!("the plugin `{name}` cannot be used: {error}");
            let problem = ConfigProblem::new(place, message);
            match error.hint() {
                Some(hint) => ConfigProblems::from(problem.with_hint(hint)),
                None => problem.into(),
            }
        })?;
        let options = descriptors.iter().flat_map(|it| &it.options.options);
        let secret = options.filter(|option| option.secret).map(|option| option.name.clone()).collect();
        ConfigProblems { problems: entry.grants.unknown(&secret) }.into_result()?;
        Ok(types(&slot, descriptors))
    }
}
