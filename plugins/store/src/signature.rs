//! A signature beside a component: who vouches that these bytes are this plugin of this version.
//!
//! ```text
//! towpath plugin signature 1
//! name: pii_mask
//! version: 1.2.0
//! sha256: 5f2b…
//! key: ed25519:11qYAYKx…
//! signature: 5VZDAMNg…
//! ```
//!
//! What is signed (Ed25519, RFC 8032) are the first four lines with the line feed of each. The first one says what they are
//! for, so that a signature of anything else is never one of a plugin; name and version are in it, so that an old version
//! cannot be passed off as a new one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::StoreError;
use super::file;
use super::hash::ContentHash;
use super::identity::Identity;
use super::key::{PublicKey, SecretKey};

const HEAD: &str = "towpath plugin signature 1";
/// Bytes of a signature's file.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// A signature, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The plugin that was signed.
    pub identity: Identity,
    /// The component's hash.
    pub sha256: ContentHash,
    /// Who says that they have signed it.
    pub key: PublicKey,
    bytes: [u8; 64],
}

/// The signature's file of a component's file: `.sig` after its whole name.
#[must_use]
pub fn signature_path(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

fn message(identity: &Identity, sha256: ContentHash) -> String {
    format!("{HEAD}\nname: {}\nversion: {}\nsha256: {sha256}\n", identity.name, identity.version)
}

impl Signature {
    /// Signs a component.
    #[must_use]
    pub fn sign(key: &SecretKey, identity: Identity, sha256: ContentHash) -> Self {
        let bytes = key.sign(message(&identity, sha256).as_bytes());
        Self { identity, sha256, key: key.public(), bytes }
    }

    /// Reads the signature's file of a component's file; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(component: &Path) -> Result<Option<Self>, StoreError> {
        let path = signature_path(component);
        let bytes = match file::read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        let understood = std::str::from_utf8(&bytes).map_err(|_| "it is no text").and_then(understood);
        understood.map(Some).map_err(|reason| StoreError::SignatureSyntax { path, reason })
    }

    /// Writes it beside a component's file, in the place of another one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, component: &Path) -> Result<PathBuf, StoreError> {
        let path = signature_path(component);
        match file::replace(&path, self.to_string().as_bytes()) {
            Ok(()) => Ok(path),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Whether it was made, by the key that it names, for a file with this hash. It lies in `path`.
    ///
    /// # Errors
    /// It is for another file, or wrong.
    pub fn check(&self, path: &Path, actual: ContentHash) -> Result<(), StoreError> {
        let path = path.to_owned();
        if self.sha256 != actual {
            return Err(StoreError::SignatureOfOther { path, signed: self.sha256, actual });
        }
        if !self.key.verifies(message(&self.identity, self.sha256).as_bytes(), &self.bytes) {
            return Err(StoreError::Forged { path, key: self.key });
        }
        Ok(())
    }

    /// Whether it is that of the plugin which the component says that it is.
    ///
    /// # Errors
    /// It is another one's.
    pub fn check_identity(&self, actual: &Identity) -> Result<(), StoreError> {
        if self.identity == *actual {
            return Ok(());
        }
        let (expected, actual) = (Box::new(self.identity.clone()), Box::new(actual.clone()));
        Err(StoreError::OtherIdentity { what: "what was signed is", expected, actual })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&message(&self.identity, self.sha256))?;
        writeln!(f, "key: {}\nsignature: {}", self.key, STANDARD.encode(self.bytes))
    }
}

