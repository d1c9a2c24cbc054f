//! Components into factories.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, PluginLoader, PluginScope,
    PluginTrust, PluginTypes, RawConfig,
};
use towpath_store::{Change, ContentHash, Identity, LockMode};
use towpath_types::limits::PLUGIN_FILE_BYTES_MAX;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::admission::{Demands, Locking, trust};
use super::cache::{Cache, default_folder};
use super::component::{Loaded, Shape, compile, link};
use super::error::PluginError;
use super::grants::Grants;
use super::inspect::Inspection;
use super::instance::Instance;
use super::options::{Entry, Limits, Meant, PATH, PLUGIN, spec};
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
    locking: Locking,
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
    /// The name and the version that it gives each of its types.
    pub(crate) own: Vec<(String, String)>,
}

impl Opened {
    /// What it calls itself.
    pub(crate) fn identity(&self) -> Result<Identity, PluginError> {
        let (name, version) = self.own.first().ok_or(PluginError::NoWorld)?;
        if let Some((other, its)) = self.own.iter().find(|(other, its)| other != name || its != version) {
            let what = format!("it calls itself {name} {version} and {other} {its}");
            return Err(PluginError::Description(what));
        }
        Ok(Identity::new(name, version)?)
    }
}

/// A component's file, and what it calls itself.
#[derive(Debug)]
pub struct Identified {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their hash.
    pub sha256: ContentHash,
    /// Its name and version.
    pub identity: Identity,
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
    pub(crate) hash: ContentHash,
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
    let hash = ContentHash::of(&bytes);
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
        Self { inner: Arc::new(inner), locking: Locking::default() }
    }

    /// A loader that keeps compiled code in the user's cache directory (`$XDG_CACHE_HOME/towpath/plugins`, or
    /// `~/.cache/towpath/plugins`), if there is any.
    #[must_use]
    pub fn with_users_cache() -> Self {
        default_folder().map_or_else(Self::new, Self::with_cache)
    }

    /// The same, with another way to treat plugins that are not locked.
    #[must_use]
    pub fn locking(self, mode: LockMode) -> Self {
        Self { locking: Locking::new(mode), ..self }
    }

    /// Writes into the lock files what was loaded by name and was not locked, and says what that was and where. Without this
    /// they stay as they are.
    ///
    /// # Errors
    /// If a lock file cannot be written.
    pub fn write_locks(&self) -> Result<Vec<(PathBuf, Change)>, PluginError> {
        self.locking.write()
    }

    /// The names of [`LockMode::Update`] that no configuration has asked for so far.
    #[must_use]
    pub fn not_asked_for(&self) -> Vec<String> {
        self.locking.unknown()
    }

    fn load_entry(
        &self,
        name: &str,
        entry: Entry,
        scope: &PluginScope,
    ) -> Result<(Arc<Slot>, Vec<Descriptor>), PluginError> {
        let (mut demands, unlocked) = self.locking.demands(name, &entry, scope)?;
        let file = read(&demands.path)?;
        let admitted = demands.admit(file.hash)?;
        let opened = self.inner.open(name, &file, entry.limits, entry.grants.clone())?;
        admitted.check(|| opened.identity())?;
        if let Some(unlocked) = unlocked {
            self.locking.settle(&mut demands, unlocked, file.hash);
        }
        let Opened { plugin, descriptors, .. } = opened;
        let slot = Slot::new(entry, demands, descriptors.clone(), plugin, Arc::clone(&self.inner));
        Ok((Arc::new(slot), descriptors))
    }

    /// Reads a component and asks it for its name and version.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn identify(&self, path: &Path) -> Result<Identified, PluginError> {
        let file = read(path)?;
        let opened = self.inner.open(&name_of(path), &file, Limits::default(), Grants::default())?;
        Ok(Identified { identity: opened.identity()?, bytes: file.bytes, sha256: file.hash })
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
        Ok(Inspection::new(file.bytes.len(), file.hash.to_string(), shape, descriptor))
    }

    /// A component as the types it brings, under the name of its file, for programs and tests.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open_path(&self, path: &Path) -> Result<PluginTypes, PluginError> {
        let (name, file) = (name_of(path), read(path)?);
        let (limits, grants) = (Limits::default(), Grants::default());
        let Opened { plugin, descriptors, .. } = self.inner.open(&name, &file, limits, grants.clone())?;
        let entry = Entry { meant: Meant::File(path.to_owned()), sha256: None, limits, grants };
        let inner = Arc::clone(&self.inner);
        let slot = Slot::new(entry, Demands::none(path), descriptors.clone(), plugin, inner);
        Ok(types(&Arc::new(slot), descriptors))
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
        if let Some(component) = compiled.get(&file.hash.0) {
            return Ok(component.clone());
        }
        let engine = self.engine()?;
        let cached = self.cache.as_ref().and_then(|cache| cache.load(engine, &file.hash.0));
        let component = match cached {
            Some(component) => component,
            None => {
                let component = compile(engine, &file.bytes)?;
                if let Some(cache) = &self.cache {
                    cache.store(engine, &file.hash.0, &component);
                }
                component
            }
        };
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(file.hash.0, component.clone());
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
        let own =
            said.iter().map(|it| (it.description.name.clone(), it.description.version.clone())).collect();
        let descriptors = said.into_iter().map(|said| super::describe::descriptor(name, said));
        Ok(Opened { plugin, descriptors: descriptors.collect::<Result<_, _>>()?, own })
    }
}

pub(crate) fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "plugin".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl PluginLoader for Plugins {
    fn options(&self) -> ConfigSpec {
        spec()
    }

    fn short_form(&self) -> Option<&'static str> {
        Some(PLUGIN)
    }

    fn one_of(&self) -> &'static [&'static str] {
        &[PLUGIN, PATH]
    }

    fn check_trust(&self, said: &PluginTrust) -> Result<(), ConfigProblems> {
        trust(said).map(drop).map_err(|problems| ConfigProblems { problems })
    }

    fn load(
        &self,
        name: &str,
        config: &RawConfig,
        scope: &PluginScope,
    ) -> Result<PluginTypes, ConfigProblems> {
        let entry = Entry::read(config)?;
        let (grants, option) = (entry.grants.clone(), entry.meant.option());
        let (slot, descriptors) = self.load_entry(name, entry, scope).map_err(|error| {
            let place = if matches!(error, PluginError::OtherContent { .. }) { "sha256" } else { option };
            let mut problem =
                ConfigProblem::new(place, format!("the plugin `{name}` cannot be used: {error}"));
            problem.hint = error.hint();
            // The kinds of error that have always been there are told as problems of the configuration.
            problem.code = if let PluginError::Store(error) = &error { Some(error.code()) } else { None };
            problem
        })?;
        let options = descriptors.iter().flat_map(|it| &it.options.options);
        let secret = options.filter(|option| option.secret).map(|option| option.name.clone()).collect();
        ConfigProblems { problems: grants.unknown(&secret) }.into_result()?;
        Ok(types(&slot, descriptors))
    }
}
