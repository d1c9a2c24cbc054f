//! The plugin directory and the lock file: `towpath plugin lock`, `install` and `list`.

use std::path::{Path, PathBuf};

use serde_json::json;
use towpath_host::Plugins;
use towpath_store::{Change, ContentHash, Directory, LockMode, Signature, read_component, signature_path};

use crate::failure::Failure;
use crate::output::{Listing, print_json, tell};
use crate::registry::with_plugins;

/// Writes down what `up` has found and was not locked, and tells it.
pub(in crate::command) fn lock_plugins(plugins: &Plugins) -> Result<(), Failure> {
    for (lock, Change { new, .. }) in write(plugins)? {
        let lock = lock.display();
        tell(&format!(
            "locked {} (SHA-256 {}) in {lock}: keep that file with the others",
            new.identity, new.sha256
        ));
    }
    Ok(())
}

fn write(plugins: &Plugins) -> Result<Vec<(PathBuf, Change)>, Failure> {
    plugins.write_locks().map_err(|error| {
        let failure = Failure::new(format!("the plugins cannot be locked: {error}"));
        failure.with_hint(error.hint().unwrap_or_else(|| {
            "type `towpath plugin lock` where the files can be written, and bring its file along with them".to_owned()
        }))
    })
}

pub(super) fn lock(files: &[PathBuf], update: Vec<String>, json: bool) -> Result<(), Failure> {
    let mode =
        if update.is_empty() { LockMode::Complete } else { LockMode::Update(update.into_iter().collect()) };
    let (registry, plugins) = with_plugins(mode);
    towpath_config::load_plugins(files, &registry)?;
    let unknown = plugins.not_asked_for();
    if !unknown.is_empty() {
        let names = unknown.join("`, `");
        return Err(Failure::new(format!(
            "the files name no plugin `{names}` by its version; nothing was locked"
        ))
        .with_hint("--update takes the name before the `@`, or the one that stands behind `type:`"));
    }
    let mut listing = Listing::new(&[
        ("PLUGIN", "name"),
        ("VERSION", "version"),
        ("SHA-256", "sha256"),
        ("BEFORE", "before"),
        ("LOCK FILE", "lock"),
    ]);
    let written = write(&plugins)?;
    for (lock, Change { new, old, .. }) in &written {
        let before = old.as_ref().map(|old| {
            let version = &old.identity.version;
            if *version == new.identity.version { old.sha256.to_string() } else { version.to_string() }
        });
        let (name, version) = (&new.identity.name, new.identity.version.to_string());
        listing.row(vec![
            json!(name),
            json!(version),
            json!(new.sha256.to_string()),
            json!(before),
            json!(lock),
        ]);
    }
    if written.is_empty() && !json {
        tell("nothing to change: what the files name by version is locked");
        return Ok(());
    }
    listing.print(json)
}

pub(super) fn install(file: &Path, directory: PathBuf, json: bool) -> Result<(), Failure> {
    let identified = Plugins::with_users_cache().identify(file)?;
    let signature = Signature::read(file)?;
    let directory = Directory::new(directory);
    let identity = &identified.identity;
    let installed = directory.install(identity, &identified.bytes, signature.as_ref())?;
    let key = signature.map(|it| it.key.to_string());
    let path = installed.path.display();
    if json {
        return print_json(&json!({
            "name": identity.name,
            "version": identity.version.to_string(),
            "sha256": identified.sha256.to_string(),
            "file": installed.path,
            "new": installed.is_new,
            "signed_by": key,
        }));
    }
    let done = if installed.is_new { "installed" } else { "was there already:" };
    let signed = key.map(|key| format!(", signed by {key}")).unwrap_or_default();
    tell(&format!(
        "{done} {identity} as {path}{signed}; name it in the YAML: `plugins: {{ {}: {identity} }}`",
        identity.name
    ));
    Ok(())
}

pub(super) fn list(directory: PathBuf, json: bool) -> Result<(), Failure> {
    let directory = Directory::new(directory);
    let mut listing = Listing::new(&[
        ("PLUGIN", "name"),
        ("VERSION", "version"),
        ("SIZE", "size_bytes"),
        ("SHA-256", "sha256"),
        ("SIGNED BY", "signed_by"),
        ("PROBLEM", "problem"),
    ]);
    for identity in directory.all()? {
        let path = directory.file(&identity);
        let bytes = read_component(&path)?;
        let (size, hash) = (bytes.len(), ContentHash::of(&bytes));
        // Whoever it is: whom to trust is said elsewhere.
        let checked = Signature::read(&path).and_then(|signature| {
            let Some(signature) = signature else { return Ok(None) };
            signature.check(&signature_path(&path), hash)?;
            signature.check_identity(&identity)?;
            Ok(Some(signature.key.to_string()))
        });
        let (key, problem) = match checked {
            Ok(key) => (key, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (version, hash) = (identity.version.to_string(), hash.to_string());
        listing.row(vec![
            json!(identity.name),
            json!(version),
            json!(size),
            json!(hash),
            json!(key),
            json!(problem),
        ]);
    }
    listing.print(json)
}
