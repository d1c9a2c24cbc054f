//! Medians, ranges, percentiles and ratios.

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Smaller figures (CPU, latency, memory).
    Lower,
    /// Larger figures (rows per second).
    Higher,
}

/// Median and range of a few samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// A ratio within this of 1 is a tie.
pub(crate) const TIE: f64 = 1.2;

/// Sums samples up; `None` when there are none, or one is not a number.
pub(crate) fn summary(samples: &[f64]) -> Option<Summary> {
    let mut sorted = samples.to_vec();
    if sorted.is_empty() || sorted.iter().any(|sample| !sample.is_finite()) {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let median = match sorted.len() % 2 {
        1 => upper,
        _ => f64::midpoint(*sorted.get(middle - 1)?, upper),
    };
    Some(Summary { median, min, max })
}

/// How many times better `ours` is than `theirs`, pair by pair.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64], better: Better) -> Vec<f64> {
    let pairs = ours.iter().zip(theirs);
    match better {
        Better::Lower => pairs.map(|(ours, theirs)| theirs / ours).collect(),
        Better::Higher => pairs.map(|(ours, theirs)| ours / theirs).collect(),
    }
}

/// The value that a part (0 to 1) of the sorted samples does not exceed: nearest rank.
pub(crate) fn percentile(sorted: &[u64], part: f64) -> Option<u64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().checked_sub(1)?)).copied()
}

/// The order of the subjects in a pair: A B, then B A, and so on, so that drift hits both.
pub(crate) fn turn(subjects: usize, pair: usize) -> Vec<usize> {
    let order = 0..subjects;
    if pair.is_multiple_of(2) { order.collect() } else { order.rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(summary(&[3.0, 1.0, 10.0]), Some(Summary { median: 3.0, min: 1.0, max: 10.0 }));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 100.0]), Some(Summary { median: 3.0, min: 1.0, max: 100.0 }));
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[1.0, f64::NAN]), None);
        assert_eq!(summary(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn a_ratio_above_one_means_that_we_are_better() {
        assert_eq!(ratios(&[1.0, 2.0], &[4.0, 2.0], Better::Lower), [4.0, 1.0]);
        assert_eq!(ratios(&[10.0], &[5.0], Better::Higher), [2.0]);
        assert!(ratios(&[1.0], &[], Better::Lower).is_empty());
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<u64> = (1..=1_000).collect();
        assert_eq!(percentile(&sorted, 0.5), Some(500));
        assert_eq!(percentile(&sorted, 0.99), Some(990));
        assert_eq!(percentile(&sorted, 0.999), Some(999));
        assert_eq!(percentile(&sorted, 1.0), Some(1_000));
        assert_eq!(percentile(&[7], 0.001), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn turns_alternate() {
        assert_eq!(turn(2, 0), [0, 1]);
        assert_eq!(turn(2, 1), [1, 0]);
        assert_eq!(turn(3, 3), [2, 1, 0]);
    }
}
