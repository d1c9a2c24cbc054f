//! Whose signatures count.

use std::path::Path;

use super::error::StoreError;
use super::hash::ContentHash;
use super::key::PublicKey;
use super::signature::{Signature, signature_path};

/// The keys that are trusted, and whether every plugin must be signed by one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Nobody, where nothing was said about it: then signatures are not looked at.
    pub keys: Vec<PublicKey>,
    /// Whether a component without a signature is refused. One that is there must be right in any case.
    pub required: bool,
}

impl Trust {
    /// Whether a component may be loaded whose file has this hash; before anything of it is looked at. Returns the signature
    /// that counts, if there is one: the component must be what it says.
    ///
    /// # Errors
    /// It is not signed and must be, or the signature is wrong, another file's, or nobody's who is trusted.
    pub fn check(&self, component: &Path, actual: ContentHash) -> Result<Option<Signature>, StoreError> {
        if self.keys.is_empty() && !self.required {
            return Ok(None);
        }
        let path = signature_path(component);
        let Some(signature) = Signature::read(component)? else {
            if self.required {
                return Err(StoreError::Unsigned { path, trusted: self.keys.clone() });
            }
            return Ok(None);
        };
        signature.check(&path, actual)?;
        if !self.keys.contains(&signature.key) {
            return Err(StoreError::Untrusted { key: signature.key, trusted: self.keys.clone() });
        }
        Ok(Some(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::super::key::SecretKey;
    use super::*;

    #[test]
    fn only_trusted_signatures_count() {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("a.wasm");
        let hash = ContentHash::of(b"code");
        let [mine, theirs] = [SecretKey::generate().unwrap(), SecretKey::generate().unwrap()];
        let trust = |required| Trust { keys: vec![mine.public()], required };
        let sign = |key: &SecretKey, hash| {
            Signature::sign(key, Identity::new("a", "1.0.0").unwrap(), hash).write(&component).unwrap()
        };
        let code = |trust: Trust| trust.check(&component, hash).map_err(|error| error.to_string());
        assert!(code(trust(true)).unwrap_err().contains("it is not signed"));
        assert_eq!(code(trust(false)), Ok(None));
        sign(&theirs, hash);
        for required in [true, false] {
            let error = code(trust(required)).unwrap_err();
            assert!(
                error.contains(&theirs.public().to_string()) && error.contains(&mine.public().to_string())
            );
        }
        assert_eq!(code(Trust::default()), Ok(None), "where nobody is trusted, nobody is asked");
        assert!(code(Trust { keys: Vec::new(), required: true }).unwrap_err().contains("not trusted"));
        sign(&mine, ContentHash::of(b"older"));
        assert!(code(trust(false)).unwrap_err().contains("is for a file with"));
        sign(&mine, hash);
        assert_eq!(code(trust(true)).unwrap().unwrap().key, mine.public());
    }
}
