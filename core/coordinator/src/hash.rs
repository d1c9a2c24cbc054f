//! Which partition of the offsets topic a group lives in.

/// Java's `String.hashCode`, over UTF-16 units.
#[must_use]
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The partition, of `partitions` (at least one), that coordinates `group`: `Utils.abs(hashCode) % n` of Kafka,
/// where `abs` clears the sign bit.
#[must_use]
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    (java_hash(group) & i32::MAX) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hashes_are_javas() {
        // Values of String.hashCode as printed by a JVM.
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("test-group", 627_841_412),
            ("hello", 99_162_322),
            ("polygenelubricants", i32::MIN),
            ("console-consumer-1", 35_782_224),
            ("Grüße", 69_215_351),
            ("😀", 1_772_899),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }

    #[test]
    fn the_sign_bit_is_cleared_not_negated() {
        // The hash is i32::MIN, whose negation overflows.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("a", 50), 47);
        assert_eq!(partition_for("anything", 0), 0, "no division by zero");
    }

    proptest! {
        #[test]
        fn partitions_are_in_range(group in ".*", partitions in 1i32..2000) {
            let partition = partition_for(&group, partitions);
            prop_assert!((0..partitions).contains(&partition));
        }

        /// The definition, s[0]·31^(n−1) + … + s[n−1], computed the long way round.
        #[test]
        fn the_hash_is_the_polynomial(group in "\\PC{0,40}") {
            let units: Vec<u16> = group.encode_utf16().collect();
            let sum = units.iter().rev().fold((0i64, 1i64), |(sum, power), unit| {
                ((sum + i64::from(*unit) * power) & 0xffff_ffff, (power * 31) & 0xffff_ffff)
            });
            prop_assert_eq!(java_hash(&group), sum.0 as u32 as i32);
        }
    }
}
