//! Which partition a record goes to.

use rand::Rng;

/// Kafka's `Utils.murmur2`, as a signed integer like there.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let (chunks, tail) = data.as_chunks::<4>();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(*chunk).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * index);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    h.cast_signed()
}

/// The partition of a key, equal to Kafka's `BuiltInPartitioner.partitionForKey`; `count` is positive.
pub(crate) fn partition_for_key(key: &[u8], count: i32) -> i32 {
    (murmur2(key) & i32::MAX) % count.max(1)
}

/// Records without a key stay with one partition until it has got `switch_bytes`, then go on with another, chosen
/// at random among those with a leader (KIP-794).
#[derive(Debug, Clone, Default)]
pub(crate) struct Sticky {
    current: Option<i32>,
    bytes: usize,
}

impl Sticky {
    /// The partition of the next record of `bytes`; `available` are the partitions that have a leader, or all when
    /// none has.
    pub(crate) fn next(&mut self, bytes: usize, switch_bytes: usize, available: &[i32]) -> i32 {
        let stale = self.current.is_none_or(|current| available.binary_search(&current).is_err());
        if stale || self.bytes >= switch_bytes {
            self.bytes = 0;
            self.current = Some(self.choose(available));
        }
        self.bytes += bytes;
        self.current.unwrap_or(0)
    }

    fn choose(&self, available: &[i32]) -> i32 {
        match available {
            [] => 0,
            [only] => *only,
            many => loop {
                let candidate = many[rand::rng().random_range(0..many.len())];
                if Some(candidate) != self.current {
                    return candidate;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_kafkas() {
        // UtilsTest.testMurmur2 of Apache Kafka.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn keys_map_into_range() {
        for key in 0..1000u32 {
            assert!((0..7).contains(&partition_for_key(&key.to_le_bytes(), 7)));
        }
    }

    #[test]
    fn sticky_switches_by_bytes_and_never_stays() {
        let mut sticky = Sticky::default();
        let available = [0, 1, 2];
        let first = sticky.next(60, 100, &available);
        assert_eq!(sticky.next(60, 100, &available), first);
        let second = sticky.next(1, 100, &available);
        assert_ne!(second, first, "after 120 bytes another partition is due");
        let only = [9];
        assert_eq!(sticky.next(1, 100, &only), 9, "a partition that lost its leader is left at once");
    }
}
