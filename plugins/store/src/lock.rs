//! `towpath.lock`: the versions that are used, and what their files must be.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towpath_types::limits::PLUGIN_LOCK_BYTES_MAX;

use super::error::StoreError;
use super::file;
use super::hash::ContentHash;
use super::identity::Identity;
use super::reference::Reference;

/// The form of the file.
const FORM: u32 = 1;

/// One plugin of one version, and the hash that its file must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Which.
    pub identity: Identity,
    /// What.
    pub sha256: ContentHash,
}

/// What is to be changed in a lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is locked from now on.
    pub new: Locked,
    /// What stood there instead, and goes; nothing where this plugin was not locked.
    pub old: Option<Locked>,
    /// The component's file.
    pub path: PathBuf,
    /// The file that asks for it.
    pub asking: PathBuf,
}

/// A lock file's content.
#[derive(Debug, Clone)]
pub struct Lock {
    path: PathBuf,
    /// By name and version.
    entries: Vec<Locked>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    plugins: Vec<WrittenEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    name: String,
    version: String,
    sha256: String,
}

impl Lock {
    /// The name of the file.
    pub const FILE: &str = "towpath.lock";

    /// The lock file of the YAML files in a folder.
    #[must_use]
    pub fn beside(folder: &Path) -> PathBuf {
        folder.join(Self::FILE)
    }

