//! Where one is in a stream.

/// The id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Id {
    pub(crate) ms: u64,
    pub(crate) sequence: u64,
}

impl Id {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ms, sequence) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// Bytes that are ordered as ids are.
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// A place between two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The last entry before it.
    pub(crate) id: Id,
    /// How many entries were added to the stream up to it.
    pub(crate) added: u64,
}

impl Place {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, added) = text.split_once(' ')?;
        Some(Self { id: Id::parse(id)?, added: added.parse().ok()? })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_others_are_none() {
        let place = Place { id: Id { ms: 1_700_000_000_000, sequence: 3 }, added: 12 };
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        for none in ["", "1-2", "1 2", "a-b 3", "1-2 x", "-1-2 3"] {
            assert_eq!(Place::parse(none), None, "{none}");
        }
        let (nine, ten) = (Id { ms: 9, sequence: u64::MAX }, Id { ms: 10, sequence: 0 });
        assert!(nine < ten && nine.bytes() < ten.bytes());
    }
}
