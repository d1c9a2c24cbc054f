//! A plugin whose file is replaced while it runs: tasks go over to the new component between two batches.
//!
//! The new one is read, compiled and tried on a thread of its own: it must load, declare the same options, and accept the
//! options of every task that runs. Whatever it does not, the old one goes on, and the log says why.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use towpath_api::{ConnectorKind, Descriptor};
use towpath_store::signature_path;

use super::admission::Demands;
use super::component::Loaded;
use super::configured::Configured;
use super::error::PluginError;
use super::instance::Instance;
use super::loader::{Inner, Opened, at_once};
use super::options::Entry;
use super::state::Task;

/// How long a folder must be quiet before its files are looked at: whoever writes one, writes it in pieces.
const QUIET: Duration = Duration::from_millis(300);
/// How long quiet is waited for.
const BUSY: Duration = Duration::from_secs(2);
/// How often the thread looks whether it is still needed.
const IDLE: Duration = Duration::from_secs(5);

/// What a file is known by without reading it.
type Fingerprint = (u64, u64, u64, i64, i64);

fn of_file(path: &Path) -> Option<Fingerprint> {
    let it = std::fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.len(), it.mtime(), it.mtime_nsec()))
}

/// The component's file, and that of its signature where one counts: either may come first.
type Fingerprints = (Fingerprint, Option<Fingerprint>);

fn fingerprint(demands: &Demands) -> Option<Fingerprints> {
    let signature = || of_file(&signature_path(&demands.path));
    Some((of_file(&demands.path)?, demands.reads_signature().then(signature).flatten()))
}

/// A plugin under its name in the YAML.
pub(crate) struct Slot {
    entry: Entry,
    demands: Demands,
    /// What the configuration was validated against.
    descriptors: Vec<Descriptor>,
    current: Mutex<Arc<Loaded>>,
    seen: Mutex<Option<Fingerprints>>,
    /// The options of the tasks that run.
    configs: Mutex<Vec<(ConnectorKind, Weak<Configured>)>>,
    inner: Arc<Inner>,
}

impl Slot {
    pub(crate) fn new(
        entry: Entry,
        demands: Demands,
        descriptors: Vec<Descriptor>,
        loaded: Arc<Loaded>,
        inner: Arc<Inner>,
    ) -> Self {
        let seen = Mutex::new(fingerprint(&demands));
        let current = Mutex::new(loaded);
        Self { entry, demands, descriptors, current, seen, configs: Mutex::default(), inner }
    }

    /// The component that is to run.
    pub(crate) fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.lock())
    }

    /// A task has these options, as long as it holds them.
    pub(crate) fn used_with(&self, kind: ConnectorKind, configured: &Arc<Configured>) {
        let mut configs = self.configs.lock();
        configs.retain(|(_, it)| it.strong_count() > 0);
        configs.push((kind, Arc::downgrade(configured)));
    }

    /// From now on the file is watched; a process that only validates never comes here.
    pub(crate) fn watch(self: &Arc<Self>) {
        self.inner.watcher.get_or_init(Watcher::start).add(self);
    }

    /// Takes the file's component, if it is another one and fit to run.
    fn refresh(&self) {
        let now = fingerprint(&self.demands);
        // A file that is gone says nothing: it may be on its way.
        if now.is_none() || std::mem::replace(&mut *self.seen.lock(), now) == now {
            return;
        }
        let old = self.current();
        let (plugin, path) = (&*old.name, self.demands.path.display());
        match self.renewed(&old) {
            Ok(None) => {}
            Ok(Some(new)) => {
                let sha256 = new.hash.to_string();
                *self.current.lock() = new;
                tracing::info!(plugin, %path, sha256, "the plugin was replaced; its tasks go over to it");
            }
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                tracing::error!(plugin, %path, %error, hint, "the plugin's new file cannot be used; the old one goes on");
            }
        }
    }

    fn renewed(&self, old: &Loaded) -> Result<Option<Arc<Loaded>>, PluginError> {
        let file = super::loader::read(&self.demands.path)?;
        if file.hash == old.hash {
            return Ok(None);
        }
        let admitted = self.demands.admit(file.hash)?;
        let opened = self.inner.open(&old.name, &file, self.entry.limits, self.entry.grants.clone())?;
        admitted.check(|| opened.identity())?;
        let Opened { plugin: new, descriptors, .. } = opened;
        let same =
            |(one, two): (&Descriptor, &Descriptor)| one.kind == two.kind && one.options == two.options;
        if descriptors.len() != self.descriptors.len() || !descriptors.iter().zip(&self.descriptors).all(same)
        {
            let message =
                "its options are others than those of the file before; restart to use it".to_owned();
            return Err(PluginError::Description(message));
        }
        let live = |(kind, it): &(ConnectorKind, Weak<Configured>)| Some((*kind, it.upgrade()?));
        let configs: Vec<_> = self.configs.lock().iter().filter_map(live).collect();
        for (kind, configured) in configs {
            let problems = at_once(async {
                let mut instance = Instance::start(&new, Arc::clone(&configured), Task::default()).await?;
                instance.check_config(kind).await
            })?;
            if let Some(problem) = problems.first() {
                let what = configured.redactor.redact(&problem.message).into_owned();
                return Err(PluginError::Description(format!("it refuses the options of a task: {what}")));
            }
        }
        Ok(Some(new))
    }
}

