//! What goes wrong with plugins by name.

use std::path::{Path, PathBuf};

use super::hash::ContentHash;
use super::identity::Identity;
use super::key::PublicKey;

/// Why a plugin is not taken, or a file not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A name that is none.
    #[error("`{0}` cannot be a plugin's name")]
    Name(String),
    /// A version that is none.
    #[error("`{version}` is no version: {reason}")]
    Version {
        /// What was written.
        version: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Part of a version, which could mean this one or every later one.
    #[error("`{name}@{version}` could be more than one version")]
    Vague {
        /// The plugin.
        name: String,
        /// What was written.
        version: String,
    },
    /// A reference that is none.
    #[error("`{text}` cannot be read as a plugin and its version: {reason}")]
    Reference {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or a folder that cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No version in the directory is the one that is asked for.
    #[error("{folder} has no {wanted}{}", has(there), folder = folder.display())]
    Absent {
        /// What was asked for.
        wanted: String,
        /// The plugin directory.
        folder: PathBuf,
        /// The versions that are there, the newest first.
        there: Vec<String>,
    },
    /// A lock file that says nothing that can be understood.
    #[error("the lock file {} cannot be understood: {reason}", path.display())]
    LockSyntax {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is locked, and nothing may be.
    #[error("{wanted} is not in the lock file {}, and with --locked nothing is added to it", lock.display())]
    NotLocked {
        /// What was asked for.
        wanted: String,
        /// The lock file.
        lock: PathBuf,
        /// The file that asks for it.
        asking: PathBuf,
    },
    /// The version that is locked has gone.
    #[error("{identity} is what {} has locked, and {} is not there", lock.display(), path.display())]
    LockedAbsent {
        /// The plugin.
        identity: Box<Identity>,
        /// The lock file.
        lock: PathBuf,
        /// Where the component should be.
        path: PathBuf,
        /// The file that asks for it.
        asking: PathBuf,
    },
    /// The file is another one than that which was locked.
    #[error(
        "{} is not the file that was locked: its SHA-256 is {actual}, and {} has {locked} for {identity}",
        path.display(), lock.display()
    )]
    OtherContent {
        /// The plugin.
        identity: Box<Identity>,
        /// The component's file.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// What it says.
        locked: Box<ContentHash>,
        /// What the file has.
        actual: Box<ContentHash>,
        /// The file that asks for it.
        asking: PathBuf,
    },
    /// Another component lies in the directory under this name and version.
    #[error("{} is there already with another content ({there}, and this one is {given})", path.display())]
    Occupied {
        /// What is there.
        path: PathBuf,
        /// Its hash.
        there: ContentHash,
        /// The hash of the one that was to be put there.
        given: ContentHash,
    },
    /// No signature, where one is required.
    #[error("it is not signed, and must be: there is no {}", path.display())]
    Unsigned {
        /// Where the signature should be.
        path: PathBuf,
        /// Whose signatures count.
        trusted: Vec<PublicKey>,
    },
    /// A signature file that says nothing that can be understood.
    #[error("the signature {} cannot be understood: {reason}", path.display())]
    SignatureSyntax {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A signature of something else.
    #[error(
        "the signature {} is for a file with the SHA-256 {signed}, and this one has {actual}", path.display()
    )]
    SignatureOfOther {
        /// The signature's file.
        path: PathBuf,
        /// What was signed.
        signed: ContentHash,
        /// What the file has.
        actual: ContentHash,
    },
    /// A signature that the key which it names has not made.
    #[error("the signature {} is wrong: {key} has not signed this", path.display())]
    Forged {
        /// The signature's file.
        path: PathBuf,
        /// Whose it says that it is.
        key: PublicKey,
    },
    /// A signature of nobody's who counts.
    #[error("it is signed by {key}, which is not trusted; trusted: {}", names(trusted))]
    Untrusted {
        /// Who has signed it.
        key: PublicKey,
        /// Whose signatures count.
        trusted: Vec<PublicKey>,
    },
    /// A component that tells another name or version than what it is known by.
    #[error("it calls itself {actual}, and {what} {expected}")]
    OtherIdentity {
        /// Who says otherwise (`the file is that of`, `what was signed is`).
        what: &'static str,
        /// What they say.
        expected: Box<Identity>,
        /// What the component says.
        actual: Box<Identity>,
    },
    /// A public key that is none.
    #[error("`{0}` is no public key")]
    PublicKey(String),
    /// A file that holds no private key (R13: nothing of it is shown).
    #[error("{} holds no Ed25519 private key", .0.display())]
    SecretKey(PathBuf),
    /// A private key that others can read.
    #[error("others than its owner can read or write {} (its mode is {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The cryptography does not work here.
    #[error("a key cannot be made on this system")]
    Cryptography,
}

