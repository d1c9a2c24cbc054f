//! The directory that plugins are found in: `NAME/VERSION.wasm`, and `NAME/VERSION.wasm.sig` beside it.

use std::io;
use std::path::{Path, PathBuf};

use semver::Version;
use towpath_types::limits::{PLUGIN_DIRECTORY_ENTRIES_MAX, PLUGIN_FILE_BYTES_MAX};

use super::error::StoreError;
use super::file;
use super::hash::ContentHash;
use super::identity::{Identity, check_name};
use super::signature::{Signature, signature_path};

const SUFFIX: &str = ".wasm";

/// A plugin directory, which need not be there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    folder: PathBuf,
}

/// What [`Directory::install`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The component's file.
    pub path: PathBuf,
    /// Whether it was not there before.
    pub is_new: bool,
}

impl Directory {
    /// The name of the directory that is looked for beside the YAML, where nothing else is said.
    pub const DEFAULT: &str = "plugins";

    /// This folder.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the component of a plugin lies, if it does.
    #[must_use]
    pub fn file(&self, identity: &Identity) -> PathBuf {
        self.folder.join(&identity.name).join(format!("{}{SUFFIX}", identity.version))
    }

    /// The versions of a plugin, the newest first. What is no component's file is left alone.
    ///
    /// # Errors
    /// If the folder cannot be read, or holds more than `PLUGIN_DIRECTORY_ENTRIES_MAX` files (R10).
    pub fn versions(&self, name: &str) -> Result<Vec<Version>, StoreError> {
        check_name(name)?;
        let version = |file: &str| file.strip_suffix(SUFFIX).and_then(|it| Version::parse(it).ok());
        let mut versions: Vec<_> =
            names(&self.folder.join(name))?.iter().filter_map(|it| version(it)).collect();
        versions.sort_unstable_by(|one, other| other.cmp(one));
        Ok(versions)
    }

    /// Every plugin, by name, the newest version of each first.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub fn all(&self) -> Result<Vec<Identity>, StoreError> {
        let mut all = Vec::new();
        let mut folders = names(&self.folder)?;
        folders.sort_unstable();
        for name in folders.into_iter().filter(|it| check_name(it).is_ok() && self.folder.join(it).is_dir()) {
            let versions = self.versions(&name)?;
            all.extend(versions.into_iter().map(|version| Identity { name: name.clone(), version }));
        }
        Ok(all)
    }

    /// Puts a component under its name and version, with its signature if it has one. What is there with the same content
    /// stays; with another content it is left alone.
    ///
    /// # Errors
    /// Another component is there; the signature is another one's; or it cannot be written.
    pub fn install(
        &self,
        identity: &Identity,
        bytes: &[u8],
        signature: Option<&Signature>,
    ) -> Result<Installed, StoreError> {
        let path = self.file(identity);
        let given = ContentHash::of(bytes);
        let failed = |source| StoreError::Write { path: path.clone(), source };
        let signature_path = signature_path(&path);
        if let Some(signature) = signature {
            signature.check(&signature_path, given)?;
            signature.check_identity(identity)?;
        }
        self.check_free(&path, given)?;
        std::fs::create_dir_all(self.folder.join(&identity.name)).map_err(failed)?;
        if let Some(signature) = signature {
            // Before the component: where it is required, there is never one without it.
            let written = file::replace(&signature_path, signature.to_string().as_bytes());
            written.map_err(|source| StoreError::Write { path: signature_path, source })?;
        }
        match file::create(&path, bytes, file::PUBLIC) {
            Ok(()) => Ok(Installed { path, is_new: true }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.check_free(&path, given)?;
                Ok(Installed { path, is_new: false })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Nothing is there, or the same.
    fn check_free(&self, path: &Path, given: ContentHash) -> Result<(), StoreError> {
        let there = match read_component(path) {
            Ok(there) => ContentHash::of(&there),
            Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if there == given {
            Ok(())
        } else {
            Err(StoreError::Occupied { path: path.to_owned(), there, given })
        }
    }
}

/// The bytes of a component's file.
///
/// # Errors
/// It cannot be read, or has more than `PLUGIN_FILE_BYTES_MAX` bytes (R10).
pub fn read_component(path: &Path) -> Result<Vec<u8>, StoreError> {
    let bytes = file::read(path, PLUGIN_FILE_BYTES_MAX);
    bytes.map_err(|source| StoreError::Read { path: path.to_owned(), source })
}

/// The names in a folder, as far as they are Unicode; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let unreadable = |source| StoreError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(unreadable)?.file_name().into_string().ok());
        if names.len() > PLUGIN_DIRECTORY_ENTRIES_MAX {
            let message = format!("it holds more than {PLUGIN_DIRECTORY_ENTRIES_MAX} files");
            return Err(unreadable(io::Error::other(message)));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::key::SecretKey;
    use super::*;

    fn identity(version: &str) -> Identity {
        Identity::new("a", version).unwrap()
    }

    #[test]
    fn components_lie_under_their_names_and_versions() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().join("plugins"));
        assert_eq!(directory.all().unwrap(), []);
        for version in ["1.2.0", "1.10.0", "1.10.0-rc.1"] {
            let installed = directory.install(&identity(version), version.as_bytes(), None).unwrap();
            assert!(installed.is_new && installed.path.ends_with(format!("a/{version}.wasm")));
        }
        std::fs::write(directory.folder().join("a/README.md"), "").unwrap();
        std::fs::write(directory.folder().join("a/1.2.wasm"), "").unwrap();
        std::fs::write(directory.folder().join("stray.wasm"), "").unwrap();
        let versions: Vec<_> = directory.versions("a").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(versions, ["1.10.0", "1.10.0-rc.1", "1.2.0"]);
        assert_eq!(directory.versions("b").unwrap(), []);
        assert!(directory.versions("../a").is_err());
        let all = directory.all().unwrap();
        assert_eq!((all.len(), all[0].to_string()), (3, "a@1.10.0".to_owned()));
    }

    #[test]
    fn a_version_has_one_content() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_owned());
        directory.install(&identity("1.0.0"), b"one", None).unwrap();
        assert!(!directory.install(&identity("1.0.0"), b"one", None).unwrap().is_new);
        let error = directory.install(&identity("1.0.0"), b"two", None).unwrap_err();
        assert!(matches!(error, StoreError::Occupied { .. }), "{error}");
        assert_eq!(std::fs::read(directory.file(&identity("1.0.0"))).unwrap(), b"one");
        let key = SecretKey::generate().unwrap();
        let of = |bytes, version| Signature::sign(&key, identity(version), ContentHash::of(bytes));
        // The signature comes later; that of another file or version does not.
        let path = signature_path(&directory.file(&identity("1.0.0")));
        assert!(directory.install(&identity("1.0.0"), b"one", Some(&of(b"two", "1.0.0"))).is_err());
        assert!(directory.install(&identity("1.0.0"), b"one", Some(&of(b"one", "1.0.1"))).is_err());
        assert!(directory.install(&identity("1.0.0"), b"two", Some(&of(b"two", "1.0.0"))).is_err());
        assert!(!path.exists());
        let right = of(b"one", "1.0.0");
        assert!(!directory.install(&identity("1.0.0"), b"one", Some(&right)).unwrap().is_new);
        assert_eq!(std::fs::read_to_string(path).unwrap(), right.to_string());
    }
}
