//! One plugin of one version.

use std::fmt;

use semver::Version;

use super::error::StoreError;

/// Characters of a name, and bytes of a version: both are parts of file names.
const NAME_MAX: usize = 100;
const VERSION_BYTES_MAX: usize = 100;

/// A plugin's own name and version, as its component tells them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Letters, digits, `_` and `-`: it is a folder's name, too.
    pub name: String,
    /// A semantic version.
    pub version: Version,
}

impl Identity {
    /// Checks both parts.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn new(name: &str, version: &str) -> Result<Self, StoreError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), version: parse_version(version)? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(legal) {
        return Err(StoreError::Name(shortened(name)));
    }
    Ok(())
}

pub(crate) fn parse_version(text: &str) -> Result<Version, StoreError> {
    let refused = |reason: String| StoreError::Version { version: shortened(text), reason };
    if text.len() > VERSION_BYTES_MAX {
        return Err(refused(format!("it has more than {VERSION_BYTES_MAX} bytes")));
    }
    Version::parse(text).map_err(|error| refused(error.to_string()))
}

/// A text that somebody else wrote, short enough for a message.
pub(crate) fn shortened(text: &str) -> String {
    let text: String =
        text.chars().map(|it| if it.is_control() { '?' } else { it }).take(NAME_MAX + 1).collect();
    if text.chars().count() > NAME_MAX {
        format!("{}…", text.chars().take(NAME_MAX).collect::<String>())
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_parts_of_file_names() {
        assert_eq!(Identity::new("pii_mask", "1.2.0-rc.1+b").unwrap().to_string(), "pii_mask@1.2.0-rc.1+b");
        for name in ["", "..", "a/b", "a b", "ä", "a\n", &"a".repeat(101)] {
            assert!(matches!(Identity::new(name, "1.0.0"), Err(StoreError::Name(_))), "{name}");
        }
        for version in
            ["", "1", "1.2", "v1.2.3", "1.2.3/..", "01.2.3", "1.2.3\n", &format!("1.2.3-{}", "a".repeat(100))]
        {
            assert!(matches!(Identity::new("a", version), Err(StoreError::Version { .. })), "{version}");
        }
    }
}