    /// Reads a file. Where there is none, nothing is locked.
    ///
    /// # Errors
    /// If it cannot be read or understood: what was locked is not forgotten by mistake.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let entries = match file::read(path, PLUGIN_LOCK_BYTES_MAX) {
            Ok(bytes) => understood(&bytes)
                .map_err(|reason| StoreError::LockSyntax { path: path.to_owned(), reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(StoreError::Read { path: path.to_owned(), source }),
        };
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is locked, by name and version.
    #[must_use]
    pub fn entries(&self) -> &[Locked] {
        &self.entries
    }

    /// The newest version that is locked among those that are asked for.
    #[must_use]
    pub fn find(&self, reference: &Reference) -> Option<&Locked> {
        self.entries.iter().rfind(|it| reference.matches(&it.identity))
    }

    /// Makes changes, and writes the file if it is another one then. It is read again first: somebody else may have written
    /// it meanwhile.
    ///
    /// # Errors
    /// If it cannot be read or written, or has locked another content of the same version meanwhile.
    pub fn change(path: &Path, changes: &[Change]) -> Result<(), StoreError> {
        let mut lock = Self::read(path)?;
        let before = lock.text();
        for Change { new, old, path: file, asking } in changes {
            lock.entries.retain(|it| Some(it) != old.as_ref());
            match lock.entries.binary_search_by(|it| it.identity.cmp(&new.identity)) {
                Ok(at) if lock.entries[at].sha256 == new.sha256 => {}
                Ok(at) => {
                    return Err(StoreError::OtherContent {
                        identity: Box::new(new.identity.clone()),
                        path: file.clone(),
                        lock: path.to_owned(),
                        locked: Box::new(lock.entries[at].sha256),
                        actual: Box::new(new.sha256),
                        asking: asking.clone(),
                    });
                }
                Err(at) => lock.entries.insert(at, new.clone()),
            }
        }
        let text = lock.text();
        if text == before {
            return Ok(());
        }
        let written = file::replace(path, text.as_bytes());
        written.map_err(|source| StoreError::Write { path: path.to_owned(), source })
    }

    /// A line a value, so that versions of the file can be compared by eye, and merged.
    fn text(&self) -> String {
        let entry = |it: &Locked| WrittenEntry {
            name: it.identity.name.clone(),
            version: it.identity.version.to_string(),
            sha256: it.sha256.to_string(),
        };
        let written = Written { version: FORM, plugins: self.entries.iter().map(entry).collect() };
        serde_json::to_string_pretty(&written).unwrap_or_default() + "\n"
    }
}

fn understood(bytes: &[u8]) -> Result<Vec<Locked>, String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !value.is_object() {
        return Err("it is no JSON object".to_owned());
    }
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version != u64::from(FORM) => {
            return Err(format!("it has form {version}, and this Towpath knows form {FORM}"));
        }
        _ => {}
    }
    // Once more out of the text, for the line of what is wrong.
    let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut entries = Vec::with_capacity(written.plugins.len());
    for WrittenEntry { name, version, sha256 } in written.plugins {
        let identity = Identity::new(&name, &version).map_err(|error| error.to_string())?;
        let sha256 = ContentHash::parse(&sha256)
            .ok_or_else(|| format!("the `sha256` of {identity} has not 64 hexadecimal digits"))?;
        entries.push(Locked { identity, sha256 });
    }
    entries.sort_by(|one, other| one.identity.cmp(&other.identity));
    match entries.windows(2).find(|pair| pair[0].identity == pair[1].identity) {
        Some(pair) => Err(format!("{} stands there twice", pair[0].identity)),
        None => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(name: &str, version: &str, content: &str) -> Locked {
        Locked {
            identity: Identity::new(name, version).unwrap(),
            sha256: ContentHash::of(content.as_bytes()),
        }
    }

    fn add(new: Locked) -> Change {
        Change { new, old: None, path: "a.wasm".into(), asking: "t.yaml".into() }
    }

    fn instead_of(old: Locked, new: Locked) -> Change {
        Change { old: Some(old), ..add(new) }
    }

    #[test]
    fn what_is_locked_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::beside(folder.path());
        assert_eq!(Lock::read(&path).unwrap().entries(), []);
        Lock::change(&path, &[add(locked("b", "1.0.0", "b")), add(locked("a", "1.10.0", "x"))]).unwrap();
        Lock::change(&path, &[add(locked("a", "1.9.0", "y")), add(locked("a", "2.0.0", "z"))]).unwrap();
        let lock = Lock::read(&path).unwrap();
        let order: Vec<_> = lock.entries().iter().map(|it| it.identity.to_string()).collect();
        assert_eq!(order, ["a@1.9.0", "a@1.10.0", "a@2.0.0", "b@1.0.0"]);
        let find = |text: &str| lock.find(&Reference::parse(text).unwrap()).cloned();
        assert_eq!(find("a@^1"), Some(locked("a", "1.10.0", "x")));
        assert_eq!(find("a@1.9.0"), Some(locked("a", "1.9.0", "y")));
        assert_eq!((find("a@^3"), find("c@*")), (None, None));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("{\n  \"version\": 1,\n  \"plugins\": [\n    {\n      \"name\": \"a\",\n"),
            "{text}"
        );
    }

    #[test]
    fn a_change_replaces_what_it_says_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::beside(folder.path());
        let (old, new) = (locked("a", "1.0.0", "x"), locked("a", "1.1.0", "y"));
        Lock::change(&path, &[add(old.clone()), add(locked("b", "1.0.0", "b"))]).unwrap();
        // The same version with another content is no addition.
        let error = Lock::change(&path, &[add(locked("a", "1.0.0", "y"))]).unwrap_err();
        assert!(error.hint().is_some_and(|it| it.contains("plugin lock --update a t.yaml")), "{error}");
        Lock::change(&path, &[instead_of(old, new.clone())]).unwrap();
        assert_eq!(Lock::read(&path).unwrap().entries(), [new.clone(), locked("b", "1.0.0", "b")]);
        let rebuilt = locked("a", "1.1.0", "z");
        Lock::change(&path, &[instead_of(new, rebuilt.clone())]).unwrap();
        assert_eq!(Lock::read(&path).unwrap().entries()[0], rebuilt);
        // What changes nothing writes nothing.
        let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let before = written();
        Lock::change(&path, &[add(rebuilt)]).unwrap();
        assert_eq!(written(), before);
    }

    #[test]
    fn a_damaged_file_is_told_and_never_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::beside(folder.path());
        let hash = "0".repeat(64);
        let entry = |name: &str, version: &str, hash: &str| {
            format!("{{\"name\":\"{name}\",\"version\":\"{version}\",\"sha256\":\"{hash}\"}}")
        };
        let file = |entries: &str| format!("{{\"version\":1,\"plugins\":[{entries}]}}");
        let good = entry("a", "1.0.0", &hash);
        for (text, says) in [
            (String::new(), "line 1"),
            ("{\n  \"version\": 1,\n  \"plugins\": [\n<<<<<<< HEAD\n".to_owned(), "line 4"),
            ("[1, []]".to_owned(), "no JSON object"),
            ("{\"version\":2,\"other\":[]}".to_owned(), "it has form 2"),
            (file("").replace("plugins", "plugin"), "unknown field"),
            (file(&entry("../a", "1.0.0", &hash)), "cannot be a plugin's name"),
            (file(&entry("a", "1", &hash)), "is no version"),
            (file(&entry("a", "1.0.0", "00")), "64 hexadecimal digits"),
            (file(&format!("{good},{good}")), "a@1.0.0 stands there twice"),
            ("x".repeat(usize::try_from(PLUGIN_LOCK_BYTES_MAX).unwrap() + 1), "more than"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = Lock::read(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{text:.100}: {error}");
            assert!(Lock::change(&path, &[]).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, file(&good)).unwrap();
        assert_eq!(Lock::read(&path).unwrap().entries().len(), 1);
    }
}
