//! Dates, times and timestamps as their canonical text.

use std::cmp::Ordering;

/// A point in time, or a date: microseconds since 1970 (of no zone, or UTC when it has an offset).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// `-infinity`.
    Before,
    /// A real one.
    At(i128),
    /// `infinity`.
    After,
}

/// What a text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) has_time: bool,
    pub(crate) has_offset: bool,
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The day of the proleptic Gregorian calendar, `days` after 1970-01-01.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day_of_year - (153 * month_index + 2) / 5 + 1)
}

/// `ms` since 1970 UTC as a timestamp with a zone.
pub(crate) fn from_epoch_ms(ms: i64) -> String {
    let (days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil_from_days(days);
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z{era}")
}

fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let fits = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let year = number(parts.next()?, 4..=9)?;
    let month = number(parts.next()?, 2..=2)?;
    let day = number(parts.next()?, 2..=2)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that its month does not have would come out as another one.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Microseconds since midnight.
fn clock(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.splitn(3, ':');
    let hours = number(parts.next()?, 2..=2)?;
    let minutes = number(parts.next()?, 2..=2)?;
    let seconds = number(parts.next()?, 2..=2)?;
    if hours > 24 || minutes > 59 || seconds > 60 {
        return None;
    }
    let fraction = number(&format!("{fraction:0<6}"), 6..=6)?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction)
}

/// Where the offset begins (`Z`, `+02`, `-03:30`), and how many microseconds it stands for.
fn offset(text: &str) -> Option<(usize, i64)> {
    if let Some(at) = text.strip_suffix('Z').map(str::len) {
        return Some((at, 0));
    }
    let at = text.rfind(['+', '-'])?;
    let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
    let mut parts = text[at + 1..].splitn(3, ':');
    let hours = number(parts.next()?, 2..=2)?;
    let minutes = parts.next().map_or(Some(0), |part| number(part, 2..=2))?;
    let seconds = parts.next().map_or(Some(0), |part| number(part, 2..=2))?;
    Some((at, sign * ((hours * 60 + minutes) * 60 + seconds) * 1_000_000))
}

/// Reads a date or a timestamp, with or without an offset; `T` or a space stands between date and time.
pub(crate) fn moment(text: &str) -> Option<(Moment, Shape)> {
    let endless = Shape { has_time: false, has_offset: false };
    match text {
        "infinity" => return Some((Moment::After, endless)),
        "-infinity" => return Some((Moment::Before, endless)),
        _ => {}
    }
    let (text, is_bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (day, rest) = match text.find(['T', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let days = if is_bc { bc(day)? } else { date(day)? };
    let (time, offset_us) = match rest {
        None => (0, None),
        Some(rest) => match offset(rest) {
            Some((at, offset)) => (clock(&rest[..at])?, Some(offset)),
            None => (clock(rest)?, None),
        },
    };
    let shape = Shape { has_time: rest.is_some(), has_offset: offset_us.is_some() };
    let at = i128::from(days) * 86_400_000_000 + i128::from(time) - i128::from(offset_us.unwrap_or(0));
    Some((Moment::At(at), shape))
}

/// A day before our era: the year 1 BC is the year 0 of the calendar that computers use.
fn bc(text: &str) -> Option<i64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (1 - number(year, 4..=9)?, number(month, 2..=2)?, number(day, 2..=2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Whether `text` is a time of day, with or without an offset.
pub(crate) fn is_time(text: &str, with_offset: bool) -> bool {
    match offset(text) {
        Some((at, _)) => with_offset && clock(&text[..at]).is_some(),
        None => !with_offset && clock(text).is_some(),
    }
}

/// Compares two dates or timestamps; `None` when one is none.
pub(crate) fn compare(left: &str, right: &str) -> Option<Ordering> {
    Some(moment(left)?.0.cmp(&moment(right)?.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_compare_by_time() {
        for (left, right, order) in [
            ("2024-02-29", "2024-03-01", Ordering::Less),
            ("2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01", Ordering::Equal),
            ("2024-01-01 00:00:00.5-03:30", "2024-01-01T03:30:00.500Z", Ordering::Equal),
            ("10000-01-01", "9999-12-31", Ordering::Greater),
            ("0044-03-15 BC", "0043-03-15 BC", Ordering::Less),
            ("0001-12-31 BC", "0001-01-01", Ordering::Less),
            ("infinity", "9999-12-31", Ordering::Greater),
            ("-infinity", "4713-01-01 BC", Ordering::Less),
            ("2024-01-01", "2024-01-01T00:00:00", Ordering::Equal),
        ] {
            assert_eq!(compare(left, right), Some(order), "{left} {right}");
        }
        for bad in
            ["", "2024", "2024-13-01", "2023-02-29", "2024-1-1", "2024-01-01T", "2024-01-01T25:00:00", "x"]
        {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_recognised() {
        assert!(is_time("12:30:00.25", false) && is_time("12:30:00+02", true));
        assert!(!is_time("12:30", false) && !is_time("12:30:00", true) && !is_time("12:30:00Z", false));
    }

    #[test]
    fn timestamps_of_records() {
        assert_eq!(from_epoch_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(from_epoch_ms(1_709_164_799_999), "2024-02-28T23:59:59.999Z");
        assert_eq!(from_epoch_ms(-1), "1969-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn record_timestamps_come_back(ms in -62_135_596_800_000i64..253_402_300_800_000) {
            let expected = Moment::At(i128::from(ms) * 1_000);
            prop_assert_eq!(moment(&from_epoch_ms(ms)).map(|(moment, _)| moment), Some(expected));
        }

        #[test]
        fn nothing_panics(text in "[-+0-9:T BCZ.]{0,30}") {
            let _ = (moment(&text), is_time(&text, true));
        }
    }
}
