//! Signatures of plugins: `towpath plugin keygen`, `sign` and `verify`.

use std::path::{Path, PathBuf};

use serde_json::json;
use towpath_host::{PluginError, Plugins};
use towpath_store::{
    ContentHash, PublicKey, SecretKey, Signature, StoreError, Trust, read_component, signature_path,
};

use super::about;
use crate::failure::Failure;
use crate::output::{Listing, print_json, print_line, tell};

pub(super) fn keygen(file: &Path, json: bool) -> Result<(), Failure> {
    let key = SecretKey::generate()?;
    let beside = key.write(file)?;
    let public = key.public().to_string();
    if json {
        return print_json(&json!({ "key": public, "private_file": file, "public_file": beside }));
    }
    print_line(&public)?;
    tell(&format!(
        "{} signs plugins from now on: give it to nobody. Whoever is to trust it writes `plugin_trust: {{ keys: [\"{public}\"] \
         }}`; that is also in {}",
        file.display(),
        beside.display()
    ));
    Ok(())
}

fn listing() -> Listing {
    Listing::new(&[
        ("FILE", "file"),
        ("PLUGIN", "name"),
        ("VERSION", "version"),
        ("SHA-256", "sha256"),
        ("SIGNED BY", "signed_by"),
    ])
}

fn row(file: &Path, signature: &Signature) -> Vec<serde_json::Value> {
    let Signature { identity, sha256, key, .. } = signature;
    let (version, hash) = (identity.version.to_string(), sha256.to_string());
    vec![json!(file), json!(identity.name), json!(version), json!(hash), json!(key.to_string())]
}

pub(super) fn sign(key: &Path, files: &[PathBuf], json: bool) -> Result<(), Failure> {
    let key = SecretKey::read(key)?;
    let plugins = Plugins::with_users_cache();
    let mut listing = listing();
    for file in files {
        let identified = plugins.identify(file).map_err(|error| about(file, error))?;
        let signature = Signature::sign(&key, identified.identity, identified.sha256);
        signature.write(file).map_err(|error| about(file, error))?;
        listing.row(row(file, &signature));
    }
    listing.print(json)
}

pub(super) fn verify(keys: &[String], files: &[PathBuf], json: bool) -> Result<(), Failure> {
    let keys = keys.iter().map(|key| PublicKey::parse_or_read(key)).collect::<Result<_, StoreError>>()?;
    let trust = Trust { keys, required: true };
    let plugins = Plugins::with_users_cache();
    let mut listing = listing();
    for file in files {
        let signature = checked(file, &trust, &plugins).map_err(|error| about(file, error))?;
        listing.row(row(file, &signature));
    }
    listing.print(json)
}

/// The signature of a file, if it is one that counts.
fn checked(file: &Path, trust: &Trust, plugins: &Plugins) -> Result<Signature, PluginError> {
    let signature = trust.check(file, ContentHash::of(&read_component(file)?))?;
    let missing = || StoreError::Unsigned { path: signature_path(file), trusted: trust.keys.clone() };
    let signature = signature.ok_or_else(missing)?;
    // Only now: what nobody vouches for is not looked into.
    let identified = plugins.identify(file)?;
    signature.check(&signature_path(file), identified.sha256)?;
    signature.check_identity(&identified.identity)?;
    Ok(signature)
}
