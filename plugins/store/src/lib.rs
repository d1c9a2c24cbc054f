//! Plugins by name and version.
//!
//! - [`Reference`] is what stands in the YAML (`pii_mask@1.2.0`, `pii_mask@^1.2`), [`Identity`] one plugin of one version.
//! - [`Directory`] holds components, `NAME/VERSION.wasm`.
//! - [`Lock`] is `towpath.lock`: which versions are used, and the hash of each.
//! - [`Signature`] says who vouches for a component, [`Trust`] whose word counts. [`SecretKey`] signs.
//!
//! [`find`] puts the first three together. Nothing here runs a component or looks into one.
#![forbid(unsafe_code)]

mod directory;
mod error;
mod file;
mod find;
mod hash;
mod identity;
mod key;
mod lock;
mod reference;
mod signature;
mod trust;

pub use directory::{Directory, Installed, read_component};
pub use error::StoreError;
pub use find::{Found, LockMode, find};
pub use hash::ContentHash;
pub use identity::Identity;
pub use key::{PublicKey, SecretKey};
pub use lock::{Change, Lock, Locked};
pub use reference::Reference;
pub use semver::Version;
pub use signature::{Signature, signature_path};
pub use trust::Trust;
