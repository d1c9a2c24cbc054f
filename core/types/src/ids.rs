//! Integers that look alike and mean different things.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($raw);

        impl $name {
            /// Wraps the raw integer as it stands on the wire or on disk.
            #[must_use]
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// The raw integer, for the wire or the disk.
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

integer_id!(
    /// A record's place in its partition. Positions in the API are always the *next* offset to read or write.
    Offset(i64)
);
integer_id!(
    /// The term of a partition's leader; grows by one at every leader change (KIP-101).
    LeaderEpoch(i32)
);
integer_id!(
    /// Grows by one at every change of a partition's registration in the metadata (KIP-497).
    PartitionEpoch(i32)
);
integer_id!(
    /// A broker's number (`node.id`).
    BrokerId(i32)
);
integer_id!(
    /// The incarnation of a broker: the metadata-log offset of its registration (KIP-631).
    BrokerEpoch(i64)
);
integer_id!(
    /// The identity of an idempotent or transactional producer (KIP-98).
    ProducerId(i64)
);
integer_id!(
    /// The incarnation of a producer id; an older one is fenced (KIP-98).
    ProducerEpoch(i16)
);
integer_id!(
    /// The generation of a classic consumer group; grows by one at every rebalance.
    GenerationId(i32)
);

impl Offset {
    /// The first offset of a new partition.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further on; `None` past the end of the offset space.
    #[must_use]
    pub const fn checked_add(self, count: i64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The offset after this one (saturating: the space of 2⁶³ offsets is never exhausted in practice).
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl LeaderEpoch {
    /// "No epoch known", as Kafka writes it.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// "No producer id": a batch of a producer without idempotence.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// "No producer epoch".
    pub const NONE: Self = Self(-1);
}

/// The identity of a topic that survives renames of nothing and recreation of everything: a topic that is deleted
/// and created again under the same name has another id (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(uuid::Uuid);

impl TopicId {
    /// The id that means "none" on the wire.
    pub const ZERO: Self = Self(uuid::Uuid::nil());

    /// Wraps a UUID.
    #[must_use]
    pub const fn new(raw: uuid::Uuid) -> Self {
        Self(raw)
    }

    /// A new random id (UUID v4, never nil).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The UUID, for the wire or the disk.
    #[must_use]
    pub const fn get(self) -> uuid::Uuid {
        self.0
    }

    /// Whether this is the id that means "none".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for TopicId {
    /// URL-safe base64 without padding, as Kafka's tools and `partition.metadata` write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(22);
        for chunk in self.0.as_bytes().chunks(3) {
            let word =
                chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for sextet in 0..=chunk.len() {
                let index = (word >> (18 - 6 * sextet)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            }
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

impl std::str::FromStr for TopicId {
    type Err = super::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || super::InvalidName::TopicId(text.chars().take(64).collect());
        if text.len() != 22 {
            return Err(invalid());
        }
        let mut bits = 0u32;
        let mut filled = 0u32;
        let mut bytes = [0u8; 16];
        let mut at = 0;
        for character in text.bytes() {
            let sextet = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return Err(invalid()),
            };
            bits = bits << 6 | u32::from(sextet);
            filled += 6;
            if filled >= 8 && at < 16 {
                filled -= 8;
                bytes[at] = (bits >> filled) as u8;
                bits &= (1 << filled) - 1;
                at += 1;
            }
        }
        if bits != 0 {
            return Err(invalid());
        }
        Ok(Self(uuid::Uuid::from_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn topic_ids_survive_their_text_form(bytes in any::<[u8; 16]>()) {
            let id = TopicId::new(uuid::Uuid::from_bytes(bytes));
            prop_assert_eq!(id.to_string().len(), 22);
            prop_assert_eq!(id.to_string().parse::<TopicId>().unwrap(), id);
        }
    }

    #[test]
    fn topic_id_text_is_kafkas() {
        // Uuid.METADATA_TOPIC_ID of Apache Kafka is Uuid(0, 1), printed as below.
        let id = TopicId::new(uuid::Uuid::from_u64_pair(0, 1));
        assert_eq!(id.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert!("AAAAAAAAAAAAAAAAAAAAAR".parse::<TopicId>().is_err(), "stray bits are refused");
        assert!("short".parse::<TopicId>().is_err());
    }

    #[test]
    fn offsets_do_not_wrap() {
        assert_eq!(Offset::new(i64::MAX).checked_add(1), None);
        assert_eq!(Offset::ZERO.next(), Offset::new(1));
    }
}

/// A stretch of leading a partition without a break, as one process counts them. It has ended for good as soon as somebody
/// else leads, also when this broker leads again later; a newer leader epoch alone does not end it.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// The leader epoch when it was asked for.
    pub leader_epoch: LeaderEpoch,
    /// Which of this process's stretches it is.
    pub number: u64,
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Term {}