/// Watches the folders of plugins.
pub(crate) struct Watcher {
    /// `None` where this system watches nothing.
    folders: Option<Mutex<RecommendedWatcher>>,
    slots: Arc<Mutex<Vec<Weak<Slot>>>>,
}

impl Watcher {
    fn start() -> Self {
        let slots = Arc::default();
        let folders = started(Arc::downgrade(&slots));
        if let Err(error) = &folders {
            tracing::warn!(%error, "files of plugins are not watched; a new one counts from the next start on");
        }
        Self { folders: folders.ok().map(Mutex::new), slots }
    }

    fn add(&self, slot: &Arc<Slot>) {
        let Some(folders) = &self.folders else { return };
        let mut slots = self.slots.lock();
        slots.retain(|it| it.strong_count() > 0);
        if slots.iter().any(|it| std::ptr::eq(it.as_ptr(), Arc::as_ptr(slot))) {
            return;
        }
        slots.push(Arc::downgrade(slot));
        drop(slots);
        // The folder, since a file that is replaced by renaming is another one.
        let folder = slot.demands.path.parent().filter(|it| !it.as_os_str().is_empty());
        let folder: PathBuf = folder.unwrap_or(Path::new(".")).to_owned();
        if let Err(error) = folders.lock().watch(&folder, RecursiveMode::NonRecursive) {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "a plugin's folder is not watched; a new file counts from the next start on");
        }
    }
}

/// The system's watcher, and the thread that does what there is to do.
fn started(slots: Weak<Mutex<Vec<Weak<Slot>>>>) -> Result<RecommendedWatcher, notify::Error> {
    let (sender, receiver) = sync_channel(1);
    let watcher = notify::recommended_watcher(move |event| heard(&sender, event))?;
    let thread = std::thread::Builder::new().name("towpath-plugin-files".to_owned());
    thread.spawn(move || run(&slots, &receiver)).map_err(notify::Error::io)?;
    Ok(watcher)
}

fn heard(sender: &SyncSender<()>, event: notify::Result<notify::Event>) {
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    // That a file was read is heard too, and of no interest. An error says that something may have been missed.
    if event.is_err() || event.is_ok_and(|it| it.kind == written || !it.kind.is_access()) {
        // R10: one is enough; it says only that something has changed.
        let _ = sender.try_send(());
    }
}

fn run(slots: &Weak<Mutex<Vec<Weak<Slot>>>>, changes: &Receiver<()>) {
    while let Some(held) = slots.upgrade() {
        drop(held);
        match changes.recv_timeout(IDLE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Where something is always written beside it, quiet is not waited for.
        let until = Instant::now() + BUSY;
        while Instant::now() < until && changes.recv_timeout(QUIET).is_ok() {}
        let Some(held) = slots.upgrade() else { return };
        let live: Vec<_> = held.lock().iter().filter_map(Weak::upgrade).collect();
        live.iter().for_each(|slot| slot.refresh());
    }
}
