//! Which file an entry of `plugins:` means, and what a file must be before anything of it is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use towpath_api::{ConfigProblem, PluginScope, PluginTrust};
use towpath_store::{
    Change, ContentHash, Directory, Found, Identity, Lock, LockMode, Locked, PublicKey, StoreError, Trust,
    find,
};

use super::error::PluginError;
use super::options::{Entry, Meant, problem};

/// Names the plugin directory where no YAML does.
pub(crate) const DIRECTORY_VARIABLE: &str = "TOWPATH_PLUGIN_DIRECTORY";

/// What is locked of a plugin, and who says so.
#[derive(Debug, Clone)]
struct Pinned {
    locked: Locked,
    lock: PathBuf,
    asking: PathBuf,
}

/// A component's file, and what it must be whenever it is read.
#[derive(Debug, Clone)]
pub(crate) struct Demands {
    pub(crate) path: PathBuf,
    sha256: Option<ContentHash>,
    pinned: Option<Pinned>,
    /// What the component must call itself.
    named: Option<Identity>,
    trust: Arc<Trust>,
}

impl Demands {
    /// Of a file that nobody demands anything of.
    pub(crate) fn none(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path, sha256: None, pinned: None, named: None, trust: Arc::default() }
    }

    /// Whether a file with this hash may be looked into; then what it has to call itself, whoever says so.
    pub(crate) fn admit(&self, actual: ContentHash) -> Result<Admitted, PluginError> {
        if let Some(expected) = self.sha256.filter(|it| *it != actual) {
            return Err(PluginError::OtherContent { expected, actual });
        }
        if let Some(Pinned { locked, lock, asking }) =
            self.pinned.as_ref().filter(|it| it.locked.sha256 != actual)
        {
            return Err(PluginError::Store(StoreError::OtherContent {
                identity: Box::new(locked.identity.clone()),
                path: self.path.clone(),
                lock: lock.clone(),
                locked: Box::new(locked.sha256),
                actual: Box::new(actual),
                asking: asking.clone(),
            }));
        }
        let signature = self.trust.check(&self.path, actual)?;
        let signed = signature.map(|it| ("what was signed is", it.identity));
        let named = self.named.clone().map(|it| ("its file is that of", it));
        Ok(Admitted { must_be: named.into_iter().chain(signed).collect() })
    }

    /// Whether a signature beside the file can change what is thought of it.
    pub(crate) fn reads_signature(&self) -> bool {
        *self.trust != Trust::default()
    }
}

