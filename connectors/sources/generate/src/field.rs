//! What a generated field holds.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use towpath_api::{RowWriter, Type};

/// 2024-01-01 00:00:00 UTC in milliseconds: time in generated records begins here and goes on a second a record.
const EPOCH_MS: i64 = 1_704_067_200_000;
const WORDS: [&str; 16] = [
    "lock", "barge", "towpath", "basin", "weir", "sluice", "bridge", "mooring", "tiller", "winding",
    "aqueduct", "tunnel", "wharf", "quay", "flight", "pound",
];

/// The kinds, as the documentation lists them.
pub(crate) const KINDS: &str = "sequence, int(min,max), decimal(min,max), float, bool, word, text(bytes), uuid, \
                                timestamp, choice(a,b,…)";

/// A field's kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Sequence,
    Int(i64, i64),
    Decimal(i64, i64),
    Float,
    Bool,
    Word,
    Text(usize),
    Uuid,
    Timestamp,
    Choice(Vec<String>),
}

impl Kind {
    /// Reads `int(1,6)` and its like; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, arguments) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')').ok_or("the `)` is missing")?),
            None => (text, ""),
        };
        let arguments: Vec<_> =
            arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty()).collect();
        let range = || -> Result<(i64, i64), String> {
            let [min, max] = arguments.as_slice() else { return Err(format!("write {name}(min,max)")) };
            match (min.parse(), max.parse()) {
                (Ok(min), Ok(max)) if min <= max => Ok((min, max)),
                _ => Err(format!("write {name}(min,max) with whole numbers, the smaller one first")),
            }
        };
        let plain = |kind: Self| {
            if arguments.is_empty() { Ok(kind) } else { Err(format!("`{name}` takes nothing in brackets")) }
        };
        match name {
            "sequence" => plain(Self::Sequence),
            "int" => range().map(|(min, max)| Self::Int(min, max)),
            "decimal" => range().map(|(min, max)| Self::Decimal(min, max)),
            "float" => plain(Self::Float),
            "bool" => plain(Self::Bool),
            "word" => plain(Self::Word),
            "text" => match arguments.as_slice() {
                [bytes] => match bytes.parse() {
                    Ok(bytes) if (1..=1_000_000).contains(&bytes) => Ok(Self::Text(bytes)),
                    _ => Err("write text(bytes) with 1 to 1000000 bytes".to_owned()),
                },
                _ => Err("write text(bytes)".to_owned()),
            },
            "uuid" => plain(Self::Uuid),
            "timestamp" => plain(Self::Timestamp),
            "choice" if !arguments.is_empty() => {
                Ok(Self::Choice(arguments.iter().map(|word| (*word).to_owned()).collect()))
            }
            "choice" => Err("write choice(a,b,…)".to_owned()),
            other => Err(format!("there is no kind `{other}`; the kinds are {KINDS}")),
        }
    }

    pub(crate) const fn ty(&self) -> Type {
        match self {
            Self::Sequence | Self::Int(..) => Type::Int64,
            Self::Decimal(..) => Type::Decimal,
            Self::Float => Type::Float64,
            Self::Bool => Type::Bool,
            Self::Uuid => Type::Uuid,
            Self::Timestamp => Type::Timestamp,
            Self::Word | Self::Text(_) | Self::Choice(_) => Type::String,
        }
    }

    /// Writes the value of record `number`.
    pub(crate) fn write(&self, writer: &mut RowWriter<'_>, number: u64, random: &mut ChaCha8Rng) {
        match self {
            Self::Sequence => writer.int(number as i64),
            Self::Int(min, max) => writer.int(random.random_range(*min..=*max)),
            Self::Decimal(min, max) => {
                let cents = random.random_range(i128::from(*min) * 100..=i128::from(*max) * 100);
                writer.text(&decimal_text(cents));
            }
            Self::Float => writer.float64(random.random()),
            Self::Bool => writer.bool(random.random()),
            Self::Word => writer.text(WORDS[random.random_range(0..WORDS.len())]),
            Self::Text(bytes) => {
                let text: String =
                    (0..*bytes).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
                writer.text(&text);
            }
            Self::Uuid => writer.text(&uuid_text(random.random())),
            Self::Timestamp => writer.text(&timestamp_text(timestamp_ms(number) / 1000)),
            Self::Choice(words) => writer.text(&words[random.random_range(0..words.len())]),
        }
    }
}

fn decimal_text(cents: i128) -> String {
    let (sign, cents) = (if cents < 0 { "-" } else { "" }, cents.unsigned_abs());
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// The time of record `number`.
pub(crate) const fn timestamp_ms(number: u64) -> i64 {
    // A century of seconds, then again: dates stay in a range that every database has.
    EPOCH_MS + (number % 3_155_760_000) as i64 * 1000
}

fn uuid_text(bits: u128) -> String {
    let bits = bits & !(0xf << 76) | 4 << 76;
    let bits = bits & !(0x3 << 62) | 2 << 62;
    let digits = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// Seconds since 1970 as `YYYY-MM-DDTHH:MM:SS` (Howard Hinnant's civil-from-days, for dates after 1970).
fn timestamp_text(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn kinds_are_read_and_bad_ones_are_told() {
        assert_eq!(Kind::parse("int( 1, 6 )"), Ok(Kind::Int(1, 6)));
        assert_eq!(Kind::parse("choice(a,b)"), Ok(Kind::Choice(vec!["a".into(), "b".into()])));
        assert_eq!(Kind::parse("text(10)"), Ok(Kind::Text(10)));
        for bad in ["int", "int(6,1)", "int(1", "wrd", "text(0)", "bool(1)", "choice()", ""] {
            assert!(Kind::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn decimals_stay_within_their_bounds() {
        for (cents, text) in [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (-500, "-5.00"), (99_999, "999.99")] {
            assert_eq!(decimal_text(cents), text);
        }
        let schema =
            Arc::new(towpath_api::RowSchema::new(vec![towpath_api::Field::required("d", Type::Decimal)]));
        let event = Arc::new(towpath_api::EventSchema::new("t", schema));
        let mut builder = towpath_api::BatchBuilder::new();
        for number in 0..2000 {
            let mut random = ChaCha8Rng::seed_from_u64(number);
            let kind = if number < 1000 { Kind::Decimal(-2, 1) } else { Kind::Decimal(i64::MIN, i64::MAX) };
            let mut record = builder.record(&event);
            record.after(|row| kind.write(row, number, &mut random));
            record.finish();
        }
        let mut seen = std::collections::BTreeSet::new();
        for record in builder.build().records().take(1000) {
            let towpath_api::Value::Text(text) = record.after().unwrap().get(0) else { unreachable!() };
            let value: f64 = text.parse().unwrap();
            assert!((-2.0..=1.0).contains(&value), "{text}");
            seen.insert(text.to_owned());
        }
        assert!(seen.iter().any(|text| text.starts_with("-0.")) && seen.len() > 200, "{} values", seen.len());
    }

    #[test]
    fn time_is_written_right() {
        assert_eq!(timestamp_text(0), "1970-01-01T00:00:00");
        assert_eq!(timestamp_text(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(timestamp_text(timestamp_ms(86_399) / 1000), "2024-01-01T23:59:59");
    }

    #[test]
    fn uuids_are_version_4() {
        let text = uuid_text(u128::MAX);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
