//! Ed25519 keys (RFC 8032), and the files that they lie in.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::StoreError;
use super::file;
use super::identity::shortened;

const PREFIX: &str = "ed25519:";
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Bytes of a key's file.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Who can be known by a signature: `ed25519:` and 32 bytes as base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads what [`Self`] is written as.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|it| STANDARD.decode(it).ok());
        let key = bytes.and_then(|it| <[u8; 32]>::try_from(it).ok());
        key.map(Self).ok_or_else(|| StoreError::PublicKey(shortened(text)))
    }

    /// Reads a key's text, or that of the file which it names (`keygen` writes one beside each private key).
    ///
    /// # Errors
    /// It is no key, or the file cannot be read.
    pub fn parse_or_read(text: &str) -> Result<Self, StoreError> {
        let path = Path::new(text);
        if text.starts_with(PREFIX) || !path.exists() {
            return Self::parse(text);
        }
        let bytes = file::read(path, FILE_BYTES_MAX)
            .map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
        // R13: what was named by mistake may be the private key, and is not shown.
        let named = || StoreError::PublicKey(path.display().to_string());
        std::str::from_utf8(&bytes).ok().and_then(|it| Self::parse(it).ok()).ok_or_else(named)
    }

    /// Whether this key has signed the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What signs. It is never shown (R13).
pub struct SecretKey {
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}

impl SecretKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, StoreError> {
        Ed25519KeyPair::generate().map(|pair| Self { pair }).map_err(|_| StoreError::Cryptography)
    }

    /// Reads PKCS#8 in PEM, as [`Self::write`] and `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    /// It is no such file, or others than its owner can read or write it.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let unreadable = |source| StoreError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StoreError::Exposed { path: path.to_owned(), mode });
        }
        let bytes = file::read_open(file, FILE_BYTES_MAX).map_err(unreadable)?;
        let pair = der(&bytes).and_then(|der| Ed25519KeyPair::from_pkcs8(&der).ok());
        pair.map(|pair| Self { pair }).ok_or_else(|| StoreError::SecretKey(path.to_owned()))
    }

    /// Writes the key into a new file that only its owner can read, and the public one beside it (`.pub`). Files that are
    /// there stay as they are.
    ///
    /// # Errors
    /// One is there already, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        let beside = PathBuf::from(beside);
        let der = self.pair.to_pkcs8v1().map_err(|_| StoreError::Cryptography)?;
        let text = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der.as_ref()));
        let failed = |path: &Path, source: io::Error| StoreError::Write { path: path.to_owned(), source };
        if beside.exists() {
            return Err(failed(&beside, io::ErrorKind::AlreadyExists.into()));
        }
        file::create(path, text.as_bytes(), file::PRIVATE).map_err(|source| failed(path, source))?;
        let public = format!("{}\n", self.public());
        file::create(&beside, public.as_bytes(), file::PUBLIC).map_err(|source| failed(&beside, source))?;
        Ok(beside)
    }

    /// The key by which its signatures are known.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref();
        PublicKey(<[u8; 32]>::try_from(bytes).unwrap_or_default())
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        <[u8; 64]>::try_from(signature.as_ref()).unwrap_or([0; 64])
    }
}

/// The bytes of a PEM file.
fn der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    /// RFC 8032, 7.1: seed, public key, message, signature.
    const VECTORS: [[&str; 4]; 3] = [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b\
             be24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb430\
             2aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716e\
             d28dc027beceea1ec40a",
        ],
    ];

    #[test]
    fn the_vectors_of_rfc_8032_hold() {
        for [seed, public, message, signature] in VECTORS {
            let message = match message.len() {
                0 => Vec::new(),
                2 => bytes::<1>(message).to_vec(),
                _ => bytes::<2>(message).to_vec(),
            };
            let key = SecretKey { pair: Ed25519KeyPair::from_seed_unchecked(&bytes::<32>(seed)).unwrap() };
            assert_eq!(key.public(), PublicKey(bytes(public)));
            assert_eq!(key.sign(&message), bytes::<64>(signature));
            assert!(key.public().verifies(&message, &bytes(signature)));
            for bit in [0, 255, 256, 511] {
                let mut wrong: [u8; 64] = bytes(signature);
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.public().verifies(&message, &wrong), "{bit}");
            }
            assert!(!key.public().verifies(b"other", &bytes(signature)));
            assert!(!PublicKey(bytes(VECTORS[1][1])).verifies(b"", &bytes(VECTORS[0][3])));
        }
    }

    /// S + L says the same as S to a verifier that does not look (RFC 8032, 5.1.7): one signature has one form.
    #[test]
    fn a_signature_has_one_form() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut signature: [u8; 64] = bytes(VECTORS[0][3]);
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!PublicKey(bytes(VECTORS[0][1])).verifies(b"", &signature));
    }

    #[test]
    fn public_keys_are_written_and_read() {
        let key = PublicKey(bytes(VECTORS[0][1]));
        assert_eq!(key.to_string(), "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(PublicKey::parse(&format!("{key}\n")).unwrap(), key);
        for wrong in
            ["", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "ed25519:", "ed25519:11qYAYKx", "rsa:11qY"]
        {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn private_keys_are_their_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.key");
        let key = SecretKey::generate().unwrap();
        let beside = key.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(PublicKey::parse_or_read(beside.to_str().unwrap()).unwrap(), key.public());
        assert_eq!(SecretKey::read(&path).unwrap().public(), key.public());
        // Nothing is written over.
        let before = std::fs::read(&path).unwrap();
        assert!(SecretKey::generate().unwrap().write(&path).is_err());
        std::fs::remove_file(&beside).unwrap();
        assert!(SecretKey::generate().unwrap().write(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // Nothing is shown.
        let secret = String::from_utf8(before).unwrap().lines().nth(1).unwrap().to_owned();
        let told = PublicKey::parse_or_read(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(!told.contains(&secret) && !format!("{key:?}").contains(&secret[24..]), "{told}");
        for mode in [0o640, 0o604, 0o620, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = SecretKey::read(&path).unwrap_err();
            assert!(error.hint().is_some_and(|it| it.starts_with("type `chmod 600 ")), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        SecretKey::read(&path).unwrap();
    }

    /// What `openssl genpkey -algorithm ed25519` writes (RFC 8410, 10.3).
    #[test]
    fn keys_of_openssl_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs.pem");
        let pem =
            format!("{BEGIN}\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n{END}\n");
        file::create(&path, pem.as_bytes(), file::PRIVATE).unwrap();
        let public = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert_eq!(SecretKey::read(&path).unwrap().public().to_string(), public);
        file::replace(&path, b"no key").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(SecretKey::read(&path), Err(StoreError::SecretKey(_))));
    }
}
