//! Connect's and Debezium's numbers for dates, times and decimals, as canonical text.

use std::fmt::Write as _;

const DAY_NANOS: i128 = 86_400_000_000_000;
/// Bytes of the largest unscaled decimal that is read: the time to print it grows with their square.
const DECIMAL_BYTES_MAX: usize = 8 * 1024;

/// The date `days` after 1970-01-01 in the proleptic Gregorian calendar: `YYYY-MM-DD[ BC]`.
fn write_date(text: &mut String, days: i64) -> &'static str {
    // Howard Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, suffix) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(text, "{year:04}-{month:02}-{day:02}");
    suffix
}

fn write_time(text: &mut String, nanos: i128) {
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let _ = write!(text, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        let digits = format!("{fraction:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
}

/// A date from days since 1970.
pub(crate) fn date(days: i64) -> String {
    let mut text = String::with_capacity(13);
    // Far beyond any calendar's use, but no overflow.
    let suffix = write_date(&mut text, days.clamp(-1 << 40, 1 << 40));
    text.push_str(suffix);
    text
}

/// A timestamp without zone from `count` units of `nanos_per_unit` since 1970.
pub(crate) fn timestamp(count: i64, nanos_per_unit: i64) -> String {
    let nanos = i128::from(count) * i128::from(nanos_per_unit);
    let mut text = String::with_capacity(26);
    let suffix = write_date(&mut text, nanos.div_euclid(DAY_NANOS) as i64);
    text.push('T');
    write_time(&mut text, nanos.rem_euclid(DAY_NANOS));
    text.push_str(suffix);
    text
}

/// A time of day from `count` units of `nanos_per_unit` since midnight; `None` outside a day (24:00:00 is inside).
pub(crate) fn time(count: i64, nanos_per_unit: i64) -> Option<String> {
    let nanos = i128::from(count) * i128::from(nanos_per_unit);
    if !(0..=DAY_NANOS).contains(&nanos) {
        return None;
    }
    let mut text = String::with_capacity(15);
    write_time(&mut text, nanos);
    Some(text)
}

/// A decimal from its unscaled value (big-endian two's complement) and scale.
pub(crate) fn decimal(unscaled: &[u8], scale: i32) -> Option<String> {
    if unscaled.is_empty() || unscaled.len() > DECIMAL_BYTES_MAX || scale.unsigned_abs() > 1_000_000 {
        return None;
    }
    let negative = unscaled[0] & 0x80 != 0;
    let mut digits = magnitude_digits(unscaled, negative);
    if scale < 0 {
        if digits != "0" {
            digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
        }
    } else if scale > 0 {
        let scale = scale as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    Some(digits)
}

/// The decimal digits of the absolute value of a two's complement number.
fn magnitude_digits(unscaled: &[u8], negative: bool) -> String {
    let mut bytes = unscaled.to_vec();
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = over;
        }
    }
    // Limbs of 32 bits, most significant first; repeated division by 10⁹.
    let pad = (4 - bytes.len() % 4) % 4;
    let mut padded = vec![0; pad];
    padded.append(&mut bytes);
    let mut limbs: Vec<u32> = padded
        .chunks_exact(4)
        .map(|chunk| chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)))
        .collect();
    let mut groups = Vec::new();
    let mut from = 0;
    while from < limbs.len() {
        if limbs[from] == 0 {
            from += 1;
            continue;
        }
        let mut remainder = 0u64;
        for limb in &mut limbs[from..] {
            let value = remainder << 32 | u64::from(*limb);
            *limb = (value / 1_000_000_000) as u32;
            remainder = value % 1_000_000_000;
        }
        groups.push(remainder);
    }
    let mut text = groups.pop().map_or_else(|| "0".to_owned(), |group| group.to_string());
    for group in groups.iter().rev() {
        let _ = write!(text, "{group:09}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decimals_are_the_numbers(value in any::<i128>(), scale in 0i32..6) {
            let text = decimal(&value.to_be_bytes(), scale).unwrap();
            prop_assert_eq!(text.replace('.', "").parse::<i128>().unwrap(), value);
            prop_assert_eq!(text.split_once('.').map_or(0, |(_, digits)| digits.len()), scale as usize);
        }
    }

    #[test]
    fn calendars() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(-719_528), "0001-01-01 BC");
        assert_eq!(timestamp(-1, 1_000_000), "1969-12-31T23:59:59.999");
        assert_eq!(timestamp(1_700_000_000_123_456, 1000), "2023-11-14T22:13:20.123456");
        assert_eq!(time(3_723_000, 1_000_000).unwrap(), "01:02:03");
        assert_eq!(time(86_400_000, 1_000_000).unwrap(), "24:00:00");
        assert_eq!(time(-1, 1), None);
    }

    #[test]
    fn decimals_at_the_edges() {
        assert_eq!(decimal(&[0], 2).unwrap(), "0.00");
        assert_eq!(decimal(&[0xff], 2).unwrap(), "-0.01");
        assert_eq!(decimal(&[5], -3).unwrap(), "5000");
        assert_eq!(decimal(&[0x80], 0).unwrap(), "-128");
        assert_eq!(decimal(&[], 0), None);
    }
}
