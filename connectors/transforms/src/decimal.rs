//! Decimal numbers as text, compared without losing a digit.

use std::cmp::Ordering;

/// A decimal number: its sign, the digits before the point without leading zeros, those behind without trailing ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    negative: bool,
    whole: String,
    fraction: String,
}

/// Digits that an exponent may move the point by: nothing real has more, and a number of a million digits out of
/// `1e999999` helps nobody (R10).
const EXPONENT_MAX: i64 = 10_000;

fn parse(text: &str) -> Option<Parts> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i64>().ok()?),
        None => (rest, 0),
    };
    if exponent.abs() > EXPONENT_MAX {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let point = whole.len() as i64 + exponent;
    let (whole, fraction) = if point <= 0 {
        (String::new(), format!("{}{all}", "0".repeat(point.unsigned_abs() as usize)))
    } else if point as usize >= all.len() {
        (format!("{all}{}", "0".repeat(point as usize - all.len())), String::new())
    } else {
        let (whole, fraction) = all.split_at(point as usize);
        (whole.to_owned(), fraction.to_owned())
    };
    let whole = whole.trim_start_matches('0').to_owned();
    let fraction = fraction.trim_end_matches('0').to_owned();
    let negative = negative && !(whole.is_empty() && fraction.is_empty());
    Some(Parts { negative, whole, fraction })
}

/// Where a number stands that is none, or endless: as PostgreSQL orders them, NaN above everything.
fn special(text: &str) -> Option<i8> {
    match text {
        "-Infinity" => Some(-1),
        "Infinity" => Some(1),
        "NaN" => Some(2),
        _ => None,
    }
}

/// Whether `text` is a decimal number (`NaN` and the infinities among them).
pub(crate) fn is_valid(text: &str) -> bool {
    special(text).is_some() || parse(text).is_some()
}

/// Compares two decimal numbers; `None` when one is none.
pub(crate) fn compare(left: &str, right: &str) -> Option<Ordering> {
    if special(left).is_some() || special(right).is_some() {
        let rank = |text: &str| special(text).or_else(|| parse(text).map(|_| 0));
        return Some(rank(left)?.cmp(&rank(right)?));
    }
    let (left, right) = (parse(left)?, parse(right)?);
    Some(match (left.negative, right.negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (negative, _) => {
            let by_size = left.whole.len().cmp(&right.whole.len());
            let order = by_size
                .then_with(|| left.whole.cmp(&right.whole))
                .then_with(|| left.fraction.cmp(&right.fraction));
            if negative { order.reverse() } else { order }
        }
    })
}

/// The whole number that `text` stands for, if it stands for one.
pub(crate) fn to_int(text: &str) -> Option<i64> {
    let parts = parse(text)?;
    if !parts.fraction.is_empty() {
        return None;
    }
    let sign = if parts.negative { "-" } else { "" };
    let whole = if parts.whole.is_empty() { "0" } else { &parts.whole };
    format!("{sign}{whole}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_compare_by_value() {
        for (left, right, order) in [
            ("1", "1.000", Ordering::Equal),
            ("-0", "0", Ordering::Equal),
            ("0.1", "0.09", Ordering::Greater),
            ("-10", "-9", Ordering::Less),
            ("123456789012345678901234567890.1", "123456789012345678901234567890.2", Ordering::Less),
            ("1e3", "1000", Ordering::Equal),
            ("12.5e-1", "1.25", Ordering::Equal),
            ("NaN", "Infinity", Ordering::Greater),
            ("-Infinity", "-99999", Ordering::Less),
            (".5", "0.5", Ordering::Equal),
        ] {
            assert_eq!(compare(left, right), Some(order), "{left} {right}");
        }
        for bad in ["", "-", ".", "1.2.3", "1e", "0x10", "1e99999999", "١"] {
            assert_eq!(compare(bad, "1"), None, "{bad}");
        }
    }

    #[test]
    fn whole_numbers_are_found() {
        assert_eq!(to_int("5.00"), Some(5));
        assert_eq!(to_int("-12e1"), Some(-120));
        assert_eq!(to_int("5.01"), None);
        assert_eq!(to_int("9223372036854775808"), None);
        assert_eq!(to_int("NaN"), None);
    }

    proptest! {
        #[test]
        fn whole_numbers_compare_as_integers(left in any::<i64>(), right in any::<i64>()) {
            prop_assert_eq!(compare(&left.to_string(), &right.to_string()), Some(left.cmp(&right)));
            prop_assert_eq!(to_int(&format!("{left}.0")), Some(left));
        }

        #[test]
        fn nothing_panics(text in "[-+0-9.eE]{0,12}") {
            let _ = (compare(&text, "1"), to_int(&text));
        }
    }
}
