//! `name@version`, as it stands in the YAML.

use std::fmt;

use semver::{Version, VersionReq};

use super::error::StoreError;
use super::identity::{Identity, check_name, parse_version, shortened};

/// A plugin that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The plugin's own name.
    pub name: String,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// `1.2.0` is this version and no other.
    Exactly(Version),
    /// `^1.2`, `~1.2.3`, `>=1.2, <3`, `*`: as Cargo understands them.
    Any(VersionReq),
}

impl Reference {
    /// Reads `name@version`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let refused =
            |reason: &str| StoreError::Reference { text: shortened(text), reason: reason.to_owned() };
        let Some((name, version)) = text.split_once('@') else {
            return Err(refused("it has no version"));
        };
        check_name(name)?;
        let version = version.trim();
        // Cargo takes `1.2` for `^1.2`, others for `=1.2.0`.
        let bare = version.starts_with(|it: char| it.is_ascii_digit());
        let wanted = match parse_version(version) {
            Ok(version) => Wanted::Exactly(version),
            Err(_) if bare && VersionReq::parse(version).is_ok() => {
                return Err(StoreError::Vague { name: name.to_owned(), version: shortened(version) });
            }
            Err(error) if bare || version.is_empty() => return Err(error),
            Err(_) => {
                let asked = VersionReq::parse(version);
                Wanted::Any(asked.map_err(|error| refused(&error.to_string()))?)
            }
        };
        Ok(Self { name: name.to_owned(), wanted })
    }

    /// Whether it is one that was asked for.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        self.name == identity.name
            && match &self.wanted {
                Wanted::Exactly(version) => *version == identity.version,
                Wanted::Any(asked) => asked.matches(&identity.version),
            }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Exactly(version) => write!(f, "{}@{version}", self.name),
            Wanted::Any(asked) => write!(f, "{}@{asked}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_version_is_that_one_and_a_requirement_is_cargos() {
        for (text, right, wrong) in [
            ("a@1.2.0", "1.2.0", "1.2.1"),
            ("a@^1.2", "1.9.3", "2.0.0"),
            ("a@~1.2.3", "1.2.9", "1.3.0"),
            ("a@>=1.2, <3", "2.9.0", "3.0.0"),
            ("a@=1.2", "1.2.7", "1.3.0"),
            ("a@*", "7.0.0", "7.0.0-rc.1"),
            ("a@1.2.0-rc.1", "1.2.0-rc.1", "1.2.0"),
        ] {
            let reference = Reference::parse(text).unwrap();
            let matches = |version| reference.matches(&Identity::new("a", version).unwrap());
            assert!(matches(right) && !matches(wrong), "{text}");
            assert!(!reference.matches(&Identity::new("b", right).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_could_mean_several_things_is_refused() {
        for (text, says) in [
            ("pii_mask", "no version"),
            ("pii_mask@", "is no version"),
            ("pii_mask@1.2", "more than one version"),
            ("pii_mask@1", "more than one version"),
            ("pii_mask@1.2.x.y", "is no version"),
            ("pii_mask@newest", "cannot be read"),
            ("../a@1.2.0", "cannot be a plugin's name"),
            ("@1.2.0", "cannot be a plugin's name"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(error.hint().is_some(), "{text}: {error}");
        }
    }
}
