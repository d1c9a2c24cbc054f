//! Batches of records in one state each, ordered and without overlaps.

use towpath_wire::share_group_records::StateBatch;

/// Puts `newer` over `base`, without what lies before `start`; neighbours that say the same become one.
pub(super) fn combine(base: &[StateBatch], newer: &[StateBatch], start: i64) -> Vec<StateBatch> {
    let mut all: Vec<StateBatch> = Vec::with_capacity(base.len() + newer.len());
    for batch in base {
        let mut from = batch.first_offset;
        let at = newer.partition_point(|over| over.last_offset < from);
        for over in newer.iter().skip(at).take_while(|over| over.first_offset <= batch.last_offset) {
            if over.first_offset > from {
                all.push(StateBatch {
                    first_offset: from,
                    last_offset: over.first_offset - 1,
                    ..batch.clone()
                });
            }
            from = over.last_offset + 1;
        }
        if from <= batch.last_offset {
            all.push(StateBatch { first_offset: from, ..batch.clone() });
        }
    }
    all.extend_from_slice(newer);
    all.sort_by_key(|batch| batch.first_offset);
    let mut joined: Vec<StateBatch> = Vec::with_capacity(all.len());
    for mut batch in all {
        if batch.last_offset < start {
            continue;
        }
        batch.first_offset = batch.first_offset.max(start);
        match joined.last_mut() {
            Some(last)
                if last.last_offset + 1 == batch.first_offset
                    && last.delivery_state == batch.delivery_state
                    && last.delivery_count == batch.delivery_count =>
            {
                last.last_offset = batch.last_offset;
            }
            _ => joined.push(batch),
        }
    }
    joined
}

/// Whether batches are ordered, do not overlap, and say something that is known.
pub(super) fn are_sound(batches: &[StateBatch]) -> bool {
    let is_sound = |batch: &StateBatch| {
        batch.first_offset >= 0
            && batch.last_offset >= batch.first_offset
            && batch.last_offset < i64::MAX
            && matches!(batch.delivery_state, 0 | 2 | 4)
            && batch.delivery_count >= 0
    };
    batches.iter().all(is_sound)
        && batches.windows(2).all(|pair| matches!(pair, [a, b] if a.last_offset < b.first_offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeMap;

    fn spread(batches: &[StateBatch]) -> BTreeMap<i64, (i8, i16)> {
        let offsets = |batch: &StateBatch| {
            let said = (batch.delivery_state, batch.delivery_count);
            (batch.first_offset..=batch.last_offset).map(move |offset| (offset, said))
        };
        batches.iter().flat_map(offsets).collect()
    }

    fn some(random: &mut impl Rng) -> Vec<StateBatch> {
        let mut batches = Vec::new();
        let mut next = random.random_range(0..5);
        while batches.len() < 6 && random.random_bool(0.8) {
            let last = next + random.random_range(0..4);
            let delivery_state = [0, 2, 4][random.random_range(0..3)];
            let delivery_count = random.random_range(1..3);
            batches.push(StateBatch {
                first_offset: next,
                last_offset: last,
                delivery_state,
                delivery_count,
            });
            next = last + random.random_range(1..4);
        }
        batches
    }

    #[test]
    fn batches_combine_as_single_records_do() {
        for seed in 0..5_000 {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let (base, newer) = (some(&mut random), some(&mut random));
            let start = random.random_range(0..10);
            let mut expected = spread(&base);
            expected.extend(spread(&newer));
            expected.retain(|offset, _| *offset >= start);
            let combined = combine(&base, &newer, start);
            assert!(are_sound(&combined), "seed {seed}: {combined:?}");
            assert_eq!(spread(&combined), expected, "seed {seed}");
        }
    }
}