fn understood(text: &str) -> Result<Signature, &'static str> {
    let mut lines = text.lines();
    match lines.next() {
        Some(HEAD) => {}
        Some(other) if other.starts_with("towpath plugin signature ") => {
            return Err("it is of a form that this Towpath does not know");
        }
        _ => return Err("it does not begin as a signature does"),
    }
    let mut value = |name: &str| lines.next().and_then(|it| it.strip_prefix(name)?.strip_prefix(": "));
    let (name, version) =
        (value("name").ok_or("it has no name")?, value("version").ok_or("it has no version")?);
    let identity = Identity::new(name, version).map_err(|_| "its name or version is none")?;
    let sha256 = value("sha256").and_then(ContentHash::parse).ok_or("it has no SHA-256")?;
    let key = value("key").and_then(|it| PublicKey::parse(it).ok()).ok_or("it has no key")?;
    let bytes = value("signature").and_then(|it| STANDARD.decode(it).ok());
    let bytes =
        bytes.and_then(|it| <[u8; 64]>::try_from(it).ok()).ok_or("it has no signature of 64 bytes")?;
    match lines.next() {
        None => Ok(Signature { identity, sha256, key, bytes }),
        Some(_) => Err("there is more in it than a signature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(content: &[u8]) -> (SecretKey, Signature) {
        let key = SecretKey::generate().unwrap();
        let identity = Identity::new("pii_mask", "1.2.0").unwrap();
        let signature = Signature::sign(&key, identity, ContentHash::of(content));
        (key, signature)
    }

    #[test]
    fn a_signature_is_written_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("1.2.0.wasm");
        assert_eq!(Signature::read(&component).unwrap(), None);
        let (key, signature) = signed(b"code");
        let path = signature.write(&component).unwrap();
        assert!(path.ends_with("1.2.0.wasm.sig"));
        let read = Signature::read(&component).unwrap().unwrap();
        assert_eq!((&read, read.key), (&signature, key.public()));
        read.check(&path, ContentHash::of(b"code")).unwrap();
        let error = read.check(&path, ContentHash::of(b"cod")).unwrap_err();
        assert!(matches!(error, StoreError::SignatureOfOther { .. }), "{error}");
        read.check_identity(&Identity::new("pii_mask", "1.2.0").unwrap()).unwrap();
        let error = read.check_identity(&Identity::new("pii_mask", "1.3.0").unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("calls itself pii_mask@1.3.0, and what was signed is pii_mask@1.2.0")
        );
        // Line ends of another system change nothing.
        std::fs::write(&path, signature.to_string().replace('\n', "\r\n")).unwrap();
        assert_eq!(Signature::read(&component).unwrap(), Some(signature));
    }

    /// Whatever part of it is another one, it is wrong.
    #[test]
    fn every_part_is_signed() {
        let (_, signature) = signed(b"code");
        let (other, another) = signed(b"code");
        let hash = ContentHash::of(b"code");
        let wrong = [
            Signature { identity: Identity::new("pii_mask", "1.2.1").unwrap(), ..signature.clone() },
            Signature { identity: Identity::new("pii", "1.2.0").unwrap(), ..signature.clone() },
            Signature { key: other.public(), ..signature.clone() },
            Signature { bytes: another.bytes, ..signature.clone() },
            // The same words without what they are for.
            Signature {
                bytes: other.sign(&message(&another.identity, hash).as_bytes()[1..]),
                ..another.clone()
            },
        ];
        for wrong in wrong {
            let error = wrong.check(Path::new("x.sig"), hash).unwrap_err();
            assert!(matches!(error, StoreError::Forged { .. }), "{error}");
        }
        let moved = Signature { sha256: ContentHash::of(b"evil"), ..signature };
        assert!(matches!(
            moved.check(Path::new("x.sig"), ContentHash::of(b"evil")),
            Err(StoreError::Forged { .. })
        ));
    }

    #[test]
    fn what_is_no_signature_is_told_apart() {
        let text = signed(b"code").1.to_string();
        assert_eq!(understood(&text).unwrap().to_string(), text);
        for (from, to, says) in [
            ("towpath", "towpat", "does not begin"),
            ("signature 1", "signature 2", "of a form"),
            ("name: ", "nam: ", "no name"),
            ("pii_mask", "../x", "name or version"),
            ("version: 1.2.0", "version: 1.2", "name or version"),
            ("sha256: ", "sha256: 0", "no SHA-256"),
            ("ed25519:", "rsa:", "no key"),
            ("signature: ", "signature: =", "64 bytes"),
        ] {
            assert!(understood(&text.replacen(from, to, 1)).unwrap_err().contains(says), "{from}");
        }
        assert!(understood(&format!("{text}more\n")).unwrap_err().contains("more in it"));
        let lines: Vec<_> = text.lines().collect();
        for count in 0..lines.len() {
            assert!(understood(&lines[..count].join("\n")).is_err(), "{count} lines");
        }
    }
}