/// A file that may be looked into.
pub(crate) struct Admitted {
    must_be: Vec<(&'static str, Identity)>,
}

impl Admitted {
    /// Whether a component is what it is taken for; `said` is what it calls itself.
    pub(crate) fn check(
        self,
        said: impl FnOnce() -> Result<Identity, PluginError>,
    ) -> Result<(), PluginError> {
        if self.must_be.is_empty() {
            return Ok(());
        }
        let actual = said()?;
        match self.must_be.into_iter().find(|(_, expected)| *expected != actual) {
            Some((what, expected)) => {
                let (expected, actual) = (Box::new(expected), Box::new(actual));
                Err(StoreError::OtherIdentity { what, expected, actual }.into())
            }
            None => Ok(()),
        }
    }
}

/// `plugin_trust:` with its keys read.
pub(crate) fn trust(scope: &PluginTrust) -> Result<Trust, Vec<ConfigProblem>> {
    let (mut keys, mut problems) = (Vec::new(), Vec::new());
    for (index, text) in scope.keys.iter().enumerate() {
        match PublicKey::parse(text) {
            Ok(key) => keys.push(key),
            Err(error) => problems.push(problem(&format!("keys[{index}]"), &error)),
        }
    }
    if scope.keys.is_empty() {
        let message = "no key is trusted, and so no signature would count";
        let hint = "add the public key of whoever signs your plugins; `towpath plugin keygen` makes one";
        problems.push(ConfigProblem::new("keys", message).with_hint(hint).with_code("PLUGIN_KEY"));
    }
    if problems.is_empty() { Ok(Trust { keys, required: scope.required }) } else { Err(problems) }
}

/// The plugin directory for a file of YAML.
fn directory(scope: &PluginScope, folder: &Path) -> Directory {
    let named = || std::env::var_os(DIRECTORY_VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
    let said = scope.directory.clone().or_else(named);
    Directory::new(said.unwrap_or_else(|| folder.join(Directory::DEFAULT)))
}

/// What a process decides about lock files.
#[derive(Debug, Default)]
pub(crate) struct Locking {
    mode: LockMode,
    /// What is to be written, by lock file.
    changes: Mutex<BTreeMap<PathBuf, Vec<Change>>>,
    /// What is locked and used as it is, by lock file.
    kept: Mutex<BTreeSet<(PathBuf, Identity)>>,
    /// The names of the plugins that were looked for, their own and those of the YAML.
    asked: Mutex<BTreeSet<String>>,
}

impl Locking {
    pub(crate) fn new(mode: LockMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// The file that an entry means.
    pub(crate) fn demands(
        &self,
        name: &str,
        entry: &Entry,
        scope: &PluginScope,
    ) -> Result<(Demands, Option<Unlocked>), PluginError> {
        let trust = scope.trust.as_ref().map(trust).transpose();
        // Its problems are told where the keys stand; nothing is loaded then.
        let trust = trust.map_err(|_| StoreError::PublicKey("plugin_trust".to_owned()))?.unwrap_or_default();
        let demands = |path, named, pinned| Demands {
            path,
            sha256: entry.sha256,
            pinned,
            named,
            trust: Arc::new(trust.clone()),
        };
        let reference = match &entry.meant {
            Meant::File(path) => return Ok((demands(path.clone(), None, None), None)),
            Meant::Named(reference) => reference,
        };
        self.asked.lock().extend([name.to_owned(), reference.name.clone()]);
        let folder = scope.file.parent().unwrap_or(Path::new(""));
        let lock = Lock::read(&Lock::beside(folder))?;
        let asking = &scope.file;
        let found = find(name, reference, &lock, &directory(scope, folder), &self.mode, asking)?;
        let Found { identity, path, locked, replaced } = found;
        let (lock, asking) = (lock.path().to_owned(), asking.clone());
        if locked.is_some() {
            self.kept.lock().insert((lock.clone(), identity.clone()));
        }
        let unlocked = locked.is_none().then(|| Unlocked {
            identity: identity.clone(),
            replaced,
            lock: lock.clone(),
            asking: asking.clone(),
        });
        let pinned = locked.map(|locked| Pinned { locked, lock, asking });
        Ok((demands(path, Some(identity), pinned), unlocked))
    }

    /// A plugin that was not locked is found to be right: it is locked as it is, from now on.
    pub(crate) fn settle(&self, demands: &mut Demands, unlocked: Unlocked, sha256: ContentHash) {
        let Unlocked { identity, replaced, lock, asking } = unlocked;
        let locked = Locked { identity, sha256 };
        let change =
            Change { new: locked.clone(), old: replaced, path: demands.path.clone(), asking: asking.clone() };
        let mut changes = self.changes.lock();
        let of_file = changes.entry(lock.clone()).or_default();
        if !of_file.iter().any(|it| it.new == change.new) {
            of_file.push(change);
        }
        drop(changes);
        demands.pinned = Some(Pinned { locked, lock, asking });
    }

    /// Writes what was found into the lock files, and says what that was.
    pub(crate) fn write(&self) -> Result<Vec<(PathBuf, Change)>, PluginError> {
        let mut written = Vec::new();
        let kept = self.kept.lock();
        for (lock, mut changes) in std::mem::take(&mut *self.changes.lock()) {
            for change in &mut changes {
                // Where another entry still uses the older version, both are locked.
                change.old.take_if(|old| {
                    old.identity != change.new.identity
                        && kept.contains(&(lock.clone(), old.identity.clone()))
                });
            }
            Lock::change(&lock, &changes)?;
            // What was looked for anew and found again is no change.
            let changes = changes.into_iter().filter(|it| it.old.as_ref() != Some(&it.new));
            written.extend(changes.map(|change| (lock.clone(), change)));
        }
        Ok(written)
    }

    /// Names that were to be looked for anew, and that no file asks for.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let LockMode::Update(names) = &self.mode else { return Vec::new() };
        names.difference(&*self.asked.lock()).cloned().collect()
    }
}

/// A plugin that was found and is not locked yet.
pub(crate) struct Unlocked {
    identity: Identity,
    replaced: Option<Locked>,
    lock: PathBuf,
    asking: PathBuf,
}
