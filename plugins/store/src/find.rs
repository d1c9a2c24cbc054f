//! From a reference to a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::error::StoreError;
use super::identity::Identity;
use super::lock::{Lock, Locked};
use super::reference::Reference;

/// Versions that a message lists.
const LISTED: usize = 5;

/// What may be decided about plugins that are not locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LockMode {
    /// The newest version of those that are asked for is taken, and can be locked.
    #[default]
    Complete,
    /// `--locked`: what is not locked is refused.
    Locked,
    /// As `Complete`, and these plugins are looked for anew, whatever is locked; they are meant by their own names or by
    /// those that the YAML gives them.
    Update(BTreeSet<String>),
}

/// A plugin's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub identity: Identity,
    /// Its component.
    pub path: PathBuf,
    /// What is locked of it: its file must have this hash.
    pub locked: Option<Locked>,
    /// What is locked and makes room for it.
    pub replaced: Option<Locked>,
}

/// The file of a plugin that the YAML `asking` calls `alias`.
///
/// # Errors
/// It is not there, or not locked where it must be.
pub fn find(
    alias: &str,
    reference: &Reference,
    lock: &Lock,
    directory: &Directory,
    mode: &LockMode,
    asking: &Path,
) -> Result<Found, StoreError> {
    let anew =
        matches!(mode, LockMode::Update(names) if names.contains(alias) || names.contains(&reference.name));
    let locked = lock.find(reference);
    if let Some(locked) = locked.filter(|_| !anew) {
        let (identity, path) = (locked.identity.clone(), directory.file(&locked.identity));
        if !path.exists() {
            let (lock, asking) = (lock.path().to_owned(), asking.to_owned());
            return Err(StoreError::LockedAbsent { identity: Box::new(identity), lock, path, asking });
        }
        return Ok(Found { identity, path, locked: Some(locked.clone()), replaced: None });
    }
    if *mode == LockMode::Locked {
        let (lock, asking) = (lock.path().to_owned(), asking.to_owned());
        return Err(StoreError::NotLocked { wanted: reference.to_string(), lock, asking });
    }
    let versions = directory.versions(&reference.name)?;
    let mut there = versions.into_iter().map(|version| Identity { name: reference.name.clone(), version });
    let listed: Vec<_> = there.clone().take(LISTED).map(|it| it.version.to_string()).collect();
    let Some(identity) = there.find(|it| reference.matches(it)) else {
        let folder = directory.folder().to_owned();
        return Err(StoreError::Absent { wanted: reference.to_string(), folder, there: listed });
    };
    let path = directory.file(&identity);
    Ok(Found { identity, path, locked: None, replaced: locked.cloned() })
}

#[cfg(test)]
mod tests {
    use super::super::hash::ContentHash;
    use super::super::lock::Change;
    use super::*;

    struct Shop {
        folder: tempfile::TempDir,
        directory: Directory,
    }

    impl Shop {
        fn with(versions: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let directory = Directory::new(folder.path().join("plugins"));
            let shop = Self { folder, directory };
            versions.iter().for_each(|it| shop.install(it));
            shop
        }

        fn install(&self, version: &str) {
            let identity = Identity::new("a", version).unwrap();
            self.directory.install(&identity, version.as_bytes(), None).unwrap();
        }

        fn find(&self, text: &str, mode: &LockMode) -> Result<Found, StoreError> {
            let lock = Lock::read(&Lock::beside(self.folder.path())).unwrap();
            let reference = Reference::parse(text).unwrap();
            find("mine", &reference, &lock, &self.directory, mode, Path::new("t.yaml"))
        }

        /// Finds, and locks what was found.
        fn lock(&self, text: &str, mode: &LockMode) -> String {
            let Found { identity, path, locked, replaced } = self.find(text, mode).unwrap();
            let told = identity.version.to_string();
            if locked.is_none() {
                let sha256 = ContentHash::of(&std::fs::read(&path).unwrap());
                let new = Locked { identity, sha256 };
                let change = Change { new, old: replaced, path, asking: "t.yaml".into() };
                Lock::change(&Lock::beside(self.folder.path()), &[change]).unwrap();
            }
            told
        }
    }

    fn update(name: &str) -> LockMode {
        LockMode::Update([name.to_owned()].into())
    }

    #[test]
    fn what_is_locked_stays_until_it_is_updated() {
        let shop = Shop::with(&["1.2.0", "2.0.0"]);
        assert_eq!(shop.lock("a@^1", &LockMode::Complete), "1.2.0");
        shop.install("1.3.0");
        for mode in [LockMode::Complete, LockMode::Locked, update("b")] {
            assert_eq!(shop.lock("a@^1", &mode), "1.2.0");
        }
        assert_eq!(shop.lock("a@^1", &update("mine")), "1.3.0");
        assert_eq!(shop.lock("a@^1", &LockMode::Locked), "1.3.0");
        assert_eq!(shop.find("a@1.2.0", &LockMode::Locked).unwrap_err().code(), "PLUGIN_LOCK");
        // Another major version is locked beside it.
        assert_eq!(shop.lock("a@*", &update("a")), "2.0.0");
        assert_eq!(shop.lock("a@^1", &LockMode::Complete), "1.3.0");
        assert_eq!(shop.lock("a@^2", &LockMode::Locked), "2.0.0");
    }

    #[test]
    fn what_is_not_there_is_told() {
        let shop = Shop::with(&["1.2.0", "2.0.0"]);
        let error = shop.find("a@^3", &LockMode::Complete).unwrap_err().to_string();
        assert!(error.contains("has no a@^3; of this plugin it has 2.0.0, 1.2.0"), "{error}");
        assert!(shop.find("b@^3", &LockMode::Complete).unwrap_err().to_string().ends_with("has no b@^3"));
        let error = shop.find("a@^1", &LockMode::Locked).unwrap_err();
        assert!(error.to_string().contains("a@^1 is not in the lock file"), "{error}");
        assert!(error.hint().unwrap().contains("towpath plugin lock t.yaml"));
        shop.lock("a@^1", &LockMode::Complete);
        std::fs::remove_dir_all(shop.directory.folder()).unwrap();
        let error = shop.find("a@^1", &LockMode::Complete).unwrap_err();
        assert!(error.to_string().contains("a@1.2.0 is what"), "{error}");
        assert!(error.hint().unwrap().contains("towpath plugin lock --update a t.yaml"));
    }
}