fn has(there: &[String]) -> String {
    match there {
        [] => String::new(),
        there => format!("; of this plugin it has {}", there.join(", ")),
    }
}

pub(crate) fn names(keys: &[PublicKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn update(name: &str, file: &Path) -> String {
    format!("`towpath plugin lock --update {name} {}`", file.display())
}

impl StoreError {
    /// A stable code of the kind of problem.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::Version { .. } | Self::Vague { .. } | Self::Reference { .. } => {
                "PLUGIN_REFERENCE"
            }
            Self::Read { .. } | Self::Absent { .. } | Self::Occupied { .. } => "PLUGIN_DIRECTORY",
            Self::Write { .. } => "PLUGIN_WRITE",
            Self::LockSyntax { .. }
            | Self::NotLocked { .. }
            | Self::LockedAbsent { .. }
            | Self::OtherContent { .. } => "PLUGIN_LOCK",
            Self::OtherIdentity { .. } => "PLUGIN_IDENTITY",
            Self::Unsigned { .. }
            | Self::SignatureSyntax { .. }
            | Self::SignatureOfOther { .. }
            | Self::Forged { .. }
            | Self::Untrusted { .. } => "PLUGIN_SIGNATURE",
            Self::PublicKey(_) | Self::SecretKey(_) | Self::Exposed { .. } | Self::Cryptography => {
                "PLUGIN_KEY"
            }
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let words = match self {
            Self::Name(_) => "1 to 100 characters out of a-z, A-Z, 0-9, `_` and `-`",
            Self::Version { .. } => "a version is MAJOR.MINOR.PATCH, such as 1.2.0 (semver.org)",
            Self::Reference { .. } => {
                "write NAME@VERSION, such as `pii_mask@1.2.0` or `pii_mask@^1.2`; a file is named by `path:`"
            }
            Self::LockSyntax { .. } => {
                "take back the version of it that was committed, or remove it: `towpath plugin lock` writes a new one"
            }
            Self::Occupied { .. } => {
                "give the plugin a new version, and build it again; or remove the one that is there"
            }
            Self::Unsigned { .. } => "`towpath plugin sign --key KEY FILE` signs it",
            Self::SignatureSyntax { .. } | Self::Forged { .. } => "sign it again: `towpath plugin sign`",
            Self::SignatureOfOther { .. } => {
                "one of the two was replaced: install them together, or sign the new file"
            }
            Self::Untrusted { .. } => {
                "if this key is to be trusted, add it to `plugin_trust: keys:`; if not, do not use this file"
            }
            Self::OtherIdentity { .. } => "`towpath plugin install FILE` puts it where it belongs",
            Self::PublicKey(_) => {
                "write what `towpath plugin keygen` has told: `ed25519:` and 44 characters of base64"
            }
            Self::SecretKey(_) => "`towpath plugin keygen FILE` makes one",
            Self::Exposed { path, .. } => return Some(format!("type `chmod 600 {}`", path.display())),
            Self::Vague { name, version } => {
                return Some(format!(
                    "write the whole version for that one, or `{name}@^{version}` for those that are compatible with it"
                ));
            }
            Self::Absent { .. } => {
                "`towpath plugin install FILE` puts it there, `towpath plugin list` shows what is; `plugin_directory:` names \
                 another directory"
            }
            Self::NotLocked { asking, .. } => {
                let file = asking.display();
                return Some(format!("type `towpath plugin lock {file}`, and commit what it writes"));
            }
            Self::LockedAbsent { identity, asking, .. } => {
                return Some(format!(
                    "put it there (`towpath plugin install FILE`), or take another version: {}",
                    update(&identity.name, asking)
                ));
            }
            Self::OtherContent { identity, asking, .. } => {
                return Some(format!(
                    "if the new file is meant, type {}; if not, put the old one back",
                    update(&identity.name, asking)
                ));
            }
            Self::Read { .. } | Self::Write { .. } | Self::Cryptography => return None,
        };
        Some(words.to_owned())
    }
}
